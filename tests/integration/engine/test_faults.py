"""A disk that refuses, under the appliance as its user runs it: what stops, who hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from appliance_process import ApplianceProcess, until
from broker_rig import Wire, hang_up

pytestmark = pytest.mark.campaign  # disks that refuse, processes of their own

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[limits]
max_pending = 65536
[metrics]
bind = "127.0.0.1:0"
"""
Fault = Callable[[Path], contextlib.AbstractContextManager[None]]


@pytest.fixture(autouse=True)
async def no_connection_is_left() -> AsyncIterator[None]:
    """A connection belongs to its test's loop."""
    yield
    await hang_up()


def as_root(*command: str | Path) -> None:
    """Run a command of Linux that only root may run; skip the test where that can't be."""
    program = shutil.which(str(command[0]))
    if sys.platform != "linux" or program is None or os.geteuid() != 0:
        pytest.skip(f"only root on Linux may run {command[0]}")
    done = subprocess.run([program, *command[1:]], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]} does not work here: {done.stderr.decode().strip()}")


@contextlib.contextmanager
def read_only(data: Path) -> Iterator[None]:
    """The journal's files refuse every write, through descriptors that are open too.

    Not the memory that SQLite shares through a file: on a file system that turns read-only, its
    pages stay as they are.
    """
    files = (data / "journal.db", data / "journal.db-wal")
    try:
        as_root("chattr", "+i", *files)
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], capture_output=True, check=False)


@contextlib.contextmanager
def aborted(data: Path) -> Iterator[None]:
    """The file system turns itself read-only, as after an error of its disk; for good."""
    as_root("mount", "-o", "remount,abort", data)
    yield


@contextlib.contextmanager
def full(data: Path) -> Iterator[None]:
    """There is no room on the disk."""
    ballast = data / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Another program holds the journal locked."""
    with contextlib.closing(sqlite3.connect(data / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def disk_for(fault: Fault, folder: Path) -> Iterator[None]:
    """A file system of its own, where the fault needs one."""
    folder.mkdir()
    if fault is full:
        as_root("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder)
    elif fault is aborted:
        image = folder.with_name("image")
        with image.open("wb") as file:
            file.truncate(40_000_000)
        as_root("mkfs.ext4", "-q", image)
        as_root("mount", "-o", "loop", image, folder)
    else:
        yield
        return
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def status(wire: Wire, level: str) -> dict:
    """The next status with this health of the journal."""
    while True:
        message = await wire.message()
        if message.qos:
            wire.ack(4, message.id)
        found = json.loads(message.payload)
        if (found["journal"]["health"] == "bad") == (level == "bad"):
            return found


@pytest.mark.parametrize("fault", [read_only, aborted, full, locked])
async def test_a_disk_that_refuses_stops_acknowledgements_and_is_loud(tmp_path, fault) -> None:
    """While the journal can't be written nothing is acknowledged and publishers are slowed; the
    status topic, health and log say so and why, to those who subscribe then, too. Once it can be
    written, all of it is acknowledged and delivered, unasked."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(disk_for(fault, tmp_path / "data"))
        process = stack.enter_context(ApplianceProcess(tmp_path, CONFIG)).start()
        address = re.search(r"http://[\d.:]+", process.wait_for_line("monitoring on"))[0]
        watcher, writer = await Wire.open(process.port), await Wire.open(process.port, 5)
        await watcher.connect("watcher")
        await watcher.subscribe(("appliance/status", 1))
        assert (await status(watcher, "ok"))["status"] == "online"
        await writer.connect("writer")
        await writer.publish_acked("t", b"before", 1)
        with fault(process.data):
            for number in range(1, 11):
                writer.publish("t", b"x" * 50_000, 1, id=number)
            told = await status(watcher, "bad")
            assert told["journal"]["reason"]
            assert process.wait_for_line("can't be written")
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

            def healthz() -> dict:
                try:
                    with opener.open(f"{address}/healthz", timeout=10) as answer:
                        return json.load(answer)
                except urllib.error.HTTPError as error:
                    assert error.code == 503
                    return json.load(error)

            found = await asyncio.to_thread(
                until, lambda: (now := healthz())["status"] == "bad" and now, "health is bad"
            )
            assert ("journal", "bad") in {(part["name"], part["level"]) for part in found["parts"]}
            late = await Wire.open(process.port)
            await late.connect("late")
            await late.subscribe(("appliance/status", 0))
            assert (await status(late, "bad"))["journal"]["reason"]
            with opener.open(f"{address}/metrics", timeout=10) as answer:
                assert b'event="publishers slowed: journal behind"' in answer.read()
            assert not writer.reader._buffer  # no acknowledgement has come
        if fault is aborted:
            process.kill()
            return
        for number in range(1, 11):
            assert (await writer.expect(4)).id == number
        counters = (await status(watcher, "ok"))["counters"]
        assert counters["publishers slowed: journal behind"] >= 1
        assert counters["journal commit retries"] >= 1
        await status(late, "ok")
        assert process.end() == 0
        with contextlib.closing(sqlite3.connect(process.data / "journal.db")) as journal:
            assert journal.execute("SELECT max(last_seq) FROM chunk").fetchone()[0] >= 11
