"""The threads of the task engine: what each waits for, what it then does, how all of them end.

One reads the journal, one watches the time, some call the server, some fetch script logs, one polls
the server, one checks its health, one publishes, one keeps the database's log short. All are
daemons: a server that hangs must not keep the process alive. One that fails by a mistake of ours is
run again (internal_errors.py).

Not for: any rule about requests (planner.py).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from appliance import tuning
from appliance.clock import Clock
from appliance.counters import Counter
from appliance.journal.follower import Follower
from appliance.qlik.server import QlikServer
from appliance.tasks.consumer import JournalConsumer
from appliance.tasks.health_watch import HealthWatch
from appliance.tasks.kept_logs import KeptLogs
from appliance.tasks.log_fetcher import FETCHERS, LogFetcher
from appliance.tasks.notice_target import Target
from appliance.tasks.notices import Notices
from appliance.tasks.poller import RunPoller
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.runner import Runner
from appliance.tasks.schedule import Timing
from appliance.tasks.state_store import ClosedError, StateStore
from appliance.tasks.store import Publication

_log = logging.getLogger(__name__)
PRUNE_EVERY_S = 3600.0
TICK_S = 1.0
"""The longest that a thread sleeps: a change of the system's time is noticed by then."""
STOPPING_TICK_S = 0.05
PUBLISH_TRIES = 3
CHECKPOINT_EVERY_S = 5.0


class Publish(Protocol):
    """Publishes in the appliance's own name, in this order.

    Called from a thread of the task engine; returns once all are in the journal, with the number of
    the last, and raises if they can't be. After an error some may be published nevertheless; called
    with those again, it does not publish them a second time.
    """

    def __call__(self, publications: Sequence[Publication]) -> int: ...


class Serving(msgspec.Struct):
    """What there is where a Qlik server is configured."""

    server: QlikServer
    runner: Runner
    logs: LogFetcher
    poller: RunPoller
    health: HealthWatch
    workers: int


class Workers:
    """All threads, from ``start`` to ``stop``."""

    def __init__(
        self,
        state: StateStore,
        consumer: JournalConsumer,
        timing: Timing,
        publish: Publish,
        *,
        serving: Serving | None,
        notices: Notices,
        kept_logs: KeptLogs,
    ) -> None:
        self._notices = notices
        self._kept_logs = kept_logs
        self._state = state
        self._consumer = consumer
        self._timing = timing
        self._publish = publish
        self._serving = serving
        self._source: Follower | None = None
        self._next_prune = 0.0
        self._threads: list[threading.Thread] = []
        self._workers: list[threading.Thread] = []
        self._fetchers: list[threading.Thread] = []
        self._vital: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._ended = threading.Event()

    def start(self, source: Follower, *, keep_s: float, keep_count: int) -> None:
        """Start all; history older than ``keep_s`` seconds or beyond ``keep_count`` goes."""
        self._source = source
        self._begin("journal", lambda: self._consumer.read(source, self._stopped))
        self._begin("clock", lambda: self._watch_time(keep_s, keep_count))
        self._begin("outcomes", self._publish_outcomes)
        self._begin("checkpoint", self._keep_disk_tidy, is_vital=False)
        self.tell(self._notices.targets)
        serving = self._serving
        if serving is None:
            return
        for number in range(1, serving.workers + 1):
            self._workers.append(self._begin(f"qlik-{number}", serving.runner.work))
        for number in range(1, FETCHERS + 1):
            fetcher = self._begin(f"logs-{number}", serving.logs.work, is_vital=False)
            self._fetchers.append(fetcher)
        self._workers.append(self._begin("poller", lambda: self._poll_runs(serving.poller)))
        self._workers.append(self._begin("health", lambda: serving.health.watch(self._stopped)))

    def tell(self, targets: Iterable[Target]) -> None:
        """Begin a thread for each of these targets of notices."""
        self._threads = [one for one in self._threads if one.is_alive()]
        for target in targets:
            self._begin(target.name, partial(target.run, self._stopped), is_vital=False)

    def _begin(
        self, name: str, work: Callable[[], None], *, is_vital: bool = True
    ) -> threading.Thread:
        def until_closed() -> None:
            try:
                work()
            except ClosedError:
                return  # It came back from the server after the stop.

        def run() -> None:
            self._state.internal_errors.supervise(
                name, until_closed, self._stopped.wait, is_vital=is_vital
            )

        thread = threading.Thread(target=run, name=f"tasks-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        if is_vital:
            self._vital.append(thread)
        return thread

    def lost(self) -> tuple[str, ...]:
        """Vital threads that have ended before the stop."""
        if self._stopped.is_set():
            return ()
        return tuple(one.name for one in self._vital if not one.is_alive())

    def stop(self, timeout_s: float) -> None:
        """End all within the time; calls under way are broken off when two thirds have passed."""
        deadline = time.monotonic() + timeout_s
        with self._state.lock:
            self._state.stopping = True
        self._stopped.set()
        if self._source is not None:
            self._source.wake()
        self._state.wake_all()
        self._state.circuit.check_wanted.set()
        for _ in self._workers:
            self._state.jobs.put(None)
        _join(self._workers, deadline - timeout_s / 3)
        calling = [*self._workers, *self._fetchers]
        if self._serving is not None and any(one.is_alive() for one in calling):
            # Calls under way end with an error now, instead of at their time-out. A script log is
            # not waited for: the next run of the appliance asks for it again.
            self._serving.server.close()
            _join(calling, deadline - timeout_s / 6)
        _join(self._threads, deadline)
        self._ended.set()

    # --- one method for each kind of thread -----------------------------------------------------

    def _watch_time(self, keep_s: float, keep_count: int) -> None:
        state = self._state
        with state.lock:
            while not state.stopping:
                if time.monotonic() >= self._next_prune:
                    self._next_prune = time.monotonic() + PRUNE_EVERY_S
                    self._consumer.prune(keep_s, keep_count)
                state.follow_clock()
                due = _earliest(state.planner.next_due(), self._timing.next_due())
                now = state.clock_ns()
                if due is None or due > now or state.trouble:
                    wait_s = TICK_S if due is None else max((due - now) / SECOND_NS, 0.001)
                    state.changed.wait(TICK_S if state.trouble else min(wait_s, TICK_S))
                if not state.stopping:
                    try:
                        if not state.trouble:
                            self._timing.tick(state.planner)
                    finally:
                        # The waits of requests end, also when the timers fail.
                        state.settle(flush=True)

    def _poll_runs(self, poller: RunPoller) -> None:
        state = self._state
        while True:
            with state.lock:
                due = poller.next_due()
                wait_s = TICK_S if due is None else (due - state.clock_ns()) / SECOND_NS
                if wait_s > 0 and not state.stopping:
                    state.changed.wait(min(wait_s, TICK_S))
                if state.stopping:
                    return
                due = poller.next_due()
                if due is None or due > state.clock_ns():
                    continue
            poller.poll()

    def _keep_disk_tidy(self) -> None:
        while not self._stopped.wait(CHECKPOINT_EVERY_S):
            try:
                self._state.store.checkpoint()
            except sqlite3.Error as error:
                _log.info("The log of the task database could not be moved into it: %s", error)
            clock = self._state.clock_ns
            self._kept_logs.tidy(clock.settled_ns() if isinstance(clock, Clock) else clock())

    def _publish_outcomes(self) -> None:
        failures = 0
        suspects = 0
        """So many that come next could not be published together: the fault may lie in one."""
        while not self._ended.is_set():
            due = self._state.next_publications(
                STOPPING_TICK_S if self._stopped.is_set() else TICK_S,
                1 if suspects else tuning.PUBLISHED_TOGETHER,
            )
            if not due:
                if self._is_over():
                    return
                continue
            number, publication = due[-1]
            seq = 0
            try:
                seq = self._publish([one for _, one in due])
            except Exception as error:  # noqa: BLE001 - it stays on disk after any error
                failures += 1
                suspects = max(suspects, len(due))
                _log.warning("%s can't be published: %s", publication.topic, error)
                if self._stopped.is_set():
                    return  # The next run of the appliance publishes it.
                if failures < PUBLISH_TRIES:
                    self._stopped.wait(TICK_S)
                    continue
                with self._state.lock:
                    self._state.planner.count(Counter.PUBLICATIONS_DROPPED)
            failures = 0
            suspects = max(0, suspects - 1)
            self._state.was_published(number, seq)

    def _is_over(self) -> bool:
        """Whether nothing will come any more that is to be published."""
        return self._stopped.is_set() and not any(
            one.is_alive() for one in (*self._workers, *self._fetchers)
        )


def _earliest(*times: int | None) -> int | None:
    return min((time for time in times if time is not None), default=None)


def _join(threads: Sequence[threading.Thread], deadline: float) -> None:
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
