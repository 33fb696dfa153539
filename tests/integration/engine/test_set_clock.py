"""The system's clock is set while the real process runs, and between two runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from appliance_process import until
from set_clock import ProcessWithSetClock

pytestmark = pytest.mark.campaign
HOUR = 3600
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[[recorder]]
topic = "tick"
path = "recordings/ticks.json"
[[timer]]
name = "tick"
every = "1s"
publish = {topic = "tick", payload = "1"}
"""


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[ProcessWithSetClock]:
    with ProcessWithSetClock(tmp_path, CONFIG) as process:
        yield process


@contextlib.contextmanager
def client(appliance: ProcessWithSetClock) -> Iterator[mqtt.Client]:
    found = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    found.connect("127.0.0.1", appliance.port)
    found.loop_start()
    try:
        until(found.is_connected, "paho connects")
        yield found
    finally:
        found.disconnect()
        found.loop_stop()


def steps(appliance: ProcessWithSetClock) -> list[str]:
    return [line for line in appliance.lines if "clock was set" in line]


def test_the_appliance_is_well_while_its_clock_is_set(appliance: ProcessWithSetClock) -> None:
    """Monitors and operators ask a second after the clock was set, back and forward: the answer is
    "ok", a reload is done, and each step is one line of the log."""
    appliance.start()
    until(lambda: (appliance.data / "health.json").exists(), "the first report")
    for number, offset in enumerate((-5 * HOUR, 48 * HOUR, 0), 1):
        appliance.clock.set(offset)
        until(lambda number=number: len(steps(appliance)) == number, f"{offset} is noticed")
        for command in ("health", "reload", "health"):
            done = appliance.command(command)
            assert done.returncode == 0, (offset, command, done.stdout, done.stderr)
    assert len(steps(appliance)) == 3
    assert appliance.end() == 0
