"""A follower reads the journal in order from a position of its own.

It gets recent messages from memory and older ones from the disk, so a slow one costs the writer
nothing. Its owner keeps the durable cursor (in a file or table of its own) and tells the journal
with ``advance`` how far it has come, because retention must not delete what is still needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from appliance.model import Message

MAX_BYTES = 8 * 1024 * 1024


class Reader(Protocol):
    """What a follower needs of the journal."""

    @property
    def last_seq(self) -> int: ...

    @property
    def removed_to(self) -> int: ...

    def recent(self, after_seq: int, limit: int, max_bytes: int) -> list[Message]: ...


class Follower:
    """One reader's place in the journal. ``next`` is for one thread, the rest for any."""

    def __init__(
        self, name: str, after_seq: int, reader: Reader, leave: Callable[[Follower], None]
    ) -> None:
        self.name = name
        self._missed = 0
        self._reader = reader
        self._leave = leave
        self._position = after_seq
        self._advanced = after_seq
        self._news = threading.Event()
        self._closed = False

    @property
    def position(self) -> int:
        """Up to where ``next`` has returned everything there is."""
        return self._position

    @property
    def advanced(self) -> int:
        """How far the owner has said that it will not look back."""
        return self._advanced

    @property
    def missed(self) -> int:
        """Messages that retention had to delete before they were read (journal far too big)."""
        return self._missed

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest committed message, 0 if there was never one."""
        return self._reader.last_seq

    def wait(self, timeout_s: float) -> bool:
        """Whether ``next`` has something; waits for it at most so long, or until ``wake``."""
        if not self._closed and self._reader.last_seq <= self._position:
            self._news.wait(timeout_s)
            self._news.clear()
        return self._reader.last_seq > self._position

    def next(self, limit: int, max_bytes: int = MAX_BYTES) -> list[Message]:
        """The next messages, oldest first: as many as there are within both bounds, maybe none.

        Raises:
            UnavailableError: the journal is closed.
            sqlite3.Error: old messages had to be read from the disk, which failed; ask again.
        """
        removed_to = self._reader.removed_to
        if self._position < removed_to:
            self._missed += removed_to - self._position
            self._position = removed_to
        newest = self._reader.last_seq
        messages = self._reader.recent(self._position, limit, max_bytes)
        if messages:
            self._position = messages[-1].seq
        elif newest > self._position:
            # A gap: sequence numbers were skipped (the database was lost), or deleted long ago.
            self._position = newest
        return messages

    def read(self, after_seq: int, limit: int, max_bytes: int = MAX_BYTES) -> list[Message]:
        """Like ``next`` from another place, without moving this follower's own."""
        return self._reader.recent(after_seq, limit, max_bytes)

    def advance(self, seq: int) -> None:
        """Everything up to ``seq`` is done with, durably; retention may delete it."""
        self._advanced = max(self._advanced, seq)

    def wake(self) -> None:
        """Let a present or else the next ``wait`` return at once."""
        self._news.set()

    def notify(self) -> None:
        """A commit took place (the writer calls this once a commit)."""
        if not self._news.is_set():
            self._news.set()

    def close(self) -> None:
        """Stop holding messages back from retention."""
        self._closed = True
        self._news.set()
        self._leave(self)
