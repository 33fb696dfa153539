"""Whatever a broker did before: as soon as it serves, the bridge is there, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from bridge_rig import CONNACK, SESSION_PRESENT, BridgeRig, ScriptedRemote, bridge, sends
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from appliance.counters import Counter

_numbers = itertools.count()


class Misbehaving:
    """A broker that does one of these with each connection, and then serves."""

    def __init__(self, ways):
        self.ways = ways
        self.sent = 0
        self.got = []
        self.session = False

    async def __call__(self, peer, number):
        way = self.ways[number] if number < len(self.ways) else "serve"
        if way == "close":
            return peer.close()
        await peer.expect(1)
        if way == "reset":
            return peer.reset()
        if way == "refuse":
            peer.send(b"\x20\x02\x00\x03")
            return peer.close()
        if way == "garbage":
            return peer.send(b"\x00\xff\x00garbage")
        if way == "silent":
            await asyncio.sleep(1)
            return peer.close()
        if way == "forget":
            self.session = False
        peer.send(SESSION_PRESENT if self.session else CONNACK)
        return await self.serve(peer, way)

    async def serve(self, peer, way):
        limit = {"close early": 1, "close late": 4, "forget": 4}.get(way, 10_000)
        for _ in range(limit):
            kind, body = await peer.read()
            if kind == 12:
                peer.send(b"\xd0\x00")
            elif kind == 8:
                self.session = True
                peer.send_packet(0x90, body[:2] + b"\x01")
                if way == "malformed":
                    peer.send(b"\x32\x03\x00\x09a")
            elif kind == 3:
                at = 2 + int.from_bytes(body[:2], "big")
                self.got.append(body[at + 2 :])
                peer.send_packet(0x40, body[at : at + 2])
            elif kind == 14:
                break
        peer.close()


WAYS = st.sampled_from(
    ["close", "reset", "refuse", "garbage", "silent", "forget", "close early", "close late"]
    + ["malformed", "serve"]
)


@pytest.mark.campaign
@settings(
    max_examples=15,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ways=st.lists(WAYS, max_size=7).map(lambda ways: [w for w in ways if w != "serve"]))
async def test_the_bridge_comes_back(tmp_path, caplog, ways):
    """After any failures the bridge connects, subscribes, and sends what was published meanwhile."""
    caplog.clear()
    broker = Misbehaving(ways)
    async with ScriptedRemote(broker) as remote:
        config = bridge(remote.port, "a", publish=sends("out"), connect_timeout=0.5)
        async with BridgeRig(tmp_path / f"{next(_numbers)}", config) as rig:
            wire = await rig.wire()
            for number in range(5):
                wire.send(wire.publish_packet("out", b"%d" % number, 1))
                await wire.expect(4)
            await rig.until(lambda: set(broker.got) >= {b"%d" % n for n in range(5)})
            await rig.connected()
            firsts = list(dict.fromkeys(broker.got))
            assert firsts == [b"%d" % number for number in range(5)]
            assert rig.counters[Counter.BRIDGE_INTERNAL_ERRORS] == 0
            assert rig.state().parked == 0
    assert not any(one.exc_info for one in caplog.records)
