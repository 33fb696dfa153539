"""Plugins in amqtt's form that tests name in the configuration."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin

MADE: Counter[str] = Counter()
HEARD: list[tuple] = []
ASKED: list[tuple] = []
RELEASE = threading.Event()
"""Lets plugins that block go on."""


def forget() -> None:
    MADE.clear()
    HEARD.clear()
    ASKED.clear()
    RELEASE.clear()


def _behave(how: str):
    if how == "raise":
        raise RuntimeError("a text with the password in it")
    if how == "block":
        RELEASE.wait(30)
    return {"yes": True, "no": False, "none": None, "text": "false"}.get(how, True)


class Auth(BaseAuthPlugin):
    """Answers as ``how`` says; with ``how = "password"``, by what clients send."""

    @dataclass
    class Config:
        how: str = "yes"
        made: str = "auth"
        fail_to_be_made: int = 0

    def __init__(self, context) -> None:
        super().__init__(context)
        MADE[self.config.made] += 1
        if MADE[self.config.made] <= self.config.fail_to_be_made:
            raise ConnectionError("the server is down")
        self.made_as = MADE[self.config.made]

    async def authenticate(self, *, session):
        ASKED.append(("authenticate", session.client_id, session.username, session.password))
        how = self.config.how
        if how == "password":
            how = session.password or "no"
        if how == "hang":
            await asyncio.Event().wait()
        if how == "first-breaks":
            if self.made_as == 1:
                raise ConnectionError("the connection has ended")
            return True
        return _behave(how)


class Topics(BaseTopicPlugin):
    """Answers by a topic's first level: ``yes/...``, ``no/...``, ``hang/...`` and so on."""

    @dataclass
    class Config:
        slow_s: float = 0.0

    async def topic_filtering(self, *, session=None, topic=None, action=None):
        ASKED.append((str(action), session.client_id, topic, session.password))
        if self.config.slow_s:
            await asyncio.sleep(self.config.slow_s)
        first = topic.partition("/")[0]
        if first == "hang":
            await asyncio.Event().wait()
        if first == "unheard":  # may be published and subscribed to, and is not delivered
            return str(action) != "receive"
        if first == "unread":  # may be published to
            return str(action) != "subscribe"
        return _behave(first)


class Listener(BasePlugin):
    """Hears everything."""

    @dataclass
    class Config:
        block: bool = False
        fail: bool = False

    def _hear(self, *what) -> None:
        if self.config.block:
            RELEASE.wait(30)
        if self.config.fail:
            raise RuntimeError("a text that stays here")
        HEARD.append(what)

    async def on_broker_pre_start(self) -> None:
        HEARD.append(("pre_start",))

    async def on_broker_pre_shutdown(self) -> None:
        HEARD.append(("pre_shutdown",))

    async def on_broker_client_connected(self, *, client_id, client_session) -> None:
        self._hear("connected", client_id, client_session.username, client_session.password)

    async def on_broker_client_disconnected(self, *, client_id, client_session) -> None:
        self._hear("disconnected", client_id)

    async def on_broker_client_subscribed(self, *, client_id, topic, qos) -> None:
        self._hear("subscribed", client_id, topic, qos)

    async def on_broker_client_unsubscribed(self, *, client_id, topic) -> None:
        self._hear("unsubscribed", client_id, topic)

    async def on_broker_message_received(self, *, client_id, message) -> None:
        self._hear("received", client_id, message.topic, message.data, message.qos)


class Later(BaseAuthPlugin):
    """Reads what an operator writes in ``[[access.plugins]] settings``."""

    @dataclass
    class Config:
        secret_key: str
        hosts: list[str] = field(default_factory=list)


class NotAPlugin:
    pass


class NotAsync(BaseAuthPlugin):
    def authenticate(self, *, session):
        return time.time() > 0
