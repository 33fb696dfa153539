"""The line of screens: every screen is named while there is room, and its digit always stands there."""

import pytest

from appliance.ui.lines import line_width, text_of
from appliance.ui.views.page_frame import TABS, tabs

FILTER = [(" filter ", "dim"), ("plant/line7/# clie…", "warn"), ("  FOLLOW", "ok")]
WHO = [("plant7", "strong"), (" anna operator", "dim"), ("  ", "")]


@pytest.mark.parametrize("active", [name for name, _ in TABS])
def test_every_title_fits_into_80_columns(active):
    line, _ = tabs(active, 80, [], [])
    assert all(title in text_of(line) for _, title in TABS)
    assert line_width(line) <= 80


@pytest.mark.parametrize("cells", [80, 100, 140])
@pytest.mark.parametrize("right", [[], FILTER])
@pytest.mark.parametrize("who", [[], WHO])
def test_each_screen_has_its_digit_whatever_else_the_line_says(cells, right, who):
    """A filter and an attached terminal's user take room from the titles, not from the digits."""
    line, places = tabs("clients", cells, right, who)
    text = text_of(line)
    assert line_width(line) <= cells
    assert "Clients" in text
    assert text.rstrip().endswith(text_of(right).strip())
    for number, (start, end, name) in enumerate(places, 1):
        assert str(number) in text[start:end]
        assert TABS[number - 1][0] == name
