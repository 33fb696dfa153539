"""What an appliance of an earlier format left is there after the upgrade, and goes on.

Each folder ``tests/data/format_*`` is one appliance that was killed in the middle of everything
(tests/golden.py). The real engine, real MQTT clients and a simulated Qlik server go on with it.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden
import pytest
from appliance_process import until
from broker_rig import Wire
from golden import (
    AWAY,
    COOLING,
    DATA,
    DONE,
    FAILING,
    GATHERING,
    RUNNING,
    SENDER,
    TAKER,
    USER,
    Running,
)

from quick_appliance import WAITS

from appliance.engine import databases
from appliance.journal import store as journal_store
from appliance.model import ExecutionState
from appliance.ops.backup import restore
from appliance.recorders import progress as recorders_store
from appliance.storage.layout import Migration, Tables
from appliance.tasks import store as tasks_store
from appliance.tasks.engine import TaskEngine

FOLDERS = sorted(each.name for each in DATA.glob("format_*"))
SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS
OVER = {ExecutionState.SUCCEEDED.value, ExecutionState.FAILED.value}


@pytest.fixture(autouse=True)
def _server_that_is_asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's end is seen at once: the simulated server has time."""
    for name, value in WAITS.items():
        monkeypatch.setitem(TaskEngine.__init__.__kwdefaults__, name, value)


@pytest.fixture(params=FOLDERS)
def left(request, tmp_path) -> tuple[Path, dict[str, Any]]:
    """A copy of the folder, and what was noted of it when it was made."""
    folder = Path(shutil.copytree(DATA / request.param, tmp_path / request.param))
    return folder, json.loads((folder / "made.json").read_text("utf-8"))


def clock(made: dict[str, Any], later_ns: int) -> Callable[[], int]:
    """A clock that showed the moment of the kill, and ``later_ns``, when it was made."""
    offset = made["made_ns"] + later_ns - time.time_ns()
    return lambda: time.time_ns() + offset


def is_part(old: Any, new: Any) -> bool:
    """Whether ``new`` is ``old``, maybe with further fields."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and is_part(each, new[key]) for key, each in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) <= len(new) and all(map(is_part, old, new))
    return bool(old == new)


def recorded(folder: Path) -> dict[str, list[str]]:
    """The payloads in each recording, as text."""
    recordings = folder / "data" / "recordings"
    lines = (recordings / "lines.jsonl").read_text("utf-8").splitlines()
    with (recordings / "lines.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    return {
        "lines.json": [
            json.dumps(each) for each in json.loads((recordings / "lines.json").read_text("utf-8"))
        ],
        "lines.jsonl": [json.dumps(json.loads(line)) for line in lines],
        "lines.csv": [json.dumps(each) for each in table],
    }


async def test_everything_that_was_left_is_there_and_goes_on(left) -> None:
    """Messages, retained messages, sessions, exchanges, executions, timers, recordings, users."""
    folder, made = left
    before = recorded(folder)
    with golden.site() as qlik, Running(folder, qlik, clock(made, 5 * SECOND_NS)) as running:
        until(running.view.clients, "the sessions are shown, which happens once a second")
        facts = running.facts()
        for what in ("messages", "retained", "timers", "recorded", "clients"):
            assert is_part(made[what], facts[what]), what
        now = {each["id"]: each for each in facts["executions"]}
        assert len(now) == len(made["executions"])
        for each in made["executions"]:
            if each["state"] in OVER:
                assert is_part(each, now[each["id"]])
            else:
                assert now[each["id"]]["task_id"] == each["task_id"]
        for seq, mark in made["marks"].items():
            assert facts["marks"][seq]["execution"] == mark["execution"]
        await sessions_go_on(running)
        sender = await Wire.open(running.port, 5)
        await sender.connect("ann-new", **USER)
        await sender.publish_acked("plant/line/0", b'{"number": 99, "text": "new"}')
        until(lambda: all("99" in each[-1] for each in recorded(folder).values()), "recorded")
        for name, rows in recorded(folder).items():
            assert rows[:-1] == before[name], name
        assert [state.value for state in running.state_of(GATHERING)] == ["waiting"]
        assert [state.value for state in running.state_of(COOLING)] == ["waiting", "succeeded"]
        assert qlik.starts() == 0
        await sender.close()


async def sessions_go_on(running: Running) -> None:
    """Each client of ``golden.leave_traces`` gets what it still has to get, once."""
    away = await Wire.open(running.port, 5)
    assert (await away.connect(AWAY, clean=False, **USER)).body[0] == 1
    messages = await away.messages(8)
    # MQTT promises an order within one topic.
    assert sorted((each.topic, each.qos) for each in messages) == [
        *[("plant/line/0", 1)] * 3,
        *[("plant/line/1", 1)] * 3,
        ("plant/line/text", 1),
        ("plant/order", 2),
    ]
    numbers = [json.loads(each.payload) for each in messages if each.topic == "plant/line/1"]
    assert [each if isinstance(each, int) else each["number"] for each in numbers] == [1, 3, 17]
    assert b"no JSON, \xff" in [each.payload for each in messages]
    taker = await Wire.open(running.port, 5)
    assert (await taker.connect(TAKER, clean=False, **USER)).body[0] == 1
    released = await taker.expect(6)  # it has the message: no second PUBLISH
    taker.ack(7, released.id)
    await taker.ping()
    sender = await Wire.open(running.port, 5)
    assert (await sender.connect(SENDER, clean=False, **USER)).body[0] == 1
    newest = running.appliance.journal.last_seq
    sender.publish("plant/half", b"half", 2, id=77, dup=True)
    await sender.expect(5)
    sender.ack(6, 77)
    await sender.expect(7)
    await sender.ping()
    messages = [each for each in running.view.history(2**62, 100) if each.topic == "plant/half"]
    assert len(messages) == 1
    assert messages[0].seq <= newest
    for wire in (away, taker, sender):
        await wire.close()


def test_what_waits_starts_once_at_its_time(left) -> None:
    """Two hours later debounce and cooldown are over, two days later the delayed will is due."""
    folder, made = left
    with golden.site() as qlik:
        with Running(folder, qlik, clock(made, 2 * HOUR_NS)) as running:
            for task in (GATHERING, COOLING):
                until(
                    lambda task=task: running.state_of(task)[0] is ExecutionState.SUCCEEDED,
                    "what waited is done",
                )
        with Running(folder, qlik, clock(made, 48 * HOUR_NS)) as running:
            until(
                lambda: (
                    [
                        each.payload
                        for each in running.view.history(2**62, 1000)
                        if each.topic == "plant/will"
                    ]
                    == [b"gone"]
                ),
                "the will is published",
            )
            starts = {
                task: qlik.starts(task) for task in (DONE, FAILING, RUNNING, GATHERING, COOLING)
            }
        assert starts == {DONE: 0, FAILING: 0, RUNNING: 0, GATHERING: 1, COOLING: 1}


@pytest.fixture
def next_format(monkeypatch):
    """The layouts of all three databases with a step that adds a table."""
    tables = "CREATE TABLE IF NOT EXISTS news (id INTEGER PRIMARY KEY);"
    for module, name in (
        (journal_store, "journal.db"),
        (tasks_store, "tasks.db"),
        (recorders_store, "recorders.db"),
    ):
        further = Tables(tables, (Migration(databases.LAYOUTS[name].version + 1, tables),))
        monkeypatch.setattr(module, "LAYOUT", module.LAYOUT.with_tables(further))
        layout = databases.LAYOUTS[name].with_tables(further)
        monkeypatch.setitem(databases.LAYOUTS, name, layout)
    return monkeypatch


async def test_there_and_back_again(left, next_format) -> None:
    """An upgraded appliance goes on. With the copy the version before goes on from the upgrade:
    recordings are cut back to it, and messages that came after it start nothing."""
    folder, made = left
    before, facts = recorded(folder), {}
    with golden.site() as qlik:
        with Running(folder, qlik, clock(made, 5 * SECOND_NS)) as running:
            assert not databases.outdated(folder / "data")
            sender = await Wire.open(running.port, 5)
            await sender.connect("ann-new", **USER)
            await sender.publish_acked("plant/line/0", b'{"number": 99, "text": "new"}')
            await sender.publish_acked(golden.START, DONE.encode())
            until(lambda: qlik.starts(DONE) == 1, "the upgraded one starts tasks")
            until(lambda: all("99" in each[-1] for each in recorded(folder).values()), "recorded")
            facts = running.facts()
            assert is_part(made["messages"], facts["messages"])
            await sender.close()
        next_format.undo()
        # As docs/operating.md says.
        (folder / "data").rename(folder / "newer")
        restore(folder / "newer" / databases.COPY, folder / "data")
        shutil.copytree(folder / "newer" / "recordings", folder / "data" / "recordings")
        with Running(folder, qlik, clock(made, 60 * SECOND_NS)) as running:
            until(lambda: recorded(folder) == before, "recordings are those of the upgrade")
            facts = running.facts()
            assert [each[0] for each in facts["messages"]] == [each[0] for each in made["messages"]]
            sender = await Wire.open(running.port, 5)
            await sender.connect("ann-new", **USER)
            await sender.publish_acked("plant/line/0", b'{"number": 55, "text": "back"}')
            until(lambda: all("55" in each[-1] for each in recorded(folder).values()), "recorded")
            assert {key: len(each) for key, each in recorded(folder).items()} == {
                key: len(each) + 1 for key, each in before.items()
            }
            await sender.close()
            assert len(running.state_of(DONE)) == 1
        assert qlik.starts(DONE) == 1
        assert qlik.starts() == 1
