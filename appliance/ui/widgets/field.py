"""A line of a dialog: Enter goes to the next one.

Not for: the filter line (filter_bar.py), or the last line of a dialog, whose Enter is an answer.
"""

from __future__ import annotations

from typing import Any

from textual.events import Key
from textual.widgets import Input


class Field(Input):
    """An input whose Enter moves the focus.

    Textual sends a key to the widget that has the focus when the key arrives. Of ``1h``, Enter and
    ``disks`` typed at once (or pasted), ``disks`` is on its way here while this works on Enter, so
    it is handed on.
    """

    def __init__(self, *args: Any, following: str, **kwargs: Any) -> None:
        """``following``: the selector of the next widget."""
        super().__init__(*args, **kwargs)
        self._following = following

    async def _on_key(self, event: Key) -> None:
        focused = self.screen.focused
        if event.key == "enter" and focused is self:
            # Here, and not by a binding: that is looked for when the next keys are here already.
            self.screen.set_focus(self.screen.query_one(self._following))
        elif focused is not self and focused is not None:
            focused._forward_event(Key(event.key, event.character))  # noqa: SLF001 - as Textual does
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()
