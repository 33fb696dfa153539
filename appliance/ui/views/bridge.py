"""Bridges to other brokers as lines: a row in the list, what they subscribe to, the whole of one.

Not for: deciding what is wrong (appliance/problems.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from appliance.engine_api import BridgeState, BridgeSubscriptionState, Snapshot
from appliance.problems import Place, bridge_level, problems
from appliance.ui import formats, symbols
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line
from appliance.ui.text import printable, words_in

TABLE = Table(
    Column("", 1),
    Column("BRIDGE", 8, 14, 40),
    Column("BROKER", 10, 20, 47),
    Column("MQTT", 5),
    Column("STATE", 12, 14, 16),
    Column("IN/s", 5, right=True),
    Column("OUT/s", 5, right=True),
    Column("LAG", 5, right=True),
    Column("UNACK", 5, right=True),
    Column("LAST ERROR", 10, 60, None, from_cells=110),
)
"""The list of bridges."""

SUBSCRIPTIONS = Table(
    Column("SUBSCRIBES TO", 16, 34, 70),
    Column("GRANTED", 7),
    Column("RECEIVED", 8, right=True),
    Column("PROBLEM", 16, 40, None),
)
"""What one bridge subscribes to."""

_HEAD_CELLS = 11


def heading(cells: int) -> Line:
    """The row above the list of bridges."""
    return TABLE.heading(cells)


def row(bridge: BridgeState, rates: tuple[float, float], now_ns: int, cells: int) -> Line:
    """One bridge: connected or away, what comes and goes, what went wrong last."""
    level = bridge_level(bridge, now_ns)
    if level == "ok" and any(one.problem for one in bridge.subscriptions):
        level = "warn"
    tone = symbols.level_tone(level)
    away = level == "ok" and not bridge.connected  # not for long
    error = bridge.health.text or bridge.last_error
    return TABLE.row(
        cells,
        (
            (symbols.level_sign("off" if away else level), "dim" if away else tone),
            (printable(bridge.name), ""),
            (printable(bridge.address), "dim"),
            (bridge.protocol, "dim"),
            (_state(bridge, now_ns), "" if bridge.connected else tone),
            (formats.rate(rates[0]), "strong" if rates[0] >= 1 else ""),
            (formats.rate(rates[1]), "strong" if rates[1] >= 1 else ""),
            (formats.short_count(bridge.lag), ""),
            (formats.short_count(bridge.unacknowledged), ""),
            (printable(error), tone if bridge.health.text else "dim"),
        ),
    )


def _seconds(at_ns: int | None, now_ns: int) -> float | None:
    return None if at_ns is None else (now_ns - at_ns) / 1e9


def _state(bridge: BridgeState, now_ns: int) -> str:
    """``up 3:12:07``, ``next in 0:05``, ``connecting``."""
    seconds = _seconds(bridge.since_ns, now_ns)
    if bridge.connected:
        return "up" if seconds is None else f"up {formats.elapsed(seconds)}"
    if bridge.next_attempt_ns is not None:
        return f"next in {formats.countdown((bridge.next_attempt_ns - now_ns) / 1e9)}"
    return "off" if bridge.health.level == "off" else "connecting"


def subscription_lines(bridge: BridgeState, cells: int, rows: int) -> list[Line]:
    """What the bridge subscribes to in ``rows`` rows, what has a problem first."""
    found = sorted(bridge.subscriptions, key=lambda one: not one.problem)
    if not found:
        out = ", ".join(printable(one) for one in bridge.publishes)
        return [[(" subscribes to nothing", "dim"), (f"; sends {out}" if out else "", "dim")]]
    lines: list[Line] = [[(" ", ""), *SUBSCRIPTIONS.heading(cells - 1)]]
    lines += [[(" ", ""), *_subscription(one, cells - 1)] for one in found]
    if len(lines) > rows:
        return [*lines[: rows - 1], [(f" … {len(lines) - rows + 1} more: ⏎", "dim")]]
    return lines


def _subscription(one: BridgeSubscriptionState, cells: int, *, refused: bool = False) -> Line:
    if one.granted is not None:
        granted = (f"QoS {one.granted}", "")
    else:
        granted = ("no", "warn") if one.problem or refused else ("asked", "dim")
    return SUBSCRIPTIONS.row(
        cells,
        (
            (printable(one.topic), ""),
            granted,
            (formats.number(one.received), "" if one.received else "dim"),
            (printable(one.problem), "warn"),
        ),
    )


def detail(
    bridge: BridgeState, snapshot: Snapshot, now_ns: int, cells: int, *, utc: bool, key: str
) -> list[Line]:
    """The whole of a bridge; ``key`` lets it connect now."""
    return [
        *_problems(bridge, snapshot, cells),
        *facts(bridge, now_ns, cells, utc=utc, key=key),
        [],
        *_subscriptions(bridge, cells),
        [],
        *_publishes(bridge.publishes, cells),
    ]


def facts(bridge: BridgeState, now_ns: int, cells: int, *, utc: bool, key: str) -> list[Line]:
    """Where it leads, whether it is connected, and what it has carried."""
    way = "WebSocket" if bridge.transport == "websocket" else "TCP"
    came = f"{formats.counted(bridge.messages_in, 'message')} since the start"
    if bridge.repeats:
        came += f", {formats.counted(bridge.repeats, 'repeat')} among them"
    if bridge.unacknowledged:
        came += f"; {formats.number(bridge.unacknowledged)} not in the journal yet"
    went = f"{formats.counted(bridge.messages_out, 'message')} since the start"
    if bridge.lag:
        went += f"; {formats.counted(bridge.lag, 'number')} of the journal behind"
    if bridge.parked:
        went += f"; {formats.number(bridge.parked)} refused by the broker and left out"
    if bridge.missed:
        went += f"; up to {formats.number(bridge.missed)} deleted before they went out"
    shown = [
        ("broker", f"{printable(bridge.address)}  {way}{' with TLS' if bridge.tls else ''}"),
        ("MQTT", f"{bridge.protocol}, client id {printable(bridge.client_id) or 'unknown'}"),
        ("state", _connection(bridge, now_ns, utc=utc, key=key)),
        ("last error", _last_error(bridge, now_ns, utc=utc)),
        ("in", came),
        ("out", went),
        ("gaps", _gaps(bridge, now_ns, utc=utc)),
    ]
    return [row for name, text in shown if text for row in _fact(name, text, cells)]


def _gaps(bridge: BridgeState, now_ns: int, *, utc: bool) -> str:
    if not bridge.gaps and bridge.gap_ns is None:
        return ""
    last = ""
    if bridge.gap_ns is not None:
        since = ""
        if bridge.gap_from_ns is not None:
            since = f"from {formats.date_and_time(bridge.gap_from_ns, utc=utc)[:19]} "
        until = formats.date_and_time(bridge.gap_ns, utc=utc)[:19]
        ago = formats.ago((now_ns - bridge.gap_ns) / 1e9)
        last = f"; messages {since}to {until} ({ago}) may be missing"
    times = formats.counted(bridge.gaps, "time")
    return f"the broker had lost the session {times} since the start{last}"


def _subscriptions(bridge: BridgeState, cells: int) -> list[Line]:
    if not bridge.subscriptions:
        return [[(" It subscribes to nothing.", "dim")]]
    room = cells - 2
    lines: list[Line] = [[(" ", ""), *SUBSCRIPTIONS.heading(room)]]
    for one in bridge.subscriptions:
        pieces: list[str] = []
        if len(one.problem) > SUBSCRIPTIONS.widths(room)[-1]:
            pieces = words_in(one.problem, room - 4)
        shown = msgspec.structs.replace(one, problem="") if pieces else one
        lines.append([(" ", ""), *_subscription(shown, room, refused=bool(one.problem))])
        lines += [[(f"   {piece}", "warn")] for piece in pieces]
    return lines


def _problems(bridge: BridgeState, snapshot: Snapshot, cells: int) -> list[Line]:
    """Everything that is wrong with it, in full."""
    place, title = Place("bridge", bridge.name), f"bridge {bridge.name}: "
    lines: list[Line] = []
    for one in problems(snapshot):
        if one.place == place:
            first, *rest = words_in(one.text.removeprefix(title), cells - 4) or [""]
            tone = symbols.level_tone(one.level)
            lines.append([(f" {symbols.level_sign(one.level)} ", tone), (first, tone)])
            lines += [[(f"   {piece}", tone)] for piece in rest]
    return [*lines, []] if lines else []


def _fact(name: str, text: str, cells: int) -> list[Line]:
    pieces = words_in(text, cells - _HEAD_CELLS - 2) or [""]
    heads = [name, *[""] * (len(pieces) - 1)]
    return [
        [(f" {head:<{_HEAD_CELLS}}", "dim"), (piece, "")]
        for head, piece in zip(heads, pieces, strict=True)
    ]


def _connection(bridge: BridgeState, now_ns: int, *, utc: bool, key: str) -> str:
    seconds = _seconds(bridge.since_ns, now_ns)
    since = ""
    if bridge.since_ns is not None and seconds is not None:
        at = formats.date_and_time(bridge.since_ns, utc=utc)[:19]
        since = f" since {at} ({formats.elapsed(seconds)})"
    if bridge.connected:
        return f"connected{since}"
    if bridge.next_attempt_ns is None:
        return f"{_state(bridge, now_ns)}{since}"
    failed = f", {formats.counted(bridge.attempts, 'failed attempt')}" if bridge.attempts else ""
    return f"not connected{since}{failed}; {_state(bridge, now_ns)}, {key} connects now"


def _last_error(bridge: BridgeState, now_ns: int, *, utc: bool) -> str:
    text = printable(bridge.last_error)
    if not text:
        return ""
    seconds = _seconds(bridge.last_error_ns, now_ns)
    if bridge.last_error_ns is None or seconds is None:
        return text
    at = formats.date_and_time(bridge.last_error_ns, utc=utc)[:19]
    return f"{text} ({at}, {formats.ago(seconds)})"


def _publishes(topics: Sequence[str], cells: int) -> list[Line]:
    if not topics:
        return [[(" It sends nothing to the broker.", "dim")]]
    return _fact("sends", "   ".join(printable(one) for one in topics), cells)
