"""MQTT control packets as bytes: framing and the 3.1.1 forms that our own front door handles.

Not for: MQTT 5 forms (v5_encode.py), what a packet means for a session (connection.py).
References are to the OASIS standard MQTT 3.1.1 unless said otherwise.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence

import msgspec

from appliance.model import EncodedProperties
from appliance.mqtt.topics import topic_problem

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)

PINGRESP_BYTES = b"\xd0\x00"
DISCONNECT_BYTES = b"\xe0\x00"
SUBSCRIBE_FAILED = 0x80

_REQUIRED_FLAGS = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}
"""Section 2.2.2: these packets have fixed flags; all others but PUBLISH have 0."""


class Reason(enum.IntEnum):
    """MQTT 5 reason codes (MQTT 5, section 2.4) that this broker sends or keeps in its counters."""

    SUCCESS = 0x00
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E


class Refused(enum.IntEnum):
    """CONNACK return codes of 3.1.1 (table 3.1)."""

    PROTOCOL_VERSION = 1
    IDENTIFIER = 2
    UNAVAILABLE = 3
    CREDENTIALS = 4
    NOT_AUTHORIZED = 5


_AS_311 = {
    Reason.UNSUPPORTED_PROTOCOL_VERSION: Refused.PROTOCOL_VERSION,
    Reason.CLIENT_ID_NOT_VALID: Refused.IDENTIFIER,
    Reason.BAD_USER_NAME_OR_PASSWORD: Refused.CREDENTIALS,
    Reason.NOT_AUTHORIZED: Refused.NOT_AUTHORIZED,
    Reason.BANNED: Refused.NOT_AUTHORIZED,
}


class PacketError(Exception):
    """A packet breaks the protocol: the connection ends.

    ``reason`` is what an MQTT 5 client is told; ``str()`` is for the log and names the rule.
    """

    def __init__(self, text: str, reason: Reason = Reason.MALFORMED_PACKET) -> None:
        super().__init__(text)
        self.reason = reason


class Will(msgspec.Struct, frozen=True):
    """A message that the broker publishes when its client goes away without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay_s: int = 0
    properties: EncodedProperties | None = None


class Connect(msgspec.Struct, frozen=True):
    """What a CONNECT asks for, in either version of the protocol."""

    version: int
    """3 for MQTT 3.1, 4 for MQTT 3.1.1, 5 for MQTT 5."""
    client_id: str
    clean_start: bool
    keepalive_s: int
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    session_expiry_s: int = 0
    """How long the session outlives the connection; 3.1.1 sessions that are not clean: for ever."""
    receive_maximum: int = 65535
    maximum_packet_size: int | None = None
    authentication_method: str | None = None

    def __repr__(self) -> str:
        return f"Connect(version={self.version}, client_id={self.client_id!r})"


FOR_EVER = 0xFFFFFFFF
"""A session expiry interval that never ends (MQTT 5, section 3.1.2.11.2)."""


class SubscribeOptions(msgspec.Struct, frozen=True):
    """One topic filter of a SUBSCRIBE with its options (MQTT 5, section 3.8.3.1)."""

    topic_filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int | None = None


LARGEST_LENGTH = 268_435_455
"""The highest remaining length, in bytes: four digits of seven bits (section 2.2.3)."""


def encode_length(length: int) -> bytes:
    """The remaining length field (section 2.2.3)."""
    if length < 128:
        return bytes((length,))
    out = bytearray()
    while True:
        length, digit = divmod(length, 128)
        out.append(digit | 0x80 if length else digit)
        if not length:
            return bytes(out)


def frame(buffer: bytes | bytearray, start: int, limit: int) -> tuple[int, int] | None:
    """Find the packet that starts at ``start``: (start of its body, its end).

    ``None`` if the fixed header is not complete yet. The packet itself may still be incomplete:
    its size is known, and refused if beyond ``limit`` bytes, before it is read.

    Raises:
        PacketError: the length field is malformed, or the packet is larger than ``limit``.
    """
    available = len(buffer)
    length = shift = 0
    position = start + 1
    while True:
        if position >= available:
            return None
        digit = buffer[position]
        position += 1
        length |= (digit & 0x7F) << shift
        if digit < 128:
            break
        shift += 7
        if shift > 21:
            raise PacketError("the remaining length has more than four bytes [MQTT-2.2.3]")
    if position - start + length > limit:
        raise PacketError(
            f"a packet of {position - start + length} bytes is larger than limits.max_packet_size"
            f" ({limit})",
            Reason.PACKET_TOO_LARGE,
        )
    return position, position + length


def check_flags(first_byte: int) -> int:
    """The packet type of a fixed header's first byte.

    Raises:
        PacketError: reserved type, or flags other than section 2.2.2 fixes.
    """
    packet_type = first_byte >> 4
    if packet_type == 0:
        raise PacketError("packet type 0 is reserved [MQTT-2.2.1]")
    if packet_type != PUBLISH and first_byte & 0x0F != _REQUIRED_FLAGS.get(packet_type, 0):
        raise PacketError(f"flags {first_byte & 0x0F:#x} are reserved [MQTT-2.2.2-2]")
    return packet_type


class Body:
    """Reads the fields of a packet's body one after the other; short bodies raise PacketError."""

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def byte(self) -> int:
        self.position += 1
        if self.position > len(self._data):
            raise PacketError("the packet ends too early")
        return self._data[self.position - 1]

    def number(self) -> int:
        return self.byte() << 8 | self.byte()

    def binary(self) -> bytes:
        size = self.number()
        end = self.position + size
        if end > len(self._data):
            raise PacketError("the packet ends too early")
        value = self._data[self.position : end]
        self.position = end
        return value

    def skip_binary(self) -> None:
        """Pass over binary data or a string."""
        size = self.number()
        self.position += size
        if self.position > len(self._data):
            raise PacketError("the packet ends too early")

    def text(self) -> str:
        return utf8(self.binary())

    @property
    def at_end(self) -> bool:
        return self.position >= len(self._data)

    @property
    def left(self) -> int:
        """Bytes that have not been read yet."""
        return len(self._data) - self.position

    def must_end(self) -> None:
        if not self.at_end:
            raise PacketError("the packet has bytes behind its last field")


def variable_number(body: Body) -> int:
    """A variable byte integer (MQTT 5, section 1.5.5)."""
    value = shift = 0
    while True:
        digit = body.byte()
        value |= (digit & 0x7F) << shift
        if digit < 128:
            return value
        shift += 7
        if shift > 21:
            raise PacketError("a variable byte integer has more than four bytes")


def utf8(data: bytes) -> str:
    """Decode an MQTT string (section 1.5.3): strict UTF-8, no null character."""
    try:
        value = data.decode()
    except UnicodeDecodeError:
        raise PacketError("a string is not UTF-8 [MQTT-1.5.3-1]") from None
    if "\0" in value:
        raise PacketError("a string has a null character [MQTT-1.5.3-2]")
    return value


def protocol_version(body: bytes, *, allow_mqtt31: bool = False) -> int:
    """The protocol level of a CONNECT body (sections 3.1.2.1 and 3.1.2.2): 4, 5, or 3 if allowed.

    Raises:
        PacketError: not MQTT, or a version that is not spoken here.
    """
    reader = Body(body)
    name = reader.binary()
    level = reader.byte()
    if name == b"MQTT" and level in (4, 5):
        return level
    if name == b"MQIsdp" and level == 3 and allow_mqtt31:
        return level
    if name == b"MQIsdp":
        raise PacketError(
            "MQTT 3.1 is not accepted: set the client to MQTT 3.1.1 or 5, or set allow_mqtt31 in"
            " its [[listener]]",
            Reason.UNSUPPORTED_PROTOCOL_VERSION,
        )
    if name == b"MQTT":
        raise PacketError(
            f"protocol level {level} is not supported: set the client to MQTT 3.1.1 or 5"
            " [MQTT-3.1.2-2]",
            Reason.UNSUPPORTED_PROTOCOL_VERSION,
        )
    raise PacketError("the first packet is not an MQTT CONNECT [MQTT-3.1.2-1]")


def publish_topic(data: bytes) -> str:
    """Decode the topic of a PUBLISH.

    Raises:
        PacketError: not a topic that can be published to.
    """
    topic = utf8(data)
    if not topic:
        raise PacketError("a PUBLISH without a topic [MQTT-4.7.3-1]", Reason.PROTOCOL_ERROR)
    if problem := topic_problem(topic):
        raise PacketError(f"topic {topic[:80]!r}: {problem}", Reason.TOPIC_NAME_INVALID)
    return topic


def encode_publish(
    topic: bytes, payload: bytes, qos: int, *, retain: bool, duplicate: bool, packet_id: int
) -> bytes:
    """A 3.1.1 PUBLISH (section 3.3); ``packet_id`` is left out at QoS 0."""
    first = 0x30 | (8 if duplicate else 0) | qos << 1 | (1 if retain else 0)
    size = len(topic)
    length = size + len(payload) + (4 if qos else 2)
    # A call of ``encode_length`` for each delivery would be a tenth of its time.
    if length < 128:
        front = bytes((first, length, size >> 8, size & 0xFF))
    elif length < 16384:
        front = bytes((first, length & 0x7F | 0x80, length >> 7, size >> 8, size & 0xFF))
    else:
        front = bytes((first,)) + encode_length(length) + size.to_bytes(2, "big")
    if qos:
        return b"".join((front, topic, packet_id.to_bytes(2, "big"), payload))
    return b"".join((front, topic, payload))


BREAKS_PROTOCOL = frozenset(
    {Reason.MALFORMED_PACKET, Reason.PROTOCOL_ERROR, Reason.TOPIC_NAME_INVALID}
)
"""Why a CONNECT of 3.1.1 gets no answer: its connection is just closed [MQTT-3.1.4-1]."""


def encode_refusal(reason: Reason) -> bytes:
    """A 3.1.1 CONNACK that refuses (section 3.2)."""
    return b"\x20\x02\x00" + bytes((_AS_311.get(reason, Refused.UNAVAILABLE),))


def string(data: bytes) -> bytes:
    """A string or binary data with its length in front (section 1.5.3)."""
    return struct.pack(">H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    """A packet: its first byte, the length of its body, its body."""
    return bytes((first,)) + encode_length(len(body)) + body


def encode_suback(packet_id: int, codes: tuple[int, ...]) -> bytes:
    """A 3.1.1 SUBACK with one return code a filter (section 3.9.3)."""
    return packet(0x90, packet_id.to_bytes(2, "big") + bytes(codes))


def encode_host_connect(client_id: str) -> bytes:
    """The CONNECT that the session host behind the door gets: a clean session and a client id.

    Will, keepalive and credentials have been dealt with in front.
    """
    return packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + string(client_id.encode()))


def encode_host_subscribe(packet_id: int, wanted: Sequence[SubscribeOptions]) -> bytes:
    """A 3.1.1 SUBSCRIBE for the session host."""
    filters = [string(one.topic_filter.encode()) + bytes((one.qos,)) for one in wanted]
    return packet(0x82, packet_id.to_bytes(2, "big") + b"".join(filters))


def encode_host_unsubscribe(packet_id: int, filters: Sequence[str]) -> bytes:
    """A 3.1.1 UNSUBSCRIBE for the session host."""
    names = [string(one.encode()) for one in filters]
    return packet(0xA2, packet_id.to_bytes(2, "big") + b"".join(names))
