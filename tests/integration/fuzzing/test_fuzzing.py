"""Random input to every door of a running appliance, for a bounded time each.

Valid input is changed at random: bytes flipped, cut, doubled, joined. The seed is in the test's
output and in its failure; FUZZING_SEED repeats a run, FUZZING_S says how many seconds each takes.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import socket
import sys
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from appliance.broker.users import Users
from appliance.config.files import check_files
from appliance.config.reading import load
from appliance.errors import ApplianceError
from appliance.engine_api import AskedValues
from appliance.message_filter import MessageFilter
from appliance.remote import protocol
from appliance.remote.topics import reply_topic, request_topic, state_topic
from appliance_process import ApplianceProcess, free_port
from attached_appliance import PASSWORD

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("FUZZING_S", "6"))
SEED = int(os.environ.get("FUZZING_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
MOST_MEMORY = 400 * 1024 * 1024
PATIENCE_S = 15.0
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
allow_mqtt31 = true
[[listener]]
bind = "127.0.0.1:WEBSOCKET"
transport = "websocket"
[metrics]
bind = "127.0.0.1:MONITORING"
[http]
bind = "127.0.0.1:HTTP"
max_requests = 1_000_000
[access]
ACCESS
[qlik]
edition = "simulated"
[[trigger]]
topic = "a/#"
task = "payload"
[[recorder]]
topic = "#"
path = "all.csv"
format = "csv"
metadata = true
"""

BRIDGES = """
[[bridge]]
name = "plant"
host = "broker.example.com"
port = 8883
tls = {ca_file = "ca.pem", certfile = "a.pem", keyfile = "b.pem", alpn = ["mqtt"]}
username = "u"
password = "secret"
version = "5"
session_expiry = "7d"
max_rate = 100
[[bridge.subscribe]]
topic = "plant/+/state"
remove_prefix = "plant/"
local_prefix = "f7/"
share = "g"
[[bridge.publish]]
topic = "appliance/tasks/#"
remote_prefix = "site4-"
[[bridge]]
name = "edge"
host = "::1"
transport = "websocket"
path = "/ws"
client_id = "x"
subscribe = [{topic = "a/#", qos = 0, retained = true}, {topic = "b"}]
publish = [{topic = "c/+", remove_prefix = "c/", retained = false}]
"""

Source = Callable[[random.Random], bytes]


class Doors:
    """A running appliance, its ports, and a client that is served all the time."""

    def __init__(self, folder: Path, access: str) -> None:
        self.websocket, self.monitoring, self.http = free_port(), free_port(), free_port()
        text = CONFIG.replace("WEBSOCKET", str(self.websocket)).replace("HTTP", str(self.http))
        text = text.replace("MONITORING", str(self.monitoring))
        self.process = ApplianceProcess(folder, text.replace("ACCESS", access))

    def begin(self) -> None:
        self.process.start()
        self.other = socket.create_connection(("127.0.0.1", self.process.port), PATIENCE_S)
        self.other.sendall(connect(3, b"bystander", user=b"plc-7"))
        assert self.other.recv(4) == b"\x20\x02\x00\x00"
        self._number = 0

    def look(self, done: int) -> None:
        """Nothing unexpected has happened so far."""
        self._number = self._number % 60_000 + 1
        self.other.sendall(packet(0x32, string(b"b") + self._number.to_bytes(2) + b"x"))
        answer = b""
        while len(answer) < 4:
            answer += self.other.recv(4 - len(answer)) or pytest.fail("the other client is gone")
        assert answer == b"\x40\x02" + self._number.to_bytes(2), self._where(done)
        bad = [line for line in self.process.lines if "Traceback" in line or " ERROR " in line]
        assert not bad, f"{self._where(done)}: " + "\n".join(self.process.lines[-40:])
        if sys.platform == "linux":
            assert self.process.process is not None
            statm = Path(f"/proc/{self.process.process.pid}/statm").read_text("ascii")
            memory = int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
            assert memory < MOST_MEMORY, f"{memory} bytes, {self._where(done)}"

    @staticmethod
    def _where(done: int) -> str:
        return f"seed {SEED}, input {done}"


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Callable[[str], Doors]]:
    made: list[Doors] = []

    def make(access: str = "") -> Doors:
        doors = Doors(tmp_path, access)
        made.append(doors)
        if access:
            users = Users(str(tmp_path / "users.txt"))
            for name in ("admin", "plc-7"):
                users.add(name, PASSWORD.encode())
        doors.begin()
        return doors

    yield make
    for each in made:
        each.other.close()
        with each.process:
            each.process.end()


def string(text: bytes) -> bytes:
    return len(text).to_bytes(2) + text


def packet(first: int, body: bytes) -> bytes:
    length, left = b"", len(body)
    while True:
        left, digit = left >> 7, left & 0x7F
        length += bytes([digit | (0x80 if left else 0)])
        if not left:
            return bytes([first]) + length + body


def connect(
    version: int,
    client: bytes,
    *,
    user: bytes = b"",
    will: bytes = b"",
    more: bytes = b"\x05\x11\x00\x00\x00\x64",
    more_of_will: bytes = b"\x05\x18\x00\x00\x00\x02",
) -> bytes:
    """A CONNECT; ``more`` and ``more_of_will`` are the properties of MQTT 5."""
    flags = 2 | (0xC0 if user else 0) | (0x0C if will else 0)
    if version != 5:
        more = more_of_will = b""
    name = b"MQIsdp" if version == 3 else b"MQTT"
    body = string(name) + bytes([version, flags, 0, 60]) + more + string(client)
    if will:
        body += more_of_will + string(b"w") + string(will)
    if user:
        body += string(user) + string(PASSWORD.encode())
    return packet(0x10, body)


KINDS = {
    each[0]: each
    for each in [
        b"\x01\x01", b"\x02\x00\x00\x00\x05", b"\x03" + string(b"text/plain"),
        b"\x08" + string(b"a/answer"), b"\x09" + string(b"\0\1"), b"\x0b\x05", b"\x11\xff\xff\xff\xff",
        b"\x15" + string(b"method"), b"\x17\x01", b"\x18\x00\x00\x00\x01", b"\x19\x01",
        b"\x1f" + string(b"why"), b"\x21\x00\x02", b"\x22\x00\x03", b"\x23\x00\x01", b"\x24\x01",
        b"\x26" + string(b"k") + string(b"v"), b"\x27\x00\x00\x01\x00", b"\x7f\x00", b"\x26\xff\xff",
    ]
}  # fmt: skip
"""Each property by its identifier (section 2.2.2.2); the last two are wrong."""
OF_CONNECT = b"\x11\x17\x19\x21\x22\x26\x27"
OF_MESSAGE = b"\x01\x02\x03\x08\x09\x26"


def properties(chance: random.Random, allowed: bytes = b"") -> bytes:
    """A block of properties; more often than not of the ``allowed`` ones only, each once."""
    if allowed and chance.random() < 0.8:
        block = [KINDS[each] for each in chance.sample(allowed, chance.randrange(len(allowed) + 1))]
        if chance.random() < 0.2:
            block = [changed(chance, each) for each in block]
    else:
        block = chance.choices(list(KINDS.values()), k=chance.choice((0, 0, 1, 2, 5, 200)))
    return packet(0, b"".join(block))[1:]


def stream(chance: random.Random, version: int) -> bytes:
    """Packets that a client may send, of one version."""
    more = properties(chance) if version == 5 else b""
    ids = chance.choice((0, 1, 2, 0xFFFF)).to_bytes(2)
    topic = chance.choice((b"a/b", b"a", b"$SYS/x", b"", b"appliance/status", b"/" * 300, b"\xff"))
    wanted = chance.choice((b"a/#", b"#", b"+/+", b"$share/g/a", b"a/#/b", b"", b"+" + b"/+" * 250))
    payload = chance.choice((b"", b"x", b"\xff\xfe", b'{"a": [' + b"[" * 300, b"\x1b]0;x\x07"))
    kinds = [
        packet(0x30 | chance.randrange(16), string(topic) + ids + more + payload),
        packet(0x82, ids + more + string(wanted) + bytes([chance.randrange(64)])),
        packet(0xA2, ids + more + string(wanted)),
        packet(chance.choice((0x40, 0x50, 0x62, 0x70)), ids + chance.choice((b"", b"\x00", more))),
        b"\xc0\x00",
        packet(0xE0, chance.choice((b"", b"\x00", b"\x04" + more))),
        packet(0xF0, b"\x18" + more),
        connect(4, b"again"),
    ]
    return b"".join(chance.choices(kinds, k=chance.randrange(1, 6)))


def changed(chance: random.Random, data: bytes) -> bytes:
    """The data, often with some bytes flipped, cut out, put in or doubled."""
    out = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(5):
            case 0 if at < len(out):
                out[at] = chance.randrange(256)
            case 1:
                del out[at:]
            case 2:
                out[at:at] = chance.randbytes(chance.choice((1, 2, 50)))
            case 3:
                out[at:at] = out[max(0, at - 30) : at]
            case _:
                del out[at : at + chance.randrange(1, 6)]
    return bytes(out)


def exchange(port: int, chance: random.Random, data: bytes, last: bytes = b"") -> bytes:
    """Send it in pieces, end the sending, and read until the other side ends too.

    With ``last`` the sending ends when that has come, or after a second.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
        sock.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionError):
            at = 0
            while at < len(data):
                size = chance.choice((1, 7, 100, len(data)))
                sock.sendall(data[at : at + size])
                at += size
            sock.settimeout(1.0 if last else PATIENCE_S)
            with contextlib.suppress(TimeoutError):
                while last not in answer:
                    answer += sock.recv(65536) or last
            sock.settimeout(PATIENCE_S)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                answer += piece
    return answer


def fuzz(doors: Doors, port: int, source: Source, good: bytes, last: bytes = b"") -> None:
    """Send inputs for the time that each door has. Some come so far as to be answered ``good``."""
    print(f"seed {SEED}")  # noqa: T201  pytest shows it with a failure
    chance = random.Random(SEED)
    end, done, came_in = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        came_in += good in exchange(port, chance, source(chance), last)
        done += 1
        if done % 20 == 0:
            doors.look(done)
    doors.look(done)
    print(f"{done} inputs, {came_in} came in")  # noqa: T201  as above
    assert done > 50
    assert came_in > done / 20, f"{came_in} of {done} came in: nothing behind the door was tried"


def a_connect(chance: random.Random) -> bytes:
    version = chance.choice((3, 4, 5))
    will = chance.choice((b"", b"gone"))
    user = chance.choice((b"", b"u", b"\xff"))
    return changed(chance, connect(version, b"c%d" % chance.randrange(5), user=user, will=will))


def a_stream(chance: random.Random) -> bytes:
    version = chance.choice((4, 5))
    data = stream(chance, version)
    return connect(version, b"c%d" % chance.randrange(5)) + changed(chance, data)


def a_property_block(chance: random.Random) -> bytes:
    """Packets of MQTT 5 that are right but for their properties."""

    def block(allowed: bytes) -> bytes:
        return properties(chance, allowed) if chance.random() < 0.5 else b"\x00"

    data = connect(
        5,
        b"c%d" % chance.randrange(5),
        will=chance.choice((b"", b"gone")),
        more=block(OF_CONNECT),
        more_of_will=block(OF_MESSAGE + b"\x18"),
    )
    data += packet(0x82, b"\0\1" + block(b"\x0b\x26") + string(b"a/#") + b"\1")
    data += packet(0x32, string(b"a/b") + b"\0\2" + block(OF_MESSAGE + b"\x23") + b"x")
    data += packet(0x40, b"\0\1\0" + block(b"\x1f\x26"))
    data += packet(0xA2, b"\0\3" + block(b"\x26") + string(b"a/#"))
    return data + packet(0xE0, b"\x00" + block(b"\x11\x1f\x26"))


def a_request(chance: random.Random) -> bytes:
    """A handshake, right more often than not."""
    is_right = chance.random() < 0.7
    lines = [
        b"GET /mqtt HTTP/1.1",
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + base64.b64encode(chance.randbytes(16)),
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Protocol: mqtt",
    ]
    if not is_right:
        lines[0] = chance.choice((b"GET / HTTP/1.1", b"POST /mqtt HTTP/1.1"))
        lines[3] = b"Connection: " + chance.choice((b"keep-alive, Upgrade", b"\xa0U"))
        lines[6] = b"Sec-WebSocket-Protocol: " + chance.choice((b"mqttv3.1", b"\xff"))
        chance.shuffle(lines)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def a_frame(chance: random.Random, data: bytes) -> bytes:
    first = chance.choice((0x82, 0x82, 0x82, 0x02, 0x80, 0x81, 0x88, 0x89, 0x8A, 0xC2))
    mask = chance.randbytes(4)
    masked = bytes(each ^ mask[at % 4] for at, each in enumerate(data))
    if len(data) < 126:
        return bytes([first, 0x80 | len(data)]) + mask + masked
    return bytes([first, 0xFE]) + len(data).to_bytes(2) + mask + masked


def a_websocket(chance: random.Random) -> bytes:
    version = chance.choice((4, 4, 5))
    data = b"\x82" + a_frame(chance, connect(version, b"ws%d" % chance.randrange(5)))[1:]
    more = b""
    for _ in range(chance.randrange(4)):
        more += a_frame(chance, stream(chance, version))
    more += a_frame(chance, chance.choice((b"\xe0\x00", b"\x03\xe8", b"", b"\x03")))
    match chance.randrange(4):
        case 0:
            return changed(chance, a_request(chance)) + data + more
        case 1:
            return a_request(chance) + changed(chance, data + more)
        case _:
            return a_request(chance) + data + changed(chance, more)


def a_monitoring_request(chance: random.Random) -> bytes:
    paths = (b"/healthz", b"/healthz?a", b"/metrics", b"/", b"http://x/metrics", b"/%ff\0")
    path = chance.choice(paths)
    hosts = (b"localhost", b"[::1]:80", b"[::1", b"127.0.0.1:99999", b"[::1]x", b"\xff")
    host = chance.choice(hosts) if chance.random() < 0.5 else hosts[0]
    method = chance.choice((b"GET", b"GET", b"GET", b"HEAD", b"POST", b"\x16\x03"))
    data = (
        method + b" " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + b"A: b\r\n" * 3 + b"\r\n"
    )
    return changed(chance, data * chance.choice((1, 1, 2))) + b"\r\n\r\n"


HTTP_TARGETS = (
    (b"POST", b"/messages/a/b?qos=1&retain=true"), (b"POST", b"/messages/a%2f%00"),
    (b"POST", b"/messages"), (b"GET", b"/messages?topic=a/%23&limit=0"),
    (b"GET", b"/messages?cursor=1&format=csv"), (b"GET", b"/retained/a/b"), (b"GET", b"/tasks"),
    (b"POST", b"/tasks/Reload%20sales/start"), (b"POST", b"/tasks/start"),
    (b"GET", b"/executions?limit=1"), (b"POST", b"/timers/x/fire"), (b"HEAD", b"/healthz"),
    (b"GET", b"http://localhost/metrics"), (b"GET", b"http://u@[::1/../%ff"), (b"GET", b"//x/../."),
    (b"OPTIONS", b"*"), (b"CONNECT", b"localhost:1"), (b"TRACE", b"/"), (b"GET", b"/openapi.json"),
    (b"PUT", b"/v4/keyvalues/a%2f/keys/%f0%9f"), (b"PUT", b"/v4/reloadtask/1/start"),
)  # fmt: skip
HTTP_FIELDS = (
    b"Host: evil", b"Origin: null", b"Connection: close", b"Connection: upgrade\r\nUpgrade: h2c",
    b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip",
    b"Content-Length: 5", b"Authorization: Basic " + base64.b64encode(b"\xff:\xfe"),
    b"Authorization: Bearer \xff", b"Idempotency-Key: k", b"X-HTTP-Method-Override: PUT",
    b"Content-Type: application/json; charset=\xff", b"A: " + b"b" * 20_000, b"B: c\r\n" * 110,
)  # fmt: skip
HTTP_BODIES = (b"", b"x", b'{"taskName": "Reload sales"}', b'[{"topic": "a/b", "payload": 1}]')


def an_http_request(chance: random.Random) -> bytes:
    """One or more requests, right more often than not, and what ends a head that was cut."""
    data = b""
    for _ in range(chance.choice((1, 1, 2, 5))):
        method, target = chance.choice(HTTP_TARGETS)
        body = chance.choice(HTTP_BODIES)
        fields = [b"Host: localhost", *chance.sample(HTTP_FIELDS, chance.choice((0, 0, 0, 1, 3)))]
        if body and chance.random() < 0.5:
            fields.append(b"Transfer-Encoding: chunked")
            body = (
                b"1\r\n"
                + body[:1]
                + b"\r\n%x;a=b\r\n" % len(body)
                + body
                + b"\r\n0\r\nHost: x\r\n\r\n"
            )
        elif body:
            fields.append(b"Content-Length: %d" % len(body))
        version = chance.choice((b"1.1", b"1.1", b"1.1", b"1.0"))
        data += b"\r\n".join([method + b" " + target + b" HTTP/" + version, *fields, b"", body])
    return changed(chance, data) + b"\r\n\r\n"


@pytest.mark.parametrize("source", [a_connect, a_stream, a_property_block])
def test_packets(doors: Callable[..., Doors], source: Source) -> None:
    """CONNECT, packets of a client that is in, and properties, cut and changed anywhere."""
    running = doors()
    fuzz(running, running.process.port, source, b"\x20")


def test_websocket(doors: Callable[..., Doors]) -> None:
    """Handshakes and frames on a real socket."""
    running = doors()
    fuzz(running, running.websocket, a_websocket, b"\x20\x02\x00\x00")


def test_monitoring(doors: Callable[..., Doors]) -> None:
    """Requests to the monitoring port."""
    running = doors()
    # A client that ends its side is one that has gone, so the answer is read before.
    fuzz(running, running.monitoring, a_monitoring_request, b" 200 OK", b"\r\n\r\n")


def test_http(doors: Callable[..., Doors]) -> None:
    """Requests to the HTTP port, often several at once; clients leave behind the first answer."""
    running = doors()
    fuzz(running, running.http, an_http_request, b" 200 OK", b"\r\n\r\n")


def test_requests_of_terminals(doors: Callable[..., Doors]) -> None:
    """What an attached terminal publishes, changed, in the name of an operator (a local client)."""
    running = doors()
    client = "desk"
    operations: list[protocol.AnyOperation] = [
        protocol.Attach(protocol.PROTOCOL), protocol.Seen(10**20), protocol.GetMessage(1),
        protocol.GetTasks(), protocol.GetServerTasks(2**63), protocol.GetHistory(0, 9), protocol.GetHistory(2**63, -1),
        protocol.GetSeqAt(-1), protocol.GetRetained("a/b"), protocol.GetExecutions(0, 9, "x"),
        protocol.GetMarks((1, 2, 2**64)), protocol.StartTask("x"), protocol.Repeat(1),
        protocol.StopExecution(1), protocol.Publish("a/b", b"x", 1, retain=True),
        protocol.Publish("#", b"\xff", 9, retain=False), protocol.ClearRetained("a/b"),
        protocol.AcknowledgeProblem("task", "x", "1", "note"), protocol.UnacknowledgeProblem("task", "x"),
        protocol.Acknowledge(), protocol.EndSession("nobody"), protocol.Disconnect("nobody"), protocol.PauseTimer("x", paused=True),
        protocol.GetHolds(), protocol.Hold("task", "x", 1, "new disks", drop=True),
        protocol.Hold("client", "nobody", None, "", drop=False), protocol.Release("trigger", "x"),
        protocol.FireTimer("run limit"), protocol.GetLastValues(("a/b", "#")),
        protocol.FindExecutions((1, 2**64)), protocol.RequestStarts('{"tag": "x"}'),
        protocol.GetFreshness(), protocol.GetFreshnessDay("x"),
        protocol.CheckServer(), protocol.ConnectBridge("plant"), protocol.Explain(2**63), protocol.ExplainMessage("a/#", b"\xff"),
        protocol.Search(MessageFilter(("#",), texts=("x",)), 2**63, -1),
        protocol.GetValues(AskedValues("a/b", 10**9, 2**70, ("$", "x.y"), -1), 2**63),
        protocol.GetValues(AskedValues("#", 0, 0), 1),
    ]  # fmt: skip
    assert {type(each) for each in operations} | {protocol.StopAppliance} == {
        *typing.get_args(protocol.AnyOperation)
    }
    requests = [
        msgspec.json.encode(protocol.Request(number, each))
        for number, each in enumerate(operations, 1)
    ]
    topic = string(request_topic(client).encode())

    def source(chance: random.Random) -> bytes:
        data = connect(4, client.encode())
        for name in (state_topic(client), reply_topic(client)):
            data += packet(0x82, b"\0\1" + string(name.encode()) + b"\0")
        data += packet(0x30, topic + requests[0])
        for each in chance.choices(requests, k=chance.randrange(1, 8)):
            data += packet(0x30, topic + changed(chance, each))
        return data + packet(0x30, topic + last)

    number = 2**40 + 7
    last = msgspec.json.encode(protocol.Request(number, protocol.GetMessage(0)))
    answered = msgspec.msgpack.encode(number)
    fuzz(running, running.process.port, source, reply_topic(client).encode(), answered)


def test_requests_in_files(doors: Callable[..., Doors]) -> None:
    """Files of any content and name beside those of the commands."""
    running = doors()
    print(f"seed {SEED}")  # noqa: T201  as above
    chance = random.Random(SEED)
    names = [
        b"request-a.json",
        b"request-.json",
        b"request-..json",
        b"answer-x.json",
        b"request-\xff.json",
    ]
    end, done = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        data = changed(chance, b'{"id": "a", "ask": "log-level", "level": "debug"}')
        with contextlib.suppress(OSError, ValueError):
            name = os.fsdecode(chance.choice(names) if sys.platform != "win32" else names[0])
            path = running.process.data / name
            if chance.random() < 0.1:
                path.mkdir()
            else:
                path.write_bytes(data)
        done += 1
        if done % 20 == 0:
            time.sleep(0.2)  # the appliance looks once a second
            running.look(done)
    time.sleep(1.5)
    running.look(done)


def test_configurations(tmp_path: Path) -> None:
    """A configuration that is no valid one has a text in one or more lines."""
    print(f"seed {SEED}")  # noqa: T201  as above
    chance = random.Random(SEED)
    example = (Path(__file__).parents[3] / "config.toml").read_bytes()
    full = CONFIG.replace("ACCESS", "").encode() + b"\n[ui]\nkeys = {pause = 'f5'}\n"
    full += BRIDGES.encode()
    path = tmp_path / "config.toml"
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        path.write_bytes(changed(chance, chance.choice((full, full, example))))
        try:
            check_files(load(path))
        except ApplianceError as error:
            assert str(error).replace("\n", "").isprintable(), f"seed {SEED}: {error!r}"
        except Exception as error:
            pytest.fail(f"seed {SEED}: {error!r} for {path.read_bytes()!r}")


def test_users_files(tmp_path: Path) -> None:
    """A users file lets nobody in by chance, and a broken one is told."""
    print(f"seed {SEED}")  # noqa: T201  as above
    chance = random.Random(SEED)
    path = tmp_path / "users.txt"
    users = Users(str(path))
    users.add("admin", PASSWORD.encode())
    good = path.read_bytes()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        path.write_bytes(changed(chance, good * chance.choice((1, 2))))
        try:
            assert not Users(str(path)).verify("admin", b"another password")
        except ApplianceError as error:
            assert str(error).replace("\n", "").isprintable(), f"seed {SEED}: {error!r}"
        except Exception as error:
            pytest.fail(f"seed {SEED}: {error!r} for {path.read_bytes()!r}")
