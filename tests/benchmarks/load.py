"""A load of MQTT 3.1.1 publishers that costs little itself, so that the broker is what is measured.

One process, raw sockets, packets made beforehand: each connection keeps ``window`` QoS 1 messages
unacknowledged and sends as many new ones as acknowledgements came. Bounded in count and time.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import time

IDS = 60000


def connect(host: str, port: int, client_id: str, timeout: float = 10.0) -> socket.socket:
    """Open a connection and wait for its CONNACK."""
    sock = socket.create_connection((host, port), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(name)) + name
    sock.sendall(b"\x10" + bytes((len(body),)) + body)
    answer = b""
    while len(answer) < 4:
        part = sock.recv(4 - len(answer))
        if not part:
            raise ConnectionError("closed before CONNACK")
        answer += part
    if answer[3] != 0:
        raise ConnectionError(f"refused: {answer[3]}")
    return sock


def publishes(topic: str, size: int, qos: int = 1) -> tuple[bytes, int]:
    """Packets with the ids 1 to IDS in one block, and the size of each."""
    head = struct.pack(">H", len(topic)) + topic.encode()
    payload = b"x" * size
    remaining = len(head) + (2 if qos else 0) + size
    length = (
        bytes((remaining,)) if remaining < 128 else bytes((remaining & 127 | 128, remaining >> 7))
    )
    first = b"\x30" if qos == 0 else b"\x32"
    if qos == 0:
        packet = first + length + head + payload
        return packet * 1000, len(packet)
    packets = [
        first + length + head + struct.pack(">H", number) + payload for number in range(1, IDS + 1)
    ]
    return b"".join(packets), len(packets[0])


def run(
    port: int, *, connections: int, window: int, seconds: float, topic: str, size: int
) -> float:
    """Acknowledgements a second over ``seconds``, after a warm-up of a fifth of that."""
    block, width = publishes(topic, size)
    selector = selectors.DefaultSelector()
    socks = [
        connect("127.0.0.1", port, f"load-{i}-{time.monotonic_ns()}") for i in range(connections)
    ]
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
            counted_at, acks = now, 0
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


if __name__ == "__main__":
    port, connections, window, seconds = (
        int(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        float(sys.argv[4]),
    )
    print(
        run(
            port,
            connections=connections,
            window=window,
            seconds=seconds,
            topic="bench/topic",
            size=64,
        )
    )
