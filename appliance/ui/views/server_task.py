"""The server's tasks as lines: one row each, and what is known of the chosen one.

Not for: their order, what a filter hides, the tree of chains (task_list.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.engine_api import HoldState, ServerTask, Snapshot, Starter
from appliance.model import Execution, TaskKind
from appliance.problems import held_text
from appliance.ui import formats, starter_text, symbols
from appliance.ui.columns import Cell, Column, Table
from appliance.ui.hold_targets import STARTERS
from appliance.ui.lines import Line, cut_line, join
from appliance.ui.task_list import Row
from appliance.ui.text import cut, cut_start, first_line, printable, words_in
from appliance.ui.views import activity

_DAY_S = 86400
_LONGEST = 300
_FOLLOWERS = 20
_WAITS = 5
_CHAIN_ROWS = 200
_BRANCH, _BRANCH_WIDE, _WIDE = 8, 24, 110
"""Cells that the branch of a tree has before a name, and in a terminal of how many cells more."""
TABLE = Table(
    Column("", 1),
    Column("TASK", 18, 32, 70, key="name"),
    Column("LAST", 9, key="state"),
    Column("SINCE", 5, right=True, key="since"),
    Column("USUALLY", 7, right=True, key="usual"),
    Column("NEXT", 9, right=True, key="next"),
    Column("STARTED BY", 20, 34, 80, key="starters"),
    Column("TAGS", 8, 20, None, from_cells=110),
    Column("APP", 8, 20, None, from_cells=130),
)
"""The list of tasks."""


def heading(cells: int, sort: str) -> Line:
    """The row above the list."""
    return TABLE.heading(cells, sort=sort)


def held_tasks(snapshot: Snapshot) -> Mapping[str, HoldState]:
    """The hold of each task that is held by itself; see ``in_the_way`` for one of everything."""
    return {one.name: one for one in snapshot.holds if one.kind == "task"}


def row(
    row: Row,
    names: Mapping[str, str],
    hold: HoldState | None,
    now_ns: int,
    cells: int,
    *,
    utc: bool,
) -> Line:
    """One task."""
    item = row.item
    task = item.task
    known = item.state
    sign = symbols.AWAY if not task.enabled else symbols.sign(known) if known else " "
    tone = symbols.tone(known) if known and task.enabled else "dim"
    since = "" if item.since_ns is None else formats.age((now_ns - item.since_ns) / 1e9)
    usual = "" if item.usual_s is None else f"~{formats.took(item.usual_s)}"
    branch = _branch(row.branch, cells)
    parts: list[Cell] = [
        (sign, tone),
        [
            (branch, "dim"),
            (printable(task.name), "" if task.enabled else "dim"),
        ],
        (symbols.word(known) if known else "never", tone),
        (since, "dim"),
        (usual, "dim"),
        next_start(item, hold, now_ns, utc=utc),
        starters(item, names),
        (printable(" ".join(task.tags)), "dim"),
        (printable(task.app_name), "dim"),
    ]
    return TABLE.row(cells, parts)


def _branch(text: str, cells: int) -> str:
    """The end of a branch says where a task stands; the rest is left to its name."""
    return cut_start(text, _BRANCH if cells < _WIDE else _BRANCH_WIDE)


def next_start(
    item: ServerTask, hold: HoldState | None, now_ns: int, *, utc: bool
) -> tuple[str, str]:
    """When it is started next: a countdown within a day, then the day."""
    if not item.task.enabled:
        return "disabled", "warn"
    if hold is not None:
        return f"{symbols.PAUSED} held", "warn"
    if item.next_ns is None:
        return "", ""
    seconds = (item.next_ns - now_ns) / 1e9
    if seconds < _DAY_S:
        return formats.countdown(seconds), "info"
    return formats.date_and_time(item.next_ns, utc=utc)[5:10], "info"


def starters(item: ServerTask, names: Mapping[str, str]) -> Line:
    """What starts it, in a few words each, those first that go by themselves."""
    parts: list[Line] = []
    for one in item.starters:
        word, name = starter_text.short(one, names)
        parts.append([(f"{word} ", "dim"), (printable(name), "" if one.enabled else "dim")])
    return join(parts, ", ")


def sentence(one: Starter, names: Mapping[str, str], *, utc: bool) -> Line:
    """A line about one thing that starts a task."""
    line: Line = [(f"{starter_text.kind(one)} ", "dim"), (printable(one.name), "")]
    if one.detail:
        line.append((f"  {printable(one.detail)}", "dim"))
    if ends := starter_text.after(one, names):
        line += [("  after ", "dim"), (printable(ends), "")]
    if one.next_ns is not None:
        at = formats.date_and_time(one.next_ns, utc=utc)[:16]
        line.append((f"  next {at}", "info"))
    if not one.enabled:
        line.append(("  off", "warn"))
    return line


def facts(item: ServerTask) -> Line:
    """What the server says of the task itself."""
    task = item.task
    parts: list[Line] = [[(task.id, "dim")]]
    if task.kind is not TaskKind.RELOAD:
        parts.append([(task.kind.text, "")])
    if task.app_name:
        parts.append([("app ", "dim"), (printable(task.app_name), "")])
    if task.partial:
        parts.append([("partial", "")])
    if not task.enabled:
        parts.append([("disabled on the server", "warn")])
    if not item.is_allowed:
        parts.append([("not in [allow]", "warn")])
    if task.tags:
        parts.append([("tags ", "dim"), (printable(", ".join(task.tags)), "")])
    parts += [
        [(f"{printable(name)}=", "dim"), (printable(value), "")] for name, value in task.properties
    ]
    return [(" ", ""), *join(parts, "  ")]


def facts_and_starters(
    item: ServerTask,
    names: Mapping[str, str],
    followers: Sequence[str],
    hold: HoldState | None,
    now_ns: int,
    *,
    utc: bool,
) -> list[Line]:
    """What is known of a task, the most wanted first."""
    lines = [facts(item)]
    if item.reason:
        lines.append([(f" {cut(printable(first_line(item.reason)), _LONGEST)}", "bad")])
    if hold is not None:
        lines.append([(f" {symbols.PAUSED} held {printable(held_text(hold, now_ns))}", "warn")])
    lines += [[(" ", ""), *sentence(one, names, utc=utc)] for one in item.starters]
    if not item.starters:
        lines.append([(" Nothing starts it by itself.", "dim")])
    if followers:
        shown = ", ".join(printable(names.get(one, one)) for one in followers[:_FOLLOWERS])
        more = f" and {len(followers) - _FOLLOWERS} more" if len(followers) > _FOLLOWERS else ""
        lines.append([(" starts afterwards: ", "dim"), (shown + more, "")])
    return lines


def first(lines: list[Line], rows: int, key: str) -> list[Line]:
    """As many lines as there are rows for; ``key`` shows all of them."""
    if len(lines) <= rows:
        return lines
    more = formats.counted(len(lines) - rows + 1, "more line")
    return [*lines[: rows - 1], [(f" … {more}: {key} shows all", "dim")]]


def state(item: ServerTask, execution: Execution | None, now_ns: int) -> Line:
    """Its newest execution: how far it is, or how it ended and how long ago."""
    if item.state is None:
        return [(" It is not known to have run.", "dim")]
    tone = symbols.tone(item.state)
    line: Line = [(f" {symbols.sign(item.state)} ", tone)]
    line += (
        activity.progress(execution, now_ns) if execution else [(symbols.word(item.state), tone)]
    )
    if item.since_ns is not None and item.state.is_final:
        line.append((f"  {formats.ago((now_ns - item.since_ns) / 1e9)}", "dim"))
    if item.usual_s is not None:
        line.append((f"  usually ~{formats.took(item.usual_s)}", "dim"))
    return line


def any_task(rules: Sequence[str], cells: int) -> list[Line]:
    """The rules that may start it, as any task."""
    if not rules:
        return []
    text = f"Rules that start whatever task a message names: {', '.join(map(printable, rules))}."
    return [[(f" {words}", "dim")] for words in words_in(text, cells - 2)]


def in_the_way(
    item: ServerTask,
    execution: Execution | None,
    hold: HoldState | None,
    snapshot: Snapshot,
    now_ns: int,
) -> list[str]:
    """Why a start that is asked for now would not begin at once, a sentence each."""
    found = []
    if not item.task.enabled:
        found.append("The server has it disabled: it refuses a start. Enable it there.")
    if not item.is_allowed:
        found.append("[allow] of the configuration does not have it: a start is rejected.")
    if hold is not None:
        found.append(f"It is held {held_text(hold, now_ns)}.")
    starting = {(STARTERS.get(one.kind, ""), one.name) for one in item.starters}
    for one in snapshot.holds:
        if one.kind == "everything":
            found.append(f"Everything is held {held_text(one, now_ns)}.")
        elif (one.kind, one.name) in starting:
            found.append(f"Its {one.kind} {one.name} is held {held_text(one, now_ns)}.")
    if snapshot.qlik.is_away:
        found.append("The Qlik server does not answer: starts wait until it does.")
    is_open = execution is not None and not execution.state.is_final
    waits = [one for one in snapshot.waits if one.task_id == item.task.id]
    found += [f"{one.name} waits: {one.reason}" for one in waits[:_WAITS]]
    if is_open and not waits and execution is not None:
        found.append(
            f"Execution {execution.id} is {symbols.word(execution.state)}: what a further start "
            "does meanwhile, `if_running` of its rule says."
        )
    return found


def obstacles(texts: Sequence[str], cells: int) -> list[Line]:
    """What stands in the way, or that nothing does."""
    if not texts:
        return [[(" Nothing stands in the way of a start.", "ok")]]
    return [
        [(f" {words}", "warn")] for text in texts for words in words_in(printable(text), cells - 2)
    ]


def chain(rows: Sequence[Row], task_id: str, cells: int) -> list[Line]:
    """The chain that a task is part of, as a tree."""
    lines: list[Line] = [[], [(" Its chain", "head")]]
    for one in rows[:_CHAIN_ROWS]:
        item, is_it = one.item, one.item.task.id == task_id
        sign = symbols.sign(item.state) if item.state else " "
        lines.append(
            cut_line(
                [
                    (f" {sign} ", symbols.tone(item.state) if item.state else "dim"),
                    (one.branch, "dim"),
                    (printable(item.task.name), "strong" if is_it else ""),
                ],
                cells,
            )
        )
    if len(rows) > _CHAIN_ROWS:
        lines.append([(f" … {len(rows) - _CHAIN_ROWS} more", "dim")])
    return lines
