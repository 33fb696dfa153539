"""What one group commit holds, and how it is put into the database.

Messages become chunks, packed once however often the commit is tried; statements of other modules
are carried out in the same transaction. An entry that can't be stored although the disk works is
left out and reported, so that it can't hold up the others. Not for: when to commit (writer.py).
"""

from __future__ import annotations

import sqlite3
from itertools import chain, groupby

from appliance.journal import chunks
from appliance.journal.inbox import Entry, Item, Statements
from appliance.journal.message_cost import OVERHEAD_BYTES, content_of
from appliance.storage.sqlite import primary_code

_ROWS_A_STATEMENT = 16
_ONE_ROW = "(?, ?, ?, ?, ?)"
_INSERTS = [
    "INSERT INTO chunk VALUES " + ", ".join([_ONE_ROW] * count)  # noqa: S608  # placeholders only
    for count in range(1, _ROWS_A_STATEMENT + 1)
]

# The statement itself is wrong: trying it again can't help, also when the disk works again.
_REFUSED_CODES = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_RANGE,
}


class Batch:
    """What one commit holds, packed once however often it is tried."""

    def __init__(self, items: list[Item]) -> None:
        self.refused: list[tuple[Entry, Exception]] = []
        self.statements: list[tuple[Statements, Entry]] = []
        self.entries: list[Entry] = []
        self.size = 0
        for content, token, size in items:
            self.size += size
            if isinstance(content, Statements):
                entry: Entry = (content.messages, token)
                self.statements.append((content, entry))
            else:
                entry = (content, token)
            self.entries.append(entry)
        self._has_statements = any(statements.run for statements, _ in self.statements)
        self.messages = list(chain.from_iterable([entry[0] for entry in self.entries]))
        self.count = len(self.messages) + len(self.statements)
        """Messages and statements, those included that turn out to be refused."""
        self.content_size = self.size - self.count * OVERHEAD_BYTES
        self.rows = self._pack()

    def _pack(self) -> list[chunks.Row]:
        try:
            return chunks.encode(self.messages, self.content_size)
        except (ValueError, TypeError, OverflowError):
            # One message can't be stored. Find its entry, so that the others can be.
            for entry in list(self.entries):
                try:
                    chunks.encode(entry[0], self.content_size)
                except (ValueError, TypeError, OverflowError) as error:
                    self._refuse(entry, error)
            self.messages = list(chain.from_iterable([entry[0] for entry in self.entries]))
            self.content_size = sum([content_of(message) for message in self.messages])
            return chunks.encode(self.messages, self.content_size)

    def _refuse(self, entry: Entry, error: Exception) -> None:
        self.refused.append((entry, error))
        self.entries = [other for other in self.entries if other is not entry]
        self.statements = [other for other in self.statements if other[1] is not entry]

    def write(self, connection: sqlite3.Connection) -> None:
        """Carry all of it out in one transaction; what can't be stored ever goes to ``refused``.

        Raises:
            sqlite3.Error: the disk or another program is in the way; try again.
        """
        if not self._has_statements and len(self.rows) <= _ROWS_A_STATEMENT:
            # One INSERT is a transaction by itself: the interpreter's lock is given up and taken
            # again once, not three times.
            self._insert(connection)
            return
        connection.execute("BEGIN IMMEDIATE")
        self._insert(connection)
        try:
            self._run_statements(connection)
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            if not _is_refusal(error):
                raise
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            self._insert(connection)
            self._run_one_by_one(connection)
        connection.execute("COMMIT")

    def _insert(self, connection: sqlite3.Connection) -> None:
        for start in range(0, len(self.rows), _ROWS_A_STATEMENT):
            part = self.rows[start : start + _ROWS_A_STATEMENT]
            connection.execute(_INSERTS[len(part) - 1], [value for row in part for value in row])

    def _run_statements(self, connection: sqlite3.Connection) -> None:
        run = [statement for statements, _ in self.statements for statement in statements.run]
        for sql, group in groupby(run, key=lambda statement: statement[0]):
            connection.executemany(sql, [params for _, params in group])

    def _run_one_by_one(self, connection: sqlite3.Connection) -> None:
        good = []
        for statements, entry in self.statements:
            connection.execute("SAVEPOINT entry")
            try:
                for sql, params in statements.run:
                    connection.execute(sql, params)
            except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
                if not _is_refusal(error):
                    raise
                connection.execute("ROLLBACK TO entry")
                self._refuse(entry, error)
            else:
                good.append((statements, entry))
            connection.execute("RELEASE entry")
        self.statements = good


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        code = primary_code(error)
        # Errors of Python's own checks (wrong number of values, unknown type) have no code.
        return code in _REFUSED_CODES or code == 0
    return True
