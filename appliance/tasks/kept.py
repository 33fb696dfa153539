"""Small values that outlive a restart, in ``tasks.db``: one row a kind and name.

The module that makes a kind has its type, encodes it and reads it: holds, acknowledgements,
freshness. A value is written in the transaction of the change that made it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from appliance.storage.layout import Migration, Tables

TABLES = Tables(
    """
CREATE TABLE IF NOT EXISTS kept (
    kind TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, name)) WITHOUT ROWID;
""",
    migrations=(
        Migration(
            3,
            """
CREATE TABLE IF NOT EXISTS kept (
    kind TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, name)) WITHOUT ROWID;
""",
        ),
    ),
)

Kept = Mapping[tuple[str, str], bytes | None]
"""Values by kind and name; ``None`` removes one."""


def write(database: sqlite3.Connection, kept: Kept) -> None:
    """Write and remove values within the open transaction."""
    database.executemany(
        "INSERT OR REPLACE INTO kept VALUES (?, ?, ?)",
        [(*key, body) for key, body in kept.items() if body is not None],
    )
    database.executemany(
        "DELETE FROM kept WHERE kind = ? AND name = ?",
        [key for key, body in kept.items() if body is None],
    )


def read(database: sqlite3.Connection, kind: str) -> dict[str, bytes]:
    """The values of a kind, by name; one that is no text and bytes is left out."""
    rows = database.execute("SELECT name, body FROM kept WHERE kind = ?", (kind,))
    return {name: body for name, body in rows if isinstance(name, str) and isinstance(body, bytes)}
