"""Client-managed Qlik Sense through its Repository Service (QRS).

The facts behind each call are in docs/qlik.md. Filters are built from GUIDs and numbers alone, so
nothing that came in a message is ever part of one. Not for: HTTP itself (transport.py), reading
rows (rows.py), choosing the way in (connect.py).
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from appliance.model import APP, ReloadOptions, Task, TaskKind
from appliance.qlik import deadlines, rows, task_events
from appliance.qlik.ended_runs import EndedRuns
from appliance.qlik.failures import (
    StatusError,
    login_page_error,
    not_sent_yet,
    status_error,
    unexpected_error,
)
from appliance.qlik.masking import mask_last_lines, mask_line, mask_log
from appliance.qlik.script_log import kept_bytes, script_log_end
from appliance.qlik.server import (
    NO_OPTIONS,
    UNSEEN,
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

_GUID = rows.GUID
_IDS_PER_URL = 40
"""Longer URLs meet the limits of proxies in between (8 KB)."""
_LISTS = (
    ("reloadtask", TaskKind.RELOAD),
    ("externalprogramtask", TaskKind.EXTERNAL_PROGRAM),
    ("usersynctask", TaskKind.USER_SYNC),
)
_UNLISTED = (TaskKind.DISTRIBUTE, TaskKind.PRELOAD)
_RUN_AFTER = UNSEEN
"""How an execution id begins where the run of an app's reload did not show up at once: the time
follows, in nanoseconds, then the app's last run before the call, if there was one. It stands for
the app's first run since then."""
_LOOKS_FOR_RUN = 4
_LOOK_WAIT_S = 0.3
_MINUTE_NS = 60_000_000_000
_DAY_NS = 86_400_000_000_000
_SENT_KEPT = 100
_EMAIL_ATTRIBUTES = frozenset({"email", "mail"})
"""Attributes of a user, in lower case, that have an e-mail address. User directory connectors name
it so; a site may have changed the name."""
_CLOCK_SLACK_NS = 1_500_000_000
"""The Date header has whole seconds; half a second more for the way."""


class ClientManaged:
    """A ``QlikServer`` over QRS."""

    def __init__(self, transport: Transport, *, through_proxy: bool = False) -> None:
        """Make a client; nothing is sent.

        Args:
            transport: has the address (with a virtual proxy's prefix, if there is one), the
                certificate and the headers that identify us.
            through_proxy: sign in with a GET before the first other call, and keep the session.
        """
        self.label = urlsplit(transport.base_url).hostname or transport.base_url
        self._transport = transport
        self._through_proxy = through_proxy
        self._ended_runs = EndedRuns(self._list, transport.server_time_ns)
        self._sent: OrderedDict[str, int] = OrderedDict()
        """When the start calls of the last runs were sent, by our clock: they bound the server's
        clock once the server has told when it made the runs."""
        self._closing = threading.Event()
        self._signed_in = threading.Event()
        self._sign_in_lock = threading.Lock()

    @property
    def clock_offset_s(self) -> float:
        """How far the server's clock was ahead of ours in its last answer, in seconds."""
        return self._transport.clock_offset_s

    def check(self) -> ServerInfo:
        """Ask the QRS for its version: shows that it answers and that the sign-in works.

        It says nothing of the scheduler. Raises ``QlikError``.
        """
        reply = self._get("/about")
        about = reply.json()
        if not isinstance(about, Mapping) or not about.get("buildVersion"):
            raise unexpected_error(reply.where, "no buildVersion")
        node = "central node" if about.get("nodeType") == 1 else "node"
        return ServerInfo(
            version=str(about["buildVersion"]),
            text=f"Repository Service {about['buildVersion']}, {node}",
            rtt_s=reply.elapsed_s,
        )

    def tasks(self) -> Sequence[Task]:
        """Reload, external program and user synchronisation tasks that the user may see.

        A kind that the user may not list is left out, unless that goes for every kind.
        """
        found: list[Task] = []
        refusal: StatusError | None = None
        listed = 0
        for name, kind in _LISTS:
            try:
                found += [rows.task(row, _kind(row, kind)) for row in self._list(f"/{name}/full")]
                listed += 1
            except StatusError as error:
                if error.status not in {400, 403, 404}:
                    raise
                refusal = refusal or error
        if not listed and refusal is not None:
            raise refusal
        return found + self._other_kinds({task.id for task in found})

    def _other_kinds(self, listed: Container[str]) -> list[Task]:
        """Distribute and preload tasks, which have no list of their own.

        A server whose list of all tasks does not take the filter is asked for the whole list; one
        that does not show it at all has none.
        """
        for condition in (" or ".join(f"taskType eq {int(kind)}" for kind in _UNLISTED), ""):
            try:
                found = self._list("/task/full", condition)
            except StatusError as error:
                if error.status == 400:
                    continue
                if error.status in {403, 404}:
                    break
                raise
            kinds = {int(kind): kind for kind in _UNLISTED}
            return [
                rows.task(row, kinds[number])
                for row in found
                if (number := rows.number(row, "taskType")) in kinds
                and rows.text(row, "id").lower() not in listed
            ]
        return []

    def apps(self) -> Sequence[Task]:
        """All apps that the user may see: any of them can be reloaded without a task."""
        return [
            Task(
                id=f"{APP}{app_id}",
                name=f"Reload of {name}",
                app_id=app_id,
                app_name=name,
            )
            for row in self._list("/app")
            if _GUID.fullmatch(app_id := rows.text(row, "id").lower())
            and (name := rows.text(row, "name"))
        ]

    def task_events(self) -> TaskEvents:
        """Schema events and composite events that the user may see.

        A kind that the user may not list is left out, unless that goes for both.
        """
        found: list[list[rows.Row]] = []
        refusal: StatusError | None = None
        for path in ("/schemaevent/full", "/compositeevent/full"):
            try:
                found.append(self._list(path))
            except StatusError as error:
                if error.status not in {400, 403, 404} or refusal is not None:
                    raise
                refusal = error
                found.append([])
        events = task_events.of_repository(*found)
        return msgspec.structs.replace(events, problem=str(refusal)) if refusal else events

    def full_tasks(self, task_ids: Sequence[str]) -> dict[str, FullTask]:
        """The rows of reload tasks and of their apps; see ``QlikServer.full_tasks``."""
        wanted = dict.fromkeys(_guid(one) for one in task_ids if not one.startswith(APP))
        tasks = self._by_id("/reloadtask/full", wanted)
        app_of = {
            task_id: rows.text(rows.inner(row, "app"), "id") for task_id, row in tasks.items()
        }
        apps = self._by_id(
            "/app/full",
            dict.fromkeys(one.lower() for one in app_of.values() if _GUID.fullmatch(one)),
        )
        return {
            task_id: FullTask(row, apps.get(app_of[task_id].lower(), {}))
            for task_id, row in tasks.items()
        }

    def _by_id(self, path: str, ids: Iterable[str]) -> dict[str, rows.Row]:
        found = {}
        for some in _batches(list(ids)):
            for row in self._list(path, " or ".join(f"id eq {one}" for one in some)):
                found[rows.text(row, "id").lower()] = row
        return found

    def start(self, task_id: str, *, options: ReloadOptions = NO_OPTIONS) -> Started:
        """Start a task with one POST; see ``QlikServer.start``.

        The call itself has no parameters: a partial reload is a property of the task
        (``isPartialReload``), and there is no way to hand over variables.
        """
        app_id = task_id.removeprefix(APP)
        checked = _guid(app_id)
        if options.variables:
            raise _not_offered(
                "variables",
                "Client-managed Qlik Sense takes no variables with a start. Leave `variables` "
                "out, and let the script read the values, for example from a file.",
            )
        is_app = app_id != task_id
        with not_sent_yet():
            is_full = options.partial and (is_app or not self._is_partial(checked))
        if is_full:
            raise _not_offered(
                "not partial",
                f"{'App' if is_app else 'Task'} {checked} can get a full reload only: "
                "client-managed Qlik Sense has no partial start, only tasks with "
                '"Partial reload" set. Create one for the app in the QMC and start that task.',
            )
        if is_app:
            return self._reload_app(checked)
        sent_ns = self._transport.own_time_ns()
        reply = self._post(f"/task/{checked}/start/synchronous")
        self._expect_start(reply, "task")
        answer = reply.json()
        if isinstance(answer, Mapping):
            # Clients in the field see {"value": id}; the OpenAPI document shows a bare string.
            answer = answer.get("value")
        if not isinstance(answer, str) or not _GUID.fullmatch(answer):
            raise unexpected_error(reply.where, "no execution id")
        if answer == rows.ZERO_ID:
            return Started("", self._why_refused(checked))
        self._sent[answer.lower()] = sent_ns
        if len(self._sent) > _SENT_KEPT:
            self._sent.popitem(last=False)
        return Started(answer.lower())

    def _expect_start(self, reply: Reply, what: str) -> None:
        """Raise ``QlikError`` unless the server took the start; ``what`` the id is of."""
        if reply.status in {400, 404}:
            raise status_error(
                reply.where,
                reply.status,
                reply.text,
                reply.headers,
                advice=f"There is no {what} with this id, or the user of [qlik] user may not "
                "see it.",
            )
        self._expect_success(reply)

    def _reload_app(self, app_id: str) -> Started:
        """Reload an app that has no task, for which the server makes one.

        The answer has no execution id and no task id, so the run is looked for.
        """
        app = f"{APP}{app_id}"
        began_ns = self._transport.own_time_ns()
        with not_sent_yet():
            before = [report.execution_id for report in self.since(app, began_ns - _MINUTE_NS)]
        began_ns = self._transport.own_time_ns()
        reply = self._post(f"/app/{app_id}/reload")
        self._expect_start(reply, "app")
        for look in range(_LOOKS_FOR_RUN):
            if look and self._closing.wait(_LOOK_WAIT_S):
                break
            # The reload is accepted: a look that fails now must not become an error.
            with contextlib.suppress(QlikError):
                for report in self.since(app, began_ns):
                    if report.execution_id not in before:
                        return Started(report.execution_id, task_id=report.task_id)
        return Started(":".join((f"{_RUN_AFTER}{began_ns}", *before[-1:])))

    def _run_of_app(self, app: str, execution_id: str) -> Report | None:
        """The first run of an app since the time in an execution id that stands for it."""
        began_ns, _, before = execution_id.removeprefix(_RUN_AFTER).partition(":")
        if not app.startswith(APP) or not began_ns.isdecimal():
            return None
        # The time has some slack, so the run before the call may be among these.
        found = list(self.since(app, int(began_ns)))
        ids = [report.execution_id for report in found]
        return next(iter(found[ids.index(before) + 1 if before in ids else 0 :]), None)

    def poll(self, execution_ids: Sequence[str], task_ids: Sequence[str]) -> dict[str, Report]:
        """Reports for these executions; see ``QlikServer.poll``.

        The sessions are asked for first: a failed result that is read when its session was
        already gone is final, the other way round the server might have retried in between.
        """
        reports: dict[str, Report] = {}
        for execution_id, task_id in zip(execution_ids, task_ids, strict=True):
            if execution_id.startswith(_RUN_AFTER) and (
                found := self._run_of_app(task_id, execution_id)
            ):
                reports[execution_id] = found
        # Ids of another edition, from before the configuration was changed, are simply unknown.
        wanted = {each.lower(): each for each in execution_ids if _GUID.fullmatch(each)}
        if not wanted:
            return reports
        sessions = self._sessions()
        for some in _batches(list(wanted)):
            condition = " or ".join(f"executionID eq {execution_id}" for execution_id in some)
            results = rows.grouped(
                self._list("/executionresult/full", condition, orderby="startTime desc")
            )
            for execution_id in some:
                session = sessions.get(execution_id)
                if execution_id in results:
                    self._compare_clocks(execution_id, _began(results[execution_id], session))
                    report = rows.execution_report(results[execution_id], session)
                elif session is not None:
                    report = rows.session_report(session)
                else:
                    continue
                reports[wanted[execution_id]] = report
        self._ended_runs.saw(reports.values())
        return reports

    def running(self) -> Sequence[Report]:
        """Everything that has an execution session now."""
        return [rows.session_report(session) for session in self._sessions().values()]

    def since(self, task_id: str, after_ns: int, *, everyone: bool = False) -> Sequence[Report]:
        """Executions of a task that began after a time by our clock, oldest first.

        The difference between the clocks, as the server's Date header shows it, is allowed for,
        with 1.5 seconds of slack; so a run that began just before ``after_ns`` may be among them.
        The server does not say what began a run, so ``everyone`` adds what is under way alone.
        """
        checked = _guid(task_id.removeprefix(APP))
        is_app = task_id.startswith(APP)
        sessions = self._sessions()
        after_ns = self._transport.server_time_ns(after_ns) - _CLOCK_SLACK_NS
        # The filter only keeps the list short, a day early in case the server reads the date in
        # its own time zone; the comparison that counts is made here.
        field = "appID" if is_app else "taskID"
        condition = (
            f"{field} eq {checked} and createdDate gt '{rows.date_text(after_ns - _DAY_NS)}'"
        )
        results = rows.grouped(self._list("/executionresult/full", condition))
        found: list[tuple[int, Report]] = []
        for execution_id, attempts in results.items():
            session = sessions.get(execution_id)
            began_ns = _began(attempts, session)
            if began_ns >= after_ns or (everyone and session is not None):
                found.append((began_ns, rows.execution_report(attempts, session)))
        for execution_id, session in sessions.items():
            if execution_id in results:
                continue
            began_ns = _began([], session)
            of = rows.inner(session, "app") if is_app else rows.session_task(session)
            if rows.text(of, "id").lower() == checked and (everyone or began_ns >= after_ns):
                found.append((began_ns, rows.session_report(session)))
        found.sort(key=lambda item: item[0])
        for began_ns, report in found:
            self._compare_clocks(report.execution_id, began_ns)
        return [self._with_begin(report, began_ns) for began_ns, report in found]

    def own_time_ns(self, server_ns: int) -> int:
        """A time of the server as our clock may have shown it, at the latest."""
        return self._transport.server_clock.between(server_ns)[1]

    def clock_doubt_s(self) -> float:
        """How exactly the server's time is known; see ``ServerClock``."""
        return self._transport.server_clock.doubt_s()

    def _compare_clocks(self, execution_id: str, made_ns: int) -> None:
        """Compare when the server made a run of ours with when its call was sent."""
        if (sent_ns := self._sent.pop(execution_id, None)) is not None and made_ns:
            self._transport.server_clock.saw_run(made_ns, sent_ns)

    def _with_begin(self, report: Report, made_ns: int) -> Report:
        if not made_ns:
            return report
        first, last = self._transport.server_clock.between(made_ns)
        return msgspec.structs.replace(report, began_from_ns=first, began_until_ns=last)

    def ended(self, after_ns: int | None, running: Collection[str]) -> Ended:
        """Runs that ended since a time of the server; see ``QlikServer.ended``."""
        return self._ended_runs.since(after_ns, running)

    def log_tail(self, report: Report, lines: int) -> Sequence[str]:
        """The script log's last lines, masked; see ``QlikServer.log_tail``."""
        _guid(report.task_id)
        if lines <= 0:
            return []
        return mask_last_lines(script_log_end(self._get, report, kept_bytes(lines)), lines)

    def script_log(self, report: Report) -> str:
        """The whole script log, masked; see ``QlikServer.script_log``."""
        _guid(report.task_id)
        return mask_log(script_log_end(self._get, report, WHOLE_LOG_BYTES // 2))

    def owner(self, app_id: str) -> Owner | None:
        """Who owns an app; see ``QlikServer.owner``."""
        # The app names its owner in short; only the user itself has the attributes.
        app = _object(self._get(f"/app/{_guid(app_id)}"))
        user_id = rows.text(rows.inner(app, "owner"), "id")
        if not _GUID.fullmatch(user_id):
            return None
        user = _object(self._get(f"/user/{user_id}"))
        emails = [
            rows.text(one, "attributeValue")
            for one in rows.rows(user.get("attributes"))
            if rows.text(one, "attributeType").casefold() in _EMAIL_ATTRIBUTES
        ]
        directory, name = rows.text(user, "userDirectory"), rows.text(user, "userId")
        return Owner(f"{directory}\\{name}", tuple(filter(None, emails)))

    def stop(self, task_id: str, execution_id: str) -> None:
        """Ask the server to abort the task's run."""
        # QRS stops a task, not one of its executions.
        if task_id.startswith(APP) and (run := self._run_of_app(task_id, execution_id)):
            task_id = run.task_id
        self._expect_success(self._post(f"/task/{_guid(task_id)}/stop"))

    def give_up(self, older_than_s: float) -> None:
        """Break off calls that no answer is expected to; see ``QlikServer.give_up``."""
        self._transport.give_up(older_than_s)

    def close(self) -> None:
        """Close connections; see ``QlikServer.close``."""
        self._closing.set()
        self._transport.close()

    # --- requests ----------------------------------------------------------------------------

    def _sessions(self) -> dict[str, rows.Row]:
        """What runs now, by execution id. The list is as short as the scheduler's capacity."""
        found = self._list("/executionsession/full")
        return {rows.text(session, "id").lower(): session for session in found}

    def _list(self, path: str, condition: str = "", *, orderby: str = "") -> list[rows.Row]:
        params = {"filter": condition} if condition else {}
        if orderby:
            params["orderby"] = orderby
        reply = self._get(path, params)
        answer = reply.json()
        if not isinstance(answer, list):
            raise unexpected_error(reply.where, "not a list")
        return rows.rows(answer)

    def _get(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        keep_last: int | None = None,
    ) -> Reply:
        return self._request("GET", path, params, keep_last=keep_last)

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        keep_last: int | None = None,
    ) -> Reply:
        """A call that changes nothing: a proxy's session that is over is renewed once."""
        if self._through_proxy:
            self._sign_in()
        reply = self._call(method, path, params, keep_last=keep_last)
        if self._through_proxy and (reply.status == 401 or reply.is_sign_in):
            self._sign_in(again=True)
            reply = self._call(method, path, params, keep_last=keep_last)
        self._expect_success(reply)
        return reply

    def _post(self, path: str) -> Reply:
        """One POST, never repeated. Through a proxy, a GET signs in before it."""
        if self._through_proxy:
            with not_sent_yet():
                self._sign_in()
        reply = self._call("POST", path, None)
        if self._through_proxy and (reply.status == 401 or reply.is_sign_in):
            # The proxy did not forward the request, so it may be repeated after a sign-in.
            self._signed_in.clear()
            raise QlikError(
                "The session with the proxy had ended. The appliance signs in "
                "again and repeats the call.",
                where=reply.where,
                label="signed out",
                retry=RetryPolicy.SAFE,
            )
        return reply

    def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        *,
        keep_last: int | None = None,
    ) -> Reply:
        key = _xrfkey()
        return self._transport.call(
            method,
            f"/qrs{path}?xrfkey={key}",
            params=params,
            headers={"X-Qlik-Xrfkey": key},
            keep_last=keep_last,
        )

    def _sign_in(self, *, again: bool = False) -> None:
        """A GET that makes a session with the proxy, unless there is one (or with ``again``)."""
        if self._signed_in.is_set() and not again:
            return
        with deadlines.locked(self._sign_in_lock, f"GET {self._transport.base_url}/qrs/about"):
            if self._signed_in.is_set() and not again:
                return
            if again:
                self._signed_in.clear()
                self._transport.forget_cookies()
            key = _xrfkey()
            reply = self._transport.sign_in(
                "/qrs/about", params={"xrfkey": key}, headers={"X-Qlik-Xrfkey": key}
            )
            self._expect_success(reply)
            self._signed_in.set()

    @staticmethod
    def _expect_success(reply: Reply) -> None:
        if reply.is_sign_in:
            raise login_page_error(reply.where)
        if reply.status >= 300:
            raise status_error(reply.where, reply.status, reply.text, reply.headers)

    def _is_partial(self, task_id: str) -> bool:
        """Whether a task is set to reload partially. A task without an app is not."""
        found = self._list("/reloadtask/full", f"id eq {task_id}")
        return any(row.get("isPartialReload") is True for row in found)

    def _why_refused(self, task_id: str) -> str:
        """The likely reason for the zero id: the answer itself has none."""
        try:
            found = self._list("/task/full", f"id eq {task_id}")
            if found and found[0].get("enabled") is False:
                return "the task is disabled; enable it in the QMC"
            for session in self._sessions().values():
                if rows.text(rows.session_task(session), "id").lower() == task_id:
                    return "the task is already running"
        except QlikError as error:
            return f"the server did not start it, and the reason can't be looked up ({error.label})"
        return (
            "the server did not start it: its app is not available or is being reloaded, or no "
            "scheduler is running"
        )


def _kind(row: rows.Row, kind: TaskKind) -> TaskKind:
    """The kind of a task in the list of a kind: reload tasks' list may have others."""
    number = rows.number(row, "taskType")
    return next((each for each in _UNLISTED if each == number), kind)


def _not_offered(label: str, text: str) -> QlikError:
    return QlikError(text, label=label, retry=RetryPolicy.NEVER)


def _began(attempts: Sequence[rows.Row], session: rows.Row | None) -> int:
    """When an execution was created, by the server's clock, in nanoseconds."""
    times: list[Any] = [attempt.get("createdDate") for attempt in attempts]
    if session is not None:
        times.append(session.get("createdDate"))
    return min((at for value in times if (at := rows.time_ns(value)) is not None), default=0)


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), _IDS_PER_URL):
        yield ids[first : first + _IDS_PER_URL]


def _xrfkey() -> str:
    """Sixteen characters of 0-9 and a-f; letters and digits are allowed."""
    return secrets.token_hex(8)


def _object(reply: Reply) -> rows.Row:
    answer = reply.json()
    if not isinstance(answer, Mapping):
        raise unexpected_error(reply.where, "no object")
    return answer


def _guid(value: str) -> str:
    """The GUID in lower case.

    Raises:
        QlikError: it is not one, so it can't be the id of anything on the server.
    """
    if not _GUID.fullmatch(value):
        raise QlikError(
            f"{mask_line(value)[:80]!r} is not the id of a task or execution (a GUID such as "
            "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10).",
            label="not an id",
            retry=RetryPolicy.NEVER,
        )
    return value.lower()
