"""Log lines that strangers cause: a few each minute, and how many were left out.

Not for: lines about the appliance's own errors, which are all written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_LINES_A_MINUTE = 5
_LINES_OF_ALL = 100
"""Of all origins together, where lines are counted by origin."""
_REMEMBERED = 256
"""Origins of which lines are counted apart."""
_MINUTE_S = 60.0


class SparseLog:
    """Writes to ``logger``. Engine's loop only."""

    def __init__(
        self,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        *,
        lines_a_minute: int = _LINES_A_MINUTE,
        about: str = "",
    ) -> None:
        """Write to ``logger``; ``about`` begins each line.

        The log leaves out what repeats by the text before its values are put in (log/lines.py), so
        lines about one thing do not keep out those about another.
        """
        self._logger = logger
        self._clock = clock
        self._about = about.replace("%", "%%")
        self._most = lines_a_minute
        self._since = float("-inf")
        self._lines = 0

    def log(self, level: int, text: str, *values: object) -> None:
        """Write a line, unless there were enough in this minute."""
        if self.has_room():
            about = self._about
            self._logger.log(level, f"{about}{text}" if about else text, *values)

    def has_room(self) -> bool:
        """Count a line; returns whether it is to be written."""
        now = self._clock()
        if now - self._since > _MINUTE_S:
            left_out = self._lines - self._most
            if left_out > 0:
                self._logger.info("%d more lines like these were left out", left_out)
            self._since, self._lines = now, 0
        self._lines += 1
        return self._lines <= self._most


class SparseLogs:
    """A ``SparseLog`` for each origin (``origin_of``), so that one stranger hides no other's lines.

    Where many origins write, those that wrote longest ago are forgotten. Safe from any thread.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._logs: dict[str, SparseLog] = {}
        self._all = SparseLog(logger, clock, lines_a_minute=_LINES_OF_ALL)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._logs)

    def log(self, origin: str, level: int, text: str, *values: object) -> None:
        """Write a line, unless there were enough of the origin, or of all, in this minute."""
        with self._lock:
            found = self._logs.pop(origin, None) or SparseLog(self._logger, self._clock)
            while len(self._logs) >= _REMEMBERED:
                del self._logs[next(iter(self._logs))]
            self._logs[origin] = found
            if found.has_room():
                self._all.log(level, text, *values)
