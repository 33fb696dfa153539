"""What a database holds: its tables, their version, and the steps between versions.

A layout has one version, which ``PRAGMA user_version`` keeps. ``tests/data/formats`` has the tables
of each version: a change of the tables needs a new version and a step that leads to it
(CONTRIBUTING.md, "Change the tables of a database"). Not for: opening a file (database.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

FIRST_VERSION = 1

Check = Callable[[sqlite3.Connection], object]


class Migration(msgspec.Struct, frozen=True):
    """The step that leads to a version from the one before it."""

    to: int
    """The version that it leads to, 2 or higher."""
    change: str | Callable[[sqlite3.Connection], object]
    """An SQL script, or a function that changes the database through the connection. It runs within
    a transaction, which it must not end. It also runs on the same tables without rows, to try
    whether it fits."""


class Tables(msgspec.Struct, frozen=True):
    """The tables of one module in a database that several modules share."""

    schema: str
    """The present tables, as ``CREATE ... IF NOT EXISTS`` statements."""
    migrations: tuple[Migration, ...] = ()
    late_tables: frozenset[str] = frozenset()
    """Tables that version 1 got without a new number: a database of version 1 may lack them."""
    verify: Check | None = None
    """Looks at the content of an existing database; raises ``Damage`` if it is damaged, and
    ``ValueError`` or ``TypeError`` if it is not what this version writes."""


class Layout(msgspec.Struct, frozen=True):
    """What a database holds, and what its loss means."""

    title: str
    """What it is, as the subject of a sentence: ``"The journal"``."""
    application_id: int
    """https://www.sqlite.org/pragma.html#pragma_application_id"""
    loss: str
    """What is lost with the database, for the line ``Lost with it: ...``."""
    parts: tuple[Tables, ...]

    @property
    def version(self) -> int:
        """The present version."""
        return FIRST_VERSION + len(self.steps_after(FIRST_VERSION))

    @property
    def schema(self) -> str:
        """The present tables of all modules."""
        return "\n".join(each.schema for each in self.parts)

    @property
    def late_tables(self) -> frozenset[str]:
        """``Tables.late_tables`` of all modules."""
        return frozenset().union(*(each.late_tables for each in self.parts))

    def with_tables(self, *tables: Tables) -> Layout:
        """The same layout with the tables of further modules."""
        return msgspec.structs.replace(self, parts=(*self.parts, *tables))

    def steps_after(self, version: int) -> list[Migration]:
        """The steps from ``version`` to the present one, in their order.

        Raises:
            ValueError: the modules' steps do not have the numbers 2, 3, 4 and so on, each once.
        """
        steps = sorted((step for each in self.parts for step in each.migrations), key=_to)
        if [step.to for step in steps] != list(range(2, len(steps) + 2)):
            raise ValueError(f"{self.title}: the steps lead to {[step.to for step in steps]}")
        return steps[version - FIRST_VERSION :]

    def unchanged_since(self, version: int) -> Layout:
        """The layout without the modules whose tables were others in this version."""
        parts = [each for each in self.parts if all(step.to <= version for step in each.migrations)]
        return msgspec.structs.replace(self, parts=tuple(parts))

    def verify(self, connection: sqlite3.Connection) -> None:
        """Look at the content with each module's ``verify``, and raise what it raises."""
        for each in self.parts:
            if each.verify is not None:
                each.verify(connection)

    def upgrade(self, connection: sqlite3.Connection, version: int) -> None:
        """Take the steps from ``version`` to the present one, within the open transaction.

        Raises:
            sqlite3.Error, ValueError, TypeError: a step failed; roll the transaction back.
        """
        for step in self.steps_after(version):
            if isinstance(step.change, str):
                run_script(connection, step.change)
            else:
                step.change(connection)

    def create(self, connection: sqlite3.Connection) -> None:
        """Create what is missing of the present tables, within the open transaction.

        The application id and the version stand in the file's header, which is part of it.
        """
        run_script(connection, self.schema)
        for name, value in (
            ("application_id", self.application_id),
            ("user_version", self.version),
        ):
            (present,) = connection.execute(f"PRAGMA {name}").fetchone()
            if present != value:  # an assignment writes, even if nothing changes
                connection.execute(f"PRAGMA {name} = {value}")

    def misfit(
        self, connection: sqlite3.Connection, version: int, *, may_lack_tables: bool
    ) -> str | None:
        """Why the tables are not those of ``version``; ``None`` if they are. Changes nothing.

        The steps are tried on the same tables without rows, in memory. If they lead to the present
        tables, the tables fit their version.

        Args:
            connection: the database.
            version: its version, at most the present one.
            may_lack_tables: whether tables may be missing, because a first start did not end.
        """
        steps = self.steps_after(version)
        found = shape(connection)
        if steps:
            with _memory(_definitions(connection)) as trial:
                try:
                    self.upgrade(trial, version)
                except (sqlite3.Error, ValueError, TypeError) as error:
                    return f"the step to format {version + 1} does not fit them ({error})"
                found = shape(trial)
        with _memory(_split(self.schema)) as fresh:
            wanted = shape(fresh)
        missing = wanted.keys() - found.keys()
        if version == FIRST_VERSION:
            missing -= self.late_tables
        if missing and not may_lack_tables:
            return f"table {min(missing)} is missing"
        for name in sorted(wanted.keys() & found.keys()):
            if found[name] != wanted[name]:
                return f"table {name} {_difference(found[name], wanted[name])}"
        return None


class Damage(ValueError):  # noqa: N818 - raised by ``verify``, it never reaches a user
    """``verify`` found content that can't be used."""


def check_bodies(table: str, bodies: Sequence[object], decode: Callable[[Any], object]) -> None:
    """Decode the oldest and the newest body of a table, to find out what is wrong with it.

    Raises:
        Damage: one of them can't be decoded, or its bytes are not MessagePack at all.
        ValueError: all of them are whole, and none is what this version writes.
    """
    errors: list[Exception] = []
    is_other = True
    for body in bodies:
        try:
            decode(body)
        except (ValueError, TypeError) as error:
            errors.append(error)
            is_other = is_other and is_whole(body)
    if not errors:
        return
    text = f"a row of table {table}: {errors[0]}"
    if is_other and len(errors) == len(bodies):
        raise ValueError(text)
    raise Damage(text)


def check_ends(
    connection: sqlite3.Connection,
    table: str,
    column: str,
    key: str,
    decode: Callable[[Any], object],
) -> None:
    """``check_bodies`` of a table's oldest and newest row, by its key.

    One damaged row is left out when it is read; it does not cost all others.

    Raises:
        ValueError: both are whole, and none is what this version writes.
    """
    bodies = [
        row[0]
        for order in ("ASC", "DESC")
        for row in connection.execute(
            f"SELECT {column} FROM {table} ORDER BY {key} {order} LIMIT 1"  # noqa: S608 - constants
        )
    ]
    with contextlib.suppress(Damage):
        check_bodies(table, bodies, decode)


def is_whole(body: object) -> bool:
    """Whether a value that can't be decoded is none of ours rather than damaged.

    Zeros, the usual damage, are a whole number in MessagePack with bytes behind it.
    """
    if not isinstance(body, bytes):  # SQLite keeps a value of any type in any column
        return True
    try:
        msgspec.msgpack.decode(body)
    except ValueError:
        return False
    return True


class Column(msgspec.Struct, frozen=True):
    """A column, as ``PRAGMA table_xinfo`` tells it."""

    name: str
    type: str
    not_null: bool
    default: str | None
    key: int
    """Its place in the primary key, 0 if it is not in it."""
    hidden: int


Shape = dict[str, tuple[Column, ...]]


def shape(connection: sqlite3.Connection) -> Shape:
    """The columns of all tables, in order, by the name of their table."""
    found: dict[str, list[Column]] = {}
    for table, name, kind, not_null, default, key, hidden in connection.execute(
        "SELECT tables.name, columns.name, upper(columns.type), columns.[notnull],"
        " columns.dflt_value, columns.pk, columns.hidden"
        " FROM sqlite_master AS tables JOIN pragma_table_xinfo(tables.name) AS columns"
        " WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        " AND tables.sql NOT LIKE 'CREATE VIRTUAL %'"
        " ORDER BY tables.name, columns.cid"
    ):
        column = Column(name, kind, bool(not_null), default, key, hidden)
        found.setdefault(table, []).append(column)
    return {table: tuple(columns) for table, columns in found.items()}


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run a script within the open transaction, which ``executescript`` would commit first."""
    for statement in _split(script):
        connection.execute(statement)


def _difference(found: tuple[Column, ...], wanted: tuple[Column, ...]) -> str:
    by_name = {each.name: each for each in found}
    for each in wanted:
        other = by_name.pop(each.name, None)
        if other is None:
            return f"has no column {each.name}"
        if other.type != each.type:
            return f"has column {each.name} as {other.type or 'untyped'}, not as {each.type}"
        if other != each:
            return f"has column {each.name} with another rule (key, default or NOT NULL)"
    if by_name:
        return f"has a further column {next(iter(by_name))}"
    return "has its columns in another order"


def _definitions(connection: sqlite3.Connection) -> list[str]:
    """The statements that make the database's tables and indexes."""
    rows = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"
        " AND name NOT LIKE 'sqlite!_%' ESCAPE '!' AND sql NOT LIKE 'CREATE VIRTUAL %'"
        " ORDER BY type DESC, rowid"
    )
    return [row[0] for row in rows]


@contextlib.contextmanager
def _memory(statements: Iterator[str] | list[str]) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        yield connection


def _split(script: str) -> Iterator[str]:
    statement = ""
    for part in script.split(";")[:-1]:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _to(step: Migration) -> int:
    return step.to
