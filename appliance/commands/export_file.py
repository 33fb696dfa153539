"""The file of an export: what is in it, and where an export that did not end goes on.

Beside an unfinished file lies ``NAME.unfinished`` with the last message that is certainly in it,
the length up to there, and what the export was asked for. Not for: which messages (export.py).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from appliance.errors import NoPermissionError, UnavailableError, UsageError
from appliance.model import Message
from appliance.recorders.format import Format
from appliance.storage import files

_NOTE_EVERY_S = 5.0


class Note(msgspec.Struct, frozen=True):
    """What ``NAME.unfinished`` has."""

    asked: dict[str, Any]
    """The options that decide what is in the file, by their names."""
    since_ns: int | None = None
    until_ns: int | None = None
    """What ``since`` and ``until`` meant when it began."""
    seq: int = 0
    """Up to this number everything that was asked for is in the file."""
    count: int = 0
    """Messages in it."""
    bytes: int = 0
    """Its length then."""
    memory: str = ""
    """``Format.memory``, or that of the columns."""
    files: int = 0
    """Complete files of an export that is a series of them."""


class Target(Protocol):
    """Where an export goes."""

    @property
    def count(self) -> int:
        """Messages that are in it."""
        ...

    def write(self, messages: Sequence[Message], seq: int) -> None:
        """Add messages; ``seq``: everything up to this number has been looked through."""
        ...

    def finish(self) -> None:
        """Complete it."""
        ...

    def leave(self) -> None:
        """It is not complete: keep what another export needs to go on."""
        ...


class TextTarget:
    """A text format into a stream, or into a file that can be continued."""

    def __init__(
        self, file: BinaryIO, form: Format, note: Note | None = None, path: Path | None = None
    ) -> None:
        """Begin, or go on behind ``note``; ``path``: the file's, if it can be continued."""
        self._file = file
        self._form = form
        self._path = path
        self._done = note or Note({})
        """What is whole in the file. It is replaced at once: Ctrl+C may come at any moment."""
        self._noted_at = time.monotonic()
        if self._done.count:
            form.recall(self._done.memory)

    @property
    def count(self) -> int:
        return self._done.count

    def write(self, messages: Sequence[Message], seq: int) -> None:
        form = self._form
        count = self._done.count
        if messages:
            self._file.write(form.separator if count else form.opening(messages[0]))
            self._file.write(form.separator.join(form.elements(messages)))
        self._done = msgspec.structs.replace(
            self._done,
            seq=seq,
            count=count + len(messages),
            bytes=self._file.tell() if self._path is not None else 0,
            memory=form.memory,
        )
        if self._path is not None and time.monotonic() - self._noted_at > _NOTE_EVERY_S:
            self._keep_note()

    def finish(self) -> None:
        form = self._form
        self._file.write(form.closing if self.count else form.empty)
        self._file.flush()
        if self._path is not None:
            files.sync_file(self._file.fileno())
            with contextlib.suppress(FileNotFoundError):
                files.remove(note_path(self._path))

    def leave(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):  # a full disk: the note before it still holds
                self._keep_note()

    def _keep_note(self) -> None:
        assert self._path is not None
        self._file.flush()
        files.sync_file(self._file.fileno())  # the note must not say more than the disk has
        write_note(self._path, self._done)
        self._noted_at = time.monotonic()


def note_path(path: Path) -> Path:
    """The file beside an unfinished export."""
    return path.with_name(f"{path.name}.unfinished")


def write_note(path: Path, note: Note) -> None:
    """Write the note of an export. Raises ``OSError``."""
    files.replace_file(note_path(path), msgspec.json.encode(note))


def begin(path: Path, note: Note) -> BinaryIO:
    """Make the file of a new export.

    Raises:
        UsageError: it exists, or can't be made.
        NoPermissionError: this user may not write there.
        UnavailableError: the disk takes nothing; the file is not made.
    """
    try:
        file = path.open("xb")
    except FileExistsError:
        hint = (
            "--resume goes on with it, or name another"
            if note_path(path).exists()
            else "name another"
        )
        raise UsageError(f"{path}: this file exists and stays as it is; {hint}") from None
    except PermissionError:
        raise NoPermissionError(f"{path}: this user may not write there; name another") from None
    except OSError as error:
        raise UsageError(f"{path}: it can't be written: {error.strerror}") from None
    try:
        write_note(path, note)
    except OSError as error:  # a full disk: without the note nothing could go on with the file
        file.close()
        files.remove(path)
        raise UnavailableError(f"{path}: it can't be written: {error.strerror}") from None
    return file


def read_note(path: Path, asked: dict[str, Any], default: dict[str, Any]) -> Note | None:
    """The note of an unfinished export; ``None``: there is no export yet.

    Args:
        path: the file.
        asked: the options of this command.
        default: those of a command without any, which asks for the same as before.

    Raises:
        UsageError: the file is no unfinished export, or one of something else.
    """
    beside = note_path(path)
    try:
        note = msgspec.json.decode(beside.read_bytes(), type=Note)
    except FileNotFoundError:
        if path.exists():
            raise UsageError(
                f"{path}: this export is complete, or the file is another program's: there is no"
                f" {beside.name} beside it. Name another file; --after N goes on behind message N"
            ) from None
        return None
    except (ValueError, UnicodeDecodeError):
        raise UsageError(f"{beside}: it is damaged; remove both files and begin anew") from None
    if asked not in (note.asked, default):
        raise UsageError(
            f"{path} was begun with other options, and they still hold; leave these out"
        )
    return note


def resume(path: Path, note: Note) -> BinaryIO:
    """Open an unfinished export at the place where it goes on.

    Raises:
        UsageError: the file is not what it was.
        NoPermissionError: this user may not write there.
    """
    beside = note_path(path)
    try:
        file = path.open("r+b")
        if file.seek(0, os.SEEK_END) < note.bytes:
            file.close()
            raise UsageError(
                f"{path} is shorter than it was; remove it and {beside.name}, begin anew"
            )
        file.truncate(note.bytes)
        file.seek(note.bytes)
    except FileNotFoundError:
        raise UsageError(f"{path} is gone; remove {beside.name} and begin anew") from None
    except PermissionError:
        raise NoPermissionError(f"{path}: this user may not write there") from None
    return file
