"""The lines around every screen: status, tabs, the worst problem, keys.

The first line begins with the verdict: ``✓ all well`` or ``✗ 2 problems``. If there are problems, a
third line names the worst one.
Not for: the body of a screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address

from appliance.engine_api import Health, Snapshot
from appliance.ui import formats, keys
from appliance.ui.lines import Line, cut_line, join, line_width, spread
from appliance.ui.symbols import level_sign, level_tone
from appliance.ui.text import printable

MIN_COLUMNS, MIN_ROWS = 80, 24
"""The smallest terminal that the screens are laid out for."""

WIDE = 120
"""Columns from which the wide layout is used."""

TABS = (
    ("live", "Live"),
    ("topics", "Topics"),
    ("tasks", "Tasks"),
    ("clients", "Clients"),
    ("log", "Log"),
)
_ORDER = {"bad": 0, "warn": 1, "off": 2, "ok": 3}
_HOST_CELLS = 12
_GAP = 2
"""Cells between two entries of the footer."""

_LEAST_WHO = 12
"""Cells that an attached terminal's appliance and user have at least."""

_LOW_DISK_BYTES = 1_000_000_000


def worst(parts: list[Health]) -> Health:
    """The health that needs attention most; ``off`` if there is none."""
    return min(parts, key=lambda part: _ORDER.get(part.level, 1), default=Health("off"))


def problems(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What is wrong now, (level, text), the worst first."""
    found: list[tuple[str, str]] = []

    def look(what: str, health: Health) -> None:
        if health.level in ("bad", "warn"):
            found.append((health.level, f"{what}: {health.text or 'not well'}"))

    if snapshot.link is not None:
        look("connection", snapshot.link)
    look("journal", snapshot.journal.health)
    if snapshot.data is not None:
        look("data", snapshot.data)
    if snapshot.memory is not None:
        look("memory", snapshot.memory)
    for listener in snapshot.listeners:
        look(f"listener {listener.name or listener.bind}", listener.health)
    look(f"Qlik {snapshot.qlik.label}", snapshot.qlik.health)
    for recorder in snapshot.recorders:
        look(f"recorder {recorder.path}", recorder.health)
    found += [
        ("bad", f"timer {timer.name}: {timer.detail}")
        for timer in snapshot.timers
        if timer.is_alarm
    ]
    free = snapshot.journal.disk_free_bytes
    if 0 < free < _LOW_DISK_BYTES and snapshot.journal.health.level == "ok":
        found.append(("warn", f"disk: only {formats.size(free)} free in {snapshot.data_dir}"))
    return sorted(found, key=lambda problem: _ORDER[problem[0]])


def _light(health: Health) -> Line:
    return [(level_sign(health.level), level_tone(health.level))]


def verdict(snapshot: Snapshot) -> Line:
    """All is well, or the number of problems."""
    if snapshot.stopping:
        return [("■ stopping", "warn")]
    if snapshot.starting:
        return [("◌ starting", "info")]
    found = problems(snapshot)
    if not found:
        return [("✓ all well", "ok")]
    level = found[0][0]
    return [(f"{level_sign(level)} {formats.counted(len(found), 'problem')}", level_tone(level))]


def _ports(snapshot: Snapshot) -> list[str]:
    return [f":{listener.bind.rpartition(':')[2]}" for listener in snapshot.listeners]


def status(snapshot: Snapshot, now_ns: int, cells: int, *, utc: bool) -> Line:
    """The first line: verdict, broker, Qlik, recorder, clock."""
    wide = cells >= WIDE
    ports = _ports(snapshot)
    broker: Line = [*_light(worst([one.health for one in snapshot.listeners])), (" broker ", "")]
    if wide:
        count = formats.counted(snapshot.clients_connected, "client")
        broker += [(" ".join(ports), "dim"), (f"  {count}  ", "")]
        broker += [(f"{formats.number(round(snapshot.rate_in))} msg/s", "strong")]
    else:
        more = f"+{len(ports) - 1}" if len(ports) > 1 else ""
        broker += [(("".join(ports[:1]) + more), "dim"), (f" {snapshot.clients_connected}c ", "")]
        broker += [(f"{formats.short_count(snapshot.rate_in)}/s", "strong")]
    now: Line = [(formats.time_of_day(now_ns, utc=utc), ""), ("Z " if utc else " ", "dim")]
    parts = [verdict(snapshot), broker, _qlik(snapshot, wide, 40), _recorder(snapshot, wide)]
    if wide:
        parts.insert(0, [(f"{snapshot.name} {snapshot.version}", "strong")])
    left: Line = []
    for gap in ("  │  ", " │ ", "│") if wide else (" │ ", "│"):
        left = [(" ", ""), *join(parts, gap)]
        if line_width(left) + line_width(now) < cells:
            break
        parts[-2] = _qlik(snapshot, wide, 12)
    return spread(left, now, cells)


@lru_cache(maxsize=8)
def _short(label: str) -> str:
    """A host without its domain; half an address would be another machine's."""
    try:
        ip_address(label.strip("[]"))
    except ValueError:
        return label.partition(".")[0][:_HOST_CELLS]
    return label


def _qlik(snapshot: Snapshot, wide: bool, label_cells: int) -> Line:
    qlik = snapshot.qlik
    label = qlik.label if wide and len(qlik.label) <= label_cells else _short(qlik.label)
    line: Line = [*_light(qlik.health), (f" {label or 'Qlik'}", "")]
    if qlik.health.level == "off":
        return [*line, (" off", "dim")]
    space = " " if wide else ""
    line.append((f" {qlik.running}{space}▶", "run" if qlik.running else "dim"))
    if qlik.waiting:
        line.append((f" {qlik.waiting}{space}◌", "info"))
    line.append((f" {qlik.failed_24h}{space}✗", "bad" if qlik.failed_24h else "dim"))
    return line


def _recorder(snapshot: Snapshot, wide: bool) -> Line:
    journal = snapshot.journal
    light = _light(worst([journal.health, *(one.health for one in snapshot.recorders)]))
    lag = formats.notable_lag(snapshot.recorders)
    if not wide:
        name = " rec " if snapshot.recorders else " disk "
        return [*light, (name, ""), (formats.short_size(journal.disk_free_bytes), "dim")]
    files = len(snapshot.recorders)
    name = f" {formats.counted(files, 'recorder')}" if files else " journal"
    late = f"  {formats.number(lag)} behind" if lag else ""
    return [*light, (name + late, ""), (f"  {formats.size(journal.disk_free_bytes)} free", "dim")]


def identity(snapshot: Snapshot) -> Line:
    """Of an attached terminal: the appliance's name, the signed-in user and the role."""
    if snapshot.link is None:
        return []
    user = f"{printable(snapshot.user)} " if snapshot.user else ""
    return [
        (printable(snapshot.name), "strong"),
        (f" {user}{snapshot.role}".rstrip(), "dim"),
        ("  ", ""),
    ]


def tabs(active: str, cells: int, right: Line, who: Line) -> Line:
    """The second line: the screens, ``who`` is attached, and ``right`` (filter, follow).

    Where the room is small, ``who`` is shortened.
    """
    line: Line = [(" ", "")]
    for number, (name, label) in enumerate(TABS, 1):
        if name == active:
            line += [(f"[{number}]{label}", "accent"), ("  ", "")]
        else:
            line += [(f"{number} ", "key"), (f"{label}  ", "dim")]
    end: Line = [*right, (" ", "")] if right else []
    who = cut_line(who, max(_LEAST_WHO, cells - line_width(line) - line_width(end) - 1))
    return spread(line, [*who, *end], cells) if who or end else line


def alert(snapshot: Snapshot, trouble: str = "") -> Line | None:
    """The worst problem in words, or ``None``; ``trouble``: why the snapshot is an old one."""
    if trouble:
        return [(f" ✗ The engine does not answer, this is old: {trouble}", "bad")]
    found = problems(snapshot)
    if not found:
        return None
    level, text = found[0]
    line: Line = [(f" {level_sign(level)} ", level_tone(level)), (text, level_tone(level))]
    if len(found) > 1:
        line.append((f"   (+{len(found) - 1} more on 4 Clients)", "dim"))
    return line


def footer(
    scopes: tuple[str, ...], chosen: Mapping[str, tuple[str, ...]], cells: int
) -> tuple[Line, tuple[tuple[int, int, keys.Key], ...]]:
    """The last line: the most wanted keys of these scopes; help and quit always fit.

    With the first cell of each key's words and the cell behind them.
    """
    wanted = [key for key in keys.of(*scopes, keys.EVERYWHERE) if key.footer]
    entries = [(key, _entry(key, chosen)) for key in wanted]
    room = cells - 1 + _GAP  # the last entry needs no gap behind it
    room -= sum(line_width(entry) for key, entry in entries if key.scope == keys.EVERYWHERE)
    line: Line = [(" ", "")]
    places: list[tuple[int, int, keys.Key]] = []
    for key, entry in entries:
        if key.scope != keys.EVERYWHERE:
            room -= line_width(entry)
        if room >= 0 or key.scope == keys.EVERYWHERE:
            start = line_width(line)
            line += entry
            places.append((start, line_width(line) - _GAP, key))
    text, tone = line[-1]
    line[-1] = (text.rstrip(), tone)
    return cut_line(line, cells), tuple(places)


def tab_at(active: str, cell: int) -> str | None:
    """The name of the tab at this cell of the line that ``tabs`` made."""
    start = 1
    for name, label in TABS:
        end = start + len(label) + (5 if name == active else 4)
        if start <= cell < end:
            return name
        start = end
    return None


def _entry(key: keys.Key, chosen: Mapping[str, tuple[str, ...]]) -> Line:
    shown = keys.shown(keys.keys_of(key, chosen)[0])
    return [(shown, "key"), (f" {key.label}{' ' * _GAP}", "dim")]
