"""Names of tasks by their ids, for topics that have a task's id as a level.

The names come from the executions at hand, and once a minute from the server's list, which a worker
asks for. Not for: picking a task (screens/task_picker.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from appliance.engine_api import Engine
from appliance.errors import ApplianceError
from appliance.model import Execution
from appliance.ui.background import Background

_EVERY_NS = 60 * 10**9
_MOST = 50_000
"""Names that are kept."""


class TaskNames:
    """Learns names; asks no more often than once a minute."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._asked_ns = 0

    @property
    def by_id(self) -> Mapping[str, str]:
        """The names by id, in lower case."""
        return self._names

    def in_topic(self, topic: str) -> str:
        """The names of the tasks whose ids are levels of a topic, for a search by name."""
        names = self._names
        return " ".join(names[level] for level in topic.lower().split("/") if level in names)

    def learn(self, executions: Iterable[Execution]) -> None:
        """Take the names of the tasks that ran."""
        for one in executions:
            self._keep(one.task_id, one.task_name)

    def _keep(self, task_id: str, name: str) -> None:
        if name and (len(self._names) < _MOST or task_id.lower() in self._names):
            self._names[task_id.lower()] = name

    def refresh(self, engine: Engine, background: Background, now_ns: int) -> None:
        """Ask for the server's list in a worker, if the last time was a minute ago."""
        if self._asked_ns <= now_ns < self._asked_ns + _EVERY_NS and self._asked_ns:
            return
        self._asked_ns = now_ns

        def work() -> None:
            try:
                found = engine.tasks()
            except ApplianceError:  # names are a help: the ids are shown instead
                return
            for task in found:
                self._keep(task.id, task.name)

        background.run(work, group="task-names")
