"""MQTT over WebSocket (MQTT 3.1.1 section 6): frames off, bytes on to a connection.

The ``websockets`` library does the protocol (its sans-I/O ``ServerProtocol``); this module only
joins it to asyncio. Not for: MQTT itself (connection.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

_MQTT = Subprotocol("mqtt")
_LARGEST_HANDSHAKE_S = 10.0


class WebSocketServer(asyncio.Protocol):
    """Carries one MQTT connection over WebSocket binary frames."""

    def __init__(
        self,
        make_connection: Callable[[], asyncio.Protocol],
        *,
        largest_frame: int,
        handshake_s: float = _LARGEST_HANDSHAKE_S,
    ) -> None:
        self._make_connection = make_connection
        self._protocol = ServerProtocol(subprotocols=[_MQTT], max_size=largest_frame)
        self._transport: asyncio.Transport | None = None
        self._connection: asyncio.Protocol | None = None
        self._handshake_s = handshake_s
        self._handshake: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's own looser annotation
        self._handshake = asyncio.get_running_loop().call_later(self._handshake_s, transport.close)

    def data_received(self, data: bytes) -> None:
        try:
            self._protocol.receive_data(data)
        except (EOFError, ProtocolError):
            self._send_pending()
            return
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                response = self._protocol.accept(event)
                self._protocol.send_response(response)
                self._send_pending()
                if response.status_code == 101 and self._transport is not None:
                    if self._handshake is not None:
                        self._handshake.cancel()
                    self._connection = self._make_connection()
                    self._connection.connection_made(_FramedTransport(self))
            elif self._connection is not None:
                opcode = getattr(event, "opcode", None)
                if opcode in (Opcode.BINARY, Opcode.CONT):
                    self._connection.data_received(bytes(getattr(event, "data", b"")))
                elif opcode is Opcode.TEXT:
                    # MQTT-6.0.0-1: MQTT goes in binary frames.
                    self._protocol.fail(1003, "MQTT is sent in binary frames")
        self._send_pending()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._send_pending()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
        if self._connection is not None:
            self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_writing()

    def _send_pending(self) -> None:
        if self._transport is None:
            return
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
        if self._protocol.close_expected():
            self._transport.close()

    def send(self, data: bytes) -> None:
        """Send MQTT bytes as one binary frame."""
        self._protocol.send_binary(data)
        self._send_pending()

    def say_goodbye(self) -> None:
        """Close in the WebSocket's way, then the connection below it."""
        if self._transport is None or self._transport.is_closing():
            return
        self._protocol.send_close(1000)
        self._send_pending()
        self._transport.close()

    @property
    def below(self) -> asyncio.Transport:
        """The transport that carries the frames."""
        if self._transport is None:
            raise RuntimeError("the connection is not made yet")
        return self._transport


class _FramedTransport(asyncio.Transport):
    """What an MQTT connection writes to when it runs over WebSocket."""

    def __init__(self, server: WebSocketServer) -> None:
        super().__init__()
        self._server = server

    def write(self, data: Any) -> None:
        self._server.send(bytes(data))

    def close(self) -> None:
        self._server.say_goodbye()

    def abort(self) -> None:
        self._server.below.abort()

    def is_closing(self) -> bool:
        return self._server.below.is_closing()

    def pause_reading(self) -> None:
        self._server.below.pause_reading()

    def resume_reading(self) -> None:
        self._server.below.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._server.below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._server.below.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        return self._server.below.get_write_buffer_size()
