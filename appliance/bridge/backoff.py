"""How long a bridge waits before it connects again.

Each failure doubles the wait, up to a longest one; a random part keeps many bridges from coming
back in the same instant. A connection that has lasted begins anew. Not for: waiting.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from appliance.bridge.causes import Kind

_PATIENT = frozenset(
    {
        Kind.PASSWORD,
        Kind.NOT_AUTHORIZED,
        Kind.BANNED,
        Kind.CLIENT_ID,
        Kind.CERTIFICATE,
        Kind.CLIENT_CERTIFICATE,
        Kind.FILES,
        Kind.VERSION,
        Kind.QUOTA,
    }
)
"""Causes that an operator has to see to, or that more attempts make worse."""

_LONG_S = 600.0
"""A connection that lasted as long shows that no other client wants its client id."""


class Pace(msgspec.Struct, frozen=True):
    """The waits, in seconds."""

    first_s: float = 1.0
    longest_s: float = 30.0
    patient_s: float = 120.0
    """The longest wait where an operator has to see to the cause."""
    first_takeover_s: float = 15.0
    """The shortest wait after another client took the client id; it doubles each time. A network
    that fails several times in a minute looks the same."""
    takeover_s: float = 120.0
    """Up to which it doubles."""
    stable_s: float = 10.0
    """A connection that lasted as long worked."""
    probe_s: float = 10.0
    """How long the test of a shared subscription may take to come back."""


class Backoff:
    """The waits of one bridge. ``chance`` gives numbers from 0 to 1."""

    def __init__(self, pace: Pace, chance: Callable[[], float] = random.random) -> None:
        self._pace = pace
        self._chance = chance
        self.failures = 0
        """Connections that failed or did not last, since the last that did."""
        self._takeovers = 0
        """The same, of those that another client took."""

    def wait_s(self, kind: Kind, lasted_s: float) -> float:
        """The wait after a connection that was open for ``lasted_s`` (0: never) has ended."""
        pace = self._pace
        if lasted_s >= pace.stable_s:
            self.failures = 0
        # Two appliances with one client id end each other's connection after each wait, so one that
        # lasted as long does not show that the other is gone.
        enough_s = _LONG_S if kind is Kind.TAKEN_OVER else pace.stable_s
        if lasted_s >= enough_s:
            self._takeovers = 0
        longest = pace.patient_s if kind in _PATIENT else pace.longest_s
        wait = float(min(longest, pace.first_s * 2 ** min(self.failures, 30)))
        if kind is Kind.TAKEN_OVER:
            doubled = pace.first_takeover_s * 2 ** min(self._takeovers, 30)
            wait = max(wait, min(pace.takeover_s, doubled))
            self._takeovers += 1
        self.failures += 1
        return wait * (0.5 + 0.5 * self._chance())
