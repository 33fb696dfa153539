"""What is deleted from the journal, when, and what never is."""

import threading

import pytest

from appliance.counters import Counter
from appliance.journal.journal import Journal
from appliance.model import Message

DAY_NS = 86_400 * 10**9


class Harness:
    """A journal with a clock of its own that looks for old messages all the time."""

    def __init__(self, path, **settings):
        self.now_ns = 100 * DAY_NS
        settings = {"keep_s": 1e9, "max_bytes": 10**10} | settings
        self.journal = Journal(
            path, sync="os", clock_ns=lambda: self.now_ns, housekeeping_s=0.02, **settings
        )
        self.health = []
        self.changed = threading.Condition()
        self.journal.start(lambda entries: None, self._on_health)

    def _on_health(self, level, text):
        with self.changed:
            self.health.append((level, text))
            self.changed.notify_all()

    def put(self, count, payload=b"x"):
        for _ in range(count):
            seq = self.journal.next_seq()
            self.journal.append(Message(seq, self.now_ns, "t", payload), seq)
        assert self.journal.flush(30)

    def first(self):
        return self.journal.read(0, 1)[0].seq

    def until(self, condition):
        """Retention runs in the writer's idle time; wait for its effect."""
        waiter = threading.Event()
        for _ in range(600):
            if condition():
                return
            waiter.wait(0.05)
        raise AssertionError((self.first(), self.health, self.journal.stats()))


@pytest.fixture
def make(tmp_path):
    made = []

    def harness(**settings):
        made.append(Harness(tmp_path / "journal.db", **settings))
        return made[-1]

    yield harness
    for one in made:
        one.journal.close(5)


def test_messages_older_than_keep_are_deleted(make):
    """``keep`` is kept to: older messages go, younger ones and the last ones stay."""
    one = make(keep_s=10 * 86_400)
    one.put(1500)
    one.now_ns += 8 * DAY_NS
    one.put(500)
    one.now_ns += 3 * DAY_NS
    one.put(10)
    one.until(lambda: one.first() == 1501)
    assert one.journal.stats().first_seq == 1501
    assert one.journal.get(1) is None
    assert [m.seq for m in one.journal.read(0, 5000)] == list(range(1501, 2011))


def test_journal_stays_below_max_size_and_reuses_its_space(make, tmp_path):
    """However much is written, the file does not grow beyond ``max_size`` by much."""
    one = make(max_bytes=4_000_000)
    for _ in range(12):
        one.put(10, b"z" * 100_000)
        one.until(lambda: one.first() > one.journal.last_seq - 40)
    assert one.journal.get(one.journal.last_seq) is not None
    assert (tmp_path / "journal.db").stat().st_size < 9_000_000


def test_what_a_follower_needs_is_kept(make):
    """Retention waits for a slow follower, says so, and goes on when it has caught up."""
    one = make(max_bytes=4_000_000)
    follower = one.journal.follower("recorders", 0)
    one.put(1, b"a" * 100_000)
    follower.advance(1)
    one.put(42, b"z" * 100_000)
    one.until(lambda: any("recorders" in text for _, text in one.health))
    assert one.health[-1][0] == "warn"
    assert 2 in [m.seq for m in follower.next(10)]
    follower.advance(43)
    one.until(lambda: one.first() > 2)
    one.until(lambda: one.health[-1][0] != "warn" or "free" in one.health[-1][1])
    assert follower.missed == 0


def test_journal_far_too_big_sacrifices_a_follower_loudly(make, caplog):
    """A follower that never advances can't fill the disk; what it lost is counted and said."""
    one = make(max_bytes=4_000_000)
    follower = one.journal.follower("recorders", 0)
    one.put(80, b"z" * 100_000)
    one.until(lambda: one.first() > 1)
    one.until(lambda: any(level == "bad" for level, _ in one.health))
    one.until(lambda: one.journal.stats().size_bytes <= 4_400_000)
    first = one.first()
    got = []
    while follower.wait(0):
        got += [m.seq for m in follower.next(10)]
    assert got == list(range(first, 81))
    assert follower.missed == first - 1
    assert dict(one.journal.counters())[Counter.JOURNAL_FORCED_REMOVALS] > 0
    assert "although recorders had not read them" in caplog.text


def test_closed_follower_holds_nothing_back(make):
    """Removing a recorder from the configuration doesn't keep old messages for ever."""
    one = make(keep_s=86_400)
    follower = one.journal.follower("gone", 0)
    one.put(10)
    one.put(10)
    one.put(10)
    one.now_ns += 2 * DAY_NS
    one.put(1)
    assert one.first() == 1
    follower.close()
    one.until(lambda: one.first() == 31)


def test_messages_from_a_future_do_not_hold_back_the_deletion_of_what_is_old(make):
    """The clock was years ahead for a while: what was written then goes with what came after it,
    and not before."""
    one = make(keep_s=10 * 86_400)
    one.now_ns += 3650 * DAY_NS
    one.put(1500)
    one.now_ns -= 3650 * DAY_NS
    one.put(1500)
    one.now_ns += 8 * DAY_NS
    one.put(1500)
    assert one.first() == 1
    one.now_ns += 3 * DAY_NS
    one.put(10)
    one.until(lambda: one.first() > 3000)
    assert one.first() == 3001


def test_while_recorders_pause_for_lack_of_space_nothing_unread_is_deleted(make):
    """However far beyond ``max_size``; it is deleted once they have gone on."""
    harness = make(max_bytes=100_000)
    follower = harness.journal.follower("slow", 0)
    harness.journal.keeps_unread = True
    harness.put(600, b"x" * 1000)
    harness.until(lambda: harness.journal.is_overfull)
    harness.put(600, b"y" * 1000)
    harness.until(lambda: "bigger than max_size" in str(harness.health))
    assert harness.first() == 1
    assert harness.journal.counters()[Counter.JOURNAL_FORCED_REMOVALS] == 0
    follower.advance(1000)
    harness.until(lambda: harness.first() > 1)
    harness.journal.keeps_unread = False
    harness.put(600, b"z" * 1000)
    harness.until(lambda: harness.journal.counters()[Counter.JOURNAL_FORCED_REMOVALS] > 0)
