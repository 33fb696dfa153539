"""Promises of a bridge's connection about what a broker may send: any bytes, in any pieces.

The real connection, incoming side and account, over a transport and a door that only note.
"""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.bridge.account import Account, Kept
from appliance.bridge.causes import Causes, Kind
from appliance.bridge.connection import BridgeConnection
from appliance.bridge.incoming import Incoming, Totals
from appliance.bridge.routes import Routes
from appliance.bridge.store import BridgeRecord
from appliance.broker.sparse_log import SparseLog
from appliance.broker.work import Turns
from appliance.config.tables import BridgeSubscribeConfig, LimitsConfig
from appliance.known_secrets import KnownSecrets
from appliance.mqtt.client_packets import ConnectOptions
from appliance.mqtt.packets import encode_length

LARGEST = 300
CONNACK = {4: b"\x20\x02\x00\x00", 5: b"\x20\x03\x00\x00\x00"}


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data):
        self.sent += bytes(data)

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Door:
    """Takes messages; ``commit`` brings them to disk."""

    def __init__(self):
        self.messages = []
        self.waiting = []
        self.seq = 0

    def clock_ns(self):
        return 1

    def next_seq(self):
        self.seq += 1
        return self.seq

    def enter(self, messages, size, publisher, acks, retained, *, beside):
        assert size == sum(len(one.payload) for one in messages)
        self.messages += messages
        self.waiting.append((publisher, acks))

    def commit(self):
        waiting, self.waiting = self.waiting, []
        for publisher, acks in waiting:
            if acks:
                publisher.queue(acks)

    def forget(self, _publisher):
        pass


class Owner:
    """The exchange, without what goes out."""

    wants_proof = False

    def __init__(self, door, version):
        self.acknowledged_to = 0
        self.counted = []
        account = Account(
            Kept(BridgeRecord("plant")),
            address="there:1883",
            client_id="plant",
            record=lambda _rows: None,
            newest_seq=lambda: door.seq,
            most_digests=lambda: 10,
            count=self.counted.append,
            clock=lambda: 0.0,
            clock_ns=lambda: 1,
        )
        self.make = lambda connection: Incoming(
            name="plant",
            address="there:1883",
            version=version,
            door=door,
            publisher=connection,
            routes=Routes(
                (BridgeSubscribeConfig(topic="a/#"),),
                service_name="appliance",
                limits=LimitsConfig,
                count=self.counted.append,
            ),
            limits=LimitsConfig,
            account=account,
            totals=Totals([0]),
            count=self.counted.append,
            installation="here",
            sparse=SparseLog(logging.getLogger("appliance.test")),
        )

    def accepted(self, connection, _answer):
        incoming = self.make(connection)
        incoming.may_be_replayed = True  # as where a filter is subscribed to
        return incoming

    def subscribed(self, connection, *_answer):
        connection.end(connection.causes.of_protocol("not asked"))

    def acknowledged(self, _ack):
        pass

    def acknowledges(self, seq):
        self.acknowledged_to = seq

    def pinging(self):
        pass

    def pinged(self):
        pass

    def look(self, _connection):
        pass

    def note_error(self, error):
        raise AssertionError from error

    def pause_writing(self):
        pass

    def resume_writing(self):
        pass


def fresh(version):
    """A connection whose broker has not answered yet."""
    door = Door()
    connection = BridgeConnection(
        Owner(door, version),
        ConnectOptions(version=version, client_id="plant", keepalive_s=60),
        Causes(KnownSecrets(), has_certificate=False, has_tls=False),
        address="there:1883",
        door=door,
        turns=Turns(asyncio.get_running_loop()),
        largest_packet=LARGEST,
        answer_s=10,
    )
    transport = Transport()
    connection.connection_made(transport)
    return connection, door, transport


def connected(version):
    """A connection that the broker has accepted, with its door and transport."""
    connection, door, transport = fresh(version)
    connection.data_received(CONNACK[version])
    assert connection.is_open
    transport.sent = b""
    return connection, door, transport


def publish(version, topic, payload, qos, packet_id, flags=0, properties=b""):
    raw = topic if isinstance(topic, bytes) else topic.encode()
    body = len(raw).to_bytes(2, "big") + raw
    body += packet_id.to_bytes(2, "big") if qos else b""
    if version == 5:
        body += encode_length(len(properties)) + properties
    body += payload
    return bytes((0x30 | flags | qos << 1,)) + encode_length(len(body)) + body


async def settle():
    for _ in range(4):
        await asyncio.sleep(0)


def in_pieces(data, cuts):
    """The data, cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


GOOD = st.tuples(
    st.sampled_from(["a", "a/b", "a/ä", "b", "$SYS/x", "appliance/x", b"a/\xff", "a/#", ""]),
    st.binary(max_size=2 * LARGEST),
    st.integers(0, 2),
    st.integers(1, 65535),
    st.sampled_from([0, 1]),
)


@pytest.mark.parametrize("version", [4, 5])
@settings(max_examples=30)
@example(sent=[(b"a/\xff", b"x" * LARGEST, 1, 7, 0)], cuts=[], commits=1)
@example(sent=[("a", b"x" * LARGEST, 1, 7, 0)], cuts=[1, 2, 3, 4, 5, 6, 7, 8], commits=1)
@given(
    sent=st.lists(GOOD, max_size=12),
    cuts=st.lists(st.integers(0, 10**6), max_size=12),
    commits=st.integers(1, 3),
)
def test_pieces_make_no_difference(version, sent, cuts, commits):
    """Messages come in whole and in order, and each packet of QoS 1 or 2 is answered once, in order.

    That holds for whatever pieces the bytes come in, for messages that are left out and for those
    that are too large.
    """

    async def run():
        connection, door, transport = connected(version)
        data = b"".join(
            publish(version, topic, payload, qos, key, retain)
            for topic, payload, qos, key, retain in sent
        )
        for number, piece in enumerate(in_pieces(data, cuts)):
            connection.data_received(piece)
            if not number % commits:
                door.commit()
        await settle()
        door.commit()
        await settle()
        assert connection.is_open
        wanted = [
            (topic, payload, qos)
            for topic, payload, qos, key, retain in sent
            if isinstance(topic, str)
            and topic.startswith("a")
            and topic not in ("appliance/x", "a/#")
            and not retain
            and len(publish(version, topic, payload, qos, key)) <= LARGEST
        ]
        assert [(one.topic, one.payload, one.qos) for one in door.messages] == wanted
        assert [one.seq for one in door.messages] == list(range(1, len(wanted) + 1))
        answers = b"".join(
            bytes((0x40 if qos == 1 else 0x50, 2)) + key.to_bytes(2, "big")
            for _, _, qos, key, _ in sent
            if qos
        )
        assert transport.sent == answers
        assert connection.incoming.unacknowledged == 0
        connection.abort()
        connection.connection_lost(None)

    asyncio.run(run())


PACKET = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda first, body: bytes((first,)) + encode_length(len(body)) + body,
        st.integers(0, 255),
        st.binary(max_size=60),
    ),
    st.builds(
        lambda first, length, body: bytes((first,)) + length + body,
        st.sampled_from([0x30, 0x32, 0x34, 0x40, 0x90, 0xB0, 0xD0, 0xE0]),
        st.sampled_from([b"\x00", b"\x02", b"\x7f", b"\xff\x7f", b"\xff\xff\xff\x7f", b"\xff" * 5]),
        st.binary(max_size=60),
    ),
    GOOD.map(lambda one: publish(4, *one)),
    GOOD.map(lambda one: publish(5, *one)),
    st.builds(
        lambda properties: publish(5, "a", b"x", 1, 1, 0, properties), st.binary(max_size=40)
    ),
)


@pytest.mark.parametrize("version", [4, 5])
@settings(max_examples=60)
@given(
    packets=st.lists(PACKET, max_size=8),
    cuts=st.lists(st.integers(0, 10**6), max_size=5),
    is_open=st.booleans(),
    pauses=st.sets(st.integers(0, 5)),
)
def test_any_bytes(version, packets, cuts, is_open, pauses):
    """Whatever a broker sends, the connection goes on or ends with a cause that is no defect."""

    async def run():
        connection, door, transport = connected(version) if is_open else fresh(version)
        for number, piece in enumerate(in_pieces(b"".join(packets), cuts)):
            if number in pauses:
                connection.pause()
            if not transport.closed:
                connection.data_received(piece)
            if connection.is_open:
                connection._look(connection._loop.time() + 1)
            door.commit()
            await settle()
            connection.resume()
        if transport.closed:
            connection.connection_lost(None)
            cause = await connection.ended
            assert cause is not None
            assert cause.kind is not Kind.INTERNAL
            assert str(cause).isprintable()
        else:
            assert connection._receiver.waiting_bytes <= 70_000
            connection.abort()
            connection.connection_lost(None)

    asyncio.run(run())


@pytest.mark.parametrize(("told", "asks_after"), [(65535, 43), (0, 43), (10, 8)])
def test_the_broker_can_only_shorten_the_keepalive(told, asks_after):
    """A broker that wants no pings, or hardly any, does not keep a dead network from being seen."""

    async def run():
        connection, _, transport = fresh(5)
        connection.data_received(b"\x20\x06\x00\x00\x03\x13" + told.to_bytes(2, "big"))
        assert connection.is_open
        transport.sent = b""
        connection._look(connection._loop.time() + asks_after)
        await settle()
        assert transport.sent == b"\xc0\x00"
        connection._look(connection._loop.time() + 2 * asks_after)
        connection.connection_lost(None)
        assert (await connection.ended).kind is Kind.NO_ANSWER

    asyncio.run(run())
