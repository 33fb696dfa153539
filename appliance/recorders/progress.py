"""How far each recording has come: a small SQLite database beside the recordings.

A row is stored after the bytes it speaks of are on the disk, so it is never ahead of its file.
After a crash it may be behind; recording.py then finds the difference and goes on exactly there.
Not for: the recordings themselves.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from appliance import files
from appliance.errors import ConfigError, UnavailableError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x514D5243  # "QMRC"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS recording (
    key TEXT PRIMARY KEY,
    format TEXT NOT NULL,
    seq INTEGER NOT NULL,
    length INTEGER NOT NULL,
    count INTEGER NOT NULL,
    seam BLOB NOT NULL,
    memory TEXT NOT NULL
);
"""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_log = logging.getLogger(__name__)


class Progress(msgspec.Struct, frozen=True):
    """Where a recording stands."""

    format: str
    seq: int
    """The last message that was looked at, whether it belonged into the recording or not."""
    length: int = 0
    """Bytes of the file, the closing bracket included."""
    count: int = 0
    """Messages in the file."""
    seam: bytes = b""
    """The last bytes before the closing bracket, to recognise the file again."""
    memory: str = ""
    """What the format must know to go on (the columns of a CSV file)."""


class ProgressStore:
    """The database. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def open(self, now_ns: int) -> dict[str, Progress]:
        """Open or make the database; returns what it holds. A damaged one is set aside.

        Raises:
            ConfigError: it is of a newer appliance, and stays as it is.
            UnavailableError: it can't be opened.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._open()
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                    raise
                self.close()
                target = files.set_aside(self._path, "corrupt", now_ns)
                for suffix in ("-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        companion = self._path.with_name(self._path.name + suffix)
                        companion.replace(target.with_name(target.name + suffix))
                _log.error(
                    "%s, which says how far each recording has come, is damaged (%s). It was moved"
                    " to %s; recordings that exist will be set aside and begun anew",
                    self._path,
                    error,
                    target,
                )
                return self._open()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise UnavailableError(f"{self._path} can't be opened: {error}.") from error

    def _open(self) -> dict[str, Progress]:
        connection = sqlite3.connect(
            self._path, timeout=1.0, isolation_level=None, check_same_thread=False
        )
        self._connection = connection
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            self.close()
            raise ConfigError(
                f"{self._path} was written by a newer appliance. It was left as it is."
                " Use the newer appliance, or move the file away."
            )
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL: after a power cut a row may be older than its file, never newer; that is enough.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA checkpoint_fullfsync = 1")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return self.load()

    def load(self) -> dict[str, Progress]:
        """What the open database holds.

        Raises:
            sqlite3.Error: it can't be read.
        """
        assert self._connection is not None
        rows = self._connection.execute(
            "SELECT key, format, seq, length, count, seam, memory FROM recording"
        ).fetchall()
        return {key: Progress(*values) for key, *values in rows}

    def save(self, rows: Iterable[tuple[str, Progress]]) -> None:
        """Store all of these or none.

        Raises:
            sqlite3.Error: nothing was stored; what was stored before still stands.
        """
        connection = self._connection
        assert connection is not None
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO recording VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(key, *msgspec.structs.astuple(progress)) for key, progress in rows],
            )
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def highest_cursor(path: Path) -> int:
    """The highest sequence number that any recording has seen; 0 if that can't be known.

    The journal must number its messages above it, or they would be taken for old ones: a journal
    that came from a backup or lost its last commits in a power cut is behind.
    """
    if not path.exists():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=1.0)) as connection:
            (seq,) = connection.execute("SELECT max(seq) FROM recording").fetchone()
    except sqlite3.Error:
        return 0  # ``open`` will say what is wrong with it
    return seq or 0
