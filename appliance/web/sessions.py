"""Browser sessions: who has signed in, for how long, and which terminal it has.

A session ends a minute after its page was closed (a reload takes less), when it was idle for long,
or after half a day. Not for: whether a password is right (sign_in.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable

from appliance.secret import Secret

LINGER_S = 60.0
"""How long a session waits for a page that is reloaded, or for a network that is back."""
LONGEST_S = 12 * 3600.0


class Session:
    """One signed-in browser."""

    def __init__(self, username: str | None, password: Secret | None, now_s: float) -> None:
        self.username = username
        self.password = password
        """For the terminals of the session; nowhere but in the memory of this process."""
        self.began_s = now_s
        self.used_s = now_s
        """When the person did something last."""
        self.closed_s: float | None = now_s
        """Since when it has no terminal; ``None``: it has one."""
        self.close_terminal: Callable[[], Awaitable[object]] | None = None
        """Ends the terminal that it has."""
        self.turns = asyncio.Lock()
        """Held while a terminal is opened, so that a session never has two."""


class Sessions:
    """All sessions, at most ``most``; ``clock``: seconds, monotonic. For one loop."""

    def __init__(self, most: int, idle_s: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._idle_s = idle_s
        self._clock = clock
        self._sessions: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def is_full(self) -> bool:
        """Whether each session that there may be has a terminal."""
        return len(self._sessions) >= self._most and self._without_terminal() is None

    def begin(self, username: str | None, password: Secret | None) -> str:
        """Begin a session and return its token; one without a terminal makes room if need be."""
        if len(self._sessions) >= self._most and (oldest := self._without_terminal()):
            del self._sessions[oldest]
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = Session(username, password, self._clock())
        return token

    def find(self, token: str | None) -> Session | None:
        """The session of a token that a browser sent, unless it has ended."""
        # Digests are looked up, so how long that takes says nothing about the tokens.
        session = self._sessions.get(_digest(token)) if token else None
        return None if session is None or self._has_ended(session) else session

    def end(self, session: Session) -> None:
        """Forget a session and its password."""
        self._sessions = {key: each for key, each in self._sessions.items() if each is not session}

    def ended(self) -> list[Session]:
        """Take out the sessions whose time is over."""
        over = [each for each in self._sessions.values() if self._has_ended(each)]
        for each in over:
            self.end(each)
        return over

    def all(self) -> list[Session]:
        """Every session."""
        return list(self._sessions.values())

    def used(self, session: Session) -> None:
        """The person has done something."""
        session.used_s = self._clock()

    def opened(self, session: Session) -> None:
        """It has a terminal."""
        session.closed_s = None

    def closed(self, session: Session) -> None:
        """It has no terminal any more."""
        session.closed_s = self._clock()
        session.close_terminal = None

    def _has_ended(self, session: Session) -> bool:
        now_s = self._clock()
        if session.closed_s is not None and now_s - session.closed_s > LINGER_S:
            return True
        return now_s - session.used_s > self._idle_s or now_s - session.began_s > LONGEST_S

    def _without_terminal(self) -> bytes | None:
        return next(
            (key for key, each in self._sessions.items() if each.closed_s is not None), None
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
