"""A load of MQTT 3.1.1 clients that costs little itself, so that the broker is what is measured.

Raw sockets, packets made beforehand. ``run``: each connection keeps ``window`` QoS 1 messages
unacknowledged and sends as many new ones as acknowledgements came. ``deliver``: one publisher and
one subscriber, with a bounded number of messages between them. Bounded in count and time.

Usage: python load.py PORT CONNECTIONS WINDOW SECONDS
       python load.py PORT steady RATE SECONDS
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable

IDS = 60000
JSON = b'{"Generated number": "12345", "station": "press 12", "note": ""}'
"""What machines send, most of the time; longer payloads have a longer note. 64 bytes."""


def connect(
    host: str, port: int, client_id: str, timeout: float = 10.0, *, wait: bool = True
) -> socket.socket:
    """Open a connection and wait for its CONNACK (or leave that to the caller)."""
    sock = socket.create_connection((host, port), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(name)) + name
    sock.sendall(b"\x10" + bytes((len(body),)) + body)
    if wait:
        connack(sock)
    return sock


def connack(sock: socket.socket) -> None:
    """Read a CONNACK that accepts."""
    answer = exactly(sock, 4)
    if answer[3] != 0:
        raise ConnectionError(f"refused: {answer[3]}")


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionError("closed by the broker")
        data += part
    return data


def subscribe(sock: socket.socket, filters: list[str], qos: int) -> None:
    """Subscribe and wait for the SUBACK; at most a hundred short filters."""
    body = b"\x00\x01"
    for topic_filter in filters:
        name = topic_filter.encode()
        body += struct.pack(">H", len(name)) + name + bytes((qos,))
    sock.sendall(b"\x82" + _length(len(body)) + body)
    size = exactly(sock, 2)[1]
    if size >= 128:
        size = (size & 127) | exactly(sock, 1)[0] << 7
    granted = exactly(sock, size)[2:]
    if any(code > 2 for code in granted):
        raise ConnectionError("a subscription was refused")


def _length(size: int) -> bytes:
    return bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))


def publishes(topic: str, size: int, qos: int = 1) -> tuple[bytes, int]:
    """Packets with the ids 1 to IDS in one block, and the size of each."""
    head = struct.pack(">H", len(topic)) + topic.encode()
    payload = JSON[:size] if size < len(JSON) else JSON[:-2] + b"x" * (size - len(JSON)) + JSON[-2:]
    length = _length(len(head) + (2 if qos else 0) + size)
    first = b"\x30" if qos == 0 else b"\x32"
    if qos == 0:
        packet = first + length + head + payload
        return packet * 1000, len(packet)
    packets = [
        first + length + head + struct.pack(">H", number) + payload for number in range(1, IDS + 1)
    ]
    return b"".join(packets), len(packets[0])


def run(
    port: int,
    *,
    connections: int,
    window: int,
    seconds: float,
    topic: str = "bench/topic",
    size: int = 64,
    begun: Callable[[], object] = lambda: None,
) -> float:
    """Acknowledgements a second over ``seconds``, after a warm-up of a fifth of that.

    ``begun`` is called when the counting begins.
    """
    block, width = publishes(topic, size)
    selector = selectors.DefaultSelector()
    stamp = time.monotonic_ns()
    socks = [connect("127.0.0.1", port, f"load-{i}-{stamp}") for i in range(connections)]
    state = {}
    for sock in socks:
        sock.setblocking(True)
        sock.sendall(block[: window * width])
        state[sock] = [window, 0]  # next packet, bytes of a partial acknowledgement
        selector.register(sock, selectors.EVENT_READ)
    begin = time.perf_counter()
    counting_from = begin + seconds / 5
    end = begin + seconds
    acks = 0
    counted_at = None
    while (now := time.perf_counter()) < end:
        if counted_at is None and now >= counting_from:
            begun()
            counted_at, acks = time.perf_counter(), 0
        for key, _ in selector.select(0.5):
            sock = key.fileobj
            data = sock.recv(262144)
            if not data:
                raise ConnectionError("closed by the broker")
            mine = state[sock]
            whole, mine[1] = divmod(mine[1] + len(data), 4)
            if whole:
                acks += whole
                at = mine[0]
                upto = at + whole
                if upto <= IDS:
                    sock.sendall(block[at * width : upto * width])
                    mine[0] = upto % IDS
                else:
                    sock.sendall(block[at * width :] + block[: (upto - IDS) * width])
                    mine[0] = upto - IDS
    passed = time.perf_counter() - (counted_at or begin)
    for sock in socks:
        sock.close()
    return acks / passed


def burst(
    port: int,
    count: int,
    *,
    connections: int = 10,
    window: int = 100,
    topic: str = "bench/topic",
    size: int = 64,
) -> tuple[float, float]:
    """Publish ``count`` QoS 1 messages as fast as they are acknowledged.

    Returns when the first was sent and when the last acknowledgement came (``time.monotonic``).
    """
    block, width = publishes(topic, size)
    selector = selectors.DefaultSelector()
    stamp = time.monotonic_ns()
    socks = [connect("127.0.0.1", port, f"burst-{i}-{stamp}") for i in range(connections)]
    state = {}
    begin = time.monotonic()
    for sock in socks:
        sock.sendall(block[: window * width])
        state[sock] = [window, 0]  # next packet, bytes of a partial acknowledgement
        selector.register(sock, selectors.EVENT_READ)
    sent, acks = connections * window, 0
    while acks < count:
        for key, _ in selector.select(0.5):
            sock = key.fileobj
            data = sock.recv(262144)
            if not data:
                raise ConnectionError("closed by the broker")
            mine = state[sock]
            whole, mine[1] = divmod(mine[1] + len(data), 4)
            acks += whole
            more = min(whole, count - sent)
            sent += more
            at = mine[0]
            while more:
                part = min(more, IDS - at)
                sock.sendall(block[at * width : (at + part) * width])
                at = (at + part) % IDS
                more -= part
            mine[0] = at
    end = time.monotonic()
    for sock in socks:
        sock.close()
    return begin, end


def publish(port: int, count: int, *, topic: str = "bench/topic", size: int = 64) -> None:
    """Publish ``count`` QoS 1 messages, one connection after the other, and wait for their acks."""
    block, width = publishes(topic, size)
    sock = connect("127.0.0.1", port, f"fill-{time.monotonic_ns()}")
    left, at = count, 0
    while left:
        part = min(left, 1000)
        sock.sendall(block[at * width : (at + part) * width])
        exactly(sock, part * 4)
        at = (at + part) % (IDS - 1000)
        left -= part
    sock.close()


def deliver(
    port: int,
    *,
    qos: int,
    seconds: float,
    window: int,
    topic: str = "bench/topic",
    size: int = 64,
    begun: Callable[[], object] = lambda: None,
) -> tuple[float, int]:
    """(messages a second from a publisher to a subscriber, messages that never came).

    At most ``window`` messages are between the two. The subscriber acknowledges what comes at
    QoS 1. What has not come after a second of silence counts as lost.
    """
    block, width = publishes(topic, size, qos)
    here = IDS if qos else 1000
    stamp = time.monotonic_ns()
    reader = connect("127.0.0.1", port, f"sub-{stamp}")
    subscribe(reader, [topic], qos)
    writer = connect("127.0.0.1", port, f"pub-{stamp}")
    id_at = width - size - 2
    selector = selectors.DefaultSelector()
    selector.register(reader, selectors.EVENT_READ)
    selector.register(writer, selectors.EVENT_READ)
    begin = time.perf_counter()
    counting_from, end = begin + seconds / 5, begin + seconds
    counted_at = None
    sent = received = lost = counted = at = unacknowledged = ack_part = 0
    rest = b""
    heard = begin
    while (now := time.perf_counter()) < end:
        if counted_at is None and now >= counting_from:
            begun()
            counted_at, counted = time.perf_counter(), received
        if now - heard > 1:
            lost += sent - received - lost
            heard = now
        room = window - (sent - received - lost)
        if qos:
            room = min(room, window - unacknowledged)
        if room > 0:
            part = min(room, here - at)
            writer.sendall(block[at * width : (at + part) * width])
            at = (at + part) % here
            sent += part
            unacknowledged += part
        for key, _ in selector.select(0.2):
            data = key.fileobj.recv(262144)
            if not data:
                raise ConnectionError("closed by the broker")
            if key.fileobj is writer:
                whole, ack_part = divmod(ack_part + len(data), 4)
                unacknowledged -= whole
                continue
            heard = time.perf_counter()
            data = rest + data
            whole = len(data) // width
            rest = data[whole * width :]
            received += whole
            if qos and whole:
                reader.sendall(
                    b"".join(
                        b"\x40\x02" + data[n * width + id_at : n * width + id_at + 2]
                        for n in range(whole)
                    )
                )
    passed = time.perf_counter() - (counted_at or begin)
    reader.close()
    writer.close()
    return (received - counted) / passed, lost


def steady(port: int, *, rate: float, seconds: float, topic: str = "bench/steady") -> int:
    """Publish at a steady rate at QoS 1, in a hundred portions a second; returns how many."""
    block, width = publishes(topic, 64)
    sock = connect("127.0.0.1", port, f"steady-{time.monotonic_ns()}")
    part = max(1, round(rate / 100))
    begin = time.perf_counter()
    sent = at = 0
    while (now := time.perf_counter()) < begin + seconds:
        due = begin + sent / rate
        if due > now:
            time.sleep(due - now)
        sock.sendall(block[at * width : (at + part) * width])
        exactly(sock, part * 4)
        at = (at + part) % (IDS - part)
        sent += part
    sock.close()
    return sent


def spread(port: int, *, rate: float, seconds: float, topics: int) -> int:
    """Publish numbers at a steady rate at QoS 1 on many topics in turn; returns how many."""
    names = [f"plant/line{n % 50}/machine{n % 1000}/sensor{n}".encode() for n in range(topics)]
    sock = connect("127.0.0.1", port, f"spread-{time.monotonic_ns()}")
    part = max(1, round(rate / 100))
    begin = time.perf_counter()
    sent = 0
    while (now := time.perf_counter()) < begin + seconds:
        due = begin + sent / rate
        if due > now:
            time.sleep(due - now)
        packets = []
        for number in range(sent, sent + part):
            name = names[number % topics]
            body = len(name).to_bytes(2, "big") + name + (number % part + 1).to_bytes(2, "big")
            body += b'{"temp": %d.5, "count": %d}' % (number % 90, number)
            packets.append(b"\x32" + _length(len(body)) + body)
        sock.sendall(b"".join(packets))
        exactly(sock, part * 4)
        sent += part
    sock.close()
    return sent


if __name__ == "__main__":
    if sys.argv[2] == "spread":
        rate, seconds, topics = (float(each) for each in sys.argv[3:6])
        spread(int(sys.argv[1]), rate=rate, seconds=seconds, topics=int(topics))
        sys.exit()
    if sys.argv[2] == "steady":
        steady(int(sys.argv[1]), rate=float(sys.argv[3]), seconds=float(sys.argv[4]))
        sys.exit()
    port, connections, window, seconds = (*map(int, sys.argv[1:4]), float(sys.argv[4]))
    print(run(port, connections=connections, window=window, seconds=seconds))
