"""What differs between SQL databases: types of columns, statements, settings of a connection.

PostgreSQL, MariaDB (and MySQL) and SQLite have statements of their own; every other database gets
what SQLAlchemy makes for all of them (``Dialect``). Not for: the meaning of errors (sql_errors.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc as sa_errors
from sqlalchemy.dialects import mysql, postgresql

from appliance.recorders.database_waits import TimeLimits
from appliance.recorders.table import Kind

_DUPLICATE = 1062  # ER_DUP_ENTRY
_SHORT_TEXT = 100_000
_TOGETHER = 500
"""Values in one list of a condition."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)


class Rows(msgspec.Struct, frozen=True):
    """What is to be inserted."""

    names: tuple[str, ...]
    """Columns of the table, those of the key first."""
    kinds: tuple[Kind, ...]
    values: list[list[Any]]
    """A list for each column."""
    count: int

    def only(self, numbers: Sequence[int]) -> Rows:
        """The rows with these numbers."""
        values = [[column[number] for number in numbers] for column in self.values]
        return Rows(self.names, self.kinds, values, len(numbers))

    def part(self, start: int, end: int) -> Rows:
        """Some of the rows."""
        values = [column[start:end] for column in self.values]
        return Rows(self.names, self.kinds, values, end - start)


class Dialect:
    """Any database that SQLAlchemy knows. Subclasses are faster, and tried."""

    is_loosely_typed = False
    """Whether a column takes numbers with a fraction, though it was made for integers."""
    types: ClassVar[dict[Kind, Any]] = {
        "integer": sa.BigInteger(),
        "number": sa.Double(),
        "boolean": sa.Boolean(create_constraint=False),
        "text": sa.UnicodeText(),
        "time": sa.DateTime(),
    }
    hash_type: Any = sa.String(64)
    installation_type: Any = sa.String(100)
    table_options: ClassVar[dict[str, Any]] = {}

    def connect_args(self, limits: TimeLimits) -> dict[str, Any]:  # noqa: ARG002
        """Arguments for the driver."""
        return {}

    def on_connect(self, connection: sa.Connection, limits: TimeLimits) -> None:
        """Settings of a new connection."""

    def largest_row(self, connection: sa.Connection) -> int | None:  # noqa: ARG002
        """Bytes that a row may have, ``None`` where that is no question."""
        return None

    def takes_name(self, name: str) -> bool:  # noqa: ARG002
        """Whether a column can have this name."""
        return True

    def row_sizes(self, rows: Rows) -> list[int]:
        """About how many bytes of a statement each row takes, where ``largest_row`` is a number."""
        return [0] * rows.count

    def insert(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        """Insert rows; one whose key (the first three columns) is there already is left out.

        A row that another rule of the table refuses raises the driver's error.
        """
        rows = self.unknown(connection, table, rows)
        labels = [f"c{number}" for number in range(len(rows.names))]
        statement = sa.insert(table).values(
            {table.c[name]: sa.bindparam(at) for name, at in zip(rows.names, labels, strict=True)}
        )
        if rows.count:
            given = [dict(zip(labels, row, strict=True)) for row in self.tuples(rows)]
            connection.execute(statement, given)

    def unknown(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> Rows:
        """The rows whose key is not in the table."""
        keys = [table.c[name] for name in rows.names[:3]]
        known: set[tuple[Any, ...]] = set()
        wanted = list(dict.fromkeys(rows.values[1]))
        for start in range(0, len(wanted), _TOGETHER):
            part = wanted[start : start + _TOGETHER]
            found = sa.select(*keys[1:]).where(keys[0] == rows.values[0][0], keys[1].in_(part))
            known.update(tuple(row) for row in connection.execute(found))
        if not known:
            return rows
        pairs = zip(rows.values[1], rows.values[2], strict=True)
        return rows.only([number for number, pair in enumerate(pairs) if pair not in known])

    def tuples(self, rows: Rows) -> list[tuple[Any, ...]]:
        """The rows one by one, with the driver's values."""
        return list(
            zip(
                *(
                    self.column_values(kind, column)
                    for kind, column in zip(rows.kinds, rows.values, strict=True)
                ),
                strict=True,
            )
        )

    def column_values(self, kind: Kind, values: list[Any]) -> Sequence[Any]:
        """What the driver is given for a column's values."""
        return [None if v is None else as_datetime(v) for v in values] if kind == "time" else values

    def widening(self, table: str, column: str, old: Kind, new: Kind) -> str | None:  # noqa: ARG002
        """The statement that changes a column's type; ``None``: it can't be changed."""
        return None

    def quote(self, connection: sa.Connection, name: str) -> str:
        """A name as it stands in a statement for the driver (a percent sign is doubled there)."""
        return connection.dialect.identifier_preparer.quote_identifier(name)

    def quoted_table(self, connection: sa.Connection, table: sa.Table) -> str:
        names = [table.schema, table.name] if table.schema else [table.name]
        return ".".join(self.quote(connection, name) for name in names)


def as_datetime(time_us: int) -> datetime:
    """A time in UTC, without a zone. Raises ``OverflowError`` outside of the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=time_us)


def as_text(time_us: int) -> str:
    """``2026-11-29 12:00:00.123456``."""
    return as_datetime(time_us).isoformat(" ", "microseconds")


# An interval is multiplied as a double, which has not all microseconds of all years.
_TIMESTAMP = (
    "timestamp 'epoch' + ? / 1000000 * interval '1 second'"
    " + ? %% 1000000 * interval '1 microsecond'"
)


class PostgreSQL(Dialect):
    """One statement a batch, with an array for each column: no row costs a round trip."""

    types: ClassVar[dict[Kind, Any]] = {
        "integer": postgresql.BIGINT(),
        "number": postgresql.DOUBLE_PRECISION(),
        "boolean": postgresql.BOOLEAN(),
        "text": postgresql.TEXT(),
        "time": postgresql.TIMESTAMP(precision=6),
    }
    _arrays: ClassVar[dict[Kind, str]] = {
        "integer": "bigint",
        "number": "double precision",
        "boolean": "boolean",
        "text": "text",
        "time": "bigint",
    }

    def connect_args(self, limits: TimeLimits) -> dict[str, Any]:
        return {
            "connect_timeout": max(2, math.ceil(limits.connect_s)),
            "application_name": "qlik-mqtt-appliance",
            "prepare_threshold": None,  # poolers between share connections
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }

    def on_connect(self, connection: sa.Connection, limits: TimeLimits) -> None:
        # Not as a parameter of the connection, which PgBouncer refuses.
        milliseconds = int(limits.statement_s * 1000)
        connection.exec_driver_sql(
            f"SET statement_timeout = {milliseconds}; SET lock_timeout = {milliseconds};"
            f" SET idle_in_transaction_session_timeout = {2 * milliseconds}; SET TIME ZONE 'UTC'"
        )
        connection.commit()

    def insert(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        labels = [f"c{number}" for number in range(len(rows.names))]
        selected = ", ".join(
            _TIMESTAMP.replace("?", at) if kind == "time" else at
            for at, kind in zip(labels, rows.kinds, strict=True)
        )
        arrays = ", ".join(
            f"unnest(%({at})s::{self._arrays[kind]}[])"
            for at, kind in zip(labels, rows.kinds, strict=True)
        )
        names = [self.quote(connection, name) for name in rows.names]
        connection.exec_driver_sql(
            f"INSERT INTO {self.quoted_table(connection, table)} ({', '.join(names)})"  # noqa: S608
            f" SELECT {selected} FROM ROWS FROM ({arrays}) AS given ({', '.join(labels)})"
            f" ON CONFLICT ({', '.join(names[:3])}) DO NOTHING",
            {
                at: _array(kind, values)
                for at, kind, values in zip(labels, rows.kinds, rows.values, strict=True)
            },
        )

    def widening(self, table: str, column: str, old: Kind, new: Kind) -> str | None:
        name = {"number": "double precision", "text": "text"}.get(new)
        if name is None or old == "time":
            return None
        return f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {name} USING {column}::{name}"


def _array(kind: Kind, values: list[Any]) -> str:
    """PostgreSQL's text for an array."""
    if kind == "text":
        parts = [
            "NULL" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
            for value in values
        ]
    elif kind == "number":
        parts = ["NULL" if value is None else repr(float(value)) for value in values]
    else:
        parts = ["NULL" if value is None else str(value) for value in values]
    return "{" + ",".join(parts) + "}"


def _escaped(text: str) -> str:
    """As PyMySQL writes a text into a statement."""
    from pymysql.converters import escape_string  # noqa: PLC0415  # only where it is installed

    return escape_string(text)


class MariaDB(Dialect):
    """Statements with many rows, made by PyMySQL."""

    types: ClassVar[dict[Kind, Any]] = {
        "integer": mysql.BIGINT(),
        "number": mysql.DOUBLE(),
        "boolean": mysql.TINYINT(display_width=1),
        "text": mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"),
        "time": mysql.DATETIME(fsp=6),
    }
    hash_type: Any = mysql.CHAR(64, charset="ascii", collation="ascii_bin")
    installation_type: Any = mysql.VARCHAR(100, charset="ascii", collation="ascii_bin")
    table_options: ClassVar[dict[str, Any]] = {
        f"{name}_{option}": value
        for name in ("mysql", "mariadb")
        for option, value in (
            ("engine", "InnoDB"),
            ("charset", "utf8mb4"),
            ("collate", "utf8mb4_bin"),
            ("row_format", "DYNAMIC"),
        )
    }

    def connect_args(self, limits: TimeLimits) -> dict[str, Any]:
        return {
            "connect_timeout": max(1, math.ceil(limits.connect_s)),
            "read_timeout": math.ceil(limits.answer_s),
            "write_timeout": math.ceil(limits.answer_s),
            "charset": "utf8mb4",
            # A server that is not strict would cut values off and say nothing.
            "init_command": "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'),"
            f" time_zone = '+00:00', innodb_lock_wait_timeout = {math.ceil(limits.statement_s)},"
            f" lock_wait_timeout = {math.ceil(limits.statement_s)}",
        }

    def largest_row(self, connection: sa.Connection) -> int | None:
        """Bytes of a packet, less what stands around the values."""
        (found,) = connection.exec_driver_sql("SELECT @@max_allowed_packet").one()
        return int(found) - 64 * 1024

    def takes_name(self, name: str) -> bool:
        return not name.endswith(" ") and all(character <= "\uffff" for character in name)

    def row_sizes(self, rows: Rows) -> list[int]:
        sizes = [32 * len(rows.names)] * rows.count
        for kind, values in zip(rows.kinds, rows.values, strict=True):
            if kind != "text":
                continue
            for number, value in enumerate(values):
                if value is not None:
                    # A short text is not worth a close look: each character has 4 bytes at most.
                    few = len(value) < _SHORT_TEXT
                    sizes[number] += 4 * len(value) if few else len(_escaped(value).encode())
        return sizes

    def insert(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        # Not INSERT IGNORE, which stores a wrong value instead of refusing it, and not ON DUPLICATE
        # KEY UPDATE, which also swallows a row that another unique index refuses.
        try:
            self._insert_all(connection, table, rows)
        except sa_errors.IntegrityError as error:
            if next(iter(getattr(error.orig, "args", ())), None) != _DUPLICATE:
                raise
            rows = self.unknown(connection, table, rows)
            if rows.count:
                self._insert_all(connection, table, rows)

    def _insert_all(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        names = ", ".join(self.quote(connection, name) for name in rows.names)
        marks = ", ".join(["%s"] * len(rows.names))
        connection.exec_driver_sql(
            f"INSERT INTO {self.quoted_table(connection, table)} ({names}) VALUES ({marks})",  # noqa: S608
            self.tuples(rows),
        )

    def column_values(self, kind: Kind, values: list[Any]) -> Sequence[Any]:
        if kind == "time":
            return [None if value is None else as_text(value) for value in values]
        return values

    def widening(self, table: str, column: str, old: Kind, new: Kind) -> str | None:
        if old not in {"integer", "number"} or new not in {"number", "text"}:
            return None  # a boolean would become "1"
        name = "DOUBLE" if new == "number" else "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        return f"ALTER TABLE {table} MODIFY COLUMN {column} {name}"


class SQLite(Dialect):
    """A file; no server."""

    is_loosely_typed = True

    def connect_args(self, limits: TimeLimits) -> dict[str, Any]:
        return {"timeout": limits.connect_s}

    def on_connect(self, connection: sa.Connection, limits: TimeLimits) -> None:  # noqa: ARG002
        # https://www.sqlite.org/pragma.html#pragma_synchronous: with FULL a power cut can bring the
        # file back that undoes the last commit. macOS keeps what is synced in the drive's cache.
        connection.exec_driver_sql("PRAGMA synchronous = EXTRA")
        connection.exec_driver_sql("PRAGMA fullfsync = 1")
        connection.commit()

    def insert(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        names = [self.quote(connection, name) for name in rows.names]
        marks = ", ".join("?" * len(names))
        connection.exec_driver_sql(
            f"INSERT INTO {self.quoted_table(connection, table)} ({', '.join(names)})"  # noqa: S608
            f" VALUES ({marks}) ON CONFLICT ({', '.join(names[:3])}) DO NOTHING",
            self.tuples(rows),
        )

    def column_values(self, kind: Kind, values: list[Any]) -> Sequence[Any]:
        if kind == "time":
            return [None if value is None else as_text(value) for value in values]
        return values


_DIALECTS: dict[str, Callable[[], Dialect]] = {
    "postgresql": PostgreSQL,
    "mysql": MariaDB,
    "mariadb": MariaDB,
    "sqlite": SQLite,
}


def dialect_of(url: sa.URL) -> Dialect:
    """The dialect for an address."""
    return _DIALECTS.get(url.get_backend_name(), Dialect)()


def kind_of_type(found: Any) -> Kind | None:
    """The kind of a column of an existing table; ``None``: it is none that a recorder writes."""
    if isinstance(found, sa.Boolean):
        return "boolean"
    if isinstance(found, postgresql.ENUM):
        return None
    if isinstance(found, mysql.TINYINT) and found.display_width == 1:
        return "boolean"
    for kind, types in _KINDS:
        if isinstance(found, types):
            return kind
    return None


_KINDS: tuple[tuple[Kind, Any], ...] = (
    ("integer", sa.Integer),
    ("number", sa.Numeric),
    ("number", sa.Float),
    ("time", sa.DateTime),
    ("text", sa.String),
)
