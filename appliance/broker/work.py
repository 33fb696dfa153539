"""How long a step of the engine's loop may take: long work is cut, and others get their turn.

One loop serves every client, so that the work of one client delays all others. Work that can be
long looks at a ``Slice`` now and then, and goes on in a later step of the loop when it is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work in short steps: it gives way where others may get their turn, and returns its result.
What it looks at may have changed each time that it goes on."""

LONGEST_S = 0.005
"""The time of one slice. A few in one step of the loop stay below the 50 ms that are allowed."""


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
