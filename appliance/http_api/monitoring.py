"""``/healthz`` and ``/metrics``: states and numbers only.

The engine's loop is asked each time: an engine that hangs is answered for with 503. Where other
machines reach ``[http]``, the numbers are for users, and nobody else learns more than the status.
``[metrics]`` asks no password, as its documentation says.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.http_api.caller import caller_of
from appliance.http_api.context import Context
from appliance.ops.health import report

ENGINE_S = 4.0
"""An engine that does not answer in this time hangs, as far as a monitor is concerned."""
_NO_STORE = {"cache-control": "no-store"}

OPENAPI: dict[str, Any] = {
    "/healthz": {
        "get": {
            "operationId": "health",
            "summary": "How the appliance is: one word, and with a password all of it.",
            "tags": ["monitoring"],
            "responses": {
                status: {
                    "description": text,
                    "content": {"application/json": {"schema": {"type": "object"}}},
                }
                for status, text in (
                    ("200", "Messages are accepted."),
                    ("503", "They are not, or not for long."),
                )
            },
        }
    },
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "summary": "Every number, for Prometheus.",
            "tags": ["monitoring"],
            "responses": {
                "200": {
                    "description": "The text format of Prometheus.",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                }
            },
        }
    },
}


def routes(context: Context, *, is_open: bool) -> list[Route]:
    """The routes; ``is_open``: everybody who can reach the port may read all of it."""

    async def healthz(request: Request) -> Response:
        # A watcher wants to know whether the engine itself still works.
        await context.on_engine(_answer, ENGINE_S)
        found = report(context.view.snapshot())
        if is_open or "authorization" in request.headers:
            if not is_open:
                await caller_of(request)
            body = msgspec.json.encode(found)
        else:
            body = msgspec.json.encode({"status": found.status})
        status = 200 if found.is_accepting else 503
        return Response(body + b"\n", status, _NO_STORE, media_type="application/json")

    async def metrics(request: Request) -> Response:
        # Imported with the first request, because it takes two megabytes.
        from appliance.ops.metrics import CONTENT_TYPE, exposition  # noqa: PLC0415

        await context.on_engine(_answer, ENGINE_S)
        if not is_open:
            await caller_of(request)
        headers = {**_NO_STORE, "content-type": CONTENT_TYPE}
        return Response(exposition(context.view.snapshot()), headers=headers)

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]


async def _answer() -> None:
    pass
