"""Why a message started nothing, and which waits an operator may end: over real HTTP."""

from __future__ import annotations

import time

import msgspec
import pytest
from tasks_rig import QUICK, MemorySource, START_TOPIC, Rig, client_of, start_trigger

from appliance.config.tables import AllowConfig, TriggerConfig
from appliance.errors import UsageError
from appliance.model import ExecutionState
from appliance.qlik.simulated import Outcome, SimulatedQlik
from appliance.qlik.simulated.faults import FaultKind
from appliance.tasks.engine import TaskEngine

SLACK_NS = 2 * 10**9
"""The time of the next check is counted anew twice a second."""


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def explained(engine: TaskEngine, message) -> str:
    return " ".join(engine.explain(message).reasons)


def test_nothing_is_never_without_a_reason(qlik, tmp_path) -> None:
    """No trigger, a condition, a retained message, a redelivery, a payload without a task."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    rules = (
        start_trigger(),
        TriggerConfig(
            topic="plant/+/done", task={"name": "Reload HR"}, when={"state": "done"}, name="quality"
        ),
    )
    with Rig(tmp_path / "tasks.db", client_of(qlik), *rules) as rig:
        source = rig.source
        other = source.put("hall/door", "open")
        unmet = source.put("plant/7/done", '{"state": "running"}')
        cleared = source.put(START_TOPIC, "", retain=True)
        nonsense = source.put(START_TOPIC, "nonsense")
        first = source.put(START_TOPIC, task.id, qos=1, packet_id=7)
        again = source.put(START_TOPIC, task.id, qos=1, packet_id=7, dup=True)
        marks = rig.wait_until(
            lambda: (
                (found := rig.engine.marks([again.seq, unmet.seq])) and len(found) == 2 and found
            )
        )
        assert explained(rig.engine, other) == "No trigger listens on its topic."
        assert (
            explained(rig.engine, unmet)
            == 'Trigger quality: state = "done" does not hold: found "running".'
        )
        assert marks[unmet.seq].label == "not met"
        assert "only clears the topic" in explained(rig.engine, cleared)
        assert "JSON" in explained(rig.engine, nonsense)
        assert "from a client that got no answer" in explained(rig.engine, again)
        assert task.id in explained(rig.engine, first)
        with pytest.raises(UsageError, match='found "running"'):
            rig.engine.repeat(unmet, "ann")


def test_a_change_of_the_rules_is_said(qlik, tmp_path) -> None:
    """What the rules say now need not be what they said then."""
    with Rig(tmp_path / "tasks.db", client_of(qlik), start_trigger()) as rig:
        before_ns = time.time_ns() - 10**9
        message = rig.source.put("hall/door", "open", received_ns=before_ns)
        rig.wait_until(lambda: rig.engine._consumer._cursors.taken >= message.seq)
        rig.engine.take(
            rig.engine.rules_of(
                [TriggerConfig(topic="hall/#", task="payload")], [], AllowConfig(), []
            )
        )
        assert "changed since it came" in explained(rig.engine, message)


def test_an_operator_ends_the_waits_that_may_be_ended(qlik, tmp_path) -> None:
    """During an outage a retry is tried at once. A start call that may have been carried out is
    not repeated before a look, and a task that runs is not started twice: both say why."""
    task = qlik.add_task("Reload HR", duration_s=30.0)
    slow = msgspec.structs.replace(QUICK, backoff_first_s=600.0, backoff_most_s=600.0)
    with Rig(
        tmp_path / "tasks.db", client_of(qlik), start_trigger(), limits=slow, health_check_s=600.0
    ) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        qlik.fail(FaultKind.STATUS, method="POST", status=429, times=1)
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: rig.states() == [ExecutionState.RETRYING])
        (wait,) = rig.engine.waits()
        assert (wait.kind, wait.execution) == ("retry", 1)
        rig.engine.fire_timer(wait.name, "ann")
        rig.wait_until(lambda: rig.states()[0] in (ExecutionState.QUEUED, ExecutionState.RUNNING))
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: rig.engine.waits())
        (blocked,) = rig.engine.waits()
        assert blocked.kind == "run"
        with pytest.raises(UsageError, match="the task runs"):
            rig.engine.fire_timer(blocked.name, "ann")
    assert task.runs == 1


def test_a_call_that_may_have_been_carried_out_is_looked_for_first(qlik, tmp_path) -> None:
    task = qlik.add_task("Reload HR", duration_s=0.05)
    slow = msgspec.structs.replace(QUICK, look_first_s=600.0, look_settle_s=600.0)
    with Rig(
        tmp_path / "tasks.db", client_of(qlik), start_trigger(), limits=slow, health_check_s=600.0
    ) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        qlik.fail(FaultKind.DROP_BEFORE, method="POST", times=1)
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: any(one.kind == "look" for one in rig.engine.waits()))
        (wait,) = rig.engine.waits()
        with pytest.raises(UsageError, match="may have been carried out"):
            rig.engine.fire_timer(wait.name, "ann")
    assert task.runs == 0


def test_an_outage_says_since_when_and_when_it_is_tried_next(qlik, tmp_path) -> None:
    """No wait has a time in the past; an operator has the server asked at once."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik), start_trigger(), health_check_s=600.0) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        qlik.stop()
        rig.source.put(START_TOPIC, task.id)
        state = rig.wait_until(lambda: (found := rig.engine.qlik_state()).is_away and found)
        assert state.away_since_ns is not None
        assert state.health.text.startswith("The connection was refused")
        rig.wait_until(lambda: rig.engine.waits())
        next_check_ns = rig.engine.qlik_state().next_check_ns
        (wait,) = rig.engine.waits()
        assert wait.until_ns >= next_check_ns - SLACK_NS
        assert all(one.due_ns >= next_check_ns - SLACK_NS for one in rig.engine.timers())
        rig.engine.check_server("ann")
        rig.engine.fire_timer(wait.name, "ann")


def test_a_task_that_fails_is_named_over_a_restart(qlik, tmp_path) -> None:
    """Until it succeeds: a restart forgets neither the failure nor, later, the success."""
    source = MemorySource()
    task = qlik.add_task("Reload HR", duration_s=0.05, outcomes=(Outcome.FAIL,))
    with Rig(tmp_path / "tasks.db", client_of(qlik), start_trigger(), source=source) as rig:
        rig.engine.tasks()
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "failed")
        (named,) = rig.wait_until(lambda: rig.engine.failing().named)
        assert (named.name, named.state) == ("Reload HR", ExecutionState.FAILED)
        assert named.reason
    with Rig(tmp_path / "tasks.db", client_of(qlik), start_trigger(), source=source) as again:
        assert again.engine.failing().total == 1
        task.outcomes = (Outcome.SUCCESS,)
        again.engine.start_task(task.id, "ann")
        again.broker.wait_for(task.id, "succeeded")
        again.wait_until(lambda: not again.engine.failing().total)
    with Rig(tmp_path / "tasks.db", client_of(qlik), start_trigger(), source=source) as last:
        assert last.engine.failing() == (0, 0, ())
