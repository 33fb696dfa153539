"""``GET /tasks``: the server's tasks that a user may see, and what the appliance knows of them.

Not for: starting them (starting.py), their executions (executions.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.errors import UnavailableError
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.http_api.described import answer, task_json
from appliance.http_api.executions import Executions
from appliance.http_api.problem import ProblemError
from appliance.http_api.query import further, parameters, some_of, whole_number
from appliance.http_api.server_calls import ServerCalls
from appliance.http_api.starting import Starting, refused, unavailable
from appliance.http_api.task_openapi import OPENAPI
from appliance.http_api.waiting import Waits
from appliance.model import ExecutionState, Task
from appliance.qlik.server import QlikError
from appliance.tasks.direct_starts import NotStartedError
from appliance.tasks.overview import KnownTask
from appliance.tasks.task_index import close_name, folded

__all__ = ["OPENAPI", "routes"]
LIMIT = 1000
LARGEST_LIMIT = 10_000


class Tasks:
    """The calls that list tasks."""

    def __init__(self, context: Context, calls: ServerCalls) -> None:
        self._context = context
        self._calls = calls

    async def list(self, request: Request) -> Response:
        """``GET /tasks``, by name."""
        caller = await caller_of(request)
        asked = parameters(request, ("name", "tag", "state", "limit", "offset"))
        limit = whole_number(asked, "limit", LIMIT, 1, LARGEST_LIMIT)
        offset = whole_number(asked, "offset", 0, 0, 10**9)
        states = some_of(asked, "state", ExecutionState)
        tasks = [one for one in await self._seen(caller) if _fits(one, asked)]
        tasks.sort(key=lambda one: (one.name.casefold(), one.id))
        if not states:
            known = await self._known(tasks[offset : offset + limit])
            count = len(tasks)
        else:
            fitting = [
                one
                for one in await self._known(tasks)
                if one.newest is not None and one.newest.state in states
            ]
            known, count = fitting[offset : offset + limit], len(fitting)
        has_more = offset + limit < count
        return answer(
            {
                "tasks": [task_json(one) for one in known],
                "count": count,
                "next": further(request, asked, offset=offset + limit) if has_more else None,
            }
        )

    async def one(self, request: Request) -> Response:
        """``GET /tasks/{id or name}``."""
        caller = await caller_of(request)
        parameters(request, ())
        text = request.path_params["task"]
        tasks = await self._seen(caller)
        found = [one for one in tasks if one.id == text.lower()]
        found = found or [one for one in tasks if one.name == text]
        found = found or [one for one in tasks if folded(one.name) == folded(text)]
        if not found:
            close = close_name(text, (one.name for one in tasks))
            hint = f' Is "{close}" meant?' if close else ""
            raise ProblemError(
                404, f"The server lists no task {text!r} that this user may see.{hint}"
            )
        if len(found) > 1:
            raise refused(
                NotStartedError(
                    "ambiguous", f"{len(found)} tasks have this name; use the id.", tasks=found
                )
            )
        return answer(task_json((await self._known(found))[0]))

    async def _seen(self, caller: Caller) -> Sequence[Task]:
        """The tasks that the caller may see, from a list of a minute's age at most."""
        engine = self._context.appliance.tasks
        try:
            if engine.has_fresh_list:
                tasks = engine.tasks()
            else:
                tasks = await self._calls.ask(engine.tasks)
        except UnavailableError as error:
            raise unavailable(error) from None
        except QlikError as error:
            raise ProblemError(
                503, f"The Qlik server can't be asked: {error}", headers={"Retry-After": "10"}
            ) from None
        return [one for one in tasks if caller.may_see(one.id, one.name)]

    async def _known(self, tasks: Sequence[Task]) -> Sequence[KnownTask]:
        return await self._context.in_worker(lambda: self._context.appliance.tasks.overview(tasks))


def _fits(task: Task, asked: dict[str, str]) -> bool:
    name, tag = asked.get("name"), asked.get("tag")
    return (name is None or name.casefold() in task.name.casefold()) and (
        tag is None or tag in task.tags
    )


def routes(context: Context) -> list[Route]:
    """The routes."""
    waits, calls = Waits(context), ServerCalls()
    starting, tasks = Starting(context, waits, calls), Tasks(context, calls)
    return [
        Route("/tasks", tasks.list, methods=["GET"]),
        Route("/tasks/start", starting.several, methods=["POST"]),
        Route("/tasks/{task:path}/start", starting.one, methods=["POST"]),
        Route("/tasks/{task:path}", tasks.one, methods=["GET"]),
        *Executions(context, waits, calls).routes(),
    ]
