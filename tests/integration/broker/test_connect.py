"""CONNECT, the first and the last packet of a connection, keepalive and take-over."""

from __future__ import annotations

import asyncio

import pytest
from broker_rig import Closed, Rig, both, number, packet, rig, states, text  # noqa: F401
from stand_in_host import StandInHost

from appliance.counters import Counter


async def refused(rig: Rig, data: bytes, version: int = 4) -> object:
    """Send bytes as the first of a connection; returns the last packet before it is closed."""
    wire = await rig.socket(version)
    wire.send(data)
    return await wire.closed()


def assert_malformed(answer: object, version: int) -> None:
    """MQTT 3.1.1 closes without an answer; MQTT 5 says that the packet is malformed."""
    assert (answer and answer.body) == (b"\0\x81\0" if version == 5 else None)


def assert_ended(last: object, version: int) -> None:
    """MQTT 5 is told 0x81 or 0x82 in a DISCONNECT; 3.1.1 has no such packet."""
    if version == 4:
        assert last is None
    else:
        assert (last.kind, last.body[0] in (0x81, 0x82)) == (14, True)


@both
@states("MQTT-3.1.0-1", "MQTT5-3.1.0-1")
async def test_first_packet(rig, version):
    """A client that begins with anything but CONNECT is shut out, and nothing of it is kept."""
    wire = await rig.socket(version)
    wire.publish("t", b"x", 1)
    assert await wire.closed() is None
    assert rig.journaled() == []


@both
@states("MQTT-3.1.0-2", "MQTT5-3.1.0-2")
async def test_second_connect(rig, version):
    """A second CONNECT ends the connection (MQTT 5: with reason 0x82)."""
    wire = await rig.wire(version)
    wire.send(wire.connect_packet())
    last = await wire.closed()
    assert (last.body[0] if last else None) == (0x82 if version == 5 else None)


@states("MQTT-3.1.2-1", "MQTT5-3.1.2-1")
@pytest.mark.parametrize("name", ["HTTP", "mqtt", "MQT", ""])
async def test_protocol_name(rig, name):
    """A client that speaks another protocol is disconnected without an answer."""
    assert await refused(rig, packet(0x10, text(name), b"\x04\x02\0\0", text("c"))) is None


@states("MQTT-3.1.2-2", "MQTT5-3.1.2-2")
@pytest.mark.parametrize(
    ("name", "level"), [("MQIsdp", 3), ("MQTT", 3), ("MQTT", 6), ("MQTT", 0x84)]
)
async def test_protocol_level(rig, name, level):
    """MQTT 3.1 and unknown versions get the code for an unacceptable protocol version."""
    answer = await refused(rig, packet(0x10, text(name), bytes((level, 2)), b"\0\0", text("c")))
    assert answer.kind == 2
    assert answer.body == b"\0\x01"


@both
@states("MQTT-3.1.2-3", "MQTT5-3.1.2-3")
async def test_reserved_connect_flag(rig, version):
    """A CONNECT with the reserved flag set is malformed (MQTT 5: 0x81; 3.1.1: no answer)."""
    properties = b"\0" if version == 5 else b""
    body = text("MQTT") + bytes((version, 3)) + b"\0\0" + properties + text("c")
    answer = await refused(rig, packet(0x10, body), version)
    assert_malformed(answer, version)


@states("MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-14", "MQTT-3.1.2-15", "MQTT-3.1.2-22")
@pytest.mark.parametrize(
    ("flags", "fields"),
    [(0x0A, 0), (0x12, 0), (0x22, 0), (0x3A, 0), (0x1E, 2), (0x3E, 2), (0x42, 1)],
)
async def test_connect_flags(rig, flags, fields):
    """Will flags without a will, a will at QoS 3, a password without a name: no answer."""
    body = text("MQTT") + bytes((4, flags)) + b"\0\0" + text("c") + fields * text("w")
    assert_malformed(await refused(rig, packet(0x10, body)), 4)


@both
@states("MQTT5-3.1.2-11", "MQTT5-3.1.2-12", "MQTT5-3.1.2-13")
async def test_will_flags(rig, version):
    """A will at QoS 3, or will flags without a will, is malformed in both versions."""
    properties = b"\0" if version == 5 else b""
    for flags, will in ((0x1E, True), (0x0A, False), (0x22, False)):
        body = text("MQTT") + bytes((version, flags)) + b"\0\0" + properties + text("c")
        if will:
            body += properties + text("w") + text("x")
        answer = await refused(rig, packet(0x10, body), version)
        assert_malformed(answer, version)


@both
@states("MQTT-3.1.3-4", "MQTT-1.5.3-1", "MQTT-1.5.3-2", "MQTT5-1.5.4-1", "MQTT5-1.5.4-2")
@pytest.mark.parametrize("client_id", [b"a\0b", b"\xff\xfe", b"\xed\xa0\x80"])
async def test_client_id_text(rig, version, client_id):
    """A client id with a null character, broken UTF-8 or a surrogate is malformed."""
    properties = b"\0" if version == 5 else b""
    body = text("MQTT") + bytes((version, 2)) + b"\0\0" + properties + text(client_id)
    answer = await refused(rig, packet(0x10, body), version)
    assert_malformed(answer, version)


@both
@states("MQTT-1.5.3-3", "MQTT5-1.5.4-3")
async def test_zero_width_no_break_space(rig, version):
    """U+FEFF in a topic is a character like any other, and not taken off."""
    wire = await rig.wire(version)
    await wire.subscribe("\ufeffa")
    wire.publish("\ufeffa")
    assert (await wire.message()).topic == "\ufeffa"


@both
@states("MQTT-3.1.3-5", "MQTT5-3.1.3-5")
async def test_long_client_id(rig, version):
    """Client ids of 23 letters and digits, and much longer ones, are welcome."""
    for client_id in ("0123456789abcdefghijABC", "x" * 200, "plc-7/line ü"):
        wire = await rig.wire(version, client_id=client_id)
        await wire.ping()


@both
@states("MQTT-3.1.3-6", "MQTT-3.1.3-7", "MQTT5-3.1.3-6", "MQTT5-3.1.3-7", "MQTT5-3.2.2-16")
async def test_empty_client_id(rig, version):
    """A client without an id gets one of its own; MQTT 5 clients are told which."""
    first = await rig.socket(version)
    second = await rig.socket(version)
    answers = [await first.connect(""), await second.connect("")]
    await first.ping()
    if version == 5:
        names = {answer.v5.assigned_client_id for answer in answers}
        assert len(names) == 2
        assert None not in names


@states("MQTT-3.1.3-8")
async def test_empty_client_id_needs_clean_session(rig):
    """MQTT 3.1.1: no id and no clean session is answered with 2, identifier rejected."""
    wire = await rig.socket()
    answer = await refused(rig, wire.connect_packet("", clean=False))
    assert answer.body == b"\0\x02"


@both
@states("MQTT-3.1.3-9", "MQTT5-3.1.3-8")
async def test_reserved_client_id(rig, version):
    """No client can pretend to be the appliance: client ids that begin with $ are refused."""
    wire = await rig.socket(version)
    answer = await refused(rig, wire.connect_packet("$appliance"), version)
    assert answer.body[1] == (2 if version == 4 else 0x85)


@both
@states("MQTT-3.1.4-2", "MQTT-3.1.4-3", "MQTT5-3.1.4-3")
async def test_take_over(rig, version):
    """A client that connects again replaces its own older connection, which is told so."""
    older = await rig.wire(version, client_id="same")
    newer = await rig.wire(version, client_id="same")
    last = await older.closed()
    if version == 5:
        assert last.kind == 14
        assert last.body[0] == 0x8E
    await newer.ping()


@both
@states("MQTT-3.1.4-2", "MQTT5-3.1.4-3")
async def test_take_over_at_the_same_moment(rig, version):
    """Of many connections with one client id at one moment, one remains and works."""
    wires = [await rig.socket(version) for _ in range(10)]
    for wire in wires:
        wire.send(wire.connect_packet("same", clean=False))

    async def alive(wire):
        try:
            if (await wire.receive()).body[1]:
                return False
            await wire.ping()
            await wire.ping()
        except (Closed, AssertionError, ConnectionError):
            return False
        return True

    async def settled():
        return sum(await asyncio.gather(*(alive(wire) for wire in wires)))

    assert await settled() == 1
    assert rig.broker.clients_connected == 1


@both
@states("MQTT-3.1.4-1", "MQTT5-3.1.4-1")
async def test_trailing_bytes(rig, version):
    """A CONNECT with bytes behind its last field is malformed (MQTT 5: 0x81; 3.1.1: no answer)."""
    wire = await rig.socket(version)
    good = wire.connect_packet("c")
    assert good[1] < 120
    answer = await refused(rig, good[:1] + bytes((good[1] + 2,)) + good[2:] + b"zz", version)
    assert_malformed(answer, version)


@both
@states("MQTT-3.1.4-4", "MQTT5-3.1.4-5")
async def test_everything_in_one_segment(rig, version):
    """A client need not wait for CONNACK: CONNECT, SUBSCRIBE, PUBLISH, DISCONNECT at once work."""
    wire = await rig.socket(version)
    wire.send(
        wire.connect_packet("quick")
        + wire.subscribe_packet(("t", 1))
        + wire.publish_packet("t", b"first", 1)
        + wire.publish_packet("t", b"second", 0)
        + b"\xc0\0"
    )
    kinds = [(await wire.receive()).kind for _ in range(6)]
    assert kinds[:2] == [2, 9]
    assert sorted(kinds[2:]) == [3, 3, 4, 13]
    brief = await rig.socket(version)
    brief.send(brief.connect_packet("brief") + brief.publish_packet("b", b"x", 0))
    brief.disconnect()
    await brief.closed()
    await rig.settled()
    assert len(rig.journaled("b")) == 1


@both
@states("MQTT-3.1.2-24", "MQTT5-3.1.2-22", "MQTT5-3.2.2-22")
async def test_keepalive(rig, version):
    """A client that is silent for one and a half keepalives is disconnected and its will sent."""
    watcher = await rig.wire(version, client_id="watcher")
    await watcher.subscribe("gone")
    wire = await rig.wire(version, client_id="sleepy", keepalive=1, will=("gone", b"w", 0, False))
    connection = rig.broker.sessions.get("sleepy").connection
    assert connection.overdue(connection.last_received + 1.5) is None
    assert connection.overdue(connection.last_received + 1.51) is not None
    last = await wire.closed()
    if version == 5:
        assert last.body[0] == 0x8D
    assert (await watcher.message()).payload == b"w"
    assert rig.counters[Counter.CONNECTIONS_ENDED_SILENT] == 1


@both
async def test_connect_in_time(tmp_path, version):
    """A connection without a CONNECT, or with half of one, or one that drips in, is closed."""
    async with Rig(tmp_path / "data", connect_timeout=0.1) as rig:
        mute = await rig.socket(version)
        half = await rig.socket(version)
        half.send(half.connect_packet("half")[:9])
        drip = await rig.socket(version)

        async def drop_by_drop():
            for byte in drip.connect_packet("x" * 500):
                drip.send(bytes((byte,)))
                await asyncio.sleep(0.05)  # Windows: below 16 ms it would not sleep

        dripping = asyncio.create_task(drop_by_drop())
        for wire in (mute, half, drip):
            assert await wire.closed() is None
        dripping.cancel()
        assert rig.broker.clients_connected == 0


@both
@states("MQTT-3.12.4-1", "MQTT5-3.12.4-1")
async def test_ping(rig, version):
    """PINGREQ is answered with PINGRESP."""
    wire = await rig.wire(version)
    await wire.ping()


@both
@states(
    "MQTT-3.14.4-3",
    "MQTT-3.1.2-10",
    "MQTT-3.1.2-12",
    "MQTT5-3.14.4-3",
    "MQTT5-3.1.2-10",
)
async def test_disconnect_discards_the_will(rig, version):
    """A client that says DISCONNECT, or has no will, leaves without one being published."""
    watcher = await rig.wire(version, client_id="watcher")
    await watcher.subscribe("will/#")
    polite = await rig.wire(version, client_id="polite", will=("will/polite", b"", 0, False))
    polite.disconnect()
    assert await polite.closed() is None
    plain = await rig.wire(version, client_id="plain")
    plain.abort()
    await rig.until(lambda: rig.broker.sessions.get("plain") is None)
    rude = await rig.wire(version, client_id="rude", will=("will/rude", b"", 1, False))
    rude.abort()
    assert (await watcher.message()).topic == "will/rude"
    assert [m.topic for m in rig.journaled()] == ["will/rude"]


@both
@states(
    "MQTT-2.2.2-1",
    "MQTT-2.2.2-2",
    "MQTT-3.6.1-1",
    "MQTT-3.14.1-1",
    "MQTT5-2.1.3-1",
    "MQTT5-3.6.1-1",
    "MQTT5-3.14.1-1",
    "MQTT5-3.15.1-1",
)
@pytest.mark.parametrize(
    "sent",
    [b"\xc1\0", b"\xc8\0", b"\xe1\0", b"\xe8\0", b"\xf1\0", b"\0\0"]
    + [bytes((first, 2, 0, 1)) for first in (0x42, 0x52, 0x60, 0x63, 0x6A, 0x73)],
    ids=lambda sent: f"{sent[0]:#x}",
)
async def test_reserved_flags(rig, version, sent):
    """A packet whose flags or type are reserved ends the connection, and it has no goodbye's effect."""
    wire = await rig.wire(version, will=("w", b"x", 0, False))
    wire.send(sent)
    last = await wire.closed()
    assert (last and last.raw) == (b"\xe0\x02\x81\0" if version == 5 else None)
    assert rig.counters[Counter.CONNECTIONS_ENDED_PROTOCOL_ERROR] == 1
    await rig.until(lambda: rig.journaled("w"))


@both
@states("MQTT-4.8.0-1", "MQTT5-4.13.1-1")
@pytest.mark.parametrize("kind", [0x20, 0x90, 0xB0, 0xD0, 0xF0])
async def test_packets_of_a_server(rig, version, kind):
    """A client that sends what only a server may send is disconnected."""
    wire = await rig.wire(version)
    wire.send(bytes((kind, 2, 0, 1)))
    assert_ended(await wire.closed(), version)


@both
@states("MQTT-4.8.0-1", "MQTT5-4.13.1-1")
async def test_length_of_five_bytes(rig, version):
    """A length field of five bytes ends the connection before anything is read for it."""
    wire = await rig.wire(version)
    wire.send(b"\x30\xff\xff\xff\xff\x01")
    assert_ended(await wire.closed(), version)


@both
async def test_too_large_from_the_header(tmp_path, version):
    """A packet larger than the limit is refused when its header is seen, not after reading it."""
    async with Rig(tmp_path / "data", max_packet_size=2000) as rig:
        wire = await rig.wire(version)
        wire.send(b"\x30\x80\x80\x80\x60")
        last = await wire.closed()
        if version == 5:
            assert last.body[0] == 0x95
        largest = await rig.wire(version)
        room = 2000 - len(largest.publish_packet("t", b"", 1)) - 1
        largest.publish("t", b"x" * room, 1, id=1)
        assert (await largest.expect(4)).id == 1


@both
async def test_any_splitting_of_the_stream(rig, version):
    """It does not matter how the network cuts the bytes: byte by byte gives the same result."""
    wire = await rig.socket(version)
    data = (
        wire.connect_packet("slow")
        + wire.publish_packet("t", b"x" * 200, 1)
        + wire.publish_packet("t", b"y" * 300, 2)
    )
    for at in range(0, len(data), 3):
        wire.send(data[at : at + 3])
        await asyncio.sleep(0)
    assert [(await wire.receive()).kind for _ in range(3)] == [2, 4, 5]
    assert [len(m.payload) for m in rig.journaled()] == [200, 300]


@both
async def test_a_client_that_only_publishes_costs_no_task(rig, version):
    """CONNECT, PUBLISH and DISCONNECT in one go are worked off as they come; amqtt gets a client
    when it subscribes."""
    made = []

    def factory(loop, coroutine, **options):
        task = asyncio.Task(coroutine, loop=loop, **options)
        made.append(task)
        return task

    asyncio.get_running_loop().set_task_factory(factory)
    wire = await rig.socket(version)
    wire.send(
        wire.connect_packet("brief")
        + wire.publish_packet("t", b"x" * 300_000, 1)
        + wire.publish_packet("t", b"y", 1)
        + b"\xe0\0"
    )
    await rig.until(lambda: len(rig.journaled("t")) == 2)
    await rig.until(lambda: not rig.broker.connections)
    names = [task.get_name() for task in made]
    assert not [name for name in names if name.startswith(("admit", "leave", "host"))]
    subscriber = await rig.wire(version, client_id="lasting")
    await subscriber.subscribe("t")
    if not isinstance(rig.broker.host, StandInHost):
        assert "host 1 lasting" in [task.get_name() for task in made]


@both
async def test_the_last_words_are_not_waited_for_without_end(rig, version):
    """A client that does not read why its connection ends is cut off after some seconds."""
    wire = await rig.wire(version, client_id="deaf")
    await wire.subscribe("big")
    wire.writer.transport.pause_reading()
    outbox = rig.broker.sessions.get("deaf").outbox
    while not outbox.sink.stalled:
        rig.door.publish("big", bytes(900_000))
        await rig.settled()
    (connection,) = rig.broker.connections.all()
    assert rig.broker.disconnect("deaf")
    await rig.broker._sweep_once()
    assert len(rig.broker.connections) == 1
    connection._closing_since -= 100
    await rig.broker._sweep_once()
    await rig.until(lambda: not rig.broker.connections)


@both
async def test_gone_during_admission(rig, version):
    """A client that is gone before it was let in leaves nothing behind."""
    for count in range(20):
        wire = await rig.socket(version)
        wire.send(wire.connect_packet(f"brief-{count}", clean=True))
        await asyncio.sleep(0.001 * (count % 4))
        wire.abort()
    await rig.until(lambda: not rig.broker.connections)
    await rig.until(lambda: not len(rig.broker.sessions))
    assert rig.broker.connections.unauthenticated == 0


@both
@states("MQTT-3.14.4-2", "MQTT5-3.14.4-1")
async def test_nothing_behind_disconnect(rig, version):
    """What a client sends behind its DISCONNECT is not looked at."""
    wire = await rig.wire(version)
    wire.send(b"\xe0\0" + wire.publish_packet("t", b"x", 1))
    assert await wire.closed() is None
    await rig.settled()
    assert rig.journaled() == []


@states("MQTT-3.1.2-24", "MQTT5-3.1.2-22")
async def test_keepalive_of_zero(rig):
    """Keepalive 0 turns the watch off."""
    wire = await rig.wire(4, keepalive=0)
    rig.broker.connections.all().pop().last_received -= 100_000
    await rig.broker._sweep_once()
    await wire.ping()


def test_number_of_length_bytes():
    """The test's own packets use the shortest length field."""
    assert packet(0x30, b"x" * 127)[1:2] == b"\x7f"
    assert packet(0x30, b"x" * 128)[1:3] == b"\x80\x01"
    assert number(258) == b"\x01\x02"
