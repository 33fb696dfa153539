"""Which messages of another broker came before.

A broker sends a message of QoS 1 again, with the DUP flag, when it does not know that the message
arrived. DUP says "maybe": the first delivery may have been lost with its connection, and RabbitMQ
flags all that waited while it was restarted. Packet identifiers do not tell either: RabbitMQ
numbers the messages of each connection from 1 on. So the bridge keeps account of its own. A message
is **unsettled** from its arrival until it is proven that the broker has its PUBACK; the answer to a
PINGREQ that was sent behind the PUBACK proves it, because a connection keeps the order. Only an
unsettled message can come again:

1. A message without DUP is news, whatever it holds. An equal payload every hour is news each time.
2. A message with DUP is a repeat if an unsettled message with the same topic, payload and packet
   identifier came before, on this connection or on an earlier one. Brokers that keep packet
   identifiers send it at once after a reconnect (mosquitto, aedes) or much later (NATS).
3. Where the broker begins its packet identifiers anew with each connection (so far, each began with
   1), a message with DUP is also a repeat of the oldest unsettled one with the same topic and
   payload, in the order of the first deliveries, until the first news on the connection.
4. A mosquitto that was killed goes back to its last save, and sends with DUP what was settled since
   then. A message with DUP is a repeat of a settled one with the same topic, payload and packet
   identifier if the broker counts its packet identifiers up over all connections, and if it is
   among the last 20,000.

Each message is the original of one repeat at a time. A repeat that comes again is one of the same
original. All of it holds over a kill of the appliance: what is unsettled is noted in the journal's
database (store.py), and the journal has the messages (arrivals.py).

Not for: retained messages that are replayed at a subscription (replays.py), starting nothing for a
repeat (tasks/dedup.py).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from appliance.bridge.arrivals import Arrivals, Original, held
from appliance.bridge.store import ArrivalRecord
from appliance.counters import Count, Counter
from appliance.model import numbered, packet_id_of, seq_of

PING_EVERY_S = 0.2
"""How often a PINGREQ asks whether PUBACKs arrived, at most."""
SAVE_EVERY_S = 1.0
LATE_S = 900.0
"""How long after a reconnect a broker may wait with what is unacknowledged. NATS waits for its
``ack_wait``, 30 seconds by default."""
REMEMBERED = 20_000
"""Messages that are remembered once they are settled."""
MOST_UNSETTLED = 65_535
"""A broker has no more packet identifiers, so no more messages that it may send again."""
_SAVE_PROGRESS = 10_000
"""Messages of others after which the place of a quiet bridge is saved."""
_IDS = 65_535

_Seen = tuple[int, int, int]
"""The sequence number of a delivery, the number of its original, and what it holds (a hash)."""


class Repeats:
    """The account of one bridge over all its connections. Engine's loop only."""

    def __init__(
        self,
        arrivals: Arrivals,
        clock: Callable[[], float],
        save: Callable[[], None] = lambda: None,
        count: Count = lambda _: None,
    ) -> None:
        """Go on with what came before this start.

        Args:
            arrivals: what the journal has.
            clock: a monotonic time in seconds.
            save: saves ``record`` at once, before the message that ``number`` was asked about
                enters the journal.
            count: counts what is forgotten because it is too much.
        """
        self._clock = clock
        self._save = save
        self._count = count
        # An ordered one: the first key of a dict that loses its first keys takes long to find.
        self._seen: OrderedDict[int, _Seen] = OrderedDict()
        """By packet identifier, in the order of arrival: this connection's messages, and settled
        ones of earlier connections if the broker counts on."""
        self._earlier = _Earlier(arrivals.unsettled)
        self._proven = 0
        """What came up to here on this connection is settled."""
        self._acknowledged = 0
        self._pinged: int | None = None
        self._pinged_at = -PING_EVERY_S
        self._newest = 0
        """The newest delivery of this connection."""
        self._is_connected = False
        self._connected_at = 0.0
        self._is_first = True
        """No message of QoS 1 has come on this connection."""
        self._ids_go_on = arrivals.ids_go_on
        """A connection of this session did not begin with packet identifier 1."""
        self._begins_anew = False
        """This connection's packet identifiers began with 1, as those of all before."""
        self._is_in_order = True
        """Only repeats have come on this connection."""
        self._after = 0
        """The original of the last repeat in that order."""
        self._last_id = 0
        """Of the last news."""
        self._is_counting = False
        """News have come on this connection."""
        self._counts_up: bool | None = None
        """News of a connection have ascending packet identifiers; ``None``: not known yet."""
        self._saved: ArrivalRecord | None = None
        self._saved_at = -SAVE_EVERY_S
        self._changed = True
        self._note_forgotten(arrivals.forgotten)
        for number, content in arrivals.settled:
            self._note_id(packet_id_of(number))
            self._remember(packet_id_of(number), (0, number, content))

    # --- the connection -------------------------------------------------------------------------

    def connected(self, *, session_present: bool, newest_seq: int) -> None:
        """The broker accepted a connection, and nothing has come on it yet.

        What ``record`` returns then must be on the way to the disk before the first message.

        Args:
            session_present: it has the session of the connection before.
            newest_seq: of the journal.
        """
        if not session_present:  # what a broker has forgotten it does not send again
            self._seen.clear()
            self._earlier = _Earlier(())
            self._last_id, self._counts_up, self._ids_go_on = 0, None, False
        self._is_connected = True
        self._connected_at = self._clock()
        self._pinged = None
        self._proven = self._acknowledged = self._newest = newest_seq
        self._is_first = self._is_in_order = True
        self._begins_anew = self._is_counting = False
        self._after = 0
        self._changed = True

    def disconnected(self) -> None:
        """The connection is gone: what is unsettled may come again on the next one."""
        if not self._is_connected:
            return
        self._is_connected = False
        open_ones = {
            packet_id: seen for packet_id, seen in self._seen.items() if seen[0] > self._proven
        }
        for packet_id in open_ones:
            del self._seen[packet_id]
        originals = sorted(
            [
                *self._earlier.left(),
                *((number, content, key) for key, (_, number, content) in open_ones.items()),
            ]
        )
        self._note_forgotten(len(originals) - MOST_UNSETTLED)
        self._earlier = _Earlier(originals[-MOST_UNSETTLED:])
        self._newest = self._proven
        self._changed = True

    def _note_forgotten(self, number: int) -> None:
        for _ in range(number):
            self._count(Counter.BRIDGE_UNSETTLED_FORGOTTEN)

    # --- messages -------------------------------------------------------------------------------

    def number(
        self, topic: str, payload: bytes, dup: bool, packet_id: int, seq: int
    ) -> tuple[bool, int]:
        """Whether a message of QoS 1 is a repeat, and its number (``Message.packet_id``).

        Args:
            topic: the local one, which the journal keeps.
            payload: of the message.
            dup: its DUP flag.
            packet_id: its packet identifier.
            seq: the sequence number that the journal has for it.
        """
        content = held(topic, payload)
        self._newest = seq
        if self._is_first:
            self._begin(packet_id)
        number = self._original(packet_id, content) if dup else None
        is_repeat = number is not None
        if number is None:
            number = numbered(seq, packet_id)
            self._is_in_order = False
            if self._earlier:
                self._earlier.used_again(packet_id)
            if packet_id == self._last_id + 1 and self._counts_up:
                self._last_id = packet_id
            elif not dup:
                self._note_id(packet_id)
        self._remember(packet_id, (seq, number, content))
        return is_repeat, number

    def left_out(self, packet_id: int) -> None:
        """A message of QoS 1 came and does not go into the journal."""
        if self._is_first:
            self._begin(packet_id)

    def _begin(self, packet_id: int) -> None:
        self._is_first = False
        if packet_id != 1 and not self._ids_go_on:
            self._ids_go_on = True
            self._save()
        self._begins_anew = not self._ids_go_on
        if self._begins_anew:
            self._seen.clear()
            self._last_id = 0

    def _original(self, packet_id: int, content: int) -> int | None:
        seen = self._seen.get(packet_id)
        if seen is not None and seen[2] == content and (seen[0] > self._proven or self._counts_up):
            return seen[1]
        number = None
        if self._begins_anew and self._is_in_order:
            number = self._earlier.take_next(content, self._after)
        if number is None:
            number = self._earlier.take(packet_id, content)
        if number is not None:
            self._after = max(self._after, number)
            self._changed = True
        return number

    def _note_id(self, packet_id: int) -> None:
        is_up = 0 < (packet_id - self._last_id) % _IDS <= _IDS // 2
        if self._is_counting:
            self._counts_up = is_up and self._counts_up is not False
        elif self._last_id and not is_up:
            # The broker went back to an earlier save, or it does not go on with its identifiers:
            # those of before may come again with other messages.
            self._seen = OrderedDict(
                (key, seen) for key, seen in self._seen.items() if seen[0] > self._proven
            )
        self._is_counting = True
        self._last_id = packet_id

    def _remember(self, packet_id: int, seen: _Seen) -> None:
        memory = self._seen
        memory[packet_id] = seen
        memory.move_to_end(packet_id)
        if len(memory) > REMEMBERED:
            oldest = next(iter(memory))
            if memory[oldest][0] <= self._proven:
                del memory[oldest]

    # --- acknowledgements -----------------------------------------------------------------------

    def acknowledged(self, seq: int) -> None:
        """The PUBACKs of all that came up to this message were sent on this connection."""
        self._acknowledged = max(self._acknowledged, seq)

    @property
    def wants_ping(self) -> bool:
        """Whether a PINGREQ is to be sent now, to prove that PUBACKs arrived."""
        return (
            self._acknowledged > self._proven
            and self._pinged is None
            and self._clock() - self._pinged_at >= PING_EVERY_S
        )

    @property
    def is_settled(self) -> bool:
        """Whether the broker is known to have the PUBACK of every message of this connection."""
        return self._newest <= self._proven

    def ping_sent(self) -> None:
        """A PINGREQ goes out behind all PUBACKs so far. Only one is on its way at a time."""
        self._pinged = self._acknowledged
        self._pinged_at = self._clock()

    def ping_answered(self) -> None:
        """The PINGRESP came: the broker has read what was sent before the PINGREQ."""
        if self._pinged is not None and self._pinged > self._proven:
            self._proven = self._pinged
            self._changed = True
        self._pinged = None
        if self._earlier and self._clock() - self._connected_at > LATE_S:
            self._earlier = _Earlier(())
            self._changed = True

    # --- what is kept ---------------------------------------------------------------------------

    def due(self, newest_seq: int) -> ArrivalRecord | None:
        """What is to be saved now; ``None`` if that can wait. Cheap: ask often.

        Args:
            newest_seq: of the journal; every message that ``number`` has seen has entered it.
        """
        if self._clock() - self._saved_at < SAVE_EVERY_S:
            return None
        quiet = self._saved is not None and newest_seq - self._saved.settled_seq < _SAVE_PROGRESS
        if quiet and not self._changed:
            return None
        return self.record(newest_seq)

    def record(self, newest_seq: int) -> ArrivalRecord | None:
        """What is to be saved now in any case; ``None`` if it is saved already."""
        record = ArrivalRecord(
            newest_seq if self.is_settled else self._proven,
            self._earlier.sequence_numbers(),
            self._ids_go_on,
        )
        self._changed = False
        self._saved_at = self._clock()
        if record == self._saved:
            return None
        self._saved = record
        return record


class _Earlier:
    """Unsettled messages of earlier connections, in the order of their first deliveries."""

    def __init__(self, originals: Iterable[Original]) -> None:
        """``originals``: in the order of their numbers."""
        self._held: dict[int, tuple[int, int]] = {}
        self._by_id: dict[int, list[int]] = {}
        self._by_content: dict[int, deque[int]] = {}
        for number, content, packet_id in originals:
            self._held[number] = (content, packet_id)
            self._by_id.setdefault(packet_id, []).append(number)
            self._by_content.setdefault(content, deque()).append(number)

    def __bool__(self) -> bool:
        return bool(self._held)

    def left(self) -> list[Original]:
        return [(number, content, key) for number, (content, key) in self._held.items()]

    def sequence_numbers(self) -> tuple[int, ...]:
        return tuple([seq_of(number) for number in self._held])

    def take(self, packet_id: int, content: int) -> int | None:
        """Remove one that came with this packet identifier and holds this; returns its number."""
        for number in self._by_id.get(packet_id, ()):
            found = self._held.get(number)
            if found is not None and found[0] == content:
                del self._held[number]
                return number
        return None

    def take_next(self, content: int, after: int) -> int | None:
        """Remove the first one behind ``after`` that holds this; returns its number."""
        numbers = self._by_content.get(content)
        while numbers:
            number = numbers.popleft()
            if number > after and self._held.pop(number, None) is not None:
                return number
        return None

    def used_again(self, packet_id: int) -> None:
        """The broker gave the packet identifier to another message: it has the PUBACK."""
        for number in self._by_id.pop(packet_id, ()):
            self._held.pop(number, None)
