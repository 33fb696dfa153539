"""Executions and timers as lines: what runs, its progress, what comes next, what failed.

Not for: the executions screen's table with a cursor.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from appliance.engine_api import Snapshot, TimerState
from appliance.model import Cause, Execution, ExecutionState, sender
from appliance.ui import formats, symbols
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line, join, line_width, spread
from appliance.ui.text import first_line, fit, printable

_RECENT_NS = 15 * 60 * 10**9
"""A failure stays before the successes for a quarter of an hour."""

TABLE = Table(
    Column("", 1),
    Column("STARTED", 8),
    Column("TASK", 13, 22, 60),
    Column("STATE", 13, 40, None),
    Column("BY", 11, 14, 40),
)
"""The list of executions."""

_ROOMY = 70
"""Columns from which names and bars get their full length."""


def _name_cells(cells: int) -> int:
    return 22 if cells >= _ROOMY else 15


def by(cause: Cause) -> str:
    """The origin of the start, in a few words."""
    if cause.kind == "message":
        return sender(cause.client_id) or cause.topic
    if cause.kind == "timer":
        return f"timer {cause.rule}".rstrip()
    if cause.kind == "operator":
        return f"operator {cause.client_id}".rstrip()
    if cause.kind == "http":
        return f"HTTP {cause.rule}".rstrip()
    return "elsewhere"


def order(executions: Sequence[Execution], now_ns: int) -> list[Execution]:
    """Open ones first, then what failed lately, then the rest; the newest first in each."""

    def rank(execution: Execution) -> int:
        if not execution.state.is_final:
            return 0
        end = execution.ended_ns or execution.requested_ns
        return 1 if execution.state.is_bad and now_ns - end < _RECENT_NS else 2

    return sorted(executions, key=rank)  # stable: the order within a rank is the snapshot's


def summary(snapshot: Snapshot) -> Line:
    """``2 running · 1 waiting · 24 h: 412 ✓ 7 ✗``."""
    qlik = snapshot.qlik
    parts: list[Line] = [[(f"{qlik.running} running", "run" if qlik.running else "dim")]]
    if qlik.waiting:
        parts.append([(f"{qlik.waiting} waiting", "info")])
    if qlik.is_away:
        parts.append([("server away", "bad"), *_next_try(snapshot)])
    bad = "bad" if qlik.failed_24h else "dim"
    parts.append(
        [("24 h: ", "dim"), (f"{qlik.succeeded_24h} ✓ ", "ok"), (f"{qlik.failed_24h} ✗", bad)]
    )
    return join(parts, " · ")


def _next_try(snapshot: Snapshot) -> Line:
    due_ns = snapshot.qlik.next_check_ns
    if due_ns is None:
        return []
    return [(f", next {formats.countdown((due_ns - snapshot.taken_ns) / 1e9)}", "warn")]


def timed(snapshot: Snapshot) -> list[Execution]:
    """The executions, those that wait with the time when they are really tried next.

    A retry that is due waits for the next check of a server that does not answer.
    """
    until = {one.execution: one.until_ns for one in snapshot.waits}
    return [
        replace(one, next_attempt_ns=until[one.id]) if one.id in until else one
        for one in snapshot.executions
    ]


def progress(execution: Execution, now_ns: int, bar_cells: int = 10) -> Line:
    """How far an execution is, or how it ended: the middle of its line."""
    state = execution.state
    tone = symbols.tone(state)
    seconds = symbols.seconds_running(execution, now_ns)
    if state is ExecutionState.RUNNING and seconds is not None:
        if execution.usual_s is None:
            return [(f"{formats.elapsed(seconds)} running", tone)]
        late = symbols.is_late(execution, now_ns)
        bar = formats.bar(seconds / execution.usual_s if execution.usual_s else 1, bar_cells)
        line: Line = [("▲ late ", "warn")] if late else []
        return [
            *line,
            (f"{formats.elapsed(seconds)} ", "warn" if late else tone),
            (bar, tone),
            (f" ~{formats.elapsed(execution.usual_s)}", "dim"),
        ]
    if not state.is_final:
        text = symbols.word(state)
        if state is ExecutionState.RETRYING:
            text += f" {execution.attempts + 1}"
        if execution.next_attempt_ns is not None and execution.next_attempt_ns > now_ns:
            text += f" in {formats.countdown((execution.next_attempt_ns - now_ns) / 1e9)}"
        return [(text, tone)]
    took = "" if seconds is None else f" {formats.took(seconds)}"
    return [(f"{symbols.word(state)}{took}", tone)]


def execution_line(execution: Execution, now_ns: int, cells: int, *, utc: bool) -> Line:
    """One line: sign, time, task, progress, origin, and the reason of a failure."""
    state = execution.state
    at = execution.started_ns or execution.requested_ns
    name = printable(execution.task_name or execution.task_id)
    if execution.merged:
        name += f" (+{execution.merged})"
    how = progress(execution, now_ns, 10 if cells >= _ROOMY else 2)
    if execution.reason and (state.is_bad or state is ExecutionState.RETRYING):
        how.append((f"  {first_line(execution.reason)}", "bad" if state.is_bad else "warn"))
    return TABLE.row(
        cells,
        (
            (symbols.sign(state), symbols.tone(state)),
            (formats.time_of_day(at, utc=utc), "dim"),
            (name, ""),
            how,
            (printable(by(execution.cause)), "dim"),
        ),
    )


def execution_lines(
    executions: Sequence[Execution], now_ns: int, cells: int, rows: int, *, utc: bool
) -> list[Line]:
    """At most ``rows`` lines; with room, a failure's reason gets a line of its own.

    Where there are few rows, the first failure's reason has one, if a row is left for it.
    """
    shown = order(executions, now_ns)
    lines: list[Line] = []
    own_lines = rows if rows > 4 else 1
    for execution in shown:
        if len(lines) >= rows:
            break
        own_line = bool(execution.reason) and execution.state.is_bad and own_lines > 0
        own_line = own_line and (rows > 4 or len(lines) + 2 <= rows)
        plain = replace(execution, reason="") if own_line else execution
        lines.append([(" ", ""), *execution_line(plain, now_ns, cells - 1, utc=utc)])
        if own_line and len(lines) < rows:
            own_lines -= 1
            lines.append([("     ", ""), (first_line(execution.reason), "bad")])
    if not lines:
        lines.append([(" No task was started yet.", "dim")])
    return lines


def due_first(timers: Sequence[TimerState]) -> list[TimerState]:
    """Raised alarms, then timers as they come due; those without a time and paused ones last."""
    far = 1 << 63
    return sorted(
        timers,
        key=lambda one: (
            not one.is_alarm,
            one.paused,
            one.due_ns if one.due_ns is not None else far,
            one.name,
        ),
    )


def run_limit(snapshot: Snapshot, now_ns: int) -> Line:
    """``ends in 0:42``, or nothing without a run limit."""
    if snapshot.run_until_ns is None:
        return []
    left = (snapshot.run_until_ns - now_ns) / 1e9
    return [("ends in ", "dim"), (formats.elapsed(left), "warn" if left < 60 else "strong")]


def clock_line(snapshot: Snapshot, now_ns: int, cells: int, key: str = "!") -> Line:
    """One line for narrow screens: uptime, run limit, next timer, what is late or lost.

    ``key`` shows what was noted. What is recorded stands at its end if there is room.
    """
    up: Line = [("up ", "dim"), (formats.elapsed((now_ns - snapshot.started_ns) / 1e9), "strong")]
    parts = [up, run_limit(snapshot, now_ns)]
    upcoming = [one for one in due_first(snapshot.timers) if one.due_ns and not one.paused]
    upcoming = [one for one in upcoming if one.kind != "run limit"]
    if upcoming and upcoming[0].due_ns is not None:
        left = formats.countdown((upcoming[0].due_ns - now_ns) / 1e9)
        parts.append([("next ", "dim"), (f"{printable(upcoming[0].name)[:18]} {left}", "")])
    parts.append([("pending ", "dim"), (formats.short_count(snapshot.journal.pending), "")])
    if (lag := formats.notable_lag(snapshot.recorders)) > 0:
        parts.append([("behind ", "dim"), (formats.short_count(lag), "warn")])
    hits = sum(count for _, count in snapshot.counters)
    if hits:
        parts.append([(f"▲ {formats.short_count(hits)} noted ", "warn"), (key, "key")])
    if snapshot.recorders:
        recorded = sum(one.recorded for one in snapshot.recorders)
        count: Line = [("recorded ", "dim"), (formats.short_count(recorded), "")]
        line = [(" ", ""), *join([*parts, count], " │ ")]
        if line_width(line) <= cells:
            return line
    return [(" ", ""), *join(parts, " │ ")]


def timer_lines(snapshot: Snapshot, now_ns: int, cells: int, rows: int, *, utc: bool) -> list[Line]:
    """One line a timer, with the uptime and the run limit on top."""
    up: Line = [
        (" ", ""),
        ("up ", "dim"),
        (formats.elapsed((now_ns - snapshot.started_ns) / 1e9), "strong"),
        (" since ", "dim"),
        (formats.date_and_time(snapshot.started_ns, utc=utc)[:16], "dim"),
    ]
    limit = run_limit(snapshot, now_ns)
    lines: list[Line] = [[*up, ("   ", ""), *limit] if limit else up]
    for timer in due_first(snapshot.timers):
        if len(lines) >= rows:
            break
        if timer.kind != "run limit" or timer.paused:
            lines.append(timer_line(timer, now_ns, cells, utc=utc))
    return lines


def timer_line(timer: TimerState, now_ns: int, cells: int, *, utc: bool) -> Line:
    """``→ 14:05:00 nightly-sync  in 1:38``."""
    name = fit(printable(timer.name), _name_cells(cells))
    if timer.paused:
        return [(f" {symbols.PAUSED} ", "warn"), ("paused   ", "warn"), (name, "dim")]
    if timer.is_alarm:
        return [(" ", ""), *alarm(timer, name, now_ns), (f"  {printable(timer.detail)}", "dim")]
    if timer.due_ns is None:
        return [(" ○ ", "dim"), ("         ", ""), (name, "dim"), (f" {timer.kind}", "dim")]
    left = formats.countdown((timer.due_ns - now_ns) / 1e9)
    line: Line = [
        (" → ", "info"),
        (f"{formats.time_of_day(timer.due_ns, utc=utc)} ", "dim"),
        (name, ""),
        (f" in {left}", "strong"),
    ]
    return spread(line, [(printable(timer.detail or timer.kind), "dim"), (" ", "")], cells)


def alarm(timer: TimerState, name: str, now_ns: int) -> Line:
    """The beginning of a raised alarm's line: what needs attention, and for how long already."""
    since = timer.silent_since_ns if timer.silent_since_ns is not None else now_ns
    return [
        (f"{symbols.level_sign('bad')} ", "bad"),
        (name, "bad"),
        (f" ALARM: silent for {formats.elapsed((now_ns - since) / 1e9)}", "bad"),
    ]
