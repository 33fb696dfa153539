"""The order on the way of a message: the journal, the start call and its note, then the news."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tasks_rig import PATIENCE_S, START_TOPIC, Broker, Rig, client_of, make_engine, start_trigger

from appliance.journal.journal import Journal
from appliance.journal.batch import Batch
from appliance.model import ExecutionState, Message
from appliance.qlik.simulated import SimulatedQlik
from appliance.tasks.engine import TaskEngine
from appliance.tasks.store import Changes, Store


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


class Journaled:
    """A task engine that follows a real journal."""

    def __init__(self, folder: Path, qlik: SimulatedQlik) -> None:
        self.broker = Broker()
        self.engine: TaskEngine = make_engine(folder / "tasks.db", self.broker, client_of(qlik))
        self.journal = Journal(folder / "journal.db", sync="os", keep_s=1e10, max_bytes=10**10)

    def __enter__(self) -> Journaled:
        cursor = self.engine.open()
        self.journal.start(lambda _messages, _entries: None, minimum_seq=cursor)
        self.engine.start(self.journal.follower("tasks", cursor, interest=self.engine.concern))
        return self

    def __exit__(self, *_exc: object) -> None:
        self.engine.stop(5.0)
        self.journal.close(0.0)

    def put(self, payload: str) -> None:
        seq = self.journal.next_seq()
        self.journal.append(Message(seq, time.time_ns(), START_TOPIC, payload.encode(), 1), None)


def held_disk(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """An event that a commit of the journal sets when it begins; one that it then waits for."""
    begun, go = threading.Event(), threading.Event()
    write = Batch.write

    def later(batch: Batch, connection: sqlite3.Connection) -> None:
        begun.set()
        if not go.wait(PATIENCE_S):
            raise sqlite3.OperationalError("the disk does not answer")
        write(batch, connection)

    monkeypatch.setattr(Batch, "write", later)
    return begun, go


def test_nothing_happens_before_the_message_is_on_disk(qlik, tmp_path: Path, monkeypatch) -> None:
    """No start, no note, no news while the journal does not have the message, also when other things happen
    meanwhile; then exactly one start."""
    task, other = (qlik.add_task(f"Reload {one}", duration_s=0.1) for one in (1, 2))
    begun, go = held_disk(monkeypatch)
    with Journaled(tmp_path, qlik) as one:
        one.put(task.id)
        assert begun.wait(PATIENCE_S)
        one.engine.start_task(other.id, "ann")  # another change, which must not take it along
        one.broker.wait_for(other.id, "succeeded")
        assert [each.task_id for each in one.engine.executions(10)] == [other.id]
        assert qlik.starts() == qlik.starts(other.id) == 1
        go.set()
        one.broker.wait_for(task.id, "succeeded")
        assert qlik.starts(task.id) == 1


def test_what_never_got_to_the_disk_never_was(qlik, tmp_path: Path, monkeypatch) -> None:
    """The appliance ends while the journal's disk refuses a message: neither this run nor the next
    knows anything of it, and the number is free for another message."""
    task, other = (qlik.add_task(f"Reload {one}", duration_s=0.1) for one in (1, 2))

    def refuse(_batch: Batch, _connection: sqlite3.Connection) -> None:
        begun.set()
        raise sqlite3.OperationalError("disk I/O error")

    begun = threading.Event()
    with monkeypatch.context() as patched, Journaled(tmp_path, qlik) as one:
        patched.setattr(Batch, "write", refuse)
        one.put(task.id)
        assert begun.wait(PATIENCE_S)
    assert qlik.starts() == 0
    with Journaled(tmp_path, qlik) as one:
        assert one.engine.executions(10) == ()
        one.put(other.id)
        one.broker.wait_for(other.id, "succeeded")
        assert one.journal.last_seq == 1
    assert qlik.starts() == qlik.starts(other.id) == 1


def test_messages_one_after_the_other_each_start_once(qlik, tmp_path: Path) -> None:
    """Each message counts once, and so does one that asks for nothing that there is."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.05) for number in range(8)]
    with Journaled(tmp_path, qlik) as one:
        for number, task in enumerate(tasks):
            one.put(task.id if number % 4 else "nonsense")
        for number, task in enumerate(tasks):
            if number % 4:
                one.broker.wait_for(task.id, "succeeded")
            assert qlik.starts(task.id) == bool(number % 4)
        (rule,) = one.engine.rules()
        assert (rule.matched, rule.started, rule.rejected) == (8, 6, 2)


def at_each_note_of_a_start(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """Have ``then`` called before the note of a start call is written, in the thread that writes."""
    write = Store.write

    def watched(store: Store, changes: Changes) -> None:
        states = {record.execution.state for record in changes.records.values()}
        if ExecutionState.STARTING in states:
            then()
        write(store, changes)

    monkeypatch.setattr(Store, "write", watched)


def test_a_call_for_a_message_leaves_before_its_note_and_its_news_after(
    qlik, tmp_path: Path, monkeypatch
) -> None:
    """The journal is the note of the call. What people and clients are told waits for tasks.db."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    told: list[object] = []

    def wait_for_the_call() -> None:
        assert qlik.wait_for(lambda: qlik.starts(task.id) == 1)
        told.extend([*rig.broker.published, *rig.engine.executions(10)])
        assert rig.engine._store.open_records() == []

    at_each_note_of_a_start(monkeypatch, wait_for_the_call)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded")
    assert told == []
    assert qlik.starts(task.id) == 1


@pytest.mark.parametrize("kind", ["operator", "debounce"])
def test_a_call_that_the_journal_does_not_note_leaves_after_its_note(
    qlik, tmp_path: Path, monkeypatch, kind: str
) -> None:
    """No message stands behind an operator's start. A debounced message was noted as dealt with
    long before its start is due, so the journal would not give it again."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    handed_out: list[int] = []

    def look() -> None:
        handed_out.append(rig.engine._state.jobs.qsize() + len(qlik.posts))

    at_each_note_of_a_start(monkeypatch, look)
    # Long enough that the wait is noted before its end, however busy the machine is.
    rule = start_trigger(1.0 if kind == "debounce" else 0.0)
    with Rig(tmp_path / "tasks.db", client_of(qlik), rule) as rig:
        if kind == "debounce":
            rig.source.put(START_TOPIC, task.id)
        else:
            rig.engine.start_task(task.id, "ann")
        rig.broker.wait_for(task.id, "succeeded")
    assert handed_out == [0]
    assert qlik.starts(task.id) == 1
