"""Topic names and topic filters: what is valid, and which filter matches which topic.

The one place that knows MQTT 3.1.1 section 4.7 (the same in MQTT 5). Not for: which client may use
a topic (broker/access.py), shared subscriptions' share names.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

MAX_TOPIC_BYTES = 65535
"""An MQTT string's length is two bytes (MQTT 3.1.1, section 1.5.3)."""
MAX_LEVELS = 200
"""Levels of a topic or filter at most. Each level of a filter costs memory, and 64 KB of slashes
would be 65,535 of them. Clients may use fewer: ``limits.max_topic_levels``."""

_CACHED_TOPICS = 8192
_PLACES_A_STEP = 20
_NODES_A_STEP = 1000
_VALUES_A_STEP = 500
_CACHED_BYTES = 8 * 1024 * 1024
"""Of topics and of what matches them."""


def topic_problem(topic: str) -> str | None:
    """Say why ``topic`` can't be published to, or ``None`` if it can (section 4.7.1, 4.7.3)."""
    if not topic:
        return "a topic has at least one character"
    if "+" in topic or "#" in topic:
        return "a topic that is published to has no wildcards (+ or #)"
    return _string_problem(topic)


def reserved_problem(topic: str, service_name: str) -> str | None:
    """Say why only the appliance itself publishes to a (valid) topic, or ``None``.

    ``service_name`` is ``[service] name``, or empty if it is not known.
    """
    if topic.startswith("$"):
        return "topics that begin with $ belong to the broker; choose another topic"
    if service_name and (topic == service_name or topic.startswith(f"{service_name}/")):
        return (
            f"topics below {service_name}/ are the appliance's own, and only the appliance "
            "publishes there; choose another topic"
        )
    return None


def malformed_filter(topic_filter: str) -> str | None:
    """Say what is malformed in ``topic_filter`` (section 4.7.1, 4.7.3), or ``None``.

    A filter that is well formed may still be one that this broker does not take
    (``filter_problem``).
    """
    if not topic_filter:
        return "a topic filter has at least one character"
    levels = topic_filter.split("/")
    for number, level in enumerate(levels, 1):
        if "#" in level and (level != "#" or number != len(levels)):
            return "# stands alone and as the last level: plant/#"
        if "+" in level and level != "+":
            return "+ stands for one whole level: plant/+/state"
    return None


def filter_problem(topic_filter: str) -> str | None:
    """Say why ``topic_filter`` is not a topic filter, or ``None`` if it is one."""
    return malformed_filter(topic_filter) or _string_problem(topic_filter)


def _string_problem(text: str) -> str | None:
    if "\0" in text:
        return "the null character is not allowed"
    if text.count("/") >= MAX_LEVELS:
        return f"it has more than {MAX_LEVELS} levels"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it has characters that UTF-8 can't carry"
    if size > MAX_TOPIC_BYTES:
        return f"it is longer than {MAX_TOPIC_BYTES} bytes"
    return None


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a (valid) filter matches a (valid) topic; ``+`` and ``#`` spare ``$`` topics."""
    if "+" not in topic_filter and "#" not in topic_filter:
        return topic_filter == topic
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    filter_levels = topic_filter.split("/")
    topic_levels = topic.split("/")
    for index, level in enumerate(filter_levels):
        if level == "#":
            return True
        if index >= len(topic_levels) or level not in ("+", topic_levels[index]):
            return False
    return len(filter_levels) == len(topic_levels)


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that filter ``narrow`` matches is matched by filter ``wide`` too.

    Used to decide whether a subscription stays within an access rule.
    """
    if wide[0] in "+#" and narrow.startswith("$"):
        return False
    wide_levels = wide.split("/")
    narrow_levels = narrow.split("/")
    for index, level in enumerate(wide_levels):
        if level == "#":
            return True
        if index >= len(narrow_levels):
            return False
        other = narrow_levels[index]
        if other == "#" or level not in ("+", other):
            return False
    return len(wide_levels) == len(narrow_levels)


V = TypeVar("V", bound=Hashable)


class Topics(Generic[V]):
    """Values kept under topics, one each, found by filter: the opposite of ``Matcher``.

    A tree of levels too, so the cost of a filter grows with its finds, not with the number of
    topics. Not thread-safe.
    """

    def __init__(self) -> None:
        self._root: _Place[V] = _Place()
        self._places: dict[str, _Place[V]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, topic: str) -> bool:
        return topic in self._places

    def get(self, topic: str) -> V | None:
        """The value kept under ``topic``."""
        place = self._places.get(topic)
        return None if place is None else place.value

    def put(self, topic: str, value: V) -> None:
        """Keep ``value`` under ``topic``, in place of any that was there."""
        place = self._places.get(topic)
        if place is None:
            place = self._root
            for level in topic.split("/"):
                place = place.below.setdefault(level, _Place())
            self._places[topic] = place
        place.value = value

    def remove(self, topic: str) -> None:
        """Forget what is kept under ``topic``, if there is something."""
        place = self._places.pop(topic, None)
        if place is None:
            return
        place.value = None
        path = [self._root]
        levels = topic.split("/")
        for level in levels[:-1]:
            path.append(path[-1].below[level])
        for above, level in zip(reversed(path), reversed(levels), strict=True):
            if above.below[level].below or above.below[level].value is not None:
                break
            del above.below[level]

    def matching(self, topic_filter: str) -> list[V]:
        """The values of all topics that a (valid) filter matches; ``+`` and ``#`` spare ``$``."""
        return [found for found in self.search(topic_filter) if found is not None]

    def search(self, topic_filter: str) -> Iterator[V | None]:
        """``matching`` in short steps, between which values may come and go.

        Each step gives a value, or ``None`` after 20 places without one. A value that is put or
        removed meanwhile may be found or not; each of the others is found once.
        """
        levels = topic_filter.split("/")
        last = len(levels)
        looked = 0
        waiting = [(self._root, 0)]
        while waiting:
            place, depth = waiting.pop()
            looked += 1
            if looked == _PLACES_A_STEP:
                looked = 0
                yield None
            level = "" if depth == last else levels[depth]
            if depth == last or level == "#":
                if place.value is not None:
                    looked = 0
                    yield place.value
                if depth == last:
                    continue
            if level in ("+", "#"):
                after = depth if level == "#" else depth + 1
                waiting += [
                    (below, after)
                    for name, below in reversed(place.below.items())
                    if place is not self._root or not name.startswith("$")
                ]
            elif (exact := place.below.get(level)) is not None:
                waiting.append((exact, depth + 1))


class _Place(Generic[V]):
    __slots__ = ("below", "value")

    def __init__(self) -> None:
        self.below: dict[str, _Place[V]] = {}
        self.value: V | None = None


class _Node(Generic[V]):
    """A level of filters. Most have one level below or none, and no value or one."""

    __slots__ = ("child", "children", "level", "values")

    def __init__(self) -> None:
        self.level: str | None = None
        """The level below, where there is one."""
        self.child: _Node[V] | None = None
        self.children: dict[str, _Node[V]] | None = None
        """The levels below, where there are more."""
        self.values: tuple[V, ...] | dict[V, None] = ()

    def below(self, level: str) -> _Node[V] | None:
        if self.children is not None:
            return self.children.get(level)
        return self.child if level == self.level else None

    def grow(self, level: str) -> _Node[V]:
        """The node of a level below, which may be new."""
        found = self.below(level)
        if found is not None:
            return found
        new: _Node[V] = _Node()
        if self.children is not None:
            self.children[level] = new
        elif self.level is None or self.child is None:
            self.level, self.child = level, new
        else:
            self.children = {self.level: self.child, level: new}
            self.level = self.child = None
        return new

    def cut(self, level: str) -> None:
        if self.children is None:
            self.level = self.child = None
        else:
            del self.children[level]
            self.children = self.children or None

    def put(self, value: V) -> bool:
        """Keep a value; returns whether it is new."""
        if value in self.values:
            return False
        if not self.values:
            self.values = (value,)
        else:
            if isinstance(self.values, tuple):
                self.values = dict.fromkeys(self.values)
            self.values[value] = None
        return True

    def drop(self, value: V) -> None:
        if isinstance(self.values, dict):
            del self.values[value]
        else:
            self.values = ()

    @property
    def is_empty(self) -> bool:
        return not self.values and self.child is None and not self.children


def _chosen(found: Iterable[V], is_for: Callable[[V, str], bool], topic: str) -> list[V]:
    return [each for each in found if is_for(each, topic)]


class Matcher(Generic[V]):
    """Values kept under topic filters, found by topic.

    A tree of levels, so the cost of a topic grows with its levels, not with the number of filters;
    answers are cached by topic (at most 8192 topics and 8 MiB), and the cache is dropped when a
    filter comes or goes. ``is_for`` says whether a value whose filter matches is for a topic. Not
    thread-safe.
    """

    def __init__(self, is_for: Callable[[V, str], bool] | None = None) -> None:
        self._is_for = is_for
        self._root: _Node[V] = _Node()
        self._cache: dict[str, tuple[V, ...]] = {}
        self._cached_bytes = 0
        self._count = 0
        self._changes = 0
        self.known = self._cache.get
        """What matches a topic, if that is in the cache."""

    def __len__(self) -> int:
        return self._count

    def add(self, topic_filter: str, value: V) -> None:
        """Keep ``value`` under ``topic_filter``; adding it again changes nothing."""
        node = self._root
        for level in topic_filter.split("/"):
            node = node.grow(level)
        if node.put(value):
            self._count += 1
            self.forget_matches()

    def remove(self, topic_filter: str, value: V) -> bool:
        """Forget ``value`` under ``topic_filter``; returns whether it was there."""
        path: list[tuple[_Node[V], str]] = []
        node = self._root
        for level in topic_filter.split("/"):
            child = node.below(level)
            if child is None:
                return False
            path.append((node, level))
            node = child
        if value not in node.values:
            return False
        node.drop(value)
        self._count -= 1
        self.forget_matches()
        for parent, level in reversed(path):
            if not node.is_empty:
                break
            parent.cut(level)
            node = parent
        return True

    def forget_matches(self) -> None:
        """Drop the cache: memory is short, or ``is_for`` may answer otherwise from now on."""
        self._cache.clear()
        self._cached_bytes = 0
        self._changes += 1

    def match(self, topic: str) -> tuple[V, ...]:
        """The values of all filters that match, each once for every filter that has it."""
        found = self._cache.get(topic)
        if found is None:
            for found in self.find(topic):  # noqa: B007 - the last one is the answer
                pass
        return found or ()

    def find(self, topic: str) -> Iterator[tuple[V, ...] | None]:
        """``match`` in short steps, between which values may come and go.

        Gives ``None`` for each step, and the answer in the end: a value that comes or goes
        meanwhile may be in it or not.
        """
        changes = self._changes
        all_found: list[V] = []
        for _ in self._walk(topic, all_found):
            yield None
        if self._is_for is not None and all_found:
            matching, all_found = all_found, []
            for begin in range(0, len(matching), _VALUES_A_STEP):
                if begin:
                    yield None
                part = matching[begin : begin + _VALUES_A_STEP]
                all_found += _chosen(part, self._is_for, topic)
        found = tuple(all_found)
        if changes == self._changes:
            # A topic may be long, and each of thousands of subscriptions may match it.
            size = len(topic) + 8 * len(found)
            if len(self._cache) >= _CACHED_TOPICS or self._cached_bytes + size > _CACHED_BYTES:
                self.forget_matches()
            self._cached_bytes += size
            self._cache[topic] = found
        yield found

    def _walk(self, topic: str, found: list[V]) -> Iterator[None]:
        """Add the values of all filters that match; each step looks at some hundreds of levels."""
        levels = topic.split("/")
        last = len(levels)
        spared = 0 if topic.startswith("$") else -1  # no wildcard matches there
        waiting = [(self._root, 0)]
        looked = 0
        while waiting:
            node, depth = waiting.pop()
            looked += 1
            if looked == _NODES_A_STEP:
                looked = 0
                yield
            if depth == last and node.values:
                found += node.values
            children, child = node.children, node.child
            if children is not None:
                if depth != spared and (rest := children.get("#")) is not None:
                    found += rest.values
                if depth < last:
                    if (exact := children.get(levels[depth])) is not None:
                        waiting.append((exact, depth + 1))
                    if depth != spared and (any_level := children.get("+")) is not None:
                        waiting.append((any_level, depth + 1))
            elif child is not None:
                level = node.level
                if level == "#":
                    if depth != spared:
                        found += child.values
                elif depth < last and (
                    level == levels[depth] or (level == "+" and depth != spared)
                ):
                    waiting.append((child, depth + 1))
