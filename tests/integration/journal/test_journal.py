"""Promises of the journal with a real database: durable, ordered, followed, whole after a kill."""

import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from journal_rig import JournalRig

from appliance.errors import ConfigError, UnavailableError
from appliance.journal.batch import Batch
from appliance.tuning import WAKE_FOR_UNREAD
from appliance.storage.layout import Tables

VICTIM = Path(__file__).with_name("victim_journal.py")


@pytest.fixture
def harness(tmp_path):
    made = []

    def make(**settings):
        made.append(JournalRig(tmp_path / "journal.db", **settings))
        return made[-1]

    yield make
    for one in made:
        one.journal.close(5)


def seqs(messages):
    return [message.seq for message in messages]


@pytest.mark.parametrize("sync", ["always", "os"])
def test_commits_are_reported_in_order_and_can_be_read(harness, sync):
    """Each message is reported once, in order, with its token, and stands in the journal then."""
    one = harness(sync=sync).start()
    one.put(3000)
    one.settle()
    assert one.tokens == list(range(1, 3001))
    assert seqs(one.journal.read(0, 10_000)) == list(range(1, 3001))
    assert one.journal.get(1234).seq == 1234
    assert one.journal.get(3001) is None
    stats = one.journal.stats()
    assert (stats.first_seq, stats.last_seq, stats.pending) == (1, 3000, 0)
    assert stats.commits >= 1
    assert stats.commit_ms > 0
    assert stats.health.level == "ok"


def test_numbers_continue_after_a_restart(harness):
    """A sequence number is never given twice, and old messages stay readable."""
    first = harness().start()
    first.put(10, "ü".encode(), topic="werk/größe/🌡")
    assert first.journal.close(10)
    second = harness().start()
    assert second.journal.next_seq() == 11
    message = second.journal.get(10)
    assert (message.topic, message.payload) == ("werk/größe/🌡", "ü".encode())


def test_close_commits_everything_that_was_accepted(harness):
    """An ordered stop loses nothing, and afterwards the journal refuses instead of losing."""
    one = harness().start()
    one.put(20_000)
    assert one.journal.close(30)
    assert len(one.entries) == 20_000
    with pytest.raises(RuntimeError, match="closed"):
        one.put(1)
    with pytest.raises(UnavailableError, match="closed"):
        one.journal.query("SELECT 1")


def test_numbers_continue_above_cursors_kept_elsewhere(harness):
    """A journal restored from a backup doesn't reuse numbers that a recorder has already seen."""
    one = harness().start(minimum_seq=5000)
    follower = one.journal.follower("recorder", 5000)
    one.put(1)
    assert follower.wait(30)
    assert seqs(follower.next(10)) == [5001]


def test_statements_share_order_and_fate_with_messages(harness):
    """Rows of other tables are committed in order with messages, all of an entry or nothing."""
    one = harness()
    one.journal.define(
        Tables("CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, n INTEGER);")
    )
    one.start()
    insert = "INSERT INTO session VALUES (?, ?)"
    one.put(1)
    one.journal.transact([(insert, ("a", 1)), (insert, ("b", 2))], "both")
    one.journal.transact([("DELETE FROM session WHERE id = ?", ("a",))], "delete")
    one.journal.transact([(insert, ("c", 3)), (insert, ("b", 9))], "clash")
    one.journal.transact([("INSERT INTO nowhere VALUES (1)", ())], "no table")
    one.put(1)
    one.journal.transact([(insert, ("d", 4))], "last")
    one.settle()
    one.until(lambda: len(one.refused) == 2 and len(one.entries) == 5)
    assert one.tokens == [1, "both", "delete", 2, "last"]
    assert [len(messages) for messages, _ in one.entries] == [1, 0, 0, 1, 0]
    assert [token for token, _ in one.refused] == ["clash", "no table"]
    assert one.journal.query("SELECT id, n FROM session ORDER BY id") == [("b", 2), ("d", 4)]
    assert seqs(one.journal.read(0, 10)) == [1, 2]


def test_message_that_can_not_be_stored_does_not_stop_the_others(harness):
    """Half a surrogate pair in a topic costs that message its place, and no other's."""
    one = harness().start()
    one.put(2)
    one.put(1, topic="\ud800")
    one.put(2)
    one.until(lambda: len(one.entries) == 4)
    assert [token for token, _ in one.refused] == [3]
    assert seqs(one.journal.read(0, 10)) == [1, 2, 4, 5]
    assert one.journal.stats().pending == 0
    assert one.journal.pending_bytes == 0


def test_slow_follower_gets_everything_in_order(harness):
    """A follower that lags far behind what memory holds misses nothing and repeats nothing."""
    one = harness().start()
    follower = one.journal.follower("slow", 0)
    one.put(30_000)
    one.settle()
    got = seqs(follower.next(7))
    one.put(5000)
    one.settle()
    while follower.wait(0):
        got += seqs(follower.next(1777))
    assert got == list(range(1, 35_001))
    assert follower.position == 35_000
    assert not follower.wait(0)


def test_follower_wakes_for_news_and_when_told(harness):
    """A waiting follower goes on as soon as something is committed, or when it shall stop."""
    one = harness().start()
    follower = one.journal.follower("waiting")
    results = []
    thread = threading.Thread(target=lambda: results.append(follower.wait(60)))
    thread.start()
    one.put(1)
    thread.join(30)
    assert results == [True]
    follower.next(10)
    follower.wake()
    assert not follower.wait(60)


def test_follower_with_an_interest_sleeps_through_the_rest_and_misses_nothing(harness):
    """A burst of no interest wakes no follower; all of it is read later, in order: with
    the next message of interest, when much has gathered, or when the waiting ends."""
    one = harness().start()
    one.put(3)
    one.settle()
    follower = one.journal.follower("tasks", 0, interest="start".__eq__)
    assert follower.wait(0)  # what was there before it came
    assert seqs(follower.next(10)) == [1, 2, 3]
    with ThreadPoolExecutor(1) as sleepers:
        sleeper = sleepers.submit(follower.wait, 60)
        one.until(lambda: follower._wakeup.is_awaited)
        one.put(4)
        one.until(lambda: len(one.entries) == 7)
        one.put(1)
        one.until(lambda: len(one.entries) == 8)  # by now all that follows the first is done
        assert follower._wakeup.is_awaited
        one.put(1, topic="start")
        assert sleeper.result(60)
    one.settle()  # it is woken when the commit begins
    assert seqs(follower.next(10)) == [4, 5, 6, 7, 8, 9]
    one.put(1)
    one.settle()
    assert follower.wait(0)
    assert seqs(follower.next(10)) == [10]
    one.put(WAKE_FOR_UNREAD)
    assert follower.wait(60)
    while follower.position < 10 + WAKE_FOR_UNREAD:
        assert follower.wait(0)
        follower.next(1000)


def test_a_polite_follower_hurries_before_a_small_journal_overflows(harness):
    """What a follower leaves unread out of politeness never fills a quarter of the journal."""
    one = harness(max_bytes=1_000_000).start()
    follower = one.journal.follower("recorders", 0)
    one.put(500)
    one.settle()
    assert follower.may_lag
    one.put(600)
    one.settle()
    assert not follower.may_lag
    follower.next(1000)
    assert follower.may_lag


def test_reads_are_bounded_in_bytes(harness):
    """One read never brings more into memory than asked for, except a single bigger message."""
    one = harness().start()
    one.put(30, b"x" * 500_000)
    one.settle()
    follower = one.journal.follower("f", 0)
    assert seqs(follower.next(100, 1_200_000)) == [1, 2]
    assert seqs(follower.next(100, 10)) == [3]
    assert len(one.journal.read(3, 100)) == 16


def test_the_journal_is_read_back_from_any_message(harness):
    """The search sees every message before a number once, the newest first."""
    one = harness().start()
    for _ in range(5):
        one.put(700)
        one.settle()
    back = [seq for chunk in one.journal.back_from(2**62) for seq in seqs(chunk)]
    assert back == list(range(3500, 0, -1))
    back = [seq for chunk in one.journal.back_from(1500) for seq in seqs(chunk)]
    assert back == list(range(1499, 0, -1))


@pytest.mark.parametrize("sync", ["always", "os"])
def test_kill_at_any_moment_loses_nothing_that_was_reported(tmp_path, sync):
    """After kill -9, every message that was reported as committed is there, once and in order."""
    reported = 0
    for lines in (1, 3, 17, 40):
        process = subprocess.Popen(
            [sys.executable, str(VICTIM), str(tmp_path), sync], stdout=subprocess.PIPE
        )
        begun = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        rest, _ = process.communicate()
        numbers = [
            int(line) for line in b"".join([*begun, rest]).splitlines(True) if line.endswith(b"\n")
        ]
        reported = max([reported, *numbers])
        one = JournalRig(tmp_path / "journal.db").start()
        try:
            messages = one.journal.read(0, 10**9, 10**12)
            assert len(messages) >= reported
            assert seqs(messages) == list(range(1, len(messages) + 1))
            assert all(m.payload == b"%d" % m.seq * 3 for m in messages)
            notes = [seq for (seq,) in one.journal.query("SELECT seq FROM note ORDER BY seq")]
            assert set(notes) <= set(seqs(messages)), "a statement was there before its message"
        finally:
            one.journal.close(5)
    assert reported > 0


def test_journal_of_a_newer_appliance_is_refused_and_kept(tmp_path):
    """Going back to an older appliance never destroys a journal."""
    path = tmp_path / "journal.db"
    one = JournalRig(path).start()
    one.put(1)
    one.journal.close(5)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="newer appliance"):
        JournalRig(path).start()
    assert path.read_bytes() == before


def test_database_of_another_program_is_refused_and_kept(tmp_path):
    """A journal path that leads to another program's database is an error, not a loss."""
    path = tmp_path / "journal.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        JournalRig(path).start()
    assert path.read_bytes() == before


def held_back(one, monkeypatch) -> tuple[threading.Event, threading.Event]:
    """An event that a commit sets when it begins, and one that it then waits for."""
    begun, go = threading.Event(), threading.Event()
    write = Batch.write

    def later(batch: Batch, connection: sqlite3.Connection) -> None:
        begun.set()
        assert go.wait(60)
        write(batch, connection)

    monkeypatch.setattr(Batch, "write", later)
    return begun, go


def test_a_follower_gets_a_message_when_it_is_on_disk(harness, monkeypatch):
    """While the disk works on a commit, a follower of interest sleeps on and reads nothing; then it
    wakes up and reads the message."""
    one = harness().start()
    follower = one.journal.follower("tasks", 0, interest="start".__eq__)
    begun, go = held_back(one, monkeypatch)
    with ThreadPoolExecutor(1) as sleepers:
        sleeper = sleepers.submit(follower.wait, 60)
        one.put(1, topic="start")
        assert begun.wait(60)
        assert not sleeper.done()
        assert (one.journal.last_seq, follower.next(10)) == (0, [])
        go.set()
        assert sleeper.result(60) is True
    assert seqs(follower.next(10)) == [1]


def test_a_follower_gets_nothing_beyond_the_newest_committed_message(harness, monkeypatch):
    """Not even where it reads in the moment in which the writer reports a commit."""
    one = harness().start()
    follower = one.journal.follower("f")
    read = []
    extend = one.journal._tail.extend

    def extend_and_read(*of_a_commit):
        extend(*of_a_commit)
        read.extend(follower.next(10))
        assert follower.position <= one.journal.last_seq

    monkeypatch.setattr(one.journal._tail, "extend", extend_and_read)
    one.put(3)
    one.until(lambda: len(one.entries) == 3)
    assert follower.wait(30)
    while follower.wait(0):
        read.extend(follower.next(10))
    assert seqs(read) == [1, 2, 3]
