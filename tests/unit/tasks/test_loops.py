"""Chains that never end are found before they run, and no other chain is taken for one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.reading import loads
from appliance.config.tables import TriggerConfig
from appliance.model import Cause, Execution, ExecutionState, Message, Task
from appliance.tasks.loops import find_loops
from appliance.tasks.outcomes import describe
from appliance.tasks.verdicts import Triggers

A, B, C = (f"{letter * 8}-1111-4111-8111-111111111111" for letter in "abc")
HEAD = """
[[listener]]
bind = "127.0.0.1:1883"
[qlik]
edition = "simulated"
"""


def configured(*triggers: str, more: str = ""):
    tables = "".join(f"[[trigger]]\n{text}\n" for text in triggers)
    return loads(HEAD + more + tables)


def rule(topic: str, task: str, when: str = "", name: str = "") -> str:
    named = f'\nname = "{name}"' if name else ""
    return f'topic = "appliance/tasks/{topic}"\ntask = {task}{named}' + (
        f"\nwhen = {when}" if when else ""
    )


def id_(task: str) -> str:
    return f'"{task}"'


DONE, BAD = '{state = "succeeded"}', '{state = "failed"}'


@pytest.mark.parametrize(
    ("triggers", "numbers", "said"),
    [
        ([rule(f"{A}/last", id_(B)), rule(f"{B}/last", id_(A))], {1, 2}, f"task {A} starts task {B} ([[trigger]] 1)"),
        ([rule(f"{A}/last", id_(B), DONE), rule(f"{B}/execution", id_(A), '{state = "running"}')],
         {1, 2}, "as long as each of them is succeeded"),
        ([rule(f"{A}/last", id_(B)), rule(f"{B}/last", id_(C)), rule(f"{C}/+", id_(A))], {1, 2, 3}, ""),
        ([rule("+/last", '{name = "One"}', name="first"), rule("+/last", '{name = "Two"}')], {1, 2},
         'task "Two" starts task "One" ([[trigger]] 1 first); its outcome starts task "Two" ([[trigger]] '
         "2), and so on"),
        ([rule("#", '{tag = "nightly"}')], {1},
         'an outcome of a task with tag "nightly" starts another one ([[trigger]] 1), and so on'),
        ([rule("+/last", '{name = "One"}', DONE), rule("+/last", '{tag = "nightly"}')], {2}, ""),
        ([rule("+/last", id_(A)), rule("+/last", id_(B), BAD)], {1, 2}, "is failed"),
    ],
)  # fmt: skip
def test_a_loop_is_spelled_out(triggers, numbers, said) -> None:
    """Each step of the loop is named with its trigger."""
    (found,) = find_loops(configured(*triggers))
    assert found.triggers == numbers
    assert said in found.text


@pytest.mark.parametrize(
    "triggers",
    [
        [rule(f"{A}/last", id_(B)), rule(f"{B}/last", id_(C))],
        [rule(f"{A}/last", id_(A))],
        [rule("+/last", '{name = "One"}')],
        [rule(f"{A}/last", id_(B), DONE), rule(f"{B}/last", id_(A), BAD)],
        [rule(f"{A}/last", id_(B), '{"cause.kind" = "timer"}'), rule(f"{B}/last", id_(A))],
        [rule(f"{A}/last", id_(B), '{payload = "Online"}'), rule(f"{B}/last", id_(A))],
        [rule("+/last", '"payload"'), rule(f"{A}/last", id_(B))],
        [
            rule("+/last", '{name = "One"}', '{taskName = "Two"}'),
            rule("+/last", '{name = "Two"}', '{taskName = {matches = "^Load "}}'),
        ],
        ['topic = "#"\ntask = {tag = "nightly"}'],
    ],
)
def test_what_ends_is_no_loop(triggers) -> None:
    """A chain with an end, a task that would start itself, and a repetition that success ends."""
    assert find_loops(configured(*triggers)) == []


def test_the_allow_list_ends_a_loop() -> None:
    """A task that may not be started is no part of a chain."""
    triggers = rule(f"{A}/last", id_(B)), rule(f"{B}/last", id_(A))
    assert find_loops(configured(*triggers, more=f'[allow]\ntasks = ["{A}"]\n')) == []


def test_the_servers_list_says_what_names_and_tags_mean() -> None:
    """A tag of one task is no loop; a name that is the id of another filter is one."""
    by_tag = configured(rule("+/last", '{tag = "nightly"}'))
    assert find_loops(by_tag, [Task(A, "One", tags=("nightly",)), Task(B, "Two")]) == []
    assert find_loops(
        by_tag, [Task(A, "One", tags=("nightly",)), Task(B, "Two", tags=("nightly",))]
    )
    by_name = configured(rule(f"{A}/last", '{name = "Two"}'), rule(f"{B}/last", '{name = "One"}'))
    assert find_loops(by_name) == []
    (found,) = find_loops(by_name, [Task(A, "One"), Task(B, "Two")])
    assert 'task "One" starts task "Two"' in found.text


@pytest.mark.campaign
def test_hundreds_of_rules_are_looked_through_at_once() -> None:
    """A large configuration costs moments, and the number of warnings is bounded."""
    triggers = [rule("+/last", f'{{name = "Task {number}"}}') for number in range(200)]
    assert len(find_loops(configured(*triggers))) <= 10


ON_THE_WAY = ("requested", "starting", "queued", "running")
STATES = ("succeeded", "failed", "aborted", "running")
RULES = st.lists(
    st.tuples(
        st.sampled_from(
            [f"{task}/{leaf}" for task in (A, B, C, "+") for leaf in ("last", "execution")]
        ),
        st.sampled_from([A, B, C]),
        st.sampled_from([None, *STATES]),
    ),
    max_size=5,
)


def goes_on_for_ever(triggers: Triggers, outcome: str) -> bool:
    """By the engine's own decisions, if each run ends with this outcome."""
    ended = {A, B, C}
    for _ in range(4):  # a chain of three tasks that ends has no fourth step
        ended = {
            one.selector.value
            for task in ended
            for leaf, state in [
                ("last", outcome),
                *(("execution", each) for each in (*ON_THE_WAY, outcome)),
            ]
            for decision in triggers.decide(message(task, leaf, state))
            for one in decision.starts
        }
    return bool(ended)


def message(task: str, leaf: str, state: str) -> Message:
    execution = Execution(1, task, "", ExecutionState(state), Cause("message", seq=1), 0)
    return Message(1, 0, f"appliance/tasks/{task}/{leaf}", msgspec.json.encode(describe(execution)),
                   client_id="$appliance")  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(RULES)
def test_loops_are_those_that_the_engine_would_run(rules) -> None:
    """For any rules about three tasks, a loop is found exactly if the engine would never end."""
    tables = tuple(
        TriggerConfig(topic=f"appliance/tasks/{topic}", task=task,
                      when=None if state is None else {"state": state})
        for topic, task, state in rules
    )  # fmt: skip
    config = msgspec.structs.replace(configured(), trigger=tables)
    triggers = Triggers(tables, service_name="appliance")
    real = any(goes_on_for_ever(triggers, state) for state in ("succeeded", "failed", "aborted"))
    assert bool(find_loops(config)) == real
