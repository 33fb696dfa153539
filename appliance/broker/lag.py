"""Which client keeps the engine's loop, and so all others, waiting: it is slowed, then ended.

What clients send is worked off in short steps (work.py), so a long step is an exception: a kind of
work that is not cut. Its connection is known where its packets are taken. Not for: a client that
sends much, whose packets are taken in many short steps.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping

LONG_STEP_S = 0.02
"""A step of this processor time counts as long. Other clients may wait for 50 ms in all."""
PAUSE = 4
"""Nothing is read from the client for so many times the duration of its long step."""
MOST_S = 1.0
"""Time of long steps that ends the connection."""
FEWEST = 3
"""One or two long steps never end a connection."""
REMEMBERED_S = 60.0
"""After so long without a long step, only the wall clock is asked how long a step took; that is
cheaper than the processor time."""
FORGIVEN = 0.01
"""Share of the time that passes by which the time of long steps becomes less."""


class Collections:
    """The processor time that garbage collections took of the engine's thread.

    A full collection takes longer the more sessions there are, and comes in any client's step.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._thread = threading.get_ident()
        self._began: float | None = None
        self.spent_s = 0.0

    def begin(self) -> None:
        gc.callbacks.append(self._note)

    def end(self) -> None:
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: Mapping[str, int]) -> None:
        if info["generation"] < 2 or threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._began = self._clock()
        elif self._began is not None:
            self.spent_s += self._clock() - self._began
            self._began = None


class Lag:
    """The long steps of one connection.

    It is made when a step took long by the wall clock. That may be the fault of a busy machine, so
    from then on the processor time of the connection's steps is taken, until it is forgotten.
    """

    __slots__ = (
        "_at",
        "_began",
        "_clock",
        "_collections",
        "_cpu_clock",
        "_spent_s",
        "_steps",
        "is_slowed",
    )

    def __init__(
        self,
        collections: Collections,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._collections = collections
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._at = clock()
        self._began = 0.0
        self._spent_s = 0.0
        self._steps = 0
        self.is_slowed = False
        """Nothing is taken from the client for a while."""

    def begin(self) -> None:
        """A step begins."""
        self._began = self._cpu_clock() - self._collections.spent_s

    def end(self) -> float:
        """Count the step if it was long; returns its processor time in seconds, else 0.

        It need not be called for a step that was short by the wall clock.
        """
        took = self._cpu_clock() - self._collections.spent_s - self._began
        if took <= LONG_STEP_S:
            return 0.0
        now = self._clock()
        self._spent_s = max(0.0, self._spent_s - (now - self._at) * FORGIVEN) + took
        if self._spent_s == took:
            self._steps = 0
        self._at = now
        self._steps += 1
        return took

    @property
    def is_forgotten(self) -> bool:
        """Whether the processor time of further steps need not be taken."""
        passed = self._clock() - self._at
        return not self.is_slowed and passed > max(REMEMBERED_S, self._spent_s / FORGIVEN)

    @property
    def is_too_much(self) -> bool:
        """Whether the connection is to end."""
        return self._steps >= FEWEST and self._spent_s > MOST_S
