"""What a bridge knows of its broker over all connections and starts: session, repeats, replays.

It hears what the connection does, and puts rows into the journal's next commit, in order with the
messages. Not for: what it knows (session.py, repeats.py, replays.py), packets (connection.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from appliance.bridge.arrivals import Arrivals, read_arrivals, read_last_digests
from appliance.bridge.repeats import Repeats
from appliance.bridge.replays import Replays
from appliance.bridge.session import Gap, Session
from appliance.bridge.store import BridgeRecord, load, save_arrival, save_session
from appliance.counters import Count
from appliance.journal.inbox import Statement
from appliance.journal.journal import Journal


class Kept(msgspec.Struct, frozen=True):
    """What a bridge has from before, read at its begin."""

    record: BridgeRecord
    arrivals: Arrivals = Arrivals()
    last_digests: dict[str, bytes] = {}


def read_kept(journal: Journal, name: str, *, client_id: str, most_digests: int) -> Kept:
    """Read what is kept of a bridge. Waits for the disk.

    Args:
        journal: has the rows and the messages.
        name: of the bridge.
        client_id: of the bridge at its broker.
        most_digests: topics whose last payload is remembered; 0 if no filter wants retained
            messages.

    Raises:
        UnavailableError, sqlite3.Error: the journal can't be read.
    """
    record = load(journal, name)
    session = record.session
    arrivals = Arrivals()
    if session is None or session.client_id == client_id:  # a damaged row costs no other
        arrivals = read_arrivals(journal, name, record.arrival)
    digests = read_last_digests(journal, record, most_digests) if most_digests else {}
    return Kept(record, arrivals, digests)


class Account:
    """The account of one bridge. Engine's loop only."""

    def __init__(
        self,
        kept: Kept,
        *,
        address: str,
        client_id: str,
        record: Callable[[Sequence[Statement]], None],
        newest_seq: Callable[[], int],
        most_digests: Callable[[], int],
        clock: Callable[[], float],
        clock_ns: Callable[[], int],
        count: Count,
    ) -> None:
        """``record``: puts rows into the next commit; the others as in ``read_kept`` and below.

        Args:
            kept: what the bridge has from before.
            address: of the broker in the configuration.
            client_id: of the bridge there.
            record: puts rows into the journal's next commit.
            newest_seq: the newest message that entered the journal.
            most_digests: topics whose last payload is remembered now.
            clock: a monotonic time in seconds.
            clock_ns: the present time in ns since 1970.
            count: counts what is forgotten.
        """
        self._name = kept.record.name
        self._record = record
        self._newest_seq = newest_seq
        self.repeats = Repeats(kept.arrivals, clock, self.save, count)
        self.replays = Replays(
            self._name, kept.last_digests, most=most_digests, clock=clock, count=count
        )
        self.session = Session(
            kept.record.session,
            address=address,
            client_id=client_id,
            save=lambda row: record([save_session(self._name, row)]),
            clock_ns=clock_ns,
        )

    def accepted(self, *, session_present: bool, is_lasting: bool) -> Gap | None:
        """A connection is accepted, and no message has come on it; returns the gap if any."""
        gap = self.session.accepted(session_present=session_present, is_lasting=is_lasting)
        self.repeats.connected(session_present=session_present, newest_seq=self._newest_seq())
        self.save()
        return gap

    def ended(self) -> None:
        """That connection is over."""
        self.repeats.disconnected()
        self.session.left()
        self.save()

    def look(self) -> None:
        """The connection is open: save what is due. Called several times a second."""
        self.session.seen()
        newest = self._newest_seq()
        statements = self.replays.due(newest)
        if (arrival := self.repeats.due(newest)) is not None:
            statements.append(save_arrival(self._name, arrival))
        if statements:
            self._record(statements)

    def save(self) -> None:
        """Save what is not saved yet."""
        newest = self._newest_seq()
        statements = self.replays.due(newest, at_once=True)
        if (arrival := self.repeats.record(newest)) is not None:
            statements.append(save_arrival(self._name, arrival))
        if statements:
            self._record(statements)
