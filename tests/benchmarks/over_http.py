"""Messages over HTTP: how many a second are on disk when their answer comes.

One connection with 32 requests at a time (HTTP/1.1 pipelining), one that waits for each answer,
batches of 100. Beside it MQTT (QoS 1, the same number under way) at the same appliance, and a server
of Starlette and uvicorn that answers and stores nothing. Sign-in by password; MQTT at full rate
alone and beside HTTP; memory with the port and without.

Usage: python tests/benchmarks/over_http.py [--folder DIR] [--rounds 3] [--seconds 3]
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import load
import rig
import uvicorn
from rig import Broker, Results
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PIPELINED = 32
BATCH = 100
RATE = 200
USER, PASSWORD = "bench", "a password of the benchmark"
ONE, ALL, EACH = "HTTP, 32 requests at a time", "HTTP, one at a time", "HTTP, batches of 100"
MQTT_ONE, MQTT_ALL = "MQTT QoS 1, 32 at a time", "MQTT QoS 1, one at a time"
BARE_ONE, BARE_ALL = "Starlette alone, 32 at a time", "Starlette alone, one at a time"
SIGNED = "HTTP, one at a time, with a password"
ALONE, BESIDE = "MQTT, ten publishers, alone", "MQTT, ten publishers, beside HTTP"
BESIDE_MQTT = "MQTT, ten publishers, beside one that waits"


def request(path: str, body: bytes, *, signed: bool = False) -> bytes:
    """A POST as bytes."""
    who = ""
    if signed:
        who = "Authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        who += "\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{who}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answers(sock: socket.socket, status: bytes = b"200") -> Iterator[int]:
    """How many answers each read has completed; raises if one has another status."""
    data = b""
    while True:
        part = sock.recv(256 * 1024)
        if not part:
            raise ConnectionError("closed by the appliance")
        data += part
        count = 0
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end].lower()
            if not head.startswith(b"http/1.1 " + status):
                raise ConnectionError(data[:500].decode("latin-1"))
            at = head.index(b"content-length:") + 15
            size = int(head[at:].split(b"\r\n", 1)[0])
            if len(data) < end + 4 + size:
                break
            data = data[end + 4 + size :]
            count += 1
        yield count


def run(port: int, packet: bytes, window: int, seconds: float) -> float:
    """Answers a second on one connection, with so many requests under way, after a warm-up."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(packet * window)
        begin = time.perf_counter()
        counted, counted_from = 0, 0.0
        for count in answers(sock):
            now = time.perf_counter()
            if counted_from:
                counted += count
            elif now - begin > seconds / 5:
                counted_from = now
            if counted and now - begin > seconds:
                return counted / (now - counted_from)
            sock.sendall(packet * count)
    raise ConnectionError("no answers")


def with_port(folder: Path, *, users: bool = False) -> tuple[int, str]:
    """The port, and the tables that open it."""
    port = rig.free_port()
    extra = f'[http]\nbind = "127.0.0.1:{port}"\nmax_requests = 1000000\nbutler = false\n'
    if users:
        extra += '[access]\nusers_file = "users.txt"\n'
        subprocess.run(
            [sys.executable, "-c", ADD, str(folder / "users.txt"), USER, PASSWORD], check=True
        )
    return port, extra


ADD = (
    "import sys; from appliance.broker.users import Users;"
    " Users(sys.argv[1]).add(sys.argv[2], sys.argv[3].encode())"
)


def messages(options, folder: Path, results: Results) -> None:
    single = request("/messages/bench/topic", load.JSON)
    items = [{"topic": "bench/topic", "payload": load.JSON.decode()}] * BATCH
    batch = request("/messages", json.dumps(items).encode())
    port, extra = with_port(folder)
    with rig.appliance(folder, extra) as broker:

        def measure(name: str, rate) -> None:
            meter = rig.Meter(broker.pid)
            found = rate()
            meter.end()
            results.add(name, found, "messages/s", meter.share)

        seconds = options.seconds
        measure(ONE, lambda: run(port, single, PIPELINED, seconds))
        measure(MQTT_ONE, lambda: mqtt(broker, 1, PIPELINED, seconds))
        measure(ALL, lambda: run(port, single, 1, seconds))
        measure(MQTT_ALL, lambda: mqtt(broker, 1, 1, seconds))
        measure(EACH, lambda: BATCH * run(port, batch, 1, seconds))


def bare(options, folder: Path, results: Results) -> None:
    """The same requests to a server that does nothing else than answer."""
    single = request("/messages/bench/topic", load.JSON)
    port = rig.free_port()
    server = rig.Process(
        "bare", [sys.executable, __file__, "bare", str(port)], folder / "bare.log", cwd=folder
    )
    try:
        rig.until(lambda: server.said("running"), "the bare server listens", rig.START_S)
        for name, window in ((BARE_ONE, PIPELINED), (BARE_ALL, 1)):
            meter = rig.Meter(server.pid)
            found = run(port, single, window, options.seconds)
            meter.end()
            results.add(name, found, "answers/s", meter.share)
    finally:
        server.end()


def serve_nothing(port: int) -> None:
    async def publish(asked: Request) -> Response:
        await asked.body()
        return Response(b'{"topic":"bench/topic","seq":1}', media_type="application/json")

    app = Starlette(routes=[Route("/messages/{topic:path}", publish, methods=["POST"])])
    uvicorn.run(app, port=port, access_log=False)


def mqtt(broker: Broker, connections: int, window: int, seconds: float) -> float:
    return load.run(broker.port, connections=connections, window=window, seconds=seconds)


def beside(options, folder: Path, results: Results) -> None:
    """What MQTT at full rate loses to a steady load over HTTP, which a process of its own makes.

    An MQTT client that waits for each answer is the peer: the same messages, the same commits.
    """
    port, extra = with_port(folder)
    with rig.appliance(folder, extra) as broker:
        results.add(ALONE, mqtt(broker, 10, 100, options.seconds), "messages/s")
        for name, kind, at in ((BESIDE, "steady", port), (BESIDE_MQTT, "mqtt", broker.port)):
            command = [sys.executable, __file__, kind, str(at), str(RATE)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
                assert client.stdout is not None
                client.stdout.readline()
                results.add(name, mqtt(broker, 10, 100, options.seconds), "messages/s")
                client.terminate()


def steady(port: int, rate: int) -> None:
    """``rate`` messages a second on one connection, if the appliance takes them, until the end."""
    packet = request("/messages/bench/http", load.JSON)
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        found = answers(sock)

        def ask() -> None:
            sock.sendall(packet)
            while not next(found):
                pass

        at_rate(ask, rate)


def steady_mqtt(port: int, rate: int) -> None:
    """The same by MQTT: QoS 1, each answer is waited for."""
    block, width = load.publishes("bench/http", len(load.JSON))
    with load.connect("127.0.0.1", port, "steady") as sock:

        def ask() -> None:
            sock.sendall(block[:width])
            load.exactly(sock, 4)

        at_rate(ask, rate)


def at_rate(ask: Callable[[], None], rate: int) -> None:
    due = time.monotonic()
    ask()
    print("answered", flush=True)
    while True:
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
        ask()


def signed(options, folder: Path, results: Results) -> None:
    single = request("/messages/bench/topic", load.JSON, signed=True)
    port, extra = with_port(folder, users=True)
    with rig.appliance(folder, extra):
        results.add(SIGNED, run(port, single, 1, options.seconds), "messages/s")


def memory(folder: Path, results: Results) -> None:
    single = request("/messages/bench/topic", load.JSON)
    for has_port in (False, True):
        here = folder / str(has_port)
        here.mkdir()
        port, extra = with_port(here)
        with rig.appliance(here, extra if has_port else "") as broker:
            if has_port:
                run(port, single, 1, 1.0)
            time.sleep(1.0)
            name = "memory with the port, used" if has_port else "memory without the port"
            results.add(name, rig.rss_kb(broker.pid) / 1024, "MB")


def main() -> None:
    options = rig.arguments(__doc__ or "", seconds=3.0)
    results = Results("Messages over HTTP")
    results.limit(ONE, ">= 1000")
    results.limit(ALL, ">= 200")
    results.limit(SIGNED, ">= 200")
    results.compare("HTTP, 32 at a time: to Starlette alone", ONE, BARE_ONE)
    results.compare("HTTP, one at a time: to Starlette alone", ALL, BARE_ALL)
    results.compare("HTTP, 32 at a time: to MQTT", ONE, MQTT_ONE)
    results.compare("HTTP, one at a time: to MQTT", ALL, MQTT_ALL)
    results.compare("HTTP, batches: to MQTT, 32 at a time", EACH, MQTT_ONE)
    results.compare("MQTT beside 200 HTTP messages a second, of alone", BESIDE, ALONE, ">= 0.9")
    results.compare("MQTT beside 200 MQTT messages a second, of alone", BESIDE_MQTT, ALONE)
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            parts = (messages, bare, beside, signed)
            for part in parts:
                here = folder / f"{part.__name__}-{number}"
                here.mkdir()
                part(options, here, results)
        here = folder / "memory"
        here.mkdir()
        memory(here, results)
    rig.finish(options, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["steady"]:
        steady(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["mqtt"]:
        steady_mqtt(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["bare"]:
        serve_nothing(int(sys.argv[2]))
    else:
        main()
