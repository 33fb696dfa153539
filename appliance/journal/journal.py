"""The journal as the rest of the appliance sees it.

Every accepted message goes in through ``append`` and is reported through ``on_commit`` once it is
safe; followers read it back in order. Other modules may keep tables of their own in the same
database (``define``, ``transact``, ``query``) and so share the group commit and its order.
Not for: how it is stored (store.py, chunks.py), written (writer.py), read (reading.py) or deleted
(retention.py).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from appliance import tuning
from appliance.counters import Counter
from appliance.engine_api import Health, JournalState
from appliance.errors import UnavailableError
from appliance.journal.condition import Condition, OnHealth
from appliance.journal.follower import MAX_BYTES, Follower, Interest
from appliance.journal.inbox import Entry, Inbox, Statement
from appliance.journal.numbering import Found
from appliance.journal.reading import Reading
from appliance.journal.retention import OVERRUN, Retention
from appliance.journal.sequence_reservation import SequenceReservation
from appliance.journal.store import Store
from appliance.journal.tail import Tail
from appliance.journal.writer import Writer
from appliance.model import Message
from appliance.storage.layout import Tables

OnCommit = Callable[[Sequence[Message], Sequence[Entry]], None]
OnWritten = Callable[[Sequence[Message], set[str], Sequence[Entry], int], None]
OnRefused = Callable[[object, Exception], None]
OnLoss = Callable[[str], None]

MAX_LAG = 2_000_000
"""Messages that a follower may lag behind out of politeness, where the journal has room."""
SMALL_BYTES = 256
"""On the disk, at least assumed for a message: its size is only looked at once a second."""

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
        clock_ns: present time, for the name of a file that is set aside.
        age_clock_ns: the time by which messages grow old; by default the same.
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
        age_clock_ns: Callable[[], int] | None = None,
        housekeeping_s: float = 1.0,
    ) -> None:
        self._path = path
        self._clock_ns = clock_ns
        self._age_clock_ns = age_clock_ns or clock_ns
        self._store = Store(path, sync)
        self._reading = Reading(self._store, self._damaged)
        self._reservation = SequenceReservation(path.with_name(f"{path.name}.high"))
        self._inbox = Inbox()
        self._writer = Writer(self._store, self._inbox, self._reservation, self, housekeeping_s)
        self._retention = Retention(keep_s, max_bytes)
        self.keeps_unread = False
        """Whether messages that a follower has not read stay, however big the journal is. Set by
        any thread."""
        self._condition = Condition(path, max_bytes)
        self._followers: tuple[Follower, ...] = ()
        """Replaced under the lock, so that it is read without it."""
        self._followers_lock = threading.Lock()
        self._tail = Tail(0)
        self._seq = 0
        self._first_seq = 0
        self._last_seq = 0
        self._on_commit: OnCommit = _ignore
        self._on_refused: OnRefused | None = None
        self._on_loss: OnLoss = _forget
        self._unreadable_messages = 0
        self._unreadable_rows = 0

        self.on_written: OnWritten | None = None
        """Called in the writer's thread with the messages of a commit, their topics, its entries
        and the bytes of its content. It must be quick, and not fail."""
        self.extend: Callable[[Sequence[Message], int, object], None] = self._inbox.extend
        """``extend(messages, content_size, token)``: hand over messages of one client that are
        stored or refused as one, and the bytes of their payloads. Engine's thread only; never
        waits. Each ``seq`` is from ``next_seq``, in order. The token comes back through
        ``on_commit``."""
        self.append: Callable[[Message, object], None] = self._inbox.append
        """``append(message, token)``: ``extend`` with one message."""
        self.transact: Callable[[Sequence[Statement], object], None] = self._inbox.transact
        """``transact(statements, token)``: rows of tables from ``define``, in the same order and
        the same group commit as messages; all of them or none. Engine's thread only."""
        self.extend_with: Callable[[Sequence[Message], Sequence[Statement], int, object], None] = (
            self._inbox.extend_with
        )
        """``extend_with(messages, statements, content_size, token)``: both are committed together,
        so that no crash leaves one without the other. Engine's thread only."""

    # --- life ----------------------------------------------------------------------------------

    def define(self, tables: Tables) -> None:
        """Add another module's tables. Before ``start``."""
        self._store.database.add_tables(tables)

    def start(
        self,
        on_commit: OnCommit,
        on_health: OnHealth | None = None,
        *,
        on_refused: OnRefused | None = None,
        on_loss: OnLoss | None = None,
        minimum_seq: int = 0,
    ) -> None:
        """Open the database and begin to commit.

        Args:
            on_commit: called in the writer's thread after each group commit, with its messages
                and its (messages, token) pairs, both in order; the pairs of ``transact`` have no
                messages. Commits come in order too.
            on_health: called with (level, text) in the writer's thread when the health changes.
            on_refused: called with (token, error) for an entry that can't be stored although the
                disk does (wrong SQL, text with half a surrogate pair). It is not in the journal.
            on_loss: called with a sentence for each loss that this start finds, before anything
                new is written, and for each damaged chunk that is met later, in the thread that
                reads it.
            minimum_seq: the highest cursor that is kept outside this database: sequence
                numbers continue above it, even if the database came from a backup or lost its
                last commits in a power cut.

        Raises:
            ConfigError: the file is of a newer appliance or of another program.
            UnavailableError: the database can't be opened or written.
        """
        self._on_commit = on_commit
        self._condition.on_health = on_health
        self._on_refused = on_refused
        lost = self._on_loss = on_loss or self._on_loss
        connection = self._store.open(
            self._clock_ns(), reached=minimum_seq, reserved=self._reservation.limit
        )
        try:
            for text in self._store.database.losses:
                lost(text)
            self._first_seq, last = self._reading.bounds()
            found = Found(
                last,
                minimum_seq,
                self._reservation.limit,
                is_new=self._store.database.is_new,
                was_damaged=bool(self._store.database.losses),
            )
            if found.text:
                _log.error("%s", found.text)
                lost(found.text)
            self._seq = self._last_seq = found.next_after
            if found.next_after > last:
                # Later starts find the end here: what is missing below it is said once.
                self._store.mark_end(connection, found.next_after, self._clock_ns())
            self._reservation.reserve(self._seq + 1)
            self._condition.look_at_disk(connection)
        except (OSError, sqlite3.Error) as error:
            connection.close()
            raise UnavailableError(
                f"The journal {self._path} can't be written: {error}. Correct that and start again."
            ) from error
        self._tail = Tail(self._seq)
        self._condition.judge()
        self._writer.start(connection)

    def bound(self, keep_s: float, max_bytes: int) -> None:
        """Let other bounds of what is kept count, from the next look of retention on."""
        self._retention.bound(keep_s, max_bytes)
        self._condition.max_bytes = max_bytes

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
        for follower in self._followers:
            follower.wake()
        self._store.close()
        self._condition.health = Health("off", "closed")
        return complete

    # --- the engine's thread ---------------------------------------------------------------------

    def next_seq(self) -> int:
        """Allocate the next sequence number (engine's thread only)."""
        self._seq += 1
        return self._seq

    def newest_seq(self) -> int:
        """The sequence number allocated last (engine's thread only)."""
        return self._seq

    def number_to(self, seq: int) -> None:
        """Allocate all sequence numbers up to this one (engine's thread only)."""
        self._seq = seq

    # --- any thread ------------------------------------------------------------------------------

    @property
    def pending_bytes(self) -> int:
        """Bytes accepted and not committed yet, for back-pressure."""
        return self._inbox.bytes

    @property
    def is_overfull(self) -> bool:
        """Whether it is so big that it deletes what was not read, unless ``keeps_unread``."""
        return self._condition.size_bytes > self._condition.max_bytes * OVERRUN

    def lost_threads(self) -> tuple[str, ...]:
        """Threads that have ended by a defect: without them nothing is accepted until a restart."""
        return ("journal-writer",) if self._writer.is_lost else ()

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest committed message."""
        return self._last_seq

    @property
    def is_crowded(self) -> bool:
        """Whether so much comes in that messages gather by the hundred for each commit."""
        return self._inbox.count > 0 and self._writer.gathered >= tuning.CROWD

    def may_lag(self, position: int) -> bool:
        """Whether a follower at ``position`` may take its time: retention is far from there."""
        unread = self._last_seq - position
        held = max(1, self._last_seq - self._first_seq)
        size = max(SMALL_BYTES, self._condition.size_bytes // held)
        return unread < MAX_LAG and unread * size < self._condition.max_bytes // 4

    @property
    def removed_to(self) -> int:
        """Last sequence number that was deleted although a follower needed it."""
        return self._condition.removed_to

    @property
    def set_aside(self) -> Path | None:
        """Where this start moved a damaged database, if it had to."""
        return self._store.database.set_aside

    @property
    def reading(self) -> Reading:
        """What reads the database itself, for searches (search.py) and their index."""
        return self._reading

    @property
    def first_seq(self) -> int:
        """About the oldest message that is kept; 0 if there was never one."""
        return self._first_seq

    def recent(
        self, after_seq: int, limit: int, max_bytes: int = MAX_BYTES
    ) -> list[Message] | None:
        """As ``read``, if all of it is in memory; ``None`` if it has to come from the disk."""
        return self._tail.read(after_seq, limit, max_bytes)

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read rows of tables from ``define``: what is committed, nothing else.

        Raises:
            UnavailableError: the journal is closed.
            sqlite3.Error: the disk or the SQL is at fault.
        """
        return self._reading.query(sql, params)

    def read(self, after_seq: int, limit: int, max_bytes: int = MAX_BYTES) -> list[Message]:
        """Committed messages after ``after_seq``, oldest first, within both bounds.

        From memory if all of it is there. A message that is bigger than ``max_bytes`` comes alone.
        Raises like ``query``.
        """
        found = self._tail.read(after_seq, limit, max_bytes)
        return self._reading.read(after_seq, limit, max_bytes) if found is None else found

    def get(self, seq: int) -> Message | None:
        """One message; ``None`` if there is none (deleted by retention, or not yet committed)."""
        found = self.read(seq - 1, 1)
        return found[0] if found and found[0].seq == seq else None

    def seq_at(self, time_ns: int) -> int:
        """Sequence number of the first message that was received at or after a time.

        One more than the newest message's if there is none. Received times grow with sequence
        numbers unless the clock is set back; then one of the candidates is returned.
        Raises like ``query``.
        """
        high = self._last_seq + 1
        low = self._reading.bounds()[0] or high
        while low < high:
            middle = (low + high) // 2
            found = self.read(middle - 1, 1)
            if found and found[0].seq < high and found[0].received_ns < time_ns:
                low = found[0].seq + 1
            else:
                high = middle
        return low

    def back_from(self, before_seq: int) -> Iterator[list[Message]]:
        """Committed messages before a sequence number, chunk by chunk, the newest first.

        Nothing is locked between two chunks. Raises like ``query``.
        """
        while chunk := self._reading.chunk_before(before_seq):
            yield chunk[::-1]
            before_seq = chunk[0].seq

    def follower(
        self, name: str, after_seq: int | None = None, *, interest: Interest | None = None
    ) -> Follower:
        """Open a follower behind ``after_seq``; ``None``: it gets what comes from now on.

        With an ``interest`` it gets every message all the same, but is not woken for each.
        Until it is closed, retention keeps what it has not said to be done with. Open it before
        the first message is appended, or at the latest before the next look of retention.
        """
        start = self._last_seq if after_seq is None else after_seq
        follower = Follower(name, start, self, self._leave, interest)
        with self._followers_lock:
            self._followers = (*self._followers, follower)
        return follower

    def _damaged(self, first: int, last: int, text: str) -> None:
        """A reader has met damaged messages."""
        self._unreadable_messages += last - first + 1
        self._store.database.note_damage()
        self._on_loss(text)

    def unreadable(self, what: str, error: Exception, _row: tuple[object, ...] = ()) -> None:
        """A row of a table from ``define`` can't be read and is left out. At the start.

        Args:
            what: the row, as the subject of a sentence: ``"The session of client x"``.
            error: why.
        """
        self._unreadable_rows += 1
        text = f"{what} in {self._path} is damaged and was left out"
        _log.error("%s: %s", text, error)
        self._on_loss(f"{text}.")

    def _leave(self, follower: Follower) -> None:
        with self._followers_lock:
            self._followers = tuple(other for other in self._followers if other is not follower)

    def stats(self) -> JournalState:
        """The journal's state; cheap (the disk is looked at once a second, elsewhere)."""
        durations = sorted(self._writer.durations_s)
        return JournalState(
            health=self._condition.health,
            last_seq=self._last_seq,
            first_seq=self._first_seq,
            pending=self._inbox.count,
            commits=self._writer.commits,
            commit_ms=durations[len(durations) // 2] * 1000 if durations else 0.0,
            size_bytes=self._condition.size_bytes,
            disk_free_bytes=self._condition.free_bytes,
        )

    def counters(self) -> dict[Counter, int]:
        """How often a bound was reached or an attempt repeated."""
        return {
            Counter.JOURNAL_COMMIT_RETRIES: self._writer.retries,
            Counter.JOURNAL_FORCED_REMOVALS: self._condition.forced_removals,
            Counter.JOURNAL_MESSAGES_UNREADABLE: self._unreadable_messages,
            Counter.JOURNAL_ROWS_UNREADABLE: self._unreadable_rows,
        }

    # --- the writer's thread (writer.Owner) ------------------------------------------------------

    def committed(
        self, messages: Sequence[Message], content_size: int, entries: Sequence[Entry]
    ) -> None:
        """A group commit is safe."""
        if messages:
            self._tail.extend(messages, content_size)
            self._last_seq = messages[-1].seq
            assert self._last_seq <= min(self._seq, self._reservation.limit), self._last_seq
            if not self._first_seq:
                self._first_seq = messages[0].seq
            followers, on_written = self._followers, self.on_written
            if followers or on_written is not None:
                topics = {message.topic for message in messages}
                for follower in followers:
                    follower.notify(self._last_seq, topics)
                if on_written is not None:
                    on_written(messages, topics, entries, content_size)
        try:
            self._on_commit(messages, entries)
        except Exception:  # noqa: BLE001  # a bug in the caller must not end the journal
            _log.exception("What follows a commit failed")

    def refused(self, entry: Entry, error: Exception) -> None:
        """An entry can't be stored and was left out."""
        _log.error("The journal refused an entry that can't be stored: %s", error)
        if self._on_refused is not None:
            self._on_refused(entry[1], error)

    def failing(self, text: str | None) -> None:
        """The disk refuses (or works again)."""
        self._condition.failing(text)

    def idle(self, connection: sqlite3.Connection) -> bool:
        """Housekeeping between two commits; returns whether retention has more to do."""
        self._condition.look_at_disk(connection)
        followers = self._followers
        needed_after = min((f.advanced for f in followers), default=self._last_seq)
        step = self._retention.step(
            connection, self._age_clock_ns(), needed_after, keeps_unread=self.keeps_unread
        )
        if step.removed_to:
            self._tail.forget(step.removed_to)
            self._reading.forget()
            self._first_seq = self._reading.bounds()[0]
        self._condition.after_retention(step, followers, self._last_seq)
        return step.more


def _forget(_text: str) -> None:
    """Without an operator to tell, the log has it."""


def _ignore(messages: Sequence[Message], entries: Sequence[Entry]) -> None:
    """Before ``start`` there is nothing to report."""
