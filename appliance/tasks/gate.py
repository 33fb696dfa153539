"""Closed until it is opened, for good: start calls wait so for their message to be on disk.

Whoever opens it may do the last step of those who wait at once, in his own thread: to wake one of
them takes a tenth of a millisecond, and then it still has to get the interpreter's lock.
``threading.Event`` would run a dozen lines of Python on either side besides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Gate:
    """Opened once, by anybody; any number may wait."""

    __slots__ = ("_is_open", "_lock", "_steps", "_way")

    def __init__(self) -> None:
        self._is_open = False
        self._steps: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._way = threading.Lock()
        self._way.acquire()

    def open(self) -> None:
        """Take the last step of everybody who waits, then let everybody through."""
        with self._lock:
            self._is_open = True
            steps, self._steps = self._steps, []
        for step in steps:
            step()
        self._way.release()

    def wait(self, timeout_s: float, step: Callable[[], None]) -> bool:
        """Whether it is open, waiting for that at most so long (in seconds).

        ``step`` is called by whoever opens it meanwhile, before this returns, and never
        afterwards; it must be over at once and not raise.
        """
        with self._lock:
            if self._is_open:
                return True
            self._steps.append(step)
        if not self._way.acquire(timeout=timeout_s):
            with self._lock:
                if not self._is_open:
                    self._steps.remove(step)
                    return False
            self._way.acquire()  # It is being opened at this moment.
        self._way.release()
        return True
