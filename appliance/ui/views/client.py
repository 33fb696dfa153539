"""Clients, listeners and the broker's numbers as lines.

Not for: asking for them.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.engine_api import ClientState, Snapshot
from appliance.problems import problems
from appliance.ui import formats, symbols
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line, join
from appliance.ui.text import fit, printable
from appliance.ui.views import counters

_FILTERS = 20
"""Topic filters of a client that the list reads; a line shows fewer."""

TABLE = Table(
    Column("", 1),
    Column("CLIENT", 8, 20, 64, key="name"),
    Column("ADDRESS", 10, 21, 47),
    Column("USER", 6, 12, 32, from_cells=110),
    Column("LISTENER", 8, 10, 24, from_cells=130),
    Column("MQTT", 5),
    Column("UP", 8, right=True, key="up"),
    Column("SUBS", 4, right=True),
    Column("IN/s", 6, right=True, key="in"),
    Column("OUT/s", 6, right=True, key="out"),
    Column("QUEUE", 6, right=True, key="queue"),
    Column("LOST", 5, right=True, key="lost"),
    Column("SUBSCRIBES TO", 16, 40, None, from_cells=130),
)
"""The list of clients."""


def heading(cells: int, sort: str) -> Line:
    """The row above the list of clients."""
    return TABLE.heading(cells, sort=sort)


def row(
    client: ClientState,
    rates: tuple[float, float],
    now_ns: int,
    cells: int,
    *,
    is_held: bool = False,
) -> Line:
    """One client: connected, away or held, and what waits for it."""
    seconds = (now_ns - client.since_ns) / 1e9
    sign = (symbols.CONNECTED, "ok") if client.connected else (symbols.AWAY, "dim")
    up = formats.elapsed(seconds) if client.connected else f"gone {formats.age(seconds)}"
    tone = "" if client.connected else "dim"
    filters = ", ".join(topic_filter for topic_filter, _ in client.subscriptions[:_FILTERS])
    return TABLE.row(
        cells,
        (
            (symbols.PAUSED, "warn") if is_held else sign,
            (printable(client.client_id), tone),
            (printable(client.address), "dim"),
            (printable(client.username or ""), "dim"),
            (printable(client.listener), "dim"),
            (client.protocol, "dim"),
            ("held", "warn") if is_held else (up, tone),
            (str(len(client.subscriptions)), tone),
            (formats.rate(rates[0]), "strong" if rates[0] >= 1 else tone),
            (formats.rate(rates[1]), tone),
            (formats.short_count(client.queued), "warn" if client.queued > 100 else tone),
            (formats.short_count(client.dropped), "bad" if client.dropped else tone),
            (printable(filters), "dim"),
        ),
    )


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
        [
            (
                f" {symbols.level_sign(one.level)} {printable(one.text)}",
                symbols.level_tone(one.level),
            )
        ]
        for one in problems(snapshot)[1:]
    ]


def listeners(snapshot: Snapshot) -> list[Line]:
    """The listeners of the broker, and the HTTP ports."""
    lines: list[Line] = []
    for one in (*snapshot.listeners, *snapshot.http):
        tone = symbols.level_tone(one.health.level)
        line: Line = [
            (f" {symbols.level_sign(one.health.level)} ", tone),
            (fit(printable(one.name), 10), ""),
            (fit(printable(one.bind), 22), ""),
            (f"{one.transport}{' TLS' if one.tls else ''}", "dim"),
            (f"  {formats.counted(one.connections, 'connection')}", ""),
        ]
        if one.health.text:
            line.append((f"  {printable(one.health.text)}", tone))
        lines.append(line)
    return lines


def broker_lines(
    snapshot: Snapshot, cells: int, risen_ns: Mapping[str, int], now_ns: int
) -> list[Line]:
    """Further problems, every bound that bit, then listeners, traffic, journal, recorders.

    The worst problem stands in the alert line already, which counts the others.
    """
    noted = counters.noted_lines(snapshot, cells, risen_ns, now_ns)
    return [
        *more_problems(snapshot),
        *(noted if any(count for _, count in snapshot.counters) else []),
        *listeners(snapshot),
        *counters.work_lines(snapshot, cells),
        *([] if any(count for _, count in snapshot.counters) else noted),
    ]
