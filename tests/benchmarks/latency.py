"""From PUBLISH to the start POST arriving at Qlik, beside what people build from parts.

Ours: journal with ``sync = "always"``, recorder, trigger, durable request, UI. Theirs: mosquitto
and starter.js (MQTT.js, axios), which keep nothing. Both talk HTTP to the same simulated server, a
process of its own; every message names another task, so that nothing is coalesced. Once in quiet,
once beside a thousand messages a second. Then: what ten thousand requests cost that can't be
carried out because the server is down.

Needs Node.js; MQTT.js and axios are installed into the folder with npm, in the versions of
package.json.

Usage: python tests/benchmarks/latency.py [--folder DIR] [--rounds 3] [--starts 300]
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import load
import rig
from qlik_server import task_id
from rig import HERE, Broker, Meter, Process, Results

TOPIC = "qliksense/start_task"
WARM_UP = 20
BETWEEN_S = (0.05, 0.15)
STEADY_RATE = 1000
QUEUED = 10_000
INGESTS = 3
TARGETS = {
    ("p50", "appliance, headless"): "<= 1.25",
    ("p50", "appliance with UI"): "<= 1.4",
    ("p99", "appliance, headless"): "<= 1.5",
    ("p99", "appliance with UI"): "<= 1.5",
}
"""Ratios to the parts, which keep nothing. A reload takes seconds to hours, so a part of a
millisecond decides nothing; the targets notice a change that adds a thread or a commit."""
QLIK = """
[qlik]
edition = "client-managed"
url = "http://127.0.0.1:{port}"
user = 'INTERNAL\\sa_repository'
header = {{name = "X-Qlik-User", value = "UserDirectory=INTERNAL;UserId=sa_repository"}}
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
"""


class QlikServer:
    """The simulated server as a process."""

    def __init__(self, tasks: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "qlik_server.py"), str(tasks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._line().split()[1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def arrived(self) -> dict[str, int]:
        """Start POSTs since the last time: when each task's came, in ns since the epoch."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def __enter__(self) -> QlikServer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.terminate()
        self.process.wait()


def packet(number: int) -> bytes:
    payload = task_id(number).encode()
    body = struct.pack(">H", len(TOPIC)) + TOPIC.encode() + struct.pack(">H", number + 1) + payload
    return b"\x32" + bytes((len(body),)) + body


def latencies(broker: Broker, qlik: QlikServer, starts: int) -> list[float]:
    """Milliseconds from before the PUBLISH leaves to the POST's arrival, for each start."""
    chance = random.Random(1)
    sock = load.connect("127.0.0.1", broker.port, "latency")
    sent: dict[str, int] = {}
    for number in range(WARM_UP + starts):
        data = packet(number)
        sent[task_id(number)] = time.time_ns()
        sock.sendall(data)
        load.exactly(sock, 4)
        time.sleep(chance.uniform(*BETWEEN_S))
    arrived: dict[str, int] = {}
    end = time.monotonic() + 10
    while len(arrived) < len(sent) and time.monotonic() < end:
        time.sleep(0.2)
        arrived |= qlik.arrived()
    sock.close()
    missing = len(sent) - len(arrived)
    if missing:
        print(f"  {broker.name}: {missing} starts never arrived", file=sys.stderr)
    measured = list(sent)[WARM_UP:]
    return [(arrived[one] - sent[one]) / 1e6 for one in measured if one in arrived]


def install_starter(folder: Path) -> Path:
    """MQTT.js and axios, once for a folder."""
    place = folder / "starter"
    place.mkdir(exist_ok=True)
    for name in ("starter.js", "package.json"):
        shutil.copy(HERE / name, place)
    if not (place / "node_modules" / "axios").exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit("npm is missing: install Node.js 20 or newer")
        subprocess.run([npm, "install", "--no-audit", "--no-fund"], cwd=place, check=True)
    return place


@contextlib.contextmanager
def parts(folder: Path, qlik: QlikServer, starter: Path) -> Iterator[Broker]:
    """Mosquitto and the starter."""
    with rig.mosquitto(folder) as broker:
        process = Process(
            "starter",
            ["node", str(starter / "starter.js"), str(broker.port), str(qlik.port)],
            folder / "starter.log",
            cwd=starter,
        )
        try:
            rig.until(lambda: process.said("listening"), "the starter listens", rig.START_S)
            yield broker
        finally:
            process.end()


@contextlib.contextmanager
def beside_a_load(broker: Broker, is_wanted: bool, seconds: float) -> Iterator[None]:
    if not is_wanted:
        yield
        return
    command = [sys.executable, str(HERE / "load.py"), str(broker.port), "steady"]
    process = subprocess.Popen([*command, str(STEADY_RATE), str(seconds)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def measure(found: dict[str, list[float]], options: object, folder: Path, starter: Path) -> None:
    starts = options.starts
    for text, is_loaded in (("quiet", False), ("beside 1000 messages/s", True)):
        for name in ("parts", "appliance, headless", "appliance with UI"):
            if options.only not in name:
                continue
            with QlikServer(WARM_UP + starts) as qlik:
                if name == "parts":
                    make = parts(folder, qlik, starter)
                else:
                    here = folder / f"{name} {is_loaded}"
                    here.mkdir()
                    everything = rig.RECORDER.replace("bench/#", "#") + QLIK.format(port=qlik.port)
                    make = rig.appliance(here, everything, ui="UI" in name)
                with make as broker, beside_a_load(broker, is_loaded, 600):
                    time.sleep(1)  # what begins with the process (the task list) is over by then
                    times = latencies(broker, qlik, starts)
                what = f"{name}, {text}"
                found.setdefault(what, []).extend(times)
                middle, far = rig.percentile(times, 0.5), rig.percentile(times, 0.99)
                print(f"  {what}: p50 {middle:.2f} ms, p99 {far:.2f} ms", file=sys.stderr)


def queued(results: Results, options: object, folder: Path, *, queued_first: bool) -> None:
    """Ten thousand requests for distinct tasks while the server refuses connections.

    The same with and without them, each in a process of its own: a process that has taken a
    million messages, and then rested, is not as fast as before (its journal has grown). The second
    one writes while the system still clears away after the first, so they take turns.
    """
    for is_queued in (queued_first, not queued_first):
        here = folder / str(is_queued)
        here.mkdir()
        with rig.appliance(here, QLIK.format(port=rig.free_port())) as broker:
            load.publish(broker.port, 100_000)
            time.sleep(1)
            ingest(broker, options)
            before = rig.rss_kb(broker.pid)
            sock = load.connect("127.0.0.1", broker.port, "many")
            for first in range(0, QUEUED if is_queued else 0, 100):
                sock.sendall(b"".join(packet(number) for number in range(first, first + 100)))
                load.exactly(sock, 400)
            settle(broker)
            after = rig.rss_kb(broker.pid)
            meter = Meter(broker.pid)
            time.sleep(3)
            meter.end()
            if is_queued:
                results.add("memory for 10,000 queued requests", (after - before) / 1000, "MB")
                results.add("processor, idle with 10,000 queued requests", meter.share * 100, "%")
            with_or_without = "with 10,000 queued" if is_queued else "without"
            for _ in range(INGESTS):
                results.add(f"ingest {with_or_without} requests", *ingest(broker, options))
            sock.close()


def ingest(broker: Broker, options: object) -> tuple[float, str, float]:
    meter = Meter(broker.pid)
    rate = load.run(
        broker.port, connections=10, window=100, seconds=options.seconds, begun=meter.begin
    )
    meter.end()
    return rate, "acks/s", meter.share


def settle(broker: Broker) -> None:
    """Wait until the process has hardly anything to do for two seconds, at most a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        meter = Meter(broker.pid)
        time.sleep(2)
        meter.end()
        if meter.share < 0.1:
            return


def main() -> None:
    options = rig.arguments(__doc__ or "", starts=300, seconds=3.0)
    results = Results("Publish to POST (all rounds together)")
    requests = Results("Requests that wait (10,000, the server is down)")
    found: dict[str, list[float]] = {}
    starter = install_starter(options.folder)
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            here.chmod(0o755)
            measure(found, options, here, starter)
            if options.only in "queued":
                (here / "queued").mkdir()
                queued(requests, options, here / "queued", queued_first=number % 2 == 1)
    for share, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        for what, times in found.items():
            results.add(f"{share}, {what}", rig.percentile(times, part), "ms")
    for text in ("quiet", "beside 1000 messages/s"):
        for share in ("p50", "p99"):
            for name in ("appliance with UI", "appliance, headless"):
                results.compare(
                    f"{share}, {text}: {name} to parts",
                    f"{share}, {name}, {text}",
                    f"{share}, parts, {text}",
                    TARGETS[share, name],
                )
    requests.compare(
        "ingest with 10,000 queued requests to without",
        "ingest with 10,000 queued requests",
        "ingest without requests",
        ">= 0.95",
    )
    requests.limit("memory for 10,000 queued requests", "<= 50")
    rig.finish(options, results, requests)


if __name__ == "__main__":
    main()
