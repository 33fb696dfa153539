"""The system's clock is set while the real process runs, and between two runs."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import certificates
import paho.mqtt.client as mqtt
import pytest
from appliance_process import until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from set_clock import ProcessWithSetClock

from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles

pytestmark = pytest.mark.campaign
HOUR = 3600
STEPS = (-5 * HOUR, 48 * HOUR)

CONFIG = (
    """
[service]
data_dir = "data"
will_grace = "1s"
[journal]
keep = "1d"
[[listener]]
bind = "127.0.0.1:PORT"
"""
    + certificates.QLIK_CONFIG
    + """
[[trigger]]
topic = "start/plain"
task = "payload"
[[trigger]]
topic = "start/debounce"
task = "payload"
debounce = "3s"
[[trigger]]
topic = "start/cooldown"
task = "payload"
cooldown = "4s"
[[recorder]]
topic = "tick"
path = "recordings/ticks.json"
[[timer]]
name = "tick"
every = "1s"
publish = {{topic = "tick", payload = "1"}}
[[timer]]
name = "quiet"
silence = "1h"
topic = "start/#"
"""
)


@pytest.fixture
def qlik(tmp_path: Path) -> Iterator[SimulatedQlik]:
    """A Qlik server whose own clock is right all the time."""
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    with SimulatedQlik(tls=tls) as simulated:
        yield simulated


@pytest.fixture
def appliance(tmp_path: Path, qlik: SimulatedQlik) -> Iterator[ProcessWithSetClock]:
    with ProcessWithSetClock(tmp_path, CONFIG.format(url=qlik.url)) as process:
        yield process


def seconds(name: str, kind: int, value: int) -> Properties:
    found = Properties(kind)
    setattr(found, name, value)
    return found


class Client:
    """A client of MQTT 5 that notes what it gets."""

    def __init__(self, port: int, name: str, *, keep_s: int = 0, will_s: int = 0) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.expiries: list[int] = []
        self.resumed: bool | None = None
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
        self.client.on_message = self._on_message
        self.client.on_connect = self._on_connect
        if will_s:
            delay = seconds("WillDelayInterval", PacketTypes.WILLMESSAGE, will_s)
            self.client.will_set("will", name, 1, properties=delay)
        connect = seconds("SessionExpiryInterval", PacketTypes.CONNECT, keep_s)
        self.client.connect("127.0.0.1", port, clean_start=False, properties=connect)
        self.client.loop_start()
        until(lambda: self.resumed is not None, f"{name} connects")

    def _on_connect(self, _client, _data, flags, *_more) -> None:
        self.resumed = flags.session_present

    def _on_message(self, _client, _data, message: mqtt.MQTTMessage) -> None:
        self.got.append((message.topic, message.payload))
        self.expiries.append(getattr(message.properties, "MessageExpiryInterval", 0))

    def subscribe(self, topic: str) -> None:
        done = threading.Event()
        self.client.on_subscribe = lambda *_: done.set()
        self.client.subscribe(topic, 1)
        assert done.wait(10)

    def publish(self, topic: str, payload: str, expiry_s: int = 0) -> None:
        properties = None
        if expiry_s:
            properties = seconds("MessageExpiryInterval", PacketTypes.PUBLISH, expiry_s)
        info = self.client.publish(topic, payload, 1, properties=properties)
        info.wait_for_publish(10)
        assert info.is_published()

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Go without a word, so that the will counts."""
        self.client.loop_stop()
        self.client.socket().close()


@contextlib.contextmanager
def acknowledged(client: Client) -> Iterator[list[float]]:
    """Publishes all the time; how long each acknowledgement took, in seconds."""
    times: list[float] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.02):
            began = time.monotonic()
            client.publish("load", "x")
            times.append(time.monotonic() - began)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()


def said(appliance: ProcessWithSetClock) -> list[str]:
    return [line for line in appliance.lines if "clock was set" in line]


def ticks(appliance: ProcessWithSetClock) -> int:
    return len(json.loads((appliance.data / "recordings" / "ticks.json").read_text("utf-8")))


def test_the_appliance_is_well_while_its_clock_is_set(appliance: ProcessWithSetClock) -> None:
    """Monitors and operators ask a second after the clock was set, back and forward: the answer is
    "ok", a reload is done, and each step is one line of the log."""
    appliance.start()
    until(lambda: (appliance.data / "health.json").exists(), "the first report")
    for number, ahead_s in enumerate((*STEPS, 0), 1):
        appliance.clock.set(ahead_s)
        until(lambda number=number: len(said(appliance)) == number, f"{ahead_s} s are noticed")
        for command in ("health", "reload", "health"):
            done = appliance.command(command)
            assert done.returncode in (0, 69 if command == "health" else 0), done
            assert "has not said anything" not in done.stdout, (ahead_s, done.stdout)
    assert len(said(appliance)) == 3
    assert appliance.end() == 0


@pytest.mark.parametrize("ahead_s", STEPS)
def test_waits_in_the_process_keep_their_length(
    appliance: ProcessWithSetClock, qlik: SimulatedQlik, ahead_s: int
) -> None:
    """Each kind of wait runs while the clock is set: debounce, cooldown, a server that is away,
    sessions, messages that expire, a delayed will, timers. None ends at once, none waits for hours;
    publishers are acknowledged all the time, and the log has one line about it."""
    tasks = {name: qlik.add_task(name, duration_s=0.1).id for name in ("a", "b", "c", "d")}
    appliance.start()
    port = appliance.port
    watch = Client(port, "watch")
    watch.subscribe("will")
    for name, keep_s in (("stays", HOUR), ("goes", 4)):
        absent = Client(port, name, keep_s=keep_s)
        absent.subscribe("queued")
        absent.leave()
    publisher = Client(port, "publisher")
    publisher.publish("queued", "short", expiry_s=3)
    publisher.publish("queued", "long", expiry_s=HOUR)
    publisher.publish("start/cooldown", tasks["a"])
    assert qlik.wait_for(lambda: qlik.starts(tasks["a"]) == 1)
    until(lambda: ticks(appliance) > 1, "the timer fires")

    vanished = Client(port, "vanished", keep_s=HOUR, will_s=3)
    vanished.vanish()
    publisher.publish("start/cooldown", tasks["a"])
    publisher.publish("start/debounce", tasks["b"])
    began, before = time.monotonic(), ticks(appliance)
    appliance.clock.set(ahead_s)
    with acknowledged(publisher) as times:
        until(lambda: said(appliance), "the step is said")
        assert not watch.got
        assert (qlik.starts(tasks["a"]), qlik.starts(tasks["b"])) == (1, 0)
        assert qlik.wait_for(lambda: qlik.starts(tasks["b"]) == 1)
        assert 2.5 < time.monotonic() - began < 6
        assert qlik.wait_for(lambda: qlik.starts(tasks["a"]) == 2)
        until(lambda: watch.got == [("will", b"vanished")], "the will is published")
        assert 2.5 < time.monotonic() - began < 8
        assert (ticks(appliance) - before) <= time.monotonic() - began + 2
        qlik.refuse()
        publisher.publish("start/plain", tasks["c"])
        until(lambda: "not running" not in appliance.command("tasks").stdout, "commands answer")
        appliance.clock.set(0)
        until(lambda: len(said(appliance)) == 2, "the step back is said")
        qlik.heal()
        assert qlik.wait_for(lambda: qlik.starts(tasks["c"]) == 1, 8)
        count = ticks(appliance)
        until(lambda: ticks(appliance) > count + 1, "the timer goes on", 5)
    assert max(times) < 1.0, "a publisher waited"
    stays = Client(port, "stays", keep_s=HOUR)
    until(lambda: stays.got, "what waited is delivered")
    assert (stays.resumed, stays.got) == (True, [("queued", b"long")])
    assert HOUR - 60 < stays.expiries[0] < HOUR
    assert Client(port, "goes").resumed is False
    done = appliance.command("export", "--limit", "3")
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [1, 2, 3], done
    assert appliance.end() == 0
    assert len(said(appliance)) == 2
    assert not [line for line in appliance.lines if "Traceback" in line or "error" in line.lower()]
    assert len(appliance.lines) < 60, "the log is flooded"


def test_waits_go_on_over_restarts_with_another_clock(
    appliance: ProcessWithSetClock, qlik: SimulatedQlik
) -> None:
    """The clock is five hours behind at the next start, and two days ahead at the one after a kill:
    what waited for a debounce starts soon, sessions and messages are kept as long as they should,
    and nothing that is recent is deleted for its age."""
    tasks = {name: qlik.add_task(name, duration_s=0.1).id for name in ("a", "b")}
    appliance.start()
    for name, keep_s in (("stays", HOUR), ("goes", 4)):
        absent = Client(appliance.port, name, keep_s=keep_s)
        absent.subscribe("queued")
        absent.leave()
    publisher = Client(appliance.port, "publisher")
    publisher.publish("queued", "short", expiry_s=3)
    publisher.publish("queued", "long", expiry_s=HOUR)
    publisher.publish("start/debounce", tasks["a"])
    publisher.leave()
    assert appliance.end() == 0
    appliance.clock.set(-5 * HOUR)
    appliance.start()
    assert qlik.wait_for(lambda: qlik.starts(tasks["a"]) == 1)
    count = ticks(appliance)
    until(lambda: ticks(appliance) > count + 1, "the timer goes on", 6)
    until(lambda: "goes" not in sessions(appliance), "a session ends in its time", 8)
    publisher = Client(appliance.port, "publisher")
    publisher.publish("start/debounce", tasks["b"])
    publisher.leave()
    stays = Client(appliance.port, "stays", keep_s=HOUR)
    until(lambda: stays.got, "what waited is delivered")
    assert (stays.resumed, stays.got) == (True, [("queued", b"long")])
    assert HOUR - 60 < stays.expiries[0] < HOUR
    stays.leave()
    publisher = Client(appliance.port, "publisher")
    publisher.publish("queued", "later", expiry_s=HOUR)
    publisher.leave()
    appliance.kill()
    appliance.clock.set(48 * HOUR)
    appliance.start()
    assert len(said(appliance)) == 1
    assert qlik.wait_for(lambda: qlik.starts(tasks["b"]) == 1)
    count = ticks(appliance)
    until(lambda: ticks(appliance) > count + 1, "the timer goes on", 6)
    stays = Client(appliance.port, "stays", keep_s=HOUR)
    until(lambda: stays.got, "what waited is delivered")
    assert (stays.resumed, stays.got) == (True, [("queued", b"later")])
    assert HOUR - 60 < stays.expiries[0] < HOUR
    done = appliance.command("export", "--limit", "3")
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [1, 2, 3], done
    assert appliance.command("health").returncode == 0
    assert appliance.end() == 0
    assert qlik.starts(tasks["a"]) == 1
    assert not [line for line in appliance.lines if "Traceback" in line]


def sessions(appliance: ProcessWithSetClock) -> str:
    """The names of sessions that the journal's database has."""
    import sqlite3  # noqa: PLC0415

    with contextlib.closing(sqlite3.connect(appliance.data / "journal.db")) as database:
        return str(database.execute("SELECT client_id FROM session").fetchall())
