"""Taking what can still be read of a damaged journal over into a new one.

Chunks are looked for page by page (pages.py). The other tables are small: each is read from its
first row on and from its last row back, both until a page that can't be read. The damaged file is
not changed. Not for: finding damage and setting the file aside (storage/database.py).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from appliance.journal.pages import Pages
from appliance.storage import sqlite
from appliance.storage.layout import run_script, shape
from appliance.storage.rescue import copy_rows

_CHUNK = "chunk"
_MOST_RANGES = 10
_REPAIRED_BELOW_BYTES = 256 * 1024 * 1024
"""Up to this size a file whose first page is damaged is copied with another first page."""

_log = logging.getLogger(__name__)


def rescue(damaged: Path, log: Path, connection: sqlite3.Connection, reached: int) -> str:
    """Copy the rows of a damaged journal into a new one, within the open transaction.

    Args:
        damaged: the file; it may be missing if there is its log.
        log: its write-ahead log; it may be missing.
        connection: to the new database, which has the tables and no rows.
        reached: the newest message that a recording or the task engine has read.

    Returns what was taken over and what is missing, as a sentence.

    Raises:
        sqlite3.Error, OSError: the new database can't be written.
    """
    tables = shape(connection)
    with Pages(damaged, log) as pages:
        for row in pages.chunks():
            connection.execute("INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?, ?)", row)
        others = 0
        for source in _sources(damaged, pages, connection):
            others = copy_rows(source, connection, tables, {_CHUNK})
            if others:
                break
    return _told(connection, others, reached)


def _sources(
    damaged: Path, pages: Pages, connection: sqlite3.Connection
) -> Iterator[sqlite3.Connection]:
    """Connections to the tables: to the file as it is, then to a copy with a new first page."""
    # An empty file with a log: SQLite would delete the log.
    if damaged.exists() and damaged.stat().st_size:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite.connect_read_only(damaged)) as source,
        ):
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            yield source
    if pages.count * pages.size > _REPAIRED_BELOW_BYTES:
        return
    copy = sqlite.beside(damaged, ".repaired")
    try:
        _write_repaired(pages, connection, copy)
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite.connect_read_only(copy)) as source,
        ):
            yield source
    finally:
        copy.unlink(missing_ok=True)


def _write_repaired(pages: Pages, connection: sqlite3.Connection, copy: Path) -> None:
    """Write the pages as one file without a log.

    The first page, with the list of tables, is that of an empty journal: a journal is always begun
    with the same tables in the same order.
    """
    definitions = connection.execute(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rootpage"
    ).fetchall()
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
        empty.execute(f"PRAGMA page_size = {pages.size}")
        empty.execute("BEGIN")
        run_script(empty, "".join(f"{sql};" for (sql,) in definitions))
        empty.execute("COMMIT")
        first = bytearray(empty.serialize()[: pages.size])
    first[28:32] = pages.count.to_bytes(4, "big")
    with copy.open("wb") as file:
        file.write(first)
        for number in range(2, pages.count + 1):
            file.write(pages.get(number).ljust(pages.size, b"\0"))


def _told(connection: sqlite3.Connection, others: int, reached: int) -> str:
    rows = connection.execute("SELECT first_seq, last_seq FROM chunk ORDER BY first_seq")
    begin = end = 0
    gaps: list[tuple[int, int]] = []
    for first, last in rows:
        if end and first > end + 1:
            gaps.append((end + 1, first - 1))
        begin = begin or first
        end = max(end, last)
    if reached > end:
        gaps.append((end + 1, reached))
    if not end:
        text = "No message in it could be read"
    else:
        text = f"Messages {begin} to {end} could be read and were taken over"
        if begin > 1:
            text += f"; messages 1 to {begin - 1} are missing, unless retention had removed them"
    if gaps:
        ranges = [str(first) if first == last else f"{first} to {last}" for first, last in gaps]
        more = f" and {len(gaps) - _MOST_RANGES} more ranges" if len(gaps) > _MOST_RANGES else ""
        text += (
            f". These are missing: {', '.join(ranges[:_MOST_RANGES])}{more}, and maybe later ones"
        )
    else:
        text += ". Later ones may be missing"
    return f"{text}. {others} rows of retained messages and sessions were taken over"
