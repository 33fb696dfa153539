"""How far a long command is: one line of a terminal that is renewed, nothing elsewhere.

Not for: what starts of tasks came to (progress.py).
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

_CLEAR = "\r\x1b[K"
"""Back to the start of the line, and erase it (ECMA-48)."""
_EVERY_S = 0.2
_BAR = 20


class Meter:
    """The line. Each ``show`` may be one of millions."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._clock = clock
        self._due = clock()
        self._has_line = False

    @property
    def is_due(self) -> bool:
        """Whether ``show`` would be seen now."""
        return self._is_terminal and self._clock() >= self._due

    def show(self, text: str, share: float | None = None) -> None:
        """Renew the line; ``share`` of the work is done, from 0 to 1, if that is known."""
        if not self.is_due:
            return
        self._due = self._clock() + _EVERY_S
        if share is not None:
            share = max(0.0, min(share, 1.0))
            full = round(share * _BAR)
            text = f"[{'#' * full}{'.' * (_BAR - full)}] {share:4.0%}  {text}"
        self._raw(f"{_CLEAR}{text[: shutil.get_terminal_size().columns - 1]}")
        self._has_line = True

    def clear(self) -> None:
        """Remove the line, before other text."""
        if self._has_line:
            self._has_line = False
            self._raw(_CLEAR)

    def _raw(self, text: str) -> None:
        # The stream itself writes out what a terminal acts on.
        stream = sys.__stderr__ or self._stream
        stream.write(text)
        stream.flush()
