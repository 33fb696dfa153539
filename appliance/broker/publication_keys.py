"""Idempotency keys of publications: rows in the journal's database, in the commit of the messages.

So a key is there if and only if its messages are, whenever the process ends. A row's number is that
of its first message. Not for: requests that are under way, HTTP (http_api/).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from appliance.journal.inbox import Statement
from appliance.storage.columns import bytes_of, number_of
from appliance.storage.layout import Migration, Tables

KEPT_S = 86400.0
"""How long a key counts."""
MOST = 100_000
"""Keys that are kept; the oldest are forgotten first."""

_TABLE = """
CREATE TABLE IF NOT EXISTS publication_key(
    first_seq INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL,
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    at_ns INTEGER NOT NULL,
    UNIQUE(user, key)
);
"""
PUBLICATION_KEY_TABLES = Tables(
    _TABLE,
    migrations=(
        Migration(
            3,
            """
CREATE TABLE IF NOT EXISTS publication_key(
    first_seq INTEGER PRIMARY KEY,
    last_seq INTEGER NOT NULL,
    user TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    at_ns INTEGER NOT NULL,
    UNIQUE(user, key)
);
""",
        ),
    ),
)


class Rows(Protocol):
    """What can be asked for rows: the journal."""

    def query(self, sql: str, params: Sequence[object] = ()) -> list[tuple[object, ...]]: ...


class Published(msgspec.Struct, frozen=True):
    """What a key stands for."""

    first_seq: int
    last_seq: int
    digest: bytes
    """Of the request's content."""


class Overdue(msgspec.Struct, frozen=True):
    """Keys that are to be forgotten: all up to ``first_seq``."""

    first_seq: int
    early: int
    """How many of them would still count."""


def save(user: str, key: str, published: Published, at_ns: int) -> Statement:
    """Note a key; ``user`` is empty for callers without a name."""
    found = published
    return (
        "INSERT OR REPLACE INTO publication_key VALUES (?, ?, ?, ?, ?, ?)",
        (found.first_seq, found.last_seq, user, key, found.digest, at_ns),
    )


def forget(overdue: Overdue) -> Statement:
    """Forget keys."""
    return ("DELETE FROM publication_key WHERE first_seq <= ?", (overdue.first_seq,))


def find(rows: Rows, user: str, key: str, since_ns: int) -> Published | None:
    """What a key that was noted at ``since_ns`` or later stands for. A damaged row is left out.

    Raises:
        UnavailableError, sqlite3.Error: the journal can't be read.
    """
    found = rows.query(
        "SELECT first_seq, last_seq, digest FROM publication_key"
        " WHERE user = ? AND key = ? AND at_ns >= ?",
        (user, key, since_ns),
    )
    for first, last, digest in found:
        with contextlib.suppress(TypeError, ValueError):
            return Published(number_of(first), number_of(last), bytes_of(digest))
    return None


def overdue(rows: Rows, since_ns: int, most: int = MOST) -> Overdue | None:
    """What is older than ``since_ns`` or beyond the newest ``most``.

    Raises:
        UnavailableError, sqlite3.Error: the journal can't be read.
        ValueError: a row is damaged.
    """
    beyond = rows.query(
        "SELECT first_seq FROM publication_key ORDER BY first_seq DESC LIMIT 1 OFFSET ?", (most,)
    )
    old = rows.query(
        "SELECT max(first_seq) FROM publication_key WHERE at_ns < ? AND first_seq < "
        "ifnull((SELECT min(first_seq) FROM publication_key WHERE at_ns >= ?), 1 << 62)",
        (since_ns, since_ns),
    )
    up_to = max((number_of(seq) for (seq,) in (*beyond, *old) if seq is not None), default=0)
    if not up_to:
        return None
    ((early,),) = rows.query(
        "SELECT count(*) FROM publication_key WHERE first_seq <= ? AND at_ns >= ?",
        (up_to, since_ns),
    )
    return Overdue(up_to, number_of(early))
