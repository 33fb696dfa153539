"""Where a request would stand that does not exist, by the functions that decide in earnest.

The dispatcher is asked about a draft of the request, and then again at the end of each wait, as its
clock would ask. What else may happen meanwhile is not foreseen. Nothing is changed.

Not for: rules and tasks (explanation.py), or deciding when requests go (dispatcher.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import msgspec

from appliance.engine_api import ExplainedCheck, ExplainedStart
from appliance.model import Cause, ReloadOptions
from appliance.tasks.dispatcher import RUNS_ALREADY, WAITS_FOR_COOLDOWN, Placement, quiet_ns
from appliance.tasks.holds import asker_of
from appliance.tasks.planner import Planner
from appliance.tasks.queues import key_of_selector, merges
from appliance.tasks.records import Record
from appliance.tasks.request_book import to_ns
from appliance.tasks.selector import TaskSelector
from appliance.tasks.states import RequestState
from appliance.tasks.triggers import Options

_MAX_WAITS = 8
"""Waits of one request that are followed, one after the other."""
_SAME_MESSAGE = "A start of the same message answers it, too."
_EXPIRES = "Not wanted any more when its turn comes (expire)."
_FIRST_RUNS = "Waits for the end of a run that the same message starts."
_FOUND = ("task", "[allow]")
"""Checks of a start that are none of the dispatcher's."""
_IF_RUNNING = {
    "queue_one": "waits for the end of a run",
    "skip": "starts nothing while it runs",
    "start": "starts beside a run",
}


class _Prospect(NamedTuple):
    """Where a request would get to by itself."""

    waits: tuple[Placement, ...]
    at_ns: int
    end: Placement


class Foreseen(NamedTuple):
    """What becomes of one request, and what it takes to see how it meets others."""

    start: ExplainedStart
    options: Options
    """Its own, or those of the request that it is merged into."""
    asked_ns: int
    """When it, or the request that it is merged into, was asked for first."""
    draft: Record | None = None
    """As it enters its queue at ``enters_ns``; further requests of the message are merged into it.
    ``None``: it enters none, or another one of the message stands for it."""
    enters_ns: int = 0
    expires_ns: int = 0
    """When it expires, at the end of its waits."""

    @property
    def starts_ns(self) -> int | None:
        """When it starts if nothing else happens, ``None`` if that can only be guessed."""
        return None if self.start.is_guess else self.start.at_ns


class Foresight:
    """What the dispatcher would do with the requests of one message, now.

    The state store's lock guards it. The requests are asked about in the order in which they enter
    the queues of their tasks.
    """

    def __init__(self, planner: Planner, next_check_ns: int | None, now: int) -> None:
        self._planner = planner
        self._dispatcher = planner.dispatcher
        self._next_check_ns = next_check_ns
        self._now = now
        self._asked: dict[tuple[object, ReloadOptions], Foreseen] = {}
        """Requests of the same message that wait, by what further ones are merged by."""
        self._renewed: dict[int, Record] = {}
        """Copies of requests that wait already and that the message renews, by execution."""
        self.earlier: list[Foreseen] = []
        """Requests that wait already and start before what the message asks for finds its task."""

    def one(self, selector: TaskSelector, options: Options, cause: Cause, what: str) -> Foreseen:
        """What becomes of a request."""
        expires = self._now + to_ns(options.expire_s)
        asked = Foreseen(ExplainedStart(what, ""), options, self._now, None, self._now, expires)
        return self._of(selector, cause, asked, renewed_ns=self._now)

    def found(
        self, first: Foreseen, task_id: str, what: str, cause: Cause, *, is_first: bool
    ) -> Foreseen:
        """What becomes of a request when a task of it is found, after the wait of ``first``.

        ``is_first``: the request goes on as that of this task; there is a new one for others.
        """
        at_ns = first.starts_ns or self._now
        start = ExplainedStart(what, "", execution=first.start.execution)
        asked = first._replace(start=start, draft=None, enters_ns=at_ns)
        return self._of(
            TaskSelector("id", task_id),
            cause,
            asked,
            renewed_ns=self._now if is_first else at_ns,
            is_found=True,
        )

    def _of(
        self,
        selector: TaskSelector,
        cause: Cause,
        asked: Foreseen,
        *,
        renewed_ns: int,
        is_found: bool = False,
    ) -> Foreseen:
        """What becomes of a request that enters a queue.

        ``renewed_ns`` is when it renews the wait of the one that it is merged into. ``is_found``:
        it had a queue of its own until its task was found.
        """
        dispatcher, options, at_ns = self._dispatcher, asked.options, asked.enters_ns
        task_id = selector.value if selector.kind == "id" else ""
        asker = ("", "") if is_found else asker_of(cause)

        def nothing(field: str, found: str, reason: str) -> Foreseen:
            check = ExplainedCheck(field, False, "", found, reason)
            start = ExplainedStart(
                asked.start.what, "nothing", task_id, reason=reason, checks=(check,)
            )
            return asked._replace(start=start)

        hold = dispatcher.holds.dropping(task_id, asker, asked.asked_ns, at_ns)
        if hold is not None:
            return nothing("hold", hold.shown, hold.rejection.reason)
        key = (key_of_selector(selector), options.reload)
        before = self._asked.get(key) if merges(options) else None
        if before is not None and not (is_found and self._runs_by(before, at_ns)):
            assert before.draft is not None
            _renew(before.draft, cause, renewed_ns, asked.expires_ns)
            start = ExplainedStart(asked.start.what, "merge", task_id, reason=_SAME_MESSAGE)
            return asked._replace(start=start)
        target = dispatcher.answers(selector, options, at_ns, asked.expires_ns)
        if target is not None and not (is_found and self._leaves_by(target, at_ns)):
            draft = self._renewed.setdefault(target.id, msgspec.structs.replace(target))
            _renew(draft, cause, renewed_ns, asked.expires_ns)
            start = msgspec.structs.replace(asked.start, execution=target.id)
            return self._seen(
                asked._replace(
                    start=start,
                    draft=draft,
                    options=target.options,
                    asked_ns=target.execution.requested_ns,
                )
            )
        if (full := dispatcher.why_full(selector, options)) is not None:
            return nothing("queue", full.label, full.reason)
        draft = self._planner.book.draft(
            selector, options, cause, at_ns, asked=asked.asked_ns, expires=asked.expires_ns
        )
        if dispatcher.skips_at_once(draft):
            return nothing("what runs", "a run of the task", RUNS_ALREADY)
        found = self._seen(asked._replace(draft=draft))
        if merges(options):
            self._asked[key] = found
        return found

    def _runs_by(self, before: Foreseen, at_ns: int) -> bool:
        """Whether what the same message asked for before has left the queue by then."""
        started = self.renewed(before).starts_ns
        return started is not None and started <= at_ns

    def _leaves_by(self, target: Record, at_ns: int) -> bool:
        """Whether a request that waits now will have started by then; it is noted if so."""
        draft = self._renewed.get(target.id, target)
        start = ExplainedStart(draft.execution.task_name, "", execution=target.id)
        seen = self._seen(
            Foreseen(start, draft.options, draft.execution.requested_ns, draft, self._now)
        )
        if seen.starts_ns is None or seen.starts_ns > at_ns:
            return False
        self.earlier.append(seen)
        return True

    def unforeseen(self, starts: Collection[ExplainedStart]) -> int:
        """How many requests wait that may start a task of these before, which is not followed."""
        task_ids = {one.task_id for one in starts if one.effect != "nothing"}
        followed = {one.execution for one in starts}
        return sum(
            one.id not in followed
            and not (merges(one.options) and one.execution.task_id)
            and one.posted_ns is None
            and not one.execution.attempts
            for one in (self._dispatcher.queues.may_mean(*task_ids) if task_ids else ())
        )

    def renewed(self, one: Foreseen) -> Foreseen:
        """The same, if later requests of the message were merged into it."""
        again = self._seen(one)
        before = (one.start.effect, one.start.at_ns, one.expires_ns)
        if one.draft is None or (again.start.effect, again.start.at_ns, again.expires_ns) == before:
            return one
        kept = (check for check in one.start.checks if check.field in _FOUND)
        checks = (*kept, *again.start.checks)
        return again._replace(start=msgspec.structs.replace(again.start, checks=checks))

    def _seen(self, one: Foreseen) -> Foreseen:
        """Follow the draft of a request through its waits."""
        if one.draft is None:
            return one
        # A copy: its expiry moves with a hold, as that of a request does.
        record = msgspec.structs.replace(one.draft)
        prospect = self._follow(record, one.enters_ns)
        effect, at_ns, reason = self._end(record, prospect)
        is_guess, execution = effect == "wait", one.start.execution
        if execution and effect != "nothing":
            answers = f"Execution {execution}, which waits already, answers it."
            effect, reason = "merge", f"{answers} {reason}".rstrip()
        start = ExplainedStart(
            one.start.what,
            effect,
            record.execution.task_id,
            at_ns=at_ns,
            reason=reason,
            execution=execution,
            checks=tuple(self._checks(record, prospect)),
            is_guess=is_guess,
        )
        return one._replace(start=start, expires_ns=record.expires_ns)

    def _follow(self, record: Record, now: int) -> _Prospect:
        """Follow its waits as the clock would end them, one after the other."""
        waits: list[Placement] = []
        while True:
            found = self._dispatcher.placement(record, now)
            if found.until_ns is None or len(waits) == _MAX_WAITS:
                return _Prospect(tuple(waits), now, found)
            if found.state is RequestState.PAUSED:
                return _Prospect(tuple(waits), now, found)
            waits.append(found)
            is_held = found.state is RequestState.HELD
            record.note_hold(now, is_held=is_held)
            now = found.until_ns
            record.note_hold(now, is_held=False)

    def _end(self, record: Record, prospect: _Prospect) -> tuple[str, int | None, str]:
        state, why = prospect.end.state, prospect.end.why
        if state is RequestState.READY:
            if turn := self._no_turn(record):
                return "wait", None, f"Waits for its turn: {turn}."
            if self._dispatcher.has_others:
                return "start", prospect.at_ns, "Other appliances' runs are looked at first."
            return "start", prospect.at_ns, prospect.waits[-1].why if prospect.waits else ""
        if state in (RequestState.EXPIRED, RequestState.LOST):
            return "nothing", None, _EXPIRES
        if state is RequestState.SKIPPED:
            return "nothing", None, why
        if state is RequestState.BLOCKED:
            return "wait", self._free_ns(record, prospect.at_ns), why
        if state is RequestState.SERVER_AWAY:
            return "wait", self._next_check_ns, why
        return "wait", None, why

    def _no_turn(self, record: Record) -> str:
        # One that has a turn to wait for is no call of the server's list of tasks.
        return self._dispatcher.why_no_turn() if record.execution.task_id else ""

    def _free_ns(self, record: Record, at_ns: int) -> int | None:
        """About when what runs has ended, by its usual time; ``None``: that can't be said."""
        ends = []
        for one in self._dispatcher.blocking(record):
            usual_s = self._planner.usual_s(one.execution.task_id)
            began = one.execution.started_ns or one.posted_ns or self._now
            if usual_s is None or began + to_ns(usual_s) <= self._now:
                return None
            ends.append(began + to_ns(usual_s))
        return max((at_ns, *ends)) if ends else None

    def _checks(self, record: Record, prospect: _Prospect) -> Iterator[ExplainedCheck]:
        options, now = record.options, self._now
        quiet = quiet_ns(record)
        yield _wait_check(
            "debounce",
            f"{span(options.debounce_s)} without a further message" if options.debounce_s else "",
            quiet if quiet > now else None,
        )
        if not record.execution.task_id:
            yield self._hold(record)
            return
        cooled = self._dispatcher.cooled_ns(record)
        yield _wait_check(
            "cooldown",
            f"{span(options.cooldown_s)} since the last start" if options.cooldown_s else "",
            cooled if cooled > now else None,
        )
        yield self._runs(record, prospect)
        is_away = self._dispatcher.circuit_open
        yield ExplainedCheck(
            "server",
            ok=True,
            found="does not answer" if is_away else "answers",
            reason=prospect.end.why if prospect.end.state is RequestState.SERVER_AWAY else "",
            waits=is_away,
            until_ns=self._next_check_ns if is_away else None,
        )
        turn = self._no_turn(record)
        yield ExplainedCheck("turn", ok=True, found=turn or "a worker is free", waits=bool(turn))
        yield self._hold(record)

    def _hold(self, record: Record) -> ExplainedCheck:
        hold = self._dispatcher.hold_of(record, self._now)
        if hold is None:
            return ExplainedCheck("hold", True, found="none")
        return ExplainedCheck(
            "hold", True, "", hold.shown, hold.sentence, waits=True, until_ns=hold.until_ns
        )

    def _runs(self, record: Record, prospect: _Prospect) -> ExplainedCheck:
        if_running = record.options.if_running
        active = self._dispatcher.queues.active(record.execution.task_id)
        shown = ", ".join(f"execution {one.id} ({one.execution.state.value})" for one in active)
        end = prospect.end.state
        is_blocked = end is RequestState.BLOCKED
        return ExplainedCheck(
            "what runs",
            ok=end is not RequestState.SKIPPED,
            wanted=_IF_RUNNING.get(if_running, if_running),
            found=shown or "nothing",
            reason=prospect.end.why if is_blocked or end is RequestState.SKIPPED else "",
            waits=is_blocked,
            until_ns=self._free_ns(record, prospect.at_ns) if is_blocked else None,
        )


def met(found: Sequence[Foreseen], earlier: Sequence[Foreseen]) -> list[Foreseen]:
    """How starts of one message meet: the first one of a task holds back those that come later.

    ``earlier``: requests of before that start meanwhile.
    """
    first: dict[str, Foreseen] = {}
    for one in (*earlier, *found):
        task_id, at_ns = one.start.task_id, one.starts_ns
        if task_id and at_ns is not None:
            before = first.get(task_id)
            if before is None or at_ns < (before.starts_ns or 0):
                first[task_id] = one
    return [_behind(one, first.get(one.start.task_id, one)) for one in found]


def _behind(one: Foreseen, first: Foreseen) -> Foreseen:
    """A start of a task that ``first``, of the same message, starts before."""
    options, start, replace = one.options, one.start, msgspec.structs.replace
    is_same = one is first or 0 < start.execution == first.start.execution
    if is_same or one.starts_ns is None or first.starts_ns is None:
        return one
    over = first.starts_ns + to_ns(options.cooldown_s)
    if options.cooldown_s and over >= one.asked_ns + to_ns(options.expire_s):
        start = replace(start, effect="nothing", at_ns=None, reason=_EXPIRES)
    elif options.if_running == "skip":
        start = replace(start, effect="nothing", at_ns=None, reason=RUNS_ALREADY)
    elif options.if_running != "start":
        start = replace(start, effect="wait", at_ns=None, is_guess=True, reason=_FIRST_RUNS)
    elif over > one.starts_ns:
        start = replace(start, at_ns=over, reason=WAITS_FOR_COOLDOWN)
    return one._replace(start=start)


def _renew(draft: Record, cause: Cause, asked_ns: int, expires_ns: int) -> None:
    """Let a request answer a further one."""
    draft.last_asked_ns = max(draft.last_asked_ns, asked_ns)
    draft.expires_ns = max(draft.expires_ns, expires_ns)
    draft.add_askers((asker_of(cause),))


def _wait_check(field: str, wanted: str, until_ns: int | None) -> ExplainedCheck:
    if not wanted:
        return ExplainedCheck(field, True, found="none")
    found = "over" if until_ns is None else "not over"
    return ExplainedCheck(field, True, wanted, found, "", until_ns is not None, until_ns)


def span(seconds: float) -> str:
    """A time in words: ``"90 s"``, ``"15 min"``, ``"2 h"``."""
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if seconds >= unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s"
