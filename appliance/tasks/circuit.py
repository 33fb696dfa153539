"""Whether the Qlik server answers. While it does not, only health checks are sent to it.

Not for: retries of single requests (planner.py).
"""

from __future__ import annotations

import logging

from appliance.engine_api import Health
from appliance.qlik.server import QlikError, RetryPolicy, ServerInfo

_log = logging.getLogger(__name__)
OPENS_AFTER = 3
"""Calls in a row that failed to reach the server."""


class Circuit:
    """What the calls say about the server, as one state. The state store's lock guards it."""

    def __init__(self) -> None:
        self.is_open = False
        self._failures = 0
        self._error: QlikError | None = None
        self._info: ServerInfo | None = None

    def succeeded(self, info: ServerInfo | None = None) -> bool:
        """A call was answered; returns whether that closed the circuit."""
        was_open = self.is_open
        self.is_open = False
        self._failures = 0
        if info is not None:
            self._info = info
            self._error = None
        elif was_open:
            self._error = None
        return was_open

    def failed(self, error: QlikError, *, is_check: bool = False) -> None:
        """A call failed; the circuit opens after enough failures.

        An answer that will stay the same (403, a login page) and a request to wait (429) are
        answers: the server is there.
        """
        if error.retry is RetryPolicy.NEVER or error.retry_after_s is not None:
            if is_check:
                self._error = error
            return
        self._failures += 1
        self._error = error
        if not self.is_open and (self._failures >= OPENS_AFTER or is_check):
            self.is_open = True
            _log.warning("The Qlik server does not answer, starts wait: %s", error)

    def health(self) -> Health:
        """The state in one clause."""
        if self.is_open and self._error is not None:
            return Health("bad", f"{self._error.label}: starts wait until the server answers")
        if self._error is not None:
            level = "bad" if self._error.retry is RetryPolicy.NEVER else "warn"
            return Health(level, self._error.label)
        if self._info is None:
            return Health("warn", "not asked yet")
        rtt_ms = self._info.rtt_s * 1000
        return Health("ok", f"{self._info.version}, {rtt_ms:.0f} ms".lstrip(", "))
