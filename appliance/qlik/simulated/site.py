"""What happens inside the simulated Qlik Sense site: tasks, a scheduler, executions, results.

Time is a clock that is asked, never a thread: each look brings the site up to the present moment
(``advance``), so a test can use its own clock and does not wait. What is over is kept in a
bounded history, so a site may run for weeks.
Not for: HTTP and JSON (server.py, repository.py, cloud.py).
"""

from __future__ import annotations

import enum
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.model import TaskKind

ZERO_ID = "00000000-0000-0000-0000-000000000000"
_SECOND_NS = 1_000_000_000


STATUS_ENUM = (
    "NeverStarted",
    "Triggered",
    "Started",
    "Queued",
    "AbortInitiated",
    "Aborting",
    "Aborted",
    "FinishedSuccess",
    "FinishedFail",
    "Skipped",
    "Retry",
    "Error",
    "Reset",
    "DistributionQueue",
    "DistributionRunning",
)
"""Names of the server's status numbers (docs/qlik.md, status table)."""


TASK_TYPE_ENUM = ("Reload", "ExternalProgram", "UserSync", "Distribute", "Preload")
"""Names of the numbers of task kinds (docs/qlik.md)."""


class Status(enum.IntEnum):
    """The server's status numbers that the site uses."""

    TRIGGERED = 1
    STARTED = 2
    QUEUED = 3
    ABORT_INITIATED = 4
    ABORTED = 6
    SUCCESS = 7
    FAIL = 8
    SKIPPED = 9
    ERROR = 11
    RESET = 12
    DISTRIBUTION_QUEUE = 13
    DISTRIBUTION_RUNNING = 14


STATUS_NAMES = {status: STATUS_ENUM[status] for status in Status}


_QUEUED = (Status.QUEUED, Status.DISTRIBUTION_QUEUE)
_STARTED = (Status.STARTED, Status.DISTRIBUTION_RUNNING)


class Outcome(enum.Enum):
    """How one attempt of a simulated task ends."""

    SUCCESS = "success"
    FAIL = "fail"
    ERROR = "error"
    ABORT = "abort"
    SKIP = "skip"
    RESET = "reset"
    NEVER = "never"
    """It does not end by itself (until the task's time limit, a stop, or ``Site.finish``)."""
    LOST = "lost"
    """At its end the session is gone and there is no result."""


_ENDS = {
    Outcome.SUCCESS: Status.SUCCESS,
    Outcome.FAIL: Status.FAIL,
    Outcome.ERROR: Status.ERROR,
    Outcome.ABORT: Status.ABORTED,
    Outcome.SKIP: Status.SKIPPED,
    Outcome.RESET: Status.RESET,
}


@dataclass
class SimulatedTask:
    """A task of the simulated site and the way its runs go."""

    name: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    kind: TaskKind = TaskKind.RELOAD
    enabled: bool = True
    app_id: str = ""
    app_name: str = ""
    app_available: bool = True
    tags: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    duration_s: float | tuple[float, float] = 1.0
    """Seconds, or the bounds between which each run's duration is drawn."""
    outcomes: tuple[Outcome, ...] = (Outcome.SUCCESS,)
    """Of the first attempt, the second, ...; the last one goes for all further attempts."""
    fail_every: int = 0
    """Each n-th run fails, also where ``outcomes`` says success; 0: never."""
    every_s: float | None = None
    """Started by the site's own schedule this often, as if by the QMC; ``None``: never."""
    manually_triggered: bool = False
    partial: bool = False
    """Whether "Partial reload" is set."""
    max_retries: int = 0
    timeout_min: int = 1440
    error_text: str = "Error: The following error occurred: Table not found"
    error_kind: int = 0
    """Type of the detail with ``error_text``: 0 error, 1 warning, 2 information."""
    program: str = ""
    """Path of an external program task."""
    log: tuple[str, ...] | None = None
    """The script log's lines; ``None``: a believable one."""
    is_cloud_task: bool = False
    """Whether Qlik Cloud lists it as a task, too; with its id it can be started there anyway."""
    disabled_code: str = ""
    """Why a task of Qlik Cloud is disabled, such as ``CONSECUTIVE-FAILURES``."""
    migrated_from: str = ""
    """The id of the legacy reload task that it was in Qlik Cloud."""
    runs: int = 0
    next_every_ns: int | None = None


@dataclass
class SimulatedChain:
    """A trigger of the site: it starts a task once all of some tasks have ended so."""

    name: str
    task_id: str
    after: tuple[tuple[str, Status], ...]
    """The tasks that it waits for, and ``Status.SUCCESS`` or ``Status.FAIL``."""
    enabled: bool = True
    within_s: int = 360 * 60
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    met_ns: dict[str, int] = field(default_factory=dict)
    """When the tasks ended so since it started its own last, by their ids in lower case."""


@dataclass
class SimulatedUser:
    """A user of the simulated site."""

    directory: str
    user_id: str
    emails: tuple[str, ...] = ()
    """Values of the attribute with the e-mail address."""
    name: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Attempt:
    """One attempt of a run, which is one execution result."""

    result_id: str
    created_ns: int
    status: Status = Status.TRIGGERED
    started_ns: int | None = None
    stopped_ns: int | None = None
    details: list[tuple[int, int, str]] = field(default_factory=list)
    """(time in ns, type: 0 error, 1 warning, 2 information, text)."""
    file_reference: str = ZERO_ID

    def change(self, at_ns: int, status: Status) -> None:
        before = STATUS_NAMES[self.status]
        self.status = status
        self.details.append(
            (at_ns, 2, f"Changing task state from {before} to {STATUS_NAMES[status]}")
        )


@dataclass
class Run:
    """One execution: a session while it is not over, and a result for each attempt."""

    execution_id: str
    task: SimulatedTask
    created_ns: int
    number: int
    attempts: list[Attempt] = field(default_factory=list)
    due_ns: int | None = None
    """When its next change comes; ``None`` while it waits in the queue or never ends."""
    over: bool = False
    abort_reason: int = 0
    """0 undefined, 1 manual, 2 time limit."""
    forgotten: bool = False
    """Its results can't be asked for any more."""

    @property
    def attempt(self) -> Attempt:
        return self.attempts[-1]


class ManualClock:
    """A clock that moves only when it is told to. Nanoseconds since the epoch."""

    def __init__(self, now_ns: int = 1_790_000_000 * _SECOND_NS) -> None:
        self._now_ns = now_ns
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            return self._now_ns

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now_ns += int(seconds * _SECOND_NS)


class Site:
    """Tasks and their runs. Thread-safe: hold ``lock`` to look at several things at one moment."""

    def __init__(
        self,
        *,
        clock: Callable[[], int] = time.time_ns,
        concurrency: int = 4,
        keep_runs: int = 200,
        trigger_delay_s: float = 0.05,
        retry_delay_s: float = 1.0,
        abort_delay_s: float = 0.2,
        refuse_running: bool = True,
        seed: int = 1,
    ) -> None:
        """Make an empty site.

        Args:
            clock: nanoseconds since the epoch.
            concurrency: runs at one time; further ones are queued.
            keep_runs: how many finished runs are remembered.
            trigger_delay_s: seconds between a start and the beginning of the run.
            retry_delay_s: seconds between a failed attempt and the next.
            abort_delay_s: seconds between a stop and its effect.
            refuse_running: whether a task that runs is not started again (zero id).
            seed: of the durations that are drawn.
        """
        self.lock = threading.RLock()
        self.tasks: dict[str, SimulatedTask] = {}
        self.chains: list[SimulatedChain] = []
        self.app_duration_s = 1.0
        """How long a reload of an app takes for which the server makes a task."""
        self.apps: dict[str, str] = {}
        admin = SimulatedUser("LAB", "admin")
        self.users: dict[str, SimulatedUser] = {admin.id: admin}
        self.owners: dict[str, SimulatedUser] = {}
        """Of apps, by their ids in lower case."""
        """Names of the apps that have no task, by id (lower case)."""
        self.concurrency = concurrency
        self.refuse_running = refuse_running
        self.trigger_delay_s = trigger_delay_s
        self.retry_delay_s = retry_delay_s
        self.abort_delay_s = abort_delay_s
        self.results_after_s = 0.0
        """How long after a start its first result can be seen."""
        self.script_log_after_s = 0.0
        """How long after the end of a run its result names its script log."""
        self.sessions_after_s = 0.0
        """How long after a start its session can be seen."""
        self._clock = clock
        self._active: dict[str, Run] = {}
        self._finished: deque[Run] = deque(maxlen=keep_runs)
        self._late_logs: deque[tuple[int, Attempt]] = deque(maxlen=keep_runs)
        self._random = random.Random(seed)  # noqa: S311  # durations, not secrets

    def now(self) -> int:
        """The site's time, nanoseconds since the epoch."""
        return self._clock()

    def add_task(self, task: SimulatedTask) -> SimulatedTask:
        with self.lock:
            self.tasks[task.id.lower()] = task
        return task

    def add_chain(self, chain: SimulatedChain) -> SimulatedChain:
        with self.lock:
            self.chains.append(chain)
        return chain

    def add_app(self, name: str) -> str:
        """Add an app without a task; returns its id."""
        with self.lock:
            app_id = self.new_id()
            self.apps[app_id] = name
            return app_id

    def add_user(self, user: SimulatedUser, *apps: str) -> SimulatedUser:
        """Add a user, who owns these apps (ids)."""
        with self.lock:
            self.users[user.id] = user
            self.owners.update((app_id.lower(), user) for app_id in apps)
        return user

    def owner_of(self, app_id: str) -> SimulatedUser:
        """The owner of an app: the site's first user, unless another one was named."""
        return self.owners.get(app_id.lower()) or next(iter(self.users.values()))

    def start(self, task_id: str) -> str | None:
        """Start a task: an execution id, the zero id if it does not start, ``None`` if unknown."""
        with self.lock:
            now = self.advance()
            task = self.tasks.get(task_id.lower())
            if task is None:
                return None
            if not task.enabled or not task.app_available:
                return ZERO_ID
            if self.refuse_running and self.session_of(task_id) is not None:
                return ZERO_ID
            return self._begin(task, now).execution_id

    def stop(self, task_id: str) -> bool:
        """Abort what runs of a task; whether there was something to abort."""
        with self.lock:
            now = self.advance()
            found = False
            for run in self._active.values():
                if run.task.id.lower() == task_id.lower():
                    found = True
                    run.abort_reason = 1
                    run.attempt.change(now, Status.ABORT_INITIATED)
                    run.due_ns = now + int(self.abort_delay_s * _SECOND_NS)
            return found

    def finish(self, task_id: str, outcome: Outcome = Outcome.SUCCESS) -> None:
        """End the present attempt of a task's run at once."""
        with self.lock:
            now = self.advance()
            run = self.session_of(task_id)
            if run is None:
                raise LookupError(f"task {task_id} does not run")
            if run.attempt.started_ns is None:
                run.attempt.started_ns = now
            self._end_attempt(run, now, outcome)
            self.advance()

    def forget_sessions(self, *, results: str = "lost") -> None:
        """What a restart does to the runs that were under way: their sessions are gone.

        Args:
            results: what their results look like afterwards: ``"lost"`` (none), ``"stuck"``
                (still Started, for ever) or ``"reset"`` (Reset).
        """
        with self.lock:
            now = self.advance()
            for run in list(self._active.values()):
                if results == "reset":
                    run.attempt.change(now, Status.RESET)
                    run.attempt.stopped_ns = now
                run.forgotten = results == "lost"
                self._close(run)

    def sessions(self) -> list[Run]:
        """The runs that are not over, oldest first."""
        with self.lock:
            seen_before = self.advance() - int(self.sessions_after_s * _SECOND_NS)
            return [run for run in self._active.values() if run.created_ns <= seen_before]

    def session_of(self, task_id: str) -> Run | None:
        with self.lock:
            for run in self._active.values():
                if run.task.id.lower() == task_id.lower():
                    return run
            return None

    def runs(self) -> list[Run]:
        """Every run whose results can be asked for, oldest first."""
        with self.lock:
            now = self.advance()
            seen_before = now - int(self.results_after_s * _SECOND_NS)
            return [
                run
                for run in (*self._finished, *self._active.values())
                if not run.forgotten and run.created_ns <= seen_before
            ]

    def last_attempt(self, task: SimulatedTask) -> Attempt | None:
        with self.lock:
            for run in reversed(self.runs()):
                if run.task is task:
                    return run.attempt
            return None

    @staticmethod
    def new_id() -> str:
        return str(uuid.uuid4())

    def advance(self) -> int:
        """Bring the site to the present moment; returns that moment."""
        with self.lock:
            now = self._clock()
            while self._late_logs and self._late_logs[0][0] <= now:
                self._name_log(*self._late_logs.popleft())
            self._start_scheduled(now)
            while True:
                due = [run for run in self._active.values() if run.due_ns is not None]
                run = min(due, key=lambda run: run.due_ns or 0, default=None)
                if run is None or run.due_ns is None or run.due_ns > now:
                    return now
                self._step(run, run.due_ns)

    def _start_scheduled(self, now: int) -> None:
        for task in self.tasks.values():
            if task.every_s is None or not task.enabled:
                continue
            if task.next_every_ns is None:
                task.next_every_ns = now + int(task.every_s * _SECOND_NS)
            elif task.next_every_ns <= now:
                # Missed runs are not made up.
                task.next_every_ns = now + int(task.every_s * _SECOND_NS)
                if self.session_of(task.id) is None:
                    self._begin(task, now)

    def _begin(self, task: SimulatedTask, now: int) -> Run:
        task.runs += 1
        run = Run(self.new_id(), task, now, task.runs)
        self._active[run.execution_id] = run
        self._new_attempt(run, now)
        run.due_ns = now + int(self.trigger_delay_s * _SECOND_NS)
        return run

    def _new_attempt(self, run: Run, now: int) -> None:
        attempt = Attempt(self.new_id(), now)
        attempt.details.append((now, 2, "Changing task state to Triggered"))
        attempt.details.append(
            (now, 2, "Trying to start task. Sending task to slave-node qlik1.example.com")
        )
        run.attempts.append(attempt)

    def _step(self, run: Run, at: int) -> None:
        status = run.attempt.status
        if status is Status.TRIGGERED:
            if self._running() < self.concurrency:
                self._run_attempt(run, at)
            else:
                is_distribution = run.task.kind is TaskKind.DISTRIBUTE
                run.attempt.change(at, _QUEUED[is_distribution])
                run.due_ns = None
        elif status is Status.ABORT_INITIATED:
            self._end_attempt(run, at, Outcome.ABORT)
        elif status in _STARTED:
            outcome = self._outcome(run)
            if outcome is Outcome.NEVER:
                run.abort_reason = 2
                outcome = Outcome.ABORT
            self._end_attempt(run, at, outcome)
        else:
            # A failed attempt whose retry is due.
            self._new_attempt(run, at)
            run.due_ns = at + int(self.trigger_delay_s * _SECOND_NS)

    def _running(self) -> int:
        busy = (*_STARTED, Status.ABORT_INITIATED)
        return sum(run.attempt.status in busy for run in self._active.values())

    def _run_attempt(self, run: Run, at: int) -> None:
        run.attempt.change(at, _STARTED[run.task.kind is TaskKind.DISTRIBUTE])
        run.attempt.started_ns = at
        if self._outcome(run) is Outcome.NEVER:
            run.due_ns = at + run.task.timeout_min * 60 * _SECOND_NS
            return
        duration = run.task.duration_s
        seconds = self._random.uniform(*duration) if isinstance(duration, tuple) else duration
        run.due_ns = at + int(seconds * _SECOND_NS)

    def _outcome(self, run: Run) -> Outcome:
        if run.task.fail_every and run.number % run.task.fail_every == 0:
            return Outcome.FAIL
        outcomes = run.task.outcomes
        return outcomes[min(len(run.attempts), len(outcomes)) - 1]

    def _end_attempt(self, run: Run, at: int, outcome: Outcome) -> None:
        attempt = run.attempt
        if outcome is Outcome.LOST:
            run.forgotten = True
            self._close(run)
            self._start_queued(at)
            return
        attempt.stopped_ns = at
        failed = outcome in {Outcome.FAIL, Outcome.ERROR}
        if failed:
            attempt.details.append((at, run.task.error_kind, run.task.error_text))
        if run.task.kind is TaskKind.RELOAD:
            if self.script_log_after_s:
                self._late_logs.append((at + int(self.script_log_after_s * _SECOND_NS), attempt))
            else:
                self._name_log(at, attempt)
        attempt.change(at, _ENDS[outcome])
        if failed and len(run.attempts) <= run.task.max_retries:
            run.due_ns = at + int(self.retry_delay_s * _SECOND_NS)
        else:
            self._close(run)
            self._follow(run, at)
        self._start_queued(at)

    def _follow(self, ended: Run, at: int) -> None:
        """Start what waits for this end, if all else that it waits for has come in time."""
        status = Status.FAIL if ended.attempt.status is Status.ERROR else ended.attempt.status
        for chain in self.chains:
            wanted = {task_id.lower(): end for task_id, end in chain.after}
            if not chain.enabled or wanted.get(ended.task.id.lower()) is not status:
                continue
            chain.met_ns[ended.task.id.lower()] = at
            oldest_ns = at - chain.within_s * _SECOND_NS
            is_met = all(chain.met_ns.get(task_id, 0) >= oldest_ns for task_id in wanted)
            task = self.tasks.get(chain.task_id.lower())
            if is_met and task is not None and task.enabled and self.session_of(task.id) is None:
                chain.met_ns.clear()
                self._begin(task, at)

    def _name_log(self, at: int, attempt: Attempt) -> None:
        attempt.file_reference = self.new_id()
        attempt.details.append((at, 2, "Reference to scriptlog added"))

    def _close(self, run: Run) -> None:
        run.over = True
        run.due_ns = None
        self._active.pop(run.execution_id, None)
        self._finished.append(run)

    def _start_queued(self, at: int) -> None:
        for run in self._active.values():
            if self._running() >= self.concurrency:
                return
            if run.attempt.status in _QUEUED:
                self._run_attempt(run, at)
