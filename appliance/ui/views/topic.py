"""The tree of topics as lines, and a topic's values as a curve.

Not for: folding and sorting (topic_tree.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from appliance.engine_api import Snapshot
from appliance.model import Message
from appliance.ui import formats, payload
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line
from appliance.ui.text import printable
from appliance.ui.topic_tree import TopicNode

TABLE = Table(
    Column("TOPIC", 24, 40, 90, key="name"),
    Column("RATE/s", 7, right=True, key="rate"),
    Column("B/s", 7, right=True, key="traffic", from_cells=100),
    Column("MSGS", 6, right=True, key="messages"),
    Column("BYTES", 6, right=True, key="bytes", from_cells=100),
    Column("SHARE", 6, right=True, key="share"),
    Column("LAST", 5, right=True, key="last"),
    Column("SIZE", 5, right=True, from_cells=100),
    Column("R", 1),
    Column("LAST PAYLOAD", 16, 40, None),
)
"""The tree of topics."""


SORTED_BY = {
    "rate": "messages a second",
    "name": "name",
    "traffic": "bytes a second",
    "messages": "messages",
    "bytes": "bytes",
    "last": "last message",
}
_SHARES: dict[str, tuple[str, Callable[[TopicNode], float]]] = {
    "traffic": ("%B/s", lambda node: node.byte_rate),
    "messages": ("%MSGS", lambda node: node.count),
    "bytes": ("%BYTE", lambda node: node.bytes),
}
"""Of what the share is, by the order of the rows, and the title that says so."""
_SHARE_OF_RATE = ("%RATE", lambda node: node.rate)


def heading(cells: int, sort: str) -> Line:
    """The row above the tree; the column it is sorted by has a sign."""
    return TABLE.heading(cells, sort=sort, share=_SHARES.get(sort, _SHARE_OF_RATE)[0])


def share(node: TopicNode, root: TopicNode, sort: str) -> str:
    """Which part a level has of all topics, of what the rows are sorted by: ``12%``, ``<1%``."""
    of = _SHARES.get(sort, _SHARE_OF_RATE)[1]
    whole, part = of(root), of(node)
    if whole <= 0 or part <= 0:
        return ""
    percent = 100 * part / whole
    return "<1%" if percent < 1 else f"{percent:.0f}%"


def row(
    node: TopicNode,
    message: Message | None,
    size: int | None,
    now_ns: int,
    cells: int,
    *,
    opened: bool,
    part: str = "",
) -> Line:
    """One level: its sums, and the last payload if it is a topic.

    ``size``: the length of a payload that is cut; ``part``: the ``share`` of the level.
    """
    sign = ("▾ " if opened else "▸ ") if node.children else "  "
    label = f"{'  ' * min(node.depth, 12)}{sign}{printable(node.label) or '(empty level)'}"
    if node.children and not opened:
        label += f" ({node.topics})"
    leaf = node.leaf
    body = ""
    if leaf is not None and message is not None:
        body = payload.preview(message.payload, size, message.topic)
    return TABLE.row(
        cells,
        (
            (label, "" if leaf is not None else "dim"),
            (formats.rate(node.rate), "strong" if node.rate >= 1 else ""),
            (formats.short_size(round(node.byte_rate)) if node.byte_rate >= 0.5 else "", ""),
            (formats.short_count(node.count), ""),
            (formats.short_size(node.bytes), ""),
            (part, "strong" if (len(part) == 3 and part[0] > "1") or part == "100%" else ""),
            (formats.age((now_ns - node.last_ns) / 1e9), "dim"),
            (formats.short_size(leaf.size) if leaf is not None else "", "dim"),
            ("R" if leaf is not None and leaf.retained else "", "accent"),
            (body, ""),
        ),
    )


def sizes(node: TopicNode) -> Line:
    """The bytes of a level: of its last payload, in all, and a second."""
    parts = [f"last {formats.size(node.leaf.size)}"] if node.leaf is not None else []
    parts.append(f"{formats.size(node.bytes)} in all")
    if node.byte_rate >= 1:
        parts.append(f"{formats.size(round(node.byte_rate))}/s")
    return [(" ── ".join(parts), "dim")]


def left_out(shown: int, snapshot: Snapshot) -> str:
    """That there are or were more topics than these, and which are missing; empty if none is."""
    if snapshot.topics_known > shown:
        return f"the busiest of {formats.number(snapshot.topics_known)}"
    return "the latest of more" if snapshot.topics_forgotten else ""


def number_in(data: bytes) -> tuple[str, float] | None:
    """The payload's number: itself, or its first numeric field with the field's name."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        for name, part in value.items():
            found = _number(part)
            if found is not None:
                return (str(name), found)
        return None
    found = _number(value)
    return None if found is None else ("value", found)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if -1e300 < found < 1e300 else None  # neither nan nor infinite


def retained_line(message: Message, *, utc: bool) -> Line:
    """The message that the broker holds on a topic."""
    return [
        (" retained R  ", "accent"),
        (formats.date_and_time(message.received_ns, utc=utc), "dim"),
        (f"  {payload.preview(message.payload, topic=message.topic)}", ""),
    ]


def foot(
    topic: str, messages: Sequence[Message], cells: int, rows: int, *, utc: bool
) -> list[Line]:
    """A curve of the topic's numbers and its last messages."""
    lines: list[Line] = []
    found = [(number_in(one.payload)) for one in messages[-(cells - 40) :]]
    numbers = [one for one in found if one is not None]
    if len(numbers) > 1 and all(one.topic == topic for one in messages):
        name = numbers[-1][0]
        values = [value for field, value in numbers if field == name]
        low, high = min(values), max(values)
        span = (high - low) or 1.0
        curve = formats.sparkline(tuple((v - low) / span + 0.12 for v in values), cells - 40)
        lines.append(
            [
                (f" {printable(name)[:16]} ", "dim"),
                (curve, "info"),
                (f"  {low:g} to {high:g}, now {values[-1]:g}", ""),
            ]
        )
    lines += [
        [
            (f" {formats.time_with_ms(one.received_ns, utc=utc)}  ", "dim"),
            (payload.preview(one.payload, topic=one.topic), ""),
        ]
        for one in messages[-(rows - len(lines)) :][::-1]
    ]
    if not lines:
        lines.append([(f" No message on {printable(topic)} is among the newest.", "dim")])
    return lines[:rows]
