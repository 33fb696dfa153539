"""A driver for a browser's terminal: textual-serve's packets on standard input and output.

Textual's own driver leaves a UI without a reader running, and takes a part of a packet that was
written for the whole. Not for: the other end of the packets (web/browser_terminal.py).
"""

from __future__ import annotations

import os
from typing import Any

from textual.app import App
from textual.drivers.web_driver import WebDriver
from textual.messages import ExitApp


class BrowserDriver(WebDriver):
    """Ends the UI when the other end is gone."""

    def __init__(
        self,
        app: App[Any],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._gone = False
        self._write = self._write_all  # type: ignore[assignment]  # the base has a partial of os.write

    def _write_all(self, data: bytes) -> int:
        left = memoryview(data)
        while left and not self._gone:
            try:
                left = left[os.write(self.fileno, left) :]
            except OSError:
                self._end()
        return len(data)

    def run_input_thread(self) -> None:
        """Read keys until the end of the UI or of the input."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._end()

    def _end(self) -> None:
        self._gone = True
        self._app.post_message(ExitApp())
