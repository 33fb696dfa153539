"""What an operator and programs see of a bridge, on a real appliance with a broker by script."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from appliance_process import free_port, until
from bridge_rig import CONNACK, ScriptedRemote
from broker_rig import Rig

from appliance.config.reading import loads
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.errors import ApplianceError
from appliance.model import bridge_client_id
from appliance.ops.health import report
from appliance.ops.metrics import exposition
from appliance.problems import Place, bridge_level, problems

CONFIG = """
[service]
name = "here"
data_dir = "{folder}/here"
[[listener]]
bind = "127.0.0.1:0"
[qlik]
edition = "simulated"
[[trigger]]
topic = "asked"
task = "payload"
[[bridge]]
name = "plant"
host = "127.0.0.1"
port = {port}
"""


@contextlib.asynccontextmanager
async def appliance(folder, port, more=""):
    """The engine as the UI sees it; the appliance runs in threads of its own."""
    text = CONFIG.format(folder=folder.as_posix(), port=port) + more
    found = Appliance(loads(text, file=str(folder / "config.toml")))
    await asyncio.to_thread(found.start)
    try:
        yield View(found)
    finally:
        found.stop()
        assert await asyncio.to_thread(found.wait, 60)


async def eventually(holds, what):
    return await asyncio.to_thread(until, holds, what)


def state(view):
    (found,) = view.snapshot().bridges
    return found


def level(view):
    return next(one.level for one in report(view.snapshot()).parts if one.name == "bridge plant")


async def test_a_broker_that_is_away_is_no_alarm_at_once(tmp_path) -> None:
    """A moment without it is normal; the cause and the next attempt are shown from the start, and
    an operator need not wait for that."""
    more = 'subscribe = [{topic = "a/#"}]\n'
    async with appliance(tmp_path, free_port(), more) as view:
        await eventually(lambda: state(view).next_attempt_ns, "the first attempt")
        found = state(view)
        assert (found.connected, found.health.level) == (False, "warn")
        assert found.last_error
        assert found.since_ns is not None
        assert bridge_level(found, found.since_ns + 3 * 10**9) == "ok"
        attempts = found.attempts
        await asyncio.to_thread(view.connect_bridge, "plant", "test")
        await eventually(lambda: state(view).attempts > attempts, "the attempt that was asked for")
        with pytest.raises(ApplianceError, match="no bridge hq"):
            await asyncio.to_thread(view.connect_bridge, "hq", "test")


async def test_a_wrong_password_is_said_at_once_everywhere(tmp_path) -> None:
    """Nothing but an operator helps: the first line, health and metrics do not wait."""

    async def script(peer, _number):
        await peer.accept(connack=b"\x20\x02\x00\x04")

    more = 'subscribe = [{topic = "a/#"}]\n'
    async with ScriptedRemote(script) as remote, appliance(tmp_path, remote.port, more) as view:
        await eventually(lambda: state(view).last_error, "the refusal")
        assert level(view) == "bad"
        (problem,) = problems(view.snapshot())
        assert (problem.place, problem.headline) == (Place("bridge", "plant"), "bridge plant away")
        assert "wrong password or user name" in problem.text
        text = exposition(view.snapshot()).decode()
        assert 'appliance_health{part="bridge plant"} 2.0' in text
        assert 'appliance_bridge_connected{name="plant"} 0.0' in text


async def test_a_refused_filter_is_a_problem_and_the_status_topic_has_the_bridge(tmp_path) -> None:
    """Others of its filters work; the retained status says so as soon as it is connected."""

    async def script(peer, _number):
        await peer.expect(1)
        peer.send(CONNACK)
        for code in (1, 0x80):
            body = await peer.expect(8)
            peer.send_packet(0x90, body[:2] + bytes((code,)))
        peer.publish("a/1")
        await peer.serve()

    more = 'subscribe = [{topic = "a/#"}, {topic = "secret/#"}]\n'
    async with ScriptedRemote(script) as remote, appliance(tmp_path, remote.port, more) as view:
        await eventually(lambda: state(view).messages_in == 1, "the message")
        good, refused = state(view).subscriptions
        assert (good.granted, good.problem, good.received) == (1, "", 1)
        assert refused.granted is None
        assert refused.problem
        (problem,) = problems(view.snapshot())
        assert problem.level == "warn"
        assert "secret/# brings nothing" in problem.text

        def told():
            kept = view.retained("here/status")
            if kept is None:
                return None  # it is published soon after the start
            (found,) = json.loads(kept.payload)["bridges"]
            return found["connected"] and found

        found = await eventually(told, "the status with the bridge")
        assert (found["name"], found["health"]) == ("plant", "ok")


async def test_a_lost_session_waits_for_an_operator(tmp_path) -> None:
    """It is a problem from when to when messages may be missing, until it is acknowledged."""

    async def script(peer, number):
        await peer.accept(filters=1)  # never with the session of before
        peer.publish("a/1", id=number + 1)
        if number == 0:
            await peer.expect(4)
            peer.close()
        else:
            await peer.serve()

    more = 'subscribe = [{topic = "a/#"}]\n'
    async with ScriptedRemote(script) as remote, appliance(tmp_path, remote.port, more) as view:
        await eventually(lambda: state(view).next_attempt_ns, "the lost connection")
        await asyncio.to_thread(view.connect_bridge, "plant", "test")
        await eventually(lambda: state(view).connected and state(view).gaps == 1, "the gap")
        found = state(view)
        assert found.gap_from_ns is not None
        assert found.gap_from_ns <= found.gap_ns
        (problem,) = problems(view.snapshot())
        assert "messages may be missing" in problem.text
        (told,) = await asyncio.to_thread(view.acknowledge, "test")
        assert "bridge plant" in told
        assert not problems(view.snapshot())
        assert state(view).gaps == 1
        assert await asyncio.to_thread(view.acknowledge, "test") == []


async def test_a_clock_that_is_set_makes_no_bridge_late(tmp_path) -> None:
    """Since when a bridge is away, and when it tries again, move with the clock."""
    more = 'subscribe = [{topic = "a/#"}]\n'
    async with appliance(tmp_path, free_port(), more) as view:
        await eventually(lambda: state(view).last_error_ns, "the first attempt")
        engine, step_ns = view._appliance, 3600 * 10**9

        def moved():
            before = state(view)
            engine.bridges.follow_step(step_ns)
            return before, state(view)

        before, after = await asyncio.to_thread(engine.call, moved)
        assert after.since_ns - before.since_ns == step_ns
        assert after.last_error_ns - before.last_error_ns == step_ns


async def test_an_answer_goes_back_by_the_bridge_that_brought_the_question(tmp_path) -> None:
    """MQTT 5: to the response topic at the other broker, with its correlation data; where no rule
    of the bridge leads there, there is none."""
    more = """
version = "5"
subscribe = [{topic = "start/#", remove_prefix = "start/"}]
publish = [{topic = "back/answers/#", remove_prefix = "back/"}]
"""
    async with (
        Rig(tmp_path / "there") as there,
        appliance(tmp_path, there.port, more) as view,
    ):
        asker = await there.wire(version=5, client_id="plc")
        await asker.subscribe(("answers/#", 1), ("here/#", 1))
        await eventually(lambda: state(view).connected, "the bridge")
        await eventually(lambda: state(view).subscriptions[0].granted == 1, "the subscription")
        for topic in ("here/status", "answers/plc"):
            await asker.publish_acked(
                "start/asked", b"nonsense", response_topic=topic, correlation_data=b"\x07"
            )
        (answer,) = await asker.messages(1)
        assert answer.topic == "answers/plc"
        assert answer.v5.correlation_data == b"\x07"
        assert json.loads(answer.payload)["state"] == "rejected"
        asked = [one for one in view.history(2**62, 100) if one.topic == "asked"]
        assert {one.client_id for one in asked} == {bridge_client_id("plant")}
        assert {one.address for one in asked} == {f"127.0.0.1:{there.port}"}
