"""Messages as a table: named columns with a type and their values, for formats that are not text.

Not for: how a message becomes a row (table_maker.py), what a file or database makes of it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Kind = Literal["integer", "number", "boolean", "text", "time"]
"""``integer``: ``int`` of 64 bits; ``number``: ``float``; ``boolean``: ``bool``; ``text``: ``str``
without NUL; ``time``: ``int``, microseconds since 1970 (UTC)."""


class Column(msgspec.Struct, frozen=True):
    """A column's name and the type of its values."""

    name: str
    kind: Kind


class Table(msgspec.Struct):
    """Rows, column by column."""

    columns: tuple[Column, ...]
    values: list[list[Any]]
    """A list for each column, one value a row; ``None``: there is none."""
    rows: int
    seqs: list[int] = msgspec.field(default_factory=list)
    """The number of each row's message."""
    items: list[int] = msgspec.field(default_factory=list)
    """The place of each row in its message: 0, or with ``flatten`` the number of the element."""
