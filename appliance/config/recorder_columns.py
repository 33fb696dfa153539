"""Rules about the columns of a recorder: ``fields``, ``types``, ``time_field``, ``key``, levels.

Not for: which columns a payload gives (recorders/), other keys (recorder_checks.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from appliance.config.database_url import is_mongodb
from appliance.config.named_levels import read_named
from appliance.config.problems import shown
from appliance.config.tables import RecorderConfig
from appliance.config.value_path import parse_path

KINDS = ("integer", "number", "boolean", "text", "time")
MAX_FIELDS = 200
METADATA = ("seq", "time", "topic", "client", "qos", "retain")
PAYLOAD = "payload"
TABLE_KEYS = ("installation", "seq", "item", "key", "key_hash")
"""Columns by which a table of a database knows its rows (recorders/sql_table.py)."""
_LONGEST = 100
_TABLES = frozenset({"csv", "parquet", "qvd"})


def column_problems(recorder: RecorderConfig) -> Iterator[tuple[str, ...]]:
    """A key, what is wrong with it, and the keys that the rule depends on if there are more."""
    taken = dict(_columns_of_others(recorder))
    try:
        levels = [name for name, _ in read_named(recorder.topic).levels]
    except ValueError:  # reported elsewhere
        levels = []
    for name in levels:
        if name in taken:
            text = f"{{{name}}} would be a second column {name}, beside {taken[name]}; choose "
            yield "topic", f"{text}another name", "topic", "metadata", "database", "format"
        taken.setdefault(name, "the level of `topic`")
    fields = recorder.fields
    if fields is not None:
        yield from _fields(fields, taken)
        taken |= dict.fromkeys(fields, "`fields`")
    if recorder.time_field:
        if problem := _name_problem(recorder.time_field):
            yield "time_field", f"value {shown(recorder.time_field)}: {problem}"
        elif recorder.time_field in taken:
            text = f"value {shown(recorder.time_field)}: {taken[recorder.time_field]} has this "
            yield "time_field", f"{text}name; choose another", "time_field", "fields", "topic"
    if recorder.key:
        try:
            parse_path(recorder.key)
        except ValueError as error:
            yield "key", f"value {shown(recorder.key)}: {error}"
    yield from _types(recorder, levels)


def _columns_of_others(recorder: RecorderConfig) -> Iterator[tuple[str, str]]:
    """Columns that a recorder has whatever the payload is, and where they come from."""
    if recorder.database is not None:
        names = ("_id",) if is_mongodb(recorder.database.url) else TABLE_KEYS
        yield from ((name, "the key of the table") for name in names)
    if recorder.metadata:
        yield from ((name, "`metadata`") for name in METADATA)
    if recorder.metadata or recorder.database is not None or recorder.format in _TABLES:
        yield PAYLOAD, "the whole payload"


def _fields(fields: dict[str, str], taken: dict[str, str]) -> Iterator[tuple[str, ...]]:
    if not fields:
        text = 'it names no field; remove it, or write for example {temperature = "data.temp"}'
        yield "fields", text
    if len(fields) > MAX_FIELDS:
        yield "fields", f"there are {len(fields)} fields, and at most {MAX_FIELDS}; remove some"
    for name, path in fields.items():
        if problem := _name_problem(name):
            yield "fields", f"key {shown(name)}: {problem}"
        elif name in taken:
            text = f"key {shown(name)}: {taken[name]} has this name; choose another"
            yield "fields", text, "fields", "topic", "metadata", "format", "database"
        try:
            parse_path(path)
        except ValueError as error:
            yield f"fields.{name}", f"value {shown(path)}: {error}"


def _types(recorder: RecorderConfig, levels: list[str]) -> Iterator[tuple[str, ...]]:
    for name, kind in (recorder.types or {}).items():
        if kind not in KINDS:
            near = difflib.get_close_matches(kind.lower(), KINDS, 1, 0.5)
            listed = ", ".join(f'"{each}"' for each in KINDS)
            advice = f'did you mean "{near[0]}"?' if near else f"write one of {listed}"
            yield f"types.{name}", f"value {shown(kind)}: {advice}"
        if recorder.fields and name not in recorder.fields and name not in levels:
            near = difflib.get_close_matches(name, [*recorder.fields, *levels], 1, 0.6)
            advice = f"did you mean {near[0]}?" if near else "add it there, or remove it here"
            yield f"types.{name}", f"there is no such column in `fields`; {advice}"
    if recorder.types == {}:
        yield "types", 'it names no column; remove it, or write {temperature = "number"}'


def _name_problem(name: str) -> str | None:
    if not name.strip():
        return "a name is not empty"
    if not name.isprintable() or name != name.strip() or len(name) > _LONGEST:
        return f"a name has at most {_LONGEST} visible characters, and no blank at its ends"
    return None
