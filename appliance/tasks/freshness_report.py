"""What people are told of freshness: each task in words, the news on its topic, the notice.

Not for: what is fresh (freshness.py), or publishing (state_store.py).
"""

from __future__ import annotations

import logging
import math
from itertools import accumulate
from typing import Any

import msgspec

from appliance.engine_api import TaskFreshness
from appliance.model import Cause, Execution, ExecutionState, ReloadOptions
from appliance.problems import duration_text
from appliance.tasks.catalog import TaskList
from appliance.tasks.freshness import BOUNDS_S, Stale, is_task
from appliance.tasks.freshness_state import DAY_NS, SECOND_NS, Figures, TaskFreshnessState
from appliance.tasks.notice import Notice
from appliance.tasks.outcomes import time_text
from appliance.tasks.queues import key_of_selector
from appliance.tasks.state_store import StateStore
from appliance.tasks.store import Publication
from appliance.tasks.task_index import ambiguity
from appliance.tasks.together import parts_of
from appliance.tasks.views import why_it_waits

_log = logging.getLogger(__name__)
MAX_REASON = 300
"""Characters of a reason; the execution has it whole."""
MAX_NAMED = 20
"""Stale tasks that a snapshot names; all are counted."""
_LOOK_EVERY_NS = SECOND_NS
_LOOKED_AT = 200
"""Open requests of which the task is not known that are looked at for a name."""
_AT_ONCE = 50
"""Tasks that are looked at in one go: starts wait for the lock meanwhile."""
_FIND_EVERY_NS = 10 * SECOND_NS
"""What no request waits for any more is looked for in the list of tasks this often."""
_NO_FIGURES = Figures()
_RUNS = {
    ExecutionState.QUEUED: "It waits in the queue of the Qlik server.",
    ExecutionState.RUNNING: "It runs.",
}


class Named(msgspec.Struct, frozen=True):
    """The stale tasks in a snapshot."""

    tasks: tuple[TaskFreshness, ...] = ()
    stale: int = 0
    late: int = 0


class FreshnessReport:
    """Reads what the planner knows. Any thread, but for what is within a change."""

    def __init__(self, state: StateStore, tasks: TaskList, service_name: str) -> None:
        self._state = state
        self._freshness = state.planner.book.freshness
        self._tasks = tasks
        self._prefix = f"{service_name}/tasks/"
        self._named = Named()
        self._looked_ns = self._found_ns = 0
        state.find_left = self.find_left
        state.tell_late = self.tell_late
        state.tell_freshness = self.publish

    # --- reading --------------------------------------------------------------------------------

    def named(self) -> Named:
        """The stale tasks that are named, looked for once a second at most. Never waits."""
        now = self._state.clock_ns()
        if 0 <= now - self._looked_ns < _LOOK_EVERY_NS:
            return self._named
        self._looked_ns = now
        found = sorted(self._freshness.stale.copy().values(), key=lambda one: _urgency(one, now))
        states = [(one, self._freshness.tasks.get(one.key)) for one in found[:MAX_NAMED]]
        self._named = Named(
            tuple(
                self._of(one.key, state, _NO_FIGURES, now)
                for one, state in states
                if state is not None
            ),
            len(found),
            sum(_is_late(one, now) for one in found),
        )
        return self._named

    def all(self) -> list[TaskFreshness]:
        """Every task that messages asked for: late ones first, then by how long they are stale."""
        now = self._state.clock_ns()
        freshness, usual_s = self._freshness, self._state.planner.usual_s
        with self._state.lock:
            keys = list(freshness.tasks)
        found: list[TaskFreshness] = []
        for first in range(0, len(keys), _AT_ONCE):
            with self._state.lock:
                found += [
                    msgspec.structs.replace(
                        self._of(key, state, freshness.figures(key, now), now),
                        usual_s=usual_s(key) if is_task(key) else None,
                    )
                    for key in keys[first : first + _AT_ONCE]
                    if (state := freshness.tasks.get(key)) is not None
                ]
        return sorted(found, key=_order)

    def day(self, task_id: str) -> list[tuple[int, float]]:
        """The last 24 hours of a task: see ``Engine.freshness_day``."""
        with self._state.lock:
            state = self._freshness.tasks.get(task_id)
            slots = {} if state is None else dict(state.slots)
        now = self._state.clock_ns()
        return [one for _, one in sorted(slots.items()) if now - DAY_NS < one[0] <= now]

    def latencies(self) -> tuple[tuple[tuple[float, int], ...], float]:
        """Messages since the start by the time that they took, and the sum of these times."""
        counts = accumulate(tuple(self._freshness.histogram))
        bounds = (*map(float, BOUNDS_S), math.inf)
        return tuple(zip(bounds, counts, strict=True)), self._freshness.latency_sum_s

    def _of(self, key: str, state: TaskFreshnessState, found: Figures, now: int) -> TaskFreshness:
        task = self._tasks.known(key)
        oldest = state.oldest
        stale = self._freshness.stale.get(key)
        kind, why, execution = ("", "", 0)
        if oldest is not None:
            kind, why, execution = self._why(key, state.name, oldest.first_ns)
        return TaskFreshness(
            task_id=key if is_task(key) else "",
            name=(task.name if task is not None else "") or state.name or key,
            app=task.app_name if task is not None else "",
            stale_since_ns=None if oldest is None else oldest.first_ns,
            oldest_seq=0 if oldest is None else oldest.seq,
            waiting=state.waiting,
            fresh_within_s=self._freshness.limit_s(state),
            late_ns=None if stale is None else stale.late_ns,
            is_late=stale is not None and _is_late(stale, now),
            kind=kind,
            why=why,
            execution=execution,
            fresh_ns=state.fresh_ns,
            messages=found.messages,
            runs=found.runs,
            merged=found.merged,
            p50_s=found.p50_s,
            p95_s=found.p95_s,
            worst_s=found.worst_s,
        )

    def _why(self, key: str, name: str, since_ns: int) -> tuple[str, str, int]:
        """Why no run has covered a message that came then: kind, sentence, execution."""
        views = self._state.views
        if not is_task(key):
            unknown = views.open_of("", _LOOKED_AT)
            found = [one for one in unknown if one.task_name == name]
            if not found:
                return (
                    "unknown",
                    "No start is under way, and it is not known which task that is.",
                    0,
                )
            return (*why_it_waits(found[0]), found[0].id)
        active: list[Execution] = []
        waiting: list[Execution] = []
        for one in views.open_of(key, _LOOKED_AT):
            is_active = one.state in _RUNS or one.state is ExecutionState.STARTING
            (active if is_active else waiting).append(one)
        for one in active:
            if one.requested_ns >= since_ns:
                return self._of_run(one)
        if waiting:
            return (*why_it_waits(waiting[0]), waiting[0].id)
        if active:
            text = (
                "The run that is under way may have begun before the message, and no other waits."
            )
            return "none", text, active[-1].id
        last = views.last_of(key)
        if last is None:
            return "none", "No start is under way.", 0
        if last.state is ExecutionState.SUCCEEDED:
            text = (
                "The last run may have begun before the message, and no other start is under way."
            )
            return "none", text, last.id
        reason = f": {last.reason[:MAX_REASON]}" if last.reason else "."
        return last.state.value, f"The last start ended as {last.state.value}{reason}", last.id

    @staticmethod
    def _of_run(execution: Execution) -> tuple[str, str, int]:
        text = _RUNS.get(execution.state)
        if text is None:
            return (*why_it_waits(execution), execution.id)
        return execution.state.value, execution.reason[:MAX_REASON] or text, execution.id

    # --- within a change ------------------------------------------------------------------------

    def find_left(self) -> None:
        """Find the tasks of messages whose request ended before the server was asked.

        Else no run could ever cover them. The list that was read last is asked, never the server.
        """
        now, freshness = self._state.clock_ns(), self._freshness
        if 0 <= now - self._found_ns < _FIND_EVERY_NS:
            return
        self._found_ns = now
        queues = self._state.planner.dispatcher.queues
        left = [(key, one) for key, one in freshness.tasks.items() if one.selector and one.asks]
        for key, state in left:
            selector = state.selector
            if selector is None or is_task(key):
                continue
            queue = key_of_selector(selector)
            if queues.inactive(queue) or queues.active(queue):
                continue
            reload = state.asks[0].reload
            found: dict[tuple[str, ReloadOptions], str] = {}
            for part in parts_of(selector, reload):
                tasks = self._tasks.find_known(part.selector, part.reload)
                if not tasks or ambiguity(part.selector, tasks) is not None:
                    break
                found.update({(one.id, part.reload): one.name for one in tasks})
            else:
                tasks_found = [(task_id, name, how) for (task_id, how), name in found.items()]
                newest_ns = max(one.last_ns for one in state.asks)
                freshness.resolved(key, newest_ns, tasks_found, now, reload=reload)

    def tell_late(self, key: str) -> None:
        """The data of a task is older than a rule wants it: say so in the log and to people."""
        now = self._state.clock_ns()
        state = self._freshness.tasks[key]
        found = self._of(key, state, _NO_FIGURES, now)
        since_ns = found.stale_since_ns or now
        reason = (
            f"Its data is stale for {duration_text((now - since_ns) / SECOND_NS)}: no successful "
            f"run began after message {found.oldest_seq}, which asked for it (fresh_within "
            f"{duration_text(found.fresh_within_s or 0.0)}). {found.why}"
        )
        _log.warning("%s: %s", found.name, reason)
        last = self._state.views.execution(found.execution)
        execution = Execution(
            id=found.execution,
            task_id=found.task_id,
            task_name=found.name,
            state=ExecutionState.WAITING if last is None else last.state,
            cause=Cause("message", found.oldest_seq, rule=", ".join(state.rules)),
            requested_ns=since_ns,
            reason=reason,
        )
        self._state.tell(Notice("stale", execution))

    def publish(self, key: str) -> None:
        """Publish how fresh a task is; without a limit, remove what is retained on its topic."""
        topic = f"{self._prefix}{key}/freshness"
        state = self._freshness.tasks.get(key)
        if state is None or not state.is_told:
            self._state.publish(Publication(topic, b"", retain=True))
            return
        now = self._state.clock_ns()
        found = self._of(key, state, self._freshness.figures(key, now), now)
        payload = msgspec.json.encode(described(found))
        self._state.publish(Publication(topic, payload, retain=True))


def described(found: TaskFreshness) -> dict[str, Any]:
    """How fresh a task is, as the JSON on its topic has it."""
    is_stale = found.stale_since_ns is not None
    return {
        "taskId": found.task_id,
        "taskName": found.name,
        "appName": found.app,
        "freshness": "late" if found.is_late else "stale" if is_stale else "fresh",
        "staleSince": time_text(found.stale_since_ns),
        "message": found.oldest_seq or None,
        "messagesWaiting": found.waiting,
        "freshWithinSeconds": found.fresh_within_s,
        "lateAt": time_text(found.late_ns),
        "kind": found.kind,
        "why": found.why,
        "execution": found.execution or None,
        "lastFresh": time_text(found.fresh_ns),
        "messages": found.messages,
        "runs": found.runs,
        "merged": found.merged,
        "p50Seconds": _rounded(found.p50_s),
        "p95Seconds": _rounded(found.p95_s),
        "worstSeconds": _rounded(found.worst_s),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _is_late(stale: Stale, now: int) -> bool:
    return stale.late_ns is not None and stale.late_ns <= now


def _urgency(stale: Stale, now: int) -> tuple[bool, int]:
    is_late = _is_late(stale, now)
    return not is_late, stale.late_ns if is_late and stale.late_ns else stale.since_ns


def _order(found: TaskFreshness) -> tuple[bool, bool, int, str]:
    since_ns = found.stale_since_ns
    first = found.late_ns if found.is_late else since_ns
    return not found.is_late, since_ns is None, first or 0, found.name
