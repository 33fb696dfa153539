"""What a bridge brought in before this start, as far as it may come again or be replayed.

Only the newest are looked at: the row of the bridge says behind which message, and that is saved
each second while messages come. Not for: what a repeat is (repeats.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

import msgspec

from appliance.bridge.replays import digest_of
from appliance.bridge.store import ArrivalRecord, BridgeRecord
from appliance.model import Message, bridge_client_id, packet_id_of

_LOOKED_BACK = 20_000
"""Messages of all clients before the settled place in which settled ones are looked for."""
_MOST_READ = 2_000_000
"""Messages behind it that are read; with a row of each second there are far fewer."""
_AT_ONCE = 1000
_MOST_UNSETTLED = 65_535

_log = logging.getLogger(__name__)

Original = tuple[int, int, int]
"""The number of a message, what it holds (a hash of topic and payload), its packet identifier."""


class Reader(Protocol):
    """What is needed of the journal."""

    @property
    def last_seq(self) -> int: ...

    def read(self, after_seq: int, limit: int) -> list[Message]: ...


class Arrivals(msgspec.Struct, frozen=True):
    """Messages of one bridge."""

    unsettled: tuple[Original, ...] = ()
    """Those that the broker may send again, in the order in which they first came."""
    settled: tuple[tuple[int, int], ...] = ()
    """The newest of those before: number and what it holds."""
    ids_go_on: bool = False
    """``ArrivalRecord.ids_go_on``"""
    forgotten: int = 0
    """Unsettled ones that were too many."""


def read_arrivals(journal: Reader, name: str, record: ArrivalRecord | None) -> Arrivals:
    """Read the journal. Waits for the disk.

    Raises:
        UnavailableError, sqlite3.Error: the journal can't be read.
    """
    if record is None:
        return Arrivals()
    client_id = bridge_client_id(name)
    place = record.settled_seq
    begin = max(place, journal.last_seq - _MOST_READ)
    if begin > place:
        _log.warning(
            "bridge %s: messages %d to %d are not looked through for what its broker may send"
            " again: if it does, such a message counts as a new one",
            name,
            place + 1,
            begin,
        )
    unsettled: dict[int, int] = {}
    settled: dict[int, int] = {}
    forgotten = 0
    for message in _named(journal, record.unsettled, client_id):
        unsettled[message.packet_id] = held(message.topic, message.payload)
    for message in _behind(journal, max(0, place - _LOOKED_BACK), client_id, place):
        if message.packet_id not in unsettled:
            settled[message.packet_id] = held(message.topic, message.payload)
    for message in _behind(journal, begin, client_id, journal.last_seq):
        settled.pop(message.packet_id, None)
        unsettled[message.packet_id] = held(message.topic, message.payload)
        if len(unsettled) > _MOST_UNSETTLED:
            del unsettled[next(iter(unsettled))]
            forgotten += 1
    return Arrivals(
        tuple([(number, unsettled[number], packet_id_of(number)) for number in sorted(unsettled)]),
        tuple(settled.items()),
        record.ids_go_on,
        forgotten,
    )


def read_last_digests(journal: Reader, record: BridgeRecord, most: int) -> dict[str, bytes]:
    """Complete ``BridgeRecord.last_digests`` with what came since. Waits for the disk.

    Args:
        journal: has the messages.
        record: of the bridge.
        most: topics that are remembered.

    Raises:
        UnavailableError, sqlite3.Error: the journal can't be read.
    """
    reach = _MOST_READ if record.digests_seq else _LOOKED_BACK
    begin = max(record.digests_seq, journal.last_seq - reach)
    digests = dict(record.last_digests)
    client_id = bridge_client_id(record.name)
    for message in _behind(journal, begin, client_id, journal.last_seq, lowest_qos=0):
        if not message.dup:
            digests.pop(message.topic, None)
            digests[message.topic] = digest_of(message.payload)
            if len(digests) > most:
                del digests[next(iter(digests))]
    return digests


def held(topic: str, payload: bytes) -> int:
    """A hash of what a message holds. It is another one in each process."""
    return hash((topic, payload))


def _behind(
    journal: Reader, after: int, client_id: str, last: int, *, lowest_qos: int = 1
) -> Iterator[Message]:
    """The bridge's messages of QoS 1 from behind one up to another."""
    while after < last:
        messages = journal.read(after, _AT_ONCE)
        if not messages:
            return
        for message in messages:
            if message.seq > last:
                return
            if message.client_id == client_id and message.qos >= lowest_qos:
                yield message
        after = messages[-1].seq


def _named(journal: Reader, wanted: tuple[int, ...], client_id: str) -> Iterator[Message]:
    """The bridge's messages with these sequence numbers; many stand together."""
    found: dict[int, Message] = {}
    newest = 0
    for seq in wanted:
        if seq > newest:
            messages = journal.read(seq - 1, _AT_ONCE)
            found = {message.seq: message for message in messages}
            newest = messages[-1].seq if messages else seq
        message = found.get(seq)
        if message is not None and message.qos and message.client_id == client_id:
            yield message
