"""A payload as text: one line for a list, or pretty, raw and hex views for the detail.

Payloads are data: parsed as JSON at most, never evaluated. Not for: cutting to a width (text.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import ndiff

import msgspec

from appliance import sparkplug
from appliance.ui import formats
from appliance.ui.text import printable

_PREVIEW_BYTES = 400
"""More than any column shows; the rest of a long payload is not even decoded for a list."""

_LONG_BYTES = 1000
"""From here on a list says how long a payload is, besides showing its beginning."""

_PRETTY_LIMIT = 1_000_000
"""Bytes beyond which a payload is shown raw, and not parsed: the UI would wait for it."""

_VIEW_LINES = 5000
_VIEW_CHARACTERS = 500_000
"""To make characters safe takes the UI half a second for a million of the odd ones."""
_HEX_BYTES = 16 * 4096

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"%PDF", "pdf"),
    (b"BM", "bmp"),
)


def decode(data: bytes, *, cut: bool) -> str | None:
    """UTF-8 text, or ``None`` for binary data. ``cut``: the last character may be torn."""
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if cut and error.start >= len(data) - 3 and error.reason == "unexpected end of data":
            return data[: error.start].decode()
        return None


def kind(data: bytes, *, cut: bool = False) -> str:
    """``JSON``, ``text``, ``empty``, or the name of a binary format, ``binary`` at worst."""
    if not data:
        return "empty"
    if len(data) > _PRETTY_LIMIT:
        data, cut = data[:_PRETTY_LIMIT], True
    text = decode(data, cut=cut)
    if text is None:
        return next((name for magic, name in _MAGIC if data.startswith(magic)), "binary")
    if not cut and _parse(text) is not None:
        return "JSON"
    if cut and text.lstrip()[:1] in ("{", "["):
        return "JSON"
    return "text"


def preview(data: bytes, full_size: int | None = None, topic: str = "") -> str:
    """One line for a list: the text, or ``<jpeg 512 KB>``; ``full_size`` if ``data`` was cut.

    ``topic``: the message's; on those of Sparkplug B, payloads are ``<Sparkplug B 60 B>``.
    """
    if not data:
        return "<empty>"
    head = data[:_PREVIEW_BYTES]
    whole = full_size if full_size is not None else len(data)
    if sparkplug.is_topic(topic) and sparkplug.may_be(data):
        return f"<Sparkplug B {formats.size(whole)}>"
    text = decode(head, cut=len(data) > _PREVIEW_BYTES or full_size is not None)
    if text is None:
        return f"<{kind(data[:16])} {formats.size(whole)}>"
    if whole >= _LONG_BYTES:
        return f"<{formats.size(whole)}> {printable(text)}"
    return printable(text)


def _parse(text: str) -> object | None:
    """The JSON value, boxed in a tuple so that ``null`` is not ``None``; ``None`` if it is none."""
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return None


def pretty(data: bytes) -> list[str]:
    """Indented JSON; other text as it is; binary data as hex. Lines are printable."""
    text = decode(data, cut=False)
    if text is None:
        return hexdump(data)
    if len(data) <= _PRETTY_LIMIT:
        try:
            return _shown(_indented(data, text).split("\n"))
        except (ValueError, RecursionError):
            pass
    return raw(data)


def _indented(data: bytes, text: str) -> str:
    """JSON with the tokens as the sender wrote them: 1.10 stays, and so does a doubled key."""
    value = json.loads(text)
    try:
        return msgspec.json.format(data, indent=2).decode()
    except msgspec.DecodeError:  # NaN and Infinity, which Python writes and JSON does not have
        return json.dumps(value, indent=2, ensure_ascii=False)


def raw(data: bytes) -> list[str]:
    """The text line by line, or hex if it is binary."""
    text = decode(data, cut=False)
    if text is None:
        return hexdump(data)
    if not data:
        return ["<empty>"]
    return _shown(text.replace("\r\n", "\n").split("\n"))


def hexdump(data: bytes) -> list[str]:
    """Offset, sixteen bytes, their ASCII characters."""
    if not data:
        return ["<empty>"]
    lines = []
    for offset in range(0, min(len(data), _HEX_BYTES), 16):
        row = data[offset : offset + 16]
        left, right = row[:8].hex(" "), row[8:].hex(" ")
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{offset:06x}  {left:<23}  {right:<23}  {text}")
    if len(data) > _HEX_BYTES:
        lines.append(f"… {formats.size(len(data) - _HEX_BYTES)} more")
    return lines


def _shown(lines: Sequence[str]) -> list[str]:
    """The lines made printable, as far as there is room, and how much more there is."""
    found: list[str] = []
    left = _VIEW_CHARACTERS
    for line in lines[:_VIEW_LINES]:
        if len(line) > left:
            more = sum(map(len, lines[len(found) :])) - left
            return [*found, printable(line[:left]), f"… {formats.number(more)} more characters"]
        left -= len(line)
        found.append(printable(line))
    if len(lines) > _VIEW_LINES:
        found.append(f"… {formats.number(len(lines) - _VIEW_LINES)} more lines")
    return found


def sparkplug_b(data: bytes, names: Mapping[int, str]) -> tuple[list[str] | None, str]:
    """The metrics of a Sparkplug B payload and what to call it; or ``None``, and why it is none.

    ``names``: of its aliases. Lines are printable.
    """
    try:
        found = sparkplug.read(data)
    except sparkplug.NotSparkplugError as error:
        return None, f"not understood as Sparkplug B: {error}"
    return _shown(sparkplug.lines(found, names)), "Sparkplug B"


def _for_people(data: bytes, topic: str) -> list[str]:
    decoded = sparkplug_b(data, {})[0] if sparkplug.is_topic(topic) else None
    return pretty(data) if decoded is None else decoded


def diff(before: bytes, after: bytes, topic: str = "") -> list[tuple[str, str]]:
    """Lines of ``after`` against ``before``: (sign, line), sign ``" "``, ``"-"`` or ``"+"``.

    ``topic``: theirs; it says whether they are Sparkplug B.
    """
    old, new = _for_people(before, topic), _for_people(after, topic)
    if max(len(old), len(new)) > 500:  # ndiff is quadratic
        return [(" ", "Too long to compare line by line.")]
    return [(line[0], line[2:]) for line in ndiff(old, new) if line[0] in " -+"]
