"""Sparkplug B payloads, decoded for reading: metrics with names, types and values.

The form is Protocol Buffers (proto2) as in ``sparkplug_b.proto`` of Eclipse Tahu, and chapter 6 of
the Sparkplug specification 3.0. A payload is data from strangers: each length is checked, nesting
and the number of values are bounded, and what is not understood is an error, not a guess. A field
that is unknown, or known with another wire type, is skipped, as Protocol Buffers asks.
Not for: what a topic's messages were before (aliases get their names from the caller), Sparkplug's
STATE messages (they are JSON), sending.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

NAMESPACE = "spBv1.0"
MAX_VALUES = 20_000
"""Metrics, properties and cells of one payload, all together; and as many elements of arrays, of
which more are left out."""
MAX_FIELDS = 100_000
"""Fields, those that are skipped too: to read them takes a tenth of a second."""
MAX_DEPTH = 12
"""Templates in templates, property sets in property sets."""
_SHOWN_ITEMS = 100
"""Elements of an array or cells of a data set that are shown."""
_SHOWN_BYTES = 64
_SHOWN_NAME = 200
"""Characters of a name that are shown: an alias or a column repeats its name at each value."""

_KINDS = frozenset({"NBIRTH", "NDATA", "NDEATH", "NCMD", "DBIRTH", "DDATA", "DDEATH", "DCMD"})
_TYPES = (
    "Unknown", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float",
    "Double", "Boolean", "String", "DateTime", "Text", "UUID", "DataSet", "Bytes", "File",
    "Template", "PropertySet", "PropertySetList", "Int8Array", "Int16Array", "Int32Array",
    "Int64Array", "UInt8Array", "UInt16Array", "UInt32Array", "UInt64Array", "FloatArray",
    "DoubleArray", "BooleanArray", "StringArray", "DateTimeArray",
)  # fmt: skip
_SIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}
_BOOLEAN, _DATE_TIME = 11, 13
_ARRAY_FORMATS = dict(zip(range(22, 32), "bhiqBHIQfd", strict=True)) | {34: "q"}
_BOOLEAN_ARRAY, _STRING_ARRAY = 32, 33

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_LONGEST_VARINT = 10
_FIRST_KEYS = frozenset({0x08, 0x12, 0x18, 0x22, 0x2A})
"""Of the fields that a payload has: timestamp, metrics, seq, uuid, body."""

_Span = tuple[int, int]
"""Where the bytes of a part begin and end."""


class NotSparkplugError(ValueError):
    """The bytes are no Sparkplug B payload, or one that is too large to be shown."""


class Metric(msgspec.Struct, frozen=True):
    """One value of a payload."""

    name: str
    """Empty if the sender gives only the alias."""
    alias: int | None
    timestamp_ms: int | None
    datatype: int
    """A number of the specification's data types; 0 if the sender leaves it out."""
    value: Any
    """``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``list`` (arrays and data sets),
    or ``dict`` (a template, by metric)."""
    flags: tuple[str, ...] = ()
    properties: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def type_name(self) -> str:
        """As the specification names it; empty if the sender leaves it out."""
        if not self.datatype:
            return ""
        known = self.datatype < len(_TYPES)
        return _TYPES[self.datatype] if known else f"type {self.datatype}"

    def label(self, names: Mapping[int, str]) -> str:
        """The name: its own, else that of its alias, else ``alias 7``."""
        if self.name or self.alias is None:
            return self.name
        return names.get(self.alias) or f"alias {self.alias}"


class Payload(msgspec.Struct, frozen=True):
    """One message's content."""

    timestamp_ms: int | None
    seq: int | None
    metrics: tuple[Metric, ...]
    uuid: str = ""
    body: bytes = b""

    def names(self) -> dict[int, str]:
        """The names of the aliases: a birth gives them."""
        return {one.alias: one.name for one in self.metrics if one.alias is not None and one.name}


def is_topic(topic: str) -> bool:
    """Whether messages of a topic have such payloads: ``spBv1.0/GROUP/NDATA/NODE`` and others."""
    if not topic.startswith(f"{NAMESPACE}/"):
        return False
    levels = topic.split("/")
    return len(levels) in (4, 5) and levels[2] in _KINDS


def may_be(data: bytes) -> bool:
    """Whether bytes begin like a payload: with the key of one of its fields, or not at all."""
    return not data or data[0] in _FIRST_KEYS


def birth_topic(topic: str) -> str:
    """The topic of the birth that names the aliases of a topic's messages; empty if none does."""
    if not is_topic(topic):
        return ""
    levels = topic.split("/")
    if levels[2].endswith("BIRTH"):
        return ""
    levels[2] = "DBIRTH" if len(levels) == 5 else "NBIRTH"
    return "/".join(levels)


def read(data: bytes) -> Payload:
    """Decode a payload.

    Raises:
        NotSparkplugError: it is none; the text says why.
    """
    return _Reader(data).payload()


class _Reader:
    """Reads one payload; counts its values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_VALUES
        self._fields_left = MAX_FIELDS
        self._elements_left = MAX_VALUES

    def payload(self) -> Payload:
        timestamp: int | None = None
        seq: int | None = None
        metrics: list[Metric] = []
        uuid, body = "", b""
        for number, wire, value in self._fields((0, len(self._data))):
            match number, wire:
                case 1, 0:
                    timestamp = value
                case 2, 2:
                    metrics.append(self._metric(value, 0))
                case 3, 0:
                    seq = value
                case 4, 2:
                    uuid = self._text(value)
                case 5, 2:
                    body = self._data[slice(*value)]
        return Payload(timestamp, seq, tuple(metrics), uuid, body)

    def _count(self, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise NotSparkplugError(f"it has more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise NotSparkplugError(f"it is nested deeper than {MAX_DEPTH} levels")

    def _metric(self, span: _Span, depth: int) -> Metric:
        self._count(depth)
        found: dict[int, Any] = {}
        value: Any = None
        properties: dict[str, Any] = {}
        for number, wire, part in self._fields(span):
            match number, wire:
                case 1, 2:
                    found[1] = self._text(part)
                case ((2 | 3 | 4 | 5 | 6 | 7), 0):
                    found[number] = part
                case 9, 2:
                    properties = self._properties(part, depth + 1)
                case ((10 | 11 | 14), 0):
                    value = bool(part) if number == 14 else part
                case 12, 5:
                    value = _float(part)
                case 13, 1:
                    value = _double(part)
                case 15, 2:
                    value = self._text(part)
                case 16, 2:
                    value = self._data[slice(*part)]
                case 17, 2:
                    value = self._data_set(part, depth + 1)
                case 18, 2:
                    value = self._template(part, depth + 1)
        datatype = int(found.get(4, 0))
        is_null = bool(found.get(7))
        texts = ((5, "historical"), (6, "transient"))
        return Metric(
            name=found.get(1, ""),
            alias=found.get(2),
            timestamp_ms=found.get(3),
            datatype=datatype,
            value=None if is_null else self._value(value, datatype),
            flags=tuple(text for number, text in texts if found.get(number)),
            properties=properties,
        )

    def _value(self, value: Any, datatype: int) -> Any:
        if not isinstance(value, bytes):
            return _typed(value, datatype)
        found = _array(value, datatype, self._elements_left)
        self._elements_left -= len(found) if isinstance(found, list) else 0
        return found

    def _properties(self, span: _Span, depth: int) -> dict[str, Any]:
        keys: list[str] = []
        values: list[Any] = []
        for number, wire, part in self._fields(span):
            match number, wire:
                case 1, 2:
                    keys.append(self._text(part))
                case 2, 2:
                    values.append(self._property(part, depth))
        return dict(zip(keys, values, strict=False))

    def _property(self, span: _Span, depth: int) -> Any:
        self._count(depth)
        datatype, is_null = 0, False
        value: Any = None
        for number, wire, part in self._fields(span):
            match number, wire:
                case 1, 0:
                    datatype = part
                case 2, 0:
                    is_null = bool(part)
                case 9, 2:
                    value = self._properties(part, depth + 1)
                case 10, 2:
                    value = [
                        self._properties(each, depth + 1)
                        for inner, kind, each in self._fields(part)
                        if (inner, kind) == (1, 2)
                    ]
                case _:
                    is_value, found = self._scalar(number - 3, wire, part)
                    value = found if is_value else value
        return None if is_null else _typed(value, datatype)

    def _scalar(self, place: int, wire: int, part: Any) -> tuple[bool, Any]:
        """Whether a field is a value of a property, cell or parameter, and the value.

        Their types stand in this order: int, long, float, double, boolean, string.
        """
        match place, wire:
            case ((0 | 1), 0):
                return True, part
            case 2, 5:
                return True, _float(part)
            case 3, 1:
                return True, _double(part)
            case 4, 0:
                return True, bool(part)
            case 5, 2:
                return True, self._text(part)
        return False, None

    def _data_set(self, span: _Span, depth: int) -> list[dict[str, Any]]:
        columns: list[str] = []
        types: list[int] = []
        rows: list[list[Any]] = []
        for number, wire, part in self._fields(span):
            match number, wire:
                case 2, 2:
                    self._count(depth)
                    columns.append(self._text(part))
                case 3, 0:
                    self._count(depth)
                    types.append(part)
                case 3, 2:  # packed
                    at = part[0]
                    while at < part[1]:
                        self._count(depth)
                        kind, at = self._varint(at, part[1])
                        types.append(kind)
                case 4, 2:
                    self._count(depth)
                    rows.append(
                        [
                            self._cell(each, depth)
                            for inner, kind, each in self._fields(part)
                            if (inner, kind) == (1, 2)
                        ]
                    )
        types += [0] * len(columns)
        return [
            {
                name: _typed(cell, kind)
                for name, kind, cell in zip(columns, types, row, strict=False)
            }
            for row in rows
        ]

    def _cell(self, span: _Span, depth: int) -> Any:
        self._count(depth)
        value: Any = None
        for number, wire, part in self._fields(span):
            is_value, found = self._scalar(number - 1, wire, part)
            value = found if is_value else value
        return value

    def _template(self, span: _Span, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for number, wire, part in self._fields(span):
            match number, wire:
                case 2, 2:
                    metric = self._metric(part, depth)
                    members[metric.label({})] = metric.value
                case 3, 2:
                    name, value = self._parameter(part, depth)
                    members[name] = value
        return members

    def _parameter(self, span: _Span, depth: int) -> tuple[str, Any]:
        self._count(depth)
        name, datatype = "", 0
        value: Any = None
        for number, wire, part in self._fields(span):
            match number, wire:
                case 1, 2:
                    name = self._text(part)
                case 2, 0:
                    datatype = part
                case _:
                    is_value, found = self._scalar(number - 3, wire, part)
                    value = found if is_value else value
        return name, _typed(value, datatype)

    # --- the wire format ----------------------------------------------------------------------

    def _fields(self, span: _Span) -> Iterator[tuple[int, int, Any]]:
        """Number, wire type and value of each field: an integer, or where its bytes lie."""
        at, end = span
        while at < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise NotSparkplugError(f"it has more than {MAX_FIELDS} fields")
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise NotSparkplugError(f"byte {at} has no field number")
            if wire == _VARINT:
                value, at = self._varint(at, end)
                yield number, wire, value
                continue
            if wire == _BYTES:
                size, at = self._varint(at, end)
            elif wire in (_EIGHT, _FOUR):
                size = 8 if wire == _EIGHT else 4
            else:
                raise NotSparkplugError(f"byte {at} has wire type {wire}")
            if size > end - at:
                raise NotSparkplugError(f"it ends within field {number} at byte {at}")
            if wire == _BYTES:
                yield number, wire, (at, at + size)
            else:
                yield number, wire, self._data[at : at + size]
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """An unsigned number of at most 64 bits, and where it ends."""
        value = shift = 0
        for place in range(at, min(end, at + _LONGEST_VARINT)):
            byte = self._data[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
            shift += 7
        raise NotSparkplugError(f"it ends within a number at byte {at}")

    def _text(self, part: _Span) -> str:
        return self._data[slice(*part)].decode(errors="replace")


def _float(data: bytes) -> float:
    (value,) = struct.unpack("<f", data)
    return float(value)


def _double(data: bytes) -> float:
    (value,) = struct.unpack("<d", data)
    return float(value)


def _typed(value: Any, datatype: int) -> Any:
    """The value as its data type means it: integers are sent without sign."""
    if isinstance(value, int) and datatype == _BOOLEAN:
        return bool(value)
    if isinstance(value, int) and not isinstance(value, bool) and datatype in _SIGNED_BITS:
        bits = _SIGNED_BITS[datatype]
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value
    return value


def _array(data: bytes, datatype: int, most: int) -> Any:
    """The first elements; what is no array stays bytes."""
    form = _ARRAY_FORMATS.get(datatype)
    if form is not None:
        size = struct.calcsize(f"<{form}")
        count = min(len(data) // size, most)
        return list(struct.unpack_from(f"<{count}{form}", data))
    if datatype == _STRING_ARRAY:
        return [each.decode(errors="replace") for each in data.split(b"\0", most)[:-1]]
    if datatype == _BOOLEAN_ARRAY and len(data) >= 4:
        count = min(int.from_bytes(data[:4], "little"), 8 * (len(data) - 4), most)
        return [bool(data[4 + place // 8] & 0x80 >> place % 8) for place in range(count)]
    return data


# --- for people --------------------------------------------------------------------------------


def lines(payload: Payload, names: Mapping[int, str]) -> list[str]:
    """The payload as text: a head, then a line for each metric with its type, name and value.

    ``names``: of aliases, from the birth before. The texts are the sender's, not made safe.
    """
    head = [f"time {time_text(payload.timestamp_ms)}"] if payload.timestamp_ms is not None else []
    head += [f"seq {payload.seq}"] if payload.seq is not None else []
    head += [f"uuid {payload.uuid}"] if payload.uuid else []
    head += [f"body {_value_text(payload.body, 0)}"] if payload.body else []
    count = len(payload.metrics)
    head.append("1 metric" if count == 1 else f"{count} metrics")
    found = ["   ".join(head)]
    labels = [_name_text(one.label(names)) or "(no name)" for one in payload.metrics]
    label_cells = min(40, max(map(len, labels), default=0))
    type_cells = max((len(one.type_name) for one in payload.metrics), default=0)
    for label, metric in zip(labels, payload.metrics, strict=True):
        text = _value_text(metric.value, metric.datatype)
        notes = [*metric.flags]
        if metric.timestamp_ms not in (None, payload.timestamp_ms):
            notes.append(time_text(metric.timestamp_ms or 0))
        notes += [
            f"{_name_text(key)}={_value_text(value, 0)}" for key, value in metric.properties.items()
        ]
        end = f"   ({', '.join(notes)})" if notes else ""
        line = f"{label:<{label_cells}}  {metric.type_name:<{type_cells}}  {text}{end}"
        found.append(line.rstrip())
    return found


def time_text(timestamp_ms: int) -> str:
    """Milliseconds since 1970 as ``2026-11-30 06:00:00.000Z``, or the number if no year has it."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return str(timestamp_ms)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _name_text(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}…"


def _value_text(value: Any, datatype: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        rest = f" … {len(value)} bytes" if len(value) > _SHOWN_BYTES else ""
        return f"0x{value[:_SHOWN_BYTES].hex()}{rest}"
    if datatype == _DATE_TIME and isinstance(value, int):
        return time_text(value)
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, list):
        rest = f", … {len(value)} in all" if len(value) > _SHOWN_ITEMS else ""
        shown = ", ".join(_value_text(each, 0) for each in value[:_SHOWN_ITEMS])
        return f"[{shown}{rest}]"
    if isinstance(value, dict):
        parts = [f"{_name_text(key)}: {_value_text(each, 0)}" for key, each in value.items()]
        rest = f", … {len(parts)} in all" if len(parts) > _SHOWN_ITEMS else ""
        return "{" + ", ".join(parts[:_SHOWN_ITEMS]) + rest + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _float_text(value: float) -> str:
    """The shortest text that a float of four bytes has, if it is one; else that of eight bytes."""
    try:
        is_short = struct.unpack("<f", struct.pack("<f", value))[0] == value
    except OverflowError:
        is_short = False
    if is_short:
        for digits in range(6, 10):
            text = f"{value:.{digits}g}"
            if struct.unpack("<f", struct.pack("<f", float(text)))[0] == value:
                return text
    return repr(value)
