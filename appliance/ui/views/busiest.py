"""The busiest topics as lines: where the messages come from now.

Not for: the tree of all topics (topic.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.engine_api import TopicState
from appliance.ui import formats
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line
from appliance.ui.text import printable

TABLE = Table(
    Column("RATE/s", 7, right=True),
    Column("MSGS", 6, right=True),
    Column("LAST", 5, right=True),
    Column("", 1),
    Column("TOPIC", 12, 40, None, keeps_end=True),
)


def lines(topics: Sequence[TopicState], now_ns: int, cells: int, rows: int) -> list[Line]:
    """A heading and a line for each topic, at most ``rows`` lines in all."""
    if not topics or rows < 2:
        return []
    shown = [
        TABLE.row(
            cells,
            (
                (formats.rate(one.rate), "strong" if one.rate >= 1 else ""),
                (formats.short_count(one.count), ""),
                (formats.age((now_ns - one.last_ns) / 1e9), "dim"),
                ("R" if one.retained else "", "accent"),
                (printable(one.topic), ""),
            ),
        )
        for one in topics[: rows - 1]
    ]
    return [TABLE.heading(cells), *shown]
