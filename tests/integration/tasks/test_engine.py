"""From a message to a finished run, against the simulated server over real HTTP."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from appliance_process import until

from appliance.model import ExecutionState
from appliance.qlik.simulated import SimulatedQlik
from tasks_rig import START_TOPIC, Rig, client_of


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def test_a_message_starts_its_task_and_the_outcome_is_published(qlik, tmp_path: Path) -> None:
    """A task id on the start topic starts the task once; its outcome is told and marked."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.engine.tasks()
        message = rig.source.put(START_TOPIC, f" {task.id.upper()}\n")
        rig.broker.wait_for(task.id, "succeeded")
        rig.broker.wait_until(
            lambda: any(topic.endswith("/last") for topic, *_ in rig.broker.published)
        )
        assert qlik.starts() == qlik.starts(task.id) == 1
        states = rig.broker.states(task.id)
        assert states[0] in ("requested", "starting")
        assert states[-1] == "succeeded"
        topic, body, retain, _ = rig.broker.published[-1]
        assert (topic, retain) == (f"appliance/tasks/{task.id}/last", True)
        assert body["taskName"] == "Reload sales"
        assert body["cause"] == {
            "kind": "message",
            "topic": START_TOPIC,
            "seq": message.seq,
            "client": "plc-1",
            "rule": START_TOPIC,
        }
        assert body["executionId"]
        assert body["durationSeconds"] is not None
        mark = rig.engine.marks([message.seq])[message.seq]
        assert mark.state is ExecutionState.SUCCEEDED
        assert mark.execution == rig.newest().id
        rule = rig.engine.rules()[0]
        assert (rule.matched, rule.started, rule.rejected) == (1, 1, 0)


def test_a_server_that_is_down_gets_the_request_when_it_is_back(qlik, tmp_path: Path) -> None:
    """While the server refuses connections the request waits; then it is started, once."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    client = client_of(qlik)
    qlik.refuse()
    with Rig(tmp_path / "tasks.db", client) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "bad")
        rig.wait_until(lambda: rig.states() and not rig.states()[0].is_final)
        qlik.heal()
        rig.broker.wait_for(task.id, "succeeded")
        assert qlik.starts() == 1
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")


def test_a_request_survives_a_restart(qlik, tmp_path: Path) -> None:
    """A request that could not be started is started by the next run of the appliance."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    client = client_of(qlik)
    qlik.refuse()
    with Rig(tmp_path / "tasks.db", client) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: rig.states())
    qlik.heal()
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=rig.source) as again:
        again.broker.wait_for(task.id, "succeeded")
        assert qlik.starts() == 1
        assert len(again.engine.executions(10)) == 1


def test_a_run_is_followed_again_after_a_restart(qlik, tmp_path: Path) -> None:
    """What ran when the appliance stopped is followed to its end by the next run of it."""
    task = qlik.add_task("Reload sales", duration_s=600)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "running")
    qlik.site.finish(task.id)
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=rig.source) as again:
        again.broker.wait_for(task.id, "succeeded")
        assert qlik.starts() == 1


def test_stopping_leaves_no_thread_behind(qlik, tmp_path: Path) -> None:
    """After the stop nothing of the task engine runs any more."""
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        assert any(one.name.startswith("tasks-") for one in threading.enumerate())
    # A call that was under way at the stop ends by itself.
    until(
        lambda: not [one for one in threading.enumerate() if one.name.startswith("tasks-")],
        "no thread is left",
    )
    del rig
