"""How long and how deep a topic or topic filter of a client may be.

A topic is kept many times over: in the live view, caches, subscriptions and queues. MQTT allows
65,535 bytes and as many levels. Not for: what a valid topic is (mqtt/topics.py), which topics a
client may use (access.py).
"""

from __future__ import annotations

from appliance.config.tables import LimitsConfig
from appliance.counters import Count, Counter
from appliance.mqtt.packets import PacketError, Reason


class TopicLimitError(PacketError):
    """A topic of a client is longer or deeper than the limits allow."""


def is_within_limits(topic: bytes, limits: LimitsConfig, count: Count) -> bool:
    """Whether a topic or topic filter is as short and flat as it has to be; counts one that is not.

    Args:
        topic: in UTF-8, as it came.
        limits: those that count now.
        count: counts the refusal.
    """
    if len(topic) > limits.max_topic_length:
        count(Counter.TOPICS_REFUSED_TOO_LONG)
        return False
    if topic.count(b"/") >= limits.max_topic_levels:
        count(Counter.TOPICS_REFUSED_TOO_MANY_LEVELS)
        return False
    return True


def check_topic(topic: bytes, limits: LimitsConfig, count: Count) -> None:
    """Check the topic of a message or of a will.

    Raises:
        TopicLimitError: it is not within the limits.
    """
    if not is_within_limits(topic, limits, count):
        start = topic[:80].decode(errors="replace")
        raise TopicLimitError(
            f"topic {start!r} has {len(topic)} bytes and {topic.count(b'/') + 1} levels:"
            f" limits.max_topic_length is {int(limits.max_topic_length)},"
            f" limits.max_topic_levels {limits.max_topic_levels}",
            Reason.TOPIC_NAME_INVALID,
        )
