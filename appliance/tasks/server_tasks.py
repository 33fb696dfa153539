"""The server's tasks as rows: last outcome, what starts each, and when it is started next.

What starts a task is worked out from the rules, the timers and the server's own triggers. It
changes with these and with the list of tasks only, so it is kept until one of them is another.
Not for: starting anything (planner.py), why one message starts something or not (triggers.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from appliance.engine_api import ServerTask, ServerTasks, Starter
from appliance.model import Execution, Task
from appliance.qlik.server import TaskEvents
from appliance.tasks.overview import KnownTask
from appliance.tasks.selector import Kind, TaskSelector
from appliance.tasks.task_index import TaskIndex
from appliance.tasks.timers import TimedStart
from appliance.tasks.triggers import Trigger

_REASON = 200
"""Characters of a reason that a row has."""
_DOUBT_NS = 60_000_000_000
"""The server's clock may be off by this; the end of one run is not taken for a later one."""
_LISTED = frozenset[Kind]({"id", "name", "tag", "property"})
"""What is among the tasks if there is such a thing; an app may be reloaded without a task."""
_NAMED = 5
"""Rules and timers that a sentence names."""


class Starting(NamedTuple):
    """What starts the tasks of a list."""

    starters: Mapping[str, Sequence[Starter]]
    """By the id of the task."""
    without_task: Sequence[str]
    """Rules and timers that name a task which the list does not have."""


class _Lasting(NamedTuple):
    """What stays until the tasks or the rules are others."""

    basis: tuple[object, ...]
    tasks: TaskIndex
    starters: Mapping[str, Sequence[Starter]]
    without_task: Sequence[str]


class WhatStarts:
    """What starts each task. Thread-safe: an answer that is worked out twice is the same."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        self._lasting = _Lasting((), TaskIndex(()), {}, ())

    def of(
        self,
        tasks: Sequence[Task],
        rules: Sequence[Trigger],
        timers: Iterable[TimedStart],
        events: TaskEvents,
    ) -> Starting:
        """Rules, timers and the server's own triggers that start each task, by its id.

        Rules that start whatever a message names are left out.
        """
        basis, lasting = (tuple(tasks), rules, events), self._lasting
        if basis != lasting.basis:
            index = TaskIndex(tasks)
            starters, without_task = self._of_rules(rules, index)
            _add_events(starters, events)
            lasting = self._lasting = _Lasting(basis, index, starters, without_task)
        found = {task_id: list(starters) for task_id, starters in lasting.starters.items()}
        without_task = list(lasting.without_task)
        for timer in timers:
            state = timer.state
            starter = Starter(
                "timer",
                state.name,
                state.detail,
                enabled=not state.paused,
                next_ns=None if state.paused else state.due_ns,
            )
            meant = lasting.tasks.find(timer.selector, timer.reload)
            for task in meant:
                found.setdefault(task.id, []).append(starter)
            if not meant and timer.selector.kind in _LISTED:
                without_task.append(state.name)
        return Starting(found, without_task)

    def _of_rules(
        self, rules: Sequence[Trigger], index: TaskIndex
    ) -> tuple[dict[str, list[Starter]], list[str]]:
        found: dict[str, list[Starter]] = defaultdict(list)
        without_task: list[str] = []
        for rule in rules:
            if rule.fixed is not None:
                starter = _of_rule(rule, index, self._service_name)
                meant = index.find(rule.fixed, rule.options.reload)
                for task in meant:
                    found[task.id].append(starter)
                if not meant and rule.fixed.kind in _LISTED:
                    without_task.append(rule.name)
        return found, without_task


def _add_events(starters: dict[str, list[Starter]], events: TaskEvents) -> None:
    for one in events.schedules:
        starters[one.task_id].append(
            Starter(
                "schedule",
                one.name,
                one.text,
                enabled=one.enabled,
                next_ns=one.next_ns if one.enabled else None,
            )
        )
    for each in events.chains:
        is_joint = each.within_s and len(each.after) > 1
        detail = f"all within {_duration(each.within_s)}" if is_joint else ""
        starters[each.task_id].append(
            Starter("chain", each.name, detail, enabled=each.enabled, after=each.after)
        )


def _duration(seconds: int) -> str:
    """``2 d``, ``6 h``, ``90 min``, ``45 s``: in the largest unit that needs no fraction."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _of_rule(rule: Trigger, index: TaskIndex, service_name: str) -> Starter:
    """A rule; one on outcomes has the tasks that it waits for, as far as it names them."""
    levels = rule.topic.split("/")
    is_of_outcomes = levels[:2] == [service_name, "tasks"]
    if not is_of_outcomes:
        return Starter("rule", rule.name, rule.topic)
    named = levels[2] if len(levels) > 2 else "#"
    on = _equals(rule.when, "state")
    if named not in ("+", "#"):
        before = [named]
    elif task_id := _equals(rule.when, "taskId"):
        before = [task_id]
    elif name := _equals(rule.when, "taskName"):
        before = [task.id for task in index.find(TaskSelector("name", name))]
    else:
        before = []
    return Starter("outcome", rule.name, rule.topic, after=tuple((one, on) for one in before))


def _equals(when: Mapping[str, Any], key: str) -> str:
    """The text that a condition wants of a member of the payload; empty if it wants no one text."""
    wanted = when.get(key)
    if isinstance(wanted, Mapping):
        wanted = wanted.get("=")
    return wanted if isinstance(wanted, str) else ""


def answer(
    known: Sequence[KnownTask],
    starting: Starting,
    rules: Iterable[Trigger],
    *,
    allows: Callable[[Task], bool],
    problem: str = "",
) -> ServerTasks:
    """The rows of these tasks, in their order."""
    return ServerTasks(
        tuple(_row(one, starting.starters.get(one.task.id, ()), allows=allows) for one in known),
        total=len(known),
        problem=problem or _without_task(starting.without_task),
        any_task=tuple(rule.name for rule in rules if rule.fixed is None),
    )


def _without_task(names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    if len(names) == 1:
        return f"The task of {shown} is not among these: it starts nothing."
    return f"{len(names)} rules or timers name tasks that are not among these: {shown}."


def _row(
    known: KnownTask, starting: Sequence[Starter], *, allows: Callable[[Task], bool]
) -> ServerTask:
    newest, task = known.newest, known.task
    state = since_ns = None
    if newest is not None:
        state, since_ns = newest.state, _since(newest)
    if _is_later(task, newest):
        newest, state, since_ns = None, task.last_state, task.last_ended_ns
    times = [one.next_ns for one in starting if one.enabled and one.next_ns is not None]
    if task.next_ns is not None:
        times.append(task.next_ns)
    return ServerTask(
        task=task,
        state=state,
        since_ns=since_ns,
        execution=0 if newest is None else newest.id,
        reason=newest.reason[:_REASON] if newest is not None and newest.state.is_bad else "",
        usual_s=known.usual_s,
        next_ns=min(times, default=None),
        starters=tuple(starting),
        is_allowed=allows(task),
    )


def _is_later(task: Task, newest: Execution | None) -> bool:
    """Whether the server tells of a run that ended after the newest execution that is known."""
    if task.last_ended_ns is None or (newest is not None and not newest.state.is_final):
        return False
    return newest is None or task.last_ended_ns > _since(newest) + _DOUBT_NS


def _since(execution: Execution) -> int:
    return execution.ended_ns or execution.started_ns or execution.requested_ns
