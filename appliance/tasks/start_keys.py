"""Which starts were asked for under an ``Idempotency-Key``, so that a repeat starts nothing again.

A key stands in the transaction of the requests that it asked for: after a crash both are there, or
neither. Not for: the HTTP header (http_api/idempotency.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from appliance.storage.layout import Migration, Tables, check_ends

KEPT_S = 86400.0
"""Seconds for which a key is kept at least, unless there are too many."""
MAX_KEPT = 100_000
"""Keys that are kept; beyond it the oldest are forgotten, and counted."""
BOUND_EVERY = 100
"""After so many new keys it is seen to: a statement more would hold each start up."""

Numbers = tuple[int, ...]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Numbers).decode


def _verify(connection: sqlite3.Connection) -> None:
    check_ends(connection, "start_keys", "executions", "id", _decode)


TABLES = Tables(
    """
CREATE TABLE IF NOT EXISTS start_keys (
    id INTEGER PRIMARY KEY, user TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL,
    executions BLOB NOT NULL, at_ns INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS start_keys_key ON start_keys (user, key);
""",
    migrations=(
        Migration(
            2,
            """
CREATE TABLE IF NOT EXISTS start_keys (
    id INTEGER PRIMARY KEY, user TEXT NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL,
    executions BLOB NOT NULL, at_ns INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS start_keys_key ON start_keys (user, key);
""",
        ),
    ),
    verify=_verify,
)


class StartKey(msgspec.Struct, frozen=True):
    """A key as one user sent it."""

    user: str
    """Empty for those that did not sign in."""
    key: str
    digest: bytes
    """Of what was asked for: the same key with another digest is a mistake of the client."""


class KeptKey(msgspec.Struct, frozen=True):
    """A key with what it led to."""

    key: StartKey
    executions: Numbers
    at_ns: int


def write(database: sqlite3.Connection, kept: Sequence[KeptKey]) -> None:
    """Add keys within the open transaction."""
    database.executemany(
        "INSERT OR REPLACE INTO start_keys (user, key, digest, executions, at_ns)"
        " VALUES (?, ?, ?, ?, ?)",
        [
            (one.key.user, one.key.key, one.key.digest, _encode(one.executions), one.at_ns)
            for one in kept
        ],
    )


def bound(database: sqlite3.Connection) -> int:
    """Forget the oldest of too many, within the open transaction; returns how many."""
    return database.execute(
        "DELETE FROM start_keys WHERE id <= (SELECT max(id) FROM start_keys) - ?", (MAX_KEPT,)
    ).rowcount


def find(database: sqlite3.Connection, user: str, key: str) -> KeptKey | None:
    """What a user's key led to; ``None`` if it is not known, or can't be read."""
    row = database.execute(
        "SELECT digest, executions, at_ns FROM start_keys WHERE user = ? AND key = ?", (user, key)
    ).fetchone()
    try:
        return (
            None if row is None else KeptKey(StartKey(user, key, row[0]), _decode(row[1]), row[2])
        )
    except (ValueError, TypeError):
        return None


def prune(database: sqlite3.Connection, before_ns: int) -> None:
    """Forget the keys that were kept long enough, within the open transaction."""
    database.execute("DELETE FROM start_keys WHERE at_ns < ?", (before_ns,))
