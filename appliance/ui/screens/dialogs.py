"""What lies over a screen for a moment: a question, a text, the help, "terminal too small".

Not for: anything that shows state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Click
from textual.events import Key as KeyEvent
from textual.screen import ModalScreen
from textual.widgets import Button

from appliance.ui import keys
from appliance.ui.lines import Line
from appliance.ui.screens.leaving import Leaving
from appliance.ui.text import fit, printable, wrap
from appliance.ui.views.frame import MIN_COLUMNS, MIN_ROWS
from appliance.ui.widgets.pane import Pane

_TEXT_CELLS = 66


class Ask(ModalScreen[bool], Leaving[bool]):
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
            lines = [piece for part in self._question.split("\n") for piece in _words(part)]
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


def _words(text: str, cells: int = _TEXT_CELLS) -> list[str]:
    """Break at blanks; a word that is longer than the line is broken where it must be."""
    lines = [""]
    for word in printable(text).split(" "):
        candidate = f"{lines[-1]} {word}".strip() if lines[-1] else word
        if len(candidate) <= cells:
            lines[-1] = candidate
        else:
            lines += wrap(word, cells)
    return lines


class Tell(ModalScreen[None], Leaving[None]):
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


def told(text: str) -> list[Line]:
    """A text broken into lines for ``Tell``."""
    return [[(line, "")] for part in text.split("\n") for line in _words(part)]


class TooSmall(ModalScreen[None]):
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
            [[(line, tone)] for text, tone in texts for line in _words(text, columns)][:rows]
        )


_TITLES = {
    keys.EVERYWHERE: "Everywhere",
    keys.MOVE: "Moving",
    keys.LISTS: "Lists",
    keys.FOLLOW: "Live and log",
    keys.ACTING: "Acting",
    keys.REPEAT: "",
    keys.SORTED: "",
    keys.RUNS: "Runs",
    keys.LIVE: "Live",
    keys.DETAIL: "Message",
    keys.TOPICS: "Topics",
    keys.TASKS: "Tasks",
    keys.EXECUTION: "Execution",
    keys.CLIENTS: "Clients",
    keys.LOG: "Log",
    keys.SEARCH: "Search",
}
_KEY_CELLS = 13
_COLUMN_CELLS = 38


def help_lines(
    places: Sequence[str], chosen: Mapping[str, tuple[str, ...]], columns: int
) -> list[Line]:
    """The table of keys, the present screen's places first, in columns."""
    blocks: list[list[Line]] = []
    for place in dict.fromkeys([*places, keys.EVERYWHERE]):
        entries = keys.of(place)
        if not entries:
            continue
        title = _TITLES[place]
        if not title and blocks:
            blocks[-1].pop()  # it belongs to the block before
        block: list[Line] = [[(title, "head")]] if title else blocks.pop()
        for text, group in groupby(entries, key=lambda key: key.help):
            shown = [keys.shown(one) for key in group for one in keys.keys_of(key, chosen)]
            block.append([(fit(" ".join(shown), _KEY_CELLS), "key"), (fit(text, 24), "")])
        blocks.append([*block, []])
    return _in_columns(blocks, max(1, columns // (_COLUMN_CELLS)))


def _in_columns(blocks: list[list[Line]], count: int) -> list[Line]:
    stacks: list[list[Line]] = [[] for _ in range(count)]
    for block in blocks:
        min(stacks, key=len).extend(block)
    lines: list[Line] = []
    for index in range(max(len(stack) for stack in stacks)):
        line: Line = []
        for stack in stacks:
            cell = stack[index] if index < len(stack) else []
            used = sum(len(text) for text, _ in cell)
            line += [*cell, (" " * max(1, _COLUMN_CELLS - used), "")]
        lines.append(line)
    while lines and not any(text.strip() for text, _ in lines[-1]):
        lines.pop()
    return lines


_SIGNS = (
    ("✓", "ok", "done"),
    ("✗", "bad", "failed"),
    ("▶", "run", "running"),
    ("▷", "info", "starting"),
    ("◌", "info", "waiting"),
    ("↻", "warn", "retry"),
    ("»", "dim", "skipped"),
    ("‖", "warn", "paused"),
)
SIGNS: list[Line] = [
    [],
    [part for sign, tone, word in _SIGNS for part in ((sign, tone), (f" {word} ", "dim"))],
    [("Keys are set in the configuration, [ui.keys]. NO_COLOR is honoured.", "dim")],
]
