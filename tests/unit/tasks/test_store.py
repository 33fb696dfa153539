"""The task database on the disk: what a write costs the thread that waits for it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from appliance.tasks.store import LOG_COMMITS, Changes, Store, TaskHistory


def written(store: Store, number: int) -> None:
    changes = Changes()
    changes.histories[f"task {number}"] = TaskHistory(last_start_ns=number)
    changes.meta["seq"] = number
    store.write(changes)


def rows_in_file(path: Path) -> int:
    """What the file itself has, without SQLite's log beside it."""
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM histories").fetchone()[0])


def test_no_start_call_waits_while_the_log_is_moved(tmp_path: Path) -> None:
    """Writes only ever append to the log. Once it is long it is moved into the file, even in the
    middle of a write and of a read, and nothing of it is lost; a short one is left alone."""
    path = tmp_path / "tasks.db"
    store = Store(path, sync="os")
    store.open(time.time_ns())
    before = path.stat().st_size
    for number in range(LOG_COMMITS - 1):
        written(store, number)
    assert not store.checkpoint()
    written(store, LOG_COMMITS - 1)
    assert path.stat().st_size == before
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO meta VALUES ('under way', 1)")
        assert store.checkpoint()
        other.execute("ROLLBACK")
    assert rows_in_file(path) == LOG_COMMITS
    assert not store.checkpoint()
    written(store, LOG_COMMITS)
    assert len(store.histories()) == LOG_COMMITS + 1
    store.close()
