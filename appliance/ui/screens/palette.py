"""The command palette: Textual's, made safe for keys and clicks that come faster than it works.

Not for: the commands (app.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from textual import work
from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.command import CommandList, CommandPalette
from textual.css.query import NoMatches
from textual.events import Click
from textual.worker import Worker

from appliance.ui.screens.base import BaseScreen


@contextmanager
def _list_that_changed() -> Iterator[None]:
    """Textual 8.2 looks up a row by the list as it was drawn, which may be longer or empty now.

    Or the list itself is not there: not yet, or not any more.
    """
    try:
        yield
    except (IndexError, KeyError, NoMatches):
        return


class Commands(CommandList):
    """A click on a row that has gone does nothing."""

    async def _on_click(self, event: Click) -> None:
        event.prevent_default()  # or Textual would call the handler of the base again
        with _list_that_changed():
            await super()._on_click(event)


class Palette(CommandPalette, BaseScreen[None]):
    """Leaves once, whatever else is on its way to it."""

    def compose(self) -> ComposeResult:
        for widget in super().compose():
            yield Commands() if type(widget) is CommandList else widget

    def dismiss(self, result: None = None) -> AwaitComplete:
        return BaseScreen.dismiss(self, result)

    def _gather_commands(self, search_value: str) -> Worker[None] | None:  # type: ignore[override]
        """Look for commands, unless the palette has been left."""
        return self._gather(search_value) if self.app.screen is self else None

    @work(exclusive=True, group=CommandPalette._GATHER_COMMANDS_GROUP)  # noqa: SLF001 - its group
    async def _gather(self, search_value: str) -> None:
        with _list_that_changed():  # it may be left before this begins
            await inspect.unwrap(CommandPalette._gather_commands)(self, search_value)  # noqa: SLF001

    def _action_command_list(self, action: str) -> None:
        with _list_that_changed():
            super()._action_command_list(action)
