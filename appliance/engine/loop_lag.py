"""The lag of the engine's loop: how much later than due it runs a callback.

A delay of the loop delays every client. The lag distinguishes a slow appliance from a slow network.
Not for: judging it (ops/health.py), showing it (ops/metrics.py, ui/).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

_EVERY_S = 0.1
_PER_SECOND = 10
_KEPT = 60 * _PER_SECOND

_SHARE = 0.99


class LoopLag:
    """The lag of the loop over the last minute, measured ten times a second."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=_KEPT)
        self._noted = 0
        self.p99_ms = 0.0
        """The 99th percentile in milliseconds, updated every second. For any thread."""

    async def watch(self) -> None:
        """Measure until cancelled. Runs on the measured loop."""
        while True:
            due = time.perf_counter() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self.note(time.perf_counter() - due)

    def note(self, late_s: float) -> None:
        """Add one lag, in seconds; a negative one counts as 0."""
        self._late.append(max(0.0, late_s))
        self._noted += 1
        if self._noted % _PER_SECOND == 1:
            ordered = sorted(self._late)
            self.p99_ms = ordered[int(_SHARE * (len(ordered) - 1))] * 1000
