"""When each request goes to the server: waits, queues, workers that are free.

``begin`` hands out what can be done now. No threads, clock, disk or network.

Not for: what came of a call (planner.py) or of a run (runs.py).
"""

from __future__ import annotations

import heapq
import random
from collections import Counter as Numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from appliance.counters import Counter
from appliance.engine_api import PAUSED, HoldState
from appliance.model import Cause, ExecutionState
from appliance.tasks import holds
from appliance.tasks.alarms import Alarms
from appliance.tasks.freshness import selector_key
from appliance.tasks.histories import with_duration
from appliance.tasks.holds import Asker, Hold, Holds, TooManyHoldsError, asker_of
from appliance.tasks.jobs import Job, JobKind, Limits
from appliance.tasks.payloads import Rejection
from appliance.tasks.queues import TaskQueues, key_of_selector, merges
from appliance.tasks.records import MAX_REPLIES, Record, Reply
from appliance.tasks.request_book import SECOND_NS, RequestBook, message_of, to_ns
from appliance.tasks.script_logs import ScriptLogs
from appliance.tasks.selector import TaskSelector
from appliance.tasks.states import AT_SERVER, CAN_GO, MAY_GO_LATER, SHOWN, WAITING, RequestState
from appliance.tasks.triggers import Options
from appliance.tasks.views import (
    ASKS_FOR_RUNS,
    ASKS_FOR_TASKS,
    WAITS_APART,
    WAITS_FOR_RUN,
    WAITS_FOR_SERVER,
)

MAX_RELOADS_WAITING = 100
"""Requests of one task that may wait because each reloads it with other variables."""
MAX_DOUBT_S = 2.0
"""A doubt about the server's clock that is greater than this holds no start back."""
WAITS_FOR_QUIET = "Waits for quiet (debounce)."
WAITS_FOR_COOLDOWN = "Waits for the cooldown after the last start."
RUNS_ALREADY = "The task runs already."
_MILLISECOND_NS = 1_000_000
"""Times of runs have milliseconds, so the truth may be one later."""
_BLOCKED = frozenset({RequestState.BLOCKED})
_OVER = frozenset({RequestState.EXPIRED, RequestState.LOST})
_CAN_BE_TRIED = frozenset({RequestState.READY, RequestState.LOOK_READY})
_NEED_SERVER = (
    RequestState.SERVER_AWAY,
    RequestState.RETRY_WAIT,
    RequestState.UNCERTAIN,
    RequestState.LOOK_READY,
)
_COUNTERS = {
    ExecutionState.SUCCEEDED: Counter.EXECUTIONS_SUCCEEDED,
    ExecutionState.FAILED: Counter.EXECUTIONS_FAILED,
    ExecutionState.ABORTED: Counter.EXECUTIONS_ABORTED,
    ExecutionState.SKIPPED: Counter.EXECUTIONS_SKIPPED,
    ExecutionState.REFUSED: Counter.EXECUTIONS_REFUSED,
    ExecutionState.REJECTED: Counter.EXECUTIONS_REJECTED,
    ExecutionState.EXPIRED: Counter.EXECUTIONS_EXPIRED,
    ExecutionState.LOST: Counter.EXECUTIONS_LOST,
}


class Placement(NamedTuple):
    """Where a request stands, and what it waits for."""

    state: RequestState
    until_ns: int | None = None
    """When it is decided anew at the latest, ``None``: when something else lets it."""
    why: str = ""


class Dispatcher:
    """Decides when requests go. Not thread-safe: the state store's lock guards it."""

    def __init__(self, limits: Limits, book: RequestBook, chance: random.Random) -> None:
        self.limits = limits
        self.has_others = False
        """Whether other appliances start tasks on the server: it is asked before each start."""
        self.clock_doubt_s: Callable[[], float] = lambda: 0.0
        """How exactly the difference between the server's clock and ours is known, in seconds."""
        self.own_time_ns: Callable[[int], int] = lambda server_ns: server_ns
        """The latest time of our clock at which the server's may have shown this time."""
        self.boot_ns = 0
        """When the machine was started. What is noted as asked for before then may have been
        started since: the note of its start call may be lost in a power cut."""
        self.earlier_seq = 0
        """The journal's newest message when this process began. What it and earlier messages ask
        for, if nothing is noted of them, may have been started: by a call that was under way in a
        crash, or whose note a power cut took away."""
        self.circuit_open = False
        """Whether the server does not answer: no job is handed out."""
        self.queues = TaskQueues()
        self.alarms: Alarms[int] = Alarms()
        self._book = book
        self._chance = chance
        self._can_go: list[tuple[int, int]] = []
        """A heap of (0 for looks and look-ups, 1 for starts; id), with one entry at most for each
        request; an entry is stale unless the request's state is in ``CAN_GO``."""
        self._listed: set[int] = set()
        """The requests that the heap has an entry of."""
        self.logs = ScriptLogs(book, limits.log_waits_s, limits.log_give_up_s)
        self.holds = Holds()
        self.has_new_holds = False
        """Whether ``hold_states`` has changed; the state store shows it."""
        self.ended_holds: list[Hold] = []
        """Holds that have ended by themselves; the state store says so."""
        self._holders: dict[int, tuple[str, str]] = {}
        """By what each request is held that is."""
        self._waiting_for: Numbers[tuple[str, str]] = Numbers()
        """How many requests each hold keeps waiting."""
        self._is_clock_new = False
        self._urgent: dict[int, Record] = {}
        """What goes although the server does not answer: a trial, or an operator's wish."""

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
        happened_ns: int | None = None,
        expires_ns: int | None = None,
        is_part: bool = False,
    ) -> int | Rejection:
        """Take a request; returns the id of the execution that answers it, new or merged into.

        ``asked_ns`` is when the message came (default ``now``); expiry counts from it.
        ``happened_ns`` is when what it tells of happened, if that is known to be earlier.
        ``expires_ns`` is when it expires, if the options alone do not say that.
        ``is_part``: it is a part of a request that was taken before, and no hold drops it.
        """
        book, asker = self._book, asker_of(cause)
        selected = selector.value if selector.kind == "id" else ""
        asked = now if asked_ns is None else asked_ns
        if not is_part:
            # Also if it is refused, or expires: the data does not know of the message yet.
            self.note_asked(selector, options, cause, happened_ns or asked, now)
            if (refused := self.dropped_by_hold(selected, asker, asked, now)) is not None:
                return refused
        expires = expires_ns or asked + to_ns(options.expire_s)
        replies = (reply,) if reply else ()
        target = self.answers(selector, options, now, expires)
        if target is not None:
            # Two rules that one message concerns ask once, not twice.
            seq = message_of(cause)
            is_same = seq != 0 and target.last_seq == seq
            target.last_seq = seq or target.last_seq
            target.newest_ns = max(target.wanted_ns, happened_ns or asked)
            target.add_askers((asker,))
            if cause.kind == "message" and not is_same:
                book.freshness.merged(freshness_key(selector), now)
            self._merge(target, now, expires, replies, merged=0 if is_same else 1)
            if target.look_since_ns is not None:
                target.look_since_ns = max(target.look_since_ns, asked)
            book.answer(cause.seq, target.id, now)
            return target.id
        if (refusal := self.refusal(selector, options)) is not None:
            return refusal
        record = book.new(
            selector, options, cause, now, asked=asked, expires=expires, replies=replies
        )
        record.newest_ns = happened_ns or asked
        book.answer(cause.seq, record.id, now)
        if 0 < message_of(cause) <= self.earlier_seq:
            record.look_since_ns = asked
        if self.skips_at_once(record):
            self.finish(record, RequestState.SKIPPED, RUNS_ALREADY, now)
        else:
            self.put_back(record, now)
        return record.id

    def note_asked(
        self, selector: TaskSelector, options: Options, cause: Cause, at_ns: int, now: int
    ) -> None:
        """A message of that time asks for a task: its data is stale until a run covers it."""
        if cause.kind != "message":
            return
        names = self._book.histories
        self._book.freshness.asked(
            freshness_key(selector),
            names.name_of(selector.value) if selector.kind == "id" else selector.text,
            at_ns,
            seq=cause.seq,
            rule=cause.rule,
            now=now,
            reload=options.reload,
            selector=None if selector.kind == "id" else selector,
        )

    def answers(
        self, selector: TaskSelector, options: Options, now: int, expires: int
    ) -> Record | None:
        """The request that waits already, and that a new one is merged into."""
        target = self.queues.waiting(key_of_selector(selector), options.reload)
        return target if target is not None and merges(options) and now < expires else None

    def skips_at_once(self, record: Record) -> bool:
        """Whether a new request is not even put into its queue, because its task runs."""
        task_id, options = record.execution.task_id, record.options
        return bool(task_id) and options.if_running == "skip" and bool(self.queues.active(task_id))

    def dropped_by_hold(self, task_id: str, asker: Asker, asked: int, now: int) -> Rejection | None:
        """Why a start that was asked for then is dropped; counted if so.

        ``task_id`` is empty while the task is not known.
        """
        if not self.holds or (hold := self.holds.dropping(task_id, asker, asked, now)) is None:
            return None
        self._book.count(Counter.STARTS_DROPPED_BY_HOLD)
        return hold.rejection

    def refusal(
        self, selector: TaskSelector, options: Options, *, further: int = 0
    ) -> Rejection | None:
        """Why a request, and ``further`` ones beside it, can't be taken; counted if so."""
        found = self.why_full(selector, options, further=further)
        if found is not None:
            self._book.count(Counter.REQUESTS_REFUSED_QUEUE_FULL)
        return found

    def why_full(
        self, selector: TaskSelector, options: Options, *, further: int = 0
    ) -> Rejection | None:
        """Why a request, and ``further`` ones beside it, could not be taken now."""
        waiting = self.queues.all_waiting(key_of_selector(selector))
        if len(waiting) >= MAX_RELOADS_WAITING and merges(options):
            return Rejection(
                "queue full",
                f"{MAX_RELOADS_WAITING} requests for {selector.text} wait already, each with "
                "other variables; this one is not taken.",
            )
        taken = len(self._book.open)
        if taken + further >= self.limits.max_open:
            return Rejection(
                "queue full",
                f"{taken} requests wait already; this one is not taken. "
                "See why the server does not take them.",
            )
        return None

    def _merge(
        self, target: Record, now: int, expires: int, replies: Iterable[Reply], *, merged: int
    ) -> None:
        # Before the expiries are compared: that of the new message has no time in a hold yet.
        target.note_hold(now, is_held=target.held_since_ns is not None)
        target.expires_ns = max(target.expires_ns, expires)
        target.last_asked_ns = max(target.last_asked_ns, now)
        kept = target.with_replies(replies)
        if len(kept) > MAX_REPLIES:
            self._book.count(Counter.REPLIES_DROPPED, len(kept) - MAX_REPLIES)
        target.reply_to = kept[:MAX_REPLIES]
        self._book.change(target, merged=target.execution.merged + merged)
        if merged:
            self._book.count(Counter.REQUESTS_MERGED, merged)
        # The hold that keeps it may be that of another trigger.
        if target.options.debounce_s or target.held_since_ns is not None:
            self.decide(target, now)

    def absorb(self, target: Record, other: Record, now: int) -> None:
        """Let ``target`` answer what ``other``, which exists already, was to answer."""
        is_same = other.last_seq != 0 and other.last_seq == target.last_seq
        target.last_seq = max(target.last_seq, other.last_seq)
        target.newest_ns = max(target.wanted_ns, other.wanted_ns)
        if target.look_since_ns is not None:
            target.look_since_ns = max(target.look_since_ns, other.last_asked_ns)
        target.add_askers(other.askers)
        other.note_hold(now, is_held=False)
        if other.execution.cause.kind == "message" and not is_same:
            key = target.execution.task_id or selector_key(target.selector)
            self._book.freshness.merged(key, now)
        self._merge(
            target,
            other.last_asked_ns,
            other.expires_ns,
            other.reply_to,
            merged=other.execution.merged + (0 if is_same else 1),
        )
        other.reply_to = ()
        target.add_next(other.next_tasks)
        other.next_tasks = ()
        self._book.changes.moved_answers.append((other.id, target.id))
        text = f"Answered by execution {target.id}."
        self.finish(other, RequestState.SKIPPED, text, now, answered_by=target.id)

    def put_back(self, record: Record, now: int) -> None:
        """Let a request wait (again) in its queue, and decide when it goes.

        What waits in the queue already is merged into it. A request that an earlier process may
        have started is looked for alone, and later ones wait behind it: a run that is found answers
        this request and no message that came after its call.
        """
        task = record.execution.task_id
        is_alone = record.look_since_ns is not None and task and not self.queues.active(task)
        if is_alone and merges(record.options):
            self.queues.activate(record)
        elif (other := self.queues.wait(record)) is not None:
            self.absorb(record, other, now)
        self.decide(record, now)

    # --- deciding when ------------------------------------------------------------------------

    def decide(self, record: Record, now: int) -> None:
        """Decide anew when a request goes; one that a worker or the server has is left alone."""
        book, before = self._book, self._book.state_of(record)
        if before not in MAY_GO_LATER:
            return
        hold = self.hold_of(record, now)
        if record.note_hold(now, is_held=hold is not None):
            book.change(record)
        if hold is None and before is RequestState.HELD:
            # It was the end of the hold.
            book.change(record, next_attempt_ns=None)
        found = self.placement(record, now)
        state, due = found.state, found.until_ns
        if hold is not None and state is RequestState.HELD:
            self._hold(record, hold, found, now)
            return
        self._note_holder(record, None)
        if state in _OVER:
            self._expire(record, now)
            return
        self.alarms.set(
            record.id, record.expires_ns if due is None else min(due, record.expires_ns)
        )
        if due is not None:
            if before is not state or record.execution.next_attempt_ns != due:
                book.move(record, state, now, reason=found.why, next_attempt_ns=due)
        elif state is RequestState.SKIPPED:
            self.finish(record, state, found.why, now)
        elif state is RequestState.BLOCKED:
            if before is not state:
                record.turn_ns = None
                book.move(record, state, now, reason=found.why, next_attempt_ns=None)
        else:
            if state is RequestState.SERVER_AWAY:
                record.turn_ns = None
            self._let_go(record, state, now)

    def placement(self, record: Record, now: int) -> Placement:
        """Where a request that may go later stands now. Changes nothing but its own turn."""
        if now >= record.expires_ns:
            return Placement(
                RequestState.EXPIRED if record.posted_ns is None else RequestState.LOST
            )
        if (hold := self.hold_of(record, now)) is not None and not record.paused:
            return Placement(RequestState.HELD, hold.until_ns, hold.sentence)
        due, state, why = self._not_before(record)
        if due > now:
            return Placement(state, due, why)
        if self._waits_apart(record, now):
            return Placement(RequestState.SCHEDULED, record.turn_ns, WAITS_APART)
        if record.posted_ns is not None:
            return Placement(RequestState.LOOK_READY)
        if self.is_blocked(record):
            if record.options.if_running == "skip":
                return Placement(RequestState.SKIPPED, why=RUNS_ALREADY)
            return Placement(RequestState.BLOCKED, why=WAITS_FOR_RUN)
        if self.circuit_open and record.id not in self._urgent:
            return Placement(RequestState.SERVER_AWAY, why=WAITS_FOR_SERVER)
        return Placement(RequestState.READY)

    def hold_of(self, record: Record, now: int) -> Hold | None:
        """The hold that keeps a request from being started now.

        A start call whose answer is lost is looked for all the same, and an operator who ends a
        request's wait goes before any hold.
        """
        if not self.holds or record.posted_ns is not None or record.expedited:
            return None
        return self.holds.of_request(record.execution.task_id, record.askers, now)

    def _hold(self, record: Record, hold: Hold, found: Placement, now: int) -> None:
        """Let a request wait for the end of a hold; it does not expire meanwhile."""
        book, execution = self._book, record.execution
        record.turn_ns = None
        self.alarms.drop(record.id)
        self._note_holder(record, hold)
        is_known = (execution.reason, execution.next_attempt_ns) == (found.why, found.until_ns)
        if not is_known or book.state_of(record) is not found.state:
            book.move(record, found.state, now, reason=found.why, next_attempt_ns=found.until_ns)

    def _note_holder(self, record: Record, hold: Hold | None) -> None:
        """Note by what a request is held, for the numbers that users see."""
        before = self._holders.get(record.id)
        after = None if hold is None else hold.key
        if before == after:
            return
        if before is not None:
            del self._holders[record.id]
            self._waiting_for[before] -= 1
            if not self._waiting_for[before]:
                del self._waiting_for[before]
        if after is not None:
            self._holders[record.id] = after
            self._waiting_for[after] += 1
        self.has_new_holds = True

    def _let_go(self, record: Record, to: RequestState, now: int) -> None:
        """Nothing holds the request back any more but a worker, or the server."""
        book, before = self._book, self._book.state_of(record)
        if before is to:
            return
        is_retry = record.execution.state == ExecutionState.RETRYING
        if to is RequestState.SERVER_AWAY and not is_retry:
            book.move(record, to, now, reason=WAITS_FOR_SERVER, next_attempt_ns=None)
        elif before is RequestState.HELD or (before is RequestState.SERVER_AWAY and not is_retry):
            is_away = before is RequestState.SERVER_AWAY
            book.move(
                record,
                to,
                now,
                reason="",
                step="The server answers again" if is_away else "The hold is over",
                shown=ExecutionState.RETRYING if is_retry else ExecutionState.REQUESTED,
            )
        else:
            # A request whose last call failed goes on saying why.
            book.move(record, to, now)
        if record.id not in self._listed:
            self._listed.add(record.id)
            is_start = record.posted_ns is None and bool(record.execution.task_id)
            heapq.heappush(self._can_go, (int(is_start), record.id))

    def _not_before(self, record: Record) -> tuple[int, RequestState, str]:
        """When a request may go at the earliest, and where it stands until then, and why."""
        execution = record.execution
        if record.posted_ns is not None:
            if record.paused:
                return record.expires_ns, RequestState.UNCERTAIN, PAUSED
            due = 0 if record.expedited else execution.next_attempt_ns or 0
            return due, RequestState.UNCERTAIN, execution.reason
        if record.paused:
            return record.expires_ns, RequestState.PAUSED, PAUSED
        if record.expedited:
            return 0, RequestState.SCHEDULED, ""
        due = quiet_ns(record)
        why = WAITS_FOR_QUIET if due else ""
        if (over := self.cooled_ns(record)) > due:
            due, why = over, WAITS_FOR_COOLDOWN
        retry = execution.next_attempt_ns
        if execution.state == ExecutionState.RETRYING and retry is not None and retry > due:
            return retry, RequestState.RETRY_WAIT, execution.reason
        return due, RequestState.SCHEDULED, why

    def cooled_ns(self, record: Record) -> int:
        """When the cooldown after the task's last start is over; 0: there is none."""
        history = self._book.histories.by_task.get(record.execution.task_id)
        if not record.options.cooldown_s or history is None:
            return 0
        return history.last_start_ns + to_ns(record.options.cooldown_s)

    def looks_first(self, record: Record) -> bool:
        """Whether the server is asked for runs of others before this request's start call."""
        has_task = record.posted_ns is None and bool(record.execution.task_id)
        return self.has_others and has_task and merges(record.options)

    def _waits_apart(self, record: Record, now: int) -> bool:
        """Whether a request that could go waits for its turn among several appliances."""
        if not self.looks_first(record) or record.expedited or record.look_since_ns is not None:
            return False
        if self.circuit_open or self.is_blocked(record):
            return False
        if record.turn_ns is None:
            limits = self.limits
            apart_s = limits.apart_s + min(self.clock_doubt_s(), MAX_DOUBT_S)
            first = max(now, record.execution.requested_ns + to_ns(apart_s))
            record.turn_ns = first + to_ns(limits.apart_spread_s * self._chance.random())
        return record.turn_ns > now

    def goes_now(self, record: Record, now: int) -> bool:
        """Whether neither a wait nor a run of the task holds a request back."""
        if self.hold_of(record, now) is not None:
            return False
        return self._not_before(record)[0] <= now and not self.is_blocked(record)

    def is_blocked(self, record: Record) -> bool:
        """Whether the present run of the task has to end first."""
        return bool(self.blocking(record))

    def blocking(self, record: Record) -> Sequence[Record]:
        """The requests for the same task, at a worker or the server, that have to end first."""
        others = [one for one in self.queues.active(record.execution.task_id) if one is not record]
        if record.options.if_running != "start":
            return others
        # The cooldown counts from a start that may just be under way.
        return [one for one in others if one.posted_ns] if record.options.cooldown_s else ()

    def _expire(self, record: Record, now: int) -> None:
        if record.posted_ns is not None:
            self.finish(
                record,
                RequestState.LOST,
                "The answer to the start call was lost and the server could not be asked since: "
                "it may have run. Look at the task in the management console.",
                now,
                label="lost",
            )
            return
        last = record.execution.reason
        self.finish(
            record,
            RequestState.EXPIRED,
            "Not wanted any more when its turn came" + (f". Last: {last}" if last else "."),
            now,
            label="expired",
        )

    # --- handing out --------------------------------------------------------------------------

    def begin(self, now: int) -> list[Job]:
        """Hand out what can be done now, as far as workers are free.

        A start is noted (``posted_ns``) before it is handed out; the state store decides when the
        note is written.
        """
        book = self._book
        self._end_holds(now)
        for number in self.alarms.take_due(now):
            if (record := book.open.get(number)) is not None:
                self.decide(record, now)
        jobs: list[Job] = []
        while self._urgent and self._has_slot():
            _, record = self._urgent.popitem()
            if book.is_in(record, _CAN_BE_TRIED):
                jobs.append(self._begin(record, now))
        while self._can_go and not self.circuit_open and self._has_slot():
            is_start, number = self._can_go[0]
            if is_start and self._is_full():
                break
            heapq.heappop(self._can_go)
            self._listed.discard(number)
            waiting = book.open.get(number)
            if waiting is None or not book.is_in(waiting, CAN_GO):
                continue
            self.decide(waiting, now)
            if book.is_in(waiting, CAN_GO):
                jobs.append(self._begin(waiting, now))
        return jobs

    def why_no_turn(self) -> str:
        """Why a start that is ready has to wait for others; empty if it goes at once."""
        if not self._has_slot():
            return f"{self.limits.slots} calls are under way (max_concurrent)"
        return f"{self.limits.max_running} runs go on (max_running)" if self._is_full() else ""

    def _has_slot(self) -> bool:
        return self._book.in_flight() < self.limits.slots

    def _is_full(self) -> bool:
        most = self.limits.max_running
        if most is None:
            return False
        runs = self._book.running.values()
        ours = sum(one.execution.cause.kind != "elsewhere" for one in runs)
        return ours + self._book.in_flight() >= most

    def _begin(self, record: Record, now: int) -> Job:
        book = self._book
        self.queues.activate(record)
        if record.posted_ns is None and not record.execution.task_id:
            book.move(record, RequestState.RESOLVING, now)
            book.change(record, reason=ASKS_FOR_TASKS)
            return Job(JobKind.RESOLVE, record)
        if record.look_since_ns is not None:
            record.posted_ns, record.look_since_ns = record.look_since_ns, None
            book.count(Counter.STARTS_CHECKED_AFTER_CRASH)
            book.change(record)
        if record.posted_ns is not None:
            book.move(record, RequestState.LOOKING, now)
            return Job(JobKind.LOOK, record)
        if self.looks_first(record):
            record.turn_ns = None
            book.move(record, RequestState.LOOKING, now)
            book.change(record, reason=ASKS_FOR_RUNS, next_attempt_ns=None)
            return Job(JobKind.LOOK_FIRST, record)
        self.call(record, now)
        return Job(JobKind.START, record)

    def call(self, record: Record, now: int) -> None:
        """Note that the start call is made now."""
        book, attempts = self._book, record.execution.attempts + 1
        book.move(
            record,
            RequestState.CALLING,
            now,
            reason="",
            step="Start call" if attempts == 1 else f"Start call, attempt {attempts}",
            attempts=attempts,
            next_attempt_ns=None,
        )
        record.posted_ns = now
        if record.first_attempt_ns is None:
            record.first_attempt_ns = now
        record.expedited = False
        record.label = ""

    def next_due(self) -> int | None:
        """When ``begin`` has something to do at the earliest, if nothing else happens."""
        times = (self.alarms.next_due(), self.holds.next_end())
        return min((one for one in times if one is not None), default=None)

    # --- holds --------------------------------------------------------------------------------

    def load_holds(self, rows: Mapping[str, bytes]) -> list[str]:
        """Take up the holds that were kept; returns the names of rows that can't be read."""
        found, left_out = holds.decode(rows)
        for hold in found:
            try:
                self.holds.put(hold)
            except TooManyHoldsError:
                left_out.append(holds.row_name(*hold.key))
        self.has_new_holds = True
        return left_out

    def hold(self, hold: Hold, now: int) -> Hold:
        """Hold something back from now on, or change its hold. Raises ``TooManyHoldsError``."""
        hold = self.holds.put(hold)
        self._keep(hold, holds.encode(hold))
        for record in self._book.in_states(*WAITING):
            if _concerns(hold, record):
                self.decide(record, now)
        return hold

    def release(self, kind: str, name: str, now: int) -> Hold | None:
        """End a hold, and let what it kept waiting go on; returns it, ``None`` if there is none."""
        hold = self.holds.remove(kind, name)
        if hold is not None:
            self._keep(hold, None)
            self._decide_held(now, (hold,))
        return hold

    def hold_states(self) -> tuple[HoldState, ...]:
        """What is held, and how much waits for it."""
        return tuple(one.state(self._waiting_for[one.key]) for one in self.holds.all())

    def _end_holds(self, now: int) -> None:
        """End the holds whose time is over."""
        ended = self.holds.take_ended(now) if self.holds else ()
        for hold in ended:
            self._keep(hold, None)
        if ended:
            self._decide_held(now, ended)
        if self._is_clock_new:
            self._is_clock_new = False
            for record in self._book.in_states(RequestState.HELD, RequestState.PAUSED):
                self.decide(record, now)
        self.ended_holds.extend(ended)

    def _keep(self, hold: Hold, body: bytes | None) -> None:
        self._book.changes.kept[(holds.KIND, holds.row_name(*hold.key))] = body
        self._book.changes.is_forced = True
        self.has_new_holds = True

    def _decide_held(self, now: int, changed: Iterable[Hold]) -> None:
        """Decide anew when the requests go that these holds concern."""
        for record in self._book.in_states(RequestState.HELD, RequestState.PAUSED):
            if any(_concerns(hold, record) for hold in changed):
                self.decide(record, now)

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: waits keep their length, and a hold ends by the clock."""
        self.alarms.shift(step_ns)
        for hold in self.holds.shift(step_ns):
            self._keep(hold, holds.encode(hold))
        self._is_clock_new = bool(self.holds)

    # --- what an operator or the server's return changes ---------------------------------------

    def cancel(self, record: Record, by: str, now: int) -> bool:
        """Take back a request that the server knows nothing of; returns whether it could be."""
        if not self._book.is_in(record, WAITING):
            return False
        self.finish(record, RequestState.ABORTED, f"Taken back by {by}.", now)
        return True

    def pause(self, record: Record, by: str, now: int, *, paused: bool) -> None:
        """Pause a request's wait, or let it go on."""
        record.paused = paused
        self._book.note(record, f"{'Paused' if paused else 'Let go on'} by {by}", now)
        self._book.change(record, next_attempt_ns=None)
        self.decide(record, now)

    def why_not_now(self, record: Record) -> str:
        """Why an operator can't end a request's wait; empty if that is safe."""
        book = self._book
        if record.posted_ns is not None and not book.is_in(record, AT_SERVER):
            return (
                f"Execution {record.id} is not started now: its start call may have been carried"
                " out, and the task would run twice. The appliance looks at the server first. If"
                " there is no run, the call is repeated at once."
            )
        if book.is_in(record, _BLOCKED):
            return (
                f"Execution {record.id} is not started now: the task runs, and a second run would"
                " meet the first. It is started when that run ends; stop that run if it hangs."
            )
        if not book.is_in(record, WAITING):
            return f"Execution {record.id} does not wait any more."
        return ""

    def expedite(self, record: Record, by: str, now: int) -> None:
        """End a request's wait (not for the present run: that one has to end by itself).

        One that waits for the server is tried now, although the server does not answer.
        """
        record.paused = False
        self._book.note(record, f"Wait ended by {by}", now)
        self._expedite(record, now)

    def try_one(self, now: int) -> None:
        """Let the oldest request that waits for the server go, although it does not answer."""
        waiting = self._book.in_states(RequestState.SERVER_AWAY, RequestState.LOOK_READY)
        if waiting:
            self._expedite(waiting[0], now)

    def _expedite(self, record: Record, now: int) -> None:
        record.expedited = True
        self._book.change(record, next_attempt_ns=None)
        if self.circuit_open and self._book.is_in(record, CAN_GO):
            self._urgent[record.id] = record
        self.decide(record, now)

    def waits_for_server(self) -> bool:
        """Whether any request waits for the server, or for its next try after a failed call."""
        return self._book.any_in(_NEED_SERVER)

    def server_is_away(self, now: int) -> None:
        """The circuit opens: what could go now waits for the server, and says so."""
        self.circuit_open = True
        for record in self._book.in_states(RequestState.READY):
            self._let_go(record, RequestState.SERVER_AWAY, now)

    def server_is_back(self, now: int) -> None:
        """The circuit closes: what waits for a retry is tried at once."""
        self.circuit_open = False
        self._urgent.clear()
        for record in self._book.in_states(RequestState.SERVER_AWAY):
            self._let_go(record, RequestState.READY, now)
        for record in self._book.in_states(RequestState.RETRY_WAIT, RequestState.UNCERTAIN):
            if record.wished_ns is None or record.wished_ns <= now:
                self._book.change(record, next_attempt_ns=now)
                self.decide(record, now)

    # --- ends ---------------------------------------------------------------------------------

    def finish(
        self,
        record: Record,
        to: RequestState,
        reason: str,
        now: int,
        *,
        label: str = "",
        ended_ns: int | None = None,
        started_ns: int | None = None,
        duration_s: float | None = None,
        answered_by: int = 0,
    ) -> None:
        """Give a request its outcome. A run that failed (``LOG_WANTED``) gets its log later."""
        book, execution = self._book, record.execution
        self.queues.leave(record)
        self.alarms.drop(record.id)
        self._note_holder(record, None)
        record.held_since_ns = None
        was_running = book.is_in(record, AT_SERVER)
        record.forget_call()
        record.label = label
        record.log_wanted = to is RequestState.LOG_WANTED
        record.tries = 0
        began = started_ns or execution.started_ns
        ended = ended_ns or now
        task_id = execution.task_id
        # What never ran is remembered only of tasks that exist: a message can name any id.
        if task_id and (was_running or (_is_bad(to) and task_id in book.histories.by_task)):
            took_s = None
            if to is RequestState.SUCCEEDED and began is not None:
                took_s = duration_s if duration_s is not None else (ended - began) / SECOND_NS
            self._remember_end(record, to, took_s)
        if to is RequestState.SUCCEEDED and task_id:
            self._note_fresh(record, began, ended_ns, now)
        elif to is RequestState.REJECTED and not book.histories.name_of(task_id):
            # A message can name any task, also one that does not exist.
            key = task_id or selector_key(record.selector)
            book.freshness.forget(key, record.wanted_ns, now)
        book.move(
            record,
            to,
            now,
            reason=reason,
            started_ns=began,
            ended_ns=ended,
            next_attempt_ns=None,
            answered_by=answered_by,
        )
        book.count(_COUNTERS[record.execution.state])
        if record.log_wanted:
            self.logs.want(record, now)
        if record.next_tasks:
            book.ended.append(record)
        self.decide_waiting(task_id, now)

    def _note_fresh(
        self, record: Record, began_ns: int | None, ended_ns: int | None, now: int
    ) -> None:
        """A run succeeded: what came before it certainly began is in the data."""
        began = record.began_ns or 0
        if began_ns is not None:
            doubt = to_ns(self.clock_doubt_s()) + _MILLISECOND_NS
            began = max(began, self.own_time_ns(began_ns) - doubt)
        if not began:
            return  # Nobody says when it began.
        fresh = now if ended_ns is None else min(now, self.own_time_ns(ended_ns))
        self._book.freshness.succeeded(
            record.execution.task_id, began, fresh, now, reload=record.options.reload
        )

    def _remember_end(self, record: Record, to: RequestState, took_s: float | None) -> None:
        histories, execution = self._book.histories, record.execution
        history = histories.of(execution.task_id)
        record.recovered = history.last_bad and to is RequestState.SUCCEEDED
        if took_s is not None:
            history = with_duration(history, took_s)
        name = execution.task_name or histories.name_of(execution.task_id)
        history = msgspec.structs.replace(history, last_bad=_is_bad(to), name=name)
        self._book.remember(execution.task_id, history)

    def decide_waiting(self, task_id: str, now: int) -> None:
        """Decide anew when the requests go that wait for a task."""
        # One that is looked for alone is active, and may be blocked by a call for another one.
        active = self.queues.active(task_id)
        blocked = [one for one in active if self._book.is_in(one, _BLOCKED)]
        blocked.extend(self.queues.all_waiting(task_id))
        for record in blocked:
            self.decide(record, now)


def _concerns(hold: Hold, record: Record) -> bool:
    """Whether a hold may keep a request waiting."""
    if hold.kind == "task":
        return record.execution.task_id == hold.name
    return hold.kind == "everything" or hold.key in record.askers


def quiet_ns(record: Record) -> int:
    """When the debounce of a request is over, unless it is asked for again; 0: it has none."""
    options = record.options
    if not options.debounce_s:
        return 0
    return min(
        record.last_asked_ns + to_ns(options.debounce_s),
        record.execution.requested_ns + to_ns(max(options.debounce_max_s, options.debounce_s)),
    )


def freshness_key(selector: TaskSelector) -> str:
    """By what the freshness of what a selector means is known before the server was asked."""
    return selector.value if selector.kind == "id" else selector_key(selector)


def _is_bad(outcome: RequestState) -> bool:
    return any(shown.is_bad for shown in SHOWN[outcome])
