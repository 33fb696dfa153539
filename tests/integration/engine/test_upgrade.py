"""Upgrades of the databases, forward with steps that the tests make, and the refusal backward."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import upgrade_steps
from upgrade_steps import KINDS, TABLES, layouts, noted, number, rows, step, with_note

from appliance import cli
from appliance.engine import databases
from appliance.engine.losses import Losses
from appliance.errors import ConfigError, UnavailableError
from appliance.ops.backup import backup, restore
from appliance.storage import copies, files
from appliance.storage.database import Database
from appliance.storage.layout import Layout, shape

OLD = Path(__file__).parents[2] / "data" / "first_release"
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:0"
[access]
users_file = "users.txt"
anonymous = true
"""
NEXT = {name: databases.LAYOUTS[name].version + 1 for name in TABLES}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "data"))


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(folder)): one.read_bytes()
        for one in sorted(folder.rglob("*"))
        if one.is_file() and not one.name.endswith("-shm")
    }


def contents(folder: Path) -> dict[str, dict[str, list[tuple]]]:
    return {name: rows(folder / name) for name in TABLES}


def upgrade_one(path: Path, layout: Layout) -> None:
    Database(path, layout, busy_s=1.0).open(time.time_ns()).close()


# --- forward ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TABLES)
def test_a_step_keeps_every_row_and_leads_to_the_tables_of_a_new_database(data, name, kind):
    """A column more, a table made anew, rows changed one by one: all of it, and the number."""
    before = contents(data)
    assert before[name][TABLES[name]]
    layout = with_note(name, step(name, kind))
    upgrade_one(data / name, layout)
    assert rows(data / name) == noted(before)[name]
    assert number(data / name) == NEXT[name]
    upgrade_one(data / "new.db", layout)
    indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name"
    with (
        contextlib.closing(sqlite3.connect(data / name)) as old,
        contextlib.closing(sqlite3.connect(data / "new.db")) as new,
    ):
        assert shape(old) == shape(new)
        assert old.execute(indexes).fetchall() == new.execute(indexes).fetchall()
        assert old.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("name", TABLES)
def test_a_step_that_does_not_fit_the_tables_is_refused_before_it_begins(data, name):
    """The tables are of another form than their number says: 78, and not a byte is changed."""
    before = bytes_in(data)
    layout = with_note(name, "ALTER TABLE nothing ADD COLUMN note TEXT;")
    with pytest.raises(ConfigError, match=r"the step to format 2 does not fit them .*nothing"):
        upgrade_one(data / name, layout)
    assert bytes_in(data) == before


@pytest.mark.parametrize("name", TABLES)
def test_a_step_that_fails_in_the_middle_leaves_what_was(data, name):
    """It fails at a row, when the column is there already: number and rows are the old ones."""
    before = rows(data / name)
    old = number(data / name)
    change = f"{step(name, 'column')} UPDATE {TABLES[name]} SET note = NULL;"
    with pytest.raises(
        ConfigError, match=rf"{name} can't be upgraded from format 1 to {NEXT[name]}: NOT NULL"
    ):
        upgrade_one(data / name, with_note(name, change))
    assert rows(data / name) == before
    assert number(data / name) == old
    upgrade_one(data / name, databases.LAYOUTS[name])


@pytest.mark.parametrize("name", TABLES)
def test_a_full_disk_leaves_what_was(data, small_disk, name):
    """It is no fault of the configuration (69), and with more room the same step is made."""
    path = small_disk / name
    shutil.copy(data / name, path)
    before = rows(path)
    big = f"{step(name, 'column')} CREATE TABLE big AS SELECT randomblob(4000000);"
    layout = with_note(name, f"{big} DROP TABLE big;")
    with pytest.raises(UnavailableError, match="the disk is full"):
        upgrade_one(path, layout)
    assert rows(path) == before
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    upgrade_one(path, layout)
    assert rows(path)[TABLES[name]] == [(*row, "x") for row in before[TABLES[name]]]


# --- all three -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "every"),
    [
        ("rebuild", 40),
        pytest.param("rebuild", 1, marks=[pytest.mark.campaign, pytest.mark.timeout(900)]),
        pytest.param("function", 3, marks=[pytest.mark.campaign, pytest.mark.timeout(900)]),
    ],
)
def test_a_kill_at_any_statement_is_made_good_by_the_next_start(
    data, tmp_path, kind, every, monkeypatch
):
    """Nothing is lost or changed twice, and the copy is of before the first of the two starts."""
    before = contents(data)
    ends, killed_at = [], 0
    while not ends or ends[-1] == upgrade_steps.KILLED:
        folder = Path(shutil.copytree(data, tmp_path / f"killed {killed_at}"))
        child = [sys.executable, upgrade_steps.__file__, folder, kind, str(killed_at)]
        ends.append(subprocess.run(child, check=False, timeout=60).returncode)
        killed_at += every
        with monkeypatch.context() as patch:
            for name, layout in layouts(kind).items():
                patch.setitem(databases.LAYOUTS, name, layout)
            databases.upgrade(folder, time.time_ns())
            assert not databases.outdated(folder)
            assert {name: number(folder / name) for name in TABLES} == NEXT
        assert contents(folder) == noted(before)
        databases.check(folder / databases.COPY)
        assert contents(folder / databases.COPY) == before
        assert not (folder / databases.PARTIAL_COPY).exists()
    assert ends[-1] == 0
    assert len(ends) > 30 // every


@pytest.fixture
def upgraded_layouts(monkeypatch):
    for name, layout in layouts("column").items():
        monkeypatch.setitem(databases.LAYOUTS, name, layout)


@pytest.mark.parametrize("refused", TABLES)
def test_if_one_database_is_refused_none_is_changed(data, refused, upgraded_layouts):
    """The others wait for a start that can use all of them."""
    with contextlib.closing(sqlite3.connect(data / refused)) as connection:
        connection.execute("PRAGMA user_version = 9")
    before = bytes_in(data)
    with pytest.raises(ConfigError, match=f"{refused} was written by a newer appliance"):
        databases.upgrade(data, time.time_ns())
    assert bytes_in(data) == before


def test_the_copy_is_a_backup_to_go_back_with(data, tmp_path, monkeypatch):
    """The version before refuses the upgraded databases, and goes on with the copy."""
    before = contents(data)
    with monkeypatch.context() as patch:
        for name, layout in layouts("rebuild").items():
            patch.setitem(databases.LAYOUTS, name, layout)
        databases.upgrade(data, time.time_ns())
    with pytest.raises(ConfigError) as refusal:
        databases.check(data)
    for number in NEXT.values():
        told = f"was written by a newer appliance: its format is {number}"
        assert str(refusal.value).count(told) == list(NEXT.values()).count(number)
    restore(data / databases.COPY, tmp_path / "back")
    databases.check(tmp_path / "back")
    assert contents(tmp_path / "back") == before
    assert (tmp_path / "back" / "journal.db.high").exists()


def test_a_backup_of_an_older_version_is_put_back_and_upgraded(data, tmp_path, monkeypatch):
    """The newer version restores it as it is, and upgrades it at its start."""
    before = contents(data)
    backup(data, tmp_path / "backup")
    for name, layout in layouts("function").items():
        monkeypatch.setitem(databases.LAYOUTS, name, layout)
    restore(tmp_path / "backup", tmp_path / "new")
    assert contents(tmp_path / "new") == before
    databases.upgrade(tmp_path / "new", time.time_ns())
    assert contents(tmp_path / "new") == noted(before)


def test_the_next_upgrade_takes_the_place_of_the_copy(data, monkeypatch):
    """One copy is kept: that of the last upgrade, and no backup carries it along."""
    for name in TABLES:
        monkeypatch.setitem(databases.LAYOUTS, name, with_note(name, step(name, "column")))
        databases.upgrade(data, time.time_ns())
        manifest = copies.Manifest.read(data / databases.COPY)
        assert manifest.upgrade_to[name] == NEXT[name]
        assert number(data / databases.COPY / name) < NEXT[name]
    made = backup(data, data.with_name("backup"))
    assert not [each.path for each in made.files if each.path.startswith(databases.COPY)]


def test_a_copy_that_was_interrupted_is_made_again(data, upgraded_layouts):
    """What a kill left of it is not taken for a copy."""
    before = contents(data)
    partial = data / databases.PARTIAL_COPY
    partial.mkdir()
    (partial / "tasks.db").write_bytes(b"half a co")
    databases.upgrade(data, time.time_ns())
    assert contents(data / databases.COPY) == before
    assert contents(data) == noted(before)
    assert not partial.exists()


@pytest.mark.parametrize("bound", ["size", "room"])
def test_without_room_the_upgrade_makes_no_copy(data, bound, upgraded_layouts, monkeypatch, caplog):
    """A big journal does not hold up the start for minutes, and a full disk does not stop it."""
    before = contents(data)
    if bound == "size":
        monkeypatch.setattr(databases, "COPY_BELOW_BYTES", 1000)
    else:
        monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    databases.upgrade(data, time.time_ns())
    assert contents(data) == noted(before)
    assert not (data / databases.COPY).exists()
    assert "are upgraded without a copy" in caplog.text


# --- backward, and what does not fit its number ----------------------------------------------


def newer(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"PRAGMA application_id = {databases.LAYOUTS[path.name].application_id};"
            "CREATE TABLE news (id INTEGER); PRAGMA user_version = 7;"
        )
    return f"its format is 7, and this version (0.1.0) knows format {NEXT[path.name] - 1}"


def without_table(path: Path) -> str:
    table = TABLES[path.name]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"DROP TABLE {table}; PRAGMA user_version = 1;")
    return f"its format is 1, but its tables are not: table {table} is missing"


def without_column(path: Path) -> str:
    table = TABLES[path.name]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        column = shape(connection)[table][-1].name
        connection.executescript(f"ALTER TABLE {table} DROP COLUMN {column};")
    return f"table {table} has no column {column}"


def other_type(path: Path) -> str:
    table = TABLES[path.name]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        column = shape(connection)[table][-1].name
        connection.executescript(
            f"ALTER TABLE {table} DROP COLUMN {column};"
            f"ALTER TABLE {table} ADD COLUMN {column} REAL NOT NULL DEFAULT 0;"
        )
    return f"table {table} has column {column} as REAL, not as"


def further_column(path: Path) -> str:
    table = TABLES[path.name]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN news TEXT")
    return f"table {table} has a further column news"


def other_blobs(path: Path) -> str:
    blobs = {
        "journal.db": "UPDATE chunk SET body = x'81a16101'",  # {"a": 1}
        "tasks.db": "UPDATE executions SET record = x'93010203'",  # [1, 2, 3]
        "recorders.db": "UPDATE recording SET seq = 'seven'",
    }
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(blobs[path.name])
    return "its content is not that of format 1"


OTHER = "x'81a16101'"  # {"a": 1} in MessagePack
FOREIGN_ROWS = [
    ("journal.db", f"UPDATE retained SET body = {OTHER}", "a retained message"),
    ("journal.db", "UPDATE retained SET body = 'text'", "a retained message"),
    ("journal.db", "INSERT INTO session VALUES ('c', NULL, 'never', 0, NULL)", "sessions"),
    ("journal.db", f"INSERT INTO subscription VALUES ('c', 'a', 0, {OTHER})", "subscriptions"),
    ("journal.db", f"INSERT INTO outgoing VALUES ('c', 1, 1, 0, {OTHER})", "outgoing"),
    ("journal.db", f"INSERT INTO queue VALUES ('c', 1, {OTHER})", "queues"),
    ("journal.db", "INSERT INTO queue VALUES ('c', 1, 'text')", "queues"),
    ("journal.db", f"INSERT INTO will VALUES ('c', {OTHER})", "wills"),
    ("tasks.db", f"UPDATE executions SET record = {OTHER}", "executions"),
    ("tasks.db", f"INSERT INTO outbox VALUES (99, {OTHER})", "outbox"),
    ("tasks.db", f"UPDATE histories SET history = {OTHER}", "histories"),
    ("tasks.db", "UPDATE sightings SET digest = hex(digest)", "sightings"),
]


@pytest.mark.parametrize(("name", "sql", "named"), FOREIGN_ROWS)
def test_a_row_that_no_version_wrote_is_refused_before_anything_is_changed(data, name, sql, named):
    """It was "this is a defect" (70) in the middle of a start, or an error hours later."""
    with contextlib.closing(sqlite3.connect(data / name)) as connection:
        connection.executescript(sql)
    before = bytes_in(data)
    with pytest.raises(
        ConfigError, match=f"{name} can't be used .*not that of format 1: .*{named}"
    ):
        databases.upgrade(data, time.time_ns())
    assert bytes_in(data) == before


ZEROS = "zeroblob(40)"
JOURNAL_ROWS = f"""
INSERT INTO retained VALUES ('other', {OTHER});
INSERT INTO retained VALUES ('text', 'text');
INSERT INTO retained VALUES ('zeros', {ZEROS});
INSERT INTO session VALUES ('c', NULL, 9, 0, NULL);
INSERT INTO session VALUES ('d', NULL, 9, 'x', NULL);
INSERT INTO subscription VALUES ('c', 'a', 0, {ZEROS});
INSERT INTO outgoing VALUES ('c', 1, 1, 0, {ZEROS});
INSERT INTO queue VALUES ('c', 1, {ZEROS});
INSERT INTO will VALUES ('c', {ZEROS});
INSERT INTO unreleased VALUES ('c', 'x', 1);
INSERT INTO settled VALUES ('c', 1);
INSERT INTO settled VALUES ('c', 'x');
"""
JOURNAL_ROWS_TOLD = (
    "The retained message on 'other'", "The retained message on 'text'",
    "The retained message on 'zeros'", "The session of client 'd'", "A subscription of client 'c'",
    "An outgoing QoS 2 exchange of client 'c'", "The queue of client 'c'", "The will of client 'c'",
    "An incoming QoS 2 exchange of client 'c'", "A note of a QoS 2 message of client 'c'",
)  # fmt: skip
SKIPPED_ROWS = [
    ("journal.db", f"UPDATE retained SET body = {ZEROS}"),
    ("tasks.db", f"UPDATE executions SET record = {OTHER} WHERE id = 2"),
    ("recorders.db", "UPDATE recording SET seq = 'seven'"),
    ("recorders.db", "UPDATE recording SET seq = 9000000000000000000"),
    ("recorders.db", f"UPDATE recording SET memory = {OTHER}"),
]


@pytest.mark.parametrize(("name", "sql"), SKIPPED_ROWS)
def test_a_row_that_is_met_later_costs_that_row(data, name, sql, tmp_path, monkeypatch, capfd):
    """The look before the start takes samples; a damaged row that is read later is left out and
    logged, and the broker starts."""
    (tmp_path / "config.toml").write_text(CONFIG, "utf-8")
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(sqlite3.connect(data / name)) as connection:
        connection.executescript(sql)
    assert cli.main(["run", "--headless", "--run-for", "100ms"]) == 0
    told = capfd.readouterr().err
    assert any(word in told for word in ("skipped", "left out")), told
    assert not list(data.glob("*.corrupt-*"))


def test_damaged_rows_of_the_journal_are_each_named(data, tmp_path, monkeypatch, capfd):
    """Each costs what it holds; their number is counted, and an operator acknowledges them."""
    (tmp_path / "config.toml").write_text(CONFIG, "utf-8")
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(sqlite3.connect(data / "journal.db")) as connection:
        connection.executescript(JOURNAL_ROWS)
    assert cli.main(["run", "--headless", "--run-for", "100ms"]) == 0
    told = capfd.readouterr().err
    for row in JOURNAL_ROWS_TOLD:
        assert f"{row} in " in told
    assert told.count("is damaged and was left out") == len(JOURNAL_ROWS_TOLD)
    losses = Losses(data)
    assert losses.health.level == "bad"
    assert len(losses.acknowledge()) == len(JOURNAL_ROWS_TOLD)


COMMANDS = {
    "run": ["run", "--headless", "--run-for", "10s"],
    "check": ["check"],
    "backup": ["backup", "copy"],
    "restore": ["restore", "archive"],
    "export": ["export", "-o", "messages.jsonl"],
}


@pytest.mark.parametrize("spoil", [newer, without_table, without_column, other_type,
                                   further_column, other_blobs])  # fmt: skip
@pytest.mark.parametrize("name", TABLES)
def test_every_command_refuses_it_in_the_same_words(
    data, name, spoil, tmp_path, monkeypatch, capsys
):
    """78 and a sentence with file, numbers and what to do; each file stays, byte for byte.

    A row of recorders.db that can't be read is left out instead (``SKIPPED_ROWS``).
    """
    if spoil is other_blobs and name == "recorders.db":
        spoil = further_column
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG, "utf-8")
    sentence = spoil(data / name)
    archive = Path(shutil.copytree(data, tmp_path / "archive"))
    copies.Manifest.of(
        copies.CopiedFile(name, len(content), copies.copy_file(archive / name, tmp_path / "x"))
        for name, content in bytes_in(archive).items()
    ).write(archive)
    before = bytes_in(data)
    for command, arguments in COMMANDS.items():
        if command == "restore":
            data.rename(tmp_path / "aside")
        code = cli.main(arguments)
        told = capsys.readouterr().err
        assert (code, command) == (78, command)
        assert f"{name} " in told
        assert sentence in told
        assert "It was left as it is" in told
        assert "backup" in told
        assert "this is lost with it: " in told
        assert "defect" not in told
        if command == "restore":
            assert not (data / name).exists()
            shutil.rmtree(data, ignore_errors=True)
            (tmp_path / "aside").rename(data)
    assert cli.main(["health"]) == 69
    assert sentence in capsys.readouterr().out
    assert {key: each for key, each in bytes_in(data).items() if key in before} == before
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "messages.jsonl").exists()


def test_check_says_what_the_next_start_upgrades(data, tmp_path, monkeypatch, capsys):
    """Before the service is restarted, the operator knows."""
    (tmp_path / "config.toml").write_text(CONFIG, "utf-8")
    monkeypatch.chdir(tmp_path)
    databases.upgrade(data, time.time_ns())
    assert cli.main(["check"]) == 0
    assert "upgrades" not in capsys.readouterr().out
    for name, layout in layouts("column").items():
        monkeypatch.setitem(databases.LAYOUTS, name, layout)
    before = bytes_in(data)
    assert cli.main(["check"]) == 0
    told = capsys.readouterr().out
    for name in TABLES:
        assert (
            f"the next start upgrades {name} from format {NEXT[name] - 1} to {NEXT[name]}" in told
        )
    assert bytes_in(data) == before
