"""Start calls go first: who draws, or deals with outcomes, keeps still while one is on its way.

All threads share the interpreter's lock. From the PUBLISH to the POST it changes hands eight
times, and each time a thread that draws may keep it for a millisecond. So whoever draws asks here
every half a millisecond (``ui/breath.py``), and waits while a message that may start a task is
being dealt with; so does whoever is about to deal with many outcomes (``tasks/poller.py``).

Not for: anything that has to happen. Who has claimed may forget to release: it ends by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST_S = 0.005
"""What takes longer waits for a disk or a server, not for the interpreter."""

REST_S = 0.045
"""After a claim there is none for so long: messages that come one upon the other slow the pictures
by a tenth."""

_STEP_S = 0.0003


class RightOfWay:
    """Claimed by the engine, respected by others. Safe from any thread; nothing here waits long.

    Args:
        clock: seconds that have passed, from any beginning.
        sleep: sleeps for so many seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._until = self._rested_at = float("-inf")
        self._lock = threading.Lock()
        self._minders = 0
        self.is_minded = False
        """Whether anybody gives way: if not, nobody need find out whether to claim."""

    @contextmanager
    def minded(self) -> Iterator[None]:
        """While this lasts, somebody gives way."""
        with self._lock:
            self._minders += 1
            self.is_minded = True
        try:
            yield
        finally:
            with self._lock:
                self._minders -= 1
                self.is_minded = self._minders > 0

    def claim(self) -> None:
        """A message that may start a task has come in."""
        now = self._clock()
        if now >= self._rested_at:
            self._until = now + LONGEST_S
            self._rested_at = self._until + REST_S

    def release(self) -> None:
        """The start call has left."""
        self._until = float("-inf")

    def give_way(self) -> None:
        """Return when nobody has the right of way."""
        while self._clock() < self._until:
            self._sleep(_STEP_S)


starts = RightOfWay()
"""The one of this process, as there is one such lock."""
