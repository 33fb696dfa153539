"""The distinct values of a column of a QVD file, and which of them each row has.

A symbol is a byte that says its type, and the value: 1 an integer of 32 bits, 2 a double, 4 a text
that ends with NUL, 6 a double with the text that Qlik shows. All are little endian.
Not for: the file (qvd.py).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import lt
from typing import Any

NULL = 0
FIRST = 2
"""The code of the first symbol. NULL is 0: a field with NULLs has a bias of -2."""

CHUNK = 4096
"""Symbols that are made in one go. Other threads get their turn between two."""

_MAX_INT32 = 2**31 - 1
_MAX_EXACT = 2**53
_SYMBOL_MEMORY = 150
"""Bytes of memory for a value in a dictionary, beside the length of a text."""

_pack_integer = struct.Struct("<Bi").pack
_pack_double = struct.Struct("<Bd").pack

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_FIRST_DAY_US = 25_569 * _DAY_US
"""From 1899-12-30, day 0 in Qlik, to 1970."""


class _Codes(dict[Any, int]):
    """Value to code; a new value gets the next one."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__(zip(values, range(FIRST, 1 << 62), strict=False))
        self.next = FIRST + len(self)

    def __missing__(self, value: Any) -> int:
        if value is None:
            self[None] = NULL
            return NULL
        if value != value:  # noqa: PLR0124  # NaN is never found by itself
            value = _NAN
            if value in self:
                return self[value]
        code = self.next
        self[value] = code
        self.next = code + 1
        return code


_NAN = float("nan")


class Symbols:
    """One column. Values of one file may differ in type; those of a time are all times."""

    def __init__(self, name: str, *, is_time: bool, rows_before: int) -> None:
        self.name = name
        self.is_time = is_time
        self.codes = array("I", bytes(4 * rows_before))
        """The code of each row."""
        self.bytes = 0
        """About the length of the symbols in the file."""
        self.memory = 0
        self.tags: tuple[str, ...] = ()
        """What Qlik should know of the values; set by ``encoded``."""
        # Numbers that only grow, as seq does, need no dictionary.
        self._growing: array[int] | None = array("q") if not rows_before else None
        self._known = _Codes()
        if rows_before:
            self._known[None] = NULL

    @property
    def count(self) -> int:
        """The number of symbols."""
        return self._known.next - FIRST if self._growing is None else len(self._growing)

    @property
    def has_nulls(self) -> bool:
        return self._growing is None and None in self._known

    def add(self, values: list[Any]) -> None:
        """The values of more rows."""
        before = self.count
        if self._growing is not None and self._grow(values):
            new = len(values)
            self.memory += 8 * new
        else:
            self._remember()
            self.codes.extend(map(self._known.__getitem__, values))
            new = self.count - before
            self.memory += _SYMBOL_MEMORY * new
        self.memory += 4 * len(values)
        self.bytes += new * (36 if self.is_time else 5)
        if new and self._growing is None and not self.is_time:
            for value in islice(reversed(self._known), new):
                if type(value) is str:
                    self.bytes += len(value)
                    self.memory += len(value)
                else:
                    self.bytes += 4

    def add_nulls(self, rows: int) -> None:
        """Rows that have no value."""
        self.add([None] * rows)

    def _grow(self, values: list[Any]) -> bool:
        """Whether all values are integers that are each greater than the one before."""
        growing = self._growing
        assert growing is not None
        if not values or set(map(type, values)) != {int}:
            return False
        if growing and values[0] <= growing[-1]:
            return False
        if not all(map(lt, values, islice(values, 1, None))):
            return False
        first = FIRST + len(growing)
        try:
            growing.extend(values)
        except OverflowError:  # the values before the one that is too large are in
            del growing[first - FIRST :]
            return False
        self.codes.extend(range(first, first + len(values)))
        return True

    def _remember(self) -> None:
        if self._growing is not None:
            self._known = _Codes(self._growing)
            self.memory += _SYMBOL_MEMORY * len(self._growing)
            self._growing = None

    def encoded(self) -> Iterator[bytes]:
        """The symbols, in the order of their codes; sets ``tags``."""
        values = self._growing if self._growing is not None else self._known
        rest: Iterator[Any] = (value for value in values if value is not None)
        types: set[type] = set()
        is_ascii = True
        while part := list(islice(rest, CHUNK)):
            types_here = set(map(type, part))
            types |= types_here
            if self.is_time:
                yield b"".join(map(_time_symbol, part))
            elif types_here == {str}:
                text = _texts(part)
                is_ascii = is_ascii and text.isascii()
                yield text
            else:
                yield b"".join(map(_symbol, part))
        self.tags = _tags(types, is_ascii=is_ascii, is_time=self.is_time)


def _tags(types: set[type], *, is_ascii: bool, is_time: bool) -> tuple[str, ...]:
    if not types:
        return ()
    if is_time:
        return ("$numeric", "$timestamp")
    if types == {str}:
        return ("$ascii", "$text") if is_ascii else ("$text",)
    if str in types:
        return ()
    return ("$numeric",) if float in types else ("$numeric", "$integer")


def _texts(values: Sequence[str]) -> bytes:
    data = ("\x04" + "\0\x04".join(values) + "\0").encode(errors="replace")
    if data.count(0) == len(values):
        return data
    return b"".join(map(_text, values))


def _text(value: str) -> bytes:
    """A text; NUL, which ends it, becomes the sign for NUL."""
    return b"\x04" + value.replace("\0", "\u2400").encode(errors="replace") + b"\0"


def _symbol(value: Any) -> bytes:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return _pack_double(2, value)
    if -_MAX_INT32 <= value <= _MAX_INT32:
        return _pack_integer(1, value)
    if -_MAX_EXACT <= value <= _MAX_EXACT:
        return _pack_double(2, value)
    return _text(str(value))  # a double would lose digits


def _time_symbol(value: int) -> bytes:
    serial = _pack_double(6, (value + _FIRST_DAY_US) / _DAY_US)
    return b"%b%b\0" % (serial, _time_text(value).encode())


def _time_text(value: int) -> str:
    try:
        time = _EPOCH + timedelta(microseconds=value)
    except OverflowError:  # before the year 1 or after 9999
        return str(value)
    return time.replace(tzinfo=None).isoformat(" ", "microseconds")
