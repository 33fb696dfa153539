"""One line of a terminal that is renewed; nothing on any other stream.

Not for: what it says (meter.py, progress.py).
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from typing import TextIO

_CLEAR = "\r\x1b[K"
"""Back to the start of the line, and erase it (ECMA-48)."""


class StatusLine:
    """The line at the end of a command's output."""

    def __init__(self, stream: TextIO) -> None:
        self.is_terminal = stream.isatty()
        self._stream = stream
        self._is_shown = False

    def show(self, text: str) -> None:
        """Put ``text`` in place of what the line says, cut to the width of the terminal."""
        if self.is_terminal:
            self._write(f"{_CLEAR}{_cut(text, shutil.get_terminal_size().columns - 1)}")
            self._is_shown = True

    def clear(self) -> None:
        """Remove the line, before other text."""
        if self._is_shown:
            self._is_shown = False
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        # The stream itself writes out what a terminal acts on.
        stream = sys.__stderr__ or self._stream
        stream.write(text)
        stream.flush()


def _cut(text: str, cells: int) -> str:
    """As much of a text as fits: a wide letter takes two cells, and the row of a wrap stays."""
    if not text.isascii():
        for at, letter in enumerate(text):
            cells -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
            if cells < 0:
                return text[:at]
        return text
    return text[:cells]
