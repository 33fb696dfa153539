"""Topics as a tree: levels that can be folded, with the sums of what lies below.

Not for: drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from appliance.engine_api import TopicState
from appliance.model import Message

_NO_NAMES: Mapping[str, str] = {}
_LEAST_ID = 16
"""Characters of the shortest id of a task: shorter levels are not looked up."""

SORTS = ("rate", "name", "traffic", "messages", "bytes", "last")
"""By messages a second, name, bytes a second, messages, bytes, time of the last message."""
_NONE: dict[str, TopicNode] = {}
"""The children of every node that has none: most have none."""


class TopicNode(msgspec.Struct, gc=False):
    """One level of the tree."""

    path: str
    """The topic up to here; the key of the node."""
    label: str
    depth: int
    children: dict[str, TopicNode]
    leaf: TopicState | None = None
    rate: float = 0.0
    byte_rate: float = 0.0
    count: int = 0
    bytes: int = 0
    last_ns: int = 0
    topics: int = 0
    """How many topics lie below, itself included."""


_ID_SHOWN = 8
"""Characters of an id that stand behind the name: names need not be unique."""


def build(states: Iterable[TopicState], names: Mapping[str, str] = _NO_NAMES) -> TopicNode:
    """The tree of these topics; the root has no label.

    ``names``: of tasks by their ids (lower case). A level that is such an id has the name as label.
    """
    root = TopicNode("", "", -1, {})
    for state in states:
        topic, rate, byte_rate = state.topic, state.rate, state.byte_rate
        count, size, last_ns = state.count, state.bytes, state.last_ns
        node = root
        levels = topic.split("/")
        for depth, level in enumerate(("", *levels), -1):
            if depth >= 0:
                child = node.children.get(level)
                if child is None:
                    is_leaf = depth == len(levels) - 1
                    path = topic if is_leaf else "/".join(levels[: depth + 1])
                    child = TopicNode(path, _label(level, names), depth, _NONE)
                    if not node.children:
                        node.children = {}
                    node.children[level] = child
                node = child
            node.rate += rate
            node.byte_rate += byte_rate
            node.count += count
            node.bytes += size
            node.topics += 1
            node.last_ns = max(node.last_ns, last_ns)
        node.leaf = state
    _merge(root)
    return root


def _label(level: str, names: Mapping[str, str]) -> str:
    name = names.get(level.lower(), "") if len(level) >= _LEAST_ID else ""
    return f"{name} {level[:_ID_SHOWN]}…" if name else level


def rows(root: TopicNode, opened: set[str], sort: str) -> list[TopicNode]:
    """The nodes in view, depth first; a chain without branches is shown as one row."""
    found: list[TopicNode] = []
    _walk(root, opened, sort, found)
    return found


def _walk(node: TopicNode, opened: set[str], sort: str, found: list[TopicNode]) -> None:
    for child in sorted(node.children.values(), key=_RANKS[sort]):
        found.append(child)
        if child.path in opened:
            _walk(child, opened, sort, found)


def _merge(node: TopicNode) -> None:
    """Make one row of every chain of levels without a topic or a branch of its own."""
    for name, child in list(node.children.items()):
        if not child.children:
            continue
        merged = child
        while merged.leaf is None and len(merged.children) == 1:
            below = next(iter(merged.children.values()))
            below.label = f"{merged.label}/{below.label}"
            merged = below
        if merged.depth != node.depth + 1:
            merged.depth = node.depth + 1
            node.children[name] = merged
        _deepen(merged)
        _merge(merged)


def _deepen(node: TopicNode) -> None:
    for child in node.children.values():
        child.depth = node.depth + 1


_RANKS: dict[str, Callable[[TopicNode], tuple[float, str]]] = {
    "rate": lambda one: (-one.rate, one.label),
    "traffic": lambda one: (-one.byte_rate, one.label),
    "messages": lambda one: (-one.count, one.label),
    "bytes": lambda one: (-one.bytes, one.label),
    "last": lambda one: (-one.last_ns, one.label),
    "name": lambda one: (0.0, one.label),
}


def folders(node: TopicNode) -> list[str]:
    """The paths of every node that has something below it."""
    paths = [node.path] if node.children and node.depth >= 0 else []
    for child in node.children.values():
        paths += folders(child)
    return paths


def from_messages(messages: Sequence[Message], now_ns: int) -> list[TopicState]:
    """Topics counted from the messages at hand: for an engine that does not count them."""
    counts: dict[str, tuple[int, Message, bool]] = {}
    for message in messages:
        count, _, retained = counts.get(message.topic, (0, message, False))
        counts[message.topic] = (count + 1, message, retained or message.retain)
    first = messages[0].received_ns if messages else now_ns
    seconds = max(1.0, (now_ns - first) / 1e9)
    return [
        TopicState(topic, count, count / seconds, last.received_ns, last.seq, retained)
        for topic, (count, last, retained) in counts.items()
    ]
