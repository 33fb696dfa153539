"""Decodes a TOML document into the tables: converts every key, reports every problem once.

``msgspec.convert`` stops at the first problem. This decoder reads the same structs and collects all
problems, so that a person corrects the file once.
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
from appliance.config.database_url import below, without_password
from appliance.config.key_files import may_be_secret
from appliance.config.problems import ConfigPath, Problems
from appliance.config.tables import Config, RecorderConfig, ServiceConfig, Table
from appliance.config.values import (
    Bounds,
    DatabaseUrl,
    Duration,
    Example,
    FolderPath,
    ReadPath,
    Settings,
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
"""Fields of ``Config`` that are not keys of the file."""

_MIN_SIMILARITY = 0.7
"""``difflib``'s ratio from which a key is suggested. Transposed letters in a short name: 0.75."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_SECRET_KEY = re.compile("pass|secret|token|credential|private|(^|_|-)key$", re.IGNORECASE)
"""Names of settings whose text is never shown. One too many is harmless."""
_LOGIN_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]*@")


class _Hints(NamedTuple):
    """The annotations of a key in ``Annotated``: its bounds and its example."""

    bounds: Bounds | None = None
    example: str | None = None

    def write(self, what: str) -> str:
        """Advice to write ``what``, with the key's example if it has one."""
        return f"write {what}, for example {self.example}" if self.example else f"write {what}"


class _InvalidValueError(Exception):
    """A value is wrong. ``str()`` says what is wrong and what to write instead.

    ``Decoder`` catches it and adds a problem.
    """


class Decoder:
    """Decodes one document and adds what is wrong to ``problems``.

    ``folder`` is the base of relative paths. ``environ`` has the variables for ``${NAME}``.
    """

    def __init__(self, problems: Problems, folder: str, environ: Mapping[str, str]) -> None:
        self._problems = problems
        self._folder = folder
        self._data_dir = folder
        self._environ = environ

    def decode(self, document: dict[str, Any]) -> Config:
        """The configuration. It is complete even with problems, so that checks.py can read it."""
        service = document.get("service")
        written = service.get("data_dir") if isinstance(service, dict) else None
        if not isinstance(written, str):
            written = str(ServiceConfig().data_dir)
        with contextlib.suppress(_InvalidValueError):  # reported when the key itself is read
            self._data_dir = self._path(written, self._folder)
        config = self._struct(document, Config, ConfigPath())
        assert isinstance(config, Config)
        return msgspec.structs.replace(
            config,
            recorder=tuple(
                self._recorder(recorder, number)
                for number, recorder in enumerate(config.recorder, 1)
            ),
        )

    def _recorder(self, recorder: RecorderConfig, number: int) -> RecorderConfig:
        """A recorder whose database has its password apart, and the path of its file absolute."""
        database = recorder.database
        if database is None:
            return recorder
        url, password = without_password(database.url)
        if password is not None and (database.password or database.password_file):
            self._problems.add(
                ConfigPath(f"[[recorder]] {number}", "database.url"),
                "value (not shown): it has a password, and another key has one; keep one of them",
            )
        database = msgspec.structs.replace(
            database,
            url=DatabaseUrl(below(url, self._data_dir)),
            password=database.password or password,
        )
        return msgspec.structs.replace(recorder, database=database)

    def _struct(
        self, value: Any, kind: type[Table], where: ConfigPath, example: str | None = None
    ) -> Table:
        if not isinstance(value, dict):
            if not where.path and isinstance(value, list):
                text = f"this table comes once; write [{where.name}] with single brackets"
            elif not where.path:
                text = f"a table is wanted; write [{where.name}] above its keys"
            else:
                text = "a table in braces is wanted"
                if example is not None:
                    text += f"; write for example {example}"
            self._problems.value(where, value, text)
            return _empty(kind)
        fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
        for name in _NOT_KEYS:
            fields.pop(name, None)
        for key, unread in value.items():
            if key not in fields:
                self._unknown(where, key, unread, sorted(fields), _places(fields, key))
        found: dict[str, Any] = {}
        for name, field in fields.items():
            if name in value:
                found[field.name] = self._value(
                    value[name], field.type, where.key(name, kind is Config)
                )
            elif field.required:
                example = _unwrap(field.type)[1].example
                self._problems.add(
                    where.key(name),
                    "this key is missing"
                    + (f"; write for example {name} = {example}" if example else ""),
                )
                found[field.name] = _placeholder(field.type)
            elif isinstance(field.default, Table):  # its defaults may be relative paths
                found[field.name] = self._value({}, field.type, where.key(name, kind is Config))
            elif field.default and isinstance(field.default, ReadPath | WritePath | FolderPath):
                found[field.name] = self._value(field.default, field.type, where.key(name))
        return kind(**found)

    def _unknown(
        self, where: ConfigPath, key: str, value: Any, known: list[str], places: list[str]
    ) -> None:
        """``places`` are keys beside it, of tables that have such a key."""
        top = not where.name
        near = difflib.get_close_matches(key.lower().replace("-", "_"), known, 1, _MIN_SIMILARITY)
        if not top and key == "listener" and value == []:
            advice = "write listener = [] at the beginning of the file, before the first [table]"
        elif where.path and key in _KEYS.get(where.name, ()):
            advice = (
                f"it is a key of {brackets(where.name)} itself; write it there, above the line of "
                "this table within it"
            )
        elif places and not top:
            advice = f"it belongs into {' or '.join(f'`{name}`' for name in places)}"
        elif near:
            name = brackets(near[0]) if top else f"`{near[0]}`"
            advice = f"did you mean {name}?"
        else:
            advice = "known here: " + ", ".join(
                brackets(name) if top else f"`{name}`" for name in known
            )
        if top:
            written = f"[[{key}]]" if isinstance(value, list) else f"[{key}]"
            self._problems.unknown(ConfigPath(written), f"this table is not known; {advice}")
        else:
            self._problems.unknown(where.key(key), f"this key is not known; {advice}")

    def _value(self, value: Any, annotated: Any, where: ConfigPath) -> Any:
        kind, hints = _unwrap(annotated)
        if isinstance(kind, type) and issubclass(kind, Table):
            return self._struct(value, kind, where, hints.example)
        if get_origin(kind) is tuple:
            return self._list(value, get_args(kind)[0], where, hints)
        try:
            return self._single(value, kind, hints)
        except _InvalidValueError as wrong:
            secret = kind in (Secret, DatabaseUrl) or may_be_secret(where.path, value)
            self._problems.value(where, value, str(wrong), secret=secret)
            return _placeholder(kind)

    def _list(self, value: Any, kind: Any, where: ConfigPath, hints: _Hints) -> tuple[Any, ...]:
        if not isinstance(value, list):
            text = hints.write("a list in brackets")
            if isinstance(value, dict):
                table = f"{where.name}.{where.path}" if where.path else where.name
                text = f"this table may come more than once; write [[{table}]]"
            self._problems.value(where, value, text)
            return ()
        return tuple(
            self._value(each, kind, where.item(number)) for number, each in enumerate(value, 1)
        )

    def _single(self, value: Any, kind: Any, hints: _Hints) -> Any:
        if kind is Settings:
            return self._settings(_dictionary(value, object, hints))
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
                raise _InvalidValueError("write true or false, without quotes")
            return value
        if kind is int:
            if not isinstance(value, int) or isinstance(value, bool):
                raise _InvalidValueError("write a whole number, without quotes")
            return _within(value, hints.bounds, str)
        return self._text(value, kind, hints)

    def _text(self, value: Any, kind: type, hints: _Hints) -> Any:
        if kind is Size and isinstance(value, int) and not isinstance(value, bool):
            return _within(Size(value), hints.bounds, lambda limit: format_size(int(limit)))
        if not isinstance(value, str):
            if kind is Duration and isinstance(value, int | float) and not isinstance(value, bool):
                raise _InvalidValueError(f'a duration has a unit; write for example "{value}s"')
            raise _InvalidValueError(hints.write("text in quotes"))
        try:
            if kind is Duration:
                return _within(parse_duration(value), hints.bounds, format_duration)
            if kind is Size:
                return _within(
                    parse_size(value), hints.bounds, lambda limit: format_size(int(limit))
                )
        except ValueError as error:
            raise _InvalidValueError(str(error)) from None
        if kind is TopicFilter:
            problem = filter_problem(value)
            if problem:
                raise _InvalidValueError(f"not a topic filter: {problem}")
            return TopicFilter(value)
        if kind is Secret:
            secret = self._expanded(value)
            if not secret:
                raise _InvalidValueError("the secret is empty")
            return Secret(secret)
        if kind is DatabaseUrl:
            return DatabaseUrl(self._expanded(value))
        if kind is ReadPath or kind is FolderPath:
            return kind(self._path(value, self._folder))
        if kind is WritePath:
            return WritePath(self._path(value, self._data_dir))
        return value

    def _settings(self, table: Mapping[str, Any], *, is_secret: bool = False) -> Settings:
        """A table of settings whose meaning only their owner knows, with what is in it."""
        return Settings({key: self._setting(key, each, is_secret) for key, each in table.items()})

    def _setting(self, key: str, value: Any, is_secret: bool) -> Any:
        is_file = key.lower().endswith("_file")
        is_secret = is_secret or (not is_file and _may_be_secret(key))
        if isinstance(value, dict):
            return self._settings(value, is_secret=is_secret)
        if isinstance(value, list):
            return [self._setting("", each, is_secret) for each in value]
        if not isinstance(value, str):
            return value
        try:
            if is_file:
                return ReadPath(self._path(value, self._folder))
            text = self._expanded(value)
        except _InvalidValueError as wrong:
            raise _InvalidValueError(f"`{key}`: {wrong}") from None
        # What comes from the environment is there because it may not stand in the file.
        is_secret = is_secret or text != value or _LOGIN_IN_URL.search(text) is not None
        return Secret(text) if is_secret else text

    def _path(self, text: str, folder: str) -> str:
        expanded = self._expanded(text)
        if not expanded.strip():
            raise _InvalidValueError("a path can't be empty")
        if "\0" in expanded:
            raise _InvalidValueError("a path can't have a null character")
        if any(character < " " or character == "\x7f" for character in expanded):
            raise _InvalidValueError(
                "a path has no line breaks, tabs or other control characters; a backslash in "
                "double quotes begins an escape, so write the path in single quotes"
            )
        return os.path.normpath(Path(folder) / Path(expanded).expanduser())

    def _expanded(self, text: str) -> str:
        def variable(match: re.Match[str]) -> str:
            if match[1] not in self._environ:
                raise _InvalidValueError(f"the environment variable {match[1]} is not set; set it")
            return self._environ[match[1]]

        return _VARIABLE.sub(variable, text)


def _table_of(annotated: Any) -> type[Table] | None:
    """The table of a key whose value is a table or a list of tables."""
    kind, _ = _unwrap(annotated)
    kind = get_args(kind)[0] if get_origin(kind) is tuple else kind
    return kind if isinstance(kind, type) and issubclass(kind, Table) else None


def _keys(kind: type[Table]) -> frozenset[str]:
    return frozenset(each.encode_name for each in msgspec.structs.fields(kind))


def _places(fields: Mapping[str, Any], key: str) -> list[str]:
    """Those of the fields whose tables have a key of this name."""
    tables = {name: _table_of(field.type) for name, field in fields.items()}
    return [name for name, kind in tables.items() if kind is not None and key in _keys(kind)]


def _may_be_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _placeholder(annotated: Any) -> Any:
    """A value of the right type in place of a wrong one, so that decoding continues."""
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
    if issubclass(kind, Table):
        return _empty(kind)
    return Secret("") if kind is Secret else kind()


def _empty(kind: type[Table]) -> Table:
    fields = msgspec.structs.fields(kind)
    return kind(**{each.name: _placeholder(each.type) for each in fields if each.required})


def _unwrap(annotated: Any) -> tuple[Any, _Hints]:
    """The type without ``Annotated`` and ``| None`` (TOML has no null), and its annotations."""
    bounds: Bounds | None = None
    example: str | None = None
    kind = annotated
    if get_origin(kind) is Annotated:
        kind, *beside = get_args(kind)
        for each in beside:
            if isinstance(each, Bounds):
                bounds = each
            elif isinstance(each, Example):
                example = each.example
    if get_origin(kind) in (Union, UnionType):
        rest = [each for each in get_args(kind) if each is not type(None)]
        if len(rest) == 1:
            kind = rest[0]
    return kind, _Hints(bounds, example)


def _choice(value: Any, choices: tuple[Any, ...]) -> Any:
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value).lower(), choices, 1, 0.6)
    if near:
        raise _InvalidValueError(f'did you mean "{near[0]}"?')
    raise _InvalidValueError("write one of " + ", ".join(json.dumps(choice) for choice in choices))


def _dictionary(value: Any, kind: Any, hints: _Hints) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _InvalidValueError(hints.write("a table in braces"))
    if kind is str and not all(isinstance(each, str) for each in value.values()):
        raise _InvalidValueError(hints.write("texts in quotes within the braces"))
    return value


def _within(value: Any, bounds: Bounds | None, show: Callable[[float], str]) -> Any:
    if bounds is None:
        return value
    if value < bounds.low:
        raise _InvalidValueError(f"too small; the minimum is {show(bounds.low)}")
    if bounds.high is not None and value > bounds.high:
        raise _InvalidValueError(bounds.beyond or f"too large; the maximum is {show(bounds.high)}")
    return value


_KEYS = {
    field.encode_name: _keys(kind)
    for field in msgspec.structs.fields(Config)
    if (kind := _table_of(field.type)) is not None
}
"""The keys of each table of the file, by the table's name."""
