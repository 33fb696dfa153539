"""Numbers that may not fit into a type are noticed before a batch is decoded."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.recorders.kinds import has_long_number

RULE = re.compile(rb"[0-9.]{16}|[0-9.][eE][-+]?[0-9]{3}")


@pytest.mark.parametrize(
    "number", ["9223372036854775808", "1e400", "1E+400", "-1e-400", "3.14159265358979323846"]
)
def test_such_a_number_is_noticed(number):
    assert has_long_number(b'{"a": 1, "b": %b}' % number.encode())


@pytest.mark.parametrize("text", [b"20.5", b'"e400"', b"1e40", b'{"a0e": "00"}', b"", b"\xff"])
def test_others_are_not(text):
    assert not has_long_number(text)


@given(st.lists(st.sampled_from(b"019.eE+-\n:a"), max_size=40).map(bytes))
def test_the_rule_is_that_of_the_pattern(text):
    # A point may stand for a digit: such a text is looked at closely, too.
    assert bool(RULE.search(text)) <= has_long_number(text)
