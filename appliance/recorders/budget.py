"""Memory that several open files of one format share.

A path with placeholders can have dozens of files open at a time. Each may grow while there is room
for all; then each that has more than its share gives its memory back. Not for: how it does that.
"""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    """An open file."""

    @property
    def memory(self) -> int:
        """Bytes that it holds now, about."""
        ...


class Budget:
    """At most about twice ``total`` bytes for all holders together. For one thread at a time."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._holders: WeakSet[Holder] = WeakSet()

    def join(self, holder: Holder) -> None:
        self._holders.add(holder)

    def leave(self, holder: Holder) -> None:
        self._holders.discard(holder)

    def is_spent_by(self, holder: Holder) -> bool:
        """Whether this one should give its memory back."""
        memory = holder.memory
        if memory * 64 < self._total:  # a share of many; small files are left alone
            return False
        holders = list(self._holders)
        held = sum([each.memory for each in holders])
        return held >= self._total and memory * len(holders) >= self._total
