"""Requests that have not come to their end, and the way in which every change to them is noted.

Not for: deciding anything (queues.py, planner.py) or writing it down (state_store.py, store.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from appliance.model import Cause, Execution, ExecutionState, Step, Task
from appliance.tasks.payloads import Rejection
from appliance.tasks.records import Record, Reply
from appliance.tasks.selector import TaskSelector
from appliance.tasks.store import Answer, Changes, TaskHistory
from appliance.tasks.triggers import Options

SECOND_NS = 1_000_000_000
MAX_STEPS = 40
"""Steps kept of an execution: the first ten and the last thirty."""
_KNOWN_RUNS = 2000


class RequestBook:
    """All open requests, what is known of tasks and runs, and what changed since the last write.

    Not thread-safe: the ledger's lock guards it. ``known`` gives what is known of a task
    id without asking the server.
    """

    def __init__(self, known: Callable[[str], Task | None]) -> None:
        self.changes = Changes()
        """What must be written; the ledger takes it away."""
        self.told: list[tuple[Record, Execution]] = []
        """State changes that are to be told, in order: the record and what it was then."""
        self.open: dict[int, Record] = {}
        self.running: dict[int, Record] = {}
        self.followed = 0
        """How many runs were ever followed."""
        self.histories: dict[str, TaskHistory] = {}
        self.counters: dict[str, int] = {}
        self.started_by: dict[str, int] = {}
        """How many starts each rule led to, since the appliance was started."""
        self.next_id = 1
        self._known = known
        self._runs: OrderedDict[str, int] = OrderedDict()

    def _new(
        self,
        selector: TaskSelector,
        options: Options,
        cause: Cause,
        now: int,
        *,
        asked: int,
        expires: int,
        replies: tuple[Reply, ...] = (),
        run: str = "",
    ) -> Record:
        known = selector.kind == "id"
        execution = Execution(
            id=self.next_id,
            task_id=selector.value if known else "",
            task_name=self._name(selector.value) if known else selector.text,
            state=ExecutionState.RUNNING if run else ExecutionState.REQUESTED,
            cause=cause,
            requested_ns=asked,
            execution_id=run,
            usual_s=self.usual_s(selector.value) if known else None,
            steps=(Step(now, _asked_by(cause)),),
        )
        self.next_id += 1
        self.changes.meta["next_id"] = self.next_id
        record = Record(
            execution,
            selector,
            options,
            expires,
            asked,
            reply_to=replies,
            last_seq=message_of(cause),
        )
        self.open[record.id] = record
        self.changes.records[record.id] = record
        self.told.append((record, execution))
        return record

    def reject(self, cause: Cause, rejection: Rejection, now: int) -> None:
        """Note that a message led to nothing, and why."""
        state = ExecutionState.SKIPPED if rejection.harmless else ExecutionState.REJECTED
        self.changes.answers.append(Answer(cause.seq, 0, rejection.label, now, state.value))

    def _answer(self, seq: int, execution: int, now: int) -> None:
        if seq:
            self.changes.answers.append(Answer(seq, execution, "", now))

    def count(self, name: str, by: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def knows_run(self, run: str) -> bool:
        """Whether a run of the server belongs to one of our executions, open or recent."""
        return run in self._runs

    def note_run(self, run: str, execution: int) -> None:
        """Remember whose a run is (the newest 2000 are)."""
        self._runs[run] = execution
        self._runs.move_to_end(run)
        while len(self._runs) > _KNOWN_RUNS:
            self._runs.popitem(last=False)

    def usual_s(self, task_id: str) -> float | None:
        """Median duration of the task's recent successful runs, else what the server says."""
        history = self.histories.get(task_id)
        if history is None or not history.durations_s:
            task = self._known(task_id)
            return task.last_duration_s if task is not None else None
        ordered = sorted(history.durations_s)
        return ordered[len(ordered) // 2]

    def note(self, record: Record, text: str, now: int) -> None:
        """Add a step to an execution's story."""
        self._set(record, record.execution.state, record.execution.reason, now, step=text)

    def _remember(self, task_id: str, history: TaskHistory) -> None:
        self.histories[task_id] = history
        self.changes.histories[task_id] = history

    def _name(self, task_id: str) -> str:
        if (task := self._known(task_id)) is not None:
            return task.name
        history = self.histories.get(task_id)
        return history.name if history is not None else ""

    def _change(self, record: Record, **fields: object) -> None:
        record.execution = msgspec.structs.replace(record.execution, **fields)
        self.changes.records[record.id] = record

    def _set(
        self,
        record: Record,
        state: ExecutionState,
        reason: str,
        now: int,
        *,
        step: str = "",
        **fields: object,
    ) -> None:
        """Change the state, say so in the steps, and tell it if it is a new one."""
        before = record.execution
        text = step or (f"{state.value.capitalize()}: {reason}" if reason else state.value)
        steps = before.steps
        if not steps or steps[-1].text != text:
            steps = (*steps, Step(now, text))
            if len(steps) > MAX_STEPS:
                steps = (*steps[:10], *steps[-(MAX_STEPS - 10) :])
        if not before.task_name:
            # The task list may not have been there when the request came.
            fields.setdefault("task_name", self._name(before.task_id))
        self._change(record, state=state, reason=reason, steps=steps, **fields)
        if state != before.state:
            self.told.append((record, record.execution))


def message_of(cause: Cause) -> int:
    """The message that itself asked, 0 where it was somebody else (an operator repeated it)."""
    return cause.seq if cause.kind == "message" else 0


def to_ns(seconds: float) -> int:
    """Seconds as nanoseconds."""
    return int(seconds * SECOND_NS)


def _asked_by(cause: Cause) -> str:
    match cause.kind:
        case "message":
            sender = f" from {cause.client_id}" if cause.client_id else ""
            return f"Asked for by message {cause.seq} on {cause.topic}{sender}"
        case "elsewhere":
            return "Started elsewhere"
        case kind:
            return f"Asked for by {kind} {cause.rule}".rstrip()
