"""Starts that an operator asks for by a payload, as a message would: ids, names, tags, properties.

The tasks are found and the allow-list is asked before anything is taken, so the operator gets the
refusal as the answer. Not for: messages (consumer.py), when a start goes (dispatcher.py).
"""

from __future__ import annotations

from appliance.errors import UnavailableError, UsageError
from appliance.model import Cause
from appliance.qlik.server import QlikError
from appliance.tasks.catalog import TaskList, ambiguity
from appliance.tasks.payloads import Rejection, WantedStart, read_payload
from appliance.tasks.resolution import Resolution
from appliance.tasks.selector import TaskSelector
from appliance.tasks.state_store import StateStore
from appliance.tasks.triggers import Options


class OperatorStarts:
    """Takes the requests. Methods may be called from any thread and may wait for the server."""

    def __init__(self, state: StateStore, tasks: TaskList, resolution: Resolution) -> None:
        self._state = state
        self._tasks = tasks
        self._resolution = resolution

    def ask(self, payload: bytes, by: str) -> tuple[int, ...]:
        """Ask for all starts that a payload names, or for none of them.

        Returns the ids of the executions that answer the request: new ones, or those that wait for
        the same tasks already.

        Raises:
            UsageError: the payload names no task, an unknown one, or one that is not allowed.
            UnavailableError: the server can't be asked for the tasks, or the queue is full.
            NotNotedError: the request was taken, and is not on disk.
        """
        found = read_payload(payload)
        if isinstance(found, Rejection):
            raise UsageError(found.reason)
        wanted = dict.fromkeys(
            (selector, Options(reload=one.reload))
            for one in found.starts
            for selector in self._tasks_of(one)
        )
        with self._state.noted("The start") as planner:
            refused = planner.no_room_for([(one.value, options) for one, options in wanted])
            answers = [
                planner.ask(one, options, Cause("operator", rule=by), self._state.clock_ns())
                for one, options in (() if refused else wanted)
            ]
        numbers = [each for each in answers if not isinstance(each, Rejection)]
        refused = refused or next((each for each in answers if isinstance(each, Rejection)), None)
        if refused is not None:
            taken = f" {len(numbers)} of {len(answers)} starts were taken." if numbers else ""
            raise UnavailableError(f"{refused.reason}{taken}")
        return tuple(dict.fromkeys(numbers))

    def _tasks_of(self, start: WantedStart) -> list[TaskSelector]:
        """A selector for each task, by its id."""
        selector = start.selector
        try:
            if selector.kind == "id":
                self._check(selector.value)
                return [selector]
            tasks = self._tasks.find(selector, start.reload)
            for task in tasks:
                self._check(task.id)
        except QlikError as error:
            raise UnavailableError(
                f"The server can't be asked for {selector.text} now, and nothing was started: "
                f"{error}"
            ) from None
        if not tasks:
            raise UsageError(self._unknown(selector))
        if (problem := ambiguity(selector, tasks)) is not None:
            raise UsageError(problem.reason)
        return [TaskSelector("id", task.id) for task in tasks]

    def _check(self, task: str) -> None:
        if (refusal := self._resolution.refusal(task)) is not None:
            raise UsageError(refusal.reason)

    def _unknown(self, selector: TaskSelector) -> str:
        similar = self._tasks.similar(selector)
        hint = f' Did you mean "{similar}"?' if similar else ""
        return (
            f"The server lists no {selector.text}.{hint} Nothing was started: check the spelling "
            "and whether the configured user may see it."
        )
