"""A list of tasks that is started as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tasks_rig import QUICK, START_TOPIC, MemorySource, Rig, client_of

from appliance.config.tables import AllowConfig, TriggerConfig
from appliance.errors import UnavailableError
from appliance.model import ExecutionState, MessageProperties
from appliance.qlik.simulated import SimulatedQlik

UNKNOWN = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


def text(value: Any) -> bytes:
    return msgspec.json.encode(value)


def whole(*tasks: object) -> bytes:
    return text({"tasks": tasks, "allOrNothing": True})


def test_a_list_whose_tasks_are_all_known_is_started(qlik, tmp_path: Path) -> None:
    """Each task once, whichever items mean it, and each with its own options."""
    one, two, three = (qlik.add_task(name, tags=("n",), duration_s=0.05) for name in "ABC")
    three.partial = True
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        payload = whole(
            one.id, {"taskName": "B"}, {"taskName": "C", "partial": True}, {"taskId": two.id}
        )
        rig.source.put(START_TOPIC, payload)
        for task in (one, two, three):
            rig.broker.wait_for(task.id, "succeeded")
        partial = {each.task_id: each.reload.partial for each in rig.engine.executions(9)}
    assert partial == {one.id: False, two.id: False, three.id: True}
    assert qlik.starts() == 3


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"taskName": "Nobody"}, 'no task "Nobody"'),
        (UNKNOWN, UNKNOWN),
        ({"tag": "nothing"}, 'no tasks with tag "nothing"'),
        ({"taskName": "Twice"}, "ambiguous"),
        ({"taskName": "Secret"}, "may not be started"),
        ({"tag": "some"}, "may not be started"),
    ],
)
@pytest.mark.parametrize("by", ["payload", "rule"])
def test_one_item_that_can_not_be_started_keeps_all_from_it(
    qlik, tmp_path: Path, item: object, said: str, by: str
) -> None:
    """The answer says which; without all or nothing the others are started."""
    good = qlik.add_task("Good", tags=("allowed",), duration_s=0.05)
    twice = [qlik.add_task("Twice", tags=("allowed",)) for _ in range(2)]
    qlik.add_task("Secret", tags=("some",))
    allow = AllowConfig(tags=("allowed",))
    rule = TriggerConfig(topic=START_TOPIC, task="payload", all_or_nothing=by == "rule")
    payload = whole(good.id, item) if by == "payload" else text([good.id, item])
    properties = MessageProperties(response_topic="answers/plc").encoded()
    with Rig(tmp_path / "tasks.db", client_of(qlik), rule, allow=allow) as rig:
        rig.source.put(START_TOPIC, payload, properties=properties)
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED])
        reason = rig.newest().reason
        answer = rig.broker.wait_until(
            lambda: [body for topic, body, _, _ in rig.broker.published if topic == "answers/plc"]
        )
    assert "all or nothing" in reason
    assert all(one.id in reason for one in twice) if said == "ambiguous" else said in reason
    assert answer[0]["reason"] == reason
    assert qlik.starts() == 0


def test_without_it_the_others_are_started(qlik, tmp_path: Path) -> None:
    good = qlik.add_task("Good", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, text({"tasks": [good.id, {"taskName": "Nobody"}]}))
        rig.broker.wait_for(good.id, "succeeded")
    assert qlik.starts() == 1


def test_a_tag_with_a_task_that_is_not_allowed_starts_nothing(qlik, tmp_path: Path) -> None:
    """A rule with ``all_or_nothing`` means all tasks of its tag."""
    good, bad = (qlik.add_task(name, tags=("nightly",)) for name in ("Good", "Bad"))
    rule = TriggerConfig(topic="t", task={"tag": "nightly"}, all_or_nothing=True)
    allow = AllowConfig(names=("Good",))
    with Rig(tmp_path / "tasks.db", client_of(qlik), rule, allow=allow) as rig:
        rig.source.put("t", "now")
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED])
        assert bad.id in rig.newest().reason
        assert good.id not in rig.newest().reason
    assert qlik.starts() == 0


def test_a_list_waits_for_the_server_as_one_request(qlik, tmp_path: Path) -> None:
    """Also over a stop; then all of it is started."""
    tasks = [qlik.add_task(name, duration_s=0.05) for name in "ABC"]
    source = MemorySource()
    qlik.refuse()
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as rig:
        source.put(START_TOPIC, whole(*(one.id for one in tasks)))
        rig.wait_until(lambda: len(rig.states()) == 1)
        rig.wait_until(lambda: source.advanced == 1)
        assert rig.newest().task_name.startswith("all of task")
    qlik.heal()
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as rig:
        rig.wait_until(lambda: rig.states() == [ExecutionState.SUCCEEDED] * 3)
    assert [qlik.starts(one.id) for one in tasks] == [1, 1, 1]


def test_a_list_that_does_not_fit_into_the_queue_is_not_taken_in_part(qlik, tmp_path: Path) -> None:
    tasks = [qlik.add_task(name) for name in "ABC"]
    limits = msgspec.structs.replace(QUICK, max_open=2)
    with Rig(tmp_path / "tasks.db", client_of(qlik), limits=limits) as rig:
        rig.source.put(START_TOPIC, whole(*(one.id for one in tasks)))
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED])
        assert "wait already" in rig.newest().reason
    assert qlik.starts() == 0


def test_an_operators_list_that_does_not_fit_is_not_taken_in_part(qlik, tmp_path: Path) -> None:
    """``appliance start`` says that nothing was started, so nothing is."""
    for name in "ABC":
        qlik.add_task(name, tags=("nightly",))
    limits = msgspec.structs.replace(QUICK, max_open=2)
    with Rig(tmp_path / "tasks.db", client_of(qlik), limits=limits) as rig:
        with pytest.raises(UnavailableError, match=r"wait already; this one is not taken\. See .*"):
            rig.engine.request_starts(msgspec.json.encode({"tag": "nightly"}), "ann")
        assert rig.states() == []
    assert qlik.starts() == 0
