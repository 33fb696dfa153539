"""Each refusal of another broker is named: what the bridge says, and what it does about it."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from bridge_rig import CONNACK, BridgeRig, ScriptedRemote, bridge, sends
from broker_rig import Rig, packet, text

from appliance.bridge import connection, keepalive, outgoing, subscriptions
from appliance.bridge.backoff import Backoff, Pace
from appliance.bridge.causes import Kind
from appliance.bridge.takeover import Takeovers
from appliance.config.tables import BridgeSubscribeConfig
from appliance.counters import Counter
from appliance.log.lines import RepeatFilter
from appliance.secret import Secret

SECRET = "correct horse battery"  # noqa: S105 - of nobody
CONNACK_5 = b"\x20\x03\x00\x00\x00"


def refuse(code: int, version: int, reason: str = ""):
    """A broker that answers CONNECT with a reason code."""

    async def script(peer, _number):
        await peer.expect(1)
        properties = b"" if not reason else b"\x1f" + text(reason)
        listed = bytes((len(properties),)) + properties if version == 5 else b""
        peer.send_packet(0x20, bytes((0, code)) + listed)
        peer.close()

    return script


def disconnect(code: int, reason: str = ""):
    """A broker that accepts, and then says goodbye with a reason code of MQTT 5."""

    async def script(peer, _number):
        await peer.accept(connack=CONNACK_5, filters=1)
        properties = b"" if not reason else b"\x1f" + text(reason)
        peer.send_packet(0xE0, bytes((code, len(properties))) + properties)
        peer.close()

    return script


def answer(data: bytes):
    """Something that answers CONNECT with bytes of its own."""

    async def script(peer, _number):
        await peer.expect(1)
        peer.send(data)
        await asyncio.Event().wait()

    return script


REFUSALS = {
    "3.1.1 version": (refuse(1, 4), "3.1.1", "version of MQTT"),
    "3.1.1 client id": (refuse(2, 4), "3.1.1", "client_id"),
    "3.1.1 not available": (refuse(3, 4), "3.1.1", "not available"),
    "3.1.1 password": (refuse(4, 4), "3.1.1", "wrong password or user name"),
    "3.1.1 not authorised": (refuse(5, 4), "3.1.1", "wrong password or user name"),
    "3.1.1 unknown": (refuse(99, 4), "3.1.1", "refused"),
    "5 version": (refuse(0x84, 5), "5", "version of MQTT"),
    "5 by a broker of 3.1.1": (refuse(1, 4), "5", "version of MQTT"),
    "5 password": (refuse(0x86, 5), "5", "wrong password or user name"),
    "5 not authorised": (refuse(0x87, 5), "5", "not authorised"),
    "5 banned": (refuse(0x8A, 5), "5", "banned"),
    "5 quota": (refuse(0x97, 5, "only 5 clients"), "5", "only 5 clients"),
    "5 unknown": (refuse(0xFE, 5), "5", "0xfe"),
    "5 taken over": (disconnect(0x8E), "5", "another client uses this client id"),
    "5 shutting down": (disconnect(0x8B), "5", "shutting down"),
    "5 quota used up": (disconnect(0x97, "100 messages"), "5", "100 messages"),
    "5 server moved": (disconnect(0x9D), "5", "moved to another server"),
    "5 plain goodbye": (disconnect(0), "5", "the broker ended the connection"),
    "not MQTT": (answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "3.1.1", "breaks the protocol"),
    "another packet": (answer(b"\xd0\x00"), "3.1.1", "breaks the protocol"),
    "a huge packet": (answer(b"\x20\xff\xff\xff\x7f"), "3.1.1", "breaks the protocol"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_refused(tmp_path, name):
    """A broker that refuses or ends the connection is quoted, in both versions."""
    script, version, said = REFUSALS[name]
    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a", version=version)) as rig:
            state = await rig.failed(said)
            assert state.last_error_ns is not None
            # It is tried again.
            await rig.until(lambda: remote.connections >= 2)


async def test_secret_in_a_reason(tmp_path):
    """A broker that repeats the password does not bring it into the log or the UI."""
    script = refuse(0x87, 5, f"no user with password {SECRET}\x1b[31m")
    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, "a", version="5", username="plant", password=Secret(SECRET))
        async with BridgeRig(tmp_path, config) as rig:
            state = await rig.failed("no user with password")
            assert SECRET not in repr(state)
            assert "\x1b" not in state.last_error


async def test_nothing_listens(tmp_path):
    """A closed port is told from a silent one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with BridgeRig(tmp_path, bridge(port, "a")) as rig:
            state = await rig.failed("nothing listens there")
            assert state.health.level == "warn"
            assert rig.counters[Counter.BRIDGE_CONNECTIONS_FAILED] >= 1


async def test_name_not_found(tmp_path):
    """A host name that does not exist is called that."""
    async with BridgeRig(tmp_path, bridge(1883, "a", host="nowhere.invalid")) as rig:
        await rig.failed("the host name can't be resolved")


async def test_no_answer_to_connect(tmp_path):
    """A broker that accepts and says nothing is given up after connect_timeout."""

    async def script(peer, _number):
        await asyncio.Event().wait()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a", connect_timeout=0.2)) as rig:
            await rig.failed("no answer in time")


async def test_closed_before_connack(tmp_path):
    """A connection that is closed instead of answered is retried, as a cluster needs it."""

    async def script(peer, number):
        await peer.expect(1)
        if number < 3:
            peer.close()
            return
        peer.send(b"\x20\x02\x00\x00")
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port)) as rig:
            state = await rig.failed("closed the connection before its answer")
            await rig.until(lambda: rig.state().connected)
            assert "elects a leader" in state.last_error


async def test_no_answer_to_pings(tmp_path, monkeypatch):
    """A connection whose broker falls silent is given up and built again."""

    async def script(peer, _number):
        await peer.accept(filters=1)
        await asyncio.Event().wait()

    async with ScriptedRemote(script) as remote:
        monkeypatch.setattr(keepalive, "_LEAST_ANSWER_S", 0.1)
        async with BridgeRig(tmp_path, bridge(remote.port, "a", keepalive=1)) as rig:
            await rig.connected()
            await rig.failed("it does not answer any longer")
            await rig.until(lambda: remote.connections >= 2)
            assert rig.counters[Counter.BRIDGE_CONNECTIONS_LOST] >= 1


async def test_broker_that_does_not_read(tmp_path, monkeypatch):
    """A broker that leaves unread what is sent is given up, and the rest goes by the next one."""
    monkeypatch.setattr(connection, "_LEAST_BLOCKED_S", 0.2)
    monkeypatch.setattr(outgoing, "_BYTES_UNDER_WAY", 2**25)

    async def script(peer, number):
        await peer.accept()
        if number == 0:
            mine = peer.writer.get_extra_info("socket")
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.Event().wait()
        while True:
            kind, body = await peer.read()
            if kind == 12:
                peer.send(b"\xd0\x00")
            if kind == 3:
                at = 2 + int.from_bytes(body[:2], "big")
                peer.send_packet(0x40, body[at : at + 2])

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, publish=sends("big"), keepalive=1, max_packet_size=2**20)
        async with BridgeRig(tmp_path, config) as rig:
            await rig.until(lambda: rig.state().connected)
            wire = await rig.wire()
            for _ in range(16):
                wire.send(wire.publish_packet("big", b"x" * 900_000, 1))
                await wire.expect(4)
            await rig.failed("it does not read any longer")
            await rig.until(lambda: rig.state().messages_out == 16)


async def test_filter_refused_by_code(tmp_path):
    """A filter that SUBACK refuses is named with the reason; the others bring their messages."""

    async def script(peer, _number):
        await peer.expect(1)
        peer.send(CONNACK_5)
        for code in (0x87, 1):
            body = await peer.expect(8)
            peer.send_packet(0x90, body[:2] + b"\0" + bytes((code,)))
        peer.publish("b", properties=b"")
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a", "b", version="5")) as rig:
            await rig.came(1, "b")
            state = rig.state()
            assert "not authorised" in state.subscriptions[0].problem
            assert [each.granted for each in state.subscriptions] == [None, 1]
            assert state.connected
            assert rig.counters[Counter.BRIDGE_SUBSCRIPTIONS_REFUSED] == 1


@pytest.mark.parametrize("is_silent", [False, True])
async def test_filter_refused_without_a_word(tmp_path, is_silent):
    """A broker that closes, or does not answer, at one filter has refused it; the others go on."""
    asked = []

    async def script(peer, _number):
        await peer.expect(1)
        peer.send(b"\x20\x02\x00\x00")
        while True:
            kind, body = await peer.read()
            if kind == 12:
                peer.send(b"\xd0\x00")
            if kind != 8:
                continue
            asked.append(body[4:-1])
            if body[4:-1] == b"bad":
                if is_silent:
                    await asyncio.Event().wait()
                peer.close()
                return
            peer.send_packet(0x90, body[:2] + b"\x01")
            peer.publish("good")

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, "bad", "good", connect_timeout=0.3 if is_silent else 10)
        async with BridgeRig(tmp_path, config) as rig:
            await rig.came(1, "good")
            problem = rig.state().subscriptions[0].problem
            assert "subscription to bad" in problem
            assert "left out for 5 minutes" in problem
            assert asked[:3] == [b"bad", b"bad", b"good"]


async def test_lower_quality_is_said(tmp_path):
    """A broker that grants QoS 0 where 1 is wanted may lose messages."""

    async def script(peer, _number):
        await peer.expect(1)
        peer.send(b"\x20\x02\x00\x00")
        body = await peer.expect(8)
        peer.send_packet(0x90, body[:2] + b"\x00")
        await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            state = await rig.connected()
            assert "QoS 0 instead of 1" in state.subscriptions[0].problem


async def test_client_id_taken_over(tmp_path, caplog):
    """Two bridges with one client id throw each other out: both say so, and slow down."""
    caplog.set_level(logging.WARNING, "appliance.bridge")
    async with Rig(tmp_path / "there") as there:
        first = bridge(there.port, "a", client_id="twin", name="first")
        second = bridge(there.port, "a", client_id="twin", name="second")
        async with BridgeRig(tmp_path / "here", first, second) as rig:
            await rig.until(
                lambda: any("another client" in each.last_error for each in rig.bridges.states())
            )
            assert rig.counters[Counter.BRIDGE_CLIENT_IDS_TAKEN_OVER] >= 1
    said = [one for one in caplog.messages if "another client uses the client id twin" in one]
    assert said
    assert len(said) <= 2


def test_pace():
    """Waits double up to a longest one; a takeover waits longer; a connection that lasted resets."""
    pace = Pace(
        first_s=1, longest_s=8, patient_s=32, first_takeover_s=40, takeover_s=100, stable_s=10
    )
    backoff = Backoff(pace, chance=lambda: 1.0)
    assert [backoff.wait_s(Kind.CLOSED, 0) for _ in range(5)] == [1, 2, 4, 8, 8]
    assert backoff.wait_s(Kind.PASSWORD, 0) == 32
    assert [backoff.wait_s(Kind.TAKEN_OVER, 20) for _ in range(4)] == [40, 80, 100, 100]
    assert [backoff.wait_s(Kind.TAKEN_OVER, 7200) for _ in range(2)] == [40, 40]
    assert backoff.wait_s(Kind.CLOSED, 10) == 1
    assert backoff.wait_s(Kind.TAKEN_OVER, 1) == 40
    lucky = Backoff(pace, chance=lambda: 0.0)
    assert lucky.wait_s(Kind.CLOSED, 0) == 0.5


async def test_one_line_a_cause(tmp_path, caplog):
    """The same failure again and again is one line in the log."""
    caplog.set_level(logging.INFO, "appliance.bridge")
    async with ScriptedRemote(refuse(4, 4)) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.until(lambda: remote.connections >= 5)
            assert rig.counters[Counter.BRIDGE_CONNECTIONS_FAILED] >= 4
    assert len([one for one in caplog.messages if "wrong password" in one]) == 1


async def test_a_connection_that_never_lasts_is_said_once(tmp_path, caplog):
    """A broker that accepts, and ends each connection soon, does not fill the log."""
    caplog.set_level(logging.INFO, "appliance.bridge")

    async def script(peer, _number):
        await peer.accept(filters=1)
        peer.close()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.until(lambda: remote.connections >= 10)
            assert rig.state().gaps >= 8
    assert len(caplog.messages) <= 10, caplog.messages


async def test_another_end_of_a_connection_is_said(tmp_path, caplog):
    """After several ends of one cause, the first of another cause stands in the log."""
    caplog.set_level(logging.INFO, "appliance.bridge")

    async def script(peer, number):
        await peer.accept(filters=1)
        if number >= 6:
            peer.send(b"\xff\x00")
            await peer.serve()
        peer.close()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.until(lambda: remote.connections >= 9)
    assert [one for one in caplog.messages if "breaks the protocol" in one]


def test_takeover_stays_found():
    """Waits that are longer than what is looked back on do not hide the cause again."""
    takeovers = Takeovers()
    assert [takeovers.lost(now, 1.0) for now in (0, 5, 10, 15)] == [False, False, False, True]
    assert [takeovers.lost(now, 1.0) for now in (135, 255, 375, 495)] == [True] * 4
    assert takeovers.lost(740, 120.0)
    assert not takeovers.lost(900, 151.0)
    assert not takeovers.lost(920, 1.0)
    assert not takeovers.lost(1000, 21.0)


async def test_closed_at_a_message(tmp_path):
    """A message at which the broker closes three times is left out, and the next ones go out."""

    async def script(peer, number):
        await peer.accept(connack=b"\x20\x02" + bytes((number > 0, 0)), filters=0)
        while True:
            kind, body = await peer.read()
            if kind == 12:
                peer.send(b"\xd0\x00")
            elif kind == 3 and b"bad" in body:
                peer.close()
                return
            elif kind == 3:
                at = 2 + int.from_bytes(body[:2], "big")
                peer.send_packet(0x40, body[at : at + 2])

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, publish=sends("#"))
        async with BridgeRig(tmp_path, config) as rig:
            await rig.until(lambda: rig.state().connected)
            wire = await rig.wire()
            wire.send(wire.publish_packet("bad", b"1", 1) + wire.publish_packet("good", b"2", 1))
            await rig.until(lambda: rig.state().messages_out == 1)
            assert rig.state().parked == 1
            assert rig.counters[Counter.BRIDGE_PUBLISHES_REFUSED] == 1


async def test_closed_with_each_refusal(tmp_path):
    """A broker that refuses a message and closes (mosquitto 2.0.11) is not another client."""

    async def script(peer, number):
        await peer.accept(connack=b"\x20\x03" + bytes((number > 0, 0, 0)), filters=0)
        while True:
            kind, body = await peer.read()
            if kind == 12:
                peer.send(b"\xd0\x00")
            elif kind == 3:
                at = 2 + int.from_bytes(body[:2], "big")
                is_bad = b"bad" in body[:at]
                peer.send_packet(0x40, body[at : at + 2] + (b"\x87" if is_bad else b""))
                if is_bad:
                    peer.close()
                    return

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, publish=sends("#"), version="5")
        async with BridgeRig(tmp_path, config) as rig:
            await rig.until(lambda: rig.state().connected)
            wire = await rig.wire()
            wire.send(wire.publish_packet("bad", b"1", 1) * 8 + wire.publish_packet("good", b"", 1))
            await rig.until(lambda: rig.state().messages_out == 1)
            state = rig.state()
            assert state.parked == 8
            assert "right after a message on bad" in state.last_error
            assert rig.counters[Counter.BRIDGE_CLIENT_IDS_TAKEN_OVER] == 0
            assert state.attempts <= 1


async def test_missing_password_file(tmp_path):
    """A password file that is gone is named, and read again at the next attempt."""

    async def script(peer, _number):
        await peer.accept()
        await peer.serve()

    path = tmp_path / "password.txt"
    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, username="plant", password_file=str(path))
        async with BridgeRig(tmp_path / "here", config) as rig:
            await rig.failed("the secret can't be read")
            path.write_text("secret\n")
            await rig.until(lambda: rig.state().connected)


HOSTILE = {
    "CONNACK twice": b"\x20\x02\x00\x00",
    "SUBACK for nothing": b"\x90\x03\x00\x01\x01",
    "PUBLISH QoS 3": b"\x36\x05\x00\x01a\x00\x01",
    "PUBLISH without topic length": b"\x30\x01\x00",
    "packet id 0": b"\x32\x05\x00\x01a\x00\x00",
    "reserved type": b"\x00\x00",
    "SUBSCRIBE": b"\x82\x06\x00\x01\x00\x01a\x00",
    "length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "a huge SUBACK": b"\x90\xff\xff\xff\x7f",
    "PUBREL without id": b"\x62\x00",
    "PUBACK of nothing": b"\x40\x00",
    "AUTH": b"\xf0\x00",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile(tmp_path, name, caplog):
    """Malformed packets end the connection with a cause: no traceback, and clients are served."""

    async def script(peer, number):
        await peer.accept(filters=1)
        if number < 2:
            peer.send(HOSTILE[name])
            await peer.serve()
        else:
            peer.publish("a")
            await peer.serve()

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.failed("breaks the protocol")
            await rig.came(1, "a")
            wire = await rig.wire()
            wire.send(wire.publish_packet("mine", b"1", 1))
            await wire.expect(4)
            assert rig.counters[Counter.BRIDGE_INTERNAL_ERRORS] == 0
    assert not any(one.exc_info for one in caplog.records)


async def test_the_lines_of_many_bridges_do_not_hide_each_other(tmp_path):
    """The log leaves out what repeats, but not that yet another bridge is not connected."""
    names = [f"b{number}" for number in range(40)]
    configs = [bridge(1, "a", name=name) for name in names]
    lines, repeats = [], RepeatFilter()

    class Keep(logging.Handler):
        def emit(self, record):
            _, is_written = repeats.admit(record, record.getMessage())
            lines.extend([record.getMessage()] * is_written)

    keep = Keep()
    logging.getLogger("appliance.bridge").addHandler(keep)
    try:
        async with BridgeRig(tmp_path, *configs) as rig:
            await rig.until(lambda: all(rig.state(name).last_error for name in names))
    finally:
        logging.getLogger("appliance.bridge").removeHandler(keep)
    for name in names:
        assert [one for one in lines if one.startswith(f"bridge {name} at 127.0.0.1:1: not conn")]


async def test_a_filter_that_is_refused_again_and_again_is_one_line(tmp_path, caplog, monkeypatch):
    """It is asked for now and then, and the log says only the first time that it is refused."""
    monkeypatch.setattr(subscriptions, "_LEFT_OUT_S", 0.0)
    asked = []

    async def script(peer, _number):
        await peer.expect(1)
        peer.send(CONNACK)
        while True:
            kind, body = await peer.read()
            if kind == 8:
                asked.append(body)
                if len(asked) > 3:
                    await peer.serve()
                peer.send_packet(0x90, body[:2] + b"\x80")
            elif kind == 12:
                peer.send(b"\xd0\x00")

    async with ScriptedRemote(script) as remote:
        async with BridgeRig(tmp_path, bridge(remote.port, "a")) as rig:
            await rig.until(lambda: len(asked) > 3)
            assert rig.counters[Counter.BRIDGE_SUBSCRIPTIONS_REFUSED] == 3
    assert len([one for one in caplog.messages if "a subscription is refused: a" in one]) == 1
