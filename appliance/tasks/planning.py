"""When does each request go to the server? A state machine without threads, clock, disk, network.

Every task has a lane. In a lane at most one request waits that further requests are merged into;
what was given to the server and has not ended is active there. ``begin`` hands out what can be
done now, the other methods take in what came of it. Every change is noted in ``changes`` (what
must be written) and ``told`` (what must be told), which the ledger takes away.

Not for: doing any of the work (runner.py, following.py) or making it durable (ledger.py).
"""

from __future__ import annotations

import enum
import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from appliance.model import Cause, Execution, ExecutionState, Step, Task
from appliance.qlik.server import QlikError, Report
from appliance.tasks.payloads import Rejection
from appliance.tasks.records import MAX_REPLIES, Record, Reply
from appliance.tasks.store import Answer, Changes, TaskHistory
from appliance.tasks.triggers import Options
from appliance.tasks.views import PAUSED
from appliance.tasks.wants import Want

SECOND_NS = 1_000_000_000
KEPT_DURATIONS = 20
MAX_STEPS = 40
"""Steps kept of an execution: the first ten and the last thirty."""
_KNOWN_RUNS = 2000
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


class _Lane:
    __slots__ = ("active", "separate", "waiting")

    def __init__(self) -> None:
        self.waiting: Record | None = None
        self.separate: dict[int, Record] = {}
        self.active: dict[int, Record] = {}

    def __bool__(self) -> bool:
        return bool(self.waiting or self.separate or self.active)


class Planner:
    """All requests that have not come to their end. Not thread-safe: the ledger's lock guards it.

    ``name_of`` gives the name of a task id as far as it is known, else an empty string.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        name_of: Callable[[str], str],
        chance: random.Random,
    ) -> None:
        self.limits = limits
        self.changes = Changes()
        self.told: list[tuple[Record, Execution]] = []
        """State changes that are to be told, in order: the record and what it was then."""
        self.open: dict[int, Record] = {}
        self.running: dict[int, Record] = {}
        self.histories: dict[str, TaskHistory] = {}
        self.counters: dict[str, int] = {}
        self.started_by: dict[str, int] = {}
        """How many starts each rule led to, since the appliance was started."""
        self.circuit_open = False
        self._name_of = name_of
        self._chance = chance
        self.next_id = 1
        self._lanes: dict[str | Want, _Lane] = {}
        self._in_flight: set[int] = set()
        self._due: list[tuple[int, int]] = []
        self._alarms: dict[int, int] = {}
        """The entry of ``_due`` that counts for each request; the others are stale."""
        self._ready: list[tuple[int, int]] = []
        """(0 for looks and look-ups, 1 for starts; id); stale where ``_is_ready`` lacks it."""
        self._is_ready: set[int] = set()
        self._logs: deque[Record] = deque()
        self._runs: OrderedDict[str, int] = OrderedDict()

    # --- taking requests ----------------------------------------------------------------------

    def ask(
        self,
        want: Want,
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
        expires = asked + _ns(options.expire_s)
        replies = (reply,) if reply else ()
        lane = self._lane(_key(want))
        target = lane.waiting
        if target is not None and _merges(options) and now < expires:
            self._merge(target, now, expires, replies, merged=1)
            self._answer(cause.seq, target.id, now)
            return target.id
        if len(self.open) >= self.limits.max_open:
            self.count("queue full")
            self._drop_lane(_key(want))
            return Rejection(
                "queue full",
                f"{len(self.open)} requests wait already; this one is not taken. "
                "See why the server does not take them.",
            )
        record = self._new(want, options, cause, now, asked=asked, expires=expires, replies=replies)
        self._answer(cause.seq, record.id, now)
        if want.kind == "id" and options.if_running == "skip" and lane.active:
            self._finish(record, ExecutionState.SKIPPED, "The task runs already.", now)
        else:
            self._put_in_lane(record, now)
            self._consider(record, now)
        return record.id

    def _new(
        self,
        want: Want,
        options: Options,
        cause: Cause,
        now: int,
        *,
        asked: int,
        expires: int,
        replies: tuple[Reply, ...] = (),
        run: str = "",
    ) -> Record:
        known = want.kind == "id"
        execution = Execution(
            id=self.next_id,
            task_id=want.value if known else "",
            task_name=self._name(want.value) if known else want.text,
            state=ExecutionState.RUNNING if run else ExecutionState.REQUESTED,
            cause=cause,
            requested_ns=asked,
            execution_id=run,
            usual_s=self.usual_s(want.value) if known else None,
            steps=(Step(now, _asked_by(cause)),),
        )
        self.next_id += 1
        self.changes.meta["next_id"] = self.next_id
        record = Record(execution, want, options, expires, asked, reply_to=replies)
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

    def _merge(
        self, target: Record, now: int, expires: int, replies: Iterable[Reply], *, merged: int
    ) -> None:
        target.expires_ns = max(target.expires_ns, expires)
        target.last_asked_ns = max(target.last_asked_ns, now)
        kept = (*target.reply_to, *replies)
        if len(kept) > MAX_REPLIES:
            self.count("replies dropped", len(kept) - MAX_REPLIES)
        target.reply_to = kept[:MAX_REPLIES]
        self._change(target, merged=target.execution.merged + merged)
        self.count("merged", merged)
        if target.options.debounce_s:
            self._consider(target, now)

    def _put_in_lane(self, record: Record, now: int) -> None:
        """Let a request wait (again) in its lane; what waits there already is merged into it."""
        lane = self._lane(_key_of(record))
        lane.active.pop(record.id, None)
        if not _merges(record.options):
            lane.separate[record.id] = record
            return
        other = lane.waiting
        lane.waiting = record
        if other is not None and other is not record:
            self._absorb(record, other, now)

    def _absorb(self, target: Record, other: Record, now: int) -> None:
        """Let ``target`` answer what ``other``, which exists already, was to answer."""
        self._merge(
            target,
            other.last_asked_ns,
            other.expires_ns,
            other.reply_to,
            merged=other.execution.merged + 1,
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

    def _wake_at(self, record: Record, at: int) -> None:
        if self._alarms.get(record.id) != at:
            self._alarms[record.id] = at
            heapq.heappush(self._due, (at, record.id))

    def _not_before(self, record: Record) -> tuple[int, ExecutionState, str]:
        """When a request may go at the earliest, and how it is called until then."""
        options, execution = record.options, record.execution
        due, state, why = 0, ExecutionState.WAITING, ""
        if record.held:
            return record.expires_ns, execution.state, PAUSED
        if record.hurried:
            return due, state, why
        if options.debounce_s:
            due = min(
                record.last_asked_ns + _ns(options.debounce_s),
                execution.requested_ns + _ns(max(options.debounce_max_s, options.debounce_s)),
            )
            why = "Waits for quiet (debounce)."
        history = self.histories.get(execution.task_id)
        if options.cooldown_s and history is not None and record.posted_ns is None:
            over = history.last_start_ns + _ns(options.cooldown_s)
            if over > due:
                due, why = over, "Waits for the cooldown after the last start."
        retry = execution.next_attempt_ns
        if execution.state == ExecutionState.RETRYING and retry is not None and retry > due:
            due, state, why = retry, ExecutionState.RETRYING, execution.reason
        return due, state, why

    def _blocked(self, record: Record) -> bool:
        lane = self._lanes.get(record.execution.task_id)
        if lane is None:
            return False
        others = [one for one in lane.active.values() if one is not record]
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

        A start is noted (``posted_ns``) before it is handed out: written by the ledger before
        anybody makes the call.
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
        lane = self._lane(_key_of(record))
        if lane.waiting is record:
            lane.waiting = None
        lane.separate.pop(record.id, None)
        lane.active[record.id] = record
        if record.posted_ns is not None:
            return Job(JobKind.LOOK, record)
        if not record.execution.task_id:
            return Job(JobKind.RESOLVE, record)
        record.posted_ns = now
        if record.first_attempt_ns is None:
            record.first_attempt_ns = now
        record.hurried = False
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

    # --- what came of it ----------------------------------------------------------------------

    def resolved(self, record: Record, tasks: Sequence[Task], now: int) -> None:
        """The tasks that a want means were found: the request becomes one of each."""
        if not self._land(record):
            return
        self._leave_lane(record)
        if not tasks:
            self._finish(
                record,
                ExecutionState.REJECTED,
                f"The server lists no {record.want.text}. Check the spelling and whether the "
                "configured user may see it.",
                now,
                label="unknown task",
            )
            return
        first, *others = tasks
        for task in others:
            self._ask_for_found(record, task, now)
        lane = self._lane(first.id)
        if lane.waiting is not None and _merges(record.options):
            self._absorb(lane.waiting, record, now)
            return
        self._change(record, task_id=first.id, task_name=first.name, usual_s=self.usual_s(first.id))
        if record.options.if_running == "skip" and lane.active:
            self._finish(record, ExecutionState.SKIPPED, "The task runs already.", now)
            return
        self._set(record, record.execution.state, "", now, step=f"Found {first.name}")
        self._put_in_lane(record, now)
        self._consider(record, now)

    def _ask_for_found(self, record: Record, task: Task, now: int) -> None:
        execution = record.execution
        number = self.ask(
            Want("id", task.id),
            record.options,
            execution.cause,
            now,
            asked_ns=execution.requested_ns,
        )
        found = self.open.get(number) if isinstance(number, int) else None
        if found is not None:
            if not found.execution.task_name:
                self._change(found, task_name=task.name)
            found.reply_to = (*found.reply_to, *record.reply_to)[:MAX_REPLIES]

    def started(self, record: Record, run: str, now: int) -> None:
        """The server took it and gave the run an id."""
        if not self._land(record):
            return
        same = self.open.get(self._runs.get(run, 0))
        if same is not None and same is not record:
            # A look at what runs saw it before the answer to the call came back.
            self._forget(same)
        record.posted_ns = None
        record.seen_ns = now
        self._follow(record, run)
        task_id = record.execution.task_id
        history = self.histories.get(task_id, TaskHistory())
        self._remember(task_id, msgspec.structs.replace(history, last_start_ns=now))
        self.count("started")
        rule = record.execution.cause.rule
        self.started_by[rule] = self.started_by.get(rule, 0) + 1
        self._set(
            record,
            ExecutionState.QUEUED,
            "",
            now,
            step="The server took it",
            execution_id=run,
            next_attempt_ns=None,
        )
        self._consider_waiting(task_id, now)

    def refused(self, record: Record, reason: str, now: int) -> None:
        """The server answered that it did not start the task."""
        if not self._land(record):
            return
        record.posted_ns = None
        if self._blocked(record) and record.options.if_running == "queue_one":
            self._put_in_lane(record, now)
            self._consider(record, now)
            return
        self._finish(
            record,
            ExecutionState.REFUSED,
            reason or "The server did not start it and does not say why.",
            now,
            label="refused",
        )

    def not_allowed(self, record: Record, rejection: Rejection, now: int) -> None:
        """It must not be started at all, or never can be."""
        if self._land(record):
            record.posted_ns = None
            self._finish(
                record, ExecutionState.REJECTED, rejection.reason, now, label=rejection.label
            )

    def retry(self, record: Record, error: QlikError, now: int) -> None:
        """The call certainly did not reach the server: again later, growing, with jitter."""
        if not self._land(record):
            return
        record.posted_ns = None
        self.count("retries")
        record.tries += 1
        first = record.first_attempt_ns or now
        record.first_attempt_ns = first
        wait = self._backoff(record.tries, error.retry_after_s)
        over = first + _ns(record.options.retry_for_s)
        if now + wait >= over:
            self._finish(
                record,
                ExecutionState.EXPIRED,
                f"Given up after {record.options.retry_for_s:g} s of trying: {error}",
                now,
                label=error.label,
            )
            return
        self._set(
            record,
            ExecutionState.RETRYING,
            str(error),
            now,
            step=f"{error.label}: {error}",
            next_attempt_ns=now + wait,
        )
        self._put_in_lane(record, now)
        self._consider(record, now)

    def uncertain(self, record: Record, problem: str, now: int) -> None:
        """The answer was lost: the task may run. Look before anything else is done."""
        if not self._land(record):
            return
        record.tries = 0
        self.count("answers lost")
        self._look_later(record, f"{problem} Looking whether it was started.", now)

    def look_failed(self, record: Record, error: QlikError, now: int) -> None:
        if self._land(record):
            record.tries += 1
            self._look_later(record, f"{error} It is not known whether the task was started.", now)

    def not_found(self, record: Record, now: int) -> None:
        """A look found no run. Believed once the server had the time to begin one."""
        if not self._land(record):
            return
        assert record.posted_ns is not None
        record.tries += 1
        if now - record.posted_ns < _ns(self.limits.look_settle_s):
            self._look_later(record, record.execution.reason, now)
            return
        record.posted_ns = None
        record.tries = 0
        self._set(
            record,
            ExecutionState.REQUESTED,
            "",
            now,
            step="The server has no such run: the call did not reach it",
            next_attempt_ns=None,
        )
        self._put_in_lane(record, now)
        self._consider(record, now)

    def _look_later(self, record: Record, why: str, now: int) -> None:
        wait = min(
            self.limits.look_first_s * 2 ** min(record.tries, 10), self.limits.backoff_most_s
        )
        self._set(record, ExecutionState.RETRYING, why, now, next_attempt_ns=now + _ns(wait))
        self._consider(record, now)

    def nothing_done(self, record: Record, now: int) -> None:
        """The job was given back before it did anything (the appliance stops)."""
        if self._land(record) and record.execution.state == ExecutionState.STARTING:
            record.posted_ns = None
            self._set(record, ExecutionState.REQUESTED, "", now, step="Given back: stopping")
            self._put_in_lane(record, now)

    def _backoff(self, attempt: int, wished_s: float | None) -> int:
        seconds = min(
            self.limits.backoff_first_s * 2.0 ** min(attempt - 1, 20), self.limits.backoff_most_s
        )
        seconds *= 0.5 + self._chance.random()
        return _ns(max(seconds, wished_s or 0.0))

    def server_is_back(self, now: int) -> None:
        """The circuit closes: what waits for a retry is tried at once."""
        self.circuit_open = False
        for lane in list(self._lanes.values()):
            for record in (lane.waiting, *lane.separate.values(), *lane.active.values()):
                if (
                    record is not None
                    and record.execution.state == ExecutionState.RETRYING
                    and record.id not in self._in_flight
                ):
                    self._change(record, next_attempt_ns=now)
                    self._consider(record, now)

    # --- runs ---------------------------------------------------------------------------------

    def knows_run(self, run: str) -> bool:
        """Whether a run of the server belongs to one of our executions, open or recent."""
        return run in self._runs

    def note_run(self, run: str, execution: int) -> None:
        """Remember whose a run is (the newest 2000 are)."""
        self._runs[run] = execution
        self._runs.move_to_end(run)
        while len(self._runs) > _KNOWN_RUNS:
            self._runs.popitem(last=False)

    def found(self, record: Record, report: Report, now: int) -> None:
        """A look found the run that a call without an answer began."""
        if record.id in self._in_flight:
            self.count("found by looking")
            self.started(record, report.execution_id, now)
            self.report(record, report, now)

    def elsewhere(self, report: Report, name: str, now: int) -> None:
        """A run of a task that we know, which nobody asked us for."""
        task_id = report.task_id.lower()
        lane = self._lane(task_id)
        if self.knows_run(report.execution_id) or any(
            one.posted_ns is not None for one in lane.active.values()
        ):
            # The second: it may be the very run whose start call has no answer yet.
            self._drop_lane(task_id)
            return
        cause = Cause("elsewhere")
        want = Want("id", task_id)
        started = report.started_ns or now
        run = report.execution_id
        record = self._new(want, Options(), cause, now, asked=started, expires=now, run=run)
        record.seen_ns = now
        lane.active[record.id] = record
        self._follow(record, run)
        self._change(record, task_name=name)
        self.count("started elsewhere")
        self.report(record, report, now)

    def report(self, record: Record, report: Report, now: int) -> None:
        """The server's word on a run that is followed."""
        if record.id not in self.running:
            return
        record.seen_ns = now
        execution = record.execution
        began = report.started_ns or execution.started_ns
        if report.state.is_final:
            record.report_id = report.result_id
            record.file_reference = report.file_reference
            self._finish(
                record,
                report.state,
                report.reason,
                now,
                ended_ns=report.ended_ns or now,
                started_ns=began,
                duration_s=report.duration_s,
            )
            return
        if now - (began or execution.requested_ns) > _ns(self.limits.follow_limit_s):
            self._finish(
                record,
                ExecutionState.LOST,
                f"It still runs after {self.limits.follow_limit_s / 3600:g} hours and is not "
                "followed any longer. Look at the task in the management console.",
                now,
                label="too long",
            )
            return
        attempt = f", attempt {report.attempt} of the server" if report.attempt > 1 else ""
        reason = f"The server repeats it{attempt}." if attempt else ""
        if (execution.state, execution.started_ns, execution.reason) != (
            report.state,
            began,
            reason,
        ):
            self._set(
                record,
                report.state,
                reason,
                now,
                step=report.state.value.capitalize() + attempt,
                started_ns=began,
            )

    def missing(self, record: Record, now: int) -> None:
        """The server knows nothing of a run. Right after the start that is usual."""
        if record.id in self.running and now - (record.seen_ns or 0) > _ns(
            self.limits.lost_after_s
        ):
            self._finish(
                record,
                ExecutionState.LOST,
                "The server knows nothing of this run any more and has no result of it: its "
                "outcome can't be had. Look at the task in the management console.",
                now,
                label="lost",
            )

    def log_fetched(self, record: Record, lines: Sequence[str]) -> None:
        """The script log's last lines came (or there are none): told as the outcome once more."""
        self._in_flight.discard(record.id)
        record.log_wanted = False
        self._change(record, log_tail=tuple(lines))
        if lines:
            self.told.append((record, record.execution))

    def log_failed(self, record: Record) -> None:
        """The log could not be had: asked for three times, then left."""
        self._in_flight.discard(record.id)
        record.tries += 1
        if record.tries < 3:
            self._logs.append(record)
        else:
            self.log_fetched(record, ())

    def cancel(self, record: Record, by: str, now: int) -> bool:
        """Take back a request that nobody has told the server of; returns whether it could be."""
        waits = record.id in self.open and record.id not in self._in_flight
        if not waits or record.posted_ns is not None or record.id in self.running:
            return False
        self._finish(record, ExecutionState.ABORTED, f"Taken back by {by}.", now)
        return True

    def hold(self, record: Record, by: str, now: int, *, held: bool) -> None:
        """Pause a request's wait, or let it go on."""
        record.held = held
        self.note(record, f"{'Paused' if held else 'Let go on'} by {by}", now)
        self._change(record, next_attempt_ns=None)
        self._consider(record, now)

    def hurry(self, record: Record, by: str, now: int) -> None:
        """End a request's wait (not for the present run: that one has to end by itself)."""
        record.held = False
        record.hurried = True
        self.note(record, f"Wait ended by {by}", now)
        self._change(record, next_attempt_ns=None)
        self._consider(record, now)

    def note(self, record: Record, text: str, now: int) -> None:
        """Add a step to an execution's story."""
        self._set(record, record.execution.state, record.execution.reason, now, step=text)

    def usual_s(self, task_id: str) -> float | None:
        """Median duration of the task's recent successful runs."""
        history = self.histories.get(task_id)
        if history is None or not history.durations_s:
            return None
        ordered = sorted(history.durations_s)
        return ordered[len(ordered) // 2]

    # --- after a restart ----------------------------------------------------------------------

    def restore(self, record: Record, now: int) -> None:
        """Take up what an earlier run of the appliance left."""
        execution = record.execution
        if execution.state.is_final:
            self._logs.append(record)
            return
        self.open[record.id] = record
        lane = self._lane(_key_of(record))
        if execution.state in (ExecutionState.QUEUED, ExecutionState.RUNNING):
            lane.active[record.id] = record
            self._follow(record, execution.execution_id)
            # The time that we were away is not time in which the server knew nothing.
            record.seen_ns = now
            return
        if record.posted_ns is not None:
            lane.active[record.id] = record
            if execution.state == ExecutionState.STARTING:
                self.count("answers lost")
            self._set(
                record,
                ExecutionState.RETRYING,
                "The appliance stopped during the start call. Looking whether it was started.",
                now,
                next_attempt_ns=now,
            )
            self._consider(record, now)
            return
        if execution.state == ExecutionState.STARTING:
            self._change(record, state=ExecutionState.REQUESTED)
        self._put_in_lane(record, now)
        self._consider(record, now)

    # --- small parts --------------------------------------------------------------------------

    def count(self, name: str, by: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def _lane(self, key: str | Want) -> _Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        return lane

    def _drop_lane(self, key: str | Want) -> None:
        lane = self._lanes.get(key)
        if lane is not None and not lane:
            del self._lanes[key]

    def _land(self, record: Record) -> bool:
        """A job came back; whether it is still of interest."""
        self._in_flight.discard(record.id)
        return record.id in self.open

    def _follow(self, record: Record, run: str) -> None:
        self.running[record.id] = record
        self.note_run(run, record.id)

    def _remember(self, task_id: str, history: TaskHistory) -> None:
        self.histories[task_id] = history
        self.changes.histories[task_id] = history

    def _leave_lane(self, record: Record) -> None:
        key = _key_of(record)
        lane = self._lane(key)
        if lane.waiting is record:
            lane.waiting = None
        lane.separate.pop(record.id, None)
        lane.active.pop(record.id, None)
        self._drop_lane(key)

    def _forget(self, record: Record) -> None:
        """Remove an execution that turned out to be another one."""
        self._leave_lane(record)
        self.open.pop(record.id, None)
        self.running.pop(record.id, None)
        self._alarms.pop(record.id, None)
        self.changes.records.pop(record.id, None)
        self.changes.removed.add(record.id)

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
        self._leave_lane(record)
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
        task_id = record.execution.task_id
        if was_running and task_id:
            history = self.histories.get(task_id, TaskHistory())
            if state == ExecutionState.SUCCEEDED and began is not None:
                took = duration_s if duration_s is not None else (ended - began) / SECOND_NS
                durations = (*history.durations_s, max(took, 0.0))[-KEPT_DURATIONS:]
                history = msgspec.structs.replace(history, durations_s=durations)
            name = record.execution.task_name
            self._remember(
                task_id, msgspec.structs.replace(history, last_bad=state.is_bad, name=name)
            )
        if record.log_wanted:
            self._logs.append(record)
        self._consider_waiting(task_id, now)

    def _consider_waiting(self, task_id: str, now: int) -> None:
        lane = self._lanes.get(task_id)
        if lane is not None and lane.waiting is not None:
            self._consider(lane.waiting, now)

    def _name(self, task_id: str) -> str:
        known = self.histories.get(task_id)
        return self._name_of(task_id) or (known.name if known is not None else "")

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


def _ns(seconds: float) -> int:
    return int(seconds * SECOND_NS)


def _key(want: Want) -> str | Want:
    return want.value if want.kind == "id" else want


def _key_of(record: Record) -> str | Want:
    return record.execution.task_id or record.want


def _merges(options: Options) -> bool:
    """Whether requests with these options may share one start."""
    return options.if_running != "start" or bool(options.debounce_s or options.cooldown_s)


def _asked_by(cause: Cause) -> str:
    match cause.kind:
        case "message":
            sender = f" from {cause.client_id}" if cause.client_id else ""
            return f"Asked for by message {cause.seq} on {cause.topic}{sender}"
        case "elsewhere":
            return "Started elsewhere"
        case kind:
            return f"Asked for by {kind} {cause.rule}".rstrip()
