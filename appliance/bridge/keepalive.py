"""When a connection to another broker is asked whether it still works, and when it is given up.

A broker ends a connection on which it hears nothing for one and a half keepalives (MQTT 3.1.1,
section 3.1.2.10), and a dead network says nothing at all. Pings also prove that acknowledgements
have arrived: a broker answers in order. Not for: sending (connection.py). Times are in seconds of
any clock that does not step.
"""

from __future__ import annotations

_LEAST_ANSWER_S = 10.0
"""A mosquitto that saves each change looks at some hundred acknowledgements a second where
thousands of messages wait, and answers a ping behind a thousand of them."""
_ANSWER = 0.8
"""Of the keepalive. With what passes before a ping, it is what brokers wait for clients."""


class Keepalive:
    """The pings of one connection; at most one is under way."""

    __slots__ = ("_answer_s", "_asked_at", "_heard_at", "_quiet_s", "_sent_at")

    def __init__(self, keepalive_s: float, now: float) -> None:
        """``keepalive_s``: what both sides agreed on; 0: the broker asks for none."""
        # A ping must arrive within the keepalive, so it leaves well before its end.
        self._quiet_s = keepalive_s * 0.7 if keepalive_s else 60.0
        self._answer_s = max(_LEAST_ANSWER_S, keepalive_s * _ANSWER if keepalive_s else 30.0)
        self._heard_at = self._sent_at = now
        self._asked_at: float | None = None

    @property
    def is_asked(self) -> bool:
        """Whether a PINGREQ is under way."""
        return self._asked_at is not None

    def heard(self, now: float) -> None:
        """Bytes came."""
        self._heard_at = now

    def sent(self, now: float) -> None:
        """Bytes were sent."""
        self._sent_at = now

    def pinged(self, now: float) -> None:
        """A PINGREQ was sent."""
        self._asked_at = self._sent_at = now

    def answered(self) -> bool:
        """A PINGRESP came; returns whether one was expected."""
        was_asked = self._asked_at is not None
        self._asked_at = None
        return was_asked

    def unheard(self, now: float) -> None:
        """Nothing is read from the broker now, so its silence means nothing."""
        self._heard_at = now
        if self._asked_at is not None:
            self._asked_at = now

    def wants_ping(self, now: float, *, for_proof: bool, is_read: bool) -> bool:
        """Whether a PINGREQ is to be sent now.

        Args:
            now: the time.
            for_proof: acknowledgements were sent whose arrival is to be proven.
            is_read: whether answers are read now; if not, pings only keep the connection.
        """
        if self._asked_at is not None and is_read:
            return False
        if now - self._sent_at >= self._quiet_s or now - self._heard_at >= self._quiet_s:
            return True
        return for_proof and is_read

    def is_dead(self, now: float) -> bool:
        """Whether the broker left a PINGREQ unanswered for too long, and sent nothing else."""
        asked = self._asked_at
        return asked is not None and now - max(asked, self._heard_at) >= self._answer_s
