"""What a payload may say, and that nothing else starts anything."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model import ReloadOptions
from appliance.tasks.together import parts_of, together
from appliance.tasks.payloads import (
    MAX_PAYLOAD,
    MAX_SELECTORS,
    Rejection,
    WantedStart,
    read_payload,
)
from appliance.tasks.selector import TaskSelector, task_id

ID = "8d31c0f8-0d36-4a0a-a8b4-3b0f6f2c5d10"
OTHER = "0b8fa8d5-3b3f-4b3e-9d7c-1c2d3e4f5a6b"


def read_selectors(payload: bytes) -> tuple[TaskSelector, ...] | Rejection:
    answer = read_payload(payload)
    if isinstance(answer, Rejection):
        return answer
    return tuple(one.selector for one in answer.starts)


GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24}")
"""Or the other form of ids of Qlik Cloud."""


@pytest.mark.parametrize(
    "payload", ["{}", " {}\n", '"{}"', '{{"taskId": "{}"}}', '["{}"]', '[{{"taskId": "{}"}}]']
)
@pytest.mark.parametrize("task", ["673f0c21a7d94e5b8c10f2bb", "673F0C21A7D94E5B8C10F2BB"])
def test_an_id_of_qlik_cloud_may_have_24_digits(payload: str, task: str) -> None:
    """In each place where a GUID may stand."""
    wanted = (TaskSelector("id", "673f0c21a7d94e5b8c10f2bb"),)
    assert read_selectors(payload.format(task).encode()) == wanted


@pytest.mark.parametrize(
    "payload",
    [
        ID,
        ID.upper(),
        f"  {ID}\r\n",
        f"{{{ID}}}",
        f"\ufeff{ID}",
        f'"{ID}"',
        f'{{"taskId": "{ID}"}}',
        f'{{"taskId": "{ID.upper()}", "sentBy": "line 7"}}',
        f'["{ID}"]',
        f'[{{"taskId": "{ID}"}}, "{ID}"]',
        f'[{{"type": "starttaskid", "payload": {{"taskId": "{ID}"}}}}]',
        f'{{"type": "starttaskid", "payload": {{"taskId": "{ID}"}}}}',
    ],
)
def test_every_documented_way_to_write_an_id_names_the_same_task(payload: str) -> None:
    """An id may be bare, in any case, with blanks or braces, or in JSON: it is the same task."""
    assert read_selectors(payload.encode()) == (TaskSelector("id", ID),)


@pytest.mark.parametrize(
    ("payload", "selector"),
    [
        ({"taskName": "Reload sales"}, TaskSelector("name", "Reload sales")),
        ({"tag": "nightly"}, TaskSelector("tag", "nightly")),
        ({"app": "Sales"}, TaskSelector("app", "Sales")),
        ({"app": ID.upper()}, TaskSelector("app", ID)),
        ({"appId": f"{{{ID.upper()}}}"}, TaskSelector("app", ID)),
        ({"taskName": "Reload sales", "appId": OTHER}, TaskSelector("name", "Reload sales")),
        ({"taskName": " Reload sales "}, TaskSelector("name", " Reload sales ")),
        (
            {"customProperty": {"name": "plant", "value": "north"}},
            TaskSelector("property", "north", "plant"),
        ),
        ({"type": "starttasktag", "payload": {"tag": "nightly"}}, TaskSelector("tag", "nightly")),
        (
            {
                "type": "starttaskcustomproperty",
                "payload": {"customPropertyName": "plant", "customPropertyValue": "north"},
            },
            TaskSelector("property", "north", "plant"),
        ),
    ],
)
def test_tasks_may_be_named_by_name_tag_and_property(payload: dict, selector: TaskSelector) -> None:
    """Each documented object form means what the documentation says, alone and in a list."""
    assert read_selectors(json.dumps(payload).encode()) == (selector,)
    assert read_selectors(json.dumps([payload, ID]).encode()) == (selector, TaskSelector("id", ID))


def test_a_list_starts_each_of_its_tasks_once() -> None:
    """A task that a list names twice is wanted once; the order is kept."""
    assert read_selectors(json.dumps([OTHER, ID, OTHER.upper()]).encode()) == (
        TaskSelector("id", OTHER),
        TaskSelector("id", ID),
    )


@pytest.mark.parametrize(
    ("payload", "label"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"hello", "not a task id"),
        (b"\xff\xfe", "not text"),
        (b"42", "not a task id"),
        (b"null", "not a task id"),
        (b"[]", "empty list"),
        (b"{}", "names no task"),
        (ID.encode() + b"0", "not a task id"),
        (f"{ID} {OTHER}".encode(), "not a task id"),
        (f'["{ID}", "nonsense"]'.encode(), "not a task id"),
        (f'[["{ID}"]]'.encode(), "not a task id"),
        (f'{{"taskId": ["{ID}"]}}'.encode(), "not a task id"),
        (f'{{"taskId": "{ID}", "tag": "x"}}'.encode(), "ambiguous"),
        (b'{"tag": ""}', "bad tag"),
        (b'{"tag": 3}', "bad tag"),
        (b'{"customProperty": {"name": "a"}}', "bad value"),
        (b'{"customProperty": "a"}', "bad property"),
        (b'{"appId": "Sales"}', "not an app id"),
        (b'{"app": 7}', "bad app"),
        (f'{{"app": "Sales", "appId": "{ID}"}}'.encode(), "ambiguous"),
        (b'{"tasks": []}', "empty list"),
        (f'{{"tasks": "{ID}"}}'.encode(), "bad tasks"),
        (f'{{"tasks": [{{"tasks": ["{ID}"]}}]}}'.encode(), "names no task"),
        (f'{{"tasks": ["{ID}"], "allOrNothing": "yes"}}'.encode(), "bad allOrNothing"),
        (b'{"type": "keyvaluestore", "payload": {}}', "unknown type"),
        (b'{"type": [], "payload": {}}', "unknown type"),
        (b"00000000-0000-0000-0000-000000000000", "zero id"),
        (b"{" + ID.encode(), "not a task id"),
        (b"[" * 100_000, "too long"),
        (b"[" * 60_000, "not a task id"),
        (b"x" * (MAX_PAYLOAD + 1), "too long"),
        (json.dumps([ID] * (MAX_SELECTORS + 1)).encode(), "too many"),
        (("'" + ID + "'").encode(), "not a task id"),
        (ID.replace("8", "\u0668", 1).encode(), "not a task id"),
    ],
)
def test_anything_else_is_rejected_with_a_reason(payload: bytes, label: str) -> None:
    """What is not a documented form starts nothing, and the reason says what to send instead."""
    answer = read_selectors(payload)
    assert isinstance(answer, Rejection)
    assert answer.label == label
    assert answer.reason.endswith((".", ")"))
    assert len(answer.label) <= 16


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.sampled_from([ID, OTHER.upper()]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("taskId", "taskName", "tag", "customProperty", "type", "payload", "name"),
                    *("value", "tasks", "allOrNothing", "app", "appId", "partial", "variables"),
                ]
            )
            | st.text(max_size=10),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_payload_raises_and_only_guids_are_ids(payload: bytes) -> None:
    """Any payload is understood or rejected; an id that goes to the server is a GUID."""
    answer = read_selectors(payload)
    if isinstance(answer, Rejection):
        assert answer.label
        assert answer.reason
        return
    assert 0 < len(answer) <= MAX_SELECTORS
    for selector in answer:
        if selector.kind == "id":
            assert GUID.fullmatch(selector.value)
        else:
            assert selector.value.strip() != ""


@given(st.text(max_size=60))
def test_a_task_id_has_one_form(text: str) -> None:
    """Reading an id twice gives the same as reading it once."""
    found = task_id(text)
    assert found is None or (GUID.fullmatch(found) and task_id(found) == found)


@pytest.mark.parametrize(
    "payload",
    [
        f"{ID}\0",
        f"\ufeff{ID}",
        f"{ID}\u200b",
        f' \ufeff{{"taskId":"{ID}"}}\0\0\n',
        f'{{"taskId":"\u200b{ID}\u2060"}}',
    ],
)
def test_invisible_characters_around_do_not_count(payload: str) -> None:
    """Embedded clients send a NUL at the end; ids that are copied have a zero-width space."""
    assert read_selectors(payload.encode()) == (TaskSelector("id", ID),)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
def test_utf_16_is_named_or_refused_as_no_text(encoding: str) -> None:
    """Nothing starts, and the reason says what the payload is."""
    answer = read_selectors(ID.encode(encoding))
    assert isinstance(answer, Rejection)
    assert answer.label == "not text"


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"partial": True}, ReloadOptions(partial=True)),
        ({"partial": None, "variables": None}, ReloadOptions()),
        ({"partial": False, "variables": {}}, ReloadOptions()),
        (
            {"variables": {"vDay": "2026-11-29", "a": 7, "b": 0.5}},
            ReloadOptions(variables=(("a", "7"), ("b", "0.5"), ("vDay", "2026-11-29"))),
        ),
    ],
)
@pytest.mark.parametrize(
    "task",
    [
        {"taskId": ID},
        {"taskName": "Sales"},
        {"tag": "nightly"},
        {"customProperty": {"name": "plant", "value": "north"}},
    ],
)
def test_an_object_may_say_how_its_task_is_reloaded(
    task: dict, fields: dict, options: ReloadOptions
) -> None:
    """Beside each way to name tasks, alone, in a list and in Butler's form."""
    alone = read_payload(json.dumps(task | fields).encode())
    listed = read_payload(json.dumps([task | fields, OTHER]).encode())
    assert [one.reload for one in alone.starts] == [options]
    assert [one.reload for one in listed.starts] == [options, ReloadOptions()]
    butler = {"type": "starttaskid", "payload": {"taskId": ID} | fields}
    assert [one.reload for one in read_payload(json.dumps(butler).encode()).starts] == [options]


def test_what_a_payload_says_goes_before_what_the_rule_says() -> None:
    """Name by name: the rule's other variables stay."""
    rule = ReloadOptions(partial=True, variables=(("a", "1"), ("b", "2")))
    payload = json.dumps({"taskId": ID, "partial": False, "variables": {"b": "9", "c": "3"}})
    (start,) = read_payload(payload.encode(), rule).starts
    assert start.reload == ReloadOptions(variables=(("a", "1"), ("b", "9"), ("c", "3")))
    assert [one.reload for one in read_payload(ID.encode(), rule).starts] == [rule]
    assert [one.reload for one in read_payload(f'["{ID}"]'.encode(), rule).starts] == [rule]


def test_one_task_in_a_list_is_wanted_once_for_each_way_to_reload_it() -> None:
    """The same task with other variables is another reload."""
    items = [{"taskId": ID, "variables": {"a": each}} for each in ("1", "2", "1")]
    assert len(read_payload(json.dumps(items).encode()).starts) == 2


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"partial": "yes"}, "bad partial"),
        ({"partial": 1}, "bad partial"),
        ({"variables": []}, "bad variables"),
        ({"variables": {"a": True}}, "bad variables"),
        ({"variables": {"a": None}}, "bad variables"),
        ({"variables": {"a": ["x"]}}, "bad variables"),
        ({"variables": {"": "x"}}, "bad variables"),
        ({"variables": {"a" * 257: "x"}}, "bad variables"),
        ({"variables": {"a": "x" * 257}}, "bad variables"),
        ({"variables": {str(number): "x" for number in range(21)}}, "bad variables"),
    ],
)
def test_what_qlik_would_not_take_is_rejected_before_it_is_asked(fields: dict, label: str) -> None:
    """The limits are Qlik's: 20 variables, 256 characters of a name and of a value."""
    answer = read_payload(json.dumps({"taskId": ID} | fields).encode())
    assert isinstance(answer, Rejection)
    assert answer.label == label
    assert answer.reason.endswith(".")
    most = {f"{number:0256}": "x" * 256 for number in range(20)}
    (start,) = read_payload(json.dumps({"taskId": ID, "variables": most}).encode()).starts
    assert len(start.reload.variables) == 20
    rule = ReloadOptions(variables=(("one more", "x"),))
    assert isinstance(
        read_payload(json.dumps({"taskId": ID, "variables": most}).encode(), rule), Rejection
    )


@pytest.mark.parametrize(
    ("payload", "all_or_nothing"),
    [
        ({"tasks": [ID, {"tag": "nightly"}]}, False),
        ({"tasks": [ID, {"tag": "nightly"}], "allOrNothing": False}, False),
        ({"tasks": [ID, {"tag": "nightly"}], "allOrNothing": True}, True),
        ({"tasks": [ID, {"tag": "nightly"}], "allOrNothing": None}, False),
        ([ID, {"tag": "nightly"}], False),
    ],
)
def test_a_list_may_be_wanted_all_or_nothing(payload: object, all_or_nothing: bool) -> None:
    """The list stands in an object then; ``partial`` and ``variables`` there are for each item."""
    request = read_payload(json.dumps(payload).encode())
    selectors = [TaskSelector("id", ID), TaskSelector("tag", "nightly")]
    assert [one.selector for one in request.starts] == selectors
    assert request.all_or_nothing is all_or_nothing
    if isinstance(payload, dict):
        request = read_payload(json.dumps(payload | {"partial": True}).encode())
        assert all(one.reload.partial for one in request.starts)


def test_an_object_that_names_a_task_means_that_task_whatever_else_it_has() -> None:
    """``tasks`` and ``appId`` beside a task are other keys, as they always were."""
    payload = {"taskId": ID, "tasks": [OTHER], "app": "Sales", "appId": OTHER}
    assert read_selectors(json.dumps(payload).encode()) == (TaskSelector("id", ID),)


@given(
    st.lists(
        st.builds(
            WantedStart,
            st.builds(
                TaskSelector,
                st.sampled_from(["id", "name", "tag", "property", "app"]),
                st.text(max_size=10),
                st.text(max_size=5),
            ),
            st.builds(
                ReloadOptions,
                st.booleans(),
                st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3).map(
                    tuple
                ),
            ),
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_several_starts_as_one_come_apart_as_they_were(
    starts: list[WantedStart], partial: bool
) -> None:
    """Whatever the names are; what is stored is read again."""
    own = ReloadOptions(partial)
    one = together(starts, own)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(one.selector), type=TaskSelector)
    assert parts_of(stored, own) == tuple(starts)
