"""Rules about ``[[recorder]]``: which keys go together, names, and which recorders share a target.

Not for: columns (recorder_columns.py), single values (decoder.py), the appliance's own files
(recorder_paths.py), whether packages and files are there (extras.py, files.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from appliance.config.database_url import is_mongodb, sqlite_file, url_problems
from appliance.config.named_levels import read_named
from appliance.config.problems import ConfigPath, shown
from appliance.config.recorder_columns import column_problems
from appliance.config.tables import Config, QlikConfig, RecorderConfig

_NAME = re.compile(r"[\w .-]{1,60}")
_TABLE = re.compile(r"[\w$ .-]{1,63}")
_MOST_DATABASES = 50
"""Each has a thread and a connection of its own."""
_PARTS = frozenset({"parquet", "qvd"})
_OF_FILES = ("format", "compression", "rotate", "keep", "upload")
"""Keys that mean nothing for a table of a database."""
_ENDINGS = frozenset({"csv", "jsonl", "parquet", "qvd"})
"""Endings of file names that promise a format. (Any JSON may be in ``.json``.)"""
_DEFAULT = RecorderConfig("")  # type: ignore[arg-type]


class Problem(NamedTuple):
    """One broken rule."""

    where: ConfigPath
    text: str
    about: tuple[str, ...]
    """Keys of the table that the rule depends on."""


Found = Iterator[tuple[str, ...]]
"""A key, what is wrong with it, and the keys that the rule depends on if there are more."""


def recorder_problems(config: Config) -> Iterator[Problem]:
    """Every rule about recorders that ``config`` breaks."""
    databases = sum(each.database is not None for each in config.recorder)
    if databases > _MOST_DATABASES:
        text = f"{databases} recorders have `database`, and at most {_MOST_DATABASES} can be served"
        yield Problem(ConfigPath("[[recorder]]"), f"{text}; remove some", ("database",))
    for number, recorder in enumerate(config.recorder, 1):
        for key, text, *about in _of_one(recorder, config):
            keys = tuple(about) or (re.split(r"[.\[]", key)[0],)
            yield Problem(ConfigPath(f"[[recorder]] {number}", key), text, keys)
    yield from _shared(config)


def _of_one(recorder: RecorderConfig, config: Config) -> Found:
    yield from _target(recorder)
    if recorder.name and (not _NAME.fullmatch(recorder.name) or not recorder.name.strip(" .")):
        text = "a name has 1 to 60 letters, digits, blanks, - _ or . only"
        yield "name", f"value {shown(recorder.name)}: {text}"
    yield from _topic(recorder)
    yield from _mode(recorder)
    if recorder.database is not None:
        yield from _database(recorder)
    else:
        yield from _files(recorder, config.qlik)
    yield from column_problems(recorder)


def _target(recorder: RecorderConfig) -> Found:
    if not recorder.path and recorder.database is None:
        text = 'this key is missing; write for example path = "recordings/integers.json"'
        yield "path", text, "path", "database"
    elif recorder.path and recorder.database is not None:
        yield "database", "`path` is set too; keep one of the two", "path", "database"


def _topic(recorder: RecorderConfig) -> Found:
    try:
        read_named(recorder.topic)
    except ValueError as error:
        yield "topic", f"value {shown(str(recorder.topic))}: {error}"
        return


def _mode(recorder: RecorderConfig) -> Found:
    if recorder.mode != "append":
        for key in ("rotate", "keep"):
            if getattr(recorder, key) is not None:
                text = f'it is about files of mode "append", and `mode` is "{recorder.mode}"; '
                yield key, f"{text}remove it", key, "mode"
        if recorder.compression != "none":
            text = f'the file of mode "{recorder.mode}" is never closed, so it is not compressed; '
            yield "compression", f"{text}remove it", "compression", "mode"
    elif recorder.key:
        text = 'it belongs to mode "latest" or "update"; add `mode`, or remove it'
        yield "key", text, "key", "mode"


def _files(recorder: RecorderConfig, qlik: QlikConfig | None) -> Found:
    for key in ("rotate", "keep"):
        bounds = getattr(recorder, key)
        if bounds is not None and not any(getattr(bounds, one) for one in bounds.__struct_fields__):
            names = ", ".join(f"`{one}`" for one in bounds.__struct_fields__)
            example = '{size = "64MB"}' if key == "rotate" else '{age = "30d"}'
            yield key, f"it has no bound; write one of {names}, for example {key} = {example}"
    if recorder.mode == "append":
        yield from _closing(recorder)
    if recorder.upload is not None:
        yield from _upload(recorder, qlik)


def _closing(recorder: RecorderConfig) -> Found:
    """What needs files that are closed."""
    about = ("rotate", "format", "path", "mode")
    if recorder.compression != "none" and recorder.format in _PARTS:
        text = f'it is for json, jsonl and csv; "{recorder.format}" is compact by itself; remove it'
        yield "compression", text, "compression", "format"
    elif recorder.compression != "none" and not has_closed_files(recorder):
        text = "only closed files are compressed, and this one grows for ever; add for example "
        yield "compression", f'{text}rotate = {{size = "64MB"}}', "compression", *about
    for key in ("keep", "upload"):
        if getattr(recorder, key) is not None and not has_closed_files(recorder):
            text = "it is about closed files, and this one grows for ever; add for example "
            yield key, f'{text}rotate = {{size = "64MB"}}', key, *about


def _upload(recorder: RecorderConfig, qlik: QlikConfig | None) -> Found:
    if qlik is None or qlik.edition == "client-managed":
        text = "only Qlik Cloud has data files; "
        text += (
            'add [qlik] with edition = "cloud"'
            if qlik is None
            else "client-managed Qlik Sense reads the folder itself (docs/qlik-data.md); remove it"
        )
        yield "upload", text
    assert recorder.upload is not None
    folder = recorder.upload.folder
    if folder and (
        "\\" in folder
        or not folder.isprintable()
        or any(each in ("", ".", "..") for each in folder.split("/"))
    ):
        text = 'a folder is names with / between them; write for example "plant/line1"'
        yield "upload.folder", f"value {shown(folder)}: {text}"
    if not recorder.upload.space.isprintable():
        yield "upload.space", f"value {shown(recorder.upload.space)}: not the name of a space"


def _database(recorder: RecorderConfig) -> Found:
    database = recorder.database
    assert database is not None
    for key in _OF_FILES:
        if getattr(recorder, key) != getattr(_DEFAULT, key):
            yield key, "it is about files, and this recorder has `database`; remove it"
    if database.password is not None and database.password_file is not None:
        yield "database.password", "`password_file` is set too; keep one of the two"
    for text in url_problems(database.url):
        yield "database.url", text
    if sqlite_file(database.url) is not None:
        for key in ("password", "password_file"):
            if getattr(database, key) is not None:
                yield f"database.{key}", "an SQLite file has no password; remove it"
    table = database.table
    if table and (
        not _TABLE.fullmatch(table)
        or not table.strip(" .")
        or (is_mongodb(database.url) and (table.startswith("system.") or "$" in table))
    ):
        text = "a table's name has at most 63 letters, digits and _; write for example"
        yield "database.table", f'value {shown(table)}: {text} "messages"'


def has_time(recorder: RecorderConfig) -> bool:
    """Whether another file begins as time passes, because the path says the date or the hour."""
    return "{date}" in recorder.path or "{hour}" in recorder.path


def has_closed_files(recorder: RecorderConfig) -> bool:
    """Whether files are closed while the recorder runs."""
    return recorder.format in _PARTS or recorder.rotate is not None or has_time(recorder)


def _shared(config: Config) -> Iterator[Problem]:
    names: set[str] = set()
    tables: dict[tuple[str, str], int] = {}
    for number, recorder in enumerate(config.recorder, 1):
        table = f"[[recorder]] {number}"
        if recorder.name and recorder.name.casefold() in names:
            text = f"{shown(recorder.name)} is taken; choose another name"
            yield Problem(ConfigPath(table, "name"), text, ("name",))
        names.add(recorder.name.casefold())
        if recorder.database is None:
            continue
        key = (recorder.database.url, recorder.database.table or recorder.used_name)
        if key in tables:
            text = f"[[recorder]] {tables[key]} writes this table; give each its own `table`"
            yield Problem(ConfigPath(table, "database"), text, ("database", "name"))
        tables.setdefault(key, number)


def recorder_advice(config: Config) -> Iterator[str]:
    """What is allowed and may be a mistake, one line each."""
    for number, recorder in enumerate(config.recorder, 1):
        where = f"[[recorder]] {number}"
        ending = (recorder.path or "").rpartition(".")[2].lower()
        if ending in _ENDINGS - {recorder.format} and recorder.database is None:
            yield (
                f"{where} writes {recorder.format}, and its `path` ends with .{ending}: write"
                f' format = "{ending}", or another ending'
            )
        if recorder.rotate is not None and recorder.keep is None and recorder.upload is None:
            yield f"{where} has `rotate` and no `keep`: closed files stay until the disk is full"
