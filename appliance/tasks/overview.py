"""The server's tasks with what the appliance knows of each: newest execution, usual time, timers.

Not for: finding the tasks of a request (resolution.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from appliance.errors import UnavailableError
from appliance.model import Execution, Task
from appliance.storage.sqlite import explain
from appliance.tasks.schedule import Timing
from appliance.tasks.state_store import StateStore
from appliance.tasks.task_index import find

_AT_ONCE = 100
"""Tasks that are read while the state store is locked."""


class KnownTask(msgspec.Struct, frozen=True):
    """One task."""

    task: Task
    newest: Execution | None = None
    """Its newest execution that is kept, whoever started it."""
    usual_s: float | None = None
    """Median duration of its recent successful runs, else the last one that the server tells."""
    next_ns: int | None = None
    """When a timer of the appliance starts it next."""


def overview(state: StateStore, timing: Timing, tasks: Sequence[Task]) -> list[KnownTask]:
    """What is known of these tasks, in their order.

    Raises:
        UnavailableError: the database can't be read.
    """
    due = _next_times(timing, tasks)
    return [
        msgspec.structs.replace(one, next_ns=due.get(one.task.id)) for one in runs_of(state, tasks)
    ]


def runs_of(state: StateStore, tasks: Sequence[Task]) -> list[KnownTask]:
    """The same without the timers. The lock is free between some tasks and the next.

    Raises:
        UnavailableError: the database can't be read.
    """
    return [
        one
        for start in range(0, len(tasks), _AT_ONCE)
        for one in _some(state, tasks[start : start + _AT_ONCE])
    ]


def _some(state: StateStore, tasks: Sequence[Task]) -> list[KnownTask]:
    with state.lock:
        try:
            newest = {
                one.execution.task_id: one.execution
                for one in state.store.newest_of([task.id for task in tasks])
            }
        except sqlite3.Error as error:
            raise UnavailableError(f"The task database can't be read: {explain(error)}.") from None
        usual = {task.id: state.planner.usual_s(task.id) for task in tasks}
    return [KnownTask(task, newest.get(task.id), usual[task.id]) for task in tasks]


def _next_times(timing: Timing, tasks: Sequence[Task]) -> dict[str, int]:
    found: dict[str, int] = {}
    for selector, due_ns in timing.next_starts():
        for task in find(selector, tasks):
            found[task.id] = min(due_ns, found.get(task.id, due_ns))
    return found
