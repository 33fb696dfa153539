"""From a TOML document to the tables: every key converted, every problem found, none twice.

msgspec could convert in one call, but it stops at the first problem. This walk goes over the same
structs and collects them all, so that a person mends the file once.
Not for: reading the file (reading.py), what a value's text means (values.py), rules about several
keys (checks.py).
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from appliance.config.checks import brackets
from appliance.config.problems import Place, Problems
from appliance.config.tables import Base, Config, ServiceConfig
from appliance.config.values import (
    Between,
    Duration,
    FolderPath,
    Key,
    ReadPath,
    Size,
    TopicFilter,
    WritePath,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from appliance.mqtt.topics import filter_problem
from appliance.secret import Secret

_NOT_KEYS = frozenset({"file"})
"""Fields of ``Config`` that no file sets."""

_LATER = {"bridge": "bridges to other brokers"}
"""Tables that this version does not have, and what they would be."""

_NEAR = 0.7
"""How alike a key and a suggestion are at least: transposed letters in a short name are 0.75."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class _Hints(NamedTuple):
    """What stands beside a type in ``Annotated``."""

    between: Between | None = None
    example: str | None = None

    def write(self, what: str) -> str:
        """Advice to write ``what``, with the example if there is one."""
        return f"write {what}, for example {self.example}" if self.example else f"write {what}"


class _Wrong(Exception):  # noqa: N818  a way out of the walk, not an error that anybody sees
    """A value is wrong; the text says what is wrong and what to write instead."""


class Walk:
    """One walk over one document; what is wrong goes into ``problems``.

    ``folder`` is what relative paths count from, ``environ`` has the variables for ``${NAME}``.
    """

    def __init__(self, problems: Problems, folder: str, environ: Mapping[str, str]) -> None:
        self._problems = problems
        self._folder = folder
        self._data_dir = folder
        self._environ = environ

    def config(self, document: dict[str, Any]) -> Config:
        """The configuration, complete even when there are problems, so that it can be checked."""
        service = document.get("service")
        written = service.get("data_dir") if isinstance(service, dict) else None
        if not isinstance(written, str):
            written = str(ServiceConfig().data_dir)
        with contextlib.suppress(_Wrong):  # reported when the key itself is read
            self._data_dir = self._path(written, self._folder)
        config = self._struct(document, Config, Place())
        assert isinstance(config, Config)
        return config

    def _struct(self, value: Any, kind: type[Base], place: Place) -> Base:
        if not isinstance(value, dict):
            if not place.path and isinstance(value, list):
                text = f"this table comes once; write [{place.name}] with single brackets"
            elif not place.path:
                text = f"a table is wanted; write [{place.name}] above its keys"
            else:
                text = "a table in braces is wanted"
            self._problems.value(place, value, text)
            return _empty(kind)
        fields = {each.name: each for each in msgspec.structs.fields(kind)}
        for name in _NOT_KEYS:
            fields.pop(name, None)
        for key, unread in value.items():
            if key not in fields:
                self._unknown(place, key, unread, sorted(fields))
        found: dict[str, Any] = {}
        for name, field in fields.items():
            if name in value:
                found[name] = self._value(value[name], field.type, place.key(name, kind is Config))
            elif field.required:
                example = _unwrap(field.type)[1].example
                self._problems.add(
                    place.key(name),
                    "this key is missing"
                    + (f"; write for example {name} = {example}" if example else ""),
                )
                found[name] = _placeholder(field.type)
            elif isinstance(field.default, Base):  # its defaults may be relative paths
                found[name] = self._value({}, field.type, place.key(name, kind is Config))
            elif isinstance(field.default, ReadPath | WritePath | FolderPath):
                found[name] = self._value(field.default, field.type, place.key(name))
        return kind(**found)

    def _unknown(self, place: Place, key: str, value: Any, known: list[str]) -> None:
        top = not place.name
        near = difflib.get_close_matches(key.lower().replace("-", "_"), known, 1, _NEAR)
        if top and key in _LATER:
            mend = f"{_LATER[key]} are for a later version; remove it"
        elif near:
            name = brackets(near[0]) if top else f"`{near[0]}`"
            mend = f"did you mean {name}?"
        else:
            mend = "known here: " + ", ".join(
                brackets(name) if top else f"`{name}`" for name in known
            )
        if top:
            written = f"[[{key}]]" if isinstance(value, list) else f"[{key}]"
            self._problems.unknown(Place(written), f"this table is not known; {mend}")
        else:
            self._problems.unknown(place.key(key), f"this key is not known; {mend}")

    def _value(self, value: Any, annotated: Any, place: Place) -> Any:
        kind, hints = _unwrap(annotated)
        if isinstance(kind, type) and issubclass(kind, Base):
            return self._struct(value, kind, place)
        if get_origin(kind) is tuple:
            return self._list(value, get_args(kind)[0], place, hints)
        try:
            return self._single(value, kind, hints)
        except _Wrong as wrong:
            self._problems.value(place, value, str(wrong), secret=kind is Secret)
            return _placeholder(kind)

    def _list(self, value: Any, kind: Any, place: Place, hints: _Hints) -> tuple[Any, ...]:
        if not isinstance(value, list):
            text = hints.write("a list in brackets")
            if isinstance(value, dict):
                text = f"this table may come more than once; write [[{place.name}]]"
            self._problems.value(place, value, text)
            return ()
        return tuple(
            self._value(each, kind, place.item(number)) for number, each in enumerate(value, 1)
        )

    def _single(self, value: Any, kind: Any, hints: _Hints) -> Any:
        origin = get_origin(kind)
        if origin is Literal:
            return _choice(value, get_args(kind))
        if origin in (Union, UnionType):  # text or a table: a trigger's `task`
            kind = str if isinstance(value, str) else dict[str, str]
            origin = get_origin(kind)
        if origin is dict:
            return _dictionary(value, get_args(kind)[1], hints)
        if kind is bool:
            if not isinstance(value, bool):
                raise _Wrong("write true or false, without quotes")
            return value
        if kind is int:
            if not isinstance(value, int) or isinstance(value, bool):
                raise _Wrong("write a whole number, without quotes")
            return _within(value, hints.between, str)
        return self._text(value, kind, hints)

    def _text(self, value: Any, kind: type, hints: _Hints) -> Any:
        if kind is Size and isinstance(value, int) and not isinstance(value, bool):
            return _within(Size(value), hints.between, lambda limit: format_size(int(limit)))
        if not isinstance(value, str):
            if kind is Duration and isinstance(value, int | float) and not isinstance(value, bool):
                raise _Wrong(f'a duration has a unit; write for example "{value}s"')
            raise _Wrong(hints.write("text in quotes"))
        try:
            if kind is Duration:
                return _within(parse_duration(value), hints.between, format_duration)
            if kind is Size:
                return _within(
                    parse_size(value), hints.between, lambda limit: format_size(int(limit))
                )
        except ValueError as error:
            raise _Wrong(str(error)) from None
        if kind is TopicFilter:
            problem = filter_problem(value)
            if problem:
                raise _Wrong(f"not a topic filter: {problem}")
            return TopicFilter(value)
        if kind is Secret:
            secret = self._expanded(value)
            if not secret:
                raise _Wrong("the secret is empty")
            return Secret(secret)
        if kind is ReadPath or kind is FolderPath:
            return kind(self._path(value, self._folder))
        if kind is WritePath:
            return WritePath(self._path(value, self._data_dir))
        return value

    def _path(self, text: str, folder: str) -> str:
        expanded = self._expanded(text)
        if not expanded.strip():
            raise _Wrong("a path can't be empty")
        if "\0" in expanded:
            raise _Wrong("a path can't have a null character")
        return os.path.normpath(Path(folder) / Path(expanded).expanduser())

    def _expanded(self, text: str) -> str:
        def variable(match: re.Match[str]) -> str:
            if match[1] not in self._environ:
                raise _Wrong(f"the environment variable {match[1]} is not set; set it")
            return self._environ[match[1]]

        return _VARIABLE.sub(variable, text)


def _placeholder(annotated: Any) -> Any:
    """Something of the right type, so that the walk goes on; nobody sees it."""
    kind, _ = _unwrap(annotated)
    origin = get_origin(kind)
    if origin is Literal:
        return get_args(kind)[0]
    if origin is tuple:
        return ()
    if origin is dict:
        return {}
    if origin in (Union, UnionType):
        return ""
    if issubclass(kind, Base):
        return _empty(kind)
    return Secret("") if kind is Secret else kind()


def _empty(kind: type[Base]) -> Base:
    fields = msgspec.structs.fields(kind)
    return kind(**{each.name: _placeholder(each.type) for each in fields if each.required})


def _unwrap(annotated: Any) -> tuple[Any, _Hints]:
    """The type without ``Annotated`` and ``| None`` (TOML has no null), and what stood beside."""
    between: Between | None = None
    example: str | None = None
    kind = annotated
    if get_origin(kind) is Annotated:
        kind, *beside = get_args(kind)
        for each in beside:
            if isinstance(each, Between):
                between = each
            elif isinstance(each, Key):
                example = each.example
    if get_origin(kind) in (Union, UnionType):
        rest = [each for each in get_args(kind) if each is not type(None)]
        if len(rest) == 1:
            kind = rest[0]
    return kind, _Hints(between, example)


def _choice(value: Any, choices: tuple[Any, ...]) -> Any:
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value).lower(), choices, 1, 0.6)
    if near:
        raise _Wrong(f'did you mean "{near[0]}"?')
    raise _Wrong("write one of " + ", ".join(json.dumps(choice) for choice in choices))


def _dictionary(value: Any, kind: Any, hints: _Hints) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(hints.write("a table in braces"))
    if kind is str and not all(isinstance(each, str) for each in value.values()):
        raise _Wrong(hints.write("texts in quotes within the braces"))
    return value


def _within(value: Any, between: Between | None, show: Callable[[float], str]) -> Any:
    if between is None:
        return value
    if value < between.low:
        raise _Wrong(f"too small; the least is {show(between.low)}")
    if between.high is not None and value > between.high:
        raise _Wrong(f"too large; the most is {show(between.high)}")
    return value
