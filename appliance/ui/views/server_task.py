"""The server's tasks as lines: one row each, and what is known of the chosen one.

Not for: their order, what a filter hides, the tree of chains (task_list.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.engine_api import ServerTask, Starter
from appliance.model import TaskKind
from appliance.ui import formats, starter_text, symbols
from appliance.ui.columns import Cell, Column, Table
from appliance.ui.lines import Line, join
from appliance.ui.task_list import Row
from appliance.ui.text import cut, first_line, printable

_DAY_S = 86400
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


def row(row: Row, names: Mapping[str, str], now_ns: int, cells: int, *, utc: bool) -> Line:
    """One task."""
    item = row.item
    task = item.task
    known = item.state
    sign = symbols.AWAY if not task.enabled else symbols.sign(known) if known else " "
    tone = symbols.tone(known) if known and task.enabled else "dim"
    since = "" if item.since_ns is None else formats.age((now_ns - item.since_ns) / 1e9)
    usual = "" if item.usual_s is None else f"~{formats.took(item.usual_s)}"
    parts: list[Cell] = [
        (sign, tone),
        [(row.branch, "dim"), (printable(task.name), "" if task.enabled else "dim")],
        (symbols.word(known) if known else "never", tone),
        (since, "dim"),
        (usual, "dim"),
        next_start(item, now_ns, utc=utc),
        starters(item, names),
        (printable(" ".join(task.tags)), "dim"),
        (printable(task.app_name), "dim"),
    ]
    return TABLE.row(cells, parts)


def next_start(item: ServerTask, now_ns: int, *, utc: bool) -> tuple[str, str]:
    """When it is started next: a countdown within a day, then the day."""
    if not item.task.enabled:
        return "disabled", "warn"
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


def foot(
    item: ServerTask,
    names: Mapping[str, str],
    followers: Sequence[str],
    rows: int,
    *,
    utc: bool,
) -> list[Line]:
    """What is known of the chosen task, in at most so many rows."""
    lines = [facts(item)]
    if item.reason:
        lines.append([(f" {cut(printable(first_line(item.reason)), 300)}", "bad")])
    lines += [[(" ", ""), *sentence(one, names, utc=utc)] for one in item.starters]
    if not item.starters:
        lines.append([(" Nothing starts it by itself.", "dim")])
    if followers:
        shown = ", ".join(printable(names.get(one, one)) for one in followers)
        lines.append([(" starts afterwards: ", "dim"), (shown, "")])
    if len(lines) > rows:
        more = len(lines) - rows + 1
        lines = [*lines[: rows - 1], [(f" … {more} more lines: E shows all", "dim")]]
    return lines
