"""The messages that one client has still to get: its queue, its window of unacknowledged ones.

An outbox belongs to a session, not to a connection: it outlives the connection of a persistent
session and is resumed by the next one. Not for: which messages a client should get
(subscriptions.py), sockets (output.py), the database (session_store.py).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from appliance.counters import Count, Counter
from appliance.journal.message_cost import cost_of
from appliance.model import Message

if TYPE_CHECKING:
    from appliance.broker.plugin_gate import TopicGate


class Delivery(msgspec.Struct):
    """One message on its way to one client."""

    message: Message
    qos: int
    retain: bool
    identifiers: tuple[int, ...] = ()
    cost: int = 0
    """Bytes that it counts while it is queued or unacknowledged (message_cost)."""
    sent: bool = False
    received: bool = False
    """The client's PUBREC came: the message is with it, only the release is open (QoS 2)."""
    noting: bool = False
    """A note about the exchange is on its way to the disk; the next packet waits for it."""
    was_sent: bool = False
    """It may have been sent before the appliance was started."""


SEARCHING = Delivery(Message(0, 0, "", b""), 0, retain=False)
"""Stands for a step of a search that found nothing."""

_AT_ONCE = 200
"""Steps of sending before other clients get their turn: some milliseconds."""


class Sink(Protocol):
    """A connection, as an outbox sees it."""

    window: int
    """How many QoS 1 and 2 messages may be unacknowledged (the client's receive maximum)."""
    fail: Callable[[Exception], None]
    """Ends the connection because of an error of the appliance's own."""

    gate: TopicGate | None
    """What plugins say about topics that the client may receive; ``None``: they are not asked."""

    def send_publish(self, delivery: Delivery, packet_id: int, *, duplicate: bool) -> bool:
        """Put a PUBLISH on the wire; ``False`` if it is not to be sent (too large, expired)."""

    def send_release(self, packet_id: int) -> None:
        """Put a PUBREL on the wire."""

    def go_on_soon(self) -> None:
        """Call the outbox's ``go_on`` in a later step of the loop."""

    @property
    def stalled(self) -> bool:
        """Whether the client reads too slowly for more to be sent now."""


class Keeper(Protocol):
    """Where persistent sessions note their QoS 2 exchanges, so that a crash repeats none.

    ``then`` is called when the note is on disk.
    """

    def sending(
        self, client_id: str, packet_id: int, delivery: Delivery, then: Callable[[], None]
    ) -> None:
        """The message is about to be sent with this packet id."""

    def received(self, client_id: str, packet_id: int, seq: int, then: Callable[[], None]) -> None:
        """The client has the message."""

    def completed(self, client_id: str, packet_id: int, seq: int) -> None:
        """The packet id is free again."""


class Outbox:
    """Delivery to one client, in order, within bounds.

    ``limit`` bounds the queue in messages and ``max_bytes`` in bytes of their cost; beyond it the
    oldest is dropped and counted through ``count`` (MQTT 3.1.1 section 4.4 leaves resource limits
    to the server). ``max_bytes`` bounds what is sent and unacknowledged, too: beyond it, nothing
    more is sent until the client acknowledges. ``current`` tells the retained message of a topic as
    it is now.
    """

    __slots__ = (
        "_count",
        "_current",
        "_due",
        "_goes_on_soon",
        "_held",
        "_inflight",
        "_inflight_bytes",
        "_limit",
        "_max_bytes",
        "_queue",
        "_queued_bytes",
        "_retained",
        "activity",
        "client_id",
        "delivered",
        "denied",
        "dropped",
        "keeper",
        "persistent",
        "sink",
    )

    def __init__(
        self,
        client_id: str,
        *,
        limit: int,
        max_bytes: int,
        count: Count,
        current: Callable[[str], Message | None],
    ) -> None:
        self.client_id = client_id
        self.persistent = False
        self.keeper: Keeper | None = None
        self.sink: Sink | None = None
        self.denied: Callable[[str], bool] | None = None
        """Whether the client may not get messages of a topic (``Access.denial``)."""
        self.dropped = 0
        self.delivered = 0
        self.activity = 0
        """Grows with every change of the messages that the client has still to get."""
        self._limit = limit
        self._max_bytes = max_bytes
        self._queued_bytes = 0
        self._queue: deque[Delivery] = deque()
        self._retained: deque[Iterator[Delivery]] = deque()
        self._inflight: dict[int, Delivery] = {}
        self._inflight_bytes = 0
        self._due: OrderedDict[int, None] = OrderedDict()
        """Packet ids in flight from an earlier connection, to be sent on this one too, in order."""
        self._held = False
        self._goes_on_soon = False
        """Enough was sent in this step of the loop; ``go_on`` will be called."""
        self._count = count
        self._current = current

    @property
    def queued(self) -> int:
        """Messages that wait or are unacknowledged."""
        return len(self._queue) + len(self._inflight)

    @property
    def queued_bytes(self) -> int:
        """What the messages that wait or are unacknowledged count for (message_cost)."""
        return self._queued_bytes + self._inflight_bytes

    @property
    def in_flight(self) -> int:
        """Messages that were sent and are unacknowledged."""
        return len(self._inflight)

    def unsettled_seq(self) -> int | None:
        """The lowest journal sequence number that this client has not acknowledged yet."""
        waiting = [d.message.seq for d in self._inflight.values() if not d.received]
        if self._queue:
            # The queue is in the journal's order; this is asked of every session each second.
            waiting.append(self._queue[0].message.seq)
        return min(waiting, default=None)

    def unsettled(self) -> list[Delivery]:
        """What the client has not acknowledged yet, in the order of the journal."""
        waiting = [each for each in self._inflight.values() if not each.received]
        return sorted([*waiting, *self._queue], key=lambda each: each.message.seq)

    # --- what the client is to get --------------------------------------------------------------

    def deliver(
        self,
        message: Message,
        qos: int,
        *,
        retain: bool,
        identifiers: tuple[int, ...] = (),
        was_sent: bool = False,
    ) -> None:
        """Send a message now if the client can take it, else queue it, within bounds.

        ``was_sent``: it may have been sent before this start, so it has the DUP flag.
        """
        sink = self.sink
        if qos == 0:
            if sink is None:
                return
            if sink.stalled:
                self._drop(Counter.DELIVERIES_DROPPED_SLOW_SUBSCRIBER)
            elif sink.send_publish(Delivery(message, 0, retain, identifiers), 0, duplicate=False):
                self.delivered += 1
            return
        if sink is None and not self.persistent:
            return
        self.activity += 1
        cost = cost_of(message)
        if self._queue:
            self._make_room(cost)
        self._queued_bytes += cost
        self._queue.append(Delivery(message, qos, retain, identifiers, cost, was_sent=was_sent))
        if sink is not None:
            self.pump()
            is_held = (
                bool(self._queue)
                and not sink.stalled
                and (
                    len(self._inflight) - len(self._due) >= sink.window
                    or self._inflight_bytes >= self._max_bytes
                )
            )
            if is_held and not self._held:
                self._count(Counter.DELIVERIES_HELD)
            self._held = is_held

    def _make_room(self, size: int) -> None:
        """Drop the oldest until a message of so many bytes is within the bounds."""
        while self._queue and (
            len(self._queue) >= self._limit or self._queued_bytes + size > self._max_bytes
        ):
            self._queued_bytes -= self._queue.popleft().cost
            self._drop(Counter.DELIVERIES_DROPPED_QUEUE_FULL)

    def failed(self, error: Exception) -> None:
        """``deliver`` raised an error: the message is dropped, and the connection ends."""
        self._drop(Counter.DELIVERIES_DROPPED_INTERNAL_ERROR)
        if self.sink is not None:
            self.sink.fail(error)

    def deliver_retained(
        self, found: Iterable[Message | None], qos: int, identifiers: tuple[int, ...]
    ) -> None:
        """Send any number of retained messages, as fast as the client takes them.

        ``found`` is asked for the next one when the client takes it; ``None`` is a step of the
        search that found nothing. A message that is replaced before its turn is left out, because
        its replacement is delivered as a new message.
        """
        self._retained.append(
            SEARCHING
            if message is None
            or self._current(message.topic) is not message
            or (self.denied is not None and self.denied(message.topic))
            else Delivery(message, min(message.qos, qos), True, identifiers)
            for message in found
        )
        self.pump()

    def _drop(self, counter: Counter) -> None:
        self.dropped += 1
        self._count(counter)

    # --- connections come and go ----------------------------------------------------------------

    def attach(self, sink: Sink) -> None:
        """Resume on a new connection: what is not acknowledged is sent again, in its order."""
        self.sink = sink
        self._goes_on_soon = False
        self._due = OrderedDict.fromkeys(self._inflight)
        self.pump()

    def detach(self) -> None:
        """The connection is gone. Without a persistent session, so is what was on its way."""
        self.sink = None
        self._due.clear()
        if not self.persistent:
            self.clear()

    def clear(self) -> None:
        """Forget everything that is queued or unacknowledged."""
        self._queue.clear()
        self._retained.clear()
        self._inflight.clear()
        self._due.clear()
        self._queued_bytes = self._inflight_bytes = 0

    def restore(self, packet_id: int, delivery: Delivery) -> None:
        """An exchange that was under way when the appliance ended."""
        self._add_in_flight(packet_id, delivery)

    def bound(self, limit: int, max_bytes: int) -> None:
        """Let other bounds of the queue count, from the next message on."""
        self._limit, self._max_bytes = limit, max_bytes

    def waiting_topics(self) -> set[str]:
        """The topics of the messages that wait."""
        waiting = {one.message.topic for one in self._queue}
        return waiting | {each.message.topic for each in self._inflight.values()}

    def withhold(self, may_have: Callable[[str], bool]) -> None:
        """Drop what waits on topics that the client may not have any more.

        What is with a client that is connected stays until it is acknowledged.
        """
        self.activity += 1
        kept = [one for one in self._queue if may_have(one.message.topic)]
        self._queue = deque(kept)
        self._queued_bytes = sum(one.cost for one in kept)
        self._retained = deque(
            (one for one in each if one is SEARCHING or may_have(one.message.topic))
            for each in self._retained
        )
        for packet_id, delivery in list(self._inflight.items()):
            is_with_client = delivery.sent and self.sink is not None
            if not (delivery.received or is_with_client or may_have(delivery.message.topic)):
                self._finish(packet_id, delivery)

    # --- sending --------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send what waits while the client's window and its reading allow it.

        Much of it is sent in several steps of the loop, so that one client's messages do not keep
        the others waiting.
        """
        sink = self.sink
        if sink is None or self._goes_on_soon:
            return
        steps = 0
        while (
            (self._queue or self._retained or self._due)
            and len(self._inflight) - len(self._due) < sink.window
            and (self._inflight_bytes < self._max_bytes or self._due)
            and not sink.stalled
        ):
            if steps == _AT_ONCE:
                self._goes_on_soon = True
                sink.go_on_soon()
                return
            steps += 1
            if self._due:
                packet_id = next(iter(self._due))
                if self._inflight[packet_id].noting:
                    return  # ``_noted`` goes on here; what is behind it may not overtake it
                del self._due[packet_id]
                self._send(packet_id, self._inflight[packet_id])
                continue
            delivery = self._next()
            if delivery is None:
                return
            if delivery is SEARCHING:
                continue
            if delivery.qos:
                self._begin(delivery)
            elif sink.send_publish(delivery, 0, duplicate=False):
                self.delivered += 1

    def go_on(self) -> None:
        """Send more of what waits: the loop has done other work since."""
        self._goes_on_soon = False
        self.pump()

    def _next(self) -> Delivery | None:
        while self._retained:
            delivery = next(self._retained[0], None)
            if delivery is not None:
                return delivery
            self._retained.popleft()
        if not self._queue:
            return None
        delivery = self._queue.popleft()
        self._queued_bytes -= delivery.cost
        return delivery

    def _begin(self, delivery: Delivery) -> None:
        packet_id = self._id_of(delivery.message)
        self._add_in_flight(packet_id, delivery)
        if delivery.qos == 2 and self.keeper is not None:
            delivery.noting = True
            noted = partial(self._noted, packet_id, delivery)
            self.keeper.sending(self.client_id, packet_id, delivery, noted)
        else:
            self._send(packet_id, delivery)

    def _add_in_flight(self, packet_id: int, delivery: Delivery) -> None:
        if not delivery.cost:  # it was not queued
            delivery.cost = cost_of(delivery.message)
        self._inflight[packet_id] = delivery
        self._inflight_bytes += delivery.cost

    def _noted(self, packet_id: int, delivery: Delivery) -> None:
        delivery.noting = False
        if self.sink is not None and self._inflight.get(packet_id) is delivery:
            if packet_id not in self._due:  # there it has a place, and is no part of the window
                self._send(packet_id, delivery)
            # One that the client can't take has left the window, and nothing else asks for more.
            self.pump()

    def _send(self, packet_id: int, delivery: Delivery) -> None:
        sink = self.sink
        if sink is None:
            return
        if delivery.received:
            sink.send_release(packet_id)
        elif sink.send_publish(delivery, packet_id, duplicate=delivery.sent or delivery.was_sent):
            if not delivery.sent:
                self.delivered += 1
            delivery.sent = True
        else:
            self._finish(packet_id, delivery)

    def _id_of(self, message: Message) -> int:
        """A free packet id: that which the message has after a restart, too.

        A client can then tell a redelivery from another message of the same content
        [MQTT-4.4.0-1], and the ids ascend with the messages.
        """
        packet_id = message.seq
        while True:
            packet_id = (packet_id - 1) % 65535 + 1
            if packet_id not in self._inflight:
                return packet_id
            packet_id += 1

    # --- what the client acknowledges -----------------------------------------------------------

    def acknowledged(self, packet_id: int) -> bool:
        """PUBACK came; returns whether something with that id was open at QoS 1."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or delivery.qos != 1:
            return False
        self._finish(packet_id, delivery)
        self.pump()
        return True

    def received(self, packet_id: int, *, refused: bool = False) -> bool:
        """PUBREC came (``refused``: with an error code, which ends the exchange)."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or delivery.qos != 2 or not delivery.sent:
            return False
        self.activity += 1
        if refused:
            self._finish(packet_id, delivery)
            self.pump()
        elif delivery.noting:
            # A PUBREC that came twice: the release leaves when the first one is on disk.
            pass
        elif delivery.received or self.keeper is None:
            delivery.received = True
            self._due.pop(packet_id, None)
            self._send(packet_id, delivery)
        else:
            delivery.received = delivery.noting = True
            noted = partial(self._noted, packet_id, delivery)
            self.keeper.received(self.client_id, packet_id, delivery.message.seq, noted)
        return True

    def completed(self, packet_id: int) -> bool:
        """PUBCOMP came."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or delivery.qos != 2 or not delivery.received:
            return False
        self._finish(packet_id, delivery)
        self.pump()
        return True

    def is_with_client(self, packet_id: int) -> bool:
        """Whether the message with this id was sent and waits for an acknowledgement."""
        delivery = self._inflight.get(packet_id)
        return delivery is not None and delivery.sent

    def _finish(self, packet_id: int, delivery: Delivery) -> None:
        self.activity += 1
        del self._inflight[packet_id]
        self._inflight_bytes -= delivery.cost
        if self._due:
            self._due.pop(packet_id, None)
        if delivery.qos == 2 and self.keeper is not None:
            self.keeper.completed(self.client_id, packet_id, delivery.message.seq)
