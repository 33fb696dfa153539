"""What happened to the keys of Butler's file: read, different here, left out, off.

No value of a key that may be a secret gets in here. Not for: showing it (report.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.commands.from_butler.yaml_tree import Item


class Findings:
    """Collects what the modules say about keys, each named by its path below ``Butler``."""

    def __init__(self) -> None:
        self.different: list[str] = []
        """What is taken over and works in another way, a sentence each, with its key."""
        self.left_out: dict[str, list[str]] = {}
        """Why something is not taken over, and the keys."""
        self.off: list[str] = []
        """What is off in Butler."""
        self._read: set[str] = set()
        self._dealt_with: set[str] = set()

    def read(self, path: str) -> None:
        """A key whose value was used, or has no meaning by itself."""
        self._read.add(path)

    def differs(self, path: str, text: str) -> None:
        """A key that is taken over and works in another way."""
        line = f"{path}: {text}"
        if line not in self.different:
            self.different.append(line)

    def leave(self, path: str, reason: str) -> None:
        """A key, with all below it, that is not taken over. ``reason`` says what to do instead."""
        paths = self.left_out.setdefault(reason, [])
        if path not in paths:
            paths.append(path)
        self._dealt_with.add(path)

    def turned_off(self, path: str) -> None:
        """A section that is off in Butler."""
        if path not in self.off:
            self.off.append(path)
        self._dealt_with.add(path)

    def unread(self, item: Item, path: str = "") -> Iterable[tuple[str, Item]]:
        """Every value, with its path, that nothing has been said about yet."""
        if path in self._dealt_with or path in self._read:
            return
        if isinstance(item.value, dict) and item.value:
            for key, each in item.value.items():
                yield from self.unread(each, f"{path}.{key}" if path else key)
        elif isinstance(item.value, tuple) and item.value:
            for number, each in enumerate(item.value, 1):
                yield from self.unread(each, f"{path}[{number}]")
        else:
            yield path, item
