"""MQTT over WebSocket (MQTT 3.1.1 section 6), the server's side.

An error that the ``websockets`` library raises ends the connection and is no defect: only what a
client sends can cause it. Not for: MQTT itself (connection.py), frames (websocket_frames.py), the
answer to a handshake (websocket_handshake.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.http11 import Request
from websockets.server import ServerProtocol

from appliance.broker.guard import GuardedProtocol
from appliance.broker.sparse_log import SparseLog
from appliance.broker.websocket_frames import WebSocketFrames
from appliance.broker.websocket_handshake import FOREIGN_PAGE, LARGEST_HEAD, answer, new_protocol
from appliance.broker.work import Turns
from appliance.config.values import is_loopback
from appliance.counters import Count, Counter

logger = logging.getLogger(__name__)
_sparse = SparseLog(logger)

_SWITCHING_PROTOCOLS = 101
_EARLY_BYTES = 320 * 1024
"""Bytes that a client may send before it is admitted: the largest CONNECT in frames."""


class WebSocketServer(WebSocketFrames):
    """Carries one MQTT connection of a client over WebSocket binary frames.

    The connection above is there from the accept on, so that it is counted and timed; it gets
    bytes once the WebSocket handshake is done.

    A browser lets every page connect to this machine. While ``is_open`` says that no password is
    needed, only pages that this machine served itself may (RFC 6455, section 10.2); what is no
    browser sends no Origin.
    """

    def __init__(
        self,
        connection: GuardedProtocol,
        *,
        largest_frame: int,
        allow_mqtt31: bool,
        is_open: Callable[[], bool],
        count: Count,
        turns: Turns,
    ) -> None:
        self._protocol: ServerProtocol = new_protocol(largest_frame, allow_mqtt31=allow_mqtt31)
        super().__init__(connection, self._protocol, count=count, turns=turns)
        self._head: bytearray | None = bytearray()
        """What has come of the handshake's request; ``None`` once it is answered."""
        self._is_refused = False
        self._early = 0
        self._lets_everybody_in = is_open

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if self._head is not None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0 and len(self._head) <= LARGEST_HEAD and self._head[:1].isalpha():
                return
            head, rest = bytes(self._head[: end + 4]), bytes(self._head[end + 4 :])
            self._head = None
            self._answer(head if 0 <= end <= LARGEST_HEAD else b"")
            if not self._is_open or not rest:
                return
            data = rest
        if not self._mqtt.is_open:
            self._early += len(data)
            if self._early > _EARLY_BYTES:
                self.refuse_frames(1009, "too much before the login")
                return
        self.take(data)

    def _answer(self, head: bytes) -> None:
        """Answer the handshake's request: accept it, or refuse it as RFC 6455 wants."""
        response = answer(self._protocol, head, self._is_foreign)
        if response.status_code == _SWITCHING_PROTOCOLS:
            self._is_open = True
        elif response.status_code != FOREIGN_PAGE:
            self._count(Counter.CONNECTIONS_REFUSED_WEBSOCKET_HANDSHAKE)
            _sparse.log(
                logging.INFO,
                "%s: no WebSocket handshake: %d %s",
                self.below.get_extra_info("peername"),
                response.status_code,
                response.reason_phrase,
            )
        if self._is_open:
            self._protocol.send_response(response)
            self.send_pending()
        else:
            # The library can't send it when it could not read the request.
            self._is_refused = True
            self.below.write(response.serialize())
            self.below.close()

    def give_up(self, error: Exception) -> None:
        """End the connection because the library could not take what the client sent."""
        self._is_open = False
        self._count(Counter.CONNECTIONS_ENDED_PROTOCOL_ERROR)
        _sparse.log(
            logging.INFO,
            "%s: WebSocket ended the connection: %s: %.200r",
            self.below.get_extra_info("peername"),
            type(error).__name__,
            str(error),
        )
        self.below.abort()

    def _is_foreign(self, request: Request) -> bool:
        """Whether a page asks that another machine served, while no password is needed."""
        origins = request.headers.get_all("Origin")
        if not self._lets_everybody_in() or all(_is_local(each) for each in origins):
            return False
        self._count(Counter.CONNECTIONS_REFUSED_FOREIGN_ORIGIN)
        _sparse.log(
            logging.WARNING,
            "%s: a page from %.200r may not connect while no password is needed: add users",
            self.below.get_extra_info("peername"),
            origins,
        )
        return True

    def eof_received(self) -> None:
        if self._head is None and not self._is_refused:  # else the transport closes by itself
            self.take_eof()


def _is_local(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False
