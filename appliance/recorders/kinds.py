"""The types of columns: which one values have, which one takes others, and values made to fit.

Not for: finding the values (table_maker.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from appliance.recorders.table import Kind

LARGEST = 2**63 - 1
SMALLEST = -(2**63)


class HugeNumber(str):
    """A number that has no other form than its digits: too large for a float, or not exact."""

    __slots__ = ()


NO_FIT = object()
"""Stands for a value that a column can't hold."""

_NATURAL: dict[type, Kind] = {int: "integer", float: "number", bool: "boolean"}

_OWN_TYPE: dict[Kind, type] = {
    "integer": int,
    "number": float,
    "boolean": bool,
    "text": str,
    "time": int,
}


def kind_of(types: set[type]) -> Kind:
    """The kind of a column whose values have these types (without ``None``)."""
    kinds = {_NATURAL.get(each, "text") for each in types - {HugeNumber}}
    if len(kinds) <= 1:
        return kinds.pop() if kinds else "text"
    return "number" if kinds == {"integer", "number"} else "text"


def wider(kind: Kind, types: set[type]) -> Kind:
    """The kind that a column gets when values of these types come (without ``None``)."""
    if kind == "text":
        return kind
    # A number that no column of numbers can hold does not change it: the payload has it.
    types = types - {HugeNumber}
    kinds = {_NATURAL.get(each, "text") for each in types} | {kind}
    if len(kinds) == 1:
        return kind
    return "number" if kinds == {"integer", "number"} else "text"


def is_own(kind: Kind, types: set[type]) -> bool:
    """Whether values of these types stand in such a column as they are."""
    return types <= {_OWN_TYPE[kind]}


def to_number(value: Any) -> Any:
    """For a column of numbers: ``int`` and ``float`` (not ``bool``)."""
    if type(value) is float or value is None:
        return value
    if type(value) is int:
        number = float(value)
        return number if is_exact(number, str(value)) else NO_FIT
    return NO_FIT


def is_exact(number: float, text: str) -> bool:
    """Whether the shortest text of a finite number is equal to a decimal number's text."""
    own = repr(number)
    return own == text or Decimal(own) == Decimal(text)


def settled(value: int) -> Any:
    """An integer of more than 64 bits as a ``float`` if that is exact, else ``HugeNumber``."""
    try:
        number = float(value)
    except OverflowError:
        return HugeNumber(value)
    return number if is_exact(number, str(value)) else HugeNumber(value)


# --- values for columns whose type is configured --------------------------------------------------

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_DECIMAL = re.compile(
    r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?", re.ASCII
)
_BOOLEANS = {"true": True, "false": False}


def pinned_integer(value: Any) -> Any:
    if (
        (type(value) is float and value.is_integer())
        or type(value) is bool
        or (isinstance(value, str) and _INTEGER.fullmatch(value))
    ):
        value = int(value)
    return value if type(value) is int and SMALLEST <= value <= LARGEST else NO_FIT


def pinned_number(value: Any) -> Any:
    """A number; a text if it is one that ``float`` has no less exactly."""
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            return NO_FIT
        number = float(value)
        return number if math.isfinite(number) and is_exact(number, value) else NO_FIT
    return to_number(value)


def pinned_boolean(value: Any) -> Any:
    if type(value) is bool:
        return value
    if type(value) is int and value in {0, 1}:
        return bool(value)
    if isinstance(value, str):
        return _BOOLEANS.get(value.lower(), NO_FIT)
    return NO_FIT


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# From 1973 on, no unit can be taken for the next smaller one.
_UNITS = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))


_FIRST_MOMENT = -62_135_596_800_000_000  # of the year 1
_LAST_MOMENT = 253_402_300_799_999_999  # of the year 9999


def _within_calendar(moment: int) -> Any:
    return moment if _FIRST_MOMENT <= moment <= _LAST_MOMENT else NO_FIT


def pinned_time(value: Any) -> Any:
    """Microseconds since 1970 (UTC), from ISO 8601 (UTC without an offset) or a number.

    A number is seconds since 1970 below 10**11, milliseconds below 10**14, microseconds below
    10**17, nanoseconds above.
    """
    if type(value) is int or type(value) is float:
        size = abs(value)
        for below, factor in _UNITS:
            if size < below:
                return _within_calendar(round(value * factor))
        return _within_calendar(int(value) // 1000)
    if not isinstance(value, str):
        return NO_FIT
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return NO_FIT
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        passed = moment - _EPOCH
    except OverflowError:
        return NO_FIT
    moment_us = (passed.days * 86400 + passed.seconds) * 1_000_000 + passed.microseconds
    return _within_calendar(moment_us)


PINNED: dict[Kind, Callable[[Any], Any]] = {
    "integer": pinned_integer,
    "number": pinned_number,
    "boolean": pinned_boolean,
    "time": pinned_time,
}
"""A value for a column of a configured type, or ``NO_FIT``. Texts take any value."""


# Each byte stands for those of its kind: digits and points, signs, letters of an exponent.
_KINDS_OF_BYTES = bytes.maketrans(b"123456789.+E", b"0000000000-e")
_LONG = (b"0" * 16, b"0e000", b"0e-000")


def has_long_number(text: bytes) -> bool:
    """Whether there may be a number that is too large or too exact for its type.

    It has 16 digits, or an exponent of three.
    """
    kinds = text.translate(_KINDS_OF_BYTES)
    return any(part in kinds for part in _LONG)
