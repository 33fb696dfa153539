"""The table of states: each transition is walked here, and none happens outside of the table.

A scenario names the ways that it walks; the last tests compare all ways with the table. The state
machine of test_planner.py runs the same planner at random, where ``RequestBook`` raises for a
transition that the table does not have.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
import state_table

from appliance.counters import Counter
from appliance.model import Cause, ExecutionState, ReloadOptions, Task
from appliance.qlik.server import QlikError, Report, RetryPolicy
from appliance.tasks import states
from appliance.tasks.holds import Hold
from appliance.tasks.jobs import Job, JobKind, Limits
from appliance.tasks.payloads import Rejection
from appliance.tasks.planner import REFUSALS, Planner
from appliance.tasks.records import Record
from appliance.tasks.request_book import SECOND_NS, to_ns
from appliance.tasks.script_logs import MAX_WANTED
from appliance.tasks.selector import TaskSelector
from appliance.tasks.states import FINAL, SHOWN, TRANSITIONS, RequestState, TransitionError
from appliance.tasks.triggers import Options

S = RequestState
NOW = 1_000_000 * SECOND_NS
TASK = "00000000-0000-0000-0000-000000000001"
OTHER = "00000000-0000-0000-0000-000000000002"
DOWN = QlikError("refused", label="refused", retry=RetryPolicy.SAFE)
PLAIN = Options()
DEBOUNCE = Options(debounce_s=5.0, debounce_max_s=50.0)
APART = Options(debounce_s=5.0, if_running="start")
"""Several runs of the task at a time, and requests that are merged while they wait."""
SKIP = Options(if_running="skip")
RESTING = (S.SCHEDULED, S.PAUSED, S.HELD, S.BLOCKED, S.READY, S.SERVER_AWAY, S.RETRY_WAIT)
"""The states in which a request waits before the server knows of it."""
EXPIRING = tuple(state for state in RESTING if state is not S.HELD)

Pair = tuple[RequestState, RequestState]
WALKED: set[Pair] = set()


@contextmanager
def steps() -> Iterator[set[Pair]]:
    """The transitions that happen meanwhile."""
    seen: set[Pair] = set()
    check = states.check

    def noted(before: RequestState | None, after: RequestState) -> None:
        check(before, after)
        if before is not None:
            seen.add((before, after))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "check", noted)
        yield seen


def walks(
    *ways: tuple[RequestState, ...],
) -> Callable[[Callable[[Scene], None]], Callable[[], None]]:
    """A scenario that walks these ways; the test fails if it leaves one of their steps out."""
    pairs = {pair for way in ways for pair in itertools.pairwise(way)}
    WALKED.update(pairs)

    def decorate(act: Callable[[Scene], None]) -> Callable[[], None]:
        def test() -> None:
            with steps() as seen:
                act(Scene())
            assert pairs <= seen, pairs - seen

        functools.update_wrapper(test, act)
        del test.__wrapped__  # pytest would ask for the scene as a fixture
        return test

    return decorate


class Scene:
    """A planner with a clock of its own; two jobs are handed out at a time."""

    def __init__(self) -> None:
        self.now = 1_000_000 * SECOND_NS
        self.seqs = itertools.count(1)
        self.planner = Planner(Limits(slots=2), known={}.get, chance=random.Random(1))

    def ask(
        self,
        options: Options = PLAIN,
        task: str = TASK,
        *,
        selector: TaskSelector | None = None,
        asked_ns: int | None = None,
    ) -> Record:
        """Ask for a start by a message; returns the request that answers it."""
        cause = Cause("message", next(self.seqs))
        number = self.planner.ask(
            selector or TaskSelector("id", task), options, cause, self.now, asked_ns=asked_ns
        )
        assert isinstance(number, int)
        ended = (one for one, _ in self.planner.book.told if one.id == number)
        return self.planner.open.get(number) or next(ended)

    def go(self, seconds: float = 0.0) -> list[Job]:
        """Let time pass; returns what is handed out."""
        self.now += int(seconds * SECOND_NS)
        return self.planner.begin(self.now)

    def call(self, options: Options = PLAIN, task: str = TASK) -> Record:
        """A request whose start call is under way."""
        record = self.ask(options, task)
        self.go(options.debounce_s)
        self.expect(record, S.CALLING)
        return record

    def run(self, options: Options = PLAIN, task: str = TASK) -> Record:
        """A request whose run the server has in its queue."""
        record = self.call(options, task)
        self.planner.started(record, f"run {record.id}", self.now)
        self.expect(record, S.QUEUED)
        return record

    def report(self, record: Record, state: ExecutionState) -> None:
        """The server's word on the request's run."""
        execution = record.execution
        self.planner.report(
            record, Report(execution.execution_id, execution.task_id, state), self.now
        )

    def elsewhere(self, task: str = TASK, run: str = "elsewhere") -> Record:
        """A run of the task that was started elsewhere."""
        self.planner.elsewhere(Report(run, task, ExecutionState.RUNNING), "A task", self.now)
        record = self.planner.book.owner_of(run)
        assert record is not None
        return record

    def occupy(self) -> None:
        """Give all workers that are free something to do."""
        number = 100
        while self.planner.book.in_flight() < self.planner.limits.slots:
            number += 1
            self.ask(PLAIN, f"00000000-0000-0000-0000-{number:012d}")
            self.go()

    def uncertain(self) -> Record:
        """A request whose start call got no answer."""
        record = self.call()
        self.planner.uncertain(record, "No answer.", self.now)
        self.expect(record, S.UNCERTAIN)
        return record

    def looking(self) -> Record:
        """A request with a worker that asks the server whether it was started."""
        record = self.uncertain()
        self.go(60)
        self.expect(record, S.LOOKING)
        return record

    def bring(self, state: RequestState, options: Options = PLAIN) -> Record:
        """A new request that waits in ``state`` and stays there."""
        planner = self.planner
        if state is S.BLOCKED:
            self.elsewhere()
        elif state is S.RETRY_WAIT:
            record = self.call(options)
            planner.retry(record, DOWN, self.now)
            self.expect(record, state)
            return record
        elif state is S.HELD:
            self.hold()
        elif state in (S.SCHEDULED, S.PAUSED):
            options = options if options.debounce_s else DEBOUNCE
        elif state is S.READY:
            self.occupy()
        elif state is S.SERVER_AWAY:
            planner.server_is_away(self.now)
        record = self.ask(options)
        if state is S.PAUSED:
            planner.pause(record, "ann", self.now, paused=True)
        elif state not in (S.SCHEDULED, S.HELD):
            self.go(options.debounce_s)
        self.expect(record, state)
        return record

    def hold(self, seconds: float | None = None, task: str = TASK) -> None:
        """Hold a task, for so many seconds or without an end."""
        until = None if seconds is None else self.now + to_ns(seconds)
        self.planner.hold(Hold("task", task, until, "disks", "ann", self.now), self.now)

    def expect(self, record: Record, state: RequestState) -> None:
        """Assert where the request stands, and that users see what belongs to it."""
        assert self.planner.state_of(record) is state
        assert record.execution.state in SHOWN[state]


def each(*targets: RequestState, sources: tuple[RequestState, ...] = RESTING) -> tuple[Pair, ...]:
    """The ways from each of the sources to each of the targets."""
    return tuple((one, to) for one in sources for to in targets if one is not to)


# --- waits --------------------------------------------------------------------------------------


@walks((S.PENDING, S.READY, S.CALLING, S.QUEUED, S.RUNNING, S.SUCCEEDED))
def test_a_start_that_nothing_holds_back(scene: Scene) -> None:
    """The straight way, and what users see of it."""
    record = scene.run()
    scene.report(record, ExecutionState.RUNNING)
    scene.report(record, ExecutionState.SUCCEEDED)
    seen = [execution.state.value for one, execution in scene.planner.book.told if one is record]
    assert seen == ["requested", "starting", "queued", "running", "succeeded"]


@walks(
    (S.PENDING, S.SCHEDULED, S.READY),
    (S.PENDING, S.BLOCKED),
    (S.PENDING, S.SERVER_AWAY),
    (S.PENDING, S.SKIPPED),
    (S.PENDING, S.EXPIRED),
)
def test_where_a_new_request_goes(scene: Scene) -> None:
    """A debounce, a run that goes on, a server that is away, and two that never wait."""
    scene.expect(scene.ask(DEBOUNCE), S.SCHEDULED)
    scene.go(5)
    scene.elsewhere(OTHER)
    assert scene.ask(SKIP, OTHER).execution.state is ExecutionState.SKIPPED
    assert scene.ask(PLAIN, OTHER, asked_ns=0).execution.state is ExecutionState.EXPIRED
    scene.expect(scene.ask(PLAIN, OTHER), S.BLOCKED)
    scene.planner.server_is_away(scene.now)
    scene.expect(scene.ask(APART, "00000000-0000-0000-0000-000000000003"), S.SCHEDULED)
    scene.expect(scene.ask(PLAIN, "00000000-0000-0000-0000-000000000004"), S.SERVER_AWAY)


@walks(*each(S.ABORTED))
def test_what_waits_can_be_taken_back(_scene: Scene) -> None:
    """From each state in which the server knows nothing of the request."""
    for state in RESTING:
        scene = Scene()
        record = scene.bring(state)
        assert scene.planner.cancel(record, "ann", scene.now)
        assert record.execution.state is ExecutionState.ABORTED
        assert not scene.planner.cancel(record, "ann", scene.now)


@walks(*each(S.EXPIRED, sources=EXPIRING))
def test_what_waits_expires(_scene: Scene) -> None:
    """Each wait ends by ``expire``, but for a hold."""
    for state in EXPIRING:
        scene = Scene()
        record = scene.bring(state)
        scene.planner.begin(record.expires_ns)
        assert record.execution.state is ExecutionState.EXPIRED


@walks(*each(S.PAUSED), (S.PENDING, S.PAUSED))
def test_what_waits_can_be_paused(_scene: Scene) -> None:
    """Each wait can be paused, and it is paused after a restart."""
    for state in RESTING:
        scene = Scene()
        record = scene.bring(state)
        scene.planner.pause(record, "ann", scene.now, paused=True)
        scene.expect(record, S.PAUSED)
        assert not [job for job in scene.go(3600) if job.record is record]
        again = Scene()
        again.planner.restore(copy_of(record), again.now)
        again.expect(record, S.PAUSED)


@walks(*each(S.HELD), (S.PENDING, S.HELD))
def test_what_waits_can_be_held(_scene: Scene) -> None:
    """After each wait, and after a restart; it goes on when the hold ends, however late."""
    for state in RESTING:
        scene = Scene()
        record = scene.bring(state)
        kept_s = (record.expires_ns - scene.now) / SECOND_NS
        scene.hold()
        if state is S.PAUSED:
            # An operator's own word about this request stands first, until it is taken back.
            scene.expect(record, S.PAUSED)
            scene.planner.pause(record, "ann", scene.now, paused=False)
        scene.expect(record, S.HELD)
        assert record.execution.reason == f"Held by ann (task {TASK}): disks."
        assert not [job for job in scene.go(10 * kept_s) if job.record is record]
        scene.expect(record, S.HELD)
        again = Scene()
        again.now = scene.now + 10 * SECOND_NS
        rows = {f"task:{TASK}": scene.planner.book.changes.kept["hold", f"task:{TASK}"]}
        again.planner.dispatcher.load_holds(rows)
        again.planner.restore(copy_of(record), again.now)
        again.expect(again.planner.open[record.id], S.HELD)
        for one in (scene, again):
            one.planner.release("task", TASK, one.now)
            left = one.planner.open[record.id]
            assert one.planner.state_of(left) is not S.HELD
            assert (left.expires_ns - one.now) / SECOND_NS == pytest.approx(kept_s)


@walks(*each(S.SKIPPED))
def test_what_waits_is_answered_by_a_request_that_comes_back(_scene: Scene) -> None:
    """The start call of an earlier request failed: it waits again and answers the later one."""
    for state in RESTING:
        scene = Scene()
        options = PLAIN if state is S.BLOCKED else APART
        earlier = scene.call(options)
        if state is S.BLOCKED:
            later = scene.ask(options)
            scene.expect(later, state)
        else:
            later = scene.bring(state, options)
        scene.planner.retry(earlier, DOWN, scene.now)
        assert later.execution.state is ExecutionState.SKIPPED
        assert later.execution.reason == f"Answered by execution {earlier.id}."
        assert later.execution.answered_by == earlier.id
        assert earlier.execution.merged == 1


@walks(*each(S.SCHEDULED))
def test_a_further_message_renews_the_debounce(_scene: Scene) -> None:
    """The request waits for quiet again, after each kind of wait; a pause that ends does so too."""
    for state in RESTING:
        scene = Scene()
        record = scene.bring(state, DEBOUNCE)
        if state is S.PAUSED:
            scene.planner.pause(record, "ann", scene.now, paused=False)
        else:
            assert scene.ask(DEBOUNCE) is record
        if state is S.HELD:
            scene.planner.release("task", TASK, scene.now)
        scene.expect(record, S.SCHEDULED)


@walks(*each(S.READY))
def test_an_operator_ends_a_wait(_scene: Scene) -> None:
    """Also the wait for a retry. The wait for a run or the server ends by itself."""
    for state in RESTING:
        scene = Scene()
        record = scene.bring(state)
        if state is not S.SERVER_AWAY:
            scene.occupy()
        if state is S.BLOCKED:
            scene.report(scene.elsewhere(), ExecutionState.SUCCEEDED)
        elif state is S.SERVER_AWAY:
            scene.planner.server_is_back(scene.now)
        else:
            scene.planner.expedite(record, "ann", scene.now)
        scene.expect(record, S.READY)


@walks(*each(S.BLOCKED))
def test_a_run_that_was_started_elsewhere_blocks_what_waits(_scene: Scene) -> None:
    """An operator can't end that wait."""
    for state in RESTING:
        scene = Scene()
        record = scene.bring(state)
        scene.elsewhere()
        scene.planner.expedite(record, "ann", scene.now)
        scene.expect(record, S.BLOCKED)


@walks(*each(S.SERVER_AWAY))
def test_what_could_go_waits_for_the_server(_scene: Scene) -> None:
    """A wait that ends while the server is away goes on as another."""
    for state in RESTING:
        scene = Scene()
        record = scene.bring(state)
        scene.planner.server_is_away(scene.now)
        if state is S.BLOCKED:
            scene.report(scene.elsewhere(), ExecutionState.SUCCEEDED)
        elif state not in (S.READY, S.SERVER_AWAY):
            scene.planner.expedite(record, "ann", scene.now)
        scene.expect(record, S.SERVER_AWAY)
        assert scene.go() == []


@walks((S.SERVER_AWAY, S.READY, S.CALLING, S.RETRY_WAIT))
def test_an_operator_has_a_request_tried_although_the_server_is_away(scene: Scene) -> None:
    """That one alone; the others go on waiting, and so does it when the call failed."""
    other = scene.ask(PLAIN, OTHER)
    scene.planner.server_is_away(scene.now)
    record = scene.bring(S.SERVER_AWAY)
    scene.planner.expedite(record, "ann", scene.now)
    (job,) = scene.go()
    assert job.record is record
    scene.planner.retry(record, DOWN, scene.now)
    scene.expect(record, S.RETRY_WAIT)
    scene.expect(other, S.SERVER_AWAY)
    assert scene.go(3600) == []


@walks((S.RETRY_WAIT, S.READY, S.RETRY_WAIT), (S.RETRY_WAIT, S.SERVER_AWAY, S.RETRY_WAIT))
def test_a_clock_that_is_set_back_makes_a_retry_wait_again(_scene: Scene) -> None:
    """The times of waits are those of the wall clock."""
    for state in (S.READY, S.SERVER_AWAY):
        scene = Scene()
        record = scene.bring(S.RETRY_WAIT, Options(debounce_s=0.1))
        scene.occupy()
        if state is S.SERVER_AWAY:
            scene.planner.server_is_away(scene.now)
        scene.go(10)
        scene.expect(record, state)
        scene.go(-10)
        scene.ask(Options(debounce_s=0.1))
        scene.expect(record, S.RETRY_WAIT)


@walks((S.PENDING, S.RETRY_WAIT))
def test_a_retry_waits_on_after_a_restart(scene: Scene) -> None:
    """It is not tried before its time because the appliance was started again."""
    record = copy_of(scene.bring(S.RETRY_WAIT))
    again = Scene()
    again.planner.restore(record, again.now)
    again.expect(record, S.RETRY_WAIT)
    assert again.go() == []


# --- calls --------------------------------------------------------------------------------------


@walks(
    (S.PENDING, S.READY, S.RESOLVING, S.PENDING),
    (S.RESOLVING, S.RETRY_WAIT),
    (S.RESOLVING, S.SKIPPED),
    (S.RESOLVING, S.REJECTED),
    (S.RESOLVING, S.EXPIRED),
)
def test_what_comes_of_a_name(_scene: Scene) -> None:
    """Found, not to be asked for, waiting already, unknown, too late."""
    for tasks in ([Task(TASK, "One")], [], [Task(OTHER, "Two")], None):
        scene = Scene()
        scene.bring(S.BLOCKED)
        retry_for_s = 100.0 if tasks is None else 0.0
        record = scene.ask(Options(retry_for_s=retry_for_s), selector=TaskSelector("name", "One"))
        scene.go()
        scene.expect(record, S.RESOLVING)
        if tasks is None:
            scene.planner.retry(record, DOWN, scene.now)
            scene.expect(record, S.RETRY_WAIT)
        elif not tasks:
            scene.planner.not_allowed(record, Rejection("unknown task", "No."), scene.now)
        else:
            scene.planner.resolved(record, tasks, scene.now)
    late = Scene()
    record = late.ask(Options(retry_for_s=0.0), selector=TaskSelector("name", "One"))
    late.go()
    late.planner.retry(record, DOWN, late.now)
    assert record.execution.state is ExecutionState.EXPIRED


@walks((S.CALLING, S.REFUSED), (S.CALLING, S.REJECTED), (S.CALLING, S.EXPIRED))
def test_start_calls_that_are_the_last(_scene: Scene) -> None:
    """The server refuses, the task is not allowed, or it was tried for long enough."""
    for end in ("refused", "rejected", "expired"):
        scene = Scene()
        record = scene.call(Options(retry_for_s=0.0))
        if end == "refused":
            scene.planner.refused(record, "", scene.now)
        elif end == "rejected":
            scene.planner.not_allowed(record, Rejection("403", "No."), scene.now)
        else:
            scene.planner.retry(record, DOWN, scene.now)
        assert record.execution.state.value == end


@walks((S.CALLING, S.PENDING, S.BLOCKED))
def test_a_start_that_another_run_was_in_the_way_of_waits_for_it(scene: Scene) -> None:
    """The refusal is no outcome where the request is to be queued behind the present run."""
    record = scene.call()
    record.posted_ns = None  # as the worker does before it tells of the run
    scene.elsewhere()
    scene.planner.refused(record, "", scene.now)
    scene.expect(record, S.BLOCKED)


@walks((S.CALLING, S.PENDING), (S.LOOKING, S.UNCERTAIN), (S.RESOLVING, S.PENDING))
def test_jobs_that_are_given_back(_scene: Scene) -> None:
    """At the stop; the request is as it was, and its job is handed out again."""
    scene = Scene()
    record = scene.call()
    scene.planner.nothing_done(record, scene.now)
    scene.expect(record, S.READY)
    assert [(job.kind, job.record) for job in scene.go()] == [(JobKind.START, record)]
    scene = Scene()
    record = scene.looking()
    posted_ns = record.posted_ns
    scene.planner.nothing_done(record, scene.now)
    assert record.posted_ns == posted_ns
    assert [(job.kind, job.record) for job in scene.go()] == [(JobKind.LOOK, record)]
    scene = Scene()
    record = scene.ask(selector=TaskSelector("tag", "x"))
    scene.go()
    scene.planner.nothing_done(record, scene.now)
    assert [(job.kind, job.record) for job in scene.go()] == [(JobKind.RESOLVE, record)]


@walks(
    (S.CALLING, S.UNCERTAIN, S.LOOK_READY, S.LOOKING, S.UNCERTAIN),
    (S.LOOKING, S.PENDING),
    (S.LOOKING, S.QUEUED),
    (S.CALLING, S.RETRY_WAIT),
)
def test_a_lost_answer_is_looked_for(scene: Scene) -> None:
    """Until a run is found, or the server had the time to begin one and has none."""
    record = scene.looking()
    scene.planner.look_failed(record, DOWN, scene.now)
    scene.expect(record, S.UNCERTAIN)
    scene.go(60)
    scene.planner.not_found(record, scene.now)
    (job,) = scene.go()
    assert (job.kind, job.record) == (JobKind.START, record)
    scene.planner.uncertain(record, "No answer.", scene.now)
    scene.go(60)
    report = Report("run", TASK, ExecutionState.RUNNING, started_ns=scene.now)
    scene.planner.found(record, report, scene.now)
    scene.expect(record, S.RUNNING)
    scene.bring(S.RETRY_WAIT, APART)


@walks((S.LOOK_READY, S.UNCERTAIN), (S.LOOK_READY, S.LOST), (S.UNCERTAIN, S.LOST))
def test_what_may_have_been_started_is_lost_in_the_end(_scene: Scene) -> None:
    """While the server is away, or an operator holds the look back."""
    for paused in (False, True):
        scene = Scene()
        record = scene.uncertain()
        scene.planner.server_is_away(scene.now)
        scene.go(60)
        scene.expect(record, S.LOOK_READY)
        if paused:
            scene.planner.pause(record, "ann", scene.now, paused=True)
            scene.expect(record, S.UNCERTAIN)
        scene.planner.begin(record.expires_ns)
        assert record.execution.state is ExecutionState.LOST


@walks((S.PENDING, S.READY, S.LOOKING))
def test_what_an_earlier_process_may_have_started_is_looked_for(scene: Scene) -> None:
    """The first job is a look."""
    scene.planner.dispatcher.earlier_seq = 1
    record = scene.ask()
    scene.go()
    scene.expect(record, S.LOOKING)


# --- runs ---------------------------------------------------------------------------------------


@walks(
    *each(S.SUCCEEDED, S.LOG_WANTED, S.ABORTED, S.SKIPPED, sources=(S.QUEUED, S.RUNNING)),
    *each(S.LOST, S.FORGOTTEN, sources=(S.QUEUED, S.RUNNING)),
    (S.QUEUED, S.RUNNING, S.QUEUED),
)
def test_how_runs_end(_scene: Scene) -> None:
    """By each outcome that a server reports, whether or not the run was seen running."""
    outcomes = ("succeeded", "failed", "aborted", "skipped", "lost", "forgotten")
    for queued, outcome in itertools.product((True, False), outcomes):
        scene = Scene()
        record = scene.run() if outcome != "forgotten" else scene.elsewhere()
        scene.report(record, ExecutionState.RUNNING)
        if queued:
            scene.report(record, ExecutionState.QUEUED)
        if outcome == "lost":
            scene.now += 3600 * SECOND_NS
            scene.planner.missing(record, scene.now)
        elif outcome == "forgotten":
            owner = scene.call(Options(if_running="start"))
            scene.planner.started(owner, "elsewhere", scene.now)
            assert record.id not in scene.planner.open
            assert record.id in scene.planner.book.changes.removed
            continue
        else:
            scene.report(record, ExecutionState(outcome))
        assert record.execution.state.value == outcome


@walks((S.LOG_WANTED, S.FETCHING_LOG, S.LOG_WANTED), (S.FETCHING_LOG, S.FAILED))
def test_the_log_of_a_failed_run_is_asked_for_again(scene: Scene) -> None:
    """At once, then after each wait; a stop or a restart costs no try."""
    record = scene.run()
    scene.report(record, ExecutionState.FAILED)
    logs = scene.planner.logs
    assert logs.begin(scene.now) is record
    logs.given_back(record, scene.now)
    again = Scene()
    again.planner.restore(copy_of(record), again.now)
    assert again.planner.logs.begin(again.now) is not None
    waits_s = scene.planner.limits.log_waits_s
    for wait_s in waits_s:
        assert logs.begin(scene.now) is record
        logs.failed(record, "404: not found", scene.now)
        scene.now += int((wait_s - 0.1) * SECOND_NS)
        assert logs.begin(scene.now) is None
        scene.now += SECOND_NS // 10
    again = Scene()
    again.planner.restore(copy_of(record), again.now)
    for log, of in ((logs, scene), (again.planner.logs, again)):
        taken = log.begin(of.now)
        assert taken is not None
        log.failed(taken, "404: not found", of.now)
        assert log.next_due() is None
        assert not taken.log_wanted
        assert taken.execution.log_problem == "404: not found"
        assert of.planner.counters[Counter.SCRIPT_LOGS_MISSED] == 1


def test_logs_that_are_wanted_are_bounded() -> None:
    """One too many is not asked for, and says so: the runs of a night can all fail."""
    scene = Scene()
    records = [scene.run(task=task_id(number)) for number in range(MAX_WANTED + 1)]
    for record in records:
        scene.report(record, ExecutionState.FAILED)
    assert [one for one in records if one.execution.log_problem] == records[-1:]
    assert records[-1].execution.state is ExecutionState.FAILED


def test_a_log_whose_tries_hang_is_given_up_after_some_minutes() -> None:
    """Each try may last minutes, so their number alone bounds nothing."""
    scene = Scene()
    record = scene.run()
    scene.report(record, ExecutionState.FAILED)
    logs = scene.planner.logs
    assert logs.begin(scene.now) is record
    scene.now += to_ns(scene.planner.limits.log_give_up_s)
    logs.failed(record, "timeout", scene.now)
    assert record.execution.log_problem == "timeout"


def task_id(number: int) -> str:
    return f"00000000-0000-0000-0001-{number:012d}"


def copy_of(record: Record) -> Record:
    """The request as it stands in the database."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Record)


# --- several appliances on one server -----------------------------------------------------------


def among_others() -> Scene:
    """A scene in which the server is asked for runs of others before each start."""
    scene = Scene()
    scene.planner.dispatcher.has_others = True
    return scene


def look_first(scene: Scene, options: Options = PLAIN) -> Record:
    """A request with a worker that asks the server what others started."""
    record = scene.ask(options)
    assert [job.kind for job in scene.go(1)] == [JobKind.LOOK_FIRST]
    scene.expect(record, S.LOOKING)
    return record


def run_of_other(scene: Scene, began_s: float, state: ExecutionState, run: str = "x") -> Report:
    """A run that began so many seconds ago, as a look shows it."""
    began = scene.now - to_ns(began_s)
    return Report(run, TASK, state, began_from_ns=began, began_until_ns=began)


@walks((S.PENDING, S.SCHEDULED, S.READY, S.LOOKING, S.CALLING))
def test_what_nothing_answers_is_started_after_a_look(_scene: Scene) -> None:
    """The call is noted when it is made, not when the server is asked."""
    scene = among_others()
    record = look_first(scene)
    assert record.posted_ns is None
    assert scene.planner.looked(record, [], scene.now)
    scene.expect(record, S.CALLING)
    assert record.posted_ns == scene.now


@walks((S.LOOKING, S.QUEUED, S.RUNNING))
def test_a_run_that_began_after_the_message_answers_it(_scene: Scene) -> None:
    """The run is followed, and the execution says whose it is."""
    scene = among_others()
    record = look_first(scene)
    report = run_of_other(scene, 0.5, ExecutionState.RUNNING)
    assert not scene.planner.looked(record, [report], scene.now)
    scene.expect(record, S.RUNNING)
    assert record.execution.execution_id == "x"
    assert "another one started" in record.execution.reason


@walks((S.LOOKING, S.SKIPPED))
def test_a_run_that_has_ended_or_is_another_request_s_answers_it_too(_scene: Scene) -> None:
    """The message shows the execution that has the run."""
    scene = among_others()
    record = look_first(scene)
    seen = scene.elsewhere(run="x")
    scene.report(seen, ExecutionState.SUCCEEDED)
    report = run_of_other(scene, 0.5, ExecutionState.SUCCEEDED)
    assert not scene.planner.looked(record, [report], scene.now)
    assert record.execution.state is ExecutionState.SKIPPED
    assert record.execution.answered_by == seen.id


@walks((S.LOOKING, S.PENDING, S.BLOCKED), (S.LOOKING, S.PENDING, S.SCHEDULED))
def test_a_run_that_began_before_the_message_is_waited_for(_scene: Scene) -> None:
    """Or for the end of the cooldown that it began."""
    scene = among_others()
    record = look_first(scene)
    scene.planner.looked(record, [run_of_other(scene, 5, ExecutionState.RUNNING)], scene.now)
    scene.expect(record, S.BLOCKED)
    scene = among_others()
    record = look_first(scene, Options(cooldown_s=60))
    scene.planner.looked(record, [run_of_other(scene, 5, ExecutionState.SUCCEEDED)], scene.now)
    scene.expect(record, S.SCHEDULED)
    assert record.execution.next_attempt_ns == scene.now + 55 * SECOND_NS


@walks((S.LOOKING, S.RETRY_WAIT), (S.LOOKING, S.EXPIRED), (S.LOOKING, S.REJECTED))
def test_a_server_that_can_t_be_asked_is_waited_for(_scene: Scene) -> None:
    """For ``retry_for`` at most; and an error of ours ends the request."""
    scene = among_others()
    record = look_first(scene)
    scene.planner.retry(record, DOWN, scene.now)
    scene.expect(record, S.RETRY_WAIT)
    assert record.execution.attempts == 0
    scene = among_others()
    record = look_first(scene, Options(retry_for_s=0))
    scene.planner.retry(record, DOWN, scene.now)
    assert record.execution.state is ExecutionState.EXPIRED
    scene = among_others()
    record = look_first(scene)
    scene.planner.not_allowed(record, Rejection("x", "No."), scene.now)
    assert record.execution.state is ExecutionState.REJECTED


@walks((S.LOOKING, S.RETRY_WAIT))
def test_a_run_that_may_be_of_an_earlier_process_is_decided_first(_scene: Scene) -> None:
    """A message that was read again after a crash may have started it; nothing is started on it."""
    scene = among_others()
    record = scene.ask()
    scene.planner.dispatcher.earlier_seq = 100
    earlier = scene.ask(selector=TaskSelector("tag", "nightly"))
    assert earlier.look_since_ns is not None
    scene.go(1)
    scene.expect(record, S.LOOKING)
    running = run_of_other(scene, 5, ExecutionState.RUNNING)
    assert not scene.planner.looked(record, [running], scene.now)
    scene.expect(record, S.RETRY_WAIT)
    assert "not known yet" in record.execution.reason


@walks((S.LOOKING, S.PENDING))
def test_a_look_that_is_given_back_leaves_nothing_in_doubt(_scene: Scene) -> None:
    """The stop came between the look and the call."""
    scene = among_others()
    record = look_first(scene)
    scene.planner.nothing_done(record, scene.now)
    assert record.posted_ns is None
    scene.expect(record, S.SCHEDULED)


@pytest.mark.parametrize(
    "state", [ExecutionState.ABORTED, ExecutionState.SKIPPED, ExecutionState.LOST]
)
def test_a_run_that_loaded_nothing_answers_nothing(state: ExecutionState) -> None:
    """One that failed does: the next one would fail as well."""
    scene = among_others()
    assert scene.planner.looked(look_first(scene), [run_of_other(scene, 0.5, state)], scene.now)
    scene = among_others()
    record = look_first(scene)
    report = run_of_other(scene, 0.5, ExecutionState.FAILED)
    assert not scene.planner.looked(record, [report], scene.now)


def test_a_run_answers_only_what_came_before_it() -> None:
    """Of merged messages, the newest counts."""
    scene = among_others()
    record = scene.ask()
    began = scene.now + SECOND_NS // 20
    scene.now += SECOND_NS // 10
    assert scene.ask() is record
    scene.go(1)
    report = Report("x", TASK, ExecutionState.SUCCEEDED, began_from_ns=began, began_until_ns=began)
    assert scene.planner.looked(record, [report], scene.now)


def test_who_wants_a_start_for_every_message_gets_one_without_a_look() -> None:
    """And what reloads with variables is answered by no run of others."""
    scene = among_others()
    scene.ask(Options(if_running="start"))
    assert [job.kind for job in scene.go()] == [JobKind.START]
    scene = among_others()
    record = look_first(scene, Options(reload=ReloadOptions(variables=(("v", "1"),))))
    report = run_of_other(scene, 0.5, ExecutionState.SUCCEEDED)
    assert scene.planner.looked(record, [report], scene.now)


def test_a_refusal_is_looked_into_before_it_is_believed() -> None:
    """Another appliance may have started the task, and the run shows a little later."""
    scene = among_others()
    record = look_first(scene)
    for _ in range(REFUSALS):
        assert scene.planner.looked(record, [], scene.now)
        scene.planner.refused(record, "It runs already.", scene.now)
        scene.expect(record, S.RETRY_WAIT)
        scene.go(10)
        assert [job.kind for job in scene.go(1)] == [JobKind.LOOK_FIRST]
    assert scene.planner.looked(record, [], scene.now)
    scene.planner.refused(record, "It is disabled.", scene.now)
    assert record.execution.state is ExecutionState.REFUSED


def test_appliances_wait_different_times_before_they_look() -> None:
    """At least as long as the doubt about the server's clock, and never longer than the bounds."""
    waits = set()
    for seed in range(20):
        planner = Planner(Limits(), known={}.get, chance=random.Random(seed))
        planner.dispatcher.has_others = True
        planner.dispatcher.clock_doubt_s = lambda: 0.3
        planner.ask(TaskSelector("id", TASK), PLAIN, Cause("message", 1), NOW)
        planner.begin(NOW)
        waits.add((planner.next_due() or 0) - NOW)
    limits = Limits()
    assert len(waits) == 20
    assert min(waits) >= to_ns(limits.apart_s + 0.3)
    assert max(waits) <= to_ns(limits.apart_s + 0.3 + limits.apart_spread_s)


# --- the table ----------------------------------------------------------------------------------


def test_every_transition_of_the_table_is_walked_by_a_scenario() -> None:
    """And the scenarios walk no other."""
    table = {(before, after) for before, following in TRANSITIONS.items() for after in following}
    assert table - WALKED == set()
    assert WALKED - table == set()


def test_every_state_can_be_entered_and_leads_to_an_end() -> None:
    """No state is an island, and no request can be caught for ever."""
    assert set(TRANSITIONS) == set(S) == set(SHOWN)
    reached = set(states.ENTRIES)
    while more := {to for one in reached for to in TRANSITIONS[one]} - reached:
        reached |= more
    assert reached == set(S)
    ending = set(FINAL)
    while more := {one for one in S if TRANSITIONS[one] & ending} - ending:
        ending |= more
    assert ending == set(S)


def test_users_see_an_outcome_exactly_of_what_has_one() -> None:
    """And each visible state belongs to some state."""
    for state in S:
        assert all(shown.is_final != (state in states.OPEN) for shown in SHOWN[state])
    assert {shown for every in SHOWN.values() for shown in every} == set(ExecutionState)


def test_a_move_outside_of_the_table_is_refused_and_changes_nothing() -> None:
    """A defect is heard of where it is, instead of in a request that never ends."""
    scene = Scene()
    record = scene.run()
    before = msgspec.msgpack.encode(record)
    with pytest.raises(TransitionError, match="queued to ready"):
        scene.planner.book.move(record, S.READY, scene.now, reason="by mistake")
    assert scene.planner.state_of(record) is S.QUEUED
    assert msgspec.msgpack.encode(record) == before


def test_the_result_of_a_job_that_is_not_under_way_any_more_is_ignored() -> None:
    """A worker that reports twice changes nothing the second time."""
    scene = Scene()
    record = scene.run()
    before = msgspec.msgpack.encode(record)
    planner, now = scene.planner, scene.now
    planner.started(record, "another", now)
    planner.refused(record, "", now)
    planner.not_allowed(record, Rejection("403", "No."), now)
    planner.retry(record, DOWN, now)
    planner.uncertain(record, "No answer.", now)
    planner.look_failed(record, DOWN, now)
    planner.not_found(record, now)
    planner.nothing_done(record, now)
    planner.logs.failed(record, "404", now)
    planner.logs.fetched(record, ["a line"])
    planner.logs.given_back(record, now)
    assert msgspec.msgpack.encode(record) == before
    assert planner.state_of(record) is S.QUEUED


def test_a_retry_waits_although_the_first_try_was_expedited() -> None:
    """An operator ends one wait, not all that follow: the server would be asked without pause."""
    for selector in (TaskSelector("id", TASK), TaskSelector("tag", "x")):
        scene = Scene()
        record = scene.ask(DEBOUNCE, selector=selector)
        scene.planner.expedite(record, "ann", scene.now)
        (job,) = scene.go()
        scene.planner.retry(job.record, DOWN, scene.now)
        assert scene.go() == []


def test_a_look_does_not_wait_for_quiet() -> None:
    """Debounce holds back starts; whether a start was lost is asked for at once."""
    scene = Scene()
    record = scene.ask(Options(debounce_s=600.0))
    scene.planner.expedite(record, "ann", scene.now)
    scene.go()
    scene.planner.uncertain(record, "No answer.", scene.now)
    scene.expect(record, S.UNCERTAIN)
    assert [job.kind for job in scene.go(60)] == [JobKind.LOOK]


def test_the_page_has_the_states_as_the_code_has_them() -> None:
    """docs/architecture.md is what an engineer reads first."""
    written = state_table.PAGE.read_text(encoding="utf-8")
    assert state_table.BEGIN in written
    assert written == state_table.page(written), "run python tests/state_table.py"
    assert set(state_table.meanings()) == set(S)
