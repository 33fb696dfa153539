"""How long a step of the engine's loop may take: long work is cut, and others get their turn.

One loop serves every client, so that the work of one client delays all others. Work that can be
long looks at a ``Slice`` now and then, and goes on in a later step of the loop when it is over.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work in short steps: it gives way where others may get their turn, and returns its result.
What it looks at may have changed each time that it goes on."""

LONGEST_S = 0.005
"""The time of one slice. A few in one step of the loop stay below the 50 ms that are allowed."""


LONGEST_STEP_S = 0.01
"""The time in one step of the loop for what all connections have sent."""


class Slice:
    """A bounded time of work, from its making on."""

    __slots__ = ("_clock", "_ends")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """``clock`` gives seconds. The loop's own clock stands still during a step (uvloop)."""
        self._clock = clock
        self._ends = clock() + LONGEST_S

    @property
    def is_over(self) -> bool:
        """Whether the rest of the work is to wait for a later step of the loop."""
        return self._clock() >= self._ends


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """The items one by one; what comes when a slice is over comes in a later step of the loop."""
    turn = Slice()
    for item in items:
        yield item
        if turn.is_over:
            await asyncio.sleep(0)
            turn = Slice()


class Turns:
    """Shares the steps of the loop between connections that all have much to do.

    What many connections have sent may be read in one step of the loop. Each is worked off in a
    slice, and when the step has had its time, the others wait for theirs in a queue.
    """

    __slots__ = ("_at", "_ends", "_has_still_clock", "_is_timed", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._has_still_clock = type(loop).__module__.startswith("uvloop")
        """Whether the loop's clock stands still during a step, and so says which step it is."""
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_timed = False
        self._at = 0.0
        self._ends = 0.0

    def is_over(self, at: float, now: float) -> bool:
        """Whether nothing more is to be begun in this step; the first question begins it.

        Args:
            at: the step, by the loop's clock.
            now: by ``time.perf_counter``.
        """
        if not self._at or (at != self._at and self._has_still_clock):
            self._begin(at, now)
            return False
        return now > self._ends

    def _begin(self, at: float, now: float) -> None:
        self._at = at
        self._ends = now + LONGEST_STEP_S
        if not self._has_still_clock:
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._at = 0.0

    def later(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` in a later step; those that came first go first."""
        self._waiting.append(go_on)
        if not self._is_timed:
            self._is_timed = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._begin(self._loop.time(), time.perf_counter())
        ends = self._ends
        self._ends = math.inf  # the first has its turn, however long the step took until now
        for _ in range(len(self._waiting)):  # what waits again is for the next step
            self._waiting.popleft()()
            self._ends = ends
            if time.perf_counter() >= ends:
                break
        self._is_timed = bool(self._waiting)
        if self._is_timed:
            self._loop.call_soon(self._run)


def at_once(steps: Steps[T]) -> T:
    """Work without a pause, before clients are served; returns the result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


async def finish(steps: Steps[T]) -> T:
    """Work in slices of time, with a step of the loop between two; returns the result."""
    slice_ = Slice()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        if slice_.is_over:
            await asyncio.sleep(0)
            slice_ = Slice()
