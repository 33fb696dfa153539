"""Whether one topic can match two topic filters, also where prefixes of the topics are replaced.

Not for: the topic of one message (topics.py), or replacing its prefix.
"""

from __future__ import annotations

from itertools import zip_longest

_WILDCARDS = ("+", "#")


def literal_head(topic_filter: str) -> str:
    """The text that every topic of a filter begins with: ``plant/`` of ``plant/+/state``."""
    ends = [at for wildcard in _WILDCARDS if (at := topic_filter.find(wildcard)) >= 0]
    return topic_filter[: min(ends, default=len(topic_filter))]


def moved(topic_filter: str, remove: str, put: str) -> str:
    """What the topics of a filter become when ``put`` takes the place of the prefix ``remove``.

    ``remove`` has to be the beginning of ``literal_head``. The result need not be a filter that a
    broker takes: a wildcard may have text before it in its level, as in ``site4-+/state``.
    ``overlap`` understands that.
    """
    return put + topic_filter[len(remove) :]


def overlap(one: str, other: str) -> bool:
    """Whether there is a topic that both match: filters, topics or what ``moved`` made of them.

    A wildcard at the beginning stands for no ``$`` there; a topic that begins with one only because
    its prefix was removed is carried by no bridge (topic_mapping.py).
    """
    if (one[:1] in _WILDCARDS and other[:1] == "$") or (other[:1] in _WILDCARDS and one[:1] == "$"):
        return False  # MQTT 3.1.1, section 4.7.2
    for level, beside in zip_longest(one.split("/"), other.split("/")):
        if level is None or beside is None:  # "a/#" matches "a" as well
            return "#" in (level, beside)
        if not _share(level, beside):
            return False
        if level[-1:] == "#" or beside[-1:] == "#":
            return True
    return True


def _share(level: str, beside: str) -> bool:
    """Whether a text fits both levels."""
    head = level[:-1] if level[-1:] in _WILDCARDS else level
    other = beside[:-1] if beside[-1:] in _WILDCARDS else beside
    if head is level and other is beside:
        return level == beside
    if head is level:
        return level.startswith(other)
    if other is beside:
        return beside.startswith(head)
    return head.startswith(other) or other.startswith(head)
