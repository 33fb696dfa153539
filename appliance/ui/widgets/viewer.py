"""Lines that are scrolled with the same keys as a list, without a cursor row.

Not for: lists of things.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from appliance.ui.lines import Line, rule
from appliance.ui.widgets.rows import Rows


class Viewer(Rows[tuple[int, Line]]):
    """Shows any number of lines; up and down scroll."""

    def key(self, item: tuple[int, Line]) -> Hashable:
        return item[0]

    def version(self, item: tuple[int, Line]) -> Hashable:  # noqa: ARG002 - a line is drawn as it is
        return None

    def line(self, item: tuple[int, Line], cells: int) -> Line:  # noqa: ARG002 - cut when drawn
        return item[1]

    @property
    def place(self) -> str:
        """Which lines are in view, if not all: ``1-8 of 15``."""
        count = len(self._items)
        last = min(count, self._top + self.page)
        return f"{self._top + 1}-{last} of {count}" if self.page < count else ""

    def show(self, lines: Sequence[Line]) -> None:
        """Show other lines; the place is kept as far as there are lines."""
        items = list(enumerate(lines))
        if items != self._items:
            self._items = items
            self.refresh()

    def _settle(self) -> None:
        self._top = max(0, min(self._top, len(self._items) - self.page))
        self._cursor = self._top

    def _move(self, to: int) -> None:
        top = max(0, min(to, len(self._items) - self.page))
        if top != self._top:
            self._top = self._cursor = top
            self.refresh()

    def has_cursor(self) -> bool:
        return False


class TitledViewer(Viewer):
    """A viewer beside a list, with a title that says which of its lines are in view."""

    ONE_OF_SEVERAL = True

    def __init__(self, title: str, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._title = title

    @property
    def page(self) -> int:
        return max(1, self.size.height - 1)

    def line(self, item: tuple[int, Line], cells: int) -> Line:  # noqa: ARG002 - cut when drawn
        """Lines of panes begin with a blank, where a list has its cursor."""
        (text, tone), *rest = item[1]
        return [(text.removeprefix(" "), tone), *rest]

    def heading(self, cells: int) -> Line | None:
        place = self.place
        right: Line | None = [(f"{place}, tab and ↑↓", "dim")] if place else None
        return rule([(self._title, "head")], cells - 1, right)
