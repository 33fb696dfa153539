"""The server's tasks as rows: what each did last, what starts it, and when; over real HTTP."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tasks_rig import Rig, client_of

from appliance.config.tables import AllowConfig, TimerConfig, TriggerConfig
from appliance.engine_api import ServerTask, ServerTasks, Starter
from appliance.model import ExecutionState
from appliance.qlik.server import QlikError
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik
from appliance.qlik.simulated.repository import EVENTS
from appliance.qlik.simulated.site import SimulatedChain, Status
from appliance.tasks.task_index import TaskIndex

HOUR_NS = 3600 * 10**9
ODD = 'Läden / "north"\x1b[2J\u202e, \'; DROP'


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def by_name(answer: ServerTasks) -> dict[str, ServerTask]:
    return {one.task.name: one for one in answer.tasks}


def kinds(one: ServerTask) -> list[tuple[str, str]]:
    return [(each.kind, each.name) for each in one.starters]


def test_every_way_in_which_a_task_starts_is_named(qlik: SimulatedQlik, tmp_path: Path) -> None:
    """Rules, timers, the server's schedules, its chains, and rules on outcomes."""
    sales = qlik.add_task("Sales", duration_s=0.05, every_s=7200, tags=("nightly",))
    stock = qlik.add_task(ODD, duration_s=0.05)
    report = qlik.add_task("Report", duration_s=0.05, app_name="Reports", app_id=qlik.site.new_id())
    idle = qlik.add_task("Idle", enabled=False)
    qlik.site.add_chain(
        SimulatedChain(
            "After both",
            report.id,
            ((sales.id, Status.SUCCESS), (stock.id, Status.FAIL)),
            within_s=5400,
        )
    )
    qlik.site.add_chain(
        SimulatedChain("Off", stock.id, ((sales.id, Status.SUCCESS),), enabled=False)
    )
    rules = (
        TriggerConfig(topic="any/+", task="payload", name="any"),
        TriggerConfig(topic="north/done", task={"name": ODD}, name="north"),
        TriggerConfig(topic="all", task={"tag": "nightly"}, name="by tag"),
        TriggerConfig(
            topic=f"appliance/tasks/{stock.id}/last",
            task={"app": "Reports"},
            when={"state": "succeeded"},
            name="next",
        ),
        TriggerConfig(
            topic="appliance/tasks/+/last",
            task=report.id,
            when={"taskName": "Sales", "state": {"=": "failed"}},
            name="mend",
        ),
        TriggerConfig(topic="appliance/tasks/+/last", task=report.id, name="whatever"),
    )
    timers = (
        TimerConfig(name="hourly", every=3600.0, task={"name": ODD}),
        TimerConfig(name="daily", cron="0 3 * * *", task={"name": "Idle"}),
    )
    with Rig(
        tmp_path / "tasks.db", client_of(qlik), *rules, timers=timers, stopped_timers=("daily",)
    ) as rig:
        before_ns = time.time_ns()
        answer = rig.engine.server_tasks()
        rows = by_name(answer)
        assert answer.problem == ""
        assert answer.any_task == ("any",)
        assert answer.total == 4

        assert kinds(rows["Sales"]) == [("rule", "by tag"), ("schedule", "Schedule of Sales")]
        assert rows["Sales"].starters[1].detail == "every 2 hours UTC"
        assert before_ns < (rows["Sales"].next_ns or 0) < before_ns + 3 * HOUR_NS
        assert rows["Sales"].task.id == sales.id

        assert kinds(rows[ODD]) == [("rule", "north"), ("chain", "Off"), ("timer", "hourly")]
        assert [one.enabled for one in rows[ODD].starters] == [True, False, True]
        assert rows[ODD].next_ns == rows[ODD].starters[2].next_ns

        assert set(rows["Report"].starters) == {
            Starter("outcome", "next", rules[3].topic, after=((stock.id, "succeeded"),)),
            Starter("outcome", "mend", rules[4].topic, after=((sales.id, "failed"),)),
            Starter("outcome", "whatever", rules[5].topic),
            Starter(
                "chain",
                "After both",
                "all within 90 min",
                after=((sales.id, "succeeded"), (stock.id, "failed")),
            ),
        }
        assert rows["Report"].next_ns is None

        assert kinds(rows["Idle"]) == [("timer", "daily")]
        assert rows["Idle"].next_ns is None  # the timer is stopped
        assert rows["Idle"].task.id == idle.id


def test_the_last_outcome_is_known_whoever_started_the_run(
    qlik: SimulatedQlik, tmp_path: Path
) -> None:
    """The appliance's own executions, and runs from before the appliance was there."""
    ours = qlik.add_task("Ours", duration_s=0.05, outcomes=(Outcome.FAIL,), error_text="no table")
    theirs = qlik.add_task("Theirs", duration_s=0.05)
    never = qlik.add_task("Never")
    qlik.site.start(theirs.id)
    while qlik.site.session_of(theirs.id) is not None:
        qlik.site.advance()
    allow = AllowConfig(names=("Ours", "Theirs"))
    with Rig(tmp_path / "tasks.db", client_of(qlik), allow=allow, elsewhere_s=0) as rig:
        rig.engine.start_task(ours.id, "test")
        rig.wait_until(lambda: rig.states() == [ExecutionState.FAILED])
        rows = by_name(rig.engine.server_tasks())
        run = rig.newest()
        assert rows["Ours"].state is ExecutionState.FAILED
        assert rows["Ours"].execution == run.id
        assert rows["Ours"].since_ns == run.ended_ns
        assert rows["Ours"].reason == "no table"
        assert rows["Theirs"].state is ExecutionState.SUCCEEDED
        assert rows["Theirs"].execution == 0
        assert rows["Theirs"].since_ns is not None
        assert rows["Never"].state is None
        assert [rows[name].is_allowed for name in ("Ours", "Theirs", "Never")] == [
            True,
            True,
            False,
        ]
        assert never.id == rows["Never"].task.id


def test_without_rights_for_its_triggers_the_tasks_are_there_and_start(
    qlik: SimulatedQlik, tmp_path: Path
) -> None:
    """What the server starts by itself is worth a sentence where it can't be read, and no start."""
    task = qlik.add_task("Sales", duration_s=0.05, every_s=7200)
    qlik.repository.hidden_events = set(EVENTS)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        answer = rig.engine.server_tasks()
        assert "can't be read" in answer.problem
        assert "403" in answer.problem
        assert [one.task.id for one in answer.tasks] == [task.id]
        assert answer.tasks[0].starters == ()
        rig.engine.start_task(task.id, "test")
        rig.wait_until(lambda: ExecutionState.SUCCEEDED in rig.states())


def test_rules_and_timers_whose_task_is_not_listed_are_named(
    qlik: SimulatedQlik, tmp_path: Path
) -> None:
    """A name that was changed on the server is seen before a message is rejected."""
    task = qlik.add_task("Sales")
    app = qlik.site.add_app("Without a task")
    rules = (
        TriggerConfig(topic="a", task={"name": "Sales"}, name="good"),
        TriggerConfig(topic="b", task={"name": "Sale"}, name="old name"),
        TriggerConfig(topic="c", task={"app": app}, name="an app"),
        TriggerConfig(topic="d", task="payload", name="any"),
    )
    timers = (TimerConfig(name="nightly", every=60.0, task={"tag": "nobody"}),)
    with Rig(tmp_path / "tasks.db", client_of(qlik), *rules, timers=timers) as rig:
        problem = rig.engine.server_tasks().problem
        assert problem.endswith("not among these: old name, nightly.")
        assert kinds(by_name(rig.engine.server_tasks())["Sales"]) == [("rule", "good")]
        assert task.id
    with Rig(tmp_path / "other.db", client_of(qlik), *rules[:2]) as rig:
        assert "The task of old name is not" in rig.engine.server_tasks().problem


def test_one_kind_of_triggers_is_shown_without_rights_for_the_other(
    qlik: SimulatedQlik, tmp_path: Path
) -> None:
    sales = qlik.add_task("Sales", every_s=7200)
    report = qlik.add_task("Report")
    qlik.site.add_chain(SimulatedChain("Then", report.id, ((sales.id, Status.SUCCESS),)))
    qlik.repository.hidden_events = {"schemaevent"}
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        answer = rig.engine.server_tasks()
        assert "schemaevent" in answer.problem
        assert kinds(by_name(answer)["Report"]) == [("chain", "Then")]


def test_a_list_that_hangs_holds_up_no_start(
    qlik: SimulatedQlik, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggers have a time of their own, and are not asked for again at once."""
    monkeypatch.setattr("appliance.tasks.event_list._LIMIT_S", 0.05)
    task = qlik.add_task("Sales", duration_s=0.05)
    qlik.fail(FaultKind.HANG, path="/qrs/schemaevent/full", times=1)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        assert "can't be read" in rig.engine.server_tasks().problem
        asked = len([one for one in qlik.requests if "schemaevent" in one.path])
        assert "can't be read" in rig.engine.server_tasks().problem
        assert len([one for one in qlik.requests if "schemaevent" in one.path]) == asked
        rig.engine.start_task(task.id, "test")
        rig.wait_until(lambda: ExecutionState.SUCCEEDED in rig.states())


def test_an_older_list_is_shown_while_the_server_is_away(
    qlik: SimulatedQlik, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so; without any list the error is the answer."""
    qlik.add_task("Sales", every_s=7200)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.engine.server_tasks()
        qlik.stop()
        monkeypatch.setattr(rig.engine._tasks, "_taken", None)
        answer = rig.engine.server_tasks()
        assert kinds(by_name(answer)["Sales"]) == [("schedule", "Schedule of Sales")]
        assert "an older one" in answer.problem
        monkeypatch.setattr(rig.engine._tasks, "_tasks", TaskIndex(()))
        with pytest.raises(QlikError):
            rig.engine.server_tasks()
