"""The order of the server's tasks, what a filter hides, and the tree of chains.

A tree has a task below each task after which it is started. One with several predecessors stands
below each of them; its own followers stand below the first one only. So a tree has as many rows as
there are links, at most, and a circle ends where it began.
Not for: how a row looks (views/server_task.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from appliance.engine_api import ServerTask
from appliance.model import Execution
from appliance.ui import symbols
from appliance.ui.filters import Filter

_LAST_NS = 1 << 62
_REASON = 200
_DEEPEST = 8
"""Levels of a chain that are drawn one below the other; deeper ones stand at the same place."""


class Row(NamedTuple):
    """One row of the list."""

    item: ServerTask
    above: str = ""
    """The id of the task below which it stands; empty at the left."""
    depth: int = 0
    branch: str = ""
    """What stands before its name in a tree."""

    @property
    def key(self) -> tuple[str, str]:
        """No two rows have the same: each link between two tasks is drawn once."""
        return self.above, self.item.task.id


def _rank(one: ServerTask) -> int:
    """What needs attention first: bad outcomes, then what is under way, then the rest."""
    if one.state is None:
        return 3
    if one.state.is_bad:
        return 0
    return 2 if one.state.is_final else 1


SORTS: dict[str, Callable[[ServerTask], Any]] = {
    "name": lambda _one: 0,
    "state": _rank,
    "since": lambda one: -(one.since_ns or 0),
    "next": lambda one: one.next_ns or _LAST_NS,
    "usual": lambda one: -(one.usual_s or 0.0),
    "starters": lambda one: -len(one.starters),
}
"""What the rows can be sorted by; by name within that."""


def with_news(tasks: Iterable[ServerTask], executions: Sequence[Execution]) -> list[ServerTask]:
    """The tasks with what their newest executions are now; ``executions`` are newest first."""
    newest: dict[str, Execution] = {}
    for one in executions:
        newest.setdefault(one.task_id, one)
    return [
        _with(task, newest[task.task.id])
        if task.task.id in newest and newest[task.task.id].id >= task.execution
        else task
        for task in tasks
    ]


def _with(task: ServerTask, execution: Execution) -> ServerTask:
    since = execution.ended_ns or execution.started_ns or execution.requested_ns
    if task.since_ns is not None and since < task.since_ns and execution.state.is_final:
        return task  # the server tells of a later run
    return replace(
        task,
        state=execution.state,
        since_ns=since,
        execution=execution.id,
        reason=execution.reason[:_REASON] if execution.state.is_bad else "",
    )


def takes(wanted: Filter, one: ServerTask) -> bool:
    """Whether a filter lets a task pass."""
    task = one.task
    return (
        (not wanted.states or one.state in wanted.states)
        and (not (wanted.since or wanted.until) or wanted.takes_time(one.since_ns or 0))
        and all(name.takes(task.name) or name.takes(task.id) for name in wanted.tasks)
        and all(any(name.takes(each.name) for each in one.starters) for name in wanted.rules)
        and _takes_text(wanted, one)
    )


def _takes_text(wanted: Filter, one: ServerTask) -> bool:
    if not (wanted.texts or wanted.not_texts):
        return True
    task = one.task
    return wanted.takes_text(
        task.name,
        task.id,
        task.app_name,
        task.app_id,
        task.kind.text,
        "enabled" if task.enabled else "disabled",
        *task.tags,
        *(f"{name}={value}" for name, value in task.properties),
        *(each.name for each in one.starters),
        symbols.word(one.state) if one.state is not None else "never",
        one.reason,
    )


def ordered(tasks: Iterable[ServerTask], sort: str) -> list[ServerTask]:
    """The tasks by a column, and by name within that."""
    order = SORTS[sort]
    return sorted(tasks, key=lambda one: (order(one), one.task.name.casefold(), one.task.id))


def flat(tasks: Iterable[ServerTask]) -> list[Row]:
    """One row a task."""
    return [Row(one) for one in tasks]


def followers(tasks: Iterable[ServerTask]) -> dict[str, list[str]]:
    """The ids of the tasks that are started after each task, by its id."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for one in tasks:
        for starter in one.starters:
            for before, _on in starter.after:
                found[before][one.task.id] = None
    return {before: list(after) for before, after in found.items()}


def tree(tasks: Sequence[ServerTask], shown: Callable[[ServerTask], bool]) -> list[Row]:
    """The chains, in the order of ``tasks``: what a filter shows, and what stands above it."""
    by_id = {one.task.id: one for one in tasks}
    after = {
        before: [one for one in ids if one in by_id]
        for before, ids in _in_order(followers(tasks), by_id).items()
        if before in by_id
    }
    has_before = {one for ids in after.values() for one in ids}
    rows: list[Row] = []
    drawn: set[str] = set()
    roots = [one.task.id for one in tasks if one.task.id not in has_before]
    # What is left then stands in circles: each begins with the first of its tasks.
    for root in (*roots, *by_id):
        if root not in drawn:
            rows += _chain(root, by_id, after, drawn)
    return _kept(rows, shown)


def chain_of(tasks: Sequence[ServerTask], task_id: str) -> list[Row]:
    """The part of the tree that has a task in it: what leads to it, and all that follows."""
    after = followers(tasks)
    wanted, new = {task_id}, [task_id]
    while new:
        new = [one for before in new for one in after.get(before, ()) if one not in wanted]
        wanted.update(new)
    return tree(tasks, lambda one: one.task.id in wanted)


def _in_order(
    after: Mapping[str, list[str]], by_id: Mapping[str, ServerTask]
) -> dict[str, list[str]]:
    places = {task_id: place for place, task_id in enumerate(by_id)}
    return {
        before: sorted(ids, key=lambda one: places.get(one, 0)) for before, ids in after.items()
    }


def _chain(
    root: str,
    by_id: Mapping[str, ServerTask],
    after: Mapping[str, list[str]],
    drawn: set[str],
) -> list[Row]:
    """A task and what follows it, each task's followers once. Chains may be thousands long."""
    rows: list[Row] = []
    stack = [(root, "", 0, "", "")]
    while stack:
        task_id, above, depth, branch, indent = stack.pop()
        is_again = task_id in drawn
        rows.append(Row(by_id[task_id], above, depth, branch + ("↑ " if is_again else "")))
        if is_again:
            continue
        drawn.add(task_id)
        below = after.get(task_id, [])
        for place, follower in reversed(list(enumerate(below, 1))):
            here, onward = ("└ ", "  ") if place == len(below) else ("├ ", "│ ")
            if depth >= _DEEPEST:
                here, onward = "… ", ""
            stack.append((follower, task_id, depth + 1, indent + here, indent + onward))
    return rows


def _kept(rows: Sequence[Row], shown: Callable[[ServerTask], bool]) -> list[Row]:
    """The rows that are shown, with those above them."""
    kept: list[Row] = []
    wanted = -1  # the depth of the row above the last one that is kept
    for row in reversed(rows):
        if row.depth == wanted or shown(row.item):
            kept.append(row)
            wanted = row.depth - 1
    return kept[::-1]
