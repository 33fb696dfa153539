"""The Clients screen: connections, queues, and the health of every part of the appliance.

Not for: the messages of a client (Enter shows them on the Live screen).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from textual.widget import Widget

from appliance.engine_api import ClientState, Snapshot
from appliance.ui import filters, formats, keys
from appliance.ui.lines import Line, rule
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.views import client as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows
from appliance.ui.widgets.viewer import TitledViewer

_Rates = dict[str, tuple[float, float]]


_NO_RATE = (0.0, 0.0)
_TALL = 36

_SORTS: dict[str, Callable[[ClientState, _Rates], Any]] = {
    "in": lambda client, rates: -rates.get(client.client_id, _NO_RATE)[0],
    "out": lambda client, rates: -rates.get(client.client_id, _NO_RATE)[1],
    "queue": lambda client, _rates: -client.queued,
    "lost": lambda client, _rates: -client.dropped,
    "name": lambda client, _rates: client.client_id,
    "up": lambda client, _rates: -client.since_ns,
}


class ClientRows(Rows[ClientState]):
    """Connected clients, and the sessions of clients that are away."""

    ONE_OF_SEVERAL = True
    sort = "in"
    now_ns = 0

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.rates: _Rates = {}

    def key(self, item: ClientState) -> Hashable:
        return item.client_id

    def line(self, item: ClientState, cells: int) -> Line:
        rates = self.rates.get(item.client_id, _NO_RATE)
        return view.row(item, rates, self.now_ns, cells)

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1, self.sort)

    def title_at(self, cell: int, cells: int) -> str:
        column = view.TABLE.at(cells, cell)
        return "" if column is None else column.key


class ClientsScreen(Page):
    """Sorted by incoming rate at first: a client that floods the broker is on top."""

    SCOPES = (keys.MOVE, keys.LISTS, keys.CLIENTS, keys.SORTED)
    TAB = "clients"
    FILTER_WORDS = ("text", "client", "user")
    FILTERED = "of the clients"
    AUTO_FOCUS = "ClientRows"
    EXPORTED = "clients"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._asked_ns = 0
        self._before: dict[str, tuple[int, int]] = {}
        self._dirty = True
        self._wanted = ""
        """The client that is chosen when the list has been filled."""

    def body(self) -> Iterable[Widget]:
        yield ClientRows(id="clients")
        yield Pane(id="client-subscriptions")
        yield TitledViewer("Broker", id="broker")

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        seconds = (now_ns - self._asked_ns) / 1e9
        if seconds >= 1 or seconds < 0 or self._dirty:
            self._ask(now_ns, seconds)
        rows, cells = self.query_one(ClientRows), self.size.width
        client = rows.current
        title: Line = [(client.client_id if client is not None else "", "head")]
        chosen = [rule(title, cells), view.subscriptions(client)] if client is not None else []
        self.query_one("#client-subscriptions", Pane).show(chosen)
        lines = view.broker_lines(snapshot, cells - 1, self.host.noted.risen_ns, now_ns)
        broker = self.query_one(TitledViewer)
        broker.styles.height = 1 + min(len(lines), 8 if self.size.height < _TALL else 16)
        broker.show(lines)

    def _ask(self, now_ns: int, seconds: float) -> None:
        rows = self.query_one(ClientRows)
        clients = self.host.engine.clients()
        counts = {one.client_id: (one.messages_in, one.messages_out) for one in clients}
        if self._asked_ns and seconds >= 0.5:
            rows.rates = {
                name: (
                    max(0.0, (now[0] - self._before[name][0]) / seconds),
                    max(0.0, (now[1] - self._before[name][1]) / seconds),
                )
                for name, now in counts.items()
                if name in self._before
            }
        if seconds >= 0.5 or seconds < 0:
            self._before, self._asked_ns = counts, now_ns
        self._dirty = False
        wanted, self._wanted = self._wanted, ""
        rows.now_ns = now_ns
        shown = [
            one
            for one in clients
            if self.filter.takes_text(one.client_id, one.address, one.username or "")
            and self.filter.takes_client(one.client_id)
            and self.filter.takes_user(one.username or "")
        ]
        rows.empty_text = "No client is connected."
        if clients and not shown:
            hidden = formats.counted(len(clients), "client")
            rows.empty_text = f"{hidden} hidden by the filter. Esc clears it."
        order = _SORTS[rows.sort]
        rows.set_items(sorted(shown, key=lambda one: (order(one, rows.rates), one.client_id)))
        if wanted:
            rows.select(wanted)

    def choose(self, name: str) -> None:
        """Choose a client, whatever the filter was."""
        self._wanted = name
        self.focus_body()
        self.use_filter(filters.EMPTY)

    def filter_changed(self) -> None:
        self._dirty = True

    # --- what keys do --------------------------------------------------------------------------

    def action_sort(self) -> None:
        """By messages in, out, queue, lost, name, or how long it is connected."""
        rows = self.query_one(ClientRows)
        names = list(_SORTS)
        rows.sort = names[(names.index(rows.sort) + 1) % len(names)]
        self._dirty = True
        self.host.show_now()

    def choose_title(self, key: str) -> None:
        if key in _SORTS:
            self.query_one(ClientRows).sort = key
            self._dirty = True
            self.host.show_now()

    @property
    def _client(self) -> ClientState | None:
        return self.query_one(ClientRows).current

    def action_open(self) -> None:
        """The messages that the client sends, on the Live screen."""
        if self._client is not None:
            self.host.navigation.show_live(filters.for_client(self._client.client_id))

    def action_disconnect(self) -> None:
        if self._client is None:
            return
        if self._client.connected:
            self.host.actions.disconnect(self._client)
        else:
            self.host.say("This client is not connected.")

    def action_end_session(self) -> None:
        """End the session with what waits in it, of a connected client too."""
        if self._client is not None:
            self.host.actions.end_session(self._client)

    def action_copy(self) -> None:
        if self._client is not None:
            self.host.copy(self._client.client_id, "the client id")

    def action_copy_topic(self) -> None:
        if self._client is not None:
            self.host.copy(self._client.address, "the address")
