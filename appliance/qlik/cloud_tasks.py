"""The tasks of Qlik Cloud: list, start, runs, logs, over the interface that the tenant offers.

That is ``/api/scheduling/tasks``, or the interim ``/api/v1/tasks`` where a tenant has only that
(docs/qlik.md, "Tasks of Qlik Cloud"). Not for: which run is ours (cloud_runs.py), apps and their
reloads (cloud.py).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from urllib.parse import quote

from appliance.model import Task
from appliance.qlik import rows
from appliance.qlik.cloud_api import CloudApi
from appliance.qlik.cloud_errors import error_of, error_text
from appliance.qlik.cloud_interface import GONE, INTERIM, SCHEDULING, TasksInterface
from appliance.qlik.cloud_rows import (
    RUN,
    as_object,
    data_rows,
    last_run,
    run_started_ns,
    task,
    why_disabled,
)
from appliance.qlik.cloud_runs import (
    CLOCK_SLACK_NS,
    OwnRuns,
    StartMark,
    all_since,
    begun_since,
    mark_of,
    new_nonce,
)
from appliance.qlik.failures import StatusError, not_sent_yet
from appliance.qlik.server import QlikError, ServerSchedule, Started, TaskEvents
from appliance.qlik.task_events import of_cloud_task

_log = logging.getLogger(__name__)
_REFUSED = frozenset({400, 403, 404, 410})
"""Statuses of a read that mean that there is nothing to be had, now and later."""
_PAGE = "100"
_RECENT = 20
_RUNS_LIMIT = 200
"""The runs of a task that are looked through, newest first."""
_PER_APP_LIMIT = 200
_PER_APP_EVERY_S = 600.0
_LOOK_PAGES = 5
_LOOKS_FOR_RUN = 3
_BY_STATE = frozenset({400, 409, 422, 424})
"""Statuses with which a start may be refused because of the task's present state."""


class CloudTasks:
    """The tasks of one tenant. Thread-safe."""

    def __init__(self, api: CloudApi, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is sent.

        Args:
            api: calls the tenant.
            clock: seconds that only grow.
        """
        self.own = OwnRuns()
        self._api = api
        self.interface = TasksInterface(api, clock=clock)
        self._clock = clock
        self._of_apps: tuple[float, list[rows.Row]] | None = None
        """When tasks were listed app by app, and those."""
        self._listed: Sequence[Task] = ()
        self.events = TaskEvents()
        """The schedules of the tasks that were listed last."""
        self._migrated: Mapping[str, str] = {}
        """The id of each legacy reload task (lower case): the id of what it became."""

    # --- tasks -------------------------------------------------------------------------------

    def tasks(self, apps: Mapping[str, str]) -> Sequence[Task]:
        """The tasks that the user may see.

        Args:
            apps: the names of the tenant's apps by their ids in lower case.

        Raises:
            QlikError: they can't be had. A user without rights sees none.
        """
        found: list[Task] = []
        migrated: dict[str, str] = {}
        schedules: list[ServerSchedule] = []
        try:
            for row in self._all(apps):
                one = task(row, apps)
                if one.id:
                    found.append(one)
                    if (schedule := of_cloud_task(one.id, row)) is not None:
                        schedules.append(schedule)
                    if legacy := rows.text(rows.inner(row, "metadata"), "migratedFrom"):
                        migrated[legacy.lower()] = one.id
        except StatusError as error:
            if error.status in GONE:
                self.interface.forget()
            elif error.status >= 500 and self._listed:
                # The scheduling service is away: the apps are there nevertheless.
                return self._listed
            elif error.status not in _REFUSED:
                raise
        self._listed, self._migrated = found, migrated
        self.events = TaskEvents(tuple(schedules))
        return found

    def _all(self, apps: Mapping[str, str]) -> Iterator[rows.Row]:
        base = self.interface.path()
        params = {"limit": _PAGE}
        if base == SCHEDULING:
            # By name: the default order changes while the pages are read.
            yield from self._api.pages(base, {**params, "sort": "+name"})
            return
        try:
            yield from self._api.pages(base, params)
        except StatusError as error:
            if error.status != 400:
                raise
            yield from self._by_app(apps)

    def _by_app(self, apps: Mapping[str, str]) -> Sequence[rows.Row]:
        """The interim interface lists the tasks of one app alone: a call for each, now and then."""
        now = self._clock()
        if self._of_apps is None or now - self._of_apps[0] >= _PER_APP_EVERY_S:
            found: list[rows.Row] = []
            if len(apps) > _PER_APP_LIMIT:
                _log.warning(
                    "The tenant's interim interface lists the tasks of one app at a time: those of "
                    "%d apps are not listed. Start them by id",
                    len(apps) - _PER_APP_LIMIT,
                )
            for app_id in islice(apps, _PER_APP_LIMIT):
                params = {"limit": _PAGE, "resourceId": app_id}
                try:
                    found += self._api.pages(INTERIM, params)
                except StatusError as error:
                    if error.status not in _REFUSED:
                        raise
            self._of_apps = (now, found)
        return self._of_apps[1]

    def migrated_from(self, task_id: str) -> str:
        """The id of the task that a legacy reload task became; empty if there is none."""
        return self._migrated.get(task_id.lower(), "")

    def exists(self, task_id: str) -> bool:
        """Whether there is a task with this id that the user may see. Raises ``QlikError``."""
        try:
            self._details(task_id)
        except StatusError as error:
            if error.status in _REFUSED:
                return False
            raise
        return True

    def _details(self, task_id: str) -> rows.Row:
        return as_object(self._api.get(self._path(task_id)))

    def _path(self, task_id: str, *further: str) -> str:
        parts = [quote(part, safe="") for part in (task_id, *further)]
        return "/".join((self.interface.path(), *parts))

    # --- starting ----------------------------------------------------------------------------

    def start(self, task_id: str, wait: Callable[[], bool]) -> Started:
        """Start a task with one POST and look for its run.

        Args:
            task_id: the task.
            wait: waits until the next look; returns whether there shall be none.

        Raises:
            QlikError: it was not started, or that is not known.
        """
        try:
            return self._start(task_id, wait)
        except StatusError as error:
            if error.status not in GONE or not self._has_another():
                raise
            # Only the interface was missing, so nothing was started.
            return self._start(task_id, wait)

    def _has_another(self) -> bool:
        """Whether the tenant offers another interface than the one that was used."""
        with not_sent_yet():
            used = self.interface.path()
            self.interface.forget()
            return self.interface.path() != used

    def _start(self, task_id: str, wait: Callable[[], bool]) -> Started:
        with not_sent_yet():
            path = self._path(task_id, "actions", "start")
            takes_source = self.interface.path() == SCHEDULING
            now_ns = self._api.transport.server_time_ns()
            before = rows.text(self._last_run(task_id), "id")
            mark = StartMark(now_ns, new_nonce(is_sent=takes_source), before)
        reply = self._api.post(path, None, {"source": mark.source} if takes_source else None)
        if reply.status in _BY_STATE and (why := self._why_refused(task_id)):
            return Started("", why)
        if reply.status == 409:
            return Started("", error_text(reply) or "the task can't be started now")
        if reply.status >= 300 or reply.is_sign_in:
            raise error_of(reply, not_found="There is no task with this id that [qlik] may start.")
        if reply.content.strip():
            reply.json()  # Raises if it is not the tenant's answer.
        for look in range(_LOOKS_FOR_RUN):
            if look and wait():
                break
            # The task is started: a look that fails now must not become an error.
            with contextlib.suppress(QlikError):
                run = self.own.find(mark, self.newest(task_id))
                if run is not None:
                    return Started(f"{RUN}{rows.text(run, 'id')}")
        self.own.note(mark.source, mark.execution_id)
        return Started(mark.execution_id)

    def _why_refused(self, task_id: str) -> str:
        """Why the task can't be started now; empty if its state does not say."""
        try:
            row = self._details(task_id)
        except QlikError:
            return ""
        if rows.text(last_run(row), "status") == "RUNNING":
            return "the task is already running"
        return why_disabled(row)

    def _last_run(self, task_id: str) -> rows.Row:
        """The task's last run; an empty row if it never ran, or that can't be seen."""
        try:
            return as_object(self._api.get(self._path(task_id, "runs", "last")))
        except StatusError as error:
            if error.status in _REFUSED:
                return {}
            raise

    # --- runs --------------------------------------------------------------------------------

    def run(self, execution_id: str, task_id: str) -> rows.Row | None:
        """The run of an execution, by the run's id or by the mark of its start.

        Raises:
            QlikError: the tenant can't be asked.
        """
        if execution_id.startswith(RUN):
            run_id = execution_id.removeprefix(RUN)
            # Most often it is the last one, and a list may hold the logs of all its runs.
            found = chain([self._last_run(task_id)], self._runs(task_id))
            return next((row for row in found if rows.text(row, "id") == run_id), None)
        mark = mark_of(execution_id)
        if mark is None:
            return None
        return self.own.find(mark, self._runs_from(self._runs(task_id), mark.at_ns), execution_id)

    def begun_since(self, task_id: str, after_ns: int, *, everyone: bool = False) -> list[rows.Row]:
        """Runs that a start of ours after a time of the server may have begun, oldest first.

        ``everyone``: runs that anything began, and those under way that began before.

        Raises:
            QlikError: the runs can't be had. Only a task that does not exist has none.
        """
        try:
            runs = self._runs_from(self._all_runs(task_id), after_ns)
        except StatusError as error:
            if error.status not in GONE:
                raise
            # An interface that is gone must not look like a task without runs.
            self.interface.forget()
            if self.exists(task_id):
                raise
            runs = []
        if everyone:
            return all_since(runs, after_ns)
        return begun_since(runs, after_ns, takes_source=self.interface.path() == SCHEDULING)

    @staticmethod
    def _runs_from(runs: Iterable[rows.Row], after_ns: int) -> list[rows.Row]:
        """Runs from a time on, and some before, which tell whether the tenant notes who started."""
        found = []
        for row in runs:
            found.append(row)
            began_ns = run_started_ns(row)
            is_older = began_ns is not None and began_ns < after_ns - CLOCK_SLACK_NS
            if is_older and len(found) >= _RECENT:
                break
        return found

    def newest(self, task_id: str) -> Sequence[rows.Row]:
        """The newest runs of a task, newest first. Raises ``QlikError``."""
        return list(islice(self._runs(task_id), _RECENT))

    def _runs(self, task_id: str) -> Iterator[rows.Row]:
        """The same as ``_all_runs``, and none where they can't be seen."""
        try:
            yield from self._all_runs(task_id)
        except StatusError as error:
            if error.status not in _REFUSED:
                raise

    def _all_runs(self, task_id: str) -> Iterator[rows.Row]:
        """The runs of a task, newest first, page after page."""
        params = {"limit": str(_RECENT)}
        if self.interface.path() == SCHEDULING:
            params["sort"] = "-startedAt"
        return islice(self._api.pages(self._path(task_id, "runs"), params), _RUNS_LIMIT)

    def of_app(self, app_id: str) -> Sequence[rows.Row]:
        """The newest runs of all tasks of an app."""
        path = self._path("resources", app_id, "runs")
        try:
            return data_rows(self._api.get(path, {"limit": _PAGE}))
        except StatusError as error:
            if error.status in _REFUSED:
                return []
            raise

    def running(self) -> Iterator[rows.Row]:
        """Tasks whose last run goes on; none where the tenant does not tell."""
        yield from self._told_by_tenant({"filter": 'lastStatus eq "RUNNING"'})

    def by_last_end(self) -> Iterator[rows.Row]:
        """Tasks by the end of their last run, newest first; none where the tenant does not tell."""
        yield from self._told_by_tenant({"sort": "-lastEndedAt"})

    def _told_by_tenant(self, params: Mapping[str, str]) -> Iterator[rows.Row]:
        if self.interface.path() != SCHEDULING:
            return
        try:
            yield from self._api.pages(SCHEDULING, {**params, "limit": _PAGE}, limit=_LOOK_PAGES)
        except StatusError as error:
            if error.status not in _REFUSED:
                raise

    def log(self, task_id: str, run_id: str, keep_last: int) -> str:
        """The end of a run's log; empty where there is none.

        Raises:
            QlikError: the tenant can't be asked.
        """
        path = self._path(task_id, "runs", run_id, "log")
        try:
            reply = self._api.get(path, accept="text/plain", keep_last=keep_last)
            if "json" not in reply.headers.get("content-type", "").lower():
                return reply.log
            # A tenant that has it as JSON alone: the end of JSON can't be read.
            answer = self._api.get(path)
        except StatusError as error:
            if error.status in _REFUSED:
                return ""
            raise
        return answer.known.mask(rows.text(as_object(answer), "logContent"))
