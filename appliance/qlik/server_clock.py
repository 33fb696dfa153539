"""How far the clock of a Qlik server is ahead of ours, as two bounds between which the truth lies.

Two kinds of evidence bound it. The Date header of an answer has whole seconds and may be a second
old (some web servers renew it once a second), but it was written between our request and its
answer. A run that a call of ours began was made after we sent the call, by the clock that all runs
are noted with. Many answers narrow the bounds; with time they widen, because clocks drift.

Not for: reading either of them (transport.py, client_managed.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from appliance.clock import Clock

_S = 1_000_000_000
UNKNOWN_NS = 300 * _S
"""Bounds while nothing is known: clocks of a site's machines differ by five minutes at most where
they sign in with Kerberos (its default tolerance)."""
DATE_AGE_NS = 2 * _S
"""The server's time is at most so far behind the second that the Date header names: one second for
its missing fraction, one for a header that is renewed once a second."""
DRIFT = 1e-4
"""How far two clocks drift apart in each second, at most: quartz clocks keep to half of it."""
_RUNS = 32
"""Runs of ours that are remembered: the quickest way of a call tells most."""
_MILLISECOND_NS = 1_000_000
"""Times of runs have milliseconds, so the truth may be one later."""


class ServerClock:
    """Bounds of a server's time. Thread-safe. All times are nanoseconds since the epoch."""

    def __init__(self, clock: Callable[[], int]) -> None:
        """``clock`` is our time. If it is set (``Clock``), the bounds stay what they were."""
        self._clock = clock
        self._lock = threading.Lock()
        self._low: tuple[int, int] | None = None
        """The least that the server's clock is ahead of our steady time, and when that was seen."""
        self._high: tuple[int, int] | None = None
        self._runs: deque[tuple[int, int]] = deque(maxlen=_RUNS)

    def saw_date(self, date_ns: int, sent_ns: int, received_ns: int) -> None:
        """A Date header came with the answer to a request; the other times are of our clock."""
        stepped = self._stepped_ns()
        low = date_ns - received_ns + stepped
        high = date_ns + DATE_AGE_NS - sent_ns + stepped
        now = received_ns - stepped
        with self._lock:
            is_first = self._low is None or self._high is None
            if is_first or low > _aged(self._high, now, 1) or high < _aged(self._low, now, -1):
                # The first one, or one of the clocks was set: what was known counts no more.
                self._runs.clear()
                self._low, self._high = (low, now), (high, now)
                return
            if low > _aged(self._low, now, -1):
                self._low = low, now
            if high < _aged(self._high, now, 1):
                self._high = high, now
            self._forget_runs(now)

    def saw_run(self, made_ns: int, sent_ns: int) -> None:
        """The server notes ``made_ns`` for a run whose start call we sent at ``sent_ns``."""
        stepped = self._stepped_ns()
        with self._lock:
            now = sent_ns - stepped
            self._runs.append((made_ns + _MILLISECOND_NS - sent_ns + stepped, now))
            self._forget_runs(now)

    def _forget_runs(self, now: int) -> None:
        """Leave out runs of before the server's clock was set ahead."""
        if self._low is not None:
            low = _aged(self._low, now, -1)
            kept = [one for one in self._runs if _aged(one, now, 1) >= low]
            if len(kept) < len(self._runs):
                self._runs = deque(kept, maxlen=_RUNS)

    def between(self, server_ns: int) -> tuple[int, int]:
        """The earliest and the latest time of our clock at which the server noted this time."""
        low, high = self._bounds()
        stepped = self._stepped_ns()
        return server_ns - high + stepped, server_ns + _MILLISECOND_NS - low + stepped

    def doubt_s(self) -> float:
        """How far the bounds are apart, in seconds."""
        low, high = self._bounds()
        return (high - low) / _S

    def _bounds(self) -> tuple[int, int]:
        now = self._clock() - self._stepped_ns()
        with self._lock:
            if self._low is None or self._high is None:
                low, high = -UNKNOWN_NS, UNKNOWN_NS
            else:
                low, high = _aged(self._low, now, -1), _aged(self._high, now, 1)
            if self._runs:
                # Runs are compared with runs, so these count alone: a scheduler on another machine
                # than the one that answers may have a clock that is ahead.
                high = min(_aged(one, now, 1) for one in self._runs)
            return min(low, high), high

    def _stepped_ns(self) -> int:
        return self._clock.stepped_ns if isinstance(self._clock, Clock) else 0


def _aged(bound: tuple[int, int] | None, now: int, sign: int) -> int:
    """A bound as it is now: it moves outwards by the drift."""
    assert bound is not None
    value, at = bound
    return value + sign * int(max(0, now - at) * DRIFT)
