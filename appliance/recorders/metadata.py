"""What a recording says about a message besides its payload, in one order for every format.

Not for: the payload itself (payload.py).
"""

from __future__ import annotations

from datetime import UTC, datetime

from appliance.model import Message

FIELDS = ("seq", "time", "topic", "client", "qos", "retain")
"""``seq`` is the journal's sequence number, ``time`` when the appliance received the message (UTC,
ISO 8601 with microseconds), ``client`` the client id of the sender."""

Value = str | int | bool


def values(message: Message) -> tuple[Value, ...]:
    """The values of ``FIELDS``."""
    return (
        message.seq,
        iso_time(message.received_ns),
        message.topic,
        message.client_id,
        message.qos,
        message.retain,
    )


def iso_time(time_ns: int) -> str:
    """For example ``2023-04-12T14:40:09.792123Z``."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"
