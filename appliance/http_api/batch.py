"""Several messages in one body: a JSON array of objects, or an object a line (NDJSON).

Not for: single messages, whose payload is the body as it is (messages.py).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from appliance.http_api.entrance import Draft
from appliance.http_api.problem import ProblemError
from appliance.http_api.properties import LONGEST_EXPIRY_S, properties_of

MOST = 2000
"""Messages of one batch. The engine takes them in one step, some two milliseconds long."""
_JSON = "application/json"


class _Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    topic: str
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    payload_base64: str | None = None
    qos: Literal[0, 1, 2] = 1
    retain: bool = False
    expiry: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_EXPIRY_S)] | None = None
    content_type: str | None = None


_items = msgspec.json.Decoder(list[msgspec.Raw])
_item = msgspec.json.Decoder(_Item)
_text = msgspec.json.Decoder(str)


def drafts_of(body: bytes) -> list[Draft]:
    """The messages of a batch.

    Raises:
        ProblemError: 400 or 413, one of them is not what it has to be (``item``: which, from 1).
    """
    drafts = []
    for number, raw in enumerate(_each(body), 1):
        if number > MOST:
            raise ProblemError(
                413, f"A batch has at most {MOST} messages; send the others in another one."
            )
        try:
            drafts.append(_draft(raw))
        except (ValueError, RecursionError) as error:
            raise ProblemError(400, f"Message {number}: {error}.", item=number) from None
        except ProblemError as error:
            raise ProblemError(
                error.status, f"Message {number}: {error.detail}", item=number
            ) from None
    if not drafts:
        raise ProblemError(400, "The batch has no message.")
    return drafts


def _each(body: bytes) -> Iterator[bytes | msgspec.Raw]:
    if body.lstrip()[:1] == b"[":
        try:
            yield from _items.decode(body)
        except (ValueError, RecursionError) as error:
            raise ProblemError(400, f"The body is no JSON array: {error}.") from None
        return
    for line in body.splitlines():
        if stripped := line.strip():
            yield stripped


def _draft(raw: bytes | msgspec.Raw) -> Draft:
    item = _item.decode(raw)
    payload, content_type = b"", item.content_type
    if item.payload_base64 is not None:
        if item.payload is not msgspec.UNSET:
            raise ValueError("it has both `payload` and `payload_base64`")
        try:
            payload = base64.b64decode(item.payload_base64, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("`payload_base64` is no base64") from None
    elif isinstance(item.payload, msgspec.Raw):
        payload = bytes(item.payload)
        if payload[:1] == b'"':
            payload = _text.decode(payload).encode()
        elif content_type is None:
            content_type = _JSON
    properties = properties_of(payload, content_type, item.expiry)
    return Draft(item.topic, payload, item.qos, item.retain, properties)
