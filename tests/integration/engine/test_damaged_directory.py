"""Whatever becomes of a file of the data directory: a start says what is missing and goes on.

A directory is made by an appliance that was killed, or stopped in order. One of its files is
deleted, cut, overwritten or replaced by an older copy, and an appliance starts there, twice. What
is left of a message, byte for byte, must be in the journal; a message that is missing must be
named; a new one must be recorded once, and no task started again.
"""

import json
import logging
import random
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from appliance_process import free_port, until
from journal_rig import JournalRig
from marked_site import PROXY, QLIK_CONFIG, MarkedSite
from quick_appliance import LIMITS

from appliance.config.reading import load
from appliance.engine import databases
from appliance.engine.losses import FILE_NAME
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.qlik.simulated import SimulatedQlik
from appliance.recorders.progress import highest_cursor

TASKS = [f"5f8b1c2e-0d4a-4c55-9a1b-0000000000{number:02d}" for number in range(8)]
CONFIG = (
    """
[service]
data_dir = "{data}"
[[listener]]
bind = "127.0.0.1:{port}"
"""
    + QLIK_CONFIG
    + """
[[trigger]]
topic = "plant/start"
task = "payload"
[[recorder]]
topic = "plant/#"
path = "{data}/all.jsonl"
format = "jsonl"
metadata = true
"""
)
FILES = (
    "journal.db", "journal.db-wal", "journal.db-shm", "journal.db.high", "tasks.db", "tasks.db-wal",
    "recorders.db", "recorders.db-wal", "all.jsonl", FILE_NAME, "health.json", "appliance.lock",
)  # fmt: skip
STATES = ("deleted", "empty", "half", "zeros", "page", "foreign", "older")
SAMPLE = [
    ("killed", "journal.db", "deleted"), ("killed", "journal.db-wal", "page"),
    ("stopped", "journal.db", "page"),
]  # fmt: skip


def mark(task):
    """Bytes that only the message has that starts the task."""
    return f"mark-{int(task[-2:]) + 4711}-of-it"


class Directories:
    """What an appliance left: killed, stopped, and older copies of both."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.site = MarkedSite(TASKS)
        self.qlik = SimulatedQlik(site=self.site, proxies=[PROXY])

    def make(self):
        with self.life() as one:
            self.leave_session(one)
            self.publish(one, TASKS[:4])
            shutil.copytree(self.data, self.folder / "older")
        with self.life() as one:
            self.publish(one, TASKS[4:])
            self.messages = {
                message.seq: json.loads(message.payload)["mark"].encode()
                for chunk in one.journal.back_from(2**62)
                for message in chunk
                if message.topic == "plant/start"
            }
            shutil.copytree(self.data, self.folder / "killed")
        shutil.copytree(self.data, self.folder / "stopped")
        another = JournalRig(self.folder / "foreign" / "journal.db")
        for tables in databases.JOURNAL_TABLES:
            another.journal.define(tables)
        another.start()
        for _ in range(5):
            another.put(1, b"another's")
            another.settle()
        shutil.copytree(self.folder / "foreign", self.folder / "another")
        another.journal.close(5)

    @contextmanager
    def life(self):
        path = self.folder / "config.toml"
        port = free_port()
        path.write_text(
            CONFIG.format(data=self.data.as_posix(), url=self.qlik.url, port=port), "utf-8"
        )
        one = Appliance(load(path), task_limits=LIMITS)
        one.start()
        try:
            yield one
        finally:
            one.stop()
            assert one.wait(20)

    def publish(self, one, tasks):
        for task in tasks:
            payload = json.dumps({"taskId": task, "mark": mark(task)}).encode()
            View(one).publish("plant/start", payload, 1, False, "test")
        View(one).publish("plant/kept", b"kept", 1, True, "test")
        until(lambda: set(tasks) <= set(self.site.started), "the tasks are started")
        until(lambda: not any(each.lag for each in one.recorders.states()), "all is recorded")

    def leave_session(self, one):
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, "absent", clean_session=False)
        client.connect("127.0.0.1", int(one.config.listener[0].bind.rpartition(":")[2]))
        granted = []
        client.on_subscribe = lambda *_: granted.append(True)
        client.subscribe("plant/#", 1)
        client.loop_start()
        until(lambda: granted, "it has subscribed")
        client.disconnect()
        client.loop_stop()

    def spoil(self, ended, name, state, seed):
        """Put the directory as it was left, but for one file."""
        shutil.rmtree(self.data)
        shutil.copytree(self.folder / ended, self.data)
        path, older = self.data / name, self.folder / "older" / name
        content = path.read_bytes() if path.exists() else b""
        if state == "older" and older.exists():
            shutil.copy(older, path)
        elif state in {"deleted", "older"}:
            path.unlink(missing_ok=True)
        elif state == "page":
            at = random.Random(seed).randrange(max(1, len(content) - 4096))
            at = at // 4096 * 4096 if name.endswith(".db") else at
            damage = random.Random(seed).randbytes(min(4096, len(content)))
            path.write_bytes(content[:at] + damage + content[at + len(damage) :])
        elif state == "another's":
            shutil.copy(self.folder / "another" / name, path)
        else:
            path.write_bytes(
                {
                    "empty": b"",
                    "half": content[: len(content) // 2],
                    "zeros": b"\0" * len(content),
                    "foreign": b"this is another kind of file " * 200,
                }[state]
            )

    def readable(self, name, state):
        """The messages of which every byte is left in the journal's files."""
        left = b"".join(path.read_bytes() for path in self.data.glob("journal.db*"))
        if name.startswith("journal.db-wal") and state == "page":
            return set()  # what is beside the damage belongs to a page that is not whole
        return {seq for seq, mark in self.messages.items() if mark in left}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directories = Directories(tmp_path_factory.mktemp("directories"))
    with directories.qlik:
        directories.make()
        yield directories


def numbers_in(text):
    """The numbers that losses name."""
    found = set()
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", re.sub(r"\d{8}T\w+|/\S+", "", text)):
        found.update(range(int(first), min(int(last or first), 10_000) + 1))
    return found


def recorded_in(data):
    """The lines of the recordings that are whole, those that were set aside included."""
    found = []
    for path in data.glob("all.jsonl*"):
        for line in path.read_bytes().splitlines():
            try:
                json.loads(line)
            except ValueError:
                continue
            found.append(line)
    return found


def look_at(made, caplog, ended, name, state, seed=1):
    caplog.clear()
    caplog.set_level(logging.INFO)
    made.spoil(ended, name, state, seed)
    reached = highest_cursor(made.data / "recorders.db")
    readable = made.readable(name, state)
    if name == "journal.db-wal":
        # A log whose end is missing is one that a crash cut, but for what is known to be in it.
        readable = {seq for seq in readable if seq <= reached}
    begun = sorted(made.site.started)

    def count(part):
        return sum(part.encode() in line for line in recorded_in(made.data))

    for life in range(2):
        with made.life() as one:
            there = {message.seq for chunk in one.journal.back_from(2**62) for message in chunk}
            if life == 0:
                # A cut goes through one message at most.
                assert len(readable - there) <= (state == "half"), readable - there
                lost = made.messages.keys() - there
                data = View(one).snapshot().data
                said = "\n".join(one.losses.acknowledge())
                assert lost <= numbers_in(said), (lost, said)
                assert (data is not None) or not lost
                if lost:
                    assert re.search(r"missing|left out", caplog.text)
            assert one.journal.last_seq >= reached
            assert not one.losses.health
            new = f"new-{life}"
            View(one).publish("plant/new", new.encode(), 1, False, "test")
            until(lambda: count(new), f"{new} is recorded", 5)  # noqa: B023
            until(lambda: not any(each.lag for each in one.recorders.states()), "all is recorded")  # noqa: B023
            if not name.startswith("journal.db"):
                assert one.retained.get("plant/kept") is not None
    assert sorted(made.site.started) == begun
    assert "defect" not in caplog.text
    assert "Traceback" not in caplog.text
    assert (count("new-0"), count("new-1")) == (1, 1)
    if name != "all.jsonl":
        assert all(count(mark(task)) for task in TASKS)


@pytest.mark.parametrize(("ended", "name", "state"), SAMPLE)
def test_a_damaged_file_is_said_and_costs_only_what_was_in_it(made, caplog, ended, name, state):
    """A sample of the next test's."""
    look_at(made, caplog, ended, name, state)


@pytest.mark.campaign
@pytest.mark.parametrize("ended", ["killed", "stopped"])
@pytest.mark.parametrize("name", FILES)
def test_any_state_of_any_file(made, caplog, ended, name):
    """Each file, deleted, cut, overwritten or older."""
    is_journal = name.startswith("journal.db")
    states = (*STATES, "another's") if name in {"journal.db-wal", "journal.db-shm"} else STATES
    for state in states if is_journal else ("deleted", "page", "foreign"):
        for seed in range(4 if is_journal and state == "page" else 1):
            try:
                look_at(made, caplog, ended, name, state, seed)
            except BaseException as error:
                error.add_note(f"{ended} {name} {state} {seed}")
                raise
