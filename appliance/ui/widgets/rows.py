"""A list with a cursor, drawn row by row: the base of every list on the screens.

The list draws only the rows in view, so 10,000 rows cost as much as 20. Strips are kept by
(key, version): at ten frames a second most rows are those of the frame before.
Not for: the source of the rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, Generic, TypeVar

from rich.style import Style
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from appliance.ui import keys
from appliance.ui.lines import Line, strip_of
from appliance.ui.strips import blank_strip
from appliance.ui.symbols import ACTIVE, CURSOR, CURSOR_ASIDE
from appliance.ui.widgets.pane import tones_of

T = TypeVar("T")

_KEPT_STRIPS = 400
_WHEEL_ROWS = 3


class Rows(Widget, Generic[T], can_focus=True):
    """A list of items, oldest or newest first as the caller orders them.

    While ``follow`` is true the cursor stays on the last row as rows come in.
    """

    BINDINGS = keys.bindings(keys.MOVE)

    ONE_OF_SEVERAL: ClassVar[bool] = False
    """Whether the page has another list too: the heading of the one with the focus is marked."""

    class Opened(Message):
        """A second click on a row (Enter is a key of the screen)."""

    class Moved(Message):
        """The cursor went to another row by a key or the mouse."""

    class LeftEnd(Message):
        """The operator moved up while the list followed its end."""

    class TitleChosen(Message):
        """A click on a title of the heading; ``key``: the ``Column.key`` of the column."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class AtEnd(Message):
        """The operator asked for the last row."""

    def __init__(self, *, follow: bool = False, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.follow = follow
        self._empty_text = ""
        self._items: Sequence[T] = ()
        self._cursor = 0
        self._top = 0
        self._strips: dict[tuple[Hashable, Hashable], Strip] = {}
        self._look: tuple[object, ...] = ()

    # --- what a list is made of: for subclasses ------------------------------------------------

    def key(self, item: T) -> Hashable:
        """The identity of the row when the list changes."""
        raise NotImplementedError

    def version(self, item: T) -> Hashable:  # noqa: ARG002 - for subclasses
        """Everything besides the key that the drawn row depends on; ``None``: keep no strip.

        Rows that show ages or rates keep none.
        """
        return None

    def line(self, item: T, cells: int) -> Line:
        """The row in ``cells`` cells."""
        raise NotImplementedError

    def heading(self, cells: int) -> Line | None:  # noqa: ARG002 - for subclasses
        """The row above the list, if it has one."""
        return None

    def title_at(self, cell: int, cells: int) -> str:  # noqa: ARG002 - for subclasses
        """The ``Column.key`` of the title at a cell of the heading; empty if it has none."""
        return ""

    def before_frame(self, visible: Sequence[T]) -> None:
        """Called once per frame with the rows in view, before the first one is drawn."""

    def has_cursor(self) -> bool:
        """Whether one row is marked as the chosen one."""
        return True

    # --- items and cursor ----------------------------------------------------------------------

    def set_items(self, items: Sequence[T]) -> None:
        """Show other rows; the cursor stays on its item, or at the end while following."""
        current = self.current
        self._items = items
        count = len(items)
        if self.follow:
            self._cursor = max(0, count - 1)
        elif current is not None:
            self._cursor = self._find(self.key(current), min(self._cursor, max(0, count - 1)))
        else:
            self._cursor = 0
        self.refresh()

    def _find(self, wanted: Hashable, default: int) -> int:
        if 0 <= default < len(self._items) and self.key(self._items[default]) == wanted:
            return default
        for index, item in enumerate(self._items):
            if self.key(item) == wanted:
                return index
        return default

    def select(self, wanted: Hashable) -> bool:
        """Put the cursor on the row with this key, if it is there."""
        index = self._find(wanted, len(self._items))
        is_there = index < len(self._items)
        if is_there:
            self._cursor = index
            self.refresh()
        return is_there

    @property
    def empty_text(self) -> str:
        """What is shown where there are no rows."""
        return self._empty_text

    @empty_text.setter
    def empty_text(self, text: str) -> None:
        if text != self._empty_text:
            self._empty_text = text
            self.refresh()

    @property
    def items(self) -> Sequence[T]:
        return self._items

    @property
    def current(self) -> T | None:
        """The item under the cursor."""
        return self._items[self._cursor] if self._cursor < len(self._items) else None

    @property
    def page(self) -> int:
        """Rows in view."""
        return max(1, self.size.height - (self.heading(self.size.width) is not None))

    @property
    def in_view(self) -> list[T]:
        """The items in view."""
        self._settle()
        last = min(len(self._items), self._top + self.page)
        return [self._items[index] for index in range(self._top, last)]

    def _settle(self) -> None:
        page, count = self.page, len(self._items)
        self._cursor = min(self._cursor, max(0, count - 1))
        self._top = max(min(self._top, self._cursor), self._cursor - page + 1)
        self._top = max(0, min(self._top, count - page))

    def _move(self, to: int) -> None:
        count = len(self._items)
        to = max(0, min(to, count - 1))
        if to < self._cursor and self.follow:
            self.follow = False
            self.post_message(self.LeftEnd())
        if to != self._cursor:
            self._cursor = to
            self.refresh()
            self.post_message(self.Moved())

    def action_up(self) -> None:
        self._move(self._cursor - 1)

    def action_down(self) -> None:
        self._move(self._cursor + 1)

    def action_page_up(self) -> None:
        self._move(self._cursor - self.page)

    def action_page_down(self) -> None:
        self._move(self._cursor + self.page)

    def action_first(self) -> None:
        self._move(0)

    def action_last(self) -> None:
        self._move(len(self._items) - 1)
        self.post_message(self.AtEnd())

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self._move(self._cursor - _WHEEL_ROWS)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self._move(self._cursor + _WHEEL_ROWS)

    def on_click(self, event: Click) -> None:
        row = event.y - (self.heading(self.size.width) is not None)
        if row < 0 and (key := self.title_at(event.x - 1, self.size.width - 1)):
            self.post_message(self.TitleChosen(key))
        index = self._top + row
        if row < 0 or index >= len(self._items):
            return
        if index == self._cursor and event.chain > 1:
            self.post_message(self.Opened())
        self._move(index)

    # --- drawing -------------------------------------------------------------------------------

    def render_lines(self, crop: Region) -> list[Strip]:
        """One frame: the styles are worked out once, not once a row."""
        base = self.rich_style
        tones = tones_of(self)
        look = (self.size.width, base, id(tones))
        if look != self._look or len(self._strips) > _KEPT_STRIPS:
            self._look = look
            self._strips.clear()
        visible = self.in_view
        self.before_frame(visible)
        heading = self.heading(self.size.width)
        strips = [] if heading is None else [self._heading_strip(heading, base, tones)]
        strips += [self._strip(index, item, base, tones) for index, item in enumerate(visible)]
        if not visible and self.empty_text:
            empty: Line = [(" ", ""), (self.empty_text, "dim")]
            strips.append(strip_of(empty, self.size.width, base, tones))
        blank = blank_strip(self.size.width, base)
        strips += [blank] * (crop.bottom - len(strips))
        strips = strips[crop.y : crop.bottom]
        if crop.x or crop.width < self.size.width:
            strips = [strip.crop(crop.x, crop.right) for strip in strips]
        return strips

    def _heading_strip(self, heading: Line, base: Style, tones: dict[str, Style]) -> Strip:
        active = self.ONE_OF_SEVERAL and self.has_focus
        mark = (ACTIVE, "accent") if active else (" ", "")
        return strip_of([mark, *heading], self.size.width, base + tones["head"], tones)

    def _strip(self, index: int, item: T, base: Style, tones: dict[str, Style]) -> Strip:
        cells = self.size.width
        if self.has_cursor() and self._top + index == self._cursor:
            line = self.line(item, cells - 1)
            if self.has_focus or not self.can_focus:
                marked = base + tones["cursor"]
                return strip_of([(CURSOR, "info"), *line], cells, marked, tones)
            return strip_of([(CURSOR_ASIDE, "dim"), *line], cells, base, tones)
        version = self.version(item)
        if version is None:
            return strip_of([(" ", ""), *self.line(item, cells - 1)], cells, base, tones)
        entry = (self.key(item), version)
        strip = self._strips.get(entry)
        if strip is None:
            strip = strip_of([(" ", ""), *self.line(item, cells - 1)], cells, base, tones)
            self._strips[entry] = strip
        return strip
