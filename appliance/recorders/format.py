"""What every format of recordings has: the pieces of text that make up a file.

A file with n messages is ``opening``, n elements with ``separator`` between them, ``closing``;
a file without any is ``empty``. Not for: files; a format never sees one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from appliance.model import Message
from appliance.recorders.row_shape import RowShape


class Format:
    """One kind of file. The same messages always give the same bytes."""

    kind: ClassVar[str]
    """As in ``[[recorder]] format``."""
    empty = b""
    separator = b""
    closing = b""
    """The end of the file after every write. The next write overwrites it."""

    def __init__(self, *, metadata: bool, shape: RowShape | None = None) -> None:
        """``shape``: what the recorder makes of a payload; ``None``: nothing."""
        self.name = f"{self.kind}+metadata" if metadata else self.kind
        """The identity: a recording can only be continued in a format of the same name."""
        if shape is not None:
            self.name += f"+{shape.name}"
        self.has_metadata = metadata
        self._metadata = metadata
        self._shape = shape

    def with_rows(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages that give something to write: not those with a list without elements."""
        if self._shape is None:
            return messages
        return [one for one in messages if self._shape.has_rows(one)]

    def opening(self, first: Message) -> bytes:  # noqa: ARG002 - for subclasses
        """The beginning of a file whose first message this is."""
        return b""

    def element(self, message: Message) -> bytes:
        """One message that ``with_rows`` has. Several rows have ``separator`` between them."""
        raise NotImplementedError

    def elements(self, messages: Sequence[Message]) -> list[bytes]:
        """The elements, in order: one by one, or several joined where that is faster."""
        return [self.element(message) for message in messages]

    @property
    def memory(self) -> str:
        """The state that continuing the file later needs (the columns of a CSV file)."""
        return ""

    def recall(self, memory: str) -> None:
        """Restore ``memory`` of an existing file."""
