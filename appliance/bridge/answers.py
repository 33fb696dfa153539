"""Where an answer to a bridged message goes, so that it reaches the one that asked.

A response topic of a bridged message is a topic of the other broker. Its answer is published under
the local topic that a ``publish`` rule of the same bridge sends there, and nowhere else: a message
from outside must not lend its sender the appliance's right to publish.
Not for: whether a message is answered at all (tasks/outcomes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from appliance.config.tables import BridgePublishConfig
from appliance.mqtt.topic_mapping import Rule, TopicMapping

_BRIDGES = 64
"""Bridges whose rules are kept ready."""


def local_topic(publish: Sequence[BridgePublishConfig], remote: str) -> str | None:
    """The local topic whose messages go out under a topic of the other broker, if there is one."""
    mapping = _mapping(tuple(publish))
    for rule in publish:
        if not remote.startswith(rule.remote_prefix):
            continue
        rest = remote[len(rule.remote_prefix) :]
        for local in dict.fromkeys((rule.remove_prefix + rest, rest)):
            found = mapping.find(local) if local else None
            if found is not None and found.topic == remote and not found.problem:
                return local
    return None


@lru_cache(maxsize=_BRIDGES)
def _mapping(publish: tuple[BridgePublishConfig, ...]) -> TopicMapping:
    return TopicMapping([Rule(one.topic, one.remove_prefix, one.remote_prefix) for one in publish])
