"""Opening the SQLite databases of the data directory: one policy for all of them.

``Database.open`` reads the application id and the schema version before anything is written, sets
a damaged file aside, brings an older schema up to date, and creates a new schema in one
transaction: a process that is killed in between leaves a file that the next start can use.
Not for: what the tables mean (the stores of journal, tasks and recorders).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from appliance.errors import ConfigError, NoPermissionError, UnavailableError
from appliance.storage import files

CHECK_BELOW_BYTES = 32 * 1024 * 1024
"""A database up to this size is read through at the start (a fraction of a second). In a bigger
one, damage shows when the damaged page is read."""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ACCESS = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY})
_LOG_SUFFIXES = ("-wal", "-shm")
"""SQLite's write-ahead log and its index (https://www.sqlite.org/tempfiles.html)."""
_FIRST_VERSION = 1

_log = logging.getLogger(__name__)


class Layout(msgspec.Struct, frozen=True):
    """What a database holds, and what its loss means."""

    title: str
    """What it is, as the subject of a sentence: ``"The journal"``."""
    application_id: int
    """https://www.sqlite.org/pragma.html#pragma_application_id"""
    schema: str
    """The present schema, as ``CREATE ... IF NOT EXISTS`` statements."""
    loss: str
    """What is lost with the database, for the line ``Lost with it: ...``."""
    migrations: tuple[str, ...] = ()
    """SQL scripts, oldest first: number ``n`` leads from schema version ``n + 1`` to ``n + 2``.
    A change of ``schema`` that an existing database must follow needs one more of them."""

    @property
    def version(self) -> int:
        """The present schema version, which ``PRAGMA user_version`` keeps."""
        return _FIRST_VERSION + len(self.migrations)


class Damage(ValueError):  # noqa: N818 - raised by ``verify``, it never reaches a user
    """``verify`` found content that can't be used."""


class Database:
    """One database file.

    ``is_new`` says that ``open`` found no database that could be used, ``set_aside`` where a
    damaged one was moved to, else ``None``.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        *,
        busy_s: float,
        sync_commits: bool = False,
        log_pages: int = 1000,
        verify: Callable[[sqlite3.Connection], object] | None = None,
    ) -> None:
        """Settings that hold for every connection.

        Args:
            path: the file.
            layout: what it holds.
            busy_s: how long, in seconds, a statement waits for the lock of another connection.
            sync_commits: whether each commit is forced to the disk. Without it a killed process
                loses nothing, and a power cut may take the last commits.
            log_pages: the write-ahead log is moved into the database beyond so many pages.
            verify: looks at the content of an existing database; raises ``Damage`` or
                ``sqlite3.DatabaseError`` if it can't be used.
        """
        self.path = path
        self.layout = layout
        self.set_aside: Path | None = None
        self.is_new = False
        self._busy_s = busy_s
        self._sync_commits = sync_commits
        self._log_pages = log_pages
        self._verify = verify

    def add_tables(self, schema_sql: str) -> None:
        """Add the tables of another module to the schema. Before ``open``."""
        self.layout = msgspec.structs.replace(
            self.layout, schema=f"{self.layout.schema}\n{schema_sql}"
        )

    # --- opening -------------------------------------------------------------------------------

    def open(self, now_ns: int) -> sqlite3.Connection:
        """Open the database, create it if there is none, set it aside if it is damaged.

        Args:
            now_ns: present time in ns since 1970, for the name of a file that is set aside.

        Returns a writing connection in autocommit mode: transactions are begun explicitly.

        Raises:
            ConfigError: the file is of a newer appliance, of another program, or of a layout that
                is not known. It is left as it is, to the byte.
            NoPermissionError: this user may not read and write the file.
            UnavailableError: the file can't be opened now.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._set_aside_orphans(now_ns)
            try:
                return self._open()
            except (Damage, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.Error) and not is_damage(error):
                    raise
                self._set_aside(error, now_ns)
                return self._open()
        except (OSError, sqlite3.Error) as error:
            text = f"{self.layout.title} {self.path} can't be opened: {explain(error)}."
            if self._is_forbidden(error):
                raise NoPermissionError(
                    f"{text} Give the account that runs the appliance the right to write there."
                ) from error
            raise UnavailableError(
                f"{text} Correct that, or set data_dir in [service] to another folder."
            ) from error

    def reopen(self) -> sqlite3.Connection:
        """A fresh writing connection while the appliance runs; creates the file if it vanished.

        Raises:
            sqlite3.Error, OSError: not possible now; try again.
        """
        connection = self.connect()
        try:
            self._prepare(connection, _version(connection))
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self, *, may_write: bool = True) -> sqlite3.Connection:
        """A connection with the settings of this database, without a look at its schema.

        Raises:
            sqlite3.Error: the file can't be opened.
        """
        connection = sqlite3.connect(
            self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False
        )
        try:
            # FULL syncs the log at every commit. NORMAL leaves that to checkpoints.
            mode = "FULL" if self._sync_commits else "NORMAL"
            connection.execute(f"PRAGMA synchronous = {mode}")
            # macOS: fsync leaves the data in the drive's cache, F_FULLFSYNC does not.
            connection.execute("PRAGMA fullfsync = 1")
            connection.execute("PRAGMA checkpoint_fullfsync = 1")
            connection.execute(f"PRAGMA wal_autocheckpoint = {self._log_pages}")
            connection.execute(f"PRAGMA query_only = {int(not may_write)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def check_identity(self) -> None:
        """Find out which program made the file, and its version, without a change to it.

        Raises:
            ConfigError: as ``open`` does.
            sqlite3.Error: the file can't be read.
        """
        if self._has_content():
            with contextlib.closing(connect_read_only(self.path)) as connection:
                self._identify(connection)

    def _open(self) -> sqlite3.Connection:
        is_empty = not self._has_content()
        version = 0
        if not is_empty:
            # Everything is looked at before anything is written, and a damaged file stays as it
            # was found: a connection that may write would move the log into it when it is closed.
            with contextlib.closing(connect_read_only(self.path)) as connection:
                version = self._identify(connection)
                if version:
                    self._check_content(connection)
        self.is_new = version == 0
        connection = self.connect()
        try:
            self._prepare(connection, version)
        except BaseException:
            connection.close()
            raise
        if is_empty:
            files.sync_directory(self.path.parent)
        return connection

    def _identify(self, connection: sqlite3.Connection) -> int:
        """The file's version, 0 if it has no tables yet; raises ``ConfigError``."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        version = _version(connection)
        columns = _columns(connection)
        wanted = self._wanted_columns()
        # A first start of an earlier release that was killed may have left tables without the id.
        if application != self.layout.application_id and (
            application != 0 or not columns.keys() <= wanted.keys()
        ):
            raise ConfigError(
                f"{self.path} is a database of another program. It was left as it is."
                " Move it away, or set data_dir in [service] to another folder."
            )
        if version > self.layout.version:
            raise ConfigError(
                f"{self.path} was written by a newer appliance (its format is {version}, this one"
                f" knows {self.layout.version}). It was left as it is. Use the newer appliance, or"
                f" move the file away. Lost with it: {self.layout.loss}."
            )
        strange = [
            name for name, names in columns.items() if name in wanted and names != wanted[name]
        ]
        if version == self.layout.version and strange:
            raise ConfigError(
                f"{self.path} was written by a development version of the appliance: its table"
                f" {strange[0]} has other columns. It was left as it is. Move the file away."
                f" Lost with it: {self.layout.loss}."
            )
        return version

    def _wanted_columns(self) -> dict[str, list[str]]:
        with contextlib.closing(sqlite3.connect(":memory:")) as empty:
            empty.executescript(self.layout.schema)
            return _columns(empty)

    def _prepare(self, connection: sqlite3.Connection, version: int) -> None:
        """Bring the schema from ``version`` (0: no tables yet) to the present one, or not at all.

        The application id and the version stand in the file's header, which is part of the
        transaction.
        """
        layout = self.layout
        connection.execute("PRAGMA journal_mode = WAL")
        with transaction(connection):
            if 0 < version < layout.version:
                _log.info("%s: schema version %d -> %d", self.path, version, layout.version)
                for script in layout.migrations[version - _FIRST_VERSION :]:
                    _execute(connection, script)
            _execute(connection, layout.schema)
            for name, value in (
                ("application_id", layout.application_id),
                ("user_version", layout.version),
            ):
                (present,) = connection.execute(f"PRAGMA {name}").fetchone()
                if present != value:  # an assignment writes, even if nothing changes
                    connection.execute(f"PRAGMA {name} = {value}")

    def _check_content(self, connection: sqlite3.Connection) -> None:
        if self.path.stat().st_size <= CHECK_BELOW_BYTES:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise Damage(verdict)
        # The tables may be older, or incomplete after a first start of an earlier release.
        if self._verify is not None and _columns(connection) == self._wanted_columns():
            self._verify(connection)

    def _has_content(self) -> bool:
        try:
            return self.path.stat().st_size > 0
        except FileNotFoundError:
            return False

    # --- damage --------------------------------------------------------------------------------

    def _set_aside(self, error: Exception, now_ns: int) -> None:
        target = files.set_aside(self.path, "corrupt", now_ns)
        for suffix in _LOG_SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                files.rename(_beside(self.path, suffix), _beside(target, suffix))
        self.set_aside = target
        _log.error(
            "%s %s is damaged (%s). It was moved to %s and an empty one begun. Lost with it: %s",
            self.layout.title,
            self.path,
            error,
            target,
            self.layout.loss,
        )

    def _set_aside_orphans(self, now_ns: int) -> None:
        """Keep a log whose database is gone: SQLite would delete it, with the commits in it."""
        log = _beside(self.path, "-wal")
        if self._has_content() or not log.exists() or log.stat().st_size == 0:
            return
        target = files.set_aside(log, "orphaned", now_ns)
        _log.error(
            "%s %s is gone, and only its log was left. The log was moved to %s and an empty"
            " database begun. Lost with the database: %s",
            self.layout.title,
            self.path,
            target,
            self.layout.loss,
        )

    def _is_forbidden(self, error: OSError | sqlite3.Error) -> bool:
        if isinstance(error, OSError):
            return isinstance(error, PermissionError)
        if primary_code(error) not in _NO_ACCESS:
            return False
        try:
            with self.path.open("ab"):  # SQLite does not tell the reason
                return False
        except PermissionError:
            return True
        except OSError:
            return False


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
        has_log = _beside(path, "-wal").stat().st_size > 0
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
    return primary_code(error) in _DAMAGE


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


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    # Tables without a number are of the first version, which wrote the number after the tables.
    return int(version) or (_FIRST_VERSION if _columns(connection) else 0)


def _columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """The names of all columns, in order, by the name of their table."""
    found: dict[str, list[str]] = {}
    for table, column in connection.execute(
        "SELECT tables.name, columns.name FROM sqlite_master AS tables"
        " JOIN pragma_table_info(tables.name) AS columns"
        " WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        " ORDER BY tables.name, columns.cid"
    ):
        found.setdefault(table, []).append(column)
    return found


def _execute(connection: sqlite3.Connection, script: str) -> None:
    """Run a script within the open transaction, which ``executescript`` would commit first."""
    for statement in _statements(script):
        connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for part in script.split(";")[:-1]:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
