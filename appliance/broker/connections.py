"""The sockets that are open, and how many there may be.

Not for: sessions (session_binding.py), what goes over a connection (connection.py).
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Mapping

from appliance.broker.access import origin_of
from appliance.broker.listener import Listener
from appliance.broker.sessions import ClientConnection
from appliance.config.tables import LimitsConfig
from appliance.counters import Count, Counter

_MAKE_ROOM_AFTER_S = 0.05
_BURST = 4
"""Times the limit of half-open connections that there may be until room is made."""


class Connections:
    """All connections from accept to close, within the bounds. Engine's loop only."""

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        limits: Callable[[], LimitsConfig],
        count: Count,
        *,
        logins: Callable[[], int],
        end_refused: Callable[[str | None], bool],
    ) -> None:
        """``logins``: the clients whose login waits; they have bounds of their own.

        ``end_refused`` ends a connection of the origin (``None``: of any) whose login is refused
        and that waits for the answer; returns whether there was one.
        """
        self.is_closed = False
        """No connection is let in any more."""
        self.unauthenticated = 0
        self._listeners = listeners
        self._limits = limits
        self._count = count
        self._logins = logins
        self._end_refused = end_refused
        self._makes_room = False
        self._all: set[ClientConnection] = set()
        self._by_address: collections.Counter[str] = collections.Counter()
        self._unauthenticated: dict[str, dict[ClientConnection, float]] = {}
        """When connections that are not yet authenticated arrived, the oldest first, by origin."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def authenticated(self) -> int:
        """How many clients are connected."""
        return len(self._all) - self.unauthenticated

    def all(self) -> list[ClientConnection]:
        """Every connection as of now."""
        return list(self._all)

    def arrived(self, connection: ClientConnection) -> bool:
        """A socket was accepted; returns whether there is room for it."""
        listener = self._listeners[connection.listener_name]
        host = connection.peer[0]
        origin = origin_of(host)
        if self.is_closed:
            return False
        if (counter := self._limit_reached(listener, host)) is not None:
            self._count(counter)
            return False
        self._all.add(connection)
        self._by_address[host] += 1
        self.unauthenticated += 1
        self._unauthenticated.setdefault(origin, {})[connection] = asyncio.get_running_loop().time()
        listener.connections += 1
        self._make_room_soon()
        return True

    def _limit_reached(self, listener: Listener, host: str) -> Counter | None:
        limits = self._limits()
        # Guessers that are kept waiting for their answers keep no other client out.
        if len(self._all) >= limits.max_connections and not self._end_refused(None):
            return Counter.CONNECTIONS_REFUSED_LIMIT_OVERALL
        if listener.connections >= listener.max_connections:
            return Counter.CONNECTIONS_REFUSED_LIMIT_LISTENER
        is_full = self._by_address[host] >= limits.max_connections_per_address
        if is_full and not self._end_refused(origin_of(host)):
            return Counter.CONNECTIONS_REFUSED_LIMIT_ADDRESS
        if self._half_open >= limits.max_unauthenticated * _BURST:
            return Counter.CONNECTIONS_REFUSED_LIMIT_UNAUTHENTICATED
        return None

    @property
    def _half_open(self) -> int:
        """Connections whose client has not yet sent its CONNECT."""
        return self.unauthenticated - self._logins()

    def _make_room_soon(self) -> None:
        """Make room once what the clients have sent by now is read.

        After a restart hundreds of clients connect at once, and are accepted before the first
        CONNECT is read.
        """
        if not self._makes_room and self._half_open > self._limits().max_unauthenticated:
            self._makes_room = True
            asyncio.get_running_loop().call_later(_MAKE_ROOM_AFTER_S, self._make_room)

    def _make_room(self) -> None:
        """End half-open connections beyond the limit, of the origins that have most of them.

        Of an origin's, the oldest that has sent nothing goes first. So connections that never log
        in keep no other client out.
        """
        self._makes_room = False
        latest = asyncio.get_running_loop().time() - _MAKE_ROOM_AFTER_S / 2
        lines: dict[str, list[ClientConnection]] = {}
        for origin, crowd in self._unauthenticated.items():
            half_open = [
                each
                for each, arrived in crowd.items()
                # What a younger one has sent may not be read yet.
                if each.asked is None and not each.waits_for_its_turn and arrived <= latest
            ]
            if half_open:
                half_open.sort(key=lambda each: each.has_sent)
                lines[origin] = half_open[::-1]
        excess = self._half_open - self._limits().max_unauthenticated
        for _ in range(min(excess, sum(map(len, lines.values())))):
            line = max(lines.values(), key=lambda each: (len(each), not each[-1].has_sent))
            ended = line.pop()
            if not line:
                del lines[origin_of(ended.peer[0])]
            self._count(Counter.CONNECTIONS_ENDED_TO_MAKE_ROOM)
            self.departed(ended)
            ended.abort()
        self._make_room_soon()

    def admitted(self, connection: ClientConnection) -> None:
        """The client of a connection is authenticated."""
        connection.counted_as_open = True
        self._no_longer_unauthenticated(connection)

    def _no_longer_unauthenticated(self, connection: ClientConnection) -> None:
        origin = origin_of(connection.peer[0])
        crowd = self._unauthenticated[origin]
        del crowd[connection]
        if not crowd:
            del self._unauthenticated[origin]
        self.unauthenticated -= 1

    def departed(self, connection: ClientConnection) -> None:
        """A socket is closed."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        host = connection.peer[0]
        self._by_address[host] -= 1
        if not self._by_address[host]:
            del self._by_address[host]
        if not connection.counted_as_open:
            self._no_longer_unauthenticated(connection)
        self._listeners[connection.listener_name].connections -= 1
