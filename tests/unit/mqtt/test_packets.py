"""Packets: for any bytes the decoders answer with a packet or with PacketError."""

from __future__ import annotations

from functools import partial

import mqtt5
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.mqtt import decode
from appliance.mqtt import v5_encode
from appliance.mqtt import packets
from appliance.broker.outbox import Delivery
from appliance.mqtt.packets import PacketError, Reason
from appliance.model import Message, MessageProperties

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
TOPIC = TEXT.map(lambda s: s.replace("+", "").replace("#", "")).filter(bool)
DECODERS = [
    packets.publish_topic,
    packets.protocol_version,
    decode.disconnect,
    lambda body: decode.publish_properties(body, 0, len(body)),
    *(
        partial(each, version=version)
        for version in (4, 5)
        for each in (
            decode.connect,
            decode.subscribe,
            decode.unsubscribe,
            partial(decode.acknowledgement, is_of_release=True),
            partial(decode.acknowledgement, is_of_release=False),
        )
    ),
]


@given(st.binary(max_size=80))
@example(b"\0\4MQTT\5\2\0\0\0\0\1\xff")
def test_arbitrary_bytes(data):
    """No bytes of a client make a decoder fail in any other way than by PacketError."""
    for decoder in DECODERS:
        try:
            decoder(data)
        except PacketError as error:
            assert isinstance(error.reason, Reason)
            assert str(error)
    try:
        found = packets.frame(data, 0, 1000)
        packets.check_flags(data[0] if data else 0x10)
    except PacketError:
        return
    assert found is None or found[0] <= found[1]


def body(raw: bytes) -> tuple[int, bytes]:
    start, stop = packets.frame(raw, 0, 10**9)
    assert stop == len(raw)
    return raw[0], raw[start:stop]


@given(
    client_id=TEXT,
    clean=st.booleans(),
    keepalive=st.integers(0, 65535),
    username=st.none() | TEXT,
    password=st.none() | st.binary(max_size=40),
    will=st.none() | st.tuples(TOPIC, st.binary(max_size=40), st.integers(0, 2), st.booleans()),
    expiry=st.integers(0, 2**32 - 1),
    receive=st.integers(1, 65535),
    largest=st.none() | st.integers(1, 2**32 - 1),
)
def test_connect_5(client_id, clean, keepalive, username, password, will, expiry, receive, largest):
    """What an independent codec writes as CONNECT is read back as it was meant."""
    raw = mqtt5.ConnectPacket(
        client_id,
        clean_start=clean,
        keep_alive=keepalive,
        username=username,
        password=password,
        will=will and mqtt5.Will(will[0], payload=will[1], qos=mqtt5.QoS(will[2]), retain=will[3]),
        session_expiry_interval=expiry,
        receive_max=receive,
        max_packet_size=largest,
    ).write()
    first, data = body(raw)
    asked = decode.connect(data, 5)
    assert first == 0x10
    assert asked == packets.Connect(
        version=5,
        client_id=client_id,
        clean_start=clean,
        keepalive_s=keepalive,
        username=username,
        password=password,
        will=will and packets.Will(*will),
        session_expiry_s=expiry,
        receive_maximum=receive,
        maximum_packet_size=largest,
    )


PROPERTIES = st.builds(
    MessageProperties,
    payload_format=st.integers(0, 1),
    message_expiry_s=st.none() | st.integers(0, 2**32 - 1),
    content_type=st.none() | TEXT,
    response_topic=st.none() | TOPIC,
    correlation_data=st.none() | st.binary(max_size=20),
    user_properties=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
)


@given(TOPIC, st.binary(max_size=300), st.integers(0, 2), st.booleans(), PROPERTIES)
def test_publish_5(topic, payload, qos, retain, properties):
    """What is sent as PUBLISH has the properties that it came with, and is read back so."""
    message = Message(1, 0, topic, payload)
    raw = v5_encode.encode_publish(
        message,
        properties,
        qos,
        retain=retain,
        duplicate=False,
        packet_id=7,
        expiry_s=properties.message_expiry_s,
        identifiers=(),
    )
    first, data = body(raw)
    assert first == 0x30 | qos << 1 | retain
    start = 2 + len(topic.encode()) + (2 if qos else 0)
    found, alias, payload_start = decode.publish_properties(data, start, len(data))
    assert (found.decoded() if found else MessageProperties()) == properties
    assert alias is None
    assert data[payload_start:] == payload


@given(TOPIC, st.binary(max_size=300), st.integers(0, 2), st.booleans(), st.booleans())
def test_publish_311(topic, payload, qos, retain, dup):
    """A 3.1.1 PUBLISH is what the standard says, byte by byte."""
    raw = packets.encode_publish(
        topic.encode(), payload, qos, retain=retain, duplicate=dup, packet_id=258
    )
    first, data = body(raw)
    assert first == 0x30 | dup << 3 | qos << 1 | retain
    name = topic.encode()
    assert data == len(name).to_bytes(2) + name + (b"\1\2" if qos else b"") + payload


@given(st.lists(st.tuples(TOPIC, st.integers(0, 2)), min_size=1, max_size=5), st.integers(1, 65535))
def test_subscribe(wanted, packet_id):
    """What amqtt is given of a SUBSCRIBE is what the client asked for, in both versions."""
    options = tuple(packets.SubscribeOptions(name, qos) for name, qos in wanted)
    first, data = body(packets.encode_host_subscribe(packet_id, options))
    assert first == 0x82
    assert decode.subscribe(data, 4) == (packet_id, options)
    raw = mqtt5.SubscribePacket(
        packet_id,
        [
            mqtt5.TopicFilter(name, max_qos=mqtt5.QoS(qos), retain_as_published=False)
            for name, qos in [("a/b", 1), ("#", 2)]
        ],
    ).write()
    assert decode.subscribe(body(raw)[1], 5)[1] == (
        packets.SubscribeOptions("a/b", 1),
        packets.SubscribeOptions("#", 2),
    )


@given(st.lists(TOPIC, min_size=1, max_size=5), st.integers(1, 65535))
def test_unsubscribe(filters, packet_id):
    """What amqtt is given of an UNSUBSCRIBE is what the client asked for."""
    _, data = body(packets.encode_host_unsubscribe(packet_id, tuple(filters)))
    assert decode.unsubscribe(data, 4) == (packet_id, tuple(filters))


@given(st.integers(0, 268435455))
def test_length(size):
    """A length is written in its shortest form and read back."""
    data = packets.encode_length(size)
    assert len(data) == 1 + (size > 127) + (size > 16383) + (size > 2097151)
    assert packets.frame(b"\x30" + data, 0, 2**30) == (1 + len(data), 1 + len(data) + size)
    assert packets.frame(b"\x30" + data[:-1], 0, 2**30) is None
    assert decode.variable_number(packets.Body(data)) == size


@pytest.mark.parametrize("reason", list(Reason))
def test_every_refusal_is_one_that_the_standard_has(reason):
    """A CONNACK has only reason codes that clients know in a CONNACK."""
    raw = v5_encode.encode_refusal(reason)
    if reason in (
        Reason.SUCCESS,
        Reason.NO_SUBSCRIPTION_EXISTED,
        Reason.PACKET_ID_NOT_FOUND,
        Reason.TOPIC_FILTER_INVALID,
        Reason.TOPIC_ALIAS_INVALID,
        Reason.RECEIVE_MAXIMUM_EXCEEDED,
        Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    ):
        return  # never a reason to refuse a client
    mqtt5.read(memoryview(raw))
    assert raw[3] >= 0x80
    assert packets.encode_refusal(reason)[3] in range(1, 6)


def test_secrets_are_not_shown():
    """A CONNECT shows no password where it is printed."""
    asked = packets.Connect(4, "c", True, 0, username="ann", password=b"hunter2")
    assert "hunter2" not in repr(asked)
    assert "hunter2" not in repr(Delivery(Message(1, 0, "t", b"x"), 0, False))
