"""``partial`` and ``variables`` from a rule, a timer or a payload to the start call, and no further.

They are noted with the request: a kill and a lost database leave them as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tasks_rig import START_TOPIC, JournaledRig, MemorySource, Rig, client_of

from appliance.config.tables import TimerConfig, TriggerConfig
from appliance.counters import Counter
from appliance.model import ExecutionState, ReloadOptions
from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.server import NO_OPTIONS, Started
from appliance.qlik.simulated import FaultKind, SimulatedQlik

DAY = ReloadOptions(variables=(("vDay", "2026-11-29"),))


class TakesOptions(ClientManaged):
    """The simulated site's client; like Qlik Cloud, it takes options, and notes them."""

    calls: list[tuple[str, ReloadOptions]]

    def start(self, task_id: str, *, options: ReloadOptions = NO_OPTIONS) -> Started:
        self.calls.append((task_id, options))
        return super().start(task_id)


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


def taking(qlik: SimulatedQlik) -> TakesOptions:
    client = TakesOptions(client_of(qlik)._transport)
    client.calls = []
    return client


def text(value: Any) -> bytes:
    return msgspec.json.encode(value)


def test_options_go_from_the_rule_and_the_payload_to_the_call(qlik, tmp_path: Path) -> None:
    """And into the outcome, which has neither key where nothing was asked for."""
    tasks = [qlik.add_task(name, duration_s=0.05) for name in ("A", "B", "C", "D")]
    fixed, named, plain, timed = (one.id for one in tasks)
    server = taking(qlik)
    rules = [
        TriggerConfig(topic="fixed", task=fixed, partial=True, variables={"vDay": "2026-11-29"}),
        TriggerConfig(topic=START_TOPIC, task="payload"),
    ]
    timer = TimerConfig(name="t", every=3600.0, task=timed, partial=True)
    with Rig(tmp_path / "tasks.db", server, *rules, timers=[timer]) as rig:
        rig.source.put("fixed", "anything")
        rig.source.put(START_TOPIC, text({"taskId": named, "variables": {"vDay": "2026-11-29"}}))
        rig.source.put(START_TOPIC, plain)
        rig.engine.fire_timer("t", "ann")
        for task in tasks:
            rig.broker.wait_for(task.id, "succeeded")
    assert dict(server.calls) == {
        fixed: msgspec.structs.replace(DAY, partial=True),
        named: DAY,
        plain: ReloadOptions(),
        timed: ReloadOptions(partial=True),
    }
    outcomes = {body["taskId"]: body for _, body, retain, _ in rig.broker.published if retain}
    assert outcomes[fixed]["partial"] is True
    assert outcomes[fixed]["variables"] == {"vDay": "2026-11-29"}
    assert "partial" not in outcomes[named]
    assert not {"partial", "variables"} & outcomes[plain].keys()


def test_messages_for_equal_reloads_share_a_start_and_others_do_not(qlik, tmp_path: Path) -> None:
    """While the task runs, each day waits once, and both days run after it."""
    task = qlik.add_task("Sales", duration_s=60.0)
    server = taking(qlik)
    with Rig(tmp_path / "tasks.db", server) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "running")
        for day in ("1", "2", "1", "2", "2"):
            rig.source.put(START_TOPIC, text({"taskId": task.id, "variables": {"vDay": day}}))
        rig.wait_until(lambda: sum(one.merged for one in rig.engine.executions(9)) == 3)
        task.duration_s = 0.05
        qlik.site.finish(task.id)
        rig.broker.wait_for(task.id, "succeeded", times=3)
    days = [dict(options.variables).get("vDay") for _, options in server.calls]
    assert days[0] is None
    assert sorted(days[1:]) == ["1", "2"]


@pytest.mark.parametrize("what", ["noted", "told by the journal"])
def test_what_waits_keeps_its_options(qlik, tmp_path: Path, what: str) -> None:
    """Over a stop, from the database; over the database's loss, from what was published."""
    database, source = tmp_path / "tasks.db", MemorySource()
    task = qlik.add_task("Sales", duration_s=0.05)
    payload = text({"taskId": task.id, "partial": True, "variables": {"vDay": "2026-11-29"}})
    wanted = msgspec.structs.replace(DAY, partial=True)
    timer = TimerConfig(
        name="t",
        every=3600.0,
        task=task.id,
        **msgspec.to_builtins({"partial": True, "variables": {"vDay": "2026-11-29"}}),
    )
    qlik.refuse()
    with JournaledRig(database, taking(qlik), source=source, timers=[timer]) as rig:
        if what == "noted":
            source.put(START_TOPIC, payload)
        else:
            rig.engine.fire_timer("t", "ann")
        rig.broker.wait_until(lambda: rig.broker.states(task.id))
    if what != "noted":
        for path in database.parent.glob("tasks.db*"):
            path.unlink()
    qlik.heal()
    server = taking(qlik)
    again = JournaledRig(database, server, source=source)
    if what != "noted":
        again.source.position = again.source.advanced = again.engine.rebuild(0, source.last_seq)
    with again:
        again.wait_until(lambda: again.newest().state is ExecutionState.SUCCEEDED)
        assert again.newest().reload == wanted
    assert server.calls == [(task.id, wanted)]


@pytest.mark.parametrize("seen", [True, False])
def test_a_lost_record_answers_a_message_by_its_reload(qlik, tmp_path: Path, seen: bool) -> None:
    """A reload with other variables is no answer; one with the same is."""
    database, source = tmp_path / "tasks.db", MemorySource()
    task = qlik.add_task("Sales", duration_s=0.05)
    with JournaledRig(database, taking(qlik), source=source) as rig:
        source.put(START_TOPIC, text({"taskId": task.id, "variables": {"vDay": "1"}}))
        rig.broker.wait_for(task.id, "succeeded")
    late = source.put(
        START_TOPIC, text({"taskId": task.id, "variables": {"vDay": "1" if seen else "2"}})
    )
    for path in database.parent.glob("tasks.db*"):
        path.unlink()
    server = taking(qlik)
    again = JournaledRig(database, server, source=source)
    again.source.position = again.source.advanced = again.engine.rebuild(0, source.last_seq)
    with again:
        again.wait_until(lambda: len(again.engine.executions(9)) == 2)
        again.wait_until(lambda: again.newest().state is ExecutionState.SUCCEEDED)
        assert again.engine.marks([late.seq])[late.seq].execution == again.newest().id
    assert [dict(options.variables)["vDay"] for _, options in server.calls] == [
        "1" if seen else "2"
    ]


def test_what_client_managed_qlik_can_not_do_is_said_and_nothing_is_started(
    qlik, tmp_path: Path
) -> None:
    """It has no variables; a partial reload is a property of the task."""
    full, partial = qlik.add_task("Full"), qlik.add_task("Partial", duration_s=0.05)
    partial.partial = True
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, text({"taskId": full.id, "partial": True}))
        rig.source.put(START_TOPIC, text({"taskId": partial.id, "variables": {"a": "1"}}))
        rig.broker.wait_for(full.id, "rejected")
        rig.broker.wait_for(partial.id, "rejected")
        assert qlik.starts() == 0
        rig.source.put(START_TOPIC, text({"taskId": partial.id, "partial": True}))
        rig.broker.wait_for(partial.id, "succeeded")
        reasons = {one.task_id: one.reason for one in rig.engine.executions(9) if one.reason}
    assert 'tasks with "Partial reload" set' in reasons[full.id]
    assert "takes no variables" in reasons[partial.id]
    assert qlik.starts() == 1


def test_a_partial_start_whose_question_before_the_call_fails_began_nothing(
    qlik: SimulatedQlik, tmp_path: Path
) -> None:
    """So it leaves as soon as the server answers, and is not looked for."""
    task = qlik.add_task("A", duration_s=0.05, partial=True)
    fault = qlik.fail(FaultKind.STATUS, path="/reloadtask/full")
    rule = TriggerConfig(topic="t", task=task.id, partial=True)
    with Rig(tmp_path / "tasks.db", client_of(qlik), rule) as rig:
        rig.source.put("t", "go")
        rig.wait_until(lambda: rig.states() == [ExecutionState.RETRYING])
        assert Counter.START_ANSWERS_LOST not in rig.engine.counters()
        fault.times = 0
        rig.broker.wait_for(task.id, "succeeded")
    assert qlik.starts() == 1
