"""``/v4/mqttpublishmessage``: publish a message.

Butler sends it at QoS 0 and forgets it; here it is on the disk when the answer comes.

Not for: whether a message is taken (http_api/publishing.py).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.http_api.butler.errors import answer
from appliance.http_api.butler.fields import object_of, text_of
from appliance.http_api.butler.openapi import call
from appliance.http_api.butler.routing import ButlerRoute
from appliance.http_api.caller import caller_of
from appliance.http_api.context import Context
from appliance.http_api.entrance import Draft
from appliance.http_api.idempotency import key_of
from appliance.http_api.publishing import Publishing

_PATH = "/v4/mqttpublishmessage"
_FIELDS = ("topic", "message")
_SCHEMA = {
    "type": "object",
    "required": list(_FIELDS),
    "properties": {name: {"type": "string"} for name in _FIELDS},
}
OPENAPI: dict[str, object] = {
    _PATH: {"put": call("Publish a message.", _SCHEMA, status=201, body=_SCHEMA)}
}


def routes(context: Context) -> list[Route]:
    """The routes."""
    publishing = Publishing(context)

    async def publish(request: Request) -> Response:
        caller = await caller_of(request)
        body = await object_of(request, *_FIELDS)
        read = {name: text_of(body[name], f"body/{name}") for name in _FIELDS}
        draft = Draft(read["topic"], read["message"].encode())
        await publishing.publish(caller, (draft,), key_of(request))
        return answer({**body, **read}, 201)

    return [ButlerRoute(_PATH, publish, methods=["PUT"])]
