"""MQTT control packets that clients send, decoded strictly into the forms of packets.py.

The ``mqtt5`` codec encodes what we send, but does not decode here: it accepts packets that the
standard forbids, and ends the process on a string that is not UTF-8. Not for: framing
(packets.frame), sessions. References are to MQTT 5; ``version`` is 3 (MQTT 3.1), 4 (3.1.1) or 5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from appliance.model import EncodedProperties, MessageProperties
from appliance.mqtt.packets import (
    FOR_EVER,
    Body,
    Connect,
    PacketError,
    Reason,
    SubscribeOptions,
    Will,
    variable_number,
)
from appliance.mqtt.topics import malformed_filter, topic_problem

_PAYLOAD_FORMAT = 0x01
_MESSAGE_EXPIRY = 0x02
_CONTENT_TYPE = 0x03
_RESPONSE_TOPIC = 0x08
_CORRELATION_DATA = 0x09
_SUBSCRIPTION_IDENTIFIER = 0x0B
_SESSION_EXPIRY = 0x11
_AUTHENTICATION_METHOD = 0x15
_AUTHENTICATION_DATA = 0x16
_REQUEST_PROBLEM = 0x17
_WILL_DELAY = 0x18
_REQUEST_RESPONSE = 0x19
_REASON_STRING = 0x1F
_RECEIVE_MAXIMUM = 0x21
_TOPIC_ALIAS_MAXIMUM = 0x22
_TOPIC_ALIAS = 0x23
_USER_PROPERTY = 0x26
_MAXIMUM_PACKET_SIZE = 0x27

_OF_MESSAGES = frozenset(
    {
        _PAYLOAD_FORMAT,
        _MESSAGE_EXPIRY,
        _CONTENT_TYPE,
        _RESPONSE_TOPIC,
        _CORRELATION_DATA,
        _USER_PROPERTY,
    }
)
_IN_CONNECT = frozenset(
    {
        _SESSION_EXPIRY,
        _AUTHENTICATION_METHOD,
        _AUTHENTICATION_DATA,
        _REQUEST_PROBLEM,
        _REQUEST_RESPONSE,
        _RECEIVE_MAXIMUM,
        _TOPIC_ALIAS_MAXIMUM,
        _USER_PROPERTY,
        _MAXIMUM_PACKET_SIZE,
    }
)
_IN_WILL = _OF_MESSAGES | {_WILL_DELAY}
_IN_PUBLISH = _OF_MESSAGES | {_TOPIC_ALIAS}
_IN_SUBSCRIBE = frozenset({_SUBSCRIPTION_IDENTIFIER, _USER_PROPERTY})
_IN_UNSUBSCRIBE = frozenset({_USER_PROPERTY})
_IN_ACKNOWLEDGEMENT = frozenset({_REASON_STRING, _USER_PROPERTY})
_IN_DISCONNECT = frozenset({_SESSION_EXPIRY, _REASON_STRING, _USER_PROPERTY})


class PropertyLimit(NamedTuple):
    """How much one property list may hold.

    The standard sets no bound. A property is decoded into objects many times its size, so a packet
    of the largest size would cost much time and memory.
    """

    size: int
    """Bytes as they come."""
    pairs: int
    """User properties."""


class TooManyPropertiesError(PacketError):
    """A packet holds more properties than the client may send."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Reason.QUOTA_EXCEEDED)
        self.alias: int | None = None
        """The topic alias among them, if the packet is a PUBLISH."""


CONNECT_LIMIT = PropertyLimit(8 * 1024, 100)
"""For CONNECT and the will in it: the client has not been admitted yet."""
CLIENT_LIMIT = PropertyLimit(64 * 1024, 1000)
"""For all other packets. For PUBLISH and the will another limit may be given."""

_NO_PROPERTIES = MessageProperties()
_ACKNOWLEDGED = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_RELEASED = frozenset({0x00, 0x92})
_DISCONNECTED = frozenset({0x00, 0x04, *range(0x80, 0x84), 0x90, 0x93, 0x94, 0x95, 0x96, 0x97})
_DISCONNECTED |= {0x98, 0x99}


def _flag(body: Body, otherwise: Reason = Reason.PROTOCOL_ERROR) -> int:
    value = body.byte()
    if value > 1:
        raise PacketError(f"a property is {value} where only 0 and 1 are allowed", otherwise)
    return value


def _four_bytes(body: Body) -> int:
    return body.number() << 16 | body.number()


def _not_zero(value: int) -> int:
    if not value:
        raise PacketError("a property is 0, which is not allowed", Reason.PROTOCOL_ERROR)
    return value


_READ: dict[int, Any] = {
    # Sections 3.1.2.11.6 and 7 call another value a protocol error; 3.3.2.3.2 does not.
    _PAYLOAD_FORMAT: lambda body: _flag(body, Reason.MALFORMED_PACKET),
    _MESSAGE_EXPIRY: _four_bytes,
    _CONTENT_TYPE: Body.text,
    _RESPONSE_TOPIC: Body.text,
    _CORRELATION_DATA: Body.binary,
    _SUBSCRIPTION_IDENTIFIER: lambda body: _not_zero(variable_number(body)),
    _SESSION_EXPIRY: _four_bytes,
    _AUTHENTICATION_METHOD: Body.text,
    _AUTHENTICATION_DATA: Body.binary,
    _REQUEST_PROBLEM: _flag,
    _WILL_DELAY: _four_bytes,
    _REQUEST_RESPONSE: _flag,
    _REASON_STRING: Body.text,
    _RECEIVE_MAXIMUM: lambda body: _not_zero(body.number()),
    _TOPIC_ALIAS_MAXIMUM: Body.number,
    # Its bound is the publisher's matter; 0 is answered with a reason of its own (publish.py).
    _TOPIC_ALIAS: Body.number,
    _USER_PROPERTY: lambda body: (body.text(), body.text()),
    _MAXIMUM_PACKET_SIZE: lambda body: _not_zero(_four_bytes(body)),
}


def _properties(
    body: Body, allowed: frozenset[int], limit: PropertyLimit = CLIENT_LIMIT
) -> dict[int, Any]:
    """Read a property list (section 2.2.2); user properties come as a list of pairs."""
    size = variable_number(body)
    if limit.size < size <= body.left:
        raise TooManyPropertiesError(
            f"{size} bytes of properties in a packet, more than {limit.size}"
        )
    end = body.position + size
    found: dict[int, Any] = {}
    while body.position < end:
        identifier = variable_number(body)
        if identifier not in allowed:
            raise PacketError(f"property {identifier:#x} does not belong in this packet")
        value = _READ[identifier](body)
        if identifier == _USER_PROPERTY:
            pairs = found.setdefault(_USER_PROPERTY, [])
            if len(pairs) == limit.pairs:
                raise TooManyPropertiesError(f"more than {limit.pairs} user properties in a packet")
            pairs.append(value)
        elif identifier in found:
            raise PacketError(f"property {identifier:#x} comes twice", Reason.PROTOCOL_ERROR)
        else:
            found[identifier] = value
    if body.position != end:
        raise PacketError("the properties do not end where they should")
    return found


def _alias_among(body: Body, limit: PropertyLimit) -> int | None:
    """The topic alias of a property list that is too long to be kept.

    Only as many bytes are looked at as a list may have: a longer look would be the work that the
    limit spares. A client that puts the alias behind them will find it unknown.
    """
    size = variable_number(body)
    end = body.position + min(size, limit.size)
    alias = None
    while body.position < end:
        identifier = variable_number(body)
        if identifier == _USER_PROPERTY:
            body.skip_binary()
            body.skip_binary()
            continue
        if identifier not in _IN_PUBLISH:
            raise PacketError(f"property {identifier:#x} does not belong in this packet")
        value = _READ[identifier](body)
        if identifier == _TOPIC_ALIAS:
            alias = value
    return alias


def _of_message(found: dict[int, Any]) -> EncodedProperties | None:
    response = found.get(_RESPONSE_TOPIC)
    if response is not None and (problem := topic_problem(response)):
        raise PacketError(f"the response topic: {problem}", Reason.TOPIC_NAME_INVALID)
    properties = MessageProperties(
        payload_format=found.get(_PAYLOAD_FORMAT, 0),
        message_expiry_s=found.get(_MESSAGE_EXPIRY),
        content_type=found.get(_CONTENT_TYPE),
        response_topic=response,
        correlation_data=found.get(_CORRELATION_DATA),
        user_properties=tuple(found.get(_USER_PROPERTY, ())),
        payload_format_is_0=found.get(_PAYLOAD_FORMAT) == 0,
    )
    return None if properties == _NO_PROPERTIES else properties.encoded()


def publish_properties(
    data: bytes, start: int, stop: int, limit: PropertyLimit = CLIENT_LIMIT
) -> tuple[EncodedProperties | None, int | None, int]:
    """The properties of a PUBLISH that begin at ``start`` in a packet that ends at ``stop``.

    Returns those that outlive the packet, the topic alias, and where the payload begins.

    Raises:
        PacketError: they break the protocol.
        TooManyPropertiesError: the PUBLISH is to be refused; a topic alias in it counts.
    """
    body = Body(data[start:stop])
    try:
        found = _properties(body, _IN_PUBLISH, limit)
    except TooManyPropertiesError as error:
        error.alias = _alias_among(Body(data[start:stop]), limit)
        raise
    return _of_message(found), found.get(_TOPIC_ALIAS), start + body.position


def connect(data: bytes, version: int, of_message: PropertyLimit = CLIENT_LIMIT) -> Connect:
    """The body of a CONNECT (section 3.1); ``of_message``: how many properties a message may have.

    Raises:
        PacketError: it breaks the protocol.
    """
    body = Body(data)
    body.binary()
    level = body.byte()
    flags = body.byte()
    keepalive = body.number()
    rule = "MQTT5" if version == 5 else "MQTT"
    if flags & 0x01:
        raise PacketError(f"the reserved connect flag is set [{rule}-3.1.2-3]")
    if not flags & 0x04 and flags & 0x38:
        raise PacketError(f"will flags without a will [{rule}-3.1.2-11]")
    if flags & 0x18 == 0x18:
        raise PacketError(f"the will's QoS is 3 [{rule}-3.1.2-{12 if version == 5 else 14}]")
    if version < 5 and flags & 0x40 and not flags & 0x80:
        raise PacketError("a password without a user name [MQTT-3.1.2-22]")
    found = _properties(body, _IN_CONNECT, CONNECT_LIMIT) if version == 5 else {}
    if _AUTHENTICATION_DATA in found and _AUTHENTICATION_METHOD not in found:
        raise PacketError("authentication data without a method", Reason.PROTOCOL_ERROR)
    client_id = body.text()
    will = _will(body, flags, version, of_message) if flags & 0x04 else None
    # MQTT 3.1 allows name and password to be missing although their flags are set.
    ends = version == 3 and body.at_end
    username = body.text() if flags & 0x80 and not ends else None
    ends = version == 3 and body.at_end
    password = body.binary() if flags & 0x40 and not ends else None
    body.must_end()
    clean = bool(flags & 0x02)
    return Connect(
        version=level,
        client_id=client_id,
        clean_start=clean,
        keepalive_s=keepalive,
        username=username,
        password=password,
        will=will,
        session_expiry_s=found.get(_SESSION_EXPIRY, 0 if clean or version == 5 else FOR_EVER),
        receive_maximum=found.get(_RECEIVE_MAXIMUM, 65535),
        maximum_packet_size=found.get(_MAXIMUM_PACKET_SIZE),
        authentication_method=found.get(_AUTHENTICATION_METHOD),
    )


def _will(body: Body, flags: int, version: int, of_message: PropertyLimit) -> Will:
    limit = PropertyLimit(
        min(CONNECT_LIMIT.size, of_message.size), min(CONNECT_LIMIT.pairs, of_message.pairs)
    )
    found = _properties(body, _IN_WILL, limit) if version == 5 else {}
    topic = body.text()
    if problem := topic_problem(topic):
        raise PacketError(f"the will's topic: {problem}", Reason.TOPIC_NAME_INVALID)
    return Will(
        topic=topic,
        payload=body.binary(),
        qos=flags >> 3 & 3,
        retain=bool(flags & 0x20),
        delay_s=found.get(_WILL_DELAY, 0),
        properties=_of_message(found),
    )


def _packet_id(body: Body, version: int) -> int:
    packet_id = body.number()
    if packet_id == 0:
        rule = "MQTT5-2.2.1-3" if version == 5 else "MQTT-2.3.1-1"
        raise PacketError(f"packet id 0 [{rule}]", Reason.PROTOCOL_ERROR)
    return packet_id


def _topic_filter(body: Body) -> str:
    topic_filter = body.text()
    if problem := malformed_filter(topic_filter):
        # A refusal in SUBACK is for filters that are well formed (MQTT 5, section 3.9.3).
        raise PacketError(f"topic filter {topic_filter[:80]!r}: {problem} [MQTT-4.7.1, 4.7.3-1]")
    return topic_filter


class TooManyFiltersError(PacketError):
    """A packet names more topic filters than the client may subscribe to."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"more than {most} topic filters in one packet (limits.max_subscriptions_per_client)",
            Reason.QUOTA_EXCEEDED,
        )


def subscribe(
    data: bytes, version: int, most: int = FOR_EVER
) -> tuple[int, tuple[SubscribeOptions, ...]]:
    """The body of a SUBSCRIBE (section 3.8): packet id, filters with their options.

    Filters are well formed; they may still have too many levels, or be no shared subscriptions
    although they begin like one.

    Raises:
        PacketError: it breaks the protocol.
        TooManyFiltersError: there are more than ``most`` filters; the rest is not looked at.
    """
    body = Body(data)
    packet_id = _packet_id(body, version)
    found = _properties(body, _IN_SUBSCRIBE) if version == 5 else {}
    wanted: list[SubscribeOptions] = []
    while not body.at_end:
        if len(wanted) == most:
            raise TooManyFiltersError(most)
        topic_filter = _topic_filter(body)
        options = body.byte()
        if version == 3:
            options &= 0x03  # the other bits are not used in MQTT 3.1
        if version < 5 and options > 2:
            raise PacketError(f"a subscription asks for QoS {options} [MQTT-3-8.3-4]")
        if options & 0xC0:
            raise PacketError("reserved bits of subscription options are set [MQTT5-3.8.3-5]")
        if options & 0x03 == 3 or options & 0x30 == 0x30:
            raise PacketError("a subscription option has a value of 3", Reason.PROTOCOL_ERROR)
        if options & 0x04 and topic_filter.startswith("$share/"):
            raise PacketError(
                "no local at a shared subscription [MQTT5-3.8.3-4]", Reason.PROTOCOL_ERROR
            )
        wanted.append(
            SubscribeOptions(
                topic_filter=topic_filter,
                qos=options & 0x03,
                no_local=bool(options & 0x04),
                retain_as_published=bool(options & 0x08),
                retain_handling=options >> 4 & 3,
                identifier=found.get(_SUBSCRIPTION_IDENTIFIER),
            )
        )
    if not wanted:
        rule = "" if version == 5 else " [MQTT-3.8.3-3]"
        raise PacketError(f"a SUBSCRIBE without a topic filter{rule}", Reason.PROTOCOL_ERROR)
    return packet_id, tuple(wanted)


def unsubscribe(data: bytes, version: int, most: int = FOR_EVER) -> tuple[int, tuple[str, ...]]:
    """The body of an UNSUBSCRIBE (section 3.10): packet id, filters.

    Raises:
        PacketError: it breaks the protocol.
        TooManyFiltersError: there are more than ``most`` filters; the rest is not looked at.
    """
    body = Body(data)
    packet_id = _packet_id(body, version)
    if version == 5:
        _properties(body, _IN_UNSUBSCRIBE)
    filters: list[str] = []
    while not body.at_end:
        if len(filters) == most:
            raise TooManyFiltersError(most)
        filters.append(_topic_filter(body))
    if not filters:
        rule = "" if version == 5 else " [MQTT-3.10.3-2]"
        raise PacketError(f"an UNSUBSCRIBE without a topic filter{rule}", Reason.PROTOCOL_ERROR)
    return packet_id, tuple(filters)


def acknowledgement(data: bytes, version: int, *, is_of_release: bool) -> tuple[int, int]:
    """The body of PUBACK and PUBREC, or of PUBREL and PUBCOMP: packet id, reason code.

    Raises:
        PacketError: it breaks the protocol.
    """
    if len(data) == 2 and (packet_id := data[0] << 8 | data[1]):
        return packet_id, 0  # nearly all are like that
    body = Body(data)
    packet_id = _packet_id(body, version)
    if version < 5:
        body.must_end()
        return packet_id, 0
    reason = 0 if body.at_end else body.byte()
    if reason not in (_RELEASED if is_of_release else _ACKNOWLEDGED):
        raise PacketError(f"reason {reason:#x} does not belong in this packet")
    if not body.at_end:
        _properties(body, _IN_ACKNOWLEDGEMENT)
        body.must_end()
    return packet_id, reason


def disconnect(data: bytes) -> tuple[int, int | None]:
    """The body of a DISCONNECT (section 3.14): reason code, session expiry if there is one.

    Raises:
        PacketError: it breaks the protocol.
    """
    body = Body(data)
    reason = 0 if body.at_end else body.byte()
    if reason not in _DISCONNECTED:
        raise PacketError(f"reason {reason:#x} does not belong in this packet")
    found: dict[int, Any] = {}
    if not body.at_end:
        found = _properties(body, _IN_DISCONNECT)
        body.must_end()
    return reason, found.get(_SESSION_EXPIRY)
