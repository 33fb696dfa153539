"""What is remembered of how fresh one task is: messages that wait, runs, days; and its figures.

Values that outlive a restart in ``tasks.db``: new fields have a default. Not for: what changes them
(freshness.py).
"""

from __future__ import annotations

import math

import msgspec

from appliance.model import ReloadOptions
from appliance.tasks.selector import TaskSelector

SECOND_NS = 1_000_000_000
DAY_NS = 86400 * SECOND_NS
SLOT_NS = 900 * SECOND_NS
"""The plot over the day has one value for each quarter of an hour."""
DAYS = 7
"""The present day (UTC) and the six before it: what the figures of a task are about."""
STEPS_A_DOUBLING = 4
"""Buckets of the latency for each doubling: a percentile is at most 19 % too high."""
LAST_BUCKET = 22 * STEPS_A_DOUBLING
"""Some 48 days."""


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """One message that no run has covered yet, or several that came close together."""

    first_ns: int
    """When the oldest of them came."""
    last_ns: int
    """When the newest of them came: only a run that began after it covers them."""
    seq: int
    """The number of the oldest one."""
    last_seq: int
    """The number of the newest one."""
    count: int
    rules: tuple[str, ...]
    """The names of the rules that took them."""
    reload: ReloadOptions = ReloadOptions()


class Run(msgspec.Struct, frozen=True, array_like=True):
    """A run that succeeded."""

    began_ns: int
    """When it began at the earliest."""
    fresh_ns: int
    """When its data was there."""
    reload: ReloadOptions = ReloadOptions()

    def covers(self, ask: Ask) -> bool:
        """Whether the data of this run knows of what these messages tell."""
        loads_it = self.reload.variables == ask.reload.variables and (
            not self.reload.partial or ask.reload.partial
        )
        return loads_it and self.began_ns >= ask.last_ns


class Day(msgspec.Struct, array_like=True):
    """What became fresh on one day (UTC)."""

    messages: int = 0
    worst_s: float = 0.0
    merged: int = 0
    """Messages whose request was merged into one that waited: runs that were saved."""
    runs: int = 0
    """Runs that covered messages."""
    buckets: dict[int, int] = {}
    """How many messages, by the bucket of their latency."""


class TaskFreshnessState(msgspec.Struct, array_like=True):
    """What is remembered of one task. New fields have a default: databases must stay readable."""

    name: str
    asks: list[Ask] = []
    runs: list[Run] = []
    days: dict[int, Day] = {}
    slots: dict[int, tuple[int, float]] = {}
    """What took longest of what became fresh in a quarter of an hour: when, and its seconds."""
    rules: list[str] = []
    """The rules that asked for it lately."""
    is_late: bool = False
    """Whether it was told that ``fresh_within`` is over for messages that still wait."""
    asked_ns: int = 0
    """When it was asked for last."""
    is_told: bool = False
    """Whether its topic has a retained message."""
    selector: TaskSelector | None = None
    """What messages asked for, while the task is not known."""
    is_due: bool = False
    """Whether its topic does not have its last news yet: a kill must not keep them back."""

    @property
    def stale_since_ns(self) -> int | None:
        """When the oldest message came that no run has covered; ``None``: the data is fresh."""
        return min((one.first_ns for one in self.asks), default=None)

    @property
    def oldest(self) -> Ask | None:
        return min(self.asks, key=lambda one: one.first_ns, default=None)

    @property
    def waiting(self) -> int:
        """How many messages no run has covered."""
        return sum(one.count for one in self.asks)

    @property
    def fresh_ns(self) -> int | None:
        """When the data of the last successful run was there."""
        return max((one.fresh_ns for one in self.runs), default=None)


class Figures(msgspec.Struct, frozen=True):
    """The last days of a task: from a message to fresh data, in seconds."""

    messages: int = 0
    runs: int = 0
    merged: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    worst_s: float | None = None


def bucket_of(latency_s: float) -> int:
    """The bucket of a latency: the smallest whose upper bound is not below it."""
    if latency_s <= 1.0:
        return 0
    bucket = math.ceil(math.log2(latency_s) * STEPS_A_DOUBLING - 1e-9)
    return min(max(bucket, 0), LAST_BUCKET)


def upper_s(bucket: int) -> float:
    """The upper bound of a bucket, in seconds."""
    return float(2.0 ** (bucket / STEPS_A_DOUBLING))


def figures(state: TaskFreshnessState, now: int) -> Figures:
    """What the last ``DAYS`` days say of a task."""
    first = now // DAY_NS - DAYS + 1
    days = [day for number, day in state.days.items() if number >= first]
    messages = sum(one.messages for one in days)
    runs, merged = sum(one.runs for one in days), sum(one.merged for one in days)
    if not messages:
        return Figures(0, runs, merged)
    buckets: dict[int, int] = {}
    for day in days:
        for bucket, count in day.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
    worst = max(one.worst_s for one in days)

    def percentile(share: float) -> float:
        rank, seen = math.ceil(share * messages), 0
        for bucket in sorted(buckets):
            seen += buckets[bucket]
            if seen >= rank:
                return min(upper_s(bucket), worst)
        return worst

    return Figures(messages, runs, merged, percentile(0.5), percentile(0.95), worst)
