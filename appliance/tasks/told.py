"""What the journal tells of requests that ``tasks.db`` does not know, or knows an older state of.

Each change of a request's state is published on the appliance's own topics, and the journal keeps
what is published. ``tasks.db`` may be behind the journal: it was lost or damaged and begun anew, it
came from a backup, or a power cut took its last seconds. A start reads these messages and learns
which executions there were, their runs at the server, and which messages they answer. So a message
that is read again starts nothing that was started before.

An execution answers the message that caused it and the requests that were merged into it: as many
of the following messages for the same task as its outcome says (``merged``).

Not for: looking at the server (runner.py), or what was published (published.py).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from appliance.model import APP, Cause, Execution, ExecutionState, Message, ReloadOptions, Step
from appliance.tasks.histories import with_duration
from appliance.tasks.queues import merges
from appliance.tasks.records import Record
from appliance.tasks.selector import TaskSelector
from appliance.tasks.store import Publication, TaskHistory
from appliance.tasks.triggers import Options

MAX_TOLD = 100_000
"""Executions that are learned of, the newest."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEHIND = "Taken from the journal: the task database did not have it."


class _Cause(msgspec.Struct):
    kind: str
    topic: str = ""
    seq: int = 0
    client: str = ""
    rule: str = ""


class _Detail(msgspec.Struct):
    at: str | None
    text: str


class _Outcome(msgspec.Struct, rename="camel"):
    """The payload of an outcome, as ``outcomes.py`` makes it."""

    execution: int
    task_id: str
    task_name: str
    state: ExecutionState
    execution_id: str
    requested: str
    started: str | None
    ended: str | None
    attempts: int
    merged: int
    reason: str
    cause: _Cause
    partial: bool = False
    variables: dict[str, str] = {}
    node: str = ""
    queued: str | None = None
    queued_seconds: float | None = None
    details: tuple[_Detail, ...] = ()


class _Alarm(msgspec.Struct, rename="camel"):
    """The payload of an alarm, as ``schedule.py`` makes it."""

    timer: str
    state: str
    since: str
    last_heard: str


_Key = tuple[str, ReloadOptions]
"""A task's id and how it is reloaded: requests that differ in either are not merged."""


class _Told:
    """An execution as the journal tells of it."""

    __slots__ = ("called_seq", "execution", "left")

    def __init__(self, execution: Execution, called_seq: int) -> None:
        self.execution = execution
        self.called_seq = called_seq
        """Place of the news of its last start call: no message behind it was merged into it."""
        self.left = execution.merged
        """Requests that were merged into it and that were not met yet."""

    @property
    def rank(self) -> int:
        return _rank(self.execution)

    def may_answer(self, message: Message) -> bool:
        cause = self.execution.cause
        is_later = (
            message.seq > cause.seq
            if _is_message(cause)
            else (message.received_ns >= self.execution.requested_ns)
        )
        return self.left > 0 and is_later


class Told:
    """Executions that the journal tells of. Not thread-safe."""

    def __init__(self, service_name: str) -> None:
        self._prefix = f"{service_name}/tasks/"
        self._alarms_prefix = f"{service_name}/alarms/"
        self.alarms: dict[str, tuple[int, int]] = {}
        """Timers whose alarm is raised: since when, and the last message that they heard."""
        self._decode = msgspec.json.Decoder(_Outcome).decode
        self._told: dict[int, _Told] = {}
        self._by_seq: dict[int, list[_Told]] = {}
        self._by_task: dict[_Key, deque[_Told]] = {}
        self._tasks_of: dict[TaskSelector, str] = {}
        self._task_named: dict[str, str] = {}
        self._newest_call: dict[_Key, tuple[int, int]] = {}
        self._met: dict[_Key, tuple[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._told)

    def note(self, message: Message) -> None:
        """Take up one of the appliance's own messages, in the journal's order."""
        if message.topic.startswith(self._alarms_prefix):
            self._note_alarm(message.payload)
            return
        outcome = self._outcome(message.topic, message.payload)
        if outcome is None:
            return
        before = self._told.pop(outcome.execution, None)
        is_call = outcome.state is ExecutionState.STARTING or before is None
        called_seq = message.seq if is_call or before is None else before.called_seq
        execution = _execution(outcome, message.received_ns)
        self._told[outcome.execution] = _Told(execution, called_seq)
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]

    def _note_alarm(self, payload: bytes) -> None:
        with contextlib.suppress(msgspec.MsgspecError, ValueError, OverflowError):
            alarm = msgspec.json.decode(payload, type=_Alarm)
            since, heard = _time_ns(alarm.since), _time_ns(alarm.last_heard)
            if alarm.state == "raised" and since and heard:
                self.alarms[alarm.timer] = (since, heard)
            else:
                self.alarms.pop(alarm.timer, None)

    def numbers_in(self, publications: Iterable[Publication]) -> set[int]:
        """The numbers of the executions that publications tell of."""
        outcomes = (self._outcome(one.topic, one.payload) for one in publications)
        return {one.execution for one in outcomes if one is not None}

    def _outcome(self, topic: str, payload: bytes) -> _Outcome | None:
        if not topic.startswith(self._prefix) or not topic.endswith("/execution"):
            return None
        # An earlier release may have told it otherwise.
        with contextlib.suppress(msgspec.MsgspecError, ValueError, OverflowError):
            outcome = self._decode(payload)
            if outcome.execution > 0 and outcome.task_id and _time_ns(outcome.requested):
                return outcome
        return None

    @property
    def numbers(self) -> list[int]:
        """The numbers of the executions, ascending."""
        return sorted(self._told)

    # --- executions -----------------------------------------------------------------------------

    def update(self, record: Record, *, is_ahead: bool) -> bool:
        """Bring a record of ``tasks.db`` to the state that the journal has; whether that is newer.

        ``is_ahead``: the record has news that were not published yet.
        """
        told = self._told.pop(record.id, None)
        if told is None:
            return False
        before, now = record.execution, told.execution
        told.left -= before.merged
        self._keep(told)
        is_same = before.task_id in {"", now.task_id} or before.task_id.startswith(APP)
        if not is_same or (
            _to_milliseconds(before.requested_ns) != _to_milliseconds(now.requested_ns)
        ):
            return False  # another execution that got the same number
        if is_ahead or before.state.is_final or told.rank < _rank(before):
            return False
        if told.rank > _rank(before):
            record.execution = msgspec.structs.replace(
                before,
                task_id=now.task_id,
                task_name=before.task_name or now.task_name,
                state=now.state,
                execution_id=now.execution_id,
                started_ns=now.started_ns,
                ended_ns=now.ended_ns,
                attempts=now.attempts,
                merged=now.merged,
                reason=now.reason,
                node=now.node,
                queued_ns=now.queued_ns,
                queued_s=now.queued_s,
                details=now.details,
                next_attempt_ns=None,
                steps=(*before.steps, *now.steps),
            )
            record.posted_ns = record.look_since_ns = None
            return True
        is_called = now.state is ExecutionState.STARTING or now.attempts > before.attempts
        if told.rank == _OPEN and is_called and record.posted_ns is None:
            # A call was made that the database does not know of.
            record.look_since_ns = record.last_asked_ns
            return True
        return False

    def unknown(self, cursor: int) -> list[Record]:
        """Records of the executions that ``update`` did not see, oldest first.

        A request without a run whose message comes again, behind ``cursor``, is left to that.
        """
        found = []
        for number in self.numbers:
            told = self._told[number]
            cause = told.execution.cause
            if told.rank == _OPEN and _is_message(cause) and cause.seq > cursor:
                continue
            self._keep(told)
            found.append(_record(told.execution))
        self._told.clear()
        return found

    def _keep(self, told: _Told) -> None:
        if told.rank == _OPEN:
            return
        execution = told.execution
        if _is_message(execution.cause):
            self._by_seq.setdefault(execution.cause.seq, []).append(told)
        key = execution.task_id, execution.reload
        self._by_task.setdefault(key, deque()).append(told)
        self._task_named[execution.task_name] = execution.task_id
        call = (told.called_seq, execution.id)
        self._newest_call[key] = max(call, self._newest_call.get(key, call))

    # --- messages -------------------------------------------------------------------------------

    def answer_to(
        self, message: Message, selector: TaskSelector, options: Options, rule: str
    ) -> int:
        """The execution that answered a message's request for a task; 0 if none is known.

        Asked for all requests of the messages that are read again, in the journal's order.
        """
        for told in self._by_seq.get(message.seq, ()):
            execution = told.execution
            if execution.reload != options.reload and selector.kind != "together":
                continue
            if selector.kind == "id":
                is_same = execution.task_id == selector.value
            else:
                is_same = execution.cause.rule == rule
                self._tasks_of[selector] = execution.task_id
            if is_same:
                self._met[execution.task_id, execution.reload] = (message.seq, execution.id)
                return execution.id
        task_id = self._task_of(selector)
        key = task_id, options.reload
        met_seq, answer = self._met.get(key, (0, 0))
        if met_seq == message.seq:
            return answer  # two rules that one message concerns ask once
        if selector.kind != "id" and merges(options):
            # It was merged into a request for the task's id once its task was found.
            return self.call_after(task_id, options.reload, message.seq)
        waiting = self._by_task.get(key, deque())
        while waiting and waiting[0].called_seq < message.seq:
            waiting.popleft()
        for told in waiting if merges(options) else ():
            if told.may_answer(message):
                told.left -= 1
                self._met[key] = (message.seq, told.execution.id)
                return told.execution.id
        return 0

    def _task_of(self, selector: TaskSelector) -> str:
        """The task that a selector means, as far as that can be told without the server."""
        match selector.kind:
            case "id":
                return selector.value
            case "name":
                return self._task_named.get(selector.value, "")
            case _:
                return self._tasks_of.get(selector, "")

    def forget(self) -> None:
        """All messages were read that may have been answered; ``call_after`` is still asked."""
        for one in (self._by_seq, self._by_task, self._tasks_of, self._met):
            one.clear()

    def call_after(self, task_id: str, reload: ReloadOptions, seq: int) -> int:
        """An execution of a task whose start call was told behind a message; 0 if there is none."""
        called_seq, number = self._newest_call.get((task_id, reload), (0, 0))
        return number if called_seq > seq else 0


_OPEN, _AT_SERVER, _ENDED = range(3)


def _is_message(cause: Cause) -> bool:
    return cause.kind == "message" and cause.seq > 0


def _rank(execution: Execution) -> int:
    if execution.state.is_final:
        return _ENDED
    return _AT_SERVER if execution.execution_id else _OPEN


def _execution(outcome: _Outcome, told_ns: int) -> Execution:
    cause = outcome.cause
    return Execution(
        id=outcome.execution,
        task_id=outcome.task_id,
        task_name=outcome.task_name,
        state=outcome.state,
        cause=Cause(cause.kind, cause.seq, cause.topic, cause.client, cause.rule),
        requested_ns=_time_ns(outcome.requested) or told_ns,
        execution_id=outcome.execution_id,
        started_ns=_time_ns(outcome.started),
        ended_ns=_time_ns(outcome.ended),
        attempts=outcome.attempts,
        reason=outcome.reason,
        merged=outcome.merged,
        node=outcome.node,
        queued_ns=_time_ns(outcome.queued),
        queued_s=outcome.queued_seconds,
        details=tuple(Step(_time_ns(one.at) or 0, one.text) for one in outcome.details),
        steps=(Step(told_ns, _BEHIND),),
        reload=ReloadOptions(outcome.partial, tuple(sorted(outcome.variables.items()))),
    )


def _record(execution: Execution) -> Record:
    options = Options(reload=execution.reload)
    asked = execution.requested_ns
    record = Record(
        execution,
        TaskSelector("id", execution.task_id),
        options,
        asked + int(options.expire_s * 1e9),
        asked,
        last_seq=execution.cause.seq if _is_message(execution.cause) else 0,
    )
    if _rank(execution) == _OPEN:
        record.execution = msgspec.structs.replace(execution, state=ExecutionState.REQUESTED)
        record.look_since_ns = asked
    return record


def history_of(executions: Iterable[Execution], history: TaskHistory) -> TaskHistory:
    """A task's history with these executions of it, oldest first, added."""
    for one in executions:
        began, ended = one.started_ns, one.ended_ns
        if one.state is ExecutionState.SUCCEEDED and began is not None and ended is not None:
            history = with_duration(history, (ended - began) / 1e9)
        is_end = one.state.is_final and bool(one.execution_id)
        history = msgspec.structs.replace(
            history,
            last_start_ns=max(history.last_start_ns, (began or 0) if one.execution_id else 0),
            last_bad=one.state.is_bad if is_end else history.last_bad,
            name=one.task_name or history.name,
        )
    return history


def _time_ns(text: str | None) -> int | None:
    """The time that ``outcomes.time_text`` wrote; raises ``ValueError``."""
    if not text:
        return None
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1000


def _to_milliseconds(at_ns: int) -> int:
    return at_ns // 1_000_000
