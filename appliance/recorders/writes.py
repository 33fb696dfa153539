"""Writes at an offset of a file, divided so that a reader finds a complete file after each.

Not for: what a recording is (recording.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

PAGE_BYTES = 4096
MAX_PAGES = 8
MAX_WRITES = 8
"""A batch of more than ``MAX_PAGES`` is divided into this many writes: each write releases the
interpreter's lock, and to get it back from a busy engine takes longer than the write."""


def positioned(pieces: Sequence[bytes], start: int, closing: bytes) -> Iterator[tuple[int, bytes]]:
    """Divide an append into writes, so that the file is complete after each.

    The operating system carries out a write within one page almost atomically, so a write ends
    at the last message that fits into the page. A message that crosses into the next page is
    written alone. A batch of more than ``MAX_PAGES`` is divided into ``MAX_WRITES``.

    Yields:
        Offset in the file and bytes, which end with ``closing``.
    """
    total = sum([len(piece) for piece in pieces])
    paged = total <= MAX_PAGES * PAGE_BYTES
    group: list[bytes] = []
    size = 0
    for piece in pieces:
        room = PAGE_BYTES - start % PAGE_BYTES if paged else total / MAX_WRITES
        if group and (size + len(piece) + len(closing) > room if paged else size >= room):
            yield start, b"".join((*group, closing))
            start += size
            group, size = [], 0
        group.append(piece)
        size += len(piece)
    yield start, b"".join((*group, closing))


def common(one: bytes, other: bytes) -> int:
    """Length of the common beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # by halving, because comparing slices is fast and a loop over bytes is not
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def read_at(file: io.FileIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    parts = []
    while size > 0:
        part = file.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_at(file: io.FileIO, offset: int, data: bytes) -> None:
    file.seek(offset)
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]
