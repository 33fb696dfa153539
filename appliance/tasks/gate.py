"""Closed until it is opened, for good: start calls wait so for their message to be on disk.

``threading.Event`` would do, but whoever opens it runs a dozen lines of Python, and so does
whoever goes through, with the interpreter's lock.
"""

from __future__ import annotations

import threading


class Gate:
    """Opened once, by anybody; any number may wait."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let everybody through."""
        self._lock.release()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is open, waiting for that at most so long (in seconds)."""
        is_open = self._lock.acquire(timeout=timeout_s)
        if is_open:
            self._lock.release()
        return is_open
