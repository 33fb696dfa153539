"""The UI of an attached terminal: the same, but it is not the appliance that ends with it."""

import msgspec
from fake_engine import FakeEngine, story
from screens import NARROW, settle, until

from appliance.engine_api import Health
from appliance.ui.app import ApplianceApp, UiEnd
from appliance.ui.settings import UiSettings


def attached(link, **settings):
    """The story's engine, reached from elsewhere."""
    engine = story()
    here = engine.snapshot
    engine.is_remote = True
    engine.snapshot = lambda: msgspec.structs.replace(
        here(), link=link, name="plant7", user="anna", role="operator"
    )
    return engine, ApplianceApp(engine, UiSettings(**settings), engine.clock_ns)


WELL = Health("ok", "plant7:8883 as operator")


async def test_q_leaves_and_the_appliance_goes_on():
    """Leaving asks nothing, since nothing ends; the engine is not stopped."""
    engine, app = attached(WELL)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("q")
        await pilot.pause()
    assert app.return_value is UiEnd.DETACHED
    assert not engine.calls


async def test_a_command_stops_the_appliance_and_asks():
    """Who wants the appliance to stop finds that in the command palette."""
    engine, app = attached(WELL)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p", *"stop the app")
        await until(pilot, "Stop the appliance")
        await pilot.press("enter")
        await until(pilot, "The broker stops too.")
        await pilot.press("y")
        for _ in range(300):
            if engine.called.is_set():
                break
            await pilot.pause(0.01)
    assert engine.calls == [("stop",)]


async def test_a_lost_connection_is_the_first_thing_said():
    """What is shown is old then, so the first lines say that, before any other problem."""
    _, app = attached(Health("bad", "lost 12 s ago, trying again: Unspecified error"))
    async with app.run_test(size=NARROW) as pilot:
        text = await settle(pilot)
        lines = text.splitlines()
        assert "✗ connection" in lines[0]
        assert "connection: lost 12 s ago, trying again" in "\n".join(lines[:4])


async def test_where_it_is_attached_is_shown():
    """Screen 4 says to which appliance and as what; the help says what leaving does."""
    _, app = attached(WELL)
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("4")
        assert "attached plant7:8883 as operator" in await until(pilot, "attached")
        await pilot.press("question_mark")
        assert "quit leaves the appliance running" in await until(pilot, "Attached:")


async def test_appliance_user_and_role_are_named_at_any_width():
    """The second line names them, in 80 columns too, with a filter beside them."""
    _, app = attached(WELL)
    async with app.run_test(size=NARROW) as pilot:
        assert "plant7 anna operator" in (await settle(pilot)).split("\n")[1]
        await pilot.press("slash", *"a filter of many words, longer than the row", "enter")
        line = (await settle(pilot)).split("\n")[1]
        assert "plant7 anna" in line
        assert "filter" in line


async def test_exports_go_to_this_machine(tmp_path):
    """Rows are written where the operator sits, not where the appliance has its data."""
    _, app = attached(WELL, exports=tmp_path)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("e")
        for _ in range(300):
            if written := list(tmp_path.glob("*.jsonl")):
                break
            await pilot.pause(0.01)
    assert len(written) == 1


def test_an_engine_in_this_process_is_not_remote():
    """Only an attached engine says that it goes on without the UI."""
    assert not FakeEngine.is_remote
