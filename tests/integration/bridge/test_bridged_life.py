"""Messages that a bridge brought in live as those of clients do, on a real engine."""

from __future__ import annotations

import json

import pytest
from appliance_process import until
from quick_appliance import LIMITS, WAITS
from tasks_rig import client_of

from appliance.config.reading import loads
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.model import ExecutionState, MessageProperties, bridge_client_id
from appliance.qlik.simulated import SimulatedQlik
from appliance.tasks.engine import TaskEngine
from appliance.ui.filters import Filter, for_client
from appliance.ui.live_feed import LiveFeed

CONFIG = """
[service]
data_dir = "{folder}/data"
[[listener]]
bind = "127.0.0.1:0"
[qlik]
edition = "simulated"
[access]
[[access.rule]]
publish = ["nothing"]
subscribe = ["nothing"]
[allow]
names = ["Sales"]
[[trigger]]
topic = "plant/start"
task = "payload"
[[trigger]]
topic = "plant/rows"
task = {{name = "Sales"}}
when = {{rows = {{">" = 3}}}}
[[timer]]
name = "quiet"
silence = "1h"
topic = "plant/#"
[[recorder]]
topic = "plant/#"
path = "plant.jsonl"
format = "jsonl"
metadata = true
"""
BRIDGE = bridge_client_id("hq")


class Site:
    """An appliance in this process; ``bring`` does what a bridge does with a message."""

    def __init__(self, folder, qlik):
        self.folder = folder
        text = CONFIG.format(folder=folder.as_posix())
        config = loads(text, file=str(folder / "config.toml"))
        self.appliance = Appliance(config, server=client_of(qlik), task_limits=LIMITS)
        self.appliance.start()
        self.view = View(self.appliance)

    def bring(self, topic, payload, **fields):
        text = payload if isinstance(payload, str) else json.dumps(payload)
        door = self.appliance.door
        address = "mqtt.example.com:1883"
        return self.appliance.call(
            lambda: door.publish(topic, text.encode(), client_id=BRIDGE, address=address, **fields)
        )

    def mark(self, seq):
        until(lambda: seq in self.view.marks([seq]), "the mark")
        return self.view.marks([seq])[seq]

    def outcome(self, seq, state):
        until(lambda: self.mark(seq).state is state, f"the outcome {state}")
        return self.view.execution(self.mark(seq).execution)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    for name, seconds in WAITS.items():
        monkeypatch.setitem(TaskEngine.__init__.__kwdefaults__, name, seconds)


@pytest.fixture
def qlik():
    with SimulatedQlik() as server:
        server.add_task("Sales", duration_s=0.02)
        server.add_task("Hidden")
        yield server


@pytest.fixture
def site(tmp_path, qlik):
    found = Site(tmp_path, qlik)
    yield found
    found.appliance.stop()
    assert found.appliance.wait(60)


def test_a_bridged_message_lives_as_that_of_a_client(site, qlik) -> None:
    """Trigger, condition, [allow], recorder, silence watch, search, filter and the first run."""
    view = site.view
    assert view.snapshot().first_run
    sales, hidden = (
        one for name in ("Sales", "Hidden") for one in view.tasks() if one.name == name
    )
    (watch,) = [one for one in view.snapshot().timers if one.name == "quiet"]

    started = site.bring("plant/start", sales.id)
    execution = site.outcome(started, ExecutionState.SUCCEEDED)
    assert (execution.cause.client_id, execution.cause.topic) == (BRIDGE, "plant/start")
    assert "from bridge hq" in execution.steps[0].text
    assert not view.snapshot().first_run

    refused = site.bring("plant/start", hidden.id)
    until(lambda: site.mark(refused).label == "not allowed", "the refusal")
    unmet = site.bring("plant/rows", {"rows": 1})
    until(lambda: site.mark(unmet).label == "not met", "the condition")
    assert "rows > 3 does not hold" in " ".join(view.explain(unmet).reasons)
    met = site.bring("plant/rows", {"rows": 7})
    site.outcome(met, ExecutionState.SUCCEEDED)
    assert (qlik.starts(sales.id), qlik.starts(hidden.id)) == (2, 0)

    def recorded():
        path = site.appliance.data_dir / "plant.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    until(lambda: len(recorded()) == 4, "the recording")
    assert {one["client"] for one in recorded()} == {BRIDGE}

    def due():
        return next(one.due_ns for one in view.snapshot().timers if one.name == "quiet")

    until(lambda: due() > watch.due_ns, "the silence is broken")
    feed = LiveFeed(show_own=False)
    feed.set_filter(for_client(BRIDGE), view)
    feed.poll(view)
    assert [one.seq for one in feed.view] == [started, refused, unmet, met]
    feed.set_filter(Filter(), view)
    assert [one.seq for one in feed.view] == [started, refused, unmet, met]
    assert [one.seq for one in view.history(2**62, 1000) if one.client_id == BRIDGE] == [
        started, refused, unmet, met,
    ]  # fmt: skip


def test_a_restart_after_bridged_messages_is_no_first_run(tmp_path, qlik) -> None:
    """The journal has a message that the appliance did not publish itself."""
    first = Site(tmp_path, qlik)
    first.bring("plant/rows", "1")
    first.appliance.stop()
    assert first.appliance.wait(60)
    second = Site(tmp_path, qlik)
    try:
        assert not second.view.snapshot().first_run
    finally:
        second.appliance.stop()
        assert second.appliance.wait(60)
