"""TLS on a connection that is counted from its accept on, not from the end of its handshake.

asyncio's own TLS server makes a connection known to us only once the handshake is done, so
strangers who never finish it could not be bounded. Not for: certificates (listener.py), MQTT
(connection.py).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

from appliance.broker.face import Face

logger = logging.getLogger(__name__)

_GOODBYE_S = 2.0
"""How long a client may take to answer the end of TLS."""


class TlsServer(asyncio.Protocol):
    """Carries one connection over TLS."""

    def __init__(
        self,
        make_connection: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        *,
        handshake_s: float,
        count: Callable[[str], None],
    ) -> None:
        self._connection = make_connection()
        self._context = context
        self._handshake_s = handshake_s
        self._count = count
        self._high = 0
        self._face = Face(self)
        self._tls: asyncio.Transport | None = None
        self._early_in: list[bytes] = []
        self._early_out: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._is_lost = False
        self.below: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.below = transport  # type: ignore[assignment]  # asyncio's own looser annotation
        # What comes now is the handshake's, and nobody is there yet to take it.
        self.below.pause_reading()
        self._connection.connection_made(self._face)
        self._high = self.below.get_write_buffer_limits()[1]
        if not self.below.is_closing():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._shake_hands(loop), name="TLS handshake")

    async def _shake_hands(self, loop: asyncio.AbstractEventLoop) -> None:
        raw = self.below
        try:
            made = await loop.start_tls(
                raw,
                _Inside(self),
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except (OSError, EOFError) as error:
            peer = raw.get_extra_info("peername")
            logger.info("%s: no TLS handshake: %s", peer, error)
            self._count("connections ended: no TLS handshake")
            raw.abort()
            self.lost(None)
            return
        if made is None:
            raw.abort()
            self.lost(None)
            return
        self._tls = self.below = made
        made.set_write_buffer_limits(high=self._high)
        for data in self._early_out:
            made.write(data)
        for data in self._early_in:
            self._connection.data_received(data)
        self._early_in, self._early_out = [], []

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost(exc)

    def received(self, data: bytes) -> None:
        """Bytes came out of TLS, perhaps before its transport is known here."""
        if self._tls is None:
            self._early_in.append(data)
        else:
            self._connection.data_received(data)

    def lost(self, exc: Exception | None) -> None:
        """The connection is gone, at whatever stage."""
        if not self._is_lost:
            self._is_lost = True
            self._connection.connection_lost(exc)

    def set_writing(self, *, paused: bool) -> None:
        """TLS takes no more bytes, or takes them again."""
        if paused:
            self._connection.pause_writing()
        else:
            self._connection.resume_writing()

    def send(self, data: bytes) -> None:
        """Send bytes through TLS (what the connection's face was given)."""
        if self._tls is not None:
            self._tls.write(data)
        else:
            self._early_out.append(data)

    def say_goodbye(self) -> None:
        """Close TLS, then the connection; before the handshake's end there is no TLS to close."""
        if self._tls is not None:
            self._tls.close()
        else:
            self.below.abort()


class _Inside(asyncio.Protocol):
    """What TLS hands its plain bytes to."""

    def __init__(self, server: TlsServer) -> None:
        self._server = server

    def data_received(self, data: bytes) -> None:
        self._server.received(data)

    def eof_received(self) -> Any:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.lost(exc)

    def pause_writing(self) -> None:
        self._server.set_writing(paused=True)

    def resume_writing(self) -> None:
        self._server.set_writing(paused=False)
