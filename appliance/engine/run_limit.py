"""The run limit: the time after which the appliance stops.

It is a timer like the others: an operator may pause, resume and fire it. Not for: stopping
(engine/service.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

from appliance.engine_api import TimerState

NAME = "run limit"


class RunLimit:
    """Counts down while it is not paused. ``wait`` runs on the loop, the rest in any thread."""

    def __init__(
        self,
        seconds: float,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; the countdown begins with ``wait``.

        Args:
            seconds: how long the appliance runs.
            clock_ns: nanoseconds since the epoch, for the shown time.
            monotonic: seconds, for the countdown.
        """
        self._left_s = seconds
        self._clock_ns = clock_ns
        self._monotonic = monotonic
        self._since_s: float | None = None
        """When the countdown from ``_left_s`` began; ``None`` while it is paused."""
        self._is_paused = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None

    async def wait(self) -> None:
        """Count down; returns when the time is over."""
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        self.pause(self._is_paused)
        while (left_s := self._remaining()) is None or left_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)
            self._changed.clear()

    @property
    def until_ns(self) -> int | None:
        """When it stops the appliance; ``None`` while it is paused or not yet running.

        It follows the clock, which may be set.
        """
        left_s = self._remaining()
        return None if left_s is None else self._clock_ns() + int(max(0.0, left_s) * 1e9)

    def state(self) -> TimerState:
        return TimerState(NAME, NAME, self.until_ns, paused=self._is_paused)

    def pause(self, paused: bool) -> None:
        """Pause the countdown, or resume it with the remaining time."""
        with self._lock:
            left_s = self._count()
            self._left_s = self._left_s if left_s is None else left_s
            self._is_paused = paused
            self._since_s = None if paused else self._monotonic()
        self._wake()

    def fire(self) -> None:
        """Stop the appliance now."""
        with self._lock:
            self._left_s = 0.0
            self._is_paused = False
            self._since_s = self._monotonic()
        self._wake()

    def _remaining(self) -> float | None:
        with self._lock:
            return self._count()

    def _count(self) -> float | None:
        """Remaining seconds; ``None`` while it is paused."""
        if self._since_s is None:
            return None
        return self._left_s - (self._monotonic() - self._since_s)

    def _wake(self) -> None:
        loop, changed = self._loop, self._changed
        if loop is not None and changed is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(changed.set)
