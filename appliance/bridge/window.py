"""The messages that went out and are not acknowledged: packet ids, repeats, the refused one.

A broker may acknowledge in any order; what is done is told in the order of the journal. The window
outlives a connection: the next one sends again what is in it (MQTT 3.1.1, section 4.4).
Not for: reading the journal (outgoing_reader.py), sockets.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

FIRST_PACKET_ID = 1001
"""Lower packet ids are left to SUBSCRIBE and UNSUBSCRIBE, which share their numbers."""
_LAST_PACKET_ID = 65535
MOST_STRIKES = 3
"""So many times in a row the connection may end right after the same message."""
_RIGHT_AFTER_S = 5.0
MOST_AHEAD = 10_000
"""Messages that may be acknowledged before an older one is: a broker that never acknowledges one
must not make the list grow for ever."""


class _Sent(NamedTuple):
    packet_id: int
    size: int
    at: float


class Window:
    """What is under way to one broker. Not thread-safe; times are steady seconds."""

    def __init__(self) -> None:
        self._sent: dict[int, _Sent] = {}
        """By sequence number, in the order of sending."""
        self._seqs: dict[int, int] = {}
        """Sequence numbers by packet id."""
        self.bytes = 0
        """Of what is unacknowledged."""
        self._ahead: set[int] = set()
        """What is done with although an older message is not."""
        self._ahead_in_order: list[int] = []
        """The same as a heap."""
        self._again: dict[int, int] = {}
        """Packet ids, by sequence number, of what the last connection sent and the present one
        has still to send again."""
        self._alone: set[int] = set()
        """What was under way when a connection ended: each is sent alone, to find the one that
        the broker ends it for."""
        self._strikes = (0, 0)
        """A sequence number, and how often the connection ended right after it."""
        self._last_strike = (0, 0)
        """The same at the newest end of a connection; no strike: zeros."""
        self._last_id = FIRST_PACKET_ID - 1

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def oldest_seq(self) -> int | None:
        """Sequence number of the oldest message that is not acknowledged."""
        return min(self._sent, default=None)

    def oldest_sent_at(self) -> float | None:
        """When the first message was sent of those that are not acknowledged."""
        return next((sent.at for sent in self._sent.values()), None)

    @property
    def suspect_seq(self) -> int | None:
        """The message right after which the connection ended at least twice in a row."""
        seq, strikes = self._last_strike
        return seq if strikes > 1 else None

    @property
    def is_careful(self) -> bool:
        """Whether only one message may be under way."""
        return bool(self._alone)

    @property
    def is_full(self) -> bool:
        """Whether too much is acknowledged before an older message."""
        return len(self._ahead) >= MOST_AHEAD

    def is_done(self, seq: int) -> bool:
        """Whether a message must not be sent (again)."""
        return seq in self._ahead

    def send(self, seq: int, size: int, now: float) -> tuple[int, bool]:
        """Take a message in that goes out now; returns its packet id and whether it is a repeat."""
        packet_id = self._again.pop(seq, 0)
        repeated = packet_id > 0
        if not repeated:
            packet_id = self._free_id()
        self._sent[seq] = _Sent(packet_id, size, now)
        self._seqs[packet_id] = seq
        self.bytes += size
        return packet_id, repeated

    def _free_id(self) -> int:
        kept = set(self._again.values())
        while True:
            self._last_id += 1
            if self._last_id > _LAST_PACKET_ID:
                self._last_id = FIRST_PACKET_ID
            if self._last_id not in self._seqs and self._last_id not in kept:
                return self._last_id

    def acknowledge(self, packet_id: int) -> int | None:
        """Take a message out; returns its sequence number, ``None`` if none has this packet id."""
        seq = self._seqs.pop(packet_id, None)
        if seq is None:
            return None
        self.bytes -= self._sent.pop(seq).size
        self._finish(seq)
        return seq

    def withdraw(self, packet_id: int) -> int | None:
        """Take a message out that is not done with; returns its sequence number, if it is known."""
        seq = self._seqs.pop(packet_id, None)
        if seq is not None:
            self.bytes -= self._sent.pop(seq).size
        return seq

    def give_up(self, seq: int) -> None:
        """A message is done with that is not under way."""
        self._finish(seq)

    def _finish(self, seq: int) -> None:
        self._ahead.add(seq)
        heapq.heappush(self._ahead_in_order, seq)
        self._alone.discard(seq)
        if seq == self._strikes[0]:
            self._strikes = (0, 0)

    def forget_to(self, seq: int) -> None:
        """Every message up to this one is done with."""
        while self._ahead_in_order and self._ahead_in_order[0] <= seq:
            self._ahead.discard(heapq.heappop(self._ahead_in_order))
        if self._again:
            self._again = {each: kept for each, kept in self._again.items() if each > seq}
        if self._alone:
            self._alone = {each for each in self._alone if each > seq}

    def connect(self, *, session_present: bool) -> None:
        """A connection begins. Without the session the broker knows no packet id any more."""
        if not session_present:
            self._again.clear()

    @property
    def is_oldest_passed(self) -> bool:
        """Whether the oldest unacknowledged message waits although later ones are done with."""
        oldest = self.oldest_seq
        return oldest is not None and any(seq > oldest for seq in self._ahead)

    def disconnect(self, now: float, *, by_broker: bool, is_ignored: bool = False) -> int | None:
        """The connection is gone; what is unacknowledged is sent again by the next one.

        Args:
            now: the time.
            by_broker: the broker ended it, and not the network or this side.
            is_ignored: this side ended it because the oldest message was not acknowledged.

        Returns the sequence number of a message that the broker has ended the connection for, or
        ignored, so often that it is not sent again, else ``None``.
        """
        refused = None
        self._last_strike = (0, 0)
        oldest = self.oldest_seq
        ended_right_after = (
            by_broker and oldest is not None and now - self._sent[oldest].at <= _RIGHT_AFTER_S
        )
        if oldest is not None and (ended_right_after or is_ignored):
            struck, strikes = self._strikes
            strikes = strikes + 1 if struck == oldest else 1
            self._strikes = self._last_strike = (oldest, strikes)
            if strikes >= MOST_STRIKES and (is_ignored or len(self._sent) == 1):
                refused = oldest
            if not is_ignored:
                self._alone.update(self._sent)
        self._again.update({seq: sent.packet_id for seq, sent in self._sent.items()})
        self._sent.clear()
        self._seqs.clear()
        self.bytes = 0
        if refused is not None:
            self._again.pop(refused, None)
            self._finish(refused)
        return refused
