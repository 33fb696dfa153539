"""One execution as lines: cause, times, steps, reason, log, and how long the task took before.

Not for: the short line of a list (activity.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.engine_api import RuleState, TimerState
from appliance.model import Execution, ExecutionState
from appliance.ui import formats, symbols
from appliance.ui.lines import Line, spread
from appliance.ui.text import cut_start, fit, fit_right, printable
from appliance.ui.views import activity
from appliance.ui.views.message import cause_line

_HISTORY_CELLS = 40
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LABEL_CELLS = 10
_LEAST_PLOT = 3
"""Rows below which the runs are a single line."""


def history_line(executions: Sequence[Execution]) -> Line:
    """Durations of a task's runs as bars, oldest first; a run that failed has a sign instead."""
    runs = [one for one in executions if one.state.is_final][:_HISTORY_CELLS][::-1]
    seconds = [symbols.seconds_running(one, 0) for one in runs]
    known = [value for value in seconds if value is not None]
    if not known:
        return [(" No earlier run is known.", "dim")]
    line: Line = [(" runs     ", "dim")]
    bars = formats.sparkline(tuple(value or 0.0 for value in seconds), len(seconds))
    for run, piece in zip(runs, bars, strict=True):
        good = run.state is ExecutionState.SUCCEEDED
        line.append((piece if good else symbols.sign(run.state), symbols.tone(run.state)))
    failed = sum(1 for run in runs if run.state.is_bad)
    line.append((f"  {formats.took(min(known))} to {formats.took(max(known))}", "dim"))
    line.append((f"  {len(runs)} runs, {failed} failed", "bad" if failed else "dim"))
    return line


def plot(executions: Sequence[Execution], cells: int, rows: int) -> list[Line]:
    """A task's runs, newest last, as columns as high as they took long; what failed has its sign.

    ``executions`` are newest first, as in every list.
    """
    if rows < _LEAST_PLOT:
        return [history_line(executions)]
    runs = [one for one in executions if one.state.is_final][: max(1, cells - _LABEL_CELLS)][::-1]
    seconds = [symbols.seconds_running(one, 0) or 0.0 for one in runs]
    longest = max(seconds, default=0.0)
    if not longest:
        return [history_line(executions)]
    failed = sum(1 for one in runs if one.state.is_bad)
    height = rows - 1
    lines: list[Line] = []
    for row in range(height - 1, -1, -1):
        label = formats.took(longest) if row == height - 1 else "0" if row == 0 else ""
        line: Line = [(f"{fit_right(label, _LABEL_CELLS - 3)} ", "dim"), ("│", "dim")]
        for run, took in zip(runs, seconds, strict=True):
            eighths = min(8, max(0, round(took / longest * height * 8) - row * 8))
            sign = _EIGHTHS[eighths]
            if row == 0 and run.state is not ExecutionState.SUCCEEDED:
                sign = symbols.sign(run.state)
            elif row == 0 and not eighths:
                sign = _EIGHTHS[1]
            line.append((sign, symbols.tone(run.state)))
        lines.append(line)
    caption = f"{len(runs)} runs, the newest last, {failed} failed"
    lines.append([(" " * _LABEL_CELLS, ""), (caption, "bad" if failed else "dim")])
    return lines


def facts(execution: Execution, now_ns: int, *, utc: bool) -> list[Line]:
    """The head of an execution's detail."""
    state = execution.state

    def when(at_ns: int | None) -> str:
        return "-" if at_ns is None else formats.date_and_time(at_ns, utc=utc)

    lines: list[Line] = [
        [
            (" task     ", "dim"),
            (printable(execution.task_name), "strong"),
            (f"  {printable(execution.task_id)}", "dim"),
        ],
        [
            (" state    ", "dim"),
            (f"{symbols.sign(state)} ", symbols.tone(state)),
            *activity.progress(execution, now_ns, 20),
        ],
        cause_line(execution),
        [(" asked    ", "dim"), (when(execution.requested_ns), "")],
        [
            (" started  ", "dim"),
            (when(execution.started_ns), ""),
            ("   ended ", "dim"),
            (when(execution.ended_ns), ""),
        ],
        [
            (" attempts ", "dim"),
            (str(execution.attempts), ""),
            ("   usual ", "dim"),
            ("-" if execution.usual_s is None else formats.took(execution.usual_s), ""),
            ("   Qlik's id ", "dim"),
            (printable(execution.execution_id) or "-", ""),
        ],
    ]
    if execution.merged:
        lines.append([(f" It answers {execution.merged} further requests too.", "dim")])
    return lines


def story(execution: Execution, *, utc: bool) -> list[Line]:
    """Steps with their times, the reason, the log's last lines."""
    lines: list[Line] = [
        [(f" {formats.time_with_ms(step.at_ns, utc=utc)} ", "dim"), (printable(step.text), "")]
        for step in execution.steps
    ]
    if execution.reason:
        tone = "bad" if execution.state.is_bad else "warn"
        lines += [[], [(" Why", "head")]]
        lines += [[(f" {printable(part)}", tone)] for part in execution.reason.split("\n")]
    if execution.log_tail:
        lines += [[], [(" Script log, last lines", "head")]]
        lines += [[(f" {printable(part)}", "")] for part in execution.log_tail]
    return lines


def text(execution: Execution) -> str:
    """What is copied: task, state, reason, log."""
    head = f"{execution.task_name} ({execution.task_id}): {execution.state.value}"
    return "\n".join([head, execution.reason, *execution.log_tail]).strip()


# --- rules and timers ---------------------------------------------------------------------------


def rule_heading(cells: int) -> Line:
    """The row above the list of rules and timers."""
    first, second = _columns(cells)
    return [
        (fit("  RULE / TIMER", first) + " " + fit("STARTS", second - 2), "head"),
        ("LAST/NEXT  MATCHED  STARTED  REJECTED", "head"),
    ]


def _columns(cells: int) -> tuple[int, int]:
    room = cells - 37
    first = max(16, room * 55 // 100)
    return first, max(8, room - first)


def rule_row(rule: RuleState, now_ns: int, cells: int) -> Line:
    """A trigger and how it fared."""
    first, second = _columns(cells)
    last = "-" if rule.last_ns is None else formats.age((now_ns - rule.last_ns) / 1e9)
    return [
        ("◆ ", "info"),
        (fit(cut_start(printable(rule.name or rule.topic), first - 2), first - 2) + " ", ""),
        (fit(printable(rule.target), second), "dim"),
        (fit_right(last, 7), ""),
        (fit_right(formats.short_count(rule.matched), 9), ""),
        (fit_right(formats.short_count(rule.started), 9), "ok" if rule.started else ""),
        (fit_right(formats.short_count(rule.rejected), 10), "bad" if rule.rejected else "dim"),
    ]


def timer_row(timer: TimerState, now_ns: int, cells: int, *, utc: bool) -> Line:
    """A timer, when it is due, or that it is paused."""
    first, second = _columns(cells)
    if timer.is_alarm:
        name = fit(printable(timer.name), first - 2)
        return [*activity.alarm(timer, name, now_ns), (f"  {printable(timer.detail)}", "dim")]
    line: Line = [
        (f"{symbols.PAUSED} " if timer.paused else "→ ", "warn" if timer.paused else "info"),
        (fit(printable(timer.name), first - 2) + " ", "dim" if timer.paused else ""),
        (fit(printable(timer.detail or timer.kind), second), "dim"),
    ]
    if timer.paused:
        return [*line, ("  paused", "warn")]
    if timer.due_ns is None:
        return [*line, ("  waits", "dim")]
    left = formats.elapsed((timer.due_ns - now_ns) / 1e9)
    due = formats.time_of_day(timer.due_ns, utc=utc)
    return [*line, (f"  {due}", "dim"), (f"  in {left}", "strong")]


def heading(cells: int) -> Line:
    """The row above a list of executions."""
    return spread([("  STARTED  TASK", "head")], [("BY ", "head")], cells - 1)
