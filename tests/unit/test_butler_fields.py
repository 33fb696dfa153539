"""Butler's coercions: what fits another type is turned into it, as JavaScript and Ajv do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.http_api.butler.errors import ButlerError
from appliance.http_api.butler.fields import (
    boolean_of,
    integer_of,
    list_of,
    number_of,
    number_text,
    text_of,
    texts_of,
)
from appliance.http_api.butler.start_body import read_items


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (-0.0, "0"), (2.0, "2"), (-2.5, "-2.5"), (0.1, "0.1"), (1e-6, "0.000001"),
        (1e-7, "1e-7"), (-1.5e-9, "-1.5e-9"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
        (1.25e300, "1.25e+300"), (5e-324, "5e-324"), (123456.789, "123456.789"),
        (9007199254740993, "9007199254740993"), (10**400, "Infinity"), (-(10**400), "-Infinity"),
    ],
)  # fmt: skip
def test_a_number_is_written_as_javascript_does(number, text):
    assert number_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_number_is_that_number(number):
    assert float(number_text(number)) == number


@given(st.integers(max_value=2**63 - 1, min_value=-(2**63) + 1))
def test_a_whole_number_keeps_its_digits(number):
    assert int(number_text(number)) == number


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (text_of, "a", "a"), (text_of, None, ""), (text_of, True, "true"), (text_of, False, "false"),
        (text_of, 1.5, "1.5"), (text_of, ["x"], "x"), (text_of, [7], "7"),
        (number_of, "12", 12), (number_of, "1.5", 1.5), (number_of, "1e3", 1000),
        (number_of, None, 0), (number_of, True, 1), (number_of, ["3"], 3), (number_of, " 4 ", 4),
        (integer_of, "2", 2), (integer_of, 2.0, 2), (integer_of, None, 0),
        (boolean_of, "true", True), (boolean_of, 1, True), (boolean_of, "false", False),
        (boolean_of, 0, False), (boolean_of, None, False), (boolean_of, [True], True),
        (texts_of, "a", ["a"]), (texts_of, [1, None], ["1", ""]), (list_of, None, [None]),
    ],
)  # fmt: skip
def test_what_fits_is_turned_into_the_type(read, value, expected):
    found = read(value, "body/x")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (text_of, {}, "body/x must be string"), (text_of, ["a", "b"], "body/x must be string"),
        (text_of, [[]], "body/x must be string"),
        (number_of, "", "body/x must be number"), (number_of, "soon", "body/x must be number"),
        (number_of, "nan", "body/x must be number"), (number_of, "1_0", "body/x must be number"),
        (number_of, 1e19, "body/x must be number"), (number_of, 10**400, "body/x must be number"),
        (number_of, math.inf, "body/x must be number"), (integer_of, -(10**30), "body/x must be integer"),
        (number_of, "inf", "body/x must be number"), (number_of, {}, "body/x must be number"),
        (integer_of, 1.5, "body/x must be integer"), (integer_of, "x", "body/x must be integer"),
        (boolean_of, "1", "body/x must be boolean"), (boolean_of, 2, "body/x must be boolean"),
        (boolean_of, "", "body/x must be boolean"), (boolean_of, {}, "body/x must be boolean"),
        (list_of, {}, "body/x must be array"), (texts_of, [{}], "body/x/0 must be string"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(read: Callable[[Any, str], Any], value, message):
    with pytest.raises(ButlerError) as fault:
        read(value, "body/x")
    assert (fault.value.status, fault.value.message) == (400, message)
    assert fault.value.code == "FST_ERR_VALIDATION"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(JSON)
def test_any_value_is_read_or_refused(value):
    """Nothing else is raised; a number that was read is one that can be reckoned with."""
    for read in (text_of, number_of, integer_of, boolean_of, list_of, texts_of):
        try:
            found = read(value, "x")
        except ButlerError:
            continue
        if read in (number_of, integer_of):
            assert isinstance(found, int | float)
            assert abs(found) < 2**63


@given(JSON)
def test_any_body_of_a_start_call_is_read_or_refused(value):
    try:
        read_items(value)
    except ButlerError as error:
        assert error.status == 400


def test_too_many_items_are_refused():
    item = {"type": "starttaskid", "payload": {}}
    assert len(read_items([item] * 1000)) == 1000
    with pytest.raises(ButlerError, match="at most 1000"):
        read_items([item] * 1001)
