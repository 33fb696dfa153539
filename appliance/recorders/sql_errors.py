"""What the error of a database's driver means.

Each driver has codes of its own: PostgreSQL the SQLSTATE of its manual's appendix A, MariaDB the
numbers of mariadb.com/kb/en/mariadb-error-code-reference, SQLite those of sqlite.org/rescode.html.
Not for: what is done then (sql.py).
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy.exc as sa_errors

from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.database_texts import Mask

_SQLSTATES: tuple[tuple[str, Cause], ...] = (
    ("28", Cause.LOGIN),
    ("3D", Cause.DATABASE),
    ("42501", Cause.RIGHT),
    ("25006", Cause.CONNECTION),  # read-only: a standby, and another server is the right one
    ("53100", Cause.DISK_FULL),
    ("53", Cause.CONNECTION),
    ("57014", Cause.TIMEOUT),
    ("55P03", Cause.TIMEOUT),
    ("40", Cause.TIMEOUT),
    ("25P03", Cause.TIMEOUT),
    ("57", Cause.CONNECTION),
    ("08", Cause.CONNECTION),
    ("21", Cause.ROW),
    ("22", Cause.ROW),
    ("23", Cause.ROW),
    ("44", Cause.ROW),
    ("54", Cause.ROW),
    ("P0001", Cause.ROW),  # a trigger's own word
    ("3F", Cause.TABLE),
    ("42", Cause.TABLE),
    ("0A", Cause.TABLE),
)
_MARIADB: tuple[tuple[frozenset[int], Cause], ...] = (
    (frozenset({1045, 1698, 1251, 2054, 2059, 4151}), Cause.LOGIN),
    (frozenset({1044, 1142, 1143, 1227, 1370}), Cause.RIGHT),
    (frozenset({1049}), Cause.DATABASE),
    (frozenset({3, 28, 1021, 1026, 1114}), Cause.DISK_FULL),
    (frozenset({1205, 1213, 1969, 3024}), Cause.TIMEOUT),
    (
        frozenset(
            {
                1048,
                1062,
                1118,
                1153,
                1216,
                1264,
                1265,
                1292,
                1366,
                1406,
                1411,
                1452,
                1690,
                3819,
                4025,
            }
        ),
        Cause.ROW,
    ),
    (frozenset({1054, 1072, 1136, 1146, 1364}), Cause.TABLE),
    (frozenset({1047, 1290, 1836}), Cause.CONNECTION),  # no part of the cluster, or read-only
    (frozenset({1040, 1053, 1129, 1130, 1152, 1158, 1159, 1160, 1161, 1203}), Cause.CONNECTION),
    (frozenset({2002, 2003, 2005, 2006, 2013, 2055}), Cause.CONNECTION),
)
_SQLITE: tuple[tuple[str, Cause], ...] = (
    ("SQLITE_FULL", Cause.DISK_FULL),
    ("SQLITE_BUSY", Cause.TIMEOUT),
    ("SQLITE_LOCKED", Cause.TIMEOUT),
    ("SQLITE_READONLY", Cause.RIGHT),
    ("SQLITE_PERM", Cause.RIGHT),
    ("SQLITE_AUTH", Cause.RIGHT),
    ("SQLITE_CANTOPEN", Cause.DATABASE),
    ("SQLITE_NOTADB", Cause.DATABASE),
    ("SQLITE_CORRUPT", Cause.DATABASE),
    ("SQLITE_CONSTRAINT", Cause.ROW),
    ("SQLITE_TOOBIG", Cause.ROW),
    ("SQLITE_MISMATCH", Cause.ROW),
    ("SQLITE_ERROR", Cause.TABLE),
)
# A failure to connect has no code in psycopg.
_CONNECT_TEXTS: tuple[tuple[re.Pattern[str], Cause], ...] = (
    (re.compile(r'database "[^"]*" does not exist'), Cause.DATABASE),
    (
        re.compile(
            r'authentication failed|no password supplied|role "[^"]*" does not exist'
            r"|no pg_hba.conf entry|SCRAM|not permitted to log in"
        ),
        Cause.LOGIN,
    ),
    (re.compile("permission denied for database"), Cause.RIGHT),
    (re.compile("timeout expired|timed out"), Cause.TIMEOUT),
)


def fault_of(error: Exception, mask: Mask, place: str) -> DatabaseFaultError:
    """The fault that an error is.

    Args:
        error: of SQLAlchemy or a driver.
        mask: removes the secrets from its text.
        place: the database for people.
    """
    original = getattr(error, "orig", None) or error
    cause = _cause(error, original)
    text = mask.apply(_text(original)) or type(original).__name__
    return DatabaseFaultError(cause, text if cause is Cause.ROW else f"{place}: {text}")


def _cause(error: Exception, original: Any) -> Cause:
    number = next(iter(getattr(original, "args", ())), None)
    if type(original).__module__.startswith("pymysql") and isinstance(number, int):
        for numbers, cause in _MARIADB:
            if number in numbers:
                return cause
        return Cause.CONNECTION if 2000 <= number < 3000 else Cause.OTHER
    state = getattr(original, "sqlstate", None)
    if isinstance(state, str):
        return next((cause for start, cause in _SQLSTATES if state.startswith(start)), Cause.OTHER)
    name = getattr(original, "sqlite_errorname", None)
    if isinstance(name, str):
        return next((cause for start, cause in _SQLITE if name.startswith(start)), Cause.OTHER)
    if isinstance(original, OverflowError | UnicodeError | ValueError):
        return Cause.ROW
    return _by_class(error, str(original))


def _by_class(error: Exception, text: str) -> Cause:
    if isinstance(error, sa_errors.NoSuchTableError):
        return Cause.TABLE
    if isinstance(error, sa_errors.IntegrityError | sa_errors.DataError):
        return Cause.ROW
    if isinstance(error, sa_errors.OperationalError | sa_errors.InterfaceError | OSError):
        found = (cause for pattern, cause in _CONNECT_TEXTS if pattern.search(text))
        return next(found, Cause.CONNECTION)
    if isinstance(error, sa_errors.ProgrammingError):
        if "can not be used with MySQL" in text:  # PyMySQL's word on infinity
            return Cause.ROW
        return Cause.TABLE
    return Cause.OTHER


def _text(original: Any) -> str:
    """The driver's text, without what it repeats of values."""
    diagnosis = getattr(original, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    if primary:  # the details would quote the row
        return str(primary)
    arguments: tuple[Any, ...] = getattr(original, "args", ())
    if len(arguments) > 1 and isinstance(arguments[0], int):
        return f"{arguments[1]} ({arguments[0]})"
    # libpq's hint asks what the next sentence says.
    return str(original).partition("\n\tIs the server running")[0]
