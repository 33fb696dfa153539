"""Messages become a table whose columns come from their payloads.

A column has one kind. It is that of the values: an integer column becomes one of numbers when a
fraction comes, and any column becomes text when a value comes that is neither. It never changes
back, and a key that comes later is a new column. What a row's columns do not hold (or not exactly)
stands in the last column, ``payload``, with the whole payload, so no value is lost.
Not for: which rows a message gives (rows.py), what kinds there are (kinds.py), files and databases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

import msgspec

from appliance.config.tables import RecorderConfig
from appliance.config.value_path import Path, parse_path
from appliance.model import Message
from appliance.recorders.kinds import (
    LARGEST,
    NO_FIT,
    PINNED,
    SMALLEST,
    HugeNumber,
    has_long_number,
    is_exact,
    is_own,
    kind_of,
    settled,
    to_number,
    wider,
)
from appliance.recorders.metadata import FIELDS
from appliance.recorders.payload import MAX_DEPTH
from appliance.recorders.rows import (
    Rows,
    find_text,
    find_value,
    has_repeated_keys,
    is_too_deep,
    make_rows,
    members_of,
    whole_text,
)
from appliance.recorders.table import Column, Kind, Table

MAX_COLUMNS = 200
"""Keys of payloads that become columns; values of others stand in ``payload``."""
MAX_KEY_BYTES = 60
"""A longer key becomes no column: names of columns have 63 bytes in PostgreSQL."""
PAYLOAD = "payload"

_METADATA_KINDS: dict[str, Kind] = {
    "seq": "integer",
    "time": "time",
    "topic": "text",
    "client": "text",
    "qos": "integer",
    "retain": "boolean",
}
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
_SHORT = 2 * MAX_DEPTH
_CACHED_TOPICS = 10_000

_decode = msgspec.json.Decoder().decode
_format = msgspec.json.format
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff]")
_NUL = b"\\u0000"
_NOTHING: dict[str, Any] = {}


class _Field(msgspec.Struct):
    """A column of payload values, as far as it is known."""

    key: str
    name: str
    kind: Kind | None
    """``None``: no value came yet."""
    is_pinned: bool = False
    path: Path | None = None


class TableMaker:
    """Makes tables. ``memory`` is what it must be told, with ``recall``, to continue.

    For one thread at a time.

    Args:
        config: the recorder's keys ``fields``, ``types``, ``flatten``, ``time_field``,
            ``metadata`` and the named levels of ``topic``.
        reserved: names that no column may have.
    """

    def __init__(self, config: RecorderConfig, reserved: Sequence[str] = ()) -> None:
        self._flatten = config.flatten
        self._metadata = config.metadata
        self._time_field = config.time_field
        self._types = dict(config.types or {})
        self._levels = tuple(
            (number, _level_type(self._types.get(name, "text"))) for name, number in config.levels
        )
        self._level_cache: dict[str, tuple[Any, ...]] = {}
        self._used = {name.casefold() for name in reserved}
        self._used.add(PAYLOAD)
        first: list[Column] = []
        if config.metadata:
            first += [Column(self._unique(name), _METADATA_KINDS[name]) for name in FIELDS]
        first += [
            Column(self._unique(name), _kind(self._types.get(name, "text")))
            for name, _ in config.levels
        ]
        last = [Column(PAYLOAD, "text")]
        if config.time_field:
            last.insert(0, Column(self._unique(config.time_field), "time"))
        self._first, self._last = tuple(first), tuple(last)
        self._used_first = frozenset(self._used)
        self._is_picked = config.fields is not None
        self._fields: dict[str, _Field] = {}
        for name, path in (config.fields or {}).items():
            self._add(name, parse_path(path))
        for name, _ in config.levels:
            self._types.pop(name, None)
        for name in self._types if not self._is_picked else ():
            self._add(name)
        self._configured = tuple(self._fields)
        self._columns: tuple[Column, ...] | None = None

    # --- the columns -----------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the next table, unless its messages bring new ones."""
        if self._columns is None:
            known = [Column(f.name, f.kind) for f in self._fields.values() if f.kind is not None]
            self._columns = (*self._first, *known, *self._last)
        return self._columns

    @property
    def memory(self) -> str:
        """The columns from payloads and their kinds, as JSON."""
        known = [(f.key, f.name, f.kind) for f in self._fields.values()]
        return msgspec.json.encode(known).decode()

    def recall(self, memory: str) -> None:
        """Restore ``memory``; an empty text is the state at the beginning.

        What the configuration says of a column counts more than the memory.

        Raises:
            msgspec.MsgspecError: it is no ``memory``.
        """
        known = (
            msgspec.json.decode(memory, type=list[tuple[str, str, Kind | None]]) if memory else []
        )
        configured = {key: self._fields[key] for key in self._configured}
        self._fields = dict(configured)
        self._used = set(self._used_first) | {f.name.casefold() for f in configured.values()}
        self._columns = None
        for field in configured.values():
            if not field.is_pinned:
                field.kind = None
        for key, name, kind in known:
            present = self._fields.get(key)
            if present is not None:
                if not present.is_pinned:
                    present.kind = kind
            elif not self._is_picked and name.casefold() not in self._used:
                self._fields[key] = _Field(key, name, kind)
                self._used.add(name.casefold())

    def key_of(self, column: str) -> str | None:
        """The key of the payload (or field) that a column shows; ``None``: it shows none."""
        return next((f.key for f in self._fields.values() if f.name == column), None)

    def _unique(self, name: str) -> str:
        while name.casefold() in self._used:
            name += "_"
        self._used.add(name.casefold())
        return name

    def _add(self, key: str, path: Path | None = None) -> _Field:
        pinned = self._types.get(key)
        kind = None if pinned is None else _kind(pinned)
        field = _Field(key, self._unique(key), kind, kind is not None, path)
        # A field that is configured has its column from the beginning on.
        self._fields[key] = field
        self._columns = None
        return field

    # --- the rows --------------------------------------------------------------------------------

    def take(self, messages: Sequence[Message]) -> Table:
        """The rows of messages, in order; new columns and kinds are known from then on."""
        rows = make_rows(messages, flatten=self._flatten)
        payloads = _Payloads(rows.texts)
        if self._is_picked:
            columns, whole = self._picked(payloads)
        else:
            columns, whole = self._all_keys(payloads)
        values = self._metadata_values(rows)
        values += self._level_values(rows)
        values += columns
        if self._time_field:
            values.append([one.received_ns // 1000 for one in rows.messages])
        rest: list[str | None] = [None] * len(rows.texts)
        for number in whole:
            rest[number] = whole_text(rows.texts[number])
        values.append(rest)
        seqs = [one.seq for one in rows.messages]
        return Table(self.columns, values, len(rows.texts), seqs, rows.items)

    def _metadata_values(self, rows: Rows) -> list[list[Any]]:
        if not self._metadata:
            return []
        messages = rows.messages
        return [
            [one.seq for one in messages],
            [one.received_ns // 1000 for one in messages],
            [one.topic for one in messages],
            [one.client_id for one in messages],
            [one.qos for one in messages],
            [one.retain for one in messages],
        ]

    def _level_values(self, rows: Rows) -> list[list[Any]]:
        if not self._levels:
            return []
        cache = self._level_cache
        if len(cache) > _CACHED_TOPICS:
            cache.clear()
        for topic in {one.topic for one in rows.messages} - cache.keys():
            levels = topic.split("/")
            cache[topic] = tuple(
                convert(levels[number] if number < len(levels) else "")
                for number, convert in self._levels
            )
        found = [cache[one.topic] for one in rows.messages]
        return [[levels[number] for levels in found] for number in range(len(self._levels))]

    def _all_keys(self, payloads: _Payloads) -> tuple[list[list[Any]], set[int]]:
        objects = payloads.objects
        whole = set(payloads.others)
        whole |= payloads.repeated()
        payloads.settle_numbers(whole)
        keys: set[str] = set().union(*objects)
        if not keys <= self._fields.keys():
            self._add_new(objects, keys - self._fields.keys())
            if not keys <= self._fields.keys():
                known = self._fields.keys()
                whole |= {
                    number
                    for number, value in enumerate(objects)
                    if not value.keys() <= known
                    and any(value[key] is not None for key in value.keys() - known)
                }
        columns = []
        for field in list(self._fields.values()):
            key = field.key
            if key in keys:
                column = [value.get(key) for value in objects]
                self._shape(field, column, payloads, (key,), whole)
            else:
                column = [None] * len(objects)
            if field.kind is not None:
                columns.append(column)
        return columns, whole

    def _picked(self, payloads: _Payloads) -> tuple[list[list[Any]], set[int]]:
        whole = payloads.repeated()
        payloads.settle_numbers(None)
        columns = []
        found: set[int] = set()
        for field in self._fields.values():
            path = field.path or ()
            if len(path) == 1 and type(path[0]) is str:
                key = path[0]
                column = [value.get(key) for value in payloads.objects]
            else:
                column = [find_value(value, path) for value in payloads.values]
            found.update(n for n, value in enumerate(column) if value is not None)
            payloads.settle_column(column, path, whole)
            self._shape(field, column, payloads, path, whole)
            if field.kind is not None:
                columns.append(column)
        if len(found) < len(payloads.texts):
            whole.update(set(range(len(payloads.texts))) - found)
        return columns, whole

    def _add_new(self, objects: Sequence[dict[str, Any]], keys: set[str]) -> None:
        """New columns, in the order in which their first values come."""
        missing = {key for key in keys if _can_be_column(key)}
        for value in objects:
            if not missing or len(self._fields) >= MAX_COLUMNS:
                return
            for key in value:
                if key in missing and value[key] is not None and len(self._fields) < MAX_COLUMNS:
                    self._add(key)
                    missing.discard(key)

    def _shape(
        self, field: _Field, column: list[Any], payloads: _Payloads, path: Path, whole: set[int]
    ) -> None:
        """Bring the values of a column to its kind, or the kind to the values."""
        types: set[type] = set(map(type, column))
        types.discard(type(None))
        if not field.is_pinned:
            kind = field.kind
            if types:
                kind = kind_of(types) if kind is None else wider(kind, types)
            if kind != field.kind:
                field.kind = kind
                self._columns = None
        if field.kind is None:
            return
        if not is_own(field.kind, types) or (field.is_pinned and field.kind == "time"):
            self._convert(field, column, payloads, path, whole)
        if field.kind == "text" and payloads.may_have_nul:
            for number in payloads.may_have_nul:
                value = column[number]
                if value is not None and "\0" in value:
                    column[number] = None
                    whole.add(number)

    def _convert(
        self, field: _Field, column: list[Any], payloads: _Payloads, path: Path, whole: set[int]
    ) -> None:
        kind = field.kind
        if kind == "text":
            for number, value in enumerate(column):
                if value is not None and type(value) is not str:
                    column[number] = payloads.text_of(number, value, path)
            return
        convert = PINNED[kind] if field.is_pinned and kind else _AS_IT_IS.get(kind, to_number)
        for number, value in enumerate(column):
            if value is not None:
                fitting = convert(value)
                if fitting is NO_FIT:
                    fitting = None
                    whole.add(number)
                column[number] = fitting


def _only_integers(value: Any) -> Any:
    return value if type(value) is int else NO_FIT


def _only_booleans(value: Any) -> Any:
    return value if type(value) is bool else NO_FIT


_AS_IT_IS: dict[Kind | None, Any] = {"integer": _only_integers, "boolean": _only_booleans}


def _kind(name: str) -> Kind:
    """The kind of a name in the configuration, which knows no other ones."""
    return _KINDS[name]


def _level_type(name: str) -> Callable[[str], Any]:
    """What makes of a topic's level the value in its column; ``None`` where it does not fit."""
    convert = PINNED.get(_kind(name))

    def converted(level: str) -> Any:
        value = level if convert is None else convert(level)
        return None if value is NO_FIT else value

    return converted


def _can_be_column(key: str) -> bool:
    return (
        bool(key.strip())
        and (len(key) <= MAX_KEY_BYTES // 4 or len(key.encode()) <= MAX_KEY_BYTES)
        and not _CONTROL.search(key)
    )


class _Payloads:
    """The values of rows, and what decoding took away of them."""

    def __init__(self, texts: list[bytes]) -> None:
        self.texts = texts
        try:
            self.values: list[Any] = [
                _decode(text) if len(text) <= _SHORT else _decode_long(text) for text in texts
            ]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.values = [_decode_any(text) for text in texts]
        self.objects: list[dict[str, Any]] = [
            value if type(value) is dict else _NOTHING for value in self.values
        ]
        self.others = [n for n, value in enumerate(self.values) if type(value) is not dict]
        # Looked for in all rows at once, because most batches have none.
        joined = b"\n".join(texts)
        self.may_have_nul: list[int] = []
        if _NUL in joined:
            self.may_have_nul = [n for n, text in enumerate(texts) if _NUL in text]
        self._long: list[int] = []
        if has_long_number(joined):
            self._long = [n for n, text in enumerate(texts) if has_long_number(text)]

    def repeated(self) -> set[int]:
        """The objects that have a key twice."""
        return {
            number
            for number, (text, value) in enumerate(zip(self.texts, self.objects, strict=True))
            if text.count(b":") != len(value)
            and value is not _NOTHING
            and has_repeated_keys(text, value)
        }

    def settle_numbers(self, whole: set[int] | None) -> None:
        """Replace the integers of objects that have more than 64 bits; note inexact floats."""
        for number in self._long:
            value = self.objects[number]
            texts = None
            for key, one in value.items():
                if type(one) is int:
                    if not SMALLEST <= one <= LARGEST:
                        value[key] = settled(one)
                elif type(one) is float and whole is not None and number not in whole:
                    if texts is None:
                        texts = members_of(self.texts[number])
                    if not is_exact(one, bytes(texts[key]).decode().strip()):
                        whole.add(number)

    def settle_column(self, column: list[Any], path: Path, whole: set[int]) -> None:
        """The same for the values at a path."""
        for number in self._long:
            one = column[number]
            if type(one) is int and not SMALLEST <= one <= LARGEST:
                column[number] = settled(one)
            elif type(one) is float:
                text = find_text(self.texts[number], path)
                if text is not None and not is_exact(one, text.decode().strip()):
                    whole.add(number)

    def text_of(self, number: int, value: Any, path: Path) -> str:
        """The text of a value that is no text, for a column of texts."""
        if isinstance(value, str):
            return str(value)
        if type(value) is int:
            return str(value)
        if type(value) is bool:
            return "true" if value else "false"
        text = find_text(self.texts[number], path)
        assert text is not None
        return _format(text, indent=0).decode()


def _decode_long(text: bytes) -> Any:
    return None if is_too_deep(text) else _decode(text)


def _decode_any(text: bytes) -> Any:
    try:
        return _decode_long(text)
    except msgspec.ValidationError:
        return _decode_members(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _decode_members(text: bytes) -> Any:
    """An object with a number that is out of range for every type."""
    try:
        if not text.isascii():
            text.decode()
        _format(text, indent=0)
        members = members_of(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    found: dict[str, Any] = {}
    for key, raw in members.items():
        try:
            found[key] = _decode(raw)
        except msgspec.ValidationError:
            found[key] = HugeNumber(_format(raw, indent=0).decode())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
    return found
