"""The screen of the server's tasks: one row each, or the chains as a tree, and the chosen one.

The list is asked for in a worker thread; between two answers the rows follow the executions of the
snapshot. Not for: executions (tasks.py), picking a task for a start (task_picker.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from textual.widget import Widget

from appliance.engine_api import ServerTask, ServerTasks, Snapshot
from appliance.errors import ApplianceError
from appliance.ui import formats, keys, task_list
from appliance.ui.lines import Line, rule
from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.task_list import Row
from appliance.ui.text import printable
from appliance.ui.views import server_task as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows

_ASK_NS, _ASK_REMOTE_NS = 10 * formats.SECOND_NS, 30 * formats.SECOND_NS
"""How often the list is asked for; the answer to an attached terminal crosses the network."""
_SORT_NS = formats.SECOND_NS
"""The rows are put in order once a second: a row that jumps at every frame can't be read."""
_FOOT_ROWS, _FOOT_ROWS_TALL = 4, 12
_TALL = 36
_NOTHING = ServerTasks((), 0)


class ServerTaskRows(Rows[Row]):
    """The tasks in view."""

    sort = "name"
    now_ns = 0
    utc = False
    names: Mapping[str, str]

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.names = {}

    def key(self, item: Row) -> Hashable:
        return item.key

    def line(self, item: Row, cells: int) -> Line:
        return view.row(item, self.names, self.now_ns, cells, utc=self.utc)

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
        keys.CONFIGURED,
        keys.SORTED,
        keys.ACTING,
    )
    TAB = "server_tasks"
    FILTER_WORDS = ("text", "task", "rule", "state", "since", "until")
    FILTERED = "of the tasks"
    AUTO_FOCUS = "ServerTaskRows"
    EXPORTED = "tasks"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._answer = _NOTHING
        self._tasks: Sequence[ServerTask] = ()
        """With the news of the snapshot."""
        self._followers: Mapping[str, Sequence[str]] = {}
        self._trouble = ""
        self._asked_ns: int | None = None
        self._is_asking = False
        self._sorted_ns = 0
        self._dirty = True
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
        self._ask(now_ns)
        rows = self.rows
        rows.now_ns, rows.utc = now_ns, self.host.remembered.utc
        if self._dirty or not self._sorted_ns <= now_ns < self._sorted_ns + _SORT_NS:
            self._arrange(snapshot, now_ns)
        rows.refresh()
        cells = self.size.width
        self.query_one("#server-tasks-title", Pane).show([self._title(cells)])
        self._show_foot(cells)

    def _ask(self, now_ns: int) -> None:
        """Ask for the list, unless the last answer is young."""
        every = _ASK_REMOTE_NS if self.host.engine.is_remote else _ASK_NS
        is_young = self._asked_ns is not None and self._asked_ns <= now_ns < self._asked_ns + every
        if self._is_asking or is_young:
            return
        self._is_asking, self._asked_ns = True, now_ns
        engine = self.host.engine

        def get() -> ServerTasks | str:
            try:
                return engine.server_tasks()
            except ApplianceError as error:
                return str(error)

        self.host.background.fetch(get, self._found, group="server tasks")

    def _found(self, answer: ServerTasks | str) -> None:
        self._is_asking = False
        if isinstance(answer, str):
            self._trouble = answer
            self.rows.empty_text = answer
        else:
            self._answer, self._trouble = answer, ""
            self._followers = task_list.followers(answer.tasks)
            self.rows.names = {one.task.id: one.task.name for one in answer.tasks}
            self._dirty = True
        self.host.show_now()

    def _arrange(self, snapshot: Snapshot, now_ns: int) -> None:
        self._dirty, self._sorted_ns = False, now_ns
        rows = self.rows
        self._tasks = task_list.ordered(
            task_list.with_news(self._answer.tasks, snapshot.executions), rows.sort
        )
        if self._is_tree:
            rows.set_items(task_list.tree(self._tasks, self._takes))
        else:
            rows.set_items(task_list.flat(filter(self._takes, self._tasks)))
        if self._tasks and not rows.items:
            hidden = formats.counted(len(self._tasks), "task")
            rows.empty_text = f"{hidden} hidden by the filter. Esc clears it."
        elif self._answer is not _NOTHING and not self._trouble:
            rows.empty_text = "The server has no task that its user may see."

    def _takes(self, one: ServerTask) -> bool:
        return task_list.takes(self.filter, one)

    def _title(self, cells: int) -> Line:
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
        problem = self._trouble if tasks else ""
        if problem or self._answer.problem:
            title.append((f" ▲ {printable(problem or self._answer.problem)}", "warn"))
        return rule(title, cells, [(f"sorted by {self.rows.sort}", "dim")])

    def _show_foot(self, cells: int) -> None:
        pane, item = self.query_one("#server-task-foot", Pane), self._current
        if item is None:
            pane.show([])
            return
        rows = _FOOT_ROWS if self.size.height < _TALL else _FOOT_ROWS_TALL
        pane.show(
            [
                rule([(item.task.name, "head")], cells),
                *view.foot(
                    item,
                    self.rows.names,
                    self._followers.get(item.task.id, ()),
                    rows,
                    utc=self.host.remembered.utc,
                ),
            ]
        )

    @property
    def _current(self) -> ServerTask | None:
        row = self.rows.current
        return None if row is None else row.item

    # --- what keys do --------------------------------------------------------------------------

    def filter_changed(self) -> None:
        self._dirty = True

    def action_sort(self) -> None:
        """By name, state, time since, next start, usual duration, or what starts it."""
        names = list(task_list.SORTS)
        self.choose_title(names[(names.index(self.rows.sort) + 1) % len(names)])

    def choose_title(self, key: str) -> None:
        if key in task_list.SORTS:
            self.rows.sort = key
            self._dirty = True
            self.host.show_now()

    def action_tree(self) -> None:
        """Show the chains as a tree, or the list again."""
        item = self._current
        self._is_tree = not self._is_tree
        self._dirty = True
        self.host.show_now()
        if item is not None:
            wanted = (row.key for row in self.rows.items if row.item.task.id == item.task.id)
            if (key := next(wanted, None)) is not None:
                self.rows.select(key)

    def action_open(self) -> None:
        """The task's executions, on the Tasks screen."""
        if self._current is not None:
            task = self._current.task
            self.host.navigation.show_task(task.id, task.name)

    def action_run_task(self) -> None:
        """Start the chosen task."""
        if self._current is not None:
            self.host.actions.start_task(self._current.task)

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
