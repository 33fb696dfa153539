"""What a column of a row holds, checked: SQLite keeps a value of any type in any column.

Not for: rows as a whole (the modules that have the tables), damage of a file (rescue.py).
"""

from __future__ import annotations

from appliance.model import LARGEST_SEQ


def text_of(value: object) -> str:
    """The value as a text.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r} instead of a text")
    return value


def number_of(value: object) -> int:
    """The value as a number from 0 to ``LARGEST_SEQ``.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, int) or not 0 <= value <= LARGEST_SEQ:
        raise ValueError(f"{value!r} instead of a number")
    return value


def bytes_of(value: object) -> bytes:
    """The value as bytes.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, bytes):
        raise TypeError(f"{value!r} instead of bytes")
    return value
