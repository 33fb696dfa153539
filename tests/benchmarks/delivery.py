"""Delivery from one publisher to one outside subscriber, beside mosquitto and stock amqtt.

At most 1000 messages (QoS 0) or 20 (QoS 1) are between the two clients. Then the same with a
thousand subscriptions of other clients that do not match.

Usage: python tests/benchmarks/delivery.py [--folder DIR] [--rounds 3] [--seconds 3]
"""

from __future__ import annotations

import load
import rig
from rig import Broker, Meter, Results

WINDOWS = {0: 1000, 1: 20}
OTHERS = 1000
PER_CLIENT = 50


def measure(results: Results, broker: Broker, seconds: float, what: str) -> None:
    for qos, window in WINDOWS.items():
        meter = Meter(broker.pid)
        rate, lost = load.deliver(
            broker.port, qos=qos, seconds=seconds, window=window, begun=meter.begin
        )
        meter.end()
        results.add(f"QoS {qos}, {what}", rate, "messages/s", meter.share)
        if lost:
            results.add(f"QoS {qos}, {what}: lost", lost, "messages")


def subscribe_others(port: int) -> list[object]:
    """A thousand subscriptions that match nothing that is sent, half of them with wildcards."""
    socks = []
    for first in range(0, OTHERS, PER_CLIENT):
        sock = load.connect("127.0.0.1", port, f"other-{first}")
        filters = [
            f"plant/line{n}/press" if n % 2 else f"plant/line{n}/+"
            for n in range(first, first + PER_CLIENT)
        ]
        load.subscribe(sock, filters, 0)
        socks.append(sock)
    return socks


def main() -> None:
    options = rig.arguments(__doc__ or "", seconds=3.0)
    results = Results("Delivery to one outside subscriber, 64 bytes")
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            for name, make in (
                ("mosquitto", rig.mosquitto),
                ("amqtt", rig.stock_amqtt),
                ("appliance", rig.appliance),
            ):
                with make(here) as broker:
                    measure(results, broker, options.seconds, name)
                    others = subscribe_others(broker.port)
                    measure(results, broker, options.seconds, f"{name}, 1000 others")
                    for sock in others:
                        sock.close()
    for qos, target in ((0, ">= 2"), (1, "")):
        mine = f"QoS {qos}, appliance"
        results.compare(f"QoS {qos}: to amqtt", mine, f"QoS {qos}, amqtt", target)
        results.compare(f"QoS {qos}: to mosquitto", mine, f"QoS {qos}, mosquitto")
        for name in ("appliance", "amqtt", "mosquitto"):
            results.compare(
                f"QoS {qos}: {name} with 1000 other subscriptions to without",
                f"QoS {qos}, {name}, 1000 others",
                f"QoS {qos}, {name}",
                ">= 0.9" if name == "appliance" else "",
            )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
