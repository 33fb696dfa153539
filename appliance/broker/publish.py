"""What a client publishes, from bytes to numbered messages: the hot path of the broker.

A reader gathers what arrived in one read (messages, their acknowledgements, the QoS 2 packet ids
that were taken or released) and hands it to the door in one go. Not for: framing and the other
packets (connection.py), the journal (door.py). References are to MQTT 3.1.1 unless said otherwise.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING

from appliance.broker.context import BrokerContext
from appliance.broker.door import Publisher
from appliance.broker.sessions import Session
from appliance.broker.topic_limits import TopicLimitError, check_topic
from appliance.counters import Counter
from appliance.journal.message_cost import beside_payload
from appliance.model import Message
from appliance.mqtt import decode, packets
from appliance.mqtt import v5_encode as v5
from appliance.mqtt.packets import PacketError, Reason
from appliance.mqtt.properties import PropertyLimit, TooManyPropertiesError
from appliance.remote.topics import PREFIX

if TYPE_CHECKING:
    from appliance.broker.plugin_gate import TopicGate

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 250
"""Packets that are looked at one by one before the connection looks at the time: some ms."""
_REMEMBERED_TOPICS = 1024
_LONGEST_REMEMBERED_TOPIC = 256
_REMEMBERED_BYTES = 64 * 1024
"""Topics that a connection remembers, as they came. There may be thousands of connections."""
_PUBLISH_BITS = packets.PUBLISH << 4
_PLAIN = {_PUBLISH_BITS, _PUBLISH_BITS | 2}
"""First bytes of a PUBLISH of QoS 0 or 1 that is neither retained nor a duplicate."""
_PUBACK = b"\x40\x02"


@lru_cache(maxsize=256)
def _layout(head: int, qos: int, gap: int, payload: int) -> struct.Struct:
    """A PUBLISH in four parts of these lengths in bytes; at QoS 0 the packet id is empty text."""
    return struct.Struct(f">{head}s{'H' if qos else '0s'}{gap}s{payload}s")


class TooManyQoS2Error(PacketError):
    """A client has more QoS 2 messages under way than it may (MQTT 5, section 3.3.4)."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Reason.RECEIVE_MAXIMUM_EXCEEDED)


class _UndecidedError(Exception):
    """Plugins are to be asked whether the client may publish to ``topic``."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic


class _DollarTopicError(PacketError):
    """The topic begins with ``$``: it is the broker's own, and the message is dropped."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"may not publish to {topic[:80]!r}", Reason.NOT_AUTHORIZED)


class PublishReader:
    """The publishing side of one connection."""

    __slots__ = (
        "_acks",
        "_address",
        "_aliases",
        "_beside",
        "_client_id",
        "_context",
        "_door",
        "_exchanges",
        "_gate",
        "_has_dollar_topics",
        "_messages",
        "_publisher",
        "_retained",
        "_session",
        "_size",
        "_topic_bytes",
        "_topics",
        "_username",
        "_version",
        "last_seq",
        "taken",
        "undecided",
    )

    def __init__(self, context: BrokerContext, publisher: Publisher) -> None:
        self._context = context
        self._door = context.door
        self._publisher = publisher
        self._session: Session | None = None
        self._version = 0
        self._client_id = ""
        self._username: str | None = None
        self._address = ""
        self._topics: dict[bytes, str] = {}
        self._topic_bytes = 0
        self._aliases: dict[int, bytes] | None = None
        self._messages: list[Message] = []
        self._retained: list[Message] = []
        self._size = 0
        self._beside = 0
        self._acks = bytearray()
        self._exchanges: list[tuple[int, int]] = []
        self._gate: TopicGate | None = None
        self._has_dollar_topics = False
        self.taken = 0
        """Messages that came in on this connection."""
        self.last_seq = 0
        """The sequence number of the last one that was handed to the door."""
        self.undecided: str | None = None
        """The topic of the packet at which ``publishes`` stopped: plugins are asked first."""

    def open(
        self,
        session: Session,
        version: int,
        username: str | None,
        address: str,
        gate: TopicGate | None = None,
    ) -> None:
        """From now on the client may publish; ``gate``: where plugins allow it."""
        self._gate = gate
        self._version = version
        self._session = session
        self._client_id = session.client_id
        self._username = username
        self._address = address

    def forget_topics(self) -> None:
        """Ask again where the client may publish."""
        self._topics.clear()
        self._topic_bytes = 0

    def enter_retained(self) -> None:
        """``enter`` if retained messages are among them: each takes the door some time."""
        if self._retained:
            self.enter()

    def enter(self) -> None:
        """Hand what has been gathered to the door."""
        if not self._messages and not self._acks:
            return
        if self._exchanges:
            if self._session is not None:
                self._context.sessions.note_exchanges(self._session, self._exchanges)
            self._exchanges = []
        messages, self._messages = self._messages, []
        retained: Sequence[Message] = ()
        if self._retained:
            retained, self._retained = self._retained, []
        acks, self._acks = bytes(self._acks), bytearray()
        size, self._size = self._size, 0
        beside, self._beside = self._beside, 0
        if messages:
            self.taken += len(messages)
            self.last_seq = messages[-1].seq
        self._door.enter(messages, size, self._publisher, acks, retained, beside=beside)

    def publishes(self, data: bytes, position: int, end: int, limit: int) -> int:
        """Take the whole PUBLISH packets that stand in a row from ``position`` on.

        Returns the position of what follows: another packet, one that is not complete yet, or the
        rest of very many small ones.

        Raises:
            PacketError: a packet breaks the protocol, or its topic is not permitted and the
                protocol has no other way to say so.
        """
        topics = self._topics
        messages = self._messages
        acks = self._acks
        next_seq = self._door.next_seq
        now = self._door.clock_ns()
        is_5 = self._version == 5
        client_id, username, address = self._client_id, self._username, self._address
        for _ in repeat(None, _MOST_AT_ONCE):
            if position + 1 >= end:
                break
            begin = position
            first = data[position]
            if first & 0xF0 != _PUBLISH_BITS:
                break
            size = data[position + 1]
            if size < 128:
                body = position + 2
                stop = body + size
            else:
                found = packets.frame(data, position, limit)
                if found is None:
                    break
                body, stop = found
            if stop > end:
                break
            start = body + 2
            if start > stop:
                raise PacketError("the packet ends too early")
            topic_end = payload_start = start + (data[body] << 8 | data[body + 1])
            qos = first >> 1 & 3
            packet_id = 0
            if qos:
                payload_start += 2
                if payload_start > stop:
                    raise PacketError("the packet ends too early")
                packet_id = data[topic_end] << 8 | data[topic_end + 1]
                if packet_id == 0:
                    raise PacketError("packet id 0 [MQTT-2.3.1-1]", Reason.PROTOCOL_ERROR)
                if qos == 3:
                    raise PacketError("QoS 3 [MQTT-3.3.1-4]")
            elif first & 8:
                raise PacketError("DUP is set at QoS 0 [MQTT-3.3.1-2]")
            elif payload_start > stop:
                raise PacketError("the packet ends too early")
            raw = data[start:topic_end]
            topic = topics.get(raw)
            properties = alias = None
            if is_5:
                if payload_start < stop and not data[payload_start]:
                    payload_start += 1
                else:
                    try:
                        properties, alias, payload_start = decode.publish_properties(
                            data, payload_start, stop, self._property_limit()
                        )
                    except TooManyPropertiesError as error:
                        if not qos:
                            raise
                        if error.alias is not None:
                            self._resolve_alias(raw, error.alias)
                        self._context.count(Counter.PUBLISHES_REFUSED_TOO_MANY_PROPERTIES)
                        acks += v5.encode_ack(0x40 if qos == 1 else 0x50, packet_id, error.reason)
                        position = stop
                        continue
            position = stop
            if topic is None or alias is not None:
                try:
                    topic = self._topic(raw, alias)
                except _UndecidedError as question:
                    self.undecided = question.topic
                    return begin
                except _DollarTopicError as error:
                    self._note_dollar_topic(str(error))
                    if qos:
                        reason = error.reason if is_5 else 0
                        acks += v5.encode_ack(0x40 if qos == 1 else 0x50, packet_id, reason)
                    continue
                except PacketError as error:
                    is_refusal = error.reason is Reason.NOT_AUTHORIZED or isinstance(
                        error, TopicLimitError
                    )
                    if not is_5 or not qos or not is_refusal:
                        raise
                    acks += v5.encode_ack(0x40 if qos == 1 else 0x50, packet_id, error.reason)
                    continue
                if topic[0] == "$":
                    self._ask(topic, data[payload_start:stop], qos, now)
                    continue
            if qos:
                acks += _PUBACK if qos == 1 else b"\x50\x02"
                acks += data[topic_end : topic_end + 2]
                if qos == 2 and self._is_repeated(packet_id):
                    continue
            if properties is not None and self._context.is_looping(properties):
                self._context.count(Counter.BRIDGE_MESSAGES_LEFT_OUT_LOOP)
                continue
            seq = next_seq()
            if qos == 2:
                self._exchanges.append((packet_id, seq))
            message = Message(
                seq,
                now,
                topic,
                data[payload_start:stop],
                qos,
                first & 1 == 1,
                first & 8 == 8,
                client_id,
                username,
                address,
                properties,
                packet_id,
            )
            messages.append(message)
            self._size += stop - payload_start
            if properties is None and topic.isascii():  # nearly every message; a call costs more
                self._beside += len(topic)
            else:
                self._beside += beside_payload(message)
            if message.retain:
                self._retained.append(message)
            if stop < end and first in _PLAIN and data[stop : stop + 2] == data[begin : begin + 2]:
                # The next packet is as long as this one: maybe it says the same things.
                packet = data[begin:stop]
                following = memoryview(data)[stop:end]
                count = self._alike(message, packet, topic_end - begin, following)
                position += count * len(packet)
        return position

    def _alike(self, like: Message, packet: bytes, id_at: int, following: memoryview) -> int:
        """Take the packets at the start of ``following`` that are like ``packet``.

        Their packet ids and payloads may differ, their lengths may not. Most packets that a
        device sends in one go are like that, and together they cost a third. All other packets
        are left to ``publishes``. ``id_at`` is where the packet id of ``packet`` is, if it has one.
        Returns how many were taken.
        """
        payload_size = len(like.payload)
        width = len(packet)
        qos = like.qos
        head = packet[:id_at]
        gap = packet[id_at + 2 * qos : width - payload_size]
        whole = following[: len(following) // width * width]
        now, topic, properties = like.received_ns, like.topic, like.properties
        client_id, username, address = self._client_id, self._username, self._address
        messages = self._messages
        first_seq = seq = self._door.newest_seq()
        layout = _layout(id_at, qos, len(gap), payload_size)
        for begin, packet_id, between, payload in layout.iter_unpack(whole):
            if begin != head or between != gap or (qos and not packet_id):
                break
            seq += 1
            messages.append(
                Message(
                    seq,
                    now,
                    topic,
                    payload,
                    qos,
                    False,
                    False,
                    client_id,
                    username,
                    address,
                    properties,
                    packet_id or 0,
                )
            )
        count = seq - first_seq
        if qos:
            acks = bytearray(_PUBACK + b"\0\0") * count
            for at in (0, 1):
                acks[2 + at :: 4] = bytes(whole[id_at + at : count * width : width])
            self._acks += acks
        self._size += payload_size * count
        self._beside += beside_payload(like) * count
        self._door.number_to(seq)
        return count

    def _ask(self, topic: str, payload: bytes, qos: int, now_ns: int) -> None:
        """Hand on the request of an attached terminal; it is not journaled as a message."""
        if qos:
            raise PacketError(
                "a request of an attached terminal is sent at QoS 0", Reason.PROTOCOL_ERROR
            )
        self._context.take_terminal_request(
            Message(
                seq=0,
                received_ns=now_ns,
                topic=topic,
                payload=payload,
                client_id=self._client_id,
                username=self._username,
                address=self._address,
            )
        )

    def take_pubrel(self, body: bytes) -> None:
        """The client will not send this QoS 2 message again (section 4.3.3)."""
        packet_id, _ = decode.acknowledgement(body, self._version, is_of_release=True)
        session = self._session
        known = session is not None and packet_id in session.unreleased
        if session is not None and known:
            session.unreleased.discard(packet_id)
            self._exchanges.append((packet_id, 0))
        reason = 0 if known or self._version < 5 else Reason.PACKET_ID_NOT_FOUND
        self._acks += v5.encode_ack(0x70, packet_id, reason)

    def _is_repeated(self, packet_id: int) -> bool:
        """Whether this QoS 2 message has been taken already; if not, it is now (section 4.3.3)."""
        if self._session is None:
            return True
        unreleased = self._session.unreleased
        if packet_id in unreleased:
            return True
        if len(unreleased) >= self._context.limits().max_qos2_ids:
            raise TooManyQoS2Error(
                f"{len(unreleased)} QoS 2 messages are not released yet, which is"
                " limits.max_qos2_ids"
            )
        unreleased.add(packet_id)
        return False

    def _topic(self, raw: bytes, alias: int | None) -> str:
        """The topic of a PUBLISH, if the client may publish to it."""
        if alias is not None:
            raw = self._resolve_alias(raw, alias)
        topic = self._topics.get(raw)
        if topic is not None:
            return topic
        check_topic(raw, self._context.limits(), self._context.count)
        topic = packets.publish_topic(raw)
        if topic[0] == "$" and self._context.access.may_ask(
            self._username, self._client_id, topic, self._address
        ):
            return topic  # and not remembered: remembered topics are those of messages
        if topic[0] == "$" and not topic.startswith(PREFIX):
            raise _DollarTopicError(topic)
        if not self._context.access.may_publish(self._username, self._client_id, topic):
            self._context.count(Counter.PUBLISHES_REFUSED_NOT_ALLOWED)
            # 3.1.1 has no way to say no to a PUBLISH: acknowledging what is thrown away would be
            # a lie, so the connection ends (section 3.3.5 allows both).
            raise PacketError(f"may not publish to {topic[:80]!r}", Reason.NOT_AUTHORIZED)
        if self._gate is not None:
            allowed = self._gate.may_publish(topic)
            if allowed is None:
                raise _UndecidedError(topic)
            if not allowed:
                self._context.count(Counter.PUBLISHES_REFUSED_NOT_ALLOWED)
                raise PacketError(f"may not publish to {topic[:80]!r}", Reason.NOT_AUTHORIZED)
            return topic  # and not remembered here: the plugins' answer holds for a while
        if len(raw) <= _LONGEST_REMEMBERED_TOPIC:
            self._topic_bytes += len(raw)
            if len(self._topics) >= _REMEMBERED_TOPICS or self._topic_bytes > _REMEMBERED_BYTES:
                self.forget_topics()
                self._topic_bytes = len(raw)
            self._topics[raw] = topic
        return topic

    def _note_dollar_topic(self, text: str) -> None:
        """Count a message to a ``$`` topic; the first of a connection is logged.

        Other brokers drop such messages too, and bridges send their own state to ``$SYS/...``, so
        the connection goes on; 3.1.1 has no other way to say no, and acknowledges.
        """
        self._context.count(Counter.PUBLISHES_REFUSED_DOLLAR_TOPIC)
        if not self._has_dollar_topics:
            self._has_dollar_topics = True
            logger.info("client %s at %s: %s", self._client_id, self._address, text)

    def _property_limit(self) -> PropertyLimit:
        limits = self._context.limits()
        return PropertyLimit(int(limits.max_properties_size), limits.max_properties)

    def _resolve_alias(self, raw: bytes, alias: int) -> bytes:
        """The topic that an alias stands for (MQTT 5, section 3.3.2.3.4)."""
        if not 0 < alias <= v5.TOPIC_ALIAS_MAXIMUM:
            raise PacketError(f"topic alias {alias} is not allowed", Reason.TOPIC_ALIAS_INVALID)
        if self._aliases is None:
            self._aliases = {}
        if raw:
            # A byte more than is allowed is enough to refuse the topic, each time it is meant.
            self._aliases[alias] = raw[: self._context.limits().max_topic_length + 1]
        elif alias not in self._aliases:
            raise PacketError(f"topic alias {alias} is unknown", Reason.PROTOCOL_ERROR)
        return self._aliases[alias]
