"""What the broker sends by itself: packet ids, flags, properties, the first packet and the last."""

from __future__ import annotations

import mqtt5
import pytest
from broker_rig import both, number, packet, rig, states, text  # noqa: F401

from appliance.mqtt.packets import Reason
from appliance.mqtt.v5_encode import encode_refusal

CONNACK_REASONS = {
    0,
    *range(0x80, 0x8B),
    0x8C,
    0x90,
    0x95,
    0x97,
    0x99,
    0x9A,
    0x9B,
    0x9C,
    0x9D,
    0x9F,
}
"""Table 3-1 of MQTT 5."""
ONLY_LATER = {
    Reason.NO_SUBSCRIPTION_EXISTED,
    Reason.TOPIC_FILTER_INVALID,
    Reason.PACKET_ID_NOT_FOUND,
    Reason.RECEIVE_MAXIMUM_EXCEEDED,
    Reason.TOPIC_ALIAS_INVALID,
    Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
}
"""Reasons that no CONNECT can have."""


@both
@states(
    "MQTT-2.3.1-4",
    "MQTT-4.3.2-1",
    "MQTT-4.3.3-1",
    "MQTT5-2.2.1-4",
    "MQTT5-4.3.2-1",
    "MQTT5-4.3.3-1",
)
async def test_packet_ids_of_deliveries(rig, version):
    """A message under way to a client has a packet id of its own, which is not 0: that of its number
    in the journal, so that it is the same after a restart."""
    wire = await rig.wire(version)
    await wire.subscribe(("t", 2))
    for count in range(6):
        rig.door.publish("t", b"%d" % count, qos=1 + count % 2)
    before = [(await wire.message()).id for _ in range(6)]
    assert before == [1, 2, 3, 4, 5, 6]
    wire.ack(4, 3)
    await wire.ping()
    rig.door.number_to(65_533)
    for count in range(4):
        rig.door.publish("t", b"%d" % count, qos=1)
    assert [(await wire.message()).id for _ in range(4)] == [65_534, 65_535, 3, 7]


@both
@states(
    "MQTT-2.3.1-5",
    "MQTT-3.3.1-2",
    "MQTT-3.3.1-3",
    "MQTT-4.3.1-1",
    "MQTT5-2.2.1-2",
    "MQTT5-2.2.2-1",
    "MQTT5-3.1.2-26",
    "MQTT5-3.1.2-27",
    "MQTT5-3.3.1-2",
    "MQTT5-3.3.1-3",
    "MQTT5-3.3.2-11",
    "MQTT5-4.3.1-1",
    "MQTT5-4.3.2-2",
    "MQTT5-4.3.3-2",
)
@pytest.mark.parametrize("aliases", [0, 10])
async def test_bytes_of_a_delivery(rig, version, aliases):
    """A delivery has its whole topic, no alias, no packet id at QoS 0, no DUP although its publisher
    sent that, and an empty list of properties where there are none."""
    reader = await rig.wire(
        version, client_id="reader", **({"topic_alias_max": aliases} if version == 5 else {})
    )
    await reader.subscribe(("t", 2))
    writer = await rig.wire(version, client_id="writer")
    none = b"\0" if version == 5 else b""
    for qos in (0, 1, 2):
        writer.publish("t", b"x", qos, id=7, dup=qos > 0)
        identifier = number(qos + 1) if qos else b""  # of the journal
        expected = packet(0x30 | qos << 1, text("t"), identifier, none, b"x")
        assert (await reader.message()).raw == expected


@both
@states("MQTT5-1.5.5-1")
@pytest.mark.parametrize("size", [127, 128, 16_383, 16_384])
async def test_length_fields_are_as_short_as_can_be(rig, version, size):
    """The length of a packet from the broker has as few bytes as its value needs."""
    wire = await rig.wire(version)
    await wire.subscribe("t")
    rig.door.publish("t", bytes(size - 3 - (version == 5)), qos=0)
    message = await wire.message()
    assert len(message.body) == size
    assert len(message.raw) - size == (2 if size < 128 else 3 if size < 16_384 else 4)


@both
@states("MQTT-3.2.0-1", "MQTT5-3.2.0-1", "MQTT5-3.2.0-2", "MQTT5-3.2.2-1")
async def test_connack_is_the_first_packet(rig, version):
    """CONNACK comes before the messages that wait, once, with no reserved bit set."""
    reader = await rig.wire(version, client_id="reader", clean=False)
    await reader.subscribe(("t", 1))
    reader.abort()
    await rig.until(lambda: rig.broker.sessions.get("reader").connection is None)
    for count in range(3):
        rig.door.publish("t", b"%d" % count)
    await rig.settled()
    again = await rig.socket(version)
    again.send(again.connect_packet("reader", clean=False) + b"\xc0\0")
    kinds = []
    while kinds.count(3) < 3 or 13 not in kinds:
        answer = await again.receive()
        if not kinds:
            assert answer.body[:2] == b"\x01\0"
        kinds.append(answer.kind)
    assert kinds[0] == 2
    assert 2 not in kinds[1:]


@states("MQTT5-3.14.2-1", "MQTT5-3.14.2-2", "MQTT5-3.14.4-1", "MQTT5-3.14.4-2")
async def test_disconnect_is_the_last_packet(rig):
    """The broker's DISCONNECT has a reason, no session expiry, and nothing behind it; then the
    connection is closed, although messages wait."""
    wire = await rig.wire(5, expiry=1000)
    await wire.subscribe("t")
    wire.send(wire.publish_packet("t", b"x") + b"\x30\x01\0" + wire.publish_packet("t", b"y"))
    assert (await wire.closed()).raw == b"\xe0\x02\x81\0"


@states(
    "MQTT5-3.1.2-28",
    "MQTT5-3.1.2-29",
    "MQTT5-3.2.2-19",
    "MQTT5-3.2.2-20",
    "MQTT5-3.4.2-2",
    "MQTT5-3.4.2-3",
    "MQTT5-3.5.2-2",
    "MQTT5-3.5.2-3",
    "MQTT5-3.6.2-2",
    "MQTT5-3.6.2-3",
    "MQTT5-3.7.2-2",
    "MQTT5-3.7.2-3",
    "MQTT5-3.9.2-1",
    "MQTT5-3.9.2-2",
    "MQTT5-3.11.2-1",
    "MQTT5-3.11.2-2",
    "MQTT5-3.14.2-3",
    "MQTT5-3.14.2-4",
)
async def test_answers_carry_no_text(rig):
    """No answer has a reason string, a user property or response information, so that none can be
    too large or unwanted."""
    wire = await rig.socket(5)
    properties = b"\x17\0\x19\0"  # no problem information, no response information
    wire.send(packet(0x10, text("MQTT"), b"\x05\x02\0\0\x04", properties, text("c")))
    accepted = await wire.expect(2)
    assert accepted.v5.reason_str is None
    assert accepted.v5.response_info is None
    assert accepted.v5.user_properties == []
    wire.publish("$no", b"x", 1, id=1)
    wire.publish("$no", b"x", 2, id=2)
    wire.publish("yes", b"x", 2, id=3)
    wire.ack(6, 3)
    wire.ack(6, 4)
    wire.send(wire.subscribe_packet("a", "/".join("x" * 300), id=5))
    wire.send(packet(0xA2, number(6), b"\0", text("a"), text("b")))
    wire.send(b"\xf0\0")
    answers = [
        b"\x40\x03\0\x01\x87",
        b"\x50\x03\0\x02\x87",
        b"\x50\x02\0\x03",
        b"\x70\x02\0\x03",
        b"\x70\x03\0\x04\x92",
        b"\x90\x05\0\x05\0\0\x8f",
        b"\xb0\x05\0\x06\0\0\x11",
        b"\xe0\x02\x82\0",
    ]
    assert [(await wire.receive()).raw for _ in answers] == answers
    refused = await rig.socket(5)
    refused.send(refused.connect_packet("$x"))
    assert (await refused.closed()).raw == b"\x20\x03\0\x85\0"
    subscriber = await rig.wire(5, client_id="s")
    await subscriber.subscribe(("t", 2))
    rig.door.publish("t", b"x", qos=2)
    packet_id = (await subscriber.message()).id
    subscriber.ack(5, packet_id)
    assert (await subscriber.expect(6)).raw == b"\x62\x02" + number(packet_id)


@states("MQTT5-3.2.2-8")
@pytest.mark.parametrize("reason", sorted(set(Reason) - ONLY_LATER))
def test_reasons_of_a_refusal(reason):
    """A CONNACK has a reason code that the standard lists for it."""
    assert encode_refusal(reason)[3] in CONNACK_REASONS


@states("MQTT5-3.1.3-10", "MQTT5-3.3.2-15", "MQTT5-3.3.2-16", "MQTT5-3.3.2-18", "MQTT5-3.3.2-20")
async def test_properties_of_a_will(rig):
    """A will arrives with its properties, the user properties in their order."""
    options = {
        "content_type": "application/json",
        "response_topic": "answer/here",
        "correlation_data": b"\0\xff",
        "user_properties": [("b", "1"), ("a", "2"), ("b", "")],
    }
    reader = await rig.wire(5, client_id="reader")
    await reader.subscribe(("w", 1))
    wire = await rig.socket(5)
    will = mqtt5.Will("w", payload=b"x", qos=mqtt5.QoS(1), **options)
    wire.send(mqtt5.ConnectPacket("c", clean_start=True, will=will).write())
    await wire.expect(2)
    wire.abort()
    found = (await reader.message()).v5
    assert {name: getattr(found, name) for name in options} == options
