"""The frames of a WebSocket that carries MQTT: data of others off, bytes of ours on.

The ``websockets`` library does the protocol (sans-I/O); this module joins it to asyncio, for the
server's side (websocket.py) and for the client's (a bridge's transport). A long read is taken in
slices of time. Not for: the handshake, which differs between the two sides.
"""

from __future__ import annotations

import asyncio
import time

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State

from appliance.broker.carrier_transport import Carrier
from appliance.broker.guard import GuardedProtocol
from appliance.broker.work import Slice, Turns
from appliance.counters import Count

_BYTES_AT_ONCE = 4096
"""Bytes that are taken before a long read looks at the time: up to some hundred frames."""
_GOODBYE_S = 2.0
"""How long the other side may take to agree to the end."""


class WebSocketFrames(Carrier):
    """Carries one MQTT connection over WebSocket binary frames, once the handshake is done."""

    def __init__(
        self, connection: GuardedProtocol, protocol: Protocol, *, count: Count, turns: Turns
    ) -> None:
        super().__init__(connection, count)
        self._mqtt = connection
        self._websocket = protocol
        self._turns = turns
        self._rest = b""
        """What came and waits for a later step of the loop."""
        self._deadline: asyncio.TimerHandle | None = None

    def give_up(self, error: Exception) -> None:
        """End the connection because the library could not take what the other side sent."""
        raise NotImplementedError

    def take(self, data: bytes) -> None:
        """Take what came of frames, behind what still waits."""
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
            self._websocket.receive_data(data)
            events = self._websocket.events_received()
        except Exception as error:  # noqa: BLE001 - what was sent the library could not take
            self.give_up(error)
            return False
        for event in events:
            if not isinstance(event, Frame):
                continue
            if event.opcode in (Opcode.BINARY, Opcode.CONT):
                self._connection.data_received(bytes(event.data))
            elif event.opcode is Opcode.TEXT:
                # MQTT-6.0.0-1: MQTT goes in binary frames.
                self.refuse_frames(1003, "MQTT is sent in binary frames")
                return False
        self.send_pending()
        return True

    def refuse_frames(self, code: int, reason: str) -> None:
        """Close the WebSocket for a reason that the other side is told."""
        self._is_open = False
        if self._websocket.state is State.OPEN:
            self._websocket.fail(code, reason)
        self.send_pending()

    def take_eof(self) -> None:
        """The other side sends no more: take what still waits, and end the WebSocket."""
        rest, self._rest = self._rest, b""
        if rest and not self._take_frames(rest):
            return
        try:
            self._websocket.receive_eof()
        except Exception as error:  # noqa: BLE001
            self.give_up(error)
            return
        self.send_pending()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def send_pending(self) -> None:
        """Write what the library wants to send; close where it wants the end."""
        for data in self._websocket.data_to_send():
            if data:
                self.below.write(data)
            else:
                self.below.close()
        if self._websocket.close_expected() and self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(_GOODBYE_S, self.below.abort)

    def send(self, data: bytes) -> None:
        """Send MQTT bytes as one binary frame."""
        # The other side's close frame may have come in the same read as what is answered here.
        if self._is_open and self._websocket.state is State.OPEN:
            self._websocket.send_binary(data)
            self.send_pending()

    def say_goodbye(self) -> None:
        """Close in the WebSocket's way: the connection below is closed when the other side agrees.

        One that does not is cut off after two seconds.
        """
        if self._is_open and not self.below.is_closing():
            self._is_open = False
            if self._websocket.state is State.OPEN:
                self._websocket.send_close(1000)
            self.send_pending()
        else:
            self.below.close()
