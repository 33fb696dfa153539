"""The Log screen: what the appliance did, newest at the end.

Not for: log files.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Hashable, Iterable

from textual.widget import Widget

from appliance.engine_api import Engine, LogLine, Snapshot
from appliance.ui import filters, formats, keys
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line, text_of
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.text import printable
from appliance.ui.widgets.rows import Rows

_KEPT = 5000
_COPIED_CELLS = 1000
"""A line is copied as it would stand in a list of this width."""

TABLE = Table(
    Column("TIME", 12),
    Column("LEVEL", 5, key="level"),
    Column("SOURCE", 8, 14, 32),
    Column("TEXT", 30, 80, None),
)
"""The list of log lines."""

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
_NAMES = {10: ("DEBUG", "dim"), 20: ("INFO", ""), 30: ("WARN", "warn"), 40: ("ERROR", "bad")}


def level_name(level: int) -> tuple[str, str]:
    """The word and the tone of a level of the logging module."""
    return _NAMES.get(min(40, level // 10 * 10), ("DEBUG", "dim"))


class LogFeed:
    """The newest log lines, polled; bounded."""

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque(maxlen=_KEPT)

    def poll(self, engine: Engine) -> bool:
        """Take over what is new; returns whether there was anything."""
        after = self.lines[-1].number if self.lines else 0
        new = engine.log(after, _KEPT)
        self.lines.extend(new)
        return bool(new)

    def view(self, wanted: filters.Filter, level: int) -> list[LogLine]:
        """The lines at or above a level that pass the filter's words."""
        return [
            line
            for line in self.lines
            if line.level >= level
            and wanted.takes_time(line.at_ns)
            and wanted.takes_text(line.text, line.source)
        ]


class LogRows(Rows[LogLine]):
    """Log lines."""

    utc = False

    def key(self, item: LogLine) -> Hashable:
        return item.number

    def version(self, item: LogLine) -> Hashable:  # noqa: ARG002 - a log line never changes
        return self.utc

    def line(self, item: LogLine, cells: int) -> Line:
        name, tone = level_name(item.level)
        return TABLE.row(
            cells,
            (
                (formats.time_with_ms(item.at_ns, utc=self.utc), "dim"),
                (name, tone),
                (printable(item.source), "dim"),
                (printable(item.text), tone if item.level >= logging.ERROR else ""),
            ),
        )

    def heading(self, cells: int) -> Line | None:
        return TABLE.heading(cells - 1)

    def title_at(self, cell: int, cells: int) -> str:
        column = TABLE.at(cells, cell)
        return "" if column is None else column.key


class LogScreen(Page):
    """Follows the log until the operator moves up."""

    SCOPES = (keys.MOVE, keys.LISTS, keys.FOLLOW, keys.LOG)
    TAB = "log"
    FILTER_WORDS = ("text", "since", "until")
    FILTERED = "of the log"
    EXPORTED = "log"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._feed = LogFeed()
        self._level = logging.INFO
        self._changed = True

    def body(self) -> Iterable[Widget]:
        rows = LogRows(follow=True, id="log")
        rows.empty_text = "Nothing was logged at this level."
        yield rows

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:  # noqa: ARG002 - the log has its own feed
        new = self._feed.poll(self.host.engine)
        rows = self.query_one(LogRows)
        rows.utc = self.host.remembered.utc
        if (new and rows.follow) or self._changed:
            self._changed = False
            rows.set_items(self._feed.view(self.filter, self._level))

    def mode(self) -> Line:
        name, _ = level_name(self._level)
        follows = self.query_one(LogRows).follow
        state = ("FOLLOW", "ok") if follows else (" ‖ PAUSED ", "mark")
        return [(f"{name} and up  ", "dim"), state]

    def filter_changed(self) -> None:
        self._changed = True

    def action_level(self) -> None:
        """The next level: debug, info, warning, error."""
        self._level = _LEVELS[(_LEVELS.index(self._level) + 1) % len(_LEVELS)]
        self._changed = True
        self.host.show_now()

    def choose_title(self, key: str) -> None:
        if key == "level":
            self.action_level()

    def on_rows_at_end(self) -> None:
        self.query_one(LogRows).follow = True
        self._changed = True
        self.host.show_now()

    def action_pause(self) -> None:
        """Stand still, or follow again."""
        rows = self.query_one(LogRows)
        rows.follow = not rows.follow
        self._changed = True
        self.host.show_now()

    def action_copy(self) -> None:
        rows = self.query_one(LogRows)
        if rows.current is not None:
            self.host.copy(text_of(rows.line(rows.current, _COPIED_CELLS)).rstrip(), "the line")

    def action_open(self) -> None:
        """The whole text of a line that is cut."""
        line = self.query_one(LogRows).current
        if line is not None:
            self.host.show_info(f"{level_name(line.level)[0]} {line.source}", line.text)

    def action_copy_topic(self) -> None:
        """The text without time and level."""
        line = self.query_one(LogRows).current
        if line is not None:
            self.host.copy(line.text, "the text")
