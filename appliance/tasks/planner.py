"""The life of requests, from the message to the outcome: what the rest of the task engine asks.

The planner composes a book of requests (request_book.py: their states and what changed), the
dispatcher (dispatcher.py: when a request goes) and the runs (runs.py: what the server says of
them). Its own part is what follows from the answer to a call. states.py has the table of states.
No threads, clock, disk or network.

Not for: making the calls (runner.py, poller.py) or making changes durable (state_store.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

import msgspec

from appliance.counters import Counter
from appliance.model import Cause, ExecutionState, ReloadOptions, Task
from appliance.qlik.server import QlikError, Report
from appliance.tasks.dispatcher import RUNS_ALREADY, Dispatcher, freshness_key
from appliance.tasks.jobs import Limits
from appliance.tasks.look_first import LookFirst
from appliance.tasks.payloads import Rejection
from appliance.tasks.queues import key_of_selector, merges
from appliance.tasks.records import MAX_REPLIES, Record
from appliance.tasks.request_book import RequestBook, to_ns
from appliance.tasks.runs import Runs
from appliance.tasks.selector import TaskSelector
from appliance.tasks.states import IN_FLIGHT, RequestState
from appliance.tasks.triggers import Options
from appliance.tasks.views import LOOKING

REFUSALS = 3
"""With several appliances, a start that the server refuses is tried so often: a run that another
appliance has just started makes the server refuse, and shows a little later."""


class Planner:
    """All requests and what becomes of them. Not thread-safe: the state store's lock guards it."""

    def __init__(
        self, limits: Limits, *, known: Callable[[str], Task | None], chance: random.Random
    ) -> None:
        """``known`` gives what is known of a task id without asking the server."""
        self.limits = limits
        self._chance = chance
        self.book = book = RequestBook(known)
        self.dispatcher = dispatcher = Dispatcher(limits, book, chance)
        self.runs = runs = Runs(book, dispatcher)
        self.started_by: dict[str, int] = {}
        """How many starts each rule led to, since the appliance was started."""
        self.call_after: Callable[[str, ReloadOptions, int], int] = lambda *_: 0
        """The execution of a task, with these options, that was called behind a message in an
        earlier run of the appliance, 0 if the journal tells of none (told.py)."""
        # One name for each thing that is asked of the planner, whichever part has it. What a part
        # sets anew (book.changes, dispatcher.circuit_open) has no second name here.
        self.open = book.open
        self.running = book.running
        self.counters = book.counters
        self.histories = book.histories.by_task
        self.slow = runs.slow
        self.not_started: list[tuple[int, str, str]] = []
        """What was to follow an execution and is not taken: its number, the task's id, and why."""
        self.ask = dispatcher.ask
        self.answer = book.answer
        self.count = book.count
        self.note = book.note
        self.reject = book.reject
        self.knows_run = book.knows_run
        self.note_run = book.note_run
        self.usual_s = book.histories.usual_s
        self.state_of = book.state_of
        self.begin = dispatcher.begin
        self.cancel = dispatcher.cancel
        self.pause = dispatcher.pause
        self.expedite = dispatcher.expedite
        self.hold = dispatcher.hold
        self.release = dispatcher.release
        self.why_not_now = dispatcher.why_not_now
        self.try_one = dispatcher.try_one
        self.waits_for_server = dispatcher.waits_for_server
        self.server_is_away = dispatcher.server_is_away
        self.server_is_back = dispatcher.server_is_back
        look = LookFirst(book, dispatcher, runs)
        self.runs_wanted_since = look.since_ns
        self.looked = look.looked
        self.elsewhere = runs.elsewhere
        self.report = runs.report
        self.unanswered = runs.unanswered
        self.missing = runs.missing
        self.logs = dispatcher.logs

    # --- requests -----------------------------------------------------------------------------

    def restore(self, record: Record, now: int) -> None:
        """Take up what an earlier run of the appliance left."""
        book, dispatcher, execution = self.book, self.dispatcher, record.execution
        if execution.state.is_final:
            book.enter(record, RequestState.LOG_WANTED)
            dispatcher.logs.want(record, now)
        elif execution.state in (ExecutionState.QUEUED, ExecutionState.RUNNING):
            is_queued = execution.state is ExecutionState.QUEUED
            book.enter(record, RequestState.QUEUED if is_queued else RequestState.RUNNING)
            dispatcher.queues.activate(record)
            book.note_run(execution.execution_id, record.id)
            if record.began_ns is None and execution.cause.kind != "elsewhere":
                record.began_ns = execution.requested_ns  # The call came after that.
            # The time that the appliance was away is not time in which the server knew nothing.
            record.seen_ns = now
            # The server's clock tells the start of a run: it may be ahead of ours.
            book.followed_since[record.id] = min(
                now, execution.started_ns or execution.requested_ns
            )
        elif record.posted_ns is not None:
            book.enter(record, RequestState.UNCERTAIN)
            dispatcher.queues.activate(record)
            if execution.state == ExecutionState.STARTING:
                book.count(Counter.START_ANSWERS_LOST)
            book.move(
                record,
                RequestState.UNCERTAIN,
                now,
                reason=f"The appliance stopped during the start call. Looking {LOOKING}.",
                next_attempt_ns=now,
            )
            dispatcher.decide(record, now)
        else:
            book.enter(record, RequestState.PENDING)
            if execution.state == ExecutionState.STARTING:
                book.change(record, state=ExecutionState.REQUESTED)
            if record.last_asked_ns < dispatcher.boot_ns:
                record.look_since_ns = record.last_asked_ns
            dispatcher.put_back(record, now)

    def next_due(self) -> int | None:
        """When there is something to do at the earliest, if nothing else happens."""
        due = (self.dispatcher.next_due(), self.book.freshness.next_due())
        return min((at for at in due if at is not None), default=None)

    def follow_step(self, step_ns: int, now: int) -> None:
        """The clock was set by this: what waits goes on waiting for as long as before.

        ``now`` is the time after the step.
        """
        book = self.book
        for record in list(book.open.values()):
            record.shift(step_ns)
            book.change(record)
        for number in book.followed_since:
            book.followed_since[number] += step_ns
        self.dispatcher.follow_step(step_ns)
        book.freshness.shift(step_ns, now)
        self.logs.shift(step_ns)
        for task_id, history in list(self.histories.items()):
            if history.last_start_ns:
                moved = msgspec.structs.replace(
                    history, last_start_ns=history.last_start_ns + step_ns
                )
                book.remember(task_id, moved)

    # --- what came of a call ------------------------------------------------------------------

    def _is_in_flight(self, record: Record) -> bool:
        """Whether the result of a job is still of interest."""
        return self.book.is_in(record, IN_FLIGHT)

    def resolved(
        self,
        record: Record,
        tasks: Sequence[Task],
        now: int,
        reloads: Sequence[ReloadOptions] = (),
    ) -> None:
        """The tasks that a selector means (one or more): the request becomes one of each.

        ``reloads`` says for each task how it is reloaded, if not as the request says.
        """
        if not self._is_in_flight(record):
            return
        own = record.options.reload
        found = list(zip(tasks, reloads or [own] * len(tasks), strict=True))
        self.book.freshness.resolved(
            freshness_key(record.selector),
            record.wanted_ns,
            [(one.id, one.name, how) for one, how in found],
            now,
            reload=own,
        )
        if record.selector.kind == "together" and not self._has_room(record, found, now):
            return
        if (rest := self._without_dropped(record, found, now)) is None:
            return
        found = rest
        queues = self.dispatcher.queues
        if record.look_since_ns is not None and merges(record.options):
            answers = {
                (one.id, how): self.call_after(one.id, how, record.last_seq) for one, how in found
            }
            found = [(one, how) for one, how in found if not answers[one.id, how]]
            if not found:
                self._answered_before(record, next(iter(answers.values())), now)
                return
        queues.leave(record)
        (first, reload), *others = found
        for task, how in others:
            self._ask_for_found(record, task, how, now)
        waiting = queues.waiting(first.id, reload)
        if waiting is not None and merges(record.options) and record.look_since_ns is None:
            self.dispatcher.absorb(waiting, record, now)
            return
        record.options = msgspec.structs.replace(record.options, reload=reload)
        usual_s = self.usual_s(first.id)
        self.book.change(
            record, task_id=first.id, task_name=first.name, usual_s=usual_s, reload=reload
        )
        if record.options.if_running == "skip" and queues.active(first.id):
            self.dispatcher.finish(record, RequestState.SKIPPED, RUNS_ALREADY, now)
            return
        self.book.move(record, RequestState.PENDING, now, reason="", step=f"Found {first.name}")
        self.dispatcher.put_back(record, now)

    def start_next(self, now: int) -> bool:
        """Ask for what is to be started after the executions that have ended in this change.

        Returns whether any of them ended.
        """
        ended, self.book.ended = self.book.ended, []
        for record in ended:
            execution, wanted, record.next_tasks = record.execution, record.next_tasks, ()
            for one in wanted:
                is_wanted = (
                    execution.state.is_bad
                    if one.after_failure
                    else execution.state is ExecutionState.SUCCEEDED
                )
                if is_wanted:
                    cause = Cause("http", rule=execution.cause.rule)
                    answer = self.ask(TaskSelector("id", one.task_id), Options(), cause, now)
                    if isinstance(answer, Rejection):
                        self.not_started.append((record.id, one.task_id, answer.reason))
        return bool(ended)

    def no_room_for(self, starts: Collection[tuple[TaskSelector, Options]]) -> Rejection | None:
        """Why requests for all of these tasks can't be taken; counted if so."""
        dispatcher = self.dispatcher
        for selector, options in starts:
            key = key_of_selector(selector)
            if dispatcher.queues.waiting(key, options.reload) is None and (
                problem := dispatcher.refusal(selector, options, further=len(starts) - 1)
            ):
                return problem
        return None

    def dropped(
        self, starts: Collection[tuple[TaskSelector, Options]], now: int
    ) -> Rejection | None:
        """Why a hold drops one of these, if a person or a program asks for them; counted if so."""
        for selector, _ in starts:
            task_id = selector.value if selector.kind == "id" else ""
            if refused := self.dispatcher.dropped_by_hold(task_id, ("", ""), now, now):
                return refused
        return None

    def _has_room(
        self, record: Record, found: Sequence[tuple[Task, ReloadOptions]], now: int
    ) -> bool:
        """Whether a request can be made for each of these tasks; else the record is rejected."""
        replace = msgspec.structs.replace
        starts = [
            (TaskSelector("id", task.id), replace(record.options, reload=reload))
            for task, reload in found
        ]
        if problem := self.no_room_for(starts):
            self.not_allowed(record, problem, now)
        return problem is None

    def _without_dropped(
        self, record: Record, found: Sequence[tuple[Task, ReloadOptions]], now: int
    ) -> list[tuple[Task, ReloadOptions]] | None:
        """The tasks whose starts no hold drops; ``None`` if none is left: the record has ended."""
        refused: Rejection | None = None
        rest = []
        for one in found:
            drop = self.dispatcher.dropped_by_hold(one[0].id, ("", ""), record.last_asked_ns, now)
            refused = drop or refused
            if drop is None:
                rest.append(one)
        if refused is None or (rest and record.selector.kind != "together"):
            return rest
        self.dispatcher.finish(
            record, RequestState.SKIPPED, refused.reason, now, label=refused.label
        )
        return None

    def _answered_before(self, record: Record, execution: int, now: int) -> None:
        self.book.changes.moved_answers.append((record.id, execution))
        text = f"Answered by execution {execution}."
        self.dispatcher.finish(record, RequestState.SKIPPED, text, now, answered_by=execution)

    def _ask_for_found(self, record: Record, task: Task, reload: ReloadOptions, now: int) -> None:
        execution = record.execution
        number = self.ask(
            TaskSelector("id", task.id),
            msgspec.structs.replace(record.options, reload=reload),
            execution.cause,
            now,
            asked_ns=execution.requested_ns,
            happened_ns=record.wanted_ns,
            expires_ns=record.expires_ns,
            is_part=True,
        )
        found = self.book.open.get(number) if isinstance(number, int) else None
        if found is not None:
            if not found.execution.task_name:
                self.book.change(found, task_name=task.name)
            found.reply_to = found.with_replies(record.reply_to)[:MAX_REPLIES]
            # It answers whatever was merged into the one that it comes from.
            found.last_seq = max(found.last_seq, record.last_seq)
            found.add_askers(record.further_askers)

    def started(self, record: Record, run: str, now: int, *, task_id: str = "") -> None:
        """The server accepted the start and gave the run an id.

        ``task_id`` is the server's task for an app that had none.
        """
        if not self._is_in_flight(record):
            return
        book = self.book
        self.runs.follow(record, run, now, task_id=task_id, step="The server took it")
        task_id = record.execution.task_id
        history = book.histories.of(task_id)
        book.remember(task_id, msgspec.structs.replace(history, last_start_ns=now))
        book.count(Counter.EXECUTIONS_STARTED)
        cause = record.execution.cause
        if cause.kind == "message":
            self.started_by[cause.rule] = self.started_by.get(cause.rule, 0) + 1
        self.dispatcher.decide_waiting(task_id, now)

    def refused(self, record: Record, reason: str, now: int) -> None:
        """The server answered that it did not start the task."""
        if not self._is_in_flight(record):
            return
        record.forget_call()
        if self.dispatcher.is_blocked(record) and record.options.if_running == "queue_one":
            self.book.move(record, RequestState.PENDING, now)
            self.dispatcher.put_back(record, now)
            return
        if self.dispatcher.looks_first(record) and record.tries < REFUSALS:
            # Another appliance may just have started the task, and its run is not listed yet.
            self._try_later(record, reason or "The server did not start it.", now)
            return
        self.dispatcher.finish(
            record,
            RequestState.REFUSED,
            reason or "The server did not start it and does not say why.",
            now,
            label="refused",
        )

    def not_allowed(self, record: Record, rejection: Rejection, now: int) -> None:
        """The task must not be started, or the server will never start it."""
        if self._is_in_flight(record):
            self.dispatcher.finish(
                record, RequestState.REJECTED, rejection.reason, now, label=rejection.label
            )

    def retry(self, record: Record, error: QlikError, now: int) -> None:
        """The call certainly began nothing: it is repeated after a growing wait with jitter."""
        if not self._is_in_flight(record):
            return
        self.book.count(Counter.START_RETRIES)
        record.forget_call()
        record.expedited = False
        record.label = error.label
        record.tries += 1
        first = record.first_attempt_ns or now
        record.first_attempt_ns = first
        # One that was given up is repeated at once: the server is back.
        wait = 0 if error.is_given_up else self._backoff(record.tries, error.retry_after_s)
        record.wished_ns = None if not error.retry_after_s else now + wait
        over = first + to_ns(record.options.retry_for_s)
        if now + wait >= over:
            self.dispatcher.finish(
                record,
                RequestState.EXPIRED,
                f"Given up after {record.options.retry_for_s:g} s of trying: {error}",
                now,
                label=error.label,
            )
            return
        self.book.move(
            record,
            RequestState.RETRY_WAIT,
            now,
            reason=str(error),
            step=f"{error.label}: {error}",
            next_attempt_ns=now + wait,
        )
        self.dispatcher.put_back(record, now)

    def uncertain(
        self, record: Record, problem: str, now: int, *, is_answered: bool = False
    ) -> None:
        """It is not known what the start call did, so the task may run: the next call is a look.

        ``is_answered``: the server is done with the call, so its run shows soon or never.
        """
        if self._is_in_flight(record):
            record.tries = 0
            if is_answered:
                limits = self.limits
                record.believed_ns = now + to_ns(
                    min(limits.answered_settle_s, limits.look_settle_s)
                )
            self.book.count(Counter.START_ANSWERS_LOST)
            self._look_later(record, f"{problem} Looking {LOOKING}.", now)

    def look_failed(self, record: Record, error: QlikError, now: int) -> None:
        """The server could not be asked whether the task was started: look again later."""
        if self._is_in_flight(record):
            record.tries = 0 if error.is_given_up else record.tries + 1
            self._look_later(record, f"{error} Looking {LOOKING}.", now)

    def not_found(self, record: Record, now: int) -> None:
        """A look found no run; it is believed once the server had the time to begin one."""
        if not self._is_in_flight(record):
            return
        assert record.posted_ns is not None
        record.tries += 1
        if now < self._believed_ns(record):
            self._look_later(record, record.execution.reason, now)
            return
        record.forget_call()
        record.tries = 0
        self.book.move(
            record,
            RequestState.PENDING,
            now,
            reason="",
            step="The server has no such run: the call did not reach it",
            shown=ExecutionState.REQUESTED,
            next_attempt_ns=None,
        )
        self.dispatcher.put_back(record, now)

    def found(self, record: Record, report: Report, now: int) -> None:
        """A look found the run that a call without an answer began."""
        if self._is_in_flight(record):
            self.book.count(Counter.STARTS_FOUND_BY_LOOKING)
            self.started(record, report.execution_id, now)
            self.report(record, report, now)

    def nothing_done(self, record: Record, now: int) -> None:
        """The job was given back before it did anything (the appliance stops)."""
        step = "Given back: stopping"
        match self.book.state_of(record):
            case RequestState.LOOKING if record.posted_ns is not None:
                self.book.move(record, RequestState.UNCERTAIN, now, step=step)
                self.dispatcher.decide(record, now)
            case RequestState.RESOLVING | RequestState.CALLING | RequestState.LOOKING:
                record.forget_call()
                self.book.move(
                    record,
                    RequestState.PENDING,
                    now,
                    reason="",
                    step=step,
                    shown=ExecutionState.REQUESTED,
                )
                self.dispatcher.put_back(record, now)
            case _:
                pass

    def _look_later(self, record: Record, why: str, now: int) -> None:
        limits = self.limits
        most_s = min(limits.look_most_s, limits.backoff_most_s)
        wait_s = min(limits.look_first_s * 2 ** min(record.tries, 10), most_s)
        due = now + to_ns(wait_s)
        believed = self._believed_ns(record)
        if believed <= now and not record.tries:
            due = now  # The call took so long that a look counts at once.
        elif now < believed < due:
            due = believed  # The first look that counts is not late because earlier ones were many.
        record.expedited = False
        self.book.move(
            record,
            RequestState.UNCERTAIN,
            now,
            reason=why,
            next_attempt_ns=due,
        )
        self.dispatcher.decide(record, now)

    def _believed_ns(self, record: Record) -> int:
        """When a look that finds no run is believed."""
        assert record.posted_ns is not None
        latest = record.posted_ns + to_ns(self.limits.look_settle_s)
        return latest if record.believed_ns is None else min(record.believed_ns, latest)

    def _try_later(self, record: Record, why: str, now: int) -> None:
        record.tries += 1
        wait = self._backoff(record.tries, None)
        self.book.move(record, RequestState.RETRY_WAIT, now, reason=why, next_attempt_ns=now + wait)
        self.dispatcher.put_back(record, now)

    def _backoff(self, attempt: int, wished_s: float | None) -> int:
        limits = self.limits
        seconds = min(limits.backoff_first_s * 2.0 ** min(attempt - 1, 20), limits.backoff_most_s)
        seconds *= 0.5 + self._chance.random()
        return to_ns(max(seconds, wished_s or 0.0))
