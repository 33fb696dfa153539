"""What a message costs in memory: the one measure of every bound that counts bytes.

Payload, topic and MQTT 5 properties count, and a fixed overhead. An MQTT 5 client can put a
megabyte into the properties of a message with an empty payload, so no bound may leave them out.
The same message always has the same cost. Not for: what it takes on the wire or on disk.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.model import EncodedProperties, Message

OVERHEAD_BYTES = 128
"""Counted for each message: client id, address and the objects themselves."""

_PROPERTIES_BYTES = 64
"""The object that holds the properties as bytes, without these."""


def text_bytes(text: str) -> int:
    """Bytes of a string's characters in memory."""
    # CPython stores each character of a string in as many bytes as its widest one needs.
    return len(text) if text.isascii() else 4 * len(text)


def properties_bytes(properties: EncodedProperties | None) -> int:
    """Bytes of a message's properties."""
    return 0 if properties is None else _PROPERTIES_BYTES + len(properties)


def beside_payload(message: Message) -> int:
    """Bytes of a message's topic and properties."""
    size = text_bytes(message.topic)
    return size if message.properties is None else size + properties_bytes(message.properties)


def content_of(message: Message) -> int:
    """Bytes of a message's payload, topic and properties."""
    return len(message.payload) + beside_payload(message)


def cost_of(message: Message) -> int:
    """Bytes that a message costs in memory, ``OVERHEAD_BYTES`` included."""
    topic = message.topic
    if message.properties is None and topic.isascii():  # nearly every message; a call costs more
        return OVERHEAD_BYTES + len(message.payload) + len(topic)
    return OVERHEAD_BYTES + content_of(message)


def cost_alone(message: Message) -> int:
    """``cost_of`` a message that outlives its connection, with the names of client and user.

    While a connection lasts, all its messages share their strings.
    """
    return cost_of(message) + text_bytes(message.client_id) + text_bytes(message.username or "")


def costs_of(messages: Iterable[Message]) -> list[int]:
    """``cost_of`` each of many messages."""
    return [
        OVERHEAD_BYTES + len(message.payload) + len(message.topic)
        if message.properties is None and message.topic.isascii()
        else cost_of(message)
        for message in messages
    ]
