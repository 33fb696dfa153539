"""An outbox whose messages leave once plugins have said that the client may receive their topics.

The queue is the one that every outbox has, with its bounds and its order: what waits for an answer
waits at its head. Messages at QoS 0 wait there too. Not for: asking (plugin_gate.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from appliance.broker.outbox import SEARCHING, Delivery, Outbox
from appliance.counters import Counter
from appliance.journal.message_cost import cost_of
from appliance.model import Message


class _PutBackIterator:
    """Deliveries whose last one can be put back.

    ``itertools.chain`` would nest one level deeper for each delivery that is put back: a hundred
    thousand retained messages then overflow the C stack, which ends the process.
    """

    __slots__ = ("_rest", "first")

    def __init__(self, rest: Iterator[Delivery]) -> None:
        self._rest = rest
        self.first: Delivery | None = None

    def __iter__(self) -> Iterator[Delivery]:
        return self

    def __next__(self) -> Delivery:
        first, self.first = self.first, None
        return next(self._rest) if first is None else first


class GatedOutbox(Outbox):
    """Delivery to one client, where topic plugins are configured."""

    __slots__ = ()

    def deliver(
        self,
        message: Message,
        qos: int,
        *,
        retain: bool,
        identifiers: tuple[int, ...] = (),
        was_sent: bool = False,
    ) -> None:
        if qos:
            super().deliver(message, qos, retain=retain, identifiers=identifiers, was_sent=was_sent)
            return
        if self.sink is None:
            return
        if self.sink.stalled:
            self._drop(Counter.DELIVERIES_DROPPED_SLOW_SUBSCRIBER)
            return
        cost = cost_of(message)
        self._make_room(cost)
        self._queued_bytes += cost
        self._queue.append(Delivery(message, 0, retain, identifiers, cost))
        self.pump()

    def detach(self) -> None:
        # At QoS 0 nothing is kept for a client that is away.
        kept = [each for each in self._queue if each.qos]
        self._queue = deque(kept)
        self._queued_bytes = sum(each.cost for each in kept)
        super().detach()

    def unsettled_seq(self) -> int | None:
        return min((each.message.seq for each in self.unsettled()), default=None)

    def unsettled(self) -> list[Delivery]:
        return [each for each in super().unsettled() if each.qos]

    def _next(self) -> Delivery | None:
        while (delivery := super()._next()) is not None:
            if delivery is SEARCHING:
                return delivery
            gate = None if self.sink is None else self.sink.gate
            # Without a gate no plugin has said yes.
            allowed = gate is not None and gate.may_receive(delivery.message.topic, self.pump)
            if allowed:
                return delivery
            if allowed is None:
                self._put_back(delivery)
                return None
            self._drop(Counter.DELIVERIES_REFUSED_NOT_ALLOWED)
            self.activity += 1
        return None

    def _put_back(self, delivery: Delivery) -> None:
        if self._retained:
            source = self._retained[0]
            if not isinstance(source, _PutBackIterator):
                source = self._retained[0] = _PutBackIterator(source)
            source.first = delivery
        else:
            self._queue.appendleft(delivery)
            self._queued_bytes += delivery.cost
