"""``/v4/reloadtask/{id}/start``: start tasks by id, tag, custom property.

The tasks are looked up in the server's list, and all starts are taken in one change: they are on
the disk when the answer comes, and followed to their outcomes. ``start_body`` reads the request.

Not for: when a start goes (appliance/tasks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.config.tables import AllowConfig
from appliance.http_api.butler import key_values
from appliance.http_api.butler.errors import ButlerError, answer
from appliance.http_api.butler.fields import body_of, boolean_of, query_of
from appliance.http_api.butler.openapi import call
from appliance.http_api.butler.routing import ButlerRoute
from appliance.http_api.butler.start_body import TYPES, Id, Item, Property, Tag, read_items
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.key_values import Pair
from appliance.model import Cause, Task
from appliance.tasks.catalog import FRESH_S, RETRY_FRESH_S
from appliance.tasks.engine import TaskEngine
from appliance.tasks.selector import TaskSelector, task_id
from appliance.tasks.triggers import Options

_PATH = "/v4/reloadtask/{taskId}/start"
_ONLY_BODY = "-"
_STARTED = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"taskId": {"type": "string"}, "taskName": {"type": "string"}},
    },
}
_IDS = {"type": "array", "items": {"type": "object"}}
_CALL = call(
    "Start tasks. Path id `-`: only those of the body.",
    {
        "type": "object",
        "properties": {
            "tasksId": {
                "type": "object",
                "properties": {"started": _STARTED, "invalid": _IDS, "denied": _IDS},
            },
            "tasksTag": _STARTED,
            "tasksTagDenied": _IDS,
            "tasksCP": _STARTED,
            "tasksCPDenied": _IDS,
        },
    },
    path=_PATH,
    optional_query={"allTaskIdsMustExist": {"type": "boolean"}},
    body={
        "type": "array",
        "items": {
            "type": "object",
            "required": ["type", "payload"],
            "properties": {
                "type": {"type": "string", "enum": list(TYPES)},
                "payload": {"type": "object"},
            },
        },
    },
)
OPENAPI: dict[str, object] = {_PATH: {"put": _CALL, "post": _CALL}}


class Answer(msgspec.Struct):
    """What came of each item, in the order of Butler's answer."""

    started: list[Task] = []
    invalid: list[dict[str, object]] = []
    denied: list[dict[str, object]] = []
    by_tag: list[Task] = []
    tags_denied: list[dict[str, object]] = []
    by_property: list[Task] = []
    properties_denied: list[dict[str, object]] = []

    @property
    def tasks(self) -> list[Task]:
        """All that are to be started."""
        return [*self.started, *self.by_tag, *self.by_property]

    def must_all_exist(self) -> None:
        """If an id is invalid, none of the others is started."""
        if self.invalid:
            self.denied += [{"taskId": task.id} for task in self.started]
            self.started = []

    def body(self) -> dict[str, object]:
        """As Butler has it."""
        return {
            "tasksId": {
                "started": _named(self.started),
                "invalid": self.invalid,
                "denied": self.denied,
            },
            "tasksTag": _named(self.by_tag),
            "tasksTagDenied": self.tags_denied,
            "tasksCP": _named(self.by_property),
            "tasksCPDenied": self.properties_denied,
        }


def _named(tasks: Sequence[Task]) -> list[dict[str, object]]:
    return [{"taskId": task.id, "taskName": task.name} for task in tasks]


class Lookup:
    """Finds the tasks of items. The server's filters ignore upper and lower case, and so does it.

    The list is read again once if something is not in it: it may be new. Where the server can't be
    asked, the list is the one that was read last. For a worker thread.
    """

    def __init__(self, engine: TaskEngine, caller: Caller, allow: AllowConfig) -> None:
        self._engine = engine
        self._caller = caller
        self._allow = allow
        self._tasks = engine.listed(FRESH_S)
        self._is_renewed = False

    def sort(self, items: Sequence[Item], found: Answer) -> None:
        """Find out what becomes of each item."""
        for item in items:
            match item:
                case Id():
                    self._sort_id(item, found)
                case Tag(tag):
                    tasks = self._all(partial(_has_tag, tag))
                    if self._may_start_all(tasks, is_listed=tag in self._allow.tags):
                        found.by_tag += tasks
                    else:
                        found.tags_denied.append({"tag": tag})
                case Property(name, value):
                    tasks = self._all(partial(_has_property, item))
                    listed = {(one.property, one.value) for one in self._allow.properties}
                    if self._may_start_all(tasks, is_listed=(name, value) in listed):
                        found.by_property += tasks
                    else:
                        found.properties_denied.append({"name": name, "value": value})

    def _sort_id(self, item: Id, found: Answer) -> None:
        number = task_id(item.value) if isinstance(item.value, str) else None
        shown = {} if item.value is msgspec.UNSET else {"taskId": item.value}
        if number is None:
            found.invalid.append(shown)
            return
        task = next(iter(self._all(lambda task: task.id == number)), None)
        if not self._may_start(number, task):
            found.denied.append(shown)
        elif task is None:
            found.invalid.append(shown)
        else:
            found.started.append(task)

    def _may_start(self, number: str, task: Task | None) -> bool:
        name = "" if task is None else task.name
        return self._engine.allows(number, task) and self._caller.may_start(number, name)

    def _may_start_all(self, tasks: Sequence[Task], *, is_listed: bool) -> bool:
        """Whether all tasks of a tag or custom property may be started; one that may not holds all.

        Where there are none, the tag itself is looked for in ``[allow]``.
        """
        if tasks:
            return all(self._may_start(task.id, task) for task in tasks)
        return is_listed or self._engine.allows("", None)

    def _all(self, is_meant: Callable[[Task], bool]) -> list[Task]:
        tasks = [task for task in self._tasks if is_meant(task)]
        if not tasks and not self._is_renewed:
            self._is_renewed = True
            self._tasks = self._engine.listed(RETRY_FRESH_S)
            tasks = [task for task in self._tasks if is_meant(task)]
        return tasks


def _is(text: str, wanted: str) -> bool:
    return text.casefold() == wanted.casefold()


def _has_tag(tag: str, task: Task) -> bool:
    return any(_is(each, tag) for each in task.tags)


def _has_property(item: Property, task: Task) -> bool:
    """Name and value belong together, which the server's filter does not ask for."""
    return any(_is(name, item.name) and _is(value, item.value) for name, value in task.properties)


def cause_of(caller: Caller) -> Cause:
    """The cause of a start."""
    return Cause("http", rule=f"{caller.username or caller.address} (Butler call)")


def start_all(engine: TaskEngine, tasks: Sequence[Task], cause: Cause) -> None:
    """Start all of these, each once, or none.

    Raises:
        UnavailableError: too many requests wait, or the task database can't be written.
    """
    starts = dict.fromkeys((TaskSelector("id", task.id), Options()) for task in tasks)
    if starts:
        engine.starts.take(tuple(starts), cause)


def routes(context: Context) -> list[Route]:
    """The routes."""

    async def start(request: Request) -> Response:
        caller = await caller_of(request)
        items = read_items(await body_of(request))
        wanted = query_of(request, "allTaskIdsMustExist", "boolean")
        must_exist = wanted is not None and boolean_of(wanted, "querystring/allTaskIdsMustExist")
        in_path = request.path_params["taskId"]
        if not in_path:
            raise ButlerError(400, 'The task id is missing; "-" stands for none.')
        if in_path != _ONLY_BODY:
            items.insert(0, Id(in_path))
        pairs = [item for item in items if isinstance(item, Pair)]
        if pairs:
            key_values.may_use(caller, changes=True)
            await key_values.store(context, pairs)
        tasks = context.appliance.tasks

        def work() -> dict[str, object]:
            found = Answer()
            Lookup(tasks, caller, context.config.allow).sort(items, found)
            if must_exist:
                found.must_all_exist()
            start_all(tasks, found.tasks, cause_of(caller))
            return found.body()

        return answer(await context.in_worker(work))

    return [ButlerRoute(_PATH, start, methods=["PUT", "POST"])]
