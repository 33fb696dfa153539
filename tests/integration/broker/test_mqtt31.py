"""MQTT 3.1 (MQIsdp), where a listener accepts it."""

from __future__ import annotations

import asyncio
import queue
import shutil

import paho.mqtt.client as paho
import pytest
import websockets
from broker_rig import PATIENCE_S, Rig, Wire, number, packet, text
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from appliance.config.tables import AccessRule, ListenerConfig

OLD = ListenerConfig(name="old", bind="127.0.0.1:0", allow_mqtt31=True)
NEW = ListenerConfig(name="new", bind="127.0.0.1:0")


@pytest.fixture
async def rig(tmp_path):
    rules = (AccessRule(publish=("#",), subscribe=("open/#",)),)
    async with Rig(tmp_path / "data", listeners=(OLD, NEW), rules=rules) as running:
        yield running


def connect_packet(client_id="c", flags=2, payload=b""):
    return packet(0x10, text("MQIsdp"), bytes((3, flags)), number(0), text(client_id), payload)


async def connected(rig, **options):
    wire = await Wire.open(rig.broker.ports["old"])
    wire.send(connect_packet(**options))
    assert (await wire.expect(2)).body == b"\0\0"
    return wire


async def test_refused_without_the_key(rig):
    """MQTT 3.1 is refused with code 1 where the listener does not accept it."""
    wire = await Wire.open(rig.broker.ports["new"])
    wire.send(connect_packet())
    assert (await wire.closed()).body == b"\0\x01"


async def test_what_is_different_in_31(rig):
    """Flags that 3.1.1 reserves are passed over, no session is announced, an id is needed."""
    wire = await connected(rig, flags=0)
    wire.send(packet(0x8A, number(1), text("open/a"), b"\xfd"))  # sent again, at QoS 1
    assert (await wire.expect(9)).codes == [1]
    rig.door.publish("open/a", b"x", qos=2)
    assert (await wire.message()).qos == 1
    wire.abort()
    again = await connected(rig, flags=0)
    assert (await again.message()).payload == b"x"
    nameless = await Wire.open(rig.broker.ports["old"])
    nameless.send(connect_packet(client_id=""))
    assert (await nameless.closed()).body == b"\0\x02"
    # "the User Name flag is set, but the User Name string is missing. This is valid"
    await connected(rig, client_id="named", flags=0xC2)
    assert {each.protocol for each in await rig.broker._client_states()} == {"3.1"}


@pytest.mark.parametrize("allowed", [True, False])
async def test_subprotocol_of_websocket(tmp_path, allowed):
    """Libraries offer mqttv3.1 for MQTT 3.1; a listener that accepts that version takes it."""
    listener = ListenerConfig(bind="127.0.0.1:0", transport="websocket", allow_mqtt31=allowed)
    async with Rig(tmp_path / "ws", listeners=(listener,)) as rig:
        asked = websockets.connect(f"ws://127.0.0.1:{rig.port}/mqtt", subprotocols=["mqttv3.1"])
        if not allowed:
            with pytest.raises(websockets.InvalidStatus):
                await asked
            return
        async with asked as client:
            assert client.subprotocol == "mqttv3.1"
            await client.send(connect_packet())
            assert await client.recv() == b"\x20\x02\0\0"


async def test_refused_subscription(rig):
    """A subscription that is not allowed ends the connection: SUBACK of 3.1 can't say so."""
    wire = await connected(rig)
    wire.send(wire.subscribe_packet("open/a", "secret"))
    assert await wire.closed() is None


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto's clients are missing")
async def test_mosquitto_pub(rig):
    """mosquitto_pub -V mqttv31 publishes."""
    options = ["-V", "mqttv31", "-h", "127.0.0.1", "-p", str(rig.broker.ports["old"]), "-i", "old"]
    process = await asyncio.create_subprocess_exec(
        "mosquitto_pub", *options, "-q", "2", "-t", "open/m", "-m", "x"
    )
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    assert [message.payload for message in rig.journaled("open/m")] == [b"x"]


async def test_paho(rig):
    """paho with MQTTv31 subscribes and publishes at each QoS."""
    came: queue.Queue = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, "old", protocol=MQTTProtocolVersion.MQTTv31)
    client.on_message = lambda _client, _data, message: came.put((message.payload, message.qos))
    client.on_subscribe = lambda *_: [client.publish("open/p", b"x", qos) for qos in (0, 1, 2)]
    client.on_connect = lambda *_: client.subscribe("open/#", 2)
    client.connect("127.0.0.1", rig.broker.ports["old"])
    client.loop_start()
    try:
        found = [await asyncio.to_thread(came.get, timeout=PATIENCE_S) for _ in range(3)]
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
    assert sorted(found) == [(b"x", 0), (b"x", 1), (b"x", 2)]
