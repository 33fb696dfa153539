"""``when``: whether the JSON in a payload meets the conditions of a rule.

Meaning (docs/triggers.md): every condition must hold. A key is a path of names with dots, a
number steps into a list. A plain value means equality. A table has one or more of ``=``, ``!=``,
``<``, ``<=``, ``>``, ``>=``, ``in`` and ``exists``. All of them must hold. Values are equal if
they have the same kind and value; numbers are one kind (1 = 1.0), ``true`` is not 1. Order is
defined between two numbers and between two texts (by code point) and is false for everything
else. Every comparison with a field that is not there is false, also ``!=``; ``exists = false``
is the way to ask for that. A payload that is not JSON meets no condition.

Not for: deciding what to start.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from appliance.errors import ConfigError
from appliance.tasks.invisible import bare

_MISSING = object()
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATORS = ("=", "!=", *_ORDER, "in", "exists")


class Condition:
    """The compiled ``when`` of one rule."""

    def __init__(self, when: Mapping[str, object], *, where: str) -> None:
        """Compile; raises ``ConfigError`` that names ``where`` (the rule), the key and the fix."""
        self._tests: list[tuple[str, str, object]] = []
        for path, wanted in when.items():
            if not path:
                raise ConfigError(f'{where}: when has an empty key. Name a field: "state" = "done"')
            tests = wanted if isinstance(wanted, Mapping) else {"=": wanted}
            if not tests:
                raise ConfigError(f"{where}: when.{path} is empty. Use one of {_operators()}.")
            for name, value in tests.items():
                _check(where, path, name, value)
                self._tests.append((path, name, value))

    def holds(self, payload: bytes) -> bool:
        """Whether the payload is JSON that meets every condition; never raises."""
        try:
            document = _document(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # JSON is UTF-8 (RFC 8259, section 8.1). msgspec raises UnicodeDecodeError for a text
            # in another encoding, and that error is no msgspec.DecodeError.
            return False
        return all(_holds(name, _find(document, path), value) for path, name, value in self._tests)


def _document(payload: bytes) -> object:
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        # Some clients send a NUL behind the text, others a byte order mark before it.
        text = bare(payload.decode())
        if len(text) == len(payload):
            raise
        return msgspec.json.decode(text)


def _operators() -> str:
    return ", ".join(f'"{name}"' for name in _OPERATORS)


def _check(where: str, path: str, name: str, value: object) -> None:
    key = f"{where}: when.{path}"
    if name not in _OPERATORS:
        raise ConfigError(f'{key} has the unknown comparison "{name}". Use one of {_operators()}.')
    if name == "in":
        if not isinstance(value, list | tuple) or not all(map(_is_plain, value)):
            raise ConfigError(f"{key}.in must be a list of texts, numbers or booleans.")
    elif name == "exists":
        if not isinstance(value, bool):
            raise ConfigError(f"{key}.exists must be true or false.")
    elif not _is_plain(value):
        raise ConfigError(f'{key}."{name}" must be a text, a number or a boolean.')
    elif name in _ORDER and isinstance(value, bool):
        raise ConfigError(f'{key}."{name}" compares numbers or texts, not booleans.')


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)


def _find(document: object, path: str) -> object:
    """The value at a path, or ``_MISSING``. A name that itself has dots is found first."""
    if isinstance(document, dict):
        if path in document:
            return document[path]
        head, dot, rest = path.partition(".")
        return _find(document[head], rest) if dot and head in document else _MISSING
    if isinstance(document, list):
        head, dot, rest = path.partition(".")
        if head.isascii() and head.isdigit() and len(head) < 10 and int(head) < len(document):
            item = document[int(head)]
            return _find(item, rest) if dot else item
    return _MISSING


def _holds(name: str, found: object, wanted: object) -> bool:
    if name == "exists":
        return (found is not _MISSING) is wanted
    if found is _MISSING:
        return False
    if name == "=":
        return _equal(found, wanted)
    if name == "!=":
        return not _equal(found, wanted)
    if name == "in":
        assert isinstance(wanted, list | tuple)
        return any(_equal(found, one) for one in wanted)
    return _kind(found) == _kind(wanted) != "other" and _ORDER[name](found, wanted)


def _equal(found: object, wanted: object) -> bool:
    return _kind(found) == _kind(wanted) and found == wanted


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"
