"""``/v4/reloadtask/{id}/start``: start tasks by id, tag, custom property."""

from __future__ import annotations

from starlette.routing import Route

from appliance.http_api.context import Context


def routes(context: Context) -> list[Route]:
    """The routes."""
    del context
    return []
