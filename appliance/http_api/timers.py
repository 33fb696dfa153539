"""``/timers``: list, fire, pause and resume timers.

Not for: Butler's calls for them (butler/schedules.py), waits of requests, which executions show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.broker.access import Role
from appliance.engine_api import TimerState
from appliance.errors import UsageError
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.http_api.described import answer
from appliance.http_api.problem import ProblemError
from appliance.http_api.query import parameters
from appliance.tasks.outcomes import time_text

_KINDS = ("schedule", "silence")
_TIMER = {
    "type": "object",
    "required": ["name", "kind", "detail", "paused", "due", "silentSince"],
    "properties": {
        "name": {"type": "string"},
        "kind": {"type": "string", "enum": list(_KINDS)},
        "detail": {"type": "string", "description": "When it fires, in words."},
        "paused": {"type": "boolean"},
        "due": {"type": ["string", "null"], "description": "When it fires next."},
        "silentSince": {
            "type": ["string", "null"],
            "description": "Of a silence watch whose alarm is raised: when the last message came.",
        },
    },
}
_LIST = {
    "type": "object",
    "required": ["timers"],
    "properties": {"timers": {"type": "array", "items": _TIMER}},
}


def _call(summary: str, schema: dict[str, Any], *, has_name: bool) -> dict[str, Any]:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    answers: dict[str, Any] = {
        "200": {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    }
    if has_name:
        answers["404"] = {"description": "There is no such timer."}
        answers["409"] = {"description": "The alarm of this silence watch is raised already."}
    found = {"summary": summary, "tags": ["timers"], "responses": answers}
    return {**found, "parameters": [name]} if has_name else found


OPENAPI: dict[str, Any] = {
    "/timers": {"get": _call("The timers.", _LIST, has_name=False)},
    "/timers/{name}/fire": {
        "post": _call("Do now what a timer does at its time.", _TIMER, has_name=True)
    },
    "/timers/{name}/pause": {"post": _call("Pause a timer.", _TIMER, has_name=True)},
    "/timers/{name}/resume": {"post": _call("Let a timer go on.", _TIMER, has_name=True)},
}


def _json(timer: TimerState) -> dict[str, object]:
    return {
        "name": timer.name,
        "kind": timer.kind,
        "detail": timer.detail,
        "paused": timer.paused,
        "due": time_text(timer.due_ns),
        "silentSince": time_text(timer.silent_since_ns),
    }


class Timers:
    """The calls."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def _all(self) -> list[TimerState]:
        return [one for one in self._context.appliance.tasks.timers() if one.kind in _KINDS]

    def _named(self, name: str) -> TimerState:
        for one in self._all():
            if one.name == name:
                return one
        raise ProblemError(404, f"There is no timer {name!r}.")

    async def list(self, request: Request) -> Response:
        """``GET /timers``, in the order of the configuration."""
        caller = await caller_of(request)
        parameters(request, ())
        if caller.role is None and self._context.config.access.rule:
            raise ProblemError(403, "Only operators and viewers may see timers: [access] viewers.")
        return answer({"timers": [_json(one) for one in self._all()]})

    async def fire(self, request: Request) -> Response:
        """``POST /timers/{name}/fire``: do now what the timer would do; its schedule stays."""
        caller, name = await self._asked(request)
        view = self._context.view
        return await self._done(name, lambda: view.fire_timer(name, _by(caller)))

    async def pause(self, request: Request) -> Response:
        """``POST /timers/{name}/pause``, over restarts."""
        return await self._set(request, paused=True)

    async def resume(self, request: Request) -> Response:
        """``POST /timers/{name}/resume``: the times that passed are not made up."""
        return await self._set(request, paused=False)

    async def _set(self, request: Request, *, paused: bool) -> Response:
        caller, name = await self._asked(request)
        view = self._context.view
        return await self._done(name, lambda: view.pause_timer(name, paused, _by(caller)))

    async def _asked(self, request: Request) -> tuple[Caller, str]:
        caller = await caller_of(request)
        parameters(request, ())
        if caller.role is not Role.OPERATOR:
            raise ProblemError(403, "Only operators may act on timers: [access] operators.")
        return caller, self._named(request.path_params["name"]).name

    async def _done(self, name: str, work: Callable[[], None]) -> Response:
        try:
            await self._context.in_worker(work)
        except UsageError as error:
            raise ProblemError(409, str(error)) from None
        return answer(_json(self._named(name)))


def _by(caller: Caller) -> str:
    return f"HTTP user {caller.username or caller.address}"


def routes(context: Context) -> list[Route]:
    """The routes."""
    timers = Timers(context)
    return [
        Route("/timers", timers.list, methods=["GET"]),
        Route("/timers/{name:path}/fire", timers.fire, methods=["POST"]),
        Route("/timers/{name:path}/pause", timers.pause, methods=["POST"]),
        Route("/timers/{name:path}/resume", timers.resume, methods=["POST"]),
    ]
