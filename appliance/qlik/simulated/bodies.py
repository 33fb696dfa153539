"""The body of an HTTP/1.1 request: by its length, or in chunks with trailers (RFC 9112, 6 and 7).

A body that is not read to its end would be taken for the connection's next request. Not for:
answers, and what a body says.
"""

from __future__ import annotations

import re
from email.message import Message
from io import BufferedIOBase

LIMIT = 1_000_000
"""Bytes of a body."""
_LINE_LIMIT = 8192
_TRAILERS_LIMIT = 100

_LENGTH = re.compile(r"[0-9]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r?\n")


class BodyError(Exception):
    """The end of the body is not known or too far: answer with ``status``, then close."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def declared_length(headers: Message, limit: int = LIMIT) -> int | None:
    """Bytes of the body by its header fields; ``None`` if it comes in chunks.

    Raises:
        BodyError: the header fields contradict each other or the limit.
    """
    codings = headers.get_all("Transfer-Encoding", [])
    lengths = {text.strip() for text in headers.get_all("Content-Length", [])}
    if codings:
        if lengths:
            raise BodyError(400, "Both Transfer-Encoding and Content-Length")
        if [text.strip().lower() for text in codings] != ["chunked"]:
            raise BodyError(501, f"Transfer-Encoding: {', '.join(codings)}")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(next(iter(lengths))):
        raise BodyError(400, f"Content-Length: {', '.join(sorted(lengths))}")
    digits = next(iter(lengths)).lstrip("0") or "0"
    # Python refuses to read a number of thousands of digits.
    if len(digits) > len(str(limit)) or int(digits) > limit:
        raise BodyError(413, f"The body has more than {limit} bytes")
    return int(digits)


def read(stream: BufferedIOBase, headers: Message, limit: int = LIMIT) -> bytes:
    """Read the body of a request to its end.

    Raises:
        BodyError: it has no end that can be told, or is too large.
    """
    length = declared_length(headers, limit)
    if length is not None:
        return _exactly(stream, length)
    pieces: list[bytes] = []
    total = 0
    while size := _chunk_size(stream):
        total += size
        if total > limit:
            raise BodyError(413, f"The body has more than {limit} bytes")
        pieces.append(_exactly(stream, size))
        if _line(stream).rstrip(b"\r\n"):
            raise BodyError(400, "A chunk is longer than its size")
    for _ in range(_TRAILERS_LIMIT):
        if not _line(stream).rstrip(b"\r\n"):
            return b"".join(pieces)
    raise BodyError(400, "Too many trailers")


def _chunk_size(stream: BufferedIOBase) -> int:
    match = _CHUNK_SIZE.fullmatch(_line(stream))
    if match is None:
        raise BodyError(400, "A chunk without a size")
    return int(match[1], 16)


def _line(stream: BufferedIOBase) -> bytes:
    line = stream.readline(_LINE_LIMIT)
    if not line.endswith(b"\n"):
        raise BodyError(400, "A line of the body has no end")
    return line


def _exactly(stream: BufferedIOBase, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise BodyError(400, "The body is shorter than its length")
    return data
