"""Work for a worker, and the bounds within which it is handed out.

Not for: when a job is handed out (dispatcher.py) or done (runner.py).
"""

from __future__ import annotations

import enum

import msgspec

from appliance.tasks.records import Record


class Limits(msgspec.Struct, frozen=True):
    """Bounds and waits; the defaults are what the documentation says."""

    slots: int = 4
    """Jobs that workers do at a time."""
    max_open: int = 100_000
    """Requests that have no outcome yet."""
    max_running: int | None = None
    """Runs of ours at a time; ``None``: the server's scheduler decides."""
    backoff_first_s: float = 1.0
    backoff_most_s: float = 60.0
    look_first_s: float = 2.0
    look_most_s: float = 15.0
    """The longest time between two looks."""
    apart_s: float = 0.3
    """With several appliances on one server, how long a request waits at least before the server
    is asked, so that a run that another appliance starts for the same event began after the event
    for all of them. The doubt about the server's clock is added (``MAX_DOUBT_S`` at most)."""
    apart_spread_s: float = 0.5
    """A random time up to this is added, so that appliances do not ask at the same moment."""
    look_settle_s: float = 30.0
    """How long after a start call without an answer a look that finds nothing is believed: a
    server, or a proxy in between, may carry out late what it received. No document says how late;
    it is the time after which a call counts as not answered."""
    answered_settle_s: float = 2.0
    """The same where the server answered with an error, and so is done with the call. Right after
    a start the server's lists may not have the run yet."""
    clock_slack_s: float = 2.0
    """A run that began so long before the start call may be the one that the call began. The
    client allows for the difference of the clocks; this is for what it can't see."""
    lost_after_s: float = 60.0
    """For how long the server may know nothing of a run before it is said to be lost."""
    follow_limit_s: float = 48 * 3600.0
    """For how long one run is followed."""
    log_waits_s: tuple[float, ...] = (2.0, 5.0, 15.0, 30.0, 60.0, 120.0)
    """Before each further try to have the script log of a run that failed."""
    log_give_up_s: float = 900.0
    """After so long there is no further try: each one may hang for a while."""


class JobKind(enum.Enum):
    """What a worker does for a request."""

    RESOLVE = "find the tasks"
    START = "start"
    LOOK = "look whether it was started"
    LOOK_FIRST = "look what others started, then start"


class Job(msgspec.Struct, frozen=True):
    """One piece of work for one worker."""

    kind: JobKind
    record: Record
