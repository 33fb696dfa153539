"""What becomes of a recorder's closed files: they are compressed, and removed when they are old.

A file to be compressed has a row ``pending`` until the compressed one has its row and the plain one
is gone; so after a crash at any moment the work goes on. Files are removed as ``keep`` says, and
only files that the recorder wrote and that nothing has changed since.
Not for: closing files (growing_files.py, parts.py), making the compressed copy (compression.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.config.tables import KeepConfig
from appliance.recorders.compression import (
    ENDINGS,
    Compressor,
    remove_other_copies,
    remove_unfinished,
)
from appliance.recorders.formats import is_of_parts
from appliance.recorders.part_names import UnknownParts
from appliance.recorders.part_store import Part
from appliance.recorders.progress import Progress
from appliance.recorders.target import Context, Target, key_of, path_of

_LOOK_NS = 60_000_000_000
"""How often files are looked at although none was closed: they grow old."""
_PARTS_LOOK_NS = 5_000_000_000
_RETRY_NS = 10_000_000_000
_AT_ONCE_S = 0.1
"""For how long small files are compressed one after the other before others get their turn."""
_SMALL_S = 0.02
"""How long a file is waited for; compressing a larger one goes on meanwhile."""

_log = logging.getLogger(__name__)


class ClosedFiles:
    """The closed files of one recorder. For the thread of the recorder.

    Args:
        context: of the recorder.
        folder: where empty folders are removed below; ``None``: none are.
    """

    def __init__(self, context: Context, folder: Path | None = None) -> None:
        self._context = context
        self._config = context.config
        self._folder = folder
        self._compression = context.config.compression
        self._ending = ENDINGS[self._compression]
        self._compressor = Compressor(self._compression)
        self._has_parts = is_of_parts(context.config.format)
        # Parts are closed without a word.
        self._pause_ns = _PARTS_LOOK_NS if self._has_parts else _LOOK_NS
        self._pending: deque[Part] = deque()
        self._is_open = False
        self._look_ns = 0
        self._retry_ns = 0
        self.unknown_parts = UnknownParts(context)
        self.is_settled = False
        """Whether the parts that a crash left without their names have them."""
        self.figures = (0, 0)
        """How many there are, and their sizes together in bytes."""

    def open(self) -> None:
        """Read what is left to do.

        Raises:
            sqlite3.Error: that can't be read.
        """
        if not self._is_open:
            if not self._has_parts:  # those see to theirs themselves
                self._pending.extend(
                    self._context.parts.of_recorder(self._context.key, ["pending"])
                )
                for part in self._pending:
                    remove_unfinished(self._source(part), self._compression)
            self.figures = self._context.parts.count(self._context.key)
            self._is_open = True

    def has(self, path: Path) -> bool:
        """Whether there is or was a closed file of this name, compressed or not.

        Raises:
            sqlite3.Error: the rows can't be read.
        """
        names = [key_of(path, self._context.data_dir) + ending for ending in ENDINGS.values()]
        return self._context.parts.has(names)

    def add(self, part: Part, positions: Sequence[tuple[str, Progress]]) -> None:
        """Take over a file that is complete, and store where its series stands with it.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        parts = self._context.parts
        if self._ending:
            parts.announce(part, positions)
            self._pending.append(part)
        else:
            parts.close(part, positions)
            self.count(1, part.bytes)
        self._look_ns = 0

    def tick(self, now_ns: int) -> None:
        """Do the next step of what is to be done.

        Raises:
            OSError, sqlite3.Error: try again.
        """
        self.open()
        if self._pending or not self._compressor.is_idle:
            self._compress_some(now_ns)
        keep = self._config.keep
        if not 0 <= now_ns - self._look_ns < self._pause_ns:
            self._look_ns = now_ns
            if self._has_parts:
                self.figures = self._context.parts.count(self._context.key)
            if keep is not None:
                self._remove_old(keep, now_ns)

    def finish(self) -> None:
        """End the work for now; a file that is being compressed is begun anew later.

        Raises:
            sqlite3.Error: a copy that is complete can't be noted; the next start does it.
        """
        size = self._compressor.stop()
        if size is not None and self._pending:
            # Without the plain one: a reader would find its messages twice while nothing runs.
            self._take_copy(size)
            self._next(self._pending[0], self._context.clock_ns())

    def count(self, files: int, size: int) -> None:
        """Note that so many files and bytes came or went."""
        self.figures = (self.figures[0] + files, self.figures[1] + size)

    # --- compressing ---------------------------------------------------------------------------

    def _compress_some(self, now_ns: int) -> None:
        """Compress several files if they are small: at the end of an hour thousands may wait."""
        end = time.monotonic() + _AT_ONCE_S
        self._compress(now_ns)
        while self._compressor.is_done_within(_SMALL_S) and time.monotonic() < end:
            self._compress(now_ns)

    def _compress(self, now_ns: int) -> None:
        if abs(now_ns - self._retry_ns) < _RETRY_NS:
            return
        if not self._compressor.is_idle:
            try:
                size = self._compressor.result()
            except FileNotFoundError:
                self._forget(self._pending[0])
                return
            except OSError as error:
                self._retry_ns = now_ns
                _log.warning(
                    "%s can't be compressed: %s. It stays as it is and is tried again",
                    self._pending[0].path,
                    error.strerror or error,
                )
                return
            if size is None:
                return
            self._take_copy(size)
            self._next(self._pending[0], now_ns)
        if self._pending and self._compressor.is_idle:
            self._next(self._pending[0], now_ns)

    def _take_copy(self, size: int) -> None:
        part = self._pending[0]
        packed = msgspec.structs.replace(part, path=part.path + self._ending, bytes=size)
        self._context.parts.close(packed, ())
        self.count(1, size)
        self._look_ns = 0

    def _next(self, part: Part, now_ns: int) -> None:
        parts = self._context.parts
        source = path_of(part.path, self._context.data_dir)
        done = [part.path + ending for ending in ENDINGS.values() if ending]
        if parts.has(done):
            try:
                source.unlink(missing_ok=True)
            except PermissionError as error:  # on Windows a reader holds it
                self._retry_ns = now_ns
                _log.info("%s is compressed and can't be removed yet: %s", source, error.strerror)
                return
            parts.remove([part.path])
            self._pending.popleft()
        elif not source.exists():
            self._forget(part)
        elif not self._ending:  # it was to be compressed by another configuration
            try:
                remove_other_copies(source, self._compression)
            except OSError as error:
                self._retry_ns = now_ns
                _log.info("A copy of %s can't be removed yet: %s", source, error.strerror)
                return
            parts.close(part, ())
            self.count(1, part.bytes)
            self._pending.popleft()
        else:
            self._compressor.start(source)

    def _forget(self, part: Part) -> None:
        _log.warning("%s was removed before it could be compressed", part.path)
        self._context.parts.remove([part.path])
        self._pending.popleft()

    # --- removing ------------------------------------------------------------------------------

    def _remove_old(self, keep: KeepConfig, now_ns: int) -> None:
        found = self._context.parts.of_recorder(self._context.key)
        age_ns = (self._context.age_clock_ns or self._context.clock_ns)()
        due = too_many(found, keep, age_ns, waits_for_upload=self._config.upload is not None)
        # If the plain file is still there, it would be compressed anew.
        unfinished = {part.path + self._ending for part in self._pending}
        removed = [
            part for part in due if part.path not in unfinished and self._is_removed(part, now_ns)
        ]
        if removed:
            _log.info(
                "%d closed files were removed, as `keep` says; the last one is %s",
                len(removed),
                removed[-1].path,
            )
            self._context.parts.remove([part.path for part in removed])
            self.count(-len(removed), -sum(part.bytes for part in removed))

    def _is_removed(self, part: Part, now_ns: int) -> bool:
        """Remove a file; whether it is of no concern any more."""
        path = path_of(part.path, self._context.data_dir)
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != part.bytes:
                _log.warning(
                    "%s is not removed: another program has changed it since it was closed. The"
                    " recorder leaves it alone from now on",
                    path,
                )
                return True
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            # Windows: a reader holds it. Anything else may pass, too.
            self._look_ns = now_ns - max(0, self._pause_ns - _RETRY_NS)
            _log.info("%s can't be removed yet: %s", path, error.strerror)
            return False
        self._remove_empty_folders(path.parent)
        return True

    def _source(self, part: Part) -> Path:
        return path_of(part.path, self._context.data_dir)

    def _remove_empty_folders(self, folder: Path) -> None:
        if self._folder is None:
            return
        with contextlib.suppress(OSError):  # it is not empty
            while folder != self._folder and folder.is_relative_to(self._folder):
                os.rmdir(folder)  # noqa: PTH106 - as unlink, a plain call
                folder = folder.parent


class WithClosedFiles:
    """A target that is one series of files, and its closed ones."""

    def __init__(self, series: Target, closed: ClosedFiles) -> None:
        self._series = series
        self._closed = closed
        self.open = series.open
        self.append = series.append
        self.skip = series.skip
        self.unsaved = series.unsaved
        self.saved = series.saved
        self.figures = series.figures

    @property
    def note(self) -> str:
        return self._series.note

    @property
    def cursor(self) -> int:
        return self._series.cursor

    @property
    def durable_cursor(self) -> int:
        return self._series.durable_cursor

    def tick(self, now_ns: int) -> None:
        self._series.tick(now_ns)
        self._closed.tick(now_ns)

    def finish(self) -> None:
        self._closed.finish()
        self._series.finish()


def too_many(
    parts: Sequence[Part], keep: KeepConfig, now_ns: int, *, waits_for_upload: bool
) -> list[Part]:
    """The parts that are to be removed, the oldest first.

    Args:
        parts: all of a recorder that are closed, the oldest first.
        keep: what stays.
        now_ns: present time.
        waits_for_upload: whether a part that is only closed waits for its upload, so it stays.
    """
    files, size = len(parts), sum(part.bytes for part in parts)
    found: list[Part] = []
    for part in parts:
        is_over = (
            (keep.age is not None and now_ns - part.last_ns > keep.age * 1e9)
            or (keep.size is not None and size > keep.size)
            or (keep.files is not None and files > keep.files)
        )
        if is_over and not (waits_for_upload and part.state == "closed"):
            found.append(part)
            files -= 1
            size -= part.bytes
    return found
