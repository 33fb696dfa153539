"""What a message may say, with the whole program: published over MQTT, started at the server, killed."""

from __future__ import annotations

import json

import paho.mqtt.client as mqtt
import pytest
from appliance_process import QUICK, ApplianceProcess, until

from appliance.model import TaskKind
from appliance.qlik.simulated import SimulatedQlik

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "client-managed"
url = "{url}"
header = {{name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}}
[allow]
names = ["Sales", "Preload", "Stock"]
apps = ["Bare"]
[[trigger]]
topic = "start"
task = "payload"
[[trigger]]
topic = "line/+/state"
task = {{name = "Sales"}}
when = {{payload = {{matches = "^On(line)?$"}}}}
[[trigger]]
topic = "temperature"
task = {{name = " Preload"}}
when = {{payload = {{">" = 20}}}}
"""


@pytest.fixture
def qlik():
    with SimulatedQlik() as server:
        server.site.app_duration_s = 0.2
        yield server


@pytest.fixture
def appliance(tmp_path, qlik):
    with ApplianceProcess(tmp_path, CONFIG.format(url=qlik.url), program=QUICK) as process:
        yield process


class Client:
    """A client of MQTT 5 that hears what it asked for."""

    def __init__(self, port: int) -> None:
        self.heard: list[dict] = []
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id="plc", protocol=mqtt.MQTTv5
        )
        self._client.on_message = lambda _c, _u, message: self.heard.append(
            json.loads(message.payload)
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        until(self._client.is_connected, "paho connects")
        self._client.subscribe("answers/plc", 1)

    def publish(self, topic: str, payload: object) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        properties = mqtt.Properties(mqtt.PacketTypes.PUBLISH)
        properties.ResponseTopic = "answers/plc"
        self._client.publish(topic, text, 1, properties=properties).wait_for_publish(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.campaign
def test_messages_start_what_they_say_and_nothing_else(appliance, qlik) -> None:
    """A plain payload, a number, a list as a whole, an app, a preload; the answers tell which."""
    sales = qlik.add_task("Sales", duration_s=0.1)
    preload = qlik.add_task("Preload", kind=TaskKind.PRELOAD, duration_s=0.1)
    stock = qlik.add_task("Stock ", duration_s=0.1)
    hidden = qlik.add_task("Hidden")
    bare, other = qlik.add_app("Bare"), qlik.add_app("Other")
    appliance.start()
    client = Client(appliance.port)
    for topic, payload in [
        ("line/7/state", "Offline"),
        ("line/7/state", "Online"),
        ("temperature", "19.5"),
        ("temperature", "21.5"),
        ("start", {"tasks": [sales.id, hidden.id], "allOrNothing": True}),
        ("start", {"tasks": [{"taskName": "Stock"}], "allOrNothing": True}),
        ("start", {"app": "Bare"}),
        ("start", {"appId": other}),
        ("start", {"taskId": sales.id, "variables": {"vDay": "1"}}),
    ]:
        client.publish(topic, payload)
    ended = ("succeeded", "rejected")
    until(lambda: len([one for one in client.heard if one["state"] in ended]) == 7, "seven answers")
    client.close()
    said = [one["reason"] for one in client.heard if one["state"] == "rejected"]
    assert len(said) == 3
    assert any("all or nothing" in one and hidden.id in one for one in said)
    assert any("[allow]" in one and other in one for one in said)
    assert any("takes no variables" in one for one in said)
    started = {one.name: qlik.starts(one.id) for one in (sales, preload, stock, hidden)}
    assert started == {"Sales": 1, "Preload": 1, "Stock ": 1, "Hidden": 0}
    assert (qlik.starts(bare), qlik.starts(other)) == (1, 0)


@pytest.mark.campaign
def test_a_killed_appliance_reloads_an_app_once(appliance, qlik) -> None:
    """The call has left when the process is killed; the next one finds the run and follows it."""
    app_id = qlik.add_app("Bare")
    qlik.site.app_duration_s = 3.0
    appliance.start()
    client = Client(appliance.port)
    client.publish("start", {"appId": app_id})
    assert qlik.wait_for(lambda: qlik.starts(app_id) == 1, 30)
    appliance.kill()
    client.close()
    appliance.start()
    again = Client(appliance.port)
    until(lambda: any("succeeded" in line for line in appliance.lines), "the run's end")
    again.close()
    assert qlik.starts() == 1
    assert len(qlik.site.runs()) == 1
