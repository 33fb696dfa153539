"""Since when and until when a counter told of a loss, so that operators hear of it.

A counter only has a number. It is looked at once a second: a number that grew is an occurrence,
which is over when the number has not grown for ten minutes.
Not for: which counters these are (``counters.LOSSES``), what is shown (appliance/problems.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import msgspec

from appliance.counters import LOSSES, Counter
from appliance.engine_api import CounterBite

OVER_AFTER_NS = 10 * 60 * 1_000_000_000
"""What grows again within this is the same occurrence: who acknowledged it is left alone."""
SHOWN_NS = 24 * 3600 * 1_000_000_000


class Bites:
    """The counters' last occurrences, in memory: counters begin at 0 with each start.

    ``look`` belongs to one thread; ``states`` may be called from any.
    """

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._counts: dict[Counter, int] = {}
        self._found: dict[Counter, CounterBite] = {}
        self._states: tuple[CounterBite, ...] = ()

    def look(self, counts: Mapping[Counter, int], now_ns: int) -> None:
        """Take account of what the counters say now."""
        has_changed = False
        for counter in LOSSES:
            count, before = counts.get(counter, 0), self._counts.get(counter, 0)
            if count > before:
                self._counts[counter] = count
                self._found[counter] = self._grown(counter, before, count, now_ns)
                has_changed = True
        over = [one for one, bite in self._found.items() if now_ns - bite.last_ns > SHOWN_NS]
        for counter in over:
            del self._found[counter]
        if has_changed or over:
            self._list()

    def _grown(self, counter: Counter, before: int, count: int, now_ns: int) -> CounterBite:
        present = self._found.get(counter)
        if present is not None and now_ns - present.last_ns <= OVER_AFTER_NS:
            more = present.count + count - before
            return msgspec.structs.replace(present, count=more, last_ns=now_ns)
        occurrence = f"{self._run} {before}"
        return CounterBite(counter.metric, count - before, now_ns, now_ns, occurrence)

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: what happened is as old as before."""
        for counter, bite in self._found.items():
            self._found[counter] = msgspec.structs.replace(
                bite, since_ns=bite.since_ns + step_ns, last_ns=bite.last_ns + step_ns
            )
        self._list()

    def states(self) -> tuple[CounterBite, ...]:
        """Those of the last 24 hours, the newest first."""
        return self._states

    def _list(self) -> None:
        self._states = tuple(sorted(self._found.values(), key=lambda one: (-one.last_ns, one.name)))
