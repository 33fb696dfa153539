"""How long a recorder waits before it asks a database again that failed.

Not for: waiting. Until the time has come, an attempt fails at once with what the last one said.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from appliance.recorders.database_fault import Cause, DatabaseFaultError


class TimeLimits(msgspec.Struct, frozen=True):
    """How long a server may take, in seconds."""

    connect_s: float = 10.0
    statement_s: float = 30.0
    """After this the server itself gives a statement up, where it can."""
    answer_s: float = 45.0
    """After this the connection is cut: the server, or the network to it, hangs."""


class Waits(msgspec.Struct, frozen=True):
    """Seconds from a failure to the next attempt; each failure doubles them."""

    first_s: float = 1.0
    longest_s: float = 10.0
    patient_s: float = 60.0
    """The longest where an operator has to see to the cause."""


class Retries:
    """The attempts of one recorder."""

    def __init__(
        self, waits: Waits | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._waits = waits or Waits()
        self._now = now
        self._failures = 0
        self._at = 0.0
        self._last: tuple[Cause, str] | None = None

    def check(self) -> None:
        """Raise the last ``DatabaseFaultError`` again if it is too early for an attempt."""
        if self._last is not None and self._now() < self._at:
            # Not the same object: it would collect a traceback each time.
            raise DatabaseFaultError(*self._last)

    def failed(self, fault: DatabaseFaultError) -> None:
        waits = self._waits
        longest = waits.patient_s if fault.cause.is_patient else waits.longest_s
        self._at = self._now() + min(longest, waits.first_s * 2 ** min(self._failures, 10))
        self._failures += 1
        self._last = fault.cause, fault.reason

    def succeeded(self) -> None:
        self._failures = 0
        self._last = None
