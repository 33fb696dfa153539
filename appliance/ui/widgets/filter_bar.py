"""The input line for the filter: the list follows each key, Esc brings the old filter back.

Not for: what a filter means (filters.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input

from appliance.ui import filters
from appliance.ui.widgets.pane import Pane

_PROMPT = "plant/+/state  text  !not  client:x  task:x  state:failed  since:10m"


class FilterBar(Horizontal):
    """Hidden until it is opened."""

    BINDINGS = [  # noqa: RUF012 - Textual's way to declare them
        Binding("escape", "cancel", show=False),
        Binding("up", "older", show=False),
        Binding("down", "newer", show=False),
    ]

    class Changed(Message):
        """A filter that can be read was typed."""

        def __init__(self, source: str) -> None:
            super().__init__()
            self.source = source

    class Closed(Message):
        """The bar was closed: ``source`` is the filter, ``kept`` whether it was confirmed."""

        def __init__(self, source: str, *, kept: bool) -> None:
            super().__init__()
            self.source = source
            self.kept = kept

    def compose(self) -> ComposeResult:
        yield Pane(id="filterlabel")
        yield Input(placeholder=_PROMPT, id="filterinput", compact=True)
        yield Pane(id="filtererror")

    def on_mount(self) -> None:
        self.display = False
        self.query_one("#filterlabel", Pane).show([[(" filter ", "key")]])

    def open(
        self, source: str, history: Sequence[str], now_ns: int, *, utc: bool, more: str = ""
    ) -> None:
        """Show the bar with the present filter in it, and the beginning of what is to follow."""
        self._before = source
        self._history = [source, *(old for old in history if old != source)]
        self._at = 0
        self._now_ns = now_ns
        self._utc = utc
        field = self.query_one(Input)
        field.value = f"{source} {more}".strip()
        self.display = True
        field.select_on_focus = not more  # what is typed replaces the old filter, or goes on
        self.screen.set_focus(field)  # at once: focus() would let keys pass that are typed fast
        field.cursor_position = len(field.value)

    def _check(self, source: str) -> bool:
        problem = ""
        try:
            filters.parse(source, self._now_ns, utc=self._utc)
        except filters.FilterError as error:
            problem = str(error)
        pane = self.query_one("#filtererror", Pane)
        pane.show([[(f" ✗ {problem}", "bad")]] if problem else [])
        pane.display = bool(problem)
        return not problem

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.display and self._check(event.value):
            self.post_message(self.Changed(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._check(event.value):
            self._close(event.value, kept=True)

    def action_cancel(self) -> None:
        self._close(self._before, kept=False)

    def _close(self, source: str, *, kept: bool) -> None:
        self.display = False
        self.query_one("#filtererror", Pane).display = False
        self.post_message(self.Closed(source, kept=kept))

    def action_older(self) -> None:
        self._step(1)

    def action_newer(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        self._at = max(0, min(len(self._history) - 1, self._at + by))
        field = self.query_one(Input)
        field.value = self._history[self._at]
        field.cursor_position = len(field.value)
