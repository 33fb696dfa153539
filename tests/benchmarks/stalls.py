"""How long one client can keep another one waiting: the longest PINGRESP of an innocent client.

``python tests/benchmarks/stalls.py [--of FOLDER [--old]] [KIND ...]`` starts the appliance of FOLDER (this
one by default), sends what each kind sends, and prints the longest time that another client's
PINGREQ waited meanwhile. The pinging client is a process of its own. Times of a busy machine are
longer: repeat, and compare with the line ``nothing``.
"""

from __future__ import annotations

import argparse
import contextlib
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
max_connections = 5000
[limits]
max_connections = 5000
max_connections_per_address = 5000
max_sessions_per_user = 10000
max_queued_per_client = 100000
"""
OLD_CONFIG = ("max_sessions_per_user = 10000\n",)
"""What earlier versions do not know (``--old``)."""
WEBSOCKET = """
[[listener]]
name = "websocket"
bind = "127.0.0.1:{port}"
transport = "websocket"
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

    def __init__(
        self,
        port: int,
        name: str,
        *,
        clean: bool = True,
        version: int = 4,
        will: str = "",
        expiry_s: int = 0,
    ) -> None:
        self.version = version
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(120)
        flags = (2 if clean else 0) | (0b1100 if will else 0)
        properties = b""
        if version == 5:
            expiry = expiry_s if clean else 0xFFFFFFFF
            properties = b"\x05\x11" + struct.pack(">I", expiry) if expiry else b"\0"
        testament = [b"\0"[: version - 4], text(will), text("gone")] if will else []
        self.socket.sendall(
            packet(
                0x10,
                text("MQTT"),
                bytes((version, flags)),
                b"\0\0",
                properties,
                text(name),
                *testament,
            )
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


class Target:
    """The appliance that is measured."""

    def __init__(self, code: Path, folder: Path, port: int, websocket_port: int) -> None:
        self.code = code
        self.folder = folder
        """Its configuration is ``config.toml`` in it."""
        self.port = port
        self.websocket_port = websocket_port


def _absent_sessions(
    at: Target, count: int, *filters: str, will: str = "", expiry_s: int = 3600, stay: bool = False
) -> list[Client]:
    """Sessions of so many clients, which leave or ``stay``."""
    clients = []
    for number in range(count):
        client = Client(at.port, f"absent{number}", version=5, will=will, expiry_s=expiry_s)
        if filters:
            client.subscribe(*(each.replace("%", str(number)) for each in filters))
            client.receive(9)
        if stay:
            clients.append(client)
        else:
            client.send(b"\xe0\x00")
            client.socket.close()
    return clients


# --- the kinds: each prepares and returns what is to be measured --------------------------------


def nothing(at: Target) -> Callable[[], None]:
    return lambda: time.sleep(1)


def _retain(at: Target, topics: list[str]) -> None:
    client = Client(at.port, "retainer")
    for begin in range(0, len(topics), 500):
        part = topics[begin : begin + 500]
        client.send(b"".join(packet(0x31, text(topic), b"x") for topic in part))
        client.ping()
    time.sleep(1)


def subscribe_deep_retained(at: Target) -> Callable[[], None]:
    _retain(at, [f"{n}/" + "/".join("a" * (LEVELS - 1)) for n in range(3000)])
    client = Client(at.port, "greedy")
    filters = ["/".join(["+"] * depth) + "/x" for depth in range(1, LEVELS)] * 2

    def act() -> None:
        client.subscribe(*filters[:49])
        client.receive(9)
        client.swallow()

    return act


def subscribe_all_retained(at: Target) -> Callable[[], None]:
    _retain(at, [f"r/{n}" for n in range(9000)])
    client = Client(at.port, "greedy")

    def act() -> None:
        client.subscribe(*(["#"] + ["/".join(["+"] * n) + "/#" for n in range(1, 20)]))
        client.swallow()

    return act


def subscribe_1000(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy", clean=False)

    def act() -> None:
        client.subscribe(*(f"plant/{n}/+/state/#" for n in range(1000)))
        client.receive(9)
        client.unsubscribe(*(f"plant/{n}/+/state/#" for n in range(1000)))
        client.receive(11)

    return act


def subscribe_far_too_many(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy")
    data = packet(0x82, b"\0\1", (text("a") + b"\0") * 260_000)

    def act() -> None:
        client.send(data)
        client.swallow()

    return act


def unsubscribe_far_too_many(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy")
    data = packet(0xA2, b"\0\1", text("a") * 340_000)

    def act() -> None:
        client.send(data)
        client.swallow()

    return act


def many_pings(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy")

    def act() -> None:
        for _ in range(8):
            client.send(b"\xc0\x00" * 100_000)
            client.swallow(0.05)
        client.swallow()

    return act


def many_tiny_messages(at: Target) -> Callable[[], None]:
    listener = Client(at.port, "listener")
    listener.subscribe("#", qos=0)
    listener.receive(9)
    client = Client(at.port, "greedy")
    data = b"".join(packet(0x30, text(chr(97 + n % 26)), b"") for n in range(50_000))

    def act() -> None:
        for _ in range(4):
            client.send(data)
        client.swallow()
        listener.swallow()

    return act


def message_to_many_sessions(at: Target) -> Callable[[], None]:
    clients = []
    for number in range(4000):
        client = Client(at.port, f"absent{number}", clean=False)
        client.subscribe("all")
        client.receive(9)
        client.send(b"\xe0\x00")
        client.socket.close()
        clients.append(client)
    client = Client(at.port, "greedy")

    def act() -> None:
        for _ in range(20):
            client.publish("all", b"x", 1)
        for _ in range(20):
            client.receive(4)
        client.swallow()

    return act


def message_through_deep_filters(at: Target) -> Callable[[], None]:
    for number in range(3):
        client = Client(at.port, f"deep{number}", clean=False)
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
    client = Client(at.port, "greedy")

    def act() -> None:
        for number in range(20):
            client.publish("/".join(["a"] * (LEVELS - 1)) + f"/x{number}", b"x", 1)
            client.receive(4)

    return act


def session_comes_back(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy", clean=False)
    client.subscribe(*(f"plant/{n}/+/state/#" for n in range(999)), "q")
    client.receive(9)
    client.socket.close()
    publisher = Client(at.port, "publisher")
    for _ in range(1000):
        publisher.publish("q", b"x" * 1000, 1)
        publisher.receive(4)

    def act() -> None:
        for clean in (False, False, True):
            again = Client(at.port, "greedy", clean=clean)
            again.swallow(0.3)

    return act


def properties(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy", version=5)
    pairs = b"\x26\0\0\0\0" * 180_000
    data = packet(0x30, text("t"), length(len(pairs)), pairs, b"x")

    def act() -> None:
        client.send(data)
        client.swallow()

    return act


def properties_before_login(at: Target) -> Callable[[], None]:
    pairs = b"\x26\0\0\0\0" * 52_000
    data = packet(0x10, text("MQTT"), b"\5\2\0\0", length(len(pairs)), pairs, text("x"))

    def act() -> None:
        for _ in range(3):
            stranger = socket.create_connection(("127.0.0.1", at.port))
            stranger.sendall(data)
            time.sleep(0.5)
            stranger.close()

    return act


def sessions_that_do_nothing(at: Target) -> Callable[[], None]:
    _absent_sessions(at, 8000, *(f"plant/%/{n}/+" for n in range(10)))
    return lambda: time.sleep(4)


def sessions_expire_at_once(at: Target) -> Callable[[], None]:
    filters = [f"plant/%/{n}/+" for n in range(50)]
    clients = _absent_sessions(at, 3000, *filters, will="wills/x", expiry_s=2, stay=True)

    def act() -> None:
        for client in clients:
            client.socket.close()
        time.sleep(8)

    return act


def wills_at_once(at: Target) -> Callable[[], None]:
    _absent_sessions(at, 300, "wills/#")
    clients = _absent_sessions(at, 3000, will="wills/x", expiry_s=0, stay=True)

    def act() -> None:
        for client in clients:
            client.socket.close()
        time.sleep(5)

    return act


def rules_change(at: Target) -> Callable[[], None]:
    _absent_sessions(at, 4000, *(f"plant/%/{n}/+" for n in range(20)), "all")
    publisher = Client(at.port, "publisher")
    for _ in range(20):
        publisher.publish("all")
        publisher.receive(4)

    def act() -> None:
        _reload(at, "\n".join(f'[[access.rule]]\nsubscribe = ["plant/{n}/#"]' for n in range(50)))
        time.sleep(3)

    return act


def a_reload_with_sessions(at: Target) -> Callable[[], None]:
    _absent_sessions(at, 8000, *(f"plant/%/{n}/+" for n in range(10)))

    def act() -> None:
        _reload(at, "[[access.rule]]\npublish = ['#']\nsubscribe = ['#']\ndeny = ['secret/#']\n")
        time.sleep(3)

    return act


def _reload(at: Target, more: str) -> None:
    path = at.folder / "config.toml"
    path.write_text(path.read_text("utf-8") + more, "utf-8")
    command = [sys.executable, "-m", "appliance", "reload", "-c", str(path)]
    subprocess.run(command, check=True, cwd=at.code, stdout=subprocess.DEVNULL)


def a_long_queue_ends(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy", clean=False)
    filters = [f"plant/{n}/" + "/".join(["+"] * 6) for n in range(999)]
    client.subscribe(*filters, "q")
    client.receive(9)
    client.socket.close()
    publisher = Client(at.port, "publisher")
    for _ in range(100):
        publisher.send(b"".join(packet(0x32, text("q"), b"\0\1", b"x" * 100) for _ in range(1000)))
        for _ in range(1000):
            publisher.receive(4)

    def act() -> None:
        time.sleep(2)
        for clean in (False, True):
            again = Client(at.port, "greedy", clean=clean)
            again.swallow(0.3)
            again.socket.close()
            time.sleep(1)

    return act


def retained_deletions(at: Target) -> Callable[[], None]:
    topics = [f"r/{n}" for n in range(10_000)]
    _retain(at, topics)
    client = Client(at.port, "greedy")

    def act() -> None:
        client.send(b"".join(packet(0x31, text(topic)) for topic in topics))
        client.ping()
        _retain(at, topics)

    return act


def many_acknowledgements(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy")

    def act() -> None:
        for first in (0x40, 0x50, 0x62, 0x70):
            client.send((bytes((first, 2)) + b"\x12\x34") * 50_000)
            client.swallow(0.05)

    return act


def shared_by_absent_members(at: Target) -> Callable[[], None]:
    _absent_sessions(at, 4000, "$share/g/all")
    client = Client(at.port, "greedy")

    def act() -> None:
        client.send(b"".join(packet(0x30, text("all"), b"x") for _ in range(3000)))
        client.ping()
        time.sleep(2)

    return act


def overlapping_subscriptions(at: Target) -> Callable[[], None]:
    for number in range(10):
        client = Client(at.port, f"absent{number}", version=5, expiry_s=3600)
        for begin in range(0, 1000, 50):
            filters = [
                "/".join("+" if n >> bit & 1 else "a" for bit in range(10))
                for n in range(begin, begin + 50)
            ]
            identifier = b"\x02\x0b\x01"
            parts = (text(each) + b"\1" for each in filters)
            client.send(packet(0x82, b"\0\1", identifier, *parts))
            client.receive(9)
        client.socket.close()
    client = Client(at.port, "greedy")

    def act() -> None:
        for _ in range(200):
            client.publish("/".join("a" * 10))
        time.sleep(2)
        client.swallow()

    return act


def crowd_comes_and_goes(at: Target) -> Callable[[], None]:
    def act() -> None:
        for _ in range(2):
            crowd = [socket.create_connection(("127.0.0.1", at.port)) for _ in range(1500)]
            for number, each in enumerate(crowd):
                each.sendall(packet(0x10, text("MQTT"), b"\4\2\0\0", text(f"crowd{number}")))
            time.sleep(1)
            for each in crowd:
                each.close()
            time.sleep(1)

    return act


def _websocket(at: Target, name: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", at.websocket_port))
    client.settimeout(20)
    client.sendall(
        b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    client.recv(4096)
    client.sendall(_frame(2, packet(0x10, text("MQTT"), b"\4\2\0\0", text(name))))
    client.recv(4096)
    return client


def _frame(opcode: int, data: bytes) -> bytes:
    return bytes((0x80 | opcode, 0x80 | len(data))) + b"\0\0\0\0" + data


def small_websocket_frames(at: Target) -> Callable[[], None]:
    client = _websocket(at, "greedy")
    ping = _frame(2, b"\xc0") + _frame(2, b"\x00")

    def act() -> None:
        client.settimeout(20)
        client.sendall(ping * 30_000)
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while client.recv(1 << 20):
                pass

    return act


def websocket_pings(at: Target) -> Callable[[], None]:
    client = _websocket(at, "greedy")

    def act() -> None:
        client.settimeout(20)
        client.sendall(_frame(9, b"") * 60_000)
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while client.recv(1 << 20):
                pass

    return act


def filters_before_plugins(at: Target) -> Callable[[], None]:
    client = Client(at.port, "greedy")

    def act() -> None:
        for begin in (0, 1000):
            client.subscribe(*(f"plant/{begin + n}/+/state/#" for n in range(1000)))
            client.receive(9)

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
    sessions_that_do_nothing,
    sessions_expire_at_once,
    wills_at_once,
    rules_change,
    a_reload_with_sessions,
    a_long_queue_ends,
    retained_deletions,
    many_acknowledgements,
    shared_by_absent_members,
    overlapping_subscriptions,
    crowd_comes_and_goes,
    small_websocket_frames,
    websocket_pings,
    filters_before_plugins,
)
PLUGINS = """
[access]
anonymous = true
[[access.plugins]]
class = "plugins_for_tests.Topics"
"""
MORE = {filters_before_plugins: PLUGINS}
"""What some kinds have in the configuration."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(
    kind: Callable[[Target], Callable[[], None]], folder: Path, *, is_old: bool
) -> tuple[float, float]:
    """(longest wait of the other client, duration of it all), in seconds."""
    port, websocket_port = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as data:
        config = Path(data) / "config.toml"
        whole = (
            CONFIG.format(port=port) + WEBSOCKET.format(port=websocket_port) + MORE.get(kind, "")
        )
        for each in OLD_CONFIG if is_old else ():
            whole = whole.replace(each, "")
        config.write_text(whole, "utf-8")
        engine = subprocess.Popen(
            [sys.executable, "-m", "appliance", "run", "--headless", "-c", str(config)],
            cwd=folder,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(folder), str(HERE / "tests"))),
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
            act = kind(Target(folder, Path(data), port, websocket_port))
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
    parser.add_argument("--old", action="store_true", help="its configuration knows less")
    parser.add_argument("kinds", nargs="*")
    asked = parser.parse_args()
    # What is measured is the appliance, not what else the machine does; only root may say so.
    with contextlib.suppress(AttributeError, PermissionError):
        os.nice(-15)
    for kind in KINDS:
        if not asked.kinds or kind.__name__ in asked.kinds:
            longest, took = measure(kind, asked.of, is_old=asked.old)
            print(f"{kind.__name__:32} {longest * 1000:8.1f} ms  of {took:5.1f} s", flush=True)


if __name__ == "__main__":
    main()
