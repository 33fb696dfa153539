"""Reloads of apps on client-managed Qlik Sense: by their task, or without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tasks_rig import START_TOPIC, JournaledRig, MemorySource, Rig, client_of

from appliance.config.tables import AllowConfig, TriggerConfig
from appliance.model import APP, ExecutionState, TaskKind
from appliance.qlik.simulated import FaultKind, SimulatedQlik


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        simulated.site.app_duration_s = 0.05
        yield simulated


def text(value: Any) -> bytes:
    return msgspec.json.encode(value)


def manual(qlik: SimulatedQlik) -> str:
    """The task that the server made for a reload, an empty text if there is none."""
    return next((one.id for one in qlik.site.tasks.values() if one.manually_triggered), "")


@pytest.mark.parametrize("way", ["rule by id", "rule by name", "payload by id", "payload by name"])
def test_an_app_without_a_task_is_reloaded(qlik, tmp_path: Path, way: str) -> None:
    """The server makes a task for it; the outcome is that task's, and names it."""
    app_id = qlik.add_app("Sales")
    wanted = app_id.upper() if "id" in way else "Sales"
    rule = TriggerConfig(topic="t", task={"app": wanted} if "rule" in way else "payload")
    payload = text({"appId" if "id" in way else "app": wanted})
    with Rig(tmp_path / "tasks.db", client_of(qlik), rule) as rig:
        rig.source.put("t", payload)
        rig.wait_until(lambda: rig.states() == [ExecutionState.SUCCEEDED])
        task_id = manual(qlik)
        assert rig.newest().task_id == task_id
        rig.broker.wait_for(task_id, "succeeded")
        last = rig.broker.published[-1][1]
    assert (last["taskId"], last["state"]) == (task_id, "succeeded")
    assert qlik.starts(app_id) == qlik.starts() == 1


def test_a_second_reload_waits_for_the_first_and_uses_its_task(qlik, tmp_path: Path) -> None:
    """From the first reload on, the app has a task: it is started, once for all that waits."""
    app_id = qlik.add_app("Sales")
    server = client_of(qlik)
    qlik.site.trigger_delay_s = 60.0  # it runs until it is finished
    with Rig(tmp_path / "tasks.db", server) as rig:
        rig.source.put(START_TOPIC, text({"appId": app_id}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.RUNNING])
        for _ in range(3):
            rig.source.put(START_TOPIC, text({"appId": app_id}))
        rig.wait_until(lambda: rig.newest().state is ExecutionState.WAITING)
        rig.wait_until(lambda: rig.newest().merged == 2)
        qlik.site.trigger_delay_s = 0.01
        qlik.site.finish(manual(qlik))
        rig.wait_until(lambda: rig.states() == [ExecutionState.SUCCEEDED] * 2)
    assert qlik.starts(app_id) == 1
    assert qlik.starts(manual(qlik)) == 1


def test_the_only_task_of_an_app_is_started_and_of_two_none(qlik, tmp_path: Path) -> None:
    """As ever: the reason has both ids. A preload of the app is no reload of it."""
    of_app = {"app_id": "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10", "app_name": "Sales"}
    task = qlik.add_task("Nightly", duration_s=0.05, **of_app)
    qlik.add_task("Preload", kind=TaskKind.PRELOAD, **of_app)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, text({"app": "Sales"}))
        rig.broker.wait_for(task.id, "succeeded")
    other = qlik.add_task("Weekly", **of_app)
    with Rig(tmp_path / "more.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, text({"app": "Sales"}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED])
        assert all(one.id in rig.newest().reason for one in (task, other))
    assert qlik.starts(task.id) == qlik.starts() == 1


def test_a_partial_reload_of_an_app_needs_a_task_for_it(qlik, tmp_path: Path) -> None:
    """The reason says what to create; with such a task, that one is started."""
    app_id = qlik.add_app("Sales")
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, text({"appId": app_id, "partial": True}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED])
        assert '"Partial reload" set' in rig.newest().reason
    assert qlik.starts() == 0
    of_app = {"app_id": app_id, "app_name": "Sales", "duration_s": 0.05}
    full, partial = qlik.add_task("Full", **of_app), qlik.add_task("P", partial=True, **of_app)
    with Rig(tmp_path / "more.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, text({"appId": app_id, "partial": True}))
        rig.broker.wait_for(partial.id, "succeeded")
        rig.source.put(START_TOPIC, text({"appId": app_id}))
        rig.broker.wait_for(full.id, "succeeded")
    assert (qlik.starts(full.id), qlik.starts(partial.id), qlik.starts()) == (1, 1, 2)


def test_an_unknown_app_is_said(qlik, tmp_path: Path) -> None:
    qlik.add_app("Sales")
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, text({"app": "Sale"}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED])
        assert 'no app "Sale"' in rig.newest().reason
        assert '"Sales"' in rig.newest().reason
    assert qlik.starts() == 0


@pytest.mark.parametrize(("apps", "allowed"), [(["Sales"], True), (["Stock"], False)])
def test_the_allow_list_has_apps(qlik, tmp_path: Path, apps: list[str], allowed: bool) -> None:
    """Without a task and with one."""
    bare, app_id = qlik.add_app("Sales"), "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
    task = qlik.add_task("T", app_id=app_id, app_name="Sales", duration_s=0.05)
    end = ExecutionState.SUCCEEDED if allowed else ExecutionState.REJECTED
    allow = AllowConfig(apps=tuple(apps))
    with Rig(tmp_path / "tasks.db", client_of(qlik), allow=allow) as rig:
        rig.source.put(START_TOPIC, text({"appId": bare}))
        rig.source.put(START_TOPIC, text({"appId": app_id}))
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: set(rig.states()) == {end})
    assert bool(qlik.starts()) is allowed


def test_a_reload_whose_answer_is_lost_is_found_and_not_repeated(qlik, tmp_path: Path) -> None:
    """The run of the app since the call is the answer, with the task that the server made."""
    app_id = qlik.add_app("Sales")
    qlik.fail(FaultKind.DROP_AFTER, method="POST", path=f"/app/{app_id}/reload", times=1)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, text({"appId": app_id}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.SUCCEEDED])
        assert rig.newest().task_id == manual(qlik)
    assert qlik.starts() == 1


def test_a_run_that_shows_late_is_followed_to_its_end(qlik, tmp_path: Path) -> None:
    """Until then the request stands for the app's first run; it is not told as another's run."""
    app_id = qlik.add_app("Sales")
    server = client_of(qlik)
    server._closing.set()  # one look after the call, not one each 0.3 s
    qlik.site.sessions_after_s = qlik.site.results_after_s = 0.4
    qlik.site.trigger_delay_s = 60.0
    with Rig(tmp_path / "tasks.db", server) as rig:
        rig.source.put(START_TOPIC, text({"appId": app_id}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.RUNNING])
        rig.wait_until(lambda: rig.newest().task_id == manual(qlik))
        assert not rig.newest().execution_id.startswith("after:")
        qlik.site.finish(manual(qlik))
        rig.wait_until(lambda: rig.states() == [ExecutionState.SUCCEEDED])
    assert qlik.starts() == 1


def test_a_lost_database_does_not_reload_an_app_again(qlik, tmp_path: Path) -> None:
    """The journal tells of the run under the task that the server made."""
    app_id = qlik.add_app("Sales")
    database, source = tmp_path / "tasks.db", MemorySource()
    with JournaledRig(database, client_of(qlik), source=source) as rig:
        source.put(START_TOPIC, text({"appId": app_id}))
        rig.broker.wait_until(lambda: any(retain for _, _, retain, _ in rig.broker.published))
    for path in tmp_path.glob("tasks.db*"):
        path.unlink()
    again = JournaledRig(database, client_of(qlik), source=source)
    source.position = source.advanced = again.engine.rebuild(0, source.last_seq)
    with again:
        again.wait_until(lambda: again.states() == [ExecutionState.SUCCEEDED])
        again.wait_until(lambda: source.advanced >= 1)
        assert not again.newest().task_id.startswith(APP)
    assert qlik.starts() == 1
