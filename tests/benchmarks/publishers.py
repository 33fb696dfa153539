"""Many publishers at one appliance: what they cost, and how long an acknowledgement takes.

Usage: python tests/benchmarks/publishers.py [--folder DIR] [--rounds 3] [--publishers 15000]
       [--period 10] [--seconds 30]

Each publisher sends one message of 64 bytes at QoS 1 in each period, at its own moment.
"""

from __future__ import annotations

import resource
import selectors
import socket
import time

import load
import rig
from rig import Broker, Meter, Results

ADDRESSES = 20
"""Local addresses that the connections come from, as from as many machines."""
LIMITS = """
[[recorder]]
topic = "bench/#"
path = "recordings/bench.json"
format = "json"
"""


def connect(broker: Broker, number: int) -> socket.socket:
    """A connection from one of the local addresses."""
    source = (f"127.0.1.{1 + number % ADDRESSES}", 0)
    sock = socket.create_connection(("127.0.0.1", broker.port), 30.0, source)
    name = f"publisher-{number}".encode()
    body = b"\0\4MQTT\4\2\0\0" + len(name).to_bytes(2, "big") + name
    sock.sendall(b"\x10" + bytes((len(body),)) + body)
    load.connack(sock)
    return sock


def publish(socks: list[socket.socket], period_s: float, seconds: float) -> list[float]:
    """One message a period and publisher; returns how long each acknowledgement took."""
    packet, width = load.publishes("bench/topic", 64)
    selector = selectors.DefaultSelector()
    for number, sock in enumerate(socks):
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, number)
    sent_at = [0.0] * len(socks)
    took = []
    begin = time.perf_counter()
    step = period_s / len(socks)
    done = 0
    while (now := time.perf_counter()) < begin + seconds:
        due = int((now - begin) / step)
        while done < due:
            number = done % len(socks)
            sent_at[number] = time.perf_counter()
            socks[number].send(packet[:width])
            done += 1
        for key, _ in selector.select(0.001):
            key.fileobj.recv(4096)
            took.append(time.perf_counter() - sent_at[key.data])
    return took


def main() -> None:
    options = rig.arguments(__doc__ or "", seconds=30.0, publishers=15000, period=10.0)
    count = int(options.publishers)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, count + 1000), most))
    rig.CONFIG = rig.CONFIG.replace("5000", str(count + 1000))
    results = Results(f"{count:,} publishers, one message in {options.period:g} s each")
    with rig.scratch(options.folder) as folder:
        for number in range(int(options.rounds)):
            here = folder / str(number)
            here.mkdir()
            with rig.appliance(here, LIMITS) as broker:
                begin = time.perf_counter()
                socks = [connect(broker, each) for each in range(count)]
                results.add("made", count / (time.perf_counter() - begin), "connections/s")
                time.sleep(2.0)
                meter = Meter(broker.pid)
                took = sorted(publish(socks, options.period, options.seconds))
                meter.end()
                rate = len(took) / options.seconds
                results.add("acknowledged", rate, "messages/s", meter.share)
                results.add("acknowledgement, median", took[len(took) // 2] * 1000, "ms")
                results.add("acknowledgement, 99 %", took[len(took) * 99 // 100] * 1000, "ms")
                results.add("memory of the appliance", rig.rss_kb(broker.pid) / 1024, "MB")
                for sock in socks:
                    sock.close()
    rig.finish(options, results)


if __name__ == "__main__":
    main()
