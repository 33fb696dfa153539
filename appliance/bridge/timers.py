"""Named timers on an event loop: each name stands for at most one wait.

Not for: how long something waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    """The timers of one owner. Loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a timer of this name runs."""
        return name in self._handles

    def start(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        """Call something after a while, in place of what the name stood for."""
        self.cancel(name)

        def end() -> None:
            self._handles.pop(name, None)
            call()

        self._handles[name] = self._loop.call_later(delay_s, end)

    def cancel(self, *names: str) -> None:
        """Forget these."""
        for name in names:
            handle = self._handles.pop(name, None)
            if handle is not None:
                handle.cancel()

    def cancel_all(self) -> None:
        """Forget every timer."""
        self.cancel(*tuple(self._handles))
