"""The topic that a message has on the other side of a bridge, by its topic on this side.

Not for: which topics rules have in common (overlap.py), rules that make no sense
(config/bridge_topics.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from appliance.mqtt.topics import Matcher, topic_problem

_REMEMBERED = 8192
_REMEMBERED_BYTES = 4 * 1024 * 1024
"""Topics, with what became of them, that are not looked at again."""


class Rule(NamedTuple):
    """What becomes of the topics that a filter matches."""

    topic_filter: str
    remove_prefix: str
    """Text that is removed from the beginning, where a topic begins with it."""
    prefix: str
    """Text that is put before what is left."""


class Mapped(NamedTuple):
    """What became of a topic."""

    number: int
    """Of the rule, from 0 on."""
    topic: str
    problem: str
    """Why no message can have the topic, for people; empty if one can."""


class TopicMapping:
    """Rules in their order: the first one with a filter that matches counts. Not thread-safe."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._matcher: Matcher[int] = Matcher()
        for number, rule in enumerate(self._rules):
            self._matcher.add(rule.topic_filter, number)
        self._known: dict[str, Mapped | None] = {}
        self._known_bytes = 0

    def find(self, topic: str) -> Mapped | None:
        """What becomes of a (valid) topic; ``None`` if no rule is for it."""
        try:
            return self._known[topic]
        except KeyError:
            pass
        found = self._map(topic)
        size = len(topic) + (len(found.topic) if found else 0)
        if len(self._known) >= _REMEMBERED or self._known_bytes + size > _REMEMBERED_BYTES:
            self._known.clear()
            self._known_bytes = 0
        self._known_bytes += size
        self._known[topic] = found
        return found

    def _map(self, topic: str) -> Mapped | None:
        numbers = self._matcher.match(topic)
        if not numbers:
            return None
        number = min(numbers)
        rule = self._rules[number]
        mapped = rule.prefix + topic.removeprefix(rule.remove_prefix)
        problem = topic_problem(mapped)
        if problem is None and mapped[0] == "$" and not rule.prefix:
            problem = "topics that begin with $ belong to the broker"
        return Mapped(number, mapped, problem or "")
