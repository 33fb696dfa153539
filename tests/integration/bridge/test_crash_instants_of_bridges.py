"""Promises about bridges when a kill or a power cut comes at any instant.

A process with a bridge both ways takes messages that start tasks, and sends what clients publish.
Its writes are noted (disk_model.py), and what the other broker and the Qlik server know is a mark
among them. For many instants the disk as it may be after a crash is made, and a broker and a server
that know what theirs did; an appliance is started there.
"""

from __future__ import annotations

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
from appliance_process import QUICK, ApplianceProcess, until
from disk_model import Disk, Operation, Tracer
from marked_site import PROXY, QLIK_CONFIG, MarkedSite
from quick_appliance import LIMITS, WAITS
from scripted_broker import Offered, Remembered, ScriptedBroker

from appliance.config.reading import load
from appliance.engine.service import Appliance
from appliance.model import ExecutionState, Message, bridge_client_id
from appliance.qlik.simulated import SimulatedQlik
from appliance.tasks import engine as task_engine
from appliance.tasks.engine import TaskEngine

pytestmark = pytest.mark.posix("the library that sees writes is preloaded on Linux")

TASKS = [f"5f8b1c2e-0d4a-4c55-9a1b-0000000000{number:02d}" for number in range(40)]
AFTER_PUBACK = 12
"""Operations after a PUBACK in which it is noted."""
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
[[bridge]]
name = "plant"
host = "127.0.0.1"
port = {remote}
subscribe = [{{topic = "plant/#"}}]
publish = [{{topic = "out/#"}}]
"""
)


def messages_of(app: Appliance) -> list[Message]:
    return [one for chunk in app.journal.back_from(1 << 60) for one in chunk][::-1]


def restored(marks: list[str], *, begins_anew: bool) -> Remembered:
    """The session as the broker of a trace had it when it had noted this."""
    known = [mark.split() for mark in marks]
    sent = {int(words[1]) for words in known if words[0] == "sent"}
    acked = {int(words[1]) for words in known if words[0] == "acked"}
    offered = [int(words[1]) for words in known if words[0] == "offered"]
    session = Remembered(is_there="subscribed" in marks)
    if session.is_there:
        session.filters.append("plant/#")
    for uid in offered:
        if uid in acked:
            continue
        message = Offered(uid, "plant/start", TASKS[uid].encode(), was_sent=uid in sent)
        if uid in sent and not begins_anew:
            session.in_flight[uid + 1] = message  # one session, each message sent once
        else:
            session.waiting.append(message)
    session.last_id = max(sent, default=-1) + 1
    return session


def _left_of_steps(operations: list[Operation]) -> Iterator[int]:
    """For each operation: how many more belong to the way of a message, as far as is known."""
    left = 0
    for one in operations:
        left -= 1
        if one.kind == "m":
            word = one.data.split()[0]
            left = {b"sent": 1000, b"acked": AFTER_PUBACK}.get(word, left)
        yield left


class Load:
    """Traced lives of an appliance with a bridge."""

    def __init__(self, folder: Path, *, begins_anew: bool) -> None:
        self.data = folder / "life" / "data"
        self.begins_anew = begins_anew
        self._tracer = Tracer(self.data, folder)
        self._site = MarkedSite(
            TASKS, lambda task, run, at_ns: self._tracer.mark(f"run {task} {run} {at_ns}")
        )
        self._sent = 0

    def live(self, lives: int, messages: int) -> list[Operation]:
        with (
            SimulatedQlik(site=self._site, proxies=[PROXY]) as qlik,
            ScriptedBroker(begins_anew=self.begins_anew, note=self._tracer.mark) as broker,
        ):
            text = CONFIG.format(data=self.data, url=qlik.url, remote=broker.port)
            process = ApplianceProcess(self.data.parent, text, program=QUICK)
            for life in range(lives):
                self._begin(process)
                with process:
                    process.wait_for_line("listening on")
                    until(lambda life=life: broker.connections > life, "the bridge connects")
                    until(lambda: broker.session.filters, "the bridge subscribes")
                    self._tracer.mark("subscribed")
                    self._publish(process.port, broker, messages)
                    until(
                        lambda: set(TASKS[: self._sent]) <= set(self._site.started),
                        "all tasks are started",
                    )
                    until(lambda: broker.is_empty, "the bridge acknowledges")
                    until(lambda: len(broker.got) >= self._sent, "all goes out")
                broker.drop()
        return self._tracer.operations()

    def _begin(self, process: ApplianceProcess) -> None:
        before = dict(os.environ)
        os.environ.update(self._tracer.environment)
        try:
            process.begin()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _publish(self, port: int, broker: ScriptedBroker, messages: int) -> None:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, "plc")
        client.connect("127.0.0.1", port)
        client.loop_start()
        for number in range(self._sent, self._sent + messages):
            self._tracer.mark(f"offered {number}")
            broker.offer([Offered(number, "plant/start", TASKS[number].encode())])
            client.publish("out/a", b"%d" % number, qos=1).wait_for_publish(10)
            self._tracer.mark(f"accepted {number}")
            time.sleep(0.02)
        self._sent += messages
        client.disconnect()
        client.loop_stop()


class Instants:
    """Starts an appliance on what a crash left, with a broker and a server of that instant."""

    def __init__(self, folder: Path, load: Load, operations: list[Operation]) -> None:
        self._folder = folder
        self._begins_anew = load.begins_anew
        self._disk = Disk(load.data)
        self._operations = operations
        self.again = 0
        """Messages that were journaled a second time."""

    def look_at(self, count: int, monkeypatch: pytest.MonkeyPatch) -> int:
        """Look at instants between the sending of a message and a little after its PUBACK."""
        steps = [
            number
            for number, left in enumerate(_left_of_steps(self._operations), 1)
            if left > 0 or number == len(self._operations)
        ]
        wanted = {steps[(len(steps) - 1) * each // count] for each in range(1, count + 1)}
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
        marks = list(self._disk.marks)
        site = MarkedSite(TASKS)
        for mark in marks:
            match mark.split():
                case ["run", task, run, at_ns]:
                    site.put_back(task, run, int(at_ns))
        session = restored(marks, begins_anew=self._begins_anew)
        with (
            SimulatedQlik(site=site, proxies=[PROXY]) as qlik,
            ScriptedBroker(begins_anew=self._begins_anew, session=session) as broker,
        ):
            path = target / "config.toml"
            text = CONFIG.format(data=data, url=qlik.url, remote=broker.port)
            path.write_text(text.replace("PORT", "0"))
            app = Appliance(load(path), task_limits=LIMITS)
            app.start()
            try:
                self._settle(app, broker, marks, where)
                app.tasks.stop()
                messages = messages_of(app)
            finally:
                app.stop()
                assert app.wait(10), where
            self._compare(marks, site, broker, messages, where)

    def _settle(self, app: Appliance, broker: ScriptedBroker, marks: list[str], where: str) -> None:
        until(lambda: broker.connections, f"the bridge connects, {where}")
        until(lambda: broker.is_empty, f"all is acknowledged, {where}")
        until(lambda: not app.bridges.states()[0].lag, f"all goes out, {where}")
        asked = {TASKS[int(mark.split()[1])] for mark in marks if mark.startswith("offered")}

        def ended() -> set[str]:
            return {
                one.task_id
                for one in app.tasks.executions(1000)
                if one.state is ExecutionState.SUCCEEDED
            }

        until(lambda: asked <= ended(), f"all tasks end well, {where}")

    def _compare(
        self,
        marks: list[str],
        site: MarkedSite,
        broker: ScriptedBroker,
        messages: list[Message],
        where: str,
    ) -> None:
        said = [mark.split() for mark in marks]
        offered = [int(words[1]) for words in said if words[0] == "offered"]
        came = [one for one in messages if one.client_id == bridge_client_id("plant")]
        news = Multiset(one.payload.decode() for one in came if not one.dup)
        assert news == Multiset(TASKS[uid] for uid in offered), where
        assert Multiset(site.started) == news, where
        self.again += len(came) - len(offered)
        accepted = [int(words[1]) for words in said if words[0] == "accepted"]
        out = [int(one.payload) for one in messages if one.topic == "out/a"]
        assert set(accepted) <= set(out), where
        before = [int(words[1]) for words in said if words[0] == "got"]
        after = [int(payload) for _, payload in broker.got]
        assert after == sorted(after), (before, after, where)
        assert list(dict.fromkeys([*before, *after])) == out, (before, after, where)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in WAITS.items():
        monkeypatch.setitem(TaskEngine.__init__.__kwdefaults__, name, value)
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.campaign
def test_a_crash_loses_nothing_of_a_bridge_and_starts_nothing_twice(tmp_path, monkeypatch):
    """3 instants of one life; the broker begins its packet identifiers anew, as RabbitMQ does."""
    load = Load(tmp_path, begins_anew=True)
    operations = load.live(1, 3)
    assert Instants(tmp_path, load, operations).look_at(3, monkeypatch) == 3


@pytest.mark.campaign
@pytest.mark.parametrize("begins_anew", [True, False], ids=["RabbitMQ", "mosquitto"])
def test_a_crash_at_any_instant_of_two_lives(tmp_path, monkeypatch, begins_anew):
    """9 instants of two lives with each kind of broker."""
    load = Load(tmp_path, begins_anew=begins_anew)
    operations = load.live(2, 6)
    instants = Instants(tmp_path, load, operations)
    assert instants.look_at(9, monkeypatch) == 9
    assert instants.again
