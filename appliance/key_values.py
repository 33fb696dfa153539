"""``key_values.db``: small texts under a namespace and a key.

Load scripts leave each other notes so, over HTTP.
What is written is on the disk before the call returns. A pair may have an end of its time; a step
of the system's clock moves that along, so it lives as long as it was to. Everything is bounded.

Not for: the HTTP calls and rights (http_api/butler/key_values.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from appliance.clock import Clock
from appliance.errors import ApplianceError, UnavailableError
from appliance.storage import sqlite
from appliance.storage.database import Database
from appliance.storage.layout import Layout, Tables
from appliance.storage.rescue import rescue_rows

MAX_NAMESPACES = 1000
MAX_NAME = 1024
"""Characters of a namespace or key."""
MAX_BYTES = 64 * 1024 * 1024
"""Of all keys and values together."""
LONGEST_MS = 100 * 366 * 86_400_000
"""A longer time to live is as good as this one: a hundred years."""
_BUSY_S = 5.0
_NS = 1_000_000

LAYOUT = Layout(
    title="The key-value store",
    application_id=0x514D4B56,  # "QMKV"
    loss="what load scripts have stored under keys",
    parts=(
        Tables(
            """
CREATE TABLE IF NOT EXISTS namespace (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS pair (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    expires_ns INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS pair_key ON pair (namespace, key);
CREATE INDEX IF NOT EXISTS pair_expires ON pair (expires_ns) WHERE expires_ns > 0;
""",
        ),
    ),
)


class FullError(ApplianceError):
    """A bound is reached; nothing was stored."""


class Pair(msgspec.Struct, frozen=True):
    """What is stored under a key."""

    namespace: str
    key: str
    value: str
    ttl_ms: int = 0
    """How long it lives, from now on; 0 or less: until it is deleted."""


class KeyValues:
    """The store. Methods may be called from any thread but the engine's: they wait for the disk.

    All of them raise ``UnavailableError`` if the database can't be read or written.
    """

    def __init__(
        self, path: Path, *, max_keys: Callable[[], int], clock: Clock, sync: bool = True
    ) -> None:
        """Nothing is opened yet.

        Args:
            path: the database.
            max_keys: how many keys a namespace may have now.
            clock: is this store's alone, because the store adopts its steps.
            sync: whether each change is forced to the disk.
        """
        self._database = Database(
            path,
            LAYOUT,
            busy_s=_BUSY_S,
            sync_commits=sync,
            rescue=lambda damaged, _log, connection: rescue_rows(damaged, connection, LAYOUT),
        )
        self._max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._bytes = 0
        """At least as much as there is: what was overwritten or removed still counts."""

    @property
    def losses(self) -> list[str]:
        """What ``open`` found lost: see ``Database.losses``."""
        return self._database.losses

    def open(self) -> None:
        """Open the database as ``Database.open`` does, and raise what it raises."""
        with self._lock:
            self._connection = self._database.open(self._clock())
        with self._changing() as connection:
            self._bytes = _measure(connection)

    def close(self) -> None:
        """Nothing is stored any more."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def follow_clock(self) -> None:
        """If the clock was set, move the ends along. Does nothing while the store is not open."""
        if self._connection is not None:
            with self._using() as connection:
                self._follow(connection)

    def _follow(self, connection: sqlite3.Connection) -> None:
        if step_ns := self._clock.step_ns():
            with sqlite.transaction(connection):
                connection.execute(
                    "UPDATE pair SET expires_ns = max(1, expires_ns + ?) WHERE expires_ns > 0",
                    (step_ns,),
                )
            self._clock.adopt(step_ns)

    # --- reading --------------------------------------------------------------------------------

    def namespaces(self) -> list[str]:
        """All of them, the oldest first; one stays until it is removed, also without keys."""
        with self._using() as connection:
            rows = connection.execute("SELECT name FROM namespace ORDER BY id").fetchall()
        return [name for (name,) in rows]

    def keys(self, namespace: str) -> list[str] | None:
        """The keys in the order of their making; ``None``: there is no such namespace."""
        with self._using() as connection:
            if (number := _number(connection, namespace)) is None:
                return None
            rows = connection.execute(
                "SELECT key FROM pair WHERE namespace = ? AND (expires_ns = 0 OR expires_ns > ?)"
                " ORDER BY id",
                (number, self._clock()),
            ).fetchall()
        return [key for (key,) in rows]

    def value(self, namespace: str, key: str) -> tuple[bool, str | None]:
        """Whether there is such a namespace, and the value of a key in it, if it has one."""
        with self._using() as connection:
            if (number := _number(connection, namespace)) is None:
                return False, None
            row = connection.execute(
                "SELECT value FROM pair WHERE namespace = ? AND key = ?"
                " AND (expires_ns = 0 OR expires_ns > ?)",
                (number, key, self._clock()),
            ).fetchone()
        return True, None if row is None else row[0]

    # --- changing -------------------------------------------------------------------------------

    def put(self, pairs: Sequence[Pair]) -> None:
        """Store all of these, or none of them; a key that is there gets the new value and time.

        Raises:
            FullError: a bound is reached.
        """
        with self._changing() as connection:
            now = self._clock()
            for pair in pairs:
                self._put(connection, pair, now)

    def remove(self, namespace: str, key: str) -> tuple[bool, bool]:
        """Whether there was such a namespace, and whether it had the key, which is gone now."""
        with self._changing() as connection:
            if (number := _number(connection, namespace)) is None:
                return False, False
            found = connection.execute(
                "DELETE FROM pair WHERE namespace = ? AND key = ?", (number, key)
            ).rowcount
        return True, found > 0

    def remove_namespace(self, namespace: str) -> bool:
        """Whether there was such a namespace; it is gone now, with its keys."""
        with self._changing() as connection:
            if (number := _number(connection, namespace)) is None:
                return False
            connection.execute("DELETE FROM pair WHERE namespace = ?", (number,))
            connection.execute("DELETE FROM namespace WHERE id = ?", (number,))
        return True

    def _put(self, connection: sqlite3.Connection, pair: Pair, now: int) -> None:
        if max(len(pair.namespace), len(pair.key)) > MAX_NAME:
            raise FullError(f"A namespace and a key have at most {MAX_NAME} characters.")
        number = _number(connection, pair.namespace)
        if number is None:
            number = _add_namespace(connection, pair.namespace)
        (count,) = connection.execute(
            "SELECT count(*) FROM pair WHERE namespace = ? AND key <> ?", (number, pair.key)
        ).fetchone()
        most = self._max_keys()
        if count >= most:
            raise FullError(
                f"Namespace {pair.namespace!r} has {most} keys already, which is max_keys in"
                " [http]. Delete keys, or give them a ttl."
            )
        self._bytes += len(pair.key.encode()) + len(pair.value.encode())
        expires_ns = now + min(pair.ttl_ms, LONGEST_MS) * _NS if pair.ttl_ms > 0 else 0
        connection.execute(
            "INSERT INTO pair (namespace, key, value, expires_ns) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (namespace, key) DO UPDATE"
            " SET value = excluded.value, expires_ns = excluded.expires_ns",
            (number, pair.key, pair.value, expires_ns),
        )
        if self._bytes > MAX_BYTES:
            self._bytes = _measure(connection)
            if self._bytes > MAX_BYTES:
                raise FullError(
                    f"The key-value store has {MAX_BYTES // 1024**2} MiB already, which is all it"
                    " holds. Delete keys or namespaces."
                )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, in which what is over is removed."""
        with self._using() as connection:
            self._follow(connection)
            before = self._bytes
            try:
                with sqlite.transaction(connection):
                    connection.execute(
                        "DELETE FROM pair WHERE expires_ns > 0 AND expires_ns <= ?",
                        (self._clock(),),
                    )
                    yield connection
            except BaseException:
                self._bytes = before
                raise

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                raise UnavailableError("The key-value store is closed.")
            try:
                yield self._connection
            except sqlite3.Error as error:
                if sqlite.is_damage(error):
                    self._database.note_damage()
                raise UnavailableError(
                    f"The key-value store {self._database.path} can't be used:"
                    f" {sqlite.explain(error)}."
                ) from error


def _number(connection: sqlite3.Connection, namespace: str) -> int | None:
    row = connection.execute("SELECT id FROM namespace WHERE name = ?", (namespace,)).fetchone()
    return None if row is None else int(row[0])


def _add_namespace(connection: sqlite3.Connection, namespace: str) -> int:
    """Make a namespace, in the room of empty ones if there is no other; raises ``FullError``."""
    (count,) = connection.execute("SELECT count(*) FROM namespace").fetchone()
    if count >= MAX_NAMESPACES:
        freed = connection.execute(
            "DELETE FROM namespace WHERE id NOT IN (SELECT namespace FROM pair)"
        ).rowcount
        if not freed:
            raise FullError(f"There are {MAX_NAMESPACES} namespaces already. Delete some of them.")
    made = connection.execute("INSERT INTO namespace (name) VALUES (?)", (namespace,))
    assert made.lastrowid is not None
    return made.lastrowid


def _measure(connection: sqlite3.Connection) -> int:
    """Bytes of all keys and values."""
    (found,) = connection.execute(
        "SELECT total(length(CAST(key AS BLOB)) + length(CAST(value AS BLOB))) FROM pair"
    ).fetchone()
    return int(found)
