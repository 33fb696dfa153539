"""What ``tasks.db`` tells of a stretch of time: runs, answers to messages, what is known of tasks.

Read for a command while the appliance may be running; nothing is written. Not for: the running
engine, which has its own connection (store.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import msgspec

from appliance.model import Execution, ExecutionState, Task
from appliance.storage.sqlite import connect_read_only
from appliance.tasks.records import Record
from appliance.tasks.selector import TaskSelector
from appliance.tasks.store import TaskHistory
from appliance.tasks.triggers import Options

SAME_START_NS = 30 * 10**9
"""A rehearsed start this close to the real one of the same message is that start."""

_decode_record = msgspec.msgpack.Decoder(Record).decode
_decode_history = msgspec.msgpack.Decoder(TaskHistory).decode


class PastRun(msgspec.Struct, frozen=True):
    """One execution as it happened, as far as a rehearsal needs it. Times are ns since 1970."""

    id: int
    task_id: str
    task_name: str
    kind: str
    """Of its cause: ``"message"``, ``"timer"``, ``"operator"``, ``"http"``, ``"elsewhere"``."""
    seq: int
    rule: str
    requested_ns: int
    begun_ns: int | None
    """When the start call was made that the server took, or when a run of others began."""
    ended_ns: int | None
    """When the appliance saw its end; ``None`` while it has none."""
    state: ExecutionState
    merged: int
    answered_by: int
    label: str
    reason: str
    selector: TaskSelector
    options: Options


class PastAnswer(msgspec.Struct, frozen=True):
    """What one message led to: an execution, or none (0) and why in a few characters."""

    seq: int
    execution: int
    label: str
    at_ns: int
    state: str


class Past(msgspec.Struct):
    """A stretch of the past. Empty where there is no ``tasks.db``."""

    runs: list[PastRun] = []
    """Those that were open at its beginning or came later, by number."""
    answers: list[PastAnswer] = []
    """Those of the stretch, oldest first."""
    histories: dict[str, TaskHistory] = {}
    """Durations and names by task id. ``last_start_ns`` is that before the stretch."""
    sightings: list[tuple[bytes, int]] = []
    """Messages that were acted on before the stretch, for telling redeliveries."""
    tasks: dict[str, Task] = {}
    """What runs tell of tasks: names, and by which tags, properties and apps they were found."""
    known_since_ns: int = 0
    """The oldest run or answer that is kept; 0 if there is none."""


def read(path: Path, since_ns: int, until_ns: int) -> Past:
    """What the database tells. Rows that can't be decoded are left out.

    Args:
        path: the database; if there is none, nothing is known.
        since_ns: the stretch begins here.
        until_ns: the stretch ends here.

    Raises:
        sqlite3.Error: it can't be read.
    """
    past = Past()
    if not path.exists():
        return past
    last_starts: dict[str, int] = {}
    with contextlib.closing(connect_read_only(path)) as connection:
        for record in _records(connection):
            run = _run(record)
            _note_known(past, run.requested_ns)
            _learn(past.tasks, record)
            if run.begun_ns is not None and run.begun_ns < since_ns:
                last_starts[run.task_id] = max(run.begun_ns, last_starts.get(run.task_id, 0))
            is_open = run.ended_ns is None or run.ended_ns >= since_ns
            if is_open and run.requested_ns < until_ns:
                past.runs.append(run)
        for row in connection.execute(
            "SELECT seq, execution, label, at_ns, state FROM answers ORDER BY rowid"
        ):
            with contextlib.suppress(msgspec.ValidationError, ValueError):
                answer = msgspec.convert(dict(zip(_ANSWER, row, strict=True)), PastAnswer)
                _note_known(past, answer.at_ns)
                if since_ns <= answer.at_ns < until_ns:
                    past.answers.append(answer)
        for task_id, body in connection.execute("SELECT task_id, history FROM histories"):
            with contextlib.suppress(ValueError, TypeError):
                history = _decode_history(body)
                past.histories[str(task_id)] = msgspec.structs.replace(
                    history, last_start_ns=last_starts.pop(task_id, 0)
                )
        for task_id, begun_ns in last_starts.items():
            past.histories[task_id] = TaskHistory(last_start_ns=begun_ns)
        rows = connection.execute(
            "SELECT digest, at_ns FROM sightings WHERE at_ns < ? ORDER BY at_ns", (since_ns,)
        )
        past.sightings = [
            (digest, at_ns)
            for digest, at_ns in rows
            if isinstance(digest, bytes) and isinstance(at_ns, int)
        ]
    for task_id, history in past.histories.items():
        if history.name and task_id not in past.tasks:
            past.tasks[task_id] = Task(task_id, history.name)
    return past


class RealStarts:
    """The starts of the past, by what asked for them."""

    def __init__(self, past: Past) -> None:
        runs = {run.id: run for run in past.runs if run.begun_ns is not None}
        self._by_message = {
            (answer.seq, runs[answer.execution].task_id): runs[answer.execution]
            for answer in past.answers
            if answer.execution in runs
        }
        self._by_rule: dict[tuple[str, str], list[PastRun]] = {}
        for run in sorted(runs.values(), key=_begun):
            if run.kind == "message":
                self._by_message[run.seq, run.task_id] = run
                self._by_rule.setdefault((run.rule, run.task_id), []).append(run)

    def of_message(self, seq: int, task_id: str) -> PastRun | None:
        """The start of a task that a message asked for, or was merged into."""
        return self._by_message.get((seq, task_id))

    def near(self, rule: str, task_id: str, at_ns: int) -> PastRun | None:
        """The start of a task by a rule that is closest to a time, within ``SAME_START_NS``."""
        runs = self._by_rule.get((rule, task_id), [])
        at = bisect_left(runs, at_ns, key=_begun)
        for one in sorted(runs[max(0, at - 1) : at + 1], key=lambda one: abs(_begun(one) - at_ns)):
            return one if abs(_begun(one) - at_ns) < SAME_START_NS else None
        return None


def _begun(run: PastRun) -> int:
    return run.begun_ns or 0


_ANSWER = PastAnswer.__struct_fields__


def _records(connection: sqlite3.Connection) -> Iterator[Record]:
    for (body,) in connection.execute("SELECT record FROM executions ORDER BY id"):
        with contextlib.suppress(ValueError, TypeError):
            yield _decode_record(body)


def _note_known(past: Past, at_ns: int) -> None:
    past.known_since_ns = min(at_ns, past.known_since_ns or at_ns)


def _run(record: Record) -> PastRun:
    execution = record.execution
    cause = execution.cause
    return PastRun(
        id=execution.id,
        task_id=execution.task_id,
        task_name=execution.task_name,
        kind=cause.kind,
        seq=cause.seq,
        rule=cause.rule,
        requested_ns=execution.requested_ns,
        begun_ns=_begun_ns(execution),
        ended_ns=_ended_ns(execution),
        state=execution.state,
        merged=execution.merged,
        answered_by=execution.answered_by,
        label=record.label,
        reason=execution.reason,
        selector=record.selector,
        options=record.options,
    )


def _begun_ns(execution: Execution) -> int | None:
    """When the start call was made that the server took; of a run of others, when it began."""
    if not execution.execution_id:
        return None
    calls = [one.at_ns for one in execution.steps if one.text.startswith("Start call")]
    return calls[-1] if calls else execution.started_ns or execution.requested_ns


def _ended_ns(execution: Execution) -> int | None:
    """When the appliance saw the end: what waited for it went then, not when the run ended."""
    if not execution.state.is_final:
        return None
    word = execution.state.value.capitalize()
    seen = [
        one.at_ns
        for one in execution.steps
        if one.text in (execution.state.value, word) or one.text.startswith(f"{word}: ")
    ]
    return seen[0] if seen else execution.ended_ns or execution.requested_ns


def _learn(tasks: dict[str, Task], record: Record) -> None:
    """Take over what an execution tells of its task: its name, and what it was found by."""
    execution, selector = record.execution, record.selector
    if not execution.task_id:
        return
    task = tasks.get(execution.task_id) or Task(execution.task_id, execution.task_name)
    if execution.task_name:
        task = msgspec.structs.replace(task, name=execution.task_name)
    match selector.kind:
        case "tag" if selector.value not in task.tags:
            task = msgspec.structs.replace(task, tags=(*task.tags, selector.value))
        case "property" if (selector.key, selector.value) not in task.properties:
            found = (*task.properties, (selector.key, selector.value))
            task = msgspec.structs.replace(task, properties=found)
        case "app":
            task = msgspec.structs.replace(task, app_id=selector.value, app_name=selector.value)
        case _:
            pass
    tasks[execution.task_id] = task
