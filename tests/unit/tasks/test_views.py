"""What may be read at any moment, and what the database keeps of the past."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from appliance.model import Cause, Execution, ExecutionState
from appliance.tasks.records import Record
from appliance.tasks.store import Answer, Changes, Store
from appliance.tasks.triggers import Options
from appliance.engine_api import PAUSED
from appliance.tasks.views import (
    DAY_NS,
    LOOKING,
    MAX_EXECUTIONS,
    MAX_MESSAGES,
    WAITS_FOR_RUN,
    WAITS_FOR_SERVER,
    Views,
)
from appliance.tasks.selector import TaskSelector

NOW = 100 * DAY_NS


def execution(number: int, state: ExecutionState, **fields: object) -> Execution:
    return Execution(number, f"task-{number}", "T", state, Cause("message", number), NOW, **fields)


def show(views: Views, *executions: Execution, label: str = "") -> None:
    views.show([(one, label) for one in executions])


def test_the_newest_are_shown_and_whatever_runs() -> None:
    """Newest first, at most as many as asked for; a run that goes on is never pushed out, neither
    of the list nor of the memory."""
    views = Views()
    show(views, execution(1, ExecutionState.RUNNING))
    for number in range(2, MAX_EXECUTIONS + 500):
        show(views, execution(number, ExecutionState.SUCCEEDED))
    shown = [one.id for one in views.executions(3)]
    newest = MAX_EXECUTIONS + 499
    assert shown == [newest, newest - 1, newest - 2, 1]
    assert views.execution(2) is None
    assert views.execution(1) is not None


def test_a_wait_says_its_kind_its_reason_and_its_time() -> None:
    """From the states that users see; while the server is away nothing that needs it is tried
    before the next health check."""
    views = Views()
    waiting, retrying = ExecutionState.WAITING, ExecutionState.RETRYING
    show(
        views,
        execution(1, retrying, reason="The connection was refused.", next_attempt_ns=NOW + 1),
        execution(2, retrying, reason=f"503. Looking {LOOKING}.", next_attempt_ns=NOW + 9),
        execution(3, waiting, reason="Waits for quiet (debounce).", next_attempt_ns=NOW + 2),
        execution(4, waiting, reason="Waits for the cooldown.", next_attempt_ns=NOW + 3),
        execution(5, waiting, reason=PAUSED, next_attempt_ns=NOW + 4),
        execution(6, waiting, reason=WAITS_FOR_RUN),
        execution(7, waiting, reason=WAITS_FOR_SERVER),
        execution(8, ExecutionState.REQUESTED),
        execution(9, ExecutionState.STARTING),
        execution(10, ExecutionState.RUNNING),
        execution(11, ExecutionState.FAILED, reason="x"),
    )
    found = {one.execution: (one.kind, one.until_ns) for one in views.waits(None)}
    assert found == {
        1: ("retry", NOW + 1),
        2: ("look", NOW + 9),
        3: ("debounce", NOW + 2),
        4: ("cooldown", NOW + 3),
        5: ("paused", None),
        6: ("run", None),
        7: ("server", None),
        8: ("turn", None),
    }
    assert all(one.reason and one.name == f"T #{one.execution}" for one in views.waits(None))
    away = {one.execution: (one.kind, one.until_ns) for one in views.waits(NOW + 5)}
    assert away == found | {
        1: ("retry", NOW + 5),
        7: ("server", NOW + 5),
        8: ("server", NOW + 5),
    }


def test_a_mark_shows_what_still_happens_then_what_went_wrong() -> None:
    """Of several executions of one message the most urgent is shown, with how many there are."""
    views = Views()
    second = 1_000_000_000
    show(
        views,
        execution(1, ExecutionState.SUCCEEDED, started_ns=NOW, ended_ns=NOW + 75 * second),
        execution(3, ExecutionState.RUNNING),
    )
    views.show([(execution(2, ExecutionState.REJECTED), "403")])
    views.answer([Answer(7, number, "", NOW) for number in (1, 2, 3)])
    mark = views.marks([7, 8])[7]
    assert (mark.state, mark.execution, mark.count) == (ExecutionState.RUNNING, 3, 3)
    show(views, execution(3, ExecutionState.SUCCEEDED))
    assert views.marks([7])[7].label == "403"
    views.answer([Answer(9, 1, "", NOW)])
    assert views.marks([9])[9].label == "1m15s"
    views.answer([], moved=[(1, 2)])
    assert views.marks([9])[9].execution == 2


def test_marks_are_bounded() -> None:
    """Only the newest messages that led to anything are remembered."""
    views = Views()
    show(views, execution(1, ExecutionState.SUCCEEDED))
    views.answer([Answer(seq, 1, "", NOW) for seq in range(1, MAX_MESSAGES + 2)])
    assert not views.marks([1])
    assert views.marks([2])


def test_the_last_day_is_counted() -> None:
    """Running, waiting, failed and succeeded; what is older than a day does not count."""
    views = Views()
    show(
        views,
        execution(1, ExecutionState.SUCCEEDED, ended_ns=NOW - DAY_NS - 1),
        execution(2, ExecutionState.SUCCEEDED, ended_ns=NOW - 5),
        execution(3, ExecutionState.FAILED, ended_ns=NOW - 4),
        execution(4, ExecutionState.SKIPPED, ended_ns=NOW - 3),
        execution(5, ExecutionState.RUNNING),
        execution(6, ExecutionState.WAITING),
    )
    assert views.counts(NOW) == (1, 1, 1, 1)


def test_waits_stand_among_the_timers_by_what_they_wait_for() -> None:
    """Soonest first, at most a hundred."""
    views = Views()
    for number in range(1, 200):
        show(
            views,
            execution(
                number,
                ExecutionState.RETRYING if number == 7 else ExecutionState.WAITING,
                next_attempt_ns=NOW + number,
                reason="Waits for the cooldown after the last start." if number == 8 else "",
            ),
        )
    timers = views.timers()
    assert len(timers) == 100
    assert [one.kind for one in timers[5:9]] == ["debounce", "retry", "cooldown", "debounce"]
    assert timers[6].name == "T #7"
    assert views.timers() is timers


def record(number: int, state: ExecutionState, **fields: object) -> Record:
    one = execution(number, state, **fields)
    return Record(one, TaskSelector("id", one.task_id), Options(), 0, 0)


def test_history_is_bounded_by_age_and_count(tmp_path: Path) -> None:
    """Ended executions go when they are too old or too many; what is open stays."""
    store = Store(tmp_path / "tasks.db")
    store.open(time.time_ns())
    changes = Changes()
    for number in range(1, 101):
        old = number <= 20
        state = ExecutionState.RUNNING if number == 5 else ExecutionState.SUCCEEDED
        ended = None if number == 5 else NOW - (DAY_NS * 50 if old else 0)
        changes.records[number] = record(number, state, ended_ns=ended)
        changes.answers.append(Answer(number, number, "", NOW))
    store.write(changes)
    assert store.prune(NOW - DAY_NS, 1000, 0) == 19
    assert store.prune(NOW - DAY_NS, 30, 0) == 50
    assert len(store.records(2**62, 1000)) == 31
    assert len(store.answers(1000)) == 30
    assert [one.id for one in store.open_records()] == [5]
    store.close()


def test_records_of_an_earlier_version_stay_readable() -> None:
    """A record without the fields that came later is read with their defaults."""
    whole = msgspec.to_builtins(record(1, ExecutionState.SUCCEEDED))
    for late in ("label", "held", "hurried", "recovered", "is_slow", "log_wanted"):
        del whole[late]
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=Record)
    assert read.execution.state is ExecutionState.SUCCEEDED


def test_a_message_whose_condition_does_not_hold_is_marked():
    """In memory and bounded; what a message led to counts more."""
    views = Views()
    views.note_unmet([5, 6])
    mark = views.marks([5, 6, 7])[5]
    assert (mark.state, mark.label, mark.execution) == (ExecutionState.SKIPPED, "not met", 0)
    assert 7 not in views.marks([5, 6, 7])
    views.note_unmet(range(100, 100 + MAX_MESSAGES))
    assert not views.marks([5, 6])
    assert views.marks([100 + MAX_MESSAGES - 1])
