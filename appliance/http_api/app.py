"""The Starlette application: which routes there are."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from appliance.http_api import history, messages, monitoring, openapi, tasks
from appliance.http_api.bounds import Kind
from appliance.http_api.butler import about, apps, errors, key_values, schedules, starts
from appliance.http_api.butler import messages as butler_messages
from appliance.http_api.butler.routing import MethodOverride, everything_else
from appliance.http_api.context import Context
from appliance.http_api.problem import ProblemError, answer_failure, answer_problem, problem


async def _answer_problem(request: Request, error: Exception) -> Response:
    form = errors.answer_error if errors.is_butlers(request) else answer_problem
    return await form(request, error)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    if errors.is_butlers(request):
        return await errors.answer_error(request, error)
    if not isinstance(error, HTTPException):
        raise error
    return problem(ProblemError(error.status_code, error.detail, headers=error.headers))


def make_app(context: Context, kind: Kind) -> Starlette:
    """The application of ``[http]``, or that of ``[metrics]``."""
    found: list[BaseRoute] = [*monitoring.routes(context, is_open=kind.is_open)]
    if not kind.only_monitoring:
        parts = [messages, history, tasks, openapi]
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
            Exception: answer_failure,
        },
    )
    if not kind.only_monitoring and context.config.http.butler:
        app.add_middleware(MethodOverride)
    app.state.context = context
    return app
