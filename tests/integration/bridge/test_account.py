"""Promises about what a bridge knows of its broker: gaps, filters of the session, replays, repeats."""

from __future__ import annotations

import sqlite3

import pytest
from bridge_rig import CONNACK, SESSION_PRESENT, BridgeRig, ScriptedRemote, bridge
from bridge_rig import sends as publishes
from broker_rig import Rig

from appliance.bridge.store import ArrivalRecord, SessionRecord, load, save_arrival, save_session
from appliance.config.tables import BridgeSubscribeConfig
from appliance.config.values import TopicFilter
from appliance.counters import Counter
from appliance.model import seq_of

KEPT = BridgeSubscribeConfig(topic=TopicFilter("plant/#"), retained=True)


class Remote:
    """A broker by script: ``await remote.connection(...)`` for each connection of the bridge."""

    def __init__(self, *connections):
        self._connections = connections
        self.remote = ScriptedRemote(self._script)

    async def __aenter__(self):
        await self.remote.__aenter__()
        self.port = self.remote.port
        return self

    async def __aexit__(self, *error):
        await self.remote.__aexit__(*error)

    async def _script(self, peer, number):
        await self._connections[min(number, len(self._connections) - 1)](peer)


def sends(*publishes, filters=1, connack=CONNACK, then="close"):
    """A connection on which these messages come, each as a dictionary of ``Peer.publish``."""

    async def script(peer):
        await peer.accept(connack=connack, filters=filters)
        for each in publishes:
            peer.publish("plant/a", **each)
        if then == "serve":
            return await peer.serve()
        for each in publishes:
            if each.get("qos", 1):
                await peer.expect(4)
        return peer.close()

    return script


def came(rig):
    return [(one.payload, one.dup) for one in rig.journaled("plant/a")]


async def test_a_session_that_is_gone_is_a_gap_until_it_is_acknowledged(tmp_path, caplog):
    """Counted, in the state with its time, in the log with since when; also after a restart."""
    async with Remote(sends({"payload": b"1"}), sends({"payload": b"2"}, then="serve")) as remote:
        config = bridge(remote.port, TopicFilter("plant/#"))
        async with BridgeRig(tmp_path, config) as rig:
            await rig.until(lambda: rig.state().gaps == 1)
            assert rig.state().gap_ns is not None
            assert rig.counters[Counter.BRIDGE_GAPS] == 1
            await rig.came(2, "plant/a")
        assert "had lost the session: messages that were published from 2" in caplog.text
        assert "may be missing" in caplog.text
    async with Remote(sends(filters=0, connack=SESSION_PRESENT, then="serve")) as remote:
        config = bridge(remote.port, TopicFilter("plant/#"))
        async with BridgeRig(tmp_path, config) as rig:
            await rig.connected()
            assert rig.state().gaps == 0
            assert rig.state().gap_ns is not None
            assert "127.0.0.1" in rig.bridges.acknowledge()[0]
            assert rig.bridges.acknowledge() == []
            assert rig.state().gap_ns is None
        async with BridgeRig(tmp_path, config) as rig:
            await rig.connected()
            assert rig.state().gap_ns is None


async def test_a_first_connection_and_another_broker_are_no_gap(tmp_path):
    """Nothing waited there for this bridge."""
    for _ in range(2):
        async with Remote(sends({"payload": b"1"}, then="serve")) as remote:
            async with BridgeRig(tmp_path, bridge(remote.port, "plant/#")) as rig:
                await rig.connected()
                assert (rig.state().gaps, rig.state().gap_ns) == (0, None)


async def test_another_client_id_is_said_to_leave_a_session_behind(tmp_path, caplog):
    """What waits there for the old one does not come, and that is no gap of the new one."""
    async with Remote(sends({"payload": b"1"}, then="serve")) as remote:
        for client_id in ("first", "second"):
            config = bridge(remote.port, "plant/#", client_id=client_id)
            async with BridgeRig(tmp_path, config) as rig:
                await rig.connected()
                assert rig.state().gaps == 0
    assert "is second now: what waits there for first stays there" in caplog.text


async def test_a_restart_subscribes_only_to_what_the_session_lacks(tmp_path):
    """Filters that stay are left alone, one with other options is sent again, one that is gone is
    taken back."""
    packets = []

    async def first(peer):
        await peer.accept(filters=3)
        await peer.serve()

    async def second(peer):
        await peer.accept(connack=SESSION_PRESENT)
        while len(packets) < 3:
            kind, body = await peer.read()
            packets.append((kind, body[4:].decode(errors="replace")))
            if kind == 8:
                peer.send_packet(0x90, body[:2] + b"\0")
            elif kind == 10:
                peer.send_packet(0xB0, body[:2])
        await peer.serve()

    async with Remote(first, second) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "stays", "goes", "changes")) as rig:
            await rig.connected()
        changed = BridgeSubscribeConfig(topic=TopicFilter("changes"), qos=0)
        config = bridge(remote.port, "stays", changed, "new")
        async with BridgeRig(tmp_path, config) as rig:
            await rig.until(lambda: len(packets) == 3)
            await rig.connected()
    assert packets == [(10, "goes"), (8, "changes\0"), (8, "new\1")]


async def test_a_replayed_message_is_news_once(tmp_path):
    """What a broker holds for new subscribers comes again with each session, also after a restart;
    another payload is news, and so is the first one after it."""
    held = {"retain": True, "qos": 0}
    async with Remote(
        sends({"payload": b"on", **held}, {"payload": b"x"}),
        sends({"payload": b"x", **held}, {"payload": b"y"}),
        sends({"payload": b"on", **held, "qos": 1}, then="serve"),
        sends({"payload": b"on", **held, "qos": 1}, then="serve"),
    ) as remote:
        config = bridge(remote.port, KEPT)
        async with BridgeRig(tmp_path, config) as rig:
            await rig.came(5, "plant/a")
        async with BridgeRig(tmp_path, config) as rig:
            await rig.came(6, "plant/a")
            assert came(rig) == [
                (b"on", False),
                (b"x", False),
                (b"x", True),
                (b"y", False),
                (b"on", False),
                (b"on", True),
            ]


async def test_what_waited_in_a_session_is_no_replay(tmp_path):
    """amqtt sets the RETAIN flag on what waited. Without a new subscription a broker has nothing to
    replay, so such a message is news, also where replays are not wanted."""
    waited = sends(
        {"payload": b"on", "retain": True, "id": 2},
        filters=0,
        connack=SESSION_PRESENT,
        then="serve",
    )
    async with Remote(sends({"payload": b"on", "id": 1}), waited) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "plant/#")) as rig:
            await rig.came(2, "plant/a")
            assert came(rig) == [(b"on", False), (b"on", False)]
            assert not rig.retained.get("plant/a")


async def lost(peer):
    await peer.accept(filters=1)
    peer.publish("plant/a", b"first", id=1)
    peer.publish("plant/a", b"same", id=2)
    peer.publish("plant/a", b"same", id=3)
    for _ in range(3):
        await peer.expect(4)
    peer.reset()


AGAIN = sends(
    {"payload": b"same", "dup": True, "id": 1},
    {"payload": b"same", "dup": True, "id": 2},
    {"payload": b"same", "dup": True, "id": 3},
    {"payload": b"same", "id": 4},
    filters=0,
    connack=SESSION_PRESENT,
    then="serve",
)


@pytest.mark.parametrize("restarts", [False, True], ids=["connection", "process"])
async def test_a_repeat_has_the_number_of_its_original(tmp_path, restarts):
    """A broker that begins its packet identifiers anew sends two again: the second one was lost on
    the way."""

    async with Remote(lost, AGAIN) as remote:
        config = bridge(remote.port, "plant/#")
        async with BridgeRig(tmp_path, config) as rig:
            messages = await rig.came(3 if restarts else 7, "plant/a")
        if restarts:
            async with BridgeRig(tmp_path, config) as rig:
                messages = await rig.came(7, "plant/a")
    assert [one.dup for one in messages[:7]] == [False, False, False, True, True, False, False]
    assert [seq_of(one.packet_id) for one in messages[3:5]] == [one.seq for one in messages[1:3]]
    assert all(seq_of(one.packet_id) == one.seq for one in (*messages[:3], *messages[5:7]))


async def test_a_repeat_does_not_go_out_by_another_bridge(tmp_path):
    """The original went out, and the third broker's clients could not tell a repeat from news."""
    async with Rig(tmp_path / "there") as there, Remote(lost, AGAIN) as remote:
        come = bridge(remote.port, "plant/#")
        go = bridge(there.port, name="up", publish=publishes("plant/#", "end"))
        async with BridgeRig(tmp_path / "here", come, go) as rig:
            await rig.came(7, "plant/a")
            rig.door.publish("end", b"")
            await there.until(lambda: there.journaled("end"))
            news = [one.payload for one in rig.journaled("plant/a") if not one.dup]
            assert [one.payload for one in there.journaled("plant/a")] == news


async def test_damaged_rows_cost_themselves_only(tmp_path, caplog):
    """Each is named, and the bridge begins with the others."""
    async with BridgeRig(tmp_path) as rig:
        rig.door.record(
            [
                ("INSERT INTO bridge_cursor VALUES ('b', 'x')", ()),
                save_arrival("b", ArrivalRecord(7, (1, 2), True)),
                ("INSERT INTO bridge_session VALUES ('b', ?)", (b"\0" * 9,)),
                ("INSERT INTO bridge_retained VALUES ('b', 't', 1, 'text')", ()),
                ("INSERT INTO bridge_retained VALUES ('b', 'u', 2, x'01')", ()),
                save_session("c", SessionRecord("h:1", "c")),
                ("INSERT INTO bridge_arrival VALUES ('c', ?)", (b"\xc1",)),
            ]
        )
        await rig.door.settled()
        found, other = load(rig.journal, "b"), load(rig.journal, "c")
    assert (found.cursor, found.session) == (None, None)
    assert found.arrival == ArrivalRecord(7, (1, 2), True)
    assert found.last_digests == {"u": b"\x01"}
    assert (other.arrival, other.session) == (None, SessionRecord("h:1", "c"))
    for named in (
        "The place up to which bridge b has sent",
        "The session of bridge b",
        "A note of a retained message of bridge b",
        "The note which messages bridge c may get again",
    ):
        assert f"{named} in " in caplog.text


def test_a_session_row_that_no_version_wrote_is_refused(tmp_path):
    """Before anything is changed, as for the other tables."""
    from appliance.engine import databases  # noqa: PLC0415 - only here

    databases._database(tmp_path, "journal.db").open(1).close()
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("INSERT INTO bridge_session VALUES ('b', x'81a16101')")
    connection.commit()
    connection.close()
    assert "bridge_session" in databases.problems(tmp_path)[0]
