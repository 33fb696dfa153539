"""Start calls go before pictures, within bounds."""

from __future__ import annotations

from appliance.right_of_way import LONGEST_S, REST_S, RightOfWay


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


def make() -> tuple[RightOfWay, Clock]:
    clock = Clock()
    return RightOfWay(clock, clock.sleep), clock


def test_nobody_waits_where_nobody_claims() -> None:
    """A frame costs nothing more while no start is on its way."""
    way, clock = make()
    way.give_way()
    assert clock.slept == 0


def test_a_claim_that_is_not_released_ends_by_itself() -> None:
    """A message that started nothing keeps the pictures still for five milliseconds, not more."""
    way, clock = make()
    way.claim()
    way.give_way()
    assert LONGEST_S <= clock.slept < LONGEST_S + 0.001
    way.give_way()
    assert clock.slept < LONGEST_S + 0.001


def test_a_start_call_that_has_left_lets_the_pictures_go_on() -> None:
    way, clock = make()
    way.claim()
    way.release()
    way.give_way()
    assert clock.slept == 0


def test_messages_one_upon_the_other_slow_the_pictures_by_a_tenth() -> None:
    """Whoever claims all the time has a tenth of the time."""
    way, clock = make()
    began = clock.now
    while clock.now < began + 1:
        way.claim()
        way.give_way()
        clock.now += 0.0005  # a piece of a frame
    share = LONGEST_S / (LONGEST_S + REST_S)
    assert share * 0.9 < clock.slept < share * 1.2


def test_it_is_minded_while_anybody_gives_way() -> None:
    """Nobody need find out whether a message may start a task while nobody would wait for it."""
    way, _ = make()
    assert not way.is_minded
    with way.minded():
        with way.minded():
            assert way.is_minded
        assert way.is_minded
    assert not way.is_minded
