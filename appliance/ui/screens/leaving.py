"""How a screen leaves: once, and only itself.

A dialog names ``ModalScreen`` first among its bases and ``Leaving`` second: Textual takes the
style rules of the first one alone.
Not for: where it leads back to (app.py).
"""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.screen import Screen, ScreenResultType


class Leaving(Screen[ScreenResultType]):
    """The base of every screen that may lie over another."""

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Leave, if the screen is the uppermost one.

        Keys and clicks that were on their way to the screen still reach it after it has left.
        Textual would take away the screen below for each of them, in the end the last one.
        """
        if self.app.screen is not self:
            return AwaitComplete()
        return super().dismiss(result)
