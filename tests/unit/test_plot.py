"""Plots: every number in view is drawn where it belongs, in the room that there is."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import plot

_START = 1_764_482_400_000_000_000  # 2025-11-30 06:00:00 UTC
_SECOND = 1_000_000_000
_HOUR = 3600 * _SECOND


def _text(lines: list[plot.TonedLine]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def _hour(values: list[float | None]) -> plot.Series:
    step = _HOUR // len(values)
    return plot.Series("a", [_START + step * n for n in range(len(values))], values)


def _drawn(series: list[plot.Series], cells: int = 60, rows: int = 10, **how: object) -> list[str]:
    return _text(plot.lines(series, _START, _START + _HOUR, cells, rows, utc=True, **how))  # type: ignore[arg-type]


def test_the_axes_have_round_numbers_and_times() -> None:
    rows = _drawn([_hour([0.0, 5.0, 10.0])])
    assert [row.split("┤")[0].strip() for row in rows if "┤" in row] == ["10", "5", "0"]
    assert rows[-1].split() == ["06:00", "06:15", "06:30", "06:45", "07:00"]


def test_a_rising_value_rises_from_the_left_below_to_the_right_above() -> None:
    rows = _drawn([_hour([float(n) for n in range(60)])], fine=False)
    columns = [row.rindex("1") for row in rows[:-2] if "1" in row.partition("┤")[2] or "│" in row]
    assert columns == sorted(columns, reverse=True)


def test_a_gap_is_left_open() -> None:
    values: list[float | None] = [1.0] * 20 + [None] * 20 + [1.0] * 20
    row = next(row for row in _drawn([_hour(values)], fine=False) if "11" in row)
    first, gap, second = (row.partition("┤")[2].rstrip().replace("  ", "\0").strip("\0")).partition(
        "\0"
    )
    assert "1" in first
    assert gap
    assert "1" in second


def test_curves_are_told_apart_without_colour() -> None:
    """Each ends in its sign, and where there are no fine dots it is drawn of it."""
    two = [_hour([1.0, 1.0, 1.0]), _hour([2.0, 2.0, 2.0])]
    assert "2" in _drawn(two)[0][-25:]
    coarse = _drawn(two, fine=False)
    assert "222222" in coarse[0]
    assert any("111111" in row for row in coarse)


def test_the_tones_are_those_of_the_series() -> None:
    lines = plot.lines(
        [_hour([1.0, 1.0]), _hour([2.0, 2.0])], _START, _START + _HOUR, 60, 10, utc=True
    )
    assert {tone for line in lines for _, tone in line} == {"dim", plot.tone(0), plot.tone(1)}


def test_a_band_is_between_lowest_and_highest() -> None:
    series = plot.Series("a", [_START, _START + _HOUR], [5.0, 5.0], [0.0, 0.0], [10.0, 10.0])
    rows = [row for row in _drawn([series])[:-2] if "░" in row]
    assert len(rows) >= 7


def test_a_limit_is_a_line() -> None:
    rows = _drawn([_hour([1.0, 2.0])], levels=[plot.Level(4.0, "bad")])
    assert rows[0].count("╌") > 40


def test_many_equal_numbers_have_different_labels() -> None:
    """A counter that went from a million to a million and two hundred."""
    rows = _drawn([_hour([1_000_000.0, 1_000_200.0])], rows=12)
    labels = [row.split("┤")[0].strip() for row in rows if "┤" in row]
    assert len(set(labels)) == len(labels) >= 3


def test_without_numbers_or_room_there_is_no_plot() -> None:
    assert _drawn([]) == []
    assert _drawn([_hour([None, math.nan, math.inf])]) == []
    assert _drawn([_hour([1.0])], cells=10) == []


_numbers = st.none() | st.floats()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(_numbers, min_size=1, max_size=30), max_size=3),
    st.integers(10, 90),
    st.integers(3, 16),
    st.booleans(),
)
def test_any_numbers_fit_the_room(
    many: list[list[float | None]], cells: int, rows: int, fine: bool
) -> None:
    drawn = _drawn([_hour(values) for values in many], cells=cells, rows=rows, fine=fine)
    assert not drawn or len(drawn) == rows
    assert all(len(row) <= cells for row in drawn)
