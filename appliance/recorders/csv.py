"""Format ``csv``: a header and one row a message (RFC 4180: commas, CRLF, doubled quotes; UTF-8).

The columns are settled by the first message: its payload's keys, if it is a JSON object, and at
the end ``payload``, which holds the whole payload of every later message that doesn't fit into
them, so no value is lost. What is: types (``1`` and ``"1"`` look the same, ``null`` is an empty
cell), and of a key that an object has twice, all but the last. Cells that a spreadsheet would run
as a formula get an apostrophe in front. Not for: files.
"""

from __future__ import annotations

import re

import msgspec

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.payload import json_value

MAX_COLUMNS = 200
"""A first payload with more keys than this goes into ``payload`` as a whole."""

_PAYLOAD = "payload"

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)

_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')
# https://owasp.org/www-community/attacks/CSV_Injection; a plain number may keep its sign.
_FORMULA = re.compile(r"[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


class CsvFormat:
    """Rows of cells; with ``metadata`` its fields come first."""

    empty = b""
    separator = b""
    closing = b""

    def __init__(self, *, metadata: bool) -> None:
        self.name = "csv+metadata" if metadata else "csv"
        self._metadata = metadata
        self._keys: tuple[str, ...] = ()

    @property
    def memory(self) -> str:
        return msgspec.json.encode(self._keys).decode()

    def recall(self, memory: str) -> None:
        self._keys = msgspec.json.decode(memory, type=tuple[str, ...]) if memory else ()

    def opening(self, first: Message) -> bytes:
        fields = _fields(first.payload)
        self._keys = tuple(fields) if fields is not None and len(fields) <= MAX_COLUMNS else ()
        names: list[str] = []
        if self._metadata:
            names.extend(metadata.FIELDS)
        for name in (*self._keys, _PAYLOAD):
            unique = name
            while unique in names:  # a payload may have a key "topic" or "payload" of its own
                unique += "_"
            names.append(unique)
        return _row([guarded(name) for name in names])

    def element(self, message: Message) -> bytes:
        cells: list[str] = []
        if self._metadata:
            cells.extend(guarded(_plain(value)) for value in metadata.values(message))
        fields = _fields(message.payload)
        if fields is not None and self._keys and fields.keys() <= set(self._keys):
            cells.extend(_cell(fields[key]) if key in fields else "" for key in self._keys)
            cells.append("")
        else:
            cells.extend("" for _ in self._keys)
            cells.append(_whole(message.payload))
        return _row(cells)


def _fields(payload: bytes) -> dict[str, bytes] | None:
    """Key and JSON text of each field, if the payload is a JSON object that fits into cells."""
    if not payload.lstrip().startswith(b"{"):
        return None
    value = json_value(payload, indent=False)
    # What is wrapped ($text and the like) is told apart by its first key.
    if value.startswith((b'{"$text": ', b'{"$base64": ', b'{"$json": ')):
        return None
    return {key: bytes(raw) for key, raw in _object.decode(value).items()}


def _cell(value: bytes) -> str:
    if value.startswith(b'"'):
        return guarded(_string.decode(value))
    return "" if value == b"null" else value.decode()


def _whole(payload: bytes) -> str:
    """A payload in one cell: a text as it is, JSON on one line, other bytes as ``$base64``."""
    value = json_value(payload, indent=False)
    if value.startswith(b'{"$text": '):
        return guarded(payload.decode())
    return guarded(value.decode())


def _plain(value: metadata.Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def guarded(text: str) -> str:
    """The cell, with an apostrophe in front if a spreadsheet would take it for a formula."""
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text


def _row(cells: list[str]) -> bytes:
    quoted = [
        '"' + cell.replace('"', '""') + '"' if _NEEDS_QUOTES.search(cell) else cell
        for cell in cells
    ]
    # A row whose only cell is empty would be an empty line, which readers skip.
    line = '""' if quoted == [""] else ",".join(quoted)
    return line.encode() + b"\r\n"
