"""Which messages a broker had held for new subscribers when the bridge had them already.

A broker sends what it holds for a topic (retained) at each new subscription, with the RETAIN flag;
how old it is, it does not say. One that equals the last message that the bridge brought in on that
topic is a replay, and starts nothing again. Equal to an older one is not enough: a state that went
to and fro while the bridge was away is news. The memory outlives the process (store.py). Not for:
what a broker sends again with DUP (repeats.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b

from appliance.bridge.store import save_digests
from appliance.counters import Count, Counter
from appliance.journal.inbox import Statement

_SAVE_EVERY_S = 1.0


def digest_of(payload: bytes) -> bytes:
    """What stands for a payload on the disk."""
    return blake2b(payload, digest_size=16).digest()


class Replays:
    """The last payload of each topic. Engine's loop only."""

    def __init__(
        self,
        name: str,
        digests: Mapping[str, bytes],
        *,
        most: Callable[[], int],
        clock: Callable[[], float],
        count: Count,
    ) -> None:
        """Go on with ``digests``, by topic, oldest first.

        Args:
            name: of the bridge.
            digests: what was kept.
            most: how many topics are remembered now; those that were silent longest are forgotten.
            clock: a monotonic time in seconds.
            count: counts the topics that are forgotten.
        """
        self._name = name
        self._last: OrderedDict[str, bytes] = OrderedDict(digests)
        self._most = most
        self._clock = clock
        self._changed: dict[str, tuple[int, bytes]] = {}
        self._gone: set[str] = set()
        self._saved_at = -_SAVE_EVERY_S
        self._count = count

    def is_replay(self, topic: str, payload: bytes) -> bool:
        """Whether a message with the RETAIN flag is the last that came in on the (local) topic."""
        return self._last.get(topic) == digest_of(payload)

    def note(self, topic: str, payload: bytes, seq: int) -> None:
        """A message came in that is no repeat."""
        digest = digest_of(payload)
        self._last[topic] = digest
        self._last.move_to_end(topic)
        self._changed[topic] = (seq, digest)
        self._gone.discard(topic)
        while len(self._last) > self._most():
            forgotten, _ = self._last.popitem(last=False)
            self._changed.pop(forgotten, None)
            self._gone.add(forgotten)
            self._count(Counter.BRIDGE_LAST_PAYLOADS_FORGOTTEN)

    def due(self, newest_seq: int, *, at_once: bool = False) -> list[Statement]:
        """What is to be saved now; empty while that can wait. Cheap: ask often.

        Args:
            newest_seq: of the journal; every noted message has entered it.
            at_once: what is not saved yet can't wait.
        """
        now = self._clock()
        if not (self._changed or self._gone) or (
            now - self._saved_at < _SAVE_EVERY_S and not at_once
        ):
            return []
        statements = save_digests(self._name, self._changed, self._gone, newest_seq)
        self._changed, self._gone, self._saved_at = {}, set(), now
        return statements
