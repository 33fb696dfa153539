"""Packets of a client: what is encoded is what a broker reads, and no answer of a hostile broker
makes a decoder fail in any other way than by PacketError."""

from __future__ import annotations

import contextlib
from functools import partial

import mqtt5
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.model import Message, MessageProperties
from appliance.mqtt import client_packets, decode, packets, reasons, received, v5_encode
from appliance.mqtt.client_packets import ConnectOptions
from appliance.mqtt.packets import PacketError, SubscribeOptions
from appliance.secret import Secret

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
TOPIC = TEXT.map(lambda s: s.replace("+", "").replace("#", "")).filter(bool)
FILTER = TOPIC.map(lambda s: f"{s}/+")
VERSIONS = st.sampled_from([4, 5])
PACKET_ID = st.integers(1, 65535)
DECODERS = [
    client_packets.decode_disconnect,
    *(
        partial(each, version=version)
        for version in (4, 5)
        for each in (
            client_packets.decode_connack,
            client_packets.decode_suback,
            client_packets.decode_unsuback,
            client_packets.decode_puback,
        )
    ),
]


def body(raw: bytes) -> bytes:
    start, stop = packets.frame(raw, 0, 10**9)
    assert stop == len(raw)
    return raw[start:stop]


@given(st.binary(max_size=80))
@example(b"\0\0\x05\x1f\0\2\xff\xff")
def test_arbitrary_answers(data):
    """Any bytes of a broker are a packet or a PacketError."""
    for decoder in DECODERS:
        try:
            decoder(data)
        except PacketError as error:
            assert str(error)


@given(st.binary(max_size=80), VERSIONS)
@example(b"\x32\x08\0\1a\0\1\x82\x80\x80", 5)
def test_arbitrary_publishes(data, version):
    """Any bytes are PUBLISH packets, the start of one, or a PacketError; all is accounted for."""
    for begin in (data, b"\x32" + data, b"\x30" + data):
        try:
            found, position = received.read_publishes(begin, 0, 1000, version)
        except PacketError as error:
            assert str(error)
        else:
            assert 0 <= position <= len(begin)
            assert bool(found) == (position > 0)
        with contextlib.suppress(PacketError):
            received.oversized(begin, 0)


@given(
    version=VERSIONS,
    client_id=TEXT,
    clean=st.booleans(),
    keepalive=st.integers(0, 65535),
    username=st.none() | TEXT,
    password=st.none() | TEXT,
    expiry=st.integers(0, packets.FOR_EVER),
    window=st.none() | st.integers(1, 65535),
    size=st.none() | st.integers(1, 2**32 - 1),
)
def test_connect(version, client_id, clean, keepalive, username, password, expiry, window, size):
    """A CONNECT says what was asked for, in both versions."""
    if version == 4 and username is None:
        password = None  # 3.1.1 has no password without a user name
    raw = client_packets.encode_connect(
        ConnectOptions(
            version=version,
            client_id=client_id,
            clean_start=clean,
            keepalive_s=keepalive,
            username=username,
            password=None if password is None else Secret(password),
            session_expiry_s=expiry,
            receive_maximum=window,
            maximum_packet_size=size,
        )
    )
    read = decode.connect(body(raw), version)
    assert (read.version, read.client_id, read.clean_start) == (version, client_id, clean)
    assert (read.keepalive_s, read.username) == (keepalive, username)
    assert read.password == (None if password is None else password.encode())
    if version == 5:
        assert read.session_expiry_s == expiry
        assert read.receive_maximum == (window or 65535)
        assert read.maximum_packet_size == size


def test_connect_is_secret():
    """The password is in no text form of the options."""
    options = ConnectOptions(version=5, client_id="c", password=Secret("hunter2"))
    assert "hunter2" not in repr(options)
    assert b"hunter2" in client_packets.encode_connect(options)


def test_too_long():
    """A name that MQTT can't carry is refused, not cut."""
    with pytest.raises(ValueError, match="user name"):
        client_packets.encode_connect(
            ConnectOptions(version=4, client_id="c", username="u" * 65536)
        )


@given(
    VERSIONS,
    PACKET_ID,
    st.lists(
        st.builds(
            SubscribeOptions,
            FILTER,
            st.integers(0, 1),
            st.booleans(),
            st.booleans(),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_subscribe(version, packet_id, wanted):
    """SUBSCRIBE and UNSUBSCRIBE name their filters; options reach MQTT 5 brokers only."""
    raw = client_packets.encode_subscribe(packet_id, wanted, version)
    assert raw[0] == 0x82
    got_id, got = decode.subscribe(body(raw), version)
    assert got_id == packet_id
    if version == 5:
        assert list(got) == wanted
    else:
        assert list(got) == [SubscribeOptions(each.topic_filter, each.qos) for each in wanted]
    names = [each.topic_filter for each in wanted]
    raw = client_packets.encode_unsubscribe(packet_id, names, version)
    assert raw[0] == 0xA2
    assert decode.unsubscribe(body(raw), version) == (packet_id, tuple(names))


@given(
    st.sampled_from([0, 0x80, 0x84, 0x87, 0x97, 0x9C, 0x9D]),
    st.booleans(),
    st.integers(1, 65535),
    st.none() | st.integers(1, 2**32 - 1),
    st.none() | st.integers(0, 65535),
    st.none() | TEXT,
    st.none() | TEXT,
    st.integers(0, 1),
    st.booleans(),
)
def test_connack(reason, present, window, size, keepalive, assigned, text, qos, available):
    """All that MQTT 5 brokers tell in CONNACK is read."""
    raw = mqtt5.ConnAckPacket(
        reason_code=mqtt5.ConnAckReasonCode(reason),
        session_present=present,
        receive_max=window,
        max_packet_size=size,
        server_keep_alive=keepalive,
        assigned_client_id=assigned,
        reason_str=text,
        server_reference=text,
        max_qos=mqtt5.QoS(qos),
        retain_available=available,
        shared_subscription_available=available,
        wildcard_subscription_available=not available,
        user_properties=[("a", "b")],
    ).write()
    got = client_packets.decode_connack(body(raw), 5)
    assert got == client_packets.ConnAck(
        reason=reason,
        session_present=present and not reason,
        receive_maximum=window,
        maximum_packet_size=size,
        server_keepalive_s=keepalive,
        assigned_client_id=assigned or "",
        reason_string=text or "",
        server_reference=text or "",
        maximum_qos=qos,
        retain_available=available,
        shared_subscriptions_available=available,
        wildcards_available=not available,
    )


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("code", "reason"), [(1, 0x84), (2, 0x85), (3, 0x88), (4, 0x86), (5, 0x87)]
)
def test_connack_311(version, code, reason):
    """Return codes of 3.1.1 are read as reason codes, also as an answer to MQTT 5."""
    got = client_packets.decode_connack(bytes((0, code)), version)
    assert got.reason == reason
    assert "reason code" not in reasons.text(reason)


def test_connack_311_unknown():
    """An unknown return code is no success."""
    assert client_packets.decode_connack(b"\0\x09", 4).reason == 0x80
    assert client_packets.decode_connack(b"\1\0", 4).session_present


def test_acknowledgements():
    """SUBACK, UNSUBACK, PUBACK and DISCONNECT in both versions."""
    raw = body(mqtt5.SubAckPacket(7, [mqtt5.SubAckReasonCode(0x87)], reason_str="no").write())
    assert client_packets.decode_suback(raw, 5) == (7, (0x87,), "no")
    assert client_packets.decode_suback(b"\0\7\1\x80", 4) == (7, (1, 0x80), "")
    raw = body(mqtt5.UnsubAckPacket(7, [mqtt5.UnsubAckReasonCode(0x11)]).write())
    assert client_packets.decode_unsuback(raw, 5) == (7, (0x11,), "")
    assert client_packets.decode_unsuback(b"\0\7", 4) == (7, (), "")
    raw = body(
        mqtt5.PubAckPacket(7, reason_code=mqtt5.PubAckReasonCode(0x97), reason_str="full").write()
    )
    assert client_packets.decode_puback(raw, 5) == (7, 0x97, "full")
    assert client_packets.decode_puback(b"\0\7", 4) == (7, 0, "")
    assert client_packets.decode_puback(b"\0\7\x10", 5) == (7, 0x10, "")
    raw = body(
        mqtt5.DisconnectPacket(
            reason_code=mqtt5.DisconnectReasonCode(0x9D), reason_str="away", server_reference="b:1"
        ).write()
    )
    assert client_packets.decode_disconnect(raw) == (0x9D, "away", "b:1")
    assert client_packets.decode_disconnect(b"") == (0, "", "")


PROPERTIES = st.builds(
    MessageProperties,
    message_expiry_s=st.none() | st.integers(0, 2**32 - 1),
    content_type=st.none() | TEXT,
    correlation_data=st.none() | st.binary(max_size=9),
    user_properties=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
)
PUBLISHED = st.tuples(
    TOPIC,
    st.binary(max_size=200),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    PACKET_ID,
    PROPERTIES,
)


def encoded(version, topic, payload, qos, retain, dup, packet_id, properties):
    flags = {"retain": retain, "duplicate": dup and qos > 0, "packet_id": packet_id}
    if version == 4:
        return packets.encode_publish(topic.encode(), payload, qos, **flags)
    return v5_encode.encode_publish(
        Message(1, 1, topic, payload),
        properties,
        qos,
        expiry_s=properties.message_expiry_s,
        identifiers=(),
        **flags,
    )


@given(VERSIONS, st.lists(PUBLISHED, max_size=4), st.integers(0, 30))
def test_publishes(version, sent, cut):
    """PUBLISH packets in a row are read as they were sent; a part of one stays where it is."""
    raws = [encoded(version, *each) for each in sent]
    data = b"".join(raws)
    tail = encoded(version, "tail", bytes(40), 1, False, False, 9, MessageProperties())[:cut]
    found, position = received.read_publishes(data + tail, 0, 10**6, version)
    assert position == len(data)
    assert len(found) == len(sent)
    for got, (topic, payload, qos, retain, dup, packet_id, properties) in zip(
        found, sent, strict=True
    ):
        assert packets.publish_topic(got.topic) == topic
        assert (got.payload, got.qos, got.retain, got.problem) == (payload, qos, retain, "")
        assert got.dup == (dup and qos > 0)
        assert got.packet_id == (packet_id if qos else 0)
        if version == 5:
            kept = got.properties.decoded() if got.properties else MessageProperties()
            assert kept == properties


def test_publishes_stop_at_others():
    """Another packet ends the row, and at most so many are decoded in one go."""
    one = packets.encode_publish(b"t", b"p", 1, retain=False, duplicate=False, packet_id=1)
    found, position = received.read_publishes(one * 3 + b"\xd0\0" + one, 0, 100, 4)
    assert (len(found), position) == (3, 3 * len(one))
    found, position = received.read_publishes(one * 3, 0, 100, 4, most=2)
    assert (len(found), position) == (2, 2 * len(one))


def test_bad_message_in_an_intact_packet():
    """A message that a publisher made badly is refused alone; what follows it is read."""
    properties = b"\x08\0\3a/#"  # a response topic with a wildcard
    bad = packets.packet(0x32, b"\0\1t\0\1" + bytes((len(properties),)) + properties + b"p")
    good = packets.packet(0x32, b"\0\1t\0\2\0p")
    found, position = received.read_publishes(bad + good, 0, 100, 5)
    assert position == len(bad + good)
    assert "response topic" in found[0].problem
    assert (found[0].packet_id, found[1].packet_id, found[1].problem) == (1, 2, "")
    alias = packets.packet(0x32, b"\0\0\0\1\3\x23\0\1p")
    assert received.read_publishes(alias, 0, 100, 5)[0][0].problem


@pytest.mark.parametrize(
    "raw", ["3600", "320500017400", "32050001740000", "30020005", "3005000174ff"]
)
def test_malformed(raw):
    """A packet whose form is broken raises, and the packets before it are not lost."""
    data = bytes.fromhex(raw).ljust(12, b"\0")
    with pytest.raises(PacketError):
        received.read_publishes(data, 0, 100, 5)
    good = packets.packet(0x32, b"\0\1t\0\2\0p")
    found, position = received.read_publishes(good + data, 0, 100, 5)
    assert (len(found), position) == (1, len(good))


def test_oversized():
    """The beginning of a message that is too large tells how to acknowledge and skip it."""
    big = packets.encode_publish(b"t/a", bytes(5000), 1, retain=False, duplicate=True, packet_id=77)
    with pytest.raises(PacketError) as error:
        received.read_publishes(big[:100], 0, 1000, 4)
    assert error.value.reason is packets.Reason.PACKET_TOO_LARGE
    assert received.oversized(big[:100], 0) == received.Oversized("t/a", 1, 77, len(big))
    assert received.oversized(big[:4], 0) is None
