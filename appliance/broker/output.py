"""What goes out to one client: bytes gathered per step of the loop, and messages as PUBLISH.

The client's acknowledgements of these messages come back here.

Not for: which messages go out and in which order (outbox.py), reading (connection.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from appliance.broker.context import BrokerContext
from appliance.broker.outbox import Delivery, Outbox
from appliance.counters import Counter
from appliance.model import Message
from appliance.mqtt import decode, packets
from appliance.mqtt import v5_encode as v5
from appliance.mqtt.packets import PacketError, Reason

if TYPE_CHECKING:
    from appliance.broker.plugin_gate import TopicGate


class Output:
    """The sending side of one connection (an ``outbox.Sink``)."""

    __slots__ = (
        "_context",
        "_flush_scheduled",
        "_loop",
        "_most_bytes",
        "_out",
        "_out_bytes",
        "_transport",
        "fail",
        "gate",
        "is_closed",
        "is_paused",
        "largest",
        "outbox",
        "version",
        "window",
    )

    def __init__(self, context: BrokerContext, fail: Callable[[Exception], None]) -> None:
        """``fail`` is called with an exception that must end this connection and nothing else."""
        self._context = context
        self.fail = fail
        self._loop = context.loop
        limits = context.limits()
        self._most_bytes = int(limits.max_client_backlog)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._flush_scheduled = False
        self.is_closed = False
        self.is_paused = False
        """The operating system takes no more for this client now."""
        self.outbox: Outbox | None = None
        """Asked for more whenever there is room again."""
        self.gate: TopicGate | None = None
        self.version = 4
        self.window = limits.max_inflight_per_client
        self.largest: int | None = None
        """The largest packet that the client takes, in bytes (MQTT 5, section 3.1.2.11.4)."""

    def open(self, transport: asyncio.Transport) -> None:
        """There is a socket to write to."""
        self._transport = transport
        transport.set_write_buffer_limits(high=self._most_bytes, low=self._most_bytes // 4)

    @property
    def stalled(self) -> bool:
        """Whether the client reads too slowly for more to be sent now."""
        return self.is_paused or self._out_bytes > self._most_bytes

    def queue(self, data: bytes) -> None:
        """Send bytes together with all others of this step of the loop."""
        if self.is_closed:
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001 - any error ends the connection
            self.fail(error)

    def flush(self) -> None:
        """Hand what is queued to the operating system."""
        self._flush_scheduled = False
        if self._out and self._transport is not None and not self._transport.is_closing():
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._transport.write(data)
            if self.outbox is not None and not self.is_paused:
                self.outbox.pump()

    def go_on_soon(self) -> None:
        """Let the outbox send more in a later step of the loop."""
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        try:
            if self.outbox is not None:
                self.outbox.go_on()
        except Exception as error:  # noqa: BLE001 - any error ends the connection
            self.fail(error)

    def send_publish(self, delivery: Delivery, packet_id: int, *, duplicate: bool) -> bool:
        """Put a PUBLISH on the wire; ``False`` if it is not to be sent (too large, expired).

        A message that can't be encoded is not sent either, and ends the connection: a session
        that kept it would fail again on every connection to come.
        """
        message = delivery.message
        expiry = None
        try:
            properties = None
            encoded = message.properties
            if encoded is not None and (self.version == 5 or encoded.may_expire):
                properties = encoded.decoded()
            if properties is not None and properties.message_expiry_s is not None:
                expiry = self._remaining(message, properties.message_expiry_s)
                if expiry <= 0 and not delivery.sent:  # before a restart, it may not have been
                    self._context.count(Counter.DELIVERIES_DROPPED_EXPIRED)
                    return False
                expiry = max(0, expiry)  # what was sent before does not expire [MQTT5-4.3.3-7]
            if self.version < 5:
                packet = packets.encode_publish(
                    message.topic.encode(),
                    message.payload,
                    delivery.qos,
                    retain=delivery.retain,
                    duplicate=duplicate,
                    packet_id=packet_id,
                )
            else:
                packet = v5.encode_publish(
                    message,
                    properties,
                    delivery.qos,
                    retain=delivery.retain,
                    duplicate=duplicate,
                    packet_id=packet_id,
                    expiry_s=expiry,
                    identifiers=delivery.identifiers,
                )
                if self.largest is not None and len(packet) > self.largest:
                    self._context.count(Counter.DELIVERIES_DROPPED_TOO_LARGE)
                    return False
        except Exception as error:  # noqa: BLE001 - any error ends this connection alone
            self._context.count(Counter.DELIVERIES_DROPPED_INTERNAL_ERROR)
            self.fail(error)
            return False
        self.queue(packet)
        return True

    def _remaining(self, message: Message, expiry_s: int) -> int:
        """Seconds until a message expires (MQTT 5, section 3.3.2.3.3)."""
        waited = self._context.door.waited_ns(message) // 1_000_000_000
        return expiry_s - max(0, waited)

    def send_release(self, packet_id: int) -> None:
        """Put a PUBREL on the wire."""
        self.queue(b"\x62\x02" + packet_id.to_bytes(2, "big"))

    # --- what the client acknowledges (each raises PacketError where it breaks the protocol) ----

    def _acknowledged(self, body: bytes, *, is_of_release: bool = False) -> tuple[int, int]:
        return decode.acknowledgement(body, self.version, is_of_release=is_of_release)

    def take_puback(self, body: bytes) -> None:
        """The client has a QoS 1 message."""
        packet_id, _ = decode.acknowledgement(body, self.version, is_of_release=False)
        if self.outbox is not None and not self.outbox.acknowledged(packet_id):
            self._check_unknown(packet_id, "PUBACK")

    def take_pubrec(self, body: bytes) -> None:
        """The client has a QoS 2 message, or refuses it."""
        packet_id, reason = self._acknowledged(body)
        refused = reason >= Reason.UNSPECIFIED
        if self.outbox is None:
            return
        if not self.outbox.received(packet_id, refused=refused):
            self._check_unknown(packet_id, "PUBREC")
            if not refused:
                self.send_release(packet_id)

    def take_pubcomp(self, body: bytes) -> None:
        """The client has released a QoS 2 message."""
        packet_id, _ = self._acknowledged(body, is_of_release=True)
        if self.outbox is not None and not self.outbox.completed(packet_id):
            self._check_unknown(packet_id, "PUBCOMP")

    def _check_unknown(self, packet_id: int, name: str) -> None:
        """See to it that what the outbox did not take belongs to no delivery that is under way.

        Raises:
            PacketError: the delivery's QoS or its state wants another acknowledgement.
        """
        if self.outbox is not None and self.outbox.is_with_client(packet_id):
            raise PacketError(
                f"{name} for packet id {packet_id}, whose delivery does not expect it"
                " [MQTT-4.3.2, 4.3.3]",
                Reason.PROTOCOL_ERROR,
            )
