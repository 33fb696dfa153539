"""What goes wrong between the appliance and the Qlik server, and what becomes of the request."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest
from tasks_rig import START_TOPIC, MemorySource, Rig, client_of, start_trigger
from wine import SLOWNESS

from appliance.config.tables import PublishConfig, TimerConfig, TriggerConfig
from appliance.config.values import Duration
from appliance.counters import Counter
from appliance.errors import ConfigError, UnavailableError
from appliance.model import ExecutionState
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik
from appliance.tasks import catalog, health_watch
from appliance.tasks.store import Publication


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


@pytest.fixture
def rig(qlik, tmp_path: Path):
    with Rig(tmp_path / "tasks.db", client_of(qlik, timeout_s=0.5)) as running:
        yield running


def ended(rig: Rig) -> ExecutionState | None:
    execution = rig.newest() if rig.engine.executions(1) else None
    return execution.state if execution is not None and execution.state.is_final else None


@pytest.mark.parametrize("kind", [FaultKind.DROP_AFTER, FaultKind.HANG_AFTER])
def test_an_answer_that_is_lost_after_the_start_is_not_a_second_start(qlik, rig, kind) -> None:
    """The server took the call and the answer never came: the run is found, and followed."""
    task = qlik.add_task("Reload sales", duration_s=0.2)
    qlik.fail(kind, method="POST", path="/start", times=1)
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "succeeded")
    assert qlik.starts() == 1
    assert rig.engine.counters()[Counter.STARTS_FOUND_BY_LOOKING] == 1


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.HANG, FaultKind.STATUS])
def test_a_call_that_did_nothing_is_repeated_after_a_look(qlik, rig, kind) -> None:
    """The connection broke, hung or gave 503 and no run began: looked for, then started, once."""
    task = qlik.add_task("Reload sales", duration_s=0.2)
    qlik.fail(kind, method="POST", path="/start", times=1)
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "succeeded")
    assert qlik.starts() == 2
    assert task.runs == 1
    assert rig.newest().attempts == 2


def test_the_server_s_wish_for_patience_is_followed(qlik, rig) -> None:
    """429 with Retry-After is tried again, without opening the circuit."""
    task = qlik.add_task("Reload sales", duration_s=0.2)
    qlik.fail(FaultKind.STATUS, method="POST", status=429, retry_after_s=0.2, times=1)
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "succeeded")
    assert qlik.starts() == 2
    assert task.runs == 1


@pytest.mark.parametrize(
    ("kind", "settings", "part"),
    [
        (FaultKind.LOGIN_PAGE, {}, "login"),
        (FaultKind.STATUS, {"status": 403, "text": "Forbidden"}, "403"),
        (FaultKind.STATUS, {"status": 400, "text": "Bad request"}, "400"),
    ],
)
def test_what_repeating_can_t_mend_is_not_repeated(qlik, rig, kind, settings, part) -> None:
    """403, 400 and a login page end the request at once, with what to do."""
    task = qlik.add_task("Reload sales")
    qlik.fail(kind, method="POST", **settings)
    message = rig.source.put(START_TOPIC, task.id)
    rig.wait_until(lambda: ended(rig) is ExecutionState.REJECTED)
    assert qlik.starts() == 1
    assert part in rig.newest().reason.lower()
    assert part in rig.engine.marks([message.seq])[message.seq].label


def test_a_request_while_the_server_is_down_says_what_it_waits_for(qlik, rig) -> None:
    """The server is gone before the message comes: its request waits for the server, and says so;
    when the server answers again it runs and says that no longer."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    qlik.refuse()
    rig.wait_until(lambda: rig.engine.qlik_state().health.level == "bad")
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "waiting")
    rig.wait_until(lambda: rig.newest().reason == "Waits for the Qlik server to answer.")
    qlik.heal()
    rig.broker.wait_for(task.id, "succeeded")
    assert not rig.newest().reason


def test_while_a_request_waits_the_server_is_asked_often(qlik, tmp_path: Path, monkeypatch) -> None:
    """Health checks grow rarer in an outage, but not beyond a bound while a request waits: when
    the server is back, the start does not wait for a check that is half a minute away."""
    monkeypatch.setattr(health_watch, "FIRST_CHECK_S", 0.01)
    monkeypatch.setattr(health_watch, "WAITED_FOR_CHECK_S", 0.05)
    monkeypatch.setattr(health_watch, "_TICK_S", 0.02)
    task = qlik.add_task("Reload sales", duration_s=0.05)
    qlik.fail(FaultKind.STATUS, path="/about")
    qlik.fail(FaultKind.DROP_BEFORE, method="POST")
    with Rig(tmp_path / "tasks.db", client_of(qlik), health_check_s=3600.0) as rig:
        rig.source.put(START_TOPIC, task.id)
        assert qlik.wait_for(
            lambda: qlik.faults.bitten[FaultKind.STATUS.value] >= 16, 60 * SLOWNESS
        )
        qlik.heal()
        rig.broker.wait_for(task.id, "succeeded")


def test_a_request_that_comes_during_an_outage_shortens_the_wait_for_the_next_check(
    qlik, tmp_path: Path, monkeypatch
) -> None:
    """The next check is an hour away when the request comes; the server is asked soon all the same,
    and the start leaves when it is back."""
    monkeypatch.setattr(health_watch, "FIRST_CHECK_S", 3600.0)
    monkeypatch.setattr(health_watch, "WAITED_FOR_CHECK_S", 0.05)
    monkeypatch.setattr(health_watch, "_TICK_S", 0.02)
    task = qlik.add_task("Reload sales", duration_s=0.05)
    qlik.fail(FaultKind.STATUS, path="/about")
    with Rig(tmp_path / "tasks.db", client_of(qlik), health_check_s=3600.0) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "bad")
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(
            lambda: (
                [one.reason for one in rig.engine.executions(1)]
                == ["Waits for the Qlik server to answer."]
            )
        )
        qlik.heal()
        rig.broker.wait_for(task.id, "succeeded")


@pytest.fixture
def quick_checks(monkeypatch) -> None:
    for name, seconds in {"SHORT_CHECK_S": 0.2, "WAITED_FOR_CHECK_S": 0.1, "_TICK_S": 0.02}.items():
        monkeypatch.setattr(health_watch, name, seconds)


@pytest.mark.usefixtures("quick_checks")
def test_calls_that_the_server_swallowed_hold_nothing_up_once_it_is_back(
    qlik, tmp_path: Path
) -> None:
    """Start calls take all workers and get no answer. When the server answers again the next start
    leaves, long before the time of those calls is over; they are looked for, and made again."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.05) for number in range(5)]
    with Rig(tmp_path / "tasks.db", client_of(qlik, timeout_s=300)) as rig:
        qlik.fail(FaultKind.HANG)
        for task in tasks:
            rig.source.put(START_TOPIC, task.id)
        assert qlik.wait_for(lambda: qlik.starts() == 4)
        rig.wait_until(lambda: rig.engine.qlik_state().is_away)
        qlik.end_faults()
        for task in tasks:
            rig.broker.wait_for(task.id, "succeeded")
    assert [task.runs for task in tasks] == [1] * 5
    assert qlik.starts() == 9


@pytest.mark.usefixtures("quick_checks")
def test_a_question_that_the_server_swallowed_is_asked_again_once_it_is_back(
    qlik, tmp_path: Path, monkeypatch
) -> None:
    """A start by name waits for the list of tasks, which never comes: nothing was started, so it
    is asked for again as soon as the server answers."""
    monkeypatch.setattr(catalog, "FRESH_S", 0.0)
    task = qlik.add_task("Reload sales", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik, timeout_s=300)) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        qlik.fail(FaultKind.HANG)
        rig.source.put(START_TOPIC, '{"taskName": "Reload sales"}')
        rig.wait_until(lambda: rig.engine.qlik_state().is_away)
        qlik.end_faults()
        rig.broker.wait_for(task.id, "succeeded")


@pytest.mark.usefixtures("quick_checks")
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (FaultKind.LOGIN_PAGE, {}),
        (FaultKind.REDIRECT, {}),
        (FaultKind.STATUS, {"status": 200, "text": "<html>Back at six</html>"}),
    ],
)
def test_a_page_instead_of_all_answers_keeps_starts_waiting(qlik, rig, kind, settings) -> None:
    """A maintenance or login page for the health checks, too: the start waits, with the reason."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
    qlik.fail(kind, **settings)
    rig.source.put(START_TOPIC, task.id)
    rig.wait_until(lambda: rig.engine.qlik_state().is_away)
    rig.wait_until(lambda: [one.execution for one in rig.engine.waits()] == [1])
    assert "login page" in rig.engine.qlik_state().cause
    qlik.heal()
    rig.broker.wait_for(task.id, "succeeded")


@pytest.mark.usefixtures("quick_checks")
@pytest.mark.parametrize("status", [500, 503, 504])
def test_calls_that_the_server_answered_with_an_error_let_the_others_go(
    qlik, rig, status: int
) -> None:
    """Ten start calls of one task are answered with an error and the health checks are not:
    the circuit stays closed, and other tasks start."""
    bad = [qlik.add_task(f"Broken {number}") for number in range(10)]
    good = qlik.add_task("Reload sales", duration_s=0.05)
    for task in bad:
        qlik.fail(FaultKind.STATUS, method="POST", path=task.id, status=status)
        rig.source.put(START_TOPIC, task.id)
    assert qlik.wait_for(lambda: all(qlik.starts(task.id) for task in bad))
    rig.source.put(START_TOPIC, good.id)
    rig.broker.wait_for(good.id, "succeeded")
    assert not rig.engine.qlik_state().is_away


@pytest.mark.usefixtures("quick_checks")
def test_a_health_check_that_alone_fails_does_not_keep_starts_for_ever(
    qlik, tmp_path: Path, monkeypatch
) -> None:
    """The server answers its health checks with errors and would take starts: one is tried."""
    monkeypatch.setattr(health_watch, "TRIAL_EVERY_S", 0.2)
    task = qlik.add_task("Reload sales", duration_s=0.05)
    qlik.fail(FaultKind.STATUS, path="/about")
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().is_away)
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded")


@pytest.mark.usefixtures("quick_checks")
def test_a_slow_server_is_none_that_is_away(qlik, tmp_path: Path) -> None:
    """Its health checks take longer than short ones may: it gets the time that each call has."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    qlik.fail(FaultKind.DELAY, path="/about", seconds=0.4)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded")
        qlik.fail(FaultKind.STATUS, method="POST", times=1)
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded", times=2)
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")


@pytest.mark.usefixtures("quick_checks")
def test_a_retry_time_of_a_server_in_maintenance_is_not_waited_for(qlik, rig) -> None:
    """503 with Retry-After: an hour for everything; when it is back, the start leaves."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    qlik.fail(FaultKind.STATUS, status=503, retry_after_s=3600.0)
    rig.source.put(START_TOPIC, task.id)
    rig.wait_until(lambda: rig.engine.qlik_state().is_away)
    qlik.heal()
    rig.broker.wait_for(task.id, "succeeded")


def test_an_answer_that_drips_costs_a_call_its_time_and_no_more(qlik, tmp_path: Path) -> None:
    """Headers come one by one, without end, to as many start calls as there are workers: each is
    broken off, the other tasks start, and these are looked for and started."""
    slow = [qlik.add_task(f"Slow {number}", duration_s=0.05) for number in range(4)]
    task = qlik.add_task("Reload sales", duration_s=0.05)
    qlik.fail(FaultKind.DRIP_HEADERS, method="POST", path="/start", seconds=0.1, times=4)
    with Rig(tmp_path / "tasks.db", client_of(qlik, timeout_s=0.25)) as rig:
        for one in (*slow, task):
            rig.source.put(START_TOPIC, one.id)
        rig.broker.wait_for(task.id, "succeeded")
        for one in slow:
            rig.broker.wait_for(one.id, "succeeded")
    assert [one.runs for one in slow] == [1] * 4


NONSENSE = {
    "deep lists that end": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"value":' * 100_000,
    "a list as deep as is read": "[" * 900 + r'"\ud800"' + "]" * 900,
    "a long number": "9" * 100_000,
    "numbers beyond all bounds": '[{"status": 1e999, "duration": -1e999, "startTime": NaN}]',
    "half of a letter": r'{"value": "\ud800", "buildVersion": "\udfff"}',
    "numbers as text": '[{"id": 7, "status": "7", "duration": "x", "executionID": 5, "taskID": []}]',
    "rows of rows": '[[[]], {}, 7, null, "x"]',
}


@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.usefixtures("quick_checks")
def test_nonsense_with_status_200_is_an_answer_that_is_not_understood(
    qlik, tmp_path: Path, name: str
) -> None:
    """Whatever the body is: no traceback, all goes on when the server is itself again, and the
    engine's health is good."""
    running = qlik.add_task("Reload stock", duration_s=600)
    failing = qlik.add_task("Reload prices", duration_s=600, outcomes=(Outcome.FAIL,))
    task = qlik.add_task("Reload sales", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        for one in (running, failing):
            rig.source.put(START_TOPIC, one.id)
            rig.broker.wait_for(one.id, "running")
        qlik.fail(FaultKind.STATUS, status=200, text=NONSENSE[name])
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(
            lambda: (
                rig.engine.qlik_state().health.level != "ok"
                or rig.engine.counters().get(Counter.POLLS_FAILED)
            )
        )
        qlik.site.finish(running.id)
        qlik.site.finish(failing.id, Outcome.FAIL)
        asked = len(qlik.requests)
        assert qlik.wait_for(lambda: len(qlik.requests) > asked + 2)
        qlik.heal()
        for one in (running, task):
            rig.broker.wait_for(one.id, "succeeded")
        rig.broker.wait_for(failing.id, "failed")
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        assert Counter.INTERNAL_ERRORS not in rig.engine.counters()
        assert rig.engine.qlik_state().engine.level == "ok"


def test_each_wait_says_why_and_until_when_and_can_be_ended(qlik, tmp_path: Path) -> None:
    """While the server is away: the kind, the reason, the time of the next try, the cause; an
    operator's wish has the request tried, and tried again when the server is back."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.05) for number in range(2)]
    triggers = (start_trigger(), TriggerConfig(topic="later", task="payload", debounce=3600))
    with Rig(tmp_path / "tasks.db", client_of(qlik), *triggers, health_check_s=3600.0) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        qlik.refuse()
        rig.source.put("later", tasks[1].id)
        rig.source.put(START_TOPIC, tasks[0].id)
        rig.wait_until(lambda: rig.engine.qlik_state().is_away)
        away = rig.engine.qlik_state()
        assert "refused" in away.cause
        assert away.next_check_ns is not None
        rig.wait_until(lambda: len(rig.engine.waits()) == 2)
        waits = {one.task_id: one for one in rig.engine.waits()}
        server, later = (waits[task.id] for task in tasks)
        assert server.kind in ("server", "retry")
        assert server.reason
        assert server.until_ns is not None
        assert (later.kind, later.reason) == ("debounce", "Waits for quiet (debounce).")
        qlik.heal()
        rig.engine.fire_timer(server.name, "ann")
        rig.broker.wait_for(tasks[0].id, "succeeded")
        rig.engine.fire_timer(later.name, "ann")
        rig.broker.wait_for(tasks[1].id, "succeeded")
        assert rig.engine.waits() == ()


def test_a_time_that_the_server_named_outlasts_its_return(qlik, rig) -> None:
    """429 with Retry-After: health checks that are answered well do not end that wait."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    qlik.fail(FaultKind.STATUS, method="POST", status=429, retry_after_s=3600.0)
    rig.source.put(START_TOPIC, task.id)
    rig.wait_until(lambda: [one.kind for one in rig.engine.waits()] == ["retry"])
    checks = len([one for one in qlik.requests if one.path.endswith("/about")])
    qlik.refuse()
    rig.wait_until(lambda: rig.engine.qlik_state().is_away)
    qlik.heal()
    rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
    assert len([one for one in qlik.requests if one.path.endswith("/about")]) > checks
    (wait,) = rig.engine.waits()
    assert wait.until_ns > time.time_ns() + 3_000_000_000_000
    assert qlik.starts() == 1


def test_an_unknown_task_is_rejected(qlik, rig) -> None:
    """An id that the server does not have ends with what the server said."""
    rig.source.put(START_TOPIC, "8d31c0f8-0d36-4a0a-a8b4-3b0f6f2c5d10")
    rig.wait_until(lambda: ended(rig) is ExecutionState.REJECTED)
    assert rig.newest().reason


def test_a_disabled_task_is_refused_and_says_why(qlik, rig) -> None:
    """The zero id is no start; the likely reason is looked up."""
    task = qlik.add_task("Reload sales", enabled=False)
    rig.source.put(START_TOPIC, task.id)
    rig.wait_until(lambda: ended(rig) is ExecutionState.REFUSED)
    assert "disabled" in rig.newest().reason


def test_a_request_waits_for_a_run_that_somebody_else_started(qlik, tmp_path: Path) -> None:
    """The server refuses because the task runs already, unknown to the appliance: the request is
    started when that run has ended."""
    task = qlik.add_task("Reload sales", duration_s=600)
    qlik.run_elsewhere(task.id)
    with Rig(tmp_path / "tasks.db", client_of(qlik), elsewhere_s=0) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: ExecutionState.WAITING in rig.states())
        qlik.site.finish(task.id)
        rig.wait_until(
            lambda: any(
                one.execution_id and one.cause.kind == "message" for one in rig.engine.executions(5)
            )
        )
        qlik.site.finish(task.id)
        rig.broker.wait_for(task.id, "succeeded", times=2)
        assert task.runs == 2


def test_runs_started_elsewhere_are_seen(qlik, rig) -> None:
    """A run that the QMC started is shown, marked as such, and followed to its end."""
    qlik.add_task("Reload stock")
    known = rig.engine.tasks()
    task = qlik.add_task("Reload sales", duration_s=600)
    assert task.id not in {one.id for one in known}
    qlik.run_elsewhere(task.id)
    rig.broker.wait_for(task.id, "running")
    assert rig.newest().cause.kind == "elsewhere"
    assert rig.newest().task_name == "Reload sales"
    qlik.site.finish(task.id)
    rig.broker.wait_for(task.id, "succeeded")
    assert len(rig.engine.executions(10)) == 1
    assert qlik.starts() == 0


def test_a_failed_run_comes_with_its_log(qlik, rig) -> None:
    """The reason and the script log's last lines are there, secrets masked."""
    task = qlik.add_task(
        "Reload sales",
        duration_s=0.1,
        outcomes=(Outcome.FAIL,),
        error_text="Error: Table not found",
    )
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "failed")
    rig.wait_until(lambda: rig.newest().log_tail)
    assert "Table not found" in rig.newest().reason
    last = f"appliance/tasks/{task.id}/last"
    rig.broker.wait_until(
        lambda: [b for t, b, *_ in rig.broker.published if t == last][-1].get("logTail")
    )


def test_the_server_s_own_retries_are_one_run(qlik, rig) -> None:
    """A failed attempt that the server repeats is not a failure yet."""
    qlik.site.retry_delay_s = 0.1
    task = qlik.add_task(
        "Reload sales", duration_s=0.1, outcomes=(Outcome.FAIL, Outcome.SUCCESS), max_retries=1
    )
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "succeeded")
    assert "failed" not in rig.broker.states(task.id)
    assert qlik.starts() == 1


def test_a_run_without_a_result_is_lost_and_said_to_be(qlik, rig) -> None:
    """The session is gone and there is no result: never taken for a success."""
    task = qlik.add_task("Reload sales", duration_s=0.1, outcomes=(Outcome.LOST,))
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "lost")
    assert "can't be had" in rig.newest().reason


def test_polls_that_fail_lose_no_outcome(qlik, rig) -> None:
    """While the server answers nonsense, a run stays what it was; then its outcome is seen."""
    task = qlik.add_task("Reload sales", duration_s=600)
    rig.source.put(START_TOPIC, task.id)
    rig.broker.wait_for(task.id, "running")
    qlik.fail(FaultKind.STATUS, method="GET", path="/execution")
    qlik.site.finish(task.id)
    rig.wait_until(lambda: rig.engine.counters().get(Counter.POLLS_FAILED, 0) >= 2)
    rig.wait_until(lambda: "503" in rig.newest().reason)
    assert rig.newest().state is ExecutionState.RUNNING
    qlik.heal()
    rig.broker.wait_for(task.id, "succeeded")
    assert not rig.newest().reason


def test_a_server_that_hangs_does_not_keep_the_stop(qlik, tmp_path: Path) -> None:
    """With calls that would take a minute to time out, the stop keeps to its time; the start
    call under way is looked for by the next run and not made again."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    source = MemorySource()
    with Rig(tmp_path / "tasks.db", client_of(qlik, timeout_s=60), source=source) as rig:
        qlik.fail(FaultKind.HANG_AFTER, method="POST", path="/start", times=1)
        source.put(START_TOPIC, task.id)
        assert qlik.wait_for(lambda: qlik.starts() == 1)
        began = time.monotonic()
        rig.engine.stop(0.5)
        assert time.monotonic() - began < 30
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as again:
        again.broker.wait_for(task.id, "succeeded")
        assert qlik.starts() == 1


def test_a_full_disk_stops_starts_and_loses_nothing(qlik, tmp_path: Path) -> None:
    """While the database can't be written nothing is started and no message is passed over; when
    there is room again, every request runs."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.1) for number in range(20)]
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        fill(rig)
        for task in tasks:
            rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: rig.engine._state.trouble)
        assert "full" in rig.engine._state.trouble
        told = rig.engine.qlik_state().database
        assert told.level == "bad" and "no task is started: the disk is full" in told.text
        begun = qlik.starts()
        assert begun < len(tasks)
        with rig.engine._state.lock:
            rig.engine._store._db.execute("PRAGMA max_page_count = 100000")
        for task in tasks:
            rig.broker.wait_for(task.id, "succeeded")
        assert qlik.starts() == len(tasks)


def fill(rig: Rig) -> None:
    """Let the task database's disk be full."""
    database = rig.engine._store._db
    with rig.engine._state.lock:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")


def test_what_has_no_message_behind_it_is_noted_before_its_call(qlik, tmp_path: Path) -> None:
    """An operator's start is not in the journal: while it can't be noted, it is not made."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=60) for number in range(50)]
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        fill(rig)
        asked = []
        with rig.engine._state.lock:  # no other thread is the first to notice
            with pytest.raises(UnavailableError, match="could not be noted.*full.*takes effect"):
                while True:
                    asked.append(tasks.pop().id)
                    rig.engine.start_task(asked[-1], "ann")
        assert qlik.starts(asked[-1]) == 0
        with pytest.raises(UnavailableError, match="not taken.*full.*try again"):
            rig.engine.start_task(tasks[0].id, "ann")
        assert qlik.starts(tasks[0].id) == 0
        with rig.engine._state.lock:
            rig.engine._store._db.execute("PRAGMA max_page_count = 100000")
        assert qlik.wait_for(lambda: qlik.starts() == len(asked))
        rig.engine.start_task(tasks[0].id, "ann")
        assert qlik.wait_for(lambda: qlik.starts(tasks[0].id) == 1)


WAITING_TIMER = TimerConfig(name="tick", every=Duration(3600), publish=PublishConfig(topic="tick"))


@pytest.mark.parametrize(
    "action", ["fire", "pause", "end a wait", "pause a wait", "take back", "repeat"]
)
def test_an_operator_is_told_what_can_t_be_noted(qlik, tmp_path: Path, action: str) -> None:
    """Each action says so while the task database can't be written, and does nothing."""
    waiting = qlik.add_task("Reload stock", duration_s=0.05)
    settings = {"timers": [WAITING_TIMER]}
    with Rig(tmp_path / "tasks.db", client_of(qlik), start_trigger(3600), **settings) as rig:
        message = rig.source.put(START_TOPIC, waiting.id)
        rig.wait_until(lambda: rig.states() == [ExecutionState.WAITING])
        name = f"{rig.newest().task_name or waiting.id} #1"
        fill(rig)
        with pytest.raises(UnavailableError):
            for number in range(1000):
                rig.engine.start_task(f"5f8b1c2e-0d4a-4c55-9a1b-{number:012}", "ann")
        act = {
            "fire": lambda: rig.engine.fire_timer("tick", "ann"),
            "pause": lambda: rig.engine.pause_timer("tick", True, "ann"),
            "end a wait": lambda: rig.engine.fire_timer(name, "ann"),
            "pause a wait": lambda: rig.engine.pause_timer(name, True, "ann"),
            "take back": lambda: rig.engine.stop_execution(1, "ann"),
            "repeat": lambda: rig.engine.repeat(message, "ann"),
        }[action]
        with pytest.raises(UnavailableError, match="was not taken.*full"):
            act()
        assert not any(one.paused for one in rig.engine.timers())
        assert rig.engine.execution(1).state is ExecutionState.WAITING
        with rig.engine._state.lock:
            rig.engine._store._db.execute("PRAGMA max_page_count = 100000")
        act()


def test_a_call_leaves_before_its_note_which_does_not_wait_for_the_answer(
    qlik, tmp_path: Path
) -> None:
    """The journal has the message, so its start call does not wait for the task database; while
    the server keeps its answer back, the database has the call, for the start after a crash."""
    task = qlik.add_task("Reload sales", duration_s=0.1)
    qlik.fail(FaultKind.HANG_AFTER, method="POST", path="/start", times=1)
    database = tmp_path / "tasks.db"
    with (
        Rig(database, client_of(qlik)) as rig,
        contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other,
    ):
        rig.wait_until(lambda: rig.engine._workers._next_prune)  # it writes once at the start,
        rig.wait_until(lambda: rig.engine._poller._ended_until)  # and after the first look
        other.execute("BEGIN IMMEDIATE")  # no other connection can write
        rig.source.put(START_TOPIC, task.id)
        assert qlik.wait_for(lambda: qlik.starts() == 1)
        assert rig.engine._state.cursors.durable == 0
        other.execute("ROLLBACK")
        rig.wait_until(lambda: rig.engine._state.cursors.durable == 1)
        (record,) = rig.engine._store.open_records()
        assert record.posted_ns is not None
        assert rig.states() == [ExecutionState.STARTING]
        qlik.heal()


def test_what_left_before_the_disk_refused_is_not_started_again(qlik, tmp_path: Path) -> None:
    """A start call left, its note could not be written, and the process ended: the next one finds
    the run at the server, and starts the task of the later message alone."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.1) for number in range(20)]
    source = MemorySource()
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as rig:
        fill(rig)
        for task in tasks:
            source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: rig.engine._state.trouble)
        assert qlik.wait_for(lambda: qlik.starts() > rig.engine._state.cursors.durable)
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as again:
        for task in tasks:
            again.broker.wait_for(task.id, "succeeded")
            assert qlik.starts(task.id) == 1


def test_a_damaged_database_is_set_aside(qlik, tmp_path: Path, caplog) -> None:
    """The appliance starts with an empty one, says what is lost, and acts on what comes next."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    content = b"this is not a database, but it is long enough" * 50
    (tmp_path / "tasks.db").write_bytes(content)
    source = MemorySource()
    source.put(START_TOPIC, task.id)  # whether it was acted on before is not known any more
    rig = Rig(tmp_path / "tasks.db", client_of(qlik), source=source)
    assert rig.engine.is_new
    rig.engine.rebuild(source.last_seq, source.last_seq)
    source.position = source.last_seq
    (kept,) = tmp_path.glob("tasks.db.corrupt-*")
    assert kept.read_bytes() == content
    assert "tasks.db is damaged" in caplog.text
    assert "pauses of timers" in caplog.text
    assert "Messages up to 1 start nothing any more" in caplog.text
    with rig:
        source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded")
    assert qlik.starts() == 1
    again = Rig(tmp_path / "tasks.db", client_of(qlik), source=source)
    assert not again.engine.is_new
    assert source.position == 2
    again.engine._store.close()


def test_a_new_database_is_new_until_it_has_a_cursor(tmp_path: Path) -> None:
    """A kill between its creation and its first cursor does not make old messages start tasks."""
    Rig(tmp_path / "tasks.db", None).engine._store.close()
    rig = Rig(tmp_path / "tasks.db", None)
    assert rig.engine.is_new
    rig.engine.rebuild(0, 0)
    rig.engine._store.close()
    rig = Rig(tmp_path / "tasks.db", None)
    assert rig.engine.is_new
    rig.engine.rebuild(0, 0)
    with rig:
        pass
    rig = Rig(tmp_path / "tasks.db", None)
    assert not rig.engine.is_new
    rig.engine._store.close()


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    """The appliance does not touch what it does not understand, and a service is not restarted."""
    Rig(tmp_path / "tasks.db", None).engine._store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        database.execute("PRAGMA user_version = 99")
    before = (tmp_path / "tasks.db").read_bytes()
    with pytest.raises(ConfigError, match="newer appliance"):
        Rig(tmp_path / "tasks.db", None)
    assert (tmp_path / "tasks.db").read_bytes() == before


def test_after_an_outage_with_a_restart_each_task_runs_once(qlik, tmp_path: Path) -> None:
    """The server is down, thirty messages ask for three tasks, the appliance is restarted in
    between: afterwards each task is started once, for all of its messages."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.05) for number in range(3)]
    source = MemorySource()
    clients = [client_of(qlik), client_of(qlik)]
    qlik.refuse()
    for client in clients:
        with Rig(tmp_path / "tasks.db", client, source=source) as rig:
            for number in range(15):
                source.put(START_TOPIC, tasks[number % 3].id)
            rig.wait_until(lambda: source.advanced == len(source.messages))
            rig.wait_until(
                lambda: sum(not one.state.is_final for one in rig.engine.executions(50)) == 3
            )
    qlik.heal()
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as rig:
        for task in tasks:
            rig.broker.wait_for(task.id, "succeeded")
            assert qlik.starts(task.id) == 1
        marks = rig.engine.marks(range(1, 31))
        assert {one.state for one in marks.values()} == {ExecutionState.SUCCEEDED}
        assert len(marks) == 30


def test_a_hung_server_delays_no_message(qlik, rig) -> None:
    """While every call hangs, messages are still read and marked; when the server answers again,
    each request runs once."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.05) for number in range(6)]
    qlik.fail(FaultKind.HANG)
    for task in tasks:
        rig.source.put(START_TOPIC, task.id)
    bad = rig.source.put(START_TOPIC, "nonsense")
    rig.wait_until(lambda: len(rig.engine.marks(range(1, bad.seq + 1))) == bad.seq)
    assert qlik.wait_for(lambda: qlik.faults.bitten[FaultKind.HANG.value] >= 4)
    qlik.heal()
    for task in tasks:
        rig.broker.wait_for(task.id, "succeeded")
        assert task.runs == 1


def test_a_publication_that_nobody_takes_holds_up_no_other(
    qlik, tmp_path: Path, monkeypatch
) -> None:
    """Many are published together; one that can't be is tried thrice by itself, then left out and
    counted, and all others arrive, in their order."""
    monkeypatch.setattr(health_watch, "_TICK_S", 0.02)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        calls: list[list[str]] = []

        def publish(publications) -> int:
            calls.append([one.topic for one in publications])
            if "t/10" in calls[-1]:
                raise OSError("no room for it")
            return 0

        rig.engine._workers._publish = publish
        state = rig.engine._state
        with state.change() as planner:
            for number in range(200):
                state.publish(Publication(f"t/{number}", b"{}"))
        rig.wait_until(lambda: calls and calls[-1][-1] == "t/199")
        taken = [topic for call in calls if "t/10" not in call for topic in call]
        assert taken == [f"t/{number}" for number in range(200) if number != 10]
        assert calls.count(["t/10"]) == 3
        assert planner.counters[Counter.PUBLICATIONS_DROPPED] == 1
        assert len(calls) < 70


@pytest.mark.parametrize("table", ["executions", "outbox", "histories"])
def test_one_row_that_can_not_be_read_costs_that_row(qlik, tmp_path: Path, table: str) -> None:
    """The appliance starts without it, says so, and everything else is there and goes on."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    database = tmp_path / "tasks.db"
    with Rig(database, client_of(qlik)) as rig:
        for times in (1, 2):
            rig.source.put(START_TOPIC, task.id)
            rig.broker.wait_for(task.id, "succeeded", times)
    with contextlib.closing(sqlite3.connect(database)) as other:
        if table == "outbox":
            other.execute("INSERT INTO outbox VALUES (1000, x'c1')")
        column = {"executions": "record", "histories": "history"}.get(table, "publication")
        other.execute(
            f"UPDATE {table} SET {column} = x'c1ff' WHERE rowid = 2"
            if table == "executions"
            else f"UPDATE {table} SET {column} = x'c1ff'"
        )
        other.commit()
    with Rig(database, client_of(qlik), source=rig.source) as again:
        assert len(again.engine.executions(10)) == (1 if table == "executions" else 2)
        (loss,) = again.engine.losses
        assert table in loss
        assert again.engine.counters()[Counter.TASK_ROWS_UNREADABLE] == 1
        again.source.put(START_TOPIC, task.id)
        again.source.put(START_TOPIC, task.id)
        again.source.put(START_TOPIC, task.id)
        again.broker.wait_for(task.id, "succeeded")
