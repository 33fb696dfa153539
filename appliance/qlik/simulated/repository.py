"""The Repository Service (QRS) of the simulated server: its paths, and which rows they give.

docs/qlik.md says what is certain about them. Not for: the rows themselves (entities.py), signing in
and faults (server.py), what tasks do (site.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import msgspec

from appliance.model import TaskKind
from appliance.qlik.simulated.entities import (
    Row,
    app_row,
    chain_row,
    condensed,
    details,
    result_row,
    schedule_row,
    script_log,
    session_row,
    task_row,
    user_row,
)
from appliance.qlik.simulated.filters import FilterError, parse, sort_key
from appliance.qlik.simulated.messages import Answer, Request, json_answer, text_answer
from appliance.qlik.simulated.site import (
    STATUS_ENUM,
    TASK_TYPE_ENUM,
    ZERO_ID,
    Attempt,
    Run,
    SimulatedTask,
    Site,
)

NO_ENDPOINT = "No matching endpoint found"
_NO_TASK = "Cannot find a task with the given id"
_NO_NAME = "Cannot find a task with the following name"
_KINDS = {
    "reloadtask": TaskKind.RELOAD,
    "externalprogramtask": TaskKind.EXTERNAL_PROGRAM,
    "usersynctask": TaskKind.USER_SYNC,
}
_GUID = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
EVENTS = ("schemaevent", "compositeevent")
_LISTED = f"(task|{'|'.join((*_KINDS, *EVENTS))}|executionsession|executionresult|app|user)"
_SINGLE = f"({'|'.join(_KINDS)}|executionsession|executionresult|app|user)"
"""``/qrs/task/{id}`` does not exist."""
_TASKS_LIMIT = 1000


class _ForbiddenError(Exception):
    pass


class _NewTaskApp(msgspec.Struct):
    id: str


class _NewTask(msgspec.Struct):
    """What counts of a task that a client creates."""

    name: str
    app: _NewTaskApp
    enabled: bool | None = None
    maxRetries: int | None = None  # noqa: N815  the server's name
    taskSessionTimeout: int | None = None  # noqa: N815  the server's name
    isManuallyTriggered: bool | None = None  # noqa: N815  the server's name


class _NewTaskBundle(msgspec.Struct):
    task: _NewTask


class Repository:
    """Answers requests whose path begins with ``/qrs/``, for a signed-in user."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.answer_form = "value"
        """Of start/synchronous: ``"value"`` for {"value": id}, ``"string"`` for a bare string."""
        self.old_script_log = True
        """Whether the script log endpoint from before May 2025 is there."""
        self.new_script_log = True
        self.log_file_form = "value"
        """Of the newer endpoint's answer: ``"value"`` for {"value": id}, ``"string"`` for a JSON
        string, ``"text"`` for the bare id."""
        self.takes_time_filters = True
        """Whether filters may compare times; if not, the answer is 400."""
        self.hidden_kinds: set[TaskKind] = set()
        """Kinds of tasks whose lists are answered with 403."""
        self.hidden_tasks: set[str] = set()
        """Ids of tasks that lists of tasks do not have."""
        self.shows_all_tasks = True
        """Whether the list of tasks of all kinds is there, or answered with 403."""
        self.hidden_events: set[str] = set()
        """Kinds of events (the site's own triggers) whose lists are answered with 403."""
        self.filters_by_kind = True
        """Whether lists can be filtered by ``taskType``, or answer such a filter with 400."""
        self.build_version = "31.5.3.0"
        routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", "/qrs/about", self._about),
            ("GET", "/qrs/about/api/enums", self._enums),
            ("GET", "/qrs/ssl/ping", self._ping),
            ("POST", f"/qrs/task/{_GUID}/start/synchronous", self._start),
            ("POST", f"/qrs/task/{_GUID}/start", self._start_without_id),
            ("POST", f"/qrs/task/{_GUID}/stop", self._stop),
            ("POST", "/qrs/task/start/synchronous", self._start_by_name),
            ("POST", "/qrs/task/start", self._start_by_name_without_id),
            ("POST", "/qrs/task/start/many", self._start_many),
            ("POST", "/qrs/task/stop/many", self._stop_many),
            ("POST", "/qrs/reloadtask/create", self._create_task),
            ("POST", f"/qrs/app/{_GUID}/reload", self._reload_app),
            ("GET", f"/qrs/{_LISTED}", self._condensed_list),
            ("GET", f"/qrs/{_LISTED}/full", self._full_list),
            ("GET", f"/qrs/{_LISTED}/count", self._count),
            ("GET", f"/qrs/{_SINGLE}/{_GUID}", self._single),
            ("GET", f"/qrs/reloadtask/{_GUID}/scriptlog", self._log_reference),
            ("GET", f"/qrs/reloadtask/{_GUID}/scriptlogfile", self._log_file),
            ("GET", f"/qrs/download/reloadtask/{_GUID}/[^/]+", self._log_download),
        ]
        self._routes = [
            (method, re.compile(path, re.IGNORECASE), respond) for method, path, respond in routes
        ]

    def answer(self, request: Request, *, with_rights: bool = True) -> Answer:
        """Answer a request of a user, who sees nothing and may do nothing without rights."""
        for method, pattern, respond in self._routes:
            match = pattern.fullmatch(request.path)
            if match is not None and method == request.method:
                if not with_rights and respond != self._about:
                    return self._without_rights(request, respond)
                with self.site.lock:
                    try:
                        return respond(request, *match.groups())
                    except _ForbiddenError:
                        return text_answer("Forbidden", 403)
        return text_answer(NO_ENDPOINT, 404)

    def _without_rights(self, request: Request, respond: Callable[..., Answer]) -> Answer:
        """As if the site were empty (docs/qlik.md: lists do not have what the user may not see)."""
        if respond in (self._condensed_list, self._full_list):
            return json_answer([])
        if respond == self._count:
            return json_answer({"value": 0})
        if respond in (self._start_by_name, self._start_by_name_without_id):
            return text_answer(f"{_NO_NAME}: {request.query.get('name', '')}", 400)
        return text_answer("Forbidden", 403)

    def named_by(self, request: Request) -> list[str]:
        """The ids (lower case) of the known tasks that a start POST names, each once."""
        with self.site.lock:
            named = [part.lower() for part in request.path.split("/")]
            named += [each.id.lower() for each in self._tasks_named(request.query.get("name", ""))]
            if request.path.lower().endswith("/start/many"):
                named += [each.lower() for each in _ids_in(request.body) or ()]
            return list(dict.fromkeys(each for each in named if each in self.site.tasks))

    # --- about ---------------------------------------------------------------------------------

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

    def _ping(self, _request: Request) -> Answer:
        return text_answer("Ping successful", 200)

    def _enums(self, _request: Request) -> Answer:
        return json_answer(
            {
                "StatusEnum": {
                    "values": [f"{number}: {name}" for number, name in enumerate(STATUS_ENUM)],
                    "usages": ["ExecutionResult.Status", "ExecutionResultCondensed.Status"],
                },
                "TaskTypeEnum": {
                    "values": [f"{number}: {name}" for number, name in enumerate(TASK_TYPE_ENUM)],
                    "usages": ["Task.TaskType", "ReloadTask.TaskType"],
                },
            }
        )

    # --- starting and stopping -----------------------------------------------------------------

    def _start(self, _request: Request, task_id: str) -> Answer:
        execution_id = self.site.start(task_id)
        if execution_id is None:
            return text_answer(_NO_TASK, 404)
        value = execution_id if self.answer_form == "string" else {"value": execution_id}
        return json_answer(value, 201)

    def _start_without_id(self, _request: Request, task_id: str) -> Answer:
        if self.site.start(task_id) is None:
            return text_answer(_NO_TASK, 404)
        return Answer(204)

    def _start_by_name(self, request: Request) -> Answer:
        return self._by_name(request, self._start)

    def _start_by_name_without_id(self, request: Request) -> Answer:
        return self._by_name(request, self._start_without_id)

    def _by_name(self, request: Request, start: Callable[[Request, str], Answer]) -> Answer:
        name = request.query.get("name", "")
        found = self._tasks_named(name)
        if not found:
            return text_answer(f"{_NO_NAME}: {name}", 400)
        if len(found) > 1:
            return text_answer(f"More than one task has the following name: {name}", 400)
        return start(request, found[0].id)

    def _tasks_named(self, name: str) -> list[SimulatedTask]:
        return [task for task in self.site.tasks.values() if task.name == name]

    def _start_many(self, request: Request) -> Answer:
        return self._many(request, self.site.start)

    def _stop_many(self, request: Request) -> Answer:
        return self._many(request, self.site.stop)

    @staticmethod
    def _many(request: Request, act: Callable[[str], object]) -> Answer:
        """Act on each id of the body; ids that are unknown are not reported."""
        ids = _ids_in(request.body)
        if ids is None:
            return text_answer("The body is not a list of ids", 400)
        for task_id in ids:
            act(task_id)
        return Answer(204)

    def _stop(self, _request: Request, task_id: str) -> Answer:
        if task_id.lower() not in self.site.tasks:
            return text_answer("Not found", 404)
        self.site.stop(task_id)
        return Answer(204)

    def _reload_app(self, _request: Request, app_id: str) -> Answer:
        """Start the app's task for reloads by hand, which is created at its first reload."""
        apps = self._apps()
        if app_id.lower() not in apps:
            return text_answer("Not found", 404)
        name = f"Manually triggered reload of {apps[app_id.lower()]}"
        for task in self._tasks_named(name):
            if task.app_id.lower() == app_id.lower():
                break
        else:
            if len(self.site.tasks) >= _TASKS_LIMIT:
                return text_answer(f"The simulated site has {_TASKS_LIMIT} tasks already", 400)
            task = self.site.add_task(
                SimulatedTask(
                    name,
                    app_id=app_id.lower(),
                    app_name=apps[app_id.lower()],
                    duration_s=self.site.app_duration_s,
                    manually_triggered=True,
                )
            )
        self.site.start(task.id)
        return Answer(204)

    def _create_task(self, request: Request) -> Answer:
        try:
            wanted = msgspec.json.decode(request.body, type=_NewTaskBundle).task
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return text_answer(f"The body is not a task: {error}", 400)
        app_name = self._apps().get(wanted.app.id.lower())
        if app_name is None:
            return text_answer("The task's app does not exist", 400)
        if len(self.site.tasks) >= _TASKS_LIMIT:
            return text_answer(f"The simulated site has {_TASKS_LIMIT} tasks already", 400)
        task = SimulatedTask(wanted.name, app_id=wanted.app.id.lower(), app_name=app_name)
        task.enabled = wanted.enabled is not False
        task.max_retries = wanted.maxRetries or 0
        task.timeout_min = wanted.taskSessionTimeout or task.timeout_min
        task.manually_triggered = bool(wanted.isManuallyTriggered)
        return json_answer(task_row(self.site, self.site.add_task(task)), 201)

    # --- looking up ----------------------------------------------------------------------------

    def _condensed_list(self, request: Request, entity: str) -> Answer:
        short = entity.lower() if entity.lower() not in _KINDS else "task"
        return self._listed(request, entity, lambda row: condensed(short, row))

    def _full_list(self, request: Request, entity: str) -> Answer:
        if entity.lower() != "executionresult":
            return self._listed(request, entity, lambda row: row)
        attempts = {
            attempt.result_id: attempt for run in self.site.runs() for attempt in run.attempts
        }
        return self._listed(
            request, entity, lambda row: row | {"details": details(attempts[str(row["id"])])}
        )

    def _listed(self, request: Request, entity: str, shown: Callable[[Row], Row]) -> Answer:
        wanted = request.query.get("filter", "")
        is_refused = (not self.takes_time_filters and "Time " in wanted) or (
            not self.filters_by_kind and "tasktype" in wanted.lower()
        )
        if is_refused:
            return text_answer("Cannot parse the expression", 400)
        try:
            rows = _selected(request, self._rows(entity))
        except FilterError as error:
            return text_answer(str(error), 400)
        return json_answer([shown(row) for row in rows])

    def _count(self, request: Request, entity: str) -> Answer:
        try:
            return json_answer({"value": len(_selected(request, self._rows(entity)))})
        except FilterError as error:
            return text_answer(str(error), 400)

    def _single(self, _request: Request, entity: str, wanted: str) -> Answer:
        rows = self._rows(entity)
        if entity.lower() == "reloadtask":
            # Distribute and preload tasks are read here too, one by one (docs/qlik.md).
            rows += [
                task_row(self.site, task)
                for task in self.site.tasks.values()
                if task.kind in (TaskKind.DISTRIBUTE, TaskKind.PRELOAD)
            ]
        for row in rows:
            if str(row["id"]).lower() == wanted.lower():
                if entity.lower() == "executionresult":
                    attempts = (each for run in self.site.runs() for each in run.attempts)
                    row["details"] = next(
                        details(each) for each in attempts if each.result_id == row["id"]
                    )
                return json_answer(row)
        return text_answer("Not found", 404)

    def _rows(self, entity: str) -> list[Row]:
        """Every row of an entity, execution results without their details.

        Raises:
            _ForbiddenError: the user may not see tasks of this kind.
        """
        tasks = [one for one in self.site.tasks.values() if one.id not in self.hidden_tasks]
        match entity.lower():
            case "task":
                if not self.shows_all_tasks:
                    raise _ForbiddenError
                # The base entity of all kinds has no app (docs/qlik.md).
                rows = [task_row(self.site, task) for task in tasks]
                for row in rows:
                    row.pop("app", None)
                return rows
            case "executionsession":
                return [session_row(run) for run in self.site.sessions()]
            case "executionresult":
                return [
                    result_row(run, attempt) for run in self.site.runs() for attempt in run.attempts
                ]
            case "app":
                owners = {app_id: self.site.owner_of(app_id) for app_id in self._apps()}
                return [app_row(id_, name, owners[id_]) for id_, name in self._apps().items()]
            case "schemaevent" | "compositeevent":
                return self._events(entity.lower())
            case "user":
                return [user_row(user) for user in self.site.users.values()]
        kind = _KINDS[entity.lower()]
        if kind in self.hidden_kinds:
            raise _ForbiddenError
        return [task_row(self.site, task) for task in tasks if task.kind is kind]

    def _events(self, entity: str) -> list[Row]:
        if entity in self.hidden_events:
            raise _ForbiddenError
        if entity == "compositeevent":
            return [chain_row(self.site, one) for one in self.site.chains]
        self.site.advance()  # a schedule that is new knows its next time from then on
        return [schedule_row(one) for one in self.site.tasks.values() if one.every_s is not None]

    def _apps(self) -> dict[str, str]:
        """Names of the apps, by id (lower case)."""
        return self.site.apps | {
            task.app_id.lower(): task.app_name for task in self.site.tasks.values() if task.app_id
        }

    # --- script logs ---------------------------------------------------------------------------

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
        return _reference(found, self.log_file_form)

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
                    text = "".join(f"{line}\r\n" for line in script_log(run, attempt))
                    return Answer(200, text.encode(), "text/plain;charset=utf-8")
        return text_answer("Not found", 404)


def _ids_in(body: bytes) -> list[str] | None:
    """The list of ids of a body; ``None`` if it is something else."""
    try:
        return msgspec.json.decode(body, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _selected(request: Request, rows: Sequence[Row]) -> list[Row]:
    """The rows that pass a request's ``filter``, in the order of its ``orderby``.

    Raises:
        FilterError: the filter can't be parsed.
    """
    wanted = request.query.get("filter", "")
    kept = list(rows)
    if wanted.strip():
        test = parse(wanted)
        kept = [row for row in kept if test(row)]
    for part in reversed(unquote(request.query.get("orderby", "")).split(",")):
        name, _, direction = part.strip().partition(" ")
        if name:
            descending = direction.strip().lower() == "desc"
            kept.sort(key=sort_key(name), reverse=descending)
    return kept


def _reference(found: tuple[Run, Attempt] | None, form: str = "value") -> Answer:
    if found is None or found[1].file_reference == ZERO_ID:
        return text_answer("Not found", 404)
    reference = found[1].file_reference
    if form == "text":
        return text_answer(reference, 200)
    return json_answer(reference if form == "string" else {"value": reference})
