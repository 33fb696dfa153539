"""What one client sends is worked off in short steps: other clients get their turn between them.

Work is counted in items for each step of the loop, not in time.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from broker_rig import Rig, both, packet, rig, text  # noqa: F401

from appliance.broker.sessions import Sessions
from appliance.counters import Counter as Counted


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
