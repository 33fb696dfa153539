"""Clients, listeners and the broker's numbers as lines.

Not for: asking for them.
"""

from __future__ import annotations

from appliance.engine_api import ClientState, Snapshot
from appliance.ui import formats, symbols
from appliance.ui.lines import Line, join
from appliance.ui.text import fit, fit_right, printable
from appliance.ui.views import counters, page_frame

_FIXED = 47


def heading(cells: int, sort: str) -> Line:
    """The row above the list of clients."""

    def name(text: str, key: str) -> str:
        return f"{text}▼" if key == sort else text

    first, second = _columns(cells)
    text = fit(f"  {name('CLIENT', 'name')}", first + 2) + fit("ADDRESS", second) + fit("MQTT", 6)
    for label, key, size in (
        ("UP", "up", 8),
        ("SUBS", "", 5),
        ("IN/s", "in", 7),
        ("OUT/s", "out", 7),
        ("QUEUE", "queue", 7),
        ("LOST", "lost", 5),
    ):
        text += fit_right(name(label, key), size)
    return [(text, "head")]


def _columns(cells: int) -> tuple[int, int]:
    room = max(20, cells - _FIXED)
    second = min(22, max(10, room // 2))
    return room - second, second


def row(client: ClientState, rates: tuple[float, float], now_ns: int, cells: int) -> Line:
    """One client: connected or away, and what waits for it."""
    first, second = _columns(cells)
    seconds = (now_ns - client.since_ns) / 1e9
    up = formats.elapsed(seconds) if client.connected else f"gone {formats.age(seconds)}"
    sign: tuple[str, str] = ("● ", "ok") if client.connected else ("○ ", "dim")
    tone = "" if client.connected else "dim"
    return [
        sign,
        (fit(printable(client.client_id), first - 1) + " ", tone),
        (fit(printable(client.address), second - 1) + " ", "dim"),
        (fit(client.protocol, 6), "dim"),
        (fit_right(up, 8), tone),
        (fit_right(str(len(client.subscriptions)), 5), tone),
        (fit_right(formats.rate(rates[0]), 7), "strong" if rates[0] >= 1 else tone),
        (fit_right(formats.rate(rates[1]), 7), tone),
        (fit_right(formats.short_count(client.queued), 7), "warn" if client.queued > 100 else tone),
        (fit_right(formats.short_count(client.dropped), 5), "bad" if client.dropped else tone),
    ]


def subscriptions(client: ClientState) -> Line:
    """What a client listens to."""
    parts: list[Line] = [
        [(printable(topic_filter), ""), (f" q{qos}", "dim")]
        for topic_filter, qos in client.subscriptions
    ]
    user = f"user {printable(client.username)}  " if client.username else ""
    listener = f"listener {printable(client.listener)}  " if client.listener else ""
    head: Line = [(f" {user}{listener}", "dim")]
    return [*head, *(join(parts, "   ") or [("no subscriptions", "dim")])]


def more_problems(snapshot: Snapshot) -> list[Line]:
    """Every problem but the worst."""
    return [
        [(f" {symbols.level_sign(level)} {printable(text)}", symbols.level_tone(level))]
        for level, text in page_frame.problems(snapshot)[1:]
    ]


def listeners(snapshot: Snapshot) -> list[Line]:
    """The listeners of the broker."""
    lines: list[Line] = []
    for one in snapshot.listeners:
        tone = symbols.level_tone(one.health.level)
        line: Line = [
            (f" {symbols.level_sign(one.health.level)} ", tone),
            (fit(printable(one.name), 10), ""),
            (fit(printable(one.bind), 22), ""),
            (f"{one.transport}{' TLS' if one.tls else ''}", "dim"),
            (f"  {one.connections} connection{'s' * (one.connections != 1)}", ""),
        ]
        if one.health.text:
            line.append((f"  {printable(one.health.text)}", tone))
        lines.append(line)
    return lines


def foot(snapshot: Snapshot, cells: int, rows: int) -> list[Line]:
    """Further problems, listeners, then traffic, journal, recorders and every bound that bit.

    The worst problem stands in the alert line already, which counts the others.
    """
    doors = [*more_problems(snapshot), *listeners(snapshot)]
    return [*doors, *counters.counter_lines(snapshot, cells, max(3, rows - len(doors)))][:rows]
