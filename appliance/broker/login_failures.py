"""When a client with a wrong password is answered: ever later, and never too late.

Clients give up after five seconds or more and then take the broker for dead, so an answer comes
within four. Not for: which login is looked at first (login_queue.py).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from appliance.broker.recent_failures import RecentFailures

LONGEST_S = 3.5
"""From the CONNECT to the answer."""
_FIRST_DELAY_S = 0.25
_FAILURES_BEFORE_DELAY = 3
_DOUBLINGS = 8
_HELD = 2048
"""Clients that wait for the answer to a failure, in all: some 3 KB each."""
_HELD_OF_ORIGIN = 512
"""As many as connections of one address may be, if not configured otherwise. A bound that bites
answers guesses sooner, so that more of them come."""


class LoginFailures:
    """The failures of each origin (``origin_of``). Engine's loop only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._failures: RecentFailures[str] = RecentFailures(clock)
        self._held: dict[str, dict[asyncio.Event, None]] = {}
        """Waiting clients, the oldest first."""
        self.held = 0
        """Clients that wait for their answer."""

    def delay_s(self, origin: str) -> float:
        """Note a failure; returns how long after the CONNECT it is to be answered.

        A success does not make up for failures: it may be another user's, or the guesser's own.
        """
        failures = self._failures.note(origin)
        if failures <= _FAILURES_BEFORE_DELAY:
            return 0.0
        doublings = min(failures - _FAILURES_BEFORE_DELAY, _DOUBLINGS)
        return float(min(LONGEST_S, _FIRST_DELAY_S * 2**doublings))

    async def hold(self, origin: str, seconds: float) -> None:
        """Let a client wait for its answer, unless too many do: then the oldest is answered."""
        if seconds <= 0:
            return
        answered = asyncio.Event()
        crowd = self._held.setdefault(origin, {})
        crowd[answered] = None
        self.held += 1
        if len(crowd) > _HELD_OF_ORIGIN:
            self.answer_oldest(origin)
        elif self.held > _HELD:
            self.answer_oldest()
        try:
            async with asyncio.timeout(seconds):
                await answered.wait()
        except TimeoutError:
            pass
        finally:
            self.held -= 1
            del crowd[answered]
            if not crowd:
                self._held.pop(origin, None)

    def answer_oldest(self, origin: str | None = None) -> bool:
        """Answer the client that has waited longest; returns whether there was one.

        Of the origin, or if ``None`` of the origin that has most of them.
        """
        crowds = sorted(self._held.values(), key=len, reverse=True)
        if origin is not None:
            crowds = [self._held.get(origin, {})]
        for answered in itertools.chain.from_iterable(crowds):
            if not answered.is_set():
                answered.set()
                return True
        return False
