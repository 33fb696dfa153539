"""What one client still has to get: its queue, its window of unacknowledged messages.

An outbox belongs to a session, not to a connection: it outlives the connection of a persistent
session and is resumed by the next one. Not for: which messages a client should get
(subscriptions.py), sockets (connection.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from appliance.model import Message


class Delivery(msgspec.Struct):
    """One message on its way to one client."""

    message: Message
    qos: int
    retain: bool
    identifiers: tuple[int, ...] = ()
    queued_ns: int = 0
    sent: bool = False
    received: bool = False
    """The client's PUBREC came: the message is with it, only the release is open (QoS 2)."""


class Sink(Protocol):
    """A connection, as an outbox sees it."""

    window: int
    """How many QoS 1 and 2 messages may be unacknowledged (the client's receive maximum)."""

    def send_publish(self, delivery: Delivery, packet_id: int, *, duplicate: bool) -> bool:
        """Put a PUBLISH on the wire; ``False`` if it was left out (too large, expired, stalled)."""

    def send_release(self, packet_id: int) -> None:
        """Put a PUBREL on the wire."""

    @property
    def stalled(self) -> bool:
        """Whether the client reads too slowly for more to be sent now."""


class Outbox:
    """Delivery to one client, in order, within bounds.

    ``limit`` bounds the queue in messages; what comes beyond it is dropped, newest first, and
    counted through ``count`` (MQTT 3.1.1 section 4.4 leaves resource limits to the server).
    """

    def __init__(
        self,
        client_id: str,
        *,
        limit: int,
        max_bytes: int,
        clock_ns: Callable[[], int],
        count: Callable[[str], None],
    ) -> None:
        self.client_id = client_id
        self.persistent = False
        self.sink: Sink | None = None
        self.dropped = 0
        self.delivered = 0
        self._limit = limit
        self._max_bytes = max_bytes
        self._queued_bytes = 0
        self._queue: deque[Delivery] = deque()
        self._inflight: dict[int, Delivery] = {}
        self._last_id = 0
        self._clock_ns = clock_ns
        self._count = count

    @property
    def queued(self) -> int:
        """Messages that wait or are unacknowledged."""
        return len(self._queue) + len(self._inflight)

    def unsettled_seq(self) -> int | None:
        """The lowest journal sequence number that this client has not acknowledged yet."""
        waiting = [d.message.seq for d in self._inflight.values() if d.message.seq]
        waiting += [d.message.seq for d in self._queue if d.message.seq]
        return min(waiting) if waiting else None

    def deliver(
        self, message: Message, qos: int, *, retain: bool, identifiers: tuple[int, ...] = ()
    ) -> None:
        """Send a message now if the client can take it, else queue it, within bounds."""
        sink = self.sink
        if qos == 0:
            if sink is None:
                return
            if sink.stalled:
                self._drop("deliveries dropped: slow subscriber")
            elif sink.send_publish(Delivery(message, 0, retain, identifiers), 0, duplicate=False):
                self.delivered += 1
            return
        if sink is None and not self.persistent:
            return
        if len(self._queue) >= self._limit:
            self._drop("deliveries dropped: queue full")
            return
        if self._queued_bytes + len(message.payload) > self._max_bytes and self._queue:
            self._drop("deliveries dropped: queue full")
            return
        self._queued_bytes += len(message.payload)
        self._queue.append(Delivery(message, qos, retain, identifiers, self._clock_ns()))
        if sink is not None:
            self.pump()

    def _drop(self, counter: str) -> None:
        self.dropped += 1
        self._count(counter)

    def attach(self, sink: Sink) -> None:
        """Resume on a new connection: what was sent and not acknowledged goes again, in order."""
        self.sink = sink
        for packet_id, delivery in list(self._inflight.items()):
            if delivery.received:
                sink.send_release(packet_id)
            elif not sink.send_publish(delivery, packet_id, duplicate=delivery.sent):
                del self._inflight[packet_id]
            else:
                delivery.sent = True
        self.pump()

    def detach(self) -> None:
        """The connection is gone. Without a persistent session, so is what was on its way."""
        self.sink = None
        if not self.persistent:
            self.clear()

    def clear(self) -> None:
        """Forget everything that is queued or unacknowledged."""
        self._queue.clear()
        self._inflight.clear()
        self._queued_bytes = 0

    def pump(self) -> None:
        """Send from the queue while the client's window and its reading allow it."""
        sink = self.sink
        if sink is None:
            return
        while self._queue and len(self._inflight) < sink.window and not sink.stalled:
            delivery = self._queue.popleft()
            self._queued_bytes -= len(delivery.message.payload)
            packet_id = self._next_id()
            self._inflight[packet_id] = delivery
            if sink.send_publish(delivery, packet_id, duplicate=False):
                delivery.sent = True
                self.delivered += 1
            else:
                del self._inflight[packet_id]

    def _next_id(self) -> int:
        packet_id = self._last_id
        while True:
            packet_id = packet_id % 65535 + 1
            if packet_id not in self._inflight:
                self._last_id = packet_id
                return packet_id

    def seq_of(self, packet_id: int) -> int:
        """The journal's number of the message that is in flight under a packet id, else 0."""
        delivery = self._inflight.get(packet_id)
        return 0 if delivery is None else delivery.message.seq

    def acknowledged(self, packet_id: int) -> bool:
        """PUBACK came; returns whether something with that id was open at QoS 1."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or delivery.qos != 1:
            return False
        del self._inflight[packet_id]
        self.pump()
        return True

    def received(self, packet_id: int, *, refused: bool = False) -> bool:
        """PUBREC came (``refused``: with an error code, which ends the exchange)."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or delivery.qos != 2:
            return False
        if refused:
            del self._inflight[packet_id]
            self.pump()
        else:
            delivery.received = True
            if self.sink is not None:
                self.sink.send_release(packet_id)
        return True

    def completed(self, packet_id: int) -> bool:
        """PUBCOMP came."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or delivery.qos != 2:
            return False
        del self._inflight[packet_id]
        self.pump()
        return True
