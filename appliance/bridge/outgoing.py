"""What goes out by a bridge: a window of packets on the engine's loop, a durable place behind it.

A thread reads the journal (outgoing_reader.py). Here its packets are sent as fast as the other
broker and the configuration allow, and acknowledgements move the place that the next start goes on
from. Not for: the connection (connection.py), which topics match (mqtt/topic_mapping.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from appliance.bridge.outgoing_reader import Chunk, Item, OutgoingReader, Place
from appliance.bridge.rate import Rate
from appliance.bridge.timers import Timers
from appliance.bridge.undelivered import Undelivered
from appliance.bridge.window import Window
from appliance.broker.sparse_log import SparseLog
from appliance.config.tables import BridgeConfig
from appliance.counters import Count
from appliance.journal.journal import Journal
from appliance.log.sanitize import escape
from appliance.model import Message
from appliance.mqtt import reasons
from appliance.mqtt.client_packets import ConnAck
from appliance.mqtt.packets import Reason

_log = logging.getLogger(__name__)
_MOST_UNDER_WAY = 100
"""Unacknowledged messages at most. AWS IoT Core takes 100; MQTT 5 brokers may name fewer."""
_BYTES_UNDER_WAY = 4 * 1024 * 1024
_MESSAGES_A_STEP = 200
_BYTES_A_STEP = 256 * 1024
_SAVE_EVERY_S = 0.25
_SAVE_EVERY = 500
"""Messages that went out after which the place is saved at once, if the save before is on disk: so
many more, at most, go out again after a kill."""
ANSWER_WITHIN_S = 60.0
"""A broker that has not acknowledged a message by then has dropped it, or hangs."""
_RIGHT_AFTER_S = 5.0
"""A connection that ends so soon after a refusal ends for it: so does mosquitto 2.0.11."""
_DUP = 0x08
_SHOWN = 200
"""Characters of a broker's words in the log."""
_PAUSES_S = (5.0, 10.0, 20.0, 40.0, 60.0)
"""How long nothing is sent after a message was refused because of a quota; then it is sent again,
and refused for good after the last of these."""


class Link(Protocol):
    """A connection to the other broker that is accepted."""

    def write(self, data: bytes) -> None:
        """Send bytes soon."""

    def lose(self, reason: str) -> None:
        """End the connection, because of this; it is built again."""


SaveCursor = Callable[[int, Callable[[], None]], None]
"""Puts the place into the next commit of the journal, and calls back once it is on disk."""


class Outgoing:
    """The way out of one bridge. Engine's loop only.

    ``connected`` and ``disconnected`` come in turn. ``pause_writing`` and ``resume_writing`` are
    asyncio's, from the connection.
    """

    def __init__(
        self,
        config: BridgeConfig,
        *,
        cursor: int | None,
        installation: str,
        journal: Journal,
        save_cursor: SaveCursor,
        waited_ns: Callable[[Message], int],
        clock_ns: Callable[[], int],
        count: Count,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin behind ``cursor``, or with what comes from now on if there is none yet.

        ``waited_ns`` tells how long a message has been here.
        """
        self._name = config.name
        self._publish = config.publish
        self._said: list[str] = []
        self._save_cursor = save_cursor
        self._waited_ns = waited_ns
        self.undelivered = Undelivered(config.name, count, clock_ns, clock)
        self._loop = loop
        self._clock = clock
        self._is_5 = config.version == "5"
        self._window = Window()
        self._rate = Rate(config.max_rate, clock)
        self._lines = SparseLog(_log, clock, about=f"bridge {config.name}")
        self._link: Link | None = None
        self._connection = 0
        self._most = _MOST_UNDER_WAY
        self._is_paused = False
        self._is_ignored = False
        """The connection is ended because one message was not acknowledged, and later ones were."""
        self._ready: deque[Item] = deque()
        place = journal.last_seq if cursor is None else min(cursor, journal.last_seq)
        self._ready_to = place
        self._under_way: dict[int, Item] = {}
        """What the window holds, by sequence number."""
        self._refusals: dict[int, int] = {}
        """How often each of these was refused because of a quota."""
        self._refused: tuple[str, float] | None = None
        """Topic and time of a refusal, if it was the last answer on this connection."""
        self.done_seq = place
        """Every message up to this one went out or is left out for good."""
        self._saving_seq = place
        self._is_saving = False
        self._unsaved = 0
        """Messages that went out since the place was saved last."""
        self._timers = Timers(loop)
        self._soon: asyncio.Handle | None = None
        self.messages_out = 0
        """Messages that the other broker acknowledged (at QoS 0: that were sent)."""
        self._reader = OutgoingReader(
            name=config.name,
            publish=config.publish,
            version=5 if self._is_5 else 4,
            max_packet_size=int(config.max_packet_size),
            installation=installation,
            journal=journal,
            cursor=place,
            hand_over=self._hand_over,
        )
        first_seq = journal.stats().first_seq
        if place + 1 < first_seq:
            self.undelivered.miss(first_seq - place - 1)
        if cursor is None:
            # A kill before the first message must not move the place.
            save_cursor(place, lambda: None)
        self._reader.start()

    @property
    def lag(self) -> int:
        """Numbers of the journal that are not looked at yet."""
        return self._reader.lag + len(self._ready)

    @property
    def under_way(self) -> int:
        """Messages that are sent and not acknowledged."""
        return len(self._window)

    # --- the connection --------------------------------------------------------------------------

    def connected(self, link: Link, limits: ConnAck) -> None:
        """Send by this connection from now on, what its broker takes."""
        self._link = link
        self._connection += 1
        self._refused = None
        self._say_limits(limits)
        self._is_paused = False
        self._most = min(_MOST_UNDER_WAY, limits.receive_maximum)
        self._window.connect(session_present=limits.session_present)
        self._ready.clear()
        self._ready_to = self.done_seq
        self._reader.place(Place(self._connection, self.done_seq, limits))

    def _say_limits(self, limits: ConnAck) -> None:
        """Say what the broker's limits take from the promise, once until they change."""
        said = []
        if limits.maximum_qos < 1 and any(each.qos for each in self._publish):
            said.append("takes only QoS 0: what is on its way when a connection fails is lost")
        if not limits.retain_available and any(each.retained for each in self._publish):
            said.append("keeps no retained messages: they go out without the flag")
        if said and said != self._said:
            _log.warning("bridge %s: the other broker %s", self._name, "; it ".join(said))
        self._said = said

    def disconnected(self, text: str = "", *, by_broker: bool = True) -> str:
        """The connection is gone; what is not acknowledged is sent again by the next one.

        Args:
            text: why, as far as the broker said; safe to show.
            by_broker: whether the broker ended it, and not the network or this side.

        Returns the topic of the message right after which the connection has ended more than once,
        or right after the refusal of which it has ended; empty if there is none.
        """
        self._link = None
        topic_refused = ""
        if by_broker and self._refused is not None:
            topic_refused, at = self._refused
            if self._clock() - at > _RIGHT_AFTER_S:
                topic_refused = ""
            # What is under way behind it is not what the connection ended for.
            by_broker = not topic_refused
        self._timers.cancel("rate", "quota", "answer")
        self._settle()
        is_ignored, self._is_ignored = self._is_ignored, False
        refused = self._window.disconnect(self._clock(), by_broker=by_broker, is_ignored=is_ignored)
        suspect = self._under_way.get(self._window.suspect_seq or 0)
        if refused is not None:
            why = "it ended the connection right after this message, three times"
            if is_ignored:
                why = "it never acknowledged this message, but later ones"
            topic = self._under_way[refused].topic
            self.undelivered.park(refused, topic, f"{why}: {text}" if text else why)
        self._ready.clear()
        self._under_way.clear()
        self._ready_to = self.done_seq
        self._reader.place(Place(0, self.done_seq))
        return topic_refused or (suspect.topic if suspect and by_broker else "")

    def acknowledged(self, packet_id: int, reason: int = 0, text: str = "") -> None:
        """A PUBACK came, with this reason code and maybe text of the broker."""
        if reason == Reason.QUOTA_EXCEEDED:
            self._try_again(packet_id)
            return
        seq = self._window.acknowledge(packet_id)
        if seq is None:
            return  # for what an earlier connection sent
        self._refusals.pop(seq, None)
        item = self._under_way.pop(seq)
        self._refused = None
        if reason >= reasons.FAILURE:
            self._refused = item.topic, self._clock()
            why = reasons.text(reason)
            said = f'{why}: "{escape(text[:_SHOWN])}"' if text else why
            self.undelivered.park(seq, item.topic, said)
        else:
            self._note_out()
        self._pump_soon()

    def _try_again(self, packet_id: int) -> None:
        """Send a message once more after a pause, unless that was done often enough."""
        seq = self._window.withdraw(packet_id)
        if seq is None:
            return
        item = self._under_way.pop(seq)
        tried = self._refusals.get(seq, 0)
        if tried == len(_PAUSES_S):
            self._window.give_up(seq)
            del self._refusals[seq]
            self.undelivered.park(seq, item.topic, reasons.text(Reason.QUOTA_EXCEEDED))
            self._pump_soon()
            return
        self._refusals[seq] = tried + 1
        at = bisect_left(self._ready, seq, key=lambda each: each.seq)
        self._ready.insert(at, item)
        self._reader.took(self._connection, -1, -item.size)
        if "quota" not in self._timers:
            self._lines.log(
                logging.WARNING,
                ": a quota of the other broker is used up; nothing is sent for %.0f s",
                _PAUSES_S[tried],
            )
            self._timers.start("quota", _PAUSES_S[tried], self._pump)

    def hurry(self) -> None:
        """Look at once at what is in the journal: the end is near."""
        self._reader.hurry()

    def pause_writing(self) -> None:
        """The connection has enough to send."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The connection takes more."""
        self._is_paused = False
        self._pump_soon()

    # --- sending ---------------------------------------------------------------------------------

    def _hand_over(self, chunk: Chunk) -> None:
        """In the reader's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, chunk)

    def _take(self, chunk: Chunk) -> None:
        if chunk.connection != self._connection or self._link is None:
            return
        if chunk.missed:
            self.undelivered.miss(chunk.missed)
        for seq, counter, why in chunk.left_out:
            self.undelivered.leave_out(seq, counter, why)
        self._ready += chunk.items
        self._ready_to = chunk.position
        self._pump()

    def _pump_soon(self) -> None:
        if self._soon is None:
            self._soon = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        link = self._link
        if link is None:
            return
        parts: list[bytes] = []
        taken = size = 0
        now = self._clock()
        while self._ready and not self._is_paused and "quota" not in self._timers:
            if taken >= _MESSAGES_A_STEP or size >= _BYTES_A_STEP:
                self._pump_soon()
                break
            item = self._ready[0]
            if not self._window.is_done(item.seq):
                if item.qos and not self._has_room(item):
                    break
                wait_s = self._rate.wait_s()
                if wait_s:
                    self._timers.start("rate", wait_s, self._pump)
                    break
                self._send(item, parts, now)
            self._ready.popleft()
            taken += 1
            size += item.size
        if parts:
            link.write(b"".join(parts))
        if taken:
            self._reader.took(self._connection, taken, size)
        if len(self._window) and "answer" not in self._timers:
            self._timers.start("answer", ANSWER_WITHIN_S, self._look_for_answer)
        self._settle()

    def _note_out(self) -> None:
        self.messages_out += 1
        self._unsaved += 1

    def _has_room(self, item: Item) -> bool:
        window = self._window
        if not len(window):
            return not window.is_full
        return (
            len(window) < (1 if window.is_careful else self._most)
            and window.bytes + item.size <= _BYTES_UNDER_WAY
            and not window.is_full
        )

    def _send(self, item: Item, parts: list[bytes], now: float) -> None:
        tail = item.tail
        if item.expiring is not None:
            message, properties = item.expiring
            assert properties.message_expiry_s is not None
            left_s = properties.message_expiry_s - self._waited_ns(message) // 1_000_000_000
            if left_s <= 0:
                self.undelivered.expire()
                return
            if self._is_5:
                kept = msgspec.structs.replace(properties, message_expiry_s=left_s)
                listed = self._reader.list_properties(kept, message.client_id)
                tail = listed + tail[len(listed) :]  # a number of four bytes, whatever it is
        if not item.qos:
            parts += (item.head, tail)
            self._note_out()
            return
        packet_id, repeated = self._window.send(item.seq, item.size, now)
        self._under_way[item.seq] = item
        head = item.head
        if repeated:
            head = bytes((head[0] | _DUP,)) + head[1:]
        parts += (head, packet_id.to_bytes(2, "big"), tail)

    def _look_for_answer(self) -> None:
        sent_at = self._window.oldest_sent_at()
        if sent_at is None or self._link is None:
            return
        left_s = sent_at + ANSWER_WITHIN_S - self._clock()
        if left_s > 0:
            self._timers.start("answer", left_s + 0.1, self._look_for_answer)
        else:
            self._is_ignored = self._window.is_oldest_passed
            self._link.lose(f"a message was not acknowledged within {ANSWER_WITHIN_S:.0f} s")

    # --- the durable place -----------------------------------------------------------------------

    def _settle(self) -> None:
        oldest = self._window.oldest_seq
        done = self._ready[0].seq - 1 if self._ready else self._ready_to
        if oldest is not None:
            done = min(done, oldest - 1)
        if done <= self.done_seq:
            return
        self.done_seq = done
        self._window.forget_to(done)
        if self._refusals:
            self._refusals = {seq: tried for seq, tried in self._refusals.items() if seq > done}
        if self._unsaved >= _SAVE_EVERY and not self._is_saving:
            self._save()
        elif "save" not in self._timers:
            self._timers.start("save", _SAVE_EVERY_S, self._save)

    def _save(self) -> None:
        self._timers.cancel("save")
        seq = self.done_seq
        if seq <= self._saving_seq:
            return
        self._saving_seq = seq
        self._unsaved = 0
        self._is_saving = True
        self._save_cursor(seq, partial(self._saved, seq))

    def _saved(self, seq: int) -> None:
        self._is_saving = False
        self._reader.advance(seq)

    async def stop(self) -> None:
        """Send no more, and save the place. The connection may be open or not."""
        self._settle()
        self._link = None
        self._timers.cancel_all()
        if self._soon is not None:
            self._soon.cancel()
        self._save()
        self._reader.stop()
        await asyncio.to_thread(self._reader.join, 10.0)
