"""The registry of pages, and the ways from one page to another.

Pages are made when they are first asked for, and their modules imported then: the first page comes
sooner. The tabs are kept; every other page lies over one of them until it is dismissed.
Not for: dialogs that an action opens (operator_actions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from textual.app import App
from textual.geometry import Size
from textual.screen import Screen

from appliance.engine_api import Explanation, ServerTask
from appliance.model import HTTP_CLIENT, Execution, Message, bridge_of, is_own
from appliance.problems import Place
from appliance.ui.filters import Filter
from appliance.ui.screens.live import LiveScreen
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import Navigation, PageHost
from appliance.ui.server_task_feed import ServerTaskFeed
from appliance.ui.views.page_frame import MIN_COLUMNS, MIN_ROWS

_LISTED = {
    "timer": "tasks",
    "topic": "topics",
    "client": "clients",
    "bridge": "clients",
    "freshness": "freshness",
}
"""The tab whose list has what a place names."""


class _WayBack(NamedTuple):
    """Where Esc leads on a tab that another page has led to."""

    to: str
    at: str
    """The tab that was led to."""
    before: Filter
    """Its filter before that."""


class Navigator(Navigation):
    """Shows pages on the app's stack of screens."""

    def __init__(self, app: App[Any], host: PageHost) -> None:
        """``host``: the same app, as the pages know it."""
        self._app = app
        self._host = host
        self._tabs: dict[str, Page] = {}
        self._way_back: _WayBack | None = None
        self._cover: Screen[None] | None = None
        """Hides everything while the terminal is too small."""

    # --- tabs ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Show the first page."""
        self._app.push_screen(self._tab("live"))
        self.fit(self._app.size)

    def _tab(self, name: str) -> Page:
        if name not in self._tabs:
            module = import_module(f"appliance.ui.screens.{name}")
            screen = "".join(part.capitalize() for part in name.split("_"))
            self._tabs[name] = getattr(module, f"{screen}Screen")(self._host)
            self._app.install_screen(self._tabs[name], name)
        return self._tabs[name]

    @property
    def page(self) -> Page | None:
        """The uppermost page; dialogs may lie over it."""
        for screen in reversed(self._app.screen_stack):
            if isinstance(screen, Page):
                return screen
        return None

    @property
    def is_on_tab(self) -> bool:
        """Whether the uppermost screen is one of the tabs, which are never taken away."""
        screen = self._app.screen
        return isinstance(screen, Page) and screen.IS_TAB

    def show(self, name: str) -> None:
        """Go to a tab from any page or dialog."""
        if self._cover is not None:
            return
        self._way_back = None
        page = self._tab(name)
        while len(self._app.screen_stack) > 1 and not self.is_on_tab:
            self._app.pop_screen()
        if self._app.screen is not page:
            self._app.switch_screen(name)

    def feed_changed(self) -> None:
        """Tell the Live page, if it is in view, that the feed has other messages."""
        live = self._tabs["live"]
        if isinstance(live, LiveScreen) and live.is_current:
            live.feed_changed()

    # --- from page to page ---------------------------------------------------------------------

    def _lead_to(self, name: str) -> Page:
        """Show a tab; Esc there leads back to the present one."""
        came_from = self.page.tab if self.page is not None else name
        target = self._tab(name)
        self.show(name)
        if came_from != name:
            self._way_back = _WayBack(came_from, name, target.filter)
        return target

    def go_back(self) -> bool:
        way = self._way_back
        page = self.page
        if way is None or page is None or way.at != page.TAB or not self.is_on_tab:
            return False
        page.use_filter(way.before)
        self.show(way.to)
        return True

    def show_live(self, wanted: Filter) -> None:
        self._lead_to("live").use_filter(wanted)

    def show_values(self, topic: str) -> None:
        page = self._lead_to("values")
        page.show_topic(topic)  # type: ignore[attr-defined]  # imported late, see the docstring

    def show_topic(self, topic: str) -> None:
        page = self._lead_to("topics")
        if topic:
            page.choose(topic)

    def show_client(self, client_id: str) -> None:
        if bridge := bridge_of(client_id):
            self.show_bridge(bridge)
        elif is_own(client_id):
            self._host.say("The appliance itself sent this.")
        elif client_id == HTTP_CLIENT:
            self._host.say("This came over HTTP, which keeps no client and no session.")
        elif client_id and any(one.client_id == client_id for one in self._host.engine.clients()):
            self._lead_to("clients").choose(client_id)
        elif client_id:
            self._host.say(f"{client_id} is not connected and has no session.")
        else:
            self._host.say("No client sent this.")

    def show_bridge(self, name: str) -> None:
        if all(one.name != name for one in self._host.snapshot.bridges):
            self._host.say(f"The configuration has no bridge {name} any more.")
            return
        page = self._lead_to("clients")
        page.choose_bridge(name)  # type: ignore[attr-defined]  # imported late, see the docstring

    # --- pages over a tab ----------------------------------------------------------------------

    def show_task(self, task_id: str, name: str = "") -> None:
        page = self._lead_to("tasks")
        page.go_to_task(task_id, name)  # type: ignore[attr-defined]  # imported late, see the docstring

    def show_server_task(self, item: ServerTask, feed: ServerTaskFeed) -> None:
        from appliance.ui.screens.server_task import ServerTaskScreen  # noqa: PLC0415 - see the docstring

        self._app.push_screen(ServerTaskScreen(self._host, item, feed))

    def show_message(self, message: Message, among: Sequence[Message], tab: str = "live") -> None:
        from appliance.ui.screens.message import MessageScreen  # noqa: PLC0415 - see the docstring

        self._app.push_screen(MessageScreen(self._host, message, among, tab))

    def fetch_message(self, seq: int, tab: str) -> None:
        host = self._host
        if not seq:
            host.say("No message caused this.")
            return

        def work() -> None:
            message = host.engine.message(seq)
            if message is None:
                host.background.call(host.say, f"The journal has no message {seq} any more.")
            else:
                host.background.call(self.show_message, message, (), tab)

        host.background.run(work, group="message")

    def show_execution(self, execution: Execution, tab: str = "tasks") -> None:
        from appliance.ui.screens.execution import ExecutionScreen  # noqa: PLC0415 - see the docstring

        self._app.push_screen(ExecutionScreen(self._host, execution, tab))

    def show_bridge_detail(self, name: str) -> None:
        from appliance.ui.screens.bridge import BridgeScreen  # noqa: PLC0415 - see the docstring

        self._app.push_screen(BridgeScreen(self._host, name))

    def explain_message(self, seq: int, topic: str, tab: str) -> None:
        engine = self._host.engine
        self._explain(topic, lambda: engine.explain(seq), tab)

    def explain_execution(self, execution: Execution, tab: str) -> None:
        cause = execution.cause
        if cause.seq:
            self.explain_message(cause.seq, cause.topic, tab)
        else:
            self._host.say("No message caused this, so no rule was asked.")

    def explain_draft(self, topic: str, payload: bytes, retain: bool) -> None:
        engine, page = self._host.engine, self.page
        self._explain(
            topic,
            lambda: engine.explain_message(topic, payload, retain, ""),
            page.tab if page is not None else "live",
        )

    def _explain(self, topic: str, ask: Callable[[], Explanation], tab: str) -> None:
        from appliance.ui.screens.explanation import ExplanationScreen  # noqa: PLC0415 - see the docstring

        self._app.push_screen(ExplanationScreen(self._host, topic, ask, tab))

    def show_problems(self) -> None:
        from appliance.ui.screens.problems import ProblemsScreen  # noqa: PLC0415 - see the docstring

        page = self.page
        if page is not None and not isinstance(page, ProblemsScreen):
            self._app.push_screen(ProblemsScreen(self._host, page.tab))

    def go_to(self, place: Place) -> None:
        if place.kind == "execution":
            self._go_to_execution(int(place.name))
        elif place.kind in _LISTED:
            self.show(_LISTED[place.kind])
            page = self._tabs[_LISTED[place.kind]]
            if place.kind == "bridge":
                page.choose_bridge(place.name)  # type: ignore[attr-defined]  # imported late, see the docstring
            else:
                page.choose(place.name)
        else:
            self.show("tasks" if place.kind == "server" else place.kind)

    def _go_to_execution(self, number: int) -> None:
        host = self._host
        execution = host.engine.execution(number)
        if execution is not None:
            self.show_execution(execution)
            return

        def found(executions: Sequence[Execution]) -> None:
            if executions and executions[0].id == number:
                self.show_execution(executions[0])
            else:
                host.say(f"Execution {number} is not kept any more.")

        host.background.fetch(
            lambda: host.engine.executions(number + 1, 1), found, group="execution"
        )

    def show_search(self, wanted: Filter, ask: str = "") -> None:
        from appliance.ui.screens.search import SearchScreen  # noqa: PLC0415 - see the docstring

        self._app.push_screen(SearchScreen(self._host, wanted, ask))

    # --- the size of the terminal --------------------------------------------------------------

    def fit(self, size: Size) -> None:
        """Cover everything while the terminal is too small, uncover it when it has grown."""
        if not self._tabs:
            return
        columns, rows = size
        small = columns < MIN_COLUMNS or rows < MIN_ROWS
        if small and self._cover is None:
            from appliance.ui.screens.dialogs import TerminalTooSmall  # noqa: PLC0415 - see the docstring

            self._cover = TerminalTooSmall()
            self._app.push_screen(self._cover)
        elif self._cover is not None and not small and self._app.screen is self._cover:
            self._cover = None
            self._app.pop_screen()
