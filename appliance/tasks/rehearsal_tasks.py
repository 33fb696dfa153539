"""The tasks that a rehearsal holds selectors against, with those that it takes for granted.

Finding tasks and ``[allow]`` are the task engine's own (resolution.py). Without the server's list a
task that is not known may exist all the same: it is taken for granted, and named.

Not for: asking the server for its list (commands/rehearse.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.config.tables import AllowConfig
from appliance.model import ReloadOptions, Task
from appliance.tasks.catalog import AllowList, TaskList
from appliance.tasks.payloads import Rejection
from appliance.tasks.resolution import Found, Resolution
from appliance.tasks.selector import TaskSelector
from appliance.tasks.together import parts_of

MOST_ASSUMED = 1000
"""Tasks that are taken for granted: a payload can name any."""
_UNKNOWN = frozenset({"unknown task", "not all"})
"""Labels of rejections that a task may be the reason of which is not known."""


class Catalogue(Protocol):
    """What lists tasks; nothing waits."""

    is_complete: bool
    """Whether it is the server's list, so that a task which is not in it does not exist."""

    def tasks(self) -> Sequence[Task]: ...
    def apps(self) -> Sequence[Task]: ...


class RehearsalTasks:
    """A catalogue, ``[allow]``, and the tasks that were taken for granted."""

    def __init__(self, catalogue: Catalogue, allow: AllowConfig) -> None:
        self.assumed: dict[str, Task] = {}
        """Tasks that the catalogue does not have and that were taken for granted, by id."""
        self._catalogue = catalogue
        self._list = TaskList(self)
        self._list.get()
        self._resolution = Resolution(self._list, AllowList(allow))
        self.known = self._list.known
        """The task of an id, if there is one."""

    def tasks(self) -> Sequence[Task]:
        """What the task list lists."""
        return (*self._catalogue.tasks(), *self.assumed.values())

    def apps(self) -> Sequence[Task]:
        """What the task list lists beside."""
        return self._catalogue.apps()

    def resolve(
        self, selector: TaskSelector, reload: ReloadOptions, is_own: Callable[[str], bool]
    ) -> Found | Rejection:
        """As ``Resolution.resolve``."""
        found = self._resolution.resolve(selector, reload, is_own)
        if not isinstance(found, Rejection) or found.label not in _UNKNOWN:
            return found
        if not self._assume_parts(selector, reload):
            return found
        return self._resolution.resolve(selector, reload, is_own)

    def refusal(self, task_id: str) -> Rejection | None:
        """Why the server would not get a start call for a task, or would know no such task."""
        refusal = self._resolution.refusal(task_id)
        if refusal is None and self.known(task_id) is None:
            if self._catalogue.is_complete:
                return Rejection("unknown task", f"The server lists no task {task_id}.")
            self._assume(TaskSelector("id", task_id))  # an id alone is enough to start
        return refusal

    def _assume_parts(self, selector: TaskSelector, reload: ReloadOptions) -> bool:
        """Take it for granted that there is what a request names, unless the list is whole."""
        if self._catalogue.is_complete:
            return False
        for part in parts_of(selector, reload):
            if not self._list.find(part.selector, part.reload) and not self._assume(part.selector):
                return False
        return True

    def _assume(self, selector: TaskSelector) -> bool:
        """Take it for granted that there is a task as the selector says; ``False``: too many."""
        if len(self.assumed) >= MOST_ASSUMED:
            return False
        number, value = f"assumed-{len(self.assumed) + 1}", selector.value
        match selector.kind:
            case "id":
                task = Task(value, "")
            case "name":
                task = Task(number, value)
            case "tag":
                task = Task(number, selector.text, tags=(value,))
            case "property":
                task = Task(number, selector.text, properties=((selector.key, value),))
            case _:
                task = Task(number, selector.text, app_id=value, app_name=value)
        self.assumed[task.id] = task
        self._list.get(-1.0)
        return True
