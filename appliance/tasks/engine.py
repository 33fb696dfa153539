"""The stretch from a message to a finished execution, as one part with a start and a stop.

Puts the parts of this package together and owns their threads: one reads the journal, one watches
the time, some call the server, one polls it, one checks its health, one publishes outcomes. All
are daemons: a server that hangs must not keep the process alive.

Not for: any rule of its own. What happens to a request is in planning.py.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from appliance.config import AllowConfig, TriggerConfig
from appliance.errors import UnavailableError, UsageError
from appliance.model import Cause, Execution, Message, MessageProperties, Task
from appliance.qlik.server import QlikError, QlikServer
from appliance.state import Health, Mark, QlikState, RuleState, TimerState
from appliance.tasks.following import FIRST_POLL_S, SLOWEST_POLL_S, Following
from appliance.tasks.intake import Intake, Source
from appliance.tasks.ledger import ClosedError, Ledger
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.payloads import Rejection
from appliance.tasks.planning import SECOND_NS, Limits, Planner
from appliance.tasks.records import Record
from appliance.tasks.runner import Runner
from appliance.tasks.selection import AllowList, TaskList
from appliance.tasks.settings import TimerConfig
from appliance.tasks.store import Store
from appliance.tasks.timing import Timing
from appliance.tasks.triggers import Options, Triggers
from appliance.tasks.views import Views
from appliance.tasks.wants import Want, task_id
from appliance.timers import Timers

_log = logging.getLogger(__name__)
PRUNE_EVERY_S = 3600.0
TICK_S = 1.0
"""The longest that the clock thread sleeps: a change of the system's time is noticed by then."""
FIRST_CHECK_S = 1.0


class Publish(Protocol):
    """Publishes in the appliance's own name.

    Called from a thread of the task engine; returns once the message is accepted (best: once it
    is in the journal) and raises if it can't be.
    """

    def __call__(
        self,
        topic: str,
        payload: bytes,
        retain: bool,
        properties: MessageProperties | None = None,
    ) -> object: ...


class TaskEngine:
    """Everything about tasks. Methods may be called from any thread."""

    def __init__(
        self,
        *,
        service_name: str,
        triggers: Sequence[TriggerConfig],
        allow: AllowConfig,
        server: QlikServer | None,
        database: Path,
        publish: Publish,
        timers: Sequence[TimerConfig] = (),
        edition: str = "",
        max_concurrent: int = 4,
        max_running: int | None = None,
        health_check_s: float = 30.0,
        sync: Literal["always", "os"] = "always",
        keep_s: float = 90 * 86400.0,
        keep_count: int = 100_000,
        limits: Limits | None = None,
        first_poll_s: float = FIRST_POLL_S,
        slowest_poll_s: float = SLOWEST_POLL_S,
        elsewhere_s: float = SLOWEST_POLL_S,
        clock_ns: Callable[[], int] = time.time_ns,
        chance: random.Random | None = None,
    ) -> None:
        """Compile the rules (raises ``ConfigError``); nothing is opened yet.

        ``server`` is ``None`` where no ``[qlik]`` table is configured: messages are then rejected
        with that reason. ``keep_s`` and ``keep_count`` bound the history of executions;
        ``elsewhere_s`` of 0 turns off the watch for runs started elsewhere.
        """
        self._triggers = Triggers(triggers, service_name=service_name)
        self._server = server
        self._edition = edition
        self._publish = publish
        self._health_check_s = health_check_s
        self._keep_s = keep_s
        self._keep_count = keep_count
        self._clock_ns = clock_ns
        self._tasks = TaskList(server)
        self._allow = AllowList(allow)
        self._outcomes = Outcomes(service_name, self._triggers.concern)
        self._views = Views()
        self._store = Store(database, sync=sync)
        self._database = database
        self._limits = limits or Limits(slots=max_concurrent, max_running=max_running)
        self._chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._planner = Planner(self._limits, name_of=self._name_of, chance=self._chance)
        self._ledger = Ledger(self._store, self._planner, self._views, self._outcomes, clock_ns)
        self._timing = Timing(
            self._ledger,
            Timers(timers, service_name=service_name),
            service_name=service_name,
            has_server=server is not None,
        )
        self._intake = Intake(
            self._ledger,
            self._triggers,
            self._outcomes,
            self._timing.hear,
            has_server=server is not None,
        )
        self._following = (
            Following(
                self._ledger,
                server,
                self._tasks,
                first_poll_s=first_poll_s,
                slowest_poll_s=slowest_poll_s,
                elsewhere_s=elsewhere_s,
            )
            if server is not None
            else None
        )
        self._source: Source | None = None
        self._threads: list[threading.Thread] = []
        self._workers: list[threading.Thread] = []
        self._stopped = threading.Event()
        self.is_new = False
        """After ``open``: the database was not there before. If the journal has messages all the
        same (somebody removed the file), the caller decides where reading begins."""

    def _name_of(self, task: str) -> str:
        known = self._tasks.known(task)
        return known.name if known else ""

    # --- life ---------------------------------------------------------------------------------

    def open(self) -> int:
        """Open the database and take up what was left; returns the last message dealt with.

        Raises ``NoPermissionError`` or ``UnavailableError``.
        """
        self.is_new = not self._database.exists()
        self._store.open()
        with self._ledger.lock:
            self._planner.next_id = max(1, self._store.meta("next_id"))
            self._intake.redeliveries.load(self._store.sightings())
            self._ledger.open()
            self._timing.open()
        return self._ledger.durable_seq

    def start(self, source: Source) -> None:
        """Begin to read messages and to work."""
        self._source = source
        self._begin_thread("journal", self._read)
        self._begin_thread("clock", self._watch_time)
        self._begin_thread("outcomes", self._publish_outcomes)
        if self._server is None:
            return
        runner = Runner(self._ledger, self._server, self._tasks, self._allow, self._outcomes)
        for number in range(1, self._limits.slots + 1):
            self._workers.append(self._begin_thread(f"qlik-{number}", runner.work))
        self._workers.append(self._begin_thread("following", self._follow))
        self._workers.append(self._begin_thread("health", self._check_health))

    def _begin_thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"tasks-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def stop(self, timeout_s: float = 10.0) -> None:
        """End in order, within the time: no new starts, calls under way may finish, then close.

        A start call whose answer does not come in time is noted as such: the next run of the
        appliance looks whether it was carried out. Runs go on at the server and are followed again.
        """
        deadline = time.monotonic() + timeout_s
        with self._ledger.lock:
            self._ledger.stopping = True
        self._stopped.set()
        if self._source is not None:
            self._source.wake()
        self._ledger.wake_all()
        for _ in self._workers:
            self._ledger.jobs.put(None)
        _join(self._workers, deadline - timeout_s / 3)
        if any(thread.is_alive() for thread in self._workers) and self._server is not None:
            # Calls under way end with an error now, instead of at their time-out.
            self._server.close()
            _join(self._workers, deadline - timeout_s / 6)
        _join(self._threads, deadline)
        self._intake.save_position()
        running = len(self._planner.running)
        waiting = len(self._planner.open) - running
        self._ledger.close()
        _log.info("Tasks: stopped with %d runs going on and %d requests waiting", running, waiting)

    # --- threads ------------------------------------------------------------------------------

    def _read(self) -> None:
        assert self._source is not None
        try:
            self._intake.read(self._source, self._stopped)
        except ClosedError:
            return

    def _watch_time(self) -> None:
        ledger = self._ledger
        next_prune = 0.0
        with ledger.lock:
            while not ledger.stopping:
                if time.monotonic() >= next_prune:
                    next_prune = time.monotonic() + PRUNE_EVERY_S
                    self._intake.prune(self._keep_s, self._keep_count)
                due = _earliest(ledger.planner.next_due(), self._timing.next_due())
                now = self._clock_ns()
                if due is None or due > now or ledger.trouble:
                    wait_s = TICK_S if due is None else max((due - now) / SECOND_NS, 0.001)
                    ledger.changed.wait(TICK_S if ledger.trouble else min(wait_s, TICK_S))
                    now = self._clock_ns()
                if not ledger.stopping:
                    if not ledger.trouble:
                        self._timing.tick(ledger.planner)
                    ledger.settle(flush=True)

    def _follow(self) -> None:
        assert self._following is not None
        ledger = self._ledger
        while True:
            with ledger.lock:
                due = self._following.next_due()
                wait_s = TICK_S if due is None else (due - self._clock_ns()) / SECOND_NS
                if wait_s > 0 and not ledger.stopping:
                    ledger.changed.wait(min(wait_s, TICK_S))
                if ledger.stopping:
                    return
                due = self._following.next_due()
                if due is None or due > self._clock_ns():
                    continue
            try:
                self._following.poll()
            except ClosedError:
                return
            except Exception:  # noqa: BLE001 - see the next line
                # A mistake of ours must not end the following of all runs.
                _log.exception("Asking about running tasks failed")
                self._stopped.wait(TICK_S)

    def _check_health(self) -> None:
        assert self._server is not None
        wait_s = 0.0
        while not self._stopped.wait(wait_s):
            try:
                info = self._server.check()
            except QlikError as error:
                wait_s = self._note_check_failure(error, wait_s)
                continue
            wait_s = self._health_check_s
            try:
                with self._ledger.change() as planner:
                    if self._ledger.circuit.succeeded(info):
                        _log.info("The Qlik server answers again")
                        planner.server_is_back(self._clock_ns())
                self._tasks.get()
            except QlikError as error:
                _log.info("The task list can't be had: %s", error)
            except ClosedError:
                return

    def _note_check_failure(self, error: QlikError, waited_s: float) -> float:
        with self._ledger.lock:
            if self._ledger.circuit.failed(error, is_check=True):
                _log.warning("The Qlik server does not answer, starts wait: %s", error)
        if waited_s >= self._health_check_s or waited_s == 0:
            return min(FIRST_CHECK_S, self._health_check_s)
        return min(waited_s * 2, self._health_check_s)

    def _publish_outcomes(self) -> None:
        failures = 0
        while (due := self._ledger.next_publication(TICK_S)) or not self._is_over():
            if due is None:
                continue
            number, publication = due
            properties = MessageProperties(
                payload_format=1,
                content_type=publication.content_type or None,
                correlation_data=publication.correlation,
            )
            try:
                self._publish(
                    publication.topic, publication.payload, publication.retain, properties
                )
            except Exception as error:  # noqa: BLE001 - whatever the broker says, the outcome is on disk
                failures += 1
                _log.warning("An outcome can't be published on %s: %s", publication.topic, error)
                if self._is_over():
                    return
                if failures < 3:
                    self._stopped.wait(TICK_S)
                    continue
                with self._ledger.lock:
                    self._planner.count("publications dropped")
            failures = 0
            self._ledger.was_published(number)

    def _is_over(self) -> bool:
        """Whether nothing will come any more that is to be published."""
        return self._ledger.stopping and not any(one.is_alive() for one in self._workers)

    # --- what may be read at once ---------------------------------------------------------------

    def executions(self, limit: int) -> tuple[Execution, ...]:
        """The newest, and whatever runs, newest first."""
        return self._views.executions(limit)

    def execution(self, number: int) -> Execution | None:
        """One of the newest 2000 executions."""
        return self._views.execution(number)

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:
        """What these messages led to (of the newest 20,000 that led to anything)."""
        return self._views.marks(seqs)

    def rules(self) -> tuple[RuleState, ...]:
        return self._intake.rules()

    def timers(self) -> tuple[TimerState, ...]:
        """Configured timers, then the next hundred waits of requests."""
        return (*self._timing.states(), *self._views.timers())

    def qlik_state(self) -> QlikState:
        running, waiting, failed, succeeded = self._views.counts(self._clock_ns())
        if self._server is None:
            return QlikState(self._edition or "none", "", Health("off", "not configured"))
        return QlikState(
            edition=self._edition,
            label=self._server.label,
            health=self._ledger.circuit.health(),
            running=running,
            waiting=waiting,
            failed_24h=failed,
            succeeded_24h=succeeded,
        )

    def counters(self) -> dict[str, int]:
        """How often what happened, since the start."""
        return dict(self._planner.counters)

    # --- what may wait for the disk or the server ----------------------------------------------

    def history(self, before_id: int, limit: int, task_id: str = "") -> tuple[Execution, ...]:
        """Executions with a smaller id, newest first, from the database."""
        with self._ledger.lock:
            records = self._store.records(before_id, limit, task_id)
        return tuple(record.execution for record in records)

    def tasks(self) -> Sequence[Task]:
        """The server's tasks (cached for a minute). Raises ``ApplianceError``."""
        self._need_server()
        return self._tasks.get()

    def start_task(self, task: str, by: str) -> int:
        """Ask for a start; returns the id of the execution. Raises ``ApplianceError``."""
        self._need_server()
        found = task_id(task)
        if found is None:
            raise UsageError(f'"{task}" is not a task id. Nothing was started.')
        if not self._allow.decides_by_id(found):
            self._tasks.get()
        details = self._tasks.known(found)
        if not self._allow.allows(found, details):
            raise UsageError(self._allow.refusal(found, details).reason)
        with self._ledger.change() as planner:
            cause = Cause("operator", rule=by)
            answer = planner.ask(Want("id", found), Options(), cause, self._clock_ns())
        if isinstance(answer, Rejection):
            raise UnavailableError(answer.reason)
        return answer

    def repeat(self, message: Message, by: str) -> int:
        """Do again what a message asked for; returns how many starts were asked for."""
        self._need_server()
        return self._intake.repeat(message, by)

    def stop_execution(self, number: int, by: str) -> None:
        """Take back a request, or ask the server to end its run. Raises ``ApplianceError``."""
        self._need_server()
        with self._ledger.lock:
            record = self._planner.open.get(number)
            if record is None:
                raise UsageError(f"Execution {number} has ended already, or never was.")
            if self._planner.cancel(record, by, self._clock_ns()):
                self._ledger.settle()
                return
            execution = record.execution
            if not execution.execution_id:
                raise UnavailableError(
                    f"Execution {number} is just being started; try again when it runs."
                )
        assert self._server is not None
        self._server.stop(execution.task_id, execution.execution_id)
        with self._ledger.change() as planner:
            planner.note(record, f"Its end was asked for by {by}", self._clock_ns())

    def pause_timer(self, name: str, paused: bool, by: str) -> None:
        """Pause a timer, or a request's wait, or let it go on. Raises ``UsageError``."""
        if not self._timing.pause(name, by, paused=paused):
            with self._ledger.change() as planner:
                record = self._waiting(name)
                planner.hold(record, by, self._clock_ns(), held=paused)

    def fire_timer(self, name: str, by: str) -> None:
        """Do now what a timer would do, or end a request's wait. Raises ``UsageError``."""
        if not self._timing.fire(name, by):
            with self._ledger.change() as planner:
                planner.hurry(self._waiting(name), by, self._clock_ns())

    def _waiting(self, name: str) -> Record:
        """The request whose wait has this name (``"Reload sales #12"``)."""
        number = name.rpartition("#")[2]
        record = self._planner.open.get(int(number)) if number.isdecimal() else None
        if record is None:
            raise UsageError(f'There is no timer "{name}", and nothing of that name waits.')
        return record

    def _need_server(self) -> None:
        if self._server is None:
            raise UnavailableError("No Qlik server is configured: add a [qlik] table.")
        if self._ledger.stopping:
            raise UnavailableError("The appliance is stopping; nothing is started any more.")


def _earliest(*times: int | None) -> int | None:
    return min((time for time in times if time is not None), default=None)


def _join(threads: Sequence[threading.Thread], deadline: float) -> None:
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
