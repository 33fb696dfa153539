"""A follower reads the journal in order from a position of its own.

It gets recent messages from memory and older ones from the disk, so a slow one costs the writer
nothing. Its owner keeps the durable cursor (in a file or table of its own) and tells the journal
with ``advance`` how far it has come, because retention must not delete what is still needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from appliance import tuning
from appliance.journal.wakeup import Wakeup
from appliance.model import Message

MAX_BYTES = 8 * 1024 * 1024

Interest = Callable[[str], bool]
"""Whether messages on this topic are worth waking up for. Asked in the journal's thread."""


class Reader(Protocol):
    """What a follower needs of the journal."""

    @property
    def last_seq(self) -> int: ...

    @property
    def removed_to(self) -> int: ...

    @property
    def is_crowded(self) -> bool: ...

    def may_lag(self, position: int) -> bool: ...

    def read(self, after_seq: int, limit: int, max_bytes: int) -> list[Message]: ...


class Follower:
    """One reader's place in the journal. ``next`` is for one thread, the rest for any.

    Others read ``position``, ``advanced`` and ``missed``; only the follower sets them.
    """

    def __init__(
        self,
        name: str,
        after_seq: int,
        reader: Reader,
        leave: Callable[[Follower], None],
        interest: Interest | None = None,
    ) -> None:
        self.name = name
        self.interest = interest
        self._reader = reader
        self._leave = leave
        self.position = after_seq
        """Up to where ``next`` has returned everything there is."""
        self.advanced = after_seq
        """How far the owner has said that it will not look back."""
        self.missed = 0
        """Messages that retention had to delete before they were read (journal far too big)."""
        self._wakeup = Wakeup()
        self._worth_reading_to = -1
        self._closed = False

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest committed message, 0 if there was never one."""
        return self._reader.last_seq

    @property
    def is_crowded(self) -> bool:
        """Whether messages come in faster than they are committed one by one."""
        return self._reader.is_crowded

    @property
    def may_lag(self) -> bool:
        """Whether there is no need to hurry: not far behind, and the journal has room."""
        return self._reader.may_lag(self.position)

    def is_too_much(self, held: int) -> bool:
        """Whether the journal gets too big if it keeps so many messages that were read."""
        return held > 0 and not self._reader.may_lag(self._reader.last_seq - held)

    def wait(self, timeout_s: float) -> bool:
        """Whether ``next`` has something; waits for it at most so long, or until ``wake``.

        A follower with an interest goes on waiting, for at most the same time, while there is
        nothing of interest and not much of it.
        """
        if not self._need_not_wait():
            self._wakeup.wait(timeout_s, self._need_not_wait)
            if self._worth_reading_to <= self.position:
                self._worth_reading_to = self._reader.last_seq
        return self._worth_reading_to > self.position

    def _need_not_wait(self) -> bool:
        if self.interest is None or self._worth_reading_to < 0:
            self._worth_reading_to = self._reader.last_seq
        return self._closed or self._worth_reading_to > self.position

    def next(self, limit: int, max_bytes: int = MAX_BYTES) -> list[Message]:
        """The next messages, oldest first: as many as there are within both bounds, maybe none.

        Raises:
            UnavailableError: the journal is closed.
            sqlite3.Error: old messages had to be read from the disk, which failed; ask again.
        """
        removed_to = self._reader.removed_to
        if self.position < removed_to:
            self.missed += removed_to - self.position
            self.position = removed_to
        newest = self._reader.last_seq
        messages = self._reader.read(self.position, limit, max_bytes)
        if messages and messages[-1].seq > newest:
            # The writer is within ``Journal.committed``: they are in memory, and ``last_seq`` does
            # not say so yet. ``notify`` comes after both.
            messages = [message for message in messages if message.seq <= newest]
        if messages:
            self.position = messages[-1].seq
        elif newest > self.position:
            # A gap: sequence numbers were skipped (the database was lost), or deleted long ago.
            self.position = newest
        return messages

    def read(self, after_seq: int, limit: int, max_bytes: int = MAX_BYTES) -> list[Message]:
        """Like ``next`` from another place, without moving this follower's own."""
        return self._reader.read(after_seq, limit, max_bytes)

    def advance(self, seq: int) -> None:
        """Everything up to ``seq`` is done with, durably; retention may delete it."""
        self.advanced = max(self.advanced, seq)

    def wake(self) -> None:
        """Let a present or else the next ``wait`` return at once."""
        self._wakeup.wake()

    def notify(self, last_seq: int, topics: Collection[str]) -> None:
        """A commit took place (the writer calls this once a commit).

        Args:
            last_seq: its last message.
            topics: of its messages; only looked at if there is an interest.
        """
        if self.interest is not None:
            if last_seq - self.position < tuning.WAKE_FOR_UNREAD and not any(
                map(self.interest, topics)
            ):
                return
            self._worth_reading_to = last_seq
        if self._wakeup.is_awaited:
            self._wakeup.wake()

    def close(self) -> None:
        """Stop holding messages back from retention."""
        self._closed = True
        self._wakeup.wake()
        self._leave(self)
