"""The screen of the server's tasks: one row each, or the chains as a tree, and the chosen one.

Not for: executions (tasks.py), picking a task for a start (task_picker.py), one task in full
(server_task.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from textual.widget import Widget

from appliance.engine_api import HoldState, ServerTask, Snapshot
from appliance.ui import formats, hold_targets, keys, task_list
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line, rule
from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.server_task_feed import ServerTaskFeed
from appliance.ui.task_list import Row
from appliance.ui.text import first_line, printable
from appliance.ui.views import server_task as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows

_SORT_NS = formats.SECOND_NS
"""The rows are put in order once a second: a row that jumps at every frame can't be read."""
_FOOT_ROWS, _FOOT_ROWS_TALL = 4, 12
_TALL = 36
_UNKNOWN = "The appliance knows no run of this task: the server alone tells of it."


class ServerTaskRows(Rows[Row]):
    """The tasks in view."""

    sort = "name"
    now_ns = 0
    utc = False
    names: Mapping[str, str]
    holds: Mapping[str, HoldState]

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.names = {}
        self.holds = {}

    def key(self, item: Row) -> Hashable:
        return item.key

    def line(self, item: Row, cells: int) -> Line:
        hold = self.holds.get(item.item.task.id)
        return view.row(item, self.names, hold, self.now_ns, cells, utc=self.utc)

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1, self.sort)

    def title_at(self, cell: int, cells: int) -> str:
        column = view.TABLE.at(cells, cell)
        return "" if column is None else column.key


class ServerTasksScreen(Page):
    """Sorted by name at first; ``T`` shows the chains."""

    SCOPES = (
        keys.MOVE,
        keys.LISTS,
        keys.SERVER_TASKS,
        keys.ACTING,
        keys.SORTED,
        keys.RUNS,
        keys.CONFIGURED,
    )
    TAB = "server_tasks"
    FILTER_WORDS = ("text", "task", "rule", "state", "since", "until")
    FILTERED = "of the tasks"
    AUTO_FOCUS = "ServerTaskRows"
    EXPORTED = "tasks"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._feed = ServerTaskFeed(host)
        self._tasks: Sequence[ServerTask] = ()
        """With the news of the snapshot."""
        self._sorted_ns = 0
        self._arranged: object = None
        """What the rows were last arranged by."""
        self._is_tree = False

    def body(self) -> Iterable[Widget]:
        yield Pane(id="server-tasks-title")
        rows = ServerTaskRows(id="server-tasks")
        rows.empty_text = "asking the server …"
        yield rows
        yield Pane(id="server-task-foot")

    @property
    def rows(self) -> ServerTaskRows:
        return self.query_one(ServerTaskRows)

    # --- the frame -----------------------------------------------------------------------------

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        self._feed.ask(now_ns)
        rows = self.rows
        rows.now_ns, rows.utc = now_ns, self.host.remembered.utc
        rows.names = self._feed.names
        rows.holds = view.held_tasks(snapshot)
        wanted = (self._feed.version, self.filter, rows.sort, self._is_tree)
        is_fresh = self._sorted_ns <= now_ns < self._sorted_ns + _SORT_NS
        if wanted != self._arranged or not is_fresh:
            self._arranged, self._sorted_ns = wanted, now_ns
            self._arrange(snapshot)
        rows.refresh()
        cells = self.size.width
        self.query_one("#server-tasks-title", Pane).show(self._title(cells))
        self._show_foot(now_ns, cells)

    def _arrange(self, snapshot: Snapshot) -> None:
        rows = self.rows
        self._tasks = task_list.ordered(self._feed.tasks(snapshot), rows.sort)
        if self._is_tree:
            rows.set_items(task_list.tree(self._tasks, self._takes))
        else:
            rows.set_items(task_list.flat(filter(self._takes, self._tasks)))
        if self._tasks and not rows.items:
            hidden = formats.counted(len(self._tasks), "task")
            rows.empty_text = f"{hidden} hidden by the filter. Esc clears it."
        elif self._feed.trouble:
            rows.empty_text = self._feed.trouble
        elif self._feed.answer is not None:
            rows.empty_text = "The server has no task that its user may see."

    def _takes(self, one: ServerTask) -> bool:
        return task_list.takes(self.filter, one)

    def _title(self, cells: int) -> list[Line]:
        tasks = self._tasks
        label = printable(self.host.snapshot.qlik.label)
        title: Line = [
            (formats.counted(len(tasks), "task"), "head"),
            (f" of {label}" if label else "", "dim"),
        ]
        bad = sum(one.state is not None and one.state.is_bad for one in tasks)
        disabled = sum(not one.task.enabled for one in tasks)
        if bad:
            title.append((f" ── {bad} ended badly", "bad"))
        if disabled:
            title.append((f" ── {disabled} disabled", "dim"))
        lines = [rule(title, cells, [(f"sorted by {self.rows.sort}", "dim")])]
        if tasks and self._feed.problem:
            lines.append([(f" ▲ {printable(first_line(self._feed.problem))}", "warn")])
        return lines

    def _show_foot(self, now_ns: int, cells: int) -> None:
        pane, item = self.query_one("#server-task-foot", Pane), self._current
        if item is None:
            pane.show([])
            return
        rows = _FOOT_ROWS if self.size.height < _TALL else _FOOT_ROWS_TALL
        lines = view.facts_and_starters(
            item,
            self._feed.names,
            self._feed.followers.get(item.task.id, ()),
            self.rows.holds.get(item.task.id),
            now_ns,
            utc=self.host.remembered.utc,
        )
        key = keys.shown_for("explain_task", self.host.settings.keys)
        pane.show([rule([(item.task.name, "head")], cells), *view.first(lines, rows, key)])

    @property
    def _current(self) -> ServerTask | None:
        row = self.rows.current
        return None if row is None else row.item

    def hold_targets(self) -> Sequence[Target]:
        return () if self._current is None else hold_targets.of_server_task(self._current)

    # --- what keys do --------------------------------------------------------------------------

    def action_sort(self) -> None:
        """By name, state, time since, next start, usual duration, or what starts it."""
        names = list(task_list.SORTS)
        self.choose_title(names[(names.index(self.rows.sort) + 1) % len(names)])

    def choose_title(self, key: str) -> None:
        if key in task_list.SORTS:
            self.rows.sort = key
            self.host.show_now()

    def action_tree(self) -> None:
        """Show the chains as a tree, or the list again."""
        item = self._current
        self._is_tree = not self._is_tree
        self.host.show_now()
        if item is not None:
            wanted = (row.key for row in self.rows.items if row.item.task.id == item.task.id)
            if (key := next(wanted, None)) is not None:
                self.rows.select(key)

    def action_open(self) -> None:
        """All that is known of the task."""
        if self._current is not None:
            self.host.navigation.show_server_task(self._current, self._feed)

    def action_explain(self) -> None:
        """What starts it, and what stands in the way, which the detail has."""
        self.action_open()

    def action_run_task(self) -> None:
        """Start the chosen task; where there is none, pick one."""
        if self._current is not None:
            self.host.actions.start_task(self._current.task)
        else:
            self.host.actions.run_task()

    def action_stop_run(self) -> None:
        """Stop its run, or take back a request that waits."""
        if self._current is not None:
            execution = self.host.engine.execution(self._current.execution)
            if execution is None:
                self.host.say(_UNKNOWN)
            else:
                self.host.actions.stop_run(execution)

    def action_message(self) -> None:
        """The message that caused its newest execution."""
        if self._current is not None:
            execution = self.host.engine.execution(self._current.execution)
            if execution is None:
                self.host.say(_UNKNOWN)
            else:
                self.host.navigation.fetch_message(execution.cause.seq, self.TAB)

    def action_copy(self) -> None:
        if self._current is not None:
            self.host.copy(self._current.task.id, "the task's id")

    def action_copy_block(self) -> None:
        """The ways in which a rule or timer can name the task."""
        if self._current is not None:
            task = self._current.task
            copy_menu.offer_selectors(self.host, task.id, task.name, task.tags)

    def action_export(self) -> None:
        self.host.export(self.EXPORTED, [row.item for row in self.rows.items])
