"""From a request over HTTP to the start POST arriving at Qlik, beside a message to the same appliance.

They take turns on one connection each; every start names another task, so that nothing is
coalesced, and each request has an ``Idempotency-Key``. A message's start call leaves when the journal
has the message; a request's when ``tasks.db`` has it, with its key.

Usage: python tests/benchmarks/http_starts.py [--folder DIR] [--rounds 3] [--starts 200]
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import load
import rig
from latency import QLIK, QlikServer, packet
from over_http import answers, with_port
from qlik_server import task_id
from rig import Results

WARM_UP = 10
BETWEEN_S = 0.04
HTTP, MQTT = "a request over HTTP", "a message"


def request(number: int) -> bytes:
    task = task_id(number)
    return (
        f"POST /tasks/{task}/start HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: {task}\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def latencies(mqtt: int, http: int, qlik: QlikServer, starts: int) -> dict[str, list[float]]:
    """Milliseconds from before the bytes leave to the POST's arrival, for each start."""
    sent: dict[str, tuple[str, int]] = {}
    publisher = load.connect("127.0.0.1", mqtt, "latency")
    with socket.create_connection(("127.0.0.1", http), 10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = answers(client, b"202")
        for number in range(2 * (WARM_UP + starts)):
            is_http = number % 2 == 1
            data = request(number) if is_http else packet(number)
            sent[task_id(number)] = (HTTP if is_http else MQTT, time.time_ns())
            if is_http:
                client.sendall(data)
                while not next(taken):
                    pass
            else:
                publisher.sendall(data)
                load.exactly(publisher, 4)
            time.sleep(BETWEEN_S)
    publisher.close()
    arrived: dict[str, int] = {}
    rig.until(
        lambda: len(arrived.update(qlik.arrived()) or arrived) == len(sent), "all have started", 30
    )
    found: dict[str, list[float]] = {HTTP: [], MQTT: []}
    for task, (kind, at_ns) in list(sent.items())[2 * WARM_UP :]:
        found[kind].append((arrived[task] - at_ns) / 1e6)
    return found


def measure(starts: int, folder: Path, results: Results) -> None:
    http, extra = with_port(folder)
    with (
        QlikServer(2 * (WARM_UP + starts)) as qlik,
        rig.appliance(folder, extra + QLIK.format(port=qlik.port)) as broker,
    ):
        time.sleep(1)  # what begins with the process (the task list) is over by then
        for kind, times in latencies(broker.port, http, qlik, starts).items():
            for share, part in (("p50", 0.5), ("p99", 0.99)):
                results.add(f"{share}, {kind}", rig.percentile(times, part), "ms")


def main() -> None:
    options = rig.arguments(__doc__ or "", starts=200)
    results = Results("Request over HTTP to POST")
    for share in ("p50", "p99"):
        results.compare(f"{share}: HTTP to message", f"{share}, {HTTP}", f"{share}, {MQTT}")
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            measure(options.starts, here, results)
    rig.finish(options, results)


if __name__ == "__main__":
    main()
