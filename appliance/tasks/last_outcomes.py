"""How each task's last request ended: which tasks fail, until they succeed again.

Not for: locking (the views' lock is held around each call), or the numbers of runs (views.py).
"""

from __future__ import annotations

from collections import OrderedDict

from appliance.engine_api import FailingTask
from appliance.model import Execution, ExecutionState

MAX_TASKS = 10_000
"""Tasks whose last outcome is remembered; the one that ended longest ago is forgotten first."""
SHOWN_NS = 7 * 86400 * 1_000_000_000
"""A task that ended badly is named for a week, unless it succeeds before that."""
_LIST_EVERY_NS = 60 * 1_000_000_000
"""Unless an outcome comes, the list is made anew so often, for the tasks whose week is over."""
MAX_REASON = 400
"""Characters of a reason; the execution has it whole."""

_ENDED_BADLY = frozenset({ExecutionState.FAILED, ExecutionState.ABORTED, ExecutionState.LOST})
_NEVER_RAN = frozenset({ExecutionState.REFUSED, ExecutionState.EXPIRED, ExecutionState.REJECTED})


class LastOutcomes:
    """The last outcome of each task. Not thread-safe."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[int, int, FailingTask | None]] = OrderedDict()
        """When it ended, its number, and what to say of it (``None``: it succeeded), by task id."""
        self._failing: set[str] = set()
        self._listed: list[FailingTask] | None = None
        self._listed_ns = 0

    def note(self, execution: Execution) -> None:
        """Take account of an execution that has ended."""
        task_id = execution.task_id
        if not task_id or not (_is_success(execution) or _is_failure(execution)):
            return
        ended_ns = execution.ended_ns or execution.requested_ns
        before = self._last.get(task_id)
        if before is not None and before[:2] > (ended_ns, execution.id):
            return  # an earlier run whose log came late
        failing = None if _is_success(execution) else _failing(execution, ended_ns)
        self._last[task_id] = (ended_ns, execution.id, failing)
        self._last.move_to_end(task_id)
        self._listed = None
        if failing is None:
            self._failing.discard(task_id)
        else:
            self._failing.add(task_id)
        while len(self._last) > MAX_TASKS:
            forgotten, _ = self._last.popitem(last=False)
            self._failing.discard(forgotten)

    def failing(self, now_ns: int) -> list[FailingTask]:
        """The tasks that fail, the newest first."""
        if self._listed is None or not 0 <= now_ns - self._listed_ns < _LIST_EVERY_NS:
            self._listed, self._listed_ns = self._list(now_ns), now_ns
        return self._listed

    def failing_executions(self, now_ns: int) -> dict[str, int]:
        """The executions that ended badly, by the ids of their tasks."""
        return {one.task_id: one.execution for one in self.failing(now_ns)}

    def _list(self, now_ns: int) -> list[FailingTask]:
        found = [self._last[task_id] for task_id in self._failing]
        return sorted(
            (
                failing
                for ended_ns, _, failing in found
                if failing is not None and ended_ns > now_ns - SHOWN_NS
            ),
            key=lambda one: (-one.ended_ns, one.task_id),
        )


def _is_success(execution: Execution) -> bool:
    return execution.state is ExecutionState.SUCCEEDED


def _is_failure(execution: Execution) -> bool:
    """Whether the task itself needs attention, and not only the message that asked for it.

    A request that an operator took back is none. A message can name any id, so a start that never
    became a run counts for a task that the server is known to have, and after a start call.
    """
    if execution.state is ExecutionState.ABORTED:
        return bool(execution.execution_id)
    if execution.state in _ENDED_BADLY:
        return True
    return execution.state in _NEVER_RAN and execution.attempts > 0 and bool(execution.task_name)


def _failing(execution: Execution, ended_ns: int) -> FailingTask:
    reason = execution.reason
    if len(reason) > MAX_REASON:
        reason = f"{reason[:MAX_REASON]}…"
    return FailingTask(
        execution.task_id,
        execution.task_name or execution.task_id,
        execution.state,
        reason,
        execution.id,
        ended_ns,
    )
