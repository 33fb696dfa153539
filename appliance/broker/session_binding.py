"""A client's connection and its session: bound at CONNECT, released when the connection ends.

A client has one connection at most. What was announced for the end of a connection (its will) is
published here. Not for: credentials (connect.py), what a session holds (sessions.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from appliance.broker.access import Access
from appliance.broker.door import Door
from appliance.broker.reauthorize import enforce_on_session
from appliance.broker.session_store import KeptWill
from appliance.broker.sessions import ClientConnection, Session, Sessions
from appliance.broker.subscriptions import Subscriptions
from appliance.broker.wills import Wills
from appliance.broker.work import Steps, at_once
from appliance.config.tables import LimitsConfig
from appliance.counters import Count, Counter
from appliance.mqtt.packets import Connect, PacketError, Reason, Will

logger = logging.getLogger(__name__)

MOST_WHILE_HELD = 100
"""Lasting sessions of a user, beyond which none is added while the memory is short."""
_NAMED = 3
"""How many clients or users a line of the log names."""
_TAKE_OVER_S = 1.0
"""How long an older connection of the same client may take to read why it ends."""


class SessionBinding:
    """Binds connections to sessions. Engine's loop only."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        subscriptions: Subscriptions,
        access: Access,
        door: Door,
        limits: Callable[[], LimitsConfig],
        count: Count,
        count_many: Callable[[Counter, int], None],
        clock_ns: Callable[[], int],
    ) -> None:
        self._sessions = sessions
        self._access = access
        self._subscriptions = subscriptions
        self._door = door
        self._limits = limits
        self._count = count
        self._count_many = count_many
        self._clock_ns = clock_ns
        self.wills = Wills(sessions.store, self._publish_will, asyncio.get_running_loop())
        self.is_stopping = False
        """The appliance stops: wills of connections that it ends are kept for the next start."""

    # --- a client connects ----------------------------------------------------------------------

    def is_connected(self, client_id: str) -> bool:
        """Whether the client has a connection already."""
        session = self._sessions.get(client_id)
        return session is not None and session.connection is not None

    async def make_way(self, client_id: str, username: str | None) -> None:
        """End the connection that a client has already (MQTT-3.1.4-2).

        A connection is cut off after a second if its client no longer reads.

        Raises:
            PacketError: the session belongs to another user.
        """
        while True:
            self._check_owner(client_id, username)
            session = self._sessions.get(client_id)
            if session is None or session.connection is None:
                return
            older = session.connection
            older.end(Reason.SESSION_TAKEN_OVER, "the same client id connected again")
            try:
                await asyncio.wait_for(older.wait_ended(), _TAKE_OVER_S)
            except TimeoutError:
                older.abort()
                await older.wait_ended()

    def _check_owner(self, client_id: str, username: str | None) -> None:
        """Let only the user whose session it is resume, end or take it over (MQTT 5, 5.4.2).

        A client without a name is a user of its own. When clients without a name may not connect
        any more, none could come back to their sessions: such a session belongs to the first
        user who connects with its client id.

        Raises:
            PacketError: the session belongs to another user.
        """
        session = self._sessions.get(client_id)
        if session is None or session.username == username:
            return
        if session.username is None and not session.connection and not self._access.takes_nameless:
            self._check_room_of(username)
            self._sessions.give(session, username)
            # What a client without a name could have may be more than this user may.
            at_once(
                enforce_on_session(
                    self._access, session, self._sessions, self._subscriptions, self._count
                )
            )
            return
        self._count(Counter.CONNECTIONS_REFUSED_CLIENT_ID_OF_ANOTHER_USER)
        raise PacketError(
            f"refused {_named(username)}: the client id has a session of"
            f" {_named(session.username)}, and `appliance session end` ends it",
            Reason.CLIENT_ID_NOT_VALID,
        )

    def bind(self, connection: ClientConnection, asked: Connect) -> bool:
        """Give a connection its session; returns whether an earlier session is resumed.

        The client has been admitted and has no other connection.

        Raises:
            PacketError: there are too many sessions, or the session belongs to another user.
        """
        client_id = connection.client_id
        self._check_owner(client_id, asked.username)
        kept = None if asked.will is None else _kept(connection, asked.will)
        if kept is not None:
            self._check_room_for_will(kept)
        session = self._sessions.get(client_id)
        resumed = session is not None and not asked.clean_start
        if session is None or not resumed:
            self._check_room(client_id, asked)
            self.wills.returned(client_id, asked.username, resumes=False)
            if session is None and client_id in self._sessions:
                at_once(self._end_all_expired(self._sessions.left_behind(client_id)))
            self.end_session(client_id)
            session = self._sessions.begin(client_id, asked.username, asked.session_expiry_s)
        else:
            self._sessions.resume(session, asked.session_expiry_s)
            self.wills.returned(client_id, asked.username, resumes=True)
        self._subscriptions.deny(session.outbox, self._access.denial(session.username, client_id))
        session.connection = connection
        session.version = connection.version
        connection.session = session
        if kept is not None:
            self.wills.announce(kept)
        return resumed

    def _check_room(self, client_id: str, asked: Connect) -> None:
        """Sessions that outlive their connections are bounded too.

        Raises:
            PacketError: there are too many.
        """
        if not asked.session_expiry_s or self._sessions.get(client_id) is not None:
            return
        bound = self._limits().max_sessions
        if len(self._sessions) >= bound:
            self._count(Counter.CONNECTIONS_REFUSED_LIMIT_SESSIONS)
            raise PacketError(
                f"there are {bound} sessions already: let clients connect with a clean session,"
                " or raise limits.max_sessions",
                Reason.QUOTA_EXCEEDED,
            )
        self._check_room_of(asked.username)

    def _check_room_of(self, username: str | None) -> None:
        """No user may have so many lasting sessions that others find no room.

        Raises:
            PacketError: this user has as many as one may have.
        """
        bound = self._limits().max_sessions_per_user
        if self._sessions.lasting_of(username) >= bound:
            self._count(Counter.CONNECTIONS_REFUSED_LIMIT_SESSIONS_OF_USER)
            raise PacketError(
                f"{_named(username)} has {bound} lasting sessions already: let clients connect with"
                " a clean session, or raise limits.max_sessions_per_user",
                Reason.QUOTA_EXCEEDED,
            )
        if self._door.is_held and self._sessions.lasting_of(username) >= MOST_WHILE_HELD:
            self._count(Counter.MEMORY_GROWTH_REFUSED)
            raise PacketError(
                f"{_named(username)} has {MOST_WHILE_HELD} lasting sessions or more, and the"
                " process has more memory in use than limits.max_memory",
                Reason.QUOTA_EXCEEDED,
            )

    def warn_of_full_users(self) -> None:
        """Name the users who have more sessions than they may: these stay, new ones are refused."""
        bound = self._limits().max_sessions_per_user
        for username, number in self._sessions.users_beyond(bound)[:_NAMED]:
            logger.warning(
                "%s has %d lasting sessions, more than limits.max_sessions_per_user (%d): these"
                " stay, and new ones are refused",
                _named(username),
                number,
                bound,
            )

    def _check_room_for_will(self, kept: KeptWill) -> None:
        """The wills of all clients are bounded together.

        Raises:
            PacketError: there is no room for this one.
        """
        limit = self._limits().max_wills_size
        if self.wills.has_room(kept, int(limit)):
            return
        self._count(Counter.CONNECTIONS_REFUSED_LIMIT_WILLS)
        raise PacketError(
            f"its will does not fit: those of all clients have {self.wills.bytes} bytes, and"
            f" limits.max_wills_size is {limit}",
            Reason.QUOTA_EXCEEDED,
        )

    # --- its connection ends --------------------------------------------------------------------

    def release(
        self, connection: ClientConnection, asked: Connect | None, *, said_goodbye: bool
    ) -> None:
        """A connection has ended: keep or end its session, and see to its will."""
        session, connection.session = connection.session, None
        if session is None or session.connection is not connection:
            return
        ended = self._sessions.leave(session)
        if not connection.counted_as_open:
            return
        logger.info(
            "client %s disconnected%s",
            connection.client_id,
            "" if said_goodbye else " without saying so",
        )
        will = None if asked is None else asked.will
        if will is None:
            return
        if said_goodbye:
            self.wills.drop(connection.client_id)
        elif will.delay_s and not ended:
            self.wills.begin(_kept(connection, will), self._clock_ns())
        elif not self.is_stopping:
            self.wills.publish(_kept(connection, will))

    def end_expired(self) -> Steps[None]:
        """End sessions that have expired, and publish the wills that are due."""
        yield from self.wills.publish_due(self._clock_ns())
        yield from self._end_all_expired(self._sessions.expired(), with_wills=True)

    def end_expired_at_start(self) -> None:
        """End sessions that expired while the appliance did not run.

        Wills of clients that were connected at its end still have their time of grace.
        """
        at_once(self._end_all_expired(self._sessions.expired()))

    def _end_all_expired(
        self, sessions: Iterable[Session], *, with_wills: bool = False
    ) -> Steps[None]:
        """End sessions, and the wills that wait for their end; say what is lost."""
        lost = []
        for session in sessions:
            queued = session.outbox.queued
            if queued:
                lost.append((session.client_id, queued))
            if self._sessions.is_cut_short(session):
                self._count(Counter.SESSIONS_ENDED_AWAY_TOO_LONG)
            self._sessions.end(session.client_id)
            logger.info("the session of client %s has expired", session.client_id)
            if with_wills:
                self.wills.end(session.client_id)
            yield
        if lost:
            dropped = sum(queued for _, queued in lost)
            self._count_many(Counter.DELIVERIES_DROPPED_SESSION_ENDED, dropped)
            named = ", ".join(f"{client_id} ({queued})" for client_id, queued in lost[:_NAMED])
            logger.warning(
                "%d messages that waited for absent clients are dropped, because their sessions"
                " have expired: %s%s",
                dropped,
                named,
                " and others" if len(lost) > _NAMED else "",
            )

    def end_for_operator(self, client_id: str) -> int | None:
        """End a session and its connection; returns how many messages waited in it.

        ``None``: the client has none. Its will is published, as at the end of every session and of
        every connection that the client did not end itself (MQTT 5, section 3.1.2.5).
        """
        session = self._sessions.get(client_id)
        if session is None:
            return None
        queued = session.outbox.queued
        if queued:
            self._count_many(Counter.DELIVERIES_DROPPED_SESSION_ENDED, queued)
        if session.connection is None:
            self.end_session(client_id)
        else:
            # Without a time to outlive it, the session ends with its connection.
            self._sessions.keep_for(session, 0)
            session.connection.end(
                Reason.ADMINISTRATIVE_ACTION, "an operator ended the client's session"
            )
        return queued

    def end_session(self, client_id: str) -> None:
        """End a session with everything that it holds."""
        self.wills.end(client_id)
        self._sessions.end(client_id)

    def _publish_will(self, kept: KeptWill, announce: Callable[[int], None]) -> None:
        will = kept.will
        if not self._access.may_publish(kept.username, kept.client_id, will.topic):
            # It was permitted when the client connected.
            self._count(Counter.PUBLISHES_REFUSED_NOT_ALLOWED)
            return
        self._door.publish(
            will.topic,
            will.payload,
            qos=will.qos,
            retain=will.retain,
            properties=will.properties,
            client_id=kept.client_id,
            username=kept.username,
            address=kept.address,
            announce=announce,
        )


def _named(username: str | None) -> str:
    return "a client without a name" if username is None else f"user {username}"


def _kept(connection: ClientConnection, will: Will) -> KeptWill:
    return KeptWill(connection.client_id, connection.username, connection.address, will)
