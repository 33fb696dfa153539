"""The address of a recorder's database: its password apart, and what is wrong with the rest.

The decoder takes the password out of the address before anything else sees it, so the address can
be shown. Not for: connecting (the recorders), whether the driver is there (extras.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from appliance.config.tables import RecorderConfig
from appliance.secret import Secret

_LOGIN = re.compile(r"(?P<head>[^:/@]+://[^:/@]*)(?P<password>:[^@]*)?@(?P<rest>.*)", re.DOTALL)
"""As SQLAlchemy takes an address apart: a password may have a slash in it, and no @."""
_FORM = re.compile(r"[a-z][a-z0-9]*(\+[a-z0-9_]+)?://\S*", re.IGNORECASE)
_SECRET_KEY = re.compile("pass(?!file$)|pwd|secret|token|credential", re.IGNORECASE)
"""Keys behind the ``?``; libpq's ``passfile`` names a file."""
_EXAMPLE = 'write for example "postgresql+psycopg://appliance@db.example.com/messages"'
_ASYNCHRONOUS = frozenset({"aiomysql", "aiosqlite", "asyncmy", "asyncpg"})


def without_password(url: str) -> tuple[str, Secret | None]:
    """The address without its password, and the password if there is one."""
    found = _LOGIN.fullmatch(url)
    if found is None or found["password"] is None:
        return url, None
    secret = unquote(found["password"][1:])
    return f"{found['head']}@{found['rest']}", Secret(secret) if secret else None


def is_mongodb(url: str) -> bool:
    """Whether the database is MongoDB, and no SQL database."""
    return url.lower().startswith(("mongodb://", "mongodb+srv://"))


def dialect(url: str) -> tuple[str, str]:
    """The database and its driver: ``("postgresql", "psycopg")``, without a driver ``""``."""
    name, _, driver = url.partition("://")[0].lower().partition("+")
    return name, driver


def sqlite_file(url: str) -> str | None:
    """The path in an SQLite address as it is written; ``None``: it is no such address."""
    path = url.partition("://")[2].partition("?")[0]
    if dialect(url)[0] != "sqlite" or path[:1] not in ("", "/"):
        return None
    return path.removeprefix("/")


def below(url: str, folder: str) -> str:
    """An SQLite address with its file's path made absolute, from ``folder``."""
    path = sqlite_file(url)
    if not path or path == ":memory:":
        return url
    head, _, rest = url.partition("://")
    query = rest.partition("?")[1] + rest.partition("?")[2]
    return f"{head}:///{Path(folder) / Path(path).expanduser()}{query}"


def target_text(recorder: RecorderConfig) -> str:
    """What a recorder writes, for people: its path, or the database and its table."""
    database = recorder.database
    if database is None:
        return str(recorder.path)
    table = database.table or recorder.used_name
    if path := sqlite_file(database.url):
        return f"{path}, table {table}"
    kind = dialect(database.url)[0]
    place = re.split(r"[?#]", database.url.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    what = "collection" if is_mongodb(database.url) else "table"
    return f"{kind}://{place}, {what} {table}"


def url_problems(url: str) -> Iterator[str]:
    """What is wrong with an address. Its parts are not shown: a password may be among them."""
    if not _FORM.fullmatch(url):
        yield f"value (not shown): not the address of a database; {_EXAMPLE}"
        return
    name, driver = dialect(url)
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    try:
        parts = urlsplit(url)
        _ = parts.port if not is_mongodb(url) else None  # MongoDB's may name several hosts
    except ValueError:
        yield f"value (not shown): not the address of a database; {_EXAMPLE}"
        return
    if authority.count("@") > 1:
        yield "value (not shown): an @ in a user's name or password is written %40"
    elif any(_SECRET_KEY.search(key) for key, _ in parse_qsl(parts.query)):
        yield "value (not shown): a password does not belong behind the ?; use `password_file`"
    elif driver in _ASYNCHRONOUS:
        yield f"value {name}+{driver}: this driver is for asynchronous programs; {_EXAMPLE}"
    elif name == "sqlite":
        if authority:
            yield (
                "value (not shown): an SQLite file has no host; write "
                '"sqlite:///recordings/messages.db", and four slashes before an absolute path'
            )
        elif sqlite_file(url) in ("", ":memory:"):
            yield (
                "a database in memory is lost at each stop; write for example "
                '"sqlite:///recordings/messages.db"'
            )
    elif is_mongodb(url):
        if not authority:
            yield 'value (not shown): it names no host; write for example "mongodb://host/messages"'
        elif not parts.path.strip("/"):
            yield (
                "value (not shown): it names no database; write for example "
                '"mongodb://host/messages"'
            )
