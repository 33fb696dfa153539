"""Topics and filters have a bound in bytes and in levels, as have QoS 2 messages of a client."""

from __future__ import annotations

import pytest
from broker_rig import Rig, both, rig  # noqa: F401

from appliance.broker.packet_ids import PacketIds
from appliance.counters import Counter

TOO_LONG = "t" * 1025
TOO_DEEP = "/" * 30
REFUSED = {
    TOO_LONG: Counter.TOPICS_REFUSED_TOO_LONG,
    TOO_DEEP: Counter.TOPICS_REFUSED_TOO_MANY_LEVELS,
}
TOPIC_NAME_INVALID = 0x90
TOPIC_FILTER_INVALID = 0x8F
RECEIVE_MAXIMUM_EXCEEDED = 0x93

each_topic = pytest.mark.parametrize("topic", REFUSED, ids=["long", "deep"])


@each_topic
async def test_a_topic_is_refused_where_that_can_be_said(rig, topic):  # noqa: F811
    """MQTT 5, QoS 1 and 2: the client is told and goes on. QoS 0: the connection ends."""
    wire = await rig.wire(5)
    for qos in (1, 2):
        assert (await wire.publish_acked(topic, qos=qos)).codes == [TOPIC_NAME_INVALID]
    assert (await wire.publish_acked(topic[:-1])).codes == [0]
    assert rig.counters[REFUSED[topic]] == 2
    wire.publish(topic)
    last = await wire.closed()
    assert (last.kind, last.body[0]) == (14, TOPIC_NAME_INVALID)
    assert [message.topic for message in rig.journaled()] == [topic[:-1]]


@each_topic
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_topic_ends_an_older_client(rig, topic, qos):  # noqa: F811
    """MQTT 3.1.1 has no way to refuse a message."""
    wire = await rig.wire(4)
    wire.publish(topic, qos=qos)
    assert await wire.closed() is None
    assert rig.counters[REFUSED[topic]] == 1
    assert not rig.journaled()


@each_topic
async def test_a_topic_behind_an_alias_is_refused(rig, topic):  # noqa: F811
    """An alias holds no more of a topic than it takes to refuse it."""
    wire = await rig.wire(5)
    for name in (topic, ""):
        wire.publish(name, qos=1, topic_alias=1)
        assert (await wire.expect(4)).codes == [TOPIC_NAME_INVALID]
    assert not rig.journaled()


@both
@each_topic
async def test_a_filter_is_refused(rig, version, topic):  # noqa: F811
    """The other filters of the SUBSCRIBE are granted. A share name counts too."""
    wire = await rig.wire(version)
    refused = TOPIC_FILTER_INVALID if version == 5 else 0x80
    filters = [topic, topic[:-1], f"$share/{topic[:-10].replace('/', '')}{'n' * 1020}/t", "#"]
    expected = [refused, 0, refused, 0]
    assert await wire.subscribe(*filters) == expected
    assert rig.counters[REFUSED[topic]] >= 1


@both
@each_topic
async def test_a_will_is_refused(rig, version, topic):  # noqa: F811
    """The client may not come in, and is told why."""
    wire = await rig.socket(version)
    wire.send(wire.connect_packet("c", will=(topic, b"gone", 1, False)))
    assert (await wire.expect(2)).body[1] == (TOPIC_NAME_INVALID if version == 5 else 5)
    assert rig.counters[REFUSED[topic]] == 1


async def test_limits_are_those_of_the_configuration(tmp_path):
    """They can be raised and lowered, for properties too."""
    async with Rig(
        tmp_path / "data", max_topic_length=2000, max_topic_levels=40, max_properties=2
    ) as wider:
        wire = await wider.wire(5)
        for topic in REFUSED:
            assert (await wire.publish_acked(topic)).codes == [0]
        for pairs, code in ((2, 0), (3, 0x97)):
            answer = await wire.publish_acked("t", user_properties=[("a", "b")] * pairs)
            assert answer.codes == [code]


@both
async def test_open_qos2_messages_are_bounded(tmp_path, version):
    """One more than allowed ends the connection; what is released makes room."""
    async with Rig(tmp_path / "data", max_qos2_ids=3) as rig:  # noqa: F811
        wire = await rig.socket(version)
        answer = await wire.connect("c", clean=False)
        if version == 5:
            assert b"\x21\0\x03" in answer.body  # Receive Maximum
        for number in (1, 2, 3):
            wire.publish("t", qos=2, id=number)
            await wire.expect(5)
        wire.ack(6, 2)
        await wire.expect(7)
        for number in (4, 1):  # the second is a repetition
            wire.publish("t", qos=2, id=number)
            await wire.expect(5)
        wire.publish("t", qos=2, id=5)
        last = await wire.closed()
        if version == 5:
            assert (last.kind, last.body[0]) == (14, RECEIVE_MAXIMUM_EXCEEDED)
        assert rig.counters[Counter.CONNECTIONS_ENDED_TOO_MANY_QOS2] == 1
        assert len(rig.journaled()) == 4


def test_packet_ids_are_a_small_set():
    """It holds what was put in and not taken out, in 8 KiB."""
    ids = PacketIds()
    kept = {1, 7, 8, 9, 4000, 65535}
    for number in (*kept, 1, 2, 65534):
        ids.add(number)
    for number in (2, 65534, 3):
        ids.discard(number)
    assert {number for number in range(1, 65536) if number in ids} == kept
    assert len(ids) == len(kept)
    for number in range(1, 65536):
        ids.add(number)
    assert len(ids) == 65535
    assert len(ids._bits) == 8192
