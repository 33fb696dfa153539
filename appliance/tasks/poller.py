"""What the server says of the runs that go on, ours and others': one polling loop for all.

Each run is asked about 2 s after its start, then less often, at most every 15 s; runs that are due
at about the same time go into one call. Besides, the list of everything that runs is read now and
then, so that requests wait for runs that were started elsewhere.

Not for: what a report means (planner.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from appliance import tuning
from appliance.counters import Counter
from appliance.model import Task
from appliance.qlik.server import QlikError, QlikServer, Report
from appliance.tasks.catalog import TaskList
from appliance.tasks.records import Record
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.state_store import StateStore

_log = logging.getLogger(__name__)
FIRST_POLL_S = 2.0
GROWTH = 1.5
SLOWEST_POLL_S = 15.0
TOGETHER_S = 1.0
"""Runs that are due within this time are asked about now: one call instead of two."""


class RunPoller:
    """Polls the runs. For one thread; ``changed`` of the state store wakes that thread."""

    def __init__(
        self,
        state: StateStore,
        server: QlikServer,
        tasks: TaskList,
        *,
        first_poll_s: float = FIRST_POLL_S,
        slowest_poll_s: float = SLOWEST_POLL_S,
        elsewhere_s: float = SLOWEST_POLL_S,
    ) -> None:
        self._state = state
        self._server = server
        self._tasks = tasks
        self._first = int(first_poll_s * SECOND_NS)
        self._slowest = int(slowest_poll_s * SECOND_NS)
        self._elsewhere = int(elsewhere_s * SECOND_NS)
        self._next_elsewhere = 0
        self._strangers: set[str] = set()
        """Runs on the server of tasks that the last look did not know."""
        self._polls: dict[int, tuple[int, int]] = {}
        """Execution id to (when it is due, the interval after that)."""

    def next_due(self) -> int | None:
        """When ``poll`` has something to do. Call under the state store's lock."""
        if self._state.circuit.is_open:
            return None
        running = self._state.planner.running
        now = self._state.clock_ns()
        for number in [one for one in self._polls if one not in running]:
            del self._polls[number]
        for number in running:
            if number not in self._polls:
                self._polls[number] = (now + self._first, self._first)
        due = [at for at, _ in self._polls.values()]
        if self._elsewhere:
            due.append(self._next_elsewhere)
        return min(due, default=None)

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this. Call under the state store's lock."""
        self._next_elsewhere += step_ns
        self._polls = {one: (at + step_ns, next_ns) for one, (at, next_ns) in self._polls.items()}

    def poll(self) -> None:
        """Ask about everything that is due."""
        now = self._state.clock_ns()
        with self._state.lock:
            running = self._state.planner.running
            soon = now + int(TOGETHER_S * SECOND_NS)
            is_due = any(at <= now for at, _ in self._polls.values())
            due = [
                record
                for number, (at, _) in self._polls.items()
                if is_due and at <= soon and (record := running.get(number)) is not None
            ]
            runs = [one.execution.execution_id for one in due]
            tasks = [one.execution.task_id for one in due]
            for record in due:
                _, interval = self._polls[record.id]
                longer = min(int(interval * GROWTH), self._slowest)
                self._polls[record.id] = (now + longer, longer)
        try:
            if due:
                self._note(due, runs, self._server.poll(runs, tasks))
            if self._elsewhere and now >= self._next_elsewhere:
                self._next_elsewhere = now + self._elsewhere
                self._look_elsewhere()
        except QlikError as error:
            self._note_failure(due, error)

    def _note(
        self, records: Sequence[Record], runs: Sequence[str], reports: dict[str, Report]
    ) -> None:
        pairs = list(zip(records, runs, strict=True))
        for first in range(0, len(pairs), tuning.NOTED_TOGETHER):
            with self._state.change() as planner:
                now = self._state.clock_ns()
                for record, run in pairs[first : first + tuning.NOTED_TOGETHER]:
                    report = reports.get(run)
                    if report is None:
                        planner.missing(record, now)
                    else:
                        planner.report(record, report, now)

    def _look_elsewhere(self) -> None:
        reports = self._server.running()
        unknown = [one for one in reports if not self._state.planner.knows_run(one.execution_id)]
        if not unknown:
            return
        known = {task.id: task for task in self._tasks.get()}
        strangers = {one.execution_id for one in unknown if one.task_id.lower() not in known}
        if strangers - self._strangers:
            # A task may be new. Asked once for each run: some tasks are not ours to see.
            known = {task.id: task for task in self._tasks.get(0)}
        self._strangers = strangers
        with self._state.change() as planner:
            now = self._state.clock_ns()
            for report in unknown:
                task: Task | None = known.get(report.task_id.lower())
                if task is not None and not report.state.is_final:
                    planner.elsewhere(report, task.name, now)

    def _note_failure(self, due: Sequence[Record], error: QlikError) -> None:
        _log.info("Asking about running tasks failed: %s", error)
        with self._state.change() as planner:
            planner.count(Counter.POLLS_FAILED)
            for record in due:
                planner.unanswered(record, error, self._state.clock_ns())
            self._state.circuit.failed(error)
