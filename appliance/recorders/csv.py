"""Format ``csv``: a header and one row a message (RFC 4180: commas, CRLF, doubled quotes; UTF-8).

The first message decides the columns: its payload's keys, if it is a JSON object, and at the end
``payload``. That column holds the whole payload of every later message that does not fit, so no
value is lost. The format loses types (``1`` and ``"1"`` look the same, ``null`` is an empty cell)
and, of a key that an object has twice, all values but the last. A cell that a spreadsheet would
run as a formula gets an apostrophe in front. Not for: files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.format import Format
from appliance.recorders.payload import json_value

MAX_COLUMNS = 200
"""A first payload with more keys than this goes into ``payload`` as a whole."""

_PAYLOAD = "payload"

# Topics, client ids and names of states repeat; long texts do not.
_CACHED_LENGTH = 100

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)

_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$').search
# https://owasp.org/www-community/attacks/CSV_Injection; a plain number may keep its sign.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


class CsvFormat(Format):
    """Rows of cells; with ``metadata`` its fields come first."""

    kind = "csv"

    def __init__(self, *, metadata: bool) -> None:
        super().__init__(metadata=metadata)
        self._keys: tuple[str, ...] = ()
        self._known: frozenset[str] = frozenset()

    @property
    def memory(self) -> str:
        return msgspec.json.encode(self._keys).decode()

    def recall(self, memory: str) -> None:
        self._keys = msgspec.json.decode(memory, type=tuple[str, ...]) if memory else ()
        self._known = frozenset(self._keys)

    def opening(self, first: Message) -> bytes:
        fields = _fields(json_value(first.payload, indent=False))
        self._keys = tuple(fields) if fields is not None and len(fields) <= MAX_COLUMNS else ()
        self._known = frozenset(self._keys)
        return self.header()

    def header(self) -> bytes:
        """The first row, with the present columns."""
        names: list[str] = []
        if self._metadata:
            names.extend(metadata.FIELDS)
        for name in (*self._keys, _PAYLOAD):
            unique = name
            while unique in names:  # a payload may have a key "topic" or "payload"
                unique += "_"
            names.append(unique)
        return _row([_text_cell(name) for name in names])

    def recall_header(self, names: Sequence[str]) -> bool:
        """Restore the columns from the cells of a file's header; whether they are of this format.

        A key that ends with a line stands for the one without, if that is a field's name.
        """
        fields = metadata.FIELDS if self._metadata else ()
        if tuple(names[: len(fields)]) != fields or len(names) <= len(fields):
            return False
        keys = []
        for name in names[len(fields) : -1]:
            key = name[1:] if name.startswith("'") and name[1:].startswith(_FORMULA) else name
            keys.append(key[:-1] if key[:-1] in fields else key)
        self._keys = tuple(keys)
        self._known = frozenset(keys)
        return True

    def element(self, message: Message) -> bytes:
        value = json_value(message.payload, indent=False)
        cells: list[str] = []
        if self._metadata:
            cells += (
                str(message.seq),
                metadata.iso_time(message.received_ns),
                _text_cell(message.topic),
                _text_cell(message.client_id),
                str(message.qos),
                "true" if message.retain else "false",
            )
        fields = _fields(value) if self._keys else None
        if fields is not None and fields.keys() <= self._known:
            for key in self._keys:
                raw = fields.get(key)
                cells.append("" if raw is None else _json_cell(bytes(raw)))
            cells.append("")
        else:
            cells.extend("" for _ in self._keys)
            cells.append(_whole(message.payload, value))
        return _row(cells)


def _fields(value: bytes) -> dict[str, msgspec.Raw] | None:
    """Key and JSON text of each field, if the value is a JSON object that fits into cells."""
    # A wrapped payload ($text and others) is recognised by its first key.
    if not value.startswith(b"{") or value.startswith((b'{"$', b'{"\\u')):
        return None
    return _object.decode(value)


def _json_cell(value: bytes) -> str:
    """The cell for a field's JSON text: strings without their quotes, null as nothing."""
    if value.startswith(b'"'):
        return _text_cell(_string.decode(value))
    if value.startswith((b"{", b"[")):
        return _text_cell(value.decode())
    return "" if value == b"null" else value.decode()


def _whole(payload: bytes, value: bytes) -> str:
    """A payload in one cell: a text as it is, JSON on one line, other bytes as ``$base64``."""
    return _text_cell((payload if value.startswith(b'{"$text": ') else value).decode())


def _text_cell(text: str) -> str:
    """The cell for a text, guarded and quoted where that is needed."""
    return _cached_cell(text) if len(text) <= _CACHED_LENGTH else _make_cell(text)


def _make_cell(text: str) -> str:
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES(text) else text


_cached_cell = lru_cache(maxsize=4096)(_make_cell)


def _row(cells: list[str]) -> bytes:
    # A row whose only cell is empty would be an empty line, which readers skip.
    line = '""' if cells == [""] else ",".join(cells)
    return line.encode() + b"\r\n"
