"""The connections of one HTTP port: how many there may be, and which one makes room.

Not for: what a connection does (connection.py).
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Iterator
from typing import Protocol

from appliance.counters import Counter
from appliance.http_api.bounds import Bounds


class Bounded(Protocol):
    """A connection, as its port counts it."""

    origin: str
    """The address that it is counted for."""

    def end_at_once(self) -> None:
        """End it; nothing more is sent."""

    def end_if_late(self, now: float) -> None:
        """End it if something takes longer than it may."""

    def shutdown(self) -> None:
        """Answer what it has asked, and end it then."""


class Connections:
    """Those that are open. ``idle`` ones have no request, or not the whole head of one."""

    def __init__(
        self, bounds: Callable[[], Bounds], ended: Counter, count: Callable[[Counter], None]
    ) -> None:
        self._bounds = bounds
        self._ended = ended
        self._count = count
        self._open: dict[Bounded, None] = {}
        self._idle: dict[Bounded, None] = {}
        """The one that has been so for longest first."""
        self._ended_all = asyncio.Event()
        self._of_origin: collections.Counter[str] = collections.Counter()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Bounded]:
        return iter(tuple(self._open))

    def add(self, connection: Bounded) -> bool:
        """Take one in, if need be instead of an idle one; returns whether there was room.

        An address that has as many as it may have makes room itself.
        """
        bounds = self._bounds()
        origin = connection.origin
        if self._of_origin[origin] >= bounds.max_of_address:
            found = next((each for each in self._idle if each.origin == origin), None)
        elif len(self._open) >= bounds.max_connections:
            found = next(iter(self._idle), None)
        else:
            self._put(connection)
            return True
        if found is None:
            self._count(Counter.HTTP_CONNECTIONS_REFUSED)
            return False
        self._count(self._ended)
        self.remove(found)
        found.end_at_once()
        self._put(connection)
        return True

    def _put(self, connection: Bounded) -> None:
        self._open[connection] = self._idle[connection] = None
        self._of_origin[connection.origin] += 1

    def remove(self, connection: Bounded) -> None:
        """It has ended. More than once is allowed."""
        if connection not in self._open:
            return
        del self._open[connection]
        self._idle.pop(connection, None)
        self._of_origin[connection.origin] -= 1
        if not self._of_origin[connection.origin]:
            del self._of_origin[connection.origin]
        if not self._open:
            self._ended_all.set()

    async def all_ended(self) -> None:
        """Wait until there are none."""
        while self._open:
            self._ended_all.clear()
            await self._ended_all.wait()

    def is_busy(self, connection: Bounded) -> None:
        """It has a request."""
        self._idle.pop(connection, None)

    def is_idle(self, connection: Bounded) -> None:
        """Its last request is answered."""
        if connection in self._open:
            self._idle[connection] = None
