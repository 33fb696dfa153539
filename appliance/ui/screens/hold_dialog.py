"""The dialog in which something is held for a maintenance window, or released.

Not for: holding it (operator_actions.py), what can be held (hold_targets.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input

from appliance.engine_api import HoldState
from appliance.problems import held_text
from appliance.ui import formats, hold_end
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line
from appliance.ui.screens.base import BaseScreen
from appliance.ui.text import cut, printable, words_in
from appliance.ui.widgets.field import Field
from appliance.ui.widgets.pane import Pane

_CELLS = 66
MAX_REASON = 200
_MOMENT_CELLS = len("2026-12-01 06:00:00")


_MEANING = {
    "everything": "No task is started",
    "task": "It is not started",
    "trigger": "What it asks for is not started",
    "timer": "What it asks for is not started",
}


class Wish(NamedTuple):
    """What an operator wants."""

    target: Target
    is_release: bool = False
    until_ns: int | None = None
    reason: str = ""
    drop: bool = False


class HoldDialog(ModalScreen[Wish], BaseScreen[Wish]):
    """Its result is the wish, or ``None``. The first target is chosen at first."""

    BINDINGS: ClassVar = [("escape", "leave"), ("up", "choose(-1)"), ("down", "choose(1)")]

    def __init__(
        self,
        targets: Sequence[Target],
        holds: Sequence[HoldState],
        clock_ns: Callable[[], int],
        *,
        utc: bool,
    ) -> None:
        """``holds``: what is held now; ``utc``: whether times of day are in UTC."""
        super().__init__()
        self._targets = tuple(dict.fromkeys(targets))
        self._holds = {(one.kind, one.name): one for one in holds}
        self._clock_ns = clock_ns
        self._utc = utc
        self._at = 0
        self._drop = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Pane(id="hold-what")
            yield Field(
                following="#hold-reason",
                placeholder=f"until: {hold_end.FORMS}; empty: till released",
                id="hold-end",
            )
            yield Input(placeholder="reason, for others", max_length=MAX_REASON, id="hold-reason")
            yield Pane(id="hold-problem")
            with Horizontal(classes="buttons"):
                yield Button("", id="drop", compact=True)
                yield Button("Hold", id="hold", variant="primary", compact=True)
                yield Button("Release", id="release", variant="primary", compact=True)
                yield Button("Leave", id="leave", compact=True)

    def on_mount(self) -> None:
        self._fill()
        self._show_target()
        held = self._held
        self.set_focus(
            self.query_one("#hold-end", Input)
            if held is None
            else self.query_one("#release", Button)
        )

    @property
    def _target(self) -> Target:
        return self._targets[self._at]

    @property
    def _held(self) -> HoldState | None:
        return self._holds.get(self._target[:2])

    def action_choose(self, step: int) -> None:
        """Go to another of the things that can be held."""
        was_held = self._held is not None
        self._at = (self._at + step) % len(self._targets)
        if was_held or self._held is not None:
            self._fill()
        self._show_target()

    def _fill(self) -> None:
        """Begin with what is held now."""
        held, end, reason = self._held, "", ""
        if held is not None:
            reason = printable(held.reason)
            if held.until_ns is not None:
                end = formats.date_and_time(held.until_ns, utc=self._utc)[:_MOMENT_CELLS]
        self._drop = held is not None and held.drop
        self.query_one("#hold-end", Input).value = end
        self.query_one("#hold-reason", Input).value = reason

    def _show_target(self) -> None:
        target, held = self._target, self._held
        keys = "   tab next field   Esc leaves"
        if len(self._targets) > 1:
            keys = f"   ↑↓ something else ({self._at + 1}/{len(self._targets)}){keys}"
        lines: list[Line] = [
            [("Hold", "accent"), (keys, "dim")],
            [],
            [(cut(target.shown, _CELLS), "strong")],
        ]
        words = "It is disconnected, and can't connect meanwhile."
        if held is not None:
            words = f"It is held {held_text(held, self._clock_ns())}."
        elif target.kind != "client":
            fate = "are dropped" if self._drop else "wait, and are merged as the rules say"
            words = f"{_MEANING[target.kind]} meanwhile. Starts that are asked for {fate}."
        lines += [[(line, "info")] for line in words_in(printable(words), _CELLS)]
        self.query_one("#hold-what", Pane).show([*lines, []])
        drop = self.query_one("#drop", Button)
        drop.display = target.kind != "client"
        drop.label = f"starts meanwhile: {'are dropped' if self._drop else 'wait'}"
        self.query_one("#release", Button).display = held is not None
        self.query_one("#hold", Button).label = "Hold" if held is None else "Change"
        self.query_one("#leave", Button).display = held is None  # there is no room; Esc leaves

    def on_input_submitted(self) -> None:
        self._hold()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        match event.button.id:
            case "drop":
                self._drop = not self._drop
                self._show_target()
            case "hold":
                self._hold()
            case "release":
                self.dismiss(Wish(self._target, is_release=True))
            case _:
                self.dismiss(None)

    def _hold(self) -> None:
        text = self.query_one("#hold-end", Input).value
        try:
            end_ns = hold_end.parse(text, self._clock_ns(), utc=self._utc)
        except hold_end.HoldEndError as error:
            lines = words_in(printable(f"✗ {error}"), _CELLS)
            self.query_one("#hold-problem", Pane).show([[(line, "bad")] for line in lines])
            self.set_focus(self.query_one("#hold-end", Input))
            return
        reason = self.query_one("#hold-reason", Input).value.strip()
        drop = self._drop and self._target.kind != "client"
        self.dismiss(Wish(self._target, until_ns=end_ns, reason=reason, drop=drop))

    def action_leave(self) -> None:
        self.dismiss(None)
