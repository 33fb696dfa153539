"""The focus goes back to where it was, and is seen without colour; nothing is out of reach."""

import pytest
from fake_engine import story
from msgspec.structs import replace
from screens import NARROW, has_focus, settle, until

from appliance.counters import Counter, label_of
from appliance.engine_api import TimerState
from appliance.model import ExecutionState
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings


def app_for(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


async def test_a_filter_leaves_the_list_of_executions_in_charge():
    """Filtered, opened and repeated: it is the failed run from the first key to the last."""
    engine = story()
    failed = next(one for one in engine.runs.values() if one.state is ExecutionState.FAILED)
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        await pilot.press("slash", *"state:failed", "enter")
        await has_focus(pilot, "ExecutionRows")
        await pilot.press("enter")
        await until(pilot, f"── Execution {failed.id}")
        await pilot.press("escape")
        await has_focus(pilot, "ExecutionRows")
        assert "filter state:failed" in await settle(pilot)
        await pilot.press("r")
        await until(pilot, f"Start {failed.task_name} again?")


@pytest.mark.parametrize(
    ("tab", "lists"),
    [
        ("1", ["MessageRows"]),
        ("2", ["TopicRows"]),
        ("3", ["RuleRows", "ExecutionRows"]),
        ("4", ["ClientRows", "#broker"]),
        ("5", ["LogRows"]),
    ],
)
@pytest.mark.parametrize(
    "opened",
    [
        "slash",
        "enter",
        *(
            pytest.param(key, marks=pytest.mark.campaign)
            for key in ("question_mark", "ctrl+p", "q", "t", "n")
        ),
    ],
)
async def test_what_was_opened_gives_the_focus_back(tab, lists, opened):
    """Help, palette, filter, question, dialog or detail: the same list and row as before."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press(tab)
        await settle(pilot)
        for wanted in lists:
            for _ in range(len(lists)):
                if pilot.app.focused is pilot.app.screen.query(wanted).first():
                    break
                await pilot.press("tab")
            await has_focus(pilot, wanted)
            await pilot.press("home", "down")
            await settle(pilot)
            rows = pilot.app.focused
            before = (rows.key(rows.current), rows._cursor)
            await pilot.press(opened)
            await settle(pilot)
            if opened == "enter" and wanted in ("RuleRows", "#broker"):
                await pilot.press("escape")
                await settle(pilot)
                continue  # the executions of a rule are another test; numbers lead nowhere
            await pilot.press("escape")
            await settle(pilot)
            await has_focus(pilot, wanted)
            assert (rows.key(rows.current), rows._cursor) == before


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
async def test_the_list_with_the_focus_is_marked_by_signs(environment, monkeypatch):
    """One heading and one row have the sign of what keys act on, whatever the colours."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        for heading in ("STARTED  TASK", "RULE / TIMER", "STARTED  TASK"):
            lines = (await settle(pilot)).splitlines()
            marked = [line for line in lines if line.startswith("►")]
            assert len(marked) == 1
            assert heading in marked[0]
            assert sum(line.startswith("▌") for line in lines) == 1
            await pilot.press("tab")


@pytest.mark.campaign
async def test_every_counter_can_be_brought_to_view():
    """At 80x24 more was noted than fits; tab and the arrows reach all of it."""
    engine = story()
    noted = list(Counter)[:30]
    engine.changes = {"counters": tuple((one.metric, 2) for one in noted)}
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("4")
        seen = await until(pilot, "1-8 of ")
        await pilot.press("tab")
        await has_focus(pilot, "#broker")
        for _ in range(60):
            await pilot.press("down")
            seen += await settle(pilot)
        for one in noted:
            assert label_of(one.metric)[:40] in seen
        assert "journal" in seen
        assert "more on screen 4" not in seen


async def test_the_counter_that_rose_last_stands_first():
    """The number that the operator came for is in view at once, with its age."""
    engine = story()
    noted = sorted(one.metric for one in Counter)[:30]
    engine.changes = {"counters": tuple((one, 2) for one in noted)}
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        counts = dict.fromkeys(noted, 2) | {noted[-1]: 3}
        engine.changes = {"counters": tuple(counts.items())}
        await settle(pilot)
        await pilot.press("4")
        text = await until(pilot, " ago")
        line = next(line for line in text.splitlines() if " ago" in line)
        assert label_of(noted[-1])[:30] in line
        assert " 3 " in line


async def test_from_the_message_to_the_client_that_sent_it_and_back():
    """Who publishes nonsense: one key to the client, one and a yes to disconnect it, one back."""
    engine = story()
    engine.client_list = (
        *engine.client_list,
        replace(engine.client_list[0], client_id="cam 9", connected=True),
    )
    engine.publish_from("qliksense/start_task", b"nonsense", client_id="cam 9")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("4")
        await settle(pilot)
        await pilot.press("slash", *"hmi", "enter", "1")
        await settle(pilot)
        await pilot.press("slash", *"nonsense", "enter")
        await has_focus(pilot, "MessageRows")
        await pilot.press("i")
        assert "▌● cam 9" in await until(pilot, "[4]Clients")
        await pilot.press("x")
        await until(pilot, "Disconnect cam 9?")
        await pilot.press("y")
        await until(pilot, "[4]Clients")
        await pilot.press("escape")
        assert "filter nonsense" in await until(pilot, "[1]Live")
        await has_focus(pilot, "MessageRows")
        assert engine.calls[0][:2] == ("disconnect", "cam 9")
        await pilot.press("4")
        assert "filter hmi" in await until(pilot, "[4]Clients")


async def test_back_leads_to_the_page_that_led_here():
    """Esc on a client's messages shows the clients again, and Live has its own filter back."""
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"hall", "enter", "4")
        await settle(pilot)
        await pilot.press("enter")
        assert "filter client=" in await until(pilot, "[1]Live")
        await pilot.press("escape")
        await until(pilot, "[4]Clients")
        await pilot.press("1")
        assert "filter hall" in await until(pilot, "[1]Live")
        await pilot.press("escape")
        assert "filter" not in (await settle(pilot)).splitlines()[1]


async def test_a_rule_gets_the_focus_back_from_its_executions():
    """Enter on a rule filters the executions; Esc undoes both."""
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        await pilot.press("shift+tab", "enter")
        await has_focus(pilot, "ExecutionRows")
        await pilot.press("escape")
        await has_focus(pilot, "RuleRows")
        assert "filter" not in (await settle(pilot)).splitlines()[1]


async def test_a_wait_leads_to_its_execution():
    """Enter on a wait in the list of timers opens what waits; a filter by its name finds nothing."""
    engine = story()
    run = next(iter(engine.runs.values()))
    wait = TimerState(f"{run.task_name} #{run.id}", "cooldown", engine.clock_ns() + 10**9)
    engine.changes = {"rules": (), "timers": (wait,)}
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        await pilot.press("shift+tab", "enter")
        await until(pilot, f"── Execution {run.id}")
        await pilot.press("escape")
        await has_focus(pilot, "RuleRows")
