"""What one client sends is worked off in short steps: other clients get their turn between them.

Work is counted in items for each step of the loop, not in time.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from broker_rig import Rig, both, packet, rig, text  # noqa: F401

from appliance.broker import door, work
from appliance.broker.access import Terms
from appliance.broker.connection import Connection
from appliance.broker.outbox import Outbox
from appliance.broker.publish import PublishReader
from appliance.broker.server import MqttBroker
from appliance.broker.sessions import Sessions
from appliance.broker.subscriptions import Retained
from appliance.config.tables import AccessConfig, AccessRule
from appliance.counters import Counter as Counted
from appliance.mqtt.packets import SubscribeOptions


class Steps:
    """Counts the steps of the loop, and what was done in each of them."""

    def __init__(self) -> None:
        self.now = 0
        self.done: Counter[int] = Counter()
        self._tick()

    def _tick(self) -> None:
        self.now += 1
        self._handle = asyncio.get_running_loop().call_soon(self._tick)

    def note(self) -> None:
        self.done[self.now] += 1

    def stop(self) -> None:
        self._handle.cancel()


@pytest.fixture
async def steps():
    counting = Steps()
    yield counting
    counting.stop()


@both
@pytest.mark.parametrize("method", ["subscribe", "unsubscribe"])
async def test_many_filters_in_one_packet(rig, version, steps, monkeypatch, method):
    """Hundreds of filters are carried out a few in a step, and answered in one packet."""
    filters = [f"plant/{number}/+" for number in range(500)]
    wire = await rig.wire(version)
    await wire.subscribe(*filters)
    original = getattr(Sessions, method)

    def noted(*arguments):
        steps.note()
        return original(*arguments)

    monkeypatch.setattr(Sessions, method, noted)
    codes = await getattr(wire, method)(*filters)
    assert len(codes) == (500 if version == 5 or method == "subscribe" else 0)
    assert sum(steps.done.values()) == 500
    assert max(steps.done.values()) <= 32


@both
async def test_filters_beyond_the_limit_are_not_looked_at(tmp_path, version):
    """A packet of more filters than a client may have ends the connection before they are read."""
    async with Rig(tmp_path / "data", max_subscriptions_per_client=3) as rig:
        properties = b"\0" if version == 5 else b""
        for first, each in ((0x82, text("a") + b"\0"), (0xA2, text("a"))):
            wire = await rig.wire(version)
            wire.send(packet(first, b"\0\1", properties, each * 3, b"\xff"))
            last = await wire.closed()
            assert last is None or last.body[:1] == b"\x97"
        assert rig.counters[Counted.SUBSCRIPTIONS_REFUSED_LIMIT] == 2


@both
async def test_retained_messages_are_searched_and_sent_in_steps(rig, version, steps, monkeypatch):
    """A subscription to many retained messages delivers all of them, a bounded part a step."""
    sender = await rig.wire(version, client_id="sender")
    for number in range(1000):
        sender.publish(f"r/{number}", b"x", retain=True)
    await sender.ping()
    await rig.settled()
    wire = await rig.wire(version)
    session = rig.broker.sessions.get("tester")
    sink = session.outbox.sink
    original = type(sink).send_publish

    def noted(self, *arguments, **more):
        steps.note()
        return original(self, *arguments, **more)

    monkeypatch.setattr(type(sink), "send_publish", noted)
    await wire.subscribe("#", "+/+")
    found = [await wire.message() for _ in range(2000)]
    assert len({each.topic for each in found}) == 1000
    assert max(steps.done.values()) <= 200
    await wire.nothing_more()


@both
async def test_a_retained_message_that_comes_while_old_ones_are_searched_comes_once(rig, version):
    """It is new for the subscription: it comes as it is published, and not as a retained one."""
    sender = await rig.wire(version, client_id="sender")
    for number in range(1000):
        sender.publish(f"r/{number}", b"old", retain=True)
    await sender.ping()
    await rig.settled()
    wire = await rig.wire(version)
    wire.send(wire.subscribe_packet(("#", 1)))
    await wire.expect(9)
    for number in (0, 999):
        await sender.publish_acked(f"r/{number}", b"new", 1, retain=True)
    await sender.publish_acked("r/end", b"end", 1, retain=True)
    found = []
    while not found or found[-1].payload != b"end":
        found += await wire.messages(1)
    new = [each for each in found if each.payload == b"new"]
    assert [(each.topic, each.retain) for each in new] == [("r/0", False), ("r/999", False)]
    assert len([each for each in found if each.retain]) >= 998
    assert len(found) == len({(each.topic, each.payload) for each in found})


async def test_a_long_read_is_taken_in_slices(rig, steps, monkeypatch):
    """Once the time of a slice is over, the rest of a read waits; nothing is lost or reordered."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    listener = await rig.wire(client_id="listener")
    await listener.subscribe(("#", 0))
    wire = await rig.wire()
    original = PublishReader.enter

    def noted(self):
        if self._messages:
            steps.note()
            taken.append(len(self._messages))
        original(self)

    taken: list[int] = []
    monkeypatch.setattr(PublishReader, "enter", noted)
    packets = [
        wire.publish_packet(f"t/{number % 7}", b"%d" % number) + b"\xc0\x00" * (number % 50 == 0)
        for number in range(6000)
    ]
    large = wire.publish_packet("t/large", b"6000" + b" " * 100_000)
    wire.send(b"".join(packets) + large + wire.publish_packet("t/last", b"6001"))
    wire.writer.write_eof()
    found = await listener.messages(6002)
    assert [int(each.payload) for each in found] == list(range(6002))
    assert max(taken) <= 1000
    assert len(steps.done) > 3


@both
async def test_a_message_to_many_subscriptions_is_handed_on_in_slices(
    tmp_path, version, steps, monkeypatch
):
    """A fan-out to many sessions is cut; each gets each message once, in the order they came."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    seen: dict[str, list[int]] = {}
    original = Outbox.deliver

    def noted(self, message, *arguments, **more):
        steps.note()
        if message.topic == "all/x":
            seen.setdefault(self.client_id, []).append(int(message.payload))
        original(self, message, *arguments, **more)

    async with Rig(tmp_path / "data") as rig:
        for number in range(500):
            session = rig.broker.sessions.begin(f"absent{number}", None, 100)
            for each in ("all/#", "all/+"):
                rig.broker.sessions.subscribe(session, SubscribeOptions(each, 1))
        monkeypatch.setattr(Outbox, "deliver", noted)
        wire = await rig.wire(version)
        for number in range(5):
            wire.publish("all/x", b"%d" % number, 1)
        for number in range(5):
            assert (await wire.expect(4)).id == number + 1
        await rig.settled()
        assert len(seen) == 500
        assert all(each == list(range(5)) for each in seen.values())
        assert max(steps.done.values()) <= 200


async def test_who_subscribes_or_leaves_during_a_fan_out(tmp_path, monkeypatch):
    """A subscription that is made meanwhile gets the message as a retained one, one that ended
    meanwhile does not get it any more, and what is noted of a queue is noted once."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    async with Rig(tmp_path / "data") as rig:
        sessions = rig.broker.sessions
        for number in range(1000):
            session = sessions.begin(f"absent{number:03}", None, 100)
            sessions.subscribe(session, SubscribeOptions("all/#", 2))
        await rig.settled()
        first, last = sessions.get("absent000"), sessions.get("absent999")
        message = rig.door.publish("all/x", b"x", qos=2, retain=True)
        while not first.outbox.queued:
            await asyncio.sleep(0)
        assert rig.door.fanned_out_seq < message, "the fan-out was over at once"
        sessions.unsubscribe(last, "all/#")
        sessions.save_queue(first)
        assert list(rig.retained.search("all/#", rig.door.matched_seq))[-1].seq == message
        await rig.settled()
        assert rig.door.fanned_out_seq == message
        assert last.outbox.queued == 0
        await rig.settled()
    async with Rig(tmp_path / "data") as rig:
        assert rig.broker.sessions.get("absent000").outbox.queued == 1
        assert rig.broker.sessions.get("absent001").outbox.queued == 1


@pytest.mark.parametrize("sessions_before", [0, 300])
async def test_a_subscription_that_is_replaced_during_a_fan_out_loses_nothing(
    rig, monkeypatch, sessions_before
):
    """MQTT 5 section 3.8.4: the message comes once; a new subscription does not get it.

    The steps are those of finding the subscribers, or of handing the message to many of them.
    """
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    sessions = rig.broker.sessions
    for number in range(1000):  # a tree of which each message looks at every node
        session = sessions.begin(f"deep{number}", None, 100)
        levels = ["+" if number >> bit & 1 else "a" for bit in range(10)]
        sessions.subscribe(session, SubscribeOptions("/".join([*levels, "+", "+", "x"]), 1))
    topic = "/".join("a" * 13)
    names = [f"s{number}" for number in range(sessions_before)] + ["kept", "ended"]
    for name in names:
        sessions.subscribe(sessions.begin(name, None, 100), SubscribeOptions("a/#", 1))
    await rig.settled()
    seq = rig.door.publish(topic, b"x", qos=1)
    while rig.subscriptions.matched_seq < seq:
        await asyncio.sleep(0)
    assert rig.door.fanned_out_seq < seq, "the fan-out was over at once"
    sessions.subscribe(sessions.get("kept"), SubscribeOptions("a/#", 1))
    sessions.unsubscribe(sessions.get("ended"), "a/#")
    sessions.subscribe(sessions.begin("new", None, 100), SubscribeOptions("a/#", 1))
    await rig.settled()
    queued = {name: sessions.get(name).outbox.queued for name in [*names, "new"]}
    assert [name for name, count in queued.items() if count != 1] == ["ended", "new"]
    assert queued["ended"] == queued["new"] == 0


async def test_publishers_wait_while_messages_are_handed_on(rig, monkeypatch):
    """What is committed and not handed on is bounded: its publishers are paused and go on."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    monkeypatch.setattr(door, "_MOST_BEHIND", 10_000)
    is_released = False
    fan_out_in_steps = rig.subscriptions.fan_out_in_steps

    def held_fan_out(messages):
        while not is_released:
            yield
        yield from fan_out_in_steps(messages)

    monkeypatch.setattr(rig.subscriptions, "fan_out_in_steps", held_fan_out)
    rig.broker.sessions.subscribe(
        rig.broker.sessions.begin("absent", None, 1000), SubscribeOptions("#", 1)
    )
    wire = await rig.wire()
    number = 0
    while not rig.counters[Counted.PUBLISHERS_SLOWED]:  # each is a commit of its own
        number += 1
        assert number <= 100, "nothing bounds what is committed and not handed on"
        wire.publish(f"t/{number}", b"x" * 500, 1)
        assert (await wire.expect(4)).id == number
    wire.publish("t/last", b"x", 1)  # not read before there is room
    assert rig.door.fanned_out_seq == 0
    is_released = True
    assert (await wire.expect(4)).id == number + 1
    await rig.settled()
    assert rig.broker.sessions.get("absent").outbox.queued == number + 1


async def test_many_sessions_are_looked_at_a_few_in_a_step(rig, steps, monkeypatch):
    """The look at every session, once a second, lets others have their turn between the sessions."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    for number in range(200):
        session = rig.broker.sessions.begin(f"c{number}", None, 1000)
        rig.broker.sessions.leave(session)
    for owner, method in ((MqttBroker, "_client_state"), (Sessions, "_save_late_place")):
        original = getattr(owner, method)

        def noted(*arguments, original=original, **options):
            steps.note()
            return original(*arguments, **options)

        monkeypatch.setattr(owner, method, noted)
    await rig.broker._sweep_once()
    assert len(rig.broker.clients()) == 200
    assert sum(steps.done.values()) >= 400
    assert max(steps.done.values()) <= 4  # the broker's own look may come at the same time


async def test_changed_rules_are_carried_out_a_filter_at_a_time(tmp_path, steps, monkeypatch):
    """Sessions may end and begin meanwhile; the ones that stay lose what the rules do not allow."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    rules = (AccessRule(publish=("#",), subscribe=("a/#",)),)
    async with Rig(tmp_path / "data") as rig:
        sessions = rig.broker.sessions
        for number in range(100):
            session = sessions.begin(f"c{number}", None, 1000)
            for each in ("a/b", "b/c", "#"):
                sessions.subscribe(session, SubscribeOptions(each, 1))
        rig.door.publish("b/c", b"x")
        rig.door.publish("a/b", b"x")
        await rig.settled()
        original = Sessions.unsubscribe

        def noted(*arguments):
            steps.note()
            return original(*arguments)

        monkeypatch.setattr(Sessions, "unsubscribe", noted)
        rig.access.take(
            Terms(AccessConfig(rule=rules), None, anonymous=True, open_without_users=True)
        )
        enforcement = rig.broker.enforce_access_in_slices()
        while not steps.done:
            await asyncio.sleep(0)
        sessions.end("c98")
        again = sessions.begin("c99", None, 1000)
        sessions.subscribe(again, SubscribeOptions("a/+", 1))
        assert (await enforcement).unsubscribed == 2 * 98
        assert max(steps.done.values()) == 1
        assert {each.outbox.queued for each in sessions.all()} == {0, 1}
        assert again.outbox.queued == 0
        assert rig.subscriptions.described("c97") == (("a/b", 1),)
        assert rig.subscriptions.described("c99") == (("a/+", 1),)


async def test_sessions_that_expire_at_once_end_one_after_the_other(rig, steps, monkeypatch):
    """One that began again meanwhile stays."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    sessions = rig.broker.sessions
    for number in range(100):
        sessions.leave(sessions.begin(f"c{number}", None, 1))
    rig.now_offset_ns += 10_000_000_000
    original = Sessions.end

    def noted(*arguments):
        steps.note()
        return original(*arguments)

    monkeypatch.setattr(Sessions, "end", noted)
    ending = asyncio.create_task(work.finish(rig.broker.binding.end_expired()))
    while not steps.done:
        await asyncio.sleep(0)
    again = sessions.begin("c99", None, 1000)
    steps.done.clear()
    await ending
    assert max(steps.done.values()) <= 2  # the broker looks for itself once a second, too
    assert sessions.all() == [again]


@both
async def test_one_client_with_many_overlapping_subscriptions(rig, version, steps, monkeypatch):
    """What is put together for one delivery counts: few such clients are served in a step."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    sessions = rig.broker.sessions
    for name in range(10):
        session = sessions.begin(f"c{name}", None, 100)
        for number in range(1000):
            levels = ["+" if number >> bit & 1 else "a" for bit in range(10)]
            options = SubscribeOptions("/".join(levels), 1, identifier=number + 1)
            sessions.subscribe(session, options)
    original = Outbox.deliver

    def noted(self, *arguments, **more):
        steps.note()
        original(self, *arguments, **more)
        assert len(more["identifiers"]) == 1000

    monkeypatch.setattr(Outbox, "deliver", noted)
    wire = await rig.wire(version)
    await wire.publish_acked("/".join("a" * 10), b"x", 1)
    await rig.settled()
    assert sum(steps.done.values()) == 10
    assert max(steps.done.values()) <= 2


async def test_retained_messages_are_kept_a_thousand_at_a_time(rig, steps, monkeypatch):
    """Each costs a row: a long read of them hands them to the door in parts."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    original = Retained.make_room

    def noted(*arguments):
        steps.note()
        return original(*arguments)

    monkeypatch.setattr(Retained, "make_room", noted)
    wire = await rig.wire()
    for payload in (b"x", b""):
        wire.send(
            b"".join(wire.publish_packet(f"r/{n}", payload, retain=True) for n in range(5000))
        )
        await wire.ping()
        await rig.settled()
        assert len(rig.retained) == (5000 if payload else 0)
    assert max(steps.done.values()) <= 1000


@both
async def test_many_connections_that_all_have_much_to_do_take_turns(
    rig, version, steps, monkeypatch
):
    """What hundreds of them have sent at one moment is not all taken in one step of the loop."""
    wires = [await rig.wire(version, client_id=f"c{number}") for number in range(60)]
    await rig.settled()
    monkeypatch.setattr(work, "LONGEST_STEP_S", 0.0)
    original = Connection._take_packets

    def noted(*arguments):
        steps.note()
        original(*arguments)

    monkeypatch.setattr(Connection, "_take_packets", noted)
    for wire in wires:  # all of it is there before the loop looks at any of it
        wire.send(b"\xc0\x00" * 100)
    for wire in wires:
        for _ in range(100):
            await wire.expect(13)
    assert sum(steps.done.values()) == 60
    assert max(steps.done.values()) <= 3
