"""One bridge: it connects, subscribes, hands on, and connects again, until it is stopped.

Not for: what a connection does (connection.py), why it ended (causes.py), how long to wait
(backoff.py), several bridges (bridges.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime

from appliance.bridge.account import Account, Kept
from appliance.bridge.backoff import Backoff
from appliance.bridge.causes import LASTING, Cause, Causes, HandshakeError, Kind
from appliance.bridge.connection import BridgeConnection
from appliance.bridge.context import BridgeContext
from appliance.bridge.incoming import Incoming, Totals
from appliance.bridge.outgoing import Outgoing
from appliance.bridge.redirect import Redirects
from appliance.bridge.routes import Routes
from appliance.bridge.session import Gap
from appliance.bridge.share_probe import ShareProbe
from appliance.bridge.store import forget_cursor, save_cursor
from appliance.bridge.subscriptions import Subscriptions
from appliance.bridge.takeover import Takeovers
from appliance.bridge.transport import Address, open_transport
from appliance.broker.sparse_log import SparseLog
from appliance.config.files import bridge_password
from appliance.config.tables import BridgeConfig
from appliance.counters import Counter
from appliance.engine_api import BridgeState, Health
from appliance.errors import ApplianceError
from appliance.known_secrets import KnownSecrets
from appliance.mqtt.client_packets import Ack, ConnAck, ConnectOptions
from appliance.secret import Secret

logger = logging.getLogger(__name__)

_RECEIVE_MAXIMUM = 1000
"""Messages that the broker may send before they are acknowledged (MQTT 5)."""
_LINES_A_MINUTE = 20
_STOP_S = 4.0
"""How long the journal and the broker may take to finish with what came in."""
_GOODBYE_S = 3.0
_LAST_S = 1.0
_LOOK_S = 0.02
_FOR_EVER_S = 0xFFFFFFFF

_FOR_NO_MESSAGE = frozenset({Kind.TAKEN_OVER, Kind.MOVED, Kind.UNAVAILABLE, Kind.BANNED})
"""For these a broker ends a connection whatever is sent."""


class Bridge:
    """The life of one bridge. Engine's loop only, but for ``state``."""

    def __init__(
        self,
        config: BridgeConfig,
        context: BridgeContext,
        client_id: str,
        *,
        installation: str,
        kept: Kept,
    ) -> None:
        """``client_id``: by which the other broker knows the bridge; ``kept``: from before."""
        self.config = config
        self._context = context
        self._installation = installation
        self._client_id = client_id
        self._version = 5 if config.version == "5" else 4
        self._home = home_of(config)
        self._expiry_s = min(round(config.session_expiry), _FOR_EVER_S)
        self._redirects = Redirects(config.follow_redirects, config.used_port)
        self._sparse = SparseLog(logger, lines_a_minute=_LINES_A_MINUTE)
        self._log = SparseLog(logger, lines_a_minute=_LINES_A_MINUTE)
        self._routes = Routes(
            config.subscribe,
            service_name=context.service_name,
            limits=context.limits,
            count=context.count,
        )
        self._subscriptions = Subscriptions(config.subscribe, self._version, context.loop.time)
        self._probe = ShareProbe(
            config.subscribe,
            name=config.name,
            service_name=context.service_name,
            installation=installation,
            version=self._version,
            wait_s=context.pace.probe_s,
            clock=context.loop.time,
        )
        self._routes.probe_topic = self._probe.topic.encode()
        self._totals = Totals(self._subscriptions.received)
        self._backoff = Backoff(context.pace, context.chance or random.random)
        self._takeovers = Takeovers()
        self._account = Account(
            kept,
            address=str(self._home),
            client_id=client_id,
            record=context.door.record,
            newest_seq=context.door.newest_seq,
            most_digests=lambda: context.limits().max_retained,
            clock=context.loop.time,
            clock_ns=context.clock_ns,
        )
        self._outgoing: Outgoing | None = None
        if config.publish:
            self._outgoing = Outgoing(
                config,
                cursor=kept.record.cursor,
                installation=installation,
                journal=context.journal,
                save_cursor=self._save_cursor,
                waited_ns=context.door.waited_ns,
                clock_ns=context.clock_ns,
                count=context.count,
                loop=context.loop,
            )
        elif kept.record.cursor is not None:
            context.door.record((forget_cursor(config.name),))
        self._is_sending = False
        """What goes out is sent on the present connection."""
        self._causes = Causes(KnownSecrets(), has_certificate=False, has_tls=False)
        self._connection: BridgeConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._since_ns: int | None = None
        self._next_attempt_ns: int | None = None
        self._last_cause: Cause | None = None
        self._last_cause_ns: int | None = None
        self._limits = ConnAck(reason=0)
        self._said: object = None
        """What the log said last: a cause, or that the bridge is connected."""

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._since_ns = self._context.clock_ns()
        self._task = self._context.loop.create_task(self._run(), name=f"bridge {self.config.name}")

    def wake(self) -> None:
        """Connect now instead of at the end of the wait."""
        self._wake.set()

    async def stop(self) -> None:
        """End in order: what came in is committed and acknowledged, then the broker hears goodbye.

        What still arrives meanwhile is not taken, and the broker delivers it again.
        """
        self._is_stopping = True
        self._wake.set()
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await self._context.door.settled()
                    await self._send_last()
                    await self._stop_sending()
                    await connection.prove()
                    self._account.save()
            connection.disconnect()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(connection.ended), _GOODBYE_S)
        await self._stop_sending()
        if self._task is not None:
            if self._connection is not None:
                self._connection.abort()
            done, _ = await asyncio.wait({self._task}, timeout=_GOODBYE_S)
            if not done:
                self._task.cancel()

    async def _send_last(self) -> None:
        """Wait a moment until the last of the journal has gone out: outcomes, the status."""
        outgoing = self._outgoing
        end = self._context.loop.time() + _LAST_S
        if outgoing is not None:
            outgoing.hurry()
        while (  # noqa: ASYNC110 - the way out tells nobody that it is done
            outgoing is not None
            and self._is_sending
            and (outgoing.lag or outgoing.under_way)
            and self._context.loop.time() < end
        ):
            await asyncio.sleep(_LOOK_S)

    async def _stop_sending(self) -> None:
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            await outgoing.stop()

    def _save_cursor(self, seq: int, then: Callable[[], None]) -> None:
        self._context.door.record((save_cursor(self.config.name, seq),), then)

    async def _run(self) -> None:
        while not self._is_stopping:
            cause, lasted_s = await self._connect_once()
            if self._is_stopping:
                break
            self._note(cause, lasted_s)
            wait_s = self._backoff.wait_s(cause.kind, lasted_s)
            is_stable = lasted_s >= self._context.pace.stable_s
            if self._redirects.follow(cause, is_stable=is_stable):
                wait_s = 0.0
            self._next_attempt_ns = self._context.clock_ns() + round(wait_s * 1e9)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)
            self._next_attempt_ns = None

    async def _connect_once(self) -> tuple[Cause, float]:
        """Connect, and stay as long as it lasts; returns why it ended and how long it was open."""
        loop = self._context.loop
        try:
            password = await loop.run_in_executor(
                self._context.executor, bridge_password, self.config
            )
        except ApplianceError as error:
            return Cause(Kind.FILES, str(error)), 0.0
        connection = self._connection = self._new_connection(password)
        try:
            async with asyncio.timeout(self.config.connect_timeout):
                await open_transport(
                    self.config,
                    self._address,
                    connection,
                    executor=self._context.executor,
                    turns=self._context.turns,
                    count=self._context.count,
                )
                cause = await asyncio.shield(connection.opened)
            if cause is None:
                cause = await asyncio.shield(connection.ended)
                self._account.ended()
                return self._explain(connection, cause), loop.time() - connection.opened_at
        except (OSError, UnicodeError, ValueError, ApplianceError, HandshakeError) as error:
            cause = self._causes.of_error(error)
        except Exception as error:
            logger.exception("bridge %s: internal error", self.config.name)
            self._context.count(Counter.BRIDGE_INTERNAL_ERRORS)
            cause = self._causes.of_error(error)
        finally:
            connection.abort()
        return cause, 0.0

    @property
    def _address(self) -> Address:
        return self._redirects.address or self._home

    def _new_connection(self, password: Secret | None) -> BridgeConnection:
        config = self.config
        secrets = KnownSecrets() if password is None else KnownSecrets(password)
        tls = config.tls
        self._causes = Causes(
            secrets,
            has_certificate=tls is not None and tls.certfile is not None,
            has_tls=tls is not None,
        )
        options = ConnectOptions(
            version=self._version,
            client_id=self._client_id,
            clean_start=False,
            keepalive_s=round(config.keepalive),
            username=config.username,
            password=password,
            session_expiry_s=self._expiry_s,
            receive_maximum=_RECEIVE_MAXIMUM,
            maximum_packet_size=int(config.max_packet_size),
        )
        return BridgeConnection(
            self,
            options,
            self._causes,
            door=self._context.door,
            turns=self._context.turns,
            largest_packet=int(config.max_packet_size),
            answer_s=config.connect_timeout,
        )

    def _explain(self, connection: BridgeConnection, cause: Cause | None) -> Cause:
        """Why an accepted connection ended; ``cause`` is what its end itself says."""
        by_broker = not connection.was_silent and (
            cause is None or (cause.is_of_broker and cause.kind not in _FOR_NO_MESSAGE)
        )
        self._probe.lost(by_broker=by_broker and not self._is_stopping)
        self._note_probe()
        refused = None
        if cause is None or cause.kind is Kind.CLOSED:
            refused = self._subscriptions.lost(self._causes, is_silent=connection.was_silent)
        if self._is_sending and self._outgoing is not None:
            self._is_sending = False
            text = "" if cause is None else cause.text
            self._outgoing.disconnected(text, by_broker=by_broker and refused is None)
        if refused is not None:
            return refused
        if cause is not None and cause.kind is not Kind.CLOSED:
            if cause.kind is Kind.TAKEN_OVER:
                self._context.count(Counter.BRIDGE_CLIENT_IDS_TAKEN_OVER)
            return cause
        if cause is not None:
            return cause
        now = self._context.loop.time()
        if self._takeovers.lost(now, now - connection.opened_at):
            self._context.count(Counter.BRIDGE_CLIENT_IDS_TAKEN_OVER)
            return Cause(
                Kind.TAKEN_OVER,
                f"the broker closes each connection soon: another client uses the client id"
                f" {self._client_id}",
                "give this bridge a `client_id` of its own",
            )
        return Cause(Kind.CLOSED, "the connection was lost")

    def _note(self, cause: Cause, lasted_s: float) -> None:
        """Remember and count why a connection ended or failed; say it if it is another cause."""
        now = self._context.clock_ns()
        if lasted_s:
            self._since_ns = now
            self._context.count(Counter.BRIDGE_CONNECTIONS_LOST)
        else:
            if cause.kind is not Kind.CLOSED_EARLY:
                self._takeovers.clear()
            self._context.count(Counter.BRIDGE_CONNECTIONS_FAILED)
        self._last_cause, self._last_cause_ns = cause, now
        said = (cause.kind, cause.text)
        if said != self._said:
            self._said = said
            self._log.log(
                logging.WARNING,
                "bridge %s at %s: %s: %s",
                self.config.name,
                self._address,
                "the connection ended" if lasted_s else "not connected",
                cause,
            )

    # --- for the connection -------------------------------------------------------------------

    def accepted(self, connection: BridgeConnection, answer: ConnAck) -> Incoming:
        """The broker accepted the connection."""
        self._since_ns = self._context.clock_ns()
        gap = self._account.accepted(
            session_present=answer.session_present,
            is_lasting=self._version < 5 or bool(self._expiry_s),
        )
        self._subscriptions.begin(self._account.session.kept(self._subscriptions.wanted))
        if self._said != "connected":
            self._said = "connected"
            self._log.log(
                logging.INFO,
                "bridge %s is connected to %s (MQTT %s, %s)",
                self.config.name,
                self._address,
                self.config.version,
                "the session goes on" if answer.session_present else "a new session",
            )
        if gap is not None:
            self._context.count(Counter.BRIDGE_GAPS)
            self._log.log(logging.ERROR, "%s", self._text_of(gap))
        incoming = Incoming(
            name=self.config.name,
            address=str(self._address),
            version=self._version,
            door=self._context.door,
            publisher=connection,
            routes=self._routes,
            account=self._account,
            totals=self._totals,
            count=self._context.count,
            installation=self._installation,
            sparse=self._sparse,
            on_probe=self._probe.came,
        )
        self._probe.begin(is_available=answer.shared_subscriptions_available)
        self._note_probe()
        self._limits = answer
        self._subscribe(connection)
        return incoming

    def _subscribe(self, connection: BridgeConnection) -> None:
        packet = self._subscriptions.next_packet() or self._probe.next_packet()
        if packet is not None:
            connection.ask(packet)
        elif not self._is_sending and self._outgoing is not None:
            # Only now, so that it is plain what a broker ends the connection for.
            self._is_sending = True
            self._outgoing.connected(connection, self._limits)

    def subscribed(
        self, connection: BridgeConnection, packet_id: int, code: int | None, text: str
    ) -> None:
        """A SUBACK or UNSUBACK came."""
        if self._probe.is_asked:
            test = self._probe.answered(code)
            if test is not None:
                connection.write(test)
            self._note_probe()
            self._subscribe(connection)
            return
        problem = self._subscriptions.answered(packet_id, code, text, self._causes)
        if problem is None:
            connection.end(self._causes.of_protocol("it answers what was not asked"))
            return
        self._account.session.has(self._subscriptions.in_session)
        if problem:
            self._context.count(Counter.BRIDGE_SUBSCRIPTIONS_REFUSED)
            self._log.log(
                logging.WARNING,
                "bridge %s: a subscription is refused: %s",
                self.config.name,
                problem,
            )
        self._subscribe(connection)

    def acknowledged(self, ack: Ack) -> None:
        """A PUBACK came."""
        if self._outgoing is not None and self._is_sending:
            said = ack.reason_string and self._causes.said(ack.reason_string)
            self._outgoing.acknowledged(ack.packet_id, ack.reason, said)

    def acknowledges(self, seq: int) -> None:
        """The acknowledgements of messages up to this number were sent."""
        self._account.repeats.acknowledged(seq)

    def pinging(self) -> None:
        """A PINGREQ is sent now."""
        self._account.repeats.ping_sent()

    def pinged(self) -> None:
        """A PINGRESP came."""
        self._account.repeats.ping_answered()

    @property
    def wants_proof(self) -> bool:
        """Whether a ping is to prove that acknowledgements arrived."""
        return self._account.repeats.wants_ping

    def look(self, connection: BridgeConnection) -> None:
        """Subscribe to what was left out for a while, and note what may come again."""
        self._account.look()
        self._probe.is_late()
        self._note_probe()
        if connection.asked_at is None:
            self._subscribe(connection)

    def _note_probe(self) -> None:
        """Say it if shared subscriptions do not work, or that it can't be told; once each."""
        problem, said = self._probe.problem, self._subscriptions.share_problem
        self._subscriptions.share_problem = problem
        if problem and problem != said:
            self._log.log(
                logging.WARNING,
                "bridge %s: shared subscriptions: %s",
                self.config.name,
                problem,
            )

    def pause_writing(self) -> None:
        """The broker reads too slowly."""
        if self._outgoing is not None:
            self._outgoing.pause_writing()

    def resume_writing(self) -> None:
        """The broker reads fast enough again."""
        if self._outgoing is not None:
            self._outgoing.resume_writing()

    def acknowledge(self) -> list[str]:
        """An operator knows what was lost or left out; returns what that was."""
        gap = self._account.session.gap
        self._account.session.acknowledge()
        known = [] if gap is None else [self._text_of(gap)]
        return known if self._outgoing is None else known + self._outgoing.acknowledge()

    def _text_of(self, gap: Gap) -> str:
        since = f"from {_time(gap.from_ns)} " if gap.from_ns else ""
        return (
            f"bridge {self.config.name}: {self._home} had lost the session: messages that were"
            f" published {since}to {_time(gap.to_ns)} may be missing"
        )

    # --- what is shown ------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection that its broker accepted. Safe from any thread."""
        connection = self._connection
        return connection is not None and connection.is_open

    def state(self) -> BridgeState:
        """What the UI shows. Safe from any thread."""
        config, connection, outgoing = self.config, self._connection, self._outgoing
        gap = self._account.session.gap
        is_connected = self.is_connected
        incoming = None if connection is None else connection.incoming
        return BridgeState(
            name=config.name,
            address=str(self._address),
            protocol="5.0" if self._version == 5 else "3.1.1",
            health=self._health(is_connected=is_connected),
            connected=is_connected,
            since_ns=self._since_ns,
            next_attempt_ns=self._next_attempt_ns,
            client_id=self._client_id,
            transport=config.transport,
            tls=config.tls is not None,
            messages_in=self._totals.messages,
            repeats=self._totals.repeats,
            messages_out=0 if outgoing is None else outgoing.messages_out,
            lag=0 if outgoing is None else outgoing.lag,
            parked=0 if outgoing is None else outgoing.parked,
            parked_ns=None if outgoing is None else outgoing.parked_ns,
            missed=0 if outgoing is None else outgoing.missed,
            missed_ns=None if outgoing is None else outgoing.missed_ns,
            gaps=self._account.session.gaps,
            gap_ns=None if gap is None else gap.to_ns,
            unacknowledged=0 if incoming is None or not is_connected else incoming.unacknowledged,
            attempts=0 if is_connected else self._backoff.failures,
            last_error="" if self._last_cause is None else str(self._last_cause),
            last_error_ns=self._last_cause_ns,
            subscriptions=self._subscriptions.states(),
            publishes=tuple(str(each.topic) for each in config.publish),
        )

    def _health(self, *, is_connected: bool) -> Health:
        if not is_connected:
            if self._last_cause is None:
                return Health("warn", "connecting")
            level = "bad" if self._last_cause.kind in LASTING else "warn"
            return Health(level, str(self._last_cause))
        return Health("ok")


def home_of(config: BridgeConfig) -> Address:
    """Where the configuration says that the broker is."""
    return Address(config.host, config.used_port)


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
