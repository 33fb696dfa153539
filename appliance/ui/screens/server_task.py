"""The whole of one task of the server: its runs, what starts it, what stands in the way, its chain.

Not for: the list (server_tasks.py), one execution (execution.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.widget import Widget

from appliance.engine_api import ServerTask, Snapshot
from appliance.errors import ApplianceError
from appliance.model import Execution
from appliance.ui import hold_targets, keys, task_list
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line, rule
from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.server_task_feed import ServerTaskFeed
from appliance.ui.views import execution as execution_view
from appliance.ui.views import server_task as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.viewer import Viewer

_RUNS = 60
_PLOT_ROWS = 5


class ServerTaskScreen(Page):
    """Opened over the list; it follows the task."""

    SCOPES = (keys.SERVER_TASK, keys.RUNS, keys.ACTING, keys.CONFIGURED)
    IS_TAB = False

    def __init__(self, host: PageHost, item: ServerTask, feed: ServerTaskFeed) -> None:
        super().__init__(host)
        self.tab = "server_tasks"
        self._item = item
        self._feed = feed
        self._runs: Sequence[Execution] = ()

    def body(self) -> Iterable[Widget]:
        yield Pane(id="facts")
        yield Viewer(id="story")

    def on_mount(self) -> None:
        engine, task_id = self.host.engine, self._item.task.id

        def runs() -> Sequence[Execution]:
            try:
                return engine.executions(1 << 62, _RUNS, task_id)
            except ApplianceError:
                return [one for one in self.host.snapshot.executions if one.task_id == task_id]

        self.host.background.fetch(runs, self._found, group="runs")

    def _found(self, runs: Sequence[Execution]) -> None:
        self._runs = runs
        self.host.show_now()

    @property
    def _execution(self) -> Execution | None:
        return self.host.engine.execution(self._item.execution)

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        self._feed.ask(now_ns)
        tasks = self._feed.tasks(snapshot)
        task_id = self._item.task.id
        self._item = next((one for one in tasks if one.task.id == task_id), self._item)
        cells, utc = self.size.width, self.host.remembered.utc
        title: Line = [("Task ", "head"), (self._item.task.name, "strong")]
        self.query_one("#facts", Pane).show([rule(title, cells, [("↑↓ scroll  Esc back", "dim")])])
        names, followers = self._feed.names, self._feed.followers
        hold = view.held_tasks(snapshot).get(task_id)
        obstacles = view.in_the_way(self._item, self._execution, hold, snapshot, now_ns)
        chain = task_list.chain_of(tasks, task_id)
        self.query_one(Viewer).show(
            [
                view.state(self._item, self._execution, now_ns),
                *view.facts_and_starters(
                    self._item, names, followers.get(task_id, ()), hold, now_ns, utc=utc
                ),
                *view.any_task(self._feed.any_task, cells),
                [],
                *view.obstacles(obstacles, cells),
                *(view.chain(chain, task_id, cells) if len(chain) > 1 else ()),
                [],
                *execution_view.plot(self._runs, cells, _PLOT_ROWS),
            ]
        )

    def hold_targets(self) -> Sequence[Target]:
        return hold_targets.of_server_task(self._item)

    # --- what keys do --------------------------------------------------------------------------

    def action_open(self) -> None:
        """The task's executions, on the Tasks screen."""
        task = self._item.task
        self.host.navigation.show_task(task.id, task.name)

    def action_run_task(self) -> None:
        self.host.actions.start_task(self._item.task)

    def action_stop_run(self) -> None:
        if self._execution is not None:
            self.host.actions.stop_run(self._execution)

    def action_message(self) -> None:
        """The message that caused its newest execution."""
        if self._execution is not None:
            self.host.navigation.fetch_message(self._execution.cause.seq, self.tab)

    def action_copy(self) -> None:
        self.host.copy(self._item.task.id, "the task's id")

    def action_copy_block(self) -> None:
        """The ways in which a rule or timer can name the task."""
        task = self._item.task
        copy_menu.offer_selectors(self.host, task.id, task.name, task.tags)
