"""What a page asks of the app that shows it.

Pages know these protocols only. They import neither the app nor one another: a page that leads to
another one names it by a method of ``Navigation``.
Not for: how it is done (app.py, navigator.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.engine_api import ServerTask, Snapshot
from appliance.model import Execution, Message
from appliance.problems import Place
from appliance.ui.filters import Filter
from appliance.ui.keys import Key
from appliance.ui.live_feed import LiveFeed
from appliance.ui.noted import Noted
from appliance.ui.screens.operator_actions import ActionHost, OperatorActions
from appliance.ui.server_task_feed import ServerTaskFeed
from appliance.ui.settings import UiSettings


class Navigation(Protocol):
    """The pages that a page can lead to. ``tab`` is the tab that is marked meanwhile."""

    def go_back(self) -> bool:
        """Go back to the page that led to this tab; returns whether there was one."""

    def show_live(self, wanted: Filter) -> None:
        """Go to the Live page with a filter."""

    def show_server_task(self, item: ServerTask, feed: ServerTaskFeed) -> None:
        """Show all that is known of a task of the server."""

    def show_task(self, task_id: str, name: str = "") -> None:
        """Go to a task's executions; ``name``: if no other task has it."""

    def show_values(self, topic: str) -> None:
        """Go to the plot of a topic's numbers."""

    def show_topic(self, topic: str) -> None:
        """Go to a topic on the Topics page; to the page alone if it is empty."""

    def show_client(self, client_id: str) -> None:
        """Go to a client on the Clients page, if it is connected or has a session."""

    def show_bridge(self, name: str) -> None:
        """Go to a bridge on the Clients page, if the configuration has it."""

    def show_bridge_detail(self, name: str) -> None:
        """Show the whole of a bridge."""

    def show_message(self, message: Message, among: Sequence[Message], tab: str = "live") -> None:
        """Show the whole of a message; ``among``: the list that "next" and "previous" walk."""

    def fetch_message(self, seq: int, tab: str) -> None:
        """Read a message from the journal and show it; 0 stands for no message."""

    def show_execution(self, execution: Execution, tab: str = "tasks") -> None:
        """Show the whole of an execution."""

    def explain_message(self, seq: int, topic: str, tab: str) -> None:
        """Show why a message of the journal starts something or nothing."""

    def explain_execution(self, execution: Execution, tab: str) -> None:
        """Show why the message that asked for an execution starts something or nothing."""

    def explain_draft(self, topic: str, payload: bytes, retain: bool) -> None:
        """Show what a message would start that is not published."""

    def show_problems(self) -> None:
        """Show what is wrong and what was noted."""

    def go_to(self, place: Place) -> None:
        """Show what is behind a problem."""

    def show_search(self, wanted: Filter, ask: str = "") -> None:
        """Search the journal; ``ask``: a word of the filter that the operator completes first."""


class PageHost(ActionHost, Protocol):
    """The app, as a page sees it."""

    settings: UiSettings
    snapshot: Snapshot
    """The state of the engine at the last poll."""
    trouble: str
    """Why the last poll failed; empty if it did not."""
    clock_ns: Callable[[], int]
    feed: LiveFeed
    noted: Noted
    actions: OperatorActions

    @property
    def navigation(self) -> Navigation:
        """Leads to other pages."""

    def press(self, key: Key) -> None:
        """Do what the key would do, on the widget with the focus, the page or the app."""

    def show_now(self) -> None:
        """Bring the page up to date before the next poll."""

    def remember_filter(self, source: str) -> None:
        """Add a filter to the remembered ones."""

    def show_info(self, title: str, text: str) -> None:
        """Show a text over the page until a key is pressed."""

    def copy(self, text: str, what: str) -> None:
        """Put ``text`` on the clipboard of the operator's terminal; ``what`` names it."""

    def copy_payload(self, message: Message) -> None:
        """Copy a payload: text as it is, binary data as hex."""

    def export(self, what: str, items: Sequence[object]) -> None:
        """Write rows to a file; ``what`` names them, also in the file's name."""
