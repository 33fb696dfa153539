"""MQTT 5 control packets, through the ``mqtt5`` codec, to and from the forms of packets.py.

Not for: framing (packets.frame serves both versions), sessions. References are to MQTT 5.
"""

from __future__ import annotations

import mqtt5

from appliance.broker.packets import (
    FOR_EVER,
    Connect,
    PacketError,
    Reason,
    SubscribeOptions,
    Will,
    encode_length,
)
from appliance.model import Message, MessageProperties
from appliance.topics import topic_problem

TOPIC_ALIAS_MAXIMUM = 64
"""How many topic aliases a publisher may use on one connection (section 3.2.2.3.8)."""


def decode(packet: bytes) -> mqtt5.Packet:
    """Decode one whole packet, fixed header included.

    Raises:
        PacketError: the codec finds it malformed.
    """
    try:
        decoded, _ = mqtt5.read(memoryview(packet))
    except (ValueError, IndexError) as error:
        raise PacketError(f"malformed MQTT 5 packet: {error}") from None
    return decoded


def connect(packet: mqtt5.ConnectPacket) -> Connect:
    """What an MQTT 5 CONNECT asks for.

    Raises:
        PacketError: the will's topic can't be published to, or a value is out of range.
    """
    will = None
    if packet.will is not None:
        if problem := topic_problem(packet.will.topic):
            raise PacketError(f"the will's topic: {problem}", Reason.TOPIC_NAME_INVALID)
        check_properties(packet.will)
        will = Will(
            topic=packet.will.topic,
            payload=packet.will.payload or b"",
            qos=int(packet.will.qos),
            retain=packet.will.retain,
            delay_s=packet.will.will_delay_interval,
            properties=_properties(packet.will),
        )
    return Connect(
        version=5,
        client_id=packet.client_id,
        clean_start=packet.clean_start,
        keepalive_s=packet.keep_alive,
        username=packet.username,
        password=packet.password,
        will=will,
        session_expiry_s=packet.session_expiry_interval,
        receive_maximum=packet.receive_max,
        maximum_packet_size=packet.max_packet_size,
        authentication_method=packet.authentication_method,
    )


def _properties(packet: mqtt5.PublishPacket | mqtt5.Will) -> MessageProperties | None:
    if not (
        packet.content_type is not None
        or packet.response_topic is not None
        or packet.correlation_data is not None
        or packet.message_expiry_interval is not None
        or packet.payload_format_indicator
        or packet.user_properties
    ):
        return None
    return MessageProperties(
        payload_format=packet.payload_format_indicator,
        message_expiry_s=packet.message_expiry_interval,
        content_type=packet.content_type,
        response_topic=packet.response_topic,
        correlation_data=packet.correlation_data,
        user_properties=tuple((name, value) for name, value in packet.user_properties),
    )


def properties(packet: mqtt5.PublishPacket) -> MessageProperties | None:
    """The properties of a PUBLISH that outlive it, or ``None`` if it has none."""
    return _properties(packet)


def check_properties(packet: mqtt5.PublishPacket | mqtt5.Will) -> None:
    """Check what the codec leaves to us (section 3.3.2.3).

    Raises:
        PacketError: a property has a value that it may not have.
    """
    response = packet.response_topic
    if response is not None and (problem := topic_problem(response)):
        raise PacketError(f"the response topic: {problem}", Reason.TOPIC_NAME_INVALID)
    if packet.payload_format_indicator > 1:
        raise PacketError("the payload format indicator is neither 0 nor 1")


def subscriptions(packet: mqtt5.SubscribePacket) -> tuple[SubscribeOptions, ...]:
    """The filters of a SUBSCRIBE with their options (section 3.8.3)."""
    if not packet.topic_filters:
        raise PacketError("a SUBSCRIBE without a topic filter", Reason.PROTOCOL_ERROR)
    return tuple(
        SubscribeOptions(
            topic_filter=wanted.pattern,
            qos=int(wanted.max_qos),
            no_local=wanted.no_local,
            retain_as_published=wanted.retain_as_published,
            retain_handling=int(wanted.retain_handling),
            identifier=packet.subscription_id,
        )
        for wanted in packet.topic_filters
    )


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
    """A CONNACK that accepts, with what this broker offers (section 3.2.2.3)."""
    return mqtt5.ConnAckPacket(
        session_present=session_present,
        assigned_client_id=assigned_client_id,
        server_keep_alive=keepalive_s,
        receive_max=receive_maximum,
        topic_alias_max=TOPIC_ALIAS_MAXIMUM,
        max_packet_size=maximum_packet_size,
        session_expiry_interval=(
            session_expiry_s if session_expiry_s != asked.session_expiry_s else None
        ),
    ).write()


def encode_refusal(reason: Reason) -> bytes:
    """A CONNACK that refuses (section 3.2). The reason code is all a stranger is told."""
    return bytes((0x20, 3, 0, reason, 0))


def encode_publish(
    message: Message,
    payload_qos: int,
    *,
    retain: bool,
    duplicate: bool,
    packet_id: int,
    expiry_s: int | None,
    identifiers: tuple[int, ...],
) -> bytes:
    """A PUBLISH to a subscriber (section 3.3)."""
    kept = message.properties or MessageProperties()
    return mqtt5.PublishPacket(
        message.topic,
        message.payload,
        qos=mqtt5.QoS(payload_qos),
        retain=retain,
        duplicate=duplicate,
        packet_id=packet_id if payload_qos else None,
        payload_format_indicator=kept.payload_format,
        message_expiry_interval=expiry_s,
        content_type=kept.content_type,
        response_topic=kept.response_topic,
        correlation_data=kept.correlation_data,
        user_properties=list(kept.user_properties),
        subscription_ids=list(identifiers),
    ).write()


def encode_suback(packet_id: int, codes: tuple[int, ...]) -> bytes:
    """A SUBACK with one reason code a filter (section 3.9.3)."""
    body = packet_id.to_bytes(2, "big") + b"\x00" + bytes(codes)
    return b"\x90" + encode_length(len(body)) + body


def encode_unsuback(packet_id: int, codes: tuple[int, ...]) -> bytes:
    """An UNSUBACK with one reason code a filter (section 3.11.3)."""
    body = packet_id.to_bytes(2, "big") + b"\x00" + bytes(codes)
    return b"\xb0" + encode_length(len(body)) + body


def encode_ack(first_byte: int, packet_id: int, reason: int = 0) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP; a reason of 0 is left out (section 3.4.2.1)."""
    if reason:
        return bytes((first_byte, 3)) + packet_id.to_bytes(2, "big") + bytes((reason,))
    return bytes((first_byte, 2)) + packet_id.to_bytes(2, "big")


def encode_disconnect(reason: Reason) -> bytes:
    """A DISCONNECT from the broker (section 3.14)."""
    return bytes((0xE0, 2, reason, 0))


__all__ = [
    "FOR_EVER",
    "TOPIC_ALIAS_MAXIMUM",
    "check_properties",
    "connect",
    "decode",
    "encode_ack",
    "encode_connack",
    "encode_disconnect",
    "encode_publish",
    "encode_refusal",
    "encode_suback",
    "encode_unsuback",
    "properties",
    "subscriptions",
]
