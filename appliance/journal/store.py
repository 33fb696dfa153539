"""The journal's database file: its tables, its check, its connections.

SQLite in WAL mode, with one connection that writes and a few that read. Not for: when to write
(writer.py), what is read (reading.py), what is deleted (retention.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from appliance.errors import UnavailableError
from appliance.journal import chunks
from appliance.journal.rescue import rescue
from appliance.storage import sqlite
from appliance.storage.database import Database
from appliance.storage.layout import Damage, Layout, Tables, check_bodies

LOG_PAGES = 512
"""The write-ahead log is moved into the database and begun anew beyond this. It is kept small, so
that it soon stops growing: syncing a file that does not grow is nearly twice as fast."""

_BUSY_S = 0.25
_SPARE_READERS = 4


def _verify(connection: sqlite3.Connection) -> None:
    """Decode the oldest and the newest chunk."""
    bodies = [
        row[0]
        for order in ("ASC", "DESC")
        for row in connection.execute(
            f"SELECT body FROM chunk ORDER BY first_seq {order} LIMIT 1"  # noqa: S608  # constant
        )
    ]
    # A damaged chunk is left out when it is read; it does not cost the others.
    with contextlib.suppress(Damage):
        check_bodies("chunk", bodies, chunks.decode)


LAYOUT = Layout(
    title="The journal",
    application_id=0x514D4A4C,  # "QMJL"
    loss="the messages until now, retained messages and the sessions of clients",
    parts=(
        Tables(
            """
CREATE TABLE IF NOT EXISTS chunk (
    first_seq INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    body BLOB NOT NULL
);
""",
            verify=_verify,
        ),
    ),
)


class Store:
    """The database of the journal. Reading is safe from any thread, each with its connection."""

    def __init__(self, path: Path, sync: Literal["always", "os"]) -> None:
        self.path = path
        self.database = Database(
            path,
            LAYOUT,
            busy_s=_BUSY_S,
            sync_commits=sync == "always",
            log_pages=LOG_PAGES,
            rescue=self._rescue,
        )
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self._identity = (0, 0)
        self._now_ns = self._reached = self._reserved = 0

    def open(self, now_ns: int, *, reached: int = 0, reserved: int = 0) -> sqlite3.Connection:
        """Open the database as ``Database.open`` does, and raise what it raises.

        Args:
            now_ns: present time in ns since 1970.
            reached: the newest message that a recording or the task engine has read.
            reserved: no number above this one was used; 0 if that is not known.
        """
        self._now_ns, self._reached, self._reserved = now_ns, reached, reserved
        connection = self.database.open(now_ns, doubt=self._doubt(reached))
        self._identity = self._identify()
        return connection

    def _doubt(self, reached: int) -> str | None:
        """Why the log can't be trusted although it can be read; ``None`` if it can.

        SQLite reads a log up to its first damaged commit, and takes an older log for the present
        one. What it leaves out is still there, so that it can be taken over.
        """
        log = sqlite.beside(self.path, "-wal")
        try:
            if not reached or not self.path.stat().st_size or not log.stat().st_size:
                return None
            with contextlib.closing(sqlite.connect_read_only(self.path)) as connection:
                (last,) = connection.execute("SELECT max(last_seq) FROM chunk").fetchone()
        except (OSError, sqlite3.Error):
            return None  # ``Database.open`` finds out
        last = last or 0
        return None if last >= reached else f"its log ends at message {last}, {reached} was read"

    def _rescue(self, damaged: Path, log: Path, connection: sqlite3.Connection) -> str:
        told = rescue(damaged, log, connection, self._reached)
        (last,) = connection.execute("SELECT max(last_seq) FROM chunk").fetchone()
        # In the same transaction, so that no kill lets a number be used again.
        used = max(last or 0, self._reached, self._reserved)
        self.mark_end(connection, used, self._now_ns)
        return told

    def mark_end(self, connection: sqlite3.Connection, seq: int, now_ns: int) -> None:
        """Write a chunk without messages: numbers up to ``seq`` are used.

        Raises:
            sqlite3.Error: the disk does not take it.
        """
        row = (seq, seq, now_ns, now_ns, chunks.NO_MESSAGES)
        connection.execute("INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?, ?)", row)

    def reopen(self) -> sqlite3.Connection:
        """A fresh writing connection while the appliance runs; makes the file if it vanished.

        Raises:
            sqlite3.Error, OSError: not possible now; try again.
        """
        self._forget_readers()
        connection = self.database.reopen()
        try:
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

    @contextlib.contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that can only read, for the calling thread until the block ends."""
        with self._lock:
            if self._closed:
                raise UnavailableError(f"The journal {self.path} is closed.")
            connection = self._readers.pop() if self._readers else None
        if connection is None:
            connection = self.database.connect(may_write=False)
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
