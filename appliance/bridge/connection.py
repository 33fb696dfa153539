"""One connection to another broker, from CONNECT to its end: packets, pings, time-outs.

It is a ``Publisher`` of the door like a client's connection: acknowledgements leave when the
journal has the messages, and back-pressure stops the reading. It dies with its socket, so an
acknowledgement can't outlive the connection that delivered. What a flooding broker sends is taken
in slices, as from clients. Not for: what the messages become (incoming.py), when to connect
(bridge.py), sockets and TLS (transport.py). References are to MQTT 3.1.1 unless said otherwise.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from appliance.bridge.causes import Cause, Causes, Kind
from appliance.bridge.incoming import Incoming
from appliance.bridge.keepalive import Keepalive
from appliance.bridge.receiver import Receiver
from appliance.bridge.transport import acknowledge_at_once
from appliance.broker.door import Door
from appliance.broker.guard import GuardedProtocol
from appliance.broker.work import Turns
from appliance.mqtt import client_packets, packets
from appliance.mqtt.client_packets import PINGREQ_BYTES, Ack, ConnAck, ConnectOptions
from appliance.mqtt.decode import acknowledgement
from appliance.mqtt.packets import PacketError, Reason

_TICK_S = 0.25
"""How often time-outs are looked at."""
_LEAST_BLOCKED_S = 10.0
"""How long a broker may leave unread what is sent, at least; else as long as the keepalive."""
_LINGER_S = 2.0
"""How long the broker may take to read the last of what was sent."""


class Owner(Protocol):
    """The bridge, as its connection sees it. Every method is called on the engine's loop.

    None of the other methods is called before ``accepted``.
    """

    def accepted(self, connection: BridgeConnection, answer: ConnAck) -> Incoming:
        """The broker accepted the connection; returns where its messages go."""

    def subscribed(
        self, connection: BridgeConnection, packet_id: int, code: int | None, text: str
    ) -> None:
        """A SUBACK or (without a code) an UNSUBACK came."""

    def acknowledged(self, ack: Ack) -> None:
        """A PUBACK came."""

    def acknowledges(self, seq: int) -> None:
        """The acknowledgements of messages up to this number were sent."""

    def pinging(self) -> None:
        """A PINGREQ is sent now."""

    def pinged(self) -> None:
        """A PINGRESP came."""

    @property
    def wants_proof(self) -> bool:
        """Whether a ping is to prove that acknowledgements arrived."""

    def note_error(self, error: Exception) -> None:
        """The connection ends because of a defect."""

    def look(self, connection: BridgeConnection) -> None:
        """Called several times a second while the connection is open."""

    def pause_writing(self) -> None:
        """The broker reads too slowly."""

    def resume_writing(self) -> None:
        """The broker reads fast enough again."""


class BridgeConnection(GuardedProtocol):
    """A connection from its making to its end. Engine's loop only.

    ``opened`` ends when the broker accepts, or with the cause why not; ``ended`` when the
    connection is over: with its cause, or ``None`` if it was closed without a word.
    """

    def __init__(
        self,
        owner: Owner,
        options: ConnectOptions,
        causes: Causes,
        *,
        address: str,
        door: Door,
        turns: Turns,
        largest_packet: int,
        answer_s: float,
    ) -> None:
        """``answer_s``: how long the broker may take to answer a SUBSCRIBE."""
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._options = options
        self._version = options.version
        self.causes = causes
        self.address = address
        """``"host:port"`` of the broker."""
        self._door = door
        self._answer_s = answer_s
        self.opened: asyncio.Future[Cause | None] = self._loop.create_future()
        self.ended: asyncio.Future[Cause | None] = self._loop.create_future()
        self.is_open = False
        self.opened_at = 0.0
        """By the loop's clock."""
        self.session_present = False
        self.incoming: Incoming | None = None
        """Where messages go; ``None``: the broker has not accepted the connection."""
        self.asked_at: float | None = None
        """When the SUBSCRIBE was sent whose answer is awaited."""
        self.was_silent = False
        """Whether the connection ended because the broker did not answer."""
        self._keepalive = Keepalive(0, self._loop.time())
        self._transport: asyncio.Transport | None = None
        self._cause: Cause | None = None
        self._receiver = Receiver(self, turns, largest_packet)
        self._is_paused_by_door = False
        self._is_closing = False
        self._blocked_since: float | None = None
        """Since when the broker reads less than is sent."""
        self._keepalive_s = float(options.keepalive_s)
        self._output: list[bytes] = []
        self._answered = asyncio.Event()
        """The newest PINGREQ is answered, or the connection is over."""
        self._ticker: asyncio.TimerHandle | None = None

    # --- asyncio's side -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's own looser annotation
        if self._is_closing:
            transport.abort()  # type: ignore[attr-defined]
            return
        self._write(client_packets.encode_connect(self._options))

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        self._keepalive.heard(self._loop.time())
        self._receiver.feed(data)

    def eof_received(self) -> None:
        """Nothing more will come; what came is processed already."""

    def pause_writing(self) -> None:
        self._blocked_since = self._loop.time()
        self.update_reading()
        if self.is_open:
            self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._blocked_since = None
        self.update_reading()
        if self.is_open:
            self._owner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._is_closing = True
        self._receiver.forget()
        self._output.clear()
        self._answered.set()
        self._door.forget(self)
        if self._ticker is not None:
            self._ticker.cancel()
        cause = self._cause
        if cause is None and exc is not None:
            cause = self.causes.of_error(exc)
        if self.opened_at and cause is not None and cause.kind is Kind.CLOSED_EARLY:
            cause = None  # closed without a word, but not before the CONNACK
        if cause is None and not self.opened_at:
            cause = self.causes.of_silent_end()
        if not self.opened.done():
            self.opened.set_result(cause or self.causes.of_silent_end())
        if not self.ended.done():
            self.ended.set_result(cause)

    # --- the door's side ----------------------------------------------------------------------

    def queue(self, data: bytes) -> None:
        """Send acknowledgements: the messages are in the journal."""
        if self.incoming is None:
            return
        newest = self.incoming.committed(data)
        if self._is_closing:
            return
        self.write(data)
        if newest:
            self._owner.acknowledges(newest)
            if self._owner.wants_proof:
                # In the same segment: both arrive, or neither does.
                self._ping_if_due(self._loop.time())

    def pause(self) -> None:
        """Back-pressure from the door."""
        self._is_paused_by_door = True
        self.update_reading()

    def resume(self) -> None:
        """The door takes messages again."""
        self._is_paused_by_door = False
        self.update_reading()

    # --- sending ------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send packets; those of one step of the loop leave together."""
        if self._is_closing:
            return
        if not self._output:
            self._loop.call_soon(self.flush)
        self._output.append(data)

    def flush(self) -> None:
        """Send what is queued now."""
        if self._output:
            output, self._output = self._output, []
            self._write(b"".join(output))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._keepalive.sent(self._loop.time())
            self._transport.write(data)

    def ping(self) -> None:
        """Send a PINGREQ behind everything that was queued."""
        self.write(PINGREQ_BYTES)
        self._answered.clear()
        self._keepalive.pinged(self._loop.time())
        self._owner.pinging()

    async def prove(self) -> None:
        """Return when the broker has taken everything that was queued until now.

        A broker that works slowly would forget what it has not read yet when the next connection
        takes the session over.
        """
        if self._keepalive.is_asked:
            await self._answered.wait()
        if not self._is_closing:
            self.ping()
            await self._answered.wait()

    def ask(self, data: bytes) -> None:
        """Send a SUBSCRIBE or UNSUBSCRIBE and expect its answer in time."""
        self.asked_at = self._loop.time()
        self.write(data)

    # --- receiving ----------------------------------------------------------------------------

    @property
    def _is_read(self) -> bool:
        return (
            not (self._is_paused_by_door or self._receiver.is_busy) and self._blocked_since is None
        )

    def update_reading(self) -> None:
        """Read from the broker, or no longer."""
        transport = self._transport
        if self._is_closing or transport is None or transport.is_closing():
            return
        if self._is_read:
            transport.resume_reading()
        else:
            transport.pause_reading()

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._is_closing

    def end_for(self, error: PacketError) -> None:
        """The broker breaks the protocol."""
        text = str(error)
        if error.reason is Reason.PACKET_TOO_LARGE:  # a message is passed over instead
            text = "a packet is larger than any of its kind"
        self.end(self.causes.of_protocol(text), error.reason)

    def take_control(self, first: int, body: bytes) -> None:
        """Take a packet that is no PUBLISH.

        Raises:
            PacketError: it breaks the protocol.
        """
        kind = packets.check_flags(first)
        if not self.is_open:
            self._take_connack(body)
        elif kind == packets.PUBACK:
            self._owner.acknowledged(client_packets.decode_puback(body, self._version))
        elif kind == packets.PINGRESP and not body:
            if self._transport is not None:
                acknowledge_at_once(self._transport)
            if self._keepalive.answered():
                self._answered.set()
                self._owner.pinged()
        elif kind == packets.SUBACK:
            suback = client_packets.decode_suback(body, self._version)
            self._take_answer(suback.packet_id, max(suback.codes), suback.reason_string)
        elif kind == packets.UNSUBACK:
            unsuback = client_packets.decode_unsuback(body, self._version)
            self._take_answer(unsuback.packet_id, None, unsuback.reason_string)
        elif kind == packets.PUBREL and self.incoming is not None:
            self.incoming.enter()
            packet_id, _ = acknowledgement(body, self._version, is_of_release=True)
            self.incoming.release(packet_id)
        elif kind == packets.DISCONNECT and self._version == 5:
            told = client_packets.decode_disconnect(body)
            self._cause = self.causes.of_disconnect(
                told.reason, told.reason_string, server=told.server_reference
            )
            self.close()
        else:
            raise PacketError(f"packet type {kind} does not belong here")

    def _take_answer(self, packet_id: int, code: int | None, text: str) -> None:
        self.asked_at = None
        self._owner.subscribed(self, packet_id, code, text)

    def _take_connack(self, body: bytes) -> None:
        answer = client_packets.decode_connack(body, self._version)
        if answer.reason:
            self._cause = self.causes.of_connack(
                answer.reason,
                self._version,
                answer.reason_string,
                server=answer.server_reference,
            )
            self.close()
            return
        now = self._loop.time()
        if answer.server_keepalive_s:
            # A longer one, or none (0), must not keep a dead network from being noticed.
            self._keepalive_s = min(self._keepalive_s, answer.server_keepalive_s)
        self._keepalive = Keepalive(self._keepalive_s, now)
        self.is_open = True
        self.opened_at = now
        self.session_present = answer.session_present
        self.incoming = self._owner.accepted(self, answer)
        if not self.opened.done():
            self.opened.set_result(None)
        self._ticker = self._loop.call_later(_TICK_S, self._tick)

    # --- time ---------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._is_closing:
            return
        self._ticker = self._loop.call_later(_TICK_S, self._tick)
        try:
            self._look(self._loop.time())
        except Exception as error:  # noqa: BLE001 - the loop would log it and go on
            self.fail(error)

    def _look(self, now: float) -> None:
        keepalive = self._keepalive
        blocked = self._blocked_since
        if blocked is not None and now - blocked > max(self._keepalive_s, _LEAST_BLOCKED_S):
            self._give_up("it does not read any longer")
            return
        if not self._is_read:
            keepalive.unheard(now)
            if self.asked_at is not None:
                self.asked_at = now
        elif keepalive.is_dead(now):
            self._give_up("it does not answer any longer")
            return
        elif self.asked_at is not None and now - self.asked_at > self._answer_s:
            self.was_silent = True
            self.close()
            return
        self._ping_if_due(now)
        self._owner.look(self)

    def _ping_if_due(self, now: float) -> None:
        proof = self._owner.wants_proof
        if self._keepalive.wants_ping(now, for_proof=proof, is_read=self._is_read):
            self.ping()

    def _give_up(self, text: str) -> None:
        self.was_silent = True
        self._cause = Cause(Kind.NO_ANSWER, text, "look at the network and at the broker")
        self.abort()

    # --- ending -------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no message any more; acknowledgements and answers still go their way."""
        self._receiver.is_draining = True
        self.resume()

    def end(self, cause: Cause, reason: Reason | None = None) -> None:
        """End the connection for a cause; MQTT 5 tells the broker the reason."""
        if self._cause is None:
            self._cause = cause
        if self.is_open and self._version == 5 and reason is not None:
            self.write(bytes((0xE0, 2, reason, 0)))
        self.close()

    def fail(self, error: Exception) -> None:
        """End the connection because of what TLS or the WebSocket says, or a defect."""
        if self._cause is None:
            self._cause = self.causes.of_error(error)
            if self._cause.kind is Kind.INTERNAL:
                self._owner.note_error(error)
        self.abort()

    def lose(self, reason: str) -> None:
        """End the connection, because of this; it is built again."""
        self.end(Cause(Kind.NO_ANSWER, reason), Reason.UNSPECIFIED)

    def disconnect(self) -> None:
        """Say goodbye and close."""
        if self.is_open:
            self.write(client_packets.encode_disconnect(self._version))
        self.close()

    def close(self) -> None:
        """Send what is queued and close; a broker that does not read it is cut off."""
        if self._is_closing:
            return
        self.flush()
        self._is_closing = True
        self.is_open = False
        transport = self._transport
        if transport is None:
            self.connection_lost(None)
            return
        if not transport.is_closing():
            # WebSocket and TLS end with an answer of the broker, which must be read.
            transport.resume_reading()
        transport.close()
        self._loop.call_later(_LINGER_S, transport.abort)

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        self.is_open = False
        if self._transport is None:
            self.connection_lost(None)
        else:
            self._transport.abort()
