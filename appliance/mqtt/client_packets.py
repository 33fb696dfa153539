"""MQTT control packets of a client: those that it sends, and a broker's answers, decoded strictly.

Both versions of the protocol: 4 stands for MQTT 3.1.1, 5 for MQTT 5. They differ by the property
list for the most part, so one function serves both. Reason codes are those of MQTT 5; codes of
3.1.1 are translated. Unknown reason codes are taken, since only their highest bit decides.
Not for: framing (packets.frame), PUBLISH that is sent (packets.encode_publish,
v5_encode.encode_publish), PUBLISH that comes in (received.py). References are to MQTT 5.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from appliance.mqtt import properties, reasons
from appliance.mqtt.packets import (
    Body,
    PacketError,
    Reason,
    SubscribeOptions,
    encode_length,
    packet,
    string,
)
from appliance.mqtt.topics import MAX_TOPIC_BYTES
from appliance.secret import Secret

PINGREQ_BYTES = b"\xc0\x00"
_GIVEN_REASON = frozenset({properties.REASON_STRING, properties.USER_PROPERTY})
_IN_CONNACK = _GIVEN_REASON | {
    properties.SESSION_EXPIRY,
    properties.ASSIGNED_CLIENT_ID,
    properties.SERVER_KEEPALIVE,
    properties.AUTHENTICATION_METHOD,
    properties.AUTHENTICATION_DATA,
    properties.RESPONSE_INFORMATION,
    properties.SERVER_REFERENCE,
    properties.RECEIVE_MAXIMUM,
    properties.TOPIC_ALIAS_MAXIMUM,
    properties.MAXIMUM_QOS,
    properties.RETAIN_AVAILABLE,
    properties.MAXIMUM_PACKET_SIZE,
    properties.WILDCARDS_AVAILABLE,
    properties.SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
    properties.SHARED_SUBSCRIPTIONS_AVAILABLE,
}
_IN_DISCONNECT = _GIVEN_REASON | {properties.SESSION_EXPIRY, properties.SERVER_REFERENCE}
_HIGHEST_QOS = 2


class ConnectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a CONNECT asks for (section 3.1). What only MQTT 5 has is left out of a 3.1.1 one."""

    version: int
    client_id: str
    clean_start: bool = True
    keepalive_s: int = 0
    """0 for none."""
    username: str | None = None
    password: Secret | None = None
    session_expiry_s: int = 0
    receive_maximum: int | None = None
    """How many messages of QoS 1 and 2 the broker may send before they are acknowledged."""
    maximum_packet_size: int | None = None
    """In bytes."""
    request_problem_information: bool = True


class ConnAck(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's answer to CONNECT (section 3.2), with the standard's values where it says none."""

    reason: int
    """A reason code of MQTT 5, 0 for success."""
    session_present: bool = False
    receive_maximum: int = 65535
    maximum_qos: int = _HIGHEST_QOS
    retain_available: bool = True
    maximum_packet_size: int | None = None
    """In bytes; ``None``: the broker names no limit."""
    server_keepalive_s: int | None = None
    """The keepalive that is to be used in place of the one that was asked for."""
    assigned_client_id: str = ""
    session_expiry_s: int | None = None
    """``None``: as it was asked for."""
    wildcards_available: bool = True
    shared_subscriptions_available: bool = True
    server_reference: str = ""
    """Where to go instead. Text of the broker: not safe to show as it is."""
    reason_string: str = ""
    """Why, in the broker's words: not safe to show as it is."""


class SubAck(NamedTuple):
    """The answer to a SUBSCRIBE or UNSUBSCRIBE."""

    packet_id: int
    codes: tuple[int, ...]
    """One a filter: the granted quality of service, or a reason code from 0x80 on. Empty for an
    UNSUBACK of 3.1.1."""
    reason_string: str


class Ack(NamedTuple):
    """A PUBACK."""

    packet_id: int
    reason: int
    reason_string: str


class Disconnect(NamedTuple):
    """The broker's DISCONNECT, which MQTT 3.1.1 does not have."""

    reason: int
    reason_string: str
    server_reference: str


def _text(value: str | bytes, what: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if len(data) > MAX_TOPIC_BYTES:
        raise ValueError(f"the {what} is longer than MQTT's {MAX_TOPIC_BYTES} bytes")
    return string(data)


def connect_body(options: ConnectOptions) -> bytes:
    """The body of a CONNECT, for a caller that puts the fixed header before it.

    Raises:
        ValueError: client id, user name or password are too long.
    """
    flags = 0x02 if options.clean_start else 0
    fields = _text(options.client_id, "client id")
    if options.username is not None:
        flags |= 0x80
        fields += _text(options.username, "user name")
    if options.password is not None:
        flags |= 0x40
        fields += _text(options.password.reveal(), "password")
    listed = _connect_properties(options) if options.version == 5 else b""
    head = struct.pack(">H4sBBH", 4, b"MQTT", options.version, flags, options.keepalive_s)
    return head + listed + fields


def encode_connect(options: ConnectOptions) -> bytes:
    """A CONNECT (section 3.1), without a will.

    Raises:
        ValueError: client id, user name or password are too long.
    """
    return packet(0x10, connect_body(options))


def _connect_properties(options: ConnectOptions) -> bytes:
    listed = b""
    if options.session_expiry_s:
        listed += struct.pack(">BI", properties.SESSION_EXPIRY, options.session_expiry_s)
    if options.receive_maximum is not None:
        listed += struct.pack(">BH", properties.RECEIVE_MAXIMUM, options.receive_maximum)
    if options.maximum_packet_size is not None:
        listed += struct.pack(">BI", properties.MAXIMUM_PACKET_SIZE, options.maximum_packet_size)
    if not options.request_problem_information:
        listed += bytes((properties.REQUEST_PROBLEM, 0))
    return encode_length(len(listed)) + listed


def encode_subscribe(packet_id: int, wanted: Sequence[SubscribeOptions], version: int) -> bytes:
    """A SUBSCRIBE (section 3.8); at 3.1.1 the options other than the QoS are left out.

    Raises:
        ValueError: a topic filter is too long.
    """
    body = packet_id.to_bytes(2, "big") + (b"\0" if version == 5 else b"")
    for each in wanted:
        options = each.qos
        if version == 5:
            options |= each.no_local << 2 | each.retain_as_published << 3
            options |= each.retain_handling << 4
        body += _text(each.topic_filter, "topic filter") + bytes((options,))
    return packet(0x82, body)


def encode_unsubscribe(packet_id: int, filters: Sequence[str], version: int) -> bytes:
    """An UNSUBSCRIBE (section 3.10).

    Raises:
        ValueError: a topic filter is too long.
    """
    body = packet_id.to_bytes(2, "big") + (b"\0" if version == 5 else b"")
    return packet(0xA2, body + b"".join(_text(each, "topic filter") for each in filters))


def encode_disconnect(version: int, *, session_expiry_s: int | None = None) -> bytes:
    """A DISCONNECT (section 3.14).

    ``session_expiry_s``: how long the broker keeps the session from now on (MQTT 5 only).
    """
    if version < 5 or session_expiry_s is None:
        return b"\xe0\x00"
    listed = struct.pack(">BI", properties.SESSION_EXPIRY, session_expiry_s)
    return packet(0xE0, b"\0" + encode_length(len(listed)) + listed)


def decode_connack(data: bytes, version: int) -> ConnAck:
    """The body of a CONNACK (section 3.2).

    Raises:
        PacketError: it breaks the protocol.
    """
    body = Body(data)
    flags = body.byte()
    if flags > 1:
        raise PacketError(f"reserved flags in CONNACK: {flags:#x} [MQTT-3.2.2.1]")
    code = body.byte()
    # A broker of 3.1.1 answers MQTT 5 in its own form.
    reason = reasons.of_return_code(code)
    if version < 5:
        body.must_end()
        if code and reason == code:
            reason = Reason.UNSPECIFIED
    found: dict[int, Any] = {}
    if not body.at_end:
        found = properties.read(body, _IN_CONNACK)
        body.must_end()
    return ConnAck(
        reason=reason,
        session_present=bool(flags) and not reason,
        receive_maximum=found.get(properties.RECEIVE_MAXIMUM, 65535),
        maximum_qos=found.get(properties.MAXIMUM_QOS, _HIGHEST_QOS),
        retain_available=bool(found.get(properties.RETAIN_AVAILABLE, 1)),
        maximum_packet_size=found.get(properties.MAXIMUM_PACKET_SIZE),
        server_keepalive_s=found.get(properties.SERVER_KEEPALIVE),
        assigned_client_id=found.get(properties.ASSIGNED_CLIENT_ID, ""),
        session_expiry_s=found.get(properties.SESSION_EXPIRY),
        wildcards_available=bool(found.get(properties.WILDCARDS_AVAILABLE, 1)),
        shared_subscriptions_available=bool(
            found.get(properties.SHARED_SUBSCRIPTIONS_AVAILABLE, 1)
        ),
        server_reference=found.get(properties.SERVER_REFERENCE, ""),
        reason_string=found.get(properties.REASON_STRING, ""),
    )


def _packet_id(body: Body) -> int:
    packet_id = body.number()
    if not packet_id:
        raise PacketError("packet id 0 [MQTT5-2.2.1-3]", Reason.PROTOCOL_ERROR)
    return packet_id


def _reason_string(body: Body) -> str:
    found: str = properties.read(body, _GIVEN_REASON).get(properties.REASON_STRING, "")
    return found


def decode_suback(data: bytes, version: int) -> SubAck:
    """The body of a SUBACK (section 3.9).

    Raises:
        PacketError: it breaks the protocol.
    """
    body = Body(data)
    packet_id = _packet_id(body)
    text = _reason_string(body) if version == 5 else ""
    codes = data[body.position :]
    if not codes:
        raise PacketError("a SUBACK without a reason code", Reason.PROTOCOL_ERROR)
    for code in codes:
        if _HIGHEST_QOS < code < reasons.FAILURE:
            raise PacketError(f"reason {code:#x} does not belong in this packet")
    return SubAck(packet_id, tuple(codes), text)


def decode_unsuback(data: bytes, version: int) -> SubAck:
    """The body of an UNSUBACK (section 3.11).

    Raises:
        PacketError: it breaks the protocol.
    """
    body = Body(data)
    packet_id = _packet_id(body)
    if version < 5:
        body.must_end()
        return SubAck(packet_id, (), "")
    text = _reason_string(body)
    return SubAck(packet_id, tuple(data[body.position :]), text)


def decode_puback(data: bytes, version: int) -> Ack:
    """The body of a PUBACK (section 3.4).

    Raises:
        PacketError: it breaks the protocol.
    """
    if len(data) == 2 and (packet_id := data[0] << 8 | data[1]):
        return Ack(packet_id, 0, "")  # nearly all are like that
    body = Body(data)
    packet_id = _packet_id(body)
    if version < 5:
        body.must_end()
    reason = body.byte() if body.left else 0
    text = ""
    if body.left:
        text = _reason_string(body)
        body.must_end()
    return Ack(packet_id, reason, text)


def decode_disconnect(data: bytes) -> Disconnect:
    """The body of a broker's DISCONNECT (section 3.14).

    Raises:
        PacketError: it breaks the protocol.
    """
    body = Body(data)
    reason = body.byte() if data else 0
    found: dict[int, Any] = {}
    if body.left:
        found = properties.read(body, _IN_DISCONNECT)
        body.must_end()
    return Disconnect(
        reason,
        found.get(properties.REASON_STRING, ""),
        found.get(properties.SERVER_REFERENCE, ""),
    )
