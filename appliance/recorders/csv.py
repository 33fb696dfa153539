"""Format ``csv``: a header and one row a message (RFC 4180: commas, CRLF, doubled quotes; UTF-8).

The first message decides the columns: its payload's keys, if it is a JSON object, and at the end
``payload``. That column holds the whole payload of every later message that does not fit, so no
value is lost. The format loses types (``1`` and ``"1"`` look the same, ``null`` is an empty cell)
and, of a key that an object has twice, all values but the last. A cell that a spreadsheet would
run as a formula gets an apostrophe in front. Not for: files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.format import Format
from appliance.recorders.payload import json_value
from appliance.recorders.row_shape import RowShape, is_object
from appliance.recorders.rows import members_of

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

    def __init__(self, *, metadata: bool, shape: RowShape | None = None) -> None:
        super().__init__(metadata=metadata, shape=shape)
        self._keys: tuple[str, ...] = ()
        self._known: frozenset[str] = frozenset()

    @property
    def memory(self) -> str:
        return msgspec.json.encode(self._keys).decode()

    def recall(self, memory: str) -> None:
        self._keys = msgspec.json.decode(memory, type=tuple[str, ...]) if memory else ()
        self._known = frozenset(self._keys)

    def opening(self, first: Message) -> bytes:
        if self._shape is not None:
            self._keys = _first_keys(self._shape, first)
            self._known = frozenset(self._keys)
            return self.header()
        fields = _fields(json_value(first.payload, indent=False))
        self._keys = tuple(fields) if fields is not None and len(fields) <= MAX_COLUMNS else ()
        self._known = frozenset(self._keys)
        return self.header()

    def opening_of_all(self, messages: Sequence[Message]) -> bytes:
        """The beginning of a file of all these messages: each key of any of them has a column.

        Columns that were known stay where they are. Keys beyond ``MAX_COLUMNS`` have none.
        """
        keys = dict.fromkeys(self._keys)
        for message in messages:
            for key in self._keys_of(message):
                if len(keys) >= MAX_COLUMNS:
                    break
                keys.setdefault(key)
        self._keys = tuple(keys)
        self._known = frozenset(keys)
        return self.header()

    def _keys_of(self, message: Message) -> Iterable[str]:
        if self._shape is not None:
            return _keys_of_rows(self._shape, message)
        return _fields(json_value(message.payload, indent=False)) or ()

    def header(self) -> bytes:
        """The first row, with the present columns."""
        if self._shape is not None:
            return _row([_text_cell(name) for name in self._shaped_names(self._shape)])
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
        if self._shape is not None:
            return self._recall_shaped(names, self._shape)
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
        if self._shape is not None:
            return b"".join(self._shaped_rows(message, self._shape))
        value = json_value(message.payload, indent=False)
        cells = self._metadata_cells(message) if self._metadata else []
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

    @staticmethod
    def _metadata_cells(message: Message) -> list[str]:
        return [
            str(message.seq),
            metadata.iso_time(message.received_ns),
            _text_cell(message.topic),
            _text_cell(message.client_id),
            str(message.qos),
            "true" if message.retain else "false",
        ]

    # --- rows of a shape -------------------------------------------------------------------------

    def _before(self, shape: RowShape) -> list[str]:
        """The names of the columns in front of those of the payload."""
        return [*(metadata.FIELDS if self._metadata else ()), *(name for name, _ in shape.levels)]

    def _shaped_names(self, shape: RowShape) -> list[str]:
        before = self._before(shape)
        behind = [*([shape.time_field] if shape.time_field else []), _PAYLOAD]
        taken = {*before, *behind}
        names = []
        for key in self._keys:
            name = key
            while name in taken:
                name += "_"
            taken.add(name)
            names.append(name)
        return [*before, *names, *behind]

    def _recall_shaped(self, names: Sequence[str], shape: RowShape) -> bool:
        before = self._before(shape)
        behind = 2 if shape.time_field else 1
        if list(names[: len(before)]) != before or len(names) < len(before) + behind:
            return False
        if shape.fields is not None:
            self._keys = tuple(shape.fields)
        else:
            added = {*before, shape.time_field, _PAYLOAD}
            keys = []
            for name in names[len(before) : -behind]:
                key = name[1:] if name.startswith("'") and name[1:].startswith(_FORMULA) else name
                keys.append(key[:-1] if key[:-1] in added and key[:-1] else key)
            self._keys = tuple(keys)
        self._known = frozenset(self._keys)
        return True

    def _shaped_rows(self, message: Message, shape: RowShape) -> list[bytes]:
        before = self._metadata_cells(message) if self._metadata else []
        before += [_json_cell(level) for level in shape.level_values(message)]
        behind = [metadata.iso_time(message.received_ns)] if shape.time_field else []
        rows = []
        for value in shape.rows(message):
            picked = shape.pick(value)
            found = picked.members
            if found is None:
                found = {key: bytes(text) for key, text in members_of(value).items()}
            if not found.keys() <= self._known:
                found, is_whole = {}, True
            else:
                # Without any column an object would leave no trace.
                is_whole = picked.is_whole or not self._keys
            cells = [_json_cell(found[key]) if key in found else "" for key in self._keys]
            whole = _whole_value(value) if is_whole else ""
            rows.append(_row([*before, *cells, *behind, whole]))
        return rows


def _first_keys(shape: RowShape, first: Message) -> tuple[str, ...]:
    """The columns that the first message decides, behind those that the configuration names."""
    if shape.fields is not None:
        return tuple(shape.fields)
    value = shape.rows(first)[0]
    found = members_of(value) if is_object(value) else {}
    keys = tuple({**dict.fromkeys(shape.types), **dict.fromkeys(found)})
    return keys if len(keys) <= MAX_COLUMNS else tuple(shape.types)


def _keys_of_rows(shape: RowShape, message: Message) -> list[str]:
    """The columns that a message gives, behind those that the configuration names."""
    if shape.fields is not None:
        return list(shape.fields)
    keys = list(shape.types)
    for value in shape.rows(message):
        if is_object(value):
            keys += members_of(value)
    return keys


def _whole_value(value: bytes) -> str:
    """A text of ``json_value`` in one cell: a text as it is, JSON on one line."""
    if value.startswith(b'{"$text": '):
        return _text_cell(_text_of.decode(value)["$text"])
    return _text_cell(value.decode())


_text_of = msgspec.json.Decoder(dict[str, str])


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
