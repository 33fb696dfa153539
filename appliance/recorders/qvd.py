"""Format ``qvd``: Qlik's own, which it loads fastest. A table as a whole, made when a part ends.

A file is an XML header, the distinct values ("symbols") of each field, and for each row the numbers
of its symbols, packed into as few bits as they need. The header comes first and says how many
symbols there are. So the rows of a part are in memory until it is closed: at most ``MAX_MEMORY``.

Qlik has not published the format. This follows files that Qlik wrote, as its independent readers
understand them; the tests hold them against it. A time is Qlik's own: a number of days, with a text
that has the microseconds. Integers of more than 53 bits are texts, because Qlik's numbers are
doubles. ``true`` is 1, ``false`` 0. Not for: values (qvd_symbols.py) and the XML (qvd_header.py).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO, ClassVar

from appliance.recorders.budget import Budget
from appliance.recorders.qvd_header import Field, header
from appliance.recorders.qvd_symbols import CHUNK, FIRST, Symbols
from appliance.recorders.table import Column, Table

MAX_ROWS = 1_000_000
"""Rows of a part, and ``MAX_MEMORY`` bytes that they take: then it must be closed."""
MAX_MEMORY = 64 << 20
BUDGET = Budget(128 << 20)
"""For all open parts."""


class QvdWriter:
    """One QVD file after the other (part_writer.py)."""

    kind: ClassVar[str] = "qvd"

    def __init__(self, table_name: str = "messages") -> None:
        self._table_name = table_name
        self._file: BinaryIO | None = None
        self._columns: tuple[Column, ...] = ()
        self._fields: dict[str, Symbols] = {}
        self._rows = 0

    @property
    def size(self) -> int:
        if self._file is None:
            return 0
        fields = self._fields.values()
        bits = sum(_width(field) for field in fields)
        return 1_000 + sum(600 + field.bytes for field in fields) + self._rows * ((bits + 7) // 8)

    @property
    def memory(self) -> int:
        """Bytes that the rows take, about."""
        return sum([field.memory for field in self._fields.values()])

    def begin(self, file: Path, columns: tuple[Column, ...]) -> None:
        self.abandon()
        self._file = file.open("wb")
        BUDGET.join(self)
        self._rows = 0
        self._set_columns(columns)

    def takes(self, columns: tuple[Column, ...]) -> bool:
        if self._rows >= MAX_ROWS:
            return False
        if self._rows and (self.memory >= MAX_MEMORY or BUDGET.is_spent_by(self)):
            return False
        return columns == self._columns or all(
            column.name not in self._fields
            or self._fields[column.name].is_time == (column.kind == "time")
            for column in columns
        )

    def write(self, table: Table) -> None:
        if table.columns != self._columns:
            self._set_columns(table.columns)
        for column, values in zip(table.columns, table.values, strict=True):
            self._fields[column.name].add(values)
        if len(table.columns) < len(self._fields):
            for name in self._fields.keys() - {column.name for column in table.columns}:
                self._fields[name].add_nulls(table.rows)
        self._rows += table.rows

    def close(self, first_seq: int = 0, last_seq: int = 0) -> None:
        assert self._file is not None
        symbols: list[bytes] = []
        fields: list[Field] = []
        ordered = self._in_order()
        offset = bit_offset = 0
        for field in ordered:
            parts = list(field.encoded())
            length = sum(map(len, parts))
            symbols += parts
            fields.append(
                Field(
                    name=field.name,
                    is_time=field.is_time,
                    tags=field.tags,
                    has_nulls=field.has_nulls,
                    symbols=field.count,
                    offset=offset,
                    length=length,
                    bit_offset=bit_offset,
                    bit_width=_width(field),
                )
            )
            offset += length
            bit_offset += _width(field)
        record_bytes = (bit_offset + 7) // 8
        self._file.write(
            header(
                self._table_name,
                fields,
                rows=self._rows,
                record_bytes=record_bytes,
                symbol_bytes=offset,
                comment=f"first_seq={first_seq} last_seq={last_seq}",
            )
        )
        for part in symbols:
            self._file.write(part)
        for start in range(0, self._rows, CHUNK):
            self._file.write(_records(ordered, fields, start, record_bytes))
        self._file.close()
        self.abandon()

    def abandon(self) -> None:
        BUDGET.leave(self)
        file, self._file = self._file, None
        self._fields = {}
        self._columns = ()
        self._rows = 0
        if file is not None:
            # What is wrong with it is known from the write that failed.
            with contextlib.suppress(OSError):
                file.close()

    def _set_columns(self, columns: tuple[Column, ...]) -> None:
        for column in columns:
            if column.name not in self._fields:
                self._fields[column.name] = Symbols(
                    column.name, is_time=column.kind == "time", rows_before=self._rows
                )
        self._columns = columns

    def _in_order(self) -> list[Symbols]:
        """The fields as the newest rows have them, and then those that went away."""
        names = dict.fromkeys([*(column.name for column in self._columns), *self._fields])
        return [self._fields[name] for name in names]


def _width(field: Symbols) -> int:
    """Bits of a row for this field; one at least, which every reader understands."""
    last = field.count - 1 + (FIRST if field.has_nulls else 0)
    return max(1, last.bit_length())


def _records(columns: list[Symbols], fields: list[Field], start: int, record_bytes: int) -> bytes:
    """Rows from ``start`` on: the first field has the lowest bits of a little endian number."""
    rows = [0] * len(columns[0].codes[start : start + CHUNK])
    for column, field in zip(columns, fields, strict=True):
        shift = field.bit_offset
        less = 0 if field.has_nulls else FIRST
        if field.symbols > 1 or field.has_nulls:
            codes = column.codes[start : start + CHUNK]
            rows = [row | (code - less) << shift for row, code in zip(rows, codes, strict=True)]
    return b"".join([row.to_bytes(record_bytes, "little") for row in rows])
