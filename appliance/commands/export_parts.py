"""An export as complete files of typed columns: Parquet, or QVD.

Most exports are one file. When it is full (a QVD file is in memory until it is written), or a
column comes that it can't take any more, the next one begins: ``NAME-2``, ``NAME-3``. A file has
its name once it is complete. So an export that was interrupted goes on with another file.
Not for: which messages (export.py), the bytes of a file (recorders).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.commands.export_file import Note, note_path, write_note
from appliance.config.tables import RecorderConfig
from appliance.errors import NoPermissionError, UsageError
from appliance.model import Message
from appliance.recorders.formats import make_part_writer
from appliance.recorders.table_maker import TableMaker
from appliance.storage import files

_AT_A_TIME = 1000


class PartTarget:
    """Where such an export goes (``export_file.Target``)."""

    def __init__(self, path: Path, config: RecorderConfig, note: Note) -> None:
        """Begin, or go on behind ``note``.

        Raises:
            ConfigError: the format needs a package that is not installed.
            UsageError: the file exists, or can't be made.
            NoPermissionError: this user may not write there.
        """
        self._path = path
        self._maker = TableMaker(config)
        self._maker.recall(note.memory)
        self._writer = make_part_writer(config.format, path.stem)
        self._done = note
        """What is in complete files."""
        self._count = note.count
        self._seq = note.seq
        self._first = self._last = 0
        """The open file's messages; 0: none is open."""
        self._is_whole = True
        """Whether the open file has all of what ``write`` was given: Ctrl+C may come within it."""
        target = self._next_path()
        _must_not_exist(target)
        self._begin_note()

    @property
    def count(self) -> int:
        return self._count

    def learn(self, messages: Sequence[Message]) -> None:
        """Get to know columns, so that the file has them from its first row on."""
        self._maker.take(messages)

    def write(self, messages: Sequence[Message], seq: int) -> None:
        for start in range(0, len(messages), _AT_A_TIME):
            self._write(messages[start : start + _AT_A_TIME])
        self._seq = seq

    def _write(self, messages: Sequence[Message]) -> None:
        table = self._maker.take(messages)
        if table.rows:
            if self._first and not self._writer.takes(table.columns):
                self._complete()
            if not self._first:
                target = self._next_path()
                _must_not_exist(target)
                self._writer.begin(_waiting(target), table.columns)
                self._first = messages[0].seq
            self._is_whole = False
            self._writer.write(table)
            self._last = messages[-1].seq
        self._count += len(messages)
        self._seq = messages[-1].seq
        self._is_whole = True

    def finish(self) -> None:
        if not self._first and not self._done.files:
            self._writer.begin(_waiting(self._path), self._maker.columns)
        if self._first or not self._done.files:
            self._complete()
        with contextlib.suppress(FileNotFoundError):
            files.remove(note_path(self._path))

    def leave(self) -> None:
        if self._first and self._is_whole:
            # If the disk is full, what the last complete file has still holds.
            with contextlib.suppress(OSError):
                self._complete()
        elif not self._first and self._is_whole:
            self._done = msgspec.structs.replace(self._done, seq=self._seq)
        self._writer.abandon()
        self._count, self._first = self._done.count, 0
        with contextlib.suppress(OSError):
            _waiting(self._next_path()).unlink(missing_ok=True)
            write_note(self._path, self._done)

    def _next_path(self) -> Path:
        number = self._done.files + 1
        if number == 1:
            return self._path
        return self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")

    def _begin_note(self) -> None:
        try:
            write_note(self._path, self._done)
        except PermissionError:
            raise NoPermissionError(
                f"{self._path}: this user may not write there; name another"
            ) from None
        except OSError as error:
            raise UsageError(f"{self._path}: it can't be written: {error.strerror}") from None

    def _complete(self) -> None:
        target = self._next_path()
        waiting = _waiting(target)
        self._writer.close(self._first, self._last)
        with io.FileIO(waiting, "r+") as file:
            files.sync_file(file.fileno())
        files.rename(waiting, target)
        files.sync_directory(target.parent)
        self._first = 0
        self._done = msgspec.structs.replace(
            self._done,
            seq=self._seq,
            count=self._count,
            memory=self._maker.memory,
            files=self._done.files + 1,
        )
        write_note(self._path, self._done)


def _waiting(target: Path) -> Path:
    """The name of a file that is not complete."""
    return target.with_name(f".{target.name}.part")


def _must_not_exist(target: Path) -> None:
    if target.exists():
        hint = (
            "--resume goes on with it, or name another"
            if note_path(target).exists()
            else "name another, or move it away"
        )
        raise UsageError(f"{target}: this file exists and stays as it is; {hint}")
