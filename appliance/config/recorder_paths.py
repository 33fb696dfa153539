"""Paths that no recorder may write: files that the appliance writes or reads itself, and folders.

A recording sets a foreign file aside, which would remove the journal or the users file.
Not for: two recorders with one path (checks.py), writing (the recorders).
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from appliance.config.database_url import sqlite_file
from appliance.config.key_files import key_files, tokens_file
from appliance.config.path_placeholders import (
    OF_TOPIC,
    PathTemplate,
    has_placeholders,
    may_be_same,
    read_template,
)
from appliance.config.problems import ConfigPath, shown
from appliance.config.tables import Config, RecorderConfig
from appliance.mqtt.overlap import overlap
from appliance.storage.files import real_path

_OWN = re.compile(
    r"(?P<database>.+\.db(?:-wal|-shm|-journal)?|journal\.db\..*)"
    r"|appliance\.lock|(?:health|request|answer|ui)\.json(?:\.new)?|logs"
)
"""Names in the data directory. Every database there belongs to the appliance, as for backups."""


def own_file(path: str, data_dir: str) -> str | None:
    """The appliance's own file or folder at ``path`` or above it, in words, or ``None``.

    Both paths are absolute. The file system is not read. Letter case is ignored, because some file
    systems ignore it.
    """
    where, folder = (os.path.normcase(each).casefold() for each in (path, data_dir))
    if where == folder or folder.startswith(where.rstrip(os.sep) + os.sep):
        return "`data_dir`" if where == folder else "a folder that holds `data_dir`"
    if not folder.endswith(os.sep):
        folder += os.sep
    if not where.startswith(folder):
        return None
    match = _OWN.fullmatch(where.removeprefix(folder).split(os.sep, 1)[0])
    if match is None:
        return None
    if match["database"]:
        return "a database of the appliance, as every .db file directly in `data_dir` is"
    return "a file of the appliance itself"


def not_a_recording(path: str, data_dir: str) -> str | None:
    """Why no recording may be at ``path``, given the files on the disk now; ``None`` if one may.

    Links are followed. If the path can't be read, the later write reports the error.
    """
    own = own_file(real_path(path), real_path(data_dir))
    if own:
        return f"this is {own}"
    try:
        kind = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(kind):
        return "this is a folder"
    return None if stat.S_ISREG(kind) else "this is a device or a pipe, not a file"


def template_of(recorder: RecorderConfig, data_dir: str) -> PathTemplate | None:
    """The recorder's path, if it has placeholders.

    Raises:
        ValueError: the path can't be taken; the text says why and what to do.
    """
    if not has_placeholders(recorder.path, data_dir):
        return None
    return read_template(recorder.path, data_dir, [name for name, _ in recorder.levels])


def path_problems(config: Config) -> Iterator[tuple[ConfigPath, str]]:
    """Problems of the recorders' paths as they are written; no file is opened."""
    yield from _own_problems(config)
    data_dir = config.service.data_dir
    placed: list[tuple[_Written, PathTemplate | str]] = []
    for written in _written(config):
        try:
            path = template_of(written.recorder, data_dir) or str(written.path)
        except ValueError:
            continue
        for other, other_path in placed:
            if _may_share(written.recorder, path, other.recorder, other_path):
                said = (
                    f"{other.where.table} writes this file"
                    if isinstance(path, str) and isinstance(other_path, str)
                    else f"{other.where.table} may write the same file for some topic"
                )
                advice = "choose another, or give each a folder of its own"
                yield written.where, f"value {shown(str(written.path))}: {said}; {advice}"
                break
        placed.append((written, path))


def _may_share(
    one: RecorderConfig,
    one_path: PathTemplate | str,
    other: RecorderConfig,
    other_path: PathTemplate | str,
) -> bool:
    """Whether two recorders could write the same file."""
    if isinstance(one_path, str) and isinstance(other_path, str):
        # Two recorders may have tables in one SQLite file.
        is_shared = one.database is not None and other.database is not None
        return not is_shared and os.path.normcase(one_path) == os.path.normcase(other_path)
    if one_path == other_path and f"{{{OF_TOPIC}}}" in one.path:
        return overlap(one.topic_filter, other.topic_filter)  # one topic, one file
    return may_be_same(one_path, other_path)


def _own_problems(config: Config) -> Iterator[tuple[ConfigPath, str]]:
    read = {os.path.normcase(path): where for where, path in files_read(config)}
    for written in _written(config):
        recorder, path = written.recorder, written.path
        what = own_file(path, config.service.data_dir)
        what = what or read.get(os.path.normcase(path))
        if what is None and _is_reserved(path):
            what = "a device or another name that Windows has for no file"
        if what is None and path == recorder.path:
            try:
                template = template_of(recorder, config.service.data_dir)
            except ValueError as error:
                yield written.where, f"value {shown(str(path))}: {error}"
                continue
            if template is not None:
                named = (where for path, where in read.items() if may_be_same(template, path))
                what = next((f"a path that for some topic is {where}" for where in named), None)
        if what:
            yield written.where, _said(written, f"this is {what}")


def disk_problems(config: Config) -> Iterator[tuple[ConfigPath, str]]:
    """Problems of the recorders' paths with links followed, and of files that exist there."""
    for written in _written(config):
        problem = not_a_recording(written.path, config.service.data_dir)
        same = (where for where, path in files_read(config) if _is_same(path, written.path))
        if problem is None and (what := next(same, None)):
            problem = f"this is {what}"
        if problem:
            yield written.where, _said(written, problem)


def files_read(config: Config) -> Iterator[tuple[str, str]]:
    """Every file that the appliance reads because of ``config``: a description and its path."""
    if config.file:
        yield "the configuration itself", config.file
    if config.access.users_file is not None:
        yield "the file of [access] `users_file`", config.access.users_file
        yield "the tokens of [access] `users_file`", str(tokens_file(config.access.users_file))
    for where, path in key_files(config):
        yield f"the file of {where}", path


def _is_reserved(path: str) -> bool:
    """Whether Windows opens something else than a file of this name: ``con.json``, ``a:b.json``."""
    if sys.platform != "win32":
        return False
    pure = PurePath(path)
    # Joined to a folder, "a:b.json" is a file on drive A: until Python 3.12, a stream since then.
    if ":" in pure.name or (pure.drive and not pure.is_absolute()):
        return True
    if sys.version_info >= (3, 13):
        return os.path.isreserved(path)
    return pure.is_reserved()


def _is_same(path: str, other: str) -> bool:
    try:
        return Path(path).samefile(other)
    except (OSError, ValueError):  # one of them is not there, so nothing can be overwritten yet
        return real_path(path) == real_path(other)


class _Written(NamedTuple):
    """A file that a recorder writes, or its path before placeholders are replaced."""

    where: ConfigPath
    path: str
    recorder: RecorderConfig
    example: str


def _written(config: Config) -> Iterator[_Written]:
    for number, recorder in enumerate(config.recorder, 1):
        table = f"[[recorder]] {number}"
        if recorder.path:
            example = '"recordings/integers.json"'
            yield _Written(ConfigPath(table, "path"), recorder.path, recorder, example)
        if recorder.database is not None and (path := sqlite_file(recorder.database.url)):
            example = '"sqlite:///recordings/messages.db"'
            yield _Written(ConfigPath(table, "database.url"), path, recorder, example)


def _said(written: _Written, problem: str) -> str:
    return f"value {shown(str(written.path))}: {problem}; write for example {written.example}"
