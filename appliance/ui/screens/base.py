"""What every screen does about keys that come before it is ready or after it was dismissed.

A dialog names ``ModalScreen`` first among its bases and ``BaseScreen`` second: Textual takes the
style rules of the first base alone.
Not for: the screen below (navigator.py).
"""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.events import Event, InputEvent, Mount, Resize
from textual.message import Message
from textual.screen import Screen, ScreenResultType


class BaseScreen(Screen[ScreenResultType]):
    """The base of pages and dialogs."""

    @property
    def was_left(self) -> bool:
        """Whether it has been taken from the stack for good: its widgets go one by one."""
        return not (self in self.app.screen_stack or self.app.is_screen_installed(self))

    async def _dispatch_message(self, message: Message) -> None:
        """Leave out what reaches the screen after it was left, and asks for widgets that go."""
        internal = type(message).__module__ == "textual.messages"
        event = isinstance(message, Event)
        needs_widgets = isinstance(message, Mount | Resize | InputEvent) if event else not internal
        if needs_widgets and self.was_left:
            return
        await super()._dispatch_message(message)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Refuse actions until the screen has its widgets, and once it has been left.

        A key that the widget below did not use comes back to the app. Textual runs its action on
        the uppermost screen, which may be a new one that has no widgets yet.
        """
        ready = self.is_mounted and not self.was_left
        return ready and super().check_action(action, parameters)

    def action_leave(self) -> None:
        """Leave a dialog without a result."""
        self.dismiss(None)

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Dismiss the screen if it is the uppermost one.

        Keys and clicks that were on their way to the screen still reach it after it was dismissed.
        Textual would take away the screen below for each one, in the end the last screen.
        """
        if self.app.screen is not self:
            return AwaitComplete()
        return super().dismiss(result)
