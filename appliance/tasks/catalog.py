"""Which tasks a selector means, and whether they may be started at all.

Names, tags and properties are compared with the server's whole task list, and never put into a
filter expression of the server: what a message says can't widen a query, and the name and value of
a custom property are checked as a pair, which the server's filter does not do.

Not for: how texts are compared (task_index.py), or when a task is started (planner.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from appliance.config.tables import AllowConfig
from appliance.model import APP, ReloadOptions, Task
from appliance.qlik.server import QlikError, RetryPolicy
from appliance.tasks.payloads import Rejection
from appliance.tasks.selector import Kind, TaskSelector, task_id
from appliance.tasks.task_index import PLAIN, TaskIndex, Text, close_name, folded, texts_of

FRESH_S = 60.0
"""For how long the cached task list is used, in seconds."""
RETRY_FRESH_S = 5.0
"""The list is read again for a task that a list older than this lacks: it may be new."""


class Lister(Protocol):
    """What lists tasks: a ``QlikServer``, or what is known without one."""

    def tasks(self) -> Sequence[Task]: ...
    def apps(self) -> Sequence[Task]: ...


class TaskList:
    """The server's tasks, cached. Thread-safe; ``get`` may wait for the server."""

    def __init__(self, server: Lister | None) -> None:
        self._server = server
        self._asking = threading.Lock()
        self._tasks = TaskIndex(())
        self._taken: float | None = None
        self._apps = TaskIndex(())
        self._apps_taken: float | None = None

    def get(self, max_age_s: float = FRESH_S) -> Sequence[Task]:
        """All tasks, from a list of at most this age. Raises ``QlikError``."""
        return self._get(max_age_s).tasks

    def _get(self, max_age_s: float = FRESH_S) -> TaskIndex:
        if _is_older(self._taken, max_age_s) and self._server is not None:
            with self._asking:
                # Another thread may have asked while this one waited.
                if _is_older(self._taken, max_age_s):
                    self._tasks = TaskIndex(
                        msgspec.structs.replace(task, id=task.id.lower())
                        for task in self._server.tasks()
                    )
                    self._taken = time.monotonic()
        return self._tasks

    def apps(self, max_age_s: float = FRESH_S) -> Sequence[Task]:
        """Apps that can be reloaded without a task, as ``get`` has tasks. Raises ``QlikError``."""
        return self._get_apps(max_age_s).tasks

    def _get_apps(self, max_age_s: float = FRESH_S) -> TaskIndex:
        if _is_older(self._apps_taken, max_age_s) and self._server is not None:
            with self._asking:
                if _is_older(self._apps_taken, max_age_s):
                    self._apps = TaskIndex(self._server.apps())
                    self._apps_taken = time.monotonic()
        return self._apps

    @property
    def is_fresh(self) -> bool:
        """Whether ``get`` gives the tasks without asking the server."""
        return self._server is None or not _is_older(self._taken, FRESH_S)

    def cached(self) -> Sequence[Task]:
        """All tasks, from the list that was read last, however old."""
        return self._tasks.tasks

    def known(self, task: str) -> Task | None:
        """The task or app as the cached list has it, however old; the server is not asked."""
        return self._tasks.by_id.get(task) or self._apps.by_id.get(task)

    def details(self, task: str) -> Task | None:
        """The task or app as a list has it that is at most a minute old. Raises ``QlikError``."""
        if task.startswith(APP):
            self.apps()
        else:
            self.get()
        return self.known(task)

    def find(self, selector: TaskSelector, reload: ReloadOptions = PLAIN) -> list[Task]:
        """The tasks that a selector means; asks the server again if there are none.

        An app without a task of its own is a task of kind ``APP``. Raises ``QlikError``.
        """
        return (
            self._get().find(selector, reload)
            or self._get(RETRY_FRESH_S).find(selector, reload)
            or self._find_app(selector, reload)
        )

    def find_known(self, selector: TaskSelector, reload: ReloadOptions = PLAIN) -> list[Task]:
        """``find`` in the cached list, however old; the server is not asked."""
        return self._tasks.find(selector, reload)

    def _find_app(self, selector: TaskSelector, reload: ReloadOptions) -> list[Task]:
        if selector.kind != "app":
            return []
        apps = self._get_apps().find(selector) or self._get_apps(RETRY_FRESH_S).find(selector)
        # The app may have got a task just now, by its first reload: there is no second way to it.
        return apps and (self._get(0.0).find(selector, reload) or apps)

    def similar(
        self, selector: TaskSelector, is_shown: Callable[[Task], bool] = lambda _task: True
    ) -> str:
        """A name close to the one that was not found, else an empty string."""
        tasks = [task for task in self._tasks.tasks if is_shown(task)]
        if selector.kind == "tag":
            names = {tag for task in tasks for tag in task.tags}
        elif selector.kind == "name":
            names = {task.name for task in tasks}
        elif selector.kind == "app":
            known = (*tasks, *filter(is_shown, self._apps.tasks))
            names = {task.app_name for task in known if task.app_name}
        else:
            return ""
        return close_name(selector.value, names)


class KnownTasks:
    """The tasks as the list has them, however old it is.

    The server is asked only for what the list lacks, and while it answers: an explanation does not
    wait for what it knows. Raises ``QlikError`` where the server can't be asked.
    """

    def __init__(self, tasks: TaskList, may_ask: Callable[[], bool]) -> None:
        self._tasks = tasks
        self._may_ask = may_ask
        self.known = tasks.known
        self.similar = tasks.similar

    def get(self) -> Sequence[Task]:
        """All tasks."""
        found = self._tasks.cached()
        return found or self._asked().get()

    def details(self, task: str) -> Task | None:
        """One task or app."""
        return self._tasks.known(task) or self._asked().details(task)

    def find(self, selector: TaskSelector, reload: ReloadOptions = PLAIN) -> list[Task]:
        """The tasks that a selector means."""
        found = self._tasks.find_known(selector, reload)
        return found or self._asked().find(selector, reload)

    def _asked(self) -> TaskList:
        if not self._may_ask():
            raise QlikError(
                "The Qlik server does not answer at present.", label="away", retry=RetryPolicy.SAFE
            )
        return self._tasks


def _is_older(taken: float | None, age_s: float) -> bool:
    return taken is None or time.monotonic() - taken > age_s


class _Texts(msgspec.Struct, frozen=True):
    """One list of the table: its texts, and what they are without blanks around them."""

    exact: frozenset[Text]
    folded: frozenset[Text]

    @classmethod
    def of(cls, texts: Iterable[Text]) -> _Texts:
        exact = frozenset(texts)
        return cls(exact, frozenset(map(folded, exact)) - {""})

    def __bool__(self) -> bool:
        return bool(self.exact)

    def has(self, kind: Kind, task: Task, tasks: Callable[[], Iterable[Task]]) -> bool:
        """Whether a task has one of the texts, exactly; or but for blanks, if no task has that."""
        own = texts_of(kind, task)
        if not self.exact.isdisjoint(own):
            return True
        near = self.folded.intersection(map(folded, own))
        if not near:
            return False
        meant = {one for one in self.exact if folded(one) in near}
        others: set[Text] = set()
        spellings: set[Text] = set()
        for other in (task, *tasks()):
            texts = texts_of(kind, other)
            others.update(meant.intersection(texts))
            spellings.update(one for one in texts if folded(one) in near)
        return not others and len(spellings) == len(near)


class _Allowed(msgspec.Struct, frozen=True):
    ids: frozenset[str]
    texts: Mapping[Kind, _Texts]

    @classmethod
    def of(cls, config: AllowConfig) -> _Allowed:
        return cls(
            frozenset(task_id(one) or one for one in config.tasks),
            {
                "name": _Texts.of(config.names),
                "tag": _Texts.of(config.tags),
                "property": _Texts.of((one.property, one.value) for one in config.properties),
                "app": _Texts.of(task_id(one) or one for one in config.apps),
            },
        )

    @property
    def is_only_ids(self) -> bool:
        return not any(self.texts.values())


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
        return allowed.is_only_ids or task.removeprefix(APP) in allowed.ids

    def allows(
        self, task: str, details: Task | None, tasks: Callable[[], Iterable[Task]] = tuple
    ) -> bool:
        """Whether a task may be started.

        ``details`` is what the server says of it now. ``tasks`` gives all tasks, for a text that is
        the table's but for blanks around it: it means no other task's text.
        """
        allowed = self._allowed
        if task.removeprefix(APP) in allowed.ids or (allowed.is_only_ids and not allowed.ids):
            return True
        return details is not None and any(
            texts.has(kind, details, tasks) for kind, texts in allowed.texts.items()
        )

    def refusal(self, task: str, details: Task | None) -> Rejection:
        """The rejection of a task that may not be started."""
        name = f'"{details.name}" ({task})' if details else task
        return Rejection(
            "not allowed",
            f"Task {name} may not be started: the [allow] table of the configuration does not "
            "have it. Add its id, name, tag, property or app there if it should.",
        )
