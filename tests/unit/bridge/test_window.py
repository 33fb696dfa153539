"""The window: whatever a broker acknowledges and however connections end, nothing is lost in it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.bridge.rate import Rate
from appliance.bridge.window import FIRST_PACKET_ID, Window


class Sending(RuleBasedStateMachine):
    """A sender as outgoing.py is one, a broker that takes what it is sent, and bad connections."""

    def __init__(self):
        super().__init__()
        self.window = Window()
        self.now = 0.0
        self.next = 1
        self.done = 0
        self.arrived = set()
        self.parked = set()
        self.under_way = {}
        self.ids = {}

    def settle(self):
        oldest = self.window.oldest_seq
        self.done = max(self.done, (self.next if oldest is None else oldest) - 1)
        self.window.forget_to(self.done)

    @precondition(lambda self: len(self.window) < (1 if self.window.is_careful else 5))
    @rule()
    def send(self):
        seq = self.next
        self.next += 1
        if not self.window.is_done(seq):
            packet_id, repeated = self.window.send(seq, 10, self.now)
            assert packet_id not in self.under_way
            assert packet_id >= FIRST_PACKET_ID
            assert repeated == (self.ids.get(seq) is not None)
            if repeated:
                assert packet_id == self.ids[seq]
            self.ids[seq] = packet_id
            self.under_way[packet_id] = seq
            self.arrived.add(seq)
        self.settle()

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def acknowledge(self, data):
        packet_id = data.draw(st.sampled_from(sorted(self.under_way)))
        assert self.window.acknowledge(packet_id) == self.under_way.pop(packet_id)
        assert self.window.acknowledge(packet_id) is None
        self.settle()

    @rule(by_broker=st.booleans(), present=st.booleans(), passed=st.sampled_from([0.1, 60.0]))
    def reconnect(self, by_broker, present, passed):
        self.now += passed
        self.settle()
        alone = len(self.window) == 1
        refused = self.window.disconnect(self.now, by_broker=by_broker)
        if refused is not None:
            assert alone
            assert by_broker
            assert passed < 5
            self.parked.add(refused)
        self.under_way.clear()
        self.window.connect(session_present=present)
        if not present:
            self.ids.clear()
        self.next = self.done + 1

    @invariant()
    def nothing_lost(self):
        """All that is done with arrived; what is under way is in the window, in order."""
        assert set(range(1, self.done + 1)) <= self.arrived
        assert len(self.window) == len(self.under_way)
        assert self.window.bytes == 10 * len(self.under_way)
        assert self.window.oldest_seq == min(self.under_way.values(), default=None)


TestSending = Sending.TestCase
TestSending.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_the_message_that_ends_connections_is_found():
    """Of several under way, only the one that ends the connection is given up."""
    window = Window()
    for seq in (1, 2, 3):
        window.send(seq, 1, 0.0)
    assert window.disconnect(0.1, by_broker=True) is None
    window.connect(session_present=True)
    assert window.is_careful
    given_up = []
    waiting = [1, 2, 3]
    for _ in range(10):
        if not waiting:
            break
        packet_id, _ = window.send(waiting[0], 1, 0.0)
        if waiting[0] == 2:
            refused = window.disconnect(0.1, by_broker=True)
            window.connect(session_present=True)
            if refused is None:
                continue
            given_up.append(refused)
        else:
            window.acknowledge(packet_id)
        window.forget_to(waiting.pop(0))
    assert given_up == [2]
    assert not window.is_careful


def test_a_message_that_is_sent_again_is_not_done():
    """What goes out again behind later messages is still the oldest one."""
    window = Window()
    for seq in (1, 2):
        window.send(seq, 1, 0.0)
    window.withdraw(window.send(3, 1, 0.0)[0])
    first = window._sent[1].packet_id
    assert window.withdraw(first) == 1
    assert window.oldest_seq == 2
    window.send(1, 1, 0.0)
    assert window.oldest_seq == 1


def test_a_bad_network_gives_nothing_up():
    """A connection that is lost on this side, or long after the message, says nothing of it."""
    window = Window()
    for number in range(20):
        window.send(1, 1, 0.0)
        by_broker = number % 2 == 0
        assert window.disconnect(60.0 if by_broker else 0.1, by_broker=by_broker) is None
        window.connect(session_present=True)


@given(st.integers(1, 2000), st.lists(st.floats(0, 3), max_size=50))
def test_rate(a_second, pauses):
    """In any time from the start, no more pass than the rate and one burst allow."""
    now = 0.0
    rate = Rate(a_second, lambda: now)
    passed = 0
    for pause in pauses:
        now += pause
        while passed < 10_000 and not (wait := rate.wait_s()):
            passed += 1
        assert passed <= now * a_second + max(1.0, a_second / 10) + 1e-6
        if passed < 10_000:
            assert 0 < wait <= 1 / a_second + 1e-9


def test_rate_waits_no_longer_than_it_says():
    """After the wait that it tells, a message passes."""
    now = 0.0
    rate = Rate(100, lambda: now)
    for _ in range(200):
        wait = rate.wait_s()
        now += wait + 1e-9
        if wait:
            assert rate.wait_s() == 0.0
    assert now < 2.1


def test_no_rate():
    """Without a limit nothing waits."""
    rate = Rate(None, lambda: 0.0)
    assert not any(rate.wait_s() for _ in range(1000))
