"""Sessions and their users: who may take one over, resume, end or list it, and how many there are."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import time
from pathlib import Path

import certificates
import mqtt5
import msgspec
import pytest
from broker_rig import PATIENCE_S, Rig, Wire, both, number, packet, plugin, text

from appliance.broker.users import Users
from appliance.config.tables import AccessRule, ListenerConfig, TlsConfig
from appliance.counters import Counter

ANN = {"username": "ann", "password": b"secret of ann"}
BOB = {"username": "bob", "password": b"secret of bob"}
NOT_YOURS = {4: 2, 5: 0x85}


@pytest.fixture(scope="module")
def hashed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.txt"
    known = Users(path)
    known.add("ann", b"secret of ann")
    known.add("bob", b"secret of bob")
    return path


@pytest.fixture
def users(tmp_path, hashed) -> Path:
    return Path(shutil.copy(hashed, tmp_path / "users.txt"))


async def refused(rig: Rig, version: int, client_id: str, **options) -> int:
    """The reason with which a CONNECT is refused."""
    wire = await rig.socket(version)
    wire.send(wire.connect_packet(client_id, **options))
    return (await wire.closed()).body[1]


async def leave(rig: Rig, wire: Wire) -> None:
    wire.disconnect()
    await wire.closed()
    await rig.until(lambda: not rig.broker.connections)


@both
async def test_another_user_touches_no_session(tmp_path, users, version):
    """A session belongs to its user while it exists: another user with its client id is refused,
    with a clean start too, while the owner is connected, while it is away, and after a restart."""
    folder = tmp_path / "data"

    async def others_are_refused(rig: Rig) -> None:
        for clean in (False, True):
            for other in (BOB, {}):
                reason = await refused(rig, version, "mine", clean=clean, **other)
                assert reason == NOT_YOURS[version]
        counter = Counter.CONNECTIONS_REFUSED_CLIENT_ID_OF_ANOTHER_USER
        assert rig.broker.counters[counter] % 4 == 0

    async with Rig(folder, users=users, anonymous=True) as rig:
        owner = await rig.wire(version, client_id="mine", clean=False, **ANN)
        await owner.subscribe(("t", 1))
        await others_are_refused(rig)
        await owner.ping()
        await leave(rig, owner)
        writer = await rig.wire(version, client_id="writer", **BOB)
        await writer.publish_acked("t", b"for ann", 1)
        await others_are_refused(rig)
    async with Rig(folder, users=users, anonymous=True) as rig:
        await others_are_refused(rig)
        owner = await rig.socket(version)
        assert (await owner.connect("mine", clean=False, **ANN)).body[0] == 1
        assert (await owner.message()).payload == b"for ann"


@both
async def test_a_client_id_is_free_when_its_session_has_ended(tmp_path, users, version):
    """Once a session has ended, its client id may be another user's."""
    async with Rig(tmp_path / "data", users=users, anonymous=False) as rig:
        await leave(rig, await rig.wire(version, client_id="c", clean=False, **ANN))
        assert await refused(rig, version, "c", clean=True, **BOB) == NOT_YOURS[version]
        await leave(rig, await rig.wire(version, client_id="c", clean=True, **ANN))
        await leave(rig, await rig.wire(version, client_id="c", clean=True, **BOB))


async def test_sessions_from_before_there_were_users(tmp_path, users):
    """A session of a client without a name, once such clients may not connect any more, belongs to
    the first user who connects with its client id, and from then on to that user alone."""
    folder = tmp_path / "data"
    async with Rig(folder) as rig:
        wire = await rig.wire(4, client_id="plc", clean=False)
        await wire.subscribe(("t", 1))
        await leave(rig, wire)
        writer = await rig.wire(4, client_id="writer")
        await writer.publish_acked("t", b"kept", 1)
    async with Rig(folder, users=users, anonymous=False) as rig:
        wire = await rig.socket(4)
        assert (await wire.connect("plc", clean=False, **ANN)).body[0] == 1
        assert (await wire.message()).payload == b"kept"
        assert await refused(rig, 4, "plc", clean=True, **BOB) == 2


# --- how many sessions a user has, and for how long ----------------------------------------------


@both
async def test_the_sessions_of_one_user_leave_room_for_others(tmp_path, users, version):
    """A user with as many lasting sessions as one may have gets no further one; its clean clients
    and its sessions go on, and others come in. The count holds over ends, expiry and restarts."""
    folder = tmp_path / "data"
    busy = {4: 3, 5: 0x97}[version]
    lasting = {"clean": False, **({"expiry": 1000} if version == 5 else {})}
    counter = Counter.CONNECTIONS_REFUSED_LIMIT_SESSIONS_OF_USER
    async with Rig(folder, users=users, anonymous=False, max_sessions_per_user=2) as rig:
        await leave(rig, await rig.wire(version, client_id="a1", **lasting, **ANN))
        await rig.wire(version, client_id="a2", **lasting, **ANN)
        assert await refused(rig, version, "a3", **lasting, **ANN) == busy
        assert rig.counters[counter] == 1
        await rig.wire(version, client_id="a4", clean=True, **ANN)
        await rig.wire(version, client_id="a1", **lasting, **ANN)
        await rig.wire(version, client_id="b1", **lasting, **BOB)
        await rig.wire(version, client_id="a2", clean=True, **ANN)
        await rig.wire(version, client_id="a3", **lasting, **ANN)
    async with Rig(folder, users=users, anonymous=False, max_sessions_per_user=2) as rig:
        assert await refused(rig, version, "a5", **lasting, **ANN) == busy
        await rig.wire(version, client_id="b2", **lasting, **BOB)
        assert await refused(rig, version, "b3", **lasting, **BOB) == busy


async def test_sessions_beyond_a_lowered_limit_stay(tmp_path, caplog):
    """Sessions that a lowered limit finds keep their messages, at a reload and over a start; the log
    names their user, and only new sessions are refused."""
    folder = tmp_path / "data"
    async with Rig(folder) as rig:
        for name in ("c1", "c2"):
            wire = await rig.wire(4, client_id=name, clean=False)
            await wire.subscribe(("t", 1))
            await leave(rig, wire)
        writer = await rig.wire(4, client_id="writer")
        await writer.publish_acked("t", b"kept", 1)
        limits = msgspec.structs.replace(rig.limits, max_sessions_per_user=1)
        rig.broker.take_limits(limits, rig.listeners)
        assert await refused(rig, 4, "c3", clean=False) == 3
    told = "a client without a name has 2 lasting sessions, more than limits.max_sessions_per_user"
    assert caplog.text.count(told) == 1
    async with Rig(folder, max_sessions_per_user=1) as rig:
        assert caplog.text.count(told) == 2
        wire = await rig.socket(4)
        assert (await wire.connect("c2", clean=False)).body[0] == 1
        assert (await wire.message()).payload == b"kept"
        assert await refused(rig, 4, "c3", clean=False) == 3


@pytest.mark.parametrize("at", ["sweep", "reload", "start", "connect"])
@both
async def test_an_absent_client_has_its_session_for_so_long(tmp_path, caplog, version, at):
    """A session that its client wants for ever ends when the client was away for
    ``max_session_expiry``: while the appliance runs, after a reload, and at a start. What waited in
    it is counted and logged."""
    folder = tmp_path / "data"
    longest = 0 if at == "reload" else 100
    async with Rig(folder, max_session_expiry=longest) as rig:
        wire = await rig.socket(version)
        told = await wire.connect("gone", clean=False)
        if version == 5:
            assert told.v5.session_expiry_interval == (longest or None)
        await wire.subscribe(("t", 1))
        await leave(rig, wire)
        writer = await rig.wire(4, client_id="writer")
        for _ in range(3):
            await writer.publish_acked("t", b"lost", 1)
        rig.now_offset_ns += 99 * 10**9
        await rig.broker._sweep_once()
        assert rig.broker.sessions.get("gone").outbox.queued == 3
        if at != "start":
            rig.now_offset_ns += 10**9
            if at == "reload":
                await rig.broker._sweep_once()
                assert rig.broker.sessions.get("gone") is not None
                limits = msgspec.structs.replace(rig.limits, max_session_expiry=100.0)
                rig.broker.take_limits(limits, rig.listeners)
            if at == "connect":
                wire = await rig.socket(version)
                assert (await wire.connect("gone", clean=False)).body[0] == 0
                await wire.nothing_more()
            else:
                await rig.broker._sweep_once()
                assert "gone" not in [each.client_id for each in rig.broker.sessions.all()]
        counters = rig.counters
    if at == "start":
        rig = Rig(folder, max_session_expiry=100)
        rig.now_offset_ns = 100 * 10**9
        async with rig:
            wire = await rig.socket(version)
            assert (await wire.connect("gone", clean=False)).body[0] == 0
            await wire.nothing_more()
        counters = rig.counters
    assert counters[Counter.DELIVERIES_DROPPED_SESSION_ENDED] == 3
    assert counters[Counter.SESSIONS_ENDED_AWAY_TOO_LONG] == 1
    assert "3 messages that waited for absent clients are dropped" in caplog.text
    assert "sessions have expired: gone (3)" in caplog.text


async def test_a_clock_that_was_set_far_ahead_ends_no_session_at_once(tmp_path):
    """What an operator's limit would end is kept while the time that says so is in doubt."""
    async with Rig(tmp_path / "data", max_session_expiry=100) as rig:
        rig.broker.sessions._age_clock_ns = time.time_ns
        await leave(rig, await rig.wire(4, client_id="gone", clean=False))
        rig.now_offset_ns += 10**6 * 10**9
        await rig.broker._sweep_once()
        assert rig.broker.sessions.get("gone") is not None


async def test_the_time_of_a_disconnect_is_bounded_too(tmp_path):
    """MQTT 5: a client that asks for more time when it leaves gets no more than any may have."""
    async with Rig(tmp_path / "data", max_session_expiry=100) as rig:
        wire = await rig.wire(5, client_id="c", clean=False, expiry=10)
        wire.send(mqtt5.DisconnectPacket(session_expiry_interval=0xFFFFFFFE).write())
        await wire.closed()
        session = rig.broker.sessions.get("c")
        await rig.until(lambda: session.connection is None)
        assert rig.broker.sessions.kept_for(session) == 100
        rig.now_offset_ns += 100 * 10**9
        await rig.broker._sweep_once()
        assert rig.broker.sessions.get("c") is None


@both
async def test_an_ended_session_does_not_come_back(tmp_path, caplog, version):
    """What an operator ends is gone at once and over a restart, with what waited and the right of
    its user to the client id; its delayed will is published; a connected client is told why."""
    folder = tmp_path / "data"
    async with Rig(folder) as rig:
        away = await rig.wire(5, client_id="away", clean=False, will=("will", b"w", 1, False),
                              will_delay=1000, username="ann")  # fmt: skip
        await away.subscribe(("t", 1))
        away.abort()
        here = await rig.wire(version, client_id="here", clean=False, username="ann")
        await here.subscribe(("t", 2))
        await rig.until(lambda: len(rig.broker.connections) == 1)
        writer = await rig.wire(4, client_id="writer")
        for _ in range(2):
            await writer.publish_acked("t", b"x", 1)
        assert rig.broker.end_session("away") == 2
        assert rig.counters[Counter.DELIVERIES_DROPPED_SESSION_ENDED] == 2
        assert rig.broker.end_session("away") is None
        assert rig.broker.end_session("here") == 2
        last = await here.closed()
        assert version == 4 or last.body[0] == 0x98
        await rig.settled()
        assert [each.client_id for each in rig.journaled("will")] == ["away"]
        wire = await rig.socket(version)
        assert (await wire.connect("here", clean=False, username="bob")).body[0] == 0
        assert rig.broker.end_session("here") == 0
        await wire.closed()
    async with Rig(folder) as rig:
        assert not rig.broker.sessions.all()
        for name in ("away", "here"):
            wire = await rig.socket(version)
            assert (await wire.connect(name, clean=False, username="bob")).body[0] == 0


# --- ways around it ------------------------------------------------------------------------------


async def test_a_session_that_is_inherited_has_what_its_new_user_may_have(tmp_path, users):
    """A session of a client without a name had more rights than the user who gets it: subscriptions
    that this user may not have end, with what waited because of them."""
    folder = tmp_path / "data"
    rules = (
        AccessRule(user="", subscribe=("#",)),
        AccessRule(user="ann", subscribe=("open/#",), deny=("open/but/not/this",)),
        AccessRule(publish=("#",)),
    )
    async with Rig(folder, rules=rules) as rig:
        wire = await rig.wire(4, client_id="plc", clean=False)
        await wire.subscribe(("secret/#", 1), ("open/#", 1))
        await leave(rig, wire)
        writer = await rig.wire(4, client_id="writer")
        for topic in ("secret/a", "open/but/not/this", "open/a"):
            await writer.publish_acked(topic, b"x", 1)
    async with Rig(folder, users=users, anonymous=False, rules=rules) as rig:
        wire = await rig.wire(4, client_id="plc", clean=False, **ANN)
        assert [each.topic for each in await wire.messages(1)] == ["open/a"]
        writer = await rig.wire(4, client_id="writer", **BOB)
        for topic in ("secret/b", "open/but/not/this", "open/b"):
            await writer.publish_acked(topic, b"x", 1)
        assert [each.topic for each in await wire.messages(1)] == ["open/b"]
        await wire.nothing_more()


OLD = ListenerConfig(name="old", bind="127.0.0.1:0", allow_mqtt31=True)
WEB = msgspec.structs.replace(OLD, name="web", transport="websocket")


def connect_of(dialect: str, client_id: str, *, clean: bool, username: str, **_more) -> bytes:
    """The same CONNECT in MQTT 3.1, 3.1.1 or 5."""
    wire = Wire(None, None, 5 if dialect == "5" else 4)
    password = b"secret of bob"
    whole = wire.connect_packet(client_id, clean=clean, username=username, password=password)
    if dialect != "3.1":
        return whole
    flags = 0xC0 | 2 * clean
    return packet(
        0x10, text("MQIsdp"), bytes((3, flags)), number(0),
        text(client_id), text(username), text(password),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "carrier"), [("3.1", "websocket"), ("3.1.1", "tcp"), ("5", "websocket")]
)
async def test_no_dialect_and_no_carrier_gets_around_it(tmp_path, users, dialect, carrier):
    """Another user is refused in every version of MQTT, over TCP and WebSocket, with the session's
    own rights untouched; so it is after a restart and after the owner was taken from the users
    file. A name in other letters is another user."""
    folder = tmp_path / "data"
    Users(users).add("Ann", b"secret of bob")

    async def refusal(rig: Rig, *, clean: bool, username: str) -> bytes:
        sent = connect_of(dialect, "mine", clean=clean, username=username)
        if carrier == "websocket":
            return await over_websocket(rig.broker.ports["web"], sent)
        wire = await Wire.open(rig.broker.ports["old"], 5 if dialect == "5" else 4)
        wire.send(sent)
        return (await wire.closed()).raw

    async def all_are_refused(rig: Rig) -> None:
        for clean in (True, False):
            for username in ("bob", "Ann"):
                answer = await refusal(rig, clean=clean, username=username)
                assert answer[:1] == b"\x20"
                assert answer[3] == (0x85 if dialect == "5" else 2)

    listeners = (OLD, WEB)
    async with Rig(folder, listeners=listeners, users=users, anonymous=False) as rig:
        owner = await rig.wire(
            5, client_id="mine", clean=False, will=("gone", b"w", 1, False), **ANN
        )
        await owner.subscribe(("t", 1))
        await all_are_refused(rig)
        await owner.ping()
        await leave(rig, owner)
        await all_are_refused(rig)
        (await rig.wire(5, client_id="bobs", **BOB)).publish("t", b"kept", 1)
        await rig.until(lambda: rig.broker.sessions.get("mine").outbox.queued == 1)
    Users(users).remove("ann")
    async with Rig(folder, listeners=listeners, users=users, anonymous=False) as rig:
        await all_are_refused(rig)
        assert not rig.journaled("gone")
        session = rig.broker.sessions.get("mine")
        assert (session.username, session.outbox.queued) == ("ann", 1)
        Users(users).add("ann", ANN["password"])
        owner = await rig.wire(5, client_id="mine", clean=False, **ANN)
        assert (await owner.message()).payload == b"kept"


async def over_websocket(port: int, sent: bytes) -> bytes:
    """What a WebSocket client is answered to a packet, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
            + bytes((0x82, 0x80 | len(sent))) + bytes(4) + sent
        )  # fmt: skip
        answer = await asyncio.wait_for(reader.readuntil(b"\x82"), PATIENCE_S)
        assert answer.startswith(b"HTTP/1.1 101 ")
        size = (await reader.readexactly(1))[0]
        return await reader.readexactly(size)
    finally:
        writer.close()


async def test_certificate_users_are_held_to_their_own(tmp_path, users):
    """A client whose certificate names it gets no session of a user with a password, nor the other
    way round, whatever name its CONNECT has."""
    files = certificates.make(tmp_path / "certificates")
    tls = TlsConfig(
        certfile=files.server,
        keyfile=files.server_key,
        client_ca=files.root,
        identity_as_username=True,
    )
    mutual = ListenerConfig(name="mutual", bind="127.0.0.1:0", tls=tls)
    context = ssl.create_default_context(cafile=files.root)
    context.load_cert_chain(files.client, files.client_key)
    async with Rig(tmp_path / "data", listeners=(OLD, mutual), users=users, anonymous=False) as rig:

        async def with_certificate(client_id: str) -> Wire:
            wire = await Wire.open(rig.broker.ports["mutual"], host="localhost", tls=context)
            wire.send(wire.connect_packet(client_id, clean=True, **ANN))
            return wire

        await leave(rig, await rig.wire(4, client_id="ann's", clean=False, **ANN))
        assert (await (await with_certificate("ann's")).closed()).body[1] == 2
        wire = await with_certificate("device")
        assert (await wire.expect(2)).body[1] == 0
        assert await refused(rig, 4, "device", clean=True, **ANN) == 2
        await wire.ping()


async def test_the_will_of_another_user_is_never_dropped_or_published_early(tmp_path, users):
    """While a will waits for its delay, and for its client after a restart, another user with the
    client id moves nothing; where no session keeps the id, the earlier client's will is published
    in that client's name."""
    folder = tmp_path / "data"
    async with Rig(folder, users=users, anonymous=False, will_grace=1000) as rig:
        will = ("gone/1", b"w", 1, False)
        wire = await rig.wire(5, client_id="kept", clean=False, will=will, will_delay=500, **ANN)
        wire.abort()
        await rig.until(lambda: not rig.broker.connections)
        assert await refused(rig, 5, "kept", clean=True, **BOB) == 0x85
        will = ("gone/2", b"w", 1, False)
        await rig.wire(4, client_id="brief", clean=True, will=will, **ANN)
        await rig.settled()
    async with Rig(folder, users=users, anonymous=False, will_grace=1000) as rig:
        assert await refused(rig, 5, "kept", clean=True, **BOB) == 0x85
        assert not rig.journaled("gone/1")
        await rig.wire(4, client_id="brief", clean=True, **BOB)
        await rig.settled()
        assert [each.username for each in rig.journaled("gone/2")] == ["ann"]


async def test_nobody_inherits_where_plugins_may_let_clients_without_a_name_in(tmp_path, users):
    """A plugin may let in clients that give no name, for a token or their certificate. Their sessions
    are not from before there were users, and no user gets one."""
    async with Rig(
        tmp_path / "data", users=users, anonymous=False, plugins=(plugin("Auth", how="password"),)
    ) as rig:
        device = await rig.wire(5, client_id="device", clean=False, password=b"yes")
        await leave(rig, device)
        for clean in (False, True):
            assert await refused(rig, 5, "device", clean=clean, **BOB) == 0x85
        again = await rig.socket(5)
        assert (await again.connect("device", clean=False, password=b"yes")).body[0] == 1
