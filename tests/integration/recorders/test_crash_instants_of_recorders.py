"""Every kind of recorder after a crash at any instant: a kill, or a power cut that takes any sector.

A process records while every write, sync and rename of its folder is noted (disk_model.py). For many
instants the disk as it may be after a crash is made, and the recorders go on there.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import crash_targets
import pytest
from disk_model import Disk, Tracer

pytest.importorskip("pyarrow.parquet")
pytest.importorskip("openqvd")
pytestmark = [
    pytest.mark.campaign,
    pytest.mark.posix("the library that sees writes is preloaded on Linux"),
]
INSTANTS = int(os.environ.get("CRASH_INSTANTS", "12"))
"""More of them find more; a thousand take ten minutes."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def live(folder: Path, tracer: Tracer, seed: int, messages: int) -> None:
    """One life of the recorders, from the start to a kill behind the last message."""
    process = subprocess.Popen(
        [sys.executable, crash_targets.__file__, str(folder), str(seed), str(messages)],
        stdout=subprocess.PIPE,
        env={**os.environ, **tracer.environment},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == b"end\n":
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_crash_at_any_instant_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Three lives; a quarter of the crashes are kills, the others power cuts."""
    data = tmp_path / "life" / "data"
    data.mkdir(parents=True)
    tracer = Tracer(data, tmp_path)
    for seed in range(3):
        live(data, tracer, seed, 60)
    operations = tracer.operations()
    wanted = {len(operations) * each // INSTANTS for each in range(1, INSTANTS + 1)}
    disk = Disk(data)
    kills = cuts = 0
    for number, operation in enumerate(operations, 1):
        disk.do(operation)
        if number not in wanted:
            continue
        target = tmp_path / f"at-{number}" / "data"
        is_kill = (kills + cuts) % 4 == 0
        if is_kill:
            disk.after_kill(target)
        else:
            disk.after_power_cut(target, random.Random(number))
        kills, cuts = kills + is_kill, cuts + (not is_kill)
        try:
            crash_targets.look_at(target, crash_targets.TARGETS, {int(mark) for mark in disk.marks})
        except BaseException as error:
            error.add_note(f"instant {number}, {'kill' if is_kill else 'power cut'}: {target}")
            raise
    print(f"{kills} kills and {cuts} power cuts, {len(crash_targets.TARGETS)} recorders each")
    assert kills + cuts == len(wanted)
