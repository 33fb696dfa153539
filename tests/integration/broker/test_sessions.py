"""Sessions and their users: who may take one over, resume, end or list it, and how many there are."""

from __future__ import annotations

from pathlib import Path

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
