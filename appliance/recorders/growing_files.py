"""A series of growing files: one after the other, each closed for good at a bound.

The file that is being written has the number of its first message in its name from the start
(``STEM-FIRST.EXT``); without bounds of its own it has the name of the path. One row of
``recorders.db`` says which file that is and where it stands. It is on the disk before the file's
first byte, and in the transaction that makes the file a closed one, so after a crash each message
is in one file.
Not for: what a file is (recording.py), compressing and removing closed ones (closed_files.py),
which messages belong to the series (spread.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.model import Message
from appliance.recorders.closed_files import ClosedFiles
from appliance.recorders.formats import make_format
from appliance.recorders.part_store import Part
from appliance.recorders.progress import Progress
from appliance.recorders.recording import Recording
from appliance.recorders.target import Context, Figures, Later, Unsaved, key_of
from appliance.storage import files

_METADATA_BYTES = 120
"""About what number, time, topic and client add to a message, for the size of a file."""


SERIES = "series "
"""Before the name of the format in the row of a series."""


class OpenFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the row remembers beside the position (``Progress.memory``)."""

    name: str = ""
    """Of the file that is being written; ``""``: there is none."""
    first_seq: int = 0
    first_ns: int = 0
    """The first message in it: its number and when it was received."""
    last_ns: int = 0
    earlier: int = 0
    """Messages in files that are closed."""
    format: str = ""
    """What the format remembers (``Format.memory``)."""


_opened = msgspec.json.Decoder(OpenFile)


class GrowingFiles:
    """The series of one path. A ``Target``, or one of many that a ``Spread`` has.

    Args:
        context: of the recorder.
        stored: the row of the series; ``format`` is ``""`` if it begins.
        key: of that row.
        path: the path without placeholders.
        closed: takes over files that are closed.
    """

    def __init__(
        self, context: Context, stored: Progress, key: str, path: Path, closed: ClosedFiles
    ) -> None:
        self._context = context
        self._key = key
        self._path = path
        self._closed = closed
        self._rotate = context.config.rotate
        self._stored = stored
        self._cursor = stored.seq
        self._recording: Recording | None = None
        self._format = make_format(context.config)
        """To ask about messages; each file has its own."""
        self._format_name = SERIES + self._format.name
        if stored.format.startswith(SERIES):
            self._opened = _opened.decode(stored.memory)
        elif stored.format:
            # The path was one file that grew so far: it is the first one of the series.
            now_ns = context.clock_ns()
            self._opened = OpenFile(path.name, 0, now_ns, now_ns, format=stored.memory)
        else:
            self._opened = OpenFile()
        self._is_begun = False
        """Whether the file's row is not on the disk yet, so that nothing may be written."""
        self.note = ""

    @property
    def cursor(self) -> int:
        return self._cursor

    @property
    def durable_cursor(self) -> int:
        return self._stored.seq

    # --- opening -------------------------------------------------------------------------------

    def open(self, later: Later) -> None:
        if self._recording is not None or not self._opened.name:
            return
        name = self._stored.format.removeprefix(SERIES)
        if (
            SERIES + name != self._format_name
            and not self._path.with_name(self._opened.name).exists()
        ):
            self._opened = OpenFile(earlier=self._opened.earlier)
            return
        recording = self._recording_of(
            self._opened.name,
            msgspec.structs.replace(self._stored, format=name, memory=self._opened.format),
        )

        def regenerate(size: int) -> bytes:
            found: list[Message] = []
            pieces: list[bytes] = []
            for messages in later(self._stored.seq):
                found.extend(messages)
                pieces = recording.pieces(found) if found else []
                if sum(map(len, pieces)) >= size:
                    break
            return b"".join(pieces)

        recording.resume(regenerate)
        self._recording = recording
        self._take_note()

    def prepare(self, first: Message) -> None:
        """Make the file that a message begins, if there is none.

        Nothing is written to it before its row is stored (``unsaved``, ``saved``).

        Raises:
            OSError: not possible now; try again.
        """
        if self._recording is not None and self._is_over(first.received_ns):
            self._close()
        if self._recording is not None:
            return
        name = self._name(first.seq)
        recording = self._recording_of(name, Progress("", self._cursor))
        recording.begin()
        self._recording = recording
        self._opened = OpenFile(name, earlier=self._opened.earlier)
        self._is_begun = True
        self._take_note()

    def _recording_of(self, name: str, progress: Progress) -> Recording:
        context = self._context
        return Recording(
            self._path.with_name(name), make_format(context.config), progress, context.clock_ns
        )

    def _name(self, first_seq: int) -> str:
        path = self._path
        if self._rotate is None and not self._closed.has(path):
            return path.name
        return f"{path.stem}-{first_seq:012d}{path.suffix}"

    # --- appending -----------------------------------------------------------------------------

    def append(self, messages: Sequence[Message], seq: int) -> None:
        messages = self._format.with_rows(messages)
        start = 0
        while start < len(messages):
            self.prepare(messages[start])
            end = self._end_of_file(messages, start)
            self._append(messages[start:end])
            start = end
        self.skip(seq)

    def skip(self, seq: int) -> None:
        self._cursor = max(self._cursor, seq)
        if self._recording is not None:
            self._recording.skip(self._cursor)

    def _append(self, messages: Sequence[Message]) -> None:
        recording = self._recording
        assert recording is not None
        if self._is_begun:
            rows = [(self._key, self._row())]
            self._context.store.save(rows, durable=True)
            self.saved(rows)
        count = recording.progress.count
        recording.append(messages, messages[-1].seq)
        self._cursor = messages[-1].seq
        opened = self._opened
        is_new = recording.progress.count == len(messages) or not count
        self._opened = OpenFile(
            opened.name,
            first_seq=messages[0].seq if is_new else opened.first_seq,
            first_ns=messages[0].received_ns if is_new else opened.first_ns,
            last_ns=messages[-1].received_ns,
            earlier=opened.earlier,
        )
        self._take_note()
        if self._is_full():
            self._close()

    def _end_of_file(self, messages: Sequence[Message], start: int) -> int:
        """The number behind the last message that belongs to the present file."""
        rotate, recording = self._rotate, self._recording
        if rotate is None or recording is None:
            return len(messages)
        most = len(messages)
        if rotate.messages is not None:
            most = min(most, start + max(1, rotate.messages - recording.progress.count))
        first_ns = self._opened.first_ns or messages[start].received_ns
        room = None if rotate.size is None else rotate.size - recording.progress.length
        beside = _METADATA_BYTES if self._context.config.metadata else 4
        end = start
        while end < most:
            message = messages[end]
            if end > start and self._is_late(message.received_ns, first_ns):
                break
            if room is not None:
                room -= len(message.payload) + beside
                if room < 0 and (end > start):
                    break
            end += 1
        return end

    def _is_full(self) -> bool:
        rotate, recording = self._rotate, self._recording
        if rotate is None or recording is None:
            return False
        progress = recording.progress
        return (rotate.messages is not None and progress.count >= rotate.messages) or (
            rotate.size is not None and progress.length >= rotate.size
        )

    def _is_over(self, now_ns: int) -> bool:
        """Whether the open file's time is over."""
        recording = self._recording
        has_some = recording is not None and recording.progress.count > 0
        return has_some and self._is_late(now_ns, self._opened.first_ns)

    def _is_late(self, now_ns: int, first_ns: int) -> bool:
        if self._rotate is None or self._rotate.every is None:
            return False
        # A clock that is set back must not keep a file open for years.
        return abs(now_ns - first_ns) >= self._rotate.every * 1e9

    # --- closing -------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        if self._is_over(now_ns):
            self._close()

    def finish(self) -> None:
        if self._recording is not None:
            self._recording.finish()

    def end(self) -> None:
        """Close the file for good although no bound is reached: its time is over.

        Raises:
            OSError, sqlite3.Error: try again.
        """
        if self._recording is not None and self._recording.progress.count:
            self._close()

    def _close(self) -> None:
        recording = self._recording
        assert recording is not None
        recording.finish()
        progress, opened, context = recording.progress, self._opened, self._context
        path = self._path.with_name(opened.name)
        with path.open("r+b") as file:  # the blanks at its end are gone for good
            files.sync_file(file.fileno())
        part = Part(
            path=key_of(path, context.data_dir),
            recorder=context.key,
            series=self._key,
            first_seq=opened.first_seq,
            last_seq=self._cursor,
            messages=progress.count,
            bytes=progress.length,
            first_ns=opened.first_ns,
            last_ns=opened.last_ns,
            closed_ns=context.clock_ns(),
        )
        memory = OpenFile(earlier=opened.earlier + progress.count)
        row = Progress(self._format_name, self._cursor, memory=_encoded(memory))
        self._closed.add(part, [(self._key, row)])
        self._opened = memory
        self._stored = row
        self._recording = None
        self._is_begun = False

    # --- positions and figures -----------------------------------------------------------------

    def unsaved(self) -> Unsaved:
        row, stored = self._row(), self._stored
        if row == stored:
            return Unsaved()
        is_urgent = msgspec.structs.replace(stored, seq=row.seq) != row
        is_durable = self._is_begun or stored.format != row.format or row.count < stored.count
        return Unsaved([(self._key, row)], is_urgent, is_durable)

    def saved(self, rows: Sequence[tuple[str, Progress]]) -> None:
        for key, row in rows:
            if key == self._key:
                self._stored = row
                self._is_begun = False

    def figures(self) -> Figures:
        files_closed, size = self._closed.figures
        recording = self._recording
        progress = recording.progress if recording is not None else None
        return Figures(
            recorded=self.recorded,
            size_bytes=size + (progress.length if progress else 0),
            files=files_closed + (recording is not None),
        )

    @property
    def recorded(self) -> int:
        """Messages in all files of the series."""
        recording = self._recording
        return self._opened.earlier + (recording.progress.count if recording is not None else 0)

    def _row(self) -> Progress:
        recording = self._recording
        if recording is None:
            if self._opened.name:  # not opened yet
                return self._stored
            return Progress(self._format_name, self._cursor, memory=_encoded(self._opened))
        progress = recording.progress
        memory = msgspec.structs.replace(self._opened, format=progress.memory)
        return msgspec.structs.replace(
            progress, format=self._format_name, seq=self._cursor, memory=_encoded(memory)
        )

    def _take_note(self) -> None:
        if self._recording is not None and self._recording.note:
            self.note = self._recording.note


def _encoded(memory: OpenFile) -> str:
    return msgspec.json.encode(memory).decode()
