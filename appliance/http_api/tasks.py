"""``/tasks`` and ``/executions``: start a task, wait for its end."""

from __future__ import annotations

from starlette.routing import Route

from appliance.http_api.context import Context


def routes(context: Context) -> list[Route]:
    """The routes."""
    del context
    return []
