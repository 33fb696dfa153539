"""One queue for each task: what waits for its turn there, and what is active.

For each way to reload the task (``ReloadOptions``), at most one request waits in a queue that
further requests are merged into; requests that must not be merged wait separately. A request is
active from the moment that a worker has its job to the end of its run. A request that names its
tasks by name, tag or property has a queue of its own kind until the tasks are found.

Not for: when a request goes (dispatcher.py). This is a data structure: it changes no request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from appliance.model import ReloadOptions
from appliance.tasks.records import Record
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import Options


class _TaskQueue:
    __slots__ = ("active", "separate", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[ReloadOptions, Record] = {}
        self.separate: dict[int, Record] = {}
        self.active: dict[int, Record] = {}

    def __bool__(self) -> bool:
        return bool(self.waiting or self.separate or self.active)

    def leave(self, record: Record) -> None:
        reload = record.options.reload
        if self.waiting.get(reload) is record:
            del self.waiting[reload]
        self.separate.pop(record.id, None)
        self.active.pop(record.id, None)


class TaskQueues:
    """All queues by ``key_of``; an empty queue is not kept, so made-up ids cost nothing."""

    def __init__(self) -> None:
        self._queues: dict[str | TaskSelector, _TaskQueue] = {}
        self._unresolved: dict[TaskSelector, _TaskQueue] = {}
        """Those of ``_queues`` whose tasks are not known yet."""

    def __len__(self) -> int:
        return len(self._queues)

    def waiting(self, key: str | TaskSelector, reload: ReloadOptions) -> Record | None:
        """The request that further ones for the same reload are merged into."""
        queue = self._queues.get(key)
        return queue.waiting.get(reload) if queue is not None else None

    def all_waiting(self, key: str | TaskSelector) -> Collection[Record]:
        """The requests that further ones are merged into, for each reload of the task."""
        queue = self._queues.get(key)
        return queue.waiting.values() if queue is not None else ()

    def inactive(self, key: str | TaskSelector) -> Collection[Record]:
        """All requests that wait there, also those that are not merged into."""
        queue = self._queues.get(key)
        return () if queue is None else (*queue.waiting.values(), *queue.separate.values())

    def active(self, key: str | TaskSelector) -> Collection[Record]:
        """The requests that a worker or the server has."""
        queue = self._queues.get(key)
        return queue.active.values() if queue is not None else ()

    def may_mean(self, *task_ids: str) -> Iterator[Record]:
        """The requests for these tasks, and those of which it is not known which task they mean."""
        queues = (self._queues.get(task_id) for task_id in task_ids if task_id)
        for queue in (*queues, *self._unresolved.values()):
            if queue is not None:
                yield from (*queue.waiting.values(), *queue.separate.values())
                yield from queue.active.values()

    def wait(self, record: Record) -> Record | None:
        """Let a request wait, again or for the first time.

        Returns the request that waited there and that the new one has to answer, if any.
        """
        queue = self._of(record)
        queue.active.pop(record.id, None)
        if not merges(record.options):
            queue.separate[record.id] = record
            return None
        reload = record.options.reload
        other, queue.waiting[reload] = queue.waiting.get(reload), record
        return other if other is not record else None

    def activate(self, record: Record) -> None:
        """A worker or the server has the request now."""
        queue = self._of(record)
        queue.leave(record)
        queue.active[record.id] = record

    def leave(self, record: Record) -> None:
        """The request has ended, or goes to another queue."""
        key = key_of(record)
        queue = self._queues.get(key)
        if queue is not None:
            queue.leave(record)
            if not queue:
                del self._queues[key]
                if not isinstance(key, str):
                    del self._unresolved[key]

    def _of(self, record: Record) -> _TaskQueue:
        key = key_of(record)
        if (queue := self._queues.get(key)) is None:
            queue = self._queues[key] = _TaskQueue()
            if not isinstance(key, str):
                self._unresolved[key] = queue
        return queue


def key_of_selector(selector: TaskSelector) -> str | TaskSelector:
    """The queue of a request with this selector, before the server was asked."""
    return selector.value if selector.kind == "id" else selector


def key_of(record: Record) -> str | TaskSelector:
    """The queue of a request: its task's, or its selector's while the task is not known."""
    return record.execution.task_id or record.selector


def merges(options: Options) -> bool:
    """Whether requests with these options may share one start."""
    return options.if_running != "start" or bool(options.debounce_s or options.cooldown_s)
