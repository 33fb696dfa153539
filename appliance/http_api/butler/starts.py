"""``/v4/reloadtask/{id}/start``: start tasks by id, tag, custom property.

The tasks are looked up in the server's list, and all starts are taken in one change: they are on
the disk when the answer comes, and followed to their outcomes.

Not for: reading the body (start_body.py), when a start goes (appliance/tasks).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.config.tables import AllowConfig
from appliance.errors import UnavailableError
from appliance.http_api.butler import key_values
from appliance.http_api.butler.errors import ButlerError, answer
from appliance.http_api.butler.fields import body_of, boolean_of, query_of
from appliance.http_api.butler.openapi import call
from appliance.http_api.butler.routing import ButlerRoute
from appliance.http_api.butler.start_body import TYPES, Id, Item, Property, Tag, read_items
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.http_api.idempotency import digest_of, key_of, reused
from appliance.http_api.server_calls import ServerCalls
from appliance.http_api.starting import asker
from appliance.key_values import Pair
from appliance.model import Cause, Task
from appliance.tasks.catalog import FRESH_S, RETRY_FRESH_S
from appliance.tasks.direct_starts import KeyReusedError, Start
from appliance.tasks.engine import TaskEngine
from appliance.tasks.records import Next
from appliance.tasks.selector import TaskSelector, task_id
from appliance.tasks.start_keys import StartKey
from appliance.tasks.triggers import Options

_log = logging.getLogger("appliance.operator")
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
    lacks_some: bool = False
    """Whether the list of tasks has nothing for an item."""

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


class Listed:
    """Tasks of the server by what items name. The server's filters ignore upper and lower case."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.by_id = {task.id: task for task in tasks}
        self.by_tag: dict[str, list[Task]] = {}
        self.by_property: dict[tuple[str, str], list[Task]] = {}
        for task in tasks:
            for tag in dict.fromkeys(tag.casefold() for tag in task.tags):
                self.by_tag.setdefault(tag, []).append(task)
            # Name and value belong together, which the server's filter does not ask for.
            for pair in dict.fromkeys((a.casefold(), b.casefold()) for a, b in task.properties):
                self.by_property.setdefault(pair, []).append(task)


class Sorting:
    """Finds out what becomes of items, by what may be started: ``[allow]``, and by whom."""

    def __init__(self, engine: TaskEngine, caller: Caller, allow: AllowConfig) -> None:
        self._engine = engine
        self._caller = caller
        self._tags = frozenset(allow.tags)
        self._properties = frozenset((one.property, one.value) for one in allow.properties)

    def sort(self, items: Sequence[Item], listed: Listed) -> Answer:
        """What becomes of each item."""
        found = Answer()
        for item in items:
            match item:
                case Id():
                    self._sort_id(item, listed, found)
                case Tag(tag):
                    tasks = listed.by_tag.get(tag.casefold(), [])
                    if self._may_start_all(tasks, found, is_allowed=tag in self._tags):
                        found.by_tag += tasks
                    else:
                        found.tags_denied.append({"tag": tag})
                case Property(name, value):
                    tasks = listed.by_property.get((name.casefold(), value.casefold()), [])
                    is_allowed = (name, value) in self._properties
                    if self._may_start_all(tasks, found, is_allowed=is_allowed):
                        found.by_property += tasks
                    else:
                        found.properties_denied.append({"name": name, "value": value})
        return found

    def _sort_id(self, item: Id, listed: Listed, found: Answer) -> None:
        number = task_id(item.value) if isinstance(item.value, str) else None
        shown = {} if item.value is msgspec.UNSET else {"taskId": item.value}
        if number is None:
            found.invalid.append(shown)
            return
        task = listed.by_id.get(number)
        found.lacks_some = found.lacks_some or task is None
        if not self._may_start(number, task):
            found.denied.append(shown)
        elif task is None:
            found.invalid.append(shown)
        else:
            found.started.append(task)

    def _may_start(self, number: str, task: Task | None) -> bool:
        name = "" if task is None else task.name
        return self._engine.allows(number, task) and self._caller.may_start(number, name)

    def _may_start_all(self, tasks: Sequence[Task], found: Answer, *, is_allowed: bool) -> bool:
        """Whether all tasks of a tag or custom property may be started; one that may not holds all.

        Where there are none, the tag itself is looked for in ``[allow]``.
        """
        if tasks:
            return all(self._may_start(task.id, task) for task in tasks)
        found.lacks_some = True
        return is_allowed or self._engine.allows("", None)


def cause_of(caller: Caller) -> Cause:
    """The cause of a start."""
    return Cause("http", rule=f"{asker(caller)} (Butler call)")


async def listed(calls: ServerCalls, engine: TaskEngine, max_age_s: float) -> Listed:
    """The server's tasks; those that it had last where it can't be asked now."""
    try:
        return Listed(await calls.ask(lambda: engine.listed(max_age_s)))
    except UnavailableError:
        return Listed(engine.cached_tasks())


def routes(context: Context) -> list[Route]:
    """The routes."""
    calls = ServerCalls()

    async def start(request: Request) -> Response:
        caller = await caller_of(request)
        items = read_items(await body_of(request))
        given = query_of(request, "allTaskIdsMustExist", "boolean")
        must_exist = given is not None and boolean_of(given, "querystring/allTaskIdsMustExist")
        in_path = request.path_params["taskId"]
        if not in_path:
            raise ButlerError(400, 'The task id is missing; "-" stands for none.')
        if in_path != _ONLY_BODY:
            items.insert(0, Id(in_path))
        key = await start_key(request, caller)
        # Before anything is stored: a late repeat must not put old values back.
        is_repeat = key is not None and await context.in_worker(lambda: _is_known(context, key))
        pairs = [item for item in items if isinstance(item, Pair)]
        if pairs and not is_repeat:
            key_values.may_use(caller, changes=True)
            await key_values.store(context, pairs)
        engine = context.appliance.tasks
        await context.in_worker(lambda: engine.starts)  # 503 where no server is configured
        sorting = Sorting(engine, caller, context.config.allow)
        found = sorting.sort(items, await listed(calls, engine, FRESH_S))
        if found.lacks_some:  # what the list lacks may be new
            found = sorting.sort(items, await listed(calls, engine, RETRY_FRESH_S))
        if must_exist:
            found.must_all_exist()
        wanted = tuple(
            dict.fromkeys((TaskSelector("id", task.id), Options()) for task in found.tasks)
        )
        if wanted and not is_repeat:
            await take(context, caller, wanted, key)
        return answer(found.body())

    return [ButlerRoute(_PATH, start, methods=["PUT", "POST"])]


async def start_key(request: Request, caller: Caller) -> StartKey | None:
    """The ``Idempotency-Key``, which Butler does not know: a repeat starts nothing again."""
    if (name := key_of(request)) is None:
        return None
    scope = request.scope
    digest = digest_of(scope["raw_path"], scope["query_string"], await request.body())
    return StartKey(caller.username or "", name, digest)


def _is_known(context: Context, key: StartKey) -> bool:
    """Whether a request with this key was carried out; raises ``ProblemError`` (422) if another."""
    try:
        return context.appliance.tasks.starts.taken_before(key) is not None
    except KeyReusedError:
        raise reused() from None


async def take(
    context: Context,
    caller: Caller,
    wanted: Sequence[Start],
    key: StartKey | None,
    next_tasks: Sequence[Next] = (),
) -> None:
    """Start all of these, or none; they are on the disk when this returns.

    Raises:
        ProblemError: 422, the key was used for another request; 503, they can't be taken now.
    """

    def work() -> None:
        cause = cause_of(caller)
        tasks = ", ".join(selector.value for selector, _ in wanted)
        _log.info("%s asks over HTTP to start %s", cause.rule, tasks)
        try:
            context.appliance.tasks.starts.take(wanted, cause, key, next_tasks)
        except KeyReusedError:
            raise reused() from None

    await context.in_worker(work)
