"""The place of a problem in a configuration, and the list of all problems.

Not for: finding problems (decoder.py, checks.py, files.py).
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from appliance.errors import ConfigError

_LONGEST_SHOWN = 60
"""Characters of a wrong value that a message shows."""


class ConfigPath(msgspec.Struct, frozen=True):
    """A table, or a key in it: ``[[trigger]] 2 `debounce```."""

    table: str = ""
    """As in the file, with brackets, and with its number if the table may repeat."""
    path: str = ""
    """The key in the table, with dots between nested keys."""
    name: str = ""
    """The table's name without brackets; empty for the whole file."""

    def key(self, name: str, is_table: bool = False) -> ConfigPath:
        """A key of this table, or (``is_table``) a table of the whole file."""
        if is_table:
            return ConfigPath(f"[{name}]", "", name)
        return ConfigPath(self.table, f"{self.path}.{name}" if self.path else name, self.name)

    def item(self, number: int) -> ConfigPath:
        """The table or list item with this number, counted from 1."""
        if self.path in ("rule", "plugins") and self.table == "[access]":  # tables in a table
            return ConfigPath(f"[[access.{self.path}]] {number}", "", f"access.{self.path}")
        if self.path:
            return ConfigPath(self.table, f"{self.path}[{number}]", self.name)
        return ConfigPath(f"[[{self.name}]] {number}", "", self.name)

    def __str__(self) -> str:
        return f"{self.table} `{self.path}`" if self.path else self.table


class Problems:
    """All problems of one file, in the order in which they were found."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lines: list[str] = []
        self._broken: dict[str, set[str]] = {}

    def add(self, where: ConfigPath, text: str) -> None:
        """Add a problem. ``text`` says what is wrong and what to write instead."""
        self._lines.append(f"{self._file}: {where}: {text}")
        self._broken.setdefault(where.table, set()).add(_first(where.path))

    def unknown(self, where: ConfigPath, text: str) -> None:
        """Add an unknown key. It may be a misspelling of any key of its table."""
        self.add(where, text)
        self._broken[where.table].add("")

    def value(self, where: ConfigPath, value: Any, text: str, *, secret: bool = False) -> None:
        """Add a wrong value. The problem shows the value unless it is a secret."""
        self.add(where, f"value {'(not shown)' if secret else shown(value)}: {text}")

    def add_unless_consequence(self, where: ConfigPath, text: str, *about: str) -> None:
        """Add a problem unless it may be a consequence of an earlier one.

        ``about`` names the keys of the table that the problem depends on. Without any, it depends
        on every key of the table.
        """
        broken = self._broken.get(where.table, set())
        follows = broken & {"", *about} if about else broken
        if not follows:
            self._lines.append(f"{self._file}: {where}: {text}")

    def raise_if_any(self) -> None:
        """Raise ``ConfigError`` with all problems, one a line, if there are any."""
        if self._lines:
            raise ConfigError("\n".join(self._lines))


def _first(path: str) -> str:
    """The key of the table itself: ``tls`` of ``tls.certfile``, ``tasks`` of ``tasks[2]``."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def shown(value: Any) -> str:
    """A value as the file writes it, on one line, cut after 60 characters."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = json.dumps(value, ensure_ascii=not value.isprintable())
    elif isinstance(value, dict):
        text = "{...}" if value else "{}"  # it may hold a secret
    elif isinstance(value, list):
        text = "[...]" if value else "[]"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
