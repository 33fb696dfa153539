"""What the server says of the runs that go on, ours and others': one polling loop for all.

Each run is asked about 2 s after its start, then less often, at most every 15 s; runs that are due
at about the same time go into one call. Besides, the list of everything that runs is read now and
then, so that requests wait for runs that were started elsewhere, and the list of what ended since,
so that each of those runs is seen, however short it was.

Not for: what a report means (planner.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec

from appliance import tuning
from appliance.counters import Counter
from appliance.model import Cause, Execution, Task
from appliance.qlik import deadlines
from appliance.qlik.server import Ended, QlikError, QlikServer, Report
from appliance.tasks.catalog import TaskList
from appliance.tasks.records import Record
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.state_store import StateStore

_log = logging.getLogger(__name__)
FIRST_POLL_S = 2.0
GROWTH = 1.5
SLOWEST_POLL_S = 15.0
ENDED_UNTIL = "ended_until_ns"
"""The name under which ``tasks.db`` keeps how far runs of others were looked at."""
LOOK_LIMIT_S = 30.0
"""How long a look at runs of others may take: runs of ours wait for it."""
MAX_STRANGERS = 1000
TOGETHER_S = 1.0
"""Runs that are due within this time are asked about now: one call instead of two."""


class RunPoller:
    """Polls the runs. For one thread; ``changed`` of the state store wakes that thread.

    ``before_ends`` gets the executions whose end is noted next, as far as they are known by then.
    """

    def __init__(
        self,
        state: StateStore,
        server: QlikServer,
        tasks: TaskList,
        *,
        before_ends: Callable[[Sequence[Execution]], None] = lambda _: None,
        first_poll_s: float = FIRST_POLL_S,
        slowest_poll_s: float = SLOWEST_POLL_S,
        elsewhere_s: float = SLOWEST_POLL_S,
    ) -> None:
        self._state = state
        self._server = server
        self._tasks = tasks
        self._before_ends = before_ends
        self._first = int(first_poll_s * SECOND_NS)
        self._slowest = int(slowest_poll_s * SECOND_NS)
        self._elsewhere = int(elsewhere_s * SECOND_NS)
        self._next_elsewhere = 0
        self._strangers: set[str] = set()
        """Tasks of runs on the server that the list of tasks did not have."""
        self._ended_until: int | None = None
        """Runs that ended up to then, by the server's clock, were looked at."""
        self._polls: dict[int, tuple[int, int]] = {}
        """Execution id to (when it is due, the interval after that)."""

    def begin_at(self, ended_until: int) -> None:
        """Go on where an earlier process has looked at runs of others; 0: there was none."""
        self._ended_until = ended_until or None

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
        except QlikError as error:
            self._note_failure(due, error)
            return
        try:
            if self._elsewhere and now >= self._next_elsewhere:
                with deadlines.within(LOOK_LIMIT_S):
                    self._look_elsewhere()
        except QlikError as error:
            self._note_failure((), error)

    def _note(
        self, records: Sequence[Record], runs: Sequence[str], reports: dict[str, Report]
    ) -> None:
        pairs = list(zip(records, runs, strict=True))
        self._before_ends(
            [
                _as_reported(record.execution, reports[run])
                for record, run in pairs
                if run in reports and reports[run].state.is_final
            ]
        )
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
        """Look for runs of others: those that go on, then those that ended since the last look.

        What an earlier process may have started is looked for first: a message that is read again
        after a crash may be the cause of such a run.
        """
        now = self._state.clock_ns()
        if not self._state.has_read_earlier:
            self._next_elsewhere = now + min(self._elsewhere, SECOND_NS)
            return
        self._next_elsewhere = now + self._elsewhere
        running = self._server.running()
        self._tell_of_others([one for one in running if not one.state.is_final])
        ended = self._server.ended(self._ended_until, {one.execution_id for one in running})
        if self._tell_of_others(ended.reports, ended):
            self._ended_until = ended.until_ns

    def _tell_of_others(self, reports: Sequence[Report], ended: Ended | None = None) -> bool:
        """Take up the runs that are not known. What may be ours is decided by a later look.

        Returns whether all are decided; if not, the next look has to go back as far as this one.
        How far the look went is noted after them. A note that is older does no harm: a run that is
        listed again is known by its id.
        """
        state = self._state
        unknown = [one for one in reports if not state.planner.knows_run(one.execution_id)]
        known = self._known_tasks(unknown) if unknown else {}
        ours_to_see = [one for one in unknown if one.task_id.lower() in known]
        are_decided = True
        self._before_ends([_of_other(one, known) for one in ours_to_see if one.state.is_final])
        for first in range(0, len(ours_to_see), tuning.NOTED_TOGETHER):
            with state.change() as planner:
                now = state.clock_ns()
                for report in ours_to_see[first : first + tuning.NOTED_TOGETHER]:
                    name = known[report.task_id.lower()].name
                    are_decided &= planner.elsewhere(report, name, now)
        if ended is None or not are_decided:
            return are_decided
        if not ours_to_see and self._ended_until is not None:
            return True
        with state.change() as planner:
            planner.book.changes.meta[ENDED_UNTIL] = ended.until_ns
            if ended.left_out and reports and reports[0] in unknown:
                # Earlier looks have seen what is older than a run that is known.
                planner.count(Counter.EXECUTIONS_ELSEWHERE_LEFT_OUT, ended.left_out)
            return True

    def _known_tasks(self, reports: Sequence[Report]) -> dict[str, Task]:
        """The tasks by id. The list is read again for one that it lacks, once for each task."""
        known = {task.id: task for task in self._tasks.get()}
        strangers = {one.task_id.lower() for one in reports} - known.keys()
        if strangers - self._strangers:
            # A task may be new; some tasks are not ours to see.
            known = {task.id: task for task in self._tasks.get(0)}
            self._strangers |= strangers
            if len(self._strangers) > MAX_STRANGERS:
                self._strangers = strangers
        return known

    def _note_failure(self, due: Sequence[Record], error: QlikError) -> None:
        _log.info("Asking about running tasks failed: %s", error)
        with self._state.change() as planner:
            planner.count(Counter.POLLS_FAILED)
            for record in due:
                planner.unanswered(record, error, self._state.clock_ns())
            self._state.circuit.failed(error)


def _as_reported(execution: Execution, report: Report) -> Execution:
    return msgspec.structs.replace(execution, state=report.state, execution_id=report.execution_id)


def _of_other(report: Report, known: Mapping[str, Task]) -> Execution:
    task = known[report.task_id.lower()]
    return _as_reported(
        Execution(0, task.id, task.name, report.state, Cause("elsewhere"), 0), report
    )
