"""What notices ask the Qlik server: a task's tags and properties, and the owner of its app.

The answers are kept for a while. A server that does not answer is not asked again for a minute, so
that a notice never waits for long. Not for: starts, which ask for themselves (resolution.py).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from appliance.model import Task
from appliance.qlik import deadlines
from appliance.qlik.failures import StatusError
from appliance.qlik.server import Owner, QlikError, QlikServer
from appliance.tasks.catalog import TaskList

ASK_S = 5.0
"""How long one question may take."""
_PAUSE_S = 60.0
_FRESH_S = 600.0
_MOST_OWNERS = 1000
_Answer = TypeVar("_Answer")


class TaskFacts:
    """Thread-safe. ``server`` is ``None`` where no ``[qlik]`` is configured."""

    def __init__(
        self,
        tasks: TaskList,
        server: QlikServer | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._server = server
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._owners: OrderedDict[str, tuple[Owner | QlikError | None, float]] = OrderedDict()
        self._failure: QlikError | None = None
        self._asked_again_s = 0.0

    def known(self, task: str) -> Task | None:
        """The task as it is known; never waits."""
        return self._tasks.known(task)

    def details(self, task: str) -> Task | None:
        """The task as the server lists it, if that can be had soon, or else as it is known."""
        try:
            return self._asked(lambda: self._tasks.details(task))
        except QlikError:
            return self.known(task)

    def owner(self, app_id: str) -> Owner | None:
        """Who owns an app. Raises ``QlikError``."""
        server, now_s = self._server, self._monotonic()
        if server is None:
            return None
        with self._lock:
            found, taken_s = self._owners.get(app_id, (None, float("-inf")))
        if now_s - taken_s > _FRESH_S:
            try:
                found = self._asked(lambda: server.owner(app_id))
            except QlikError as error:
                if not isinstance(error, StatusError):
                    raise
                found = error  # Of this app alone.
            with self._lock:
                self._owners.pop(app_id, None)
                self._owners[app_id] = (found, now_s)
                while len(self._owners) > _MOST_OWNERS:
                    self._owners.popitem(last=False)
        if isinstance(found, QlikError):
            raise found.with_traceback(None)
        return found

    def _asked(self, ask: Callable[[], _Answer]) -> _Answer:
        with self._lock:
            if self._failure is not None and self._monotonic() < self._asked_again_s:
                raise self._failure.with_traceback(None)
        try:
            with deadlines.within(ASK_S):
                answer = ask()
        except QlikError as error:
            if not isinstance(error, StatusError):
                with self._lock:
                    self._failure = error
                    self._asked_again_s = self._monotonic() + _PAUSE_S
            raise
        self._failure = None
        return answer
