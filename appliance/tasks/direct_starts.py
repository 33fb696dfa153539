"""Starts that are asked for directly, by a payload as a message would have it: ids, names, tags.

An operator's terminal asks so, and an HTTP request. The tasks are found and the allow-list is asked
before anything is taken, so the asker gets the refusal as the answer. What names one task can also
be taken while the server does not answer, and waits as a message's request does.

Not for: messages (consumer.py), when a start goes (dispatcher.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from appliance.errors import UnavailableError, UsageError
from appliance.model import Cause, Task
from appliance.qlik.server import QlikError
from appliance.storage.sqlite import explain
from appliance.tasks.catalog import TaskList
from appliance.tasks.payloads import Rejection, WantedStart, read_payload
from appliance.tasks.records import Next
from appliance.tasks.resolution import Resolution
from appliance.tasks.selector import TaskSelector
from appliance.tasks.start_keys import KeptKey, StartKey
from appliance.tasks.state_store import StateStore
from appliance.tasks.task_index import ambiguity
from appliance.tasks.triggers import Options

Start = tuple[TaskSelector, Options]
MayStart = Callable[[str, str], bool]
"""Whether the asker may start the task of this id and name; either may be empty: not known."""


class NotStartedError(UsageError):
    """A start that can't be: nothing was started. ``tasks``: those of ``"ambiguous"``."""

    def __init__(
        self,
        kind: Literal["not understood", "unknown", "ambiguous", "not allowed", "no right"],
        text: str,
        *,
        tasks: Sequence[Task] = (),
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.tasks = tuple(tasks)


class ServerAwayError(UnavailableError):
    """The server can't be asked for the tasks now; nothing was started."""


class KeyReusedError(UsageError):
    """An ``Idempotency-Key`` came before with another request."""


class Taken(msgspec.Struct, frozen=True):
    """Starts that were taken."""

    executions: tuple[int, ...]
    """Those that answer: new ones, or those that wait for the same tasks already."""
    is_repeat: bool = False
    """Whether an earlier request with the same key asked for them."""


def _anything(_task_id: str, _name: str) -> bool:
    return True


class DirectStarts:
    """Takes the requests. Methods may be called from any thread."""

    def __init__(self, state: StateStore, tasks: TaskList, resolution: Resolution) -> None:
        self._state = state
        self._tasks = tasks
        self._resolution = resolution

    def ask(self, payload: bytes, by: str) -> tuple[int, ...]:
        """Ask for all starts that a payload names, for an operator. May wait for the server.

        Returns the ids of the executions that answer the request: new ones, or those that wait for
        the same tasks already.

        Raises:
            UsageError: the payload names no task, an unknown one, or one that is not allowed.
            UnavailableError: the server can't be asked for the tasks, or the queue is full.
            NotNotedError: the request was taken, and is not on disk.
        """
        starts = self.find(read(payload))
        return self.take(starts, Cause("operator", rule=by)).executions

    def is_answered_at_once(self, wanted: Sequence[WantedStart], may_start: MayStart) -> bool:
        """Whether ``find`` finds all tasks without asking the server."""
        return all(self._is_clear(one, may_start) for one in wanted)

    def _is_clear(self, start: WantedStart, may_start: MayStart) -> bool:
        selector = start.selector
        if self._tasks.is_fresh:
            return selector.kind == "id" or bool(self._tasks.find_known(selector, start.reload))
        task = selector.value
        return (
            selector.kind == "id"
            and self._resolution.decides_by_id(task)
            and may_start(task, self._name_of(task))
        )

    def _name_of(self, task: str) -> str:
        """As far as it is known."""
        known = self._tasks.known(task)
        return "" if known is None else known.name

    def find(
        self, wanted: Sequence[WantedStart], may_start: MayStart = _anything
    ) -> tuple[Start, ...]:
        """A start for each task that is wanted, by its id. May wait for the server.

        Raises:
            NotStartedError: a task is unknown, ambiguous, or may not be started.
            ServerAwayError: the server can't be asked for the tasks.
        """
        return tuple(
            dict.fromkeys(
                (selector, Options(reload=one.reload))
                for one in wanted
                for selector in self._tasks_of(one, may_start)
            )
        )

    def unfound(self, wanted: Sequence[WantedStart], may_start: MayStart) -> tuple[Start, ...]:
        """Starts whose tasks are found when the server answers. It is not asked.

        Raises:
            ServerAwayError: several tasks may be meant, or the asker's rights depend on what the
                server says.
        """
        for one in wanted:
            selector = one.selector
            if selector.kind in ("tag", "property"):
                raise ServerAwayError(
                    f"The server does not answer, so {selector.text} can't be found. Nothing was "
                    "started: try again later."
                )
            value, kind = selector.value, selector.kind
            task, name = (value, self._name_of(value)) if kind == "id" else ("", "")
            if not may_start(task, value if kind == "name" else name):
                raise ServerAwayError(
                    f"The server does not answer, so it is not known whether {selector.text} may "
                    "be started by this user. Nothing was started: try again later."
                )
        return tuple(dict.fromkeys((one.selector, Options(reload=one.reload)) for one in wanted))

    def take(
        self,
        starts: Sequence[Start],
        cause: Cause,
        key: StartKey | None = None,
        next_tasks: Sequence[Next] = (),
    ) -> Taken:
        """Ask for all of these, or for none of them; with a key, once.

        ``next_tasks`` are started after each of them.

        Raises:
            UnavailableError: the queue is full, or the database can't be written.
            NotNotedError: the request was taken, and is not on disk.
            KeyReusedError: the key came before with another request.
        """
        with self._state.noted("The start") as planner:
            if key is not None and (before := self.taken_before(key)) is not None:
                return before
            now = self._state.clock_ns()
            refused = planner.no_room_for(starts) or planner.dropped(starts, now)
            answers = [
                planner.ask(one, options, cause, now)
                for one, options in (() if refused else starts)
            ]
            numbers = [each for each in answers if not isinstance(each, Rejection)]
            refused = refused or next(
                (each for each in answers if isinstance(each, Rejection)), None
            )
            found = Taken(tuple(dict.fromkeys(numbers)))
            for number in found.executions if next_tasks else ():
                if (record := planner.open.get(number)) is not None:
                    record.add_next(next_tasks)
                    planner.book.changes.records[number] = record
            if key is not None and refused is None:
                planner.book.changes.keys.append(KeptKey(key, found.executions, now))
        if refused is not None:
            taken = f" {len(numbers)} of {len(answers)} starts were taken." if numbers else ""
            raise UnavailableError(f"{refused.reason}{taken}")
        return found

    def taken_before(self, key: StartKey) -> Taken | None:
        """What an earlier request with this key led to; ``None`` if there was none.

        Raises:
            KeyReusedError: that was another request.
            UnavailableError: the database can't be read.
        """
        with self._state.lock:
            try:
                kept = self._state.store.start_key(key.user, key.key)
            except sqlite3.Error as error:
                raise UnavailableError(
                    f"The task database can't be read ({explain(error)}). Nothing was started."
                ) from None
        if kept is None:
            return None
        if kept.key.digest != key.digest:
            raise KeyReusedError(
                "The Idempotency-Key was used for another request. Nothing was started: make a new "
                "key for each new request."
            )
        return Taken(kept.executions, is_repeat=True)

    def _tasks_of(self, start: WantedStart, may_start: MayStart) -> list[TaskSelector]:
        """A selector for each task, by its id."""
        selector = start.selector
        try:
            if selector.kind == "id":
                return [self._checked_id(selector, may_start)]
            tasks = self._tasks.find(selector, start.reload)
            for task in tasks:
                if not may_start(task.id, task.name):
                    raise _no_right(task.name)
                self._check(task.id)
        except QlikError as error:
            raise ServerAwayError(
                f"The server can't be asked for {selector.text} now, and nothing was started: "
                f"{error}"
            ) from None
        if not tasks:
            raise NotStartedError("unknown", self._unknown(selector, may_start))
        if (problem := ambiguity(selector, tasks)) is not None:
            raise NotStartedError("ambiguous", problem.reason, tasks=tasks)
        return [TaskSelector("id", task.id) for task in tasks]

    def _checked_id(self, selector: TaskSelector, may_start: MayStart) -> TaskSelector:
        task = selector.value
        if not may_start(task, self._name_of(task)):
            self._tasks.details(task)
            if not may_start(task, self._name_of(task)):
                raise _no_right(task)
        self._check(task)
        return selector

    def _check(self, task: str) -> None:
        if (refusal := self._resolution.refusal(task)) is not None:
            raise NotStartedError("not allowed", refusal.reason)

    def _unknown(self, selector: TaskSelector, may_start: MayStart) -> str:
        similar = self._tasks.similar(selector, lambda task: may_start(task.id, task.name))
        hint = f' Did you mean "{similar}"?' if similar else ""
        return (
            f"The server lists no {selector.text}.{hint} Nothing was started: check the spelling "
            "and whether the configured user may see it."
        )


def read(payload: bytes) -> tuple[WantedStart, ...]:
    """The starts that a payload asks for; raises ``NotStartedError`` if it is not understood."""
    found = read_payload(payload)
    if isinstance(found, Rejection):
        raise NotStartedError("not understood", found.reason)
    return found.starts


def _no_right(task: str) -> NotStartedError:
    return NotStartedError(
        "no right",
        f"This user may not start task {task}: no [[access.rule]] for this user has it in `start`.",
    )
