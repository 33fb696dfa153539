"""The parameters of ``GET /messages``: what they mean, and how the OpenAPI document has them.

Not for: reading the journal (journal_walk.py).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request

from appliance.config.values import parse_moment
from appliance.http_api.message_text import CONTENT_TYPES, KINDS, Kind
from appliance.http_api.messages import TOPIC_PARAMETER
from appliance.http_api.problem import ProblemError
from appliance.message_filter import MessageFilter, Name
from appliance.mqtt.topics import filter_problem
from appliance.recorders.metadata import FIELDS

LIMIT = 1000
LARGEST_LIMIT = 10_000
_FORMS = ("json", "text")
_SEVERAL = frozenset({"topic", "client", "text"})
_ZONE = re.compile(r"(T\S+) (\d\d:?\d\d)$")


def _parameter(name: str, text: str, **schema: object) -> dict[str, object]:
    found: dict[str, object] = {"type": "string", **schema}
    several = name in _SEVERAL
    return {
        "name": name,
        "in": "query",
        "description": text,
        "schema": {"type": "array", "items": found} if several else found,
    }


_TIME = "A time (RFC 3339), or how long ago: `24h`, `7d`."
PARAMETERS = [
    _parameter("topic", "A topic filter; several: one of them.", default="#", minLength=1),
    _parameter("client", "In the client id of the sender; `*` stands for any characters."),
    _parameter("text", "In the topic, the client id or the payload, in any case; several: all."),
    _parameter("since", f"Received then or later. {_TIME}", examples=["7d"]),
    _parameter("until", f"Received before. {_TIME}", examples=["2026-11-29T06:00:00Z"]),
    _parameter("format", "The form of the answer.", enum=[*KINDS], default="json"),
    _parameter(
        "payload",
        "`json`: JSON as it is, else an object with `$text` or `$base64`; `text`: one text.",
        enum=[*_FORMS],
        default="json",
    ),
    _parameter(
        "limit",
        "The largest number of messages; 0: all there are, streamed.",
        type="integer",
        minimum=0,
        maximum=LARGEST_LIMIT,
        default=LIMIT,
    ),
    _parameter(
        "cursor",
        "That of an answer, or the `seq` of a message: only what came behind it.",
        pattern="^[0-9]{1,18}(-[a-z0-9]{1,20})?$",
    ),
]
_KNOWN = [str(each["name"]) for each in PARAMETERS]


class Query(msgspec.Struct, frozen=True):
    """What a request asks for."""

    asked: MessageFilter
    kind: Kind
    as_text: bool
    limit: int
    """0: no limit."""
    after_seq: int | None
    """Of the cursor; ``None``: from the first message on."""


def query_of(request: Request, installation: str, now_ns: int) -> Query:
    """What the parameters mean.

    Raises:
        ProblemError: 400, one of them is wrong; 409, the cursor is of another journal.
    """
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name not in _KNOWN:
            known = ", ".join(_KNOWN)
            raise ProblemError(400, f"There is no parameter {name!r}; there are {known}.")
        found.setdefault(name, []).append(value)
    for name, values in found.items():
        if len(values) > 1 and name not in _SEVERAL:
            raise ProblemError(400, f"{name} is given {len(values)} times; give it once.")
    one = {name: values[0] for name, values in found.items()}
    for topic in found.get("topic", ()):
        if wrong := filter_problem(topic):
            raise ProblemError(400, f"topic={topic}: {wrong}")
    since_ns, until_ns = (_moment(name, one.get(name), now_ns) for name in ("since", "until"))
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise ProblemError(400, "since is not before until, so no message fits.")
    return Query(
        MessageFilter(
            topics=tuple(found.get("topic", ())),
            clients=tuple(Name(each) for each in found.get("client", ())),
            texts=tuple(found.get("text", ())),
            since_ns=since_ns,
            until_ns=until_ns,
        ),
        _choice("format", one.get("format", "json"), KINDS),
        is_as_text(one.get("payload")),
        _limit(one.get("limit")),
        _cursor(one.get("cursor"), installation),
    )


def _moment(name: str, text: str | None, now_ns: int) -> int | None:
    if text is None:
        return None
    try:
        # In an address, a plus sign that was not encoded is a blank.
        return parse_moment(_ZONE.sub(r"\1+\2", text), now_ns)
    except ValueError as error:
        raise ProblemError(400, f"{name}={text}: {error}.") from None


def is_as_text(text: str | None) -> bool:
    """What ``payload`` means. Raises ``ProblemError``."""
    return bool(_choice("payload", text or "json", _FORMS) == "text")


def _choice(name: str, text: str, among: tuple[Any, ...]) -> Any:
    if text not in among:
        raise ProblemError(400, f"{name}={text}: write one of {', '.join(among)}.")
    return text


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) > LARGEST_LIMIT:
        raise ProblemError(
            400, f"limit={text}: write a number up to {LARGEST_LIMIT}; 0 streams everything."
        )
    return int(text)


def _cursor(text: str | None, installation: str) -> int | None:
    if text is None:
        return None
    parts = re.fullmatch("([0-9]{1,18})(?:-([a-z0-9]{1,20}))?", text)
    if parts is None:
        raise ProblemError(
            400, f"cursor={text}: write the cursor of an answer, or the seq of a message."
        )
    if parts[2] is not None and parts[2] != installation:
        raise ProblemError(
            409,
            f"cursor={text}: it is of another journal (another data directory). Ask without it to"
            " begin with this one's first message.",
        )
    return int(parts[1])


_MESSAGE = {
    "type": "object",
    "required": [*FIELDS, "payload"],
    "properties": {
        "seq": {"type": "integer", "description": "Its number in the journal; it only grows."},
        "time": {"type": "string", "format": "date-time", "description": "Of its arrival, UTC."},
        "topic": {"type": "string"},
        "client": {"type": "string", "description": "The client id of the sender."},
        "qos": {"type": "integer", "minimum": 0, "maximum": 2},
        "retain": {"type": "boolean"},
        "payload": {"description": "A JSON value."},
    },
}
_CURSOR = {"type": "string", "description": "Where the next question goes on."}
_MISSED = {
    "type": "integer",
    "minimum": 0,
    "description": "So many messages behind the cursor, of any topic, were deleted before.",
}
OPENAPI: dict[str, Any] = {
    "/messages": {
        "get": {
            "operationId": "messages",
            "summary": "Messages of the journal, the oldest first.",
            "tags": ["messages"],
            "parameters": PARAMETERS,
            "responses": {
                "200": {
                    "description": "A page, or with `limit=0` everything, streamed.",
                    "headers": {
                        "Link": {
                            "description": 'The next page, if there is one (`rel="next"`).',
                            "schema": {"type": "string"},
                        },
                        "Appliance-Cursor": {"schema": _CURSOR},
                        "Appliance-Missed": {"schema": _MISSED},
                    },
                    "content": {
                        CONTENT_TYPES["json"]: {
                            "schema": {
                                "type": "object",
                                "required": ["messages", "next", "cursor", "missed"],
                                "properties": {
                                    "messages": {"type": "array", "items": _MESSAGE},
                                    "next": {
                                        "type": ["string", "null"],
                                        "description": "The address of the next page.",
                                    },
                                    "cursor": _CURSOR,
                                    "missed": _MISSED,
                                },
                            }
                        },
                        CONTENT_TYPES["jsonl"]: {"schema": {"type": "string"}},
                        CONTENT_TYPES["csv"]: {"schema": {"type": "string"}},
                    },
                },
                "409": {"description": "The cursor is of another journal."},
            },
        }
    },
    "/retained/{topic}": {
        "get": {
            "operationId": "retained",
            "summary": "The retained message of a topic.",
            "tags": ["messages"],
            "parameters": [
                TOPIC_PARAMETER,
                *(each for each in PARAMETERS if each["name"] == "payload"),
            ],
            "responses": {
                "200": {
                    "description": "The message.",
                    "content": {"application/json": {"schema": _MESSAGE}},
                },
                "404": {"description": "No message of this topic is retained."},
            },
        }
    },
}
