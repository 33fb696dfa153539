"""The whole of one bridge: connection, last error, numbers, subscriptions, what it sends.

Not for: the list of bridges (clients.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from textual.widget import Widget

from appliance.engine_api import BridgeState, Snapshot
from appliance.model import bridge_client_id
from appliance.problems import bridge_level
from appliance.ui import filters, keys, symbols
from appliance.ui.lines import Line, rule
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.views import bridge as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.viewer import Viewer


class BridgeScreen(Page):
    """Opened over the Clients screen; it follows the bridge."""

    SCOPES = (keys.BRIDGE, keys.BRIDGES)
    IS_TAB = False

    def __init__(self, host: PageHost, name: str) -> None:
        super().__init__(host)
        self.tab = "clients"
        self._bridge_name = name

    def body(self) -> Iterable[Widget]:
        yield Pane(id="facts")
        yield Viewer(id="story")

    @property
    def _bridge(self) -> BridgeState | None:
        found = self.host.snapshot.bridges
        return next((one for one in found if one.name == self._bridge_name), None)

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        cells = self.size.width
        bridge = self._bridge
        title: Line = [("Bridge ", "head"), (self._bridge_name, "strong")]
        lines: list[Line] = [[(" The configuration has no such bridge any more.", "dim")]]
        if bridge is not None:
            level = bridge_level(bridge, now_ns)
            title.append((f" {symbols.level_sign(level)}", symbols.level_tone(level)))
            key = keys.shown_for("connect_bridge", self.host.settings.keys)
            utc = self.host.remembered.utc
            lines = view.detail(bridge, snapshot, now_ns, cells, utc=utc, key=key)
        self.query_one("#facts", Pane).show([rule(title, cells, [("↑↓ scroll  Esc back", "dim")])])
        self.query_one(Viewer).show(lines)

    # --- what keys do --------------------------------------------------------------------------

    def action_open(self) -> None:
        """The messages that it brought in, on the Live screen."""
        self.host.navigation.show_live(filters.for_client(bridge_client_id(self._bridge_name)))

    def action_connect_bridge(self) -> None:
        """Let it connect now instead of at the end of its wait."""
        bridge = self._bridge
        if bridge is not None:
            self.host.actions.connect_bridge(bridge)

    def action_copy(self) -> None:
        bridge = self._bridge
        if bridge is not None:
            text = bridge.health.text or bridge.last_error or bridge.address
            self.host.copy(text, "the last error" if text != bridge.address else "the address")
