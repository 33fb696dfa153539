"""The rows of the UI as Textual's strips, which leave no garbage behind.

Not for: the text of a row (lines.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip


class RowStrip(Strip):
    """A strip that never refers to itself.

    Textual's strip caches the result of each division, mostly the strip itself: a cycle that only
    the garbage collector frees. Ten thousand such objects a second were measured, and each
    collection stops all threads (Textual 8.2).
    """

    def divide(self, cuts: Iterable[int]) -> Sequence[Strip]:
        """The parts between the cuts (in cells); see ``Strip.divide``."""
        within = [cut for cut in cuts if cut <= self.cell_length]
        return [self] if within == [self.cell_length] else super().divide(within)


def blank_strip(cells: int, style: Style) -> RowStrip:
    """A strip of ``cells`` blanks."""
    return RowStrip([Segment(" " * cells, style)], cells)
