"""Qlik Cloud: apps are reloaded by their id; tasks of Qlik Cloud can be started too.

What the appliance calls a task is an app here: its id is a UUID, and a start is
``POST /api/v1/reloads``. An id that is not a UUID is that of a Qlik Cloud task, for what can't be
reloaded as an app; its start answers without a run id, so the run is found among the task's runs
afterwards. Source of the calls: docs/qlik.md, "Qlik Cloud". Not for: HTTP itself (transport.py).
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from appliance.model import ExecutionState, ReloadOptions, Task
from appliance.qlik import rows
from appliance.qlik.cloud_login import TokenSource
from appliance.qlik.cloud_rows import (
    RUN,
    as_object,
    data_rows,
    error_text,
    expect_success,
    reload_report,
    run_report,
    run_started_ns,
)
from appliance.qlik.failures import StatusError, unexpected_error
from appliance.qlik.masking import mask_last_lines, mask_line
from appliance.qlik.server import (
    NO_OPTIONS,
    QlikError,
    Report,
    RetryPolicy,
    ServerInfo,
    Started,
)
from appliance.qlik.transport import Reply, Transport

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ID = re.compile(r"[\w.-]{1,128}")
_PAGE = "100"
_PAGES_LIMIT = 200
_RECENT = "20"
_RUN_AFTER = "after:"
"""How an execution id begins where the run of a Qlik Cloud task did not show up at once: the time
of the start in ns follows (by the server's clock), and the first run from then on is meant."""
_LOOKS_FORRUN = 3
_LOOK_WAIT_S = 0.5
_CLOCK_SLACK_NS = 1_500_000_000
_LOG_BYTES_PER_LINE = 400
_LOG_BYTES_MIN = 65536


class Cloud:
    """A ``QlikServer`` over the REST API of a Qlik Cloud tenant."""

    def __init__(self, transport: Transport, tokens: TokenSource) -> None:
        self.label = urlsplit(transport.base_url).hostname or transport.base_url
        self._transport = transport
        self._tokens = tokens
        self._closing = threading.Event()

    @property
    def clock_offset_s(self) -> float:
        """How far the server's clock was ahead of ours in its last answer, in seconds."""
        return self._transport.clock_offset_s

    def check(self) -> ServerInfo:
        """Ask for the signed-in user: shows that the tenant answers and that the sign-in works."""
        reply = self._get("/users/me")
        me = as_object(reply)
        name = rows.text(me, "name") or rows.text(me, "id")
        return ServerInfo(version="cloud", text=f"signed in as {name}", rtt_s=reply.elapsed_s)

    def tasks(self) -> Sequence[Task]:
        """The apps that the user may see, as tasks. Rights to reload show only at the start."""
        found: list[Task] = []
        for row in self._pages("/items", {"resourceType": "app", "limit": _PAGE}):
            app_id = rows.text(row, "resourceId")
            if app_id:
                tags = rows.rows(rows.inner(row, "meta").get("tags"))
                found.append(
                    Task(
                        id=app_id.lower(),
                        name=rows.text(row, "name"),
                        app_id=app_id,
                        app_name=rows.text(row, "name"),
                        tags=tuple(rows.text(tag, "name") for tag in tags),
                    )
                )
        return found

    def start(self, task_id: str, *, options: ReloadOptions = NO_OPTIONS) -> Started:
        """Reload an app (a UUID) or start a Qlik Cloud task (any other id), with one POST."""
        checked = _checked(task_id)
        if not _UUID.fullmatch(checked):
            return self._start_task(checked)
        body: dict[str, object] = {"appId": checked}
        if options.partial:
            body["partial"] = True
        if options.variables:
            body["variables"] = dict(options.variables)
        reply = self._post("/reloads", body)
        if reply.status == 409:
            return Started("", error_text(reply) or "the app can't be reloaded now")
        expect_success(reply, not_found="There is no app with this id that [qlik] may reload.")
        reload_id = rows.text(as_object(reply), "id")
        if not reload_id:
            raise unexpected_error(reply.where, "no reload id")
        return Started(reload_id)

    def poll(self, execution_ids: Sequence[str], task_ids: Sequence[str]) -> dict[str, Report]:
        """Reports for these executions, one call each; see ``QlikServer.poll``."""
        reports: dict[str, Report] = {}
        for execution_id, task_id in zip(execution_ids, task_ids, strict=True):
            if not _ID.fullmatch(execution_id.replace(":", "")) or not _ID.fullmatch(task_id):
                continue  # Of another edition, from before the configuration was changed.
            if execution_id.startswith((RUN, _RUN_AFTER)):
                report = self._run_report(execution_id, task_id)
            else:
                report = self._reload_report(execution_id)
            if report is not None:
                reports[execution_id] = report
        return reports

    def running(self) -> Sequence[Report]:
        """Reloads that run in the tenant now.

        The list of all apps' reloads is for tenant administrators only; for other users it is
        empty here.
        """
        found: list[Report] = []
        for status in ("QUEUED", "RELOADING"):
            try:
                params = {"filter": f'status eq "{status}"', "limit": _PAGE}
                found += [reload_report(row) for row in self._pages("/reloads", params)]
            except StatusError as error:
                if error.status not in {400, 403}:
                    raise
        return found

    def since(self, task_id: str, after_ns: int) -> Sequence[Report]:
        """Reloads of an app, or runs of a task, that began after a time by our clock."""
        checked = _checked(task_id)
        after_ns = self._transport.server_time_ns(after_ns) - _CLOCK_SLACK_NS
        if _UUID.fullmatch(checked):
            reply = self._get("/reloads", {"appId": checked, "limit": _RECENT})
            reports = [reload_report(row) for row in data_rows(reply)]
        else:
            reports = [run_report(row, checked) for row in self._runs(checked)]
        found = [report for report in reports if (report.started_ns or 0) >= after_ns]
        return sorted(found, key=lambda report: report.started_ns or 0)

    def log_tail(self, report: Report, lines: int) -> Sequence[str]:
        """The reload log's last lines, masked; empty where there is none (yet)."""
        if not report.result_id or not _UUID.fullmatch(report.task_id) or lines <= 0:
            return []
        path = f"/apps/{quote(report.task_id)}/reloads/logs/{quote(report.result_id, safe='')}"
        keep = max(_LOG_BYTES_MIN, lines * _LOG_BYTES_PER_LINE)
        try:
            reply = self._request("GET", path, keep_last=keep)
        except StatusError as error:
            if error.status in {400, 403, 404}:
                return []
            raise
        return mask_last_lines(reply.text, lines)

    def stop(self, task_id: str, execution_id: str) -> None:
        """Cancel a reload; nothing happens if it is over already."""
        if execution_id.startswith((RUN, _RUN_AFTER)):
            report = self._run_report(execution_id, task_id)
            if report is None or not report.result_id:
                raise QlikError(
                    f"The run {execution_id} of task {task_id} can't be stopped: Qlik Cloud shows "
                    "no reload that belongs to it. Stop it in the Qlik Cloud console.",
                    label="no reload",
                    retry=RetryPolicy.NEVER,
                )
            execution_id = report.result_id
        reply = self._post(f"/reloads/{quote(execution_id, safe='')}/actions/cancel", None)
        if reply.status != 409:
            expect_success(reply)

    def close(self) -> None:
        """Close connections; see ``QlikServer.close``."""
        self._closing.set()
        self._transport.close()

    # --- Qlik Cloud tasks --------------------------------------------------------------------

    def _start_task(self, task_id: str) -> Started:
        before = self._last_run_id(task_id)
        began_ns = self._transport.server_time_ns()
        reply = self._post(f"/tasks/{quote(task_id, safe='')}/actions/start", None)
        if reply.status == 409:
            return Started("", error_text(reply) or "the task can't be started now")
        expect_success(reply, not_found="There is no task with this id that [qlik] may start.")
        for look in range(_LOOKS_FORRUN):
            if look and self._closing.wait(_LOOK_WAIT_S):
                break
            # The task is started: a look that fails now must not become an error.
            with contextlib.suppress(QlikError):
                run_id = self._last_run_id(task_id)
                if run_id and run_id != before:
                    return Started(f"{RUN}{run_id}")
        return Started(f"{_RUN_AFTER}{began_ns}")

    def _last_run_id(self, task_id: str) -> str:
        try:
            reply = self._get(f"/tasks/{quote(task_id, safe='')}/runs/last")
        except StatusError as error:
            if error.status == 404:  # It never ran.
                return ""
            raise
        return rows.text(as_object(reply), "id")

    def _run_report(self, execution_id: str, task_id: str) -> Report | None:
        wanted: rows.Row | None = None
        found = self._runs(_checked(task_id))
        if execution_id.startswith(RUN):
            run_id = execution_id.removeprefix(RUN)
            wanted = next((row for row in found if rows.text(row, "id") == run_id), None)
        else:
            with contextlib.suppress(ValueError):
                after_ns = int(execution_id.removeprefix(_RUN_AFTER)) - _CLOCK_SLACK_NS
                later = [row for row in found if (run_started_ns(row) or 0) >= after_ns]
                wanted = min(later, key=lambda row: run_started_ns(row) or 0, default=None)
        if wanted is None:
            return None
        report = run_report(wanted, task_id)
        worker_id = report.result_id
        if worker_id and report.state is ExecutionState.FAILED:
            # A run says no more than FAILED; the reload that it made knows why.
            made = self._reload_report(worker_id)
            if made is not None:
                report = msgspec.structs.replace(report, reason=made.reason)
        return msgspec.structs.replace(report, execution_id=execution_id)

    def _runs(self, task_id: str) -> list[rows.Row]:
        try:
            reply = self._get(f"/tasks/{quote(task_id, safe='')}/runs", {"limit": _RECENT})
        except StatusError as error:
            if error.status == 404:
                return []
            raise
        return data_rows(reply)

    def _reload_report(self, reload_id: str) -> Report | None:
        try:
            reply = self._get(f"/reloads/{quote(reload_id, safe='')}")
        except StatusError as error:
            # One reload that may not be seen any more does not keep the others from being seen.
            if error.status in {400, 403, 404}:
                return None
            raise
        return reload_report(as_object(reply))

    # --- requests ----------------------------------------------------------------------------

    def _pages(self, path: str, params: Mapping[str, str]) -> Iterator[rows.Row]:
        """The rows of a list over all its pages, at most 200 of them."""
        asked = dict(params)
        for _ in range(_PAGES_LIMIT):
            reply = self._get(path, asked)
            yield from data_rows(reply)
            links = rows.inner(as_object(reply), "links")
            following = rows.text(rows.inner(links, "next"), "href")
            # Only the link's query is used: our token goes to no other address than ours.
            query = dict(parse_qsl(urlsplit(following).query))
            if not query or query == asked:
                return
            asked = {**asked, **query}

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> Reply:
        return self._request("GET", path, params)

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        keep_last: int | None = None,
    ) -> Reply:
        """A call that changes nothing: with a token that ended it is made once more."""
        for last in (False, True):
            token = self._tokens.token()
            reply = self._transport.call(
                method,
                f"/api/v1{path}",
                params=params,
                headers={"Authorization": f"Bearer {token}"},
                keep_last=keep_last,
            )
            if reply.status != 401 or not self._tokens.refused(token) or last:
                break
        expect_success(reply)
        return reply

    def _post(self, path: str, body: object) -> Reply:
        """One POST, never repeated."""
        try:
            token = self._tokens.token()
        except QlikError as error:
            if error.retry is RetryPolicy.LOOK_FIRST:
                error.retry = RetryPolicy.SAFE  # The POST itself was not sent.
            raise
        reply = self._transport.call(
            "POST",
            f"/api/v1{path}",
            headers={"Authorization": f"Bearer {token}"},
            json_body=body,
        )
        if reply.status == 401 and self._tokens.refused(token):
            raise QlikError(
                "The sign-in had ended. The appliance signs in again and repeats the call.",
                where=reply.where,
                label="signed out",
                retry=RetryPolicy.SAFE,
            )
        return reply


def _checked(task_id: str) -> str:
    """The id of an app or task.

    Raises:
        QlikError: it can't be one.
    """
    if not _ID.fullmatch(task_id):
        raise QlikError(
            f"{mask_line(task_id)[:80]!r} is not the id of an app or task in Qlik Cloud.",
            label="not an id",
            retry=RetryPolicy.NEVER,
        )
    return task_id
