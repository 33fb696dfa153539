"""The run limit: how long the appliance runs, and what an operator may do about it."""

from __future__ import annotations

import asyncio

from appliance.engine.run_limit import NAME, RunLimit
from appliance.engine_api import TimerState

SECOND_NS = 1_000_000_000


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.ahead_s = 0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return int((self.now_s + self.ahead_s) * SECOND_NS)


async def test_it_ends_by_itself_and_at_once_when_it_is_fired() -> None:
    """The time is over when it is over; an operator need not wait for it."""
    await RunLimit(0.01).wait()
    limit = RunLimit(3600)
    waiting = asyncio.create_task(limit.wait())
    await asyncio.to_thread(limit.fire)
    await waiting


async def test_a_pause_costs_none_of_the_time() -> None:
    """While it is paused there is no end; let go on, it ends after what was left."""
    clock = Clock()
    limit = RunLimit(60, clock.time_ns, clock.monotonic)
    assert limit.state() == TimerState(NAME, NAME, None)
    waiting = asyncio.create_task(limit.wait())
    await asyncio.sleep(0)
    assert limit.state() == TimerState(NAME, NAME, 1060 * SECOND_NS)
    clock.ahead_s += 48 * 3600
    assert limit.until_ns == (1060 + 48 * 3600) * SECOND_NS, "the clock was set"
    clock.ahead_s = 0
    clock.now_s += 20
    limit.pause(True)
    assert limit.state() == TimerState(NAME, NAME, None, paused=True)
    clock.now_s += 1000
    await asyncio.sleep(0)
    assert not waiting.done()
    limit.pause(False)
    assert limit.until_ns == (2020 + 40) * SECOND_NS
    clock.now_s += 41
    limit.pause(False)
    await waiting
