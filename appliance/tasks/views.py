"""What any thread may read at any moment, without waiting for the disk or the server.

The views hold the newest executions and what the newest messages led to. Their lock is held for
microseconds only, never over a write to the database.

Not for: the truth, which is in the database.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from appliance.engine_api import (
    HELD,
    PAUSED,
    FailingTask,
    HoldState,
    Mark,
    TimerState,
    WaitState,
    wait_name,
)
from appliance.model import Execution, ExecutionState
from appliance.tasks.last_outcomes import LastOutcomes
from appliance.tasks.store import Answer
from appliance.tasks.waits import is_too_long

MAX_EXECUTIONS = 2000
MAX_MESSAGES = 20_000
MAX_TIMERS = 100
WAITS_FOR_SERVER = "Waits for the Qlik server to answer."
WAITS_FOR_RUN = "Waits for the present run to end."
WAITS_APART = "Waits a moment, so that several appliances do not start the task at the same time."
ASKS_FOR_RUNS = "The server is asked for runs of the task that others started."
WAITS_FOR_TURN = "Waits for its turn: other calls or runs come first (max_concurrent, max_running)."
MAX_NAMED = 10
"""Failing tasks and waiting starts that are named; all are counted."""
_LOOKED_AT = 2000
"""Open requests that are looked at for starts that wait too long, the oldest first."""
_LOOK_EVERY_NS = 1_000_000_000
DAY_NS = 86400 * 1_000_000_000
ASKS_FOR_TASKS = "The server is asked for its tasks, to find the one that is meant."
LOOKING = "whether it was started"
"""Stands in the reason of each request whose start call got no answer."""
_NEVER_NS = 1 << 63
_WAITING = (ExecutionState.REQUESTED, ExecutionState.WAITING, ExecutionState.RETRYING)
_NEED_SERVER = ("server", "retry", "look", "turn")
_ACTIVE = (ExecutionState.STARTING, ExecutionState.QUEUED, ExecutionState.RUNNING)


_UNMET = Mark(ExecutionState.SKIPPED, "not met")
"""Of a message that rules listen for, and whose conditions (``when``) do not hold."""


class Failing(NamedTuple):
    """The tasks that fail."""

    total: int
    acknowledged: int
    """How many of them operators know."""
    named: tuple[FailingTask, ...]
    """The newest, those that operators know at the end; ten at most."""


class Views:
    """Snapshots of executions, marks and waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executions: OrderedDict[int, tuple[Execution, str]] = OrderedDict()
        self._open: dict[int, Execution] = {}
        self._active: set[int] = set()
        self._open_of: dict[str, dict[int, None]] = {}
        """The numbers of the open executions of each task."""
        self._last_of: OrderedDict[str, int] = OrderedDict()
        """The number of the execution of each task that ended last."""
        self._answers: OrderedDict[int, list[Answer]] = OrderedDict()
        self._ended: OrderedDict[int, tuple[int, bool]] = OrderedDict()
        self._timers: tuple[TimerState, ...] | None = ()
        self._waits: tuple[WaitState, ...] | None = ()
        self._unmet: dict[int, None] = {}
        self._last_outcomes = LastOutcomes()
        self._waiting_long: tuple[int, tuple[WaitState, ...]] = (0, ())
        self._waiting_looked_ns = 0
        self.holds: tuple[HoldState, ...] = ()
        """What is held; the state store sets it anew."""
        self.hearers: list[Callable[[Sequence[Execution]], None]] = []
        """Called with what is shown, after it is."""

    # --- writing: by the state store, after the change is durable -----------------------------

    def show(self, changed: Iterable[tuple[Execution, str]], removed: Iterable[int] = ()) -> None:
        """Show the present executions, each with its label, and no longer the removed ones."""
        changed = list(changed)
        with self._lock:
            for number in removed:
                self._executions.pop(number, None)
                self._close(number)
                self._active.discard(number)
            for execution, label in changed:
                self._show(execution, label)
            while len(self._executions) > MAX_EXECUTIONS + len(self._open):
                self._evict()
            self._timers = self._waits = None
        if self.hearers:
            executions = [execution for execution, _ in changed]
            for hear in self.hearers:
                hear(executions)

    def _show(self, execution: Execution, label: str) -> None:
        number = execution.id
        self._executions[number] = (execution, label)
        if execution.state.is_final:
            self._close(number)
            self._last_outcomes.note(execution)
            if execution.task_id:
                self._last_of[execution.task_id] = number
                self._last_of.move_to_end(execution.task_id)
                if len(self._last_of) > MAX_EXECUTIONS:
                    self._last_of.popitem(last=False)
            ended = execution.ended_ns or execution.requested_ns
            if execution.state == ExecutionState.SUCCEEDED or execution.state.is_bad:
                self._ended[number] = (ended, execution.state.is_bad)
        else:
            before = self._open.get(number)
            if before is None or before.task_id != execution.task_id:
                self._close(number)
                self._open_of.setdefault(execution.task_id, {})[number] = None
            self._open[number] = execution
        if execution.state in _ACTIVE:
            self._active.add(number)
        else:
            self._active.discard(number)

    def _close(self, number: int) -> None:
        """An execution is not open any more, or not one of the same task."""
        before = self._open.pop(number, None)
        if before is not None and (of_task := self._open_of.get(before.task_id)) is not None:
            of_task.pop(number, None)
            if not of_task:
                del self._open_of[before.task_id]

    def _evict(self) -> None:
        number, (execution, label) = self._executions.popitem(last=False)
        if number in self._open:
            self._executions[number] = (execution, label)

    def answer(self, answers: Iterable[Answer], moved: Iterable[tuple[int, int]] = ()) -> None:
        """Note what messages led to."""
        with self._lock:
            for one in answers:
                self._answers.setdefault(one.seq, []).append(one)
                if len(self._answers) > MAX_MESSAGES:
                    self._answers.popitem(last=False)
            changes = dict(moved)
            if changes:
                self._move(changes)

    def note_unmet(self, seqs: Iterable[int]) -> None:
        """Note messages that rules listen for, and whose conditions do not hold.

        In memory only: writing a row for each would cost more than the answer is worth. After a
        restart the message's own page still says it.
        """
        with self._lock:
            self._unmet.update(dict.fromkeys(seqs))
            while len(self._unmet) > MAX_MESSAGES:
                del self._unmet[next(iter(self._unmet))]

    def _move(self, changes: dict[int, int]) -> None:
        for seq, answers in self._answers.items():
            if any(one.execution in changes for one in answers):
                self._answers[seq] = [
                    msgspec.structs.replace(
                        one, execution=changes.get(one.execution, one.execution)
                    )
                    for one in answers
                ]

    # --- reading ------------------------------------------------------------------------------

    def executions(self, limit: int) -> tuple[Execution, ...]:
        """The newest ``limit`` executions and all that are active; newest first."""
        with self._lock:
            chosen: dict[int, Execution] = {}
            for number in reversed(self._executions):
                if len(chosen) >= limit:
                    break
                chosen[number] = self._executions[number][0]
            for number in self._active:
                chosen.setdefault(number, self._executions[number][0])
        return tuple(chosen[number] for number in sorted(chosen, reverse=True))

    def execution(self, number: int) -> Execution | None:
        with self._lock:
            found = self._executions.get(number)
        return found[0] if found else None

    def open_of(self, task_id: str, limit: int) -> tuple[Execution, ...]:
        """The oldest open executions of a task (empty: of tasks that are not known yet)."""
        with self._lock:
            return tuple(self._open[one] for one in islice(self._open_of.get(task_id, ()), limit))

    def last_of(self, task_id: str) -> Execution | None:
        """The execution of a task that ended last, if it is one of the newest."""
        with self._lock:
            found = self._executions.get(self._last_of.get(task_id, 0))
        return found[0] if found else None

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:
        """What each message led to; a message that no rule listens for is left out."""
        with self._lock:
            found: dict[int, Mark] = {}
            for seq in seqs:
                if answers := self._answers.get(seq):
                    if mark := self._mark(answers):
                        found[seq] = mark
                elif seq in self._unmet:
                    found[seq] = _UNMET
            return found

    def led_to(self, seq: int) -> str:
        """What a message led to, in a sentence."""
        mark = self.marks([seq]).get(seq)
        if mark is None:
            return "It started nothing."
        if not mark.execution:
            return f"It started nothing ({mark.label})."
        execution = self.execution(mark.execution)
        name = "" if execution is None else f" of {execution.task_name or execution.task_id}"
        more = f", and {mark.count - 1} more" if mark.count > 1 else ""
        return f"Execution {mark.execution}{name} answers it: {mark.state.value}{more}."

    def marked(self) -> list[int]:
        """The messages that ``marks`` knows something of, ascending."""
        with self._lock:
            return sorted({*self._answers, *self._unmet})

    def _mark(self, answers: Sequence[Answer]) -> Mark | None:
        ids = dict.fromkeys(one.execution for one in answers if one.execution)
        found = [self._executions[one] for one in ids if one in self._executions]
        if not found:
            rejected = [one for one in answers if not one.execution]
            if not rejected:
                return None
            return Mark(ExecutionState(rejected[0].state), rejected[0].label)
        execution, label = min(found, key=_urgency)
        return Mark(execution.state, label or _took(execution), execution.id, len(ids))

    def timers(self) -> tuple[TimerState, ...]:
        """The next hundred waits that end by themselves: debounce, cooldown, retry."""
        with self._lock:
            if self._timers is None:
                waiting = heapq.nsmallest(
                    MAX_TIMERS,
                    (
                        (one.next_attempt_ns, one.id, one)
                        for one in self._open.values()
                        if one.next_attempt_ns is not None
                    ),
                )
                self._timers = tuple(
                    TimerState(
                        name=wait_name(one),
                        kind=_wait_kind(one),
                        paused=one.reason == PAUSED,
                        due_ns=None if one.reason == PAUSED else due,
                        detail=one.reason,
                    )
                    for due, _, one in waiting
                )
            return self._timers

    def waits(self, next_check_ns: int | None) -> tuple[WaitState, ...]:
        """The hundred waits with the nearest time.

        ``next_check_ns`` is when the server is checked next, if it does not answer: no request is
        tried before.
        """
        with self._lock:
            if self._waits is None:
                waiting = heapq.nsmallest(
                    MAX_TIMERS,
                    (
                        (one.next_attempt_ns or _NEVER_NS, one.id, one)
                        for one in self._open.values()
                        if one.state in _WAITING
                    ),
                )
                self._waits = tuple(_wait_of(one) for *_, one in waiting)
            found = self._waits
        if next_check_ns is None:
            return found
        return tuple(_behind_check(one, next_check_ns) for one in found)

    def failing(self, now: int, known: Mapping[str, int]) -> Failing:
        """The tasks whose last requests ended badly: those that nobody knows first.

        ``known``: the executions that operators have acknowledged, by the ids of their tasks.
        """
        with self._lock:
            found = self._last_outcomes.failing(now)
        if not known:
            return Failing(len(found), 0, tuple(found[:MAX_NAMED]))
        new = [one for one in found if known.get(one.task_id) != one.execution]
        old = [one for one in found if known.get(one.task_id) == one.execution]
        return Failing(len(found), len(old), tuple((new + old)[:MAX_NAMED]))

    def failing_executions(self, now: int) -> dict[str, int]:
        """All executions that ``failing`` counts, by the ids of their tasks."""
        with self._lock:
            return self._last_outcomes.failing_executions(now)

    def waiting_long(self, now: int) -> tuple[int, tuple[WaitState, ...]]:
        """How many starts wait longer than they should, and the oldest of them.

        Looked for once a second at most.
        """
        with self._lock:
            if 0 <= now - self._waiting_looked_ns < _LOOK_EVERY_NS:
                return self._waiting_long
            self._waiting_looked_ns = now
            late = [
                _wait_of(one)
                for one in islice(self._open.values(), _LOOKED_AT)
                if is_too_long(one, why_it_waits(one)[0], now)
            ]
            self._waiting_long = (len(late), tuple(late[:MAX_NAMED]))
            return self._waiting_long

    def counts(self, now: int) -> tuple[int, int, int, int]:
        """Running, waiting, and of the last 24 hours: failed, succeeded."""
        with self._lock:
            for number, (ended, _) in list(self._ended.items()):
                if ended > now - DAY_NS:
                    break
                del self._ended[number]
            bad = sum(is_bad for _, is_bad in self._ended.values())
            running = len(self._active)
            return running, len(self._open) - running, bad, len(self._ended) - bad


def _urgency(found: tuple[Execution, str]) -> int:
    """Order of display: executions without an outcome, then bad outcomes, then good ones."""
    state = found[0].state
    if not state.is_final:
        return 0
    return 1 if state.is_bad else 2


def _wait_kind(execution: Execution) -> str:
    if execution.reason.startswith(HELD):
        return "hold"
    if execution.state == ExecutionState.RETRYING:
        return "retry"
    return "cooldown" if "cooldown" in execution.reason else "debounce"


def _wait_of(execution: Execution) -> WaitState:
    kind, reason = why_it_waits(execution)
    return WaitState(
        name=wait_name(execution),
        execution=execution.id,
        kind=kind,
        reason=reason,
        until_ns=None if kind == "paused" else execution.next_attempt_ns,
        since_ns=execution.requested_ns,
        task_id=execution.task_id,
    )


def why_it_waits(execution: Execution) -> tuple[str, str]:
    """The kind and the reason of a wait."""
    reason = execution.reason
    if execution.state is ExecutionState.STARTING:
        return "call", "The Qlik server has not answered the start call yet."
    if reason.startswith(HELD):
        return "hold", reason
    if execution.state is ExecutionState.RETRYING:
        return ("paused" if reason == PAUSED else "look" if LOOKING in reason else "retry"), reason
    if not reason:
        return "turn", WAITS_FOR_TURN
    kinds = {
        ASKS_FOR_TASKS: "turn",
        ASKS_FOR_RUNS: "turn",
        WAITS_APART: "turn",
        PAUSED: "paused",
        WAITS_FOR_SERVER: "server",
        WAITS_FOR_RUN: "run",
    }
    return kinds.get(reason, "cooldown" if "cooldown" in reason else "debounce"), reason


def _behind_check(wait: WaitState, next_check_ns: int) -> WaitState:
    """A wait as it is while the server does not answer."""
    if wait.kind not in _NEED_SERVER or (wait.until_ns or 0) >= next_check_ns:
        return wait
    if wait.kind == "turn":
        wait = msgspec.structs.replace(wait, kind="server", reason=WAITS_FOR_SERVER)
    return msgspec.structs.replace(wait, until_ns=next_check_ns)


def _took(execution: Execution) -> str:
    """Duration of an execution that has ended, in a few characters."""
    if execution.started_ns is None or execution.ended_ns is None:
        return ""
    seconds = max(0, execution.ended_ns - execution.started_ns) // 1_000_000_000
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
