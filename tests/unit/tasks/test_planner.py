"""When requests go to the server: the promises about coalescing, retries, looking first.

The state machine below drives the planner with a clock of its own and a model of a server that
answers, refuses, loses answers and is restarted; a few plain tests state single promises.
"""

from __future__ import annotations

import itertools
import random
from math import inf

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.counters import Counter
from appliance.model import APP, Cause, ExecutionState, Message, ReloadOptions, Task
from appliance.qlik.server import RetryPolicy, QlikError, Report
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.dispatcher import MAX_RELOADS_WAITING
from appliance.tasks.holds import Hold
from appliance.tasks.jobs import Job, JobKind, Limits
from appliance.tasks.planner import Planner
from appliance.tasks.payloads import Rejection
from appliance.tasks.records import MAX_NEXT, Next, Record, Reply
from appliance.tasks import states
from appliance.tasks.states import RequestState
from appliance.tasks.alarms import STALE_KEPT
from appliance.tasks.dedup import Redeliveries
from appliance.tasks.triggers import Options
from appliance.tasks.selector import TaskSelector

TRIGGERS = ("a", "b")
IDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(1, 4)]
DOWN = QlikError("refused", label="refused", retry=RetryPolicy.SAFE)
HUNG = QlikError("timeout", label="timeout", retry=RetryPolicy.LOOK_FIRST)
SEQS = itertools.count(1)
"""Sequence numbers: each request of a test is another message's."""
LIMITS = Limits(slots=2, look_settle_s=10.0, lost_after_s=30.0)
PLAIN = Options()
PARTIAL = ReloadOptions(partial=True)


def make(limits: Limits = LIMITS) -> Planner:
    return Planner(
        limits,
        known={IDS[0]: Task(IDS[0], "One", last_duration_s=7.0)}.get,
        chance=random.Random(1),
    )


class Run(msgspec.Struct, eq=False):
    id: str
    task: str
    began_ns: int
    over: bool = False
    is_ours: bool = True
    reload: ReloadOptions = ReloadOptions()


class PlannerMachine(RuleBasedStateMachine):
    """A planner between messages and a server that does what it likes."""

    @initialize(options=st.data())
    def begin(self, options: object) -> None:
        self.now = 1_000_000 * SECOND_NS
        self.planner = self.planner_of_kind()
        self.jobs: list[Job] = []
        self.runs: list[Run] = []
        self.asked: list[tuple[int, int, str, Options]] = []  # (when, execution, task, options)
        self.merged_into: dict[int, int] = {}
        self.final: dict[int, Record] = {}
        self.disk: dict[int, bytes] = {}
        self.held: dict[str, bytes] = {}
        self.fresh: dict[str, bytes] = {}
        self.starts: dict[str, list[tuple[int, Options]]] = {}
        self.options = {
            IDS[0]: PLAIN,
            IDS[1]: Options(debounce_s=5.0, debounce_max_s=20.0, if_running="skip"),
            IDS[2]: Options(cooldown_s=30.0),
        }

    # --- the world ------------------------------------------------------------------------------

    def settle(self) -> None:
        """What the state store does: take the jobs, write the changes."""
        planner, holds = self.planner, self.planner.dispatcher.holds
        wanted_now = {one.id for one in planner.open.values() if one.expedited}
        for job in planner.begin(self.now):
            self.jobs.append(job)
            record = job.record
            if job.kind in (JobKind.START, JobKind.RESOLVE) and record.id not in wanted_now:
                held = holds.of_request(record.execution.task_id, record.askers, self.now)
                assert held is None, "started while it was held"
        changes = planner.book.changes
        for (_, name), row in changes.kept.items():
            self.held.pop(name, None)
            if row is not None:
                self.held[name] = row
        for (_, name), row in planner.book.freshness.take_changed().items():
            self.fresh.pop(name, None)
            if row is not None:
                self.fresh[name] = row
        for number, record in changes.records.items():
            self.disk[number] = msgspec.msgpack.encode(record)
            if record.execution.state.is_final:
                self.final[number] = record
        for number in changes.removed:
            self.disk.pop(number, None)
        self.merged_into.update(changes.moved_answers)
        self.planner.book.told.clear()
        type(changes).__init__(changes)

    def planner_of_kind(self) -> Planner:
        return make()

    def are_owned(self, owned: set[str]) -> bool:
        return owned == {run.id for run in self.runs}

    def at_server(
        self, task: str, *, is_ours: bool = True, reload: ReloadOptions = ReloadOptions()
    ) -> Run:
        number = len(self.runs) + 1
        run = Run(f"run-{number}", task, self.now, is_ours=is_ours, reload=reload)
        self.runs.append(run)
        return run

    def runs_now(self, task: str) -> bool:
        return any(run.task == task and not run.over for run in self.runs)

    def take_job(self, data: st.DataObject, kind: JobKind) -> Job | None:
        jobs = [job for job in self.jobs if job.kind is kind]
        if not jobs:
            return None
        job = data.draw(st.sampled_from(jobs))
        self.jobs.remove(job)
        return job

    # --- what may happen ------------------------------------------------------------------------

    @rule(
        task=st.sampled_from(IDS),
        at_once=st.integers(1, 3),
        reload=st.sampled_from([ReloadOptions(), PARTIAL]),
        trigger=st.sampled_from(TRIGGERS),
    )
    def ask(self, task: str, at_once: int, reload: ReloadOptions, trigger: str) -> None:
        for _ in range(at_once):
            options = msgspec.structs.replace(self.options[task], reload=reload)
            number = self.planner.ask(
                TaskSelector("id", task),
                options,
                Cause("message", next(SEQS), rule=trigger),
                self.now,
            )
            assert isinstance(number, int)
            self.asked.append((self.now, number, task, options))
        self.settle()

    @rule(kind=st.sampled_from(["tag", "together"]))
    def ask_by_tag(self, kind: str) -> None:
        number = self.planner.ask(
            TaskSelector(kind, "x"), PLAIN, Cause("message", next(SEQS)), self.now
        )
        assert isinstance(number, int)
        self.asked.append((self.now, number, "", PLAIN))
        self.settle()

    @rule(data=st.data(), answer=st.sampled_from(["one", "two", "none", "down"]))
    def resolve_call(self, data: st.DataObject, answer: str) -> None:
        job = self.take_job(data, JobKind.RESOLVE)
        if job is None:
            return
        if answer == "down":
            self.planner.retry(job.record, DOWN, self.now)
        elif answer == "none":
            self.planner.not_allowed(job.record, Rejection("unknown task", "No."), self.now)
        else:
            # Not the third: its cooldown holds for its own rule only.
            count = ["one", "two"].index(answer) + 1
            reload = st.sampled_from([ReloadOptions(), PARTIAL])
            reloads = data.draw(st.lists(reload, min_size=count, max_size=count))
            tasks = [Task(one, "T") for one in IDS[:count]]
            self.planner.resolved(job.record, tasks, self.now, reloads)
        self.settle()

    @rule(data=st.data(), act=st.sampled_from(["pause", "go on", "end the wait", "take back"]))
    def operate(self, data: st.DataObject, act: str) -> None:
        if not self.planner.open:
            return
        number = data.draw(st.sampled_from(sorted(self.planner.open)))
        record = self.planner.open[number]
        if act == "take back":
            self.planner.cancel(record, "ann", self.now)
        elif act != "end the wait":
            self.planner.pause(record, "ann", self.now, paused=act == "pause")
        elif not record.options.cooldown_s:
            self.planner.expedite(record, "ann", self.now)
        self.settle()

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += int(seconds * SECOND_NS)
        self.settle()

    @rule(data=st.data(), answer=st.sampled_from(["id", "down", "lost", "lost before", "refused"]))
    def start_call(self, data: st.DataObject, answer: str) -> None:
        job = self.take_job(data, JobKind.START)
        if job is None:
            return
        record, task = job.record, job.record.execution.task_id
        if answer in ("id", "lost"):
            self.starts.setdefault(task, []).append((self.now, record.options))
            run = self.at_server(task, reload=record.options.reload)
        if answer == "id":
            self.planner.started(record, run.id, self.now)
        elif answer == "down":
            self.planner.retry(record, DOWN, self.now)
        elif answer == "refused":
            self.planner.refused(record, "disabled", self.now)
        else:
            self.planner.uncertain(record, str(HUNG), self.now)
        self.settle()

    @rule(data=st.data(), works=st.booleans())
    def look_call(self, data: st.DataObject, works: bool) -> None:
        job = self.take_job(data, JobKind.LOOK)
        if job is not None:
            self.look(job, works)
            self.settle()

    def look(self, job: Job, works: bool) -> None:
        record = job.record
        if not works:
            self.planner.look_failed(record, HUNG, self.now)
            return
        news = [
            run
            for run in self.runs
            if run.task == record.execution.task_id
            and run.began_ns >= record.posted_ns
            and not self.planner.knows_run(run.id)
        ]
        if news:
            self.planner.found(record, self.report_of(news[0]), self.now)
        else:
            self.planner.not_found(record, self.now)

    def report_of(self, run: Run, doubt_ns: int = 0) -> Report:
        state = ExecutionState.SUCCEEDED if run.over else ExecutionState.RUNNING
        return Report(
            run.id,
            run.task,
            state,
            started_ns=run.began_ns,
            ended_ns=self.now,
            began_from_ns=run.began_ns - doubt_ns,
            began_until_ns=run.began_ns + doubt_ns,
        )

    def look_first(self, job: Job, works: bool, doubt_ns: int = 0) -> None:
        """What the worker does: a job of a look goes on as one of a start."""
        record = job.record
        if not works:
            self.planner.retry(record, HUNG, self.now)
            return
        since = self.planner.runs_wanted_since(record, self.now)
        reports = [
            self.report_of(run, doubt_ns)
            for run in self.runs
            if run.task == record.execution.task_id
            and (not run.over or run.began_ns + doubt_ns >= since)
        ]
        if self.planner.looked(record, reports, self.now):
            self.jobs.append(Job(JobKind.START, record))

    @rule(data=st.data())
    def run_ends(self, data: st.DataObject) -> None:
        live = [run for run in self.runs if not run.over]
        if live:
            data.draw(st.sampled_from(live)).over = True

    @rule()
    def poll(self) -> None:
        by_id = {run.id: run for run in self.runs}
        for record in list(self.planner.running.values()):
            self.planner.report(
                record, self.report_of(by_id[record.execution.execution_id]), self.now
            )
        self.settle()

    @rule(lost=st.lists(st.booleans(), min_size=2, max_size=2))
    def crash(self, lost: list[bool]) -> None:
        """The process dies; start calls under way may or may not have reached the server."""
        for job, reached in zip(self.jobs, lost, strict=False):
            task = job.record.execution.task_id
            if job.kind is JobKind.START and reached and not self.runs_now(task):
                self.starts.setdefault(task, []).append((self.now, job.record.options))
                self.at_server(task, reload=job.record.options.reload)
        before = self.planner
        self.jobs = []
        self.planner = self.planner_of_kind()
        self.planner.book.next_id = before.book.next_id
        self.planner.histories.update(before.histories)
        assert not self.planner.dispatcher.load_holds(self.held)
        assert not self.planner.book.freshness.load(self.fresh, self.now)
        records = [msgspec.msgpack.decode(row, type=Record) for row in self.disk.values()]
        for record in sorted(records, key=lambda one: one.id):
            if record.execution.execution_id:
                self.planner.note_run(record.execution.execution_id, record.id)
            if not record.execution.state.is_final or record.log_wanted:
                self.planner.restore(record, self.now)
        self.settle()

    @rule(
        what=st.sampled_from(
            [
                ("everything", ""),
                *(("task", one) for one in IDS),
                *(("trigger", one) for one in TRIGGERS),
            ]
        ),
        seconds=st.sampled_from([None, 1.0, 40.0]),
    )
    def hold(self, what: tuple[str, str], seconds: float | None) -> None:
        until = None if seconds is None else self.now + int(seconds * SECOND_NS)
        self.planner.hold(Hold(*what, until, "", "ann", self.now), self.now)
        self.settle()

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if held := self.planner.dispatcher.holds.all():
            self.planner.release(*data.draw(st.sampled_from(held)).key, self.now)
            self.settle()

    @rule()
    def circuit(self) -> None:
        if self.planner.dispatcher.circuit_open:
            self.planner.server_is_back(self.now)
        else:
            self.planner.dispatcher.circuit_open = True
        self.settle()

    # --- what is promised -----------------------------------------------------------------------

    @invariant()
    def never_more_calls_than_slots(self) -> None:
        assert len(self.jobs) <= LIMITS.slots

    @invariant()
    def one_run_of_a_task_at_a_time(self) -> None:
        for task in IDS:
            live = [run for run in self.runs if run.task == task and not run.over]
            assert len(live) <= 1, live

    @invariant()
    def what_is_held_is_counted_and_nothing_else_is_held(self) -> None:
        dispatcher = self.planner.dispatcher
        held = [
            one
            for one in self.planner.open.values()
            if self.planner.state_of(one) is RequestState.HELD
        ]
        assert sum(one.waiting for one in dispatcher.hold_states()) == len(held)
        assert all(dispatcher.hold_of(one, self.now) for one in held)

    @invariant()
    def one_waiting_request_a_task_and_reload(self) -> None:
        for task, reload in itertools.product(IDS, [ReloadOptions(), PARTIAL]):
            waiting = [
                one
                for one in self.planner.open.values()
                if one.execution.task_id == task
                and one.options.reload == reload
                and one.posted_ns is None
                and self.planner.state_of(one) in states.WAITING
            ]
            assert len(waiting) <= 1

    @invariant()
    def cooldown_lies_between_starts(self) -> None:
        starts = [at for at, _ in self.starts.get(IDS[2], [])]
        assert all(b - a >= 30 * SECOND_NS for a, b in zip(starts, starts[1:], strict=False))

    @invariant()
    def states_agree_with_what_is_seen_and_handed_out(self) -> None:
        planner = self.planner
        for number, record in planner.open.items():
            state = planner.state_of(record)
            assert state in states.OPEN
            assert record.execution.state in states.SHOWN[state]
            assert (state in states.AT_SERVER) == (number in planner.running)
        in_flight = {
            number
            for number, record in planner.open.items()
            if planner.state_of(record) in states.IN_FLIGHT
        }
        assert in_flight == {job.record.id for job in self.jobs}

    def covering(self, asked_ns: int, task: str, reload: ReloadOptions) -> bool:
        """Whether any run that is over has loaded what a message of that time asked for."""
        return any(
            run.task == task
            and run.over
            and run.began_ns >= asked_ns
            and (reload.partial or not run.reload.partial)
            for run in self.runs
        )

    @invariant()
    def what_no_run_has_covered_is_stale(self) -> None:
        """Whatever was lost, found or merged: data that is not fresh is never said to be."""
        stale = self.planner.book.freshness.stale
        for asked_ns, _, task, options in self.asked:
            if task and not self.covering(asked_ns, task, options.reload):
                assert task in stale and stale[task].since_ns <= asked_ns

    def teardown(self) -> None:
        """Let everything come to its end, then compare what was asked with what ran."""
        for record in list(self.planner.open.values()):
            self.planner.pause(record, "ann", self.now, paused=False)
        for hold in self.planner.dispatcher.holds.all():
            self.planner.release(*hold.key, self.now)
        self.planner.dispatcher.circuit_open = False
        self.planner.server_is_back(self.now)
        for _ in range(300):
            self.settle()
            if not self.planner.open:
                break
            for job in list(self.jobs):
                self.jobs.remove(job)
                if job.kind is JobKind.LOOK:
                    self.look(job, works=True)
                elif job.kind is JobKind.LOOK_FIRST:
                    self.look_first(job, works=True)
                elif job.kind is JobKind.RESOLVE:
                    self.planner.resolved(job.record, [Task(IDS[0], "T")], self.now)
                elif job.kind is JobKind.START:
                    task = job.record.execution.task_id
                    if self.runs_now(task):
                        self.planner.refused(job.record, "the task runs already", self.now)
                        continue
                    self.starts.setdefault(task, []).append((self.now, job.record.options))
                    run = self.at_server(task, reload=job.record.options.reload)
                    self.planner.started(job.record, run.id, self.now)
            for run in self.runs:
                run.over = True
            self.poll()
            self.now += SECOND_NS
        assert not self.planner.open
        owners: dict[str, int] = {}
        for number, record in self.final.items():
            run = record.execution.execution_id
            if run:
                assert run not in owners, "one run, two executions"
                owners[run] = number
        assert self.are_owned(set(owners)), "a run without a request"
        self.check_fresh()
        began = {run.id: run.began_ns for run in self.runs}
        for asked_ns, number, _task, _options in self.asked:
            while number in self.merged_into:
                number = self.merged_into[number]
            execution = self.final[number].execution
            if execution.state is ExecutionState.SUCCEEDED:
                assert began[execution.execution_id] >= asked_ns, "started before it was asked for"
            else:
                assert execution.state in (
                    ExecutionState.REFUSED,
                    ExecutionState.SKIPPED,
                    ExecutionState.REJECTED,
                    ExecutionState.ABORTED,
                )

    def check_fresh(self) -> None:
        """All runs are over and known: what they cover is fresh.

        A run that began in the very millisecond may not know of the message.
        """
        stale = self.planner.book.freshness.stale
        for task in {task for _, _, task, _ in self.asked if task}:
            earliest, latest = (
                min(
                    (
                        at
                        for at, _, of, options in self.asked
                        if of == task and not self.covering(at + doubt, task, options.reload)
                    ),
                    default=inf,
                )
                for doubt in (SECOND_NS // 1000, 0)
            )
            since = stale[task].since_ns if task in stale else inf
            assert earliest <= since <= latest


class SharedServerMachine(PlannerMachine):
    """The same with others that start tasks on the server, and with its clock in doubt.

    Whatever others do: each message is answered by a run that began after it.
    """

    def planner_of_kind(self) -> Planner:
        planner = make()
        planner.dispatcher.has_others = True
        return planner

    def check_fresh(self) -> None:
        """Nothing to check: the planner is not told of every run of others here."""

    def are_owned(self, owned: set[str]) -> bool:
        """Of two runs since a call without an answer, the other one is told as one of others."""
        return owned <= {run.id for run in self.runs}

    @rule(task=st.sampled_from(IDS))
    def another_starts(self, task: str) -> None:
        """The server refuses a second run of a task."""
        if not self.runs_now(task):
            self.at_server(task, is_ours=False)

    @rule(
        data=st.data(),
        works=st.booleans(),
        doubt_s=st.sampled_from([0.0, 0.4, 3.0]),
        starts=st.booleans(),
    )
    def look_first_call(
        self, data: st.DataObject, works: bool, doubt_s: float, starts: bool
    ) -> None:
        job = self.take_job(data, JobKind.LOOK_FIRST)
        if job is None:
            return
        self.look_first(job, works, int(doubt_s * SECOND_NS))
        if starts and not self.runs_now(task := job.record.execution.task_id):
            self.at_server(task, is_ours=False)  # between the look and the call
        self.settle()

    def start_call(self, data: st.DataObject, answer: str) -> None:
        job = self.take_job(data, JobKind.START)
        if job is None:
            return
        self.jobs.insert(0, job)
        if self.runs_now(job.record.execution.task_id) and answer in ("id", "lost"):
            self.jobs.remove(job)
            self.planner.refused(job.record, "the task runs already", self.now)
            self.settle()
            return
        super().start_call(_First(), answer)

    start_call = rule(
        data=st.data(), answer=st.sampled_from(["id", "down", "lost", "lost before", "refused"])
    )(start_call)

    @invariant()
    def cooldown_lies_between_starts(self) -> None:
        """Ours and those of others, where ours come second."""
        runs = [run for run in self.runs if run.task == IDS[2]]
        for before, after in itertools.pairwise(runs):
            if after.is_ours:
                assert after.began_ns - before.began_ns >= 30 * SECOND_NS or not before.is_ours


class _First:
    """Draws the first of what there is."""

    def draw(self, strategy: object) -> object:
        return strategy.elements[0]


PlannerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestPlanner = PlannerMachine.TestCase
SharedServerMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None
)
TestSharedServer = SharedServerMachine.TestCase


# --- single promises --------------------------------------------------------------------------

NOW = 1_000_000 * SECOND_NS


def ask(planner: Planner, options: Options = PLAIN, now: int = NOW, **fields: object) -> int:
    number = planner.ask(
        TaskSelector("id", IDS[0]), options, Cause("message", next(SEQS)), now, **fields
    )
    assert isinstance(number, int)
    return number


def ask_for(planner: Planner, task: str) -> int:
    number = planner.ask(TaskSelector("id", task), PLAIN, Cause("message", next(SEQS)), NOW)
    assert isinstance(number, int)
    return number


def at(seconds: float) -> int:
    return NOW + int(seconds * SECOND_NS)


def test_ten_messages_in_a_burst_make_two_runs() -> None:
    """The first starts at once; the others share one run after it, because their data may have
    come after it began."""
    planner = make()
    numbers = {ask(planner)}
    (job,) = planner.begin(NOW)
    numbers |= {ask(planner) for _ in range(9)}
    assert len(numbers) == 2
    planner.started(job.record, "r1", at(1))
    assert planner.begin(at(2)) == []
    done = Report("r1", IDS[0], ExecutionState.SUCCEEDED, started_ns=at(1), ended_ns=at(3))
    planner.report(job.record, done, at(3))
    (second,) = planner.begin(at(3))
    assert second.record.execution.merged == 8
    assert planner.usual_s(IDS[0]) == 2.0


def test_requests_for_other_reloads_of_one_task_are_not_merged() -> None:
    """Equal ones are; each reload runs with its own variables, one after the other."""
    planner = make()
    days = [
        msgspec.structs.replace(PLAIN, reload=ReloadOptions(variables=(("vDay", day),)))
        for day in ("1", "2", "1", "2")
    ]
    first, second, third, fourth = (ask(planner, each) for each in days)
    assert (third, fourth) == (first, second) != (second, first)
    shown = [planner.open[one].execution.reload for one in (first, second)]
    assert shown == [one.reload for one in days[:2]]
    (job,) = planner.begin(NOW)
    assert job.record.id == first
    planner.started(job.record, "run-1", NOW)
    assert planner.begin(NOW) == []
    planner.report(job.record, Report("run-1", IDS[0], ExecutionState.SUCCEEDED), NOW)
    (job,) = planner.begin(NOW)
    assert job.record.id == second


@pytest.mark.parametrize("known", ["at once", "later"])
def test_what_waits_for_an_app_waits_for_the_task_that_the_server_made(known: str) -> None:
    """The first reload of an app has no task yet; the next one does not meet its run."""
    planner = make()
    app = f"{APP}{IDS[1]}"
    first = planner.ask(TaskSelector("id", app), PLAIN, Cause("message", next(SEQS)), NOW)
    (job,) = planner.begin(NOW)
    second = planner.ask(TaskSelector("id", app), PLAIN, Cause("message", next(SEQS)), NOW)
    if known == "at once":
        planner.started(job.record, "run-1", NOW, task_id=IDS[0])
    else:
        planner.started(job.record, "after:1", NOW)
        assert planner.begin(NOW) == []
        planner.report(job.record, Report("run-1", IDS[0], ExecutionState.RUNNING), NOW)
    assert planner.knows_run("run-1")
    executions = [planner.open[one].execution for one in (first, second)]
    assert [one.task_id for one in executions] == [IDS[0], IDS[0]]
    assert executions[0].execution_id == "run-1"
    assert planner.begin(NOW) == []
    assert planner.state_of(planner.open[second]) is RequestState.BLOCKED
    third = planner.ask(TaskSelector("id", IDS[0]), PLAIN, Cause("message", next(SEQS)), NOW)
    assert third == second
    planner.report(job.record, Report("run-1", IDS[0], ExecutionState.SUCCEEDED), NOW)
    (job,) = planner.begin(NOW)
    assert (job.record.id, job.record.execution.task_id) == (second, IDS[0])


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (ExecutionState.SUCCEEDED, [IDS[1]]),
        (ExecutionState.FAILED, [IDS[2]]),
        (ExecutionState.ABORTED, [IDS[2]]),
        (ExecutionState.SKIPPED, []),
    ],
)
def test_the_next_tasks_are_asked_for_once_by_the_outcome(outcome, expected) -> None:
    """Within the change of the outcome, and then they are forgotten."""
    planner = make()
    record = planner.open[ask(planner)]
    record.add_next([Next(IDS[1]), Next(IDS[2], after_failure=True)])
    (job,) = planner.begin(NOW)
    planner.started(job.record, "run-1", NOW)
    assert not planner.start_next(NOW)
    planner.report(job.record, Report("run-1", IDS[0], outcome), NOW)
    assert planner.start_next(NOW)
    assert [one.record.execution.task_id for one in planner.begin(NOW)] == expected
    assert not planner.start_next(NOW)
    assert record.next_tasks == ()
    assert planner.book.changes.records[record.id] is record


def test_a_next_task_that_a_hold_drops_is_told() -> None:
    planner = make()
    record = planner.open[ask(planner)]
    record.add_next([Next(IDS[1])])
    (job,) = planner.begin(NOW)
    planner.started(job.record, "run-1", NOW)
    planner.hold(Hold("task", IDS[1], None, "disks", "ann", NOW, drop=True), NOW)
    planner.report(job.record, Report("run-1", IDS[0], ExecutionState.SUCCEEDED), NOW)
    assert planner.start_next(NOW)
    ((number, task, why),) = planner.not_started
    assert (number, task) == (record.id, IDS[1])
    assert why.startswith("Held by ann")


def test_what_answers_another_request_is_followed_by_its_next_tasks_too() -> None:
    planner = make()
    target, other = (planner.open[ask_for(planner, task)] for task in IDS[:2])
    target.add_next([Next(IDS[1])])
    other.add_next([Next(IDS[1]), Next(IDS[2])])
    planner.dispatcher.absorb(target, other, NOW)
    assert target.next_tasks == (Next(IDS[1]), Next(IDS[2]))
    assert not planner.start_next(NOW)
    target.add_next(Next(str(number)) for number in range(200))
    assert len(target.next_tasks) == MAX_NEXT


def test_so_many_different_reloads_of_one_task_may_wait() -> None:
    """Variables made up in messages can't fill the memory."""
    planner = make()
    planner.server_is_away(NOW)
    for number in range(MAX_RELOADS_WAITING + 1):
        reload = ReloadOptions(variables=(("v", str(number)),))
        options = msgspec.structs.replace(PLAIN, reload=reload)
        answer = planner.ask(TaskSelector("id", IDS[0]), options, Cause("message", next(SEQS)), NOW)
    assert isinstance(answer, Rejection)
    assert len(planner.open) == MAX_RELOADS_WAITING
    assert planner.counters[Counter.REQUESTS_REFUSED_QUEUE_FULL] == 1


def test_debounce_waits_for_quiet_but_not_for_ever() -> None:
    """Each message puts the start off, until the maximum."""
    options = Options(debounce_s=5, debounce_max_s=12)
    planner = make()
    for second in range(0, 12, 3):
        ask(planner, options, at(second))
        assert planner.begin(at(second)) == []
    assert planner.begin(at(11.9)) == []
    (job,) = planner.begin(at(12))
    assert job.record.execution.merged == 3


def test_a_wait_says_until_when() -> None:
    """While it waits, an execution has the time at which it goes on, for the countdown."""
    planner = make()
    number = ask(planner, Options(debounce_s=5))
    execution = planner.open[number].execution
    assert (execution.state, execution.next_attempt_ns) == (ExecutionState.WAITING, at(5))
    assert planner.next_due() == at(5)


@pytest.mark.parametrize("mode", ["queue_one", "start"])
def test_cooldown_allows_one_start_a_window(mode: str) -> None:
    """The first request starts at once, the last of the others at the window's end; the window
    counts from the start, also while the answer to the start call is still awaited."""
    options = Options(cooldown_s=60, if_running=mode)
    planner = make()
    ask(planner, options)
    (job,) = planner.begin(NOW)
    ask(planner, options, at(1))
    assert planner.begin(at(1)) == []
    planner.started(job.record, "r1", at(2))
    ended = Report("r1", IDS[0], ExecutionState.SUCCEEDED, ended_ns=at(5))
    planner.report(job.record, ended, at(5))
    ask(planner, options, at(30))
    assert planner.begin(at(61)) == []
    (second,) = planner.begin(at(62))
    assert second.record.execution.merged == 1


def test_start_mode_starts_one_run_for_each_message() -> None:
    """``if_running = "start"``: nothing is merged and nothing waits for another run."""
    planner = make()
    assert len({ask(planner, Options(if_running="start")) for _ in range(2)}) == 2
    assert len(planner.begin(NOW)) == 2


def test_skip_mode_says_that_it_skipped() -> None:
    """``if_running = "skip"``: a request during a run ends as skipped, with the reason."""
    planner = make()
    ask(planner, Options(if_running="skip"))
    (job,) = planner.begin(NOW)
    planner.started(job.record, "r1", NOW)
    ask(planner, Options(if_running="skip"))
    skipped = planner.book.told[-1][1]
    assert (skipped.state, skipped.reason) == (ExecutionState.SKIPPED, "The task runs already.")


def test_a_request_that_nobody_wants_any_more_expires() -> None:
    """After ``expire`` without a start, counted from when the message came, it is not started."""
    planner = make()
    planner.dispatcher.circuit_open = True
    number = ask(planner, Options(expire_s=60), asked_ns=NOW - 10 * SECOND_NS)
    record = planner.open[number]
    planner.begin(at(49))
    assert record.execution.state is ExecutionState.WAITING
    planner.begin(at(50))
    assert record.execution.state is ExecutionState.EXPIRED


def by_tag(planner: Planner, options: Options, now: int, rule: str = "") -> int:
    cause = Cause("message", next(SEQS), rule=rule)
    number = planner.ask(TaskSelector("tag", "x"), options, cause, now)
    assert isinstance(number, int)
    return number


def test_no_task_of_a_tag_expires_because_its_request_was_held() -> None:
    """A hold for longer than ``expire``: each task that is found after it is started."""
    planner = make(Limits(slots=3))
    planner.hold(Hold("everything", "", None, "", "ann", NOW), NOW)
    by_tag(planner, Options(expire_s=60), NOW)
    assert planner.begin(at(1)) == []
    planner.release("everything", "", at(3600))
    (job,) = planner.begin(at(3600))
    planner.resolved(job.record, [Task(one, "T") for one in IDS], at(3601))
    assert {one.record.execution.task_id for one in planner.begin(at(3601))} == set(IDS)


def test_each_task_of_a_tag_answers_all_that_was_merged_before_it_was_found() -> None:
    """It has what the first of them has: who asked, for how long, and the newest message."""
    planner = make(Limits(slots=3))
    options = Options(expire_s=60, debounce_s=40)
    by_tag(planner, options, NOW, "a")
    by_tag(planner, options, at(30), "b")
    (job,) = planner.begin(at(70))
    planner.resolved(job.record, [Task(one, "T") for one in IDS], at(70))
    said = {
        (one.expires_ns, one.wanted_ns, one.last_seq, one.askers) for one in planner.open.values()
    }
    assert len(planner.open) == len(IDS)
    askers = (("trigger", "a"), ("trigger", "b"))
    assert said == {(at(90), at(30), job.record.last_seq, askers)}


def test_an_old_message_is_not_started_at_all() -> None:
    """A message that was in the journal for longer than ``expire`` ends as expired."""
    planner = make()
    ask(planner, asked_ns=NOW - 2 * 86400 * SECOND_NS)
    assert planner.book.told[-1][1].state is ExecutionState.EXPIRED
    assert planner.begin(NOW) == []


def test_retries_grow_and_end_after_retry_for() -> None:
    """Waits grow up to the maximum; after ``retry_for`` it says what the last error was."""
    planner = make()
    ask(planner, Options(retry_for_s=300))
    now, waits = NOW, []
    for _ in range(100):
        jobs = planner.begin(now)
        if not jobs:
            break
        planner.retry(jobs[0].record, DOWN, now)
        execution = jobs[0].record.execution
        if execution.state.is_final:
            break
        waits.append((execution.next_attempt_ns - now) / SECOND_NS)
        now = execution.next_attempt_ns
    assert execution.state is ExecutionState.EXPIRED
    assert "refused" in execution.reason
    assert waits[0] <= 1.5 < 30 <= max(waits) <= 90
    assert now - NOW <= 300 * SECOND_NS


def test_the_server_s_own_wish_for_patience_is_kept() -> None:
    """429 with Retry-After: the next try is not before that."""
    planner = make()
    ask(planner)
    (job,) = planner.begin(NOW)
    wish = QlikError("slow down", label="429", retry=RetryPolicy.SAFE, retry_after_s=500)
    planner.retry(job.record, wish, NOW)
    assert job.record.execution.next_attempt_ns >= at(500)


def test_a_lost_answer_that_can_never_be_looked_up_is_lost_not_repeated() -> None:
    """If it can't be known whether the task was started, the outcome says so and nothing more is
    posted."""
    planner = make()
    ask(planner, Options(expire_s=600))
    (job,) = planner.begin(NOW)
    planner.uncertain(job.record, str(HUNG), NOW)
    now = NOW
    while not job.record.execution.state.is_final:
        now = planner.next_due()
        for one in planner.begin(now):
            assert one.kind is JobKind.LOOK
            planner.look_failed(one.record, HUNG, now)
    assert job.record.execution.state is ExecutionState.LOST
    assert "may have run" in job.record.execution.reason


def test_a_look_is_believed_as_soon_as_the_server_had_its_time() -> None:
    """Looks grow rarer, but one is made at the moment from which it counts: the start is repeated
    then, not at the next look of the growing row."""
    planner = make()
    ask(planner)
    (job,) = planner.begin(NOW)
    planner.uncertain(job.record, str(HUNG), NOW)
    looks = []
    while not (jobs := planner.begin(looks[-1] if looks else NOW)):
        looks.append(planner.next_due())
        (look,) = planner.begin(looks[-1])
        assert look.kind is JobKind.LOOK
        planner.not_found(look.record, looks[-1])
    assert [one.kind for one in jobs] == [JobKind.START]
    assert looks == [at(2), at(6), at(LIMITS.look_settle_s)]


def test_a_run_that_the_server_forgot_is_lost() -> None:
    """Right after the start the server may know nothing; after a while the run is lost."""
    planner = make()
    ask(planner)
    (job,) = planner.begin(NOW)
    planner.started(job.record, "r1", NOW)
    planner.missing(job.record, at(29))
    assert job.record.execution.state is ExecutionState.QUEUED
    planner.missing(job.record, at(31))
    assert job.record.execution.state is ExecutionState.LOST


def test_a_run_started_elsewhere_is_waited_for() -> None:
    """A request that comes while a run of another starter goes on is started after it."""
    planner = make()
    planner.elsewhere(
        Report("r0", IDS[0].upper(), ExecutionState.RUNNING, started_ns=NOW), "A", NOW
    )
    ask(planner)
    assert planner.begin(NOW) == []
    (elsewhere,) = planner.running.values()
    assert elsewhere.execution.cause.kind == "elsewhere"
    planner.report(elsewhere, Report("r0", IDS[0], ExecutionState.FAILED, ended_ns=at(1)), at(1))
    assert [job.kind for job in planner.begin(at(1))] == [JobKind.START]
    assert planner.logs.begin(at(1)) is elsewhere


@pytest.mark.parametrize("selector", [TaskSelector("id", IDS[0]), TaskSelector("name", "One")])
def test_a_run_that_an_earlier_process_may_have_started_is_not_others(
    selector: TaskSelector,
) -> None:
    """It is looked for; if it were taken for others' run, the look would find nothing."""
    planner = make()
    planner.dispatcher.earlier_seq = 2**40
    planner.ask(selector, PLAIN, Cause("message", next(SEQS)), NOW)
    report = Report("r0", IDS[0], ExecutionState.RUNNING, started_ns=NOW)
    planner.elsewhere(report, "One", NOW)
    assert not planner.knows_run("r0")
    planner.elsewhere(msgspec.structs.replace(report, task_id=IDS[1]), "Two", NOW)
    assert planner.knows_run("r0") == (selector.kind == "id")


def test_what_may_mean_a_task_is_found_without_a_look_at_all_requests() -> None:
    """Its own requests in each state, and those by name until their task is found."""
    planner = make()
    queues = planner.dispatcher.queues
    ask(planner)
    planner.ask(TaskSelector("name", "One"), PLAIN, Cause("message", next(SEQS)), NOW)
    planner.ask(TaskSelector("id", IDS[1]), PLAIN, Cause("message", next(SEQS)), NOW)
    jobs = {job.kind: job.record for job in planner.begin(NOW)}
    ask(planner)
    assert {one.id for one in queues.may_mean(IDS[0])} == {1, 2, 4}
    assert {one.id for one in queues.may_mean(IDS[2], "")} == {2}
    planner.resolved(jobs[JobKind.RESOLVE], [Task(IDS[1], "Two")], NOW)
    assert list(queues.may_mean(IDS[2])) == []


def test_names_and_tags_become_one_request_for_each_task() -> None:
    """Three tasks have the tag: three starts, and one of them waits for the present run."""
    planner = make()
    ask(planner)
    (busy,) = planner.begin(NOW)
    planner.started(busy.record, "r1", NOW)
    planner.ask(TaskSelector("tag", "x"), PLAIN, Cause("message", 2), NOW)
    planner.ask(TaskSelector("tag", "x"), PLAIN, Cause("message", 3), NOW)
    (job,) = planner.begin(NOW)
    assert (job.kind, job.record.execution.merged) == (JobKind.RESOLVE, 1)
    planner.resolved(job.record, [Task(one, f"T{one[-1]}") for one in IDS], NOW)
    jobs = planner.begin(NOW)
    assert {one.record.execution.task_id for one in jobs} == {IDS[1], IDS[2]}
    assert planner.begin(NOW) == []


def test_at_most_so_many_runs_at_a_time() -> None:
    """``max_running`` holds further starts back until a run has ended."""
    planner = make(Limits(slots=4, max_running=1))
    for task in IDS:
        planner.ask(TaskSelector("id", task), PLAIN, Cause("message", 1), NOW)
    (job,) = planner.begin(NOW)
    planner.started(job.record, "r1", NOW)
    assert planner.begin(NOW) == []
    ended = Report("r1", job.record.execution.task_id, ExecutionState.SUCCEEDED, ended_ns=at(1))
    planner.report(job.record, ended, at(1))
    assert len(planner.begin(at(1))) == 1


def test_a_full_queue_refuses_and_counts() -> None:
    """The number of open requests is bounded; what is beyond it is refused with a reason."""
    planner = make(Limits(max_open=1))
    ask(planner, Options(if_running="start"))
    refusal = planner.ask(TaskSelector("id", IDS[1]), PLAIN, Cause("message", 1), NOW)
    assert refusal.label == "queue full"
    assert planner.counters[Counter.REQUESTS_REFUSED_QUEUE_FULL] == 1


def test_only_what_the_server_does_not_know_can_be_taken_back() -> None:
    """A waiting request can be cancelled; one whose call is under way can't."""
    planner = make()
    first = ask(planner)
    (job,) = planner.begin(NOW)
    second = ask(planner)
    assert not planner.cancel(planner.open[first], "ann", NOW)
    assert planner.cancel(planner.open[second], "ann", NOW)
    assert planner.book.told[-1][1].state is ExecutionState.ABORTED
    assert job.record.id == first


def test_merged_messages_are_all_answered() -> None:
    """Each sender with a response topic gets the outcome, up to the bound, which is counted."""
    planner = make()
    for number in range(103):
        ask(planner, Options(debounce_s=1), reply=Reply(f"answer/{number}"))
    (record,) = planner.open.values()
    assert len(record.reply_to) == 100
    assert planner.counters[Counter.REPLIES_DROPPED] == 3


def test_the_story_of_an_execution_is_bounded() -> None:
    """However long it is retried, at most 40 steps are kept, the first ones among them."""
    planner = make()
    number = ask(planner)
    for step in range(100):
        planner.note(planner.open[number], f"step {step}", NOW)
    steps = planner.open[number].execution.steps
    assert len(steps) == 40
    assert steps[0].text.startswith("Asked for by message")
    assert steps[-1].text == "step 99"


# --- redelivery -------------------------------------------------------------------------------


def published(seq: int, *, dup: bool, packet_id: int = 5, at_s: float = 0, **fields: object):
    defaults = {"qos": 1, "client_id": "plc", "topic": "start", "payload": b"x"} | fields
    return Message(seq=seq, received_ns=at(at_s), dup=dup, packet_id=packet_id, **defaults)


@pytest.mark.parametrize(
    ("second", "redelivered"),
    [
        (published(2, dup=True), True),
        (published(2, dup=True, at_s=3600), True),
        (published(2, dup=True, at_s=90_000), False),
        (published(2, dup=False), False),
        (published(2, dup=True, packet_id=6), False),
        (published(2, dup=True, client_id="other"), False),
        (published(2, dup=True, payload=b"y"), False),
        (published(2, dup=True, topic="other"), False),
        (published(2, dup=True, qos=0), False),
    ],
)
def test_a_redelivery_is_told_from_a_second_message(second: Message, redelivered: bool) -> None:
    """Only the same packet of the same client, sent again with DUP within a day, is one; also
    after a restart."""
    memory = Redeliveries()
    sighting = memory.note(published(1, dup=False))
    assert memory.is_redelivery(second) is redelivered
    again = Redeliveries()
    again.load([sighting])
    assert again.is_redelivery(second) is redelivered


def test_without_a_packet_identifier_the_window_is_short() -> None:
    """Two messages of the same content can't be told apart then."""
    memory = Redeliveries()
    memory.note(published(1, dup=False, packet_id=0))
    assert memory.is_redelivery(published(2, dup=True, packet_id=0, at_s=500))
    assert not memory.is_redelivery(published(3, dup=True, packet_id=0, at_s=700))


def test_what_a_bridge_calls_a_repeat_is_one_however_old_the_original_is() -> None:
    """The bridge has looked; its numbers are those of the journal, so large ones too."""
    memory = Redeliveries()
    bridged = {"client_id": "$bridge/plant", "packet_id": 2**40}
    assert memory.note(published(1, dup=False, **bridged)) is None
    assert memory.is_redelivery(published(2, dup=True, at_s=90 * 86_400, **bridged))
    assert memory.is_redelivery(published(2, dup=True, qos=0, **bridged))
    assert not memory.is_redelivery(published(2, dup=False, **bridged))


# --- pace and recovery ------------------------------------------------------------------------


def run_once(planner: Planner, began: float, ended: float, state: ExecutionState) -> Record:
    ask(planner, now=at(began))
    (job,) = [one for one in planner.begin(at(began)) if one.kind is JobKind.START]
    planner.started(job.record, f"r{began}", at(began))
    done = Report(f"r{began}", IDS[0], state, started_ns=at(began), ended_ns=at(ended))
    planner.report(job.record, done, at(ended))
    return job.record


def test_the_first_success_after_a_bad_end_is_a_recovery() -> None:
    """Also after a restart, since it is remembered with the task; the next one is not."""
    planner = make()
    assert not run_once(planner, 0, 10, ExecutionState.SUCCEEDED).recovered
    run_once(planner, 20, 30, ExecutionState.ABORTED)
    assert planner.book.changes.histories[IDS[0]].last_bad
    assert run_once(planner, 40, 50, ExecutionState.SUCCEEDED).recovered
    assert not run_once(planner, 60, 70, ExecutionState.SUCCEEDED).recovered


def test_a_run_that_takes_far_longer_than_usual_is_told_once() -> None:
    """Three times the usual duration, and at least a minute more."""
    planner = make()
    for number in range(3):
        run_once(planner, number * 100, number * 100 + 10, ExecutionState.SUCCEEDED)
    ask(planner, now=at(300))
    (job,) = planner.begin(at(300))
    planner.started(job.record, "slow", at(300))
    running = Report("slow", IDS[0], ExecutionState.RUNNING, started_ns=at(300))
    for second in (360, 369, 371, 400):
        planner.report(job.record, running, at(second))
        assert len(planner.slow) == int(second > 370)


def test_a_run_without_an_end_is_given_up_at_the_limit() -> None:
    """Whether the server says that it runs or can't be asked at all: it does not stay for ever."""
    limit_s = LIMITS.follow_limit_s
    for asked in (True, False):
        planner = make()
        ask(planner)
        (job,) = planner.begin(NOW)
        planner.started(job.record, "r1", NOW)
        report = Report("r1", IDS[0], ExecutionState.RUNNING, started_ns=NOW)
        for second in (limit_s - 1, limit_s + 1):
            assert not job.record.execution.state.is_final
            if asked:
                planner.report(job.record, report, at(second))
            else:
                planner.unanswered(job.record, HUNG, at(second))
        assert job.record.execution.state is ExecutionState.LOST


def test_what_waits_for_the_server_says_so() -> None:
    """While the circuit is open a request says what it waits for."""
    planner = make()
    early = planner.open[ask(planner, Options(debounce_s=1))]
    planner.server_is_away(NOW)
    late = planner.open[planner.ask(TaskSelector("id", IDS[1]), PLAIN, Cause("message", 9), NOW)]
    assert planner.begin(at(2)) == []
    for record in (early, late):
        assert record.execution.state is ExecutionState.WAITING
        assert record.execution.reason == "Waits for the Qlik server to answer."
    planner.server_is_back(at(3))
    assert [one.execution.state for one in (early, late)] == [ExecutionState.REQUESTED] * 2
    assert [job.record.execution.reason for job in planner.begin(at(3))] == ["", ""]


def test_what_was_about_to_go_when_the_server_went_says_so_too() -> None:
    """Requests that only waited for a free slot wait for the server from then on."""
    planner = make(Limits(slots=1))
    ask(planner)
    second = planner.open[ask_for(planner, IDS[1])]
    assert len(planner.begin(NOW)) == 1
    assert second.execution.state is ExecutionState.REQUESTED
    planner.server_is_away(at(1))
    assert second.execution.state is ExecutionState.WAITING
    assert "Qlik server" in second.execution.reason


def test_one_message_that_two_rules_concern_is_answered_once() -> None:
    """The same start asked for twice by one message: one answer, and nothing was merged; another
    message with the same response topic is merged and gets its own."""
    planner = make()
    for seq in (5, 5, 6, 6):
        cause, reply = Cause("message", seq), Reply("answers", b"x", seq)
        planner.ask(TaskSelector("id", IDS[0]), Options(debounce_s=1), cause, NOW, reply=reply)
    (record,) = planner.open.values()
    assert [one.seq for one in record.reply_to] == [5, 6]
    assert record.execution.merged == 1


def test_what_an_earlier_process_may_have_started_is_looked_for_first() -> None:
    """A crash may come between a start call and its note. A request of an earlier process's message
    without a note is looked for, then started; the requests of later messages and of operators are
    started at once."""
    planner = make()
    planner.dispatcher.earlier_seq = 1
    old = planner.ask(TaskSelector("id", IDS[0]), PLAIN, Cause("message", 1), NOW, asked_ns=at(-60))
    (job,) = planner.begin(NOW)
    assert (job.kind, job.record.posted_ns) == (JobKind.LOOK, at(-60))
    planner.not_found(job.record, NOW)
    (job,) = planner.begin(NOW)
    assert (job.kind, job.record.id) == (JobKind.START, old)
    planner.ask(TaskSelector("id", IDS[1]), PLAIN, Cause("message", 2), NOW, asked_ns=at(-60))
    (job,) = planner.begin(NOW)
    assert job.kind is JobKind.START
    again = make()
    again.dispatcher.earlier_seq = 1
    again.ask(TaskSelector("id", IDS[2]), PLAIN, Cause("operator", 1), NOW)
    (job,) = again.begin(NOW)
    assert job.kind is JobKind.START


@pytest.mark.parametrize("was_called", [True, False])
def test_messages_behind_one_that_may_have_been_started_are_answered_too(was_called: bool) -> None:
    """A crash came between the call for a message and its note, and more messages for the same task
    are right behind. A run that is found answers the first message, and one start after it answers
    the others. If the call never arrived, one start answers all."""
    planner = make()
    planner.dispatcher.earlier_seq = 3
    for seq in (1, 2, 3):
        planner.ask(
            TaskSelector("id", IDS[0]), PLAIN, Cause("message", seq), NOW, asked_ns=at(seq - 100)
        )
    (look,) = planner.begin(NOW)
    assert (look.kind, look.record.posted_ns) == (JobKind.LOOK, at(-99))
    if not was_called:
        planner.not_found(look.record, NOW)
        (start,) = planner.begin(NOW)
        assert (start.kind, start.record.execution.merged) == (JobKind.START, 2)
        return
    planner.found(look.record, Report("run", IDS[0], ExecutionState.RUNNING, NOW), NOW)
    assert planner.begin(NOW) == []
    planner.report(look.record, Report("run", IDS[0], ExecutionState.SUCCEEDED, NOW), NOW)
    (second,) = planner.begin(NOW)
    assert (second.kind, second.record.last_seq) == (JobKind.LOOK, 3)
    planner.not_found(second.record, NOW)
    (start,) = planner.begin(NOW)
    assert (start.kind, start.record.id) == (JobKind.START, second.record.id)
    assert planner.begin(NOW) == []


def test_a_request_that_is_looked_for_and_blocked_goes_when_the_other_call_has_ended() -> None:
    """After a crash one message names the task and the next has its id. The call for the first
    holds the second back, and only until it has its answer."""
    planner = make()
    planner.dispatcher.earlier_seq = 2
    options = Options(debounce_s=5, debounce_max_s=50, cooldown_s=1, if_running="start")
    name, number = TaskSelector("name", "One"), TaskSelector("id", IDS[0])
    planner.ask(name, options, Cause("message", 1), NOW, asked_ns=at(-100))
    (resolve,) = planner.begin(at(5))
    planner.ask(number, options, Cause("message", 2), at(5), asked_ns=at(4))
    planner.resolved(resolve.record, [Task(IDS[0], "One")], at(6))
    (look,) = planner.begin(at(6))
    planner.not_found(look.record, at(60))
    (start,) = planner.begin(at(6))
    assert planner.begin(at(15)) == []
    assert RequestState.BLOCKED in {planner.state_of(one) for one in planner.open.values()}
    planner.started(start.record, "run", at(16))
    (second,) = planner.begin(at(18))
    assert (second.kind, second.record.last_seq) == (JobKind.LOOK, 2)


def test_what_was_noted_before_the_machine_s_start_is_looked_for_first() -> None:
    """A power cut may take away the note of a start call, but leave that of its request."""
    planner, again = make(), make()
    again.dispatcher.boot_ns = at(10)
    planner.dispatcher.circuit_open = True
    planner.ask(TaskSelector("id", IDS[2]), PLAIN, Cause("message", 3), NOW)
    record = next(one for one in planner.open.values() if one.execution.task_id == IDS[2])
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Record), at(20))
    assert [one.kind for one in again.begin(at(20))] == [JobKind.LOOK]


def test_a_start_that_is_put_off_a_million_times_costs_one_entry() -> None:
    """Memory does not grow with the messages that a debounce holds back."""
    planner = make()
    options = Options(debounce_s=3600, debounce_max_s=36000)
    for number in range(2000):
        ask(planner, options, at(number / 10))
    assert len(planner.dispatcher.alarms) <= 2
    assert planner.begin(at(3700)) == []
    (job,) = planner.begin(at(3800))
    assert job.record.execution.merged == 1999


def test_made_up_ids_leave_nothing_behind() -> None:
    """A publisher can name tasks that do not exist: each is rejected and forgotten."""
    planner = make()
    for number in range(200):
        selector = TaskSelector("id", f"00000000-0000-0000-0000-{number:012d}")
        planner.ask(selector, PLAIN, Cause("message", 1), NOW)
        (job,) = planner.begin(NOW)
        planner.not_allowed(job.record, Rejection("404", "No such task."), NOW)
    assert not planner.open
    assert not planner.histories
    assert not len(planner.dispatcher.queues)
    assert len(planner.dispatcher.alarms) <= STALE_KEPT + 2


def test_the_usual_duration_is_the_server_s_until_there_is_our_own() -> None:
    """So that the first run has something to be compared with."""
    planner = make()
    assert planner.usual_s(IDS[0]) == 7.0
    run_once(planner, 0, 10, ExecutionState.SUCCEEDED)
    assert planner.usual_s(IDS[0]) == 10.0
    assert planner.usual_s(IDS[1]) is None
