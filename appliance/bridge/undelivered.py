"""The messages that did not go out by a bridge for good: counted, said, and known to operators.

Not for: when a message is given up (outgoing.py, window.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from appliance.broker.sparse_log import SparseLog
from appliance.counters import Count, Counter
from appliance.log.sanitize import escape

_log = logging.getLogger(__name__)
_SHOWN = 200
"""Characters of a topic in the log."""


class Undelivered:
    """Of one bridge. Engine's loop only; its numbers are for any thread."""

    def __init__(
        self,
        name: str,
        count: Count,
        clock_ns: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._count = count
        self._clock_ns = clock_ns
        self._lines = SparseLog(_log, clock, about=f"bridge {name}")
        self.parked = 0
        """Messages that the other broker refused, so that they were left out."""
        self.parked_ns: int | None = None
        """When that happened last; ``None`` once an operator has acknowledged it."""
        self.missed = 0
        """Numbers of the journal that retention deleted before they went out."""
        self.missed_ns: int | None = None
        """When that was found last; ``None`` once an operator has acknowledged it."""

    def park(self, seq: int, topic: str, why: str) -> None:
        """The other broker does not take a message; ``why`` is safe to show."""
        self.parked += 1
        self.parked_ns = self._clock_ns()
        self._count(Counter.BRIDGE_PUBLISHES_REFUSED)
        self._lines.log(
            logging.WARNING,
            ": the other broker refused message %d on %s, which is left out: %s",
            seq,
            escape(topic[:_SHOWN]),
            why,
        )

    def leave_out(self, seq: int, counter: Counter, why: str) -> None:
        """A message can't be sent."""
        self._count(counter)
        self._lines.log(logging.WARNING, ": message %d does not go out: %s", seq, why)

    def expire(self) -> None:
        """A message was not to be sent any more; its publisher wanted it so."""
        self._count(Counter.BRIDGE_PUBLISHES_EXPIRED)

    def miss(self, messages: int) -> None:
        """Retention deleted messages before they were read, at most so many."""
        self.missed += messages
        self.missed_ns = self._clock_ns()
        self._count(Counter.BRIDGE_PUBLISHES_MISSED)
        _log.error(
            "bridge %s: retention has deleted up to %d messages that had not gone out: the other "
            "broker was away for longer than the journal reaches back (journal.max_size)",
            self._name,
            messages,
        )

    def acknowledge(self) -> list[str]:
        """An operator knows what did not go out; returns what that was."""
        known = []
        if self.parked_ns is not None:
            known.append(
                f"bridge {self._name}: {self.parked} messages were refused by the other broker"
                " since the start, and left out"
            )
        if self.missed_ns is not None:
            known.append(
                f"bridge {self._name}: retention has deleted up to {self.missed} messages since"
                " the start that had not gone out"
            )
        self.parked_ns = self.missed_ns = None
        return known
