"""``appliance check --connect``: the brokers of bridges, with each way in which they refuse."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from appliance_process import free_port
from certificates import make
from other_brokers import PASSWORD, USER, WEAK, WEAK_PASSWORD, Mosquitto

from appliance import cli

SECRET = "hunter2-hunter2"
IN = "[[bridge.subscribe]]\n"


def check(folder: Path, text: str) -> int:
    file = folder / "config.toml"
    file.write_text(f"listener = []\n{text}", "utf-8")
    file.chmod(0o600)
    return cli.main(["check", "--connect", "-c", str(file)])


def bridge(
    port: int, *keys: str, name: str = "plant", filters: str = f"{IN}topic = 'a/#'\n"
) -> str:
    lines = "\n".join(keys)
    return f"[[bridge]]\nname = '{name}'\nhost = '127.0.0.1'\nport = {port}\n{lines}\n{filters}"


class Scripted:
    """A broker that answers each packet as a function says: ``None`` closes the connection."""

    def __init__(
        self,
        answer: Callable[[int, int, bytes], bytes | None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._answer = answer
        self._tls = tls
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.packets: list[tuple[int, bytes]] = []
        """The kind and body of each packet, of all connections."""
        self.raw = b""
        """Sent at once, whatever comes."""
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.close()

    def bodies(self, kind: int) -> list[bytes]:
        return [body for each, body in self.packets if each == kind]

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client:
            if self.raw:
                client.recv(65536)
                client.sendall(self.raw)
                return
            tls = self._tls
            with client if tls is None else tls.wrap_socket(client, server_side=True) as talk:
                number = 0
                while True:
                    kind, body = self._packet(talk)
                    self.packets.append((kind, body))
                    number += 1
                    answer = self._answer(number, kind, body)
                    if answer is None:
                        break
                    talk.sendall(answer)

    def _packet(self, client: socket.socket) -> tuple[int, bytes]:
        kind = self._read(client, 1)[0] >> 4
        size = shift = 0
        while True:
            (digit,) = self._read(client, 1)
            size |= (digit & 0x7F) << shift
            shift += 7
            if digit < 128:
                return kind, self._read(client, size)

    @staticmethod
    def _read(client: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (more := client.recv(size - len(data))):
                raise EOFError
            data += more
        return data


CONNACK, CONNACK_5 = b"\x20\x02\x00\x00", b"\x20\x03\x00\x00\x00"


def text_of(body: bytes, at: int) -> str:
    (size,) = struct.unpack_from(">H", body, at)
    return body[at + 2 : at + 2 + size].decode()


def refusing(answer: bytes) -> Callable[[int, int, bytes], bytes | None]:
    return lambda number, kind, _: answer if kind == 1 else None


def speaking(version: int, other: bytes | None) -> Callable[[int, int, bytes], bytes | None]:
    """A broker of one version that answers a CONNECT of the other one so."""
    right = CONNACK_5 if version == 5 else CONNACK

    def answer(_number: int, kind: int, body: bytes) -> bytes | None:
        if kind == 1:
            return right if body[6] == version else other
        return b""

    return answer


def subscribing(
    suback: Callable[[bytes], bytes | None],
) -> Callable[[int, int, bytes], bytes | None]:
    """A broker of 3.1.1 that accepts and then answers SUBSCRIBE so."""
    return lambda _, kind, body: CONNACK if kind == 1 else suback(body) if kind == 8 else None


def reason(code: int, text: str) -> bytes:
    properties = b"\x1f" + struct.pack(">H", len(text)) + text.encode()
    body = bytes((0, code, len(properties))) + properties
    return bytes((0x20, len(body))) + body


@pytest.mark.parametrize(
    ("keys", "answer", "code", "said"),
    [
        ((), refusing(b"\x20\x02\x00\x05"), 77, "not authorised, or wrong password or user name"),
        ((), refusing(b"\x20\x02\x00\x04"), 77, "wrong password or user name: set `username`"),
        ((), refusing(b"\x20\x02\x00\x02"), 78, "the client id is refused"),
        ((), refusing(b"\x20\x02\x00\x03"), 69, "the broker is not available now"),
        (("version = '5'",), refusing(reason(0x97, f"no {SECRET} please")), 69,
         "a quota of the broker is used up (it says: no *** please)"),
        (("version = '5'",), refusing(reason(0x97, "")), 69, "and the broker permits one session a user."),
        (("version = '5'",), refusing(reason(0x8A, "")), 77, "the broker has banned this client"),
        ((), lambda *_: None, 69, "it closed the connection before its answer"),
        ((), refusing(b"HTTP/1.1 400 Bad Request\r\n\r\n"), 69, "it breaks the protocol"),
        ((), refusing(b"\x20\xff\xff\xff\x7f"), 69, "it breaks the protocol"),
        # Brokers of 3.1.1 refuse MQTT 5 in three ways.
        (("version = '5'",), speaking(4, b"\x20\x02\x00\x01"), 78,
         'but it accepts MQTT 3.1.1: write version = "3.1.1"'),
        (("version = '5'",), speaking(4, None), 78,
         'it closed the connection before its answer, but it accepts MQTT 3.1.1'),
        (("version = '5'", "connect_timeout = '500ms'"),
         speaking(4, b""), 78, "no answer in time, but it accepts"),
        (("version = '5'",), lambda _, kind, body: b"\x20\x02\x00\x04" if body[6:7] == b"\x04" else None, 69,
         "and with MQTT 3.1.1 it says: wrong password or user name"),
        ((), speaking(5, b"\x20\x02\x00\x01"), 78,
         'but it accepts MQTT 5: write version = "5"'),
        ((), subscribing(lambda body: b"\x90\x03\x00\x01\x80"), 77,
         "the broker refuses the subscription to a/#: refused without a reason: check `topic`"),
        ((), subscribing(lambda body: None), 77,
         "the broker closed the connection at the subscription to a/#"),
        (("connect_timeout = '500ms'",), subscribing(lambda body: b""), 77,
         "the broker did not answer the subscription to a/#"),
        ((), subscribing(lambda body: b"\x90\x03\x00\x01\x00"), 0,
         "warn [[bridge]] plant: the broker grants a/# at QoS 0 instead of 1"),
        ((), subscribing(lambda body: b"\x90\x03\x00\x01\x01"), 0, "ok   [[bridge]] plant: the broker grants a/#."),
        # Messages that the broker holds come before the answer and behind it.
        ((), subscribing(lambda body: (b"\x31\x82\x80\x02\x00\x03a/b" + b"x" * 32765) * 40
                         + b"\x90\x03\x00\x01\x01" + b"\x31\xff\xff\x7f\x00\x03a/b"), 0, "grants a/#"),
    ],
)  # fmt: skip
def test_what_a_broker_answers_is_said_with_its_fix(
    tmp_path: Path, capfd: Any, keys: tuple[str, ...], answer: Any, code: int, said: str
) -> None:
    """Each refusal has its sentence and exit code, no secret that the broker echoes, no traceback."""
    sign_in = ("username = 'u'", f"password = '{SECRET}'")
    with Scripted(answer) as broker:
        assert check(tmp_path, bridge(broker.port, *sign_in, *keys)) == code
    out, err = capfd.readouterr()
    assert said in out
    assert SECRET not in out + err
    assert err == ""


def test_nothing_listens_and_no_such_host(tmp_path: Path, capfd: Any) -> None:
    """Bridges are tried at the same time, each with its own sentence, and the first failure counts."""
    text = bridge(free_port()) + bridge(1883, name="far").replace(
        "127.0.0.1", "no-such-host.invalid"
    )
    assert check(tmp_path, text) == 69
    out = capfd.readouterr().out
    assert "bad  [[bridge]] plant: " in out
    assert "client id appliance-plant-check: nothing listens there: check host and port" in out
    assert (
        "[[bridge]] far: no-such-host.invalid:1883, client id appliance-far-check: the host name"
        in out
    )


def test_a_try_has_an_id_a_session_and_a_group_of_its_own(tmp_path: Path, capfd: Any) -> None:
    """A running bridge is not thrown out, no message of its group is taken, and nothing is left."""
    filters = f"{IN}topic = 'a/#'\nshare = 'g'\n{IN}topic = 'b'\nqos = 0\n"
    keys = ("client_id = 'mine'", "version = '5'", "session_expiry = '7d'")

    def answer(_number: int, kind: int, body: bytes) -> bytes:
        if kind == 8:
            return b"\x90\x04" + body[:2] + b"\x00\x01"
        if kind == 3:  # to all who subscribed
            return bytes((0x30, len(body))) + body
        return CONNACK_5 if kind == 1 else b""

    with Scripted(answer) as broker:
        assert check(tmp_path, bridge(broker.port, *keys, filters=filters)) == 0
        end = time.monotonic() + 10
        while not broker.bodies(14) and time.monotonic() < end:
            time.sleep(0.01)
        [connect], [first, second, probe] = broker.bodies(1), broker.bodies(8)
        [published] = broker.bodies(3)
        assert len(broker.bodies(14)) == 1  # DISCONNECT: with an expiry of 0, the session is gone
    assert connect[7] & 0x02  # clean start
    assert connect[10] == 0  # no properties, so no session expiry
    assert text_of(connect, 11) == "mine-check"
    assert text_of(first, 3) == "$share/g-check/a/#"
    assert text_of(second, 3) == "b"
    assert first[-1] == 0x21  # QoS 1, retain handling 2: nothing that is held is sent
    assert second[-1] == 0x20
    out = capfd.readouterr().out
    assert "client id mine-check" in out
    assert "shared subscriptions work there" in out
    assert text_of(probe, 3) == "$share/g-check/appliance/probe/plant-check"
    assert text_of(published, 0) == "appliance/probe/plant-check"


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_broker_that_shares_nothing(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    """Shared subscriptions that are granted and deliver nothing are told before they are needed."""
    monkeypatch.setattr("appliance.bridge.trial._LONGEST_PROBE_S", 0.2)

    def answer(_number: int, kind: int, body: bytes) -> bytes | None:
        if kind == 3 and is_closed:
            return None
        return {1: CONNACK, 8: b"\x90\x03" + body[:2] + b"\x01"}.get(kind, b"")

    with Scripted(answer) as broker:
        filters = f"{IN}topic = 'a/#'\nshare = 'g'\n"
        assert check(tmp_path, bridge(broker.port, filters=filters)) == 0
    out = capfd.readouterr().out
    if is_closed:
        assert (
            "warn [[bridge]] plant: the broker closes the connection at the test of `share`." in out
        )
    else:
        assert "warn [[bridge]] plant: `share`: granted, but nothing is delivered: a test" in out
        assert "did not come back in 0.2 s" in out
    assert "the broker grants a/#." in out


def test_filters_after_one_that_ends_the_connection_are_tried(tmp_path: Path, capfd: Any) -> None:
    """A refusal that looks like a fault of the network costs the other filters nothing."""
    filters = "".join(f"{IN}topic = '{each}'\n" for each in ("good", "bad", "other", "worse"))

    def suback(body: bytes) -> bytes | None:
        name = text_of(body, 2)
        return (
            None
            if name == "bad"
            else b"\x90\x03\x00\x01" + (b"\x80" if name == "worse" else b"\x01")
        )

    with Scripted(subscribing(suback)) as broker:
        assert check(tmp_path, bridge(broker.port, filters=filters)) == 77
    out = capfd.readouterr().out
    assert "closed the connection at the subscription to bad" in out
    assert "refuses the subscription to worse" in out
    assert "grants good, other." in out


def test_a_broker_that_never_stops_talking_is_given_up(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try has an end, whatever comes."""
    monkeypatch.setattr("appliance.bridge.trial._MOST_S", 0.3)

    def answer(_number: int, kind: int, _body: bytes) -> bytes:
        return CONNACK if kind == 1 else b"\x31\x80\x80\x80\x7f"  # the head of a message of 266 MB

    keys = ("connect_timeout = '300s'",)
    with Scripted(answer) as broker:
        assert check(tmp_path, bridge(broker.port, *keys)) == 69
    assert "the try was not done within 0 s" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        ("ca_file = 'ROOT'", 0, "accepts the connection: MQTT 3.1.1, TLS 1.3, client id"),
        ("", 69, "signed by an authority that is not trusted here: set `tls.ca_file`"),
        ("ca_file = 'ROOT', server_name = 'other.example'", 69, "certificate is for another name"),
    ],
)
def test_tls(tmp_path: Path, capfd: Any, keys: str, code: int, said: str) -> None:
    """The broker's certificate is verified as the bridge will do it."""
    files = make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server, files.server_key)
    granting = subscribing(lambda body: b"\x90\x03\x00\x01\x01")
    with Scripted(granting, context) as broker:
        tls = f"tls = {{{keys.replace('ROOT', files.root)}}}"
        assert check(tmp_path, bridge(broker.port, tls)) == code
        out = capfd.readouterr().out
        assert said in out
        if code == 0:
            assert "warn [[bridge]] plant: the broker's certificate ends in 3 days: renew it" in out
            assert check(tmp_path, bridge(broker.port)) == 69
            assert "it closed the connection before its answer" in capfd.readouterr().out


@pytest.mark.parametrize("is_followed", [True, False])
def test_a_broker_that_has_moved(tmp_path: Path, capfd: Any, is_followed: bool) -> None:
    """The try goes where the bridge would go, and says so."""

    def granting(_number: int, kind: int, body: bytes) -> bytes:
        return CONNACK_5 if kind == 1 else b"\x90\x04" + body[:2] + b"\x00\x01"

    with Scripted(granting) as new:
        name = f"127.0.0.1:{new.port}".encode()
        properties = b"\x1c" + struct.pack(">H", len(name)) + name
        moved = bytes((0x20, 3 + len(properties), 0, 0x9D, len(properties))) + properties
        with Scripted(refusing(moved)) as old:
            keys = ("version = '5'", f"follow_redirects = {str(is_followed).lower()}")
            assert check(tmp_path, bridge(old.port, *keys)) == (0 if is_followed else 69)
    out = capfd.readouterr().out
    if is_followed:
        assert (
            f"note [[bridge]] plant: 127.0.0.1:{old.port} names another server, {name.decode()}."
            in out
        )
        assert f"{name.decode()} accepts the connection" in out
    else:
        assert f"the broker has moved to another server, {name.decode()}" in out


def test_no_websocket_there(tmp_path: Path, capfd: Any) -> None:
    """What a web server answers to the handshake is said."""
    with Scripted(lambda *_: None) as web:
        web.raw = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        assert check(tmp_path, bridge(web.port, "transport = 'websocket'")) == 78
    assert "404" in capfd.readouterr().out


def test_files_of_a_bridge_are_looked_at_before(tmp_path: Path, capfd: Any) -> None:
    """A key that does not belong to its certificate is named, as for a listener."""
    files = make(tmp_path)
    tls = f"tls = {{ca_file = '{files.root}', certfile = '{files.client}', keyfile = '{files.server_key}'}}"
    assert check(tmp_path, bridge(free_port(), tls)) == 78
    err = capfd.readouterr().err
    assert "[[bridge]] 1 `tls.certfile`: " in err
    assert "certificate and key don't belong together" in err


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


def has_session(broker: Mosquitto, client_id: str) -> bool:
    """Whether the broker kept a session for this client."""
    fields = b"".join(
        struct.pack(">H", len(each)) + each.encode() for each in (client_id, USER, PASSWORD)
    )
    body = b"\x00\x04MQTT\x04\xc0\x00\x3c" + fields
    with socket.create_connection(("127.0.0.1", broker.port), 10) as client:
        client.sendall(bytes((0x10, len(body))) + body)
        answer = client.recv(4)
        client.sendall(b"\xe0\x00")
    assert answer[3] == 0
    return bool(answer[2])


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_real_broker(mosquitto: Mosquitto, tmp_path: Path, capfd: Any, version: str) -> None:
    """mosquitto: rights, wrong passwords, and what a try leaves there (nothing)."""
    keys = (f"version = '{version}'", f"username = '{USER}'", f"password = '{PASSWORD}'")
    assert check(tmp_path, bridge(mosquitto.port, *keys, name=f"p{version[0]}")) == 0
    out = capfd.readouterr().out
    assert (
        f"accepts the connection: MQTT {version}, user {USER}, client id appliance-p{version[0]}-check."
        in out
    )
    assert "the broker grants a/#." in out
    wrong = (*keys[:2], f"password = '{SECRET}'")
    assert check(tmp_path, bridge(mosquitto.port, *wrong)) == 77
    assert SECRET not in capfd.readouterr().out
    assert not has_session(mosquitto, f"appliance-p{version[0]}-check")
    weak = (keys[0], f"username = '{WEAK}'", f"password = '{WEAK_PASSWORD}'")
    assert check(tmp_path, bridge(mosquitto.port, *weak)) == 0
