"""The property lists of MQTT 5 packets: which properties there are, how each one is read.

Not for: which packet may have which (decode.py, client_packets.py). References are to MQTT 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from appliance.mqtt.packets import Body, PacketError, Reason, variable_number

PAYLOAD_FORMAT = 0x01
MESSAGE_EXPIRY = 0x02
CONTENT_TYPE = 0x03
RESPONSE_TOPIC = 0x08
CORRELATION_DATA = 0x09
SUBSCRIPTION_IDENTIFIER = 0x0B
SESSION_EXPIRY = 0x11
ASSIGNED_CLIENT_ID = 0x12
SERVER_KEEPALIVE = 0x13
AUTHENTICATION_METHOD = 0x15
AUTHENTICATION_DATA = 0x16
REQUEST_PROBLEM = 0x17
WILL_DELAY = 0x18
REQUEST_RESPONSE = 0x19
RESPONSE_INFORMATION = 0x1A
SERVER_REFERENCE = 0x1C
REASON_STRING = 0x1F
RECEIVE_MAXIMUM = 0x21
TOPIC_ALIAS_MAXIMUM = 0x22
TOPIC_ALIAS = 0x23
MAXIMUM_QOS = 0x24
RETAIN_AVAILABLE = 0x25
USER_PROPERTY = 0x26
MAXIMUM_PACKET_SIZE = 0x27
WILDCARDS_AVAILABLE = 0x28
SUBSCRIPTION_IDENTIFIERS_AVAILABLE = 0x29
SHARED_SUBSCRIPTIONS_AVAILABLE = 0x2A


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


READ: dict[int, Callable[[Body], Any]] = {
    # Sections 3.1.2.11.6 and 7 call another value a protocol error; 3.3.2.3.2 does not.
    PAYLOAD_FORMAT: lambda body: _flag(body, Reason.MALFORMED_PACKET),
    MESSAGE_EXPIRY: _four_bytes,
    CONTENT_TYPE: Body.text,
    RESPONSE_TOPIC: Body.text,
    CORRELATION_DATA: Body.binary,
    SUBSCRIPTION_IDENTIFIER: lambda body: _not_zero(variable_number(body)),
    SESSION_EXPIRY: _four_bytes,
    ASSIGNED_CLIENT_ID: Body.text,
    SERVER_KEEPALIVE: Body.number,
    AUTHENTICATION_METHOD: Body.text,
    AUTHENTICATION_DATA: Body.binary,
    REQUEST_PROBLEM: _flag,
    WILL_DELAY: _four_bytes,
    REQUEST_RESPONSE: _flag,
    RESPONSE_INFORMATION: Body.text,
    SERVER_REFERENCE: Body.text,
    REASON_STRING: Body.text,
    RECEIVE_MAXIMUM: lambda body: _not_zero(body.number()),
    TOPIC_ALIAS_MAXIMUM: Body.number,
    # Its bound is the publisher's matter; 0 is answered with a reason of its own (publish.py).
    TOPIC_ALIAS: Body.number,
    MAXIMUM_QOS: _flag,
    RETAIN_AVAILABLE: _flag,
    USER_PROPERTY: lambda body: (body.text(), body.text()),
    MAXIMUM_PACKET_SIZE: lambda body: _not_zero(_four_bytes(body)),
    WILDCARDS_AVAILABLE: _flag,
    SUBSCRIPTION_IDENTIFIERS_AVAILABLE: _flag,
    SHARED_SUBSCRIPTIONS_AVAILABLE: _flag,
}


def read(
    body: Body, allowed: frozenset[int], limit: PropertyLimit = CLIENT_LIMIT
) -> dict[int, Any]:
    """Read a property list (section 2.2.2); user properties come as a list of pairs.

    Raises:
        PacketError: it breaks the protocol.
        TooManyPropertiesError: it holds more than ``limit``.
    """
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
        value = READ[identifier](body)
        if identifier == USER_PROPERTY:
            pairs = found.setdefault(USER_PROPERTY, [])
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
