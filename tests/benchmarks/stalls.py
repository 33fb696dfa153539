"""How long one client can keep another one waiting: the longest PINGRESP of an innocent client.

``python tests/benchmarks/stalls.py [--of FOLDER] [KIND ...]`` starts the appliance of FOLDER (this
one by default), sends what each kind sends, and prints the longest time that another client's
PINGREQ waited meanwhile. The pinging client is a process of its own. Times of a busy machine are
longer: repeat, and compare with the line ``nothing``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parents[2]
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:{port}"
[limits]
max_connections = 5000
max_connections_per_address = 5000
"""
LEVELS = 28


def length(size: int) -> bytes:
    found = bytearray()
    while True:
        found.append(size % 128 | (128 if size > 127 else 0))
        size //= 128
        if not size:
            return bytes(found)


def packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((first,)) + length(len(body)) + body


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


class Client:
    """A blocking client of MQTT 3.1.1, or of MQTT 5 with ``version=5``."""

    def __init__(self, port: int, name: str, *, clean: bool = True, version: int = 4) -> None:
        self.version = version
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(120)
        flags = 2 if clean else 0
        properties = b"" if version == 4 else b"\0" if clean else b"\x05\x11\xff\xff\xff\xff"
        self.socket.sendall(
            packet(0x10, text("MQTT"), bytes((version, flags)), b"\0\0", properties, text(name))
        )
        self.receive(2)

    def receive(self, kind: int) -> bytes:
        """The next packet of a kind; all others are dropped."""
        while True:
            first = self._exactly(1)[0]
            size = shift = 0
            while True:
                digit = self._exactly(1)[0]
                size |= (digit & 127) << shift
                shift += 7
                if digit < 128:
                    break
            body = self._exactly(size)
            if first >> 4 == kind:
                return body

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise ConnectionError("closed")
            data += chunk
        return data

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, *, retain: bool = False):
        none = b"" if self.version == 4 else b"\0"
        packet_id = b"\0\1" if qos else b""
        self.send(packet(0x30 | qos << 1 | int(retain), text(topic), packet_id, none, payload))

    def subscribe(self, *filters: str, qos: int = 1) -> None:
        none = b"" if self.version == 4 else b"\0"
        self.send(packet(0x82, b"\0\1", none, *(text(one) + bytes((qos,)) for one in filters)))

    def unsubscribe(self, *filters: str) -> None:
        none = b"" if self.version == 4 else b"\0"
        self.send(packet(0xA2, b"\0\1", none, *(text(one) for one in filters)))

    def ping(self) -> None:
        self.send(b"\xc0\x00")
        self.receive(13)

    def swallow(self, quiet_s: float = 0.5) -> None:
        """Read and drop until nothing comes for a while, or the broker closes."""
        self.socket.settimeout(quiet_s)
        try:
            while self.socket.recv(1 << 20):
                pass
        except (TimeoutError, ConnectionError):
            pass
        self.socket.settimeout(120)


def _pinger(port: int, orders: object) -> None:
    """Ping until told to stop; answers with the longest wait since the last order."""
    client = Client(port, "innocent")
    longest = 0.0
    while True:
        began = time.perf_counter()
        client.ping()
        longest = max(longest, time.perf_counter() - began)
        if orders.poll(0.001):
            if orders.recv() == "stop":
                return
            orders.send(longest)
            longest = 0.0


# --- the kinds: each prepares and returns what is to be measured --------------------------------


def nothing(port: int) -> Callable[[], None]:
    return lambda: time.sleep(1)


def _retain(port: int, topics: list[str]) -> None:
    client = Client(port, "retainer")
    for begin in range(0, len(topics), 500):
        part = topics[begin : begin + 500]
        client.send(b"".join(packet(0x31, text(topic), b"x") for topic in part))
        client.ping()
    time.sleep(1)


def subscribe_deep_retained(port: int) -> Callable[[], None]:
    _retain(port, [f"{n}/" + "/".join("a" * (LEVELS - 1)) for n in range(3000)])
    client = Client(port, "greedy")
    filters = ["/".join(["+"] * depth) + "/x" for depth in range(1, LEVELS)] * 2

    def act() -> None:
        client.subscribe(*filters[:49])
        client.receive(9)
        client.swallow()

    return act


def subscribe_all_retained(port: int) -> Callable[[], None]:
    _retain(port, [f"r/{n}" for n in range(9000)])
    client = Client(port, "greedy")

    def act() -> None:
        client.subscribe(*(["#"] + ["/".join(["+"] * n) + "/#" for n in range(1, 20)]))
        client.swallow()

    return act


def subscribe_1000(port: int) -> Callable[[], None]:
    client = Client(port, "greedy", clean=False)

    def act() -> None:
        client.subscribe(*(f"plant/{n}/+/state/#" for n in range(1000)))
        client.receive(9)
        client.unsubscribe(*(f"plant/{n}/+/state/#" for n in range(1000)))
        client.receive(11)

    return act


def subscribe_far_too_many(port: int) -> Callable[[], None]:
    client = Client(port, "greedy")
    data = packet(0x82, b"\0\1", (text("a") + b"\0") * 260_000)

    def act() -> None:
        client.send(data)
        client.swallow()

    return act


def unsubscribe_far_too_many(port: int) -> Callable[[], None]:
    client = Client(port, "greedy")
    data = packet(0xA2, b"\0\1", text("a") * 340_000)

    def act() -> None:
        client.send(data)
        client.swallow()

    return act


def many_pings(port: int) -> Callable[[], None]:
    client = Client(port, "greedy")

    def act() -> None:
        for _ in range(8):
            client.send(b"\xc0\x00" * 100_000)
            client.swallow(0.05)
        client.swallow()

    return act


def many_tiny_messages(port: int) -> Callable[[], None]:
    listener = Client(port, "listener")
    listener.subscribe("#", qos=0)
    listener.receive(9)
    client = Client(port, "greedy")
    data = b"".join(packet(0x30, text(chr(97 + n % 26)), b"") for n in range(50_000))

    def act() -> None:
        for _ in range(4):
            client.send(data)
        client.swallow()
        listener.swallow()

    return act


def message_to_many_sessions(port: int) -> Callable[[], None]:
    clients = []
    for number in range(4000):
        client = Client(port, f"absent{number}", clean=False)
        client.subscribe("all")
        client.receive(9)
        client.send(b"\xe0\x00")
        client.socket.close()
        clients.append(client)
    client = Client(port, "greedy")

    def act() -> None:
        for _ in range(20):
            client.publish("all", b"x", 1)
        for _ in range(20):
            client.receive(4)
        client.swallow()

    return act


def message_through_deep_filters(port: int) -> Callable[[], None]:
    for number in range(3):
        client = Client(port, f"deep{number}", clean=False)
        for begin in range(0, 1000, 20):
            client.subscribe(
                *(
                    "/".join("+" if (n * (number + 3)) >> bit & 1 else "a" for bit in range(12))
                    + "/"
                    + "/".join(["+"] * (LEVELS - 13))
                    + f"/{n}"
                    for n in range(begin, begin + 20)
                )
            )
            client.receive(9)
    client = Client(port, "greedy")

    def act() -> None:
        for number in range(20):
            client.publish("/".join(["a"] * (LEVELS - 1)) + f"/x{number}", b"x", 1)
            client.receive(4)

    return act


def session_comes_back(port: int) -> Callable[[], None]:
    client = Client(port, "greedy", clean=False)
    client.subscribe(*(f"plant/{n}/+/state/#" for n in range(999)), "q")
    client.receive(9)
    client.socket.close()
    publisher = Client(port, "publisher")
    for _ in range(1000):
        publisher.publish("q", b"x" * 1000, 1)
        publisher.receive(4)

    def act() -> None:
        for clean in (False, False, True):
            again = Client(port, "greedy", clean=clean)
            again.swallow(0.3)

    return act


def properties(port: int) -> Callable[[], None]:
    client = Client(port, "greedy", version=5)
    pairs = b"\x26\0\0\0\0" * 180_000
    data = packet(0x30, text("t"), length(len(pairs)), pairs, b"x")

    def act() -> None:
        client.send(data)
        client.swallow()

    return act


def properties_before_login(port: int) -> Callable[[], None]:
    pairs = b"\x26\0\0\0\0" * 52_000
    data = packet(0x10, text("MQTT"), b"\5\2\0\0", length(len(pairs)), pairs, text("x"))

    def act() -> None:
        for _ in range(3):
            stranger = socket.create_connection(("127.0.0.1", port))
            stranger.sendall(data)
            time.sleep(0.5)
            stranger.close()

    return act


KINDS = (
    nothing,
    subscribe_deep_retained,
    subscribe_all_retained,
    subscribe_1000,
    subscribe_far_too_many,
    unsubscribe_far_too_many,
    many_pings,
    many_tiny_messages,
    message_to_many_sessions,
    message_through_deep_filters,
    session_comes_back,
    properties,
    properties_before_login,
)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(kind: Callable[[int], Callable[[], None]], folder: Path) -> tuple[float, float]:
    """(longest wait of the other client, duration of it all), in seconds."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as data:
        config = Path(data) / "config.toml"
        config.write_text(CONFIG.format(port=port), "utf-8")
        engine = subprocess.Popen(
            [sys.executable, "-m", "appliance", "run", "--headless", "-c", str(config)],
            cwd=folder,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", ""))),
            },
        )
        try:
            assert engine.stderr is not None
            for line in engine.stderr:
                if b"listening on" in line:
                    break
            else:
                raise RuntimeError("the appliance did not start")
            threading.Thread(target=engine.stderr.read, daemon=True).start()
            act = kind(port)
            here, there = multiprocessing.Pipe()
            pinger = multiprocessing.Process(target=_pinger, args=(port, there), daemon=True)
            pinger.start()
            here.send("begin")
            here.recv()
            began = time.perf_counter()
            try:
                act()
            except ConnectionError:
                print("  (its connection ended)")
            took = time.perf_counter() - began
            here.send("tell")
            longest = here.recv()
            here.send("stop")
            pinger.join()
            return longest, took
        finally:
            engine.kill()
            engine.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", type=Path, default=HERE)
    parser.add_argument("kinds", nargs="*")
    asked = parser.parse_args()
    for kind in KINDS:
        if not asked.kinds or kind.__name__ in asked.kinds:
            longest, took = measure(kind, asked.of)
            print(f"{kind.__name__:32} {longest * 1000:8.1f} ms  of {took:5.1f} s", flush=True)


if __name__ == "__main__":
    main()
