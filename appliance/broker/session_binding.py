"""A client's connection and its session: bound at CONNECT, released when the connection ends.

A client has one connection at most. What was announced for the end of a connection (its will) is
published here. Not for: credentials (connect.py), what a session holds (sessions.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from appliance.broker.access import Access
from appliance.broker.door import Door
from appliance.broker.session_store import KeptWill
from appliance.broker.sessions import ClientConnection, Sessions
from appliance.broker.subscriptions import Subscriptions
from appliance.broker.wills import Wills
from appliance.config.tables import LimitsConfig
from appliance.counters import Count, Counter
from appliance.mqtt.packets import Connect, PacketError, Reason, Will

logger = logging.getLogger(__name__)

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
        clock_ns: Callable[[], int],
    ) -> None:
        self._sessions = sessions
        self._access = access
        self._subscriptions = subscriptions
        self._door = door
        self._limits = limits
        self._count = count
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
        if session.username is None and session.connection is None and not self._access.is_open:
            session.username = username
            return
        self._count(Counter.CONNECTIONS_REFUSED_CLIENT_ID_OF_ANOTHER_USER)
        owner = "a client without a name" if session.username is None else session.username
        user = "a client without a name" if username is None else username
        raise PacketError(
            f"refused {user}: the client id has a session of {owner}", Reason.CLIENT_ID_NOT_VALID
        )

    def bind(self, connection: ClientConnection, asked: Connect) -> bool:
        """Give a connection its session; returns whether an earlier session is resumed.

        The client has been admitted and has no other connection.

        Raises:
            PacketError: there are too many sessions, or the session belongs to another user.
        """
        client_id = connection.client_id
        self._check_owner(client_id, asked.username)
        session = self._sessions.get(client_id)
        resumed = session is not None and not asked.clean_start
        if session is None or not resumed:
            self._check_room(client_id, asked)
            self.wills.returned(client_id, asked.username, resumes=False)
            self.end_session(client_id)
            session = self._sessions.begin(client_id, asked.username, asked.session_expiry_s)
        else:
            self._sessions.resume(session, asked.session_expiry_s)
            self.wills.returned(client_id, asked.username, resumes=True)
        self._subscriptions.deny(session.outbox, self._access.denial(session.username, client_id))
        session.connection = connection
        session.version = connection.version
        connection.session = session
        if asked.will is not None:
            self.wills.announce(_kept(connection, asked.will))
        return resumed

    def _check_room(self, client_id: str, asked: Connect) -> None:
        """Sessions that outlive their connections are bounded too.

        Raises:
            PacketError: there are too many.
        """
        bound = self._limits().max_sessions
        if asked.session_expiry_s and len(self._sessions) >= bound:
            if self._sessions.get(client_id) is not None:
                return
            self._count(Counter.CONNECTIONS_REFUSED_LIMIT_SESSIONS)
            raise PacketError(
                f"there are {bound} sessions already: let clients connect with a clean session,"
                " or raise limits.max_sessions",
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

    def end_expired(self) -> None:
        """End sessions that have expired, and publish the wills that are due."""
        now_ns = self._clock_ns()
        self.wills.publish_due(now_ns)
        for session in self._sessions.all():
            if session.expired(now_ns):
                self.end_session(session.client_id)

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


def _kept(connection: ClientConnection, will: Will) -> KeptWill:
    return KeptWill(connection.client_id, connection.username, connection.address, will)
