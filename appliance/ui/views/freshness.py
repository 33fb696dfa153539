"""How fresh tasks are, as lines: a row each, what is known of the chosen one, its curve.

Not for: asking for it, or drawing the curve (screens/freshness.py, plot.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance.engine_api import TaskFreshness
from appliance.model import Execution, ExecutionState
from appliance.plot import Series
from appliance.ui import formats, symbols
from appliance.ui.columns import Cell, Column, Table
from appliance.ui.lines import Line, join
from appliance.ui.text import cut, first_line, printable

SORTS = ("data", "name", "loaded", "p95", "worst", "merged")
"""What the rows can be sorted by: ``"data"`` is what is late first, then what is stale."""
INTERVALS_S = (3600, 4 * 3600, 86400, 300, 900, 1800)
"""Schedules to compare with, in the order of the key."""
TABLE = Table(
    Column("", 1),
    Column("TASK", 18, 30, 60, key="name"),
    Column("APP", 10, 20, 40, from_cells=110),
    Column("DATA", 10, key="data"),
    Column("WITHIN", 6, right=True),
    Column("LOADED", 6, right=True, key="loaded", from_cells=100),
    Column("P50", 5, right=True),
    Column("P95", 5, right=True, key="p95"),
    Column("WORST", 5, right=True, key="worst"),
    Column("SAVED", 5, right=True, key="merged", from_cells=100),
    Column("WHY", 16, 30, None),
)
"""The list of tasks."""


def heading(cells: int, sort: str) -> Line:
    """The row above the list."""
    return TABLE.heading(cells, sort=sort)


def row(one: TaskFreshness, now_ns: int, cells: int) -> Line:
    """One task."""
    sign, tone = _sign(one)
    loaded = "" if one.fresh_ns is None else formats.age((now_ns - one.fresh_ns) / 1e9)
    parts: list[Cell] = [
        (sign, tone),
        (printable(one.name), ""),
        (printable(one.app), "dim"),
        (_data(one, now_ns), tone),
        ("" if one.fresh_within_s is None else interval(one.fresh_within_s), "dim"),
        (loaded, "dim"),
        (_span(one.p50_s), "dim"),
        (_span(one.p95_s), "dim"),
        (_span(one.worst_s), "dim"),
        (formats.short_count(one.merged) if one.merged else "", "dim"),
        (printable(first_line(one.why)), tone if one.is_late else ""),
    ]
    return TABLE.row(cells, parts)


def _sign(one: TaskFreshness) -> tuple[str, str]:
    if one.is_late:
        return symbols.level_sign("warn"), symbols.level_tone("warn")
    if one.stale_since_ns is not None:
        return symbols.sign(ExecutionState.WAITING), symbols.tone(ExecutionState.WAITING)
    return symbols.level_sign("ok"), symbols.level_tone("ok")


def _data(one: TaskFreshness, now_ns: int) -> str:
    if one.stale_since_ns is None:
        return "fresh"
    since = formats.age((now_ns - one.stale_since_ns) / 1e9)
    return f"{'late' if one.is_late else 'stale'} {since}"


def _span(seconds: float | None) -> str:
    return "" if seconds is None else formats.age(seconds) if seconds >= 1 else "<1s"


def title(tasks: Sequence[TaskFreshness], since_ns: int | None, now_ns: int, *, utc: bool) -> Line:
    """How many tasks, and how many of them are late or stale."""
    late = sum(one.is_late for one in tasks)
    stale = sum(one.stale_since_ns is not None for one in tasks) - late
    line: Line = [(formats.counted(len(tasks), "task"), "head")]
    if late:
        line.append((f" ── {late} late", "warn"))
    if stale:
        line.append((f" ── {stale} stale", ""))
    if tasks and not late and not stale:
        line.append((" ── all fresh", "ok"))
    if since_ns is not None and now_ns - since_ns < 7 * 86400 * formats.SECOND_NS:
        known = formats.date_and_time(since_ns, utc=utc)[5:16]
        line.append((f" ── known since {known}", "dim"))
    return line


def foot(
    one: TaskFreshness, execution: Execution | None, every_s: int, now_ns: int, *, utc: bool
) -> list[Line]:
    """What is known of the chosen task, in four lines at most; ``execution`` is its reason's."""
    lines = [_state(one, now_ns, utc=utc)]
    if why := _why(one, execution, now_ns):
        lines.append([(" why ", "dim"), (cut(printable(first_line(why)), 400), "")])
    lines.append(_week(one))
    lines.append(_schedule(one, every_s))
    return lines


def _why(one: TaskFreshness, execution: Execution | None, now_ns: int) -> str:
    """Why it is stale; of a run also for how long it goes on."""
    if execution is None or execution.state is not ExecutionState.RUNNING:
        return one.why
    seconds = symbols.seconds_running(execution, now_ns)
    if seconds is None or one.kind != ExecutionState.RUNNING.value:
        return one.why
    usual = "" if execution.usual_s is None else f", usually {formats.took(execution.usual_s)}"
    return f"It runs for {formats.elapsed(seconds)}{usual}."


def _state(one: TaskFreshness, now_ns: int, *, utc: bool) -> Line:
    parts: list[Line] = []
    if one.app:
        parts.append([("app ", "dim"), (printable(one.app), "")])
    if one.stale_since_ns is None:
        parts.append([("fresh", "ok")])
    else:
        at = formats.time_of_day(one.stale_since_ns, utc=utc)
        waiting = formats.counted(one.waiting, "message")
        tone = "warn" if one.is_late else ""
        parts.append([(f"stale since {at}", tone), (f" ({waiting}, first {one.oldest_seq})", "")])
    if one.late_ns is not None:
        seconds = (one.late_ns - now_ns) / 1e9
        if seconds > 0:
            parts.append([(f"late in {formats.countdown(seconds)}", "dim")])
        else:
            parts.append([(f"late for {formats.elapsed(-seconds)}", "warn")])
    if one.fresh_ns is not None and one.stale_since_ns is None:
        parts.append([(f"loaded {formats.time_of_day(one.fresh_ns, utc=utc)}", "dim")])
    return [(" ", ""), *join(parts, "  ")]


def interval(seconds: float) -> str:
    """``90s``, ``15m``, ``1h``, ``1d``: as in the configuration, rounded to one unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and not seconds % length:
            return f"{seconds / length:.0f}{unit}"
    return formats.age(seconds) if seconds >= 1 else "<1s"


def _week(one: TaskFreshness) -> Line:
    if not one.messages:
        return [(" 7 days  ", "dim"), ("no message was covered by a run", "dim")]
    times = ", ".join(
        f"{name} {formats.took(seconds)}"
        for name, seconds in (("p50", one.p50_s), ("p95", one.p95_s), ("worst", one.worst_s))
        if seconds is not None
    )
    counts = f"{formats.counted(one.messages, 'message')}, {formats.counted(one.runs, 'run')}"
    saved = f", {one.merged} saved" if one.merged else ""
    return [(" 7 days  ", "dim"), (times, "strong"), (f"  ({counts}{saved})", "")]


def _schedule(one: TaskFreshness, every_s: int) -> Line:
    other = one.by_schedule(every_s)
    times = ", ".join(
        f"{name} {formats.took(seconds)}"
        for name, seconds in (("p50", other.p50_s), ("p95", other.p95_s), ("worst", other.worst_s))
    )
    return [
        (f" every {interval(every_s)} would give  ", "dim"),
        (times, ""),
        (f"  ({formats.counted(other.runs, 'run')})", "dim"),
    ]


def curve(
    day: Iterable[tuple[int, float]], stale_since_ns: int | None, now_ns: int, name: str
) -> Series:
    """For how long the data was stale, over the day, in seconds: it grows until a run covers it."""
    times: list[int] = []
    values: list[float] = []

    def grow(since_ns: int, until_ns: int) -> None:
        start_ns = max(since_ns, times[-1] if times else since_ns)
        times.extend((start_ns, until_ns))
        values.extend(((start_ns - since_ns) / 1e9, (until_ns - since_ns) / 1e9))

    for fresh_ns, latency_s in day:
        if times and fresh_ns < times[-1]:
            continue
        grow(fresh_ns - int(latency_s * 1e9), fresh_ns)
        times.append(fresh_ns)
        values.append(0.0)
    if stale_since_ns is not None and stale_since_ns < now_ns:
        grow(stale_since_ns, now_ns)
    elif times:
        times.append(now_ns)
        values.append(0.0)
    return Series(name, times, values)
