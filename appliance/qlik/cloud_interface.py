"""Which interface for tasks a Qlik Cloud tenant offers: the scheduling one, or the interim one.

Not for: what is asked there (cloud_tasks.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from appliance.qlik import deadlines
from appliance.qlik.cloud_api import CloudApi
from appliance.qlik.failures import StatusError
from appliance.qlik.server import QlikError

SCHEDULING = "/api/scheduling/tasks"
INTERIM = "/api/v1/tasks"
GONE = frozenset({404, 410})
"""Statuses of an interface that the tenant does not have."""
_NOT_FOR_US = frozenset({400, 403})
"""Statuses of an interface that is there, but not for this user."""
_LOOK_AGAIN_S = 300.0


class TasksInterface:
    """Finds the interface when it is needed, and looks again now and then. Thread-safe."""

    def __init__(self, api: CloudApi, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is sent.

        Args:
            api: calls the tenant.
            clock: seconds that only grow.
        """
        self._api = api
        self._clock = clock
        self._lock = threading.Lock()
        self._path = ""
        self._look_again = 0.0

    def path(self) -> str:
        """The path of the interface that the tenant offers.

        Raises:
            QlikError: it is not known, and the tenant can't be asked.
        """
        with deadlines.locked(self._lock, f"GET {self._api.transport.base_url}{SCHEDULING}"):
            if not self._path or self._clock() >= self._look_again:
                try:
                    self._path = SCHEDULING if self._has(SCHEDULING) else INTERIM
                except QlikError:
                    if not self._path:
                        raise
                self._look_again = self._clock() + _LOOK_AGAIN_S
            return self._path

    def _has(self, path: str) -> bool:
        try:
            self._api.get(path, {"limit": "1"})
        except StatusError as error:
            if error.status in GONE:
                return False
            if error.status not in _NOT_FOR_US:
                raise
        return True

    def forget(self) -> None:
        """Look again before the next call."""
        self._path = ""  # Without the lock: a thread that holds it is looking.

    def told(self) -> str:
        """What the tenant offers, as a sentence for ``appliance check``.

        Raises:
            QlikError: the tenant can't be asked.
        """
        self.forget()
        if self.path() == SCHEDULING:
            return f"The tenant offers the scheduling tasks interface ({SCHEDULING})."
        if self._has(INTERIM):
            return (
                f"The tenant offers the interim tasks interface ({INTERIM}) and not yet "
                f"{SCHEDULING}, which the appliance asks for again every five minutes."
            )
        return (
            f"The tenant offers no interface for tasks (neither {SCHEDULING} nor {INTERIM}): apps "
            "can be reloaded, tasks can't be started."
        )
