"""The part of the QRS filter language that the simulated server understands.

``property operator value`` joined by ``and`` and ``or`` with parentheses; strings and dates in
single quotes (a quote inside is doubled), GUIDs, numbers and enum names bare; text compares
without regard to case. Source: Qlik Sense Repository Service API, "Filtering". A test on a list
holds if it holds for any member, which is why two tests on ``customProperties`` are independent
of each other (docs/qlik.md, "Looking tasks up").
Not for: the client, which builds filters from GUIDs and numbers alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from appliance.qlik.simulated.site import STATUS_ENUM, TASK_TYPE_ENUM

Row = Mapping[str, object]
Test = Callable[[Row], bool]

_TOKEN = re.compile(r"\s*(?:(\()|(\))|'((?:[^']|'')*)'|([^\s()']+))")
_OPERATORS = frozenset({"eq", "ne", "gt", "ge", "lt", "le", "sw", "ew", "so"})
_DEPTH_LIMIT = 50
_ENUMS = {
    "status": {name.lower(): str(number) for number, name in enumerate(STATUS_ENUM)},
    "tasktype": {name.lower(): str(number) for number, name in enumerate(TASK_TYPE_ENUM)},
}
"""Properties whose value may be named, by the last part of their path."""


class FilterError(ValueError):
    """The filter can't be parsed; the text is what the Repository Service answers."""

    def __init__(self, text: str) -> None:
        super().__init__(f"Cannot parse the expression: {text}")


def parse(text: str) -> Test:
    """Turn a filter into a test for a row (an entity as the JSON reply shows it).

    Raises:
        FilterError: the text is not a filter.
    """
    return _Parser(text).parse()


def sort_key(name: str) -> Callable[[Row], tuple[bool, float, str]]:
    """What ``orderby=name`` compares: numbers as numbers, other values as text."""
    path = name.lower().split(".")

    def key(row: Row) -> tuple[bool, float, str]:
        value = next(_values(row, path), "")
        if isinstance(value, int | float):
            return (False, float(value), "")
        return (True, 0.0, "" if value is None else str(value).lower())

    return key


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._position = 0

    def parse(self) -> Test:
        test = self._either(0)
        if self._position != len(self._tokens):
            raise FilterError(self._text)
        return test

    def _either(self, depth: int) -> Test:
        tests = [self._both(depth)]
        while self._word() == "or":
            self._position += 1
            tests.append(self._both(depth))
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _both(self, depth: int) -> Test:
        tests = [self._one(depth)]
        while self._word() == "and":
            self._position += 1
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _one(self, depth: int) -> Test:
        if depth > _DEPTH_LIMIT:
            raise FilterError(self._text)
        kind, value = self._next()
        if kind == "(":
            test = self._either(depth + 1)
            if self._next()[0] != ")":
                raise FilterError(self._text)
            return test
        operator_kind, operator = self._next()
        wanted_kind, wanted = self._next()
        if (
            kind != "word"
            or operator_kind != "word"
            or operator.lower() not in _OPERATORS
            or wanted_kind not in {"word", "text"}
        ):
            raise FilterError(self._text)
        return _comparison(value, operator.lower(), wanted)

    def _word(self) -> str:
        if self._position < len(self._tokens):
            kind, value = self._tokens[self._position]
            if kind == "word":
                return value.lower()
        return ""

    def _next(self) -> tuple[str, str]:
        if self._position >= len(self._tokens):
            raise FilterError(self._text)
        token = self._tokens[self._position]
        self._position += 1
        return token


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    text = text.strip()
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FilterError(text)
        position = match.end()
        opened, closed, quoted, word = match.groups()
        if opened:
            yield "(", "("
        elif closed:
            yield ")", ")"
        elif quoted is not None:
            yield "text", quoted.replace("''", "'")
        else:
            yield "word", word


def _comparison(name: str, operator: str, wanted: str) -> Test:
    path = name.lower().split(".")
    target = _Target(_ENUMS.get(path[-1], {}).get(wanted.lower(), wanted))

    def test(row: Row) -> bool:
        value = row.get(name)
        if isinstance(value, str | int):
            return _holds(value, operator, target)  # By far the usual case.
        return any(_holds(value, operator, target) for value in _values(row, path))

    return test


class _Target:
    """A value of a filter in each of its readings, worked out once."""

    def __init__(self, text: str) -> None:
        self.text = text.lower()
        self.date = _date(text)
        try:
            self.number: float | None = float(text)
        except ValueError:
            self.number = None


def _values(value: object, path: list[str]) -> Iterator[object]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _values(item, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if str(name).lower() == path[0]:
                yield from _values(inner, path[1:])


def _holds(value: object, operator: str, wanted: _Target) -> bool:
    left, right = _comparable(value, wanted)
    match operator:
        case "eq":
            return left == right
        case "ne":
            return left != right
        case "sw":
            return str(left).startswith(str(right))
        case "ew":
            return str(left).endswith(str(right))
        case "so":
            return str(right) in str(left)
    if isinstance(left, str) != isinstance(right, str):
        return False
    match operator:
        case "gt":
            return left > right  # type: ignore[operator]  # both str or both numbers, see above
        case "ge":
            return left >= right  # type: ignore[operator]  # as above
        case "lt":
            return left < right  # type: ignore[operator]  # as above
        case _:
            return left <= right  # type: ignore[operator]  # as above


def _comparable(value: object, wanted: _Target) -> tuple[str | float, str | float]:
    if isinstance(value, bool):
        return str(value).lower(), wanted.text
    if isinstance(value, int | float):
        return (str(value), wanted.text) if wanted.number is None else (value, wanted.number)
    text = "" if value is None else str(value)
    if wanted.date is not None:
        date = _date(text)
        if date is not None:
            return date, wanted.date
    return text.lower(), wanted.text


def _date(text: str) -> float | None:
    """Seconds since the epoch, if the text is a date with a time."""
    if text[10:11] not in {"T", " "}:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
