"""The Repository Service (QRS) of the simulated server: its paths and its JSON.

docs/qlik.md says which parts of the shapes are certain. Not for: signing in and faults
(server.py), what tasks do (site.py).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from appliance.model import TaskKind
from appliance.qlik.simulated.filters import FilterError, parse
from appliance.qlik.simulated.messages import Answer, Request, date, json_answer, text_answer
from appliance.qlik.simulated.site import ZERO_ID, Attempt, Run, SimulatedTask, Site

NO_ENDPOINT = "No matching endpoint found"
_NODE_ID = "d4f6b801-3c7a-4e92-9b5d-a8e0c1f37246"
_NODE = "qlik1.example.com"
_KINDS = {
    "reloadtask": TaskKind.RELOAD,
    "externalprogramtask": TaskKind.EXTERNAL_PROGRAM,
    "usersynctask": TaskKind.USER_SYNC,
}
_SCHEMAS = {
    TaskKind.RELOAD: "ReloadTask",
    TaskKind.EXTERNAL_PROGRAM: "ExternalProgramTask",
    TaskKind.USER_SYNC: "UserSyncTask",
}
_GUID = "([0-9a-fA-F-]{36})"
_STATUS_ENUM = [
    "NeverStarted",
    "Triggered",
    "Started",
    "Queued",
    "AbortInitiated",
    "Aborting",
    "Aborted",
    "FinishedSuccess",
    "FinishedFail",
    "Skipped",
    "Retry",
    "Error",
    "Reset",
    "DistributionQueue",
    "DistributionRunning",
]


class Repository:
    """Answers requests whose path begins with ``/qrs/``, for a signed-in user."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.answer_form = "value"
        """Of start/synchronous: ``"value"`` for {"value": id}, ``"string"`` for a bare string."""
        self.old_script_log = True
        """Whether the script log endpoint from before May 2025 is there."""
        self.new_script_log = True
        self.hidden_kinds: set[TaskKind] = set()
        """Kinds of tasks whose lists are answered with 403."""
        self.build_version = "31.5.3.0"
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
            ("GET", re.compile("/qrs/about"), self._about),
            ("GET", re.compile("/qrs/about/api/enums"), self._enums),
            ("POST", re.compile(f"/qrs/task/{_GUID}/start/synchronous"), self._start),
            ("POST", re.compile(f"/qrs/task/{_GUID}/start"), self._start_without_id),
            ("POST", re.compile(f"/qrs/task/{_GUID}/stop"), self._stop),
            ("POST", re.compile("/qrs/task/start/synchronous"), self._start_by_name),
            ("GET", re.compile("/qrs/task/full"), self._all_tasks),
            ("GET", re.compile(f"/qrs/({'|'.join(_KINDS)})/full"), self._tasks),
            ("GET", re.compile(f"/qrs/({'|'.join(_KINDS)})/{_GUID}"), self._task),
            ("GET", re.compile(f"/qrs/executionsession/{_GUID}"), self._session),
            ("GET", re.compile("/qrs/executionsession/full"), self._sessions),
            ("GET", re.compile("/qrs/executionresult/full"), self._results),
            ("GET", re.compile(f"/qrs/reloadtask/{_GUID}/scriptlog"), self._log_reference),
            ("GET", re.compile(f"/qrs/reloadtask/{_GUID}/scriptlogfile"), self._log_file),
            ("GET", re.compile(f"/qrs/download/reloadtask/{_GUID}/[^/]+"), self._log_download),
        ]

    def answer(self, request: Request) -> Answer:
        for method, pattern, respond in self._routes:
            match = pattern.fullmatch(request.path)
            if match is not None and method == request.method:
                with self.site.lock:
                    return respond(request, *match.groups())
        return text_answer(NO_ENDPOINT, 404)

    def _about(self, _request: Request) -> Answer:
        return json_answer(
            {
                "buildVersion": self.build_version,
                "buildDate": "11/12/2026 16:04:18 PM",
                "databaseProvider": "Devart.Data.PostgreSql",
                "nodeType": 1,
                "sharedPersistence": True,
                "requiresBootstrap": False,
                "singleNodeOnly": False,
                "schemaPath": "About",
            }
        )

    def _enums(self, _request: Request) -> Answer:
        values = [f"{number}: {name}" for number, name in enumerate(_STATUS_ENUM)]
        usages = ["ExecutionResult.Status", "ExecutionResultCondensed.Status"]
        return json_answer({"StatusEnum": {"values": values, "usages": usages}})

    def _start(self, _request: Request, task_id: str) -> Answer:
        execution_id = self.site.start(task_id)
        if execution_id is None:
            return text_answer("Cannot find a task with the given id", 404)
        value = execution_id if self.answer_form == "string" else {"value": execution_id}
        return json_answer(value, 201)

    def _start_without_id(self, _request: Request, task_id: str) -> Answer:
        if self.site.start(task_id) is None:
            return text_answer("Cannot find a task with the given id", 404)
        return Answer(204)

    def _start_by_name(self, request: Request) -> Answer:
        name = request.query.get("name", "")
        for task in self.site.tasks.values():
            if task.name == name:
                return self._start(request, task.id)
        return text_answer(f"Cannot find a task with the following name: {name}", 400)

    def _stop(self, _request: Request, task_id: str) -> Answer:
        if task_id.lower() not in self.site.tasks:
            return text_answer("Not found", 404)
        self.site.stop(task_id)
        return Answer(204)

    def _all_tasks(self, request: Request) -> Answer:
        # The base entity of all kinds has no app (docs/qlik.md).
        rows = [_task_row(self.site, task) for task in self.site.tasks.values()]
        for row in rows:
            row.pop("app", None)
        return _listed(request, rows)

    def _tasks(self, request: Request, kind_name: str) -> Answer:
        kind = _KINDS[kind_name]
        if kind in self.hidden_kinds:
            return text_answer("Forbidden", 403)
        tasks = [task for task in self.site.tasks.values() if task.kind is kind]
        return _listed(request, [_task_row(self.site, task) for task in tasks])

    def _task(self, _request: Request, kind_name: str, task_id: str) -> Answer:
        task = self.site.tasks.get(task_id.lower())
        if task is None or task.kind is not _KINDS[kind_name]:
            return text_answer("Not found", 404)
        return json_answer(_task_row(self.site, task))

    def _session(self, _request: Request, execution_id: str) -> Answer:
        for run in self.site.sessions():
            if run.execution_id == execution_id.lower():
                return json_answer(_session_row(run))
        return text_answer("Not found", 404)

    def _sessions(self, request: Request) -> Answer:
        return _listed(request, [_session_row(run) for run in self.site.sessions()])

    def _results(self, request: Request) -> Answer:
        attempts = {
            attempt.result_id: attempt for run in self.site.runs() for attempt in run.attempts
        }
        rows = [_result_row(run, attempt) for run in self.site.runs() for attempt in run.attempts]

        def with_details(row: dict[str, object]) -> dict[str, object]:
            return row | {"details": _details(attempts[str(row["id"])])}

        return _listed(request, rows, with_details)

    def _log_reference(self, request: Request, task_id: str) -> Answer:
        if not self.old_script_log:
            return text_answer(NO_ENDPOINT, 404)
        wanted = request.query.get("filereferenceid", "").lower()
        found = self._attempt(task_id, lambda attempt: attempt.file_reference == wanted)
        return _reference(found)

    def _log_file(self, request: Request, task_id: str) -> Answer:
        if not self.new_script_log:
            return text_answer(NO_ENDPOINT, 404)
        wanted = request.query.get("executionresultid", "").lower()
        found = self._attempt(task_id, lambda attempt: attempt.result_id == wanted)
        return _reference(found)

    def _attempt(self, task_id: str, fits: Callable[[Attempt], bool]) -> tuple[Run, Attempt] | None:
        for run in self.site.runs():
            for attempt in run.attempts:
                if run.task.id.lower() == task_id.lower() and fits(attempt):
                    return run, attempt
        return None

    def _log_download(self, _request: Request, reference: str) -> Answer:
        for run in self.site.runs():
            for attempt in run.attempts:
                if attempt.file_reference == reference.lower() != ZERO_ID:
                    text = "".join(f"{line}\r\n" for line in _script_log(run, attempt))
                    return Answer(200, text.encode(), "text/plain;charset=utf-8")
        return text_answer("Not found", 404)


def _listed(
    request: Request,
    rows: Sequence[dict[str, object]],
    complete: Callable[[dict[str, object]], dict[str, object]] | None = None,
) -> Answer:
    """Apply ``filter`` and ``orderby`` of a request to a list; ``complete`` the remaining rows."""
    wanted = request.query.get("filter", "")
    kept = list(rows)
    if wanted.strip():
        try:
            test = parse(wanted)
        except FilterError as error:
            return text_answer(str(error), 400)
        kept = [row for row in kept if test(row)]
    name, _, direction = unquote(request.query.get("orderby", "")).partition(" ")
    if name:
        kept.sort(key=lambda row: str(row.get(name, "")), reverse=direction.lower() == "desc")
    return json_answer([complete(row) for row in kept] if complete is not None else kept)


def _reference(found: tuple[Run, Attempt] | None) -> Answer:
    if found is None or found[1].file_reference == ZERO_ID:
        return text_answer("Not found", 404)
    return json_answer({"value": found[1].file_reference})


def _condensed_result(attempt: Attempt) -> dict[str, object]:
    duration_ns = 0
    if attempt.started_ns is not None and attempt.stopped_ns is not None:
        duration_ns = attempt.stopped_ns - attempt.started_ns
    return {
        "id": attempt.result_id,
        "executingNodeName": _NODE,
        "status": int(attempt.status),
        "startTime": date(attempt.started_ns),
        "stopTime": date(attempt.stopped_ns),
        "duration": duration_ns // 1_000_000,
        "fileReferenceID": attempt.file_reference,
        "scriptLogAvailable": attempt.file_reference != ZERO_ID,
        "privileges": None,
    }


def _details(attempt: Attempt) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {
            "id": str(uuid.uuid5(uuid.UUID(attempt.result_id), str(number))),
            "detailsType": kind,
            "message": message,
            "detailCreatedDate": date(at + number * 1_000_000),
            "privileges": None,
        }
        for number, (at, kind, message) in enumerate(attempt.details)
    ]
    # The server does not promise an order of the details, so they come back turned round.
    return rows[::-1]


def _result_row(run: Run, attempt: Attempt) -> dict[str, object]:
    """An execution result, without its details."""
    changed = attempt.details[-1][0] if attempt.details else attempt.created_ns
    return _condensed_result(attempt) | {
        "createdDate": date(attempt.created_ns),
        "modifiedDate": date(changed),
        "modifiedByUserName": "INTERNAL\\sa_scheduler",
        "taskID": run.task.id,
        "executionID": run.execution_id,
        "appID": run.task.app_id or ZERO_ID,
        "executingNodeID": _NODE_ID,
        "scriptLogLocation": "",
        "scriptLogSize": 18231 if attempt.file_reference != ZERO_ID else 0,
        "schemaPath": "ExecutionResult",
    }


def _session_row(run: Run) -> dict[str, object]:
    task = run.task
    condensed = {
        "id": task.id,
        "name": task.name,
        "taskType": int(task.kind),
        "enabled": task.enabled,
        "taskSessionTimeout": task.timeout_min,
        "maxRetries": task.max_retries,
        "privileges": None,
    }
    return {
        "id": run.execution_id,
        "createdDate": date(run.created_ns),
        "modifiedDate": date(run.attempt.details[-1][0]),
        "modifiedByUserName": "INTERNAL\\sa_scheduler",
        "executingNode": {"id": _NODE_ID, "name": "Central", "hostName": _NODE},
        "executionResult": _condensed_result(run.attempt),
        "abortAt": date(run.created_ns + task.timeout_min * 60_000_000_000),
        "retries": len(run.attempts) - 1,
        "abortReason": run.abort_reason,
        "app": {"id": task.app_id, "name": task.app_name} if task.app_id else None,
        "user": None,
        "reloadTask": condensed if task.kind is TaskKind.RELOAD else None,
        "userSyncTask": condensed if task.kind is TaskKind.USER_SYNC else None,
        "externalProgramTask": condensed if task.kind is TaskKind.EXTERNAL_PROGRAM else None,
        "privileges": None,
        "schemaPath": "ExecutionSession",
    }


def _task_row(site: Site, task: SimulatedTask) -> dict[str, object]:
    attempt = site.last_attempt(task)
    last: dict[str, object] = {
        "id": ZERO_ID,
        "executingNodeName": "",
        "status": 0,
        "startTime": date(None),
        "stopTime": date(None),
        "duration": 0,
        "fileReferenceID": ZERO_ID,
        "scriptLogAvailable": False,
        "privileges": None,
    }
    if attempt is not None:
        last = _condensed_result(attempt)
    row: dict[str, object] = {
        "id": task.id,
        "createdDate": "2026-01-10T09:58:12.000Z",
        "modifiedDate": "2026-11-20T03:01:18.010Z",
        "modifiedByUserName": "LAB\\admin",
        "customProperties": [
            {"value": value, "definition": {"name": name, "valueType": "Text"}}
            for name, value in task.properties
        ],
        "isManuallyTriggered": False,
        "operational": {
            "lastExecutionResult": last,
            "nextExecution": date(task.next_every_ns),
            "privileges": None,
        },
        "name": task.name,
        "taskType": int(task.kind),
        "enabled": task.enabled,
        "taskSessionTimeout": task.timeout_min,
        "maxRetries": task.max_retries,
        "tags": [{"id": ZERO_ID, "name": tag, "privileges": None} for tag in task.tags],
        "privileges": None,
        "schemaPath": _SCHEMAS.get(task.kind, "Task"),
    }
    if task.kind is TaskKind.RELOAD:
        row["app"] = {"id": task.app_id, "name": task.app_name, "published": False}
        row["isPartialReload"] = False
    elif task.kind is TaskKind.EXTERNAL_PROGRAM:
        row["path"] = task.program
        row["parameters"] = ""
    return row


def _script_log(run: Run, attempt: Attempt) -> list[str]:
    if run.task.log is not None:
        return list(run.task.log)
    began = date(attempt.started_ns)
    lines = [
        f"{began}      Execution started.",
        f"{began}      Qlik Sense Server, app {run.task.app_name}",
        f"{began} 0001 SET ThousandSep=',';",
        f"{began} 0002 LIB CONNECT TO 'warehouse';",
        # What a connector writes into a log by mistake: the client has to mask it.
        f'{began}      "Provider=SQLNCLI11;Server=db1;XUserId=loader;XPassword=Sommer2026;"',
        f"{began} 0003 Measurements: LOAD * FROM [lib://warehouse/measurements.qvd] (qvd);",
    ]
    ended = date(attempt.stopped_ns)
    if attempt.status in {8, 11}:
        return [*lines, f"{ended}      {run.task.error_text}", f"{ended}      Execution Failed"]
    return [*lines, f"{ended}      Execution finished."]
