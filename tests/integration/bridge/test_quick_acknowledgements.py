"""A broker that gathers small packets does not hold back messages because of the bridge's pings."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest
from bridge_rig import BridgeRig, ScriptedRemote, bridge

_UNACKED_AT = 24
"""Of ``tcpi_unacked`` in ``struct tcp_info`` (linux/tcp.h): segments that the peer has not
acknowledged."""
_PINGS = 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has TCP_QUICKACK")
async def test_an_answer_to_a_ping_is_acknowledged_at_once(tmp_path):
    """Linux waits 40 ms, and a message that is sent meanwhile would wait as long."""
    waits: list[float] = []
    done = asyncio.Event()

    async def script(peer, _number):
        await peer.accept(filters=1)
        sock = peer.writer.get_extra_info("socket")
        for number in range(1, _PINGS + 1):
            peer.publish("plant/a", id=number)
            while (await peer.read())[0] != 12:
                pass
            began = time.perf_counter()
            peer.send(b"\xd0\x00")
            while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[_UNACKED_AT]:
                await asyncio.sleep(0.001)
            waits.append(time.perf_counter() - began)
        done.set()
        await peer.serve()

    async with ScriptedRemote(script) as remote, BridgeRig(tmp_path, bridge(remote.port, "#")):
        async with asyncio.timeout(60):
            await done.wait()
    assert min(waits) < 0.03, waits
