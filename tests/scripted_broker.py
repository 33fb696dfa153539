"""Another broker in the test's process, whose state a test knows, copies and goes back to.

It speaks MQTT 3.1.1 to one bridge: one session, one window, packet identifiers and DUP in the way of
the broker that it stands for. Not for: what a broken peer sends (``bridge_rig.ScriptedRemote``).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from appliance.mqtt.packets import encode_length

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = (
    1,
    2,
    3,
    4,
    8,
    9,
    10,
    11,
)
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14


@dataclass
class Offered:
    """A message for the bridge."""

    uid: int
    topic: str
    payload: bytes
    was_sent: bool = False


@dataclass
class Remembered:
    """The session."""

    waiting: list[Offered] = field(default_factory=list)
    in_flight: dict[int, Offered] = field(default_factory=dict)
    last_id: int = 0
    filters: list[str] = field(default_factory=list)
    is_there: bool = False


class ScriptedBroker:
    """``with ScriptedBroker(begins_anew=True) as broker``: in the way of RabbitMQ, or mosquitto.

    ``note`` hears, before it is true for the bridge: ``sent UID``, ``got TEXT`` (a message came);
    and after it is true: ``acked UID``.
    """

    def __init__(
        self,
        *,
        begins_anew: bool,
        session: Remembered | None = None,
        window: int = 10,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.begins_anew = begins_anew
        self.window = window
        self.note = note
        self.session = session or Remembered()
        self.got: list[tuple[str, bytes]] = []
        self.connections = 0
        self._lock = threading.RLock()
        self._peer: socket.socket | None = None

    def __enter__(self) -> ScriptedBroker:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.close()
        self.drop()

    @property
    def is_empty(self) -> bool:
        """Whether the bridge has acknowledged everything."""
        with self._lock:
            return not (self.session.waiting or self.session.in_flight)

    def offer(self, messages: Iterable[Offered]) -> None:
        with self._lock:
            self.session.waiting += messages
            self._pump()

    def drop(self) -> None:
        """The connection breaks."""
        with self._lock:
            peer, self._peer = self._peer, None
            if peer is not None:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
                peer.close()

    # --- the connection -----------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._server.accept()
                self.drop()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), peer, peer.makefile("rb") as stream:
            while True:
                first = _exactly(stream, 1)[0]
                size = shift = 0
                while True:
                    digit = _exactly(stream, 1)[0]
                    size |= (digit & 127) << shift
                    shift += 7
                    if digit < 128:
                        break
                body = _exactly(stream, size)
                with self._lock:
                    if first >> 4 != CONNECT and self._peer is not peer:
                        return
                    self._take(peer, first, body)

    def _take(self, peer: socket.socket, first: int, body: bytes) -> None:
        session = self.session
        match first >> 4:
            case 1:
                self._peer = peer
                self.connections += 1
                peer.sendall(b"\x20\x02" + bytes((session.is_there, 0)))
                session.is_there = True
                self._begin()
            case 3:
                self._publish(peer, first, body)
            case 4:
                found = session.in_flight.pop(int.from_bytes(body[:2], "big"), None)
                if found is not None:
                    self.note(f"acked {found.uid}")
                self._pump()
            case 8:
                length = int.from_bytes(body[2:4], "big")
                session.filters.append(body[4 : 4 + length].decode())
                peer.sendall(b"\x90\x03" + body[:2] + body[-1:])
                self._pump()
            case 12:
                peer.sendall(b"\xd0\x00")
            case 14:
                self._peer = None

    def _publish(self, peer: socket.socket, first: int, body: bytes) -> None:
        length = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        if first & 6:
            packet_id, rest = rest[:2], rest[2:]
        self.note(f"got {rest.decode()}")
        self.got.append((topic, rest))
        if first & 6:
            peer.sendall(b"\x40\x02" + packet_id)

    def _begin(self) -> None:
        """What is unacknowledged comes again, before what is new."""
        session = self.session
        if self.begins_anew:
            session.waiting[:0] = session.in_flight.values()
            session.in_flight.clear()
            session.last_id = 0
        for packet_id, each in session.in_flight.items():
            self._send(packet_id, each, dup=True)
        if session.filters:
            self._pump()

    def _pump(self) -> None:
        session = self.session
        while (
            self._peer is not None
            and session.filters
            and session.waiting
            and len(session.in_flight) < self.window
        ):
            each = session.waiting.pop(0)
            session.last_id += 1
            session.in_flight[session.last_id] = each
            dup, each.was_sent = each.was_sent, True
            self.note(f"sent {each.uid}")
            self._send(session.last_id, each, dup=dup)

    def _send(self, packet_id: int, each: Offered, *, dup: bool) -> None:
        topic = each.topic.encode()
        body = len(topic).to_bytes(2, "big") + topic + packet_id.to_bytes(2, "big") + each.payload
        packet = bytes((0x32 | dup << 3,)) + encode_length(len(body)) + body
        if self._peer is not None:
            with contextlib.suppress(OSError):
                self._peer.sendall(packet)


def _exactly(stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
