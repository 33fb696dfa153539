"""The packet ids of the QoS 2 messages that a client has sent and not released yet.

A bit for each id, because a session may outlive its connection for years: 65,535 ids cost 8 KiB,
where a set costs 4 MB. Not for: the ids of deliveries (outbox.py).
"""

from __future__ import annotations

_MOST_BYTES = 8192


class PacketIds:
    """A set of packet ids (1 to 65,535)."""

    __slots__ = ("_bits", "_count")

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, packet_id: int) -> bool:
        place = packet_id >> 3
        return place < len(self._bits) and bool(self._bits[place] & 1 << (packet_id & 7))

    def add(self, packet_id: int) -> None:
        """Put an id in."""
        if packet_id not in self:
            place = packet_id >> 3
            if place >= len(self._bits):
                # Clients count up from 1, most of them to a low number.
                self._bits.extend(bytes(min(2 * place + 8, _MOST_BYTES) - len(self._bits)))
            self._bits[place] |= 1 << (packet_id & 7)
            self._count += 1

    def discard(self, packet_id: int) -> None:
        """Take an id out if it is in."""
        if packet_id in self:
            self._bits[packet_id >> 3] &= ~(1 << (packet_id & 7))
            self._count -= 1
