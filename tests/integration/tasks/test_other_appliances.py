"""Several appliances on one Qlik server: what happened once is started once, as the server tells.

Each appliance here is a task engine of its own, with its own database; they share the simulated
server, which they talk to over HTTP.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tasks_rig import (
    QUICK,
    START_TOPIC,
    JournaledRig,
    MemorySource,
    Rig,
    client_of,
    start_trigger,
)

from appliance.config.tables import AllowConfig, QlikConfig, TimerConfig, TriggerConfig
from appliance.config.values import Duration
from appliance.counters import Counter
from appliance.model import ExecutionState
from appliance.qlik.connect import connect
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik
from appliance.qlik.simulated.cloud_tasks import INTERIM
from appliance.qlik.simulated.site import SimulatedTask, Site
from appliance.secret import Secret

HOUR_NS = 3600 * 1_000_000_000
SECOND_NS = 1_000_000_000
GUID = "3f0c9a52-7b1e-4d88-9f0a-55d1c2e3f401"
AT_ONCE = msgspec.structs.replace(QUICK, apart_s=0.0, apart_spread_s=0.0)


class Ahead:
    """A clock that is ahead of the system's."""

    def __init__(self, hours: int) -> None:
        self.by_ns = hours * HOUR_NS

    def __call__(self) -> int:
        return time.time_ns() + self.by_ns


@pytest.fixture
def hours() -> int:
    """How far the server's clock is ahead of the appliances'."""
    return 1


any_clock = pytest.mark.parametrize(
    "hours", [0, 1, -1], ids=["same clock", "an hour ahead", "an hour behind"]
)


@pytest.fixture
def qlik(hours: int) -> Iterator[SimulatedQlik]:
    """A server with a clock of its own."""
    with SimulatedQlik(site=Site(clock=Ahead(hours), trigger_delay_s=0.0)) as simulated:
        yield simulated


def add(qlik: SimulatedQlik, name: str = "Reload sales") -> SimulatedTask:
    return qlik.add_task(name, outcomes=(Outcome.NEVER,))


def journaled(qlik: SimulatedQlik, folder: Path, *triggers: TriggerConfig, **settings: Any) -> Rig:
    """One appliance whose outcomes enter its journal."""
    return appliance(qlik, folder, *triggers, kind=JournaledRig, source=MemorySource(), **settings)


def appliance(
    qlik: SimulatedQlik,
    folder: Path,
    *triggers: TriggerConfig,
    kind: type[Rig] = Rig,
    **settings: Any,
) -> Rig:
    """One appliance; it does not see others' runs by itself, so that each look is its own."""
    folder.mkdir(exist_ok=True)
    defaults = {"other_appliances": True, "limits": AT_ONCE, "elsewhere_s": 0.0}
    rig = kind(folder / "tasks.db", client_of(qlik), *triggers, **(defaults | settings))
    # The tests let an appliance know the clock by a start, so it need not wait because of a doubt.
    rig.engine._planner.dispatcher.clock_doubt_s = lambda: 0.0
    return rig


def ago(seconds: float) -> int:
    return time.time_ns() - int(seconds * SECOND_NS)


def know_clock(rig: Rig, qlik: SimulatedQlik) -> None:
    """Let the appliance start something, so that it knows the server's clock exactly."""
    task = qlik.add_task("Known", duration_s=0.0)
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "succeeded")


@any_clock
def test_a_run_of_another_that_began_after_the_message_answers_it(qlik, tmp_path: Path) -> None:
    """Nothing is started; the run is followed and its outcome is the message's."""
    task = add(qlik)
    with appliance(qlik, tmp_path) as rig:
        know_clock(rig, qlik)
        run = qlik.run_elsewhere(task.id)
        message = rig.source.put(START_TOPIC, task.id, received_ns=ago(5))
        rig.broker.wait_for(task.id, "running")
        qlik.site.finish(task.id, Outcome.SUCCESS)
        rig.broker.wait_for(task.id, "succeeded")
        execution = rig.newest()
        assert execution.execution_id == run
        assert execution.cause.seq == message.seq
        assert "run that another one started" in execution.reason
        mark = rig.engine.marks([message.seq])[message.seq]
        assert (mark.state, mark.execution) == (ExecutionState.SUCCEEDED, execution.id)
        assert task.runs == 1
        assert rig.engine.counters()[Counter.STARTS_ANSWERED_BY_OTHERS] == 1


@any_clock
def test_a_run_of_another_that_began_before_the_message_is_waited_for(qlik, tmp_path: Path) -> None:
    """It may have read its data before what the message tells of."""
    task = add(qlik)
    with appliance(qlik, tmp_path) as rig:
        know_clock(rig, qlik)
        first = earlier_run(qlik, task, seconds=5)
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "waiting")
        rig.wait_until(lambda: first in {one.execution_id for one in rig.engine.executions(9)})
        assert task.runs == 1
        qlik.site.finish(task.id, Outcome.SUCCESS)
        rig.wait_until(lambda: task.runs == 2)


def test_a_run_of_another_that_failed_is_the_answer_all_the_same(qlik, tmp_path: Path) -> None:
    """Another run of the same task would fail as well; the message says so."""
    task = add(qlik)
    with appliance(qlik, tmp_path) as rig:
        know_clock(rig, qlik)
        qlik.run_elsewhere(task.id)
        qlik.site.finish(task.id, Outcome.FAIL)
        message = rig.source.put(START_TOPIC, task.id, received_ns=ago(5))
        rig.broker.wait_for(task.id, "failed")
        mark = rig.engine.marks([message.seq])[message.seq]
        assert mark.state is ExecutionState.FAILED
        assert "another one started" in rig.newest().reason
        assert task.runs == 1


def test_a_run_of_another_that_was_aborted_answers_nothing(qlik, tmp_path: Path) -> None:
    """It loaded nothing."""
    task = add(qlik)
    with appliance(qlik, tmp_path) as rig:
        know_clock(rig, qlik)
        qlik.run_elsewhere(task.id)
        qlik.site.finish(task.id, Outcome.ABORT)
        rig.source.put(START_TOPIC, task.id, received_ns=ago(5))
        rig.wait_until(lambda: task.runs == 2)


def test_the_cooldown_counts_from_the_last_run_on_the_server(qlik, tmp_path: Path) -> None:
    """Whoever started it."""
    task = add(qlik)
    rule = TriggerConfig(topic=START_TOPIC, task="payload", cooldown=Duration(3600))
    with appliance(qlik, tmp_path, rule) as rig:
        know_clock(rig, qlik)
        earlier_run(qlik, task, seconds=600)
        qlik.site.finish(task.id)
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "waiting")
        rig.wait_until(lambda: "cooldown" in rig.newest().reason)
        due = rig.newest().next_attempt_ns
        assert due is not None
        assert abs(due - ago(600) - HOUR_NS) < 20 * SECOND_NS
        assert task.runs == 1


def test_a_server_that_can_t_be_asked_is_waited_for(qlik, tmp_path: Path) -> None:
    """No start call is made on the off chance; the execution says why it waits."""
    task = add(qlik)
    with appliance(qlik, tmp_path) as rig:
        know_clock(rig, qlik)
        calls = qlik.starts()
        qlik.fail(FaultKind.STATUS, method="GET", path="/executionsession/full", status=503)
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "retrying")
        assert "503" in rig.newest().reason
        asked = len(qlik.requests)
        assert qlik.wait_for(lambda: len(qlik.requests) > asked + 2)
        assert qlik.starts() == calls
        assert rig.newest().attempts == 0
        qlik.heal()
        rig.wait_until(lambda: task.runs == 1)


def test_a_server_that_will_never_tell_holds_no_start_back(qlik, tmp_path: Path) -> None:
    """The user of [qlik] may not see what runs: starts are counted that had no look."""
    task = add(qlik)
    with appliance(qlik, tmp_path) as rig:
        qlik.fail(FaultKind.STATUS, method="GET", path="/executionresult/full", status=403)
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: task.runs == 1)
        assert rig.engine.counters()[Counter.STARTS_WITHOUT_LOOK] == 1


class Halting:
    """A client whose start call does not end: the process dies in it."""

    def __init__(self, server: Any, *, is_carried_out: bool) -> None:
        self._server = server
        self._is_carried_out = is_carried_out
        self.reached = threading.Event()
        self.released = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def start(self, task_id: str, **options: Any) -> Any:
        answer = self._server.start(task_id, **options) if self._is_carried_out else None
        self.reached.set()
        self.released.wait(60)
        return answer


@pytest.mark.parametrize("is_carried_out", [False, True], ids=["before the call", "after it"])
def test_a_crash_between_the_look_and_the_note_of_the_call_starts_it_once(
    qlik, tmp_path: Path, is_carried_out: bool
) -> None:
    """What the disk has at that moment says that a call was made, so the next process looks."""
    task = add(qlik)
    halting = Halting(client_of(qlik), is_carried_out=is_carried_out)
    first = Rig(
        tmp_path / "tasks.db", halting, other_appliances=True, limits=AT_ONCE, elsewhere_s=0.0
    )
    first.engine._planner.dispatcher.clock_doubt_s = lambda: 0.0
    with first:
        first.source.put(START_TOPIC, task.id)
        assert halting.reached.wait(20)
        (tmp_path / "crashed").mkdir()
        with first.engine._state.lock:
            # Not the index of the log, which SQLite makes anew, and which Windows locks.
            for name in ("tasks.db", "tasks.db-wal"):
                shutil.copy(tmp_path / name, tmp_path / "crashed" / name)
        halting.released.set()
        halting._server.close()
    with appliance(qlik, tmp_path / "crashed", source=first.source) as again:
        again.broker.wait_for(task.id, "running")
        qlik.site.finish(task.id, Outcome.SUCCESS)
        again.broker.wait_for(task.id, "succeeded")
    assert task.runs == 1


def test_two_appliances_with_a_copy_of_each_message_start_each_task_once(
    qlik, tmp_path: Path
) -> None:
    """Both get the message at the same moment; the server tells the second of the first."""
    tasks = [qlik.add_task(f"Task {number}", duration_s=0.1) for number in range(4)]
    with appliance(qlik, tmp_path / "a") as one, appliance(qlik, tmp_path / "b") as two:
        know_clock(one, qlik)
        know_clock(two, qlik)
        came = ago(5)
        for task in tasks:
            one.source.put(START_TOPIC, task.id, received_ns=came)
        one.wait_until(lambda: all(task.runs for task in tasks))
        for task in tasks:
            two.source.put(START_TOPIC, task.id, received_ns=came)
            two.broker.wait_for(task.id, "succeeded")
        assert [task.runs for task in tasks] == [1] * len(tasks)
        assert two.engine.counters()[Counter.STARTS_ANSWERED_BY_OTHERS] == len(tasks)


@pytest.mark.campaign
def test_a_chain_of_two_appliances_goes_on_once(qlik, tmp_path: Path) -> None:
    """Both see the end of a run, one of them later; what the first one starts answers the other."""
    first = qlik.add_task("First", duration_s=0.1)
    following = qlik.add_task("Next", duration_s=0.1)
    last = f"appliance/tasks/{first.id}/last"
    chain = TriggerConfig(topic=last, when={"state": "succeeded"}, task=following.id)
    slow = msgspec.structs.replace(QUICK, apart_s=1.0, apart_spread_s=0.0)
    with (
        journaled(qlik, tmp_path / "a", start_trigger(), chain, limits=slow) as one,
        journaled(qlik, tmp_path / "b", start_trigger(), chain) as two,
    ):
        know_clock(one, qlik)
        know_clock(two, qlik)
        one.source.put(START_TOPIC, first.id)
        one.broker.wait_for(following.id, "succeeded")
        # What the second one hears of the first run, a little later.
        outcome = next(
            body
            for topic, body, *_ in one.broker.published
            if topic == last and body["state"] == "succeeded"
        )
        message = two.source.put(last, msgspec.json.encode(outcome), client_id="$appliance")
        two.broker.wait_for(following.id, "succeeded")
        mark = two.engine.marks([message.seq])[message.seq]
        assert mark.state is ExecutionState.SUCCEEDED
        assert (first.runs, following.runs) == (1, 1)


@pytest.mark.campaign
def test_timers_of_two_appliances_start_a_task_once(qlik, tmp_path: Path) -> None:
    """A timer asks as a message does."""
    task = qlik.add_task("Reload sales", duration_s=0.2)
    timer = TimerConfig(name="nightly", every=Duration(3600), task=task.id)
    slow = msgspec.structs.replace(QUICK, apart_s=1.0, apart_spread_s=0.0)
    slower = msgspec.structs.replace(QUICK, apart_s=2.5, apart_spread_s=0.0)
    with (
        appliance(qlik, tmp_path / "a", limits=slow, timers=(timer,)) as one,
        appliance(qlik, tmp_path / "b", limits=slower, timers=(timer,)) as two,
    ):
        know_clock(one, qlik)
        know_clock(two, qlik)
        for rig in (one, two):
            rig.engine.fire_timer("nightly", "the clock")
        for rig in (one, two):
            rig.wait_until(lambda rig=rig: ended(rig) == 2)
        assert task.runs == 1


def test_a_start_costs_two_questions(qlik, tmp_path: Path) -> None:
    """And none where there are no other appliances, or where each message is to start the task."""
    task = qlik.add_task("Reload sales", duration_s=0.0)
    every = TriggerConfig(topic="each", task=task.id, if_running="start")
    with appliance(qlik, tmp_path, start_trigger(), every, first_poll_s=30.0) as rig:
        rig.engine.tasks()
        looked = len(qlik.requests)
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: task.runs == 1)
        asked = [one.path for one in qlik.requests[looked:]]
        assert [path.split("/qrs")[-1] for path in asked if "about" not in path] == [
            "/executionsession/full",
            "/executionresult/full",
            f"/task/{task.id}/start/synchronous",
        ]
        qlik.site.advance()
        rig.source.put("each", "")
        rig.wait_until(lambda: task.runs == 2)
        gets = [one for one in qlik.requests[looked:] if "execution" in one.path]
        assert len(gets) == 2


def test_a_reload_of_the_configuration_turns_it_on_and_off(qlik, tmp_path: Path) -> None:
    """A site gets its second appliance while the first one works."""
    task = add(qlik)
    with appliance(qlik, tmp_path, other_appliances=False) as rig:
        know_clock(rig, qlik)
        qlik.run_elsewhere(task.id)
        qlik.site.finish(task.id, Outcome.SUCCESS)
        rules = rig.engine.rules_of([start_trigger()], [], AllowConfig(), [], other_appliances=True)
        rig.engine.take(rules)
        rig.source.put(START_TOPIC, task.id, received_ns=ago(5))
        rig.broker.wait_for(task.id, "succeeded")
        assert task.runs == 1


def ended(rig: Rig) -> int:
    return sum(state.is_final for state in rig.states())


def earlier_run(qlik: SimulatedQlik, task: SimulatedTask, seconds: float) -> str:
    """A run that another one started so long ago."""
    clock = qlik.site._clock
    back = int(seconds * SECOND_NS)
    with qlik.site.lock:
        clock.by_ns -= back
        run = qlik.run_elsewhere(task.id)
        clock.by_ns += back
    return run


@pytest.mark.parametrize("kind", ["app", "task", "task over the interim interface"])
def test_the_same_holds_in_qlik_cloud(kind: str, tmp_path: Path) -> None:
    """Also for runs that a schedule began; the tenant's clock is known by its headers alone."""
    with SimulatedQlik(site=Site(clock=Ahead(1), trigger_delay_s=0.0)) as qlik:
        if "interim" in kind:
            qlik.cloud.tasks.interfaces = {INTERIM}
        task = qlik.add_task(
            "Line 7",
            id="b7c1d9e0-3a52-4f0e-8d11-62c4a9f0e733",
            is_cloud_task=kind != "app",
            app_id="b7c1d9e0-3a52-4f0e-8d11-62c4a9f0e733" if kind == "app" else GUID,
            app_name="Line 7",
            outcomes=(Outcome.NEVER,),
        )
        config = QlikConfig(edition="cloud", url=qlik.url, api_key=Secret("simulated-api-key"))
        tenant = connect(config)
        settings = {"other_appliances": True, "limits": AT_ONCE, "elsewhere_s": 0.0}
        with Rig(tmp_path / "tasks.db", tenant, **settings) as rig:
            rig.engine._planner.dispatcher.clock_doubt_s = lambda: 0.0
            rig.engine.tasks()
            qlik.run_elsewhere(task.id)
            rig.source.put(START_TOPIC, task.id, received_ns=ago(10))
            rig.broker.wait_for(task.id, "running")
            qlik.site.finish(task.id, Outcome.SUCCESS)
            rig.broker.wait_for(task.id, "succeeded")
            assert "another one started" in rig.newest().reason
            earlier_run(qlik, task, seconds=30)
            rig.source.put(START_TOPIC, task.id)
            rig.wait_until(
                lambda: any("present run" in one.reason for one in rig.engine.executions(9))
            )
            assert task.runs == 2
            qlik.site.finish(task.id, Outcome.SUCCESS)
            rig.wait_until(lambda: task.runs == 3)
        tenant.close()
