"""Recorders with many files: placeholders, rotation, compression, retention; exact after a kill."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.config.tables import KeepConfig, RecorderConfig, RotateConfig, UploadConfig
from appliance.config.values import Duration, Size, TopicFilter, WritePath
from appliance.counters import Counter
from appliance.model import Message
from appliance.recorders import closed_files, recording, spread, targets
from appliance.recorders.closed_files import too_many
from appliance.recorders.compression import compress
from appliance.recorders.part_store import Part, PartStore
from appliance.recorders.progress import Progress, ProgressStore
from appliance.recorders.recording import Recording
from appliance.recorders.target import Context, Target, Unsaved, key_of
from appliance.recorders.targets import make_target
from appliance.storage import files

NOON_NS = 1_764_417_600_000_000_000
"""2025-11-29, 12:00 UTC."""
SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


class KillError(BaseException):
    """The process is killed here."""


class Bench:
    """A recorder's target, driven as its thread does, with kills."""

    def __init__(self, folder: Path, path: str, **config: Any) -> None:
        self.folder = folder
        self.config = RecorderConfig(
            topic=TopicFilter(config.pop("topic", "#")),
            path=WritePath(folder / path),
            format=config.pop("format", "jsonl"),
            **config,
        )
        self.messages: list[Message] = []
        self.now_ns = NOON_NS
        self.counts: dict[Counter, int] = {}
        self.store: ProgressStore | None = None
        self.start()

    def start(self) -> None:
        self.store = ProgressStore(self.folder / "recorders.db")
        stored = self.store.open(self.now_ns)
        self.store.found()
        self.parts = PartStore(self.store)
        key = key_of(Path(self.config.path), self.folder)
        self.context = Context(
            config=self.config,
            key=key,
            name="x",
            data_dir=self.folder,
            store=self.store,
            parts=self.parts,
            clock_ns=lambda: self.now_ns,
            installation=lambda: "x",
            count=self.count,
            last_seq=lambda: len(self.messages),
            is_stopping=lambda: False,
        )
        if key not in stored:
            self.store.save([(key, Progress("", 0))], durable=True)
        self.target: Target = make_target(self.context, stored.get(key, Progress("", 0)))
        self.target.open(self.later)
        self.save()

    def count(self, counter: Counter) -> None:
        self.counts[counter] = self.counts.get(counter, 0) + 1

    def later(self, after_seq: int) -> Iterator[list[Message]]:
        for start in range(after_seq, len(self.messages), 7):
            yield self.messages[start : start + 7]

    def publish(self, topic: str, payload: object = None, at_ns: int | None = None) -> None:
        seq = len(self.messages) + 1
        content = json.dumps(seq if payload is None else payload).encode()
        self.messages.append(Message(seq, self.now_ns if at_ns is None else at_ns, topic, content))

    def run(self, batch: int = 10**6) -> None:
        """Record everything, and let the time pass."""
        while self.target.cursor < len(self.messages):
            after = self.target.cursor
            share = self.messages[after : after + batch]
            self.target.append(share, share[-1].seq)
            self.save()
        self.tick()

    def tick(self) -> None:
        self.target.tick(self.now_ns)
        self.save()

    def save(self) -> None:
        found: Unsaved = self.target.unsaved()
        if found.rows and self.store is not None:
            self.store.save(found.rows, durable=found.is_durable)
            self.target.saved(found.rows)

    def settle(self) -> None:
        """Let files be compressed."""
        self.tick()
        self.join()
        self.tick()
        self.tick()

    def join(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "recorders-compress":
                thread.join()

    def restart(self, *, ordered: bool = True) -> None:
        assert self.store is not None
        if ordered:
            self.target.finish()
            self.save()
        self.join()
        self.store.close()
        self.start()

    def files(self, folder: str = "rec") -> dict[str, list[Any]]:
        """What each file has, by its path in the folder."""
        root = self.folder / folder
        return {
            path.relative_to(root).as_posix(): content(path)
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


def content(path: Path) -> list[Any]:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompress(data, max_output_size=10**8)
    if path.name.removesuffix(".gz").endswith(".json"):
        found: list[Any] = json.loads(data)
        return found
    rows = [json.loads(line) for line in data.decode().splitlines()]
    return [row["payload"] if "line" in str(row) else row for row in rows]


def test_each_topic_has_a_file_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "rec/{topic}.json", format="json")
    for _ in range(3):
        for topic in ("a/1", "A/1", "a/2", "../../x"):
            bench.publish(topic)
        bench.run()
        bench.restart()
    assert bench.files() == {
        "a+1.json": [1, 5, 9],
        "A+1~1.json": [2, 6, 10],
        "a+2.json": [3, 7, 11],
        "%2e.+..+x.json": [4, 8, 12],
    }
    assert bench.target.figures().recorded == 12
    assert bench.target.figures().files == 4


def test_levels_and_dates_make_folders_and_a_date_that_is_over_is_closed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "rec/{date}/{line}_{what}.jsonl", topic="p/{line}/{what}")
    bench.publish("p/1/temp")
    bench.publish("p/2/temp")
    bench.run()
    bench.now_ns += 12 * HOUR_NS
    bench.tick()  # a message of yesterday may still be on its way to the disk
    assert not bench.parts.of_recorder(bench.context.key)
    bench.now_ns += 10 * SECOND_NS
    bench.tick()
    closed = bench.parts.of_recorder(bench.context.key)
    assert [part.path for part in closed] == [
        "rec/2025-11-29/1_temp.jsonl",
        "rec/2025-11-29/2_temp.jsonl",
    ]
    assert [(part.first_seq, part.last_seq, part.messages) for part in closed] == [
        (1, 1, 1),
        (2, 2, 1),
    ]
    bench.publish("p/1/temp")
    bench.publish("p/1/temp", at_ns=NOON_NS)  # the clock was set back
    bench.run()
    bench.restart()
    bench.publish("p/1/temp", at_ns=NOON_NS)
    bench.run()
    assert bench.files() == {
        "2025-11-29/1_temp.jsonl": [1],
        "2025-11-29/1_temp-000000000004.jsonl": [4],
        "2025-11-29/1_temp-000000000005.jsonl": [5],
        "2025-11-29/2_temp.jsonl": [2],
        "2025-11-30/1_temp.jsonl": [3],
    }
    assert bench.store is not None
    assert len(bench.store.load()) == 2  # of the recorder, and of the only file that is open


def test_a_file_left_open_by_the_last_run_is_closed_without_a_message(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "rec/{hour}-{topic}.json", format="json")
    bench.publish("a")
    bench.run()
    bench.now_ns += 2 * HOUR_NS
    bench.restart()
    bench.tick()
    assert [part.path for part in bench.parts.of_recorder(bench.context.key)] == ["rec/12-a.json"]
    bench.now_ns += 22 * HOUR_NS
    bench.publish("a")  # the same hour of another day
    bench.run()
    assert bench.files() == {"12-a.json": [1], "12-a-000000000002.json": [2]}


def test_while_behind_dates_follow_the_messages_and_not_the_clock(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "rec/{date}.jsonl")
    for _ in range(30):
        bench.publish("a")
    bench.now_ns += 24 * HOUR_NS
    bench.publish("a")
    while bench.target.cursor < 30:  # small batches, with a look at the time after each
        share = bench.messages[bench.target.cursor :][:5]
        bench.target.append(share, share[-1].seq)
        bench.tick()
    bench.run()
    assert bench.files() == {"2025-11-29.jsonl": list(range(1, 31)), "2025-11-30.jsonl": [31]}


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_rotation_by_number_size_and_time(tmp_path: Path, kind: str) -> None:
    bench = Bench(tmp_path, f"rec/x.{kind}", format=kind, rotate=RotateConfig(messages=3))
    for _ in range(7):
        bench.publish("a")
    bench.run(batch=5)
    bench.restart()
    bench.publish("a")
    bench.run()
    assert bench.files() == {
        f"x-000000000001.{kind}": [1, 2, 3],
        f"x-000000000004.{kind}": [4, 5, 6],
        f"x-000000000007.{kind}": [7, 8],
    }
    assert bench.target.figures().recorded == 8
    bench = Bench(tmp_path, f"b/x.{kind}", format=kind, rotate=RotateConfig(size=Size(1000)))
    for _ in range(40):
        bench.publish("a", "y" * 100)
    bench.run()
    sizes = [path.stat().st_size for path in (tmp_path / "b").iterdir()]
    assert 4 <= len(sizes) <= 6
    assert max(sizes) <= 1600  # the room of an open array
    bench = Bench(tmp_path, f"c/x.{kind}", format=kind, rotate=RotateConfig(every=Duration(60)))
    bench.publish("a")
    bench.publish("a", at_ns=NOON_NS + 59 * SECOND_NS)
    bench.publish("a", at_ns=NOON_NS + 61 * SECOND_NS)
    bench.run()
    assert bench.files("c") == {
        f"x-000000000001.{kind}": [1, 2],
        f"x-000000000003.{kind}": [3],
    }
    bench.now_ns += 122 * SECOND_NS
    bench.tick()
    assert len(bench.parts.of_recorder(bench.context.key)) == 2


def test_a_file_that_is_rotated_from_now_on_is_the_first_of_the_series(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "rec/x.csv", format="csv")
    bench.publish("a", {"n": 1})
    bench.run()
    bench.config = RecorderConfig(
        topic=TopicFilter("#"),
        path=bench.config.path,
        format="csv",
        rotate=RotateConfig(messages=2),
    )
    bench.restart()
    for _ in range(2):
        bench.publish("a", {"n": 2})
    bench.run()
    names = sorted(path.name for path in (tmp_path / "rec").iterdir())
    assert names == ["x-000000000003.csv", "x.csv"]
    assert (tmp_path / "rec/x.csv").read_text() == "n,payload\n1,\n2,\n"
    bench.config = RecorderConfig(topic=TopicFilter("#"), path=bench.config.path, format="csv")
    (tmp_path / "rec/x.csv").unlink()
    bench.restart()
    bench.publish("a", {"n": 4})
    bench.run()
    assert (tmp_path / "rec/x.csv").read_text() == "n,payload\n4,\n"


def test_few_files_are_open_and_closed_ones_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "MAX_OPEN", 3)
    bench = Bench(tmp_path, "rec/{topic}.json", format="json")
    for number in range(100):
        bench.publish(f"t{number % 8}")
    bench.run(batch=20)
    bench.restart(ordered=False)
    for number in range(100, 200):
        bench.publish(f"t{number % 8}")
    bench.run(batch=3)
    expected = {f"t{n}.json": [x for x in range(1, 201) if (x - 1) % 8 == n] for n in range(8)}
    assert bench.files() == expected
    assert bench.counts[Counter.RECORDER_FILES_CLOSED_FOR_OTHERS] > 50


def test_with_many_paths_messages_gather_while_more_come_and_none_is_forgotten(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, "rec/{topic}.jsonl")
    for number in range(3000):
        bench.publish(f"t{number % 25}")
    first, second = bench.messages[:500], bench.messages[500:1500]
    bench.target.append(first, 500)
    bench.save()
    bench.target.append(second, 1500)
    bench.save()
    assert bench.target.cursor == 1500
    assert bench.target.durable_cursor == 500  # a crash now lets them come again
    bench.restart(ordered=False)
    assert bench.target.cursor == 500
    bench.run(batch=700)
    assert bench.target.durable_cursor == 3000
    expected = {f"t{n}.jsonl": list(range(n + 1, 3001, 25)) for n in range(25)}
    assert bench.files() == expected
    bench.publish("t1")
    bench.target.append(bench.messages[3000:], 3001)
    bench.restart()
    assert bench.files()["t1.jsonl"][-1] == 3001


def test_topics_beyond_the_limit_share_a_file_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "MAX_OPEN", 3)
    monkeypatch.setattr(targets, "MAX_PATHS", 4)
    bench = Bench(tmp_path, "rec/{topic}.jsonl")
    for number in range(20):
        bench.publish(f"t{number % 10}")
    bench.run()
    bench.restart(ordered=False)
    bench.publish("t9")
    bench.publish("t3")
    bench.run()
    found = bench.files()
    others = [n + 1 for n in range(20) if n % 10 > 3]
    assert found["~others.jsonl"] == [*others, 21]
    assert found["t3.jsonl"] == [4, 14, 22]
    assert len(found) == 5
    assert bench.counts[Counter.RECORDER_PATHS_BEYOND_LIMIT] == 13
    assert "~others" in bench.target.note


def test_a_message_that_comes_again_goes_to_the_file_of_others_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although files that were ended since have made room for its topic."""
    monkeypatch.setattr(targets, "MAX_OPEN", 1)
    monkeypatch.setattr(targets, "MAX_PATHS", 2)
    bench = Bench(tmp_path, "rec/{hour}-{topic}.jsonl")
    bench.publish("a")
    bench.publish("b")
    bench.run()
    for topic in ("c", "d"):
        bench.publish(topic, at_ns=NOON_NS + 2 * HOUR_NS)
    bench.publish("e", at_ns=NOON_NS + 4 * HOUR_NS)
    bench.target.append(bench.messages[2:], 5)  # the row of the first file of others is stored
    bench.restart(ordered=False)
    for message in bench.messages[2:]:
        bench.target.append([message], message.seq)
        bench.tick()
    bench.publish("d", at_ns=NOON_NS + 2 * HOUR_NS)
    bench.run()
    assert bench.files() == {
        "12-a.jsonl": [1],
        "12-b.jsonl": [2],
        "14-~others.jsonl": [3, 4],
        "14-d.jsonl": [6],
        "16-~others.jsonl": [],  # begun before the kill; message 5 was not in it
        "16-e.jsonl": [5],
    }


def test_a_path_of_dates_alone_has_no_others(tmp_path: Path) -> None:
    """Every topic goes into the same file, so none is beyond a limit."""
    bench = Bench(tmp_path, "{date}.jsonl")
    bench.publish("a")
    bench.publish("b")
    bench.run()
    assert bench.target.note == ""
    assert Counter.RECORDER_PATHS_BEYOND_LIMIT not in bench.counts


def test_parts_are_removed_too_a_few_seconds_after_they_were_closed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    bench = Bench(
        tmp_path,
        "rec/{topic}.parquet",
        format="parquet",
        rotate=RotateConfig(messages=2),
        keep=KeepConfig(files=3),
    )
    for _ in range(10):
        bench.publish("a")
        bench.publish("b")
    bench.run(batch=4)
    bench.now_ns += 6 * SECOND_NS
    bench.tick()
    assert len(list((tmp_path / "rec").glob("*.parquet"))) == 3
    assert bench.target.figures().files == 3 + 2  # and the paths of two topics


def test_each_path_has_parts_and_each_message_is_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415

    monkeypatch.setattr(targets, "MAX_OPEN_PARTS", 2)
    bench = Bench(
        tmp_path,
        "rec/{date}/{topic}.parquet",
        format="parquet",
        metadata=True,
        rotate=RotateConfig(messages=3),
        keep=KeepConfig(files=100),
    )
    for number in range(40):
        bench.publish(f"t{number % 5}", {"n": number})
        if number % 7 == 0:
            bench.run(batch=4)
            assert bench.target.durable_cursor <= bench.target.cursor
            bench.restart(ordered=number % 2 == 0)
    bench.run()
    assert bench.target.durable_cursor < 40  # what an open part holds stays in the journal
    bench.now_ns += 24 * HOUR_NS
    bench.tick()
    bench.tick()
    assert bench.target.durable_cursor == 40
    found = sorted((tmp_path / "rec").rglob("*.parquet"))
    rows = [
        (row["seq"], path.name) for path in found for row in parquet.read_table(path).to_pylist()
    ]
    assert sorted(seq for seq, _ in rows) == list(range(1, 41))
    assert all(name.startswith(f"t{(seq - 1) % 5}-") for seq, name in rows)
    assert bench.target.figures().recorded == 40
    assert not [path for path in (tmp_path / "rec").rglob(".*")]


def test_more_paths_than_parts_may_be_open_make_no_tiny_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415

    monkeypatch.setattr(targets, "MAX_OPEN_PARTS", 3)
    bench = Bench(tmp_path, "rec/{date}/{topic}.parquet", format="parquet", metadata=True)
    for _ in range(40):
        for number in range(8):
            bench.publish(f"t{number}", {"n": 1})
            bench.run()
    assert bench.target.cursor == 320
    bench.restart(ordered=False)
    bench.run()
    bench.now_ns += 24 * HOUR_NS
    bench.tick()
    bench.tick()
    assert bench.target.durable_cursor == 320
    found = list((tmp_path / "rec").rglob("*.parquet"))
    assert len(found) < 40
    rows = [row["seq"] for path in found for row in parquet.read_table(path).to_pylist()]
    assert sorted(rows) == list(range(1, 321))


def test_each_path_has_the_last_value_of_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "rec/{line}.json", topic="p/{line}/+", format="json", mode="latest")
    for number in range(12):
        bench.publish(f"p/{number % 2}/x", {"n": number})
    bench.run(batch=5)
    bench.restart(ordered=False)
    bench.publish("p/0/x", {"n": 99})
    bench.run()
    bench.restart()
    found = {path.stem: path.read_text() for path in (tmp_path / "rec").iterdir()}
    assert found.keys() == {"0", "1"}
    assert ("99" in found["0"], "11" in found["1"], "10" in found["0"]) == (True, True, False)


def test_a_file_of_one_topic_is_its_value_and_one_of_several_is_an_array(tmp_path: Path) -> None:
    for path, is_one in (("one/{topic}.json", True), ("two/{line}.json", False)):
        bench = Bench(tmp_path, path, topic="p/{line}/+", format="json", mode="latest")
        bench.publish("p/0/x", {"n": 1})
        bench.run()
        bench.restart()
        (found,) = (tmp_path / path).parent.iterdir()
        value = json.loads(found.read_text())
        assert isinstance(value, dict) is is_one


def test_a_file_that_can_t_be_written_holds_up_no_other_and_nothing_is_twice(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, "rec/{topic}.jsonl")
    (tmp_path / "rec/bad.jsonl").mkdir(parents=True)
    for topic in ("a", "bad", "b"):
        bench.publish(topic)
    for _ in range(3):
        with pytest.raises(OSError, match=r"."):
            bench.run()
    (tmp_path / "rec/bad.jsonl").rmdir()
    bench.publish("a")
    bench.run()
    assert bench.files() == {"a.jsonl": [1, 4], "b.jsonl": [3], "bad.jsonl": [2]}


# --- compression and retention -------------------------------------------------------------------


@pytest.mark.parametrize(("compression", "ending"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_closed_files_are_compressed(tmp_path: Path, compression: str, ending: str) -> None:
    bench = Bench(tmp_path, "rec/x.jsonl", rotate=RotateConfig(messages=2), compression=compression)
    for _ in range(5):
        bench.publish("a")
    bench.run()
    for _ in range(3):
        bench.settle()
    assert bench.files() == {
        f"x-000000000001.jsonl{ending}": [1, 2],
        f"x-000000000003.jsonl{ending}": [3, 4],
        "x-000000000005.jsonl": [5],
    }
    parts = bench.parts.of_recorder(bench.context.key)
    assert [tmp_path.joinpath(part.path).stat().st_size for part in parts] == [
        part.bytes for part in parts
    ]


def test_a_stop_leaves_no_message_in_two_files(tmp_path: Path) -> None:
    """A copy that is complete at the stop takes the place of its file, not only at the next start."""
    rotate = RotateConfig(messages=2)
    bench = Bench(tmp_path, "rec/x.jsonl", rotate=rotate, compression="gzip")
    bench.publish("a")
    bench.publish("a")
    bench.run()
    bench.join()
    bench.target.finish()
    assert bench.files() == {"x-000000000001.jsonl.gz": [1, 2]}
    bench.restart()
    bench.settle()
    assert bench.files() == {"x-000000000001.jsonl.gz": [1, 2]}


def test_a_kill_at_any_moment_of_compressing_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("close", "remove", "unlink", "start")
    for step in steps:
        folder = tmp_path / step
        folder.mkdir()
        bench = Bench(
            folder, "rec/{topic}.jsonl", rotate=RotateConfig(messages=2), compression="gzip"
        )
        for _ in range(3):
            bench.publish("a")
        with monkeypatch.context() as patch:
            place: Mapping[str, Any] = {
                "close": (PartStore, "close"),
                "remove": (PartStore, "remove"),
                "unlink": (Path, "unlink"),
                "start": (closed_files.Compressor, "start"),
            }
            patch.setattr(*place[step], _kill)
            with contextlib.suppress(KillError):
                bench.run()
                bench.settle()
        bench.restart(ordered=False)
        bench.settle()
        bench.settle()
        assert bench.files() == {
            "a-000000000001.jsonl.gz": [1, 2],
            "a-000000000003.jsonl": [3],
        }, step
        assert not bench.parts.of_recorder(bench.context.key, ["pending"])


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_copy_that_a_kill_left_does_not_stay_when_the_compression_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    rotate = RotateConfig(messages=2)
    bench = Bench(tmp_path, "rec/x.jsonl", rotate=rotate, compression="gzip")
    for _ in range(3):
        bench.publish("a")
    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "close", _kill)
        with contextlib.suppress(KillError):
            bench.run()
            bench.settle()
    assert (tmp_path / "rec/x-000000000001.jsonl.gz").exists()
    bench.config = msgspec.structs.replace(bench.config, compression=compression)
    bench.restart(ordered=False)
    bench.settle()
    bench.settle()
    ending = {"none": "", "zstd": ".zst"}[compression]
    assert bench.files() == {
        f"x-000000000001.jsonl{ending}": [1, 2],
        "x-000000000003.jsonl": [3],
    }


def test_a_file_of_others_with_the_compressed_name_is_set_aside(tmp_path: Path) -> None:
    source = tmp_path / "x.jsonl"
    source.write_bytes(b"1\n")
    (tmp_path / "x.jsonl.gz").write_bytes(b"of others")
    (tmp_path / "x.jsonl.zst").write_bytes(b"of others")
    compress(source, "gzip", lambda: False)
    assert gzip.decompress((tmp_path / "x.jsonl.gz").read_bytes()) == b"1\n"
    (aside,) = tmp_path.glob("x.jsonl.gz.before-*")
    assert aside.read_bytes() == b"of others"
    assert (tmp_path / "x.jsonl.zst").read_bytes() == b"of others"


def _kill(*_: object, **__: object) -> None:
    raise KillError


def parts(*sizes: int, state: Any = "closed") -> list[Part]:
    return [
        Part(f"f{n}", "r", "r", n, n, 1, size, n * SECOND_NS, n * SECOND_NS, 0, state)
        for n, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (KeepConfig(files=2), 2),
        (KeepConfig(size=Size(25)), 2),
        (KeepConfig(age=Duration(8.5)), 2),
        (KeepConfig(age=Duration(7.5), files=3), 3),
        (KeepConfig(files=4), 0),
    ],
)
def test_the_oldest_go_first(keep: KeepConfig, gone: int) -> None:
    found = too_many(parts(10, 10, 10, 10), keep, 10 * SECOND_NS, waits_for_upload=False)
    assert [part.path for part in found] == [f"f{n}" for n in range(gone)]
    waiting = too_many(parts(10, 10, 10, 10), keep, 10 * SECOND_NS, waits_for_upload=True)
    assert not waiting


def test_only_closed_files_that_the_recorder_wrote_are_removed(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        "rec/{date}/{topic}.jsonl",
        rotate=RotateConfig(messages=1),
        keep=KeepConfig(files=1),
    )
    foreign = tmp_path / "rec/2025-11-28/a-000000000000.jsonl"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("1\n")
    for day in range(3):
        for _ in range(2):
            bench.publish("a")
        bench.run()
        bench.now_ns += 24 * HOUR_NS
        if day == 0:
            (tmp_path / "rec/2025-11-29/a-000000000002.jsonl").write_text("changed\n")
    bench.tick()
    names = [
        str(path.relative_to(tmp_path / "rec")) for path in (tmp_path / "rec").rglob("*.jsonl")
    ]
    assert sorted(name.replace("\\", "/") for name in names) == [
        "2025-11-28/a-000000000000.jsonl",
        "2025-11-29/a-000000000002.jsonl",
        "2025-12-01/a-000000000006.jsonl",
    ]
    assert not (tmp_path / "rec/2025-11-30").exists()
    assert bench.target.figures().files == 1


def test_a_file_that_a_reader_holds_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(
        tmp_path, "rec/x.jsonl", rotate=RotateConfig(messages=1), keep=KeepConfig(files=1)
    )
    for _ in range(3):
        bench.publish("a")
    with monkeypatch.context() as patch:  # as Windows does it
        patch.setattr(Path, "unlink", _held)
        bench.run()
    assert len(bench.files()) == 3
    bench.now_ns += 20 * SECOND_NS
    bench.tick()
    assert bench.files() == {"x-000000000003.jsonl": [3]}


def _held(*_: object, **__: object) -> None:
    raise PermissionError(13, "a reader has it open")


def test_files_that_wait_for_their_upload_stay(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        "rec/x.jsonl",
        rotate=RotateConfig(messages=1),
        keep=KeepConfig(files=1),
        upload=UploadConfig(),
    )
    for _ in range(3):
        bench.publish("a")
    bench.run()
    assert len(bench.files()) == 3
    for part in bench.parts.of_recorder(bench.context.key):
        bench.parts.change(Part(**{**_fields(part), "state": "uploaded"}))
    bench.now_ns += 120 * SECOND_NS
    bench.tick()
    assert bench.files() == {"x-000000000003.jsonl": [3]}


def _fields(part: Part) -> dict[str, Any]:
    return {name: getattr(part, name) for name in Part.__struct_fields__}


# --- kills ---------------------------------------------------------------------------------------


class Killer:
    """Kills at the n-th step that changes something on the disk; nothing is changed after that."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise KillError

    def around(self, function: Any) -> Any:
        def stepping(*args: Any, **named: Any) -> Any:
            self.step()
            found = function(*args, **named)
            self.step()
            return found

        return stepping

    def write_at(self, file: Any, offset: int, data: bytes) -> None:
        half = len(data) // 2
        for start, part in ((offset, data[:half]), (offset + half, data[half:])):
            self.step()
            file.seek(start)
            file.write(part)


PLACES = (
    (files, "replace_file"),
    (files, "sync_file"),
    (files, "rename"),
    (Recording, "_restore"),
    (ProgressStore, "save"),
    (ProgressStore, "remove"),
    (PartStore, "close"),
    (PartStore, "announce"),
    (PartStore, "remove"),
)


@contextlib.contextmanager
def killed_at(number: int) -> Iterator[None]:
    killer = Killer(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "write_at", killer.write_at)
        patch.setattr(spread, "_MANY_PATHS", 1)  # messages gather
        patch.setattr(spread, "_BACKLOG", 2)
        for owner, name in PLACES:
            patch.setattr(owner, name, killer.around(getattr(owner, name)))
        with contextlib.suppress(KillError):
            yield


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(
    max_examples=int(os.environ.get("KILLS", "15")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from(["rec/{topic}.json", "rec/{date}/{topic}.jsonl", "rec/{hour}.jsonl"]),
    rotate=st.sampled_from([None, RotateConfig(messages=3), RotateConfig(size=Size(1000))]),
    compression=st.sampled_from(["none", "gzip"]),
    topics=st.lists(st.sampled_from(["a", "b", "B", "c/d"]), min_size=1, max_size=30),
    kills=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    batch=st.integers(1, 12),
    step_s=st.sampled_from([0, 30, 1500]),
)
def test_each_message_is_in_one_file_once_whenever_the_process_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
    path: str,
    rotate: RotateConfig | None,
    compression: Any,
    topics: list[str],
    kills: list[int],
    batch: int,
    step_s: int,
) -> None:
    folder = tmp_path_factory.mktemp("kills")
    config = {"rotate": rotate, "compression": compression if rotate else "none"}
    bench = Bench(folder, path, format=path.rpartition(".")[2], **config)
    share = len(topics) // (len(kills) + 1) + 1
    for number, topic in enumerate(topics):
        bench.publish(topic, {"n": number, "text": "x" * 40})
        bench.now_ns += step_s * SECOND_NS
        if number % share == share - 1:
            with killed_at(kills.pop()):
                bench.run(batch)
            bench.restart(ordered=False)
    bench.run(batch)
    for _ in range(len(topics) + 2):
        bench.settle()
    found = bench.files()
    assert not [name for name in found if "before" in name or "excess" in name]
    of_topic: dict[str, list[int]] = {}
    names: dict[int, set[str]] = {}
    for name, rows in found.items():
        for row in rows:
            names.setdefault(row["n"], set()).add(name)
            of_topic.setdefault(topics[row["n"]], []).append(row["n"])
    assert sorted(names) == list(range(len(topics)))
    assert all(len(each) == 1 for each in names.values())
    assert sum(map(len, found.values())) == len(topics)
    for rows in found.values():
        assert [row["n"] for row in rows] == sorted(row["n"] for row in rows)
    bench.restart()
