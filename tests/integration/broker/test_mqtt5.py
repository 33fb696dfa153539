"""What MQTT 5 has beyond 3.1.1: properties, reason codes, expiry, aliases, shared subscriptions."""

from __future__ import annotations

import mqtt5
import pytest
from broker_rig import Rig, number, packet, rig, states, text  # noqa: F401

from appliance.counters import Counter


async def ends(wire, reason: int) -> None:
    last = await wire.closed()
    assert last is not None
    assert (last.kind, last.body[0]) == (14, reason)


def connect_with(properties: bytes, client_id: str = "c") -> bytes:
    body = text("MQTT") + b"\x05\x02\0\0" + bytes((len(properties),)) + properties
    return packet(0x10, body, text(client_id))


@states("MQTT5-1.5.7-1", "MQTT5-3.1.4-1", "MQTT5-4.13.1-1")
@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (b"\x21\0\0", 0x82),  # receive maximum 0
        (b"\x21\0\1\x21\0\1", 0x82),  # twice
        (b"\x27\0\0\0\0", 0x82),  # maximum packet size 0
        (b"\x17\2", 0x82),  # a flag that is neither 0 nor 1
        (b"\x01\0", 0x81),  # a property of PUBLISH
        (b"\x16\0\1x", 0x82),  # authentication data without a method
        (b"\x11\0", 0x81),  # too short
        (b"\x7e", 0x81),  # unknown
        (b"\x26\0\1a\0\1\xff", 0x81),  # a value that is not UTF-8
        (b"\x26\0\1\xff\0\1a", 0x81),  # a name that is not UTF-8
        (b"\x26\0\1\0\0\1a", 0x81),  # a name with a null character
    ],
)
async def test_connect_properties(rig, properties, reason):
    """A CONNECT with a property that can't be is refused with 0x81 or 0x82."""
    wire = await rig.socket(5)
    wire.send(connect_with(properties))
    assert (await wire.closed()).body == bytes((0, reason, 0))


@states("MQTT5-3.2.2-9", "MQTT5-3.2.2-13", "MQTT5-4.12.0-6")
async def test_connack_says_what_is_offered(rig):
    """CONNACK tells the largest packet and the topic aliases that the broker takes."""
    wire = await rig.socket(5)
    offered = (await wire.connect()).v5
    assert offered.max_packet_size == rig.limits.max_packet_size
    assert offered.topic_alias_max > 0
    assert offered.max_qos == mqtt5.QoS.EXACTLY_ONCE
    assert offered.authentication_method is None
    assert offered.shared_subscription_available
    assert offered.wildcard_subscription_available
    assert offered.retain_available


@states("MQTT5-4.12.0-1", "MQTT5-4.12.0-4", "MQTT5-4.12.1-2")
async def test_extended_authentication(rig):
    """An authentication method is refused with 0x8C; AUTH out of the blue ends the connection."""
    wire = await rig.socket(5)
    wire.send(connect_with(b"\x15\0\x05SCRAM"))
    assert (await wire.closed()).body[1] == 0x8C
    other = await rig.wire(5)
    other.send(b"\xf0\x02\x19\0")
    await ends(other, 0x82)


@states(
    "MQTT5-3.3.2-4",
    "MQTT5-3.3.2-15",
    "MQTT5-3.3.2-16",
    "MQTT5-3.3.2-17",
    "MQTT5-3.3.2-18",
    "MQTT5-3.3.2-20",
)
@pytest.mark.parametrize("path", ["live", "queued", "retained", "restarted"])
async def test_properties_reach_subscribers(tmp_path, path):
    """Content type, response topic, correlation data and user properties arrive unchanged."""
    options = {
        "content_type": "application/json",
        "response_topic": "answer/here",
        "correlation_data": b"\0\xff",
        "payload_format_indicator": 1,
        "user_properties": [("ü", ""), ("a", "2"), ("a", "1"), ("a", "2")],
    }
    async with Rig(tmp_path / "data") as rig:
        reader = await rig.wire(5, client_id="reader", clean=False)
        if path != "retained":
            await reader.subscribe(("t", 1))
        if path in ("queued", "restarted"):
            reader.disconnect()
            await reader.closed()
        writer = await rig.wire(5, client_id="writer")
        await writer.publish_acked("t", b"{}", 1, retain=path == "retained", **options)
        if path == "retained":
            await reader.subscribe(("t", 1))
        elif path == "queued":
            reader = await rig.wire(5, client_id="reader", clean=False)
        if path != "restarted":
            found = (await reader.message()).v5
    if path == "restarted":
        async with Rig(tmp_path / "data") as rig:
            reader = await rig.wire(5, client_id="reader", clean=False)
            found = (await reader.message()).v5
    assert {name: getattr(found, name) for name in options} == options


@states("MQTT-4.5.0-1", "MQTT5-4.5.0-1")
async def test_payload_is_not_interpreted(rig):
    """A 3.1.1 subscriber gets the payload of an MQTT 5 message, and the other way round."""
    old, new = await rig.wire(4, client_id="old"), await rig.wire(5, client_id="new")
    for wire in (old, new):
        await wire.subscribe("t")
    new.publish("t", b"\x00\x01", user_properties=[("a", "b")])
    assert [(await w.message()).payload for w in (old, new)] == [b"\x00\x01"] * 2
    old.publish("t", b"\x00\x02")
    assert [(await w.message()).payload for w in (old, new)] == [b"\x00\x02"] * 2


@states("MQTT5-3.3.2-5", "MQTT5-3.3.2-6")
@pytest.mark.parametrize("to", [4, 5])
async def test_message_expiry(rig, to):
    """A message that waited too long is not delivered; one that didn't has its rest of life."""
    reader = await rig.wire(to, client_id="reader", clean=False)
    await reader.subscribe(("t", 1))
    reader.disconnect()
    await reader.closed()
    writer = await rig.wire(5, client_id="writer")
    await writer.publish_acked("t", b"short", 1, message_expiry_interval=10)
    await writer.publish_acked("t", b"long", 1, message_expiry_interval=100)
    await writer.publish_acked("r", b"gone", 1, message_expiry_interval=10, retain=True)
    rig.now_offset_ns = 60 * 10**9
    again = await rig.wire(to, client_id="reader", clean=False)
    message = await again.message()
    assert message.payload == b"long"
    if to == 5:
        assert 30 <= message.v5.message_expiry_interval <= 40
    again.ack(4, message.id)
    await again.subscribe("r")
    await again.nothing_more()
    assert rig.counters[Counter.DELIVERIES_DROPPED_EXPIRED] == 2


@states("MQTT5-4.3.3-7", "MQTT5-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_was_sent_does_not_expire(rig, qos):
    """A message that its client has not acknowledged comes again, also when it has expired since."""
    reader = await rig.wire(5, client_id="reader", clean=False)
    await reader.subscribe(("t", qos))
    writer = await rig.wire(5, client_id="writer")
    await writer.publish_acked("t", b"x", qos, message_expiry_interval=10)
    first = await reader.message()
    reader.abort()
    rig.now_offset_ns = 60 * 10**9
    again = await rig.wire(5, client_id="reader", clean=False)
    second = await again.message()
    assert (second.id, second.payload, second.dup) == (first.id, b"x", True)
    assert second.v5.message_expiry_interval == 0
    assert rig.counters[Counter.DELIVERIES_DROPPED_EXPIRED] == 0


@states("MQTT5-4.3.3-13")
async def test_the_exchange_of_an_expired_message_goes_on(rig):
    """A PUBREL is answered when its message has expired."""
    writer = await rig.wire(5)
    writer.publish("t", b"x", 2, id=7, message_expiry_interval=1)
    assert (await writer.expect(5)).codes == [0]
    rig.now_offset_ns = 60 * 10**9
    writer.ack(6, 7)
    assert (await writer.expect(7)).codes == [0]


@states("MQTT5-4.3.3-9")
async def test_the_packet_id_of_a_refused_message_is_free(rig):
    """After a PUBREC with an error the same packet id is a new message's."""
    wire = await rig.wire(5)
    wire.publish("$other", b"refused", 2, id=7)
    assert (await wire.expect(5)).codes == [0x87]
    wire.publish("t", b"new", 2, id=7)
    assert (await wire.expect(5)).codes == [0]
    wire.ack(6, 7)
    assert (await wire.expect(7)).codes == [0]
    assert [m.payload for m in rig.journaled()] == [b"new"]


@states("MQTT5-3.3.2-7", "MQTT5-3.3.2-12")
async def test_topic_alias(rig):
    """A topic alias stands for its topic, may be given to another, and ends with the connection."""
    wire = await rig.wire(5)
    wire.publish("first", b"1", topic_alias=1)
    wire.publish("", b"2", topic_alias=1)
    wire.publish("second", b"3", topic_alias=1)
    wire.publish("", b"4", 1, topic_alias=1)
    await wire.expect(4)
    assert [m.topic for m in rig.journaled()] == ["first", "first", "second", "second"]
    again = await rig.wire(5)
    again.publish("", b"5", topic_alias=1)
    await ends(again, 0x82)


@states(
    "MQTT5-1.5.7-1",
    "MQTT5-3.3.2-8",
    "MQTT5-3.3.2-9",
    "MQTT5-3.3.2-13",
    "MQTT5-3.3.2-14",
    "MQTT5-3.3.2-19",
    "MQTT5-3.3.4-6",
)
@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (b"\x23\0\0", 0x94),  # alias 0
        (b"\x23\xff\xff", 0x94),  # alias beyond what was offered
        (b"\x0b\x01", 0x81),  # a subscription identifier
        (b"\x08\0\x01#", 0x90),  # a wildcard in the response topic
        (b"\x08\0\x01\xff", 0x81),  # a response topic that is not UTF-8
        (b"\x26\0\x01a\0\x01\xff", 0x81),  # a user property that is not UTF-8
        (b"\x26\0\x01\xff\0\x01a", 0x81),
        (b"\x01\x02", 0x81),  # payload format 2
        (b"\x01\x00\x01\x00", 0x82),  # twice
        (b"\x03\0\x01\xff", 0x81),  # not UTF-8
        (b"\x02\0\0", 0x81),  # too short
    ],
)
async def test_publish_properties(rig, properties, reason):
    """A PUBLISH with a property that can't be ends the connection with the right reason."""
    wire = await rig.wire(5)
    wire.send(packet(0x30, text("t"), bytes((len(properties),)), properties, b"x"))
    await ends(wire, reason)
    assert rig.journaled() == []


@states("MQTT5-3.1.2-25", "MQTT5-3.1.2-24")
async def test_maximum_packet_size_of_the_client(rig):
    """What is larger than the client takes is left out, and what follows is delivered."""
    limits = {"clean": False, "max_packet_size": 100, "receive_max": 1}
    reader = await rig.wire(5, client_id="reader", **limits)
    await reader.subscribe(("t", 2))
    writer = await rig.wire(5, client_id="writer")
    for qos in (1, 2):
        writer.publish("t", b"x" * 200, qos)
        writer.publish("t", b"y", qos)
        (message,) = await reader.messages(1)
        assert (message.qos, message.payload) == (qos, b"y")
    assert rig.counters[Counter.DELIVERIES_DROPPED_TOO_LARGE] == 2
    await reader.nothing_more()


@states(
    "MQTT5-3.3.4-9",
    "MQTT5-3.3.4-10",
    "MQTT5-4.9.0-1",
    "MQTT5-4.9.0-2",
    "MQTT5-4.9.0-3",
)
async def test_receive_maximum_of_the_client(rig):
    """Never more unacknowledged messages are sent than the client's receive maximum, and no other
    packet waits for them."""
    reader = await rig.wire(5, client_id="reader", receive_max=2)
    await reader.subscribe(("t", 2), ("zero", 0))
    writer = await rig.wire(5, client_id="writer")
    for count in range(5):
        await writer.publish_acked("t", b"%d" % count, 1 + count % 2)
    first = [await reader.message() for _ in range(2)]
    writer.publish("zero")
    assert (await reader.message()).topic == "zero"
    assert await reader.subscribe("more") == [0]
    assert await reader.unsubscribe("more") == [0]
    assert (await reader.publish_acked("elsewhere", b"x", 2)).codes == [0]
    await reader.nothing_more()
    reader.ack(4, first[0].id)
    third = await reader.message()
    reader.ack(5, first[1].id)
    await reader.expect(6)
    await reader.nothing_more()
    reader.ack(7, first[1].id)
    fourth = await reader.message()
    assert [m.payload for m in (*first, third, fourth)] == [b"0", b"1", b"2", b"3"]


@states("MQTT5-4.9.0-1")
async def test_smaller_receive_maximum_on_resuming(rig):
    """A client that comes back with a smaller receive maximum gets so much at once, no more."""
    reader = await rig.wire(5, client_id="reader", clean=False)
    await reader.subscribe(("t", 1))
    for count in range(4):
        rig.door.publish("t", b"%d" % count)
    before = [await reader.message() for _ in range(4)]
    reader.abort()
    again = await rig.wire(5, client_id="reader", clean=False, receive_max=1)
    for message in before:
        repeated = await again.message()
        assert (repeated.id, repeated.dup) == (message.id, True)
        await again.ping()
        again.ack(4, repeated.id)


@states("MQTT5-4.4.0-2")
@pytest.mark.parametrize(("qos", "kind"), [(1, 4), (2, 5)])
async def test_refused_delivery(rig, qos, kind):
    """A PUBACK or PUBREC with an error code ends the exchange; the message does not come again."""
    reader = await rig.wire(5, client_id="reader", clean=False)
    await reader.subscribe(("t", qos))
    rig.door.publish("t", b"x", qos=qos)
    message = await reader.message()
    reader.ack(kind, message.id, 0x97)
    await reader.ping()
    reader.abort()
    again = await rig.wire(5, client_id="reader", clean=False)
    await again.nothing_more()


@states("MQTT5-3.8.3-3", "MQTT5-3.8.3-4")
async def test_no_local(rig):
    """With no local a client does not get what it published itself, retained neither; shared it is
    an error."""
    wire = await rig.wire(5)
    await wire.subscribe("t", no_local=True)
    wire.publish("t")
    await wire.publish_acked("r/own", b"x", 1, retain=True)
    await wire.subscribe("r/#", no_local=True)
    await wire.nothing_more()
    other = await rig.wire(5, client_id="other")
    await other.publish_acked("r/other", b"x", 1, retain=True)
    assert (await wire.message()).topic == "r/other"
    await wire.subscribe("r/#", no_local=True)
    assert (await wire.message()).topic == "r/other"
    await wire.nothing_more()
    wire.send(wire.subscribe_packet("$share/g/t", no_local=True))
    await ends(wire, 0x82)


@states("MQTT5-3.3.1-12", "MQTT5-3.3.1-13")
async def test_retain_as_published(rig):
    """With retain as published the flag comes as the publisher set it."""
    wire = await rig.wire(5)
    await wire.subscribe("t", retain_as_published=True)
    for retain in (True, False):
        wire.publish("t", b"x", retain=retain)
        assert (await wire.message()).retain == retain


@states("MQTT5-3.3.1-9", "MQTT5-3.3.1-10", "MQTT5-3.3.1-11", "MQTT5-3.8.4-4")
async def test_retain_handling(rig):
    """Retain handling: always, for a new subscription only, never."""
    wire = await rig.wire(5)
    await wire.publish_acked("t", b"x", 1, retain=True)
    await wire.subscribe("t", retain_handling=2)
    await wire.nothing_more()
    await wire.subscribe("t", retain_handling=1)
    await wire.nothing_more()
    await wire.subscribe("t", retain_handling=0)
    assert (await wire.message()).retain
    await wire.unsubscribe("t")
    await wire.subscribe("t", retain_handling=1)
    assert (await wire.message()).retain


@states("MQTT5-3.3.4-3", "MQTT5-3.3.4-4", "MQTT5-3.3.4-5")
async def test_subscription_identifiers(rig):
    """A message carries the identifiers of all subscriptions that match it, also when retained."""
    wire = await rig.wire(5)
    await wire.subscribe("a/#", identifier=1)
    await wire.subscribe("a/+", identifier=268435455)
    await wire.subscribe("a/b")
    wire.publish("a/b", retain=True)
    assert sorted((await wire.message()).v5.subscription_ids) == [1, 268435455]
    await wire.subscribe("a/b", identifier=3)
    assert (await wire.message()).v5.subscription_ids == [3]


@states("MQTT5-4.8.2-1", "MQTT5-4.8.2-2")
async def test_shared_subscription(rig):
    """Of the members of a shared subscription each message reaches one; others get it too."""
    members = [await rig.wire(5, client_id=f"m{n}") for n in range(3)]
    for wire in members:
        assert await wire.subscribe(("$share/group/t/+", 1)) == [1]
    whole = await rig.wire(4, client_id="whole")
    await whole.subscribe(("t/+", 1))
    writer = await rig.wire(5, client_id="writer")
    for count in range(30):
        await writer.publish_acked("t/x", b"%d" % count, 1)
    assert len(await whole.messages(30)) == 30
    parts = [await wire.messages(10) for wire in members]
    assert sorted(int(m.payload) for part in parts for m in part) == list(range(30))
    members[0].abort()
    await rig.until(lambda: rig.broker.sessions.get("m0") is None)
    for _ in range(4):
        await writer.publish_acked("t/x", b"more", 1)
    assert [len(await wire.messages(2)) for wire in members[1:]] == [2, 2]
    assert await members[1].unsubscribe("$share/group/t/+") == [0]
    await writer.publish_acked("t/x", b"last", 1)
    assert (await members[2].message()).payload == b"last"


@states("MQTT5-4.8.2-3")
async def test_qos_of_a_shared_subscription(rig):
    """Each member of a shared subscription gets messages at its own QoS at most."""
    members = [await rig.wire(5, client_id=f"m{qos}") for qos in (0, 1)]
    for qos, wire in enumerate(members):
        assert await wire.subscribe(("$share/group/t", qos)) == [qos]
    for _ in range(4):
        rig.door.publish("t", b"x", qos=2)
    for qos, wire in enumerate(members):
        assert [m.qos for m in await wire.messages(2)] == [qos, qos]


@states("MQTT5-4.8.2-4", "MQTT5-4.8.2-5", "MQTT5-4.8.2-6")
@pytest.mark.parametrize("end", ["returns", "refuses", "starts anew"])
async def test_a_qos_2_message_stays_with_the_chosen_member(rig, end):
    """What one member of a shared subscription was sent no other gets: not when the connection
    breaks, not when the member refuses it, and not when its session ends."""
    members = [await rig.wire(5, client_id=f"m{n}", clean=False) for n in range(2)]
    for wire in members:
        await wire.subscribe(("$share/group/t", 2))
    rig.door.publish("t", b"x", qos=2)
    await rig.settled()
    at = int(bool(rig.broker.sessions.get("m1").outbox.queued))
    chosen, other, name = members[at], members[1 - at], f"m{at}"
    message = await chosen.message()
    if end == "refuses":
        chosen.ack(5, message.id, 0x83)
        await chosen.nothing_more()
    else:
        chosen.abort()
        await rig.until(lambda: rig.broker.sessions.get(name).connection is None)
        again = await rig.wire(5, client_id=name, clean=end != "returns")
        if end == "returns":
            assert (await again.message()).id == message.id
            again.ack(5, message.id)
            await again.expect(6)
            again.ack(7, message.id)
        await again.nothing_more()
    await other.nothing_more()


@states("MQTT5-4.8.2-1", "MQTT5-4.8.2-2")
@pytest.mark.parametrize("topic_filter", ["$share/g", "$share//t", "$share/g/", "$share/+/t"])
async def test_invalid_shared_subscription(rig, topic_filter):
    """What begins like a shared subscription and is none ends the connection with 0x81."""
    wire = await rig.wire(5)
    wire.send(wire.subscribe_packet(topic_filter))
    assert (await wire.closed()).body[0] == 0x81


@states("MQTT5-3.3.1-9")
async def test_shared_subscription_gets_no_retained(rig):
    """Retained messages are not sent for a new shared subscription."""
    wire = await rig.wire(5)
    await wire.publish_acked("t", b"x", 1, retain=True)
    await wire.subscribe("$share/g/t")
    await wire.nothing_more()


@states("MQTT5-3.1.2-23", "MQTT5-4.1.0-1", "MQTT5-4.1.0-2")
async def test_session_expiry(rig):
    """A session lives as long as its client asked or, if that is less, as long as CONNACK said, and
    DISCONNECT may change that."""

    async def leave_and_return(connect_expiry: int, away_s: int, at_end: int | None = None) -> int:
        wire = await rig.wire(5, client_id="c", clean=True, expiry=connect_expiry)
        await wire.subscribe(("t", 1))
        if at_end is None:
            wire.disconnect()
        else:
            wire.send(packet(0xE0, b"\0\x05\x11" + at_end.to_bytes(4, "big")))
        await wire.closed()
        await rig.until(lambda: not rig.broker.connections)
        rig.now_offset_ns += away_s * 10**9
        again = await rig.socket(5)
        present = (await again.connect("c", clean=False, expiry=0)).body[0]
        again.disconnect()
        await again.closed()
        await rig.until(lambda: not rig.broker.connections)
        return present

    assert await leave_and_return(0, 0) == 0
    assert await leave_and_return(100, 50) == 1
    assert await leave_and_return(100, 101) == 0
    assert await leave_and_return(100, 0, at_end=0) == 0
    assert await leave_and_return(100, 150, at_end=200) == 1
    assert await leave_and_return(0xFFFFFFFF, 10**6) == 1
    wire = await rig.wire(5, client_id="c", expiry=0)
    wire.send(packet(0xE0, b"\0\x05\x11\0\0\0\x05"))
    await ends(wire, 0x82)


@states("MQTT5-3.1.2-8", "MQTT5-3.1.3-9", "MQTT5-3.1.2-10")
async def test_will_delay(rig):
    """A delayed will is published after its delay, and not at all if the client is back by then."""
    will = {"will": ("w", b"x", 0, False), "will_delay": 30}
    wire = await rig.wire(5, client_id="c", clean=False, **will)
    wire.abort()
    await rig.until(lambda: not rig.broker.connections)
    wire = await rig.wire(5, client_id="c", clean=False, **will)
    rig.now_offset_ns += 31 * 10**9
    await rig.broker._sweep_once()
    assert rig.journaled("w") == []
    wire.abort()
    await rig.until(lambda: not rig.broker.connections)
    await rig.broker._sweep_once()
    assert rig.journaled("w") == []
    rig.now_offset_ns += 31 * 10**9
    await rig.until(lambda: rig.journaled("w"))


@states("MQTT5-3.1.3-9", "MQTT5-3.1.2-8")
async def test_will_delay_ends_with_the_session(rig):
    """When a session ends, its will does not wait any longer."""
    will = {"will": ("w", b"x", 0, False), "will_delay": 3000}
    wire = await rig.wire(5, client_id="c", expiry=0, **will)
    wire.abort()
    await rig.until(lambda: len(rig.journaled("w")) == 1)
    wire = await rig.wire(5, client_id="c", clean=False, **will)
    wire.abort()
    await rig.until(lambda: not rig.broker.connections)
    await rig.wire(5, client_id="c", clean=True)
    await rig.until(lambda: len(rig.journaled("w")) == 2)


@states("MQTT5-3.1.2-8")
@pytest.mark.parametrize("reason", [0x04, 0x80])
async def test_disconnect_with_will(rig, reason):
    """A DISCONNECT with another reason than 0 lets the will be published."""
    wire = await rig.wire(5, will=("w", b"x", 0, False))
    wire.disconnect(reason)
    await rig.until(lambda: rig.journaled("w"))


@states(
    "MQTT5-3.4.2-1",
    "MQTT5-3.5.2-1",
    "MQTT5-3.6.2-1",
    "MQTT5-3.7.2-1",
    "MQTT5-3.14.2-1",
)
async def test_reasons_that_do_not_exist(rig):
    """Reason codes that the standard does not have in a packet are malformed."""
    for data in (
        b"\x40\x03\0\1\x55",
        b"\x50\x03\0\1\x92",
        b"\x62\x03\0\1\x10",
        b"\x70\x03\0\1\x80",
        b"\xe0\x01\x33",
        b"\xe0\x01\x8e",  # only a server may say that
    ):
        wire = await rig.wire(5)
        wire.send(data)
        await ends(wire, 0x81)
    assert number(1) == b"\0\1"
