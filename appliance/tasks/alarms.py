"""The times at which requests, or tasks, have to be looked at again.

Not for: what is done then (dispatcher.py, freshness.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

STALE_KEPT = 64
"""Stale entries that are kept at most beside as many as there are alarms."""
K = TypeVar("K", int, str)


class Alarms(Generic[K]):
    """At most one time that counts for each request. Times are nanoseconds since the epoch.

    ``K`` is the type of what names a request or task.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, K]] = []
        """(time, request); an entry that ``_set`` does not have is stale."""
        self._set: dict[K, int] = {}

    def __len__(self) -> int:
        """Entries that are kept, the stale ones among them."""
        return len(self._heap)

    def set(self, request: K, at: int) -> None:
        """Look at a request at this time, unless it is looked at earlier anyway.

        The earlier look sets the alarm anew: many messages that put a start off make one entry,
        not one each.
        """
        present = self._set.get(request)
        if present is None or at < present:
            self._set[request] = at
            heapq.heappush(self._heap, (at, request))

    def drop(self, request: K) -> None:
        """Remove a request's alarm, if it has one."""
        self._set.pop(request, None)
        # A request may end a day before its alarm; what is left of it must not pile up till then.
        if len(self._heap) > 2 * len(self._set) + STALE_KEPT:
            self._heap = [(at, one) for one, at in self._set.items()]
            heapq.heapify(self._heap)

    def shift(self, step_ns: int) -> None:
        """Move all times by this."""
        self._set = {one: at + step_ns for one, at in self._set.items()}
        self._heap = [(at, one) for one, at in self._set.items()]
        heapq.heapify(self._heap)

    def take_due(self, now: int) -> Iterator[K]:
        """Remove and return the requests whose time has come, one by one."""
        while self._heap and self._heap[0][0] <= now:
            at, request = heapq.heappop(self._heap)
            if self._set.get(request) == at:
                del self._set[request]
                yield request

    def next_due(self) -> int | None:
        """When ``take_due`` has something to return at the earliest; ``None``: never."""
        return self._heap[0][0] if self._heap else None
