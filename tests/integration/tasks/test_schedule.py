"""Timers at work: with the database, the server and the operator."""

from __future__ import annotations

from pathlib import Path

import pytest
from tasks_rig import START_TOPIC, MemorySource, Rig, client_of

from appliance.counters import Counter
from appliance.config.tables import TriggerConfig
from appliance.errors import UsageError
from appliance.model import ExecutionState
from appliance.qlik.simulated import ManualClock, SimulatedQlik
from appliance.config.tables import PublishConfig, TimerConfig


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def test_a_timer_starts_its_task_and_publishes(qlik, tmp_path: Path) -> None:
    """An operator fires it early; the cause of the execution is the timer, by name."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    timer = TimerConfig(
        name="nightly",
        cron="0 3 * * *",
        task={"name": "Reload sales"},
        publish=PublishConfig(topic="plant/night", payload='{"go": true}', retain=True),
    )
    with Rig(tmp_path / "tasks.db", client_of(qlik), timers=(timer,)) as rig:
        state = rig.engine.timers()[0]
        assert (state.name, state.kind, state.paused) == ("nightly", "schedule", False)
        assert state.due_ns is not None
        rig.engine.fire_timer("nightly", "terminal")
        rig.broker.wait_for(task.id, "succeeded")
        assert rig.newest().cause.kind == "timer"
        assert rig.newest().cause.rule == "nightly"
        (told,) = [one for one in rig.broker.published if one[0] == "plant/night"]
        assert told[1:3] == ({"go": True}, True)
        assert rig.engine.timers()[0] == state
        rig.engine.pause_timer("nightly", True, "terminal")
    with Rig(tmp_path / "tasks.db", client_of(qlik), timers=(timer,)) as again:
        assert again.engine.timers()[0].paused
        with pytest.raises(UsageError, match='no timer "other"'):
            again.engine.fire_timer("other", "terminal")


def test_a_time_is_not_run_twice_over_a_restart(tmp_path: Path) -> None:
    """A timer that fired is not caught up by the next run of the appliance; what was missed while
    it was down is, once."""
    timer = TimerConfig(
        name="hourly", every=3600, publish=PublishConfig(topic="tick", payload="1"), catch_up=True
    )
    clock = ManualClock()
    source = MemorySource()
    fired = []
    for down_s, expected in ((0, 0), (3000, 0), (700, 1), (10, 0), (5 * 3600, 1)):
        clock.advance(down_s)
        settings = {"timers": (timer,), "clock_ns": clock, "source": source}
        with Rig(tmp_path / "tasks.db", None, **settings) as rig:
            rig.source.put(START_TOPIC, "x")
            rig.wait_until(lambda: rig.engine.counters().get(Counter.MESSAGES_REJECTED))
            rig.wait_until(lambda: rig.engine.counters().get(Counter.TIMERS_FIRED, 0) >= expected)
        fired.append(len(rig.broker.published))
        assert fired[-1] == expected, fired


def test_silence_raises_an_alarm_and_a_message_clears_it(tmp_path: Path) -> None:
    """Both are published, retained, on the alarm's topic."""
    watch = TimerConfig(name="line 7", silence=600, topic="plant/7/#")
    clock = ManualClock()
    with Rig(tmp_path / "tasks.db", None, timers=(watch,), clock_ns=clock) as rig:
        assert rig.engine.timers()[0].kind == "silence"
        clock.advance(601)
        rig.engine._state.wake_all()
        alarms = rig.broker.wait_until(lambda: rig.broker.published)
        assert (alarms[0][0], alarms[0][2]) == ("appliance/alarms/line 7", True)
        assert alarms[0][1]["state"] == "raised"
        rig.source.put("plant/7/temperature", "21", received_ns=clock())
        rig.broker.wait_until(lambda: len(rig.broker.published) == 2)
        assert rig.broker.published[1][1]["state"] == "cleared"


def test_an_alarm_can_be_tried_out(tmp_path: Path) -> None:
    """Fired by an operator, a silence watch raises its alarm at once, and only once; a message
    clears it, and the watch goes on."""
    watch = TimerConfig(name="line 7", silence=600, topic="plant/7/#")
    clock = ManualClock()
    with Rig(tmp_path / "tasks.db", None, timers=(watch,), clock_ns=clock) as rig:
        rig.engine.fire_timer("line 7", "anna")
        rig.broker.wait_until(lambda: rig.broker.published)
        assert rig.engine.timers()[0].is_alarm
        with pytest.raises(UsageError, match="raised already"):
            rig.engine.fire_timer("line 7", "anna")
        rig.source.put("plant/7/temperature", "21", received_ns=clock())
        rig.broker.wait_until(lambda: len(rig.broker.published) == 2)
        states = [body["state"] for _, body, _, _ in rig.broker.published]
        assert states == ["raised", "cleared"]
        assert rig.engine.timers()[0].due_ns == clock() + 600 * 10**9


def test_a_request_s_wait_can_be_paused_and_ended(qlik, tmp_path: Path) -> None:
    """Debounce, cooldown and retry stand among the timers; an operator pauses or ends a wait."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    rule = TriggerConfig(topic=START_TOPIC, task="payload", debounce=3600)
    with Rig(tmp_path / "tasks.db", client_of(qlik), rule) as rig:
        rig.engine.tasks()
        rig.source.put(START_TOPIC, task.id)
        (wait,) = rig.wait_until(lambda: rig.engine.timers())
        assert (wait.name, wait.kind) == ("Reload sales #1", "debounce")
        rig.engine.pause_timer(wait.name, True, "terminal")
        assert rig.engine.timers()[0].paused
        rig.engine.pause_timer(wait.name, False, "terminal")
        assert rig.engine.timers()[0].due_ns == wait.due_ns
        rig.engine.fire_timer(wait.name, "terminal")
        rig.broker.wait_for(task.id, "succeeded")
        assert qlik.starts() == 1
        assert rig.newest().state is ExecutionState.SUCCEEDED
