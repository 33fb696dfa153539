"""`appliance publish` against real brokers, and against servers that misbehave."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import certificates
import paho.mqtt.client as paho
import pytest
from appliance_process import free_port

from appliance import cli
from appliance.mqtt.client import Client, Target

pytestmark = pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a mosquitto with further configuration lines; gives its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*lines: str) -> int:
        port = free_port()
        config = tmp_path / f"mosquitto-{port}.conf"
        # listener first: what follows is about it
        config.write_text("\n".join([f"listener {port} 127.0.0.1", "user root", *lines]))
        process = subprocess.Popen(
            ["mosquitto", "-c", str(config)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:  # it says so when it listens
            if b"running" in line:
                return port
        raise AssertionError(f"mosquitto did not start: {config.read_text()}")

    yield start
    for process in started:
        process.terminate()
        process.wait(10)
        process.stderr.close()


class Server:
    """A server on loopback that does to each connection what a test says."""

    def __init__(self, *handlers: Callable[[socket.socket], None]) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, args=(handlers,), daemon=True)
        self._thread.start()

    def _serve(self, handlers: tuple[Callable[[socket.socket], None], ...]) -> None:
        for handler in handlers:
            connection, _ = self._listening.accept()
            with connection:
                self.received.append(connection.recv(65536))
                if self.received[-1]:  # else it is close()
                    handler(connection)

    def close(self) -> None:
        while self._thread.is_alive():  # an accept does not end when its socket is closed
            socket.create_connection(("127.0.0.1", self.port)).close()
            self._thread.join(0.05)
        self._listening.close()


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(*handlers: Callable[[socket.socket], None]) -> Server:
        made.append(Server(*handlers))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def publish(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*arguments: object) -> tuple[int, str]:
        code = cli.main(["publish", *map(str, arguments)])
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return code, err

    return call


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_arrives_as_it_was_given(broker, publish, qos: int) -> None:
    """Topic, payload, QoS and retain arrive; the command ends when the broker has the message."""
    port = broker("allow_anonymous true")
    arrived: list[paho.MQTTMessage] = []
    ready, done = threading.Event(), threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda c, *_: c.subscribe("#", 2)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda c, u, message: (arrived.append(message), done.set())
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert ready.wait(10)
        text = "Grüße, 100 %"
        assert publish(
            "-t", "plant/Müller", "-m", text, "-q", qos, "-r", "--host", "127.0.0.1",
            "--port", port,
        ) == (0, "")  # fmt: skip
        assert done.wait(10)
    finally:
        client.disconnect()
        client.loop_stop()
    [message] = arrived
    assert (message.topic, message.payload.decode(), message.qos) == ("plant/Müller", text, qos)


def test_a_payload_comes_from_a_file(broker, publish, tmp_path: Path) -> None:
    """Any bytes of a file are the payload, also more than fit into one read."""
    port = broker("allow_anonymous true")
    file = tmp_path / "payload"
    file.write_bytes(bytes(range(256)) * 4000)
    where = ("--host", "127.0.0.1", "--port", port)
    assert publish("-t", "a", "--file", file, "-r", *where) == (0, "")
    got = subprocess.run(
        ["mosquitto_sub", "-p", str(port), "-t", "a", "-C", "1", "-N", "-W", "10"],
        capture_output=True,
        check=True,
    )
    assert got.stdout == file.read_bytes()


def test_a_broker_that_wants_a_password_gets_one(broker, publish, tmp_path, monkeypatch) -> None:
    """A wrong or missing password ends with 77 and says what to do; the right one passes."""
    users = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "plc", "right"], check=True)
    port = broker("allow_anonymous false", f"password_file {users}")
    arguments = ("-t", "a", "-m", "x", "--host", "127.0.0.1", "--port", port)
    code, err = publish(*arguments)
    assert code == 77
    assert "refused the connection" in err
    assert "-u NAME" in err
    for password, expected in (("wrong", 77), ("right", 0)):
        reader = tmp_path / "typed"
        reader.write_text(f"{password}\n")
        with reader.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            code, err = publish(*arguments, "-u", "plc", "--password-stdin")
        assert code == expected
        assert password not in err.replace("wrong user name", "")


def test_a_topic_that_is_not_allowed_is_a_refusal(broker, publish, tmp_path: Path) -> None:
    """A broker that takes no message on the topic says so, and so does the command: 77."""
    rules = tmp_path / "acl"
    rules.write_text("topic write allowed/#\n")
    port = broker("allow_anonymous true", f"acl_file {rules}")
    where = ("-m", "x", "--host", "127.0.0.1", "--port", port)
    assert publish("-t", "allowed/a", *where) == (0, "")
    for qos in (1, 2):
        code, err = publish("-t", "other", "-q", qos, *where)
        assert code == 77
        assert "refused the message: not authorized" in err


def test_the_listener_of_the_configuration_is_found(
    broker, publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --host the message goes to the first TCP listener of the configuration."""
    port = broker("allow_anonymous true")
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text(
        "[[listener]]\nbind = '127.0.0.1:1'\ntransport = 'websocket'\n"
        f"[[listener]]\nbind = '0.0.0.0:{port}'\n[access]\nusers_file = 'users.txt'\n"
    )
    assert publish("-t", "a", "-m", "x") == (0, "")
    config.write_text("[[listener]]\nbind = '127.0.0.1:0'\n")
    code, err = publish("-t", "a", "-m", "x")
    assert code == 64
    assert "--host" in err


def test_tls_is_verified_and_its_failures_are_explained(
    broker, publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown certificate is refused with the way out; the configuration's own is trusted."""
    files = certificates.make(tmp_path / "tls")
    tls = (f"certfile {files.server}", f"keyfile {files.server_key}")
    port = broker("allow_anonymous true", *tls)
    where = ("-t", "a", "-m", "x", "--port", port, "--host", "localhost")
    assert publish(*where, "--ca-file", files.root) == (0, "")
    code, err = publish(*where, "--tls")
    assert code == 69
    assert "--ca-file" in err
    code, err = publish(*where, "--ca-file", certificates.make(tmp_path / "other").root)
    assert code == 69
    assert "not trusted" in err
    code, err = publish(*where, "--ca-file", tmp_path / "none.pem")
    assert code == 78
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(
        f"[[listener]]\nbind = '127.0.0.1:{port}'\n"
        "tls = {certfile = 'tls/server.pem', keyfile = 'tls/server_key.pem'}\n"
    )
    assert publish("-t", "a", "-m", "x") == (0, "")
    plain = broker("allow_anonymous true")
    code, err = publish("-t", "a", "-m", "x", "--host", "localhost", "--port", plain, "--tls")
    assert code == 69
    assert re.search("is this a TLS port|does not speak TLS", err)


def test_a_broker_that_wants_a_client_certificate_gets_one(broker, publish, tmp_path) -> None:
    """With --certfile and --keyfile it passes; without, the error says what may be missing."""
    files = certificates.make(tmp_path / "tls")
    port = broker(
        "allow_anonymous true",
        f"certfile {files.server}",
        f"keyfile {files.server_key}",
        f"cafile {files.root}",
        "require_certificate true",
    )
    where = ("-t", "a", "-m", "x", "--port", port, "--host", "localhost", "--ca-file", files.root)
    assert publish(*where, "--certfile", files.client, "--keyfile", files.client_key) == (0, "")
    code, err = publish(*where)
    assert code == 69
    assert "--certfile" in err


def test_an_old_broker_is_spoken_to_in_its_language(server, publish) -> None:
    """A broker that knows MQTT 3.1.1 only gets its message, in 3.1.1."""

    def refuse(connection: socket.socket) -> None:
        connection.sendall(b"\x20\x02\x00\x01")  # CONNACK: unacceptable protocol version

    def accept(connection: socket.socket) -> None:
        connection.sendall(b"\x20\x02\x00\x00")
        packet = connection.recv(65536)
        assert packet == b"\x32\x06\x00\x01a\x00\x01x"
        connection.sendall(b"\x40\x02\x00\x01")
        connection.recv(65536)

    old = server(refuse, accept)
    assert publish("-t", "a", "-m", "x", "--host", "127.0.0.1", "--port", old.port) == (0, "")
    assert [each[6:9] for each in (data[2:] for data in old.received)] == [
        b"\x05\x02\x00",
        b"\x04\x02\x00",
    ]


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (lambda c: c.recv(1), "did not answer within 0.5 s"),
        (lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not answer as an MQTT broker"),
        (lambda c: c.sendall(b"\x20\xff\xff\xff\x7f"), "not answer as an MQTT broker"),
        (lambda c: c.sendall(b"\x20\x03\x00\x89\x00"), "it is busy; try again later"),
        (lambda c: c.sendall(b"\x20\x03\x00\xe9\x00"), "reason code 0xe9"),
        (
            lambda c: (c.sendall(b"\x20\x03\x00\x00\x00"), c.recv(99)),
            "instead of taking the message",
        ),
        (
            lambda c: (c.sendall(b"\x20\x03\x00\x00\x00"), c.sendall(b"\xe0\x01\x95"), c.recv(99)),
            "refused the message: the message is too large",
        ),
    ],
    ids=["hung", "http", "huge", "busy", "unknown", "closed", "disconnect"],
)
def test_a_server_that_misbehaves_is_unavailable(server, publish, handler, said: str) -> None:
    """Hung, another protocol, busy, closing: each ends with 69 in time and says what happened."""
    bad = server(handler, handler)
    code, err = publish(
        "-t", "a", "-m", "x", "--host", "127.0.0.1", "--port", bad.port, "--timeout", "500ms"
    )
    assert code == 69
    assert said in err


@pytest.mark.parametrize(
    ("host", "said"),
    [("127.0.0.1", "nothing listens"), ("no-such-host.invalid", "can't be resolved")],
)
def test_out_of_reach_is_69(publish, host: str, said: str) -> None:
    """A closed port and a misspelt name are told apart."""
    code, err = publish("-t", "a", "-m", "x", "--host", host, "--port", free_port())
    assert code == 69
    assert said in err


def test_one_connection_can_carry_many_messages(broker) -> None:
    """The demo's publisher stays connected: packet ids go on, nothing is left open."""
    port = broker("allow_anonymous true")
    with Client(Target("127.0.0.1", port, client_id="many")) as client:
        client._packet_id = 65533
        for number in range(5):
            client.publish("a", b"x", qos=1 + number % 2, retain=False)
        assert client._packet_id == 3
