"""What the simulated Qlik Cloud writes: reloads, pages, errors; and what began each run.

Source of the shapes: docs/qlik.md, "Qlik Cloud". Not for: addresses and requests (cloud.py,
cloud_tasks.py).
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from appliance.qlik.simulated.messages import Answer, Request, date, json_answer
from appliance.qlik.simulated.site import Run, Status

_STATUS = {
    Status.TRIGGERED: "QUEUED",
    Status.QUEUED: "QUEUED",
    Status.STARTED: "RELOADING",
    Status.ABORT_INITIATED: "CANCELING",
    Status.SUCCESS: "SUCCEEDED",
    Status.FAIL: "FAILED",
    Status.ERROR: "FAILED",
    Status.ABORTED: "CANCELED",
    Status.SKIPPED: "CANCELED",
    Status.RESET: "CANCELED",
}
_KEPT = 5000
Row = dict[str, object]


@dataclass(frozen=True)
class Origin:
    """What began a run."""

    source: str = ""
    """What triggered the run of a task; empty for a reload of an app alone."""
    type: str = "external"
    """Of the reload."""
    partial: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


class Origins:
    """What began each run. The newest are kept; guarded by the site's lock."""

    def __init__(self) -> None:
        self.elsewhere_type = "external"
        """The type of reloads that neither a call nor a task began."""
        self._origins: OrderedDict[str, Origin] = OrderedDict()

    def note(self, execution_id: str, origin: Origin) -> None:
        self._origins[execution_id] = origin
        while len(self._origins) > _KEPT:
            self._origins.popitem(last=False)

    def of(self, run: Run) -> Origin:
        """What no call began was begun by the schedule of the task, or elsewhere."""
        found = self._origins.get(run.execution_id)
        if found is not None:
            return found
        if run.task.is_cloud_task:
            return Origin("schedule", "choreographer")
        return Origin("schedule", self.elsewhere_type)


def reload_row(run: Run, origin: Origin) -> Row:
    attempt = run.attempt
    status = "EXCEEDED_LIMIT" if run.abort_reason == 2 and run.over else _STATUS[attempt.status]
    row: Row = {
        "id": run.execution_id,
        "appId": run.task.app_id,
        "tenantId": "simulated-tenant",
        "userId": "simulated-user",
        "type": origin.type,
        "status": status,
        "partial": origin.partial,
        "weight": 1,
        "creationTime": date(run.created_ns),
    }
    if attempt.started_ns is not None:
        row["startTime"] = date(attempt.started_ns)
    if attempt.stopped_ns is not None:
        row["endTime"] = date(attempt.stopped_ns)
    if status == "FAILED":
        row["errorCode"] = "EngineErrorCode::INTERNAL"
        row["errorMessage"] = run.task.error_text
    return row


def log_of(run: Run) -> str:
    lines = run.task.log or ("Execution started.", run.task.error_text, "Execution ended.")
    return "\n".join(lines) + "\n"


def page(request: Request, rows: Sequence[Row], *, cursor: str, limit: int) -> Answer:
    """One page of a list, with the links to the pages beside it.

    Args:
        request: is answered.
        rows: the whole list.
        cursor: the name of the parameter that carries the place in the list.
        limit: rows of one page.
    """
    given = request.query.get(cursor, "")
    try:
        first = int(base64.urlsafe_b64decode(given).removeprefix(b"at ")) if given else 0
    except (ValueError, binascii.Error):
        return error(400, "HTTP-400", "Bad request", f"{cursor} is no cursor of this list")
    host = request.headers.get("host", "")
    kept = {name: value for name, value in request.query.items() if name != cursor}
    links: dict[str, object] = {"self": {"href": f"http://{host}{request.path}"}}
    if first + limit < len(rows):
        place = base64.urlsafe_b64encode(f"at {first + limit}".encode()).decode()
        query = urlencode({**kept, cursor: place})
        links["next"] = {"href": f"http://{host}{request.path}?{query}"}
    return json_answer({"data": rows[first : first + limit], "links": links})


def error(status: int, code: str, title: str, detail: str = "") -> Answer:
    """An error as most interfaces have it."""
    return json_answer(
        {"errors": [{"code": code, "title": title, "detail": detail or title}]}, status
    )
