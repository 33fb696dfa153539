"""What goes out by bridges: in order, over outages, at most repeated, and never in a circle."""

from __future__ import annotations

import asyncio

from bridge_rig import SESSION_PRESENT, BridgeRig, ScriptedRemote, bridge, sends
from other_brokers import PASSWORD, USER, WEAK, WEAK_PASSWORD, Mosquitto, Nats, Remote

from appliance.config.tables import BridgePublishConfig
from appliance.counters import Counter
from appliance.secret import Secret


def publish_packet(body):
    """Topic, packet id and payload of a PUBLISH of QoS 1 without properties."""
    size = int.from_bytes(body[:2], "big")
    return body[2 : 2 + size].decode(), body[2 + size : 4 + size], body[4 + size :]


async def published(peer):
    """What a bridge publishes, until it says goodbye; pings are answered."""
    while True:
        kind, body = await peer.read()
        if kind == 3:
            yield publish_packet(body)
        elif kind == 12:
            peer.send(b"\xd0\x00")
        else:
            peer.close()
            return


def to(remote, *publish, **keys):
    """A bridge to mosquitto as the user who may do everything."""
    keys = {"username": USER, "password": Secret(PASSWORD)} | keys
    return bridge(remote.port, publish=publish, **keys)


def put(rig, *payloads, topic="out/t", **more):
    for payload in payloads:
        rig.door.publish(topic, payload, client_id="press7", **more)


def numbered(*numbers):
    return [b"%d" % number for number in range(*numbers)]


async def test_mosquitto(tmp_path):
    """Messages reach a mosquitto in order, under their topics there, also those of an absence."""
    table = BridgePublishConfig(topic="out/#", remove_prefix="out/", remote_prefix="site4/")
    with Mosquitto(tmp_path / "m") as remote, Remote(remote, "reader") as reader:
        reader.subscribe("#")
        config = to(remote, table, version="5")
        async with BridgeRig(tmp_path / "here", config) as rig:
            await rig.connected()
            put(rig, b"kept back", topic="other")
            put(rig, *numbered(300))
            await asyncio.to_thread(reader.wait, lambda: len(reader.got) >= 300, "all come")
            await rig.until(lambda: rig.state().messages_out == 300)
            await rig.until(lambda: rig.state().lag == 0)
            await asyncio.to_thread(remote.restart)
            put(rig, *numbered(300, 400))
            await rig.until(lambda: rig.state().messages_out >= 400)
        async with BridgeRig(tmp_path / "here", config) as rig:
            put(rig, *numbered(400, 450))
            await rig.until(lambda: rig.state().messages_out >= 50)
        await asyncio.to_thread(reader.wait, lambda: "449" in reader.payloads(), "the last comes")
    payloads = [int(each) for each in reader.payloads()]
    assert list(dict.fromkeys(payloads)) == list(range(450))
    assert {each.topic for each in reader.got} == {"site4/t"}


async def test_resume_at_the_first_unacknowledged(tmp_path):
    """A lost connection costs no message; what was not acknowledged is sent again as a repeat."""
    seen = []

    async def script(peer, number):
        await peer.accept(connack=SESSION_PRESENT)
        for count in range(3 if number == 0 else 4):
            kind, body = await peer.read()
            assert kind == 3
            _, packet_id, payload = publish_packet(body)
            seen.append((number, packet_id, payload))
            if number or count < 2:
                peer.send(b"\x40\x02" + packet_id)
        if number == 0:
            await rig.until(lambda: rig.state().messages_out == 2)
            peer.close()
        else:
            await peer.serve()

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, publish=sends("out/#"))
        async with BridgeRig(tmp_path, config) as rig:
            await rig.connected()
            put(rig, *numbered(6))
            await rig.until(lambda: rig.state().messages_out == 6)
    assert [payload for number, _, payload in seen if number] == numbered(2, 6)
    assert seen[2][1:] == seen[3][1:]


async def test_refused_by_rule(tmp_path):
    """mosquitto says with MQTT 5 that a rule forbids a message: it is parked, the next one goes."""
    with Mosquitto(tmp_path / "m") as remote, Remote(remote, "reader", clean=True) as reader:
        reader.subscribe("#")
        config = to(
            remote,
            *sends("out/#", "ok/#"),
            username=WEAK,
            password=Secret(WEAK_PASSWORD),
            version="5",
        )
        async with BridgeRig(tmp_path / "here", config) as rig:
            await rig.connected()
            put(rig, b"no")
            put(rig, b"yes", topic="ok/t")
            await rig.until(lambda: (rig.state().parked, rig.state().messages_out) == (1, 1))
            assert rig.counters[Counter.BRIDGE_PUBLISHES_REFUSED] == 1
        await asyncio.to_thread(reader.wait, lambda: reader.got, "the allowed one comes")
    assert reader.payloads() == ["yes"]


async def test_closed_for_a_message(tmp_path):
    """A broker that closes for one message gets all others; a refused filter is no message's fault."""
    taken = []

    async def script(peer, _number):
        await peer.accept(connack=SESSION_PRESENT)
        async for _, packet_id, payload in published(peer):
            if payload == b"bad":
                peer.reset()
                return
            taken.append(payload)
            peer.send(b"\x40\x02" + packet_id)

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, publish=sends("out/#"))
        async with BridgeRig(tmp_path, config) as rig:
            put(rig, b"1", b"bad", b"2", b"3")
            await rig.until(lambda: rig.state().messages_out == 3)
            assert rig.state().parked == 1
            assert remote.connections <= 6
            assert "right after a message on out/t" in rig.state().last_error
    assert list(dict.fromkeys(taken)) == [b"1", b"2", b"3"]


async def test_a_removed_bridge_is_forgotten(tmp_path):
    """A bridge that is taken out of the configuration and put back does not send what it missed."""

    async def script(peer, _number):
        await peer.accept(connack=SESSION_PRESENT)
        async for _, packet_id, payload in published(peer):
            taken.append(payload)
            peer.send(b"\x40\x02" + packet_id)

    taken = []
    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, publish=sends("out/#"))
        silent = bridge(remote.port)
        async with BridgeRig(tmp_path, config) as rig:
            for number, absent in enumerate(((), (silent,))):
                await rig.connected()
                put(rig, b"%d" % number)
                await rig.until(lambda number=number: len(taken) == number + 1)
                rig.bridges.take(absent)
                await rig.until(lambda: not rig.journal.query("SELECT * FROM bridge_cursor"))
                put(rig, b"missed")
                rig.bridges.take((config,))
                await rig.until(lambda: rig.journal.query("SELECT * FROM bridge_cursor"))
            await rig.connected()
            put(rig, b"2")
            await rig.until(lambda: len(taken) == 3)
    assert taken == [b"0", b"1", b"2"]


async def test_retention_waits_for_bridges(tmp_path, monkeypatch):
    """What has still to go out is kept while bridges begin, and while they change."""

    async def script(peer, _number):
        await peer.accept(connack=SESSION_PRESENT)
        await peer.serve()

    def kept():
        return {each.name: each.advanced for each in rig.journal._followers}

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, publish=sends("out/#"))
        async with BridgeRig(tmp_path, config) as rig:
            place = kept()["bridge plant"]
            await rig.connected()
            await rig.until(lambda: rig.journal.query("SELECT * FROM bridge_cursor"))
            await rig.bridges.hold()
            assert kept()["bridges"] == place
            rig.bridges._release()
            assert "bridges" not in kept()
            opened = []
            follower = rig.journal.follower

            def note(name, *arguments, **keys):
                opened.append((name, kept()))
                return follower(name, *arguments, **keys)

            monkeypatch.setattr(rig.journal, "follower", note)
            rig.bridges.take((bridge(remote.port, publish=sends("out/#", "more")),))
            await rig.until(lambda: len(opened) == 2)
            assert opened == [
                ("bridges", {"bridge plant": place}),
                ("bridge plant", {"bridges": place}),
            ]
            await rig.until(lambda: "bridges" not in kept())


async def test_other_filters_keep_the_place(tmp_path):
    """What was not out when the filters changed goes out by the new ones."""

    async def script(peer, number):
        await peer.accept(connack=SESSION_PRESENT)
        async for topic, packet_id, payload in published(peer):
            taken.append((topic, payload))
            if number:
                peer.send(b"\x40\x02" + packet_id)

    taken = []
    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, publish=sends("out/#"))) as rig:
            put(rig, b"1")
            await rig.until(lambda: taken)
            table = BridgePublishConfig(topic="+/t", remote_prefix="new/")
            rig.bridges.take((bridge(remote.port, publish=(table,)),))
            await rig.until(lambda: len(taken) == 2)
    assert taken == [("out/t", b"1"), ("new/out/t", b"1")]


async def test_echoed_secret(tmp_path, caplog):
    """A broker that repeats the password in its reason gets it into no log."""

    async def script(peer, _number):
        await peer.accept(connack=b"\x20\x03\x00\x00\x00")
        async for _, packet_id, _ in published(peer):
            reason = b"\x1f" + len(PASSWORD).to_bytes(2, "big") + PASSWORD.encode()
            peer.send_packet(0x40, packet_id + b"\x87" + bytes((len(reason),)) + reason)

    async with ScriptedRemote(script) as remote:
        config = to(remote, *sends("out/#"), version="5")
        async with BridgeRig(tmp_path, config) as rig:
            put(rig, b"1")
            await rig.until(lambda: rig.state().parked == 1)
    assert "not authorized" in caplog.text
    assert PASSWORD not in caplog.text


async def test_nats_closes_for_a_topic(tmp_path):
    """NATS ends the connection for a topic with a space; only that message is left out."""
    with Nats(tmp_path / "n") as remote, Remote(remote, "reader", clean=True) as reader:
        reader.subscribe("out/#")
        async with BridgeRig(tmp_path / "here", to(remote, *sends("out/#"))) as rig:
            await rig.connected()
            put(rig, b"1")
            put(rig, b"2", topic="out/a b")
            put(rig, *numbered(3, 20))
            await rig.until(lambda: rig.state().messages_out == 18)
            assert rig.state().parked == 1
        await asyncio.to_thread(reader.wait, lambda: "19" in reader.payloads(), "the last comes")
    assert list(dict.fromkeys(map(int, reader.payloads()))) == [1, *range(3, 20)]


async def test_a_rate_is_no_fault_of_a_message(tmp_path):
    """A broker that ends connections because messages come too fast gets the message all the same."""
    taken = []

    async def script(peer, number):
        await peer.accept(connack=b"\x20\x03\x00\x00\x00")
        async for _, packet_id, _ in published(peer):
            if number < 4:
                peer.send(b"\xe0\x02\x96\x00")
                peer.close()
                return
            taken.append(number)
            peer.send(b"\x40\x02" + packet_id)

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, publish=sends("out/#"), version="5")
        async with BridgeRig(tmp_path, config) as rig:
            put(rig, b"1")
            await rig.until(lambda: taken)
            assert rig.state().parked == 0


async def test_own_echo(tmp_path):
    """A bridge with MQTT 5 both ways over one topic gets nothing back that it sent."""
    with Mosquitto(tmp_path / "m") as remote, Remote(remote, "press", clean=True) as press:
        config = to(remote, *sends("x/#"), version="5")
        config = bridge(
            remote.port,
            "x/#",
            publish=config.publish,
            version="5",
            username=USER,
            password=Secret(PASSWORD),
        )
        async with BridgeRig(tmp_path / "here", config) as rig:
            await rig.connected()
            put(rig, b"mine", topic="x/1")
            await rig.until(lambda: rig.state().messages_out == 1)
            press.publish("x/2", "theirs")
            await rig.came(1, "x/2")
            await rig.until(lambda: rig.state().lag == 0)
            assert [each.payload for each in rig.journaled()] == [b"mine", b"theirs"]
            assert rig.state().messages_out == 1


async def test_two_bridges_to_one_broker(tmp_path):
    """What one bridge sends comes in by the other one, and is known there by its mark."""
    with Mosquitto(tmp_path / "m") as remote:
        both = [
            bridge(
                remote.port,
                "x/#",
                name=name,
                publish=sends("x/#"),
                version="5",
                username=USER,
                password=Secret(PASSWORD),
            )
            for name in ("p", "q")
        ]
        async with BridgeRig(tmp_path / "here", *both) as rig:
            await rig.connected("p")
            await rig.connected("q")
            put(rig, b"mine", topic="x/1")
            await rig.until(lambda: rig.counters[Counter.BRIDGE_MESSAGES_LEFT_OUT_LOOP] == 2)
            assert [each.payload for each in rig.journaled()] == [b"mine"]
            assert [rig.state(name).messages_out for name in ("p", "q")] == [1, 1]


async def test_chain_of_two(tmp_path):
    """Two appliances that send each other everything by two ways: nothing goes round."""
    with Mosquitto(tmp_path / "m1") as one, Mosquitto(tmp_path / "m2") as two:

        def both():
            return [
                bridge(
                    remote.port,
                    "x/#",
                    name=name,
                    publish=sends("x/#"),
                    version="5",
                    username=USER,
                    password=Secret(PASSWORD),
                )
                for name, remote in (("p", one), ("q", two))
            ]

        async with (
            BridgeRig(tmp_path / "a", *both()) as a,
            BridgeRig(tmp_path / "b", *both()) as b,
        ):
            for rig in (a, b):
                await rig.connected("p")
                await rig.connected("q")
            put(a, b"1", topic="x/1")
            # By either way, and what came by one goes back by the other one.
            await a.until(lambda: a.counters[Counter.BRIDGE_MESSAGES_LEFT_OUT_LOOP] >= 2)
            await b.came(2)
            for rig in (a, b):
                await rig.until(
                    lambda rig=rig: all(rig.state(name).lag == 0 for name in ("p", "q"))
                )
            assert [each.payload for each in a.journaled()] == [b"1"]
            assert [each.payload for each in b.journaled()] == [b"1", b"1"]
            marks = [dict(each.properties.decoded().user_properties) for each in b.journaled()]
            assert {each["appliance-client"] for each in marks} == {"press7"}
