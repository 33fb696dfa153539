"""The life of bridges: both ways, reload, stop, restart, another server."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from bridge_rig import CONNACK, SESSION_PRESENT, BridgeRig, ScriptedRemote, bridge, sends
from broker_rig import Rig

from appliance.bridge import bridge as bridge_module
from appliance.bridge.backoff import Pace
from appliance.bridge.redirect import parse
from appliance.config.tables import BridgeSubscribeConfig
from appliance.counters import Counter


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_both_ways(tmp_path, version):
    """What clients publish here goes out, and what comes in does not go back."""
    async with Rig(tmp_path / "there") as there:
        config = bridge(there.port, "in/#", version=version, publish=sends("#"))
        async with BridgeRig(tmp_path / "here", config) as rig:
            await rig.connected()
            remote = await there.wire(client_id="remote")
            remote.send(remote.publish_packet("in/a", b"1", 1))
            await rig.came(1, "in/a")
            local = await rig.wire(client_id="local")
            local.send(local.publish_packet("out/a", b"2", 1))
            await rig.until(lambda: there.journaled("out/a"))
            await rig.until(lambda: rig.state().messages_out == 1 and rig.state().lag == 0)
            assert [one.topic for one in there.journaled()] == ["in/a", "out/a"]


async def test_restart_goes_on(tmp_path):
    """A restart sends what came meanwhile, and nothing twice; the session at the broker goes on."""
    async with Rig(tmp_path / "there") as there:
        config = bridge(there.port, "in/#", publish=sends("out/#"))
        for life in range(3):
            async with BridgeRig(tmp_path / "here", config) as rig:
                await rig.connected()
                local = await rig.wire(client_id="local")
                local.send(local.publish_packet("out/a", b"%d" % life, 1))
                await local.expect(4)
                await there.until(lambda life=life: len(there.journaled("out/a")) == life + 1)
            remote = await there.wire(client_id="remote")
            remote.send(remote.publish_packet("in/a", b"%d" % life, 1))
            await remote.expect(4)
        async with BridgeRig(tmp_path / "here", config) as rig:
            found = await rig.came(3, "in/a")
            await rig.until(lambda: rig.state().lag == 0)
            assert [one.payload for one in found] == [b"0", b"1", b"2"]
            assert [one.payload for one in there.journaled("out/a")] == [b"0", b"1", b"2"]


async def test_reload(tmp_path):
    """Another configuration ends what is gone, begins what is new, and leaves the rest connected."""

    async def script(peer, _number):
        await peer.accept(filters=1)
        await peer.serve()

    async with ScriptedRemote(script) as first, ScriptedRemote(script) as second:
        stays = bridge(first.port, "a", name="stays")
        goes = bridge(second.port, "a", name="goes")
        changes = bridge(second.port, "a", name="changes")
        async with BridgeRig(tmp_path, stays, goes, changes) as rig:
            for name in ("stays", "goes", "changes"):
                await rig.connected(name)
            changed = msgspec.structs.replace(changes, keepalive=changes.keepalive + 1)
            new = bridge(second.port, "a", name="new")
            rig.bridges.take((stays, changed, new))
            await rig.until(
                lambda: {each.name for each in rig.bridges.states()} == {"stays", "changes", "new"}
            )
            for name in ("stays", "changes", "new"):
                await rig.connected(name)
            assert (first.connections, second.connections) == (1, 4)


async def test_stop_while_it_connects(tmp_path, monkeypatch):
    """A stop at any moment of connecting does not wait for the end of its patience."""
    monkeypatch.setattr(bridge_module, "_GOODBYE_S", 300.0)

    async def script(peer, _number):
        await peer.accept(connack=SESSION_PRESENT)
        await peer.serve()

    async with (
        ScriptedRemote(script) as remote,
        BridgeRig(tmp_path, bridge(remote.port, publish=sends("out/#"))) as rig,
    ):
        for steps in range(0, 40, 3):
            for _ in range(steps):
                await asyncio.sleep(0)
            rig.bridges.take(())
            await rig.until(lambda: not rig.bridges.states())
            rig.bridges.take(rig.configs)
            await rig.until(lambda: rig.bridges.states())


async def test_stop_while_nothing_answers(tmp_path):
    """A bridge whose broker accepts and says nothing stops at once."""

    async def script(peer, _number):
        await peer.expect(1)
        await asyncio.Event().wait()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a", connect_timeout=300)) as rig:
            await rig.until(lambda: remote.connections == 1)
            await asyncio.wait_for(rig.bridges.stop(), 10)


async def test_stop_while_it_waits(tmp_path):
    """A bridge that lost its connection and waits for the next attempt stops at once."""

    async def script(peer, _number):
        await peer.accept(filters=1)
        peer.close()

    pace = Pace(first_s=600, longest_s=600)
    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a"), pace=pace) as rig:
            await rig.until(lambda: rig.state().next_attempt_ns is not None)
            (waiting,) = rig.bridges._bridges.values()
            stop = asyncio.create_task(rig.bridges.stop())
            await asyncio.wait({waiting._task})
            assert not waiting._task.cancelled()
            await stop


async def test_goodbye(tmp_path):
    """At the stop the broker hears DISCONNECT, behind the last acknowledgement."""
    packets = []

    async def script(peer, _number):
        await peer.accept(filters=1)
        peer.publish("a", id=3)
        while True:
            kind, body = await peer.read()
            packets.append(kind)
            if kind == 12:
                peer.send(b"\xd0\x00")

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.came(1, "a")
        assert packets[0] == 4
        assert packets[-2:] == [12, 14]


async def test_session_goes_on_without_subscribing_again(tmp_path):
    """A broker that has the session is not sent SUBSCRIBE again, which would replay its messages."""
    later = []

    async def script(peer, number):
        if number == 0:
            await peer.accept(filters=1)
            peer.close()
            return
        await peer.accept(connack=SESSION_PRESENT)
        while True:
            kind, _ = await peer.read()
            later.append(kind)
            if kind == 12:
                peer.send(b"\xd0\x00")

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.until(lambda: remote.connections == 2 and rig.state().connected)
            assert (await rig.connected()).subscriptions[0].granted == 1
        assert 8 not in later


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("other", ("other", 7)),
        ("other:1884", ("other", 1884)),
        ("10.0.0.1:99 10.0.0.2", ("10.0.0.1", 99)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 7)),
        ("", None),
        (":1", None),
        ("a:0", None),
        ("a:99999", None),
        ("a:b", None),
        ("[::1]x", None),
        ("a/b", None),
        ("a@b", None),
        ("ä", None),
        ("x" * 300, None),
    ],
)
def test_server_reference(reference, found):
    """What a broker writes as the other server is taken if it is an address."""
    assert parse(reference, 7) == found


@pytest.mark.parametrize("is_followed", [True, False])
async def test_server_moved(tmp_path, is_followed):
    """The bridge goes to the server that the broker names if it is configured so, else it says so."""

    async def there(peer, _number):
        await peer.accept(connack=b"\x20\x03\x00\x00\x00", filters=1)
        await peer.serve()

    async with ScriptedRemote(there) as other:
        reference = f"127.0.0.1:{other.port}".encode()

        async def here(peer, _number):
            await peer.expect(1)
            properties = b"\x1c" + len(reference).to_bytes(2, "big") + reference
            peer.send_packet(0x20, b"\x00\x9d" + bytes((len(properties),)) + properties)
            peer.close()

        async with ScriptedRemote(here) as remote:
            config = bridge(remote.port, "a", version="5", follow_redirects=is_followed)
            async with BridgeRig(tmp_path, config) as rig:
                if is_followed:
                    state = await rig.connected()
                    assert state.address == reference.decode()
                else:
                    state = await rig.failed("moved to another server")
                    assert reference.decode() in state.last_error
                    assert other.connections == 0
                assert rig.counters[Counter.BRIDGE_CONNECTIONS_FAILED] >= 1


async def test_lost_session_is_a_gap(tmp_path, caplog):
    """A broker without the session that it should have: messages may be missing, and that is said."""

    async def script(peer, number):
        await peer.accept(connack=SESSION_PRESENT if number == 1 else CONNACK, filters=number != 1)
        if number < 2:
            peer.publish("a", id=number + 1)
            await peer.expect(4)
            peer.close()
            return
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.until(lambda: remote.connections == 3 and rig.state().connected)
            await rig.connected()
            assert rig.state().gaps == 1
            assert rig.counters[Counter.BRIDGE_GAPS] == 1
            assert "had lost the session: messages that were published from 20" in caplog.text


async def test_filters_of_before_are_unsubscribed(tmp_path):
    """A restart with other filters subscribes to what is new and unsubscribes what is gone."""
    asked = []

    async def script(peer, number):
        await peer.expect(1)
        peer.send(SESSION_PRESENT if number else CONNACK)
        while True:
            kind, body = await peer.read()
            if kind == 12:
                peer.send(b"\xd0\x00")
            elif kind == 8:
                asked.append(("subscribe", body[4:-1]))
                peer.send_packet(0x90, body[:2] + b"\x01")
            elif kind == 10:
                asked.append(("unsubscribe", body[4:]))
                peer.send_packet(0xB0, body[:2])
            elif kind == 14:
                return

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a", "b")) as rig:
            await rig.connected()
        asked.clear()
        async with BridgeRig(tmp_path, bridge(remote.port, "b", "c")) as rig:
            await rig.connected()
        assert asked == [("unsubscribe", b"a"), ("subscribe", b"c")]
        asked.clear()
        async with BridgeRig(tmp_path, bridge(remote.port, "b", "c")) as rig:
            await rig.connected()
        assert asked == []


async def test_replay_of_a_retained_message(tmp_path):
    """What the broker holds and sends at each new subscription is a repeat, also after a restart."""

    async def script(peer, _number):
        await peer.accept(filters=1)
        peer.publish("a", b"on", retain=True)
        await peer.expect(4)
        await peer.serve()

    wanted = BridgeSubscribeConfig(topic="a", retained=True)
    async with ScriptedRemote(script) as remote:
        for life in range(2):
            async with BridgeRig(tmp_path, bridge(remote.port, wanted)) as rig:
                await rig.connected()
                await rig.came(life + 1, "a")
                found = rig.journaled("a")
    assert [one.dup for one in found] == [False, True]
