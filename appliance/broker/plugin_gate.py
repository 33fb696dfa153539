"""What the plugins say about the topics of one connection, as its packets and deliveries need it.

Bytes are taken apart and messages delivered without waiting, so each asks here first: the answer
is known, or the connection waits until it is. Not for: what several plugins mean together
(plugins.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from amqtt.contexts import Action

from appliance.broker.plugin_runner import PluginFailedError
from appliance.counters import Count, Counter
from appliance.mqtt.packets import PacketError, Reason

logger = logging.getLogger(__name__)


class TopicGate:
    """One connection's questions about topics. Engine's loop only.

    An answer that was just given counts at least once, also where none are remembered.
    """

    def __init__(
        self,
        known: Callable[[str, Action], bool | None],
        ask: Callable[[str, Action], Awaitable[bool]],
        count: Count,
    ) -> None:
        """``known`` has the answer that is remembered, if any; ``ask`` asks the plugins."""
        self._known = known
        self._ask = ask
        self._count = count
        self._given: dict[tuple[str, Action], bool] = {}
        self._filters: dict[str, bool] = {}
        """Answers about the filters of the present SUBSCRIBE; one packet may repeat a filter."""
        self._asking: asyncio.Task[None] | None = None

    def _answer(self, topic: str, action: Action) -> bool | None:
        if self._given and (topic, action) in self._given:
            return self._given.pop((topic, action))
        return self._known(topic, action)

    def may_publish(self, topic: str) -> bool | None:
        """Whether the client may publish to a topic; ``None``: ``ask_publish`` first."""
        return self._answer(topic, Action.PUBLISH)

    async def ask_publish(self, topic: str) -> None:
        """Ask the plugins; afterwards ``may_publish`` has the answer.

        Raises:
            PacketError: a plugin did not answer. The connection ends, so that the client sends
                again what is not acknowledged.
        """
        try:
            answer = await self._ask(topic, Action.PUBLISH)
        except PluginFailedError:
            self._count(Counter.PUBLISHES_REFUSED_PLUGIN_FAILED)
            raise PacketError(
                f"no answer of a plugin about {topic[:80]!r}", Reason.SERVER_BUSY
            ) from None
        self._given[topic, Action.PUBLISH] = answer

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether the client may subscribe to a filter that ``ask_subscribe`` was asked about."""
        return self._filters.get(topic_filter) is True

    async def ask_subscribe(self, topic_filters: Iterable[str]) -> None:
        """Ask the plugins about filters; no answer is a no."""
        self._filters.clear()
        for topic_filter in dict.fromkeys(topic_filters):
            try:
                answer = await self._ask(topic_filter, Action.SUBSCRIBE)
            except PluginFailedError:
                self._count(Counter.SUBSCRIPTIONS_REFUSED_PLUGIN_FAILED)
                answer = False
            self._filters[topic_filter] = answer

    def may_receive(self, topic: str, then: Callable[[], None]) -> bool | None:
        """Whether a message on a topic may be delivered; ``None``: ``then`` is called later."""
        if topic[0] == "$":
            return True  # what the terminal server says to an attached terminal
        answer = self._answer(topic, Action.RECEIVE)
        if answer is None and self._asking is None:
            self._asking = asyncio.create_task(self._ask_receive(topic, then))
        return answer

    async def _ask_receive(self, topic: str, then: Callable[[], None]) -> None:
        try:
            answer = await self._ask(topic, Action.RECEIVE)
        except PluginFailedError:
            self._count(Counter.DELIVERIES_REFUSED_PLUGIN_FAILED)
            answer = False
        except Exception:
            # Without an answer, the client's deliveries would stand still until it reconnects.
            logger.exception("An error in the appliance, please report it: a plugin is not asked")
            self._count(Counter.INTERNAL_ERRORS)
            answer = False
        finally:
            self._asking = None
        self._given[topic, Action.RECEIVE] = answer
        then()
