"""Lines that are scrolled with the same keys as a list, without a cursor row.

Not for: lists of things.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from appliance.ui.lines import Line
from appliance.ui.widgets.rows import Rows


class Viewer(Rows[tuple[int, Line]]):
    """Shows any number of lines; up and down scroll."""

    def key(self, item: tuple[int, Line]) -> Hashable:
        return item[0]

    def version(self, item: tuple[int, Line]) -> Hashable:  # noqa: ARG002 - a line is drawn as it is
        return None

    def line(self, item: tuple[int, Line], cells: int) -> Line:  # noqa: ARG002 - cut when drawn
        return item[1]

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
