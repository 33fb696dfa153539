"""What messages of the journal would start: the real rules and planner, driven by their times.

No server is asked to start anything. A start call succeeds at once, and its run takes as long as it
really took, if the same message really started the task then; otherwise as long as the task usually
takes. What timers, operators, calls over HTTP and others started happens again as it happened.
Outcomes are those of the rehearsed runs, so chains of tasks follow them. No threads, clock, disk or
network.

Not for: reading the journal (journal/search.py) or ``tasks.db`` (past.py), which tasks there are
(rehearsal_tasks.py), counting (rehearsed.py).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Collection, Container, Sequence

import msgspec

from appliance.config.tables import AllowConfig, OutcomeConfig, TriggerConfig
from appliance.counters import Counter
from appliance.model import (
    LARGEST_SEQ,
    OUTCOME_OF,
    Cause,
    Execution,
    ExecutionState,
    Message,
    MessageProperties,
    Task,
    is_own,
    is_replayed,
    outcome_of,
)
from appliance.qlik.server import Report
from appliance.tasks.consumer import NO_SERVER, REDELIVERY, REPLAY
from appliance.tasks.dedup import Redeliveries
from appliance.tasks.jobs import Job, JobKind, Limits
from appliance.tasks.outcome_forms import OutcomeForm, OutcomeForms
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.past import SAME_START_NS, Past, PastRun, RealStarts
from appliance.tasks.payloads import Rejection
from appliance.tasks.planner import Planner
from appliance.tasks.records import Record
from appliance.tasks.rehearsal_tasks import Catalogue, RehearsalTasks
from appliance.tasks.rehearsed import Tally, asked_name
from appliance.tasks.request_book import to_ns
from appliance.tasks.selector import TaskSelector
from appliance.tasks.states import RequestState
from appliance.tasks.store import Changes, Publication
from appliance.tasks.triggers import Trigger
from appliance.tasks.verdicts import Triggers, Verdict

UNKNOWN_DURATION_S = 60.0
"""For a task of which no duration is known."""
_LEAST_DURATION_S = 1.0
"""A chain whose runs take no time would not get on."""
_MOST_GUESSED = 1000
"""Tasks without a known duration that are named."""
_FIRST_OWN_SEQ = LARGEST_SEQ // 2
"""Numbers of outcomes that a rehearsal makes: no journal has so many messages."""
_ENDS = frozenset(
    {
        ExecutionState.SUCCEEDED,
        ExecutionState.FAILED,
        ExecutionState.ABORTED,
        ExecutionState.SKIPPED,
    }
)


class Setting(msgspec.Struct, frozen=True):
    """The tables of the configuration that is rehearsed."""

    service_name: str
    triggers: tuple[TriggerConfig, ...]
    allow: AllowConfig = AllowConfig()
    outcomes: tuple[OutcomeConfig, ...] = ()
    has_server: bool = True
    max_concurrent: int = 4
    max_running: int | None = None


class Unmet(msgspec.Struct, frozen=True):
    """Messages on the topic of a rule that it did not act on."""

    count: int
    seq: int
    """The first of them."""
    why: str
    """Why that one did not concern the rule."""


class Rehearsal:
    """One rehearsal. ``take`` gets the messages in order, ``finish`` the end of the stretch."""

    def __init__(
        self,
        setting: Setting,
        catalogue: Catalogue,
        past: Past,
        since_ns: int,
        *,
        today_ns: int = 0,
    ) -> None:
        """Nothing has come yet.

        Args:
            setting: what is rehearsed.
            catalogue: the tasks that there are.
            past: what really happened since ``since_ns``.
            since_ns: the stretch begins here.
            today_ns: starts from here on are counted besides.

        Raises:
            ConfigError: a rule can't be compiled.
        """
        self.triggers = Triggers(setting.triggers, service_name=setting.service_name)
        self.tally = Tally(today_ns)
        self.matched: dict[str, int] = {}
        """Messages that each rule acted on, by its name."""
        self._unmet: dict[Trigger, tuple[int, Message]] = {}
        self.guessed: set[str] = set()
        """Tasks of which no duration is known."""
        self._setting = setting
        self._tasks = RehearsalTasks(catalogue, setting.allow)
        self._redeliveries = Redeliveries()
        self._redeliveries.load(past.sightings)
        self._planner = Planner(
            Limits(slots=setting.max_concurrent, max_running=setting.max_running),
            known=self._tasks.known,
            chance=random.Random(0),  # noqa: S311 - the same journal gives the same answer
        )
        self._planner.histories.update(past.histories)
        self._outcomes = Outcomes(setting.service_name, self.triggers.concern)
        self._outcomes.forms = OutcomeForms(
            setting.outcomes, setting.service_name, self._tasks.known
        ).of
        levels = {setting.service_name}
        levels.update(
            OutcomeForm(one, setting.service_name).first_level for one in setting.outcomes
        )
        self._is_heard = any(one.topic.partition("/")[0] in levels for one in self.triggers.rules)
        """Whether any rule may act on outcomes."""
        self._now = since_ns
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        """A heap of what happens later: when, a number that keeps the order, what."""
        self._order = itertools.count()
        self._own: deque[Message] = deque()
        """Outcomes that rules listen for, in their order."""
        self._own_seq = _FIRST_OWN_SEQ
        self._real = RealStarts(past)
        self._happened: dict[int, PastRun] = {}
        """The real runs that requests of others stand for, by the request's number."""
        for run in past.runs:
            self._plan(run, since_ns)

    # --- time ---------------------------------------------------------------------------------

    def take(self, messages: Sequence[Message]) -> None:
        """Let messages come, in the order of the journal; what concerns no rule costs little."""
        for message in messages:
            if not self.triggers.concern(message.topic) or self._is_rehearsed(message):
                continue
            self._go_on(message.received_ns)
            self._hear(message)
            self._settle()

    def finish(self, until_ns: int) -> None:
        """Let the rest of the time pass; what still waits then stays without an outcome."""
        self._go_on(until_ns)

    @property
    def assumed(self) -> Collection[Task]:
        """Tasks that the catalogue does not have and that were taken for granted."""
        return self._tasks.assumed.values()

    @property
    def waiting(self) -> int:
        """Requests that have not been started."""
        return len(self._planner.open) - len(self._planner.running)

    def _go_on(self, until_ns: int) -> None:
        """Do what is due before a time, step by step."""
        while True:
            due = self._planner.dispatcher.next_due()
            if self._events and (due is None or self._events[0][0] <= due):
                due = self._events[0][0]
            if due is None or due > until_ns:
                break
            self._now = max(self._now, due)
            while self._events and self._events[0][0] <= self._now:
                heapq.heappop(self._events)[2]()
            self._settle()
        self._now = max(self._now, until_ns)

    def _later(self, at_ns: int, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_ns, next(self._order), what))

    def _settle(self) -> None:
        """Let all go that can go now, then outcomes be heard, until nothing more follows."""
        planner, now = self._planner, self._now
        while True:
            while jobs := planner.begin(now):
                for job in jobs:
                    self._do(job)
            self._tell()
            if not self._own:
                break
            self._hear(self._own.popleft())
        if planner.book.changes:
            planner.book.changes = Changes()
        planner.slow.clear()

    # --- messages -----------------------------------------------------------------------------

    def _is_rehearsed(self, message: Message) -> bool:
        """Whether it is the outcome of a real run: the rehearsal makes its own."""
        if not is_own(message.client_id):
            return False
        is_told = message.topic.startswith(f"{self._setting.service_name}/tasks/")
        return is_told or bool(outcome_of(message))

    def _hear(self, message: Message) -> None:
        """What the consumer does with a message (``JournalConsumer._take_one``)."""
        decisions = self.triggers.decide(message)
        self._note_unmet(message, {one.trigger for one in decisions})
        if not decisions:
            return
        first = decisions[0].trigger.name
        is_again = self._redeliveries.is_redelivery(message)
        if is_again or is_replayed(message):
            why = REDELIVERY if is_again else REPLAY
            self.tally.count("skipped", first, "", message.received_ns)
            self.tally.because(first, why.label, why.reason, message.seq)
            return
        for decision in sorted(decisions, key=lambda one: one.rejection is not None):
            self._act(message, decision)
        self._redeliveries.note(message)

    def _note_unmet(self, message: Message, met: Container[Trigger]) -> None:
        """Note the rules that listen on its topic and that it does not concern."""
        for trigger in self.triggers.listening(message.topic):
            if trigger not in met:
                count, example = self._unmet.get(trigger, (0, message))
                self._unmet[trigger] = (count + 1, example)

    @property
    def unmet(self) -> dict[str, Unmet]:
        """Messages on the topic of a rule that did not concern it, by the rule's name."""
        found = {}
        for trigger, (count, example) in self._unmet.items():
            verdicts = self.triggers.verdicts(example)
            why = next((one.sentence for one in verdicts if one.trigger is trigger), "")
            found[trigger.name] = Unmet(count, example.seq, why)
        return found

    def _act(self, message: Message, decision: Verdict) -> None:
        trigger, planner = decision.trigger, self._planner
        self.matched[trigger.name] = self.matched.get(trigger.name, 0) + 1
        rejection = decision.rejection
        if rejection is None and not self._setting.has_server:
            rejection = NO_SERVER
        if rejection is None:
            cause = _cause(message, trigger)
            for start in decision.starts:
                before = self._merged()
                answer = planner.ask(
                    start.selector,
                    trigger.options_of(start),
                    cause,
                    self._now,
                    asked_ns=min(self._now, message.received_ns),
                )
                if isinstance(answer, Rejection):
                    rejection = answer
                    break
                self._count_merged(before, trigger.name, answer, message.received_ns)
        if rejection is not None:
            what = "skipped" if rejection.harmless else "rejected"
            self.tally.count(what, trigger.name, "", message.received_ns)
            self.tally.because(trigger.name, rejection.label, rejection.reason, message.seq)

    def _merged(self) -> int:
        return self._planner.counters.get(Counter.REQUESTS_MERGED, 0)

    def _count_merged(self, before: int, rule: str, answered_by: int, at_ns: int) -> None:
        """Count what was merged since the counter stood at ``before``."""
        if (merged := self._merged() - before) > 0:
            record = self._planner.open.get(answered_by)
            task = "" if record is None else self._name(record)
            self.tally.count("merged", rule, task, at_ns, merged)

    # --- what the server would do -------------------------------------------------------------

    def _do(self, job: Job) -> None:
        """What a worker does with a job (``Runner``), and what the server answers."""
        record = job.record
        if job.kind is JobKind.RESOLVE:
            self._resolve(record)
        else:
            self._start(record)

    def _resolve(self, record: Record) -> None:
        planner, cause = self._planner, record.execution.cause
        found = self._tasks.resolve(
            record.selector,
            record.options.reload,
            lambda task: task == cause.about or self._outcomes.is_about(cause.topic, task),
        )
        if isinstance(found, Rejection):
            planner.not_allowed(record, found, self._now)
            return
        before, counted = self._merged(), record.execution.merged
        planner.resolved(record, [task for task, _ in found], self._now, [how for _, how in found])
        answered_by = record.execution.answered_by
        if cause.kind == "message":
            # What was merged into it before is counted already.
            before += counted if answered_by else 0
            self._count_merged(before, cause.rule, answered_by or record.id, self._now)

    def _start(self, record: Record) -> None:
        planner, task_id, now = self._planner, record.execution.task_id, self._now
        refusal = self._tasks.refusal(task_id)
        if refusal is not None:
            planner.not_allowed(record, refusal, now)
            return
        task = self._tasks.known(task_id)
        if task is not None and not task.enabled:
            planner.refused(record, "The task is disabled.", now)
            return
        run = f"rehearsed-{record.id}"
        ends_ns, state = self._end_of(record)
        planner.started(record, run, now)
        planner.report(record, Report(run, task_id, ExecutionState.RUNNING, started_ns=now), now)
        if record.execution.cause.kind == "message":
            self.tally.count("starts", record.execution.cause.rule, self._name(record), now)
        self._later(ends_ns, lambda: self._end(record, run, state))

    def _end_of(self, record: Record) -> tuple[int, ExecutionState]:
        """When a run that begins now ends, and how."""
        now, execution = self._now, record.execution
        real = self._happened.pop(record.id, None) or self._real_start(execution)
        if real is not None and real.begun_ns is not None and real.ended_ns is not None:
            state = real.state if real.state in _ENDS else ExecutionState.SUCCEEDED
            if abs(real.begun_ns - now) < SAME_START_NS and real.ended_ns > now:
                return real.ended_ns, state
            return now + max(1, real.ended_ns - real.begun_ns), state
        usual_s = self._planner.usual_s(execution.task_id)
        if usual_s is None:
            if len(self.guessed) < _MOST_GUESSED:
                self.guessed.add(execution.task_id)
            usual_s = UNKNOWN_DURATION_S
        return now + to_ns(max(usual_s, _LEAST_DURATION_S)), ExecutionState.SUCCEEDED

    def _real_start(self, execution: Execution) -> PastRun | None:
        """The real start that a rehearsed one stands for."""
        cause = execution.cause
        if cause.seq < _FIRST_OWN_SEQ:
            return self._real.of_message(cause.seq, execution.task_id)
        # The outcome that asks for it has another number in the journal.
        return self._real.near(cause.rule, execution.task_id, self._now)

    def _end(self, record: Record, run: str, state: ExecutionState) -> None:
        planner, now = self._planner, self._now
        report = Report(run, record.execution.task_id, state, ended_ns=now)
        planner.report(record, report, now)
        if planner.state_of(record) is RequestState.LOG_WANTED:
            # There is no log; the run's end is told.
            planner.logs.begin(now)
            planner.logs.fetched(record, ())

    def name_of(self, task_id: str) -> str:
        """The task's name, its id where that is not known."""
        return self._planner.book.histories.name_of(task_id) or task_id

    def _name(self, record: Record) -> str:
        return self.name_of(record.execution.task_id) or asked_name(record.selector)

    # --- what follows -------------------------------------------------------------------------

    def _tell(self) -> None:
        """Count what has ended without a start, and let outcomes that rules listen for come."""
        book = self._planner.book
        told, book.told = book.told, []
        for record, execution in told:
            if execution.state.is_final and execution.cause.kind == "message":
                self._count_end(record, execution)
            for one in self._outcomes.of(record, execution) if self._is_heard else ():
                if self.triggers.concern(one.topic):
                    self._own.append(self._message_of(one))

    def _count_end(self, record: Record, execution: Execution) -> None:
        what = _NOT_STARTED.get(execution.state)
        if what is None or execution.execution_id or execution.answered_by:
            return
        rule = execution.cause.rule
        self.tally.count(what, rule, self._name(record), execution.requested_ns)
        label = record.label or execution.state.value
        self.tally.because(rule, label, execution.reason, execution.cause.seq)

    def _message_of(self, one: Publication) -> Message:
        self._own_seq += 1
        properties = None
        if one.task:
            properties = MessageProperties(user_properties=((OUTCOME_OF, one.task),)).encoded()
        return Message(
            self._own_seq,
            self._now,
            one.topic,
            one.payload,
            qos=one.qos,
            retain=one.retain,
            client_id=f"${self._setting.service_name}",
            properties=properties,
        )

    # --- what others started ------------------------------------------------------------------

    def _plan(self, run: PastRun, since_ns: int) -> None:
        """Let what no message of the stretch asked for happen again as it happened."""
        if run.requested_ns < since_ns or run.kind == "elsewhere":
            if run.begun_ns is not None:
                self._later(max(run.begun_ns, since_ns), lambda: self._run_elsewhere(run))
        elif run.kind != "message":
            self._later(run.requested_ns, lambda: self._ask_again(run))

    def _run_elsewhere(self, run: PastRun) -> None:
        planner, now = self._planner, self._now
        name = f"real-{run.id}"
        report = Report(name, run.task_id, ExecutionState.RUNNING, started_ns=now)
        planner.elsewhere(report, run.task_name, now)
        record = planner.book.owner_of(name)
        if record is not None and run.ended_ns is not None:
            state = run.state if run.state in _ENDS else ExecutionState.SUCCEEDED
            self._later(max(run.ended_ns, now), lambda: self._end(record, name, state))

    def _ask_again(self, run: PastRun) -> None:
        selector = TaskSelector("id", run.task_id) if run.task_id else run.selector
        answer = self._planner.ask(selector, run.options, Cause(run.kind, rule=run.rule), self._now)
        if isinstance(answer, int):
            self._happened.setdefault(answer, run)


_NOT_STARTED = {
    ExecutionState.REJECTED: "rejected",
    ExecutionState.REFUSED: "rejected",
    ExecutionState.SKIPPED: "skipped",
    ExecutionState.EXPIRED: "expired",
}


def _cause(message: Message, trigger: Trigger) -> Cause:
    return Cause(
        "message",
        message.seq,
        message.topic,
        message.client_id,
        trigger.name,
        outcome_of(message),
    )
