"""Sessions of outside clients: what outlives a connection.

A persistent session keeps its subscriptions, its queue, and the QoS 2 exchanges that are open in
both directions; after a restart its undelivered messages are found again in the journal. Not for:
the packets that change a session (connection.py), delivery (outbox.py), SQL (session_store.py).
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from appliance.broker import session_store as kept
from appliance.broker.access import Proof
from appliance.broker.outbox import Delivery, Outbox
from appliance.broker.packet_ids import PacketIds
from appliance.broker.session_store import (
    Queued,
    QueueRow,
    Record,
    Records,
    SessionRow,
    SessionStore,
)
from appliance.broker.subscriptions import Subscriptions
from appliance.model import Message
from appliance.mqtt.packets import FOR_EVER, Connect, Reason, SubscribeOptions
from appliance.mqtt.topics import Matcher

__all__ = ["ClientConnection", "Records", "Session", "Sessions"]

_READ_AT_ONCE = 1000
_LONGEST_LAG = 10_000
"""A session without traffic has its place noted when the journal is so many messages ahead."""
_LONGEST_SCAN = 100_000
"""A queue is noted when the journal is so many messages ahead of where a restart would begin to
look for what belongs into it: that is a fraction of a second."""
_NOTED_AT_ONCE = 10_000
"""How many queued messages are noted in one go, which takes some milliseconds of the loop."""
_LONGEST_NOTE = 100_000
"""A longer queue is noted at an ordered stop only."""


class ClientConnection(Protocol):
    """A connection, as sessions and the broker see it."""

    listener_name: str
    peer: tuple[str, int]
    address: str
    """``host:port`` of the client."""
    connected_ns: int
    client_id: str
    username: str | None
    proof: Proof | None
    """What the client was admitted on."""
    version: int
    session: Session | None
    counted_as_open: bool
    """The client has been admitted."""
    asked: Connect | None
    """What its CONNECT asked for; ``None`` until it has come."""

    @property
    def ssl_object(self) -> Any:
        """The TLS object of the connection; ``None`` without TLS."""

    @property
    def has_sent(self) -> bool:
        """Whether any byte of MQTT has come."""

    @property
    def waits_for_its_turn(self) -> bool:
        """Whether something that has come is to be looked at in a later step of the loop."""

    @property
    def is_open(self) -> bool:
        """Whether the client may send anything but CONNECT."""

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""

    @property
    def messages_in(self) -> int:
        """Messages that the client has published on this connection."""

    def overdue(self, now: float) -> str | None:
        """Why the connection must end at this time of the loop's clock, or ``None``."""

    def forget_topics(self) -> None:
        """Ask the rules again where the client may publish."""

    def pause(self) -> None:
        """Read nothing from the client."""

    def end(self, reason: Reason, text: str) -> None:
        """End the connection for a reason that the client is told."""

    def end_quietly(self, reason: Reason) -> None:
        """The same without a line in the log."""

    def abort(self) -> None:
        """Close at once."""

    def fail(self, error: Exception) -> None:
        """Close at once because of an error of the appliance's own."""

    async def wait_ended(self) -> None:
        """Return when the connection is closed and has let go of its session."""


class Session:
    """One client's session."""

    __slots__ = (
        "connection",
        "expiry_s",
        "left_ns",
        "outbox",
        "unreleased",
        "username",
        "version",
    )

    def __init__(self, outbox: Outbox, username: str | None, expiry_s: int) -> None:
        self.outbox = outbox
        self.username = username
        self.expiry_s = expiry_s
        self.connection: ClientConnection | None = None
        self.left_ns: int | None = None
        self.unreleased = PacketIds()
        self.version = 0
        """The protocol version of its last connection, 0 if that was before a restart."""

    @property
    def client_id(self) -> str:
        return self.outbox.client_id

    @property
    def persistent(self) -> bool:
        """Whether it outlives its connection."""
        return self.expiry_s > 0

    def has_been_away(self, seconds: int, now_ns: int) -> bool:
        """Whether its client has been away for so long; ``FOR_EVER`` is never over."""
        return (
            self.connection is None
            and self.left_ns is not None
            and seconds != FOR_EVER
            and now_ns - self.left_ns >= seconds * 1_000_000_000
        )


class Sessions:
    """All sessions.

    Args of the constructor:
        record: puts statements into the journal's next commit.
        age_clock_ns: the time that what an absent client asked for is cut short by; a clock that
            was just set far ahead ends no session before its time.
        longest_s: how long an absent client's session is kept at most, in seconds.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        *,
        make_outbox: Callable[[str], Outbox],
        record: Record,
        clock_ns: Callable[[], int],
        last_seq: Callable[[], int],
        age_clock_ns: Callable[[], int] | None = None,
        longest_s: Callable[[], int] = lambda: FOR_EVER,
    ) -> None:
        self._sessions: dict[str, Session] = {}
        self._age_clock_ns = age_clock_ns or clock_ns
        self._longest_s = longest_s
        self._lasting: collections.Counter[str | None] = collections.Counter()
        """How many persistent sessions each user has."""
        self._subscriptions = subscriptions
        self._make_outbox = make_outbox
        self.store = SessionStore(record)
        self._clock_ns = clock_ns
        self._last_seq = last_seq
        self._places: dict[str, tuple[int, int]] = {}
        self._scanned: dict[str, int] = {}
        """Up to where each session's queue was noted."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, client_id: str) -> bool:
        """Whether there is a session, expired or not."""
        return client_id in self._sessions

    def get(self, client_id: str) -> Session | None:
        """The session of a client, unless it has expired."""
        session = self._sessions.get(client_id)
        return None if session is None or self.has_expired(session) else session

    def all(self) -> list[Session]:
        return list(self._sessions.values())

    def is_current(self, session: Session) -> bool:
        """Whether it has neither ended nor been replaced."""
        return self._sessions.get(session.client_id) is session

    def has_expired(self, session: Session) -> bool:
        """Whether its client stayed away too long: for the time that it asked for, or at all."""
        return session.has_been_away(session.expiry_s, self._clock_ns()) or self.is_cut_short(
            session
        )

    def is_cut_short(self, session: Session) -> bool:
        """Whether its client stayed away for longer than any may, and wanted still longer."""
        longest = self._longest_s()
        return session.expiry_s > longest and session.has_been_away(longest, self._age_clock_ns())

    def expired(self) -> Iterator[Session]:
        """Sessions that have expired and were not ended yet; each may be ended when it comes."""
        # Ten thousand sessions are looked at every second, so the clocks are read once.
        now, aged, longest = self._clock_ns(), self._age_clock_ns(), self._longest_s()
        for session in list(self._sessions.values()):
            if session.connection is None and (
                session.has_been_away(session.expiry_s, now) or session.has_been_away(longest, aged)
            ):
                # It may have ended since, if the caller has given way to others.
                yield from (session,) if self.is_current(session) else ()

    def left_behind(self, client_id: str) -> list[Session]:
        """The session of a client if it has expired and was not ended yet."""
        session = self._sessions.get(client_id)
        return [session] if session is not None and self.has_expired(session) else []

    def kept_for(self, session: Session) -> int:
        """Seconds for which it outlives its connection, ``FOR_EVER`` among them."""
        return min(session.expiry_s, self._longest_s())

    def lasting_of(self, username: str | None) -> int:
        """How many persistent sessions a user has."""
        return self._lasting[username]

    def users_beyond(self, bound: int) -> list[tuple[str | None, int]]:
        """The users who have more persistent sessions than this, with their number."""
        return [each for each in self._lasting.most_common() if each[1] > bound]

    # --- life -----------------------------------------------------------------------------------

    def begin(self, client_id: str, username: str | None, expiry_s: int) -> Session:
        """A new session in place of any that was there."""
        if client_id in self._sessions:
            self.end(client_id)
        session = Session(self._make_outbox(client_id), username, 0)
        self._sessions[client_id] = session
        self.keep_for(session, expiry_s)
        return session

    def resume(self, session: Session, expiry_s: int) -> None:
        """The client is back; its new connection says how long the session is to be kept."""
        session.left_ns = None
        self.keep_for(session, expiry_s)

    def keep_for(self, session: Session, expiry_s: int) -> None:
        """Change how long the session outlives its connection."""
        was_persistent = session.persistent
        session.expiry_s = expiry_s
        session.outbox.persistent = session.persistent
        if session.persistent != was_persistent:
            self._count_lasting(session.username, 1 if session.persistent else -1)
        if session.persistent:
            if session.outbox.keeper is None:
                session.outbox.keeper = self.store
            self._save(session)
        elif was_persistent:
            session.outbox.keeper = None
            self._erase(session.client_id)

    def give(self, session: Session, username: str | None) -> None:
        """It is another user's from now on; its next connection saves it."""
        if session.persistent:
            self._count_lasting(session.username, -1)
            self._count_lasting(username, 1)
        session.username = username

    def _count_lasting(self, username: str | None, change: int) -> None:
        self._lasting[username] += change
        if not self._lasting[username]:
            del self._lasting[username]

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
            session.outbox.keeper = None
            session.outbox.clear()
            if session.persistent:
                self._count_lasting(session.username, -1)
                self._erase(client_id)

    def _erase(self, client_id: str) -> None:
        self._places.pop(client_id, None)
        self._scanned.pop(client_id, None)
        self.store.erase(client_id)

    # --- what a client does in its session ------------------------------------------------------

    def subscribe(self, session: Session, options: SubscribeOptions) -> bool:
        """Add or replace a subscription; returns whether it is new."""
        # Where messages wait for the client because of the subscription that this one replaces,
        # a restart must find them again.
        keeps = self._subscriptions.qos(session.client_id, options.topic_filter) > 0
        new = self._subscriptions.add(session.outbox, options)
        if session.persistent:
            self.store.subscribe(session.client_id, options, 0 if keeps else self._last_seq())
        return new

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Remove a subscription; returns whether there was one."""
        removed = self._subscriptions.remove(session.client_id, topic_filter)
        if removed and session.persistent:
            self.store.unsubscribe(session.client_id, topic_filter)
        return removed

    def note_exchanges(self, session: Session, exchanges: Iterable[tuple[int, int]]) -> None:
        """QoS 2 packet ids: (id, sequence number) was taken, (id, 0) was released."""
        if session.persistent:
            self.store.note_exchanges(session.client_id, exchanges)

    # --- the place in the journal ---------------------------------------------------------------

    def save_places(self, *, all_of_them: bool = False) -> None:
        """Note for persistent sessions up to where their clients have everything.

        A session that nothing happened to is left alone for a while: no message behind its place
        is for it.
        """
        for _ in self.saving_places(all_of_them=all_of_them):
            pass

    def saving_places(self, *, all_of_them: bool = False) -> Iterator[None]:
        """``save_places`` in steps, one for each session; sessions may begin and end in between."""
        noted = 0
        for session in list(self._sessions.values()):
            if session.persistent and self._sessions.get(session.client_id) is session:
                if all_of_them or noted < _NOTED_AT_ONCE:
                    noted += self._save_late_queue(session, at_stop=all_of_them)
                self._save_late_place(session, at_stop=all_of_them)
            yield

    def _save_late_place(self, session: Session, *, at_stop: bool) -> None:
        place, activity = self._places.get(session.client_id, (-1, -1))
        now = self._place(session)
        if place == now:
            return
        lag = _LONGEST_LAG if session.outbox.activity == activity else 0
        if at_stop or now - place > lag:
            self._save(session)

    def _save_late_queue(self, session: Session, *, at_stop: bool) -> int:
        """Note a queue if a restart would take long to fill it; returns how many were noted."""
        last, queued = self._last_seq(), session.outbox.queued
        scanned = max(
            self._scanned.get(session.client_id, 0), self._places.get(session.client_id, (0, 0))[0]
        )
        is_late = last > scanned if at_stop else last - scanned > _LONGEST_SCAN
        if not is_late or not queued or (queued > _LONGEST_NOTE and not at_stop):
            return 0
        self.save_queue(session)
        return queued

    def save_queue(self, session: Session) -> None:
        """Note what the client still has to get."""
        if session.persistent:
            last = self._last_seq()
            row = QueueRow(
                last,
                tuple(
                    Queued(each.message.seq, each.qos, each.retain, each.identifiers)
                    for each in session.outbox.unsettled()
                    # A fan-out that is under way is looked for by a restart.
                    if each.message.seq <= last
                ),
            )
            self._scanned[session.client_id] = row.scanned_seq
            self.store.save_queue(session.client_id, row)

    def _place(self, session: Session) -> int:
        """Up to where the client has everything; a retained message that is sent late is older."""
        unsettled = session.outbox.unsettled_seq()
        noted, _ = self._places.get(session.client_id, (0, 0))
        return self._last_seq() if unsettled is None else max(noted, unsettled - 1)

    def _save(self, session: Session) -> None:
        place = self._place(session)
        self._places[session.client_id] = (place, session.outbox.activity)
        self.store.save(
            SessionRow(
                session.client_id, session.username, session.expiry_s, place, session.left_ns
            )
        )

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: a session is kept for as long as before."""
        for session in self._sessions.values():
            if session.left_ns is not None:
                session.left_ns += step_ns
                if session.persistent:
                    self._save(session)

    # --- the last run ---------------------------------------------------------------------------

    def load(self, records: Records) -> None:
        """Take the persistent sessions over from the last run. Reads the database: at start only.

        Among them are those that have expired meanwhile, so that what waits in them is known.

        Messages behind a session's place are matched against its subscriptions again; at QoS 1
        that may repeat what the client acknowledged in the last second before a crash, which MQTT
        allows; at QoS 2 each settled message is on record, so nothing is repeated.
        """
        now = self._clock_ns()
        self.store.discard_uncommitted(self._last_seq())
        places: dict[str, int] = {}
        for row in kept.sessions(records):
            session = Session(self._make_outbox(row.client_id), row.username, row.expiry_s)
            # A client that left in the future: the clock was set back since.
            session.left_ns = now if row.left_ns is None else min(now, row.left_ns)
            self._count_lasting(row.username, 1)
            session.outbox.persistent = True
            session.outbox.keeper = self.store
            self._sessions[row.client_id] = session
            places[row.client_id] = row.place
            self._places[row.client_id] = (row.place, session.outbox.activity)
        # A session that could not be read: its client begins a new one, without the old filters.
        for client_id in kept.client_ids(records) - self._sessions.keys():
            self.store.erase(client_id)
        for client_id, packet_id in kept.unreleased(records, self._last_seq()):
            if client_id in self._sessions:
                self._sessions[client_id].unreleased.add(packet_id)
        settled = kept.settled(records) | self._restore_exchanges(records)
        since: dict[tuple[str, str], int] = {}
        matcher: Matcher[tuple[str, SubscribeOptions]] = Matcher()
        for client_id, since_seq, options in kept.subscriptions(records):
            found = self._sessions.get(client_id)
            if found is None:
                continue
            self._subscriptions.add(found.outbox, options)
            since[client_id, options.topic_filter] = since_seq
            if not options.topic_filter.startswith("$share/"):
                matcher.add(options.topic_filter, (client_id, options))
        self._refill_noted(records, places, settled)
        if places and len(matcher):
            self._refill(records, places, since, matcher, settled)

    def _refill_noted(
        self, records: Records, places: dict[str, int], settled: set[tuple[str, int]]
    ) -> None:
        """Fill the queues with what was noted; ``places`` are then where looking begins."""
        wanted: list[tuple[int, str, Queued]] = []
        for client_id, row in kept.queues(records).items():
            place = places.get(client_id)
            if place is None or row.scanned_seq <= place:
                continue
            places[client_id] = self._scanned[client_id] = row.scanned_seq
            wanted += [
                (each.seq, client_id, each)
                for each in row.queued
                if each.seq > place and (client_id, each.seq) not in settled
            ]
        found: dict[int, Message] = {}
        # In the journal's order, so that each of its chunks is read once.
        for seq, client_id, each in sorted(wanted, key=lambda one: one[:2]):
            if seq not in found:
                found = {message.seq: message for message in records.read(seq - 1, 1)}
            if (message := found.get(seq)) is not None:  # retention may have taken it
                self._sessions[client_id].outbox.deliver(
                    message,
                    each.qos,
                    retain=each.retain,
                    identifiers=each.identifiers,
                    was_sent=True,
                )

    def _restore_exchanges(self, records: Records) -> set[tuple[str, int]]:
        """Outgoing QoS 2 exchanges go on under their packet ids; returns their messages."""
        under_way = set()
        for row in kept.outgoing(records):
            session = self._sessions.get(row.client_id)
            if session is None:
                continue
            under_way.add((row.client_id, row.seq))
            found = [m for m in records.read(row.seq - 1, 1) if m.seq == row.seq]
            # Without its message (retention took it) the exchange can still be brought to an end.
            message = found[0] if found else Message(row.seq, 0, "", b"")
            session.outbox.restore(
                row.packet_id,
                Delivery(
                    message,
                    2,
                    row.retain,
                    row.identifiers,
                    sent=True,
                    received=row.received or not found,
                ),
            )
        return under_way

    def _refill(
        self,
        records: Records,
        places: dict[str, int],
        since: dict[tuple[str, str], int],
        matcher: Matcher[tuple[str, SubscribeOptions]],
        settled: set[tuple[str, int]],
    ) -> None:
        position = min(places.values())
        # What is committed behind this point is fanned out as it would be without a restart.
        last = self._last_seq()
        while position < last and (messages := records.read(position, _READ_AT_ONCE)):
            position = messages[-1].seq
            for message in messages:
                if message.qos == 0 or message.seq > last:
                    continue
                wanted: dict[str, tuple[int, bool, tuple[int, ...]]] = {}
                for client_id, options in matcher.match(message.topic):
                    if (
                        message.seq > places[client_id]
                        and message.seq > since[client_id, options.topic_filter]
                        and (client_id, message.seq) not in settled
                        and not (options.no_local and message.client_id == client_id)
                    ):
                        qos, retain, identifiers = wanted.get(client_id, (0, False, ()))
                        if options.identifier is not None:
                            identifiers = (*identifiers, options.identifier)
                        wanted[client_id] = (
                            max(qos, options.qos),
                            retain or options.retain_as_published,
                            identifiers,
                        )
                for client_id, (qos, retain, identifiers) in wanted.items():
                    self._sessions[client_id].outbox.deliver(
                        message,
                        min(qos, message.qos),
                        retain=message.retain and retain,
                        identifiers=identifiers,
                        was_sent=True,
                    )
