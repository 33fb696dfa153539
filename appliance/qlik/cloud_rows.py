"""Reads what Qlik Cloud answers: reloads, runs of tasks, lists, errors.

The meaning of the fields is docs/qlik.md, "Qlik Cloud". Not for: requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from appliance.model import ExecutionState
from appliance.qlik import rows
from appliance.qlik.failures import status_error, unexpected_error
from appliance.qlik.masking import mask_line
from appliance.qlik.server import QlikError, Report
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


def expect_success(reply: Reply, *, not_found: str = "") -> None:
    if reply.is_sign_in:
        reply.json()  # Raises what a login page means.
    if reply.status < 300:
        return
    advice = {
        401: "Check the API key or OAuth client in [qlik]; it may have expired or been revoked.",
        403: "Give the user or OAuth client of [qlik] the right to reload this app (its space).",
        404: not_found or "Check [qlik] url: the address of the tenant, without a path.",
    }.get(reply.status, "")
    raise status_error(reply.where, reply.status, error_text(reply), reply.headers, advice=advice)


def error_text(reply: Reply) -> str:
    """The text of a Qlik Cloud error: ``{"errors": [{code, title, detail}]}``."""
    with contextlib.suppress(QlikError):
        answer = reply.json()
        errors = rows.rows(answer.get("errors")) if isinstance(answer, Mapping) else []
        parts = [
            " ".join(dict.fromkeys(rows.text(error, name) for name in ("code", "title", "detail")))
            for error in errors[:3]
        ]
        return mask_line("; ".join(part.strip() for part in parts))
    return ""


def as_object(reply: Reply) -> rows.Row:
    answer = reply.json()
    if not isinstance(answer, Mapping):
        raise unexpected_error(reply.where, "not an object")
    return answer


def data_rows(reply: Reply) -> list[rows.Row]:
    return rows.rows(as_object(reply).get("data"))


def reload_report(row: rows.Row) -> Report:
    status = rows.text(row, "status")
    state = _STATES.get(status, ExecutionState.RUNNING)
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
        started_ns=started_ns or rows.time_ns(row.get("creationTime")),
        ended_ns=ended_ns,
        duration_s=(ended_ns - started_ns) / 1e9 if ended_ns and started_ns else None,
        reason=reason,
        session_open=not state.is_final,
    )


def run_report(row: rows.Row, task_id: str) -> Report:
    state = _RUN_STATES.get(rows.text(row, "status"), ExecutionState.RUNNING)
    started_ns = run_started_ns(row)
    ended_ns = rows.time_ns(row.get("endedAt")) if state.is_final else None
    is_reload = rows.text(row, "workerType") == "reload"
    return Report(
        execution_id=f"{RUN}{rows.text(row, 'id')}",
        task_id=task_id,
        state=state,
        result_id=rows.text(row, "workerId") if is_reload else "",
        started_ns=started_ns,
        ended_ns=ended_ns,
        duration_s=(ended_ns - started_ns) / 1e9 if ended_ns and started_ns else None,
        reason="the run of the Qlik Cloud task failed" if state.is_bad else "",
        session_open=not state.is_final,
    )


def run_started_ns(row: rows.Row) -> int | None:
    return rows.time_ns(row.get("startedAt"))
