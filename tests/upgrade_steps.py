"""Formats that do not exist yet: each database with one step more, to try upgrades with.

As a program, ``python upgrade_steps.py FOLDER KIND NUMBER`` upgrades a data directory and kills
itself when it comes to the statement of that number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.engine import databases
from appliance.storage import database, layout, sqlite
from appliance.storage.layout import Layout, Migration, Tables

TABLES = {"journal.db": "chunk", "tasks.db": "answers", "recorders.db": "recording"}
"""One table of each database that has rows in ``tests/data``."""
LAST = {
    "journal.db": "body BLOB NOT NULL\n",
    "tasks.db": "state TEXT NOT NULL",
    "recorders.db": "memory TEXT NOT NULL\n",
}
NOTE = ", note TEXT NOT NULL DEFAULT 'x'"
KILLED = 9 if sys.platform == "win32" else -9
"""The exit code of a killed process."""
KINDS = ("column", "rebuild", "function")


def with_note(name: str, change: str | Callable[[sqlite3.Connection], object]) -> Layout:
    """The layout whose table has a column ``note`` at its end, and ``change`` as its next step."""
    present = databases.LAYOUTS[name]
    main, *others = present.parts
    assert LAST[name] in main.schema
    tables = Tables(
        main.schema.replace(LAST[name], LAST[name].rstrip() + NOTE, 1),
        migrations=(*main.migrations, Migration(present.version + 1, change)),
        late_tables=main.late_tables,
    )
    return msgspec.structs.replace(present, parts=(tables, *others))


def step(name: str, kind: str) -> str | Callable[[sqlite3.Connection], object]:
    """A step to ``with_note``, written in one of three ways."""
    table = TABLES[name]
    add = f"ALTER TABLE {table} ADD COLUMN note TEXT NOT NULL DEFAULT 'x';"
    if kind == "column":
        return add
    if kind == "rebuild":
        with contextlib.closing(sqlite3.connect(":memory:")) as empty:
            empty.executescript(with_note(name, "").schema)
            (made,) = empty.execute(
                "SELECT sql FROM sqlite_master WHERE name = ?", (table,)
            ).fetchone()
        return (
            f"ALTER TABLE {table} RENAME TO old; {made};"
            f"INSERT INTO {table} SELECT *, 'x' FROM old; DROP TABLE old;"
        )

    def change(connection: sqlite3.Connection) -> None:
        connection.execute(add)
        for (row,) in connection.execute(f"SELECT rowid FROM {table}").fetchall():
            connection.execute(f"UPDATE {table} SET note = 'x' WHERE rowid = ?", (row,))

    return change


def noted(before: dict[str, dict[str, list[tuple]]]) -> dict[str, dict[str, list[tuple]]]:
    """What the step to ``with_note`` makes of the rows of all databases."""
    found = {}
    for name, tables in before.items():
        with contextlib.closing(sqlite3.connect(":memory:")) as empty:
            empty.executescript(databases.LAYOUTS[name].schema)
            new: dict[str, list[tuple]] = {each: [] for each in layout.shape(empty)}
        table = TABLES[name]
        found[name] = {**new, **tables, table: [(*row, "x") for row in tables[table]]}
    return found


def layouts(kind: str) -> dict[str, Layout]:
    return {name: with_note(name, step(name, kind)) for name in TABLES}


def rows(path: Path) -> dict[str, list[tuple]]:
    """All rows of a database, by table."""
    with contextlib.closing(sqlite.connect_read_only(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in layout.shape(connection)
        }


def number(path: Path) -> int:
    with contextlib.closing(sqlite.connect_read_only(path)) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    return found


def end() -> None:
    """End this process at once, as ``kill -9`` does."""
    if sys.platform == "win32":
        os._exit(KILLED)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(wanted: int) -> None:
    """Let the process kill itself when SQLite comes to its ``wanted``-th writing statement."""
    left = wanted

    def count(statement: str) -> None:
        nonlocal left
        if statement.lstrip().startswith(("BEGIN IMM", "ALTER", "CREATE", "INSERT", "UPDATE", "DROP",
                                 "COMMIT", "PRAGMA user_version =")):  # fmt: skip
            if left == 0:
                end()
            left -= 1

    def connect(self: database.Database, *, may_write: bool = True) -> sqlite3.Connection:
        connection = usual(self, may_write=may_write)
        connection.set_trace_callback(count)
        return connection

    usual = database.Database.connect
    database.Database.connect = connect  # type: ignore[method-assign]


if __name__ == "__main__":
    databases.LAYOUTS.update(layouts(sys.argv[2]))
    kill_at(int(sys.argv[3]))
    databases.upgrade(Path(sys.argv[1]), time.time_ns())
