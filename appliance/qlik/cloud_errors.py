"""What an error of Qlik Cloud says, and what to do about it.

Two forms are known: ``{"errors": [{code, title, detail}]}`` of most interfaces, and
``{"errors": [{code, title, context}], "traceId"}`` of the scheduling tasks, whose codes are numbers
or texts such as ``CHO-003`` (docs/qlik.md, "Errors of Qlik Cloud"). Not for: failures without an
answer (failures.py).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from appliance.qlik import rows
from appliance.qlik.failures import StatusError, status_error
from appliance.qlik.masking import mask_line
from appliance.qlik.server import QlikError
from appliance.qlik.transport import Reply

_ERRORS_SHOWN = 3
_CODE = re.compile(r"\b(?:CHO|RELOADS|TASKS|DF)-\d{3}\b")
_NO_RIGHT = (
    "Check that the app still exists, and give the user or OAuth client of [qlik] the permission "
    "app:reload in its space"
)
NO_FILE_RIGHT = (
    "Give the user or OAuth client of [qlik] a role in the space that may edit its data files (in "
    "a shared space: can edit data; in a managed one: can contribute)"
)
_BY_CODE = {
    "CHO-003": f"The task's app is missing or may not be reloaded. {_NO_RIGHT}.",
    "CHO-004": "There is no task with this id that [qlik] may see. Check the id in Qlik Cloud.",
    "CHO-013": "A service that the task needs did not do its part. Start the task again later.",
    "CHO-014": "The tenant has as many tasks as it may have. Delete some in Qlik Cloud.",
    "CHO-015": f"The user or OAuth client of [qlik] may not start this task. {_NO_RIGHT}.",
    "CHO-016": "The task waits for a task that is gone. Correct its trigger in Qlik Cloud.",
    "CHO-017": "The task's schedule is not valid. Correct it in Qlik Cloud.",
    "CHO-018": "The user of [qlik] has as many tasks as allowed. Delete some in Qlik Cloud.",
    "CHO-024": "The scheduling service of Qlik Cloud is not available now; the appliance tries "
    "again.",
    "CHO-031": "The task is being changed. The call succeeds once that is done.",
    "DF-004": "A folder in Qlik Cloud has / between its parts, and none of them is . or .. there.",
    "DF-010": "The tenant does not take files with this ending. Use another `format`.",
    "DF-011": "The tenant takes only files with an ending. Give `path` one.",
    "DF-013": f"{NO_FILE_RIGHT}.",
    "DF-015": "A file's name in Qlik Cloud must not have . or .. as a part. Change `path`.",
    "DF-016": "The personal space is full. Delete data files in Qlik Cloud, or name a `space`.",
    "DF-026": "The folder is too deep for Qlik Cloud. Shorten `folder`.",
    "TASKS-011": "The tenant no longer has this interface. Name the app, or a newer task.",
}
_BY_STATUS = {
    401: "Check the API key or OAuth client in [qlik]; it may have expired or been revoked.",
    403: f"{_NO_RIGHT}.",
    404: "Check [qlik] url: the address of the tenant, without a path.",
    413: "The file is larger than the tenant takes. Lower `rotate`, or raise the tenant's limit.",
    423: "Something else reads or writes the file now; the appliance tries again.",
    410: "The tenant no longer has this interface; the appliance looks for the newer one.",
    500: "Qlik Cloud has a problem of its own; https://status.qlikcloud.com tells of known ones.",
}


def expect_success(reply: Reply, *, not_found: str = "", denied: str = "") -> None:
    """Check an answer.

    Args:
        reply: the answer.
        not_found: what to do where the status is 404.
        denied: what to do where the status is 403 and the answer has no code that says more.

    Raises:
        StatusError: the status is no success.
        QlikError: it is a login page.
    """
    if reply.status >= 300 or reply.is_sign_in:
        raise error_of(reply, not_found=not_found, denied=denied)


def error_of(reply: Reply, *, not_found: str = "", denied: str = "") -> StatusError:
    """The error for an answer that is no success; see ``expect_success``.

    Raises:
        QlikError: it is a login page.
    """
    if reply.is_sign_in:
        reply.json()  # Raises what a login page means.
    said = error_text(reply)
    code = _CODE.search(said)
    advice = _BY_CODE.get(code[0], "") if code else ""
    if reply.status == 404 and not_found:
        advice = not_found
    elif reply.status == 403 and denied and not advice:
        advice = denied
    elif reply.status >= 500:
        advice = advice or _BY_STATUS[500]
    return status_error(
        reply.where,
        reply.status,
        said,
        reply.headers,
        advice=advice or _BY_STATUS.get(reply.status, ""),
    )


def error_text(reply: Reply) -> str:
    """The texts of an error, masked; empty where the answer has none that is known."""
    with contextlib.suppress(QlikError):
        answer = reply.json()
        errors = rows.rows(answer.get("errors")) if isinstance(answer, Mapping) else []
        return mask_line("; ".join(_one(error) for error in errors[:_ERRORS_SHOWN]))
    return ""


def _one(error: rows.Row) -> str:
    code = error.get("code")
    parts = [str(code) if isinstance(code, (str, int)) and not isinstance(code, bool) else ""]
    parts += [rows.text(error, name) for name in ("title", "detail", "context")]
    return " ".join(part.strip() for part in dict.fromkeys(parts) if part.strip())
