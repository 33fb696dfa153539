"""A data directory that an earlier release wrote opens, and its work goes on.

``tests/data/first_release`` was written by ``appliance demo`` of the release before the databases
had one opener: 31 messages, 8 of them recorded, 4 executions; 3 of these ran at its end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import paho.mqtt.publish as publish
import pytest
from appliance_process import ApplianceProcess, until

from appliance.engine import databases
from appliance.storage.sqlite import connect_read_only

OLD = Path(__file__).parents[2] / "data" / "first_release"
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
anonymous = true
[journal]
keep = "36500d"
[qlik]
edition = "simulated"
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
[[recorder]]
topic = "/demo/integers"
path = "recordings/integers.json"
format = "json"
"""


@pytest.fixture
def appliance(tmp_path):
    shutil.copytree(OLD, tmp_path / "data")
    with ApplianceProcess(tmp_path, CONFIG) as process:
        yield process


def rows(path: Path, sql: str) -> list[tuple]:
    with contextlib.closing(connect_read_only(path)) as connection:
        return connection.execute(sql).fetchall()


def recorded(appliance: ApplianceProcess) -> list[str]:
    content = json.loads((appliance.data / "recordings/integers.json").read_text())
    return [row["Generated number"] for row in content]


def put(appliance: ApplianceProcess, topic: str, payload: str) -> None:
    publish.single(topic, payload, qos=1, hostname="127.0.0.1", port=appliance.port)


def test_an_earlier_release_s_data_directory_opens_and_goes_on(appliance):
    """Numbers, recording and executions continue where they ended, and nothing is done twice."""
    before = rows(appliance.data / "tasks.db", "SELECT id FROM executions ORDER BY id")
    appliance.start()
    put(appliance, "/demo/integers", '{"Generated number": "8"}')
    until(lambda: recorded(appliance) == [str(n) for n in range(9)], "the recording goes on")
    ((last,),) = rows(appliance.data / "journal.db", "SELECT max(last_seq) FROM chunk")
    assert last > 31
    after = rows(appliance.data / "tasks.db", "SELECT id FROM executions ORDER BY id")
    assert after == before
    assert appliance.end() == 0
    text = "\n".join(appliance.lines)
    assert "damaged" not in text
    assert "set aside" not in text
    for name in ("journal.db", "tasks.db", "recorders.db"):
        ((version,),) = rows(appliance.data / name, "PRAGMA user_version")
        ((application,),) = rows(appliance.data / name, "PRAGMA application_id")
        assert version == databases.LAYOUTS[name].version
        assert application != 0


@pytest.mark.parametrize("name", ["journal.db", "tasks.db", "recorders.db"])
def test_a_damaged_database_does_not_keep_the_appliance_down(appliance, name):
    """It is set aside, the log says so, and no old message starts a task. What ``tasks.db`` knew of
    executions, the journal tells."""
    damaged = b"this is no database, but it is long enough " * 100
    (appliance.data / name).write_bytes(damaged)
    appliance.start()
    put(appliance, "/demo/integers", '{"Generated number": "8"}')
    until(lambda: recorded(appliance)[-1:] == ["8"], "new messages are recorded")
    ((count,),) = rows(appliance.data / "tasks.db", "SELECT count(*) FROM executions")
    assert count == 4
    assert appliance.end() == 0
    (kept,) = appliance.data.glob(f"{name}.corrupt-*")
    assert kept.read_bytes() == damaged
    (line,) = [one for one in appliance.lines if f"{name} is damaged" in one and str(kept) in one]
    assert "ERROR" in line
    assert (
        "These are missing: 1 to 31" if name == "journal.db" else "Lost with the others: "
    ) in line


@pytest.mark.parametrize(
    "name",  # of each, test_every_command_refuses_it_in_the_same_words tells the same
    [
        "tasks.db",
        *(
            pytest.param(name, marks=pytest.mark.campaign)
            for name in ("journal.db", "recorders.db")
        ),
    ],
)
def test_a_database_of_a_newer_appliance_ends_the_start(appliance, name):
    """Exit code 78 in one line, so that a service stays down, and that file as it was."""
    with contextlib.closing(sqlite3.connect(appliance.data / name)) as database:
        database.execute("PRAGMA user_version = 99")
    before = (appliance.data / name).read_bytes()
    assert appliance.begin().exit_code() == 78
    assert f"{name} was written by a newer appliance" in "\n".join(appliance.lines)
    assert (appliance.data / name).read_bytes() == before
