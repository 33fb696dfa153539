"""Script logs are fetched beside the starts: late ones again, and none keeps a start waiting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tasks_rig import (
    QUICK,
    START_TOPIC,
    JournaledRig,
    MemorySource,
    Rig,
    client_of,
    start_trigger,
)

from appliance.config.tables import TriggerConfig
from appliance.counters import Counter
from appliance.model import Execution, ExecutionState, TaskKind
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask
from appliance.tasks.states import RequestState

FAILS = {
    "duration_s": 0.05,
    "outcomes": (Outcome.FAIL,),
    "log": ("Start", "Error: Table not found"),
}
LOG_STATES = (RequestState.LOG_WANTED, RequestState.FETCHING_LOG)
LAST_LINE = "Error: Table not found"


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


@pytest.fixture
def rig(qlik: SimulatedQlik, tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as running:
        yield running


def run(rig: Rig, task: SimulatedTask) -> Execution:
    """Start a task by a message; returns its execution once the run has failed."""
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "failed")
    return next(one for one in rig.engine.executions(9) if one.task_id == task.id)


def lasts(rig: Rig, task: SimulatedTask) -> list[dict[str, Any]]:
    """What was published as the task's last outcome."""
    topic = f"appliance/tasks/{task.id}/last"
    return [body for found, body, *_ in rig.broker.published if found == topic]


def calls(qlik: SimulatedQlik) -> list[str]:
    """The calls for script logs, by the name of their way."""
    names = [seen.path.rpartition("/")[2] for seen in qlik.requests]
    return [name for name in names if name.startswith("scriptlog")]


def hang(qlik: SimulatedQlik) -> None:
    qlik.fail(FaultKind.HANG, path="scriptlog")


def drip(qlik: SimulatedQlik) -> None:
    qlik.fail(FaultKind.DRIP, path="download/", seconds=0.05)


def never_there(qlik: SimulatedQlik) -> None:
    qlik.fail(FaultKind.STATUS, path="scriptlog", status=500, text="Failed to copy file.")


def endless(qlik: SimulatedQlik) -> None:
    qlik.fail(FaultKind.ENDLESS, path="download/")


@pytest.mark.parametrize("spoil", [hang, drip, never_there, endless])
def test_a_log_that_can_not_be_had_keeps_no_start_waiting(qlik, rig, spoil) -> None:
    """With more such logs than threads, another task is started, followed, and has its outcome."""
    spoil(qlik)
    failing = [qlik.add_task(f"A{number}", **FAILS) for number in range(6)]
    other = qlik.add_task("B", duration_s=0.05)
    for task in failing:
        rig.source.put(START_TOPIC, task.id)
    for task in failing:
        rig.broker.wait_for(task.id, "failed")
    assert qlik.wait_for(lambda: len(calls(qlik)) >= 2)
    rig.source.put(START_TOPIC, other.id)
    rig.broker.wait_for(other.id, "succeeded")
    assert rig.engine.qlik_state().health.level == "ok"
    qlik.heal()


def test_a_log_that_fails_on_both_ways_is_asked_for_a_few_times_and_then_said(qlik, rig) -> None:
    """The older way, then the newer one, with waits in between; the outcome has the reason."""
    never_there(qlik)
    task = qlik.add_task("A", **FAILS)
    run(rig, task)
    rig.wait_until(lambda: rig.newest().log_problem)
    assert rig.engine.counters()[Counter.SCRIPT_LOGS_MISSED] == 1
    assert "Failed to copy file." in rig.newest().log_problem
    assert calls(qlik) == ["scriptlog", "scriptlogfile"] * (1 + len(QUICK.log_waits_s))
    rig.broker.wait_until(lambda: len(lasts(rig, task)) == 2)
    first, second = lasts(rig, task)
    assert "logProblem" not in first
    assert second["logProblem"] == rig.newest().log_problem
    assert rig.broker.states(task.id).count("failed") == 1


@pytest.mark.parametrize("way", ["/scriptlog$", "/scriptlogfile$"])
def test_a_log_that_fails_on_one_way_comes_on_the_other(qlik, rig, way) -> None:
    """Whatever the first way fails with: some servers answer 500, some 404."""
    qlik.fail(FaultKind.STATUS, path=way, status=500, text="Could not find file")
    task = qlik.add_task("A", **FAILS)
    run(rig, task)
    rig.wait_until(lambda: rig.newest().log_tail)
    assert rig.newest().log_tail[-1] == LAST_LINE


def test_a_log_that_is_late_comes_later(qlik, rig) -> None:
    """The download is not there at first; the outcome is published again with the log."""
    qlik.fail(FaultKind.STATUS, path="download/", status=404, text="Not found", times=4)
    task = qlik.add_task("A", **FAILS)
    run(rig, task)
    rig.broker.wait_until(lambda: len(lasts(rig, task)) == 2)
    first, second = lasts(rig, task)
    assert (first.get("logTail"), second["logTail"][-1]) == (None, LAST_LINE)


@pytest.mark.parametrize("new_way", [True, False])
def test_a_log_whose_reference_is_late_comes_later(qlik, rig, new_way) -> None:
    """The result names no log at first, so the result is asked for again as well."""
    qlik.repository.new_script_log = new_way
    qlik.site.script_log_after_s = 0.05
    task = qlik.add_task("A", **FAILS)
    run(rig, task)
    rig.wait_until(lambda: rig.newest().log_tail)
    assert rig.newest().log_tail[-1] == LAST_LINE


def test_what_has_no_script_log_is_not_asked_for_one(qlik, rig) -> None:
    """An external program leaves none: its outcome is complete at once."""
    task = qlik.add_task("A", kind=TaskKind.EXTERNAL_PROGRAM, **FAILS)
    rig.engine.tasks()
    run(rig, task)
    rig.wait_until(lambda: not rig.engine._planner.book.in_states(*LOG_STATES))
    assert calls(qlik) == []
    assert rig.newest().log_problem == ""


def test_a_log_is_asked_for_again_after_a_restart(qlik, tmp_path: Path) -> None:
    """It was not there before the stop; the next run of the appliance publishes it."""
    hang(qlik)
    task = qlik.add_task("A", **FAILS)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        run(rig, task)
        assert qlik.wait_for(lambda: len(calls(qlik)) == 1)
    qlik.heal()
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=rig.source) as again:
        again.broker.wait_until(lambda: lasts(again, task))
        assert lasts(again, task)[-1]["logTail"][-1] == LAST_LINE
        assert again.newest().state is ExecutionState.FAILED


@pytest.mark.parametrize(
    ("bound", "value", "label"), [("LOG_LIMIT", 0, "GiB"), ("LOG_LIMIT_S", 0.5, "seconds")]
)
def test_a_log_beyond_its_bounds_is_given_up_at_once(
    qlik, rig, monkeypatch: pytest.MonkeyPatch, bound: str, value: float, label: str
) -> None:
    """A further try would meet the same bound."""
    monkeypatch.setattr(f"appliance.qlik.transport.{bound}", value)
    drip(qlik)
    task = qlik.add_task("A", **FAILS)
    run(rig, task)
    rig.wait_until(lambda: rig.newest().log_problem)
    assert rig.engine.counters()[Counter.SCRIPT_LOGS_OVER_LIMIT] == 1
    assert label in rig.newest().log_problem
    assert calls(qlik) == ["scriptlog", "scriptlog.txt"]


@pytest.mark.parametrize("has_log", [True, False])
def test_a_failure_starts_what_follows_it_once(qlik, tmp_path: Path, has_log: bool) -> None:
    """The outcome is published again with its log, or with the reason that there is none."""
    hang(qlik)
    task, successor = qlik.add_task("A", **FAILS), qlik.add_task("B", duration_s=0.0)
    with_log = qlik.add_task("C", duration_s=0.0)
    last = f"appliance/tasks/{task.id}/last"
    key = "logTail" if has_log else "logProblem"
    rules = [
        start_trigger(),
        TriggerConfig(topic=last, task=successor.id, when={"state": "failed"}),
        TriggerConfig(topic=last, task=with_log.id, when={key: {"exists": True}}),
    ]
    source = MemorySource()
    with JournaledRig(tmp_path / "tasks.db", client_of(qlik), *rules, source=source) as rig:
        run(rig, task)
        rig.broker.wait_for(successor.id, "succeeded")
        qlik.heal()
        if not has_log:
            never_there(qlik)
        rig.broker.wait_for(with_log.id, "succeeded")
        assert [rule.matched for rule in rig.engine.rules()] == [1, 1, 1]
        assert (successor.runs, with_log.runs) == (1, 1)
