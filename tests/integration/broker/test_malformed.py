"""Packets that break the protocol, and packets that are larger than the client takes."""

from __future__ import annotations

import mqtt5
import pytest
from broker_rig import both, number, packet, rig, states, text  # noqa: F401

from appliance.counters import Counter

_PLAIN = text("MQTT") + b"\x04\x02\0\0" + text("c")

MALFORMED_CONNECTS = {
    "a byte too many": _PLAIN + b"x",
    "the reserved flag": text("MQTT") + b"\x04\x03\0\0" + text("c"),
    "will QoS without a will": text("MQTT") + b"\x04\x0a\0\0" + text("c"),
    "will retain without a will": text("MQTT") + b"\x04\x22\0\0" + text("c"),
    "a will at QoS 3": text("MQTT") + b"\x04\x1e\0\0" + text("c") + text("w") + text("x"),
    "a will on a wildcard": text("MQTT") + b"\x04\x06\0\0" + text("c") + text("w/#") + text("x"),
    "a password without a name": text("MQTT") + b"\x04\x42\0\0" + text("c") + text("p"),
    "a client id that is not UTF-8": text("MQTT") + b"\x04\x02\0\0" + text(b"\xff"),
    "a user name with a null character": text("MQTT") + b"\x04\x82\0\0" + text("c") + text("a\0"),
    "no client id": text("MQTT") + b"\x04\x02\0\0",
    "half a client id": _PLAIN[:-1],
    "no keepalive": text("MQTT") + b"\x04\x02\0",
    "no user name": text("MQTT") + b"\x04\x82\0\0" + text("c"),
    "a user name that is not announced": _PLAIN + text("u"),
    "a user name that is not UTF-8": text("MQTT") + b"\x04\x82\0\0" + text("c") + text(b"\xff"),
    "no password": text("MQTT") + b"\x04\xc2\0\0" + text("c") + text("u"),
    "no will": text("MQTT") + b"\x04\x06\0\0" + text("c"),
    "no payload of the will": text("MQTT") + b"\x04\x06\0\0" + text("c") + text("w"),
    "a will topic that is not UTF-8": text("MQTT")
    + b"\x04\x06\0\0"
    + text("c")
    + text(b"\xc3")
    + text("x"),
}


@states(
    "MQTT-3.1.4-1",
    "MQTT-3.1.2-3",
    "MQTT-3.1.2-9",
    "MQTT-3.1.2-11",
    "MQTT-3.1.2-14",
    "MQTT-3.1.2-18",
    "MQTT-3.1.2-19",
    "MQTT-3.1.2-20",
    "MQTT-3.1.2-21",
    "MQTT-3.1.2-22",
    "MQTT-3.1.3-1",
    "MQTT-3.1.3-3",
    "MQTT-3.1.3-10",
    "MQTT-3.1.3-11",
    "MQTT-3.2.2-6",
)
@pytest.mark.parametrize("fault", MALFORMED_CONNECTS)
async def test_malformed_connect(rig, fault):
    """MQTT 3.1.1: a malformed CONNECT is not answered; its connection is closed."""
    wire = await rig.socket()
    wire.send(packet(0x10, MALFORMED_CONNECTS[fault]))
    assert await wire.closed() is None
    assert rig.counters[Counter.CONNECTIONS_ENDED_PROTOCOL_ERROR] == 1


_OF_5 = text("MQTT") + b"\x05"
_WILL = _OF_5 + b"\x06\0\0\0" + text("c")


@states(
    "MQTT5-3.1.4-1",
    "MQTT5-3.1.2-9",
    "MQTT5-3.1.2-16",
    "MQTT5-3.1.2-17",
    "MQTT5-3.1.2-18",
    "MQTT5-3.1.2-19",
    "MQTT5-3.1.3-1",
    "MQTT5-3.1.3-3",
    "MQTT5-3.1.3-4",
    "MQTT5-3.1.3-11",
    "MQTT5-3.1.3-12",
    "MQTT5-3.14.0-1",
)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (text("MQTT") + b"\x05\x03\0\0\0" + text("c"), 0x81),
        (text("MQTT") + b"\x05\x0a\0\0\0" + text("c"), 0x81),
        (text("MQTT") + b"\x05\x02\0\0\0" + text(b"\xff"), 0x81),
        (text("MQTT") + b"\x05\x02\0\0\0" + text("c") + b"x", 0x81),
        (text("MQTT") + b"\x05\x02\0\0\x02\x17\x02" + text("c"), 0x82),
        (text("MQTT") + b"\x05\x02\0\0\x02\x19\x02" + text("c"), 0x82),
        (text("MQTT") + b"\x05\x02\0\0\x03\x21\0\0" + text("c"), 0x82),
        (_OF_5 + b"\x02\0\0\0", 0x81),
        (_OF_5 + b"\x02\0\0\0" + text("c") + text("u"), 0x81),
        (_OF_5 + b"\x82\0\0\0" + text("c"), 0x81),
        (_OF_5 + b"\x82\0\0\0" + text("c") + text(b"\xff"), 0x81),
        (_OF_5 + b"\x42\0\0\0" + text("c"), 0x81),
        (_WILL, 0x81),
        (_WILL + b"\0" + text("w"), 0x81),
        (_WILL + b"\0" + text(b"\xc3") + text("x"), 0x81),
        (_WILL + b"\0" + text("w/#") + text("x"), 0x90),
        (_WILL + b"\x02\x23\x01" + text("w") + text("x"), 0x81),
        (_WILL + b"\x0a\x18\0\0\0\x01\x18\0\0\0\x01" + text("w") + text("x"), 0x82),
        (_OF_5 + b"\x02\0\0\x02\x21" + text("c"), 0x81),
    ],
)
async def test_malformed_connect_of_mqtt_5(rig, fault, reason):
    """MQTT 5: a malformed CONNECT is answered with 0x81, one with a value out of range with 0x82."""
    wire = await rig.socket(5)
    wire.send(packet(0x10, fault))
    assert (await wire.closed()).raw == bytes((0x20, 3, 0, reason, 0))


@both
@states(
    "MQTT-4.7.1-2",
    "MQTT-4.7.1-3",
    "MQTT-4.7.3-1",
    "MQTT-4.8.0-1",
    "MQTT5-4.7.1-1",
    "MQTT5-4.7.1-2",
    "MQTT5-4.7.3-1",
)
@pytest.mark.parametrize("topic_filter", ["", "ab/+e", "a/#/b", "a#", "+a", "#/"])
async def test_malformed_filter(rig, version, topic_filter):
    """A malformed topic filter ends the connection (MQTT 5: 0x81), in UNSUBSCRIBE too."""
    asks = await rig.wire(version, client_id="asks")
    asks.send(asks.subscribe_packet("good", topic_filter))
    leaves = await rig.wire(version, client_id="leaves")
    leaves.send(packet(0xA2, number(1), b"\0" if version == 5 else b"", text(topic_filter)))
    for wire in (asks, leaves):
        last = await wire.closed()
        assert (last and (last.kind, last.body[0])) == ((14, 0x81) if version == 5 else None)
    assert len(rig.subscriptions) == 0


@both
@states("MQTT-4.8.0-1", "MQTT5-4.13.1-1")
@pytest.mark.parametrize(("qos", "kind"), [(1, 5), (1, 7), (2, 4), (2, 7)])
async def test_acknowledgement_of_the_wrong_kind(rig, version, qos, kind):
    """An acknowledgement that the message's QoS does not have ends the connection (0x82)."""
    wire = await rig.wire(version, clean=False)
    await wire.subscribe(("t", qos))
    rig.door.publish("t", b"x", qos=qos)
    wire.ack(kind, (await wire.message()).id)
    last = await wire.closed()
    assert (last and (last.kind, last.body[0])) == ((14, 0x82) if version == 5 else None)
    again = await rig.wire(version, clean=False)
    assert (await again.message()).payload == b"x"


@both
async def test_acknowledgement_of_something_unknown(rig, version):
    """An acknowledgement of a packet id that is not in use is passed over."""
    wire = await rig.wire(version)
    for kind in (4, 7):
        wire.ack(kind, 99)
    await wire.ping()


@states("MQTT5-3.3.2-8", "MQTT5-3.8.3-4", "MQTT5-4.13.1-1")
@pytest.mark.parametrize(
    "data",
    [
        packet(0x30, text(""), b"\0", b"x"),
        packet(0x82, number(1), b"\x02\x0b\0", text("t"), b"\0"),
        packet(0x82, number(1), b"\0", text("$share/g/t"), b"\x04"),
    ],
    ids=["no topic and no alias", "subscription identifier 0", "no local at a shared subscription"],
)
async def test_protocol_error(rig, data):
    """What the standard calls a protocol error ends the connection with 0x82."""
    wire = await rig.wire(5)
    wire.send(data)
    assert (await wire.closed()).body[0] == 0x82


# --- the client's Maximum Packet Size -----------------------------------------------------------


@states("MQTT5-3.1.2-24")
@pytest.mark.parametrize("largest", [5, 8, 13, 1000])
async def test_connack_within_what_the_client_takes(rig, largest):
    """CONNACK leaves out what does not fit into the client's Maximum Packet Size."""
    wire = await rig.socket(5)
    answer = await wire.connect("c", max_packet_size=largest)
    assert len(answer.raw) <= largest
    await wire.ping()


@states("MQTT5-3.1.2-24")
@pytest.mark.parametrize(("client_id", "largest"), [("c", 2), ("c", 4), ("", 20)])
async def test_no_connack_fits(rig, client_id, largest):
    """A client that can't take what its CONNACK must say is not connected and gets nothing larger."""
    wire = await rig.socket(5)
    wire.send(wire.connect_packet(client_id, max_packet_size=largest))
    last = await wire.closed()
    assert last is None or len(last.raw) <= largest
    assert rig.broker.clients_connected == 0
    assert rig.counters[Counter.CONNECTIONS_ENDED_ANSWER_TOO_LARGE] == 1


@states("MQTT5-3.1.2-24")
async def test_answers_within_what_the_client_takes(rig):
    """A SUBSCRIBE or UNSUBSCRIBE whose answer the client can't take ends the connection (0x95)."""
    filters = [f"t/{index}" for index in range(30)]
    for kind, client_id in ((9, "asks"), (11, "leaves")):
        wire = await rig.wire(5, client_id=client_id, max_packet_size=20)
        ask = wire.subscribe if kind == 9 else wire.unsubscribe
        assert len(await ask(*filters[:15])) == 15
        if kind == 9:
            wire.send(wire.subscribe_packet(*filters))
        else:
            names = b"".join(text(each) for each in filters)
            wire.send(packet(0xA2, number(1), b"\0", names))
        last = await wire.closed()
        assert (last.kind, last.body[0]) == (14, 0x95)
    assert rig.counters[Counter.CONNECTIONS_ENDED_ANSWER_TOO_LARGE] == 2


# --- Payload Format Indicator -------------------------------------------------------------------


@states("MQTT5-3.3.2-4")
@pytest.mark.parametrize("indicator", [None, 0, 1])
async def test_payload_format_indicator(rig, indicator):
    """The Payload Format Indicator arrives as it was sent, 0 too, and not where none was sent."""
    subscriber = await rig.wire(5, client_id="subscriber")
    await subscriber.subscribe("#")
    publisher = await rig.wire(5)
    told = b"\0" if indicator is None else bytes((2, 1, indicator))
    publisher.send(packet(0x33, text("t"), number(1), told, b"x"))
    await publisher.expect(4)
    assert (await subscriber.message()).raw.endswith(told + b"x")
    late = await rig.wire(5, client_id="late")
    await late.subscribe("t")
    assert (await late.message()).raw.endswith(told + b"x")


@states("MQTT5-3.3.2-4")
@pytest.mark.parametrize("indicator", [None, 0, 1])
async def test_payload_format_indicator_of_a_will(rig, indicator):
    """The Payload Format Indicator of a will arrives as it was sent, 0 too."""
    subscriber = await rig.wire(5, client_id="subscriber")
    await subscriber.subscribe("will")
    wire = await rig.socket(5)
    will = mqtt5.Will("will", payload=b"x")
    plain = mqtt5.ConnectPacket("c", clean_start=True, will=will).write()
    properties = b"\0" if indicator is None else bytes((2, 1, indicator))
    at = plain.index(b"\0" + text("will"))
    data = plain[:at] + properties + plain[at + 1 :]
    wire.send(data[:1] + bytes((len(data) - 2,)) + data[2:])
    await wire.expect(2)
    wire.abort()
    assert (await subscriber.message()).raw.endswith(properties + b"x")
