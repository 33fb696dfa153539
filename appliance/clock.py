"""The time of day, with the steps of the system's clock told instead of taken.

The system's clock may be set: by an operator, or by NTP after a start without a battery. A wait
that ends at a time of day would then end hours too late, or all waits at once. ``Clock`` goes on at
the steady pace of the time since the machine's start until its owner has moved what waits
(``step_ns``, ``adopt``). So each wait keeps its length.

Not for: durations that nothing outlives (``time.monotonic``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

STEP_NS = 1_000_000_000
"""A smaller difference is no step: the clock follows it at once."""
HOLD_NS = 24 * 3600 * STEP_NS
"""For so long a step forward has to hold before anything is deleted because of its age."""


# Linux: CLOCK_MONOTONIC stands still while the machine sleeps, and a sleep is no step. The
# clocks of Windows and macOS that Python takes: GetTickCount64 goes on in sleep, macOS' stands.
since_boot_ns: Callable[[], int] = time.monotonic_ns
"""Nanoseconds since the machine's start; every process of a machine sees the same time."""
if sys.platform == "linux":
    since_boot_ns = partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)


def steady(clock_ns: Callable[[], int]) -> Callable[[], int]:
    """The same clock without the steps that it adopts: for how long something lasts."""
    if not isinstance(clock_ns, Clock):
        return clock_ns
    clock = clock_ns
    return lambda: clock() - clock.stepped_ns


class Clock:
    """Nanoseconds since 1970 when called, from any thread. Its owner asks for steps."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = since_boot_ns,
        ahead_ns: int | None = None,
    ) -> None:
        """Begin with the system's time of day, or where an earlier clock would be.

        Args:
            wall_ns: the system's time of day.
            steady_ns: a time that is never set.
            ahead_ns: ``ahead_ns`` of the earlier clock, if its steady time still goes on.
        """
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._offset = wall_ns() - steady_ns() if ahead_ns is None else ahead_ns
        self.stepped_ns = 0
        """The sum of all steps that were adopted."""
        self._doubts: list[tuple[int, int]] = []
        """Steps forward: when each was adopted, by the steady time, and how far it went."""

    def __call__(self) -> int:
        return self._steady_ns() + self._offset

    @property
    def ahead_ns(self) -> int:
        """How far this clock is ahead of the steady time."""
        return self._offset

    def step_ns(self) -> int:
        """How far the system's clock was set, forward or (negative) back, and not adopted yet.

        A difference below ``STEP_NS`` is followed at once; then 0 is returned.
        """
        step = self._wall_ns() - self()
        if abs(step) >= STEP_NS:
            return step
        self._offset += step
        return 0

    def adopt(self, step_ns: int) -> None:
        """From now on the clock shows the time after this step."""
        self._offset += step_ns
        self.stepped_ns += step_ns
        self.doubt(step_ns)

    def doubt(self, ahead_ns: int) -> None:
        """The clock may be wrong by so much: it went ahead (or, negative, back again)."""
        self._doubts.append((self._steady_ns(), ahead_ns))

    def settled_ns(self) -> int:
        """The time without the steps forward of the last ``HOLD_NS``, for what deletes by age."""
        if not self._doubts:
            return self()
        steady = self._steady_ns()
        self._doubts = [one for one in self._doubts if steady - one[0] < HOLD_NS]
        return self() - max(0, sum(ahead for _, ahead in self._doubts))
