"""A widget that shows lines, repainted only when they change.

Not for: lists with a cursor (rows.py), or what the lines say (the screens' pure functions).
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from appliance.ui.lines import Line, strip_of
from appliance.ui.strips import blank_strip


def tones_of(widget: Widget) -> dict[str, Style]:
    """The present styles; empty under a foreign app."""
    return getattr(widget.app, "tones", {})


class Pane(Widget):
    """Shows the lines it was given, cut to its width and height.

    It draws without Textual's box model, so it must have neither border nor padding of its own.
    """

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Line] = ()
        self._strips: dict[int, Strip] = {}
        self._look: tuple[object, ...] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Put other lines there; only those that differ are drawn again."""
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self._strips.clear()
            self.refresh(layout=self.styles.is_auto_height)
            return
        changed = [y for y, line in enumerate(lines) if line != before[y]]
        for y in changed:
            self._strips.pop(y, None)
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - Textual's signature
        return len(self._lines)

    def render_lines(self, crop: Region) -> list[Strip]:
        cells = self.size.width
        base = self.rich_style
        tones = tones_of(self)
        look = (cells, base, id(tones))
        if look != self._look:
            self._look = look
            self._strips.clear()
        strips = [self._strip(y, cells, base, tones) for y in range(crop.y, crop.bottom)]
        if crop.x or crop.width < cells:
            strips = [strip.crop(crop.x, crop.right) for strip in strips]
        return strips

    def _strip(self, y: int, cells: int, base: Style, tones: dict[str, Style]) -> Strip:
        if y >= len(self._lines):
            return blank_strip(cells, base)
        strip = self._strips.get(y)
        if strip is None:
            strip = self._strips[y] = strip_of(self._lines[y], cells, base, tones)
        return strip
