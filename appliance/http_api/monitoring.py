"""``/healthz`` and ``/metrics``: states and numbers only, for whom no password is asked."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.http_api.context import Context
from appliance.ops.health import report


def routes(context: Context) -> list[Route]:
    """The routes."""

    async def healthz(_request: Request) -> Response:
        found = report(context.view.snapshot())
        body = msgspec.json.encode(found) + b"\n"
        status = 200 if found.is_accepting else 503
        return Response(body, status, media_type="application/json")

    async def metrics(_request: Request) -> Response:
        # Imported with the first request, because it takes two megabytes.
        from appliance.ops.metrics import CONTENT_TYPE, exposition  # noqa: PLC0415

        return Response(exposition(context.view.snapshot()), headers={"content-type": CONTENT_TYPE})

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
