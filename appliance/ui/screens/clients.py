"""The Clients screen: bridges, connections, queues, the health of every part of the appliance.

Not for: the messages of a client (Enter shows them on the Live screen).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from textual.widget import Widget

from appliance.engine_api import BridgeState, ClientState, Snapshot
from appliance.model import bridge_client_id
from appliance.ui import filters, formats, keys
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line, rule
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.views import bridge as bridge_view
from appliance.ui.views import client as view
from appliance.ui.widgets.bridges import BridgeRows
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows
from appliance.ui.widgets.viewer import TitledViewer

_Rates = dict[str, tuple[float, float]]


_NO_RATE = (0.0, 0.0)
_TALL = 36
_FILTER_ROWS, _FILTER_ROWS_TALL = 3, 10
"""Rows for what the chosen bridge subscribes to."""

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
        self.held: frozenset[str] = frozenset()
        """Client ids that are held."""
        self.rates: _Rates = {}

    def key(self, item: ClientState) -> Hashable:
        return item.client_id

    def line(self, item: ClientState, cells: int) -> Line:
        rates = self.rates.get(item.client_id, _NO_RATE)
        is_held = item.client_id in self.held
        return view.row(item, rates, self.now_ns, cells, is_held=is_held)

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1, self.sort)

    def title_at(self, cell: int, cells: int) -> str:
        column = view.TABLE.at(cells, cell)
        return "" if column is None else column.key


class ClientsScreen(Page):
    """Sorted by incoming rate at first: a client that floods the broker is on top."""

    SCOPES = (keys.MOVE, keys.LISTS, keys.CLIENTS, keys.SORTED, keys.BRIDGES)
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
        self._wanted_bridge = ""
        """The bridge that is chosen when the list has been filled."""

    @property
    def footer_scopes(self) -> tuple[str, ...]:
        other = keys.CLIENTS if self.query_one(BridgeRows).has_focus else keys.BRIDGES
        return tuple(scope for scope in self.SCOPES if scope != other)

    def body(self) -> Iterable[Widget]:
        yield BridgeRows(id="bridges")
        yield ClientRows(id="clients")
        yield Pane(id="client-subscriptions")
        yield TitledViewer("Broker", id="broker")

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        seconds = (now_ns - self._asked_ns) / 1e9
        if seconds >= 1 or seconds < 0 or self._dirty:
            self._ask(now_ns, seconds)
        self._show_bridges(snapshot, now_ns)
        cells = self.size.width
        self.query_one("#client-subscriptions", Pane).show(self._chosen(cells))
        lines = view.broker_lines(snapshot, cells - 1, self.host.noted.risen_ns, now_ns)
        broker = self.query_one(TitledViewer)
        broker.styles.height = 1 + min(len(lines), 8 if self.size.height < _TALL else 16)
        broker.show(lines)

    def _show_bridges(self, snapshot: Snapshot, now_ns: int) -> None:
        rows = self.query_one(BridgeRows)
        shown = [one for one in snapshot.bridges if self._takes_bridge(one)]
        rows.count(snapshot.bridges, now_ns)
        rows.set_items(shown)
        rows.display = bool(shown)
        rows.styles.height = min(len(shown) + 1, max(3, self.size.height // 5))
        wanted, self._wanted_bridge = self._wanted_bridge, ""
        if wanted and rows.select(wanted):
            self.set_focus(rows)
        elif rows.has_focus and not shown:
            self.focus_body()
        elif shown and not snapshot.listeners and not self.has_shown:
            self.set_focus(rows)  # there can be no client

    def _takes_bridge(self, bridge: BridgeState) -> bool:
        return (
            self.filter.takes_text(bridge.name, bridge.address)
            and self.filter.takes_client(bridge_client_id(bridge.name))
            and self.filter.takes_user("")
        )

    def _chosen(self, cells: int) -> list[Line]:
        """What the chosen bridge or client subscribes to."""
        bridge, client = self._bridge, self._client
        if bridge is not None:
            rows = _FILTER_ROWS if self.size.height < _TALL else _FILTER_ROWS_TALL
            title: Line = [(f"bridge {bridge.name}", "head"), (f" {bridge.address}", "dim")]
            return [rule(title, cells), *bridge_view.subscription_lines(bridge, cells, rows)]
        if client is None:
            return []
        return [rule([(client.client_id, "head")], cells), view.subscriptions(client)]

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
        holds = self.host.snapshot.holds
        rows.held = frozenset(one.name for one in holds if one.kind == "client")
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

    def choose_bridge(self, name: str) -> None:
        """Choose a bridge, whatever the filter was."""
        self._wanted_bridge = name
        self.use_filter(filters.EMPTY)

    def filter_changed(self) -> None:
        self._dirty = True

    def hold_targets(self) -> Sequence[Target]:
        return () if self._client is None else (Target("client", self._client.client_id),)

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
    def _bridge(self) -> BridgeState | None:
        """The chosen bridge, while the list of bridges has the focus."""
        rows = self.query_one(BridgeRows)
        return rows.current if rows.has_focus else None

    @property
    def _client(self) -> ClientState | None:
        """The chosen client, unless the list of bridges has the focus."""
        is_aside = self.query_one(BridgeRows).has_focus
        return None if is_aside else self.query_one(ClientRows).current

    def action_open(self) -> None:
        """The messages that the client sends, on the Live screen; the whole of a bridge."""
        if self._bridge is not None:
            self.host.navigation.show_bridge_detail(self._bridge.name)
        elif self._client is not None:
            self.host.navigation.show_live(filters.for_client(self._client.client_id))

    def action_connect_bridge(self) -> None:
        """Let the chosen bridge connect now instead of at the end of its wait."""
        bridge = self.query_one(BridgeRows).current
        if bridge is None:
            self.host.say("There is no bridge here.")
        else:
            self.host.actions.connect_bridge(bridge)

    def action_disconnect(self) -> None:
        if self._bridge is not None:
            self.host.say("A bridge is ended in the configuration: remove it, then reload.")
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
        if self._bridge is not None:
            self.host.copy(self._bridge.client_id, "the client id")
        elif self._client is not None:
            self.host.copy(self._client.client_id, "the client id")

    def action_copy_topic(self) -> None:
        if self._bridge is not None:
            self.host.copy(self._bridge.address, "the address")
        elif self._client is not None:
            self.host.copy(self._client.address, "the address")
