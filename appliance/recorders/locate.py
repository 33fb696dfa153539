"""Where a recording stands, found by its end: for when its position in the database is lost.

The same messages always give the same bytes, so the last message of a file is the one whose bytes
are at its end, with those of the messages before it in front. Where messages repeat, more than one
may fit: the newest that the file can hold is taken, by the time of the last write, and the
doubtful ones are named. Not for: what an interrupted write left at the end (recording.py).
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from appliance.model import Message
from appliance.recorders.csv import CsvFormat
from appliance.recorders.format import Format
from appliance.recorders.progress import SEAM_BYTES, Progress
from appliance.recorders.writes import read_at

MAX_MESSAGES = 200_000
"""Messages of a recording that are looked at, the newest."""
_TAIL_BYTES = 2 * 1024 * 1024
_HEAD_BYTES = 256 * 1024
_ENOUGH_BYTES = 64 * 1024
_ENOUGH_MESSAGES = 200
"""So much that is the same before a place is proof."""
_REPEATS = 2000
"""Older messages that are looked at for another place."""
_TORN_MESSAGES = 2000
_CLOCK_SLACK_NS = 2_000_000_000
"""The coarsest time of a file system (FAT)."""
_DIGITS = 19
_COUNTED_BYTES = 256 * 1024 * 1024
_NOTHING = b" \0"


class Place(msgspec.Struct, frozen=True):
    """A position that was found."""

    progress: Progress
    doubtful: tuple[int, int] | None = None
    """The messages from the first to the second number may be in the file or not: they look like
    others that are in it. They count as recorded."""


def locate(
    path: Path, file_format: Format, newest_first: Iterable[Message], last_seq: int
) -> Place | None:
    """Find the last message of a recording.

    Args:
        path: the file.
        file_format: its format, as configured; a CSV file's columns are read from its header.
        newest_first: the journal's messages that belong to the recording.
        last_seq: the journal's newest message.

    Returns ``None`` if the file's end is not what any of these messages gives, and does not say its
    number either.

    Raises:
        OSError: the file can't be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        head = read_at(file, 0, _HEAD_BYTES)
        start = max(0, size - _TAIL_BYTES)
        tail = read_at(file, start, size - start)
        written_ns = os.fstat(file.fileno()).st_mtime_ns
    if isinstance(file_format, CsvFormat) and not _recall_columns(file_format, head):
        return None
    body = tail.rstrip(_NOTHING if file_format.closing else b"\0")
    body = body.removesuffix(file_format.closing)
    finder = _Finder(file_format, body, start, _Messages(newest_first))
    found = finder.find(written_ns + _CLOCK_SLACK_NS)
    if found is not None:
        number, end, doubtful = found
        seq = finder.messages.at(number).seq
    elif 0 < (seq := _written_number(file_format, body)) <= last_seq:
        end, doubtful = len(body), None
    else:
        return None
    content = body[:end]
    progress = Progress(
        format=file_format.name,
        seq=seq,
        length=start + end + len(file_format.closing),
        count=_count(path, file_format, start + end),
        seam=content[-SEAM_BYTES:],
        memory=file_format.memory,
    )
    return Place(progress, doubtful)


_NUMBERS = {
    "json": (re.compile(rb'\n  \{\n    "seq": ([0-9]+),'), b"\n  }"),
    "jsonl": (re.compile(rb'(?m)^\{"seq": ([0-9]+), '), b"}\n"),
    "csv": (re.compile(rb"(?m)^([0-9]+),[0-9]{4}-[0-9]{2}-[0-9]{2}T"), b"\r\n"),
}


def _written_number(file_format: Format, body: bytes) -> int:
    """The number that stands in the last message of a file with metadata, 0 if there is none.

    The journal may have no message of a recording any more that gets one a month.
    """
    known = _NUMBERS if file_format.has_metadata else {}
    pattern, end = known.get(file_format.kind, (None, b""))
    if pattern is None or not body.endswith(end):
        return 0
    for found in reversed(list(pattern.finditer(body))):
        # A line of a quoted cell may look like a row.
        is_row = file_format.kind != "csv" or body.count(b'"', found.start()) % 2 == 0
        if is_row and len(found[1]) < _DIGITS:
            return int(found[1])
    return 0


class _Messages:
    """Messages by their place, 0 is the newest; read as far as they are asked for."""

    def __init__(self, newest_first: Iterable[Message]) -> None:
        self._source: Iterator[Message] = iter(newest_first)
        self._read: list[Message] = []

    def has(self, number: int) -> bool:
        while len(self._read) <= number < MAX_MESSAGES:
            one = next(self._source, None)
            if one is None:
                return False
            self._read.append(one)
        return number < len(self._read)

    def at(self, number: int) -> Message:
        return self._read[number]


class _Finder:
    def __init__(self, file_format: Format, body: bytes, start: int, messages: _Messages) -> None:
        self.messages = messages
        self._format = file_format
        self._body = body
        self._starts_file = start == 0
        self._elements: dict[int, bytes] = {}

    def find(self, latest_ns: int) -> tuple[int, int, tuple[int, int] | None] | None:
        """The last message's place, the offset behind it, and the messages in doubt."""
        first = 0
        while self.messages.has(first) and self.messages.at(first).received_ns > latest_ns:
            first += 1
        found = self._find_from(first)
        # The clock may have been set back between a message and the last write of the file.
        return self._find_from(0) if found is None and first else found

    def _find_from(self, first: int) -> tuple[int, int, tuple[int, int] | None] | None:
        end = len(self._body)
        number = first
        while self.messages.has(number):
            if self._fits(number, end):
                return number, end, self._doubtful(number, end)
            number += 1
        for number in range(first, first + _TORN_MESSAGES):
            if not self.messages.has(number):
                break
            element = self._element(number)
            at = self._body.rfind(element)
            if at >= 0 and self._fits(number, at + len(element)):
                return number, at + len(element), None
        return None

    def _doubtful(self, number: int, end: int) -> tuple[int, int] | None:
        oldest = None
        for other in range(number + 1, number + _REPEATS):
            if not self.messages.has(other):
                break
            if self._fits(other, end):
                oldest = other
        if oldest is None:
            return None
        return self.messages.at(oldest - 1).seq, self.messages.at(number).seq

    def _fits(self, number: int, end: int) -> bool:
        """Whether the file up to an offset is what messages up to this one give."""
        at, same = end, 0
        separator = self._format.separator
        while True:
            element = self._element(number + same)
            if not self._body.endswith(element, 0, at):
                return False
            at -= len(element)
            same += 1
            if self._is_opening(number + same - 1, at):
                return True
            if end - at >= _ENOUGH_BYTES or same >= _ENOUGH_MESSAGES:
                return True
            if not self._body.endswith(separator, 0, at):
                return False
            at -= len(separator)
            if not self.messages.has(number + same):
                # Older messages are not in the journal any more.
                return True
            if at == 0:
                return not self._starts_file

    def _is_opening(self, number: int, at: int) -> bool:
        if not self._starts_file or at > _HEAD_BYTES:
            return False
        memory = self._format.memory
        try:
            return self._body[:at] == self._format.opening(self.messages.at(number))
        finally:
            self._format.recall(memory)

    def _element(self, number: int) -> bytes:
        element = self._elements.get(number)
        if element is None:
            if len(self._elements) > _ENOUGH_MESSAGES * 2:
                self._elements.clear()
            element = self._elements[number] = self._format.element(self.messages.at(number))
        return element


def _recall_columns(file_format: CsvFormat, head: bytes) -> bool:
    """Take the columns from a CSV file's header; whether it is one of this format."""
    text = head.decode("utf-8", "replace")
    names = next(csv.reader(io.StringIO(text, newline="")), [])
    return file_format.recall_header(names) and head.startswith(file_format.header())


def _count(path: Path, file_format: Format, end: int) -> int:
    """How many messages are in a file up to an offset; beyond 256 MB it is estimated."""
    counted = min(end, _COUNTED_BYTES)
    with path.open("rb") as file:
        found = _COUNTS[file_format.kind](_lines(file, counted))
    return max(1, found * end // counted)


def _lines(file: io.BufferedReader, size: int) -> Iterator[bytes]:
    while size > 0 and (line := file.readline(size)):
        size -= len(line)
        yield line


def _json_elements(lines: Iterable[bytes]) -> int:
    # Below an element's own lines are indented further, and its last one is a bracket.
    return sum(line[:2] == b"  " and line[2:3] not in b" ]}" for line in lines)


def _json_lines(lines: Iterable[bytes]) -> int:
    return sum(line.endswith(b"\n") for line in lines)


def _csv_rows(lines: Iterable[bytes]) -> int:
    rows, is_quoted = -1, False
    for line in lines:
        is_quoted ^= line.count(b'"') % 2 == 1
        rows += not is_quoted
    return rows


_COUNTS = {"json": _json_elements, "jsonl": _json_lines, "csv": _csv_rows}
