"""The end of a run's script log: two ways to ask the Repository Service for it, and its bounds.

The older way names the log's file, the newer one the execution result; each gives a reference for
the download (docs/qlik.md, "Script logs"). Servers exist on which only one of them works, so the
other one is tried whatever the first one failed with. Not for: when a log is asked for, and how
often (appliance/tasks/script_logs.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol
from urllib.parse import quote

from appliance.qlik import rows
from appliance.qlik.failures import login_page_error, unexpected_error
from appliance.qlik.server import QlikError, Report, RetryPolicy
from appliance.qlik.transport import Reply

_BYTES_PER_LINE = 400
_BYTES_MIN = 65536
_REFERENCE_LIMIT = 200
"""Characters of a reference; those that were seen are GUIDs."""


class Get(Protocol):
    """A GET of a path below ``/qrs``; raises ``QlikError`` unless it succeeds."""

    def __call__(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        keep_last: int | None = None,
    ) -> Reply: ...


def kept_bytes(lines: int) -> int:
    """How much of a log's end is kept while it is read, to have so many lines of it."""
    return max(_BYTES_MIN, lines * _BYTES_PER_LINE)


def script_log_end(get: Get, report: Report, keep: int) -> str:
    """The end of a reload's script log, or all of it. It is not masked.

    Args:
        get: makes the calls.
        report: of the run; ``task_id`` must be a GUID.
        keep: at least so many bytes of it, and at most twice as many.

    Raises:
        QlikError: the log can't be had; the text has the reason of each way. Its label is that of
            the last way.
    """
    failures: list[QlikError] = []
    for name, parameter, value in _ways(get, report):
        try:
            reference = _reference(get(f"/reloadtask/{report.task_id}/{name}", {parameter: value}))
            path = f"/download/reloadtask/{quote(reference, safe='')}/scriptlog.txt"
            reply = get(path, keep_last=keep)
            if reply.is_sign_in:
                raise login_page_error(reply.where)
        except QlikError as error:
            if not error.is_reached or error.label in OVER_LIMIT:
                raise  # The server is away, or the same log would come on the other way.
            failures.append(error)
        else:
            return reply.log
    if not failures:
        raise QlikError(
            "The server names no script log for this run.",
            label="no log",
            retry=RetryPolicy.LOOK_FIRST,
        )
    text = " ".join(dict.fromkeys(str(error) for error in failures))
    raise QlikError(text, label=failures[-1].label, retry=RetryPolicy.LOOK_FIRST)


OVER_LIMIT = frozenset({"too large", "too slow"})
"""Labels of errors that a further try would meet again."""


def _ways(get: Get, report: Report) -> Iterator[tuple[str, str, str]]:
    reference = report.file_reference
    if not reference and rows.GUID.fullmatch(report.result_id):
        # The server fills it in late. Only the older way needs it, so a failure is no obstacle.
        try:
            reply = get("/executionresult/full", {"filter": f"id eq {report.result_id}"})
            for row in rows.rows(reply.json()):
                reference = rows.file_reference(row)
        except QlikError as error:
            if not error.is_reached:
                raise
    if reference:
        yield "scriptlog", "fileReferenceId", reference
    if report.result_id:
        yield "scriptlogfile", "executionResultId", report.result_id


def _reference(reply: Reply) -> str:
    """The reference for the download: an object with ``value``, a JSON text, or a bare text."""
    text = reply.text.strip()
    if text[:1] in {"{", '"'}:
        answer = reply.json()
        found = answer.get("value") if isinstance(answer, Mapping) else answer
    else:
        found = text
    if not isinstance(found, str) or not 0 < len(found) <= _REFERENCE_LIMIT or "\n" in found:
        raise unexpected_error(reply.where, "no reference of a script log")
    return found
