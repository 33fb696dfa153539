"""Promises of recorders whose format makes complete files: exactly once, whole, at any moment."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from recorders_rig import Plant

from appliance.config.tables import RecorderConfig, RotateConfig
from appliance.recorders import parts as parts_module
from appliance.recorders import recorder, worker
from appliance.recorders.part_store import PartStore
from appliance.recorders.parquet import ParquetWriter
from appliance.storage import files

pq = pytest.importorskip("pyarrow.parquet")
openqvd = pytest.importorskip("openqvd")

pytestmark = pytest.mark.not_in_wine("pyarrow does not start in Wine")
VICTIM = Path(__file__).with_name("victim_parts.py")
KINDS = ("parquet", "qvd")


@pytest.fixture(autouse=True)
def _without_long_waits(monkeypatch):
    monkeypatch.setattr(recorder, "RETRY_S", 0.05)
    monkeypatch.setattr(worker, "RETRY_S", 0.05)
    monkeypatch.setattr(worker, "SAVE_EVERY_S", 0.05)


def one(kind="parquet", **rotate):
    more = {"rotate": RotateConfig(**rotate)} if rotate else {}
    return ("t", f"rec/one.{kind}", {"format": kind, "metadata": True, **more})


def read(path):
    """The columns of a file, by an independent reader."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    return openqvd.read(str(path)).to_pydict()


def found(folder, kind="parquet"):
    """The files of a recorder, in order of their names."""
    return sorted(folder.glob(f"*.{kind}"))


def numbers(folder, kind="parquet", key="n"):
    return [int(n) for path in found(folder, kind) for n in read(path)[key]]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def data(*values):
    return [{"n": n, "text": f"x{n}"} for n in values]


@pytest.mark.parametrize("kind", KINDS)
def test_parts_hold_every_message_once_and_say_which(tmp_path, kind):
    """A part ends at its number of messages, and at a stop; its name has its first and last."""
    plant = Plant(tmp_path, one(kind, messages=4))
    with plant:
        plant.publish(*data(*range(6)))
        plant.publish("of no concern", topic="elsewhere")
        plant.publish(*data(6))
        plant.settle()
        plant.until(lambda states: states[0].recorded == 7)
        assert names(tmp_path / "rec")[0] == f".one.{kind}.part"
        assert names(tmp_path / "rec")[1:] == [f"one-000000000001-000000000004.{kind}"]
    assert plant.complete
    assert names(tmp_path / "rec") == [
        f"one-000000000001-000000000004.{kind}",
        f"one-000000000005-000000000008.{kind}",
    ]
    assert numbers(tmp_path / "rec", kind) == list(range(7))
    assert numbers(tmp_path / "rec", kind, "seq") == [1, 2, 3, 4, 5, 6, 8]
    first, second = plant.recorders_parts()
    assert (first.messages, second.messages) == (4, 3)
    assert first.bytes == (tmp_path / first.path).stat().st_size
    assert (second.first_ns, second.last_ns, second.state) == (5, 8, "closed")
    with Plant(tmp_path, one(kind, messages=4)) as plant:
        plant.publish(*data(7, 8))
    assert numbers(tmp_path / "rec", kind) == list(range(9))
    (state,) = plant.recorders.states()
    assert state.recorded == 9
    assert state.size_bytes == sum(path.stat().st_size for path in found(tmp_path / "rec", kind))


@pytest.mark.posix("an open file can't be removed on Windows")
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_removed_is_made_again(tmp_path, kind):
    """The open part is lost with it, and made again from the journal at once."""
    with Plant(tmp_path, one(kind, messages=4)) as plant:
        plant.publish(*data(*range(2)))
        plant.settle()
        plant.until(lambda states: states[0].recorded == 2)
        shutil.rmtree(tmp_path / "rec")
        plant.publish(*data(*range(2, 5)))
        plant.settle()
        plant.until(lambda states: states[0].recorded == 5 and states[0].health.level == "ok")
    assert numbers(tmp_path / "rec", kind) == list(range(5))


def test_what_is_wrong_with_a_part_is_said_until_it_is_made(tmp_path, monkeypatch):
    """A part that failed waits for room; the error is the one that came, not another."""

    def fail(_number):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(parts_module, "_FULL_S", 0.3)
    with Plant(tmp_path, one("qvd", messages=2)) as plant:
        plant.publish(*data(0))
        plant.settle()
        plant.until(lambda states: states[0].recorded == 1)
        said = []
        with monkeypatch.context() as patch:
            patch.setattr(parts_module.files, "sync_file", fail)
            plant.publish(*data(1))
            assert plant.journal.flush(30)
            plant.until(lambda states: states[0].health.level == "bad")
            # Longer than it takes until it is looked at again.
            plant.until(lambda states: said.append(states[0].health.text) or len(said) > 15)
        assert set(said) == {"the disk is broken"}
        plant.settle()
    assert numbers(tmp_path / "rec", "qvd") == [0, 1]


def test_a_part_ends_at_its_size(tmp_path):
    """Also while a backlog is worked off: no part gets much larger than asked for."""
    with Plant(tmp_path, one("qvd", size=100_000)) as plant:
        for _ in range(10):
            plant.publish(*[{"text": os.urandom(50).hex()} for _ in range(400)])
            plant.settle()
    sizes = [path.stat().st_size for path in found(tmp_path / "rec", "qvd")]
    assert len(sizes) >= 3
    assert all(size > 100_000 for size in sizes[:-1])


def test_a_part_ends_when_its_time_is_over_by_itself(tmp_path):
    """Without another message, and by the times of messages that come late."""
    with Plant(tmp_path, one(every=1)) as plant:
        plant.publish(*data(1, 2))
        plant.until(lambda _: len(found(tmp_path / "rec")) == 1)
        second = 1_000_000_000
        for number in range(3, 7):
            plant.publish(*data(number), ahead_ns=number * second // 2)
    assert numbers(tmp_path / "rec") == [1, 2, 3, 4, 5, 6]
    spans = [read(path)["time"] for path in found(tmp_path / "rec")]
    assert all((times[-1] - times[0]).total_seconds() < 1 for times in spans)


def test_columns_that_change_begin_another_file(tmp_path, monkeypatch):
    """Rows that are written keep their columns; columns are remembered over a restart."""
    monkeypatch.setattr("appliance.recorders.parquet.GROUP_ROWS", 2)
    monkeypatch.setattr("appliance.recorders.parquet.BATCH_ROWS", 1)
    with Plant(tmp_path, one()) as plant:
        plant.publish({"a": 1}, {"a": 2}, {"a": 3})
        plant.settle()
        plant.publish({"a": 4, "b": "x"})
        plant.settle()
        plant.publish({"a": "text"})
    with Plant(tmp_path, one()) as plant:
        plant.publish({"a": 5})
    tables = [read(path) for path in found(tmp_path / "rec")]
    assert [table["a"] for table in tables] == [[1, 2, 3], [4], ["text"], ["5"]] or [
        value for table in tables for value in table["a"]
    ] == [1, 2, 3, "4", "text", "5"]
    assert [value for table in tables[1:] for value in table["b"]] == ["x", None, None]


def test_the_journal_keeps_what_an_open_part_holds(tmp_path):
    """Only a file that has its name lets retention go on."""
    with Plant(tmp_path, one(messages=3), ("t", "rec/x.jsonl", {"format": "jsonl"})) as plant:
        plant.publish(*data(1, 2))
        plant.settle()
        plant.until(lambda states: states[0].recorded == 2)
        assert plant.follower.advanced == 0
        plant.publish(*data(3))
        plant.until(lambda _: plant.follower.advanced == 3)
        plant.publish("of no concern", topic="elsewhere")
        plant.until(lambda _: plant.follower.advanced == 4)


def test_an_open_part_ends_early_when_the_journal_gets_too_big_for_it(tmp_path, monkeypatch):
    """A long time in the configuration does not push messages out of the journal unread."""
    with Plant(tmp_path, one(every=86_400)) as plant:
        plant.publish(*data(1, 2))
        plant.settle()
        plant.until(lambda states: states[0].recorded == 2)
        assert not found(tmp_path / "rec")
        monkeypatch.setattr(type(plant.journal), "may_lag", lambda *_: False)
        plant.publish("of no concern", topic="elsewhere")
        plant.until(lambda _: plant.follower.advanced == 3)
    assert numbers(tmp_path / "rec") == [1, 2]


def test_a_backlog_is_no_reason_to_end_parts_early(tmp_path, monkeypatch):
    """After an outage parts are as large as ever, although the journal is full of messages."""
    with Plant(tmp_path, one()) as plant:
        plant.publish(*data(1))
    with Plant(tmp_path) as plant:
        plant.publish(*data(*range(2, 40)))
    monkeypatch.setattr("appliance.recorders.worker.BATCH_MESSAGES", 5)
    with Plant(tmp_path, one()) as plant:
        monkeypatch.setattr(
            type(plant.journal), "may_lag", lambda self, seq: self.last_seq - seq < 30
        )
        plant.publish(*data(40))
        plant.settle()
    assert numbers(tmp_path / "rec") == list(range(1, 41))
    assert len(found(tmp_path / "rec")) <= 3


# --- crashes -------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


STEPS = {
    "while rows are written": (ParquetWriter, "write"),
    "while the part is completed": (ParquetWriter, "close"),
    "before it is announced": (PartStore, "announce"),
    "before it has its name": (files, "rename"),
    "before its row counts": (PartStore, "close"),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_each_step_costs_nothing(tmp_path, monkeypatch, step, after):
    """The next start has each message once, whatever step was or was not done."""
    where, name = STEPS[step]
    real = getattr(where, name)
    dead = threading.Event()

    def killed(*arguments, **more):
        if name == "rename" and not arguments[0].name.endswith(".part"):
            return real(*arguments)
        if not dead.is_set() and not after:
            dead.set()
            raise Killed
        result = None if dead.is_set() else real(*arguments, **more)
        dead.set()
        raise Killed

    plant = Plant(tmp_path, one(messages=3))
    with monkeypatch.context() as patched:
        patched.setattr(where, name, killed)
        # Nothing that a killed process does reaches the disk.
        patched.setattr(parts_module.Parts, "_give_up", lambda *_: None)
        patched.setattr(parts_module.Parts, "finish", lambda *_: None)
        patched.setattr(threading, "excepthook", lambda _: None)
        with plant:
            plant.publish(*data(1, 2, 3, 4))
            plant.journal.flush(30)
            assert dead.wait(30)
            plant.recorders._files.join(30)
    with Plant(tmp_path, one(messages=3)) as plant:
        plant.publish(*data(5))
        plant.settle()
    assert numbers(tmp_path / "rec") == [1, 2, 3, 4, 5]
    assert not list((tmp_path / "rec").glob(".*"))
    assert plant.recorders.states()[0].recorded == 5
    assert [part.state for part in plant.recorders_parts()] == ["closed"] * 2


@pytest.mark.parametrize("name", ["announce", "close"])
def test_a_database_that_fails_for_a_while_costs_nothing(tmp_path, monkeypatch, name):
    """A file that has its name is not made again, one without is."""
    real = getattr(PartStore, name)
    failures = [sqlite3.OperationalError("disk I/O error")] * 2

    def fails(*arguments):
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(PartStore, name, fails)
    with Plant(tmp_path, one(messages=3)) as plant:
        plant.publish(*data(1, 2, 3, 4))
        plant.settle()
        plant.until(lambda states: states[0].health.level == "ok" and not failures)
    assert numbers(tmp_path / "rec") == [1, 2, 3, 4]


def test_a_part_that_is_removed_before_it_is_complete_is_made_again(tmp_path, monkeypatch):
    """Somebody tidies up: the journal has its messages."""
    real = PartStore.announce

    def announce(self, part):
        real(self, part)
        waiting = tmp_path / "rec/.one.parquet.part"
        if part.first_seq == 1 and len(removed) == 0:
            removed.append(waiting.unlink())

    removed = []
    monkeypatch.setattr(PartStore, "announce", announce)
    with Plant(tmp_path, one(messages=3)) as plant:
        plant.publish(*data(1, 2, 3, 4))
        plant.settle()
        plant.until(lambda states: states[0].health.level == "ok" and states[0].recorded == 4)
    assert numbers(tmp_path / "rec") == [1, 2, 3, 4]


def test_a_foreign_file_of_that_name_is_set_aside(tmp_path):
    """No file is overwritten, whatever it is."""
    path = tmp_path / "rec/one-000000000001-000000000003.parquet"
    path.parent.mkdir()
    path.write_text("somebody's")
    with Plant(tmp_path, one(messages=3)) as plant:
        plant.publish(*data(1, 2, 3))
        plant.settle()
        plant.publish(*data(4))
        plant.until(lambda states: states[0].health.level == "warn")
    (kept,) = path.parent.glob("*.before-*")
    assert kept.read_text() == "somebody's"
    assert numbers(tmp_path / "rec") == [1, 2, 3, 4]


@pytest.mark.campaign
def test_a_part_costs_the_same_after_many(tmp_path, monkeypatch):
    """The folder is listed, and all rows are read, once and not for each part."""
    counts = Counter()

    def counted(owner, name):
        original = getattr(owner, name)

        def call(*arguments, **more):
            counts[name] += 1
            return original(*arguments, **more)

        monkeypatch.setattr(owner, name, call)

    with Plant(tmp_path, one(messages=1)) as plant:
        plant.publish(*data(*range(5)))
        plant.settle()
        counted(Path, "iterdir")
        counted(PartStore, "of_recorder")
        counted(PartStore, "count")
        plant.publish(*data(*range(5, 60)))
        plant.until(lambda states: states[0].files == 60)
        assert counts.total() == 0
    assert numbers(tmp_path / "rec") == list(range(60))


@pytest.mark.campaign
def test_kill_at_any_moment_neither_loses_nor_repeats(tmp_path):
    """After kill -9 at any moment, the parts have each message once, in order."""
    for lines in (3, 12, 30, 60):
        process = subprocess.Popen(
            [sys.executable, str(VICTIM), str(tmp_path)], stdout=subprocess.PIPE
        )
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        process.communicate()
    configs = [
        ("#", f"{kind}/all.{kind}", {"format": kind, "rotate": RotateConfig(messages=150)})
        for kind in KINDS
    ]
    with Plant(tmp_path, *configs) as plant:
        messages = [m.seq for m in plant.journal.read(0, 10**9, 10**12)]
        plant.settle()
    for kind in KINDS:
        assert numbers(tmp_path / kind, kind) == messages
        assert len(found(tmp_path / kind, kind)) > 3
        assert not list((tmp_path / kind).glob(".*"))


# --- disk, database, configuration ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_full_disk_loses_nothing_and_goes_on_by_itself(tmp_path, small_disk, kind, monkeypatch):
    """The open part is thrown away and made again; published ones stay as they are."""
    config = ("t", small_disk / f"one.{kind}", {"format": kind, "rotate": RotateConfig(messages=3)})
    with Plant(tmp_path, config) as plant:
        plant.publish(*data(1, 2, 3))
        plant.until(lambda states: states[0].recorded == 3)
        plant.until(lambda _: len(found(small_disk, kind)) == 1)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(b"\0" * 4096)
        plant.publish({"n": 4, "text": "x" * 10_000}, *data(5, 6))
        plant.until(lambda states: states[0].health.level == "bad")
        assert numbers(small_disk, kind) == [1, 2, 3]
        ballast.unlink()
        plant.until(lambda states: states[0].health.level == "ok" and states[0].recorded == 6)
    assert numbers(small_disk, kind) == [1, 2, 3, 4, 5, 6]
    assert len(names(small_disk)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_database_is_made_up_for_by_the_names(tmp_path, kind):
    """The numbers in the last name say where to go on; the files are known again."""
    with Plant(tmp_path, one(kind, messages=3)) as plant:
        plant.publish(*data(1, 2, 3, 4))
    with Plant(tmp_path) as plant:  # without recorders
        plant.publish(*data(5))
    (tmp_path / "recorders.db").unlink()
    (tmp_path / f"rec/one-1-2.{kind}").write_text("not one of them")
    with Plant(tmp_path, one(kind, messages=3)) as plant:
        plant.publish(*data(6))
        assert not plant.recorders.losses
    (tmp_path / f"rec/one-1-2.{kind}").unlink()
    assert numbers(tmp_path / "rec", kind) == [1, 2, 3, 4, 5, 6]
    assert len(plant.recorders_parts()) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_newer_than_the_database_are_not_made_again(tmp_path, kind):
    """A backup copies recorders.db first, and files are closed while it goes on."""
    with Plant(tmp_path, one(kind, messages=3)) as plant:
        plant.publish(*data(1, 2, 3, 4))
    shutil.copy(tmp_path / "recorders.db", tmp_path / "old.db")
    with Plant(tmp_path, one(kind, messages=3)) as plant:
        plant.publish(*data(5, 6, 7, 8))
    for path in tmp_path.glob("recorders.db*"):
        path.unlink()
    (tmp_path / "old.db").rename(tmp_path / "recorders.db")
    before = names(tmp_path / "rec")
    assert len(before) == 4
    with Plant(tmp_path, one(kind, messages=3)) as plant:
        plant.until(lambda states: states[0].recorded == 8)
        plant.publish(*data(9))
    assert numbers(tmp_path / "rec", kind) == list(range(1, 10))
    assert names(tmp_path / "rec")[:4] == before
    assert [(p.messages, p.first_ns, p.last_ns) for p in plant.recorders_parts()] == [
        (3, 1, 3), (1, 4, 4), (3, 5, 7), (1, 8, 8), (1, 9, 9),
    ]  # fmt: skip


def test_files_of_another_journal_are_set_aside(tmp_path):
    """Their numbers are those of other messages, which must not be taken for recorded ones."""
    with Plant(tmp_path / "old", one(messages=3)) as plant:
        plant.publish(*data(1, 2, 3, 4, 5))
    (tmp_path / "new").mkdir()
    shutil.copytree(tmp_path / "old/rec", tmp_path / "new/rec")
    with Plant(tmp_path / "new", one(messages=3)) as plant:
        plant.publish(*data(6, 7, 8, 9))
        plant.settle()
        plant.until(lambda states: states[0].health.level == "warn")
    assert numbers(tmp_path / "new/rec") == [6, 7, 8, 9]
    assert len(list((tmp_path / "new/rec").glob("*.before-*"))) == 2


def test_a_reload_ends_the_part_and_another_format_goes_on(tmp_path):
    """Nothing is lost or twice when a recorder changes from files of one kind to another."""
    with Plant(tmp_path, one()) as plant:
        plant.publish(*data(1, 2))
        plant.settle()
        for kind, number in (("qvd", 3), ("parquet", 4)):
            config = msgspec.structs.replace(plant.configs[0], format=kind)
            changed = plant.recorders.plan([config])
            assert plant.recorders.take(changed, plant.follow, 30)
            plant.publish(*data(number))
            plant.settle()
    # The names end as the path is configured.
    rows = []
    for path in found(tmp_path / "rec"):
        is_qvd = path.read_bytes().startswith(b"<?xml")
        target = tmp_path / f"{path.stem}.{'qvd' if is_qvd else 'parquet'}"
        shutil.copy(path, target)
        rows += [int(n) for n in read(target)["n"]]
    assert rows == [1, 2, 3, 4]


def test_from_parts_to_a_growing_file_and_back(tmp_path):
    """The position goes along."""
    growing = ("t", "rec/one.parquet", {"format": "jsonl"})
    with Plant(tmp_path, one()) as plant:
        plant.publish(*data(1))
    with Plant(tmp_path, growing) as plant:
        plant.publish(*data(2))
    with Plant(tmp_path, one()) as plant:
        plant.publish(*data(3))
    assert json.loads((tmp_path / "rec/one.parquet").read_text())["n"] == 2
    (tmp_path / "rec/one.parquet").unlink()
    assert numbers(tmp_path / "rec") == [1, 3]


@pytest.mark.campaign
def test_a_reader_never_sees_half_a_file(tmp_path):
    """Every file that a wildcard finds at any moment is whole, and stays as it was."""
    seen, errors = {}, []
    stop = threading.Event()

    def look():
        while not stop.is_set():
            for path in found(tmp_path / "rec"):
                try:
                    content = path.read_bytes()
                    assert content == seen.setdefault(path.name, content)
                    read(path)
                except Exception as error:
                    errors.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    with Plant(tmp_path, one(messages=5)) as plant:
        for number in range(12):
            plant.publish(*data(*range(number * 5, number * 5 + 5)))
            plant.until(lambda _, n=number: len(found(tmp_path / "rec")) == n + 1)
    stop.set()
    reader.join()
    assert not errors
    assert numbers(tmp_path / "rec") == list(range(60))
