"""Reading committed messages and other modules' rows back from the database.

Chunk by chunk and each with a query of its own, so that no reader keeps the write-ahead log from
being used again. Not for: recent messages, which are in memory (tail.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from appliance.journal import chunks
from appliance.journal.message_cost import content_of
from appliance.journal.store import Store
from appliance.model import Message

_log = logging.getLogger(__name__)


class Reading:
    """Reads of one store, safe from any thread.

    Every method raises ``UnavailableError`` once the store is closed, and ``sqlite3.Error`` if the
    disk fails.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
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
            rows = self.query(
                "SELECT first_seq, last_seq, body FROM chunk WHERE first_seq >= coalesce("
                "(SELECT max(first_seq) FROM chunk WHERE first_seq <= ?), 0)"
                " AND last_seq >= ? ORDER BY first_seq LIMIT 1",
                (after_seq + 1, after_seq + 1),
            )
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
        while True:
            rows = self.query(
                "SELECT first_seq, last_seq, body FROM chunk WHERE first_seq < ?"
                " ORDER BY first_seq DESC LIMIT 1",
                (before_seq,),
            )
            if not rows:
                return []
            first, last, body = rows[0]
            messages = self._decode(first, last, body)
            if messages:
                return [message for message in messages if message.seq < before_seq]
            before_seq = first

    def _decode(self, first: int, last: int, body: bytes) -> list[Message]:
        try:
            return chunks.decode(body)
        except ValueError as error:
            _log.error(  # a damaged file is no programming error
                "Messages %d to %d in %s are damaged and were skipped: %s",
                first,
                last,
                self._store.path,
                error,
            )
            return []

    def forget(self) -> None:
        """Chunks were deleted: what is in memory must not pretend that they are there."""
        self._decoded = (0, [])


def _after(messages: list[Message], after_seq: int) -> list[Message]:
    if messages[0].seq > after_seq:
        return messages
    return [message for message in messages if message.seq > after_seq]
