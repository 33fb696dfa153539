"""From what a request asks for to its tasks, or to the reason why there are none.

Not for: the server's lists of tasks and apps, and comparing with them (catalog.py); what becomes of
the request (planner.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.model import ReloadOptions, Task
from appliance.tasks.catalog import AllowList
from appliance.tasks.payloads import Rejection, WantedStart
from appliance.tasks.selector import TaskSelector
from appliance.tasks.task_index import ambiguity
from appliance.tasks.together import parts_of
from appliance.tasks.triggers import OWN_OUTCOME

Found = tuple[tuple[Task, ReloadOptions], ...]
_REASONS = 5
"""Reasons that the rejection of several starts gives."""


class Listed(Protocol):
    """The server's list of tasks. Each method raises ``QlikError``; see ``catalog.TaskList``."""

    def get(self) -> Sequence[Task]: ...

    def known(self, task: str) -> Task | None: ...

    def details(self, task: str) -> Task | None: ...

    def find(self, selector: TaskSelector, reload: ReloadOptions) -> list[Task]: ...

    def similar(self, selector: TaskSelector) -> str: ...


class Resolution:
    """Finds the tasks of requests. Thread-safe; it may wait for the server."""

    def __init__(self, tasks: Listed, allow: AllowList) -> None:
        self._tasks = tasks
        self._allow = allow

    def resolve(
        self, selector: TaskSelector, reload: ReloadOptions, is_own: Callable[[str], bool]
    ) -> Found | Rejection:
        """The tasks, each once for each way to reload it; at least one. Raises ``QlikError``.

        ``is_own`` says whether the message that asks is an outcome of this task.
        """
        parts = parts_of(selector, reload)
        if selector.kind != "together":
            return self._resolve_one(parts[0], is_own)
        found: dict[tuple[str, ReloadOptions], tuple[Task, ReloadOptions]] = {}
        reasons: list[str] = []
        for part in parts:
            answer = self._resolve_one(part, is_own)
            if not isinstance(answer, Rejection):
                refusals = [self.refusal(task.id) for task, _ in answer]
                reasons += [one.reason for one in refusals if one is not None]
                found.update({(task.id, how): (task, how) for task, how in answer})
            else:
                reasons.append(answer.reason)
        if not reasons:
            return tuple(found.values())
        reasons = list(dict.fromkeys(reasons))
        more = f" And {len(reasons) - _REASONS} more." if len(reasons) > _REASONS else ""
        return Rejection(
            "not all",
            "Nothing was started, because all or nothing is wanted. "
            + " ".join(reasons[:_REASONS])
            + more,
        )

    def refusal(self, task: str) -> Rejection | None:
        """Why a task may not be started, or ``None``. May ask for a list; raises ``QlikError``."""
        by_id = self._allow.decides_by_id(task)
        details = self._tasks.known(task) if by_id else self._tasks.details(task)
        if self._allow.allows(task, details, self._tasks.get):
            return None
        return self._allow.refusal(task, details)

    def decides_by_id(self, task: str) -> bool:
        """Whether ``refusal`` needs no list for this task."""
        return self._allow.decides_by_id(task)

    def _resolve_one(self, start: WantedStart, is_own: Callable[[str], bool]) -> Found | Rejection:
        selector = start.selector
        found = self._tasks.find(selector, start.reload)
        others = [task for task in found if not is_own(task.id)]
        if found and not others:
            return OWN_OUTCOME
        if not found:
            similar = self._tasks.similar(selector)
            hint = f' Is "{similar}" meant?' if similar else ""
            return Rejection(
                "unknown task",
                f"The server lists no {selector.text}.{hint} Check the spelling and "
                "whether the configured user may see it.",
            )
        if (problem := ambiguity(selector, others)) is not None:
            return problem
        return tuple((task, start.reload) for task in others)
