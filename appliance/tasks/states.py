"""Every state of a request, what it means, which thread sets it, and which state may follow.

A request stands in exactly one ``RequestState``. ``RequestBook.move`` is the one way from a state
to another; it asks ``check``, which knows the table. Users see the coarser ``ExecutionState``:
``SHOWN`` says which. docs/architecture.md has the same table; a test compares the two.

A thread that ends a change hands out what can go (``Planner.begin``), so each thread of the task
engine may begin a job: "a change" below means that.

Not for: the moves themselves (dispatcher.py, planner.py, runs.py) or what is stored (records.py).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from appliance.model import ExecutionState


class RequestState(enum.StrEnum):
    """Where a request stands, from the message to its outcome.

    A ``StrEnum`` because sets and dicts of states are asked at every move, and a plain ``Enum``
    hashes in Python code.
    """

    PENDING = "pending"
    """The request is taken and its turn is not decided yet; the same change decides it. The journal
    thread sets it, the clock for a timer, an operator's command, and a worker that gives it back.
    """
    SCHEDULED = "scheduled"
    """A debounce or a cooldown has to pass first. The change that takes the request sets it, or the
    one that renews its wait."""
    PAUSED = "paused"
    """An operator holds the request back; it goes on when the operator lets it, or expires. An
    operator's command sets it."""
    HELD = "held"
    """A hold keeps the request waiting (holds.py); it does not expire meanwhile, and goes on when
    the hold ends. An operator's command sets it, or the change that takes the request."""
    BLOCKED = "blocked"
    """The present run of the task has to end first (``if_running``). The change that finds the task
    running sets it; the end of the run lets the request go on."""
    READY = "ready"
    """Nothing holds the request back but a free worker or ``max_running``. The clock sets it, or
    the change that removes the last obstacle."""
    SERVER_AWAY = "server away"
    """The request could go, but the Qlik server does not answer. The thread whose call opens the
    circuit sets it; the health thread, or any call that is answered, ends it."""
    RETRY_WAIT = "retry wait"
    """A call failed and certainly began nothing; it is repeated after a growing wait. The worker
    that made the call sets it."""
    RESOLVING = "resolving"
    """A worker reads the list of tasks to find those that the request names. The change that hands
    the job to the worker sets it."""
    CALLING = "calling"
    """A worker makes the start call. The change that hands the job to the worker sets it, or the
    worker whose look found no run that answers the request."""
    UNCERTAIN = "uncertain"
    """The answer to the start call is lost, so the task may run; the next look at the server waits
    for its time. The worker sets it, or the start of the appliance after a crash."""
    LOOK_READY = "look ready"
    """The next look at the server waits for a free worker. The clock sets it."""
    LOOKING = "looking"
    """A worker asks the server whether the start call began a run, or, with several appliances on
    one server, what others started before the call is made. The change that hands the job to the
    worker sets it."""
    QUEUED = "queued"
    """The server accepted the start and its scheduler has the run in a queue. The worker sets it
    that made the start call or found its run, or the poller."""
    RUNNING = "running"
    """The server runs the task. The poller sets it; a run that was started elsewhere begins so."""
    LOG_WANTED = "log wanted"
    """The run failed, and the end of its script log is still to be fetched. The poller sets it, and
    the thread that could not have the log."""
    FETCHING_LOG = "fetching log"
    """A thread for script logs fetches the end of the log. That thread sets it."""
    SUCCEEDED = "succeeded"
    """The run ended well. The poller sets it."""
    FAILED = "failed"
    """The run ended with an error and its log is dealt with. The thread that fetched the log sets
    it."""
    ABORTED = "aborted"
    """The run was aborted, or an operator took the request back. The poller sets it, or an
    operator's command."""
    SKIPPED = "skipped"
    """Another request answers this one, the task ran already (``if_running = "skip"``), or the
    server skipped the run. The change that finds this sets it."""
    REFUSED = "refused"
    """The server answered that it did not start the task. The worker sets it."""
    REJECTED = "rejected"
    """The task is unknown, ambiguous or not allowed, or the server's answer will never be another.
    The worker sets it."""
    EXPIRED = "expired"
    """The request's time (``expire``, ``retry_for``) was over before the server took it. The clock
    sets it, or the worker whose retry would come too late."""
    LOST = "lost"
    """The task may have run; its outcome can't be had. The clock sets it, or the poller."""
    FORGOTTEN = "forgotten"
    """The request was made for a run that turned out to be another request's; it is removed. The
    worker that learns of the run's owner sets it."""


_S = RequestState
ENTRIES = frozenset({_S.PENDING, _S.UNCERTAIN, _S.QUEUED, _S.RUNNING, _S.LOG_WANTED})
"""States in which a request may enter: from a message (pending), from a run that was started
elsewhere (running), and from the database at the start of the appliance (all)."""

_WAIT_ENDS = frozenset({_S.SKIPPED, _S.EXPIRED, _S.ABORTED})
"""A request that waits is answered by another one, expires, or is taken back."""
_RUN_ENDS = frozenset({_S.SUCCEEDED, _S.LOG_WANTED, _S.ABORTED, _S.SKIPPED, _S.LOST, _S.FORGOTTEN})

TRANSITIONS: Mapping[RequestState, frozenset[RequestState]] = MappingProxyType(
    {
        _S.PENDING: frozenset({_S.SKIPPED, _S.EXPIRED})
        | {_S.SCHEDULED, _S.PAUSED, _S.HELD, _S.BLOCKED}
        | {_S.READY, _S.SERVER_AWAY, _S.RETRY_WAIT},
        _S.SCHEDULED: _WAIT_ENDS | {_S.PAUSED, _S.HELD, _S.BLOCKED, _S.READY, _S.SERVER_AWAY},
        _S.PAUSED: _WAIT_ENDS | {_S.SCHEDULED, _S.HELD, _S.BLOCKED, _S.READY, _S.SERVER_AWAY},
        _S.HELD: frozenset({_S.SKIPPED, _S.ABORTED})
        | {_S.SCHEDULED, _S.PAUSED, _S.BLOCKED, _S.READY, _S.SERVER_AWAY},
        _S.BLOCKED: _WAIT_ENDS | {_S.SCHEDULED, _S.PAUSED, _S.HELD, _S.READY, _S.SERVER_AWAY},
        _S.READY: _WAIT_ENDS
        | {_S.SCHEDULED, _S.PAUSED, _S.HELD, _S.BLOCKED, _S.SERVER_AWAY, _S.RETRY_WAIT}
        | {_S.RESOLVING, _S.CALLING, _S.LOOKING},
        _S.SERVER_AWAY: _WAIT_ENDS
        | {_S.SCHEDULED, _S.PAUSED, _S.HELD, _S.BLOCKED, _S.READY, _S.RETRY_WAIT},
        _S.RETRY_WAIT: _WAIT_ENDS
        | {_S.SCHEDULED, _S.PAUSED, _S.HELD, _S.BLOCKED, _S.READY, _S.SERVER_AWAY},
        _S.RESOLVING: frozenset(
            {_S.PENDING, _S.RETRY_WAIT, _S.SKIPPED, _S.REJECTED, _S.EXPIRED},
        ),
        _S.CALLING: frozenset(
            {_S.PENDING, _S.RETRY_WAIT, _S.UNCERTAIN, _S.QUEUED}
            | {_S.REFUSED, _S.REJECTED, _S.EXPIRED}
        ),
        _S.UNCERTAIN: frozenset({_S.LOOK_READY, _S.LOST}),
        _S.LOOK_READY: frozenset({_S.LOOKING, _S.UNCERTAIN, _S.LOST}),
        _S.LOOKING: frozenset(
            {_S.UNCERTAIN, _S.PENDING, _S.QUEUED, _S.CALLING}
            | {_S.RETRY_WAIT, _S.SKIPPED, _S.REJECTED, _S.EXPIRED}
        ),
        _S.QUEUED: _RUN_ENDS | {_S.RUNNING},
        _S.RUNNING: _RUN_ENDS | {_S.QUEUED},
        _S.LOG_WANTED: frozenset({_S.FETCHING_LOG}),
        _S.FETCHING_LOG: frozenset({_S.LOG_WANTED, _S.FAILED}),
        _S.SUCCEEDED: frozenset(),
        _S.FAILED: frozenset(),
        _S.ABORTED: frozenset(),
        _S.SKIPPED: frozenset(),
        _S.REFUSED: frozenset(),
        _S.REJECTED: frozenset(),
        _S.EXPIRED: frozenset(),
        _S.LOST: frozenset(),
        _S.FORGOTTEN: frozenset(),
    }
)
"""Which state may follow each state. A final state has no successor."""

FINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)
WAITING = frozenset(
    {_S.PENDING, _S.SCHEDULED, _S.PAUSED, _S.HELD, _S.BLOCKED}
    | {_S.READY, _S.SERVER_AWAY, _S.RETRY_WAIT}
)
"""The server knows nothing of the request: it can be taken back."""
MAY_GO_LATER = WAITING | {_S.UNCERTAIN, _S.LOOK_READY}
"""The dispatcher decides when a worker gets the request's job."""
CAN_GO = frozenset({_S.READY, _S.SERVER_AWAY, _S.LOOK_READY})
"""Nothing but a worker or the server itself is missing."""
IN_FLIGHT = frozenset({_S.RESOLVING, _S.CALLING, _S.LOOKING})
"""A worker has the request's job."""
AT_SERVER = frozenset({_S.QUEUED, _S.RUNNING})
"""The server has the run, and the poller follows it."""
OPEN = frozenset(_S) - FINAL - {_S.LOG_WANTED, _S.FETCHING_LOG}
"""The request has no outcome yet."""

_E = ExecutionState
SHOWN: Mapping[RequestState, tuple[ExecutionState, ...]] = MappingProxyType(
    {
        _S.PENDING: (_E.REQUESTED, _E.WAITING, _E.STARTING, _E.RETRYING),
        _S.SCHEDULED: (_E.WAITING,),
        _S.PAUSED: (_E.WAITING, _E.REQUESTED, _E.RETRYING),
        _S.HELD: (_E.WAITING, _E.RETRYING),
        _S.BLOCKED: (_E.WAITING,),
        _S.READY: (_E.REQUESTED, _E.WAITING, _E.RETRYING),
        _S.SERVER_AWAY: (_E.WAITING, _E.RETRYING),
        _S.RETRY_WAIT: (_E.RETRYING,),
        _S.RESOLVING: (_E.REQUESTED, _E.WAITING, _E.RETRYING),
        _S.CALLING: (_E.STARTING,),
        _S.UNCERTAIN: (_E.RETRYING,),
        _S.LOOK_READY: (_E.RETRYING,),
        _S.LOOKING: (_E.RETRYING, _E.REQUESTED, _E.WAITING),
        _S.QUEUED: (_E.QUEUED,),
        _S.RUNNING: (_E.RUNNING,),
        _S.LOG_WANTED: (_E.FAILED,),
        _S.FETCHING_LOG: (_E.FAILED,),
        _S.SUCCEEDED: (_E.SUCCEEDED,),
        _S.FAILED: (_E.FAILED,),
        _S.ABORTED: (_E.ABORTED,),
        _S.SKIPPED: (_E.SKIPPED,),
        _S.REFUSED: (_E.REFUSED,),
        _S.REJECTED: (_E.REJECTED,),
        _S.EXPIRED: (_E.EXPIRED,),
        _S.LOST: (_E.LOST,),
        _S.FORGOTTEN: (),
    }
)
"""What users see of each state. Where several are named, the present one stays if it is among them,
else the first is shown: a wait that ends in the same change as it began is not told twice."""

REPORTED: Mapping[ExecutionState, RequestState] = MappingProxyType(
    {
        _E.QUEUED: _S.QUEUED,
        _E.RUNNING: _S.RUNNING,
        _E.SUCCEEDED: _S.SUCCEEDED,
        _E.FAILED: _S.LOG_WANTED,
        _E.ABORTED: _S.ABORTED,
        _E.SKIPPED: _S.SKIPPED,
    }
)
"""The state that follows from what the server reports of a run."""


class TransitionError(Exception):
    """A move that the table does not have: an error in the appliance. Nothing was changed."""


def check(before: RequestState | None, after: RequestState) -> None:
    """Raise ``TransitionError`` unless ``after`` may follow ``before`` (``None``: it enters)."""
    if after not in (ENTRIES if before is None else TRANSITIONS[before]):
        start = "new" if before is None else before.value
        raise TransitionError(f"A request can't go from {start} to {after.value}.")


def shown_as(state: RequestState, present: ExecutionState) -> ExecutionState:
    """What users see of a request in ``state`` if they saw ``present`` before."""
    shown = SHOWN[state]
    return present if present in shown or not shown else shown[0]
