"""The tasks of the simulated Qlik Cloud: the scheduling interface, and the interim one before it.

Source of the shapes: docs/qlik.md, "Tasks of Qlik Cloud". Not for: apps and their reloads
(cloud.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from appliance.qlik.simulated.cloud_rows import Origin, Origins, Row, log_of, page, reload_row
from appliance.qlik.simulated.messages import Answer, Request, date, json_answer, text_answer
from appliance.qlik.simulated.site import ZERO_ID, Run, SimulatedTask, Site

SCHEDULING = "/api/scheduling/tasks"
INTERIM = "/api/v1/tasks"
_RUN_STATUS = {
    "SUCCEEDED": "SUCCEEDED",
    "FAILED": "FAILED",
    "CANCELED": "FAILED",
    "EXCEEDED_LIMIT": "FAILED",
}
_ID = "([^/]+)"
_DEFAULT_PAGE, _LARGEST_PAGE = 20, 100
_FILTER = re.compile(r'(?P<field>\w+) eq (?:"(?P<text>[^"]*)"|(?P<flag>true|false))')
_SORTED_BY = ("name", "createdAt", "updatedAt", "lastStatus", "lastStartedAt", "lastEndedAt")
_RUNS_SORTED_BY = ("startedAt", "endedAt", "status")


class CloudTasks:
    """Answers requests about tasks. Tests set its attributes."""

    def __init__(self, site: Site, origins: Origins) -> None:
        self.site = site
        self.interfaces = {SCHEDULING, INTERIM}
        """What the tenant offers."""
        self.gone_status = 404
        """The status of an interface that it does not offer; some answer 410."""
        self.notes_source = True
        """Whether a run says what its start call named as its source."""
        self.lists_last_run = True
        """Whether the list has the whole last run of a task, or its status and times alone."""
        self.worker_type = "reloads"
        self.has_run_logs = True
        self.has_text_codes = False
        """Whether errors have codes such as CHO-003, or numbers."""
        self.without_rights: set[str] = set()
        """Apps (ids in lower case) that the user may not reload."""
        self._origins = origins
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
            ("GET", re.compile(""), self._list),
            ("GET", re.compile(f"/{_ID}"), self._one),
            ("POST", re.compile(f"/{_ID}/actions/start"), self._start),
            ("GET", re.compile(f"/{_ID}/runs/last"), self._last_run),
            ("GET", re.compile(f"/{_ID}/runs"), self._runs),
            ("GET", re.compile(f"/{_ID}/runs/{_ID}/log"), self._log),
            ("GET", re.compile(f"/resources/{_ID}/runs"), self._runs_of_app),
        ]

    def answer(self, request: Request) -> Answer | None:
        """The answer to a request about tasks; ``None``: it is about something else."""
        for base in (SCHEDULING, INTERIM):
            rest = request.path.removeprefix(base)
            if rest == request.path or not (rest == "" or rest.startswith("/")):
                continue
            if base not in self.interfaces:
                return self._error(self.gone_status, "TASKS-011", "Not available")
            for method, pattern, respond in self._routes:
                match = pattern.fullmatch(rest)
                if match is not None and method == request.method:
                    return respond(request, *match.groups())
        return None

    # --- tasks -------------------------------------------------------------------------------

    def _list(self, request: Request) -> Answer:
        is_interim = request.path.startswith(INTERIM)
        app_id = request.query.get("resourceid", "").lower()
        if is_interim and not app_id:
            return self._error(400, "CHO-001", "Bad request", "resourceId is required")
        tasks = [
            task
            for task in self.site.tasks.values()
            if task.is_cloud_task and app_id in {"", task.app_id.lower()}
        ]
        if condition := request.query.get("filter"):
            match = _FILTER.fullmatch(condition)
            if match is None:
                return self._error(400, "CHO-001", "Bad request", "filter can't be read")
            wanted = match["flag"] or match["text"]
            tasks = [task for task in tasks if self._field(task, match["field"]) == wanted]
        return self._sorted_page(
            request, [self._task_row(task) for task in tasks], "-updatedAt", _SORTED_BY
        )

    def _field(self, task: SimulatedTask, name: str) -> str:
        run = self._newest(task)
        return {
            "name": task.name,
            "enabled": str(task.enabled).lower(),
            "resourceId": task.app_id,
            "lastStatus": str(self._run_row(run)["status"]) if run else "",
        }.get(name, "")

    def _sorted_page(
        self, request: Request, rows: Sequence[Row], default: str, fields: Sequence[str]
    ) -> Answer:
        order = request.query.get("sort") or default
        limit = request.query.get("limit") or str(_DEFAULT_PAGE)
        if order[1:] not in fields or order[0] not in "+-":
            return self._error(400, "CHO-001", "Bad request", f"sort can't be {order}")
        if not limit.isdecimal() or not 1 <= int(limit) <= _LARGEST_PAGE:
            return self._error(400, "CHO-001", "Bad request", "limit must be 1 to 100")
        ordered = sorted(
            rows, key=lambda row: str(_sort_value(row, order[1:])), reverse=order[0] == "-"
        )
        return page(request, ordered, cursor="page", limit=int(limit))

    def _one(self, _request: Request, task_id: str) -> Answer:
        task = self.site.tasks.get(task_id.lower())
        if task is None:
            return self._error(404, "CHO-004", "Not found")
        return json_answer(self._task_row(task))

    def _task_row(self, task: SimulatedTask) -> Row:
        metadata: Row = {
            "usage": "ANALYTICS",
            "ownerId": "simulated-user",
            "createdAt": date(0),
            "updatedAt": date(0),
            "resourceName": task.app_name,
            "resourceType": "app",
            "trigger": {"id": f"trigger-{task.id}", "type": 0},
        }
        if not task.enabled:
            metadata["disabledCode"] = task.disabled_code or "MANUALLY"
        if task.migrated_from:
            metadata["migratedFrom"] = task.migrated_from
        orchestration: Row = {"id": f"orchestration-{task.id}", "type": 3, "attrs": {}}
        run = self._newest(task)
        if run is not None:
            row = self._run_row(run)
            attributes = {
                "last_run_status": row["status"],
                "last_run_startedAt": row["startedAt"],
                "last_run_worker_type": row["workerType"],
            }
            if row["endedAt"]:
                attributes["last_run_endedAt"] = row["endedAt"]
            orchestration["attrs"] = attributes
            if self.lists_last_run:
                orchestration["lastRun"] = row
        started: Row = {}
        if task.every_s is not None:
            every = f"RRULE:FREQ=SECONDLY;INTERVAL={int(task.every_s)}"
            started["start"] = {"schedule": {"recurrence": [every], "timezone": "UTC"}}
        return {
            **started,
            "id": task.id,
            "name": task.name,
            "enabled": task.enabled,
            "resourceId": task.app_id,
            "specVersion": "1.16.0",
            "version": "1.0.0",
            "metadata": {**metadata, "orchestration": orchestration},
        }

    def _start(self, request: Request, task_id: str) -> Answer:
        task = self.site.tasks.get(task_id.lower())
        if task is None:
            return self._error(404, "CHO-004", "Not found")
        if not task.app_available or task.app_id.lower() in self.without_rights:
            return self._error(403, "CHO-003", "Forbidden", "no app:reload on the app")
        execution_id = self.site.start(task_id)
        if execution_id is None or execution_id == ZERO_ID:
            return self._error(400, "CHO-001", "Bad request", "The task can not be started now")
        given = request.query.get("source", "manual")
        source = given if self.notes_source else "manual"
        self._origins.note(execution_id, Origin(source, "choreographer"))
        return json_answer({"message": "Task started successfully"})

    # --- runs --------------------------------------------------------------------------------

    def _runs_of(self, task: SimulatedTask) -> list[Run]:
        """Newest first; a reload that was asked for by the app is no run of a task."""
        return [
            run
            for run in reversed(self.site.runs())
            if run.task is task and self._origins.of(run).source
        ]

    def _newest(self, task: SimulatedTask) -> Run | None:
        return next(iter(self._runs_of(task)), None)

    def _run_row(self, run: Run) -> Row:
        origin = self._origins.of(run)
        row = reload_row(run, origin)
        return {
            "id": run_id_of(run),
            "taskId": run.task.id,
            "taskName": run.task.name,
            "actionId": "app.reload",
            "resourceId": run.task.app_id,
            "status": _RUN_STATUS.get(str(row["status"]), "RUNNING"),
            "startedAt": row["creationTime"],
            "endedAt": row.get("endTime"),
            "triggeredBy": origin.source,
            "executedAs": "simulated-user",
            "workerId": run.execution_id,
            "workerType": self.worker_type,
        }

    def _runs(self, request: Request, task_id: str) -> Answer:
        task = self.site.tasks.get(task_id.lower())
        if task is None:
            return self._error(404, "CHO-004", "Not found")
        rows = [self._run_row(run) for run in self._runs_of(task)]
        return self._sorted_page(request, rows, "-startedAt", _RUNS_SORTED_BY)

    def _runs_of_app(self, request: Request, app_id: str) -> Answer:
        rows = [
            self._run_row(run)
            for task in self.site.tasks.values()
            if task.is_cloud_task and task.app_id.lower() == app_id.lower()
            for run in self._runs_of(task)
        ]
        return self._sorted_page(request, rows, "-startedAt", _RUNS_SORTED_BY)

    def _last_run(self, _request: Request, task_id: str) -> Answer:
        task = self.site.tasks.get(task_id.lower())
        run = self._newest(task) if task is not None else None
        if run is None:
            return self._error(404, "CHO-004", "Not found")
        return json_answer(self._run_row(run))

    def _log(self, request: Request, task_id: str, run_id: str) -> Answer:
        task = self.site.tasks.get(task_id.lower())
        for run in self._runs_of(task) if task is not None else ():
            if run_id_of(run) == run_id and run.over and self.has_run_logs:
                if "text/plain" in request.headers.get("accept", ""):
                    return text_answer(log_of(run), 200)
                return json_answer({"logContent": log_of(run)})
        return self._error(404, "CHO-004", "Not found")

    def _error(self, status: int, code: str, title: str, context: str = "") -> Answer:
        """An error as the scheduling interface has it."""
        shown = code if self.has_text_codes else status
        errors = [{"code": shown, "title": title, "context": context or title}]
        return json_answer({"errors": errors, "traceId": "simulated-trace"}, status)


def run_id_of(run: Run) -> str:
    return f"run-{run.execution_id}"


def _sort_value(row: Row, name: str) -> object:
    if not name.startswith("last"):
        return row.get(name) or ""
    metadata = row["metadata"]
    assert isinstance(metadata, dict)
    attributes = metadata["orchestration"]["attrs"]
    wanted = {"lastStatus": "status", "lastStartedAt": "startedAt", "lastEndedAt": "endedAt"}
    return attributes.get(f"last_run_{wanted[name]}") or ""
