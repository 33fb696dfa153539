"""What the journal has of the appliance's own messages when the appliance starts.

A publication stays in ``tasks.db`` until a later change notes that it was published. A crash
between the two leaves a publication that is in the journal already. Published again, it would be
news: whatever a trigger starts for it would be started twice. In a power cut ``tasks.db`` may also
lose a change whose outcome was published; when the server reports that run's end again, the same
outcome is made again.

``Published`` holds the appliance's own messages since the last note, and finds a publication among
them once for each time that the journal has it. Content is compared, so the message looks the same
to subscribers as it always did.

Not for: keeping publications (store.py) or handing them to the broker (workers.py).
"""

from __future__ import annotations

import logging
from collections import Counter as Multiset
from collections.abc import Callable
from typing import Protocol

from appliance.model import Message
from appliance.tasks.store import Publication

_log = logging.getLogger(__name__)
MAX_LOOKED_AT = 1_000_000
"""Messages of the journal that are looked through at the start, the newest: 4 s of processor."""
_BATCH = 5000


class Journal(Protocol):
    """What is asked of the journal, or of a follower of it."""

    @property
    def last_seq(self) -> int: ...

    def read(self, after_seq: int, limit: int) -> list[Message]: ...


_Content = tuple[str, bytes, bool, bytes | None]


class Published:
    """The appliance's own messages since the last note. Not thread-safe."""

    def __init__(self) -> None:
        self._contents: Multiset[_Content] = Multiset()

    def look_through(
        self,
        journal: Journal,
        after_seq: int,
        own_client_id: str,
        *,
        hear: Callable[[Message], None] = lambda _: None,
        hear_after: int | None = None,
    ) -> int:
        """Take up the own messages behind ``after_seq``; returns the newest one's number, or 0.

        ``hear`` gets the own messages behind ``hear_after`` too, if that is earlier.

        Raises:
            UnavailableError, sqlite3.Error: the journal can't be read.
        """
        wanted_after = after_seq
        if hear_after is not None:
            after_seq = min(after_seq, hear_after)
        first = max(after_seq, journal.last_seq - MAX_LOOKED_AT)
        if first > after_seq:
            _log.warning(
                "Messages %d to %d are not looked through for what was published before the stop: "
                "it may be published again",
                after_seq + 1,
                first,
            )
        newest = 0
        while messages := journal.read(first, _BATCH):
            first = messages[-1].seq
            for one in messages:
                if one.client_id != own_client_id:
                    continue
                hear(one)
                if one.seq > wanted_after:
                    newest = one.seq
                    self._contents[_content_of(one)] += 1
        return newest

    def take(self, publication: Publication) -> bool:
        """Whether the journal has a publication; the next of the same content is another one."""
        if not self._contents:
            return False
        content = (
            publication.topic,
            publication.payload,
            publication.retain,
            publication.correlation,
        )
        if not self._contents[content]:
            return False
        self._contents[content] -= 1
        self._contents += Multiset()  # drops what has no more
        return True


def _content_of(message: Message) -> _Content:
    properties = message.properties
    correlation = None if properties is None else properties.decoded().correlation_data
    return message.topic, message.payload, message.retain, correlation
