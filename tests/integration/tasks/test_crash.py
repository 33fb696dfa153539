"""The appliance is killed at each step between a message and its outcome."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from tasks_rig import START_TOPIC, JournaledRig, MemorySource, Rig, client_of, start_trigger
from wine import SLOWNESS

from appliance.config.tables import TriggerConfig
from appliance.model import ExecutionState, Message
from appliance.qlik.simulated import FaultKind, SimulatedQlik

pytestmark = pytest.mark.campaign  # a process is killed at each step

TESTS = Path(__file__).parents[2]
STEPS = [
    "before the start call",
    "when the start call has left",
    "before starting is written",
    "after starting is written",
    "after the start call",
    "before queued is written",
    "after queued is written",
    "after running is written",
    "before succeeded is written",
    "after succeeded is written",
    "before the outcome is published",
    "after the outcome is published",
]
STEPS_BEFORE_THE_NOTE = [
    "before the start call, not noted",
    "when the start call has left, not noted",
    "after the start call, not noted",
]
"""The call for a message of the journal leaves before its own note."""
DEBOUNCE_S = 0.1


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def child(folder: Path, url: str, step: str, debounce_s: float = 0.0) -> subprocess.Popen[bytes]:
    script = str(TESTS / "tasks_crash_child.py")
    return subprocess.Popen(
        [sys.executable, script, str(folder), url, step, str(debounce_s)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


def write_journal(folder: Path, task: str) -> None:
    message = Message(1, time.time_ns(), START_TOPIC, task.encode(), 1, client_id="plc")
    (folder / "journal.jsonl").write_bytes(msgspec.json.encode(message) + b"\n")


def check_second_run(folder: Path, qlik: SimulatedQlik, task: str, debounce_s: float = 0.0) -> None:
    source = MemorySource()
    source.messages = [
        msgspec.json.decode(line, type=Message)
        for line in (folder / "journal.jsonl").read_bytes().splitlines()
    ]
    rule = start_trigger(debounce_s)
    with Rig(folder / "tasks.db", client_of(qlik), rule, source=source) as rig:
        rig.wait_until(lambda: rig.states() == [ExecutionState.SUCCEEDED])
    assert qlik.starts(task) == qlik.starts() == 1
    before = folder / "published.jsonl"
    lines = before.read_bytes().splitlines() if before.exists() else []
    outcomes = [msgspec.json.decode(line) for line in lines]
    outcomes += [body for topic, body, retain, _ in rig.broker.published if retain]
    assert 1 <= len(outcomes) <= 2
    assert {one["state"] for one in outcomes} == {"succeeded"}
    assert {one["execution"] for one in outcomes} == {1}
    assert {one["cause"]["seq"] for one in outcomes} == {1}
    # Stale from the message on, over the kill, until the run that began after it had succeeded.
    (fresh,) = rig.engine._freshness.all()
    assert (fresh.stale_since_ns, fresh.messages, fresh.runs) == (None, 1, 1)


@pytest.mark.parametrize(
    ("step", "debounce_s"),
    [
        *((step, DEBOUNCE_S) for step in STEPS),
        *(pytest.param(step, 0.0, marks=pytest.mark.campaign) for step in STEPS),
        *((step, 0.0) for step in STEPS_BEFORE_THE_NOTE),
    ],
)
def test_killed_at_any_step_the_task_is_started_once(
    qlik, tmp_path: Path, step: str, debounce_s: float
) -> None:
    """Whenever the process is killed, the next one goes on: exactly one start call arrived, and
    the outcome of that run is recorded and published (twice at most, never a different one).

    Without debounce the call may leave before its note is written, because the journal has the
    message. With it, the request is noted before the call is due, so the call's note comes first.
    """
    task = qlik.add_task("Reload sales", duration_s=0.3)
    write_journal(tmp_path, task.id)
    first = child(tmp_path, qlik.url, step, debounce_s)
    assert first.wait(60) not in (0, 1), "it did not die at that step"
    check_second_run(tmp_path, qlik, task.id, debounce_s)


@pytest.mark.parametrize(
    "step",
    [
        "when the start call has left",
        *(
            pytest.param(step, marks=pytest.mark.campaign)
            for step in STEPS[:7]
            if step != "when the start call has left"
        ),
    ],
)
def test_killed_at_any_step_an_app_without_a_task_is_reloaded_once(
    qlik, tmp_path: Path, step: str
) -> None:
    """The server is asked for runs of the app, and for the task that it made, before the call."""
    app_id = qlik.add_app("Sales")
    write_journal(tmp_path, f'{{"appId": "{app_id}"}}')
    assert child(tmp_path, qlik.url, step).wait(60) not in (0, 1), "it did not die at that step"
    source = MemorySource()
    line = (tmp_path / "journal.jsonl").read_bytes()
    source.messages = [msgspec.json.decode(line, type=Message)]
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as rig:
        rig.wait_until(lambda: rig.states() == [ExecutionState.SUCCEEDED])
    assert qlik.starts() == 1
    assert len(qlik.site.runs()) == 1


def test_killed_while_the_start_call_has_no_answer(qlik, tmp_path: Path) -> None:
    """The server began the run and had not answered when the process was killed: the next one
    finds that run and posts nothing."""
    task = qlik.add_task("Reload sales", duration_s=0.3)
    write_journal(tmp_path, task.id)
    qlik.fail(FaultKind.HANG_AFTER, method="POST", path="/start", times=1)
    first = child(tmp_path, qlik.url, "-")
    assert qlik.wait_for(lambda: qlik.faults.bitten[FaultKind.HANG_AFTER.value] == 1, 60 * SLOWNESS)
    assert qlik.wait_for(lambda: qlik.site.session_of(task.id) is not None)
    first.kill()
    first.wait(10)
    qlik.heal()
    check_second_run(tmp_path, qlik, task.id)


@pytest.mark.parametrize(
    ("step", "debounce_s"),
    [
        ("before the start call", 0.0),
        ("before the start call, not noted", 0.0),
        ("before the start call", DEBOUNCE_S),
    ],
)
def test_killed_while_the_call_had_not_arrived(
    qlik, tmp_path: Path, step: str, debounce_s: float
) -> None:
    """The message or the intent was on disk and the call never reached the server: after a look,
    it is made."""
    task = qlik.add_task("Reload sales", duration_s=0.3)
    write_journal(tmp_path, task.id)
    first = child(tmp_path, qlik.url, step, debounce_s)
    assert first.wait(60) not in (0, 1)
    assert qlik.starts() == 0
    check_second_run(tmp_path, qlik, task.id, debounce_s)
    looked = [one for one in qlik.requests if "/executionresult" in one.path]
    posted = [one for one in qlik.requests if one.method == "POST"]
    assert looked[0].at_ns < posted[0].at_ns


def test_a_power_cut_starts_nothing_twice(qlik, tmp_path: Path) -> None:
    """The power fails and the disk has an older state of the database, from before the message:
    the journal gives the message again, its run is found at the server, and followed."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    source = MemorySource()
    database = tmp_path / "tasks.db"
    with Rig(database, client_of(qlik), source=source):
        pass
    older = database.read_bytes()
    with Rig(database, client_of(qlik), source=source) as rig:
        source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded")
    database.write_bytes(older)
    for extra in ("tasks.db-wal", "tasks.db-shm"):
        (tmp_path / extra).unlink(missing_ok=True)
    with Rig(database, client_of(qlik), source=source, boot_ns=time.time_ns()) as again:
        again.broker.wait_for(task.id, "succeeded")
        assert qlik.starts() == 1
        assert again.newest().cause.seq == 1


def copy(database: Path, target: Path) -> None:
    """What a power cut would leave if the disk had taken everything up to now, and nothing later."""
    with contextlib.closing(sqlite3.connect(database)) as source:
        with contextlib.closing(sqlite3.connect(target)) as other:
            source.backup(other)


def test_a_power_cut_starts_no_chained_task_twice(qlik, tmp_path: Path) -> None:
    """The power cut takes the note of an outcome that was published and that started a task: the
    server tells the outcome again, which is not published again, and starts nothing."""
    first, chained = (qlik.add_task(name, duration_s=0.3) for name in ("First", "Chained"))
    topic = f"appliance/tasks/{first.id}/last"
    rules = (start_trigger(), TriggerConfig(topic=topic, task=chained.id))
    source = MemorySource()

    def outcomes() -> list[str]:
        return [one.topic for one in source.messages if one.topic == topic]

    database, cut = tmp_path / "tasks.db", tmp_path / "cut" / "tasks.db"
    cut.parent.mkdir()
    with JournaledRig(database, client_of(qlik), *rules, source=source) as rig:
        source.put(START_TOPIC, first.id)
        rig.wait_until(lambda: rig.states() == [ExecutionState.RUNNING])
        copy(database, cut)
        rig.broker.wait_for(chained.id, "succeeded")
        assert len(outcomes()) == 1
    with JournaledRig(cut, client_of(qlik), *rules, source=source, boot_ns=time.time_ns()) as again:
        again.wait_until(lambda: again.states() == [ExecutionState.SUCCEEDED] * 2)
    assert qlik.starts(chained.id) == 1
    assert len(outcomes()) == 1
