"""The search in the journal: back from the newest message, in a worker.

Leaving the page cancels the search. Not for: the live view.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from textual.widget import Widget

from appliance.engine_api import Engine, Snapshot
from appliance.model import Message
from appliance.ui import filters, formats, keys
from appliance.ui.lines import Line, rule
from appliance.ui.live_feed import with_outcome
from appliance.ui.screens.message_list import MessageListPage
from appliance.ui.screens.page_host import PageHost
from appliance.ui.widgets.messages import MessageRows
from appliance.ui.widgets.pane import Pane

_ENOUGH = 500
"""Finds after which a search stops and asks whether to go on (with ``b``)."""

_MAX_FOUND = 10_000


class Search:
    """One walk back through the journal. ``walk`` blocks; run it in a worker thread."""

    def __init__(
        self, wanted: filters.Filter, before_seq: int, own: str = "", first_seq: int = 0
    ) -> None:
        """Search back from a message.

        Args:
            wanted: what to look for.
            before_seq: the message behind the first one that is looked at.
            own: the beginning of the topics whose own messages are left out; empty for none.
            first_seq: about the oldest message of the journal.
        """
        self.wanted = wanted
        self._asked = wanted.for_journal(own)
        self._begin = before_seq
        self._first_seq = max(1, first_seq)
        self.own_left_out = 0
        self.before_seq = before_seq
        """Messages from this number on have been looked through."""
        self.reached_ns = 0
        self.found: list[Message] = []
        """Oldest first."""
        self.ended = False
        """Whether the start of the journal is reached."""
        self.cancelled = threading.Event()

    @property
    def looked_at(self) -> int:
        """How many messages were looked through, in the journal or in its index."""
        return max(0, self._begin - max(self.before_seq, self._first_seq))

    @property
    def part(self) -> float:
        """How much of the journal that is, from 0 to 1."""
        return min(1.0, self.looked_at / max(1, self._begin - self._first_seq))

    def walk(self, engine: Engine) -> None:
        """Read on until enough is found, the journal ends, or the search is cancelled."""
        target = min(len(self.found) + _ENOUGH, _MAX_FOUND)
        while not self.cancelled.is_set() and len(self.found) < target:
            step = engine.search(self._asked, self.before_seq, target - len(self.found))
            passed = list(step.messages)
            if self.wanted.needs_marks:
                passed = with_outcome(engine, self.wanted, passed)
            self.found = [*passed, *self.found]
            self.own_left_out += step.own_left_out
            self.reached_ns = step.reached_ns or self.reached_ns
            self.before_seq = step.before_seq
            if not step.before_seq:
                self.ended = True
                return


class SearchScreen(MessageListPage):
    """Opened over Live with its filter; another filter starts another search."""

    SCOPES = (keys.MOVE, keys.LISTS, keys.SEARCH, keys.OWN, keys.REPEAT, keys.CONFIGURED, keys.WHY)
    IS_TAB = False

    def __init__(self, host: PageHost, wanted: filters.Filter, ask: str) -> None:
        """``ask``: the beginning of a last word of the filter, for the operator to complete."""
        super().__init__(host)
        self._ask = ask
        self.tab = "live"
        self._wanted = wanted
        self._search = Search(filters.EMPTY, 1)
        self._running = False
        self._shown: tuple[int, int] = (-1, -1)

    def body(self) -> Iterable[Widget]:
        yield Pane(id="search-title")
        yield MessageRows(id="found", follow=False)

    def on_mount(self) -> None:
        self.use_filter(self._wanted)
        if self._ask or self._wanted.is_empty:
            self.action_filter(self._ask)

    def on_unmount(self) -> None:
        self._search.cancelled.set()

    def filter_changed(self) -> None:
        self._search.cancelled.set()
        service = self.host.snapshot.name
        all_shown = self.host.remembered.show_own or self.filter.names_own(service)
        journal = self.host.snapshot.journal
        own = "" if all_shown else f"{service}/"
        self._search = Search(self.filter, journal.last_seq + 1, own, journal.first_seq)
        self._start()

    def _start(self) -> None:
        search, engine = self._search, self.host.engine

        def work() -> None:
            try:
                search.walk(engine)
            finally:
                self.host.background.call(self._stopped, search)

        self._running = True
        self.host.background.run(work, group="search")

    def _stopped(self, search: Search) -> None:
        if search is self._search:
            self._running = False
            self.host.show_now()

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:  # noqa: ARG002 - the journal is asked, not the snapshot
        search, rows, cells = self._search, self.rows, self.size.width
        now = (id(search), len(search.found))
        if now != self._shown:
            fresh = self._shown[0] != id(search)
            self._shown = now
            rows.set_items(search.found)
            if fresh or rows.current is None:
                rows.action_last()
        rows.look_up(self.host.engine, self.host.remembered, now_ns)
        rows.empty_text = "Searching …" if self._running else "Nothing was found."
        reached = ""
        if search.reached_ns:
            reached = formats.date_and_time(search.reached_ns, utc=self.host.remembered.utc)[:19]
        state = "searching" if self._running else ("all" if search.ended else "b goes on")
        title: Line = [
            ("Journal ", "head"),
            (f"── {formats.number(len(search.found))} found ", "strong"),
            (f"── {formats.number(search.looked_at)} looked at", "dim"),
            ("" if search.ended else f" ({search.part:.0%})", "dim"),
            (f", back to {reached}" if reached else "", "dim"),
        ]
        if search.own_left_out:
            left_out = formats.number(search.own_left_out)
            title.append((f" ── {left_out} of the appliance's own left out (o)", "dim"))
        self.query_one("#search-title", Pane).show([rule(title, cells, [(state, "info")])])

    def go_back(self) -> None:
        self._search.cancelled.set()
        self.dismiss()

    def own_changed(self) -> None:
        self.filter_changed()

    # --- what keys do --------------------------------------------------------------------------

    def action_further(self) -> None:
        """Search on, further back."""
        if self._search.ended:
            self.host.say("The journal has nothing older.")
        elif not self._running:
            self._start()
