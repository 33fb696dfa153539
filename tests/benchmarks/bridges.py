"""A bridge to mosquitto, beside bare paho clients of the same mosquitto: in, out, and to the POST.

In: messages that come in durably, beside a paho subscriber that only counts, each alone: while a
publisher sends as fast as mosquitto takes, and of what has waited in a lasting session. Out: the journal's
messages, beside a paho publisher with as many unacknowledged messages. Rates are those of the
middle part, from a tenth to nine tenths of the messages. Then: from PUBLISH at mosquitto to the
start POST, beside PUBLISH at the appliance to the POST and mosquitto's own hop. QoS 1 everywhere;
mosquitto has its defaults but for the length of its queues.

Usage: python tests/benchmarks/bridges.py [--folder DIR] [--rounds 3] [--messages 60000]
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import latency
import load
import rig
from qlik_server import task_id
from rig import HERE, Broker, Meter, Process, Results

TOPIC = "bench/topic"
HOP_TOPIC = "bench/hop"
SIZE = 64
WINDOW = 100
"""Unacknowledged messages of a bridge on the way out."""
WAIT_S = 120.0
BRIDGE = """
[[bridge]]
name = "bench"
host = "127.0.0.1"
port = {port}
client_id = "bench-bridge"
"""
IN = """
[[bridge.subscribe]]
topic = "{topic}"
"""
OUT = """
[[bridge.publish]]
topic = "{topic}"
"""

Noted = list[tuple[int, float]]
"""Counts of messages, and when they were reached."""


def rate(noted: Noted, count: int) -> float:
    """Messages a second in the middle part."""
    low = next(each for each in noted if each[0] >= count * 0.1)
    high = next(each for each in noted if each[0] >= count * 0.9)
    return (high[0] - low[0]) / (high[1] - low[1])


def reached(noted: Noted, count: int) -> bool:
    return bool(noted) and noted[-1][0] >= count


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[Broker]:
    """With its defaults, but without a bound for what waits."""
    port = rig.free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        "max_queued_messages 0\nlog_dest stderr\n"
    )
    process = Process("mosquitto", [rig.MOSQUITTO, "-c", str(config)], folder / "m.log", cwd=folder)
    try:
        rig.until(lambda: process.said("running"), "mosquitto listens", rig.START_S)
        yield Broker("mosquitto", port, process.pid)
    finally:
        process.end()


def forget(port: int, client_id: str = "bench-bridge") -> None:
    """End a lasting session: the broker would go on to keep messages for it."""
    load.connect("127.0.0.1", port, client_id).close()


def publish(port: int, count: int) -> subprocess.Popen[bytes]:
    """Publish in a process of its own."""
    code = f"import load; load.publish({port}, {count}, topic={TOPIC!r}, size={SIZE})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=HERE)


# --- counters --------------------------------------------------------------------------------


@contextlib.contextmanager
def paho(port: int, *arguments: object) -> Iterator[tuple[int, Callable[[], Noted]]]:
    """The process of a paho client, and what asks it."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "paho_client.py"), str(port), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    writer, reader = process.stdin, process.stdout

    def ask() -> Noted:
        writer.write("\n")
        writer.flush()
        return json.loads(reader.readline())

    try:
        assert reader.readline() == "ready\n"
        yield process.pid, ask
    finally:
        process.terminate()
        process.wait()


class Sampler:
    """Notes a count again and again, in a thread."""

    def __init__(self, count: Callable[[], int], every_s: float = 0.02) -> None:
        self._count = count
        self._every_s = every_s
        self._is_over = threading.Event()
        self.noted: Noted = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._is_over.wait(self._every_s):
            self.noted.append((self._count(), time.monotonic()))

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()


@contextlib.contextmanager
def journaled(folder: Path) -> Iterator[Callable[[], int]]:
    """How many messages of the topic are committed: numbers are given to all in turn."""
    journal = sqlite3.connect(
        f"file:{folder}/data/journal.db?mode=ro", uri=True, check_same_thread=False
    )

    def newest() -> int:
        return journal.execute("SELECT max(last_seq) FROM chunk").fetchone()[0] or 0

    begin = newest()
    try:
        yield lambda: newest() - begin
    finally:
        journal.close()


class Arrivals:
    """Counts what mosquitto sends to a subscriber of QoS 0, which costs both sides little."""

    def __init__(self, port: int) -> None:
        self._sock = load.connect("127.0.0.1", port, f"count-{time.monotonic_ns()}")
        load.subscribe(self._sock, [TOPIC], 0)
        self._sock.settimeout(0.5)
        self._width = len(load.publishes(TOPIC, SIZE, 0)[0]) // 1000
        self._bytes = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                self._bytes += len(self._sock.recv(262144))

    def count(self) -> int:
        return self._bytes // self._width

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self._sock.close()


# --- in and out ------------------------------------------------------------------------------


def measured(pid: int, noted: Callable[[], Noted], count: int) -> tuple[float, float]:
    """(messages a second, share of a core) once so many were counted."""
    meter = Meter(pid)
    rig.until(lambda: reached(noted(), count * 0.95), "the messages are counted", WAIT_S)
    meter.end()
    return rate(noted(), count), meter.share


def incoming(results: Results, folder: Path, other: Broker, count: int, sync: str) -> None:
    here = folder / sync
    here.mkdir()
    text = (BRIDGE + IN).format(port=other.port, topic=TOPIC)
    with rig.appliance(here, text, sync=sync) as broker, journaled(here) as newest:
        wait_for_subscription(other.port, newest)
        with Sampler(newest) as sampler:
            publisher = publish(other.port, count)
            found, share = measured(broker.pid, lambda: sampler.noted, count)
            publisher.wait()
    forget(other.port)
    results.add(f'in, bridge, sync = "{sync}"', found, "messages/s", share)


def wait_for_subscription(port: int, newest: Callable[[], int]) -> None:
    """Publish until one arrives."""

    def arrives() -> bool:
        load.publish(port, 1, topic=TOPIC, size=SIZE)
        time.sleep(0.2)
        return newest() > 0

    rig.until(arrives, "the bridge is connected", rig.START_S)


def waiting(results: Results, folder: Path, other: Broker, count: int, sync: str) -> None:
    """The messages wait in the bridge's session while the appliance is away."""
    here = folder / f"waited {sync}"
    here.mkdir()
    text = (BRIDGE + IN).format(port=other.port, topic=TOPIC)
    with rig.appliance(here, text, sync=sync), journaled(here) as newest:
        wait_for_subscription(other.port, newest)
    load.publish(other.port, count, topic=TOPIC, size=SIZE)
    with (
        journaled(here) as newest,
        Sampler(newest) as sampler,
        rig.appliance(here, text, sync=sync) as broker,
    ):
        found, share = measured(broker.pid, lambda: sampler.noted, count)
    forget(other.port)
    results.add(f'in, waited, bridge, sync = "{sync}"', found, "messages/s", share)


def waiting_paho(results: Results, other: Broker, count: int) -> None:
    name = f"paho-lasting-{time.monotonic_ns()}"
    with paho(other.port, "subscribe", TOPIC, name):
        pass
    load.publish(other.port, count, topic=TOPIC, size=SIZE)
    with paho(other.port, "subscribe", TOPIC, name) as (pid, noted):
        found, share = measured(pid, noted, count)
    forget(other.port, name)
    results.add("in, waited, paho", found, "messages/s", share)


def incoming_paho(results: Results, other: Broker, count: int) -> None:
    with paho(other.port, "subscribe", TOPIC) as (pid, noted):
        publisher = publish(other.port, count)
        found, share = measured(pid, noted, count)
        publisher.wait()
    results.add("in, paho", found, "messages/s", share)


def outgoing(results: Results, folder: Path, other: Broker, count: int) -> None:
    here = folder / "out"
    here.mkdir()
    text = (BRIDGE + OUT).format(port=other.port, topic=TOPIC)
    arrivals = Arrivals(other.port)
    with rig.appliance(here, text) as broker, Sampler(arrivals.count) as sampler:
        publisher = publish(broker.port, count)
        found, share = measured(broker.pid, lambda: sampler.noted, count)
        publisher.wait()
    arrivals.close()
    results.add("out, bridge", found, "messages/s", share)


def outgoing_paho(results: Results, other: Broker, count: int) -> None:
    arrivals = Arrivals(other.port)
    with (
        Sampler(arrivals.count) as sampler,
        paho(other.port, "publish", TOPIC, count, WINDOW, SIZE) as (pid, _),
    ):
        found, share = measured(pid, lambda: sampler.noted, count)
    arrivals.close()
    results.add("out, paho", found, "messages/s", share)


# --- to the POST -----------------------------------------------------------------------------


class Hop:
    """From PUBLISH at mosquitto to a subscriber of it, at QoS 1."""

    def __init__(self, port: int) -> None:
        self._reader = load.connect("127.0.0.1", port, "hop-reader")
        load.subscribe(self._reader, [HOP_TOPIC], 1)
        self._writer = load.connect("127.0.0.1", port, "hop-writer")
        block, width = load.publishes(HOP_TOPIC, SIZE)
        self._packet = block[:width]
        self._id_at = width - SIZE - 2

    def once(self) -> float:
        """Milliseconds from before the PUBLISH leaves to its arrival."""
        began = time.perf_counter()
        self._writer.sendall(self._packet)
        arrived = load.exactly(self._reader, len(self._packet))
        passed = (time.perf_counter() - began) * 1000
        self._reader.sendall(b"\x40\x02" + arrived[self._id_at : self._id_at + 2])
        load.exactly(self._writer, 4)
        return passed

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def to_the_post(results: Results, folder: Path, other: Broker, starts: int) -> None:
    """Directly and by way of mosquitto in turn, to one appliance; each start has its own task."""
    chance = random.Random(1)
    here = folder / "post"
    here.mkdir()
    hop = Hop(other.port)
    hops: list[float] = []
    sent: dict[str, tuple[str, int]] = {}
    arrived: dict[str, int] = {}
    everything = 2 * (latency.WARM_UP + starts)
    with latency.QlikServer(everything) as qlik:
        text = latency.QLIK.format(port=qlik.port)
        text += (BRIDGE + IN).format(port=other.port, topic=latency.TOPIC)
        with rig.appliance(here, text) as broker:
            time.sleep(2)  # connected, and the task list is read
            ways = {
                "direct": load.connect("127.0.0.1", broker.port, "direct"),
                "bridge": load.connect("127.0.0.1", other.port, "by-mosquitto"),
            }
            for number in range(everything):
                way = ("direct", "bridge")[number % 2]
                data = latency.packet(number)
                sent[task_id(number)] = (way, time.time_ns())
                ways[way].sendall(data)
                load.exactly(ways[way], 4)
                time.sleep(chance.uniform(*latency.BETWEEN_S))
                hops.append(hop.once())
            end = time.monotonic() + 10
            while len(arrived) < len(sent) and time.monotonic() < end:
                time.sleep(0.2)
                arrived |= qlik.arrived()
            for sock in ways.values():
                sock.close()
    hop.close()
    forget(other.port)
    measured = list(sent.items())[2 * latency.WARM_UP :]
    times = {
        way: [
            (arrived[id_] - at) / 1e6 for id_, (by, at) in measured if by == way and id_ in arrived
        ]
        for way in ("direct", "bridge")
    }
    missing = len(sent) - len(arrived)
    if missing:
        print(f"  {missing} starts never arrived", file=sys.stderr)
    own, direct, bridge = median(hops), median(times["direct"]), median(times["bridge"])
    results.add("to the POST, mosquitto's own hop, p50", own, "ms")
    results.add("to the POST, direct, p50", direct, "ms")
    results.add("to the POST, by the bridge, p50", bridge, "ms")
    results.add("to the POST, direct and hop, p50", direct + own, "ms")


def main() -> None:
    options = rig.arguments(__doc__ or "", messages=60_000, starts=150)
    results = Results("Bridge to mosquitto, 64 bytes, QoS 1")
    count = options.messages
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            here.chmod(0o755)
            with mosquitto(here) as other:
                parts = [
                    ("in", lambda: incoming_paho(results, other, count)),
                    ("in", lambda: incoming(results, here, other, count, "always")),
                    ("in", lambda: incoming(results, here, other, count, "os")),
                    ("in, waited", lambda: waiting_paho(results, other, count)),
                    ("in, waited", lambda: waiting(results, here, other, count, "always")),
                    ("in, waited", lambda: waiting(results, here, other, count, "os")),
                    ("out", lambda: outgoing_paho(results, other, count)),
                    ("out", lambda: outgoing(results, here, other, count)),
                    ("post", lambda: to_the_post(results, here, other, options.starts)),
                ]
                if number % 2:
                    parts.reverse()
                for name, part in parts:
                    if options.only in name:
                        part()
    for what in ("in", "in, waited"):
        for sync in ("always", "os"):
            results.compare(
                f'{what}: bridge, sync = "{sync}", to paho',
                f'{what}, bridge, sync = "{sync}"',
                f"{what}, paho",
                ">= 0.7",
            )
    results.compare("out: bridge to paho", "out, bridge", "out, paho", ">= 0.7")
    results.compare(
        "to the POST, p50: by the bridge to direct and hop",
        "to the POST, by the bridge, p50",
        "to the POST, direct and hop, p50",
        "<= 1.5",
    )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
