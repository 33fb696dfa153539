"""Which client ids users may choose (``client_ids`` in ``[access]``)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from broker_rig import Packet, Rig, Wire, both

from appliance.broker.access import Terms
from appliance.broker.client_ids import ClientIds, looks_assigned
from appliance.broker.users import Users
from appliance.counters import Counter

NOT_ALLOWED = {4: 2, 5: 0x85}


@pytest.fixture(scope="module")
def users(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.txt"
    known = Users(path)
    for name in ("press", "press-7"):
        known.add(name, b"secret")
    return path


def user(name: str) -> dict[str, object]:
    return {"username": name, "password": b"secret"}


async def refused(rig: Rig, version: int, client_id: str, **options) -> int:
    """The reason with which a CONNECT is refused."""
    wire = await rig.socket(version)
    wire.send(wire.connect_packet(client_id, **options))
    return (await wire.closed()).body[1]


@pytest.mark.parametrize(
    ("patterns", "username", "client_id", "allowed"),
    [
        ((), None, "any", True),
        (("%u",), "press", "press", True),
        (("%u",), "press", "Press", False),
        (("%u",), "press", "press1", False),
        (("%u",), None, "", False),
        (("%u*",), None, "any", False),
        (("%u*",), "", "any", False),
        (("guest-*",), None, "guest-1", True),
        (("guest-*",), None, "guest", False),
        (("%u:*", "%u"), "press", "press:", True),
        (("%u:*", "%u"), "press", "press-7:1", False),
        (("%u:*",), "*", "press:1", False),
        (("%u:*",), "*", "*:1", True),
        (("%u:*",), "%u", "press:1", False),
        (("%u:*",), "%u", "%u:1", True),
        (("%u:*",), "[a-z]*", "press:1", False),
        (("%u:*",), "?", "x:1", False),
        (("[%u]",), "press", "[press]", True),
        (("[%u]",), "press", "p", False),
        (("p?c",), "press", "plc", False),
        (("*:%u",), "press", "line:press", True),
        (("a*bc*bc",), None, "abc", False),
        (("a*bc*bc",), None, "abcbc", True),
        (("a*a",), None, "a", False),
        (("*",), None, "any", True),
        (("%u-*-%u",), "ab", "ab-1-ab", True),
        (("%u-*-%u",), "ab", "ab-ab", False),
    ],
)
def test_patterns(patterns, username, client_id, allowed):
    """``*`` and ``%u`` alone mean something, and only in the pattern, not in a name."""
    assert ClientIds(patterns).allow(username, client_id) is allowed


@both
async def test_a_user_has_client_ids_of_its_own(tmp_path, users, version):
    """An id that no pattern fits is refused before anything happens to its session, and counted."""
    patterns = ("%u", "%u:*")
    async with Rig(tmp_path / "data", users=users, anonymous=True, client_ids=patterns) as rig:
        owner = await rig.wire(version, client_id="press-7:1", clean=False, **user("press-7"))
        for number, (name, client_id) in enumerate(
            [("press", "press-7:1"), ("press", "press-7"), ("press", "press-8"), ("press-7", "x")],
            1,
        ):
            answer = await refused(rig, version, client_id, clean=True, **user(name))
            assert answer == NOT_ALLOWED[version]
            counter = Counter.CONNECTIONS_REFUSED_CLIENT_ID_NOT_ALLOWED
            assert rig.counters[counter] == number
        assert await refused(rig, version, "press:1") == NOT_ALLOWED[version]
        await owner.ping()
        await rig.wire(version, client_id="press", **user("press"))
        await rig.wire(version, client_id="", **user("press"))
        await rig.wire(version, client_id="")


async def test_an_assigned_id_comes_back(tmp_path, users):
    """MQTT 5: a client goes on with the id that it was given; another user, a client without a name
    or one that makes such an id up does not."""
    made_up = "auto-0123456789abcdef"
    assert looks_assigned(made_up)
    assert not looks_assigned(f"{made_up}0")
    folder = tmp_path / "data"
    options = {"users": users, "anonymous": True, "client_ids": ("%u",)}
    async with Rig(folder, **options) as rig:
        wire = await rig.socket(5)
        answer: Packet = await wire.connect("", clean=False, **user("press"))
        assigned = answer.v5.assigned_client_id
        assert looks_assigned(assigned)
        for other in (user("press-7"), {}):
            for client_id in (assigned, made_up):
                assert await refused(rig, 5, client_id, clean=False, **other) == 0x85
    async with Rig(folder, **options) as rig:
        assert await refused(rig, 5, assigned, clean=True, **user("press-7")) == 0x85
        wire = await rig.socket(5)
        assert (await wire.connect(assigned, clean=False, **user("press"))).body[0] == 1


@both
async def test_a_reload_ends_what_is_not_allowed_any_more(tmp_path, users, version):
    """Connected clients with another id are disconnected; those with an assigned one stay."""
    async with Rig(tmp_path / "data", users=users, anonymous=False) as rig:
        bad: Wire = await rig.wire(version, client_id="x", **user("press"))
        good = [
            await rig.wire(version, client_id="press", **user("press")),
            await rig.wire(version, client_id="", **user("press")),
        ]
        config = msgspec.structs.replace(rig.access_config, client_ids=("%u",))
        rig.access.take(Terms(config, rig.users, anonymous=False, open_without_users=False))
        assert rig.broker.enforce_access().disconnected == 1
        last = await bad.closed()
        assert version == 4 or last.body[0] == 0x87
        for wire in good:
            await wire.ping()
