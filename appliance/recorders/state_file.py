"""A target that is the file of ``mode`` ``latest`` or ``update``: the present rows, and only they.

The rows are in ``recorders.db`` and change in one transaction with the position. The file is
written anew from them, beside its place, and replaces the old one at once, at most once a second.
So a reader always finds a complete file, and a crash at any moment leaves one that the next start
writes anew. What is replaced is recognised by its digest, which is stored before the file gets its
name; any other file is set aside.
Not for: which rows there are (state_rows.py), the content of the file (state_writer.py).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.model import Message
from appliance.recorders.latest_store import LatestStore
from appliance.recorders.progress import Progress
from appliance.recorders.state_rows import StateRows, row_of
from appliance.recorders.state_writer import make_state_writer
from appliance.recorders.target import Context, Figures, Later, Target, Unsaved
from appliance.storage import files

WRITE_EVERY_NS = 1_000_000_000
_SHARE = 10
"""A file that takes long to write is written less often: so much of the time is left for others."""

_log = logging.getLogger(__name__)


class _Memory(msgspec.Struct):
    """What is stored beside the position."""

    format: str = ""
    """The format and keys that ``columns`` belong to."""
    columns: str = ""
    newest: int = -1
    """The newest message in the rows of that file."""
    digests: tuple[str, ...] = ()
    """Of the file that is there and of the one that was to replace it."""


class StateFile(Target):
    """One file, its rows and its row in ``recorders.db``.

    Args:
        context: of the recorder.
        path: the file.
        key: of its row in ``recorders.db``.
        stored: that row; ``format`` is ``""`` for a file that is to be begun.
    """

    def __init__(self, context: Context, path: Path, key: str, stored: Progress) -> None:
        config = context.config
        self.key = key
        self._note_text = ""
        self._path = path
        self._temporary = path.with_name(f".{path.name}.part")
        self._context = context
        self._store = LatestStore(context.store, key)
        self._rows = StateRows(config, context.count)
        self._writer = make_state_writer(config, has_one_topic=context.has_one_topic)
        # Rows made with other keys would not be what these ask for.
        self._name = f"{config.mode}+{config.key}" + ("+flatten" if config.flatten else "")
        self._format = hashlib.sha256(
            repr(
                (config.format, config.metadata, config.fields, config.types, config.time_field)
            ).encode()
        ).hexdigest()[:12]
        self._stored = stored
        self._progress = stored
        self._memory = _Memory()
        self._digest = ""
        """Of the file, if it is the recorder's own."""
        self._seen: tuple[int, int, int] | None = None
        """What the file looked like after it was written."""
        self._is_changed = True
        self._written_ns = 0
        self._pause_ns = WRITE_EVERY_NS

    @property
    def note(self) -> str:
        return self._note_text

    @property
    def progress(self) -> Progress:
        return self._progress

    @property
    def cursor(self) -> int:
        return self._progress.seq

    @property
    def durable_cursor(self) -> int:
        return self._stored.seq

    # --- opening ---------------------------------------------------------------------------------

    def open(self, later: Later) -> None:
        del later
        progress, damaged = self._progress, 0
        if progress.format == self._name:
            self._recall(progress.memory)
            damaged = self._rows.load(self._store.rows())
            if damaged:
                self._note_text = f"{damaged} of its rows were damaged and are left out"
                _log.error("%s: %s", self._path, self._note_text)
        else:
            self._begin()
        self._look_at_file()
        is_present = not damaged and self._digest and self._digest == self._memory.digests[-1]
        if (
            not is_present
            or self._memory.format != self._format
            or (self._memory.newest != self._rows.newest)
        ):
            self._write()
        self._is_changed = False

    def _begin(self) -> None:
        """No rows, and a position of this kind, on the disk."""
        before = self._progress
        if before.format.startswith(("latest+", "update+")):
            self._note_text = "its mode or key was changed: its rows begin anew"
            _log.warning("%s: %s", self._path, self._note_text)
            self._recall(before.memory)
        self._progress = Progress(self._name, before.seq, memory=self._encoded())
        self._store.clear(self._progress)
        self._stored = self._progress

    def _recall(self, memory: str) -> None:
        try:
            self._memory = msgspec.json.decode(memory, type=_Memory)
            if self._memory.format == self._format:
                self._writer.recall(self._memory.columns)
        except msgspec.MsgspecError as error:
            _log.error("What was noted of %s is damaged and left out: %s", self._path, error)
            self._memory = _Memory()

    def _look_at_file(self) -> None:
        """Set aside a file that is not the recorder's own."""
        with contextlib.suppress(FileNotFoundError):
            files.remove(self._temporary)
        try:
            with self._path.open("rb") as file:
                digest = _digest(file.fileno())
        except FileNotFoundError:
            return
        except OSError:
            if self._path.is_dir():
                raise OSError(errno.EISDIR, "it is a folder", str(self._path)) from None
            raise
        if digest in self._memory.digests:
            self._digest = digest
            self._seen = self._looks()
        else:
            self._set_aside()

    def _set_aside(self) -> None:
        target = files.set_aside(self._path, "before", self._context.clock_ns())
        self._note_text = f"a file that the recorder did not write is now {target.name}"
        _log.warning("%s: %s", self._path, self._note_text)

    # --- rows ------------------------------------------------------------------------------------

    def append(self, messages: Sequence[Message], seq: int) -> None:
        changes = self._rows.changes(messages)
        progress = msgspec.structs.replace(
            self._progress, seq=seq, count=self._progress.count + len(messages)
        )
        self._store.save([row_of(key, row) for key, row in changes.items()], progress)
        self._rows.apply(changes)
        self._progress = self._stored = progress
        self._is_changed |= bool(changes)

    def skip(self, seq: int) -> None:
        self._progress = msgspec.structs.replace(self._progress, seq=seq)

    # --- the file --------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        # A clock that is set back is no reason to wait.
        if self._is_changed and not 0 <= now_ns - self._written_ns < self._pause_ns:
            self._write()

    def finish(self) -> None:
        if self._is_changed:
            self._write()

    def _write(self) -> None:
        began = time.monotonic_ns()
        files.make_directory(self._path.parent)
        try:
            self._writer.write(self._temporary, self._rows.messages())
            with self._temporary.open("rb+") as file:
                files.sync_file(file.fileno())
                digest = _digest(file.fileno())
                size = os.fstat(file.fileno()).st_size
            if self._seen is not None and self._looks() not in {self._seen, None}:
                self._set_aside()
            # Both may be there after a crash.
            self._note((self._digest, digest), size)
            files.rename(self._temporary, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            raise
        files.sync_directory(self._path.parent)
        self._seen = self._looks()
        self._digest = digest
        self._is_changed = False
        self._written_ns = self._context.clock_ns()
        self._pause_ns = max(WRITE_EVERY_NS, _SHARE * (time.monotonic_ns() - began))

    def _note(self, digests: tuple[str, ...], size: int) -> None:
        """Store the digests, so that a start after a power cut knows the file for its own."""
        self._memory = _Memory(self._format, self._writer.memory, self._rows.newest, digests)
        progress = msgspec.structs.replace(self._progress, length=size, memory=self._encoded())
        self._context.store.save([(self.key, progress)], durable=True)
        self._progress = self._stored = progress

    def _encoded(self) -> str:
        return msgspec.json.encode(self._memory).decode()

    def _looks(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino

    # --- what is stored and shown ----------------------------------------------------------------

    def unsaved(self) -> Unsaved:
        if self._progress == self._stored:
            return Unsaved()
        return Unsaved(rows=((self.key, self._progress),))

    def saved(self, rows: Sequence[tuple[str, Progress]]) -> None:
        for key, progress in rows:
            if key == self.key:
                self._stored = progress

    def figures(self) -> Figures:
        progress = self._progress
        return Figures(
            recorded=progress.count,
            size_bytes=progress.length,
            details={"rows": f"{len(self._rows):,}"},
        )


def _digest(descriptor: int) -> str:
    """Of a file's content, read from the beginning."""
    found = hashlib.blake2b(digest_size=16)
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        while part := file.read(1024 * 1024):
            found.update(part)
    return found.hexdigest()
