"""Promises about the starts of tasks when a kill or a power cut comes at any instant.

A process starts tasks on a simulated server: for messages, for outcomes (chains) and by timers. Its
writes are noted (disk_model.py), and each run that the server begins is a mark among them. For many
instants the disk as it may be after a crash is made, and a server that has the runs of that
instant; an appliance is started there, and each start must have been made once.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter as Multiset
from collections.abc import Iterator
from pathlib import Path
from random import Random

import paho.mqtt.client as paho
import pytest
from appliance_process import ApplianceProcess, until
from disk_model import Disk, Operation, Tracer
from marked_site import PROXY, QLIK_CONFIG, MarkedSite
from quick_appliance import LIMITS, WAITS

from appliance.config.reading import load
from appliance.engine.service import Appliance
from appliance.model import ExecutionState, Message
from appliance.qlik.simulated import SimulatedQlik
from appliance.tasks import engine as task_engine
from appliance.tasks.engine import TaskEngine

pytestmark = pytest.mark.posix("the library that sees writes is preloaded on Linux")

SCRIPT = Path(__file__).parents[2] / "quick_appliance.py"
CHAINS = 5
DIRECT = [f"5f8b1c2e-0d4a-4c55-9a1b-0000000000{number:02d}" for number in range(20)]
CHAINED = [f"5f8b1c2e-0d4a-4c55-9a1b-0000000001{number:02d}" for number in range(CHAINS)]
TIMED = "5f8b1c2e-0d4a-4c55-9a1b-000000000200"
TICKED = "5f8b1c2e-0d4a-4c55-9a1b-000000000201"
"""A timer publishes a message, and a trigger starts this task for it."""
REPEATED = (TIMED, TICKED)
ALL = [*DIRECT, *CHAINED, *REPEATED]
CONFIG = (
    """
[service]
data_dir = "{data}"
[[listener]]
bind = "127.0.0.1:PORT"
"""
    + QLIK_CONFIG
    + """
[[trigger]]
topic = "plant/start"
task = "payload"
[[trigger]]
topic = "plant/tick"
task = "{ticked}"
[[timer]]
name = "start"
every = "1s"
task = "{timed}"
[[timer]]
name = "tick"
every = "1s"
publish = {{topic = "plant/tick", payload = "now"}}
"""
)
CHAIN = """
[[trigger]]
topic = "appliance/tasks/{first}/last"
when = {{state = "succeeded"}}
task = "{second}"
"""


def config(data: Path, url: str) -> str:
    text = CONFIG.format(data=data, url=url, ticked=TICKED, timed=TIMED)
    return text + "".join(
        CHAIN.format(first=first, second=second)
        for first, second in zip(DIRECT, CHAINED, strict=False)
    )


class Process(ApplianceProcess):
    def _spawn(self, arguments: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="backslashreplace",
            env=self._environment(),
        )


class Load:
    """Traced lives of an appliance that starts tasks."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "life" / "data"
        self._tracer = Tracer(self.data, folder)
        self._sent = 0
        self._site = MarkedSite(
            ALL, lambda task, run, at_ns: self._tracer.mark(f"run {task} {run} {at_ns}")
        )
        self._folder = folder

    def live(self, lives: int, messages: int, *timed: str) -> list[Operation]:
        """Live, with so many messages a life, each life ended by a kill when all is started."""
        with SimulatedQlik(site=self._site, proxies=[PROXY]) as qlik:
            text = config(self.data, qlik.url)
            process = Process(self.data.parent, text)
            for _ in range(lives):
                self._begin(process)
                with process:
                    process.wait_for_line("listening on")
                    self._tracer.mark("listening")
                    self._publish(process.port, messages)
                    wanted = {*DIRECT[: self._sent], *CHAINED[: self._sent], *timed}
                    until(
                        lambda wanted=wanted: wanted <= set(self._site.started),
                        "all tasks are started",
                    )
        return self._tracer.operations()

    def _begin(self, process: Process) -> None:
        before = dict(os.environ)
        os.environ.update(self._tracer.environment)
        try:
            process.begin()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _publish(self, port: int, messages: int) -> None:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, "plc")
        client.connect("127.0.0.1", port)
        client.loop_start()
        for number in range(self._sent, self._sent + messages):
            client.publish("plant/start", DIRECT[number], qos=1).wait_for_publish(10)
            self._tracer.mark(f"acknowledged {DIRECT[number]}")
            time.sleep(0.02)
        self._sent += messages
        client.disconnect()
        client.loop_stop()


def messages_of(app: Appliance) -> list[Message]:
    return [one for chunk in app.journal.back_from(1 << 60) for one in chunk][::-1]


class Instants:
    """Starts an appliance on what a crash left, and counts the starts."""

    def __init__(self, folder: Path, data: Path, operations: list[Operation]) -> None:
        self._folder = folder
        self._disk = Disk(data)
        self._operations = operations

    def look_at(self, count: int, monkeypatch: pytest.MonkeyPatch) -> int:
        """Look at instants spread evenly over the time in which tasks are started."""
        total = len(self._operations)
        first = next(
            number
            for number, one in enumerate(self._operations)
            if one.kind == "m" and one.data == b"listening"
        )
        wanted = {first + (total - first) * each // count for each in range(1, count + 1)}
        looked = 0
        for number, operation in enumerate(self._operations, 1):
            self._disk.do(operation)
            if number in wanted:
                with monkeypatch.context() as patch:
                    self._look(number, patch, is_kill=looked % 3 == 0)
                looked += 1
        return looked

    def _look(self, number: int, patch: pytest.MonkeyPatch, *, is_kill: bool) -> None:
        target = self._folder / f"at-{number}"
        data = target / "data"
        if is_kill:
            self._disk.after_kill(data)
        else:
            self._disk.after_power_cut(data, Random(number))
            # The machine was started again.
            patch.setattr(task_engine, "_boot_ns", lambda clock_ns: clock_ns())
        where = f"instant {number}, after a {'kill' if is_kill else 'power cut'}: {target}"
        site = MarkedSite(ALL)
        acknowledged = set()
        for mark in self._disk.marks:
            match mark.split():
                case ["run", task, run, at_ns]:
                    site.put_back(task, run, int(at_ns))
                case ["acknowledged", task]:
                    acknowledged.add(task)
        with SimulatedQlik(site=site, proxies=[PROXY]) as qlik:
            path = target / "config.toml"
            path.write_text(config(data, qlik.url).replace("PORT", "0"))
            app = Appliance(load(path), task_limits=LIMITS)
            app.start()
            try:
                asked = self._settle(app, where)
                app.tasks.stop()
                messages = messages_of(app)
            finally:
                app.stop()
                assert app.wait(10), where
        assert acknowledged <= asked, where
        self._compare(app, site, asked, messages, where)

    def _settle(self, app: Appliance, where: str) -> set[str]:
        asked = {one.payload.decode() for one in messages_of(app) if one.topic == "plant/start"}
        chained = {CHAINED[DIRECT.index(one)] for one in asked if one in DIRECT[:CHAINS]}

        def ended() -> set[str]:
            return {
                one.task_id
                for one in app.tasks.executions(1000)
                if one.state is ExecutionState.SUCCEEDED
            }

        until(lambda: asked | chained <= ended(), f"all tasks end well, {where}")
        until(
            lambda: all(one.state.is_final for one in app.tasks.executions(1000)),
            f"all that the timers asked for ends, {where}",
        )
        return asked

    def _compare(
        self,
        app: Appliance,
        site: MarkedSite,
        asked: set[str],
        messages: list[Message],
        where: str,
    ) -> None:
        runs = Multiset(site.started)
        for task in DIRECT:
            assert runs[task] == (task in asked), (task, where)
        for first, task in zip(DIRECT, CHAINED, strict=False):
            assert runs[task] == (first in asked), (task, where)
        known = [one for one in app.tasks.executions(1000) if one.execution_id]
        # A run of a request that a later one was merged into need not be known: the look is for
        # runs since the later one.
        found = {one.execution_id for one in known}
        unknown = [one for one in site.begun if one[1] not in found and one[0] not in REPEATED]
        assert not unknown, (unknown, where)
        assert len(found) == len(known), where
        fired = sum(1 + one.merged for one in known if one.cause.kind == "timer")
        assert runs[TIMED] <= fired, where
        assert runs[TICKED] <= sum(one.topic == "plant/tick" for one in messages), where
        outcomes = Multiset(
            json.loads(one.payload)["executionId"]
            for one in messages
            if one.topic.endswith("/last") and one.topic.startswith("appliance/tasks/")
        )
        assert set(outcomes.values()) <= {1}, where


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in WAITS.items():
        monkeypatch.setitem(TaskEngine.__init__.__kwdefaults__, name, value)
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


def test_a_crash_while_tasks_are_started_starts_each_once(tmp_path: Path, monkeypatch) -> None:
    """5 instants of one life."""
    load = Load(tmp_path)
    operations = load.live(1, 2)
    assert Instants(tmp_path, load.data, operations).look_at(5, monkeypatch) == 5


@pytest.mark.campaign
def test_a_crash_of_any_of_two_lives_starts_each_once(tmp_path: Path, monkeypatch) -> None:
    """70 instants of two lives."""
    load = Load(tmp_path)
    operations = load.live(2, 10, TIMED, TICKED)
    assert Instants(tmp_path, load.data, operations).look_at(70, monkeypatch) == 70
