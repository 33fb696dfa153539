"""The whole of one execution: cause, times, steps, reason, log, the runs before it.

Not for: lists of executions (tasks.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace
from textual.widget import Widget

from appliance.engine_api import Snapshot
from appliance.errors import ApplianceError
from appliance.model import Execution
from appliance.ui import hold_targets, keys
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line, rule
from appliance.ui.screens import copy_menu
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.views import execution as view
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.viewer import Viewer

_RUNS = 60


class ExecutionScreen(Page):
    """Opened over a list; it follows the execution while it runs."""

    SCOPES = (
        keys.RUNS,
        keys.TIMERS,
        keys.EXECUTION,
        keys.CONFIGURED,
        keys.ACTING,
        keys.REPEAT,
        keys.WHY,
    )
    IS_TAB = False

    def __init__(self, host: PageHost, execution: Execution, tab: str) -> None:
        super().__init__(host)
        self.tab = tab
        self._execution = execution
        self._before: Sequence[Execution] | None = None

    def body(self) -> Iterable[Widget]:
        yield Pane(id="facts")
        yield Viewer(id="story")

    def on_mount(self) -> None:
        engine, task_id = self.host.engine, self._execution.task_id

        def runs() -> Sequence[Execution]:
            try:
                return engine.executions(1 << 62, _RUNS, task_id)
            except ApplianceError:
                return [one for one in self.host.snapshot.executions if one.task_id == task_id]

        self.host.background.fetch(runs, self._found, group="runs")

    def _found(self, runs: Sequence[Execution]) -> None:
        self._before = runs
        self.host.show_now()

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:
        now = self.host.engine.execution(self._execution.id)
        if now is not None:
            self._execution = now
        cells, utc = self.size.width, self.host.remembered.utc
        title: Line = [
            ("Execution ", "head"),
            (str(self._execution.id), "strong"),
            (f" {self._execution.task_name or self._execution.task_id}", "dim"),
        ]
        self.query_one("#facts", Pane).show([rule(title, cells, [("↑↓ scroll  Esc back", "dim")])])
        number = self._execution.id
        wait = next((one for one in snapshot.waits if one.execution == number), None)
        shown = self._execution
        if wait is not None:
            shown = replace(shown, next_attempt_ns=wait.until_ns)
        lines = view.lines(shown, self._before, now_ns, cells, utc=utc, wait=wait)
        self.query_one(Viewer).show(lines)

    def hold_targets(self) -> Sequence[Target]:
        return hold_targets.of_execution(self._execution)

    def action_copy(self) -> None:
        self.host.copy(view.text(self._execution), "reason and log")

    def action_copy_block(self) -> None:
        """How a rule or timer names its task."""
        task = self._execution
        copy_menu.offer_selectors(self.host, task.task_id, task.task_name)

    def action_message(self) -> None:
        """The message that caused it."""
        self.host.navigation.fetch_message(self._execution.cause.seq, self.tab)

    def action_client(self) -> None:
        """Go to the client whose message caused it."""
        self.host.navigation.show_client(self._execution.cause.client_id)

    def action_stop_run(self) -> None:
        self.host.actions.stop_run(self._execution)

    def action_fire_timer(self) -> None:
        """End its wait: start it now."""
        self.host.actions.start_now(self._execution)

    def action_pause_timer(self) -> None:
        """Pause its wait, or let it go on."""
        self.host.actions.pause_wait(self._execution)

    def action_explain(self) -> None:
        """Why the message that asked for it starts something or nothing."""
        self.host.navigation.explain_execution(self._execution, self.tab)

    def action_repeat(self) -> None:
        """Start the same task again."""
        self.host.actions.run_again(self._execution)
