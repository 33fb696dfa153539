"""A mistake of ours in the task engine: it is seen, and it does not end all starts."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest
from requests.structures import CaseInsensitiveDict
from tasks_rig import START_TOPIC, Rig, client_of

from appliance.counters import Counter
from appliance.ops import health
from appliance.config.tables import TimerConfig, TriggerConfig
from appliance.config.values import TopicFilter
from appliance.config.tables import PublishConfig
from appliance.model import ExecutionState, Message, MessageProperties
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.transport import Reply
from appliance.engine_api import Health, JournalState, Snapshot
from appliance.tasks import internal_errors, workers
from appliance.tasks.conditions import Condition
from appliance.tasks.internal_errors import STEADY_S, InternalErrors
from appliance.tasks.dispatcher import Dispatcher
from appliance.tasks.planner import Planner
from appliance.tasks.store import Publication
from appliance.tasks.schedule import Timing
from appliance.tasks.verdicts import Triggers


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def report_of(rig: Rig) -> health.Report:
    return health.report(
        Snapshot(
            taken_ns=1,
            name="appliance",
            version="1",
            started_ns=1,
            listeners=(),
            clients_connected=0,
            journal=JournalState(Health("ok")),
            qlik=rig.engine.qlik_state(),
            recorders=(),
            rules=(),
            timers=(),
            executions=(),
        )
    )


def test_a_thread_that_fails_is_seen_and_run_again(
    qlik, tmp_path: Path, monkeypatch, caplog
) -> None:
    """The log, the Qlik line of the terminal and /healthz say so; messages go on starting tasks,
    and the thread comes back by itself."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    failures = [RuntimeError("first"), RuntimeError("second")]
    came_back = threading.Event()
    tick = Timing.tick

    def failing(timing: Timing, planner: Planner) -> None:
        if failures:
            raise failures.pop()
        tick(timing, planner)
        came_back.set()

    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        assert not report_of(rig).is_bad
        monkeypatch.setattr(internal_errors, "FIRST_PAUSE_S", 0.3)
        monkeypatch.setattr(workers, "TICK_S", 0.05)
        monkeypatch.setattr(Timing, "tick", failing)
        rig.wait_until(lambda: rig.engine.qlik_state().health.level == "bad")
        assert "thread clock failed" in rig.engine.qlik_state().health.text
        report = report_of(rig)
        assert report.is_bad
        assert [one.level for one in report.parts if one.name == "tasks"] == ["bad"]
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded")
        assert came_back.wait(20)
    assert "The thread clock of the task engine failed" in caplog.text


def test_failing_threads_are_bad_without_a_server_too(tmp_path: Path, monkeypatch) -> None:
    """Where no Qlik server is configured, timers still publish: their defect is seen as well."""

    def failing(_timing: Timing, _planner: Planner) -> None:
        raise RuntimeError

    monkeypatch.setattr(Timing, "tick", failing)
    monkeypatch.setattr(workers, "TICK_S", 0.05)
    with Rig(tmp_path / "tasks.db", None) as rig:
        rig.wait_until(lambda: report_of(rig).is_bad)
        assert rig.engine.qlik_state().health.level == "bad"


def test_a_message_that_can_t_be_dealt_with_is_set_aside(
    qlik, tmp_path: Path, monkeypatch, caplog
) -> None:
    """Tried twice, then rejected with its number in the log and the sender told; the messages
    before and after it start their tasks; a restart does not take it up again."""
    first, second = (qlik.add_task(f"Reload {one}", duration_s=0.05) for one in (1, 2))
    decide = Triggers.decide
    tried = []

    def failing(triggers: Triggers, message: Message) -> object:
        if message.payload == b"poison":
            tried.append(message.seq)
            raise TypeError("never seen before")
        return decide(triggers, message)

    monkeypatch.setattr(Triggers, "decide", failing)
    reply = MessageProperties(response_topic="plc/answers").encoded()
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, first.id)
        poison = rig.source.put(START_TOPIC, "poison", properties=reply, qos=1, packet_id=3)
        rig.source.put(START_TOPIC, second.id)
        rig.broker.wait_for(first.id, "succeeded")
        rig.broker.wait_for(second.id, "succeeded")
        assert tried == [poison.seq] * 2
        mark = rig.engine.marks([poison.seq])[poison.seq]
        assert (mark.state, mark.label) == (ExecutionState.REJECTED, "internal error")
        assert rig.engine.counters()[Counter.INTERNAL_ERRORS] == 1
        assert "internal error with message 2" in rig.engine.qlik_state().health.text
        assert report_of(rig).status == "warn"
        rig.broker.wait_until(
            lambda: (
                [
                    body["state"]
                    for topic, body, *_ in rig.broker.published
                    if topic == "plc/answers"
                ]
                == ["rejected"]
            )
        )
    assert f"Message {poison.seq} on {START_TOPIC} is set aside" in caplog.text
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=rig.source) as again:
        again.source.put(START_TOPIC, first.id)
        again.broker.wait_for(first.id, "succeeded")
        assert tried == [poison.seq] * 2
        assert again.engine.marks([poison.seq])[poison.seq].label == "internal error"


def test_a_rule_that_fails_takes_no_start_from_the_others(
    qlik, tmp_path: Path, monkeypatch, caplog
) -> None:
    """Two rules on one topic: an error in reading for one is counted and logged, the other starts."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    compare = Condition.compare

    def failing(condition: Condition, payload: bytes) -> bool:
        if b"poison" in payload:
            raise TypeError("never seen before")
        return compare(condition, payload)

    monkeypatch.setattr(Condition, "compare", failing)
    picky = TriggerConfig(topic=TopicFilter("plant/#"), task=task.id, when={"state": "done"})
    plain = TriggerConfig(topic=TopicFilter("plant/#"), task=task.id)
    with Rig(tmp_path / "tasks.db", client_of(qlik), picky, plain) as rig:
        poison = rig.source.put("plant/line", "poison")
        rig.broker.wait_for(task.id, "succeeded")
        assert qlik.starts(task.id) == 1
        assert rig.engine.counters()[Counter.INTERNAL_ERRORS] == 1
        assert f"message {poison.seq}" in rig.engine.qlik_state().health.text
    assert "please report it" in caplog.text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "shift_jis"])
def test_json_that_is_not_utf_8_loses_no_start(qlik, tmp_path: Path, encoding: str) -> None:
    """A PLC's JSON in another encoding meets no condition; a rule without one starts its task."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    picky = TriggerConfig(topic=TopicFilter("plant/#"), task=task.id, when={"state": "done"})
    plain = TriggerConfig(topic=TopicFilter("plant/#"), task=task.id)
    text = (
        '{"state": "done", "name": "M\u00fcller"}' if encoding != "shift_jis" else '{"a": "\u30bd"}'
    )
    with Rig(tmp_path / "tasks.db", client_of(qlik), picky, plain) as rig:
        rig.source.put("plant/line", text.encode(encoding))
        rig.broker.wait_for(task.id, "succeeded")
        assert qlik.starts(task.id) == 1
        assert Counter.INTERNAL_ERRORS not in rig.engine.counters()
        assert not report_of(rig).is_bad


def test_a_second_try_starts_nothing_twice(qlik, tmp_path: Path, monkeypatch) -> None:
    """What the first try asked for already is not asked for again, with DUP set neither."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.05) for number in range(2)]
    ask = Dispatcher.ask
    failures = [RuntimeError("once")]

    def failing(dispatcher: Dispatcher, selector, *arguments, **more):
        if selector.value == tasks[1].id and failures:
            raise failures.pop()
        return ask(dispatcher, selector, *arguments, **more)

    monkeypatch.setattr(Dispatcher, "ask", failing)
    rule = TriggerConfig(topic=TopicFilter(START_TOPIC), task="payload", if_running="start")
    with Rig(tmp_path / "tasks.db", client_of(qlik), rule) as rig:
        both = msgspec.json.encode([one.id for one in tasks])
        rig.source.put(START_TOPIC, both, qos=1, packet_id=5, dup=True)
        for task in tasks:
            rig.broker.wait_for(task.id, "succeeded")
        assert [qlik.starts(one.id) for one in tasks] == [1, 1]
        assert not failures


def test_news_that_can_t_be_written_hold_nothing_up(qlik, tmp_path: Path) -> None:
    """A publication that no database takes is left out, counted and logged; starts go on."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        state = rig.engine._state
        with state.change():
            state.publish(Publication(TopicFilter("alarms/x"), b"{}"))
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "succeeded")
        assert rig.engine.counters()[Counter.INTERNAL_ERRORS] == 1
        assert "alarms/x" in rig.engine.qlik_state().health.text


def test_one_timer_s_defect_is_not_the_others_(tmp_path: Path, monkeypatch) -> None:
    """Timers that are due at the same moment: the second fires though the first one fails."""
    act = Timing._do

    def failing(timing: Timing, planner: Planner, firing) -> None:
        if firing.timer.name == "first":
            raise RuntimeError
        act(timing, planner, firing)

    monkeypatch.setattr(Timing, "_do", failing)
    timers = tuple(
        TimerConfig(name=name, every=0.1, publish=PublishConfig(topic=name, payload="{}"))
        for name in ("first", "second")
    )
    with Rig(tmp_path / "tasks.db", None, timers=timers) as rig:
        rig.broker.wait_until(
            lambda: [1 for topic, *_ in rig.broker.published if topic == "second"]
        )
        assert rig.engine.counters()[Counter.INTERNAL_ERRORS] >= 1
        assert "timer first" in report_of(rig).parts[1].text


def test_names_with_half_a_character_are_no_poison() -> None:
    """A server's JSON may escape half of a surrogate pair, which no database takes: a question
    mark stands for it; whole pairs stay."""
    body = rb'{"name": "Reload \ud800", "tags": ["\ud83d\ude00", "\u00e9"]}'
    reply = Reply(200, CaseInsensitiveDict(), body, "GET /qrs/task", 0.0)
    assert reply.json() == {"name": "Reload ?", "tags": ["\U0001f600", "\u00e9"]}


def test_pauses_grow_to_half_a_minute_and_a_steady_minute_ends_the_alarm() -> None:
    """1, 2, 4, ... at most 30 s between two runs of a thread that fails; bad until it has run for
    a minute; the stop ends a pause."""
    now = 0.0
    defects = InternalErrors(lambda: now)
    pauses: list[float] = []

    def fail() -> None:
        raise RuntimeError

    def wait(pause_s: float) -> bool:
        pauses.append(pause_s)
        assert defects.health().level == "bad"
        return len(pauses) == 7

    defects.supervise("journal", fail, wait)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    defects = InternalErrors(lambda: now)
    runs = []

    def fail_once() -> None:
        nonlocal now
        runs.append(now)
        if len(runs) == 1:
            raise RuntimeError
        assert defects.health().level == "bad"
        now += STEADY_S
        assert defects.health() == Health("ok")

    defects.supervise("journal", fail_once, lambda _: False)
    assert len(runs) == 2


def test_a_thread_that_only_tells_people_is_less_than_bad() -> None:
    """A defect in the notices is a warning: restarting the appliance for it would do harm."""
    defects = InternalErrors()

    def fail() -> None:
        raise RuntimeError

    defects.supervise("notify 1", fail, lambda _: True, is_vital=False)
    assert defects.health().level == "warn"
