"""A TCP proxy on loopback between an MQTT client and its broker, which breaks what it carries.

It forwards whole MQTT packets, so a test says at which packet something happens. ``TO_BROKER`` is
what the client sends, ``TO_CLIENT`` what the broker sends.
Not for: TLS and WebSocket, where it can't see the packets.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Self

TO_BROKER, TO_CLIENT = "to broker", "to client"

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
PINGREQ, PINGRESP = 12, 13
"""Kinds of packets (MQTT 3.1.1, table 2.1)."""

_ANSWERS = frozenset({PUBACK, PINGREQ, PINGRESP})


class Fault(enum.Enum):
    """What happens at a packet."""

    CUT_BEFORE = "the connection ends before the packet"
    CUT_WITHIN = "the connection ends after half of the packet"
    CUT_AFTER = "the connection ends after the packet"
    RESET = "the connection is reset before the packet"
    HALF_CLOSE = "the packet's direction is closed before it, the other one goes on"
    SILENCE = "this packet and all later ones of the connection vanish, in both directions"


@dataclass
class _Plan:
    direction: str
    kind: int
    left: int
    fault: Fault
    done: threading.Event = field(default_factory=threading.Event)


class FaultProxy:
    """A proxy for ``broker`` (host, port); it takes connections from ``with`` on."""

    def __init__(self, broker: tuple[str, int]) -> None:
        self.broker = broker
        self.delay_s = 0.0
        """How long each packet is on its way."""
        self.connections = 0
        """How many connections it has taken."""
        self.seen: dict[tuple[str, int], int] = {}
        """Packets by direction and kind, those that a fault took away included."""
        self._lock = threading.Lock()
        self._open: dict[_Pair, None] = {}
        self._plans: list[_Plan] = []
        self._flows = {TO_BROKER: threading.Event(), TO_CLIENT: threading.Event()}
        for flow in self._flows.values():
            flow.set()
        self._swallowing = False
        self._refusing = False
        self._ending = False

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending = True
        self.flow()
        with contextlib.suppress(OSError):  # the accept below wakes
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._listener.close()
        self.cut()
        self._thread.join(10)

    def count(self, direction: str, kind: int) -> int:
        """How many packets of this kind have come to the proxy in this direction."""
        with self._lock:
            return self.seen.get((direction, kind), 0)

    def at(self, direction: str, kind: int, number: int, fault: Fault) -> threading.Event:
        """Do ``fault`` at the ``number``-th packet of this kind from now on; gives when it is done."""
        plan = _Plan(direction, kind, number, fault)
        with self._lock:
            self._plans.append(plan)
        return plan.done

    def cut(self) -> None:
        """End all connections now."""
        with self._lock:
            pairs = list(self._open)
        for pair in pairs:
            pair.close()

    def hold(self, *directions: str) -> None:
        """Forward nothing in these directions until ``flow``; the connections stay open."""
        for direction in directions or (TO_BROKER, TO_CLIENT):
            self._flows[direction].clear()

    def swallow_answers(self) -> None:
        """Lose all acknowledgements until ``flow``, in both directions, and pings with them.

        So each side sends again, after the end of the connection, what the other one has already.
        """
        self._swallowing = True

    def flow(self) -> None:
        """Forward everything again."""
        self._swallowing = False
        for flow in self._flows.values():
            flow.set()

    def refuse(self) -> None:
        """Close each new connection at once, and all present ones, until ``accept``."""
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        """Take connections again."""
        self._refusing = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._ending:
                client.close()
                return
            self.connections += 1
            try:
                if self._refusing:
                    raise OSError
                broker = socket.create_connection(self.broker, 10)
                broker.settimeout(None)
            except OSError:
                client.close()
                continue
            for each in (client, broker):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(client, broker)
            with self._lock:
                self._open[pair] = None
            for direction in (TO_BROKER, TO_CLIENT):
                threading.Thread(target=self._carry, args=(pair, direction), daemon=True).start()

    def _carry(self, pair: _Pair, direction: str) -> None:
        source, target = pair.ends(direction)
        buffer = bytearray()
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                buffer += chunk
                while (size := packet_size(buffer)) and size <= len(buffer):
                    packet = bytes(buffer[:size])
                    del buffer[:size]
                    if not self._forward(pair, direction, target, packet):
                        return
        self._forget(pair)

    def _forward(self, pair: _Pair, direction: str, target: socket.socket, packet: bytes) -> bool:
        """Forward a packet; gives whether the direction goes on."""
        self._flows[direction].wait()
        if self.delay_s:
            time.sleep(self.delay_s)
        plan = self._planned(direction, packet[0] >> 4)
        if plan is None:
            lost = pair.silent or (self._swallowing and packet[0] >> 4 in _ANSWERS)
            if not lost:
                target.sendall(packet)
            return True
        try:
            return self._do(plan.fault, pair, target, packet)
        finally:
            plan.done.set()

    def _do(self, fault: Fault, pair: _Pair, target: socket.socket, packet: bytes) -> bool:
        match fault:
            case Fault.SILENCE:
                pair.silent = True
                return True
            case Fault.HALF_CLOSE:
                target.shutdown(socket.SHUT_WR)
                return False
            case Fault.CUT_WITHIN:
                target.sendall(packet[: (len(packet) + 1) // 2])
            case Fault.CUT_AFTER:
                target.sendall(packet)
            case Fault.RESET:
                pair.reset()
            case Fault.CUT_BEFORE:
                pass
        self._forget(pair)
        return False

    def _planned(self, direction: str, kind: int) -> _Plan | None:
        with self._lock:
            self.seen[direction, kind] = self.seen.get((direction, kind), 0) + 1
            for plan in self._plans:
                if (plan.direction, plan.kind) == (direction, kind):
                    plan.left -= 1
                    if plan.left == 0:
                        self._plans.remove(plan)
                        return plan
        return None

    def _forget(self, pair: _Pair) -> None:
        with self._lock:
            self._open.pop(pair, None)
        pair.close()


class _Pair:
    """The two sockets of one connection through the proxy."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client = client
        self.broker = broker
        self.silent = False
        self._how = socket.SHUT_RDWR

    def ends(self, direction: str) -> tuple[socket.socket, socket.socket]:
        """Where a direction comes from and goes to."""
        if direction == TO_BROKER:
            return self.client, self.broker
        return self.broker, self.client

    def reset(self) -> None:
        """Make ``close`` send a reset instead of an orderly end."""
        self._how = socket.SHUT_RD  # wakes the reader, and says nothing to the other side
        linger = _reset_at_close()
        for each in (self.client, self.broker):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def close(self) -> None:
        for each in (self.client, self.broker):
            with contextlib.suppress(OSError):
                each.shutdown(self._how)
            each.close()


def _reset_at_close() -> bytes:
    """SO_LINGER, on, 0 seconds: a close sends a reset."""
    return struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def packet_size(data: bytes | bytearray) -> int:
    """The size of the packet that ``data`` begins with; 0 while too little of it is known.

    Source: MQTT 3.1.1, section 2.2.3.
    """
    size = 0
    for index, byte in enumerate(data[1:5]):
        size |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            return size + index + 2
    return 0
