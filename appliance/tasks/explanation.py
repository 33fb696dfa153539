"""Why a message starts something or nothing: its whole way, asked of those who decide in earnest.

The rules give their verdicts (verdicts.py), the task list and ``[allow]`` their answers
(resolution.py), and the dispatcher says where a request would stand that does not exist
(foresight.py). Nothing is changed, noted or started.

Not for: deciding anything of its own, or drawing it (ui/views/explanation.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from appliance.engine_api import ExplainedCheck, ExplainedRule, ExplainedStart, Explanation
from appliance.model import Cause, Message, Task, outcome_of
from appliance.qlik.server import QlikError
from appliance.tasks.catalog import AllowList, KnownTasks, TaskList
from appliance.tasks.foresight import Foreseen, Foresight, met
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.payloads import Rejection, WantedStart
from appliance.tasks.resolution import Found, Resolution
from appliance.tasks.selector import TaskSelector
from appliance.tasks.state_store import StateStore
from appliance.tasks.triggers import Trigger
from appliance.tasks.verdicts import Check, Triggers, Verdict

MAX_OTHERS = 200
"""Rules whose filter does not match that an explanation names."""


MAX_STARTS = 200
"""Starts that an explanation names: a tag may mean a thousand tasks."""
_MAX_TEXT = 400
"""Characters of a text in it: a topic or a task's name may have thousands."""


class Hearing(NamedTuple):
    """Who is asked about a message, and what is known before the rules have a say."""

    triggers: Triggers
    verdicts: Sequence[Verdict]
    checks: Sequence[Check] = ()
    reasons: Sequence[str] = ()
    """In short, a sentence each."""


class _Wish(NamedTuple):
    """One start that a rule asks for, with what the list of tasks says of it."""

    message: Message
    trigger: Trigger
    start: WantedStart
    found: Found | Rejection | QlikError
    allowed: Mapping[str, ExplainedCheck]
    """What ``[allow]`` says of each task that was found."""

    @property
    def selector(self) -> TaskSelector:
        return self.start.selector

    @property
    def cause(self) -> Cause:
        message = self.message
        about = outcome_of(message)
        return Cause("message", 0, message.topic, message.client_id, self.trigger.name, about)

    def first(self, foresight: Foresight) -> Foreseen:
        """What becomes of the request by its own name: it waits so until its tasks are found."""
        options, name = self.trigger.options_of(self.start), self.selector.text
        if isinstance(self.found, Rejection):
            check = ExplainedCheck("task", False, name, self.found.label, self.found.reason)
            nothing = ExplainedStart(name, "nothing", reason=self.found.reason, checks=(check,))
            return Foreseen(nothing, options, 0)
        return foresight.one(self.selector, options, self.cause, name)

    def enters_ns(self, first: Foreseen) -> int:
        """When it enters the queues of its tasks, for the order of several."""
        return 0 if self.selector.kind == "id" else first.starts_ns or 0

    def becomes(self, foresight: Foresight, first: Foreseen) -> Iterator[Foreseen]:
        """What becomes of it for each task that it means."""
        is_by_id, name = self.selector.kind == "id", self.selector.text
        if isinstance(self.found, Rejection):
            yield first
            return
        if isinstance(self.found, QlikError):
            yield _not_known(first, self.selector, self.found)
            return
        if not is_by_id and first.starts_ns is None:
            yield first
            return
        for number, (task, reload) in enumerate(self.found):
            check, allowed = ExplainedCheck("task", True, name, _shown(task)), self.allowed[task.id]
            if not allowed.ok:
                nothing = ExplainedStart(
                    task.name, "nothing", task.id, reason=allowed.reason, checks=(check, allowed)
                )
                yield Foreseen(nothing, first.options, 0)
                continue
            one = first
            before: tuple[ExplainedCheck, ...] = ()
            if not is_by_id:
                of_task = msgspec.structs.replace(first.options, reload=reload)
                one = foresight.found(
                    first._replace(options=of_task),
                    task.id,
                    task.name,
                    self.cause,
                    is_first=number == 0,
                )
                before = first.start.checks
            # The wait by its name is over before that of the task begins.
            waits = {wait.field: wait for wait in before if wait.waits}
            checks = (waits.get(each.field, each) for each in one.start.checks)
            start = msgspec.structs.replace(
                one.start, what=task.name, checks=(check, allowed, *checks)
            )
            yield one._replace(start=start)


class Explainer:
    """Explains messages. Methods may be called from any thread, and may wait for the server."""

    def __init__(
        self, state: StateStore, tasks: TaskList, allow: AllowList, outcomes: Outcomes
    ) -> None:
        self._state = state
        self._outcomes = outcomes
        self._tasks = KnownTasks(tasks, lambda: not state.circuit.is_open)
        self._resolution = Resolution(self._tasks, allow)

    def explain(self, message: Message, hearing: Hearing) -> Explanation:
        """The whole explanation of a message."""
        found, verdicts = rules_alone(message, hearing), hearing.verdicts
        goes_on = all(one.ok for one in hearing.checks)
        asking = [one for one in verdicts if one.starts]
        starts, unforeseen = self._starts(asking) if goes_on else ({}, 0)
        room, left_out, rules = MAX_STARTS, 0, []
        for rule, verdict in zip(found.rules, verdicts, strict=True):
            own = starts.get(verdict.trigger, [])
            rules.append(msgspec.structs.replace(rule, starts=tuple(own[:room])))
            left_out += max(len(own) - room, 0)
            room = max(room - len(own), 0)
        return msgspec.structs.replace(
            found,
            rules=tuple(rules),
            starts_left_out=left_out,
            unforeseen=unforeseen,
            is_whole=True,
            taken_ns=self._state.clock_ns(),
        )

    def _starts(
        self, verdicts: Sequence[Verdict]
    ) -> tuple[dict[Trigger, list[ExplainedStart]], int]:
        """The starts of each rule, and how many requests may come before them unforeseen."""
        # The server may have to be asked: not under the lock.
        known: dict[object, Any] = {}
        wishes = [self._wish(one, start, known) for one in verdicts for start in one.starts]
        # Those that name their task by its id go without the list of tasks, so they are first.
        wishes.sort(key=lambda one: one.selector.kind != "id")
        with self._state.lock:
            circuit = self._state.circuit
            foresight = Foresight(
                self._state.planner,
                circuit.next_check_ns if circuit.is_open else None,
                self._state.clock_ns(),
            )
            firsts = [one.first(foresight) for one in wishes]
            asked = list(zip(wishes, map(foresight.renewed, firsts), strict=True))
            # The others enter the queues of their tasks as the waits by their names are over.
            asked.sort(key=lambda each: each[0].enters_ns(each[1]))
            foreseen = [
                (wish, one) for wish, first in asked for one in wish.becomes(foresight, first)
            ]
            renewed = [foresight.renewed(one) for _, one in foreseen]
            all_met = met(renewed, foresight.earlier)
            unforeseen = foresight.unforeseen([one.start for one in all_met])
        starts: dict[Trigger, list[ExplainedStart]] = {one.trigger: [] for one in verdicts}
        for (wish, _), one in zip(foreseen, all_met, strict=True):
            starts[wish.trigger].append(one.start)
        return starts, unforeseen

    def _wish(self, verdict: Verdict, start: WantedStart, known: dict[object, Any]) -> _Wish:
        """``known`` has what was found for other rules: many may ask for the same."""
        if start not in known:
            known[start] = self._found(verdict.message, start)
        found = known[start]
        tasks = () if isinstance(found, Rejection | QlikError) else found
        for task, _ in tasks:
            if task.id not in known:
                known[task.id] = self._allowed(task)
        allowed = {task.id: known[task.id] for task, _ in tasks}
        return _Wish(verdict.message, verdict.trigger, start, found, allowed)

    def _found(self, message: Message, start: WantedStart) -> Found | Rejection | QlikError:
        """The tasks that a start means. A task id is taken as it is, known or not."""
        about = outcome_of(message)
        try:
            return self._resolution.resolve(
                start.selector,
                start.reload,
                lambda task: task == about or self._outcomes.is_about(message.topic, task),
            )
        except QlikError as error:
            return error

    def _allowed(self, task: Task) -> ExplainedCheck:
        try:
            refusal = self._resolution.refusal(task.id)
        except QlikError as error:
            return ExplainedCheck("[allow]", True, "", "not known", str(error), waits=True)
        if refusal is not None:
            return ExplainedCheck("[allow]", False, "", "does not have it", refusal.reason)
        return ExplainedCheck("[allow]", True, found="may be started")


def _not_known(first: Foreseen, selector: TaskSelector, error: QlikError) -> Foreseen:
    """A start whose tasks the server would have to name, which does not answer."""
    reason = f"The server can't be asked for its tasks: {error}"
    check = ExplainedCheck("task", True, selector.text, "not known", reason, waits=True)
    start = msgspec.structs.replace(first.start, checks=(check, *first.start.checks))
    if selector.kind != "id" and start.effect == "start":
        start = msgspec.structs.replace(
            start, effect="wait", at_ns=None, is_guess=True, reason=reason
        )
    return first._replace(start=start, draft=None)


def rules_alone(message: Message, hearing: Hearing) -> Explanation:
    """What the rules say, without tasks and waits."""
    triggers, verdicts = hearing.triggers, hearing.verdicts
    matching = {one.trigger for one in verdicts}
    others = [one for one in triggers.rules if one not in matching]
    return Explanation(
        message.topic,
        seq=message.seq,
        checks=tuple(map(_explained, hearing.checks)),
        rules=tuple(_rule(one.trigger, one.checks) for one in verdicts),
        others=tuple(
            _rule(one, (Check("topic", False, one.topic, message.topic),))
            for one in others[:MAX_OTHERS]
        ),
        others_count=len(others),
        reasons=tuple(map(_cut, hearing.reasons)),
        is_whole=False,
    )


def _rule(trigger: Trigger, checks: Sequence[Check]) -> ExplainedRule:
    return ExplainedRule(
        trigger.name, trigger.topic, trigger.target, tuple(map(_explained, checks))
    )


def _explained(check: Check) -> ExplainedCheck:
    wanted, found, reason = map(_cut, (check.wanted, check.found, check.reason))
    return ExplainedCheck(check.field, check.ok, wanted, found, reason)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _shown(task: Task) -> str:
    parts = [f'"{task.name}"', task.id]
    if task.app_name:
        parts.append(f"app {task.app_name}")
    if not task.enabled:
        parts.append("disabled")
    return ", ".join(parts)
