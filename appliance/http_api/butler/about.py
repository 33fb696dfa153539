"""``/v4/butlerping`` and ``/v4/configfile/endpointsenabled``: what tells of the server."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance import __version__
from appliance.http_api.butler.errors import answer
from appliance.http_api.butler.openapi import call
from appliance.http_api.butler.routing import ButlerRoute
from appliance.http_api.caller import caller_of
from appliance.http_api.context import Context

_PING = "/v4/butlerping"
_ENDPOINTS = "/v4/configfile/endpointsenabled"
VERSION = f"16.0.4+appliance.{__version__}"
"""The version of Butler whose calls these are, and behind it what answers."""
ENDPOINTS = (
    "apiListEnabledEndpoints",
    "butlerping",
    "keyValueStore",
    "mqttPublishMessage",
    "createNewSchedule",
    "getSchedule",
    "getScheduleStatusAll",
    "deleteSchedule",
    "startSchedule",
    "stopSchedule",
    "senseAppReload",
    "senseListApps",
    "senseStartTask",
)
"""Names of calls that are there, as the keys of ``Butler.restServerEndpointsEnable``."""

OPENAPI: dict[str, object] = {
    _PING: {
        "get": call(
            "Whether the appliance answers.",
            {
                "type": "object",
                "properties": {
                    "response": {"type": "string"},
                    "butlerVersion": {"type": "string"},
                },
            },
        )
    },
    _ENDPOINTS: {
        "get": call(
            "The names of Butler's calls that are there.",
            {"type": "array", "items": {"type": "string"}},
        )
    },
}


def routes(context: Context) -> list[Route]:
    """The routes."""

    async def ping(request: Request) -> Response:
        await caller_of(request)
        name = context.config.service.name
        return answer({"response": f"{name} is running", "butlerVersion": VERSION})

    async def endpoints(request: Request) -> Response:
        await caller_of(request)
        return answer(ENDPOINTS)

    return [
        ButlerRoute(_PING, ping, methods=["GET"]),
        ButlerRoute(_ENDPOINTS, endpoints, methods=["GET"]),
    ]
