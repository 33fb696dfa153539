"""Rules about ``[[recorder]]``: which keys go together, names, columns, who writes what.

Not for: single values (decoder.py), the appliance's own files (recorder_paths.py), whether packages
and files are there (extras.py, files.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from appliance.config.named_levels import read_named
from appliance.config.problems import ConfigPath, shown
from appliance.config.tables import Config, RecorderConfig


class Problem(NamedTuple):
    """One broken rule."""

    where: ConfigPath
    text: str
    about: tuple[str, ...]
    """Keys of the table that the rule depends on."""


def recorder_problems(config: Config) -> Iterator[Problem]:
    """Every rule about recorders that ``config`` breaks."""
    for number, recorder in enumerate(config.recorder, 1):
        table = f"[[recorder]] {number}"
        for key, text, *about in _of_one(recorder):
            keys = tuple(about) or (re.split(r"[.\[]", key)[0],)
            yield Problem(ConfigPath(table, key), text, keys)


def _of_one(recorder: RecorderConfig) -> Iterator[tuple[str, ...]]:
    """A key, what is wrong with it, and the keys that the rule depends on if there are more."""
    yield from _target(recorder)
    try:
        read_named(recorder.topic)
    except ValueError as error:
        yield "topic", f"value {shown(str(recorder.topic))}: {error}"


def _target(recorder: RecorderConfig) -> Iterator[tuple[str, ...]]:
    if not recorder.path and recorder.database is None:
        text = 'this key is missing; write for example path = "recordings/integers.json"'
        yield "path", text, "path", "database"
    elif recorder.path and recorder.database is not None:
        yield "database", "`path` is set too; keep one of the two", "path", "database"
