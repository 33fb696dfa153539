"""``tasks.db`` is gone, damaged or older than the journal: nothing starts twice, nothing is lost.

The journal has the messages and what the appliance said of its starts; the server has the runs.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections import Counter as Multiset
from collections.abc import Iterator
from pathlib import Path

import pytest
from tasks_rig import (
    START_TOPIC,
    JournaledRig,
    MemorySource,
    client_of,
    start_trigger,
)

from appliance.config.tables import TimerConfig, TriggerConfig
from appliance.model import ExecutionState
from appliance.qlik.simulated import Outcome, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


def remove(database: Path) -> None:
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def rebuilt(database: Path, qlik: SimulatedQlik, source: MemorySource, *rules, **settings):
    """A rig whose database was lost, before it starts: the whole journal is read again."""
    rig = JournaledRig(database, client_of(qlik), *rules, source=source, **settings)
    assert rig.engine.is_new
    source.position = source.advanced = rig.engine.rebuild(0, source.last_seq)
    return rig


def copy(database: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(database)) as source:
        with contextlib.closing(sqlite3.connect(target)) as other:
            source.backup(other)


def executions(rig: JournaledRig) -> list[tuple[int, str, ExecutionState]]:
    return [(one.id, one.task_name, one.state) for one in reversed(rig.engine.executions(50))]


def test_a_lost_database_is_rebuilt_from_the_journal(qlik, tmp_path: Path, caplog) -> None:
    """What ran is known again, with its numbers and messages; what waited for a run's end goes on;
    a message that nobody read starts its task."""
    database, source = tmp_path / "tasks.db", MemorySource()
    sales, stock, late = (qlik.add_task(name, duration_s=0.15) for name in ("Sales", "Stock", "L"))
    with JournaledRig(database, client_of(qlik), source=source) as rig:
        source.put(START_TOPIC, sales.id)
        rig.broker.wait_for(sales.id, "running")
        waiting = [source.put(START_TOPIC, sales.id) for _ in range(3)]
        rig.broker.wait_for(sales.id, "succeeded", times=2)
        source.put(START_TOPIC, stock.id)
        rig.broker.wait_for(stock.id, "succeeded")
        before = executions(rig)
    source.put(START_TOPIC, late.id)
    remove(database)
    with rebuilt(database, qlik, source) as again:
        again.broker.wait_for(late.id, "succeeded")
        assert executions(again)[:3] == before
        marks = again.engine.marks([one.seq for one in waiting])
        assert {mark.execution for mark in marks.values()} == {before[1][0]}
        assert again.newest().id == before[-1][0] + 1
        assert again.engine._planner.histories[sales.id].durations_s
    assert [qlik.starts(one.id) for one in (sales, stock, late)] == [2, 1, 1]
    assert "The record of starts was lost" in caplog.text


def test_a_run_that_the_lost_database_knew_is_followed(qlik, tmp_path: Path) -> None:
    database, source = tmp_path / "tasks.db", MemorySource()
    task = qlik.add_task("Sales", duration_s=0.4)
    with JournaledRig(database, client_of(qlik), source=source) as rig:
        source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "running")
    remove(database)
    with rebuilt(database, qlik, source) as again:
        again.broker.wait_for(task.id, "succeeded")
        assert [one.state for one in again.engine.executions(5)] == [ExecutionState.SUCCEEDED]
    assert qlik.starts() == 1


def test_after_a_loss_what_fails_is_stale_and_what_succeeded_is_not(qlik, tmp_path: Path) -> None:
    """A message that is read again is known by its execution: only a success has covered it."""
    database, source = tmp_path / "tasks.db", MemorySource()
    good = qlik.add_task("Good", duration_s=0.05)
    bad = qlik.add_task("Bad", duration_s=0.05, outcomes=(Outcome.FAIL,))
    with JournaledRig(database, client_of(qlik), source=source) as rig:
        source.put(START_TOPIC, good.id)
        message = source.put(START_TOPIC, bad.id)
        rig.broker.wait_for(good.id, "succeeded")
        rig.broker.wait_for(bad.id, "failed")
    remove(database)
    with rebuilt(database, qlik, source) as again:
        again.wait_until(lambda: again.engine._state.has_read_earlier)
        (stale,) = again.engine.freshness()
        assert (stale.name, stale.oldest_seq) == ("Bad", message.seq)
    assert qlik.starts() == 2


def test_a_start_that_nobody_told_of_is_found_at_the_server(qlik, tmp_path: Path) -> None:
    """Neither database nor journal know the call: the server has its run."""
    database, source = tmp_path / "tasks.db", MemorySource()
    task = qlik.add_task("Sales", duration_s=0.1)
    with JournaledRig(database, client_of(qlik), source=source) as rig:
        source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded")
    del source.messages[1:]
    remove(database)
    with rebuilt(database, qlik, source) as again:
        again.broker.wait_for(task.id, "succeeded")
    assert qlik.starts() == 1


def test_what_waits_with_no_message_behind_it_goes_on(qlik, tmp_path: Path) -> None:
    """A timer's request waits for the server as the database is lost: it is started, once."""
    database, source = tmp_path / "tasks.db", MemorySource()
    task = qlik.add_task("Sales", duration_s=0.05)
    timer = TimerConfig(name="often", every=3600.0, task=task.id)
    qlik.refuse()
    with JournaledRig(database, client_of(qlik), source=source, timers=[timer]) as rig:
        rig.engine.fire_timer("often", "test")
        rig.broker.wait_until(lambda: {"waiting", "retrying"} & set(rig.broker.states(task.id)))
    remove(database)
    qlik.heal()
    with rebuilt(database, qlik, source, timers=[timer]) as again:
        again.broker.wait_for(task.id, "succeeded")
        assert again.newest().cause.kind == "timer"
    assert task.runs == 1


def test_an_alarm_that_was_raised_is_cleared_after_the_loss(tmp_path: Path) -> None:
    """Its message is retained: without that, the alarm would stand for ever."""
    database, source = tmp_path / "tasks.db", MemorySource()
    watch = TimerConfig(name="line 7", topic="plant/line7", silence=3600.0)

    def states(rig: JournaledRig) -> list[str]:
        return [body["state"] for topic, body, _, _ in rig.broker.published if "alarms" in topic]

    with JournaledRig(database, None, source=source, timers=[watch]) as rig:
        rig.engine.fire_timer("line 7", "test")
        rig.broker.wait_until(lambda: states(rig) == ["raised"])
    remove(database)
    again = JournaledRig(database, None, source=source, timers=[watch])
    source.position = source.advanced = again.engine.rebuild(0, source.last_seq)
    with again:
        assert again.engine.timers()[0].silent_since_ns
        source.put("plant/line7", b"1")
        again.broker.wait_until(lambda: states(again) == ["cleared"])


def test_a_kill_during_the_rebuilding_changes_nothing(qlik, tmp_path: Path) -> None:
    """The next start reads the messages again that are behind its cursor, and what was told."""
    database, source = tmp_path / "tasks.db", MemorySource()
    tasks = [qlik.add_task(f"T{number}", duration_s=0.05) for number in range(3)]
    with JournaledRig(database, client_of(qlik), source=source) as rig:
        for task in tasks:
            source.put(START_TOPIC, task.id)
        for task in tasks:
            rig.broker.wait_for(task.id, "succeeded")
    remove(database)
    with rebuilt(database, qlik, source) as rig:
        copy(database, database.with_name("killed.db"))  # before anything was read
    remove(database)
    database.with_name("killed.db").rename(database)
    with JournaledRig(database, client_of(qlik), source=source) as again:
        assert not again.engine.is_new
        again.wait_until(lambda: source.advanced >= 3)
        assert len(again.engine.executions(10)) == 3
    assert qlik.starts() == 3


@pytest.mark.parametrize(
    "moment",
    ["waiting", *(pytest.param(one, marks=pytest.mark.campaign) for one in ("before", "running"))],
)
def test_an_older_copy_of_the_database_starts_nothing_twice(
    qlik, tmp_path: Path, moment: str
) -> None:
    """It came from a backup, on a machine that goes on running; the journal is of today."""
    database, older = tmp_path / "tasks.db", tmp_path / "copy" / "tasks.db"
    source = MemorySource()
    first, task = (qlik.add_task(name, duration_s=0.15) for name in ("First", "Sales"))
    rule = TriggerConfig(topic=START_TOPIC, task="payload", debounce=0.1)
    with JournaledRig(database, client_of(qlik), rule, source=source) as rig:
        source.put(START_TOPIC, first.id)
        rig.broker.wait_for(first.id, "succeeded")
        if moment == "before":
            copy(database, older)
        source.put(START_TOPIC, task.id)
        source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, {"before": "succeeded"}.get(moment, moment))
        if moment != "before":
            copy(database, older)
        source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded", times=1 if moment == "waiting" else 2)
        rig.wait_until(lambda: all(state.is_final for state in rig.states()))
        starts, before = qlik.starts(task.id), executions(rig)
    remove(database)
    older.rename(database)
    with JournaledRig(database, client_of(qlik), rule, source=source, boot_ns=0) as again:
        source.put(START_TOPIC, first.id)
        again.broker.wait_for(first.id, "succeeded")
        assert executions(again)[:-1] == before
    assert qlik.starts(task.id) == starts
    assert qlik.starts(first.id) == 2


def test_rows_that_can_not_be_read_cost_these_rows(qlik, tmp_path: Path, caplog) -> None:
    """Of each table, the cursor among them: it is found by what the messages led to."""
    database, source = tmp_path / "tasks.db", MemorySource()
    tasks = [qlik.add_task(f"T{number}", duration_s=0.05) for number in range(3)]
    with JournaledRig(database, client_of(qlik), source=source) as rig:
        for task in tasks:
            source.put(START_TOPIC, task.id, qos=1, packet_id=7)
        for task in tasks:
            rig.broker.wait_for(task.id, "succeeded")
    with contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("UPDATE meta SET value = 'x' WHERE name IN ('seq', 'next_id')")
        other.execute("UPDATE answers SET at_ns = 'noon' WHERE seq = 2")
        other.execute("UPDATE sightings SET at_ns = x'00'")
        other.commit()
    caplog.clear()
    rig = JournaledRig(database, client_of(qlik), source=source)
    assert rig.engine.is_new
    assert rig.engine.rebuild(0, source.last_seq) == 3
    source.position = 3
    with rig as again:
        source.put(START_TOPIC, tasks[0].id)
        again.broker.wait_for(tasks[0].id, "succeeded")
        assert again.newest().id == 4
        assert sorted(again.engine.marks([1, 2, 3])) == [1, 3]
    assert qlik.starts() == 4
    assert "row seq of table meta can't be read" in caplog.text
    assert "of table answers can't be read" in caplog.text
    assert "of table sightings can't be read" in caplog.text


class Chance:
    """Messages at random for three tasks, two of which are named by id and one by its name."""

    def __init__(self, seed: int, qlik: SimulatedQlik, source: MemorySource) -> None:
        self.rng = random.Random(seed)
        self._source = source
        self.tasks = [qlik.add_task(f"T{number}", duration_s=0.02) for number in range(3)]
        self.rule = TriggerConfig(
            topic=START_TOPIC,
            task="payload",
            if_running=self.rng.choice(["queue_one", "queue_one", "start"]),
            debounce=self.rng.choice([None, None, 0.1]),
            cooldown=self.rng.choice([None, None, 0.2]),
        )
        self.asked: dict[int, SimulatedTask] = {}

    @property
    def merges(self) -> bool:
        return self.rule.if_running != "start" or bool(self.rule.debounce or self.rule.cooldown)

    def put(self) -> SimulatedTask:
        task = self.rng.choice(self.tasks)
        forms = [task.id, f'["{task.id}"]']
        if task is self.tasks[2]:
            forms = [f'{{"taskName": "{task.name}"}}']
        self.asked[self._source.put(START_TOPIC, self.rng.choice(forms)).seq] = task
        return task


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(25))
def test_at_random_a_lost_or_older_record_repeats_and_loses_nothing(
    qlik, tmp_path: Path, seed: int
) -> None:
    """Requests that had not started and messages that nobody read give one start each task, and
    every message is answered by a start that came after it."""
    database, older, source = tmp_path / "tasks.db", tmp_path / "copy" / "tasks.db", MemorySource()
    qlik.site.trigger_delay_s = 0.0
    chance = Chance(seed, qlik, source)
    rng, rule = chance.rng, chance.rule
    with JournaledRig(database, client_of(qlik), rule, source=source) as rig:
        for _ in range(rng.randrange(1, 12)):
            chance.put()
            time.sleep(rng.choice([0.0, 0.01, 0.05, 0.15]))  # so that some find a task running
            if not older.exists() and rng.random() < 0.3:
                copy(database, older)
        if rng.random() < 0.5:
            rig.wait_until(lambda: rig.states() and all(one.is_final for one in rig.states()))
        if rng.random() < 0.25:
            qlik.refuse()
            for _ in range(rng.randrange(4)):
                chance.put()
    qlik.heal()
    left = Multiset(
        one.task_id or chance.tasks[2].id
        for one in rig.engine.executions(1000)
        if not one.state.is_final and not one.execution_id
    )
    before = {one.id: one.runs for one in chance.tasks}
    unread = Multiset(chance.put().id for _ in range(rng.randrange(3)))
    remove(database)
    if older.exists() and rng.random() < 0.5:
        older.rename(database)
    again = JournaledRig(database, client_of(qlik), rule, source=source, boot_ns=0)
    if again.engine.is_new:
        source.position = source.advanced = again.engine.rebuild(0, source.last_seq)
    with again:
        again.wait_until(lambda: again.engine._state.cursors.taken >= max(chance.asked))
        again.wait_until(lambda: all(one.is_final for one in again.states()))
        known = {one.execution_id for one in again.engine.executions(1000)}
        assert sorted(again.engine.marks(list(chance.asked))) == sorted(chance.asked)
    runs = qlik.site.runs()
    assert {one.execution_id for one in runs} == known - {""}
    for task in chance.tasks:
        unread_starts = min(unread[task.id], 1) if chance.merges else unread[task.id]
        assert task.runs - before[task.id] <= left[task.id] + unread_starts
        asked = [one for one in source.messages if chance.asked.get(one.seq) is task]
        if asked and chance.merges:
            began = max(one.created_ns for one in runs if one.task is task)
            assert began >= asked[-1].received_ns
