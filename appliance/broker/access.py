"""Who may come in, and who may publish and subscribe to what.

Credentials are checked in a worker thread, before anything else of the broker sees the CONNECT.
Not for: the users file (users.py), limits on connections (listener.py).
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from appliance.broker.client_ids import ClientIds
from appliance.broker.login_failures import LONGEST_S, LoginFailures
from appliance.broker.login_queue import LoginQueue, Pair, QueueFullError
from appliance.broker.users import Users
from appliance.config.tables import AccessConfig, AccessRule
from appliance.config.values import is_loopback
from appliance.counters import Count, Counter
from appliance.mqtt.packets import PacketError, Reason
from appliance.mqtt.topics import covers, matches
from appliance.remote.topics import PREFIX, is_own_request, is_own_topic, is_plain

if TYPE_CHECKING:
    from appliance.broker.plugins import PluginClient, Plugins

_CHECKS_AT_ONCE = max(1, min(3, os.cpu_count() or 1))
"""Passwords that are checked at one time: one worker thread at least stays free for other work."""
_PLUGIN_QUESTIONS_AT_ONCE = 64
_PLACEHOLDER = re.compile("%[uc]")


class Role(enum.StrEnum):
    """What an attached terminal may do."""

    OPERATOR = "operator"
    """Look and act."""
    VIEWER = "viewer"
    """Look."""


class Terms(msgspec.Struct, frozen=True):
    """What a configuration says about access."""

    config: AccessConfig
    users: Users | None
    anonymous: bool
    """Whether clients without a name may come in where there are users."""
    open_without_users: bool
    """Whether a client may come in without a name while there are no users."""


class Proof(msgspec.Struct, frozen=True):
    """On what a client was admitted."""

    mark: bytes | None = None
    """The mark of the user whose password was right; ``None`` if none was asked for."""
    by_plugins: bool = False
    """Plugins let it in: it is no user of the users file."""
    by_certificate: bool = False
    """Its certificate names it, and TLS has verified that one: there is no password."""


class Access:
    """Who may do what, by the terms that count now.

    Without rules, everybody who got in may publish and subscribe to everything but the topics
    that are the appliance's own. With rules, a client may do what at least one rule that fits its
    user name and client id permits, unless such a rule denies it. ``%u`` and ``%c`` in a rule's
    filter stand for the user name and client id; a name that has ``/``, ``+`` or ``#`` is never
    allowed by such a filter, and is denied by it as if any name stood there.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        reserved: str,
        executor: Executor,
        clock: Callable[[], float],
        count: Count,
        plugins: Plugins | None = None,
    ) -> None:
        self._plugins = plugins if plugins is not None and plugins.authenticate_clients else None
        self.take(terms)
        self._reserved = f"{reserved}/#"
        self._executor = executor
        self._clock = clock
        self._count = count
        self._failures = LoginFailures(clock)
        self._checks = LoginQueue(_CHECKS_AT_ONCE, clock)
        self._plugin_questions = LoginQueue(_PLUGIN_QUESTIONS_AT_ONCE, clock)
        self._logins = 0

    @property
    def logins(self) -> int:
        """Clients that have sent their CONNECT and wait for the check or for its answer."""
        return self._logins

    def make_room(self, origin: str | None) -> bool:
        """End a connection whose login was refused and that waits for the answer to that.

        Returns whether there was one: of the origin, or if ``None`` of any.
        """
        return self._failures.answer_oldest(origin)

    @property
    def is_open(self) -> bool:
        """Whether clients may come in without a password."""
        if self._has_users or self._plugins is not None:
            return self._terms.anonymous
        return self._terms.open_without_users

    @property
    def takes_nameless(self) -> bool:
        """Whether any client without a name may come in: plugins may know one by other means."""
        return self.is_open or self._plugins is not None

    @property
    def _has_users(self) -> bool:
        return self._users is not None and self._users.exists

    def take(self, terms: Terms) -> None:
        """Let other terms count from now on. For connected clients: reauthorize.py."""
        self._terms = terms
        self._rules = terms.config.rule
        self._client_ids = ClientIds(terms.config.client_ids)
        self._has_denials = any(rule.deny for rule in self._rules)
        self._users = terms.users

    def refresh(self) -> int:
        """Look for changes in the users file; returns another number after each.

        Reads files: for worker threads.
        """
        return 0 if self._users is None else self._users.refresh()

    def still_admits(self, username: str | None, proof: Proof) -> bool:
        """Whether a client that was admitted would be admitted now, without asking it again."""
        if proof.by_certificate:
            return True
        mark = None if self._users is None else self._users.mark(username or "")
        if proof.by_plugins:
            # A name that was added to the users file since is asked for the password there.
            return self._plugins is not None and mark is None
        if not self._asks_for_passwords:
            return self._terms.open_without_users
        if proof.mark is None:
            return username is None and self._terms.anonymous
        return proof.mark == mark

    @property
    def _asks_for_passwords(self) -> bool:
        return self._has_users or self._plugins is not None

    def remembered(self, username: str, password: bytes) -> Proof | None:
        """On what a user is let in whose password was right before; ``None``: call ``admit``.

        Safe in any thread, and reads no file.
        """
        users = self._users
        if users is None or self._plugins is not None or not users.exists:
            return None
        mark = users.remembered(username, password)
        return None if mark is None else Proof(mark)

    def token_user(self, token: str, now_s: float) -> str | None:
        """The user of a token that counts at ``now_s`` (seconds since 1970). Safe in any thread."""
        users = self._users
        return None if users is None else users.token_user(token, now_s)

    async def refuse(self, host: str) -> None:
        """Count a login that was refused, and hold its answer as long as that of others."""
        origin = origin_of(host)
        self._count(Counter.LOGINS_REFUSED)
        await self._failures.hold(origin, self._failures.delay_s(origin))

    def admit_at_once(self, username: str | None, password: bytes | None) -> Proof | None:
        """``admit`` where nothing has to be checked or waited for; ``None``: call ``admit``."""
        is_nameless = username is None and password is None
        if self.is_open and (is_nameless or not self._asks_for_passwords):
            return Proof()
        return None

    async def admit(
        self,
        username: str | None,
        password: bytes | None,
        host: str,
        client: PluginClient | None = None,
    ) -> Proof | None:
        """Whether these credentials let a client in: on what, or ``None``.

        A user of the users file is checked there. Plugins are asked about everybody else who
        shows a name, a password or a certificate; ``client`` is how they know the client.

        A right password is looked at in its turn (login_queue.py), at once if it was right before.
        A failure is answered the later the more there were from the address, up to 3.5 s after the
        CONNECT.

        Raises:
            PacketError: too many logins wait, or a plugin did not answer.
        """
        self._logins += 1
        arrived = self._clock()
        try:
            return await self._admit(username, password, host, client)
        except QueueFullError:
            self._count(Counter.LOGINS_REFUSED_TOO_MANY_FAILURES)
            # As late as a wrong password: an answer at once would bring the next guess at once.
            await self._failures.hold(origin_of(host), arrived + LONGEST_S - self._clock())
            text = f"too many logins wait, and this one from {host} has no turn"
            raise PacketError(text, Reason.SERVER_BUSY) from None
        finally:
            self._logins -= 1

    async def _admit(
        self,
        username: str | None,
        password: bytes | None,
        host: str,
        client: PluginClient | None,
    ) -> Proof | None:
        arrived = self._clock()
        origin = origin_of(host)
        proof = Proof()
        has_waited = False
        shows_certificate = client is not None and client.shows_certificate
        nameless = username is None and password is None and not shows_certificate
        if nameless or not self._asks_for_passwords:
            # Where there are no users a name proves nothing; it is still welcome.
            admitted = self.is_open
        elif self._users is None or not self._users.exists or await self._is_for_plugins(username):
            admitted = await self._ask_plugins(client, Pair(username, origin))
            proof = Proof(by_plugins=True)
            # The name may have become one of the users file while the plugins were asked.
            admitted = admitted and self.still_admits(username, proof)
        else:
            mark, has_waited = await self._checked(
                self._users, username or "", password or b"", origin
            )
            proof = Proof(mark)
            # The rules may have become others while the password was checked.
            admitted = mark is not None and self.still_admits(username, proof)
        if admitted:
            return proof
        self._count(Counter.LOGINS_REFUSED)
        delay = self._failures.delay_s(origin)
        if has_waited:
            # How long it waited could tell whether there is such a user.
            delay = LONGEST_S
        await self._failures.hold(origin, arrived + delay - self._clock())
        return None

    async def _checked(
        self, users: Users, name: str, password: bytes, origin: str
    ) -> tuple[bytes | None, bool]:
        """The mark of the password's user, ``None`` if it is wrong; whether the check waited.

        Raises:
            QueueFullError: the check can't be made in time.
        """
        loop = asyncio.get_running_loop()
        is_right, mark = await loop.run_in_executor(self._executor, users.recall, name, password)
        pair = Pair(name if users.mark(name) else None, origin)
        if is_right is not None:
            if is_right:
                self._checks.succeeded(pair)
            return mark, False
        has_waited = await self._checks.wait_turn(pair)
        check = loop.run_in_executor(self._executor, _verified, users, name, password)
        check.add_done_callback(partial(self._was_checked, pair))
        return await asyncio.shield(check), has_waited

    def _was_checked(self, pair: Pair, check: asyncio.Future[bytes | None]) -> None:
        """Note a check's result. Until then its thread is busy, also when its client has gone."""
        self._checks.release()
        if check.cancelled() or check.exception() is not None:
            return
        if check.result() is None:
            self._checks.failed(pair)
        else:
            self._checks.succeeded(pair)

    async def _is_for_plugins(self, username: str | None) -> bool:
        """Whether the users file has no such user, and there are plugins to ask."""
        if self._plugins is None or self._users is None:
            return False
        # A user who was just added to the file must not be taken for another one.
        await asyncio.get_running_loop().run_in_executor(self._executor, self._users.refresh)
        return self._users.mark(username or "") is None

    async def _ask_plugins(self, client: PluginClient | None, pair: Pair) -> bool:
        if self._plugins is None or client is None:
            return False
        await self._plugin_questions.wait_turn(pair)
        try:
            admitted = await self._plugins.admit(client)
        finally:
            self._plugin_questions.release()
        if admitted:
            self._plugin_questions.succeeded(pair)
        else:
            self._plugin_questions.failed(pair)
        return admitted

    def may_choose(self, username: str | None, client_id: str) -> bool:
        """Whether a client may choose this client id."""
        return self._client_ids.allow(username, client_id)

    def may_publish(self, username: str | None, client_id: str, topic: str) -> bool:
        """Whether a client may publish to a (valid) topic."""
        if topic[0] == "$" or matches(self._reserved, topic):
            return False
        if not self._rules:
            return True
        if any(matches(denied, topic) for denied in self._denied(username, client_id)):
            return False
        return any(
            matches(allowed, topic)
            for rule in self._fitting(username, client_id)
            for allowed in _filled(rule.publish, username, client_id)
        )

    def role(self, username: str | None, address: str) -> Role | None:
        """What a client that came in from ``address`` (``host:port``) may do with a terminal.

        Where there are no users, a terminal on this machine is an operator's: its user
        could stop the process as well.
        """
        if self._users is None or not self._users.exists:
            host = address.rpartition(":")[0].strip("[]")
            return Role.OPERATOR if is_loopback(host) else None
        if username is None:
            return None
        if any(fnmatchcase(username, pattern) for pattern in self._terms.config.operators):
            return Role.OPERATOR
        if any(fnmatchcase(username, pattern) for pattern in self._terms.config.viewers):
            return Role.VIEWER
        return None

    def may_ask(self, username: str | None, client_id: str, topic: str, address: str) -> bool:
        """Whether this is the topic on which this client may send a terminal's requests."""
        return is_own_request(topic, client_id) and self.role(username, address) is not None

    def may_subscribe(
        self, username: str | None, client_id: str, topic_filter: str, address: str = ""
    ) -> bool:
        """Whether a client may subscribe to a (valid) filter: it must lie within one rule.

        What is sent to an attached terminal is for that terminal alone; rules do not count there.
        """
        return self.subscriber(username, client_id, address)(topic_filter)

    def subscriber(
        self, username: str | None, client_id: str, address: str = ""
    ) -> Callable[[str], bool]:
        """``may_subscribe`` for many filters of one client, whose rules are found once."""
        allowed = self.readable(username, client_id)
        denied = self._denied(username, client_id)

        def may_subscribe(topic_filter: str) -> bool:
            if topic_filter.startswith(PREFIX):
                return is_own_topic(topic_filter, client_id) and (
                    self.role(username, address) is not None
                )
            if any(covers(each, topic_filter) for each in denied):
                return False
            return allowed is None or any(covers(each, topic_filter) for each in allowed)

        return may_subscribe

    def readable(self, username: str | None, client_id: str) -> tuple[str, ...] | None:
        """The filters within which a client may subscribe, ``deny`` left aside; ``None``: all."""
        if not self._rules:
            return None
        return tuple(
            text
            for rule in self._fitting(username, client_id)
            for text in _filled(rule.subscribe, username, client_id)
        )

    def denial(self, username: str | None, client_id: str) -> Callable[[str], bool] | None:
        """What says whether a client may not get messages of a topic; ``None``: it may of all.

        Subscriptions are checked when they are granted; only those of users with ``deny`` rules
        can be wider than what their client may have.
        """
        denied = self._denied(username, client_id)
        return partial(_is_denied, tuple(denied)) if denied else None

    def _denied(self, username: str | None, client_id: str) -> list[str]:
        if not self._has_denials:
            return []
        return [
            text
            for rule in self._fitting(username, client_id)
            for text in _filled_denials(rule.deny, username, client_id)
        ]

    def _fitting(self, username: str | None, client_id: str) -> list[AccessRule]:
        return [
            rule
            for rule in self._rules
            if fnmatchcase(username or "", rule.user) and fnmatchcase(client_id, rule.client_id)
        ]


def _verified(users: Users, name: str, password: bytes) -> bytes | None:
    """The mark of what a password was checked against; ``None``: it is wrong. For workers."""
    users.refresh()
    while True:
        mark = users.mark(name)
        if not users.verify(name, password):
            return None
        # The file may have been changed in between; then it is looked at again.
        if users.mark(name) == mark:
            return mark


def _filled(filters: tuple[str, ...], username: str | None, client_id: str) -> list[str]:
    names = {"%u": username or "", "%c": client_id}
    return [
        # In one pass, because a name may itself look like a placeholder.
        _PLACEHOLDER.sub(lambda found: names[found[0]], text)
        for text in filters
        if all(is_plain(names[found]) for found in _PLACEHOLDER.findall(text))
    ]


def _filled_denials(
    filters: tuple[str, ...], username: str | None, client_id: str
) -> Iterator[str]:
    """``_filled`` for what is denied: a level with a name that is not plain denies every level."""
    names = {"%u": username or "", "%c": client_id}
    for text in filters:
        yield "/".join(
            _PLACEHOLDER.sub(lambda found: names[found[0]], level)
            if all(is_plain(names[found]) for found in _PLACEHOLDER.findall(level))
            else "+"
            for level in text.split("/")
        )


def _is_denied(filters: tuple[str, ...], topic: str) -> bool:
    return not topic.startswith(PREFIX) and any(matches(each, topic) for each in filters)


def origin_of(host: str) -> str:
    """What strangers are counted for: an IPv4 address, or the /64 network of an IPv6 address.

    A host that has one IPv6 address usually has 2**64 of them.
    """
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
