"""A screen that is dismissed once, however fast the keys come.

A dialog names ``ModalScreen`` first among its bases and ``DismissOnce`` second: Textual takes the
style rules of the first base alone.
Not for: the screen below (navigator.py).
"""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.screen import Screen, ScreenResultType


class DismissOnce(Screen[ScreenResultType]):
    """The base of every screen that may lie over another."""

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Dismiss the screen if it is the uppermost one.

        Keys and clicks that were on their way to the screen still reach it after it was dismissed.
        Textual would take away the screen below for each one, in the end the last screen.
        """
        if self.app.screen is not self:
            return AwaitComplete()
        return super().dismiss(result)
