"""How fresh the data of each task is: which messages no successful run has covered yet.

A message asks for a task when a rule takes it. A run covers the message if it succeeded, certainly
began after the message, and reloaded what the message asked for. Until then the task is stale since
the oldest message that is not covered. docs/freshness.md has the whole definition.

No threads, clock, disk or network: times come as arguments, nanoseconds of our clock. What has to
outlive a restart is in ``TaskFreshnessState``; the state store writes those that changed in the
transaction of the change itself.

Not for: why a task is stale, in words (freshness_report.py), or telling people (state_store.py).
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2s

import msgspec

from appliance.model import ReloadOptions
from appliance.tasks.alarms import Alarms
from appliance.tasks.freshness_state import (
    DAY_NS,
    DAYS,
    SECOND_NS,
    SLOT_NS,
    Ask,
    Day,
    Figures,
    Run,
    TaskFreshnessState,
    bucket_of,
    figures,
)
from appliance.tasks.selector import TaskSelector

KIND = "freshness"
"""The kind of its values in ``tasks.db`` (kept.py); the name is the task's id."""
KIND_DAY = "freshness day"
"""The kind of a task's curve over the day: by itself, since messages do not change it."""
MAX_TASKS = 2000
"""Tasks that are followed; beyond it the fresh one that was asked for least recently goes."""
MAX_ASKS = 64
"""Messages of a task that wait uncovered, each by itself; beyond it those that came closest
together are held as one."""
JOINED_AT_ONCE = 16
"""Pairs that are joined then: a search for each message would cost some 35 us."""
MANY_ASKS = 32
"""While so many wait, the messages of one second are held as one at once: this takes no search."""
NEWEST_ASKS = 8
"""Of the newest so many, one for the same variables takes a message of the same second."""
MAX_RUNS = 8
"""Successful runs of a task that are remembered for messages that are read late."""
MAX_RULES = 16
KEPT_NS = 30 * DAY_NS
"""A task that no message has asked for in this time is forgotten."""
BOUNDS_S = (5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
"""Upper bounds of the histogram of all tasks, in seconds, besides the one without a bound."""
TELL_EVERY_NS = 10 * SECOND_NS
"""The topic of a task's freshness gets at most one message in this time."""


class Stale(msgspec.Struct, frozen=True):
    """A stale task in short."""

    key: str
    since_ns: int
    late_ns: int | None
    """When ``fresh_within`` is or was over for one of its messages; ``None``: no rule has it."""


def selector_key(selector: TaskSelector) -> str:
    """The key of what a message asked for while it is not known which tasks that are."""
    return f"?{blake2s(msgspec.msgpack.encode(selector), digest_size=16).hexdigest()}"


def is_task(key: str) -> bool:
    """Whether a key is the id of a task."""
    return not key.startswith("?")


class Freshness:
    """All tasks that messages asked for. Not thread-safe: the state store's lock guards it.

    ``stale`` alone may be copied (``dict.copy``) by any thread.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, TaskFreshnessState] = {}
        """By the task's id, or by ``selector_key`` while the task is not known."""
        self.stale: dict[str, Stale] = {}
        self.since_ns = 0
        """From when on messages are known: the database was begun anew then."""
        self.left_out = 0
        """Messages that are not followed because ``MAX_TASKS`` tasks are stale."""
        self.histogram = [0] * (len(BOUNDS_S) + 1)
        """Messages of all tasks since the start by their latency; the last bucket has no bound."""
        self.latency_sum_s = 0.0
        self._limits_s: dict[str, float] = {}
        self._unasked: OrderedDict[str, list[Run]] = OrderedDict()
        """Runs of tasks that no message has asked for: one may be read late."""
        self._late: Alarms[str] = Alarms()
        self._tell: Alarms[str] = Alarms()
        self._told_ns: dict[str, int] = {}
        self._changed: set[str] = set()
        self._changed_slots: set[str] = set()
        self._figures: dict[str, tuple[int, Figures]] = {}
        """The figures of tasks that have not changed since, with their day."""

    # --- what happens -------------------------------------------------------------------------

    def asked(
        self,
        key: str,
        name: str,
        asked_ns: int,
        *,
        seq: int,
        rule: str,
        now: int,
        reload: ReloadOptions = ReloadOptions(),  # noqa: B008 - frozen
        selector: TaskSelector | None = None,
    ) -> None:
        """A message that came at ``asked_ns`` asks for a task.

        ``selector`` says what it asked for, if ``key`` is no task's.
        """
        if not self._extend(key, asked_ns, seq, rule, reload):
            ask = Ask(asked_ns, asked_ns, seq, seq, 1, (rule,), reload)
            self._add(key, name, (ask,), now, selector)

    def merged(self, key: str, now: int, *, by: int = 1) -> None:
        """A request was merged into one that waited already: so many runs were saved."""
        if (state := self.tasks.get(key)) is not None:
            self._day(state, now).merged += by
            self._touch(key)

    def resolved(
        self,
        key: str,
        until_ns: int,
        found: Sequence[tuple[str, str, ReloadOptions]],
        now: int,
        *,
        reload: ReloadOptions = ReloadOptions(),  # noqa: B008 - frozen
    ) -> None:
        """What messages up to ``until_ns`` asked for is found: (task id, name, how) of each.

        ``reload`` is how the request had it. What others asked for with other variables is found
        too, and still wants these.
        """
        state = self.tasks.get(key)
        if state is None:
            return
        asks = [one for one in state.asks if one.last_ns <= until_ns]
        merged = sum(day.merged for day in state.days.values())
        for task_id, name, how in found:
            moved = [
                msgspec.structs.replace(one, reload=how if one.reload == reload else one.reload)
                for one in asks
            ]
            self._add(task_id, name, moved, now)
            self._keep_late(task_id, state, now)
            if merged:
                self.merged(task_id, now, by=merged)
        state.days = {}
        self.forget(key, until_ns, now)

    def forget(self, key: str, until_ns: int, now: int) -> None:
        """What messages up to ``until_ns`` asked for does not exist."""
        if (state := self.tasks.get(key)) is None:
            return
        state.asks = [one for one in state.asks if one.last_ns > until_ns]
        if not state.asks and (not is_task(key) or not (state.runs or state.days)):
            self._remove(key)
        else:
            self._has_changed(key, state, now)

    def renamed(self, before: str, task_id: str, now: int) -> None:
        """What was known by one id is the task with the other one."""
        if before == task_id or (state := self.tasks.get(before)) is None:
            return
        self._add(task_id, state.name, state.asks, now)
        self._keep_late(task_id, state, now)
        if (other := self.tasks.get(task_id)) is not None:
            for number, day in state.days.items():
                other.days.setdefault(number, Day()).merged += day.merged
        self._remove(before)

    def succeeded(
        self,
        task_id: str,
        began_ns: int,
        fresh_ns: int,
        now: int,
        *,
        reload: ReloadOptions = ReloadOptions(),  # noqa: B008 - frozen
    ) -> None:
        """A run succeeded that began at ``began_ns`` at the earliest, and ended at ``fresh_ns``."""
        run = Run(began_ns, max(began_ns, fresh_ns), reload)
        state = self.tasks.get(task_id)
        if state is None:
            runs = self._unasked.pop(task_id, [])
            self._unasked[task_id] = [*runs, run][-MAX_RUNS:]
            if len(self._unasked) > MAX_TASKS:
                self._unasked.popitem(last=False)
            return
        state.runs = [*state.runs, run][-MAX_RUNS:]
        self._announce(task_id, state, now)
        covered = [one for one in state.asks if run.covers(one)]
        state.asks = [one for one in state.asks if not run.covers(one)]
        if covered:
            self._day(state, run.fresh_ns).runs += 1
        for ask in covered:
            self._note(task_id, state, ask, run.fresh_ns)
        self._has_changed(task_id, state, now)

    def shift(self, step_ns: int, now: int) -> None:
        """The clock was set by this: how long the data is stale stays what it was."""

        def run(one: Run) -> Run:
            return msgspec.structs.replace(
                one, began_ns=one.began_ns + step_ns, fresh_ns=one.fresh_ns + step_ns
            )

        self._late.shift(step_ns)
        self._tell.shift(step_ns)
        self._told_ns = {key: at + step_ns for key, at in self._told_ns.items()}
        self.since_ns += step_ns
        for key, state in self.tasks.items():
            state.asks = [
                msgspec.structs.replace(
                    one, first_ns=one.first_ns + step_ns, last_ns=one.last_ns + step_ns
                )
                for one in state.asks
            ]
            state.runs = [run(one) for one in state.runs]
            state.asked_ns += step_ns
            state.slots = {
                (at + step_ns) // SLOT_NS: (at + step_ns, seconds)
                for at, seconds in state.slots.values()
            }
            self._changed_slots.add(key)
            self._has_changed(key, state, now)
        for key, runs in self._unasked.items():
            self._unasked[key] = [run(one) for one in runs]

    def prune(self, now: int) -> None:
        """Forget the tasks that no message has asked for in ``KEPT_NS``."""
        for key in [one for one, state in self.tasks.items() if state.asked_ns < now - KEPT_NS]:
            self._remove(key)

    # --- limits, and what is due ----------------------------------------------------------------

    def take_limits(self, limits_s: Mapping[str, float], now: int) -> None:
        """From now on these rules have a ``fresh_within``, in seconds; the others have none."""
        self._limits_s = dict(limits_s)
        for key, state in self.tasks.items():
            self._has_changed(key, state, now)
            self._announce(key, state, now, is_news=False)

    def limit_s(self, state: TaskFreshnessState) -> float | None:
        """The shortest ``fresh_within`` of the rules that asked for a task."""
        names = {*state.rules, *(name for ask in state.asks for name in ask.rules)}
        return min((self._limits_s[name] for name in names if name in self._limits_s), default=None)

    def next_due(self) -> int | None:
        """When ``take_late`` or ``take_told`` has something at the earliest."""
        due = [at for at in (self._late.next_due(), self._tell.next_due()) if at is not None]
        return min(due, default=None)

    def take_late(self, now: int) -> list[str]:
        """The tasks whose ``fresh_within`` is over and of which that was not told, each once."""
        found = []
        for key in self._late.take_due(now):
            state, late_ns = self.tasks.get(key), self._late_ns(key)
            if state is None or late_ns is None:
                continue
            if late_ns > now:
                self._late.set(key, late_ns)
            elif not state.is_late:
                state.is_late = True
                found.append(key)
                self._touch(key)
                self._announce(key, state, now)
        return found

    def take_told(self, now: int) -> list[str]:
        """The tasks whose freshness is to be published now.

        One that has no limit, or is forgotten: its retained message is to be removed.
        """
        found = list(self._tell.take_due(now))
        for key in found:
            if (state := self.tasks.get(key)) is not None:
                self._told_ns[key] = now
                state.is_due = False
                state.is_told = self.limit_s(state) is not None
                self._touch(key)
        return found

    def take_changed(self) -> dict[tuple[str, str], bytes | None]:
        """What has to be written, by kind and name; ``None``: the row goes."""
        rows: dict[tuple[str, str], bytes | None] = {}
        for key in self._changed:
            state = self.tasks.get(key)
            if state is None:
                rows[KIND, key] = rows[KIND_DAY, key] = None
                continue
            rows[KIND, key] = _encode(msgspec.structs.replace(state, slots={}))
            if key in self._changed_slots:
                rows[KIND_DAY, key] = _encode(state.slots)
        self._changed.clear()
        self._changed_slots.clear()
        return rows

    def figures(self, key: str, now: int) -> Figures:
        """``figures`` of a task, kept until it changes or the day is over."""
        day = now // DAY_NS
        kept = self._figures.get(key)
        if kept is None or kept[0] != day:
            kept = self._figures[key] = (day, figures(self.tasks[key], now))
        return kept[1]

    # --- over restarts ----------------------------------------------------------------------------

    def load(
        self, rows: Mapping[str, bytes], now: int, days: Mapping[str, bytes] | None = None
    ) -> list[str]:
        """Take up what was written; returns the names of rows that can't be read.

        ``days`` are the rows of ``KIND_DAY``; a curve that can't be read begins anew.
        """
        days = days or {}
        unreadable = []
        for key, body in rows.items():
            try:
                state = _decode(body)
            except (msgspec.MsgspecError, ValueError, TypeError):
                unreadable.append(key)
                self._touch(key)
                continue
            if key in days:
                with contextlib.suppress(msgspec.MsgspecError, ValueError, TypeError):
                    state.slots = _decode_slots(days[key])
            self.tasks[key] = state
            self._follow(key, state, now)
            is_news = state.is_due and self.limit_s(state) is not None
            self._announce(key, state, now, is_news=is_news)
        return unreadable

    def _touch(self, key: str) -> None:
        """A task has changed: its row is written, and what follows from it is made anew."""
        self._changed.add(key)
        self._figures.pop(key, None)

    # --- parts ------------------------------------------------------------------------------------

    def _keep_late(self, task_id: str, before: TaskFreshnessState, now: int) -> None:
        """What was told to be late by its selector is not told again now that it is a task."""
        found = self.stale.get(task_id)
        if before.is_late and found and found.late_ns is not None and found.late_ns <= now:
            self.tasks[task_id].is_late = True
            self._late.drop(task_id)

    def _add(
        self,
        key: str,
        name: str,
        asks: Iterable[Ask],
        now: int,
        selector: TaskSelector | None = None,
    ) -> None:
        state = self.tasks.get(key)
        if state is None:
            if not self._has_room():
                self.left_out += sum(one.count for one in asks)
                return
            state = self.tasks[key] = TaskFreshnessState(name, runs=self._unasked.pop(key, []))
        state.name = name or state.name
        state.selector = selector or state.selector
        for ask in asks:
            state.asked_ns = max(state.asked_ns, ask.last_ns)
            for rule in ask.rules:
                if rule not in state.rules:
                    state.rules = [*state.rules, rule][-MAX_RULES:]
            run = min(
                (one for one in state.runs if one.covers(ask)),
                key=lambda one: one.fresh_ns,
                default=None,
            )
            if run is not None:
                self._note(key, state, ask, run.fresh_ns)
            elif not self._is_same(state, ask):
                state.asks.append(ask)
                if len(state.asks) > MAX_ASKS:
                    self._join(state)
        self._has_changed(key, state, now)

    @staticmethod
    def _is_same(state: TaskFreshnessState, ask: Ask) -> bool:
        """Whether another rule asked the same because of the same message."""
        last = state.asks[-1] if state.asks else None
        if last is None or (last.last_seq, last.reload) != (ask.seq, ask.reload):
            return False
        rules = tuple(dict.fromkeys((*last.rules, *ask.rules)))
        state.asks[-1] = msgspec.structs.replace(last, rules=rules)
        return True

    def _extend(self, key: str, asked_ns: int, seq: int, rule: str, reload: ReloadOptions) -> bool:
        """Hold a message of a stream together with the one before it, if many wait already."""
        state = self.tasks.get(key)
        if state is None or len(state.asks) < MANY_ASKS:
            return False
        places = range(len(state.asks) - 1, len(state.asks) - 1 - NEWEST_ASKS, -1)
        place = next((one for one in places if state.asks[one].reload == reload), None)
        if place is None:
            return False
        last = state.asks[place]
        if not last.last_ns <= asked_ns < last.first_ns + SECOND_NS:
            return False
        if seq != last.last_seq or rule not in last.rules:
            count = last.count + (seq != last.last_seq)
            state.asks[place] = Ask(
                last.first_ns,
                asked_ns,
                last.seq,
                seq,
                count,
                self._rules((*last.rules, rule)),
                reload,
            )
        if rule not in state.rules:
            state.rules = [*state.rules, rule][-MAX_RULES:]
        state.asked_ns = max(state.asked_ns, asked_ns)
        self._touch(key)
        return True

    def _join(self, state: TaskFreshnessState) -> None:
        """Hold neighbours that came closest together as one, two by two.

        Some go at once, so that the messages that follow need no search.
        """
        asks = state.asks
        last: dict[ReloadOptions, int] = {}
        pairs: list[tuple[int, int, int]] = []
        for place, ask in enumerate(asks):
            if (before := last.get(ask.reload)) is not None:
                pairs.append((_span(asks[before], ask), before, place))
            last[ask.reload] = place
        if not pairs:
            self.left_out += asks.pop().count
            return
        joined: dict[int, Ask | None] = {}
        for _, first, second in sorted(pairs):
            if first in joined or second in joined:
                continue
            joined[first], joined[second] = self._together(asks[first], asks[second]), None
            if len(joined) >= 2 * JOINED_AT_ONCE:
                break
        held = (joined.get(place, ask) for place, ask in enumerate(asks))
        state.asks = [one for one in held if one is not None]

    def _together(self, one: Ask, two: Ask) -> Ask:
        """Two that ask for the same, as one."""
        oldest = min(one, two, key=lambda ask: ask.first_ns)
        return Ask(
            oldest.first_ns,
            max(one.last_ns, two.last_ns),
            oldest.seq,
            max(one.last_seq, two.last_seq),
            one.count + two.count,
            self._rules((*one.rules, *two.rules)),
            one.reload,
        )

    def _rules(self, names: Iterable[str]) -> tuple[str, ...]:
        """The rules that count for messages held as one: the shortest ``fresh_within`` first."""
        found = tuple(dict.fromkeys(names))
        if len(found) <= MAX_RULES:
            return found
        limits = self._limits_s
        return tuple(sorted(found, key=lambda one: limits.get(one, math.inf))[:MAX_RULES])

    def _note(self, key: str, state: TaskFreshnessState, ask: Ask, fresh_ns: int) -> None:
        """Messages are covered: how long that took."""
        latency_s = max(0.0, (fresh_ns - ask.first_ns) / SECOND_NS)
        day = self._day(state, fresh_ns)
        day.messages += ask.count
        day.worst_s = max(day.worst_s, latency_s)
        bucket = bucket_of(latency_s)
        day.buckets[bucket] = day.buckets.get(bucket, 0) + ask.count
        slot = fresh_ns // SLOT_NS
        if slot not in state.slots or latency_s >= state.slots[slot][1]:
            state.slots[slot] = (fresh_ns, latency_s)
            self._changed_slots.add(key)
        if len(state.slots) > DAY_NS // SLOT_NS:
            first = max(state.slots) - DAY_NS // SLOT_NS
            state.slots = {one: found for one, found in state.slots.items() if one > first}
        place = next((at for at, most in enumerate(BOUNDS_S) if latency_s <= most), len(BOUNDS_S))
        self.histogram[place] += ask.count
        self.latency_sum_s += latency_s * ask.count

    @staticmethod
    def _day(state: TaskFreshnessState, at_ns: int) -> Day:
        number = at_ns // DAY_NS
        if (day := state.days.get(number)) is None:
            kept = {one: day for one, day in state.days.items() if number - DAYS < one}
            newest = sorted(kept)[-DAYS:]
            state.days = {one: kept[one] for one in newest}
            day = state.days[number] = Day()
        return day

    def _has_room(self) -> bool:
        if len(self.tasks) < MAX_TASKS:
            return True
        fresh = [key for key in self.tasks if key not in self.stale]
        if not fresh:
            return False
        self._remove(min(fresh, key=lambda key: self.tasks[key].asked_ns))
        return True

    def _remove(self, key: str) -> None:
        state = self.tasks.pop(key)
        self.stale.pop(key, None)
        self._late.drop(key)
        self._tell.drop(key)
        if state.is_told:
            self._tell.set(key, 0)
        self._told_ns.pop(key, None)
        self._touch(key)

    def _has_changed(self, key: str, state: TaskFreshnessState, now: int) -> None:
        self._touch(key)
        before = self.stale.get(key)
        self._follow(key, state, now)
        if before != self.stale.get(key):
            self._announce(key, state, now)

    def _announce(
        self, key: str, state: TaskFreshnessState, now: int, *, is_news: bool = True
    ) -> None:
        """Have a task's freshness published, if a rule has a ``fresh_within`` for it.

        Without news: only if that is another than it was when it was published last.
        """
        has_limit = self.limit_s(state) is not None
        if is_task(key) and (has_limit if is_news else has_limit != state.is_told):
            state.is_due = True
            self._tell.set(key, max(now, self._told_ns.get(key, 0) + TELL_EVERY_NS))

    def _follow(self, key: str, state: TaskFreshnessState, now: int) -> None:
        """Bring what follows from a task's messages to its present state."""
        since_ns = state.stale_since_ns
        if since_ns is None:
            self.stale.pop(key, None)
            self._late.drop(key)
            state.is_late = False
            return
        late_ns = self._late_ns(key)
        present = Stale(key, since_ns, late_ns)
        if self.stale.get(key) != present:
            self.stale[key] = present
        if late_ns is None or late_ns > now:
            state.is_late = False
        if late_ns is None:
            self._late.drop(key)
        elif not state.is_late:
            self._late.set(key, late_ns)

    def _late_ns(self, key: str) -> int | None:
        """When the first ``fresh_within`` of a task's messages is over."""
        if not (limits := self._limits_s):
            return None
        return min(
            (
                ask.first_ns + int(limits[name] * SECOND_NS)
                for ask in self.tasks[key].asks
                for name in ask.rules
                if name in limits
            ),
            default=None,
        )


def _span(one: Ask, two: Ask) -> int:
    return max(one.last_ns, two.last_ns) - min(one.first_ns, two.first_ns)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TaskFreshnessState).decode
_decode_slots = msgspec.msgpack.Decoder(dict[int, tuple[int, float]]).decode
