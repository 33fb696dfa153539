"""What is remembered of each task beyond its executions: durations, last start, last end.

Not for: storing it (store.py; ``RequestBook.remember`` notes what is to be stored).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from appliance.model import APP, Task
from appliance.tasks.store import TaskHistory

KEPT_DURATIONS = 20
"""Durations of successful runs that the usual duration is taken from."""


class TaskHistories:
    """Histories by task id. ``known`` gives what is known of a task without asking the server."""

    def __init__(self, known: Callable[[str], Task | None]) -> None:
        self.by_task: dict[str, TaskHistory] = {}
        self._known = known

    def of(self, task_id: str) -> TaskHistory:
        """The history of a task; an empty one if there is none."""
        return self.by_task.get(task_id) or TaskHistory()

    def usual_s(self, task_id: str) -> float | None:
        """Median duration of the task's recent successful runs, else what the server says."""
        history = self.by_task.get(task_id)
        if history is None or not history.durations_s:
            task = self._known(task_id)
            return task.last_duration_s if task is not None else None
        ordered = sorted(history.durations_s)
        return ordered[len(ordered) // 2]

    def app_of(self, task_id: str) -> str:
        """The id that stands for the reload of the task's app without a task, or an empty one."""
        task = self._known(task_id)
        return f"{APP}{task.app_id.lower()}" if task is not None and task.manual else ""

    def name_of(self, task_id: str) -> str:
        """The task's name as the server or its history has it, else an empty string."""
        if (task := self._known(task_id)) is not None:
            return task.name
        history = self.by_task.get(task_id)
        return history.name if history is not None else ""


def with_duration(history: TaskHistory, took_s: float) -> TaskHistory:
    """The history with one more successful run."""
    durations = (*history.durations_s, max(took_s, 0.0))[-KEPT_DURATIONS:]
    return msgspec.structs.replace(history, durations_s=durations)
