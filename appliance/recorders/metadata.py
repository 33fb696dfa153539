"""What a recording says about a message besides its payload, in one order for every format.

Not for: the payload itself (payload.py).
"""

from __future__ import annotations

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
