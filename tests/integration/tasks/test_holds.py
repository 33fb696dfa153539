"""Holds on the real task engine, which starts tasks of a simulated server over real HTTP."""

from __future__ import annotations

import logging
import sqlite3
import time

import pytest
from tasks_rig import START_TOPIC, MemorySource, Rig, client_of, start_trigger

from appliance.clock import Clock
from appliance.config.tables import AllowConfig, PublishConfig, TimerConfig, TriggerConfig
from appliance.counters import Counter
from appliance.engine_api import HoldState
from appliance.errors import UnavailableError, UsageError
from appliance.model import ExecutionState, Message, MessageProperties
from appliance.qlik.simulated import ManualClock, SimulatedQlik

S = 10**9


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def hold(rig: Rig, kind: str, name: str = "", **said: object) -> HoldState:
    said = {"until_ns": None, "reason": "new disks", "drop": False, "by": "ann"} | said
    return rig.engine.holding.hold(kind, name, **said)


def waiting(rig: Rig) -> list[int]:
    """How many starts wait for each hold."""
    return [one.waiting for one in rig.engine.holding.holds().holds]


def taken(rig: Rig, seq: int) -> bool:
    return rig.engine._state.cursors.taken >= seq


def test_fifty_messages_in_a_maintenance_window_are_one_start_after_it(qlik, tmp_path) -> None:
    """They wait and are merged as the rule says; runs of others go on being seen."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    other = qlik.add_task("Reload IT", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        assert hold(rig, "everything").shown == "everything"
        for _ in range(50):
            last = rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: taken(rig, last.seq))
        qlik.run_elsewhere(other.id)
        rig.broker.wait_for(other.id, "succeeded")
        assert waiting(rig) == [1]
        assert task.runs == 0
        (wait,) = rig.engine.waits()
        assert (wait.kind, wait.until_ns) == ("hold", None)
        assert wait.reason == "Held by ann (everything): new disks."
        assert rig.engine.holding.release("everything", "", "bob").waiting == 1
        rig.broker.wait_for(task.id, "succeeded")
        assert rig.engine.holding.holds().holds == ()
        execution = next(one for one in rig.engine.executions(9) if one.task_id == task.id)
        assert execution.merged == 49
        texts = [step.text for step in execution.steps]
        assert "Waiting: Held by ann (everything): new disks." in texts
        assert "The hold is over" in texts
    assert task.runs == 1


def test_holds_and_what_waits_outlive_a_process_that_is_killed(qlik, tmp_path) -> None:
    """The database as the kill leaves it: nothing was closed, and nothing is started twice."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    source = MemorySource()
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as rig:
        hold(rig, "everything")
        hold(rig, "client", "press-7", reason="")
        last = [source.put(START_TOPIC, task.id) for _ in range(5)][-1]
        rig.wait_until(lambda: waiting(rig) == [1, 0])
        with sqlite3.connect(tmp_path / "tasks.db") as before:
            copy = sqlite3.connect(tmp_path / "killed.db")
            before.backup(copy)
            copy.close()
    with Rig(tmp_path / "killed.db", client_of(qlik), source=source) as again:
        assert again.engine._state.cursors.durable <= last.seq
        again.wait_until(lambda: waiting(again) == [1, 0])
        assert again.engine.holding.held_client("press-7") == "this client is held by ann"
        more = source.put(START_TOPIC, task.id)
        again.wait_until(lambda: taken(again, more.seq))
        assert task.runs == 0
        again.engine.holding.release("everything", "", "ann")
        again.broker.wait_for(task.id, "succeeded")
        assert again.newest().merged == 5
    assert task.runs == 1
    with Rig(tmp_path / "killed.db", client_of(qlik), source=source) as third:
        assert [one.shown for one in third.engine.holding.holds().holds] == ["client press-7"]


def test_a_hold_ends_by_itself_also_while_the_appliance_is_down(qlik, tmp_path, caplog) -> None:
    """At its time by the clock, and a request does not expire meanwhile, however long it waits."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    other = qlik.add_task("Reload IT", duration_s=0.05)
    trigger = TriggerConfig(topic=START_TOPIC, task="payload", expire=60.0)
    clock, source = ManualClock(), MemorySource()
    settings = {"clock_ns": clock, "source": source, "boot_ns": 0}
    path, server = tmp_path / "tasks.db", client_of(qlik)
    caplog.set_level(logging.INFO)
    with Rig(path, server, trigger, **settings) as rig:
        until = clock() + 7200 * S
        assert hold(rig, "task", "Reload HR", until_ns=until).title == "Reload HR"
        source.put(START_TOPIC, task.id, received_ns=clock())
        rig.wait_until(lambda: waiting(rig) == [1])
        (wait,) = rig.engine.waits()
        assert (wait.kind, wait.until_ns) == ("hold", until)
        clock.advance(7199)
        rig.engine._state.wake_all()
        source.put(START_TOPIC, task.id, received_ns=clock())
        rig.wait_until(lambda: rig.engine.executions(1)[0].merged == 1)
        assert task.runs == 0
        clock.advance(1)
        rig.engine._state.wake_all()
        rig.wait_until(lambda: task.runs == 1)
        assert rig.engine.holding.holds().holds == ()
        assert "The hold of task Reload HR that ann made has ended by itself" in caplog.text
        hold(rig, "everything", until_ns=clock() + 600 * S)
        source.put(START_TOPIC, other.id, received_ns=clock())
        rig.wait_until(lambda: waiting(rig) == [1])
    clock.advance(3600)
    with Rig(path, server, trigger, **settings) as again:
        again.wait_until(lambda: other.runs == 1)


def test_a_hold_follows_the_clock_when_that_is_set(qlik, tmp_path) -> None:
    """06:00 is when the clock shows it; what waits is not older by that."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    wall, steady = [1_795_000_000 * S], [0]
    clock = Clock(lambda: wall[0], lambda: steady[0])
    with Rig(tmp_path / "tasks.db", client_of(qlik), clock_ns=clock, boot_ns=0) as rig:
        hold(rig, "everything", until_ns=wall[0] + 3600 * S)
        rig.source.put(START_TOPIC, task.id, received_ns=wall[0])
        rig.wait_until(lambda: waiting(rig) == [1])
        wall[0] -= 1800 * S
        rig.engine._state.follow_clock()
        rig.wait_until(lambda: rig.engine.waits()[0].until_ns == 1_795_003_600 * S)
        wall[0] += 1800 * S + 3600 * S
        rig.engine._state.wake_all()
        rig.wait_until(lambda: task.runs == 1)
        assert rig.engine.holding.holds().holds == ()


@pytest.mark.parametrize("step_s", [-7200, 7200])
def test_what_comes_is_dropped_also_after_the_clock_was_set(qlik, tmp_path, step_s) -> None:
    """The hold began as long ago as before."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    wall, path = [1_795_000_000 * S], tmp_path / "tasks.db"
    clock, source = Clock(lambda: wall[0], lambda: 0), MemorySource()
    with Rig(path, client_of(qlik), source=source, clock_ns=clock, boot_ns=0) as rig:
        since_ns = hold(rig, "everything", drop=True).since_ns
        wall[0] += step_s * S
        rig.engine._state.follow_clock()
        last = source.put(START_TOPIC, task.id, received_ns=wall[0])
        rig.wait_until(lambda: taken(rig, last.seq))
        assert rig.engine.counters()[Counter.STARTS_DROPPED_BY_HOLD] == 1
        assert waiting(rig) == [0]
    with Rig(path, client_of(qlik), source=source, clock_ns=clock, boot_ns=0) as again:
        assert again.engine.holding.holds().holds[0].since_ns == since_ns + step_s * S


def test_what_comes_meanwhile_is_dropped_if_that_was_asked_for(qlik, tmp_path) -> None:
    """The sender is told; what waited before waits on; what came before the hold is not dropped."""
    task = qlik.add_task("Reload HR", duration_s=0.05, tags=("nightly",))
    other = qlik.add_task("Reload IT", duration_s=0.05, tags=("nightly",))
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        hold(rig, "task", task.id)
        waits = rig.source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: taken(rig, waits.seq))
        time.sleep(0.002)  # the next hold begins after this message by the clock
        assert hold(rig, "task", task.id, drop=True).waiting == 1
        asks = MessageProperties(response_topic="plc/answers", correlation_data=b"7").encoded()
        dropped = rig.source.put(START_TOPIC, task.id, properties=asks)
        by_tag = rig.source.put(START_TOPIC, '{"tag": "nightly"}')
        rig.broker.wait_for(other.id, "succeeded")
        rig.broker.wait_until(lambda: any(one[0] == "plc/answers" for one in rig.broker.published))
        (answer,) = [one[1] for one in rig.broker.published if one[0] == "plc/answers"]
        assert answer["state"] == "skipped"
        assert answer["reason"].startswith("Held by ann (task Reload HR): new disks.")
        marks = rig.engine.marks([waits.seq, dropped.seq, by_tag.seq])
        assert marks[dropped.seq].label == "held"
        assert marks[waits.seq].state is ExecutionState.WAITING
        assert rig.engine.counters()[Counter.STARTS_DROPPED_BY_HOLD] == 2
        assert rig.engine.rules()[0].rejected == 0
        with pytest.raises(UnavailableError, match="Held by ann"):
            rig.engine.start_task(task.id, "bob")
        with pytest.raises(UnavailableError, match="Held by ann"):
            # All of it or nothing.
            rig.engine.request_starts(f'["{other.id}", "{task.id}"]'.encode(), "bob")
        assert waiting(rig) == [1]
        rig.engine.holding.release("task", "Reload HR", "ann")
        rig.broker.wait_for(task.id, "succeeded")
    assert (task.runs, other.runs) == (1, 1)


@pytest.mark.campaign
def test_a_trigger_is_held_and_others_are_not(qlik, tmp_path) -> None:
    """A request that another rule asks for as well goes; an operator may end one wait."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    rules = [
        TriggerConfig(topic=f"{name}/#", task={"name": "Reload HR"}, name=name)
        for name in ("stock", "sales")
    ]
    with Rig(tmp_path / "tasks.db", client_of(qlik), *rules) as rig:
        hold(rig, "trigger", "stock")
        rig.source.put("stock/done", "1")
        rig.wait_until(lambda: waiting(rig) == [1])
        rig.source.put("sales/done", "1")
        rig.broker.wait_for(task.id, "succeeded")
        assert rig.newest().merged == 1
        rig.source.put("stock/done", "2")
        rig.wait_until(lambda: waiting(rig) == [1])
        # Other rules count from now on: the hold stays, and what it holds.
        rig.engine.take(rig.engine.rules_of(rules, [], AllowConfig(), []))
        assert waiting(rig) == [1]
        (wait,) = rig.engine.waits()
        rig.engine.fire_timer(wait.name, "bob")
        rig.broker.wait_for(task.id, "succeeded", 2)
        assert [one.shown for one in rig.engine.holding.holds().holds] == ["trigger stock"]


def test_a_held_timer_publishes_nothing_and_starts_once_after_it(qlik, tmp_path) -> None:
    """A held silence watch raises no alarm, and begins to listen anew at the end."""
    task = qlik.add_task("Reload HR", duration_s=0.05)
    every = TimerConfig(
        name="hourly",
        every=3600.0,
        task={"name": "Reload HR"},
        publish=PublishConfig(topic="tick", payload="1"),
    )
    quiet = TimerConfig(name="line 7", silence=600.0, topic="plant/7/#")
    clock = ManualClock()
    settings = {"clock_ns": clock, "boot_ns": 0, "timers": (every, quiet)}
    with Rig(tmp_path / "tasks.db", client_of(qlik), **settings) as rig:
        hold(rig, "timer", "hourly")
        hold(rig, "timer", "line 7")
        for number in (1, 2, 3):
            clock.advance(3600)
            rig.engine._state.wake_all()
            rig.wait_until(
                lambda wanted=number: rig.engine.counters().get(Counter.TIMERS_FIRED) == wanted
            )
        assert waiting(rig) == [1, 0]
        assert not [one for one in rig.engine.timers() if one.is_alarm]
        rig.engine.holding.release("timer", "hourly", "ann")
        rig.engine.holding.release("timer", "line 7", "ann")
        rig.wait_until(lambda: task.runs == 1)
        assert not [one for one in rig.broker.published if one[0] == "tick"]
        clock.advance(601)
        rig.engine._state.wake_all()
        rig.wait_until(lambda: any(one.is_alarm for one in rig.engine.timers()))


def test_a_name_that_does_not_exist_is_refused_with_the_nearest(qlik, tmp_path) -> None:
    """Nothing is held by a slip; a client may have any name."""
    qlik.add_task("Reload HR")
    twins = [qlik.add_task("Twin"), qlik.add_task("Twin")]
    timer = TimerConfig(name="nightly", cron="0 3 * * *", publish=PublishConfig("a", "1"))
    with Rig(tmp_path / "tasks.db", client_of(qlik), timers=(timer,)) as rig:
        for kind, name, text in (
            ("task", "Reload HF", 'Did you mean "Reload HR"'),
            ("task", "Twin", twins[1].id),
            ("task", "00000000-0000-0000-0000-00000000abcd", "lists no task"),
            ("trigger", "qliksense/start_tusk", 'Did you mean "qliksense/start_task"'),
            ("timer", "nightley", 'Did you mean "nightly"'),
            ("client", "", "Name the client"),
            ("moon", "a", "can't be held"),
            ("everything", "a", "has no name"),
        ):
            with pytest.raises(UsageError, match=text):
                hold(rig, kind, name)
        with pytest.raises(UsageError, match="is over"):
            hold(rig, "everything", until_ns=1)
        with pytest.raises(UsageError, match="200 at most"):
            hold(rig, "everything", reason="x" * 201)
        with pytest.raises(UsageError, match="nothing to drop"):
            hold(rig, "client", "press-7", drop=True)
        hold(rig, "client", "press-7")
        with pytest.raises(UsageError, match="What is held: client press-7"):
            rig.engine.holding.release("task", "Reload HR", "ann")
        assert len(rig.engine.holding.holds().holds) == 1


def test_an_explanation_says_what_a_hold_does(qlik, tmp_path) -> None:
    """Until when a start would wait, also beyond its expiry; and that it would be dropped."""
    task = qlik.add_task("Reload HR")
    trigger = TriggerConfig(topic=START_TOPIC, task="payload", expire=60.0)
    clock = ManualClock()
    with Rig(tmp_path / "tasks.db", client_of(qlik), trigger, clock_ns=clock, boot_ns=0) as rig:
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "ok")
        message = Message(0, clock(), START_TOPIC, task.id.encode())
        until = clock() + 7200 * S
        hold(rig, "everything", until_ns=until)
        for is_there in (False, True):
            (start,) = rig.engine.explain(message).starts
            (check,) = [one for one in start.checks if one.field == "hold"]
            assert (check.waits, check.until_ns, start.at_ns) == (True, until, until)
            assert start.effect == ("merge" if is_there else "start")
            rig.source.put(START_TOPIC, task.id, received_ns=clock())
            rig.wait_until(lambda: waiting(rig) == [1])
        hold(rig, "everything", drop=True)
        (start,) = rig.engine.explain(message).starts
        assert start.effect == "nothing"
        assert "is dropped" in start.reason


def test_names_that_would_hold_nothing_or_release_another_thing_are_refused(qlik, tmp_path) -> None:
    """Two tasks may have one name; no client has an id that begins with ``$``."""
    twins = [qlik.add_task("Reload HR", duration_s=0.05) for _ in range(2)]
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        with pytest.raises(UsageError, match="100 years"):
            hold(rig, "everything", until_ns=2**63 - 1)
        with pytest.raises(UsageError, match="no client id begins"):
            hold(rig, "client", "$bridge/plant")
        for task in twins:
            hold(rig, "task", task.id)
        with pytest.raises(UsageError, match=twins[1].id):
            rig.engine.holding.release("task", "Reload HR", "ann")
        assert rig.engine.holding.release("task", twins[1].id.upper(), "ann").name == twins[1].id
        assert rig.engine.holding.release("task", "Reload HR", "ann").name == twins[0].id


def test_the_log_says_what_a_second_operator_changed(qlik, tmp_path, caplog) -> None:
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        hold(rig, "everything")
        hold(rig, "everything", by="bob", reason="", drop=True)
        assert caplog.messages[-1] == (
            "bob holds everything: no reason is given; what asks for a start meanwhile is dropped "
            "(before: by ann: new disks)"
        )
