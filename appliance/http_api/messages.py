"""``POST /messages/{topic}`` and ``POST /messages``: publish; the answer says that it is on disk.

Not for: what a batch looks like (batch.py), whether a message is taken (publishing.py).
"""

from __future__ import annotations

import difflib
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.http_api.batch import drafts_of
from appliance.http_api.caller import caller_of
from appliance.http_api.context import Context
from appliance.http_api.entrance import Draft
from appliance.http_api.idempotency import PARAMETER, REPLAYED, key_of
from appliance.http_api.problem import ProblemError
from appliance.http_api.properties import properties_of
from appliance.http_api.publishing import Accepted, Publishing

_PATH = "/messages/"
_PARAMETERS = ("expiry", "qos", "retain")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_FORM = "application/x-www-form-urlencoded"


class _TopicConvertor(Convertor[str]):
    """Everything, line ends too: which topics there are, MQTT decides."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("topic", _TopicConvertor())


def routes(context: Context) -> list[Route]:
    """The routes."""
    publishing = Publishing(context)

    async def publish(request: Request) -> Response:
        caller = await caller_of(request)
        key = key_of(request)
        topic = topic_of(request)
        qos, retain, expiry_s = _options(request)
        payload = await request.body()
        draft = Draft(
            topic,
            payload,
            qos,
            retain,
            properties_of(payload, _content_type(request), expiry_s),
        )
        accepted = await publishing.publish(caller, (draft,), key)
        return _answer(accepted, {"topic": topic, "seq": accepted.first_seq})

    async def publish_batch(request: Request) -> Response:
        caller = await caller_of(request)
        key = key_of(request)
        _known_parameters(request, ())
        drafts = drafts_of(await request.body())
        accepted = await publishing.publish(caller, drafts, key)
        return _answer(
            accepted,
            {
                "messages": len(drafts),
                "first_seq": accepted.first_seq,
                "last_seq": accepted.last_seq,
            },
        )

    return [
        Route("/messages", publish_batch, methods=["POST"]),
        Route(_PATH + "{topic:topic}", publish, methods=["POST"]),
    ]


def topic_of(request: Request) -> str:
    """The topic in the path, whose bytes are percent-encoded UTF-8; ``%2F`` is ``/`` as well.

    Raises:
        ProblemError: 400, it is no UTF-8.
    """
    # The decoded path of the server has a replacement character for what is no UTF-8.
    raw: bytes = request.scope["raw_path"].partition(b"?")[0]
    encoded = raw[raw.index(b"/", 1) + 1 :]
    try:
        return unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise ProblemError(
            400, "The topic in the path is not UTF-8; percent-encode the bytes of UTF-8."
        ) from None


def _options(request: Request) -> tuple[int, bool, int | None]:
    """QoS, retain flag and expiry in seconds."""
    if not request.scope["query_string"]:  # as of most requests
        return 1, False, None
    _known_parameters(request, _PARAMETERS)
    given = request.query_params
    qos = given.get("qos", "1")
    if qos not in ("0", "1", "2"):
        raise ProblemError(400, f"qos={qos[:20]}: write 0, 1 or 2.")
    retain = _FLAGS.get(given.get("retain", "false").lower())
    if retain is None:
        raise ProblemError(400, f"retain={given['retain'][:20]}: write true or false.")
    expiry = given.get("expiry")
    if expiry is None:
        return int(qos), retain, None
    if not (expiry.isascii() and expiry.isdecimal() and len(expiry) < 11):
        raise ProblemError(400, f"expiry={expiry[:20]}: write a whole number of seconds.")
    return int(qos), retain, int(expiry)


def _known_parameters(request: Request, known: tuple[str, ...]) -> None:
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            what = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
            what = what if known else "there are none here."
            raise ProblemError(400, f"The parameter {name[:80]!r} is unknown; {what}")
        if names.count(name) > 1:
            raise ProblemError(400, f"The parameter {name} is there more than once.")


def _content_type(request: Request) -> str | None:
    """The header, unless it is the type of a form, which tools send when they are told nothing."""
    found = request.headers.get("content-type")
    return None if found is None or found.partition(";")[0].strip().lower() == _FORM else found


def _answer(accepted: Accepted, body: dict[str, object]) -> Response:
    headers = REPLAYED if accepted.is_replayed else None
    return Response(msgspec.json.encode(body), headers=headers, media_type="application/json")


_SEQ = {"type": "integer", "description": "The message's number in the journal."}


def _responses(properties: dict[str, object]) -> dict[str, object]:
    problems = {
        "400": "Topic, parameter, header or body are not what they have to be.",
        "401": "A user name and password, or a token, are needed.",
        "403": "The user may not publish there.",
        "413": "The body is too large.",
        "422": "The Idempotency-Key was used for another request.",
        "503": "The appliance can't take it now.",
        "507": "The disk is nearly full.",
    }
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "200": {
            "description": "On disk.",
            "headers": {
                "Idempotency-Replayed": {
                    "description": "`true`: an earlier request with the key published it.",
                    "schema": {"type": "string", "enum": ["true"]},
                }
            },
            "content": {"application/json": {"schema": schema}},
        },
        **{code: {"description": text, "content": problem} for code, text in problems.items()},
    }


TOPIC_PARAMETER = {
    "name": "topic",
    "in": "path",
    "required": True,
    "description": "The topic, percent-encoded. `/` separates its levels.",
    "schema": {"type": "string", "minLength": 1},
}
"""What ``topic_of`` reads, for the OpenAPI document."""

OPENAPI = {
    _PATH + "{topic}": {
        "post": {
            "operationId": "publish",
            "summary": "Publish a message; the body is the payload.",
            "tags": ["messages"],
            "parameters": [
                TOPIC_PARAMETER,
                {
                    "name": "qos",
                    "in": "query",
                    "description": "The highest QoS for subscribers.",
                    "schema": {"type": "integer", "minimum": 0, "maximum": 2, "default": 1},
                },
                {
                    "name": "retain",
                    "in": "query",
                    "description": "Whether it is kept for later subscribers.",
                    "schema": {"type": "boolean", "default": False},
                },
                {
                    "name": "expiry",
                    "in": "query",
                    "description": "Seconds after which it is not delivered any more.",
                    "schema": {"type": "integer", "minimum": 0, "maximum": 4294967295},
                },
                PARAMETER,
            ],
            "requestBody": {
                "description": "The payload, of any content type, which subscribers get with it.",
                "content": {"*/*": {"schema": {}}},
            },
            "responses": _responses({"topic": {"type": "string"}, "seq": _SEQ}),
        }
    },
    "/messages": {
        "post": {
            "operationId": "publishBatch",
            "summary": "Publish messages, all or none: a JSON array, or an object a line.",
            "tags": ["messages"],
            "parameters": [PARAMETER],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 2000,
                            "items": {
                                "type": "object",
                                "required": ["topic"],
                                "additionalProperties": False,
                                "properties": {
                                    "topic": {"type": "string", "minLength": 1},
                                    "payload": {
                                        "description": "A text is sent as it is, anything else"
                                        " as JSON.",
                                    },
                                    "payload_base64": {
                                        "type": ["string", "null"],
                                        "format": "byte",
                                    },
                                    "qos": {"type": "integer", "minimum": 0, "maximum": 2},
                                    "retain": {"type": "boolean"},
                                    "expiry": {
                                        "type": ["integer", "null"],
                                        "minimum": 0,
                                        "maximum": 4294967295,
                                    },
                                    "content_type": {"type": ["string", "null"]},
                                },
                            },
                        }
                    },
                    "application/x-ndjson": {"schema": {"type": "string"}},
                },
            },
            "responses": _responses(
                {"messages": {"type": "integer"}, "first_seq": _SEQ, "last_seq": _SEQ}
            ),
        }
    },
}
