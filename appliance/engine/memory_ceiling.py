"""A ceiling for the memory of the process, and what is given up to stay below it.

Every part has bounds of its own, and clients together may still fill more than a machine has. The
memory is looked at four times a second. Above ``limits.max_memory`` one step is taken at each look,
in this order: the live view's messages, caches, and then publishers that send much wait. Below nine
tenths of it all is as before. Not for: measuring it (resident_memory.py), which publishers wait
(broker/door.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from appliance.counters import Count, Counter
from appliance.engine_api import Health

logger = logging.getLogger(__name__)

LOOK_S = 0.25
"""Seconds between two looks. A publisher on the same machine sends some ten megabytes in them."""
_ENOUGH = 0.9
"""The share of the ceiling below which memory is no longer given up."""
_MIB = 1024 * 1024

Step = tuple[Counter, str, Callable[[], None]]
"""What counts it, what it is called in the log, and what does it."""


class MemoryCeiling:
    """Keeps the memory below the ceiling. Engine's loop only, but for ``health``."""

    def __init__(
        self,
        limit: Callable[[], int],
        measure: Callable[[], int],
        *,
        steps: Sequence[Step],
        hold: Callable[[bool], None],
        back_to_normal: Callable[[], None],
        count: Count,
    ) -> None:
        """``hold`` lets publishers wait or go on; ``back_to_normal`` undoes the steps.

        While publishers wait, ``hold`` is called at each look, so that it can let some go on. What
        a process has given free may stay with it, and the appliance must not stand still.
        """
        self._limit = limit
        self._measure = measure
        self._steps = steps
        self._hold = hold
        self._back_to_normal = back_to_normal
        self._count = count
        self._taken = 0
        self.bytes = 0
        """The memory at the last look."""
        self.health = Health("ok")

    async def watch(self, return_free_memory: Callable[[], None]) -> None:
        """Look at the memory until cancelled. ``return_free_memory`` runs in a thread."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.look():
                await asyncio.to_thread(return_free_memory)

    def look(self) -> bool:
        """Look at the memory and take the next step if it is too much.

        Returns whether free memory has to be returned to the system: until all is as before, as
        what clients leave behind would else stay with the process and keep publishers waiting.
        """
        self.bytes = self._measure()
        limit = self._limit()
        if self.bytes > limit:
            self._give_up(limit)
        elif self._taken and self.bytes < limit * _ENOUGH:
            self._recover()
        elif self._taken > len(self._steps):
            self._hold(True)
        return self._taken > 0

    def _give_up(self, limit: int) -> None:
        if self._taken > len(self._steps):
            self._hold(True)
            return
        self._taken += 1
        if self._taken <= len(self._steps):
            counter, name, give_up = self._steps[self._taken - 1]
            give_up()
            self._count(counter)
        else:
            name = "publishers wait"
            self._hold(True)
            self._count(Counter.MEMORY_PUBLISHERS_PAUSED)
        text = (
            f"{self.bytes // _MIB} MiB of memory are in use, more than limits.max_memory"
            f" ({limit // _MIB} MiB): {name}"
        )
        self.health = Health("warn", text)
        logger.warning("%s", text)

    def _recover(self) -> None:
        self._taken = 0
        self._hold(False)
        self._back_to_normal()
        self.health = Health("ok")
        logger.info("%d MiB of memory are in use: all is as before", self.bytes // _MIB)
