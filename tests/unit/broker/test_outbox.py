"""The outbox as a state machine: order, window, nothing lost, nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.broker.gated_outbox import GatedOutbox
from appliance.broker.outbox import Delivery, Outbox
from appliance.counters import Counter as Counted
from appliance.model import Message


class Client:
    """A client at the other end, as MQTT wants it: it knows which QoS 2 messages it has."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.stalled = False
        self.goes_on = 0
        self.wire: list[tuple[str, int, int]] = []
        """What is on its way to the client: kind, packet id, number."""
        self.unacknowledged: set[int] = set()
        """Packet ids of what was sent on this connection and is not acknowledged in full."""

    def send_publish(self, delivery: Delivery, packet_id: int, *, duplicate: bool) -> bool:
        assert duplicate == delivery.sent
        if delivery.qos:
            self.unacknowledged.add(packet_id)
        self.wire.append((f"publish{delivery.qos}", packet_id, int(delivery.message.payload)))
        return True

    def go_on_soon(self) -> None:
        self.goes_on += 1

    def send_release(self, packet_id: int) -> None:
        self.unacknowledged.add(packet_id)
        self.wire.append(("release", packet_id, 0))


class Notes:
    """A disk that takes its time."""

    def __init__(self) -> None:
        self.waiting: list = []

    def sending(self, client_id, packet_id, delivery, then) -> None:
        self.waiting.append(then)

    def received(self, client_id, packet_id, seq, then) -> None:
        self.waiting.append(then)

    def completed(self, client_id, packet_id, seq) -> None:
        self.waiting.append(lambda: None)


class OutboxMachine(RuleBasedStateMachine):
    """Messages go in; connections, acknowledgements and stalls come as they please."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[Counted] = Counter()
        self.outbox = Outbox(
            "c",
            limit=10**6,
            max_bytes=10**9,
            count=lambda name: self.counted.update([name]),
            current=lambda _topic: None,
        )
        self.outbox.persistent = True
        self.notes = Notes()
        self.outbox.keeper = self.notes
        self.client: Client | None = None
        self.number = 0
        self.sent: dict[int, list[int]] = {1: [], 2: []}
        self.got: dict[int, list[int]] = {1: [], 2: []}
        self.held: set[int] = set()
        self.settled: set[int] = set()

    @rule(qos=st.sampled_from([1, 2]))
    def deliver(self, qos: int) -> None:
        self.number += 1
        self.sent[qos].append(self.number)
        self.outbox.deliver(Message(self.number, 0, "t", b"%d" % self.number), qos, retain=False)

    @precondition(lambda self: self.client is None)
    @rule(window=st.integers(1, 4))
    def connect(self, window: int) -> None:
        self.client = Client(window)
        self.outbox.attach(self.client)

    @precondition(lambda self: self.client is not None)
    @rule()
    def vanish(self) -> None:
        """What is on the wire is lost."""
        self.client = None
        self.outbox.detach()

    @precondition(lambda self: self.client is not None)
    @rule(stalled=st.booleans())
    def stall(self, stalled: bool) -> None:
        self.client.stalled = stalled
        if not stalled:
            self.outbox.pump()

    @precondition(lambda self: self.notes.waiting)
    @rule()
    def commit(self) -> None:
        waiting, self.notes.waiting = self.notes.waiting, []
        for then in waiting:
            then()

    @precondition(lambda self: self.client is not None and self.client.wire)
    @rule(reply=st.booleans())
    def read(self, reply: bool) -> None:
        """The client reads a packet; its answer arrives or not."""
        kind, packet_id, number = self.client.wire.pop(0)
        if kind == "publish1":
            assert number not in self.settled
            if not self.got[1] or number > self.got[1][-1]:
                self.got[1].append(number)
            if reply:
                self.client.unacknowledged.discard(packet_id)
                self.settled.add(number)
                self.outbox.acknowledged(packet_id)
        elif kind == "publish2":
            if packet_id not in self.held:
                self.held.add(packet_id)
                self.got[2].append(number)
            if reply:
                self.outbox.received(packet_id)
        else:
            self.held.discard(packet_id)
            if reply:
                self.client.unacknowledged.discard(packet_id)
                self.outbox.completed(packet_id)

    @rule(packet_id=st.integers(1, 65535), kind=st.sampled_from(["ack", "rec", "comp"]))
    def nonsense(self, packet_id: int, kind: str) -> None:
        """Acknowledgements of nothing change nothing."""
        if packet_id not in self.outbox._inflight:
            assert not getattr(
                self.outbox, {"ack": "acknowledged", "rec": "received", "comp": "completed"}[kind]
            )(packet_id)

    @invariant()
    def window_is_kept(self) -> None:
        if self.client is not None:
            assert len(self.client.unacknowledged) <= self.client.window

    @invariant()
    def order_is_kept(self) -> None:
        for qos in (1, 2):
            assert self.got[qos] == self.sent[qos][: len(self.got[qos])]

    def teardown(self) -> None:
        """Left alone with a client that reads, everything arrives; at QoS 2 exactly once."""
        if self.client is None:
            self.connect(3)
        self.client.stalled = False
        self.outbox.pump()
        for _ in range(self.number * 8 + 50):
            if self.notes.waiting:
                self.commit()
            if self.client.wire:
                self.read(True)
        if self.outbox.in_flight:
            # An answer may have been lost without the connection: a reconnect fixes that.
            self.vanish()
            self.connect(3)
            for _ in range(self.number * 8 + 50):
                if self.notes.waiting:
                    self.commit()
                if self.client.wire:
                    self.read(True)
        assert self.got == self.sent
        assert self.outbox.queued == 0
        assert not any("DROPPED" in one.name for one in self.counted)


@pytest.mark.parametrize("window", [1, 4])
def test_a_note_that_comes_after_a_reconnect_lets_nothing_overtake(window: int) -> None:
    """A message whose note was on its way when its connection ended waits on the next one for
    those before it, and for the client's window."""
    machine = OutboxMachine()
    machine.connect(4)
    machine.deliver(2)
    machine.commit()
    machine.deliver(2)
    machine.deliver(1)
    machine.vanish()
    machine.connect(window)
    assert machine.client.wire == ([("publish2", 1, 1)])
    machine.commit()
    machine.window_is_kept()
    assert machine.client.wire[0] == ("publish2", 1, 1)
    assert len(machine.client.wire) == min(window, 3)
    machine.order_is_kept()
    machine.teardown()


OutboxMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestOutbox = OutboxMachine.TestCase


@pytest.mark.parametrize("limit", [1, 3])
def test_bounds(limit):
    """Beyond its bounds a queue drops the oldest and counts it."""
    counted: list[str] = []
    outbox = Outbox(
        "c", limit=limit, max_bytes=1500, count=counted.append, current=lambda _topic: None
    )
    outbox.persistent = True
    for number in range(5):
        outbox.deliver(Message(number, 0, "t", b"x" * 300), 1, retain=False)
    assert outbox.queued == limit
    assert len(counted) == outbox.dropped == 5 - limit
    assert outbox.unsettled_seq() == 5 - limit
    outbox.deliver(Message(9, 0, "t", b"x" * 1200), 1, retain=False)
    assert outbox.queued == 1


def test_not_persistent():
    """Without a persistent session nothing is kept for a client that is away."""
    outbox = Outbox("c", limit=9, max_bytes=99, count=print, current=lambda _topic: None)
    outbox.deliver(Message(1, 0, "t", b"x"), 2, retain=False)
    assert outbox.queued == 0


@pytest.mark.parametrize("connected", [True, False])
def test_what_a_client_may_not_have_any_more_is_not_sent(connected: bool) -> None:
    """When a right is withdrawn, what waits because of it is dropped, retained messages too, and
    of what was sent only that which is with a client that is connected is still awaited."""
    retained = {"no/r": Message(1, 0, "no/r", b"1"), "yes/r": Message(2, 0, "yes/r", b"2")}
    outbox = Outbox("c", limit=100, max_bytes=1000, count=lambda _name: None, current=retained.get)
    outbox.persistent = True
    outbox.keeper = notes = Notes()
    client = Client(3)
    outbox.attach(client)
    for number, (topic, qos) in enumerate(
        [("no", 1), ("no", 2), ("yes", 1), ("no", 1), ("yes", 1)]
    ):
        message = Message(number + 3, 0, topic, b"%d" % (number + 3))
        outbox.deliver(message, qos, retain=False)
    outbox.deliver_retained(list(retained.values()), 0, ())
    assert [number for _, _, number in client.wire] == [3, 5]
    if not connected:
        outbox.detach()
    outbox.withhold(lambda topic: topic.startswith("yes"))
    assert outbox.in_flight == (2 if connected else 1)  # 3, if it is with the client, and 5
    client.wire.clear()
    client.window = 100
    if not connected:
        outbox.attach(client)
    outbox.pump()
    for then in notes.waiting:
        then()
    assert sorted(number for _, _, number in client.wire) == ([2, 7] if connected else [2, 5, 7])


class LateGate:
    """Knows no topic's answer until it is asked a second time."""

    def __init__(self) -> None:
        self.asked = ""

    def may_receive(self, topic: str, _then: Callable[[], None]) -> bool | None:
        if topic == self.asked:
            return True
        self.asked = topic
        return None


def test_any_number_of_retained_messages_wait_for_answers_one_by_one():
    """Each is put back once; that takes neither the stack nor the square of the time."""
    retained = {f"t/{n}": Message(n + 1, 0, f"t/{n}", b"%d" % n) for n in range(60_000)}
    outbox = GatedOutbox("c", limit=9, max_bytes=99, count=print, current=retained.get)
    client = Client(1)
    client.gate = LateGate()
    outbox.attach(client)
    outbox.deliver_retained(list(retained.values()), 0, ())
    for _ in retained:
        outbox.pump()
    assert [number for _, _, number in client.wire] == list(range(60_000))


def test_many_retained_messages_are_sent_in_short_steps():
    """However much waits, one call sends a bounded part, and the loop is asked for the next."""
    retained = {f"t/{n}": Message(n + 1, 0, f"t/{n}", b"%d" % n) for n in range(1000)}
    outbox = Outbox("c", limit=9, max_bytes=9999, count=print, current=retained.get)
    client = Client(1)
    outbox.attach(client)
    outbox.deliver_retained(retained.values(), 0, ())
    first = len(client.wire)
    assert 0 < first <= 200
    outbox.pump()
    outbox.deliver(Message(2000, 0, "x", b"2000", qos=1), 1, retain=False)
    assert len(client.wire) == first, "a step was sent that the loop had not given"
    steps = 0
    while client.goes_on > steps:
        steps += 1
        before = len(client.wire)
        outbox.go_on()
        assert len(client.wire) - before <= 200
    assert [number for _, _, number in client.wire] == [*range(1000), 2000]


def test_a_search_without_finds_is_cut_too():
    """A step of a search that finds nothing counts like a message."""
    outbox = Outbox("c", limit=9, max_bytes=9999, count=print, current=lambda _topic: None)
    client = Client(1)
    outbox.attach(client)
    looked = []
    outbox.deliver_retained((looked.append(n) for n in range(1000)), 0, ())
    assert len(looked) <= 200
    while client.goes_on:
        client.goes_on -= 1
        outbox.go_on()
    assert len(looked) == 1000
    assert client.wire == []


def test_unacknowledged_bytes_are_bounded() -> None:
    """What a client leaves unacknowledged has a bound in bytes, for retained messages and after a
    reconnect too; its acknowledgements let the next ones leave."""
    counted: list[Counted] = []
    retained = {f"r{n}": Message(20 + n, 0, f"r{n}", b"%4000d" % n, 1) for n in range(8)}
    outbox = Outbox("c", limit=99, max_bytes=10_000, count=counted.append, current=retained.get)
    outbox.persistent = True
    client = Client(window=50)
    outbox.attach(client)
    for number in range(1, 9):
        outbox.deliver(Message(number, 0, "t", b"%4000d" % number), 1, retain=False)
    assert [number for _, _, number in client.wire] == [1, 2, 3]
    assert counted == [Counted.DELIVERIES_HELD, *[Counted.DELIVERIES_DROPPED_QUEUE_FULL] * 3]
    assert outbox.queued_bytes == outbox.queued * (4000 + 128 + 1)
    outbox.acknowledged(1)
    assert [number for _, _, number in client.wire] == [1, 2, 3, 7]
    outbox.detach()
    again = Client(window=50)
    outbox.attach(again)
    assert [number for _, _, number in again.wire] == [2, 3, 7]
    for packet_id in sorted(again.unacknowledged):
        outbox.acknowledged(packet_id)
    assert [number for _, _, number in again.wire] == [2, 3, 7, 8]
    outbox.acknowledged(max(again.unacknowledged))
    outbox.deliver_retained(iter(retained.values()), 1, ())
    assert len(again.wire) == 4 + 3
