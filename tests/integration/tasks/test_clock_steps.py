"""The system's clock is set while requests and timers wait, and between two runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tasks_rig import START_TOPIC, MemorySource, Rig, client_of, start_trigger

from appliance.clock import Clock
from appliance.config.tables import PublishConfig, TimerConfig
from appliance.model import ExecutionState
from appliance.qlik.simulated import SimulatedQlik

SECOND = 1_000_000_000
STEPS = [-5 * 3600 * SECOND, 48 * 3600 * SECOND]
TICK = PublishConfig(topic="tick", payload="1")
EVERY = TimerConfig(name="every", every=0.5, publish=TICK, catch_up=True)
QUIET = TimerConfig(name="quiet", silence=3600, topic="plant/#")


class SetClock:
    """A system's clock that can be set."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead

    def clock(self) -> Clock:
        return Clock(self, time.monotonic_ns)


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


@pytest.mark.parametrize("step", STEPS)
def test_waits_keep_their_length_when_the_clock_is_set(qlik, tmp_path: Path, step: int) -> None:
    """A debounce, an interval, a silence and a run that is followed: nothing ends at once, nothing
    waits for hours, and no timer fires for the step."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    long = qlik.add_task("Reload long", duration_s=1.2)
    wall = SetClock()
    settings = {"clock_ns": wall.clock(), "timers": (EVERY, QUIET), "boot_ns": 0}
    with Rig(tmp_path / "tasks.db", client_of(qlik), start_trigger(0.7), **settings) as rig:
        rig.engine.start_task(long.id, "ann")
        rig.broker.wait_for(long.id, "running")
        rig.source.put(START_TOPIC, task.id, received_ns=wall())
        rig.wait_until(lambda: rig.states()[-1] is ExecutionState.WAITING)
        began = time.monotonic()
        fired = len(rig.broker.published)
        wall.ahead += step
        assert qlik.starts(task.id) == 0
        rig.broker.wait_for(task.id, "succeeded")
        rig.broker.wait_for(long.id, "succeeded")
        ticks = sum(topic == "tick" for topic, *_ in rig.broker.published[fired:])
        assert ticks <= (time.monotonic() - began) / 0.5 + 1
        assert not any("alarms" in topic for topic, *_ in rig.broker.published)
        assert abs(rig.newest().requested_ns - wall()) < 60 * SECOND
    assert qlik.starts(long.id) == 1


def test_waits_go_on_when_the_clock_was_set_back_between_two_runs(qlik, tmp_path: Path) -> None:
    """What waits for a debounce or an interval does not wait until the clock has caught up."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    wall, source = SetClock(), MemorySource()
    path, trigger = tmp_path / "tasks.db", start_trigger(0.5)
    settings = {"timers": (EVERY,), "source": source}
    wall.ahead = 5 * 3600 * SECOND
    with Rig(path, client_of(qlik), trigger, clock_ns=wall.clock(), boot_ns=0, **settings) as rig:
        source.put(START_TOPIC, task.id, received_ns=wall())
        rig.wait_until(lambda: rig.states() == [ExecutionState.WAITING])
    wall.ahead = 0
    with Rig(path, client_of(qlik), trigger, clock_ns=wall.clock(), boot_ns=0, **settings) as rig:
        rig.broker.wait_for(task.id, "succeeded")
        rig.broker.wait_until(lambda: any(topic == "tick" for topic, *_ in rig.broker.published))
    assert qlik.starts(task.id) == 1
