"""A mosquitto broker that hands its messages on to the appliance, and takes the appliance's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket

import pytest
from broker_rig import Wire, rig  # noqa: F401

from appliance.counters import Counter

MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
ATTEMPTS_S = 30.0

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is missing")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.asynccontextmanager
async def bridge(folder, port, *more):
    """A mosquitto with the bridge of docs/publishers.md; gives its own port."""
    own = free_port()
    lines = [
        f"listener {own} 127.0.0.1",
        "allow_anonymous true",
        "connection appliance",
        f"address 127.0.0.1:{port}",
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


async def reached(port):
    """A client of mosquitto, once it listens."""
    async with asyncio.timeout(ATTEMPTS_S):
        while True:
            with contextlib.suppress(OSError):
                wire = await Wire.open(port)
                await wire.connect("machine")
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
