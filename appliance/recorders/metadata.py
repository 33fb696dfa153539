"""What a recording says about a message besides its payload, in one order for every format.

Not for: the payload itself (payload.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from appliance.model import Message

FIELDS = ("seq", "time", "topic", "client", "qos", "retain")
"""``seq`` is the journal's sequence number, ``time`` when the appliance received the message (UTC,
ISO 8601 with microseconds), ``client`` the client id of the sender."""


def iso_time(time_ns: int) -> str:
    """For example ``2023-04-12T14:40:09.792123Z``."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{_iso_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=64)  # many messages share a second
def _iso_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=4096)  # as do topics and client ids
def json_text(text: str) -> bytes:
    """A JSON string in UTF-8."""
    return msgspec.json.encode(text)


@lru_cache(maxsize=4096)
def _json_source(topic: str, client_id: str, qos: int, retain: bool) -> bytes:
    """The fields behind the time, up to the payload."""
    return b'Z", "topic": %b, "client": %b, "qos": %d, "retain": %b, "payload": ' % (
        json_text(topic),
        json_text(client_id),
        qos,
        b"true" if retain else b"false",
    )


def json_lines(messages: Sequence[Message], payloads: Sequence[bytes]) -> bytes:
    """A line for each message: an object with ``FIELDS`` and the payload, which is JSON text.

    The same text as with ``json_fields``, in less time.
    """
    pieces: list[bytes] = []
    second, shown = -1, b""
    for message, payload in zip(messages, payloads, strict=True):
        at_ns = message.received_ns
        if at_ns // 1_000_000_000 != second:
            second = at_ns // 1_000_000_000
            shown = _iso_second(second).encode()
        pieces.append(
            b'{"seq": %d, "time": "%b.%06d%b%b}\n'
            % (
                message.seq,
                shown,
                at_ns % 1_000_000_000 // 1000,
                _json_source(message.topic, message.client_id, message.qos, message.retain),
                payload,
            )
        )
    return b"".join(pieces)


def json_fields(message: Message, separator: bytes) -> bytes:
    """``FIELDS`` of a message as members of a JSON object, with ``separator`` between them."""
    return separator.join(
        (
            b'"seq": %d' % message.seq,
            b'"time": "%b"' % iso_time(message.received_ns).encode(),
            b'"topic": ' + json_text(message.topic),
            b'"client": ' + json_text(message.client_id),
            b'"qos": %d' % message.qos,
            b'"retain": true' if message.retain else b'"retain": false',
        )
    )
