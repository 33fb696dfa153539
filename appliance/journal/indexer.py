"""Fills the index of the journal, behind the writer, in a thread of its own.

It looks at the journal a few times a second, so it costs the writer nothing; it holds back neither
the writer nor retention: what is deleted before it was read is left out. Segments are written a
second after they are full, and a start reads again what was not. An index that is missing, damaged,
of another version or of another journal is made anew. Not for: what the index holds (index.py).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from appliance.counters import Counter
from appliance.errors import ApplianceError, UnavailableError
from appliance.journal import index
from appliance.journal.inbox import Entry
from appliance.journal.index import IndexReader, Row, Segment, Table
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.storage import files
from appliance.storage.sqlite import beside, explain, is_damage, transaction

SEGMENT_MESSAGES = 1000
SEGMENT_BYTES = 8 * 1024 * 1024
"""A segment ends at about so many messages or bytes, whichever comes first."""

_BUSY_S = 0.05
_IDLE_S = 0.2
"""Pause before the next look, if the last one found much or little."""
_MUCH = 1000
_BETWEEN_READS_S = (0.002, 0.01)
"""Pause between two reads from the disk, usually and while clients publish much: an index of ten
million messages is made in half a minute, and the engine has the interpreter meanwhile."""
_READ_BYTES = 1024 * 1024
_MOST_FED = 10_000
_MOST_FED_BYTES = 16 * 1024 * 1024
"""Commits, and their content, that are noted until the thread takes them in; it reads others."""
_WRITE_EVERY_S = 1.0
_WRITE_AT = 200
"""Segments that are written at once at most."""
_AFTER_FAILURE_S = 10.0
_SPARSE = 0.1
"""Part of the segments that retention has to remove before names without a segment are removed."""
_MAGIC = b"SQLite format 3\0"
_APPLICATION = slice(68, 72)
"""https://www.sqlite.org/fileformat.html#application_id"""

_log = logging.getLogger(__name__)


class _Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the index needs of a message; the other fields are left as they are."""

    seq: int
    received_ns: int
    topic: str
    payload: msgspec.Raw
    qos: int = 0
    retain: bool = False
    dup: bool = False
    client_id: str = ""


_decode = msgspec.msgpack.Decoder(list[_Head]).decode


class _Read(Protocol):
    @property
    def seq(self) -> int: ...
    @property
    def received_ns(self) -> int: ...
    @property
    def topic(self) -> str: ...
    @property
    def client_id(self) -> str: ...


class _Names:
    """The numbers of the topics, or of the clients."""

    def __init__(self, table: Table, connection: sqlite3.Connection) -> None:
        self._table = table
        rows = connection.execute(f"SELECT name, id FROM {table}")  # noqa: S608 - a constant
        self._numbers: dict[str, int] = dict(rows.fetchall())
        self._bytes = sum(map(len, self._numbers))
        self._next = max(self._numbers.values(), default=0) + 1
        self._new: list[tuple[int, str]] = []
        self.made = 0
        """How often a name got a made number, counted once a segment."""

    @property
    def is_nearly_full(self) -> bool:
        return (
            len(self._numbers) > index.MOST_NAMES * 3 // 4
            or self._bytes > index.MOST_NAME_BYTES * 3 // 4
        )

    def numbers_of(self, names: set[str]) -> frozenset[int]:
        """The numbers of names, new ones for new names."""
        known = self._numbers
        found = []
        for name in names:
            number = known.get(name)
            found.append(self._add(name) if number is None else number)
        return frozenset(found)

    def _add(self, name: str) -> int:
        if (
            len(self._numbers) >= index.MOST_NAMES
            or self._bytes + len(name) > index.MOST_NAME_BYTES
        ):
            self.made += 1
            return index.made_number(name)
        number, self._next = self._next, self._next + 1
        self._numbers[name] = number
        self._bytes += len(name)
        self._new.append((number, name))
        return number

    def write(self, connection: sqlite3.Connection) -> None:
        connection.executemany(f"INSERT INTO {self._table} VALUES (?, ?)", self._new)  # noqa: S608 - a constant

    def written(self) -> None:
        self._new = []

    def keep(self, used: set[int], connection: sqlite3.Connection) -> None:
        """Forget the names whose numbers are not used."""
        gone = [name for name, number in self._numbers.items() if number not in used]
        rows = [(self._numbers.pop(name),) for name in gone]
        self._bytes -= sum(map(len, gone))
        connection.executemany(f"DELETE FROM {self._table} WHERE id = ?", rows)  # noqa: S608 - a constant


class _Commit(msgspec.Struct, frozen=True):
    """What the index needs of a commit, made without a look at each message."""

    first_seq: int
    last_seq: int
    last_ns: int
    earliest_ns: int
    latest_ns: int
    topics: set[str]
    clients: set[str]
    size: int
    """Bytes of its content."""


def _commit(
    messages: Sequence[Message], topics: set[str], entries: Sequence[Entry], size: int
) -> _Commit:
    """The messages of an entry are of one client, which sent them in one go."""
    clients: set[str] = set()
    times: list[int] = []
    for part, _ in entries:
        if part:
            begin, end = part[0], part[-1]
            clients.add(begin.client_id)
            times.append(begin.received_ns)
            if end is not begin:
                times.append(end.received_ns)
    last = messages[-1]
    return _Commit(
        messages[0].seq, last.seq, last.received_ns, min(times), max(times), topics, clients, size
    )


class _Open:
    """The segment that is not full yet."""

    def __init__(self) -> None:
        self.count = self.bytes = self.last_seq = self.last_ns = 0
        self.earliest_ns, self.latest_ns = 2**63 - 1, -(2**63)
        self.topics: set[str] = set()
        self.clients: set[str] = set()

    def add(self, messages: Sequence[_Read]) -> None:
        self.count += len(messages)
        last = messages[-1]
        self.last_seq, self.last_ns = last.seq, last.received_ns
        # Every message passes here: comprehensions are the fastest way, and sorting what is nearly
        # sorted takes half the time of ``min`` and ``max``.
        times = [one.received_ns for one in messages]
        times.sort()
        self.earliest_ns = min(self.earliest_ns, times[0])
        self.latest_ns = max(self.latest_ns, times[-1])
        self.topics |= {one.topic for one in messages}
        self.clients |= {one.client_id for one in messages}

    def add_commit(self, commit: _Commit) -> None:
        self.count += commit.last_seq - commit.first_seq + 1
        self.last_seq, self.last_ns = commit.last_seq, commit.last_ns
        self.earliest_ns = min(self.earliest_ns, commit.earliest_ns)
        self.latest_ns = max(self.latest_ns, commit.latest_ns)
        self.topics |= commit.topics
        self.clients |= commit.clients


class Indexer:
    """The thread. ``start`` once, behind the journal's start; ``stop`` once, before its end."""

    def __init__(
        self,
        journal: Journal,
        path: Path,
        *,
        segment_messages: int = SEGMENT_MESSAGES,
        write_every_s: float = _WRITE_EVERY_S,
    ) -> None:
        """Prepare the index of a journal.

        Args:
            journal: the journal, which is started before the thread is.
            path: the index's database.
            segment_messages: messages of a segment.
            write_every_s: how long, in seconds, a full segment may wait to be written.
        """
        self._segment_messages = segment_messages
        self._write_every_s = write_every_s
        self._journal = journal
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._topics: _Names
        self._clients: _Names
        self._open = _Open()
        self._full: list[Row] = []
        """Segments that are not written yet."""
        self._position = 0
        """Up to this number everything is in a segment, or in the open one."""
        self._covered = 0
        """Up to this number there are full segments; numbers that were never used are in one."""
        self._cut_to = 0
        self._written_at = 0.0
        self._removed = 0
        self._made = 0
        self._rebuilds = 0
        self._failure = ""
        self._doubted = self._is_begun = False
        self._fed: deque[_Commit] = deque()
        """Commits that are not in a segment yet, so that their messages need not be read."""
        self._fed_in = self._fed_out = 0
        self._settled = threading.Condition()
        self._reached = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-index", daemon=True)

    def start(self) -> None:
        self._journal.on_written = self._written
        self._thread.start()

    def _written(
        self, messages: Sequence[Message], topics: set[str], entries: Sequence[Entry], size: int
    ) -> None:
        """In the writer's thread: note a commit, unless too much waits already."""
        if self._fed_in - self._fed_out < _MOST_FED_BYTES and len(self._fed) < _MOST_FED:
            self._fed_in += size
            self._fed.append(_commit(messages, topics, entries, size))

    def stop(self, timeout_s: float) -> None:
        """End the thread. What it has not written is read again by the next start."""
        self._journal.on_written = None
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def reader(self) -> IndexReader | None:
        """Open the index for a search; ``None`` if there is none that can be trusted now."""
        if self._connection is None or self._doubted:
            return None
        try:
            return IndexReader(self._path)
        except (OSError, sqlite3.Error):
            return None

    def doubt(self) -> None:
        """A search has met damage: the index is made anew."""
        self._doubted = True

    def wait_for(self, seq: int, timeout_s: float) -> bool:
        """Wait until everything up to a number is in written segments or in the open one."""
        with self._settled:
            return self._settled.wait_for(lambda: self._reached >= seq, timeout_s)

    def counters(self) -> dict[Counter, int]:
        return {
            Counter.JOURNAL_INDEX_REBUILDS: self._rebuilds,
            Counter.JOURNAL_INDEX_NAMES_SHARED: self._made,
        }

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                pause_s = self.look()
                self._stopping.wait(pause_s)
            if self._full and self._connection is not None:
                self._write()
        except (OSError, sqlite3.Error) as error:
            _log.info("The index of the journal was not written at the end: %s", explain(error))
        except Exception:  # noqa: BLE001 - searches go on without what it would have added
            _log.exception("The index of the journal is not filled any more")
        finally:
            self._close()

    def look(self) -> float:
        """Take in what is new, as the thread does again and again; returns its pause in seconds."""
        try:
            if not self._is_begun:
                # One that was rescued may have what could not be read before.
                self._doubted, self._is_begun = self._journal.set_aside is not None, True
            if self._connection is not None and (self._doubted or self._has_vanished()):
                self._close()
            if self._connection is None:
                self._begin()
            count = self._follow()
        except UnavailableError:  # the journal is closed
            return _IDLE_S
        except (ApplianceError, OSError, sqlite3.Error) as error:
            return self._failed(error)
        if self._failure:
            _log.info("The index of the journal %s can be written again", self._path)
            self._failure = ""
        return _BUSY_S if count >= _MUCH else _IDLE_S

    def _failed(self, error: ApplianceError | OSError | sqlite3.Error) -> float:
        text = str(error) if isinstance(error, ApplianceError) else explain(error)
        if text != self._failure:
            _log.warning(
                "The index of the journal %s can't be written: %s. Searches take longer, nothing"
                " is lost",
                self._path,
                text,
            )
            self._failure = text
        if isinstance(error, sqlite3.Error) and is_damage(error):
            self._doubted = True
        self._close()
        return _AFTER_FAILURE_S

    # --- opening -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Open the index, or make it anew."""
        journal = self._journal
        path = self._path
        connection = None if self._doubted else self._opened()
        if connection is None:
            existed = self._remove()
            if existed:
                self._rebuilds += 1
                _log.info("The index of the journal %s is made anew", path)
            connection = index.database(path).open(0)
        try:
            self._topics = _Names("topic", connection)
            self._clients = _Names("client", connection)
            rows = connection.execute("SELECT max(last_seq) FROM segment").fetchall()
            self._file = _identity(path)
        except BaseException:
            connection.close()
            raise
        self._open, self._full = _Open(), []
        self._position = self._covered = max(rows[0][0] or 0, journal.first_seq - 1)
        self._doubted = False
        self._connection = connection

    def _opened(self) -> sqlite3.Connection | None:
        """The index that is there, if it is whole and of this journal."""
        path = self._path
        try:
            database = index.database(path)
            if not database.check_identity():
                return None
            connection = database.connect()
        except (ApplianceError, OSError, sqlite3.Error, ValueError):
            return None
        try:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict == "ok" and self._is_of_journal(connection):
                return connection
        except (sqlite3.Error, ValueError):
            pass
        connection.close()
        return None

    def _is_of_journal(self, connection: sqlite3.Connection) -> bool:
        newest = index.newest(connection)
        return newest is None or index.is_known(newest, self._journal.reading)

    def _remove(self) -> bool:
        """Remove an index that can't be used; whether there was one.

        Raises:
            UnavailableError: the file is no index.
            OSError: it can't be removed.
        """
        path = self._path
        if not path.exists():
            return False
        if path.is_dir():
            raise UnavailableError(f"{path} is a folder; move it away")
        with path.open("rb") as file:
            header = file.read(100)
        application = int.from_bytes(header[_APPLICATION], "big")
        if header.startswith(_MAGIC) and application not in (0, index.LAYOUT.application_id):
            raise UnavailableError(f"{path} is a database of another program; move it away")
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                files.remove(beside(path, suffix))
        return True

    def _has_vanished(self) -> bool:
        try:
            return _identity(self._path) != self._file
        except OSError:
            return True

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # --- following -----------------------------------------------------------------------------

    def _follow(self) -> int:
        """Take in what is new; returns how many messages that were."""
        journal = self._journal
        last = journal.last_seq
        count = self._take_fed()
        while self._position < last and not self._stopping.is_set():
            if self._position + 1 < journal.first_seq:  # deleted before it was read
                self._end_segment()
                self._position = self._covered = journal.first_seq - 1
                continue
            count += self._take(last)
            if len(self._full) >= _WRITE_AT:
                self._write()
        now = time.monotonic()
        if (self._full or self._is_cut_due()) and now - self._written_at >= self._write_every_s:
            self._write()
        with self._settled:
            self._reached = last
            self._settled.notify_all()
        return count

    def _take_fed(self) -> int:
        """Take in the commits that were noted; returns how many messages that were.

        What is missing before one of them is read from the journal.
        """
        count = 0
        for _ in range(len(self._fed)):
            commit = self._fed.popleft()
            self._fed_out += commit.size
            size = commit.last_seq - commit.first_seq + 1
            if commit.first_seq != self._position + 1 or size > self._segment_messages * 2:
                continue  # it is read from the journal, with what is missing before it
            self._open.add_commit(commit)
            self._open.bytes += commit.size
            self._position = commit.last_seq
            count += size
            if self._open.count >= self._segment_messages or self._open.bytes >= SEGMENT_BYTES:
                self._end_segment()
        return count

    def _take(self, last: int) -> int:
        """Take in the next messages up to ``last``; returns how many."""
        wanted = self._segment_messages - self._open.count
        recent = self._journal.recent(self._position, wanted, SEGMENT_BYTES)
        if recent is None:
            return self._take_from_disk(last)
        if not recent:
            self._position = last  # numbers that were never used
            return 0
        self._add(recent)
        if len(recent) < wanted and recent[-1].seq < last:  # they are big
            self._end_segment()
        return len(recent)

    def _take_from_disk(self, last: int) -> int:
        position = self._position
        heads: list[_Read] = []
        size = 0
        reading = self._journal.reading
        try:
            rows = reading.bodies(position + 1, last, back=False, max_bytes=_READ_BYTES)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            heads.extend(reading.chunk_after(position))  # behind the damage
            rows = []
        for first, end, body in rows:
            size += len(body)
            try:
                heads += _decode(body)
            except (ValueError, TypeError):
                heads += reading.decoded(first, end, body)  # reports the damage
        heads = [one for one in heads if position < one.seq <= last]
        if not heads:
            self._position = rows[-1][1] if rows and rows[-1][1] > position else last
            return 0
        self._open.bytes += size
        start = 0
        while start < len(heads):
            part = heads[start : start + self._segment_messages - self._open.count]
            start += len(part)
            self._add(part)
        if self._open.bytes >= SEGMENT_BYTES:
            self._end_segment()
        self._stopping.wait(_BETWEEN_READS_S[self._journal.is_crowded])
        return len(heads)

    def _add(self, messages: Sequence[_Read]) -> None:
        self._open.add(messages)
        self._position = messages[-1].seq
        if self._open.count >= self._segment_messages:
            self._end_segment()

    def _end_segment(self) -> None:
        done, self._open = self._open, _Open()
        if not done.count:
            return
        made = self._topics.made + self._clients.made
        self._full.append(
            Segment(
                self._covered + 1,
                done.last_seq,
                done.earliest_ns,
                done.latest_ns,
                done.last_ns,
                self._topics.numbers_of(done.topics),
                self._clients.numbers_of(done.clients),
            ).row()
        )
        self._covered = done.last_seq
        self._made += self._topics.made + self._clients.made - made

    # --- writing -------------------------------------------------------------------------------

    def _is_cut_due(self) -> bool:
        return self._journal.first_seq > self._cut_to

    def _write(self) -> None:
        connection = self._connection
        assert connection is not None
        first_seq = self._journal.first_seq
        with transaction(connection):
            for names in (self._topics, self._clients):
                names.write(connection)
            connection.executemany(
                "INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?, ?, ?, ?)",
                self._full,
            )
            cut = connection.execute(
                "DELETE FROM segment WHERE first_seq < ? AND last_seq < ?", (first_seq, first_seq)
            ).rowcount
        for names in (self._topics, self._clients):
            names.written()
        self._full = []
        self._written_at = time.monotonic()
        self._cut_to = first_seq
        self._removed += max(0, cut)
        if self._topics.is_nearly_full or self._clients.is_nearly_full:
            self._drop_unused(connection)

    def _drop_unused(self, connection: sqlite3.Connection) -> None:
        """Remove the names that only segments had which retention has removed."""
        (count,) = connection.execute("SELECT count(*) FROM segment").fetchone()
        if self._removed < max(1, count * _SPARSE):
            return
        self._removed = 0
        topics, clients = index.used_numbers(connection)
        with transaction(connection):
            self._topics.keep(topics, connection)
            self._clients.keep(clients, connection)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return (status.st_dev, status.st_ino)
