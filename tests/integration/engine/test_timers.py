"""Timers of the configuration, in the appliance as its user runs it."""

from __future__ import annotations

import pytest
import json

import certificates
import paho.mqtt.client as mqtt
from appliance_process import ApplianceProcess, until

from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles
from appliance.qlik.simulated.site import SimulatedTask

TASK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"

CONFIG = (
    """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
"""
    + certificates.QLIK_CONFIG
    + """
[[timer]]
name = "heartbeat"
every = "1s"
task = {{name = "Reload line 7"}}
publish = {{topic = "plant/tick", payload = "now"}}
[[timer]]
name = "press"
silence = "1s"
topic = "plant/press7/#"
"""
)


@pytest.mark.campaign
def test_a_timer_starts_its_task_and_publishes_and_a_silence_is_told(tmp_path) -> None:
    """With every = "1s" a task starts by itself, a message comes, and silence raises an alarm."""
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    tasks = [SimulatedTask("Reload line 7", id=TASK, duration_s=0.1)]
    with SimulatedQlik(tasks, tls=tls) as qlik:
        process = ApplianceProcess(tmp_path, CONFIG.format(url=qlik.url))
        with process:
            process.start()
            seen: dict[str, bytes] = {}
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
            client.on_message = lambda _c, _u, message: seen.update(
                {message.topic: message.payload}
            )
            client.on_connect = lambda *_: client.subscribe("#")
            client.connect("127.0.0.1", process.port)
            client.loop_start()
            try:
                assert qlik.wait_for(lambda: qlik.starts(TASK) >= 2, 20)
                until(lambda: seen.get("plant/tick") == b"now", "the timer publishes")
                until(
                    lambda: (
                        json.loads(seen["appliance/alarms/press"])["state"] == "raised"
                        if "appliance/alarms/press" in seen
                        else False
                    ),
                    "the silence is told",
                )
            finally:
                client.disconnect()
                client.loop_stop()
            assert process.end() == 0
