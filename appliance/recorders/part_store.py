"""Closed files of recorders: which ones there are, and what became of them (table ``part``).

A file of a series gets its row before it gets its name (``announce``), and the row counts once the
file has its name (``close``): so a start after a crash knows what it finds.
Not for: the files themselves (parts.py and others), their upload, their retention.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal

import msgspec

from appliance.model import LARGEST_SEQ
from appliance.recorders.progress import Progress, ProgressStore, put_positions

_log = logging.getLogger(__name__)

_Seq = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SEQ)]

PartState = Literal["pending", "closed", "uploaded", "refused"]
"""``pending``: the file is complete and may not have its name yet; ``closed``: it has;
``uploaded``: it is in Qlik Cloud, too; ``refused``: the tenant does not take it."""


class Part(msgspec.Struct, frozen=True):
    """A complete file that never changes any more."""

    path: str
    """Within the data directory, or absolute (``key_of``)."""
    recorder: str
    """The key of the recorder: that of its main position."""
    series: str
    """The key of the position of its series: the recorder's own, or one of several that a recorder
    with placeholders in its path has."""
    first_seq: _Seq
    last_seq: _Seq
    """Numbers of the first and the last message in it."""
    messages: int
    bytes: int
    first_ns: int
    last_ns: int
    """When those two messages were received, ns since 1970."""
    closed_ns: int
    """When the file was closed, ns since 1970."""
    state: PartState = "closed"
    uploaded_ns: int = 0
    memory: str = ""
    """While it is ``pending``: the state of the series at its end (the columns)."""


class PartStore:
    """The parts of all recorders. For any thread."""

    def __init__(self, store: ProgressStore) -> None:
        self._store = store
        self.on_closed: Callable[[Part], None] = _nothing
        """Called with each part that was closed, in the thread that closed it. It must return at
        once: it wakes another thread."""

    def announce(self, part: Part, positions: Iterable[tuple[str, Progress]] = ()) -> None:
        """Store on the disk that a complete file is about to get its name, and positions with it.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        with self._store.changing(durable=True) as connection:
            _put(connection, msgspec.structs.replace(part, state="pending"))
            put_positions(connection, positions)

    def close(self, part: Part, positions: Iterable[tuple[str, Progress]]) -> None:
        """Store on the disk that a file has its name, and where its series stands with it.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        part = msgspec.structs.replace(part, state="closed", memory="")
        with self._store.changing(durable=True) as connection:
            _put(connection, part)
            put_positions(connection, positions)
        self.on_closed(part)

    def change(self, part: Part) -> None:
        """Store what became of a part that is there: its state, its time of upload, its size.

        Does nothing if it was removed meanwhile.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        with self._store.changing(durable=True) as connection:
            connection.execute(
                "UPDATE part SET state = ?, uploaded_ns = ?, bytes = ? WHERE path = ?",
                (part.state, part.uploaded_ns, part.bytes, part.path),
            )

    def rename(self, part: Part, path: str, size: int) -> None:
        """Store on the disk that a part has another name and size: it was compressed.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        with self._store.changing(durable=True) as connection:
            connection.execute(
                "UPDATE OR REPLACE part SET path = ?, bytes = ? WHERE path = ?",
                (path, size, part.path),
            )

    def remove(self, paths: Iterable[str]) -> None:
        """Forget parts: files that were removed, or never got their name.

        Raises:
            sqlite3.Error: none is removed.
        """
        with self._store.changing(durable=True) as connection:
            connection.executemany("DELETE FROM part WHERE path = ?", [(path,) for path in paths])

    def of_recorder(
        self, recorder: str, states: Sequence[PartState] = ("closed", "uploaded", "refused")
    ) -> list[Part]:
        """Parts of a recorder in these states, oldest first. Damaged rows are left out.

        Raises:
            sqlite3.Error: they can't be read.
        """
        return [
            part
            for part in self._select("WHERE recorder = ? ORDER BY last_seq", (recorder,))
            if part.state in states
        ]

    def has(self, paths: Sequence[str]) -> bool:
        """Whether one of these files has a row, in whatever state.

        Raises:
            sqlite3.Error: that can't be read.
        """
        marks = ", ".join("?" * len(paths))
        with self._store.reading() as connection:
            found = connection.execute(
                f"SELECT 1 FROM part WHERE path IN ({marks}) LIMIT 1",  # noqa: S608 - only marks
                paths,
            ).fetchone()
        return found is not None

    def newest(self, recorder: str) -> Part | None:
        """The newest part of a recorder that has its name.

        Raises:
            sqlite3.Error: it can't be read.
        """
        found = self._select(
            "WHERE recorder = ? AND state != 'pending' ORDER BY last_seq DESC LIMIT 1", (recorder,)
        )
        return found[0] if found else None

    def count(self, recorder: str, series: str | None = None) -> tuple[int, int]:
        """How many parts of a recorder (or of one of its series) have their names, and their bytes.

        Raises:
            sqlite3.Error: they can't be counted.
        """
        with self._store.reading() as connection:
            files, size = connection.execute(
                "SELECT count(*), total(bytes) FROM part WHERE recorder = ?"
                " AND state != 'pending' AND (? IS NULL OR series = ?)",
                (recorder, series, series),
            ).fetchone()
        return files, int(size)

    def _select(self, where: str, values: Sequence[object]) -> list[Part]:
        names = ", ".join(Part.__struct_fields__)
        with self._store.reading() as connection:
            rows = connection.execute(
                f"SELECT {names} FROM part {where}",  # noqa: S608 - our names
                values,
            ).fetchall()
        return [part for part in map(_part, rows) if part is not None]


def _put(connection: sqlite3.Connection, part: Part) -> None:
    marks = ", ".join("?" * len(Part.__struct_fields__))
    names = ", ".join(Part.__struct_fields__)
    connection.execute(
        f"INSERT OR REPLACE INTO part ({names}) VALUES ({marks})",  # noqa: S608 - our names
        msgspec.structs.astuple(part),
    )


def _part(row: Sequence[object]) -> Part | None:
    # Through the struct's rules: SQLite keeps a value of any type in any column.
    fields = dict(zip(Part.__struct_fields__, row, strict=True))
    try:
        return msgspec.convert(fields, Part)
    except msgspec.ValidationError as error:
        _log.error(  # a damaged row is no programming error
            "The row of the closed file %s is damaged and was skipped: %s", row[0], error
        )
        return None


def _nothing(_part: Part) -> None:
    pass
