"""Connections: what an idle one costs in memory, and how many can be made in a second.

Usage: python tests/benchmarks/connections.py [--folder DIR] [--rounds 3] [--idle 1000]
"""

from __future__ import annotations

import resource
import selectors
import time

import load
import rig
from rig import Broker, Meter, Results

AT_ONCE = 20
SETTLE_S = 2.0


def idle(results: Results, broker: Broker, count: int) -> None:
    before = broker_rss(broker)
    socks = []
    for number in range(count):
        socks.append(load.connect("127.0.0.1", broker.port, f"idle-{number}"))
    time.sleep(SETTLE_S)  # what is cleaned up behind a CONNECT is not part of an idle connection
    after = broker_rss(broker)
    results.add(f"memory, {broker.name}", (after - before) / count, "KB a connection")
    for number, sock in enumerate(socks):
        load.subscribe(sock, [f"plant/line{number}/state"], 1)
    time.sleep(SETTLE_S)
    results.add(
        f"memory with one subscription each, {broker.name}",
        (broker_rss(broker) - before) / count,
        "KB a connection",
    )
    for sock in socks:
        sock.close()


def broker_rss(broker: Broker) -> int:
    return rig.rss_kb(broker.pid)


def one_by_one(broker: Broker, seconds: float) -> float:
    """CONNECT, CONNACK, DISCONNECT, close; again and again."""
    end = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < end:
        sock = load.connect("127.0.0.1", broker.port, f"short-{count}")
        sock.sendall(b"\xe0\x00")
        sock.close()
        count += 1
    return count / seconds


def at_once(broker: Broker, seconds: float) -> float:
    """The same with twenty on their way at any time."""
    selector = selectors.DefaultSelector()
    begin = time.perf_counter()
    asked = done = 0

    def ask() -> None:
        nonlocal asked
        sock = load.connect("127.0.0.1", broker.port, f"many-{asked}", wait=False)
        selector.register(sock, selectors.EVENT_READ)
        asked += 1

    for _ in range(AT_ONCE):
        ask()
    while time.perf_counter() < begin + seconds:
        for key, _ in selector.select(0.5):
            sock = key.fileobj
            load.connack(sock)
            done += 1
            selector.unregister(sock)
            sock.sendall(b"\xe0\x00")
            sock.close()
            ask()
    rate = done / (time.perf_counter() - begin)
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return rate


def main() -> None:
    options = rig.arguments(__doc__ or "", seconds=3.0, idle=1000)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, options.idle * 2 + 500), most))
    results = Results(f"Connections ({options.idle} idle)")
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            for make in (rig.mosquitto, rig.stock_amqtt, rig.appliance):
                with make(here) as broker:
                    # The first connections load what is loaded once.
                    one_by_one(broker, 0.3)
                    idle(results, broker, options.idle)
                with make(here) as broker:
                    for text, way in (("one by one", one_by_one), ("20 at once", at_once)):
                        meter = Meter(broker.pid)
                        rate = way(broker, options.seconds)
                        meter.end()
                        results.add(f"{text}, {broker.name}", rate, "CONNECT/s", meter.share)
    # A connection that only publishes, and one that also has a subscription.
    results.limit("memory, appliance", "<= 16")
    results.limit("memory with one subscription each, appliance", "<= 60")
    for text in ("one by one", "20 at once"):
        results.compare(f"CONNECT {text}: to amqtt", f"{text}, appliance", f"{text}, amqtt", ">= 3")
        results.compare(f"CONNECT {text}: to mosquitto", f"{text}, appliance", f"{text}, mosquitto")
    rig.finish(options, results)


if __name__ == "__main__":
    main()
