"""What an operator may write for the end of a hold."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.ui.hold_end import HoldEndError, parse

NOW = int(datetime(2026, 11, 30, 22, 15, tzinfo=UTC).timestamp()) * 10**9


def until(text: str, now_ns: int = NOW) -> str:
    found = parse(text, now_ns, utc=True)
    assert found is not None
    return f"{datetime.fromtimestamp(found // 10**9, UTC):%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2h", "2026-12-01 00:15:00"),
        ("1h30m", "2026-11-30 23:45:00"),
        ("1h 30min", "2026-11-30 23:45:00"),
        (" for 90M ", "2026-11-30 23:45:00"),
        ("45s", "2026-11-30 22:15:45"),
        ("2d", "2026-12-02 22:15:00"),
        ("06:00", "2026-12-01 06:00:00"),
        ("6:00", "2026-12-01 06:00:00"),
        ("until 23:00", "2026-11-30 23:00:00"),
        ("22:15", "2026-12-01 22:15:00"),
        ("2026-12-24", "2026-12-24 00:00:00"),
        ("2026-12-24 18:30", "2026-12-24 18:30:00"),
        ("2026-12-24t18:30", "2026-12-24 18:30:00"),
    ],
)
def test_a_length_a_time_of_day_or_a_date(text, end) -> None:
    """A time of day is the next one."""
    assert until(text) == end


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_means_until_it_is_released(text) -> None:
    assert parse(text, NOW, utc=True) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0h", "has passed"),
        ("2026-11-30 22:14", "has passed"),
        ("tomorrow", "is no time; write 2h"),
        ("25:00", "is no time"),
        ("2 hours", "is no time"),
        ("99999999d", "ten years"),
        ("9999-12-31", "ten years"),
        ("-1h", "is no time"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_possible(text, why) -> None:
    with pytest.raises(HoldEndError, match=why):
        parse(text, NOW, utc=True)


@settings(max_examples=40)
@given(st.text(max_size=30), st.booleans())
def test_any_text_is_a_time_to_come_or_refused(text, utc) -> None:
    try:
        found = parse(text, NOW, utc=utc)
    except HoldEndError:
        return
    assert found is None or NOW < found <= NOW + 11 * 366 * 86400 * 10**9


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process can't be set")
def test_a_day_of_another_length_is_no_mistake(monkeypatch) -> None:
    """23:00 is shown in half an hour, though clocks are set in the night."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    for day, end in (("2027-03-27", "21:00"), ("2026-10-24", "20:00")):
        now = int(datetime.fromisoformat(f"{day}T19:30+00:00").timestamp()) * 10**9
        found = parse("22:00", now, utc=False)
        assert found is not None
        assert f"{datetime.fromtimestamp(found // 10**9, UTC):%Y-%m-%d %H:%M}" == f"{day} {end}"
