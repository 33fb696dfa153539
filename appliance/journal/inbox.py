"""What waits for the next group commit: filled by the engine's thread, emptied by the writer's.

Not for: committing. Everything here is cheap enough to be done for every message on the engine's
event loop: no lock is taken, and the writer is woken only when it sleeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.journal.message_cost import OVERHEAD_BYTES, content_of
from appliance.journal.wakeup import Wakeup
from appliance.model import Message

Statement = tuple[str, tuple[Any, ...]]
"""SQL with ``?`` placeholders, and their values."""

Entry = tuple[Sequence[Message], object]
"""What a commit reports: messages (none for statements) and the token given with them."""


class Statements:
    """Statements that are carried out in one transaction, with messages or without."""

    __slots__ = ("messages", "run")

    def __init__(self, run: Sequence[Statement], messages: Sequence[Message] = ()) -> None:
        self.run = run
        self.messages = messages


Item = tuple[Sequence[Message] | Statements, object, int]
"""What waits, its token, and the bytes that it counts."""


class Inbox:
    """A queue from one thread to one other. Its bound is the engine's back-pressure."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        # One number of each pair is only written by the engine, the other only by the writer.
        self._bytes_in = 0
        self._bytes_done = 0
        self._count_in = 0
        self._count_done = 0
        self._wakeup = Wakeup()
        self.closed = False

    def extend(self, messages: Sequence[Message], size: int, token: object) -> None:
        """Hand over messages that are stored or refused as one (engine's thread only).

        ``size`` is the sum of ``message_cost.content_of`` them. Never waits.

        Raises:
            RuntimeError: the journal is closed.
        """
        count = len(messages)
        size += count * OVERHEAD_BYTES
        self._items.append((messages, token, size))
        self._bytes_in += size
        self._count_in += count
        if self._wakeup.is_awaited:
            self.wake()

    def append(self, message: Message, token: object) -> None:
        """``extend`` with one message."""
        self.extend((message,), content_of(message), token)

    def transact(self, statements: Sequence[Statement], token: object) -> None:
        """Hand over statements for the same group commit, in order (engine's thread only).

        Raises:
            RuntimeError: the journal is closed.
        """
        self._items.append((Statements(statements), token, OVERHEAD_BYTES))
        self._bytes_in += OVERHEAD_BYTES
        self._count_in += 1
        if self._wakeup.is_awaited:
            self.wake()

    def extend_with(
        self, messages: Sequence[Message], statements: Sequence[Statement], size: int, token: object
    ) -> None:
        """``extend`` and ``transact`` as one: both are in the same commit (engine's thread only).

        Raises:
            RuntimeError: the journal is closed.
        """
        count = len(messages) + 1
        size += count * OVERHEAD_BYTES
        self._items.append((Statements(statements, messages), token, size))
        self._bytes_in += size
        self._count_in += count
        if self._wakeup.is_awaited:
            self.wake()

    def wake(self) -> None:
        """Let the writer look again."""
        if self.closed:
            raise RuntimeError("the journal is closed")
        self._wakeup.wake()

    @property
    def count(self) -> int:
        """Messages and statements accepted and not committed yet."""
        return self._count_in - self._count_done

    @property
    def bytes(self) -> int:
        """Bytes accepted and not committed yet, ``OVERHEAD_BYTES`` a message included."""
        return self._bytes_in - self._bytes_done

    # --- the writer's side ---------------------------------------------------------------------

    def sleep(self, timeout_s: float) -> None:
        """Return when something waits, when woken, or after the time."""
        self._wakeup.wait(timeout_s, self._items.__len__)

    def take(self, max_bytes: int) -> list[Item]:
        """Remove the oldest entries, up to so many bytes and at least one.

        They count as pending until ``done``.
        """
        waiting = self._items
        end = len(waiting)
        if self._bytes_in - self._bytes_done > max_bytes:
            total = end = 0
            while end < len(waiting) and (total <= max_bytes or not end):
                total += waiting[end][2]
                end += 1
        items = waiting[:end]
        # Appends may come between these two lines; they go to the end and are not touched.
        del waiting[:end]
        return items

    def done(self, count: int, size: int) -> None:
        """What was taken is committed; ``count`` and ``size`` are what it counted."""
        self._bytes_done += size
        self._count_done += count

    def close(self) -> None:
        """Refuse further entries once the writer sleeps for good."""
        self.closed = True
        self._wakeup.is_awaited = True
