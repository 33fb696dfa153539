"""Which steps of a connection count as lag, and when there were too many."""

from __future__ import annotations

import gc

import pytest

from appliance.broker import lag


class Clocks:
    def __init__(self) -> None:
        self.now = self.cpu = 0.0
        self.collections = lag.Collections(lambda: self.cpu)
        self.account = lag.Lag(self.collections, clock=lambda: self.now, cpu_clock=lambda: self.cpu)

    def step(self, cpu_s: float, *, collected_s: float = 0.0) -> float:
        self.account.begin()
        self.cpu += cpu_s
        if collected_s:
            self.collections._note("start", {"generation": 2})
            self.cpu += collected_s
            self.collections._note("stop", {"generation": 2})
        return self.account.end()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_short_steps_never_count(clocks: Clocks) -> None:
    """A busy publisher's steps are short, however many there are."""
    assert not any(clocks.step(0.015) for _ in range(10_000))
    assert not clocks.account.is_too_much


def test_long_steps_that_come_again_and_again_are_too_much(clocks: Clocks) -> None:
    """Their time is added up, and one or two never suffice."""
    assert clocks.step(5.0) == pytest.approx(5.0)
    assert not clocks.account.is_too_much
    clocks.step(0.1)
    assert not clocks.account.is_too_much
    clocks.step(0.1)
    assert clocks.account.is_too_much


def test_a_rare_long_step_is_forgiven(clocks: Clocks) -> None:
    """One of 50 ms every ten seconds goes on for ever."""
    for _ in range(1000):
        clocks.now += 10
        assert clocks.step(0.05) > 0
        assert not clocks.account.is_too_much


def test_garbage_collection_is_not_the_clients_work(clocks: Clocks) -> None:
    """A full collection, in whichever step it comes, counts for no connection."""
    for _ in range(100):
        assert clocks.step(0.01, collected_s=0.4) == 0


def test_a_collection_is_measured() -> None:
    """The interpreter tells of each full one, until the measuring ends."""
    collections = lag.Collections()
    collections.begin()
    try:
        gc.collect()
        spent = collections.spent_s
        assert spent > 0
    finally:
        collections.end()
    gc.collect()
    assert collections.spent_s == spent


def test_steps_are_looked_at_closely_for_a_while(clocks: Clocks) -> None:
    """A minute after the last long step, or when all of them are forgiven if that is later."""
    clocks.step(0.05)
    clocks.now += lag.REMEMBERED_S - 1
    assert not clocks.account.is_forgotten
    clocks.step(0.05)
    clocks.now += lag.REMEMBERED_S - 1
    assert not clocks.account.is_forgotten
    clocks.now += 2
    assert clocks.account.is_forgotten
    clocks.step(0.9)
    clocks.now += lag.REMEMBERED_S + 1
    assert not clocks.account.is_forgotten
    clocks.now += 0.9 / lag.FORGIVEN
    assert clocks.account.is_forgotten
