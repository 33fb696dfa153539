"""A recorder's connection to a SQL database: made when it is needed, cut when the server hangs.

Every error comes out as a ``DatabaseFaultError`` without secrets. After a failure the next attempt
waits, longer where an operator has to see to the cause. Not for: tables and rows (sql.py).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc as sa_errors
from sqlalchemy.pool import NullPool

from appliance.config.database_url import sqlite_file
from appliance.config.files import database_password
from appliance.config.tables import RecorderConfig
from appliance.errors import ConfigError
from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.database_texts import Mask, shown_address, with_driver
from appliance.recorders.database_waits import Retries, TimeLimits, Waits
from appliance.recorders.sql_dialects import Dialect, dialect_of
from appliance.recorders.sql_errors import fault_of
from appliance.storage import files


def make_url(config: RecorderConfig) -> sa.URL:
    """SQLAlchemy's form of a recorder's address, with its password.

    Raises:
        ConfigError: it is not right, a package is missing, or the password's file can't be read.
        NoPermissionError: the password's file may not be read.
    """
    assert config.database is not None
    shown = shown_address(config.database.url)
    try:
        url = sa.make_url(with_driver(config.database.url))
        dialect = url.get_dialect()
        is_async = dialect.is_async
        if not is_async:
            dialect.import_dbapi()
    except sa_errors.NoSuchModuleError:
        raise ConfigError(
            f"The database address {shown} begins with a kind of database that SQLAlchemy does not"
            " know here. Use postgresql, mariadb, mysql or sqlite, or install its dialect."
        ) from None
    except (sa_errors.ArgumentError, ValueError):
        raise ConfigError(
            f"The database address {shown} is not right. Write for example"
            " postgresql+psycopg://user@host/database; characters such as @, / and : in a user"
            " name or password are written as %40, %2F and %3A."
        ) from None
    except ImportError as error:
        raise ConfigError(
            f"The database address {shown} needs a driver that is not installed: {error}."
        ) from None
    if is_async:
        raise ConfigError(
            f"The database address {shown} names a driver for asyncio, which recorders do not use."
            " Leave the driver out, for example postgresql://..."
        )
    password = database_password(config)
    return url if password is None else url.set(password=password.reveal())


_WATCH_S = 0.5
_STOP_S = 3.0
"""How long an answer may take when the appliance stops."""

# A type of another program's column that SQLAlchemy does not know is no message for a terminal.
warnings.filterwarnings("ignore", category=sa_errors.SAWarning)


class SqlConnection:
    """One connection at a time. For one thread."""

    def __init__(
        self,
        config: RecorderConfig,
        *,
        limits: TimeLimits | None = None,
        waits: Waits | None = None,
        now: Callable[[], float] = time.monotonic,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Not connected yet.

        Raises:
            ConfigError, NoPermissionError: as ``make_url`` does.
        """
        self._config = config
        self._limits = limits or TimeLimits()
        self._retries = Retries(waits, now)
        self._is_stopping = is_stopping
        self.dialect: Dialect = dialect_of(make_url(config))
        assert config.database is not None
        self._database = config.database
        self.shown = shown_address(config.database.url)
        self.attempts = 0
        """How often a connection was tried."""
        self.connections = 0
        """How many were made."""
        path = sqlite_file(config.database.url)
        self._path = Path(path) if path else None
        self._seen: tuple[int, int] | None = None
        self._connection: sa.Connection | None = None
        self._engine: sa.Engine | None = None
        self._mask = Mask(config.database)

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @contextlib.contextmanager
    def transaction(self, *, is_trial: bool = False) -> Iterator[sa.Connection]:
        """A transaction, on a connection that is made if there is none.

        Args:
            is_trial: whether a refusal is no failure: the connection stays, and nothing waits.

        Raises:
            DatabaseFaultError: nothing was changed, or (the answer to the commit was lost) that is
                not known. After anything but ``Cause.ROW`` the connection is closed.
        """
        connection = self._connection or self._connect()
        try:
            with (
                _cut_after(self._limits.answer_s, connection, self._is_stopping) as cut,
                connection.begin(),
            ):
                yield connection
        except DatabaseFaultError as fault:
            self._failed(fault)
            raise
        except OSError:  # of the appliance's own disk
            self.close()
            raise
        except Exception as error:  # noqa: BLE001  # a driver's, of any class
            found = self._fault(error, is_cut=cut.is_set())
            if is_trial and not cut.is_set() and found.cause is not Cause.CONNECTION:
                raise found from None
            raise self._failed(found) from None
        self._retries.succeeded()

    def _failed(self, fault: DatabaseFaultError) -> DatabaseFaultError:
        if fault.cause is not Cause.ROW:
            self._close_broken()
            self._retries.failed(fault)
        return fault

    def _fault(self, error: Exception, *, is_cut: bool = False) -> DatabaseFaultError:
        if is_cut:
            return DatabaseFaultError(
                Cause.TIMEOUT,
                f"{self.shown}: the server did not answer within {self._limits.answer_s:g} s",
            )
        return fault_of(error, self._mask, self.shown)

    def _connect(self) -> sa.Connection:
        self._retries.check()
        self.attempts += 1
        url = make_url(self._config)  # the password's file may have been corrected
        if self._path is not None:
            files.make_directory(self._path.parent)
        self._mask = Mask(self._database, database_password(self._config))
        try:
            self._engine = sa.create_engine(
                url,
                poolclass=NullPool,
                hide_parameters=True,
                connect_args=self.dialect.connect_args(self._limits),
            )
            connection = self._engine.connect()
            try:
                with _cut_after(self._limits.answer_s, connection):
                    self.dialect.on_connect(connection, self._limits)
            except BaseException:
                with contextlib.suppress(Exception):
                    connection.invalidate()
                    connection.close()
                raise
        except Exception as error:  # noqa: BLE001  # a driver's, of any class
            fault = error if isinstance(error, DatabaseFaultError) else self._fault(error)
            self._retries.failed(fault)
            raise fault from None
        self._connection = connection
        self.connections += 1
        self._seen = self._looks()
        return connection

    def notice_replaced_file(self) -> None:
        """Let go of an SQLite file that was removed or replaced: rows would go nowhere."""
        if self._connection is not None and self._path is not None and self._looks() != self._seen:
            self.close()

    def _looks(self) -> tuple[int, int] | None:
        """What tells the SQLite file from another one in its place."""
        try:
            found = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found is not None else None

    def _close_broken(self) -> None:
        """Close without a word to the server, which may hang."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is given up, in whatever state it is
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception), _cut_after(self._limits.connect_s, connection):
                connection.close()


@contextlib.contextmanager
def _cut_after(
    limit_s: float, connection: sa.Connection, is_stopping: Callable[[], bool] = lambda: False
) -> Iterator[threading.Event]:
    """Cut the connection when the work within takes too long; the event says that it was cut.

    A server that is stopped still has its operating system acknowledge packets, so no option of
    TCP notices it. At a stop of the appliance there is less time.
    """
    is_cut = threading.Event()
    descriptor = _descriptor_of(connection.connection.driver_connection)
    if descriptor is None:  # a driver with time limits of its own, or no server
        yield is_cut
        return
    is_done = threading.Event()
    lock = threading.Lock()

    def watch() -> None:
        end = time.monotonic() + limit_s
        while not is_done.wait(min(_WATCH_S, limit_s)):
            if is_stopping():
                end = min(end, time.monotonic() + _STOP_S)
                if is_done.wait(max(0.0, end - time.monotonic())):
                    return
            if time.monotonic() >= end:
                break
        else:
            return
        with lock:
            if is_done.is_set():
                return
            is_cut.set()
            with (
                contextlib.suppress(Exception),  # it has just ended by itself
                socket.fromfd(descriptor(), socket.AF_INET, socket.SOCK_STREAM) as line,
            ):
                line.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=watch, name="database time limit", daemon=True).start()
    try:
        yield is_cut
    finally:
        with lock:
            is_done.set()


def _descriptor_of(driver: Any) -> Callable[[], int] | None:
    """What gives the descriptor of a driver's connection: psycopg says it, PyMySQL has a socket."""
    found = getattr(driver, "fileno", None)
    if found is None:
        found = getattr(getattr(driver, "_sock", None), "fileno", None)
    return found if callable(found) else None
