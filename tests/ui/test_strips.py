"""Rows on their way to the terminal: the same picture as Textual's, and nothing left behind."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from appliance.ui.strips import RowStrip, blank_strip

STYLES = st.sampled_from([None, Style(color="red"), Style(bold=True)])
TEXTS = st.text("ab 汉", min_size=1, max_size=5)
SEGMENTS = st.lists(st.builds(Segment, TEXTS, STYLES, st.none()), max_size=5)


@given(SEGMENTS, st.sets(st.integers(1, 30), min_size=1))
def test_a_row_is_cut_and_drawn_as_any_other(segments: list[Segment], cuts: set[int]) -> None:
    ours, theirs = RowStrip(segments), Strip(segments)
    console = Console(color_system="truecolor")
    for at in (sorted(cuts), [theirs.cell_length]):
        parts = ours.divide(at)
        assert [list(part) for part in parts] == [list(part) for part in theirs.divide(at)]
        assert [part.cell_length for part in parts] == [
            part.cell_length for part in theirs.divide(at)
        ]
    assert ours.render(console) == theirs.render(console)


def test_rows_leave_no_garbage() -> None:
    """What a frame has drawn goes when it is no longer shown; Textual's own would wait for the
    collector, which stops every thread. If the second half fails, Textual has fixed it."""

    def garbage(kind: type[Strip]) -> int:
        """The least of several tries: what earlier tests left behind may go in the first."""
        found = []
        for _ in range(5):
            gc.collect()
            for _ in range(100):
                kind([Segment("a row of ten")], 12).divide([12])
            found.append(gc.collect())
        return min(found)

    was_on = gc.isenabled()
    gc.disable()
    gc.collect()
    gc.freeze()  # else each collection looks at all that the other tests have loaded
    try:
        assert garbage(RowStrip) == 0
        assert garbage(Strip) > 100
        blank_strip(12, Style()).divide([12])
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()
