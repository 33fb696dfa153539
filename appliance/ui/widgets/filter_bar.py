"""The input line for the filter: the list follows each key, Esc brings the old filter back.

A text that can't be read says under the line what is wrong; the list keeps the last filter that
could. Not for: how a text is read (filter_text.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.events import Key
from textual.message import Message
from textual.widgets import Input

from appliance.ui.filters import Filter, FilterError
from appliance.ui.text import words_in
from appliance.ui.widgets.pane import Pane

_MOST_LINES = 4
"""Lines of an error at most."""

_PROMPT = "plant/+/state  text  !not  client:x  task:x  state:failed  since:10m"


class FilterLine(Input):
    """What is typed behind Enter or Esc is not text of the filter, however quickly it comes.

    Textual sends such keys here until the focus has moved: they are kept for what gets it.
    """

    def __init__(self, submit: Callable[[str], bool], cancel: Callable[[], None]) -> None:
        """``submit`` says whether the text was taken."""
        super().__init__(placeholder=_PROMPT, id="filterinput", compact=True)
        self._submit = submit
        self._cancel = cancel
        self._is_over = False
        self._has_left = False
        self._kept: list[Key] = []

    def begin(self) -> None:
        """Keys are for this line again."""
        self._is_over = self._has_left = False
        self._kept.clear()

    def leave(self) -> None:
        """The focus has moved: hand on what was typed meanwhile, and what is still on its way."""
        self._has_left = True
        self.call_later(self._hand_on)  # by this widget: from a parent, no parent would get them

    async def _on_key(self, event: Key) -> None:
        if not self._is_over and event.key not in ("enter", "escape"):
            return  # Input's own
        event.stop()
        event.prevent_default()
        if self._is_over:
            self._kept.append(event)
            if self._has_left:
                self._hand_on()
        elif event.key == "escape":
            self._is_over = True
            self._cancel()
        else:
            self._is_over = self._submit(self.value)

    def _hand_on(self) -> None:
        kept, self._kept = self._kept, []
        target = self.screen.focused or self.screen
        for key in kept:
            if target is not self:
                target._forward_event(Key(key.key, key.character))  # noqa: SLF001 - as Textual does


class FilterBar(Horizontal):
    """Hidden until it is opened."""

    BINDINGS = [  # noqa: RUF012 - Textual's way to declare them
        Binding("up", "older", show=False),
        Binding("down", "newer", show=False),
    ]

    class Changed(Message):
        """A filter that can be read was typed."""

        def __init__(self, wanted: Filter) -> None:
            super().__init__()
            self.wanted = wanted

    class Closed(Message):
        """The bar was closed: with the confirmed filter and its text, or without one."""

        def __init__(self, wanted: Filter | None = None, source: str = "") -> None:
            super().__init__()
            self.wanted = wanted
            self.source = source

    def compose(self) -> ComposeResult:
        label = Pane(id="filterlabel")
        label.show([[(" filter ", "key")]])
        yield label
        yield FilterLine(self._submit, self._cancel)
        yield Pane(id="filtererror")

    def on_mount(self) -> None:
        self.display = False

    def open(
        self,
        source: str,
        history: Sequence[str],
        parse: Callable[[str], Filter],
        *,
        more: str = "",
    ) -> None:
        """Show the bar with the present filter in it, and the beginning of what is to follow.

        ``parse`` reads a text; it raises ``FilterError``.
        """
        self._history = [source, *(old for old in history if old != source)]
        self._at = 0
        self._parse = parse
        field = self.query_one(FilterLine)
        field.value = f"{source} {more}".strip()
        self.display = True
        field.begin()
        field.select_on_focus = not more  # what is typed replaces the old filter, or goes on
        self.screen.set_focus(field)  # at once: focus() would let keys pass that are typed fast
        field.cursor_position = len(field.value)

    def _read(self, source: str) -> Filter | None:
        """The filter, or ``None`` after saying what is wrong."""
        if not self.screen.is_current:
            return None  # the page has been left, and loses its widgets
        found, problem = None, ""
        try:
            found = self._parse(source)
        except FilterError as error:
            problem = str(error)
        pane = self.query_one("#filtererror", Pane)
        lines = words_in(f"✗ {problem}", self.app.size.width - 2)[:_MOST_LINES] if problem else []
        pane.show([[(f" {line}", "bad")] for line in lines])
        pane.display = bool(lines)
        return found

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.display and (wanted := self._read(event.value)) is not None:
            self.post_message(self.Changed(wanted))

    def leave(self) -> None:
        """The focus has moved to where keys are for now."""
        self.query_one(FilterLine).leave()

    def _submit(self, source: str) -> bool:
        if not self.display or (wanted := self._read(source)) is None:
            return False
        self._close(self.Closed(wanted, source))
        return True

    def _cancel(self) -> None:
        if self.display:
            self._close(self.Closed())

    def _close(self, message: Closed) -> None:
        self.display = False
        self.query_one("#filtererror", Pane).display = False
        self.post_message(message)

    def action_older(self) -> None:
        self._step(1)

    def action_newer(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        self._at = max(0, min(len(self._history) - 1, self._at + by))
        field = self.query_one(FilterLine)
        field.value = self._history[self._at]
        field.cursor_position = len(field.value)
