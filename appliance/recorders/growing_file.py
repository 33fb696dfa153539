"""A target that is one growing file: ``json``, ``jsonl`` and ``csv``.

Not for: the file's bytes (recording.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from appliance.model import Message
from appliance.recorders.format import Format
from appliance.recorders.progress import Progress
from appliance.recorders.recording import Recording
from appliance.recorders.target import Figures, Later, Target, Unsaved


class GrowingFile(Target):
    """One file and its row in ``recorders.db``.

    Args:
        key: of the row.
        path: the file.
        file_format: of the file.
        stored: the row; ``format`` is ``""`` for a file that is to be begun.
        clock_ns: present time, for the names of files that are set aside.
    """

    def __init__(
        self,
        key: str,
        path: Path,
        file_format: Format,
        stored: Progress,
        clock_ns: Callable[[], int],
    ) -> None:
        self.key = key
        self._path = path
        self._format = file_format
        self._clock_ns = clock_ns
        self._stored = stored
        self._recording: Recording | None = None
        """``None`` until the file is prepared."""

    @property
    def progress(self) -> Progress:
        """The position, up to the last message in the file."""
        return self._recording.progress if self._recording else self._stored

    @property
    def note(self) -> str:
        return self._recording.note if self._recording else ""

    @property
    def cursor(self) -> int:
        return self.progress.seq

    @property
    def durable_cursor(self) -> int:
        return self._stored.seq

    def open(self, later: Later) -> None:
        recording = Recording(self._path, self._format, self._stored, self._clock_ns)
        if self._stored.format:
            recording.resume(lambda size: _next_bytes(recording, later, size))
        else:
            recording.begin()
        self._recording = recording

    def append(self, messages: Sequence[Message], seq: int) -> None:
        assert self._recording is not None
        self._recording.append(messages, seq)

    def skip(self, seq: int) -> None:
        assert self._recording is not None
        self._recording.skip(seq)

    def tick(self, now_ns: int) -> None:
        pass

    def finish(self) -> None:
        if self._recording is not None:
            self._recording.finish()

    def unsaved(self) -> Unsaved:
        stored, progress = self._stored, self.progress
        if progress == stored:
            return Unsaved()
        return Unsaved(
            rows=((self.key, progress),),
            is_urgent=msgspec.structs.replace(stored, seq=progress.seq) != progress,
            # The first row of a file. Later ones may be behind their file.
            is_durable=stored.format != progress.format or progress.count < stored.count,
        )

    def saved(self, rows: Sequence[tuple[str, Progress]]) -> None:
        for key, progress in rows:
            if key == self.key:
                self._stored = progress

    def figures(self) -> Figures:
        progress = self.progress
        return Figures(recorded=progress.count, size_bytes=progress.length)


def _next_bytes(recording: Recording, later: Later, size: int) -> bytes:
    """The bytes that are appended next: at least so many, if messages give so many."""
    found: list[Message] = []
    pieces: list[bytes] = []
    for messages in later(recording.progress.seq):
        found.extend(messages)
        pieces = recording.pieces(found) if found else []
        if sum(map(len, pieces)) >= size:
            break
    return b"".join(pieces)
