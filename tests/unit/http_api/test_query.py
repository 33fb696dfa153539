"""Parameters and headers of HTTP requests: any text has a meaning or a 400 that says what is wrong."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.config.values import format_duration
from appliance.http_api.idempotency import MAX_KEY, digest_of, parse_key
from appliance.http_api.problem import ProblemError
from appliance.http_api.query import LONGEST_WAIT_S, wait_s, whole_number

VISIBLE = "".join(set(string.printable) - set(string.whitespace) - set('"\\'))


@given(st.text(max_size=20) | st.text("0123456789.smhd ", max_size=12))
@example("nan")
@example("1e9")
@example("٣")
@example("9" * 20)
@example("60 ")
def test_any_wait_is_within_its_bounds_or_refused(text: str) -> None:
    try:
        assert 0 <= wait_s({"wait": text}) <= LONGEST_WAIT_S
    except ProblemError as error:
        assert error.status == 400
        assert error.detail.startswith(f"wait={text}: ")


@given(st.integers(0, 3_600_000))
def test_a_wait_is_seconds_or_a_duration(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert wait_s({"wait": f"{seconds:.3f}"}) == seconds
    assert wait_s({"wait": format_duration(seconds)}) == pytest.approx(seconds)
    assert wait_s({}) == 0


@given(st.text(max_size=25))
def test_any_number_is_within_its_bounds_or_refused(text: str) -> None:
    try:
        assert 1 <= whole_number({"limit": text}, "limit", 5, 1, 1000) <= 1000
    except ProblemError as error:
        assert error.status == 400


@given(st.text(VISIBLE, min_size=1, max_size=MAX_KEY))
def test_a_key_is_the_same_with_and_without_quotation_marks(key: str) -> None:
    assert parse_key(key) == parse_key(f'"{key}"') == key


@given(st.text(max_size=2 * MAX_KEY))
@example('"a\\"b"')
@example('"')
@example('""')
@example('"a"b"')
@example("ä")
def test_any_key_is_short_ascii_or_none(text: str) -> None:
    key = parse_key(text)
    assert key is None or (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable())


@given(st.lists(st.text() | st.binary(), max_size=4), st.lists(st.text() | st.binary(), max_size=4))
def test_other_requests_have_other_digests(
    one: list[str | bytes], other: list[str | bytes]
) -> None:
    def encoded(parts: list[str | bytes]) -> list[bytes]:
        return [each.encode() if isinstance(each, str) else each for each in parts]

    assert (digest_of(*one) == digest_of(*other)) == (encoded(one) == encoded(other))
