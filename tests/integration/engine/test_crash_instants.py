"""Promises about a crash at any instant: a kill, and a power cut that takes any unsynced sector.

A process runs while every write, sync and rename of its data directory is noted (disk_model.py).
For many instants the disk as it may be after a crash is made, and an appliance is started there.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from appliance_process import ApplianceProcess, until
from disk_model import Disk, Operation, Tracer

from appliance.config.reading import load
from appliance.engine.service import Appliance

pytestmark = pytest.mark.posix("the library that sees writes is preloaded on Linux")

BASE = """
[service]
data_dir = "{data}"
[[listener]]
bind = "127.0.0.1:PORT"
[[recorder]]
topic = "plant/#"
path = "{data}/recordings/all.json"
[[recorder]]
topic = "plant/a"
path = "{data}/recordings/a.jsonl"
format = "jsonl"
metadata = true
"""
LATER = """
[[recorder]]
topic = "plant/#"
path = "{data}/recordings/later.csv"
format = "csv"
"""
SET_ASIDE = ("corrupt", "orphaned", "before", "excess")


class Load:
    """Traced lives of an appliance, and a client whose acknowledgements are marks of the trace."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "life" / "data"
        self._tracer = Tracer(self.data, folder)
        self._process = ApplianceProcess(self.data.parent, BASE.format(data=self.data))
        self._rng = random.Random(1)
        self._sent = 0

    @contextmanager
    def life(self) -> Iterator[None]:
        """A life, from the start to a kill."""
        before = dict(os.environ)
        os.environ.update(self._tracer.environment)
        try:
            self._process.begin()
        finally:
            os.environ.clear()
            os.environ.update(before)
        with self._process:
            self._process.wait_for_line("listening on")
            yield

    def publish(self, batches: int) -> None:
        """Send messages of several sizes, some batches at once, and note each acknowledgement."""
        with socket.create_connection(("127.0.0.1", self._process.port)) as client:
            client.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c")
            assert client.recv(4) == b"\x20\x02\x00\x00"
            for _ in range(batches):
                size = self._rng.randrange(1, 12)
                client.sendall(b"".join(self._packet() for _ in range(size)))
                for number in range(self._sent - size, self._sent):
                    assert len(client.recv(4, socket.MSG_WAITALL)) == 4
                    self._tracer.mark(f"acknowledged {number}")
                time.sleep(self._rng.choice([0.0, 0.0, 0.08]))

    def _packet(self) -> bytes:
        topic = self._rng.choice([b"plant/a", b"plant/b"])
        payload = json.dumps({"n": self._sent, "pad": "x" * self._rng.randrange(900)}).encode()
        self._sent += 1
        body = b"\0\x07" + topic + self._sent.to_bytes(2, "big") + payload
        length = bytes([len(body) % 128 | 128, len(body) // 128])
        return b"\x32" + length + body

    def add_recorder(self) -> None:
        """Add a recorder while the appliance runs."""
        text = self._process.config.read_text() + LATER.format(data=self.data)
        self._process.config.write_text(text)
        self._process.send(signal.SIGHUP)
        self._process.wait_for_line("reload: ")
        until((self.data / "recordings" / "later.csv").exists, "the recording is begun")
        self._tracer.mark("added")

    def operations(self) -> list[Operation]:
        return self._tracer.operations()


class Instants:
    """Starts an appliance on what a crash left, and looks at what it makes of it."""

    def __init__(self, folder: Path, load: Load) -> None:
        self._folder, self._data = folder, load.data
        self._disk = Disk(load.data)
        self._operations = load.operations()

    def look_at(self, count: int) -> int:
        """Look at instants that are spread evenly, at each after a kill or a power cut."""
        total = len(self._operations)
        wanted = {total * each // count for each in range(1, count + 1)}
        looked = 0
        for number, operation in enumerate(self._operations, 1):
            self._disk.do(operation)
            if number in wanted:
                self._look(number, is_kill=looked % 4 == 0)
                looked += 1
        return looked

    def _look(self, number: int, *, is_kill: bool) -> None:
        target = self._folder / f"at-{number}"
        data = target / "data"
        if is_kill:
            self._disk.after_kill(data)
        else:
            self._disk.after_power_cut(data, random.Random(number))
        marks = self._disk.marks
        text = BASE + (LATER if "added" in marks else "")
        config = target / "config.toml"
        config.write_text(text.format(data=data).replace("PORT", "0"))
        where = f"instant {number}, after a {'kill' if is_kill else 'power cut'}: {target}"
        app = Appliance(load(config))
        app.start()
        try:
            kept = [
                json.loads(message.payload)["n"]
                for chunk in app.journal.back_from(1 << 60)
                for message in chunk
                if message.topic.startswith("plant/")
            ][::-1]
            topic_a = [
                json.loads(message.payload)["n"]
                for chunk in app.journal.back_from(1 << 60)
                for message in chunk
                if message.topic == "plant/a"
            ][::-1]
        finally:
            app.stop()
            assert app.wait(10), where
        acknowledged = [int(mark.split()[1]) for mark in marks if mark != "added"]
        assert kept == sorted(set(kept)), where
        assert set(acknowledged) <= set(kept), where
        assert recorded(data, "all.json") == kept, where
        assert recorded(data, "a.jsonl") == topic_a, where
        if "added" in marks:
            later = recorded(data, "later.csv")
            asked = marks.index("added")
            since = [int(mark.split()[1]) for mark in marks[asked + 1 :]]
            assert later == kept[len(kept) - len(later) :], where
            assert set(since) <= set(later), where
        aside = [
            path.name
            for path in target.rglob("*")
            if any(f".{label}-" in path.name for label in SET_ASIDE)
        ]
        assert not aside, where


def recorded(data: Path, name: str) -> list[int]:
    """The numbers of the messages in a recording."""
    path = data / "recordings" / name
    text = path.read_bytes().decode() if path.exists() else ""
    if name.endswith(".jsonl"):
        return [json.loads(line)["payload"]["n"] for line in text.splitlines()]
    if name.endswith(".csv"):
        return [int(row["n"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
    return [each["n"] for each in json.loads(text)] if text else []


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.campaign
def test_a_crash_of_a_first_life_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """20 instants: the directory is created, messages come, a recorder is added."""
    load = Load(tmp_path)
    with load.life():
        load.publish(6)
        load.add_recorder()
        load.publish(6)
    assert Instants(tmp_path, load).look_at(20) == 20


@pytest.mark.campaign
def test_a_crash_of_any_of_three_lives_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """220 instants of three lives."""
    load = Load(tmp_path)
    with load.life():
        load.publish(20)
    with load.life():
        load.publish(10)
        load.add_recorder()
        load.publish(20)
    with load.life():
        load.publish(20)
    assert Instants(tmp_path, load).look_at(220) == 220


@pytest.mark.campaign
def test_a_crash_at_each_write_of_the_very_first_start_leaves_a_directory_that_opens(
    tmp_path: Path,
) -> None:
    load = Load(tmp_path)
    with load.life():
        pass
    count = len(load.operations())
    assert Instants(tmp_path, load).look_at(count) == count
