"""The one door: a message is checked, journaled, and only then acknowledged and handed on.

Everything that enters the appliance goes through here: what clients publish, wills, messages from
bridges, and what the appliance publishes about itself. Not for: decoding packets, access rules
(the connection checks those before it comes here).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Literal, Protocol

import msgspec

from appliance.broker.subscriptions import Retained, Subscriptions
from appliance.broker.work import Slice
from appliance.counters import Count, Counter
from appliance.journal.inbox import Statement
from appliance.journal.journal import Journal
from appliance.journal.message_cost import OVERHEAD_BYTES, content_of, costs_of
from appliance.model import EncodedProperties, Message, decode_hook, encode_hook
from appliance.storage.layout import Damage, Tables, check_bodies

logger = logging.getLogger(__name__)


def _verify_retained(connection: sqlite3.Connection) -> None:
    bodies = [body for (body,) in connection.execute("SELECT body FROM retained LIMIT 100")]
    # A damaged row is left out when it is read.
    with contextlib.suppress(Damage):
        check_bodies("retained", bodies, _decode)


def _decode(body: object) -> Message:
    if not isinstance(body, bytes):  # SQLite keeps a value of any type in any column
        raise TypeError(f"{body!r} instead of a retained message")
    try:
        return msgspec.msgpack.decode(body, type=Message, dec_hook=decode_hook)
    except ValueError as error:
        raise ValueError(f"a retained message: {error}") from error


RETAINED_TABLES = Tables(
    """
CREATE TABLE IF NOT EXISTS retained(topic TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
""",
    verify=_verify_retained,
)


class Publisher(Protocol):
    """A connection, as the door sees it."""

    def queue(self, data: bytes) -> None:
        """Send bytes soon (acknowledgements)."""

    def pause(self) -> None:
        """Stop reading from the client until ``resume``."""

    def resume(self) -> None:
        """Read again."""


Entry = tuple[Sequence[Message], object]
"""What the journal gives back once it is committed: messages and the door's token."""


_MESSAGES_AT_ONCE = 1000
_RETAINED_AT_ONCE = 250
"""Messages that are kept and shown in one go, and so many if there are retained ones: a thousand of
as many topics took 8 ms of the processor, and four times as long beside the journal's threads."""
_MOST_BEHIND = 4 * 1024 * 1024
"""Bytes that are committed and not handed on; beyond it, publishers are paused."""


_LITTLE = 4 * 1024
_LITTLE_TOGETHER = 256 * 1024
_READ_WHILE_HELD = 4
"""While publishers are held (``Door.hold``), one that costs no more than ``_LITTLE`` bytes between
two calls is not paused, unless all such publishers cost more together. Of those that are paused, so
many may send something after each call, in turn."""


class _Part:
    """Committed messages that are handed on together."""

    __slots__ = ("callbacks", "is_begun", "messages", "size", "steps")

    def __init__(
        self, messages: Sequence[Message], callbacks: Sequence[Callable[[], None]]
    ) -> None:
        self.messages = messages
        self.callbacks = callbacks
        """What waits until they are handed on."""
        self.size = 0
        """Bytes that they count while they wait."""
        self.is_begun = False
        self.steps: Iterator[None] | None = None
        """What is left to do with them; ``None`` before it is begun and without a subscription."""


class Door:
    """Lets messages in. Engine's loop only, but for ``committed``.

    ``max_pending`` bounds the bytes that were accepted and are not committed: beyond it every
    publisher is paused (back-pressure reaches them through TCP) until half of it is free again.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        subscriptions: Subscriptions,
        retained: Retained,
        loop: asyncio.AbstractEventLoop,
        clock_ns: Callable[[], int],
        max_pending: int,
        own_client_id: str,
        observe: Callable[[Sequence[Message]], None],
        count: Count,
    ) -> None:
        self._journal = journal
        self._subscriptions = subscriptions
        self._retained = retained
        self._to_keep: deque[Message] = deque()
        """Retained messages that are not fanned out yet. They are kept when they are fanned out:
        their rows may be in a later commit, and a subscriber between the two would get neither."""
        self._loop = loop
        self.clock_ns = clock_ns
        self._max_pending = max_pending
        self.is_held = False
        """Publishers that send much are paused, because the memory is short."""
        self._disk_hold: Literal[0, 1, 2] = 0
        """They are, because the disk is nearly full (1), or all are (2)."""
        self._is_slowing = False
        """One of both."""
        self._pause_above = max_pending
        self._own_client_id = own_client_id
        self._observe = observe
        self._count = count
        self._paused: dict[Publisher, None] = {}
        """In the order in which they were paused."""
        self._sent: dict[Publisher, int] = {}
        """What each publisher sent since the last call of ``hold``, in bytes."""
        self._sent_together = 0
        self.next_seq = journal.next_seq
        self.newest_seq = journal.newest_seq
        self.number_to = journal.number_to
        self._behind: deque[_Part] = deque()
        """What is committed and not yet handed on, because that takes longer than one slice."""
        self._behind_bytes = 0
        self.fanned_out_seq = 0
        """Every message up to this one has been handed to the clients that were subscribed."""
        self._steps: deque[tuple[int, int]] = deque(maxlen=100)
        """Steps of the clock: the newest message then, and how far it was set."""
        self.messages_in = 0
        self.bytes_in = 0
        self._handed_past_counters = 0

    @property
    def messages_out(self) -> int:
        """Messages that were handed to a client, in all."""
        return self._subscriptions.deliveries - self._handed_past_counters

    @property
    def matched_seq(self) -> int:
        """A subscription that is made now gets the messages behind this one as new ones."""
        return max(self.fanned_out_seq, self._subscriptions.matched_seq)

    def bound(self, max_pending: int) -> None:
        """Let another bound count for what is accepted and not committed."""
        self._max_pending = max_pending
        self.hold(self.is_held)

    def hold(self, is_held: bool) -> None:
        """Pause every publisher that sends much from now on, or no longer.

        While it is called four times a second, publishers that send little go on, and the others
        send a part now and then: none of them waits for ever.
        """
        self.is_held = is_held
        self._hold()

    def hold_for_disk(self, level: Literal[0, 1, 2]) -> None:
        """The same because the disk is nearly full (1); 2: pause every publisher; 0: no longer.

        Called as often as ``hold``.
        """
        self._disk_hold = level
        self._hold()

    def _hold(self) -> None:
        self._is_slowing = self.is_held or self._disk_hold > 0
        self._pause_above = -1 if self._is_slowing else self._max_pending
        self._sent.clear()
        self._sent_together = 0
        if not self._is_slowing:
            self._release()
            return
        if self._disk_hold == 2:
            return
        for publisher in list(islice(self._paused, _READ_WHILE_HELD)):
            del self._paused[publisher]
            publisher.resume()

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: messages that are here are as old as before."""
        self._steps.append((self.newest_seq(), step_ns))

    def waited_ns(self, message: Message) -> int:
        """How long a message has been here."""
        moved = sum(step for newest, step in self._steps if message.seq <= newest)
        return self.clock_ns() - message.received_ns - moved

    def load_retained(self) -> None:
        """Take the retained messages over from the last run. Reads the database: at start only.

        One that can't be decoded is left out, and said.
        """
        for topic, body in self._journal.query("SELECT topic, body FROM retained"):
            try:
                self._retained.keep(_decode(body))
            except (ValueError, TypeError) as error:
                self._journal.unreadable(f"The retained message on {topic!r}", error, (body,))

    def enter(
        self,
        messages: Sequence[Message],
        payload_size: int,
        publisher: Publisher,
        acks: bytes,
        retained: Sequence[Message],
        *,
        beside: int,
    ) -> None:
        """Take what one client sent in one go; ``acks`` leave when all of it is committed.

        Args:
            messages: permitted, valid, and numbered by ``next_seq`` in this order.
            payload_size: bytes of their payloads.
            publisher: the connection that gets the acknowledgements.
            acks: their bytes; maybe none.
            retained: those of ``messages`` that have the retain flag.
            beside: bytes of their topics and properties (``message_cost.beside_payload``).
        """
        token = (publisher, acks) if acks else None
        if messages:
            self._journal.extend(messages, payload_size + beside, None if retained else token)
            self.messages_in += len(messages)
            self.bytes_in += payload_size
            for message in retained:
                self._keep(message)
        if token is not None and (retained or not messages):
            self._journal.transact((), token)
        self._pause_if_behind(publisher, payload_size + beside + OVERHEAD_BYTES * len(messages))

    def enter_as_one(
        self,
        messages: Sequence[Message],
        statements: Sequence[Statement],
        publisher: Publisher,
        then: Callable[[], None],
    ) -> None:
        """Take messages that are kept all or none, together with rows of the broker's own tables.

        Args:
            messages: permitted, valid, and numbered by ``next_seq`` in this order.
            statements: what stands in the same commit.
            publisher: what is paused if it sends too much.
            then: called on the loop once all of it is on disk.
        """
        size = sum([content_of(message) for message in messages])
        rows = [*statements]
        rows += [row for each in messages if each.retain and (row := self._kept(each)) is not None]
        if rows:
            self._journal.extend_with(messages, rows, size, then)
        else:
            self._journal.extend(messages, size, then)
        self.messages_in += len(messages)
        self.bytes_in += sum([len(message.payload) for message in messages])
        self._pause_if_behind(publisher, size + OVERHEAD_BYTES * len(messages))

    @property
    def is_disk_full(self) -> bool:
        """Whether nothing is taken because the disk is nearly full."""
        return self._disk_hold == 2

    def _pause_if_behind(self, publisher: Publisher, size: int) -> None:
        """Pause a publisher that has sent ``size`` bytes if there is no room for more."""
        if self._journal.pending_bytes > self._pause_above or self._behind_bytes > _MOST_BEHIND:
            if not self._is_slowing:
                self._count(Counter.PUBLISHERS_SLOWED)
            elif self._disk_hold < 2 and self._sends_little(publisher, size):
                return
            self._paused[publisher] = None
            publisher.pause()

    def _sends_little(self, publisher: Publisher, size: int) -> bool:
        """Whether a publisher goes on although publishers are held; ``size``: what it sent now."""
        sent = self._sent[publisher] = self._sent.get(publisher, 0) + size
        self._sent_together += size
        return (
            sent <= _LITTLE
            and self._sent_together <= _LITTLE_TOGETHER
            and self._journal.pending_bytes <= self._max_pending
            and self._behind_bytes <= _MOST_BEHIND
        )

    def _keep(self, message: Message) -> None:
        statement = self._kept(message)
        if statement is not None:
            self._journal.transact((statement,), None)

    def _kept(self, message: Message) -> Statement | None:
        """Retain a message, or remove what its topic retains; returns the row of that."""
        if not self._retained.make_room(message):
            self._count(Counter.RETAINED_MESSAGES_REFUSED)
            if not self._retained.expects(message.topic):
                return None
            # What was retained is not the last any more: better none than an old one.
            message = msgspec.structs.replace(message, payload=b"")
            self._retained.make_room(message)
        statement: Statement
        if message.payload:
            statement = (
                "INSERT OR REPLACE INTO retained VALUES (?, ?)",
                (message.topic, msgspec.msgpack.encode(message, enc_hook=encode_hook)),
            )
        else:
            statement = ("DELETE FROM retained WHERE topic = ?", (message.topic,))
        self._to_keep.append(message)
        return statement

    def record(
        self, statements: Sequence[Statement], then: Callable[[], None] | None = None
    ) -> None:
        """Put rows of the broker's own tables into the next commit, behind what entered before.

        ``then`` is called on the loop once they are on disk, with everything before them.
        """
        self._journal.transact(statements, then)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: EncodedProperties | None = None,
        client_id: str = "",
        username: str | None = None,
        address: str = "",
        announce: Callable[[int], None] | None = None,
    ) -> int:
        """Publish on behalf of the appliance or of a client that is gone (its will).

        ``announce`` is called with the sequence number before the message enters: what it records
        is committed before the message or with it. Returns the sequence number.
        """
        message = Message(
            seq=self.next_seq(),
            received_ns=self.clock_ns(),
            topic=topic,
            payload=payload,
            qos=qos,
            retain=retain,
            client_id=client_id or self._own_client_id,
            username=username,
            address=address,
            properties=properties,
        )
        if announce is not None:
            announce(message.seq)
        self._journal.append(message, None)
        self.messages_in += 1
        self.bytes_in += len(payload)
        if retain:
            self._keep(message)
        return message.seq

    async def publish_settled(self, topic: str, payload: bytes, sender: Message) -> None:
        """``publish`` in the name of another message's sender; returns when it is kept."""
        self.publish(
            topic,
            payload,
            client_id=sender.client_id,
            username=sender.username,
            address=sender.address,
        )
        await self.settled()

    def hand(self, topic: str, payload: bytes) -> int:
        """Send a payload to the subscribers at QoS 0, past the journal and the counters.

        For news that is of no worth a moment later. Returns how many clients it was handed to.
        """
        message = Message(
            seq=0,
            received_ns=self.clock_ns(),
            topic=topic,
            payload=payload,
            client_id=self._own_client_id,
        )
        handed = self._subscriptions.fan_out((message,))
        self._handed_past_counters += handed
        return handed

    def committed(self, messages: Sequence[Message], entries: Sequence[Entry]) -> None:
        """The journal's writer thread says what is on disk now."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, messages, entries)

    def _settle(self, messages: Sequence[Message], entries: Sequence[Entry]) -> None:
        callbacks: list[Callable[[], None]] = []
        for _, token in entries:
            if token is None:
                continue
            if isinstance(token, tuple):
                token[0].queue(token[1])
            elif callable(token):
                callbacks.append(token)
        if self._behind or len(messages) > self._at_once():
            self._hand_on_later(messages, callbacks)
            return
        steps = self._begin(messages)
        if steps is None or self._is_handed_on(steps):
            self._finish(messages, callbacks)
        else:
            part = _Part(messages, callbacks)
            part.is_begun, part.steps = True, steps
            self._behind.append(part)
            self._go_on()

    def _at_once(self) -> int:
        return _RETAINED_AT_ONCE if self._to_keep else _MESSAGES_AT_ONCE

    def _is_handed_on(self, steps: Iterator[None]) -> bool:
        """Take one step; returns whether that was all.

        Most commits take one. To look at the time there would cost more than it is worth.
        """
        try:
            for _ in steps:
                return False
        except Exception:
            self._count(Counter.INTERNAL_ERRORS_AFTER_COMMIT)
            logger.exception("messages could not be handed on")
        return True

    def _hand_on_later(
        self, messages: Sequence[Message], callbacks: Sequence[Callable[[], None]]
    ) -> None:
        """Hand messages on in parts, behind what is still to be handed on."""
        is_idle, at_once = not self._behind, self._at_once()
        for begin in range(0, len(messages), at_once):
            part = _Part(messages[begin : begin + at_once], ())
            if not is_idle:
                part.size = sum(costs_of(part.messages))
                self._behind_bytes += part.size
            self._behind.append(part)
        self._behind.append(_Part((), callbacks))
        if is_idle:
            self._go_on()

    def _go_on(self) -> None:
        """Hand on what is committed, in its order, until the slice is over."""
        slice_ = Slice()
        while self._behind:
            part = self._behind[0]
            if not part.is_begun:
                part.is_begun, part.steps = True, self._begin(part.messages)
            try:
                for _ in part.steps or ():
                    if slice_.is_over:
                        self._loop.call_soon(self._go_on)
                        return
            except Exception:
                self._count(Counter.INTERNAL_ERRORS_AFTER_COMMIT)
                logger.exception("messages could not be handed on")
            self._behind.popleft()
            self._behind_bytes -= part.size
            self._finish(part.messages, part.callbacks)
            # Without a subscription there are no steps in which to look at the time.
            if self._behind and slice_.is_over:
                self._loop.call_soon(self._go_on)
                return

    def _begin(self, messages: Sequence[Message]) -> Iterator[None] | None:
        """Keep and show messages; returns the steps of handing them on, if there are any."""
        if not messages:
            return None
        while self._to_keep and self._to_keep[0].seq <= messages[-1].seq:
            self._retained.keep(self._to_keep.popleft())
        try:
            self._observe(messages)
        except Exception:
            self._count(Counter.INTERNAL_ERRORS_AFTER_COMMIT)
            logger.exception("messages could not be shown")
        if not len(self._subscriptions):
            return None
        return self._subscriptions.fan_out_in_steps(messages)

    def _finish(self, messages: Sequence[Message], callbacks: Sequence[Callable[[], None]]) -> None:
        if messages:
            self.fanned_out_seq = messages[-1].seq
        for callback in callbacks:
            try:
                callback()
            except Exception:
                self._count(Counter.INTERNAL_ERRORS_AFTER_COMMIT)
                logger.exception("what waited for a commit failed")
        if self._paused:
            self._release()

    def _release(self) -> None:
        """Let the publishers go on if there is room again."""
        has_room = (
            self._journal.pending_bytes * 2 < self._pause_above
            and self._behind_bytes * 2 < _MOST_BEHIND
        )
        if not has_room:
            return
        paused, self._paused = self._paused, {}
        for publisher in paused:
            publisher.resume()

    def forget(self, publisher: Publisher) -> None:
        """A connection has ended."""
        self._paused.pop(publisher, None)
        self._sent.pop(publisher, None)

    async def settled(self) -> None:
        """Wait until everything that has entered so far is committed and acknowledged."""
        settled = asyncio.Event()
        self._journal.transact((), settled.set)
        await settled.wait()
