"""Sessions of outside clients: what outlives a connection, in memory and in the journal's database.

A persistent session keeps its subscriptions, the packet ids of QoS 2 messages that its client has
not released, and a place in the journal from which undelivered messages are found again after a
restart. Not for: the packets that change a session (connection.py), delivery (outbox.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import msgspec

from appliance.broker.outbox import Outbox
from appliance.broker.packets import FOR_EVER, SubscribeOptions
from appliance.broker.subscriptions import Subscriptions
from appliance.model import Message
from appliance.topics import Matcher

if TYPE_CHECKING:
    from appliance.broker.connection import Connection
    from appliance.broker.door import Statement

SCHEMA = """
CREATE TABLE IF NOT EXISTS session(
    client_id TEXT PRIMARY KEY, username TEXT, expiry_s INTEGER NOT NULL,
    settled_seq INTEGER NOT NULL, left_ns INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscription(
    client_id TEXT NOT NULL, filter TEXT NOT NULL, since_seq INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (client_id, filter)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unreleased(
    client_id TEXT NOT NULL, packet_id INTEGER NOT NULL,
    PRIMARY KEY (client_id, packet_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settled(
    client_id TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (client_id, seq)) WITHOUT ROWID;
"""


class Records(Protocol):
    """Where sessions are kept: the journal's database."""

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]: ...

    def read(self, after_seq: int, limit: int) -> list[Message]: ...


class Session:
    """One client's session."""

    __slots__ = (
        "connection",
        "expiry_s",
        "left_ns",
        "outbox",
        "unreleased",
        "username",
        "will_due_ns",
    )

    def __init__(self, outbox: Outbox, username: str | None, expiry_s: int) -> None:
        self.outbox = outbox
        self.username = username
        self.expiry_s = expiry_s
        self.connection: Connection | None = None
        self.left_ns: int | None = None
        self.unreleased: set[int] = set()
        self.will_due_ns: int | None = None

    @property
    def client_id(self) -> str:
        return self.outbox.client_id

    @property
    def persistent(self) -> bool:
        """Whether it outlives its connection."""
        return self.expiry_s > 0

    def expired(self, now_ns: int) -> bool:
        """Whether its client stayed away too long."""
        return (
            self.connection is None
            and self.left_ns is not None
            and self.expiry_s != FOR_EVER
            and now_ns - self.left_ns >= self.expiry_s * 1_000_000_000
        )


class Sessions:
    """All sessions. ``record`` puts statements into the journal's next commit."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        *,
        make_outbox: Callable[[str], Outbox],
        record: Callable[[Iterable[Statement]], None],
        clock_ns: Callable[[], int],
        last_seq: Callable[[], int],
    ) -> None:
        self._sessions: dict[str, Session] = {}
        self._subscriptions = subscriptions
        self._make_outbox = make_outbox
        self._record = record
        self._clock_ns = clock_ns
        self._last_seq = last_seq
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, client_id: str) -> Session | None:
        return self._sessions.get(client_id)

    def all(self) -> list[Session]:
        return list(self._sessions.values())

    def begin(self, client_id: str, username: str | None, expiry_s: int) -> Session:
        """A new session in place of any that was there."""
        if client_id in self._sessions:
            self.end(client_id)
        session = Session(self._make_outbox(client_id), username, expiry_s)
        session.outbox.persistent = session.persistent
        self._sessions[client_id] = session
        if session.persistent:
            self._save(session)
        return session

    def resume(self, session: Session, username: str | None, expiry_s: int) -> None:
        """The client is back; its new connection says how long the session is to be kept."""
        was_persistent = session.persistent
        session.username = username
        session.left_ns = None
        self.keep_for(session, expiry_s)
        if was_persistent and not session.persistent:
            self._erase(session.client_id)

    def keep_for(self, session: Session, expiry_s: int) -> None:
        """Change how long the session outlives its connection."""
        session.expiry_s = expiry_s
        session.outbox.persistent = session.persistent
        if session.persistent:
            self._save(session)

    def leave(self, session: Session) -> bool:
        """The connection has ended; returns whether the session has too."""
        session.connection = None
        session.left_ns = self._clock_ns()
        session.outbox.detach()
        if session.persistent:
            self._save(session)
            return False
        self.end(session.client_id)
        return True

    def end(self, client_id: str) -> None:
        """Forget a session, in memory and in the database."""
        session = self._sessions.pop(client_id, None)
        self._subscriptions.forget(client_id)
        if session is not None:
            session.outbox.persistent = False
            session.outbox.clear()
            if session.persistent:
                self._erase(client_id)

    def subscribe(self, session: Session, options: SubscribeOptions) -> bool:
        """Add or replace a subscription; returns whether it is new."""
        new = self._subscriptions.add(session.outbox, options)
        if session.persistent:
            self._record(
                [
                    (
                        "INSERT OR REPLACE INTO subscription VALUES (?, ?, ?, ?)",
                        (
                            session.client_id,
                            options.topic_filter,
                            self._last_seq(),
                            msgspec.msgpack.encode(options),
                        ),
                    )
                ]
            )
        return new

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Remove a subscription; returns whether there was one."""
        removed = self._subscriptions.remove(session.client_id, topic_filter)
        if removed and session.persistent:
            self._record(
                [
                    (
                        "DELETE FROM subscription WHERE client_id = ? AND filter = ?",
                        (session.client_id, topic_filter),
                    )
                ]
            )
        return removed

    def hold(self, session: Session, packet_ids: Iterable[int]) -> None:
        """QoS 2 messages with these ids were taken and are not released yet."""
        if session.persistent:
            self._record(
                [
                    ("INSERT OR IGNORE INTO unreleased VALUES (?, ?)", (session.client_id, number))
                    for number in packet_ids
                ]
            )

    def release(self, session: Session, packet_ids: Iterable[int]) -> None:
        """The client released these ids: the exchange is complete."""
        if session.persistent:
            self._record(
                [
                    (
                        "DELETE FROM unreleased WHERE client_id = ? AND packet_id = ?",
                        (session.client_id, number),
                    )
                    for number in packet_ids
                ]
            )

    def settled(self, session: Session, seq: int) -> None:
        """A QoS 2 message is with the client: it must not be sent again, whatever happens."""
        if session.persistent and seq:
            self._record(
                [("INSERT OR IGNORE INTO settled VALUES (?, ?)", (session.client_id, seq))]
            )

    def save_places(self) -> None:
        """Note for each persistent session up to where its client has everything."""
        for session in self._sessions.values():
            if session.persistent and self._places.get(session.client_id) != self._place(session):
                self._save(session)

    def _place(self, session: Session) -> int:
        unsettled = session.outbox.unsettled_seq()
        return self._last_seq() if unsettled is None else unsettled - 1

    def _save(self, session: Session) -> None:
        place = self._place(session)
        self._places[session.client_id] = place
        self._record(
            [
                (
                    "INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?)",
                    (
                        session.client_id,
                        session.username,
                        session.expiry_s,
                        place,
                        session.left_ns,
                    ),
                ),
                (
                    "DELETE FROM settled WHERE client_id = ? AND seq <= ?",
                    (session.client_id, place),
                ),
            ]
        )

    def _erase(self, client_id: str) -> None:
        self._places.pop(client_id, None)
        self._record(
            [
                (f"DELETE FROM {table} WHERE client_id = ?", (client_id,))  # noqa: S608 - our names
                for table in ("session", "subscription", "unreleased", "settled")
            ]
        )

    def load(self, records: Records) -> None:
        """Take the persistent sessions over from the last run. Reads the database: at start only.

        Messages behind a session's place are matched against its subscriptions again; at QoS 1
        that may repeat what the client acknowledged in the last second before a crash, which MQTT
        allows; at QoS 2 each settled message is on record, so nothing is repeated.
        """
        now = self._clock_ns()
        places: dict[str, int] = {}
        for client_id, username, expiry_s, place, left_ns in records.query(
            "SELECT client_id, username, expiry_s, settled_seq, left_ns FROM session"
        ):
            if not isinstance(client_id, str) or not isinstance(expiry_s, int):
                continue
            session = Session(
                self._make_outbox(client_id),
                username if isinstance(username, str) else None,
                expiry_s,
            )
            session.outbox.persistent = True
            session.left_ns = left_ns if isinstance(left_ns, int) else now
            if session.expired(now):
                self._sessions[client_id] = session
                self.end(client_id)
                continue
            self._sessions[client_id] = session
            places[client_id] = place if isinstance(place, int) else 0
        since: dict[tuple[str, str], int] = {}
        matcher: Matcher[tuple[str, SubscribeOptions]] = Matcher()
        for client_id, topic_filter, since_seq, body in records.query(
            "SELECT client_id, filter, since_seq, body FROM subscription"
        ):
            found = self._sessions.get(str(client_id))
            if found is None or not isinstance(body, bytes) or not isinstance(since_seq, int):
                continue
            options = msgspec.msgpack.decode(body, type=SubscribeOptions)
            self._subscriptions.add(found.outbox, options)
            since[found.client_id, str(topic_filter)] = since_seq
            if not options.topic_filter.startswith("$share/"):
                matcher.add(options.topic_filter, (found.client_id, options))
        for client_id, packet_id in records.query("SELECT client_id, packet_id FROM unreleased"):
            holder = self._sessions.get(str(client_id))
            if holder is not None and isinstance(packet_id, int):
                holder.unreleased.add(packet_id)
        settled = {
            (client_id, seq)
            for client_id, seq in records.query("SELECT client_id, seq FROM settled")
        }
        self._refill(records, places, since, matcher, settled)

    def _refill(
        self,
        records: Records,
        places: dict[str, int],
        since: dict[tuple[str, str], int],
        matcher: Matcher[tuple[str, SubscribeOptions]],
        settled: set[tuple[object, object]],
    ) -> None:
        if not places or not len(matcher):
            return
        position = min(places.values())
        while messages := records.read(position, 1000):
            position = messages[-1].seq
            for message in messages:
                if message.qos == 0:
                    continue
                wanted: dict[str, int] = {}
                for client_id, options in matcher.match(message.topic):
                    if (
                        message.seq > places[client_id]
                        and message.seq > since[client_id, options.topic_filter]
                        and (client_id, message.seq) not in settled
                        and not (options.no_local and message.client_id == client_id)
                    ):
                        wanted[client_id] = max(wanted.get(client_id, 0), options.qos)
                for client_id, qos in wanted.items():
                    self._sessions[client_id].outbox.deliver(
                        message, min(qos, message.qos), retain=False
                    )
