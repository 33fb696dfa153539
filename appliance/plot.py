"""Numbers over time as lines of characters: several series, their bands, a time axis.

A series is drawn in its tone and ends in its sign, so it is told from the others without colour,
too. Draws 200 points of four series in some 15 ms (80 x 16 cells).
Not for: widgets (``ui/plot.py``), or where the numbers come from.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

MAX_POINTS = 400
"""Points of one series that are drawn; of more, the newest."""
MAX_SERIES = 8
MIN_CELLS, MIN_ROWS = 24, 5
"""In less room nothing is drawn."""

TONES = ("info", "accent", "ok", "warn", "strong", "bad", "run", "key")
"""For the series of one plot, in this order."""

_LARGEST = 1e300
"""What is beyond it is drawn there: the difference of two values has to be a number."""
_LINE = "braille"
_BAND = "░"
_LEVEL = "╌"
_FIRST_CODE = 16
"""Of the terminal's 256 colours; plotext writes them, and ``_lines`` reads them back as tones."""
_COLOR = re.compile(r"\x1b\[(?:38;5;(\d+)|[\d;]*)m")
_STEPS_S = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200,
    86400, 2 * 86400, 7 * 86400, 14 * 86400, 28 * 86400, 91 * 86400, 365 * 86400,
)  # fmt: skip
_TICK_CELLS = 14
_LABEL_CELLS = 9
_one_at_a_time = threading.Lock()
"""plotext has one figure for the whole process."""

TonedLine = list[tuple[str, str]]
"""Pairs of text and tone, as ``ui.lines.Line``."""


class Series(NamedTuple):
    """One curve. ``None`` in ``values`` is a gap."""

    name: str
    times_ns: Sequence[int]
    """Ascending; nanoseconds since 1970."""
    values: Sequence[float | None]
    """One for each time."""
    lows: Sequence[float | None] = ()
    """With ``highs``: the band that is drawn around the curve; empty for none."""
    highs: Sequence[float | None] = ()


class Level(NamedTuple):
    """A horizontal line, for example a limit."""

    value: float
    tone: str = "warn"


def sign(index: int) -> str:
    """The sign of a series, one cell: ``1`` to ``8``."""
    return str(index % MAX_SERIES + 1)


def tone(index: int) -> str:
    """The tone of a series."""
    return TONES[index % len(TONES)]


def number_text(value: float) -> str:
    """``21.5``, ``-3``, ``12.4k``, ``1.2e+15``: at most nine cells."""
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    for unit, divisor in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if divisor <= size < 1e12:
            return f"{value / (1e3 if unit == 'k' else divisor):.4g}{unit}"
    return f"{value:.4g}"


def lines(
    series: Sequence[Series],
    since_ns: int,
    until_ns: int,
    cells: int,
    rows: int,
    *,
    utc: bool = False,
    fine: bool = True,
    levels: Sequence[Level] = (),
    from_zero: bool = False,
    text_of: Callable[[float], str] | None = None,
) -> list[TonedLine]:
    """The plot in exactly ``rows`` lines of at most ``cells`` cells; empty without a number.

    ``fine``: curves of Braille dots (two by four in a cell), which not every font has; otherwise
    of the signs of the series. ``from_zero``: the axis begins at 0 at the latest. ``text_of``: the
    labels of the axis, otherwise numbers with as many digits as tell them apart.
    """
    span_s = (until_ns - since_ns) / 1e9
    if cells < MIN_CELLS or rows < MIN_ROWS or span_s <= 0:
        return []
    curves = [list(_runs(one, since_ns, until_ns)) for one in series[:MAX_SERIES]]
    values = [value for runs in curves for run in runs for point in run for value in point[1:]]
    if not values:
        return []
    values += [_bounded(level.value) for level in levels]
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= max(abs(high), abs(low)) * 1e-9:
        more = abs(high) * 0.1 or 1.0
        low, high = low - (0.0 if from_zero and low >= 0 else more), high + more
    room = _Room(low, high, since_ns, span_s, cells, rows)
    times = list(_time_ticks(room, utc=utc))
    text = _built(curves, room, times, text_of, levels, fine=fine)
    return _lines(text, [level.tone for level in levels], rows)


def _bounded(value: float) -> float:
    return max(-_LARGEST, min(_LARGEST, float(value)))


_Point = tuple[float, float, float, float]
"""Seconds from the left edge, value, and the ends of the band."""


def _runs(series: Series, since_ns: int, until_ns: int) -> Iterator[list[_Point]]:
    """The points in view, cut at the gaps."""
    run: list[_Point] = []
    has_band = bool(series.lows) and bool(series.highs)
    lows, highs = (series.lows, series.highs) if has_band else (series.values, series.values)
    rows = list(zip(series.times_ns, series.values, lows, highs, strict=True))[-MAX_POINTS:]
    for at_ns, value, low, high in rows:
        if value is None or not math.isfinite(value):
            if run:
                yield run
            run = []
        elif since_ns <= at_ns <= until_ns:
            middle = _bounded(value)
            ends = [
                _bounded(end) if end is not None and math.isfinite(end) else middle
                for end in (low, high)
            ]
            run.append(((at_ns - since_ns) / 1e9, middle, min(middle, *ends), max(middle, *ends)))
    if run:
        yield run


class _Room(NamedTuple):
    """What a plot spans, in values, time and cells."""

    low: float
    high: float
    since_ns: int
    span_s: float
    cells: int
    rows: int


def _built(
    curves: Sequence[Sequence[Sequence[_Point]]],
    room: _Room,
    times: Sequence[tuple[float, str]],
    text_of: Callable[[float], str] | None,
    levels: Sequence[Level],
    *,
    fine: bool,
) -> str:
    import plotext  # noqa: PLC0415 - 40 ms; most runs draw nothing

    low, high, _, span_s, cells, rows = room
    ticks = list(_value_ticks(low, high, rows))
    labels = _labels(ticks, text_of)
    with _one_at_a_time:
        plotext.clear_figure()
        plotext.limit_size(False, False)  # by its own terminal
        plotext.plotsize(cells, rows)
        plotext.theme("clear")
        plotext.xaxes(True, False)  # lower, upper
        plotext.yaxes(True, False)  # left, right
        plotext.xlim(0, span_s)
        plotext.ylim(low, high)
        plotext.xticks([at for at, _ in times], [label for _, label in times])
        plotext.yticks(ticks, labels)
        for runs in curves:
            band = list(_band(runs, span_s / cells, (high - low) / rows))
            if band:
                plotext.scatter(
                    [x for x, _ in band], [y for _, y in band], marker=_BAND, color=_FIRST_CODE
                )
        for index, level in enumerate(levels):
            plotext.plot(
                [0, span_s],
                [_bounded(level.value)] * 2,
                marker=_LEVEL,
                color=_FIRST_CODE + 1 + MAX_SERIES + index,
            )
        for index, runs in enumerate(curves):
            marker = _LINE if fine else sign(index)
            for run in runs:
                xs, ys = [point[0] for point in run], [point[1] for point in run]
                plotext.plot(xs, ys, marker=marker, color=_FIRST_CODE + 1 + index)
        for index, runs in enumerate(curves):
            if runs and len(curves) > 1:
                x, y = runs[-1][-1][:2]
                plotext.scatter([x], [y], marker=sign(index), color=_FIRST_CODE + 1 + index)
        text: str = plotext.build()
        plotext.clear_figure()
    return text


def _band(
    runs: Iterable[Sequence[_Point]], column: float, row: float
) -> Iterator[tuple[float, float]]:
    """The cells between the two ends, each by a place in it; ``column``, ``row``: a cell's size."""
    for run in runs:
        for before, (x, _, low, high) in zip([run[0], *run], run, strict=False):
            columns = min(MAX_POINTS, max(1, math.ceil((x - before[0]) / column)))
            for step in range(1, columns + 1):
                part = step / columns
                from_, to = (
                    then + (now - then) * part
                    for then, now in ((before[2], low), (before[3], high))
                )
                for up in range(math.ceil((to - from_) / row) + 1 if to > from_ else 0):
                    yield before[0] + (x - before[0]) * part, min(to, from_ + up * row)


def _labels(ticks: Sequence[float], text_of: Callable[[float], str] | None) -> list[str]:
    """The labels of the value axis, at most nine cells each."""
    if text_of is not None:
        return [text_of(value)[:_LABEL_CELLS] for value in ticks]
    labels = [number_text(value) for value in ticks]
    for digits in range(5, _LABEL_CELLS + 1):
        if len(set(labels)) == len(ticks):
            break
        labels = [f"{value:.{digits}g}" for value in ticks]
    return labels


def _value_ticks(low: float, high: float, rows: int) -> Iterator[float]:
    """Round numbers within the limits, a few rows apart."""
    wanted = (high - low) / max(2, rows // 3)
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next((power * by for by in (1, 2, 2.5, 5) if power * by >= wanted), power * 10)
    first = math.ceil(low / step)
    for index in range(first, first + rows):
        if index * step > high:
            return
        yield float(f"{index * step:.12g}")


def _time_ticks(room: _Room, *, utc: bool) -> Iterator[tuple[float, str]]:
    """Round times of the zone, with seconds from the left edge."""
    span_s = room.span_s
    wanted = span_s / max(1, room.cells // _TICK_CELLS)
    step = next((one for one in _STEPS_S if one >= wanted), math.ceil(wanted))
    since_s = room.since_ns / 1e9
    moment = time.gmtime(since_s) if utc else time.localtime(since_s)
    offset = 0 if utc else moment.tm_gmtoff
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%b %d"
    if step < 86400 < span_s:
        form = "%b %d %H:%M"
    at = math.ceil((since_s + offset) / step) * step - offset
    while at <= since_s + span_s:
        moment = time.gmtime(at) if utc else time.localtime(at)
        yield at - since_s, time.strftime(form, moment)
        at += step


def _lines(text: str, level_tones: Sequence[str], rows: int) -> list[TonedLine]:
    """The text of plotext with its colours read as tones."""
    tones = {_FIRST_CODE: "dim"}
    tones |= {_FIRST_CODE + 1 + index: tone(index) for index in range(MAX_SERIES)}
    tones |= {_FIRST_CODE + 1 + MAX_SERIES + index: name for index, name in enumerate(level_tones)}
    found: list[TonedLine] = []
    for row in text.split("\n")[:rows]:
        line: TonedLine = []
        place, present = 0, "dim"
        for match in _COLOR.finditer(row):
            if match.start() > place:
                line.append((row[place : match.start()], present))
            present = tones.get(int(match[1]), "dim") if match[1] else "dim"
            place = match.end()
        if place < len(row):
            line.append((row[place:], present))
        found.append(line)
    return found
