"""What is wrong now and what was noted since the start, with the whole of each below.

Not for: deciding what is wrong (appliance/problems.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from textual.widget import Widget

from appliance.engine_api import Acknowledgement, BridgeState, Snapshot, TimerState
from appliance.model import Execution
from appliance.problems import LOSS, Place, Problem
from appliance.ui import hold_targets, keys
from appliance.ui.hold_targets import Target
from appliance.ui.lines import Line, rule
from appliance.ui.screens.page import Page
from appliance.ui.screens.page_host import PageHost
from appliance.ui.views import problem as view
from appliance.ui.views.problem import Noted
from appliance.ui.widgets.pane import Pane
from appliance.ui.widgets.rows import Rows
from appliance.ui.widgets.viewer import Viewer

_LOG = Place("log")


class ProblemRows(Rows[view.Entry]):
    """Problems, then what was noted."""

    def key(self, item: view.Entry) -> Hashable:
        if isinstance(item, Problem):
            return (item.kind, item.name) if item.kind else (item.place, item.headline)
        return ("known", item.kind, item.name) if isinstance(item, Acknowledgement) else item.name

    def line(self, item: view.Entry, cells: int) -> Line:
        return view.row(item, cells)


class ProblemsScreen(Page):
    """Opened over any page; Enter goes to what is behind the row."""

    SCOPES = (keys.PROBLEMS, keys.LISTS, keys.TIMERS, keys.REPEAT)
    AUTO_FOCUS = "ProblemRows"
    EXPORTED = "problems"
    IS_TAB = False

    def __init__(self, host: PageHost, tab: str) -> None:
        super().__init__(host)
        self.tab = tab

    def body(self) -> Iterable[Widget]:
        yield Pane(id="problems-title")
        rows = ProblemRows(id="problems")
        rows.empty_text = "All is well, and nothing was refused or dropped since the start."
        yield rows
        yield Pane(id="problem-title")
        yield Viewer(id="problem")

    def update_body(self, snapshot: Snapshot, now_ns: int) -> None:  # noqa: ARG002 - nothing ages here
        cells, rows = self.size.width, self.query_one(ProblemRows)
        found = view.entries(snapshot)
        if not self.filter.is_empty:
            found = [one for one in found if self.filter.takes_text(view.words_of(one))]
        rows.set_items(found)
        rows.styles.height = max(2, min(len(found), self.size.height // 3))
        wrong = sum(isinstance(one, Problem) for one in found)
        title: Line = [("What is wrong ", "head"), (f"{wrong}", "strong")]
        known = sum(isinstance(one, Acknowledgement) for one in found)
        if known:
            title += [("   acknowledged ", "head"), (f"{known}", "strong")]
        title += [
            ("   noted since the start ", "head"),
            (f"{len(found) - wrong - known}", "strong"),
        ]
        self.query_one("#problems-title", Pane).show([rule(title, cells, [("Esc back", "dim")])])
        current = rows.current
        hint = self._hint(current)
        self.query_one("#problem-title", Pane).show([rule([("Why", "head")], cells, hint)])
        lines: list[Line] = []
        if current is not None:
            utc = self.host.remembered.utc
            lines = view.text(current, self._execution_of(current), snapshot, cells, utc=utc)
        self.query_one(Viewer).show(lines)

    def _hint(self, entry: view.Entry | None) -> Line:
        chosen = self.host.settings.keys

        def says(name: str, what: str) -> Line:
            return [(keys.shown_for(name, chosen), "key"), (f" {what}  ", "dim")]

        if entry is None:
            return []
        line = says("open", "go there")
        if isinstance(entry, Acknowledgement):
            is_gone = entry.kind == LOSS  # it was forgotten when it was acknowledged
            return [] if is_gone else says("acknowledge_problem", "take it back")
        if isinstance(entry, Problem) and entry.held is not None:
            return line + says("hold", "release it, or change it")
        if isinstance(entry, Problem) and entry.kind:
            line += says("acknowledge_problem", "acknowledge")
        execution, timer = self._execution_of(entry), self._timer_of(entry)
        if self._is_server(entry):
            line += says("fire_timer", "ask the server now")
        elif (bridge := self._bridge_of(entry)) is not None:
            if not bridge.connected:
                line += says("fire_timer", "connect now")
        elif timer is not None:
            line += says("pause_timer", "continue it" if timer.paused else "pause it")
        elif execution is not None and execution.state.is_final:
            line += says("repeat", "start it again")
        elif execution is not None and not execution.execution_id:
            line += says("fire_timer", "start it now")
        return line

    # --- what is behind an entry ---------------------------------------------------------------

    def _execution_of(self, entry: view.Entry | None) -> Execution | None:
        if not isinstance(entry, Problem) or entry.place.kind != "execution":
            return None
        number = int(entry.place.name)
        found = self.host.engine.execution(number)
        if found is None:
            shown = self.host.snapshot.executions
            found = next((one for one in shown if one.id == number), None)
        return found

    def _timer_of(self, entry: view.Entry | None) -> TimerState | None:
        if not isinstance(entry, Problem) or entry.place.kind != "timer":
            return None
        timers = self.host.snapshot.timers
        return next((one for one in timers if one.name == entry.place.name), None)

    def _bridge_of(self, entry: view.Entry | None) -> BridgeState | None:
        if not isinstance(entry, Problem) or entry.place.kind != "bridge":
            return None
        bridges = self.host.snapshot.bridges
        return next((one for one in bridges if one.name == entry.place.name), None)

    @staticmethod
    def _is_server(entry: view.Entry | None) -> bool:
        return isinstance(entry, Problem) and entry.place.kind == "server"

    @property
    def _entry(self) -> view.Entry | None:
        return self.query_one(ProblemRows).current

    def hold_targets(self) -> Sequence[Target]:
        """What is held; of a problem what made it."""
        entry = self._entry
        if isinstance(entry, Problem) and entry.held is not None:
            holds = self.host.snapshot.holds
            return [
                hold_targets.of_hold(one) for one in holds if (one.kind, one.name) == entry.held
            ]
        execution, timer = self._execution_of(entry), self._timer_of(entry)
        if execution is not None:
            return hold_targets.of_execution(execution)
        return () if timer is None else (Target("timer", timer.name),)

    # --- what keys do --------------------------------------------------------------------------

    def action_open(self) -> None:
        """Go to the task, timer or screen that it is about."""
        entry = self._entry
        if entry is None:
            return
        place = entry.place if isinstance(entry, Problem) else _LOG
        self.host.navigation.go_to(place)

    def action_acknowledge_problem(self) -> None:
        """Say that the problem is known, or take that back."""
        entry = self._entry
        if isinstance(entry, Acknowledgement):
            self.host.actions.unacknowledge_problem(entry)
        elif not isinstance(entry, Problem):
            self.host.say("This was noted and is no problem, so there is nothing to acknowledge.")
        elif entry.kind:
            self.host.actions.acknowledge_problem(entry)
        else:
            self.host.say("This stands until it is mended, so it can't be acknowledged.")

    def action_repeat(self) -> None:
        """Start the failing task again."""
        execution = self._execution_of(self._entry)
        if execution is None:
            self.host.say("There is nothing to start again here.")
        else:
            self.host.actions.run_again(execution)

    def action_fire_timer(self) -> None:
        """End the wait of a start, fire a timer, or let a bridge connect."""
        execution, timer = self._execution_of(self._entry), self._timer_of(self._entry)
        if self._is_server(self._entry):
            self.host.actions.check_server()
        elif (bridge := self._bridge_of(self._entry)) is not None:
            self.host.actions.connect_bridge(bridge)
        elif execution is not None:
            self.host.actions.start_now(execution)
        elif timer is not None:
            self.host.actions.fire_timer(timer)
        else:
            self.host.say("There is no wait to end here.")

    def action_pause_timer(self) -> None:
        """Let a paused timer go on, or pause it."""
        execution, timer = self._execution_of(self._entry), self._timer_of(self._entry)
        if timer is not None:
            self.host.actions.pause_timer(timer)
        elif execution is not None:
            self.host.actions.pause_wait(execution)
        else:
            self.host.say("There is no timer and no wait here.")

    def action_copy(self) -> None:
        entry = self._entry
        if entry is not None:
            execution = self._execution_of(entry)
            text = entry.name if isinstance(entry, Noted) else entry.text
            self.host.copy(execution.reason if execution is not None else text, "the reason")
