"""The dialog in which a problem is acknowledged, with a note for others.

Not for: acknowledging (operator_actions.py).
"""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input

from appliance.ui.screens.base import BaseScreen
from appliance.ui.text import cut, printable, words_in
from appliance.ui.widgets.pane import Pane

_CELLS = 66
_TEXT = 320
"""Characters of the problem that are shown; its page has all of it."""
MAX_NOTE = 500


class AcknowledgeDialog(ModalScreen[str], BaseScreen[str]):
    """Its result is the note, which may be empty, or ``None``."""

    BINDINGS: ClassVar = [("escape", "leave")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = cut(printable(" ".join(text.split())), _TEXT)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            words = Pane()
            words.show(
                [
                    [("Acknowledge", "accent"), ("   until it happens again   Esc leaves", "dim")],
                    [],
                    *([(line, "strong")] for line in words_in(self._text, _CELLS)),
                ]
            )
            yield words
            yield Input(
                placeholder="note for others: who sees to it, a ticket (may be empty)",
                max_length=MAX_NOTE,
                id="note",
            )
            with Horizontal(classes="buttons"):
                yield Button("Acknowledge", id="acknowledge", variant="primary", compact=True)
                yield Button("Leave", id="leave", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#note", Input))

    def on_input_submitted(self) -> None:
        self._done()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "leave":
            self.dismiss(None)
        else:
            self._done()

    def _done(self) -> None:
        self.dismiss(self.query_one("#note", Input).value.strip())

    def action_leave(self) -> None:
        self.dismiss(None)
