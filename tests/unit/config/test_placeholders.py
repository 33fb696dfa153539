"""Texts with placeholders: what is replaced, and what is said of a name that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.placeholders import OF_EXECUTIONS, read_template
from appliance.model import Cause, Execution, ExecutionState, Task
from appliance.tasks.placeholder_values import values_of

NAMES = ("task", "state")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{task} {state}", "Sales failed"),
        ('{"task": "{task}", "n": {1}}', '{"task": "Sales", "n": {1}}'),
        ("{ task } {} {{task}}", "{ task } {} {Sales}"),
        ("", ""),
        ("{task.__class__} {task[0]} {task!r} {task:>9}",) * 2,
    ],
)
def test_names_in_braces_are_replaced_and_nothing_else(text: str, filled: str) -> None:
    """No attribute, index, conversion or format of a value: only whole names."""
    assert read_template(text, NAMES).fill({"task": "Sales", "state": "failed"}) == filled


@given(value=st.text(), text=st.text())
def test_a_value_is_put_in_as_it_is(value: str, text: str) -> None:
    """Braces in a value of others mean nothing."""
    template = read_template(text.replace("{", "") + "{task}", NAMES)
    assert template.fill({"task": value}) == text.replace("{", "") + value
    assert template.names == {"task"}


def test_an_unknown_name_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match=r"^\{tsak\} is no placeholder; did you mean \{task\}\?$"):
        read_template("{tsak}", NAMES)
    with pytest.raises(ValueError, match=r"\{Task\} .* did you mean \{task\}"):
        read_template("{Task}", NAMES)
    with pytest.raises(ValueError, match=r"\{zzz\} is no placeholder; there are \{task\}, \{st"):
        read_template("{zzz}", NAMES)


def test_each_documented_name_has_a_value() -> None:
    """As text, with and without a task that the server lists."""
    cause = Cause("message", 7, "plant/x", "$bridge/site")
    execution = Execution(
        3, "t", "", ExecutionState.FAILED, cause, 0, started_ns=10**9, ended_ns=2 * 10**9
    )
    found = values_of(execution, Task("t", "Sales", app_name="Shop"), "appliance")
    assert found.keys() == OF_EXECUTIONS.keys() == values_of(execution, None, "").keys()
    template = read_template("{task}|{app}|{duration}|{cause}|{client}|{ended}|{node}", found)
    assert template.fill(found) == (
        "Sales|Shop|1.0|message 7 on plant/x from bridge site|bridge site|1970-01-01T00:00:02.000Z|"
    )


def test_the_page_has_each_placeholder() -> None:
    page = (Path(__file__).parents[3] / "docs" / "triggers.md").read_text(encoding="utf-8")
    table = page.partition("| placeholder | |\n|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [
        f"| `{{{name}}}` | {meaning} |" for name, meaning in OF_EXECUTIONS.items()
    ]
