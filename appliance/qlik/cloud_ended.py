"""Runs of everyone in a Qlik Cloud tenant: what goes on now, and what ended since a look.

Two lists are read: the tasks by their last run, and the reloads of all apps, which only a tenant
administrator sees. The reload that a task's run made is told as this run, not as one of its app
(docs/qlik.md, "Runs of others in Qlik Cloud"). Not for: following one run (cloud.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import msgspec

from appliance.qlik import rows
from appliance.qlik.cloud_api import CloudApi
from appliance.qlik.cloud_rows import last_run, reload_of, reload_report, run_report, with_reload
from appliance.qlik.cloud_tasks import CloudTasks
from appliance.qlik.failures import StatusError
from appliance.qlik.server import ENDED_LIMIT, ENDED_LOOK_BACK_NS, Ended, Report

_OVERLAP_NS = 5_000_000_000
"""Runs that ended so long before the last look are told again: a list may lag behind."""
_RELOADS = "/api/v1/reloads"
_PAGE = "100"
_PAGES = 5
_TASKS_ASKED = 20
"""Tasks whose runs are asked for in one look; of others only the last run is seen."""
_APPS_ASKED = 10
"""Apps whose runs are asked for in one look, to find the run that a reload belongs to."""
_DENIED_FOR_S = 600.0
"""How long the list of all reloads is not asked for after the tenant refused it."""
_DENIED = frozenset({400, 403, 404})
_OF_TASK = "choreographer"
"""The type of a reload that a task's run made."""


class CloudEnded:
    """Looks at the runs of everyone. For one thread at a time."""

    def __init__(
        self,
        api: CloudApi,
        tasks: CloudTasks,
        reload_report: Callable[[str], Report | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is sent.

        Args:
            api: calls the tenant.
            tasks: of the tenant.
            reload_report: asks for one reload.
            clock: seconds that only grow.
        """
        self._api = api
        self._tasks = tasks
        self._reload_report = reload_report
        self._clock = clock
        self._denied_until = 0.0

    def running(self) -> list[Report]:
        """What goes on now, each once. Raises ``QlikError``."""
        reloads = [
            row
            for status in ("QUEUED", "RELOADING")
            for row in self._reloads({"filter": f'status eq "{status}"'})
        ]
        runs = []
        for task in self._tasks.running():
            run = last_run(task)
            if not rows.text(run, "id"):
                run = next(iter(self._tasks.newest(rows.text(task, "id"))), {})
            if rows.text(run, "status") == "RUNNING":
                runs.append({**run, **_task_of(task)})
        return [one for one in self._told(runs, reloads) if not one.state.is_final]

    def since(self, after_ns: int | None, running: Collection[str]) -> Ended:
        """What ended since a time of the server; see ``QlikServer.ended``."""
        until_ns = self._api.transport.server_time_ns()
        if after_ns is None:
            return Ended((), until_ns)
        since_ns = max(after_ns - _OVERLAP_NS, until_ns - ENDED_LOOK_BACK_NS)
        reloads = []
        for row in self._reloads({}):
            # What was there before was seen while it went on. The newest come first.
            if (rows.time_ns(row.get("creationTime")) or 0) < since_ns:
                break
            reloads.append(row)
        found = [
            one
            for one in self._told(self._runs_ended(since_ns), reloads)
            if one.state.is_final
            and (one.ended_ns or 0) >= since_ns
            and one.execution_id not in running
        ]
        found.sort(key=lambda one: one.ended_ns or 0)
        left_out = max(len(found) - ENDED_LIMIT, 0)
        return Ended(found[left_out:], until_ns, left_out)

    def _runs_ended(self, since_ns: int) -> list[rows.Row]:
        """Runs of tasks that may have ended since."""
        found: list[rows.Row] = []
        asked = 0
        for task in self._tasks.by_last_end():
            run = last_run(task)
            ended_ns = rows.time_ns(run.get("endedAt"))
            if ended_ns is None:
                continue  # It runs, or never ran.
            if ended_ns < since_ns:
                break
            if asked < _TASKS_ASKED:
                asked += 1
                # A task may have run more than once since the last look.
                newest = self._tasks.newest(rows.text(task, "id"))
                found += [{**each, **_task_of(task)} for each in newest]
            elif rows.text(run, "id"):
                found.append({**run, **_task_of(task)})
        return [one for one in found if (rows.time_ns(one.get("endedAt")) or 0) >= since_ns]

    def _told(self, runs: Iterable[rows.Row], reloads: Iterable[rows.Row]) -> Iterator[Report]:
        """Reports of runs and reloads, each once."""
        made = {rows.text(row, "id"): row for row in reloads}
        seen: set[str] = set()
        for run in runs:
            seen.add(reload_of(run))
            yield self._run_report(run, made)
        of_apps: dict[str, dict[str, rows.Row]] = {}
        for reload_id, row in made.items():
            if reload_id in seen:
                continue
            app_id = rows.text(row, "appId")
            if rows.text(row, "type").lower() == _OF_TASK:
                if app_id not in of_apps and len(of_apps) < _APPS_ASKED:
                    of_apps[app_id] = {reload_of(run): run for run in self._tasks.of_app(app_id)}
                of_task = of_apps.get(app_id, {}).get(reload_id)
                if of_task is not None:
                    yield self._run_report(of_task, made)
                    continue
            yield reload_report(row)

    def _run_report(self, run: rows.Row, made: Mapping[str, rows.Row]) -> Report:
        report = run_report(run, rows.text(run, "taskId").lower())
        row = made.get(report.result_id)
        if row is not None:
            report = with_reload(report, reload_report(row))
        elif report.state.is_bad and (known := self._reload_report(report.result_id)):
            report = with_reload(report, known)
        execution_id = self._tasks.own.execution_of(run)
        return msgspec.structs.replace(report, execution_id=execution_id)

    def _reloads(self, params: Mapping[str, str]) -> Iterator[rows.Row]:
        """Reloads of all apps; none for a user who is not an administrator of the tenant."""
        if self._clock() < self._denied_until:
            return
        try:
            yield from self._api.pages(_RELOADS, {**params, "limit": _PAGE}, limit=_PAGES)
        except StatusError as error:
            if error.status not in _DENIED:
                raise
            self._denied_until = self._clock() + _DENIED_FOR_S


def _task_of(task: rows.Row) -> dict[str, object]:
    """What a run lacks where the list of tasks has it."""
    return {"taskId": rows.text(task, "id"), "taskName": rows.text(task, "name")}
