"""The Values screen: the numbers in a topic's messages over minutes to days, from the journal.

Not for: the messages themselves (Enter on the Topics screen shows them on the Live screen).
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence

from textual.containers import Container
from textual.widget import Widget

from appliance.engine_api import MOST_PATHS, Snapshot
from appliance.plot import Series
from appliance.ui import filters, keys
from appliance.ui.lines import Line, rule
from appliance.ui.plot import PlotPane
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.value_reader import FIRST_SPAN_S, SPANS_S, Summary, ValueReader
from appliance.ui.views import values as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows

_NO_TOPIC = "No topic is chosen: press 2, go to a topic, and press v."
_NOTHING = "No message of this time has a number."
_LEAST_NS, _MOST_NS = 2 * 10**9, 60 * 10**9
"""Between two looks for new messages: the width of a stretch, within these."""
_PAUSE = 10
"""Times as long as a look took there is none: it takes a tenth of a core at most."""
_ROWS, _ROWS_TALL = 6, 14


def _percent(value: float) -> str:
    return f"{value:.0f}%"


class ValueRows(Rows[Summary]):
    """The paths that the topic's messages have."""

    chosen: tuple[str, ...] = ()

    def key(self, item: Summary) -> Hashable:
        return item.path

    def version(self, item: Summary) -> Hashable:
        return (item, self._place(item))

    def _place(self, item: Summary) -> int | None:
        return self.chosen.index(item.path) if item.path in self.chosen else None

    def line(self, item: Summary, cells: int) -> Line:
        return view.row(item, self._place(item), cells)

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1)


class ValuesScreen(Page):
    """One topic at a time; several of its numbers."""

    SCOPES = (keys.MOVE, keys.VALUES, keys.ACTING)
    TAB = "values"
    EXPORTED = "values"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._reader: ValueReader | None = None
        self._span_s = FIRST_SPAN_S
        self._is_reading = False
        self._own_scales: bool | None = None
        """Whether each curve has its own; ``None``: where one scale for all would flatten some."""
        self._scales = ""
        self._has_failed = False
        self._read_ns = 0
        self._drawn: tuple[object, ...] = ()

    def body(self) -> Iterable[Widget]:
        yield Pane(id="values-title")
        with Container(id="values-main"):
            yield PlotPane(id="plot")
            yield ValueRows(id="values")

    @property
    def rows(self) -> ValueRows:
        return self.query_one(ValueRows)

    def show_topic(self, topic: str) -> None:
        """Plot another topic: what there is, then the first of it."""
        if self._reader is None or self._reader.topic != topic:
            self._begin(topic, ())

    def _begin(self, topic: str, paths: tuple[str, ...]) -> None:
        before = self._reader
        if before is not None:
            before.cancelled.set()
        reader = ValueReader(topic, paths, self._span_s)
        if before is not None and before.topic == topic:
            reader.found = dict(before.found)
        self._reader = reader
        self._is_reading = False
        self._drawn = ()
        self._read()

    def _read(self) -> None:
        reader, engine = self._reader, self.host.engine
        if reader is None or self._is_reading:
            return
        now_ns = self.host.clock_ns()

        def work() -> None:
            has_failed = True
            try:
                reader.read(engine, now_ns, lambda: self.host.background.call(self.host.show_now))
                has_failed = False
            finally:
                self.host.background.call(self._stopped, reader, has_failed)

        self._is_reading = True
        self._read_ns = now_ns
        self.host.background.run(work, group="values")

    def _stopped(self, reader: ValueReader, has_failed: bool) -> None:
        if reader is not self._reader:
            return
        self._is_reading = False
        self._has_failed = has_failed
        if not reader.paths and reader.found:
            self._begin(reader.topic, (next(iter(reader.found)),))
        self.host.show_now()

    def on_screen_suspend(self) -> None:
        """Nothing is read for a page that is not in view."""
        if self._reader is not None:
            self._reader.cancelled.set()

    def on_screen_resume(self) -> None:
        reader = self._reader
        if reader is not None:
            reader.cancelled = threading.Event()
        super().on_screen_resume()

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:  # noqa: ARG002 - the journal is asked
        reader, rows, cells = self._reader, self.rows, self.size.width
        pane = self.query_one(PlotPane)
        if reader is None:
            rows.empty_text = ""
            pane.say(_NO_TOPIC)
            self.query_one("#values-title", Pane).show([rule([("Values", "head")], cells)])
            return
        utc = self.host.remembered.utc
        self._read_when_due(reader, now_ns)
        width = reader.width_ns
        edge_ns = now_ns // width * width + width
        state = (
            *(reader, reader.messages, reader.before_seq, self._is_reading),
            *(edge_ns, utc, self.size),
        )
        if state != self._drawn:
            self._drawn = state
            self._draw(reader, now_ns, edge_ns)
        right = view.progress(reader, is_reading=self._is_reading, utc=utc)
        if self._scales:
            right = [(f"{self._scales} ── ", "dim"), *right]
        title = rule(view.title(reader), cells, right)
        self.query_one("#values-title", Pane).show([title])

    def _draw(self, reader: ValueReader, now_ns: int, edge_ns: int) -> None:
        rows, pane = self.rows, self.query_one(PlotPane)
        rows.chosen = reader.paths
        summaries = reader.summaries()
        rows.empty_text = "Reading …" if self._is_reading else _NOTHING
        tall = self.size.height >= 36
        rows.styles.height = min(len(summaries) + 1, _ROWS_TALL if tall else _ROWS)
        rows.set_items(summaries)
        pane.empty_text = _NOTHING if summaries and not self._is_reading else ""
        series = reader.series(now_ns)
        text_of, self._scales = None, ""
        if len(series) > 1:  # the bands of several would hide one another
            series = [one._replace(lows=(), highs=()) for one in series]
            is_own = self._has_own_scales(series)
            self._scales = "each its own scale" if is_own else "one scale"
            if is_own:
                series, text_of = view.own_scales(series), _percent
        utc = self.host.remembered.utc
        pane.plot(series, edge_ns - reader.span_ns, edge_ns, utc=utc, text_of=text_of)

    def _has_own_scales(self, series: Sequence[Series]) -> bool:
        return view.differ_much(series) if self._own_scales is None else self._own_scales

    def _read_when_due(self, reader: ValueReader, now_ns: int) -> None:
        pause = min(max(reader.width_ns, _LEAST_NS), _MOST_NS)
        if self._has_failed:
            pause = _MOST_NS
        elif not reader.is_complete:
            pause = 0
        pause = max(pause, int(_PAUSE * reader.seconds * 1e9))
        if not self._read_ns <= now_ns < self._read_ns + pause:
            self._read()

    # --- what keys do --------------------------------------------------------------------------

    def action_open(self) -> None:
        """Plot the value under the cursor too, or no longer."""
        reader, row = self._reader, self.rows.current
        if reader is None:
            self.host.navigation.show_topic("")
        elif row is not None:
            if row.path in reader.paths:
                paths = tuple(path for path in reader.paths if path != row.path)
            else:
                paths = (*reader.paths, row.path)
            if len(paths) > MOST_PATHS:
                self.host.say(f"{MOST_PATHS} values are plotted at a time; leave one out first.")
            elif not paths:
                self.host.say("One value is always plotted; choose another one first.")
            else:
                self._begin(reader.topic, paths)

    def _change_span(self, by: int) -> None:
        place = SPANS_S.index(self._span_s) + by
        if 0 <= place < len(SPANS_S):
            self._span_s = SPANS_S[place]
            if self._reader is not None:
                self._begin(self._reader.topic, self._reader.paths)
            self.host.show_now()

    def action_shorter(self) -> None:
        """Look at a shorter time."""
        self._change_span(-1)

    def action_longer(self) -> None:
        """Look at a longer time."""
        self._change_span(1)

    def action_scales(self) -> None:
        """One scale for all curves, or one for each."""
        reader = self._reader
        if reader is None or len(reader.paths) < 2:
            self.host.say("One curve has one scale; choose another value too.")
            return
        self._own_scales = not self._has_own_scales(reader.series(self.host.clock_ns()))
        self._drawn = ()
        self.host.show_now()

    def action_messages(self) -> None:
        """The messages of the topic, on the Live screen."""
        if self._reader is not None:
            self.host.navigation.show_live(filters.for_topic(self._reader.topic, below=False))

    def action_export(self) -> None:
        """Write the points of the curves to a file."""
        reader = self._reader
        curves = [] if reader is None else reader.series(self.host.clock_ns())
        points = [
            {"path": one.name, "at_ns": at_ns, "mean": mean, "min": low, "max": high}
            for one in curves
            for at_ns, mean, low, high in zip(
                one.times_ns, one.values, one.lows, one.highs, strict=True
            )
            if mean is not None
        ]
        self.host.export(self.EXPORTED, points)

    def action_copy(self) -> None:
        """The last value under the cursor."""
        row = self.rows.current
        if row is not None and row.last is not None:
            self.host.copy(repr(row.last), "the value")

    def action_copy_topic(self) -> None:
        if self._reader is not None:
            self.host.copy(self._reader.topic, "the topic")
