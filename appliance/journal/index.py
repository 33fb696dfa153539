"""The index of the journal: which topics and clients are in which stretch of it, and when.

A database of its own, ``index.db``, that can be removed at any time: it is made anew from the
journal, and a search only takes longer meanwhile. A segment is about a thousand messages, and it
has the numbers of its topics and clients. Names are bounded: a name beyond the bound gets a number
made from its text, which another name may have as well, so that a search looks at some segments in
vain and never misses one. Not for: filling it (indexer.py), searching (search.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from appliance.errors import ConfigError
from appliance.journal.reading import Reading
from appliance.message_filter import MessageFilter, Name
from appliance.mqtt.topics import matches
from appliance.storage.database import Database
from appliance.storage.layout import Layout, Tables

FILE_NAME = "index.db"
MOST_NAMES = 50_000
"""Topics, and as many clients, that have a number of their own."""
MOST_NAME_BYTES = 8 * 1024 * 1024
"""Bytes of all topics, and as many of all clients, with numbers of their own."""
_SUM = 4
MADE = 1 << 31
"""Numbers from here on are made from the text."""

_BUSY_S = 0.25
_STEP_NS = 2 * 10**9
"""The times of messages that one client sent in one go are not looked at one by one."""
_PAGE = 2000
"""Segments that are read at a time."""
_TOGETHER = 64
"""Neighbouring segments that are one stretch."""

LAYOUT = Layout(
    title="The index of the journal",
    application_id=0x514D4958,  # "QMIX"
    loss="nothing, it is made anew",
    parts=(
        Tables(
            """
CREATE TABLE IF NOT EXISTS topic (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS client (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS segment (
    first_seq INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL,
    earliest_ns INTEGER NOT NULL,
    latest_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    topics BLOB NOT NULL,
    clients BLOB NOT NULL
);
"""
        ),
    ),
)
Table = Literal["topic", "client"]


def database(path: Path) -> Database:
    """The index in this file. A power cut may take its last segments, and they are made again."""
    return Database(path, LAYOUT, busy_s=_BUSY_S, check_below_bytes=0)


def made_number(name: str) -> int:
    """The number of a name that has none of its own."""
    return MADE | zlib.crc32(name.encode())


def _packed(numbers: Iterable[int], place: bytes) -> bytes:
    """Numbers ascending, 4 bytes each, then a check sum of them and of what they stand beside."""
    packed = array("I", sorted(numbers))
    if sys.byteorder == "big":
        packed.byteswap()
    body = packed.tobytes()
    return body + zlib.crc32(body, zlib.crc32(place)).to_bytes(_SUM, "little")


def _unpacked(body: bytes, place: bytes) -> array[int]:
    """The numbers of such a column.

    Raises:
        ValueError: the row is damaged.
    """
    numbers = body[:-_SUM]
    if zlib.crc32(numbers, zlib.crc32(place)).to_bytes(_SUM, "little") != body[-_SUM:]:
        raise ValueError("a segment of the index is damaged")
    packed = array("I")
    packed.frombytes(numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed


Row = tuple[int, int, int, int, int, bytes, bytes]
"""The columns of table ``segment``."""


class Segment(msgspec.Struct, frozen=True):
    """A stretch of the journal, as in table ``segment``."""

    first_seq: int
    last_seq: int
    earliest_ns: int
    latest_ns: int
    last_ns: int
    """When the message ``last_seq`` was received: by it the journal is known again."""
    topics: frozenset[int]
    clients: frozenset[int]

    def row(self) -> Row:
        """The columns."""
        heads = (self.first_seq, self.last_seq, self.earliest_ns, self.latest_ns, self.last_ns)
        place = repr(heads).encode()
        return (*heads, _packed(self.topics, place), _packed(self.clients, place))


_WITHIN = (
    "FROM segment WHERE first_seq <= ? AND first_seq >= coalesce("
    "(SELECT max(first_seq) FROM segment WHERE first_seq <= ?), 0) AND last_seq >= ?"
    " ORDER BY first_seq"
)


class _Wanted(msgspec.Struct, frozen=True):
    """The numbers of which a segment must have one."""

    numbers: frozenset[int]
    any_made: bool
    """Whether a made number may stand for a name that is wanted."""

    def may_be_in(self, numbers: array[int]) -> bool:
        if self.any_made and numbers and numbers[-1] >= MADE:
            return True
        return not self.numbers.isdisjoint(numbers)


def newest(connection: sqlite3.Connection) -> tuple[int, int] | None:
    """Number and time (ns) of the last message in an index; ``None`` if it is empty."""
    rows = connection.execute(
        "SELECT last_seq, last_ns FROM segment ORDER BY first_seq DESC LIMIT 1"
    ).fetchall()
    return (rows[0][0], rows[0][1]) if rows else None


def is_known(message: tuple[int, int], reading: Reading) -> bool:
    """Whether the journal has the message with this number and time: it may come from a backup.

    What an index and a journal have in common is the same from its beginning on, so the index's
    last message tells whether they belong together.
    """
    chunk = reading.chunk_after(message[0] - 1)
    return bool(chunk) and (chunk[0].seq, chunk[0].received_ns) == message


def used_numbers(connection: sqlite3.Connection) -> tuple[set[int], set[int]]:
    """The numbers of topics and of clients that segments have. Raises ``ValueError`` for damage."""
    topics: set[int] = set()
    clients: set[int] = set()
    for *heads, topic_numbers, client_numbers in connection.execute("SELECT * FROM segment"):
        place = repr(tuple(heads)).encode()
        topics.update(_unpacked(topic_numbers, place))
        clients.update(_unpacked(client_numbers, place))
    return topics, clients


class IndexReader:
    """Reads an index. One search at a time uses it.

    Every method raises ``sqlite3.Error`` or ``ValueError`` if the index can't be read: it is
    damaged, or was removed. Then search without it.
    """

    def __init__(self, path: Path) -> None:
        """Open the index.

        Raises:
            sqlite3.Error, OSError: there is none, or it can't be read.
        """
        if not path.exists():
            raise FileNotFoundError(path)
        self._connection = database(path).connect(may_write=False)
        self._wanted: tuple[object, _Wanted | None, _Wanted | None] = (None, None, None)

    def close(self) -> None:
        self._connection.close()

    def is_of(self, reading: Reading) -> bool:
        """Whether it is of this journal."""
        found = newest(self._connection)
        return found is None or is_known(found, reading)

    def stretches(
        self, asked: MessageFilter, first_seq: int, last_seq: int, *, back: bool
    ) -> Iterator[tuple[int, int, bool]]:
        """The parts of a range in their order: first and last number, and whether to look there.

        Args:
            asked: topics, clients and times are looked at.
            first_seq: the range begins here.
            last_seq: the range ends here.
            back: the newest part first.
        """
        low, high = first_seq, last_seq
        part: tuple[int, int, bool] | None = None
        together = 0
        while low <= high:
            page = self._page(asked, low, high, back=back)
            for begin, end, is_candidate in page:
                if part is not None and part[2] == is_candidate and together < _TOGETHER:
                    part = (min(part[0], begin), max(part[1], end), is_candidate)
                    together += 1
                    continue
                if part is not None:
                    yield part
                part, together = (begin, end, is_candidate), 1
            if back:
                high = page[-1][0] - 1
            else:
                low = page[-1][1] + 1
            if part is not None and not part[2]:
                yield part  # the caller hears of progress at each page
                part = None
        if part is not None:
            yield part

    def _page(
        self, asked: MessageFilter, low: int, high: int, *, back: bool
    ) -> list[tuple[int, int, bool]]:
        """The next parts of the range, without a gap; where the index has none, one has to look."""
        connection = self._connection
        since_ns = -(2**63) if asked.since_ns is None else _whole(asked.since_ns)
        until_ns = 2**63 - 1 if asked.until_ns is None else _whole(asked.until_ns)
        order = "DESC" if back else "ASC"
        connection.execute("BEGIN")  # the names are as new as the segments
        try:
            topics, clients = self._numbers(asked)
            rows = connection.execute(
                "SELECT first_seq, last_seq, earliest_ns, latest_ns, last_ns, topics,"
                f" {'NULL' if clients is None else 'clients'} {_WITHIN} {order} LIMIT {_PAGE}",
                (high, low, low),
            ).fetchall()
        finally:
            connection.execute("ROLLBACK")
        found: list[tuple[int, int, bool]] = []
        at = high if back else low
        for *heads, topic_numbers, client_numbers in rows:
            first, last, earliest_ns, latest_ns, _ = heads
            begin, end = max(first, low), min(last, high)
            if back and end < at:
                found.append((end + 1, at, True))
            elif not back and begin > at:
                found.append((at, begin - 1, True))
            place = repr(tuple(heads)).encode()
            present = _unpacked(topic_numbers, place)
            is_candidate = (
                latest_ns >= since_ns - _STEP_NS
                and earliest_ns < until_ns + _STEP_NS
                and (topics is None or topics.may_be_in(present))
                and (clients is None or clients.may_be_in(_unpacked(client_numbers, place)))
            )
            found.append((begin, end, is_candidate))
            at = begin - 1 if back else end + 1
        if len(rows) < _PAGE and (at >= low if back else at <= high):
            found.append((low, at, True) if back else (at, high, True))
        return found

    def _numbers(self, asked: MessageFilter) -> tuple[_Wanted | None, _Wanted | None]:
        """Of topics and of clients; ``None``: any will do."""
        state = (
            asked.topics,
            asked.clients,
            *(
                self._connection.execute(f"SELECT max(id), count(*) FROM {table}").fetchone()  # noqa: S608 - constants
                for table in ("topic", "client")
            ),
        )
        if self._wanted[0] != state:
            topics = None if not asked.topics or "#" in asked.topics else self._topics(asked.topics)
            clients = self._clients(asked.clients) if asked.clients else None
            self._wanted = (state, topics, clients)
        return self._wanted[1], self._wanted[2]

    def _topics(self, filters: tuple[str, ...]) -> _Wanted:
        numbers: set[int] = set()
        any_made = False
        for each in filters:
            fixed = _before_wildcard(each)
            if fixed == each:
                numbers.add(made_number(each))
                rows = self._connection.execute("SELECT id FROM topic WHERE name = ?", (each,))
                numbers.update(row[0] for row in rows)
                continue
            any_made = True
            with contextlib.closing(
                self._connection.execute(
                    "SELECT id, name FROM topic WHERE name >= ? ORDER BY name", (fixed,)
                )
            ) as rows:
                for number, name in rows:
                    if not name.startswith(fixed):
                        break
                    if matches(each, name):
                        numbers.add(number)
        return _Wanted(frozenset(numbers), any_made)

    def _clients(self, names: Sequence[Name]) -> _Wanted:
        exact = next((one.text for one in names if one.exact), None)
        if exact is not None:
            rows = self._connection.execute("SELECT id FROM client WHERE name = ?", (exact,))
            return _Wanted(frozenset({made_number(exact), *(row[0] for row in rows)}), False)
        rows = self._connection.execute("SELECT id, name FROM client")
        wanted = frozenset(number for number, name in rows if all(one.takes(name) for one in names))
        return _Wanted(wanted, True)


def _before_wildcard(topic_filter: str) -> str:
    """What a topic that matches begins with."""
    at = min((topic_filter.find(one) for one in "+#" if one in topic_filter), default=-1)
    if at < 0:
        return topic_filter
    # ``plant/#`` matches ``plant`` too.
    return topic_filter[: max(0, at - 1)] if topic_filter[at] == "#" else topic_filter[:at]


def _whole(time_ns: int) -> int:
    """A time that SQLite can compare."""
    return max(-(2**63), min(time_ns, 2**63 - 1))


def open_reader(path: Path) -> IndexReader | None:
    """The index, if there is one of this version."""
    try:
        if not database(path).check_identity():
            return None
        return IndexReader(path)
    except (ConfigError, OSError, sqlite3.Error, ValueError):
        return None
