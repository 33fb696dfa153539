"""Taking the rows of a damaged database over into a new one, as far as they can be read.

Each table is read from its first row on and from its last row back, both until a page that can't be
read. The damaged file is not changed. Not for: the journal's chunks (journal/rescue.py), or finding
damage and setting the file aside (database.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from appliance.storage import sqlite
from appliance.storage.layout import Column, Layout, Shape, shape


def rescue_rows(damaged: Path, connection: sqlite3.Connection, layout: Layout) -> str:
    """Copy what can be read into a new database, within the open transaction.

    Args:
        damaged: the file, with its log beside it; it may be missing.
        connection: to the new database, which has the tables and no rows.
        layout: of both.

    Returns a sentence about it.

    Raises:
        sqlite3.Error: the new database can't be written.
    """
    count = 0
    # An empty file with a log: SQLite would delete the log.
    if damaged.exists() and damaged.stat().st_size:
        with (
            contextlib.suppress(sqlite3.DatabaseError),
            contextlib.closing(sqlite.connect_read_only(damaged)) as source,
        ):
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            count = copy_rows(source, connection, shape(connection))
    return (
        f"{count} rows of it could be read and were taken over. Lost with the others: {layout.loss}"
    )


def copy_rows(
    source: sqlite3.Connection,
    connection: sqlite3.Connection,
    tables: Shape,
    leave_out: Collection[str] = (),
) -> int:
    """Copy the rows of these tables, as far as they can be read; returns how many.

    Raises:
        sqlite3.Error: the new database can't be written.
    """
    count = 0
    for table, columns in tables.items():
        if table in leave_out:
            continue
        marks = ", ".join("?" * len(columns))
        insert = f"INSERT OR IGNORE INTO [{table}] VALUES ({marks})"  # noqa: S608 - our names
        for row in _readable(source, table, columns):
            with contextlib.suppress(sqlite3.IntegrityError):  # NULL where none may be
                count += connection.execute(insert, row).rowcount
    return count


def _readable(
    source: sqlite3.Connection, table: str, columns: Sequence[Column]
) -> Iterator[Sequence[Any]]:
    """Rows from the first one on and from the last one back, each until damage."""
    keys = [column.name for column in columns if column.key] or ["rowid"]
    names = ", ".join([*keys, *(column.name for column in columns)])
    key = ", ".join(keys)
    marks = ", ".join("?" * len(keys))
    newest: tuple[Any, ...] | None = None
    for sign, order in ((">", ""), ("<", " DESC")):
        ordered = ", ".join(f"{name}{order}" for name in keys)
        sql = f"SELECT {names} FROM [{table}] {{}} ORDER BY {ordered} LIMIT 1"  # noqa: S608 - our names
        # One by one: Python asks for the next row before it gives one out, and an error would
        # take that one along.
        with contextlib.suppress(sqlite3.Error, ValueError):
            row = source.execute(sql.format("")).fetchone()
            beyond = sql.format(f"WHERE ({key}) {sign} ({marks})")
            while row is not None:
                found = row[: len(keys)]
                if order and found == newest:
                    return
                newest = newest if order else found
                yield row[len(keys) :]
                row = source.execute(beyond, found).fetchone()
            return
