"""The help over a page: a long text that the keys of lists scroll; any other key closes it.

Not for: the text (views/key_help.py), texts of a few lines (dialogs.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Click
from textual.events import Key as KeyEvent
from textual.screen import ModalScreen

from appliance.ui import keys
from appliance.ui.lines import Line
from appliance.ui.screens.base import BaseScreen
from appliance.ui.views.page_frame import WIDE
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.viewer import Viewer

CELLS = 75
WIDE_CELLS = 113
"""Cells of a line, in a narrow and in a wide terminal."""


class HelpDialog(ModalScreen[None], BaseScreen[None]):
    """Shows the lines it is given."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - Textual's way

    def __init__(self, lines: Sequence[Line], chosen: Mapping[str, tuple[str, ...]]) -> None:
        """``chosen``: keys of the configuration."""
        super().__init__()
        self._lines = lines
        self._scrolls = {
            one: f"action_{key.action}"
            for key in keys.of(keys.MOVE)
            for one in keys.keys_of(key, chosen)
        }

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog help-dialog"):
            yield Pane(id="help-title")
            yield Viewer(id="help")

    def on_mount(self) -> None:
        viewer = self.query_one(Viewer)
        viewer.can_focus = False  # the keys come here
        viewer.styles.height = min(len(self._lines), max(1, self.app.size.height - 3))
        viewer.show(self._lines)
        self._show_title()

    def _show_title(self) -> None:
        viewer = self.query_one(Viewer)
        more = len(self._lines) > self.app.size.height - 3
        scrolls = "   ↑↓ PgUp PgDn scroll, another key closes" if more else "   any key closes"
        viewer.refresh()
        self.query_one("#help-title", Pane).show([[("Help", "accent"), (scrolls, "dim")]])

    def on_resize(self) -> None:
        if self.is_mounted:
            self.on_mount()

    def on_key(self, event: KeyEvent) -> None:
        if not self.is_current:
            return  # the key came after the one that closed this: it is for the screen below
        event.stop()
        event.prevent_default()
        scroll = self._scrolls.get(event.key)
        if scroll is None:
            self.dismiss()
        else:
            getattr(self.query_one(Viewer), scroll)()

    def on_click(self, event: Click) -> None:
        event.stop()
        self.dismiss()
