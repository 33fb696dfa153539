"""Fetches script logs, in threads of its own beside those that start tasks.

A log may hang, drip or have gigabytes, so it takes none of the threads that starts and looks need.
What becomes of a log says nothing about the server's other calls: the circuit is not told.
Not for: when a log is asked for (script_logs.py), how (appliance/qlik).
"""

from __future__ import annotations

import logging

from appliance.counters import Counter
from appliance.model import TaskKind
from appliance.qlik.masking import last_lines
from appliance.qlik.server import QlikError, QlikServer, Report
from appliance.tasks.catalog import TaskList
from appliance.tasks.kept_logs import KeptLogs
from appliance.tasks.records import Record
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.state_store import StateStore

_log = logging.getLogger(__name__)
LOG_LINES = 20
FETCHERS = 2
"""Threads. One log that hangs delays no other one."""
_TICK_S = 1.0
_NO_LINES = "The server has no script log of this run."


class LogFetcher:
    """One object, used by all threads that fetch logs."""

    def __init__(
        self, state: StateStore, server: QlikServer, tasks: TaskList, kept: KeptLogs
    ) -> None:
        self._state = state
        self._server = server
        self._tasks = tasks
        self._kept = kept

    def work(self) -> None:
        """Fetch logs until the stop."""
        while (record := self._next()) is not None:
            try:
                self._fetch(record)
            except Exception:
                # The thread is run again; this log would be asked for by no other one.
                with self._state.change() as planner:
                    now = self._state.clock_ns()
                    problem = "An error in the appliance: see its log."
                    planner.logs.failed(record, problem, now, is_final=True)
                raise

    def _next(self) -> Record | None:
        """Wait for a log that is due; ``None`` at the stop. None is due while starts wait, too."""
        state = self._state
        with state.lock:
            while not state.stopping:
                now, logs = state.clock_ns(), state.planner.logs
                may_ask = not state.circuit.is_open and not state.trouble
                if may_ask and (record := logs.begin(now)) is not None:
                    return record
                if (due := logs.next_due()) is None:
                    state.log_due.wait()
                elif may_ask:
                    state.log_due.wait(min(max((due - now) / SECOND_NS, 0.001), _TICK_S))
                else:
                    state.log_due.wait(_TICK_S)
        return None

    def _fetch(self, record: Record) -> None:
        task = self._tasks.known(record.execution.task_id)
        problem, label, file = _NO_LINES, "", ""
        lines: tuple[str, ...] = ()
        if task is None or task.kind is TaskKind.RELOAD:
            try:
                if self._kept.is_wanted:
                    text = self._server.script_log(_report(record))
                    lines = tuple(last_lines(text, LOG_LINES))
                    file = self._kept.keep(record.execution, text) if lines else ""
                else:
                    lines = tuple(self._server.log_tail(_report(record), LOG_LINES))
            except QlikError as error:
                problem, label = str(error), error.label
        else:
            problem = ""
        with self._state.change() as planner:
            now = self._state.clock_ns()
            if lines or not problem:
                planner.logs.fetched(record, lines, file)
            elif self._state.stopping:
                planner.logs.given_back(record, now)
            else:
                _log.info("Execution %d: no script log: %s", record.id, problem)
                is_over_limit = label in ("too large", "too slow")
                if is_over_limit:
                    planner.count(Counter.SCRIPT_LOGS_OVER_LIMIT)
                planner.logs.failed(record, problem, now, is_final=is_over_limit)


def _report(record: Record) -> Report:
    execution = record.execution
    return Report(
        execution_id=execution.execution_id,
        task_id=execution.task_id,
        state=execution.state,
        result_id=record.report_id,
        started_ns=execution.started_ns,
        ended_ns=execution.ended_ns,
        file_reference=record.file_reference,
    )
