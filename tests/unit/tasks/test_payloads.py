"""What a payload may say, and that nothing else starts anything."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tasks.payloads import MAX_PAYLOAD, MAX_SELECTORS, Rejection, read_selectors
from appliance.tasks.selector import TaskSelector, task_id

ID = "8d31c0f8-0d36-4a0a-a8b4-3b0f6f2c5d10"
OTHER = "0b8fa8d5-3b3f-4b3e-9d7c-1c2d3e4f5a6b"
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
                ["taskId", "taskName", "tag", "customProperty", "type", "payload", "name", "value"]
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
            assert selector.value.strip() == selector.value != ""


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
