"""What waits for the next group commit: filled by the engine's thread, emptied by the writer's.

Not for: committing. Everything here is cheap enough to be done for every message on the engine's
event loop: no lock is taken, and the writer is woken only when it sleeps.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Sequence
from typing import Any

from appliance.model import Message

Statement = tuple[str, tuple[Any, ...]]
"""SQL with ``?`` placeholders, and their values."""

Entry = tuple[Message | None, object]
"""What a commit reports: the message (``None`` for statements) and the token given with it."""

OVERHEAD_BYTES = 128
"""Counted for each entry besides its payload: topic, client id and the objects themselves."""


class Statements:
    """Statements that are carried out in one transaction, in place of a message."""

    __slots__ = ("run",)

    def __init__(self, run: Sequence[Statement]) -> None:
        self.run = run


Item = tuple[Message | Statements, object]


class Inbox:
    """A queue from one thread to one other. Its bound is the engine's back-pressure."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._bytes_in = 0
        self._bytes_done = 0
        self._in_flight = 0
        self._sleeping = False
        # SimpleQueue is the cheapest way to wake a thread; it never holds more than a few tokens,
        # because only a sleeping writer is woken.
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.closed = False

    def append(self, message: Message, token: object) -> None:
        """Hand over a message (engine's thread only). Never waits.

        Raises:
            RuntimeError: the journal is closed.
        """
        self._items.append((message, token))
        self._bytes_in += len(message.payload) + OVERHEAD_BYTES
        if self._sleeping:
            self.wake()

    def transact(self, statements: Sequence[Statement], token: object) -> None:
        """Hand over statements for the same group commit, in order (engine's thread only).

        Raises:
            RuntimeError: the journal is closed.
        """
        self._items.append((Statements(statements), token))
        self._bytes_in += OVERHEAD_BYTES
        if self._sleeping:
            self.wake()

    def wake(self) -> None:
        """Let the writer look again."""
        if self.closed:
            raise RuntimeError("the journal is closed")
        self._sleeping = False
        self._wakeups.put(None)

    @property
    def count(self) -> int:
        """Entries accepted and not committed yet."""
        return len(self._items) + self._in_flight

    @property
    def bytes(self) -> int:
        """Bytes accepted and not committed yet, ``OVERHEAD_BYTES`` an entry included."""
        return self._bytes_in - self._bytes_done

    # --- the writer's side ---------------------------------------------------------------------

    def sleep(self, timeout_s: float) -> None:
        """Return when something waits, when woken, or after the time."""
        self._sleeping = True
        # Looked at after the flag is up: an append either sees the flag or is seen here.
        if not self._items:
            with contextlib.suppress(queue.Empty):
                self._wakeups.get(timeout=timeout_s)
        self._sleeping = False

    def take(self, limit: int) -> list[Item]:
        """Remove the oldest entries, at most ``limit``; they count as pending until ``done``."""
        items = self._items[:limit]
        self._in_flight = len(items)
        # Appends may come between these two lines; they go to the end and are not touched.
        del self._items[: len(items)]
        return items

    def done(self, size: int) -> None:
        """The entries taken are committed; ``size`` is what they counted in bytes."""
        self._bytes_done += size
        self._in_flight = 0

    def close(self) -> None:
        """Refuse further entries once the writer sleeps for good."""
        self.closed = True
        self._sleeping = True
