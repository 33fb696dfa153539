"""`appliance replay` and `appliance stats` on the real engine, and replays to another broker."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import paho.mqtt.client as paho
import pytest
from appliance_process import QUICK, ApplianceProcess, free_port, until
from paho.mqtt.properties import Properties
from paho.mqtt.packettypes import PacketTypes

from appliance import cli
from appliance.commands import replay
from appliance.mqtt.client import Client, Target

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "simulated"
[[trigger]]
topic = "start/#"
task = {name = "Copy files"}
[[trigger]]
topic = "again/start/#"
task = {name = "Copy files"}
"""


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplianceProcess]:
    """One for all tests: each has topics of its own."""
    running = ApplianceProcess(tmp_path_factory.mktemp("site"), CONFIG, program=QUICK).start()
    yield running
    running.kill()


@pytest.fixture
def run(
    appliance: ApplianceProcess, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; gives exit code, standard output and standard error."""

    def execute(*arguments: str) -> tuple[int, str, str]:
        code = cli.main([*arguments, "-c", str(appliance.config)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return execute


class Listener:
    """A subscriber of MQTT 5 that keeps what it gets."""

    def __init__(self, port: int, topic: str) -> None:
        self.got: list[paho.MQTTMessage] = []
        ready = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_message = lambda _client, _data, message: self.got.append(message)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe(topic, 2)
        assert ready.wait(30)

    def wait(self, count: int) -> list[paho.MQTTMessage]:
        until(lambda: len(self.got) >= count, f"{count} messages")
        return self.got

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def send(port: int, *messages: tuple[str, bytes, int], client: str = "press-7") -> None:
    with Client(Target("127.0.0.1", port, client)) as sender:
        for topic, payload, qos in messages:
            sender.publish(topic, payload, qos=qos, retain=False)


def pairs(message: paho.MQTTMessage) -> dict[str, str]:
    return dict(getattr(message.properties, "UserProperty", []))


Run = Callable[..., tuple[int, str, str]]


def test_a_replay_is_what_was_published_and_marked(appliance: ApplianceProcess, run: Run) -> None:
    """Topic behind the prefix, payload, QoS and properties are the message's, in its order."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "text/plain"
    properties.UserProperty = [("line", "7")]
    sender = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    sender.connect("127.0.0.1", appliance.port)
    sender.loop_start()
    for number in range(30):
        payload = b"\x00\xff%d" % number
        sent = sender.publish(f"plant/{number}", payload, number % 3, False, properties)
        sent.wait_for_publish(30)
    sender.disconnect()
    sender.loop_stop()
    listener = Listener(appliance.port, "again/plant/#")
    code, _, said = run("replay", "--prefix", "again/", "--speed", "max", "-t", "plant/#")
    assert (code, "30 messages replayed" in said) == (0, True), said
    # A subscriber has a message of QoS 2 only after a second exchange.
    got = sorted(listener.wait(30), key=lambda one: int(pairs(one)["appliance-replay"]))
    listener.close()
    assert [(one.topic, one.payload, one.qos) for one in got] == [
        (f"again/plant/{number}", b"\x00\xff%d" % number, number % 3) for number in range(30)
    ]
    assert all(one.properties.ContentType == "text/plain" for one in got)
    assert all(pairs(one)["line"] == "7" for one in got)


def test_a_replay_starts_nothing_unless_it_is_asked_for(
    appliance: ApplianceProcess, run: Run
) -> None:
    """The trigger listens on the replayed topic, and only --start-tasks makes it act."""
    send(appliance.port, ("start/a", b"", 1))
    appliance.wait_for_line("on start/a")
    asked = ("replay", "--prefix", "again/", "-t", "start/#")
    assert run(*asked)[0] == 0
    send(appliance.port, ("again/start/behind", b"", 1))  # triggers take messages in order
    appliance.wait_for_line("on again/start/behind")
    assert not [line for line in appliance.lines if "on again/start/a" in line]
    assert run(*asked, "--start-tasks")[0] == 0
    appliance.wait_for_line("on again/start/a")


@pytest.mark.posix("Ctrl+C is SIGINT")
def test_ctrl_c_ends_in_order_and_the_rest_follows(appliance: ApplianceProcess, run: Run) -> None:
    """Together both parts are every message once, in order."""
    send(appliance.port, *((f"cut/{number}", b"%d" % number, 1) for number in range(100)))
    listener = Listener(appliance.port, "again/cut/#")
    begun = subprocess.Popen(
        [sys.executable, "-m", "appliance", "replay", "-c", str(appliance.config)]
        + ["-t", "cut/#", "--prefix", "again/", "--speed", "0.05"],
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    listener.wait(3)
    begun.send_signal(signal.SIGINT)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == 130
    [after] = re.findall(r"--after (\d+)", said)
    rest = ("-t", "cut/#", "--prefix", "again/", "--speed", "max", "--after", after)
    code, _, said = run("replay", *rest)
    assert code == 0, said
    got = [int(one.payload) for one in listener.wait(100)]
    listener.close()
    assert got == list(range(100))


def numbers(run: Run, topic: str) -> tuple[int, int]:
    """First and last number of the messages of a topic."""
    found = json.loads(run("stats", "-t", topic, "--json")[1])
    return found["firstSequence"], found["lastSequence"]


@contextlib.contextmanager
def other_broker(serve: Callable[..., None], *arguments: object) -> Iterator[tuple[str, ...]]:
    """Let ``serve(server, *arguments)`` take a connection; gives the options that lead to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=serve, args=(server, *arguments), daemon=True)
        serving.start()
        yield "--host", "127.0.0.1", "--port", str(server.getsockname()[1])
        serving.join(30)


def test_a_broker_that_goes_away_leaves_a_number_to_go_on_with(
    appliance: ApplianceProcess, run: Run
) -> None:
    """Exit code 69, and the number is that of the last acknowledged message."""
    send(appliance.port, *((f"lost/{number}", b"x", 1) for number in range(20)))
    # Not counted on from the first: the broker's own messages have numbers in between.
    _, seventh = numbers(run, "lost/6")
    with other_broker(_take_some, 7) as to:
        code, _, said = run("replay", "-t", "lost/#", "--speed", "max", *to)
    assert code == 69
    assert "7 messages replayed" in said
    assert f"--after {seventh}\n" in said


def _take_some(server: socket.socket, count: int) -> None:
    """Accept a connection, acknowledge so many messages, and end it."""
    connection, _ = server.accept()
    with connection, connection.makefile("rwb") as stream:
        _packet(stream)
        stream.write(b"\x20\x03\x00\x00\x00")
        stream.flush()
        for _ in range(count):
            body = _packet(stream)
            size = int.from_bytes(body[:2], "big")
            stream.write(b"\x40\x02" + body[2 + size : 4 + size])
        stream.flush()
        connection.shutdown(socket.SHUT_WR)
        stream.read()  # else the system would drop what is not sent yet


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        (b"\xd0\x00" * 3000, 69, "did not answer within"),
        (b"\x40\x02\x77\x77", 69, "does not answer as an MQTT broker does"),
        (b"\x40\xff\xff\xff\x7f", 69, "does not answer as an MQTT broker does"),
        (b"\x30\x05\x00\x01a\x00x", 69, "does not answer as an MQTT broker does"),
        (b"\xe0\x01\x87", 77, "not authorized"),
    ],
    ids=["pings only", "another message", "huge", "a message", "disconnect"],
)
def test_a_broker_that_acknowledges_nothing_ends_the_replay(
    appliance: ApplianceProcess, run: Run, answers: bytes, code: int, said: str
) -> None:
    """Whatever else it says, and for however long."""
    send(appliance.port, ("hostile/1", b"x", 1))
    with other_broker(_say, answers) as to:
        to += ("--timeout", "1s" if said.startswith("did not") else "30s")
        found, _, told = run("replay", "-t", "hostile/#", "--speed", "max", *to)
    assert (found, said in told) == (code, True), told


def test_the_message_at_which_the_connection_fails_counts_once(
    appliance: ApplianceProcess, run: Run
) -> None:
    """It is under way and not replayed, so that no number is below zero."""
    send(appliance.port, *((f"fails/{number}", b"x", 1) for number in range(70)))
    first, _ = numbers(run, "fails/#")
    with other_broker(_say, b"", b"\x20\x03\x00\x00\x00\x40\x02\x77\x77") as to:
        chosen = ("-t", "fails/#", "--after", str(first - 1))
        code, _, said = run("replay", *chosen, "--speed", "max", *to)
    assert code == 69
    assert "\n0 messages replayed\n" in said
    assert f"--after {first - 1}\n" in said


def _say(server: socket.socket, answers: bytes, hello: bytes = b"\x20\x03\x00\x00\x00") -> None:
    """Accept a connection, and answer everything with this until it ends."""
    connection, _ = server.accept()
    # Outermost, because what is closed may still have something to send.
    with contextlib.suppress(OSError), connection, connection.makefile("rwb") as stream:
        _packet(stream)
        stream.write(hello)
        stream.flush()
        while _packet(stream):
            stream.write(answers)
            stream.flush()


def _packet(stream: BinaryIO) -> bytes:
    """The body of the next packet; nothing at the end."""
    if not stream.read(1):
        return b""
    size = shift = 0
    while True:
        [byte] = stream.read(1)
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return stream.read(size)


def test_a_broker_without_the_mark_gets_nothing(appliance: ApplianceProcess, run: Run) -> None:
    """MQTT 3.1.1 can't say that a message is a replay, so starts must be asked for."""
    send(appliance.port, ("old/1", b"x", 1))
    topics: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve_3_1_1, args=(server, topics), daemon=True).start()
        to = ("--host", "127.0.0.1", "--port", str(server.getsockname()[1]), "--speed", "max")
        code, _, said = run("replay", "-t", "old/#", *to)
        assert (code, "--start-tasks" in said) == (64, True), said
        assert not topics
        assert run("replay", "-t", "old/#", "--start-tasks", *to)[0] == 0
        assert topics == ["old/1"]


def _serve_3_1_1(server: socket.socket, topics: list[str]) -> None:
    """Speak MQTT 3.1.1 only, and acknowledge everything."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, connection.makefile("rwb") as stream:
            is_old = _packet(stream)[6] == 4
            stream.write(b"\x20\x02\x00\x00" if is_old else b"\x20\x02\x00\x01")
            stream.flush()
            while is_old and (body := _packet(stream)):
                size = int.from_bytes(body[:2], "big")
                topics.append(body[2 : 2 + size].decode())
                stream.write(b"\x40\x02" + body[2 + size : 4 + size])
                stream.flush()


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto")
def test_another_broker_gets_the_topics_as_they_were(
    appliance: ApplianceProcess, run: Run, tmp_path: Path
) -> None:
    """A range by client and number, to mosquitto, which speaks MQTT 5."""
    send(appliance.port, *((f"far/{number}", b"", 1) for number in range(10)))
    send(appliance.port, ("far/other", b"", 1), client="another")
    port = free_port()
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    other = subprocess.Popen(["mosquitto", "-c", str(tmp_path / "mosquitto.conf")])
    try:
        until(lambda: socket.create_connection(("127.0.0.1", port)).close() is None, "mosquitto")
        listener = Listener(port, "#")
        after = str(numbers(run, "far/0")[1])
        to = ("--speed", "max", "--host", "127.0.0.1", "--port", str(port))
        code, _, said = run("replay", "--client", "press-*", "--after", after, *to)
        assert code == 0, said
        assert [one.topic for one in listener.wait(9)] == [f"far/{n}" for n in range(1, 10)]
        listener.close()
    finally:
        other.terminate()
        other.wait(30)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--prefix"),
        (("--prefix", "appliance/x/"), "the appliance's own"),
        (("--prefix", "a/#/"), "no wildcards"),
        (("--prefix", "a/", "--speed", "fast"), "--speed fast: write how many times"),
        (("--prefix", "a/", "--speed", "0"), "--speed 0"),
        (("--prefix", "a/", "--since", "soon"), "--since soon: write how long ago"),
        (("--prefix", "a/", "--since", "1h", "--until", "2h"), "--since is not before"),
        (("--prefix", "a/", "-t", "a/#/b"), "-t a/#/b"),
    ],
)
def test_wrong_options_are_said(run: Run, arguments: tuple[str, ...], said: str) -> None:
    """Exit code 64, and what to write; nothing is sent."""
    code, _, answer = run("replay", *arguments)
    assert (code, said in answer) == (64, True), answer


def test_a_pace_keeps_the_distances() -> None:
    """At the given speed, from the first message on; a clock set back holds nothing up."""
    now = [100.0]
    pace = replay.Pace(10.0, lambda: now[0])
    second = 1_000_000_000
    assert pace.wait_s(5 * second) == 0
    assert pace.wait_s(25 * second) == 2.0
    now[0] += 3
    assert pace.wait_s(25 * second) == 0
    assert pace.wait_s(1 * second) == 0
    assert replay.Pace(replay.speed_of("max"), lambda: now[0]).wait_s(9 * second) == 0


def test_stats_count_what_was_published(appliance: ApplianceProcess, run: Run) -> None:
    """Topics and clients with their sizes, as JSON and in 80 columns."""
    sizes = range(40)
    send(appliance.port, *((f"count/{n % 4}/{'long' * 30}", b"x" * n, 1) for n in sizes))
    found = json.loads(run("stats", "-t", "count/#", "--json")[1])
    assert (found["messages"], found["bytes"], found["largest"]) == (40, sum(sizes), 39)
    assert [one["messages"] for one in found["topics"]] == [10] * 4
    assert [(one["client"], one["messages"]) for one in found["clients"]] == [("press-7", 40)]
    shown = run("stats", "-t", "count/#", "--top", "2")[1]
    assert max(map(len, shown.splitlines())) <= 80
    assert "40 messages, 780 B of payloads" in shown
    assert "and 2 more with 20 messages" in shown
    assert "no message" in run("stats", "--until", "2001-01-01")[1]
