"""Qlik Cloud: apps are reloaded by their id, and its tasks are started by theirs.

An app is a task here, too: its start is ``POST /api/v1/reloads``. Ids are opaque texts, and those
of apps and tasks may look alike, so the lists tell them apart, and for an id that is in no list the
tenant is asked. Source of the calls: docs/qlik.md,
"Qlik Cloud". Not for: HTTP itself (transport.py), tokens and pages (cloud_api.py), what a task of
Qlik Cloud needs (cloud_tasks.py).
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from urllib.parse import quote, urlsplit

import msgspec

from appliance.model import ReloadOptions, Task
from appliance.qlik import rows
from appliance.qlik.cloud_api import CloudApi
from appliance.qlik.cloud_ended import CloudEnded
from appliance.qlik.cloud_errors import error_of, error_text, expect_success
from appliance.qlik.cloud_login import TokenSource
from appliance.qlik.cloud_rows import (
    RUN,
    as_object,
    data_rows,
    reload_of,
    reload_report,
    run_report,
    with_reload,
)
from appliance.qlik.cloud_runs import AFTER, CLOCK_SLACK_NS
from appliance.qlik.cloud_tasks import CloudTasks
from appliance.qlik.failures import StatusError, not_sent_yet, unexpected_error
from appliance.qlik.masking import mask_last_lines, mask_line, mask_log
from appliance.qlik.server import (
    NO_OPTIONS,
    WHOLE_LOG_BYTES,
    Ended,
    FullTask,
    Owner,
    QlikError,
    Report,
    RetryPolicy,
    ServerInfo,
    Started,
    TaskEvents,
)
from appliance.qlik.transport import Reply, Transport

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ID = re.compile(r"[\w.-]{1,128}")
_RELOADS = "/api/v1/reloads"
_PAGE = "100"
_RECENT = "20"
_LOOK_WAIT_S = 0.5
_NOT_HAD = frozenset({400, 403, 404})
"""Statuses of one reload or log that can't be had, which leaves all others as they are."""
_NOT_FOUND = frozenset({400, 403, 404})
"""Statuses with which the tenant refuses to reload what is no app (a missing app may be 403)."""
_OTHER_CAUSES = frozenset({"hub", "chronos", "automations", "data-refresh", "choreographer"})
"""Types of reloads that no call of ours makes; ours are ``external``."""
_LOG_BYTES_PER_LINE = 400
_LOG_BYTES_MIN = 65536
_NEITHER = (
    "There is no app with this id that [qlik] may reload, and no task with it that it may start. "
    "Check the id, and whether the user or OAuth client of [qlik] has the permission app:reload in "
    "the app's space."
)


class Cloud:
    """A ``QlikServer`` over the REST API of a Qlik Cloud tenant."""

    def __init__(self, transport: Transport, tokens: TokenSource) -> None:
        self.label = urlsplit(transport.base_url).hostname or transport.base_url
        self._transport = transport
        self._api = CloudApi(transport, tokens)
        self._tasks = CloudTasks(self._api)
        self._ended = CloudEnded(self._api, self._tasks, self._reload_report)
        self._closing = threading.Event()
        self._is_task: dict[str, bool] = {}
        """Each id (lower case) of the last lists: whether it is a task's, not an app's."""

    @property
    def clock_offset_s(self) -> float:
        """How far the server's clock was ahead of ours in its last answer, in seconds."""
        return self._transport.clock_offset_s

    def check(self) -> ServerInfo:
        """Ask for the signed-in user: shows that the tenant answers and that the sign-in works."""
        reply = self._api.get("/api/v1/users/me")
        me = as_object(reply)
        name = rows.text(me, "name") or rows.text(me, "id")
        return ServerInfo(version="cloud", text=f"signed in as {name}", rtt_s=reply.elapsed_s)

    def offered(self) -> str:
        """Which interface for tasks the tenant offers, as a sentence. Raises ``QlikError``."""
        return self._tasks.interface.told()

    def tasks(self) -> Sequence[Task]:
        """The apps that the user may see, as tasks, and then the tasks of Qlik Cloud.

        Rights to reload show only at the start.
        """
        apps: list[Task] = []
        for row in self._api.pages("/api/v1/items", {"resourceType": "app", "limit": _PAGE}):
            app_id = rows.text(row, "resourceId")
            if app_id:
                tags = rows.rows(rows.inner(row, "meta").get("tags"))
                apps.append(
                    Task(
                        id=app_id.lower(),
                        name=rows.text(row, "name"),
                        app_id=app_id,
                        app_name=rows.text(row, "name"),
                        tags=tuple(rows.text(tag, "name") for tag in tags),
                    )
                )
        tasks = self._tasks.tasks({app.id: app.name for app in apps})
        self._is_task = {task.id: True for task in tasks} | {app.id: False for app in apps}
        return [*apps, *tasks]

    def full_tasks(self, task_ids: Sequence[str]) -> dict[str, FullTask]:
        """A tenant has no rows of this kind; see ``QlikServer.full_tasks``."""
        del task_ids
        return {}

    def task_events(self) -> TaskEvents:
        """The schedules of the tasks, as the last list had them."""
        return self._tasks.events

    def apps(self) -> Sequence[Task]:
        """None: ``tasks`` has the apps."""
        return ()

    def start(self, task_id: str, *, options: ReloadOptions = NO_OPTIONS) -> Started:
        """Reload an app or start a task of Qlik Cloud.

        If the tenant knows neither an app nor a task of this id, it is asked to start both, one
        after the other: some users may start what they may not read.
        """
        checked = _checked(task_id)
        if options.problem:
            raise _not_taken(f"The reload can't have these variables: {options.problem}.")
        is_listed = checked.lower() in self._is_task
        with not_sent_yet():
            is_task = self._is_it_a_task(checked)
        if is_task:
            return self._start_task(checked, options)
        body: dict[str, object] = {"appId": checked}
        if options.partial:
            body["partial"] = True
        if options.variables:
            body["variables"] = dict(options.variables)
        reply = self._api.post(_RELOADS, body)
        if reply.status == 409:
            return Started("", error_text(reply) or "the app can't be reloaded now")
        if not is_listed and reply.status in _NOT_FOUND:
            return self._start_unlisted(checked, reply, options)
        expect_success(reply, not_found=_NEITHER, denied=_NEITHER)
        reload_id = rows.text(as_object(reply), "id")
        if not reload_id:
            raise unexpected_error(reply.where, "no reload id")
        return Started(reload_id)

    def _is_it_a_task(self, task_id: str) -> bool:
        """Whether an id is that of a task, by the lists or else by what the tenant says."""
        known = self._is_task.get(task_id.lower())
        if known is not None:
            return known
        # The ids of apps are GUIDs; only among these there may be both.
        return not _UUID.fullmatch(task_id) or self._tasks.exists(task_id)

    def _start_unlisted(self, task_id: str, refused: Reply, options: ReloadOptions) -> Started:
        """Start what the tenant does not know as an app."""
        said = error_of(refused, not_found=_NEITHER, denied=_NEITHER)
        if options and not self._tasks.exists(task_id):
            raise said
        try:
            return self._start_task(task_id, options)
        except StatusError as error:
            # What the tenant said of the task counts only if there is one.
            if error.status not in _NOT_FOUND:
                raise
            raise said from None

    def _start_task(self, task_id: str, options: ReloadOptions) -> Started:
        if options:
            raise _not_taken(
                "A task of Qlik Cloud is started as it is: its start takes neither `partial` nor "
                "`variables`. Name the app instead of the task, or leave them out."
            )

        def wait() -> bool:
            return self._closing.wait(_LOOK_WAIT_S)

        try:
            return self._tasks.start(task_id, wait)
        except StatusError as error:
            if error.status != 404:
                raise
            # It may be the id of a legacy reload task that was made one of the new kind.
            if not self._is_task:
                with contextlib.suppress(QlikError):
                    self.tasks()
            if not (migrated := self._tasks.migrated_from(task_id)):
                raise
            return self._tasks.start(migrated, wait)

    def poll(self, execution_ids: Sequence[str], task_ids: Sequence[str]) -> dict[str, Report]:
        """Reports for these executions, one or two calls each; see ``QlikServer.poll``."""
        reports: dict[str, Report] = {}
        for execution_id, task_id in zip(execution_ids, task_ids, strict=True):
            if not _ID.fullmatch(execution_id.replace(":", "")) or not _ID.fullmatch(task_id):
                continue  # Of another edition, from before the configuration was changed.
            if _is_run(execution_id):
                report = self._run_report(execution_id, task_id)
            else:
                report = self._reload_report(execution_id)
            if report is not None:
                reports[execution_id] = report
        return reports

    def running(self) -> Sequence[Report]:
        """Reloads and runs of tasks that go on in the tenant now.

        The list of all apps' reloads is for tenant administrators only; other users see the runs
        of tasks alone.
        """
        return self._ended.running()

    def ended(self, after_ns: int | None, running: Collection[str]) -> Ended:
        """Runs that ended since a time of the server; see ``QlikServer.ended``."""
        return self._ended.since(after_ns, running)

    def since(self, task_id: str, after_ns: int, *, everyone: bool = False) -> Sequence[Report]:
        """Reloads of an app, or runs of a task, that a call of ours after a time may have begun.

        ``after_ns`` is of our clock. Without ``everyone``, reloads and runs of which the tenant
        says another cause are left out.
        """
        checked = _checked(task_id)
        after_ns = self._transport.server_time_ns(after_ns) - CLOCK_SLACK_NS
        found: list[Report] = []
        if self._is_it_a_task(checked):
            present_id = self._present_id(checked)
            for row in self._tasks.begun_since(present_id, after_ns, everyone=everyone):
                report = run_report(row, checked)
                found.append(_followed_as(report, self._tasks.own.execution_of(row)))
        else:
            found += self._reloads_since(checked, after_ns, everyone=everyone)
        found.sort(key=lambda report: report.started_ns or 0)
        return [self._with_begin(report) for report in found]

    def own_time_ns(self, server_ns: int) -> int:
        """A time of the server as our clock may have shown it, at the latest."""
        return self._transport.server_clock.between(server_ns)[1]

    def clock_doubt_s(self) -> float:
        """How exactly the tenant's time is known; see ``ServerClock``."""
        return self._transport.server_clock.doubt_s()

    def _with_begin(self, report: Report) -> Report:
        made_ns = report.queued_ns or report.started_ns
        if not made_ns:
            return report
        first, last = self._transport.server_clock.between(made_ns)
        return msgspec.structs.replace(report, began_from_ns=first, began_until_ns=last)

    def _reloads_since(self, app_id: str, after_ns: int, *, everyone: bool) -> Iterator[Report]:
        reply = self._api.get(_RELOADS, {"appId": app_id, "limit": _RECENT})
        for row in data_rows(reply):
            report = reload_report(row)
            is_ours = rows.text(row, "type").lower() not in _OTHER_CAUSES
            is_new = (report.queued_ns or report.started_ns or 0) >= after_ns
            if (is_ours and is_new) or (everyone and (is_new or not report.state.is_final)):
                yield report

    def log_tail(self, report: Report, lines: int) -> Sequence[str]:
        """The reload log's last lines, masked; empty where there is none (yet)."""
        if lines <= 0:
            return []
        keep = max(_LOG_BYTES_MIN, lines * _LOG_BYTES_PER_LINE)
        return mask_last_lines(_first(self._logs(report, keep)), lines)

    def script_log(self, report: Report) -> str:
        """The whole reload log, masked; see ``QlikServer.script_log``."""
        return mask_log(_first(self._logs(report, WHOLE_LOG_BYTES // 2)))

    def owner(self, app_id: str) -> Owner | None:
        """Who owns an app; see ``QlikServer.owner``."""
        app = as_object(self._api.get(f"/api/v1/apps/{quote(_checked(app_id))}"))
        user_id = rows.text(rows.inner(app, "attributes"), "ownerId")
        if not _ID.fullmatch(user_id):
            return None
        user = as_object(self._api.get(f"/api/v1/users/{quote(user_id)}"))
        return Owner(rows.text(user, "name"), tuple(filter(None, [rows.text(user, "email")])))

    def _logs(self, report: Report, keep: int) -> Iterator[str]:
        """The end of each place where a log may be, the best first."""
        if not _is_run(report.execution_id):
            yield self._reload_log(report.task_id, report.result_id, keep)
            return
        task_id = self._present_id(report.task_id)
        run = self._tasks.run(report.execution_id, task_id)
        if run is None:
            return
        yield self._tasks.log(task_id, rows.text(run, "id"), keep)
        yield self._reload_log(rows.text(run, "resourceId"), reload_of(run), keep)
        yield rows.text(run, "log")

    def _reload_log(self, app_id: str, reload_id: str, keep: int) -> str:
        if not _ID.fullmatch(app_id) or not reload_id:
            return ""
        path = f"/api/v1/apps/{quote(app_id)}/reloads/logs/{quote(reload_id, safe='')}"
        try:
            return self._api.get(path, keep_last=keep).log
        except StatusError as error:
            if error.status in _NOT_HAD:
                return ""
            raise

    def stop(self, task_id: str, execution_id: str) -> None:
        """Cancel a reload; nothing happens if it is over already."""
        if _is_run(execution_id):
            run = self._tasks.run(execution_id, self._present_id(task_id))
            reload_id = reload_of(run) if run is not None else ""
            if not reload_id:
                raise QlikError(
                    f"The run {execution_id} of task {task_id} can't be stopped: Qlik Cloud shows "
                    "no reload that belongs to it. Stop it in the Qlik Cloud console.",
                    label="no reload",
                    retry=RetryPolicy.NEVER,
                )
            execution_id = reload_id
        reply = self._api.post(f"{_RELOADS}/{quote(execution_id, safe='')}/actions/cancel", None)
        if reply.status != 409:
            expect_success(reply)

    def give_up(self, older_than_s: float) -> None:
        """Break off calls that no answer is expected to; see ``QlikServer.give_up``."""
        self._transport.give_up(older_than_s)

    def close(self) -> None:
        """Close connections; see ``QlikServer.close``."""
        self._closing.set()
        self._transport.close()

    def _present_id(self, task_id: str) -> str:
        """A legacy reload task's id may be what a task was asked for by."""
        return self._tasks.migrated_from(task_id) or task_id

    def _run_report(self, execution_id: str, task_id: str) -> Report | None:
        run = self._tasks.run(execution_id, self._present_id(task_id))
        if run is None:
            return None
        report = run_report(run, task_id)
        if report.result_id:
            # A run says no more than RUNNING or FAILED; the reload that it made knows better.
            made = self._reload_report(report.result_id)
            if made is not None:
                report = with_reload(report, made)
        return report

    def _reload_report(self, reload_id: str) -> Report | None:
        try:
            reply = self._api.get(f"{_RELOADS}/{quote(reload_id, safe='')}")
        except StatusError as error:
            # One reload that may not be seen any more does not keep the others from being seen.
            if error.status in _NOT_HAD:
                return None
            raise
        return reload_report(as_object(reply))


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


def _not_taken(text: str) -> QlikError:
    return QlikError(text, label="options", retry=RetryPolicy.NEVER)


def _is_run(execution_id: str) -> bool:
    return execution_id.startswith((RUN, AFTER))


def _followed_as(report: Report, execution_id: str) -> Report:
    return msgspec.structs.replace(report, execution_id=execution_id)


def _first(texts: Iterable[str]) -> str:
    """The first text that is not empty."""
    return next((text for text in texts if text.strip()), "")
