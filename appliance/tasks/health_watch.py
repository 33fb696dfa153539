"""When the server is asked whether it answers, and what follows from its answer.

While requests wait for the server it is asked every two seconds, each time for a short time, so
that a start leaves soon after its return, also if the server swallowed the question before.

Not for: what a failed check means (circuit.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from appliance.qlik import deadlines
from appliance.qlik.server import QlikError, QlikServer, ServerInfo
from appliance.tasks.catalog import TaskList
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.state_store import ClosedError, StateStore

_log = logging.getLogger(__name__)
FIRST_CHECK_S = 1.0
"""The health of a server that does not answer is asked for after 1 s, 2 s, 4 s, ..."""
WAITED_FOR_CHECK_S = 2.0
"""From one health check to the next while the server does not answer and requests wait for it."""
SHORT_CHECK_S = 2.0
"""How long such a check may take."""
LEAST_BETWEEN_S = 1.0
"""From one health check to the next that a failed call asks for."""
TRIAL_EVERY_S = 30.0
"""While the server answers its health checks with errors, one request is tried so often: perhaps
nothing but the health check fails."""
_TICK_S = 0.5


class HealthWatch:
    """Asks the server. ``watch`` is for one thread."""

    def __init__(
        self, state: StateStore, server: QlikServer, tasks: TaskList, interval_s: float
    ) -> None:
        """``interval_s`` is the time between two checks of a server that answers."""
        self._state = state
        self._server = server
        self._tasks = tasks
        self._interval_s = interval_s
        self._failures = 0
        self._wished_s = 0.0
        """The wait that the server asked for (429)."""
        self._next_trial_s = 0.0
        self._aside: dict[str, threading.Thread] = {}

    def watch(self, stopped: threading.Event) -> None:
        """Check until the stop."""
        while not stopped.is_set():
            began = time.monotonic()
            self._state.circuit.check_wanted.clear()
            self._check()
            self._wait(began, stopped)

    def _wait(self, began: float, stopped: threading.Event) -> None:
        """Wait for the time of the next check; what comes meanwhile may make it earlier."""
        state = self._state
        while not stopped.is_set():
            with state.lock:
                due = began + self._between_s()
                left_s = due - time.monotonic()
                state.circuit.next_check_ns = state.clock_ns() + int(max(left_s, 0.0) * SECOND_NS)
            if left_s <= 0:
                return
            if state.circuit.check_wanted.wait(min(left_s, _TICK_S)) and stopped.wait(
                min(max(began + LEAST_BETWEEN_S - time.monotonic(), 0.0), left_s)
            ):
                return

    def _between_s(self) -> float:
        """Seconds from the last check to the next. Call under the lock."""
        circuit = self._state.circuit
        if circuit.check_wanted.is_set():
            return min(LEAST_BETWEEN_S, self._interval_s)
        if circuit.was_checked_well and not circuit.is_open:
            return self._interval_s
        between_s = min(
            FIRST_CHECK_S * 2.0 ** min(max(self._failures - 1, 0), 20), self._interval_s
        )
        if self._is_waited_for():
            between_s = min(between_s, WAITED_FOR_CHECK_S)
        return max(between_s, min(self._wished_s, self._interval_s))

    def _is_waited_for(self) -> bool:
        return self._state.planner.waits_for_server()

    def _check(self) -> None:
        with self._state.lock:
            is_short = self._is_waited_for() and not self._state.circuit.was_checked_well
        began = time.monotonic()
        try:
            if is_short:
                with deadlines.within(SHORT_CHECK_S):
                    info = self._server.check()
            else:
                info = self._server.check()
        except QlikError as error:
            self._failed(error)
            if is_short and time.monotonic() - began >= SHORT_CHECK_S:
                # It may be a slow server: it gets the time that every other call has.
                self._begin_aside("patient-check", self._check_patiently)
        else:
            self._answered(info)

    def _failed(self, error: QlikError) -> None:
        self._failures += 1
        self._wished_s = error.retry_after_s or 0.0
        with self._state.change() as planner:
            circuit = self._state.circuit
            circuit.check_failed(error)
            now_s = time.monotonic()
            if not (circuit.is_open and error.is_reached):
                self._next_trial_s = now_s + TRIAL_EVERY_S
            elif now_s >= self._next_trial_s:
                self._next_trial_s = now_s + TRIAL_EVERY_S
                planner.try_one(self._state.clock_ns())

    def _answered(self, info: ServerInfo) -> None:
        self._failures = 0
        self._wished_s = 0.0
        with self._state.change() as planner:
            was_open = self._state.circuit.is_open
            if self._state.circuit.checked(info):
                if was_open:
                    _log.info("The Qlik server answers again")
                planner.server_is_back(self._state.clock_ns())
        self._begin_aside("task-list", self._read_tasks)

    def _check_patiently(self) -> None:
        self._answered(self._server.check())

    def _read_tasks(self) -> None:
        try:
            self._tasks.get()
        except QlikError as error:
            with self._state.lock:
                self._state.circuit.failed(error)

    def _begin_aside(self, name: str, work: Callable[[], None]) -> None:
        """Do what may take long in a thread of its own, unless that goes on already."""
        thread = self._aside.get(name)
        if thread is not None and thread.is_alive():
            return

        def run() -> None:
            try:
                work()
            except (QlikError, ClosedError):
                pass
            except Exception:  # noqa: BLE001 - a defect; the next check tries again
                _log.exception("An error in the appliance, please report it: %s failed", name)

        thread = threading.Thread(target=run, name=f"tasks-{name}", daemon=True)
        self._aside[name] = thread
        thread.start()
