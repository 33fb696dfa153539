"""PUBLISH packets that a broker sends to a client of ours, decoded a row at a time.

Not for: what clients publish here (broker/publish.py), acknowledgements. References are to MQTT 5.
"""

from __future__ import annotations

import msgspec

from appliance.model import EncodedProperties
from appliance.mqtt import decode, properties
from appliance.mqtt.packets import (
    PUBLISH,
    Body,
    PacketError,
    Reason,
    frame,
    variable_number,
)

_PUBLISH_BITS = PUBLISH << 4
_ALLOWED = decode.OF_MESSAGES | {properties.SUBSCRIPTION_IDENTIFIER}
MOST_AT_ONCE = 1000
"""Packets of one call: some ms of work."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """A PUBLISH as it came."""

    topic: bytes
    """As it came: ``packets.publish_topic`` decodes it, and may refuse it."""
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    """0 at QoS 0."""
    properties: EncodedProperties | None = None
    problem: str = ""
    """Why the message can't be taken although its packet is intact; empty if it can."""


class Oversized(msgspec.Struct, frozen=True):
    """The beginning of a PUBLISH that is larger than may be taken."""

    topic: str
    """For the log: what is not UTF-8 is replaced."""
    qos: int
    packet_id: int
    size: int
    """Bytes of the whole packet."""


def read_publishes(
    data: bytes,
    position: int,
    limit: int,
    version: int,
    most: int = MOST_AT_ONCE,
    *,
    property_limit: properties.PropertyLimit = properties.CLIENT_LIMIT,
) -> tuple[list[Published], int]:
    """Decode the whole PUBLISH packets that stand in a row from ``position`` on.

    Args:
        data: what arrived. Payloads and topics are copied out of it.
        position: where the first packet begins.
        limit: the size of the largest packet that may be taken, in bytes.
        version: 4 for MQTT 3.1.1, 5 for MQTT 5.
        most: how many packets are decoded at most.
        property_limit: how many properties a message may have.

    Returns:
        The packets, and the position of what follows: another packet, one that is not complete
        yet, or the rest of very many.

    Raises:
        PacketError: a packet breaks the protocol, or is too large (``Reason.PACKET_TOO_LARGE``).
            Where packets before it are intact they are returned, and the next call raises.
    """
    found: list[Published] = []
    end = len(data)
    try:
        while position + 1 < end and len(found) < most:
            first = data[position]
            if first & 0xF0 != _PUBLISH_BITS:
                break
            framed = frame(data, position, limit)
            if framed is None or framed[1] > end:
                break
            found.append(_published(data, first, *framed, version, property_limit))
            position = framed[1]
    except PacketError:
        if not found:
            raise
    return found, position


def _published(  # noqa: PLR0917 - one packet of very many
    data: bytes,
    first: int,
    body: int,
    stop: int,
    version: int,
    property_limit: properties.PropertyLimit,
) -> Published:
    start = body + 2
    if start > stop:
        raise PacketError("the packet ends too early")
    payload_start = topic_end = start + (data[body] << 8 | data[body + 1])
    qos = first >> 1 & 3
    packet_id = 0
    if qos:
        payload_start += 2
        if qos == 3:
            raise PacketError("QoS 3 [MQTT-3.3.1-4]")
    if payload_start > stop:
        raise PacketError("the packet ends too early")
    if qos:
        packet_id = data[topic_end] << 8 | data[topic_end + 1]
        if not packet_id:
            raise PacketError("packet id 0 [MQTT-2.3.1-1]", Reason.PROTOCOL_ERROR)
    kept, problem = None, ""
    if version == 5:
        if payload_start < stop and not data[payload_start]:
            payload_start += 1
        else:
            kept, problem, payload_start = _properties(data, payload_start, stop, property_limit)
    return Published(
        data[start:topic_end],
        data[payload_start:stop],
        qos,
        bool(first & 1),
        bool(qos and first & 8),
        packet_id,
        kept,
        problem,
    )


def _properties(
    data: bytes, start: int, stop: int, limit: properties.PropertyLimit
) -> tuple[EncodedProperties | None, str, int]:
    """The message's properties, why it can't be taken, and where its payload begins.

    A property that is bad in itself can come from a publisher that the broker did not check. The
    same message would come again at each connection, so the message is refused and not the packet.
    """
    body = Body(data[start : min(stop, start + 4)])
    payload_start = start + variable_number(body)
    payload_start += body.position
    if payload_start > stop:
        raise PacketError("the packet ends too early")
    body = Body(data[start:payload_start])
    try:
        found = properties.read(body, _ALLOWED, limit)
        return decode.message_properties(found), "", payload_start
    except PacketError as error:
        return None, str(error), payload_start


def oversized(data: bytes, position: int) -> Oversized | None:
    """What the beginning of a PUBLISH says that is larger than the limit; it is to be skipped.

    Otherwise the broker sends it again at each connection, and nothing else comes any more.
    ``None`` if its topic and packet id have not arrived yet.

    Raises:
        PacketError: it has no room for them.
    """
    framed = frame(data, position, 2**31)
    if framed is None:
        return None
    start, stop = framed
    # At most this much can stand before the properties or the payload.
    beginning = data[start : min(stop, start + 4 + 65535)]
    body = Body(beginning)
    try:
        topic = body.binary()
        qos = data[position] >> 1 & 3
        packet_id = body.number() if qos else 0
    except PacketError:
        if start + len(beginning) < stop and len(beginning) < 4 + 65535:
            return None
        raise
    return Oversized(topic.decode(errors="replace"), qos, packet_id, stop - position)
