"""Tables of the engine's state: each entry is encoded once and numbered by its last change.

The changes since a terminal's last frame are the entries with a larger number, so each terminal
can read at its own pace. Not for: what the entries mean.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from appliance.remote.protocol import encode

Key = int | str
_GONE = msgspec.Raw(b"\xc0")  # MessagePack's nil


class _Entry:
    __slots__ = ("raw", "value", "version")

    def __init__(self, version: int, value: object, raw: msgspec.Raw) -> None:
        self.version = version
        self.value = value
        self.raw = raw


class Table:
    """Values by key in the order of their last change. Not thread-safe."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self.version = 0
        """Number of the last change."""

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: Key, value: object) -> None:
        """Keep a value. The same value again is no change."""
        entry = self._entries.get(key)
        if entry is not None and (entry.value is value or entry.value == value):
            return
        self._change(key, value, msgspec.Raw(encode(value)))

    def keep_only(self, keys: Iterable[Key]) -> None:
        """Mark all other keys as removed."""
        wanted = set(keys)
        for key, entry in list(self._entries.items()):
            if key not in wanted and entry.raw is not _GONE:
                self._change(key, None, _GONE)

    def _change(self, key: Key, value: object, raw: msgspec.Raw) -> None:
        self.version += 1
        self._entries[key] = _Entry(self.version, value, raw)
        self._entries.move_to_end(key)

    def forget_gone(self, version: int) -> None:
        """Drop the marks of removed keys up to a change that every reader has seen."""
        done = [
            key
            for key, entry in self._entries.items()
            if entry.raw is _GONE and entry.version <= version
        ]
        for key in done:
            del self._entries[key]

    def bound(self, most: int) -> None:
        """Drop the entries with the oldest changes, beyond ``most``."""
        while len(self._entries) > most:
            self._entries.popitem(last=False)

    def since(self, version: int, budget: int) -> tuple[dict[Key, msgspec.Raw], int, int]:
        """The changes after ``version``, the oldest first, of about ``budget`` bytes.

        At least one change if there is any, so that a reader always advances. Returns the changes,
        the number of the last change that the reader has seen then, and their size in bytes.
        """
        if version >= self.version:
            return {}, version, 0
        newer: list[tuple[Key, _Entry]] = []
        for key, entry in reversed(self._entries.items()):
            if entry.version <= version:
                break
            newer.append((key, entry))
        found: dict[Key, msgspec.Raw] = {}
        size = 0
        for key, entry in reversed(newer):
            cost = len(memoryview(entry.raw)) + 8
            if found and size + cost > budget:
                return found, version, size
            found[key] = entry.raw
            version = entry.version
            size += cost
        return found, self.version, size
