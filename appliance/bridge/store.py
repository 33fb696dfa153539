"""What a bridge keeps over restarts: its rows in the journal's database.

Statements go into the journal's next group commit, in order with the messages, so a row never says
more than the journal has. Each table has a row a bridge, and damage of one costs only that one.
Not for: when a row is written (incoming, outgoing and session of the bridge), the installation's
own name (installation.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from appliance.journal.inbox import Statement
from appliance.storage.columns import bytes_of, number_of, text_of
from appliance.storage.layout import Migration, Tables, is_whole

_TABLES = (
    "bridge_cursor",
    "bridge_arrival",
    "bridge_session",
    "bridge_retained",
    "bridge_retained_to",
)
_SAMPLE_ROWS = 100
"""Rows of a table that are looked at before a start changes anything."""


class Rows(Protocol):
    """What can be asked for rows: the journal."""

    def query(self, sql: str, params: Sequence[object] = ()) -> list[tuple[object, ...]]: ...

    def unreadable(self, what: str, error: Exception, row: tuple[object, ...]) -> None:
        """A row can't be decoded and is left out; ``what`` names it."""


class SessionRecord(msgspec.Struct, frozen=True, array_like=True):
    """The session that the bridge has at the other broker, as far as the bridge knows.

    New fields go at the end and have a default.
    """

    address: str
    """``"host:port"`` of the other broker."""
    client_id: str
    filters: tuple[tuple[str, int], ...] = ()
    """What is subscribed to there: the filter as the broker was sent it, with ``$share/GROUP/``,
    and the options of the subscription (the byte behind the filter in SUBSCRIBE)."""
    is_there: bool = False
    """The broker should have the session at the next connection: it accepted a lasting one."""
    seen_ns: int = 0
    """When the bridge was last connected to it."""
    gap_from_ns: int = 0
    """Since when messages may be missing, because the session was gone; 0: not known."""
    gap_to_ns: int = 0
    """Up to when; 0: there is no gap that no operator has acknowledged."""


class ArrivalRecord(msgspec.Struct, frozen=True, array_like=True):
    """Which messages the other broker may send again (repeats.py).

    New fields go at the end and have a default.
    """

    settled_seq: int
    """Every message of the bridge behind this one is unsettled."""
    unsettled: tuple[int, ...] = ()
    """The sequence numbers of those before it that are unsettled too, in order."""
    ids_go_on: bool = False
    """The broker goes on with its packet identifiers on the session's next connection."""


class BridgeRecord(msgspec.Struct, frozen=True):
    """What was kept of one bridge; ``None``: nothing, or it was damaged."""

    name: str
    cursor: int | None = None
    """The way out: the other broker has, or refused, every message up to this one."""
    arrival: ArrivalRecord | None = None
    session: SessionRecord | None = None
    last_digests: dict[str, bytes] = {}
    """By topic, oldest first: the digest of the last payload that came in (replays.py)."""
    digests_seq: int = 0
    """Up to which message ``last_digests`` are complete."""


# --- writing ----------------------------------------------------------------------------------


def save_cursor(name: str, seq: int) -> Statement:
    """Note how far the way out has come."""
    return ("INSERT OR REPLACE INTO bridge_cursor VALUES (?, ?)", (name, seq))


def forget_cursor(name: str) -> Statement:
    """The bridge has no way out any more; one that it gets later begins with what comes then."""
    return ("DELETE FROM bridge_cursor WHERE name = ?", (name,))


def keep_only(names: Iterable[str]) -> list[Statement]:
    """Forget all bridges but these: one that is removed and comes back later begins anew."""
    kept = (msgspec.json.encode(tuple(names)).decode(),)
    return [
        (f"DELETE FROM {each} WHERE name NOT IN (SELECT value FROM json_each(?))", kept)  # noqa: S608
        for each in _TABLES
    ]


def save_arrival(name: str, record: ArrivalRecord) -> Statement:
    """Note which messages may come again."""
    return (
        "INSERT OR REPLACE INTO bridge_arrival VALUES (?, ?)",
        (name, msgspec.msgpack.encode(record)),
    )


def save_session(name: str, record: SessionRecord) -> Statement:
    """Note the session at the other broker."""
    return (
        "INSERT OR REPLACE INTO bridge_session VALUES (?, ?)",
        (name, msgspec.msgpack.encode(record)),
    )


def save_digests(
    name: str, digests: Mapping[str, tuple[int, bytes]], forgotten: Iterable[str], up_to: int
) -> list[Statement]:
    """Note what came in last on some topics.

    Args:
        name: of the bridge.
        digests: by topic, the sequence number of the message and the digest of its payload.
        forgotten: topics that are not remembered any more.
        up_to: the digests are complete up to this message.
    """
    return [
        *(
            ("DELETE FROM bridge_retained WHERE name = ? AND topic = ?", (name, topic))
            for topic in forgotten
        ),
        *(
            ("INSERT OR REPLACE INTO bridge_retained VALUES (?, ?, ?, ?)", (name, topic, seq, each))
            for topic, (seq, each) in digests.items()
        ),
        ("INSERT OR REPLACE INTO bridge_retained_to VALUES (?, ?)", (name, up_to)),
    ]


# --- reading, at start ------------------------------------------------------------------------

_Read = TypeVar("_Read")


def oldest_cursor(rows: Rows) -> int | None:
    """The place of the bridge that is furthest behind; ``None`` if nothing goes out.

    Raises:
        UnavailableError, sqlite3.Error: the journal can't be read.
    """
    ((seq,),) = rows.query("SELECT min(seq) FROM bridge_cursor WHERE typeof(seq) = 'integer'")
    return seq if isinstance(seq, int) else None


def load(rows: Rows, name: str) -> BridgeRecord:
    """What was kept of a bridge. A row that can't be read is left out, and said.

    Raises:
        UnavailableError, sqlite3.Error: the journal can't be read.
    """

    def of(table: str) -> str:
        return f"SELECT * FROM {table} WHERE name = ?"  # noqa: S608 - our names

    cursor = _each(
        rows,
        of("bridge_cursor"),
        f"The place up to which bridge {name} has sent",
        lambda _, seq: number_of(seq),
        name,
    )
    arrival = _each(
        rows,
        of("bridge_arrival"),
        f"The note which messages bridge {name} may get again",
        lambda _, body: msgspec.msgpack.decode(bytes_of(body), type=ArrivalRecord),
        name,
    )
    session = _each(
        rows,
        of("bridge_session"),
        f"The session of bridge {name}",
        lambda _, body: msgspec.msgpack.decode(bytes_of(body), type=SessionRecord),
        name,
    )
    digests = _each(
        rows,
        f"{of('bridge_retained')} ORDER BY seq",
        f"A note of a retained message of bridge {name}",
        lambda _, topic, _seq, digest: (text_of(topic), bytes_of(digest)),
        name,
    )
    complete_to = _each(
        rows,
        of("bridge_retained_to"),
        f"The note of the retained messages of bridge {name}",
        lambda _, seq: number_of(seq),
        name,
    )
    return BridgeRecord(
        name,
        cursor=cursor[0] if cursor else None,
        arrival=arrival[0] if arrival else None,
        session=session[0] if session else None,
        last_digests=dict(digests),
        digests_seq=complete_to[0] if complete_to else 0,
    )


def _each(
    rows: Rows, sql: str, what: str, read: Callable[..., _Read], *parameters: object
) -> list[_Read]:
    found = []
    for row in rows.query(sql, parameters):
        try:
            found.append(read(*row))
        except (ValueError, TypeError, OverflowError) as error:
            rows.unreadable(what, error, row)
    return found


# --- the tables -------------------------------------------------------------------------------


def _verify(connection: sqlite3.Connection) -> None:
    """Raise ``ValueError`` if this version wrote none of the sessions; damage is another matter."""
    sql = "SELECT body FROM bridge_session LIMIT ?"
    bodies = connection.execute(sql, (_SAMPLE_ROWS,)).fetchall()
    foreign = []
    for (body,) in bodies:
        try:
            msgspec.msgpack.decode(bytes_of(body), type=SessionRecord)
        except (ValueError, TypeError) as error:
            if is_whole(body):
                foreign.append(error)
    if foreign and len(foreign) == len(bodies):
        raise ValueError(f"bridge_session: {foreign[0]}")


BRIDGE_TABLES = Tables(
    """
CREATE TABLE IF NOT EXISTS bridge_cursor(
    name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_arrival(
    name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_session(
    name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_retained(
    name TEXT NOT NULL, topic TEXT NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (name, topic)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_retained_to(
    name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
""",
    migrations=(
        Migration(
            2,
            """
CREATE TABLE IF NOT EXISTS bridge_cursor(
    name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_arrival(
    name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_session(
    name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_retained(
    name TEXT NOT NULL, topic TEXT NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (name, topic)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bridge_retained_to(
    name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
""",
        ),
    ),
    verify=_verify,
)
