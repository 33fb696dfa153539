"""Publishes many messages to a broker: the next one leaves before the one before is acknowledged.

In order, over one connection. Nothing is sent twice: when the connection fails, what is not
acknowledged may have arrived, and the caller decides. Not for: one message (client.py), a
connection that is made again (bridge).
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections import deque

import msgspec

from appliance.errors import UsageError
from appliance.mqtt import client_packets, packets, reasons
from appliance.mqtt.client import Client, Target

_MOST_UNDER_WAY = 500
_PROBE_EVERY = 200
"""Messages of QoS 0 after which a ping asks whether they have arrived."""
_IDLE_S = 5.0
_ANSWERS_AT_A_TIME = 1000
_ANSWERS = (packets.PUBACK, packets.PUBREC, packets.PUBCOMP, packets.PINGRESP)


class _Entry(msgspec.Struct):
    """A message that was sent."""

    number: int
    qos: int
    topic: str
    is_done: bool = False
    """Whether the broker has taken or refused it."""


class Refusal(msgspec.Struct):
    """The messages that the broker refused."""

    count: int = 0
    number: int = 0
    """Of the first; and what it was."""
    topic: str = ""
    code: int = 0

    @property
    def text(self) -> str:
        """The broker's reason for the first."""
        return reasons.text(self.code)

    @property
    def is_for_want_of_a_right(self) -> bool:
        return self.code in reasons.NO_PERMISSION


class PublishStream(Client):
    """A connection that publishes. For one thread.

    Each message has a number of the caller's, ascending. ``done`` is the number up to which the
    broker has taken or refused all that were sent.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._limits = client_packets.ConnAck(reason=0)
        self._under_way: deque[_Entry] = deque()
        self._unanswered: dict[int, _Entry] = {}
        """Those of QoS 1 and 2, by packet identifier."""
        self._since_probe = 0
        self._probes: deque[int] = deque()
        """For each ping under way, the number of the last message before it."""
        self.done = 0
        self.sent = 0
        """Messages that were given to the connection, also the one at which it failed."""
        self.refused = Refusal()

    @property
    def has_properties(self) -> bool:
        """Whether the broker speaks MQTT 5, so that messages have properties."""
        return self._version == 5

    @property
    def largest_packet(self) -> int | None:
        """Bytes of the largest packet that the broker takes, if it says so."""
        return self._limits.maximum_packet_size

    @property
    def under_way(self) -> int:
        """Messages that are sent and not acknowledged."""
        return len(self._under_way)

    def _code(self, kind: int, data: bytes) -> int:
        code = super()._code(kind, data)
        if kind == packets.CONNACK and code < reasons.FAILURE:
            self._limits = client_packets.decode_connack(data, self._version)
        return code

    def put(
        self,
        number: int,
        topic: str,
        payload: bytes,
        properties: bytes,
        *,
        qos: int,
        retain: bool,
    ) -> None:
        """Send one message, as soon as not too many others are under way.

        Args:
            number: the caller's, larger than the one before.
            topic: where to.
            payload: what.
            properties: the property list with its length in front; left out at MQTT 3.1.1.
            qos: the highest that is wanted; the broker may take less.
            retain: the flag; left out if the broker keeps no retained messages.

        Raises:
            UnavailableError, NoPermissionError: the connection has ended.
            UsageError: the message is larger than MQTT or the broker allows; others can be sent.
        """
        qos = min(qos, self._limits.maximum_qos)
        most = min(_MOST_UNDER_WAY, self._limits.receive_maximum)
        head = packets.string(topic.encode())
        tail = (properties if self.has_properties else b"") + payload
        if self.largest_packet is not None and len(head) + len(tail) + 7 > self.largest_packet:
            raise UsageError(f"it is larger than the {self.largest_packet} bytes that it takes")
        self._begin("the message")
        while len(self._unanswered) >= most or len(self._under_way) >= _MOST_UNDER_WAY:
            self._wait_for_answer()
        entry = _Entry(number, qos, topic)
        self._under_way.append(entry)
        self.sent += 1
        if qos:
            packet_id = self._free_packet_id()
            head += struct.pack("!H", packet_id)
            self._unanswered[packet_id] = entry
        self._send_now(packets.PUBLISH << 4 | qos << 1 | (retain and self._keeps), head + tail)
        self._since_probe += qos == 0
        if self._since_probe >= _PROBE_EVERY:
            self._probe()
        if len(self._under_way) % 64 == 0:
            self._hear(0.0)

    @property
    def _idle_s(self) -> float:
        """After so long a ping is due: a broker may impose a keepalive (MQTT 5, 3.2.2.3.14)."""
        imposed = self._limits.server_keepalive_s
        return min(_IDLE_S, imposed / 2) if imposed else _IDLE_S

    @property
    def _keeps(self) -> bool:
        return self._limits.retain_available

    def wait(self, seconds: float) -> None:
        """Wait, take acknowledgements, keep the connection alive. Raises as ``put``."""
        end = time.monotonic() + seconds
        while True:
            idle_s = self._idle_s
            if time.monotonic() - self._sent_at >= idle_s:
                self._probe()
            self._hear(max(0.0, min(end - time.monotonic(), idle_s)))
            if time.monotonic() >= end:
                return

    def drain(self, within_s: float | None = None) -> None:
        """Wait until all that was sent is acknowledged, or for this long. Raises as ``put``."""
        end = None if within_s is None else time.monotonic() + within_s
        self._begin("the message")
        while self._under_way:
            if end is None:
                self._wait_for_answer()
                continue
            if not self._unanswered and not self._probes:
                self._probe()
            if time.monotonic() >= end:
                return
            self._hear(max(0.0, end - time.monotonic()))

    def _wait_for_answer(self) -> None:
        """Wait until a message is acknowledged. A broker that says other things only is none."""
        if not self._unanswered and not self._probes:
            self._probe()
        before = len(self._under_way), len(self._unanswered)
        end = time.monotonic() + self._target.timeout_s
        while (len(self._under_way), len(self._unanswered)) == before:
            self._hear(max(0.0, end - time.monotonic()))
            if time.monotonic() >= end:
                self._fail(TimeoutError())

    def _free_packet_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % 65535 + 1
            if self._packet_id not in self._unanswered:
                return self._packet_id

    def _probe(self) -> None:
        """Ask with a ping whether what was sent has arrived."""
        last = self._under_way[-1].number if self._under_way else self.done
        self._probes.append(last)
        self._since_probe = 0
        self._send_now(packets.PINGREQ << 4, b"")

    def _send_now(self, first: int, body: bytes) -> None:
        try:
            self._write(first, body)
        except OSError as error:
            # What the broker said before it closed says more.
            with contextlib.suppress(OSError, packets.PacketError):
                self._take_answers(0.0)
            self._fail(error)

    def _hear(self, seconds: float) -> None:
        """Take the answers that are there, or those that come first in this time."""
        try:
            self._take_answers(seconds)
        except (OSError, packets.PacketError) as error:
            self._fail(error)

    def _take_answers(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        for _ in range(_ANSWERS_AT_A_TIME):
            try:
                first, data = self._read(*_ANSWERS)
            except TimeoutError:
                return
            self._answer(first >> 4, data)
            self._deadline = 0.0  # and what else is there already

    def _answer(self, kind: int, data: bytes) -> None:
        if kind != packets.PINGRESP:
            self._acknowledged(kind, data)
        elif self._probes:
            last = self._probes.popleft()
            for entry in self._under_way:
                if entry.number > last:
                    break
                entry.is_done = entry.is_done or not entry.qos
        while self._under_way and self._under_way[0].is_done:
            self.done = self._under_way.popleft().number

    def _acknowledged(self, kind: int, data: bytes) -> None:
        body = packets.Body(data)
        packet_id = body.number()
        entry = self._unanswered.get(packet_id)
        if entry is None or (kind == packets.PUBACK) != (entry.qos == 1):
            raise packets.PacketError("an acknowledgement of nothing that was sent")
        code = body.byte() if body.left and self._version == 5 else 0
        if code >= reasons.FAILURE:
            self._note_refusal(entry, code)
        elif kind == packets.PUBREC:
            self._send_now(packets.PUBREL << 4 | 2, struct.pack("!H", packet_id))
            return
        del self._unanswered[packet_id]
        entry.is_done = True

    def _note_refusal(self, entry: _Entry, code: int) -> None:
        refused = self.refused
        if not refused.count:
            refused.number, refused.topic, refused.code = entry.number, entry.topic, code
        refused.count += 1
