"""``appliance session list`` and ``end`` on a running appliance."""

from __future__ import annotations

import json
import time

import paho.mqtt.client as paho
import pytest
from appliance_process import DEADLINE_S, ApplianceProcess, until
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from appliance import cli
from appliance.broker.users import Users
from appliance.engine_api import ClientState
from appliance.ops.listed_sessions import page

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
"""


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        code = cli.main(["session", *arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out + err

    return run


class Device:
    """A client that keeps its session."""

    def __init__(self, port: int, client_id: str, user: str, will: str = "") -> None:
        self.reason = -1
        self.present: bool | None = None
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self.client.username_pw_set(user, "secret")
        if will:
            self.client.will_set(will, b"gone", qos=1)
        self.client.on_disconnect = self._gone
        self.client.on_connect = self._came
        lasting = Properties(PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, clean_start=False, properties=lasting)
        self.client.loop_start()
        until(lambda: self.present is not None, "CONNACK")

    def _came(self, _client, _data, flags, _reason, _properties) -> None:
        self.present = flags.session_present

    def _gone(self, _client, _data, _flags, reason, _properties) -> None:
        self.reason = reason.value

    def publish(self, topic: str) -> None:
        self.client.publish(topic, b"x", qos=1).wait_for_publish(DEADLINE_S)

    def leave(self) -> None:
        self.client.disconnect()
        until(lambda: self.reason >= 0, "the end of the connection")
        self.client.loop_stop()


def test_list_and_end(tmp_path, call, monkeypatch):
    """The list has what each session holds; an ended one is gone with its queue, also after a kill;
    its client is told why, and its will is published. Without an appliance there is an answer."""
    with ApplianceProcess(tmp_path, CONFIG) as process:
        users = Users(str(tmp_path / "users.txt"))
        for name in ("press", "line"):
            users.add(name, b"secret")
        code, told = call("list")
        assert (code, "No appliance runs" in told) == (69, True)
        process.start()
        watcher = Device(process.port, "watcher", "line")
        watcher.client.subscribe("will/#", qos=1)
        away = Device(process.port, "press:away", "press")
        away.client.subscribe([("t/1", 1), ("t/2", 1)])
        away.leave()
        here = Device(process.port, "press:here", "press", will="will/here")
        heard = []
        watcher.client.on_message = lambda _client, _data, message: heard.append(message.topic)
        for topic in ("t/1", "t/2", "t/1"):
            watcher.publish(topic)

        def listed(*arguments: str) -> dict[str, dict]:
            return {
                each["clientId"]: each for each in json.loads(call("list", "--json", *arguments)[1])
            }

        until(lambda: listed().get("press:away", {}).get("queued") == 3, "the queue in the list")
        found = listed("press")
        assert list(found) == ["press:away", "press:here"]
        assert found["press:here"]["isConnected"]
        assert found["press:away"]["subscriptions"] == ["t/1", "t/2"]
        assert abs(found["press:away"]["sinceNs"] / 1e9 - time.time()) < 60
        assert {key: found["press:away"][key] for key in ("user", "protocol", "expiryS")} == {
            "user": "press", "protocol": "5.0", "expiryS": 3600
        }  # fmt: skip
        assert found["press:away"]["queuedBytes"] > 0
        code, told = call("list", "away")
        assert code == 0
        assert told.splitlines()[0].split() == [
            "CLIENT", "USER", "MQTT", "CONNECTED", "SUBS", "QUEUED", "BYTES", "EXPIRY"
        ]  # fmt: skip
        assert told.splitlines()[1].split()[:4] == ["press:away", "press", "5.0", "until"]

        code, told = call("end", "nobody")
        assert (code, "Client nobody has no session" in told) == (64, True)
        code, told = call("end", "press:away")
        assert (code, "the session of press:away is ended; messages dropped: 3" in told) == (
            0,
            True,
        )
        assert "press:away" not in listed()
        assert call("end", "press:here")[0] == 0
        until(lambda: here.reason == 0x98, "the reason of the disconnection")
        here.client.loop_stop()
        until(lambda: heard == ["will/here"], "the will")
        process.kill()
        for device in (watcher, here, away):
            device.client.loop_stop()
        process.start()
        assert not Device(process.port, "press:away", "press").present
        assert not Device(process.port, "press:here", "press").present
        assert Device(process.port, "watcher", "line").present


def test_a_long_list_comes_in_pages(monkeypatch):
    """Each page goes on behind the last one, in order, and its topic filters are bounded."""
    monkeypatch.setattr("appliance.ops.listed_sessions._PAGE", 2)
    monkeypatch.setattr("appliance.ops.listed_sessions._FILTER_CHARACTERS", 25)
    filters = tuple((f"topic/{n:04}", 1) for n in range(30))
    clients = [ClientState(f"c{n}", "", "5.0", False, 1, subscriptions=filters) for n in (3, 1, 2)]
    first, more = page(clients, "")
    assert more
    assert [(each.client_id, len(each.subscriptions)) for each in first] == [("c1", 2), ("c2", 0)]
    assert first[0].subscription_count == 30
    last, more = page(clients, "c2")
    assert not more
    assert [each.client_id for each in last] == ["c3"]
