"""What a WebSocket listener answers when the client does not do as RFC 6455 says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from broker_rig import Rig, states

from appliance.broker import work
from appliance.broker.sparse_log import SparseLog, SparseLogs
from appliance.broker.websocket import WebSocketServer
from appliance.config.tables import ListenerConfig
from appliance.counters import Counter

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"
CONNACK = b"\x82\x04\x20\x02\x00\x00"
REFUSED = Counter.CONNECTIONS_REFUSED_WEBSOCKET_HANDSHAKE


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    listener = ListenerConfig(name="ws", bind="127.0.0.1:0", transport="websocket")
    async with Rig(tmp_path / "data", listeners=(listener,)) as running:
        yield running


def request(first: bytes = b"GET /mqtt HTTP/1.1", **fields: bytes) -> bytes:
    """A good request, but for ``fields``; an empty one is left out."""
    headers = {
        b"Host": b"localhost",
        b"Upgrade": b"websocket",
        b"Connection": b"Upgrade",
        b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version": b"13",
        b"Sec-WebSocket-Protocol": b"mqtt",
    }
    headers.update({name.replace("_", "-").encode(): value for name, value in fields.items()})
    lines = [name + b": " + value for name, value in headers.items() if value]
    return b"\r\n".join([first, *lines, b"", b""])


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """A client's frame; the mask is zero."""
    size = len(data)
    assert size < 65536
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack(">H", size)
    return bytes(((0x80 if fin else 0) | opcode,)) + length + bytes(4) + data


async def told(rig: Rig, *reads: bytes) -> bytes:
    """Everything that the broker sends until it closes; ``reads`` are written one by one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    try:
        async with asyncio.timeout(5):
            for each in reads:
                writer.write(each)
                await writer.drain()
                await asyncio.sleep(0.01)
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "status", "header"),
    [
        (request(b"GET /other HTTP/1.1"), 404, b""),
        (request(b"POST /mqtt HTTP/1.1"), 405, b"Allow: GET"),
        (request(Sec_WebSocket_Version=b"8"), 426, b"Sec-WebSocket-Version: 13"),
        (request(Sec_WebSocket_Version=b""), 426, b"Sec-WebSocket-Version: 13"),
        (request(Upgrade=b""), 426, b"Upgrade: websocket"),
        (request(Sec_WebSocket_Protocol=b""), 400, b""),
        (request(Sec_WebSocket_Protocol=b"chat"), 400, b""),
        (request(Sec_WebSocket_Key=b"x"), 400, b""),
        (request(Sec_WebSocket_Key=b"\xa0" * 24), 400, b""),
        (request(Connection=b"\xa0U"), 400, b""),
        (request(b"GET /mqtt HTTP/1.0"), 400, b""),
        (request(b"GET  HTTP/1.1"), 404, b""),
        (request(Cookie=b"x" * 20_000), 400, b""),
        (b"GET /" + b"x" * 20_000, 400, b""),
        (CONNECT, 400, b""),
        (b"\x16\x03\x01\x02\x00", 400, b""),
        # What comes behind a refused request is not looked at.
        (request(Sec_WebSocket_Protocol=b"chat") + request(), 400, b""),
        (request(b"GET /other HTTP/1.1") + frame(2, CONNECT), 404, b""),
    ],
)
async def test_a_bad_handshake_is_answered_with_its_status(
    rig: Rig, caplog: pytest.LogCaptureFixture, sent: bytes, status: int, header: bytes
) -> None:
    """One counted refusal, one response that says what is wrong, and no traceback."""
    caplog.set_level(logging.DEBUG)
    answer = await told(rig, sent)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert header in answer
    assert rig.counters == {REFUSED: 1}
    assert not [each for each in caplog.records if each.exc_info]


@states("MQTT-6.0.0-4", "MQTT5-6.0.0-4")
async def test_a_handshake_may_come_in_pieces_and_with_a_query(rig: Rig) -> None:
    """A WebSocket begins with a handshake, in which the broker chooses the subprotocol mqtt. The
    CONNECT may follow in the same read."""
    good = request(b"GET /?x=1 HTTP/1.1")
    sent = good[:30], good[30:-2], good[-2:] + frame(2, CONNECT), frame(8, b"")
    answer, _, frames = (await told(rig, *sent)).partition(b"\r\n\r\n")
    assert b"\r\nSec-WebSocket-Protocol: mqtt\r\n" in answer + b"\r\n"
    assert frames == CONNACK + b"\x88\x00"


async def test_many_bad_handshakes_write_a_few_lines(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """All are counted."""
    caplog.set_level(logging.DEBUG)
    for _ in range(100):
        await told(rig, request(Connection=b"\xa0U"))
    assert rig.counters[REFUSED] == 100
    assert sum(len(each.getMessage()) for each in caplog.records) < 2000


def test_what_was_left_out_of_the_log_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Five lines a minute, then their number."""
    caplog.set_level(logging.INFO)
    now = 0.0
    sparse = SparseLog(logging.getLogger("test"), lambda: now)
    for number in range(20):
        sparse.log(logging.INFO, "line %d", number)
    now = 61
    sparse.log(logging.INFO, "line 20")
    lines = [each.getMessage() for each in caplog.records]
    assert lines == [*(f"line {n}" for n in range(5)), "15 more lines like these were left out"] + [
        "line 20"
    ]


def test_lines_of_one_stranger_hide_no_line_of_another(caplog: pytest.LogCaptureFixture) -> None:
    """Five lines a minute of each address, a hundred of all; the rest is counted."""
    caplog.set_level(logging.INFO)
    now = 0.0
    sparse = SparseLogs(logging.getLogger("test"), lambda: now)
    for number in range(20):
        sparse.log("10.0.0.1", logging.INFO, "one %d", number)
    sparse.log("10.0.0.2", logging.INFO, "another")
    assert [each.getMessage() for each in caplog.records][4:] == ["one 4", "another"]
    for number in range(1000):
        sparse.log(f"10.1.{number // 200}.{number % 200}", logging.INFO, "crowd")
    assert len(caplog.records) == 100
    now = 61
    sparse.log("10.0.0.3", logging.INFO, "later")
    assert caplog.records[-2].getMessage() == "906 more lines like these were left out"
    assert len(sparse) <= 256


async def test_refused_logins_write_a_few_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All are counted; why a connection of a client that is in ends is always written."""
    caplog.set_level(logging.WARNING)
    async with Rig(tmp_path / "data", anonymous=False) as rig:
        rig.access._failures.delay_s = lambda _origin: 0.0
        for _ in range(20):
            wire = await rig.socket()
            wire.send(wire.connect_packet("x"))
            await wire.closed()
        assert rig.counters[Counter.LOGINS_REFUSED] == 20
    assert len([each for each in caplog.records if "not authorised" in each.getMessage()]) == 5
    caplog.clear()
    async with Rig(tmp_path / "open") as rig:
        for _ in range(8):
            wire = await rig.wire()
            wire.send(b"\x30\x01\0")
            await wire.closed()
    assert len([each for each in caplog.records if "too early" in each.getMessage()]) == 8


@pytest.mark.parametrize(
    ("reads", "end"),
    [
        ([frame(2, CONNECT), frame(2, b"\xe0\0") + frame(8, b"\x03\xe8")], b"\x88\x02\x03\xe8"),
        ([frame(2, CONNECT), frame(2, b"\xe0\0"), frame(8, b"\x03\xe8")], b"\x88\x02\x03\xe8"),
        ([frame(2, CONNECT + b"\xe0\0") + frame(8, b"")], b"\x88\x00"),
        ([frame(1, b"text") + frame(8, b"\x03\xe8")], b"\x88\x02\x03\xe8"),
        ([frame(2, CONNECT), frame(8, b"\x03\xe8")], b"\x88\x02\x03\xe8"),
    ],
)
async def test_a_close_is_answered(rig: Rig, reads: list[bytes], end: bytes) -> None:
    """Before TCP ends, also when DISCONNECT comes in the same read."""
    assert (await told(rig, request(), *reads)).endswith(end)
    assert not rig.counters


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(0, CONNECT), 1002),
        (b"\xf2\x80\0\0\0\0", 1002),
        (b"\x82\x02\xc0\0", 1002),
        (frame(9, b"x" * 126), 1002),
        (frame(8, b"\0"), 1002),
        (frame(1, b"\xff"), 1003),
        (b"\x82\xff" + struct.pack(">Q", 1 << 40) + bytes(4), 1009),
        (b"\x82\xff" + struct.pack(">Q", 900_000) + bytes(400_000), 1009),
    ],
    ids=["continuation", "bits", "unmasked", "ping", "close", "text", "huge", "before the login"],
)
@states("MQTT-6.0.0-1", "MQTT5-6.0.0-1")
async def test_a_bad_frame_is_answered_with_its_code(
    rig: Rig, caplog: pytest.LogCaptureFixture, sent: bytes, code: int
) -> None:
    """A WebSocket frame that is not binary, or can't be, ends the connection; the close frame has the
    code, and no traceback is written."""
    caplog.set_level(logging.DEBUG)
    answer = (await told(rig, request(), sent)).split(b"\r\n\r\n")[1]
    assert answer[0] == 0x88
    assert answer[2:4] == struct.pack(">H", code)
    assert not [each for each in caplog.records if each.exc_info]


@states("MQTT-6.0.0-2", "MQTT5-6.0.0-2")
async def test_packets_and_frames_need_not_fit_each_other(rig: Rig) -> None:
    """A packet may come in several WebSocket frames, with a ping between them, and two packets may
    come in one frame."""
    reads = (
        frame(2, CONNECT[:5], fin=False) + frame(9, b"p") + frame(0, CONNECT[5:]),
        frame(2, b"\xc0\0\xc0\0"),
        frame(8, b""),
    )
    answer = (await told(rig, request(), *reads)).split(b"\r\n\r\n")[1]
    assert answer == b"\x8a\x01p" + CONNACK + b"\x82\x04\xd0\0\xd0\0" + b"\x88\x00"


async def test_very_many_frames_are_taken_in_slices(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other clients get their turn between parts of a long read; each packet is answered."""
    monkeypatch.setattr(work, "LONGEST_S", 0.0)
    taken: list[int] = []
    original = WebSocketServer._take_frames

    def noted(self: WebSocketServer, data: bytes) -> bool:
        taken.append(len(data))
        return original(self, data)

    monkeypatch.setattr(WebSocketServer, "_take_frames", noted)
    ping = frame(2, b"\xc0") + frame(2, b"\0")
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request() + frame(2, CONNECT) + ping * 3000)
    async with asyncio.timeout(20):
        for _ in range(3000):
            await reader.readuntil(b"\xd0\x00")
    writer.close()
    assert max(taken) <= 4096
    assert len(taken) > 9
