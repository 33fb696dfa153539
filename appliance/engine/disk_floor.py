"""A floor for the free space of the data directory's disk, and what gives way below it.

In this order, so that a message is never acknowledged and then lost: recorders pause (each by the
disk of its own folder, recorders/free_space.py), and the journal keeps what they have not read,
even beyond ``max_size``; below half of the floor publishers that send much are read slowly; below a
quarter every publisher waits. What is still left is for the appliance itself: outcomes, positions,
its own messages. All ends by itself when space is free again.
Not for: a disk that is full (journal/writer.py acknowledges nothing then).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

from appliance.counters import Count, Counter
from appliance.engine_api import Health

logger = logging.getLogger(__name__)

LOOK_S = 0.25
_ENOUGH = 1.1
"""So much more than a bound must be free until what it brought about ends."""
_FIRST_S = 5.0
"""Until then recorders may not have looked at their disks, so nothing unread is deleted."""

Level = Literal[0, 1, 2, 3]
_SHARES = (1.0, 0.5, 0.25)
"""Of the floor: below it recorders pause, publishers are slowed, publishers wait."""
_DONE: dict[Level, str] = {
    1: "recorders pause, and the journal keeps what they have not recorded",
    2: "publishers that send much are slowed too",
    3: "publishers wait",
}
_COUNTERS = {2: Counter.DISK_PUBLISHERS_SLOWED, 3: Counter.DISK_PUBLISHERS_STOPPED}


class DiskFloor:
    """Looks at the disk. Engine's loop only, but for ``health``.

    Args:
        floor: ``limits.min_free_disk``, in bytes.
        measure: the free bytes; it may wait for the disk, so it runs in a thread.
        is_overfull: whether the journal is so far beyond its size that it would delete messages
            that were not read.
        are_recorders_paused: whether one is, whichever disk it writes to.
        hold: lets publishers be slowed (1), wait (2), or go on (0).
        keep_unread: lets the journal keep messages that were not read, whatever its size.
        count: counts.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        floor: Callable[[], int],
        measure: Callable[[], int],
        *,
        is_overfull: Callable[[], bool],
        are_recorders_paused: Callable[[], bool],
        hold: Callable[[Literal[0, 1, 2]], None],
        keep_unread: Callable[[bool], None],
        count: Count,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._floor = floor
        self._measure = measure
        self._is_overfull = is_overfull
        self._are_recorders_paused = are_recorders_paused
        self._hold = hold
        self._keep_unread = keep_unread
        self._count = count
        self._clock = clock
        self._began_s = clock()
        self._level: Level = 0
        self._held: Literal[0, 1, 2] = 0
        self.health = Health("ok")

    async def watch(self) -> None:
        """Look at the disk until cancelled."""
        while True:
            try:
                free = await asyncio.to_thread(self._measure)
            except OSError as error:  # the journal says what is wrong with the disk
                logger.debug("free space can't be read: %s", error)
            else:
                self.look(free)
            await asyncio.sleep(LOOK_S)

    def look(self, free: int) -> None:
        """Do what so many free bytes ask for."""
        floor = self._floor()
        level = self._level_of(free, floor)
        if level != self._level:
            self._change(level, free, floor)
        are_paused = self._are_recorders_paused()
        is_new = self._clock() - self._began_s < _FIRST_S
        self._keep_unread(level > 0 or are_paused or is_new)
        held: Literal[0, 1, 2] = 2 if level == 3 else 1 if level == 2 else 0
        if are_paused and self._is_overfull():
            held = 2  # it would delete what paused recorders have not read
        if held > 1 and self._held < 2 and level < 3:
            self._count(Counter.DISK_PUBLISHERS_STOPPED)
            logger.warning(
                "The journal is more than a tenth bigger than journal.max_size, because recorders"
                " pause for lack of disk space: publishers wait"
            )
        if held or self._held:
            self._hold(held)  # again and again, so that slowed publishers take turns
        self._held = held
        self.health = self._judged(free, floor)

    def _level_of(self, free: int, floor: int) -> Level:
        level: Level = 0
        for number, share in enumerate(_SHARES):
            bound = floor * share
            is_in = self._level > number
            if free < (bound * _ENOUGH if is_in else bound):
                level = (1, 2, 3)[number]
        return level

    def _change(self, level: Level, free: int, floor: int) -> None:
        if level > self._level:
            for step in range(self._level + 1, level + 1):
                if step in _COUNTERS:
                    self._count(_COUNTERS[step])
            logger.warning("%s", _text(level, free, floor))
        elif level:
            logger.warning("%s", _text(level, free, floor))
        else:
            logger.info("%d MB are free on the disk: all is as before", free // 1_000_000)
        self._level = level

    def _judged(self, free: int, floor: int) -> Health:
        if self._level:
            return Health("warn" if self._level == 1 else "bad", _text(self._level, free, floor))
        if self._held:
            return Health("bad", "recorders pause and the journal is full: publishers wait")
        return Health("ok")


def _text(level: Level, free: int, floor: int) -> str:
    return (
        f"only {free // 1_000_000} MB are free, less than limits.min_free_disk asks for"
        f" ({floor // 1_000_000} MB): {_DONE[level]}"
    )
