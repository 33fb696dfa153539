"""Whatever becomes of ``tasks.db`` or ``recorders.db``: nothing starts or is recorded twice, and
nothing that the journal holds is left out.

A directory is made by an appliance that started tasks and recorded their messages. The journal then
gets further messages that no one has read. One of the databases is deleted, damaged or replaced by
an older copy, with its log or without; an appliance starts there, twice.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import random
import shutil
import time
from collections import Counter as Multiset
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from appliance_process import until
from marked_site import PROXY, QLIK_CONFIG, MarkedSite
from quick_appliance import LIMITS, WAITS

from appliance.config.reading import load
from appliance.engine import databases
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.journal.journal import Journal
from appliance.model import ExecutionState, Message
from appliance.qlik.simulated import SimulatedQlik
from appliance.tasks.engine import TaskEngine

TASKS = [f"5f8b1c2e-0d4a-4c55-9a1b-0000000000{number:02d}" for number in range(12)]
READ, COPIED = 8, 4
"""So many messages are read before the end, and so many before the older copy."""
CONFIG = (
    """
[service]
data_dir = "{data}"
[[listener]]
bind = "127.0.0.1:0"
"""
    + QLIK_CONFIG
    + """
[[trigger]]
topic = "plant/start"
task = "payload"
[[recorder]]
topic = "plant/#"
path = "{data}/recordings/all.json"
[[recorder]]
topic = "plant/#"
path = "{data}/recordings/all.csv"
format = "csv"
[[recorder]]
topic = "plant/start"
path = "{data}/recordings/all.jsonl"
format = "jsonl"
metadata = true
"""
)


class Made:
    """Directories of one appliance: after a kill, after a stop, and the databases before."""

    def __init__(self, folder: Path) -> None:
        self.site = MarkedSite(TASKS)
        self.killed, self.stopped = folder / "killed", folder / "stopped"
        self.older = folder / "older"
        data = folder / "made" / "data"
        with SimulatedQlik(site=self.site, proxies=[PROXY]) as qlik:
            for number in range(2):
                with running(data, qlik) as app:
                    first, last = (0, COPIED) if number == 0 else (COPIED, READ)
                    publish(app, first, last)
                    settle(app, TASKS[:last])
                    if number:
                        shutil.copytree(data, self.killed / "data")
                if not number:
                    shutil.copytree(data, self.older)
            shutil.copytree(data, self.stopped / "data")
        for base in (self.killed, self.stopped):
            write_unread(base / "data")


@contextlib.contextmanager
def running(data: Path, qlik: SimulatedQlik) -> Iterator[Appliance]:
    data.parent.mkdir(parents=True, exist_ok=True)
    path = data.parent / "config.toml"
    path.write_text(CONFIG.format(data=data.as_posix(), url=qlik.url))
    app = Appliance(load(path), task_limits=LIMITS)
    app.start()
    try:
        yield app
    finally:
        app.stop()
        assert app.wait(10)


def publish(app: Appliance, first: int, last: int) -> None:
    for task in TASKS[first:last]:
        View(app).publish("plant/start", task.encode(), 1, False, "test")


def settle(app: Appliance, tasks: list[str]) -> None:
    def succeeded() -> set[str]:
        found = app.tasks.executions(1000)
        return {one.task_id for one in found if one.state is ExecutionState.SUCCEEDED}

    until(lambda: set(tasks) <= succeeded(), "the tasks end well")
    until(lambda: all(not one.lag for one in app.recorders.states()), "all is recorded")


def write_unread(data: Path) -> None:
    """Add messages to the journal, for which no one was there."""
    journal = Journal(data / "journal.db", sync="os", keep_s=1e9, max_bytes=10**9)
    for tables in databases.JOURNAL_TABLES:
        journal.define(tables)
    journal.start(lambda _messages, _entries: None)
    for task in TASKS[READ:]:
        message = Message(
            journal.next_seq(), time.time_ns(), "plant/start", task.encode(), 1, client_id="plc"
        )
        journal.append(message, None)
    assert journal.flush(10)
    journal.close(10)


# --- what becomes of a database ----------------------------------------------------------------


def delete(path: Path, _made: Made) -> None:
    path.unlink()


def empty(path: Path, _made: Made) -> None:
    path.write_bytes(b"")


def truncate(path: Path, _made: Made) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def zero(path: Path, _made: Made) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def age(path: Path, made: Made) -> None:
    shutil.copy(made.older / path.name, path)


def overwrite(seed: int) -> Callable[[Path, Made], None]:
    def overwrite_pages(path: Path, _made: Made) -> None:
        rng = random.Random(seed)
        data = bytearray(path.read_bytes())
        for _ in range(2):
            page = rng.randrange(seed > 0, max(2, len(data) // 4096))
            data[page * 4096 : page * 4096 + 4096] = rng.randbytes(4096)
        path.write_bytes(data)

    return overwrite_pages


STATES = {
    "deleted": delete,
    "empty": empty,
    "truncated": truncate,
    "zeroed": zero,
    "older": age,
    **{f"pages {seed}": overwrite(seed) for seed in range(6)},
}
ENDINGS = ("stopped", "killed", "killed, no log")
CASES = [
    ({name: state}, ending)
    for name in ("tasks.db", "recorders.db")
    for state in STATES
    for ending in ENDINGS
]
CASES += [(dict.fromkeys(("tasks.db", "recorders.db"), "deleted"), one) for one in ENDINGS]


class Look:
    """One start after the other on a directory, and what is there afterwards."""

    def __init__(self, made: Made, folder: Path) -> None:
        self._made = made
        self._folder = folder
        self._looked: list[str] = []

    def at(self, states: dict[str, str], ending: str) -> None:
        """``states``: what becomes of each database; ``ending``: of the appliance before."""
        where = f"{states}, {ending}"
        base = self._made.stopped if ending == "stopped" else self._made.killed
        data = Path(shutil.copytree(base, self._folder / str(len(self._looked)))) / "data"
        self._looked.append(where)
        for name, state in states.items():
            if ending == "killed, no log":
                data.joinpath(f"{name}-wal").unlink()
                data.joinpath(f"{name}-shm").unlink(missing_ok=True)
            STATES[state](data / name, self._made)
        site = MarkedSite(TASKS)
        for run in self._made.site.begun:
            site.put_back(*run)
        with SimulatedQlik(site=site, proxies=[PROXY]) as qlik:
            for number in range(2):
                with running(data, qlik) as app:
                    settle(app, TASKS)
                    said = " ".join(View(app).acknowledge("test"))
                    if number:
                        assert not said, where
                    elif states.get("tasks.db") == "deleted":
                        assert "record of starts was lost" in said, where
        starts = Multiset(site.started)
        assert starts == Multiset(TASKS), where
        for path in ("all.json", "all.csv", "all.jsonl"):
            assert recorded(data / "recordings" / path) == TASKS, f"{path}, {where}"
        assert len(list((data / "recordings").iterdir())) == 3, where


def recorded(path: Path) -> list[str]:
    text = path.read_text("utf-8")
    if path.suffix == ".csv":
        return [row["payload"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    if path.suffix == ".jsonl":
        return [payload_of(json.loads(line)["payload"]) for line in text.splitlines()]
    return [payload_of(one) for one in json.loads(text)]


def payload_of(value: dict[str, str]) -> str:
    return value["$text"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in WAITS.items():
        monkeypatch.setitem(TaskEngine.__init__.__kwdefaults__, name, value)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_lost_or_damaged_side_database_repeats_and_loses_nothing(tmp_path: Path) -> None:
    """Both at once; the other cases are in the campaign."""
    look = Look(Made(tmp_path), tmp_path)
    look.at({"tasks.db": "deleted", "recorders.db": "pages 1"}, "killed")


@pytest.mark.campaign
def test_no_state_of_a_side_database_repeats_or_loses_anything(tmp_path: Path) -> None:
    look = Look(Made(tmp_path), tmp_path)
    for case in CASES:
        look.at(*case)
