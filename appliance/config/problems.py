"""Where in a configuration something is wrong, and the list of all that is.

Not for: finding problems (walk.py, checks.py, files.py).
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from appliance.errors import ConfigError

_LONGEST_SHOWN = 60
"""Characters of a wrong value that a message repeats."""


class Place(msgspec.Struct, frozen=True):
    """A table, or a key in it: ``[[trigger]] 2 `debounce```."""

    table: str = ""
    """As it stands in the file, with brackets and, when it may repeat, its number."""
    path: str = ""
    """The key within it, dots between nested keys."""
    name: str = ""
    """The table's name, for advice how to write it; empty for the whole file."""

    def key(self, name: str, is_table: bool = False) -> Place:
        """A key of this table, or (``is_table``) a table of the whole file."""
        if is_table:
            return Place(f"[{name}]", "", name)
        return Place(self.table, f"{self.path}.{name}" if self.path else name, self.name)

    def item(self, number: int) -> Place:
        """The table or item with this number (from 1) where several can stand."""
        if self.path == "rule" and self.table == "[access]":  # the one array of tables in a table
            return Place(f"[[access.rule]] {number}", "", "access.rule")
        if self.path:
            return Place(self.table, f"{self.path}[{number}]", self.name)
        return Place(f"[[{self.name}]] {number}", "", self.name)

    def __str__(self) -> str:
        return f"{self.table} `{self.path}`" if self.path else self.table


class Problems:
    """Everything that is wrong with one file, in the order in which it was found."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lines: list[str] = []
        self._broken: dict[str, set[str]] = {}

    def add(self, place: Place, text: str) -> None:
        """Note that ``text`` (what is wrong; what to write instead) is so at ``place``."""
        self._lines.append(f"{self._file}: {place}: {text}")
        self._broken.setdefault(place.table, set()).add(_first(place.path))

    def unknown(self, place: Place, text: str) -> None:
        """The same about a key that there is not: any other may be meant by it."""
        self.add(place, text)
        self._broken[place.table].add("")

    def value(self, place: Place, value: Any, text: str, *, secret: bool = False) -> None:
        """The same about a value, which is shown unless it is a secret."""
        self.add(place, f"value {'(not shown)' if secret else shown(value)}: {text}")

    def add_unless_broken(self, place: Place, text: str, *about: str) -> None:
        """Note it unless it may follow from what was noted before.

        ``about`` names the keys of the table from which it was concluded; without any, it is
        everything in the table.
        """
        broken = self._broken.get(place.table, set())
        follows = broken & {"", *about} if about else broken
        if not follows:
            self._lines.append(f"{self._file}: {place}: {text}")

    def raise_if_any(self) -> None:
        """Raise ``ConfigError`` with all of them, one a line, if there are any."""
        if self._lines:
            raise ConfigError("\n".join(self._lines))


def _first(path: str) -> str:
    """The key of the table itself: ``tls`` of ``tls.certfile``, ``tasks`` of ``tasks[2]``."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def shown(value: Any) -> str:
    """A value as it would stand in the file, on one line, cut when it is long."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=not value.isprintable())
    elif isinstance(value, dict):
        text = "{...}" if value else "{}"  # it might hold a secret
    elif isinstance(value, list):
        text = "[...]" if value else "[]"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
