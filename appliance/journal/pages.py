"""The pages of a damaged SQLite file and of its log, and the journal's chunks on them.

A damaged page stops SQLite, which finds rows by way of other pages. Here each page is looked at by
itself, so that a chunk is found wherever it is whole (https://www.sqlite.org/fileformat.html).
Chunks are the only rows of the journal with a rowid, and what is in them shows whether they are
whole. Not for: the other tables (rescue.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self, get_args

from appliance.journal.chunks import Row, decode

_MAGIC = b"SQLite format 3\0"
_USUAL_PAGE = 4096
_PAGE_SIZES = frozenset(1 << power for power in range(9, 17))
_LOG_MAGIC = (0x377F0682, 0x377F0683)
_LOG_HEADER = 32
_FRAME_HEADER = 24
_TABLE_LEAF = 0x0D
_LARGEST_BODY = 512 * 1024 * 1024
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)


class Pages:
    """Pages by their numbers, the log's in place of the file's. A page may be missing.

    Use it as a context manager.
    """

    def __init__(self, path: Path, log: Path) -> None:
        """Either file may be missing, empty or anything at all."""
        self._stack = contextlib.ExitStack()
        self._file = self._open(path)
        self._log = self._open(log)
        header = self._read(self._file, 0, 100)
        log_header = self._read(self._log, 0, _LOG_HEADER)
        self.size = _page_size(header, log_header)
        self._in_log: dict[int, int] = {}
        self._log_pages: list[int] = []
        self._find_log_pages(log_header)
        length = 0 if self._file is None else self._file.seek(0, 2)
        self._in_file_count = -(-length // self.size)
        self.count = max(self._in_file_count, *self._in_log, 0)
        """The highest number, which a damaged log may make up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def get(self, number: int) -> bytes:
        """A page, the first is 1; empty if it can't be read."""
        offset = self._in_log.get(number)
        if offset is None:
            return self._in_file(number)
        return self._page(self._log, offset)

    def chunks(self) -> Iterator[Row]:
        """Every chunk that is whole, in no order; one may come several times.

        The file's own pages are looked at too where the log has newer ones, and each page of the
        log: the log may be damaged or another file's, and its end may be half of a commit.
        """
        for number in range(2, self._in_file_count + 1):
            yield from self._chunks_on(self._in_file(number), self._in_file)
        for at in self._log_pages:
            yield from self._chunks_on(self._page(self._log, at), self.get)

    def _chunks_on(self, page: bytes, get: Callable[[int], bytes]) -> Iterator[Row]:
        if page[:1] != bytes([_TABLE_LEAF]):
            return
        for index in range(_unsigned(page, 3, 2)):
            # Foreign bytes may lead anywhere.
            with contextlib.suppress(ValueError, IndexError):
                yield self._chunk(page, _unsigned(page, 8 + 2 * index, 2), get)

    def _in_file(self, number: int) -> bytes:
        return self._page(self._file, (number - 1) * self.size)

    def _page(self, file: BinaryIO | None, at: int) -> bytes:
        page = self._read(file, at, self.size)
        return page.ljust(self.size, b"\0") if page else b""  # the last one may be cut

    def _chunk(self, page: bytes, at: int, get: Callable[[int], bytes]) -> Row:
        """The chunk in a cell. Raises ``ValueError`` or ``IndexError`` if it is not whole."""
        size, at = _varint(page, at)
        first, at = _varint(page, at)
        if size > _LARGEST_BODY:
            raise ValueError(size)
        record = self._payload(page, at, size, get)
        header, place = _varint(record, 0)
        kinds = []
        while place < header:
            kind, place = _varint(record, place)
            kinds.append(kind)
        if len(kinds) != len(get_args(Row)):
            raise ValueError(kinds)
        numbers = []
        for kind in kinds[1:4]:
            length = _INTEGER_BYTES[kind] if kind < len(_INTEGER_BYTES) else 0
            if kind in {8, 9}:  # the numbers 0 and 1
                numbers.append(kind - 8)
            elif length:
                value = record[place : place + length]
                numbers.append(int.from_bytes(value, "big", signed=True))
            else:
                raise ValueError(kind)
            place += length
        last, first_ns, last_ns = numbers
        body = record[place:]
        messages = decode(body)
        if messages and (messages[0].seq, messages[-1].seq) != (first, last):
            raise ValueError(first)
        return first, last, first_ns, last_ns, body

    def _payload(self, page: bytes, at: int, size: int, get: Callable[[int], bytes]) -> bytes:
        # https://www.sqlite.org/fileformat.html#cell_payload_overflow_pages
        usable = self.size
        if size <= usable - 35:
            return page[at : at + size]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        if local > usable - 35:
            local = least
        parts = [page[at : at + local]]
        following = _unsigned(page, at + local, 4)
        left = size - local
        while left > 0:
            overflow = get(following)
            if not overflow:
                raise ValueError(following)
            parts.append(overflow[4 : 4 + left])
            left -= usable - 4
            following = _unsigned(overflow, 0, 4)
        return b"".join(parts)

    def _find_log_pages(self, header: bytes) -> None:
        salts = header[16:24]
        if _unsigned(header, 0, 4) not in _LOG_MAGIC:
            salts = self._read(self._log, _LOG_HEADER + 8, 8)
        at = _LOG_HEADER
        while len(frame := self._read(self._log, at, _FRAME_HEADER)) == _FRAME_HEADER:
            if frame[8:16] == salts:  # else it is left from before the log was begun anew
                self._in_log[_unsigned(frame, 0, 4)] = at + _FRAME_HEADER
                self._log_pages.append(at + _FRAME_HEADER)
            at += _FRAME_HEADER + self.size

    def _open(self, path: Path) -> BinaryIO | None:
        try:
            return self._stack.enter_context(path.open("rb"))
        except OSError:
            return None

    @staticmethod
    def _read(file: BinaryIO | None, at: int, length: int) -> bytes:
        if file is None:
            return b""
        try:
            file.seek(at)
            return file.read(length)
        except (OSError, ValueError, OverflowError):  # a bad sector; a number that is none
            return b""


def _page_size(header: bytes, log_header: bytes) -> int:
    found = []
    if header.startswith(_MAGIC):
        size = _unsigned(header, 16, 2)
        found.append(65536 if size == 1 else size)
    if _unsigned(log_header, 0, 4) in _LOG_MAGIC:
        found.append(_unsigned(log_header, 8, 4))
    return next((size for size in found if size in _PAGE_SIZES), _USUAL_PAGE)


def _unsigned(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, and where it ends. Raises ``IndexError`` beyond the end."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | data[place] & 0x7F
        if not data[place] & 0x80:
            return value, place + 1
    return value << 8 | data[at + 8], at + 9
