"""The way out under any order of events: each message arrives or is said to be left out.

Connections end, sessions are lost, acknowledgements come in any order or not at all, quotas refuse,
and the appliance is killed: it goes on from what was saved.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from journal_rig import JournalRig

from appliance.bridge import outgoing
from appliance.bridge.outgoing import Outgoing
from appliance.config.tables import BridgeConfig, BridgePublishConfig
from appliance.counters import Counter
from appliance.model import Message
from appliance.mqtt.client_packets import ConnAck
from appliance.mqtt.received import read_publishes

DEADLINE_S = 30.0
CONFIG = BridgeConfig(
    name="b", host="h", version="5", publish=(BridgePublishConfig(topic="out/#"),)
)


class Sending(RuleBasedStateMachine):
    """The loop is run in each step until what goes out stands still."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.journal = JournalRig(Path(self.folder.name) / "journal.db").start()
        self.loop = asyncio.new_event_loop()
        self.wanted = []
        self.arrived = []
        """What a connection got, in order."""
        self.accepted = set()
        self.refused = set()
        self.under_way = []
        self.cursor = None
        self.counts = []
        self.lost = []
        self.now = 0.0
        self.is_connected = False
        self.outgoing = None
        self.run(self.begin())

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def begin(self):
        self.outgoing = Outgoing(
            CONFIG,
            cursor=self.cursor,
            installation="mine",
            journal=self.journal.journal,
            save_cursor=self.save,
            waited_ns=lambda _message: 0,
            clock_ns=lambda: 0,
            count=self.counts.append,
            loop=asyncio.get_running_loop(),
            clock=lambda: self.now,
        )

    def save(self, seq, then):
        assert self.cursor is None or seq >= self.cursor
        missing = [
            payload
            for number, payload in self.wanted
            if number <= seq and payload not in self.accepted | self.refused
        ]
        self.lost += missing  # an error within a callback would only be logged
        self.cursor = seq
        then()

    def write(self, data):
        found, end = read_publishes(data, 0, 10**6, 5, 10**6)
        assert end == len(data)
        for each in found:
            assert each.packet_id not in {one.packet_id for one in self.under_way}
            assert len(self.under_way) < self.window
            self.under_way.append(each)
            self.arrived[-1].append(each.payload)

    def lose(self, _reason):
        raise AssertionError("the clock stands still")

    async def still(self):
        """Wait until nothing more goes out by itself."""
        sending = self.outgoing
        async with asyncio.timeout(DEADLINE_S):
            while self.is_connected and (
                sending._ready_to < self.journal.journal.last_seq
                or sending._soon is not None
                or "quota" in sending._timers
                or self.can_send()
            ):
                sending.hurry()
                await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert not self.lost

    def can_send(self):
        window = self.outgoing._window
        return bool(self.outgoing._ready) and len(self.under_way) < (
            1 if window.is_careful else self.window
        )

    @rule(count=st.integers(1, 5), other=st.booleans())
    def put(self, count, other):
        for _ in range(count):
            seq = self.journal.journal.next_seq()
            payload = b"%d" % seq
            topic = "not" if other else "out/t"
            self.journal.journal.append(Message(seq, seq, topic, payload, 1), None)
            if not other:
                self.wanted.append((seq, payload))
        self.journal.settle()
        self.run(self.still())

    @precondition(lambda self: not self.is_connected)
    @rule(window=st.integers(1, 4), present=st.booleans())
    def connect(self, window, present):
        async def begin():
            self.window = window
            self.is_connected = True
            self.arrived.append([])
            answer = ConnAck(reason=0, receive_maximum=window, session_present=present)
            self.outgoing.connected(self, answer)
            await self.still()

        self.run(begin())

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), reason=st.sampled_from([0, 0, 0, 0x10, 0x87, 0x97]))
    def acknowledge(self, data, reason):
        async def take():
            each = data.draw(st.sampled_from(self.under_way))
            self.under_way.remove(each)
            parked = self.outgoing.undelivered.parked
            if reason < 0x80:
                self.accepted.add(each.payload)
            elif reason == 0x87:
                self.refused.add(each.payload)
            else:
                self.maybe = each.payload
            self.outgoing.acknowledged(each.packet_id, reason)
            if reason == 0x97 and self.outgoing.undelivered.parked > parked:
                self.refused.add(each.payload)
            await self.still()

        self.run(take())

    @precondition(lambda self: self.is_connected)
    @rule(by_broker=st.booleans())
    def disconnect(self, by_broker):
        parked = self.outgoing.undelivered.parked
        self.under_way, before = [], self.under_way
        self.is_connected = False

        async def end():
            self.outgoing.disconnected(by_broker=by_broker)

        self.run(end())
        if self.outgoing.undelivered.parked > parked:
            assert len(before) == 1
            self.refused.add(before[0].payload)

    @rule(killed=st.booleans())
    def restart(self, killed):
        cursor = self.cursor
        self.is_connected = False
        self.under_way = []
        self.run(self.outgoing.stop())
        if killed:
            self.cursor = cursor
        self.run(self.begin())

    def teardown(self):
        try:
            self.check()
        finally:
            self.run(self.outgoing.stop())
            self.loop.close()
            self.journal.journal.close(10)
            self.folder.cleanup()

    def check(self):
        if not self.is_connected:
            self.connect(window=2, present=True)
        while self.under_way:
            each = self.under_way.pop(0)
            self.accepted.add(each.payload)

            async def take(each=each):
                self.outgoing.acknowledged(each.packet_id)
                await self.still()

            self.run(take())
        wanted = {payload for _, payload in self.wanted}
        assert self.accepted | self.refused == wanted
        assert self.counts.count(Counter.BRIDGE_PUBLISHES_REFUSED) >= len(
            self.refused - self.accepted
        )


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(outgoing, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(outgoing, "_SAVE_EVERY_S", 0.0)


TestSending = Sending.TestCase
TestSending.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
