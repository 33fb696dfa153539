"""Shared subscriptions: granted is not delivered, and the operator is told."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from bridge_rig import QUICK, BridgeRig, ScriptedRemote, bridge
from broker_rig import PATIENCE_S, Rig
from other_brokers import PASSWORD, USER, Amqtt, Mosquitto, Nats, Remote

from appliance.bridge.share_probe import ShareProbe
from appliance.config.tables import BridgeSubscribeConfig
from appliance.secret import Secret

SHARED = BridgeSubscribeConfig(topic="plant/#", share="site")
IMPATIENT = msgspec.structs.replace(QUICK, probe_s=0.3)


def text_at(body: bytes, at: int) -> tuple[str, bytes]:
    """A string of the protocol, and what follows it."""
    size = int.from_bytes(body[at : at + 2], "big")
    return body[at + 2 : at + 2 + size].decode(), body[at + 2 + size :]


def problem(rig: BridgeRig) -> str:
    return rig.state().subscriptions[0].problem


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_broker_that_grants_and_delivers_nothing_is_told(tmp_path, version):
    """Until a message comes: then the subscription works, whatever the test said."""

    async def script(peer, _number):
        connack = b"\x20\x02\0\0" if version == "3.1.1" else b"\x20\x03\0\0\0"
        filters = await peer.accept(connack=connack, filters=2)
        assert filters[0] == "$share/site/plant/#"
        assert filters[1].startswith("$share/site-")
        topic, rest = text_at(await peer.expect(3), 0)
        assert filters[1].endswith(f"/{topic}")
        assert len(rest) == (16 if version == "3.1.1" else 17)
        assert text_at(await peer.expect(10), 2 if version == "3.1.1" else 3)[0] == filters[1]
        await told.wait()
        peer.publish("plant/1", properties=None if version == "3.1.1" else b"")
        await peer.serve()

    told = asyncio.Event()
    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, SHARED, version=version)
        async with BridgeRig(tmp_path, config, pace=IMPATIENT) as rig:
            await rig.until(lambda: "nothing is delivered" in problem(rig))
            told.set()
            await rig.came(1, "plant/1")
            await rig.until(lambda: not problem(rig))


async def test_a_broker_that_delivers_is_silent_and_the_test_leaves_nothing(tmp_path):
    """The test's message never enters the journal, and its subscription ends."""

    async def script(peer, _number):
        await peer.accept(filters=2)
        topic, payload = text_at(await peer.expect(3), 0)
        peer.publish(topic, b"of another", qos=0)
        peer.publish(topic, payload, qos=0)
        unsubscribe = await peer.expect(10)
        peer.send_packet(0xB0, unsubscribe[:2])
        peer.publish("plant/1")
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, SHARED), pace=IMPATIENT) as rig:
            await rig.came(1, "plant/1")
            assert not problem(rig)
            assert [one.topic for one in rig.journaled()] == ["plant/1"]


async def test_a_broker_that_says_that_it_has_none_is_believed(tmp_path):
    """MQTT 5: CONNACK says it, and nothing is tested."""

    async def script(peer, _number):
        await peer.accept(connack=b"\x20\x05\0\0\x02\x2a\0", filters=1)
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, SHARED, version="5")) as rig:
            await rig.connected()
            assert "has no shared subscriptions" in problem(rig)


async def test_a_broker_that_ends_the_connection_at_the_test_is_not_tested_for_ever(tmp_path):
    """RabbitMQ closes the connection for a topic that is not permitted."""

    async def script(peer, number):
        if number < 2:
            await peer.accept(filters=2)
            await peer.expect(3)
            peer.close()
        else:
            await peer.accept(filters=1)
            peer.publish("plant/1")
            await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, SHARED), pace=IMPATIENT) as rig:
            await rig.until(
                lambda: "can't be tested" in rig.bridges._bridges["plant"]._exchange._probe.problem
            )
            await rig.came(1, "plant/1")
            assert not problem(rig)


async def test_a_broker_that_refuses_the_test_leaves_it_open(tmp_path):
    """Nothing is claimed; the state says that it is not known."""

    async def script(peer, _number):
        await peer.accept(filters=1)
        body = await peer.expect(8)
        peer.send_packet(0x90, body[:2] + b"\x80")
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, SHARED)) as rig:
            await rig.until(lambda: "can't be tested" in problem(rig))


def test_a_test_that_another_filter_would_answer_is_not_made():
    """Its message would come by that filter, although nothing is shared."""
    probe = ShareProbe(
        [SHARED, BridgeSubscribeConfig(topic="appliance/#")],
        name="plant",
        service_name="appliance",
        installation="1",
        version=4,
        wait_s=1.0,
        clock=time.monotonic,
    )
    probe.begin(is_available=True)
    assert probe.next_packet() is None
    assert "can't be tested" in probe.problem


async def test_without_a_shared_subscription_nothing_is_tested(tmp_path):
    """No packet beside the bridge's own."""
    async with Rig(tmp_path / "there") as there:
        async with BridgeRig(tmp_path / "here", bridge(there.port, "plant/#")) as rig:
            await rig.connected()
            assert rig.bridges._bridges["plant"]._exchange._probe.next_packet() is None


async def both(tmp_path, broker, seen, pace=QUICK):
    """Two appliances with a shared subscription; waits until the test of each has a result."""
    keys = {"username": USER, "password": Secret(PASSWORD)} if broker.users else {}
    config = bridge(broker.port, SHARED, **keys)
    async with (
        BridgeRig(tmp_path / "a", config, pace=pace) as one,
        BridgeRig(tmp_path / "b", config, pace=pace) as two,
    ):
        for rig in (one, two):
            await rig.connected()
            await rig.until(lambda rig=rig: has_result(rig))
            seen.append(problem(rig))
        with Remote(broker, "publisher") as remote:
            for number in range(20):
                remote.publish("plant/1", str(number))
            remote.wait_acknowledged(20)
        if not seen[0]:
            async with asyncio.timeout(PATIENCE_S):
                while len(one.journaled()) + len(two.journaled()) < 20:
                    await asyncio.sleep(0.01)
            assert len(one.journaled()) == len(two.journaled()) == 10


def has_result(rig: BridgeRig) -> bool:
    return rig.bridges._bridges["plant"]._exchange._probe.is_tested


async def test_mosquitto_shares(tmp_path):
    """The test comes back at once, and each message reaches one of the two appliances."""
    seen: list[str] = []
    with Mosquitto(tmp_path / "m") as broker:
        await both(tmp_path, broker, seen)
    assert seen == ["", ""]


@pytest.mark.campaign
@pytest.mark.parametrize("kind", [Nats, Amqtt])
async def test_brokers_that_grant_and_deliver_nothing(tmp_path, kind):
    """As they are: each is found out. RabbitMQ is as these, and takes half a minute to start."""
    seen: list[str] = []
    with kind(tmp_path / "m") as broker:
        await both(tmp_path, broker, seen, msgspec.structs.replace(QUICK, probe_s=2.0))
    assert all("nothing is delivered" in one for one in seen)
