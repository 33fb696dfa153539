"""``/v4/apps/list`` and ``/v4/app/{id}/reload``: the apps of the Qlik server, and their reload.

A reload goes through the engine as any other start: it is on the disk when the answer comes, and is
followed to its outcome.

Not for: which task reloads an app (appliance/tasks/catalog.py).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.errors import ApplianceError, UnavailableError
from appliance.http_api.butler.errors import ButlerError, answer
from appliance.http_api.butler.fields import boolean_of, integer_of, object_of, texts_of
from appliance.http_api.butler.openapi import call
from appliance.http_api.butler.routing import ButlerRoute
from appliance.http_api.butler.starts import start_key, take
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.http_api.server_calls import ServerCalls
from appliance.model import ReloadOptions, Task
from appliance.tasks.direct_starts import NotStartedError
from appliance.tasks.payloads import WantedStart
from appliance.tasks.records import MAX_NEXT, Next
from appliance.tasks.selector import TaskSelector, task_id

_RELOAD = "/v4/app/{appId}/reload"
_LISTS = ("/v4/apps/list", "/v4/senselistapps")
_TEXTS = {"type": "array", "items": {"type": "string"}}
_LIST_CALL = call(
    "The apps of the Qlik server.",
    {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"id": {"type": "string"}, "name": {"type": "string"}},
        },
    },
)
_MODES = (0, 1, 2)
_NEXT = (("startQSEoWTaskOnSuccess", False), ("startQSEoWTaskOnFailure", True))

OPENAPI: dict[str, object] = {
    **{path: {"get": _LIST_CALL} for path in _LISTS},
    _RELOAD: {
        "put": call(
            "Reload an app. The answer comes before the end of the reload.",
            {"type": "object", "properties": {"appId": {"type": "string"}}},
            status=201,
            path=_RELOAD,
            body={
                "type": "object",
                "properties": {
                    "reloadMode": {"type": "integer", "const": 0},
                    "partialReload": {"type": "boolean", "default": False},
                    "startQSEoWTaskOnSuccess": _TEXTS,
                    "startQSEoWTaskOnFailure": _TEXTS,
                },
            },
        )
    },
}


def routes(context: Context) -> list[Route]:
    """The routes."""
    tasks = context.appliance.tasks
    calls = ServerCalls()

    async def apps(request: Request) -> Response:
        caller = await caller_of(request)

        def work() -> list[Task]:
            return [*tasks.apps(), *tasks.tasks()]

        try:
            return answer(_apps(await calls.ask(work), caller))
        except ApplianceError as error:  # of the Qlik server, too
            raise ButlerError(503, str(error)) from None

    async def reload(request: Request) -> Response:
        caller = await caller_of(request)
        body = await object_of(request)
        mode = integer_of(body.get("reloadMode"), "body/reloadMode")
        partial = boolean_of(body.get("partialReload"), "body/partialReload")
        wanted_next = [
            Next(_id_of(task, "Task"), after_failure=is_failure)
            for name, is_failure in _NEXT
            for task in texts_of(body.get(name, []), f"body/{name}")
        ]
        if len(wanted_next) > MAX_NEXT:
            raise ButlerError(400, f"At most {MAX_NEXT} tasks can be started after a reload.")
        if mode in _MODES[1:]:
            raise ButlerError(
                400, "Only reloadMode 0 is offered: the app is reloaded by a task of the server."
            )
        shown = request.path_params["appId"]
        wanted = WantedStart(TaskSelector("app", _id_of(shown, "App")), ReloadOptions(partial))
        after = [WantedStart(TaskSelector("id", one.task_id)) for one in wanted_next]

        try:
            starts = tasks.starts
            await calls.ask(lambda: starts.find(after, caller.may_start))
            found = await calls.ask(lambda: starts.find([wanted], caller.may_start))
        except NotStartedError as error:
            is_denied = error.kind in ("not allowed", "no right")
            raise ButlerError(403 if is_denied else 400, str(error)) from None
        except UnavailableError as error:
            raise ButlerError(503, str(error)) from None
        await take(context, caller, found, await start_key(request, caller), wanted_next)
        return answer({"appId": shown}, 201)

    return [
        *(ButlerRoute(path, apps, methods=["GET"]) for path in _LISTS),
        ButlerRoute(_RELOAD, reload, methods=["PUT"]),
    ]


def _id_of(text: str, what: str) -> str:
    if (found := task_id(text)) is None:
        raise ButlerError(400, f"{what} not found: {text}")
    return found


def _apps(tasks: list[Task], caller: Caller) -> list[dict[str, str]]:
    """Each app once. Operators and viewers see all, others those that they may reload."""
    found = {
        task.app_id.lower(): task.app_name
        for task in tasks
        if task.app_id
        and (caller.may_see(task.id, task.name) or caller.may_see(task.app_id, task.app_name))
    }
    return [{"id": app, "name": name} for app, name in found.items()]
