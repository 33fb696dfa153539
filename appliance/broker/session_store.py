"""Sessions in the journal's database: the part of them that outlives the process.

Statements go into the journal's next group commit, in order with the messages. Not for: what a
session is (sessions.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import msgspec

from appliance.broker.outbox import Delivery
from appliance.journal.inbox import Statement
from appliance.model import LARGEST_SEQ, Message, decode_hook, encode_hook
from appliance.mqtt.packets import SubscribeOptions, Will
from appliance.storage.columns import bytes_of, number_of, text_of
from appliance.storage.layout import Tables, is_whole

_SAMPLE_ROWS = 100
"""Rows of a table that are looked at before a start changes anything."""
_NAMES = ("session", "subscription", "unreleased", "outgoing", "settled", "queue")


class Rows(Protocol):
    """What can be asked for rows."""

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]: ...

    def unreadable(self, what: str, error: Exception, row: tuple[object, ...]) -> None:
        """A row can't be decoded and is left out; ``what`` names it."""


class Records(Rows, Protocol):
    """Where sessions are kept: the journal's database."""

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


class Queued(msgspec.Struct, frozen=True, array_like=True):
    """A message that a session's client still has to get."""

    seq: int
    qos: int
    retain: bool
    identifiers: tuple[int, ...]


class QueueRow(msgspec.Struct, frozen=True):
    """A session's queue as it was noted."""

    scanned_seq: int
    """What the client has to get of the messages up to here is in ``queued``."""
    queued: tuple[Queued, ...]


class KeptWill(msgspec.Struct):
    """A will and the client that announced it."""

    client_id: str
    username: str | None
    address: str
    will: Will
    due_ns: int = 0
    """When it is to be published; 0 while its client is connected."""
    seq: int = 0
    """The number of the message that publishes it, noted before the message is in the journal."""


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
        """Forget a session with everything that belongs to it but its will (wills.py)."""
        self._record(
            [
                (f"DELETE FROM {table} WHERE client_id = ?", (client_id,))  # noqa: S608 - our names
                for table in _NAMES
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

    def save_queue(self, client_id: str, row: QueueRow) -> None:
        """Note what a client still has to get, so that a restart need not look for it."""
        values = (client_id, row.scanned_seq, msgspec.msgpack.encode(row.queued))
        self._record([("INSERT OR REPLACE INTO queue VALUES (?, ?, ?)", values)])

    def keep_will(self, kept: KeptWill) -> None:
        """Keep a will."""
        values = (kept.client_id, msgspec.msgpack.encode(kept, enc_hook=encode_hook))
        self._record([("INSERT OR REPLACE INTO will VALUES (?, ?)", values)])

    def forget_will(self, client_id: str) -> None:
        """Forget a will."""
        self._record([("DELETE FROM will WHERE client_id = ?", (client_id,))])

    def discard_uncommitted(self, last_seq: int) -> None:
        """Remove notes about messages that did not reach the journal before a crash."""
        self._record([("DELETE FROM unreleased WHERE seq > ?", (last_seq,))])


# --- reading, at start ------------------------------------------------------------------------
#
# A row that can't be decoded is left out, and said.

_Read = TypeVar("_Read")


def _each(
    records: Rows, what: str, sql: str, read: Callable[..., _Read], *parameters: object
) -> list[_Read]:
    """What ``read`` makes of the columns of each row; the first one names the client."""
    found = []
    for row in records.query(sql, parameters):
        try:
            found.append(read(*row))
        except (ValueError, TypeError, OverflowError) as error:
            records.unreadable(f"{what} of client {row[0]!r}", error, row)
    return found


def sessions(records: Rows) -> list[SessionRow]:
    """All sessions that were kept."""
    return _each(
        records,
        "The session",
        "SELECT client_id, username, expiry_s, settled_seq, left_ns FROM session",
        lambda *row: msgspec.convert(row, _SessionFields, strict=True),
    )


def client_ids(records: Rows) -> set[str]:
    """All clients of which anything but a will was kept."""
    tables = " UNION ".join(f"SELECT client_id FROM {table}" for table in _NAMES)  # noqa: S608 - our names
    return {row[0] for row in records.query(tables) if isinstance(row[0], str)}


def subscriptions(records: Rows) -> list[tuple[str, int, SubscribeOptions]]:
    """All subscriptions: client id, since when (sequence number), options."""
    return _each(
        records,
        "A subscription",
        "SELECT client_id, since_seq, body FROM subscription",
        lambda client_id, since, body: (
            text_of(client_id),
            number_of(since),
            msgspec.msgpack.decode(bytes_of(body), type=SubscribeOptions),
        ),
    )


def unreleased(records: Rows, last_seq: int) -> list[tuple[str, int]]:
    """Incoming QoS 2 exchanges that were open: client id, packet id."""
    return _each(
        records,
        "An incoming QoS 2 exchange",
        "SELECT client_id, packet_id FROM unreleased WHERE seq <= ?",
        lambda client_id, packet_id: (text_of(client_id), number_of(packet_id)),
        last_seq,
    )


def outgoing(records: Rows) -> list[ExchangeRow]:
    """Outgoing QoS 2 exchanges that were open."""

    def read(
        client_id: object, packet_id: object, seq: object, received: object, body: object
    ) -> ExchangeRow:
        kind = tuple[bool, tuple[int, ...]]
        retain, identifiers = msgspec.msgpack.decode(bytes_of(body), type=kind)
        return ExchangeRow(
            text_of(client_id),
            number_of(packet_id),
            number_of(seq),
            bool(received),
            retain,
            identifiers,
        )

    return _each(
        records,
        "An outgoing QoS 2 exchange",
        "SELECT client_id, packet_id, seq, received, body FROM outgoing",
        read,
    )


def settled(records: Rows) -> set[tuple[str, int]]:
    """QoS 2 messages that clients have, behind their sessions' places: client id, sequence."""
    return set(
        _each(
            records,
            "A note of a QoS 2 message",
            "SELECT client_id, seq FROM settled",
            lambda client_id, seq: (text_of(client_id), number_of(seq)),
        )
    )


def queues(records: Rows) -> dict[str, QueueRow]:
    """The queues that were noted, by client id."""
    return dict(
        _each(
            records,
            "The queue",
            "SELECT client_id, scanned_seq, body FROM queue",
            lambda client_id, seq, body: (
                text_of(client_id),
                QueueRow(
                    number_of(seq), msgspec.msgpack.decode(bytes_of(body), type=tuple[Queued, ...])
                ),
            ),
        )
    )


def wills(records: Rows) -> list[KeptWill]:
    """The wills that were kept."""
    return _each(
        records,
        "The will",
        "SELECT client_id, body FROM will",
        lambda _client_id, body: msgspec.msgpack.decode(
            bytes_of(body), type=KeptWill, dec_hook=decode_hook
        ),
    )


class _SessionFields(SessionRow, frozen=True, array_like=True):
    """A row of the session table."""


# --- the tables -------------------------------------------------------------------------------


class _Sample:
    """The first rows of each answer of an open database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows = 0
        self._foreign: list[Exception] = []

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        rows = self._connection.execute(f"{sql} LIMIT {_SAMPLE_ROWS}", parameters).fetchall()
        self._rows, self._foreign = len(rows), []
        return rows

    def unreadable(self, _what: str, error: Exception, row: tuple[object, ...]) -> None:
        if all(map(is_whole, row)):
            self._foreign.append(error)

    def judge(self, name: str) -> None:
        """Raise ``ValueError`` if this version wrote none of the rows; damage is another matter."""
        if self._foreign and len(self._foreign) == self._rows:
            raise ValueError(f"{name}: {self._foreign[0]}")


def _verify(connection: sqlite3.Connection) -> None:
    sample = _Sample(connection)
    for read in (sessions, subscriptions, outgoing, settled, queues, wills):
        read(sample)
        sample.judge(read.__name__)
    unreleased(sample, LARGEST_SEQ)


TABLES = Tables(
    """
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
CREATE TABLE IF NOT EXISTS queue(
    client_id TEXT PRIMARY KEY, scanned_seq INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS will(
    client_id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
""",
    # Delayed wills and the queues of absent clients came in before the first release, without a
    # number of their own.
    late_tables=frozenset({"queue", "will"}),
    verify=_verify,
)
