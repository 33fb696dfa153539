"""A payload as a JSON value: unchanged if it is JSON, else wrapped without loss.

No payload is parsed into Python values, so numbers, escapes and duplicate keys keep their text;
only white space between the tokens changes. docs/recording.md has the forms for readers.
Not for: the text around the value (json.py, jsonl.py, csv.py).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

MAX_DEPTH = 100
"""Arrays and objects nested deeper than this are recorded as text: most JSON readers give up
somewhere between 64 and 1000 levels, and one such value would make a whole recording unreadable."""

RESERVED = frozenset({"$text", "$base64", "$json"})
"""An object with one of these keys stands for a payload that is not (or not simply) JSON."""

_WRAPPERS = (b'{"$text": ', b'{"$base64": ', b'{"$json": ')

# The largest ratio of the indented form's length to the payload's length.
_MAX_GROWTH = 16
# If no line of an array of payloads is indented this far, no byte of a payload gives more than
# _MAX_GROWTH bytes of text: itself, a blank after a colon, a line break and its blanks.
_DEEP = b"\n" + b" " * (_MAX_GROWTH - 2)
# A payload of at most this length can't be nested too deep, so it is not counted.
_SHORT = 2 * MAX_DEPTH

_format = msgspec.json.format
_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])


def json_value(payload: bytes, *, indent: bool) -> bytes:
    """The JSON text (UTF-8) that stands for a payload.

    Args:
        payload: any bytes.
        indent: two blanks a level, as ``json.dumps(indent=2)`` does; else one line.
    """
    width = 2 if indent else 0
    if len(payload) > _SHORT:
        # Counting brackets is fast and mostly enough; ``nesting`` is exact and slower.
        openings = payload.count(b"[") + payload.count(b"{")
        if openings > MAX_DEPTH and nesting(payload) > MAX_DEPTH:
            return _wrapped(payload, width)
        if indent and _grows_too_much(payload, openings):
            width = 0
    try:
        if not payload.isascii():
            payload.decode()
        text = _format(payload, indent=width)
    except (UnicodeDecodeError, msgspec.DecodeError):
        return _wrapped(payload, width)
    if width and len(text) > _MAX_GROWTH * len(payload) + _SHORT:
        width = 0
        text = _format(payload, indent=0)
    if (b"$" in payload or b"\\u" in payload) and _is_reserved(text):
        return _object(b"$json", text, width)
    return text


def indented(text: bytes) -> bytes:
    """A JSON text with line breaks, or as it is if they would make it much longer.

    It may be nested a little deeper than ``MAX_DEPTH``.
    """
    openings = text.count(b"[") + text.count(b"{")
    if len(text) > _SHORT and _grows_too_much(text, openings):
        return text
    found = _format(text, indent=2)
    return found if len(found) <= _MAX_GROWTH * len(text) + _SHORT else text


def is_wrapped(value: bytes) -> bool:
    """Whether a text of ``json_value`` on one line stands for a payload that is not simply JSON."""
    return value.startswith(_WRAPPERS)


def objects(payloads: Sequence[bytes]) -> bytes | None:
    """Short JSON objects as the elements of one indented array, in one call.

    Each element is the result of ``json_value(..., indent=True)``, indented by two more blanks,
    with the separator of such elements. One call costs a fifth of single calls. ``None``: a payload
    is not an object, or needs ``json_value``.
    """
    if max(map(len, payloads)) > _SHORT:
        return None
    joined = b"[%b]" % b",".join(payloads)
    if b"$" in joined or b"\\u" in joined:
        return None
    try:
        if not joined.isascii():
            joined.decode()
        # Each payload must be exactly one element. The NUL between the elements is not JSON, so no
        # element has one.
        if b"\0".join(_elements.decode(joined)) != b"\0".join(payloads):
            return None
    except (UnicodeDecodeError, msgspec.DecodeError):
        return None
    text = _format(joined, indent=2)
    # The nesting is so small that the text can't grow by more than json_value allows.
    if _DEEP in text:
        return None
    # Only at the top level is a brace indented by two blanks, and a string has no line break.
    if not text.startswith(b"[\n  {") or text.count(b",\n  {") != len(payloads) - 1:
        return None
    return text[4:-2]


def values(payloads: Sequence[bytes]) -> list[bytes] | None:
    """``json_value(..., indent=False)`` of each payload, in a few calls for all of them.

    ``None``: a payload needs ``json_value``, because it is no JSON or has something special.
    """
    joined = b"[%b]" % b",".join(payloads)
    if b"$" in joined or b"\\u" in joined:
        return None
    if max(map(len, payloads)) > _SHORT and any(
        payload.count(b"[") + payload.count(b"{") > MAX_DEPTH for payload in payloads
    ):
        return None
    try:
        if not joined.isascii():
            joined.decode()
        # As in ``objects``: each payload is exactly one element.
        if b"\0".join(_elements.decode(joined)) != b"\0".join(payloads):
            return None
        return list(map(bytes, _elements.decode(_format(joined, indent=0))))
    except (UnicodeDecodeError, msgspec.DecodeError):
        return None


def nesting(payload: bytes) -> int:
    """How deep arrays and objects are nested, at most ``MAX_DEPTH + 1``.

    Works without recursion and on any bytes; for bytes that are not JSON the number has no meaning.
    A bracket in a string counts as a level where it is the only one of the payload.
    """
    openings = payload.count(b"[") + payload.count(b"{")
    if openings <= 1:
        return openings
    # Escaped characters first, so that every quote left begins or ends a string.
    bare = payload.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(bare.split(b'"')[::2])
    brackets = outside.translate(_TO_SQUARE, _NO_BRACKETS)
    depth = 0
    while brackets and depth <= MAX_DEPTH:
        brackets = brackets.replace(b"[]", b"")  # one level, everywhere
        depth += 1
    return depth


_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")


def _grows_too_much(payload: bytes, openings: int) -> bool:
    lines = payload.count(b",") + 2 * openings
    room = (_MAX_GROWTH - 1) * len(payload)
    return (
        lines * (2 * min(openings, MAX_DEPTH) + 2) > room
        and lines * (2 * nesting(payload) + 2) > room
    )


def _is_reserved(text: bytes) -> bool:
    return text.startswith(b"{") and not RESERVED.isdisjoint(_top_level.decode(text))


def _wrapped(payload: bytes, width: int) -> bytes:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return _object(b"$base64", b'"' + base64.b64encode(payload) + b'"', width)
    return _object(b"$text", msgspec.json.encode(text), width)


def _object(key: bytes, value: bytes, width: int) -> bytes:
    if width:
        return b'{\n  "' + key + b'": ' + value.replace(b"\n", b"\n  ") + b"\n}"
    return b'{"' + key + b'": ' + value + b"}"
