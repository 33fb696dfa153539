"""Acknowledged means on disk: crashes, stops, full disks and what a restart finds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
from broker_rig import Closed, Rig, Wire, both, hang_up, packet, rig, states  # noqa: F401

from appliance.counters import Counter
from appliance.broker import sessions
from appliance.journal.journal import Journal

BROKER = Path(__file__).parents[2] / "broker_rig.py"


@contextlib.asynccontextmanager
async def child(folder: Path, sync: str = "always", will_grace: float = 30.0):
    """The broker in a process of its own: (process, port)."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(BROKER), str(folder), sync, str(will_grace)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        port = int(await process.stdout.readline())
        yield process, port
    finally:
        await hang_up()
        if process.returncode is None:
            process.kill()
        await process.wait()


class Publisher:
    """Publishes numbered messages as fast as its window allows, and does what QoS 2 asks for."""

    def __init__(self, qos: int, version: int) -> None:
        self.qos = qos
        self.version = version
        self.next = 1
        self.open: dict[int, int] = {}
        """Packet id to number: sent, not acknowledged in any form."""
        self.releasing: dict[int, int] = {}
        self.acknowledged: list[int] = []

    async def run(self, port: int, total: int, *, stop_at: int | None = None) -> None:
        """Until all of it is acknowledged, ``stop_at`` are, or the broker is gone."""
        wire = await Wire.open(port, self.version)
        await wire.connect("publisher", clean=False)
        for packet_id in self.releasing:
            wire.ack(6, packet_id)
        for packet_id, number in self.open.items():
            self._send(wire, packet_id, number, dup=True)
        while len(self.acknowledged) < total:
            if stop_at is not None and len(self.acknowledged) >= stop_at:
                return
            while self.next <= total and len(self.open) + len(self.releasing) < 200:
                packet_id = self.next % 60000 + 1
                self.open[packet_id] = self.next
                self._send(wire, packet_id, self.next)
                self.next += 1
            answer = await wire.receive()
            if answer.kind == 5:
                self.releasing[answer.id] = self.open.pop(answer.id)
                wire.ack(6, answer.id)
            else:
                done = self.open if answer.kind == 4 else self.releasing
                self.acknowledged.append(done.pop(answer.id))

    def _send(self, wire: Wire, packet_id: int, number: int, *, dup: bool = False) -> None:
        wire.publish("burst", b"%d" % number, self.qos, id=packet_id, dup=dup)


async def journaled(folder: Path) -> list[int]:
    async with Rig(folder) as rig:
        return [int(m.payload) for m in rig.journaled("burst")]


@pytest.mark.parametrize(
    ("version", "qos", "at"),
    [
        (5, 2, 700),
        pytest.param(4, 1, 700, marks=pytest.mark.campaign),
        pytest.param(4, 2, 1, marks=pytest.mark.campaign),
    ],
)
async def test_kill_in_a_burst(tmp_path, version, qos, at):
    """Killed at any moment, nothing acknowledged is missing, and QoS 2 is there exactly once."""
    folder = tmp_path / "data"
    publisher = Publisher(qos, version)
    async with child(folder, "os" if at == 1 else "always") as (process, port):
        running = asyncio.create_task(publisher.run(port, 2000))
        while len(publisher.acknowledged) < at and not running.done():
            await asyncio.sleep(0)
        process.kill()
        with contextlib.suppress(Closed):
            await running
    found = await journaled(folder)
    taken = set(publisher.acknowledged) | set(publisher.releasing.values())
    assert taken <= set(found)
    assert found == sorted(found)
    async with child(folder) as (process, port):
        await publisher.run(port, 2000)
        process.kill()
    found = await journaled(folder)
    assert set(found) == set(range(1, 2001))
    if qos == 2:
        assert len(found) == 2000


@pytest.mark.posix("there is no SIGTERM to catch")
@pytest.mark.parametrize("qos", [2])
async def test_terminate_in_a_burst(tmp_path, qos):
    """Stopped in a burst, the appliance ends in order and nothing acknowledged is missing."""
    folder = tmp_path / "data"
    publisher = Publisher(qos, 4)
    async with child(folder) as (process, port):
        running = asyncio.create_task(publisher.run(port, 60000))
        while len(publisher.acknowledged) < 300 and not running.done():
            await asyncio.sleep(0)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(Closed):
            await running
        assert await process.wait() == 0
    found = await journaled(folder)
    taken = set(publisher.acknowledged) | set(publisher.releasing.values())
    assert taken <= set(found)
    assert found == sorted(set(found))


@both
@pytest.mark.parametrize("keepalive", [0, 60])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_disconnect_behind_the_last_publish(rig, version, keepalive, qos):
    """A client may say DISCONNECT straight behind its last PUBLISH: all of it has arrived."""
    reader = await rig.wire(version, client_id="reader")
    await reader.subscribe(("burst", qos))
    wire = await rig.socket(version)
    data = wire.connect_packet("brief", keepalive=keepalive)
    data += b"".join(
        wire.publish_packet("burst", b"%d" % n, qos, id=n if qos else 0) for n in range(1, 1001)
    )
    wire.send(data + b"\xe0\0")
    await wire.closed()
    await rig.settled()
    assert [int(m.payload) for m in rig.journaled("burst")] == list(range(1, 1001))
    assert [int(m.payload) for m in await reader.messages(1000)] == list(range(1, 1001))


@pytest.mark.parametrize("version", [5])
async def test_delivery_at_qos_2_over_a_crash(tmp_path, version):
    """A persistent subscriber gets each QoS 2 message exactly once, whenever the broker is killed."""
    folder = tmp_path / "data"
    total = 400
    got: list[int] = []
    held: set[int] = set()

    async def read(port: int, enough: int) -> None:
        wire = await Wire.open(port, version)
        await wire.connect("reader", clean=False)
        await wire.subscribe(("burst", 2)) if not got else None
        ready.set()
        while len(got) < enough or (enough == total and held):
            answer = await wire.receive()
            if answer.kind == 3:
                if answer.id not in held:
                    held.add(answer.id)
                    got.append(int(answer.payload))
                wire.ack(5, answer.id)
            elif answer.kind == 6:
                held.discard(answer.id)
                wire.ack(7, answer.id)

    publisher = Publisher(2, version)
    ready = asyncio.Event()
    for stop_at in (1, 170, total):
        async with child(folder, "os") as (process, port):
            ready.clear()
            reading = asyncio.create_task(read(port, stop_at))
            await ready.wait()
            if stop_at == 1:
                await publisher.run(port, total)
            await reading
            process.kill()
    assert got == list(range(1, total + 1))


@both
@states(
    "MQTT-3.1.2-4",
    "MQTT-3.3.1-5",
    "MQTT-4.1.0-1",
    "MQTT-4.1.0-2",
    "MQTT-4.4.0-1",
    "MQTT5-3.1.2-23",
    "MQTT5-4.4.0-1",
)
async def test_restart(tmp_path, version):
    """Sessions, queued messages, open QoS 2 exchanges and retained messages outlive a restart."""
    folder = tmp_path / "data"
    async with Rig(folder) as rig:
        reader = await rig.wire(version, client_id="reader", clean=False)
        await reader.subscribe(("q/#", 2), ("gone", 1))
        await reader.unsubscribe("gone")
        reader.disconnect()
        await reader.closed()
        writer = await rig.wire(version, client_id="writer", clean=False)
        for count in range(50):
            await writer.publish_acked(f"q/{count}", b"%d" % count, 1 + count % 2)
        await writer.publish_acked("r", b"\xff\0kept", 1, retain=True)
        await writer.publish_acked("s", b"removed", 1, retain=True)
        await writer.publish_acked("s", b"", 1, retain=True)
        await writer.publish_acked("gone", b"x", 1)
        writer.publish("half", b"once", 2, id=9)
        await writer.expect(5)
        brief = await rig.wire(version, client_id="brief")
        await brief.subscribe(("q/#", 2))
    async with Rig(folder) as rig:
        reader = await rig.socket(version)
        assert (await reader.connect("reader", clean=False)).body[0] == 1
        found = await reader.messages(50)
        for qos in (1, 2):
            numbers = [int(m.payload) for m in found if m.qos == qos]
            assert numbers == list(range(qos - 1, 50, 2))
        await rig.until(lambda: rig.broker.sessions.get("reader").outbox.queued == 0)
        await reader.subscribe("r", "s")
        kept = await reader.message()
        assert (kept.topic, kept.payload, kept.retain) == ("r", b"\xff\0kept", True)
        writer = await rig.wire(version, client_id="writer", clean=False)
        writer.publish("half", b"once", 2, id=9, dup=True)
        await writer.expect(5)
        await rig.settled()
        assert len(rig.journaled("half")) == 1
        brief = await rig.socket(version)
        assert (await brief.connect("brief", clean=False)).body[0] == 0


@pytest.mark.parametrize("version", [4])
async def test_subscribing_again_loses_nothing_in_a_restart(tmp_path, version):
    """What waits for a client that subscribes again, as most do at every connect, stays kept."""
    folder = tmp_path / "data"
    async with Rig(folder) as rig:
        reader = await rig.wire(version, client_id="reader", clean=False)
        await reader.subscribe(("waits", 1), ("upgraded", 0))
        reader.disconnect()
        await reader.closed()
        writer = await rig.wire(version, client_id="writer")
        for topic in ("waits", "upgraded", "waits"):
            await writer.publish_acked(topic, b"x", 1)
        reader = await rig.wire(version, client_id="reader", clean=False)
        reader.send(reader.subscribe_packet(("waits", 1), ("upgraded", 1)))
        while (await reader.receive()).kind != 9:
            pass
    async with Rig(folder) as rig:
        reader = await rig.wire(version, client_id="reader", clean=False)
        assert [m.topic for m in await reader.messages(2)] == ["waits", "waits"]
        await reader.nothing_more()


@both
async def test_ended_session_stays_ended(tmp_path, version):
    """A session that its client ended does not come back with a restart."""
    folder = tmp_path / "data"
    async with Rig(folder) as rig:
        wire = await rig.wire(version, client_id="c", clean=False)
        await wire.subscribe(("t", 1))
        if version == 5:
            wire.send(packet(0xE0, b"\0\x05\x11\0\0\0\0"))
        else:
            wire.abort()
            wire = await rig.wire(version, client_id="c", clean=True)
            wire.disconnect()
        await rig.until(lambda: not rig.broker.connections)
    async with Rig(folder) as rig:
        assert len(rig.broker.sessions) == 0
        wire = await rig.socket(version)
        assert (await wire.connect("c", clean=False)).body[0] == 0


@pytest.mark.parametrize("version", [4])
async def test_suback_is_durable(tmp_path, version):
    """A persistent subscription that was acknowledged is there after a kill."""
    folder = tmp_path / "data"
    async with child(folder) as (process, port):
        wire = await Wire.open(port, version)
        await wire.connect("c", clean=False)
        await wire.subscribe(("t", 1))
        process.kill()
    async with Rig(folder) as rig:
        assert [o.topic_filter for o in rig.subscriptions.of("c")] == ["t"]


@pytest.mark.campaign
@states("MQTT5-3.1.2-8", "MQTT5-3.1.3-9")
async def test_delayed_wills_outlive_a_kill(tmp_path):
    """Delayed wills of clients that were connected when the appliance was killed are published
    after the restart, when their delay is over, but for those of clients that are back by then."""
    folder = tmp_path / "data"

    async def come(port: int, name: str, delay: int) -> Wire:
        wire = await Wire.open(port, 5)
        await wire.connect(name, clean=False, will=(f"w/{name}", b"x", 1, False), will_delay=delay)
        return wire

    async with child(folder) as (process, port):
        reader = await Wire.open(port, 5)
        await reader.connect("reader", clean=False)
        await reader.subscribe(("w/#", 1))
        await come(port, "back", 1)
        polite = await come(port, "polite", 1)
        polite.disconnect()
        await polite.closed()
        gone = await come(port, "gone", 2)
        await gone.publish_acked("t", b"x", 1)
        process.kill()
    async with child(folder, will_grace=0.5) as (process, port):
        await come(port, "back", 1)
        reader = await Wire.open(port, 5)
        assert (await reader.connect("reader", clean=False)).body[0] == 1
        [will] = await reader.messages(1)
        assert will.topic == "w/gone"
        await reader.nothing_more()


@states("MQTT5-3.1.2-8", "MQTT5-3.1.3-9", "MQTT5-3.1.2-10")
async def test_delayed_wills_outlive_an_ordered_stop(tmp_path):
    """Over an ordered stop the delay of a will and the expiry of its session go on; a session that
    has expired by the next start has its will published then."""
    folder = tmp_path / "data"

    async def come(rig: Rig, name: str, expiry: int) -> Wire:
        will = {"will": (f"w/{name}", b"x", 1, False), "will_delay": 100}
        return await rig.wire(5, client_id=name, clean=False, expiry=expiry, **will)

    async with Rig(folder) as rig:
        for name, expiry in (("left", 1000), ("returns", 1000), ("brief", 50)):
            (await come(rig, name, expiry)).abort()
        await rig.until(lambda: not rig.broker.connections)
        await come(rig, "stays", 1000)
    rig = Rig(folder)
    rig.now_offset_ns = 60 * 10**9
    async with rig:
        await rig.settled()
        assert [m.topic for m in rig.journaled() if m.topic[0] == "w"] == ["w/brief"]
        await come(rig, "returns", 1000)
        rig.now_offset_ns += 45 * 10**9
        await rig.broker._sweep_once()
        await rig.settled()
        wills = {m.topic for m in rig.journaled() if m.topic[0] == "w"}
        assert wills == {"w/brief", "w/left", "w/stays"}
    async with Rig(folder) as rig:
        await rig.settled()
        assert len([m for m in rig.journaled() if m.topic[0] == "w"]) == 3


async def test_a_restart_need_not_look_through_the_journal(tmp_path, monkeypatch):
    """What waits for an absent client is found after a crash without reading what came since it
    began to wait, complete and once."""
    monkeypatch.setattr(sessions, "_LONGEST_SCAN", 100)
    async with Rig(tmp_path / "data") as rig:
        reader = await rig.wire(5, client_id="reader", clean=False)
        await reader.subscribe(("q/#", 2))
        reader.abort()
        await rig.until(lambda: not rig.broker.connections)
        writer = await rig.wire(5)
        for n in range(3):
            await writer.publish_acked("q/a", b"%d" % n, 1 + n % 2)
        for _ in range(300):
            await writer.publish_acked("t", b"x", 1)
        await rig.settled()
        rig.broker.sessions.save_places()
        await writer.publish_acked("q/b", b"3", 1)
        await rig.settled()
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        with contextlib.closing(sqlite3.connect(rig.folder / "journal.db")) as source:
            with contextlib.closing(sqlite3.connect(crashed / "journal.db")) as copy:
                source.backup(copy)
    looked_at: list[int] = []
    read = Journal.read

    def watched(self, *arguments):
        found = read(self, *arguments)
        looked_at.extend(message.seq for message in found)
        return found

    monkeypatch.setattr(Journal, "read", watched)
    async with Rig(crashed) as rig:
        # The queue is noted again once so many have come: a slow machine may have done so before.
        assert len(looked_at) <= 100 + 4
        reader = await rig.socket(5)
        await reader.connect("reader", clean=False)
        # At QoS 2 a note is written before, so that a message at QoS 1 may overtake.
        assert sorted((m.payload, m.qos) for m in await reader.messages(4)) == [
            (b"0", 1),
            (b"1", 2),
            (b"2", 1),
            (b"3", 1),
        ]
        await reader.nothing_more()


# --- the disk ---------------------------------------------------------------------------------


@both
async def test_locked_database(tmp_path, version):
    """While the journal can't be written nothing is acknowledged; then all of it is, unasked."""
    async with Rig(tmp_path / "data", max_pending=65536) as rig:
        wire = await rig.wire(version, keepalive=1)
        await wire.publish_acked("t", b"before", 1)
        lock = sqlite3.connect(rig.folder / "journal.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        wire.publish("t", b"1", 1, id=1)
        wire.publish("t", b"2", 2, id=2)
        await wire.ping()
        await rig.until(lambda: rig.journal.stats().health.level == "bad")
        wire.publish("t", b"x" * 100_000, 1, id=3)
        await rig.until(lambda: rig.counters[Counter.PUBLISHERS_SLOWED])
        wire.publish("t", b"4", 1, id=4)
        await wire.nothing_more_until(lambda: len(rig.journaled()) == 1)
        lock.execute("ROLLBACK")
        lock.close()
        answers = [await wire.receive() for _ in range(4)]
        assert [(a.kind, a.id) for a in answers] == [(4, 1), (5, 2), (4, 3), (4, 4)]
        assert len(rig.journaled()) == 5
        await rig.until(lambda: rig.journal.stats().health.level != "bad")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit another process's files")
async def test_full_disk(tmp_path):
    """On a full disk acknowledgements stop and clients stay; with room again they come."""
    import resource

    folder = tmp_path / "data"
    async with child(folder) as (process, port):
        wire = await Wire.open(port)
        await wire.connect("c")
        await wire.publish_acked("burst", b"0", 1)
        full = max(each.stat().st_size for each in folder.iterdir())
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, hard))
        for count in range(1, 51):
            wire.publish("burst", b"%d" % count + b" " * 20_000, 1, id=count)
        acked = []
        while True:
            # What fits before the disk is full may be acknowledged; a ping is answered always.
            wire.send(b"\xc0\0")
            answer = await wire.receive()
            while answer.kind == 4:
                acked.append(answer.id)
                answer = await wire.receive()
            break
        assert len(acked) < 50
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        while len(acked) < 50:
            acked.append((await wire.expect(4)).id)
        assert acked == list(range(1, 51))
        process.kill()
    assert await journaled(folder) == list(range(51))


async def test_stop_while_the_disk_refuses(tmp_path):
    """The appliance can be stopped while the journal can't be written, without false promises."""
    async with Rig(tmp_path / "data") as rig:
        wire = await rig.wire()
        lock = sqlite3.connect(rig.folder / "journal.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        wire.publish("t", b"1", 1)
        rig.broker.stop_s = 0.1
        await rig.broker.stop()
        assert await wire.closed() is None
        lock.execute("ROLLBACK")
        lock.close()
        await rig.broker.host.start()


def wills_in(rig: Rig) -> list[str]:
    """The topics of the wills that are in the journal."""
    return sorted(m.topic for m in rig.journaled() if m.topic.startswith("w/"))


async def with_will(port: int, version: int, name: str, **options) -> Wire:
    wire = await Wire.open(port, version)
    await wire.connect(name, will=(f"w/{name}", b"x", 1, True), **options)
    return wire


@both
@states("MQTT-3.1.2-8", "MQTT5-3.1.2-8")
@pytest.mark.parametrize(
    "ending",
    [
        "kill",
        pytest.param("stop", marks=pytest.mark.posix("SIGTERM does not ask for an ordered end")),
    ],
)
async def test_wills_of_connected_clients_outlive_the_appliance(tmp_path, version, ending):
    """The wills of the clients that were connected at a kill or an ordered stop are published after
    the next start, once each, unless the client comes back within the grace time. A client that
    said goodbye before has none."""
    folder = tmp_path / "data"
    async with child(folder) as (process, port):
        for name, clean in (
            ("clean", True),
            ("lasting", False),
            ("back", True),
            ("resumes", False),
        ):
            await with_will(port, version, name, clean=clean)
        polite = await with_will(port, version, "polite", clean=True)
        polite.disconnect()
        await polite.closed()
        # What stands before an acknowledged message in the journal's order is on disk.
        last = await Wire.open(port, version)
        await last.connect("last")
        await last.publish_acked("t")
        if ending == "kill":
            process.kill()
        else:
            process.terminate()
            if version == 5:
                assert (await last.expect(14)).body[0] == 0x8B
        await process.wait()
    rig = Rig(folder, will_grace=30)
    async with rig:
        returned = [
            await with_will(rig.port, version, "back", clean=True),
            await with_will(rig.port, version, "resumes", clean=False),
        ]
        rig.now_offset_ns = 29 * 10**9
        await rig.broker._sweep_once()
        await rig.settled()
        assert wills_in(rig) == []
        rig.now_offset_ns = 31 * 10**9
        await rig.broker._sweep_once()
        await rig.settled()
        assert wills_in(rig) == ["w/clean", "w/lasting"]
        assert rig.retained.get("w/clean") is not None
        for wire in returned:
            wire.disconnect()
            await wire.closed()
    async with Rig(folder, will_grace=0) as rig:
        await rig.broker._sweep_once()
        await rig.settled()
        assert wills_in(rig) == ["w/clean", "w/lasting"], "none is published again"


async def test_a_will_that_was_published_before_a_crash_is_not_published_again(tmp_path):
    """A crash between the commit of a will's message and that of its removal repeats nothing, and a
    crash before the message loses nothing, also if its number is another message's later."""
    folder = tmp_path / "data"
    for is_in_journal in (True, False):
        async with Rig(folder) as rig:
            await with_will(rig.port, 4, "c")
            forgotten: list[str] = []
            rig.broker.sessions.store.forget_will = forgotten.append
            if not is_in_journal:
                rig.broker.binding._door = _ShutDoor(rig.door)
            rig.broker.binding.wills.write()
            rig.broker.connections.all()[0].abort()
            await rig.until(lambda: forgotten)
            await rig.settled()
            if not is_in_journal:
                before = len(wills_in(rig))
        if not is_in_journal:
            # In the next life the number goes to another message before another crash.
            async with Rig(folder) as rig:
                for _ in range(3):
                    rig.door.publish("other", b"x")
        async with Rig(folder, will_grace=0) as rig:
            await rig.broker._sweep_once()
            await rig.settled()
            assert len(wills_in(rig)) == (1 if is_in_journal else before + 1)


class _ShutDoor:
    """A door that announces a message and never lets it in, as a crash in between does."""

    def __init__(self, door) -> None:
        self._door = door

    def publish(self, *_arguments, announce, **_more) -> None:
        announce(self._door.newest_seq() + 1)


async def test_a_will_that_is_withdrawn_at_once_is_not_written(tmp_path):
    """Clients that come with a will and leave at once write nothing for it."""
    async with Rig(tmp_path / "data") as rig:
        written: list[str] = []
        rig.broker.sessions.store.keep_will = lambda kept: written.append(kept.client_id)
        for number in range(20):
            wire = await rig.socket(4)
            connect = wire.connect_packet(f"brief-{number}", will=("w/brief", b"x", 1, False))
            wire.send(connect + b"\xe0\0")
            await wire.closed()
        assert written == []


@pytest.mark.parametrize("version", [4, 5])
async def test_after_a_restart_a_message_comes_again_as_itself(tmp_path, version):
    """What may have been sent before has DUP and the same packet id, so a client that has it can
    tell; what comes after the restart has neither."""
    async with Rig(tmp_path) as rig:
        away = await rig.wire(version, client_id="away", clean=False)
        await away.subscribe(("t", 1))
        rig.door.publish("other", b"0")
        for payload in (b"1", b"2", b"2"):
            rig.door.publish("t", payload)
        before = [await away.message() for _ in range(3)]
        away.ack(4, before[0].id)
        await away.ping()
    async with Rig(tmp_path) as rig:
        again = await rig.wire(version, client_id="away", clean=False)
        after = [await again.message() for _ in range(2)]
        rig.door.publish("t", b"3")
        news = await again.message()
    assert [(one.id, one.payload, one.dup) for one in after] == [
        (one.id, one.payload, True) for one in before[1:]
    ]
    assert (news.payload, news.dup) == (b"3", False)
