"""Promises of the recorders with real files: exactly once, whole, never at a client's expense."""

import contextlib
import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorders_rig import NOW_NS, Plant

from appliance.counters import Counter
from appliance.config.tables import RecorderConfig
from appliance.errors import ConfigError
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders import progress, worker
from appliance.recorders.progress import highest_cursor
from appliance.recorders.recorders import Recorders
from appliance.recorders.formats import make_format
from appliance.recorders.json import JsonFormat
from appliance.recorders.locate import locate
from appliance.recorders.progress import Progress, ProgressStore
from appliance.recorders.recording import Recording
from appliance.tuning import RECORD_EVERY_S

VICTIM = Path(__file__).with_name("victim_recorders.py")

ONE = ("t", "rec/one.json", {})


def load(path):
    return json.loads(path.read_text("utf-8"))


def test_demo_recording_is_what_the_documentation_shows(tmp_path):
    """Ten integers on the demo's topic give the array that users know, from `[]` onwards."""
    plant = Plant(tmp_path, ("/demo/integers", "recordings/integers.json", {}))
    path = tmp_path / "recordings/integers.json"
    with plant:
        assert path.read_text() == "[]"
        for number in range(10):
            plant.publish({"Generated number": str(number)}, topic="/demo/integers")
            plant.publish("elsewhere", topic="/demo/other")
    expected = [{"Generated number": str(number)} for number in range(10)]
    assert path.read_text() == json.dumps(expected, indent=2)
    assert plant.complete
    (state,) = plant.recorders.states()
    assert (state.recorded, state.lag, state.health.level) == (10, 0, "ok")
    assert state.size_bytes == path.stat().st_size


def test_recording_goes_on_after_a_restart(tmp_path):
    """A restart neither repeats nor skips, also for what was journaled and not yet recorded."""
    for start in (0, 3, 6):
        with Plant(tmp_path, ONE) as plant:
            plant.publish(*range(start, start + 3))
    assert load(tmp_path / "rec/one.json") == list(range(9))
    assert plant.recorders.states()[0].recorded == 9


def test_messages_of_a_moment_are_written_together(tmp_path, monkeypatch):
    """Each twentieth of a second costs one write and sync, however many commits it has."""
    batches = []
    append = Recording.append

    def counted(self, batch, last):
        batches.append(len(batch))
        append(self, batch, last)

    monkeypatch.setattr(Recording, "append", counted)
    with Plant(tmp_path, ONE) as plant:
        began = time.monotonic()
        for number in range(50):
            plant.publish(number)
            assert plant.journal.flush(30)
        plant.settle()
        took_s = time.monotonic() - began
    assert sum(batches) == 50
    assert len(batches) <= took_s / RECORD_EVERY_S + 1


def test_new_recorder_begins_now_and_others_go_on(tmp_path):
    """A recorder that is added later records what comes from then on, and disturbs no other."""
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1, 2)
    with Plant(tmp_path, ONE, ("#", "rec/all.jsonl", {"format": "jsonl"})) as plant:
        plant.publish(3)
        plant.publish(4, topic="other")
    assert load(tmp_path / "rec/one.json") == [1, 2, 3]
    assert (tmp_path / "rec/all.jsonl").read_text() == "3\n4\n"


def test_new_recorder_whose_file_fails_still_begins_at_its_first_start(tmp_path):
    """Messages since the first start are not lost because the folder had to be repaired first."""
    (tmp_path / "rec").write_text("a file where the folder should be")
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
        plant.until(lambda states: states[0].health.level == "bad")
    (tmp_path / "rec").unlink()
    with Plant(tmp_path, ONE) as plant:
        plant.publish(2)
    assert load(tmp_path / "rec/one.json") == [1, 2]


def test_two_recorders_of_one_file_are_refused(tmp_path):
    """Two recorders never write into each other's file."""
    with pytest.raises(ConfigError, match="Two recorders"):
        Plant(tmp_path, ONE, ("#", "rec/../rec/one.json", {"format": "csv"}))


@pytest.mark.parametrize(
    "path",
    [
        "journal.db",
        "tasks.db",
        pytest.param("link.json", marks=pytest.mark.not_in_wine("Wine 8 makes no symbolic links")),
        "folder",
    ],
)
def test_no_recorder_writes_over_the_appliance_s_own_files(tmp_path, path):
    """A recorder never writes to the journal or a folder: both are refused and stay as they are."""
    (tmp_path / "folder").mkdir()
    if path == "link.json":
        (tmp_path / path).symlink_to("journal.db")
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
    with pytest.raises(ConfigError, match="never overwritten"):
        Plant(tmp_path, ("t", path, {}))
    with Plant(tmp_path, ONE) as plant:
        plant.publish(2)
    assert load(tmp_path / "rec/one.json") == [1, 2]
    assert (tmp_path / "folder").is_dir()


def test_a_folder_that_takes_a_recording_s_place_is_left_alone(tmp_path):
    """A folder that comes after the start, too: it stays where it is, with what it holds."""
    path = tmp_path / "one.json"
    path.mkdir()
    (path / "letter.txt").write_text("somebody's")
    recording = Recording(path, JsonFormat(metadata=False), Progress("", 0), lambda: NOW_NS)
    with pytest.raises(OSError, match="one.json"):
        recording.begin()
    assert (path / "letter.txt").read_text() == "somebody's"


def test_recording_that_was_removed_is_begun_anew(tmp_path, caplog):
    """Removing a recording while the appliance runs or stands still just begins a new one."""
    path = tmp_path / "rec/one.json"
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
        plant.settle()
        path.unlink()
        plant.publish(2)
        plant.settle()
        assert load(path) == [2]
        assert plant.recorders.states()[0].recorded == 1
    path.unlink()
    with Plant(tmp_path, ONE) as plant:
        plant.publish(3)
    assert load(path) == [3]
    assert caplog.text.count("was removed") == 2


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("1", "7"),
        lambda text: text[:5],
        lambda text: "",
        lambda text: "something else altogether, and longer than the recording was",
    ],
    ids=["edited", "cut", "emptied", "replaced"],
)
def test_changed_recording_is_kept_beside_the_new_one(tmp_path, caplog, running, change):
    """What a person made of a recording is set aside with a log line, never overwritten."""
    path = tmp_path / "rec/one.json"
    plant = Plant(tmp_path, ONE)
    with plant:
        plant.publish(1, 1, 1)
        plant.settle()
        if running:
            changed = change(path.read_text())
            path.write_text(changed)
            plant.publish(2)
            plant.settle()
            assert plant.recorders.states()[0].health.level == "warn"
    if not running:
        changed = change(path.read_text())
        path.write_text(changed)
        with Plant(tmp_path, ONE) as plant:
            plant.publish(2)
    assert load(path) == [2]
    (kept,) = path.parent.glob("one.json.before-*")
    assert kept.read_text() == changed
    assert str(kept) in caplog.text


@pytest.mark.parametrize("running", [True, False])
def test_what_somebody_adds_behind_the_end_is_kept(tmp_path, running):
    """A line appended by hand moves to a file of its own; the recording goes on unharmed."""
    path = tmp_path / "rec/one.json"
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
        plant.settle()
        if running:
            with path.open("a") as file:
                file.write("\nmine")
            plant.publish(2)
    if not running:
        with path.open("a") as file:
            file.write("\nmine")
        with Plant(tmp_path, ONE) as plant:
            plant.publish(2)
    assert load(path) == [1, 2]
    (kept,) = path.parent.glob("one.json.excess-*")
    assert kept.read_text() == "\nmine"


def test_file_that_was_there_before_is_kept(tmp_path):
    """The first start of a recorder doesn't overwrite a file of the same name."""
    path = tmp_path / "rec/one.json"
    path.parent.mkdir()
    path.write_text('{"precious": 1}')
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
    assert load(path) == [1]
    (kept,) = path.parent.glob("one.json.before-*")
    assert kept.read_text() == '{"precious": 1}'


def test_other_format_for_the_same_path_begins_a_new_file(tmp_path):
    """Changing a recorder's format keeps the old file whole and misses no message."""
    with Plant(tmp_path, ("t", "rec/x", {"format": "json"})) as plant:
        plant.publish(1)
    with Plant(tmp_path, ("t", "rec/x", {"format": "jsonl"})) as plant:
        plant.publish(2)
    assert (tmp_path / "rec/x").read_text() == "2\n"
    (kept,) = (tmp_path / "rec").glob("x.before-*")
    assert load(kept) == [1]


def test_moved_data_directory_goes_on(tmp_path):
    """The whole data directory can be moved to another place while the appliance stands still."""
    with Plant(tmp_path / "old", ONE) as plant:
        plant.publish(1)
    (tmp_path / "old").rename(tmp_path / "new")
    with Plant(tmp_path / "new", ONE) as plant:
        plant.publish(2)
    assert load(tmp_path / "new/rec/one.json") == [1, 2]


def test_recorder_in_trouble_loses_nothing_and_disturbs_nobody(tmp_path, caplog):
    """While one file can't be written the others go on; it catches up by itself, in order."""
    with Plant(tmp_path, ONE, ("t", "rec/two.jsonl", {"format": "jsonl"})) as plant:
        plant.publish(1)
        plant.settle()
        path = tmp_path / "rec/one.json"
        path.rename(tmp_path / "moved")
        path.mkdir()  # a folder in the file's place can't be written by any user
        plant.publish(2)
        plant.until(lambda states: states[0].health.level == "bad")
        plant.publish(*range(3, 2000))
        plant.until(lambda states: states[1].recorded == 1999)
        assert plant.recorders.states()[0].lag >= 1998
        assert plant.follower.advanced <= 1, "the journal must keep what is not recorded"
        path.rmdir()
        (tmp_path / "moved").rename(path)
        plant.settle()
        plant.until(lambda states: states[0].health.level == "ok")
        plant.publish(2000)
    assert load(path) == list(range(1, 2001))
    assert "one.json can't be recorded" in caplog.text
    assert dict(plant.recorders.counters())[Counter.RECORDER_RETRIES] > 0


def test_without_recorders_the_journal_keeps_nothing_for_them(tmp_path):
    """An appliance that records nothing doesn't hold old messages back from retention."""
    journal = Journal(
        tmp_path / "journal.db", sync="os", keep_s=0.0, max_bytes=10**9, housekeeping_s=0.02
    )
    journal.start(lambda entries: None)
    recorders = Recorders([], tmp_path / "recorders.db")
    recorders.open(journal.last_seq)
    recorders.start(journal.follower)
    pause = threading.Event()
    for _ in range(3):
        journal.append(Message(journal.next_seq(), time.time_ns(), "t", b"x"), None)
        assert journal.flush(30)
    for _ in range(600):
        if journal.get(1) is None:
            break
        pause.wait(0.05)
    assert journal.get(1) is None
    assert recorders.stop(5)
    journal.close(5)


def test_recorded_messages_are_released_to_retention(tmp_path):
    """What is safely in the recordings, or of no concern to them, is no longer held back."""
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1, 2)
        plant.publish("of no concern", topic="elsewhere")
        plant.until(lambda states: plant.follower.advanced == 3)


def test_messages_lost_to_retention_are_counted(tmp_path, caplog):
    """If the journal had to give messages up before they were recorded, that is said and counted."""
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
        plant.settle()
        plant.journal._condition.removed_to = 5
        for number in range(2, 8):
            plant.publish(number)
        plant.settle()
        assert dict(plant.recorders.counters())[Counter.RECORDER_MESSAGES_MISSED] > 0
    assert "before they could be recorded" in caplog.text


def test_cursors_that_can_not_be_stored_hold_recording_back(tmp_path, monkeypatch):
    """A file never runs ahead of its cursor: locked cursors stop recording until they are free."""
    monkeypatch.setattr(progress, "_BUSY_S", 0.1)
    monkeypatch.setattr(worker, "RETRY_S", 0.1)
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
        plant.settle()
        other = sqlite3.connect(tmp_path / "recorders.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        plant.publish(2)
        plant.until(lambda states: states[0].health.level == "bad")
        assert "cursor" in plant.recorders.states()[0].health.text
        plant.publish(3)
        other.rollback()
        other.close()
        plant.until(lambda states: states[0].recorded == 3 and states[0].health.level == "ok")
    assert load(tmp_path / "rec/one.json") == [1, 2, 3]


SHAPES = [
    {"format": kind, "metadata": metadata}
    for kind in ("json", "jsonl", "csv")
    for metadata in (False, True)
]
LOST = {
    "deleted": lambda path: path.unlink(),
    "no database": lambda path: path.write_bytes(b"garbage " * 100),
    "row": lambda path: execute(path, "UPDATE recording SET seq = 'seven'"),
}


def execute(path, sql):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


def numbers(path, shape):
    text = path.read_text("utf-8")
    if shape["format"] == "csv":
        rows = csv.DictReader(io.StringIO(text, newline=""))
        return [int(row.get("n_", row["n"])) for row in rows]
    lines = text.splitlines() if shape["format"] == "jsonl" else []
    found = [json.loads(line) for line in lines] or json.loads(text)
    return [(one["payload"] if shape["metadata"] else one)["n"] for one in found]


EACH_SHAPE = [("t", f"rec/{number}", shape) for number, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("how", LOST)
def test_a_lost_position_is_found_by_the_end_of_the_file(tmp_path, how):
    """Nothing is recorded twice and nothing is left out, whatever the database was."""
    payloads = [{"n": n, "text": 'a "b",\nc', "list": [1, {"x": n % 3}]} for n in range(40)]
    with Plant(tmp_path, *EACH_SHAPE) as plant:
        plant.publish(*payloads[:30])
        plant.publish("other", topic="other")
    with Plant(tmp_path) as plant:  # without recorders
        plant.publish(*payloads[30:35])
    LOST[how](tmp_path / "recorders.db")
    with Plant(tmp_path, *EACH_SHAPE) as plant:
        plant.publish(*payloads[35:])
        plant.settle()
        assert {state.recorded for state in plant.recorders.states()} == {40}
        assert len(plant.recorders.losses) == (how == "no database")
    for number, shape in enumerate(SHAPES):
        assert numbers(tmp_path / f"rec/{number}", shape) == list(range(40))
    assert len(list((tmp_path / "rec").iterdir())) == len(SHAPES)


def test_a_lost_position_is_found_although_the_clock_was_set_back(tmp_path):
    """The file was written for the last time before its messages came, by the time of day."""
    with Plant(tmp_path, *EACH_SHAPE) as plant:
        plant.publish(*({"n": n} for n in range(10)), ahead_ns=time.time_ns() + 5 * 3600 * 10**9)
    (tmp_path / "recorders.db").unlink()
    with Plant(tmp_path, *EACH_SHAPE) as plant:
        plant.publish({"n": 10})
    for number, shape in enumerate(SHAPES):
        assert numbers(tmp_path / f"rec/{number}", shape) == list(range(11))
    assert len(list((tmp_path / "rec").iterdir())) == len(SHAPES), "no file was set aside"


def test_a_kill_while_lost_positions_are_found_changes_nothing(tmp_path):
    """The database is there by then, and without rows: the recordings are no new ones."""
    for path in (tmp_path / "recorders.db", None):
        with Plant(tmp_path, ONE) as plant:
            plant.publish(1, 2)
        if path is None:
            (tmp_path / "recorders.db").write_bytes(b"garbage " * 100)
        else:
            path.unlink()
        killed = ProgressStore(tmp_path / "recorders.db")
        assert killed.open(NOW_NS) == {}
        killed.close()
    with Plant(tmp_path, ONE) as plant:
        plant.publish(3)
    assert load(tmp_path / "rec/one.json") == [1, 2, 1, 2, 3]
    assert not list(tmp_path.glob("recorders.db.lost"))


def test_a_lost_position_and_an_interrupted_write(tmp_path):
    """The file ends in the middle of a message: it is completed by the journal."""
    with Plant(tmp_path, *EACH_SHAPE) as plant:
        plant.publish(*({"n": n} for n in range(10)))
    for number, shape in enumerate(SHAPES):
        path = tmp_path / f"rec/{number}"
        path.write_bytes(path.read_bytes()[: -8 - 3 * shape["metadata"]])
    (tmp_path / "recorders.db").unlink()
    with Plant(tmp_path, *EACH_SHAPE) as plant:
        plant.publish({"n": 10})
    for number, shape in enumerate(SHAPES):
        assert numbers(tmp_path / f"rec/{number}", shape) == list(range(11))
    assert len(list((tmp_path / "rec").iterdir())) == len(SHAPES)


def test_a_recording_that_says_its_numbers_needs_no_message_of_the_journal(tmp_path):
    """With metadata the last message tells its number, long after retention has removed it."""
    with Plant(tmp_path, *EACH_SHAPE) as plant:
        plant.publish(*({"n": n, "text": '\n5,2026-01-01T "seq": 9,'} for n in range(7)))
    for number, shape in enumerate(SHAPES):
        path, made = tmp_path / f"rec/{number}", make_format(RecorderConfig("t", "", **shape))
        place = locate(path, made, [], 100)
        if shape["metadata"]:
            assert (place.progress.seq, place.progress.count) == (7, 7)
            assert locate(path, made, [], 6) is None
        else:
            assert place is None


def test_messages_that_look_the_same_count_as_recorded_and_are_named(tmp_path):
    """It can't be told how many of them the file has: it is said from which number to which."""
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1, 2, 2, 2, 2)
    (tmp_path / "recorders.db").unlink()
    with Plant(tmp_path, ONE) as plant:
        plant.publish(3)
        assert not plant.recorders.losses
    assert load(tmp_path / "rec/one.json") == [1, 2, 2, 2, 2, 3]
    with Plant(tmp_path, ("t", "rec/late.jsonl", {"format": "jsonl"})) as plant:
        plant.publish(*[7] * 10)
    with Plant(tmp_path) as plant:
        plant.publish(*[7] * 10)
    (tmp_path / "recorders.db").unlink()
    with Plant(tmp_path, ("t", "rec/late.jsonl", {"format": "jsonl"})) as plant:
        plant.publish(8)
        (loss,) = plant.recorders.losses
    assert "messages 17 to 26 look like earlier ones" in loss


def test_a_file_that_no_message_gives_is_set_aside_when_its_position_is_lost(tmp_path):
    """It is another program's, or the journal has none of its messages any more."""
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
    (tmp_path / "rec/one.json").write_text("[\n  99\n]")
    (tmp_path / "recorders.db").unlink()
    with Plant(tmp_path, ONE) as plant:
        plant.publish(2)
        (loss,) = plant.recorders.losses
    (kept,) = (tmp_path / "rec").glob("one.json.before-*")
    assert load(kept) == [99]
    assert load(tmp_path / "rec/one.json") == [2]
    assert "can't be told" in loss


def test_an_empty_recording_whose_position_is_lost_gets_what_came_since(tmp_path):
    """It was begun and nothing was recorded: the messages since then are not in it."""
    with Plant(tmp_path, ONE):
        pass
    # The times of these messages are their numbers; NTFS counts in steps of 100 ns.
    os.utime(tmp_path / "rec/one.json", ns=(200, 200))
    with Plant(tmp_path) as plant:
        plant.publish(*range(1, 301))
    (tmp_path / "recorders.db").unlink()
    with Plant(tmp_path, ONE) as plant:
        plant.publish(301)
    assert load(tmp_path / "rec/one.json") == list(range(200, 302))


def test_cursors_of_a_newer_appliance_are_refused_and_kept(tmp_path):
    """Going back to an older appliance is an error that destroys nothing."""
    with Plant(tmp_path, ONE):
        pass
    connection = sqlite3.connect(tmp_path / "recorders.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="newer appliance"):
        Plant(tmp_path, ONE).recorders.open(0)


def test_journal_behind_the_cursors_still_records_everything(tmp_path):
    """After a journal was lost or came from a backup, new messages are new to the recorders."""
    with Plant(tmp_path, ONE) as plant:
        plant.publish(*range(50))
    for path in tmp_path.glob("journal.db*"):
        path.unlink()
    with Plant(tmp_path, ONE) as plant:
        plant.publish("new")
    assert load(tmp_path / "rec/one.json") == [*range(50), "new"]


def test_reader_finds_a_whole_array_while_messages_come_in(tmp_path):
    """A program that reads the file in one go, again and again, always finds valid JSON."""
    path = tmp_path / "rec/one.json"
    lengths = []
    stop = threading.Event()

    def read():
        with path.open("rb", buffering=0) as file:
            while not stop.is_set():
                try:
                    file.seek(0)
                    lengths.append(len(json.loads(file.read(1_000_000))))
                except ValueError:  # docs/recording.md: once in a great while; read again
                    file.seek(0)
                    lengths.append(len(json.loads(file.read(1_000_000))))

    with Plant(tmp_path, ONE) as plant:
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(30):
            plant.publish({"Generated number": str(number)})
            plant.settle()
        stop.set()
        reader.join()
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 5


def test_writes_stay_within_the_size_that_readers_know(tmp_path):
    """A write goes into blanks that are already there, so no reader gets an array cut short."""
    path = tmp_path / "one.json"
    recording = Recording(path, JsonFormat(metadata=False), Progress("", 0), lambda: NOW_NS)
    recording.begin()
    sizes = [10, 10, 200, 10, 900, 1000, 40_000, 30_000, 50]
    known = 0
    for number, size in enumerate(sizes):
        recording.append([Message(number, 0, "t", json.dumps("x" * size).encode())], number)
        if number and size <= 2 * sizes[number - 1]:
            assert recording.progress.length <= known
        known = path.stat().st_size
        assert path.read_bytes()[recording.progress.length :].strip(b" ") == b""
    recording.finish()
    assert path.stat().st_size == recording.progress.length
    assert path.read_text() == json.dumps(["x" * size for size in sizes], indent=2)


def test_white_space_behind_the_end_is_nobody_s_change(tmp_path):
    """An editor that adds a line end or strips blanks on saving causes no new file."""
    path = tmp_path / "rec/one.json"
    with Plant(tmp_path, ONE) as plant:
        plant.publish(1)
        plant.settle()
        path.write_bytes(path.read_bytes().rstrip())
        plant.publish(2)
        plant.settle()
        path.write_bytes(path.read_bytes().rstrip() + b"\n")
        plant.publish(3)
        plant.settle()
    assert load(path) == [1, 2, 3]
    assert list(path.parent.iterdir()) == [path]


@given(
    st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=20), min_size=1, max_size=6),
    st.integers(0, 5),
    st.integers(0, 8000),
)
@settings(deadline=None, max_examples=40)
def test_write_that_was_cut_anywhere_is_put_right(batches, broken, cut):
    """A crash may let any part of a write through: the next start makes the file whole again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.json"
        messages = [
            [
                Message(1 + seq, 0, "t", json.dumps("x" * size).encode())
                for seq, size in enumerate(batch)
            ]
            for batch in batches
        ]
        first = Recording(path, JsonFormat(metadata=False), Progress("", 0), lambda: NOW_NS)
        first.begin()
        broken %= len(messages)
        for batch in messages[:broken]:
            first.append(batch, 0)
        durable, before = first.progress, path.read_bytes()
        first.append(messages[broken], 0)
        after = path.read_bytes()
        # The bytes of the append that reached the disk: a beginning of them, over the old end.
        end = durable.length - 2
        written = after[end : end + cut]
        path.write_bytes(before[:end] + written + before[end + len(written) :])
        again = Recording(path, JsonFormat(metadata=False), durable, lambda: NOW_NS)
        again.resume(lambda size: b"".join(again.pieces(messages[broken])))
        assert path.read_bytes().rstrip(b" ") == before.rstrip(b" ")
        for batch in messages[broken:]:
            again.append(batch, 0)
        again.finish()
        expected = [json.loads(m.payload) for batch in messages for m in batch]
        assert path.read_text() == json.dumps(expected, indent=2)
        assert list(path.parent.iterdir()) == [path]


def test_kill_at_any_moment_neither_loses_nor_repeats(tmp_path):
    """After kill -9 at any moment, each file has each message once, in order, and nothing else."""
    for lines in (2, 9, 25, 60, 90):
        process = subprocess.Popen(
            [sys.executable, str(VICTIM), str(tmp_path)], stdout=subprocess.PIPE
        )
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        process.communicate()
    configs = [
        ("a/#", "rec/a.json", {}),
        ("b/#", "rec/b.jsonl", {"format": "jsonl"}),
        ("#", "rec/all.csv", {"format": "csv"}),
    ]
    with Plant(tmp_path, *configs) as plant:
        messages = plant.journal.read(0, 10**9, 10**12)
    numbers = {letter: [m.seq for m in messages if m.topic[0] == letter] for letter in "ab"}
    assert [e["n"] for e in load(tmp_path / "rec/a.json")] == numbers["a"]
    lines = (tmp_path / "rec/b.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == numbers["b"]
    table = list(csv.DictReader(io.StringIO((tmp_path / "rec/all.csv").read_text(), newline="")))
    assert [int(row["n"]) for row in table] == [m.seq for m in messages]
    assert {p.name for p in (tmp_path / "rec").iterdir()} == {"a.json", "b.jsonl", "all.csv"}
    assert len(messages) > 1000


def test_full_disk_leaves_a_whole_recording_that_goes_on_later(tmp_path, small_disk):
    """A write that the disk had no room for is undone at once and made up for later."""
    path = small_disk / "one.json"
    with Plant(tmp_path, ("t", path, {})) as plant:
        plant.publish("first")
        plant.settle()
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(b"\0" * 4096)
        plant.publish("x" * 10_000, "y" * 10_000)
        plant.until(lambda states: states[0].health.level == "bad")
        assert load(path) == ["first"]
        ballast.unlink()
        plant.until(lambda states: states[0].health.level == "ok" and states[0].recorded == 3)
    assert load(path) == ["first", "x" * 10_000, "y" * 10_000]
    assert list(small_disk.iterdir()) == [path]
