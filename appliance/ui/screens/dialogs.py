"""Dialogs over a page: a question, a text to read, "terminal too small".

Not for: dialogs with a task of their own (task_picker.py, publish_dialog.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Click
from textual.events import Key as KeyEvent
from textual.screen import ModalScreen
from textual.widgets import Button

from appliance.ui.lines import Line
from appliance.ui.screens.base import BaseScreen
from appliance.ui.text import printable, words_in
from appliance.ui.views.page_frame import MIN_COLUMNS, MIN_ROWS
from appliance.ui.widgets.pane import Pane

_TEXT_CELLS = 66


class ConfirmDialog(ModalScreen[bool], BaseScreen[bool]):
    """A question before something that can't be taken back. Enter alone does nothing bad."""

    BINDINGS: ClassVar = [
        ("y", "answer(True)"),
        ("n,escape,q", "answer(False)"),
        ("left,right,h,l", "other"),
    ]

    def __init__(self, question: str, yes: str, no: str = "No, go back") -> None:
        super().__init__()
        self._question = question
        self._yes = yes
        self._no = no

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            lines = [
                piece
                for part in self._question.split("\n")
                for piece in words_in(part, _TEXT_CELLS)
            ]
            question = Pane()
            question.show([[(printable(line), "strong")] for line in lines])
            yield question
            with Horizontal(classes="buttons"):
                yield Button(f"y  {self._yes}", id="yes", variant="error", compact=True)
                yield Button(f"n  {self._no}", id="no", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#no", Button))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)

    def action_other(self) -> None:
        self.focus_next()


class InfoDialog(ModalScreen[None], BaseScreen[None]):
    """A text to read; any key closes it."""

    def __init__(self, title: str, lines: Sequence[Line]) -> None:
        super().__init__()
        self._title = title
        self._lines = lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide-dialog"):
            pane = Pane()
            pane.show([[(self._title, "accent"), ("   any key closes", "dim")], [], *self._lines])
            yield pane

    def on_key(self, event: KeyEvent) -> None:
        if not self.is_current:
            return  # the key came after the one that closed this: it is for the screen below
        event.stop()
        event.prevent_default()
        self.dismiss()

    def on_click(self, event: Click) -> None:
        event.stop()
        self.dismiss()


def text_lines(text: str) -> list[Line]:
    """A text broken into lines for ``InfoDialog``."""
    return [[(line, "")] for part in text.split("\n") for line in words_in(part, _TEXT_CELLS)]


class TerminalTooSmall(ModalScreen[None], BaseScreen[None]):
    """Covers everything while the terminal is smaller than the screens need."""

    BINDINGS: ClassVar = [("q,ctrl+c", "app.ask_quit")]

    def compose(self) -> ComposeResult:
        yield Pane(id="toosmall")

    def on_resize(self) -> None:
        """Word it so that it fits: the most needed first, each line broken at blanks."""
        columns, rows = self.app.size
        texts = (
            (f"Too small: {columns}x{rows}", "warn"),
            (f"Needs {MIN_COLUMNS}x{MIN_ROWS}", ""),
            ("The appliance runs on.", "dim"),
            ("q asks to stop it.", "dim"),
        )
        self.query_one(Pane).show(
            [[(line, tone)] for text, tone in texts for line in words_in(text, columns)][:rows]
        )
