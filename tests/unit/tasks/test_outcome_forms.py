"""``[[outcome]]``: what its topic and payload are for any task, and which tables are refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.reading import loads
from appliance.config.outcome_topics import LONGEST_VALUE, PLACEHOLDERS
from appliance.config.tables import OutcomeConfig, TriggerConfig
from appliance.errors import ConfigError
from appliance.model import OUTCOME_OF, Cause, Execution, ExecutionState, Message
from appliance.model import MessageProperties, Task, TaskKind
from appliance.mqtt.topics import topic_problem
from appliance.qlik.server import FullTask
from appliance.tasks.loops import find_loops
from appliance.tasks.outcome_forms import OutcomeForm, OutcomeForms
from appliance.tasks.verdicts import Triggers

A, B = (f"{letter * 8}-1111-4111-8111-111111111111" for letter in "ab")
FAILED, ABORTED = ExecutionState.FAILED, ExecutionState.ABORTED
HEAD = '[[listener]]\nbind = "127.0.0.1:1883"\n[qlik]\nedition = "simulated"\n'


def ended(state: ExecutionState = FAILED, name: str = "Reload sales", task: str = A) -> Execution:
    cause = Cause("message", 7, "plant/x", "plc-1", "rule")
    return Execution(
        3, task, name, state, cause, 0, execution_id="e-1", started_ns=10**9, ended_ns=3 * 10**9
    )  # fmt: skip


def form(**fields: object) -> OutcomeForm:
    return OutcomeForm(OutcomeConfig(**fields), "appliance")  # type: ignore[arg-type]


def published(execution: Execution, *configs: OutcomeConfig, task: Task | None = None):
    return OutcomeForms(configs, "appliance", lambda _: task).of(execution)


@settings(max_examples=30)
@given(st.text(), st.sampled_from(["out/{task}", "out/{task}/{state}", "out/a-{task}-{app}/z"]))
def test_a_name_is_one_level_of_the_topic_and_no_more(name: str, topic: str) -> None:
    """Whatever the task is called, the topic can be published to and has the levels as written."""
    made = form(topic=topic).topic(ended(name=name), Task(A, name, app_name=name))
    assert topic_problem(made) is None
    assert made.count("/") == topic.count("/")
    assert made.isprintable() or not name.isprintable()
    assert all(made.split("/"))
    assert len(made.encode()) <= len(topic) + 2 * LONGEST_VALUE


@pytest.mark.parametrize(
    ("name", "level"),
    [("a/b+c#d", "a_b_c_d"), ("\0\n", "__"), ("x" * 300, "x" * 199 + "~"), ("ä" * 150, "ä" * 99 + "~"),
     ("Sales 2026 ($)", "Sales 2026 ($)"), ("$SYS", "$SYS")],
)  # fmt: skip
def test_what_stands_for_what_a_level_can_not_have(name: str, level: str) -> None:
    assert form(topic="out/{task}").topic(ended(name=name), None) == f"out/{level}"


@settings(max_examples=30)
@given(st.text(min_size=1))
def test_a_payload_has_the_name_as_it_is(name: str) -> None:
    """What is not text in UTF-8 is replaced; a name without a value is the task's id."""
    sent = name.encode(errors="replace")
    assert form(form="name", topic="a").payload(ended(name=name), None) == sent
    made = form(
        topic="a", fields={"T": "{task}", "n": "{execution}", "s": "{duration}", "x": "{state}!"}
    )
    assert msgspec.json.decode(made.payload(ended(name=name), None)) == {
        "T": sent.decode(), "n": 3, "s": 2.0, "x": "failed!"
    }  # fmt: skip
    assert form(form="task_failure").payload(ended(name=""), None) == A.encode()


def test_the_object_is_that_of_the_task_s_own_topic() -> None:
    """Without ``fields``, and with a text between the values."""
    made = msgspec.json.decode(form(topic="a").payload(ended(), None))
    assert (made["taskName"], made["state"], made["cause"]["seq"]) == ("Reload sales", "failed", 7)
    text = form(form="text", topic="a", text='{"a": 1} {task} {state} {cause}')
    expected = b'{"a": 1} Reload sales failed message 7 on plant/x from plc-1'
    assert text.payload(ended(), None) == expected


BUTLER = ["task_failure", "task_failure_full", "task_aborted", "task_aborted_full"]
MEMBERS = [
    *("hostName", "user", "taskName", "taskId", "appName", "appId", "logTimeStamp", "logLevel"),
    *("executionId", "logMessage", "qs_appTags", "qs_appCustomProperties", "qs_taskTags"),
    *("qs_taskCustomProperties", "qs_taskMetadata"),
]


def test_butlers_forms_need_nothing_but_their_name() -> None:
    """Topics, outcomes and members are those of Butler."""
    forms = [OutcomeConfig(form=one) for one in BUTLER]  # type: ignore[arg-type]
    task = Task(A, "Reload sales", app_id="app-1", app_name="Sales", tags=("nightly",))
    failed = published(ended(FAILED), *forms, task=task)
    aborted = published(ended(ABORTED), *forms, task=task)
    assert [one.topic for one in (*failed, *aborted)] == [f"qliksense/{one}" for one in BUTLER]
    assert failed[0].payload == aborted[0].payload == b"Reload sales"
    first, second = (msgspec.json.decode(one[1].payload) for one in (failed, aborted))
    assert list(first) == MEMBERS
    assert list(second) == [*MEMBERS, "qs_appMetadata"]
    assert (first["appName"], first["qs_taskTags"], first["qs_taskMetadata"]) == (
        "Sales",
        ["nightly"],
        {},
    )
    assert not any(one.retain for one in failed)
    assert {one.task for one in failed} == {A}


def test_butlers_full_form_has_the_server_s_rows() -> None:
    row = {
        "id": A,
        "tags": [{"name": "x"}],
        "customProperties": [{"value": "north", "definition": {"name": "plant"}}],
    }
    app = {"id": "app-1", "tags": [{"name": "y"}], "customProperties": []}
    made = msgspec.json.decode(
        form(form="task_aborted_full").payload(ended(ABORTED), None, FullTask(row, app))
    )
    assert made["qs_taskMetadata"] == row
    assert made["qs_appMetadata"] == app
    assert (made["qs_taskTags"], made["qs_appTags"]) == (["x"], ["y"])
    assert made["qs_taskCustomProperties"] == [{"name": "plant", "value": "north"}]


def test_an_outcome_concerns_what_it_says() -> None:
    """States and tasks; Butler's forms only reloads that the server began."""
    own = OutcomeConfig(topic="a", on=("succeeded", "lost"), tasks=("reload *", B))
    assert published(ended(ExecutionState.SUCCEEDED), own)
    assert published(ended(ExecutionState.LOST, name="other", task=B), own)
    assert not published(ended(FAILED), own)
    assert not published(ended(ExecutionState.SUCCEEDED, name="Load"), own)
    butler = OutcomeConfig(form="task_aborted")
    assert not published(msgspec.structs.replace(ended(ABORTED), execution_id=""), butler)
    other = Task(A, "Clean", TaskKind.EXTERNAL_PROGRAM)
    assert not published(ended(ABORTED), butler, task=other)
    assert published(ended(ABORTED), OutcomeConfig(topic="a", on=("aborted",)), task=other)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('form = "name"', "`topic`: this key is missing"),
        ('topic = "a/{tsak}"', "{tsak} is no placeholder; did you mean {task}?"),
        ('topic = "a/{log}"', "{log} is no placeholder"),
        ('topic = "{task}/a"', "its first level has no placeholder"),
        ('topic = "a/+/{task}"', "no wildcards"),
        ('topic = "$SYS/{task}"', "belong to the broker"),
        ('topic = "appliance/{task}"', "the appliance's own"),
        ('topic = "a' + "/{task}" * 6 + '"', "max_topic_length is 1024"),
        ('topic = "a' + "/b" * 40 + '"', "more than 30 levels"),
        ('form = "text"\ntopic = "a"', "`text`: this key is missing"),
        ('topic = "a"\ntext = "x"', 'it belongs to form = "text"'),
        ('form = "name"\ntopic = "a"\nfields = {a = "b"}', 'it belongs to form = "json"'),
        ('topic = "a"\nfields = {}', "it has no member"),
        ('topic = "a"\nfields = {a = "{x}"}', "{x} is no placeholder"),
        ('form = "task_failures"', 'did you mean "task_failure"?'),
        ('form = "task_failure"\non = ["fail"]', 'did you mean "failed"?'),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_the_way_out(table: str, said: str) -> None:
    with pytest.raises(ConfigError) as found:
        loads(f"{HEAD}[[outcome]]\n{table}\n")
    assert said in str(found.value)


def message(topic: str, payload: bytes, task: str = A, client: str = "$appliance") -> Message:
    properties = MessageProperties(user_properties=((OUTCOME_OF, task),) if task else ())
    return Message(9, 1, topic, payload, client_id=client, properties=properties.encoded())


def test_a_rule_takes_an_outcome_only_if_it_names_its_task() -> None:
    """Else a rule for Butler's topics would start the failed task again, for ever."""

    def starts(rule: TriggerConfig, of: Message) -> bool:
        decisions = Triggers([rule], service_name="appliance").decide(of)
        return any(one.starts for one in decisions)

    failure = message("qliksense/task_failure_full", b'{"taskId": "%s"}' % A.encode())
    by_payload = TriggerConfig(topic="qliksense/#", task="payload")
    assert not starts(by_payload, failure)
    assert not starts(TriggerConfig(topic="#", task=B), failure)
    assert starts(TriggerConfig(topic="qliksense/+", task=B), failure)
    assert not starts(TriggerConfig(topic="qliksense/+", task=A), failure)
    # What a client says of itself marks nothing.
    assert starts(by_payload, message("qliksense/x", A.encode(), client="plc-1"))


def looped(outcome: str, *rules: str) -> list[str]:
    tables = "".join(f"[[trigger]]\n{one}\n" for one in rules)
    return [one.text for one in find_loops(loads(f"{HEAD}[[outcome]]\n{outcome}\n{tables}"))]


def test_a_loop_over_such_topics_is_found() -> None:
    """By topic, state, and what the payload is known to say."""
    both = [f'topic = "qliksense/task_failure"\ntask = "{task}"' for task in (A, B)]
    (text,) = looped('form = "task_failure"', *both)
    assert "is failed" in text
    assert not looped('form = "task_failure"', both[0])
    assert not looped('form = "task_aborted"', *both)
    by_id = [f'topic = "out/{one}"\ntask = "{two}"' for one, two in ((A, B), (B, A))]
    assert looped('topic = "out/{task_id}"', *by_id)
    assert not looped('topic = "out/{task_id}"', by_id[0])
    json = [f'topic = "out/+"\ntask = "{one}"\nwhen = {{state = "failed"}}' for one in (A, B)]
    assert looped('topic = "out/{task_id}"', *json)
    assert not looped('topic = "out/{task_id}"\non = ["succeeded"]', *json)
    assert not looped('topic = "out/{task_id}"\nfields = {s = "{state}"}', *json)
    mixed = f'topic = "appliance/tasks/{B}/last"\ntask = "{A}"\nwhen = {{state = "failed"}}'
    assert looped('form = "task_failure"', both[1], mixed)


def test_every_placeholder_has_a_value_in_a_topic() -> None:
    topic = "out/" + ".".join(f"{{{name}}}" for name in PLACEHOLDERS)
    assert topic_problem(form(topic=topic).topic(ended(), None)) is None


def test_a_defect_with_one_table_silences_no_other(monkeypatch) -> None:
    """It is set aside by name; what the others tell goes out."""
    aside: list[str] = []
    forms = OutcomeForms(
        [OutcomeConfig(form="task_failure_full"), OutcomeConfig(form="task_failure")],
        "appliance",
        lambda _: None,
        set_aside=aside.append,
    )
    late = msgspec.structs.replace(ended(), ended_ns=10**30)
    assert [one.topic for one in forms.of(late)] == []
    monkeypatch.setattr(OutcomeForm, "payload", payload_of_names)
    assert [one.topic for one in forms.of(ended())] == ["qliksense/task_failure"]
    assert aside == [f"[[outcome]] {number} about execution 3" for number in (1, 2, 1)]


def payload_of_names(form: OutcomeForm, execution: Execution, *_more: object) -> bytes:
    assert form.is_name
    return execution.task_name.encode()
