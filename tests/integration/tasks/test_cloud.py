"""Tasks of Qlik Cloud from a message to their outcome, over both interfaces."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tasks_rig import START_TOPIC, Broker, MemorySource, Rig
from wine import SLOWNESS

from appliance.config.tables import AllowConfig, QlikConfig, TimerConfig, TriggerConfig
from appliance.model import ExecutionState, Message
from appliance.qlik.connect import connect
from appliance.qlik.server import QlikServer
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik, SimulatedTask
from appliance.qlik.simulated.cloud_tasks import INTERIM, SCHEDULING
from appliance.secret import Secret

TESTS = Path(__file__).parents[2]
APP = "b7c1d9e0-3a52-4f0e-8d11-62c4a9f0e733"
HEX_ID = "673f0c21a7d94e5b8c10f2bb"
GUID = "3f0c9a52-7b1e-4d88-9f0a-55d1c2e3f401"


@pytest.fixture(params=[SCHEDULING, INTERIM])
def qlik(request: pytest.FixtureRequest) -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        simulated.cloud.tasks.interfaces = {request.param}
        yield simulated


@pytest.fixture
def tenant(qlik: SimulatedQlik) -> Iterator[QlikServer]:
    made = connect_to(qlik)
    yield made
    made.close()


def connect_to(qlik: SimulatedQlik) -> QlikServer:
    return connect(QlikConfig(edition="cloud", url=qlik.url, api_key=Secret("simulated-api-key")))


def add(qlik: SimulatedQlik, name: str, task_id: str, **settings: object) -> SimulatedTask:
    settings = {"app_id": APP, "app_name": "Line 7", "duration_s": 0.05} | settings
    return qlik.add_task(name, id=task_id, is_cloud_task=True, **settings)


def last_outcome(broker: Broker, task_id: str) -> dict[str, object]:
    topic = f"appliance/tasks/{task_id}/last"
    return [body for each, body, _, _ in broker.published if each == topic][-1]


def test_a_message_names_a_task_by_any_id_or_its_name(
    qlik: SimulatedQlik, tenant: QlikServer, tmp_path: Path
) -> None:
    """Payload, JSON, topic, rule, timer and allow-list take ids of either form; a name means the
    app before a task of that name; outcomes are on the id's topic."""
    add(qlik, "By GUID", GUID)
    add(qlik, "By digits", HEX_ID, outcomes=(Outcome.FAIL,), error_text="Table not found")
    other = "0123456789abcdef01234567"
    add(qlik, "By rule", other, app_id=APP.replace("7", "8"), app_name="Line 8")
    timed = "89abcdef0123456701234567"
    add(qlik, "By timer", timed, app_id=APP.replace("7", "9"), app_name="Line 9")
    rules = [
        TriggerConfig(topic=START_TOPIC, task="payload"),
        TriggerConfig(topic="start/+", task="topic"),
        TriggerConfig(topic="fixed", task=other),
    ]
    timer = TimerConfig(name="t", every=3600.0, task=timed)
    allow = AllowConfig(tasks=(GUID, HEX_ID, other, timed, APP))
    with Rig(tmp_path / "tasks.db", tenant, *rules, timers=(timer,), allow=allow) as rig:
        sent = [(START_TOPIC, GUID), (f"start/{HEX_ID.upper()}", ""), ("fixed", "")]
        for topic, payload in sent:
            rig.source.put(topic, payload)
        rig.broker.wait_for(HEX_ID, "failed")
        for task_id in (GUID, other):
            rig.broker.wait_for(task_id, "succeeded")
        outcome = last_outcome(rig.broker, HEX_ID)
        assert outcome["reason"] == "Table not found"
        assert outcome["queuedSeconds"] == 0.05
        rig.source.put(START_TOPIC, f'{{"taskId": "{HEX_ID}"}}')
        rig.source.put(START_TOPIC, '{"taskName": "By GUID"}')
        rig.broker.wait_for(HEX_ID, "failed", 2)
        rig.broker.wait_for(GUID, "succeeded", 2)
        rig.source.put(START_TOPIC, '{"taskName": "Line 7"}')
        rig.broker.wait_for(APP, "succeeded")
    assert qlik.starts(APP) == 1


@pytest.mark.parametrize("qlik", [SCHEDULING], indirect=True)
@pytest.mark.parametrize("is_administrator", [True, False])
def test_each_short_run_of_others_is_told_with_its_reason(
    qlik: SimulatedQlik, tenant: QlikServer, tmp_path: Path, is_administrator: bool
) -> None:
    """Runs that are over before the next look, and a run of ours between them, are each told
    once, as runs of the task."""
    qlik.cloud.is_administrator = is_administrator
    task = add(
        *(qlik, "Reload", GUID),
        duration_s=0.02,
        outcomes=(Outcome.FAIL,),
        error_text="Table not found",
    )
    with Rig(tmp_path / "tasks.db", tenant, elsewhere_s=0.03) as rig:
        # From the first look on, runs are seen.
        rig.wait_until(lambda: rig.engine._poller._ended_until)
        for number in range(1, 6):
            if number == 3:
                rig.source.put(START_TOPIC, GUID)
            else:
                qlik.run_elsewhere(task.id)
            rig.wait_until(lambda: qlik.site.session_of(GUID) is None)
            rig.broker.wait_for(GUID, "failed", min(number, 3))
        rig.broker.wait_for(GUID, "failed", 5)
        told = rig.engine.executions(20)
    assert {one.task_id for one in told} == {GUID}
    assert len({one.execution_id for one in told}) == len(told) == 5
    assert {one.reason for one in told} == {"Table not found"}
    assert sorted(one.cause.kind for one in told) == ["elsewhere"] * 4 + ["message"]


KILLED = ["when the start call has left", "after the start call"]


@pytest.mark.parametrize(
    ("qlik", "step", "task_id"),
    [
        (SCHEDULING, f"{KILLED[0]}, not noted", GUID),
        pytest.param(INTERIM, f"{KILLED[1]}, not noted", HEX_ID, marks=pytest.mark.campaign),
        *(
            pytest.param(base, step, task_id, marks=pytest.mark.campaign)
            for base in (SCHEDULING, INTERIM)
            for step in KILLED
            for task_id in (GUID, HEX_ID)
        ),
    ],
    indirect=["qlik"],
)
def test_killed_around_the_start_call_the_task_is_started_once(
    qlik: SimulatedQlik, tmp_path: Path, step: str, task_id: str
) -> None:
    """The next process finds the run of the call among the runs of the task, and posts nothing."""
    add(qlik, "Reload", task_id)
    first = child(tmp_path, qlik, task_id, step)
    assert first.wait(60) not in (0, 1), "it did not die at that step"
    check_second_run(tmp_path, qlik, task_id)


@pytest.mark.campaign
def test_killed_while_the_start_call_has_no_answer(qlik: SimulatedQlik, tmp_path: Path) -> None:
    """The tenant began the run and had not answered when the process was killed."""
    task = add(qlik, "Reload", GUID)
    qlik.fail(FaultKind.HANG_AFTER, method="POST", path="/start", times=1)
    first = child(tmp_path, qlik, GUID, "-")
    assert qlik.wait_for(lambda: task.runs == 1, 20 * SLOWNESS)
    first.kill()
    first.wait(10)
    qlik.heal()
    check_second_run(tmp_path, qlik, GUID)


def child(folder: Path, qlik: SimulatedQlik, task_id: str, step: str) -> subprocess.Popen[bytes]:
    message = Message(1, time.time_ns(), START_TOPIC, task_id.encode(), 1, client_id="plc")
    (folder / "journal.jsonl").write_bytes(msgspec.json.encode(message) + b"\n")
    script = str(TESTS / "tasks_crash_child.py")
    return subprocess.Popen(
        [sys.executable, script, str(folder), qlik.url, step, "0", "cloud"],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


def check_second_run(folder: Path, qlik: SimulatedQlik, task_id: str) -> None:
    source = MemorySource()
    source.messages = [
        msgspec.json.decode(line, type=Message)
        for line in (folder / "journal.jsonl").read_bytes().splitlines()
    ]
    tenant = connect_to(qlik)
    with Rig(folder / "tasks.db", tenant, source=source) as rig:
        rig.wait_until(lambda: rig.states() == [ExecutionState.SUCCEEDED])
    tenant.close()
    assert qlik.starts(task_id) == qlik.starts() == 1
    assert len(qlik.site.runs()) == 1


def test_rows_of_tasks_have_schedules_and_last_runs(
    qlik: SimulatedQlik, tenant: QlikServer, tmp_path: Path
) -> None:
    """The list of tasks has both; no further call is made for them."""
    task = add(qlik, "Line 7 by night", GUID, every_s=7200)
    qlik.site.start(task.id)
    while qlik.site.session_of(task.id) is not None:
        qlik.site.advance()
    with Rig(tmp_path / "tasks.db", tenant) as rig:
        answer = rig.engine.server_tasks()
    assert answer.problem == ""
    row = next(one for one in answer.tasks if one.task.id == GUID)
    assert [(one.kind, one.detail) for one in row.starters] == [
        ("schedule", "RRULE:FREQ=SECONDLY;INTERVAL=7200 UTC")
    ]
    assert row.state is ExecutionState.SUCCEEDED
    assert row.since_ns is not None
