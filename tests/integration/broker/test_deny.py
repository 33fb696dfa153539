"""``deny`` in access rules: what no rule can allow, and how wide subscriptions spare it."""

from __future__ import annotations

import pytest
from broker_rig import Rig, both

from appliance.broker.access import Terms
from appliance.config.tables import AccessConfig, AccessRule

ALL = AccessRule(publish=("#",), subscribe=("#",))
SECRET = AccessRule(user="plc", deny=("plant/secret/#", "own/%c/key"))


@pytest.fixture
async def rig(tmp_path):
    async with Rig(tmp_path / "data", rules=(SECRET, ALL)) as running:
        yield running


async def take(rig, *rules):
    """Other rules count from now on, as after a reload."""
    rig.access.take(Terms(AccessConfig(rule=rules), None, anonymous=True, open_without_users=True))
    return rig.broker.enforce_access()


async def plc(rig, version, client_id="c", **options):
    return await rig.wire(version, client_id=client_id, username="plc", **options)


@both
async def test_publish_is_denied(rig, version):
    """A denied topic can't be published to, whatever another rule allows; %c is filled in."""
    wire = await plc(rig, version)
    await wire.publish_acked("own/d/key", b"x", 1)
    wire.publish("own/c/key", b"x", 1)
    if version == 5:
        assert (await wire.expect(4)).codes == [0x87]
    else:
        assert await wire.closed() is None
    free = await rig.wire(version, client_id="c2", username="other")
    await free.publish_acked("plant/secret/a", b"x", 1)
    assert [each.topic for each in rig.journaled()] == ["own/d/key", "plant/secret/a"]


@both
async def test_wide_subscription_spares_what_is_denied(rig, version):
    """A wide subscription is granted and spares denied topics, also retained; others get them."""
    rig.door.publish("plant/secret/kept", b"s", retain=True)
    rig.door.publish("plant/open/kept", b"o", retain=True)
    await rig.settled()
    wire = await plc(rig, version)
    free = await rig.wire(version, client_id="free", username="other")
    refused = 0x87 if version == 5 else 0x80
    assert await wire.subscribe("plant/#", "plant/secret/+", "plant/secret/a") == [
        0,
        refused,
        refused,
    ]
    assert await free.subscribe("plant/#") == [0]
    assert (await wire.message()).topic == "plant/open/kept"
    assert len(await free.messages(2)) == 2
    for topic in ("plant/secret/a", "plant/a", "plant/secret", "plant/b"):
        rig.door.publish(topic, b"x")
    assert [each.topic for each in await wire.messages(2)] == ["plant/a", "plant/b"]
    assert len(await free.messages(4)) == 4


async def test_shared_subscription_passes_over_a_member(rig):
    """A member of a shared subscription that may not have a topic is passed over."""
    wire = await plc(rig, 5)
    free = await rig.wire(5, client_id="free", username="other")
    for member in (wire, free):
        assert await member.subscribe("$share/g/plant/#") == [0]
    for _ in range(4):
        rig.door.publish("plant/secret/a", b"x")
    assert len(await free.messages(4)) == 4
    await wire.ping()


@both
async def test_changed_rules(rig, version):
    """Denials count at once for connected and absent clients, and end at once."""
    await take(rig, ALL)
    wire = await plc(rig, version)
    await wire.subscribe(("plant/#", 1))
    absent = await plc(rig, version, client_id="absent", clean=False)
    await absent.subscribe(("plant/#", 1))
    absent.disconnect()
    await absent.closed()
    rig.door.publish("plant/secret/a", b"before", qos=1)
    rig.door.publish("plant/a", b"before", qos=1)
    assert len(await wire.messages(2)) == 2
    await take(rig, SECRET, ALL)
    rig.door.publish("plant/secret/a", b"denied", qos=1)
    rig.door.publish("plant/a", b"after", qos=1)
    assert (await wire.messages(1))[0].payload == b"after"
    absent = await plc(rig, version, client_id="absent", clean=False)
    assert [each.topic for each in await absent.messages(2)] == ["plant/a", "plant/a"]
    await take(rig, ALL)
    rig.door.publish("plant/secret/a", b"again", qos=1)
    assert (await wire.messages(1))[0].payload == b"again"


@both
async def test_resumed_after_a_restart(tmp_path, version):
    """What the last run queued on a denied topic is not delivered after the restart."""
    async with Rig(tmp_path / "data", rules=(ALL,)) as rig:
        wire = await plc(rig, version, clean=False)
        await wire.subscribe(("plant/#", 1))
        wire.disconnect()
        await wire.closed()
        rig.door.publish("plant/secret/a", b"x", qos=1)
        rig.door.publish("plant/a", b"x", qos=1)
        await rig.settled()
    async with Rig(tmp_path / "data", rules=(SECRET, ALL)) as rig:
        wire = await plc(rig, version, clean=False)
        assert (await wire.messages(1))[0].topic == "plant/a"
        rig.door.publish("plant/secret/b", b"x", qos=1)
        rig.door.publish("plant/b", b"x", qos=1)
        assert (await wire.messages(1))[0].topic == "plant/b"


async def test_name_that_is_no_level(tmp_path):
    """A client id with a wildcard or a slash does not get round a denial that names it."""
    rule = AccessRule(deny=("own/%c/key",))
    async with Rig(tmp_path / "data", rules=(rule, ALL)) as rig:
        wire = await rig.wire(5, client_id="a/b")
        assert (await wire.publish_acked("own/x/key", b"x", 1)).codes == [0x87]
