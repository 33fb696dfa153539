"""The palette finds what an operator looks for by name, and goes to it."""

import threading

import pytest
from fake_engine import TASKS, story
from screens import NARROW, settle, until
from textual.command import CommandList

from appliance.engine_api import ClientState, TimerState
from appliance.errors import UnavailableError
from appliance.ui import palette
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings
from appliance.ui.text import printable


def app_for(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


async def find(pilot, typed, shown):
    """Open the palette, type, wait until it shows the find."""
    await settle(pilot)
    await pilot.press("ctrl+p", *typed)
    text = await until(pilot, shown)
    await pilot.press("down", "enter")
    return text


def chosen(app, selector):
    """The row with the cursor."""
    return app.screen.query_one(selector).current


async def test_a_task_leads_to_its_executions():
    """Part of a task's name: the Tasks page shows its runs and no other task's."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await find(pilot, "reload st", "task Reload Stock")
        text = await until(pilot, 'task="Reload Stock"')
        assert "[3]Tasks" in text
        assert {one.task_name for one in app.screen.query_one("#executions").items} == {
            "Reload Stock"
        }


async def test_a_task_that_never_ran_is_found():
    """The server's list is asked; a task is found by its id, too."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await find(pilot, TASKS[5].id[:13], "task Retired report")
        await until(pilot, "hidden by the filter")


async def test_a_timer_is_chosen_in_the_list():
    """The cursor stands on it, in the list that has the focus, so that its keys work."""
    engine = story()
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        await find(pilot, "hourly", "timer hourly-stock")
        await until(pilot, "[3]Tasks")
        assert chosen(app, "#rules").name == "hourly-stock"
        assert app.focused is app.screen.query_one("#rules")


async def test_a_topic_among_ten_thousand():
    """The levels above it are opened and the cursor stands on it; the finds are few."""
    engine = story()
    for number in range(10_000):
        engine.publish_from(f"hall/{number % 100}/cell/{number}/state", b"1")
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p", *"42")
        await until(pilot, "topic hall/")
        finds = [
            one for one in app.screen.query_one(CommandList).options if "topic" in str(one.prompt)
        ]
        assert 0 < len(finds) <= palette.PER_KIND
        await pilot.press(*"77/")
        await until(pilot, "topic hall/77/cell/4277/state")
        await pilot.press("down", "enter")
        await until(pilot, "[2]Topics")
        await until(pilot, "4277/state")
        assert chosen(app, "#topics").path == "hall/77/cell/4277/state"


@pytest.mark.parametrize(
    ("connected", "shown"), [(True, "client gateway [7]"), (False, "session gateway [7]")]
)
async def test_a_client_or_a_session(connected, shown):
    """Clients and the sessions of those that are away are found by id, address and user."""
    engine = story()
    engine.client_list += (
        ClientState("gateway [7]", "10.9.8.7:1234", "5.0", connected, 1, username="hall-7"),
    )
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        await find(pilot, "10.9.8.7", shown)
        await until(pilot, "[4]Clients")
        assert chosen(app, "#clients").client_id == "gateway [7]"


NASTY = ["[bold]x[/bold] [", "a\x1b[31mred", "İİİ [/]", "x[@click=app.bell]y", "\\[", "扉" * 90]


async def test_foreign_names_are_shown_and_never_obeyed():
    """Names of others are text in the palette, whatever is in them."""
    engine = story()
    engine.changes["timers"] = tuple(
        TimerState(f"zz9 {name}", "schedule", None, detail=name) for name in NASTY
    )
    for name in NASTY:
        engine.publish_from(f"zz9/{name.replace('/', '')}", b"1")
    engine.client_list = tuple(
        ClientState(f"zz9 {name}", name, "5.0", True, 1, username=name) for name in NASTY
    )
    app = app_for(engine)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p", *"zz9")
        await until(pilot, "zz9")
        shown = "\n".join(str(one.prompt) for one in app.screen.query_one(CommandList).options)
        assert "\x1b" not in shown
        for name in NASTY[:5]:
            assert shown.count(f"zz9 {printable(name)}") >= 2
        await pilot.press("down", "enter")
        await settle(pilot)
        assert app.is_running


async def test_a_server_that_does_not_answer_hides_nothing_else():
    """While the list of tasks is waited for, and when it fails, the rest is found."""
    engine = story()
    release = threading.Event()

    def tasks():
        release.wait(30)
        raise UnavailableError("the server is away")

    engine.tasks = tasks
    app = app_for(engine)
    try:
        async with app.run_test(size=NARROW) as pilot:
            await settle(pilot)
            await pilot.press("ctrl+p", *"hmi-east")
            await until(pilot, "client hmi-east")
            await pilot.press("escape")
            release.set()
            await find(pilot, "reload hr", "task Reload HR")  # it ran, so it is known
            await until(pilot, "[3]Tasks")
    finally:
        release.set()
