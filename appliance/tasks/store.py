"""``tasks.db``: requests, executions, what messages led to, and how far the journal was read.

One SQLite file (WAL). Everything that one event changes is written in one transaction, above all
the journal's sequence number together with the requests that the messages caused: after a crash
a message is either not read yet or has its requests, never both or neither.

A killed process loses nothing that was written. A power cut may take the last seconds away (the
file stays whole): forcing each start call to the disk would cost more than the call. The messages
are in the journal, which is forced, so they are read again, and what may have been started before
is looked for at the server first (``look_since_ns`` in records.py). What has no message behind it,
the acts of operators and timers, is forced to the disk.

A thread of its own moves SQLite's log into the file (``checkpoint``). By itself, SQLite does it
within a write, which would hold up one note in a hundred.

Not for: deciding anything, or locking: the state store holds its lock around each call.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from appliance.model import LARGEST_SEQ, ExecutionState
from appliance.storage.database import Database
from appliance.storage.layout import Layout, Tables, check_ends
from appliance.storage.rescue import rescue_rows
from appliance.storage.sqlite import transaction
from appliance.tasks import kept, start_keys
from appliance.tasks.records import Record
from appliance.tasks.start_keys import KeptKey

LOG_COMMITS = 500
"""After so many commits (some 20 MB of log) ``checkpoint`` has something to do."""
LOG_PAGES = 20_000
"""A log of so many pages (80 MB) is moved within a write after all: it must not grow for ever."""
_BUSY_S = 10.0
CHECK_BELOW_BYTES = 1024**3
"""Up to this size the database is read through at the start: a second a gigabyte, or a few."""
_AT_ONCE = 500
MAX_LEFT_OUT = 1000
"""Rows that can't be read and are said once; further ones are said each time."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a message led to: an execution, or none (0) and why in a few characters."""

    seq: int
    execution: int
    label: str
    at_ns: int
    state: str = ExecutionState.REJECTED.value
    """Of a message that led to no execution: rejected, or skipped where that is as it should be."""


class Publication(msgspec.Struct, frozen=True, array_like=True):
    """A message about an execution that is to be published, once its change is durable."""

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes | None = None
    content_type: str = "application/json"
    qos: int = 1
    task: str = ""
    """The task of an outcome that an ``[[outcome]]`` has made."""


class TaskHistory(msgspec.Struct, frozen=True, array_like=True):
    """What has to be remembered of a task beyond its executions."""

    last_start_ns: int = 0
    durations_s: tuple[float, ...] = ()
    """Of the last successful runs, newest last, at most 20."""
    last_bad: bool = False
    """Whether its last run ended badly."""
    name: str = ""


class Changes:
    """What one event changed, collected and then written at once."""

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}
        self.removed: set[int] = set()
        self.answers: list[Answer] = []
        self.moved_answers: list[tuple[int, int]] = []
        """(from, to): answers that pointed to one execution point to another now."""
        self.sightings: list[tuple[bytes, int]] = []
        self.histories: dict[str, TaskHistory] = {}
        self.publications: list[tuple[int, Publication]] = []
        self.published: int | None = None
        """Publications up to this id are done with."""
        self.keys: list[KeptKey] = []
        self.kept: dict[tuple[str, str], bytes | None] = {}
        """Values by kind and name (kept.py); ``None`` removes one."""
        self.meta: dict[str, int] = {}
        self.removed_meta: list[str] = []
        self.sightings_shift_ns = 0
        """The clock was set by this: sightings are moved along."""
        self.is_forced = False
        """Whether it must survive a power cut by itself."""

    def __bool__(self) -> bool:
        return bool(
            self.records
            or self.removed
            or self.answers
            or self.moved_answers
            or self.sightings
            or self.histories
            or self.publications
            or self.published is not None
            or self.keys
            or self.kept
            or self.meta
            or self.removed_meta
        )


def _verify(connection: sqlite3.Connection) -> None:
    """Decode the oldest and the newest row of each table."""
    for (table, column, key), decode in _DECODERS.items():
        check_ends(connection, table, column, key, decode)


_DECODERS: dict[tuple[str, str, str], Callable[[bytes], object]] = {
    ("executions", "record", "id"): msgspec.msgpack.Decoder(Record).decode,
    ("outbox", "publication", "id"): msgspec.msgpack.Decoder(Publication).decode,
    ("histories", "history", "task_id"): msgspec.msgpack.Decoder(TaskHistory).decode,
    ("sightings", "digest", "at_ns"): bytes,
}


def _number(value: object) -> int:
    if not isinstance(value, int) or abs(value) > LARGEST_SEQ:
        raise ValueError(f"the number is {value!r}"[:100])
    return value


def _answer(row: tuple[object, ...]) -> Answer:
    answer = msgspec.convert(row, Answer)
    ExecutionState(answer.state)
    return answer


def _sighting(row: tuple[object, ...]) -> tuple[bytes, int]:
    digest, at_ns = row
    if not isinstance(digest, bytes) or not isinstance(at_ns, int):
        raise TypeError("it is no digest with a time")
    return digest, at_ns


LAYOUT = Layout(
    title="The task database",
    application_id=0x514D5453,  # "QMTS"
    loss="pauses of timers, holds, acknowledgements, how fresh each task was, keys of HTTP"
    " requests, and what the journal does not tell of requests and of the history of runs: the rest"
    " is rebuilt from the journal",
    parts=(
        Tables(
            """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS executions (
    id INTEGER PRIMARY KEY, task_id TEXT NOT NULL, open INTEGER NOT NULL, at_ns INTEGER NOT NULL,
    record BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS executions_open ON executions (open) WHERE open = 1;
CREATE INDEX IF NOT EXISTS executions_task ON executions (task_id, id);
CREATE TABLE IF NOT EXISTS answers (
    seq INTEGER NOT NULL, execution INTEGER NOT NULL, label TEXT NOT NULL, at_ns INTEGER NOT NULL,
    state TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS answers_seq ON answers (seq);
CREATE TABLE IF NOT EXISTS sightings (
    digest BLOB PRIMARY KEY, at_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, publication BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS histories (
    task_id TEXT PRIMARY KEY, history BLOB NOT NULL) WITHOUT ROWID;
""",
            verify=_verify,
        ),
        start_keys.TABLES,
        kept.TABLES,
    ),
)


class Store:
    """The database file. Opens and creates it; every method may raise ``sqlite3.Error``."""

    def __init__(self, path: Path, *, sync: Literal["always", "os"] = "always") -> None:
        """``sync``: ``"always"`` forces acts of operators and timers to the disk, ``"os"`` not."""
        self._path = path
        self._sync = sync
        self._database = Database(
            path,
            LAYOUT,
            busy_s=_BUSY_S,
            log_pages=LOG_PAGES,
            rescue=self._rescue,
            check_below_bytes=CHECK_BELOW_BYTES,
        )
        self._connection: sqlite3.Connection | None = None
        self._commits = 0
        """Since the log was moved into the file."""
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Record).decode
        self.left_out: set[tuple[str, object]] = set()
        """Table and key of rows that can't be read."""
        self._new_keys = 0
        self.keys_forgotten = 0
        """Keys of starts that had to go before their time, because there were too many."""

    def open(self, now_ns: int) -> None:
        """Open the database as ``Database.open`` does, and raise what it raises."""
        # Used by several threads, one at a time, under the state store's lock.
        self._connection = self._database.open(now_ns)

    @staticmethod
    def _rescue(damaged: Path, _log: Path, connection: sqlite3.Connection) -> str:
        told = rescue_rows(damaged, connection, LAYOUT)
        # It has no cursor until what is missing was taken from the journal, also after a kill.
        connection.execute("UPDATE OR REPLACE meta SET name = 'rescued_seq' WHERE name = 'seq'")
        return told

    def understood(self) -> contextlib.AbstractContextManager[None]:
        """For reading after ``open``: see ``Database.understood``."""
        return self._database.understood()

    @property
    def is_new(self) -> bool:
        """Whether it has no cursor yet, because the database was created or set aside.

        A database of an earlier release, which noted its version as a row, has its cursor at 0.
        """
        return self._database.is_new or self.metas().keys().isdisjoint({"seq", "version"})

    @property
    def losses(self) -> list[str]:
        """What ``open`` found lost: see ``Database.losses``."""
        return self._database.losses

    def note_damage(self) -> None:
        """Have the next ``open`` look at the whole database, however big it is."""
        self._database.note_damage()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the task database is closed")
        return self._connection

    def write(self, changes: Changes) -> None:
        """Write everything or nothing."""
        database = self._db
        is_forced = changes.is_forced and self._sync == "always"
        if is_forced:
            database.execute("PRAGMA synchronous = FULL")
        try:
            with transaction(database):
                self._write(database, changes)
            self._commits += 1
        finally:
            if is_forced:
                database.execute("PRAGMA synchronous = NORMAL")

    def _write(self, database: sqlite3.Connection, changes: Changes) -> None:
        # Nothing is run in vain: each statement gives the interpreter's lock away, and a start
        # call waits until this thread has it back.
        for statement, rows in (
            (
                "INSERT OR REPLACE INTO executions VALUES (?, ?, ?, ?, ?)",
                [self._row(record) for record in changes.records.values()],
            ),
            ("DELETE FROM executions WHERE id = ?", [(one,) for one in changes.removed]),
            (
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?)",
                [msgspec.structs.astuple(one) for one in changes.answers],
            ),
            (
                "UPDATE answers SET execution = ? WHERE execution = ?",
                [(new, old) for old, new in changes.moved_answers],
            ),
            ("INSERT OR REPLACE INTO sightings VALUES (?, ?)", changes.sightings),
            (
                "INSERT OR REPLACE INTO histories VALUES (?, ?)",
                [(task_id, self._encode(one)) for task_id, one in changes.histories.items()],
            ),
            (
                "INSERT INTO outbox VALUES (?, ?)",
                [(number, self._encode(one)) for number, one in changes.publications],
            ),
            ("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(changes.meta.items())),
            ("DELETE FROM meta WHERE name = ?", [(one,) for one in changes.removed_meta]),
        ):
            if rows:
                database.executemany(statement, rows)
        if changes.sightings_shift_ns:
            database.execute(
                "UPDATE sightings SET at_ns = at_ns + ?", (changes.sightings_shift_ns,)
            )
        if changes.published is not None:
            database.execute("DELETE FROM outbox WHERE id <= ?", (changes.published,))
        if changes.kept:
            kept.write(database, changes.kept)
        if changes.keys:
            start_keys.write(database, changes.keys)
            self._new_keys += len(changes.keys)
            if self._new_keys >= start_keys.BOUND_EVERY:
                self._new_keys = 0
                self.keys_forgotten += start_keys.bound(database)

    def kept(self, kind: str) -> dict[str, bytes]:
        """The values of a kind (kept.py), by name."""
        return kept.read(self._db, kind)

    def checkpoint(self) -> bool:
        """Move the log into the file if it is long; returns whether it was.

        For a thread of its own, without the state store's lock: writes go on meanwhile.
        """
        if self._commits < LOG_COMMITS:
            return False
        self._commits = 0
        with contextlib.closing(sqlite3.connect(self._path, timeout=0.0)) as other:
            other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return True

    def leave_out(self, changes: Changes) -> list[str]:
        """Take out what can't be put into bytes (a defect); returns what that was.

        Only news and statistics may be left out. A request that can't be written must not be
        carried out either, so it stays where it is and the write goes on failing.
        """
        left_out: list[str] = []
        for number, publication in list(changes.publications):
            if not self._can_encode(publication):
                changes.publications.remove((number, publication))
                left_out.append(f"a publication on {publication.topic}")
        for task_id, history in list(changes.histories.items()):
            if not self._can_encode(history):
                del changes.histories[task_id]
                left_out.append(f"the history of task {task_id}")
        return left_out

    def _can_encode(self, value: object) -> bool:
        try:
            self._encode(value)
        except Exception:  # noqa: BLE001 - the question is whether it can be, not why not
            return False
        return True

    def _row(self, record: Record) -> tuple[int, str, int, int, bytes]:
        execution = record.execution
        is_open = not execution.state.is_final or record.log_wanted
        at_ns = execution.ended_ns or execution.requested_ns
        return (record.id, execution.task_id, int(is_open), at_ns, self._encode(record))

    def _pairs(
        self, table: str, rows: Iterable[tuple[Any, Any]], decode: Callable[[Any], T]
    ) -> Iterator[tuple[Any, T]]:
        """The rows' keys and decoded bodies; a row that can't be decoded is left out, and said."""
        for key, body in rows:
            try:
                yield key, decode(body)
            except (ValueError, TypeError) as error:
                if (table, key) in self.left_out:
                    continue
                if len(self.left_out) < MAX_LEFT_OUT:
                    self.left_out.add((table, key))
                _log.error(
                    "%s: row %s of table %s can't be read (%s). It was left out, and stays in the "
                    "file",
                    self._path,
                    key,
                    table,
                    error,
                )

    def meta(self, name: str) -> int:
        """A kept number, 0 if there is none."""
        rows = self._db.execute("SELECT name, value FROM meta WHERE name = ?", (name,))
        found: dict[str, int] = dict(self._pairs("meta", rows, _number))
        return found.get(name, 0)

    def metas(self) -> dict[str, int]:
        """All kept numbers."""
        rows = self._db.execute("SELECT name, value FROM meta")
        return {str(name): value for name, value in self._pairs("meta", rows, _number)}

    def newest(self) -> tuple[int, int]:
        """The largest number of an execution, and the newest message that was dealt with.

        As any row tells it, where the cursor is lost.
        """
        (execution,) = self._db.execute("SELECT max(id) FROM executions").fetchone()
        (seq,) = self._db.execute(
            "SELECT max(seq) FROM answers WHERE typeof(seq) = 'integer' AND seq <= ?",
            (LARGEST_SEQ,),
        ).fetchone()
        newest: tuple[int, int] = (execution or 0, max(seq or 0, self.meta("rescued_seq")))
        return newest

    def open_records(self) -> list[Record]:
        """Everything that has not come to its end, oldest first."""
        rows = self._db.execute("SELECT id, record FROM executions WHERE open = 1 ORDER BY id")
        return [one for _, one in self._pairs("executions", rows, self._decode)]

    def records(self, before_id: int, limit: int, task_id: str = "") -> list[Record]:
        """Newest first, of one task if ``task_id`` is given."""
        condition = "id < ?"
        parameters: list[int | str] = [before_id]
        if task_id:
            condition += " AND task_id = ?"
            parameters.append(task_id)
        rows = self._db.execute(
            f"SELECT id, record FROM executions WHERE {condition} ORDER BY id DESC LIMIT ?",  # noqa: S608 - the condition is one of two constants
            [*parameters, limit],
        )
        return [one for _, one in self._pairs("executions", rows, self._decode)]

    def records_of(self, numbers: Sequence[int]) -> Iterator[Record]:
        """The executions with these numbers, as far as there are any."""
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._db.execute(
                f"SELECT id, record FROM executions WHERE id IN ({marks})",  # noqa: S608 - marks
                some,
            ).fetchall()
            yield from (one for _, one in self._pairs("executions", rows, self._decode))

    def newest_of(self, task_ids: Sequence[str]) -> Iterator[Record]:
        """The newest execution of each of these tasks, as far as there is one."""
        for start in range(0, len(task_ids), _AT_ONCE):
            some = task_ids[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._db.execute(
                f"SELECT max(id) FROM executions WHERE task_id IN ({marks}) GROUP BY task_id",  # noqa: S608 - marks
                some,
            ).fetchall()
            yield from self.records_of([row[0] for row in rows])

    def start_key(self, user: str, key: str) -> KeptKey | None:
        """What a user's ``Idempotency-Key`` led to, if it is known."""
        return start_keys.find(self._db, user, key)

    def answers(self, newest: int) -> list[Answer]:
        """The newest answers, oldest of them first."""
        rows = self._db.execute(
            "SELECT rowid, seq, execution, label, at_ns, state FROM answers"
            " ORDER BY rowid DESC LIMIT ?",
            (newest,),
        ).fetchall()
        pairs = ((row[0], row[1:]) for row in reversed(rows))
        return [one for _, one in self._pairs("answers", pairs, _answer)]

    def sightings(self) -> Iterator[tuple[bytes, int]]:
        """Digests of messages that were acted on, oldest first."""
        rows = self._db.execute("SELECT digest, at_ns FROM sightings ORDER BY at_ns")
        pairs = ((str(row[0]), row) for row in rows)
        return (one for _, one in self._pairs("sightings", pairs, _sighting))

    def histories(self) -> dict[str, TaskHistory]:
        decode = msgspec.msgpack.Decoder(TaskHistory).decode
        rows = self._db.execute("SELECT task_id, history FROM histories")
        return {str(key): one for key, one in self._pairs("histories", rows, decode)}

    def outbox(self) -> list[tuple[int, Publication]]:
        """What was not published yet, oldest first."""
        decode = msgspec.msgpack.Decoder(Publication).decode
        rows = self._db.execute("SELECT id, publication FROM outbox ORDER BY id")
        return [(int(key), one) for key, one in self._pairs("outbox", rows, decode)]

    def prune(
        self, before_ns: int, keep_count: int, sighted_before_ns: int, keys_before_ns: int = 0
    ) -> int:
        """Remove what is old or beyond ``keep_count``; returns how many executions went.

        What has not come to its end stays, however old it is.
        """
        database = self._db
        with transaction(database):
            removed = database.execute(
                "DELETE FROM executions WHERE open = 0 AND (at_ns < ? OR id <= "
                "(SELECT id FROM executions ORDER BY id DESC LIMIT 1 OFFSET ?))",
                (before_ns, keep_count),
            ).rowcount
            database.execute(
                "DELETE FROM answers WHERE at_ns < ? OR rowid <= "
                "(SELECT rowid FROM answers ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
                (before_ns, keep_count),
            )
            database.execute("DELETE FROM sightings WHERE at_ns < ?", (sighted_before_ns,))
            start_keys.prune(database, keys_before_ns)
        return removed
