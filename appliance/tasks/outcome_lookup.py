"""What ``[[outcome]]`` tells of a task beyond its execution, asked before the end is noted.

The poller asks, in its own thread, when the server has reported an end. So the message is made,
with all that belongs to it, in the change that notes the end: it is published once, and in order. A
server that does not answer holds the end up for seconds, and then the message goes without.

Not for: what is made of it (outcome_forms.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from appliance.counters import Count, Counter
from appliance.model import Execution
from appliance.qlik import deadlines
from appliance.qlik.server import FullTask, QlikError, QlikServer
from appliance.tasks.catalog import TaskList

_log = logging.getLogger(__name__)
LIMIT_S = 5.0
"""For all tasks that ended in one poll together."""
PAUSE_S = 60.0
"""After a failure nothing is asked for this long: each end would be held up."""
MAX_STRANGERS = 1000
_TOGETHER = 40
"""Tasks of one call: as many ids as there are in an address."""
MAX_BYTES = 256 * 1024
"""A larger row is left out of the message."""


class OutcomeLookup:
    """For one thread; ``of`` is for any."""

    def __init__(
        self,
        server: QlikServer,
        tasks: TaskList,
        count: Count,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._tasks = tasks
        self._count = count
        self._monotonic = monotonic
        self._not_before_s = 0.0
        self._found: dict[str, FullTask] = {}
        self._strangers: set[str] = set()
        """Tasks that the list was read again for."""

    def of(self, task_id: str) -> FullTask | None:
        """A task as the server's rows have it, if ``ask`` was told to ask for it last."""
        return self._found.get(task_id)

    def ask(self, told: Sequence[Execution], is_in_full: Callable[[Execution], bool]) -> None:
        """Ask for what is to be told of executions that have ended; never raises.

        ``told``: those of which messages may tell; ``is_in_full``: whether one does with the
        server's own rows. It is asked once the task's name is known.
        """
        self._found = {}
        if not told:
            return
        if self._monotonic() >= self._not_before_s:
            try:
                with deadlines.within(LIMIT_S):
                    self._look_up(told, is_in_full)
            except QlikError as error:
                _log.info("What [[outcome]] tells of tasks can't be had: %s", error)
                self._not_before_s = self._monotonic() + PAUSE_S
            else:
                return
        for one in told:
            if is_in_full(one) and one.task_id not in self._found:
                self._count(Counter.OUTCOMES_WITHOUT_TASK_ROW)

    def _look_up(self, told: Sequence[Execution], is_in_full: Callable[[Execution], bool]) -> None:
        for one in told:
            number = one.task_id
            if self._tasks.known(number) is None and self._tasks.details(number) is None:
                self._look_for_new(number)
        in_full = sorted({one.task_id for one in told if is_in_full(one)})
        for first in range(0, len(in_full), _TOGETHER):
            # What has come counts, also if the time is over before the rest.
            for key, full in self._server.full_tasks(in_full[first : first + _TOGETHER]).items():
                self._found[key] = _bounded(full)

    def _look_for_new(self, task_id: str) -> None:
        """Read the list again for a task that it lacks, once for each: some are not ours to see."""
        if task_id in self._strangers:
            return
        if len(self._strangers) >= MAX_STRANGERS:
            self._strangers.clear()
        self._strangers.add(task_id)
        self._tasks.get(0.0)


def _bounded(full: FullTask) -> FullTask:
    return FullTask(_kept(full.task), _kept(full.app))


def _kept(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return row if len(msgspec.json.encode(row)) <= MAX_BYTES else {}
