"""A client whose packets take long is slowed, then ended; a client that sends much is neither."""

from __future__ import annotations

import logging
import time

import pytest
from broker_rig import Rig, both, rig  # noqa: F401

from appliance.broker import lag
from appliance.broker.connection import Connection
from appliance.counters import Counter
from appliance.mqtt import packets

QUOTA_EXCEEDED = 0x97


@pytest.fixture
def slow_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a kind of packet whose work is not cut: 25 ms of the processor each."""
    original = Connection._handlers[packets.PINGREQ]

    def ping(connection: Connection, body: bytes) -> None:
        if connection.client_id == "greedy":
            end = time.thread_time() + 0.025
            while time.thread_time() < end:
                pass
        original(connection, body)

    monkeypatch.setitem(Connection._handlers, packets.PINGREQ, ping)


@both
@pytest.mark.usefixtures("slow_pings")
async def test_a_client_that_keeps_others_waiting(rig, version, monkeypatch, caplog):  # noqa: F811
    """It is slowed, then ended with a reason; the log names it, and others are not touched."""
    monkeypatch.setattr(lag, "MOST_S", 0.11)
    caplog.set_level(logging.WARNING)
    greedy = await rig.wire(version, client_id="greedy", username="anna")
    other = await rig.wire(version, client_id="other")
    await greedy.ping()  # it may have been the machine: from now on processor time is taken
    await other.ping()
    assert rig.counters[Counter.CLIENTS_SLOWED] == 0
    began = time.monotonic()
    await greedy.ping()
    await greedy.ping()
    assert time.monotonic() - began > 4 * 0.025, "the second one was taken at once"
    assert rig.counters[Counter.CLIENTS_SLOWED] >= 1
    greedy.send(b"\xc0\x00" * 10)
    last = await greedy.closed()
    if version == 5:
        assert (last.kind, last.body[0]) == (14, QUOTA_EXCEEDED)
    assert rig.counters[Counter.CONNECTIONS_ENDED_LAG] == 1
    lines = [each.getMessage() for each in caplog.records if "waiting" in each.getMessage()]
    assert all("greedy" in line and "anna" in line and "127.0.0.1:" in line for line in lines)
    assert "is slowed" in lines[0]
    await other.ping()


async def test_a_busy_publisher_is_neither_slowed_nor_ended(rig):  # noqa: F811
    """It sends as fast as the broker takes it, also when each of its steps is looked at."""
    wire = await rig.wire(client_id="busy")
    session = rig.broker.sessions.get("busy")
    session.connection._lag = lag.Lag(rig.broker._collections)
    block = b"".join(wire.publish_packet("t", b"x" * 64, 1, id=n + 1) for n in range(5000))
    for _ in range(10):
        wire.send(block)
        for _ in range(5000):
            await wire.expect(4)
    assert rig.counters[Counter.CLIENTS_SLOWED] == 0
    assert rig.counters[Counter.CONNECTIONS_ENDED_LAG] == 0
