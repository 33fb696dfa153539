"""Freshness on the real task engine: what covers a message and what does not, over a kill as well."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tasks_rig import START_TOPIC, Broker, MemorySource, Rig, client_of

from appliance.config.tables import AllowConfig, TriggerConfig
from appliance.config.values import Duration
from appliance.counters import Counter
from appliance.engine_api import TaskFreshness
from appliance.model import ExecutionState
from appliance.qlik.simulated import Outcome, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask
from appliance.tasks import freshness as core
from appliance.tasks import freshness_report, freshness_state
from appliance.tasks.notice import Notice

RULE = TriggerConfig(topic=START_TOPIC, task="payload", name="orders")
NAMED = TriggerConfig(topic="named", task={"name": "Reload Sales"}, name="by name")


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


def limited(seconds: float) -> TriggerConfig:
    return TriggerConfig(
        topic=START_TOPIC, task="payload", name="orders", fresh_within=Duration(seconds)
    )


def open_rig(qlik: SimulatedQlik, tmp_path: Path, *rules: TriggerConfig, **settings: Any) -> Rig:
    return Rig(tmp_path / "tasks.db", client_of(qlik), *(rules or (RULE, NAMED)), **settings)


def found(rig: Rig, name: str = "Reload Sales") -> TaskFreshness | None:
    return next((one for one in rig.engine.freshness() if one.name == name), None)


def is_fresh(rig: Rig) -> bool:
    task = found(rig)
    return task is not None and task.stale_since_ns is None


def is_stale(rig: Rig) -> bool:
    task = found(rig)
    return task is not None and task.stale_since_ns is not None


def run_and_finish(qlik: SimulatedQlik, task: SimulatedTask, outcome: Outcome) -> None:
    assert qlik.wait_for(lambda: qlik.site.session_of(task.id) is not None)
    qlik.site.finish(task.id, outcome)


def an_hour_ago() -> int:
    return time.time_ns() - 3600 * freshness_state.SECOND_NS


@pytest.fixture
def task(qlik) -> SimulatedTask:
    """It runs until the test ends its run."""
    return qlik.add_task("Reload Sales", outcomes=(Outcome.NEVER,), app_name="Sales")


def test_a_failed_run_leaves_it_stale_and_the_next_success_covers_all(qlik, task, tmp_path):
    """Stale since the first message, why in words, and the latency counted once it is over."""
    with open_rig(qlik, tmp_path) as rig:
        first = rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: (one := found(rig)) is not None and one.kind == "running")
        run_and_finish(qlik, task, Outcome.FAIL)
        rig.wait_until(lambda: (one := found(rig)) is not None and one.kind == "failed")
        late = found(rig)
        assert late is not None
        assert (late.stale_since_ns, late.oldest_seq) == (first.received_ns, first.seq)
        assert "The last start ended as failed: Error" in late.why and late.execution
        assert rig.engine.stale().stale == 1 and rig.engine.stale().late == 0
        rig.source.put(START_TOPIC, task.id)
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: is_fresh(rig))
        fresh = found(rig)
        assert fresh is not None and fresh.fresh_ns is not None
        assert (fresh.messages, fresh.runs, fresh.waiting) == (2, 1, 0)
        assert fresh.worst_s == pytest.approx((fresh.fresh_ns - first.received_ns) / 1e9, abs=1e-3)
        assert [worst for _, worst in rig.engine.freshness_day(task.id)] == [fresh.worst_s]
        buckets, total_s = rig.engine.latencies()
        assert buckets[-1][1] == 2 and total_s > fresh.worst_s


def test_the_success_of_a_run_that_another_one_started_covers(qlik, task, tmp_path):
    """Who starts a run is no matter for the data."""
    with open_rig(qlik, tmp_path) as rig:
        rig.source.put(START_TOPIC, task.id, received_ns=an_hour_ago())
        run_and_finish(qlik, task, Outcome.FAIL)
        rig.wait_until(lambda: (one := found(rig)) is not None and one.kind == "failed")
        qlik.run_elsewhere(task.id)
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: is_fresh(rig))
        fresh = found(rig)
        assert fresh is not None and 3590 < (fresh.worst_s or 0) < 3900


def test_a_run_that_was_under_way_does_not_cover(qlik, task, tmp_path):
    """It may have read the source before the message came; a rule that skips leaves it so."""
    skips = TriggerConfig(topic=START_TOPIC, task="payload", if_running="skip")
    with open_rig(qlik, tmp_path, skips) as rig:
        qlik.run_elsewhere(task.id)
        rig.wait_until(lambda: ExecutionState.RUNNING in rig.states())
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: ExecutionState.SKIPPED in rig.states())
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: ExecutionState.SUCCEEDED in rig.states())
        stale = found(rig)
        assert stale is not None and stale.stale_since_ns is not None and stale.kind == "none"


def test_messages_that_share_a_run_are_runs_that_were_saved(qlik, task, tmp_path):
    """Five messages while it runs make one more run: four runs were saved."""
    with open_rig(qlik, tmp_path) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: ExecutionState.RUNNING in rig.states())
        for _ in range(5):
            rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: (one := found(rig)) is not None and one.waiting == 6)
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: (one := found(rig)) is not None and one.waiting == 5)
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: is_fresh(rig))
        fresh = found(rig)
        assert fresh is not None
        assert (fresh.messages, fresh.runs, fresh.merged) == (6, 2, 4)


def test_by_name_the_task_is_known_once_the_server_was_asked(qlik, task, tmp_path):
    """Before, the row has the name that the rule has; a name that no task has goes away."""
    unknown = TriggerConfig(topic="unknown", task={"name": "No such task"})
    qlik.refuse()
    with open_rig(qlik, tmp_path, NAMED, unknown) as rig:
        rig.source.put("named", "x")
        rig.source.put("unknown", "x")
        rig.wait_until(lambda: len(rig.engine.freshness()) == 2)
        named = found(rig, 'task "Reload Sales"')
        assert named is not None and (named.task_id, named.waiting) == ("", 1)
        rig.wait_until(lambda: found(rig, 'task "Reload Sales"').kind in ("retry", "server"))
        qlik.heal()
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: is_fresh(rig) and len(rig.engine.freshness()) == 1)
        fresh = found(rig)
        assert fresh is not None and (fresh.task_id, fresh.app) == (task.id, "Sales")


def test_what_no_request_waits_for_is_found_and_covered(qlik, task, tmp_path, monkeypatch):
    """Expired before the server was asked which task it is: a later run covers it all the same."""
    monkeypatch.setattr(freshness_report, "_FIND_EVERY_NS", 0)
    with open_rig(qlik, tmp_path, NAMED) as rig:
        rig.source.put("named", "x", received_ns=an_hour_ago() - 30 * freshness_state.DAY_NS // 24)
        rig.wait_until(lambda: ExecutionState.EXPIRED in rig.states())
        rig.wait_until(lambda: rig.engine.tasks())
        rig.wait_until(lambda: is_stale(rig) and found(rig).task_id == task.id)
        qlik.run_elsewhere(task.id)
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: is_fresh(rig))
        assert len(rig.engine.freshness()) == 1


def test_an_id_that_no_task_has_is_not_stale_for_ever(qlik, task, tmp_path):
    """A client may name any id."""
    with open_rig(qlik, tmp_path) as rig:
        rig.source.put(START_TOPIC, "11111111-1111-1111-1111-111111111111")
        rig.wait_until(lambda: ExecutionState.REJECTED in rig.states())
        assert rig.engine.freshness() == []


def test_what_is_never_started_stays_stale(qlik, task, tmp_path):
    """Expired, dropped by a hold, not in ``[allow]``: the source has changed all the same."""
    other = qlik.add_task("Reload Stock")
    allow = AllowConfig(tasks=(task.id,))
    with open_rig(qlik, tmp_path, RULE, allow=allow) as rig:
        rig.wait_until(lambda: rig.engine.tasks())
        rig.source.put(
            START_TOPIC, task.id, received_ns=an_hour_ago() - 30 * freshness_state.DAY_NS // 24
        )
        rig.wait_until(lambda: (one := found(rig)) is not None and one.kind == "expired")
        rig.source.put(START_TOPIC, other.id)
        rig.wait_until(
            lambda: (one := found(rig, "Reload Stock")) is not None and one.kind == "rejected"
        )
        rig.engine.holding.hold("everything", "", None, "", True, "ann")
        held = rig.source.put(START_TOPIC, other.id)
        rig.wait_until(lambda: (one := found(rig, "Reload Stock")) and one.waiting == 2)
        assert rig.engine.marks([held.seq])[held.seq].label != "rejected"
    assert qlik.starts() == 0


def told(broker: Broker, task: SimulatedTask) -> list[dict[str, Any]]:
    topic = f"appliance/tasks/{task.id}/freshness"
    return [body for where, body, retain, _ in broker.published if where == topic and retain]


def test_late_data_is_published_and_told_once_and_a_reload_changes_the_limit(qlik, task, tmp_path):
    """``fresh_within`` raises the alarm; another one counts from its reload on."""
    with open_rig(qlik, tmp_path, limited(7200)) as rig:
        notices: list[Notice] = []
        rig.engine._state.offer = notices.append
        rig.source.put(START_TOPIC, task.id, received_ns=an_hour_ago())
        rig.broker.wait_until(lambda: told(rig.broker, task))
        assert told(rig.broker, task)[-1]["freshness"] == "stale"
        rig.wait_until(lambda: rig.engine.stale().stale)
        assert not rig.engine.stale().late
        rules = rig.engine.rules_of([limited(1800)], [], AllowConfig(), [])
        rig.engine.take(rules)
        rig.wait_until(lambda: rig.engine.stale().late and notices)
        (late,) = rig.engine.stale().tasks
        assert late.is_late and late.fresh_within_s == 1800
        (notice,) = [one for one in notices if one.kind == "stale"]
        assert "no successful run began after message 1" in notice.execution.reason
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: is_fresh(rig))
        # What is put off is published when its time has come.
        with rig.engine._state.change() as planner:
            for key in planner.book.freshness.take_told(time.time_ns() + core.TELL_EVERY_NS):
                rig.engine._state.tell_freshness(key)
        rig.broker.wait_until(lambda: told(rig.broker, task)[-1]["freshness"] == "fresh")
        assert told(rig.broker, task)[-1]["lastFresh"]


def test_a_kill_loses_nothing(qlik, task, tmp_path):
    """What a killed process leaves on the disk has the message and what became of earlier ones."""
    with open_rig(qlik, tmp_path) as rig:
        rig.source.put(START_TOPIC, task.id)
        run_and_finish(qlik, task, Outcome.SUCCESS)
        rig.wait_until(lambda: is_fresh(rig))
        second = rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: is_stale(rig) and ExecutionState.RUNNING in rig.states())
        since_ns = rig.engine.freshness_since_ns
        left = tmp_path / "left"
        left.mkdir()
        with rig.engine._state.lock:
            for file in tmp_path.glob("tasks.db*"):
                shutil.copy(file, left)
    with open_rig(qlik, left, source=rig.source) as again:
        stale = found(again)
        assert stale is not None
        assert (stale.stale_since_ns, stale.oldest_seq) == (second.received_ns, second.seq)
        assert stale.messages == 1 and again.engine.freshness_since_ns == since_ns
        run_and_finish(qlik, task, Outcome.SUCCESS)
        again.wait_until(lambda: is_fresh(again))


def test_without_its_database_it_says_from_when_on_it_knows(qlik, task, tmp_path):
    """The journal does not tell which messages a run had covered, so that is said."""
    with open_rig(qlik, tmp_path) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: is_stale(rig))
        before_ns = rig.engine.freshness_since_ns
    for file in tmp_path.glob("tasks.db*"):
        file.unlink()
    with open_rig(qlik, tmp_path, source=MemorySource()) as again:
        assert again.engine.freshness() == []
        assert again.engine.freshness_since_ns > before_ns


def test_rows_that_cannot_be_read_are_a_loss_that_is_said(qlik, task, tmp_path):
    """Nobody takes a task for fresh because its row is damaged."""
    with open_rig(qlik, tmp_path) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: is_stale(rig))
    with contextlib.closing(sqlite3.connect(tmp_path / "tasks.db")) as database, database:
        database.execute("UPDATE kept SET body = x'c1' WHERE kind = 'freshness'")
    with open_rig(qlik, tmp_path, source=rig.source) as again:
        assert any("(rows: 1): which messages" in one for one in again.engine.losses)


def test_messages_beyond_the_bound_are_counted(qlik, task, tmp_path, monkeypatch):
    """Memory is bounded, and the bound is seen."""
    monkeypatch.setattr(core, "MAX_TASKS", 1)
    other = qlik.add_task("Reload Stock", outcomes=(Outcome.NEVER,))
    with open_rig(qlik, tmp_path) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.source.put(START_TOPIC, other.id)
        rig.wait_until(lambda: rig.engine.counters()[Counter.FRESHNESS_MESSAGES_LEFT_OUT] == 1)


def test_what_is_held_says_so(qlik, task, tmp_path):
    """The reason is the hold, with who made it and why."""
    with open_rig(qlik, tmp_path) as rig:
        rig.wait_until(lambda: rig.engine.tasks())
        rig.engine.holding.hold("task", task.id, None, "new disks", False, "ann")
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: (one := found(rig)) is not None and one.kind == "hold")
        held = found(rig)
        assert held is not None and "ann" in held.why and "new disks" in held.why
