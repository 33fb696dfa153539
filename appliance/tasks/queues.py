"""When each request goes to the server: queues, waits, slots.

Every task has a queue. In a queue at most one request waits that further requests are merged into;
what was given to the server and has not ended is active there. ``begin`` hands out what can be
done now. No threads, clock, disk or network.

Not for: what came of it (planner.py).
"""

from __future__ import annotations

import enum
import heapq
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from appliance.model import Cause, ExecutionState, Task
from appliance.tasks.payloads import Rejection
from appliance.tasks.records import MAX_REPLIES, Record, Reply
from appliance.tasks.request_book import SECOND_NS, RequestBook, message_of, to_ns
from appliance.tasks.selector import TaskSelector
from appliance.tasks.store import TaskHistory
from appliance.tasks.triggers import Options
from appliance.tasks.views import PAUSED

KEPT_DURATIONS = 20
_WAITS_FOR_SERVER = "Waits for the Qlik server to answer."
_WAITS_FOR_RUN = "Waits for the present run to end."


class Limits(msgspec.Struct, frozen=True):
    """Bounds and waits; the defaults are what the documentation says."""

    slots: int = 4
    """Calls that start tasks, at a time."""
    max_open: int = 100_000
    """Requests that have not come to their end."""
    max_running: int | None = None
    """Runs of ours at a time; ``None``: the server's scheduler decides."""
    backoff_first_s: float = 1.0
    backoff_most_s: float = 60.0
    look_first_s: float = 2.0
    look_settle_s: float = 30.0
    """How long after a start call without an answer a look that finds nothing is believed."""
    clock_slack_s: float = 2.0
    """A run that began so long before the start call may be the one that the call began. The
    client allows for the difference of the clocks; this is for what it can't see."""
    lost_after_s: float = 60.0
    """For how long the server may know nothing of a run before it is said to be lost."""
    follow_limit_s: float = 48 * 3600.0
    """For how long one run is followed."""


class JobKind(enum.Enum):
    RESOLVE = "find the tasks"
    START = "start"
    LOOK = "look whether it was started"
    LOG = "fetch the script log"


class Job(msgspec.Struct, frozen=True):
    kind: JobKind
    record: Record


class _TaskQueue:
    __slots__ = ("active", "separate", "waiting")

    def __init__(self) -> None:
        self.waiting: Record | None = None
        self.separate: dict[int, Record] = {}
        self.active: dict[int, Record] = {}

    def __bool__(self) -> bool:
        return bool(self.waiting or self.separate or self.active)


class TaskQueues(RequestBook):
    """The book, and the order in which its requests are carried out."""

    def __init__(self, limits: Limits, known: Callable[[str], Task | None]) -> None:
        super().__init__(known)
        self.limits = limits
        self.boot_ns = 0
        """When the machine was started. What is noted as asked for before then may have been
        started since: the note of its start call may be lost in a power cut."""
        self.earlier_seq = 0
        """The journal's newest message when this process began. What it and those before it ask
        for, if nothing is noted of them, may have been started: by a call that was under way in a
        crash, or of which a power cut took the note away."""
        self.circuit_open = False
        self._queues: dict[str | TaskSelector, _TaskQueue] = {}
        self._in_flight: set[int] = set()
        self._due: list[tuple[int, int]] = []
        self._alarms: dict[int, int] = {}
        """The entry of ``_due`` that counts for each request; the others are stale."""
        self._ready: list[tuple[int, int]] = []
        """(0 for looks and look-ups, 1 for starts; id); stale where ``_is_ready`` lacks it."""
        self._is_ready: set[int] = set()
        self._logs: deque[Record] = deque()

    # --- taking requests ----------------------------------------------------------------------

    def ask(
        self,
        selector: TaskSelector,
        options: Options,
        cause: Cause,
        now: int,
        *,
        reply: Reply | None = None,
        asked_ns: int | None = None,
    ) -> int | Rejection:
        """Take a request; returns the id of the execution that answers it, new or merged into.

        ``asked_ns`` is when the message came (default ``now``); expiry counts from it.
        """
        asked = now if asked_ns is None else asked_ns
        expires = asked + to_ns(options.expire_s)
        replies = (reply,) if reply else ()
        queue = self._queue(_key(selector))
        target = queue.waiting
        if target is not None and merges(options) and now < expires:
            # Two rules that one message concerns ask once, not twice.
            seq = message_of(cause)
            is_same = seq != 0 and target.last_seq == seq
            target.last_seq = seq or target.last_seq
            self._merge(target, now, expires, replies, merged=0 if is_same else 1)
            if target.look_since_ns is not None:
                target.look_since_ns = max(target.look_since_ns, asked)
            self._answer(cause.seq, target.id, now)
            return target.id
        if len(self.open) >= self.limits.max_open:
            self.count("queue full")
            self._drop_queue(_key(selector))
            return Rejection(
                "queue full",
                f"{len(self.open)} requests wait already; this one is not taken. "
                "See why the server does not take them.",
            )
        record = self._new(
            selector, options, cause, now, asked=asked, expires=expires, replies=replies
        )
        self._answer(cause.seq, record.id, now)
        if 0 < message_of(cause) <= self.earlier_seq:
            record.look_since_ns = asked
        if selector.kind == "id" and options.if_running == "skip" and queue.active:
            self._finish(record, ExecutionState.SKIPPED, "The task runs already.", now)
        else:
            self._put_in_queue(record, now)
            self._consider(record, now)
        return record.id

    def _merge(
        self, target: Record, now: int, expires: int, replies: Iterable[Reply], *, merged: int
    ) -> None:
        target.expires_ns = max(target.expires_ns, expires)
        target.last_asked_ns = max(target.last_asked_ns, now)
        kept = target.with_replies(replies)
        if len(kept) > MAX_REPLIES:
            self.count("replies dropped", len(kept) - MAX_REPLIES)
        target.reply_to = kept[:MAX_REPLIES]
        self._change(target, merged=target.execution.merged + merged)
        if merged:
            self.count("merged", merged)
        if target.options.debounce_s:
            self._consider(target, now)

    def _put_in_queue(self, record: Record, now: int) -> None:
        """Let a request wait (again) in its queue; what waits there already is merged into it."""
        queue = self._queue(key_of(record))
        queue.active.pop(record.id, None)
        if not merges(record.options):
            queue.separate[record.id] = record
            return
        other = queue.waiting
        queue.waiting = record
        if other is not None and other is not record:
            self._absorb(record, other, now)

    def _absorb(self, target: Record, other: Record, now: int) -> None:
        """Let ``target`` answer what ``other``, which exists already, was to answer."""
        is_same = other.last_seq != 0 and other.last_seq == target.last_seq
        target.last_seq = max(target.last_seq, other.last_seq)
        self._merge(
            target,
            other.last_asked_ns,
            other.expires_ns,
            other.reply_to,
            merged=other.execution.merged + (0 if is_same else 1),
        )
        other.reply_to = ()
        self.changes.moved_answers.append((other.id, target.id))
        self._finish(other, ExecutionState.SKIPPED, f"Answered by execution {target.id}.", now)

    # --- deciding when ------------------------------------------------------------------------

    def _consider(self, record: Record, now: int) -> None:
        """Put a waiting request where it belongs now: ended, due later, behind a run, or ready."""
        if record.id not in self.open or record.id in self._in_flight or record.id in self.running:
            return
        if now >= record.expires_ns:
            self._expire(record, now)
            return
        due, state, why = self._not_before(record)
        self._wake_at(record, min(due, record.expires_ns) if due > now else record.expires_ns)
        if due > now:
            self._is_ready.discard(record.id)
            if record.execution.next_attempt_ns != due or record.execution.state != state:
                self._set(record, state, why, now, next_attempt_ns=due)
        elif record.posted_ns is None and self._blocked(record):
            self._is_ready.discard(record.id)
            if record.options.if_running == "skip":
                self._finish(record, ExecutionState.SKIPPED, "The task runs already.", now)
            elif record.execution.reason != _WAITS_FOR_RUN:
                self._set(record, ExecutionState.WAITING, _WAITS_FOR_RUN, now, next_attempt_ns=None)
        elif record.id not in self._is_ready:
            self._is_ready.add(record.id)
            is_start = record.posted_ns is None and bool(record.execution.task_id)
            heapq.heappush(self._ready, (int(is_start), record.id))
            if self.circuit_open:
                self._wait_for_server(record, now)

    def _wait_for_server(self, record: Record, now: int) -> None:
        """Say so; a request whose last call failed goes on saying why."""
        execution = record.execution
        if execution.state != ExecutionState.RETRYING and execution.reason != _WAITS_FOR_SERVER:
            self._set(record, ExecutionState.WAITING, _WAITS_FOR_SERVER, now, next_attempt_ns=None)

    def _wake_at(self, record: Record, at: int) -> None:
        # An earlier alarm finds out by itself that it is too early: many messages that put a start
        # off make one entry, not one each.
        present = self._alarms.get(record.id)
        if present is None or at < present:
            self._alarms[record.id] = at
            heapq.heappush(self._due, (at, record.id))

    def _not_before(self, record: Record) -> tuple[int, ExecutionState, str]:
        """When a request may go at the earliest, and how it is called until then."""
        options, execution = record.options, record.execution
        due, state, why = 0, ExecutionState.WAITING, ""
        if record.paused:
            return record.expires_ns, execution.state, PAUSED
        if record.expedited:
            return due, state, why
        if options.debounce_s:
            due = min(
                record.last_asked_ns + to_ns(options.debounce_s),
                execution.requested_ns + to_ns(max(options.debounce_max_s, options.debounce_s)),
            )
            why = "Waits for quiet (debounce)."
        history = self.histories.get(execution.task_id)
        if options.cooldown_s and history is not None and record.posted_ns is None:
            over = history.last_start_ns + to_ns(options.cooldown_s)
            if over > due:
                due, why = over, "Waits for the cooldown after the last start."
        retry = execution.next_attempt_ns
        if execution.state == ExecutionState.RETRYING and retry is not None and retry > due:
            due, state, why = retry, ExecutionState.RETRYING, execution.reason
        return due, state, why

    def _blocked(self, record: Record) -> bool:
        queue = self._queues.get(record.execution.task_id)
        if queue is None:
            return False
        others = [one for one in queue.active.values() if one is not record]
        if record.options.if_running != "start":
            return bool(others)
        # The cooldown counts from a start that may just be under way.
        return bool(record.options.cooldown_s) and any(one.posted_ns for one in others)

    def _expire(self, record: Record, now: int) -> None:
        if record.posted_ns is not None:
            self._finish(
                record,
                ExecutionState.LOST,
                "The answer to the start call was lost and the server could not be asked since: "
                "it may have run. Look at the task in the management console.",
                now,
                label="lost",
            )
            return
        last = record.execution.reason
        self._finish(
            record,
            ExecutionState.EXPIRED,
            "Not wanted any more when its turn came" + (f". Last: {last}" if last else "."),
            now,
            label="expired",
        )

    def begin(self, now: int) -> list[Job]:
        """Hand out what can be done now, as far as there are slots.

        A start is noted (``posted_ns``) before it is handed out; when that is written, is the
        ledger's business.
        """
        while self._due and self._due[0][0] <= now:
            at, number = heapq.heappop(self._due)
            if self._alarms.get(number) == at:
                del self._alarms[number]
                if (record := self.open.get(number)) is not None:
                    self._consider(record, now)
        jobs: list[Job] = []
        while self._ready and not self.circuit_open and self._has_slot():
            is_start, number = self._ready[0]
            if is_start and self._is_full():
                break
            heapq.heappop(self._ready)
            if number not in self._is_ready:
                continue
            self._is_ready.discard(number)
            record = self.open[number]
            self._consider(record, now)
            if number in self._is_ready:
                self._is_ready.discard(number)
                jobs.append(self._begin(record, now))
        while self._logs and not self.circuit_open and self._has_slot():
            record = self._logs.popleft()
            self._in_flight.add(record.id)
            jobs.append(Job(JobKind.LOG, record))
        return jobs

    def _has_slot(self) -> bool:
        return len(self._in_flight) < self.limits.slots

    def _is_full(self) -> bool:
        most = self.limits.max_running
        if most is None:
            return False
        ours = sum(one.execution.cause.kind != "elsewhere" for one in self.running.values())
        return ours + len(self._in_flight) >= most

    def _begin(self, record: Record, now: int) -> Job:
        self._in_flight.add(record.id)
        queue = self._queue(key_of(record))
        if queue.waiting is record:
            queue.waiting = None
        queue.separate.pop(record.id, None)
        queue.active[record.id] = record
        if record.posted_ns is None and not record.execution.task_id:
            return Job(JobKind.RESOLVE, record)
        if record.look_since_ns is not None:
            record.posted_ns, record.look_since_ns = record.look_since_ns, None
            self.count("looks after a crash")
            self._change(record)
        if record.posted_ns is not None:
            return Job(JobKind.LOOK, record)
        record.posted_ns = now
        if record.first_attempt_ns is None:
            record.first_attempt_ns = now
        record.expedited = False
        record.label = ""
        attempts = record.execution.attempts + 1
        self._set(
            record,
            ExecutionState.STARTING,
            "",
            now,
            step="Start call" if attempts == 1 else f"Start call, attempt {attempts}",
            attempts=attempts,
            next_attempt_ns=None,
        )
        return Job(JobKind.START, record)

    def next_due(self) -> int | None:
        """When ``begin`` has something to do at the earliest, if nothing else happens."""
        return self._due[0][0] if self._due else None

    # --- what an operator or the server's return changes ---------------------------------------

    def cancel(self, record: Record, by: str, now: int) -> bool:
        """Take back a request that nobody has told the server of; returns whether it could be."""
        waits = record.id in self.open and record.id not in self._in_flight
        if not waits or record.posted_ns is not None or record.id in self.running:
            return False
        self._finish(record, ExecutionState.ABORTED, f"Taken back by {by}.", now)
        return True

    def pause(self, record: Record, by: str, now: int, *, paused: bool) -> None:
        """Pause a request's wait, or let it go on."""
        record.paused = paused
        self.note(record, f"{'Paused' if paused else 'Let go on'} by {by}", now)
        self._change(record, next_attempt_ns=None)
        self._consider(record, now)

    def expedite(self, record: Record, by: str, now: int) -> None:
        """End a request's wait (not for the present run: that one has to end by itself)."""
        record.paused = False
        record.expedited = True
        self.note(record, f"Wait ended by {by}", now)
        self._change(record, next_attempt_ns=None)
        self._consider(record, now)

    def server_is_away(self, now: int) -> None:
        """The circuit opens: what could go now waits for the server, and says so."""
        self.circuit_open = True
        for number in sorted(self._is_ready):
            self._wait_for_server(self.open[number], now)

    def server_is_back(self, now: int) -> None:
        """The circuit closes: what waits for a retry is tried at once."""
        self.circuit_open = False
        for number in sorted(self._is_ready):
            ready = self.open[number]
            if ready.execution.reason == _WAITS_FOR_SERVER:
                self._set(ready, ExecutionState.REQUESTED, "", now, step="The server answers again")
        for queue in list(self._queues.values()):
            for record in (queue.waiting, *queue.separate.values(), *queue.active.values()):
                if (
                    record is not None
                    and record.execution.state == ExecutionState.RETRYING
                    and record.id not in self._in_flight
                ):
                    self._change(record, next_attempt_ns=now)
                    self._consider(record, now)

    # --- ends and small parts -----------------------------------------------------------------

    def _finish(
        self,
        record: Record,
        state: ExecutionState,
        reason: str,
        now: int,
        *,
        label: str = "",
        ended_ns: int | None = None,
        started_ns: int | None = None,
        duration_s: float | None = None,
    ) -> None:
        self._leave_queue(record)
        self.open.pop(record.id, None)
        was_running = self.running.pop(record.id, None) is not None
        self._is_ready.discard(record.id)
        self._alarms.pop(record.id, None)
        record.posted_ns = None
        record.label = label
        began = started_ns or record.execution.started_ns
        ended = ended_ns or now
        record.log_wanted = was_running and state == ExecutionState.FAILED
        record.tries = 0
        task_id = record.execution.task_id
        # What never ran is remembered only of tasks that exist: anybody can make up an id.
        if task_id and (was_running or (state.is_bad and task_id in self.histories)):
            history = self.histories.get(task_id, TaskHistory())
            record.recovered = history.last_bad and state == ExecutionState.SUCCEEDED
            if state == ExecutionState.SUCCEEDED and began is not None:
                took = duration_s if duration_s is not None else (ended - began) / SECOND_NS
                durations = (*history.durations_s, max(took, 0.0))[-KEPT_DURATIONS:]
                history = msgspec.structs.replace(history, durations_s=durations)
            name = record.execution.task_name or self._name(task_id)
            self._remember(
                task_id, msgspec.structs.replace(history, last_bad=state.is_bad, name=name)
            )
        self._set(
            record,
            state,
            reason,
            now,
            started_ns=began,
            ended_ns=ended,
            next_attempt_ns=None,
        )
        self.count(state.value)
        if record.log_wanted:
            self._logs.append(record)
        self._consider_waiting(task_id, now)

    def _consider_waiting(self, task_id: str, now: int) -> None:
        queue = self._queues.get(task_id)
        if queue is not None and queue.waiting is not None:
            self._consider(queue.waiting, now)

    def _land(self, record: Record) -> bool:
        """A job came back; whether it is still of interest."""
        self._in_flight.discard(record.id)
        return record.id in self.open

    def _queue(self, key: str | TaskSelector) -> _TaskQueue:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _TaskQueue()
        return queue

    def _drop_queue(self, key: str | TaskSelector) -> None:
        queue = self._queues.get(key)
        if queue is not None and not queue:
            del self._queues[key]

    def _leave_queue(self, record: Record) -> None:
        key = key_of(record)
        queue = self._queue(key)
        if queue.waiting is record:
            queue.waiting = None
        queue.separate.pop(record.id, None)
        queue.active.pop(record.id, None)
        self._drop_queue(key)


def _key(selector: TaskSelector) -> str | TaskSelector:
    return selector.value if selector.kind == "id" else selector


def key_of(record: Record) -> str | TaskSelector:
    return record.execution.task_id or record.selector


def merges(options: Options) -> bool:
    """Whether requests with these options may share one start."""
    return options.if_running != "start" or bool(options.debounce_s or options.cooldown_s)
