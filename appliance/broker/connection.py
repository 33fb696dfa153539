"""One client's connection: from the socket's bytes to packets, and from accept to close.

Each read is taken apart in one loop; what the packets mean is decided next door: PUBLISH in
publish.py, CONNECT in connect.py, SUBSCRIBE in subscribe.py, sending and its acknowledgements in
output.py and outbox.py. Not for: sockets and their limits (listener.py, server.py).
References are to MQTT 3.1.1 unless said otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

from appliance.broker.access import Proof, origin_of
from appliance.broker.certificate_name import KNOWN_AS
from appliance.broker.connect import (
    Admission,
    AnswerTooLargeError,
    connack,
    shorter_keepalive,
    take_connect,
)
from appliance.broker.context import BrokerContext
from appliance.broker.guard import GuardedProtocol
from appliance.broker.lag import LONG_STEP_S, PAUSE, Lag
from appliance.broker.output import Output
from appliance.broker.publish import PublishReader, TooManyQoS2Error
from appliance.broker.sessions import Session
from appliance.broker.subscribe import SubscribeHandler
from appliance.broker.work import Slice
from appliance.counters import Counter
from appliance.mqtt import decode, packets
from appliance.mqtt import v5_encode as v5
from appliance.mqtt.packets import Connect, PacketError, Reason, check_flags, frame
from appliance.mqtt.properties import TooManyPropertiesError

if TYPE_CHECKING:
    from appliance.broker.plugin_gate import TopicGate
    from appliance.broker.plugins import PluginClient

logger = logging.getLogger(__name__)

_LARGEST_CONNECT = 256 * 1024
"""Bytes of a packet before the client is admitted: the longest will, user name and password."""
_SPOKEN = {3: "3.1", 4: "3.1.1", 5: "5"}
_LINGER_S = 5.0
"""How long a client may take to read what was sent before its connection is aborted."""

_SHORT_READ = 2048
"""Bytes that are always taken in one go; at two bytes a packet that is some milliseconds."""
_BYTES_AT_ONCE = 128 * 1024
"""Bytes of messages that are taken before a long read looks at the time."""
_CONTROLS_AT_ONCE = 32
"""Other packets that are taken before a long read looks at the time."""


def _read_until(data: bytes, position: int, end: int, limit: int) -> int:
    """Up to where messages are taken in one go: some bytes, or one message that is larger."""
    found = frame(data, position, limit)
    return end if found is None else min(end, max(found[1], position + _BYTES_AT_ONCE))


class Connection(GuardedProtocol):
    """A connection from accept to close. Engine's loop only.

    What only some clients need is made when they need it: a client that publishes has neither
    a subscribe handler nor a hosted session, and its CONNECT needs no task.
    """

    __slots__ = (
        "_accepted",
        "_busy",
        "_closing",
        "_closing_since",
        "_context",
        "_door",
        "_ended",
        "_ended_event",
        "_failed",
        "_farewell",
        "_lag",
        "_largest_packet",
        "_limits",
        "_loop",
        "_needed",
        "_output",
        "_paused_by_door",
        "_publish_reader",
        "_rest",
        "_said_goodbye",
        "_subscribe_handler",
        "_task",
        "_transport",
        "address",
        "asked",
        "client_id",
        "connected_ns",
        "counted_as_open",
        "gate",
        "is_open",
        "keepalive_s",
        "last_received",
        "listener_name",
        "peer",
        "plugin_client",
        "proof",
        "queue",
        "session",
        "username",
        "version",
    )

    def __init__(self, context: BrokerContext, listener_name: str) -> None:
        self._context = context
        self._door = context.door
        self._limits = context.limits()
        self._loop = context.loop
        self._output = Output(context, self.fail)
        self._publish_reader = PublishReader(context, self)
        self.queue = self._output.queue
        self.listener_name = listener_name
        self.connected_ns = 0
        self.peer: tuple[str, int] = ("", 0)
        self.address = ""
        self.asked: Connect | None = None
        """What the client's CONNECT asks for."""
        self.client_id = ""
        self.username: str | None = None
        self.proof: Proof | None = None
        self.plugin_client: PluginClient | None = None
        """What plugins know of the client, where there are any."""
        self.gate: TopicGate | None = None
        """What plugins are asked about the client's topics, where any are."""
        self.version = 0
        self.last_received = 0.0
        self.keepalive_s = 0.0
        self.is_open = False
        self.counted_as_open = False
        self.session: Session | None = None
        self._accepted = 0.0
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()
        self._needed = 0
        self._largest_packet = min(int(self._limits.max_packet_size), _LARGEST_CONNECT)
        self._busy = False
        self._paused_by_door = False
        self._lag: Lag | None = None
        """Its long steps, from the first one on."""
        self._closing = False
        self._closing_since = 0.0
        self._failed = False
        self._said_goodbye = False
        self._subscribe_handler: SubscribeHandler | None = None
        self._task: asyncio.Task[None] | None = None
        self._farewell: asyncio.Task[None] | None = None
        self._ended = False
        self._ended_event: asyncio.Event | None = None

    @property
    def has_sent(self) -> bool:
        """Whether any byte of MQTT has come."""
        return bool(self._rest) or self.asked is not None

    @property
    def waits_for_its_turn(self) -> bool:
        """Whether something that has come is to be looked at in a later step of the loop."""
        return self._busy and bool(self._rest)

    @property
    def messages_in(self) -> int:
        """Messages that the client has published on this connection."""
        return self._publish_reader.taken

    @property
    def last_published_seq(self) -> int:
        """The sequence number of the last message of this connection; 0 before the first."""
        return self._publish_reader.last_seq

    def forget_topics(self) -> None:
        """The rules have changed: where the client may publish is asked again."""
        self._publish_reader.forget_topics()

    # --- asyncio's side -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream: asyncio.Transport = transport  # type: ignore[assignment]  # asyncio's is looser
        self._transport = stream
        peer = transport.get_extra_info("peername")
        self.peer = (str(peer[0]), int(peer[1])) if peer else ("", 0)
        host = f"[{self.peer[0]}]" if ":" in self.peer[0] else self.peer[0]
        self.address = f"{host}:{self.peer[1]}"
        self.connected_ns = self._door.clock_ns()
        self._accepted = self.last_received = self._loop.time()
        self._output.open(stream)
        if not self._context.connections.arrived(self):
            self.abort()

    @property
    def ssl_object(self) -> Any:
        """The TLS object of the connection, as asyncio has it; ``None`` without TLS."""
        return None if self._transport is None else self._transport.get_extra_info("ssl_object")

    @property
    def is_named_by_certificate(self) -> bool:
        """Whether the client's certificate says which user it is."""
        return self._transport is not None and bool(self._transport.get_extra_info(KNOWN_AS))

    def data_received(self, data: bytes) -> None:
        self.last_received = self._loop.time()
        if self._rest:
            self._rest += data
            if self._busy or len(self._rest) < self._needed:
                return
            if self._is_slowed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        elif self._busy or (self._lag is not None and self._lag.is_slowed):
            self._rest += data
            return
        if not self._closing:
            self._consume(data)

    def eof_received(self) -> None:
        """Nothing more will come; what came is processed already."""

    def pause_writing(self) -> None:
        """The client reads too slowly: send nothing more to it, and read nothing from it."""
        self._output.is_paused = True
        self._update_reading()

    def resume_writing(self) -> None:
        self._output.is_paused = False
        self._update_reading()
        if self._output.outbox is not None and self.is_open:
            self._output.outbox.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self._closing = self._output.is_closed = True
        self._output.outbox = None
        self._rest.clear()  # up to a whole packet, and others may know this object for a while
        self.is_open = False
        self._context.connections.departed(self)
        self._door.forget(self)
        if self._task is not None:
            self._task.cancel()
        try:
            self._context.binding.release(self, self.asked, said_goodbye=self._said_goodbye)
            if self.counted_as_open and self._context.plugins and self.plugin_client:
                self._context.plugins.disconnected(self.plugin_client)
        finally:
            if self._subscribe_handler is None:
                self._end()
            else:
                self._farewell = self._loop.create_task(
                    self._leave(self._subscribe_handler), name=f"leave {self.client_id}"
                )

    async def _leave(self, handler: SubscribeHandler) -> None:
        try:
            await handler.leave()
        finally:
            self._end()

    def _end(self) -> None:
        self._ended = True
        if self._ended_event is not None:
            self._ended_event.set()

    async def wait_ended(self) -> None:
        """Return when the connection is closed and has let go of its session."""
        if not self._ended:
            if self._ended_event is None:
                self._ended_event = asyncio.Event()
            await self._ended_event.wait()

    # --- reading ------------------------------------------------------------------------------

    def pause(self) -> None:
        """Back-pressure from the door."""
        self._paused_by_door = True
        self._update_reading()

    def resume(self) -> None:
        """The door takes messages again."""
        self._paused_by_door = False
        self.restart_keepalive()
        self._update_reading()

    def restart_keepalive(self) -> None:
        """Count the client's silence from now on: until now nothing was read from it."""
        self.last_received = self._loop.time()

    @property
    def _is_slowed(self) -> bool:
        """Nothing is taken from the client for a while, because its steps were long."""
        return self._lag is not None and self._lag.is_slowed

    def _update_reading(self) -> None:
        if self._closing or self._transport is None or self._transport.is_closing():
            return
        if self._paused_by_door or self._busy or self._output.is_paused or self._is_slowed:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def wait(self) -> None:
        """Take no further packet until ``go_on``: the next depends on this one's result."""
        self._busy = True
        self._update_reading()

    def go_on(self) -> None:
        """Take the packets that came while one was under way, and read on."""
        self._busy = False
        if self._is_slowed:
            return
        self.restart_keepalive()
        self._update_reading()
        if self._rest and not self._closing:
            data = bytes(self._rest)
            self._rest.clear()
            self._consume(data)

    def _consume(self, data: bytes) -> None:
        now = perf_counter()
        may_wait = self.is_open or len(data) > _SHORT_READ  # many may come in at once
        if may_wait and self._context.turns.is_over(self.last_received, now):
            # Others have had this step of the loop.
            self._rest[:0] = data
            self.wait()
            self._context.turns.later(self.go_on)
            return
        if self._lag is not None:
            self._lag.begin()
        try:
            self._take_packets(data)
        except PacketError as error:
            self._end_for(error)
        except Exception as error:  # noqa: BLE001 - also called from ``go_on``, outside a callback
            self.fail(error)
        if perf_counter() - now > LONG_STEP_S:
            self._took_long()

    def _took_long(self) -> None:
        """A step took long by the wall clock: the client is slowed, if it was not the machine."""
        if self._lag is None:
            self._lag = Lag(self._context.collections)
        elif (took := self._lag.end()) and not self._closing:
            self._slow(self._lag, took)

    def _slow(self, lag: Lag, took: float) -> None:
        """A step of the client kept the others waiting: read nothing from it for a while."""
        who = self._name if self.username is None else f"{self._name} of user {self.username}"
        if lag.is_too_much:
            self._context.count(Counter.CONNECTIONS_ENDED_LAG)
            self.end(
                Reason.QUOTA_EXCEEDED,
                f"what it sends keeps other clients waiting ({who}, last for {took * 1000:.0f} ms)",
            )
            return
        self._context.count(Counter.CLIENTS_SLOWED)
        self._context.lag_log.log(
            logging.WARNING,
            "client %s at %s: what it sent kept other clients waiting for %.0f ms; it is slowed",
            who,
            self.address,
            took * 1000,
        )
        if not lag.is_slowed:
            lag.is_slowed = True
            self._loop.call_later(took * PAUSE, self._recover, lag)
            self._update_reading()

    def _recover(self, lag: Lag) -> None:
        lag.is_slowed = False
        if not self._busy:
            self.go_on()

    def _end_for(self, error: PacketError) -> None:
        """The client broke the protocol or exceeded a limit."""
        counter: Counter | None = Counter.CONNECTIONS_ENDED_PROTOCOL_ERROR
        if isinstance(error, AnswerTooLargeError):
            counter = None
        elif error.reason is Reason.PACKET_TOO_LARGE:
            counter = Counter.CONNECTIONS_ENDED_PACKET_TOO_LARGE
        elif isinstance(error, TooManyPropertiesError):
            counter = Counter.CONNECTIONS_ENDED_TOO_MANY_PROPERTIES
        elif isinstance(error, TooManyQoS2Error):
            counter = Counter.CONNECTIONS_ENDED_TOO_MANY_QOS2
        if counter is not None:
            self._context.count(counter)
        self.end(error.reason, str(error))

    def _take_packets(self, data: bytes) -> None:
        reader = self._publish_reader
        position = 0
        end = len(data)
        limit = self._largest_packet
        self._needed = 0
        slice_ = None if end < _SHORT_READ else Slice()
        controls = 0
        try:
            while position < end and not self._busy and not self._closing:
                if (
                    slice_ is not None
                    and position
                    and not controls % _CONTROLS_AT_ONCE
                    and slice_.is_over
                ):
                    # Other clients get their turn before the rest of a long read.
                    self.wait()
                    self._context.turns.later(self.go_on)
                    break
                if data[position] >> 4 == packets.PUBLISH and self.is_open:
                    stop = end
                    if end - position > _BYTES_AT_ONCE:
                        stop = _read_until(data, position, end, limit)
                    begin = position
                    position = reader.publishes(data, position, stop, limit)
                    if reader.undecided is not None:
                        self._ask_publish(reader.undecided)
                        reader.undecided = None
                        break
                    if position >= end:
                        break
                    if position > begin and slice_ is not None:
                        reader.enter_retained()
                        controls = 0
                        continue
                first = data[position]
                if self.asked is None and first != packets.CONNECT << 4:
                    raise PacketError("the first packet is not CONNECT [MQTT-3.1.0-1]")
                # MQTT 3.1 does not use the flags, or has DUP there (a repeated SUBSCRIBE).
                packet_type = first >> 4 if self.version == 3 else check_flags(first)
                found = frame(data, position, limit)
                if found is None:
                    break
                start, stop = found
                if stop > end:
                    self._needed = stop - position
                    break
                body = data[start:stop]
                if packet_type == packets.PUBACK and self.is_open:
                    self._output.take_puback(body)
                elif packet_type == packets.PUBREL and self.is_open:
                    reader.take_pubrel(body)
                else:
                    reader.enter()
                    self._control(packet_type, body)
                    limit = self._largest_packet
                position = stop
                controls += 1
        finally:
            reader.enter()
            if position < end and not self._closing:
                self._rest = bytearray(data[position:]) + self._rest

    # --- what the next packet waits for -------------------------------------------------------

    def start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Start what the next packet depends on; nothing more is read meanwhile (``wait``)."""
        self._task = self._loop.create_task(work, name=f"{name} {self.client_id or self.address}")

    def _ask_publish(self, topic: str) -> None:
        if self.gate is not None:
            self.wait()
            self.start(self._wait_to_publish(self.gate, topic), "plugins")

    async def _wait_to_publish(self, gate: TopicGate, topic: str) -> None:
        try:
            await gate.ask_publish(topic)
        except PacketError as error:
            self.end(error.reason, str(error))
        except Exception as error:  # noqa: BLE001 - any error ends the connection
            self.fail(error)
        if not self._closing:
            self.go_on()

    # --- the packets that are not PUBLISH or PUBREL -------------------------------------------

    def _control(self, packet_type: int, body: bytes) -> None:
        if packet_type == packets.CONNECT:
            take_connect(self._context, self, body)
            return
        handler = self._handlers.get(packet_type)
        if handler is None or not self.is_open:
            raise PacketError(
                f"a client may not send packet type {packet_type} now", Reason.PROTOCOL_ERROR
            )
        handler(self, body)

    def _ping(self, body: bytes) -> None:
        if body:
            raise PacketError("a PINGREQ has nothing but its header")
        self.queue(packets.PINGRESP_BYTES)

    def _subscriber(self) -> SubscribeHandler:
        """The subscribing side of this connection, from its client's first subscription on."""
        if self._subscribe_handler is None:
            self._subscribe_handler = SubscribeHandler(self._context, self)
        return self._subscribe_handler

    def _disconnect(self, body: bytes) -> None:
        if self.version == 5:
            reason, expiry = decode.disconnect(body)
            if expiry is not None and self.session is not None:
                if expiry and not self.session.expiry_s:
                    raise PacketError(
                        "a session expiry at DISCONNECT where CONNECT had none",
                        Reason.PROTOCOL_ERROR,
                    )
                self._context.sessions.keep_for(self.session, expiry)
            # Any other reason than 0 lets the will be published (MQTT 5, section 3.1.2.5).
            self._said_goodbye = reason == 0
        elif body:
            raise PacketError("a DISCONNECT has nothing but its header")
        else:
            self._said_goodbye = True
        if self._said_goodbye:
            self._context.binding.wills.drop(self.client_id)
        if self._subscribe_handler is not None:
            self._subscribe_handler.disconnect()
        self.close()

    _handlers: ClassVar[dict[int, Callable[[Connection, bytes], None]]] = {
        packets.PINGREQ: _ping,
        packets.PUBREC: lambda self, body: self._output.take_pubrec(body),
        packets.PUBCOMP: lambda self, body: self._output.take_pubcomp(body),
        packets.SUBSCRIBE: lambda self, body: self._subscriber().take_subscribe(body),
        packets.UNSUBSCRIBE: lambda self, body: self._subscriber().take_unsubscribe(body),
        packets.DISCONNECT: _disconnect,
    }

    # --- the client is admitted ---------------------------------------------------------------

    def let_in(self, admission: Admission) -> None:
        """Take the client's session, and answer its CONNECT.

        Raises:
            PacketError: there are too many sessions.
        """
        self.asked = asked = admission.asked
        self.client_id = admission.client_id
        self.username = asked.username
        self.proof = admission.proof
        self.plugin_client = admission.plugin_client
        if self._context.plugins is not None and admission.plugin_client is not None:
            self.gate = self._context.plugins.gate(admission.plugin_client)
        self._check_connack(admission)
        session_present = self._context.binding.bind(self, asked)
        session = self.session
        if session is None:
            raise RuntimeError("a connection is bound to no session")
        self.is_open = True
        self._largest_packet = int(self._limits.max_packet_size)
        told = shorter_keepalive(asked, self._limits)
        self.keepalive_s = (asked.keepalive_s if told is None else told) * 1.5
        self._output.version = self.version
        self._output.window = min(self._output.window, asked.receive_maximum)
        self._output.largest = asked.maximum_packet_size
        self._publish_reader.open(session, self.version, self.username, self.address, self.gate)
        self.queue(connack(admission, self._limits, session_present=session_present))
        self._context.connections.admitted(self)
        if self._context.plugins is not None and self.plugin_client is not None:
            self._context.plugins.connected(self.plugin_client)
        logger.info(
            "client %s connected from %s (MQTT %s)",
            self.client_id,
            self.address,
            _SPOKEN[self.version],
        )
        self._output.gate = self.gate
        self._output.outbox = session.outbox
        session.outbox.attach(self._output)

    def _check_connack(self, admission: Admission) -> None:
        """See to it that the client takes a packet as large as its CONNACK.

        Every other packet but PUBLISH, SUBACK and UNSUBACK is smaller than the smallest CONNACK.

        Raises:
            PacketError: it does not.
        """
        largest = admission.asked.maximum_packet_size
        if largest is not None:
            answer = connack(admission, self._limits, session_present=False)
            if len(answer) > largest:
                raise AnswerTooLargeError(self._context, "CONNACK", len(answer), largest)

    # --- ending -------------------------------------------------------------------------------

    def end(self, reason: Reason, text: str) -> None:
        """End the connection for a reason that the client is told, in its version."""
        if self._closing:
            return
        said = ("client %s at %s: %s", self._name, self.address, text)
        if self.is_open:
            logger.warning(*said)
        else:
            self._context.strangers_log.log(origin_of(self.peer[0]), logging.WARNING, *said)
        self._tell(reason)
        self.close()

    @property
    def _name(self) -> str:
        return self.client_id or (self.asked.client_id if self.asked else "") or "?"

    def fail(self, error: Exception) -> None:
        """End the connection at once because of an error of the appliance's own."""
        self.note_error(error)
        self.abort()

    def note_error(self, error: Exception) -> None:
        """Count and log the first error of the appliance's own on this connection."""
        if not self._failed:
            self._failed = True
            self._context.count(Counter.CONNECTIONS_ENDED_INTERNAL_ERROR)
            logger.error(
                "client %s at %s: internal error, the connection ends",
                self._name,
                self.address,
                exc_info=error,
            )

    def end_quietly(self, reason: Reason) -> None:
        """End the connection without a line in the log."""
        if not self._closing:
            self._tell(reason)
        self.close()

    def _tell(self, reason: Reason) -> None:
        if self.is_open:
            if self.version == 5:
                self.queue(v5.encode_disconnect(reason))
        elif self.version == 5:
            refusal = v5.encode_refusal(reason)
            largest = None if self.asked is None else self.asked.maximum_packet_size
            if largest is None or len(refusal) <= largest:
                self.queue(refusal)
        elif (
            self.version in (3, 4) and reason not in packets.BREAKS_PROTOCOL
        ) or reason is Reason.UNSUPPORTED_PROTOCOL_VERSION:
            self.queue(packets.encode_refusal(reason))

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._closing

    def close(self) -> None:
        """Send what is queued and close; the broker's sweep aborts what is not closed in time."""
        if self._transport is None or self._closing:
            return
        self._output.flush()
        self._closing = self._output.is_closed = True
        self.is_open = False
        self._closing_since = self._loop.time()
        if not self._transport.is_closing():
            # WebSocket ends with an answer of the client, which must be read.
            self._transport.resume_reading()
        self._transport.close()

    def host_closed(self) -> None:
        """The session host can serve the client no more."""
        if self.is_open:
            self._tell(Reason.UNSPECIFIED)
            self.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = self._output.is_closed = True
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def overdue(self, now: float) -> str | None:
        """Why the connection must end at this time of the loop's clock, or ``None``.

        A connection that is closing, and whose client does not read the last of it, is aborted.
        """
        if self._closing:
            if now - self._closing_since > _LINGER_S:
                self.abort()
            return None
        if self._lag is not None and self._lag.is_forgotten:
            self._lag = None
        silent = now - self.last_received
        if self.is_open:
            is_heard = not (self._paused_by_door or self._busy or self._is_slowed)
            if self.keepalive_s and silent > self.keepalive_s and is_heard:
                return (
                    f"nothing heard for {silent:.0f} s, keepalive is {self.keepalive_s / 1.5:.0f} s"
                )
            return None
        if self.asked is None and now - self._accepted > self._limits.connect_timeout:
            return "no complete CONNECT in time"
        return None
