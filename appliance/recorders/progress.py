"""``recorders.db``: the position of each recording, in a small SQLite database beside them.

A row is stored after its bytes are on the disk, so it is never ahead of its file. After a crash it
may be behind; recording.py then finds the difference and continues exactly there. The beginning of
a recording is forced to the disk: without it the next start would take the file for a foreign one.
Not for: the recordings themselves, closed files (part_store.py), rows of ``latest`` and ``update``
(latest_store.py).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from appliance.model import LARGEST_SEQ
from appliance.storage import files
from appliance.storage.database import Database
from appliance.storage.layout import Layout, Migration, Tables
from appliance.storage.rescue import rescue_rows
from appliance.storage.sqlite import connect_read_only, transaction

SEAM_BYTES = 128
_BUSY_S = 1.0

_log = logging.getLogger(__name__)


class Progress(msgspec.Struct, frozen=True):
    """The position of a recording."""

    format: str
    seq: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SEQ)]
    """The last message that was processed, whether it belongs to the recording or not."""
    length: int = 0
    """Bytes of the file, the closing bracket included."""
    count: int = 0
    """Messages in the file."""
    seam: bytes = b""
    """The last bytes before the closing bracket, to recognise the file again."""
    memory: str = ""
    """The format's state for continuing the file (the columns of a CSV file)."""


_READ = "SELECT key, format, seq, length, count, seam, memory FROM recording"


def _read(connection: sqlite3.Connection) -> tuple[dict[str, Progress], set[str]]:
    """The positions by their keys, and the keys of those that are damaged."""
    found: dict[str, Progress] = {}
    damaged: set[str] = set()
    for key, *values in connection.execute(_READ).fetchall():
        progress = _progress(key, values)
        if progress is None:
            damaged.add(str(key))
        else:
            found[key] = progress
    return found, damaged


def _progress(key: object, values: Iterable[object]) -> Progress | None:
    # Through the struct's rules: SQLite keeps a value of any type in any column.
    fields = dict(zip(Progress.__struct_fields__, values, strict=True))
    try:
        return msgspec.convert(fields, Progress)
    except msgspec.ValidationError as error:
        _log.error(  # a damaged row is no programming error
            "The position of the recording %s is damaged and was skipped: %s", key, error
        )
        return None


_STEP_TO_2 = """
CREATE TABLE IF NOT EXISTS part (
    path TEXT PRIMARY KEY,
    recorder TEXT NOT NULL,
    series TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    closed_ns INTEGER NOT NULL,
    state TEXT NOT NULL,
    uploaded_ns INTEGER NOT NULL,
    memory TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS part_of_recorder ON part (recorder, last_seq);
CREATE TABLE IF NOT EXISTS latest (
    recorder TEXT NOT NULL,
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (recorder, key)
) WITHOUT ROWID;
"""

LAYOUT = Layout(
    title="The recorders' database",
    application_id=0x514D5243,  # "QMRC"
    loss="the position of each recording: it is found again by the end of the file and the journal",
    parts=(
        Tables(
            """
CREATE TABLE IF NOT EXISTS recording (
    key TEXT PRIMARY KEY,
    format TEXT NOT NULL,
    seq INTEGER NOT NULL,
    length INTEGER NOT NULL,
    count INTEGER NOT NULL,
    seam BLOB NOT NULL,
    memory TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS part (
    path TEXT PRIMARY KEY,
    recorder TEXT NOT NULL,
    series TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    closed_ns INTEGER NOT NULL,
    state TEXT NOT NULL,
    uploaded_ns INTEGER NOT NULL,
    memory TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS part_of_recorder ON part (recorder, last_seq);
CREATE TABLE IF NOT EXISTS latest (
    recorder TEXT NOT NULL,
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (recorder, key)
) WITHOUT ROWID;
""",
            migrations=(Migration(2, _STEP_TO_2),),
            verify=_read,
        ),
    ),
)


class ProgressStore:
    """The database. For any thread: each statement of one waits for those of another.

    It is not held during anything but statements of SQLite.
    """

    def __init__(self, path: Path) -> None:
        # After a power cut a row may be older than its file, never newer. That is enough, so
        # most commits are not forced to the disk.
        self._database = Database(path, LAYOUT, busy_s=_BUSY_S, rescue=self._rescue)
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._mark = path.with_name(f"{path.name}.lost")
        self.damaged: set[str] = set()
        """Keys of rows that can't be read."""

    def _rescue(self, damaged: Path, _log: Path, connection: sqlite3.Connection) -> str:
        self._mark.touch()
        return rescue_rows(damaged, connection, LAYOUT)

    def open(self, now_ns: int) -> dict[str, Progress]:
        """Open the database as ``Database.open`` does, and raise what it raises.

        Returns what it holds. If ``is_lost``, ``found`` is to be called once the positions are
        found again: a kill until then must not make recordings look like new ones.
        """
        path = self._database.path
        with contextlib.suppress(OSError):  # the database says what is wrong with the disk
            if not path.exists() or path.stat().st_size == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._mark.touch()
        self._connection = self._database.open(now_ns)
        return self.load()

    def found(self) -> None:
        """All positions that could be found again are stored."""
        with contextlib.suppress(FileNotFoundError):
            files.remove(self._mark)

    @property
    def is_lost(self) -> bool:
        """Whether ``open`` found no database, or a damaged one: rows may be missing."""
        return self._mark.exists() or bool(self._database.losses)

    @property
    def losses(self) -> list[str]:
        """What ``open`` found lost: see ``Database.losses``."""
        return self._database.losses

    def load(self) -> dict[str, Progress]:
        """What the open database holds.

        Raises:
            sqlite3.Error: it can't be read.
        """
        with self.reading() as connection:
            found, self.damaged = _read(connection)
        return found

    def position(self, key: str) -> Progress | None:
        """One row; ``None`` if there is none, or a damaged one.

        Raises:
            sqlite3.Error: it can't be read.
        """
        with self.reading() as connection:
            row = connection.execute(f"{_READ} WHERE key = ?", (key,)).fetchone()
        return None if row is None else _progress(key, row[1:])

    def positions(self, prefix: str) -> dict[str, Progress]:
        """The rows whose keys begin so. Damaged ones are left out.

        Raises:
            sqlite3.Error: they can't be read.
        """
        with self.reading() as connection:
            rows = connection.execute(
                f"{_READ} WHERE substr(key, 1, ?) = ?", (len(prefix), prefix)
            ).fetchall()
        found = ((key, _progress(key, values)) for key, *values in rows)
        return {key: progress for key, progress in found if progress is not None}

    def save(self, rows: Iterable[tuple[str, Progress]], *, durable: bool) -> None:
        """Store all of these or none.

        Args:
            rows: keys and positions.
            durable: whether they must be on the disk when this returns.

        Raises:
            sqlite3.Error: nothing was stored; earlier rows are unchanged.
        """
        with self.changing(durable=durable) as connection:
            put_positions(connection, rows)

    def remove(self, keys: Iterable[str]) -> None:
        """Forget positions, and last values with them: of files that are closed for good.

        Raises:
            sqlite3.Error: none is removed.
        """
        with self.changing(durable=False) as connection:
            rows = [(key,) for key in keys]
            connection.executemany("DELETE FROM recording WHERE key = ?", rows)
            connection.executemany("DELETE FROM latest WHERE recorder = ?", rows)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for statements that change nothing.

        Raises:
            sqlite3.ProgrammingError: the database is closed.
        """
        with self._lock:
            if self._connection is None:
                raise sqlite3.ProgrammingError("recorders.db is closed")
            yield self._connection

    @contextlib.contextmanager
    def changing(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """The connection within one transaction: all statements of the block count, or none.

        Args:
            durable: whether they must be on the disk when this returns.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        with self.reading() as connection:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with transaction(connection):
                yield connection

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def put_positions(connection: sqlite3.Connection, rows: Iterable[tuple[str, Progress]]) -> None:
    """Store positions within the open transaction of ``ProgressStore.changing``."""
    connection.executemany(
        "INSERT OR REPLACE INTO recording VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(key, *msgspec.structs.astuple(progress)) for key, progress in rows],
    )


def highest_cursor(path: Path) -> int:
    """The highest sequence number that any recording has seen; 0 if that can't be known.

    The journal must number its messages above it, or they would be taken for old ones: a journal
    that came from a backup or lost its last commits in a power cut is behind.
    """
    if not path.exists():
        return 0
    found = 0
    # Each for itself: a database of format 1 has only positions. A damaged row is left out, as in
    # ``_read``. ``open`` reports errors.
    for column, table in (("seq", "recording"), ("last_seq", "part"), ("seq", "latest")):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(connect_read_only(path)) as connection,
        ):
            (seq,) = connection.execute(
                f"SELECT max({column}) FROM {table}"  # noqa: S608 - our names
                f" WHERE typeof({column}) = 'integer' AND {column} <= ?",
                (LARGEST_SEQ,),
            ).fetchone()
            found = max(found, seq or 0)
    return found
