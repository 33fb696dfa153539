"""The SUBSCRIBE and UNSUBSCRIBE exchange of one connection, between the client and its host.

The client's packet goes to the session host as 3.1.1; the host calls back for each filter, and
its answer goes to the client in the client's version. Not for: which messages a client gets
(subscriptions.py), the host itself (amqtt_host.py).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from appliance.broker.connect import AnswerTooLargeError
from appliance.broker.context import BrokerContext
from appliance.broker.sessions import Session
from appliance.broker.subscriptions import levels_of, split_shared
from appliance.broker.topic_limits import is_within_limits
from appliance.broker.work import Steps, finish
from appliance.counters import Counter
from appliance.model import Message
from appliance.mqtt import decode, packets
from appliance.mqtt import v5_encode as v5
from appliance.mqtt.packets import Connect, PacketError, Reason, SubscribeOptions
from appliance.mqtt.topics import filter_problem, malformed_filter

if TYPE_CHECKING:
    from appliance.broker.plugin_gate import TopicGate


_MOST_WHILE_HELD = 64 * 1024
"""Bytes that the subscriptions of a client may cost while the memory is short; with short filters
that is some hundred."""
_FILTERS_A_STEP = 32
"""Topic filters that the host is asked about at a time; other clients get their turn between."""

T = TypeVar("T")


def _of_others(found: Iterator[Message | None], client_id: str) -> Iterator[Message | None]:
    """Retained messages but for those that the client published itself [MQTT5-3.8.3-3]."""
    for message in found:
        yield None if message is not None and message.client_id == client_id else message


def _parts_of(filters: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(filters), _FILTERS_A_STEP):
        yield filters[begin : begin + _FILTERS_A_STEP]


class SubscribingConnection(Protocol):
    """A connection, as the handler sees it."""

    session: Session | None
    asked: Connect | None
    version: int
    client_id: str
    username: str | None
    address: str
    peer: tuple[str, int]
    gate: TopicGate | None

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""

    @property
    def last_published_seq(self) -> int:
        """The sequence number of the last message of this connection; 0 before the first."""

    def queue(self, data: bytes) -> None:
        """Send bytes soon."""

    def wait(self) -> None:
        """Take no further packet until ``go_on``."""

    def start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Start what the next packet depends on."""

    def go_on(self) -> None:
        """Take the packets behind the one that has been answered."""

    def host_closed(self) -> None:
        """The session host can serve the client no more."""

    def end(self, reason: Reason, text: str) -> None:
        """End the connection for a reason that the client is told."""


class SubscribeHandler:
    """One connection's side of the session host (a ``session_host.SessionHandler``)."""

    __slots__ = (
        "_codes",
        "_connection",
        "_context",
        "_hosted",
        "_packet_id",
        "_parts",
        "_retained",
        "_wanted",
    )

    def __init__(self, context: BrokerContext, connection: SubscribingConnection) -> None:
        self._context = context
        self._connection = connection
        self._packet_id = 0
        self._wanted: deque[SubscribeOptions] | None = None
        self._codes: list[int] = []
        self._retained: list[tuple[Iterator[Message | None], SubscribeOptions]] = []
        self._parts: deque[bytes] = deque()
        """What the host is still to be asked about the packet under way."""
        self._hosted = context.host.host(self, connection.client_id)

    # --- the client's side ----------------------------------------------------------------------

    def take_subscribe(self, body: bytes) -> None:
        """Take the body of a SUBSCRIBE.

        Raises:
            PacketError: it breaks the protocol, or asks for more than any client may have.
        """
        wanted = self._decoded(decode.subscribe, body)
        self._check(len(wanted), "SUBACK")
        self._check_shared(wanted)
        self._wanted = deque(wanted)
        self._codes = []
        self._retained = []
        self._parts = deque(
            packets.encode_host_subscribe(self._packet_id, part) for part in _parts_of(wanted)
        )
        self._connection.wait()
        self._behind_own_messages(self._carry_out)

    def _behind_own_messages(self, then: Callable[[], None]) -> None:
        """Call ``then`` once the messages that the client sent before are handed on.

        MQTT 5 section 4.6 has packets processed in the order of their arrival: a message sent
        before a SUBSCRIBE is not a new one for that subscription, and one sent before an
        UNSUBSCRIBE is still delivered.
        """
        if self._connection.last_published_seq <= self._context.door.fanned_out_seq:
            then()
            return

        def go_on() -> None:
            if not self._connection.is_gone:
                then()

        self._context.door.record((), go_on)

    def _carry_out(self) -> None:
        gate = self._connection.gate
        if gate is None:
            self._hosted.feed(self._parts.popleft())
        else:
            self._connection.start(self._ask_plugins(gate), "plugins")

    async def _ask_plugins(self, gate: TopicGate) -> None:
        await gate.ask_subscribe(await finish(self._undecided()))
        if not self._connection.is_gone:
            self._hosted.feed(self._parts.popleft())

    def _undecided(self) -> Steps[list[str]]:
        """The filters of the SUBSCRIBE under way that plugins are asked about."""
        connection, access = self._connection, self._context.access
        found = []
        for options in tuple(self._wanted or ()):
            yield
            with contextlib.suppress(ValueError):
                shared = split_shared(options.topic_filter)
                plain = options.topic_filter if shared is None else shared[1]
                if filter_problem(plain) is None and access.may_subscribe(
                    connection.username, connection.client_id, plain, connection.address
                ):
                    found.append(plain)
        return [each for each in found if each[0] != "$"]

    def take_unsubscribe(self, body: bytes) -> None:
        """Take the body of an UNSUBSCRIBE.

        Raises:
            PacketError: it breaks the protocol.
        """
        filters = self._decoded(decode.unsubscribe, body)
        self._check(len(filters), "UNSUBACK")
        self._codes = []
        self._retained = []
        self._parts = deque(
            packets.encode_host_unsubscribe(self._packet_id, part) for part in _parts_of(filters)
        )
        self._connection.wait()
        self._behind_own_messages(lambda: self._hosted.feed(self._parts.popleft()))

    def disconnect(self) -> None:
        """The client said goodbye."""
        self._hosted.feed(packets.DISCONNECT_BYTES)

    async def leave(self) -> None:
        """The connection has ended; returns when the session host has let go of it."""
        await self._hosted.leave()

    def _decoded(
        self, decode_packet: Callable[[bytes, int, int], tuple[int, tuple[T, ...]]], body: bytes
    ) -> tuple[T, ...]:
        """What a packet asks for; notes its packet id.

        Raises:
            PacketError: the packet breaks the protocol, or has more filters than are allowed.
        """
        most = self._context.limits().max_subscriptions_per_client
        try:
            self._packet_id, found = decode_packet(body, self._connection.version, most)
        except decode.TooManyFiltersError:
            self._context.count(Counter.SUBSCRIPTIONS_REFUSED_LIMIT)
            raise
        return found

    def _check(self, filters: int, answer: str) -> None:
        asked = self._connection.asked
        largest = None if asked is None else asked.maximum_packet_size
        if largest is not None:
            size = len(v5.encode_suback(self._packet_id, (0,) * filters))
            if size > largest:
                # An answer that is left out would let the client wait for ever.
                raise AnswerTooLargeError(self._context, answer, size, largest)

    def _check_shared(self, wanted: tuple[SubscribeOptions, ...]) -> None:
        """Check shared subscriptions, which MQTT 3.1.1 does not know: there, ``_grant`` refuses.

        Raises:
            PacketError: a filter begins like one and is none.
        """
        for options in wanted if self._connection.version == 5 else ():
            if options.topic_filter.startswith("$share/"):
                try:
                    shared = split_shared(options.topic_filter)
                except ValueError as error:
                    raise PacketError(f"{error} [MQTT5-4.8.2-1, 4.8.2-2]") from error
                if shared is not None and (problem := malformed_filter(shared[1])):
                    raise PacketError(f"topic filter {shared[1][:80]!r}: {problem}")

    # --- the session host's side ----------------------------------------------------------------

    @property
    def peer(self) -> tuple[str, int]:
        return self._connection.peer

    def host_sent(self, packet: bytes) -> None:
        """The host answered SUBSCRIBE or UNSUBSCRIBE; its codes are those that it got from here."""
        if self._parts and not self._connection.is_gone:
            self._hosted.feed(self._parts.popleft())
            return
        packet_type = packet[0] >> 4
        codes = tuple(self._codes)
        if self._connection.version == 5:
            encode = v5.encode_suback if packet_type == packets.SUBACK else v5.encode_unsuback
            answer = encode(self._packet_id, codes)
        elif packet_type == packets.SUBACK and self._is_refused_in_31(codes):
            return
        elif packet_type == packets.SUBACK:
            codes = tuple(min(code, packets.SUBSCRIBE_FAILED) for code in codes)
            answer = packets.encode_suback(self._packet_id, codes)
        else:
            answer = packet
        session, retained = self._connection.session, self._retained
        if session is None:
            return

        def reply() -> None:
            self._connection.queue(answer)
            for found, options in retained:
                identifiers = () if options.identifier is None else (options.identifier,)
                session.outbox.deliver_retained(found, options.qos, identifiers)

        if session.persistent:
            # What the answer promises outlives a crash: it leaves when it is on disk.
            self._context.door.record((), reply)
        else:
            reply()
        self._connection.go_on()

    def _is_refused_in_31(self, codes: tuple[int, ...]) -> bool:
        """End a connection of MQTT 3.1 whose SUBSCRIBE is refused: its SUBACK can't say so."""
        is_refused = self._connection.version == 3 and max(codes) >= packets.SUBSCRIBE_FAILED
        if is_refused:
            self._connection.end(Reason.NOT_AUTHORIZED, "a subscription is not allowed")
        return is_refused

    def host_closed(self) -> None:
        """The host has ended the session."""
        self._connection.host_closed()

    def subscribe(self, topic_filter: str) -> int:
        """Carry out the next subscription of the SUBSCRIBE under way; returns the SUBACK code."""
        options = self._wanted.popleft() if self._wanted else None
        code = int(Reason.UNSPECIFIED)
        if options is not None and options.topic_filter == topic_filter:
            code = self._grant(options)
        self._codes.append(code)
        return min(packets.SUBSCRIBE_FAILED, code)

    def _grant(self, options: SubscribeOptions) -> int:
        connection, context = self._connection, self._context
        if connection.session is None:
            return Reason.UNSPECIFIED
        try:
            shared = split_shared(options.topic_filter)
        except ValueError:
            return Reason.TOPIC_FILTER_INVALID
        plain = options.topic_filter if shared is None else shared[1]
        if filter_problem(plain) is not None:
            return Reason.TOPIC_FILTER_INVALID
        # With the name of a shared subscription, which is kept too.
        whole = options.topic_filter.encode()
        if not is_within_limits(whole, context.limits(), context.count):
            return Reason.TOPIC_FILTER_INVALID
        if not context.access.may_subscribe(
            connection.username, connection.client_id, plain, connection.address
        ):
            context.count(Counter.SUBSCRIPTIONS_REFUSED_NOT_ALLOWED)
            return Reason.NOT_AUTHORIZED
        gate = connection.gate
        if gate is not None and plain[0] != "$" and not gate.may_subscribe(plain):
            context.count(Counter.SUBSCRIPTIONS_REFUSED_NOT_ALLOWED)
            return Reason.NOT_AUTHORIZED
        full = self._exceeded(options.topic_filter)
        if full is not None:
            context.count(full)
            return Reason.QUOTA_EXCEEDED
        new = context.sessions.subscribe(connection.session, options)
        if shared is None and (
            options.retain_handling == 0 or (options.retain_handling == 1 and new)
        ):
            # As they are now: a later message is delivered as a new one (section 3.8.4).
            found = context.retained.search(plain, context.door.matched_seq)
            if options.no_local:
                found = _of_others(found, connection.client_id)
            self._retained.append((found, options))
        if context.plugins is not None:
            context.plugins.subscribed(connection.client_id, options.topic_filter, options.qos)
        return options.qos

    def _exceeded(self, topic_filter: str) -> Counter | None:
        """The counter of the limit that one more topic filter of the client would exceed."""
        client_id, subscriptions = self._connection.client_id, self._context.subscriptions
        limits = self._context.limits()
        if subscriptions.has(client_id, topic_filter):
            return None
        if subscriptions.count(client_id) >= limits.max_subscriptions_per_client:
            return Counter.SUBSCRIPTIONS_REFUSED_LIMIT
        if subscriptions.levels(client_id) + levels_of(topic_filter) > limits.max_filter_nodes:
            return Counter.SUBSCRIPTIONS_REFUSED_TOO_MANY_NODES
        if self._context.door.is_held and subscriptions.cost(client_id) > _MOST_WHILE_HELD:
            return Counter.MEMORY_GROWTH_REFUSED
        return None

    def unsubscribe(self, topic_filter: str) -> bool:
        """Carry out one filter of the UNSUBSCRIBE under way."""
        session = self._connection.session
        removed = session is not None and self._context.sessions.unsubscribe(session, topic_filter)
        self._codes.append(0 if removed else Reason.NO_SUBSCRIPTION_EXISTED)
        if removed and self._context.plugins is not None:
            self._context.plugins.unsubscribed(self._connection.client_id, topic_filter)
        return removed
