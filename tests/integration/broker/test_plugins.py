"""amqtt plugins at the door of a running broker: who comes in, what passes, what is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import plugins_for_tests as foreign
import pytest
from broker_rig import Closed, Rig, both, plugin

from appliance.broker import plugin_runner
from appliance.broker.users import Users
from appliance.config.tables import AccessRule
from appliance.counters import Counter


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    foreign.forget()
    monkeypatch.setattr(plugin_runner, "_STOP_S", 0.2)
    yield
    foreign.RELEASE.set()


AUTH = plugin("Auth", how="password")
REFUSED = {4: 4, 5: 0x86}
UNAVAILABLE = {4: 3, 5: 0x88}


async def refused(rig: Rig, version: int, username: str | None, password: bytes | None) -> int:
    wire = await rig.socket(version)
    wire.send(wire.connect_packet("c1", username=username, password=password))
    answer = await wire.expect(2)
    with pytest.raises(Closed):
        await wire.receive()
    return answer.body[1]


@both
async def test_plugins_let_clients_in(tmp_path: Path, version: int) -> None:
    """Clients that a plugin lets in; none without a name, although every listener is on loopback."""
    async with Rig(tmp_path / "d", plugins=(AUTH,), anonymous=False) as rig:
        await rig.wire(version, username="anna", password=b"yes")
        assert await refused(rig, version, "anna", b"no") == REFUSED[version]
        assert await refused(rig, version, None, None) == REFUSED[version]
        assert rig.counters[Counter.LOGINS_REFUSED] == 2


@both
async def test_a_plugin_that_fails_refuses_and_says_that_it_may_be_tried_again(
    tmp_path: Path, version: int
) -> None:
    """The client did nothing wrong, so it is not slowed down as a guesser either."""
    async with Rig(tmp_path / "d", plugins=(AUTH,), anonymous=False) as rig:
        assert await refused(rig, version, "anna", b"raise") == UNAVAILABLE[version]
        assert rig.counters[Counter.LOGINS_REFUSED_PLUGIN_FAILED] == 1
        assert rig.counters[Counter.LOGINS_REFUSED] == 0


@pytest.mark.parametrize("how", [b"hang", b"block"])
async def test_others_go_on_while_a_plugin_hangs(tmp_path: Path, how: bytes) -> None:
    """A plugin that hangs, or blocks its thread, stops no client that does not need it."""
    users = tmp_path / "users.txt"
    Users(users).add("plc", b"secret")
    async with Rig(
        tmp_path / "d", plugins=(AUTH,), users=users, anonymous=False, plugin_timeout=1.0
    ) as rig:
        waiting = await rig.socket()
        waiting.send(waiting.connect_packet("slow", username="anna", password=how))
        await rig.until(lambda: foreign.ASKED)
        plc = await rig.wire(username="plc", password=b"secret")
        for _ in range(20):
            await plc.publish_acked("a/b")
        assert (await waiting.expect(2)).body[1] == 3


async def test_users_of_the_file_are_checked_there(tmp_path: Path) -> None:
    """Plugins are asked about all others, and one who joins the file is not taken for another."""
    users = tmp_path / "users.txt"
    Users(users).add("plc", b"secret")
    async with Rig(tmp_path / "d", plugins=(AUTH,), users=users, anonymous=False) as rig:
        await rig.wire(client_id="c0", username="plc", password=b"secret")
        assert await refused(rig, 4, "plc", b"yes") == 4
        assert not foreign.ASKED
        anna = await rig.wire(client_id="c2", username="anna", password=b"yes")
        Users(users).add("anna", b"other")
        assert await refused(rig, 4, "anna", b"yes") == 4
        # The sweep finds the change and ends what was let in on other grounds.
        await anna.closed()
        assert rig.counters[Counter.CONNECTIONS_ENDED_ACCESS_WITHDRAWN] == 1


def rows(rig: Rig) -> list[tuple[str, bytes]]:
    return [(message.topic, message.payload) for message in rig.journaled()]


@both
@pytest.mark.parametrize("cache", [0.0, 10.0])
async def test_publishes_pass_once_plugins_say_so(
    tmp_path: Path, version: int, cache: float
) -> None:
    """In the order in which they were sent, at every QoS; several of one topic cost a question."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),), plugin_cache=cache) as rig:
        wire = await rig.wire(version)
        wanted = [
            ("yes/1", b"1", 0), ("yes/2", b"2", 1), ("yes/2", b"3", 1), ("yes/1", b"4", 2),
            ("yes/1", b"5", 0), ("yes/3", b"6", 1),
        ]  # fmt: skip
        wire.send(b"".join(wire.publish_packet(*each) for each in wanted))
        kinds = [(await wire.receive()).kind for _ in range(4)]
        assert kinds == [4, 4, 5, 4]
        await rig.settled()
        assert rows(rig) == [(topic, payload) for topic, payload, _ in wanted]
        if cache:
            assert len([each for each in foreign.ASKED if each[0] == "publish"]) == 3


async def test_what_plugins_refuse_is_not_published(tmp_path: Path) -> None:
    """MQTT 5 gets the reason; MQTT 3.1.1 has no other way than the end of the connection."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),)) as rig:
        five = await rig.wire(5)
        assert (await five.publish_acked("no/1")).codes == [0x87]
        assert (await five.publish_acked("none/1")).codes == [0x87]
        assert (await five.publish_acked("yes/1")).codes == [0]
        three = await rig.wire(4, client_id="three")
        three.publish("no/1", b"x", 1)
        with pytest.raises(Closed):
            await three.receive()
        assert [topic for topic, _ in rows(rig)] == ["yes/1"]
        assert rig.counters[Counter.PUBLISHES_REFUSED_NOT_ALLOWED] == 3


@both
@pytest.mark.parametrize("topic", ["hang/1", "raise/1"])
async def test_no_answer_about_a_publish_loses_nothing(
    tmp_path: Path, version: int, topic: str
) -> None:
    """The connection ends, so that the client sends again what was not acknowledged."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),), plugin_timeout=1.0) as rig:
        wire = await rig.wire(version)
        other = await rig.wire(version, client_id="other")
        wire.publish(topic, b"x", 1)
        await rig.until(lambda: any(topic in each for each in foreign.ASKED))
        await other.publish_acked("yes/1")  # others go on meanwhile
        last = await wire.closed()
        assert last is None if version == 4 else last.body[0] == 0x89
        assert [each for each, _ in rows(rig)] == ["yes/1"]
        assert rig.counters[Counter.PUBLISHES_REFUSED_PLUGIN_FAILED] == 1


async def test_rules_come_before_plugins(tmp_path: Path) -> None:
    """What a rule forbids is forbidden, and no plugin is asked about it."""
    rule = AccessRule(publish=("yes/mine",), subscribe=("yes/mine",))
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),), rules=(rule,)) as rig:
        wire = await rig.wire(5)
        assert (await wire.publish_acked("yes/other")).codes == [0x87]
        assert await wire.subscribe("yes/other", "yes/mine") == [0x87, 0]
        assert {each[2] for each in foreign.ASKED} == {"yes/mine"}


@both
async def test_plugins_say_what_may_be_subscribed_to(tmp_path: Path, version: int) -> None:
    """Each filter for itself, that of a shared subscription without its group."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),)) as rig:
        wire = await rig.wire(version)
        codes = await wire.subscribe("yes/#", "no/#", ("yes/+/a", 1), "raise/1", "$share/g/yes/b")
        refusal = 0x80 if version == 4 else 0x87
        assert codes == [0, refusal, 1, refusal, 0]
        assert await wire.unsubscribe("yes/#") == ([] if version == 4 else [0])


@both
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_plugins_say_what_is_delivered(tmp_path: Path, version: int, qos: int) -> None:
    """In order, each topic asked about once; what may not be received is left out and counted."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),)) as rig:
        reader = await rig.wire(version, client_id="reader")
        assert await reader.subscribe(("yes/#", qos), ("unheard/#", qos)) == [qos, qos]
        writer = await rig.wire(version, client_id="writer")
        for number in range(12):
            topic = ("yes/1", "unheard/1", "yes/2")[number % 3]
            writer.publish(topic, str(number).encode(), qos, id=number + 1)
        got = await reader.messages(8)
        assert [each.payload for each in got] == [b"%d" % n for n in range(12) if n % 3 != 1]
        await reader.nothing_more()
        assert rig.counters[Counter.DELIVERIES_REFUSED_NOT_ALLOWED] == 4
        asked = [each for each in foreign.ASKED if each[:2] == ("receive", "reader")]
        assert len(asked) == 3


async def test_retained_and_queued_messages_are_asked_about_too(tmp_path: Path) -> None:
    """When they are sent: the client that is away is asked about when it is back."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),)) as rig:
        writer = await rig.wire(client_id="writer")
        for topic in ("yes/1", "unheard/1", "yes/2"):
            await writer.publish_acked(topic, b"kept", retain=True)
        reader = await rig.wire(client_id="reader", clean=False)
        await reader.subscribe(("yes/#", 1), ("unheard/#", 1))
        assert {each.topic for each in await reader.messages(2)} == {"yes/1", "yes/2"}
        await reader.nothing_more()
        await reader.close()
        await rig.until(lambda: rig.broker.sessions.get("reader").connection is None)
        for topic in ("yes/1", "unheard/1", "yes/2"):
            await writer.publish_acked(topic, b"new")
        again = await rig.socket()
        again.send(again.connect_packet("reader", clean=False))
        assert (await again.expect(2)).body[0] == 1
        assert [each.topic for each in await again.messages(2)] == ["yes/1", "yes/2"]
        await again.nothing_more()


async def test_a_slow_answer_about_one_reader_delays_no_other(tmp_path: Path) -> None:
    """And what waits for it is bounded as every queue is."""
    async with Rig(
        tmp_path / "d", plugins=(plugin("Topics"),), plugin_timeout=2.0, max_queued_per_client=5
    ) as rig:
        slow = await rig.wire(client_id="slow")
        fast = await rig.wire(client_id="fast")
        await slow.subscribe("yes/#")
        await fast.subscribe("yes/#")
        plugins = rig.plugins
        assert plugins is not None
        held = asyncio.Event()
        ask = plugins.may

        async def may(client, topic, action):  # one reader's answers come when the test says so
            if client.session.client_id == "slow" and str(action) == "receive":
                await held.wait()
            return await ask(client, topic, action)

        plugins.may = may  # type: ignore[method-assign]
        writer = await rig.wire(client_id="writer")
        for number in range(12):
            await writer.publish_acked("yes/1", b"%d" % number)
            assert [each.payload for each in await fast.messages(1)] == [b"%d" % number]
        held.set()
        assert [each.payload for each in await slow.messages(5)] == [b"7", b"8", b"9", b"10", b"11"]
        assert rig.counters[Counter.DELIVERIES_DROPPED_QUEUE_FULL] == 7


@both
async def test_wills_are_asked_about_at_connect(tmp_path: Path, version: int) -> None:
    """A client whose will may not be published does not come in."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),)) as rig:
        wire = await rig.socket(version)
        wire.send(wire.connect_packet("c1", will=("no/1", b"gone", 0, False)))
        assert (await wire.expect(2)).body[1] == (5 if version == 4 else 0x87)
        other = await rig.wire(version, client_id="c2", will=("yes/1", b"gone", 0, False))
        other.abort()
        await rig.until(lambda: rows(rig) == [("yes/1", b"gone")])


async def test_events_are_heard(tmp_path: Path) -> None:
    """Connects, subscriptions, messages, disconnects, in their order."""
    async with Rig(tmp_path / "d", plugins=(plugin("Listener"),)) as rig:
        wire = await rig.wire(username="anna", password=b"s3cret")
        await wire.subscribe(("a/#", 1))
        await wire.publish_acked("a/b", b"x")
        await wire.receive()
        await wire.unsubscribe("a/#")
        wire.disconnect()
        await wire.closed()
    assert foreign.HEARD == [
        ("pre_start",),
        ("connected", "tester", "anna", None),
        ("subscribed", "tester", "a/#", 1),
        ("received", "tester", "a/b", b"x", 1),
        ("unsubscribed", "tester", "a/#"),
        ("disconnected", "tester"),
        ("pre_shutdown",),
    ]


async def test_a_plugin_that_hears_slowly_slows_nobody(tmp_path: Path) -> None:
    """Messages are acknowledged while it blocks its thread."""
    async with Rig(tmp_path / "d", plugins=(plugin("Listener", block=True),)) as rig:
        wire = await rig.wire()
        for _ in range(50):
            await wire.publish_acked("a/b")
        foreign.RELEASE.set()
        await rig.until(lambda: len([e for e in foreign.HEARD if e[0] == "received"]) == 50)


async def test_a_client_that_leaves_while_plugins_are_asked(tmp_path: Path) -> None:
    """Its question ends with it."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics"),)) as rig:
        wire = await rig.wire()
        wire.publish("hang/1", b"x", 1)
        await rig.until(lambda: foreign.ASKED)
        wire.abort()
        other = await rig.wire(client_id="other")
        await other.publish_acked("yes/1")
        assert [each for each, _ in rows(rig)] == ["yes/1"]


@pytest.mark.campaign
async def test_a_slow_answer_is_no_silence_of_the_client(tmp_path: Path) -> None:
    """A keepalive that is shorter than the plugin's answer ends no connection."""
    async with Rig(tmp_path / "d", plugins=(plugin("Topics", slow_s=2.2),)) as rig:
        wire = await rig.wire(keepalive=1)
        await wire.publish_acked("yes/1")
        assert Counter.CONNECTIONS_ENDED_SILENT not in rig.counters
