"""The base of every page: status line, tabs, alert, footer, filter bar.

Not for: the body between them; subclasses add it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.events import Click
from textual.widget import Widget

from appliance.engine_api import Snapshot
from appliance.ui import filter_text, filters, keys
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line
from appliance.ui.screens.base import BaseScreen
from appliance.ui.screens.page_host import PageHost
from appliance.ui.text import cut, printable
from appliance.ui.views import page_frame
from appliance.ui.widgets.filter_bar import FilterBar
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows

_FILTER, _FILTER_BESIDE_WHO = 40, 18
"""Cells of the filter in the line of screens; fewer in a small terminal that is attached."""


class Tabs(Pane):
    """The line of screens; a click on one shows it."""

    places: tuple[page_frame.Place, ...] = ()

    async def on_click(self, event: Click) -> None:
        for start, end, name in self.places:
            if start <= event.x < end:
                await self.app.run_action(f"show('{name}')")


class Footer(Pane):
    """The line of keys; a click on one does what the key does."""

    entries: tuple[tuple[int, int, keys.Key], ...] = ()
    """First cell, the cell after the last, and the key."""

    def on_click(self, event: Click) -> None:
        page = self.screen
        for start, end, key in self.entries:
            if start <= event.x < end and isinstance(page, Page):
                page.host.press(key)


class Page(BaseScreen[None]):
    """A screen over the whole terminal; the app calls ``tick`` for each frame."""

    SCOPES: ClassVar[tuple[str, ...]] = ()
    """The scopes of the table of keys that belong to this page, in the order of the footer."""

    TAB: ClassVar[str] = ""
    """The tab that the page is; a page over a tab sets ``tab`` instead."""

    AUTO_FOCUS: ClassVar[str] = "Rows"
    """The list that has the focus at first."""

    EXPORTED: ClassVar[str] = ""
    """What the rows of that list are, in the name of the file that they are exported to."""

    FILTER_WORDS: ClassVar[tuple[str, ...]] = filter_text.WORDS
    """What the page's filter can ask for."""

    FILTERED: ClassVar[str] = "here"
    """Where a filter looks, for the error about a word that the page can't ask for."""

    IS_TAB: ClassVar[bool] = True
    """Whether the page is a tab; if not, it lies over one and can be dismissed."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (page_frame.WIDE, "-wide")]  # noqa: RUF012 - Textual's way
    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]  # noqa: RUF012 - Textual's way

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.BINDINGS = keys.bindings(*cls.SCOPES, without=keys.MOVE)  # lists bind those
        super().__init_subclass__(**kwargs)

    def __init__(self, host: PageHost) -> None:
        super().__init__()
        self.host = host
        self.filter = filters.EMPTY
        self._filter_before = filters.EMPTY
        """The filter that Esc in the filter bar brings back."""
        self._focus_before: Widget | None = None
        """What had the focus when the filter bar was opened."""
        self.tab = self.TAB
        self._hidden_by_zoom: list[Widget] = []
        """The widgets that are hidden while one pane has the whole page."""
        self.has_shown = False
        """Whether the page has shown a frame."""

    def compose(self) -> ComposeResult:
        yield Pane(id="status", classes="bar")
        yield Tabs(id="tabs", classes="bar")
        yield Pane(id="alert", classes="bar")
        yield from self.body()
        yield FilterBar(id="filterbar")
        yield Footer(id="footer", classes="bar")

    # --- for subclasses ------------------------------------------------------------------------

    def body(self) -> Iterable[Widget]:
        """The widgets between the tabs and the footer."""
        return ()

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        """Show the snapshot in the body."""

    @property
    def footer_scopes(self) -> tuple[str, ...]:
        """The scopes whose keys the footer shows, those that work on the present row first."""
        return self.SCOPES

    def mode(self) -> Line:
        """The text at the right end of the tab line, besides the filter."""
        return []

    def filter_changed(self) -> None:
        """``self.filter`` has changed."""

    def choose_title(self, key: str) -> None:
        """Do what a click on the title of a column means, mostly: sort by that column."""

    def action_open(self) -> None:
        """Show more of the row under the cursor."""

    def choose(self, name: str) -> None:
        """Put the cursor on what has this name, where the page has such things."""

    def action_export(self) -> None:
        """Write the rows of the first list to a file."""
        self.host.export(self.EXPORTED, list(self.query_one(self.AUTO_FOCUS, Rows).items))

    def hold_targets(self) -> Sequence[Target]:
        """What can be held of the row that keys act on, the nearest first."""
        return ()

    def action_run_task(self) -> None:
        """Pick a task and start it."""
        self.host.actions.run_task()

    def action_publish(self) -> None:
        """Write a message."""
        self.host.actions.publish()

    # --- the frame -----------------------------------------------------------------------------

    def zoom(self) -> None:
        """Give the whole page to the focused pane, or show all panes again."""
        for widget in self._hidden_by_zoom:
            widget.remove_class("-aside")
        focused = self.focused
        if self._hidden_by_zoom or focused is None:
            self._hidden_by_zoom = []
            return
        kept = focused.ancestors_with_self
        self._hidden_by_zoom = [
            widget
            for parent in kept
            if isinstance(parent, Widget) and parent is not focused
            for widget in parent.children
            if widget not in kept and not widget.has_class("bar") and widget.id != "filterbar"
        ]
        for widget in self._hidden_by_zoom:
            widget.add_class("-aside")
        self.call_after_refresh(self.host.show_now)

    def tick(self, snapshot: Snapshot, now_ns: int) -> None:
        """Show the snapshot: status line, tabs, alert, footer and body."""
        if not self.is_mounted or not self.size.width:
            return
        if not self.query("#status"):
            return  # it is being left, or the program ends: its widgets have gone already
        cells = self.size.width
        utc = self.host.remembered.utc
        self.query_one("#status", Pane).show([page_frame.status(snapshot, now_ns, cells, utc=utc)])
        tabs = self.query_one(Tabs)
        who = page_frame.identity(snapshot)
        line, tabs.places = page_frame.tabs(
            self.tab,
            cells,
            self._right(_FILTER_BESIDE_WHO if who and cells < page_frame.WIDE else _FILTER),
            who,
        )
        tabs.show([line])
        chosen = self.host.settings.keys
        key = keys.shown_for("problems", chosen)
        worst = page_frame.alert(snapshot, cells, key, self.host.trouble)
        alert = self.query_one("#alert", Pane)
        alert.display = worst is not None
        alert.show([worst] if worst is not None else [])
        footer = self.query_one(Footer)
        line, footer.entries = page_frame.footer(self.footer_scopes, chosen, cells)
        footer.show([line])
        self.update_body(snapshot, now_ns)
        self.has_shown = True

    def _right(self, filter_cells: int) -> Line:
        mode = self.mode()
        if self._hidden_by_zoom:
            mode = [("ZOOM  ", "info"), *mode]
        if self.filter.is_empty:
            return mode
        words: Line = [
            (" filter ", "dim"),
            (cut(printable(filter_text.text_of(self.filter)), filter_cells), "warn"),
        ]
        return [*words, ("  ", ""), *mode] if mode else words

    def on_rows_moved(self) -> None:
        self.host.show_now()

    def on_rows_title_chosen(self, event: Rows.TitleChosen) -> None:
        self.choose_title(event.key)

    def on_rows_opened(self) -> None:
        self.action_open()

    def on_screen_resume(self) -> None:
        self.host.show_now()

    def on_resize(self) -> None:
        self.call_after_refresh(self.host.show_now)

    # --- filter --------------------------------------------------------------------------------

    def parse_filter(self, source: str) -> filters.Filter:
        """The filter that a text means on this page. Raises ``FilterError``."""
        return filter_text.parse(
            source,
            self.host.clock_ns(),
            utc=self.host.remembered.utc,
            words=self.FILTER_WORDS,
            where=self.FILTERED,
        )

    def action_filter(self, more: str = "") -> None:
        """Open the filter bar; ``more`` stands behind the present filter."""
        bar = self.query_one(FilterBar)
        if bar.display:
            return
        self._filter_before = self.filter
        self._focus_before = self.focused
        text = filter_text.text_of(self.filter)
        bar.open(text, self.host.remembered.filters, self.parse_filter, more=more)

    def use_filter(self, wanted: filters.Filter) -> None:
        """Use another filter."""
        self.filter = wanted
        self.filter_changed()
        self.host.show_now()

    def on_filter_bar_changed(self, event: FilterBar.Changed) -> None:
        self.use_filter(event.wanted)

    def on_filter_bar_closed(self, event: FilterBar.Closed) -> None:
        if event.wanted is None:
            self.use_filter(self._filter_before)
        else:
            self.use_filter(event.wanted)
            self.host.remember_filter(event.source.strip())
        self.focus_body()
        self.query_one(FilterBar).leave()

    def focus_body(self) -> None:
        """Focus what had the focus before the filter bar, else the main list."""
        before, self._focus_before = self._focus_before, None
        main = self.query(self.AUTO_FOCUS)
        for widget in (before, main.first() if main else None, *self.query("Rows")):
            if widget is not None and widget.is_attached and widget.display:
                self.set_focus(widget)
                return

    def go_back(self) -> None:
        """Go back to the page that led here, else clear the filter, else leave this page."""
        if self.IS_TAB and self.host.navigation.go_back():
            return
        if not self.filter.is_empty:
            self.use_filter(filters.EMPTY)
        elif not self.IS_TAB:
            self.dismiss()
