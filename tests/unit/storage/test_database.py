"""One opener for all databases: whose a file is, what happens to damage, kills while it opens."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.engine import databases
from appliance.errors import ConfigError, NoPermissionError, UnavailableError
from appliance.storage.database import Database
from appliance.storage.layout import Damage, Layout, Migration, Tables
from appliance.storage.sqlite import connect_read_only

FIRST = Layout(
    title="The list",
    application_id=0x51544553,
    loss="the list",
    parts=(
        Tables("CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, name TEXT NOT NULL);"),
    ),
)
SECOND = Layout(
    title="The list",
    application_id=0x51544553,
    loss="the list",
    parts=(
        Tables(
            "CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, title TEXT NOT NULL, size"
            " INTEGER NOT NULL DEFAULT 0); CREATE INDEX IF NOT EXISTS item_title ON item (title);",
            migrations=(
                Migration(
                    2,
                    "ALTER TABLE item RENAME COLUMN name TO title;\n"
                    "ALTER TABLE item ADD COLUMN size INTEGER NOT NULL DEFAULT 0;\n"
                    "UPDATE item SET size = length(title) WHERE title <> ';';",
                ),
            ),
        ),
    ),
)
OURS = ["journal", "recorders", "tasks"]
LAYOUTS = {
    "journal": databases.LAYOUTS["journal.db"],
    "recorders": databases.LAYOUTS["recorders.db"],
    "tasks": databases.LAYOUTS["tasks.db"],
    "first": FIRST,
    "second": SECOND,
}


def database(path: Path, name: str) -> Database:
    return Database(path, LAYOUTS[name], busy_s=1.0)


def opened(path: Path, name: str = "first") -> sqlite3.Connection:
    return database(path, name).open(time.time_ns())


def bytes_in(folder: Path) -> dict[str, bytes]:
    """All files but SQLite's index of the log, which has nothing of its own."""
    return {
        one.name: one.read_bytes()
        for one in folder.iterdir()
        if one.is_file() and not one.name.endswith("-shm")
    }


def identity(path: Path) -> tuple[int, int]:
    with contextlib.closing(connect_read_only(path)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def leave_log(path: Path, script: str) -> None:
    """Run the script in a process that is killed: what it wrote stands in the log alone."""
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA wal_autocheckpoint = 0')\n"
        "connection.executescript(sys.argv[2])\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, path, script], check=True)
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


# --- whose it is -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("in_log", [False, True], ids=["in the file", "in the log"])
def test_a_newer_database_is_refused_and_stays_as_it_is(tmp_path, name, in_log):
    """The version is read before anything is written, wherever SQLite keeps it now."""
    path = tmp_path / "some.db"
    opened(path, name).close()
    newer = "CREATE TABLE news (id INTEGER); PRAGMA user_version = 99;"
    if in_log:
        leave_log(path, newer)
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(newer)
    before = bytes_in(tmp_path)
    with pytest.raises(
        ConfigError, match=r"some\.db was written by a newer appliance: its format is 99"
    ):
        opened(path, name)
    assert bytes_in(tmp_path) == before


def test_a_database_of_another_program_stays_as_it_is(tmp_path):
    """Another program's tables, with or without an application id of its own."""
    path = tmp_path / "some.db"
    for script in (
        "CREATE TABLE bookmarks (url TEXT);",
        "DROP TABLE bookmarks; PRAGMA application_id = 252006674;",
    ):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
        before = bytes_in(tmp_path)
        with pytest.raises(ConfigError, match="another program"):
            opened(path)
        assert bytes_in(tmp_path) == before


@pytest.mark.parametrize("name", OURS)
def test_a_folder_in_the_place_of_a_database_is_named(tmp_path, name):
    """The user learns that it is a folder; a disk error would send them the wrong way."""
    (tmp_path / "some.db").mkdir()
    with pytest.raises(ConfigError, match=r"some\.db is a folder, and .+ belongs there\. Move it"):
        opened(tmp_path / "some.db", name)


def test_a_layout_that_has_no_number_of_its_own_is_refused(tmp_path):
    """The tables of a development version are told apart, not met as an error of SQL later."""
    path = tmp_path / "some.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, price INTEGER); PRAGMA user_version = 1;"
        )
    before = bytes_in(tmp_path)
    with pytest.raises(ConfigError, match=r"its tables are not: table item has no column name"):
        opened(path)
    assert bytes_in(tmp_path) == before


@pytest.mark.parametrize("name", OURS)
def test_tables_without_an_application_id_are_taken_over(tmp_path, name):
    """Earlier releases wrote the id last, or never: a kill in between left such a file."""
    path = tmp_path / "some.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA journal_mode = WAL; {LAYOUTS[name].schema}")
    opened(path, name).close()
    assert identity(path) == (LAYOUTS[name].application_id, LAYOUTS[name].version)


def test_tables_that_came_without_a_number_are_added(tmp_path):
    """A journal from before delayed wills and noted queues says version 1, and lacks their tables."""
    path = tmp_path / "some.db"
    with contextlib.closing(opened(path, "journal")) as connection:
        connection.execute("INSERT INTO session VALUES ('plc-1', NULL, 100, 7, NULL)")
        connection.executescript("DROP TABLE queue; DROP TABLE will; PRAGMA user_version = 1;")
    with contextlib.closing(opened(path, "journal")) as connection:
        assert connection.execute("SELECT settled_seq FROM session").fetchall() == [(7,)]
        assert connection.execute("SELECT count(*) FROM queue, will").fetchall() == [(0,)]
        connection.execute("DROP TABLE settled")
    with pytest.raises(ConfigError, match="table settled is missing"):
        opened(path, "journal")


def test_reading_only_leaves_the_log_in_place(tmp_path):
    """What the log has is read, and neither it nor the database is changed."""
    path = tmp_path / "some.db"
    opened(path).close()
    leave_log(path, "INSERT INTO item VALUES (1, 'one')")
    before = bytes_in(tmp_path)
    with contextlib.closing(connect_read_only(path)) as connection:
        assert connection.execute("SELECT name FROM item").fetchall() == [("one",)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM item")
    assert bytes_in(tmp_path) == before


# --- kills -----------------------------------------------------------------------------------


@pytest.fixture
def kills(tmp_path, monkeypatch) -> Callable[[Path, str], Iterator[sqlite3.Connection]]:
    """What a kill before each statement of an opening leaves, opened once more.

    The files as they are at that moment are what a killed process leaves: SQLite keeps nothing
    else. They are copied while the opening goes on.
    """

    def reopen_each(path: Path, name: str) -> Iterator[sqlite3.Connection]:
        left: list[Path] = []

        def copy(statement: str) -> None:
            folder = tmp_path / f"killed {len(left)}"
            folder.mkdir()
            left.append(folder)
            (folder / "statement.txt").write_text(statement)
            for suffix in ("", "-wal", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(f"{path}{suffix}", folder)

        def connect_and_copy(target, *arguments, **options):
            connection = connect(target, *arguments, **options)
            if target != ":memory:":
                connection.set_trace_callback(copy)
            return connection

        connect = sqlite3.connect
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", connect_and_copy)
            opened(path, name).close()
        assert len(left) > 10
        for folder in left:
            again = folder / path.name
            with contextlib.closing(opened(again, name)) as connection:
                (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
                assert verdict == "ok"
                assert identity(again) == (LAYOUTS[name].application_id, LAYOUTS[name].version)
                yield connection
            assert not list(folder.glob("*.corrupt-*"))

    return reopen_each


@pytest.mark.parametrize("name", OURS)
def test_a_first_start_that_is_killed_leaves_a_database_for_the_next(tmp_path, name, kills):
    """At whichever statement it is killed, the next start opens the file without a complaint."""
    wanted = set()
    for connection in kills(tmp_path / "some.db", name):
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        wanted = wanted or tables
        assert tables == wanted


def test_an_upgrade_that_is_killed_is_made_whole_by_the_next_start(tmp_path, kills):
    """A migration is done once or not at all: no row is lost, doubled or half changed."""
    path = tmp_path / "some.db"
    with contextlib.closing(opened(path, "first")) as connection:
        connection.execute("INSERT INTO item VALUES (1, 'pear'), (2, ';')")
    for connection in kills(path, "second"):
        assert connection.execute("SELECT * FROM item").fetchall() == [(1, "pear", 4), (2, ";", 0)]
        assert connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'item_title'"
        ).fetchone()


def test_a_migrated_database_is_refused_by_the_version_before(tmp_path):
    """The number goes up with the schema."""
    path = tmp_path / "some.db"
    opened(path, "first").close()
    opened(path, "second").close()
    with pytest.raises(ConfigError, match="newer appliance"):
        opened(path, "first")
    opened(path, "second").close()


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("damage", ["header", "middle", "text"])
def test_a_damaged_database_is_set_aside_with_its_log(tmp_path, name, damage, caplog):
    """It is moved under a name with the time, and the log says where to and what is lost."""
    path = tmp_path / "some.db"
    opened(path, name).close()
    if damage != "header":  # which a log would heal: it has the first page too
        leave_log(path, f"PRAGMA user_version = {LAYOUTS[name].version}")
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:16] = b"garbage garbage!"
    elif damage == "middle":
        content[4096:] = b"\xaa" * (len(content) - 4096)
    else:
        content = bytearray(b"this is no database, but it is long enough " * 50)
    path.write_bytes(content)
    again = database(path, name)
    again.open(1_700_000_000_000_000_000).close()
    assert again.is_new
    assert again.set_aside == tmp_path / "some.db.corrupt-20231114T221320Z"
    assert again.set_aside.read_bytes() == content
    if damage != "header":
        assert (tmp_path / "some.db.corrupt-20231114T221320Z-wal").stat().st_size > 0
    assert str(again.set_aside) in caplog.text
    assert f"Lost with it: {LAYOUTS[name].loss}" in caplog.text
    assert identity(path) == (LAYOUTS[name].application_id, LAYOUTS[name].version)


def test_content_that_can_not_be_used_is_damage(tmp_path):
    """The owner of the tables judges what SQLite can't."""

    def verify(connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT 1 FROM item WHERE name = 'bad'").fetchone():
            raise Damage("a bad item")

    judged = FIRST.with_tables(Tables("", verify=verify))
    path = tmp_path / "some.db"
    with contextlib.closing(opened(path)) as connection:
        connection.execute("INSERT INTO item VALUES (1, 'bad')")
    found = Database(path, judged, busy_s=1.0)
    found.open(time.time_ns()).close()
    assert found.set_aside is not None
    again = Database(path, judged, busy_s=1.0)
    again.open(time.time_ns()).close()
    assert (again.set_aside, again.is_new) == (None, False)


def test_a_log_without_its_database_is_kept(tmp_path, caplog):
    """SQLite would delete it, with what was committed last."""
    path = tmp_path / "some.db"
    opened(path).close()
    leave_log(path, "INSERT INTO item VALUES (1, 'one')")
    log = (tmp_path / "some.db-wal").read_bytes()
    path.unlink()
    opened(path).close()
    (kept,) = tmp_path.glob("some.db-wal.orphaned-*")
    assert kept.read_bytes() == log
    assert str(kept) in caplog.text


# --- what stands in the way ------------------------------------------------------------------


def test_a_locked_database_is_unavailable(tmp_path):
    """Another program holds it: that may pass, so it is no fault of the configuration."""
    path = tmp_path / "some.db"
    opened(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = Database(path, LAYOUTS["first"], busy_s=0.05)
        with pytest.raises(UnavailableError, match="another program holds"):
            found.open(time.time_ns())
    opened(path).close()


@pytest.mark.not_in_wine("root may write everywhere")
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_is_a_matter_of_rights(tmp_path):
    """The exit code says that a restart does not help."""
    path = tmp_path / "some.db"
    opened(path).close()
    path.chmod(0o400)
    with pytest.raises(NoPermissionError, match=r"some\.db can't be opened"):
        opened(path)
