"""What is stored of a request; ``model.Execution`` is the part of it that users see.

Not for: reading and writing it (store.py) or changing it (planner.py).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from appliance.model import Execution
from appliance.tasks.holds import Asker, asker_of
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import Options

MAX_REPLIES = 100
"""Response topics that one execution answers; later messages that were merged get none."""


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """Where an outcome is sent besides its topic (MQTT 5, section 4.10)."""

    topic: str
    correlation: bytes | None = None
    seq: int = 0
    """The message that asked: it is answered once, however many rules took it up."""


MAX_NEXT = 100
"""Tasks that are started after one execution."""
MAX_ASKERS = 100
"""Rules and timers that are kept of one request, besides the first."""


class Next(msgspec.Struct, frozen=True, array_like=True):
    """A task that is started when an execution has ended in one way or the other."""

    task_id: str
    after_failure: bool = False
    """Whether after a bad end, or else after a success."""


_TIMES = (
    "posted_ns",
    "look_since_ns",
    "newest_ns",
    "turn_ns",
    "believed_ns",
    "wished_ns",
    "first_attempt_ns",
    "seen_ns",
    "held_since_ns",
    "began_ns",
)
"""Fields of ``Record`` that are ``None`` or a time of our clock."""


class Record(msgspec.Struct, eq=False):
    """One request from its message to its outcome, as it stands in the database.

    Mutable, and changed only by the planner and its parts. New fields have a default: databases of
    earlier versions must stay readable.
    """

    execution: Execution
    selector: TaskSelector = msgspec.field(name="want")
    options: Options
    expires_ns: int
    last_asked_ns: int
    """When the last message that it answers asked for it (debounce counts from here)."""
    posted_ns: int | None = None
    """When the start call was made whose answer is not known. A process that finds this on the disk
    after a crash looks at the server before it starts the task (state_store.py says when it is
    written)."""
    look_since_ns: int | None = None
    """An earlier process may have started the task, and a crash or power cut took the note of it.
    The server is asked for runs since then before the first start call."""
    first_attempt_ns: int | None = None
    """When it was first tried; ``retry_for`` counts from here."""
    tries: int = 0
    """Calls in a row that failed, looks that found nothing, or tries to have the script log: what
    the waits grow with."""
    reply_to: tuple[Reply, ...] = ()
    """Where the outcome is sent besides its topics."""
    label: str = ""
    """Its outcome in a few characters where the state alone does not say it: ``"403"``."""
    paused: bool = msgspec.field(default=False, name="held")
    """An operator paused the wait: the request goes on when the operator lets it, or expires."""
    expedited: bool = msgspec.field(default=False, name="hurried")
    """An operator ended the wait: debounce, cooldown and retry do not hold the request back."""
    recovered: bool = False
    """It succeeded, and the task's run before it had ended badly."""
    is_slow: bool = False
    """The run takes far longer than usual; this is told once."""
    log_wanted: bool = False
    """The run failed, and the last lines of its script log are still to be fetched."""
    report_id: str = ""
    """The server's id of the result that the log belongs to."""
    file_reference: str = ""
    """The server's reference of the script log, where it needs one."""
    last_seq: int = 0
    """The last message that it answers, 0 if that is not known."""
    seen_ns: int | None = None
    """When the server last knew of the run."""
    believed_ns: int | None = None
    """When a look that finds no run is believed, where that is known to be sooner than usual:
    the server answered the start call with an error."""
    wished_ns: int | None = None
    """The time that the server named for the next try (Retry-After)."""
    newest_ns: int | None = None
    """When the newest message that it answers came; only a run that began after that answers it."""
    turn_ns: int | None = None
    """When it may go at the earliest, so that several appliances do not go at the same moment."""
    is_by_other: bool = False
    """A run that another one started answers it."""
    next_tasks: tuple[Next, ...] = ()
    """What is started at its end, in the change that gives it its outcome."""
    held_since_ns: int | None = None
    """Since when a hold keeps it waiting, as far as its expiry does not know of it yet."""
    further_askers: tuple[Asker, ...] = ()
    """The rules and timers that asked for it besides the one of its cause."""
    began_ns: int | None = None
    """The earliest time at which its run may have begun, by our clock, as far as the call or a look
    told it: what came before that, the data of the run knows of (freshness.py)."""

    @property
    def wanted_ns(self) -> int:
        """When what the run has to know of had happened: a run that began before is too old."""
        return self.last_asked_ns if self.newest_ns is None else self.newest_ns

    @property
    def askers(self) -> tuple[Asker, ...]:
        """All rules and timers that asked for it."""
        return (asker_of(self.execution.cause), *self.further_askers)

    def add_askers(self, askers: Iterable[Asker]) -> None:
        """Others ask for it too."""
        known = self.askers
        further = [one for one in dict.fromkeys(askers) if one not in known]
        if further:
            # Beyond the bound it is as if a person asked: no hold of a rule concerns it.
            more = (*self.further_askers, *further)
            self.further_askers = more if len(more) <= MAX_ASKERS else (("", ""),)

    def shift(self, step_ns: int) -> None:
        """The clock was set by this: let each wait keep its length."""
        self.expires_ns += step_ns
        self.last_asked_ns += step_ns
        for name in _TIMES:
            if (at_ns := getattr(self, name)) is not None:
                setattr(self, name, at_ns + step_ns)
        execution = self.execution
        due_ns = execution.next_attempt_ns
        self.execution = msgspec.structs.replace(
            execution,
            requested_ns=execution.requested_ns + step_ns,
            next_attempt_ns=None if due_ns is None else due_ns + step_ns,
        )

    def note_hold(self, now: int, *, is_held: bool) -> bool:
        """Let the time that passed in a hold not count for its expiry; returns whether any did."""
        since = self.held_since_ns
        self.held_since_ns = max(now, since or now) if is_held else None
        if since is None:
            return False
        passed = max(0, now - since)
        self.expires_ns += passed
        if self.first_attempt_ns is not None:
            self.first_attempt_ns += passed
        return True

    def forget_call(self) -> None:
        """There is no start call whose answer is not known."""
        self.posted_ns = self.believed_ns = None

    def with_replies(self, further: Iterable[Reply]) -> tuple[Reply, ...]:
        """All replies together, those to one and the same message only once."""
        known = set(self.reply_to)
        return (*self.reply_to, *(one for one in further if not one.seq or one not in known))

    def add_next(self, further: Iterable[Next]) -> None:
        """Have tasks started at its end besides, ``MAX_NEXT`` at most."""
        self.next_tasks = tuple(dict.fromkeys((*self.next_tasks, *further)))[:MAX_NEXT]

    @property
    def id(self) -> int:
        return self.execution.id
