"""Data directories as an appliance of a known commit left them, and what was in them.

``python tests/golden.py NAME`` runs the appliance of the working copy, lets clients, recorders,
timers and a simulated Qlik server leave something of each kind, kills it, and writes
``tests/data/NAME``: the configuration, the users, the data directory, and ``made.json`` with what
the appliance said of it before its end. tests/data/README.md says when to make one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from appliance_process import free_port, until
from broker_rig import Wire
from tasks_rig import client_of

from appliance import __version__
from appliance.broker.users import Users
from appliance.config.reading import loads
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.model import ExecutionState
from appliance.qlik.simulated import Outcome, SimulatedQlik, SimulatedTask

DATA = Path(__file__).parent / "data"
START = "qliksense/start_task"
USER = {"username": "ann", "password": b"secret"}
AWAY, SENDER, TAKER, WILL = "ann-away", "ann-sender", "ann-taker", "ann-will"
DONE = "00000000-0000-4000-8000-00000000000a"
FAILING = "00000000-0000-4000-8000-00000000000b"
RUNNING = "00000000-0000-4000-8000-00000000000c"
GATHERING = "00000000-0000-4000-8000-00000000000d"
COOLING = "00000000-0000-4000-8000-00000000000e"
RECORDINGS = {"json": "lines.json", "jsonl": "lines.jsonl", "csv": "lines.csv"}
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
[journal]
keep = "36500d"
[qlik]
edition = "client-managed"
url = "http://127.0.0.1:1"
header = {name = "X-User"}
user = 'INTERNAL\\sa_repository'
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
[[trigger]]
topic = "plant/gather"
task = "00000000-0000-4000-8000-00000000000d"
debounce = "1h"
[[trigger]]
topic = "plant/cool"
task = "00000000-0000-4000-8000-00000000000e"
cooldown = "1h"
[[timer]]
name = "hourly"
every = "1h"
publish = {topic = "plant/hourly", payload = "now"}
[[timer]]
name = "press"
silence = "1h"
topic = "plant/press/#"
[[timer]]
name = "nightly"
cron = "30 6 * * *"
task = "00000000-0000-4000-8000-00000000000a"
[[recorder]]
topic = "plant/line/+"
path = "recordings/lines.json"
format = "json"
[[recorder]]
topic = "plant/line/+"
path = "recordings/lines.jsonl"
format = "jsonl"
metadata = true
[[recorder]]
topic = "plant/line/+"
path = "recordings/lines.csv"
format = "csv"
"""


def site() -> SimulatedQlik:
    """A Qlik server with the tasks of ``CONFIG``."""
    return SimulatedQlik(
        [
            SimulatedTask("Reload sales", id=DONE, duration_s=0.05),
            SimulatedTask(
                "Reload suppliers", id=FAILING, duration_s=0.05, outcomes=(Outcome.FAIL,)
            ),
            SimulatedTask("Reload stock", id=RUNNING, duration_s=86400.0),
            SimulatedTask("Reload plant", id=GATHERING, duration_s=0.05),
            SimulatedTask("Reload press", id=COOLING, duration_s=0.05),
        ]
    )


class Running:
    """An appliance in this process, of a folder with ``config.toml``."""

    def __init__(
        self, folder: Path, qlik: SimulatedQlik, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.port = free_port()
        text = (folder / "config.toml").read_text("utf-8").replace("PORT", str(self.port))
        text = text.replace("[service]", '[service]\nwill_grace = "0s"')
        self.appliance = Appliance(
            loads(text, file=str(folder / "config.toml")),
            server=client_of(qlik),
            clock_ns=clock_ns,
        )
        self.view = View(self.appliance)

    def __enter__(self) -> Running:
        self.appliance.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.appliance.stop()
        assert self.appliance.wait(30)

    def state_of(self, task: str) -> list[ExecutionState]:
        """The states of a task's executions, newest first."""
        return [each.state for each in self.view.executions(2**62, 100, task)]

    def facts(self) -> dict[str, Any]:
        """What the appliance says of its data, in JSON's types."""
        snapshot = self.view.snapshot()
        messages = [
            each for each in self.view.history(2**62, 1000) if not each.client_id.startswith("$")
        ]
        found = msgspec.to_builtins(
            {
                "messages": messages,
                "retained": {
                    topic: self.view.retained(topic)
                    for topic in sorted({each.topic for each in messages})
                    if self.view.retained(topic) is not None
                },
                "executions": self.view.executions(2**62, 1000),
                "marks": {
                    str(seq): mark
                    for seq, mark in self.view.marks([each.seq for each in messages]).items()
                },
                "clients": {
                    each.client_id: [each.queued, each.connected] for each in self.view.clients()
                },
                "timers": {each.name: each.paused for each in snapshot.timers},
                "recorded": {Path(each.path).name: each.recorded for each in snapshot.recorders},
            },
            str_keys=True,
        )
        return json.loads(json.dumps(found))


async def leave_traces(running: Running) -> None:
    """Have clients, recorders, timers and tasks do something of each kind."""
    port, view = running.port, running.view
    away = await Wire.open(port, 5)
    await away.connect(AWAY, clean=False, **USER)
    await away.subscribe(("plant/line/+", 1), ("plant/order", 2))
    await away.ping()
    away.abort()
    taker = await Wire.open(port, 5)
    await taker.connect(TAKER, clean=False, **USER)
    await taker.subscribe(("plant/exact", 2))
    sender = await Wire.open(port, 5)
    await sender.connect(SENDER, clean=False, **USER)
    for number in range(5):
        await sender.publish_acked(
            f"plant/line/{number % 2}", json.dumps({"number": number, "text": "ä ✓"}).encode()
        )
    await sender.publish_acked("plant/line/text", b"no JSON, \xff")
    for name, qos in (("one", 1), ("two", 2)):
        await sender.publish_acked(f"plant/state/{name}", name.encode(), qos, retain=True)
    await sender.publish_acked("plant/state/gone", b"x", retain=True)
    await sender.publish_acked("plant/state/gone", b"", retain=True)
    await sender.publish_acked("plant/order", b"both", 2)
    for task in (DONE, FAILING, RUNNING):
        await sender.publish_acked(START, task.encode())
    for topic in ("plant/gather", "plant/gather", "plant/cool"):
        await sender.publish_acked(topic, b"{}")
    await asyncio.to_thread(
        until, lambda: running.state_of(COOLING) == [ExecutionState.SUCCEEDED], "it cools down"
    )
    await sender.publish_acked("plant/cool", b"{}")
    # Exactly once, both ways, and both in the middle.
    await sender.publish_acked("plant/exact", b"taken", 2)
    message = await taker.message()
    assert message.qos == 2
    taker.ack(5, message.id)
    await taker.expect(6)  # PUBREL; its PUBCOMP never comes
    sender.publish("plant/half", b"half", 2, id=77)
    await sender.expect(5)  # PUBREC; its PUBREL never comes
    dying = await Wire.open(port, 5)
    await dying.connect(
        WILL, clean=False, will=("plant/will", b"gone", 1, False), will_delay=86400, **USER
    )
    dying.abort()
    view.pause_timer("hourly", True, "golden")

    def is_settled() -> bool:
        states = {task: running.state_of(task) for task in (DONE, FAILING, RUNNING, COOLING)}
        snapshot = view.snapshot()
        return (
            states[DONE] == [ExecutionState.SUCCEEDED]
            and states[FAILING] == [ExecutionState.FAILED]
            and states[RUNNING] == [ExecutionState.RUNNING]
            and len(states[COOLING]) == 2
            and len(running.state_of(GATHERING)) == 1
            and all(each.recorded == 6 and not each.lag for each in snapshot.recorders)
            and {each.client_id for each in view.clients() if not each.connected} >= {AWAY, WILL}
        )

    await asyncio.to_thread(until, is_settled, "everything has left its traces")
    for wire in (sender, taker):
        await wire.ping()
        wire.abort()
    await asyncio.to_thread(
        until, lambda: not any(each.connected for each in view.clients()), "all clients are gone"
    )


def make(folder: Path) -> None:
    """Fill ``folder``, and end as ``kill -9`` does."""
    (folder / "config.toml").write_text(CONFIG, "utf-8")
    Users(folder / "users.txt").add("ann", b"secret")
    with site() as qlik:
        with Running(folder, qlik) as running:
            asyncio.run(leave_traces(running))
        running = Running(folder, qlik)
        running.appliance.start()
        running.view.publish("plant/line/1", b"17", 1, retain=False, by="golden")
        until(lambda: running.facts()["recorded"] == dict.fromkeys(RECORDINGS.values(), 7), "7th")
        time.sleep(2.0)  # sessions note their places once a second
        facts = running.facts()
        starts = {task: qlik.starts(task) for task in (DONE, FAILING, RUNNING, COOLING)}
        text = json.dumps({"made_ns": time.time_ns(), "starts": starts, **facts})
        (folder / "facts.json").write_text(text + "\n", "utf-8")
        os.kill(os.getpid(), signal.SIGKILL)


def main(name: str) -> None:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        child = subprocess.run([sys.executable, __file__, "--into", folder], check=False)
        assert child.returncode == -signal.SIGKILL
        for path in (folder / "data").glob("*.db"):
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        target = DATA / name
        facts = json.loads((folder / "facts.json").read_text("utf-8"))
        made = {"commit": commit, "version": __version__, **facts}
        wanted = ["config.toml", "users.txt"]
        wanted += [f"data/{each}" for each in ("journal.db", "journal.db.high", "tasks.db")]
        wanted += [
            "data/recorders.db",
            *(f"data/recordings/{each}" for each in RECORDINGS.values()),
        ]
        for each in wanted:
            (target / each).parent.mkdir(parents=True, exist_ok=True)
            (target / each).write_bytes((folder / each).read_bytes())
        (target / "made.json").write_text(json.dumps(made) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "--into":
        make(Path(sys.argv[2]))
    else:
        main(sys.argv[1])
