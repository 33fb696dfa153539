"""A mapping of Butler's file, read without trust in the types of its values.

A value of another type than wanted is noted and counts as missing. A key is found in any case
(`configFile` for `configfile`), because Butler's versions differ in that.
Not for: what a key means (the modules of the parts).
"""

from __future__ import annotations

import math

from appliance.commands.from_butler.findings import Findings
from appliance.commands.from_butler.yaml_tree import Item

_LARGEST_PORT = 65535
_TRUTH = {"true": True, "false": False}


class Section:
    """A mapping; an empty one where the file has none."""

    def __init__(self, item: Item | None, path: str, findings: Findings) -> None:
        value = item.value if item is not None else None
        self._items = value if isinstance(value, dict) else {}
        self.path = path
        """Where it is, below ``Butler``."""
        self.findings = findings
        if value is not None and not isinstance(value, dict) and item is not None:
            self._wrong(path, item, "keys with values below it are wanted")

    def __bool__(self) -> bool:
        return bool(self._items)

    def key(self, name: str) -> str:
        """The path of a key."""
        name = self._found(name) or name
        return f"{self.path}.{name}" if self.path else name

    def section(self, name: str) -> Section:
        """The mapping below a key."""
        return Section(self._item(name), self.key(name), self.findings)

    def sections(self, name: str) -> list[Section]:
        """The mappings of a list."""
        return [
            Section(each, f"{self.key(name)}[{number}]", self.findings)
            for number, each in enumerate(self._list(name), 1)
        ]

    def has(self, name: str) -> bool:
        """Whether the key is there, with a value."""
        item = self._item(name)
        return item is not None and item.value is not None

    def text(self, *names: str) -> str:
        """The text of the first of these keys that is there; empty if it has none."""
        for name in names:
            item = self._taken(name)
            if item is None:
                continue
            if isinstance(item.value, str):
                return item.value.strip()
            if isinstance(item.value, int | float) and not isinstance(item.value, bool):
                return str(item.value)
            self._wrong(self.key(name), item, "a text is wanted")
        return ""

    def texts(self, *names: str) -> list[str]:
        """The texts of a list, those that are empty left out."""
        for name in names:
            found: list[str] = []
            for number, item in enumerate(self._list(name), 1):
                path = f"{self.key(name)}[{number}]"
                self.findings.read(path)
                value = item.value
                if isinstance(value, str | int | float) and not isinstance(value, bool):
                    found.append(str(value).strip())
                elif value is not None:
                    self._wrong(path, item, "a text is wanted")
            if found:
                return [text for text in found if text]
        return []

    def number(self, *names: str) -> int | None:
        """The whole number of the first of these keys that is there."""
        for name in names:
            item = self._taken(name)
            if item is None:
                continue
            value = item.value
            if isinstance(value, str):
                digits = value.strip()
                value = int(digits) if digits.isascii() and digits.isdigit() else value
            if isinstance(value, float) and math.isfinite(value):
                value = int(value)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            self._wrong(self.key(name), item, "a number is wanted")
        return None

    def port(self, name: str) -> int | None:
        """The number of a port; ``None`` if it is missing or can't be one."""
        found = self.number(name)
        if found is not None and not 0 < found <= _LARGEST_PORT:
            self.leave(name, "not a port; the usual one is written")
            return None
        return found

    def flag(self, name: str, default: bool) -> bool:
        """A truth value; ``default`` if it is missing."""
        item = self._taken(name)
        value = item.value if item is not None else None
        if isinstance(value, str):
            value = _TRUTH.get(value.strip().lower(), value)
        if isinstance(value, bool):
            return value
        if item is not None:
            self._wrong(self.key(name), item, "true or false is wanted")
        return default

    def enabled(self, name: str = "enable") -> bool:
        """Whether a section is on. One without ``enable`` is, if it is there at all."""
        if not self:
            return False
        if self.is_on(name):
            return True
        if self._is_truth(name):
            self.findings.turned_off(self.path)
        else:
            reason = f"`{name}` is neither true nor false, so it is taken for off; correct it"
            self.findings.leave(self.path, f"{reason}, and call the command again")
        return False

    def is_on(self, name: str = "enable") -> bool:
        """A switch: on if it is missing, off if it has another value than true.

        Butler's reader has ``no`` and ``yes`` as texts, and Butler wants true: what is written in
        another way puts nothing into effect.
        """
        return self.flag(name, True) and self._is_truth(name)

    def _is_truth(self, name: str) -> bool:
        item = self._item(name)
        value = item.value if item is not None else None
        return item is None or isinstance(value, bool) or str(value).strip().lower() in _TRUTH

    def used(self, *names: str) -> None:
        """Keys that have a meaning only with others, which were used."""
        for name in names:
            self.findings.read(self.key(name))

    def leave(self, name: str, reason: str) -> None:
        """A key that is not taken over, if the file has it."""
        if self._item(name) is not None:
            self.findings.leave(self.key(name), reason)

    def _found(self, name: str) -> str | None:
        if name in self._items:
            return name
        return next((key for key in self._items if key.lower() == name.lower()), None)

    def _item(self, name: str) -> Item | None:
        found = self._found(name)
        return self._items[found] if found is not None else None

    def _taken(self, name: str) -> Item | None:
        """The value, if there is one; the key counts as read."""
        item = self._item(name)
        if item is None:
            return None
        self.findings.read(self.key(name))
        return item if item.value is not None else None

    def _list(self, name: str) -> tuple[Item, ...]:
        item = self._item(name)
        if item is None or item.value is None:
            if item is not None:
                self.findings.read(self.key(name))
            return ()
        if isinstance(item.value, tuple):
            if not item.value:
                self.findings.read(self.key(name))
            return item.value
        if isinstance(item.value, dict):
            self._wrong(self.key(name), item, "a list is wanted")
            return ()
        self.findings.read(self.key(name))
        return (item,)  # one entry, without its dash

    def _wrong(self, path: str, item: Item, wanted: str) -> None:
        self.findings.leave(path, f"{wanted} (line {item.line} of the file)")
