"""Where a topic of another broker goes: the local topic, and the subscription that brought it.

Not for: what becomes of the message (incoming.py), the rules of text before and behind
(mqtt/topic_mapping.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from appliance.broker.topic_limits import is_within_limits
from appliance.config.tables import BridgeSubscribeConfig, LimitsConfig
from appliance.counters import Count, Counter
from appliance.mqtt.packets import publish_topic
from appliance.mqtt.topic_mapping import Rule, TopicMapping
from appliance.mqtt.topics import reserved_problem

_REMEMBERED = 4096
_LONGEST_REMEMBERED = 256
_REMEMBERED_BYTES = 256 * 1024


class Route(msgspec.Struct, frozen=True):
    """What a topic of the other broker means here."""

    topic: str
    """The local topic; empty if its messages are left out."""
    left_out: Counter | None = None
    """Why they are left out, as what counts them; ``None``: it is counted already."""
    problem: str = ""
    """The same for people."""
    subscription: int = -1
    """Which of the bridge's subscriptions asked for it."""
    wants_retained: bool = False
    """Whether that one asked for what the broker holds for new subscribers."""


PROBE = Route("", problem="the test of a shared subscription")
"""What comes on the topic of that test (share_probe.py)."""


class Routes:
    """The routes of one bridge. Remembers those of topics that came lately."""

    def __init__(
        self,
        subscriptions: Sequence[BridgeSubscribeConfig],
        *,
        service_name: str,
        limits: Callable[[], LimitsConfig],
        count: Count,
    ) -> None:
        self._subscriptions = subscriptions
        self._mapping = TopicMapping(
            [Rule(each.topic, each.remove_prefix, each.local_prefix) for each in subscriptions]
        )
        self._service_name = service_name
        self._limits = limits
        self._count = count
        self._known: dict[bytes, Route] = {}
        self._known_bytes = 0
        self.probe_topic = b""
        """At the other broker; empty if there is none."""

    def find(self, raw: bytes) -> Route:
        """The route of a topic as it came.

        Raises:
            PacketError: it is not a topic.
        """
        return self._known.get(raw) or self._find(raw)

    def _find(self, raw: bytes) -> Route:
        if raw == self.probe_topic:
            return PROBE
        route = self._decide(raw)
        if route.topic and len(raw) <= _LONGEST_REMEMBERED:
            self._known_bytes += len(raw)
            if len(self._known) >= _REMEMBERED or self._known_bytes > _REMEMBERED_BYTES:
                self._known.clear()
                self._known_bytes = len(raw)
            self._known[raw] = route
        return route

    def _decide(self, raw: bytes) -> Route:
        if not is_within_limits(raw, self._limits(), self._count):
            return Route("", problem="its topic is longer or deeper than [limits] allows")
        remote = publish_topic(raw)
        found = self._mapping.find(remote)
        if found is None:
            if remote[0] == "$":
                return Route("", Counter.BRIDGE_MESSAGES_LEFT_OUT_DOLLAR_TOPIC, "$ topic")
            return Route("", Counter.BRIDGE_MESSAGES_LEFT_OUT_NOT_ASKED, "no filter asks for it")
        number, topic = found.number, found.topic
        if found.problem:
            return Route("", Counter.BRIDGE_MESSAGES_LEFT_OUT_TOPIC, found.problem, number)
        if problem := reserved_problem(topic, self._service_name):
            return Route("", Counter.BRIDGE_MESSAGES_LEFT_OUT_RESERVED_TOPIC, problem, number)
        if not is_within_limits(topic.encode(), self._limits(), self._count):
            text = "its local topic is longer or deeper than [limits] allows"
            return Route("", problem=text, subscription=number)
        return Route(topic, None, "", number, self._subscriptions[number].retained)
