"""One file that grows: appended exactly once, recognised again, never destroyed.

A write begins where the closing bracket stands and ends with a new one, so a write costs the same
however long the file is. Before each write the file's end is compared with what was left there;
a file that somebody changed, shortened or replaced is set aside and a new one is begun.

Blanks stand behind the closing bracket while the appliance runs, and writes go into them. Without
them a reader that learned the file's size just before a write would get the new bytes up to the
old size, an array without its end: one write in ten was seen so by a reader that never pauses,
with blanks one in a thousand.
Not for: which messages belong in (recorders.py) and how they look (the formats).
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

from appliance import files
from appliance.model import Message
from appliance.recorders.formats import Format
from appliance.recorders.progress import Progress
from appliance.recorders.writes import common, positioned, read_at, write_at

SEAM_BYTES = 128
# More than this behind the end was not written by an interrupted write of ours.
_MAX_UNFINISHED_BYTES = 64 * 1024 * 1024
_COPY_BYTES = 1024 * 1024

_BLANK = b" "
_MIN_ROOM_BYTES = 512
_MAX_ROOM_BYTES = 256 * 1024
# So long, readers that know the old size have time to finish before what it covers is changed.
_ROOM_PAUSE_S = 0.002

_log = logging.getLogger(__name__)

Regenerate = Callable[[int], bytes]
"""Gives the bytes that will be appended next, at least so many if there are messages for them."""


class Recording:
    """A file and how far it has come. One thread at a time.

    ``progress`` is true once a method returned; ``note`` says in words what was set aside, if
    anything was.
    """

    def __init__(
        self, path: Path, file_format: Format, progress: Progress, clock_ns: Callable[[], int]
    ) -> None:
        self.progress = progress
        self.note = ""
        self._path = path
        self._format = file_format
        self._clock_ns = clock_ns
        # A write of ours failed half-way and could not be undone yet.
        self._unfinished = False
        self._padded = bool(file_format.closing)
        # Blanks behind the end.
        self._room = 0

    # --- opening -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the file for a new recording. A file that is already there is set aside.

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
        """Go on where ``progress`` says, after whatever ended the last run.

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
        self._set_aside("it was changed by somebody else")

    def _is_ours(self, file: io.FileIO, size: int, regenerate: Regenerate) -> bool:
        """Whether what stands behind the seam is the beginning of what we would write next."""
        end = self._body_end
        if size - end > _MAX_UNFINISHED_BYTES:
            return False
        found = read_at(file, end, size - end)
        if self._padded:
            found = found.rstrip(_BLANK)
        if self._end.startswith(found):  # our own repair was interrupted
            return True
        expected = regenerate(len(found))
        length = common(found, expected)
        # Behind what was written stands a closing of ours, or the rest of the one before.
        return found[length:] in {b"", self._format.closing, self._end[length:]}

    # --- appending -----------------------------------------------------------------------------

    def append(self, messages: Sequence[Message], seq: int) -> None:
        """Add messages; when this returns they are on the disk and ``progress`` includes them.

        Args:
            messages: at least one.
            seq: the journal's sequence number up to which everything has been looked at.

        Raises:
            OSError: nothing was added; try again.
        """
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
        """What the messages add to the file, in order; after each piece the file may end."""
        separator = self._format.separator
        if self.progress.count:
            return [separator + element for element in self._format.elements(messages)]
        # The opening comes first: a format may learn from it what elements look like.
        opening = self._format.opening(messages[0])
        first, *others = self._format.elements(messages)
        return [opening + first, *(separator + element for element in others)]

    def skip(self, seq: int) -> None:
        """Everything up to ``seq`` was looked at, and nothing of it belongs in."""
        self.progress = msgspec.structs.replace(self.progress, seq=seq)

    def finish(self) -> None:
        """Take the blanks away; the file ends with its closing bracket.

        Raises:
            OSError: they stay, which does no harm.
        """
        if self._room:
            with self._open() as file:
                if self._is_untouched(file, os.fstat(file.fileno()).st_size):
                    file.truncate(self.progress.length)
                    self._room = 0

    def _make_room(self, file: io.FileIO, size: int) -> None:
        """Have blanks for so many bytes before they are overwritten."""
        if self._padded and self._room < size + len(self._format.closing):
            self._add_room(file, size + _MIN_ROOM_BYTES)
            time.sleep(_ROOM_PAUSE_S)

    def _keep_room(self, file: io.FileIO, size: int) -> None:
        """Have blanks for the next batch, guessed from this one, long before it is written."""
        wanted = min(max(_MIN_ROOM_BYTES, 2 * size), _MAX_ROOM_BYTES)
        if self._padded and self._room < wanted // 2:
            with contextlib.suppress(OSError):  # the next batch will find out
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
        self._set_aside("it was changed by somebody else")
        return self._open()

    # --- the file's end ------------------------------------------------------------------------

    @property
    def _end(self) -> bytes:
        """What stands behind the seam at rest."""
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
        # An editor may have added or removed white space behind the end: no harm done.
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
        """Back to the state that ``progress`` speaks of."""
        file.truncate(self._body_end)
        write_at(file, self._body_end, self._end)
        files.sync_file(file.fileno())
        self._room = 0
        self._unfinished = False

    def _keep_excess(self, file: io.FileIO, size: int) -> None:
        """Save what somebody else wrote behind the end, before it is cut off."""
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
        self.note = f"what stood behind its end was moved to {target.name}"
        _log.warning(
            "Somebody wrote behind the end of the recording %s; those %d bytes were moved to %s",
            self._path,
            kept,
            target,
        )

    # --- beginning anew ------------------------------------------------------------------------

    def _set_aside(self, why: str) -> None:
        if not self._path.is_file():
            # A folder or device that came here since the start is somebody's, and no recording.
            raise OSError(errno.EEXIST, f"it is no file; {why}", str(self._path))
        target = files.set_aside(self._path, "before", self._clock_ns())
        self._begin_anew(f"{why}; it is now {target}")
        self.note = f"{why}; it is now {target.name}"

    def _begin_anew(self, why: str) -> None:
        _log.warning("A new file was begun for the recording %s: %s", self._path, why)
        self._create()
        self.note = f"a new file was begun: {why}"

    def _create(self) -> None:
        empty = self._format.empty
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.replace_file(self._path, empty)
        self._format.recall("")
        self._unfinished = False
        self._room = 0
        self.progress = Progress(self._format.name, self.progress.seq, length=len(empty))

    def _open(self) -> io.FileIO:
        # Opened anew for each batch: the name decides, so a file that was replaced is noticed, and
        # on Windows others may rename or remove it in between.
        return io.FileIO(self._path, "r+")
