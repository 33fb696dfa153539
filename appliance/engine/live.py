"""The memory of the live view: the newest messages, rates, statistics and last value of each topic.

Bounded in messages, bytes and topics. Written by the engine's loop once a commit, read by the UI
ten times a second; one lock, held for microseconds. Not for: the history (the journal).
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import msgspec

from appliance.engine_api import TopicState
from appliance.journal.message_cost import OVERHEAD_BYTES, costs_of, text_bytes
from appliance.model import Message, is_own

KEPT_MESSAGES = 10_000
KEPT_BYTES = 32 * 1024 * 1024
"""The total cost of the messages (message_cost); beyond it, the oldest are dropped."""
KEPT_TOPICS = 50_000
"""At least this many of the latest topics are kept; those silent longest are dropped."""
KEPT_NAME_BYTES = 16 * 1024 * 1024
"""Bytes of the names of all topics; beyond it, fewer topics are kept."""

KEPT_VALUES_BYTES = 16 * 1024 * 1024
"""The total cost of the last messages of all topics, which are kept apart from the newest ones;
beyond it, those of the topics that were silent longest are dropped."""

FORGOTTEN_AT_ONCE = 500
"""Topics that are dropped at once: finding those silent longest takes time."""


SHOWN_BYTES = 4096
_SECONDS = 60
_OLD_PART, _NEW_PART = 0.7, 0.3
"""A second changes a rate by this part."""
_LEAST_RATE = 1e-3
"""What is less counts as none."""
_TOGETHER = 500
"""Topics that are looked at under one hold of the lock."""


class _Topic:
    __slots__ = (
        "byte_rate",
        "bytes",
        "cost",
        "count",
        "last",
        "last_ns",
        "last_seq",
        "rate",
        "recent",
        "recent_bytes",
        "second",
        "size",
        "state",
    )

    def __init__(self, second: int) -> None:
        self.count = 0
        self.bytes = 0
        self.recent = 0
        self.recent_bytes = 0
        self.second = second
        """In which second the recent ones came; ``rate`` is that of its beginning."""
        self.rate = 0.0
        self.byte_rate = 0.0
        self.size = 0
        self.state: TopicState | None = None
        """What was told of it last."""
        self.last_ns = 0
        self.last_seq = 0
        self.last: Message | None = None
        """The last message, unless there was no room for it."""
        self.cost = 0
        """What it counts for in the bytes of all last messages."""


class LiveView:
    """The last messages, at most 10,000 (payloads cut at 4096 bytes), and a minute's rates."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ring: deque[Message] = deque(maxlen=KEPT_MESSAGES)
        self._costs: deque[int] = deque(maxlen=KEPT_MESSAGES)
        self.kept_bytes = 0
        """The total cost of the messages."""
        self._most_bytes = KEPT_BYTES
        self._sizes: dict[int, int] = {}
        self._topics: dict[str, _Topic] = {}
        self._name_bytes = 0
        self._second = 0
        """The number of the present second."""
        self._lengths: deque[float] = deque([1.0] * _SECONDS, maxlen=_SECONDS)
        """Of the seconds before, the newest last."""
        self._in_second = 0
        self._out_before = 0
        self._second_began = clock()
        self._rate_in = 0.0
        self._rate_out = 0.0
        self._history: deque[float] = deque(maxlen=_SECONDS)
        self.value_bytes = 0
        """The total cost of the last messages of the topics."""
        self.forgotten_topics = 0
        self.forgotten_values = 0
        self.heard_a_client = False

    def add(self, messages: Sequence[Message]) -> None:
        """Add committed messages, at least one."""
        shown, costs = messages, costs_of(messages)
        contents_of = costs
        if max(costs) > SHOWN_BYTES:  # there may be a long payload
            shown = [
                message if len(message.payload) <= SHOWN_BYTES else self._cut(message)
                for message in messages
            ]
            costs = costs_of(shown)
        if not self.heard_a_client:
            self.heard_a_client = any(not is_own(message.client_id) for message in shown)
        # Counted for each topic, not for each message: a batch has few topics, and mostly one.
        names = [message.topic for message in shown]
        last_of = dict(zip(names, zip(shown, costs, strict=True), strict=True))
        if len(last_of) > 1:
            counts: dict[str, int] = Counter(names)
            contents = dict.fromkeys(counts, 0)
            for name, content in zip(names, contents_of, strict=True):
                contents[name] += content
        else:
            counts, contents = {names[0]: len(names)}, {names[0]: sum(contents_of)}
        with self._lock:
            self.kept_bytes += sum(costs)
            leaving = len(self._costs) + len(costs) - KEPT_MESSAGES
            if leaving > 0:
                self.kept_bytes -= sum(islice(chain(self._costs, costs), leaving))
            self._ring.extend(shown)
            self._costs.extend(costs)
            while self.kept_bytes > self._most_bytes:
                self._ring.popleft()
                self.kept_bytes -= self._costs.popleft()
            self._in_second += len(shown)
            topics = self._topics
            for name, (last, cost) in last_of.items():
                topic = topics.pop(name, None)
                if topic is None:
                    self._name_bytes += text_bytes(name)
                    while topics and (
                        len(topics) >= KEPT_TOPICS + FORGOTTEN_AT_ONCE
                        or self._name_bytes > KEPT_NAME_BYTES
                    ):
                        self._forget_topics()
                    topic = _Topic(self._second)
                topics[name] = topic  # the one that was silent longest stays first
                if topic.second != self._second:
                    self._settle(topic)
                count = counts[name]
                content = contents[name] - count * OVERHEAD_BYTES
                topic.count += count
                topic.bytes += content
                topic.recent += count
                topic.recent_bytes += content
                length = len(last.payload)
                topic.size = self._sizes.get(last.seq, length) if length == SHOWN_BYTES else length
                topic.last_seq = last.seq
                topic.last_ns = last.received_ns
                topic.last = last
                self.value_bytes += cost - topic.cost
                topic.cost = cost
            if self.value_bytes > KEPT_VALUES_BYTES:
                self._forget_values(KEPT_VALUES_BYTES * 7 // 8)

    def shed(self, kept_bytes: int) -> None:
        """Keep messages of so many bytes only, from now on; ``KEPT_BYTES`` is the normal bound."""
        with self._lock:
            self._most_bytes = kept_bytes
            if self.value_bytes > kept_bytes:
                self._forget_values(kept_bytes)
            while self.kept_bytes > kept_bytes:
                self._ring.popleft()
                self.kept_bytes -= self._costs.popleft()

    def forget_topics(self) -> None:
        """Drop the statistics of all topics."""
        with self._lock:
            self.forgotten_topics += len(self._topics)
            self._topics.clear()
            self._name_bytes = 0
            self.value_bytes = 0

    def _forget_topics(self) -> None:
        """Make room for new topics. Under the lock."""
        topics = self._topics
        silent = list(islice(topics, FORGOTTEN_AT_ONCE))
        for name in silent:
            self.value_bytes -= topics.pop(name).cost
            self._name_bytes -= text_bytes(name)
        self.forgotten_topics += len(silent)

    def _forget_values(self, kept_bytes: int) -> None:
        """Drop last messages until the others count for so many bytes. Under the lock."""
        for topic in self._topics.values():
            if self.value_bytes <= kept_bytes:
                break
            if topic.last is not None:
                self.value_bytes -= topic.cost
                topic.last, topic.cost = None, 0
                self.forgotten_values += 1

    def last_values(self, topics: Sequence[str]) -> dict[str, Message]:
        """The last message of each of these topics, as far as it is kept."""
        with self._lock:
            found = {name: self._topics[name].last for name in topics if name in self._topics}
        return {name: message for name, message in found.items() if message is not None}

    def _cut(self, message: Message) -> Message:
        with self._lock:
            self._sizes[message.seq] = len(message.payload)
            while len(self._sizes) > KEPT_MESSAGES:
                del self._sizes[next(iter(self._sizes))]
        return msgspec.structs.replace(message, payload=message.payload[:SHOWN_BYTES])

    def tick(self, messages_out: int) -> None:
        """Close a second of the rates; called about once a second."""
        now = self._clock()
        with self._lock:
            passed = max(now - self._second_began, 0.001)
            self._rate_in = self._in_second / passed
            self._rate_out = (messages_out - self._out_before) / passed
            self._history.append(self._rate_in)
            self._in_second = 0
            self._out_before = messages_out
            self._second_began = now
            self._second += 1
            self._lengths.append(passed)

    def _settle(self, topic: _Topic) -> None:
        """Bring the rates of a topic to the beginning of the present second. Under the lock.

        It is done when the topic is used, so that a second costs nothing, however many there are.
        """
        ago = self._second - topic.second
        topic.second = self._second
        if not topic.recent and topic.rate < _LEAST_RATE:
            topic.rate = topic.byte_rate = 0.0
            return
        # Of a second that is too long ago for its length to be known, next to nothing is left.
        new = _NEW_PART / (self._lengths[-ago] if ago <= _SECONDS else 1.0)
        left = _OLD_PART ** (ago - 1)
        topic.rate = (_OLD_PART * topic.rate + new * topic.recent) * left
        topic.byte_rate = (_OLD_PART * topic.byte_rate + new * topic.recent_bytes) * left
        topic.recent = topic.recent_bytes = 0

    def newest(self, after_seq: int, limit: int) -> list[Message]:
        """The newest messages beyond ``after_seq``, at most ``limit``, oldest first."""
        found: list[Message] = []
        with self._lock:
            for message in reversed(self._ring):
                if message.seq <= after_seq or len(found) >= limit:
                    break
                found.append(message)
        found.reverse()
        return found

    def full_size(self, seq: int) -> int | None:
        """Payload length of a message that was cut, else ``None``."""
        return self._sizes.get(seq)

    def rates(self) -> tuple[float, float, tuple[float, ...]]:
        """Messages a second in and out, and the last minute's rates in, oldest first."""
        with self._lock:
            return self._rate_in, self._rate_out, tuple(self._history)

    @property
    def known_topics(self) -> int:
        """The number of kept topics."""
        return len(self._topics)

    def topics(self, limit: int, is_retained: Callable[[str], bool]) -> list[TopicState]:
        """The statistics of each topic, the busiest first."""
        with self._lock:
            topics = list(self._topics.items())
        for part in _parts(topics):
            # The engine's loop waits for the lock.
            with self._lock:
                second = self._second
                for _, topic in part:
                    if topic.second != second and (topic.recent or topic.rate):
                        self._settle(topic)
        if limit < len(topics):
            topics = heapq.nlargest(limit, topics, key=_rank)
        else:
            topics.sort(key=_rank, reverse=True)
        states: list[TopicState] = []
        for part in _parts(topics):
            with self._lock:
                states += [_state(name, topic, is_retained(name)) for name, topic in part]
        return states


def _parts(topics: list[tuple[str, _Topic]]) -> Iterator[list[tuple[str, _Topic]]]:
    for start in range(0, len(topics), _TOGETHER):
        yield topics[start : start + _TOGETHER]


def _rank(item: tuple[str, _Topic]) -> tuple[float, int]:
    topic = item[1]
    return (topic.rate, topic.count)


def _state(name: str, topic: _Topic, retained: bool) -> TopicState:
    """What is told of a topic: the same object while it is the same. Under the lock."""
    state = topic.state
    if (
        state is None
        or state.rate != topic.rate
        or state.count != topic.count
        or state.retained != retained
    ):
        state = topic.state = TopicState(
            name,
            topic.count,
            topic.rate,
            topic.last_ns,
            topic.last_seq,
            retained,
            topic.bytes,
            topic.byte_rate,
            topic.size,
        )
    return state
