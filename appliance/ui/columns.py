"""Tables: one rule that gives each column its cells from the width of the terminal.

Each column has its least cells. What is left over fills the columns up to the width at which they
read well, and after that up to their longest useful width, each in proportion to what it lacks.
A column that needs a wide table is left out of a narrow one. Not for: what the cells say (views/).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from appliance.ui.lines import Line, cut_line, line_width
from appliance.ui.text import cut_start, fit, fit_right

_LAYOUTS = 256
"""Layouts that are kept: one for each table and width; a resize by mouse passes many widths."""

Cell = tuple[str, str] | Line
"""A text with its tone, or several of them. The texts are printable already."""


class Column(NamedTuple):
    """One column of a table; all widths are in cells."""

    title: str
    least: int
    good: int = 0
    """The width at which it reads well; 0: as ``least``."""
    most: int | None = 0
    """The width beyond which it gains nothing; 0: as ``good``; ``None``: it takes what is left."""
    right: bool = False
    """Whether its texts stand at the right edge, as numbers do."""
    keeps_end: bool = False
    """Whether a text that is too long loses its beginning, since its end says more."""
    from_cells: int = 0
    """The width of a table from which the column is shown."""
    key: str = ""
    """What a click on the title does, as the page names it (the order of the rows, mostly)."""


class Table:
    """The columns of one list."""

    def __init__(self, *columns: Column) -> None:
        self.columns = columns

    def widths(self, cells: int) -> tuple[int, ...]:
        """The width of each column in a table of ``cells`` cells; 0 for one that is left out."""
        return _widths(self.columns, cells)

    def heading(self, cells: int, *, sort: str = "", **titles: str) -> Line:
        """The titles; the one that the rows are sorted by has a sign.

        ``titles``: other words for some columns, by their key.
        """
        parts: list[Cell] = []
        for column in self.columns:
            title = titles.get(column.key, column.title) if column.key else column.title
            mark = "▼" if sort and column.key == sort else ""
            parts.append((title + mark, "head"))
        return self.row(cells, parts)

    def row(self, cells: int, parts: Sequence[Cell]) -> Line:
        """One row: a part for each column, those of columns that are left out too."""
        line: Line = []
        for column, width, part in zip(self.columns, self.widths(cells), parts, strict=True):
            if not width:
                continue
            if line:
                line.append((" ", ""))
            if isinstance(part, list):
                held = cut_line(part, width)
                line += [*held, (" " * (width - line_width(held)), "")]
                continue
            text, tone = part
            if column.right:
                line.append((fit_right(text, width), tone))
            else:
                line.append(
                    (fit(cut_start(text, width) if column.keeps_end else text, width), tone)
                )
        return line

    def at(self, cells: int, cell: int) -> Column | None:
        """The column whose title stands at a cell of the heading."""
        start = 0
        for column, width in zip(self.columns, self.widths(cells), strict=True):
            if not width:
                continue
            if start <= cell <= start + width:
                return column
            start += width + 1
        return None


@lru_cache(maxsize=_LAYOUTS)
def _widths(columns: tuple[Column, ...], cells: int) -> tuple[int, ...]:
    shown = [index for index, one in enumerate(columns) if cells >= one.from_cells]
    widths = {index: columns[index].least for index in shown}
    spare = cells - sum(widths.values()) - (len(shown) - 1)
    if spare < 0:  # a pane that is narrower than any page: the last columns are cut
        return _cut(columns, shown, cells)
    good = {index: columns[index].good or columns[index].least for index in shown}
    spare = _share(widths, good, spare)
    ends = {index: _most(columns[index], cells) for index in shown}
    spare = _share(widths, ends, spare)
    if spare:
        growing = [index for index in shown if ends[index] > columns[index].least]
        widths[(growing or shown)[0]] += spare
    return tuple(widths.get(index, 0) for index in range(len(columns)))


def _most(column: Column, cells: int) -> int:
    if column.most is None:
        return cells
    return column.most or column.good or column.least


def _share(widths: dict[int, int], ends: dict[int, int], spare: int) -> int:
    """Let columns grow towards ``ends``, each by its part of what all lack; returns the rest."""
    lacks = {index: max(0, ends[index] - width) for index, width in widths.items()}
    lacking = sum(lacks.values())
    if not lacking:
        return spare
    given = min(spare, lacking)
    left = given
    for index, lack in lacks.items():
        more = given * lack // lacking
        widths[index] += more
        left -= more
    for index in lacks:  # the cells that rounding left over
        if left and ends[index] > widths[index]:
            widths[index] += 1
            left -= 1
    return spare - given + left


def _cut(columns: tuple[Column, ...], shown: Sequence[int], cells: int) -> tuple[int, ...]:
    widths: dict[int, int] = {}
    for index in shown:
        room = cells - sum(widths.values()) - len(widths)
        widths[index] = max(0, min(columns[index].least, room))
    return tuple(widths.get(index, 0) for index in range(len(columns)))
