"""Holds on the real task engine, which starts tasks of a simulated server over real HTTP."""

from __future__ import annotations

import pytest
from tasks_rig import START_TOPIC, Rig, client_of

from appliance.engine_api import HoldState
from appliance.qlik.simulated import SimulatedQlik


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def hold(rig: Rig, kind: str, name: str = "", **said: object) -> HoldState:
    said = {"until_ns": None, "reason": "new disks", "drop": False, "by": "ann"} | said
    return rig.engine.holding.hold(kind, name, **said)


def waiting(rig: Rig) -> list[int]:
    """How many starts wait for each hold."""
    return [one.waiting for one in rig.engine.holding.holds().holds]


def taken(rig: Rig, seq: int) -> bool:
    return rig.engine._state.cursors.taken >= seq


def test_fifty_messages_in_a_maintenance_window_are_one_start_after_it(qlik, tmp_path) -> None:
    """They wait and are merged as the rule says; runs of others go on being seen."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    other = qlik.add_task("Reload IT", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        assert hold(rig, "everything").shown == "everything"
        for _ in range(50):
            last = rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: taken(rig, last.seq))
        qlik.run_elsewhere(other.id)
        rig.broker.wait_for(other.id, "succeeded")
        assert waiting(rig) == [1]
        assert task.runs == 0
        (wait,) = rig.engine.waits()
        assert (wait.kind, wait.until_ns) == ("hold", None)
        assert wait.reason == "Held by ann (everything): new disks."
        assert rig.engine.holding.release("everything", "", "bob").waiting == 1
        rig.broker.wait_for(task.id, "succeeded")
        assert rig.engine.holding.holds().holds == ()
        execution = next(one for one in rig.engine.executions(9) if one.task_id == task.id)
        assert execution.merged == 49
        texts = [step.text for step in execution.steps]
        assert "Waiting: Held by ann (everything): new disks." in texts
        assert "The hold is over" in texts
    assert task.runs == 1
