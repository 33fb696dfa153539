"""The amqtt plugins that the configuration names, asked at the door and told what happens.

Several plugins together follow amqtt's rule for authentication, for topics too: each has the right
to refuse; at least one must say yes; a plugin that answers ``None`` has no opinion. A plugin that
fails or takes too long refuses. Not for: running a plugin (plugin_runner.py), the users file and
the rules, which are asked first (access.py).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from amqtt.contexts import Action
from amqtt.events import BrokerEvents
from amqtt.session import Session

from appliance.broker.light_session import LightSession
from appliance.broker.plugin_classes import PluginClass
from appliance.broker.plugin_gate import TopicGate
from appliance.broker.plugin_runner import PluginFailedError, PluginRunner
from appliance.counters import Count, Counter
from appliance.journal.message_cost import cost_of
from appliance.model import Message, is_own
from appliance.mqtt.packets import Connect, PacketError, Reason

__all__ = ["Action", "PluginClient", "PluginFailedError", "Plugins"]

_MOST_ANSWERS = 50_000
"""Answers about topics that are remembered, of all clients together; some 300 bytes each."""
_NUMBERS = itertools.count(1)


class _ShownCertificate:
    """The client's certificate, in place of the ``SSLObject``.

    That may not be used in a plugin's thread while the engine's loop reads from it.
    """

    def __init__(self, ssl_object: Any) -> None:
        self._as_bytes: bytes | None = ssl_object.getpeercert(True)
        self._as_table: dict[str, Any] | None = ssl_object.getpeercert(False)

    def getpeercert(self, binary_form: bool = False) -> bytes | dict[str, Any] | None:
        return self._as_bytes if binary_form else self._as_table


class PluginClient(msgspec.Struct, frozen=True, eq=False):
    """One connection, as plugins know it."""

    number: int
    """Of its own: another connection of the same client may have another password."""
    session: Session
    shows_certificate: bool
    """The listener asked for a certificate (``tls.client_ca``), and the client has one."""


class Plugins:
    """All plugins. Engine's loop only."""

    def __init__(
        self,
        classes: Iterable[PluginClass],
        *,
        timeout_s: float,
        cache_s: float,
        count: Count,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runners = [
            PluginRunner(kind, number, count) for number, kind in enumerate(classes, 1)
        ]
        self._authenticators = [each for each in self._runners if each.kind.authenticates]
        self._topic_plugins = [each for each in self._runners if each.kind.filters_topics]
        self._keeps_password = any(each.kind.keep_password for each in self._topic_plugins)
        self._timeout_s = timeout_s
        self._cache_s = cache_s
        self._count = count
        self._clock = clock
        self._answers: OrderedDict[tuple[int, str, Action], tuple[bool, float]] = OrderedDict()
        self.authenticate_clients = bool(self._authenticators)
        """Whether clients can be let in by plugins."""
        self.filter_topics = bool(self._topic_plugins)
        """Whether plugins are asked about topics."""
        self.hear_messages = self._hears(BrokerEvents.MESSAGE_RECEIVED) or self._hears(
            BrokerEvents.MESSAGE_BROADCAST
        )

    def _hears(self, event: BrokerEvents) -> bool:
        return any(each.hears(event) for each in self._runners)

    async def start(self) -> None:
        """Start the plugins' threads. What they connect to may be down: that is seen later."""
        await asyncio.gather(*(each.start() for each in self._runners))

    async def stop(self) -> None:
        """End all plugins, within seconds."""
        await asyncio.gather(*(each.stop() for each in self._runners))

    def bound(self, timeout_s: float, cache_s: float) -> None:
        """Let other times count: for questions from now on, and for what is remembered."""
        self._timeout_s, self._cache_s = timeout_s, cache_s
        self._answers.clear()

    def client(
        self, asked: Connect, client_id: str, peer: tuple[str, int], ssl_object: Any
    ) -> PluginClient:
        """What plugins get to know of a connection that asks to come in.

        ``ssl_object`` is the listener's, for plugins that look at the client's certificate.
        """
        session = LightSession()
        session.transitions.state = "connected"
        session.client_id = client_id
        session.username = asked.username
        session.password = None if asked.password is None else _as_text(asked.password)
        session.clean_session = asked.clean_start
        session.keep_alive = asked.keepalive_s
        session.remote_address, session.remote_port = peer
        session.ssl_object = None if ssl_object is None else _ShownCertificate(ssl_object)
        will = asked.will
        if will is not None:
            session.will_flag = True
            session.will_topic, session.will_message = will.topic, will.payload
            session.will_qos, session.will_retain = will.qos, will.retain
        shows_certificate = ssl_object is not None and bool(ssl_object.getpeercert(True))
        return PluginClient(next(_NUMBERS), session, shows_certificate)

    # --- questions ------------------------------------------------------------------------------

    async def admit(self, client: PluginClient) -> bool:
        """``authenticate``, for a client that waits for its CONNACK.

        Raises:
            PacketError: one of the plugins did not answer; the client may try again.
        """
        try:
            return await self.authenticate(client)
        except PluginFailedError:
            self._count(Counter.LOGINS_REFUSED_PLUGIN_FAILED)
            raise PacketError(
                "no answer of a plugin about the client", Reason.SERVER_UNAVAILABLE
            ) from None

    def gate(self, client: PluginClient) -> TopicGate | None:
        """What a connection asks about topics; ``None``: no plugin is asked about them."""
        if not self.filter_topics:
            return None
        return TopicGate(
            lambda topic, action: self.known(client, topic, action),
            lambda topic, action: self.may(client, topic, action),
            self._count,
        )

    async def authenticate(self, client: PluginClient) -> bool:
        """Whether the plugins let a client in: none refuses, and one says yes.

        Raises:
            PluginFailedError: one of them did not answer.
        """
        return await self._ask(self._authenticators, client, None, None)

    def came_in(self, client: PluginClient) -> None:
        """The client has been admitted or not: its password has done its work."""
        if not self._keeps_password:
            client.session.password = None

    def known(self, client: PluginClient, topic: str, action: Action) -> bool | None:
        """The answer about a topic if it is remembered, else ``None``."""
        found = self._answers.get((client.number, topic, action))
        if found is None or found[1] <= self._clock():
            return None
        return found[0]

    async def may(self, client: PluginClient, topic: str, action: Action) -> bool:
        """Whether the plugins let a client publish, subscribe to or receive a topic.

        Raises:
            PluginFailedError: one of them did not answer.
        """
        known = self.known(client, topic, action)
        if known is not None:
            return known
        answer = await self._ask(self._topic_plugins, client, topic, action)
        key = (client.number, topic, action)
        self._answers[key] = (answer, self._clock() + self._cache_s)
        self._answers.move_to_end(key)
        while len(self._answers) > _MOST_ANSWERS:
            self._answers.popitem(last=False)
        return answer

    async def _ask(
        self,
        runners: Sequence[PluginRunner],
        client: PluginClient,
        topic: str | None,
        action: Action | None,
    ) -> bool:
        questions = (each.ask(client.session, topic, action, self._timeout_s) for each in runners)
        answers = await asyncio.gather(*questions, return_exceptions=True)
        if any(answer is False for answer in answers):
            return False
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return any(answer is True for answer in answers)

    # --- events ---------------------------------------------------------------------------------

    def connected(self, client: PluginClient) -> None:
        """A client has come in."""
        self._tell(
            BrokerEvents.CLIENT_CONNECTED,
            client_id=client.session.client_id,
            client_session=client.session,
        )

    def disconnected(self, client: PluginClient) -> None:
        """A client that had come in is gone."""
        self._tell(
            BrokerEvents.CLIENT_DISCONNECTED,
            client_id=client.session.client_id,
            client_session=client.session,
        )

    def subscribed(self, client_id: str, topic_filter: str, qos: int) -> None:
        """A subscription was granted."""
        self._tell(BrokerEvents.CLIENT_SUBSCRIBED, client_id=client_id, topic=topic_filter, qos=qos)

    def unsubscribed(self, client_id: str, topic_filter: str) -> None:
        """A client has ended a subscription."""
        self._tell(BrokerEvents.CLIENT_UNSUBSCRIBED, client_id=client_id, topic=topic_filter)

    def received(self, messages: Iterable[Message]) -> None:
        """Messages of clients and bridges were accepted, and are on disk."""
        for message in messages:
            if is_own(message.client_id):
                continue  # the appliance's own
            for event in (BrokerEvents.MESSAGE_RECEIVED, BrokerEvents.MESSAGE_BROADCAST):
                size = cost_of(message)
                self._tell(event, size, client_id=message.client_id, message=message)

    def _tell(self, event: BrokerEvents, size: int = 0, **details: Any) -> None:
        for each in self._runners:
            if each.hears(event):
                each.tell(event, details, size)


def _as_text(password: bytes) -> str:
    """Plugins take text; what is no UTF-8 becomes a character that no password has."""
    return password.decode("utf-8", "replace")
