"""One execution as lines: cause, times, steps, reason, log, and how long the task took before.

Not for: the short line of a list (activity.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from appliance.engine_api import HoldState, RuleState, TimerState, WaitState
from appliance.model import Execution, ExecutionState
from appliance.problems import held_text
from appliance.ui import formats, symbols
from appliance.ui.columns import Cell, Column, Table
from appliance.ui.lines import Line, cut_line, line_width
from appliance.ui.text import fit, fit_right, printable, width, words_in, wrap
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
    line.append(
        (f"  {formats.counted(len(runs), 'run')}, {failed} failed", "bad" if failed else "dim")
    )
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
    caption = f"{formats.counted(len(runs), 'run')}, the newest last, {failed} failed"
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
    if execution.node or execution.queued_s is not None:
        waited = "-" if execution.queued_s is None else formats.took(execution.queued_s)
        lines.append(
            [
                (" node     ", "dim"),
                (printable(execution.node) or "-", ""),
                ("   in the server's queue ", "dim"),
                (waited, ""),
            ]
        )
    if execution.reload:
        lines.append([(" reload   ", "dim"), (printable(execution.reload.text), "")])
    if execution.merged:
        further = formats.counted(execution.merged, "further request")
        lines.append([(f" It answers {further} too.", "dim")])
    return lines


def lines(
    execution: Execution,
    before: Sequence[Execution] | None,
    now_ns: int,
    cells: int,
    *,
    utc: bool,
    wait: WaitState | None = None,
) -> list[Line]:
    """The whole of an execution: why first, in full, then what it is and what happened."""
    reason = why(execution, cells)
    found = [*reason, *wait_lines(wait, now_ns, cells, utc=utc)]
    if found:
        found.append([])
    found += facts(execution, now_ns, utc=utc)
    if before is not None:
        found.append(history_line(before))
    found += [[], [(" What happened", "head")], *story(execution, cells, utc=utc)]
    if execution.details:
        found += [[], [(" The server's notes", "head")]]
        for note in execution.details:
            found += _timed(note.at_ns, note.text, cells, utc=utc)
    if execution.log_problem:
        found += [[], [(" No script log", "head")]]
        found += [[(f" {piece}", "warn")] for piece in words_in(execution.log_problem, cells - 2)]
    if execution.log_tail:
        found += [[], *log(execution, cells)]
    return found


def wait_lines(wait: WaitState | None, now_ns: int, cells: int, *, utc: bool) -> list[Line]:
    """Since when it waits, until when, and the keys that end the wait."""
    if wait is None:
        return []
    waited = formats.elapsed((now_ns - wait.since_ns) / 1e9)
    parts = [f"It has waited for {waited}."]
    if wait.until_ns is not None and wait.until_ns > now_ns:
        left = formats.countdown((wait.until_ns - now_ns) / 1e9)
        at = formats.time_of_day(wait.until_ns, utc=utc)
        parts.append(f"It is tried next at {at}, in {left}.")
    else:
        parts.append(_UNTIL[wait.kind])
    found: list[Line] = [[(f" {row}", "info")] for row in words_in(" ".join(parts), cells - 2)]
    keys: Line = [(" f", "key"), (" starts it now  ", "dim")] if wait.kind in _CAN_BE_ENDED else []
    return [*found, [*keys, (" x", "key"), (" takes it back", "dim")]]


_UNTIL: defaultdict[str, str] = defaultdict(
    lambda: "It goes on as soon as it can.",
    {
        "run": "It is started when the present run of the task ends.",
        "turn": "It is started when a worker is free (max_concurrent, max_running).",
        "server": "It is started when the server answers.",
        "paused": "It is paused: space continues it.",
        "hold": "It goes on when the hold is released.",
    },
)
_CAN_BE_ENDED = frozenset({"server", "retry", "debounce", "cooldown", "paused", "hold", "turn"})
"""A look for a run that may be there, and the present run, can't be left out."""


def why(execution: Execution, cells: int) -> list[Line]:
    """The reason, whole; empty where there is nothing to explain."""
    if not execution.reason:
        return []
    state = execution.state
    tone = "bad" if state.is_bad else "warn"
    head: Line = [(f" {symbols.sign(state)} {symbols.word(state)}: ", symbols.tone(state))]
    first, *rest = [
        piece for part in execution.reason.split("\n") for piece in words_in(part, cells - 2)
    ]
    if line_width(head) + width(first) <= cells - 1:
        return [[*head, (first, tone)], *([(f" {piece}", tone)] for piece in rest)]
    return [head, *([(f" {piece}", tone)] for piece in (first, *rest))]


def story(execution: Execution, cells: int, *, utc: bool) -> list[Line]:
    """Steps with their times; a long one goes on in the next row."""
    return [
        line for step in execution.steps for line in _timed(step.at_ns, step.text, cells, utc=utc)
    ]


def _timed(at_ns: int, text: str, cells: int, *, utc: bool) -> list[Line]:
    """A text with its time, whole."""
    at = f" {formats.time_with_ms(at_ns, utc=utc)} "
    first, *rest = words_in(text, cells - len(at) - 1)
    return [
        [(at, "dim"), (first, "")],
        *([(" " * len(at), ""), (piece, "")] for piece in rest),
    ]


def log(execution: Execution, cells: int) -> list[Line]:
    """The last lines of the script log, whole."""
    found: list[Line] = [[(" Script log, last lines", "head")]]
    for part in execution.log_tail:
        found += [[(f" {piece}", "")] for piece in wrap(printable(part), cells - 2)]
    if execution.log_file:
        kept = f"The whole log was kept in the data directory: script-logs/{execution.log_file}"
        found += [[(f" {piece}", "dim")] for piece in wrap(printable(kept), cells - 2)]
    return found


def text(execution: Execution) -> str:
    """What is copied: task, state, reason, log."""
    head = f"{execution.task_name} ({execution.task_id}): {execution.state.value}"
    return "\n".join([head, execution.reason, *execution.log_tail]).strip()


# --- rules and timers ---------------------------------------------------------------------------


RULES = Table(
    Column("", 1),
    Column("RULE / TIMER", 16, 22, 60, keeps_end=True),
    Column("TOPIC", 10, 30, 60, keeps_end=True, from_cells=110),
    Column("STARTS", 8, 31, None),
    Column("LAST/NEXT", 9, right=True),
    Column("MATCHED", 7, right=True),
    Column("STARTED", 7, right=True),
    Column("REJECTED", 8, right=True),
)
"""The list of rules and timers."""


def rule_heading(cells: int) -> Line:
    """The row above the list of rules and timers."""
    return RULES.heading(cells)


def rule_row(rule: RuleState, now_ns: int, cells: int, held: HoldState | None = None) -> Line:
    """A trigger and how it fared, or that it is held."""
    last = "-" if rule.last_ns is None else formats.age((now_ns - rule.last_ns) / 1e9)
    return RULES.row(
        cells,
        (
            (symbols.PAUSED, "warn") if held else (symbols.RULE, "info"),
            (printable(rule.name or rule.topic), "warn" if held else ""),
            (printable(rule.topic), "dim"),
            (_held(held, now_ns), "warn") if held else (printable(rule.target), "dim"),
            (last, ""),
            (formats.short_count(rule.matched), ""),
            (formats.short_count(rule.started), "ok" if rule.started else ""),
            (formats.short_count(rule.rejected), "bad" if rule.rejected else "dim"),
        ),
    )


def _held(hold: HoldState, now_ns: int) -> str:
    return printable(f"held {held_text(hold, now_ns)}")


def timer_row(
    timer: TimerState, now_ns: int, cells: int, *, utc: bool, held: HoldState | None = None
) -> Line:
    """A timer, when it is due, or that it is paused or held."""
    if timer.is_alarm:
        name = fit(printable(timer.name), RULES.widths(cells)[1])
        return [*activity.alarm(timer, name, now_ns), (f"  {printable(timer.detail)}", "dim")]
    is_off = timer.paused or held is not None
    sign = (symbols.PAUSED, "warn") if is_off else (symbols.TIMER, "info")
    name_and_target: tuple[Cell, ...] = (
        (printable(timer.name), "dim" if timer.paused else ""),
        ("", ""),
        (_held(held, now_ns), "warn") if held else (printable(timer.detail or timer.kind), "dim"),
    )
    due: Cell = ("waits", "dim")
    left = ""
    if timer.paused:
        due = ("paused", "warn")
    elif timer.due_ns is not None:
        due = (formats.time_of_day(timer.due_ns, utc=utc), "dim")
        left = f"in {formats.countdown((timer.due_ns - now_ns) / 1e9)}"
    rest = RULES.row(cells, (sign, *name_and_target, due, ("", ""), ("", ""), ("", "")))
    after = 1 + sum(RULES.widths(cells)[-3:]) + 2  # the counts, which a timer has not
    return [*cut_line(rest, cells - after), (f" {left}", "strong")]


def heading(cells: int) -> Line:
    """The row above a list of executions."""
    return activity.TABLE.heading(cells)
