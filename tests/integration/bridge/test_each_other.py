"""Two appliances, each with a bridge to the other one: messages do not go round between them."""

from __future__ import annotations

import contextlib

from appliance_process import free_port, until

from appliance.config.reading import loads
from appliance.counters import Counter
from appliance.engine.service import Appliance
from appliance.engine.view import View

CONFIG = """
[service]
name = "{name}"
data_dir = "{folder}/{name}"
[[listener]]
bind = "127.0.0.1:{own}"
[[bridge]]
name = "other"
host = "127.0.0.1"
port = {other}
version = "5"
[[bridge.publish]]
topic = "x/#"
"""


@contextlib.contextmanager
def running(folder, name, own, other):
    text = CONFIG.format(folder=folder.as_posix(), name=name, own=own, other=other)
    appliance = Appliance(loads(text, file=str(folder / "config.toml")))
    appliance.start()
    try:
        yield appliance
    finally:
        appliance.stop()


def bridged(appliance):
    return View(appliance).snapshot().bridges[0]


def journaled(appliance):
    """The payloads on the topics that both bridges send."""
    messages = View(appliance).live(0, 1000)
    return [each.payload for each in messages if each.topic.startswith("x/")]


def test_each_other(tmp_path):
    """What an appliance sent out and gets back from a client is acknowledged and dropped."""
    ports = free_port(), free_port()
    with (
        running(tmp_path, "one", *ports) as one,
        running(tmp_path, "two", *reversed(ports)) as two,
    ):
        for each in (one, two):
            until(lambda each=each: bridged(each).connected, "the bridges are connected")
        for qos in (0, 1):
            one.call(lambda qos=qos: one.door.publish("x/a", b"%d" % qos, qos=qos))
            two.call(lambda qos=qos: two.door.publish("x/b", b"%d" % (qos + 2), qos=qos))
        for each in (one, two):
            until(
                lambda each=each: each.counters[Counter.BRIDGE_MESSAGES_LEFT_OUT_LOOP] == 2,
                "what came back is dropped",
            )
            until(lambda each=each: bridged(each).lag == 0, "everything is acknowledged")
            until(
                lambda each=each: sorted(journaled(each)) == [b"0", b"1", b"2", b"3"],
                "each message is there once",
            )
