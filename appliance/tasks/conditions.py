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
from collections.abc import Callable, Iterator, Mapping
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
_NOT_TEXT = object()
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
        return all(one.ok for one in self.compare(payload))

    def compare(self, payload: bytes) -> Iterator[Comparison]:
        """Every comparison with what the payload has there, in order; never raises."""
        try:
            document = _document(payload)
        except UnicodeDecodeError:
            # JSON is UTF-8 (RFC 8259, section 8.1). msgspec raises UnicodeDecodeError for a text
            # in another encoding, and that error is no msgspec.DecodeError.
            document = _NOT_TEXT
        except (msgspec.DecodeError, RecursionError):
            document = _NOT_JSON
        if isinstance(document, dict | list):
            for path, name, value in self._tests:
                found = _find(document, path)
                yield Comparison(path, name, value, found, _holds(name, found, value))
            return
        readings: tuple[object, ...] = ()
        if document is not _NOT_TEXT:
            try:
                readings = _readings(document, payload)
            except UnicodeDecodeError:
                document = _NOT_TEXT
        for path, name, value in self._tests:
            if document is _NOT_TEXT:
                yield Comparison(path, name, value, _NOT_TEXT, ok=False)
            elif path == WHOLE:
                ok = _holds_plain(name, readings, value)
                yield Comparison(path, name, value, readings[0], ok)
            elif document is _NOT_JSON:
                yield Comparison(path, name, value, _NOT_JSON, ok=False)
            else:
                yield Comparison(path, name, value, _MISSING, _holds(name, _MISSING, value))

    def unmet(self, payload: bytes) -> str:
        """The first comparison that does not hold, and what was found; empty if all hold."""
        return next((one.problem for one in self.compare(payload) if not one.ok), "")


class Comparison(msgspec.Struct, frozen=True):
    """One comparison of a ``when`` with a payload. The texts are made when they are asked for."""

    path: str
    name: str
    """The operator, as the configuration has it."""
    _wanted: object
    _found: object
    ok: bool
    """Whether it holds."""

    @property
    def wanted(self) -> str:
        """The comparison as the configuration has it: ``state = "done"``."""
        return _shown_test(self.path, self.name, self._wanted)

    @property
    def found(self) -> str:
        """What the payload has there, or why it has nothing."""
        if self._found is _NOT_TEXT:
            return "the payload is not UTF-8 text"
        if self._found is _NOT_JSON:
            return "the payload is no JSON"
        return f"no {self.path}" if self._found is _MISSING else _shown(self._found)

    @property
    def problem(self) -> str:
        """Why it does not hold."""
        if self._found is _NOT_TEXT:
            return self.found
        if self._found is _NOT_JSON:
            what = self.found
        elif self._found is _MISSING:
            what = f"the payload has no {self.path}"
        else:
            what = f"found {_shown(self._found)}"
        return f"{self.wanted} does not hold: {what}"


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
