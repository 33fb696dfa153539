"""The Tasks screen: rules and timers above, executions below, the reason of the selected one.

Not for: one execution in full (execution.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from textual.widget import Widget

from appliance.engine_api import HoldState, RuleState, Snapshot, TimerState
from appliance.model import Execution
from appliance.ui import filters, formats, hold_targets, keys
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line, rule
from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.text import cut, words_in
from appliance.ui.views import activity
from appliance.ui.views import execution as view
from appliance.ui.views.message import cause_line
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows

_OLDER = 200
_TALL = 36
_PLOT_ROWS = 5
_REASON_ROWS, _REASON_ROWS_TALL = 3, 8


class RuleRows(Rows[RuleState | TimerState]):
    """Rules, then timers by when they come due."""

    ONE_OF_SEVERAL = True
    utc = False
    now_ns = 0
    holds: Mapping[tuple[str, str], HoldState] = {}
    """What is held, by kind and name."""

    def key(self, item: RuleState | TimerState) -> Hashable:
        return (type(item).__name__, item.name)

    def line(self, item: RuleState | TimerState, cells: int) -> Line:
        if isinstance(item, TimerState):
            held = self.holds.get(("timer", item.name))
            return view.timer_row(item, self.now_ns, cells, utc=self.utc, held=held)
        return view.rule_row(item, self.now_ns, cells, self.holds.get(("trigger", item.name)))

    def heading(self, cells: int) -> Line | None:
        return view.rule_heading(cells - 1)


class ExecutionRows(Rows[Execution]):
    """Executions, newest first."""

    ONE_OF_SEVERAL = True
    utc = False
    now_ns = 0

    def key(self, item: Execution) -> Hashable:
        return item.id

    def version(self, item: Execution) -> Hashable:
        return (item, self.utc) if item.state.is_final else None

    def line(self, item: Execution, cells: int) -> Line:
        return activity.execution_line(item, self.now_ns, cells, utc=self.utc)

    def heading(self, cells: int) -> Line | None:
        return view.heading(cells - 1)


class TasksScreen(Page):
    """Tab goes from the rules to the executions."""

    SCOPES = (
        keys.MOVE,
        keys.LISTS,
        keys.CONFIGURED,
        keys.WHY,
        keys.ACTING,
        keys.RUNS,
        keys.REPEAT,
        keys.TIMERS,
        keys.TASKS,
    )
    TAB = "tasks"
    AUTO_FOCUS = "ExecutionRows"
    EXPORTED = "executions"

    def __init__(self, host: PageHost) -> None:
        super().__init__(host)
        self._older: list[Execution] = []
        self._all: list[Execution] = []
        self._wanted = ""
        """The timer on which the cursor is put as soon as it is listed."""
        self._of_rule = filters.EMPTY
        """The filter that Enter on a rule or timer made; Esc leads back there."""

    def body(self) -> Iterable[Widget]:
        yield RuleRows(id="rules")
        yield Pane(id="executions-title")
        yield ExecutionRows(id="executions")
        yield Pane(id="reason")

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        utc = self.host.remembered.utc
        rules, rows = self.query_one(RuleRows), self.query_one(ExecutionRows)
        rules.utc = rows.utc = utc
        rules.now_ns = rows.now_ns = now_ns
        rules.holds = {(one.kind, one.name): one for one in snapshot.holds}
        entries: list[RuleState | TimerState] = [
            *snapshot.rules,
            *activity.due_first(snapshot.timers),
        ]
        rules.styles.height = min(len(entries) + 1, max(4, self.size.height // 3))
        rules.set_items(entries)
        if self._wanted and rules.select((TimerState.__name__, self._wanted)):
            self._wanted = ""
            self.set_focus(rules)
        present = {one.id for one in snapshot.executions}
        older = [one for one in self._older if one.id not in present]
        self._all = [*activity.timed(snapshot), *older]
        shown = [one for one in self._all if self.filter.takes_execution(one)]
        rows.empty_text = "No execution is here. t starts a task."
        if self._all and not shown:
            hidden = formats.counted(len(self._all), "execution")
            rows.empty_text = f"{hidden} hidden by the filter. Esc clears it."
        rows.set_items(shown)
        cells = self.size.width
        title: Line = [("Executions ", "head"), ("── ", "dim"), *activity.summary(snapshot)]
        self.query_one("#executions-title", Pane).show([rule(title, cells)])
        self._show_reason(rows.current, cells, utc=utc)

    def _show_reason(self, execution: Execution | None, cells: int, *, utc: bool) -> None:
        if execution is None:
            self.query_one("#reason", Pane).show([])
            return
        at = formats.time_with_ms(execution.requested_ns, utc=utc)
        title: Line = [(execution.task_name or execution.task_id, "head"), (f" {at}", "dim")]
        text = execution.reason or (execution.steps[-1].text if execution.steps else "")
        tone = "bad" if execution.state.is_bad else ""
        self.query_one("#reason", Pane).show(
            [
                rule(title, cells),
                *self._reason_lines(text or execution.state.value, tone, cells),
                cause_line(execution),
                *view.plot(
                    [one for one in self._all if one.task_id == execution.task_id],
                    cells,
                    _PLOT_ROWS if self.size.height >= _TALL else 1,
                ),
            ]
        )

    def _reason_lines(self, text: str, tone: str, cells: int) -> list[Line]:
        """The reason, as much of it as there is room for; Enter has it whole."""
        rows = [piece for part in text.strip().split("\n") for piece in words_in(part, cells - 2)]
        most = _REASON_ROWS_TALL if self.size.height >= _TALL else _REASON_ROWS
        if len(rows) > most:
            rows = [*rows[: most - 1], f"{cut(rows[most - 1], cells - 12)}  … ⏎ all"]
        return [[(f" {row}", tone)] for row in rows]

    def go_to_task(self, task_id: str, name: str) -> None:
        """Show a task's executions, old ones too."""
        self.use_filter(filters.for_task(name or task_id))
        engine = self.host.engine

        def found(executions: Sequence[Execution]) -> None:
            known = {one.id for one in self._all}
            self._older += [one for one in executions if one.id not in known]
            self._older.sort(key=lambda one: -one.id)
            self.host.show_now()

        self.host.background.fetch(
            lambda: engine.executions(1 << 62, _OLDER, task_id), found, group="older"
        )

    def go_back(self) -> None:
        from_rule = not self.filter.is_empty and self.filter == self._of_rule
        super().go_back()
        if from_rule and self.filter.is_empty:
            self.set_focus(self.query_one(RuleRows))

    def _waiting(self, item: RuleState | TimerState | None) -> Execution | None:
        """The execution of a wait, which is listed by the task's name and ``#`` with its number."""
        if not isinstance(item, TimerState):
            return None
        number = item.name.rpartition(" #")[2]  # the name of a configured timer has no such sign
        is_wait = " #" in item.name and number.isdecimal()
        return self.host.engine.execution(int(number)) if is_wait else None

    @property
    def _execution(self) -> Execution | None:
        return self.query_one(ExecutionRows).current

    @property
    def _timer(self) -> TimerState | None:
        rules = self.query_one(RuleRows)
        item = rules.current
        return item if rules.has_focus and isinstance(item, TimerState) else None

    def hold_targets(self) -> Sequence[Target]:
        rules = self.query_one(RuleRows)
        if not rules.has_focus:
            return hold_targets.of_execution(self._execution) if self._execution else ()
        item = rules.current
        if (waiting := self._waiting(item)) is not None:
            return hold_targets.of_execution(waiting)
        if isinstance(item, RuleState):
            return (Target("trigger", item.name),)
        return () if item is None or item.kind == "run limit" else (Target("timer", item.name),)

    # --- what keys do --------------------------------------------------------------------------

    def action_open(self) -> None:
        """An execution's detail, also of one that waits, or the executions of a rule or timer."""
        rules = self.query_one(RuleRows)
        if rules.has_focus and (waiting := self._waiting(rules.current)) is not None:
            self.host.navigation.show_execution(waiting)
        elif rules.has_focus and rules.current is not None:
            self._of_rule = filters.for_rule(rules.current.name)
            self.use_filter(self._of_rule)
            self.set_focus(self.query_one(ExecutionRows))
        elif self._execution is not None:
            self.host.navigation.show_execution(self._execution)

    def action_message(self) -> None:
        """The message that caused the execution."""
        if self._execution is not None:
            self.host.navigation.fetch_message(self._execution.cause.seq, "tasks")

    def action_explain(self) -> None:
        """Why the message that asked for the execution starts something or nothing."""
        if self._execution is not None:
            self.host.navigation.explain_execution(self._execution, "tasks")

    def action_client(self) -> None:
        """Go to the client whose message caused the execution."""
        if self._execution is not None:
            self.host.navigation.show_client(self._execution.cause.client_id)

    def action_stop_run(self) -> None:
        if self._execution is not None:
            self.host.actions.stop_run(self._execution)

    def action_repeat(self) -> None:
        """Start the task of the execution again."""
        if self._execution is not None:
            self.host.actions.run_again(self._execution)

    def _waiting_execution(self) -> Execution | None:
        rules = self.query_one(RuleRows)
        if rules.has_focus:
            self.host.say("A rule has no time of its own. Choose a timer or a wait.")
            return None
        if self._execution is None:
            self.host.say("Choose a timer or an execution first: tab goes to the other list.")
        return self._execution

    def choose(self, name: str) -> None:
        """Put the cursor on a timer, as soon as it is listed."""
        self._wanted = name
        self.host.show_now()

    def action_pause_timer(self) -> None:
        """Pause the timer, or the wait of the execution, or let it go on."""
        if (timer := self._timer) is not None:
            self.host.actions.pause_timer(timer)
        elif (execution := self._waiting_execution()) is not None:
            self.host.actions.pause_wait(execution)

    def action_fire_timer(self) -> None:
        """Fire the timer, or end the wait of the execution."""
        if (timer := self._timer) is not None:
            self.host.actions.fire_timer(timer)
        elif (execution := self._waiting_execution()) is not None:
            self.host.actions.start_now(execution)

    def action_older(self) -> None:
        """Fetch executions from before those that are shown."""
        before = min((one.id for one in self._all), default=1 << 62)
        engine = self.host.engine
        self.host.background.fetch(
            lambda: engine.executions(before, _OLDER), self._found, group="older"
        )

    def _found(self, executions: Sequence[Execution]) -> None:
        self._older += executions
        self.host.say(
            f"{formats.counted(len(executions), 'older execution')}."
            if executions
            else "That is all."
        )
        self.host.show_now()

    def action_copy(self) -> None:
        if self._execution is not None:
            self.host.copy(view.text(self._execution), "the execution")

    def action_copy_topic(self) -> None:
        if self._execution is not None:
            self.host.copy(self._execution.task_id, "the task's id")

    def action_copy_block(self) -> None:
        """How a rule or timer names the task of the execution."""
        if self._execution is not None:
            task = self._execution
            copy_menu.offer_selectors(self.host, task.task_id, task.task_name)
