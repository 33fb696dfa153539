"""The newest committed messages in memory: a follower that keeps up never touches the disk.

Not for: messages that are not committed yet, and not for old ones; both bounds are hard.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from operator import attrgetter

from appliance.journal.message_cost import content_of
from appliance.model import Message

MAX_MESSAGES = 16_384
MAX_BYTES = 8 * 1024 * 1024
"""Bytes of payloads, topics and properties."""

_sequence = attrgetter("seq")


class Tail:
    """Holds every message with a sequence number above ``after``. Safe from any thread."""

    def __init__(self, after: int) -> None:
        self._lock = threading.Lock()
        self._messages: list[Message] = []
        self._commits: deque[tuple[int, int]] = deque()
        """Messages and bytes of content of each commit that is held, the oldest maybe in part."""
        self._bytes = 0
        self._after = after

    def extend(self, messages: Sequence[Message], content_size: int) -> None:
        """Add newly committed messages (the writer calls this once a commit).

        ``content_size`` is the sum of ``message_cost.content_of`` them.
        """
        with self._lock:
            self._messages.extend(messages)
            self._commits.append((len(messages), content_size))
            self._bytes += content_size
            # A quarter of slack, so that a list of this length is not shifted at every commit.
            if len(self._messages) > MAX_MESSAGES * 5 // 4 or self._bytes > MAX_BYTES:
                self._trim()

    def _trim(self) -> None:
        # By whole commits, whose sizes are known: no work for each message.
        count = 0
        while self._commits and (
            len(self._messages) - count - self._commits[0][0] >= MAX_MESSAGES
            or self._bytes > MAX_BYTES * 3 // 4
        ):
            messages, size = self._commits.popleft()
            count += messages
            self._bytes -= size
        self._drop(count)

    def _drop(self, count: int) -> None:
        if count:
            self._after = self._messages[count - 1].seq
            del self._messages[:count]

    def forget(self, seq: int) -> None:
        """Messages up to ``seq`` were deleted from the journal."""
        with self._lock:
            left = count = bisect_right(self._messages, seq, key=_sequence)
            while left:
                messages, size = self._commits.popleft()
                if messages > left:
                    part = self._messages[count - left : count]
                    freed = sum([content_of(message) for message in part])
                    self._commits.appendleft((messages - left, size - freed))
                    messages, size = left, freed
                left -= messages
                self._bytes -= size
            self._drop(count)

    def read(self, after_seq: int, limit: int, max_bytes: int) -> list[Message] | None:
        """Messages after ``after_seq``; ``None`` if they have left memory (look on the disk)."""
        with self._lock:
            if after_seq < self._after:
                return None
            start = bisect_right(self._messages, after_seq, key=_sequence)
            found = self._messages[start : start + limit]
            small = self._bytes <= max_bytes
        return found if small else cut(found, max_bytes)


def cut(messages: list[Message], max_bytes: int) -> list[Message]:
    """As many of the first messages as fit into ``max_bytes`` of content, at least one."""
    total = 0
    for index, message in enumerate(messages):
        total += content_of(message)
        if total > max_bytes and index:
            return messages[:index]
    return messages
