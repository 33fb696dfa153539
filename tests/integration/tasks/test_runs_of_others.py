"""Runs that others start are seen, however short they are, and each is told once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tasks_rig import START_TOPIC, Rig, client_of

from appliance.counters import Counter
from appliance.model import ExecutionState
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask, Site

RUNS = 14
HOUR_NS = 3600 * 1_000_000_000


@pytest.fixture
def hours() -> int:
    """How far the server's clock is ahead of the appliance's."""
    return 0


class Ahead:
    """A clock that is ahead of the system's."""

    def __init__(self, hours: int) -> None:
        self.by_ns = hours * HOUR_NS

    def __call__(self) -> int:
        return time.time_ns() + self.by_ns


@pytest.fixture
def clock(hours: int) -> Ahead:
    return Ahead(hours)


@pytest.fixture
def qlik(clock: Ahead) -> Iterator[SimulatedQlik]:
    with SimulatedQlik(site=Site(clock=clock)) as simulated:
        yield simulated


any_clock = pytest.mark.parametrize("hours", [0, 5, -5])


def open_rig(qlik: SimulatedQlik, tmp_path: Path, **settings: Any) -> Rig:
    return Rig(tmp_path / "tasks.db", client_of(qlik), **{"elsewhere_s": 0.03} | settings)


def fail_at_once(qlik: SimulatedQlik, task: SimulatedTask) -> str:
    """A run that began and ended between two looks."""
    run = qlik.run_elsewhere(task.id)
    qlik.site.finish(task.id, Outcome.FAIL)
    return run


def looks(qlik: SimulatedQlik) -> int:
    """How often runs of others were asked for."""
    return sum("stopTime" in seen.query.get("filter", "") for seen in qlik.requests)


def wait_for_looks(qlik: SimulatedQlik, count: int) -> None:
    wanted = looks(qlik) + count
    assert qlik.wait_for(lambda: looks(qlik) >= wanted)


def told(rig: Rig, run: str) -> list[str]:
    """The states of a run as they were published."""
    return [
        body["state"]
        for topic, body, *_ in rig.broker.published
        if body.get("executionId") == run and topic.endswith("/execution")
    ]


def has_all(rig: Rig, runs: list[str]) -> Callable[[], bool]:
    return lambda: set(runs) <= {one.execution_id for one in rig.engine.executions(100)}


def started(rig: Rig) -> None:
    """The first look was made: from now on runs are seen."""
    rig.wait_until(lambda: rig.engine._poller._ended_until)


@any_clock
def test_each_of_fourteen_short_failures_is_noticed_once(qlik, tmp_path: Path) -> None:
    """None of them was there at any look at what runs."""
    task = qlik.add_task("Reload sales")
    with open_rig(qlik, tmp_path) as rig:
        started(rig)
        runs = [fail_at_once(qlik, task) for _ in range(RUNS)]
        rig.wait_until(has_all(rig, runs))
        wait_for_looks(qlik, 2)
        executions = rig.engine.executions(100)
        assert [one.execution_id for one in reversed(executions)] == runs
        assert {one.cause.kind for one in executions} == {"elsewhere"}
        assert {one.state for one in executions} == {ExecutionState.FAILED}
        assert "Table not found" in executions[0].reason
        rig.broker.wait_until(lambda: told(rig, runs[-1]))
        assert all(told(rig, run).count("failed") == 1 for run in runs)
        assert qlik.starts() == 0


@any_clock
def test_a_run_is_told_once_over_restarts(qlik, clock: Ahead, tmp_path: Path) -> None:
    """What ended before the stop is known; what ended meanwhile is told after the start."""
    task = qlik.add_task("Reload sales")
    with open_rig(qlik, tmp_path) as rig:
        started(rig)
        before = fail_at_once(qlik, task)
        rig.wait_until(has_all(rig, [before]))
    meanwhile = fail_at_once(qlik, task)
    clock.by_ns += HOUR_NS // 2
    with open_rig(qlik, tmp_path, source=rig.source) as again:
        again.wait_until(has_all(again, [meanwhile]))
        wait_for_looks(qlik, 2)
        assert len(again.engine.executions(100)) == 2
        assert told(again, before) == []
        again.broker.wait_until(lambda: "failed" in told(again, meanwhile))


def test_runs_of_ours_are_never_told_as_runs_of_others(qlik, tmp_path: Path) -> None:
    """Short ones that are looked for while their call has no answer among them."""
    task = qlik.add_task("Reload sales", duration_s=0.0)
    with open_rig(qlik, tmp_path) as rig:
        started(rig)
        for number in range(1, 4):
            rig.source.put(START_TOPIC, task.id)
            rig.broker.wait_for(task.id, "succeeded", times=number)
        qlik.fail(FaultKind.DROP_AFTER, method="POST", path="/start", times=1)
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded", times=4)
        wait_for_looks(qlik, 2)
        assert {one.cause.kind for one in rig.engine.executions(100)} == {"message"}
        assert task.runs == 4


def test_a_run_of_others_during_a_call_without_an_answer_is_told_afterwards(
    qlik, tmp_path: Path
) -> None:
    """It may be the call's own run, so it is decided when the call is."""
    task = qlik.add_task("Reload sales")
    with open_rig(qlik, tmp_path) as rig:
        started(rig)
        qlik.fail(FaultKind.DELAY, method="POST", path="/start", times=1)
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "starting")
        run = fail_at_once(qlik, task)
        wait_for_looks(qlik, 2)
        assert not has_all(rig, [run])()
        qlik.heal()
        rig.wait_until(has_all(rig, [run]))
        rig.wait_until(lambda: len(rig.engine.executions(9)) == 2)
        kinds = {one.execution_id == run: one.cause.kind for one in rig.engine.executions(9)}
        assert kinds == {True: "elsewhere", False: "message"}


def test_a_run_of_a_message_that_is_read_again_is_the_message_s(qlik, tmp_path: Path) -> None:
    """After a crash the note of a start is missing: its run is found, not taken for others'."""
    task = qlik.add_task("Reload sales", duration_s=0.0)
    with open_rig(qlik, tmp_path) as rig:
        started(rig)
    # The call arrived, and the process was killed before the note of it.
    rig.source.put(START_TOPIC, task.id)
    run = qlik.site.start(task.id)
    qlik.site.finish(task.id)
    with open_rig(qlik, tmp_path, source=rig.source) as again:
        again.broker.wait_for(task.id, "succeeded")
        wait_for_looks(qlik, 2)
        (execution,) = again.engine.executions(9)
        assert (execution.execution_id, execution.cause.kind) == (run, "message")
        assert task.runs == 1


def test_no_run_is_looked_at_before_earlier_messages_are_read(qlik, tmp_path: Path) -> None:
    """One of them may have started it, in the process before a crash."""
    task = qlik.add_task("Reload sales", duration_s=600)
    with open_rig(qlik, tmp_path) as rig:
        started(rig)
    rig.source.put(START_TOPIC, task.id)
    run = qlik.site.start(task.id)
    again = open_rig(qlik, tmp_path, source=rig.source)
    before = len(qlik.requests)
    again.engine._poller.poll()
    assert len(qlik.requests) == before
    with again:
        wait_for_looks(qlik, 1)
        again.wait_until(lambda: again.engine.executions(9))
        assert again.newest().cause.kind == "message"
        again.wait_until(lambda: again.newest().execution_id == run)


def test_runs_beyond_the_bound_of_one_look_are_counted(
    qlik, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest are told."""
    monkeypatch.setattr("appliance.qlik.ended_runs.ENDED_LIMIT", 2)
    task = qlik.add_task("Reload sales")
    with open_rig(qlik, tmp_path) as rig:
        started(rig)
        with qlik.site.lock:
            runs = [fail_at_once(qlik, task) for _ in range(3)]
        rig.wait_until(has_all(rig, runs[1:]))
        rig.wait_until(
            lambda: rig.engine.counters().get(Counter.EXECUTIONS_ELSEWHERE_LEFT_OUT, 0) >= 1
        )


def test_tasks_that_are_not_ours_to_see_do_not_cost_a_list_of_tasks_each_time(
    qlik, tmp_path: Path
) -> None:
    """The list is read again once for a task that it lacks, not for each of its runs."""
    known = qlik.add_task("Reload sales")
    with open_rig(qlik, tmp_path, health_check_s=600.0) as rig:
        rig.wait_until(lambda: rig.engine._tasks.known(known.id))
        started(rig)
        stranger = qlik.add_task("Not ours")
        qlik.repository.hidden_tasks.add(stranger.id)
        before = sum(seen.path == "/qrs/reloadtask/full" for seen in qlik.requests)
        for _ in range(3):
            fail_at_once(qlik, stranger)
            wait_for_looks(qlik, 2)
        assert sum(seen.path == "/qrs/reloadtask/full" for seen in qlik.requests) == before + 1
        assert rig.engine.executions(9) == ()
