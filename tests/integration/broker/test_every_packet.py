"""Every packet of a client, cut at each byte, with bytes behind its end, and with other flags."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_rig import PATIENCE_S, Rig, Wire, number, packet, text

from appliance.config.tables import ListenerConfig
from appliance.counters import Counter
from appliance.mqtt.packets import encode_length

HANDSHAKE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)
PROPERTIES = b"\x01\1\x02\0\0\0\x64\x03\0\1c\x08\0\1r\x09\0\1d\x26\0\1k\0\1v"
PUBLISH_TYPES = {"PUBLISH", "PUBLISH with properties"}
NAMES = {3: "MQIsdp", 4: "MQTT", 5: "MQTT"}
AT_ONCE = 20


def sized(properties: bytes) -> bytes:
    return encode_length(len(properties)) + properties


def connect(version: int, client_id: str, flags: int = 2, behind: bytes = b"") -> bytes:
    properties = sized(b"\x21\0\x05\x26\0\1k\0\1v") if version == 5 else b""
    head = text(NAMES[version]) + bytes((version, flags)) + b"\0\0" + properties
    return packet(0x10, head, text(client_id), behind)


def packets_of(version: int) -> dict[str, bytes]:
    """A valid packet of each type that a client sends, with every field that it may have."""
    none = b"\0" if version == 5 else b""
    will = (sized(b"\x18\0\0\0\1") if version == 5 else b"") + text("w") + text("x")
    found = {
        "CONNECT": connect(version, "c", 0xC6, will + text("user") + text("password")),
        "PUBLISH": packet(0x34, text("t"), number(6), none, b"x"),
        "PUBACK": packet(0x40, number(1)),
        "PUBREC": packet(0x50, number(1)),
        "PUBREL": packet(0x62, number(1)),
        "PUBCOMP": packet(0x70, number(1)),
        "SUBSCRIBE": packet(0x82, number(3), none, text("a/+"), b"\1"),
        "UNSUBSCRIBE": packet(0xA2, number(4), none, text("a/+")),
        "PINGREQ": b"\xc0\0",
        "DISCONNECT": b"\xe0\0",
    }
    if version == 5:
        reason = sized(b"\x1f\0\1e\x26\0\1k\0\1v")
        user = sized(b"\x26\0\1k\0\1v")
        found |= {
            "PUBLISH with properties": packet(0x32, text("t"), number(7), sized(PROPERTIES), b"x"),
            "PUBACK with properties": packet(0x40, number(1), b"\x10", reason),
            "PUBREL with properties": packet(0x62, number(1), b"\x92", reason),
            "SUBSCRIBE with properties": packet(0x82, number(3), user, text("a"), b"\x2e"),
            "UNSUBSCRIBE with properties": packet(0xA2, number(3), user, text("a")),
            "DISCONNECT with properties": packet(0xE0, b"\x04", reason),
        }
    return found


def broken(version: int, kind: str, whole: bytes) -> Iterator[bytes]:
    """What is malformed in this version, and nothing else: other forms of the packet are left out."""
    first, body = whole[0], whole[2:]
    assert whole[1] == len(body) < 127
    # In MQTT 5 the reason code with its properties, or the properties alone, may be missing.
    ends = {2, 3} if version == 5 and first >> 4 in (4, 5, 6, 7) else set()
    ends |= {0, 1} if version == 5 and first >> 4 == 14 else set()
    if version == 3 and kind == "CONNECT":  # name and password may be missing although flagged
        ends |= {
            len(body) - len(text("password")),
            len(body) - len(text("user") + text("password")),
        }
    for size in range(len(body)):
        may_end = size in ends or (kind in PUBLISH_TYPES and size == len(body) - 1)
        if not may_end:
            yield bytes((first, size)) + body[:size]
    if kind not in PUBLISH_TYPES:
        yield bytes((first, len(body) + 2)) + body + b"\xff\xff"
        if version > 3:  # MQTT 3.1 does not use the flags
            for flags in set(range(16)) - {first & 15}:
                yield bytes((first & 0xF0 | flags,)) + whole[1:]


class Client:
    """A connection over TCP or WebSocket that counts what comes."""

    def __init__(self, version: int, *, over_websocket: bool) -> None:
        self.version = version
        self.over_websocket = over_websocket

    async def open(self, port: int) -> None:
        self.wire = await Wire.open(port, self.version)
        if self.over_websocket:
            self.wire.writer.write(HANDSHAKE)
            assert b" 101 " in await self.wire.reader.readuntil(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        if self.over_websocket:
            size = len(data)
            length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack(">H", size)
            data = b"\x82" + length + bytes(4) + data
        self.wire.send(data)

    async def all_of_it(self) -> bytes:
        """The MQTT bytes that come until the broker closes."""
        if not self.over_websocket:
            return await self.wire.reader.read()
        found = b""
        # A Close that is answered after the broker has closed the connection resets it.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                first, size = await self.wire.reader.readexactly(2)
                if size == 126:
                    size = struct.unpack(">H", await self.wire.reader.readexactly(2))[0]
                data = await self.wire.reader.readexactly(size)
                if first == 0x82:
                    found += data
                elif first == 0x88:
                    self.wire.send(b"\x88\x80\0\0\0\0")
        return found


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
@pytest.mark.parametrize("version", [3, 4, 5])
async def test_what_is_malformed_ends_its_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: int, transport: str
) -> None:
    """With reason 0x81 or 0x82 in MQTT 5 and without a word before; no other client notices, and
    nothing counts as an error of the appliance's own."""
    caplog.set_level(logging.INFO)
    listener = ListenerConfig(
        bind="127.0.0.1:0", transport=transport, allow_mqtt31=True, max_connections=5000
    )
    names = (f"c{number}" for number in itertools.count())
    slots = asyncio.Semaphore(AT_ONCE)
    async with Rig(tmp_path / "data", listeners=(listener,)) as rig:

        async def try_out(data: bytes, *, is_in: bool) -> None:
            async with slots, asyncio.timeout(PATIENCE_S):
                client = Client(version, over_websocket=transport == "websocket")
                await client.open(rig.port)
                if is_in:
                    client.send(connect(version, next(names)))
                client.send(data + b"\xc0\0")
                answer = await client.all_of_it()
                if is_in:
                    size = 2 + answer[1]
                    assert answer[:2] + answer[3:4] == b"\x20%c\0" % answer[1], data
                    answer = answer[size:]
                wanted: tuple[bytes, ...] = (b"",)
                if version == 5 and (is_in or data[0] == 0x10):
                    head = b"\xe0\x02%c\0" if is_in else b"\x20\x03\0%c\0"
                    wanted = tuple(head % reason for reason in (0x81, 0x82))
                    if not is_in and data[1] < 7:
                        wanted = (b"",)  # it ends before it says which version it is
                assert answer in wanted, (data, answer)

        other = Client(4, over_websocket=transport == "websocket")
        await other.open(rig.port)
        other.send(connect(4, "other"))
        tried = [
            try_out(data, is_in=kind != "CONNECT")
            for kind, whole in packets_of(version).items()
            for data in broken(version, kind, whole)
        ]
        tried += [
            try_out(whole, is_in=False)
            for kind, whole in packets_of(version).items()
            if kind != "CONNECT"
        ]
        await asyncio.gather(*tried)
        assert rig.counters == {Counter.CONNECTIONS_ENDED_PROTOCOL_ERROR: len(tried)}
        assert not [each for each in caplog.records if each.exc_info]
        other.send(b"\xc0\0\xe0\0")
        assert (await other.all_of_it()).endswith(b"\xd0\0")
