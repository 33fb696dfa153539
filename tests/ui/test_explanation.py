"""Why a message starts something or nothing: by E, and by "Try" before it is published."""

import pytest
from fake_engine import TASKS, explanation, story
from screens import NARROW, WIDE, has_focus, settle, until
from textual.widgets import Input

from appliance.engine_api import Explanation
from appliance.ui.app import ApplianceApp
from appliance.ui.screens.tasks import ExecutionRows
from appliance.ui.settings import UiSettings


def app_for(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_e_on_a_message_says_what_stands_in_the_way(size):
    """The list and the message's page lead there; foreign names are made safe; Esc leads back."""
    engine = story()
    seq = engine.publish_from("plant/7/done", b"{}")
    engine.explanations[seq] = explanation(engine, seq=seq, led_to="It started nothing.")
    async with app_for(engine).run_test(size=size) as pilot:
        await settle(pilot)
        await pilot.press("E")
        text = await until(pilot, "If it came again now")
        assert "It started nothing." in text
        assert "Would start Reload Sales at 12:08:52." in text
        assert "Would not start Reload" in text
        assert "✓ when" in text
        assert "◌ debounce" in text
        assert "✗ [allow]" in text
        assert "hall (hall/#)" in text
        assert "\x1b" not in text
        await pilot.press("escape", "enter")
        await until(pilot, "What it led to")
        await pilot.press("E")
        await until(pilot, "Would start Reload Sales")


async def test_e_on_an_execution_explains_the_message_behind_it():
    """In the list of executions, too; where none is behind it, that is said."""
    engine = story()
    engine.start_task(TASKS[0].id, "ann")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await until(pilot, "Executions")
        rows = pilot.app.screen.query_one(ExecutionRows)
        kinds = [bool(one.cause.seq) for one in rows.items]
        assert {True, False} <= set(kinds)
        await pilot.press("home", *["down"] * kinds.index(False), "E")
        await settle(pilot)
        said = [one.message for one in pilot.app._notifications]
        assert said == ["No message caused this, so no rule was asked."]
        cause = rows.items[kinds.index(True)].cause
        engine.explanations[cause.seq] = explanation(engine, seq=cause.seq)
        await pilot.press("home", *["down"] * kinds.index(True), "E")
        await until(pilot, "If it came again now")
        await pilot.press("escape")
        await until(pilot, "Executions")


async def test_try_explains_a_message_before_it_is_published():
    """Nothing is published, and the dialog is there again after Esc, as it was left."""
    engine = story()
    engine.explanations[0] = explanation(engine)
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("n")
        await has_focus(pilot, "#topic")
        app.screen.query_one("#topic", Input).value = "plant/7/done"
        await pilot.click("#try")
        text = await until(pilot, "Would start Reload Sales at 12:08:52.")
        assert "If it came again now" not in text
        assert engine.calls == [("explain_message", "plant/7/done", b"", False, "")]
        await pilot.press("escape")
        assert "New message" in await settle(pilot)
        assert app.screen.query_one("#topic", Input).value == "plant/7/done"


async def test_an_appliance_that_can_not_explain_says_so():
    """One of an older version gives sentences alone, or none."""
    engine = story()
    seq = engine.publish_from("plant/7/done", b"{}")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("E")
        await until(pilot, "can't explain what a message led to")
        engine.explanations[seq] = Explanation("", seq=seq, reasons=("No rule.",), is_whole=False)
        await pilot.press("E")
        await until(pilot, "No rule.")
