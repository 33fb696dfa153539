"""Why a message starts something or nothing: what comes of it, and each thing that was looked at.

Not for: the words (explanation_text.py), or which message (navigator.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from textual.widget import Widget

from appliance.engine_api import Explanation, Snapshot
from appliance.errors import ApplianceError
from appliance.ui import keys
from appliance.ui.lines import Line, rule, text_of
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.views import explanation as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.viewer import Viewer

_COPIED_CELLS = 120


class ExplanationScreen(Page):
    """Opened over a page or a dialog; Esc leads back there."""

    SCOPES = (keys.EXPLANATION, keys.WHY)
    IS_TAB = False

    def __init__(
        self, host: PageHost, topic: str, ask: Callable[[], Explanation], tab: str
    ) -> None:
        """``ask`` gets the explanation; it may wait for the engine."""
        super().__init__(host)
        self.tab = tab
        self._topic = topic
        self._ask = ask
        self._explanation: Explanation | None = None
        self._problem = ""

    def body(self) -> Iterable[Widget]:
        yield Pane(id="facts")
        yield Viewer(id="explanation")

    def on_mount(self) -> None:
        self._fetch()

    def _fetch(self) -> None:
        ask = self._ask

        def work() -> None:
            try:
                found = ask()
            except ApplianceError as error:
                self.host.background.call(self._failed, str(error))
            else:
                self.host.background.call(self._fetched, found)

        self.host.background.run(work, group="explanation")

    def _fetched(self, found: Explanation) -> None:
        self._explanation, self._problem = found, ""
        self.host.show_now()

    def _failed(self, problem: str) -> None:
        self._problem = problem
        self.host.show_now()

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:  # noqa: ARG002 - it stands still
        cells = self.size.width
        title: Line = [("Why ", "head"), (self._topic, "strong")]
        seq = self._explanation.seq if self._explanation is not None else 0
        if seq:
            title.append((f" message {seq}", "dim"))
        self.query_one("#facts", Pane).show([rule(title, cells, [("↑↓ scroll  Esc back", "dim")])])
        self.query_one(Viewer).show(self._lines(cells - 1))

    def _lines(self, cells: int) -> list[Line]:
        if self._problem:
            return [[(f" ✗ {self._problem}", "bad")]]
        if self._explanation is None:
            return [[(" The rules are asked ...", "dim")]]
        return view.lines(self._explanation, cells, utc=self.host.remembered.utc)

    # --- what keys do --------------------------------------------------------------------------

    def action_explain(self) -> None:
        """Ask again: waits go on meanwhile."""
        self._fetch()

    def action_copy(self) -> None:
        text = "\n".join(text_of(line).rstrip() for line in self._lines(_COPIED_CELLS))
        self.host.copy(text, "the explanation")
