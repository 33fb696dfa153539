"""What the journal promises when disk or database fail: nothing lost, nothing reported too early."""

import re
import shutil
import sqlite3
import subprocess
import sys
import threading

import pytest
from journal_rig import JournalRig

from appliance.broker.door import RETAINED_TABLES
from appliance.broker.session_store import TABLES as SESSION_TABLES
from appliance.counters import Counter
from appliance.errors import UnavailableError
from appliance.journal.sequence_reservation import BLOCK
from appliance.journal.store import Store
from appliance.storage import database, files
from appliance.storage.replacement import Replacement


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


@pytest.mark.parametrize("damage", ["header", "first page", "middle", "short", "text"])
def test_damaged_database_is_set_aside_and_its_messages_are_taken_over(
    make, tmp_path, damage, caplog
):
    """What is whole is in the new journal, what is missing is named, and numbers go on above."""
    path = tmp_path / "journal.db"
    one = make().start()
    for _ in range(20):
        one.put(250, b"payload")
        one.settle()
    one.journal.close(10)
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:100] = b"garbage!" * 12 + b"1234"
    elif damage == "first page":
        content[:4096] = b"\xaa" * 4096
    elif damage == "middle":
        content[len(content) // 2 : len(content) // 2 + 9000] = b"\xaa" * 9000
    elif damage == "short":
        del content[len(content) * 2 // 3 :]
    else:
        content = bytearray(b"this is no database, but it is long enough " * 100)
    path.write_bytes(content)
    losses = []
    again = make().start(minimum_seq=5000, on_loss=losses.append)
    assert again.journal.set_aside is not None
    assert again.journal.set_aside.read_bytes() == content
    assert again.journal.set_aside.name.startswith("journal.db.corrupt-")
    (loss,) = losses
    assert str(again.journal.set_aside) in loss
    assert loss.rstrip(".") in caplog.text
    found = set(again.numbers())
    expected = {"header": 5000, "first page": 5000, "middle": 4000, "short": 3000, "text": 0}
    assert len(found) >= expected[damage]
    missing = {number for number in range(1, 5001) if number not in found}
    assert missing == numbers_in(loss)
    again.put(1)
    again.until(lambda: len(again.tokens) == 1)
    assert again.tokens[0] > 5000
    assert again.tokens[0] <= 5000 + BLOCK + 1
    again.journal.close(10)
    losses.clear()
    assert set(make().start(minimum_seq=5000, on_loss=losses.append).numbers()) > found
    assert losses == []


def numbers_in(loss):
    """The numbers that a loss says are missing."""
    said = re.search(r"missing: ([0-9, to]+?),? and maybe", loss)
    found = set()
    for part in said.group(1).split(", ") if said else ():
        first, _, last = part.partition(" to ")
        found.update(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize("damage", ["header", "first page", "a page of the table"])
def test_retained_messages_and_sessions_are_taken_over(make, tmp_path, damage):
    """Where the list of tables can't be read, that of an empty journal stands in for it."""

    def begin():
        one = make()
        one.journal.define(RETAINED_TABLES)
        one.journal.define(SESSION_TABLES)
        return one.start()

    def rows(one, table):
        return set(one.journal.query(f"SELECT * FROM {table}"))

    one = begin()
    insert = "INSERT INTO {} VALUES (?, ?)".format
    kept = [(insert("retained"), (f"plant/{number:04}", b"x" * 90)) for number in range(400)]
    will = [(insert("will"), (f"c{number}", b"will")) for number in range(3)]
    session = [("INSERT INTO session VALUES (?, NULL, 9, 0, NULL)", ("c1",))]
    one.journal.transact([*kept, *will, *session], "rows")
    one.put(10)
    one.until(lambda: "rows" in one.tokens)
    before = {table: rows(one, table) for table in ("retained", "will", "session")}
    one.journal.close(10)
    path = tmp_path / "journal.db"
    content = bytearray(path.read_bytes())
    at = 0
    if damage == "a page of the table":
        at = max(page for page in range(0, len(content), 4096) if b"plant/0200" in
                 content[page : page + 4096])  # fmt: skip
    size = 100 if damage == "header" else 4096
    content[at : at + size] = b"\xaa" * size
    path.write_bytes(content)
    again = begin()
    assert again.journal.set_aside is not None
    assert again.numbers() == list(range(1, 11))
    for table, found in before.items():
        if table == "retained" and damage == "a page of the table":
            lost = found - rows(again, table)
            assert 0 < len(lost) <= 4096 // 90
        else:
            assert rows(again, table) == found
    assert not list(tmp_path.glob("*.repaired"))


@pytest.mark.parametrize("left", ["nothing", "the log", "an empty file and the log"])
def test_what_a_deleted_database_leaves_is_taken_over(make, tmp_path, left):
    """The log has the newest messages; without it, what followers have read tells the loss."""
    one = make().start()
    one.put(10, b"payload")
    one.settle()
    killed = tmp_path / "killed"
    killed.mkdir()
    for each in tmp_path.glob("journal.db*"):
        shutil.copy(each, killed)
    (killed / "journal.db-shm").unlink()
    (killed / "journal.db").unlink()
    if left == "nothing":
        (killed / "journal.db-wal").unlink()
    elif left == "an empty file and the log":
        (killed / "journal.db").touch()
    losses = []
    again = make(killed / "journal.db").start(minimum_seq=10, on_loss=losses.append)
    (loss,) = losses
    if left == "nothing":
        assert "messages 1 to 10 are missing" in loss
        assert again.numbers() == []
    else:
        assert again.numbers() == list(range(1, 11))
        assert "is gone, and only its log was left" in loss
        (kept,) = killed.glob("journal.db-wal.orphaned-*")
        assert kept.stat().st_size > 0
    assert again.journal.next_seq() > BLOCK


def test_messages_that_only_followers_know_are_named_once(make, tmp_path):
    """A backup of the journal ends before what its followers have read: said once, no number
    comes twice."""
    one = make().start()
    one.put(10)
    one.journal.close(10)
    losses = []
    again = make().start(minimum_seq=14, on_loss=losses.append)
    (loss,) = losses
    assert "messages 11 to 14 are missing in the journal" in loss
    last = again.journal.last_seq
    assert last > 14
    again.journal.close(10)
    # The followers have gone to the end of the journal meanwhile.
    third = make().start(minimum_seq=last, on_loss=losses.append)
    assert losses == [loss]
    assert third.journal.next_seq() == last + 1
    assert third.numbers() == list(range(1, 11))


@pytest.mark.parametrize("instant", ["making", "made", "set aside"])
def test_a_kill_while_a_journal_is_rescued_costs_nothing(make, tmp_path, monkeypatch, instant):
    """Whatever the instant, the next start has every message that could be read."""
    path = tmp_path / "journal.db"
    one = make().start()
    one.put(500, b"payload")
    one.journal.close(10)
    path.write_bytes(b"\xaa" * 100 + path.read_bytes()[100:])

    def die(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if instant == "making":
            patch.setattr(Store, "mark_end", die)
        elif instant == "made":
            patch.setattr(files, "set_aside", die)
        else:
            patch.setattr(Replacement, "_put_in_place", die)
        with pytest.raises(KeyboardInterrupt):
            make().start()
    losses = []
    again = make().start(on_loss=losses.append)
    assert again.numbers() == list(range(1, 501))
    assert len(losses) == 1
    assert again.journal.next_seq() > BLOCK
    assert not list(tmp_path.glob("*.rescu*"))


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


@pytest.mark.parametrize("where", ["a leaf", "many pages"])
def test_damaged_pages_of_a_big_journal_cost_what_is_on_them(make, tmp_path, monkeypatch, where):
    """It is not looked through at the start. A reader gets past, and the next start takes over
    what SQLite can't get at any more."""
    monkeypatch.setattr(database, "CHECK_BELOW_BYTES", 0)
    path = tmp_path / "journal.db"
    one = make().start()
    for _ in range(60):
        one.put(10, b"payload" * 200)
        one.settle()
    one.journal.close(10)
    content = bytearray(path.read_bytes())
    pages = range(1, len(content) // 4096)
    leaves = [page for page in pages if content[page * 4096] == 0x0D]
    spoilt = [leaves[len(leaves) // 2]] if where == "a leaf" else pages[len(pages) // 2 :: 7]
    for page in spoilt:
        content[page * 4096 : page * 4096 + 4096] = b"\xaa" * 4096
    path.write_bytes(content)
    losses = []
    again = make().start(on_loss=losses.append)
    found = again.numbers()
    back = [m.seq for chunk in again.journal.back_from(2**62) for m in chunk]
    assert back[::-1] == found
    assert 300 < len(found) < 600
    lost = again.journal.counters()[Counter.JOURNAL_MESSAGES_UNREADABLE]
    assert lost >= 600 - len(found)
    assert losses
    assert again.journal.set_aside is None
    again.journal.close(10)
    third = make().start(on_loss=losses.append)
    assert third.journal.set_aside is not None
    assert set(third.numbers()) >= set(found)
    third.journal.close(10)
    assert make().start().journal.set_aside is None


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
