"""What is wrong and what was noted, as rows and as a text in full.

Not for: deciding what is wrong (appliance/problems.py).
"""

from __future__ import annotations

import msgspec

from appliance.counters import label_of, text_of
from appliance.engine_api import Snapshot
from appliance.model import Execution
from appliance.problems import Problem, problems
from appliance.ui import formats, symbols
from appliance.ui.lines import Line
from appliance.ui.text import cut, first_line, fit_right, printable, words_in
from appliance.ui.views import bridge as bridge_view
from appliance.ui.views import execution as execution_view

_COUNT_CELLS = 8


class Noted(msgspec.Struct, frozen=True):
    """A refusal or a limit that was reached, and how often since the start."""

    name: str
    count: int


Entry = Problem | Noted


def entries(snapshot: Snapshot) -> list[Entry]:
    """Every problem, the worst first, then everything that was noted, the most frequent first."""
    noted = [Noted(name, count) for name, count in snapshot.counters if count]
    return [*problems(snapshot), *sorted(noted, key=lambda one: (-one.count, one.name))]


def row(entry: Entry, cells: int) -> Line:
    """One entry in a list."""
    if isinstance(entry, Problem):
        tone = symbols.level_tone(entry.level)
        sign = f"{symbols.level_sign(entry.level)} "
        return [(sign, tone), (cut(first_line(entry.text), cells - 2), tone)]
    count = fit_right(formats.number(entry.count), _COUNT_CELLS)
    label = printable(label_of(entry.name))
    line: Line = [("▲ ", "warn"), (f"{count}  ", "warn"), (label, "")]
    room = cells - 2 - _COUNT_CELLS - 2 - len(label) - 2
    if room > 0:
        line.append((f"  {cut(text_of(entry.name), room)}", "dim"))
    return line


def text(
    entry: Entry, execution: Execution | None, snapshot: Snapshot, cells: int, *, utc: bool
) -> list[Line]:
    """The whole of an entry; ``execution`` is the one behind it, if there is one."""
    if isinstance(entry, Noted):
        since = formats.date_and_time(snapshot.started_ns, utc=utc)[:19]
        head = f"{label_of(entry.name)}: {formats.number(entry.count)} since {since}"
        body = text_of(entry.name) or "This version knows no more about it."
        return [*_paragraph(head, "warn", cells), *_paragraph(body, "", cells)]
    tone = symbols.level_tone(entry.level)
    if entry.place.kind == "server":
        return [*_paragraph(entry.text, tone, cells), *_server(snapshot, cells, utc=utc)]
    bridge = next((one for one in snapshot.bridges if one.name == entry.place.name), None)
    if bridge is not None and entry.place.kind == "bridge":
        about = bridge_view.facts(bridge, snapshot.taken_ns, cells, utc=utc, key="f")
        return [*_paragraph(entry.text, tone, cells), [], *about]
    if execution is None:
        return [row for part in entry.text.split("\n") for row in _paragraph(part, tone, cells)]
    lines = _paragraph(execution.task_name or execution.task_id, "strong", cells)
    lines += execution_view.why(execution, cells)
    wait = next((one for one in snapshot.waits if one.execution == execution.id), None)
    lines += execution_view.wait_lines(wait, snapshot.taken_ns, cells, utc=utc)
    if execution.log_tail:
        lines.append([])
        lines += execution_view.log(execution, cells)
    return lines


def _server(snapshot: Snapshot, cells: int, *, utc: bool) -> list[Line]:
    """Since when the server is away, when it is asked next, and what waits for it."""
    qlik, now_ns = snapshot.qlik, snapshot.taken_ns
    if not qlik.is_away:
        return []
    parts = []
    if qlik.away_since_ns is not None:
        since = formats.time_of_day(qlik.away_since_ns, utc=utc)
        ago = formats.elapsed((now_ns - qlik.away_since_ns) / 1e9)
        parts.append(f"It is away since {since} ({ago}). No start is sent to it meanwhile.")
    if qlik.next_check_ns is not None:
        left = formats.countdown((qlik.next_check_ns - now_ns) / 1e9)
        parts.append(f"It is asked again in {left}; f asks now.")
    count = sum(one.kind in ("server", "retry", "look") for one in snapshot.waits)
    if count:
        parts.append(f"{formats.counted(count, 'start')} wait{'s' * (count == 1)} for it.")
    return [[], *_paragraph(" ".join(parts), "info", cells)]


def _paragraph(text: str, tone: str, cells: int) -> list[Line]:
    return [[(f" {piece}", tone)] for piece in words_in(text, cells - 2)]
