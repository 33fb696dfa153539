"""Strangers, intruders and clients that ask for too much: who gets in, and what it may cost."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from asserted_counters import asserted_counters
from broker_rig import TCP, Closed, Rig, Wire, both, hold_commits, packet, rig, states, text  # noqa: F401
from stand_in_host import StandInHost, session_host

from appliance.counters import Counter
from appliance.mqtt.packets import encode_length
from appliance.broker import session_binding
from appliance.broker.access import Access, Terms
from appliance.mqtt.packets import PacketError
from appliance.config.tables import AccessConfig, AccessRule, LimitsConfig
from appliance.remote.topics import state_topic
from appliance.broker.users import Users

REFUSED = {4: 4, 5: 0x86}
FORBIDDEN = {4: 5, 5: 0x87}


class FakeUsers:
    """A users file that never changes."""

    exists = True

    def mark(self, _name: str) -> bytes:
        return b"same"

    def refresh(self) -> int:
        return 0

    def recall(self, _name: str, _password: bytes) -> tuple[None, None]:
        return None, None


@pytest.fixture
async def guarded(tmp_path):
    """A broker that asks for a password."""
    path = tmp_path / "users.txt"
    users = Users(path)
    users.add("ann", b"secret of ann")
    users.add("bob", b"secret of bob")
    async with Rig(tmp_path / "data", users=path, anonymous=False) as running:
        yield running


ANN = {"username": "ann", "password": b"secret of ann"}
BOB = {"username": "bob", "password": b"secret of bob"}


# --- who gets in ------------------------------------------------------------------------------


@both
@states(
    "MQTT-3.1.4-5",
    "MQTT-3.2.2-4",
    "MQTT-3.2.2-5",
    "MQTT5-3.1.4-2",
    "MQTT5-3.1.4-6",
    "MQTT5-3.2.2-6",
    "MQTT5-3.2.2-7",
    "MQTT5-3.2.2-8",
    "MQTT5-4.13.2-1",
)
@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"username": "ann", "password": b"wrong"},
        {"username": "ann"},
        {"username": "nobody", "password": b"secret of ann"},
        {"username": "", "password": b""},
    ],
)
async def test_wrong_credentials(guarded, version, credentials):
    """A client without a right name and password is told so and disconnected; what it sent behind
    its CONNECT is not looked at."""
    wire = await guarded.socket(version)
    wire.send(wire.connect_packet("c", **credentials) + wire.publish_packet("t", b"x", 1))
    last = await wire.closed()
    assert last.kind == 2
    assert last.body[:2] == bytes((0, REFUSED[version]))
    await guarded.settled()
    assert guarded.journaled() == []
    assert len(guarded.broker.sessions) == 0


@both
async def test_failed_login_touches_nobody(guarded, version):
    """A wrong password neither kicks a client nor touches its session, present or away."""
    present = await guarded.wire(version, client_id="present", clean=False, **ANN)
    away = await guarded.wire(version, client_id="away", clean=False, **ANN)
    await away.subscribe(("t", 1))
    away.disconnect()
    await away.closed()
    for client_id in ("present", "away"):
        for clean in (True, False):
            intruder = await guarded.socket(version)
            intruder.send(
                intruder.connect_packet(client_id, clean=clean, username="ann", password=b"wrong")
            )
            await intruder.closed()
    await present.ping()
    await present.publish_acked("t", b"kept", 1, **{})
    again = await guarded.wire(version, client_id="away", clean=False, **ANN)
    assert (await again.message()).payload == b"kept"


@pytest.mark.parametrize("version", [4])
async def test_failed_logins_leave_nothing(guarded, version):
    """Thirty failed logins leave no connection, session or task behind."""
    guarded.access._failures.delay_s = lambda _origin: 0.0
    for number in range(30):
        wire = await guarded.socket(version)
        wire.send(wire.connect_packet(f"c{number}", username="x", password=b"y" * 1000))
        await wire.closed()
        await wire.close()
    await guarded.until(lambda: not guarded.broker.connections)
    assert len(guarded.broker.sessions) == 0
    assert guarded.broker.connections.unauthenticated == 0
    gc.collect()
    left = [o for o in gc.get_objects() if type(o).__name__ == "Connection"]
    assert len(left) < 10
    assert guarded.counters[Counter.LOGINS_REFUSED] == 30


# --- who may do what --------------------------------------------------------------------------

RULES = (
    AccessRule(user="ann", publish=("plant/%u/#", "cmd/%c"), subscribe=("plant/#",)),
    AccessRule(user="*", client_id="probe-*", publish=("probe/+",), subscribe=("$share-me/#",)),
)


@pytest.fixture
async def ruled(tmp_path):
    path = tmp_path / "users.txt"
    for name, password in ((ANN["username"], ANN["password"]), (BOB["username"], BOB["password"])):
        Users(path).add(name, password)
    async with Rig(tmp_path / "data", users=path, anonymous=False, rules=RULES) as running:
        yield running


@both
@states("MQTT-3.3.5-2")
@pytest.mark.parametrize(
    ("who", "client_id", "topic", "allowed"),
    [
        (ANN, "c1", "plant/ann/x", True),
        (ANN, "c1", "plant/bob/x", False),
        (ANN, "c1", "cmd/c1", True),
        (ANN, "c1", "cmd/c2", False),
        (ANN, "a/+", "cmd/a/b", False),
        (BOB, "c1", "plant/bob/x", False),
        (BOB, "probe-7", "probe/1", True),
        (BOB, "probe-7", "probe/1/2", False),
        (ANN, "c1", "appliance/status", False),
    ],
)
async def test_publish_rules(ruled, version, who, client_id, topic, allowed):
    """A client publishes to what a rule permits, and nothing else is journaled."""
    wire = await ruled.wire(version, client_id=client_id, **who)
    wire.publish(topic, b"x", 1)
    if allowed:
        assert (await wire.expect(4)).codes in ([], [0])
    elif version == 5:
        assert (await wire.expect(4)).codes == [0x87]
        await wire.ping()
    else:
        assert await wire.closed() is None
    await ruled.settled()
    assert len(ruled.journaled()) == allowed


@pytest.mark.parametrize("version", [5])
async def test_name_like_a_placeholder(tmp_path, version):
    """A user name that looks like a placeholder of a rule is a name, and opens nothing."""
    rules = (AccessRule(publish=("plant/%u/#",)),)
    async with Rig(tmp_path / "data", rules=rules) as rig:
        wire = await rig.wire(version, client_id="+", username="%c")
        assert (await wire.publish_acked("plant/other/x", b"x", 1)).codes == [0x87]
        assert (await wire.publish_acked("plant/%c/x", b"x", 1)).codes == [0]


@both
async def test_subscribe_rules(ruled, version):
    """A client subscribes within what a rule permits; wider filters are refused."""
    wire = await ruled.wire(version, client_id="c1", **ANN)
    no = 0x87 if version == 5 else 0x80
    wanted = ["plant/#", "plant/+/x", "#", "+/ann", "other", "$share/g/plant/a", "$share/g/#"]
    assert await wire.subscribe(*wanted) == [0, 0, no, no, no, 0, no]


@both
async def test_will_rules(ruled, version):
    """A will that its client may not publish is refused at CONNECT, before anything happens."""
    wire = await ruled.socket(version)
    wire.send(wire.connect_packet("c1", will=("plant/bob/x", b"", 0, False), **ANN))
    assert (await wire.closed()).body[1] == FORBIDDEN[version]
    assert len(ruled.broker.sessions) == 0


async def test_a_terminal_that_loses_its_right_gets_nothing_more(guarded):
    """A user that is no operator or viewer any more is detached at once."""
    listen = state_topic("screen")

    def terms(*operators: str) -> Terms:
        return Terms(
            AccessConfig(operators=operators),
            guarded.users,
            anonymous=False,
            open_without_users=False,
        )

    guarded.access.take(terms("ann"))
    wire = await guarded.wire(client_id="screen", **ANN)
    assert await wire.subscribe((listen, 0), ("t", 0)) == [0, 0]
    assert guarded.broker.is_listening("screen", listen)
    guarded.access.take(terms())
    found = guarded.broker.enforce_access()
    assert (found.disconnected, found.unsubscribed) == (0, 1)
    assert not guarded.broker.is_listening("screen", listen)
    assert guarded.door.hand(listen, b"x") == 0
    assert guarded.broker.is_listening("screen", "t")


# --- how much a client may cost ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "counter"),
    [
        ({"max_connections": 3}, Counter.CONNECTIONS_REFUSED_LIMIT_OVERALL),
        ({"max_connections_per_address": 3}, Counter.CONNECTIONS_REFUSED_LIMIT_ADDRESS),
    ],
)
async def test_too_many_connections(tmp_path, limits, counter):
    """A connection too many is refused at once, not queued, and room is given back."""
    async with Rig(tmp_path / "data", **limits) as rig:
        wires = [await rig.wire(client_id=f"c{n}") for n in range(3)]
        refused = await rig.socket()
        assert await refused.closed() is None
        assert rig.counters[counter] == 1
        wires[0].abort()
        await rig.until(lambda: len(rig.broker.connections) == len(wires) - 1)
        await rig.wire(client_id="again")


several_addresses = pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS has one loopback address only"
)


async def test_a_listener_has_a_bound_of_its_own(tmp_path):
    """A connection too many on a listener with max_connections is refused and counted."""
    listener = msgspec.structs.replace(TCP, max_connections=1)
    async with Rig(tmp_path / "data", listeners=(listener,)) as rig:
        await rig.wire(client_id="first")
        assert await (await rig.socket()).closed() is None
        assert rig.counters[Counter.CONNECTIONS_REFUSED_LIMIT_LISTENER] == 1


@several_addresses
@pytest.mark.parametrize("sent", [b"", b"\x10"], ids=["silent", "slow"])
async def test_strangers_keep_nobody_out(tmp_path, sent):
    """Connections without a CONNECT, one from each address, make room for every newcomer, of their
    own addresses too; of those that have sent nothing the oldest goes first."""
    async with Rig(tmp_path / "data", max_unauthenticated=5) as rig:
        strangers = [await Wire.open(rig.port, source=f"127.0.1.{number}") for number in range(5)]
        for each in strangers[:1]:
            each.send(b"\x10")
        for each in strangers:
            each.send(sent)
        await rig.until(lambda: rig.broker.connections.unauthenticated == 5)
        for number in (9, 1):
            client = await Wire.open(rig.port, source=f"127.0.1.{number}")
            await client.connect(f"client {number}")
        more = await Wire.open(rig.port, source="127.0.1.10")
        ended = more if sent else strangers[1]
        assert await ended.closed() is None
        assert rig.counters[Counter.CONNECTIONS_ENDED_TO_MAKE_ROOM] == 1
        for each in strangers:
            each.abort()


async def test_many_clients_that_come_at_once_are_all_let_in(tmp_path):
    """After a restart, more connect at once than half-open connections may stay."""
    async with Rig(tmp_path / "data", max_unauthenticated=5) as rig:
        wires = await asyncio.gather(*(rig.socket() for _ in range(20)))
        await asyncio.gather(*(wire.connect(f"c{n}") for n, wire in enumerate(wires)))
        assert not rig.counters


async def test_the_burst_is_bounded(tmp_path):
    """Beyond four times the limit of half-open connections a new one is refused at once."""
    async with Rig(tmp_path / "data", max_unauthenticated=1) as rig:
        wires = await asyncio.gather(*(rig.socket() for _ in range(30)))
        await rig.until(lambda: rig.broker.connections.unauthenticated <= 1)
        assert rig.counters[Counter.CONNECTIONS_REFUSED_LIMIT_UNAUTHENTICATED] > 0
        for each in wires:
            each.abort()


@both
async def test_too_many_subscriptions(tmp_path, version):
    """Subscriptions beyond the limit are refused one by one; replacing one is always possible."""
    async with Rig(tmp_path / "data", max_subscriptions_per_client=3) as rig:
        wire = await rig.wire(version)
        no = 0x97 if version == 5 else 0x80
        assert await wire.subscribe("a", "b") == [0, 0]
        assert await wire.subscribe("c", "d") == [0, no]
        assert await wire.subscribe(("a", 2)) == [2]
        assert rig.counters[Counter.SUBSCRIPTIONS_REFUSED_LIMIT] == 1
        wire.send(wire.subscribe_packet(*(f"t{n}" for n in range(4))))
        await wire.closed()
        assert len(rig.subscriptions) == 0


@both
async def test_too_many_levels_of_filters(tmp_path, version):
    """The levels of a client's filters are bounded together; what ends makes room again."""
    async with Rig(tmp_path / "data", max_filter_nodes=10) as rig:
        wire = await rig.wire(version)
        no = 0x97 if version == 5 else 0x80
        assert await wire.subscribe("a/b/c/d", "+/+/+/#") == [0, 0]
        assert await wire.subscribe("e/f/g", "e/f") == [no, 0]
        assert await wire.subscribe(("e/f", 1), "x") == [1, no]
        await wire.unsubscribe("a/b/c/d")
        assert await wire.subscribe("$share/g/x/y", "x") == [0, no]
        assert rig.counters[Counter.SUBSCRIPTIONS_REFUSED_TOO_MANY_NODES] >= 2
        other = await rig.wire(version, client_id="other")
        assert await other.subscribe("a/b/c/d/e/f/g/h/i/j") == [0]


@both
async def test_too_many_retained(tmp_path, version):
    """Retained messages are bounded in number, also within one burst; known topics still change."""
    async with Rig(tmp_path / "data", max_retained=3) as rig:
        wire = await rig.wire(version)
        for n in range(5):
            wire.publish(f"r/{n}", b"x", 1, retain=True)
        for _ in range(5):
            await wire.expect(4)
        assert len(rig.retained) == 3
        assert rig.counters[Counter.RETAINED_MESSAGES_REFUSED] == 2
        await wire.publish_acked("r/0", b"y", 1, retain=True)
        await wire.publish_acked("r/1", b"", 1, retain=True)
        await wire.publish_acked("r/9", b"z", 1, retain=True)
        assert len(rig.journaled()) == 8
    async with Rig(tmp_path / "data", max_retained=3) as rig:
        assert {t: rig.retained.get(t).payload for t in ("r/0", "r/2", "r/9")} == {
            "r/0": b"y",
            "r/2": b"x",
            "r/9": b"z",
        }


@both
async def test_retained_messages_are_bounded_in_bytes(tmp_path, version):
    """Large retained messages can't fill the memory. One that does not fit is journaled and not
    retained, and no later subscriber takes the one before it for the last; what fits is
    taken again once there is room."""
    big = b"x" * 30_000
    async with Rig(tmp_path / "data", max_retained_size=65536) as rig:
        wire = await rig.wire(version)
        for topic, payload in (("r/0", big), ("r/1", b"small"), ("r/2", big), ("r/1", big)):
            await wire.publish_acked(topic, payload, 1, retain=True)
        assert rig.counters[Counter.RETAINED_MESSAGES_REFUSED] == 1
        assert rig.retained.get("r/1") is None
        assert len(rig.retained) == 2
        assert len(rig.journaled()) == 4
    async with Rig(tmp_path / "data", max_retained_size=65536) as rig:
        assert rig.retained.get("r/1") is None
        wire = await rig.wire(version)
        await wire.publish_acked("r/1", big, 1, retain=True)
        assert rig.retained.get("r/1") is None
        await wire.publish_acked("r/0", b"", 1, retain=True)
        await wire.publish_acked("r/1", big, 1, retain=True)
        assert rig.retained.get("r/1").payload == big


@both
async def test_queue_of_an_absent_client(tmp_path, version):
    """For a client that is away the newest messages are kept, the oldest dropped and counted."""
    async with Rig(tmp_path / "data", max_queued_per_client=5) as rig:
        reader = await rig.wire(version, client_id="reader", clean=False)
        await reader.subscribe(("t", 1))
        reader.disconnect()
        await reader.closed()
        for n in range(12):
            rig.door.publish("t", b"%d" % n)
        await rig.settled()
        assert rig.counters[Counter.DELIVERIES_DROPPED_QUEUE_FULL] == 7
        again = await rig.wire(version, client_id="reader", clean=False)
        assert [int(m.payload) for m in await again.messages(5)] == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("qos", [0, 1])
async def test_stalled_subscriber(tmp_path, qos):
    """A subscriber that does not read costs bounded memory and disturbs no other client."""
    async with Rig(tmp_path / "data", max_client_backlog=65536, max_queued_per_client=50) as rig:
        stalled = await rig.wire(client_id="stalled")
        await stalled.subscribe(("t", qos))
        stalled.reader._transport.pause_reading()
        brisk = await rig.wire(client_id="brisk")
        await brisk.subscribe(("t", qos))
        writer = await rig.wire(client_id="writer")
        payload = b"x" * 50_000
        for _ in range(200):
            await writer.publish_acked("t", payload, 1)
            assert len((await brisk.messages(1))[0].payload) == 50_000
        connection = rig.broker.sessions.get("stalled").connection
        assert connection._transport.get_write_buffer_size() < 65536 + 3 * 50_000
        assert rig.broker.sessions.get("stalled").outbox._queued_bytes <= 65536 + 50_000
        told = (
            Counter.DELIVERIES_DROPPED_QUEUE_FULL
            if qos
            else Counter.DELIVERIES_DROPPED_SLOW_SUBSCRIBER
        )
        assert rig.counters[told]
        # Its client id can be taken over although its connection can't be closed in peace.
        await rig.wire(client_id="stalled")


async def test_sessions_are_bounded(tmp_path):
    """Sessions that outlive their connections are bounded in number; clean ones still come in."""
    async with Rig(tmp_path / "data", max_sessions=10) as rig:
        for n in range(10):
            wire = await rig.wire(client_id=f"c{n}", clean=False)
            wire.disconnect()
            await wire.closed()
            await rig.until(lambda: not rig.broker.connections)
        refused = await rig.socket()
        refused.send(refused.connect_packet("c10", clean=False))
        assert (await refused.closed()).body == b"\0\3"
        assert rig.counters[Counter.CONNECTIONS_REFUSED_LIMIT_SESSIONS] == 1
        await rig.wire(client_id="c11")
        await rig.wire(client_id="c3", clean=False)


@both
async def test_wills_are_bounded_together(tmp_path, version):
    """The wills of all clients have a bound in bytes, over a restart too; one that ends or is
    replaced makes room."""
    limits = {"max_wills_size": 100_000}
    will = ("w", b"x" * 40_000, 1, False)

    async def is_refused(rig, name):
        wire = await rig.socket(version)
        wire.send(wire.connect_packet(name, will=will, clean=False))
        refusal = await wire.closed()
        return refusal is not None and refusal.body[1] == (0x97 if version == 5 else 3)

    async with Rig(tmp_path / "data", **limits) as rig:
        first = await rig.wire(version, client_id="c1", will=will)
        await rig.wire(version, client_id="c2", will=will)
        assert await is_refused(rig, "c3")
        assert rig.counters[Counter.CONNECTIONS_REFUSED_LIMIT_WILLS] == 1
        await rig.wire(version, client_id="c2", will=will)  # its earlier will is gone
        first.disconnect()
        await first.closed()
        await rig.wire(version, client_id="c3", will=will)
        await rig.settled()
        rig.broker.binding.is_stopping = True
    async with Rig(tmp_path / "data", **limits) as rig:
        assert await is_refused(rig, "c4")
        await rig.wire(version, client_id="c3", will=will)
        await rig.wire(version, client_id="c4")


@both
async def test_a_user_name_has_a_bound(rig, version):
    """A user name of more than 1024 bytes is refused with a reason before it is looked up."""
    for name, code in (("ü" * 512, 0), ("ü" * 512 + "x", 0x86 if version == 5 else 4)):
        wire = await rig.socket(version)
        wire.send(wire.connect_packet("c", username=name, password=b"x"))
        assert (await wire.expect(2)).body[1] == code
    assert rig.counters[Counter.CONNECTIONS_REFUSED_USER_NAME_TOO_LONG] == 1


async def test_a_full_window_and_a_silent_stranger_are_counted(tmp_path):
    """A subscriber that leaves too much unacknowledged, and a connection that never says CONNECT,
    are counted as every other bound that bites."""
    async with Rig(tmp_path / "data", max_inflight_per_client=2, connect_timeout=0.1) as rig:
        stranger = await rig.socket()
        reader, writer = await rig.wire(client_id="r"), await rig.wire(client_id="w")
        await reader.subscribe(("t", 1))
        for _ in range(5):
            await writer.publish_acked("t", b"x", 1)
        assert rig.counters[Counter.DELIVERIES_HELD] == 1
        await reader.messages(5)
        await stranger.closed()
        assert rig.counters[Counter.CONNECTIONS_ENDED_NO_CONNECT_IN_TIME] == 1
        assert not any(one.name.startswith("DELIVERIES_DROPPED") for one in rig.counters)


@states("MQTT5-3.1.2-22", "MQTT5-3.2.2-22")
@pytest.mark.parametrize(("asked", "told"), [(0, 20), (60, 20), (20, None), (5, None)])
async def test_server_keepalive(tmp_path, asked, told):
    """A client that asks for a longer keepalive than it may have is told which, and held to it."""
    async with Rig(tmp_path / "data", max_keepalive=20) as rig:
        wire = await rig.socket(5)
        accepted = await wire.connect(keepalive=asked)
        assert accepted.v5.server_keep_alive == told
        (connection,) = rig.broker.connections.all()
        assert connection.keepalive_s == 1.5 * (told or asked)
        connection.last_received -= 31
        await rig.broker._sweep_once()
        assert (await wire.closed()).body[0] == 0x8D
        assert rig.counters[Counter.CONNECTIONS_ENDED_SILENT] == 1


def test_every_bound_names_its_counter():
    """docs/configuration.md names for each key of [limits] the counters that tell how often it bit;
    for each counter that it names, there too for other keys, a test asserts that it counts."""
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text("utf-8")
    table = page.split("\n## [limits]\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", table, re.M))
    assert set(rows) == set(LimitsConfig.__struct_fields__)
    named = re.compile(r"counters? `([^`]+)`")
    assert [key for key, row in rows.items() if not named.search(row)] == []
    by_label = {counter.label: counter.name for counter in Counter}
    asserted = asserted_counters(Path(__file__).parents[2])
    assert [label for label in named.findall(page) if by_label[label] not in asserted] == []


async def test_connect_of_a_stranger_is_small(rig):
    """Before it is known who connects, no packet larger than a CONNECT can be is read."""
    wire = await rig.socket()
    wire.send(b"\x10" + encode_length(300_000) + text("MQTT"))
    assert await wire.closed() is None
    assert rig.counters[Counter.CONNECTIONS_ENDED_PACKET_TOO_LARGE] == 1


@both
async def test_publisher_is_slowed(tmp_path, version, monkeypatch):
    """A publisher that is faster than the disk is slowed, and loses nothing."""
    async with Rig(tmp_path / "data", max_pending=65536) as rig:
        wire = await rig.wire(version)
        go = hold_commits(monkeypatch)
        for n in range(1, 401):
            wire.publish("t", b"x" * 5000, 1, id=n)
        await rig.until(lambda: rig.counters[Counter.PUBLISHERS_SLOWED])
        go.set()
        assert [(await wire.expect(4)).id for _ in range(400)] == list(range(1, 401))


@both
async def test_while_publishers_are_held_small_ones_go_on(rig, version):
    """A publisher that sends much is paused, a bit of it is read at each call, and nothing is lost;
    one that sends little is answered as always."""
    rig.door.hold(True)
    heavy, small = await rig.wire(version, client_id="h"), await rig.wire(version, client_id="s")
    for n in range(1, 101):
        heavy.publish("t", b"x" * 50_000, 1, id=n)
    for _ in range(10):
        await small.publish_acked("t")
    assert len(rig.journaled("t")) < 60
    for n in range(1, 101):
        rig.door.hold(True)
        assert (await heavy.expect(4)).id == n
        await small.publish_acked("t")
    heavy.publish("t", b"x" * 50_000, 1, id=1)
    heavy.publish("t", b"x" * 50_000, 1, id=2)
    await heavy.expect(4)
    rig.door.hold(False)
    await heavy.expect(4)


@both
async def test_while_the_memory_is_short_nothing_grows_much(rig, version, monkeypatch):
    """A client with many subscriptions, and a user with many lasting sessions, get no further ones;
    what there is stays, and others get what they need."""
    monkeypatch.setattr(session_binding, "MOST_WHILE_HELD", 3)
    long = [f"{n}/" + "x" * 900 for n in range(80)]
    greedy, other = await rig.wire(version), await rig.wire(version, client_id="other")
    rig.door.hold(True)
    codes = [code for name in long for code in await greedy.subscribe(name)]
    refused = 0x97 if version == 5 else 0x80
    granted = codes.index(refused)
    assert 20 < granted < 60
    assert set(codes[granted:]) == {refused}
    assert await greedy.subscribe(long[0]) == [0]  # it has this one
    assert await other.subscribe(*[f"short/{n}" for n in range(20)]) == [0] * 20
    for n in range(3):
        await rig.wire(version, client_id=f"lasting {n}", clean=False)
    further = await rig.socket(version)
    further.send(further.connect_packet("lasting 3", clean=False))
    assert (await further.closed()).body[1] == (0x97 if version == 5 else 3)
    assert rig.counters[Counter.MEMORY_GROWTH_REFUSED] == 80 - granted + 1
    await rig.wire(version, client_id="lasting 1", clean=False)  # has its session
    await rig.wire(version, client_id="clean")
    rig.door.hold(False)
    assert await greedy.subscribe(*long) == [0] * 80
    await rig.wire(version, client_id="lasting 3", clean=False)


async def test_random_bytes(rig):
    """No bytes of a stranger or client end the broker or make it say a secret."""
    import random

    dice = random.Random(4711)
    for turn in range(150):
        version = dice.choice((4, 5))
        wire = await rig.socket(version)
        if turn % 2:
            await wire.connect(f"c{turn}")
        data = bytearray(
            wire.connect_packet("x")
            + wire.subscribe_packet("a/b")
            + wire.publish_packet("a/b", b"x" * 30, 2)
            + packet(0xE0)
        )
        for _ in range(dice.randrange(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        wire.send(bytes(data))
        wire.writer.write_eof()
        try:
            while True:
                await asyncio.wait_for(wire.reader.read(1000), 0.02) or wire.abort()
                if wire.writer.transport.is_closing():
                    break
        except (Closed, ConnectionError, TimeoutError):
            wire.abort()
    survivor = await rig.wire()
    await survivor.publish_acked("t", b"x", 2)
    assert isinstance(survivor, Wire)


async def test_login_stalls_nobody(guarded):
    """While a password is checked, which takes its time, the others are served."""
    checking, go_on = threading.Event(), threading.Event()

    class Slow(FakeUsers):
        def verify(self, name: str, _password: bytes) -> bool:
            if name != BOB["username"]:
                return True
            checking.set()
            return go_on.wait(10)

    guarded.access.take(Terms(AccessConfig(), Slow(), anonymous=False, open_without_users=False))
    here = await guarded.wire(client_id="here", **ANN)
    late = await guarded.socket()
    late.send(late.connect_packet("late", **BOB))
    await guarded.until(checking.is_set)
    await here.publish_acked("t", b"x", 1)
    assert not late.reader._buffer
    go_on.set()
    assert (await late.expect(2)).body == b"\0\0"


@pytest.mark.parametrize("host", [StandInHost, session_host])
async def test_stop_waits_for_what_it_aborts(tmp_path, host):
    """A client that reads nothing is cut off; the stop returns when its connection is gone."""
    async with Rig(tmp_path / "data", host=host()) as rig:
        deaf = await rig.wire(client_id="deaf", will=("w", b"x", 0, False))
        await deaf.subscribe("big")
        deaf.writer.transport.pause_reading()
        publisher = await rig.wire(client_id="publisher")
        session = rig.broker.sessions.get("deaf")
        while not session.outbox.sink.stalled:
            await publisher.publish_acked("big", bytes(900_000))
        connections = rig.broker.connections.all()
        rig.broker.stop_s = 0.1
        await rig.broker.stop()
        assert not rig.broker.connections
        assert not len(rig.broker.sessions)
        async with asyncio.timeout(0):
            for connection in connections:
                await connection.wait_ended()
        assert rig.journaled("w") == []
        await rig.broker.host.start()


async def test_stop_with_mute_connections(tmp_path):
    """Connections that say nothing, and clients that don't read, don't hold up the stop."""
    async with Rig(tmp_path / "data", max_client_backlog=65536) as rig:
        mute = [await rig.socket() for _ in range(5)]
        stalled = await rig.wire()
        await stalled.subscribe("t")
        stalled.reader._transport.pause_reading()
        for _ in range(100):
            rig.door.publish("t", b"x" * 50_000)
            await rig.settled()
        rig.broker.stop_s = 0.2
        await rig.broker.stop()
        for wire in mute:
            assert await wire.closed() is None
        assert not rig.broker.connections
        await rig.broker.host.start()


@both
async def test_operator_disconnects(rig, version):
    """An operator can end a client's connection; MQTT 5 clients are told who did."""
    wire = await rig.wire(version, client_id="c")
    assert rig.broker.disconnect("c")
    last = await wire.closed()
    if version == 5:
        assert last.body[0] == 0x98
    assert not rig.broker.disconnect("nobody")


async def test_client_states(rig):
    """The operator sees connected clients, clients that are away, and what waits for them."""
    away = await rig.wire(5, client_id="away", clean=False)
    await away.subscribe(("t", 1))
    away.disconnect()
    await away.closed()
    await rig.wire(4, client_id="here")
    rig.door.publish("t", b"x")
    await rig.settled()
    await rig.broker._sweep_once()
    found = {state.client_id: state for state in rig.broker.clients()}
    assert found["here"].connected
    assert found["here"].protocol == "3.1.1"
    assert not found["away"].connected
    assert found["away"].queued == 1
    assert found["away"].protocol == "5.0"
    assert found["away"].subscriptions == (("t", 1),)
