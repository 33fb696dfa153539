"""How often the screen is brought up to date: ten times a second, less often under load.

A frame costs about the same processor time at any load. With five frames a second the UI takes
6.7 % of a core at 10,000 messages a second (docs/figures.md). One thread holds the interpreter's
lock at a time, so the engine lacks what the UI takes. At thousands of messages a second the rows
scroll by too fast to be read, so frames come further apart there. Keys are answered at once all the
same. Not for: the content of a frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FRAME_S = 0.1
"""One poll and at most one repaint in this time, in seconds: frames cost, messages do not."""

_STEPS = ((20_000.0, 0.7, 0.5), (4_000.0, 0.4, 0.2))
"""(messages a second, share of a core that this process uses, seconds between frames): the first
row with either value reached holds."""

_SMOOTH = 0.3
"""Weight of the newest interval, so that one busy moment does not count as load."""


class FrameRate:
    """Seconds until the next frame.

    Args:
        clock: seconds that have passed, from any beginning.
        processor: processor time of this process, in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._processor = processor
        self._before = (clock(), processor())
        self._busy = 0.0

    def next_s(self, rate: float) -> float:
        """Seconds until the next frame, at ``rate`` messages a second. Called once a frame."""
        now, used = self._clock(), self._processor()
        then, used_then = self._before
        self._before = (now, used)
        if now > then:
            self._busy += _SMOOTH * ((used - used_then) / (now - then) - self._busy)
        for least_rate, least_busy, seconds in _STEPS:
            if rate >= least_rate or self._busy >= least_busy:
                return seconds
        return FRAME_S
