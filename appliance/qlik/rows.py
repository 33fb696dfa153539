"""Reads the Repository Service's JSON rows: tasks, execution sessions, execution results.

The meaning of the fields and of the status numbers is docs/qlik.md, "Following an execution".
A row from a server may lack any field; a missing field gets its empty value. Not for: requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from appliance.model import ExecutionState, Step, Task, TaskKind
from appliance.qlik.masking import mask_line
from appliance.qlik.server import Report

ZERO_ID = "00000000-0000-0000-0000-000000000000"
GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
Row = Mapping[str, Any]

_STATES = {
    1: ExecutionState.RUNNING,  # Triggered
    2: ExecutionState.RUNNING,  # Started
    3: ExecutionState.QUEUED,
    4: ExecutionState.RUNNING,  # AbortInitiated
    5: ExecutionState.RUNNING,  # Aborting
    6: ExecutionState.ABORTED,
    7: ExecutionState.SUCCEEDED,
    8: ExecutionState.FAILED,
    9: ExecutionState.SKIPPED,
    10: ExecutionState.RUNNING,  # Retry
    11: ExecutionState.FAILED,  # Error
    12: ExecutionState.ABORTED,  # Reset
    13: ExecutionState.QUEUED,  # DistributionQueue
    14: ExecutionState.RUNNING,  # DistributionRunning
}
_NAMES = {6: "Aborted", 8: "FinishedFail", 9: "Skipped", 11: "Error", 12: "Reset"}
_ABORT_REASONS = {1: "by a person", 2: "because its time limit was reached", 3: "task deleted"}
_TASK_FIELDS = ("reloadTask", "externalProgramTask", "userSyncTask")
_DETAILS_LIMIT = 100
_LARGEST = 2**63 - 1
"""What databases and MessagePack have room for. In nanoseconds it is the year 2262: the year 9999
of a trigger that never ends is none that is waited for."""
_STATE_CHANGE = re.compile(r"Changing task state (?:from \w+ )?to (\w+)", re.IGNORECASE)
_NOTES = (
    "Changing task state",
    "Trying to start task",
    "Reference to scriptlog",
    "Task finished",
    "Max retries reached",
)
"""How the scheduler's own notes begin: every run has them, so they are no reason."""


def state_of(status: object) -> ExecutionState:
    """The execution state of a status number; an undocumented number counts as running."""
    return _STATES.get(status, ExecutionState.RUNNING) if isinstance(status, int) else _RUNNING


_RUNNING = ExecutionState.RUNNING


def time_ns(text: object) -> int | None:
    """A time of the server in nanoseconds since 1970.

    ``None`` for its empty date (1753), and for a time without room in 64 bits.
    """
    if not isinstance(text, str) or not text or text.startswith("1753-"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    found = round(moment.timestamp() * 1000) * 1_000_000
    return found if abs(found) <= _LARGEST else None


def date_text(at_ns: int) -> str:
    """A time as the server writes it in its own rows and reads it in filters."""
    moment = datetime.fromtimestamp(at_ns / 1e9, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rows(value: object) -> list[Row]:
    """The objects of a JSON array; other elements are left out."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def inner(row: Row, name: str) -> Row:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def text(row: Row, name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def number(row: Row, name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST:
        return 0
    return value


def tags(row: Row) -> tuple[str, ...]:
    """The names of the tags of a task or an app."""
    return tuple(text(tag, "name") for tag in rows(row.get("tags")))


def properties(row: Row) -> tuple[tuple[str, str], ...]:
    """The custom properties of a task or an app, as names and values."""
    return tuple(
        (text(inner(value, "definition"), "name"), text(value, "value"))
        for value in rows(row.get("customProperties"))
    )


def task(row: Row, kind: TaskKind) -> Task:
    """A row of a task list."""
    last = inner(inner(row, "operational"), "lastExecutionResult")
    duration_ms = number(last, "duration")
    ended_ns = time_ns(last.get("stopTime"))
    state = state_of(last.get("status"))
    app = inner(row, "app")
    return Task(
        id=text(row, "id").lower(),
        name=text(row, "name"),
        kind=kind,
        enabled=row.get("enabled") is not False,
        app_id=text(app, "id"),
        app_name=text(app, "name"),
        tags=tags(row),
        properties=properties(row),
        max_retries=number(row, "maxRetries"),
        partial=row.get("isPartialReload") is True,
        manual=row.get("isManuallyTriggered") is True,
        timeout_min=number(row, "taskSessionTimeout"),
        last_duration_s=duration_ms / 1000 if duration_ms > 0 else None,
        last_state=state if state.is_final and ended_ns is not None else None,
        last_ended_ns=ended_ns if state.is_final else None,
        next_ns=time_ns(inner(row, "operational").get("nextExecution")),
    )


def session_task(session: Row) -> Row:
    """The task of a session, of any kind; an empty row if the session does not have it."""
    for name in _TASK_FIELDS:
        found = inner(session, name)
        if found:
            return found
    return {}


def session_report(session: Row) -> Report:
    """A running execution, from its session alone."""
    result = inner(session, "executionResult")
    node = inner(session, "executingNode")
    state = state_of(result.get("status"))
    return Report(
        execution_id=text(session, "id").lower(),
        task_id=text(session_task(session), "id").lower(),
        # An attempt that ended while the session is there will be retried or is being closed.
        state=ExecutionState.RUNNING if state.is_final else state,
        result_id=_real_id(text(result, "id")),
        status=result.get("status") if isinstance(result.get("status"), int) else None,
        started_ns=time_ns(result.get("startTime")) or time_ns(session.get("createdDate")),
        attempt=number(session, "retries") + 1,
        file_reference=file_reference(result),
        task_name=text(session_task(session), "name"),
        node=text(result, "executingNodeName") or text(node, "hostName") or text(node, "name"),
        queued_ns=time_ns(session.get("createdDate")),
    )


def execution_report(results: Sequence[Row], session: Row | None) -> Report:
    """The report of one execution.

    Args:
        results: its execution results, one for each attempt, in any order; at least one.
        session: its session, asked for BEFORE the results, or ``None`` if it was gone. The order
            matters: results that were read while a session was known to be gone are final.
    """
    ordered = sorted(results, key=_attempt_order)
    newest = ordered[-1]
    status = newest.get("status")
    state = state_of(status)
    # Success needs no session to be final; a failure does, because the server may try again.
    if state.is_final and session is not None and state is not ExecutionState.SUCCEEDED:
        state = ExecutionState.RUNNING
    started_ns = time_ns(ordered[0].get("startTime"))
    duration_ms = number(newest, "duration")
    details = _details(newest)
    queued_ns, left_ns = _queue_times(ordered[0])
    return Report(
        execution_id=text(newest, "executionID").lower(),
        task_id=text(newest, "taskID").lower(),
        state=state,
        result_id=text(newest, "id"),
        status=status if isinstance(status, int) else None,
        started_ns=started_ns,
        ended_ns=time_ns(newest.get("stopTime")) if state.is_final else None,
        duration_s=duration_ms / 1000 if state.is_final and duration_ms > 0 else None,
        attempt=len(ordered),
        details=tuple(Step(at_ns, message) for at_ns, _, message in details),
        reason=_reason(state, status, details, session) if state.is_bad or _skipped(state) else "",
        file_reference=file_reference(newest),
        session_open=session is not None,
        task_name=text(session_task(session), "name") if session is not None else "",
        node=text(newest, "executingNodeName"),
        queued_ns=queued_ns,
        queued_s=(
            max(left_ns - queued_ns, 0) / 1e9
            if queued_ns is not None and left_ns is not None
            else None
        ),
    )


def grouped(results: Iterable[Row]) -> dict[str, list[Row]]:
    """Execution results by execution id (lower case)."""
    groups: dict[str, list[Row]] = {}
    for row in results:
        groups.setdefault(text(row, "executionID").lower(), []).append(row)
    return groups


def _attempt_order(row: Row) -> tuple[int, int]:
    # By creation: an attempt in the queue has no start time yet (the year 1753), so by start time
    # it would be the oldest.
    return time_ns(row.get("createdDate")) or 0, time_ns(row.get("startTime")) or 0


def _details(row: Row) -> list[tuple[int, int, str]]:
    """(time, type, masked message), in the order of their times: the server promises no order."""
    details = sorted(rows(row.get("details")), key=lambda item: text(item, "detailCreatedDate"))
    return [
        (
            time_ns(item.get("detailCreatedDate")) or 0,
            number(item, "detailsType"),
            mask_line(text(item, "message")),
        )
        for item in details[-_DETAILS_LIMIT:]
    ]


def _queue_times(first: Row) -> tuple[int | None, int | None]:
    """When the first attempt of a run came into the queue, and when it was taken out.

    The scheduler notes each change of state. Without these notes the attempt's own times tell it.
    """
    changes: dict[str, int] = {}
    for item in rows(first.get("details")):
        change = _STATE_CHANGE.match(text(item, "message"))
        at_ns = time_ns(item.get("detailCreatedDate"))
        if change is not None and at_ns is not None:
            state = change[1].lower()
            changes[state] = min(at_ns, changes.get(state, at_ns))
    came = [changes[state] for state in ("triggered", "queued") if state in changes]
    queued_ns = min(came) if came else time_ns(first.get("createdDate"))
    return queued_ns, changes.get("started", time_ns(first.get("startTime")))


def _skipped(state: ExecutionState) -> bool:
    return state is ExecutionState.SKIPPED


def _reason(
    state: ExecutionState,
    status: object,
    details: Sequence[tuple[int, int, str]],
    session: Row | None,
) -> str:
    for wanted in (0, 1):
        for _, kind, message in reversed(details):
            if kind == wanted and message:
                return message
    for _, _, message in reversed(details):
        if message and not message.startswith(_NOTES):
            return message
    why = _ABORT_REASONS.get(number(session or {}, "abortReason"), "")
    name = _NAMES.get(status, "") if isinstance(status, int) else ""
    return f"the run was {state.value}{' ' + why if why else ''} (status {status} {name})".strip()


def file_reference(result: Row) -> str:
    """The reference of a result's script log, empty if there is none (yet)."""
    return _real_id(text(result, "fileReferenceID"))


def _real_id(value: str) -> str:
    return "" if value == ZERO_ID else value
