"""The Freshness screen answers how fresh each task is, what is late, and why."""

import pytest
from fake_engine import TASKS, Clock, FakeEngine, S, story
from screens import NARROW, WIDE, settle, until

from appliance.engine_api import TaskFreshness
from appliance.errors import UnavailableError
from appliance.plot import Series
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings
from appliance.ui.views import freshness as view

NOW = Clock()()


def app_for(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


async def test_what_is_late_stands_first_with_its_reason():
    """One key shows it; the chosen task's figures stand beside those of a schedule."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("7")
        text = await until(pilot, "1 late")
        rows = text.split("\n")
        first = next(number for number, row in enumerate(rows) if "Reload Sales" in row)
        assert "late 21m" in rows[first] and "15m" in rows[first]
        assert "stale 2h" in rows[first + 1] and "stale 40s" in rows[first + 2]
        assert "fresh" in rows[first + 3]
        assert "late for 6:00" in text and "312 messages, 96 runs, 216 saved" in text
        assert "every 1h would give  p50 32:30, p95 59:30, worst 1:02:30  (168 runs)" in text
        await pilot.press("v")
        assert "every 4h would give" in await settle(pilot)


async def test_the_curve_of_the_chosen_task():
    """The day is asked for when a task is chosen; one without a covered message says so."""
    async with app_for(story()).run_test(size=WIDE) as pilot:
        await settle(pilot)
        await pilot.press("7")
        await until(pilot, "50m┤")
        await pilot.press("end")
        assert "No run has covered a message" in await until(pilot, "app Finance")


async def test_from_a_task_to_its_message_and_its_executions():
    """``m`` shows what waits, Enter what was started; a fresh task has no message."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("7")
        await until(pilot, "1 late")
        await pilot.press("m")
        await until(pilot, "topic ")
        await pilot.press("escape")
        await until(pilot, "1 late")
        await pilot.press("end", "m")
        await settle(pilot)
        assert "no message waits" in " ".join(one.message for one in pilot.app._notifications)
        await pilot.press("home", "enter")
        await until(pilot, "[3]Tasks")


async def test_what_is_late_can_be_started_held_and_named():
    """``t``, ``H`` and ``y`` act on the chosen task."""
    engine = story()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("7")
        await until(pilot, "1 late")
        await pilot.press("H")
        assert "task Reload Sales" in await settle(pilot)
        await pilot.press("escape")
        await until(pilot, "app Sales")
        await pilot.press("y")
        await until(pilot, "the task by its name")
        await pilot.press("escape")
        await until(pilot, "app Sales")
        await pilot.press("t")
        await until(pilot, "Start Reload Sales now?")
        await pilot.press("y")
        await pilot.app.workers.wait_for_complete()
    started = [call for call in engine.calls if call[0] == "start_task"]
    assert started and started[0][1] == TASKS[0].id


async def test_sorted_and_filtered():
    """By each column, by a word; the filter says how many it hides."""
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("7")
        await until(pilot, "1 late")
        await pilot.press("s")
        text = await settle(pilot)
        assert "sorted by name" in text
        assert text.index("Export Finance") < text.index("Reload HR") < text.index("Reload Sales")
        await pilot.press("slash", *"fresh", "enter")
        text = await until(pilot, "filter fresh")
        assert "Export Finance" in text and "Reload HR" not in text
        await pilot.press("slash", *"xyz", "enter")
        await until(pilot, "4 tasks hidden by the filter")


async def test_a_problem_leads_to_its_task():
    """From "what is wrong" to the row of the task that is late."""
    engine = story()
    late = engine.freshness()[1]
    engine.changes["stale"] = (
        TaskFreshness(
            late.task_id, late.name, stale_since_ns=late.stale_since_ns, oldest_seq=1, is_late=True
        ),
    )
    engine.changes["late_count"] = engine.changes["stale_count"] = 1
    async with app_for(engine).run_test(size=NARROW) as pilot:
        assert "Reload HR stale 2 h" in await settle(pilot)
        await pilot.press("exclamation_mark", "enter")
        await until(pilot, "── Reload HR ──")


async def test_an_engine_that_lacks_it_is_said():
    """An older appliance has no such answer; the screen says so and goes on."""

    class Older(FakeEngine):
        def freshness(self):
            raise UnavailableError("This appliance can't tell how fresh tasks are.")

    async with app_for(Older(Clock())).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("7")
        await until(pilot, "can't tell how fresh tasks are")


async def test_no_message_has_asked():
    """An empty screen says why it is empty."""

    class Fresh(FakeEngine):
        def freshness(self):
            return []

    async with app_for(Fresh(Clock())).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("7")
        await until(pilot, "No message has asked for a task yet.")


def points(curve: Series) -> list[tuple[float, float | None]]:
    return [((at - NOW) / S, value) for at, value in zip(curve.times_ns, curve.values, strict=True)]


def test_the_curve_grows_until_a_run_covers():
    """A message at -100 was covered at -40; one at -60 still waits."""
    curve = view.curve([(NOW - 40 * S, 60.0)], NOW - 60 * S, NOW, "x")
    assert points(curve) == [
        (-100, 0), (-40, 60), (-40, 0),
        (-40, 20), (0, 60),
    ]  # fmt: skip
    assert points(view.curve([(NOW - 40 * S, 60.0)], None, NOW, "x"))[-1] == (0, 0)
    assert list(curve.times_ns) == sorted(curve.times_ns)


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "90s"), (900, "15m"), (3600, "1h"), (86400, "1d"), (5400, "90m")]
)
def test_intervals_are_written_as_in_the_configuration(seconds, text):
    assert view.interval(seconds) == text


def test_hostile_names_are_made_safe():
    """Names and reasons come from others."""
    bad = "\x1b[31mred\nline"
    one = TaskFreshness("x", bad, app=bad, stale_since_ns=NOW, why=bad, is_late=True)
    for line in (view.row(one, NOW, 140), *view.foot(one, None, 3600, NOW, utc=True)):
        assert not any(sign in text for text, _ in line for sign in "\x1b\n")


def test_the_fake_engine_is_of_its_tasks():
    assert {one.task_id for one in story().freshness()} <= {one.id for one in TASKS}
