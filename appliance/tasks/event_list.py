"""What the server starts by itself, cached for those who look at the tasks.

No start needs it, so it has a short time of its own, and an error costs nothing but itself.
Not for: the list of tasks (catalog.py), what the appliance starts (server_tasks.py).
"""

from __future__ import annotations

import threading
import time

from appliance.qlik import deadlines
from appliance.qlik.server import QlikError, QlikServer, TaskEvents

_FRESH_S = 60.0
"""For how long an answer is used, or an error told, before the server is asked again."""
_LIMIT_S = 10.0
"""The time, in seconds, in which the server has to answer."""


class EventList:
    """The server's own triggers. Thread-safe; ``get`` may wait for the server."""

    def __init__(self, server: QlikServer | None) -> None:
        self._server = server
        self._asking = threading.Lock()
        self._events = TaskEvents()
        self._problem = ""
        self._taken: float | None = None

    def get(self) -> tuple[TaskEvents, str]:
        """What was read last, a minute ago at most, and why it can't be read now (else empty)."""
        if self._server is not None and self._is_old():
            with self._asking:
                if self._is_old():  # another thread may have asked while this one waited
                    self._ask(self._server)
        return self._events, self._problem

    @property
    def cached(self) -> TaskEvents:
        """What was read last, however long ago."""
        return self._events

    def _is_old(self) -> bool:
        return self._taken is None or time.monotonic() - self._taken > _FRESH_S

    def _ask(self, server: QlikServer) -> None:
        try:
            with deadlines.within(_LIMIT_S):
                self._events = server.task_events()
            self._problem = self._events.problem
        except QlikError as error:
            self._problem = str(error)
        self._taken = time.monotonic()
