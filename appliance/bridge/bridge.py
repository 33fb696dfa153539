"""One bridge: it connects, stays as long as it can, and connects again, until it is stopped.

Not for: what is exchanged meanwhile (exchange.py), what a connection does (connection.py), why it
ended (causes.py), how long to wait (backoff.py), several bridges (bridges.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

from appliance.bridge.account import Kept
from appliance.bridge.backoff import Backoff
from appliance.bridge.causes import LASTING, Cause, Causes, Kind
from appliance.bridge.connection import BridgeConnection
from appliance.bridge.context import BridgeContext
from appliance.bridge.exchange import LINES_A_MINUTE, Exchange
from appliance.bridge.redirect import Redirects
from appliance.bridge.takeover import Takeovers
from appliance.bridge.transport import Address, open_transport
from appliance.broker.sparse_log import SparseLog
from appliance.config.files import bridge_password
from appliance.config.tables import BridgeConfig
from appliance.counters import Counter
from appliance.engine_api import BridgeState, Health
from appliance.errors import ApplianceError
from appliance.known_secrets import KnownSecrets
from appliance.mqtt.client_packets import ConnectOptions
from appliance.secret import Secret

logger = logging.getLogger(__name__)

_RECEIVE_MAXIMUM = 1000
"""Messages that the broker may send before they are acknowledged (MQTT 5)."""
_FINISH_S = 4.0
"""How long the journal and the broker may take to finish with what came in and goes out."""
_GOODBYE_S = 3.0
_FOR_EVER_S = 0xFFFFFFFF


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
        self._client_id = client_id
        self._home = home_of(config)
        self._exchange = Exchange(
            config,
            context,
            home=str(self._home),
            client_id=client_id,
            installation=installation,
            kept=kept,
        )
        self._redirects = Redirects(config.follow_redirects, config.used_port)
        self._backoff = Backoff(context.pace, context.chance or random.random)
        self._takeovers = Takeovers()
        self._log = SparseLog(logger, lines_a_minute=LINES_A_MINUTE, about=f"bridge {config.name}")
        self._connection: BridgeConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._since_ns: int | None = None
        self._next_attempt_ns: int | None = None
        self._last_cause: Cause | None = None
        self._last_cause_ns: int | None = None
        self._said: object = None
        """What the log said last: a cause, or that the bridge is connected."""
        self._short_end: object = None
        """The cause for which the last connection ended soon after it began."""
        self._is_flapping = False
        """That happened twice in a row: nothing is said of it until something changes."""

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._since_ns = self._context.clock_ns()
        self._task = self._context.loop.create_task(self._run(), name=f"bridge {self.config.name}")

    async def stop(self) -> None:
        """End in order: what came in is acknowledged, and the broker hears goodbye."""
        self._is_stopping = True
        self._wake.set()
        connection = self._connection
        if connection is not None and connection.is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FINISH_S):
                    await self._exchange.finish(connection)
            connection.disconnect()
            await asyncio.wait({connection.ended}, timeout=_GOODBYE_S)
            connection.abort()
        await self._exchange.stop_sending()
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.disconnect()  # it was accepted meanwhile
        if self._task is not None:
            if connection is None or connection.incoming is None:
                self._task.cancel()  # it waits, or connects
            _, late = await asyncio.wait({self._task}, timeout=_GOODBYE_S)
            if late:
                self._task.cancel()

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                cause, lasted_s = await self._connect_once()
            except Exception as error:
                logger.exception("bridge %s: internal error", self.config.name)
                self._context.count(Counter.BRIDGE_INTERNAL_ERRORS)
                cause, lasted_s = self._exchange.causes.of_error(error), 0.0
            if self._is_stopping:
                break
            self._note(cause, lasted_s)
            wait_s = self._backoff.wait_s(cause.kind, lasted_s)
            is_stable = lasted_s >= self._context.pace.stable_s
            if self._redirects.follow(cause, is_stable=is_stable):
                wait_s = 0.0
            self._next_attempt_ns = self._context.clock_ns() + round(wait_s * 1e9)
            self._wake.clear()
            await self._wait(wait_s)
            self._next_attempt_ns = None

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: what is shown is as old as before."""

        def moved(at_ns: int | None) -> int | None:
            return None if at_ns is None else at_ns + step_ns

        self._since_ns = moved(self._since_ns)
        self._next_attempt_ns = moved(self._next_attempt_ns)
        self._last_cause_ns = moved(self._last_cause_ns)

    def wake(self) -> None:
        """Connect now instead of at the end of the wait."""
        self._wake.set()

    async def _wait(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

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
        parked = self._parked
        try:
            cause = await self._open(connection)
            if connection.incoming is None:
                return cause or connection.causes.of_silent_end(), 0.0
            if cause is None:
                self._note_open(connection)
                await asyncio.wait({connection.ended}, timeout=self._context.pace.stable_s)
                if not connection.ended.done():
                    self._short_end, self._is_flapping = None, False
                    self._exchange.is_flapping = False
                    self._say_connected(connection)
                    await asyncio.wait({connection.ended})
        finally:
            connection.abort()
        cause = await connection.ended
        lasted_s = max(loop.time() - connection.opened_at, 1e-9)
        refused = self._exchange.ended(connection, cause)
        if refused is not None:
            self._takeovers.clear()
            if self._parked > parked:
                # One message less to come back for: what comes in must not wait for it.
                self._backoff.failures = 0
        return refused or self._explain(cause, lasted_s), lasted_s

    @property
    def _parked(self) -> int:
        outgoing = self._exchange.outgoing
        return 0 if outgoing is None else outgoing.undelivered.parked

    async def _open(self, connection: BridgeConnection) -> Cause | None:
        """Connect until the broker accepts; returns why it did not."""
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
                await asyncio.wait({connection.opened})
        except (OSError, ValueError, ApplianceError) as error:  # also names that are none
            return connection.causes.of_error(error)
        return connection.opened.result()

    @property
    def _address(self) -> Address:
        return self._redirects.address or self._home

    def _new_connection(self, password: Secret | None) -> BridgeConnection:
        config, tls = self.config, self.config.tls
        causes = self._exchange.causes = Causes(
            KnownSecrets() if password is None else KnownSecrets(password),
            has_certificate=tls is not None and tls.certfile is not None,
            has_tls=tls is not None,
        )
        options = ConnectOptions(
            version=5 if config.version == "5" else 4,
            client_id=self._client_id,
            clean_start=False,
            keepalive_s=round(config.keepalive),
            username=config.username,
            password=password,
            session_expiry_s=min(round(config.session_expiry), _FOR_EVER_S),
            receive_maximum=_RECEIVE_MAXIMUM,
            maximum_packet_size=int(config.max_packet_size),
        )
        return BridgeConnection(
            self._exchange,
            options,
            causes,
            address=str(self._address),
            door=self._context.door,
            turns=self._context.turns,
            largest_packet=int(config.max_packet_size),
            answer_s=config.connect_timeout,
        )

    def _explain(self, cause: Cause | None, lasted_s: float) -> Cause:
        """Why an accepted connection ended; ``cause`` is what its end itself says."""
        if cause is None and self._takeovers.lost(self._context.loop.time(), lasted_s):
            cause = Cause(
                Kind.TAKEN_OVER,
                "the broker closes each connection soon: another client uses the client id"
                f" {self._client_id}",
                "give this bridge a `client_id` of its own",
            )
        return cause or Cause(Kind.CLOSED, "the connection was lost")

    # --- what is said -------------------------------------------------------------------------

    def _note_open(self, connection: BridgeConnection) -> None:
        self._since_ns = self._context.clock_ns()
        if not self._is_flapping:
            self._say_connected(connection)

    def _say_connected(self, connection: BridgeConnection) -> None:
        if self._said == "connected":
            return
        self._said = "connected"
        self._log.log(
            logging.INFO,
            " is connected to %s (MQTT %s, %s)",
            self._address,
            self.config.version,
            "the session goes on" if connection.session_present else "a new session",
        )

    def _note(self, cause: Cause, lasted_s: float) -> None:
        """Remember and count why a connection ended or failed; say it if it is another cause."""
        now = self._context.clock_ns()
        if cause.kind is Kind.TAKEN_OVER:
            self._context.count(Counter.BRIDGE_CLIENT_IDS_TAKEN_OVER)
        if lasted_s:
            self._since_ns = now
            self._context.count(Counter.BRIDGE_CONNECTIONS_LOST)
        else:
            if cause.kind is not Kind.CLOSED_EARLY:
                self._takeovers.clear()
            self._context.count(Counter.BRIDGE_CONNECTIONS_FAILED)
        self._last_cause, self._last_cause_ns = cause, now
        said = (cause.kind, cause.text)
        is_short = 0 < lasted_s < self._context.pace.stable_s
        was_flapping = self._is_flapping
        self._is_flapping = is_short and said == self._short_end
        self._short_end = said if is_short else None
        self._exchange.is_flapping = self._is_flapping
        if said == self._said or (was_flapping and self._is_flapping):
            return
        self._said = said
        self._log.log(
            logging.WARNING,
            " at %s: %s: %s",
            self._address,
            "the connection ended" if lasted_s else "not connected",
            cause,
        )

    def acknowledge(self) -> list[str]:
        """An operator knows what was lost or left out; returns what that was."""
        return self._exchange.acknowledge()

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection that its broker accepted. Safe from any thread."""
        connection = self._connection
        return connection is not None and connection.is_open

    def state(self) -> BridgeState:
        """What the UI shows. Safe from any thread."""
        config, connection = self.config, self._connection
        exchange, outgoing = self._exchange, self._exchange.outgoing
        gap = exchange.account.session.gap
        is_connected = self.is_connected
        incoming = None if connection is None else connection.incoming
        return BridgeState(
            name=config.name,
            address=str(self._address),
            protocol="5.0" if config.version == "5" else "3.1.1",
            health=self._health(is_connected=is_connected),
            connected=is_connected,
            since_ns=self._since_ns,
            next_attempt_ns=self._next_attempt_ns,
            client_id=self._client_id,
            transport=config.transport,
            tls=config.tls is not None,
            messages_in=exchange.totals.messages,
            repeats=exchange.totals.repeats,
            messages_out=0 if outgoing is None else outgoing.messages_out,
            lag=0 if outgoing is None else outgoing.lag,
            parked=0 if outgoing is None else outgoing.undelivered.parked,
            parked_ns=None if outgoing is None else outgoing.undelivered.parked_ns,
            missed=0 if outgoing is None else outgoing.undelivered.missed,
            missed_ns=None if outgoing is None else outgoing.undelivered.missed_ns,
            gaps=exchange.account.session.gaps,
            gap_from_ns=None if gap is None else gap.from_ns or None,
            gap_ns=None if gap is None else gap.to_ns,
            unacknowledged=0 if incoming is None or not is_connected else incoming.unacknowledged,
            attempts=0 if is_connected else self._backoff.failures,
            last_error="" if self._last_cause is None else str(self._last_cause),
            last_error_ns=self._last_cause_ns,
            subscriptions=exchange.subscriptions.states(),
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
