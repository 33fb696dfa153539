"""Finding messages in the journal: one walk for the UI's search and for every command.

The index says in which stretches a message may be. There, the stored bytes of a chunk are looked at
before messages are made of them, and the messages are then held against the filter. So an answer is
exact with or without an index. Not for: what a message led to (tasks), the filter as data
(message_filter.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import msgspec

from appliance import matching
from appliance.engine_api import Found
from appliance.journal import FILE_NAME, chunks
from appliance.journal.index import FILE_NAME as INDEX
from appliance.journal.index import IndexReader, open_reader
from appliance.journal.raw_text import RawSearch
from appliance.journal.reading import Reading
from appliance.journal.store import Store
from appliance.message_filter import MessageFilter
from appliance.model import LARGEST_SEQ, Message
from appliance.storage.sqlite import is_damage

STEP_S = 0.25
"""Seconds of one step of a search."""
_BYTES_AT_A_TIME = 1024 * 1024
_SMALL_BYTES = 4096
"""Chunks that are smaller on average are looked at together first."""


StoredChunk = tuple[int, int, bytes]
"""First and last number, body."""


class Piece(msgspec.Struct, frozen=True):
    """A part of the walk: everything that was found in a stretch of the journal."""

    messages: list[Message]
    """That pass, oldest first."""
    first_seq: int
    last_seq: int
    """The stretch. It joins that of the piece before, so a walk can go on behind it."""
    own_left_out: int = 0
    """Messages left out for ``MessageFilter.without_own`` alone."""


class History:
    """The journal, to be searched. Safe from any thread.

    Every walk raises ``sqlite3.Error`` if the journal can't be read, and ``UnavailableError`` once
    it is closed. Damaged messages are left out. Between two pieces nothing is locked, and a walk
    may be left at any of them.
    """

    def __init__(
        self,
        reading: Reading,
        index: Callable[[], IndexReader | None] = lambda: None,
        doubt: Callable[[], None] = lambda: None,
    ) -> None:
        """Search in what ``reading`` reads.

        Args:
            reading: the journal.
            index: opens its index; ``None``: there is none that can be trusted.
            doubt: called when the index turns out to be damaged.
        """
        self._reading = reading
        self._open_index = index
        self._doubt = doubt

    def bounds(self) -> tuple[int, int]:
        """First and last sequence number on the disk; (0, 0) if there is none."""
        return self._reading.bounds()

    def forward(
        self, asked: MessageFilter, after_seq: int = 0, last_seq: int = LARGEST_SEQ
    ) -> Generator[Piece]:
        """Everything that passes behind ``after_seq``, up to ``last_seq``, oldest first.

        A message that comes meanwhile may be left for the next walk.
        """
        first, last = self._reading.bounds()
        low, high = max(first, after_seq + 1), min(last, last_seq)
        return self._walk(asked, low, high, back=False)

    def back(self, asked: MessageFilter, before_seq: int, first_seq: int = 0) -> Generator[Piece]:
        """All that passes before ``before_seq``, down to ``first_seq``: the newest piece first."""
        first, last = self._reading.bounds()
        low, high = max(first, first_seq), min(last, before_seq - 1)
        return self._walk(asked, low, high, back=True)

    def concerning(
        self, concerns: Callable[[str], bool], asked: MessageFilter, last_seq: int = LARGEST_SEQ
    ) -> Generator[Piece]:
        """Messages on the topics that ``concerns`` names, oldest first, whatever their number is.

        Of a chunk, the topics alone are read first: it costs the same for a thousand filters.

        Args:
            concerns: whether a topic is wanted; asked again and again for the same one.
            asked: times are looked at. ``topics`` are filters for all that ``concerns`` names, by
                which the index leaves out stretches.
            last_seq: the walk ends here.
        """
        first, last = self._reading.bounds()
        low, high = first, min(last, last_seq)
        timed = MessageFilter(since_ns=asked.since_ns, until_ns=asked.until_ns)

        def read(rows: list[StoredChunk]) -> list[Message]:
            if _are_small(rows) and not _may_have(rows, concerns):
                return []
            return [one for row in rows for one in self._on(row, concerns)]

        for begin, end, is_candidate in self._stretches(asked, low, high, back=False):
            if not is_candidate:
                yield Piece([], begin, end)
                continue
            for piece in self._look(timed, read, begin, end, back=False):
                # What stands beside damage was read in another way.
                found = [one for one in piece.messages if concerns(one.topic)]
                yield Piece(found, piece.first_seq, piece.last_seq)

    def _on(self, row: StoredChunk, concerns: Callable[[str], bool]) -> list[Message]:
        try:
            return chunks.decode_on(row[2], concerns)
        except (ValueError, TypeError):
            return self._reading.decoded(*row)  # which says that it is damaged

    def times(self) -> tuple[int, int]:
        """When the first and the last message came (ns since 1970); (0, 0) if there is none."""
        rows = self._reading.query(
            "SELECT (SELECT first_ns FROM chunk ORDER BY first_seq LIMIT 1),"
            " (SELECT last_ns FROM chunk ORDER BY first_seq DESC LIMIT 1)",
            (),
        )
        return (rows[0][0] or 0, rows[0][1] or 0)

    def among(self, asked: MessageFilter, numbers: Iterable[int]) -> Generator[Piece]:
        """Those of the messages with these sequence numbers that pass, in the order of these."""
        for number in numbers:
            chunk = self._reading.chunk_after(number - 1)
            found = [one for one in chunk[:1] if one.seq == number]
            yield _piece(asked, found, number, number)

    def step(
        self,
        asked: MessageFilter,
        before_seq: int,
        limit: int,
        among: Sequence[int] | None = None,
        budget_s: float = STEP_S,
    ) -> Found:
        """Walk back for a while, for an operator who waits (``engine_api.Engine.search``).

        ``among``: only messages with these sequence numbers, ascending.
        """
        until = time.monotonic() + budget_s
        if among is None:
            pieces = self.back(asked, before_seq)
        else:
            pieces = self.among(asked, reversed(among[: bisect_left(among, before_seq)]))
        parts: list[list[Message]] = []
        count = own_left_out = 0
        reached = before_seq
        with contextlib.closing(pieces):
            for piece in pieces:
                parts.append(piece.messages)
                count += len(piece.messages)
                own_left_out += piece.own_left_out
                reached = piece.first_seq
                if count >= limit or time.monotonic() > until:
                    break
            else:
                reached = 0
        messages = tuple(chain.from_iterable(reversed(parts)))
        at = reached or self._reading.bounds()[0]
        return Found(messages, reached, self._time_of(at), own_left_out)

    def _time_of(self, seq: int) -> int:
        """About when a message came; 0 if the journal has nothing there."""
        rows = self._reading.query(
            "SELECT first_ns FROM chunk WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
            (min(seq, LARGEST_SEQ),),
        )
        return int(rows[0][0]) if rows else 0

    def _walk(self, asked: MessageFilter, low: int, high: int, *, back: bool) -> Generator[Piece]:
        read = partial(self._read, RawSearch(asked))
        for first, last, is_candidate in self._stretches(asked, low, high, back=back):
            if is_candidate:
                yield from self._look(asked, read, first, last, back=back)
            else:
                yield Piece([], first, last)

    # --- the index -----------------------------------------------------------------------------

    def _stretches(
        self, asked: MessageFilter, low: int, high: int, *, back: bool
    ) -> Iterator[tuple[int, int, bool]]:
        narrows = asked.topics or asked.clients or (asked.since_ns, asked.until_ns) != (None, None)
        index = self._open_index() if narrows else None
        if index is not None:
            try:
                for first, last, is_candidate in index.stretches(asked, low, high, back=back):
                    yield first, last, is_candidate
                    low, high = (low, first - 1) if back else (last + 1, high)
            except (sqlite3.Error, ValueError):
                self._doubt()  # damaged or removed: the rest is looked at
            finally:
                index.close()
        if low <= high:
            yield low, high, True

    # --- the journal ---------------------------------------------------------------------------

    def _look(
        self,
        asked: MessageFilter,
        read: Callable[[list[StoredChunk]], list[Message]],
        low: int,
        high: int,
        *,
        back: bool,
    ) -> Generator[Piece]:
        """Everything that passes in a stretch.

        ``read`` gives the messages of chunks, oldest first, as far as they may pass.
        """
        times = (asked.since_ns, asked.until_ns)
        while low <= high:
            try:
                rows = self._reading.bodies(
                    low, high, back=back, max_bytes=_BYTES_AT_A_TIME, times=times
                )
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                yield from self._look_past_damage(asked, low, high, back=back)
                return
            if not rows:
                yield Piece([], low, high)
                return
            if back:
                first, last = max(low, rows[-1][0]), high
            else:
                first, last = low, min(high, rows[-1][1])
            messages = read(rows[::-1] if back else rows)
            if messages and (messages[0].seq < first or messages[-1].seq > last):
                messages = [one for one in messages if first <= one.seq <= last]
            yield _piece(asked, messages, first, last)
            low, high = (low, first - 1) if back else (last + 1, high)

    def _read(self, raw: RawSearch, rows: list[StoredChunk]) -> list[Message]:
        messages: list[Message] = []
        for row in self._promising(raw, rows):
            messages += self._reading.decoded(*row)
        return messages

    def _promising(self, raw: RawSearch, rows: list[StoredChunk]) -> list[StoredChunk]:
        """The chunks in which what is searched may be."""
        if raw.is_blind:
            return rows
        if _are_small(rows):
            together = b"\0".join([row[2] for row in rows])
            if not raw.may_be_in(together):
                return []
        return [row for row in rows if raw.may_be_in(row[2])]

    def _look_past_damage(
        self, asked: MessageFilter, low: int, high: int, *, back: bool
    ) -> Generator[Piece]:
        """Chunk by chunk, as SQLite can still read them."""
        while low <= high:
            if back:
                chunk = [one for one in self._reading.chunk_before(high + 1) if one.seq >= low]
                first, last = (chunk[0].seq if chunk else low), high
                high = first - 1
            else:
                chunk = [one for one in self._reading.chunk_after(low - 1) if one.seq <= high]
                first, last = low, (chunk[-1].seq if chunk else high)
                low = last + 1
            yield _piece(asked, chunk, first, last)


def _are_small(rows: Sequence[StoredChunk]) -> bool:
    return len(rows) > 1 and sum([len(row[2]) for row in rows]) < len(rows) * _SMALL_BYTES


def _may_have(rows: Sequence[StoredChunk], concerns: Callable[[str], bool]) -> bool:
    """Whether one of the chunks has a topic that is wanted, or is damaged."""
    try:
        return any(map(concerns, chunks.topics([row[2] for row in rows])))
    except ValueError:
        return True


def _piece(asked: MessageFilter, messages: list[Message], first: int, last: int) -> Piece:
    found = matching.select(asked, messages)
    if not asked.without_own:
        return Piece(found, first, last)
    count = len(found)
    found = [one for one in found if not matching.is_own_news(one, asked.without_own)]
    return Piece(found, first, last, count - len(found))


@contextlib.contextmanager
def opened(data_dir: Path, sync: Literal["always", "os"] = "os") -> Iterator[History]:
    """The history of a data directory, for a command. The appliance may be running.

    Every use raises ``sqlite3.Error`` if the journal can't be read. Look at the databases first
    (``engine.databases.check``).
    """
    store = Store(data_dir / FILE_NAME, sync)
    reading = Reading(store)

    def index() -> IndexReader | None:
        reader = open_reader(data_dir / INDEX)
        if reader is None:
            return None
        with contextlib.suppress(sqlite3.Error, ValueError):
            if reader.is_of(reading):
                return reader
        reader.close()
        return None

    try:
        yield History(reading, index)
    finally:
        store.close()
