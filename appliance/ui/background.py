"""Work in threads: calls that may wait for the engine or the disk, off the UI's loop.

Not for: what the engine can answer at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from textual.app import App
from textual.widget import Widget

from appliance.errors import ApplianceError

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class Background:
    """Runs work in threads of Textual's and brings the results back to the UI's loop."""

    def __init__(self, app: App[Any], say: Callable[..., None]) -> None:
        self._app = app
        self._say = say

    def run(self, work: Callable[[], object], *, group: str) -> None:
        """Run ``work`` in a thread; an error that it raises becomes a notice."""

        def guarded() -> None:
            try:
                work()
            except ApplianceError as error:
                self.call(self._say, str(error), bad=True)
            except Exception as error:  # noqa: BLE001 - a fault of the engine must not end the UI
                _LOG.error("a request of the terminal UI failed: %r", error)
                self.call(self._say, f"That failed: {error}", bad=True)

        self._app.run_worker(guarded, group=group, thread=True, exit_on_error=False)

    def fetch(self, get: Callable[[], T], then: Callable[[T], object], *, group: str) -> None:
        """Run ``get`` in a thread, and give ``then`` its result on the UI's loop."""
        self.run(lambda: self.call(then, get()), group=group)

    def _is_shown(self, widget: Widget) -> bool:
        """Whether its screen has its widgets: one that has been left loses them by and by."""
        if not widget.is_attached:
            return False
        screen = widget.screen
        return screen in self._app.screen_stack or self._app.is_screen_installed(screen)

    def call(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call ``callback`` on the UI's loop; may be called from any thread.

        The call is dropped once the UI has ended, or if ``callback`` is a method of a screen that
        has been left since, or of a widget there.
        """

        def call() -> object:
            owner = getattr(callback, "__self__", None)
            if isinstance(owner, Widget) and not self._is_shown(owner):
                return None
            return callback(*args, **kwargs)

        if self._app.is_running:
            self._app.call_later(call)
