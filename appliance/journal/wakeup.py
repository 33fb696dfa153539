"""A thread's sleep that others may end early.

``queue.SimpleQueue`` is the cheapest way to wake a thread: ``threading.Event`` runs a dozen lines
of Python on either side, and whoever is woken waits for the interpreter's lock meanwhile.
Not for: what there is to do, which is looked at by whoever sleeps.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable


class Nap:
    """For one sleeper; anybody may wake it."""

    __slots__ = ("_calls", "is_on")

    def __init__(self) -> None:
        self.is_on = False
        """Whether a call to ``end`` is needed for what was just made ready to be noticed."""
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def take(self, timeout_s: float, is_over: Callable[[], object]) -> None:
        """Return when ``is_over`` says so, when woken, or after the time (in seconds)."""
        self.is_on = True
        # Looked at after the flag is up: who makes something ready either sees the flag, or what
        # it made ready is seen here.
        if not is_over():
            with contextlib.suppress(queue.Empty):
                self._calls.get(timeout=timeout_s)
        self.is_on = False

    def end(self) -> None:
        """Let the present nap, or else the next one, return at once."""
        self.is_on = False
        self._calls.put(None)
