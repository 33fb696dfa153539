"""One client's connection: bytes to packets, and what each packet does.

The hot path is PUBLISH: it is decoded, checked and handed to the door in one loop over the bytes
that arrived, and its acknowledgement leaves when the journal has committed it. Not for: sockets
and their limits (listener.py), subscriptions (subscriptions.py), admission (access.py).
References are to MQTT 3.1.1 unless said otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import mqtt5
import msgspec

from appliance.broker import mqtt5_packets as v5
from appliance.broker import packets
from appliance.broker.outbox import Delivery
from appliance.broker.packets import (
    Connect,
    PacketError,
    Reason,
    SubscribeOptions,
    check_flags,
    frame,
)
from appliance.broker.sessions import Session
from appliance.broker.subscriptions import split_shared
from appliance.model import Message

if TYPE_CHECKING:
    from appliance.broker.host import Seat
    from appliance.broker.server import MqttBroker

logger = logging.getLogger(__name__)

_REMEMBERED_TOPICS = 1024
_LONGEST_REMEMBERED_TOPIC = 256
_LARGEST_CONNECT = 256 * 1024
"""A stranger's packet: room for the longest will, user name and password, not more."""
_LONGEST_CLIENT_ID = 1024


class Connection(asyncio.Protocol):
    """A connection from accept to close. Engine's loop only."""

    def __init__(self, broker: MqttBroker, listener_name: str) -> None:
        self._broker = broker
        self._door = broker.door
        self._limits = broker.limits
        self._loop = broker.loop
        self.listener_name = listener_name
        self.connected_ns = 0
        self.peer: tuple[str, int] = ("", 0)
        self.address = ""
        self.client_id = ""
        self.username: str | None = None
        self.version = 0
        self.window = self._limits.max_inflight_per_client
        self.messages_in = 0
        self.last_received = 0.0
        self._accepted = 0.0
        self.keepalive_s = 0.0
        self.is_open = False
        self.counted_as_open = False
        self.session: Session | None = None
        self.ended = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._asked: Connect | None = None
        self._rest = bytearray()
        self._needed = 0
        self._busy = False
        self._paused_by_door = False
        self._write_paused = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flush_scheduled = False
        self._closing = False
        self._said_goodbye = False
        self._topics: dict[bytes, str] = {}
        self._aliases: dict[int, str] = {}
        self._seat: Seat | None = None
        self._seated: asyncio.Future[None] | None = None
        self._wanted: dict[str, SubscribeOptions] = {}
        self._codes: list[int] = []
        self._new_filters: set[str] = set()
        self._admission: asyncio.Task[None] | None = None
        self._farewell: asyncio.Task[None] | None = None

    # --- asyncio's side -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's own looser annotation
        peer = transport.get_extra_info("peername")
        self.peer = (str(peer[0]), int(peer[1])) if peer else ("", 0)
        host = f"[{self.peer[0]}]" if ":" in self.peer[0] else self.peer[0]
        self.address = f"{host}:{self.peer[1]}"
        self.connected_ns = self._door.clock_ns()
        self._accepted = self.last_received = self._loop.time()
        backlog = int(self._limits.max_client_backlog)
        self._stream.set_write_buffer_limits(high=backlog, low=backlog // 4)
        if not self._broker.arrived(self):
            self._closing = True
            self._stream.abort()

    @property
    def _stream(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("the connection is not made yet")
        return self._transport

    def data_received(self, data: bytes) -> None:
        self.last_received = self._loop.time()
        if self._rest:
            self._rest += data
            if self._busy or len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        elif self._busy:
            self._rest += data
            return
        if not self._closing:
            self._consume(data)

    def eof_received(self) -> None:
        """Nothing more will come; what came is processed already."""

    def pause_writing(self) -> None:
        """The client reads too slowly: send nothing more to it, and read nothing from it."""
        self._write_paused = True
        self._update_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._update_reading()
        if self.session is not None and self.is_open:
            self.session.outbox.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self._closing = True
        self.is_open = False
        self._broker.departed(self)
        self._door.forget(self)
        if self._admission is not None:
            self._admission.cancel()
        self._farewell = self._loop.create_task(self._leave(), name=f"leave {self.client_id}")

    async def _leave(self) -> None:
        session, self.session = self.session, None
        forget = False
        if session is not None and session.connection is self:
            forget = self._broker.left(self, session, self._asked, said_goodbye=self._said_goodbye)
        try:
            if self._seat is not None:
                await self._seat.leave(forget=forget)
        finally:
            self.ended.set()

    # --- reading ------------------------------------------------------------------------------

    def pause(self) -> None:
        """Back-pressure from the door."""
        self._paused_by_door = True
        self._update_reading()

    def resume(self) -> None:
        self._paused_by_door = False
        self._update_reading()

    def _update_reading(self) -> None:
        if self._closing or self._transport is None or self._transport.is_closing():
            return
        if self._paused_by_door or self._busy or self._write_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _wait(self) -> None:
        """Take no further packet until ``_go_on``: the next depends on this one's result."""
        self._busy = True
        self._update_reading()

    def _go_on(self) -> None:
        self._busy = False
        self._update_reading()
        if self._rest and not self._closing:
            data = bytes(self._rest)
            self._rest.clear()
            self._consume(data)

    def _consume(self, data: bytes) -> None:
        try:
            self._take_packets(data)
        except PacketError as error:
            self._broker.count("connections ended: protocol error")
            self._end(error.reason, str(error))

    def _take_packets(self, data: bytes) -> None:
        position = 0
        end = len(data)
        limit = int(self._limits.max_packet_size)
        if not self.is_open:
            limit = min(limit, _LARGEST_CONNECT)
        messages: list[Message] = []
        acks = bytearray()
        held: list[int] = []
        released: list[int] = []
        now = self._door.clock_ns()
        self._needed = 0
        try:
            while position < end:
                first = data[position]
                if not self.is_open:
                    self._check_first(first)
                found = frame(data, position, limit)
                if found is None:
                    break
                body, stop = found
                if stop > end:
                    self._needed = stop - position
                    break
                if first >> 4 == packets.PUBLISH:
                    if self.version == 4:
                        self._publish_311(data, first, body, stop, now, messages, acks, held)
                    else:
                        self._publish_5(data[position:stop], now, messages, acks, held)
                elif first >> 4 == packets.PUBREL and self.is_open:
                    check_flags(first)
                    self._release(data[position:stop], body - position, acks, released)
                else:
                    if messages or acks:
                        self._enter(messages, acks, held, released)
                        messages, acks, held, released = [], bytearray(), [], []
                    self._control(check_flags(first), data[position:stop], body - position)
                position = stop
                if self._busy or self._closing:
                    break
        finally:
            if messages or acks:
                self._enter(messages, acks, held, released)
            if position < end and not self._closing:
                self._rest = bytearray(data[position:]) + self._rest

    def _enter(
        self, messages: list[Message], acks: bytearray, held: list[int], released: list[int]
    ) -> None:
        if self.session is not None:
            if held:
                self._broker.sessions.hold(self.session, held)
            if released:
                self._broker.sessions.release(self.session, released)
        self.messages_in += len(messages)
        self._door.enter(messages, self, bytes(acks))

    def _check_first(self, first: int) -> None:
        if self._asked is not None:
            return
        if first != packets.CONNECT << 4:
            raise PacketError("the first packet is not CONNECT [MQTT-3.1.0-1]")

    # --- PUBLISH ------------------------------------------------------------------------------

    def _publish_311(
        self,
        data: bytes,
        first: int,
        body: int,
        stop: int,
        now: int,
        messages: list[Message],
        acks: bytearray,
        held: list[int],
    ) -> None:
        start = body + 2
        if start > stop:
            raise PacketError("the packet ends too early")
        topic_end = start + (data[body] << 8 | data[body + 1])
        raw = data[start:topic_end]
        topic = self._topics.get(raw)
        if topic is None:
            if topic_end > stop:
                raise PacketError("the packet ends too early")
            topic = self._learn_topic(raw)
        qos = first >> 1 & 3
        packet_id = 0
        if qos:
            payload_start = topic_end + 2
            if payload_start > stop:
                raise PacketError("the packet ends too early")
            packet_id = data[topic_end] << 8 | data[topic_end + 1]
            if packet_id == 0:
                raise PacketError("packet id 0 [MQTT-2.3.1-1]")
            if qos == 1:
                acks += b"\x40\x02"
            elif qos == 2:
                acks += b"\x50\x02"
            else:
                raise PacketError("QoS 3 [MQTT-3.3.1-4]")
            acks += data[topic_end:payload_start]
            if qos == 2 and not self._first_time(packet_id, held):
                return
        else:
            payload_start = topic_end
            if payload_start > stop:
                raise PacketError("the packet ends too early")
            if first & 8:
                raise PacketError("DUP is set at QoS 0 [MQTT-3.3.1-2]")
        messages.append(
            Message(
                self._door.next_seq(),
                now,
                topic,
                data[payload_start:stop],
                qos,
                bool(first & 1),
                bool(first & 8),
                self.client_id,
                self.username,
                self.address,
                None,
                packet_id,
            )
        )

    def _first_time(self, packet_id: int, held: list[int]) -> bool:
        """Whether this QoS 2 message has not been taken already (section 4.3.3)."""
        if self.session is None:
            return False
        unreleased = self.session.unreleased
        if packet_id in unreleased:
            return False
        unreleased.add(packet_id)
        held.append(packet_id)
        return True

    def _learn_topic(self, raw: bytes) -> str:
        topic = packets.publish_topic(raw)
        if not self._may_publish(topic):
            # 3.1.1 has no way to say no to a PUBLISH: acknowledging what is thrown away would be
            # a lie, so the connection ends (section 3.3.5 allows both).
            raise PacketError(f"may not publish to {topic[:80]!r}", Reason.NOT_AUTHORIZED)
        if len(raw) <= _LONGEST_REMEMBERED_TOPIC:
            if len(self._topics) >= _REMEMBERED_TOPICS:
                self._topics.clear()
            self._topics[raw] = topic
        return topic

    def _may_publish(self, topic: str) -> bool:
        if self._broker.access.may_publish(self.username, self.client_id, topic):
            return True
        self._broker.count("publishes refused: not allowed")
        return False

    def _publish_5(
        self, packet: bytes, now: int, messages: list[Message], acks: bytearray, held: list[int]
    ) -> None:
        decoded = v5.decode(packet)
        if not isinstance(decoded, mqtt5.PublishPacket):
            raise PacketError("not a PUBLISH", Reason.PROTOCOL_ERROR)
        topic = self._resolve_alias(decoded)
        qos = int(decoded.qos)
        packet_id = decoded.packet_id or 0
        if decoded.subscription_ids:
            raise PacketError("a client sent a subscription identifier", Reason.PROTOCOL_ERROR)
        if qos == 0 and decoded.duplicate:
            raise PacketError("DUP is set at QoS 0 [MQTT-3.3.1-2]")
        raw = topic.encode()
        if raw not in self._topics:
            try:
                self._learn_topic(raw)
            except PacketError as error:
                if qos == 0 or error.reason is not Reason.NOT_AUTHORIZED:
                    raise
                acks += v5.encode_ack(0x40 if qos == 1 else 0x50, packet_id, error.reason)
                return
        if qos:
            acks += v5.encode_ack(0x40 if qos == 1 else 0x50, packet_id)
            if qos == 2 and not self._first_time(packet_id, held):
                return
        messages.append(
            Message(
                self._door.next_seq(),
                now,
                topic,
                decoded.payload,
                qos,
                decoded.retain,
                decoded.duplicate,
                self.client_id,
                self.username,
                self.address,
                v5.properties(decoded),
                packet_id,
            )
        )

    def _resolve_alias(self, packet: mqtt5.PublishPacket) -> str:
        alias = packet.topic_alias
        if alias is None:
            if not packet.topic:
                raise PacketError("a PUBLISH without a topic", Reason.PROTOCOL_ERROR)
            return packet.topic
        if not 0 < alias <= v5.TOPIC_ALIAS_MAXIMUM:
            raise PacketError(f"topic alias {alias} is not allowed", Reason.TOPIC_ALIAS_INVALID)
        if packet.topic:
            self._aliases[alias] = packet.topic
            return packet.topic
        topic = self._aliases.get(alias)
        if topic is None:
            raise PacketError(f"topic alias {alias} is unknown", Reason.PROTOCOL_ERROR)
        return topic

    def _release(self, packet: bytes, offset: int, acks: bytearray, released: list[int]) -> None:
        packet_id = self._acknowledged_id(packet, offset)
        known = self.session is not None and packet_id in self.session.unreleased
        if known and self.session is not None:
            self.session.unreleased.discard(packet_id)
            released.append(packet_id)
        reason = 0 if known or self.version == 4 else 0x92
        acks += v5.encode_ack(0x70, packet_id, reason)

    # --- the other packets --------------------------------------------------------------------

    def _control(self, packet_type: int, packet: bytes, offset: int) -> None:
        if packet_type == packets.CONNECT:
            self._connect(packet, offset)
            return
        if not self.is_open:
            raise PacketError("a packet before the connection was accepted", Reason.PROTOCOL_ERROR)
        handler = self._handlers.get(packet_type)
        if handler is None:
            raise PacketError(f"a client may not send packet type {packet_type}")
        handler(self, packet, offset)

    def _ping(self, packet: bytes, offset: int) -> None:  # noqa: ARG002 - one shape for all
        self.queue(packets.PINGRESP_BYTES)

    def _acknowledged_id(self, packet: bytes, offset: int) -> int:
        if self.version == 4 or len(packet) - offset == 2:
            return packets.decode_packet_id(packet[offset:])
        decoded = v5.decode(packet)
        packet_id: int = getattr(decoded, "packet_id", 0)
        if packet_id == 0:
            raise PacketError("packet id 0 [MQTT-2.3.1-1]")
        return packet_id

    def _puback(self, packet: bytes, offset: int) -> None:
        if self.session is not None:
            self.session.outbox.acknowledged(self._acknowledged_id(packet, offset))

    def _pubrec(self, packet: bytes, offset: int) -> None:
        packet_id = self._acknowledged_id(packet, offset)
        refused = self.version == 5 and len(packet) - offset > 2 and packet[offset + 2] >= 0x80
        if self.session is None:
            return
        seq = self.session.outbox.seq_of(packet_id)
        if self.session.outbox.received(packet_id, refused=refused):
            self._broker.sessions.settled(self.session, seq)
        elif not refused:
            self.send_release(packet_id)

    def _pubcomp(self, packet: bytes, offset: int) -> None:
        if self.session is not None:
            self.session.outbox.completed(self._acknowledged_id(packet, offset))

    def _subscribe(self, packet: bytes, offset: int) -> None:
        if self.version == 4:
            packet_id, wanted = packets.decode_subscribe(packet[offset:])
        else:
            decoded = v5.decode(packet)
            if not isinstance(decoded, mqtt5.SubscribePacket):
                raise PacketError("not a SUBSCRIBE", Reason.PROTOCOL_ERROR)
            packet_id, wanted = decoded.packet_id, v5.subscriptions(decoded)
        self._wanted = {options.topic_filter: options for options in wanted}
        self._new_filters = set()
        self._codes = []
        self._host_feed(packets.encode_host_subscribe(packet_id, wanted))

    def _unsubscribe(self, packet: bytes, offset: int) -> None:
        if self.version == 4:
            packet_id, filters = packets.decode_unsubscribe(packet[offset:])
        else:
            decoded = v5.decode(packet)
            if not isinstance(decoded, mqtt5.UnsubscribePacket) or not decoded.patterns:
                raise PacketError("an UNSUBSCRIBE without a topic filter", Reason.PROTOCOL_ERROR)
            packet_id, filters = decoded.packet_id, tuple(decoded.patterns)
        self._codes = []
        self._host_feed(packets.encode_host_unsubscribe(packet_id, filters))

    def _host_feed(self, packet: bytes) -> None:
        if self._seat is not None:
            self._wait()
            self._seat.feed(packet)

    def _disconnect(self, packet: bytes, offset: int) -> None:
        if self.version == 5 and len(packet) > offset:
            decoded = v5.decode(packet)
            if isinstance(decoded, mqtt5.DisconnectPacket):
                self._said_goodbye = decoded.reason_code != 4
                expiry = decoded.session_expiry_interval
                if expiry is not None and self.session is not None:
                    if expiry and not self.session.expiry_s:
                        raise PacketError(
                            "a session expiry at DISCONNECT where CONNECT had none",
                            Reason.PROTOCOL_ERROR,
                        )
                    self._broker.sessions.keep_for(self.session, expiry)
        else:
            self._said_goodbye = True
        if self._seat is not None:
            self._seat.feed(packets.DISCONNECT_BYTES)
        self.close()

    _handlers: ClassVar[dict[int, Callable[[Connection, bytes, int], None]]] = {
        packets.PINGREQ: _ping,
        packets.PUBACK: _puback,
        packets.PUBREC: _pubrec,
        packets.PUBCOMP: _pubcomp,
        packets.SUBSCRIBE: _subscribe,
        packets.UNSUBSCRIBE: _unsubscribe,
        packets.DISCONNECT: _disconnect,
    }

    # --- CONNECT ------------------------------------------------------------------------------

    def _connect(self, packet: bytes, offset: int) -> None:
        if self._asked is not None:
            raise PacketError("a second CONNECT [MQTT-3.1.0-2]", Reason.PROTOCOL_ERROR)
        body = packet[offset:]
        self.version = packets.protocol_version(body)
        if self.version == 4:
            self._asked = packets.decode_connect(body)
        else:
            decoded = v5.decode(packet)
            if not isinstance(decoded, mqtt5.ConnectPacket):
                raise PacketError("not a CONNECT", Reason.PROTOCOL_ERROR)
            self._asked = v5.connect(decoded)
        self._wait()
        self._admission = self._loop.create_task(
            self._admit(self._asked), name=f"admit {self.address}"
        )

    async def _admit(self, asked: Connect) -> None:
        try:
            await self._check_in(asked)
        except PacketError as error:
            self._end(error.reason, str(error))
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("client at %s: admission failed", self.address)
            self._end(Reason.UNSPECIFIED, "internal error")

    async def _check_in(self, asked: Connect) -> None:
        if asked.authentication_method is not None:
            raise PacketError(
                "extended authentication is not supported: use a user name and password",
                Reason.BAD_AUTHENTICATION_METHOD,
            )
        assigned = None
        client_id = asked.client_id
        if not client_id:
            if asked.version == 4 and not asked.clean_start:
                raise PacketError(
                    "an empty client id needs a clean session [MQTT-3.1.3-8]",
                    Reason.CLIENT_ID_NOT_VALID,
                )
            client_id = assigned = f"auto-{secrets.token_hex(8)}"
        if client_id.startswith("$") or len(client_id) > _LONGEST_CLIENT_ID:
            raise PacketError(
                "a client id has at most 1024 characters and does not begin with $",
                Reason.CLIENT_ID_NOT_VALID,
            )
        if not await self._broker.access.admit(asked.username, asked.password, self.peer[0]):
            raise PacketError("not authorised", Reason.BAD_USER_NAME_OR_PASSWORD)
        self.client_id = client_id
        self.username = asked.username
        # The password has done its work: nothing that lives longer may hold it.
        self._asked = asked = _without_password(asked)
        if asked.will is not None and not self._may_publish(asked.will.topic):
            raise PacketError(
                f"the will may not be published to {asked.will.topic[:80]!r}",
                Reason.NOT_AUTHORIZED,
            )
        session_present = await self._broker.take_over(self, asked)
        if self._closing:
            return
        self._seat = self._broker.host.seat(self, client_id)
        self._seated = self._loop.create_future()
        self._seat.take(clean=not session_present)
        await asyncio.wait_for(self._seated, float(self._limits.connect_timeout))
        self._open(asked, assigned, session_present=session_present)

    def _open(self, asked: Connect, assigned: str | None, *, session_present: bool) -> None:
        if self._closing or self.session is None:
            return
        self.is_open = True
        self.keepalive_s = asked.keepalive_s * 1.5
        self.window = min(self.window, asked.receive_maximum)
        if self.version == 4:
            self.queue(b"\x20\x02" + (b"\x01" if session_present else b"\x00") + b"\x00")
        else:
            self.queue(
                v5.encode_connack(
                    asked,
                    session_present=session_present,
                    assigned_client_id=assigned,
                    keepalive_s=None,
                    receive_maximum=65535,
                    maximum_packet_size=int(self._limits.max_packet_size),
                    session_expiry_s=asked.session_expiry_s,
                )
            )
        self._broker.opened(self)
        self.session.outbox.attach(self)
        self._go_on()

    # --- the session host's side --------------------------------------------------------------

    def host_sent(self, packet: bytes) -> None:
        """Amqtt answered CONNECT, SUBSCRIBE or UNSUBSCRIBE; the client gets it in its version."""
        packet_type = packet[0] >> 4
        if packet_type == packets.CONNACK:
            if self._seated is not None and not self._seated.done():
                self._seated.set_result(None)
            return
        packet_id = packet[2] << 8 | packet[3]
        codes = tuple(self._codes)
        if packet_type == packets.SUBACK:
            if self.version == 4:
                codes = tuple(min(code, packets.SUBSCRIBE_FAILED) for code in codes)
                self.queue(packet[:4] + bytes(codes))
            else:
                self.queue(v5.encode_suback(packet_id, codes))
        elif packet_type == packets.UNSUBACK:
            if self.version == 4:
                self.queue(packet)
            else:
                self.queue(v5.encode_unsuback(packet_id, codes))
        # amqtt hands over retained messages right behind its SUBACK, in the same step of the loop.
        self._loop.call_soon(self._go_on)

    def host_closed(self) -> None:
        """Amqtt closed its side: nothing of a session is left to serve."""
        if self.is_open:
            self.close()

    def subscribe(self, topic_filter: str) -> int:
        """Carry out one subscription of the SUBSCRIBE under way; returns the SUBACK code."""
        code = self._subscription_code(topic_filter)
        self._codes.append(code)
        return min(packets.SUBSCRIBE_FAILED, code)

    def _subscription_code(self, topic_filter: str) -> int:
        options = self._wanted.get(topic_filter)
        if options is None or self.session is None:
            return Reason.UNSPECIFIED
        try:
            shared = split_shared(topic_filter)
        except ValueError:
            return Reason.TOPIC_FILTER_INVALID
        plain = topic_filter if shared is None else shared[1]
        if not packets.filter_is_valid(plain):
            return Reason.TOPIC_FILTER_INVALID
        if shared is not None and options.no_local:
            return Reason.PROTOCOL_ERROR
        if not self._broker.access.may_subscribe(self.username, self.client_id, plain):
            self._broker.count("subscriptions refused: not allowed")
            return Reason.NOT_AUTHORIZED
        subscriptions = self._broker.subscriptions
        if subscriptions.count(
            self.client_id
        ) >= self._limits.max_subscriptions_per_client and not subscriptions.has(
            self.client_id, topic_filter
        ):
            self._broker.count("subscriptions refused: limit reached")
            return Reason.QUOTA_EXCEEDED
        if self._broker.sessions.subscribe(self.session, options):
            self._new_filters.add(topic_filter)
        return options.qos

    def unsubscribe(self, topic_filter: str) -> bool:
        """Carry out one filter of the UNSUBSCRIBE under way."""
        removed = self.session is not None and self._broker.sessions.unsubscribe(
            self.session, topic_filter
        )
        self._codes.append(0 if removed else 0x11)
        return removed

    def send_retained(self, topic_filter: str) -> None:
        """Retained messages for a subscription that was just granted (section 3.8.4)."""
        options = self._wanted.get(topic_filter)
        if options is None or self.session is None or topic_filter.startswith("$share/"):
            return
        if options.retain_handling == 2 or (
            options.retain_handling == 1 and topic_filter not in self._new_filters
        ):
            return
        identifiers = () if options.identifier is None else (options.identifier,)
        for message in self._broker.retained.matching(topic_filter):
            self.session.outbox.deliver(
                message, min(message.qos, options.qos), retain=True, identifiers=identifiers
            )

    # --- writing ------------------------------------------------------------------------------

    @property
    def stalled(self) -> bool:
        """Whether the client reads too slowly for more to be sent now."""
        return self._write_paused or self._out_bytes > self._limits.max_client_backlog

    def queue(self, data: bytes) -> None:
        """Send bytes with whatever else is sent in this step of the loop."""
        if self._closing:
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._out and self._transport is not None and not self._transport.is_closing():
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._transport.write(data)

    def send_publish(self, delivery: Delivery, packet_id: int, *, duplicate: bool) -> bool:
        """Put a PUBLISH on the wire (part of ``outbox.Sink``)."""
        message = delivery.message
        if self.version == 4:
            packet = packets.encode_publish(
                message.topic.encode(),
                message.payload,
                delivery.qos,
                retain=delivery.retain,
                duplicate=duplicate,
                packet_id=packet_id,
            )
        else:
            expiry = self._remaining(message)
            if expiry is not None and expiry <= 0:
                self._broker.count("deliveries dropped: expired")
                return False
            packet = v5.encode_publish(
                message,
                delivery.qos,
                retain=delivery.retain,
                duplicate=duplicate,
                packet_id=packet_id,
                expiry_s=expiry,
                identifiers=delivery.identifiers,
            )
            largest = None if self._asked is None else self._asked.maximum_packet_size
            if largest is not None and len(packet) > largest:
                self._broker.count("deliveries dropped: larger than the client takes")
                return False
        self.queue(packet)
        return True

    def _remaining(self, message: Message) -> int | None:
        """Seconds until a message expires (MQTT 5, section 3.3.2.3.3)."""
        if message.properties is None or message.properties.message_expiry_s is None:
            return None
        waited = (self._door.clock_ns() - message.received_ns) // 1_000_000_000
        return message.properties.message_expiry_s - max(0, waited)

    def send_release(self, packet_id: int) -> None:
        """Put a PUBREL on the wire (part of ``outbox.Sink``)."""
        self.queue(b"\x62\x02" + packet_id.to_bytes(2, "big"))

    # --- ending -------------------------------------------------------------------------------

    def _end(self, reason: Reason, text: str) -> None:
        """End the connection because of what the client did, and say so in its version."""
        if self._closing:
            return
        who = self.client_id or (self._asked.client_id if self._asked else "") or "?"
        logger.warning("client %s at %s: %s", who, self.address, text)
        if not self.is_open:
            if self.version == 5:
                self.queue(v5.encode_refusal(reason, text))
            elif self.version == 4 or reason is Reason.UNSUPPORTED_PROTOCOL_VERSION:
                self.queue(packets.encode_refusal(reason))
        elif self.version == 5:
            self.queue(v5.encode_disconnect(reason))
        self.close()

    def end(self, reason: Reason, text: str) -> None:
        """End the connection because of something outside it (take-over, stop, an operator)."""
        self._end(reason, text)

    def end_quietly(self, reason: Reason) -> None:
        """End the connection as part of the appliance's own stop."""
        if self.is_open and self.version == 5:
            self.queue(v5.encode_disconnect(reason))
        self.close()

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._closing

    def close(self) -> None:
        """Send what is queued and close."""
        if self._transport is None:
            return
        self._flush()
        self._closing = True
        self.is_open = False
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def overdue(self, now: float) -> str | None:
        """Why the connection must end at this time of the loop's clock, or ``None``."""
        silent = now - self.last_received
        if self.is_open:
            if self.keepalive_s and silent > self.keepalive_s and not self._paused_by_door:
                return (
                    f"nothing heard for {silent:.0f} s, keepalive is {self.keepalive_s / 1.5:.0f} s"
                )
            return None
        if self._asked is None and now - self._accepted > self._limits.connect_timeout:
            return "no complete CONNECT in time"
        return None


def _without_password(asked: Connect) -> Connect:
    return msgspec.structs.replace(asked, password=None)
