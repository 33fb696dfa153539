"""Backup of the data directory while the appliance runs, and restore.

The order of copying makes the copy consistent: first the databases of recorders and tasks, then the
recordings, last the journal. So the journal's copy has every message that the other files refer to,
and an appliance that starts with the copy continues exactly there. Later messages are not in it.
A copy gets its name when it is complete and on the disk.
Not for: the contents of the files, the configuration, secrets and users.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from appliance.engine import databases
from appliance.errors import NoPermissionError, UnavailableError, UsageError
from appliance.journal import FILE_NAME as JOURNAL
from appliance.journal.index import FILE_NAME as INDEX
from appliance.ops import control_file
from appliance.storage import copies, files
from appliance.storage.copies import CopiedFile, Manifest

_DATABASES = ".db"
_DATABASE_FILES = ("", "-wal", "-shm", "-journal")
"""Suffixes of a database and of SQLite's files beside it. SQLite's backup reads all of them."""
_NOT_COPIED = frozenset(
    {
        "appliance.lock",
        *(f"{INDEX}{suffix}" for suffix in _DATABASE_FILES),  # it is made anew
        "health.json",
        "logs",
        "script-logs",  # copies of what the Qlik server has
        databases.COPY,
        databases.PARTIAL_COPY,
    }
)
_SQLITE = b"SQLite format 3\0"
_ROUNDS = 5
"""How often it is looked for files that came during the copy."""
_ATTEMPTS = 20
"""How often a file that changes during its copy is copied again. The last copy is kept. The
recorder repairs a recording that was copied in the middle of a write."""


def backup(data_dir: Path, target: Path) -> Manifest:
    """Copy ``data_dir`` to the new folder ``target``.

    Raises:
        UsageError: ``target`` exists, or is in the data directory.
        UnavailableError: there is nothing to copy, or the disk can't be written.
        NoPermissionError: a file may not be read or written.
        ConfigError: a database is not one that this version can use.
    """
    if not (data_dir / JOURNAL).exists():
        raise UnavailableError(f"{data_dir} has no journal; there is nothing to back up.")
    if target.exists():
        raise UsageError(f"{target} exists and is not changed; name a new folder.")
    place = Path(files.real_path(target))
    if Path(files.real_path(data_dir)) in (place, *place.parents):
        raise UsageError(f"{target} is in the data directory itself; name a folder elsewhere.")
    databases.check(data_dir)
    partial = target.with_name(f"{target.name}.partial")
    with _explained(f"the backup {target}"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        try:
            manifest = Manifest.of(_copy_all(data_dir, partial))
            manifest.write(partial)
            files.rename(partial, target)
            files.sync_directory(target.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return manifest


def restore(source: Path, data_dir: Path) -> Manifest:
    """Copy a backup into a data directory without a journal.

    Every file is compared with the backup's list. The appliance must not run.

    Raises:
        UsageError: ``source`` is not a complete backup, or ``data_dir`` has a journal.
        UnavailableError: an appliance uses ``data_dir``, or the disk can't be written.
        NoPermissionError: a file may not be read or written.
        ConfigError: a database of the backup is not one that this version can use.
    """
    manifest = _manifest(source)
    databases.check(source)
    with files.DirectoryLock(data_dir), _explained(f"the data directory {data_dir}"):
        if (data_dir / JOURNAL).exists():
            raise UsageError(
                f"{data_dir} has a journal, which is not overwritten. Move the folder away, or set"
                " data_dir in [service] to another one."
            )
        for each in sorted(manifest.files, key=lambda each: each.path == JOURNAL):
            target = data_dir / each.path
            _check_link(source, source / each.path)
            _check_link(data_dir, target)
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = target.with_name(f"{target.name}.new")
            if copies.copy_file(source / each.path, new) != each.sha256:
                new.unlink()
                raise UsageError(
                    f"{source / each.path} does not match the backup's list; it was damaged or"
                    " changed. Take another backup."
                )
            files.rename(new, target)
            files.sync_directory(target.parent)
    return manifest


def _manifest(source: Path) -> Manifest:
    try:
        manifest = Manifest.read(source)
    except (OSError, ValueError, RecursionError):
        raise UsageError(
            f"{source} is not a complete backup: it has no {copies.MANIFEST}. Name a folder that "
            '"appliance backup" has written.'
        ) from None
    for each in manifest.files:
        parts = Path(each.path).parts
        if Path(each.path).is_absolute() or ".." in parts:
            raise UsageError(f"{source}: its list names {each.path!r}, which is outside of it.")
    return manifest


def _check_link(folder: Path, path: Path) -> None:
    """Raises ``UsageError`` if ``path`` or a folder on its way from ``folder`` is a link."""
    for each in (path, *path.parents):
        if each == folder:
            return
        if each.is_symlink():
            raise UsageError(f"{each} is a link, which is not followed; put the file in its place.")


def _copy_all(data_dir: Path, to: Path) -> list[CopiedFile]:
    """Copy other databases, other files, and the journal at the end."""
    names = sorted(each.name for each in data_dir.glob(f"*{_DATABASES}"))
    copied = [_copy(data_dir, Path(name), to) for name in names if name not in (JOURNAL, INDEX)]
    seen = {Path(f"{name}{beside}") for name in names for beside in _DATABASE_FILES}
    for _round in range(_ROUNDS):
        # A recording that was closed, compressed or renamed meanwhile has another name by now.
        found = [path for path in _other_files(data_dir) if path not in seen]
        if not found:
            break
        for path in found:
            seen.add(path)
            try:
                copied.append(_copy(data_dir, path, to))
            except FileNotFoundError:
                (to / path).unlink(missing_ok=True)
    copied.append(_copy(data_dir, Path(JOURNAL), to))
    return copied


def _other_files(data_dir: Path) -> Iterator[Path]:
    """The files that are no databases of the appliance, as relative paths."""
    for folder, below, names in os.walk(data_dir):
        inside = Path(folder).relative_to(data_dir)
        below[:] = sorted(each for each in below if str(inside / each) not in _NOT_COPIED)
        for name in sorted(names):
            path = inside / name
            if str(path) in _NOT_COPIED or name.endswith(".new"):
                continue
            if str(path).startswith(control_file.PREFIXES):
                continue
            # A part that is not complete is made again from the journal.
            if name.startswith(".") and name.endswith(".part"):
                continue
            database = _database_beside(name)
            if database and _is_database(data_dir / inside / database):
                continue  # SQLite's copy of a recorder's database has what is in it
            yield path


def _database_beside(name: str) -> str:
    """The database that SQLite's file of this name belongs to; an empty text if it is none."""
    for beside in _DATABASE_FILES[1:]:
        if name.endswith(beside):
            return name.removesuffix(beside)
    return ""


def _is_database(path: Path) -> bool:
    """Whether a file is a database of SQLite: https://www.sqlite.org/fileformat.html."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _copy(data_dir: Path, path: Path, to: Path) -> CopiedFile:
    target = to / path
    target.parent.mkdir(parents=True, exist_ok=True)
    source = data_dir / path
    is_own = path.parent == Path() and path.suffix == _DATABASES
    if is_own or _is_database(source):
        digest = copies.copy_database(source, target)
    else:
        digest = _copy_growing(source, target)
    files.sync_directory(target.parent)
    return CopiedFile(path.as_posix(), target.stat().st_size, digest)


def _copy_growing(source: Path, target: Path) -> str:
    for _attempt in range(_ATTEMPTS):
        before = source.stat()
        digest = copies.copy_file(source, target)
        after = source.stat()
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            break
    return digest


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NoPermissionError(
            f"{what}: this user may not read or write {error.filename}. Do it as the appliance's"
            " own user or as an administrator."
        ) from None
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnavailableError(f"{what} can't be made: {reason}. Nothing is left of it.") from None
