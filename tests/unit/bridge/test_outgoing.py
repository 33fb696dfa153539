"""The way out over a journal on disk, with a broker that is played step by step."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from journal_rig import JournalRig

from appliance.bridge import marks, outgoing, outgoing_reader
from appliance.bridge import window as outgoing_window
from appliance.bridge.outgoing import Outgoing
from appliance.config.tables import BridgeConfig, BridgePublishConfig
from appliance.counters import Counter
from appliance.model import REPLAYED, Message, MessageProperties, bridge_client_id
from appliance.mqtt.client_packets import ConnAck
from appliance.mqtt.received import read_publishes

DEADLINE_S = 30.0


class Remote:
    """The other broker: one connection of the bridge after the other."""

    def __init__(self, rig: Rig, **limits):
        self.rig = rig
        self.limits = ConnAck(reason=0, **limits)
        self.got = []
        self.raw = []
        self.changed = asyncio.Event()
        self.lost = []

    def write(self, data):
        version = 5 if self.rig.config.version == "5" else 4
        found, end = read_publishes(data, 0, 10**8, version, 10**6)
        assert end == len(data)
        self.got += found
        self.changed.set()

    def lose(self, reason):
        self.lost.append(reason)
        self.changed.set()

    async def until(self, count):
        await self.rig.until(lambda: len(self.got) >= count)
        return self.got

    def acknowledge(self, *numbers, reason=0, text=""):
        for number in numbers:
            self.rig.outgoing.acknowledged(self.got[number].packet_id, reason, text)

    @property
    def payloads(self):
        return [each.payload for each in self.got]


class Rig:
    """A bridge's way out. ``cursor`` is what was saved, ``restart`` begins from there."""

    def __init__(self, journal, *publish, **config):
        self.journal = journal
        self.publish = publish or (BridgePublishConfig(topic="out/#"),)
        self.config = BridgeConfig(name="b", host="h", publish=self.publish, **config)
        self.cursor = None
        self.counts = []
        self.now = 1000.0
        self.waited_ns = lambda _message: 0
        self.outgoing = None

    async def __aenter__(self):
        self.begin()
        return self

    async def __aexit__(self, *_error):
        await self.outgoing.stop()

    def begin(self):
        self.outgoing = Outgoing(
            self.config,
            cursor=self.cursor,
            installation="mine",
            journal=self.journal.journal,
            save_cursor=self.save,
            waited_ns=lambda message: self.waited_ns(message),
            clock_ns=lambda: 77,
            count=self.counts.append,
            loop=asyncio.get_running_loop(),
            clock=lambda: self.now,
        )

    async def restart(self):
        await self.outgoing.stop()
        self.begin()

    def save(self, seq, then):
        self.cursor = seq
        then()

    def connect(self, **limits):
        remote = Remote(self, **limits)
        self.outgoing.connected(remote, remote.limits)
        return remote

    async def until(self, holds):
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await asyncio.sleep(0.002)

    def put(self, *payloads, topic="out/t", **more):
        for payload in payloads:
            seq = self.journal.journal.next_seq()
            more = {"qos": 1, "client_id": "press7"} | more
            self.journal.journal.append(Message(seq, seq, topic, payload, **more), None)
        self.journal.settle()


@pytest.fixture
def journal(tmp_path):
    rig = JournalRig(tmp_path / "journal.db").start()
    yield rig
    rig.journal.close(10)


def numbered(count, start=0):
    return [b"%d" % number for number in range(start, start + count)]


def test_in_order_within_the_window(journal):
    """What matches goes out in order, no more than the window; the place follows the PUBACKs."""

    async def run():
        async with Rig(journal) as rig:
            remote = rig.connect(receive_maximum=3)
            rig.put(b"not", topic="other")
            rig.put(*numbered(5))
            await remote.until(3)
            remote.acknowledge(1, 2)
            await remote.until(5)
            assert rig.outgoing.done_seq == 1
            remote.acknowledge(0, 3, 4)
            await rig.until(lambda: rig.cursor == 6)
            assert remote.payloads == numbered(5)
            assert len({each.packet_id for each in remote.got}) == 5
            assert rig.outgoing.messages_out == 5
            assert rig.outgoing.lag == 0

    asyncio.run(run())


def test_first_start_and_later_ones(journal):
    """A new bridge begins with what comes from now on; its next start goes on where it was."""

    async def run():
        rig = Rig(journal)
        rig.put(b"history")
        rig.begin()
        assert rig.cursor == 1
        rig.put(*numbered(3))
        remote = rig.connect()
        await remote.until(3)
        remote.acknowledge(0, 1)
        await rig.restart()
        assert rig.cursor == 3
        remote = rig.connect()
        await remote.until(1)
        assert remote.payloads == [b"2"]
        await rig.outgoing.stop()

    asyncio.run(run())


def test_resume_after_an_outage(journal):
    """The next connection repeats what is not acknowledged, as repeats, and goes on behind it."""

    async def run():
        async with Rig(journal) as rig:
            first = rig.connect(receive_maximum=4)
            rig.put(*numbered(4))
            await first.until(4)
            first.acknowledge(0, 2)
            rig.outgoing.disconnected(by_broker=False)
            rig.put(*numbered(1000, 4))
            second = rig.connect(session_present=True, receive_maximum=1000)
            await second.until(102 - 2)
            assert second.payloads[:3] == [b"1", b"3", b"4"]
            assert [each.dup for each in second.got[:3]] == [True, True, False]
            assert [each.packet_id for each in second.got[:2]] == [
                first.got[1].packet_id,
                first.got[3].packet_id,
            ]
            acknowledged = 0
            while acknowledged < 1002:
                await second.until(acknowledged + 1)
                new = range(acknowledged, len(second.got))
                second.acknowledge(*new)
                acknowledged = len(second.got)
            assert second.payloads[2:] == numbered(1000, 4)
            await rig.until(lambda: rig.cursor == 1004)

    asyncio.run(run())


def test_a_lost_session_knows_no_packet_ids(journal):
    """Without the session, what was under way goes out as new."""

    async def run():
        async with Rig(journal) as rig:
            first = rig.connect()
            rig.put(b"a")
            await first.until(1)
            rig.outgoing.disconnected(by_broker=False)
            second = rig.connect(session_present=False)
            await second.until(1)
            assert not second.got[0].dup

    asyncio.run(run())


@pytest.mark.parametrize(("version", "payloads"), [("5", [b"replay", b"new"]), ("3.1.1", [b"new"])])
def test_a_replay_goes_out_only_with_its_mark(journal, version, payloads):
    """MQTT 3.1.1 has no properties, so an appliance behind it would take a replay for news."""

    async def run():
        async with Rig(journal, version=version) as rig:
            remote = rig.connect()
            mark = MessageProperties(user_properties=((REPLAYED, "7"),)).encoded()
            rig.put(b"replay", properties=mark)
            rig.put(b"new")
            await remote.until(len(payloads))
            assert remote.payloads == payloads
            left_out = len(payloads) < 2
            assert rig.counts == [Counter.BRIDGE_REPLAYS_LEFT_OUT] * left_out
            if not left_out:
                assert (REPLAYED, "7") in remote.got[0].properties.decoded().user_properties

    asyncio.run(run())


def test_refused_is_parked(journal, caplog):
    """A message that the broker refuses is left out, counted, said and not sent again."""

    async def run():
        async with Rig(journal, version="5") as rig:
            remote = rig.connect()
            rig.put(*numbered(2))
            await remote.until(2)
            remote.acknowledge(0, reason=0x87, text="\x1b[2Jno")
            remote.acknowledge(1, reason=0x10)
            await rig.until(lambda: rig.cursor == 2)
            assert (rig.outgoing.undelivered.parked, rig.outgoing.messages_out) == (1, 1)
            assert rig.counts == [Counter.BRIDGE_PUBLISHES_REFUSED]
            assert rig.outgoing.undelivered.parked_ns == 77
            (known,) = rig.outgoing.undelivered.acknowledge()
            assert "1 messages were refused" in known
            assert rig.outgoing.undelivered.parked_ns is None

    asyncio.run(run())
    assert "not authorized" in caplog.text
    assert "\x1b" not in caplog.text


def test_refused_and_closed(journal):
    """Of a broker that closes with each refusal, the refused message is named, and no other."""

    async def run():
        async with Rig(journal, version="5") as rig:
            rig.put(b"bad", topic="out/bad")
            rig.put(b"good")
            for _ in range(outgoing_window.MOST_STRIKES + 1):
                rig.put(b"bad", topic="out/bad")
            remote = rig.connect()
            await remote.until(2)
            remote.acknowledge(0, reason=0x87)
            assert rig.outgoing.disconnected() == "out/bad"
            remote = rig.connect(session_present=True)
            await remote.until(3)
            assert remote.payloads[:2] == [b"good", b"bad"]
            remote.acknowledge(0)
            assert rig.outgoing.disconnected() == ""
            for _ in range(outgoing_window.MOST_STRIKES):
                remote = rig.connect(session_present=True)
                await remote.until(1)
                remote.acknowledge(0, reason=0x87)
                assert rig.outgoing.disconnected() == "out/bad"
            # Long after a refusal the end has another cause.
            remote = rig.connect(session_present=True)
            await remote.until(1)
            remote.acknowledge(0, reason=0x87)
            rig.now += 60
            assert rig.outgoing.disconnected() == ""
            done = (rig.outgoing.messages_out, rig.outgoing.undelivered.parked)
            assert done == (1, outgoing_window.MOST_STRIKES + 2)

    asyncio.run(run())


def test_quota(journal, monkeypatch, caplog):
    """A message that is refused for a quota is sent again after a pause, and given up at last."""
    monkeypatch.setattr(outgoing, "_PAUSES_S", (0.01, 0.01))

    async def run():
        async with Rig(journal, version="5") as rig:
            remote = rig.connect()
            rig.put(b"a", b"b", b"c")
            await remote.until(3)
            remote.acknowledge(0, 1, reason=0x97)
            remote.acknowledge(2)
            await remote.until(5)
            assert remote.payloads[3:] == [b"a", b"b"]
            assert not any(each.dup for each in remote.got)
            assert rig.outgoing.done_seq == 0
            remote.acknowledge(4)
            remote.acknowledge(3, reason=0x97)
            await remote.until(6)
            remote.acknowledge(5, reason=0x97)
            await rig.until(lambda: rig.cursor == 3)
            assert (rig.outgoing.messages_out, rig.outgoing.undelivered.parked) == (2, 1)

    asyncio.run(run())
    assert "quota" in caplog.text


def test_closed_for_a_message(journal):
    """The message that a broker ends the connection for is left out after three times."""

    async def run():
        async with Rig(journal) as rig:
            rig.put(b"good", b"bad", b"fine")
            arrived = []
            for _ in range(10):
                remote = rig.connect(session_present=True)
                seen = 0
                while rig.outgoing.done_seq < 3:
                    await remote.until(seen + 1)
                    if b"bad" in remote.payloads[seen:]:
                        break
                    new = range(seen, len(remote.got))
                    seen = len(remote.got)
                    arrived += remote.payloads[new.start :]
                    remote.acknowledge(*new)
                    await rig.until(lambda: not rig.outgoing.under_way)
                    await asyncio.sleep(0)
                else:
                    break
                rig.outgoing.disconnected("topic not allowed")
            assert set(arrived) == {b"good", b"fine"}
            assert rig.outgoing.undelivered.parked == 1

    asyncio.run(run())


def test_never_back(journal):
    """A message that came in by the bridge does not go out by it; what others brought in does."""

    async def run():
        async with Rig(journal) as rig:
            remote = rig.connect()
            rig.put(b"echo", client_id=bridge_client_id("b"))
            rig.put(b"other", client_id=bridge_client_id("c"))
            rig.put(b"own", client_id="$appliance")
            await remote.until(2)
            assert remote.payloads == [b"other", b"own"]

    asyncio.run(run())


def test_topics_and_flags(journal):
    """Prefixes, the highest QoS and the retain flag are what the first table says that matches."""

    async def run():
        tables = (
            BridgePublishConfig(topic="out/a/#", remove_prefix="out/", remote_prefix="x/", qos=0),
            BridgePublishConfig(topic="out/#", retained=False),
        )
        async with Rig(journal, *tables) as rig:
            remote = rig.connect()
            rig.put(b"1", topic="out/a/b", retain=True)
            rig.put(b"2", topic="out/c", retain=True, qos=2)
            rig.put(b"3", topic="out/c", qos=0)
            got = await remote.until(3)
            assert [(each.topic, each.qos, each.retain) for each in got] == [
                (b"x/a/b", 0, True),
                (b"out/c", 1, False),
                (b"out/c", 0, False),
            ]

    asyncio.run(run())


def test_what_the_broker_takes(journal, caplog):
    """Maximum QoS, Retain Available and Maximum Packet Size of the broker are kept to, and said."""

    async def run():
        async with Rig(journal, version="5") as rig:
            remote = rig.connect(maximum_qos=0, retain_available=False, maximum_packet_size=100)
            rig.put(b"big" * 100)
            rig.put(b"r", retain=True)
            got = await remote.until(1)
            assert [(each.payload, each.qos, each.retain) for each in got] == [(b"r", 0, False)]
            await rig.until(lambda: rig.cursor == 2)
            assert rig.counts == [Counter.BRIDGE_PUBLISHES_TOO_LARGE]
            rig.outgoing.disconnected(by_broker=False)
            rig.connect(maximum_qos=0, retain_available=False)

    asyncio.run(run())
    assert caplog.text.count("takes only QoS 0") == 1
    assert caplog.text.count("keeps no retained messages") == 1


def test_marks_and_properties(journal):
    """MQTT 5 carries the message's properties and the marks of this appliance."""

    async def run():
        async with Rig(journal, version="5") as rig:
            remote = rig.connect()
            kept = MessageProperties(content_type="a/b", user_properties=(("k", "v"),))
            rig.put(b"p", properties=kept.encoded())
            got = await remote.until(1)
            read = got[0].properties.decoded()
            assert read.content_type == "a/b"
            assert read.user_properties == (
                ("k", "v"),
                (marks.PATH, "mine"),
                (marks.CLIENT, "press7"),
            )

    asyncio.run(run())


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_expiry(journal, version):
    """What is expired is left out; what is not is told how long it lives on."""

    async def run():
        async with Rig(journal, version=version) as rig:
            rig.waited_ns = lambda message: {b"old": 11, b"new": 4}[message.payload] * 10**9
            remote = rig.connect()
            kept = MessageProperties(message_expiry_s=10, payload_format=1)
            rig.put(b"old", b"new", properties=kept.encoded())
            got = await remote.until(1)
            assert remote.payloads == [b"new"]
            if version == "5":
                assert got[0].properties.decoded().message_expiry_s == 6
            assert rig.counts == [Counter.BRIDGE_PUBLISHES_EXPIRED]
            remote.acknowledge(0)
            await rig.until(lambda: rig.cursor == 2)

    asyncio.run(run())


def test_rate(journal):
    """No more go out than max_rate allows; the others wait, they are not lost."""

    async def run():
        async with Rig(journal, max_rate=10) as rig:
            remote = rig.connect()
            rig.put(*numbered(5), qos=0)
            await remote.until(1)
            for count in range(2, 6):
                assert len(remote.got) == count - 1
                rig.now += 0.1001
                await remote.until(count)
            assert remote.payloads == numbered(5)

    asyncio.run(run())


def test_back_pressure_bounds_memory(journal):
    """While the broker reads nothing, little is read ahead; then everything goes out."""

    async def run():
        async with Rig(journal) as rig:
            remote = rig.connect()
            rig.outgoing.pause_writing()
            rig.put(*numbered(6_000), qos=0)
            await rig.until(lambda: len(rig.outgoing._ready) >= 2000)
            await rig.until(lambda: rig.outgoing._reader._wakeup.is_awaited)
            assert len(rig.outgoing._ready) <= 2500
            assert not remote.got
            rig.outgoing.resume_writing()
            await remote.until(6_000)
            assert remote.payloads == numbered(6_000)

    asyncio.run(run())


def test_silent_broker(journal, monkeypatch):
    """A message that is never acknowledged ends the connection, and is sent again."""
    monkeypatch.setattr(outgoing, "ANSWER_WITHIN_S", 0.05)

    async def run():
        async with Rig(journal) as rig:
            remote = rig.connect()
            rig.put(b"a")
            await remote.until(1)
            rig.now += 1
            await rig.until(lambda: remote.lost)
            assert "not acknowledged" in remote.lost[0]

    asyncio.run(run())


def test_ignored_message(journal, monkeypatch, caplog):
    """A message that the broker ignores three times, while it acknowledges others, is left out."""
    monkeypatch.setattr(outgoing, "ANSWER_WITHIN_S", 0.05)

    async def run():
        async with Rig(journal) as rig:
            rig.put(b"ignored")
            for number in range(3):
                remote = rig.connect(session_present=True)
                rig.put(b"%d" % number)
                got = await remote.until(2)
                assert got[0].payload == b"ignored"
                remote.acknowledge(1)
                rig.now += 1
                await rig.until(lambda remote=remote: remote.lost)
                rig.outgoing.disconnected(by_broker=False)
            remote = rig.connect(session_present=True)
            await rig.until(lambda: rig.cursor == 4)
            assert not remote.got
            assert (rig.outgoing.undelivered.parked, rig.outgoing.messages_out) == (1, 3)

    asyncio.run(run())
    assert "on out/t" in caplog.text
    assert "never acknowledged" in caplog.text


def test_place_is_saved_often(journal):
    """Of many messages, few go out again after a kill: the place is saved without a wait."""

    async def run():
        async with Rig(journal) as rig:
            rig.put(*numbered(2000))
            remote = rig.connect()
            acknowledged = 0
            places = set()
            while acknowledged < 2000:
                await remote.until(acknowledged + 1)
                new = range(acknowledged, len(remote.got))
                acknowledged = len(remote.got)
                remote.acknowledge(*new)
                await rig.until(lambda: not rig.outgoing._soon)
                assert acknowledged - rig.cursor <= 600
                places.add(rig.cursor)
            assert len(places) >= 4

    asyncio.run(run())


def test_retention_passed_by(tmp_path, caplog):
    """What retention deleted while the broker, or the appliance, was away is counted and said."""
    journal = JournalRig(tmp_path / "j.db", max_bytes=200_000).start()

    async def run():
        async with Rig(journal) as rig:
            for _ in range(60):
                rig.put(bytes(20_000))
            await rig.until(lambda: journal.journal.removed_to > 0)
            remote = rig.connect()
            await rig.until(lambda: rig.outgoing.undelivered.missed > 0)
            await remote.until(1)
            assert Counter.BRIDGE_PUBLISHES_MISSED in rig.counts
            assert rig.outgoing.undelivered.missed_ns == 77
            assert "deleted" in rig.outgoing.undelivered.acknowledge()[0]
            rig.cursor = 3
            caplog.clear()
            rig.begin()
            assert rig.outgoing.undelivered.missed == journal.journal.stats().first_seq - 4

    try:
        asyncio.run(run())
    finally:
        journal.journal.close(10)
    assert "retention has deleted" in caplog.text


def test_a_failing_disk(journal, monkeypatch):
    """A read that fails is repeated."""
    failing = [sqlite3.OperationalError("disk I/O error")]
    read = journal.journal.read

    def once(*arguments):
        if failing:
            raise failing.pop()
        return read(*arguments)

    monkeypatch.setattr(outgoing_reader, "_WAIT_S", 0.02)

    async def run():
        async with Rig(journal) as rig:
            monkeypatch.setattr(journal.journal, "read", once)
            remote = rig.connect()
            rig.put(b"a")
            await remote.until(1)
            assert not failing

    asyncio.run(run())


def test_stop_holds_nothing_back(journal):
    """A bridge that is stopped leaves the journal free to retention."""

    async def run():
        async with Rig(journal) as rig:
            rig.connect()
            assert len(journal.journal._followers) == 1
        assert not journal.journal._followers

    asyncio.run(run())
