"""When each counter rose last, as this UI has seen it: what is new stands before what is old.

Not for: the counters themselves (counters.py), how they are shown (views/counters.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Noted:
    """Follows the counters from snapshot to snapshot."""

    def __init__(self) -> None:
        self._counts: dict[str, int] | None = None
        self._risen_ns: dict[str, int] = {}

    @property
    def risen_ns(self) -> Mapping[str, int]:
        """When each counter rose last, since this UI began, in nanoseconds since 1970."""
        return self._risen_ns

    def see(self, counters: Iterable[tuple[str, int]], now_ns: int) -> None:
        """Take over the counters of a snapshot."""
        before, self._counts = self._counts, dict(counters)
        if before is None or before == self._counts:
            return
        for name, count in self._counts.items():
            if count > before.get(name, 0):
                self._risen_ns[name] = now_ns
