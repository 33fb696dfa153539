"""``when``: whether a payload meets the conditions of a rule.

Meaning (docs/triggers.md): every condition must hold. A key is a path of names with dots, a
number steps into a list. A plain value means equality. A table has one or more of ``=``, ``!=``,
``<``, ``<=``, ``>``, ``>=``, ``in``, ``matches`` and ``exists``. All of them must hold. Values are
equal if they have the same kind and value; numbers are one kind (1 = 1.0), ``true`` is not 1. Order
is defined between two numbers and between two texts (by code point) and is false for everything
else. ``matches`` is a regular expression that is found in a text (patterns.py). Every comparison
with a field that is not there is false, also ``!=``; ``exists = false`` is the way to ask for that.

The path ``payload`` means the whole payload if that is no JSON object or list: a plain text, or a
JSON text, number, boolean or null. A plain payload has no types, so a number or boolean is compared
as such and as its text. In an object, ``payload`` is a field like any other. A payload that is not
JSON meets no condition on a field; one that is not UTF-8 meets none.

Not for: deciding what to start.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from appliance.errors import ConfigError
from appliance.tasks.invisible import bare
from appliance.tasks.patterns import Pattern, PatternError

WHOLE = "payload"
"""The path that means the whole of a plain payload."""
_SHOWN = 80
"""Characters of a value in an explanation."""
_MISSING = object()
_NOT_JSON = object()
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATORS = ("=", "!=", *_ORDER, "in", "matches", "exists")


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
                is_pattern = name == "matches"
                test = _pattern(f"{where}: when.{path}.matches", value) if is_pattern else value
                self._tests.append((path, name, test))

    def holds(self, payload: bytes) -> bool:
        """Whether the payload meets every condition; never raises."""
        try:
            document = _document(payload)
        except UnicodeDecodeError:
            # JSON is UTF-8 (RFC 8259, section 8.1). msgspec raises UnicodeDecodeError for a text
            # in another encoding, and that error is no msgspec.DecodeError.
            return False
        except (msgspec.DecodeError, RecursionError):
            document = _NOT_JSON
        if isinstance(document, dict | list):
            return all(
                _holds(name, _find(document, path), value) for path, name, value in self._tests
            )
        try:
            readings = _readings(document, payload)
        except UnicodeDecodeError:
            return False
        is_json = document is not _NOT_JSON
        return all(
            _holds_plain(name, readings, value)
            if path == WHOLE
            else is_json and _holds(name, _MISSING, value)
            for path, name, value in self._tests
        )

    def unmet(self, payload: bytes) -> str:
        """The first comparison that does not hold, and what was found; empty if all hold."""
        if self.holds(payload):
            return ""
        try:
            document = _document(payload)
        except UnicodeDecodeError:
            return "the payload is not UTF-8 text"
        except (msgspec.DecodeError, RecursionError):
            document = _NOT_JSON
        is_nested = isinstance(document, dict | list)
        for path, name, wanted in self._tests:
            if path == WHOLE and not is_nested:
                readings = _readings(document, payload)
                if not _holds_plain(name, readings, wanted):
                    found = _shown(readings[0])
                    return f"{_shown_test(path, name, wanted)} does not hold: found {found}"
                continue
            value = _find(document, path) if is_nested else _MISSING
            if document is not _NOT_JSON and _holds(name, value, wanted):
                continue
            if document is _NOT_JSON:
                what = "the payload is no JSON"
            elif value is _MISSING:
                what = f"the payload has no {path}"
            else:
                what = f"found {_shown(value)}"
            return f"{_shown_test(path, name, wanted)} does not hold: {what}"
        return "the condition does not hold"


def _shown_test(path: str, name: str, wanted: object) -> str:
    """``state = "done"``."""
    if isinstance(wanted, Pattern):
        return f'{path} matches "{wanted.text[:_SHOWN]}"'
    return f"{path} {name} {_shown(wanted)}"


def _shown(value: object) -> str:
    """A value as JSON has it, cut if it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _readings(document: object, payload: bytes) -> tuple[object, ...]:
    """What a plain payload may be compared as: its JSON value, and its text."""
    if isinstance(document, str):
        return (document,)
    text = bare(payload.decode())
    return (text,) if document is _NOT_JSON else (document, text)


def _holds_plain(name: str, readings: tuple[object, ...], wanted: object) -> bool:
    if name == "!=":
        return not any(_equal(one, wanted) for one in readings)
    return any(_holds(name, one, wanted) for one in readings)


def _pattern(key: str, text: object) -> Pattern:
    assert isinstance(text, str)
    try:
        return Pattern(text)
    except PatternError as problem:
        raise ConfigError(f'{key} = "{text[:80]}" is no regular expression: {problem}.') from None


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
    elif name == "matches":
        if not isinstance(value, str):
            raise ConfigError(f"{key}.matches must be a regular expression: a text in quotes.")
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
    if isinstance(wanted, Pattern):
        return isinstance(found, str) and wanted.is_in(found)
    return _kind(found) == _kind(wanted) != "other" and _ORDER[name](found, wanted)


def _equal(found: object, wanted: object) -> bool:
    return _kind(found) == _kind(wanted) and found == wanted


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"
