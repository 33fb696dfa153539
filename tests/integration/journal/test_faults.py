"""What the journal promises when disk or database fail: nothing lost, nothing reported too early."""

import sqlite3
import subprocess
import sys
import threading

import pytest
from journal_rig import JournalRig

from appliance.counters import Counter
from appliance.errors import UnavailableError
from appliance.journal.sequence_reservation import BLOCK


@pytest.fixture
def make(tmp_path):
    made = []

    def harness(path=tmp_path / "journal.db", **settings):
        made.append(JournalRig(path, **{"sync": "always"} | settings))
        return made[-1]

    yield harness
    for one in made:
        one.journal.close(3)


def test_full_disk_holds_messages_back_and_resumes(make, small_disk):
    """On a full disk nothing is reported; with space again all of it is, in order, by itself."""
    one = make(small_disk / "journal.db").start()
    one.put(1)
    one.until(lambda: one.tokens == [1])
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"\0" * 65536)
    one.put(5, b"y" * 200_000)
    one.until(lambda: ("bad", "the disk is full") in one.health)
    one.put(5)
    assert one.tokens == [1]
    assert one.journal.stats().pending == 10
    assert one.journal.stats().health.level == "bad"
    assert not one.journal.flush(0)
    ballast.unlink()
    one.until(lambda: len(one.tokens) == 11)
    assert one.tokens == list(range(1, 12))
    assert one.numbers() == list(range(1, 12))
    assert one.health[-1][0] != "bad"
    assert dict(one.journal.counters())[Counter.JOURNAL_COMMIT_RETRIES] > 0


def test_stop_on_a_full_disk_ends_and_says_what_was_not_written(make, small_disk, caplog):
    """A stop does not hang on a bad disk; what was never acknowledged is named in the log."""
    one = make(small_disk / "journal.db").start()
    with (small_disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"\0" * 65536)
    one.put(3, b"y" * 300_000)
    one.until(lambda: one.health and one.health[-1][0] == "bad")
    assert not one.journal.close(0.3)
    assert one.tokens == []
    assert "3 messages were accepted, but neither acknowledged nor written" in caplog.text


def test_locked_database_holds_messages_back_and_resumes(make, tmp_path):
    """While another program holds the database locked nothing is reported, and later all of it."""
    one = make().start()
    other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        one.put(10)
        one.until(lambda: one.health and one.health[-1][0] == "bad")
        assert "locked" in one.health[-1][1]
        assert one.tokens == []
    finally:
        other.rollback()
        other.close()
    one.until(lambda: len(one.tokens) == 10)
    assert one.numbers() == list(range(1, 11))
    one.until(lambda: one.health[-1][0] == "ok")


@pytest.mark.posix("Windows does not let an open file be removed")
def test_removed_database_is_noticed_and_replaced(make, tmp_path, caplog):
    """If the journal is deleted under a running appliance, new messages are safe again."""
    pause = threading.Event()
    one = make(housekeeping_s=0.02).start()
    one.put(3)
    one.until(lambda: len(one.tokens) == 3)
    for path in tmp_path.glob("journal.db*"):
        path.unlink()
    while not (tmp_path / "journal.db").exists():
        pause.wait(0.01)
    assert "was removed or replaced" in caplog.text
    one.put(3)
    one.until(lambda: len(one.tokens) == 6)
    one.journal.close(10)
    again = make().start()
    assert again.numbers() == [4, 5, 6]
    assert again.journal.next_seq() == 7


@pytest.mark.parametrize("damage", ["header", "middle", "short", "chunk"])
def test_damaged_database_is_set_aside(make, tmp_path, damage, caplog):
    """A damaged journal is moved away by name, and the new one's numbers go on above the old."""
    path = tmp_path / "journal.db"
    one = make().start()
    one.put(5000, b"payload")
    one.journal.close(10)
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:100] = b"garbage!" * 12 + b"1234"
    elif damage == "middle":
        content[len(content) // 2 : len(content) // 2 + 9000] = b"\xaa" * 9000
    elif damage == "short":
        del content[len(content) * 2 // 3 :]
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE chunk SET body = zeroblob(20) WHERE first_seq = 1")
        connection.close()
        content = bytearray(path.read_bytes())
    path.write_bytes(content)
    again = make().start()
    assert again.journal.set_aside is not None
    assert again.journal.set_aside.read_bytes() == content
    assert again.journal.set_aside.name.startswith("journal.db.corrupt-")
    assert str(again.journal.set_aside) in caplog.text
    assert again.numbers() == []
    again.put(1)
    again.until(lambda: len(again.tokens) == 1)
    assert again.tokens[0] > 5000
    assert again.tokens[0] <= 5000 + BLOCK + 1


def test_deleted_database_does_not_start_at_one_again(make, tmp_path):
    """Cursors kept elsewhere stay behind new messages even if the journal was deleted."""
    one = make().start()
    one.put(10)
    one.journal.close(10)
    (tmp_path / "journal.db").unlink()
    again = make().start()
    assert again.journal.next_seq() > 10


def test_damage_in_an_old_chunk_costs_that_chunk_only(make, caplog):
    """A reader skips what a bad disk destroyed, says so, and goes on with the rest."""
    one = make().start()
    for _ in range(4):
        one.put(1000)
        assert one.journal.flush(30)
    ((first, last),) = one.journal.query(
        "SELECT first_seq, last_seq FROM chunk WHERE first_seq <= 2000 AND last_seq >= 2000"
    )
    broken = "UPDATE chunk SET body = x'c1' WHERE first_seq = ?"
    one.journal.transact([(broken, (first,))], "break")
    one.until(lambda: "break" in one.tokens)
    newest_first = [m.seq for chunk in one.journal.back_from(2**62) for m in chunk]
    assert newest_first == [*range(4000, last, -1), *range(first - 1, 0, -1)]
    assert f"Messages {first} to {last}" in caplog.text


def test_folder_that_can_not_be_written_is_an_error_for_people(make, small_disk):
    """A read-only disk at the start is a clear error with the file's name."""
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(UnavailableError, match="journal.db"):
        make(small_disk / "journal.db").start()


def test_bug_in_what_follows_a_commit_does_not_end_the_journal(make, caplog):
    """Messages go on being written when the code that acknowledges them fails."""
    one = make()
    seen = []

    def on_commit(_messages, entries):
        seen.extend(entries)
        if len(seen) == 1:
            raise ValueError("a bug")

    one.journal.start(on_commit)
    one.put(1)
    assert one.journal.flush(30)
    one.put(1)
    assert one.journal.close(30)
    assert [token for _, token in seen] == [1, 2]
    assert "a bug" in caplog.text
