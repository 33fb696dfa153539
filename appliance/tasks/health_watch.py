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
from appliance.qlik.server import QlikError, QlikServer, RetryPolicy, ServerInfo
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
        self,
        state: StateStore,
        server: QlikServer,
        tasks: TaskList,
        interval_s: float,
        longest_call_s: Callable[[], float],
    ) -> None:
        """Nothing is asked yet.

        Args:
            state: the engine's state, which the answers change.
            server: is asked.
            tasks: the list that is read when the server answers.
            interval_s: between two checks of a server that answers.
            longest_call_s: for how long the oldest call for a request is under way.
        """
        self._state = state
        self._server = server
        self._tasks = tasks
        self._interval_s = interval_s
        self._longest_call_s = longest_call_s
        self._failures = 0
        self._wished_s = 0.0
        """The wait that the server asked for (429)."""
        self._next_trial_s = 0.0
        self._aside: dict[str, threading.Thread] = {}

    def watch(self, stopped: threading.Event) -> None:
        """Check until the stop."""
        is_wanted = False
        while not stopped.is_set():
            began = time.monotonic()
            self._state.circuit.check_wanted.clear()
            self._check(is_wanted=is_wanted)
            is_wanted = self._wait(began, stopped)

    def _wait(self, began: float, stopped: threading.Event) -> bool:
        """Wait for the time of the next check, which what comes meanwhile may make earlier.

        Returns whether anything but the usual interval brought it.
        """
        state = self._state
        while not stopped.is_set():
            with state.lock:
                between_s = self._between_s()
                left_s = began + between_s - time.monotonic()
                state.circuit.next_check_ns = state.clock_ns() + int(max(left_s, 0.0) * SECOND_NS)
            if left_s <= 0:
                return between_s < self._interval_s
            if state.circuit.check_wanted.wait(min(left_s, _TICK_S)) and stopped.wait(
                min(max(began + LEAST_BETWEEN_S - time.monotonic(), 0.0), left_s)
            ):
                break
        return False

    def _between_s(self) -> float:
        """Seconds from the last check to the next. Call under the lock."""
        circuit = self._state.circuit
        if circuit.check_wanted.is_set():
            return min(LEAST_BETWEEN_S, self._interval_s)
        if self._longest_call_s() > WAITED_FOR_CHECK_S:
            # The server may have swallowed the call. Its return shows at a check alone.
            return min(WAITED_FOR_CHECK_S, self._interval_s)
        if circuit.was_checked_well and not circuit.is_open:
            return self._interval_s
        between_s = min(
            FIRST_CHECK_S * 2.0 ** min(max(self._failures - 1, 0), 20), self._interval_s
        )
        if self._state.planner.waits_for_server():
            between_s = min(between_s, WAITED_FOR_CHECK_S)
        return max(between_s, min(self._wished_s, self._interval_s))

    def _check(self, *, is_wanted: bool) -> None:
        began = time.monotonic()
        try:
            with deadlines.within(SHORT_CHECK_S):
                info = self._server.check()
        except QlikError as error:
            is_slow = time.monotonic() - began >= SHORT_CHECK_S
            if is_slow:
                # It may be a slow server: it gets the time that every other call has.
                self._begin_aside("patient-check", self._check_patiently)
            if is_wanted or not is_slow:
                self._failed(error)
        else:
            self._answered(info, is_quick=True)

    def _check_patiently(self) -> None:
        began = time.monotonic()
        try:
            info = self._server.check()
        except QlikError as error:
            if not error.is_given_up:
                self._failed(error)
        else:
            self._answered(info, is_quick=time.monotonic() - began < SHORT_CHECK_S)

    def _failed(self, error: QlikError) -> None:
        with self._state.change() as planner:
            self._failures += 1
            # With any other status than 429 the time is a guess: a server that is back is used.
            is_limit = error.retry is RetryPolicy.SAFE
            self._wished_s = (error.retry_after_s or 0.0) if is_limit else 0.0
            circuit = self._state.circuit
            was_open = circuit.is_open
            circuit.check_failed(error)
            now_s = time.monotonic()
            if not (was_open and error.is_reached):
                self._next_trial_s = now_s + TRIAL_EVERY_S
            elif now_s >= self._next_trial_s:
                self._next_trial_s = now_s + TRIAL_EVERY_S
                planner.try_one(self._state.clock_ns())

    def _answered(self, info: ServerInfo, *, is_quick: bool) -> None:
        """``is_quick``: the answer came soon, so a call that waits for longer gets none."""
        with self._state.change() as planner:
            self._failures = 0
            self._wished_s = 0.0
            circuit = self._state.circuit
            was_open = circuit.is_open
            if circuit.checked(info):
                if was_open:
                    _log.info("The Qlik server answers again")
                planner.server_is_back(self._state.clock_ns())
            closed_s = circuit.closed_s
            if is_quick:
                circuit.closed_s = None
        if is_quick and closed_s is not None:
            self._server.give_up(time.monotonic() - closed_s)
        self._begin_aside("task-list", self._read_tasks)

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
            except ClosedError:
                pass
            except Exception:  # noqa: BLE001 - a defect; the next check tries again
                _log.exception("An error in the appliance, please report it: %s failed", name)

        thread = threading.Thread(target=run, name=f"tasks-{name}", daemon=True)
        self._aside[name] = thread
        thread.start()
