"""Log lines that strangers cause: a few each minute, and how many were left out.

Not for: lines about the appliance's own errors, which are all written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_LINES_A_MINUTE = 5
_MINUTE_S = 60.0


class SparseLog:
    """Writes to ``logger``. Engine's loop only."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._since = float("-inf")
        self._lines = 0

    def log(self, level: int, text: str, *values: object) -> None:
        """Write a line, unless there were enough in this minute."""
        now = self._clock()
        if now - self._since > _MINUTE_S:
            left_out = self._lines - _LINES_A_MINUTE
            if left_out > 0:
                self._logger.info("%d more lines like these were left out", left_out)
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines <= _LINES_A_MINUTE:
            self._logger.log(level, text, *values)
