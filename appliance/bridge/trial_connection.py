"""A connection to another broker that asks one question at a time and hands on no message.

Not for: what is asked and said about it (trial.py), connections with messages (connection.py).
"""

from __future__ import annotations

import asyncio

from appliance.bridge.causes import Cause, Causes, Kind
from appliance.broker.guard import GuardedProtocol
from appliance.config.certificates import Dates, dates_of
from appliance.mqtt import client_packets, packets
from appliance.mqtt.client_packets import ConnAck, ConnectOptions, SubAck
from appliance.mqtt.packets import PacketError, SubscribeOptions, frame

_GOODBYE_S = 2.0
_LARGEST_CONTROL = 256 * 1024
_LARGEST_PROBE = 4096
"""Bytes of a message whose payload is looked at."""
_SUBSCRIBE_ID = 1
_CLOSED = Cause(Kind.CLOSED, "the broker closed the connection")


class EndedError(Exception):
    """The connection is not there, or not any more."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(str(cause))
        self.cause = cause


class TrialConnection(GuardedProtocol):
    """A connection that asks one question at a time and hands on no message."""

    def __init__(self, options: ConnectOptions, causes: Causes) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._causes = causes
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()
        self._skip = 0
        """Bytes of a message, still to come."""
        self._cause: Cause | None = None
        self._answer: asyncio.Future[ConnAck | SubAck] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self.tls = ""
        """The version of TLS, ``"TLS 1.3"``, once connected with it."""
        self.certificate: Dates | None = None
        """Of the broker."""
        self._awaited = b""
        """The end of a message that is to come."""
        self._came = asyncio.Event()
        self.is_open = False
        self.was_made = False
        """Whether the broker's port took the connection, with TLS and WebSocket."""

    # --- asyncio's side -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's own looser annotation
        self.was_made = True
        if (secured := transport.get_extra_info("ssl_object")) is not None:
            self.tls = str(secured.version()).replace("v", " ")
            self.certificate = dates_of(secured.getpeercert(binary_form=True) or b"")
        self._transport.write(client_packets.encode_connect(self._options))  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._rest += data[skipped:]
        try:
            self._take_packets()
        except PacketError as error:
            said = self._causes.said(str(error))
            self._end(Cause(Kind.PROTOCOL, f"it breaks the protocol: {said}"))

    def _take_packets(self) -> None:
        position = 0
        while position < len(self._rest):
            kind = self._rest[position] >> 4
            if not self.is_open and kind != packets.CONNACK:  # it may be no MQTT at all
                raise PacketError("the answer to CONNECT is no CONNACK")
            is_message = kind == packets.PUBLISH
            limit = packets.LARGEST_LENGTH + 5 if is_message else _LARGEST_CONTROL
            found = frame(self._rest, position, limit)
            if found is None:
                break
            is_whole = found[1] <= len(self._rest)
            is_small = found[1] - position <= _LARGEST_PROBE
            if not is_whole and (is_small or not is_message):
                break
            if not is_message:
                self._take(kind, bytes(self._rest[found[0] : found[1]]))
            elif is_small and self._awaited and self._rest.endswith(self._awaited, 0, found[1]):
                self._came.set()
            self._skip = max(found[1] - len(self._rest), 0)
            position = min(found[1], len(self._rest))
        del self._rest[:position]

    def _take(self, kind: int, body: bytes) -> None:
        version = self._options.version
        if kind == packets.CONNACK and not self.is_open:
            self.is_open = True
            self._tell(client_packets.decode_connack(body, version))
        elif kind == packets.SUBACK and self.is_open:
            self._tell(client_packets.decode_suback(body, version))
        elif kind == packets.DISCONNECT and version == 5:
            told = client_packets.decode_disconnect(body)
            reason, server = told.reason_string, told.server_reference
            self._end(self._causes.of_disconnect(told.reason, reason, server=server))
        else:
            raise PacketError(f"packet type {kind} does not belong here")

    def _tell(self, answer: ConnAck | SubAck) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cause is None and exc is not None and not isinstance(exc, ConnectionError):
            self._cause = self._causes.of_error(exc)
        if self._cause is None and not self.is_open:
            self._cause = self._causes.of_silent_end()
        if not self._answer.done():
            self._answer.set_exception(EndedError(self._cause or _CLOSED))
            self._answer.exception()  # it may be that no one waits
        if not self._lost.done():
            self._lost.set_result(None)
        self._came.set()  # nothing will come any more

    def fail(self, error: Exception) -> None:
        self._end(self._causes.of_error(error))

    def _end(self, cause: Cause) -> None:
        if self._cause is None:
            self._cause = cause
        if self._transport is None:
            self.connection_lost(None)
        else:
            self._transport.abort()

    # --- the trial's side ---------------------------------------------------------------------

    async def connack(self) -> ConnAck:
        """The answer to CONNECT. Raises ``EndedError``."""
        answer = await self._answer
        assert isinstance(answer, ConnAck)
        return answer

    async def subscribe(self, options: SubscribeOptions) -> SubAck:
        """The answer to a SUBSCRIBE. Raises ``EndedError``."""
        version = self._options.version
        return await self.ask(client_packets.encode_subscribe(_SUBSCRIBE_ID, (options,), version))

    async def ask(self, packet: bytes) -> SubAck:
        """The answer to this SUBSCRIBE. Raises ``EndedError``."""
        if self._lost.done() or self._transport is None:
            raise EndedError(self._cause or _CLOSED)
        self._answer = self._loop.create_future()
        self._transport.write(packet)
        answer = await self._answer
        assert isinstance(answer, SubAck)
        return answer

    async def comes_back(self, publish: bytes, payload: bytes) -> None:
        """Send this PUBLISH, and wait for a message with its payload. Raises ``EndedError``."""
        if self._lost.done() or self._transport is None:
            raise EndedError(self._cause or _CLOSED)
        self._awaited = payload
        self._transport.write(publish)
        await self._came.wait()
        if self._lost.done():
            raise EndedError(self._cause or _CLOSED)

    async def goodbye(self) -> None:
        """Disconnect, so that the broker forgets the session; then close."""
        transport = self._transport
        if transport is None:
            return
        if self.is_open and not self._lost.done():
            transport.write(client_packets.encode_disconnect(self._options.version))
            transport.close()
        else:
            transport.abort()
        done, _ = await asyncio.wait({self._lost}, timeout=_GOODBYE_S)
        if not done:
            transport.abort()
