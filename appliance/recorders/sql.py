"""A table of a SQL database that records messages, each exactly once.

The key of a row is this data directory and recorder, the message's number and the row's place in
the message. A batch is one transaction that leaves rows out which are there already, and where the
table ends is read back. So a commit whose answer was lost, a killed server and a killed appliance
give neither a gap nor a second row. Not for: connections (sql_connection.py), the table itself
(sql_table.py), modes ``latest`` and ``update`` (sql_latest.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from appliance.config.tables import RecorderConfig
from appliance.log.sanitize import escape
from appliance.model import Message
from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.database_target import DatabaseTarget
from appliance.recorders.database_texts import shown_address
from appliance.recorders.database_waits import TimeLimits, Waits
from appliance.recorders.progress import Progress
from appliance.recorders.rows import make_rows, whole_text
from appliance.recorders.sql_columns import fixed_columns, make_maker, table_name
from appliance.recorders.sql_connection import SqlConnection
from appliance.recorders.sql_dialects import Rows
from appliance.recorders.sql_table import APPEND, INSTALLATION, ITEM, SEQ, Shape, TableLayout
from appliance.recorders.table import Column, Kind, Table
from appliance.recorders.table_maker import PAYLOAD
from appliance.recorders.target import Context

_MOST_GENERATIONS = 1000
_COUNTED = 1_000_000
"""Numbers. To count the messages of more would take the server too long."""

_log = logging.getLogger(__name__)


_PASSES = frozenset({Cause.DISK_FULL, Cause.CONNECTION})
"""Why a column can't be added now, and can be later by itself."""


class _Memory(msgspec.Struct):
    """What a start needs, in ``Progress.memory``."""

    place: str = ""
    """Of which table it is."""
    generation: int = 0
    """How often rows with this installation's key and a number that it had not written were found:
    of a copy of the data directory, or from a journal that is lost."""
    made: tuple[str, ...] = ()
    """Columns that the recorder made, whose type it may change."""
    columns: str = ""
    """``TableMaker.memory``."""


class SqlTable(DatabaseTarget):
    """The target. One thread at a time, except for ``figures``.

    Raises:
        ConfigError, NoPermissionError: the address is not right, or a package is missing.
    """

    def __init__(
        self,
        context: Context,
        stored: Progress,
        *,
        limits: TimeLimits | None = None,
        waits: Waits | None = None,
        shape: Shape = APPEND,
    ) -> None:
        config = self.config_of_rows(context.config)
        self._config = config
        self._shape = shape
        database = config.database
        assert database is not None
        self._connection = SqlConnection(
            config, limits=limits, waits=waits, is_stopping=context.is_stopping
        )
        self._dialect = self._connection.dialect
        schema, name = table_name(config)
        written = f"{schema}.{name}" if schema else name
        self._layout = TableLayout(schema, name, shape, self._dialect)
        self._maker = make_maker(config, shape)
        self._fixed = fixed_columns(self._maker, shape)
        place = hashlib.sha256(f"{shown_address(database.url)} {written}".encode()).hexdigest()
        self._memory = _recall(stored.memory, place[:16])
        self._maker.recall(self._memory.columns)
        super().__init__(context, stored, place=self._connection.shown, table=written)
        self._format = "sql"
        self._seen = 0
        """The connection on which the table was looked at."""
        self._left_out: set[str] = set()
        """Columns that can't be added, or that have a type which no value fits."""
        self._pinned: dict[str, Kind] = {}
        """Keys of payloads whose columns stay as they are, with their kinds."""
        self._largest_row: int | None = None
        self._limit: int | None = None
        """Messages a transaction; ``None``: as many as come."""

    @staticmethod
    def config_of_rows(config: RecorderConfig) -> RecorderConfig:
        """The configuration by which messages become rows."""
        return config

    # --- Target ----------------------------------------------------------------------------------

    def append(self, messages: Sequence[Message], seq: int) -> None:
        waiting = list(messages)
        while waiting:
            self._look()
            waiting = [message for message in waiting if message.seq > self.cursor]
            if not waiting:
                break
            part = waiting[: self._limit] if self._limit else waiting
            try:
                self._write(part)
            except DatabaseFaultError as fault:
                if fault.cause in {Cause.CONNECTION, Cause.TIMEOUT}:
                    # It may be too much at a time for the server.
                    self._limit = max(1, len(part) // 2)
                raise
            waiting = waiting[len(part) :]
            # What was read back on the way is counted already.
            self._move(part[-1].seq, sum(message.seq > self.cursor for message in part))
        self._limit = None
        self._move(seq, 0)

    def tick(self, now_ns: int) -> None:  # noqa: ARG002  # a table is not closed by time
        self._look()

    def finish(self) -> None:
        self._connection.close()

    # --- position --------------------------------------------------------------------------------

    def _memory_text(self) -> str:
        self._memory.columns = self._maker.memory
        return msgspec.json.encode(self._memory).decode()

    @property
    def _key(self) -> str:
        """What stands in the table for this data directory and recorder."""
        generation = self._memory.generation
        return f"{self._own_key}.{generation}" if generation else self._own_key

    def _look(self) -> None:
        """On a new connection: look at the table, and read back where it ends."""
        self._connection.notice_replaced_file()
        if self._connection.is_open and self._seen == self._connection.connections:
            return
        with self._connection.transaction() as connection:
            self._left_out.clear()
            if self._pinned:
                self._pinned.clear()
                self._renew_maker()
            self._notes.pop("columns", None)
            if self._layout.look(connection):
                self._layout.check_fixed(self._fixed)
                self._read_back(connection)
            if self._is_lost and not self.cursor:  # there is nothing of this data directory
                self._begin_anew()
            self._is_lost = False
            self._largest_row = self._dialect.largest_row(connection)
        self._seen = self._connection.connections

    def _read_back(self, connection: sa.Connection) -> None:
        """Take over rows that are there though the position does not say so.

        Rows beyond what this data directory can have written belong to another one with the same
        key; then this one goes on with a key of its own.
        """
        table = self._layout.table
        assert table is not None
        for _ in range(_MOST_GENERATIONS):
            newest = connection.execute(
                sa.select(sa.func.max(table.c[SEQ])).where(
                    table.c[INSTALLATION] == self._key, table.c[SEQ] > self.cursor
                )
            ).scalar()
            if newest is None:
                return
            if newest <= self._known_to:
                self._take_over(connection, newest)
                return
            self._memory.generation += 1
            self._move(self.cursor, 0)
            self._save_now()  # before a row has the new key
            self._note_foreign_rows(newest, self._key)

    def _take_over(self, connection: sa.Connection, newest: int) -> None:
        """Go on behind the newest row, which this data directory has written."""
        table = self._layout.table
        assert table is not None
        found = 0
        if newest - self.cursor <= _COUNTED:
            found = connection.execute(
                sa.select(sa.func.count(sa.distinct(table.c[SEQ]))).where(
                    table.c[INSTALLATION] == self._key, table.c[SEQ] > self.cursor
                )
            ).scalar_one()
        # With several rows a message, the last one's may not all be there.
        one = int(self._config.flatten)
        self._move(newest - one, max(0, found - one))

    # --- rows ------------------------------------------------------------------------------------

    def _write(self, messages: Sequence[Message]) -> None:
        table = self._maker.take(messages)
        if not table.rows:
            return
        while self._fit_layout(table.columns):
            table = self._maker.take(messages)
        rows = self._rows(table, messages)
        last = messages[-1].seq
        self._insert(self._without_huge(rows), is_first=True)
        self._known_to = max(self._known_to, last)

    def _fit_layout(self, columns: Sequence[Column]) -> bool:
        """Make the table or the columns that are missing, and widen those that are too narrow.

        Returns whether the rows have to be made again, for columns that stay as they are.
        """
        for column in columns:
            if not self._dialect.takes_name(column.name) and column.name not in self._left_out:
                self._left_out.add(column.name)
                text = f"no column can have the name {column.name}, so its values are in {PAYLOAD}"
                self._notes["columns"] = escape(text)
        if self._layout.table is None:
            with self._connection.transaction() as connection:
                outside = {SEQ, *self._left_out}
                wanted = [each for each in columns if each.name not in outside]
                self._layout.create(connection, wanted)
            self._memory.made = tuple(each.name for each in wanted)
            self._make_index()
            _log.info("The table %s was made in %s", self._layout.shown, self._connection.shown)
            return False
        pinned = len(self._pinned)
        for column in columns:
            if column.name == SEQ or column.name in self._left_out:
                continue
            if column.name not in self._layout.kinds:
                self._add(column)
            elif not self._layout.takes(column) and not self._widen(column):
                self._pin(column)
        if len(self._pinned) == pinned:
            return False
        self._renew_maker()
        return True

    def _make_index(self) -> None:
        if self._shape is not APPEND:
            return
        try:
            with self._connection.transaction(is_trial=True) as connection:
                self._layout.index_by_number(connection)
        except DatabaseFaultError as fault:
            if not self._connection.is_open:
                raise
            _log.warning("Table %s has no index on %s: %s", self._layout.shown, SEQ, fault.reason)

    def _pin(self, column: Column) -> None:
        """Let the column's type decide what goes into it."""
        kind = self._layout.kinds[column.name]
        key = self._maker.key_of(column.name)
        text = (
            f"the column {column.name} has the type {self._layout.type_of(column.name)}, and values"
            f" that do not fit are in {PAYLOAD}"
        )
        text = escape(text)
        self._notes["columns"] = text
        _log.warning("Table %s: %s", self._layout.shown, text)
        if kind is None or key is None:
            self._left_out.add(column.name)
        else:
            self._pinned[key] = kind

    def _renew_maker(self) -> None:
        config = self._config
        memory = self._maker.memory
        types = {**(config.types or {}), **self._pinned}
        self._maker = make_maker(msgspec.structs.replace(config, types=types or None), self._shape)
        self._maker.recall(memory)

    def _add(self, column: Column) -> None:
        try:
            with self._connection.transaction(is_trial=True) as connection:
                self._layout.add(connection, column)
        except DatabaseFaultError as fault:
            if not self._connection.is_open:
                raise
            if column in self._fixed:
                raise
            if fault.cause in _PASSES:
                raise  # the rows wait, too: else the column would be missing for good
            if self._is_there_now(column.name):
                return
            self._left_out.add(column.name)
            self._warn_of_columns(
                f"the column {column.name} can't be added, so its values are in {PAYLOAD}", fault
            )
        else:
            self._memory.made = (*self._memory.made, column.name)

    def _is_there_now(self, name: str) -> bool:
        """Whether another recorder of the same table was faster."""
        with self._connection.transaction() as connection:
            return self._layout.look(connection) and name in self._layout.kinds

    def _widen(self, column: Column) -> bool:
        if column.name not in self._memory.made:
            return False
        try:
            with self._connection.transaction(is_trial=True) as connection:
                return self._layout.widen(connection, column)
        except DatabaseFaultError as fault:
            if not self._connection.is_open:
                raise
            _log.warning(
                "Table %s: the type of column %s can't be changed: %s",
                self._layout.shown,
                column.name,
                fault.reason,
            )
            return False

    def _warn_of_columns(self, text: str, fault: DatabaseFaultError) -> None:
        text = escape(f"{text}: {fault.reason}")
        _log.warning("Table %s: %s", self._layout.shown, text)
        self._notes["columns"] = text

    def _own_columns(self, table: Table) -> tuple[list[str], list[Kind], list[list[Any]]]:
        """Names, kinds and values of the columns that rows have besides those of the payload."""
        values: list[list[Any]] = [[self._key] * table.rows, table.seqs, table.items]
        return [INSTALLATION, SEQ, ITEM], ["text", "integer", "integer"], values

    def _rows(self, table: Table, messages: Sequence[Message]) -> Rows:
        """The rows as the table takes them."""
        names, kinds, values = self._own_columns(table)
        misfits: set[int] = set()
        for column, column_values in zip(table.columns, table.values, strict=True):
            if column.name in {SEQ, PAYLOAD}:  # the one is there already, the other one comes last
                continue
            found = self._layout.kinds.get(column.name)
            if found is None or column.name in self._left_out:
                misfits.update(n for n, each in enumerate(column_values) if each is not None)
                continue
            names.append(column.name)
            kinds.append(column.kind)
            values.append(column_values)
        payload = table.values[-1]
        if misfits:
            texts = make_rows(messages, flatten=self._config.flatten).texts
            payload = [
                whole_text(texts[n]) if n in misfits and each is None else each
                for n, each in enumerate(payload)
            ]
        names.append(PAYLOAD)
        kinds.append("text")
        values.append(payload)
        return Rows(tuple(names), tuple(kinds), values, table.rows)

    def _without_huge(self, rows: Rows) -> Rows:
        """Set rows aside that are larger than what the server takes at all."""
        most = self._largest_row
        if most is None:
            return rows
        sizes = self._dialect.row_sizes(rows)
        huge = [number for number, size in enumerate(sizes) if size > most]
        for number in huge:
            self._put_row_aside(
                rows.part(number, number + 1),
                f"it has {sizes[number]} bytes, and the server takes {most}; raise"
                " max_allowed_packet there",
            )
        outside = set(huge)
        return rows.only([n for n in range(rows.count) if n not in outside]) if huge else rows

    def _insert(self, rows: Rows, *, is_first: bool = False) -> None:
        """Insert rows in one transaction; where one can't be stored, in several around it."""
        if not rows.count:
            return
        table = self._layout.table
        assert table is not None
        try:
            with self._connection.transaction() as connection:
                if is_first:
                    key = self._key
                    self._read_back(connection)
                    if self._key != key:
                        rows.values[0][:] = [self._key] * rows.count
                # The answer to the commit may be lost.
                self._known_to = max(self._known_to, *rows.values[rows.names.index(SEQ)])
                self._store_rows(connection, table, rows)
        except DatabaseFaultError as fault:
            if fault.cause is not Cause.ROW:
                raise
            if rows.count == 1:
                self._put_row_aside(rows, fault.reason)
                return
            middle = rows.count // 2
            self._insert(rows.part(0, middle))
            self._insert(rows.part(middle, rows.count))

    def _store_rows(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        self._dialect.insert(connection, table, rows)

    def _put_row_aside(self, row: Rows, why: str) -> None:
        values = {name: column[0] for name, column in zip(row.names, row.values, strict=True)}
        seq, item = values[SEQ], values[ITEM]
        for name in self._shape.names:
            values.pop(name)
        self._put_aside(seq, item, why, values)


def _recall(memory: str, place: str) -> _Memory:
    """What was stored, if it is of the same table."""
    try:
        found = msgspec.json.decode(memory, type=_Memory) if memory else _Memory()
    except msgspec.DecodeError:
        found = _Memory()
    return found if found.place == place else _Memory(place=place)
