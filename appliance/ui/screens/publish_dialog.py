"""The dialog in which a message is written: topic, payload, QoS, retain.

Not for: publishing (operator_actions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, TextArea

from appliance.mqtt import topics
from appliance.ui.screens.base import BaseScreen
from appliance.ui.widgets.field import Field
from appliance.ui.widgets.pane import Pane


class Draft(NamedTuple):
    """A message as the operator wrote it."""

    topic: str
    payload: str
    qos: int
    retain: bool


class PublishDialog(ModalScreen[Draft], BaseScreen[Draft]):
    """Its result is the draft, or ``None``. Tab goes from field to field."""

    BINDINGS: ClassVar = [("escape", "leave"), ("up", "older"), ("down", "newer")]

    def __init__(
        self,
        topic: str,
        history: Sequence[str],
        drafts: Sequence[Draft],
        try_it: Callable[[Draft], None],
        *,
        qos: int = 0,
    ) -> None:
        """``history``: topics used before; ``drafts``: messages published before; newest first.

        ``try_it`` shows what the message would start; the dialog stays as it is.
        """
        super().__init__()
        self._topic = topic or (history[0] if history else "")
        self._history = list(history)
        self._drafts = drafts
        self._try_it = try_it
        self._at = -1
        self._qos = qos
        self._retain = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Pane(id="publish-title")
            suggester = SuggestFromList(self._history, case_sensitive=True)
            yield Field(
                self._topic,
                following="#payload-text",
                placeholder="topic",
                id="topic",
                suggester=suggester,
            )
            yield TextArea(id="payload-text", tab_behavior="focus")
            yield Pane(id="publish-problem")
            with Horizontal(classes="buttons"):
                yield Button(f"QoS {self._qos}", id="qos", compact=True)
                yield Button("retain: no", id="retain", compact=True)
                yield Button("Try", id="try", compact=True)
                yield Button("Publish", id="publish", variant="primary", compact=True)
                yield Button("Leave", id="leave", compact=True)

    def on_mount(self) -> None:
        self.query_one("#publish-title", Pane).show(
            [
                [
                    ("New message", "accent"),
                    ("   tab next field   ↑↓ earlier ones   Esc leaves", "dim"),
                ]
            ]
        )
        self.set_focus(self.query_one("#topic", Input))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        button = event.button
        if button.id == "qos":
            self._qos = (self._qos + 1) % 3
            self._label()
        elif button.id == "retain":
            self._retain = not self._retain
            self._label()
        elif button.id == "leave":
            self.dismiss(None)
        elif (draft := self._draft()) is None:
            return
        elif button.id == "try":
            self._try_it(draft)
        else:
            self.dismiss(draft)

    def _draft(self) -> Draft | None:
        """What is written; ``None``, and the problem is shown, if it is no message."""
        topic = self.query_one("#topic", Input).value
        problem = topics.topic_problem(topic)
        if problem is not None:
            pane = self.query_one("#publish-problem", Pane)
            pane.show([[(f"✗ topic: {problem}", "bad")]])
            return None
        text = self.query_one(TextArea).text
        return Draft(topic, text, self._qos, self._retain)

    def action_older(self) -> None:
        self._recall(self._at + 1)

    def action_newer(self) -> None:
        self._recall(self._at - 1)

    def _recall(self, at: int) -> None:
        """Fill the fields with a message that was published before."""
        if not 0 <= at < len(self._drafts):
            return
        self._at = at
        draft = self._drafts[at]
        self.query_one("#topic", Input).value = draft.topic
        self.query_one(TextArea).text = draft.payload
        self._qos, self._retain = draft.qos, draft.retain
        self._label()

    def _label(self) -> None:
        self.query_one("#qos", Button).label = f"QoS {self._qos}"
        self.query_one("#retain", Button).label = f"retain: {'yes' if self._retain else 'no'}"
