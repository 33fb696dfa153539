"""``/executions``: what became of starts, of whoever asked for them; their end waited for, stopped.

Not for: starting (starting.py).
"""

from __future__ import annotations

import contextlib
import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.broker.access import Role
from appliance.errors import UnavailableError, UsageError
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.http_api.described import answer, execution_json
from appliance.http_api.problem import ProblemError
from appliance.http_api.query import further, parameters, some_of, wait_s, whole_number
from appliance.http_api.server_calls import ServerCalls
from appliance.http_api.starting import asker, unavailable
from appliance.http_api.waiting import Waits
from appliance.model import LARGEST_SEQ, Execution, ExecutionState
from appliance.qlik.server import QlikError

logger = logging.getLogger("appliance.operator")

LIMIT = 100
LARGEST_LIMIT = 1000
_STEP = 200
"""Executions that are read at a time."""
_LOOKED_AT = 5000
"""Executions that one answer looks through; its ``next`` goes on behind them."""


class Executions:
    """The calls about executions."""

    def __init__(self, context: Context, waits: Waits, calls: ServerCalls) -> None:
        self._context = context
        self._waits = waits
        self._calls = calls

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/executions", self.list, methods=["GET"]),
            Route("/executions/{number}", self.one, methods=["GET"]),
            Route("/executions/{number}/log", self.log, methods=["GET"]),
            Route("/executions/{number}/stop", self.stop, methods=["POST"]),
        ]

    async def one(self, request: Request) -> Response:
        """``GET /executions/{number}``; with ``wait``, once it has ended."""
        caller = await caller_of(request)
        seconds = wait_s(parameters(request, ("wait",)))
        found = await self._visible(request, caller)
        if seconds:
            outcomes = await self._waits.outcomes([found.id], seconds)
            found = outcomes[0] if outcomes else found
        return answer(execution_json(found))

    async def log(self, request: Request) -> Response:
        """``GET /executions/{number}/log``: the script log of a run that failed, or its end."""
        caller = await caller_of(request)
        parameters(request, ())
        found = await self._visible(request, caller)
        if not found.log_tail:
            why = found.log_problem or "The end of the script log is fetched when a run fails."
            raise ProblemError(404, f"There is no script log of execution {found.id}. {why}")
        tail = ("\n".join(found.log_tail) + "\n").encode(errors="replace")
        tasks = self._context.appliance.tasks

        def whole() -> bytes:
            path = tasks.kept_log(found)
            # It may be deleted meanwhile.
            with contextlib.suppress(OSError):
                return tail if path is None else path.read_bytes()
            return tail

        return Response(
            await self._context.in_worker(whole),
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
            media_type="text/plain; charset=utf-8",
        )

    async def stop(self, request: Request) -> Response:
        """``POST /executions/{number}/stop``: end a run, or take back a request."""
        caller = await caller_of(request)
        parameters(request, ())
        if caller.role is not Role.OPERATOR:
            raise ProblemError(403, "Only operators may stop executions: [access] operators.")
        found = await self._visible(request, caller)
        by = f"HTTP user {asker(caller)}"
        logger.info("%s asks to stop execution %d", by, found.id)
        tasks = self._context.appliance.tasks
        try:
            await self._calls.ask(lambda: tasks.stop_execution(found.id, by))
        except UsageError as error:
            raise ProblemError(409, str(error)) from None
        except UnavailableError as error:
            raise unavailable(error) from None
        except QlikError as error:
            raise ProblemError(502, f"The Qlik server did not stop it: {error}") from None
        present = await self._waits.present([found.id])
        return answer(execution_json(present[0] if present else found), 202)

    async def list(self, request: Request) -> Response:
        """``GET /executions``, the newest first."""
        caller = await caller_of(request)
        asked = parameters(request, ("task", "state", "before", "limit"))
        limit = whole_number(asked, "limit", LIMIT, 1, LARGEST_LIMIT)
        before = whole_number(asked, "before", LARGEST_SEQ, 1, LARGEST_SEQ)
        states = some_of(asked, "state", ExecutionState)
        task = asked.get("task", "").casefold()
        history = self._context.appliance.tasks.history

        def fits(one: Execution) -> bool:
            return (
                (not states or one.state in states)
                and (not task or task in (one.task_id, one.task_name.casefold()))
                and _may_see(caller, one)
            )

        def read() -> tuple[list[Execution], int]:
            found: list[Execution] = []
            reached = before
            for _ in range(_LOOKED_AT // _STEP):
                step = history(reached, _STEP)
                for one in step:
                    if len(found) == limit:
                        return found, reached
                    reached = one.id
                    if fits(one):
                        found.append(one)
                if len(step) < _STEP:
                    return found, 0
            return found, reached

        executions, reached = await self._waits.read(read)
        return answer(
            {
                "executions": [execution_json(one) for one in executions],
                "next": further(request, asked, before=reached) if reached else None,
            }
        )

    async def _visible(self, request: Request, caller: Caller) -> Execution:
        """The execution of the path. Raises ``ProblemError``: 404."""
        text = request.path_params["number"]
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
        found = await self._waits.present([number]) if number else []
        if not found or not _may_see(caller, found[0]):
            raise ProblemError(404, f"There is no execution {text}, or it is not kept any more.")
        return found[0]


def _may_see(caller: Caller, execution: Execution) -> bool:
    """Whether a caller may see an execution: those of its tasks, and its own."""
    cause = execution.cause
    is_own = cause.kind == "http" and caller.username is not None and cause.rule == caller.username
    return is_own or caller.may_see(execution.task_id, execution.task_name)
