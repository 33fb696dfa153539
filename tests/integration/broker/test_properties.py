"""MQTT 5 properties count like payload, and one packet may hold only so many."""

from __future__ import annotations

import tracemalloc

import pytest
from broker_rig import Rig, hold_commits, number, packet, rig, text  # noqa: F401

from appliance.mqtt.packets import encode_length
from appliance.config.tables import AccessRule
from appliance.counters import Counter
from appliance.engine import live
from appliance.mqtt import decode
from appliance.mqtt.properties import CLIENT_LIMIT, CONNECT_LIMIT
from appliance.engine.live import LiveView
from appliance.journal.message_cost import content_of, cost_of, costs_of
from appliance.model import Message, MessageProperties

NOT_AUTHORIZED = 0x87
QUOTA_EXCEEDED = 0x97
PAIR = b"\x26" + text("a") + text("b")
MANY = CLIENT_LIMIT.pairs * PAIR


def properties(inner: bytes) -> bytes:
    return encode_length(len(inner)) + inner


def publish(inner: bytes, qos: int = 0, packet_id: int = 1) -> bytes:
    ids = number(packet_id) if qos else b""
    return packet(0x30 | qos << 1, text("own"), ids, properties(inner), b"x")


@pytest.mark.parametrize(
    "inner",
    [140_000 * PAIR, MANY + PAIR, b"\x26" + text("a") + text("b" * 65_535)],
    ids=["megabyte", "one pair too many", "bytes"],
)
async def test_too_many_properties(rig, inner):  # noqa: F811
    """At QoS 1 and 2 the message is refused and the client goes on; at QoS 0 it is ended."""
    wire = await rig.wire(5)
    for qos, answer in ((1, 4), (2, 5)):
        wire.send(publish(inner, qos))
        assert (await wire.expect(answer)).codes == [QUOTA_EXCEEDED]
    wire.send(publish(MANY, 1))
    assert (await wire.expect(4)).codes == [0]
    assert rig.counters[Counter.PUBLISHES_REFUSED_TOO_MANY_PROPERTIES] == 2
    wire.send(publish(inner))
    last = await wire.closed()
    assert (last.kind, last.body[0]) == (14, QUOTA_EXCEEDED)
    assert rig.counters[Counter.CONNECTIONS_ENDED_TOO_MANY_PROPERTIES] == 1
    assert len(rig.journaled()) == 1


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    ("pairs", "at_end"),
    [(MANY + PAIR, True), (MANY + PAIR, False), (40_000 * PAIR, False)],
    ids=["behind pairs", "before pairs", "before bytes"],
)
async def test_alias_of_a_refused_message(rig, qos, at_end, pairs):  # noqa: F811
    """A PUBLISH that is refused for its properties still gives its topic alias a meaning."""
    wire = await rig.wire(5)
    alias = b"\x23\0\x07"
    wire.send(publish(pairs + alias if at_end else alias + pairs, qos))
    assert (await wire.expect(3 + qos)).codes == [QUOTA_EXCEEDED]
    wire.publish("", b"short", 1, topic_alias=7)
    assert (await wire.expect(4)).codes == [0]
    assert [m.topic for m in rig.journaled()] == ["own"]


async def test_alias_of_a_forbidden_topic(tmp_path):
    """A topic alias has its meaning where the client may not publish, too."""
    rule = AccessRule(user="*", publish=("mine",), subscribe=())
    async with Rig(tmp_path / "data", rules=(rule,)) as rig:  # noqa: F811
        wire = await rig.wire(5)
        for topic in ("another's", ""):
            wire.publish(topic, b"x", 1, topic_alias=3)
            assert (await wire.expect(4)).codes == [NOT_AUTHORIZED]


@pytest.mark.parametrize("place", ["connect", "will"])
async def test_properties_of_a_stranger(rig, place):  # noqa: F811
    """A CONNECT holds a few kilobytes of properties, its will too; more is refused with 0x97."""
    for inner, code in (
        (CONNECT_LIMIT.pairs * PAIR, 0),
        ((CONNECT_LIMIT.pairs + 1) * PAIR, QUOTA_EXCEEDED),
        (3 * (b"\x26" + text("a") + text("b" * 63_000)), QUOTA_EXCEEDED),
    ):
        wire = await rig.socket(5)
        own, of_will = (inner, b"") if place == "connect" else (b"", inner)
        head = text("MQTT") + bytes((5, 0x06)) + number(0) + properties(own) + text("c")
        wire.send(packet(0x10, head, properties(of_will), text("gone"), text("x")))
        assert (await wire.expect(2)).body[1] == code
    assert rig.counters[Counter.CONNECTIONS_ENDED_TOO_MANY_PROPERTIES] == 2


async def test_properties_count_in_every_bound(tmp_path, monkeypatch):
    """Messages of one byte and many properties fill a queue, the retained and the live view."""
    monkeypatch.setattr(live, "KEPT_BYTES", 2**20)
    view = LiveView(lambda: 0.0)
    async with Rig(
        tmp_path / "data", observe=view.add, max_client_backlog=2**20, max_retained_size=2**20
    ) as rig:  # noqa: F811
        absent = await rig.wire(5, client_id="absent", clean=False)
        await absent.subscribe(("own", 1))
        absent.disconnect()
        await absent.closed()
        wire = await rig.wire(5)
        large = CLIENT_LIMIT.pairs * (b"\x26" + text("a" * 25) + text("b" * 25))
        for packet_id in range(1, 41):
            wire.send(publish(large, 1, packet_id))
            assert (await wire.expect(4)).codes == [0]
        await rig.settled()
        cost = cost_of(rig.journaled()[0])
        assert cost > 50 * CLIENT_LIMIT.pairs
        fitting = 2**20 // cost
        assert len(view.newest(0, 100)) == fitting
        assert view.kept_bytes == fitting * cost
        assert rig.broker.sessions.get("absent").outbox.queued == fitting
        assert rig.counters[Counter.DELIVERIES_DROPPED_QUEUE_FULL] == 40 - fitting
        for place in range(25):
            topic = text(f"kept/{place}")
            wire.send(packet(0x33, topic, number(place + 1), properties(large), b"x"))
            await wire.expect(4)
        await rig.settled()
        assert len(rig.retained) == fitting
        assert rig.counters[Counter.RETAINED_MESSAGES_REFUSED] == 25 - fitting


async def test_properties_slow_their_publisher(tmp_path, monkeypatch):
    """What is accepted and not committed is bounded by its real size."""
    async with Rig(tmp_path / "data", max_pending=65536) as rig:  # noqa: F811
        wire = await rig.wire(5)
        go = hold_commits(monkeypatch)
        large = CLIENT_LIMIT.pairs * (b"\x26" + text("a" * 25) + text("b" * 25))
        wire.send(publish(large, 1, 1) + publish(large, 1, 2))
        await rig.until(lambda: rig.counters[Counter.PUBLISHERS_SLOWED])
        go.set()
        await wire.expect(4)
        assert rig.counters[Counter.PUBLISHERS_SLOWED] == 1


def test_cost():
    """Each part of a message counts; text beyond ASCII as CPython may store it."""
    plain = Message(1, 0, "t", b"xyz")
    assert cost_of(plain) == 128 + 1 + 3
    assert cost_of(Message(1, 0, "t" * 1000 + "\N{ROCKET}", b"")) >= 4000
    for one in (
        MessageProperties(content_type="c" * 1000),
        MessageProperties(response_topic="r" * 1000),
        MessageProperties(correlation_data=b"d" * 1000),
        MessageProperties(user_properties=(("k" * 500, "v" * 500),)),
    ):
        assert (
            cost_of(Message(1, 0, "t", b"xyz", properties=one.encoded())) >= cost_of(plain) + 1000
        )
    for topic in ("t", "\N{ROCKET}"):
        for one in (None, MessageProperties(content_type="c").encoded()):
            message = Message(1, 0, topic, b"xyz", properties=one)
            assert costs_of([message]) == [cost_of(message)] == [128 + content_of(message)]


def test_cost_is_the_memory_that_a_message_takes():
    """What bounds count for a message with many properties is what the process has in use."""
    body = b"".join(b"\x26" + text(f"name{n}") + text("value") for n in range(1000))
    body = encode_length(len(body)) + body
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [
            Message(n, 0, "t", b"", properties=decode.publish_properties(body, 0, len(body))[0])
            for n in range(50)
        ]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.8 < taken / sum(costs_of(kept)) < 1.2
    assert taken / 50 < 1.2 * len(body)
