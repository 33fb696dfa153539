"""Text of others on a terminal, which it can't steer.

Names, topics and payloads come from others. What a terminal would act on is written out where
standard output or standard error is a terminal; a file or a pipe gets every byte as it is.
Not for: the terminal UI (ui/), the log (log/).
"""

from __future__ import annotations

import codecs
import sys
from typing import Any, TextIO

from appliance.log.sanitize import escape


def inert(text: str) -> str:
    """``text`` with its line breaks, and all else that a terminal acts on written out."""
    return "\n".join(map(escape, text.replace("\r\n", "\n").split("\n")))


class InertTerminal:
    """A text stream in front of a terminal: what is written passes through ``inert``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.buffer = _InertBytes(self)

    def write(self, text: str) -> int:
        self._stream.write(inert(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _InertBytes:
    """The bytes of the stream: UTF-8, decoded piece by piece."""

    def __init__(self, text: InertTerminal) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def write(self, data: bytes) -> int:
        text = self._held + self._decoder.decode(data)
        # The line feed of a CR LF may come with the next piece.
        self._held = "\r" if text.endswith("\r") else ""
        self._text.write(text.removesuffix("\r") if self._held else text)
        return len(data)

    def flush(self) -> None:
        self._text.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._text, name)


def guard() -> None:
    """Put an ``InertTerminal`` before standard output and error where they are terminals."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, InertTerminal) and stream.isatty():
            setattr(sys, name, InertTerminal(stream))
