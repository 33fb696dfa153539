"""The numbers of a topic from the journal, summed up in stretches of time: what is plotted.

A step walks back for a part of a second and returns a few kilobytes, whatever it read, so a
terminal on a slow line can plot days. Steps for the same ``AskedValues`` add up exactly.
Not for: drawing (plot.py), which numbers a payload has (payload_numbers.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from appliance import sparkplug
from appliance.engine_api import (
    MOST_PATHS,
    MOST_STRETCHES,
    AskedValues,
    FoundNumber,
    ValueBuckets,
    Values,
)
from appliance.errors import UsageError
from appliance.journal.search import History, Piece
from appliance.message_filter import MessageFilter
from appliance.model import Message
from appliance.mqtt.topics import topic_problem
from appliance.payload_numbers import MAX_NUMBERS, numbers_in

STEP_S = 0.25
_BIRTH_S = 0.1
"""Seconds in which the birth is looked for that names Sparkplug's aliases."""
_LISTED_MESSAGES = 50
"""Of a step, the newest; their numbers are those that an operator can choose from."""
_LATEST_NS = 2**63 - 1
_NO_NAMES: Mapping[int, str] = {}


def check(asked: AskedValues) -> None:
    """Refuse what can't be read. Raises ``UsageError``."""
    if problem := topic_problem(asked.topic):
        raise UsageError(f"Topic {asked.topic!r}: {problem}.")
    if len(asked.paths) > MOST_PATHS:
        raise UsageError(f"At most {MOST_PATHS} values are read at a time.")
    if asked.width_ns <= 0:
        raise UsageError("A stretch of time must be longer than 0.")
    if not 0 <= asked.since_ns <= _LATEST_NS:
        raise UsageError("The journal has no message of such a time.")


def step(
    history: History,
    asked: AskedValues,
    before_seq: int,
    first_seq: int = 0,
    budget_s: float = STEP_S,
) -> Values:
    """One step. Blocks while the journal is read.

    Args:
        history: the journal.
        asked: checked.
        before_seq: the message behind the first one to read.
        first_seq: no message before was received at ``asked.since_ns`` or later.
        budget_s: seconds.
    """
    until = time.monotonic() + budget_s
    sums = _Sums(asked)
    names = _Names(history, asked.topic)
    birth = sparkplug.birth_topic(asked.topic)
    topics = (asked.topic, birth) if birth else (asked.topic,)
    wanted = MessageFilter(topics=topics, since_ns=asked.since_ns)
    reached, reached_ns = before_seq, 0
    pieces = history.back(wanted, before_seq, max(first_seq, asked.after_seq + 1))
    with contextlib.closing(pieces):
        for piece in pieces:
            sums.add(names.of(piece))
            reached = piece.first_seq
            if piece.messages:
                reached_ns = piece.messages[0].received_ns
            if time.monotonic() > until or (not asked.paths and sums.found):
                break
        else:
            reached = 0
    return sums.values(reached, reached_ns)


class _Names:
    """The numbers of each message of a topic; Sparkplug's aliases have the names of their birth."""

    def __init__(self, history: History, topic: str) -> None:
        self._history = history
        self._topic = topic
        self._birth_topic = sparkplug.birth_topic(topic)
        self._is_sparkplug = sparkplug.is_topic(topic)
        self._before: tuple[int, Mapping[int, str]] | None = None
        """The birth before the present piece, by its number, and its names."""

    def of(self, piece: Piece) -> list[tuple[Message, dict[str, float]]]:
        """The topic's messages, oldest first, with their numbers."""
        if not self._birth_topic:
            return [
                (one, numbers_in(one.payload, is_sparkplug=self._is_sparkplug))
                for one in piece.messages
            ]
        found = []
        names: Mapping[int, str] | None = None
        for message in piece.messages:
            if message.topic == self._birth_topic:
                names = _names_in(message)
                continue
            if names is None:
                names = self._names_before(message.seq)
            found.append((message, numbers_in(message.payload, is_sparkplug=True, names=names)))
        return found

    def _names_before(self, seq: int) -> Mapping[int, str]:
        if self._before is None or self._before[0] >= seq:
            asked = MessageFilter(topics=(self._birth_topic,))
            births = self._history.step(asked, seq, 1, budget_s=_BIRTH_S).messages
            self._before = (births[-1].seq, _names_in(births[-1])) if births else (0, _NO_NAMES)
        return self._before[1]


def _names_in(birth: Message) -> Mapping[int, str]:
    try:
        return sparkplug.read(birth.payload).names()
    except sparkplug.NotSparkplugError:
        return _NO_NAMES


class _Sums:
    """What a step found."""

    def __init__(self, asked: AskedValues) -> None:
        self._width_ns = asked.width_ns
        self._last = asked.since_ns // asked.width_ns + MOST_STRETCHES
        self._sums: dict[str, dict[int, list[float]]] = {path: {} for path in asked.paths}
        """By path and stretch: count, sum, lowest, highest."""
        self.found: dict[str, float] = {}
        self._messages = self._without = 0

    def add(self, messages: Sequence[tuple[Message, dict[str, float]]]) -> None:
        """Add a piece that is older than those before."""
        for message, numbers in reversed(messages):
            self._messages += 1
            if not numbers:
                self._without += 1
                continue
            if self._messages <= _LISTED_MESSAGES:
                for path, newest in numbers.items():
                    if len(self.found) < MAX_NUMBERS:
                        self.found.setdefault(path, newest)
            stretch = message.received_ns // self._width_ns
            if stretch > self._last:
                continue
            for path, of_path in self._sums.items():
                number = numbers.get(path)
                if number is None:
                    continue
                known = of_path.get(stretch)
                if known is None:
                    of_path[stretch] = [1, number, number, number]
                else:
                    known[0] += 1
                    known[1] += number
                    known[2] = min(known[2], number)
                    known[3] = max(known[3], number)

    def values(self, reached: int, reached_ns: int) -> Values:
        """All of it."""
        return Values(
            buckets=tuple(self._buckets()),
            before_seq=reached,
            reached_ns=reached_ns,
            messages=self._messages,
            without_number=self._without,
            found=tuple(FoundNumber(path, value) for path, value in self.found.items()),
        )

    def _buckets(self) -> Iterator[ValueBuckets]:
        for path, of_path in self._sums.items():
            rows = sorted(of_path.items())
            yield ValueBuckets(
                path,
                tuple(stretch for stretch, _ in rows),
                tuple(int(sums[0]) for _, sums in rows),
                tuple(sums[1] for _, sums in rows),
                tuple(sums[2] for _, sums in rows),
                tuple(sums[3] for _, sums in rows),
            )
