"""The table of a recorder: found, made, checked, and changed as columns come.

A column that exists stays what it is; only one of integers or numbers that the recorder made may
become wider. What a column can't take is left empty there, and the row has its payload.
Not for: rows (sql.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn

from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.sql_dialects import Dialect, kind_of_type
from appliance.recorders.table import Column, Kind

INSTALLATION, SEQ, ITEM = "installation", "seq", "item"
KEY_HASH, KEY = "key_hash", "key"
_LARGEST_EXACT = 2**53


class Shape(msgspec.Struct, frozen=True):
    """The columns that a table has for the recorder itself."""

    key: tuple[str, ...]
    """The primary key."""
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.key, *self.others)


# The database's own comparison of texts may ignore case, and an index takes no long ones: so a row
# of mode latest and update is known by a digest of its topic or key.
APPEND = Shape((INSTALLATION, SEQ, ITEM))
STATE = Shape((INSTALLATION, KEY_HASH, ITEM), (SEQ, KEY))
_KINDS: dict[str, Kind] = {
    INSTALLATION: "text",
    SEQ: "integer",
    ITEM: "integer",
    KEY_HASH: "text",
    KEY: "text",
}


class TableLayout:
    """A table of a database. ``kinds`` are the columns it has, with their kinds."""

    def __init__(self, schema: str, name: str, shape: Shape, dialect: Dialect) -> None:
        """``schema``: ``""`` for the one that the server takes by default."""
        self.name, self.schema = name, schema or None
        self.shown = f"{schema}.{name}" if schema else name
        self._shape = shape
        self._dialect = dialect
        self.kinds: dict[str, Kind | None] = {}
        self._types: dict[str, str] = {}
        self.table: sa.Table | None = None
        """``None``: not looked at, or not there yet."""

    # --- look ------------------------------------------------------------------------------------

    def look(self, connection: sa.Connection) -> bool:
        """Read the columns; whether there is such a table.

        Raises:
            DatabaseFaultError: it is not a table for this recorder.
        """
        self.table = None
        self.kinds = {}
        inspector = sa.inspect(connection)
        if not inspector.has_table(self.name, self.schema):
            return False
        found = inspector.get_columns(self.name, self.schema)
        self.kinds = {column["name"]: kind_of_type(column["type"]) for column in found}
        self._types = {column["name"]: str(column["type"]) for column in found}
        for name in self._shape.names:
            if name not in self.kinds:
                raise self._fault(
                    f"it has no column {name}, so it was not made by a recorder like this one"
                )
            self._check(name, _KINDS[name])
        for column in found:
            if self._is_demanding(column):
                raise self._fault(
                    f"its column {column['name']} must have a value (NOT NULL without a default),"
                    " which the recorder does not have"
                )
        self._check_key(inspector)
        self._declare()
        return True

    def _is_demanding(self, column: Mapping[str, object]) -> bool:
        if column["nullable"] or column["name"] in self._shape.names:
            return False
        return not (
            column.get("default") is not None
            or column.get("autoincrement") is True
            or column.get("identity")
            or column.get("computed")
        )

    def _check_key(self, inspector: sa.Inspector) -> None:
        wanted = set(self._shape.key)
        primary = inspector.get_pk_constraint(self.name, self.schema)["constrained_columns"]
        if set(primary) == wanted:
            return
        for each in inspector.get_unique_constraints(self.name, self.schema):
            if set(each["column_names"]) == wanted:
                return
        for index in inspector.get_indexes(self.name, self.schema):
            if index["unique"] and set(index["column_names"]) == wanted:
                return
        raise self._fault(
            f"it has no primary key or unique index on ({', '.join(self._shape.key)}), which keeps"
            " rows from coming twice"
        )

    def check_fixed(self, columns: Sequence[Column]) -> None:
        """See that columns whose kind does not depend on values have it.

        Raises:
            DatabaseFaultError: one has another type.
        """
        for column in columns:
            if column.name in self.kinds:
                self._check(column.name, column.kind)

    def _check(self, name: str, wanted: Kind) -> None:
        if not self._takes(self.kinds[name], wanted):
            raise self._fault(
                f"its column {name} has the type {self.type_of(name)}, and the recorder writes"
                f" values of kind {wanted}"
            )

    def takes(self, column: Column) -> bool:
        """Whether the column that is there holds all values of this kind as they are."""
        return self._takes(self.kinds.get(column.name), column.kind)

    def _takes(self, found: Kind | None, wanted: Kind) -> bool:
        if found == wanted:
            return True
        return self._dialect.is_loosely_typed and {found, wanted} == {"integer", "number"}

    def type_of(self, name: str) -> str:
        """The type of a column as the database calls it."""
        return self._types.get(name) or str(self.kinds.get(name))

    def _fault(self, text: str) -> DatabaseFaultError:
        return DatabaseFaultError(Cause.TABLE, f"The table {self.shown} can't be used: {text}")

    # --- change ----------------------------------------------------------------------------------

    def create(self, connection: sa.Connection, columns: Sequence[Column]) -> None:
        """Make the table."""
        for name in self._shape.names:
            self.kinds[name] = _KINDS[name]
        for column in columns:
            self.kinds[column.name] = column.kind
        self._types = {}
        self._declare()
        assert self.table is not None
        self.table.create(connection)

    def index_by_number(self, connection: sa.Connection) -> None:
        """Make the index for readers that ask for the rows behind a number."""
        assert self.table is not None
        sa.Index(f"{self.name[:40]}_by_seq", self.table.c[SEQ]).create(connection)

    def add(self, connection: sa.Connection, column: Column) -> None:
        """Add a column."""
        made = self._column(column.name, column.kind)
        specification = CreateColumn(made).compile(dialect=connection.dialect)
        assert self.table is not None
        table = self._dialect.quoted_table(connection, self.table)
        word = "ADD" if connection.dialect.name in {"mssql", "oracle"} else "ADD COLUMN"
        text = str(specification)
        connection.exec_driver_sql(f"ALTER TABLE {table} {word} {text}")
        self.kinds[column.name] = column.kind
        self._declare()

    def widen(self, connection: sa.Connection, column: Column) -> bool:
        """Change a column's type so that it holds this kind; whether that can be done."""
        old = self.kinds[column.name]
        if old is None or self.table is None:
            return False
        table = self._dialect.quoted_table(connection, self.table)
        name = self._dialect.quote(connection, column.name)
        statement = self._dialect.widening(table, name, old, column.kind)
        if statement is None:
            return False  # its values would not stay what they are
        if column.kind == "number" and old == "integer":
            inexact = connection.exec_driver_sql(
                f"SELECT 1 FROM {table} WHERE {name} > {_LARGEST_EXACT}"  # noqa: S608
                f" OR {name} < -{_LARGEST_EXACT} LIMIT 1"
            ).first()
            if inexact is not None:
                return False
        connection.exec_driver_sql(statement)
        self.kinds[column.name] = column.kind
        self._declare()
        return True

    # --- SQLAlchemy's view ------------------------------------------------------------------------

    def _declare(self) -> None:
        columns = [self._column(name, kind) for name, kind in self.kinds.items() if kind]
        self.table = sa.Table(
            self.name,
            sa.MetaData(),
            *columns,
            sa.PrimaryKeyConstraint(*self._shape.key),
            schema=self.schema,
            **self._dialect.table_options,
        )

    def _column(self, name: str, kind: Kind) -> sa.Column[object]:
        kinds = self._dialect.types
        types = {
            INSTALLATION: self._dialect.installation_type,
            KEY_HASH: self._dialect.hash_type,
        }
        is_own = name in self._shape.names
        chosen = types.get(name, kinds[kind]) if is_own else kinds[kind]
        return sa.Column(name, chosen, nullable=name not in self._shape.key, autoincrement=False)
