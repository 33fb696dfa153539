"""Sessions and their users: who may take one over, resume, end or list it, and how many there are."""

from __future__ import annotations

import time
from pathlib import Path

import mqtt5
import msgspec
import pytest
from broker_rig import Packet, Rig, Wire, both, states  # noqa: F401

from appliance.broker.users import Users
from appliance.counters import Counter

ANN = {"username": "ann", "password": b"secret of ann"}
BOB = {"username": "bob", "password": b"secret of bob"}
NOT_YOURS = {4: 2, 5: 0x85}


@pytest.fixture
def users(tmp_path) -> Path:
    path = tmp_path / "users.txt"
    known = Users(path)
    known.add("ann", b"secret of ann")
    known.add("bob", b"secret of bob")
    return path


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
