"""The sockets that are open, and how many there may be.

Not for: sessions (session_binding.py), what goes over a connection (connection.py).
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping

from appliance.broker.access import origin_of
from appliance.broker.listener import Listener
from appliance.broker.sessions import ClientConnection
from appliance.config.tables import LimitsConfig
from appliance.counters import Count, Counter


class Connections:
    """All connections from accept to close, within the bounds. Engine's loop only."""

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        limits: Callable[[], LimitsConfig],
        count: Count,
    ) -> None:
        self.is_closed = False
        """No connection is let in any more."""
        self.unauthenticated = 0
        self._listeners = listeners
        self._limits = limits
        self._count = count
        self._all: set[ClientConnection] = set()
        self._by_address: collections.Counter[str] = collections.Counter()
        self._unauthenticated: dict[str, dict[ClientConnection, None]] = {}
        """Connections that are not yet authenticated, the oldest first, by their origin."""

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
        if self.unauthenticated >= self._limits().max_unauthenticated:
            self._make_room(origin)
        if (counter := self._limit_reached(listener, host)) is not None:
            self._count(counter)
            return False
        self._all.add(connection)
        self._by_address[host] += 1
        self.unauthenticated += 1
        self._unauthenticated.setdefault(origin, {})[connection] = None
        listener.connections += 1
        return True

    def _limit_reached(self, listener: Listener, host: str) -> Counter | None:
        limits = self._limits()
        if len(self._all) >= limits.max_connections:
            return Counter.CONNECTIONS_REFUSED_LIMIT_OVERALL
        if listener.connections >= listener.max_connections:
            return Counter.CONNECTIONS_REFUSED_LIMIT_LISTENER
        if self._by_address[host] >= limits.max_connections_per_address:
            return Counter.CONNECTIONS_REFUSED_LIMIT_ADDRESS
        if self.unauthenticated >= limits.max_unauthenticated:
            return Counter.CONNECTIONS_REFUSED_LIMIT_UNAUTHENTICATED
        return None

    def _make_room(self, origin: str) -> None:
        """End the oldest connection of the origin that has most, if a new origin has fewer.

        Connections that never log in can't keep other clients out that way.
        """
        crowd = max(self._unauthenticated.values(), key=len, default={})
        if len(crowd) > len(self._unauthenticated.get(origin, ())) + 1:
            oldest = next(iter(crowd))
            self._count(Counter.CONNECTIONS_ENDED_TO_MAKE_ROOM)
            self.departed(oldest)
            oldest.abort()

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
