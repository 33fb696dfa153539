"""The stretch from a message to a finished execution, as one part with a start and a stop.

Puts the parts of this package together and is what the rest of the appliance sees of them.

Not for: any rule of its own (planner.py), threads (workers.py).
"""

from __future__ import annotations

import contextlib
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from appliance.config.tables import (
    AllowConfig,
    NotifyConfig,
    OutcomeConfig,
    TimerConfig,
    TriggerConfig,
)
from appliance.counters import Counter
from appliance.engine_api import (
    Explanation,
    Health,
    Mark,
    QlikState,
    RuleState,
    ServerTasks,
    TaskFreshness,
    TimerState,
    WaitState,
)
from appliance.errors import UnavailableError, UsageError
from appliance.journal.follower import Follower
from appliance.model import Cause, Execution, ExecutionState, Message, Task
from appliance.qlik.server import QlikError, QlikServer
from appliance.storage.sqlite import is_damage
from appliance.tasks import server_tasks
from appliance.tasks.acknowledgements import Acknowledgements
from appliance.tasks.catalog import AllowList, TaskList
from appliance.tasks.consumer import JournalConsumer
from appliance.tasks.dedup import WINDOW_S as REDELIVERY_WINDOW_S
from appliance.tasks.direct_starts import DirectStarts
from appliance.tasks.event_list import EventList
from appliance.tasks.explanation import Explainer
from appliance.tasks.freshness_report import FreshnessReport, Named
from appliance.tasks.health_watch import HealthWatch
from appliance.tasks.holding import Holding
from appliance.tasks.jobs import Limits
from appliance.tasks.kept_logs import FOLDER, KeptLogs
from appliance.tasks.log_fetcher import LogFetcher
from appliance.tasks.notice_target import Target, attach_logs
from appliance.tasks.notices import Notices
from appliance.tasks.outcome_forms import OutcomeForms
from appliance.tasks.outcome_lookup import OutcomeLookup
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.overview import KnownTask, overview, runs_of
from appliance.tasks.payloads import Rejection
from appliance.tasks.planner import Planner
from appliance.tasks.poller import ENDED_UNTIL, FIRST_POLL_S, SLOWEST_POLL_S, RunPoller
from appliance.tasks.published import MAX_LOOKED_AT
from appliance.tasks.records import Record
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.resolution import Resolution
from appliance.tasks.runner import Runner
from appliance.tasks.schedule import Timing
from appliance.tasks.selector import TaskSelector, task_id
from appliance.tasks.state_store import StateStore
from appliance.tasks.states import WAITING
from appliance.tasks.store import Store
from appliance.tasks.task_facts import TaskFacts
from appliance.tasks.timers import Timers
from appliance.tasks.triggers import Options
from appliance.tasks.verdicts import Triggers
from appliance.tasks.views import Failing, Views
from appliance.tasks.workers import Publish, Serving, Workers

_log = logging.getLogger(__name__)


class Rules(msgspec.Struct, frozen=True):
    """Compiled tables of a configuration, ready to count."""

    triggers: Triggers
    timers: Timers
    allow: AllowConfig
    targets: tuple[Target, ...]
    outcomes: tuple[OutcomeConfig, ...] = ()
    other_appliances: bool = False
    keep_script_logs_s: float | None = None


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
        stopped_timers: Collection[str] = (),
        notify: Sequence[NotifyConfig] = (),
        outcomes: Sequence[OutcomeConfig] = (),
        keep_script_logs_s: float | None = None,
        has_room: Callable[[], bool] = lambda: True,
        answer_topic: Callable[[Message, str], str | None] = lambda _message, topic: topic,
        edition: str = "",
        other_appliances: bool = False,
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
        boot_ns: int | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Compile the rules (raises ``ConfigError``); nothing is opened yet.

        ``other_appliances``: others start tasks on the server, so it is asked before each start.
        ``server`` is ``None`` where no ``[qlik]`` table is configured: messages are then rejected
        with that reason. ``keep_s`` and ``keep_count`` bound the history of executions;
        ``elsewhere_s`` of 0 turns off the watch for runs started elsewhere. ``boot_ns`` is when
        the machine was started (by default found out). ``answer_topic`` says under which
        topic the sender of a message gets what is meant for its response topic, ``None`` if it may
        not have it. ``keep_script_logs_s``: for how long logs are kept as files, ``None``: not at
        all; ``has_room`` whether the disk has room for them.
        """
        self._service_name = service_name
        rules = Triggers(triggers, service_name=service_name)
        telling = Outcomes(service_name, self._concern, answer_topic)
        limits = limits or Limits(slots=max_concurrent, max_running=max_running)
        self._server = server
        self._edition = edition
        self._keep_s = keep_s
        self._keep_count = keep_count
        self._clock_ns = clock_ns
        self._tasks = TaskList(server)
        self._events = EventList(server)
        self._allow = AllowList(allow)
        self._views = Views()
        self._store = Store(database, sync=sync)
        self._planner = Planner(
            limits,
            known=self._tasks.known,
            chance=chance or random.Random(),  # noqa: S311 - jitter, not a secret
        )
        self._planner.dispatcher.has_others = other_appliances
        if server is not None:
            self._planner.dispatcher.clock_doubt_s = server.clock_doubt_s
            self._planner.dispatcher.own_time_ns = server.own_time_ns
        self._planner.book.freshness.take_limits(rules.fresh_within(), 0)
        self._planner.dispatcher.boot_ns = _boot_ns(clock_ns) if boot_ns is None else boot_ns
        self._state = StateStore(self._store, self._planner, self._views, telling, clock_ns)
        self._freshness = FreshnessReport(self._state, self._tasks, service_name)
        self.acknowledgements = Acknowledgements(self._state)
        lookup = None
        if server is not None:
            lookup = OutcomeLookup(server, self._tasks, self._planner.count)
        self._forms = OutcomeForms(
            outcomes, service_name, self._tasks.known, lookup, self._state.set_aside
        )
        telling.forms = self._forms.of
        self._resolution = Resolution(self._tasks, self._allow)
        self._direct_starts = DirectStarts(self._state, self._tasks, self._resolution)
        self._explainer = Explainer(self._state, self._tasks, self._allow, telling)
        self._timing = Timing(
            self._state,
            Timers(timers, service_name=service_name, stopped=stopped_timers),
            service_name=service_name,
            has_server=server is not None,
        )
        self._what_starts = server_tasks.WhatStarts(service_name)
        self._consumer = JournalConsumer(
            self._state,
            rules,
            telling,
            self._timing.hear,
            own_time_ns=None if server is None else server.own_time_ns,
        )
        self.holding = Holding(
            self._state,
            self._consumer,
            self._timing,
            self._tasks,
            has_server=server is not None,
        )
        """What operators hold."""
        self._kept_logs = KeptLogs(database.parent / FOLDER, self._planner.count, has_room=has_room)
        serving = None
        if server is not None:
            poller = RunPoller(
                self._state,
                server,
                self._tasks,
                before_ends=self._forms.before_ends,
                first_poll_s=first_poll_s,
                slowest_poll_s=slowest_poll_s,
                elsewhere_s=elsewhere_s,
            )
            runner = Runner(self._state, server, self._resolution, telling)
            logs = LogFetcher(self._state, server, self._tasks, self._kept_logs)
            health = HealthWatch(self._state, server, self._tasks, health_check_s, runner.longest_s)
            serving = Serving(server, runner, logs, poller, health, limits.slots)
        self._answered_seq = 0
        self._poller = None if serving is None else serving.poller
        self._source: Follower | None = None
        self._state.on_step = self._follow_step
        self._notices = Notices(
            notify,
            self._planner.count,
            appliance=service_name,
            facts=TaskFacts(self._tasks, server),
            log_path=self._kept_logs.path_of,
        )
        self._kept_logs.take(keep_script_logs_s, is_attached=attach_logs(self._notices.targets))
        self._state.offer = self._notices.offer
        self._workers = Workers(
            self._state,
            self._consumer,
            self._timing,
            publish,
            serving=serving,
            notices=self._notices,
            kept_logs=self._kept_logs,
        )
        self.is_new = False
        """After ``open``: the database has no cursor. If the journal has messages all the same
        (the file was removed, or damaged and set aside), the caller names one to ``rebuild``."""

    # --- life ---------------------------------------------------------------------------------

    def open(self) -> int:
        """Open the database and take up what was left; returns the last message dealt with.

        Raises ``ConfigError``, ``NoPermissionError`` or ``UnavailableError``.
        """
        self._store.open(self._clock_ns())
        try:
            self._read_left()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            # It is too big to be read through at each start: now it is.
            self._store.note_damage()
            self._store.close()
            self._store.open(self._clock_ns())
            self._read_left()
        return self._state.cursors.durable

    def _read_left(self) -> None:
        """Read what an earlier run left. Raises ``sqlite3.Error``."""
        with self._state.lock, self._store.understood():
            self.is_new = self._store.is_new
            newest_id, self._answered_seq = self._store.newest()
            self._planner.book.next_id = max(newest_id + 1, self._store.meta("next_id"))
            self._consumer.redeliveries.load(self._store.sightings())
            self._state.open()
            self.acknowledgements.open()
            self._timing.open()
            if self._poller is not None:
                self._poller.begin_at(self._store.meta(ENDED_UNTIL))

    @property
    def losses(self) -> list[str]:
        """What ``open`` and ``rebuild`` found lost, a sentence each, to be acknowledged."""
        return self._store.losses

    def first_wanted_ns(self) -> int:
        """Since when a message may still ask for a start: earlier ones have expired."""
        longest_s = max(REDELIVERY_WINDOW_S, self._consumer.longest_expiry_s())
        return self._clock_ns() - int(longest_s * SECOND_NS)

    def rebuild(self, seq: int, last_seq: int) -> int:
        """Begin a database without a cursor behind ``seq``. Between ``open`` and ``start``.

        The messages up to ``last_seq`` are read again: what they asked for is looked for in the
        journal and at the server before it is started. Messages up to ``seq`` are not acted on.

        Returns the cursor: it is behind ``seq`` if rows of the database tell of later messages.
        """
        seq = min(max(seq, self._answered_seq, last_seq - MAX_LOOKED_AT), last_seq)
        self._state.rebuild_after(seq)
        if last_seq and not (0 < seq == self._answered_seq and self._store.losses):
            again = f" Messages {seq + 1} to {last_seq} are read again." if seq < last_seq else ""
            is_left_out = seq > self._answered_seq
            before = f" Messages up to {seq} start nothing any more." if is_left_out else ""
            text = (
                f"The record of starts was lost with the task database.{again} What they ask for is"
                " started only if neither the journal nor the Qlik server knows of a start since."
                f"{before} Timers that were paused run"
            )
            _log.error("%s", text)
            self._store.losses.append(f"{text}.")
        return seq

    def concern(self, topic: str) -> bool:
        """Whether a message on this topic may lead to anything. Any thread."""
        return self._consumer.concern(topic) or self._timing.concern(topic)

    def start(self, source: Follower) -> None:
        """Begin to read messages and to work.

        Raises ``UnavailableError`` if the journal can't be read.
        """
        self._planner.dispatcher.earlier_seq = source.last_seq
        self._state.cursors.follow(source)
        self._source = source
        try:
            self._timing.take_alarms(self._state.take_up(source, self._service_name))
        except sqlite3.Error as error:
            raise UnavailableError(f"The journal can't be read: {error}.") from None
        self._workers.start(source, keep_s=self._keep_s, keep_count=self._keep_count)

    def _follow_step(self, step_ns: int) -> None:
        """The clock was set: within the change in which the planner follows."""
        self._timing.follow_step(step_ns)
        self.acknowledgements.follow_step(step_ns)
        self._consumer.follow_step(step_ns, self._source.last_seq if self._source else 0)
        if self._poller is not None:
            self._poller.follow_step(step_ns)
        self._planner.dispatcher.boot_ns += step_ns

    def rules_of(
        self,
        triggers: Sequence[TriggerConfig],
        timers: Sequence[TimerConfig],
        allow: AllowConfig,
        notify: Sequence[NotifyConfig],
        outcomes: Sequence[OutcomeConfig] = (),
        *,
        stopped_timers: Collection[str] = (),
        other_appliances: bool = False,
        keep_script_logs_s: float | None = None,
    ) -> Rules:
        """Compile other tables for ``take``; raises ``ConfigError``, and nothing is changed."""
        return Rules(
            Triggers(triggers, service_name=self._service_name),
            Timers(timers, service_name=self._service_name, stopped=stopped_timers),
            allow,
            self._notices.targets_for_reload(notify),
            tuple(outcomes),
            other_appliances,
            keep_script_logs_s,
        )

    def take(self, rules: Rules) -> None:
        """Let other rules count from now on.

        Requests that wait go on as they were asked for: debounce, cooldown and retries too. Only
        ``[allow]`` is asked again when their turn comes. Raises ``UnavailableError`` if the
        database can't be read; nothing is changed then.
        """
        with self._state.lock:
            try:
                self._timing.take_timers(rules.timers)
            except sqlite3.Error as error:
                raise UnavailableError(f"The task database can't be read: {error}.") from None
            self._consumer.take_rules(rules.triggers)
            self._allow.take(rules.allow)
            self._planner.dispatcher.has_others = rules.other_appliances
            self._workers.tell(self._notices.take(rules.targets))
            self._forms.take(rules.outcomes)
            is_attached = attach_logs(self._notices.targets)
            self._kept_logs.take(rules.keep_script_logs_s, is_attached=is_attached)

    def _concern(self, topic: str) -> bool:
        return self._consumer.concern(topic)

    def stop(self, timeout_s: float = 10.0) -> None:
        """End in order, within the time: no new starts, calls under way may finish, then close.

        A start call whose answer does not come in time is noted as such: the next run of the
        appliance looks whether it was carried out. Runs go on at the server and are followed again.
        """
        self._workers.stop(timeout_s)
        self._consumer.save_position()
        running = len(self._planner.running)
        waiting = len(self._planner.open) - running
        self._state.close()
        _log.info("Tasks: stopped; %d still run at the server, %d wait", running, waiting)

    # --- what may be read at once ---------------------------------------------------------------

    def executions(self, limit: int) -> tuple[Execution, ...]:
        """The newest, and all that run, newest first."""
        return self._views.executions(limit)

    def execution(self, number: int) -> Execution | None:
        """One of the newest 2000 executions."""
        return self._views.execution(number)

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:
        """What these messages led to (of the newest 20,000 that led to anything)."""
        return self._views.marks(seqs)

    def marked(self) -> list[int]:
        """The sequence numbers of all messages that ``marks`` knows something of, ascending."""
        return self._views.marked()

    def rules(self) -> tuple[RuleState, ...]:
        return self._consumer.rules()

    def timers(self) -> tuple[TimerState, ...]:
        """Configured timers, then the next hundred waits of requests."""
        # A retry that is due goes when the server is asked next: the waits know that time.
        until = {one.name: one.until_ns for one in self.waits()}
        waits = (
            msgspec.structs.replace(one, due_ns=until.get(one.name, one.due_ns))
            for one in self._views.timers()
        )
        return (*self._timing.states(), *waits)

    def qlik_state(self) -> QlikState:
        """The server's health, or the engine's own where that is worse."""
        running, waiting, failed, succeeded = self._views.counts(self._clock_ns())
        defects = self._own_health()
        if self._server is None:
            health = _worse(defects, Health("off", "not configured"))
            return QlikState(
                self._edition or "none",
                "",
                health,
                engine=defects,
                database=self._database_health(),
            )
        return QlikState(
            edition=self._edition,
            label=self._server.label,
            health=_worse(defects, self._state.circuit.health()),
            running=running,
            waiting=waiting,
            failed_24h=failed,
            succeeded_24h=succeeded,
            engine=defects,
            is_away=self._state.circuit.is_open,
            next_check_ns=self._state.circuit.next_check_ns,
            away_since_ns=self._state.circuit.opened_ns,
            cause=self._state.circuit.cause(),
            database=self._database_health(),
        )

    def waits(self) -> tuple[WaitState, ...]:
        """The next hundred requests that wait: why, and until when."""
        circuit = self._state.circuit
        return self._views.waits(circuit.next_check_ns if circuit.is_open else None)

    def failing(self) -> Failing:
        """The tasks whose last requests ended badly."""
        return self._views.failing(self._clock_ns(), self.acknowledgements.tasks)

    def failing_executions(self) -> dict[str, int]:
        """The executions that made tasks count as failing, by the ids of the tasks; all of them."""
        return self._views.failing_executions(self._clock_ns())

    def waiting_long(self) -> tuple[int, tuple[WaitState, ...]]:
        """How many starts wait longer than they should, and the oldest of them."""
        return self._views.waiting_long(self._clock_ns())

    def stale(self) -> Named:
        """The stale tasks, some by name."""
        return self._freshness.named()

    @property
    def freshness_since_ns(self) -> int:
        """From when on it is known what messages asked for."""
        return self._planner.book.freshness.since_ns

    def latencies(self) -> tuple[tuple[tuple[float, int], ...], float]:
        """How long messages took to fresh data, since the start: see ``Snapshot``."""
        return self._freshness.latencies()

    def _database_health(self) -> Health:
        trouble = self._state.trouble
        if trouble:
            return Health("bad", f"it can't be written, so no task is started: {trouble}")
        return Health("ok")

    def lost_threads(self) -> tuple[str, ...]:
        """Threads that have ended by a defect: without them tasks stand still until a restart."""
        return self._workers.lost()

    def _own_health(self) -> Health:
        lost = self._workers.lost()
        if lost:
            return Health("bad", f"the thread {lost[0]} has ended; restart the appliance")
        return self._state.internal_errors.health()

    def counters(self) -> dict[Counter, int]:
        """How often what happened, since the start."""
        return {
            **self._planner.counters,
            Counter.SIGHTINGS_FORGOTTEN: self._consumer.redeliveries.forgotten,
            Counter.FRESHNESS_MESSAGES_LEFT_OUT: self._planner.book.freshness.left_out,
            Counter.TASK_ROWS_UNREADABLE: len(self._store.left_out),
            Counter.START_KEYS_FORGOTTEN: self._store.keys_forgotten,
        }

    # --- what may wait for the disk or the server ----------------------------------------------

    def history(self, before_id: int, limit: int, task_id: str = "") -> tuple[Execution, ...]:
        """Executions with a smaller id, newest first, from the database."""
        with self._state.lock:
            records = self._store.records(before_id, limit, task_id)
        return tuple(record.execution for record in records)

    def freshness(self) -> list[TaskFreshness]:
        """How fresh each task is that messages asked for."""
        return self._freshness.all()

    def freshness_day(self, task_id: str) -> list[tuple[int, float]]:
        """The last 24 hours of a task: see ``Engine.freshness_day``."""
        return self._freshness.day(task_id)

    def kept_log(self, execution: Execution) -> Path | None:
        """The file that an execution's whole script log was kept in, if it is still there."""
        return self._kept_logs.path_of(execution.log_file)

    def explain(self, message: Message) -> Explanation:
        """Why a message started something or nothing; one without a number: what it would do."""
        found = self._explainer.explain(message, self._consumer.hearing(message))
        if not message.seq:
            return found
        return msgspec.structs.replace(found, led_to=self._views.led_to(message.seq))

    def overview(self, tasks: Sequence[Task]) -> list[KnownTask]:
        """What is known of each of these tasks. Raises ``UnavailableError``."""
        return overview(self._state, self._timing, tasks)

    def server_tasks(self) -> ServerTasks:
        """Every task of the server with what is known of it. Raises ``ApplianceError``."""
        self._need_server()
        events, tasks, problem = self._events.cached, self._tasks.cached(), ""
        if tasks and self._state.circuit.is_open and not self._tasks.is_fresh:
            problem = self._state.circuit.cause()
        else:
            try:
                tasks = self._tasks.get()
            except QlikError as error:
                if not tasks:
                    raise
                problem = str(error)
        if problem:
            problem = f"This list is an older one: {problem}"
        else:
            events, problem = self._events.get()
            if problem:
                problem = f"What the server starts by itself can't be read: {problem}"
            elif events.left_out:
                problem = f"The server has {events.left_out} more triggers, which are not shown."
        rules = self._consumer.triggers
        return server_tasks.answer(
            runs_of(self._state, tasks),
            self._what_starts.of(tasks, rules, self._timing.timed_starts(), events),
            rules,
            allows=lambda task: self.allows(task.id, task),
            problem=problem,
        )

    def hear_executions(self, hear: Callable[[Sequence[Execution]], None]) -> None:
        """Have something called with executions whenever they have changed, by any thread.

        It must return at once.
        """
        self._views.hearers.append(hear)

    @property
    def has_fresh_list(self) -> bool:
        """Whether ``tasks`` does not ask the server."""
        return self._tasks.is_fresh

    @property
    def is_server_away(self) -> bool:
        """Whether the server did not answer lately; it is asked again and again meanwhile."""
        return self._state.circuit.is_open

    @property
    def starts(self) -> DirectStarts:
        """What takes starts that are asked for directly. Raises ``UnavailableError``."""
        self._need_server()
        return self._direct_starts

    def tasks(self) -> Sequence[Task]:
        """The server's tasks (cached for a minute). Raises ``ApplianceError``."""
        self._need_server()
        return self._tasks.get()

    def listed(self, max_age_s: float) -> Sequence[Task]:
        """The server's tasks; those that it had last where it can't be asked now.

        Raises ``UnavailableError`` if no server is configured.
        """
        self._need_server()
        if not self._state.circuit.is_open:
            with contextlib.suppress(QlikError):
                return self._tasks.get(max_age_s)
        return self._tasks.cached()

    def cached_tasks(self) -> Sequence[Task]:
        """The server's tasks as they were read last; the server is not asked."""
        return self._tasks.cached()

    def apps(self) -> Sequence[Task]:
        """Apps that can be reloaded without a task (cached). Raises ``ApplianceError``."""
        self._need_server()
        return self._tasks.apps()

    def allows(self, task: str, details: Task | None) -> bool:
        """Whether ``[allow]`` has a task, of which this is known. The server is not asked."""
        return self._allow.allows(task, details, self._tasks.cached)

    def start_task(self, task: str, by: str) -> int:
        """Ask for a start; returns the id of the execution. Raises ``ApplianceError``."""
        self._need_server()
        found = task_id(task)
        if found is None:
            raise UsageError(f'"{task}" is not a task id. Nothing was started.')
        if (refusal := self._resolution.refusal(found)) is not None:
            raise UsageError(refusal.reason)
        with self._state.noted("The start") as planner:
            cause = Cause("operator", rule=by)
            answer = planner.ask(TaskSelector("id", found), Options(), cause, self._clock_ns())
        if isinstance(answer, Rejection):
            raise UnavailableError(answer.reason)
        return answer

    def request_starts(self, payload: bytes, by: str) -> tuple[int, ...]:
        """Ask for what a payload names; returns the ids of the executions that answer.

        Raises ``ApplianceError``; nothing is started then.
        """
        self._need_server()
        return self._direct_starts.ask(payload, by)

    def repeat(self, message: Message, by: str) -> int:
        """Do again what a message asked for; returns how many starts were asked for."""
        self._need_server()
        return self._consumer.repeat(message, by)

    def stop_execution(self, number: int, by: str) -> None:
        """Take back a request, or ask the server to end its run. Raises ``ApplianceError``."""
        self._need_server()
        with self._state.lock:
            record = self._planner.open.get(number)
            if record is None:
                raise UsageError(f"Execution {number} has ended already, or never was.")
            if self._planner.book.is_in(record, WAITING):
                with self._state.noted("This") as planner:
                    planner.cancel(record, by, self._clock_ns())
                return
            execution = record.execution
            if execution.state is ExecutionState.RETRYING:
                raise UnavailableError(
                    f"Execution {number} may run: its start call got no answer, and its run is "
                    "looked for. Try again when that is known."
                )
            if not execution.execution_id:
                raise UnavailableError(
                    f"Execution {number} is just being started; try again when it runs."
                )
        assert self._server is not None
        self._server.stop(execution.task_id, execution.execution_id)
        with self._state.change() as planner:
            planner.note(record, f"Its end was asked for by {by}", self._clock_ns())

    def change_timers(
        self, timers: Sequence[TimerConfig], stopped: Collection[str], gone: str = ""
    ) -> None:
        """Let these timers count, and forget the one that is gone. Raises as ``Timing`` does."""
        compiled = Timers(timers, service_name=self._service_name, stopped=stopped)
        try:
            self._timing.change_timers(compiled, gone)
        except sqlite3.Error as error:
            raise UnavailableError(f"The task database can't be read: {error}.") from None

    def pause_timer(self, name: str, paused: bool, by: str) -> None:
        """Pause a timer, or a request's wait, or let it go on. Raises ``UsageError``."""
        if not self._timing.pause(name, by, paused=paused):
            with self._state.noted("This") as planner:
                record = self._waiting(name)
                planner.pause(record, by, self._clock_ns(), paused=paused)

    def fire_timer(self, name: str, by: str) -> None:
        """Do now what a timer would do, or end a request's wait. Raises ``UsageError``."""
        if not self._timing.fire(name, by):
            with self._state.noted("This") as planner:
                record = self._waiting(name)
                if problem := planner.why_not_now(record):
                    raise UsageError(problem)
                planner.expedite(record, by, self._clock_ns())
            self._state.circuit.check_wanted.set()

    def check_server(self, by: str) -> None:
        """Ask the server now whether it answers. Raises ``ApplianceError``."""
        self._need_server()
        _log.info("The Qlik server is asked now whether it answers, for %s", by)
        self._state.circuit.check_wanted.set()

    def _waiting(self, name: str) -> Record:
        """The request whose wait has this name (``"Reload sales #12"``)."""
        number = name.rpartition("#")[2]
        record = self._planner.open.get(int(number)) if _is_number(number) else None
        if record is None:
            raise UsageError(f'There is no timer "{name}", and nothing of that name waits.')
        return record

    def _need_server(self) -> None:
        if self._server is None:
            raise UnavailableError("No Qlik server is configured: add a [qlik] table.")
        if self._state.stopping:
            raise UnavailableError("The appliance is stopping; nothing is started any more.")


def _worse(own: Health, server: Health) -> Health:
    """Our own defects are shown first, but not a small one in place of a server that is down."""
    if own.level == "bad" or (own.level == "warn" and server.level != "bad"):
        return own
    return server


def _is_number(text: str) -> bool:
    """Whether a name ends in the number of an execution; a client may send any text."""
    return text.isascii() and text.isdecimal() and len(text) < 20


def _boot_ns(clock_ns: Callable[[], int]) -> int:
    """When the machine was started, or later: where the clock stops in sleep, by that time.

    ``time.monotonic`` counts from the start of the machine on Linux, Windows and macOS.
    """
    return clock_ns() - time.monotonic_ns()
