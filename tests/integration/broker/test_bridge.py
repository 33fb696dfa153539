"""A mosquitto broker that hands its messages on to the appliance, and takes the appliance's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket

import certificates
import pytest
from broker_rig import Rig, Wire, rig  # noqa: F401

from appliance.config.tables import ListenerConfig, TlsConfig
from appliance.counters import Counter

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
ATTEMPTS_S = 30.0

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is missing")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.asynccontextmanager
async def bridge(folder, port, *more, own=0, host="127.0.0.1"):
    """A mosquitto with the bridge of docs/publishers.md; gives its own port."""
    own = own or free_port()
    lines = [
        f"listener {own} 127.0.0.1",
        "allow_anonymous true",
        "connection appliance",
        f"address {host}:{port}",
        "cleansession false",
        "restart_timeout 1",
        "topic plant/# out 1",
        "topic orders/# in 1",
        *more,
    ]
    configuration = folder / "bridge.conf"
    configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        MOSQUITTO, "-c", configuration, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield own
    finally:
        process.terminate()
        await process.wait()


async def reached(port, **options):
    """A client of mosquitto, once it listens."""
    async with asyncio.timeout(ATTEMPTS_S):
        while True:
            with contextlib.suppress(OSError):
                wire = await Wire.open(port)
                await wire.connect("machine", **options)
                return wire
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "more",
    [
        # Without try_private it connects at the first attempt, not at the second a second later.
        pytest.param(("try_private false",), id="v311"),
        pytest.param(("try_private false", "bridge_protocol_version mqttv50"), id="v5"),
        pytest.param((), id="as documented", marks=pytest.mark.campaign),
    ],
)
async def test_mosquitto_bridge(rig, tmp_path, more):
    """A mosquitto bridge with its default notifications connects; messages go both ways."""
    async with bridge(tmp_path, rig.port, *more) as port:
        machine = await reached(port)
        async with asyncio.timeout(ATTEMPTS_S):
            while not any(rig.subscriptions.count(s.client_id) for s in rig.broker.sessions.all()):
                await asyncio.sleep(0.02)
        await machine.publish_acked("plant/7", b"up", 1)
        await rig.until(lambda: rig.journaled("plant/7"))
        await machine.subscribe(("orders/#", 1))
        rig.door.publish("orders/1", b"down", qos=1)
        assert (await machine.message()).payload == b"down"
        assert {message.topic for message in rig.journaled()} == {"plant/7", "orders/1"}
        assert rig.counters[Counter.PUBLISHES_REFUSED_DOLLAR_TOPIC] >= 1


@pytest.mark.campaign
async def test_a_bridge_over_tls_goes_on_after_either_side_was_away(tmp_path):
    """What is published while mosquitto or the appliance is away arrives afterwards, in order, both
    ways; the bridge's user is the name in its certificate."""
    files = certificates.make(tmp_path / "certificates")
    kept = tmp_path / "mosquitto"
    kept.mkdir()
    tls = TlsConfig(
        certfile=files.server,
        keyfile=files.server_key,
        client_ca=files.root,
        identity_as_username=True,
    )
    port, own = free_port(), free_port()
    listener = ListenerConfig(bind=f"127.0.0.1:{port}", tls=tls)
    more = (
        "try_private false",
        f"bridge_cafile {files.root}",
        f"bridge_certfile {files.client}",
        f"bridge_keyfile {files.client_key}",
        "persistence true",
        f"persistence_location {kept}/",
        "autosave_on_changes true",
        "autosave_interval 1",
        *(("user root",) if os.geteuid() == 0 else ()),
    )

    def appliance() -> Rig:
        return Rig(tmp_path / "data", listeners=(listener,), anonymous=False)

    def mosquitto() -> contextlib.AbstractAsyncContextManager[int]:
        return bridge(tmp_path, port, *more, own=own, host="localhost")

    async def is_here(rig: Rig) -> None:
        async with asyncio.timeout(ATTEMPTS_S):
            while not rig.broker.clients_connected or not len(rig.subscriptions):
                await asyncio.sleep(0.02)

    async with contextlib.AsyncExitStack() as stack:
        async with appliance() as rig:
            async with mosquitto():
                machine = await reached(own, clean=False)
                await machine.subscribe(("orders/#", 1))
                await is_here(rig)
                assert {each.username for each in rig.broker.connections.all()} == {"Test client"}
                await machine.publish_acked("plant/7", b"1", 1)
                await rig.until(lambda: rig.journaled("plant/7"))
            await rig.until(lambda: not rig.broker.clients_connected)
            rig.door.publish("orders/1", b"without mosquitto", qos=1)
            await stack.enter_async_context(mosquitto())
            machine = await reached(own, clean=False)
            assert [m.payload for m in await machine.messages(1)] == [b"without mosquitto"]
            await machine.ping()
        machine = await reached(own, clean=False)
        await machine.publish_acked("plant/7", b"2", 1)
        async with appliance() as rig:
            await is_here(rig)
            async with asyncio.timeout(ATTEMPTS_S):
                while len(rig.journaled("plant/7")) < 2:
                    await asyncio.sleep(0.02)
            assert [m.payload for m in rig.journaled("plant/7")] == [b"1", b"2"]
            rig.door.publish("orders/2", b"after the restart", qos=1)
            # The first appliance may have stopped before mosquitto's acknowledgement reached it.
            (received,) = await machine.messages(1)
            if received.payload == b"without mosquitto":
                (received,) = await machine.messages(1)
            assert received.payload == b"after the restart"
