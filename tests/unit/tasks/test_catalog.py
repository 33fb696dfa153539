"""Which tasks a name, tag, property or app means, and which of them the configuration allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.tables import AllowConfig, ByProperty
from appliance.model import APP, ReloadOptions, Task, TaskKind
from appliance.tasks.catalog import AllowList
from appliance.tasks.task_index import TaskIndex, ambiguity, find
from appliance.tasks.invisible import bare
from appliance.tasks.selector import TaskSelector

APP_ID = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"


def task(number: int, name: str = "T", **fields: object) -> Task:
    return Task(f"00000000-0000-0000-0000-00000000000{number}", name, **fields)


def selectors(text: str) -> list[TaskSelector]:
    return [
        TaskSelector("name", text),
        TaskSelector("tag", text),
        TaskSelector("property", text, "plant"),
        TaskSelector("property", "north", text),
        TaskSelector("app", text),
    ]


def with_text(number: int, selector: TaskSelector, text: str) -> Task:
    """A task that has ``text`` where the selector looks."""
    match selector.kind:
        case "name":
            return task(number, text)
        case "tag":
            return task(number, tags=("other", text))
        case "property":
            pair = (selector.key, text) if selector.key == "plant" else (text, selector.value)
            return task(number, properties=(("x", "y"), pair))
        case _:
            return task(number, app_id=APP_ID, app_name=text)


@pytest.mark.parametrize("selector", selectors("Sales"), ids=str)
def test_blanks_around_a_name_do_not_count_where_one_is_meant(selector: TaskSelector) -> None:
    """What matches exactly goes first; case and inner blanks count as ever."""
    spaced, exact = with_text(1, selector, " Sales\u200b"), with_text(2, selector, "Sales")
    others = [with_text(3, selector, text) for text in ("sales", "Sa les", "")]
    assert find(selector, [*others, spaced]) == [spaced]
    assert find(selector, [spaced, exact, *others]) == [exact]
    assert ambiguity(selector, [spaced]) is None
    assert find(selector, others) == []


@pytest.mark.parametrize("selector", selectors("Sales "), ids=str)
def test_two_that_differ_in_blanks_only_are_named_with_their_ids(selector: TaskSelector) -> None:
    """Nothing is chosen: the reason has both."""
    both = [with_text(1, selector, " Sales"), with_text(2, selector, "Sales")]
    assert find(selector, both) == both
    problem = ambiguity(selector, both)
    assert problem is not None
    assert problem.label == "ambiguous"
    assert all(one.id in problem.reason for one in both)
    assert find(selector, [*both, with_text(3, selector, "Sales ")])[0].id.endswith("3")


def test_many_tasks_may_have_one_tag() -> None:
    """Also if that is written with a blank: it is one tag."""
    tagged = [task(1, tags=("nightly",)), task(2, tags=("nightly", "x"))]
    for text in ("nightly", " nightly"):
        selector = TaskSelector("tag", text)
        assert find(selector, tagged) == tagged
        assert ambiguity(selector, tagged) is None


def test_of_an_app_s_tasks_the_one_that_makes_such_a_reload_is_meant() -> None:
    """A task of the app's own goes before the one that the server made for a reload by hand."""
    selector = TaskSelector("app", APP_ID)
    of_app = {"app_id": APP_ID.upper(), "app_name": "Sales"}
    full, partial = task(1, **of_app), task(2, partial=True, **of_app)
    manual = task(3, manual=True, **of_app)
    preload = task(4, kind=TaskKind.PRELOAD, **of_app)
    everything = [manual, preload, partial, full]
    assert find(selector, everything) == [full]
    assert find(selector, everything, ReloadOptions(partial=True)) == [partial]
    assert find(selector, [manual, preload]) == [manual]
    assert find(selector, [preload]) == []
    assert find(selector, [full], ReloadOptions(partial=True)) == [full]
    assert ambiguity(selector, find(selector, [full, task(5, **of_app)])) is not None


APP_TASK = Task(f"{APP}{APP_ID}", "Reload of Sales", app_id=APP_ID, app_name="Sales")


@pytest.mark.parametrize(
    ("allow", "allowed"),
    [
        (AllowConfig(), True),
        (AllowConfig(apps=("Sales",)), True),
        (AllowConfig(apps=(" Sales ",)), True),
        (AllowConfig(apps=(f"{{{APP_ID.upper()}}}",)), True),
        (AllowConfig(apps=("sales",)), False),
        (AllowConfig(tasks=(APP_ID,)), True),
        (AllowConfig(names=("Sales",)), False),
        (AllowConfig(tags=("Sales",)), False),
    ],
)
def test_an_app_without_a_task_is_allowed_by_its_id_or_name(
    allow: AllowConfig, allowed: bool
) -> None:
    """By ``apps``, as a reload task of the app is; by its id also where Qlik Cloud's ids stand."""
    assert AllowList(allow).allows(APP_TASK.id, APP_TASK) is allowed
    with_task = task(1, app_id=APP_ID, app_name="Sales")
    assert AllowList(allow).allows(with_task.id, with_task) is (allowed and not allow.tasks)
    other = task(2, kind=TaskKind.DISTRIBUTE, app_id=APP_ID, app_name="Sales")
    assert not allow.apps or not AllowList(allow).allows(other.id, other)


@pytest.mark.parametrize(
    ("allow", "made"),
    [
        (AllowConfig(names=("Sales",)), lambda text: task(1, text)),
        (AllowConfig(tags=("Sales",)), lambda text: task(1, tags=(text,))),
        (
            AllowConfig(properties=(ByProperty(property="plant", value="Sales"),)),
            lambda text: task(1, properties=(("plant", text),)),
        ),
        (AllowConfig(apps=("Sales",)), lambda text: task(1, app_id=APP_ID, app_name=text)),
    ],
)
def test_the_table_means_what_a_selector_would_mean(allow: AllowConfig, made) -> None:
    """A text with blanks around it is allowed, unless another task has the table's own text."""
    spaced, exact, other = made("Sales "), made("Sales"), made(" Sales")
    allowed = AllowList(allow)
    assert allowed.allows(exact.id, exact, lambda: [spaced, exact])
    assert allowed.allows(spaced.id, spaced, lambda: [spaced, made("other")])
    assert not allowed.allows(spaced.id, spaced, lambda: [spaced, exact])
    assert not allowed.allows(spaced.id, spaced, lambda: [spaced, other])
    assert not allowed.allows(spaced.id, made("sales"), lambda: [made("sales")])


@pytest.mark.parametrize("blank", ["", " ", "\u200b"])
def test_a_blank_entry_allows_nothing(blank: str) -> None:
    """Not the tasks without an app, nor those with a blank name."""
    for allow in (AllowConfig(names=(blank,)), AllowConfig(apps=(blank,))):
        for each in (task(1), task(2, "  "), task(3, app_id=APP_ID, app_name="\u2060")):
            assert not AllowList(allow).allows(each.id, each)


names = st.text(alphabet=" ab\u200b\0", max_size=4)


@given(names, st.lists(names, max_size=5))
def test_what_is_found_has_the_name_but_for_blanks(name: str, others: list[str]) -> None:
    """Exactly if any has it exactly; and if none is found, none has it."""
    tasks = [task(number, each) for number, each in enumerate(others)]
    found = find(TaskSelector("name", name), tasks)
    if name in others:
        assert [one.name for one in found] == [each for each in others if each == name]
    else:
        assert [one.name for one in found] == [each for each in others if bare(each) == bare(name)]


_TEXTS = st.sampled_from(["a", " a", "a\u200b", "A", "b", ""])


@given(
    st.lists(
        st.builds(
            Task,
            st.sampled_from([f"id-{number}" for number in range(5)]),
            _TEXTS,
            tags=st.lists(_TEXTS, max_size=2).map(tuple),
            properties=st.lists(st.tuples(_TEXTS, _TEXTS), max_size=2).map(tuple),
            app_id=_TEXTS,
            app_name=_TEXTS,
            manual=st.booleans(),
            partial=st.booleans(),
        ),
        max_size=5,
        unique_by=lambda one: one.id,
    ),
    st.sampled_from(["id", "name", "tag", "property", "app"]),
    _TEXTS,
    _TEXTS,
    st.booleans(),
)
def test_an_index_finds_what_the_whole_list_has(tasks, kind, text, key, partial) -> None:
    selector, how = TaskSelector(kind, text, key), ReloadOptions(partial=partial)
    assert TaskIndex(tasks).find(selector, how) == find(selector, tasks, how)
