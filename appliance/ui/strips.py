"""The rows of the UI as Textual's strips, which leave no garbage behind.

Not for: what a row says (lines.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip


class RowStrip(Strip):
    """A strip that does not come to hold itself.

    Textual's remembers the result of each division, which mostly is the strip as a whole: a cycle
    that only the garbage collector frees. There were ten thousand such objects a second, and every
    look for them stops all threads (Textual 8.2).
    """

    def divide(self, cuts: Iterable[int]) -> Sequence[Strip]:
        """The parts between the cuts (in cells); see ``Strip.divide``."""
        within = [cut for cut in cuts if cut <= self.cell_length]
        return [self] if within == [self.cell_length] else super().divide(within)


def blank_strip(cells: int, style: Style) -> RowStrip:
    """Nothing, in ``cells`` cells."""
    return RowStrip([Segment(" " * cells, style)], cells)
