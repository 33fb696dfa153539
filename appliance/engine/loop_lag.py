"""How late the engine's loop is: the time by which it comes to a thing later than it was due.

Whatever holds up the loop holds up every client: this is what tells "the network is slow" from
"the appliance is slow". Not for: judging it (ops/health.py), showing it (ops/metrics.py, ui/).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

_EVERY_S = 0.1
_PER_SECOND = 10
_KEPT = 60 * _PER_SECOND

_SHARE = 0.99


class LoopLag:
    """The lateness of the loop over the last minute, looked at ten times a second."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._late: deque[float] = deque(maxlen=_KEPT)
        self._noted = 0
        self.p99_ms = 0.0
        """What 99 of 100 lie at or below, in milliseconds, anew every second. Any thread."""

    async def watch(self) -> None:
        """Look on until cancelled. On the loop that is watched."""
        while True:
            due = self._clock() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self.note(self._clock() - due)

    def note(self, late_s: float) -> None:
        """Keep one lateness, in seconds; early is on time."""
        self._late.append(max(0.0, late_s))
        self._noted += 1
        if self._noted % _PER_SECOND == 1:
            ordered = sorted(self._late)
            self.p99_ms = ordered[int(_SHARE * (len(ordered) - 1))] * 1000
