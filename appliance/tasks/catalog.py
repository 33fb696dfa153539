"""Which tasks a selector means, and whether they may be started at all.

Names, tags and properties are compared here, against the server's whole task list, and never put
into a filter expression of the server: what a message says can't widen a query, and the name and
value of a custom property are checked as a pair, which the server's filter does not do.

Not for: when a task is started (planner.py).
"""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Sequence

import msgspec

from appliance.config.tables import AllowConfig
from appliance.model import Task
from appliance.qlik.server import QlikServer
from appliance.tasks.payloads import Rejection
from appliance.tasks.selector import TaskSelector, task_id

FRESH_S = 60.0
"""For how long the cached task list is used, in seconds."""
RETRY_FRESH_S = 5.0
"""The list is read again for a task that a list older than this lacks: it may be new."""


class TaskList:
    """The server's tasks, cached. Thread-safe; ``get`` may wait for the server."""

    def __init__(self, server: QlikServer | None) -> None:
        self._server = server
        self._asking = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._taken: float | None = None

    def get(self, max_age_s: float = FRESH_S) -> Sequence[Task]:
        """All tasks, from a list of at most this age. Raises ``QlikError``."""
        if self._is_older_than(max_age_s) and self._server is not None:
            with self._asking:
                # Another thread may have asked while this one waited.
                if self._is_older_than(max_age_s):
                    self._tasks = {
                        task.id.lower(): msgspec.structs.replace(task, id=task.id.lower())
                        for task in self._server.tasks()
                    }
                    self._taken = time.monotonic()
        return tuple(self._tasks.values())

    def _is_older_than(self, age_s: float) -> bool:
        return self._taken is None or time.monotonic() - self._taken > age_s

    def known(self, task: str) -> Task | None:
        """The task as the cached list has it, however old; the server is not asked."""
        return self._tasks.get(task)

    def find(self, selector: TaskSelector) -> list[Task]:
        """The tasks that a selector means; asks the server again if there are none.

        Raises ``QlikError``.
        """
        return find(selector, self.get()) or find(selector, self.get(RETRY_FRESH_S))

    def similar(self, selector: TaskSelector) -> str:
        """A name close to the one that was not found, else an empty string."""
        if selector.kind == "tag":
            names = {tag for task in self._tasks.values() for tag in task.tags}
        elif selector.kind == "name":
            names = {task.name for task in self._tasks.values()}
        else:
            return ""
        close = difflib.get_close_matches(selector.value, names, n=1)
        return close[0] if close else ""


def find(selector: TaskSelector, tasks: Sequence[Task]) -> list[Task]:
    """Tasks that match exactly (upper and lower case differ), in the list's order."""
    match selector.kind:
        case "id":
            return [task for task in tasks if task.id == selector.value]
        case "name":
            return _the_app([task for task in tasks if task.name == selector.value])
        case "tag":
            return [task for task in tasks if selector.value in task.tags]
        case "property":
            return [task for task in tasks if (selector.key, selector.value) in task.properties]
        case _:
            return _the_app(
                [task for task in tasks if selector.value in (task.app_id.lower(), task.app_name)]
            )


def _the_app(found: list[Task]) -> list[Task]:
    """In Qlik Cloud, an app goes before the tasks that reload it and share its name."""
    apps = [task for task in found if task.app_id and task.app_id.lower() == task.id]
    return apps if len(apps) == 1 else found


def ambiguity(selector: TaskSelector, tasks: Sequence[Task]) -> Rejection | None:
    """A name or app means one task; tags and properties may mean many."""
    if len(tasks) < 2 or selector.kind in ("tag", "property"):
        return None
    ids = ", ".join(task.id for task in tasks[:5])
    return Rejection(
        "ambiguous",
        f"{len(tasks)} tasks answer to {selector.text} ({ids}). Nothing was started: "
        "use the task id.",
    )


class _Allowed(msgspec.Struct, frozen=True):
    ids: frozenset[str]
    names: frozenset[str]
    tags: frozenset[str]
    pairs: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, config: AllowConfig) -> _Allowed:
        return cls(
            frozenset(task_id(one) or one for one in config.tasks),
            frozenset(config.names),
            frozenset(config.tags),
            frozenset((one.property, one.value) for one in config.properties),
        )

    @property
    def everything(self) -> bool:
        return not (self.ids or self.names or self.tags or self.pairs)


class AllowList:
    """``[allow]``: the tasks that may be started. Empty lists allow everything."""

    def __init__(self, config: AllowConfig) -> None:
        self._allowed = _Allowed.of(config)

    def take(self, config: AllowConfig) -> None:
        """Replace the table, for all starts from now on. Any thread."""
        self._allowed = _Allowed.of(config)

    def decides_by_id(self, task: str) -> bool:
        """Whether the id alone says enough, so that the server need not be asked."""
        allowed = self._allowed
        only_ids = not (allowed.names or allowed.tags or allowed.pairs)
        return only_ids or task in allowed.ids

    def allows(self, task: str, details: Task | None) -> bool:
        """Whether a task may be started; ``details`` is what the server says of it now."""
        allowed = self._allowed
        if allowed.everything or task in allowed.ids:
            return True
        return details is not None and (
            details.name in allowed.names
            or not allowed.tags.isdisjoint(details.tags)
            or not allowed.pairs.isdisjoint(details.properties)
        )

    def refusal(self, task: str, details: Task | None) -> Rejection:
        """The rejection of a task that may not be started."""
        name = f'"{details.name}" ({task})' if details else task
        return Rejection(
            "not allowed",
            f"Task {name} may not be started: the [allow] table of the configuration does not "
            "have it. Add its id, name, tag or property there if it should.",
        )
