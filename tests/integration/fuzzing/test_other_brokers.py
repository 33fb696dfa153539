"""Brokers that answer bridges with anything: nothing here fails, and bridges work again afterwards.

Valid answers are changed at random, as in test_fuzzing.py: FUZZING_SEED repeats a run, FUZZING_S says
how many seconds it takes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import re

import pytest
from bridge_rig import BridgeRig, Peer, ScriptedRemote, bridge, sends

from appliance.config.tables import BridgeSubscribeConfig
from appliance.counters import Counter

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("FUZZING_S", "5"))
SEED = int(os.environ.get("FUZZING_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
CONNACK, CONNACK_5 = b"\x20\x02\x00\x00", b"\x20\x03\x00\x00\x00"
PIECES = [
    CONNACK, CONNACK_5, b"\x20\x02\x01\x00", b"\x20\x02\x00\x05", b"\x20\x03\x00\x9d\x00",
    b"\x20\x13\x00\x9c\x10\x1c\x00\x0d127.0.0.1:999", b"\x20\x06\x00\x00\x03\x21\x00\x01",
    b"\x90\x03\x00\x01\x01", b"\x90\x04\x00\x01\x00\x01", b"\x90\x04\x00\x01\x00\x9e",
    b"\xb0\x02\x00\x02", b"\xb0\x04\x00\x02\x00\x11", b"\xd0\x00", b"\xe0\x00", b"\xe0\x02\x8e\x00",
    b"\x40\x02\x00\x03", b"\x40\x04\x00\x03\x97\x00", b"\x50\x02\x00\x03", b"\x62\x02\x00\x05",
    b"\x31\x06\x00\x03a/bx", b"\x32\x08\x00\x03a/b\x00\x05x", b"\x3a\x08\x00\x03a/b\x00\x05x",
    b"\x34\x09\x00\x03a/b\x00\x06\x00x", b"\x32\x09\x00\x03a/b\x00\x07\x00x",
    b"\x32\x16\x00\x03a/b\x00\x08\x0d\x26\x00\x05appli\x00\x03way",
    b"\x30\xff\xff\xff\x7f\x00\x03a/b", b"\x32\x85\x80\x08\x00\x03a/b\x00\x09", b"\x30\x04\x00\x02$x",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
    b"\x82\x04\x20\x02\x00\x00", b"\x88\x02\x03\xe8",
]  # fmt: skip
"""Whole packets of brokers, and some that only begin, for both versions and for WebSocket."""


def answer(chance: random.Random) -> bytes:
    """Some packets; often with bytes that were flipped, cut out, put in or doubled."""
    data = bytearray(b"".join(chance.choices(PIECES, k=chance.randrange(1, 6))))
    for _ in range(chance.choice((0, 0, 1, 3))):
        at = chance.randrange(len(data) or 1)
        match chance.randrange(4):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randrange(1, 9)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case _:
                data[at:at] = data[at : at + chance.randrange(1, 40)]
    return bytes(data)


def handshake(asked: bytes) -> bytes:
    """The answer of a WebSocket server (RFC 6455, section 4.2.2)."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", asked)
    proof = hashlib.sha1(
        (key[1] if key else b"") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    ).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: " + base64.b64encode(proof)
    ) + b"\r\n\r\n"


def frame(data: bytes) -> bytes:
    """A binary frame of a server."""
    return b"\x82\x7e" + len(data).to_bytes(2) + data


async def test_answers_of_other_brokers(tmp_path, caplog, monkeypatch) -> None:
    """A broker that is hostile harms neither the bridges, nor clients, nor what comes after."""
    print(f"seed {SEED}")  # noqa: T201  pytest shows it with a failure
    for name in ("_LEFT_OUT_S", "_LONGEST_LEFT_OUT_S"):  # how long a refused filter is left out
        monkeypatch.setattr(f"appliance.bridge.subscriptions.{name}", 0.05)
    chance = random.Random(SEED)
    is_hostile = True

    async def script(peer: Peer, _number: int) -> None:
        if not is_hostile:
            await serve(peer)
            return
        if chance.random() < 0.7:  # first as it should be, so that the rest is reached
            asked = await peer.reader.read(4096)
            if is_web := asked[:3] == b"GET":
                peer.send(handshake(asked))
                await peer.reader.read(4096)  # the CONNECT, masked
                peer.send(frame(chance.choice((CONNACK, CONNACK_5))))
            else:
                peer.send(CONNACK_5 if asked[8:9] == b"\x05" else CONNACK)
        else:
            is_web = False
        for _ in range(chance.randrange(1, 6)):
            data = answer(chance)
            peer.send(frame(data) if is_web and chance.random() < 0.8 else data)
            await asyncio.sleep(chance.choice((0, 0, 0.01)))
        (peer.close if chance.random() < 0.5 else peer.reset)()

    async def serve(peer: Peer) -> None:
        asked = await peer.reader.read(4096)
        if asked[:3] == b"GET":
            peer.close()
            return
        is_5 = asked[8] == 5
        peer.send(CONNACK_5 if is_5 else CONNACK)
        while True:
            kind, body = await peer.read()
            properties = b"\0" if is_5 else b""
            if kind == 8:
                peer.send_packet(0x90, body[:2] + properties + bytes((body[-1] & 3,)))
                name = b"a/good"
                peer.send_packet(0x30, len(name).to_bytes(2) + name + properties + b"well")
            elif kind == 10:
                peer.send_packet(0xB0, body[:2] + properties + b"\0" * is_5)
            elif kind == 12:
                peer.send(b"\xd0\x00")
            elif kind == 3:
                (size,) = (int.from_bytes(body[:2]),)
                peer.send_packet(0x40, body[2 + size : 4 + size])

    async with ScriptedRemote(script) as remote:
        topics = (BridgeSubscribeConfig(topic="a/#", retained=True), "b/+")
        configs = [
            bridge(
                remote.port, *topics, name=f"{kind}{version[0]}", version=version,
                transport=kind, publish=sends("c/#"), follow_redirects=True, connect_timeout=0.5,
                max_packet_size=4096,
            )
            for kind in ("tcp", "websocket")
            for version in ("3.1.1", "5")
        ]  # fmt: skip
        async with BridgeRig(tmp_path, *configs) as rig:
            other = await rig.wire(client_id="bystander")
            end = asyncio.get_running_loop().time() + SECONDS
            while asyncio.get_running_loop().time() < end:
                other.send(other.publish_packet("c/d", b"x", 1))
                await other.expect(4)
                await asyncio.sleep(0.05)
            made = remote.connections
            is_hostile = False
            for each in configs:
                if each.transport == "tcp":
                    await rig.connected(each.name)
            await rig.until(
                lambda: (
                    {message.client_id for message in rig.journaled("a/good")}
                    >= {"$bridge/tcp3", "$bridge/tcp5"}
                )  # fmt: skip
            )
            assert rig.counters[Counter.BRIDGE_INTERNAL_ERRORS] == 0
    bad = [one.getMessage() for one in caplog.records if one.exc_info or "internal" in one.message]
    assert not bad, f"seed {SEED}: {bad[:5]}"
    print(f"{made} connections")  # noqa: T201  as above
    assert made > 50, f"{made} connections: nothing was tried"
