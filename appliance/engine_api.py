"""What the terminal UI may read (cheap snapshots) and what it may ask for (commands).

Not for: how any of it comes about. ``ui`` depends on this module and on ``model`` alone, so it
can be tested with a hand-made ``Engine`` and an injected clock, and the engine never waits for a
terminal. The UI polls; nothing is pushed to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from appliance.errors import UnavailableError
from appliance.message_filter import MessageFilter
from appliance.model import Execution, ExecutionState, Message, Task

_WEEK_S = 7 * 86400
PAUSED = "Paused."
"""The reason of a request whose wait an operator paused."""
HELD = "Held "
"""What the reason of a request begins with that waits for the end of a hold."""


_MADE_UP = re.compile(r"terminal-[a-z]+-(.+)-[0-9a-f]{8}", re.DOTALL)
NOBODY = "somebody"
"""An operator without a user name: without a users file, every user of the machine is one."""
HOLD_KINDS = ("everything", "task", "trigger", "timer", "client")
"""What can be held."""


class Health(msgspec.Struct, frozen=True):
    """A part's condition: ``level`` is ``"ok"``, ``"warn"``, ``"bad"`` or ``"off"``."""

    level: str
    text: str = ""
    """One short clause, for example ``"403 for user INTERNAL\\sa_repository"``."""


class ListenerState(msgspec.Struct, frozen=True):
    name: str
    bind: str
    transport: str
    tls: bool
    health: Health
    connections: int = 0


class ClientState(msgspec.Struct, frozen=True):
    """A connected client, or a persistent session whose client is away."""

    client_id: str
    address: str
    protocol: str
    """``"3.1.1"`` or ``"5.0"``."""
    connected: bool
    since_ns: int
    username: str | None = None
    listener: str = ""
    subscriptions: tuple[tuple[str, int], ...] = ()
    messages_in: int = 0
    messages_out: int = 0
    queued: int = 0
    dropped: int = 0
    queued_bytes: int = 0
    """What the messages that wait or are unacknowledged count for in memory, in bytes."""
    expiry_s: int | None = 0
    """How long the session outlives its connection, in seconds; ``None``: it never expires."""


class BridgeSubscriptionState(msgspec.Struct, frozen=True):
    """One topic filter that a bridge subscribed to at its broker."""

    topic: str
    """As the broker was sent it, with ``$share/GROUP/`` if it is a shared one."""
    granted: int | None = None
    """The quality of service, ``None``: not answered yet, or refused."""
    problem: str = ""
    """Why nothing comes, for people; empty if nothing is known to be wrong."""
    received: int = 0
    """Messages since the filter was subscribed to. Granted is not delivered."""


class BridgeState(msgspec.Struct, frozen=True):
    """A bridge: the connection to another broker."""

    name: str
    address: str
    """``"host:port"`` of the other broker."""
    protocol: str
    """``"3.1.1"`` or ``"5.0"``."""
    health: Health
    """``ok`` while it is connected and nothing is known to be wrong; the text has the cause.

    Not connected: ``bad`` if it stays so until an operator does something, as with a wrong
    password; ``warn`` if it may come back by itself. ``problems`` decides what that means by time.
    """
    connected: bool = False
    since_ns: int | None = None
    """Since when it is connected, or not; from its start on if it had no connection yet."""
    next_attempt_ns: int | None = None
    """When it connects next, while it waits for that."""
    client_id: str = ""
    transport: str = "tcp"
    tls: bool = False
    messages_in: int = 0
    """Messages that came in since the start."""
    messages_out: int = 0
    """Messages that the other broker acknowledged since the start (at QoS 0: that were sent)."""
    repeats: int = 0
    """Messages that came in again and started nothing."""
    unacknowledged: int = 0
    """Messages that came in and are not in the journal yet, so not acknowledged."""
    lag: int = 0
    """Numbers of the journal that the way out has not looked at yet."""
    parked: int = 0
    """Messages that the other broker refused, so that they were left out."""
    gaps: int = 0
    """How often the other broker had lost the session, so that messages may be missing."""
    parked_ns: int | None = None
    """When a message was parked last; ``None`` once an operator has acknowledged it."""
    missed: int = 0
    """Numbers of the journal that retention deleted before they went out."""
    missed_ns: int | None = None
    """When that was found last; ``None`` once an operator has acknowledged it."""
    gap_from_ns: int | None = None
    """From when on messages may be missing in that gap, if it is known."""
    gap_ns: int | None = None
    """When the last gap was seen; ``None`` once an operator has acknowledged it."""
    attempts: int = 0
    """Attempts to connect that failed since the last connection that worked."""
    last_error: str = ""
    """Why the last connection ended or failed, also when the bridge is connected again."""
    last_error_ns: int | None = None
    subscriptions: tuple[BridgeSubscriptionState, ...] = ()
    publishes: tuple[str, ...] = ()
    """The topic filters of what goes out."""


class JournalState(msgspec.Struct, frozen=True):
    health: Health
    last_seq: int = 0
    first_seq: int = 0
    pending: int = 0
    """Accepted and not yet committed."""
    commits: int = 0
    commit_ms: float = 0.0
    """Median of the recent group commits, in milliseconds."""
    size_bytes: int = 0
    disk_free_bytes: int = 0


class UploadState(msgspec.Struct, frozen=True):
    """The uploads of a recorder's closed files."""

    health: Health
    waiting: int = 0
    """Closed files that are not uploaded yet."""
    waiting_bytes: int = 0
    uploaded: int = 0
    """Files since the uploads began (over restarts)."""
    last_ns: int | None = None
    """When the last upload ended; ``None``: there was none."""
    last_file: str = ""
    """Its name in the tenant, with its folder."""


class RecorderState(msgspec.Struct, frozen=True):
    topic: str
    path: str
    format: str
    health: Health
    recorded: int = 0
    """Messages written since the recording began (over restarts)."""
    lag: int = 0
    """Messages in the journal that this recorder has not looked at yet."""
    size_bytes: int = 0
    looked_at: int = 0
    """Number of the newest message that it has looked at; ``recorded`` counts up to there."""
    upload: UploadState | None = None
    """Of its closed files; ``None``: they are not uploaded."""
    name: str = ""
    """Its name in the configuration, unique."""
    target: str = ""
    """What it writes, for people: the path, or the database and its table; no secret."""
    mode: str = "append"
    files: int = 1
    """Closed and open ones; 0: a table."""
    is_counted: bool = True
    """Whether it is one file with one record a message, so that ``recorded`` is a place in it."""
    details: tuple[tuple[str, str], ...] = ()
    """What else is to be said of its target: name and value."""

    @property
    def shown(self) -> str:
        """What it writes, of any version."""
        return self.target or self.path


class QlikState(msgspec.Struct, frozen=True):
    edition: str
    label: str
    """Host name, or ``"simulated"``."""
    health: Health
    running: int = 0
    waiting: int = 0
    failed_24h: int = 0
    succeeded_24h: int = 0
    engine: Health | None = None
    """The task engine's own condition, apart from the server's: bad while a part of it fails."""
    is_away: bool = False
    """Whether the server does not answer, so that starts wait: the circuit is open."""
    next_check_ns: int | None = None
    """When the server is asked next whether it answers; ``None`` where no server is configured."""
    away_since_ns: int | None = None
    """Since when the server does not answer."""
    cause: str = ""
    """The sentence that says why the last calls or the last health check failed, whole."""
    database: Health | None = None
    """Bad while the task database can't be written: no task is started then."""


class WaitState(msgspec.Struct, frozen=True):
    """A request that waits for its start: why, and until when.

    ``Engine.fire_timer(name)`` ends the wait now, ``pause_timer(name)`` holds it, and
    ``stop_execution(execution)`` takes the request back.
    """

    name: str
    """Task and number, for example ``"Reload sales #12"``."""
    execution: int
    kind: str
    """``"server"`` (the server does not answer), ``"retry"`` (a call failed), ``"look"`` (the
    answer to a call was lost, and it is looked for its run), ``"run"`` (the present run has to
    end), ``"turn"`` (other calls or runs come first), ``"debounce"``, ``"cooldown"``,
    ``"paused"``, ``"hold"``, and in ``Snapshot.waiting_long`` also ``"call"`` (a start call has no
    answer)."""
    reason: str
    """A sentence."""
    until_ns: int | None
    """When it is tried next; ``None``: when the server, an operator or another run lets it."""
    since_ns: int
    """When it was asked for."""
    task_id: str = ""


class FailingTask(msgspec.Struct, frozen=True):
    """A task whose last request ended badly."""

    task_id: str
    name: str
    """Its name, or its id where the name is not known."""
    state: ExecutionState
    reason: str
    """The beginning of the reason."""
    execution: int
    """Our id of the execution."""
    ended_ns: int


class TaskFreshness(msgspec.Struct, frozen=True, omit_defaults=True):
    """How fresh the data of one task is (docs/freshness.md).

    The figures are of the present day and the six before it (UTC), times of messages that a run
    has covered since: from the message to the end of that run.
    """

    task_id: str
    """Empty while it is not known which tasks a message means: the server was not asked yet."""
    name: str
    app: str = ""
    """The name of its app, if that is known."""
    stale_since_ns: int | None = None
    """When the oldest message came that no run has covered; ``None``: the data is fresh."""
    oldest_seq: int = 0
    """The number of that message."""
    waiting: int = 0
    """How many messages no run has covered."""
    fresh_within_s: float | None = None
    """The shortest ``fresh_within`` of the rules that asked for it."""
    late_ns: int | None = None
    """When that is, or was, over for a message that waits."""
    is_late: bool = False
    kind: str = ""
    """Why it is stale, in a word: that of a wait (``WaitState.kind``), the state of a run or of the
    last outcome, ``"unknown"`` or ``"none"``."""
    why: str = ""
    """Why it is stale, a sentence."""
    execution: int = 0
    """The execution that says more, 0 if there is none."""
    fresh_ns: int | None = None
    """When the data of its last successful run was there."""
    messages: int = 0
    runs: int = 0
    """Runs that covered messages."""
    merged: int = 0
    """Messages whose request was merged into one that waited: runs that were saved."""
    p50_s: float | None = None
    p95_s: float | None = None
    worst_s: float | None = None
    usual_s: float | None = None
    """The usual duration of its runs."""

    def by_schedule(self, every_s: float) -> ScheduleFigures:
        """What a schedule would have given that starts the task every so many seconds.

        A message comes at any moment between two starts, so it waits half an interval in the
        middle, a whole one at worst, and then for the run.
        """
        run_s = self.usual_s or 0.0
        return ScheduleFigures(
            every_s / 2 + run_s, 0.95 * every_s + run_s, every_s + run_s, round(_WEEK_S / every_s)
        )


class ScheduleFigures(msgspec.Struct, frozen=True):
    """From a message to fresh data by a schedule, in seconds, and its runs in seven days."""

    p50_s: float
    p95_s: float
    worst_s: float
    runs: int


class Acknowledgement(msgspec.Struct, frozen=True):
    """An operator knows a problem: it is left out until it happens again.

    ``kind``, ``name`` and ``occurrence`` are those of the problem (``problems.Problem``).
    """

    kind: str
    name: str
    occurrence: str
    by: str
    """Who."""
    at_ns: int
    note: str = ""
    text: str = ""
    """What the problem said then."""
    title: str = ""
    """Its name for people."""


class CounterBite(msgspec.Struct, frozen=True):
    """A bound that bit, or something that was lost, as a counter tells it (``counters.LOSSES``)."""

    name: str
    """The counter's metric."""
    count: int
    """How often, in this occurrence: until it had not happened for ten minutes."""
    since_ns: int
    last_ns: int
    occurrence: str
    """Another text for each occurrence, also of other runs of the appliance."""


class Setup(msgspec.Struct, frozen=True):
    """What the first run's page says about the configuration."""

    users_file: str = ""
    """Empty if there is none."""
    users: int = 0
    qlik_edition: str = ""
    """Empty without a Qlik server."""
    qlik_url: str = ""
    start_topic: str = ""
    """The topic filter of the first trigger, empty without triggers."""
    recorded_topic: str = ""
    """The topic filter of the first recorder, empty without recorders."""


class TimerState(msgspec.Struct, frozen=True):
    """Something that will happen by itself at a known time."""

    name: str
    kind: str
    """``"schedule"``, ``"run limit"``, ``"silence"``, ``"debounce"``, ``"cooldown"``,
    ``"retry"``, ``"hold"``."""
    due_ns: int | None
    paused: bool = False
    detail: str = ""
    silent_since_ns: int | None = None
    """Of a silence watch whose alarm is raised: when the last message came; else ``None``."""

    @property
    def is_alarm(self) -> bool:
        """Whether it calls for attention: its alarm is raised, and the watch is not paused."""
        return self.silent_since_ns is not None and not self.paused


class HoldState(msgspec.Struct, frozen=True):
    """Something that is held, for a maintenance window for example."""

    kind: str
    """``"everything"``, ``"task"``, ``"trigger"``, ``"timer"``, ``"client"``."""
    name: str
    """The task's id, the name of the trigger or timer, the client id; empty for everything."""
    until_ns: int | None
    """When it ends by itself; ``None``: when somebody releases it."""
    reason: str
    by: str
    """Who holds it."""
    since_ns: int
    drop: bool = False
    """Whether starts that are asked for meanwhile are dropped; they wait else."""
    title: str = ""
    """A task's name."""
    waiting: int = 0
    """Starts that wait for its end."""

    @property
    def shown(self) -> str:
        """What is held, in words: ``everything``, ``task Reload Sales``."""
        return f"{self.kind} {self.title or self.name}".rstrip()

    @property
    def who(self) -> str:
        """Who holds it, in short."""
        return who(self.by)


class Holds(msgspec.Struct, frozen=True):
    """What is held, and what time the appliance's clock shows."""

    taken_ns: int
    holds: tuple[HoldState, ...]


class RuleState(msgspec.Struct, frozen=True):
    """A trigger and how it fared."""

    name: str
    topic: str
    target: str
    """What it starts, in words: ``"the task that the payload names"``, ``"task Reload Sales"``."""
    matched: int = 0
    started: int = 0
    rejected: int = 0
    last_ns: int | None = None


class LogLine(msgspec.Struct, frozen=True):
    number: int
    at_ns: int
    level: int
    """A level of the logging module: 10, 20, 30, 40, 50."""
    source: str
    text: str


class Mark(msgspec.Struct, frozen=True):
    """What a message led to, shown beside it."""

    state: ExecutionState
    label: str
    """A few characters: elapsed time, ``"403"``, ``"not a task id"``; never a secret."""
    execution: int = 0
    """Our id of the (first) execution, 0 if nothing was started."""
    count: int = 1
    """How many executions the message asked for."""


class TopicState(msgspec.Struct, frozen=True, gc=False):
    """One topic that messages came on, for the tree of topics."""

    topic: str
    count: int
    """Messages since the start of the appliance (or since the topic was first counted)."""
    rate: float
    """Messages a second, lately."""
    last_ns: int
    last_seq: int
    retained: bool = False
    """Whether the broker holds a retained message on it."""
    bytes: int = 0
    """Of payload, topic and properties of ``count`` messages."""
    byte_rate: float = 0.0
    """Such bytes a second, lately."""
    size: int = 0
    """Of the last payload in bytes; 0 where it is not known."""


class Starter(msgspec.Struct, frozen=True):
    """Something that starts a task by itself."""

    kind: str
    """``"rule"`` and ``"timer"``: of the appliance's configuration; ``"outcome"``: a rule on the
    outcome of another task; ``"schedule"`` and ``"chain"``: the server's own triggers, by time and
    by the end of other tasks."""
    name: str
    detail: str = ""
    """What it waits for, in words: a topic filter, ``"every day"``."""
    enabled: bool = True
    next_ns: int | None = None
    """When it starts the task next, if it is one that goes by time."""
    after: tuple[tuple[str, str], ...] = ()
    """The tasks that it waits for: id, and ``"succeeded"``, ``"failed"`` or ``""`` for any end."""


class ServerTask(msgspec.Struct, frozen=True):
    """One task of the Qlik server with what is known of it."""

    task: Task
    state: ExecutionState | None = None
    """Of its newest execution, whoever started it; ``None``: it is not known to have run."""
    since_ns: int | None = None
    """Since when it is in that state."""
    execution: int = 0
    """Our id of that execution; 0: only the server tells of the run."""
    reason: str = ""
    """The beginning of the reason of a bad outcome."""
    usual_s: float | None = None
    """How long its runs usually take."""
    next_ns: int | None = None
    """When it is started next, by a timer or by the server's own triggers, as far as is known."""
    starters: tuple[Starter, ...] = ()
    """What starts it. Rules that start whatever a message names are not among them."""
    is_allowed: bool = True
    """Whether ``[allow]`` has it."""


class ServerTasks(msgspec.Struct, frozen=True):
    """The tasks of the Qlik server, in its order."""

    tasks: tuple[ServerTask, ...]
    total: int
    """How many there are; over the channel of an attached terminal they come in several parts."""
    problem: str = ""
    """Why the server's own triggers are not among the starters, as a sentence."""
    any_task: tuple[str, ...] = ()
    """The rules that start whatever task a message names."""


class Snapshot(msgspec.Struct, frozen=True):
    """The whole state at one moment. Cheap to make (no disk, no network), safe to keep."""

    taken_ns: int
    name: str
    version: str
    started_ns: int
    listeners: tuple[ListenerState, ...]
    clients_connected: int
    journal: JournalState
    qlik: QlikState
    recorders: tuple[RecorderState, ...]
    rules: tuple[RuleState, ...]
    timers: tuple[TimerState, ...]
    executions: tuple[Execution, ...]
    """Running and recent ones, newest request first, bounded."""
    messages_in: int = 0
    """Messages accepted since the start."""
    messages_out: int = 0
    """Messages delivered to outside subscribers since the start."""
    bytes_in: int = 0
    http: tuple[ListenerState, ...] = ()
    """The HTTP ports: ``[http]`` and ``[metrics]``."""
    rate_in: float = 0.0
    """Messages a second, over the last second."""
    rate_out: float = 0.0
    rate_history: tuple[float, ...] = ()
    """``rate_in`` for the last 60 seconds, oldest first."""
    counters: tuple[tuple[str, int], ...] = ()
    """Bounds that were reached and refusals: (``counters.Counter.metric``, how often), sorted.

    An engine of another version may have names that this one does not know.
    """
    activity: tuple[tuple[str, int], ...] = ()
    """The same for ordinary work (``counters.ACTIVITY``)."""
    run_until_ns: int | None = None
    stopping: bool = False
    starting: bool = False
    """The engine is not there yet; everything else here is empty."""
    config_path: str = ""
    data_dir: str = ""
    first_run: bool = False
    """No client has ever published: show what to do next."""
    link: Health | None = None
    """How a terminal elsewhere reaches the appliance; ``None`` where both are one process."""
    user: str = ""
    """The signed-in user of an attached terminal."""
    role: str = ""
    """What that user may do: ``"operator"`` or ``"viewer"``."""
    loop_lag_ms: float = 0.0
    """How late the engine's loop was, 99 of 100 times at most, over the last minute."""
    topics_known: int = 0
    """Topics that are counted now, ``Engine.topics`` gives the busiest of them."""
    topics_forgotten: int = 0
    """How many topics that were silent longest were forgotten, because there were too many."""
    memory_bytes: int = 0
    """Memory of the engine's process, 0 if it is not known."""
    memory: Health | None = None
    """Whether it is within ``limits.max_memory``, and what was given up if not."""
    disk: Health | None = None
    """Whether there is as much free space as ``limits.min_free_disk`` asks for, and what gave way
    if not."""
    failing: tuple[FailingTask, ...] = ()
    """The newest of the tasks whose last request ended badly, the newest first."""
    failing_count: int = 0
    """How many there are; ``failing`` is bounded."""
    waiting_long: tuple[WaitState, ...] = ()
    """The oldest of the starts that wait longer than they should, the oldest first."""
    waiting_long_count: int = 0
    """How many there are; ``waiting_long`` is bounded."""
    users: int = 0
    """How many users the users file has; with none, whoever reaches the broker from its machine is
    an operator."""
    setup: Setup | None = None
    """Given at the first run."""
    data: Health | None = None
    """Bad while a loss that a start found in the data directory waits for an operator."""
    stale: tuple[TaskFreshness, ...] = ()
    """Some stale tasks: those that are late, the longest late first, then by how long they are
    stale; without the figures. ``Engine.freshness`` has all tasks."""
    stale_count: int = 0
    """How many tasks are stale; ``stale`` is bounded."""
    late_count: int = 0
    """How many of these are late."""
    freshness_since_ns: int | None = None
    """From when on it is known what messages asked for: the task database was begun then."""
    latency_buckets: tuple[tuple[float, int], ...] = ()
    """Messages that a run covered since the start: upper bound in seconds, and how many took no
    longer. The last one has no bound (``inf``)."""
    latency_sum_s: float = 0.0
    """The time from these messages to fresh data, added up."""
    waits: tuple[WaitState, ...] = ()
    """Requests that wait for their start, those with the nearest time first, a hundred at most."""
    bridges: tuple[BridgeState, ...] = ()
    holds: tuple[HoldState, ...] = ()
    """What is held, in the order in which it was."""
    acknowledged: tuple[Acknowledgement, ...] = ()
    """The problems that operators know, the newest acknowledgement first."""
    failing_acknowledged: int = 0
    """How many of the failing tasks operators know; in ``failing`` these stand last."""
    bites: tuple[CounterBite, ...] = ()
    """Counters that tell of a loss in the last 24 hours, the newest first."""


class ExplainedCheck(msgspec.Struct, frozen=True):
    """One thing that decides whether, and when, a message starts something."""

    field: str
    """``"topic"``, ``"when"``, ``"redelivery"``, ``"task"``, ``"[allow]"``, ``"debounce"``, ..."""
    ok: bool
    """Whether it lets the start go, now or when its wait is over."""
    wanted: str = ""
    found: str = ""
    reason: str = ""
    """A sentence: why it stands in the way, or what is waited for; empty if it is neither."""
    waits: bool = False
    until_ns: int | None = None
    """When the wait is over, if that is known."""


class ExplainedStart(msgspec.Struct, frozen=True):
    """What becomes of one start that a rule asks for, if nothing else happens meanwhile."""

    what: str
    """The task in words: its name, or what the rule asks for."""
    effect: str
    """``"start"``, ``"wait"`` (for something whose end is not known, or only guessed), ``"merge"``
    (a request that waits already answers it), ``"nothing"``."""
    task_id: str = ""
    at_ns: int | None = None
    """When the task starts, as far as that can be foreseen."""
    reason: str = ""
    """A sentence: why nothing starts, or what is waited for."""
    execution: int = 0
    """Our id of the request that it is merged into; 0: none, or one of the same message."""
    checks: tuple[ExplainedCheck, ...] = ()
    is_guess: bool = False
    """Whether ``at_ns`` depends on something whose end is only guessed."""


class ExplainedRule(msgspec.Struct, frozen=True):
    """What one rule says of a message."""

    name: str
    topic: str
    target: str
    """What it starts, in words."""
    checks: tuple[ExplainedCheck, ...]
    """What it looks at in the message, in order; the last one may stand in the way."""
    starts: tuple[ExplainedStart, ...] = ()
    """Empty also where something stands in the way before the rule is carried out."""


class Explanation(msgspec.Struct, frozen=True):
    """Why a message starts something or nothing."""

    topic: str
    taken_ns: int = 0
    """When it was made: times in it count from there."""
    seq: int = 0
    """Of a message of the journal: the starts are those if it came again now. 0: of one that does
    not exist."""
    led_to: str = ""
    """What a message of the journal led to, a sentence."""
    checks: tuple[ExplainedCheck, ...] = ()
    """What is looked at before any rule has a say."""
    rules: tuple[ExplainedRule, ...] = ()
    """Those whose filter matches."""
    others: tuple[ExplainedRule, ...] = ()
    """The first of those whose filter does not match."""
    others_count: int = 0
    """How many there are; ``others`` is bounded, and so are the starts."""
    starts_left_out: int = 0
    unforeseen: int = 0
    """Requests that wait and may start one of these tasks before, which is not foreseen: their
    tasks are not found yet, or they are not merged with others."""
    reasons: tuple[str, ...] = ()
    """In short, a sentence each: what each rule says, or what stands in the way before them."""
    is_whole: bool = True
    """Whether tasks and waits were looked at; ``False``: the rules alone."""

    @property
    def starts(self) -> tuple[ExplainedStart, ...]:
        """All starts of all rules."""
        return tuple(start for rule in self.rules for start in rule.starts)


def who(by: str) -> str:
    """An operator in short: the user's name, or who the terminal's is where nobody signed in.

    ``by`` is what the log and the journal name, for example
    ``"ann (terminal terminal-1f0c at 10.0.4.2:50122)"``. Without a user's name, the client id that
    a command makes up has the name of the machine's user.
    """
    name, _, terminal = by.partition(" (terminal ")
    if name != NOBODY or not terminal:
        return name
    client_id = terminal.rpartition(" at ")[0] or by
    made_up = _MADE_UP.fullmatch(client_id)
    return made_up[1] if made_up else client_id


def wait_name(execution: Execution) -> str:
    """The name by which ``fire_timer`` and ``pause_timer`` know the wait of a request."""
    return f"{execution.task_name or execution.task_id} #{execution.id}"


def _lacks(ability: str, *_arguments: object) -> UnavailableError:
    """The refusal of an engine that has no such ability; it takes the arguments as they came."""
    return UnavailableError(f"This appliance can't {ability} from the terminal.")


class Found(msgspec.Struct, frozen=True):
    """One step of a search."""

    messages: tuple[Message, ...]
    """Whole ones, oldest first."""
    before_seq: int
    """Where the next step begins; 0: the journal has nothing older."""
    reached_ns: int = 0
    """About when the messages came that the step ended at; 0 if it is not known."""
    own_left_out: int = 0
    """Messages left out for ``MessageFilter.without_own`` alone."""


class FoundNumber(msgspec.Struct, frozen=True):
    """A number that messages of a topic have."""

    path: str
    """As ``payload_numbers`` writes it; ``$`` is the payload itself."""
    value: float
    """That of the newest message which has it."""


class ValueBuckets(msgspec.Struct, frozen=True):
    """The numbers at one path, summed up in stretches of time of the same length.

    All tuples have an entry for each stretch that has a number, in the order of time.
    """

    path: str
    stretches: tuple[int, ...] = ()
    """The time of a message in ns, divided by the length of a stretch and rounded down."""
    counts: tuple[int, ...] = ()
    sums: tuple[float, ...] = ()
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()


class Values(msgspec.Struct, frozen=True):
    """One step of reading the numbers of a topic back in the journal."""

    buckets: tuple[ValueBuckets, ...]
    """One for each path that was asked for."""
    before_seq: int
    """Where the next step begins; 0: everything that was asked for has been read."""
    reached_ns: int = 0
    """About when the messages came that the step ended at; 0 if it is not known."""
    messages: int = 0
    """Messages of the topic in this step."""
    without_number: int = 0
    """Those that have no number at all."""
    found: tuple[FoundNumber, ...] = ()
    """The numbers of the newest messages of the step, each path once."""


MOST_PATHS = 8
"""Paths of one ``AskedValues``."""
MOST_STRETCHES = 400
"""Stretches of time of one ``AskedValues``, from its beginning on."""


class AskedValues(msgspec.Struct, frozen=True):
    """Which numbers are read."""

    topic: str
    """One topic, without wildcards."""
    width_ns: int
    """Length of a stretch of time."""
    since_ns: int
    """What was received before is left out, and so is what is ``MOST_STRETCHES`` later."""
    paths: tuple[str, ...] = ()
    """Without any, a step ends at the first messages, and its ``found`` says what there is."""
    after_seq: int = 0
    """The message before the last one to read; 0 for all."""


class Engine(Protocol):
    """What the UI is given. Every method is safe to call from any thread.

    ``is_remote``: it runs elsewhere, and goes on when the UI ends.

    Methods in the first group return at once. Those in the second may read the disk or wait for
    the engine's loop: call them from a worker thread.
    """

    is_remote: bool = False

    def running(self) -> Engine:
        """Whom to ask from now on: itself, unless it stands in for one that starts."""
        return self

    def snapshot(self) -> Snapshot: ...

    def live(self, after_seq: int, limit: int) -> Sequence[Message]:
        """The newest messages with ``seq > after_seq``, at most ``limit``, oldest first.

        Payloads beyond 4096 bytes are cut to that length here (``full_size`` says how long they
        were; ``message`` has the whole).
        """

    def full_size(self, seq: int) -> int | None:
        """Payload length in bytes of a message whose payload ``live`` cut, else ``None``."""

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:
        """What each of these messages led to; messages that led to nothing are left out."""

    def clients(self) -> tuple[ClientState, ...]: ...

    def log(self, after_number: int, limit: int) -> Sequence[LogLine]: ...

    def execution(self, execution: int) -> Execution | None: ...

    # --- may wait: from a worker thread only -------------------------------------------------

    def message(self, seq: int) -> Message | None:
        """The whole message from the journal; ``None`` if retention has removed it."""

    def tasks(self) -> Sequence[Task]:
        """The server's task list (cached). Raises ``ApplianceError`` if it can't be had."""

    def start_task(self, task_id: str, by: str) -> int:
        """Ask for a start; returns our execution id. Raises ``ApplianceError`` if not allowed."""

    def repeat(self, seq: int, by: str) -> int:
        """Do again what this message caused; returns how many starts were asked for."""

    def stop(self, by: str = "operator") -> None:
        """Begin the ordered stop of the whole appliance."""

    # --- further abilities: an engine that lacks one inherits the refusal --------------------
    # The first returns at once; the others may wait, like the group above. ``by`` says for the
    # log who asked, for example ``"terminal"``. All raise ``ApplianceError`` where they refuse.

    def topics(self, limit: int) -> Sequence[TopicState]:
        """The topics that messages came on, the busiest first, at most ``limit``."""
        raise _lacks("list topics", limit)

    def last_values(self, topics: Sequence[str]) -> dict[str, Message]:
        """The last message on each of these topics, cut as by ``live``; some may be missing."""
        raise _lacks("read the last values of topics", topics)

    def server_tasks(self) -> ServerTasks:
        """Every task of the server with its last outcome, what starts it, and when."""
        raise _lacks("list the tasks of the server")

    def history(self, before_seq: int, limit: int) -> Sequence[Message]:
        """Whole messages from the journal with ``seq < before_seq``: the newest, oldest first."""
        raise _lacks("read back in the journal", before_seq, limit)

    def search(self, asked: MessageFilter, before_seq: int, limit: int) -> Found:
        """Search the journal from ``before_seq`` back, for a part of a second.

        The step ends sooner when ``limit`` messages are found; somewhat more may come.
        """
        raise _lacks("search the journal", asked, before_seq, limit)

    def values(self, asked: AskedValues, before_seq: int) -> Values:
        """Read the numbers of a topic back from ``before_seq``, for a part of a second."""
        raise _lacks("read values", asked, before_seq)

    def seq_at(self, time_ns: int) -> int:
        """Sequence number of the first message received at or after a time."""
        raise _lacks("look up a time in the journal", time_ns)

    def retained(self, topic: str) -> Message | None:
        """The message that the broker holds for new subscribers of a topic."""
        raise _lacks("read retained messages", topic)

    def executions(self, before_id: int, limit: int, task_id: str = "") -> Sequence[Execution]:
        """Executions with ``id < before_id``, newest first; of one task if ``task_id`` is set."""
        raise _lacks("list old executions", before_id, limit, task_id)

    def find_executions(self, numbers: Sequence[int]) -> Sequence[Execution]:
        """These executions, also old ones; those that are not known any more are left out."""
        raise _lacks("look up executions", numbers)

    def request_starts(self, payload: str, by: str) -> Sequence[int]:
        """Ask for what a payload names, as a message would; all of it or nothing.

        Returns the ids of the executions that answer: new ones, or those that wait already.
        """
        raise _lacks("start tasks by name", payload, by)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, by: str) -> int:
        """Publish as the appliance itself; returns the sequence number of the message."""
        raise _lacks("publish", topic, payload, qos, retain, by)

    def stop_execution(self, execution: int, by: str) -> None:
        """Ask for the end of a run, or take back a request that has not started."""
        raise _lacks("stop a run", execution, by)

    def disconnect(self, client_id: str, by: str) -> None:
        """Close a client's connection (MQTT 5: reason 0x98, administrative action)."""
        raise _lacks("disconnect a client", client_id, by)

    def end_session(self, client_id: str, by: str) -> int:
        """End a client's session with its subscriptions, and its connection if there is one.

        Returns how many messages waited in it; they are dropped.
        """
        raise _lacks("end a session", client_id, by)

    def pause_timer(self, name: str, paused: bool, by: str) -> None:
        """Pause a timer or let it go on."""
        raise _lacks("pause a timer", name, paused, by)

    def fire_timer(self, name: str, by: str) -> None:
        """Do now what a timer would do at its time, or end the wait of a request."""
        raise _lacks("fire a timer", name, by)

    def freshness(self) -> Sequence[TaskFreshness]:
        """How fresh each task is that messages asked for: late ones first, then stale ones."""
        raise _lacks("tell how fresh tasks are")

    def freshness_day(self, task_id: str) -> Sequence[tuple[int, float]]:
        """The last 24 hours of a task: of each quarter of an hour, what took longest.

        Each has the time at which the data became fresh (nanoseconds since 1970), and how long that
        was after the message, in seconds.
        """
        raise _lacks("tell how fresh a task was", task_id)

    def connect_bridge(self, name: str, by: str) -> None:
        """Let a bridge that waits for its next attempt connect now."""
        raise _lacks("connect a bridge", name, by)

    def check_server(self, by: str) -> None:
        """Ask the Qlik server now whether it answers: what waits for it goes on if it does."""
        raise _lacks("ask the Qlik server", by)

    def explain(self, seq: int) -> Explanation:
        """Why a message of the journal started something or nothing."""
        raise _lacks("explain what a message led to", seq)

    def explain_message(
        self, topic: str, payload: bytes, retain: bool, client_id: str
    ) -> Explanation:
        """What a message would start if it came now; nothing is published or started."""
        raise _lacks("explain what a message would start", topic, payload, retain, client_id)

    def holds(self) -> Holds:
        """What is held, for a command, which has no snapshot."""
        raise _lacks("list what is held")

    def hold(  # noqa: PLR0917 - what an operator says, in one
        self, kind: str, name: str, until_ns: int | None, reason: str, drop: bool, by: str
    ) -> HoldState:
        """Hold something (``HoldState.kind``), or change the hold that it has; returns the hold.

        A task has its id or its name as ``name``. Starts that are asked for meanwhile wait, or with
        ``drop`` are dropped; a client is disconnected and can't connect. ``until_ns``: when the
        hold ends by itself, ``None``: never.
        """
        raise _lacks("hold", kind, name, until_ns, reason, drop, by)

    def release(self, kind: str, name: str, by: str) -> HoldState:
        """End a hold: what waits goes on. Returns the hold as it was."""
        raise _lacks("release a hold", kind, name, by)

    def clear_retained(self, topic: str, by: str) -> None:
        """Remove the retained message of a topic."""
        raise _lacks("clear a retained message", topic, by)

    def acknowledge(self, by: str) -> Sequence[str]:
        """An operator knows what a start or a bridge found lost; returns that, a sentence each."""
        raise _lacks("acknowledge losses", by)

    def acknowledge_problem(
        self, kind: str, name: str, occurrence: str, note: str, by: str
    ) -> Acknowledgement:
        """An operator knows a problem: it is left out until it happens again.

        ``occurrence`` is what the operator saw; it is refused if it has happened again since.
        """
        raise _lacks("acknowledge a problem", kind, name, occurrence, note, by)

    def unacknowledge_problem(self, kind: str, name: str, by: str) -> None:
        """Take an acknowledgement back: the problem is shown again."""
        raise _lacks("take back an acknowledgement", kind, name, by)
