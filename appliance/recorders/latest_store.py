"""The rows of recorders with ``mode`` ``latest`` and ``update`` (table ``latest``).

Rows and the position of their recorder change in one transaction, so a crash leaves both from
before a batch or both from after it. Not for: the file or table that shows the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from appliance.recorders.progress import Progress, ProgressStore, put_positions

_TOGETHER = 1000
"""Rows that are read at a time: other threads wait for the database no longer than that takes."""


class LatestRow(msgspec.Struct, frozen=True):
    """The row of one topic or key."""

    key: str
    """The topic, or the value of ``key`` in the payload."""
    seq: int
    """The newest message in it."""
    value: bytes
    """What the recorder makes of it; this module does not look into it."""


class LatestStore:
    """The rows of one recorder. For any thread."""

    def __init__(self, store: ProgressStore, recorder: str) -> None:
        """``recorder``: the key of the recorder's position."""
        self._store = store
        self._recorder = recorder

    def save(self, rows: Iterable[LatestRow], progress: Progress) -> None:
        """Store rows, new ones and changed ones, together with the recorder's position.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        with self._store.changing(durable=False) as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO latest (recorder, key, seq, value) VALUES (?, ?, ?, ?)",
                [(self._recorder, row.key, row.seq, row.value) for row in rows],
            )
            put_positions(connection, [(self._recorder, progress)])

    def get(self, key: str) -> LatestRow | None:
        """The row of a topic or key, ``None`` if there is none.

        Raises:
            sqlite3.Error: it can't be read.
        """
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT key, seq, value FROM latest WHERE recorder = ? AND key = ?",
                (self._recorder, key),
            ).fetchone()
        return None if row is None else LatestRow(*row)

    def rows(self) -> Iterator[LatestRow]:
        """All rows, in the order of their keys.

        Raises:
            sqlite3.Error: they can't be read.
        """
        after = None
        while True:
            with self._store.reading() as connection:
                found = connection.execute(
                    "SELECT key, seq, value FROM latest WHERE recorder = ?"
                    " AND (? IS NULL OR key > ?) ORDER BY key LIMIT ?",
                    (self._recorder, after, after, _TOGETHER),
                ).fetchall()
            for row in found:
                yield LatestRow(*row)
            if len(found) < _TOGETHER:
                return
            after = found[-1][0]

    def count(self) -> int:
        """How many rows there are.

        Raises:
            sqlite3.Error: they can't be counted.
        """
        with self._store.reading() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM latest WHERE recorder = ?", (self._recorder,)
            ).fetchone()
        return int(count)

    def clear(self, progress: Progress) -> None:
        """Remove all rows and store the position, in one transaction.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        with self._store.changing(durable=True) as connection:
            connection.execute("DELETE FROM latest WHERE recorder = ?", (self._recorder,))
            put_positions(connection, [(self._recorder, progress)])
