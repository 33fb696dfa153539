"""Whether another client uses the bridge's client id.

A broker ends the older of two connections with the same client id (MQTT 3.1.1, section 3.1.4), most
of them without a word, and the two throw each other out for ever. What is seen of it: connections
that were accepted and closed soon, several times. Not for: closings that have another explanation
(a refused filter, a refused message).
"""

from __future__ import annotations

from collections import deque

_SOON_S = 20.0
_STILL_S = 150.0
"""Once it is found: another appliance waits up to two minutes before it takes over."""
_WITHIN_S = 300.0
_LOSSES = 4


class Takeovers:
    """The short-lived connections of one bridge. Times are in seconds of a clock without steps."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=_LOSSES)
        self._is_found = False
        """It goes on, however long the waits are."""

    def clear(self) -> None:
        """Another explanation was found."""
        self._losses.clear()
        self._is_found = False

    def lost(self, now: float, lasted_s: float) -> bool:
        """An accepted connection was closed without a word; returns whether that is a takeover."""
        if lasted_s > (_STILL_S if self._is_found else _SOON_S):
            self.clear()
            return False
        self._losses.append(now)
        if len(self._losses) == _LOSSES and now - self._losses[0] <= _WITHIN_S:
            self._is_found = True
        return self._is_found
