"""Who may come in, and who may publish and subscribe to what.

Credentials are checked in a worker thread, before anything else of the broker sees the CONNECT.
Not for: the users file (appliance.users), limits on connections (listener.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from fnmatch import fnmatchcase
from typing import Protocol

from appliance.config import AccessConfig, AccessRule
from appliance.topics import covers, matches

_FAILURES_BEFORE_DELAY = 3
_LONGEST_DELAY_S = 10.0
_REMEMBERED_ADDRESSES = 4096
_FORGET_AFTER_S = 300.0


class Credentials(Protocol):
    """A users file."""

    def verify(self, name: str, password: bytes) -> bool:
        """Check a password. Blocks for tens of milliseconds: for worker threads."""


class Access:
    """The access rules of one configuration.

    Without rules, everybody who got in may publish and subscribe to everything but the topics
    that are the appliance's own. With rules, a client may do what at least one rule that fits its
    user name and client id permits. ``%u`` and ``%c`` in a rule's filter stand for the user name
    and client id; a name that has ``/``, ``+`` or ``#`` never fits such a filter.
    """

    def __init__(
        self,
        config: AccessConfig,
        *,
        users: Credentials | None,
        anonymous: bool,
        reserved: str,
        executor: Executor,
        clock: Callable[[], float],
        count: Callable[[str], None],
    ) -> None:
        self._rules = config.rule
        self._users = users
        self._anonymous = anonymous
        self._reserved = f"{reserved}/#"
        self._executor = executor
        self._clock = clock
        self._count = count
        self._failures: dict[str, tuple[int, float]] = {}

    async def admit(self, username: str | None, password: bytes | None, host: str) -> bool:
        """Whether these credentials let a client in.

        Repeated failures from one address are answered ever more slowly, up to ten seconds.
        """
        if username is None and password is None:
            if self._anonymous:
                return True
            admitted = False
        elif self._users is None:
            # Without a users file a name proves nothing; on loopback it is still welcome.
            admitted = self._anonymous
        else:
            admitted = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._users.verify, username or "", password or b""
            )
        if admitted:
            self._failures.pop(host, None)
            return True
        self._count("logins refused")
        await asyncio.sleep(self._delay(host))
        return False

    def _delay(self, host: str) -> float:
        now = self._clock()
        failures, last = self._failures.pop(host, (0, now))
        failures = 1 if now - last > _FORGET_AFTER_S else failures + 1
        while len(self._failures) >= _REMEMBERED_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        self._failures[host] = (failures, now)
        if failures <= _FAILURES_BEFORE_DELAY:
            return 0.0
        return float(min(_LONGEST_DELAY_S, 0.25 * 2 ** (failures - _FAILURES_BEFORE_DELAY)))

    def may_publish(self, username: str | None, client_id: str, topic: str) -> bool:
        """Whether a client may publish to a (valid) topic."""
        if topic[0] == "$" or matches(self._reserved, topic):
            return False
        if not self._rules:
            return True
        return any(
            matches(allowed, topic)
            for rule in self._fitting(username, client_id)
            for allowed in _filled(rule.publish, username, client_id)
        )

    def may_subscribe(self, username: str | None, client_id: str, topic_filter: str) -> bool:
        """Whether a client may subscribe to a (valid) filter: it must lie within one rule."""
        if not self._rules:
            return True
        return any(
            covers(allowed, topic_filter)
            for rule in self._fitting(username, client_id)
            for allowed in _filled(rule.subscribe, username, client_id)
        )

    def _fitting(self, username: str | None, client_id: str) -> list[AccessRule]:
        return [
            rule
            for rule in self._rules
            if fnmatchcase(username or "", rule.user) and fnmatchcase(client_id, rule.client_id)
        ]


def _filled(filters: tuple[str, ...], username: str | None, client_id: str) -> list[str]:
    filled = []
    for text in filters:
        if "%u" in text and not _fills(username):
            continue
        if "%c" in text and not _fills(client_id):
            continue
        filled.append(text.replace("%u", username or "").replace("%c", client_id))
    return filled


def _fills(name: str | None) -> bool:
    return bool(name) and not any(sign in name for sign in "/+#") if name else False
