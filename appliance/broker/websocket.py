"""MQTT over WebSocket (MQTT 3.1.1 section 6): frames off, bytes on to a connection.

The ``websockets`` library does the protocol (its sans-I/O ``ServerProtocol``); this module only
joins it to asyncio. Not for: MQTT itself (connection.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from appliance.broker.carrier_transport import Carrier
from appliance.config.values import is_loopback
from appliance.counters import Count, Counter

logger = logging.getLogger(__name__)

_MQTT = Subprotocol("mqtt")
_SWITCHING_PROTOCOLS = 101
_GOODBYE_S = 2.0
"""How long a client may take to agree to the end."""


class WebSocketServer(Carrier):
    """Carries one MQTT connection over WebSocket binary frames.

    The connection above is there from the accept on, so that it is counted and timed; it gets
    bytes once the WebSocket handshake is done.

    A browser lets every page connect to this machine. While ``is_open`` says that no password is
    needed, only pages that this machine served itself may (RFC 6455, section 10.2); what is no
    browser sends no Origin.
    """

    def __init__(
        self,
        connection: asyncio.Protocol,
        *,
        largest_frame: int,
        is_open: Callable[[], bool],
        count: Count,
    ) -> None:
        self._protocol = ServerProtocol(subprotocols=[_MQTT], max_size=largest_frame)
        super().__init__(connection, count)
        self._lets_everybody_in = is_open
        self._deadline: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        # After a close or an error the library discards what comes.
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                if self._is_foreign(event):
                    response = self._protocol.reject(
                        HTTPStatus.FORBIDDEN, "Pages of other machines need a broker with users.\n"
                    )
                else:
                    response = self._protocol.accept(event)
                self._protocol.send_response(response)
                self._is_open = response.status_code == _SWITCHING_PROTOCOLS
            elif isinstance(event, Frame):
                if event.opcode in (Opcode.BINARY, Opcode.CONT):
                    self._connection.data_received(bytes(event.data))
                elif event.opcode is Opcode.TEXT:
                    # MQTT-6.0.0-1: MQTT goes in binary frames.
                    self._is_open = False
                    self._protocol.fail(1003, "MQTT is sent in binary frames")
                    break
        self._send_pending()

    def _is_foreign(self, request: Request) -> bool:
        """Whether a page asks that another machine served, while no password is needed."""
        origins = request.headers.get_all("Origin")
        if not self._lets_everybody_in() or all(_is_local(each) for each in origins):
            return False
        self._count(Counter.CONNECTIONS_REFUSED_FOREIGN_ORIGIN)
        logger.warning(
            "%s: a page from %.200r may not connect while no password is needed: add users",
            self.below.get_extra_info("peername"),
            origins,
        )
        return True

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._send_pending()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _send_pending(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.below.write(data)
            else:
                self.below.close()
        if self._protocol.close_expected() and self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(_GOODBYE_S, self.below.abort)

    def send(self, data: bytes) -> None:
        """Send MQTT bytes as one binary frame."""
        # The client's close frame may have come in the same read as what is answered here.
        if self._is_open and self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._send_pending()

    def say_goodbye(self) -> None:
        """Close in the WebSocket's way: the connection below is closed when the client agrees.

        A client that does not is cut off after two seconds.
        """
        if self._is_open and not self.below.is_closing():
            self._is_open = False
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
            self._send_pending()
        else:
            self.below.close()


def _is_local(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False
