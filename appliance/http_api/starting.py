"""``POST /tasks/{id or name}/start`` and ``POST /tasks/start``: start tasks, wait for their end.

A start is taken by the same rules as an operator's; the answer comes when it is on disk. What names
one task is taken while the Qlik server does not answer, too: it waits as a message's start does.

Not for: when a start goes (tasks/dispatcher.py), waiting (waiting.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from appliance.errors import NotNotedError, UnavailableError
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.http_api.described import answer, execution_json
from appliance.http_api.idempotency import REPLAYED, digest_of, key_of, reused
from appliance.http_api.problem import ProblemError
from appliance.http_api.query import parameters, wait_s
from appliance.http_api.server_calls import ServerCalls
from appliance.http_api.waiting import Waits
from appliance.model import Cause
from appliance.tasks.direct_starts import (
    KeyReusedError,
    NotStartedError,
    Start,
    Taken,
    read,
)
from appliance.tasks.payloads import WantedStart
from appliance.tasks.selector import task_id
from appliance.tasks.start_keys import StartKey

logger = logging.getLogger("appliance.operator")

T = TypeVar("T")
AGAIN = {"Retry-After": "5"}
_STATUS = {
    "not understood": 400,
    "unknown": 404,
    "ambiguous": 409,
    "not allowed": 403,
    "no right": 403,
}
_RELOAD = frozenset({"partial", "variables"})


class Starting:
    """The calls that start tasks."""

    def __init__(self, context: Context, waits: Waits, calls: ServerCalls) -> None:
        self._context = context
        self._waits = waits
        self._calls = calls

    async def one(self, request: Request) -> Response:
        """Start the task that the path names."""
        caller = await caller_of(request)
        seconds = wait_s(parameters(request, ("wait",)))
        taken = await self._take(request, caller, _payload(request, await request.body()))
        found = await self._waits.outcomes(taken.executions, seconds)
        headers = _headers(taken)
        if not found:
            raise _gone(taken)
        headers["Location"] = f"/executions/{taken.executions[0]}"
        is_over = found[0].state.is_final
        return answer(execution_json(found[0]), 200 if is_over else 202, headers)

    async def several(self, request: Request) -> Response:
        """Start what the body names, in the forms of a message's payload."""
        caller = await caller_of(request)
        seconds = wait_s(parameters(request, ("wait",)))
        taken = await self._take(request, caller, await request.body())
        found = await self._waits.outcomes(taken.executions, seconds)
        if not found:
            raise _gone(taken)
        headers = _headers(taken)
        if len(taken.executions) == 1:
            headers["Location"] = f"/executions/{taken.executions[0]}"
        is_over = all(one.state.is_final for one in found)
        body = {"executions": [execution_json(one) for one in found]}
        return answer(body, 200 if is_over else 202, headers)

    async def _take(self, request: Request, caller: Caller, payload: bytes) -> Taken:
        """Take the starts that a payload names, or find that they were taken before."""
        name = key_of(request)
        key = None
        if name is not None:
            digest = digest_of(request.url.path, payload)
            key = StartKey(caller.username or "", name, digest)
        try:
            taken = await self.take(caller, read(payload), key)
        except NotStartedError as error:
            raise refused(error) from None
        if not taken.is_repeat:
            logger.info(
                "%s asks over HTTP for executions %s",
                asker(caller),
                ", ".join(map(str, taken.executions)),
            )
        return taken

    async def take(
        self, caller: Caller, wanted: Sequence[WantedStart], key: StartKey | None = None
    ) -> Taken:
        """Take all of these starts, or none of them.

        Raises:
            NotStartedError: one of them can't be.
            ProblemError: 503, the server or the database is needed and does not answer; 422, the
                key was used for another request.
        """
        tasks = self._context.appliance.tasks
        cause = Cause("http", rule=asker(caller))

        def at_once() -> Taken | None:
            starts = tasks.starts
            if key is not None and (before := starts.taken_before(key)) is not None:
                return before
            if not starts.is_answered_at_once(wanted, caller.may_start):
                return None
            return starts.take(starts.find(wanted, caller.may_start), cause, key)

        taken = await self._do(at_once)
        if taken is None:
            found = await self._find(caller, wanted)
            taken = await self._do(lambda: tasks.starts.take(found, cause, key))
        return taken

    async def _do(self, work: Callable[[], T]) -> T:
        """Run what takes starts in a thread. Raises ``ProblemError``."""

        def in_words() -> T:
            try:
                return work()
            except KeyReusedError:
                raise reused() from None
            except UnavailableError as error:
                raise unavailable(error) from None

        return await self._context.in_worker(in_words)

    async def _find(self, caller: Caller, wanted: Sequence[WantedStart]) -> tuple[Start, ...]:
        """What needs the server's list of tasks; without an answer, what can be taken so."""
        tasks = self._context.appliance.tasks
        if not tasks.is_server_away:
            try:
                return await self._calls.ask(lambda: tasks.starts.find(wanted, caller.may_start))
            except UnavailableError as error:
                logger.info("The tasks of a start are found later: %s", error)
        return await self._do(lambda: tasks.starts.unfound(wanted, caller.may_start))


def asker(caller: Caller) -> str:
    """Who asks, for logs and causes: the user's name, or the address of one without."""
    return caller.username or caller.address.rpartition(":")[0]


def _payload(request: Request, body: bytes) -> bytes:
    """What the path and the body name, as a message's payload has it.

    Raises:
        ProblemError: 400, the body is no object with options of a reload.
    """
    text = request.path_params["task"]
    found = task_id(text)
    named: dict[str, Any] = {"taskId": found} if found else {"taskName": text}
    if body.strip():
        try:
            options = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            raise ProblemError(
                400, 'The body must be empty, or an object such as {"partial": true}.'
            ) from None
        if unknown := sorted(options.keys() - _RELOAD):
            raise ProblemError(
                400,
                f"The body has {unknown[0]!r}; beside the task in the path it may have partial and"
                " variables. POST /tasks/start takes bodies that name tasks.",
            )
        named.update(options)
    return msgspec.json.encode(named)


def refused(error: NotStartedError) -> ProblemError:
    """The problem that says why a start can't be."""
    more: dict[str, Any] = {}
    if error.tasks:
        more["tasks"] = [
            {"id": task.id, "name": task.name, "appName": task.app_name} for task in error.tasks
        ]
    return ProblemError(_STATUS[error.kind], str(error), **more)


def unavailable(error: UnavailableError) -> ProblemError:
    """The problem of something that may be had later."""
    if isinstance(error, NotNotedError):
        return ProblemError(
            503,
            f"{error} Send the request again with the same Idempotency-Key to learn what became of"
            " it.",
            headers=AGAIN,
        )
    return ProblemError(503, str(error), headers=AGAIN)


def _headers(taken: Taken) -> dict[str, str]:
    return dict(REPLAYED) if taken.is_repeat else {}


def _gone(taken: Taken) -> ProblemError:
    return ProblemError(
        410,
        "The executions of this request are not kept any more. Nothing was started.",
        executions=list(taken.executions),
    )
