"""Reads what Qlik Cloud answers: reloads, tasks and their runs, lists.

The meaning of the fields is docs/qlik.md, "Qlik Cloud". Not for: requests (cloud_api.py), errors
(cloud_errors.py), whose run it is (cloud_runs.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from appliance.model import ExecutionState, Task
from appliance.qlik import rows
from appliance.qlik.failures import unexpected_error
from appliance.qlik.masking import mask_line
from appliance.qlik.server import Report
from appliance.qlik.transport import Reply

RUN = "run:"
"""How the execution id of a Qlik Cloud task's run begins; the run's id follows."""
_STATES = {
    "QUEUED": ExecutionState.QUEUED,
    "RELOADING": ExecutionState.RUNNING,
    "CANCELING": ExecutionState.RUNNING,
    "SUCCEEDED": ExecutionState.SUCCEEDED,
    "FAILED": ExecutionState.FAILED,
    "CANCELED": ExecutionState.ABORTED,
    "EXCEEDED_LIMIT": ExecutionState.FAILED,
}
_RUN_STATES = {
    "RUNNING": ExecutionState.RUNNING,
    "SUCCEEDED": ExecutionState.SUCCEEDED,
    "FAILED": ExecutionState.FAILED,
}
_RELOAD_WORKERS = frozenset({"reload", "reloads"})
"""The worker type of a run that is a reload: both spellings are in Qlik's documentation."""
_DISABLED = {
    "MANUALLY": "a person disabled it",
    "CONSECUTIVE-FAILURES": "it failed too often in a row",
    "APP-SCRIPT-UPDATED": "the script of its app was changed",
    "OWNER-DELETED": "its owner was deleted",
    "OWNER-DISABLED": "its owner was disabled",
    "APP-MOVED-SPACE": "its app was moved to another space",
    "OWNER-MOVED": "its owner was moved",
}
_ERROR_LINE = re.compile(r"\berror\b", re.IGNORECASE)
_ERROR_PREFIX = re.compile(r"^error:\s*(?=\S)", re.IGNORECASE)
_LOG_SEARCHED = 65536


def as_object(reply: Reply) -> rows.Row:
    answer = reply.json()
    if not isinstance(answer, Mapping):
        raise unexpected_error(reply.where, "not an object")
    return answer


def data_rows(reply: Reply) -> list[rows.Row]:
    return rows.rows(as_object(reply).get("data"))


def reload_report(row: rows.Row) -> Report:
    """The report of a reload; it was queued when it was created."""
    status = rows.text(row, "status")
    state = _STATES.get(status, ExecutionState.RUNNING)
    created_ns = rows.time_ns(row.get("creationTime"))
    started_ns = rows.time_ns(row.get("startTime"))
    ended_ns = rows.time_ns(row.get("endTime")) if state.is_final else None
    message = rows.text(row, "errorMessage") or rows.text(row, "log")
    reason = ""
    if status == "EXCEEDED_LIMIT":
        reason = "the reload was ended because it exceeded a limit of Qlik Cloud"
    elif state.is_bad:
        reason = mask_line(message.strip() or rows.text(row, "errorCode") or f"status {status}")
    reload_id = rows.text(row, "id")
    return Report(
        execution_id=reload_id,
        task_id=rows.text(row, "appId").lower(),
        state=state,
        result_id=reload_id,
        started_ns=started_ns or created_ns,
        ended_ns=ended_ns,
        duration_s=_seconds(started_ns, ended_ns),
        reason=reason,
        session_open=not state.is_final,
        queued_ns=created_ns,
        queued_s=_seconds(created_ns, started_ns),
    )


def run_report(row: rows.Row, task_id: str) -> Report:
    """The report of a task's run, by what the run alone says."""
    state = _RUN_STATES.get(rows.text(row, "status"), ExecutionState.RUNNING)
    started_ns = run_started_ns(row)
    ended_ns = rows.time_ns(row.get("endedAt")) if state.is_final else None
    reason = ""
    if state.is_bad:
        reason = error_in(rows.text(row, "log")) or "the run of the Qlik Cloud task failed"
    return Report(
        execution_id=f"{RUN}{rows.text(row, 'id')}",
        task_id=task_id,
        state=state,
        result_id=reload_of(row),
        started_ns=started_ns,
        ended_ns=ended_ns,
        duration_s=_seconds(started_ns, ended_ns),
        reason=reason,
        session_open=not state.is_final,
        task_name=rows.text(row, "taskName"),
    )


def with_reload(report: Report, made: Report) -> Report:
    """A run's report with what the reload behind it says better.

    A run is RUNNING while its reload waits, and FAILED when it was cancelled. Whether the run is
    over, its own status says.
    """
    state = report.state
    reason = report.reason
    if state.is_bad and made.state.is_bad:
        state, reason = made.state, made.reason or reason
    elif not state.is_final and made.state is ExecutionState.QUEUED:
        state = ExecutionState.QUEUED
    return msgspec.structs.replace(
        report,
        state=state,
        reason=reason,
        started_ns=made.started_ns or report.started_ns,
        duration_s=made.duration_s if state.is_final and made.duration_s else report.duration_s,
        queued_ns=made.queued_ns,
        queued_s=made.queued_s,
    )


def run_started_ns(row: rows.Row) -> int | None:
    return rows.time_ns(row.get("startedAt"))


def reload_of(row: rows.Row) -> str:
    """The id of the reload that a run made; empty if it has none (yet)."""
    is_reload = rows.text(row, "workerType").lower() in _RELOAD_WORKERS
    return rows.text(row, "workerId") if is_reload else ""


def task(row: rows.Row, app_names: Mapping[str, str]) -> Task:
    """A task of Qlik Cloud.

    Args:
        row: of the task list.
        app_names: the names of the apps by their ids in lower case.
    """
    app_id = rows.text(row, "resourceId")
    last = last_run(row)
    ended_ns = rows.time_ns(last.get("endedAt"))
    state = _RUN_STATES.get(rows.text(last, "status"), ExecutionState.RUNNING)
    app_name = app_names.get(app_id.lower()) or rows.text(
        rows.inner(row, "metadata"), "resourceName"
    )
    return Task(
        id=rows.text(row, "id").lower(),
        name=rows.text(row, "name"),
        enabled=row.get("enabled") is not False,
        app_id=app_id,
        app_name=app_name,
        last_duration_s=_seconds(run_started_ns(last), ended_ns),
        last_state=state if state.is_final and ended_ns is not None else None,
        last_ended_ns=ended_ns if state.is_final else None,
    )


def last_run(row: rows.Row) -> rows.Row:
    """The last run of a task as the task list has it.

    Not each tenant has the run itself there: some have only its status and times, so it may lack
    an id.
    """
    orchestration = rows.inner(rows.inner(row, "metadata"), "orchestration")
    found = rows.inner(orchestration, "lastRun")
    if found:
        return found
    attributes = rows.inner(orchestration, "attrs")
    return {
        "status": attributes.get("last_run_status"),
        "startedAt": attributes.get("last_run_startedAt"),
        "endedAt": attributes.get("last_run_endedAt"),
        "workerType": attributes.get("last_run_worker_type"),
    }


def why_disabled(row: rows.Row) -> str:
    """Why a task is disabled, as a sentence; empty if it is not."""
    if row.get("enabled") is not False:
        return ""
    code = rows.text(rows.inner(row, "metadata"), "disabledCode")
    why = _DISABLED.get(code.upper(), mask_line(code)[:100])
    return f"the task is disabled{f': {why}' if why else ''}. Enable it in Qlik Cloud"


def error_in(log: str) -> str:
    """The line of a log that says best what failed, masked; empty if the log is."""
    lines = [line.strip() for line in log[-_LOG_SEARCHED:].splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    for line in (errors or lines)[-1:]:
        return mask_line(_ERROR_PREFIX.sub("", line))
    return ""


def _seconds(start_ns: int | None, end_ns: int | None) -> float | None:
    return max(end_ns - start_ns, 0) / 1e9 if start_ns and end_ns else None
