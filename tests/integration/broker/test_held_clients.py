"""A client that an operator holds is kept out, and loses nothing that waits for it."""

from __future__ import annotations

import pytest
from broker_rig import Rig, both, rig  # noqa: F401

from appliance.broker.users import Users
from appliance.counters import Counter


@both
async def test_a_held_client_is_refused_and_finds_its_session_later(rig, version):  # noqa: F811
    """MQTT 5 says 0x8A (banned), 3.1.1 says 5; messages wait in its session."""
    held = {}
    rig.broker.held_client = held.get
    other = await rig.wire(version, client_id="other")
    wire = await rig.wire(version, client_id="press-7", clean=False)
    await wire.subscribe(("orders/#", 1))
    held["press-7"] = "this client is held by ann: new firmware"
    assert rig.broker.disconnect("press-7")
    last = await wire.closed()
    assert (last.body[0] if last else None) == (0x98 if version == 5 else None)
    other.publish("orders/1", b"x", 1)
    await rig.settled()
    for clean in (False, True):
        again = await rig.socket(version)
        again.send(again.connect_packet("press-7", clean=clean))
        answer = await again.closed()
        assert (answer.kind, answer.body[1]) == (2, 0x8A if version == 5 else 5)
    assert rig.counters[Counter.CONNECTIONS_REFUSED_CLIENT_HELD] == 2
    held.clear()
    back = await rig.socket(version)
    assert (await back.connect("press-7", clean=False)).body[0] == 1
    assert (await back.expect(3)).kind == 3


@pytest.mark.campaign
@both
async def test_only_who_has_shown_who_it_is_learns_of_a_hold(tmp_path, version):
    """A wrong password is refused as one."""
    users = tmp_path / "users.txt"
    Users(str(users)).add("plc", b"secret")
    async with Rig(tmp_path / "data", users=users, anonymous=False) as rig:  # noqa: F811
        rig.broker.held_client = lambda _client_id: "this client is held by ann"
        for password, reason in ((b"wrong", (0x86, 4)), (b"secret", (0x8A, 5))):
            wire = await rig.socket(version)
            wire.send(wire.connect_packet("press-7", username="plc", password=password))
            assert (await wire.closed()).body[1] == reason[version == 4]
        assert rig.counters[Counter.CONNECTIONS_REFUSED_CLIENT_HELD] == 1


@both
async def test_a_client_that_is_held_while_its_older_connection_ends_stays_out(rig, version):  # noqa: F811
    """It was not held yet when it showed who it is."""
    older = await rig.wire(version, client_id="press-7", clean=False)
    session = rig.broker.sessions.get("press-7")
    rig.broker.held_client = lambda _client_id: None if session.connection else "held by ann"
    newer = await rig.socket(version)
    newer.send(newer.connect_packet("press-7", clean=False))
    answer = await newer.closed()
    assert (answer.kind, answer.body[1]) == (2, 0x8A if version == 5 else 5)
    await older.closed()
    assert rig.counters[Counter.CONNECTIONS_REFUSED_CLIENT_HELD] == 1
