"""A widget that shows lines, repainted only when they change.

Not for: lists with a cursor (rows.py), or what the lines say (the screens' pure functions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.style import Style
from textual.app import RenderResult
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from appliance.ui.lines import Line, strip_of


class HasTones(Protocol):
    """The part of the app that a pane needs."""

    @property
    def tones(self) -> dict[str, Style]:
        """The style of every tone in the present theme."""


def tones_of(widget: Widget) -> dict[str, Style]:
    """The present styles; empty under a foreign app."""
    return getattr(widget.app, "tones", {})


class Pane(Widget):
    """Shows the lines it was given, cut to its width and height."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Line] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Put other lines there; the same lines again cost nothing."""
        if lines != self._lines:
            grown = len(lines) != len(self._lines)
            self._lines = lines
            self.refresh(layout=grown and self.styles.is_auto_height)

    @property
    def shown(self) -> Sequence[Line]:
        return self._lines

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - Textual's signature
        return len(self._lines)

    def render(self) -> RenderResult:
        return ""  # never called: render_line draws

    def render_line(self, y: int) -> Strip:
        cells = self.size.width
        base = self.rich_style
        if y >= len(self._lines):
            return Strip.blank(cells, base)
        return strip_of(self._lines[y], cells, base, tones_of(self))
