"""Deleting old messages: what is older than ``keep`` or beyond ``max_size``, in small steps.

Whole chunks go, oldest first; the newest chunk always stays. Freed pages are used again by new
messages, so the file stops growing but does not shrink. Followers that still need a message keep
it, until the journal is a tenth bigger than it may be: then the disk is the greater concern. While
recorders pause for lack of disk space nothing unread goes: publishers wait instead
(engine/disk_floor.py).
Not for: rows of other modules' tables; their owners delete them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

CHUNKS_A_STEP = 1000
BYTES_A_STEP = 4 * 1024 * 1024
OVERRUN = 1.1
"""How much bigger than ``max_bytes`` the journal may become for the sake of a slow follower."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of retention did."""

    more: bool
    """Whether another step would find work."""
    removed_to: int = 0
    """Last sequence number deleted, 0 if nothing was."""
    forced: bool = False
    """Whether messages were deleted that a follower still needed."""
    held_back: bool = False
    """Whether something was due and stayed because a follower needs it."""


class Retention:
    """The rule; carried out by the writer's thread between commits."""

    def __init__(self, keep_s: float, max_bytes: int) -> None:
        self.bound(keep_s, max_bytes)

    def bound(self, keep_s: float, max_bytes: int) -> None:
        """Let other bounds count; from any thread."""
        self._keep_ns, self._max_bytes = int(keep_s * 1e9), max_bytes

    def step(
        self,
        connection: sqlite3.Connection,
        now_ns: int,
        needed_after: int,
        *,
        keeps_unread: bool = False,
    ) -> Step:
        """Delete a few chunks, if any are due.

        Args:
            connection: the writing connection, outside a transaction.
            now_ns: present time.
            needed_after: the slowest follower's cursor; messages after it are needed.
            keeps_unread: whether those stay however big the journal is.

        Raises:
            sqlite3.Error: nothing was deleted.
        """
        size = used_bytes(connection)
        over = size - self._max_bytes
        forced = not keeps_unread and size > self._max_bytes * OVERRUN
        due: list[int] = []
        freed = 0
        last_removed = 0
        took_needed = False
        held_back = False
        more = False
        # Without the body column, only the rows' heads are read. The newest chunk is left out.
        rows = connection.execute(
            "SELECT first_seq, last_seq, last_ns, length(body) FROM chunk WHERE first_seq <"
            " (SELECT max(first_seq) FROM chunk) ORDER BY first_seq LIMIT ?",
            (CHUNKS_A_STEP + 1,),
        )
        for first, last, last_ns, length in rows:
            if last_ns > now_ns:
                last_ns = _later_time_ns(connection, first, now_ns)  # noqa: PLW2901  see there
            too_old = last_ns < now_ns - self._keep_ns
            too_much = over - freed > 0
            if not too_old and not too_much:
                break
            if last > needed_after and not (forced and too_much):
                held_back = True
                break
            if len(due) == CHUNKS_A_STEP or (due and freed + length > BYTES_A_STEP):
                more = True
                break
            took_needed = took_needed or last > needed_after
            due.append(first)
            freed += length
            last_removed = last
        rows.close()
        if due:
            connection.execute(
                "DELETE FROM chunk WHERE first_seq BETWEEN ? AND ?", (due[0], due[-1])
            )
        return Step(more, last_removed, took_needed, held_back)


def _later_time_ns(connection: sqlite3.Connection, first_seq: int, now_ns: int) -> int:
    """The time of the first later chunk that is not from the future; ``now_ns`` if there is none.

    The clock was ahead when the chunk ``first_seq`` was written, so its own time says nothing. It
    is at least as old as any later one.
    """
    row = connection.execute(
        "SELECT first_ns FROM chunk WHERE first_seq > ? AND first_ns <= ? ORDER BY first_seq"
        " LIMIT 1",
        (first_seq, now_ns),
    ).fetchone()
    return now_ns if row is None else int(row[0])


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes that the database's content takes, free pages not counted."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)
