"""SQLite connections: transactions, reading without a change, errors in an operator's words.

Not for: what a database holds (layout.py), how one is opened (database.py).
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
NO_ACCESS = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY})
STATEMENT_FAULTS = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE}
)
"""What SQLite reports when a statement does not fit the tables or their rows."""


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Carry out all statements of the block, or none of them.

    Raises:
        sqlite3.Error: another connection has the lock, or the disk does not take the statements.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes neither the database nor its log, not even when it is closed.

    Raises:
        sqlite3.Error: the file is missing or can't be opened.
    """
    try:
        has_log = beside(path, "-wal").stat().st_size > 0
    except FileNotFoundError:
        has_log = False
    # https://www.sqlite.org/uri.html: "immutable" leaves the log out of account, and creates no
    # files; with "ro", SQLite reads the log and leaves it in place.
    mode = "mode=ro" if has_log else "mode=ro&immutable=1"
    uri = f"{path.absolute().as_uri()}?{mode}"
    return sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code (https://www.sqlite.org/rescode.html), 0 if it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file's content is at fault, so that trying again can't help."""
    return primary_code(error) in DAMAGE


def explain(error: OSError | sqlite3.Error) -> str:
    """What is wrong with the disk or the database, in an operator's words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return _WORDS.get(primary_code(error), str(error))


def disk_fault(error: BaseException) -> str | None:
    """As ``explain``, if the disk or what lies on it is at fault; ``None`` for any other error."""
    if isinstance(error, sqlite3.Error):
        return explain(error) if primary_code(error) in _WORDS else None
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return explain(error)
    return None


_DISK_ERRORS = frozenset(
    {errno.EIO, errno.ENOSPC, errno.EROFS, errno.ENXIO, errno.ENODEV, getattr(errno, "EDQUOT", 0)}
)
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


def beside(path: Path, suffix: str) -> Path:
    """The file with this suffix that SQLite keeps beside a database."""
    return path.with_name(path.name + suffix)
