"""Which message may ask for what, in which form, and which topic is told: over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tasks_rig import START_TOPIC, Rig, client_of

from appliance.counters import Counter
from appliance.config.tables import AllowConfig, ByProperty, TriggerConfig
from appliance.errors import ApplianceError, UsageError
from appliance.model import ExecutionState, MessageProperties
from appliance.qlik.simulated import SimulatedQlik


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def payload_of(value: object) -> bytes:
    return json.dumps(value).encode()


def test_tasks_are_found_by_name_tag_and_property(qlik, tmp_path: Path) -> None:
    """Names, tags and pairs of property and value are compared exactly, the pair as a pair."""
    one = qlik.add_task("One", tags=("nightly",), properties=(("plant", "north"),), duration_s=0.05)
    two = qlik.add_task(
        "Two",
        tags=("nightly",),
        properties=(("plant", "south"), ("line", "north")),
        duration_s=0.05,
    )
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, payload_of({"taskName": "Two"}))
        rig.broker.wait_for(two.id, "succeeded")
        assert (qlik.starts(one.id), qlik.starts(two.id)) == (0, 1)
        found = {"customProperty": {"name": "plant", "value": "north"}}
        rig.source.put(START_TOPIC, payload_of(found))
        rig.broker.wait_for(one.id, "succeeded")
        assert (qlik.starts(one.id), qlik.starts(two.id)) == (1, 1)
        message = rig.source.put(START_TOPIC, payload_of({"tag": "nightly"}))
        rig.broker.wait_for(one.id, "succeeded", times=2)
        rig.broker.wait_for(two.id, "succeeded", times=2)
        assert rig.engine.marks([message.seq])[message.seq].count == 2


def test_a_name_that_is_not_there_or_not_clear_starts_nothing(qlik, tmp_path: Path) -> None:
    """The reason names what was meant, or the ids to choose from."""
    qlik.add_task("Reload sales")
    qlik.add_task("Twins")
    qlik.add_task("Twins")
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, payload_of({"taskName": "Reload sale"}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED])
        assert 'Is "Reload sales" meant?' in rig.newest().reason
        rig.source.put(START_TOPIC, payload_of({"taskName": "Twins"}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED] * 2)
        assert "use the task id" in rig.newest().reason
        assert qlik.starts() == 0


@pytest.mark.parametrize(
    "text", ["x' or 1 eq 1 or name eq 'x", "../../user", "%27", "a&xrfkey=b", "#", "\u202e"]
)
def test_text_from_a_message_never_reaches_the_server(qlik, tmp_path: Path, text: str) -> None:
    """Names are compared here; no request to the server has them in it."""
    qlik.add_task("Reload sales")
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, payload_of({"taskName": text}))
        rig.wait_until(lambda: rig.states() == [ExecutionState.REJECTED])
        assert not qlik.posts
        assert not [one for one in qlik.requests if text in str(one.query) or text in one.path]


def test_the_allow_list_holds_for_everybody(qlik, tmp_path: Path) -> None:
    """What [allow] does not have is not started: by no message and by no operator."""
    by_id = qlik.add_task("By id", duration_s=0.05)
    by_tag = qlik.add_task("By tag", tags=("mqtt",), duration_s=0.05)
    by_pair = qlik.add_task("By pair", properties=(("start", "yes"),), duration_s=0.05)
    other = qlik.add_task("Other", tags=("secret",), properties=(("start", "no"), ("x", "yes")))
    allow = AllowConfig(
        tasks=(by_id.id.upper(),),
        tags=("mqtt",),
        properties=(ByProperty(property="start", value="yes"),),
    )
    with Rig(tmp_path / "tasks.db", client_of(qlik), allow=allow) as rig:
        message = rig.source.put(
            START_TOPIC, payload_of([by_id.id, by_tag.id, by_pair.id, other.id])
        )
        for task in (by_id, by_tag, by_pair):
            rig.broker.wait_for(task.id, "succeeded")
        rig.broker.wait_for(other.id, "rejected")
        assert rig.engine.marks([message.seq])[message.seq].label == "not allowed"
        rig.source.put(START_TOPIC, payload_of({"tag": "secret"}))
        rig.broker.wait_for(other.id, "rejected", times=2)
        with pytest.raises(UsageError, match=r"may not be started: the \[allow\] table"):
            rig.engine.start_task(other.id, "terminal")
        assert qlik.starts(other.id) == 0


def test_a_redelivery_and_a_repeat_start_nothing(qlik, tmp_path: Path) -> None:
    """The same packet again with DUP, also after a restart, and what a bridge says to be a repeat:
    nothing is started a second time, and the mark beside the message says why."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, task.id, qos=1, packet_id=9)
        rig.broker.wait_for(task.id, "succeeded")
        second = rig.source.put(START_TOPIC, task.id, qos=1, packet_id=9, dup=True)
        rig.wait_until(lambda: rig.engine.marks([second.seq]))
        mark = rig.engine.marks([second.seq])[second.seq]
        assert (mark.state, mark.label) == (ExecutionState.SKIPPED, "redelivery")
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=rig.source) as again:
        third = again.source.put(START_TOPIC, task.id, qos=1, packet_id=9, dup=True)
        fourth = again.source.put(
            START_TOPIC, task.id, retain=True, dup=True, client_id="$bridge/hq", packet_id=1 << 16
        )
        again.wait_until(lambda: len(again.engine.marks([third.seq, fourth.seq])) == 2)
        assert again.engine.marks([fourth.seq])[fourth.seq].label == "redelivery"
        assert again.engine.explain(fourth).reasons == (
            "It came before as message 1: the broker of bridge hq sent it again.",
        )
        assert qlik.starts() == 1
        again.source.put(START_TOPIC, task.id, qos=1, packet_id=10, retain=True)
        again.broker.wait_for(task.id, "succeeded")
        assert qlik.starts() == 2


def test_bad_payloads_are_rejected_visibly(qlik, tmp_path: Path, caplog) -> None:
    """A reason in the log and beside the message; nothing is sent to the server; a flood of them
    does not flood the log."""
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        bad = rig.source.put(START_TOPIC, "please reload sales")
        rig.wait_until(lambda: rig.engine.marks([bad.seq]))
        mark = rig.engine.marks([bad.seq])[bad.seq]
        assert (mark.state, mark.label, mark.execution) == (
            ExecutionState.REJECTED,
            "not a task id",
            0,
        )
        assert f"Message {bad.seq} on {START_TOPIC} from plc-1 started nothing" in caplog.text
        assert "please reload sales" not in caplog.text
        for _ in range(200):
            rig.source.put(START_TOPIC, "x")
        rig.wait_until(lambda: rig.engine.counters()[Counter.MESSAGES_REJECTED] == 201)
        assert rig.engine.counters()[Counter.LOG_LINES_LEFT_OUT] > 50
        assert rig.engine.rules()[0].rejected == 201
        assert not qlik.posts


def test_the_sender_gets_an_answer_on_its_response_topic(qlik, tmp_path: Path) -> None:
    """MQTT 5: the outcome goes to the response topic with the correlation data; a rejection too;
    never to a topic on which a trigger listens."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    asked = MessageProperties(response_topic="plc/answers", correlation_data=b"\x00\x01").encoded()
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, task.id, properties=asked)
        rig.source.put(START_TOPIC, "nonsense", properties=asked)
        answers = rig.broker.wait_until(
            lambda: (
                len(found := [one for one in rig.broker.published if one[0] == "plc/answers"]) == 2
                and found
            )
        )
        assert [body["state"] for _, body, _, _ in answers] == ["rejected", "succeeded"]
        assert all(properties.correlation_data == b"\x00\x01" for *_, properties in answers)
        loop = MessageProperties(response_topic=START_TOPIC).encoded()
        rig.source.put(START_TOPIC, task.id, properties=loop)
        rig.broker.wait_for(task.id, "succeeded", times=2)
        assert not [one for one in rig.broker.published if one[0] == START_TOPIC]


def test_a_message_that_several_triggers_concern_is_answered_once(qlik, tmp_path: Path) -> None:
    """Two triggers ask for the same task and a third understands nothing: one start, one answer;
    where all three understand nothing, one rejection."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    rules = [
        TriggerConfig(topic=filter_, task=target)
        for filter_, target in (
            ("start/#", "payload"),
            ("start/+", "payload"),
            ("start/+", "topic"),
        )
    ]
    asked = MessageProperties(response_topic="plc/answers", correlation_data=b"1").encoded()
    with Rig(tmp_path / "tasks.db", client_of(qlik), *rules) as rig:
        rig.source.put("start/00000000-0000-0000-0000-000000000000", task.id, properties=asked)
        rig.broker.wait_for(task.id, "succeeded")
        rig.source.put("start/00000000-0000-0000-0000-000000000000", "", properties=asked)
        rig.source.put(f"start/{task.id}", task.id, properties=asked)
        rig.broker.wait_for(task.id, "succeeded", times=2)
    answers = [body for topic, body, *_ in rig.broker.published if topic == "plc/answers"]
    assert [one["state"] for one in answers] == ["succeeded", "rejected", "succeeded"]
    assert [one.get("merged", 0) for one in answers] == [0, 0, 0]
    assert qlik.starts() == 2


@pytest.mark.parametrize("topic", ["appliance/status", "appliance", "secret/answers"])
def test_a_response_topic_lends_nobody_the_right_to_publish(qlik, tmp_path: Path, topic) -> None:
    """No answer goes to the appliance's own topics, nor where its asker may not listen."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    with Rig(
        tmp_path / "tasks.db",
        client_of(qlik),
        answer_topic=lambda _message, wanted: None if wanted.startswith("secret/") else wanted,
    ) as rig:
        rig.source.put(
            START_TOPIC, task.id, properties=MessageProperties(response_topic=topic).encoded()
        )
        rig.broker.wait_for(task.id, "succeeded")
        assert not [one for one in rig.broker.published if one[0] == topic]


def test_an_operator_starts_repeats_and_stops(qlik, tmp_path: Path) -> None:
    """From the terminal: start by id, do again what a message did, take back, end a run."""
    task = qlik.add_task("Reload sales", duration_s=600)
    qlik.site.abort_delay_s = 0.05
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        assert [one.name for one in rig.engine.tasks()] == ["Reload sales"]
        number = rig.engine.start_task(task.id, "terminal")
        rig.broker.wait_for(task.id, "running")
        assert rig.engine.execution(number).cause.kind == "operator"
        message = rig.source.put("other", task.id)
        with pytest.raises(ApplianceError, match="(?i)no trigger"):
            rig.engine.repeat(message, "terminal")
        message = rig.source.put(START_TOPIC, task.id, qos=1, dup=True)
        rig.wait_until(lambda: rig.engine.marks([message.seq]))
        assert rig.engine.repeat(message, "terminal") == 1
        waiting = rig.newest()
        assert (waiting.state, waiting.merged) == (ExecutionState.WAITING, 1)
        rig.engine.stop_execution(waiting.id, "terminal")
        assert rig.newest().state is ExecutionState.ABORTED
        rig.engine.stop_execution(number, "terminal")
        rig.broker.wait_until(lambda: rig.broker.states(task.id).count("aborted") == 2)
        assert "asked for by terminal" in str(rig.engine.execution(number).steps)
        with pytest.raises(UsageError, match="ended already"):
            rig.engine.stop_execution(number, "terminal")
        with pytest.raises(UsageError, match="not a task id"):
            rig.engine.start_task("../x", "terminal")
        assert qlik.starts() == 1
        assert [one.id for one in rig.engine.history(2**62, 10)] == [2, 1]


def test_without_a_server_messages_are_rejected_with_that_reason(tmp_path: Path) -> None:
    """No [qlik] table: triggers say so, the rest of the appliance works."""
    with Rig(tmp_path / "tasks.db", None) as rig:
        message = rig.source.put(START_TOPIC, "8d31c0f8-0d36-4a0a-a8b4-3b0f6f2c5d10")
        rig.wait_until(lambda: rig.engine.marks([message.seq]))
        assert rig.engine.marks([message.seq])[message.seq].label == "no Qlik"
        assert rig.engine.qlik_state().health.level == "off"
        with pytest.raises(ApplianceError, match=r"\[qlik\]"):
            rig.engine.tasks()


def test_the_position_in_the_journal_is_kept(qlik, tmp_path: Path) -> None:
    """Messages that concern no trigger are not read again, and none is skipped."""
    task = qlik.add_task("Reload sales", duration_s=0.05)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        for _ in range(10):
            rig.source.put("plant/temperature", "21")
        rig.wait_until(lambda: rig.source.position == 10)
    rig.source.put(START_TOPIC, task.id)
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=rig.source) as again:
        assert again.source.position >= 10
        again.broker.wait_for(task.id, "succeeded")
        again.wait_until(lambda: again.source.advanced == 11)


def test_fixed_rules_chain_tasks(qlik, tmp_path: Path) -> None:
    """A rule on a task's own outcome starts the next task, once."""
    first = qlik.add_task("First", duration_s=0.05)
    second = qlik.add_task("Second", duration_s=0.05)
    rules = (
        TriggerConfig(topic=START_TOPIC, task="payload"),
        TriggerConfig(
            topic=f"appliance/tasks/{first.id}/last",
            task={"name": "Second"},
            when={"state": "succeeded"},
        ),
        TriggerConfig(topic="appliance/tasks/+/last", task={"name": "Second"}, name="loop"),
    )
    with Rig(tmp_path / "tasks.db", client_of(qlik), *rules) as rig:
        own = rig.broker

        def journaled(publications):
            for one in publications:
                own(one.topic, one.payload, one.retain)
                rig.source.put(one.topic, one.payload, retain=one.retain, client_id="$appliance")
            return rig.source.last_seq

        rig.engine._workers._publish = journaled
        rig.source.put(START_TOPIC, first.id)
        rig.broker.wait_for(second.id, "succeeded")
        rig.wait_until(
            lambda: any(
                one.cause.rule == "loop" and one.state is ExecutionState.REJECTED
                for one in rig.engine.executions(20)
            )
        )
        assert (qlik.starts(first.id), qlik.starts(second.id)) in [(1, 1), (1, 2)]
