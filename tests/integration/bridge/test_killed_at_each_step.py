"""Promises about an appliance that is killed at each step of a bridge's way, against real brokers.

One life after the other is killed at another step, while messages come in that start tasks and
their outcomes go out. In the end each message has started its task once, and each outcome is there.
"""

from __future__ import annotations

import os
import time
from collections import Counter as Multiset
from pathlib import Path

import pytest
from appliance_process import ApplianceProcess, until
from bridge_crash_child import STEPS
from marked_site import PROXY, QLIK_CONFIG, MarkedSite
from other_brokers import (
    PASSWORD,
    USER,
    ApplianceBroker,
    Mosquitto,
    Nats,
    OtherBroker,
    RabbitMQ,
    Remote,
)

from appliance.qlik.simulated import SimulatedQlik

pytestmark = [pytest.mark.campaign, pytest.mark.posix("a process kills itself")]

CHILD = (str(Path(__file__).parents[2] / "bridge_crash_child.py"),)
TASKS = 2000
PASSAGE = 3
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
port = {port}
username = "{user}"
password = "{password}"
subscribe = [{{topic = "plant/#"}}]
publish = [{{topic = "appliance/tasks/+/last", remove_prefix = "appliance/", remote_prefix = "f7/"}}]
"""
)


def task(number: int) -> str:
    return f"5f8b1c2e-0d4a-4c55-9a1b-{number:012d}"


OTHERS = pytest.mark.skipif(
    "EVERY_BROKER" not in os.environ, reason="EVERY_BROKER=1 runs it with each broker"
)


KINDS = pytest.mark.parametrize(
    "kind",
    [Mosquitto, *(pytest.param(each, marks=OTHERS) for each in (RabbitMQ, Nats, ApplianceBroker))],
)


@pytest.mark.timeout(300)
@KINDS
def test_kills_at_each_step(tmp_path, kind, monkeypatch):
    """Received, in the journal, acknowledged, proven, noted; sent, confirmed, placed."""
    site = MarkedSite([task(number) for number in range(TASKS)])
    with SimulatedQlik(site=site, proxies=[PROXY]) as qlik, kind(tmp_path / "broker") as broker:
        text = CONFIG.format(
            data=tmp_path / "life" / "data",
            url=qlik.url,
            port=broker.port,
            user=USER,
            password=PASSWORD,
        )
        process = ApplianceProcess(tmp_path / "life", text, program=CHILD)
        with Remote(broker, "watcher") as watcher, Remote(broker, "press") as press:
            watcher.subscribe("f7/#")
            begin_session(process, press, site)
            sent = 0
            for step in STEPS:
                monkeypatch.setitem(os.environ, "STEP", f"{step}:{PASSAGE}")
                with process.begin():
                    while process.process.poll() is None:
                        assert sent < TASKS, step
                        press.publish("plant/start", task(sent))
                        sent += 1
                        time.sleep(0.05)
            monkeypatch.delitem(os.environ, "STEP")
            with process.start():
                wanted = {task(number) for number in range(sent)}
                until(lambda: wanted <= set(site.started), "each task is started")
                watcher.wait(lambda: wanted <= told(watcher), "each outcome went out")
                assert process.end() == 0
        runs = Multiset(site.started)
        assert {one: count for one, count in runs.items() if count != 1} == {}


@pytest.mark.timeout(300)
@KINDS
def test_kills_of_the_broker(tmp_path, kind):
    """While messages come in, each time as soon as the broker has acknowledged them."""
    kills, burst = 4, 25
    total = kills * burst
    site = MarkedSite([task(number) for number in range(total + 1)])
    with SimulatedQlik(site=site, proxies=[PROXY]) as qlik, kind(tmp_path / "broker") as broker:
        text = CONFIG.format(
            data=tmp_path / "life" / "data",
            url=qlik.url,
            port=broker.port,
            user=USER,
            password=PASSWORD,
        )
        process = ApplianceProcess(tmp_path / "life", text, program=CHILD)
        with Remote(broker, "first") as press:
            begin_session(process, press, site)
        with process.start():
            for kill in range(kills):
                with Remote(broker, f"press{kill}") as press:
                    for number in range(kill * burst, (kill + 1) * burst):
                        press.publish("plant/start", task(number))
                    press.wait_acknowledged(burst)
                broker.restart()
            with Remote(broker, "last") as press:
                press.publish("plant/start", task(total))
                press.wait_acknowledged(1)
            wanted = {task(number) for number in range(total + 1)}
            if kind is Mosquitto:  # it acknowledges before it saves, so a kill may take the last
                wanted = {task(total)}
            until(lambda: wanted <= set(site.started), "each task is started")
            assert process.end() == 0
        runs = Multiset(site.started)
        again = {one: count for one, count in runs.items() if count != 1}
        if kind is Mosquitto:
            # What its last save had as not sent yet, it sends once more as something new: a
            # message or two, and a few more where the disk is busy with other things.
            assert len(again) <= kills * burst // 5
            assert set(again.values()) <= {2}
        else:
            assert again == {}
        assert len(runs) > total * 3 // 4


def begin_session(process: ApplianceProcess, press: Remote, site: MarkedSite) -> None:
    """Let the broker have a session with the filters: a first message comes in."""
    with process.start():

        def came() -> bool:
            press.publish("plant/start", "nothing")
            return any("plant/start" in line for line in process.lines)

        until(came, "the bridge has subscribed")
        assert process.end() == 0


def told(watcher: Remote) -> set[str]:
    return {message.topic.split("/")[2] for message in list(watcher.got)}
