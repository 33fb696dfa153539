"""The numbers of a topic as lines: a row for each path, and the title above the plot.

Not for: the plot (appliance/plot.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance import plot
from appliance.ui import formats
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line
from appliance.ui.text import printable
from appliance.ui.value_reader import Summary, ValueReader

TABLE = Table(
    Column("", 1),
    Column("VALUE", 16, 40, None),
    Column("LAST", 9, right=True),
    Column("MIN", 9, right=True),
    Column("MEAN", 9, right=True),
    Column("MAX", 9, right=True),
    Column("COUNT", 6, right=True),
)
"""The list of paths."""
_NUMBER_CELLS = 9
_MUCH = 12
"""Times the span of a curve; beyond it a shared axis leaves it a row or two."""
WHOLE = "$"
"""The path of a payload that is a number itself."""


def heading(cells: int) -> Line:
    """The row above the list."""
    return TABLE.heading(cells)


def row(summary: Summary, place: int | None, cells: int) -> Line:
    """One path; ``place``: among the curves, ``None`` if it is not plotted."""
    sign: tuple[str, str] = ("", "") if place is None else (plot.sign(place), plot.tone(place))
    name = "the payload" if summary.path == WHOLE else printable(summary.path)
    return TABLE.row(
        cells,
        (
            sign,
            (name, "" if place is not None else "dim"),
            (_number(summary.last), "strong" if place is not None else ""),
            (_number(summary.low), ""),
            (_number(summary.mean), ""),
            (_number(summary.high), ""),
            (formats.short_count(summary.messages) if summary.messages else "", "dim"),
        ),
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    text = f"{value:.7g}"
    return text if len(text) <= _NUMBER_CELLS else plot.number_text(value)


def own_scales(series: Sequence[plot.Series]) -> list[plot.Series]:
    """Each curve from 0 to 100 per cent of what it spans, so that their courses compare."""
    found = []
    for one in series:
        values = [value for value in one.values if value is not None]
        low = min(values, default=0.0)
        span = (max(values, default=0.0) - low) or 1.0
        scaled = [None if value is None else 100 * (value - low) / span for value in one.values]
        found.append(plot.Series(one.name, one.times_ns, scaled))
    return found


def differ_much(series: Sequence[plot.Series]) -> bool:
    """Whether one scale for all would make lines without a course of some curves."""
    ends = [
        (min(values), max(values))
        for one in series
        if (values := [value for value in one.values if value is not None])
    ]
    spans = [high - low for low, high in ends if high > low]
    if not spans:
        return False
    whole = max(high for _, high in ends) - min(low for low, _ in ends)
    return whole > _MUCH * min(spans)


def span(seconds: int) -> str:
    """``5 minutes``, ``1 hour``, ``7 days``."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return formats.counted(seconds // length, unit)
    return formats.counted(seconds, "second")


def title(reader: ValueReader) -> Line:
    """Topic, time, and how many messages were read."""
    line: Line = [
        (printable(reader.topic), "head"),
        (f" ── {span(reader.span_ns // 10**9)}", ""),
        (f" ── {formats.counted(reader.messages, 'message')} read", "dim"),
    ]
    if reader.without_number:
        line.append((f", {formats.number(reader.without_number)} without a number", "dim"))
    return line


def progress(reader: ValueReader, *, is_reading: bool, utc: bool) -> Line:
    """How far the journal was read back."""
    if reader.is_complete:
        return [("all read", "dim")]
    if not is_reading:
        return [("not read", "dim")]
    if not reader.reached_ns:
        return [("reading …", "info")]
    at = formats.date_and_time(reader.reached_ns, utc=utc)[5:16]
    return [(f"reading, back to {at}", "info")]
