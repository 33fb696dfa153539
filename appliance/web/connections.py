"""The connections of the web server: how many there may be, and which one makes room.

A connection is counted from its accept on, not from the end of its TLS handshake. Not for: what a
request must show to be answered (admission.py).
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

from appliance.broker.access import origin_of

MAX_CONNECTIONS = 100
HEAD_S = 15.0
"""How long a connection may take until its first request has come as a whole, and for its end."""


class Connection(asyncio.Protocol):
    """One connection; hands all on to ``inside``, which is ``handler`` or carries it."""

    def __init__(
        self, handler: asyncio.BaseProtocol, inside: asyncio.Protocol, connections: Connections
    ) -> None:
        self.handler = handler
        self._inside = inside
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self.data_received = inside.data_received  # type: ignore[method-assign]
        self.eof_received = inside.eof_received  # type: ignore[method-assign]
        self.pause_writing = inside.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inside.resume_writing  # type: ignore[method-assign]
        self.origin = ""
        """What it is counted for: its address."""
        self.late_s = 0.0
        """When it is ended, unless it has sent a request or ended itself."""
        self.is_silent = True
        """Whether no request, or form, has come as a whole."""
        self.has_terminal = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio's own looser annotation
        peer = transport.get_extra_info("peername")
        self.origin = origin_of(str(peer[0])) if peer else ""
        self._inside.connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._inside.connection_lost(exc)

    @property
    def is_ending(self) -> bool:
        """Whether nothing but the last bytes to the browser keeps it open."""
        return self._transport is not None and self._transport.is_closing()

    def abort(self) -> None:
        """End it; nothing more is sent."""
        if self._transport is not None:
            self._transport.abort()


class Connections:
    """Those that are open. For one loop; ``clock``: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[asyncio.BaseProtocol, Connection] = {}
        """By handler, the oldest first."""

    def __len__(self) -> int:
        return len(self._open)

    def of(self, handler: asyncio.BaseProtocol) -> Connection | None:
        """The connection that ``handler`` answers, unless it has ended."""
        return self._open.get(handler)

    def add(self, connection: Connection) -> None:
        """Take one in; if there are too many, one without a terminal is ended for it.

        It is one of the address that has most of them: one that has sent no request, if any, and
        of these the oldest. So nobody can keep people of other addresses out.
        """
        if len(self._open) >= MAX_CONNECTIONS:
            self._end(self._least_missed())
        self._open[connection.handler] = connection
        connection.late_s = self._clock() + HEAD_S

    def remove(self, connection: Connection) -> None:
        """It has ended."""
        self._open.pop(connection.handler, None)

    def end_late(self) -> None:
        """End those that take too long for a request, or for the end."""
        now_s = self._clock()
        for each in list(self._open.values()):
            if not (each.is_silent or each.is_ending):
                each.late_s = now_s + HEAD_S
            elif each.late_s <= now_s:
                self._end(each)

    def _end(self, connection: Connection) -> None:
        self.remove(connection)
        connection.abort()

    def _least_missed(self) -> Connection:
        # There is one: there are fewer sessions, and each has one terminal at most.
        # Of equal ones, max takes the first.
        without = [each for each in self._open.values() if not each.has_terminal]
        number = collections.Counter(each.origin for each in without)
        return max(without, key=lambda each: (number[each.origin], each.is_silent))
