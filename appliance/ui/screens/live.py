"""The Live screen: messages as they come, their outcomes, what runs, what comes next.

Not for: old messages (search.py), the whole of one message (message.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from appliance.engine_api import Snapshot, TopicState
from appliance.errors import ApplianceError
from appliance.matching import is_own_news
from appliance.ui import filter_text, formats, keys
from appliance.ui.lines import Line, rule
from appliance.ui.screens.message_list import MessageListPage
from appliance.ui.screens.page_host import PageHost
from appliance.ui.views import activity, busiest, counters, first_run
from appliance.ui.views import message as view
from appliance.ui.widgets.messages import MessageRows
from appliance.ui.widgets.pane import Pane

_NARROW_TASK_ROWS = 3
_BUSIEST = 60
"""Topics that the panel of a wide terminal has at most."""

_BUSIEST_EVERY_NS = 1_000_000_000
_ASKED_AT_ONCE = 2_000
"""Topics of which the busiest are found in a few milliseconds; among more, a thread finds them."""


class LiveScreen(MessageListPage):
    """Messages, executions, timers, counters."""

    SCOPES = (
        keys.MOVE,
        keys.LISTS,
        keys.FOLLOW,
        keys.LIVE,
        keys.OWN,
        keys.ACTING,
        keys.REPEAT,
        keys.WHY,
        keys.CONFIGURED,
    )
    TAB = "live"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._topics: Sequence[TopicState] = ()
        self._busiest_ns = 0
        self._left_first_run = False
        """The operator has left the page of the first run."""

    def body(self) -> Iterable[Widget]:
        with Horizontal(id="live-top"):
            with Vertical(id="live-left"):
                yield Pane(id="live-title", classes="wide-only")
                yield MessageRows(id="messages")
                yield Pane(id="first-run")
            with Vertical(id="live-right"):
                yield Pane(id="wide-tasks")
                yield Pane(id="wide-timers")
                yield Pane(id="wide-topics")
                yield Pane(id="wide-counters")
        yield Pane(id="peek")
        yield Pane(id="narrow-tasks")
        yield Pane(id="narrow-clock")

    # --- the tick ------------------------------------------------------------------------------

    def feed_changed(self) -> None:
        """The feed has other messages to show."""
        self.rows.follow = not self.host.feed.paused
        self.rows.set_items(self.host.feed.view)

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        self.rows.empty_text = self._why_empty(snapshot)
        started = not self._is_first_run(snapshot)
        self.set_class(not started, "-first-run")
        if self.rows.display is not started:
            self.rows.display = started
            if started:
                self.focus_body()
        page = self.query_one("#first-run", Pane)
        page.display = not started
        if not started:
            page.show(first_run.lines(snapshot, self.query_one("#live-left").size.width))
        self.rows.look_up(self.host.engine, self.host.remembered, now_ns)
        if self.has_class("-wide"):
            self._update_wide(snapshot, now_ns)
        else:
            self._update_narrow(snapshot, now_ns)

    def _is_first_run(self, snapshot: Snapshot) -> bool:
        """Whether the page that helps is shown: nothing but the appliance itself has published."""
        if not snapshot.first_run or snapshot.starting or self._left_first_run:
            return False
        own = f"{snapshot.name}/"
        return all(is_own_news(one, own) for one in self.host.feed.newest)

    def go_back(self) -> None:
        """Clear the filter, else leave the first run's page."""
        if self.filter.is_empty and self._is_first_run(self.host.snapshot):
            self._left_first_run = True
            self.host.show_now()
        else:
            super().go_back()

    def _why_empty(self, snapshot: Snapshot) -> str:
        if snapshot.starting:
            return "Starting: the journal, then the listeners."
        if self.filter.is_empty:
            return "No message has come since the start. b searches the journal."
        own = "" if self.host.remembered.show_own else " o shows the appliance's own messages."
        return f"No message here passes the filter. Esc clears it.{own}"

    def _update_narrow(self, snapshot: Snapshot, now_ns: int) -> None:
        cells = self.size.width
        utc = self.host.remembered.utc
        title: Line = [("Tasks ", "head"), ("── ", "dim"), *activity.summary(snapshot)]
        lines = activity.execution_lines(
            activity.timed(snapshot), now_ns, cells, _NARROW_TASK_ROWS, utc=utc
        )
        self.query_one("#narrow-tasks", Pane).show([rule(title, cells), *lines])
        key = keys.shown_for("problems", self.host.settings.keys)
        clock = activity.clock_line(snapshot, now_ns, cells, key)
        self.query_one("#narrow-clock", Pane).show([clock])

    def _update_wide(self, snapshot: Snapshot, now_ns: int) -> None:
        utc = self.host.remembered.utc
        feed = self.host.feed
        title = self.query_one("#live-title", Pane)
        shown = filter_text.text_of(self.filter) or "#"
        missed = f" · {formats.number(feed.missed)} not shown" if feed.missed else ""
        rows = f"{formats.counted(len(feed.view), 'row')}{missed}"
        head: Line = [("Messages ", "head"), ("── ", "dim"), (shown[:40], "")]
        title.show([rule(head, title.size.width, [(rows, "dim")])])
        height = self.query_one("#live-right").size.height
        self._show_panel(
            "#wide-tasks",
            [("Tasks ", "head"), ("── ", "dim"), *activity.summary(snapshot)],
            lambda cells, rows: activity.execution_lines(
                activity.timed(snapshot), now_ns, cells, rows, utc=utc
            ),
            most=height * 2 // 5,
        )
        self._show_panel(
            "#wide-timers",
            [("Timers", "head")],
            lambda cells, rows: activity.timer_lines(snapshot, now_ns, cells, rows, utc=utc),
            most=height // 4,
        )
        self._show_panel(
            "#wide-topics",
            [("Busiest topics", "head")],
            lambda cells, rows: busiest.lines(self._busiest(now_ns), now_ns, cells, rows),
        )
        spark = formats.sparkline(snapshot.rate_history, 20)
        self._show_panel(
            "#wide-counters",
            [("Counters", "head")],
            lambda cells, rows: counters.counter_lines(snapshot, cells, rows),
            right=[(f"in {spark}", "info")] if spark else None,
        )
        if self.has_class("-tall"):
            self._update_peek(snapshot, now_ns)

    def _show_panel(
        self,
        selector: str,
        title: Line,
        content: Callable[[int, int], Sequence[Line]],
        right: Line | None = None,
        most: int = 0,
    ) -> None:
        """Show a panel; with ``most``, it is as high as its content, up to that many rows."""
        pane = self.query_one(selector, Pane)
        cells, rows = pane.size.width, most or pane.size.height
        if rows <= 0:
            return
        lines = [rule(title, cells, right), *content(cells, rows - 1)]
        if most:
            pane.styles.height = len(lines) + 1  # a blank row between the panels
        pane.show(lines)

    def _busiest(self, now_ns: int) -> Sequence[TopicState]:
        """The busiest topics, asked for once a second; the appliance's own if Live shows them."""
        if not self._busiest_ns <= now_ns < self._busiest_ns + _BUSIEST_EVERY_NS:
            self._busiest_ns = now_ns
            engine = self.host.engine

            def ask() -> Sequence[TopicState]:
                try:
                    return engine.topics(_BUSIEST)
                except ApplianceError:  # an engine that does not count them
                    return ()

            if self.host.snapshot.topics_known <= _ASKED_AT_ONCE:
                self._found_busiest(ask())
            else:
                self.host.background.fetch(ask, self._found_busiest, group="busiest")
        return self._topics

    def _found_busiest(self, found: Sequence[TopicState]) -> None:
        own = ("$", f"{self.host.snapshot.name}/")
        shown = self.host.remembered.show_own
        self._topics = [one for one in found if shown or not one.topic.startswith(own)]

    def _update_peek(self, snapshot: Snapshot, now_ns: int) -> None:
        pane = self.query_one("#peek", Pane)
        message = self.rows.current
        if message is None:
            pane.show([rule([("Detail", "head")], pane.size.width)])
            return
        mark = self.rows.marks.get(message.seq)
        execution = self.host.engine.execution(mark.execution) if mark and mark.execution else None
        title: Line = [
            ("Detail ", "head"),
            ("── ", "dim"),
            (f"{formats.number(message.seq)} ", ""),
            ("── ", "dim"),
            (message.topic, "strong"),
        ]
        size = self.rows.sizes.get(message.seq, len(message.payload))
        lines = view.peek(
            message,
            mark,
            execution,
            snapshot,
            size=size,
            now_ns=now_ns,
            cells=pane.size.width,
            rows=pane.size.height - 1,
            utc=self.host.remembered.utc,
        )
        pane.show([rule(title, pane.size.width), *lines])

    def mode(self) -> Line:
        feed = self.host.feed
        if not feed.paused:
            return [("FOLLOW", "ok")]
        return [(f" ‖ PAUSED +{formats.number(feed.waiting)} ", "mark")]

    # --- what keys do --------------------------------------------------------------------------

    def filter_changed(self) -> None:
        self.host.feed.set_filter(self.filter, self.host.engine)
        self.rows.empty_text = self._why_empty(self.host.snapshot)
        self.feed_changed()

    def own_changed(self) -> None:
        self.host.feed.show_own(self.host.remembered.show_own, self.host.engine)
        self.feed_changed()

    def action_pause(self) -> None:
        """Freeze the view, or follow again."""
        if self.host.feed.paused:
            self.host.feed.follow()
        else:
            self.host.feed.pause()
        self.feed_changed()
        self.host.show_now()

    def on_rows_left_end(self) -> None:
        self.host.feed.pause()
        self.rows.set_items(self.host.feed.view)
        self.host.show_now()

    def on_rows_at_end(self) -> None:
        self.host.feed.follow()
        self.feed_changed()
        self.host.show_now()

    def action_open(self) -> None:
        message = self.rows.current  # the row, before the view stands still and has newer ones
        if message is not None:
            self.on_rows_left_end()
            self.host.navigation.show_message(message, list(self.rows.items))

    def action_copy(self) -> None:
        """Copy the payload (on the first run: the command to try)."""
        if self.rows.display:
            super().action_copy()
        elif command := first_run.command(self.host.snapshot):
            self.host.copy(command, "the command")

    def choose_title(self, key: str) -> None:
        if key == "time":
            self.action_toggle_age()

    def action_publish(self) -> None:
        """Write a message, on the topic and with the QoS of the one under the cursor."""
        message = self.rows.current if self.rows.display else None
        if message is None:
            super().action_publish()
        else:
            self.host.actions.publish(message.topic, message.qos)

    def action_toggle_age(self) -> None:
        """Clock or age in the first column."""
        self.host.remember(show_age=not self.host.remembered.show_age)

    def action_search(self) -> None:
        """Search the journal with the same filter, from the newest message back."""
        self.host.navigation.show_search(self.filter)

    def action_jump(self) -> None:
        """Ask for a time and show the journal as it was then."""
        self.host.navigation.show_search(self.filter, ask="until:")
