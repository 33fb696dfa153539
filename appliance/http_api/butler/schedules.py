"""``/v4/schedules...``: timers."""

from __future__ import annotations

from starlette.routing import Route

from appliance.http_api.context import Context


def routes(context: Context) -> list[Route]:
    """The routes."""
    del context
    return []
