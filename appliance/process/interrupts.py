"""Ctrl+C while the program is loaded: the process ends at once, without a traceback.

Python raises ``KeyboardInterrupt`` at any statement; within an import a library can swallow it or
report it as its own error. Before anything is open, nothing needs an ordered end. This module
imports almost nothing, because it must be first. Not for: a running appliance (run.py), commands
that wait for a person (cli.py).
"""

from __future__ import annotations

import os
import signal
from types import FrameType

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def end_at_once() -> None:
    """From now on, Ctrl+C ends the process with 130. Main thread only.

    If the signal was ignored (a background job of a shell), it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Undo ``end_at_once``, if it was called: Ctrl+C is a ``KeyboardInterrupt`` from now on."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, b"appliance: interrupted\n")  # not through a stream: it may be in use
    finally:
        os._exit(EXIT_INTERRUPTED)
