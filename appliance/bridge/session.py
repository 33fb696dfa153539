"""The session that a bridge has at its broker: what is subscribed to there, and when it was lost.

A broker keeps messages in it while the appliance is away. One that says that it has no session
although it should have lost what was waiting in it: a gap. Not for: packets (subscriptions.py),
which messages come again (repeats.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec

from appliance.bridge.store import SessionRecord

_SEEN_EVERY_NS = 60_000_000_000

_log = logging.getLogger(__name__)


class Gap(msgspec.Struct, frozen=True):
    """Messages that were published in this time may be missing."""

    from_ns: int
    """When the bridge was last known to be connected; 0 if that is not known."""
    to_ns: int


class Session:
    """The session of one bridge, over all its connections and starts. Engine's loop only."""

    def __init__(
        self,
        record: SessionRecord | None,
        *,
        address: str,
        client_id: str,
        save: Callable[[SessionRecord], None],
        clock_ns: Callable[[], int],
    ) -> None:
        """Go on with what was kept, if it is of this client id.

        Where the broker has another address now, it is the same one if it has the session, as
        after a move from port 1883 to 8883; if it has none, that is no gap.

        Args:
            record: what was kept.
            address: ``"host:port"`` of the broker in the configuration.
            client_id: of the bridge at the broker.
            save: puts a record into the next commit.
            clock_ns: the present time in ns since 1970.
        """
        if record is not None and record.client_id != client_id:
            if record.is_there:
                _log.warning(
                    "the client id at %s is %s now: what waits there for %s stays there",
                    address,
                    client_id,
                    record.client_id,
                )
            record = None
        if record is None:
            record = SessionRecord(address, client_id)
        elif record.address != address:
            record = msgspec.structs.replace(record, address=address, is_there=False)
        self._record = record
        self._save = save
        self._clock_ns = clock_ns
        self.gaps = 0
        """Gaps since the start."""

    @property
    def gap(self) -> Gap | None:
        """The newest gap that no operator has acknowledged, also one of an earlier start."""
        record = self._record
        return Gap(record.gap_from_ns, record.gap_to_ns) if record.gap_to_ns else None

    def accepted(self, *, session_present: bool, is_lasting: bool) -> Gap | None:
        """A connection is accepted; returns the gap if there is one.

        Args:
            session_present: the broker has the session of the last connection.
            is_lasting: the bridge asked it to keep the session when the connection ends.
        """
        before, now = self._record, self._clock_ns()
        gap = None
        changed = msgspec.structs.replace(before, is_there=is_lasting, seen_ns=now)
        if not session_present:
            changed = msgspec.structs.replace(changed, filters=())
            if before.is_there and before.filters:
                gap = Gap(before.seen_ns, now)
                self.gaps += 1
                since = before.gap_from_ns if before.gap_to_ns else before.seen_ns
                changed = msgspec.structs.replace(changed, gap_from_ns=since, gap_to_ns=now)
        self._keep(changed)
        return gap

    def kept(self, wanted: Mapping[str, int]) -> tuple[str, ...]:
        """The filters of the session, without those that have to be subscribed to again.

        Args:
            wanted: the options that each filter should have.
        """
        return tuple(
            text for text, options in self._record.filters if wanted.get(text, options) == options
        )

    def has(self, filters: Mapping[str, int]) -> None:
        """The session has these filters now, with these options."""
        found = tuple(filters.items())
        if found != self._record.filters:
            self._keep(msgspec.structs.replace(self._record, filters=found))

    def seen(self) -> None:
        """The connection is open. Cheap: say it often."""
        now = self._clock_ns()
        if not 0 <= now - self._record.seen_ns < _SEEN_EVERY_NS:
            self._keep(msgspec.structs.replace(self._record, seen_ns=now))

    def left(self) -> None:
        """The connection is over."""
        self._keep(msgspec.structs.replace(self._record, seen_ns=self._clock_ns()))

    def acknowledge(self) -> None:
        """An operator knows the gap."""
        if self._record.gap_to_ns:
            self._keep(msgspec.structs.replace(self._record, gap_from_ns=0, gap_to_ns=0))

    def _keep(self, record: SessionRecord) -> None:
        self._record = record
        self._save(record)
