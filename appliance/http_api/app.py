"""The Starlette application: which routes there are."""

from __future__ import annotations

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from appliance.http_api import history, messages, monitoring, openapi, tasks, timers
from appliance.http_api.bounds import Kind
from appliance.http_api.butler import about, apps, errors, key_values, schedules, starts
from appliance.http_api.butler import messages as butler_messages
from appliance.http_api.butler.routing import MethodOverride, everything_else
from appliance.http_api.context import Context
from appliance.http_api.problem import FAILURE, ProblemError
from appliance.http_api.sign_in import SignIn


async def _answer_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    return errors.refusal(request.scope["path"], error)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    found = ProblemError(error.status_code, error.detail, headers=headers)
    return errors.refusal(request.scope["path"], found)


def _allowed(request: Request) -> list[str]:
    """The methods of a path (RFC 9110, section 15.5.6): several routes may have it."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found)


async def _answer_failure(request: Request, _error: Exception) -> Response:
    """Of every other error, which port.py logs."""
    return errors.refusal(request.scope["path"], FAILURE)


def make_app(context: Context, kind: Kind) -> Starlette:
    """The application of ``[http]``, or that of ``[metrics]``."""
    found: list[BaseRoute] = [*monitoring.routes(context, is_open=kind.is_open)]
    if not kind.only_monitoring:
        parts = [messages, history, tasks, timers, openapi]
        if context.config.http.butler:
            parts += [starts, apps, butler_messages, key_values, schedules, about]
        for part in parts:
            found += part.routes(context)
        if context.config.http.butler:
            found.append(everything_else())
    app = Starlette(
        routes=found,
        exception_handlers={
            ProblemError: _answer_problem,
            errors.ButlerError: errors.answer_error,
            HTTPException: _answer_http_exception,
            Exception: _answer_failure,
        },
    )
    if not kind.only_monitoring and context.config.http.butler:
        app.add_middleware(MethodOverride)
    app.state.context = context
    app.state.sign_in = SignIn(context)
    return app
