"""``appliance session list`` and ``end`` on a running appliance."""

from __future__ import annotations

import json
import time

import pytest
from appliance_process import ApplianceProcess, until
from broker_rig import Wire, hang_up

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


USER = {"username": "press", "password": b"secret"}


@pytest.mark.campaign
async def test_list_and_end(tmp_path, call):
    """The list has what each session holds; an ended one is gone with its queue, its client is told
    why, and its will is published. Where no appliance runs, that is the answer."""
    with ApplianceProcess(tmp_path, CONFIG) as process:
        Users(str(tmp_path / "users.txt")).add("press", b"secret")
        assert call("list")[0] == 69
        code, told = call("end", "press:away")
        assert (code, "Sessions are listed and ended while it runs" in told) == (69, True)
        process.start()
        watcher, away, here = [await Wire.open(process.port, 5) for _ in range(3)]
        await watcher.connect("watcher", **USER)
        await watcher.subscribe(("will/#", 1))
        await away.connect("press:away", clean=False, expiry=3600, **USER)
        await away.subscribe(("t/1", 1), ("t/2", 1))
        away.disconnect()
        await away.closed()
        await here.connect("press:here", clean=False, will=("will/here", b"w", 1, False), **USER)
        for topic in ("t/1", "t/2", "t/1"):
            await watcher.publish_acked(topic, b"x", 1)

        def listed(*arguments: str) -> dict[str, dict]:
            found = json.loads(call("list", "--json", *arguments)[1])
            return {each["clientId"]: each for each in found}

        until(lambda: listed().get("press:away", {}).get("queued") == 3, "the queue in the list")
        found = listed("PRESS:")
        assert list(found) == ["press:away", "press:here"]
        assert found["press:here"]["isConnected"]
        assert found["press:away"]["subscriptions"] == ["t/1", "t/2"]
        assert abs(found["press:away"]["sinceNs"] / 1e9 - time.time()) < 60
        assert {key: found["press:away"][key] for key in ("user", "protocol", "expiryS")} == {
            "user": "press", "protocol": "5.0", "expiryS": 3600
        }  # fmt: skip
        assert found["press:away"]["queuedBytes"] > 0
        assert found["press:here"]["expiryS"] == 90 * 86400
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
        assert (await here.closed()).body[0] == 0x98
        assert (await watcher.message()).topic == "will/here"
        await hang_up()


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
