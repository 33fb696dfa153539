"""A thread's sleep that other threads may end early.

``queue.SimpleQueue`` is the cheapest way to wake a thread: ``threading.Event`` runs a dozen lines
of Python on either side, and the woken thread waits for the interpreter's lock meanwhile.
Not for: what there is to do. The sleeping thread looks for that itself.
"""

from __future__ import annotations

import queue
from collections.abc import Callable


class Wakeup:
    """For one sleeping thread; any thread may wake it."""

    __slots__ = ("_calls", "is_awaited")

    def __init__(self) -> None:
        self.is_awaited = False
        """Whether the thread sleeps, so that it has to be woken for what was just made ready."""
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wait(self, timeout_s: float, is_over: Callable[[], object]) -> None:
        """Return when ``is_over`` says so, when woken, or after ``timeout_s`` seconds."""
        self.is_awaited = True
        # Asked after the flag is up: a thread that makes something ready either sees the flag, or
        # what it made ready is seen here.
        if not is_over():
            try:  # noqa: SIM105 - ``suppress`` takes longer, and each commit waits here
                self._calls.get(timeout=timeout_s)
            except queue.Empty:
                pass
        self.is_awaited = False

    def wake(self) -> None:
        """Let the present ``wait``, or else the next one, return at once."""
        self.is_awaited = False
        self._calls.put(None)
