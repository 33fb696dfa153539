"""What one connection to another broker brings in: from packets to numbered messages at the door.

Every packet of QoS 1 is acknowledged once its message is in the journal; one that is left out is
counted, said, and acknowledged, since the broker would send it for ever. QoS 2 is never asked for;
a session may hold such messages from an earlier use of its client id, and they are taken as if they
were of QoS 1: each is answered when it is in the journal. Not for: framing (connection.py), what a
repeat is (repeats.py), topics (routes.py).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from appliance.bridge.account import Account
from appliance.bridge.marks import is_looping
from appliance.bridge.routes import PROBE, Route, Routes
from appliance.broker.door import Door, Publisher
from appliance.broker.sparse_log import SparseLog
from appliance.config.tables import LimitsConfig
from appliance.counters import Count, Counter
from appliance.journal.message_cost import beside_payload
from appliance.log.sanitize import escape
from appliance.model import Message, bridge_client_id
from appliance.mqtt.packets import PacketError
from appliance.mqtt.properties import PropertyLimit
from appliance.mqtt.received import Oversized, Published, read_publishes

logger = logging.getLogger(__name__)

_PUBACK, _PUBREC, _PUBCOMP = b"\x40\x02", b"\x50\x02", b"\x70\x02"
_SHOWN = 100
"""Characters of a topic in the log."""


class _Batch(NamedTuple):
    """What was handed to the door in one go and is not committed yet."""

    acks: bytes
    last_seq: int
    messages: int


class Totals:
    """What a bridge brought in since the start, over all its connections."""

    def __init__(self, by_subscription: list[int]) -> None:
        self.messages = 0
        self.repeats = 0
        self.by_subscription = by_subscription
        """Since each was subscribed to."""


class Incoming:
    """The receiving side of one connection."""

    def __init__(
        self,
        *,
        name: str,
        address: str,
        version: int,
        door: Door,
        publisher: Publisher,
        routes: Routes,
        limits: Callable[[], LimitsConfig],
        account: Account,
        totals: Totals,
        count: Count,
        installation: str,
        sparse: SparseLog,
        on_probe: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """Nothing has come yet.

        ``installation`` is the mark that this appliance leaves on messages that go out, and
        ``on_probe`` gets the payload of what comes on the topic of a test (share_probe.py).
        """
        self._client_id = bridge_client_id(name)
        self._address = address
        self._version = version
        self._door = door
        self._publisher = publisher
        self._routes = routes
        self._limits = limits
        self._repeats = account.repeats
        self._replays = account.replays
        self._totals = totals
        self._count = count
        self._installation = installation
        self._sparse = sparse
        self._on_probe = on_probe
        self._messages: list[Message] = []
        self._retained: list[Message] = []
        self._size = 0
        self._beside = 0
        self._acks = bytearray()
        self._under_way: deque[_Batch] = deque()
        self.unacknowledged = 0
        """Messages that came in and are not in the journal yet."""
        self.may_be_replayed = False
        """A filter was subscribed to on this connection, so a message with the RETAIN flag is one
        that the broker held for new subscribers (MQTT 3.1.1, section 3.3.1.3). On a session that
        goes on without that, it is one that waited: amqtt sets the flag on these."""

    def take(self, data: bytes, position: int, limit: int, most: int) -> int:
        """Take whole PUBLISH packets in a row; returns the position of what follows.

        Raises:
            PacketError: one breaks the protocol, or is larger than ``limit``.
        """
        limits = self._limits()
        packets, position = read_publishes(
            data,
            position,
            limit,
            self._version,
            most,
            property_limit=PropertyLimit(int(limits.max_properties_size), limits.max_properties),
        )
        now = self._door.clock_ns()
        for packet in packets:
            self._take(packet, now)
        return position

    def _take(self, packet: Published, now_ns: int) -> None:
        qos = packet.qos
        if qos:
            self._acks += _PUBACK if qos == 1 else _PUBREC
            self._acks += packet.packet_id.to_bytes(2, "big")
        try:
            route = self._routes.find(packet.topic)
        except PacketError as error:
            route = Route("", Counter.BRIDGE_MESSAGES_LEFT_OUT_TOPIC, str(error))
        is_plain = route.topic and not (packet.retain or packet.properties or packet.problem)
        is_held = packet.retain and self.may_be_replayed
        if not is_plain and self._is_left_out(packet, route, is_held=is_held):
            if qos:
                self._repeats.left_out(packet.packet_id)
            return
        topic = route.topic
        seq = self._door.next_seq()
        is_repeat, number = False, 0
        if qos:
            is_repeat, number = self._repeats.number(
                topic, packet.payload, packet.dup, packet.packet_id, seq
            )
        if route.wants_retained:
            if is_held and self._replays.is_replay(topic, packet.payload):
                is_repeat = True
            elif not is_repeat:
                self._replays.note(topic, packet.payload, seq)
        message = Message(
            seq,
            now_ns,
            topic,
            packet.payload,
            qos,
            is_held,
            is_repeat,
            self._client_id,
            None,
            self._address,
            packet.properties,
            number,
        )
        self._messages.append(message)
        self._size += len(packet.payload)
        if packet.properties is None and topic.isascii():
            self._beside += len(topic)
        else:
            self._beside += beside_payload(message)
        if is_held:
            self._retained.append(message)
        if is_repeat:
            self._totals.repeats += 1
        self._totals.by_subscription[route.subscription] += 1

    def _is_left_out(self, packet: Published, route: Route, *, is_held: bool) -> bool:
        """Whether a message must not come in; counts and says it."""
        if route is PROBE:
            self._on_probe(packet.payload)
            return True
        if not route.topic:
            self._leave_out(packet.topic, route.left_out, route.problem)
            return True
        if packet.problem:
            self._leave_out(
                packet.topic, Counter.BRIDGE_MESSAGES_LEFT_OUT_PROPERTIES, packet.problem
            )
            return True
        if is_held and not route.wants_retained:
            self._count(Counter.BRIDGE_MESSAGES_LEFT_OUT_RETAINED)
            return True
        properties = packet.properties
        if properties is not None and is_looping(properties, self._installation):
            self._count(Counter.BRIDGE_MESSAGES_LEFT_OUT_LOOP)
            return True
        return False

    def _leave_out(self, topic: bytes, counter: Counter | None, problem: str) -> None:
        if counter is not None:
            self._count(counter)
        self._sparse.log(
            logging.WARNING,
            ": a message on %s is left out: %s",
            escape(topic[:_SHOWN].decode(errors="replace")),
            escape(problem[: 2 * _SHOWN]),
        )

    def leave_out_oversized(self, packet: Oversized, limit: int) -> None:
        """Acknowledge a message that is too large: the broker would send it for ever."""
        if packet.qos:
            self._acks += _PUBACK if packet.qos == 1 else _PUBREC
            self._acks += packet.packet_id.to_bytes(2, "big")
            self._repeats.left_out(packet.packet_id)
        self._leave_out(
            packet.topic.encode(),
            Counter.BRIDGE_MESSAGES_LEFT_OUT_TOO_LARGE,
            f"its packet has {packet.size} bytes, max_packet_size is {limit}",
        )

    def release(self, packet_id: int) -> None:
        """A PUBREL came: the message of QoS 2 is in the journal, and its exchange ends."""
        self._acks += _PUBCOMP + packet_id.to_bytes(2, "big")

    def enter(self) -> None:
        """Hand what has been gathered to the door."""
        messages, acks = self._messages, bytes(self._acks)
        if not messages and not acks:
            return
        retained, size, beside = self._retained, self._size, self._beside
        self._messages, self._retained = [], []
        self._size = self._beside = 0
        self._acks.clear()
        if acks:
            last = messages[-1].seq if messages else 0
            self._under_way.append(_Batch(acks, last, len(messages)))
            self.unacknowledged += len(messages)
        self._totals.messages += len(messages)
        self._door.enter(messages, size, self._publisher, acks, retained, beside=beside)

    def committed(self, acks: bytes) -> int:
        """The door returns these acknowledgements: their messages are in the journal.

        Returns the number of the newest message that they acknowledge, 0 if there is none.
        """
        while self._under_way:
            batch = self._under_way.popleft()
            self.unacknowledged -= batch.messages
            if batch.acks is acks:  # what the journal refused never comes back
                return batch.last_seq
        return 0
