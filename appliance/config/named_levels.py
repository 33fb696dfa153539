"""Named levels of a recorder's topic: ``plant/{line}/{sensor}`` is the filter ``plant/+/+``.

``{{`` and ``}}`` stand for the characters themselves. Not for: topic filters (mqtt/topics.py), what
a name becomes (a column, a part of a path).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""Names of columns that every format and database takes without quotes."""
RESERVED = frozenset({"date", "hour", "topic"})
"""Placeholders of `path` that mean something else."""
_WRITE = 'write for example "plant/{line}/{sensor}"'


class NamedTopic(NamedTuple):
    """A topic as it was written, taken apart."""

    topic_filter: str
    levels: tuple[tuple[str, int], ...]
    """Each name, and the number of its level, from 0."""


@lru_cache(maxsize=256)
def read_named(written: str) -> NamedTopic:
    """Take a recorder's topic apart. Raises ``ValueError`` with a text for the user."""
    parts: list[str] = []
    levels: dict[str, int] = {}
    for number, level in enumerate(written.split("/")):
        literal = level.replace("{{", "").replace("}}", "")
        if "{" not in literal and "}" not in literal:
            parts.append(level.replace("{{", "{").replace("}}", "}"))
            continue
        if not (level.startswith("{") and level.endswith("}") and level.count("{") == 1):
            raise ValueError(
                f"a name in braces is a whole level, between two slashes; {_WRITE}, and {{{{ and "
                "}} for braces that belong to the topic"
            )
        name = level[1:-1]
        if not NAME.fullmatch(name):
            raise ValueError(
                "the name of a level begins with a letter and has at most 64 letters (a to z), "
                f"digits and _; {_WRITE}, and {{{{ and }}}} for braces that belong to the topic"
            )
        if name in RESERVED:
            raise ValueError(
                f"{{{name}}} means something else in `path`; give the level another name"
            )
        if name in levels:
            raise ValueError(f"two levels have the name {name}; give each its own")
        levels[name] = number
        parts.append("+")
    return NamedTopic("/".join(parts), tuple(levels.items()))
