"""``/v4/schedules...``: timers.

The list has the ``[[timer]]`` tables that have a schedule, and the schedules that were made over
HTTP. Operators make, remove, start and stop; those who may look at the terminal read.

Not for: keeping schedules (engine/schedules.py), our own calls (timers.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NoReturn

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.broker.access import Role
from appliance.config.tables import TimerConfig
from appliance.config.values import format_duration
from appliance.engine.schedules import STATES, Schedule, check
from appliance.errors import UsageError
from appliance.http_api.butler.errors import ButlerError, answer, fault
from appliance.http_api.butler.fields import object_of, query_of, text_of, texts_of
from appliance.http_api.butler.openapi import call
from appliance.http_api.butler.routing import ButlerRoute
from appliance.http_api.caller import Caller, caller_of
from appliance.http_api.context import Context
from appliance.tasks.outcomes import time_text

_ALL = "/v4/schedules"
_ONE = "/v4/schedules/{scheduleId}"
_REQUIRED = ("name", "cronSchedule", "timezone", "qlikSenseTaskId", "startupState")
_TEXT = {"type": "string"}
_MADE = {
    **dict.fromkeys(_REQUIRED, _TEXT),
    "startupState": {"type": "string", "enum": list(STATES)},
    "tags": {"type": "array", "items": _TEXT},
}
_SCHEDULE = {
    "type": "object",
    "properties": {**_MADE, **dict.fromkeys(("id", "created", "lastKnownState"), _TEXT)},
}
_LIST = {"type": "array", "items": _SCHEDULE}
_STATUS = call("The schedules as text, a line each.")
_STATUS["responses"] |= {  # type: ignore[operator]
    "200": {"description": "Done.", "content": {"text/plain": {"schema": _TEXT}}}
}

OPENAPI: dict[str, object] = {
    _ALL: {
        "get": call("The schedules, or one of them.", _LIST, optional_query={"id": _TEXT}),
        "post": call(
            "Make a schedule.",
            _SCHEDULE,
            status=201,
            body={"type": "object", "required": list(_REQUIRED), "properties": _MADE},
        ),
    },
    _ONE: {"delete": call("Remove a schedule.", status=204, path=_ONE)},
    f"{_ONE}/start": {"put": call("Let a schedule run.", _LIST, path=_ONE)},
    f"{_ONE}/stop": {"put": call("Stop a schedule.", _LIST, path=_ONE)},
    f"{_ALL}/startall": {"put": call("Let all schedules run.", _LIST)},
    f"{_ALL}/stopall": {"put": call("Stop all schedules.", _LIST)},
    f"{_ALL}/status": {"get": _STATUS},
}

_CONFIGURED = uuid.UUID("f0a3f3f8-5e3c-5d59-9d1c-6e1f6b0d6a52")
"""The name space of the ids of configured timers."""


def id_of(timer_name: str) -> str:
    """The id of a ``[[timer]]`` without ``id``: the same one as long as it has this name."""
    return str(uuid.uuid5(_CONFIGURED, timer_name))


class Entry:
    """One schedule of the list."""

    def __init__(self, schedule: Schedule, timer: str, *, is_paused: bool, is_made: bool) -> None:
        self.schedule = schedule
        self.timer = timer
        """The name by which the task engine knows it."""
        self.is_paused = is_paused
        self.is_made = is_made
        """Whether it was made over HTTP."""

    def body(self) -> dict[str, object]:
        """In Butler's form."""
        one = self.schedule
        found: dict[str, object] = {
            "name": one.name,
            "cronSchedule": one.cron_schedule,
            "timezone": one.timezone,
            "qlikSenseTaskId": one.qlik_sense_task_id,
            "startupState": one.startup_state,
            "tags": one.tags,
            "id": one.id,
        }
        if one.created:
            found["created"] = one.created
        found["lastKnownState"] = "stopped" if self.is_paused else "started"
        return found

    def line(self) -> str:
        """For the status."""
        state = "Stopped" if self.is_paused else "Running"
        return f"{self.schedule.id}: {self.schedule.cron_schedule} status: {state}\n"


def entries(context: Context) -> list[Entry]:
    """All schedules: the configured ones first."""
    appliance = context.appliance
    paused = {one.name: one.paused for one in appliance.tasks.timers() if one.kind == "schedule"}
    return [
        Entry(one, timer, is_paused=paused[timer], is_made=is_made)
        for one, timer, is_made in _schedules(context)
        if timer in paused
    ]


def _schedules(context: Context) -> Iterator[tuple[Schedule, str, bool]]:
    for timer in context.config.timer:
        if timer.silence is None:
            yield _configured(timer), timer.name, False
    for schedule in context.appliance.schedules.all():
        yield schedule, schedule.timer_name, True


def _configured(timer: TimerConfig) -> Schedule:
    times = timer.cron or f"every {format_duration(timer.every or 0)}"
    task = timer.task if isinstance(timer.task, str) else ""
    known = timer.id or id_of(timer.name)
    return Schedule(timer.name, times, timer.timezone, task, "start", (), known, "")


async def _operator(request: Request) -> Caller:
    caller = await caller_of(request)
    if caller.role is not Role.OPERATOR:
        raise ButlerError(403, "Only operators may change schedules: [access] operators.")
    return caller


async def _reader(request: Request) -> None:
    caller = await caller_of(request)
    if caller.role is None and caller.context.config.access.rule:
        raise ButlerError(403, "Only operators and viewers may see schedules: [access] viewers.")


def routes(context: Context) -> list[Route]:
    """The routes."""
    kept = context.appliance.schedules

    def find(wanted: str) -> Entry:
        for one in entries(context):
            if one.schedule.id == wanted:
                return one
        return _unknown(wanted)

    async def get(request: Request) -> Response:
        await _reader(request)
        wanted = query_of(request, "id")
        found = entries(context) if wanted is None else [find(wanted)]
        return answer([one.body() for one in found])

    async def status(request: Request) -> Response:
        await _reader(request)
        text = "".join(one.line() for one in entries(context))
        return Response(text, media_type="text/plain; charset=utf-8")

    async def post(request: Request) -> Response:
        await _operator(request)
        if context.config.qlik is None:
            raise ButlerError(503, "No Qlik server is configured: add a [qlik] table.")
        body = await object_of(request, *_REQUIRED)
        texts = {name: text_of(body[name], f"body/{name}") for name in _REQUIRED}
        if texts["startupState"] not in STATES:
            raise fault("body/startupState must be equal to one of the allowed values")
        schedule = Schedule(
            name=texts["name"],
            cron_schedule=texts["cronSchedule"],
            timezone=texts["timezone"],
            qlik_sense_task_id=texts["qlikSenseTaskId"],
            startup_state=texts["startupState"],
            tags=tuple(texts_of(body.get("tags", []), "body/tags")),
            id=str(uuid.uuid4()),
            created=time_text(int(datetime.now(UTC).timestamp() * 1e9)) or "",
        )
        try:
            check(schedule)
            await context.in_worker(lambda: kept.add(schedule))
        except UsageError as error:
            raise ButlerError(400, str(error)) from None
        is_paused = not STATES[schedule.startup_state]
        made = Entry(schedule, schedule.timer_name, is_paused=is_paused, is_made=True)
        return answer(made.body(), 201)

    async def delete(request: Request) -> Response:
        await _operator(request)
        found = find(request.path_params["scheduleId"])
        if not found.is_made:
            raise ButlerError(
                400,
                f"The schedule is [[timer]] {found.timer} of the configuration: remove it there, or"
                " stop it.",
            )
        if not await context.in_worker(lambda: kept.remove(found.schedule.id)):
            _unknown(found.schedule.id)
        return Response(status_code=204)

    async def set_all(request: Request, wanted: str | None, *, paused: bool) -> Response:
        caller = await _operator(request)
        by = f"HTTP user {caller.username or caller.address} (Butler call)"
        found = entries(context) if wanted is None else [find(wanted)]

        def work() -> None:
            for one in found:
                if one.is_paused is not paused:
                    context.view.pause_timer(one.timer, paused, by)

        try:
            await context.in_worker(work)
        except UsageError as error:  # it was removed meanwhile
            raise ButlerError(400, str(error)) from None
        ids = {one.schedule.id for one in found}
        return answer([one.body() for one in entries(context) if one.schedule.id in ids])

    async def start(request: Request) -> Response:
        return await set_all(request, request.path_params.get("scheduleId"), paused=False)

    async def stop(request: Request) -> Response:
        return await set_all(request, request.path_params.get("scheduleId"), paused=True)

    return [
        ButlerRoute(f"{_ALL}/status", status, methods=["GET"]),
        ButlerRoute(_ALL, get, methods=["GET"]),
        ButlerRoute(_ALL, post, methods=["POST"]),
        ButlerRoute(_ONE, delete, methods=["DELETE"]),
        ButlerRoute(f"{_ALL}/startall", start, methods=["PUT"]),
        ButlerRoute(f"{_ALL}/stopall", stop, methods=["PUT"]),
        ButlerRoute(f"{_ONE}/start", start, methods=["PUT"]),
        ButlerRoute(f"{_ONE}/stop", stop, methods=["PUT"]),
    ]


def _unknown(wanted: str) -> NoReturn:
    raise ButlerError(400, f"Schedule ID {wanted} not found.")
