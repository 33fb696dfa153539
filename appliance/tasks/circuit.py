"""Whether the Qlik server answers. While it does not, only health checks are sent to it.

It opens for calls that did not reach the server, and for a health check that failed. A call that
reached it (any answer, and a time-out after the request was sent) says nothing of other calls.

Not for: retries of single requests (planner.py), when the server is checked (health_watch.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from appliance.engine_api import Health
from appliance.qlik.server import QlikError, RetryPolicy, ServerInfo

_log = logging.getLogger(__name__)
OPENS_AFTER = 3
"""Calls in a row that did not reach the server."""


class Circuit:
    """What the calls say about the server, as one state. The state store's lock guards it."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self.is_open = False
        self.opened_ns: int | None = None
        """Since when it is open."""
        self.next_check_ns: int | None = None
        """When the server is checked next, unless a call asks for a check before."""
        self.check_wanted = threading.Event()
        """Set by a call that failed, and by an operator who ends a wait."""
        self.was_checked_well = False
        """Whether the last health check was answered well."""
        self.closed_s: float | None = None
        """When it closed, by ``time.monotonic``, until calls of before are broken off: the server
        has been away since, so their answers are not waited for any more."""
        self._failures = 0
        self._error: QlikError | None = None
        self._info: ServerInfo | None = None

    def succeeded(self) -> bool:
        """A call was answered; returns whether that closed the circuit."""
        was_open = self.is_open
        if was_open:
            self._close()
            self._error = None
            self.check_wanted.set()
        self._failures = 0
        return was_open

    def checked(self, info: ServerInfo) -> bool:
        """A health check was answered well; returns whether the one before was not."""
        is_back = self.is_open or not self.was_checked_well
        if self.is_open:
            self._close()
        self._failures = 0
        self._error = None
        self._info = info
        self.was_checked_well = True
        return is_back

    def failed(self, error: QlikError) -> None:
        """A call failed; the circuit opens after some that did not reach the server."""
        if error.retry is RetryPolicy.NEVER and not error.is_page:
            return
        self.check_wanted.set()
        if error.is_reached:
            self._failures = 0
            return
        self._failures += 1
        self._error = error
        if self._failures >= OPENS_AFTER:
            self._open(error)

    def check_failed(self, error: QlikError) -> None:
        """A health check failed.

        An answer that will stay the same (403) and a request to wait (429) do not open the circuit:
        the server is there. A page for people does: the server is behind it.
        """
        self.was_checked_well = False
        self._error = error
        if error.is_page or error.retry is RetryPolicy.LOOK_FIRST or not error.is_reached:
            self._open(error)

    def _open(self, error: QlikError) -> None:
        if not self.is_open:
            self.is_open = True
            self.opened_ns = self._clock_ns()
            _log.warning("The Qlik server does not answer, starts wait: %s", error)

    def _close(self) -> None:
        self.is_open = False
        self.opened_ns = None
        self.closed_s = time.monotonic()

    def cause(self) -> str:
        """The sentence that says why the last check, or the calls, failed; else nothing."""
        return "" if self._error is None else str(self._error)

    def health(self) -> Health:
        """The state in a sentence, the one that the log and ``check --connect`` have."""
        if self._error is not None:
            is_bad = self.is_open or self._error.retry is RetryPolicy.NEVER
            return Health("bad" if is_bad else "warn", str(self._error))
        if self._info is None:
            return Health("warn", "not asked yet")
        rtt_ms = self._info.rtt_s * 1000
        return Health("ok", f"{self._info.version}, {rtt_ms:.0f} ms".lstrip(", "))
