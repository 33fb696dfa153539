"""The journal as the rest of the appliance sees it.

Every accepted message goes in through ``append`` and is reported through ``on_commit`` once it is
safe; followers read it back in order. Other modules may keep tables of their own in the same
database (``define``, ``transact``, ``query``) and so share the group commit and its order.
Not for: how it is stored (store.py, chunks.py), written (writer.py) or deleted (retention.py).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

from appliance import files
from appliance.errors import UnavailableError
from appliance.journal.follower import MAX_BYTES, Follower
from appliance.journal.high_water import HighWater
from appliance.journal.inbox import Entry, Inbox, Statement
from appliance.journal.retention import OVERRUN, Retention, Step, used_bytes
from appliance.journal.store import Store
from appliance.journal.tail import Tail
from appliance.journal.writer import Writer
from appliance.model import Message
from appliance.state import Health, JournalState

OnCommit = Callable[[Sequence[Entry]], None]
OnHealth = Callable[[str, str], None]
OnRefused = Callable[[object, Exception], None]

LOW_SPACE_BYTES = 500 * 1000**2
"""Free space below which the journal warns, before the disk is full."""

_log = logging.getLogger(__name__)


class Journal:
    """Every accepted message, in order, durable.

    Args:
        path: the database file; ``-wal``, ``-shm`` and ``.high`` stand beside it.
        sync: ``"always"``: reported messages are on the disk (SQLite ``synchronous=FULL``, the
            write-ahead log is synced at every commit), they survive a power cut.
            ``"os"``: reported messages are with the operating system (``synchronous=NORMAL``);
            they survive ``kill -9`` and any crash of the appliance, but a power cut or a crash of
            the operating system may take the last seconds. The database stays whole either way.
        keep_s: messages older than this are deleted.
        max_bytes: the oldest messages beyond this size are deleted.
        clock_ns: present time, for retention.
        housekeeping_s: how often, in seconds, the disk is looked at and retention looks for
            something to do.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync: Literal["always", "os"],
        keep_s: float,
        max_bytes: int,
        clock_ns: Callable[[], int] = time.time_ns,
        housekeeping_s: float = 1.0,
    ) -> None:
        self.removed_to = 0
        """Last sequence number that retention deleted although a follower needed it."""
        self.forced_removals = 0
        """How many steps of retention had to do that."""
        self._path = path
        self._clock_ns = clock_ns
        self._store = Store(path, sync)
        self._high_water = HighWater(path.with_name(f"{path.name}.high"))
        self._inbox = Inbox()
        self._writer = Writer(self._store, self._inbox, self._high_water, self, housekeeping_s)
        self._retention = Retention(keep_s, max_bytes)
        self._max_bytes = max_bytes
        self._followers: list[Follower] = []
        self._followers_lock = threading.Lock()
        self._tail = Tail(0)
        self._seq = 0
        self._first_seq = 0
        self._last_seq = 0
        self._size = 0
        self._free = 0
        self._failing: str | None = None
        self._concern: Health | None = None
        self._health = Health("off", "not started")
        self._on_commit: OnCommit = _ignore
        self._on_health: OnHealth | None = None
        self._on_refused: OnRefused | None = None

        self.append: Callable[[Message, object], None] = self._inbox.append
        """``append(message, token)``: hand over a message. Engine's thread only; never waits.
        ``message.seq`` is from ``next_seq``. The token comes back through ``on_commit``."""
        self.transact: Callable[[Sequence[Statement], object], None] = self._inbox.transact
        """``transact(statements, token)``: rows of tables from ``define``, in the same order and
        the same group commit as messages; all of them or none. Engine's thread only."""

    # --- life ----------------------------------------------------------------------------------

    def define(self, schema_sql: str) -> None:
        """Add another module's tables (``CREATE TABLE IF NOT EXISTS ...;``). Before ``start``."""
        self._store.define(schema_sql)

    def start(
        self,
        on_commit: OnCommit,
        on_health: OnHealth | None = None,
        *,
        on_refused: OnRefused | None = None,
        minimum_seq: int = 0,
    ) -> None:
        """Open the database and begin to commit.

        Args:
            on_commit: called in the writer's thread after each group commit, with its
                (message or ``None``, token) pairs in order; commits come in order too.
            on_health: called with (level, text) in the writer's thread when the health changes.
            on_refused: called with (token, error) for an entry that can't be stored whatever the
                disk does (wrong SQL, text with half a surrogate pair). It is not in the journal.
            minimum_seq: the highest cursor that anybody keeps outside this database: sequence
                numbers continue above it, even if the database came from a backup or lost its
                last commits in a power cut.

        Raises:
            ConfigError: the file is of a newer appliance or of another program.
            UnavailableError: the database can't be opened or written.
        """
        self._on_commit = on_commit
        self._on_health = on_health
        self._on_refused = on_refused
        connection = self._store.open(self._clock_ns())
        try:
            self._first_seq, last = self._store.bounds()
            if self._store.is_new:
                last = max(last, self._high_water.limit)
            self._seq = self._last_seq = max(last, minimum_seq)
            self._high_water.cover(self._seq + 1)
            self._look_at_disk(connection)
        except (OSError, sqlite3.Error) as error:
            connection.close()
            raise UnavailableError(
                f"The journal {self._path} can't be written: {error}. Mend that and start again."
            ) from error
        self._tail = Tail(self._seq)
        self._update_health()
        self._writer.start(connection)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything appended so far is committed; false if the time ran out."""
        end = time.monotonic() + timeout_s
        while self._inbox.count:
            if time.monotonic() >= end:
                return False
            time.sleep(0.002)
        return True

    def close(self, timeout_s: float) -> bool:
        """Commit what waits, then stop. Followers and reads end.

        Returns whether everything was committed; what was not was never reported as committed.
        """
        complete = self._writer.stop(timeout_s)
        for follower in self._open_followers():
            follower.wake()
        self._store.close()
        self._health = Health("off", "closed")
        return complete

    # --- the engine's thread ---------------------------------------------------------------------

    def next_seq(self) -> int:
        """Allocate the next sequence number (engine's thread only)."""
        self._seq += 1
        return self._seq

    # --- any thread ------------------------------------------------------------------------------

    @property
    def pending_count(self) -> int:
        """Entries accepted and not committed yet."""
        return self._inbox.count

    @property
    def pending_bytes(self) -> int:
        """Bytes accepted and not committed yet, for back-pressure."""
        return self._inbox.bytes

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest committed message."""
        return self._last_seq

    @property
    def set_aside(self) -> Path | None:
        """Where this start moved a damaged database, if it had to."""
        return self._store.set_aside

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read rows of tables from ``define``: what is committed, nothing else.

        Raises:
            UnavailableError: the journal is closed.
            sqlite3.Error: the disk or the SQL is at fault.
        """
        return self._store.query(sql, params)

    def read(self, after_seq: int, limit: int, max_bytes: int = MAX_BYTES) -> list[Message]:
        """Committed messages after ``after_seq``, oldest first, within both bounds.

        A message that is bigger than ``max_bytes`` comes alone. Raises like ``query``.
        """
        return self.recent(after_seq, limit, max_bytes)

    def recent(self, after_seq: int, limit: int, max_bytes: int) -> list[Message]:
        """Like ``read``; from memory if all of it is there."""
        found = self._tail.read(after_seq, limit, max_bytes)
        return self._store.read(after_seq, limit, max_bytes) if found is None else found

    def get(self, seq: int) -> Message | None:
        """One message; ``None`` if there is none (deleted by retention, or not yet committed)."""
        found = self.recent(seq - 1, 1, MAX_BYTES)
        return found[0] if found and found[0].seq == seq else None

    def seq_at(self, time_ns: int) -> int:
        """Sequence number of the first message that was received at or after a time.

        One more than the newest message's if there is none. Received times grow with sequence
        numbers unless somebody sets the clock back; then one of the candidates is returned.
        Raises like ``query``.
        """
        high = self._last_seq + 1
        low = self._store.bounds()[0] or high
        while low < high:
            middle = (low + high) // 2
            found = self.recent(middle - 1, 1, MAX_BYTES)
            if found and found[0].seq < high and found[0].received_ns < time_ns:
                low = found[0].seq + 1
            else:
                high = middle
        return low

    def scan(
        self, *, after_seq: int = 0, before_seq: int | None = None, newest_first: bool = False
    ) -> Iterator[list[Message]]:
        """Committed messages between two sequence numbers, chunk by chunk, for search and export.

        Both bounds are exclusive. With ``newest_first``, chunks and messages come in reverse.
        Nothing is locked between two chunks. Raises like ``query``.
        """
        before = self._last_seq + 1 if before_seq is None else before_seq
        while True:
            if newest_first:
                chunk = self._store.chunk_before(before)
                chunk = [message for message in reversed(chunk) if message.seq > after_seq]
            else:
                chunk = self._store.chunk_after(after_seq)
                chunk = [message for message in chunk if message.seq < before]
            if not chunk:
                return
            yield chunk
            if newest_first:
                before = chunk[-1].seq
            else:
                after_seq = chunk[-1].seq

    def follower(self, name: str, after_seq: int | None = None) -> Follower:
        """Open a follower behind ``after_seq``; ``None``: it gets what comes from now on.

        Until it is closed, retention keeps what it has not said to be done with. Open it before
        the first message is appended, or at the latest before the next look of retention.
        """
        start = self._last_seq if after_seq is None else after_seq
        follower = Follower(name, start, self, self._leave)
        with self._followers_lock:
            self._followers.append(follower)
        return follower

    def _leave(self, follower: Follower) -> None:
        with self._followers_lock:
            if follower in self._followers:
                self._followers.remove(follower)

    def _open_followers(self) -> list[Follower]:
        with self._followers_lock:
            return list(self._followers)

    def stats(self) -> JournalState:
        """The journal's state; cheap (the disk is looked at once a second, elsewhere)."""
        durations = list(self._writer.durations_s)
        return JournalState(
            health=self._health,
            last_seq=self._last_seq,
            first_seq=self._first_seq,
            pending=self._inbox.count,
            commits=self._writer.commits,
            commit_ms=median(durations) * 1000 if durations else 0.0,
            size_bytes=self._size,
            disk_free_bytes=self._free,
        )

    def counters(self) -> tuple[tuple[str, int], ...]:
        """Every bound that bit and every repeated attempt: (name, how often)."""
        return (
            ("journal commit retries", self._writer.retries),
            ("journal forced removals", self.forced_removals),
        )

    # --- the writer's thread (writer.Owner) ------------------------------------------------------

    def committed(self, messages: Sequence[Message], entries: Sequence[Entry]) -> None:
        """A group commit is safe."""
        if messages:
            self._tail.extend(messages)
            self._last_seq = messages[-1].seq
            if not self._first_seq:
                self._first_seq = messages[0].seq
        try:
            self._on_commit(entries)
        except Exception:  # noqa: BLE001  # a bug in the caller must not end the journal
            _log.exception("What follows a commit failed")
        if messages:
            for follower in self._open_followers():
                follower.notify()

    def refused(self, entry: Entry, error: Exception) -> None:
        """An entry can't be stored and was left out."""
        _log.error("The journal refused an entry that can't be stored: %s", error)
        if self._on_refused is not None:
            self._on_refused(entry[1], error)

    def failing(self, text: str | None) -> None:
        """The disk refuses (or works again)."""
        if text == self._failing:
            return
        if text is None:
            _log.warning("The journal %s is written again", self._path)
        else:
            _log.error(
                "The journal %s can't be written: %s. Nothing is acknowledged until it can be;"
                " it is tried again by itself",
                self._path,
                text,
            )
        self._failing = text
        self._update_health()

    def idle(self, connection: sqlite3.Connection) -> bool:
        """Housekeeping between two commits; returns whether retention has more to do."""
        self._look_at_disk(connection)
        needed_after = min((f.advanced for f in self._open_followers()), default=self._last_seq)
        step = self._retention.step(connection, self._clock_ns(), needed_after)
        self._after_retention(step)
        self._update_health()
        return step.more

    def _after_retention(self, step: Step) -> None:
        if step.removed_to:
            self._tail.forget(step.removed_to)
            self._store.forget()
            self._first_seq = self._store.bounds()[0]
        if step.forced:
            self.removed_to = step.removed_to
            self.forced_removals += 1
        slowest = min(self._open_followers(), key=lambda f: f.advanced, default=None)
        behind = self._last_seq - slowest.advanced if slowest else 0
        if step.forced and slowest:
            self._concern = Health(
                "bad", f"too big: messages deleted that {slowest.name} needs ({behind} behind)"
            )
            _log.error(
                "The journal %s is more than %d %% of max_size: messages up to %d were deleted"
                " although %s had not read them. Find out why it is slow, or raise max_size in"
                " [journal]",
                self._path,
                OVERRUN * 100,
                step.removed_to,
                slowest.name,
            )
        elif slowest and slowest.advanced < self.removed_to:
            pass  # the loss stays visible until that follower has got over it
        elif step.held_back and slowest and self._size > self._max_bytes:
            self._concern = Health(
                "warn", f"bigger than max_size: {slowest.name} is {behind} behind"
            )
        elif not step.more:
            self._concern = None

    def _look_at_disk(self, connection: sqlite3.Connection) -> None:
        self._size = used_bytes(connection)
        try:
            self._free = files.free_bytes(self._path.parent)
        except OSError as error:
            _log.warning("Free space of %s can't be read: %s", self._path.parent, error.strerror)

    def _update_health(self) -> None:
        if self._failing is not None:
            health = Health("bad", self._failing)
        elif self._concern is not None:
            health = self._concern
        elif self._free < LOW_SPACE_BYTES:
            health = Health("warn", f"only {self._free // 1000**2} MB free on the disk")
        else:
            health = Health("ok")
        if health != self._health:
            self._health = health
            if self._on_health is not None:
                self._on_health(health.level, health.text)


def _ignore(entries: Sequence[Entry]) -> None:
    """Before ``start`` there is nothing to report."""
