"""MQTT over WebSocket (MQTT 3.1.1 section 6): frames off, bytes on to a connection.

The ``websockets`` library does the protocol (its sans-I/O ``ServerProtocol``); this module joins
it to asyncio. An error that the library raises ends the connection and is no defect: only what a
client sends can cause it. Not for: MQTT itself (connection.py), the answer to a handshake
(websocket_handshake.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from appliance.broker.carrier_transport import Carrier
from appliance.broker.guard import GuardedProtocol
from appliance.broker.sparse_log import SparseLog
from appliance.broker.websocket_handshake import FOREIGN_PAGE, LARGEST_HEAD, answer, new_protocol
from appliance.broker.work import Slice, Turns
from appliance.config.values import is_loopback
from appliance.counters import Count, Counter

logger = logging.getLogger(__name__)
_sparse = SparseLog(logger)

_SWITCHING_PROTOCOLS = 101
_EARLY_BYTES = 320 * 1024
"""Bytes that a client may send before it is admitted: the largest CONNECT in frames."""
_BYTES_AT_ONCE = 4096
"""Bytes that are taken before a long read looks at the time: up to some hundred frames."""
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
        connection: GuardedProtocol,
        *,
        largest_frame: int,
        allow_mqtt31: bool,
        is_open: Callable[[], bool],
        count: Count,
        turns: Turns,
    ) -> None:
        self._protocol = new_protocol(largest_frame, allow_mqtt31=allow_mqtt31)
        super().__init__(connection, count)
        self._mqtt = connection
        self._head: bytearray | None = bytearray()
        """What has come of the handshake's request; ``None`` once it is answered."""
        self._is_refused = False
        self._early = 0
        self._turns = turns
        self._rest = b""
        """What came and waits for a later step of the loop."""
        self._lets_everybody_in = is_open
        self._deadline: asyncio.TimerHandle | None = None

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
                self._refuse_frames(1009, "too much before the login")
                return
        if self._rest:
            self._rest += data
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Take frames; those of a long read in slices of time, as each may be very small."""
        if self._turns.is_over(asyncio.get_running_loop().time(), time.perf_counter()):
            self._wait_with(data)
            return
        slice_ = Slice()
        for begin in range(0, len(data), _BYTES_AT_ONCE):
            if begin and slice_.is_over:
                self._wait_with(data[begin:])
                break
            if not self._take_frames(data[begin : begin + _BYTES_AT_ONCE]):
                break

    def _wait_with(self, rest: bytes) -> None:
        """Take the rest in a later step of the loop."""
        self._rest = rest
        self.hold_reading()
        self._turns.later(self._go_on)

    def _go_on(self) -> None:
        rest, self._rest = self._rest, b""
        if self.below.is_closing():
            return
        try:
            self._take(rest)
            if not self._rest:
                self.release_reading()
        except Exception as error:  # noqa: BLE001 - outside of the callbacks that are guarded
            self._mqtt.fail(error)

    def _take_frames(self, data: bytes) -> bool:
        """Take some bytes; returns whether more may follow."""
        # After a close or an error the library discards what comes.
        try:
            self._protocol.receive_data(data)
            events = self._protocol.events_received()
        except Exception as error:  # noqa: BLE001 - what a client sent the library could not take
            self._give_up(error)
            return False
        for event in events:
            if not isinstance(event, Frame):
                continue
            if event.opcode in (Opcode.BINARY, Opcode.CONT):
                self._connection.data_received(bytes(event.data))
            elif event.opcode is Opcode.TEXT:
                # MQTT-6.0.0-1: MQTT goes in binary frames.
                self._refuse_frames(1003, "MQTT is sent in binary frames")
                return False
        self._send_pending()
        return True

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
            self._send_pending()
        else:
            # The library can't send it when it could not read the request.
            self._is_refused = True
            self.below.write(response.serialize())
            self.below.close()

    def _refuse_frames(self, code: int, reason: str) -> None:
        self._is_open = False
        if self._protocol.state is State.OPEN:
            self._protocol.fail(code, reason)
        self._send_pending()

    def _give_up(self, error: Exception) -> None:
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
        if self._head is not None or self._is_refused:
            return  # the transport closes by itself
        rest, self._rest = self._rest, b""
        if rest and not self._take_frames(rest):
            return
        try:
            self._protocol.receive_eof()
        except Exception as error:  # noqa: BLE001
            self._give_up(error)
            return
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
