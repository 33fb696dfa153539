"""Reads the journal for what goes out by a bridge and makes packets of it, in a thread of its own.

Each connection is fed from the first message that is not done with, so nothing is kept in memory
while there is none. Not for: what may be sent when (outgoing.py), sockets.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from appliance.bridge.marks import marked
from appliance.config.tables import BridgePublishConfig
from appliance.counters import Counter
from appliance.errors import UnavailableError
from appliance.journal.follower import Follower
from appliance.journal.journal import Journal
from appliance.journal.wakeup import Wakeup
from appliance.model import EncodedProperties, Message, MessageProperties, bridge_of, is_replayed
from appliance.mqtt import v5_encode
from appliance.mqtt.client_packets import ConnAck
from appliance.mqtt.packets import PUBLISH, encode_length, string
from appliance.mqtt.topic_mapping import Mapped, Rule, TopicMapping
from appliance.mqtt.topics import Matcher

_log = logging.getLogger(__name__)
_MESSAGES_AT_ONCE = 500
_BYTES_AT_ONCE = 512 * 1024
_READY_MESSAGES = 2000
_READY_BYTES = 1024 * 1024
"""What waits to be sent at most, besides the messages of one read."""
_LONGEST_REMEMBERED = 256
"""Bytes of properties and client id whose encoded form is remembered."""
_WAIT_S = 1.0
_DEFECT = "an error in the appliance, please report it"


class Item(msgspec.Struct, frozen=True):
    """A message that goes out, as the parts of its PUBLISH."""

    seq: int
    topic: str
    """At the other broker."""
    qos: int
    head: bytes
    """The fixed header, without DUP, and the topic."""
    tail: bytes
    """What is behind the packet id: the property list (MQTT 5) and the payload."""
    expiring: tuple[Message, MessageProperties] | None = None
    """The message and its properties if it expires: the time that is left is sent."""

    @property
    def size(self) -> int:
        """Bytes of the packet."""
        return len(self.head) + len(self.tail) + 2 * bool(self.qos)


class LeftOut(NamedTuple):
    """A message that does not go out although a table is for it."""

    seq: int
    counter: Counter
    why: str


class Chunk(msgspec.Struct, frozen=True):
    """What one read of the journal came to."""

    connection: int
    items: Sequence[Item]
    position: int
    """Every message up to this one was looked at."""
    left_out: Sequence[LeftOut] = ()
    missed: int = 0
    """Numbers of the journal that retention deleted before they were read."""


class Place(msgspec.Struct, frozen=True):
    """Where a connection begins, and what its broker takes."""

    connection: int
    """Its number; 0 while there is none."""
    after_seq: int
    limits: ConnAck | None = None


class OutgoingReader:
    """The thread. ``place``, ``took``, ``advance`` and ``stop`` are for the loop's thread.

    Args of the constructor:
        name: the bridge's.
        publish: its tables, in order; the first one that matches a message counts.
        version: 4 or 5.
        max_packet_size: of the configuration, in bytes.
        installation: the id that marks what went out here.
        journal: where the messages are.
        cursor: every message up to this one is done with, durably.
        hand_over: called in this thread with each chunk.
    """

    def __init__(
        self,
        *,
        name: str,
        publish: Sequence[BridgePublishConfig],
        version: int,
        max_packet_size: int,
        installation: str,
        journal: Journal,
        cursor: int,
        hand_over: Callable[[Chunk], None],
    ) -> None:
        self._name = name
        self._publish = tuple(publish)
        self._version = version
        self._max_packet_size = max_packet_size
        self._installation = installation
        self._journal = journal
        self._hand_over = hand_over
        self._mapping = TopicMapping(
            [Rule(each.topic, each.remove_prefix, each.remote_prefix) for each in publish]
        )
        self._concern: Matcher[int] = Matcher()
        """For the journal's thread, which has to have one of its own."""
        for each in publish:
            self._concern.add(each.topic, 0)
        self._place = self._current = Place(0, cursor)
        self._advanced = cursor
        self._follower = self._follow(cursor)
        self._ready_lock = threading.Lock()
        self._ready_messages = self._ready_bytes = 0
        self._left_out: list[LeftOut] = []
        self._wakeup = Wakeup()
        self._stopped = False
        self._remembered_properties = lru_cache(maxsize=1024)(self._encode_properties)
        self._thread = threading.Thread(target=self._run, name=f"bridge-{name}", daemon=True)

    def _follow(self, after_seq: int) -> Follower:
        return self._journal.follower(f"bridge {self._name}", after_seq, interest=self._concerns)

    def _concerns(self, topic: str) -> bool:
        return bool(self._concern.match(topic))

    # --- the loop's thread -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin; nothing is read before ``place`` says where from."""
        self._thread.start()

    def place(self, place: Place) -> None:
        """Read for another connection from now on, or for none."""
        with self._ready_lock:
            self._place = place
            self._ready_messages = self._ready_bytes = 0
        self._nudge()

    def took(self, connection: int, messages: int, size: int) -> None:
        """So much of what was handed over has been sent or left out."""
        with self._ready_lock:
            if connection != self._place.connection:
                return
            was_full = self._is_full()
            self._ready_messages -= messages
            self._ready_bytes -= size
            wakes = was_full and not self._is_full()
        if wakes:
            self._wakeup.wake()

    def advance(self, seq: int) -> None:
        """Everything up to ``seq`` is done with, durably."""
        self._advanced = seq
        self._follower.advance(seq)

    @property
    def lag(self) -> int:
        """Numbers of the journal that are not looked at yet."""
        position = self._follower.position if self._current.connection else self._place.after_seq
        return max(0, self._follower.last_seq - position)

    def hurry(self) -> None:
        """Look at once at what is in the journal, also where nothing of interest is in it."""
        self._nudge()

    def stop(self) -> None:
        """Read no more; the thread ends soon."""
        self._stopped = True
        self._nudge()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end, and give its place in the journal up."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._follower.close()

    def _nudge(self) -> None:
        self._wakeup.wake()
        self._follower.wake()

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._step()
            except UnavailableError:
                return  # the journal is closed
            except sqlite3.Error as error:
                _log.error("bridge %s: the journal can't be read (%s)", self._name, error)
                self._wakeup.wait(_WAIT_S, lambda: self._stopped)
            except Exception:  # noqa: BLE001 - a defect; the messages are read again
                _log.exception("bridge %s: %s", self._name, _DEFECT)
                self._wakeup.wait(_WAIT_S, lambda: self._stopped)

    def _is_full(self) -> bool:
        return self._ready_messages >= _READY_MESSAGES or self._ready_bytes >= _READY_BYTES

    def _may_read(self) -> bool:
        return self._stopped or (bool(self._place.connection) and not self._is_full())

    def _step(self) -> None:
        if not self._may_read():
            self._wakeup.wait(60.0, self._may_read)
            return
        place = self._place
        if place.connection != self._current.connection:
            self._go_to(place)
        follower = self._follower
        if not follower.wait(_WAIT_S):
            return
        missed = follower.missed
        messages = follower.next(_MESSAGES_AT_ONCE, _BYTES_AT_ONCE)
        items = [item for message in messages if (item := self._item(message, place)) is not None]
        left_out, self._left_out = self._left_out, []
        chunk = Chunk(
            place.connection, items, follower.position, left_out, follower.missed - missed
        )
        with self._ready_lock:
            if place.connection != self._place.connection:
                return
            self._ready_messages += len(items)
            self._ready_bytes += sum(item.size for item in items)
        self._hand_over(chunk)

    def _go_to(self, place: Place) -> None:
        if place.after_seq != self._follower.position:
            # The new one first: between the two, retention would know of neither.
            before, self._follower = self._follower, self._follow(place.after_seq)
            self._follower.advanced = self._advanced
            before.close()
        self._current = place
        self._left_out = []

    def _item(self, message: Message, place: Place) -> Item | None:
        """The message as it goes out; ``None`` if it does not."""
        found = self._mapping.find(message.topic)
        if found is None:
            return None
        bridge = bridge_of(message.client_id)
        if bridge == self._name or (bridge and message.dup):
            return None  # it came from there, or its original stands before it and went out
        if self._version != 5 and is_replayed(message):
            self._leave_out(
                message,
                Counter.BRIDGE_REPLAYS_LEFT_OUT,
                "it is a replay, and MQTT 3.1.1 can't say so",
            )
            return None
        if found.problem:
            self._leave_out(message, Counter.BRIDGE_PUBLISHES_UNUSABLE, found.problem)
            return None
        try:
            item = self._encode(message, found, place)
        except Exception:  # noqa: BLE001 - a defect must not hold up all messages behind it
            _log.exception("bridge %s: %s", self._name, _DEFECT)
            self._leave_out(message, Counter.BRIDGE_PUBLISHES_UNUSABLE, _DEFECT)
            return None
        largest = self._max_packet_size
        if place.limits is not None and place.limits.maximum_packet_size is not None:
            largest = min(largest, place.limits.maximum_packet_size)
        if item.size > largest:
            self._leave_out(
                message,
                Counter.BRIDGE_PUBLISHES_TOO_LARGE,
                f"its packet of {item.size} bytes is larger than {largest}",
            )
            return None
        return item

    def _leave_out(self, message: Message, counter: Counter, why: str) -> None:
        self._left_out.append(LeftOut(message.seq, counter, why))

    def _encode(self, message: Message, found: Mapped, place: Place) -> Item:
        rule = self._publish[found.number]
        limits = place.limits
        qos = min(message.qos, rule.qos, limits.maximum_qos if limits else 1)
        retain = message.retain and rule.retained and (limits is None or limits.retain_available)
        listed, expiring = b"", None
        if self._version == 5:
            listed = self._listed(message)
        if message.properties is not None and message.properties.may_expire:
            expiring = (message, message.properties.decoded())
        topic = string(found.topic.encode())
        tail = listed + message.payload
        first = PUBLISH << 4 | qos << 1 | retain
        size = len(topic) + len(tail) + 2 * bool(qos)
        head = bytes((first,)) + encode_length(size) + topic
        return Item(message.seq, found.topic, qos, head, tail, expiring)

    def _listed(self, message: Message) -> bytes:
        properties, client_id = message.properties, message.client_id
        if len(properties or b"") + len(client_id) > _LONGEST_REMEMBERED:
            return self._encode_properties(properties, client_id)
        return self._remembered_properties(properties, client_id)

    def _encode_properties(self, properties: EncodedProperties | None, client_id: str) -> bytes:
        return self.list_properties(properties.decoded() if properties else None, client_id)

    def list_properties(self, properties: MessageProperties | None, client_id: str) -> bytes:
        """The property list of a message that goes out, with the marks; any thread."""
        return v5_encode.encode_publish_properties(
            marked(properties, installation=self._installation, client_id=client_id)
        )
