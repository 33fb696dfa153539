"""An appliance that only has bridges (``listener = []``), as a process beside a real broker."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from appliance_process import ApplianceProcess, until
from other_brokers import PASSWORD, USER, Mosquitto, Remote

from appliance import cli
from appliance.ops.health import FILE_NAME

pytestmark = pytest.mark.campaign

CONFIG = f"""
listener = []
[service]
data_dir = "data"
[qlik]
edition = "simulated"
[[trigger]]
topic = "plant/start"
task = "payload"
[[bridge]]
name = "plant"
host = "127.0.0.1"
port = PORT
username = "{USER}"
password_file = "password.txt"
[[bridge.subscribe]]
topic = "plant/#"
[[bridge.publish]]
topic = "appliance/tasks/#"
"""


def test_it_starts_serves_reloads_and_stops(tmp_path: Path, capsys) -> None:
    """Messages come in, a task starts, outcomes go out; commands know what there is to talk to."""
    with Mosquitto(tmp_path / "mosquitto") as broker, Remote(broker, "press") as press:
        appliance = ApplianceProcess(tmp_path / "appliance", CONFIG, port=broker.port)
        (appliance.folder / "password.txt").write_text(PASSWORD, "utf-8")
        with appliance:
            appliance.begin()
            appliance.wait_for_line("no listeners, as the configuration says")
            appliance.wait_for_line("bridge plant is subscribed to plant/#")
            press.subscribe("appliance/tasks/#")
            press.publish("plant/start", "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10")
            press.wait(lambda: any('"queued"' in each for each in press.payloads()), "an outcome")
            options = ["-c", str(appliance.config)]

            until((appliance.data / FILE_NAME).exists, "a health report")
            assert cli.main(["health", *options]) == 0
            assert "listener" not in capsys.readouterr().out
            assert cli.main(["session", "list", *options]) == 0
            for command in (["publish", "-t", "a", "-m", "b"], ["start", "x"]):
                assert cli.main([*command, *options]) == 64
                assert (
                    "has listener = [], so its appliance has no address" in capsys.readouterr().err
                )

            assert cli.main(["check", "--connect", *options]) == 0
            assert "client id appliance-plant-check" in capsys.readouterr().out
            assert _connections(appliance) == 1  # the running bridge was not thrown out

            text = appliance.config.read_text("utf-8").replace("listener = []\n", "")
            text = text.replace('topic = "plant/#"', 'topic = "plant/#"\nlocal_prefix = "f7/"')
            appliance.config.write_text(text, "utf-8")
            assert cli.main(["reload", *options]) == 0
            said = capsys.readouterr().out
            assert "changed, and counts now: [[bridge]] plant subscribe" in said
            assert "[[listener]] mqtt (is new) (sockets are opened at the start)" in said
            until(lambda: _connections(appliance) == 2, "the changed bridge is connected")
            press.publish("plant/press", "1")
            until(lambda: "f7/plant/press" in _exported(options, capsys), "the new topic")
            assert appliance.end(signal.SIGTERM) == 0
        assert not any("ERROR" in line or "Traceback" in line for line in appliance.lines)


def _connections(appliance: ApplianceProcess) -> int:
    return sum(bool(re.search("bridge plant is connected", line)) for line in appliance.lines)


def _exported(options: list[str], capsys) -> str:
    cli.main(["export", *options])
    return capsys.readouterr().out
