"""A new database in place of a damaged one, which is set aside.

Where the owner of the tables can, the new one has what could be read of the damaged one. A kill at
any instant leaves either the damaged file in its place, or the complete new one for the next start.
Not for: finding out that a database is damaged (database.py), reading damaged files (the owner's
``Rescue``).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from appliance.storage import files, sqlite
from appliance.storage.layout import Layout

Rescue = Callable[[Path, Path, sqlite3.Connection], str]
"""``rescue(damaged, log, connection)``: copies what can be read into a new database, within the
open transaction; returns a sentence about it. One of the files may be missing."""

_MAKING, _MADE = ".rescuing", ".rescued"
"""The new database beside the damaged one: being made, and complete."""
_ROOM = 1.2
"""Times the size of a damaged database that must be free to take over what can be read of it."""
_LOG_SUFFIXES = ("-wal", "-shm")
"""SQLite's write-ahead log and its index (https://www.sqlite.org/tempfiles.html)."""
_log = logging.getLogger(__name__)


class Replacement:
    """For one opening of one database."""

    def __init__(
        self, path: Path, layout: Layout, rescue: Rescue | None, losses: list[str]
    ) -> None:
        """``losses`` gets a sentence for each thing that is set aside."""
        self._path = path
        self._log_path = sqlite.beside(path, "-wal")
        self._layout = layout
        self._rescue = rescue
        self._losses = losses

    def replace(self, error: Exception, now_ns: int) -> Path:
        """Set the damaged database aside; returns where it is now.

        Args:
            error: what is wrong with it.
            now_ns: present time in ns since 1970, for its new name.

        Raises:
            sqlite3.Error, OSError: the disk does not take the new one.
        """
        told = self._make()
        target = files.set_aside(self._path, "corrupt", now_ns)
        for suffix in _LOG_SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                files.rename(sqlite.beside(self._path, suffix), sqlite.beside(target, suffix))
        title = self._layout.title
        self._lose(f"{title} {self._path} is damaged ({error}). It was moved to {target}", told)
        self._put_in_place()
        return target

    def keep_log(self, now_ns: int) -> None:
        """Set a log aside whose database is gone: SQLite would delete it, with its commits.

        Raises like ``replace``.
        """
        if not self._log_path.exists() or self._log_path.stat().st_size == 0:
            return
        told = self._make()
        target = files.set_aside(self._log_path, "orphaned", now_ns)
        self._lose(
            f"{self._layout.title} {self._path} is gone, and only its log was left. The log was"
            f" moved to {target}",
            told,
        )
        self._put_in_place()

    def complete(self, now_ns: int, *, has_content: bool) -> None:
        """Complete what a kill interrupted, or undo it to have it done again.

        ``has_content``: whether there is a database in its place. Raises like ``replace``.
        """
        self._remove(_MAKING)
        if not sqlite.beside(self._path, _MADE).exists():
            return
        if has_content:
            self._remove(_MADE)
            return
        if self._log_path.exists():  # its content is in the new database
            files.set_aside(self._log_path, "orphaned", now_ns)
        self._lose(
            f"{self._layout.title} {self._path} was damaged, and lies beside it under another name",
            "What could be read was taken over; the log of the start before says more",
        )
        self._put_in_place()

    def _make(self) -> str | None:
        """Make the new database; returns a sentence about it, ``None`` if nothing could be done."""
        if self._rescue is None:
            return None
        both = (self._path, self._log_path)
        needed = int(sum(each.stat().st_size for each in both if each.exists()) * _ROOM)
        free = files.free_bytes(self._path.parent)
        if free < needed:
            _log.error(
                "%s: there is no room on the disk to take over what can be read: %d MB are free,"
                " %d MB are needed",
                self._path,
                free // 1_000_000,
                needed // 1_000_000,
            )
            return None
        _log.warning(
            "%s is damaged: what can be read of it is taken over (%d MB). A gigabyte takes about"
            " 20 s",
            self._path,
            needed // 1_000_000,
        )
        making = sqlite.beside(self._path, _MAKING)
        self._remove(_MAKING)
        with (
            contextlib.closing(sqlite3.connect(making, isolation_level=None)) as connection,
            sqlite.transaction(connection),
        ):
            self._layout.create(connection)
            told = self._rescue(self._path, self._log_path, connection)
        files.rename(making, sqlite.beside(self._path, _MADE))
        files.sync_directory(self._path.parent)
        return told

    def _put_in_place(self) -> None:
        made = sqlite.beside(self._path, _MADE)
        if made.exists():
            files.rename(made, self._path)
            files.sync_directory(self._path.parent)

    def _remove(self, suffix: str) -> None:
        for each in (suffix, f"{suffix}-journal"):
            with contextlib.suppress(FileNotFoundError):
                files.remove(sqlite.beside(self._path, each))

    def _lose(self, what: str, told: str | None) -> None:
        if told is None:
            text = f"{what} and an empty one begun. Lost with it: {self._layout.loss}"
        else:
            text = f"{what}. {told}"
        _log.error("%s", text)
        self._losses.append(f"{text}.")
