"""The lines around every screen: status, tabs, the worst problem, keys.

The first line begins with the verdict: ``✓ all well``, or what is wrong in a few words each. If
there are problems, a third line has the worst one's sentence.
Not for: the body of a screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address

from appliance.engine_api import Health, Snapshot
from appliance.problems import Problem, bridge_level, problems
from appliance.ui import formats, keys
from appliance.ui.lines import Line, cut_line, join, line_width, spread
from appliance.ui.symbols import level_sign, level_tone
from appliance.ui.text import cut, first_line, printable, width

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
    ("server_tasks", "Server"),
    ("freshness", "Fresh"),
    ("values", "Values"),
)
"""The screens by the digit that shows each, with a title so short that all fit into 80 columns."""

Place = tuple[int, int, str]
"""First cell, the cell after the last, and the name of the tab there."""

_ORDER = {"bad": 0, "warn": 1, "off": 2, "ok": 3}
_HOST_CELLS = 12
_GAP = 2
"""Cells between two entries of the footer."""

_WHO = 40
"""Cells of an attached terminal's appliance and user for which the screens give up their titles."""

_HEADLINES, _HEADLINES_WIDE = 48, 80
"""Cells that the headlines get at most before the other parts of the first line get some."""


def worst(parts: list[Health]) -> Health:
    """The health that needs attention most; ``off`` if there is none."""
    return min(parts, key=lambda part: _ORDER.get(part.level, 1), default=Health("off"))


def _light(health: Health) -> Line:
    return [(level_sign(health.level), level_tone(health.level))]


def verdict(snapshot: Snapshot, found: Sequence[Problem], cells: int) -> Line:
    """That all is well, or the headlines of the problems, as many as ``cells`` cells take."""
    if snapshot.stopping:
        return [("■ stopping", "warn")]
    if snapshot.starting:
        return [("◌ starting", "info")]
    if not found:
        return [("✓ all well", "ok")]
    sign, tone = f"{level_sign(found[0].level)} ", level_tone(found[0].level)
    texts = [printable(one.headline) for one in found]
    counts = [one.count for one in found]
    for shown in range(len(texts), 0, -1):
        more = sum(counts[shown:])
        text = sign + ", ".join(texts[:shown]) + (f" +{more}" if more else "")
        if width(text) <= cells:
            return [(text, tone)]
    end = f" +{sum(counts[1:])}" if len(texts) > 1 else ""
    return [(sign + cut(texts[0], cells - width(sign) - width(end)) + end, tone)]


def _ports(snapshot: Snapshot) -> list[str]:
    return [f":{listener.bind.rpartition(':')[2]}" for listener in snapshot.listeners]


def status(snapshot: Snapshot, now_ns: int, cells: int, *, utc: bool) -> Line:
    """The first line: verdict, broker, Qlik, recorder, clock.

    Where the headlines of problems need the room, the parts give it up, the last ones first.
    """
    wide = cells >= WIDE
    found = problems(snapshot)
    broker, recorder = _broker(snapshot, wide), _recorder(snapshot, wide)
    bridges = _bridges(snapshot)
    long, short = _qlik(snapshot, wide, 40), _qlik(snapshot, wide, 12)
    now: Line = [(formats.time_of_day(now_ns, utc=utc), ""), ("Z " if utc else " ", "dim")]
    name: Line = [(f"{snapshot.name} {snapshot.version}", "strong")] if wide else []
    most = _HEADLINES_WIDE if wide else _HEADLINES
    wanted = line_width(verdict(snapshot, found, most))
    for others in (
        *(
            [[broker, bridges, long, recorder], [broker, bridges, short, recorder]]
            if bridges
            else []
        ),
        *([[broker, bridges, short]] if bridges else []),
        [broker, long, recorder],
        [broker, short, recorder],
        [broker, short],
        [short],
        [],
    ):
        for gap in ("  │  ", " │ ", "│") if wide else (" │ ", "│"):
            fixed = line_width(join([name, [("", "")], *others], gap)) + line_width(now) + 2
            if cells - fixed >= wanted or not others:
                head = verdict(snapshot, found, cells - fixed)
                return spread([(" ", ""), *join([name, head, *others], gap)], now, cells)
    return spread([], now, cells)


def _broker(snapshot: Snapshot, wide: bool) -> Line:
    if snapshot.bridges and not snapshot.listeners:
        rate = (
            formats.number(round(snapshot.rate_in))
            if wide
            else formats.short_count(snapshot.rate_in)
        )
        unit = " msg/s" if wide else "/s"
        return [*_light(Health("off")), (" no listener ", "dim"), (f"{rate}{unit}", "strong")]
    ports = _ports(snapshot)
    broker: Line = [*_light(worst([one.health for one in snapshot.listeners])), (" broker ", "")]
    if wide:
        count = formats.counted(snapshot.clients_connected, "client")
        broker += [(" ".join(ports), "dim"), (f"  {count}  ", "")]
        return [*broker, (f"{formats.number(round(snapshot.rate_in))} msg/s", "strong")]
    more = f"+{len(ports) - 1}" if len(ports) > 1 else ""
    broker += [(("".join(ports[:1]) + more), "dim"), (f" {snapshot.clients_connected}c ", "")]
    return [*broker, (f"{formats.short_count(snapshot.rate_in)}/s", "strong")]


def _bridges(snapshot: Snapshot) -> Line:
    """How many bridges are connected, of how many."""
    found = snapshot.bridges
    if not found:
        return []
    healths = [Health(bridge_level(one, snapshot.taken_ns)) for one in found]
    connected = sum(one.connected for one in found)
    return [*_light(worst(healths)), (f" bridges {connected}/{len(found)}", "")]


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


def tabs(active: str, cells: int, right: Line, who: Line) -> tuple[Line, tuple[Place, ...]]:
    """The second line: the screens, ``who`` is attached, and ``right`` (filter, follow).

    Where the room is small, the screens give up the space between them, then the titles of those
    that are not shown, the last ones first, and then ``who`` is shortened: each screen keeps its
    digit. With the cells of each tab.
    """
    end: Line = [*right, (" ", "")] if right else []
    needed = line_width(end) + min(line_width(who), _WHO)
    count = len(TABS)
    for gap, titled in ((2, count), *((1, fewer) for fewer in range(count, -1, -1))):
        line, places = _tabs(active, gap, titled)
        room = cells - line_width(line) - line_width(end)
        if needed <= cells - line_width(line):
            break
    who = cut_line(who, max(0, room - 1))
    return (spread(line, [*who, *end], cells) if who or end else cut_line(line, cells)), places


def _tabs(active: str, gap: int, titled: int) -> tuple[Line, tuple[Place, ...]]:
    line: Line = [(" ", "")]
    places: list[Place] = []
    start = 1
    for number, (name, label) in enumerate(TABS, 1):
        if name == active:
            entry: Line = [(f"[{number}]{label}", "accent")]
        elif number <= titled:
            entry = [(f"{number} ", "key"), (label, "dim")]
        else:
            entry = [(f"{number}", "key")]
        end = start + line_width(entry) + gap
        line += [*entry, (" " * gap, "")]
        places.append((start, end, name))
        start = end
    return line, tuple(places)


def alert(snapshot: Snapshot, cells: int, key: str, trouble: str = "") -> Line | None:
    """The worst problem in words, or ``None``; ``trouble``: why the snapshot is an old one.

    ``key`` shows what is behind it, and the other problems.
    """
    if trouble:
        return [(f" ✗ The engine does not answer, this is old: {trouble}", "bad")]
    found = problems(snapshot)
    if not found:
        return None
    worst_one, more = found[0], sum(one.count for one in found[1:])
    tone = level_tone(worst_one.level)
    text = first_line(worst_one.text)
    line: Line = [(f" {level_sign(worst_one.level)} ", tone), (text, tone)]
    right: Line = [(f"  +{more} more" if more else "  more", "dim"), (": ", "dim"), (key, "key")]
    return spread(line, [*right, (" ", "")], cells)


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


def _entry(key: keys.Key, chosen: Mapping[str, tuple[str, ...]]) -> Line:
    shown = keys.shown(keys.keys_of(key, chosen)[0])
    return [(shown, "key"), (f" {key.label}{' ' * _GAP}", "dim")]
