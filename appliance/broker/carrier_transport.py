"""The transport that a connection writes to when something lies between it and the socket.

Not for: what lies between (websocket.py, tls.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from appliance.counters import Count


class Carrier(asyncio.Protocol):
    """A protocol that carries another one: a connection's."""

    def __init__(self, connection: asyncio.Protocol, count: Count) -> None:
        self._connection = connection
        self._count = count
        self._known: Mapping[str, Any] = {}
        """What it knows of the connection (``ssl_object``)."""
        self._is_open = False
        self._is_holding = self._is_above_paused = False
        self.below: asyncio.Transport
        """The transport that carries the bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.below = transport  # type: ignore[assignment]  # asyncio's own looser annotation
        self._connection.connection_made(CarrierTransport(self, self._known))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def hold_reading(self) -> None:
        """Read nothing until ``release_reading``: the carrier has enough to do."""
        self._is_holding = True
        self.below.pause_reading()

    def release_reading(self) -> None:
        self._is_holding = False
        if not (self._is_above_paused or self.below.is_closing()):
            self.below.resume_reading()

    def pause_above(self, *, is_paused: bool) -> None:
        """The connection above wants no more for now, or wants more again."""
        self._is_above_paused = is_paused
        if is_paused:
            self.below.pause_reading()
        elif not self._is_holding:
            self.below.resume_reading()

    def send(self, data: bytes) -> None:
        """Send the connection's bytes in the carrier's form."""
        raise NotImplementedError

    def say_goodbye(self) -> None:
        """Close in the carrier's way."""
        raise NotImplementedError


class CarrierTransport(asyncio.Transport):
    """A carrier, as the connection above it sees it."""

    def __init__(self, carrier: Carrier, known: Mapping[str, Any]) -> None:
        super().__init__()
        self._carrier = carrier
        self._known = known

    def write(self, data: Any) -> None:
        self._carrier.send(bytes(data))

    def close(self) -> None:
        self._carrier.say_goodbye()

    def abort(self) -> None:
        self._carrier.below.abort()

    def is_closing(self) -> bool:
        return self._carrier.below.is_closing()

    def pause_reading(self) -> None:
        self._carrier.pause_above(is_paused=True)

    def resume_reading(self) -> None:
        self._carrier.pause_above(is_paused=False)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in self._known:
            return self._known[name]
        return self._carrier.below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._carrier.below.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        return self._carrier.below.get_write_buffer_size()
