"""Messages on Windows' own event loop: a proactor, which hands ``bytearray``, and pauses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request

import paho.mqtt.client as mqtt
import pytest
from appliance_process import free_port, until
from windows_process import DEADLINE_S, WindowsProcess

from appliance.errors import EXIT_OK

BURST = 10_000

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[[listener]]
name = "browsers"
bind = "127.0.0.1:WEB"
transport = "websocket"
[metrics]
bind = "127.0.0.1:METRICS"
[limits]
max_pending = "64KiB"
max_queued_per_client = 100000
[[recorder]]
topic = "line/#"
path = "recordings/lines.json"
format = "json"
metadata = true
"""


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    """One appliance for all tests; each has its own topic."""
    web, metrics = free_port(), free_port()
    config = CONFIG.replace("WEB", str(web)).replace("METRICS", str(metrics))
    with WindowsProcess(tmp_path_factory.mktemp("traffic"), config) as process:
        process.web, process.metrics = web, metrics
        yield process.start()
        assert process.end() == EXIT_OK
        assert "Traceback" not in "\n".join(process.lines)


def recorded(appliance: WindowsProcess, topic: str) -> list:
    text = (appliance.data / "recordings" / "lines.json").read_text("utf-8")
    return [each["payload"] for each in json.loads(text) if each["topic"] == topic]


def paho(transport: str = "tcp", version: int = mqtt.MQTTv311) -> mqtt.Client:
    return mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport=transport, protocol=version)


def test_a_burst_with_a_pause_of_reading_loses_nothing(appliance):
    """A burst is larger than what may wait for the disk, so the appliance pauses reading; a subscriber
    that stops reading for two seconds gets the rest. Each message is acknowledged, recorded and delivered once,
    in order."""
    got: list[int] = []
    subscribed = threading.Event()

    def slow(_client, _data, message) -> None:
        if len(got) == BURST // 10:
            time.sleep(2)  # the pause is the promise's own
        got.append(int(message.payload))

    subscriber = paho()
    subscriber.on_message = slow
    subscriber.on_subscribe = lambda *_: subscribed.set()
    subscriber.connect("127.0.0.1", appliance.port)
    subscriber.loop_start()
    subscriber.subscribe("line/burst", 1)
    assert subscribed.wait(DEADLINE_S)
    sender = paho()
    sender.max_inflight_messages_set(0)
    sender.max_queued_messages_set(0)
    sender.connect("127.0.0.1", appliance.port)
    sender.loop_start()
    sent = [sender.publish("line/burst", str(number), qos=1) for number in range(BURST)]
    for info in sent:
        info.wait_for_publish(DEADLINE_S)
        assert info.is_published()
    until(lambda: len(recorded(appliance, "line/burst")) >= BURST, "all are recorded", DEADLINE_S)
    assert recorded(appliance, "line/burst") == list(range(BURST))
    until(lambda: len(got) >= BURST, "all are delivered", DEADLINE_S)
    assert got == list(range(BURST))
    for client in (sender, subscriber):
        client.disconnect()
        client.loop_stop()
    with urllib.request.urlopen(f"http://127.0.0.1:{appliance.metrics}/metrics") as answer:
        assert re.search(rb"^appliance_publishers_slowed_total [1-9]", answer.read(), re.MULTILINE)


@pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5])
@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_paho_publishes_after_a_pause(appliance, transport, version):
    """A client that is silent for a while after CONNECT is heard, over TCP and WebSocket, with MQTT
    3.1.1 and 5."""
    topic = f"line/{transport}/{version}"
    client = paho(transport, version)
    client.connect("127.0.0.1", appliance.web if transport == "websockets" else appliance.port)
    client.loop_start()
    until(client.is_connected, "paho connects", DEADLINE_S)
    for number in range(3):
        time.sleep(0.3)  # the loop waits for this socket alone
        info = client.publish(topic, str(number), qos=2)
        info.wait_for_publish(DEADLINE_S)
        assert info.is_published()
    client.disconnect()
    client.loop_stop()
    until(lambda: recorded(appliance, topic) == [0, 1, 2], "recorded", DEADLINE_S)


@pytest.mark.skipif(not shutil.which("mosquitto_pub"), reason="mosquitto_pub is not installed")
def test_mosquitto_pub_publishes(appliance):
    """The command of the README, with each quality of service and both versions."""
    for number in range(6):
        qos, version = number % 3, ("mqttv311", "mqttv5")[number // 3]
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(appliance.port), "-V", version]
        command += ["-q", str(qos), "-t", "line/mosquitto", "-m", str(number)]
        subprocess.run(command, check=True, timeout=DEADLINE_S)
    until(lambda: recorded(appliance, "line/mosquitto") == list(range(6)), "recorded", DEADLINE_S)
