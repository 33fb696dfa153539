"""Promises about repeats: what another broker sends again starts nothing twice, news always start.

A model of a broker delivers to the real account of a bridge over a connection that breaks, while
either side is killed at any moment and notes reach the disk late. The model has the ways of the
brokers that were measured: docs/bridges.md.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from appliance.bridge import repeats as module
from appliance.bridge.arrivals import Arrivals, read_arrivals
from appliance.bridge.repeats import Repeats
from appliance.bridge.store import ArrivalRecord
from appliance.model import Message, bridge_client_id, seq_of

TOPIC = "plant/start"
CLIENT = bridge_client_id("plant")


@dataclass
class Ways:
    """How a broker numbers and repeats."""

    name: str
    ids: str
    """``on``: it counts on over connections; ``anew``: from 1; ``lowest``: the lowest free one."""
    is_late: bool = False
    """It sends again after a wait, also on a living connection, and after newer messages."""
    flags_all: bool = False
    """After its restart, everything that waits has DUP."""


MOSQUITTO = Ways("mosquitto", "on")
RABBITMQ = Ways("RabbitMQ", "anew", flags_all=True)
NATS = Ways("NATS", "on", is_late=True)
LOWEST = Ways("lowest free", "lowest")
BROKERS = (MOSQUITTO, RABBITMQ, NATS, LOWEST)


@dataclass
class Waiting:
    """A message at the broker: which one it is, and what it holds."""

    uid: int
    payload: bytes
    was_sent: bool = False


@dataclass
class Broker:
    ways: Ways
    window: int = 4
    queue: deque[Waiting] = field(default_factory=deque)
    in_flight: dict[int, Waiting] = field(default_factory=dict)
    resend: list[int] = field(default_factory=list)
    last_id: int = 0

    def connected(self) -> None:
        if self.ways.ids == "anew":
            self.queue.extendleft(reversed(self.in_flight.values()))
            self.in_flight.clear()
            self.last_id = 0
        self.resend = list(self.in_flight)

    def restarted(self) -> None:
        """Killed and started again; all that it acknowledged or was sent is on its disk."""
        if self.ways.flags_all:
            for each in self.queue:
                each.was_sent = True

    def packets(self) -> list[tuple]:
        """What it sends now."""
        found = []
        if self.resend and not self.ways.is_late:
            found += self.send_again()
        while self.queue and len(self.in_flight) < self.window:
            each = self.queue.popleft()
            packet_id = self.next_id()
            self.in_flight[packet_id] = each
            found.append((each.uid, each.payload, each.was_sent, packet_id))
            each.was_sent = True
        return found

    def send_again(self) -> list[tuple]:
        found = [
            (self.in_flight[key].uid, self.in_flight[key].payload, True, key)
            for key in self.resend
            if key in self.in_flight
        ]
        self.resend = []
        return found

    def next_id(self) -> int:
        key = 0 if self.ways.ids == "lowest" else self.last_id
        while True:
            key = key % 65535 + 1
            if key not in self.in_flight:
                self.last_id = key
                return key


class Journal:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    @property
    def last_seq(self) -> int:
        return self.messages[-1].seq if self.messages else 0

    def read(self, after_seq: int, limit: int) -> list[Message]:
        return [one for one in self.messages if one.seq > after_seq][:limit]


class Bridging(RuleBasedStateMachine):
    """A broker, a connection, an appliance. Publish, move, break, kill."""

    ways: Ways = MOSQUITTO
    payloads = st.binary(max_size=0)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.broker = Broker(self.ways)
        self.to_appliance: deque[tuple | str] = deque()
        self.to_broker: deque[int | str] = deque()
        self.journal = Journal()
        self.uid_of: dict[int, int] = {}
        self.kept: ArrivalRecord | None = None
        """The note on the disk."""
        self.pending: deque[Message | ArrivalRecord] = deque()
        """Entered, in order, and not committed."""
        self.acks: dict[int, int] = {}
        self.published = 0
        self.next_seq = 1
        self.begin_life()
        self.is_connected = False

    @initialize(window=st.integers(1, 5))
    def begin(self, window: int) -> None:
        self.broker.window = window
        self.connect(is_present=False)

    def begin_life(self) -> None:
        arrivals = read_arrivals(self.journal, "plant", self.kept)
        self.repeats = Repeats(arrivals, lambda: self.now, self.note)

    # --- the appliance ------------------------------------------------------------------------

    def connect(self, *, is_present: bool = True) -> None:
        self.broker.connected()
        self.is_connected = True
        self.repeats.connected(session_present=is_present, newest_seq=self.next_seq - 1)
        self.note()

    def note(self) -> None:
        record = self.repeats.record(self.next_seq - 1)
        if record is not None:
            self.pending.append(record)

    def take(self, count: int) -> None:
        for _ in range(min(count, len(self.to_appliance))):
            packet = self.to_appliance.popleft()
            if packet == "pong":
                self.repeats.ping_answered()
                continue
            uid, payload, dup, packet_id = packet
            self.next_seq += 1
            seq = self.next_seq - 1
            is_repeat, number = self.repeats.number(TOPIC, payload, dup, packet_id, seq)
            message = Message(seq, 0, TOPIC, payload, 1, False, is_repeat, CLIENT, packet_id=number)
            self.uid_of[message.seq] = uid
            self.acks[message.seq] = packet_id
            self.pending.append(message)

    def commit(self) -> None:
        while self.pending:
            entry = self.pending.popleft()
            if isinstance(entry, ArrivalRecord):
                self.kept = entry
                continue
            self.journal.messages.append(entry)
            if self.is_connected and entry.seq in self.acks:
                self.to_broker.append(self.acks.pop(entry.seq))
                self.repeats.acknowledged(entry.seq)

    def ping(self) -> None:
        if self.is_connected and self.repeats.wants_ping:
            self.repeats.ping_sent()
            self.to_broker.append("ping")

    def serve(self, count: int) -> None:
        """The broker reads."""
        for _ in range(min(count, len(self.to_broker))):
            packet = self.to_broker.popleft()
            if packet == "ping":
                self.to_appliance.append("pong")
            else:
                self.broker.in_flight.pop(packet, None)

    def cut(self) -> None:
        self.is_connected = False
        self.to_appliance.clear()
        self.to_broker.clear()
        self.acks.clear()

    # --- what happens -------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 4))
    def publish(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            payload = self.payload_of(data)
            self.broker.queue.append(Waiting(self.published, payload))
            self.published += 1
        self.deliver()

    def payload_of(self, data: st.DataObject) -> bytes:
        return b""

    @rule()
    def deliver(self) -> None:
        if self.is_connected:
            self.to_appliance.extend(self.broker.packets())

    @rule(count=st.integers(1, 5))
    def arrive(self, count: int) -> None:
        self.take(count)

    @rule()
    def write(self) -> None:
        self.commit()

    @rule(count=st.integers(1, 8))
    def read_acks(self, count: int) -> None:
        self.serve(count)
        self.deliver()

    @rule(passes=st.sampled_from([0.05, 1.0]))
    def prove(self, passes: float) -> None:
        self.now += passes
        self.ping()

    @rule()
    def save(self) -> None:
        if self.is_connected:
            self.note()

    @precondition(lambda self: self.ways.is_late and self.is_connected)
    @rule()
    def wait_for_the_second_delivery(self) -> None:
        """What is unacknowledged comes again, whether or not the connection is another one."""
        self.broker.resend = list(self.broker.in_flight)
        self.to_appliance.extend(self.broker.send_again())

    @rule()
    def break_connection(self) -> None:
        self.cut()
        self.repeats.disconnected()
        self.note()
        self.connect()
        self.deliver()

    @rule()
    def kill_broker(self) -> None:
        self.broker.restarted()
        self.break_connection()

    @rule(both=st.booleans())
    def kill_appliance(self, both: bool) -> None:
        self.cut()
        self.pending.clear()
        self.next_seq = self.journal.last_seq + 1
        if both:
            self.broker.restarted()
        self.begin_life()
        self.connect()
        self.deliver()

    def teardown(self) -> None:
        for _ in range(3 * self.published + 50):
            self.now += 1
            if self.ways.is_late:
                self.wait_for_the_second_delivery()
            self.deliver()
            self.take(1000)
            self.commit()
            self.ping()
            self.serve(1000)
            if not (self.broker.queue or self.broker.in_flight or self.to_appliance):
                break
        self.take(1000)
        self.commit()
        came = {self.uid_of[one.seq] for one in self.journal.messages}
        assert came == set(range(self.published)), "each message is in the journal"
        starts = Multiset(self.uid_of[one.seq] for one in self.journal.messages if not one.dup)
        self.judge(starts)

    def judge(self, starts: Multiset[int]) -> None:
        assert all(starts[uid] == 1 for uid in range(self.published)), starts


class Distinct(Bridging):
    """Every message is another one."""

    def payload_of(self, data: st.DataObject) -> bytes:
        return b"%d" % self.published


class Equal(Bridging):
    """Every message is like the others, and packet identifiers do not tell them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.unproven = 0
        """Messages that the broker had the PUBACK of when a connection broke, unknown to the
        account."""

    def connect(self, *, is_present: bool = True) -> None:
        self.note()
        records = [each for each in (self.kept, *self.pending) if isinstance(each, ArrivalRecord)]
        at_broker = [*self.broker.queue, *self.broker.in_flight.values()]
        waiting = {each.uid for each in at_broker}
        for seq in records[-1].unsettled if records else ():
            self.unproven += self.uid_of[seq] not in waiting
        super().connect(is_present=is_present)

    def judge(self, starts: Multiset[int]) -> None:
        assert all(starts[uid] <= 1 for uid in range(self.published)), starts
        assert sum(starts.values()) >= self.published - self.unproven, (starts, self.unproven)


def run(machine: type[Bridging], ways: Ways, examples: int) -> None:
    case = type("Case", (machine,), {"ways": ways}).TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case().runTest()


FEW, MANY = 20, pytest.param(40, marks=pytest.mark.campaign)


@pytest.mark.parametrize("examples", [FEW, MANY])
@pytest.mark.parametrize("ways", BROKERS, ids=lambda one: one.name)
def test_each_of_different_messages_starts_once(ways, examples):
    """Whatever breaks and is killed, and whenever."""
    run(Distinct, ways, examples)


@pytest.mark.parametrize("examples", [FEW, MANY])
@pytest.mark.parametrize("ways", [MOSQUITTO, NATS], ids=lambda one: one.name)
def test_each_of_equal_messages_starts_once_where_packet_identifiers_go_on(ways, examples):
    """An empty payload again and again: each is news, and each comes again as itself only."""
    run(Bridging, ways, examples)


@pytest.mark.parametrize("examples", [FEW, MANY])
@pytest.mark.parametrize("ways", [RABBITMQ, LOWEST], ids=lambda one: one.name)
def test_equal_messages_start_once_or_are_taken_for_one_whose_acknowledgement_is_unproven(
    ways, examples
):
    """None starts twice. As many start nothing as acknowledgements were unproven when a connection
    broke, at most."""
    run(Equal, ways, examples)


# --- one by one ------------------------------------------------------------------------------


class Account:
    """Repeats with a journal that is always up to date."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seq = 0
        self.repeats = Repeats(Arrivals(), lambda: self.now)
        self.repeats.connected(session_present=False, newest_seq=0)

    def came(self, payload: bytes, packet_id: int, *, dup: bool = False) -> int | None:
        """Which message it repeats; ``None``: it is news."""
        self.seq += 1
        is_repeat, number = self.repeats.number(TOPIC, payload, dup, packet_id, self.seq)
        return seq_of(number) if is_repeat else None

    def settle(self) -> None:
        self.now += 1
        self.repeats.acknowledged(self.seq)
        assert self.repeats.wants_ping
        self.repeats.ping_sent()
        self.repeats.ping_answered()
        assert self.repeats.is_settled

    def reconnect(self, *, session_present: bool = True) -> None:
        self.repeats.disconnected()
        self.repeats.connected(session_present=session_present, newest_seq=self.seq)


def test_what_came_without_dup_is_news():
    """Also if all of it equals an unsettled message: an empty payload twice a second."""
    account = Account()
    for packet_id in (1, 2, 1, 1):
        assert account.came(b"", packet_id) is None
    account.reconnect()
    assert account.came(b"", 1) is None


def test_a_mosquitto_that_goes_back_to_an_older_save_starts_nothing_again():
    """It sends with DUP what was settled before it was killed, and goes on with identifiers from
    then; a message that has one of these now is news."""
    account = Account()
    for packet_id in range(1, 9):
        account.came(b"%d" % packet_id, packet_id)
    account.settle()
    account.reconnect()
    assert account.came(b"5", 5, dup=True) == 5
    assert account.came(b"6", 6, dup=True) == 6
    assert account.came(b"new", 7) is None
    account.reconnect()
    assert account.came(b"8", 8, dup=True) is None


def test_a_settled_message_says_nothing_where_identifiers_are_used_again_at_once():
    """A broker that takes the lowest free identifier: each hour the same payload with the same one,
    and one of these was lost with its connection."""
    account = Account()
    for _ in range(3):
        account.came(b"first", 1)
        account.came(b"", 2)
        account.settle()
    account.reconnect()
    assert account.came(b"", 2, dup=True) is None


def test_a_lost_session_forgets():
    """What the broker has forgotten it does not send again: DUP means nothing then."""
    account = Account()
    account.came(b"a", 1)
    account.reconnect(session_present=False)
    assert account.came(b"a", 1, dup=True) is None


def test_a_late_repeat_is_known_for_a_quarter_of_an_hour():
    """NATS sends it after its ack_wait, behind newer messages, also twice on one connection. Much
    later, with the same identifier, it is another message."""
    account = Account()
    account.came(b"a", 7)
    account.came(b"b", 8)
    account.reconnect()
    assert account.came(b"c", 9) is None
    account.now += 60
    assert account.came(b"a", 7, dup=True) == 1
    assert account.came(b"a", 7, dup=True) == 1
    account.now += module.LATE_S
    account.settle()
    assert account.came(b"b", 8, dup=True) is None


def test_an_identifier_that_is_used_again_settles_its_message():
    account = Account()
    account.came(b"a", 7)
    account.reconnect()
    account.came(b"b", 7)
    account.reconnect()
    assert account.came(b"a", 7, dup=True) is None


def test_the_memory_is_bounded():
    """A broker without a window whose answers to pings never come."""
    account = Account()
    for number in range(66_000):
        account.came(b"", number % 65_535 + 1)
    assert len(account.repeats._seen) == 65_535
    account.settle()
    for number in range(66_000, 90_000):
        account.came(b"", number % 65_535 + 1)
    assert len(account.repeats._seen) <= 65_535
    account.settle()
    account.reconnect()
    assert account.repeats.record(account.seq).unsettled == ()


def test_pings_are_asked_for_while_something_is_unproven(monkeypatch):
    """One at a time, and not for each message."""
    account = Account()
    repeats = account.repeats
    assert not repeats.wants_ping
    account.came(b"", 1)
    assert not repeats.wants_ping
    account.now += 1
    repeats.acknowledged(1)
    assert repeats.wants_ping
    repeats.ping_sent()
    account.came(b"", 2)
    repeats.acknowledged(2)
    account.now += 1
    assert not repeats.wants_ping
    repeats.ping_answered()
    assert not repeats.is_settled
    assert repeats.wants_ping


def test_after_the_first_news_a_broker_that_begins_anew_sends_nothing_again():
    """A RabbitMQ that was restarted flags all that waited. The acknowledgements of three messages
    had arrived, and one that equals the last of them waited behind another."""
    account = Account()
    for packet_id, payload in enumerate((b"x", b"y", b""), 1):
        account.came(payload, packet_id)
    account.reconnect()
    assert account.came(b"other", 1, dup=True) is None
    assert account.came(b"", 2, dup=True) is None


def test_repeats_keep_the_order_of_their_originals_where_a_broker_begins_anew():
    """What comes behind a repeat can't be a repeat of something before it."""
    account = Account()
    for packet_id, payload in enumerate((b"a", b"b", b"a", b"c"), 1):
        account.came(payload, packet_id)
    account.reconnect()
    assert account.came(b"b", 1, dup=True) == 2
    assert account.came(b"a", 2, dup=True) == 3
    assert account.came(b"a", 3, dup=True) is None


def test_identifiers_that_went_on_once_go_on():
    """The first message of all was lost, and comes late, when an equal one came before it. That is
    noted before the message enters the journal, so a kill does not make it forgotten."""
    account = Account()
    saved = []
    account.repeats._save = lambda: saved.append(account.repeats.record(account.seq))
    assert account.came(b"", 2) is None
    assert [record.ids_go_on for record in saved] == [True]
    assert saved[0].settled_seq == 0
    account.reconnect()
    assert account.came(b"", 1, dup=True) is None
    assert account.came(b"", 2, dup=True) == 1


def test_a_new_session_proves_anew_that_identifiers_count_up():
    account = Account()
    for packet_id in (1, 2, 3):
        account.came(b"", packet_id)
    account.settle()
    account.reconnect(session_present=False)
    account.came(b"", 1)
    account.settle()
    assert account.came(b"", 1, dup=True) is None
