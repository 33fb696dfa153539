"""The order of the server's tasks, what a filter hides, and the tree of chains."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine_api import ServerTask, Starter
from appliance.model import Cause, Execution, ExecutionState, Task
from appliance.ui import filter_text, task_list
from appliance.ui.filters import EMPTY

DONE, FAILED, RUNNING = (
    ExecutionState.SUCCEEDED,
    ExecutionState.FAILED,
    ExecutionState.RUNNING,
)


def task(name, *after, **more):
    """A task that is started after others, which have their names as their ids."""
    starters = (Starter("chain", "x", after=tuple((one, "succeeded") for one in after)),)
    return ServerTask(Task(name, name), starters=starters if after else (), **more)


def drawn(tasks, shown=lambda _one: True):
    return [f"{row.branch}{row.item.task.name}" for row in task_list.tree(tasks, shown)]


def test_a_chain_stands_below_its_first_task():
    tasks = [task("a"), task("b", "a"), task("c", "b"), task("d", "a"), task("e")]
    assert drawn(tasks) == ["a", "├ b", "│ └ c", "└ d", "e"]


def test_a_task_after_several_stands_below_each_and_is_followed_once():
    tasks = [task("a"), task("b"), task("c", "a", "b"), task("d", "c")]
    assert drawn(tasks) == ["a", "└ c", "  └ d", "b", "└ ↑ c"]


def test_a_circle_ends_where_it_began():
    tasks = [task("a", "c"), task("b", "a"), task("c", "b"), task("own", "own")]
    assert drawn(tasks) == ["a", "└ b", "  └ c", "    └ ↑ a", "own", "└ ↑ own"]


def test_a_filter_shows_what_leads_to_a_task_that_it_takes():
    tasks = [task("a"), task("b", "a"), task("c", "b"), task("d", "b"), task("e"), task("f", "e")]
    assert drawn(tasks, lambda one: one.task.name == "c") == ["a", "└ b", "  ├ c"]
    assert drawn(tasks, lambda one: one.task.name == "e") == ["e"]
    assert [row.item.task.name for row in task_list.chain_of(tasks, "b")] == ["a", "b", "c", "d"]
    assert [row.item.task.name for row in task_list.chain_of(tasks, "c")] == ["a", "b", "c"]


def test_tasks_that_the_server_does_not_list_are_no_rows():
    """A chain may name a task that the user may not see."""
    assert drawn([task("a", "hidden")]) == ["a"]


def test_a_chain_of_thousands_is_drawn_in_bounded_width():
    count = 3000
    tasks = [task("0"), *(task(str(n), str(n - 1)) for n in range(1, count))]
    rows = task_list.tree(tasks, lambda _one: True)
    assert [row.item.task.name for row in rows] == [str(n) for n in range(count)]
    assert max(len(row.branch) for row in rows) < 30
    assert len(task_list.chain_of(tasks, "7")) == count


NAMES = [str(number) for number in range(6)]


@given(
    st.lists(st.lists(st.sampled_from(NAMES), max_size=3), min_size=6, max_size=6),
    st.sets(st.sampled_from(NAMES)),
)
def test_any_links_make_a_tree_of_every_task_and_every_link(links, wanted):
    """Each task has its followers once, each link one row, and nothing is drawn without end."""
    tasks = [task(name, *before) for name, before in zip(NAMES, links, strict=True)]
    rows = task_list.tree(tasks, lambda _one: True)
    assert {row.item.task.name for row in rows} == set(NAMES)
    assert set(Counter(row.key for row in rows).values()) == {1}
    drawn_links = {row.key for row in rows if row.above}
    assert drawn_links == {
        (one, name) for name, before in zip(NAMES, links, strict=True) for one in before
    }
    # A filter leaves what it takes, and above each row the rows that lead to it.
    shown = task_list.tree(tasks, lambda one: one.task.name in wanted)
    assert {row.item.task.name for row in shown} >= wanted
    depth = 0
    for row in shown:
        assert row.depth <= depth
        depth = row.depth + 1


def run(number, task_id, state, ended_ns=None, began_ns=10):
    return Execution(
        number, task_id, task_id, state, Cause("timer"), began_ns, started_ns=began_ns,
        ended_ns=ended_ns, reason="why",
    )  # fmt: skip


def test_rows_follow_the_executions_between_two_answers():
    """The newest one counts; a later run that the server alone tells of is not taken back."""
    tasks = [
        task("a", state=DONE, since_ns=5, execution=1),
        task("b", state=DONE, since_ns=100, execution=0),
        task("c", state=FAILED, since_ns=100, execution=9),
    ]
    found = task_list.with_news(
        tasks,
        [
            run(3, "a", RUNNING),
            run(2, "a", FAILED, 8),
            run(1, "b", FAILED, 50),
            run(8, "c", DONE, 90),
        ],
    )
    assert [(one.state, one.execution) for one in found] == [(RUNNING, 3), (DONE, 0), (FAILED, 9)]
    (again,) = task_list.with_news(found[:1], [run(3, "a", FAILED, 20)])
    assert (again.state, again.since_ns, again.reason) == (FAILED, 20, "why")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["a", "b", "c"]),
        ("state:failed", ["b"]),
        ("state:bad", ["b"]),
        ("disabled", ["c"]),
        ("never", ["c"]),
        ("!disabled", ["a", "b"]),
        ("plant=north", ["b"]),
        ("nightly", ["a"]),
        ("task:B", ["b"]),
        ("task=nobody", []),
        ("rule:x", ["b"]),
        ("since:1m", ["b"]),
        ("until:1m", ["a", "c"]),
    ],
)
def test_a_filter_asks_for_text_state_task_rule_and_time(text, names):
    minute_ns = 60 * 10**9
    now_ns = 1000 * minute_ns
    tasks = [
        ServerTask(Task("1", "a", tags=("nightly",)), state=DONE, since_ns=now_ns - 5 * minute_ns),
        ServerTask(
            Task("2", "b", properties=(("plant", "north"),)),
            state=FAILED,
            since_ns=now_ns - minute_ns // 2,
            starters=(Starter("rule", "x"),),
        ),
        ServerTask(Task("3", "c", enabled=False)),
    ]
    wanted = filter_text.parse(text, now_ns) if text else EMPTY
    assert [one.task.name for one in tasks if task_list.takes(wanted, one)] == names


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("name", ["a", "B", "c", "d"]),
        ("state", ["B", "c", "a", "d"]),
        ("since", ["c", "B", "a", "d"]),
        ("next", ["d", "a", "B", "c"]),
        ("usual", ["c", "a", "B", "d"]),
        ("starters", ["d", "a", "B", "c"]),
    ],
)
def test_what_needs_attention_comes_first_in_each_order(sort, names):
    tasks = [
        ServerTask(Task("4", "d"), next_ns=7, starters=(Starter("rule", "x"),)),
        ServerTask(Task("3", "c"), state=RUNNING, since_ns=9, usual_s=4.0),
        ServerTask(Task("2", "B"), state=FAILED, since_ns=8),
        ServerTask(Task("1", "a"), state=DONE, since_ns=7),
    ]
    found = task_list.ordered(tasks, sort)
    assert [one.task.name for one in found] == names
