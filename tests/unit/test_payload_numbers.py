"""The numbers in a payload: each has a path that leads to it, in the form of the recorders."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.value_path import MAX_STEPS, parse_path
from sparkplug_payloads import part, whole

from appliance.payload_numbers import MAX_DEPTH, MAX_NUMBERS, MAX_PATH, numbers_in


def test_numbers_are_found_at_any_depth() -> None:
    payload = b'{"t": 21.5, "ok": true, "name": "x", "text": "7.25", "none": null, "list": [{"a": 1}, 2], "a.b": {"c d": -3}}'
    assert numbers_in(payload) == {
        "t": 21.5, "ok": 1.0, "text": 7.25, "list[0].a": 1.0, "list[1]": 2.0, '"a.b"."c d"': -3.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "number"),
    [
        (b"21.5", 21.5),
        (b" +3 ", 3.0),
        (b"-.5e3", -500.0),
        (b"true", 1.0),
        (b'"12"', 12.0),
        (b"007", 7.0),
    ],
)
def test_a_plain_payload_is_a_number_itself(payload: bytes, number: float) -> None:
    assert numbers_in(payload) == {"$": number}


@pytest.mark.parametrize(
    "payload",
    [b"", b"on", b"1,5", b"nan", b"Infinity", b"1e999", b"12 bar", b"\xff\xfe", b"1_000", b"[" * 100_000, b"9" * 5000,
     b'{"a": 1e999}', b'{"a": "inf"}', b"1e300", b"-1.7e308", "\u0661".encode()],
)  # fmt: skip
def test_what_is_no_number_gives_none(payload: bytes) -> None:
    assert numbers_in(payload) == {}


def test_the_numbers_are_bounded() -> None:
    assert (
        len(numbers_in(json.dumps({f"k{n}": n for n in range(10 * MAX_NUMBERS)}).encode()))
        == MAX_NUMBERS
    )
    assert len(numbers_in(json.dumps([[1] * 300] * 300).encode())) == MAX_NUMBERS
    assert MAX_DEPTH < MAX_STEPS


def test_the_paths_are_bounded() -> None:
    """Each number below a key repeats the key, which may be as long as the payload."""
    one_key = json.dumps({"k" * 100_000: list(range(MAX_NUMBERS)), "short": 1}).encode()
    assert numbers_in(one_key) == {"short": 1.0}
    deep: object = 1
    for _ in range(MAX_DEPTH - 1):
        deep = {"k" * (MAX_PATH // 2): deep}
    assert numbers_in(json.dumps({"deep": deep, "short": 1}).encode()) == {"short": 1.0}
    alias = part(2, whole(2, 7) + whole(4, 3) + whole(10, 1))
    assert numbers_in(alias, is_sparkplug=True, names={7: "n" * 100_000}) == {}


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(_values)
def test_each_path_leads_to_its_number(value: object) -> None:
    """Read as a recorder reads it, which has its own code for paths."""
    payload = json.dumps(value).encode()
    for path, number in numbers_in(payload).items():
        assert math.isfinite(number)
        found: object = json.loads(payload)
        for step in parse_path(path):
            found = found[step]  # type: ignore[index]
        assert float(found) == number  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=50), st.booleans())
def test_any_bytes_give_finite_numbers_or_none(payload: bytes, is_sparkplug: bool) -> None:
    assert all(map(math.isfinite, numbers_in(payload, is_sparkplug=is_sparkplug).values()))
