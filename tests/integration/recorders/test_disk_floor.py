"""Below the floor of free disk recorders pause, publishers wait, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from appliance_process import ApplianceProcess, until
from paho.mqtt import client as paho
from recorders_rig import Plant

from appliance.config.tables import KeepConfig, RotateConfig
from appliance.counters import Counter
from appliance.ops import health
from appliance.recorders import worker
from appliance.recorders.free_space import Floors, FreeSpace
from appliance.storage import files
from appliance.recorders.recorders import Recorders

MB = 1_000_000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorders look again soon, although no message comes."""
    monkeypatch.setattr(worker, "SAVE_EVERY_S", 0.05)


def with_space(plant: Plant, free: dict[str, int]) -> Plant:
    """Let the free bytes of each folder be what the test says."""

    def measure(folder: Path) -> int:
        return free[folder.name]

    plant.recorders = Recorders(
        plant.configs,
        plant.folder / "recorders.db",
        clock_ns=lambda: 10**18,
        space=FreeSpace(lambda _: 100 * MB, measure),
    )
    return plant


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_recorder_pauses_and_goes_on_and_one_on_another_disk_does_not_notice(
    tmp_path: Path,
) -> None:
    free = {"a": 1000 * MB, "b": 1000 * MB}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plant = Plant(
        tmp_path,
        ("#", "a/{topic}.jsonl", {"format": "jsonl"}),
        ("#", "b/all.jsonl", {"format": "jsonl"}),
    )
    with with_space(plant, free):
        plant.publish(1)
        plant.settle()
        free["a"] = 99 * MB
        plant.until(lambda states: states[0].health.level == "bad")
        assert plant.recorders.are_paused
        plant.publish(2, 3)
        assert plant.journal.flush(30)
        plant.until(lambda states: states[1].recorded == 3)
        state = plant.recorders.states()[0]
        assert "limits.min_free_disk" in state.health.text
        assert lines(tmp_path / "a/t.jsonl") == [1]
        assert plant.follower.advanced < 2  # the journal keeps the rest
        free["a"] = 105 * MB  # not enough to go on
        plant.publish(4)
        plant.until(lambda states: states[1].recorded == 4)
        assert lines(tmp_path / "a/t.jsonl") == [1]
        free["a"] = 111 * MB
        plant.settle()
        assert lines(tmp_path / "a/t.jsonl") == [1, 2, 3, 4]
        plant.until(lambda states: states[0].health.level == "ok")
        assert not plant.recorders.are_paused
        assert plant.recorders.counters()[Counter.DISK_RECORDERS_PAUSED] == 1


def test_a_recorder_that_pauses_still_removes_what_is_too_old(tmp_path: Path) -> None:
    free = {"a": 1000 * MB}
    (tmp_path / "a").mkdir()
    one = {"format": "jsonl", "rotate": RotateConfig(messages=1), "keep": KeepConfig(age=3600)}
    plant = Plant(tmp_path, ("#", "a/x.jsonl", one))
    now_ns = [10**18]
    with_space(plant, free)
    plant.recorders = Recorders(
        plant.configs,
        tmp_path / "recorders.db",
        clock_ns=lambda: now_ns[0],
        space=FreeSpace(lambda _: 100 * MB, lambda folder: free[folder.name]),
    )
    with plant:
        plant.publish(1, 2, ahead_ns=10**18)
        plant.settle()
        until(lambda: len(list((tmp_path / "a").iterdir())) == 2, "two files")
        free["a"] = 1
        plant.until(lambda states: states[0].health.level == "bad")
        now_ns[0] += 2 * 3600 * 10**9
        until(lambda: not list((tmp_path / "a").iterdir()), "old files are removed")


# --- a real small disk ---------------------------------------------------------------------------

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[limits]
min_free_disk = "40MB"
[[recorder]]
topic = "t/#"
path = "recordings/{topic}.jsonl"
format = "jsonl"
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder], check=False
    ).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def leave_free(disk: Path, size: int) -> None:
    """Fill the disk up to so many free bytes."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    found = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - size)


class Publisher:
    """Publishes numbers at QoS 1, and knows which are acknowledged."""

    def __init__(self, port: int) -> None:
        self.acked = 0
        self.sent = 0
        self._changed = threading.Condition()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "p", protocol=paho.MQTTv5)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_publish(self, *_: object) -> None:
        with self._changed:
            self.acked += 1
            self._changed.notify_all()

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            body = {"n": self.sent, "text": "x" * 1000}
            self._client.publish(f"t/{self.sent % 3}", json.dumps(body), 1)

    def wait(self, timeout_s: float = 60) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.acked == self.sent, timeout_s)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.campaign
@pytest.mark.posix("a small file system is mounted")
def test_on_a_small_disk_all_give_way_in_order_and_nothing_acknowledged_is_lost(
    small_disk: Path,
) -> None:
    with ApplianceProcess(small_disk, CONFIG).start() as appliance:
        publisher = Publisher(appliance.port)
        publisher.publish(500)
        assert publisher.wait()
        leave_free(small_disk, 30 * MB)
        appliance.wait_for_line("is not recorded now: paused")
        publisher.publish(500)
        assert publisher.wait()  # the journal takes them
        assert part(appliance, "disk", "warn")
        assert recorded(small_disk) < 1000
        leave_free(small_disk, 15 * MB)
        appliance.wait_for_line("publishers that send much are slowed too")
        publisher.publish(20)
        assert publisher.wait()
        leave_free(small_disk, 8 * MB)
        appliance.wait_for_line("publishers wait")
        assert part(appliance, "disk", "bad")
        publisher.publish(5000)
        assert not publisher.wait(2)
        assert publisher.sent - publisher.acked > 4000
        (small_disk / "filler").unlink()
        appliance.wait_for_line("all is as before")
        assert publisher.wait()
        until(lambda: recorded(small_disk) == publisher.sent, "all are recorded")
        until(lambda: "min_free_disk" not in told(appliance), "all is well again")
        publisher.stop()
        assert appliance.end() == 0
    found = sorted(
        json.loads(line)["n"]
        for path in (small_disk / "data/recordings").glob("*.jsonl")
        for line in path.read_text("utf-8").splitlines()
    )
    assert found == list(range(1, publisher.sent + 1))


def part(appliance: ApplianceProcess, name: str, level: str) -> bool:
    """Wait until the health report says so."""

    def says() -> bool:
        found = health.read(appliance.data)
        return found is not None and any(
            (one.name, one.level) == (name, level) for one in found.parts
        )

    return bool(until(says, f"{name} is {level}"))


def told(appliance: ApplianceProcess) -> str:
    """What the health report says of the disk."""
    found = health.read(appliance.data)
    assert found is not None
    return next(one.text for one in found.parts if one.name == "disk")


def recorded(disk: Path) -> int:
    return sum(
        path.read_bytes().count(b"\n") for path in (disk / "data/recordings").glob("*.jsonl")
    )


def test_a_small_disk_has_a_small_floor(tmp_path, monkeypatch) -> None:
    """By default: 200 MB, and a twentieth of a disk of less than 4 GB; a configured floor counts
    as it is. A folder that is still to be made has the floor of the disk that it will be on."""
    monkeypatch.setattr(files, "disk_bytes", lambda _: 40 * MB)
    assert Floors(lambda: None).of(tmp_path / "later" / "still") == 2 * MB
    monkeypatch.setattr(files, "disk_bytes", lambda _: 1_000_000 * MB)
    assert Floors(lambda: None).of(tmp_path) == 200 * MB
    assert Floors(lambda: 7).of(tmp_path) == 7
