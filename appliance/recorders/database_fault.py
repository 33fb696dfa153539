"""Why a database did not take something, in one form for every kind of database.

Not for: which error of which driver means what (sql_errors.py, mongodb_errors.py).
"""

from __future__ import annotations

import enum

from appliance.errors import UnavailableError


class Cause(enum.Enum):
    """What kind of failure it is; the value says what to do, for people."""

    CONNECTION = "See that the server runs and that this machine may reach it"
    TIMEOUT = "See whether the server is overloaded, or another program holds a lock"
    LOGIN = "Correct the user in `url` and its password"
    DATABASE = "Create the database, or correct its name in `url`"
    RIGHT = "Give the user the right to do that"
    DISK_FULL = "Make room on the server"
    TABLE = "Correct the table, or name another one in `table`"
    ROW = "The row is set aside"
    """This row can't be stored, whatever the server's condition; others can."""
    OTHER = "See the server's log"

    @property
    def is_patient(self) -> bool:
        """Whether an operator has to see to it, so that trying each second makes no sense."""
        return self in _PATIENT


_PATIENT = frozenset({Cause.LOGIN, Cause.DATABASE, Cause.RIGHT, Cause.TABLE})


class DatabaseFaultError(UnavailableError):
    """A database did not do what it was asked. The text is on one line and has no secret."""

    def __init__(self, cause: Cause, text: str) -> None:
        sentence = text.strip().rstrip(".?!")
        super().__init__(sentence if cause is Cause.ROW else f"{sentence}. {cause.value}")
        self.cause = cause
        self.reason = sentence
