"""The broker as one thing: listeners, connections, sessions, the door and the session host.

Not for: what any of them does in detail. Everything here belongs to the engine's loop but
``clients``, ``listener_states`` and ``counters``, which are safe from any thread.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from appliance.broker import session_store
from appliance.broker.access import Access, origin_of
from appliance.broker.amqtt_host import SessionHost
from appliance.broker.connection import Connection
from appliance.broker.door import Door
from appliance.broker.listener import Listener
from appliance.broker.outbox import Outbox
from appliance.broker.reauthorize import Enforced, enforce
from appliance.broker.session_store import KeptWill
from appliance.broker.sessions import Records, Session, Sessions
from appliance.broker.subscriptions import Retained, Subscriptions
from appliance.broker.wills import Wills
from appliance.config import LimitsConfig, ListenerConfig
from appliance.counters import Counter
from appliance.engine_api import ClientState, ListenerState
from appliance.files import allow_open_files
from appliance.model import Message
from appliance.mqtt.packets import Connect, PacketError, Reason, Will

if TYPE_CHECKING:
    from appliance.broker.plugins import Plugins

logger = logging.getLogger(__name__)

_SWEEP_S = 1.0
_STOP_S = 5.0
_TAKE_OVER_S = 1.0
_OTHER_FILES = 256
"""Open files that are not clients' connections: databases, recordings, HTTP, the log."""


_PROTOCOLS = {0: "", 4: "3.1.1", 5: "5.0"}


class MqttBroker:
    """The MQTT side of the appliance."""

    def __init__(
        self,
        *,
        listeners: Sequence[ListenerConfig],
        limits: LimitsConfig,
        access: Access,
        subscriptions: Subscriptions,
        retained: Retained,
        door: Door,
        records: Records,
        executor: Executor,
        counters: collections.Counter[Counter],
        clock_ns: Callable[[], int],
        plugins: Plugins | None = None,
    ) -> None:
        self.plugins = plugins
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.access = access
        self.subscriptions = subscriptions
        self.retained = retained
        self.door = door
        self.host = SessionHost()
        self.counters = counters
        self.stop_s = _STOP_S
        """How long an ordered stop waits for the journal, and then for the clients."""
        self._records = records
        self._executor = executor
        self._clock_ns = clock_ns
        self.sessions = Sessions(
            subscriptions,
            make_outbox=self._make_outbox,
            record=door.record,
            clock_ns=clock_ns,
            last_seq=lambda: door.fanned_out_seq,
        )
        self._listeners = {
            config.name or config.bind: Listener(
                config,
                self._maker(config.name or config.bind),
                largest_packet=int(limits.max_packet_size),
                is_open=lambda: self.access.is_open,
                count=self.count,
            )
            for config in listeners
        }
        self._connections: set[Connection] = set()
        self._by_address: collections.Counter[str] = collections.Counter()
        self._unauthenticated = 0
        self._strangers: dict[str, dict[Connection, None]] = {}
        """Connections that are not yet authenticated, the oldest first, by where they are from."""
        self.wills = Wills(self.sessions.store, self._publish_will)
        self._users_seen = 0
        self._sweeper: asyncio.Task[None] | None = None
        self._stopping = False
        self.desk: Callable[[Message], None] | None = None
        """Who answers attached terminals; set by the service."""
        self._clients: tuple[ClientState, ...] = ()

    def _maker(self, name: str) -> Callable[[], Connection]:
        return lambda: Connection(self, name)

    def _make_outbox(self, client_id: str) -> Outbox:
        kind = Outbox
        if self.plugins is not None and self.plugins.filter_topics:
            # Only where there are plugins: what they are asked with is amqtt's.
            from appliance.broker.gated_outbox import GatedOutbox  # noqa: PLC0415

            kind = GatedOutbox
        return kind(
            client_id,
            limit=self.limits.max_queued_per_client,
            max_bytes=int(self.limits.max_client_backlog),
            count=self.count,
            current=self.retained.get,
        )

    def count(self, counter: Counter) -> None:
        """Count a refusal or a bound that bit."""
        self.counters[counter] += 1

    def is_listening(self, client_id: str, topic_filter: str) -> bool:
        """Whether a client is connected and has subscribed to exactly this filter."""
        session = self.sessions.get(client_id)
        return (
            session is not None
            and session.connection is not None
            and self.subscriptions.has(client_id, topic_filter)
        )

    def ask_desk(self, message: Message) -> None:
        """An attached terminal asks for something."""
        if self.desk is None:
            self.count(Counter.DESK_REQUESTS_REFUSED_NO_DESK)
        else:
            self.desk(message)

    # --- start and stop -----------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what the last run left, then open the listeners.

        Raises:
            ApplianceError: a listener can't be opened; those before it are closed again.
        """
        self._check_open_files()
        wills = session_store.wills(self._records)
        self.sessions.load(self._records)
        # The rules may be others than they were when these subscriptions were granted.
        self.enforce_access()
        self.wills.load(
            wills, lambda client_id: self.sessions.get(client_id) is not None, self._clock_ns()
        )
        await self.host.start()
        try:
            for listener in self._listeners.values():
                await listener.start()
        except BaseException:
            self.close_listeners()
            await self.host.stop()
            raise
        self._sweeper = self.loop.create_task(self._sweep(), name="broker sweep")

    def _check_open_files(self) -> None:
        """Clients may not use up what journal, recordings and task starts need too."""
        listeners = sum(listener.max_connections for listener in self._listeners.values())
        bound = min(self.limits.max_connections, listeners)
        if not allow_open_files(bound + _OTHER_FILES):
            logger.warning(
                "the operating system lets this process open too few files for %d connections:"
                " raise the limit (ulimit -n, or LimitNOFILE in the service), or lower"
                " limits.max_connections",
                bound,
            )

    def close_listeners(self) -> None:
        """No new connections from now on."""
        self._stopping = True
        for listener in self._listeners.values():
            listener.stop()

    async def stop(self) -> None:
        """Stop in order: nothing new comes in, what was accepted is acknowledged, clients go."""
        self.close_listeners()
        for connection in list(self._connections):
            connection.pause()
        try:
            await asyncio.wait_for(self.door.settled(), self.stop_s)
        except TimeoutError:
            logger.warning(
                "stopping although the journal can't be written: what it lacks was not acknowledged"
            )
        # One step of the loop lets the acknowledgements that were just queued leave.
        await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        leaving = list(self._connections)
        for connection in leaving:
            connection.end_quietly(Reason.SERVER_SHUTTING_DOWN)
        if leaving:
            waits = [self.loop.create_task(connection.ended.wait()) for connection in leaving]
            _, late = await asyncio.wait(waits, timeout=self.stop_s)
            for connection in leaving:
                if not connection.ended.is_set():
                    connection.abort()
            for task in late:
                task.cancel()
        self.sessions.save_places(all_of_them=True)
        await self.host.stop()

    @property
    def ports(self) -> dict[str, int]:
        """The port of each listener by its name."""
        return {name: listener.port for name, listener in self._listeners.items()}

    # --- connections --------------------------------------------------------------------------

    def arrived(self, connection: Connection) -> bool:
        """A socket was accepted; returns whether there is room for it."""
        listener = self._listeners[connection.listener_name]
        host = connection.peer[0]
        origin = origin_of(host)
        if self._stopping:
            return False
        if self._unauthenticated >= self.limits.max_unauthenticated:
            self._make_room(origin)
        if (counter := self._limit_reached(listener, host)) is not None:
            self.count(counter)
            return False
        self._connections.add(connection)
        self._by_address[host] += 1
        self._unauthenticated += 1
        self._strangers.setdefault(origin, {})[connection] = None
        listener.connections += 1
        return True

    def _limit_reached(self, listener: Listener, host: str) -> Counter | None:
        limits = self.limits
        if len(self._connections) >= limits.max_connections:
            return Counter.CONNECTIONS_REFUSED_LIMIT_OVERALL
        if listener.connections >= listener.max_connections:
            return Counter.CONNECTIONS_REFUSED_LIMIT_LISTENER
        if self._by_address[host] >= limits.max_connections_per_address:
            return Counter.CONNECTIONS_REFUSED_LIMIT_ADDRESS
        if self._unauthenticated >= limits.max_unauthenticated:
            return Counter.CONNECTIONS_REFUSED_LIMIT_UNAUTHENTICATED
        return None

    def _make_room(self, origin: str) -> None:
        """End the oldest stranger from where most are, if a newcomer's origin has fewer.

        So nobody keeps everybody else out with connections that never log in.
        """
        crowd = max(self._strangers.values(), key=len, default={})
        if len(crowd) > len(self._strangers.get(origin, ())) + 1:
            oldest = next(iter(crowd))
            self.count(Counter.CONNECTIONS_ENDED_TO_MAKE_ROOM)
            self.departed(oldest)
            oldest.abort()

    def _known(self, connection: Connection) -> None:
        """A connection is no stranger any more: it was admitted, or is gone."""
        origin = origin_of(connection.peer[0])
        crowd = self._strangers[origin]
        del crowd[connection]
        if not crowd:
            del self._strangers[origin]
        self._unauthenticated -= 1

    def opened(self, connection: Connection, asked: Connect) -> None:
        """A connection was admitted."""
        session, will = connection.session, asked.will
        if will is not None and will.delay_s and session is not None and session.persistent:
            self.wills.announce(_kept(connection, will))
        self._known(connection)
        connection.counted_as_open = True
        if self.plugins is not None and connection.plugin_client is not None:
            self.plugins.connected(connection.plugin_client)
        logger.info(
            "client %s connected from %s (MQTT %s)",
            connection.client_id,
            connection.address,
            "5" if connection.version == 5 else "3.1.1",
        )

    def departed(self, connection: Connection) -> None:
        """A socket is gone."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        host = connection.peer[0]
        self._by_address[host] -= 1
        if not self._by_address[host]:
            del self._by_address[host]
        if not connection.counted_as_open:
            self._known(connection)
        self._listeners[connection.listener_name].connections -= 1

    async def take_over(self, connection: Connection, asked: Connect) -> bool:
        """Make a connection its client's only one; returns whether a session is resumed.

        The client has been admitted. An older connection of the same client ends first
        (MQTT-3.1.4-2).
        """
        client_id = connection.client_id
        while True:
            session = self.sessions.get(client_id)
            if session is None or session.connection is None:
                break
            if session.username != asked.username:
                self.count(Counter.CONNECTIONS_REFUSED_CLIENT_ID_OF_ANOTHER_USER)
                raise PacketError(
                    "the client id is in use by another user", Reason.CLIENT_ID_NOT_VALID
                )
            await self._make_way(session.connection)
        if connection.is_gone:
            return False
        resumed = (
            session is not None
            and not asked.clean_start
            # Another user must not read what was kept for this one.
            and session.username == asked.username
        )
        if session is None or not resumed:
            self._check_room(client_id, asked)
            self._end_session(client_id)
            session = self.sessions.begin(client_id, asked.username, asked.session_expiry_s)
        else:
            self.sessions.resume(session, asked.session_expiry_s)
        if resumed:
            self.wills.returned(client_id)
        session.connection = connection
        session.version = connection.version
        connection.session = session
        return resumed

    async def _make_way(self, older: Connection) -> None:
        """End a client's older connection; one that does not read any more is cut off."""
        older.end(Reason.SESSION_TAKEN_OVER, "the same client id connected again")
        try:
            await asyncio.wait_for(older.ended.wait(), _TAKE_OVER_S)
        except TimeoutError:
            older.abort()
            await older.ended.wait()

    def _check_room(self, client_id: str, asked: Connect) -> None:
        """Sessions that outlive their connections are bounded too.

        Raises:
            PacketError: there are too many.
        """
        bound = self.limits.max_sessions
        if asked.session_expiry_s and len(self.sessions) >= bound:
            if self.sessions.get(client_id) is not None:
                return
            self.count(Counter.CONNECTIONS_REFUSED_LIMIT_SESSIONS)
            raise PacketError(
                f"there are {bound} sessions already: let clients connect with a clean session,"
                " or raise limits.max_sessions",
                Reason.QUOTA_EXCEEDED,
            )

    def left(
        self, connection: Connection, session: Session, asked: Connect | None, *, said_goodbye: bool
    ) -> bool:
        """A client's connection has ended; returns whether its session has too."""
        will = None if asked is None or not connection.counted_as_open else asked.will
        if connection.counted_as_open:
            logger.info(
                "client %s disconnected%s",
                connection.client_id,
                "" if said_goodbye else " without saying so",
            )
            if self.plugins is not None and connection.plugin_client is not None:
                self.plugins.disconnected(connection.plugin_client)
        ended = self.sessions.leave(session)
        if will is None:
            return ended
        if said_goodbye:
            if will.delay_s:
                self.wills.drop(connection.client_id)
        elif will.delay_s and not ended:
            self.wills.begin(_kept(connection, will), self._clock_ns())
        elif not self._stopping:
            self._publish_will(_kept(connection, will))
        return ended

    def _publish_will(self, kept: KeptWill) -> None:
        will = kept.will
        if not self.access.may_publish(kept.username, kept.client_id, will.topic):
            # It was permitted when the client connected.
            self.count(Counter.PUBLISHES_REFUSED_NOT_ALLOWED)
            return
        self.door.publish(
            will.topic,
            will.payload,
            qos=will.qos,
            retain=will.retain,
            properties=will.properties,
            client_id=kept.client_id,
            username=kept.username,
            address=kept.address,
        )

    def _end_session(self, client_id: str) -> None:
        self.wills.end(client_id)
        self.sessions.end(client_id)

    # --- what happens by itself ---------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                await self._sweep_once()
            except Exception:
                logger.exception("broker sweep")

    async def _sweep_once(self) -> None:
        now = self.loop.time()
        for connection in list(self._connections):
            if (why := connection.overdue(now)) is not None:
                self.count(
                    Counter.CONNECTIONS_ENDED_SILENT
                    if connection.is_open
                    else Counter.CONNECTIONS_ENDED_NO_CONNECT_IN_TIME
                )
                connection.end(Reason.KEEP_ALIVE_TIMEOUT, why)
        now_ns = self._clock_ns()
        self.wills.publish_due(now_ns)
        for session in self.sessions.all():
            if session.expired(now_ns):
                self._end_session(session.client_id)
                await self.host.forget(session.client_id)
        self.sessions.save_places()
        self._clients = self._client_states()
        seen = await self.loop.run_in_executor(self._executor, self._reload_files)
        if seen != self._users_seen:
            self._users_seen = seen
            self.enforce_access()

    def _reload_files(self) -> int:
        for listener in self._listeners.values():
            if (said := listener.reload_certificates()) is not None:
                logger.warning("%s", said)
        return self.access.refresh()

    # --- another configuration ----------------------------------------------------------------

    def enforce_access(self) -> Enforced:
        """Let the terms of access that count now count for those who are there, too."""
        return enforce(
            self.access, list(self._connections), self.sessions, self.subscriptions, self.count
        )

    def take_limits(self, limits: LimitsConfig, listeners: Sequence[ListenerConfig]) -> None:
        """Let other bounds count: at once, or for connections that are made from now on."""
        self.limits = limits
        self.retained.bound(limits.max_retained, int(limits.max_retained_size))
        self.door.bound(int(limits.max_pending))
        for session in self.sessions.all():
            session.outbox.bound(limits.max_queued_per_client, int(limits.max_client_backlog))
        for config in listeners:
            listener = self._listeners.get(config.name or config.bind)
            if listener is not None:
                listener.bound(config.max_connections, int(limits.max_packet_size))
        self._check_open_files()

    # --- for the operator ---------------------------------------------------------------------

    @property
    def clients_connected(self) -> int:
        return len(self._connections) - self._unauthenticated

    def listener_states(self) -> tuple[ListenerState, ...]:
        return tuple(listener.state() for listener in self._listeners.values())

    def clients(self) -> tuple[ClientState, ...]:
        """Clients and persistent sessions as they were at most a second ago."""
        return self._clients

    def _client_states(self) -> tuple[ClientState, ...]:
        states = []
        for session in self.sessions.all():
            connection = session.connection
            states.append(
                ClientState(
                    client_id=session.client_id,
                    address="" if connection is None else connection.address,
                    protocol=_PROTOCOLS[session.version],
                    connected=connection is not None,
                    since_ns=(
                        session.left_ns or 0 if connection is None else connection.connected_ns
                    ),
                    username=session.username,
                    listener="" if connection is None else connection.listener_name,
                    subscriptions=tuple(
                        (options.topic_filter, options.qos)
                        for options in self.subscriptions.of(session.client_id)
                    ),
                    messages_in=0 if connection is None else connection.messages_in,
                    messages_out=session.outbox.delivered,
                    queued=session.outbox.queued,
                    dropped=session.outbox.dropped,
                )
            )
        return tuple(states)

    def disconnect(self, client_id: str) -> bool:
        """End a client's connection because an operator wants it; returns whether there was one."""
        session = self.sessions.get(client_id)
        if session is None or session.connection is None:
            return False
        session.connection.end(Reason.ADMINISTRATIVE_ACTION, "an operator ended the connection")
        return True


def _kept(connection: Connection, will: Will) -> KeptWill:
    return KeptWill(connection.client_id, connection.username, connection.address, will)
