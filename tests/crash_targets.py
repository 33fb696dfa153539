"""Recorders of every kind, one process that feeds them, and what they must hold after a crash.

As a program, ``python crash_targets.py FOLDER SEED MESSAGES`` opens a journal and the recorders in
the folder, publishes so many messages and waits to be killed. It notes each commit in the trace of
``disk_model.py``, if there is one, and prints a line for it.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.config.tables import DatabaseConfig, RecorderConfig, RotateConfig
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders.progress import highest_cursor
from appliance.recorders.recorders import Recorders

TOPICS = ("plant/1/a", "plant/1/b", "plant/2/a")


class Target:
    """A recorder, and how its content is read back.

    ``read`` returns the numbers of the messages in order, or for ``latest`` the last one of each
    topic.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[Path], Any],
        *,
        topic: str = "plant/#",
        is_latest: bool = False,
        **keys: Any,
    ) -> None:
        self.name = name
        self.read = read
        self.topic = topic
        self.is_latest = is_latest
        self._keys = keys

    def config(self, folder: Path) -> RecorderConfig:
        if "database" in self._keys:
            url = f"sqlite:///{folder / 'tables.sqlite'}"
            database = DatabaseConfig(url=url, table=self._keys["database"])
            keys = {**self._keys, "database": database, "name": self.name}
            return RecorderConfig(topic=self.topic, **keys)
        path = str(folder / "rec" / self.name)
        return RecorderConfig(**{"topic": self.topic, "path": path, **self._keys})


def _series(folder: Path, pattern: str) -> list[Path]:
    return sorted((folder / "rec").glob(pattern))


def read_parquet(path: Path) -> list[int]:
    import pyarrow.parquet as pq

    return pq.read_table(path).column("n").to_pylist()


def read_qvd(path: Path) -> list[int]:
    import openqvd

    return openqvd.read(str(path)).to_pydict()["n"]


def read_lines(path: Path) -> list[int]:
    lines = path.read_bytes().decode().splitlines() if path.exists() else []
    return [json.loads(line)["n"] for line in lines]


def _parts(pattern: str, read: Callable[[Path], list[int]]) -> Callable[[Path], list[int]]:
    return lambda folder: [n for path in _series(folder, pattern) for n in read(path)]


def _json(folder: Path) -> list[int]:
    path = folder / "rec" / "all.json"
    return [each["n"] for each in json.loads(path.read_text("utf-8"))] if path.exists() else []


def _csv(folder: Path) -> list[int]:
    path = folder / "rec" / "all.csv"
    text = path.read_bytes().decode() if path.exists() else ""
    return [
        int(row["n"] or json.loads(row["payload"])["n"])
        for row in csv.DictReader(io.StringIO(text, newline=""))
    ]


def _spread(folder_name: str) -> Callable[[Path], list[int]]:
    """Files for each topic: those of each are in order, and all of them have each number once."""

    def read(folder: Path) -> list[int]:
        of_file: dict[str, list[int]] = {}
        for path in sorted((folder / "rec" / folder_name).rglob("*")):
            if path.suffix == ".parquet":
                of_file[path.name] = read_parquet(path)
            elif path.is_file() and not path.with_name(f"{path.name}.gz").exists():
                data = path.read_bytes()
                text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
                rows = (
                    json.loads(text)
                    if ".json" in path.suffixes
                    else map(json.loads, text.splitlines())
                )
                of_file[path.name] = [row["n"] for row in rows]
        assert all(each == sorted(each) for each in of_file.values())
        return sorted(n for each in of_file.values() for n in each)

    return read


def _latest(name: str) -> Callable[[Path], dict[str, int]]:
    def read(folder: Path) -> dict[str, int]:
        path = folder / "rec" / name
        found = json.loads(path.read_text("utf-8")) if path.exists() else []
        return {each["topic"]: each["n"] for each in found}

    return read


def _packed(folder: Path) -> list[int]:
    """Files that are compressed or wait for it: never one message in both."""
    found: list[int] = []
    for path in _series(folder, "packed-*"):
        if path.suffix == ".gz":
            text = gzip.decompress(path.read_bytes()).decode()
            found += [json.loads(line)["n"] for line in text.splitlines()]
        elif not path.with_name(f"{path.name}.gz").exists():
            found += read_lines(path)
    return found


def _by_topic(folder: Path) -> list[int]:
    files = [read_lines(path) for path in _series(folder, "by/*.jsonl")]
    assert all(numbers == sorted(set(numbers)) for numbers in files)
    return sorted(n for numbers in files for n in numbers)


def _by_line(folder: Path) -> list[int]:
    lines = [
        [n for path in _series(folder, f"{line}/p-*.parquet") for n in read_parquet(path)]
        for line in (1, 2)
    ]
    assert all(numbers == sorted(set(numbers)) for numbers in lines)
    return sorted(n for numbers in lines for n in numbers)


def _rows(folder: Path, sql: str) -> list[Any]:
    path = folder / "tables.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.OperationalError:  # no message came before the crash
            return []


TARGETS = [
    Target("all.json", _json, format="json"),
    Target("all.jsonl", lambda f: read_lines(f / "rec" / "all.jsonl"), format="jsonl"),
    Target("all.csv", _csv, format="csv"),
    Target(
        "a.parquet",
        _parts("a-*.parquet", read_parquet),
        format="parquet",
        rotate=RotateConfig(messages=20),
    ),
    Target("b.qvd", _parts("b-*.qvd", read_qvd), format="qvd", rotate=RotateConfig(messages=25)),
    Target(
        "series.jsonl",
        _parts("series-*.jsonl", read_lines),
        format="jsonl",
        rotate=RotateConfig(messages=20),
    ),
    Target(
        "packed.jsonl",
        _packed,
        format="jsonl",
        rotate=RotateConfig(messages=30),
        compression="gzip",
    ),
    Target("by/{topic}.jsonl", _by_topic, format="jsonl"),
    Target(
        "{line}/p.parquet",
        _by_line,
        topic="plant/{line}/{sensor}",
        format="parquet",
        rotate=RotateConfig(messages=15),
    ),
    Target(
        "table",
        lambda f: [n for (n,) in _rows(f, "SELECT n FROM messages ORDER BY seq, item")],
        database="messages",
    ),
    Target(
        "lasttable",
        lambda f: dict(_rows(f, "SELECT topic, n FROM lasts")),
        is_latest=True,
        database="lasts",
        mode="latest",
    ),
    Target("s/{topic}.json", _spread("s"), format="json"),
    Target(
        "t/{date}/x.jsonl",
        _spread("t"),
        format="jsonl",
        rotate=RotateConfig(messages=15),
        compression="gzip",
    ),
    Target("last.json", _latest("last.json"), is_latest=True, format="json", mode="latest"),
    Target("state.json", _latest("state.json"), is_latest=True, format="json", mode="update"),
]


class Site:
    """A journal and the recorders in a folder."""

    def __init__(
        self,
        folder: Path,
        targets: list[Target],
        committed: Callable[..., None] = lambda *_: None,
    ) -> None:
        self.folder = folder
        self.targets = targets
        self.journal = Journal(
            folder / "journal.db", sync="always", keep_s=1e7, max_bytes=10**9, housekeeping_s=60
        )
        self.journal.start(committed, minimum_seq=highest_cursor(folder / "recorders.db"))
        self.recorders = Recorders(
            [target.config(folder) for target in targets],
            folder / "recorders.db",
            installation=lambda: "abcdefghij2345678923",
        )
        self.recorders.open(self.journal.last_seq, self.journal)
        self.recorders.start(self.journal.follower)

    def publish(self, number: int, rng: random.Random) -> None:
        topic = rng.choice(TOPICS)
        value = {"n": number, "topic": topic, "pad": "x" * rng.randrange(600)}
        if number % 7 == 0:
            value[f"k{number % 3}"] = number  # a column that comes later
        payload = json.dumps(value).encode()
        self.journal.append(
            Message(self.journal.next_seq(), time.time_ns(), topic, payload), number
        )

    def settle(self) -> None:
        """Wait until everything is recorded, but not for ever."""
        self.journal.flush(30)
        pause = threading.Event()
        for _ in range(200):
            states = self.recorders.states()
            if all(not one.lag and one.health.level == "ok" for one in states):
                return
            pause.wait(0.05)

    def close(self) -> bool:
        self.journal.flush(30)
        is_complete = self.recorders.stop(60)
        self.journal.close(30)
        return is_complete


def look_at(folder: Path, targets: list[Target], acknowledged: set[int]) -> None:
    """Start on what a crash left, record everything, and compare each recorder with the journal."""
    for path in (folder / "rec").rglob("*.parquet"):
        read_parquet(path)  # a name that a reader's wildcard finds is that of a whole file
    for path in (folder / "rec").rglob("*.qvd"):
        read_qvd(path)
    site = Site(folder, targets)
    kept = [(m.topic, json.loads(m.payload)["n"]) for m in site.journal.read(0, 10**9, 10**12)]
    assert site.close()
    numbers = [n for _, n in kept]
    assert numbers == sorted(set(numbers))
    assert acknowledged <= set(numbers)
    for target in targets:
        expected: Any = dict(kept) if target.is_latest else numbers
        assert target.read(folder) == expected, target.name
    left = [
        path.name
        for path in folder.rglob("*")
        if path.suffix == ".part"
        or any(f".{label}-" in path.name for label in ("corrupt", "orphaned", "before", "excess"))
    ]
    assert not left


def _main(folder: Path, seed: int, messages: int) -> None:
    room = threading.Semaphore(15)
    trace = os.environ.get("DISK_TRACE")

    def committed(_messages: Any, entries: Any) -> None:
        marks = "".join(f"m {0:8d} {len(str(n)):12d} {0:16d}\n{n}" for _, n in entries)
        if trace:
            with open(trace, "ab", buffering=0) as file:
                file.write(marks.encode())
        os.write(1, b"." * len(entries) + b"\n")
        for _ in entries:
            room.release()

    site = Site(folder, TARGETS, committed)
    rng = random.Random(seed)
    numbers = [json.loads(m.payload)["n"] for m in site.journal.read(0, 10**9, 10**12)]
    first = max(numbers, default=0) + 1
    site.settle()  # a database's thread loads its package first
    os.write(1, b"ready\n")
    for number in range(first, first + messages):
        room.acquire()
        site.publish(number, rng)
        if rng.random() < 0.1:
            time.sleep(0.06)
        if number % 20 == 0:
            site.settle()
    site.settle()
    time.sleep(1.2)
    os.write(1, b"end\n")
    time.sleep(600)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
