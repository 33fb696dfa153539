"""Format ``parquet``: row groups written as they fill up; the end of the file completes it.

Types: INT64, DOUBLE, BOOLEAN, STRING and TIMESTAMP in microseconds, UTC. These are what Qlik's own
products write for such values (https://help.qlik.com, "Landing data in a data lake: data types");
int96 times, which Qlik "may not load correctly", never. Compressed with Snappy.

pyarrow is an optional dependency and takes 33 MB of memory, so only ``begin`` imports it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from appliance.recorders.budget import Budget
from appliance.recorders.table import Column, Kind, Table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 1_000
"""Rows that are kept as Python's values, at most; then Arrow packs them."""
BATCH_BYTES = 1 << 20
GROUP_ROWS = 25_000
"""Rows of a row group, and ``GROUP_BYTES`` of it in memory, at which it is written."""
GROUP_BYTES = 8 << 20
BUDGET = Budget(32 << 20)
"""For the row groups of all open files."""
PAGE_BYTES = 64 << 10
"""Of a column in the file, and ``PAGE_BATCH`` values that are encoded in one go."""
PAGE_BATCH = 256
_SMALLER = 0.4
"""Size in the file to size in memory, as long as no row group of the file tells."""


class ParquetWriter:
    """One Parquet file after the other (part_writer.py)."""

    kind: ClassVar[str] = "parquet"

    def __init__(self, table_name: str = "") -> None:  # noqa: ARG002  # the file has no name inside
        self._columns: tuple[Column, ...] = ()
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None
        """``None`` until the first row group is written: until then columns may be added."""
        self._values: list[list[Any]] = []
        self._rows = 0
        self._text = 0
        self._batches: list[pa.RecordBatch] = []
        self._group_rows = 0
        self._group_bytes = 0
        self._written = 0
        self._flushed_bytes = 0

    @property
    def size(self) -> int:
        if self._sink is None:
            return 0
        ratio = self._written / self._flushed_bytes if self._flushed_bytes else _SMALLER
        return self._written + int(self.memory * min(ratio, 1.0))

    @property
    def memory(self) -> int:
        """Bytes of rows that are not written yet, about."""
        return self._group_bytes + self._text + 8 * self._rows * len(self._columns)

    def begin(self, file: Path, columns: tuple[Column, ...]) -> None:
        self.abandon()
        self._columns = columns
        self._values = [[] for _ in columns]
        self._sink = _arrow().OSFile(str(file), "wb")
        BUDGET.join(self)

    def takes(self, columns: tuple[Column, ...]) -> bool:
        if columns == self._columns:
            return True
        if self._writer is not None:
            return False
        kinds = {column.name: column.kind for column in columns}
        return all(kinds.get(column.name) == column.kind for column in self._columns)

    def write(self, table: Table) -> None:
        if table.columns != self._columns:
            self._widen(table.columns)
        if table.rows >= BATCH_ROWS and not self._rows:
            self._pack(table.values)
        else:
            for values, more in zip(self._values, table.values, strict=True):
                values.extend(more)
            self._rows += table.rows
            self._text += _text_size(table)
            if self._rows >= BATCH_ROWS or self._text >= BATCH_BYTES:
                self._pack_waiting()
        if self._group_rows >= GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
            self._flush()
        elif BUDGET.is_spent_by(self):
            self._pack_waiting()
            self._flush()

    def close(self, first_seq: int = 0, last_seq: int = 0) -> None:
        self._pack_waiting()
        if self._batches or self._writer is None:
            self._flush()
        assert self._writer is not None
        assert self._sink is not None
        self._writer.add_key_value_metadata(
            {"first_seq": str(first_seq), "last_seq": str(last_seq)}
        )
        self._writer.close()
        self._sink.close()
        self._forget()

    def abandon(self) -> None:
        writer, sink = self._writer, self._sink
        self._forget()
        if sink is not None:
            # First, so that the writer can't complete the file. What is wrong with it is known
            # from the write that failed.
            with contextlib.suppress(OSError):
                sink.close()
        if writer is not None:
            writer.is_open = False

    def _forget(self) -> None:
        BUDGET.leave(self)
        self._writer = self._sink = None
        self._batches = []
        self._values = []
        self._rows = self._text = 0
        self._group_rows = self._group_bytes = self._written = self._flushed_bytes = 0

    def _pack_waiting(self) -> None:
        if self._rows:
            values, self._values = self._values, [[] for _ in self._columns]
            self._rows = self._text = 0
            self._pack(values)

    def _pack(self, values: list[list[Any]]) -> None:
        arrow = _arrow()
        schema = _schema(self._columns)
        arrays = [
            arrow.array(column, type=field.type, from_pandas=False)
            for column, field in zip(values, schema, strict=True)
        ]
        batch = arrow.RecordBatch.from_arrays(arrays, schema=schema)
        self._batches.append(batch)
        self._group_rows += batch.num_rows
        self._group_bytes += batch.nbytes

    def _flush(self) -> None:
        """Write what is packed as a row group."""
        arrow = _arrow()
        schema = _schema(self._columns)
        if self._writer is None:
            from pyarrow import parquet  # noqa: PLC0415  # heavy, optional

            self._writer = parquet.ParquetWriter(
                self._sink,
                schema,
                compression="snappy",
                # Numbers and times hardly repeat; texts do, and fall back by themselves if not.
                use_dictionary=[column.name for column in self._columns if column.kind == "text"],
                store_schema=False,
                # Each open column has buffers of a page: 1 MiB and 1024 values take 12 MB more.
                data_page_size=PAGE_BYTES,
                write_batch_size=PAGE_BATCH,
            )
        table = arrow.Table.from_batches(self._batches, schema=schema)
        self._batches = []
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
        assert self._sink is not None
        self._written = self._sink.tell()
        self._flushed_bytes += self._group_bytes
        self._group_rows = self._group_bytes = 0

    def _widen(self, columns: tuple[Column, ...]) -> None:
        """Give the rows so far the columns that came with later ones."""
        self._pack_waiting()
        arrow = _arrow()
        schema = _schema(columns)
        had = {column.name: number for number, column in enumerate(self._columns)}
        self._batches = [
            arrow.RecordBatch.from_arrays(
                [
                    batch.column(had[field.name])
                    if field.name in had
                    else arrow.nulls(batch.num_rows, type=field.type)
                    for field in schema
                ],
                schema=schema,
            )
            for batch in self._batches
        ]
        self._columns = columns
        self._values = [[] for _ in columns]


def _text_size(table: Table) -> int:
    return sum(
        sum(map(len, filter(None, values)))
        for column, values in zip(table.columns, table.values, strict=True)
        if column.kind == "text"
    )


def _arrow() -> Any:
    """pyarrow, without threads of its own, and without a pool that keeps 8 MB of freed memory."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # read when pyarrow is loaded
    import pyarrow as pa  # noqa: PLC0415  # heavy, optional

    if pa.cpu_count() > 1:
        pa.set_cpu_count(1)
    return pa


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    arrow = _arrow()
    types: dict[Kind, pa.DataType] = {
        "integer": arrow.int64(),
        "number": arrow.float64(),
        "boolean": arrow.bool_(),
        "text": arrow.string(),
        "time": arrow.timestamp("us", tz="UTC"),
    }
    return arrow.schema([(column.name, types[column.kind]) for column in columns])
