"""What came of each call to the server, and what follows from it.

With queues.py (when a request goes) and request_book.py (how a change is noted) this is the state
machine of a request, from the message to its outcome. No threads, clock, disk or network.

Not for: making the calls (runner.py, poller.py) or making changes durable (state_store.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec

from appliance.model import Cause, Execution, ExecutionState, Task
from appliance.qlik.server import QlikError, Report
from appliance.tasks.payloads import Rejection
from appliance.tasks.queues import Limits, TaskQueues, key_of, merges
from appliance.tasks.records import MAX_REPLIES, Record
from appliance.tasks.request_book import to_ns
from appliance.tasks.selector import TaskSelector
from appliance.tasks.store import TaskHistory
from appliance.tasks.triggers import Options

SLOW_FACTOR = 3.0
SLOW_LEAST_S = 60.0


class Planner(TaskQueues):
    """The whole state machine. Not thread-safe: the ledger's lock guards it."""

    def __init__(
        self, limits: Limits, *, known: Callable[[str], Task | None], chance: random.Random
    ) -> None:
        super().__init__(limits, known)
        self._chance = chance
        self.slow: list[Execution] = []
        """Runs that were found to be slow, to be told; the ledger takes them away."""

    # --- starts -------------------------------------------------------------------------------

    def resolved(self, record: Record, tasks: Sequence[Task], now: int) -> None:
        """The tasks that a selector means were found: the request becomes one of each."""
        if not self._land(record):
            return
        self._leave_queue(record)
        if not tasks:
            self._finish(
                record,
                ExecutionState.REJECTED,
                f"The server lists no {record.selector.text}. Check the spelling and whether the "
                "configured user may see it.",
                now,
                label="unknown task",
            )
            return
        first, *others = tasks
        for task in others:
            self._ask_for_found(record, task, now)
        queue = self._queue(first.id)
        if queue.waiting is not None and merges(record.options):
            self._absorb(queue.waiting, record, now)
            return
        self._change(record, task_id=first.id, task_name=first.name, usual_s=self.usual_s(first.id))
        if record.options.if_running == "skip" and queue.active:
            self._finish(record, ExecutionState.SKIPPED, "The task runs already.", now)
            return
        self._set(record, record.execution.state, "", now, step=f"Found {first.name}")
        self._put_in_queue(record, now)
        self._consider(record, now)

    def _ask_for_found(self, record: Record, task: Task, now: int) -> None:
        execution = record.execution
        number = self.ask(
            TaskSelector("id", task.id),
            record.options,
            execution.cause,
            now,
            asked_ns=execution.requested_ns,
        )
        found = self.open.get(number) if isinstance(number, int) else None
        if found is not None:
            if not found.execution.task_name:
                self._change(found, task_name=task.name)
            found.reply_to = found.with_replies(record.reply_to)[:MAX_REPLIES]

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
            self._put_in_queue(record, now)
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
        record.label = error.label
        record.tries += 1
        first = record.first_attempt_ns or now
        record.first_attempt_ns = first
        wait = self._backoff(record.tries, error.retry_after_s)
        over = first + to_ns(record.options.retry_for_s)
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
        self._put_in_queue(record, now)
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
        if now - record.posted_ns < to_ns(self.limits.look_settle_s):
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
        self._put_in_queue(record, now)
        self._consider(record, now)

    def _look_later(self, record: Record, why: str, now: int) -> None:
        wait = min(
            self.limits.look_first_s * 2 ** min(record.tries, 10), self.limits.backoff_most_s
        )
        self._set(record, ExecutionState.RETRYING, why, now, next_attempt_ns=now + to_ns(wait))
        self._consider(record, now)

    def nothing_done(self, record: Record, now: int) -> None:
        """The job was given back before it did anything (the appliance stops)."""
        if self._land(record) and record.execution.state == ExecutionState.STARTING:
            record.posted_ns = None
            self._set(record, ExecutionState.REQUESTED, "", now, step="Given back: stopping")
            self._put_in_queue(record, now)

    def _backoff(self, attempt: int, wished_s: float | None) -> int:
        seconds = min(
            self.limits.backoff_first_s * 2.0 ** min(attempt - 1, 20), self.limits.backoff_most_s
        )
        seconds *= 0.5 + self._chance.random()
        return to_ns(max(seconds, wished_s or 0.0))

    # --- runs ---------------------------------------------------------------------------------

    def found(self, record: Record, report: Report, now: int) -> None:
        """A look found the run that a call without an answer began."""
        if record.id in self._in_flight:
            self.count("found by looking")
            self.started(record, report.execution_id, now)
            self.report(record, report, now)

    def elsewhere(self, report: Report, name: str, now: int) -> None:
        """A run of a task that we know, which nobody asked us for."""
        task_id = report.task_id.lower()
        queue = self._queue(task_id)
        if self.knows_run(report.execution_id) or any(
            one.posted_ns is not None for one in queue.active.values()
        ):
            # The second: it may be the very run whose start call has no answer yet.
            self._drop_queue(task_id)
            return
        cause = Cause("elsewhere")
        selector = TaskSelector("id", task_id)
        started = report.started_ns or now
        run = report.execution_id
        record = self._new(selector, Options(), cause, now, asked=started, expires=now, run=run)
        record.seen_ns = now
        queue.active[record.id] = record
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
        if self._is_over_limit(record, now):
            return
        self._watch_pace(record, now - (began or now))
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

    def unanswered(self, record: Record, error: QlikError, now: int) -> None:
        """The server could not be asked about a run: said beside it, until it can be again."""
        if record.id not in self.running:
            return
        if self._is_over_limit(record, now):
            return
        text = f"The server can't be asked about it: {error}"
        if record.execution.reason != text:
            self._change(record, reason=text)

    def _is_over_limit(self, record: Record, now: int) -> bool:
        began = record.execution.started_ns or record.execution.requested_ns
        if now - began <= to_ns(self.limits.follow_limit_s):
            return False
        self._finish(
            record,
            ExecutionState.LOST,
            f"No end was seen in {self.limits.follow_limit_s / 3600:g} hours; it is not followed "
            "any longer. Look at the task in the management console.",
            now,
            label="too long",
        )
        return True

    def _watch_pace(self, record: Record, elapsed_ns: int) -> None:
        """Say once if a run takes three times as long as usual, and at least a minute more."""
        usual = record.execution.usual_s
        if usual is None or record.is_slow:
            return
        if elapsed_ns > to_ns(max(SLOW_FACTOR * usual, usual + SLOW_LEAST_S)):
            record.is_slow = True
            self.count("slow runs")
            self._change(record)
            self.slow.append(record.execution)

    def missing(self, record: Record, now: int) -> None:
        """The server knows nothing of a run. Right after the start that is usual."""
        if record.id in self.running and now - (record.seen_ns or 0) > to_ns(
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

    def _follow(self, record: Record, run: str) -> None:
        self.running[record.id] = record
        self.followed += 1
        self.note_run(run, record.id)

    def _forget(self, record: Record) -> None:
        """Remove an execution that turned out to be another one."""
        self._leave_queue(record)
        self.open.pop(record.id, None)
        self.running.pop(record.id, None)
        self._alarms.pop(record.id, None)
        self.changes.records.pop(record.id, None)
        self.changes.removed.add(record.id)

    # --- after a restart ----------------------------------------------------------------------

    def restore(self, record: Record, now: int) -> None:
        """Take up what an earlier run of the appliance left."""
        execution = record.execution
        if execution.state.is_final:
            self._logs.append(record)
            return
        self.open[record.id] = record
        queue = self._queue(key_of(record))
        if execution.state in (ExecutionState.QUEUED, ExecutionState.RUNNING):
            queue.active[record.id] = record
            self._follow(record, execution.execution_id)
            # The time that we were away is not time in which the server knew nothing.
            record.seen_ns = now
            return
        if record.posted_ns is not None:
            queue.active[record.id] = record
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
        if record.last_asked_ns < self.boot_ns:
            record.look_since_ns = record.last_asked_ns
        self._put_in_queue(record, now)
        self._consider(record, now)
