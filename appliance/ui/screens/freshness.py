"""The screen of freshness: how fresh each task's data is, what is late, and why, over the day.

The list is asked for in a worker thread. Not for: what is fresh (tasks/freshness.py).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from textual.widget import Widget

from appliance.engine_api import Snapshot, TaskFreshness
from appliance.errors import ApplianceError
from appliance.model import APP, Task
from appliance.plot import Level
from appliance.ui import formats, keys
from appliance.ui.filters import Filter
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line, rule
from appliance.ui.plot import PlotPane
from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.text import printable
from appliance.ui.views import freshness as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows

_ASK_NS, _ASK_REMOTE_NS = 2 * formats.SECOND_NS, 10 * formats.SECOND_NS
"""How often the list is asked for; the answer to an attached terminal crosses the network."""
_DAY_NS = 86400 * formats.SECOND_NS
_CURVE_NS = 60 * formats.SECOND_NS
"""The curve is drawn anew so often: on a day's axis less is not seen."""

_ORDERS: dict[str, Callable[[TaskFreshness], Any]] = {
    "name": lambda one: one.name.casefold(),
    "loaded": lambda one: -(one.fresh_ns or 0),
    "p95": lambda one: -(one.p95_s or 0.0),
    "worst": lambda one: -(one.worst_s or 0.0),
    "merged": lambda one: -one.merged,
}


class FreshnessRows(Rows[TaskFreshness]):
    """The tasks in view."""

    sort = "data"
    now_ns = 0

    def key(self, item: TaskFreshness) -> Hashable:
        return item.task_id or item.name

    def line(self, item: TaskFreshness, cells: int) -> Line:
        return view.row(item, self.now_ns, cells)

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1, self.sort)

    def title_at(self, cell: int, cells: int) -> str:
        column = view.TABLE.at(cells, cell)
        return "" if column is None else column.key


class FreshnessScreen(Page):
    """What is late stands first."""

    SCOPES = (
        keys.MOVE,
        keys.LISTS,
        keys.FRESHNESS,
        keys.CONFIGURED,
        keys.SORTED,
        keys.ACTING,
    )
    TAB = "freshness"
    FILTER_WORDS = ("text", "task")
    FILTERED = "of the tasks"
    AUTO_FOCUS = "FreshnessRows"
    EXPORTED = "freshness"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._tasks: Sequence[TaskFreshness] | None = None
        """In the engine's order; ``None``: it has not answered yet."""
        self._trouble = ""
        self._asked_ns: int | None = None
        self._is_asking = False
        self._every = 0
        self._day: tuple[str, Sequence[tuple[int, float]]] = ("", ())
        """A task, and its last 24 hours."""
        self._day_wanted: tuple[str, int] = ("", 0)
        """The task whose day was asked for last, and when."""
        self._wanted = ""
        """The name of the task on which the cursor is put as soon as it is listed."""

    def body(self) -> Iterable[Widget]:
        yield Pane(id="freshness-title")
        rows = FreshnessRows(id="freshness")
        rows.empty_text = "asking the appliance …"
        yield rows
        yield Pane(id="freshness-foot")
        plot = PlotPane(id="freshness-plot")
        plot.empty_text = "No run has covered a message in the last 24 hours."
        yield plot

    @property
    def rows(self) -> FreshnessRows:
        return self.query_one(FreshnessRows)

    # --- the frame -----------------------------------------------------------------------------

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        self._ask(now_ns)
        rows, cells, utc = self.rows, self.size.width, self.host.remembered.utc
        second = now_ns // formats.SECOND_NS
        if rows.now_ns // formats.SECOND_NS != second:
            rows.now_ns = now_ns  # the ages have whole seconds
            rows.refresh()
        tasks = self._tasks or ()
        title = view.title(tasks, snapshot.freshness_since_ns, now_ns, utc=utc)
        if self._trouble:
            title.append((f" ▲ {printable(self._trouble)}", "warn"))
        right: Line = [(f"sorted by {rows.sort}", "dim")]
        self.query_one("#freshness-title", Pane).show([rule(title, cells, right)])
        self._show_foot(cells, now_ns, utc=utc)

    def _show_foot(self, cells: int, now_ns: int, *, utc: bool) -> None:
        pane, plot = self.query_one("#freshness-foot", Pane), self.query_one(PlotPane)
        one = self.rows.current
        plot.display = one is not None
        if one is None:
            pane.show([])
            return
        execution = self.host.engine.execution(one.execution) if one.execution else None
        lines = view.foot(one, execution, view.INTERVALS_S[self._every], now_ns, utc=utc)
        below: Line = [("below: for how long its data was stale", "dim")]
        pane.show([rule([(printable(one.name), "head")], cells, below), *lines])
        self._ask_day(one, now_ns)
        if one.task_id != self._day[0]:
            return  # Each drawing takes a while, and the answer comes at once.
        until_ns = now_ns // _CURVE_NS * _CURVE_NS
        day = self._day[1]
        curve = view.curve(day, one.stale_since_ns, until_ns, one.name)
        limit_s = one.fresh_within_s
        plot.plot(
            [curve],
            until_ns - _DAY_NS,
            until_ns,
            utc=utc,
            levels=[] if limit_s is None else [Level(limit_s)],
            from_zero=True,
            text_of=_axis_text,
        )

    def _ask(self, now_ns: int) -> None:
        """Ask for the list, unless the last answer is young."""
        every = _ASK_REMOTE_NS if self.host.engine.is_remote else _ASK_NS
        is_young = self._asked_ns is not None and self._asked_ns <= now_ns < self._asked_ns + every
        if self._is_asking or is_young:
            return
        self._is_asking, self._asked_ns = True, now_ns
        engine = self.host.engine

        def get() -> Sequence[TaskFreshness] | str:
            try:
                return engine.freshness()
            except ApplianceError as error:
                return str(error)

        self.host.background.fetch(get, self._found, group="freshness")

    def _found(self, answer: Sequence[TaskFreshness] | str) -> None:
        self._is_asking = False
        if isinstance(answer, str):
            self._trouble = self.rows.empty_text = answer
        else:
            self._tasks, self._trouble = answer, ""
            self._arrange()
        self.host.show_now()

    def _ask_day(self, one: TaskFreshness, now_ns: int) -> None:
        task_id, asked_ns = self._day_wanted
        if not one.task_id or (
            one.task_id == task_id and asked_ns <= now_ns < asked_ns + _CURVE_NS
        ):
            return
        self._day_wanted = wanted = (one.task_id, now_ns)
        engine = self.host.engine

        def get() -> Sequence[tuple[int, float]]:
            try:
                return engine.freshness_day(wanted[0])
            except ApplianceError:
                return ()  # the list says what is wrong

        def found(day: Sequence[tuple[int, float]]) -> None:
            if self._day_wanted == wanted:
                self._day = (wanted[0], day)
                self.host.show_now()

        self.host.background.fetch(get, found, group="freshness of the day")

    def _arrange(self) -> None:
        rows, tasks = self.rows, self._tasks or ()
        shown = [one for one in tasks if _takes(self.filter, one)]
        if rows.sort in _ORDERS:
            shown.sort(key=_ORDERS[rows.sort])
        rows.set_items(shown)
        if tasks and not shown:
            hidden = formats.counted(len(tasks), "task")
            rows.empty_text = f"{hidden} hidden by the filter. Esc clears it."
        elif self._tasks is not None:
            rows.empty_text = "No message has asked for a task yet."
        wanted = next((rows.key(one) for one in shown if one.name == self._wanted), None)
        if wanted is not None and rows.select(wanted):
            self._wanted = ""

    # --- what keys do --------------------------------------------------------------------------

    def choose(self, name: str) -> None:
        """Put the cursor on a task, as soon as it is listed."""
        self._wanted = name
        if self.is_mounted:
            self._arrange()
        self.host.show_now()

    def filter_changed(self) -> None:
        self._arrange()

    def action_sort(self) -> None:
        """By what is late, the name, the last load, p95, the worst, or the runs that were saved."""
        place = view.SORTS.index(self.rows.sort)
        self.choose_title(view.SORTS[(place + 1) % len(view.SORTS)])

    def choose_title(self, key: str) -> None:
        if key in view.SORTS:
            self.rows.sort = key
            self._arrange()
            self.host.show_now()

    def action_open(self) -> None:
        """The task's executions, on the Tasks screen."""
        one = self.rows.current
        if one is not None and one.task_id:
            self.host.navigation.show_task(one.task_id, one.name)
        elif one is not None:
            self.host.say("Which task that is, is known once the server has been asked.")

    def action_message(self) -> None:
        """The oldest message that no run has covered."""
        one = self.rows.current
        if one is not None and one.stale_since_ns is None:
            self.host.say("Its data is fresh: no message waits.")
        elif one is not None:
            self.host.navigation.fetch_message(one.oldest_seq, "freshness")

    def action_every(self) -> None:
        """Compare with a schedule of another interval."""
        self._every = (self._every + 1) % len(view.INTERVALS_S)
        self.host.show_now()

    def action_run_task(self) -> None:
        """Start the chosen task."""
        one = self.rows.current
        if one is not None and one.task_id:
            self.host.actions.start_task(Task(one.task_id, one.name))
        else:
            super().action_run_task()

    def hold_targets(self) -> Sequence[Target]:
        one = self.rows.current
        is_task = one is not None and one.task_id and not one.task_id.startswith(APP)
        return (Target("task", one.task_id, one.name),) if one is not None and is_task else ()

    def action_copy_block(self) -> None:
        """The ways in which a rule or timer can name the task."""
        if (one := self.rows.current) is not None and one.task_id:
            copy_menu.offer_selectors(self.host, one.task_id, one.name)

    def action_copy(self) -> None:
        if (one := self.rows.current) is not None:
            self.host.copy(one.task_id or one.name, "the task's id")


def _axis_text(seconds: float) -> str:
    return formats.age(seconds) if seconds >= 1 else "0"


def _takes(wanted: Filter, one: TaskFreshness) -> bool:
    return all(name.takes(one.name) or name.takes(one.task_id) for name in wanted.tasks) and (
        not (wanted.texts or wanted.not_texts)
        or wanted.takes_text(one.name, one.task_id, one.app, one.kind, one.why, _word(one))
    )


def _word(one: TaskFreshness) -> str:
    return "late" if one.is_late else "fresh" if one.stale_since_ns is None else "stale"
