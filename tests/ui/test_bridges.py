"""Bridges on the screens: the list, the whole of one, the ways that lead there, the keys."""

import msgspec
import pytest
from fake_engine import S, bridges, story
from screens import NARROW, WIDE, has_focus, settle, until

from appliance.engine_api import Health
from appliance.model import MessageProperties
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings
from appliance.ui.widgets.bridges import BridgeRows


def engine_with_bridges():
    engine = story()
    engine.changes["bridges"] = bridges(engine.clock_ns())
    return engine


def app_for(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


def said(pilot):
    """The notices that are on the screen."""
    return " ".join(one.message for one in pilot.app._notifications)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_the_list_says_of_each_bridge_how_it_is(size):
    """State, address, version, what comes and goes; below, what the chosen one subscribes to."""
    async with app_for(engine_with_bridges()).run_test(size=size) as pilot:
        await pilot.press("4")
        text = await until(pilot, "BRIDGE")
        plant, hq = (line for line in text.split("\n") if " plant  " in line or " hq  " in line)
        assert "▲ plant" in plant  # one of its filters is refused
        assert "up 3:12:00" in plant
        assert "5.0" in plant
        assert "▲ hq" in hq
        assert "next in 0:07" in hq
        assert "1.2k" in hq
        await pilot.press("shift+tab")
        await has_focus(pilot, "BridgeRows")
        text = await settle(pilot)
        assert "f connect now" in text
        assert "── bridge plant mqtt.example.com:8883" in text
        assert "secret/#" in text


async def test_the_whole_of_a_bridge_and_its_messages():
    """Enter: everything that is known; Enter again: what it brought in."""
    engine = engine_with_bridges()
    engine.publish_from("orders/7", b"{}", client_id="$bridge/plant")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await pilot.press("4", "shift+tab")
        await has_focus(pilot, "BridgeRows")
        await pilot.press("enter")
        text = await until(pilot, "── Bridge plant")
        for wanted in (
            "mqtt.example.com:8883  TCP with TLS",
            "client id appliance-plant-0a1b2c",
            "connected since",
            "the connection was lost",
            "20,418 messages since the start, 3 repeats",
            "plant/+/state",
            "20,104",
            "appliance/tasks/#   hall/east/#",
        ):
            assert wanted in text
        await pilot.press("enter")
        text = await until(pilot, "[1]Live")
        assert "orders/7" in text
        assert "plant/line1" not in text


async def test_a_bridge_that_waits_connects_at_a_key():
    """From the list, from its page, and from what is wrong; one that is connected says so."""
    engine = engine_with_bridges()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await pilot.press("4", "shift+tab")
        await has_focus(pilot, "BridgeRows")
        await pilot.press("f")
        assert "Bridge plant is connected." in said(pilot)
        assert not engine.calls
        await pilot.press("down", "f")
        await pilot.app.workers.wait_for_complete()
        assert engine.calls[-1][:2] == ("connect_bridge", "hq")
        engine.calls.clear()
        await pilot.press("enter")
        await until(pilot, "6 failed attempts")
        await pilot.press("f")
        await pilot.app.workers.wait_for_complete()
        assert engine.calls[-1][:2] == ("connect_bridge", "hq")
        engine.calls.clear()
        await pilot.press("exclamation_mark")
        await until(pilot, "── Why")
        await pilot.press("down")
        await until(pilot, "f connect now")
        await pilot.press("f")
        await pilot.app.workers.wait_for_complete()
        assert engine.calls[-1][:2] == ("connect_bridge", "hq")


async def test_a_problem_leads_to_its_bridge():
    async with app_for(engine_with_bridges()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("exclamation_mark")
        await until(pilot, "── Why")
        await pilot.press("down", "enter")
        await until(pilot, "── bridge hq 10.1.0.5:1883")
        assert pilot.app.screen.query_one(BridgeRows).has_focus


async def test_a_message_says_by_which_bridge_it_came_and_leads_there():
    """Who published it at the other broker, that it is a repeat, and of which message."""
    engine = engine_with_bridges()
    seq = engine.publish_from("orders/7", b"{}", client_id="$bridge/plant", qos=1)
    told = MessageProperties(user_properties=(("appliance-client", "erp-2"),)).encoded()
    engine.ring.append(
        msgspec.structs.replace(engine.ring.pop(), dup=True, packet_id=4711, properties=told)
    )
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("enter")
        text = await until(pilot, f"── Message {seq}")
        assert "came by  bridge plant from 10.0.4.17:50122" in text
        assert "there published by client erp-2" in text
        assert "a repeat of message 4,711" in text
        await pilot.press("i")
        await until(pilot, "── bridge plant mqtt.example.com:8883")


async def test_a_bridge_that_is_gone_is_named():
    engine = story()
    engine.publish_from("orders/7", b"{}", client_id="$bridge/old")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("i")
        assert "The configuration has no bridge old any more." in said(pilot)


async def test_a_filter_of_the_list_holds_for_bridges_too():
    async with app_for(engine_with_bridges()).run_test(size=NARROW) as pilot:
        await pilot.press("4", "slash", *"10.1.0.5", "enter")
        text = await until(pilot, "4 clients hidden by the filter")
        assert " hq " in text
        assert "mqtt.example.com" not in text


async def test_without_listeners_the_bridges_have_the_focus():
    """No client can be there, so the keys act on bridges at once."""
    engine = engine_with_bridges()
    engine.changes["listeners"] = ()
    engine.client_list = ()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await pilot.press("4")
        await has_focus(pilot, "BridgeRows")


def test_the_first_line_counts_bridges():
    """Where there is room; what is wrong stands in the verdict in any case."""
    engine = engine_with_bridges()
    plant, hq = engine.changes["bridges"]
    well = msgspec.structs.replace(plant, subscriptions=())
    engine.changes["bridges"] = (
        well,
        msgspec.structs.replace(hq, health=Health("ok"), connected=True),
    )
    assert "bridges 2/2" in first_line(engine, 140)
    assert "✓ all well" in first_line(engine, 80)
    engine.changes["bridges"] = (
        well,
        msgspec.structs.replace(hq, since_ns=engine.clock_ns() - 301 * S),
    )
    for cells in (80, 140):
        assert "✗ bridge hq away" in first_line(engine, cells)


def first_line(engine, cells):
    from appliance.ui.lines import line_width, text_of
    from appliance.ui.views import page_frame

    line = page_frame.status(engine.snapshot(), engine.clock_ns(), cells, utc=True)
    assert line_width(line) <= cells
    return text_of(line)
