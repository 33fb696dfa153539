"""A run that the appliance began is never told as one of others, although it showed up late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tasks_rig import QUICK, START_TOPIC, Rig

from appliance.config.tables import QlikConfig
from appliance.model import ExecutionState
from appliance.qlik.connect import connect
from appliance.qlik.server import QlikServer
from appliance.qlik.simulated import FaultKind, SimulatedQlik
from appliance.secret import Secret

APP = "b7c1d9e0-3a52-4f0e-8d11-62c4a9f0e733"
TASK = "3f0c9a52-7b1e-4d88-9f0a-55d1c2e3f401"
PATIENT = msgspec.structs.replace(QUICK, lost_after_s=60.0)


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


def tenant_of(qlik: SimulatedQlik) -> QlikServer:
    return connect(QlikConfig(edition="cloud", url=qlik.url, api_key=Secret("simulated-api-key")))


def wait_for_looks(qlik: SimulatedQlik, count: int) -> None:
    """Wait until runs that ended were asked for so many more times."""

    def looks() -> int:
        return sum(seen.query.get("sort") == "-lastEndedAt" for seen in qlik.requests)

    wanted = looks() + count
    assert qlik.wait_for(lambda: looks() >= wanted)


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_of_qlik_cloud_that_showed_up_after_a_restart(
    qlik: SimulatedQlik, tmp_path: Path, *, has_ended: bool
) -> None:
    """A start's run that could not be had before the appliance stopped is told once, as its own."""
    qlik.add_task(
        "Line 7", id=TASK, is_cloud_task=True, app_id=APP, app_name="Line 7", duration_s=600.0
    )
    server = tenant_of(qlik)
    with Rig(tmp_path / "tasks.db", server, elsewhere_s=0.03, limits=PATIENT) as rig:
        rig.wait_until(lambda: rig.engine._poller._ended_until)
        qlik.fail(FaultKind.STATUS, path="/runs$")
        rig.source.put(START_TOPIC, TASK)
        rig.wait_until(lambda: rig.states() == [ExecutionState.QUEUED])
        assert rig.newest().execution_id.startswith("after:")
        source = rig.source
    server.close()
    if has_ended:
        qlik.site.finish(TASK)
    qlik.heal()
    server = tenant_of(qlik)
    database = tmp_path / "tasks.db"
    with Rig(database, server, elsewhere_s=0.03, limits=PATIENT, source=source) as rig:
        if not has_ended:
            rig.wait_until(lambda: rig.newest().state is ExecutionState.RUNNING)
            qlik.site.finish(TASK)
        rig.broker.wait_for(TASK, "succeeded")
        assert rig.states() == [ExecutionState.SUCCEEDED]
    server.close()
    server = tenant_of(qlik)
    with Rig(database, server, elsewhere_s=0.03, limits=PATIENT, source=source) as rig:
        # Not by a later start either, which looks at all that ended in the last hour.
        rig.engine._poller.begin_at(1)
        wait_for_looks(qlik, 3)
        assert rig.states() == [ExecutionState.SUCCEEDED]
    server.close()
    assert qlik.starts() == 1


def test_a_run_of_others_that_may_have_been_ours_is_told_later(
    qlik: SimulatedQlik, tmp_path: Path
) -> None:
    """It ended while a start call of its task was under way; later looks go back to it."""
    task = qlik.add_task(
        "Line 7", id=TASK, is_cloud_task=True, app_id=APP, app_name="Line 7", duration_s=0.05
    )
    server = tenant_of(qlik)
    with Rig(tmp_path / "tasks.db", server, elsewhere_s=0.03, limits=PATIENT) as rig:
        rig.wait_until(lambda: rig.engine._poller._ended_until)
        # By its source, the tenant shows that it notes what began a run.
        rig.source.put(START_TOPIC, TASK)
        rig.broker.wait_for(TASK, "succeeded")
        qlik.fail(FaultKind.HANG, path="/actions/start", times=1)
        rig.source.put(START_TOPIC, TASK)
        assert qlik.wait_for(lambda: bool(qlik.faults.bitten))
        qlik.run_elsewhere(task.id)
        qlik.site.finish(task.id)
        wait_for_looks(qlik, 3)
        until = rig.engine._poller._ended_until
        wait_for_looks(qlik, 3)
        assert len(rig.states()) == 2
        assert rig.engine._poller._ended_until == until
        qlik.heal()
        rig.broker.wait_for(TASK, "succeeded", 3)
        kinds = sorted(one.cause.kind for one in rig.engine.executions(5))
    server.close()
    assert kinds == ["elsewhere", "message", "message"]
    assert qlik.starts() == 3
