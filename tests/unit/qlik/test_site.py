"""The simulated site behaves like a scheduler, for weeks if need be."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appliance.model import TaskKind
from appliance.qlik.simulated import ManualClock, Outcome, SimulatedTask, Site, demo_site
from appliance.qlik.simulated.site import ZERO_ID, SimulatedChain, Status


def make(*tasks: SimulatedTask, **settings: object) -> tuple[Site, ManualClock]:
    clock = ManualClock()
    site = Site(clock=clock, **settings)  # type: ignore[arg-type]  # keyword arguments of the test
    for task in tasks:
        site.add_task(task)
    return site, clock


def test_a_failed_attempt_is_retried_under_the_same_execution() -> None:
    """As many results as attempts, one execution id, and a session until the last one is over."""
    task = SimulatedTask(
        "A", duration_s=2, max_retries=2, outcomes=(Outcome.FAIL, Outcome.FAIL, Outcome.SUCCESS)
    )
    site, clock = make(task)
    site.start(task.id)
    clock.advance(2.5)
    assert [run.attempt.status for run in site.sessions()] == [Status.FAIL]
    clock.advance(60)
    assert site.sessions() == []
    (run,) = site.runs()
    assert [attempt.status for attempt in run.attempts] == [
        Status.FAIL,
        Status.FAIL,
        Status.SUCCESS,
    ]


def test_a_task_without_a_chance_is_refused() -> None:
    """Disabled, without an app, or running already: the zero id; unknown: nothing."""
    disabled = SimulatedTask("A", enabled=False)
    homeless = SimulatedTask("B", app_available=False)
    busy = SimulatedTask("C")
    site, _ = make(disabled, homeless, busy)
    site.start(busy.id)
    assert [site.start(task.id) for task in (disabled, homeless, busy)] == [ZERO_ID] * 3
    assert site.start("00000000-0000-4000-8000-000000000000") is None


def test_more_runs_than_the_scheduler_takes_are_queued_and_run_in_order() -> None:
    """The fifth of five waits until one of the four is done."""
    tasks = [SimulatedTask(f"T{number}", duration_s=10) for number in range(5)]
    site, clock = make(*tasks)
    for task in tasks:
        site.start(task.id)
    clock.advance(5)
    assert [run.attempt.status for run in site.sessions()] == [Status.STARTED] * 4 + [Status.QUEUED]
    clock.advance(10)
    (last,) = site.sessions()
    assert (last.task.name, last.attempt.status) == ("T4", Status.STARTED)


def test_stop_and_time_limit_abort() -> None:
    """A run that never ends by itself is ended by a person or by the task's time limit."""
    task = SimulatedTask("A", outcomes=(Outcome.NEVER,), timeout_min=3)
    site, clock = make(task)
    site.start(task.id)
    clock.advance(30)
    assert site.stop(task.id)
    clock.advance(1)
    site.start(task.id)
    clock.advance(200)
    assert [(run.attempt.status, run.abort_reason) for run in site.runs()] == [
        (Status.ABORTED, 1),
        (Status.ABORTED, 2),
    ]


@pytest.mark.parametrize(("results", "kept"), [("lost", 0), ("stuck", 1), ("reset", 1)])
def test_a_restart_forgets_sessions(results: str, kept: int) -> None:
    """After a restart no session is left; what the results say can be chosen."""
    task = SimulatedTask("A", duration_s=10)
    site, clock = make(task)
    site.start(task.id)
    clock.advance(1)
    site.forget_sessions(results=results)
    assert site.sessions() == []
    assert len(site.runs()) == kept


def test_finish_ends_a_run_at_once() -> None:
    """A test may decide the outcome of a run without waiting for its duration."""
    task = SimulatedTask("A", outcomes=(Outcome.NEVER,))
    site, _ = make(task)
    site.start(task.id)
    site.finish(task.id, Outcome.FAIL)
    assert site.runs()[0].attempt.status is Status.FAIL


def test_the_demo_site_is_believable_and_bounded() -> None:
    """Weeks of demo: it has failing, disabled and external tasks, and its memory does not grow."""
    clock = ManualClock()
    site = demo_site(clock)
    kinds = {task.kind for task in site.tasks.values()}
    assert {TaskKind.RELOAD, TaskKind.EXTERNAL_PROGRAM} <= kinds
    assert any(not task.enabled for task in site.tasks.values())
    for _ in range(400):
        for task_id in site.tasks:
            site.start(task_id)
        clock.advance(30)
    assert len(site.runs()) <= 204
    statuses = {run.attempt.status for run in site.runs()}
    assert {Status.SUCCESS, Status.FAIL} <= statuses


def test_a_chain_starts_its_task_when_all_that_it_waits_for_has_come() -> None:
    """Each end once, as it is wanted, and within the time."""
    first = SimulatedTask("first", duration_s=1)
    second = SimulatedTask("second", duration_s=1, outcomes=(Outcome.FAIL,))
    after = SimulatedTask("after", duration_s=1)
    site, clock = make(first, second, after)
    ends = ((first.id, Status.SUCCESS), (second.id.upper(), Status.FAIL))
    site.add_chain(SimulatedChain("both", after.id, ends, within_s=60))

    def run(task: SimulatedTask) -> int:
        site.start(task.id)
        clock.advance(5)
        site.advance()
        clock.advance(5)
        site.advance()
        return after.runs

    assert run(first) == 0
    assert run(first) == 0
    assert run(second) == 1
    assert run(second) == 1
    clock.advance(120)
    assert run(first) == 1
    assert run(second) == 2


class SiteMachine(RuleBasedStateMachine):
    """Starts, stops, restarts and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = [
            SimulatedTask("ok", duration_s=3),
            SimulatedTask("fails", duration_s=2, outcomes=(Outcome.FAIL,), max_retries=1),
            SimulatedTask("lost", duration_s=1, outcomes=(Outcome.LOST,)),
            SimulatedTask("slow", duration_s=(20, 40)),
            SimulatedTask("never", outcomes=(Outcome.NEVER,), timeout_min=1),
            SimulatedTask("own", duration_s=1, every_s=15),
        ]
        self.site, self.clock = make(*self.tasks, concurrency=2, keep_runs=5)
        ok, fails, *_, own = (task.id for task in self.tasks)
        for first, then, end in (
            (ok, fails, Status.SUCCESS),
            (fails, own, Status.FAIL),
            (own, ok, Status.SUCCESS),
        ):
            self.site.add_chain(SimulatedChain("circle", then, ((first, end),)))

    @rule(index=st.integers(0, 5))
    def start(self, index: int) -> None:
        assert self.site.start(self.tasks[index].id) is not None

    @rule(index=st.integers(0, 5))
    def stop(self, index: int) -> None:
        self.site.stop(self.tasks[index].id)

    @rule(seconds=st.floats(0.01, 90))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(results=st.sampled_from(["lost", "stuck", "reset"]))
    def restart(self, results: str) -> None:
        self.site.forget_sessions(results=results)

    @invariant()
    def the_rules_of_a_scheduler_hold(self) -> None:
        sessions = self.site.sessions()
        busy = {Status.STARTED, Status.ABORT_INITIATED}
        started = [run for run in sessions if run.attempt.status in busy and run.attempt.started_ns]
        assert len(started) <= 2
        assert len({run.task.id for run in sessions}) == len(sessions)
        assert all(not run.over for run in sessions)
        finished = [run for run in self.site.runs() if run.over]
        assert len(finished) <= 5
        for run in self.site.runs():
            times = [at for at, _, _ in run.attempt.details]
            assert times == sorted(times)


SiteMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestSite = SiteMachine.TestCase
