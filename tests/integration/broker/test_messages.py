"""PUBLISH in both directions, subscriptions, retained messages: what each version prescribes."""

from __future__ import annotations

import asyncio

import pytest
from broker_rig import Rig, both, hold_commits, number, packet, rig, states, text  # noqa: F401

from appliance.counters import Counter


async def ends(wire) -> object:
    """The connection is ended; MQTT 5 clients are told why."""
    last = await wire.closed()
    if wire.version == 5:
        assert last is not None
        assert last.kind == 14
        return last.body[0]
    assert last is None
    return None


# --- PUBLISH from a client --------------------------------------------------------------------


@both
@states("MQTT-3.3.1-4", "MQTT5-3.3.1-4")
async def test_qos_3(rig, version):
    """A PUBLISH at QoS 3 ends the connection and is not kept."""
    wire = await rig.wire(version)
    wire.send(packet(0x36, text("t"), number(1), b"\0x"))
    await ends(wire)
    assert rig.journaled() == []


@both
@states("MQTT-2.3.1-1", "MQTT5-2.2.1-3")
@pytest.mark.parametrize(
    "kind", ["publish", "subscribe", "unsubscribe", "puback", "pubrec", "pubrel", "pubcomp"]
)
async def test_packet_id_0(rig, version, kind):
    """Packet id 0 ends the connection, in every kind of packet."""
    wire = await rig.wire(version)
    none = b"\0" if version == 5 else b""
    wire.send(
        {
            "publish": packet(0x32, text("t"), number(0), none, b"x"),
            "subscribe": packet(0x82, number(0), none, text("t"), b"\0"),
            "unsubscribe": packet(0xA2, number(0), none, text("t")),
            "puback": packet(0x40, number(0)),
            "pubrec": packet(0x50, number(0)),
            "pubrel": packet(0x62, number(0)),
            "pubcomp": packet(0x70, number(0)),
        }[kind]
    )
    await ends(wire)


@both
@states("MQTT-3.3.1-2", "MQTT5-3.3.1-2")
async def test_dup_at_qos_0(rig, version):
    """DUP at QoS 0 ends the connection."""
    wire = await rig.wire(version)
    wire.send(packet(0x38, text("t"), b"\0x"))
    await ends(wire)


@both
@states(
    "MQTT-3.3.2-1",
    "MQTT-3.3.2-2",
    "MQTT-4.7.1-1",
    "MQTT-4.7.3-1",
    "MQTT-4.7.3-2",
    "MQTT5-4.7.0-1",
    "MQTT5-3.3.2-1",
    "MQTT5-3.3.2-2",
    "MQTT5-4.7.3-1",
    "MQTT5-4.7.3-2",
)
@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        (b"", 0x82),
        (b"a/#", 0x90),
        (b"+/a", 0x90),
        (b"a\0b", 0x81),
        (b"\xff", 0x81),
        (b"\xed\xa0\x80", 0x81),
        (b"\xc0\x80", 0x81),
    ],
)
async def test_invalid_topics(rig, version, topic, reason):
    """Wildcards, null characters, broken UTF-8 and nothing at all are not topics."""
    wire = await rig.wire(version)
    wire.send(packet(0x30, text(topic), b"\0" if version == 5 else b"", b"\x30\x03\0\1t"))
    assert await ends(wire) in (None, reason)
    await rig.settled()
    assert rig.journaled() == []


@both
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
async def test_short_publish(rig, version, cut):
    """A PUBLISH whose fields reach beyond its end is malformed."""
    wire = await rig.wire(version)
    whole = text("ab") + number(1) + (b"\0" if version == 5 else b"")
    wire.send(packet(0x32, whole[: cut + 1]))
    await ends(wire)


@both
@states(
    "MQTT-2.3.1-6",
    "MQTT-3.3.4-1",
    "MQTT-4.3.2-2",
    "MQTT-4.3.3-2",
    "MQTT5-2.2.1-5",
    "MQTT5-3.3.4-1",
    "MQTT5-4.3.2-4",
    "MQTT5-4.3.3-8",
)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_exchange(rig, version, qos):
    """Each QoS has its exchange, with the packet id that the client chose."""
    wire = await rig.wire(version)
    wire.publish("t", b"x", qos, id=65535)
    if qos == 1:
        assert (await wire.expect(4)).id == 65535
    elif qos == 2:
        assert (await wire.expect(5)).id == 65535
        wire.ack(6, 65535)
        assert (await wire.expect(7)).id == 65535
    await wire.ping()
    await rig.settled()
    assert [(m.qos, m.packet_id) for m in rig.journaled()] == [(qos, 65535 if qos else 0)]


@both
@states("MQTT-4.3.2-2", "MQTT5-4.3.2-5")
async def test_a_packet_id_is_free_after_its_puback(rig, version):
    """A QoS 1 message with the id of one that was acknowledged is a new one, also with DUP."""
    wire = await rig.wire(version)
    for payload, dup in ((b"one", False), (b"one", True), (b"two", False)):
        wire.publish("t", payload, 1, id=7, dup=dup)
        assert (await wire.expect(4)).id == 7
    assert [m.payload for m in rig.journaled()] == [b"one", b"one", b"two"]


@both
@states("MQTT-4.3.3-2", "MQTT5-4.3.3-10", "MQTT5-4.3.3-11", "MQTT5-4.3.3-12")
async def test_qos_2_once(rig, version):
    """A QoS 2 message sent again before its release is the same message, afterwards a new one."""
    wire = await rig.wire(version)
    for dup in (False, True, True):
        wire.publish("t", b"one", 2, id=7, dup=dup)
        assert (await wire.expect(5)).id == 7
    wire.ack(6, 7)
    assert (await wire.expect(7)).id == 7
    await wire.publish_acked("t", b"two", 2, id=7)
    assert [m.payload for m in rig.journaled()] == [b"one", b"two"]


@both
@states("MQTT-4.3.3-2", "MQTT5-4.3.3-11")
async def test_release_of_nothing(rig, version):
    """A PUBREL for an id that is not known is answered, so that its client can go on."""
    wire = await rig.wire(version)
    wire.ack(6, 99)
    answer = await wire.expect(7)
    assert answer.id == 99
    assert answer.codes == ([0x92] if version == 5 else [])


@both
@states("MQTT-4.4.0-1", "MQTT-4.3.3-1", "MQTT5-4.4.0-1", "MQTT5-4.3.3-10")
async def test_qos_2_once_across_reconnects(rig, version):
    """A persistent session knows after a reconnect which QoS 2 messages it has already."""
    wire = await rig.wire(version, client_id="p", clean=False)
    wire.publish("t", b"one", 2, id=7)
    await wire.expect(5)
    wire.abort()
    again = await rig.wire(version, client_id="p", clean=False)
    again.publish("t", b"one", 2, id=7, dup=True)
    await again.expect(5)
    again.ack(6, 7)
    await again.expect(7)
    assert [m.payload for m in rig.journaled()] == [b"one"]


@both
@states("MQTT-4.6.0-2", "MQTT-4.6.0-3", "MQTT-4.6.0-4", "MQTT5-4.6.0-2", "MQTT5-4.6.0-3")
async def test_order_of_acknowledgements(rig, version):
    """Acknowledgements come in the order of the messages."""
    wire = await rig.wire(version)
    for count in range(1, 101):
        wire.publish("t", b"%d" % count, 1 + count % 2, id=count)
    answers = [await wire.receive() for _ in range(100)]
    assert [answer.id for answer in answers] == list(range(1, 101))
    assert [int(m.payload) for m in rig.journaled()] == list(range(1, 101))


# --- subscriptions ----------------------------------------------------------------------------


@both
@states("MQTT-3.8.1-1", "MQTT5-3.8.1-1", "MQTT-3.10.1-1", "MQTT5-3.10.1-1")
@pytest.mark.parametrize("first", [0x80, 0x83, 0xA0, 0xA3])
async def test_flags_of_subscribe(rig, version, first):
    """SUBSCRIBE and UNSUBSCRIBE have the flags 0010, or the connection ends."""
    wire = await rig.wire(version)
    options = b"\0" if first & 0xF0 == 0x80 else b""
    wire.send(packet(first, number(1), b"\0" if version == 5 else b"", text("t"), options))
    assert await ends(wire) in (None, 0x81)


@both
@states("MQTT-3.8.3-3", "MQTT5-3.8.3-2", "MQTT-3.10.3-2", "MQTT5-3.10.3-2")
@pytest.mark.parametrize("first", [0x82, 0xA2])
async def test_no_filter(rig, version, first):
    """SUBSCRIBE and UNSUBSCRIBE have at least one topic filter, or the connection ends."""
    wire = await rig.wire(version)
    wire.send(packet(first, number(1), b"\0" if version == 5 else b""))
    await ends(wire)


@both
@states(
    "MQTT-3.8.3-1",
    "MQTT-3.8.3-4",
    "MQTT-3.10.3-1",
    "MQTT-4.7.3-2",
    "MQTT5-3.8.3-1",
    "MQTT5-3.8.3-5",
    "MQTT5-3.10.3-1",
    "MQTT5-4.7.3-2",
)
async def test_malformed_subscriptions(rig, version):
    """Reserved option bits, QoS 3 and filters that are not UTF-8 end the connection."""
    none = b"\0" if version == 5 else b""
    for first, tail, reason in (
        (0x82, text("t") + b"\x03", 0x82),
        (0x82, text("t") + b"\x30", 0x82),
        (0x82, text("t") + b"\x40", 0x81),
        *([(0x82, text("t") + b"\x04", None)] if version == 4 else []),
        (0x82, text("t") + b"\x80", 0x81),
        (0x82, text(b"\xff") + b"\x00", 0x81),
        (0x82, text(b"a\0b") + b"\x00", 0x81),
        (0x82, text("t"), 0x81),
        (0xA2, text(b"\xff"), 0x81),
        (0xA2, text(b"a\0b"), 0x81),
        (0xA2, text("t")[:2], 0x81),
    ):
        wire = await rig.wire(version)
        wire.send(packet(first, number(1), none, tail))
        assert await ends(wire) == (reason if version == 5 else None)
    assert len(rig.subscriptions) == 0


@both
@states(
    "MQTT-3.8.4-1",
    "MQTT-3.8.4-2",
    "MQTT-3.8.4-5",
    "MQTT-3.9.3-1",
    "MQTT-3.9.3-2",
    "MQTT-2.3.1-7",
    "MQTT5-2.2.1-6",
    "MQTT5-3.8.4-1",
    "MQTT5-3.8.4-2",
    "MQTT5-3.8.4-6",
    "MQTT5-3.8.4-7",
    "MQTT5-3.9.3-1",
    "MQTT5-3.9.3-2",
)
async def test_suback(rig, version):
    """SUBACK has the id of its SUBSCRIBE and a code for each filter, in their order."""
    wire = await rig.wire(version)
    deep = "/".join("x" * 300)
    wire.send(wire.subscribe_packet(("a", 2), (deep, 1), ("b", 0), (deep, 0), ("c", 1), id=777))
    answer = await wire.expect(9)
    bad = 0x8F if version == 5 else 0x80
    assert answer.id == 777
    assert answer.codes == [2, bad, 0, bad, 1]
    many = [f"many/{number}" for number in range(300)]
    wire.send(
        wire.subscribe_packet(*[(each, number % 3) for number, each in enumerate(many)], id=778)
    )
    answer = await wire.expect(9)
    assert (answer.id, answer.codes) == (778, [0, 1, 2] * 100)
    assert await wire.unsubscribe(*many) == ([0] * 300 if version == 5 else [])


@both
@states("MQTT-3.8.4-3", "MQTT5-3.8.4-3")
async def test_subscription_replaced(rig, version):
    """To subscribe again to the same filter replaces the subscription: one copy, the new QoS."""
    wire = await rig.wire(version)
    assert await wire.subscribe(("t", 0)) == [0]
    assert await wire.subscribe(("t", 1)) == [1]
    wire.publish("t", b"x", 2, id=1)
    await wire.expect(5)
    message = await wire.message()
    assert message.qos == 1
    await wire.nothing_more()
    assert await wire.subscribe(("t", 0)) == [0]
    rig.door.publish("t", b"x", qos=2)
    assert (await wire.message()).qos == 0
    await wire.nothing_more()


@both
@states("MQTT-3.8.4-4", "MQTT5-3.8.4-5")
async def test_twice_in_one_subscribe(rig, version):
    """A SUBSCRIBE with several filters counts as so many, one after the other."""
    wire = await rig.wire(version)
    assert await wire.subscribe(("t", 2), ("t", 0)) == [2, 0]
    await wire.publish_acked("other")
    wire.publish("t", b"x", 1)
    found = {answer.kind: answer for answer in (await wire.receive(), await wire.receive())}
    assert set(found) == {3, 4}
    assert found[3].qos == 0
    await wire.nothing_more()


@both
@states("MQTT-3.8.4-6", "MQTT-3.3.5-1", "MQTT5-3.8.4-8", "MQTT5-3.3.4-2")
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("subscribed", [0, 1, 2])
async def test_effective_qos(rig, version, published, subscribed):
    """A message comes at the lower of the QoS it was published and subscribed with."""
    reader = await rig.wire(version, client_id="reader")
    await reader.subscribe(("t", subscribed))
    writer = await rig.wire(version, client_id="writer")
    writer.publish("t", b"x", published, id=1 if published else 0)
    message = await reader.message()
    assert message.qos == min(published, subscribed)
    assert not message.dup
    assert bool(message.id) == bool(message.qos)


@both
@states("MQTT-3.3.5-1", "MQTT5-3.3.4-2", "MQTT5-3.3.4-3")
async def test_overlapping_subscriptions(rig, version):
    """Overlapping subscriptions get a message at the highest of their QoS, once."""
    reader = await rig.wire(version, client_id="reader")
    await reader.subscribe(("a/#", 0), ("a/+", 2), ("a/b", 1))
    writer = await rig.wire(version, client_id="writer")
    await writer.publish_acked("a/b", b"x", 2)
    message = await reader.message()
    assert message.qos == 2
    await reader.nothing_more()


@both
@states(
    "MQTT-4.7.1-2",
    "MQTT-4.7.1-3",
    "MQTT-3.3.2-3",
    "MQTT-4.7.2-1",
    "MQTT-4.7.3-4",
    "MQTT5-3.3.2-3",
    "MQTT5-4.7.1-1",
    "MQTT5-4.7.1-2",
    "MQTT5-4.7.2-1",
    "MQTT5-4.7.3-4",
)
@pytest.mark.parametrize(
    ("topic_filter", "matching", "other"),
    [
        ("sport/tennis/#", ["sport/tennis", "sport/tennis/p/1"], ["sport", "sport/tenni"]),
        ("#", ["a", "a/b", "/"], ["$x"]),
        ("sport/+", ["sport/", "sport/a"], ["sport", "sport/a/b"]),
        ("+/+", ["/finance", "a/b"], ["a", "a/b/c"]),
        ("/+", ["/finance"], ["finance"]),
        ("Accounts", ["Accounts"], ["ACCOUNTS", "Accounts/"]),
        ("+/x/#", ["a/x", "/x/y"], ["$a/x", "x"]),
    ],
)
async def test_wildcards(rig, version, topic_filter, matching, other):
    """Topics match filters level by level, case by case, and wildcards spare $ topics."""
    wire = await rig.wire(version)
    await wire.subscribe(topic_filter)
    for topic in other + matching:
        if topic.startswith("$"):
            rig.door.publish(topic, b"x")
        else:
            wire.publish(topic)
    assert [(await wire.message()).topic for _ in matching] == matching
    await wire.nothing_more()


@both
@states("MQTT-3.3.5-2")
async def test_dollar_topics(rig, version):
    """What clients publish to $ topics is dropped. A filter that names one gets its messages."""
    wire = await rig.wire(version)
    await wire.subscribe("$own/#")
    rig.door.publish("$own/a", b"x")
    assert (await wire.message()).topic == "$own/a"
    wire.publish("$own/b")
    for qos in (1, 2):
        wire.publish("$own/b", b"x", qos, retain=True)
        answer = await wire.expect(4 if qos == 1 else 5)
        assert answer.codes == ([0x87] if version == 5 else [])
    if version == 4:
        wire.ack(6, answer.id)
        await wire.expect(7)
    await wire.publish_acked("fine", b"x", 1)
    assert [m.topic for m in rig.journaled()] == ["$own/a", "fine"]
    assert rig.counters[Counter.PUBLISHES_REFUSED_DOLLAR_TOPIC] == 3


@both
async def test_will_on_a_dollar_topic(rig, version):
    """A client whose will is on a $ topic comes in; the will is not published."""
    will = ("$SYS/broker/connection/plant/state", b"0", 1, True)
    wire = await rig.wire(version, client_id="bridge", will=will)
    await wire.ping()
    wire.abort()
    await rig.until(lambda: not rig.broker.connections)
    await rig.settled()
    assert rig.journaled() == []
    assert rig.counters[Counter.PUBLISHES_REFUSED_DOLLAR_TOPIC] == 1


@both
@states(
    "MQTT-3.10.4-1",
    "MQTT-3.10.4-2",
    "MQTT-3.10.4-4",
    "MQTT-3.10.4-5",
    "MQTT-3.10.4-6",
    "MQTT-2.3.1-7",
    "MQTT5-2.2.1-6",
    "MQTT5-3.10.4-1",
    "MQTT5-3.10.4-2",
    "MQTT5-3.10.4-4",
    "MQTT5-3.10.4-5",
    "MQTT5-3.10.4-6",
    "MQTT5-3.11.3-1",
    "MQTT5-3.11.3-2",
)
async def test_unsubscribe(rig, version):
    """UNSUBACK comes also for filters that were not subscribed to; nothing is sent any more."""
    wire = await rig.wire(version)
    await wire.subscribe(("a/+", 1), ("b", 1))
    codes = await wire.unsubscribe("a/b", "b", "nothing", "A/+", id=4711)
    assert codes == ([0x11, 0, 0x11, 0x11] if version == 5 else [])
    wire.publish("b")
    wire.publish("a/b")
    assert (await wire.message()).topic == "a/b"
    codes = await wire.unsubscribe("a/+")
    assert codes == ([0] if version == 5 else [])
    wire.publish("b")
    wire.publish("a/b")
    await wire.nothing_more()


@both
@states("MQTT-3.10.4-3", "MQTT5-3.10.4-3")
async def test_unsubscribe_finishes_what_was_sent(rig, version):
    """A QoS 2 delivery that was under way at UNSUBSCRIBE is brought to its end, also on another
    connection."""
    reader = await rig.wire(version, client_id="reader", clean=False)
    await reader.subscribe(("t", 2))
    writer = await rig.wire(version, client_id="writer")
    await writer.publish_acked("t", b"x", 2)
    message = await reader.message()
    await reader.unsubscribe("t")
    reader.abort()
    reader = await rig.wire(version, client_id="reader", clean=False)
    again = await reader.message()
    assert (again.id, again.payload, again.dup) == (message.id, b"x", True)
    reader.ack(5, message.id)
    assert (await reader.expect(6)).id == message.id
    reader.ack(7, message.id)
    await reader.nothing_more()


# --- delivery ---------------------------------------------------------------------------------


@both
@states("MQTT-4.6.0-5", "MQTT-4.6.0-6", "MQTT5-4.6.0-5", "MQTT5-4.6.0-6")
@pytest.mark.parametrize(("window", "total"), [(1, 50), (7, 100), (100, 500)])
async def test_order_of_delivery(tmp_path, version, window, total):
    """Messages of one publisher come in its order, for every size of the window."""
    async with Rig(tmp_path / "data", max_inflight_per_client=window) as rig:
        reader = await rig.wire(version, client_id="reader")
        await reader.subscribe(("t", 2))
        writer = await rig.wire(version, client_id="writer")
        for count in range(1, total + 1):
            writer.publish("t", b"%d" % count, 1 + count % 2, id=count)
        found = await reader.messages(total)
        assert [int(m.payload) for m in found] == list(range(1, total + 1))


@both
@states("MQTT-4.6.0-4", "MQTT5-4.6.0-4", "MQTT5-4.3.3-4")
@pytest.mark.parametrize("clean", [True, False])
async def test_releases_come_in_the_order_of_their_pubrecs(rig, version, clean):
    """Also when the client's PUBRECs are in another order than the messages."""
    reader = await rig.wire(version, client_id="reader", clean=clean)
    await reader.subscribe(("t", 2))
    for count in range(10):
        rig.door.publish("t", b"%d" % count, qos=2)
    ids = [(await reader.message()).id for _ in range(10)]
    mixed = ids[5:] + ids[:5][::-1]
    for each in mixed:
        reader.ack(5, each)
    assert [(await reader.expect(6)).id for _ in ids] == mixed


@both
@states(
    "MQTT-4.4.0-1",
    "MQTT-3.3.1-1",
    "MQTT-4.3.2-1",
    "MQTT-4.6.0-1",
    "MQTT5-4.4.0-1",
    "MQTT5-3.3.1-1",
    "MQTT5-4.3.2-3",
    "MQTT5-4.3.3-3",
    "MQTT5-4.6.0-1",
)
async def test_redelivery(rig, version):
    """What a persistent client did not acknowledge comes again, same ids, same order, with DUP."""
    reader = await rig.wire(version, client_id="reader", clean=False)
    await reader.subscribe(("t", 2))
    writer = await rig.wire(version, client_id="writer")
    for count in range(1, 7):
        await writer.publish_acked("t", b"%d" % count, 1 + count % 2)
    first = [await reader.message() for _ in range(6)]
    reader.abort()
    await rig.until(lambda: rig.broker.sessions.get("reader").connection is None)
    again = await rig.socket(version)
    assert (await again.connect("reader", clean=False)).body[0] == 1
    second = [await again.message() for _ in range(6)]
    assert [(m.id, m.payload, m.qos) for m in first] == [(m.id, m.payload, m.qos) for m in second]
    assert all(m.dup for m in second)
    assert not any(m.dup for m in first)


@both
@states("MQTT-4.4.0-1", "MQTT-4.3.3-1", "MQTT5-4.4.0-1", "MQTT5-4.3.3-5", "MQTT5-4.3.3-6")
async def test_release_comes_again(rig, version):
    """A QoS 2 delivery interrupted behind PUBREC goes on with PUBREL, not with the message."""
    reader = await rig.wire(version, client_id="reader", clean=False)
    await reader.subscribe(("t", 2))
    writer = await rig.wire(version, client_id="writer")
    await writer.publish_acked("t", b"x", 2)
    message = await reader.message()
    reader.ack(5, message.id)
    assert (await reader.expect(6)).id == message.id
    reader.abort()
    again = await rig.wire(version, client_id="reader", clean=False)
    assert (await again.expect(6)).id == message.id
    again.ack(7, message.id)
    await again.nothing_more()
    assert rig.broker.sessions.get("reader").outbox.queued == 0


@both
@states(
    "MQTT-3.1.2-4",
    "MQTT-3.1.2-5",
    "MQTT-3.1.3-2",
    "MQTT-3.2.2-2",
    "MQTT-3.2.2-3",
    "MQTT5-3.1.2-5",
    "MQTT5-3.1.2-6",
    "MQTT5-3.1.2-23",
    "MQTT5-3.1.3-2",
    "MQTT5-3.2.2-3",
)
async def test_persistent_session(rig, version):
    """A persistent session keeps subscriptions and QoS 1 and 2 messages while its client is away."""
    reader = await rig.socket(version)
    assert (await reader.connect("reader", clean=False)).body[0] == 0
    await reader.subscribe(("t", 2))
    reader.disconnect()
    await reader.closed()
    writer = await rig.wire(version, client_id="writer")
    for qos in (1, 2):
        await writer.publish_acked("t", b"%d" % qos, qos)
    other = await rig.socket(version)
    assert (await other.connect("Reader", clean=False)).body[0] == 0
    await other.nothing_more()
    again = await rig.socket(version)
    assert (await again.connect("reader", clean=False)).body[0] == 1
    assert [m.payload for m in await again.messages(2)] == [b"1", b"2"]


@both
@states(
    "MQTT-3.1.2-6",
    "MQTT-3.1.4-3",
    "MQTT-3.2.2-1",
    "MQTT5-3.1.2-4",
    "MQTT5-3.1.4-4",
    "MQTT5-3.2.2-2",
)
async def test_clean_session(rig, version):
    """A clean start discards what an earlier session kept, for the next one too."""
    reader = await rig.wire(version, client_id="reader", clean=False)
    await reader.subscribe(("t", 1))
    reader.disconnect()
    await reader.closed()
    clean = await rig.socket(version)
    assert (await clean.connect("reader", clean=True)).body[0] == 0
    clean.publish("t")
    await clean.nothing_more()
    clean.disconnect()
    await clean.closed()
    third = await rig.socket(version)
    assert (await third.connect("reader", clean=False)).body[0] == 0


@both
@states("MQTT5-3.3.1-11")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_subscribe_comes_after_the_own_message_before_it(rig, version, qos):
    """A retained message right before its publisher's own SUBSCRIBE is an old one for that
    subscription."""
    wire = await rig.wire(version)
    for turn in range(5):
        topic = f"r/{turn}"
        wire.send(
            wire.publish_packet(topic, b"x", qos, retain=True) + wire.subscribe_packet((topic, 1))
        )
        found = []
        while len([each for each in found if each.kind in (3, 9)]) < 2:
            found.append(await wire.receive())
        assert [each.kind for each in found if each.kind in (3, 9)] == [9, 3]
        message = next(each for each in found if each.kind == 3)
        assert message.retain
        if message.qos:
            wire.ack(4, message.id)
    await wire.nothing_more()


@states("MQTT5-3.3.1-11")
async def test_the_own_message_before_a_subscribe_is_not_sent_with_retain_handling_2(
    rig, monkeypatch
):
    """With Retain Handling 2 a message that was sent before the SUBSCRIBE does not come."""
    wire = await rig.wire(5)
    go = hold_commits(monkeypatch)
    wire.send(
        wire.publish_packet("r", b"x", 0, retain=True)
        + wire.publish_packet("r", b"y", 0)
        + wire.subscribe_packet("r", retain_handling=2)
    )
    connection = rig.broker.sessions.get("tester").connection
    await rig.until(lambda: connection.last_published_seq)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(rig.subscriptions) == 0
    go.set()
    await wire.expect(9)
    await rig.settled()
    await wire.nothing_more()


@both
@pytest.mark.parametrize("qos", [0, 1])
async def test_unsubscribe_comes_after_the_own_message_before_it(rig, version, qos):
    """A message right before its publisher's own UNSUBSCRIBE is delivered, before the UNSUBACK."""
    wire = await rig.wire(version)
    properties = b"\0" if version == 5 else b""
    for _ in range(5):
        await wire.subscribe(("t", 1))
        wire.send(
            wire.publish_packet("t", b"x", qos) + packet(0xA2, number(7), properties, text("t"))
        )
        kinds = []
        while 11 not in kinds:
            answer = await wire.receive()
            kinds.append(answer.kind)
            if answer.kind == 3 and answer.qos:
                wire.ack(4, answer.id)
        assert [kind for kind in kinds if kind != 4] == [3, 11]


@both
async def test_a_subscribe_behind_messages_waits_longer_than_the_keepalive(
    tmp_path, version, monkeypatch
):
    """A client whose SUBSCRIBE waits for the disk is not taken for silent."""
    async with Rig(tmp_path / "data") as rig:
        wire = await rig.wire(version, keepalive=1)
        go = hold_commits(monkeypatch)
        wire.send(wire.publish_packet("t", b"x", 1) + wire.subscribe_packet("t"))
        connection = rig.broker.sessions.get("tester").connection
        await rig.until(lambda: connection.last_published_seq)
        assert connection.overdue(asyncio.get_running_loop().time() + 60) is None
        go.set()
        assert (await wire.expect(4)).id
        await wire.expect(9)
        await wire.nothing_more()


# --- retained messages ------------------------------------------------------------------------


@both
@states(
    "MQTT-3.1.2-7",
    "MQTT-3.3.1-5",
    "MQTT-3.3.1-6",
    "MQTT-3.3.1-8",
    "MQTT5-3.3.1-5",
    "MQTT5-3.3.1-9",
)
async def test_retained(rig, version):
    """A new subscription gets the last retained message of each topic that it matches, flagged, also
    after the session of its publisher."""
    writer = await rig.wire(version, client_id="writer")
    await writer.publish_acked("r/1", b"old", 1, retain=True)
    await writer.publish_acked("r/1", b"new", 1, retain=True)
    await writer.publish_acked("r/2", b"two", 2, retain=True)
    await writer.publish_acked("other", b"x", 1, retain=True)
    writer.disconnect()
    await rig.until(lambda: rig.broker.sessions.get("writer") is None)
    reader = await rig.wire(version, client_id="reader")
    await reader.subscribe(("r/#", 1))
    found = await reader.messages(2)
    assert sorted((m.topic, m.payload, m.qos, m.retain) for m in found) == [
        ("r/1", b"new", 1, True),
        ("r/2", b"two", 1, True),
    ]
    await reader.nothing_more()


@both
@states("MQTT-3.3.1-9", "MQTT5-3.3.1-12")
async def test_live_messages_are_not_flagged(rig, version):
    """A subscription that exists gets a new retained message as a live one."""
    wire = await rig.wire(version)
    await wire.subscribe("r")
    wire.publish("r", b"x", retain=True)
    assert not (await wire.message()).retain


@both
@states("MQTT-3.3.1-10", "MQTT-3.3.1-11", "MQTT5-3.3.1-6", "MQTT5-3.3.1-7")
async def test_retained_removed(rig, version):
    """An empty retained message is delivered, removes what was kept and is not kept itself."""
    wire = await rig.wire(version)
    await wire.publish_acked("r", b"x", 1, retain=True)
    await wire.subscribe("r")
    assert (await wire.message()).payload == b"x"
    wire.publish("r", b"", retain=True)
    assert (await wire.message()).payload == b""
    await wire.subscribe("r")
    await wire.nothing_more()
    assert len(rig.retained) == 0


@both
async def test_no_subscriber_comes_between_a_message_and_what_is_retained_of_it(rig, version):
    """The row of a retained message may be in a later commit than the message: a client that subscribes
    between the two still gets it, and no client gets the one before."""
    transact, loop = rig.journal.transact, asyncio.get_running_loop()
    wire = await rig.wire(version)
    await wire.subscribe("r")
    for payload in (b"one", b"two", b""):
        rig.journal.transact = lambda *entry: loop.call_later(0.2, transact, *entry)
        wire.publish("r", payload, retain=True)
        assert (await wire.message()).payload == payload
        rig.journal.transact = transact
        late = await rig.wire(version, client_id=f"late-{payload.decode()}")
        await late.subscribe("r")
        if payload:
            assert (await late.message()).payload == payload
        await late.nothing_more()


@both
@states("MQTT-3.3.1-7", "MQTT5-3.3.1-8")
async def test_retained_at_qos_0(rig, version):
    """A retained message at QoS 0 takes the place of the one before."""
    wire = await rig.wire(version)
    await wire.publish_acked("r", b"one", 1, retain=True)
    wire.publish("r", b"two", 0, retain=True)
    await rig.until(lambda: rig.retained.get("r").payload == b"two")
    await wire.subscribe(("r", 1))
    message = await wire.message()
    assert (message.payload, message.qos) == (b"two", 0)


@both
@states("MQTT-3.3.1-12", "MQTT5-3.3.1-8")
async def test_not_retained_leaves_retained(rig, version):
    """A message without the flag neither replaces nor removes what is retained."""
    wire = await rig.wire(version)
    await wire.publish_acked("r", b"kept", 1, retain=True)
    await wire.publish_acked("r", b"passing", 1)
    await wire.publish_acked("r", b"", 1)
    await wire.subscribe("r")
    assert (await wire.message()).payload == b"kept"


@both
async def test_newcomer_gets_nothing_of_others(rig, version):
    """A client without subscriptions gets no message at all, retained or not."""
    other = await rig.wire(version, client_id="other")
    await other.subscribe("r/#")
    rig.door.publish("r/1", b"x", retain=True)
    await other.messages(1)
    newcomer = await rig.wire(version, client_id="new")
    rig.door.publish("r/2", b"x")
    await other.messages(1)
    await newcomer.nothing_more()


@both
async def test_many_retained(tmp_path, version):
    """However many retained messages match, a client that reads gets every one of them."""
    async with Rig(
        tmp_path / "data",
        max_queued_per_client=10,
        max_inflight_per_client=5,
        max_client_backlog=65536,
    ) as rig:
        for count in range(400):
            rig.door.publish(f"r/{count}", b"%d" % count * 300, qos=count % 3, retain=True)
        await rig.settled()
        for qos in (0, 2):
            reader = await rig.wire(version, client_id=f"reader-{qos}")
            await reader.subscribe(("r/#", qos))
            found = await reader.messages(400)
            assert len({m.topic for m in found}) == 400
        assert not any("DROPPED" in one.name for one in rig.counters)


@both
async def test_retained_replaced_before_its_turn(tmp_path, version):
    """While many retained messages wait, one that is replaced comes once, as the new message."""
    async with Rig(tmp_path / "data", max_inflight_per_client=1) as rig:
        for count in range(20):
            rig.door.publish(f"r/{count}", b"old", retain=True)
        await rig.settled()
        reader = await rig.wire(version, client_id="reader")
        await reader.subscribe(("r/#", 1))
        rig.door.publish("r/19", b"new", retain=True)
        await rig.settled()
        found = await reader.messages(20)
        assert [m.payload for m in found if m.topic == "r/19"] == [b"new"]


@both
@states(
    "MQTT-3.1.2-8",
    "MQTT-3.1.2-9",
    "MQTT-3.1.2-16",
    "MQTT-3.1.2-17",
    "MQTT5-3.1.2-7",
    "MQTT5-3.1.2-8",
    "MQTT5-3.1.2-14",
    "MQTT5-3.1.2-15",
)
@pytest.mark.parametrize("retain", [False, True])
async def test_will(rig, version, retain):
    """A will is published as it was given, journaled like any message, retained if it says so."""
    wire = await rig.wire(version, client_id="w", will=("will/w", b"\xff\0bin", 2, retain))
    wire.send(b"\x00\x00")
    await ends(wire)
    await rig.until(lambda: rig.journaled("will/w"))
    message = rig.journaled("will/w")[0]
    assert (message.payload, message.qos, message.retain) == (b"\xff\0bin", 2, retain)
    assert message.client_id == "w"
    await rig.settled()
    assert (rig.retained.get("will/w") is not None) == retain


@both
async def test_stop_tells_clients(tmp_path, version):
    """When the appliance stops, clients are disconnected (MQTT 5: told that it shuts down)."""
    async with Rig(tmp_path / "data") as rig:
        wire = await rig.wire(version, will=("w", b"x", 0, False))
        stopping = asyncio.create_task(rig.broker.stop())
        last = await wire.closed()
        await stopping
        if version == 5:
            assert last.body[0] == 0x8B
        assert rig.journaled("w") == []
        await rig.broker.host.start()
