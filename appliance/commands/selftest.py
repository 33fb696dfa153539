"""``appliance selftest``: is this installation whole? For packages and first support."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import platform
import sqlite3
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import appliance
from appliance.errors import EXIT_OK, EXIT_SOFTWARE
from appliance.users import Users

# SQLite before 3.35 lacks what the journal uses (RETURNING); Python 3.11 may be built with it.
_LEAST_SQLITE = (3, 35)


def execute(options: argparse.Namespace) -> int:  # noqa: ARG001  every command has options
    """Do every check, also after a failure; the exit code tells whether all went well."""
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("program", _program),
        ("modules", _modules),
        ("journal", _journal),
        ("passwords", _passwords),
        ("TLS", _tls),
    )
    failures = 0
    for name, check in checks:
        try:
            text = check()
        except Exception as error:  # noqa: BLE001  whatever is broken here is what is asked for
            failures += 1
            text = f"FAILED: {type(error).__name__}: {error}"
        sys.stdout.write(f"{name:<10} {text}\n")
    return EXIT_SOFTWARE if failures else EXIT_OK


def _program() -> str:
    python = f"Python {platform.python_version()}"
    return f"appliance {appliance.__version__}, {python}, {platform.platform()}"


def _modules() -> str:
    names = [
        each.name
        for each in pkgutil.walk_packages(appliance.__path__, "appliance.")
        if not each.name.endswith("__main__")
    ]
    for name in names:
        importlib.import_module(name)
    return f"{len(names)} load"


def _journal() -> str:
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise RuntimeError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 is needed")
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "journal.db")
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("CREATE TABLE message (seq INTEGER PRIMARY KEY, body BLOB)")
            row = connection.execute("INSERT INTO message (body) VALUES (x'00') RETURNING seq")
            (seq,) = row.fetchone()
            connection.commit()
        finally:
            connection.close()
    if (mode, seq) != ("wal", 1):
        raise RuntimeError(f"SQLite answered {mode!r}, {seq!r}")
    return f"SQLite {sqlite3.sqlite_version}, writes in {tempfile.gettempdir()}"


def _passwords() -> str:
    with tempfile.TemporaryDirectory() as folder:
        users = Users(Path(folder) / "users.txt")
        users.add("somebody", b"secret")
        if not users.verify("somebody", b"secret") or users.verify("somebody", b"other"):
            raise RuntimeError("a password is not told from another")
    return "argon2id"


def _tls() -> str:
    context = ssl.create_default_context()
    if not ssl.HAS_TLSv1_2:
        raise RuntimeError("no TLS 1.2")
    authorities = len(context.get_ca_certs())
    return f"{ssl.OPENSSL_VERSION}, {authorities} authorities in the system's store"
