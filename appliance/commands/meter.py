"""How far a long command is: one line of a terminal that is renewed, nothing elsewhere.

Not for: what starts of tasks came to (progress.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from appliance.commands.status_line import StatusLine

_EVERY_S = 0.2
_BAR = 20


class Meter:
    """The line. Each ``show`` may be one of millions."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = StatusLine(stream)
        self._clock = clock
        self._due = clock()

    @property
    def is_due(self) -> bool:
        """Whether ``show`` would be seen now."""
        return self._line.is_terminal and self._clock() >= self._due

    def show(self, text: str, share: float | None = None) -> None:
        """Renew the line; ``share`` of the work is done, from 0 to 1, if that is known."""
        if not self.is_due:
            return
        self._due = self._clock() + _EVERY_S
        if share is not None:
            share = max(0.0, min(share, 1.0))
            full = round(share * _BAR)
            text = f"[{'#' * full}{'.' * (_BAR - full)}] {share:4.0%}  {text}"
        self._line.show(text)

    def clear(self) -> None:
        """Remove the line, before other text."""
        self._line.clear()
