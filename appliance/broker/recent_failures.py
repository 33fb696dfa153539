"""How often a login has failed lately, for each of a bounded number of keys.

Not for: what follows from it (login_failures.py, login_queue.py).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_REMEMBERED = 4096
_FORGET_AFTER_S = 300.0

K = TypeVar("K", bound=Hashable)


class RecentFailures(Generic[K]):
    """Failures by key; those of a key are forgotten five minutes after the last one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._found: dict[K, tuple[int, float]] = {}
        """Number and time of the last one; the key that failed last stands at the end."""

    def __len__(self) -> int:
        return len(self._found)

    def of(self, key: K) -> int:
        """The key's failures."""
        failures, last = self._found.get(key, (0, 0.0))
        return failures if self._clock() - last <= _FORGET_AFTER_S else 0

    def note(self, key: K) -> int:
        """Note one more; returns the key's failures."""
        failures = self.of(key) + 1
        self._found.pop(key, None)
        while len(self._found) >= _REMEMBERED:
            del self._found[next(iter(self._found))]
        self._found[key] = (failures, self._clock())
        return failures

    def clear(self) -> None:
        """Forget all."""
        self._found.clear()
