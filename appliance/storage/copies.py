"""A folder of copied files with a list of them, and the copying itself.

``appliance backup`` writes such a folder, and so does the start before it upgrades databases.
Not for: which files are copied and in which order (ops/backup.py, engine/databases.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from appliance import __version__
from appliance.storage import files

MANIFEST = "backup.json"
_COPY_BYTES = 1024 * 1024


class CopiedFile(msgspec.Struct, frozen=True):
    """One file of a folder of copies."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The list of the copied files. New fields have a default: older folders stay readable."""

    version: str
    """Of the appliance that made the copy."""
    taken: str
    """UTC, ISO 8601."""
    files: tuple[CopiedFile, ...]
    upgrade_to: dict[str, int] = {}
    """Of a copy from before an upgrade: the format that each database was to get."""

    @classmethod
    def of(cls, copied: Iterable[CopiedFile], upgrade_to: dict[str, int] | None = None) -> Self:
        """The list of files that were copied now."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return cls(__version__, moment, tuple(copied), upgrade_to or {})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The list in a folder.

        Raises:
            OSError: there is none, so the folder is no complete copy.
            ValueError, RecursionError: the file is not such a list.
        """
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=cls)

    def write(self, folder: Path) -> None:
        """Write the list, which makes the copy complete. Raises ``OSError``."""
        files.replace_file(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(self)))


def copy_database(source: Path, target: Path) -> str:
    """Copy a database that may be in use; returns the SHA-256 of the copy, in hex.

    One read transaction for all pages: writers continue, and the copy is of one moment.

    Raises:
        OSError, sqlite3.Error: it can't be read, or the copy can't be written.
    """
    with (
        contextlib.closing(sqlite3.connect(source, timeout=10)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new, pages=-1)
        # The copy is a single file, without a log beside it.
        new.execute("PRAGMA journal_mode = DELETE")
    with target.open("r+b") as file:
        files.sync_file(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def copy_file(source: Path, target: Path) -> str:
    """Copy and sync; returns the SHA-256 of the copied bytes, in hex. Raises ``OSError``.

    The copy is a new file that its owner alone may read.
    """
    digest = hashlib.sha256()
    target.unlink(missing_ok=True)  # a link would be followed
    with source.open("rb") as old, open(target, "xb", opener=_private) as new:
        while chunk := old.read(_COPY_BYTES):
            digest.update(chunk)
            new.write(chunk)
        new.flush()
        files.sync_file(new.fileno())
    return digest.hexdigest()
