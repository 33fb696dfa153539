"""A widget that plots numbers over time, drawn again only when they or its size change.

Not for: the drawing itself (``appliance/plot.py``), or a legend: the screens say what each sign is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.events import Resize

from appliance import plot
from appliance.ui.text import has_console_font
from appliance.ui.widgets.pane import Pane


class PlotPane(Pane):
    """Draws series, as ``plot.lines``, in the whole of its size; ``empty_text`` where none is.

    A drawing takes 5 to 25 ms, so a screen gives other times only when the numbers are others.
    """

    empty_text = "No number to plot."

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id, classes=classes)
        self._asked: tuple[object, ...] = ()
        self._draw: Callable[[], None] = self._nothing

    def say(self, text: str) -> None:
        """Show a text in place of a plot."""
        self.empty_text = text
        self._asked, self._draw = (), self._nothing
        self._nothing()

    def _nothing(self) -> None:
        self.show([[(f" {self.empty_text}", "dim")]])

    def plot(
        self,
        series: Sequence[plot.Series],
        since_ns: int,
        until_ns: int,
        *,
        utc: bool,
        levels: Sequence[plot.Level] = (),
        from_zero: bool = False,
        text_of: Callable[[float], str] | None = None,
    ) -> None:
        """Plot other numbers; the arguments are those of ``plot.lines``."""

        def draw() -> None:
            cells, rows = self.size
            asked = (
                *(tuple(series), since_ns, until_ns, utc, tuple(levels), from_zero, text_of),
                *(cells, rows, self.empty_text),
            )
            if asked == self._asked:
                return
            self._asked = asked
            lines = plot.lines(
                series,
                since_ns,
                until_ns,
                cells,
                rows,
                utc=utc,
                fine=not has_console_font() and not (self.app.no_color and len(series) > 1),
                levels=levels,
                from_zero=from_zero,
                text_of=text_of,
            )
            if lines:
                self.show(lines)
            else:
                self._nothing()

        self._draw = draw
        draw()

    def on_resize(self, event: Resize) -> None:  # noqa: ARG002 - Textual's signature
        self._draw()
