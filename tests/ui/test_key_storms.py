"""Keys that come faster than screens change never end the UI."""

import asyncio
import random

import attached_appliance
import pytest
from fake_engine import bridges, story
from msgspec.structs import replace
from screens import NARROW, settle, until
from textual.command import CommandList, CommandPalette
from textual.events import Key

from appliance.ui import filters, keys
from appliance.ui.app import ApplianceApp, UiEnd
from appliance.ui.session import run_ui
from appliance.ui.settings import UiSettings

pytestmark = pytest.mark.campaign  # storms take long

KEYS = (
    "f1 1 2 3 4 5 7 1 2 3 4 5 7 v escape escape enter enter tab shift+tab question_mark slash ctrl+p "
    "up down left right home end j k t r p n y f m d s e c z x b space plus minus backspace J U exclamation_mark"
).split()
PAUSES_S = (0, 0, 0, 0.001, 0.003, 0.01, 0.03)


def app_for(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


async def type_fast(app, keys, chance):
    """Keys as a terminal sends them: none waits until the one before has done its work."""
    for key in keys:
        await asyncio.sleep(chance.choice(PAUSES_S))
        if app.is_running:
            app.post_message(Key(key, key if len(key) == 1 else None))


async def storm(engine, seed, count):
    """Random keys; a fault of the UI is raised at the end of ``run_test``."""
    chance = random.Random(seed)
    keys = chance.choices(KEYS, k=count)
    app = app_for(engine)
    try:
        async with app.run_test(size=NARROW) as pilot:
            await pilot.pause()
            await type_fast(app, keys, chance)
            await pilot.pause()
    except Exception as error:
        raise AssertionError(f"the UI ended after {' '.join(keys)} (seed {seed})") from error


@pytest.mark.parametrize(
    "keys",
    [
        "f1 4 5",
        "f1 escape escape 2",
        "ctrl+p escape escape 3",
        "q n n 4",
        "t escape escape 5",
        "3 enter escape escape 1",
    ],
)
async def test_keys_that_leave_a_dialog_twice_leave_the_screen_below_alone(keys):
    """Each dialog over a screen leaves once, and the next key works."""
    app = app_for(story())
    first, *rest = keys.split()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press(first)
        await settle(pilot)
        for key in rest:  # all are on their way before the first has done its work
            app.post_message(Key(key, key if len(key) == 1 else None))
        await settle(pilot)
        await pilot.press("escape", "escape", "2")
        assert "[2]Topics" in await settle(pilot)


async def test_a_palette_opens_while_the_one_before_is_being_taken_away():
    """Textual takes a screen away later than it leaves it; quick keys open the next one first."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p")
        await settle(pilot)
        app.screen.dismiss()
        app.action_command_palette()
        await settle(pilot)
        assert CommandPalette.is_open(app)


async def test_a_palette_leaves_once_and_outlives_rows_that_went():
    """Keys and clicks that were on their way to it reach it after it was left, or was emptied."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("2", "ctrl+p")
        palette = app.screen
        await until(pilot, "Close all")
        commands = palette.query_one(CommandList)
        with app.batch_update():  # a click on a row that was drawn, as the list is emptied
            row = commands.region.offset + (4, 2)
            commands.clear_options()
            palette._action_command_list("page_down")
            await pilot.click(offset=row)
        palette.dismiss()
        palette.dismiss()
        await settle(pilot)
        assert "[2]Topics" in await settle(pilot)


@pytest.mark.parametrize(
    ("show", "action"),
    [
        (lambda app: app.navigation.show("tasks"), "stop_run"),
        (lambda app: app.actions.run_task(), "down"),
    ],
)
async def test_a_key_that_comes_before_the_screen_has_its_widgets_is_ignored(show, action):
    """Textual runs the actions of late keys on the uppermost screen, ready or not."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        show(app)
        await app.run_action(action, app.screen)
        await settle(pilot)
        await pilot.press("escape", "2")
        assert "[2]Topics" in await settle(pilot)


def story_with_bridges():
    engine = story()
    engine.changes["bridges"] = bridges(engine.clock_ns())
    return engine


@pytest.mark.parametrize("seed", range(8))
async def test_a_key_storm(seed):
    """Random keys on the story's engine; the campaign has many more."""
    await storm(story_with_bridges(), seed, 25)


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", range(2))
async def test_many_key_storms(block):
    """The same, often enough to meet rare orders of events."""
    for seed in range(30):
        await storm(story_with_bridges(), f"{block}-{seed}", 60)


@pytest.fixture
def running(tmp_path):
    with attached_appliance.make(tmp_path) as process:
        yield process.start()


async def storms_on(process, count, length):
    engine = attached_appliance.attach(process, "admin")
    try:
        for number in range(8):
            attached_appliance.publish(process, "plant/x", str(number).encode())
        for seed in range(count):
            await storm(engine, seed, length)
    finally:
        engine.close()


async def test_a_key_storm_on_a_real_engine(running):
    """An attached terminal over a real appliance: answers come when screens have gone."""
    await storms_on(running, 2, 40)


@pytest.mark.campaign
@pytest.mark.timeout(900)
async def test_key_storms_on_a_real_engine(running):
    """1500 keys on a real appliance."""
    await storms_on(running, 15, 100)


async def test_a_palette_that_leaves_while_it_looks_for_commands_ends_nothing():
    """A worker of Textual's that fails is noted in the log; the UI goes on."""
    app = app_for(story())

    async def fails():
        raise LookupError("no list")

    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        app.run_worker(fails())
        await pilot.pause()
        await pilot.press("2")
        assert "[2]Topics" in await settle(pilot)


class Failing:
    """An app that fails so many times, each ``every_s``; then the operator leaves."""

    def __init__(self, monkeypatch, engine, failures, every_s, ends=UiEnd.DETACHED):
        self.now_s = 0.0
        self.starts = 0
        self.said = []
        self.greetings = []

        def run(app):
            self.starts += 1
            self.greetings.append(getattr(app, "_greeting", ""))
            self.now_s += every_s
            return ends if self.starts > failures else None

        def sleep(seconds):
            self.now_s += seconds

        monkeypatch.setattr(ApplianceApp, "run", run)
        self.end = run_ui(engine, say=self.said.append, monotonic_s=lambda: self.now_s, sleep=sleep)


def test_the_ui_comes_back_however_often_it_fails(monkeypatch):
    """Failures one after the other are spaced out, and never end the UI; the operator is told."""
    ui = Failing(monkeypatch, story(), failures=20, every_s=0.1)
    assert ui.end is UiEnd.DETACHED
    assert ui.starts == 21
    assert len(ui.said) == 18
    assert "starts again in 10 s" in ui.said[0]
    assert ui.now_s > 170
    assert not ui.greetings[0]
    assert all("started again" in one for one in ui.greetings[1:])


def test_a_failure_now_and_then_is_got_over_at_once(monkeypatch):
    """Failures count by the minute."""
    ui = Failing(monkeypatch, story(), failures=20, every_s=31)
    assert ui.starts == 21
    assert not ui.said


def test_the_appliance_stops_while_its_ui_pauses(monkeypatch):
    """A signal stops the engine; nothing starts the UI again."""
    engine = story()
    stops = iter([False, False, False, False, True])
    before = engine.snapshot
    engine.snapshot = lambda: replace(before(), stopping=next(stops))
    monkeypatch.setattr(ApplianceApp, "__init__", lambda *_args, **_more: None)
    ui = Failing(monkeypatch, engine, failures=20, every_s=0.1)
    assert ui.end is UiEnd.STOPPING
    assert ui.starts == 3


def test_ctrl_c_leaves_an_attached_terminal_while_its_ui_pauses(monkeypatch):
    """There the appliance goes on."""
    ui_starts = []
    monkeypatch.setattr(ApplianceApp, "run", lambda app: ui_starts.append(app))

    def sleep(_seconds):
        raise KeyboardInterrupt

    assert run_ui(story(), say=str, monotonic_s=lambda: 0.0, sleep=sleep) is UiEnd.DETACHED
    assert len(ui_starts) == 3


def test_an_engine_begins_although_its_ui_fails_before_the_first_frame(monkeypatch):
    """The broker is there, with or without a picture of it."""
    begun = []
    ends = iter([None, UiEnd.QUIT])
    monkeypatch.setattr(ApplianceApp, "run", lambda _app: next(ends))
    run_ui(story(), when_painted=lambda: begun.append(1))
    assert begun


@pytest.mark.parametrize(
    "push",
    [
        lambda app: app._ask_stop(),
        lambda app: app.actions.run_task(),
        lambda app: app.actions.publish(),
        lambda app: app.navigation.show_search(filters.EMPTY),
        lambda app: app.action_command_palette(),
    ],
)
async def test_a_screen_that_is_left_as_it_appears(push):
    """It loses its widgets before it is told that it has them."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        push(app)
        app.screen.dismiss()
        await settle(pilot)
        push(app)
        await asyncio.sleep(0)
        app.action_show("topics")
        await settle(pilot)
        push(app)
        await settle(pilot)
        app.action_show("log")
        assert "[5]Log" in await settle(pilot)


async def test_a_dialog_over_the_cover_of_a_small_terminal():
    """Whatever lies over the cover, a terminal that has grown shows its screens again."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.resize_terminal(60, 20)
        await until(pilot, "Too small")
        await pilot.press("q")
        await settle(pilot)
        await pilot.resize_terminal(*NARROW)
        await settle(pilot)
        await pilot.press("n")
        await settle(pilot)
        await pilot.press("2")
        assert "[2]Topics" in await settle(pilot)


async def test_a_row_that_is_looked_for_in_an_empty_list():
    """Fold and jump in a list that has just been emptied do nothing."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("4")
        await settle(pilot)
        rows = app.screen.query_one("ClientRows")
        rows.set_items([])
        assert not rows.select("plc-01")


async def test_a_command_of_a_palette_for_a_page_that_was_left():
    """The palette does what a key would do on the page below, unless that has gone meanwhile."""
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        app.navigation.show_search(filters.EMPTY)
        await settle(pilot)
        page = app.screen
        page.dismiss()
        await settle(pilot)
        await app._run_action_of(next(key for key in keys.TABLE if key.name == "open"), page)
        await app.run_action("open", page)
        assert "[1]Live" in await settle(pilot)
