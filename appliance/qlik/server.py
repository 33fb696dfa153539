"""The appliance's interface to a Qlik server of any edition: one protocol, one error type.

Not for: HTTP (client_managed.py, cloud.py), retries, queues or polling loops (appliance.tasks).
Implementations block, so they are called from worker threads only, and they are thread-safe.
They keep no state about executions.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from appliance.errors import EXIT_CONFIG, EXIT_NO_PERMISSION, EXIT_UNAVAILABLE, ApplianceError
from appliance.model import ExecutionState, ReloadOptions, Step, Task

NO_OPTIONS = ReloadOptions()


class RetryPolicy(enum.Enum):
    """Whether a failed call may be made again (docs/qlik.md, "Retrying a start")."""

    SAFE = "safe"
    """The server did not act on the request: refused, no address, no TLS, 429. Repeat freely."""
    LOOK_FIRST = "look first"
    """The server may have acted: read timeout, dropped connection, 502, 503, 504. Before a start
    is repeated, the server's executions are read."""
    NEVER = "never"
    """Repeating fails until a person changes something: 400, 401, 403, 404, login page."""


class QlikError(ApplianceError):
    """A call to the server failed.

    ``str()`` is for the operator: the problem, the fix, and last the request (``where``: its method
    and address), because a line of a screen may end before it. ``label`` is a few characters for a
    table cell (``"403"``, ``"no TLS"``, ``"timeout"``, ``"login page"``). ``retry_after_s``
    is the wait that the server asked for, in seconds, or ``None``. ``is_denied``: the server
    refuses the sign-in or the action. None of them has a secret.

    What is known of the call: ``is_reached`` says whether it reached the server (an answer came, or
    the connection held and the answer did not come in time); ``is_answered`` says that the server
    answered and so is done with it: what can't be seen of it soon will not come later; ``is_page``
    says that a page for people came (a login, a maintenance page), from a program in front of the
    server, so that the server has not seen the call; ``is_given_up`` says that the appliance broke
    it off, because the server answers again and this answer is not expected any more.
    """

    def __init__(
        self,
        text: str,
        *,
        where: str = "",
        label: str,
        retry: RetryPolicy,
        retry_after_s: float | None = None,
        is_denied: bool = False,
        is_reached: bool | None = None,
        is_answered: bool = False,
        is_page: bool = False,
        is_given_up: bool = False,
    ) -> None:
        super().__init__(f"{text} ({where})" if where else text)
        if is_denied:
            self.exit_code = EXIT_NO_PERMISSION
        else:
            self.exit_code = EXIT_CONFIG if retry is RetryPolicy.NEVER else EXIT_UNAVAILABLE
        self.label = label
        self.retry = retry
        self.retry_after_s = retry_after_s
        self.is_reached = retry is not RetryPolicy.SAFE if is_reached is None else is_reached
        self.is_answered = is_answered
        self.is_page = is_page
        self.is_given_up = is_given_up


class ServerInfo(msgspec.Struct, frozen=True):
    """Answer to a health check."""

    version: str
    text: str = ""
    rtt_s: float = 0.0


class Started(msgspec.Struct, frozen=True):
    """Answer to a start. An empty ``execution_id`` means that the server refused."""

    execution_id: str
    reason: str = ""
    """For a refusal: the likely reason, looked up (disabled, already running, ...)."""
    task_id: str = ""
    """The task that runs, if that is not the one that was started: the server's task for an app
    that has none."""


class Report(msgspec.Struct, frozen=True):
    """The server's report of one execution at the moment of the query."""

    execution_id: str
    task_id: str
    state: ExecutionState
    """QUEUED, RUNNING, or an outcome. An outcome is reported only when it is final: a failed
    attempt that the server will retry by itself is still RUNNING."""
    result_id: str = ""
    status: int | None = None
    """The server's own status number (QRS), for the record."""
    started_ns: int | None = None
    ended_ns: int | None = None
    duration_s: float | None = None
    attempt: int = 1
    """Which of the server's own attempts this is (QRS retries a task by ``maxRetries``)."""
    details: tuple[Step, ...] = ()
    """The server's notes on the run sorted by time, secrets masked."""
    reason: str = ""
    """For a bad outcome: the sentence that explains it best."""
    file_reference: str = ""
    session_open: bool = True
    """Whether the server still has the run under way (QRS: its session exists). ``False`` with a
    state that is not an outcome means that the server forgot the run (a restart): if that stays
    so for a while, the execution is lost."""
    task_name: str = ""
    """If the answer has it (runs of other users and schedules)."""
    node: str = ""
    """The node that executes the run, if the answer has it."""
    queued_ns: int | None = None
    """When the server put the run into its queue, by the server's clock."""
    queued_s: float | None = None
    """How long the run waited in the queue, once it was taken out."""
    began_from_ns: int | None = None
    """The earliest time of our clock at which the server may have made the run, as far as the
    difference of the clocks is known. Only in answers of ``QlikServer.since``."""
    began_until_ns: int | None = None
    """The latest time of our clock at which it may have made the run."""


UNSEEN = "after:"
"""How an execution id begins that stands for a run which had not shown up when its start returned.
The run is then listed under another id until ``QlikServer.poll`` has found it."""
WHOLE_LOG_BYTES = 4 * 1024 * 1024
"""The longest script log that ``QlikServer.script_log`` returns whole."""
ENDED_LIMIT = 500
"""Runs that one call of ``QlikServer.ended`` returns at most, the newest."""
ENDED_LOOK_BACK_NS = 3600 * 1_000_000_000
"""A run that ended longer ago is not returned, although there was no call since (the appliance was
stopped): its outcome may start further tasks, and one of yesterday should not."""


class FullTask(msgspec.Struct, frozen=True):
    """A task and its app as the server's own rows, for those who know them from there."""

    task: Mapping[str, Any]
    app: Mapping[str, Any]
    """Empty for a task without an app, or whose app the user may not see."""


class Ended(msgspec.Struct, frozen=True):
    """Answer to a question about runs that ended."""

    reports: Sequence[Report]
    """Reports of runs that are over, oldest end first."""
    until_ns: int
    """From when to ask next time, by the server's clock."""
    left_out: int = 0
    """Runs beyond ``ENDED_LIMIT``."""


class Owner(msgspec.Struct, frozen=True):
    """The owner of an app."""

    name: str
    """``DIRECTORY\\user``; in Qlik Cloud the user's name."""
    emails: tuple[str, ...]
    """E-mail addresses as the server has them, unchecked."""


class ServerSchedule(msgspec.Struct, frozen=True):
    """A trigger of the server that starts a task by time."""

    task_id: str
    name: str
    enabled: bool = True
    text: str = ""
    """The schedule in words, for example ``"every 2 days"``."""
    next_ns: int | None = None
    """When it starts the task next, if the server says so."""


class ServerChain(msgspec.Struct, frozen=True):
    """A trigger of the server that starts a task once all of some tasks have ended so."""

    task_id: str
    name: str
    after: tuple[tuple[str, str], ...]
    """The tasks: id, and ``"succeeded"``, ``"failed"`` or ``""`` for any end."""
    enabled: bool = True
    within_s: int = 0
    """All of them have to end within so many seconds; 0: no bound is known."""


class TaskEvents(msgspec.Struct, frozen=True):
    """The server's own triggers, as far as the user may see them."""

    schedules: tuple[ServerSchedule, ...] = ()
    chains: tuple[ServerChain, ...] = ()
    left_out: int = 0
    """Triggers beyond those that are read."""
    problem: str = ""
    """Why those of one kind are not among them."""


class QlikServer(Protocol):
    """One Qlik server. Every method may raise ``QlikError`` and nothing else that is expected.

    Each keeps to the time of ``deadlines.within``, if its thread calls it in such a block.
    """

    label: str
    """Host name for the UI."""

    def check(self) -> ServerInfo:
        """Check that the server answers and the sign-in works. Signs in if needed."""

    def tasks(self) -> Sequence[Task]:
        """All tasks that the configured user may see (Cloud: apps that can be reloaded)."""

    def full_tasks(self, task_ids: Sequence[str]) -> dict[str, FullTask]:
        """These reload tasks with their apps, by id; empty where the server has no such rows."""

    def apps(self) -> Sequence[Task]:
        """Apps that can be reloaded without a task of their own, as tasks with an id of ``APP``.

        Empty where ``tasks`` has them, or where the server has no such reload.
        """

    def task_events(self) -> TaskEvents:
        """What the server starts by itself, as far as the user may see it."""

    def start(self, task_id: str, *, options: ReloadOptions = NO_OPTIONS) -> Started:
        """Start a task now. Makes exactly one POST: it never repeats by itself.

        Options that the server does not take are a ``QlikError`` (``RetryPolicy.NEVER``), and
        nothing is sent.
        """

    def poll(self, execution_ids: Sequence[str], task_ids: Sequence[str]) -> dict[str, Report]:
        """Reports for these executions, batched; ids that the server does not know are absent.

        ``task_ids`` has the task of each execution at the same index.
        """

    def running(self) -> Sequence[Report]:
        """Every run on the server now, also of other users and schedules (the busy test)."""

    def since(self, task_id: str, after_ns: int, *, everyone: bool = False) -> Sequence[Report]:
        """Executions of a task that may have begun after a time of our clock, oldest first.

        The look before a start is made, or repeated.

        Args:
            task_id: the task.
            after_ns: nanoseconds since the epoch.
            everyone: also executions of which the server says that no call of ours began them, and
                all that are under way, whenever they began.
        """

    def own_time_ns(self, server_ns: int) -> int:
        """The latest time of our clock at which the server's may have shown this time."""

    def clock_doubt_s(self) -> float:
        """How exactly the difference between the server's clock and ours is known, in seconds."""

    def ended(self, after_ns: int | None, running: Collection[str]) -> Ended:
        """Everyone's runs that ended since a time of the server, also those too short for a look.

        One call, or a few, however many runs there are; at most ``ENDED_LIMIT`` runs are returned,
        and none that ended more than ``ENDED_LOOK_BACK_NS`` ago.

        Args:
            after_ns: ``Ended.until_ns`` of an earlier answer, or ``None`` for no runs but the time
                from which to ask. Runs that ended a little earlier are returned again, because the
                clocks of a site's machines differ: the caller knows runs by their ids.
            running: execution ids that ``running`` has just returned. An attempt of one of these
                that ended is not the end of its run.
        """

    def log_tail(self, report: Report, lines: int) -> Sequence[str]:
        """The script log's last lines, secrets masked; empty where there is no log (yet).

        The log may be of any size: only its end is kept while it is read. A ``QlikError`` says why
        the log can't be had; its label is ``"too large"`` or ``"too slow"`` where a further try
        would meet the same bound.
        """

    def script_log(self, report: Report) -> str:
        """The script log, secrets masked; empty where there is no log (yet).

        Of one that is longer than ``WHOLE_LOG_BYTES`` only the end, at least half as much; its
        first line says so. A ``QlikError`` is as for ``log_tail``.
        """

    def owner(self, app_id: str) -> Owner | None:
        """Who owns an app, as far as the configured user may see it."""

    def stop(self, task_id: str, execution_id: str) -> None:
        """Ask the server to abort a run."""

    def give_up(self, older_than_s: float) -> None:
        """Break off the calls that began longer ago than this, in seconds.

        They end with a ``QlikError`` that has ``is_given_up``.
        """

    def close(self) -> None:
        """Close connections. Calls under way end with a ``QlikError``."""
