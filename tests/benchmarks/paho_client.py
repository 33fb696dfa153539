"""A bare paho client that counts what comes, or publishes as fast as it can. For bridges.py.

It prints "ready", and at a line on its input when how many messages had come or were acknowledged,
as JSON: pairs of a count and a time of ``time.monotonic``. With a client id, its session lasts.

Usage: python paho_client.py PORT subscribe TOPIC [CLIENT_ID]
       python paho_client.py PORT publish TOPIC COUNT WINDOW SIZE
"""

from __future__ import annotations

import json
import sys
import threading
import time

import paho.mqtt.client as mqtt

EVERY = 200
"""One of so many messages is noted with its time."""


class Counter:
    def __init__(self) -> None:
        self.count = 0
        self.noted: list[tuple[int, float]] = []

    def add(self, *_: object) -> None:
        self.count += 1
        if self.count % EVERY == 0:
            self.noted.append((self.count, time.monotonic()))


def main() -> None:
    port, what, topic = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    counter = Counter()
    lasting = sys.argv[4] if what == "subscribe" and len(sys.argv) > 4 else ""
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=lasting or f"paho-{time.monotonic_ns()}",
        clean_session=not lasting,
    )
    ready = threading.Event()
    if what == "subscribe":
        client.on_message = counter.add
        client.on_connect = lambda *_: client.subscribe(topic, 1)
        client.on_subscribe = lambda *_: ready.set()
    else:
        count, window, size = map(int, sys.argv[4:7])
        client.max_inflight_messages_set(window)
        client.max_queued_messages_set(0)
        client.on_publish = counter.add
        client.on_connect = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    ready.wait(10)
    print("ready", flush=True)
    if what == "publish":
        payload = b"x" * size
        for _ in range(count):
            client.publish(topic, payload, 1)
    for _ in sys.stdin:
        print(json.dumps(counter.noted), flush=True)


if __name__ == "__main__":
    main()
