"""Times of day, also on the days of 23 and 25 hours."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.time_of_day import last_time, next_time

BERLIN = ZoneInfo("Europe/Berlin")
SPRING = datetime(2027, 3, 27, tzinfo=UTC)
"""Clocks go from 02:00 to 03:00 in the night after this day."""
AUTUMN = datetime(2026, 10, 24, tzinfo=UTC)
"""Clocks go from 03:00 to 02:00 in the night after this day."""
QUARTER_S = 900


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("now", "wanted", "found"),
    [
        ("2026-10-25T00:45+02:00", "02:30", "2026-10-25T02:30+02:00"),
        ("2026-10-25T02:45+02:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-10-25T02:10+01:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-10-25T02:30+01:00", "02:30", "2026-10-26T02:30+01:00"),
        ("2026-10-24T06:30+02:00", "06:00", "2026-10-25T06:00+01:00"),
        ("2026-10-24T05:30+02:00", "06:00", "2026-10-24T06:00+02:00"),
        ("2027-03-27T06:30+01:00", "07:00", "2027-03-27T07:00+01:00"),
        ("2027-03-27T20:00+01:00", "23:00", "2027-03-27T23:00+01:00"),
        ("2027-03-28T01:00+01:00", "02:30", "2027-03-28T03:30+02:00"),
        ("2027-03-28T03:15+02:00", "03:10", "2027-03-29T03:10+02:00"),
    ],
)
def test_the_next_time_around_the_change_of_clocks(now, wanted, found) -> None:
    assert next_time(time.fromisoformat(wanted).replace(tzinfo=BERLIN), at(now)) == at(found)


@given(
    st.sampled_from([SPRING, AUTUMN, datetime(2026, 12, 31, tzinfo=UTC)]),
    st.integers(0, 3 * 96),
    st.integers(0, 95),
)
def test_no_nearer_time_shows_it(day, quarters, wanted_quarters) -> None:
    """Against every quarter of an hour; a time that is left out is shown by no clock."""
    now = (day + timedelta(minutes=15 * quarters)).timestamp()
    wanted = time(wanted_quarters // 4, 15 * (wanted_quarters % 4), tzinfo=BERLIN)
    found, last = next_time(wanted, now), last_time(wanted, now)
    assert last <= now < found

    def shown(at_s: float) -> time:
        return datetime.fromtimestamp(at_s, BERLIN).time()

    plain = wanted.replace(tzinfo=None)
    between = [last + QUARTER_S * n for n in range(1, round((found - last) / QUARTER_S))]
    assert plain not in [shown(one) for one in between]
    for one in (last, found):
        later = (datetime.combine(datetime.min, plain) + timedelta(hours=1)).time()
        assert shown(one) in (plain, later)
