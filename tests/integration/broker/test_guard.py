"""What the event loop hands to a connection, and what becomes of one whose callback raises."""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl

import certificates
import pytest
import websockets
from broker_rig import Rig, Wire, rig, states  # noqa: F401

from appliance.counters import Counter
from appliance.broker.connection import Connection
from appliance.broker.connections import Connections
from appliance.broker.publish import PublishReader
from appliance.broker.outbox import Outbox
from appliance.broker.output import Output
from appliance.mqtt import v5_encode
from appliance.config.tables import ListenerConfig, TlsConfig

CONNECT = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03abc"
SUBSCRIBE = b"\x82\x06\x00\x09\x00\x01t\x01"
COUNTER = Counter.CONNECTIONS_ENDED_INTERNAL_ERROR


class Reusing(asyncio.Protocol):
    """Hands what came to a protocol as Windows' loop may: in a buffer that is used again."""

    def __init__(self, inner: asyncio.Protocol, kind: type) -> None:
        self.inner = inner
        self.kind = kind
        for name in (
            "connection_made",
            "connection_lost",
            "eof_received",
            "pause_writing",
            "resume_writing",
        ):
            setattr(self, name, getattr(inner, name))

    def data_received(self, data: bytes) -> None:
        buffer = bytearray(data)
        self.inner.data_received(buffer if self.kind is bytearray else memoryview(buffer))
        buffer[:] = b"\xff" * len(buffer)


class WebSocketWire:
    """MQTT's bytes over a WebSocket."""

    def __init__(self, client) -> None:
        self.client = client
        self.came = b""

    async def send(self, data: bytes) -> None:
        await self.client.send(data)

    async def read(self, size: int) -> bytes:
        while len(self.came) < size:
            self.came += await self.client.recv()
        found, self.came = self.came[:size], self.came[size:]
        return found


class StreamWire:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def send(self, data: bytes) -> None:
        self.wire.send(data)
        await self.wire.writer.drain()

    async def read(self, size: int) -> bytes:
        return await self.wire.reader.readexactly(size)


@pytest.mark.parametrize("buffer", [bytearray, memoryview])
@pytest.mark.parametrize("transport", ["tcp", "websocket"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_any_kind_of_buffer(tmp_path, monkeypatch, buffer, transport, secure):
    """CONNECT, SUBSCRIBE and PUBLISH work, whole and in pieces, for every buffer type of a loop."""
    loop = asyncio.get_running_loop()
    create_server = loop.create_server

    def reusing(factory, *args, **options):
        return create_server(lambda: Reusing(factory(), buffer), *args, **options)

    monkeypatch.setattr(loop, "create_server", reusing)
    tls = context = None
    if secure:
        files = certificates.make(tmp_path / "certificates")
        tls = TlsConfig(certfile=files.server, keyfile=files.server_key)
        context = ssl.create_default_context(cafile=files.root)
    listener = ListenerConfig(name="one", bind="127.0.0.1:0", transport=transport, tls=tls)
    async with Rig(tmp_path / "data", listeners=(listener,)) as broker, asyncio.timeout(20):
        if transport == "tcp":
            wire = StreamWire(await Wire.open(broker.port, host="localhost", tls=context))
        else:
            url = f"{'wss' if secure else 'ws'}://localhost:{broker.port}/mqtt"
            wire = WebSocketWire(await websockets.connect(url, subprotocols=["mqtt"], ssl=context))
        await wire.send(CONNECT[:5])
        await wire.send(CONNECT[5:])
        assert await wire.read(4) == b"\x20\x02\x00\x00"
        await wire.send(SUBSCRIBE)
        assert await wire.read(5) == b"\x90\x03\x00\x09\x01"
        for number, cuts in enumerate(((0, 8), (0, 4, 8)), 1):
            publish = b"\x32\x06\x00\x01t\x00" + bytes((number,)) + b"!"
            for begin, end in itertools.pairwise(cuts):
                await wire.send(publish[begin:end])
            acknowledgement = b"\x40\x02\x00" + bytes((number,))
            delivery = publish  # its packet id is the broker's own, which counts from 1, too
            came = await wire.read(12)
            assert came in (acknowledgement + delivery, delivery + acknowledgement)


def breaks_for_victim(monkeypatch, owner: type, name: str) -> None:
    original = getattr(owner, name)

    def broken(self, *args, **options):
        client_id = getattr(self, "client_id", None) or getattr(self, "_client_id", None)
        if client_id == "victim":
            raise RuntimeError("broken on purpose")
        return original(self, *args, **options)

    monkeypatch.setattr(owner, name, broken)


def end_of_sending(wire: Wire) -> None:
    wire.writer.write_eof()


def publish(wire: Wire) -> None:
    wire.publish("some", b"x", 1)


@pytest.mark.parametrize(
    ("owner", "name", "act"),
    [(PublishReader, "publishes", publish), (Connection, "eof_received", end_of_sending)],
    ids=["data_received", "eof_received"],
)
@states("MQTT-4.8.0-2")
async def test_callback_raises(rig, monkeypatch, caplog, owner, name, act):  # noqa: F811
    """An error of the appliance's own with what a client sent ends the connection, and is counted
    and logged once with its client; another client goes on."""
    other = await rig.wire(client_id="other")
    victim = await rig.wire(client_id="victim")
    breaks_for_victim(monkeypatch, owner, name)
    act(victim)
    await ends(rig, victim, caplog)
    await other.publish_acked("some", b"y")


async def ends(rig, victim: Wire, caplog) -> None:  # noqa: F811
    await victim.closed()
    await rig.until(lambda: len(rig.broker.sessions) == 1)
    assert rig.counters[COUNTER] == 1
    logged = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(logged) == 1
    assert "client victim at 127.0.0.1:" in logged[0].getMessage()


async def test_pause_of_writing_raises(tmp_path, monkeypatch, caplog):
    """A slow reader whose pause fails does not stay, with nothing sent to it any more."""
    breaks_for_victim(monkeypatch, Connection, "pause_writing")
    async with Rig(tmp_path / "data", max_client_backlog=64 * 1024) as broker:
        other = await broker.wire(client_id="other")
        victim = await broker.wire(client_id="victim")
        await victim.subscribe("big")
        victim.writer.transport.pause_reading()
        for _ in range(20):
            await other.publish_acked("big", bytes(900_000))
            if broker.counters[COUNTER]:
                break
        victim.writer.transport.resume_reading()
        await ends(broker, victim, caplog)


async def test_flush_raises(rig, monkeypatch, caplog):  # noqa: F811
    """What runs by itself in a later step of the loop ends its connection, too."""
    other = await rig.wire(client_id="other")
    victim = await rig.wire(client_id="victim")
    flush = Output.flush

    def broken(self):
        if self is victims:
            raise RuntimeError("broken on purpose")
        flush(self)

    (victims,) = (
        each._output for each in rig.broker.connections.all() if each.client_id == "victim"
    )
    monkeypatch.setattr(Output, "flush", broken)
    victim.send(b"\xc0\x00")
    await ends(rig, victim, caplog)
    await other.ping()


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("owner", [Output, Outbox], ids=["encoding", "queueing"])
async def test_delivery_raises(rig, monkeypatch, caplog, owner, qos):  # noqa: F811
    """A delivery that fails ends its own connection; the clients behind it get their copies."""
    victim = await rig.wire(5, client_id="victim")
    others = [await rig.wire(client_id=f"other-{number}") for number in range(3)]
    for wire in (others[0], victim, *others[1:]):
        await wire.subscribe(("some", qos))
    outbox = rig.broker.sessions.get("victim").outbox

    def broken(*args, **options):
        raise RuntimeError("broken on purpose")

    if owner is Output:  # the victim is the one that speaks MQTT 5
        monkeypatch.setattr(v5_encode, "encode_publish", broken)
    else:
        deliver = Outbox.deliver
        monkeypatch.setattr(
            Outbox,
            "deliver",
            lambda self, *args, **options: (broken if self is outbox else deliver)(
                self, *args, **options
            ),
        )
    publisher = await rig.wire(client_id="publisher")
    await publisher.publish_acked("some", b"x")
    for wire in others:
        assert (await wire.expect(3)).payload == b"x"
    await victim.closed()
    assert rig.counters[COUNTER] == 1
    assert rig.counters[Counter.DELIVERIES_DROPPED_INTERNAL_ERROR] == 1
    assert "client victim at 127.0.0.1:" in caplog.text
    await rig.settled()
    assert rig.door.fanned_out_seq == rig.journaled()[-1].seq


async def test_what_waits_for_a_commit_raises(rig):  # noqa: F811
    """What waits for the same commit behind it happens all the same."""
    reached = asyncio.Event()

    def broken() -> None:
        raise RuntimeError("broken on purpose")

    rig.door.record((), broken)
    rig.door.record((), reached.set)
    async with asyncio.timeout(10):
        await reached.wait()
    assert rig.counters[Counter.INTERNAL_ERRORS_AFTER_COMMIT] == 1


async def test_making_of_the_connection_raises(rig, monkeypatch):  # noqa: F811
    """A connection that can't be begun is closed, and leaves no trace in the bounds."""
    arrived = Connections.arrived

    def broken(self, connection):
        arrived(self, connection)
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(Connections, "arrived", broken)
        stranger = await rig.socket()
        assert await stranger.closed() is None
    assert rig.counters[COUNTER] == 1
    await rig.until(lambda: not rig.broker.connections)
    await rig.wire()


async def test_a_websocket_that_says_all_its_goodbyes_at_once(tmp_path):
    """PUBLISH, DISCONNECT and the close frame in one read: an end in order, and no error."""
    listener = ListenerConfig(name="one", bind="127.0.0.1:0", transport="websocket")
    async with Rig(tmp_path / "data", listeners=(listener,)) as broker, asyncio.timeout(20):
        url = f"ws://localhost:{broker.port}/mqtt"
        client = await websockets.connect(url, subprotocols=["mqtt"])
        wire = WebSocketWire(client)
        await wire.send(CONNECT + SUBSCRIBE)
        await wire.read(9)
        client.protocol.send_binary(b"\x32\x06\x00\x01t\x00\x01!\xc0\x00")
        client.protocol.send_binary(b"\xe0\x00")
        client.protocol.send_close(1000)
        client.transport.write(b"".join(client.protocol.data_to_send()))
        await client.wait_closed()
        await broker.until(lambda: not broker.broker.connections.all())
        assert COUNTER not in broker.counters


async def test_a_connection_whose_timer_raises_keeps_no_other_from_its_time(rig, monkeypatch):  # noqa: F811
    """The sweep ends it, and those that it finds after it."""
    breaks_for_victim(monkeypatch, Connection, "overdue")
    victim = await rig.wire(client_id="victim")
    silent = [await rig.wire(client_id=f"silent{n}", keepalive=1) for n in range(4)]
    await victim.closed()
    for each in silent:
        await each.closed()
    assert rig.counters[COUNTER] == 1
    assert rig.counters[Counter.CONNECTIONS_ENDED_SILENT] == 4
