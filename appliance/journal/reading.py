"""Reading committed messages and other modules' rows back from the database.

Chunk by chunk and each with a query of its own, so that no reader keeps the write-ahead log from
being used again. Not for: recent messages, which are in memory (tail.py).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from appliance.journal import chunks
from appliance.journal.message_cost import content_of
from appliance.journal.store import Store
from appliance.model import LARGEST_SEQ, Message
from appliance.storage.sqlite import explain, is_damage

_CHUNK_AT = (
    "SELECT {} FROM chunk WHERE first_seq >= coalesce("
    "(SELECT max(first_seq) FROM chunk WHERE first_seq <= ?), 0)"
    " AND last_seq >= ? ORDER BY first_seq LIMIT 1"
)
_CHUNK_BEFORE = "SELECT {} FROM chunk WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1"
_BODIES = (
    "SELECT first_seq, last_seq, body FROM chunk WHERE first_seq <= ? AND first_seq >= coalesce("
    "(SELECT max(first_seq) FROM chunk WHERE first_seq <= ?), 0) AND last_seq >= ?"
    " AND max(first_ns, last_ns) >= ? AND min(first_ns, last_ns) < ? ORDER BY first_seq"
)
_WITHIN_CHUNK_NS = 3600 * 10**9
"""A chunk is of one commit: no clock is set forth and back this far within it."""
_ALL_TIME = (-(2**63), 2**63 - 1)
_FIRST_ROWS = 4
_MOST_ROWS = 4096
_MOST_REPORTED = 10_000

_log = logging.getLogger(__name__)


class Reading:
    """Reads of one store, safe from any thread.

    Every method raises ``UnavailableError`` once the store is closed, and ``sqlite3.Error`` if the
    disk fails. Messages that are damaged are left out.
    """

    def __init__(
        self, store: Store, on_damage: Callable[[int, int, str], None] | None = None
    ) -> None:
        """Read from a store.

        Args:
            store: the open store.
            on_damage: called with the numbers of the first and the last message of each damaged
                stretch that is met, and a sentence about it, once in a process.
        """
        self._store = store
        self._on_damage = on_damage
        self._reported: set[int] = set()
        # The chunk that was decoded last: followers and the message detail read neighbours.
        self._decoded: tuple[int, list[Message]] = (0, [])

    def query(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._store.reader() as connection:
            return connection.execute(sql, params).fetchall()

    def bounds(self) -> tuple[int, int]:
        """First and last sequence number on the disk; (0, 0) if there is none."""
        (row,) = self.query(
            "SELECT (SELECT min(first_seq) FROM chunk),"
            " (SELECT last_seq FROM chunk ORDER BY first_seq DESC LIMIT 1)",
            (),
        )
        return (row[0] or 0, row[1] or 0)

    def read(self, after_seq: int, limit: int, max_bytes: int) -> list[Message]:
        """Messages after ``after_seq``, oldest first, until one of the bounds (at least one)."""
        found: list[Message] = []
        size = 0
        while len(found) < limit and size < max_bytes:
            chunk = self.chunk_after(found[-1].seq if found else after_seq)
            if not chunk:
                break
            for message in chunk:
                size += content_of(message)
                if len(found) == limit or (size > max_bytes and found):
                    return found
                found.append(message)
        return found

    def chunk_after(self, after_seq: int) -> list[Message]:
        """The messages after ``after_seq`` in the first chunk that has any; empty at the end."""
        first, decoded = self._decoded
        if decoded and first <= after_seq + 1 <= decoded[-1].seq:
            return _after(decoded, after_seq)
        while True:
            try:
                rows = self.query(
                    _CHUNK_AT.format("first_seq, last_seq, body"), (after_seq + 1,) * 2
                )
            except sqlite3.DatabaseError as error:
                beyond = self._after_damage(after_seq, error)
                if beyond is None:
                    return []
                after_seq = beyond
                continue
            if not rows:
                return []
            first, last, body = rows[0]
            messages = self._decode(first, last, body)
            if messages:
                self._decoded = (first, messages)
                return _after(messages, after_seq)
            after_seq = last

    def chunk_before(self, before_seq: int) -> list[Message]:
        """The messages before ``before_seq`` in the last chunk that has any, oldest first."""
        at_most = before_seq - 1
        while True:
            try:
                rows = self.query(_CHUNK_BEFORE.format("first_seq, last_seq, body"), (at_most,))
            except sqlite3.DatabaseError as error:
                beyond = self._before_damage(at_most, error)
                if beyond is None:
                    return []
                at_most = beyond
                continue
            if not rows:
                return []
            first, last, body = rows[0]
            messages = self._decode(first, last, body)
            if messages:
                return [message for message in messages if message.seq < before_seq]
            at_most = first - 1

    def bodies(
        self,
        first_seq: int,
        last_seq: int,
        *,
        back: bool,
        max_bytes: int,
        times: tuple[int | None, int | None] = (None, None),
    ) -> list[tuple[int, int, bytes]]:
        """Chunks as they are stored, which may have messages of a range: numbers and bytes.

        Args:
            first_seq: the range begins here.
            last_seq: the range ends here.
            back: the newest chunk first.
            max_bytes: bodies up to about this size together, at least one.
            times: only chunks with messages received at the first time (ns) or later, and before
                the second; others may be among them.

        Raises:
            sqlite3.DatabaseError: also for damage (``is_damage``). ``chunk_after`` and
                ``chunk_before`` get over it.
        """
        since_ns, until_ns = times
        low = _ALL_TIME[0] if since_ns is None else since_ns - _WITHIN_CHUNK_NS
        high = _ALL_TIME[1] if until_ns is None else until_ns + _WITHIN_CHUNK_NS
        params = (
            last_seq,
            first_seq,
            first_seq,
            max(low, _ALL_TIME[0]),
            min(high, _ALL_TIME[1]),
        )
        found: list[tuple[int, int, bytes]] = []
        size, count = 0, _FIRST_ROWS
        with (
            self._store.reader() as connection,
            contextlib.closing(
                connection.execute(f"{_BODIES} {'DESC' if back else 'ASC'}", params)
            ) as cursor,
        ):
            while rows := cursor.fetchmany(count):
                found += rows
                size += sum([len(row[2]) for row in rows])
                if size >= max_bytes:
                    break
                count = (max_bytes - size) * len(found) // max(1, size)
                count = max(1, min(count, _MOST_ROWS))
        return found

    def decoded(self, first: int, last: int, body: bytes) -> list[Message]:
        """The messages of a chunk of ``bodies``; none if it is damaged, which is reported."""
        return self._decode(first, last, body)

    def _after_damage(self, after_seq: int, error: sqlite3.DatabaseError) -> int | None:
        """Behind which number SQLite can read on; ``None`` if there is nothing it can get at.

        Raises ``error`` if it is no damage.
        """
        if not is_damage(error):
            raise error
        wanted = after_seq + 1
        with contextlib.suppress(sqlite3.DatabaseError):
            for first, last in self.query(_CHUNK_AT.format("first_seq, last_seq"), (wanted,) * 2):
                self._report(first, last, explain(error))  # only its body can't be read
                return int(last)
        # Towards the damage from the end.
        nearest = self._last_of("first_seq > :end AND first_seq < :from ORDER BY first_seq DESC",
                                LARGEST_SEQ, after_seq)  # fmt: skip
        self._report(wanted, wanted if nearest is None else nearest[0] - 1, explain(error))
        if nearest is None:
            return None
        return nearest[0] - 1 if nearest[0] > wanted else nearest[1]

    def _before_damage(self, at_most: int, error: sqlite3.DatabaseError) -> int | None:
        """Up to which number SQLite can read on the way back; else as ``_after_damage``."""
        if not is_damage(error):
            raise error
        with contextlib.suppress(sqlite3.DatabaseError):
            for first, last in self.query(_CHUNK_BEFORE.format("first_seq, last_seq"), (at_most,)):
                self._report(first, last, explain(error))
                return int(first) - 1
        nearest = self._last_of("first_seq > :from AND first_seq < :end ORDER BY first_seq",
                                0, at_most)  # fmt: skip
        self._report(1 if nearest is None else nearest[1] + 1, at_most, explain(error))
        # The number itself: SQLite looks for one in between where it can't read.
        return None if nearest is None else nearest[0]

    def _last_of(self, where: str, begin: int, end: int) -> tuple[int, int] | None:
        """The last numbers that come before SQLite meets the damage."""
        sql = f"SELECT first_seq, last_seq FROM chunk WHERE {where}"  # noqa: S608 - constants
        found: tuple[int, int] | None = None
        with self._store.reader() as connection, contextlib.suppress(sqlite3.DatabaseError):
            for row in connection.execute(sql, {"from": begin, "end": end}):
                found = row
        # Python asks for the next row before it gives one out: the last one went with the error.
        with self._store.reader() as connection, contextlib.suppress(sqlite3.DatabaseError):
            begin = begin if found is None else found[0]
            row = connection.execute(f"{sql} LIMIT 1", {"from": begin, "end": end}).fetchone()
            found = row or found
        return found

    def _decode(self, first: int, last: int, body: bytes) -> list[Message]:
        try:
            return chunks.decode(body)
        except (ValueError, TypeError) as error:
            self._report(first, last, str(error))
            return []

    def _report(self, first: int, last: int, why: str) -> None:
        if first in self._reported or len(self._reported) == _MOST_REPORTED:
            return
        self._reported.add(first)
        path = self._store.path
        text = f"Messages {first} to {last} in {path} are damaged and were left out"
        if first == last:
            text = f"Message {first} in {path} is damaged and was left out"
        _log.error("%s: %s", text, why)  # a damaged file is no programming error
        if self._on_damage is not None:
            self._on_damage(first, last, f"{text}.")

    def forget(self) -> None:
        """Chunks were deleted: what is in memory must not pretend that they are there."""
        self._decoded = (0, [])


def _after(messages: list[Message], after_seq: int) -> list[Message]:
    if messages[0].seq > after_seq:
        return messages
    return [message for message in messages if message.seq > after_seq]
