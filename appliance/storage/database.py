"""Opening the SQLite databases of the data directory: one policy for all of them.

``Database.open`` reads the application id and the schema version before anything is written, sets
a damaged file aside, brings an older schema up to date, and creates a new schema in one
transaction: a process that is killed in between leaves a file that the next start can use.
Not for: what the tables mean (the stores of journal, tasks and recorders).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import sqlite3
import stat
from collections.abc import Iterator, KeysView
from pathlib import Path

from appliance import __version__
from appliance.errors import ConfigError, NoPermissionError, UnavailableError
from appliance.storage import files, sqlite
from appliance.storage.layout import FIRST_VERSION, Damage, Layout, Tables, run_script, shape
from appliance.storage.replacement import Replacement, Rescue

CHECK_BELOW_BYTES = 32 * 1024 * 1024
"""A database up to this size is read through at the start (a fraction of a second). In a bigger
one, damage shows when the damaged page is read."""

_DAMAGED = ".damaged"
"""A running appliance has met damage: the next start looks at the whole database."""
_log = logging.getLogger(__name__)


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
        rescue: Rescue | None = None,
        check_below_bytes: int | None = None,
    ) -> None:
        """Settings that hold for every connection.

        Args:
            path: the file.
            layout: what it holds.
            busy_s: how long, in seconds, a statement waits for the lock of another connection.
            sync_commits: whether each commit is forced to the disk. Without it a killed process
                loses nothing, and a power cut may take the last commits.
            log_pages: the write-ahead log is moved into the database beyond so many pages.
            rescue: takes over what can be read of a damaged database; without it the new one
                begins empty.
            check_below_bytes: up to this size it is read through at the start; ``None``:
                ``CHECK_BELOW_BYTES``.
        """
        self.path = path
        self.layout = layout
        self.set_aside: Path | None = None
        self.losses: list[str] = []
        """What ``open`` found lost, a sentence each, for an operator to acknowledge."""
        self.is_new = False
        self._busy_s = busy_s
        self._sync_commits = sync_commits
        self._log_pages = log_pages
        self._rescue = rescue
        self._check_below_bytes = check_below_bytes

    def add_tables(self, tables: Tables) -> None:
        """Add the tables of another module. Before ``open``."""
        self.layout = self.layout.with_tables(tables)

    # --- opening -------------------------------------------------------------------------------

    def open(self, now_ns: int, *, doubt: str | None = None) -> sqlite3.Connection:
        """Open the database, create it if there is none, set it aside if it is damaged.

        Args:
            now_ns: present time in ns since 1970, for the name of a file that is set aside.
            doubt: why the caller takes the file for damaged, though SQLite can read it.

        Returns a writing connection in autocommit mode: transactions are begun explicitly.

        Raises:
            ConfigError: the file is of a newer appliance or of another program, its tables or its
                content are not those of its version, or a step to the present version fails. It is
                left as it is.
            NoPermissionError: this user may not read and write the file.
            UnavailableError: the file can't be opened now.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replacement = Replacement(self.path, self.layout, self._rescue, self.losses)
            replacement.complete(now_ns, has_content=self._has_content())
            if not self._has_content():
                replacement.keep_log(now_ns)
            try:
                connection = self._open(doubt)
            except (Damage, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.Error) and not sqlite.is_damage(error):
                    raise
                self.set_aside = replacement.replace(error, now_ns)
                connection = self._open()
            with contextlib.suppress(FileNotFoundError):
                files.remove(sqlite.beside(self.path, _DAMAGED))
        except (OSError, sqlite3.Error) as error:
            text = f"{self.layout.title} {self.path} can't be opened: {sqlite.explain(error)}."
            if self._is_forbidden(error):
                raise NoPermissionError(
                    f"{text} Give the account that runs the appliance the right to write there."
                ) from error
            raise UnavailableError(
                f"{text} Correct that, or set data_dir in [service] to another folder."
            ) from error
        return connection

    def reopen(self) -> sqlite3.Connection:
        """A fresh writing connection while the appliance runs; creates the file if it vanished.

        Raises:
            sqlite3.Error, OSError: not possible now; try again.
        """
        try:
            version = self.check_identity()
        except ConfigError as error:
            raise OSError(errno.EEXIST, str(error)) from error
        connection = self.connect()
        try:
            self._prepare(connection, version)
        except BaseException:
            connection.close()
            raise
        return connection

    def note_damage(self) -> None:
        """Have the next start look at the whole database, however big it is."""
        with contextlib.suppress(OSError):  # such a disk may refuse this too
            sqlite.beside(self.path, _DAMAGED).touch()

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

    def check_identity(self) -> int:
        """Find out which program made the file, and its version, without a change to it.

        Returns the version; 0 if there is no file, or no table in it.

        Raises:
            ConfigError: as ``open`` does.
            sqlite3.Error, OSError: the file can't be read.
        """
        if not self._has_content():
            return 0
        with contextlib.closing(sqlite.connect_read_only(self.path)) as connection:
            version = self._identify(connection)
            if version:
                self._verify(connection, version)
        return version

    @contextlib.contextmanager
    def understood(self, version: int | None = None) -> Iterator[None]:
        """Reading rows: an error of decoding them becomes one that tells the user about the file.

        Raises:
            ConfigError: instead of a ``ValueError``, ``TypeError`` or ``OverflowError``.
        """
        try:
            yield
        except Damage:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            number = version or self.layout.version
            raise ConfigError(
                self._refusal(f"its content is not that of format {number}: {error}")
            ) from error

    def _open(self, doubt: str | None = None) -> sqlite3.Connection:
        self._undo_interrupted_creation()
        is_empty = not self._has_content()
        version = 0
        if not is_empty:
            # Everything is looked at before anything is written, and a damaged file stays as it
            # was found: a connection that may write would move the log into it when it is closed.
            with contextlib.closing(sqlite.connect_read_only(self.path)) as connection:
                version = self._identify(connection)
                if version:
                    self._check_content(connection, version)
                    if doubt is not None:
                        raise Damage(doubt)
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

    def _undo_interrupted_creation(self) -> None:
        """Have SQLite undo a write that a crash interrupted before there was a write-ahead log.

        The first page of a new database is written under a rollback journal. A connection that only
        reads would take the half-written page for damage, or refuse.
        """
        journal = sqlite.beside(self.path, "-journal")
        if not journal.exists() or journal.stat().st_size == 0 or not self._has_content():
            return
        with (
            contextlib.closing(self.connect()) as connection,
            contextlib.suppress(sqlite3.DatabaseError),  # damage is judged afterwards
        ):
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()

    def _identify(self, connection: sqlite3.Connection) -> int:
        """The file's version, 0 if it has no tables yet; raises ``ConfigError``."""
        layout = self.layout
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (number,) = connection.execute("PRAGMA user_version").fetchone()
        tables = shape(connection).keys()
        # A first start of an earlier release that was killed may have left tables without the id.
        if application != layout.application_id and (
            application != 0 or not tables <= _tables(layout)
        ):
            raise ConfigError(
                f"{self.path} is a database of another program. It was left as it is."
                " Move it away, or set data_dir in [service] to another folder."
            )
        if number > layout.version:
            raise ConfigError(
                f"{self.path} was written by a newer appliance: its format is {number}, and this"
                f" version ({__version__}) knows format {layout.version}. It was left as it is."
                " Install the newer version again, or put back a backup from before the upgrade"
                ' (docs/operating.md, "Upgrade and downgrade"). If it is moved away instead, this'
                f" is lost with it: {layout.loss}."
            )
        if number == 0 and not tables:
            return 0
        # Tables without a number are of the first version, which wrote the number after the tables.
        version = number or FIRST_VERSION
        if version < FIRST_VERSION:
            raise ConfigError(self._refusal(f"its format is {version}, which does not exist"))
        misfit = layout.misfit(connection, version, may_lack_tables=number == 0)
        if misfit is not None:
            raise ConfigError(
                self._refusal(f"its format is {version}, but its tables are not: {misfit}")
            )
        return version

    def _refusal(self, why: str) -> str:
        return (
            f"{self.path} can't be used by this version ({__version__}): {why}. A development"
            " version or another program may have changed it. It was left as it is. Put a backup"
            " back, or move the file away. If it is moved away, this is lost with it:"
            f" {self.layout.loss}."
        )

    def _prepare(self, connection: sqlite3.Connection, version: int) -> None:
        """Bring the schema from ``version`` (0: no tables yet) to the present one, or not at all.

        The application id and the version stand in the file's header, which is part of the
        transaction.
        """
        layout = self.layout
        connection.execute("PRAGMA journal_mode = WAL")
        with sqlite.transaction(connection):
            if 0 < version < layout.version:
                self._upgrade(connection, version)
            self.layout.create(connection)

    def _upgrade(self, connection: sqlite3.Connection, version: int) -> None:
        layout = self.layout
        _log.info("%s: upgrade from format %d to %d", self.path, version, layout.version)
        try:
            layout.upgrade(connection, version)
            run_script(connection, layout.schema)
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            if (
                isinstance(error, sqlite3.Error)
                and sqlite.primary_code(error) not in sqlite.STATEMENT_FAULTS
            ):
                raise  # the disk, another program, damage: not the step
            raise ConfigError(
                f"{self.path} can't be upgraded from format {version} to {layout.version}:"
                f" {error}. It was left as it is. Install the version that wrote it again, and"
                " report this line."
            ) from error

    def _check_content(self, connection: sqlite3.Connection, version: int) -> None:
        is_doubted = sqlite.beside(self.path, _DAMAGED).exists()
        most = self._check_below_bytes
        most = CHECK_BELOW_BYTES if most is None else most
        if is_doubted or self.path.stat().st_size <= most:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":  # the last line of several has the reason
                raise Damage(verdict.splitlines()[-1])
        self._verify(connection, version)

    def _verify(self, connection: sqlite3.Connection, version: int) -> None:
        # Tables may be missing: after a first start of an earlier release that was killed, or
        # because version 1 got them without a new number.
        known = self.layout.unchanged_since(version)
        if _tables(known) <= shape(connection).keys():
            with self.understood(version):
                known.verify(connection)

    def _has_content(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode):
            raise ConfigError(
                f"{self.path} is a folder, and {self.layout.title.lower()} belongs there. Move it"
                " away, or set data_dir in [service] to another folder."
            )
        return found.st_size > 0

    def _is_forbidden(self, error: OSError | sqlite3.Error) -> bool:
        if isinstance(error, OSError):
            return isinstance(error, PermissionError)
        if sqlite.primary_code(error) not in sqlite.NO_ACCESS:
            return False
        try:
            with self.path.open("ab"):  # SQLite does not tell the reason
                return False
        except PermissionError:
            return True
        except OSError:
            return False


def _tables(layout: Layout) -> KeysView[str]:
    """The names of the present tables."""
    with contextlib.closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(layout.schema)
        return shape(empty).keys()
