"""How many messages a second may go out: a token bucket.

Not for: how many may be unacknowledged at a time (window.py).
"""

from __future__ import annotations

from collections.abc import Callable

_BURST_S = 0.1
"""What may go out at once after a pause, as seconds of the rate. Brokers that discard what is too
fast count within a second."""


class Rate:
    """Lets ``a_second`` messages a second pass; ``None`` for no limit.

    ``clock`` tells a steady time in seconds.
    """

    def __init__(self, a_second: int | None, clock: Callable[[], float]) -> None:
        self._a_second = a_second
        self._clock = clock
        self._most = max(1.0, (a_second or 0) * _BURST_S)
        self._tokens = self._most
        self._at = clock()

    def wait_s(self) -> float:
        """Let one message pass if it may now, and return 0; else the seconds until one may."""
        if self._a_second is None:
            return 0.0
        now = self._clock()
        self._tokens = min(self._most, self._tokens + max(0.0, now - self._at) * self._a_second)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._a_second
