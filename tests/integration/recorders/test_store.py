"""recorders.db: closed files and the rows of ``latest``, with their positions, whole or not at all."""

import sqlite3
import threading

import pytest

from appliance.recorders.latest_store import LatestRow, LatestStore
from appliance.recorders.part_store import Part, PartStore
from appliance.recorders.progress import Progress, ProgressStore, highest_cursor


@pytest.fixture
def store(tmp_path):
    made = ProgressStore(tmp_path / "recorders.db")
    made.open(0)
    yield made
    made.close()


def part(first, last, recorder="r"):
    return Part(
        path=f"{recorder}-{first}-{last}.parquet",
        recorder=recorder,
        series=recorder,
        first_seq=first,
        last_seq=last,
        messages=last - first + 1,
        bytes=100,
        first_ns=first,
        last_ns=last,
        closed_ns=last,
    )


def test_a_closed_file_counts_with_its_position(store):
    """Announced, it is no file that others may have; closed, it is, and its series stands there."""
    parts = PartStore(store)
    closed = []
    parts.on_closed = closed.append
    parts.announce(part(1, 5))
    assert parts.of_recorder("r") == []
    assert [one.state for one in parts.of_recorder("r", ["pending"])] == ["pending"]
    parts.close(part(1, 5), [("r", Progress("parquet", 5))])
    parts.close(part(6, 9), [("r", Progress("parquet", 9))])
    assert parts.of_recorder("r") == closed == [part(1, 5), part(6, 9)]
    assert parts.newest("r") == part(6, 9)
    assert parts.count("r") == (2, 200)
    assert store.position("r") == Progress("parquet", 9)
    assert highest_cursor(store._database.path) == 9
    parts.remove([part(1, 5).path])
    parts.rename(part(6, 9), "smaller.gz", 7)
    assert [(one.path, one.bytes) for one in parts.of_recorder("r")] == [("smaller.gz", 7)]


def test_a_damaged_row_of_a_closed_file_costs_that_row(store):
    """SQLite keeps a value of any type in any column."""
    parts = PartStore(store)
    parts.close(part(1, 5), [])
    parts.close(part(6, 9), [])
    with store.changing(durable=False) as connection:
        connection.execute("UPDATE part SET messages = 'many' WHERE first_seq = 1")
    assert parts.of_recorder("r") == [part(6, 9)]


def test_the_last_values_and_their_position_are_stored_together(store):
    """What fails leaves both from before."""
    latest = LatestStore(store, "r")
    latest.save([LatestRow("a", 1, b"1"), LatestRow("b", 2, b"2")], Progress("json", 2))
    latest.save([LatestRow("a", 3, b"3")], Progress("json", 3))
    with pytest.raises(sqlite3.Error):
        latest.save([LatestRow("c", 4, None)], Progress("json", 4))  # type: ignore[arg-type]
    assert list(latest.rows()) == [LatestRow("a", 3, b"3"), LatestRow("b", 2, b"2")]
    assert latest.get("a") == LatestRow("a", 3, b"3")
    assert latest.get("c") is None
    assert store.position("r") == Progress("json", 3)
    many = [LatestRow(f"{number:05}", 5, b"") for number in range(2500)]
    latest.save(many, Progress("json", 5))
    assert [row.key for row in latest.rows()] == sorted([*(row.key for row in many), "a", "b"])
    assert latest.count() == 2502
    latest.clear(Progress("json", 6))
    assert latest.count() == 0


def test_several_threads_use_it_at_once(store):
    """Each database's thread stores its own position; none meets a transaction of another's."""
    errors = []

    def save(key):
        try:
            for number in range(50):
                store.save([(key, Progress("x", number))], durable=False)
                assert store.position(key).seq == number
        except Exception as error:  # the assertion below shows it
            errors.append(error)

    threads = [threading.Thread(target=save, args=(f"k{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {found.seq for found in store.load().values()} == {49}


def test_positions_of_closed_files_can_be_forgotten(store):
    """A file of each day would leave a row of each day."""
    store.save([("a", Progress("x", 1)), ("b", Progress("x", 1))], durable=True)
    store.remove(["a"])
    assert list(store.load()) == ["b"]


def test_a_database_of_the_format_before_says_its_highest_number(tmp_path):
    """It is asked before it is upgraded."""
    path = tmp_path / "recorders.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recording (key, seq INTEGER)")
    connection.execute("INSERT INTO recording VALUES ('a', 7)")
    connection.commit()
    connection.close()
    assert highest_cursor(path) == 7
