"""The journal's database file: opening it, checking it, handing out connections.

SQLite in WAL mode, with one connection that writes and a few that read. Not for: when to write
(writer.py), what is read (reading.py), what is deleted (retention.py).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from appliance import files
from appliance.errors import ConfigError, UnavailableError
from appliance.journal import chunks

SCHEMA_VERSION = 1
APPLICATION_ID = 0x514D4A4C  # "QMJL", https://www.sqlite.org/pragma.html#pragma_application_id
PAGE_SIZE = 4096
LOG_PAGES = 512
"""The write-ahead log is moved into the database and begun anew beyond this. It is kept small, so
that it soon stops growing: syncing a file that does not grow is nearly twice as fast."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS chunk (
    first_seq INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    body BLOB NOT NULL
);
"""

# A database up to this size is read through at the start (a fraction of a second); in a bigger
# one, damage shows when the damaged page is read.
_CHECK_BELOW_BYTES = 32 * 1024 * 1024
_BUSY_S = 0.25
_SPARE_READERS = 4

_log = logging.getLogger(__name__)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code (https://www.sqlite.org/rescode.html), 0 if it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file's content is at fault, so that trying again can't help."""
    return primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Store:
    """One database file. Reading is safe from any thread; each read takes a connection of its own.

    ``set_aside`` is where a damaged database was moved at the start, else ``None``;
    ``is_new`` says that this start found no database that could be used.
    """

    def __init__(self, path: Path, sync: Literal["always", "os"]) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self.is_new = False
        self._sync = sync
        self._schema = [_SCHEMA]
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self._identity = (0, 0)

    def define(self, schema_sql: str) -> None:
        """Add tables of another module (``CREATE TABLE IF NOT EXISTS ...``), before ``open``."""
        self._schema.append(schema_sql)

    def open(self, now_ns: int) -> sqlite3.Connection:
        """Open the database, make it if there is none, set it aside if it is damaged.

        Returns the writing connection (autocommit; transactions are begun explicitly).

        Raises:
            ConfigError: the file is of a newer appliance, or no journal at all. It is not touched.
            UnavailableError: the file can't be opened now.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._open()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._move_away(error, now_ns)
                return self._open()
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(
                f"The journal {self.path} can't be opened: {explain(error)}."
                " Mend that, or set data_dir in [service] to another folder."
            ) from error

    def _open(self) -> sqlite3.Connection:
        self.is_new = not self.path.exists() or self.path.stat().st_size == 0
        connection = self.connect()
        try:
            self._check(connection)
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")  # acts on a new file only
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript("\n".join(self._schema))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            connection.close()
            raise
        if self.is_new:
            files.sync_directory(self.path.parent)
        self._identity = self._identify()
        return connection

    def reopen(self) -> sqlite3.Connection:
        """A fresh writing connection while the appliance runs; makes the file if it vanished.

        Raises:
            sqlite3.Error, OSError: not possible now; try again.
        """
        self._forget_readers()
        connection = self.connect()
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript("\n".join(self._schema))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._identity = self._identify()
        except BaseException:
            connection.close()
            raise
        return connection

    def _identify(self) -> tuple[int, int]:
        status = self.path.stat()
        return (status.st_dev, status.st_ino)

    def has_vanished(self) -> bool:
        """Whether the name no longer leads to the file that was opened.

        SQLite would go on writing to a removed file, and all of it would be gone with the process.
        """
        try:
            return self._identify() != self._identity
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def connect(self, *, may_write: bool = True) -> sqlite3.Connection:
        """A connection with the durability that the configuration asks for."""
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        is_full = self._sync == "always"
        try:
            # FULL syncs the WAL at every commit. NORMAL leaves that to the operating system (and to
            # checkpoints): a killed process loses nothing, a power cut may lose the last commits.
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_full else 'NORMAL'}")
            # macOS: fsync leaves the data in the drive's cache, F_FULLFSYNC does not.
            connection.execute(f"PRAGMA fullfsync = {int(is_full)}")
            connection.execute("PRAGMA checkpoint_fullfsync = 1")
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            connection.execute(f"PRAGMA query_only = {int(not may_write)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        if self.is_new:
            return
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application not in {0, APPLICATION_ID} or (
            application == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        ):
            raise ConfigError(
                f"{self.path} is a database of another program. It was left as it is."
                " Move it away, or set data_dir in [service] to another folder."
            )
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} was written by a newer appliance (its format is {version}, this one"
                f" knows {SCHEMA_VERSION}). It was left as it is. Use the newer appliance, or move"
                " the file away."
            )
        if self.path.stat().st_size <= _CHECK_BELOW_BYTES:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise _damage(verdict)
        row = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'chunk'").fetchone()
        if row is None:
            return
        for order in ("ASC", "DESC"):
            row = connection.execute(
                f"SELECT body FROM chunk ORDER BY first_seq {order} LIMIT 1"  # noqa: S608  # constant
            ).fetchone()
            if row is not None:
                try:
                    chunks.decode(row[0])
                except ValueError as error:
                    raise _damage(str(error)) from error

    def _move_away(self, error: sqlite3.Error, now_ns: int) -> None:
        target = files.set_aside(self.path, "corrupt", now_ns)
        for suffix in ("-wal", "-shm"):
            companion = self.path.with_name(self.path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                companion.replace(target.with_name(target.name + suffix))
        self.set_aside = target
        _log.error(
            "The journal %s is damaged (%s). It was moved to %s and an empty one begun;"
            " messages in the damaged one are not in the new one",
            self.path,
            error,
            target,
        )

    @contextlib.contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that can only read, for the calling thread until the block ends."""
        with self._lock:
            if self._closed:
                raise UnavailableError(f"The journal {self.path} is closed.")
            connection = self._readers.pop() if self._readers else None
        if connection is None:
            connection = self.connect(may_write=False)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._readers) < _SPARE_READERS:
                self._readers.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the reading connections; later reads raise ``UnavailableError``."""
        self._closed = True
        self._forget_readers()

    def _forget_readers(self) -> None:
        with self._lock:
            readers, self._readers = self._readers, []
        for connection in readers:
            connection.close()


def _damage(text: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def explain(error: OSError | sqlite3.Error) -> str:
    """What is wrong with the disk or the database, in an operator's words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return _WORDS.get(primary_code(error), str(error))


_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program holds the database locked",
    sqlite3.SQLITE_LOCKED: "another program holds the database locked",
    sqlite3.SQLITE_READONLY: "the database or its disk is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened (missing folder or no permission)",
    sqlite3.SQLITE_PERM: "no permission",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_CORRUPT: "the database is damaged; a restart will set it aside",
    sqlite3.SQLITE_NOTADB: "the file is not a database; a restart will set it aside",
}
