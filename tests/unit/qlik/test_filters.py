"""The simulated server's filter language: what it finds is what a QRS filter finds."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.qlik.simulated.filters import FilterError, parse

_ROW = {
    "id": "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10",
    "name": "Reload line 7",
    "enabled": True,
    "status": 8,
    "createdDate": "2026-11-22T09:00:00.230Z",
    "tags": [{"name": "mqtt-start"}, {"name": "it's"}],
    "customProperties": [
        {"value": "line-7", "definition": {"name": "factory"}},
        {"value": "north", "definition": {"name": "region"}},
    ],
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("id eq 5F8B1C2E-0d4a-4c55-9a1b-7e3d2f6a9b10", True),
        ("id ne 5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10", False),
        ("name eq 'reload LINE 7'", True),
        ("Name sw 'reload' and name ew '7' and name so 'line'", True),
        ("tags.name eq 'it''s'", True),
        ("tags.name eq 'other'", False),
        ("status gt 7 and status le 8", True),
        ("status lt 8 or (status ge 9)", False),
        ("enabled eq true", True),
        ("createdDate gt '2026-11-22T08:59:59.000Z'", True),
        ("createdDate gt '2026-11-22T10:30:00.000+01:00'", False),
        ("nosuch eq 'x'", False),
        # Two tests on a list are independent of each other, which is why the client looks again.
        (
            "customProperties.definition.name eq 'factory' and customProperties.value eq 'north'",
            True,
        ),
        ("status eq 1 or status eq 2 or (status eq 8 and enabled eq true)", True),
    ],
)
def test_operators(text: str, holds: bool) -> None:
    """Every operator that docs/qlik.md lists gives the answer that it describes."""
    assert parse(text)(_ROW) is holds


@pytest.mark.parametrize(
    "text",
    ["", "name", "name eq", "name eq 'it's'", "(name eq 'a'", "name zz 1", "and", "'a' eq 1"],
)
def test_what_is_not_a_filter_is_refused_as_the_server_does(text: str) -> None:
    """A broken filter is an error with the server's words, never a wider result."""
    with pytest.raises(FilterError, match="Cannot parse the expression"):
        parse(text)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(string.ascii_letters + " '()=.0123456789andoreq", max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text crashes the parser."""
    try:
        parse(text)(_ROW)
    except FilterError:
        pass


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40))
def test_quoting_by_doubling_is_exact(name: str) -> None:
    """A quoted value stands for itself, with any characters."""
    quoted = name.replace("'", "''")
    assert parse(f"name eq '{quoted}'")({"name": name}) is True


def test_nesting_is_bounded() -> None:
    """A filter of a thousand parentheses is refused instead of exhausting the stack."""
    with pytest.raises(FilterError):
        parse("(" * 1000 + "status eq 1" + ")" * 1000)
