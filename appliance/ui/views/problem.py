"""What is wrong and what was noted, as rows and as a text in full.

Not for: deciding what is wrong (appliance/problems.py).
"""

from __future__ import annotations

import msgspec

from appliance.counters import label_of, text_of
from appliance.engine_api import Acknowledgement, CounterBite, Snapshot
from appliance.model import Execution
from appliance.problems import Problem, acknowledged, problems
from appliance.ui import formats, symbols
from appliance.ui.lines import Line
from appliance.ui.text import cut, first_line, fit_right, printable, width, words_in
from appliance.ui.views import bridge as bridge_view
from appliance.ui.views import execution as execution_view

_COUNT_CELLS = 8
_MAX_WAITS = 20
"""Starts that are listed below a hold."""


class Noted(msgspec.Struct, frozen=True):
    """A refusal or a limit that was reached, and how often since the start."""

    name: str
    count: int


Entry = Problem | Acknowledgement | Noted


def entries(snapshot: Snapshot) -> list[Entry]:
    """Every problem, the worst first, then what operators acknowledged, the newest first.

    Then all that was noted and stands in neither, the most frequent first.
    """
    wrong, known = problems(snapshot), acknowledged(snapshot)
    named = {one.name for one in wrong if one.kind == "counter"}
    named |= {one.name for one in known if one.kind == "counter"}
    noted = [Noted(name, count) for name, count in snapshot.counters if count and name not in named]
    return [*wrong, *known, *sorted(noted, key=lambda one: (-one.count, one.name))]


def words_of(entry: Entry) -> str:
    """What a filter looks at."""
    match entry:
        case Noted():
            return entry.name
        case Acknowledgement():
            return f"{entry.text} {entry.by} {entry.note}"
        case Problem():
            return entry.text


def row(entry: Entry, cells: int) -> Line:
    """One entry in a list."""
    if isinstance(entry, Problem):
        tone = symbols.level_tone(entry.level)
        sign = f"{symbols.level_sign(entry.level)} "
        return [(sign, tone), (cut(first_line(entry.text), cells - 2), tone)]
    if isinstance(entry, Acknowledgement):
        who = cut(printable(entry.note or entry.by), cells // 3)
        room = cells - 2 - 2 - width(who)
        return [("✓ ", "dim"), (cut(first_line(entry.text), room), "dim"), ("  ", ""), (who, "")]
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
    if isinstance(entry, Acknowledgement):
        return _acknowledgement(entry, cells, utc=utc)
    tone = symbols.level_tone(entry.level)
    if entry.held is not None:
        return [*_paragraph(entry.text, tone, cells), *_what_waits(entry, snapshot, cells, utc=utc)]
    if entry.kind == "counter":
        bite = next((one for one in snapshot.bites if one.name == entry.name), None)
        return [*_paragraph(entry.text, tone, cells), *_times(bite, cells, utc=utc)]
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


def _acknowledgement(entry: Acknowledgement, cells: int, *, utc: bool) -> list[Line]:
    at = formats.date_and_time(entry.at_ns, utc=utc)[:19]
    lines = _paragraph(f"acknowledged by {entry.by} at {at}", "ok", cells)
    if entry.note:
        lines += _paragraph(entry.note, "strong", cells)
    lines.append([])
    for part in entry.text.split("\n"):
        lines += _paragraph(part, "dim", cells)
    return [*lines, [], *_paragraph("It is a problem again when it happens again.", "dim", cells)]


def _what_waits(entry: Problem, snapshot: Snapshot, cells: int, *, utc: bool) -> list[Line]:
    """The starts that wait for the end of a hold, those that were asked for first on top."""
    held = next((one for one in snapshot.holds if (one.kind, one.name) == entry.held), None)
    if held is None or not held.waiting:
        return []
    waits = [
        one for one in snapshot.waits if one.kind == "hold" and f"({held.shown})" in one.reason
    ]
    waits.sort(key=lambda one: one.since_ns)
    lines: list[Line] = [[], [(" What waits:", "head")]]
    for one in waits[:_MAX_WAITS]:
        since = formats.time_of_day(one.since_ns, utc=utc)
        name = cut(printable(one.name), cells - 20)
        lines.append([(f" {name}", ""), (f"  since {since}", "dim")])
    if (more := held.waiting - min(len(waits), _MAX_WAITS)) > 0:
        further = f" {'and ' if waits else ''}{formats.counted(more, 'start')}"
        lines.append([(f"{further}; screen 3 has all", "dim")])
    return lines


def _times(bite: CounterBite | None, cells: int, *, utc: bool) -> list[Line]:
    """When a counter began to grow, and when it did last."""
    if bite is None:
        return []
    since = formats.date_and_time(bite.since_ns, utc=utc)[:19]
    last = formats.date_and_time(bite.last_ns, utc=utc)[:19]
    words = f"Since {since}, last at {last}." if since != last else f"At {since}."
    return [[], *_paragraph(words, "info", cells)]


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
