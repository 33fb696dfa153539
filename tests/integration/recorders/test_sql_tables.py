"""Recorders into SQL tables: every message once, every value kept, whatever the table is.

Each test runs with SQLite, and in a campaign with PostgreSQL and MariaDB.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sa = pytest.importorskip("sqlalchemy")

from database_rig import OWN_KEY, QUICK, DatabaseRig, messages
from database_servers import MARIADBD, POSTGRES, MariaDBServer, PostgresServer, Server, running

from appliance.counters import Counter
from appliance.errors import ConfigError, UnavailableError
from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.databases import try_database
from appliance.recorders.database_waits import TimeLimits
from appliance.recorders.latest_store import LatestStore
from appliance.recorders.progress import Progress
from appliance.recorders import sql_connection
from appliance.recorders.sql_dialects import Dialect
from appliance.recorders.set_aside_rows import SetAsideRows
from appliance.recorders.sql_state import SqlState
from appliance.recorders.sql_table import TableLayout
from appliance.recorders.target import LOST
from appliance.secret import Secret

campaign = pytest.mark.campaign


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed")
    with running(PostgresServer) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Server]:
    if MARIADBD is None:
        pytest.skip("mariadb-server is not installed")
    with running(MariaDBServer) as server:
        yield server


class Database:
    """A fresh database, read by another connection than the recorder's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.kind = url.partition("+")[0].partition(":")[0]
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)

    def run(self, *statements: str) -> None:
        with self._engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))

    def rows(self, statement: str = "SELECT * FROM messages ORDER BY seq, item") -> list[dict]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(statement)).mappings()]

    def types(self) -> dict[str, str]:
        with self._engine.connect() as connection:
            found = sa.inspect(connection).get_columns("messages")
        return {column["name"]: str(column["type"]).split(" ")[0] for column in found}

    def quote(self, name: str) -> str:
        return self._engine.dialect.identifier_preparer.quote_identifier(name)


_number = 0


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=campaign),
        pytest.param("mariadb", marks=campaign),
        pytest.param("generic", marks=campaign),
    ]
)
def database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Database:
    global _number  # noqa: PLW0603
    if request.param == "sqlite":
        return Database(f"sqlite:///{(tmp_path / 'messages.db').as_posix()}")
    is_generic = request.param == "generic"  # what databases get that have no dialect of their own
    server: Server = request.getfixturevalue("postgres" if is_generic else request.param)
    _number += 1
    name = f"test_{_number}"
    server.sql(f"CREATE DATABASE {name}")
    found = Database(server.url(name))
    if is_generic:
        monkeypatch.setattr(sql_connection, "dialect_of", lambda _: Dialect())
        found.kind = "generic"
    return found


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Iterator[Callable[..., DatabaseRig]]:
    made: list[DatabaseRig] = []

    def make(folder: str = "data", **keys: object) -> DatabaseRig:
        made.append(DatabaseRig(tmp_path / folder, database.url, **keys))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _time(value: object) -> datetime.datetime:
    return datetime.datetime.fromisoformat(value) if isinstance(value, str) else value


def test_a_message_is_a_row_of_typed_columns(database: Database, rig):
    appliance = rig(metadata=True, topic="plant/{line}/+")
    target = appliance.target()
    appliance.append(
        target,
        messages(
            1,
            1,
            {"t": 20.5, "n": 2**53 + 1, "ok": True, "unit": "°C 😀 \\ \"'", "deep": [1]},
        )
        + messages(2, 2, {"t": 21.25, "late": "%s {} :x"}),
    )
    first, second = database.rows()
    assert (first["installation"], first["seq"], first["item"]) == (OWN_KEY, 1, 0)
    assert _time(first["time"]) == datetime.datetime(2025, 11, 29, 20, 10, 0, 123457)
    assert (first["topic"], first["client"], first["qos"]) == ("plant/1/press", "press", 1)
    assert not first["retain"]
    assert (first["line"], first["t"], first["n"]) == ("1", 20.5, 2**53 + 1)
    assert first["ok"] in (True, 1)
    assert first["unit"] == "°C 😀 \\ \"'"
    assert first["deep"] == "[1]"
    assert first["payload"] is None
    assert (second["t"], second["n"], second["late"]) == (21.25, None, "%s {} :x")
    assert target.figures().recorded == 2
    indexes = sa.inspect(database._engine).get_indexes("messages")
    assert ["seq"] in [index["column_names"] for index in indexes]


def test_values_come_back_as_they_are(database: Database, rig):
    texts = [
        "",
        "NULL",
        "null",
        "{}",
        '"',
        "\\",
        "\\\\N",
        "a,b",
        "\n\r\t",
        "%s %(a)s",
        ":a",
        "é😀",
        " x ",
        "'; --",
    ]
    numbers = [0.1, -0.0, 1e308, 5e-324, -2.5, 1 / 3]
    integers = [2**63 - 1, -(2**63), 0, 1]
    appliance = rig()
    values = [
        {"text": text, "number": numbers[n % 6], "integer": integers[n % 4], "flag": n % 2 == 0}
        for n, text in enumerate(texts)
    ]
    appliance.append(
        appliance.target(), [messages(n, n, value)[0] for n, value in enumerate(values, 1)]
    )
    found = database.rows()
    assert [row["text"] for row in found] == texts
    assert [row["number"] for row in found] == [value["number"] for value in values]
    assert [row["integer"] for row in found] == [value["integer"] for value in values]
    assert [bool(row["flag"]) for row in found] == [value["flag"] for value in values]


def test_times_keep_their_microseconds(database: Database, rig):
    """Also far from now, and before 1970."""
    times = [
        "1969-12-31T23:59:59.999999",
        "2026-11-29T12:00:00.000001",
        "9999-12-31T23:59:59.999999",
    ]
    appliance = rig(types={"at": "time"})
    appliance.append(
        appliance.target(), [messages(n, n, {"at": at})[0] for n, at in enumerate(times, 1)]
    )
    assert [_time(row["at"]).isoformat() for row in database.rows()] == times
    assert database.types()["at"].startswith(("DATETIME", "TIMESTAMP"))


def test_every_payload_is_kept(database: Database, rig):
    """What is no object, or does not fit, is whole in the column ``payload``."""
    appliance = rig()
    target = appliance.target()
    payloads = [
        b'{"a": 1}', b"plain text", b"\xff\x00binary", b"nul \x00 within", b'{"a": "\\u0000"}',
        b'{"a": NaN}', b"1e400", b'{"a": 1e400}', b'{"a": 1, "a": 2}', b"[" * 150 + b"]" * 150, b"",
        b"{'a': 5}", b'"\\ud800"', b'{"' + b"k" * 500 + b'": 1}', b'{"%": 1, "a b\\"`]": 2}',
        '{"😀": 1, "Temp": 1, "temp": 2}'.encode(), b'{"installation": "x", "seq": 5, "item": 6}',
    ]  # fmt: skip
    appliance.append(target, [messages(n, n, payload)[0] for n, payload in enumerate(payloads, 1)])
    rows = database.rows()
    assert [row["seq"] for row in rows] == list(range(1, len(payloads) + 1))
    assert [row["payload"] for row in rows[1:4]] == [
        "plain text",
        '{"$base64": "/wBiaW5hcnk="}',
        '{"$text": "nul \\u0000 within"}',
    ]
    assert rows[8]["payload"] == '{"a": 1, "a": 2}'
    assert rows[14]["%"] == 1
    assert rows[14]['a b"`]'] == 2
    assert (rows[15]["Temp"], rows[15]["temp_"]) == (1, 2)
    assert (rows[16]["installation_"], rows[16]["seq_"], rows[16]["item_"]) == ("x", 5, 6)
    assert not appliance.counts


def test_a_column_becomes_wider_and_loses_nothing(database: Database, rig):
    appliance = rig()
    target = appliance.target()
    appliance.append(target, messages(1, 1, {"a": 1, "b": 2, "c": True, "d": 2**60}))
    appliance.append(target, messages(2, 2, {"a": 1.5, "b": "x", "c": "y", "d": 0.5}))
    appliance.append(target, messages(3, 3, {"a": 2, "b": 3, "c": False, "d": 1}))
    rows = database.rows()
    if database.kind != "generic":  # there, a column stays as it is
        assert [row["a"] for row in rows] == [1, 1.5, 2]
    assert rows[0]["d"] in (2**60, str(2**60))
    kept = [json.loads(row["payload"]) if row["payload"] else {} for row in rows]
    assert str(rows[0]["b"]) == "2"
    assert rows[1]["b"] == "x" or kept[1]["b"] == "x"
    assert rows[1]["c"] == "y" or kept[1]["c"] == "y"
    assert rows[0]["c"] in (True, 1, "true")
    assert float(rows[1]["d"] or kept[1]["d"]) == 0.5
    if database.kind == "postgresql":
        assert [row["b"] for row in rows] == ["2", "x", "3"]
        assert [row["c"] for row in rows] == ["true", "y", "false"]


def test_a_start_goes_on_where_the_table_ends(database: Database, rig):
    """The commit is done and the position was not stored: a crash, or an answer that was lost."""
    appliance = rig()
    target = appliance.target()
    appliance.append(target, messages(1, 10))
    stored = appliance.stored
    appliance.append(target, messages(11, 20))
    target.finish()
    again = appliance.target(stored)
    again.tick(0)
    assert again.cursor == 20
    assert again.figures().recorded == 20
    appliance.append(again, messages(15, 30))
    assert [row["seq"] for row in database.rows()] == list(range(1, 31))
    assert again.figures().recorded == 30
    assert not again.note


def test_a_lost_position_is_read_back(database: Database, rig):
    appliance = rig()
    appliance.append(appliance.target(), messages(1, 10))
    again = appliance.target(Progress("", 0))
    appliance.append(again, messages(1, 12))
    assert [row["seq"] for row in database.rows()] == list(range(1, 13))


def test_each_element_of_a_list_is_a_row(database: Database, rig):
    appliance = rig(flatten=True)
    target = appliance.target()
    appliance.append(target, messages(1, 2, [{"a": 1}, {"a": 2}, 7]))
    stored = Progress("sql", 1)
    assert target.cursor == 2
    again = appliance.target(stored)
    appliance.append(again, messages(2, 4, [{"a": 1}, {"a": 2}, 7]))
    three = [(0, 1, None), (1, 2, None), (2, None, "7")]
    assert [(row["seq"], row["item"], row["a"], row["payload"]) for row in database.rows()] == [
        (seq, *each) for seq in (1, 2, 3, 4) for each in three
    ]


def test_a_copy_of_the_data_directory_loses_nothing(database: Database, rig):
    """Two appliances with one key: the second one notices rows that it has not written."""
    one, other = rig("one"), rig("other")
    first, second = one.target(), other.target()
    one.append(first, messages(1, 10))
    other.append(second, messages(1, 5))
    other.append(second, messages(6, 20))
    one.append(first, messages(11, 15))
    found = {(row["installation"], row["seq"]) for row in database.rows()}
    assert found == {(OWN_KEY, n) for n in range(1, 16)} | {
        (f"{OWN_KEY}.1", n) for n in range(1, 21)
    }
    assert "copy of the data directory" in second.note
    again = other.target()
    other.append(again, messages(21, 22))
    assert len(database.rows()) == 37


def test_a_row_that_the_table_refuses_is_set_aside(database: Database, rig, caplog):
    appliance = rig()
    target = appliance.target()
    appliance.append(target, messages(1, 1))
    database.run(
        "CREATE TABLE other (n BIGINT PRIMARY KEY)",
        "DROP TABLE messages",
        "CREATE TABLE messages (installation VARCHAR(40), seq BIGINT, item BIGINT, t FLOAT,"
        " n BIGINT CHECK (n < 50), payload TEXT, PRIMARY KEY (installation, seq, item))",
    )
    with caplog.at_level(logging.WARNING):
        appliance.record(appliance.target(), messages(2, 100))
    assert [row["seq"] for row in database.rows()] == list(range(2, 50))
    lines = (appliance.folder / "set-aside-sensors.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(50, 101))
    assert json.loads(lines[0])["row"] == {"t": 12.5, "n": 50}
    assert appliance.counts[Counter.RECORDER_ROWS_SET_ASIDE] == 51
    target = appliance.made[-1]
    assert target.note.startswith("51 rows can't be stored and are in set-aside-sensors.jsonl")
    assert "message 50" in caplog.text
    # A crash gives the rows again, and none is written twice.
    appliance.record(appliance.target(Progress("sql", 0)), messages(60, 101))
    assert len((appliance.folder / "set-aside-sensors.jsonl").read_text().splitlines()) == 52


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("id BIGINT PRIMARY KEY", "it has no column installation"),
        (
            "installation VARCHAR(40), seq VARCHAR(9), item BIGINT, PRIMARY KEY (installation, seq,"
            " item)",
            "its column seq has the type VARCHAR",
        ),
        ("installation VARCHAR(40), seq BIGINT, item BIGINT", "no primary key or unique index"),
        (
            "installation VARCHAR(40), seq BIGINT, item BIGINT, room BIGINT NOT NULL, PRIMARY KEY"
            " (installation, seq, item)",
            "its column room must have a value",
        ),
        (
            "installation VARCHAR(40), seq BIGINT, item BIGINT, topic BIGINT, PRIMARY KEY"
            " (installation, seq, item)",
            "its column topic has the type BIGINT, and the recorder writes values of kind text",
        ),
    ],
)
def test_another_table_is_refused(database: Database, rig, columns: str, said: str):
    database.run(f"CREATE TABLE messages ({columns})")
    appliance = rig(metadata=True)
    target = appliance.target()
    with pytest.raises(DatabaseFaultError) as error:
        appliance.append(target, messages(1, 1))
    assert said in str(error.value)
    assert error.value.cause is Cause.TABLE
    assert target.cursor == 0
    # Corrected while the appliance runs:
    database.run("DROP TABLE messages")
    appliance.record(target, messages(1, 1))
    assert len(database.rows()) == 1


def test_columns_of_an_existing_table_stay(database: Database, rig):
    """Values that do not fit are in the payload; a column that is missing is added."""
    database.run(
        "CREATE TABLE messages (installation VARCHAR(40), seq BIGINT, item BIGINT, a BIGINT,"
        " b VARCHAR(100), noted VARCHAR(10) DEFAULT 'new', PRIMARY KEY (installation, seq, item))"
    )
    appliance = rig()
    target = appliance.target()
    appliance.append(
        target,
        messages(1, 1, {"a": 1, "b": 2, "c": 1.5}) + messages(2, 2, {"a": "x", "b": "y"}),
    )
    first, second = database.rows()
    assert (first["a"], first["b"], first["c"], first["noted"]) == (1, "2", 1.5, "new")
    assert (second["a"], second["b"], second["payload"]) == (None, "y", '{"a": "x", "b": "y"}')
    assert database.types()["a"].startswith("BIGINT")


def test_a_table_that_is_dropped_or_changed_meanwhile_is_made_again(database: Database, rig):
    appliance = rig()
    target = appliance.target()
    appliance.append(target, messages(1, 5))
    database.run("DROP TABLE messages")
    said = appliance.record(target, messages(6, 10))
    assert said
    assert [row["seq"] for row in database.rows()] == list(range(6, 11))
    database.run("ALTER TABLE messages DROP COLUMN n")
    appliance.record(target, messages(11, 12))
    assert [row["n"] for row in database.rows()] == [None] * 5 + [11, 12]


def test_many_columns(database: Database, rig):
    """More keys than columns: the rest is in the payload."""
    appliance = rig()
    target = appliance.target()
    value = {f"key_{number:03d}": f"text {number}" for number in range(250)}
    appliance.append(target, messages(1, 2, value))
    appliance.append(target, messages(3, 3, {f"more_{n}": n for n in range(20)}))
    rows = database.rows()
    assert len(rows) == 3
    assert json.loads(rows[0]["payload"]) == value
    assert rows[0]["key_000"] == "text 0"
    assert json.loads(rows[2]["payload"]) == {f"more_{n}": n for n in range(20)}


def test_a_long_text_is_stored_whole(database: Database, rig):
    appliance = rig()
    text = "ü'\\" * 300_000
    appliance.append(appliance.target(), messages(1, 1, {"text": text}))
    assert database.rows()[0]["text"] == text


def test_the_address_is_shown_without_its_password(tmp_path: Path):
    appliance = DatabaseRig(
        tmp_path / "data", "postgresql://anna@127.0.0.1:1/db", password=Secret("se@cret-word")
    )
    try:
        target = appliance.target()
        with pytest.raises(DatabaseFaultError) as error:
            target.tick(0)
        shown = (
            f"{error.value} {error.value!r} {target.figures()} {vars(target)} {error.value.args}"
        )
        assert "127.0.0.1" in str(error.value)
        assert "cret-word" not in shown
        assert error.value.__cause__ is None
    finally:
        appliance.close()


def test_attempts_become_rare_where_an_operator_is_needed(tmp_path: Path):
    """And what is said meanwhile is the last failure."""
    from appliance.recorders.sql_connection import SqlConnection

    now = 0.0
    appliance = DatabaseRig(tmp_path, f"sqlite:///{tmp_path.as_posix()}")
    appliance.close()
    connection = SqlConnection(appliance.context.config, limits=QUICK, now=lambda: now)
    attempts = []
    for second in range(200):
        now = float(second)
        before = connection.attempts
        with pytest.raises(DatabaseFaultError, match="unable to open"), connection.transaction():
            pass
        if connection.attempts > before:
            attempts.append(second)
    assert attempts == [0, 1, 3, 7, 15, 31, 63, 123, 183]


def test_a_locked_database_is_waited_for(database: Database, rig):
    if database.kind == "generic":
        pytest.skip("it has no time limits but the driver's own")
    appliance = rig()
    target = appliance.target(limits=TimeLimits(connect_s=0.2, statement_s=2, answer_s=5))
    appliance.append(target, messages(1, 1))
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    with engine.connect() as other:
        other.exec_driver_sql(
            "LOCK TABLE messages IN ACCESS EXCLUSIVE MODE"
            if database.kind == "postgresql"
            else "LOCK TABLES messages WRITE"
            if database.kind == "mariadb"
            else "BEGIN IMMEDIATE"
        )
        with pytest.raises(DatabaseFaultError) as error:
            appliance.append(target, messages(2, 3))
        assert error.value.cause is Cause.TIMEOUT
        other.invalidate()
    appliance.record(target, messages(2, 3))
    assert len(database.rows()) == 3


STATE = "SELECT * FROM messages ORDER BY topic, item"


def test_latest_is_one_row_a_topic(database: Database, rig):
    """The last message of each topic, also after a crash between the table and the position."""
    appliance = rig(mode="latest", metadata=True, make=SqlState)
    target = appliance.target()
    for seq in range(1, 31):
        appliance.append(target, messages(seq, seq, {"v": seq}, topic=f"plant/{seq % 3}"))
    assert [(row["topic"], row["key"], row["seq"], row["v"]) for row in database.rows(STATE)] == [
        ("plant/0", "plant/0", 30, 30),
        ("plant/1", "plant/1", 28, 28),
        ("plant/2", "plant/2", 29, 29),
    ]
    stored = appliance.stored
    appliance.last_seq = 33
    target.append(messages(31, 33, {"v": 0}, topic="plant/1"), 33)
    again = appliance.target(stored)
    appliance.append(again, messages(31, 34, {"v": 9}, topic="plant/1"))
    rows = database.rows(STATE)
    assert [(row["seq"], row["v"]) for row in rows] == [(30, 30), (34, 9), (29, 29)]
    database.run("DROP TABLE messages")
    said = appliance.record(again, messages(35, 35, {"v": 8}, topic="plant/1"))
    assert said
    assert [row["seq"] for row in database.rows(STATE)] == [30, 35, 29]


def test_update_merges_the_keys_of_an_object(database: Database, rig):
    """Later keys win, a null too, as the files of mode update do; ``key`` tells rows apart."""
    appliance = rig(mode="update", key="id", metadata=True, make=SqlState)
    target = appliance.target()
    for seq, value in enumerate(
        [
            {"id": "A", "t": 1.5, "unit": "C"},
            {"id": "a", "t": 2.5},
            {"id": "A", "t": None, "flag": True},
            {"id": 7, "unit": "K"},
            {"other": 1},
        ],
        1,
    ):
        appliance.append(target, messages(seq, seq, value))
    rows = {row["key"]: row for row in database.rows("SELECT * FROM messages")}
    assert rows.keys() == {"A", "a", "7"}
    assert (rows["A"]["t"], rows["A"]["unit"], rows["A"]["seq"]) == (None, "C", 3)
    assert rows["A"]["flag"] in (True, 1)
    assert rows["a"]["t"] == 2.5
    assert appliance.counts[Counter.RECORDER_ROWS_LEFT_OUT] == 1
    again = appliance.target()
    appliance.append(again, messages(6, 6, {"id": "A", "unit": "F"}))
    (row,) = database.rows("SELECT * FROM messages WHERE seq = 6")
    assert (row["t"], row["unit"]) == (None, "F")


def test_a_list_in_latest_is_replaced_as_a_whole(database: Database, rig):
    appliance = rig(mode="latest", flatten=True, metadata=True, make=SqlState)
    target = appliance.target()
    appliance.append(target, messages(1, 1, [{"a": 1}, {"a": 2}, {"a": 3}], topic="x"))
    appliance.append(target, messages(2, 2, [{"a": 4}], topic="y"))
    appliance.append(target, messages(3, 3, [{"a": 5}, {"a": 6}], topic="x"))
    assert [(row["topic"], row["item"], row["a"]) for row in database.rows(STATE)] == [
        ("x", 0, 5),
        ("x", 1, 6),
        ("y", 0, 4),
    ]


def test_a_row_that_another_unique_index_refuses_is_no_repeat(database: Database, rig):
    appliance = rig()
    target = appliance.target()
    appliance.append(target, messages(1, 1, {"device": 1}))
    database.run("CREATE UNIQUE INDEX one ON messages (device)")
    appliance.append(target, messages(2, 3, {"device": 1}) + messages(4, 4, {"device": 2}))
    assert [row["seq"] for row in database.rows()] == [1, 4]
    assert appliance.counts[Counter.RECORDER_ROWS_SET_ASIDE] == 2


def test_the_database_is_tried_before_it_is_used(database: Database, rig):
    appliance = rig(metadata=True)
    config = appliance.context.config
    said = try_database(config)
    assert "table messages will be made" in said
    with pytest.raises(sa.exc.DatabaseError):
        database.rows()
    appliance.append(appliance.target(), messages(1, 1))
    assert "connected; the table messages can be written" in try_database(config)
    assert len(database.rows()) == 1
    database.run("DROP TABLE messages", "CREATE TABLE messages (id BIGINT)")
    with pytest.raises(UnavailableError, match="no column installation"):
        try_database(config)


def test_many_columns_of_short_texts(database: Database, rig):
    """They may be too much for a row of MariaDB; then the row is set aside."""
    appliance = rig()
    target = appliance.target()
    appliance.append(target, messages(1, 1, {f"key_{n}": "x" * 38 for n in range(199)}))
    appliance.append(target, messages(2, 2, {"key_1": "y"}))
    found = [row["seq"] for row in database.rows("SELECT seq FROM messages ORDER BY seq")]
    assert found in ([1, 2], [2])
    assert appliance.counts[Counter.RECORDER_ROWS_SET_ASIDE] == 2 - len(found)


def test_set_aside_rows_are_bounded(tmp_path: Path):
    rows = SetAsideRows(tmp_path, "sensors", max_bytes=1000)
    for seq in range(1, 101):
        assert rows.add(seq, 0, "why", {"text": "x" * 50})
    found = sorted(tmp_path.iterdir())
    assert [path.name for path in found] == ["set-aside-sensors.1.jsonl", "set-aside-sensors.jsonl"]
    assert all(path.stat().st_size <= 1000 for path in found)
    assert json.loads(found[1].read_text().splitlines()[-1])["seq"] == 100
    with found[1].open("ab") as file:
        file.write(b'{"seq": 101, "it')  # a power cut
    again = SetAsideRows(tmp_path, "sensors", max_bytes=1000)
    assert not again.add(100, 0, "why", {})
    assert again.add(101, 0, "why", {})
    assert SetAsideRows(tmp_path, "Sensors").path != rows.path


def test_two_recorders_write_to_one_table(database: Database, rig):
    """Each with its own position, whichever is ahead."""
    one, two = rig("data", topic="a/#"), rig("data", topic="b/#", name="other")
    first, second = one.target(), two.target()
    for each in (one, two):
        each.last_seq = 40
    two.append(second, messages(11, 20, topic="b/1"))
    one.append(first, messages(1, 10, topic="a/1"))
    two.append(two.target(), messages(31, 40, topic="b/1"))
    one.append(one.target(), messages(21, 30, topic="a/1"))
    assert [row["seq"] for row in database.rows()] == list(range(1, 41))
    assert len({row["installation"] for row in database.rows()}) == 2


def test_a_column_that_another_program_has_added_is_used(database: Database, rig):
    appliance = rig()
    target = appliance.target()
    appliance.append(target, messages(1, 1))
    database.run("ALTER TABLE messages ADD COLUMN late VARCHAR(20)")
    appliance.append(target, messages(2, 2, {"late": "x"}))
    assert [row["late"] for row in database.rows()] == [None, "x"]
    assert not target.note


@pytest.mark.posix("a file that is open can't be removed there")
def test_an_sqlite_file_that_is_removed_is_made_again(tmp_path: Path):
    path = tmp_path / "messages.db"
    appliance = DatabaseRig(tmp_path / "data", f"sqlite:///{path}")
    target = appliance.target()
    appliance.append(target, messages(1, 5))
    path.unlink()
    appliance.append(target, messages(6, 10))
    found = Database(f"sqlite:///{path}").rows()
    assert [row["seq"] for row in found] == [6, 7, 8, 9, 10]
    appliance.close()


@campaign
def test_a_trigger_that_refuses_a_row_sets_it_aside(postgres: Server, tmp_path: Path):
    postgres.sql("CREATE DATABASE refusing")
    database = Database(postgres.url("refusing"))
    appliance = DatabaseRig(tmp_path, database.url)
    target = appliance.target()
    appliance.append(target, messages(1, 1))
    database.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.n > 5 THEN"
        " RAISE EXCEPTION 'too much'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    appliance.append(target, messages(2, 10))
    assert len(database.rows()) == 5
    assert appliance.counts[Counter.RECORDER_ROWS_SET_ASIDE] == 5
    appliance.close()


def test_a_position_that_was_lost_is_told_by_the_table(database: Database, rig):
    """A table without rows of this recorder tells that it is a new one."""
    appliance = rig()
    appliance.append(appliance.target(), messages(1, 10))
    appliance.last_seq = 12
    again = appliance.target(Progress(LOST, 0))
    appliance.append(again, messages(1, 12))
    assert [row["seq"] for row in database.rows()] == list(range(1, 13))
    database.run("DELETE FROM messages")
    third = appliance.target(Progress(LOST, 0))
    third.tick(0)
    appliance.append(third, messages(1, 14))
    assert [row["seq"] for row in database.rows()] == [13, 14]


@pytest.mark.parametrize("name", ["line 1.2", "Почта " * 9, "order", "a'b\"c`d"])
def test_a_table_is_named_after_its_recorder(database: Database, rig, name: str):
    appliance = rig(name=name.strip(), table="")
    appliance.append(appliance.target(), messages(1, 3))
    appliance.append(appliance.target(), messages(4, 5))
    (table,) = sa.inspect(database._engine).get_table_names()
    assert table.startswith(name.strip()[:20])
    assert len(database.rows(f"SELECT * FROM {database.quote(table)}")) == 5


def test_a_disk_that_is_full_when_a_column_is_to_be_added_costs_no_column(
    tmp_path: Path, monkeypatch
):
    appliance = DatabaseRig(tmp_path, f"sqlite:///{(tmp_path / 'x.db').as_posix()}", table="t")
    target = appliance.target()
    appliance.append(target, messages(1, 1, {"a": 1}))

    def full(*_: object) -> None:
        raise DatabaseFaultError(Cause.DISK_FULL, "database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(TableLayout, "add", full)
        with pytest.raises(DatabaseFaultError):
            appliance.append(target, messages(2, 2, {"b": 2}))
    appliance.append(target, messages(2, 3, {"b": 2}))
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        rows = connection.execute("SELECT seq, a, b FROM t ORDER BY seq").fetchall()
    assert rows == [(1, 1, None), (2, None, 2), (3, None, 2)]
    appliance.close()


def test_a_batch_whose_rows_could_not_be_stored_here_comes_again(
    database: Database, rig, monkeypatch
):
    """The table has it, ``recorders.db`` has not: the position stays, and nothing is merged twice."""
    appliance = rig(mode="update", make=SqlState)
    target = appliance.target()
    appliance.append(target, messages(1, 1, {"a": 1}))
    full = sqlite3.OperationalError("database or disk is full")
    with monkeypatch.context() as patched:
        patched.setattr(LatestStore, "save", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(sqlite3.OperationalError):
            appliance.append(target, messages(2, 2, {"b": 2}))
    assert target.cursor == 1
    appliance.append(target, messages(2, 3, {"c": 3}))
    (row,) = database.rows("SELECT * FROM messages")
    assert (row["seq"], row["a"], row["c"]) == (3, 1, 3)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("whatever://anna@127.0.0.1/db", "a kind of database that SQLAlchemy does not know"),
        ("postgresql+asyncpg://anna@127.0.0.1/db", "asyncio|not installed"),
        ("mssql+pymssql://anna:s3cretword@127.0.0.1/db", "needs a driver that is not installed"),
        ("postgresql://anna:s3cretword@[::1/db", "is not right"),
    ],
)
def test_an_address_that_is_not_right_is_a_configuration_error(tmp_path: Path, url: str, said: str):
    appliance = DatabaseRig(tmp_path, url)
    with pytest.raises(ConfigError, match=said) as error:
        appliance.target()
    assert "s3cret" not in f"{error.value!r}"
    appliance.close()
