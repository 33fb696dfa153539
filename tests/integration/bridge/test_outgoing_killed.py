"""The appliance is killed while it sends: nothing is missing at the other broker."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from appliance_process import ApplianceProcess
from other_brokers import PASSWORD, USER, Mosquitto, Remote

MESSAGES = 2400
RATE = 1500
KILLS = (500, 1000, 1500)
MOST_REPEATS = 100 + 2 * RATE
"""Of one kill: what may be unacknowledged, and what is sent until the place is saved; the disk of
a busy machine may take its time."""

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[[bridge]]
name = "up"
host = "127.0.0.1"
port = REMOTE
username = "{user}"
password = "{password}"
version = "5"
max_rate = {rate}
publish = [{{topic = "out/#", remote_prefix = "site/"}}]
"""


@pytest.mark.campaign
def test_killed_while_sending(tmp_path):
    """Killed three times in the middle: every message arrives, in order, few of them twice."""
    with Mosquitto(tmp_path / "m") as remote, Remote(remote, "reader") as reader:
        reader.subscribe("site/#")
        text = CONFIG.format(user=USER, password=PASSWORD, rate=RATE)
        here = ApplianceProcess(tmp_path / "here", text.replace("REMOTE", str(remote.port)))
        with here:
            here.start()
            here.wait_for_line("is connected to")
            client = SimpleNamespace(host="127.0.0.1", port=here.port, users=False)
            with Remote(client, "press") as press:
                for number in range(MESSAGES):
                    press.publish("out/t", str(number))
                press.wait_acknowledged(MESSAGES)
            for count in KILLS:
                reader.wait(lambda count=count: len(set(reader.payloads())) >= count, "some come")
                here.kill()
                here.start()
            reader.wait(lambda: len(set(reader.payloads())) == MESSAGES, "all come")
            assert here.end() == 0
    arrived = [int(each) for each in reader.payloads()]
    assert list(dict.fromkeys(arrived)) == list(range(MESSAGES))
    repeats = sum(times - 1 for times in Counter(arrived).values())
    assert repeats <= MOST_REPEATS * len(KILLS)
