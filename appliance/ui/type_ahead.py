"""Keys that are typed faster than the UI moves the focus.

Textual sends a key to the widget that has the focus when the key arrives. Of ``/hr`` typed at once
(or pasted), ``h`` and ``r`` are on their way to the list while the list still works on ``/``, which
opens a line to type in. The list does not know ``h`` and forwards it to the app; without this
module the app would take it for a command.
Not for: what a key does (keys.py).
"""

from __future__ import annotations

from collections import deque

from textual.events import Key
from textual.widget import Widget
from textual.widgets import Input

_REMEMBERED = 128


class TypeAhead:
    """Remembers the focus that each key was sent to."""

    def __init__(self) -> None:
        self._sent: deque[tuple[Key, Widget | None]] = deque(maxlen=_REMEMBERED)

    def was_redirected(self, event: Key, focused: Widget | None) -> bool:
        """Note a new key, or send one that came back to the line that has the focus by now."""
        if not event.is_forwarded:
            self._sent.append((event, focused))
            return False
        if not isinstance(focused, Input):
            return False
        target = next((widget for key, widget in self._sent if key is event), focused)
        if target is focused:
            return False
        focused._forward_event(Key(event.key, event.character))  # noqa: SLF001 - as Textual does
        return True
