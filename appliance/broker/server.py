"""The broker as one thing: it puts its parts together, starts and stops them, and sweeps.

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
from appliance.broker.access import Access
from appliance.broker.connect import longest_expiry_s
from appliance.broker.connection import Connection
from appliance.broker.connections import Connections
from appliance.broker.context import BrokerContext, HasCertificate
from appliance.broker.door import Door
from appliance.broker.lag import Collections
from appliance.broker.listener import Listener
from appliance.broker.outbox import Outbox
from appliance.broker.reauthorize import Enforced, enforce
from appliance.broker.session_binding import SessionBinding
from appliance.broker.session_host import SessionHost
from appliance.broker.sessions import ClientConnection, Records, Session, Sessions
from appliance.broker.sparse_log import SparseLog, SparseLogs
from appliance.broker.subscriptions import Retained, Subscriptions
from appliance.broker.work import Steps, Turns, at_once, finish, in_slices
from appliance.config.tables import LimitsConfig, ListenerConfig
from appliance.counters import Counter
from appliance.engine_api import ClientState, ListenerState
from appliance.model import EncodedProperties, Message
from appliance.mqtt.packets import FOR_EVER, Reason
from appliance.storage.files import allow_open_files

if TYPE_CHECKING:
    from appliance.broker.plugins import Plugins

logger = logging.getLogger(__name__)

_SWEEP_S = 1.0
_STOP_S = 5.0
_ABORT_S = 1.0
"""How long an ordered stop waits for connections that it has aborted."""
_OTHER_FILES = 512
"""Open files that are not clients' connections: databases, recordings, HTTP, the log."""


_PROTOCOLS = {0: "", 3: "3.1", 4: "3.1.1", 5: "5.0"}


def _expiry(seconds: int) -> int | None:
    return None if seconds == FOR_EVER else seconds


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
        host: SessionHost,
        records: Records,
        executor: Executor,
        counters: collections.Counter[Counter],
        clock_ns: Callable[[], int],
        plugins: Plugins | None = None,
        will_grace_s: float = 30.0,
        age_clock_ns: Callable[[], int] | None = None,
    ) -> None:
        self._will_grace_s = will_grace_s
        self.plugins = plugins
        self.limits = limits
        self.access = access
        self.subscriptions = subscriptions
        self.retained = retained
        self.door = door
        self.host = host
        self.counters = counters
        self.stop_s = _STOP_S
        """How long an ordered stop waits for the journal, and then for the clients."""
        self._loop = asyncio.get_running_loop()
        self._records = records
        self._executor = executor
        self._clock_ns = clock_ns
        self.sessions = Sessions(
            subscriptions,
            make_outbox=self._make_outbox,
            record=door.record,
            clock_ns=clock_ns,
            last_seq=lambda: door.fanned_out_seq,
            age_clock_ns=age_clock_ns,
            longest_s=lambda: longest_expiry_s(self.limits),
        )
        self.turns = Turns(self._loop)
        """Whose turn it is among connections that have much to do; bridges share it."""
        self._listeners = {
            config.name or config.bind: Listener(
                config,
                self._maker(config.name or config.bind),
                largest_packet=int(limits.max_packet_size),
                is_open=lambda: self.access.is_open,
                count=self.count,
                turns=self.turns,
            )
            for config in listeners
        }
        self.connections = Connections(
            self._listeners,
            self._current_limits,
            self.count,
            logins=lambda: access.logins,
            end_refused=access.make_room,
        )
        self.binding = SessionBinding(
            sessions=self.sessions,
            subscriptions=subscriptions,
            access=access,
            door=door,
            limits=self._current_limits,
            count=self.count,
            count_many=self.count_many,
            clock_ns=clock_ns,
        )
        self._collections = Collections()
        self._context = BrokerContext(
            loop=self._loop,
            limits=self._current_limits,
            access=access,
            door=door,
            subscriptions=subscriptions,
            retained=retained,
            sessions=self.sessions,
            connections=self.connections,
            binding=self.binding,
            host=host,
            count=self.count,
            plugins=plugins,
            take_terminal_request=self._take_terminal_request,
            is_looping=self._is_looping,
            held_client=self._held_client,
            is_revoked=self._is_revoked,
            strangers_log=SparseLogs(logging.getLogger("appliance.broker.connection")),
            lag_log=SparseLog(logging.getLogger("appliance.broker.connection")),
            collections=self._collections,
            turns=self.turns,
            listener=lambda name: self._listeners[name].config,
        )
        self._users_seen = 0
        self._enforcements: set[asyncio.Task[Enforced]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self.on_terminal_request: Callable[[Message], None] | None = None
        """Answers attached terminals; set by the service."""
        self.is_looping: Callable[[EncodedProperties], bool] | None = None
        """Knows what bridges sent out; set by the service."""
        self.held_client: Callable[[str], str | None] | None = None
        """Says why an operator keeps a client out; set by the service."""
        self._clients: tuple[ClientState, ...] = ()

    def _current_limits(self) -> LimitsConfig:
        return self.limits

    def _maker(self, name: str) -> Callable[[], Connection]:
        return lambda: Connection(self._context, name)

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

    def count_many(self, counter: Counter, times: int) -> None:
        """Count an event that happened more than once."""
        self.counters[counter] += times

    def is_listening(self, client_id: str, topic_filter: str) -> bool:
        """Whether a client is connected and has subscribed to exactly this filter."""
        session = self.sessions.get(client_id)
        return (
            session is not None
            and session.connection is not None
            and self.subscriptions.has(client_id, topic_filter)
        )

    def _take_terminal_request(self, message: Message) -> None:
        """An attached terminal asks for something."""
        if self.on_terminal_request is None:
            self.count(Counter.TERMINAL_REQUESTS_REFUSED_NOT_READY)
        else:
            self.on_terminal_request(message)

    def _is_looping(self, properties: EncodedProperties) -> bool:
        return self.is_looping is not None and self.is_looping(properties)

    def _held_client(self, client_id: str) -> str | None:
        return None if self.held_client is None else self.held_client(client_id)

    # --- start and stop -----------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what the last run left, then open the listeners.

        Raises:
            ApplianceError: a listener can't be opened (those before it are closed again), or what
                the last run left can't be read.
        """
        self._check_open_files()
        wills = session_store.wills(self._records)
        self.sessions.load(self._records)
        self.binding.end_expired_at_start()
        self.binding.warn_of_full_users()
        # The rules may be others than they were when these subscriptions were granted.
        self.enforce_access()
        self.binding.wills.load(
            wills,
            lambda client_id: self.sessions.get(client_id) is not None,
            self._clock_ns(),
            last_seq=self.door.fanned_out_seq,
            grace_s=self._will_grace_s,
        )
        await self.host.start()
        try:
            for listener in self._listeners.values():
                await listener.start()
        except BaseException:
            self.close_listeners()
            await self.host.stop()
            raise
        self._collections.begin()
        self._sweeper = self._loop.create_task(self._sweep(), name="broker sweep")

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
        self.connections.is_closed = self.binding.is_stopping = True
        for listener in self._listeners.values():
            listener.stop()

    async def stop(self) -> None:
        """Stop in order: nothing new comes in, what was accepted is acknowledged, clients go."""
        self.close_listeners()
        for connection in self.connections.all():
            connection.pause()
        try:
            await asyncio.wait_for(self.door.settled(), self.stop_s)
        except TimeoutError:
            logger.warning(
                "stopping although the journal can't be written: what it lacks was not acknowledged"
            )
        # One step of the loop lets the acknowledgements that were just queued leave.
        await asyncio.sleep(0)
        self._collections.end()
        for task in (self._sweeper, *self._enforcements):
            if task is not None:
                task.cancel()
        leaving = self.connections.all()
        for connection in leaving:
            connection.end_quietly(Reason.SERVER_SHUTTING_DOWN)
        if leaving:
            waits = {self._loop.create_task(each.wait_ended()): each for each in leaving}
            _, late = await asyncio.wait(waits, timeout=self.stop_s)
            for task in late:
                waits[task].abort()
            if late:
                _, late = await asyncio.wait(late, timeout=_ABORT_S)
            for task in late:
                task.cancel()
        self.binding.wills.write()
        self.sessions.save_places(all_of_them=True)
        await self.host.stop()

    @property
    def ports(self) -> dict[str, int]:
        """The port of each listener by its name."""
        return {name: listener.port for name, listener in self._listeners.items()}

    # --- what happens by itself ---------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                await self._sweep_once()
            except Exception:
                logger.exception("broker sweep")

    async def _sweep_once(self) -> None:
        now = self._loop.time()
        await finish(self._end_overdue(now))
        await finish(self.binding.end_expired())
        # There may be ten thousand sessions, of one client or few.
        async for _ in in_slices(self.sessions.saving_places()):
            pass
        self._clients = await self._client_states()
        seen, has_other_certificates = await self._loop.run_in_executor(
            self._executor, self._reload_files
        )
        if has_other_certificates:
            await self._end_revoked()
        if seen != self._users_seen:
            self._users_seen = seen
            await self.enforce_access_in_slices()

    def _end_overdue(self, now: float) -> Steps[None]:
        for connection in self.connections.all():
            try:
                self._end_if_overdue(connection, now)
            except Exception as error:  # noqa: BLE001 - any error ends this connection alone
                connection.fail(error)
            yield

    def _end_if_overdue(self, connection: ClientConnection, now: float) -> None:
        if (why := connection.overdue(now)) is not None:
            self.count(
                Counter.CONNECTIONS_ENDED_SILENT
                if connection.is_open
                else Counter.CONNECTIONS_ENDED_NO_CONNECT_IN_TIME
            )
            connection.end(Reason.KEEP_ALIVE_TIMEOUT, why)

    def _reload_files(self) -> tuple[int, bool]:
        has_other_certificates = False
        for listener in self._listeners.values():
            if (said := listener.reload_certificates()) is not None:
                has_other_certificates = True
                logger.warning("%s", said)
        return self.access.refresh(), has_other_certificates

    def _is_revoked(self, connection: HasCertificate) -> bool:
        listener = self._listeners[connection.listener_name]
        return listener.is_revoked(connection.ssl_object)

    async def _end_revoked(self) -> None:
        """End connections whose client's certificate is on a list now."""
        async for connection in in_slices(self.connections.all()):
            if connection.is_open and self._is_revoked(connection):
                self.count(Counter.CONNECTIONS_ENDED_ACCESS_WITHDRAWN)
                connection.end(Reason.NOT_AUTHORIZED, "its certificate has been revoked")

    # --- another configuration ----------------------------------------------------------------

    def enforce_access(self) -> Enforced:
        """Apply the terms of access that count now to the clients that are connected."""
        return at_once(self._enforcement())

    def enforce_access_in_slices(self) -> asyncio.Task[Enforced]:
        """The same while clients are served; it may take seconds with thousands of sessions."""
        task = self._loop.create_task(finish(self._enforcement()), name="enforce access")
        self._enforcements.add(task)
        task.add_done_callback(self._enforcements.discard)
        return task

    def _enforcement(self) -> Steps[Enforced]:
        return enforce(
            self.access, self.connections.all(), self.sessions, self.subscriptions, self.count
        )

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: sessions, wills and messages are as old as before."""
        self.door.follow_step(step_ns)
        self.sessions.follow_step(step_ns)
        self.binding.wills.follow_step(step_ns)
        for session in self.sessions.all():
            if session.connection is not None:
                session.connection.connected_ns += step_ns

    def take_limits(self, limits: LimitsConfig, listeners: Sequence[ListenerConfig]) -> None:
        """Use other bounds: at once, or for connections that are made from now on."""
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
        self.binding.warn_of_full_users()

    def shed_caches(self) -> None:
        """Drop what is found again when it is needed."""
        self.subscriptions.forget_answers()
        for connection in self.connections.all():
            connection.forget_topics()

    # --- for the operator ---------------------------------------------------------------------

    @property
    def clients_connected(self) -> int:
        return self.connections.authenticated

    def listener_states(self) -> tuple[ListenerState, ...]:
        return tuple(listener.state() for listener in self._listeners.values())

    def clients(self) -> tuple[ClientState, ...]:
        """Clients and persistent sessions as they were at most a second ago."""
        return self._clients

    async def _client_states(self) -> tuple[ClientState, ...]:
        states = [self._client_state(each) async for each in in_slices(self.sessions.all())]
        # Some may have ended since.
        return tuple(each for each in states if each.client_id in self.sessions)

    def _client_state(self, session: Session) -> ClientState:
        connection = session.connection
        return ClientState(
            client_id=session.client_id,
            address="" if connection is None else connection.address,
            protocol=_PROTOCOLS[session.version],
            connected=connection is not None,
            since_ns=session.left_ns or 0 if connection is None else connection.connected_ns,
            username=session.username,
            listener="" if connection is None else connection.listener_name,
            subscriptions=self.subscriptions.described(session.client_id),
            messages_in=0 if connection is None else connection.messages_in,
            messages_out=session.outbox.delivered,
            queued=session.outbox.queued,
            dropped=session.outbox.dropped,
            queued_bytes=session.outbox.queued_bytes,
            expiry_s=_expiry(self.sessions.kept_for(session)),
        )

    def end_session(self, client_id: str) -> int | None:
        """End a session because an operator wants it; returns how many messages waited in it.

        ``None``: there is no such session.
        """
        dropped = self.binding.end_for_operator(client_id)
        self._clients = tuple(each for each in self._clients if each.client_id != client_id)
        return dropped

    def disconnect(self, client_id: str) -> bool:
        """End a client's connection because an operator wants it; returns whether there was one."""
        session = self.sessions.get(client_id)
        if session is None or session.connection is None:
            return False
        session.connection.end(Reason.ADMINISTRATIVE_ACTION, "an operator ended the connection")
        return True
