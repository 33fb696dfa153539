"""One growing file: each message is appended exactly once, and foreign content is never destroyed.

A write begins at the closing bracket and ends with a new one, so it costs the same for a file of
any length. Before each write the end of the file is compared with the end of the last write. A file
that another program changed, shortened or replaced is set aside, and a new file is created.

While the appliance runs, blanks follow the closing bracket, and writes go into them. Without them a
reader that read the file's size just before a write would get the new bytes up to the old size, an
array without its end. A reader without pauses saw that at one write in ten, with blanks at one in a
thousand.
Not for: choosing the messages (recorders.py) and their form (the formats).
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from appliance.model import Message
from appliance.recorders.format import Format
from appliance.recorders.progress import SEAM_BYTES, Progress
from appliance.recorders.unfinished import is_own
from appliance.recorders.writes import positioned, read_at, write_at
from appliance.storage import files

# An interrupted write of the recorder leaves at most this much after the end.
_MAX_UNFINISHED_BYTES = 64 * 1024 * 1024
_COPY_BYTES = 1024 * 1024

_BLANK = b" "
_NOTHING = b" \0"
_MIN_ROOM_BYTES = 512
_MAX_ROOM_BYTES = 256 * 1024
# Gives readers that know the old size time to finish before the bytes up to it change.
_ROOM_PAUSE_S = 0.002

_CHANGED = "its end is not as it was noted: another program changed it, or recorders.db is older"

_log = logging.getLogger(__name__)

Regenerate = Callable[[int], bytes]
"""Returns the bytes that are appended next: at least the given number, if messages give so many."""


class Recording:
    """A file and its position. For one thread at a time.

    ``progress`` is valid after each method. ``note`` says which file was set aside, if any.
    """

    def __init__(
        self, path: Path, file_format: Format, progress: Progress, clock_ns: Callable[[], int]
    ) -> None:
        self.progress = progress
        self.note = ""
        self._path = path
        self._format = file_format
        self._clock_ns = clock_ns
        # A write failed half-way and could not be undone yet.
        self._unfinished = False
        self._padded = bool(file_format.closing)
        # Blanks after the end.
        self._room = 0

    # --- opening -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create the file of a new recording. An existing file is set aside.

        Raises:
            OSError: not possible now; try again.
        """
        try:
            size = self._path.stat().st_size
            known = size <= len(self._format.empty) and self._path.read_bytes() in {
                b"",
                self._format.empty,
            }
            if not known:
                self._set_aside("it was there before the recording began")
                return
        except FileNotFoundError:
            pass
        self._create()

    def resume(self, regenerate: Regenerate) -> None:
        """Continue at ``progress``, however the last run ended.

        Raises:
            OSError: not possible now; try again.
        """
        if self.progress.format != self._format.name:
            self._set_aside(f"it has another format, {self.progress.format}")
            return
        self._format.recall(self.progress.memory)
        try:
            with self._open() as file:
                size = os.fstat(file.fileno()).st_size
                if self._is_untouched(file, size):
                    return
                if self._has_seam(file, size):
                    if not self._is_ours(file, size, regenerate):
                        self._keep_excess(file, size)
                    self._restore(file)
                    return
        except FileNotFoundError:
            self._begin_anew("it was removed")
            return
        self._set_aside(_CHANGED)

    def _is_ours(self, file: io.FileIO, size: int, regenerate: Regenerate) -> bool:
        """Whether the bytes after the seam are the beginning of the next write."""
        end = self._body_end
        if size - end > _MAX_UNFINISHED_BYTES:
            return False
        found = read_at(file, end, size - end)
        ends = (self._format.closing, self._end)
        written = found.rstrip(_NOTHING)
        if any(end.startswith(written) for end in ends):  # nothing new, or an interrupted repair
            return True
        return is_own(found, regenerate(len(written)), end, ends)

    # --- appending -----------------------------------------------------------------------------

    def append(self, messages: Sequence[Message], seq: int) -> None:
        """Append messages. On return they are on the disk, and ``progress`` includes them.

        Args:
            messages: at least one.
            seq: the journal's sequence number up to which every message was processed.

        Raises:
            OSError: nothing was added; try again.
        """
        messages = self._format.with_rows(messages)
        if not messages:
            self.skip(seq)
            return
        try:
            file = self._open_checked()
        except FileNotFoundError:
            self._begin_anew("it was removed")
            file = self._open()
        with file:
            pieces = self.pieces(messages)
            body_end = self._body_end
            try:
                self._make_room(file, sum(map(len, pieces)))
                for offset, data in positioned(pieces, body_end, self._format.closing):
                    write_at(file, offset, data)
                files.sync_file(file.fileno())
            except BaseException:
                self._unfinished = True
                self._restore(file)
                raise
            body = b"".join(pieces)
            before = self.progress
            self.progress = Progress(
                format=self._format.name,
                seq=seq,
                length=body_end + len(body) + len(self._format.closing),
                count=before.count + len(messages),
                seam=(before.seam + body)[-SEAM_BYTES:],
                memory=self._format.memory,
            )
            self._room = max(0, self._room - (self.progress.length - before.length))
            self._keep_room(file, len(body))

    def pieces(self, messages: Sequence[Message]) -> list[bytes]:
        """The pieces that the messages add, in order. The file may end after each piece."""
        messages = self._format.with_rows(messages)
        if not messages:
            return []
        separator = self._format.separator
        if self.progress.count:
            return [separator + element for element in self._format.elements(messages)]
        # The opening comes first: it may decide the form of the elements.
        opening = self._format.opening(messages[0])
        first, *others = self._format.elements(messages)
        return [opening + first, *(separator + element for element in others)]

    def skip(self, seq: int) -> None:
        """Note that no message up to ``seq`` belongs to this recording."""
        self.progress = msgspec.structs.replace(self.progress, seq=seq)

    def finish(self) -> None:
        """Remove the blanks, so that the file ends with its closing bracket.

        Raises:
            OSError: the blanks stay, which does no harm.
        """
        if self._room:
            with self._open() as file:
                if self._is_untouched(file, os.fstat(file.fileno()).st_size):
                    file.truncate(self.progress.length)
                    self._room = 0

    def _make_room(self, file: io.FileIO, size: int) -> None:
        """Write blanks for a number of bytes before they are overwritten."""
        if self._padded and self._room < size + len(self._format.closing):
            self._add_room(file, size + _MIN_ROOM_BYTES)
            time.sleep(_ROOM_PAUSE_S)

    def _keep_room(self, file: io.FileIO, size: int) -> None:
        """Write blanks for the next batch early. Its size is estimated from this one."""
        wanted = min(max(_MIN_ROOM_BYTES, 2 * size), _MAX_ROOM_BYTES)
        if self._padded and self._room < wanted // 2:
            with contextlib.suppress(OSError):  # the next batch reports it
                self._add_room(file, wanted - self._room)

    def _add_room(self, file: io.FileIO, size: int) -> None:
        write_at(file, self.progress.length + self._room, _BLANK * size)
        self._room += size

    def _open_checked(self) -> io.FileIO:
        file = self._open()
        try:
            if self._unfinished:
                self._restore(file)
                return file
            size = os.fstat(file.fileno()).st_size
            if self._is_untouched(file, size):
                return file
            if self._has_seam(file, size) and size >= self.progress.length:
                self._keep_excess(file, size)
                self._restore(file)
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        self._set_aside(_CHANGED)
        return self._open()

    # --- the file's end ------------------------------------------------------------------------

    @property
    def _end(self) -> bytes:
        """The bytes after the seam between two writes."""
        return self._format.closing if self.progress.count else self._format.empty

    @property
    def _body_end(self) -> int:
        return self.progress.length - len(self._end)

    def _is_untouched(self, file: io.FileIO, size: int) -> bool:
        room = size - self.progress.length
        if room < 0 or room > (_MAX_ROOM_BYTES * 2 if self._padded else 0):
            return False
        expected = self.progress.seam + self._end
        found = read_at(file, self.progress.length - len(expected), len(expected) + room)
        # An editor may have added or removed white space at the end, which does no harm.
        if not found.startswith(expected) or found[len(expected) :].strip():
            return False
        self._room = room
        return True

    def _has_seam(self, file: io.FileIO, size: int) -> bool:
        seam = self.progress.seam
        if size < self._body_end:
            return False
        return read_at(file, self._body_end - len(seam), len(seam)) == seam

    def _restore(self, file: io.FileIO) -> None:
        """Restore the file to the state of ``progress``."""
        file.truncate(self._body_end)
        write_at(file, self._body_end, self._end)
        files.sync_file(file.fileno())
        self._room = 0
        self._unfinished = False

    def _keep_excess(self, file: io.FileIO, size: int) -> None:
        """Save the bytes at the end that do not follow from the journal, before they are cut off.

        Another program added them, or the recorder itself and what it noted is lost.
        """
        moment = self._clock_ns() // 1_000_000_000
        target = self._path.with_name(f"{self._path.name}.excess-{moment}")
        kept = 0
        with target.open("ab") as copy:
            for offset in range(self._body_end, size, _COPY_BYTES):
                part = read_at(file, offset, min(_COPY_BYTES, size - offset))
                if offset == self._body_end and part.startswith(self._end):
                    part = part.removeprefix(self._end).lstrip(_BLANK)
                kept += copy.write(part)
            copy.flush()
            files.sync_file(copy.fileno())
        self.note = f"bytes at its end that do not follow from the journal are now in {target.name}"
        _log.warning(
            "The recording %s ended with %d bytes that do not follow from the journal; they were"
            " moved to %s. Another program added them, or the journal or recorders.db is older than"
            " the recording",
            self._path,
            kept,
            target,
        )

    # --- a new file ----------------------------------------------------------------------------

    def _set_aside(self, why: str) -> None:
        if not self._path.is_file():
            # A folder or device that was created here since the start is not a recording.
            raise OSError(errno.EEXIST, f"it is not a file; {why}", str(self._path))
        target = files.set_aside(self._path, "before", self._clock_ns())
        self._begin_anew(f"{why}; it is now {target}")
        self.note = f"{why}; it is now {target.name}"

    def _begin_anew(self, why: str) -> None:
        _log.warning("A new file was created for the recording %s: %s", self._path, why)
        self._create()
        self.note = f"a new file was created: {why}"

    def _create(self) -> None:
        empty = self._format.empty
        files.make_directory(self._path.parent)
        files.replace_file(self._path, empty)
        self._format.recall("")
        self._unfinished = False
        self._room = 0
        self.progress = Progress(self._format.name, self.progress.seq, length=len(empty))

    def _open(self) -> io.FileIO:
        # Opened for each batch by its name, so that a replaced file is noticed, and so that other
        # programs on Windows can rename or remove it between batches.
        return io.FileIO(self._path, "r+")
