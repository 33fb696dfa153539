"""MQTT 5 control packets that the broker sends, most of them through the ``mqtt5`` codec.

Not for: what clients send (decode.py), sessions. References are to MQTT 5.
"""

from __future__ import annotations

from typing import Any

import mqtt5

from appliance.model import Message, MessageProperties
from appliance.mqtt.packets import Body, Connect, Reason, packet, variable_number

TOPIC_ALIAS_MAXIMUM = 64
"""How many topic aliases a publisher may use on one connection (section 3.2.2.3.8)."""
_NO_PROPERTIES = MessageProperties()
_NO_MESSAGE = Message(0, 0, "t", b"")


def encode_connack(
    asked: Connect,
    *,
    session_present: bool,
    assigned_client_id: str | None,
    keepalive_s: int | None,
    receive_maximum: int,
    maximum_packet_size: int,
    session_expiry_s: int,
) -> bytes:
    """A CONNACK that accepts, with what this broker offers (section 3.2.2.3).

    Where the client takes small packets only, it is told just what it has to know. That may still
    be too much: the caller looks at the size.
    """
    needed: dict[str, Any] = {
        "session_present": session_present,
        "assigned_client_id": assigned_client_id,
        "server_keep_alive": keepalive_s,
        "session_expiry_interval": (
            session_expiry_s if session_expiry_s != asked.session_expiry_s else None
        ),
    }
    whole = mqtt5.ConnAckPacket(
        receive_max=receive_maximum,
        topic_alias_max=TOPIC_ALIAS_MAXIMUM,
        max_packet_size=maximum_packet_size,
        **needed,
    ).write()
    if asked.maximum_packet_size is None or len(whole) <= asked.maximum_packet_size:
        return whole
    return mqtt5.ConnAckPacket(**needed).write()


_REFUSED_AS = {
    Reason.SESSION_TAKEN_OVER: Reason.SERVER_BUSY,
    Reason.SERVER_SHUTTING_DOWN: Reason.SERVER_UNAVAILABLE,
    Reason.ADMINISTRATIVE_ACTION: Reason.SERVER_UNAVAILABLE,
    Reason.KEEP_ALIVE_TIMEOUT: Reason.UNSPECIFIED,
}
"""Reasons that a DISCONNECT can give and a CONNACK can't (section 3.2.2.2)."""


def encode_refusal(reason: Reason) -> bytes:
    """A CONNACK that refuses (section 3.2); it tells the reason code alone."""
    return bytes((0x20, 3, 0, _REFUSED_AS.get(reason, reason), 0))


def encode_publish(
    message: Message,
    properties: MessageProperties | None,
    payload_qos: int,
    *,
    retain: bool,
    duplicate: bool,
    packet_id: int,
    expiry_s: int | None,
    identifiers: tuple[int, ...],
) -> bytes:
    """A PUBLISH to a subscriber (section 3.3); ``properties`` are the message's, decoded."""
    kept = properties or _NO_PROPERTIES
    encoded = mqtt5.PublishPacket(
        message.topic,
        message.payload,
        qos=mqtt5.QoS(payload_qos),
        retain=retain,
        duplicate=duplicate,
        packet_id=packet_id if payload_qos else None,
        payload_format_indicator=1 if kept.payload_format_is_0 else kept.payload_format,
        message_expiry_interval=expiry_s,
        content_type=kept.content_type,
        response_topic=kept.response_topic,
        correlation_data=kept.correlation_data,
        user_properties=list(kept.user_properties),
        subscription_ids=list(identifiers),
    ).write()
    return _with_payload_format_0(encoded) if kept.payload_format_is_0 else encoded


def encode_publish_properties(properties: MessageProperties) -> bytes:
    """The property list of a PUBLISH, with its length in front; with the message expiry if any."""
    whole = encode_publish(
        _NO_MESSAGE,
        properties,
        0,
        retain=False,
        duplicate=False,
        packet_id=0,
        expiry_s=properties.message_expiry_s,
        identifiers=(),
    )
    body = Body(whole)
    body.byte()
    variable_number(body)
    body.binary()
    return whole[body.position :]


def _with_payload_format_0(encoded: bytes) -> bytes:
    """A PUBLISH with Payload Format Indicator 1, which is its first property, with 0 instead.

    The codec leaves an indicator of 0 out, and a server must pass it on [MQTT5-3.3.2-4].
    """
    body = Body(encoded)
    first = body.byte()
    variable_number(body)
    body.binary()
    if first & 0x06:
        body.number()
    variable_number(body)
    changed = bytearray(encoded)
    changed[body.position + 1] = 0
    return bytes(changed)


def encode_suback(packet_id: int, codes: tuple[int, ...]) -> bytes:
    """A SUBACK with one reason code a filter (section 3.9.3)."""
    return packet(0x90, packet_id.to_bytes(2, "big") + b"\x00" + bytes(codes))


def encode_unsuback(packet_id: int, codes: tuple[int, ...]) -> bytes:
    """An UNSUBACK with one reason code a filter (section 3.11.3)."""
    return packet(0xB0, packet_id.to_bytes(2, "big") + b"\x00" + bytes(codes))


def encode_ack(first_byte: int, packet_id: int, reason: int = 0) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP; a reason of 0 is left out (section 3.4.2.1)."""
    if reason:
        return bytes((first_byte, 3)) + packet_id.to_bytes(2, "big") + bytes((reason,))
    return bytes((first_byte, 2)) + packet_id.to_bytes(2, "big")


def encode_disconnect(reason: Reason) -> bytes:
    """A DISCONNECT from the broker (section 3.14)."""
    return bytes((0xE0, 2, reason, 0))
