"""Rows that a database can't store, kept in a file beside ``recorders.db``.

One JSON object a line: number, item, why, and the values. The file is bounded: a full one takes the
place of the one before it. Not for: deciding that a row can't be stored.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from appliance.storage import files

MAX_BYTES = 16 * 1024 * 1024
"""Of one file. The full one before it stays, so the newest 16 to 32 MB of rows are there."""
_LONGEST_VALUE = 1024 * 1024
"""Characters. The journal has the message whole, for as long as it keeps it."""
_TAIL = 4 * _LONGEST_VALUE


class SetAsideRows:
    """The file of one recorder. One thread at a time."""

    def __init__(self, data_dir: Path, name: str, *, max_bytes: int = MAX_BYTES) -> None:
        plain = re.sub(r"[^a-z0-9_-]", "_", name.lower())
        if plain != name:  # another recorder's may look the same
            plain += "-" + hashlib.sha256(name.encode()).hexdigest()[:6]
        self.path = data_dir / f"set-aside-{plain}.jsonl"
        self._older = data_dir / f"set-aside-{plain}.1.jsonl"
        self._max_bytes = max_bytes
        self._last: tuple[int, int] | None = None

    def add(self, seq: int, item: int, why: str, values: Mapping[str, Any]) -> bool:
        """Keep a row, forced to the disk. A row that is already there is left out.

        Returns whether it was new.

        Raises:
            OSError: the file can't be written.
        """
        if self._last is None:
            self._last = self._find_last()
        if (seq, item) <= self._last:
            return False
        line = msgspec.json.encode(
            {"seq": seq, "item": item, "reason": why, "row": _shortened(values)}, enc_hook=str
        )
        self._make_room(len(line) + 1)
        with self.path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._last = (seq, item)
        return True

    def _make_room(self, size: int) -> None:
        try:
            present = self.path.stat().st_size
        except FileNotFoundError:
            files.make_directory(self.path.parent)
            return
        if present and present + size > self._max_bytes:
            self.path.replace(self._older)

    def _find_last(self) -> tuple[int, int]:
        """Number and item of the newest row in the file: a crash gives rows again."""
        for path in (self.path, self._older):
            try:
                with path.open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - _TAIL))
                    tail = file.read()
            except FileNotFoundError:
                continue
            if tail and not tail.endswith(b"\n"):  # a power cut left half a line
                with path.open("ab") as file:
                    file.write(b"\n")
            for line in reversed(tail.splitlines()):
                try:
                    row = msgspec.json.decode(line, type=_Row)
                except msgspec.DecodeError:
                    continue
                return row.seq, row.item
        return 0, -1


class _Row(msgspec.Struct):
    seq: int
    item: int


def _shortened(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value[:_LONGEST_VALUE] + "..."
        if isinstance(value, str) and len(value) > _LONGEST_VALUE
        else value
        for name, value in values.items()
        if value is not None
    }
