"""Sessions in the journal's database: what of them outlives the process.

Statements go into the journal's next group commit, in order with the messages. Not for: what a
session is (sessions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from appliance.broker.outbox import Delivery
from appliance.broker.packets import SubscribeOptions
from appliance.model import Message

if TYPE_CHECKING:
    from appliance.broker.door import Statement

SCHEMA = """
CREATE TABLE IF NOT EXISTS session(
    client_id TEXT PRIMARY KEY, username TEXT, expiry_s INTEGER NOT NULL,
    settled_seq INTEGER NOT NULL, left_ns INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscription(
    client_id TEXT NOT NULL, filter TEXT NOT NULL, since_seq INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (client_id, filter)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unreleased(
    client_id TEXT NOT NULL, packet_id INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (client_id, packet_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outgoing(
    client_id TEXT NOT NULL, packet_id INTEGER NOT NULL, seq INTEGER NOT NULL,
    received INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (client_id, packet_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settled(
    client_id TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (client_id, seq)) WITHOUT ROWID;
"""

_TABLES = ("session", "subscription", "unreleased", "outgoing", "settled")


class Records(Protocol):
    """Where sessions are kept: the journal's database."""

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]: ...

    def read(self, after_seq: int, limit: int) -> list[Message]: ...


class Record(Protocol):
    """Puts statements into the next commit; ``then`` is called once they are on disk."""

    def __call__(
        self, statements: Sequence[Statement], then: Callable[[], None] | None = None
    ) -> None: ...


class SessionRow(msgspec.Struct, frozen=True):
    """A session as it was kept."""

    client_id: str
    username: str | None
    expiry_s: int
    place: int
    left_ns: int | None


class ExchangeRow(msgspec.Struct, frozen=True):
    """A QoS 2 delivery that was under way."""

    client_id: str
    packet_id: int
    seq: int
    received: bool
    retain: bool
    identifiers: tuple[int, ...]


class SessionStore:
    """The broker's own tables."""

    def __init__(self, record: Record) -> None:
        self._record = record

    # --- writing --------------------------------------------------------------------------------

    def save(self, row: SessionRow) -> None:
        """Keep a session; ``row.place`` is up to where its client has everything."""
        self._record(
            [
                (
                    "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?)",
                    (row.client_id, row.username, row.expiry_s, row.place, row.left_ns),
                ),
                (
                    "DELETE FROM settled WHERE client_id = ? AND seq <= ?",
                    (row.client_id, row.place),
                ),
            ]
        )

    def erase(self, client_id: str) -> None:
        """Forget a session with everything that belongs to it."""
        self._record(
            [
                (f"DELETE FROM {table} WHERE client_id = ?", (client_id,))  # noqa: S608 - our names
                for table in _TABLES
            ]
        )

    def subscribe(self, client_id: str, options: SubscribeOptions, since_seq: int) -> None:
        """Keep a subscription: messages behind ``since_seq`` are for it.

        One that replaces another keeps the place of that one if that is later.
        """
        values = (client_id, options.topic_filter, since_seq, msgspec.msgpack.encode(options))
        sql = (
            "INSERT INTO subscription VALUES (?, ?, ?, ?) ON CONFLICT (client_id, filter)"
            " DO UPDATE SET body = excluded.body, since_seq = max(since_seq, excluded.since_seq)"
        )
        self._record([(sql, values)])

    def unsubscribe(self, client_id: str, topic_filter: str) -> None:
        """Forget a subscription."""
        sql = "DELETE FROM subscription WHERE client_id = ? AND filter = ?"
        self._record([(sql, (client_id, topic_filter))])

    def note_exchanges(self, client_id: str, exchanges: Iterable[tuple[int, int]]) -> None:
        """Incoming QoS 2: (packet id, sequence number) was taken, (packet id, 0) was released.

        Each note names its message, because the two may end up in different commits: a note
        whose message was never committed counts for nothing when it is read again.
        """
        self._record(
            [
                ("INSERT OR REPLACE INTO unreleased VALUES (?, ?, ?)", (client_id, packet_id, seq))
                if seq
                else (
                    "DELETE FROM unreleased WHERE client_id = ? AND packet_id = ?",
                    (client_id, packet_id),
                )
                for packet_id, seq in exchanges
            ]
        )

    def sending(
        self, client_id: str, packet_id: int, delivery: Delivery, then: Callable[[], None]
    ) -> None:
        """Outgoing QoS 2: a message is about to be sent."""
        body = msgspec.msgpack.encode((delivery.retain, delivery.identifiers))
        values = (client_id, packet_id, delivery.message.seq, 0, body)
        self._record([("INSERT OR REPLACE INTO outgoing VALUES (?, ?, ?, ?, ?)", values)], then)

    def received(self, client_id: str, packet_id: int, seq: int, then: Callable[[], None]) -> None:
        """Outgoing QoS 2: the client has the message."""
        self._record(
            [
                (
                    "UPDATE outgoing SET received = 1 WHERE client_id = ? AND packet_id = ?",
                    (client_id, packet_id),
                ),
                ("INSERT OR IGNORE INTO settled VALUES (?, ?)", (client_id, seq)),
            ],
            then,
        )

    def completed(self, client_id: str, packet_id: int, seq: int) -> None:
        """Outgoing QoS 2: the exchange is over."""
        self._record(
            [
                (
                    "DELETE FROM outgoing WHERE client_id = ? AND packet_id = ?",
                    (client_id, packet_id),
                ),
                ("INSERT OR IGNORE INTO settled VALUES (?, ?)", (client_id, seq)),
            ]
        )

    def discard_uncommitted(self, last_seq: int) -> None:
        """Remove notes about messages that did not reach the journal before a crash."""
        self._record([("DELETE FROM unreleased WHERE seq > ?", (last_seq,))])


# --- reading, at start ------------------------------------------------------------------------


def sessions(records: Records) -> list[SessionRow]:
    """All sessions that were kept."""
    rows = records.query("SELECT client_id, username, expiry_s, settled_seq, left_ns FROM session")
    return [msgspec.convert(row, _SessionFields, strict=True) for row in rows]


def subscriptions(records: Records) -> list[tuple[str, int, SubscribeOptions]]:
    """All subscriptions: client id, since when (sequence number), options."""
    rows = records.query("SELECT client_id, since_seq, body FROM subscription")
    return [
        (str(client_id), int(str(since)), msgspec.msgpack.decode(body, type=SubscribeOptions))
        for client_id, since, body in rows
        if isinstance(body, bytes)
    ]


def unreleased(records: Records, last_seq: int) -> list[tuple[str, int]]:
    """Incoming QoS 2 exchanges that were open: client id, packet id."""
    rows = records.query("SELECT client_id, packet_id FROM unreleased WHERE seq <= ?", (last_seq,))
    return [(str(client_id), int(str(packet_id))) for client_id, packet_id in rows]


def outgoing(records: Records) -> list[ExchangeRow]:
    """Outgoing QoS 2 exchanges that were open."""
    found = []
    for client_id, packet_id, seq, received, body in records.query(
        "SELECT client_id, packet_id, seq, received, body FROM outgoing"
    ):
        if isinstance(body, bytes):
            retain, identifiers = msgspec.msgpack.decode(body, type=tuple[bool, tuple[int, ...]])
            found.append(
                ExchangeRow(
                    str(client_id),
                    int(str(packet_id)),
                    int(str(seq)),
                    bool(received),
                    retain,
                    identifiers,
                )
            )
    return found


def settled(records: Records) -> set[tuple[str, int]]:
    """QoS 2 messages that clients have, behind their sessions' places: client id, sequence."""
    rows = records.query("SELECT client_id, seq FROM settled")
    return {(str(client_id), int(str(seq))) for client_id, seq in rows}


class _SessionFields(SessionRow, frozen=True, array_like=True):
    """A row of the session table."""
