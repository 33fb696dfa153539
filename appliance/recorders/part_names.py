"""Names of parts, which have the numbers of the first and the last message: files without a row.

``recorders.db`` may be older than the files, or the files are those of another journal. A folder is
listed once in a run, because it may have 100,000 parts.
Not for: what becomes of such files (parts.py, lost_series.py).
"""

from __future__ import annotations

import re
from pathlib import Path

from appliance.recorders.target import Context, key_of

DIGITS = 12
"""Of the numbers in a name, so that names sort by them up to 10^12 messages."""
_MOST_FOLDERS = 10_000
_NAME = re.compile(
    rf"(?P<stem>.*)-([0-9]{{{DIGITS},18}})-([0-9]{{{DIGITS},18}})(?P<suffix>\.[^.]*)?"
)

_Series = tuple[str, str]
"""What the names of a series have in common: what is before and behind the numbers."""


class UnknownParts:
    """Files of one recorder that have the name of a part and no row. For the recorder's thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._folders: dict[Path, dict[_Series, list[tuple[Path, int, int]]]] = {}

    def of_series(self, example: Path) -> list[tuple[Path, int, int]]:
        """Those of a series: file, first and last message, by their ends.

        Args:
            example: the name of any part of the series.

        Raises:
            OSError, sqlite3.Error: the folder or the rows can't be read.
        """
        match = _NAME.fullmatch(example.name)
        assert match is not None
        series = (match["stem"], match["suffix"] or "")
        return list(self._of_folder(example.parent).get(series, ()))

    def overlapping(self, target: Path, first_seq: int, last_seq: int) -> list[Path]:
        """Those that hold messages of a part that is to be named ``target``.

        Raises:
            OSError, sqlite3.Error: the folder or the rows can't be read.
        """
        found = [
            path
            for path, first, last in self.of_series(target)
            if first <= last_seq and first_seq <= last
        ]
        if target not in found and target.exists():  # it came since the folder was listed
            found.append(target)
        return found

    def forget(self, path: Path) -> None:
        """Leave out a file that was set aside or has a row now."""
        for found in self._folders.get(path.parent, {}).values():
            found[:] = [each for each in found if each[0] != path]

    def _of_folder(self, folder: Path) -> dict[_Series, list[tuple[Path, int, int]]]:
        known = self._folders.get(folder)
        if known is None:
            known = self._list(folder)
            if len(self._folders) >= _MOST_FOLDERS:
                self._folders.clear()
            self._folders[folder] = known
        return known

    def _list(self, folder: Path) -> dict[_Series, list[tuple[Path, int, int]]]:
        try:
            names = [each.name for each in folder.iterdir()]
        except FileNotFoundError:
            return {}
        matches = [match for match in map(_NAME.fullmatch, names) if match is not None]
        rows: set[str] = set()
        if matches:
            rows = {part.path for part in self._context.parts.of_recorder(self._context.key)}
        found: dict[_Series, list[tuple[Path, int, int]]] = {}
        for match in matches:
            path = folder / match[0]
            if key_of(path, self._context.data_dir) not in rows:
                series = (match["stem"], match["suffix"] or "")
                found.setdefault(series, []).append((path, int(match[2]), int(match[3])))
        for files in found.values():
            files.sort(key=lambda each: each[2])
        return found
