"""Chains of triggers that start each other for ever, found in the rules before they run.

A trigger may listen to outcomes (docs/triggers.md, "Chains"). A chain that comes back to one of its
tasks never ends if all its tasks can end in one and the same way: a chain that needs one task to
succeed and another to fail is a repetition with an end. Without the server's list of tasks, a name
is taken for one task, a tag or property for two.

Not for: what happens at run time, where a task is not started by its own outcome (triggers.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

import msgspec

from appliance.config.outcome_topics import outcome_problems
from appliance.config.tables import Config, OutcomeConfig, TriggerConfig
from appliance.errors import ConfigError
from appliance.model import Cause, Execution, ExecutionState, Task
from appliance.mqtt.topics import matches
from appliance.tasks.catalog import AllowList
from appliance.tasks.conditions import Condition
from appliance.tasks.invisible import bare
from appliance.tasks.outcome_forms import OutcomeForm
from appliance.tasks.outcomes import describe
from appliance.tasks.selector import TaskSelector
from appliance.tasks.task_index import ambiguity, find
from appliance.tasks.triggers import Trigger

_OUTCOMES = tuple(state for state in ExecutionState if state.is_final)
_ON_THE_WAY = (
    ExecutionState.REQUESTED,
    ExecutionState.STARTING,
    ExecutionState.QUEUED,
    ExecutionState.RUNNING,
)
"""States that a run passes whatever its outcome is."""
_KNOWN_PATHS = ("state", "cause.kind", "payload")
"""Paths of a ``when`` whose value in an outcome is known for every task of a chain."""
_PATHS_OF_TASK = ("taskId", "taskName")
_UNKNOWN_ID = "?"
"""The level of a task whose id is not known: only a wildcard matches it."""
_MOST_TASKS = 100
_MOST_OF_ONE_RULE = 20
_MOST_LOOPS = 10


class Loop(NamedTuple):
    """Triggers that start each other."""

    triggers: frozenset[int]
    """Their places in the configuration, from 1."""
    text: str
    """The chain in words."""


class _Task(NamedTuple):
    """A task that a rule starts; ``id`` and ``name`` are empty if they are not known."""

    id: str
    name: str
    selector: TaskSelector | None = None
    copy: int = 0

    @property
    def shown(self) -> str:
        if self.name:
            return f'task "{self.name}"'
        if self.selector is None:
            return f"task {self.id}"
        return self.selector.text.replace("tasks with", "a task with")


class _Rule(NamedTuple):
    number: int
    trigger: Trigger
    condition: Condition | None
    of_task: tuple[tuple[str, Condition], ...]
    """What ``when`` asks of the task, for each path of ``_PATHS_OF_TASK``."""
    targets: tuple[_Task, ...]


def find_loops(config: Config, tasks: Sequence[Task] | None = None) -> list[Loop]:
    """The loops of a valid configuration, each with as few triggers as it takes.

    ``tasks`` is the server's list, if it was asked for.
    """
    service = config.service.name
    forms = [OutcomeForm(one, service) for one in _sound_forms(config)]
    rules = list(_rules(config, tasks, {service, *(one.first_level for one in forms)}))
    known = dict.fromkeys(task for rule in rules for task in rule.targets)
    literal = "\n".join(rule.trigger.topic for rule in rules)
    # A task that a filter names goes first: the bound must not hide it.
    everyone = sorted(known, key=lambda task: not task.id or task.id not in literal)[:_MOST_TASKS]
    passes = {
        (task, rule.number): outcomes
        for rule in rules
        for task in everyone
        if (outcomes := _outcomes(rule, task, service) | _outcomes_in_forms(rule, task, forms))
    }
    kept = frozenset(everyone)
    found: list[Loop] = []
    looked_at = set()
    for outcome in _OUTCOMES:
        passing = frozenset(step for step, outcomes in passes.items() if outcome in outcomes)
        if passing in looked_at:  # the same graph again
            continue
        looked_at.add(passing)
        edges = {
            task: {
                target: rule.number
                for rule in reversed(rules)
                if (task, rule.number) in passing
                for target in rule.targets
                if target != task and target in kept
            }
            for task in everyone
        }
        for task in everyone:
            cycle = _shortest_cycle(edges, task)
            triggers = frozenset(number for number, _ in cycle)
            if not cycle or any(one.triggers <= triggers for one in found):
                continue
            ways = frozenset.intersection(*_ways(passes, task, cycle))
            found.append(Loop(triggers, _in_words(config.trigger, cycle, ways)))
    # A loop within another one was found later; the larger one says nothing more.
    smallest = [one for one in found if not any(two.triggers < one.triggers for two in found)]
    return smallest[:_MOST_LOOPS]


def _sound_forms(config: Config) -> Iterator[OutcomeConfig]:
    """The ``[[outcome]]`` tables without a problem that is said elsewhere."""
    for one in config.outcome:
        if not any(outcome_problems(one, config.limits, config.service.name)):
            yield one


def _rules(
    config: Config, tasks: Sequence[Task] | None, first_levels: Container[str]
) -> Iterator[_Rule]:
    """The triggers that outcomes may start: with a topic of outcomes and a fixed task."""
    allow = AllowList(config.allow)
    for number, table in enumerate(config.trigger, 1):
        if table.topic.partition("/")[0] not in first_levels:
            continue
        try:
            trigger = Trigger(table, number)
            if trigger.fixed is None:
                continue
            when = dict(table.when or {})
            decided = {path: test for path, test in when.items() if path in _KNOWN_PATHS}
            condition = Condition(decided, where="") if decided else None
            of_task = tuple(
                (path, Condition({path: when[path]}, where=""))
                for path in _PATHS_OF_TASK
                if path in when
            )
        except ConfigError:  # a problem that is said elsewhere
            continue
        targets = tuple(_targets(trigger.fixed, tasks, allow))[:_MOST_OF_ONE_RULE]
        yield _Rule(number, trigger, condition, of_task, targets)


def _targets(
    selector: TaskSelector, tasks: Sequence[Task] | None, allow: AllowList
) -> Iterator[_Task]:
    if tasks is not None:
        found = find(selector, tasks)
        if ambiguity(selector, found) is None:
            yield from (_Task(task.id, task.name) for task in found if allow.allows(task.id, task))
    elif selector.kind == "id":
        if allow.allows(selector.value, None) or not allow.decides_by_id(selector.value):
            yield _Task(selector.value, "")
    else:
        name = selector.value if selector.kind == "name" else ""
        copies = 2 if selector.kind in ("tag", "property") else 1
        yield from (_Task("", name, selector, copy) for copy in range(copies))


def _outcomes(rule: _Rule, task: _Task, service: str) -> frozenset[ExecutionState]:
    """With which outcomes a run of the task starts what the rule names."""
    selector = rule.trigger.fixed
    assert selector is not None
    if selector.kind in ("id", "app") and selector.value == task.id:
        return frozenset()
    topic = f"{service}/tasks/{task.id or _UNKNOWN_ID}"
    on_end = matches(rule.trigger.topic, f"{topic}/last")
    on_change = matches(rule.trigger.topic, f"{topic}/execution")
    if not on_end and not on_change:
        return frozenset()
    if on_change and any(_holds(rule, task, state) for state in _ON_THE_WAY):
        return frozenset(_OUTCOMES)
    return frozenset(state for state in _OUTCOMES if _holds(rule, task, state))


def _holds(rule: _Rule, task: _Task, state: ExecutionState) -> bool:
    """Whether the rule's ``when`` may hold for what is published of the task in this state."""
    samples = [msgspec.json.encode(describe(one)) for one in _samples(task, state)]
    return _meets(rule, task, samples)


def _samples(task: _Task, state: ExecutionState) -> list[Execution]:
    return [
        Execution(0, task.id, name, state, Cause("message", seq=1), 0, execution_id=_UNKNOWN_ID)
        # Blanks around a name may be the rule's or the task's.
        for name in dict.fromkeys((task.name, bare(task.name)))
    ]


def _outcomes_in_forms(
    rule: _Rule, task: _Task, forms: Sequence[OutcomeForm]
) -> frozenset[ExecutionState]:
    """With which outcomes an ``[[outcome]]`` about the task starts what the rule names.

    What a text says is not looked at: it may meet the rule.
    """
    selector = rule.trigger.fixed
    assert selector is not None
    if selector.kind in ("id", "app") and selector.value == task.id:
        return frozenset()
    return frozenset(
        state
        for state in _OUTCOMES
        for form in forms
        if any(_is_met(rule, task, form, one) for one in _samples(task, state))
    )


def _is_met(rule: _Rule, task: _Task, form: OutcomeForm, sample: Execution) -> bool:
    sample = msgspec.structs.replace(sample, task_id=task.id or _UNKNOWN_ID)
    if sample.state.value not in form.states or (task.name and not form.concerns(sample, None)):
        return False
    if not matches(rule.trigger.topic, form.topic(sample, None)):
        return False
    is_known = form.is_json or (form.is_name and bool(task.name))
    return not is_known or _meets(rule, task, [form.payload(sample, None)])


def _meets(rule: _Rule, task: _Task, samples: Sequence[bytes]) -> bool:
    if rule.condition is not None and not rule.condition.holds(samples[0]):
        return False
    known = {path: bool(text) for path, text in zip(_PATHS_OF_TASK, task[:2], strict=True)}
    return all(
        not known[path] or any(map(condition.holds, samples)) for path, condition in rule.of_task
    )


def _shortest_cycle(edges: dict[_Task, dict[_Task, int]], start: _Task) -> list[tuple[int, _Task]]:
    """The steps (trigger, the task that it starts) from a task back to it, if there are any."""
    before: dict[_Task, tuple[_Task, int]] = {}
    waiting = deque([start])
    while waiting:
        task = waiting.popleft()
        for target, number in edges[task].items():
            if target == start:
                steps = [(number, target)]
                while task != start:
                    earlier, by = before[task]
                    steps.append((by, task))
                    task = earlier
                return steps[::-1]
            if target not in before:
                before[target] = task, number
                waiting.append(target)
    return []


def _ways(
    passes: dict[tuple[_Task, int], frozenset[ExecutionState]],
    start: _Task,
    cycle: Sequence[tuple[int, _Task]],
) -> Iterator[frozenset[ExecutionState]]:
    task = start
    for number, target in cycle:
        yield passes[task, number]
        task = target


def _in_words(
    triggers: Sequence[TriggerConfig],
    cycle: Sequence[tuple[int, _Task]],
    ways: frozenset[ExecutionState],
) -> str:
    first = min(range(len(cycle)), key=lambda step: cycle[step][0])
    cycle = [*cycle[first:], *cycle[:first]]
    steps = []
    before = cycle[-1][1]
    for number, target in cycle:
        is_another = target.selector is not None and target.selector == before.selector
        name = triggers[number - 1].name
        by = f"[[trigger]] {number} {name}".rstrip()
        steps.append(f"{'another one' if is_another else target.shown} ({by})")
        before = target
    if len(set(steps)) == 1:
        steps = steps[:1]
    if len(ways) == len(_OUTCOMES):
        condition = ""
    else:
        condition = f" as long as each of them is {' or '.join(sorted(ways))}"
    return (
        f"[[trigger]]: a loop that never ends{condition}: an outcome of {cycle[-1][1].shown} starts"
        f" {'; its outcome starts '.join(steps)}, and so on; remove a trigger of it, or add a"
        " `when` that ends it"
    )
