"""The list of bridges on the Clients screen.

Not for: its lines (views/bridge.py).
"""

from __future__ import annotations

from collections.abc import Hashable

from appliance.engine_api import BridgeState
from appliance.ui.lines import Line
from appliance.ui.views import bridge as view
from appliance.ui.widgets.rows import Rows

_NO_RATE = (0.0, 0.0)
_LEAST_S = 0.5


class BridgeRows(Rows[BridgeState]):
    """Bridges in the order of the configuration, with their rates."""

    ONE_OF_SEVERAL = True

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._now_ns = 0
        self._rates: dict[str, tuple[float, float]] = {}
        self._before: dict[str, tuple[int, int]] = {}
        self._counted_ns = 0

    def key(self, item: BridgeState) -> Hashable:
        return item.name

    def line(self, item: BridgeState, cells: int) -> Line:
        return view.row(item, self._rates.get(item.name, _NO_RATE), self._now_ns, cells)

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1)

    def count(self, bridges: tuple[BridgeState, ...], now_ns: int) -> None:
        """Work out the rates once a second."""
        self._now_ns = now_ns
        seconds = (now_ns - self._counted_ns) / 1e9
        if 0 <= seconds < 1:
            return
        counts = {one.name: (one.messages_in, one.messages_out) for one in bridges}
        if self._counted_ns and seconds >= _LEAST_S:
            self._rates = {
                name: (
                    max(0.0, (now[0] - self._before[name][0]) / seconds),
                    max(0.0, (now[1] - self._before[name][1]) / seconds),
                )
                for name, now in counts.items()
                if name in self._before
            }
        self._before, self._counted_ns = counts, now_ns
