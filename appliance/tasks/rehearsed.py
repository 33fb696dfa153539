"""What a rehearsal counts, and the same numbers of what really happened.

Not for: deciding what would have happened (rehearsal.py), reading what did (past.py), text
(commands/rehearsal_text.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from appliance.model import ExecutionState
from appliance.tasks.past import Past, PastRun
from appliance.tasks.selector import TaskSelector

HOUR_NS = 3600 * 10**9
MOST_NAMES = 10_000
"""Rules and tasks that are counted by themselves: a payload can name any task."""
OTHERS = "(others)"
_MOST_REASONS = 200


class Counts(msgspec.Struct):
    """What messages led to. Starts count where the start call is made, the rest by its message."""

    starts: int = 0
    merged: int = 0
    """Requests that another request's start answers."""
    rejected: int = 0
    """Wishes that the payload, the list of tasks or ``[allow]`` does not let become a start."""
    skipped: int = 0
    """Redeliveries, replays, and ``if_running = "skip"`` while the task runs."""
    expired: int = 0

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)


class Reason(msgspec.Struct):
    """Why requests led to no start: how many, and one of them."""

    rule: str
    label: str
    example: str
    seq: int
    """The first message of it; 0 if it was none."""
    count: int = 0


class Tally(msgspec.Struct):
    """Counts of one stretch of time, by rule, task, both, and hour."""

    today_ns: int = 0
    """Starts from here on are counted besides."""
    total: Counts = msgspec.field(default_factory=Counts)
    rules: dict[str, Counts] = {}
    tasks: dict[str, Counts] = {}
    """By the task's name, or its id where the name is not known."""
    pairs: dict[tuple[str, str], Counts] = {}
    """By rule and task."""
    hours: dict[int, Counts] = {}
    """By hours since 1970."""
    today: dict[tuple[str, str], int] = {}
    """Starts since ``today_ns`` by rule and task."""
    reasons: dict[tuple[str, str], Reason] = {}
    """By rule and label."""

    def count(self, what: str, rule: str, task: str, at_ns: int, by: int = 1) -> None:
        """Count something (a field of ``Counts``) of a rule and a task, each empty if unknown."""
        hour = at_ns // HOUR_NS
        rule, task = _bounded(self.rules, rule), _bounded(self.tasks, task)
        parts = [self.total, self.hours.setdefault(hour, Counts())]
        if rule:
            parts.append(self.rules.setdefault(rule, Counts()))
        if task:
            parts.append(self.tasks.setdefault(task, Counts()))
        if rule and task:
            parts.append(self.pairs.setdefault((rule, task), Counts()))
        for one in parts:
            setattr(one, what, getattr(one, what) + by)
        if what == "starts" and at_ns >= self.today_ns:
            self.today[rule, task] = self.today.get((rule, task), 0) + by

    def because(self, rule: str, label: str, example: str, seq: int) -> None:
        """Note why something led to no start."""
        key = (rule, label)
        if key not in self.reasons and len(self.reasons) >= _MOST_REASONS:
            key = ("", OTHERS)
        reason = self.reasons.setdefault(key, Reason(*key, example, seq))
        reason.count += 1


def really(past: Past, since_ns: int, until_ns: int, *, today_ns: int = 0) -> Tally:
    """What messages led to in a stretch of time, as ``tasks.db`` has it."""
    tally = Tally(today_ns)
    times: dict[int, dict[int, int]] = {}
    """By execution and message: when the message was answered by it."""
    for answer in past.answers:
        times.setdefault(answer.execution, {}).setdefault(answer.seq, answer.at_ns)
    for run in past.runs:
        if run.kind != "message" or not since_ns <= run.requested_ns < until_ns:
            continue
        task = asked_name(run.selector) if not run.task_id else run.task_name or run.task_id
        if run.begun_ns is not None:
            tally.count("starts", run.rule, task, run.begun_ns)
        elif run.state in _ENDS and not run.answered_by:
            tally.count(_ENDS[run.state], run.rule, task, run.requested_ns)
            tally.because(run.rule, run.label or run.state.value, run.reason, run.seq)
        if run.merged and not run.answered_by:
            for at_ns, count in _merges(run, times.get(run.id, {})):
                tally.count("merged", run.rule, task, at_ns, count)
    for answer in past.answers:
        if answer.execution:
            continue
        is_rejected = answer.state == ExecutionState.REJECTED
        tally.count("rejected" if is_rejected else "skipped", "", "", answer.at_ns)
        tally.because("", answer.label, "", answer.seq)
    return tally


def _merges(run: PastRun, answered: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """When requests were merged into an execution, and how many; else at its own time."""
    others = [at_ns for seq, at_ns in answered.items() if seq != run.seq][-run.merged :]
    yield from ((at_ns, 1) for at_ns in others)
    if left := run.merged - len(others):
        yield run.requested_ns, left


def asked_name(selector: TaskSelector) -> str:
    """The name of a task that was not looked up, or in words which tasks are meant."""
    return selector.value if selector.kind in {"name", "id"} else selector.text


_ENDS = {
    ExecutionState.REJECTED: "rejected",
    ExecutionState.REFUSED: "rejected",
    ExecutionState.SKIPPED: "skipped",
    ExecutionState.EXPIRED: "expired",
}


def _bounded(counts: Mapping[str, Counts], name: str) -> str:
    return name if name in counts or len(counts) < MOST_NAMES else OTHERS
