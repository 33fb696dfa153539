"""Counters, journal and recorders as lines.

Not for: one number on the status line (page_frame.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.counters import label_of, text_of
from appliance.engine_api import Health, JournalState, RecorderState, Snapshot, UploadState
from appliance.ui import formats
from appliance.ui.lines import Line, join, line_width
from appliance.ui.symbols import level_sign, level_tone
from appliance.ui.text import cut, cut_start, fit, printable

_ROOMY = 70
"""Columns from which the loop's lateness stands beside the traffic."""

_READABLE = 40
"""Columns from which a counter's meaning stands beside it."""

_WIDE = 110
"""Columns from which a recorder's name and its details are shown."""
_NAME_CELLS = 14
_TARGET_CELLS = 60
"""Further away from what it writes, a recorder's numbers would be hard to follow."""
_LATE = 1000
"""Messages that a recorder may be behind before it is shown as late."""
_IN_TARGET = frozenset({"database", "table", "collection"})
"""Details that the target says already."""

_NEVER: Mapping[str, int] = {}

_LATE_MS = 50.0
"""Lateness of the loop that clients notice."""


def traffic_line(snapshot: Snapshot, cells: int) -> Line:
    """Messages and bytes since the start and now; how late the loop is, if there is room."""
    parts: list[Line] = [
        [("in ", "dim"), (f"{formats.number(round(snapshot.rate_in))}/s", "strong")],
        [("out ", "dim"), (f"{formats.number(round(snapshot.rate_out))}/s", "")],
        [("total ", "dim"), (formats.number(snapshot.messages_in), "")],
        [(formats.size(snapshot.bytes_in), "dim")],
    ]
    if cells >= _ROOMY or snapshot.loop_lag_ms >= _LATE_MS:
        tone = "warn" if snapshot.loop_lag_ms >= _LATE_MS else ""
        parts.append([("loop ", "dim"), (f"{snapshot.loop_lag_ms:.0f} ms late", tone)])
    return [(" ", ""), *join(parts, "  ")]


def journal_line(journal: JournalState) -> Line:
    """The journal: health, size, what waits for its commit."""
    tone = level_tone(journal.health.level)
    line: Line = [
        (f" {level_sign(journal.health.level)} ", tone),
        ("journal ", ""),
        (f"{formats.size(journal.size_bytes)}", "dim"),
        ("  pending ", "dim"),
        (formats.number(journal.pending), ""),
        ("  commit ", "dim"),
        (f"{journal.commit_ms:.1f} ms", ""),
    ]
    if journal.health.level in ("bad", "warn"):
        line.append((f"  {printable(journal.health.text)}", tone))
    return line


def _link_line(link: Health) -> Line:
    """How an attached terminal reaches the appliance, and as what."""
    tone = level_tone(link.level)
    return [(f" {level_sign(link.level)} ", tone), ("attached ", ""), (printable(link.text), "dim")]


def recorder_lines(snapshot: Snapshot, cells: int) -> list[Line]:
    """A line for each recorder: health, what it writes, messages, files, lag, uploads."""
    tails = [
        [] if _is_unwell(one) else [("  ", ""), *join(_figures(one, cells), "  ")]
        for one in snapshot.recorders
    ]
    longest = max(map(line_width, tails), default=0)
    return [
        _recorder(one, tail, longest, snapshot.data_dir, cells)
        for one, tail in zip(snapshot.recorders, tails, strict=True)
    ]


def _is_unwell(recorder: RecorderState) -> bool:
    return recorder.health.level in ("bad", "warn")


def _recorder(
    recorder: RecorderState, tail: Line, longest_tail: int, data_dir: str, cells: int
) -> Line:
    tone = level_tone(recorder.health.level)
    head: Line = [(f" {level_sign(recorder.health.level)} ", tone)]
    target = printable(formats.target(recorder.shown, data_dir))
    if _is_unwell(recorder):
        name = (
            fit(printable(recorder.name) or target, _NAME_CELLS)
            if cells >= _WIDE
            else (printable(recorder.name) or cut_start(target, 20))
        )
        return [*head, (name, "strong"), (f"  {printable(recorder.health.text)}", tone)]
    if cells >= _WIDE and recorder.name:
        head.append((f"{fit(printable(recorder.name), _NAME_CELLS)} ", "strong"))
    room = max(12, cells - line_width(head) - longest_tail)
    return [*head, (fit(cut_start(target, room), min(room, _TARGET_CELLS)), ""), *tail]


def _figures(recorder: RecorderState, cells: int) -> list[Line]:
    """What stands behind a recorder's target, the most important first."""
    unit: Line = [(" msgs", "dim")] if cells >= _ROOMY else []
    parts: list[Line] = [[(formats.number(recorder.recorded), "strong"), *unit]]
    if recorder.mode != "append":
        parts.append([(recorder.mode, "dim")])
    if recorder.files > 1:
        parts.append([(formats.counted(recorder.files, "file"), "dim")])
    if recorder.files:
        parts.append([(formats.size(recorder.size_bytes), "dim")])
    late = "warn" if recorder.lag > _LATE else "dim"
    parts.append([(f"{formats.number(recorder.lag)} behind", late)])
    if recorder.upload is not None:
        parts.append([_upload(recorder.upload)])
    shown = (f"{name} {value}" for name, value in recorder.details if name not in _IN_TARGET)
    if cells >= _WIDE:
        parts += [[(printable(text), "dim")] for text in shown]
    return parts


def _upload(upload: UploadState) -> tuple[str, str]:
    if upload.health.level in ("bad", "warn"):
        return f"upload: {printable(upload.health.text)}", level_tone(upload.health.level)
    if upload.waiting:
        return f"{formats.number(upload.waiting)} to upload", "info"
    return f"{formats.number(upload.uploaded)} uploaded", "dim"


def _counter_line(name: str, count: int, cells: int, age: str = "") -> Line:
    """A counter: how often, its label, how long ago, and what it means if there is room."""
    number, label, text = f"{formats.number(count):>8}  ", printable(label_of(name)), text_of(name)
    line: Line = [(" ▲ ", "warn"), (number, "warn"), (label, "")]
    if age:
        line.append((f"  {age} ago", "strong"))
    room = cells - line_width(line) - 3
    if text and room >= _READABLE:
        line.append((f"  {cut(text, room)}", "dim"))
    return line


def noted_lines(
    snapshot: Snapshot, cells: int, risen_ns: Mapping[str, int] = _NEVER, now_ns: int = 0
) -> list[Line]:
    """Every bound that bit, the one that rose last first. ``risen_ns``: when each one rose."""
    hits = [(name, count) for name, count in snapshot.counters if count]
    if not hits:
        return [[(" Nothing was refused or dropped.", "dim")]]
    hits.sort(key=lambda hit: -risen_ns.get(hit[0], 0))

    def age(name: str) -> str:
        risen = risen_ns.get(name)
        return "" if risen is None else formats.age((now_ns - risen) / 1e9)

    return [_counter_line(name, count, cells, age(name)) for name, count in hits]


def work_lines(snapshot: Snapshot, cells: int) -> list[Line]:
    """How an attached terminal is attached, traffic, journal, recorders."""
    lines = [] if snapshot.link is None else [_link_line(snapshot.link)]
    lines += [traffic_line(snapshot, cells), journal_line(snapshot.journal)]
    return [*lines, *recorder_lines(snapshot, cells)]


def counter_lines(snapshot: Snapshot, cells: int, rows: int) -> list[Line]:
    """Traffic, journal, recorders, then the bounds that bit, as far as there is room."""
    lines = [*work_lines(snapshot, cells), *noted_lines(snapshot, cells)]
    if len(lines) > rows:
        more = len(lines) - rows + 1
        lines = [*lines[: rows - 1], [(f" … {more} more on screen 4", "dim")]]
    return lines
