"""What a broker sends on one connection, from pieces of bytes to packets.

A long read is taken in slices, and other connections have their turn in between. A message that is
too large is passed over and acknowledged: the broker would send it again on each connection. Not
for: what a packet means (connection.py), what becomes of messages (incoming.py).
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Protocol

from appliance.bridge.incoming import Incoming
from appliance.broker.work import Slice, Turns
from appliance.mqtt import packets
from appliance.mqtt.packets import PacketError, Reason, frame
from appliance.mqtt.received import oversized

_MESSAGES_AT_ONCE = 300
"""Messages that are taken before a long read looks at the time: a few milliseconds."""
_LARGEST_CONTROL = 256 * 1024
"""Bytes of a packet that is no PUBLISH: several reason strings and user properties."""
_LARGEST_EARLY = 64 * 1024
"""Bytes of a packet before the CONNACK."""


class Receiving(Protocol):
    """The connection, as its receiver sees it."""

    @property
    def is_gone(self) -> bool:
        """Nothing more is taken."""

    incoming: Incoming | None
    """Where messages go; ``None``: the broker has not accepted the connection."""

    def take_control(self, first: int, body: bytes) -> None:
        """Take a packet that is no PUBLISH. Raises ``PacketError``."""

    def update_reading(self) -> None:
        """``Receiver.is_busy`` has changed."""

    def end_for(self, error: PacketError) -> None:
        """The broker breaks the protocol."""

    def fail(self, error: Exception) -> None:
        """A defect."""


class Receiver:
    """The receiving side of one connection. Engine's loop only."""

    def __init__(self, connection: Receiving, turns: Turns, largest_packet: int) -> None:
        """``largest_packet``: the size in bytes up to which a message is taken."""
        self._connection = connection
        self._turns = turns
        self._largest_packet = largest_packet
        self._loop = asyncio.get_running_loop()
        self._rest = bytearray()
        self._needed = 0
        self._skip = 0
        """Bytes of a packet that is too large, still to come."""
        self.is_busy = False
        """Something that has come is looked at in a later step of the loop; read nothing."""
        self.is_draining = False
        """Messages are passed over: the broker delivers them again, on the next connection."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that have come and are not taken yet."""
        return len(self._rest)

    def forget(self) -> None:
        """The connection is over."""
        self._rest.clear()

    def feed(self, data: bytes) -> None:
        """Take what came."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
            if self._skip or not data:
                return
        if self._rest:
            self._rest += data
            if self.is_busy or len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        elif self.is_busy:
            self._rest += data
            return
        self._consume(data)

    def _later(self) -> None:
        """Take the rest in a later step of the loop: other connections have their turn."""
        self.is_busy = True
        self._connection.update_reading()
        self._turns.later(self._go_on)

    def _go_on(self) -> None:
        self.is_busy = False
        self._connection.update_reading()
        if self._rest and not self._connection.is_gone:
            data = bytes(self._rest)
            self._rest.clear()
            self._consume(data)

    def _consume(self, data: bytes) -> None:
        if self._turns.is_over(self._loop.time(), perf_counter()):
            self._rest[:0] = data
            self._later()
            return
        try:
            self._take(data)
        except PacketError as error:
            self._connection.end_for(error)
        except Exception as error:  # noqa: BLE001 - also called from ``_go_on``
            self._connection.fail(error)

    def _take(self, data: bytes) -> None:
        connection = self._connection
        position = 0
        end = len(data)
        self._needed = 0
        slice_ = Slice()
        try:
            while position < end and not connection.is_gone:
                if position and slice_.is_over:
                    self._later()
                    break
                is_message = data[position] >> 4 == packets.PUBLISH
                incoming = connection.incoming
                if incoming is None and data[position] != packets.CONNACK << 4:
                    raise PacketError("the first packet is not CONNACK; is it an MQTT port?")
                if is_message and incoming is not None:
                    begin = position
                    position = self._take_messages(incoming, data, position)
                    if position > begin:
                        continue
                    if self._needed:
                        break
                limit = self._largest_packet if is_message else _LARGEST_CONTROL
                found = frame(data, position, _LARGEST_EARLY if incoming is None else limit)
                if found is None:
                    break
                start, stop = found
                if stop > end:
                    self._needed = stop - position
                    break
                connection.take_control(data[position], data[start:stop])
                position = stop
        finally:
            if connection.incoming is not None:
                connection.incoming.enter()
            if position < end and not connection.is_gone:
                self._rest = bytearray(data[position:]) + self._rest

    def _take_messages(self, incoming: Incoming, data: bytes, position: int) -> int:
        if self.is_draining:
            return self._pass_over(data, position)
        try:
            return incoming.take(data, position, self._largest_packet, _MESSAGES_AT_ONCE)
        except PacketError as error:
            if error.reason is not Reason.PACKET_TOO_LARGE:
                raise
        packet = oversized(data, position)
        if packet is None:
            # Its topic and packet id have to come before it can be acknowledged.
            self._needed = len(data) - position + 1
            return position
        incoming.leave_out_oversized(packet, self._largest_packet)
        present = min(packet.size, len(data) - position)
        self._skip = packet.size - present
        return position + present

    def _pass_over(self, data: bytes, position: int) -> int:
        found = frame(data, position, packets.LARGEST_LENGTH + 5)
        if found is None:
            return position
        present = min(found[1], len(data)) - position
        self._skip = found[1] - position - present
        return position + present
