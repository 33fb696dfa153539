"""Bodies of requests that are read from a file while they are sent: no file is whole in memory.

A body has a known length, so it goes out with ``Content-Length`` and a proxy need not gather it.
Not for: sending (transport.py), reading the bodies of answers.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

PIECE = 65536


class FileChangedError(OSError):
    """A file has fewer bytes than it had when its upload began."""


class Body:
    """Bytes, the content of an open file, bytes: read once, from the beginning.

    ``http.client`` and ``requests`` both take such an object.
    """

    def __init__(
        self, file: BinaryIO, size: int, *, before: bytes = b"", after: bytes = b"", kind: str
    ) -> None:
        """Nothing is read yet.

        Args:
            file: is read from where it stands.
            size: bytes of it that are sent.
            before: is sent first.
            after: is sent last.
            kind: the content type.
        """
        self.kind = kind
        self._file = file
        self._before = before
        self._after = after
        self._file_left = size
        self._length = len(before) + size + len(after)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece

    def read(self, _size: int = -1) -> bytes:
        """The next piece; nothing at the end.

        Raises:
            FileChangedError: the file ends too early.
            OSError: it can't be read.
        """
        if self._before:
            piece, self._before = self._before, b""
            return piece
        if self._file_left:
            piece = self._file.read(min(PIECE, self._file_left))
            if not piece:
                raise FileChangedError("the file became shorter while it was sent")
            self._file_left -= len(piece)
            return piece
        piece, self._after = self._after, b""
        return piece


def octets(file: BinaryIO, size: int, kind: str = "application/octet-stream") -> Body:
    """A file as it is, or a piece of it."""
    return Body(file, size, kind=kind)


def form(fields: object, file: BinaryIO | None, size: int) -> Body:
    """``multipart/form-data`` (RFC 7578) with a part ``Json`` and, with a file, a part ``File``.

    The file's name in the form is fixed: the name that counts is among the fields.
    """
    boundary = secrets.token_hex(16)
    head = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="Json"\r\n'
        "Content-Type: application/json\r\n\r\n"
    ).encode()
    before = head + msgspec.json.encode(fields) + b"\r\n"
    after = f"--{boundary}--\r\n".encode()
    if file is not None:
        before += (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="File"; filename="data"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        after = b"\r\n" + after
    return Body(
        file if file is not None else io.BytesIO(),
        size if file is not None else 0,
        before=before,
        after=after,
        kind=f"multipart/form-data; boundary={boundary}",
    )
