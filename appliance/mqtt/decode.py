"""MQTT control packets that clients send, decoded strictly into the forms of packets.py.

The ``mqtt5`` codec encodes what we send, but does not decode here: it accepts packets that the
standard forbids, and ends the process on a string that is not UTF-8. Not for: framing
(packets.frame), sessions. References are to MQTT 5; ``version`` is 3 (MQTT 3.1), 4 (3.1.1) or 5.
"""

from __future__ import annotations

from typing import Any

from appliance.model import EncodedProperties, MessageProperties
from appliance.mqtt import properties
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
from appliance.mqtt.properties import (
    CLIENT_LIMIT,
    CONNECT_LIMIT,
    PropertyLimit,
    TooManyPropertiesError,
)
from appliance.mqtt.topics import malformed_filter, topic_problem

OF_MESSAGES = frozenset(
    {
        properties.PAYLOAD_FORMAT,
        properties.MESSAGE_EXPIRY,
        properties.CONTENT_TYPE,
        properties.RESPONSE_TOPIC,
        properties.CORRELATION_DATA,
        properties.USER_PROPERTY,
    }
)
"""The properties that belong to the message, not to the packet."""
_IN_CONNECT = frozenset(
    {
        properties.SESSION_EXPIRY,
        properties.AUTHENTICATION_METHOD,
        properties.AUTHENTICATION_DATA,
        properties.REQUEST_PROBLEM,
        properties.REQUEST_RESPONSE,
        properties.RECEIVE_MAXIMUM,
        properties.TOPIC_ALIAS_MAXIMUM,
        properties.USER_PROPERTY,
        properties.MAXIMUM_PACKET_SIZE,
    }
)
_IN_WILL = OF_MESSAGES | {properties.WILL_DELAY}
_IN_PUBLISH = OF_MESSAGES | {properties.TOPIC_ALIAS}
_IN_SUBSCRIBE = frozenset({properties.SUBSCRIPTION_IDENTIFIER, properties.USER_PROPERTY})
_IN_UNSUBSCRIBE = frozenset({properties.USER_PROPERTY})
_IN_ACKNOWLEDGEMENT = frozenset({properties.REASON_STRING, properties.USER_PROPERTY})
_IN_DISCONNECT = frozenset(
    {properties.SESSION_EXPIRY, properties.REASON_STRING, properties.USER_PROPERTY}
)


_NO_PROPERTIES = MessageProperties()
_ACKNOWLEDGED = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_RELEASED = frozenset({0x00, 0x92})
_DISCONNECTED = frozenset({0x00, 0x04, *range(0x80, 0x84), 0x90, 0x93, 0x94, 0x95, 0x96, 0x97})
_DISCONNECTED |= {0x98, 0x99}


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
        if identifier == properties.USER_PROPERTY:
            body.skip_binary()
            body.skip_binary()
            continue
        if identifier not in _IN_PUBLISH:
            raise PacketError(f"property {identifier:#x} does not belong in this packet")
        value = properties.READ[identifier](body)
        if identifier == properties.TOPIC_ALIAS:
            alias = value
    return alias


def message_properties(found: dict[int, Any]) -> EncodedProperties | None:
    """What outlives the packet, of the properties that were read.

    Raises:
        PacketError: the response topic is none that can be published to.
    """
    response = found.get(properties.RESPONSE_TOPIC)
    if response is not None and (problem := topic_problem(response)):
        raise PacketError(f"the response topic: {problem}", Reason.TOPIC_NAME_INVALID)
    kept = MessageProperties(
        payload_format=found.get(properties.PAYLOAD_FORMAT, 0),
        message_expiry_s=found.get(properties.MESSAGE_EXPIRY),
        content_type=found.get(properties.CONTENT_TYPE),
        response_topic=response,
        correlation_data=found.get(properties.CORRELATION_DATA),
        user_properties=tuple(found.get(properties.USER_PROPERTY, ())),
        payload_format_is_0=found.get(properties.PAYLOAD_FORMAT) == 0,
    )
    return None if kept == _NO_PROPERTIES else kept.encoded()


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
        found = properties.read(body, _IN_PUBLISH, limit)
    except TooManyPropertiesError as error:
        error.alias = _alias_among(Body(data[start:stop]), limit)
        raise
    return message_properties(found), found.get(properties.TOPIC_ALIAS), start + body.position


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
    found = properties.read(body, _IN_CONNECT, CONNECT_LIMIT) if version == 5 else {}
    if properties.AUTHENTICATION_DATA in found and properties.AUTHENTICATION_METHOD not in found:
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
        session_expiry_s=found.get(
            properties.SESSION_EXPIRY, 0 if clean or version == 5 else FOR_EVER
        ),
        receive_maximum=found.get(properties.RECEIVE_MAXIMUM, 65535),
        maximum_packet_size=found.get(properties.MAXIMUM_PACKET_SIZE),
        authentication_method=found.get(properties.AUTHENTICATION_METHOD),
    )


def _will(body: Body, flags: int, version: int, of_message: PropertyLimit) -> Will:
    limit = PropertyLimit(
        min(CONNECT_LIMIT.size, of_message.size), min(CONNECT_LIMIT.pairs, of_message.pairs)
    )
    found = properties.read(body, _IN_WILL, limit) if version == 5 else {}
    topic = body.text()
    if problem := topic_problem(topic):
        raise PacketError(f"the will's topic: {problem}", Reason.TOPIC_NAME_INVALID)
    return Will(
        topic=topic,
        payload=body.binary(),
        qos=flags >> 3 & 3,
        retain=bool(flags & 0x20),
        delay_s=found.get(properties.WILL_DELAY, 0),
        properties=message_properties(found),
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
    found = properties.read(body, _IN_SUBSCRIBE) if version == 5 else {}
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
                identifier=found.get(properties.SUBSCRIPTION_IDENTIFIER),
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
        properties.read(body, _IN_UNSUBSCRIBE)
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
        properties.read(body, _IN_ACKNOWLEDGEMENT)
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
        found = properties.read(body, _IN_DISCONNECT)
        body.must_end()
    return reason, found.get(properties.SESSION_EXPIRY)
