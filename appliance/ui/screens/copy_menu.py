"""What can be copied as a piece of the configuration: a small menu, and the copying.

Not for: what the pieces are (copy_blocks.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import Key as KeyEvent
from textual.screen import ModalScreen
from textual.widgets import Button

from appliance.engine_api import Snapshot
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.ui import copy_blocks
from appliance.ui.screens.base import BaseScreen
from appliance.ui.screens.operator_actions import ActionHost
from appliance.ui.text import cut, printable
from appliance.ui.widgets.pane import Pane

_CELLS = 60
_TOPIC_CELLS = 40
_TABLES = (("t", "trigger", copy_blocks.trigger), ("r", "recorder", copy_blocks.recorder))
"""The key, the name and the maker of each table for a topic."""


class Piece(NamedTuple):
    """Something that can be copied."""

    key: str
    """The key in the menu."""
    label: str
    """In the menu, for example ``"a [[trigger]] for this topic"``."""
    text: str
    """What is copied."""


class CopyHost(ActionHost, Protocol):
    """What copying needs of the app."""

    snapshot: Snapshot

    def copy(self, text: str, what: str) -> None:
        """Put ``text`` on the clipboard of the operator's terminal; ``what`` names it."""


class CopyMenu(ModalScreen[int], BaseScreen[int]):
    """Asks which piece; its result is the number of the piece, from 0."""

    BINDINGS = [  # noqa: RUF012 - Textual's way
        ("escape,q", "leave"),
        ("up,k,shift+tab", "app.focus_previous"),
        ("down,j,tab", "app.focus_next"),
    ]

    def __init__(self, title: str, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._title = title
        self._pieces = pieces

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            title = Pane()
            title.show([[(cut(printable(self._title), _CELLS), "strong")]])
            yield title
            for number, piece in enumerate(self._pieces):
                label = Content(f"{piece.key}  {cut(printable(piece.label), _CELLS)}")
                yield Button(label, id=f"piece-{number}", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query(Button).first(Button))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(int((event.button.id or "-0").partition("-")[2]))

    def on_key(self, event: KeyEvent) -> None:
        for number, piece in enumerate(self._pieces):
            if event.key == piece.key:
                event.stop()
                self.dismiss(number)


def offer(host: CopyHost, title: str, pieces: Sequence[Piece]) -> None:
    """Let the operator choose a piece, and copy it."""

    def chosen(number: int | None) -> None:
        if number is not None:
            host.copy(pieces[number].text, pieces[number].label)

    host.push_screen(CopyMenu(title, pieces), chosen)


def offer_blocks(
    host: CopyHost, topic: str, message: Message | None, *, itself: bool = True, below: bool = False
) -> None:
    """Offer the tables for a topic itself, and for it with all that is below.

    ``message``: one of the topic, perhaps cut; its payload is read in full.
    """
    topics = [topic] * itself + [f"{topic}/#"] * below
    cut_off = message is not None and host.engine.full_size(message.seq) is not None

    def payload() -> bytes | None:
        if message is None or not cut_off:
            return None if message is None else message.payload
        try:
            whole = host.engine.message(message.seq)
        except ApplianceError:  # the blocks are as good without it
            whole = None
        return None if whole is None else whole.payload

    then = partial(_offer_blocks, host, topics)
    if cut_off:
        host.background.fetch(payload, then, group="copy")
    else:
        then(payload())


def _offer_blocks(host: CopyHost, topics: Sequence[str], payload: bytes | None) -> None:
    pieces = []
    for topic in topics:
        is_branch = topic.endswith("#")
        its_payload = None if is_branch else payload
        for key, table, make in _TABLES:
            try:
                text = make(topic, its_payload, host.snapshot)
            except copy_blocks.NoBlockError as error:
                host.say(str(error), bad=True)
                return
            what = f"a [[{table}]] for {cut(printable(topic), _TOPIC_CELLS)}"
            pieces.append(Piece(key.upper() if is_branch else key, what, text))
    offer(host, "Copy for the configuration:", pieces)


def offer_selectors(host: CopyHost, task_id: str, name: str, tags: Sequence[str] = ()) -> None:
    """Offer the ways in which a rule or timer can name a task."""
    pieces = [
        Piece(str(number), f"the task by {how}", text)
        for number, (how, text) in enumerate(
            copy_blocks.selectors(task_id, name, tags[:7]).items(), 1
        )
    ]
    if pieces:
        offer(host, f"Copy for the configuration: {name or task_id}", pieces)
    else:
        host.say("No rule can name this task.")
