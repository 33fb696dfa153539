"""The documented meaning of ``when``."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.errors import ConfigError
from appliance.tasks.conditions import Condition
from appliance.tasks.invisible import bare

DOCUMENT = {
    "state": "done",
    "rows": 12,
    "ratio": 0.5,
    "ok": True,
    "nothing": None,
    "data": {"line": {"number": 7}},
    "a.b": "dotted",
    "parts": [{"id": "x"}, {"id": "y"}],
}


def holds(when: dict, document: object = DOCUMENT) -> bool:
    return Condition(when, where="trigger 1 (t)").holds(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"state": "done"}, True),
        ({"state": "Done"}, False),
        ({"rows": 12}, True),
        ({"rows": 12.0}, True),
        ({"rows": "12"}, False),
        ({"ok": True}, True),
        ({"ok": 1}, False),
        ({"nothing": {"exists": True}}, True),
        ({"nothing": {"!=": 1}}, True),
        ({"data.line.number": 7}, True),
        ({"data.line.letter": 7}, False),
        ({"data.line.letter": {"!=": 7}}, False),
        ({"data.line.letter": {"exists": False}}, True),
        ({"a.b": "dotted"}, True),
        ({"parts.1.id": "y"}, True),
        ({"parts.2.id": {"exists": False}}, True),
        ({"rows": {">": 11, "<=": 12}}, True),
        ({"rows": {">": 12}}, False),
        ({"ratio": {"<": 1}}, True),
        ({"state": {">=": "done", "<": "e"}}, True),
        ({"state": {">": 3}}, False),
        ({"ok": {">": 0}}, False),
        ({"state": {"in": ["done", "failed"]}}, True),
        ({"rows": {"in": ["12", 13]}}, False),
        ({"state": "done", "rows": 13}, False),
    ],
)
def test_conditions_mean_what_the_documentation_says(when: dict, expected: bool) -> None:
    """Each line of the table in docs/triggers.md."""
    assert holds(when) is expected


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        b"\xff",
        '{"state": "done", "name": "M\u00fcller"}'.encode("latin-1"),
        '{"state": "done"}'.encode("utf-16"),
        b"[" * 50_000,
        "d\u00e9j\u00e0".encode("latin-1"),
        b"3",
        b"null",
        b"[]",
    ],
)
def test_a_payload_that_is_no_object_meets_no_condition(payload: bytes) -> None:
    """A condition on a field is false where there are no fields."""
    assert not Condition({"state": "done"}, where="t").holds(payload)


@pytest.mark.parametrize(
    "payload", ["{}\0", "\ufeff{}", "{}\u200b", " \u2060\ufeff{}\0\0\r\n", "{}\n\u200d\n\0"]
)
def test_invisible_characters_around_do_not_count(payload: str) -> None:
    """The same ones that a payload with a task id may have around it; within a value they count."""
    when = Condition({"state": "done"}, where="t")
    assert when.holds(payload.replace("{}", '{"state": "done"}').encode())
    assert not when.holds(payload.replace("{}", '{"state": "do\u200bne"}').encode())
    assert not when.holds(payload.replace("{}", '{"state": "done"').encode())


def test_a_long_payload_of_nothing_that_is_seen_takes_no_time() -> None:
    """Blanks and invisible characters in turns, 600,000 of them: one pass takes them away."""
    payload = b" \0" * 300_000
    assert not Condition({"state": "done"}, where="t").holds(payload + b"x")
    assert Condition({"payload": "x"}, where="t").holds(payload + b"x" + payload)


def test_every_space_of_unicode_is_one_around_a_payload() -> None:
    """As ``str.strip`` takes them away."""
    spaces = "".join(filter(str.isspace, map(chr, range(0x110000))))
    assert bare(f"{spaces}a b{spaces[::-1]}") == "a b"


@pytest.mark.parametrize(
    ("when", "part"),
    [
        ({"a": {"~": 1}}, '"~"'),
        ({"a": {}}, "empty"),
        ({"a": [1]}, "text, a number"),
        ({"a": {"in": 3}}, "a list"),
        ({"a": {"exists": "yes"}}, "true or false"),
        ({"a": {"<": True}}, "not booleans"),
        ({"a": {"matches": 3}}, "regular expression"),
        ({"a": {"matches": "(a"}}, "missing ) at character 1"),
        ({"payload": {"matches": "ab[z-a]"}}, "when.payload.matches"),
        ({"payload": {"matches": "ab[z-a]"}}, "at character 4 (z-a)"),
        ({"a": {"matches": "(?<=x)a"}}, "invalid perl operator at character 1"),
        ({"a": {"matches": "a" * 1001}}, "at most 1000"),
        ({"a": {"matches": r"\pL{100}"}}, "repeat fewer times"),
        ({"": 1}, "empty key"),
    ],
)
def test_a_condition_without_meaning_is_a_configuration_error(when: dict, part: str) -> None:
    """The error names the rule, the key and what may stand there."""
    with pytest.raises(ConfigError, match=r"trigger 3 \(sales\).*") as caught:
        Condition(when, where="trigger 3 (sales)")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("when", "payload", "expected"),
    [
        ("Online", "Online", True),
        ("Online", " Online\r\n\0", True),
        ("Online", '"Online"', True),
        ("Online", "online", False),
        ("Online", "Online now", False),
        ("", "", True),
        ("", "x", False),
        ({">": 20}, "21.5", True),
        ({">": 20}, "20", False),
        ({">": 20}, "21,5", False),
        ({">": 20}, "hot", False),
        ({">=": 20, "<": 30}, "2.1e1", True),
        (21.5, "21.50", True),
        ("21.50", "21.50", True),
        ("21.5", "21.50", False),
        (21, "021", False),
        ("021", "021", True),
        (True, "true", True),
        ("true", "true", True),
        (True, "1", False),
        (True, "True", False),
        (False, "false", True),
        ("null", "null", True),
        ({"!=": "Online"}, "Offline", True),
        ({"!=": "Online"}, "Online", False),
        ({"!=": 21}, "21", False),
        ({"!=": "21"}, "21", False),
        ({"in": ["Online", "Ready", 7]}, "Ready", True),
        ({"in": ["Online", "Ready", 7]}, "7", True),
        ({"in": ["Online", "Ready", 7]}, "8", False),
        ({"exists": True}, "anything", True),
        ({"exists": False}, "anything", False),
        ({"matches": "^On"}, "Online", True),
        ({"matches": "^on"}, "Online", False),
        ({"matches": "(?i)^on.*E$"}, "Online", True),
        ({"matches": "line"}, "Online", True),
        ({"matches": r"^\d+(\.\d+)?$"}, "21.5", True),
        ({"matches": "\u00e9{2}"}, "caf\u00e9\u00e9", True),
        ({"matches": "x"}, "x" * 16_385, False),
        # A JSON object or list is not plain: the path is a field, as it was before.
        ("Online", '{"payload": "Online"}', True),
        ("Online", '{"state": "Online"}', False),
        ({"!=": "Online"}, '{"state": "Online"}', False),
        ({"exists": False}, '{"state": "Online"}', True),
        ({"matches": "Online"}, '{"state": "Online"}', False),
        ({"matches": "^On"}, '{"payload": "Online"}', True),
        ({"exists": False}, "[1, 2]", True),
        ("Online", '{"payload": "Online"', False),
    ],
)
def test_the_whole_of_a_plain_payload_is_compared(
    when: object, payload: str, expected: bool
) -> None:
    """``payload`` means a text, number or boolean that is the payload; a field in an object."""
    assert Condition({"payload": when}, where="t").holds(payload.encode()) is expected


def test_a_plain_payload_has_no_fields() -> None:
    """A condition on a field beside one on the payload is false for it."""
    both = Condition({"payload": "Online", "state": "done"}, where="t")
    assert not both.holds(b"Online")
    assert both.holds(b'{"payload": "Online", "state": "done"}')


def test_a_regular_expression_looks_at_texts_only() -> None:
    """A number in a field is no text; what a text of a field has is found anywhere in it."""
    assert holds({"state": {"matches": "on"}})
    assert holds({"parts.0.id": {"matches": "^x$"}})
    assert not holds({"rows": {"matches": "1"}})
    assert not holds({"missing": {"matches": ""}})


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){20}$", "^(a?){100}a{100}$"])
def test_no_payload_holds_up_a_regular_expression(pattern: str) -> None:
    """What keeps a backtracking matcher busy for years is answered at once."""
    condition = Condition({"payload": {"matches": pattern}}, where="t")
    assert not condition.holds(b"a" * 16_000 + b"!")


@example("[[", b"")  # which Python may read in another way one day, and warns of
@given(st.text(max_size=30), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_text_is_a_pattern_or_an_error_of_the_configuration(text: str, payload: bytes) -> None:
    """No pattern and no payload raises anything else."""
    try:
        condition = Condition({"payload": {"matches": text}}, where="t")
    except ConfigError as error:
        assert "when.payload.matches" in str(error)
        return
    assert condition.holds(payload) in (True, False)


plain = st.text(max_size=5) | st.integers() | st.booleans() | st.floats(allow_nan=False)


@given(
    st.dictionaries(st.text(min_size=1, max_size=6), plain, min_size=1, max_size=3),
    st.binary(max_size=100)
    | st.dictionaries(st.text(), plain).map(
        lambda v: json.dumps(v, ensure_ascii=False).encode("latin-1", "replace")
    )
    | st.dictionaries(st.text(), plain).map(lambda v: json.dumps(v).encode()),
)
def test_no_payload_raises(when: dict, payload: bytes) -> None:
    """Comparing never fails, for any two values."""
    assert Condition(when, where="t").holds(payload) in (True, False)


@given(st.text(min_size=1, max_size=8), plain)
def test_equality_finds_what_is_there(key: str, value: object) -> None:
    """A field with exactly the value that is asked for meets the condition."""
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return
    assert holds({key: value}, {key: value})


@pytest.mark.parametrize(
    ("when", "payload", "why"),
    [
        (
            {"state": "done"},
            b'{"state": "running"}',
            'state = "done" does not hold: found "running"',
        ),
        ({"a": {">": 3}}, b'{"a": 2}', "a > 3 does not hold: found 2"),
        ({"a": 1, "b": 2}, b'{"a": 1}', "b = 2 does not hold: the payload has no b"),
        ({"a": 1}, b"plain", "a = 1 does not hold: the payload is no JSON"),
        ({"payload": "Online"}, b"Offline", 'payload = "Online" does not hold: found "Offline"'),
        ({"a.b": {"in": [1, 2]}}, b'{"a": {"b": 3}}', "a.b in [1,2] does not hold: found 3"),
        ({"a": 1}, b"\xff\xfe", "the payload is not UTF-8 text"),
        ({"a": 1}, b'{"a": 1}', ""),
    ],
)
def test_what_does_not_hold_is_said_with_what_was_found(when, payload, why):
    """The first comparison that fails, as the configuration has it, and the payload's value."""
    condition = Condition(when, where="trigger 1")
    assert condition.unmet(payload) == why
    assert condition.holds(payload) is not bool(why)


def test_a_long_value_is_cut_in_the_explanation():
    assert len(Condition({"a": 1}, where="t").unmet(b'{"a": "%s"}' % (b"x" * 5000))) < 200
