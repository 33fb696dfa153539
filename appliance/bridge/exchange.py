"""What a bridge exchanges with its broker, over all its connections: filters, messages, proofs.

It is what a connection calls (``connection.Owner``). Not for: connecting and ending (bridge.py),
what each part does (subscriptions.py, incoming.py, outgoing.py, account.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from appliance.bridge.account import Account, Kept
from appliance.bridge.causes import Cause, Causes, Kind
from appliance.bridge.connection import BridgeConnection
from appliance.bridge.context import BridgeContext
from appliance.bridge.incoming import Incoming, Totals
from appliance.bridge.outgoing import Outgoing
from appliance.bridge.routes import Routes
from appliance.bridge.session import Gap
from appliance.bridge.share_probe import ShareProbe
from appliance.bridge.store import forget_cursor, save_cursor
from appliance.bridge.subscriptions import Subscriptions
from appliance.broker.sparse_log import SparseLog
from appliance.config.tables import BridgeConfig
from appliance.counters import Counter
from appliance.known_secrets import KnownSecrets
from appliance.log.sanitize import escape
from appliance.mqtt.client_packets import Ack, ConnAck

logger = logging.getLogger(__name__)

LINES_A_MINUTE = 20
_LAST_S = 1.0
_LOOK_S = 0.02

_MAYBE_FOR_A_MESSAGE = frozenset(
    {Kind.CLOSED, Kind.PUBLISH, Kind.TOO_LARGE, Kind.PROTOCOL, Kind.NOT_AUTHORIZED, Kind.REFUSED}
)
"""For others a broker ends a connection whatever is sent."""


class Exchange:
    """The traffic of one bridge. Engine's loop only, but for what ``Bridge.state`` reads."""

    def __init__(
        self,
        config: BridgeConfig,
        context: BridgeContext,
        *,
        home: str,
        client_id: str,
        installation: str,
        kept: Kept,
    ) -> None:
        """Go on with what is kept.

        Args:
            config: of the bridge.
            context: what it needs of the appliance.
            home: ``"host:port"`` of the broker in the configuration.
            client_id: of the bridge there.
            installation: the mark that the appliance leaves on messages.
            kept: what the bridge has from before.
        """
        self._config = config
        self._context = context
        self._home = home
        self._installation = installation
        self._version = 5 if config.version == "5" else 4
        self.causes = Causes(KnownSecrets(), has_certificate=False, has_tls=False)
        """Of the present connection."""
        about = f"bridge {config.name}"
        self._log = SparseLog(logger, lines_a_minute=LINES_A_MINUTE, about=about)
        self._left_out_log = SparseLog(logger, lines_a_minute=LINES_A_MINUTE, about=about)
        self._routes = Routes(
            config.subscribe,
            service_name=context.service_name,
            limits=context.limits,
            count=context.count,
        )
        self.subscriptions = Subscriptions(config.subscribe, self._version, context.loop.time)
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
        self.totals = Totals(self.subscriptions.received)
        self.account = Account(
            kept,
            address=home,
            client_id=client_id,
            record=context.door.record,
            newest_seq=context.door.newest_seq,
            most_digests=lambda: context.limits().max_retained,
            clock=context.loop.time,
            clock_ns=context.clock_ns,
            count=context.count,
        )
        self.outgoing: Outgoing | None = None
        if config.publish:
            self.outgoing = Outgoing(
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
        self.is_flapping = False
        """The broker ends each connection soon: of gaps in a row, one is said."""
        self._granted: set[str] = set()
        """Filters whose subscription was said: once each, since a connection may never last."""
        self._is_gap_said = False
        self._is_sending = False
        """What goes out is sent on the present connection."""
        self._is_stopping = False
        self._limits = ConnAck(reason=0)
        self._incoming: Incoming | None = None
        """Of the present or the last connection."""

    # --- for the connection -------------------------------------------------------------------

    def accepted(self, connection: BridgeConnection, answer: ConnAck) -> Incoming:
        """The broker accepted the connection."""
        told = answer.session_expiry_s
        expiry_s = self._config.session_expiry if told is None else told
        gap = self.account.accepted(
            session_present=answer.session_present, is_lasting=self._version < 5 or expiry_s >= 1
        )
        self.subscriptions.begin(self.account.session.kept(self.subscriptions.wanted))
        if gap is not None:
            self._context.count(Counter.BRIDGE_GAPS)
            if not (self.is_flapping and self._is_gap_said):
                self._log.log(logging.ERROR, ": %s", self._text_of(gap))
        self._is_gap_said = gap is not None
        incoming = Incoming(
            name=self._config.name,
            address=connection.address,
            version=self._version,
            door=self._context.door,
            publisher=connection,
            routes=self._routes,
            limits=self._context.limits,
            account=self.account,
            totals=self.totals,
            count=self._context.count,
            installation=self._installation,
            sparse=self._left_out_log,
            on_probe=self._probe.came,
        )
        self._probe.begin(is_available=answer.shared_subscriptions_available)
        self._note_probe()
        self._limits = answer
        self._incoming = incoming
        self._subscribe(connection)
        return incoming

    def _subscribe(self, connection: BridgeConnection) -> None:
        packet = self.subscriptions.next_packet()
        if packet is not None and self._incoming is not None:
            self._incoming.may_be_replayed = True
        packet = packet or self._probe.next_packet()
        if packet is not None:
            connection.ask(packet)
        elif not self._is_sending and self.outgoing is not None:
            # Only now, so that it is plain what a broker ends the connection for.
            self._is_sending = True
            self.outgoing.connected(connection, self._limits)

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
        asked = self.subscriptions.pending
        problem = self.subscriptions.answered(packet_id, code, text, self.causes)
        if problem is None:
            connection.end(self.causes.of_protocol("it answers what was not asked"))
            return
        self.account.session.has(self.subscriptions.in_session)
        if problem:
            self._context.count(Counter.BRIDGE_SUBSCRIPTIONS_REFUSED)
            if self.subscriptions.is_refusal_new:
                self._log.log(logging.WARNING, ": a subscription is refused: %s", problem)
        elif code is not None and asked not in self._granted:
            self._granted.add(asked)
            self._log.log(logging.INFO, " is subscribed to %s (QoS %d)", escape(asked), code)
        self._subscribe(connection)

    def acknowledged(self, ack: Ack) -> None:
        """A PUBACK came."""
        if self.outgoing is not None and self._is_sending:
            said = ack.reason_string and self.causes.said(ack.reason_string)
            self.outgoing.acknowledged(ack.packet_id, ack.reason, said)

    def acknowledges(self, seq: int) -> None:
        """The acknowledgements of messages up to this number were sent."""
        self.account.repeats.acknowledged(seq)

    def pinging(self) -> None:
        """A PINGREQ is sent now."""
        self.account.repeats.ping_sent()

    def pinged(self) -> None:
        """A PINGRESP came."""
        self.account.repeats.ping_answered()

    @property
    def wants_proof(self) -> bool:
        """Whether a ping is to prove that acknowledgements arrived."""
        return self.account.repeats.wants_ping

    def note_error(self, error: Exception) -> None:
        """A connection ends because of a defect."""
        self._context.count(Counter.BRIDGE_INTERNAL_ERRORS)
        logger.error(
            "bridge %s: internal error, the connection ends", self._config.name, exc_info=error
        )

    def look(self, connection: BridgeConnection) -> None:
        """Subscribe to what was left out for a while, and note what may come again."""
        self.account.look()
        self._probe.is_late()
        self._note_probe()
        if connection.asked_at is None:
            self._subscribe(connection)

    def _note_probe(self) -> None:
        """Say it if shared subscriptions do not work, or that it can't be told; once each."""
        problem, said = self._probe.problem, self.subscriptions.share_problem
        self.subscriptions.share_problem = problem
        if problem and problem != said:
            self._log.log(
                logging.WARNING,
                ": shared subscriptions: %s",
                problem,
            )

    def pause_writing(self) -> None:
        """The broker reads too slowly."""
        if self.outgoing is not None:
            self.outgoing.pause_writing()

    def resume_writing(self) -> None:
        """The broker reads fast enough again."""
        if self.outgoing is not None:
            self.outgoing.resume_writing()

    def ended(self, connection: BridgeConnection, cause: Cause | None) -> Cause | None:
        """An accepted connection is over; ``cause`` is what its end itself says.

        Returns the cause if it is a filter or a message that the broker does not take.
        """
        self.account.ended()
        by_broker = not connection.was_silent and (
            cause is None or (cause.is_of_broker and cause.kind in _MAYBE_FOR_A_MESSAGE)
        )
        self._probe.lost(by_broker=by_broker and not self._is_stopping)
        self._note_probe()
        refused = None
        if cause is None or cause.kind is Kind.CLOSED:
            refused = self.subscriptions.lost(self.causes, is_silent=connection.was_silent)
        if self._is_sending and self.outgoing is not None:
            self._is_sending = False
            text = "" if cause is None else cause.text
            topic = self.outgoing.disconnected(text, by_broker=by_broker and refused is None)
            if topic and (cause is None or cause.kind is Kind.CLOSED):
                refused = self.causes.of_message(topic)
        return refused

    # --- the end ------------------------------------------------------------------------------

    async def finish(self, connection: BridgeConnection) -> None:
        """End the traffic in order: what came in is committed and acknowledged, the last is sent.

        What still arrives meanwhile is not taken, and the broker delivers it again.
        """
        self._is_stopping = True
        connection.drain()
        await self._context.door.settled()
        await self._send_last()
        await self.stop_sending()
        await connection.prove()
        self.account.save()

    async def _send_last(self) -> None:
        """Wait a moment until the last of the journal has gone out: outcomes, the status."""
        outgoing = self.outgoing
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

    async def stop_sending(self) -> None:
        """Send nothing more, and save how far the way out has come."""
        outgoing, self.outgoing = self.outgoing, None
        if outgoing is not None:
            await outgoing.stop()

    def _save_cursor(self, seq: int, then: Callable[[], None]) -> None:
        self._context.door.record((save_cursor(self._config.name, seq),), then)

    # --- what was lost ------------------------------------------------------------------------

    def acknowledge(self) -> list[str]:
        """An operator knows what was lost or left out; returns what that was."""
        gap = self.account.session.gap
        self.account.session.acknowledge()
        known = [] if gap is None else [f"bridge {self._config.name}: {self._text_of(gap)}"]
        return known if self.outgoing is None else known + self.outgoing.undelivered.acknowledge()

    def _text_of(self, gap: Gap) -> str:
        since = f"from {_time(gap.from_ns)} " if gap.from_ns else ""
        return (
            f"{self._home} had lost the session: messages that were published"
            f" {since}to {_time(gap.to_ns)} may be missing"
        )


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
