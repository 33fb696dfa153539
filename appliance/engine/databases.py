"""The databases of a data directory together: what they hold, whether they fit, their upgrade.

Every command that opens one of them looks at all of them first (``check``), so all commands give
the same answer. A start upgrades older ones before it opens any (``upgrade``), and keeps a copy of
all of them: the cursors in one database count messages of another, so only copies of one moment go
together. Not for: opening one database (storage/database.py).
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from pathlib import Path

from appliance.bridge.store import BRIDGE_TABLES
from appliance.broker.door import RETAINED_TABLES
from appliance.broker.publication_keys import PUBLICATION_KEY_TABLES
from appliance.broker.session_store import TABLES as SESSION_TABLES
from appliance.errors import ConfigError, UnavailableError
from appliance.journal import FILE_NAME as JOURNAL
from appliance.journal.store import LAYOUT as JOURNAL_LAYOUT
from appliance.key_values import LAYOUT as KEY_VALUES_LAYOUT
from appliance.recorders.progress import LAYOUT as RECORDERS_LAYOUT
from appliance.storage import copies, files
from appliance.storage.copies import CopiedFile, Manifest
from appliance.storage.database import Database
from appliance.storage.layout import Layout
from appliance.storage.sqlite import explain
from appliance.tasks.store import LAYOUT as TASKS_LAYOUT

TASKS = "tasks.db"
RECORDERS = "recorders.db"
KEY_VALUES = "key_values.db"
JOURNAL_TABLES = (RETAINED_TABLES, SESSION_TABLES, BRIDGE_TABLES, PUBLICATION_KEY_TABLES)
"""What other rooms keep in the journal's database (``Journal.define``)."""
LAYOUTS: dict[str, Layout] = {
    JOURNAL: JOURNAL_LAYOUT.with_tables(*JOURNAL_TABLES),
    RECORDERS: RECORDERS_LAYOUT,
    TASKS: TASKS_LAYOUT,
    KEY_VALUES: KEY_VALUES_LAYOUT,
}
COPY = "before-upgrade"
PARTIAL_COPY = f"{COPY}.partial"
COPY_BELOW_BYTES = 1024**3
"""Larger databases are upgraded without a copy: it would hold up the start for minutes, and take as
much of the disk again."""

_BUSY_S = 10.0
_ROOM = 2
"""Times the databases' size that must be free for a copy: the upgrade itself needs room, too."""

_log = logging.getLogger(__name__)


def problems(data_dir: Path) -> list[str]:
    """Why a start would refuse the databases of a directory; empty if it would not.

    A database that is damaged or can't be read now is no such problem: a start sets it aside, or
    ends with another exit code.
    """
    return _look(data_dir)[1]


def check(data_dir: Path) -> None:
    """Raise ``ConfigError`` with all ``problems``, one a line, if there are any."""
    found = problems(data_dir)
    if found:
        raise ConfigError("\n".join(found))


def outdated(data_dir: Path) -> dict[str, int]:
    """The databases that the next start upgrades: their formats by their names."""
    return _outdated(_look(data_dir)[0])


def upgrade(data_dir: Path, now_ns: int) -> None:
    """Bring older databases to the present format, after a copy. Under the directory's lock.

    Each database is upgraded in one transaction; a start after a kill goes on with the others.

    Args:
        data_dir: the data directory.
        now_ns: present time in ns since 1970.

    Raises:
        ConfigError: a database is refused; then none is changed.
        NoPermissionError, UnavailableError: a database or the copy can't be written.
    """
    formats, refusals = _look(data_dir)
    if refusals:
        raise ConfigError("\n".join(refusals))
    older = _outdated(formats)
    if not older:
        return
    _keep_copy(data_dir, formats)
    for name in older:
        _database(data_dir, name).open(now_ns).close()


def _database(data_dir: Path, name: str) -> Database:
    return Database(data_dir / name, LAYOUTS[name], busy_s=_BUSY_S, sync_commits=True)


def _look(data_dir: Path) -> tuple[dict[str, int], list[str]]:
    """The formats of the databases that are there, and why some are refused."""
    formats: dict[str, int] = {}
    refusals: list[str] = []
    for name in LAYOUTS:
        try:
            version = _database(data_dir, name).check_identity()
        except ConfigError as error:
            refusals.append(str(error))
        except (OSError, sqlite3.Error, ValueError):
            pass  # ``Database.open`` says what is wrong, or sets the file aside
        else:
            if version:
                formats[name] = version
    return formats, refusals


def _outdated(formats: dict[str, int]) -> dict[str, int]:
    return {name: each for name, each in formats.items() if each < LAYOUTS[name].version}


# --- the copy --------------------------------------------------------------------------------


def _keep_copy(data_dir: Path, formats: dict[str, int]) -> None:
    target = data_dir / COPY
    upgrade_to = {name: LAYOUTS[name].version for name in formats}
    if _is_under_way(target, formats, upgrade_to):
        return
    size = sum((data_dir / name).stat().st_size for name in formats)
    try:
        free = files.free_bytes(data_dir)
        if size > COPY_BELOW_BYTES or free < size * _ROOM:
            _log.warning(
                "The databases in %s are upgraded without a copy: they have %d MB, and %d MB are"
                " free. To go back, only a backup from before helps",
                data_dir,
                size // 1_000_000,
                free // 1_000_000,
            )
            return
        _copy(data_dir, formats, upgrade_to)
    except (OSError, sqlite3.Error) as error:
        raise UnavailableError(
            f"The copy {target} can't be made before the upgrade: {explain(error)}. Nothing is"
            " changed. Correct that and start again."
        ) from error
    _log.info("%s has the databases from before the upgrade", target)


def _is_under_way(target: Path, formats: dict[str, int], upgrade_to: dict[str, int]) -> bool:
    """Whether this very upgrade began in an earlier start: its copy has what is gone since then."""
    try:
        begun = Manifest.read(target).upgrade_to
    except (OSError, ValueError, RecursionError):
        return False
    copied = _look(target)[0]
    return begun == upgrade_to and any(copied.get(name, 0) < formats[name] for name in formats)


def _copy(data_dir: Path, names: dict[str, int], upgrade_to: dict[str, int]) -> None:
    target, partial = data_dir / COPY, data_dir / PARTIAL_COPY
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(mode=0o700)
    copied = []
    for name in names:
        digest = copies.copy_database(data_dir / name, partial / name)
        copied.append(CopiedFile(name, (partial / name).stat().st_size, digest))
    mark = f"{JOURNAL}.high"
    if (data_dir / mark).exists():
        digest = copies.copy_file(data_dir / mark, partial / mark)
        copied.append(CopiedFile(mark, (partial / mark).stat().st_size, digest))
    Manifest.of(copied, upgrade_to).write(partial)
    if target.exists():
        shutil.rmtree(target)
    files.rename(partial, target)
    files.sync_directory(data_dir)
