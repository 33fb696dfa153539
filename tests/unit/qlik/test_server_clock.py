"""The bounds of a server's time: the truth lies between them, whatever the headers leave out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.clock import Clock
from appliance.qlik.server_clock import DRIFT, UNKNOWN_NS, ServerClock

S = 1_000_000_000
MS = S // 1000
START = 1_790_000_000 * S


class World:
    """Two clocks that drift apart, and a server that is slow to renew its Date header."""

    def __init__(self, ahead_ns: int, drift: float) -> None:
        self.now = START
        self.clock = ServerClock(lambda: self.now)
        self._ahead = ahead_ns
        self._drift = drift

    def server(self) -> int:
        return self.now + self._ahead + int((self.now - START) * self._drift)

    def ask(self, way_ns: int, age_ns: int) -> None:
        """One request: half of the way there, an answer with a Date that is this old, and back."""
        sent = self.now
        self.now += way_ns
        date = (self.server() - age_ns) // S * S
        self.now += way_ns
        self.clock.saw_date(date, sent, self.now)

    def run(self, way_ns: int) -> None:
        """A start call of ours: the server makes the run, and tells of it later."""
        sent = self.now
        self.now += way_ns
        made = self.server() // MS * MS
        self.now += way_ns
        self.clock.saw_run(made, sent)

    def is_right(self) -> bool:
        made = self.server() // MS * MS
        first, last = self.clock.between(made)
        return first <= self.now <= last


ways = st.integers(0, 3 * S)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), ways, st.integers(0, S)),
        st.tuples(st.just("run"), ways, st.just(0)),
        st.tuples(st.just("pass"), st.integers(0, 10_000 * S), st.just(0)),
    ),
    max_size=30,
)


@given(
    ahead=st.integers(-4 * 3600 * S, 4 * 3600 * S),
    drift=st.floats(-DRIFT * 0.9, DRIFT * 0.9),
    steps=steps,
)
@settings(max_examples=80, deadline=None)
def test_the_truth_lies_between_the_bounds(ahead: int, drift: float, steps: list) -> None:
    """After each answer and each run, however slow the way and however late the header."""
    world = World(ahead, drift)
    world.ask(0, 0)
    for what, first, second in steps:
        if what == "ask":
            world.ask(first, second)
        elif what == "run":
            world.run(first)
        else:
            world.now += first
        assert world.is_right(), (what, first, second)


def test_answers_and_runs_narrow_the_bounds() -> None:
    """Whole seconds tell little; a run of ours tells milliseconds."""
    world = World(3600 * S, 0.0)
    assert world.clock.doubt_s() == 2 * UNKNOWN_NS / S
    world.ask(MS, 0)
    assert world.clock.doubt_s() > 1.9
    for _ in range(40):
        world.now += 1030 * MS
        world.ask(MS, 0)
    assert world.clock.doubt_s() < 1.2
    world.run(2 * MS)
    assert world.clock.doubt_s() < 0.2


def test_a_clock_that_is_set_is_noticed() -> None:
    """The server's by its header; ours is told, and changes nothing."""
    world = World(0, 0.0)
    world.ask(MS, 0)
    world.run(MS)
    world._ahead += 3600 * S
    assert not world.is_right()
    world.ask(MS, 0)
    assert world.is_right()

    world._ahead += S
    for _ in range(40):
        world.now += 1030 * MS
        world.ask(MS, 0)
    assert world.is_right()

    wall = [START]
    steady = [0]
    ours = Clock(lambda: wall[0], lambda: steady[0])
    clock = ServerClock(ours)
    clock.saw_date(START, START, START)
    before = clock.between(START)
    wall[0] += 500 * S
    ours.adopt(ours.step_ns())
    assert clock.between(START) == (before[0] + 500 * S, before[1] + 500 * S)
