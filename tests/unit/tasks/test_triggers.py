"""Rules: which messages concern them and what they ask for."""

from __future__ import annotations

import msgspec
import pytest

from appliance.config.tables import TriggerConfig
from appliance.errors import ConfigError
from appliance.model import Message
from appliance.tasks.payloads import WantedStart
from appliance.tasks.triggers import Options, Trigger
from appliance.tasks.verdicts import Triggers
from appliance.tasks.selector import TaskSelector

ID = "8d31c0f8-0d36-4a0a-a8b4-3b0f6f2c5d10"


def rule(task: object = "payload", topic: str = "start", **fields: object) -> TriggerConfig:
    return TriggerConfig(topic=topic, task=task, **fields)


def decide(message: Message, *configs: TriggerConfig):
    return Triggers(configs, service_name="appliance").decide(message)


def message(topic: str = "start", payload: bytes = ID.encode(), **fields: object) -> Message:
    return Message(7, 1, topic, payload, **({"client_id": "plc"} | fields))


@pytest.mark.parametrize(
    ("task", "selector"),
    [
        (ID.upper(), TaskSelector("id", ID)),
        ({"name": "Reload sales"}, TaskSelector("name", "Reload sales")),
        ({"tag": "nightly"}, TaskSelector("tag", "nightly")),
        ({"property": "plant", "value": "north"}, TaskSelector("property", "north", "plant")),
        ({"app": ID.upper()}, TaskSelector("app", ID)),
    ],
)
def test_a_rule_with_a_fixed_task_asks_for_it_whatever_the_payload_is(task, selector) -> None:
    """A source system need not know anything of Qlik."""
    (decision,) = decide(message(payload=b"\xff anything"), rule(task))
    assert [one.selector for one in decision.starts] == [selector]


def test_a_level_of_the_topic_may_name_the_task() -> None:
    """``task = "topic"`` takes the level that the + stands for: an id, else a name."""
    config = rule("topic", "qliksense/start/+/now")
    assert decide(message(f"qliksense/start/{ID.upper()}/now", b""), config)[0].starts == (
        WantedStart(TaskSelector("id", ID)),
    )
    assert decide(message("qliksense/start/Reload sales/now", b""), config)[0].starts == (
        WantedStart(TaskSelector("name", "Reload sales")),
    )
    assert decide(message("qliksense/start//now", b""), config)[0].rejection is not None


def test_one_message_may_match_several_rules() -> None:
    """Every rule that matches acts; one that is not concerned does not."""
    decisions = decide(
        message("plant/7/done", b'{"rows": 5}'),
        rule({"tag": "a"}, "plant/+/done"),
        rule({"tag": "b"}, "plant/#", when={"rows": {">": 3}}),
        rule({"tag": "c"}, "plant/#", when={"rows": {">": 5}}),
        rule({"tag": "d"}, "other/#"),
    )
    assert {one.starts[0].selector.value for one in decisions} == {"a", "b"}


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (rule("nonsense"), "neither"),
        (rule("00000000-0000-0000-0000-000000000000"), "neither"),
        (rule({"nam": "x"}), "task must be"),
        (rule({"name": " "}), "task must be"),
        (rule({"property": "x"}), "task must be"),
        (rule({"name": "x", "tag": "y"}), "task must be"),
        (rule(when={"a": {"?": 1}}), "unknown comparison"),
    ],
)
def test_a_rule_that_means_nothing_is_a_configuration_error(config, part: str) -> None:
    """The error names the rule by number and name, and says how to fix it."""
    with pytest.raises(ConfigError, match=r"trigger 1 \(") as caught:
        Triggers([config], service_name="appliance")
    assert part in str(caught.value)


@pytest.mark.parametrize("client_id", ["plc", "$bridge/plant"])
def test_a_retained_message_is_one_like_any_other(client_id) -> None:
    """Of a publisher and of a bridge, which tells repeats itself; an empty one only clears."""
    assert decide(message(client_id=client_id), rule())[0].starts
    assert decide(message(retain=True, client_id=client_id), rule())[0].starts
    cleared = decide(message(retain=True, payload=b"", client_id=client_id), rule({"tag": "a"}))
    assert cleared[0].rejection.harmless


def test_what_a_bridge_brings_in_is_never_the_appliances_own() -> None:
    """On any topic: it neither chains like an outcome nor is it left out as one."""
    bridged = message("appliance/tasks/x", client_id="$bridge/plant")
    assert decide(bridged, rule(topic="#"))[0].starts
    assert decide(msgspec.structs.replace(bridged, client_id="$appliance"), rule(topic="#")) == ()


def test_empty_retained_messages_only_clear() -> None:
    """A message without the flag is news, also when it is empty."""
    assert decide(message(retain=True, payload=b""), rule({"tag": "a"}))[0].rejection.harmless
    assert decide(message(payload=b""), rule({"tag": "a"}))[0].starts


def test_outcomes_do_not_start_the_task_that_they_are_about() -> None:
    """A rule for everything must not read the task out of an outcome and start it for ever; a
    rule that names topic and task may chain one task to another."""
    topic = f"appliance/tasks/{ID}/last"
    outcome = message(topic, f'{{"taskId": "{ID}"}}'.encode(), client_id="$appliance")
    assert decide(outcome, rule(topic="#"), rule({"tag": "x"}, topic="#")) == ()
    assert decide(outcome, rule("payload", "appliance/tasks/+/last")) == ()
    assert decide(outcome, rule({"name": "next"}, topic))[0].starts == (
        WantedStart(TaskSelector("name", "next")),
    )
    assert decide(outcome, rule(ID, "appliance/tasks/+/last"))[0].rejection is not None


def test_options_have_their_documented_defaults() -> None:
    """A rule that says nothing waits for the present run, for a day; debounce has a maximum."""
    assert Trigger(rule(), 1).options == Options()
    assert Trigger(rule(debounce=3.0), 1).options.debounce_max_s == 30.0
    assert Trigger(rule(debounce=3.0, debounce_max=5.0), 1).options.debounce_max_s == 5.0
