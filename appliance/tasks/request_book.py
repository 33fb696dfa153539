"""All requests without an outcome, and the one way in which their state changes.

Every change is noted twice: in ``changes``, which the state store writes to the database, and in
``told``, from which outcomes are published.

Not for: deciding anything (dispatcher.py, planner.py, runs.py) or writing it (store.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

from appliance.counters import Counter
from appliance.model import Cause, Execution, ExecutionState, Step, Task, sender
from appliance.tasks import states
from appliance.tasks.freshness import Freshness
from appliance.tasks.histories import TaskHistories
from appliance.tasks.payloads import Rejection
from appliance.tasks.records import Record, Reply
from appliance.tasks.selector import TaskSelector
from appliance.tasks.states import RequestState
from appliance.tasks.store import Answer, Changes, TaskHistory
from appliance.tasks.triggers import Options

SECOND_NS = 1_000_000_000
MAX_STEPS = 40
"""Steps kept of an execution: the first ten and the last thirty."""
_KNOWN_RUNS = 2000


class RequestBook:
    """Requests by state, and what changed since the last write.

    Not thread-safe: the state store's lock guards it. ``known`` gives what is known of a task id
    without asking the server.
    """

    def __init__(self, known: Callable[[str], Task | None]) -> None:
        self.changes = Changes()
        """What must be written; the state store takes it away."""
        self.ended: list[Record] = []
        """Requests that have their outcome, and after which tasks are to be started."""
        self.told: list[tuple[Record, Execution]] = []
        """Changes of the visible state, in order: the record and what users saw of it then."""
        self.open: dict[int, Record] = {}
        """Requests in a state of ``states.OPEN``."""
        self.running: dict[int, Record] = {}
        """Requests in a state of ``states.AT_SERVER``."""
        self.followed = 0
        """How many runs were ever followed."""
        self.followed_since: dict[int, int] = {}
        """Since when each run is followed, by our clock."""
        self.histories = TaskHistories(known)
        self.freshness = Freshness()
        self.counters: dict[Counter, int] = {}
        self.next_id = 1
        self._states: dict[int, RequestState] = {}
        self._by_state: dict[RequestState, dict[int, Record]] = {one: {} for one in RequestState}
        self._in_flight = 0
        self._runs: OrderedDict[str, int] = OrderedDict()

    # --- states -------------------------------------------------------------------------------

    def state_of(self, record: Record) -> RequestState | None:
        """Where a request stands; ``None`` once it is final."""
        return self._states.get(record.id)

    def is_in(self, record: Record, among: frozenset[RequestState]) -> bool:
        """Whether a request stands in one of these states."""
        return self._states.get(record.id) in among

    def in_states(self, *wanted: RequestState) -> list[Record]:
        """The requests in these states, oldest first."""
        found = [one for state in wanted for one in self._by_state[state].values()]
        return sorted(found, key=lambda one: one.id)

    def any_in(self, wanted: Iterable[RequestState]) -> bool:
        """Whether any request stands in one of these states."""
        return any(self._by_state[state] for state in wanted)

    def in_flight(self) -> int:
        """How many requests a worker has the job of."""
        return self._in_flight

    def move(
        self,
        record: Record,
        to: RequestState,
        now: int,
        *,
        reason: str | None = None,
        step: str = "",
        shown: ExecutionState | None = None,
        **fields: object,
    ) -> None:
        """Change a request's state and what users see of it, if that is another.

        ``reason`` is said to users (``None``: as before), ``step`` stands in the execution's story,
        ``shown`` is one of several visible states of ``to`` and ``fields`` are of ``Execution``.
        Raises ``TransitionError``, and nothing is changed, if the table does not have the move.
        """
        self._place(record, to)
        present = record.execution
        visible = shown or states.shown_as(to, present.state)
        if visible is present.state and reason is None and not step and not fields:
            return
        text = present.reason if reason is None else reason
        self._show(record, visible, text, now, step=step, **fields)

    def move_unseen(self, record: Record, to: RequestState) -> None:
        """Change a request's state where users see no difference. Raises as ``move`` does."""
        self._place(record, to)

    def enter(self, record: Record, state: RequestState) -> None:
        """Take up a request that is new, or that an earlier run of the appliance left."""
        self._place(record, state)

    def forget(self, record: Record) -> None:
        """Remove an execution that turned out to be another one's run."""
        self._place(record, RequestState.FORGOTTEN)
        self.changes.records.pop(record.id, None)
        self.changes.removed.add(record.id)

    def _place(self, record: Record, to: RequestState) -> None:
        """Every change of state goes through here; a move to the present state is none."""
        number = record.id
        before = self._states.get(number)
        if before is to:
            return
        states.check(before, to)
        if before is not None:
            del self._by_state[before][number]
        if to in states.FINAL:
            self._states.pop(number, None)
        else:
            self._states[number] = to
            self._by_state[to][number] = record
        self._in_flight += (to in states.IN_FLIGHT) - (before in states.IN_FLIGHT)
        if to not in states.OPEN:
            self.open.pop(number, None)
        elif number not in self.open:
            self.open[number] = record
        if to not in states.AT_SERVER:
            self.running.pop(number, None)
            self.followed_since.pop(number, None)
        elif number not in self.running:
            self.running[number] = record
            self.followed += 1

    # --- notes --------------------------------------------------------------------------------

    def new(
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
        """Make a request: pending, or running if it is made for a ``run`` that goes on already."""
        record = self.draft(
            selector, options, cause, now, asked=asked, expires=expires, replies=replies, run=run
        )
        self.next_id += 1
        self.changes.meta["next_id"] = self.next_id
        self.enter(record, RequestState.RUNNING if run else RequestState.PENDING)
        self.changes.records[record.id] = record
        self.told.append((record, record.execution))
        return record

    def draft(
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
        """The request as ``new`` would make it. It is not in the book, and nothing is changed."""
        is_known = selector.kind == "id"
        name = self.histories.name_of(selector.value) if is_known else selector.text
        execution = Execution(
            id=self.next_id,
            task_id=selector.value if is_known else "",
            task_name=name,
            state=ExecutionState.RUNNING if run else ExecutionState.REQUESTED,
            cause=cause,
            requested_ns=asked,
            execution_id=run,
            usual_s=self.histories.usual_s(selector.value) if is_known else None,
            steps=(Step(now, _asked_by(cause)),),
            reload=options.reload,
        )
        return Record(
            execution,
            selector,
            options,
            expires,
            asked,
            reply_to=replies,
            last_seq=message_of(cause),
            newest_ns=asked,
        )

    def change(self, record: Record, **fields: object) -> None:
        """Change fields of what users see of a request, besides its state; or note that it changed.

        The change is no step of its story and is not told.
        """
        record.execution = msgspec.structs.replace(record.execution, **fields)
        self.changes.records[record.id] = record

    def note(self, record: Record, text: str, now: int) -> None:
        """Add a step to an execution's story."""
        execution = record.execution
        self._show(record, execution.state, execution.reason, now, step=text)

    def _show(
        self,
        record: Record,
        state: ExecutionState,
        reason: str,
        now: int,
        *,
        step: str,
        **fields: object,
    ) -> None:
        """Let users see a state, say so in the steps, and tell it if it is a new one."""
        before = record.execution
        text = step or (f"{state.value.capitalize()}: {reason}" if reason else state.value)
        steps = before.steps
        if not steps or steps[-1].text != text:
            steps = (*steps, Step(now, text))
            if len(steps) > MAX_STEPS:
                steps = (*steps[:10], *steps[-(MAX_STEPS - 10) :])
        if not before.task_name:
            # The task list may not have been there when the request came.
            fields.setdefault("task_name", self.histories.name_of(before.task_id))
        self.change(record, state=state, reason=reason, steps=steps, **fields)
        if state != before.state:
            self.told.append((record, record.execution))

    def reject(self, cause: Cause, rejection: Rejection, now: int) -> None:
        """Note that a message led to nothing, and why."""
        state = ExecutionState.SKIPPED if rejection.harmless else ExecutionState.REJECTED
        self.changes.answers.append(Answer(cause.seq, 0, rejection.label, now, state.value))

    def answer(self, seq: int, execution: int, now: int) -> None:
        """Note that a message (0: none) is answered by an execution."""
        if seq:
            self.changes.answers.append(Answer(seq, execution, "", now))

    def remember(self, task_id: str, history: TaskHistory) -> None:
        """Keep a task's history."""
        self.histories.by_task[task_id] = history
        self.changes.histories[task_id] = history

    def count(self, counter: Counter, by: int = 1) -> None:
        """Count what happened, for the operator and the metrics."""
        self.counters[counter] = self.counters.get(counter, 0) + by

    # --- runs of the server -------------------------------------------------------------------

    def knows_run(self, run: str) -> bool:
        """Whether a run of the server belongs to one of our executions, open or recent."""
        return run in self._runs

    def execution_of(self, run: str) -> int:
        """The execution, open or recent, that a run belongs to; 0 if none is known."""
        return self._runs.get(run, 0)

    def owner_of(self, run: str) -> Record | None:
        """The open request that a run belongs to."""
        return self.open.get(self._runs.get(run, 0))

    def note_run(self, run: str, execution: int) -> None:
        """Remember which execution a run belongs to; the newest 2000 are kept."""
        self._runs[run] = execution
        self._runs.move_to_end(run)
        while len(self._runs) > _KNOWN_RUNS:
            self._runs.popitem(last=False)


def message_of(cause: Cause) -> int:
    """The message that asked, 0 where something else did (an operator repeated the message)."""
    return cause.seq if cause.kind == "message" else 0


def to_ns(seconds: float) -> int:
    """Seconds as nanoseconds."""
    return int(seconds * SECOND_NS)


def _asked_by(cause: Cause) -> str:
    match cause.kind:
        case "message":
            came_from = f" from {sender(cause.client_id)}" if cause.client_id else ""
            return f"Asked for by message {cause.seq} on {cause.topic}{came_from}"
        case "elsewhere":
            return "Started elsewhere"
        case "http":
            return f"Asked for over HTTP by {cause.rule}"
        case kind:
            return f"Asked for by {kind} {cause.rule}".rstrip()
