"""Which tasks fail, and which starts wait longer than they should."""

from __future__ import annotations

import pytest

from appliance.engine_api import PAUSED
from appliance.model import Cause, Execution, ExecutionState, Step
from appliance.tasks.last_outcomes import MAX_TASKS, SHOWN_NS, LastOutcomes
from appliance.tasks.views import MAX_NAMED, WAITS_FOR_RUN, WAITS_FOR_SERVER, Views

S = 10**9
NOW = 1_795_000_000 * S
BAD = (ExecutionState.FAILED, ExecutionState.ABORTED, ExecutionState.LOST, ExecutionState.REFUSED)


def execution(number: int, state: ExecutionState, task: str = "t", **fields) -> Execution:
    fields = {
        "execution_id": "run" if state is not ExecutionState.REFUSED else "",
        "attempts": 1,
        "ended_ns": NOW + number * S if state.is_final else None,
    } | fields
    return Execution(
        number, task, f"Task {task}", state, Cause("message", number), NOW + number * S, **fields
    )


def failing(*executions: Execution, now_ns: int = NOW + 100 * S) -> list[str]:
    views = Views()
    for one in executions:
        views.show([(one, "")])
    count, _, named = views.failing(now_ns, {})
    assert count >= len(named)
    return [f"{one.task_id} {one.state.value}" for one in named]


@pytest.mark.parametrize("state", BAD)
def test_a_task_fails_until_it_succeeds(state) -> None:
    assert failing(execution(1, state)) == [f"t {state.value}"]
    assert failing(execution(1, state), execution(2, ExecutionState.SUCCEEDED)) == []
    skipped = execution(2, ExecutionState.SKIPPED)
    assert failing(execution(1, state), skipped) == [f"t {state.value}"]


def test_a_late_log_of_an_earlier_run_makes_no_task_fail() -> None:
    """The script log comes after the next run has succeeded: the last outcome counts."""
    first = execution(1, ExecutionState.FAILED)
    late = execution(1, ExecutionState.FAILED, log_tail=("Error",))
    assert failing(first, execution(2, ExecutionState.SUCCEEDED), late) == []
    at_once = execution(2, ExecutionState.SUCCEEDED, ended_ns=first.ended_ns)
    assert failing(first, at_once, late) == []


def test_what_is_no_failure_of_a_task() -> None:
    """A request that was taken back, a message that named something else, an old failure."""
    assert failing(execution(1, ExecutionState.ABORTED, execution_id="")) == []
    assert failing(execution(1, ExecutionState.REJECTED, attempts=0)) == []
    assert failing(execution(1, ExecutionState.FAILED), now_ns=NOW + 2 * SHOWN_NS) == []


def test_failing_tasks_are_bounded_and_all_counted() -> None:
    views, outcomes = Views(), LastOutcomes()
    for number in range(MAX_NAMED + 15):
        views.show([(execution(number, ExecutionState.FAILED, f"t{number}"), "")])
    count, _, named = views.failing(NOW + 100 * S, {})
    assert (count, len(named)) == (MAX_NAMED + 15, MAX_NAMED)
    assert named[0].task_id == f"t{MAX_NAMED + 14}"  # the newest first
    for number in range(MAX_TASKS + 5):
        outcomes.note(execution(1, ExecutionState.FAILED, f"t{number}"))
    assert len(outcomes.failing(NOW)) == MAX_TASKS


def waiting(state: ExecutionState, reason: str, seconds: float, **fields) -> bool:
    views = Views()
    views.show([(execution(0, state, reason=reason, execution_id="", **fields), "")])
    count, named = views.waiting_long(NOW + int(seconds * S))
    assert count == len(named)
    return bool(count)


def test_a_start_that_waits_for_the_server_is_named() -> None:
    assert not waiting(ExecutionState.WAITING, WAITS_FOR_SERVER, 5)
    assert waiting(ExecutionState.WAITING, WAITS_FOR_SERVER, 11)
    assert waiting(ExecutionState.RETRYING, "The connection was refused.", 11)
    called = (Step(NOW, "Start call"),)
    assert waiting(ExecutionState.STARTING, "", 11, steps=called)
    assert not waiting(ExecutionState.REQUESTED, "", 11)
    assert waiting(ExecutionState.REQUESTED, "", 61)


def test_a_wait_that_was_configured_is_no_problem() -> None:
    for reason in (
        "Waits for quiet (debounce).",
        "Waits for the cooldown after the last start.",
        PAUSED,
    ):
        assert not waiting(ExecutionState.WAITING, reason, 50_000)
    assert not waiting(ExecutionState.WAITING, WAITS_FOR_RUN, 600)
    assert waiting(ExecutionState.WAITING, WAITS_FOR_RUN, 3601)
    assert not waiting(ExecutionState.RUNNING, "", 50_000)
