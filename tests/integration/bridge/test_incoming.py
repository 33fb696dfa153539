"""What other brokers deliver: journaled first, then acknowledged, and left out only with a reason."""

from __future__ import annotations

import asyncio

import pytest
from bridge_rig import SESSION_PRESENT, BridgeRig, ScriptedRemote, bridge
from broker_rig import PATIENCE_S, Rig, hold_commits
from other_brokers import PASSWORD, USER, Mosquitto, Remote

from appliance.config.tables import BridgeSubscribeConfig
from appliance.counters import Counter
from appliance.secret import Secret


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_mosquitto(tmp_path, version):
    """Messages of a mosquitto come in, in order, under their local topics, also after an absence."""
    with Mosquitto(tmp_path / "remote") as remote, Remote(remote, "press", clean=True) as press:
        config = bridge(
            remote.port,
            BridgeSubscribeConfig(topic="plant/#", remove_prefix="plant/", local_prefix="f7/"),
            username=USER,
            password=Secret(PASSWORD),
            version=version,
        )
        async with BridgeRig(tmp_path / "here", config) as rig:
            state = await rig.connected()
            assert (state.health.level, state.address) == ("ok", f"127.0.0.1:{remote.port}")
            for number in range(50):
                press.publish("plant/a", f"{number}")
            found = await rig.came(50, "f7/a")
            assert [int(one.payload) for one in found] == list(range(50))
            assert {(one.client_id, one.qos, one.address) for one in found} == {
                ("$bridge/plant", 1, f"127.0.0.1:{remote.port}")
            }
            await rig.until(lambda: rig.state().messages_in == 50)
            assert rig.state().subscriptions[0].received == 50
        for number in range(50, 60):
            press.publish("plant/a", f"{number}")
        await asyncio.to_thread(press.wait_acknowledged, 60)
        async with BridgeRig(tmp_path / "here", config) as rig:
            found = await rig.came(60, "f7/a")
            assert [int(one.payload) for one in found] == list(range(60))
            await rig.settled()
            assert not any(one.dup for one in rig.journaled())


async def test_appliance_as_the_other_broker(tmp_path):
    """Our own broker is one to bridge to; its client publishes, and the message is in our journal."""
    async with Rig(tmp_path / "there") as there:
        config = bridge(there.port, "a/#", version="5")
        async with BridgeRig(tmp_path / "here", config) as rig:
            await rig.connected()
            wire = await there.wire(5, client_id="press")
            wire.send(wire.publish_packet("a/b", b"1", 1))
            (message,) = await rig.came(1, "a/b")
            assert message.payload == b"1"


async def test_acknowledged_after_the_commit(tmp_path, monkeypatch):
    """No message is acknowledged before it is on disk."""
    go = asyncio.Event()
    held = hold_commits(monkeypatch)
    held.set()
    acknowledged = []

    async def script(peer, _number):
        await peer.accept(filters=1)
        await go.wait()
        peer.publish("a", id=7)
        peer.publish("a", id=8)
        for _ in range(2):
            acknowledged.append(int.from_bytes(await peer.expect(4), "big"))
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.connected()
            await rig.settled()
            held.clear()
            go.set()
            await rig.until(lambda: rig.state().unacknowledged == 2)
            assert acknowledged == []
            held.set()
            await rig.until(lambda: acknowledged == [7, 8])
            assert len(rig.journaled("a")) == 2
            assert rig.state().unacknowledged == 0


async def test_no_acknowledgement_outlives_its_connection(tmp_path, monkeypatch):
    """A connection that ended before the commit leaves its acknowledgements behind."""
    held = hold_commits(monkeypatch)
    held.set()
    go = asyncio.Event()
    again = asyncio.Event()
    seen = []

    async def script(peer, number):
        await peer.accept(filters=0 if number else 1, connack=b"\x20\x02" + bytes((number > 0, 0)))
        if number == 0:
            await go.wait()
            peer.publish("a", id=2)
            await again.wait()
            peer.close()
        else:
            while True:
                kind, body = await peer.read()
                seen.append((kind, body))
                if kind == 12:
                    peer.send(b"\xd0\x00")

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a", keepalive=1)) as rig:
            await rig.connected()
            await rig.settled()
            held.clear()
            go.set()
            await rig.until(lambda: rig.state().unacknowledged == 1)
            again.set()
            await rig.until(lambda: remote.connections == 2 and rig.state().connected)
            held.set()
            await rig.came(1, "a")
            await rig.settled()
            await rig.until(lambda: any(kind == 12 for kind, _ in seen))
            assert not any(kind == 4 for kind, _ in seen)


LEFT_OUT = {
    "not asked for": ("b", {}, Counter.BRIDGE_MESSAGES_LEFT_OUT_NOT_ASKED),
    "$ topic": ("$SYS/uptime", {}, Counter.BRIDGE_MESSAGES_LEFT_OUT_DOLLAR_TOPIC),
    "reserved": ("r/appliance/status", {}, Counter.BRIDGE_MESSAGES_LEFT_OUT_RESERVED_TOPIC),
    "wildcard": ("a/#", {}, Counter.BRIDGE_MESSAGES_LEFT_OUT_TOPIC),
    "not UTF-8": (b"a/\xff", {}, Counter.BRIDGE_MESSAGES_LEFT_OUT_TOPIC),
    "retained": ("a/x", {"retain": True}, Counter.BRIDGE_MESSAGES_LEFT_OUT_RETAINED),
    "too long": ("a/" + "x" * 2000, {}, Counter.TOPICS_REFUSED_TOO_LONG),
    "too deep": ("a" + "/x" * 150, {}, Counter.TOPICS_REFUSED_TOO_MANY_LEVELS),
    "too large": (
        "a/x",
        {"payload": b"x" * 5000},
        Counter.BRIDGE_MESSAGES_LEFT_OUT_TOO_LARGE,
    ),
}


@pytest.mark.parametrize(("topic", "more", "counter"), LEFT_OUT.values(), ids=LEFT_OUT)
async def test_left_out(tmp_path, topic, more, counter):
    """What must not come in is counted and acknowledged, and what follows comes in."""
    acknowledged = []

    async def script(peer, _number):
        await peer.accept(filters=2)
        peer.publish(topic, id=5, **more)
        peer.publish("a/next", id=6)
        for _ in range(2):
            acknowledged.append(int.from_bytes(await peer.expect(4), "big"))
        await peer.serve()

    shortened = BridgeSubscribeConfig(topic="r/#", remove_prefix="r/")
    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, "a/#", shortened, max_packet_size=4096)
        async with BridgeRig(tmp_path, config) as rig:
            await rig.until(lambda: acknowledged == [5, 6])
            assert [one.topic for one in rig.journaled()] == ["a/next"]
            assert rig.counters[counter] == 1


async def test_asked_for_dollar_topics_come_in(tmp_path):
    """A filter that names $SYS gets its messages, below the prefix that makes them ours."""

    async def script(peer, _number):
        await peer.accept(filters=1)
        peer.publish("$SYS/uptime", b"7", qos=0)
        await peer.serve()

    wanted = BridgeSubscribeConfig(topic="$SYS/#", local_prefix="plant/")
    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, wanted)) as rig:
            (message,) = await rig.came(1)
            assert (message.topic, message.qos) == ("plant/$SYS/uptime", 0)


async def test_wanted_retained_messages_are_retained_here(tmp_path):
    """``retained = true``: what the broker holds for new subscribers is held here, too."""

    async def script(peer, _number):
        await peer.accept(filters=1)
        peer.publish("a", b"7", retain=True)
        await peer.serve()

    wanted = BridgeSubscribeConfig(topic="a", retained=True)
    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, wanted)) as rig:
            (message,) = await rig.came(1)
            assert message.retain
            wire = await rig.wire()
            await wire.subscribe(("a", 1))
            assert (await wire.expect(3)).payload == b"7"


async def test_qos_2_of_an_earlier_use_of_the_session(tmp_path):
    """Messages of QoS 2 that wait in the session come in, and their exchange is completed."""
    exchange = []

    async def script(peer, _number):
        await peer.accept(filters=1)
        peer.publish("a", b"7", qos=2, id=9)
        exchange.append(("PUBREC", await peer.expect(5)))
        peer.send_packet(0x62, b"\x00\x09")
        exchange.append(("PUBCOMP", await peer.expect(7)))
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.until(lambda: len(exchange) == 2)
            assert exchange == [("PUBREC", b"\x00\x09"), ("PUBCOMP", b"\x00\x09")]
            assert len(rig.journaled("a")) == 1


async def test_flood_leaves_clients_served(tmp_path):
    """While a broker floods, a client's messages are acknowledged, and none of the flood is lost."""
    flood = 20_000

    async def script(peer, _number):
        await peer.accept(filters=1)
        for number in range(flood):
            peer.publish("a", b"%d" % number, id=number % 60_000 + 1)
        drained = asyncio.create_task(peer.writer.drain())
        acks = 0
        while acks < flood:
            kind, _ = await peer.read()
            acks += kind == 4
            if kind == 12:
                peer.send(b"\xd0\x00")
        await drained
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a"), max_pending=256 * 1024) as rig:
            await rig.connected()
            wire = await rig.wire()
            while rig.state().messages_in < flood:
                wire.send(wire.publish_packet("mine", b"1", 1))
                await wire.expect(4)
            found = await rig.came(flood, "a")
            assert [int(one.payload) for one in found] == list(range(flood))


async def test_back_pressure_keeps_the_connection(tmp_path, monkeypatch):
    """While the door takes nothing more, nothing is read, and pings keep the connection."""
    held = hold_commits(monkeypatch)
    held.set()
    go = asyncio.Event()
    pings = []

    async def script(peer, _number):
        await peer.accept(filters=1)
        await go.wait()
        for number in range(100):
            peer.publish("a", b"x" * 1000, id=number + 1)
        acks = 0
        while acks < 100:
            kind, _ = await peer.read()
            acks += kind == 4
            if kind == 12:
                pings.append(acks)
                peer.send(b"\xd0\x00")
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, "a", keepalive=1)
        async with BridgeRig(tmp_path, config, max_pending=10_000) as rig:
            await rig.connected()
            await rig.settled()
            held.clear()
            go.set()
            await rig.until(lambda: len(pings) >= 2)
            assert pings == [0] * len(pings)
            assert rig.counters[Counter.PUBLISHERS_SLOWED] >= 1
            held.set()
            await rig.came(100, "a")
            assert remote.connections == 1


async def test_what_comes_again_is_known(tmp_path):
    """A message that the broker sends again, because its acknowledgement was lost, is a repeat."""

    async def script(peer, number):
        if number == 0:
            await peer.accept(filters=1)
            peer.publish("a", b"start", id=7)
            await peer.expect(4)
            peer.reset()  # before the ping that proves the acknowledgement
        else:
            await peer.accept(connack=SESSION_PRESENT)
            peer.publish("a", b"start", id=7, dup=True)
            peer.publish("a", b"start", id=8)
            await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            first, again, news = await rig.came(3, "a")
            assert [one.dup for one in (first, again, news)] == [False, True, False]
            assert first.packet_id == again.packet_id != news.packet_id
            await rig.until(lambda: rig.state().repeats == 1)


@pytest.mark.parametrize(
    ("properties", "counter"),
    [
        (b"\x26\x00\x01k\x00\x01v" * 3, Counter.BRIDGE_MESSAGES_LEFT_OUT_PROPERTIES),
        (b"\x09\xff\xff", Counter.BRIDGE_MESSAGES_LEFT_OUT_PROPERTIES),
        (b"\x23\x00\x01", Counter.BRIDGE_MESSAGES_LEFT_OUT_PROPERTIES),
        (
            b"\x26\x00\x0eappliance-path\x00\x14" + b"%s",
            Counter.BRIDGE_MESSAGES_LEFT_OUT_LOOP,
        ),
    ],
    ids=["too many", "malformed", "alias", "loop"],
)
async def test_left_out_for_its_properties(tmp_path, properties, counter):
    """A message of MQTT 5 whose properties are not taken is acknowledged and counted alone."""
    acknowledged = []

    async def script(peer, _number):
        mark = (tmp_path / "here" / "installation").read_bytes().strip()
        await peer.accept(connack=b"\x20\x03\x00\x00\x00", filters=1)
        peer.publish("a", id=5, properties=properties.replace(b"%s", mark))
        peer.publish("a", b"next", id=6, properties=b"")
        for _ in range(2):
            acknowledged.append(int.from_bytes(await peer.expect(4), "big"))
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, "a", version="5")
        async with BridgeRig(tmp_path / "here", config, max_properties=2) as rig:
            await rig.until(lambda: acknowledged == [5, 6])
            assert [one.payload for one in rig.journaled()] == [b"next"]
            assert rig.counters[counter] == 1
