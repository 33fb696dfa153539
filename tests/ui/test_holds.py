"""Holding what stands on the screen, everything, and releasing it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from fake_engine import TASKS, S, story
from textual.events import Key

from screens import NARROW, WIDE, settle, until

from appliance.engine_api import HELD, HoldState, RuleState, TimerState, WaitState
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings


def app_for(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


def words(text: str) -> str:
    return " ".join(text.split())


def said(pilot) -> str:
    return " ".join(one.message for one in pilot.app._notifications)


def acts(engine) -> list[tuple[object, ...]]:
    return [call for call in engine.calls if call[0] in ("hold", "release")]


async def hold(pilot, end: str, reason: str) -> None:
    """``H``, the end, Enter, the reason, Enter."""
    await pilot.press("H")
    await until(pilot, "till released")
    await pilot.press(*end, "enter", *reason.replace(" ", "_"), "enter")
    await pilot.app.workers.wait_for_complete()


@pytest.mark.parametrize("size", [NARROW, pytest.param(WIDE, marks=pytest.mark.campaign)])
async def test_everything_is_held_for_an_hour_and_released(size):
    """Eleven keys and the reason: the first line says it until it is released."""
    engine = story()
    async with app_for(engine).run_test(size=size) as pilot:
        await settle(pilot)
        await hold(pilot, "1h", "new disks")
        (act,) = acts(engine)
        end_ns = engine.clock_ns() + 3600 * S
        assert act[:6] == ("hold", "everything", "", end_ns, "new_disks", False)
        at = datetime.fromtimestamp(end_ns // S, UTC).astimezone()
        assert f"all held until {at:%H:%M}" in (await settle(pilot)).split("\n")[0]
        assert "everything is held until" in said(pilot)
        await pilot.press("!")
        text = await until(pilot, "H release it")
        assert "new_disks" in text
        await pilot.press("H")
        text = await until(pilot, "It is held until")
        await pilot.press("enter")
        await pilot.app.workers.wait_for_complete()
        assert acts(engine)[-1][:3] == ("release", "everything", "")
        assert "all held" not in (await settle(pilot)).split("\n")[0]
        assert "everything is released; nothing waited." in said(pilot)


async def test_what_waits_for_a_hold_is_listed_below_it():
    engine = story()
    now = engine.clock_ns()
    engine.held["everything", ""] = HoldState(
        "everything", "", None, "new disks", "ann", now - 60 * S, waiting=3
    )
    reason = f"{HELD}by ann (everything): new disks."
    engine.changes["waits"] = tuple(
        WaitState(f"Reload {name} #{number}", number, "hold", reason, None, now - number * S)
        for number, name in ((5, "Sales"), (9, "Stock"))
    )
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("!")
        text = await until(pilot, "What waits:")
        assert text.index("Reload Stock #9") < text.index("Reload Sales #5")
        assert "and 1 start; screen 3 has all" in text


@pytest.mark.campaign
async def test_what_is_wrong_with_the_end_is_said_and_nothing_is_held():
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await hold(pilot, "tomorrow", "x")
        await until(pilot, "tomorrow is no time; write 2h")
        await pilot.press("escape")
        await settle(pilot)
        assert not acts(engine)


@pytest.mark.parametrize(
    ("keys", "changes", "held"),
    [
        pytest.param(["4"], {}, ("client", "cam1"), marks=pytest.mark.campaign),
        pytest.param(["enter"], {}, ("client", "plc-01"), marks=pytest.mark.campaign),
        (
            ["3", "shift+tab"],
            {"rules": (RuleState("start", "qliksense/start_task", "the task"),)},
            ("trigger", "start"),
        ),
        pytest.param(
            ["3", "shift+tab"],
            {"rules": (), "timers": (TimerState("nightly", "schedule", None),)},
            ("timer", "nightly"),
            marks=pytest.mark.campaign,
        ),
        (["3"], {}, ("task", TASKS[2].id)),
        pytest.param(["3", "enter"], {}, ("task", TASKS[2].id), marks=pytest.mark.campaign),
        pytest.param(
            ["3", "enter", "m", "escape"], {}, ("task", TASKS[2].id), marks=pytest.mark.campaign
        ),
        pytest.param(["1"], {}, ("everything", ""), marks=pytest.mark.campaign),
        pytest.param(["2"], {}, ("everything", ""), marks=pytest.mark.campaign),
    ],
)
async def test_the_chosen_thing_is_held(keys, changes, held):
    """A client, a rule, a timer, a task; where nothing can be held, everything."""
    engine = story()
    engine.changes.update(changes)
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await pilot.app.workers.wait_for_complete()
            await settle(pilot)
        await hold(pilot, "", "why")
        (act,) = acts(engine)
        assert act[1:3] == held
        assert act[3] is None


@pytest.mark.campaign
async def test_arrows_choose_something_else_and_a_button_drops():
    """From an execution: its task, its rule, its client, everything."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        await pilot.press("H")
        assert "task Reload HR" in await until(pilot, "(1/4)")
        await pilot.press("down")
        text = await until(pilot, "(2/4)")
        assert "trigger qliksense/start_task" in text
        await pilot.press("down")
        assert "client plc-02" in await until(pilot, "can't connect meanwhile")
        assert "starts meanwhile" not in await settle(pilot)
        await pilot.press("up", "tab", "tab", "enter")
        await until(pilot, "are dropped.")
        await pilot.press("tab", "enter")
        await pilot.app.workers.wait_for_complete()
        (act,) = acts(engine)
        assert act[:6] == ("hold", "trigger", "qliksense/start_task", None, "", True)


async def test_what_is_held_is_marked_in_its_list():
    """Rule, timer and client; the first line names them too."""
    engine = story()
    now = engine.clock_ns()
    engine.changes["rules"] = (RuleState("start", "qliksense/start_task", "the task"),)
    engine.changes["timers"] = (TimerState("nightly", "schedule", now + 60 * S),)
    for kind, name in (("trigger", "start"), ("timer", "nightly"), ("client", "plc-07")):
        engine.held[kind, name] = HoldState(kind, name, None, "new disks", "ann", now)
    async with app_for(engine).run_test(size=WIDE) as pilot:
        await settle(pilot)
        await pilot.press("3")
        rows = (await until(pilot, "‖ start")).split("\n")
        assert "held by ann: new disks" in next(one for one in rows if "‖ start" in one)
        assert "held by ann: new disks" in next(one for one in rows if "‖ nightly" in one)
        await pilot.press("4")
        rows = (await until(pilot, "‖ plc-07")).split("\n")
        assert " held " in next(one for one in rows if "‖ plc-07" in one)


async def test_what_is_typed_or_pasted_at_once_goes_to_the_right_lines():
    """No letter of the reason ends in the line of the end."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("H")
        await until(pilot, "till released")
        for letter in "1h\rnew\r":
            key = "enter" if letter == "\r" else letter
            pilot.app.post_message(Key(key, letter))
        await settle(pilot)
        await until(pilot, "all held until")
        (act,) = acts(engine)
        assert act[3:5] == (engine.clock_ns() + 3600 * S, "new")


@pytest.mark.campaign
async def test_the_palette_holds_everything():
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("4", "ctrl+p", *"hold ev")
        await until(pilot, "Hold everything")
        await pilot.press("enter")
        assert "No task is started meanwhile." in words(await until(pilot, "till released"))
