"""A backup while recorders close, compress and remove files."""

import contextlib
import sqlite3

import pytest

from appliance.engine import databases
from appliance.journal.journal import Journal
from appliance.ops import backup as backups


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    journal = Journal(folder / "journal.db", sync="os", keep_s=1e6, max_bytes=10**9)
    for tables in databases.JOURNAL_TABLES:
        journal.define(tables)
    journal.start(lambda *_: None)
    journal.close(30)
    (folder / "rec").mkdir()
    return folder


def names(folder):
    return sorted(path.name for path in (folder / "rec").iterdir())


def test_files_that_get_another_name_meanwhile_are_in_it(data, tmp_path, monkeypatch):
    """A file is compressed or gets its name between the look and the copy; none is missing."""
    rec = data / "rec"
    for name in ("a.jsonl", "b.jsonl", ".p.parquet.part"):
        (rec / name).write_text(name)
    real = backups._copy_growing

    def copy(source, target):
        if source.name == "a.jsonl":
            (rec / "b.jsonl").rename(rec / "b.jsonl.gz")
            (rec / ".p.parquet.part").rename(rec / "p-1-2.parquet")
        return real(source, target)

    monkeypatch.setattr(backups, "_copy_growing", copy)
    manifest = backups.backup(data, tmp_path / "copy")
    assert names(tmp_path / "copy") == ["a.jsonl", "b.jsonl.gz", "p-1-2.parquet"]
    assert {each.path for each in manifest.files} >= {"rec/b.jsonl.gz", "rec/p-1-2.parquet"}
    backups.restore(tmp_path / "copy", tmp_path / "again")
    assert names(tmp_path / "again") == names(tmp_path / "copy")


def test_a_recorder_s_sqlite_file_is_copied_as_of_one_moment(data, tmp_path):
    """In the middle of a transaction, with its files beside it."""
    path = data / "rec" / "messages.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE messages (n)")
        writer.execute("INSERT INTO messages VALUES (1)")
        writer.commit()
        writer.execute("INSERT INTO messages VALUES (2)")
        assert len(names(data)) == 3
        backups.backup(data, tmp_path / "copy")
    assert names(tmp_path / "copy") == ["messages.sqlite"]
    with contextlib.closing(sqlite3.connect(tmp_path / "copy/rec/messages.sqlite")) as copy:
        assert copy.execute("SELECT n FROM messages").fetchall() == [(1,)]
