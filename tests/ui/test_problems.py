"""One key shows what is wrong and what was noted, whole, and leads to what is behind it."""

import pytest
from fake_engine import S, Clock, FakeEngine, story
from screens import NARROW, WIDE, settle, until

from appliance.counters import Counter
from appliance.engine_api import (
    Acknowledgement,
    CounterBite,
    FailingTask,
    HoldState,
    TimerState,
)
from appliance.model import Cause, Execution, ExecutionState
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings

REASON = (
    "The following error occurred: Table 'HR.Employees' was not found in the connection 'HR on "
    "sql07 (read only)'. The login was accepted, and the schema has no such table. Check the "
    "connection HR and the rights of its user, then start the task again. (POST https://qlik01)"
)


def engine_with_a_failure() -> FakeEngine:
    engine = story()
    now = engine.clock_ns()
    engine.put(
        Execution(
            77, "id-hr", "Reload HR", ExecutionState.FAILED, Cause("timer", rule="hr"), now - 9 * S,
            execution_id="run", started_ns=now - 8 * S, ended_ns=now - 5 * S, attempts=1,
            reason=REASON, log_tail=("10:21 Connecting", "10:22 Error: no such table"),
        )
    )  # fmt: skip
    engine.changes["failing"] = (
        FailingTask("id-hr", "Reload HR", ExecutionState.FAILED, REASON, 77, now - 5 * S),
    )
    engine.changes["failing_count"] = 1
    return engine


def app_for(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


def said(pilot) -> str:
    return " ".join(one.message for one in pilot.app._notifications)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_the_whole_reason_is_one_key_away(size):
    """``!``: the reason without a cut, the script log, and the key that starts the task again."""
    engine = engine_with_a_failure()
    async with app_for(engine).run_test(size=size) as pilot:
        text = await settle(pilot)
        assert "▲ Reload HR failed" in text.split("\n")[0]
        await pilot.press("!")
        text = await until(pilot, "── Why")
        assert REASON in words(text)
        assert "10:22 Error: no such table" in text
        await pilot.press("r")
        await until(pilot, "Start Reload HR again?")
        await pilot.press("y")
        await pilot.app.workers.wait_for_complete()


async def test_enter_leads_to_the_execution_with_its_reason_on_top():
    """At 80x24 the reason is the first thing, whole; the request's address comes last."""
    async with app_for(engine_with_a_failure()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("!")
        await until(pilot, "── Why")
        await pilot.press("enter")
        text = await until(pilot, "── Execution 77")
        assert REASON in words(text)
        rows = text.split("\n")
        assert "✗ failed: " in rows[4]
        await pilot.press("end")
        assert "Script log, last lines" in await settle(pilot)


async def test_a_paused_timer_leads_to_its_row_and_goes_on():
    engine = story()
    engine.changes["timers"] = (
        TimerState("hourly", "schedule", engine.clock_ns() + S),
        TimerState("nightly", "schedule", None, paused=True),
    )
    async with app_for(engine).run_test(size=NARROW) as pilot:
        assert "▲ nightly paused" in (await settle(pilot)).split("\n")[0]
        await pilot.press("!")
        assert "space continue it" in await until(pilot, "timer nightly is paused")
        await pilot.press("enter")
        await until(pilot, "RULE / TIMER")
        await pilot.press("space")
        await pilot.app.workers.wait_for_complete()
        assert ("pause_timer", "nightly", False) == engine.calls[-1][:3]


async def test_what_was_noted_is_named_and_explained():
    """The foot says how many and the key; the key says what each of them means."""
    engine = FakeEngine(Clock())
    counter = Counter.LOGINS_REFUSED
    engine.changes["counters"] = ((counter.metric, 3),)
    async with app_for(engine).run_test(size=NARROW) as pilot:
        assert "▲ 3 noted !" in await settle(pilot)
        await pilot.press("!")
        text = await until(pilot, f"{counter.label}: 3 since")
        assert words(counter.text) in words(text)


async def test_nothing_wrong_is_said_too():
    engine = FakeEngine(Clock())
    engine.changes["counters"] = ()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("!")
        await until(pilot, "All is well, and nothing was refused or dropped")
        await pilot.press("enter", "f", "r", "space")
        await pilot.press("escape")
        assert "What is wrong" not in await settle(pilot)


async def test_a_merged_message_says_which_one_asked_first():
    """Its outcome is another message's execution: the page says so."""
    engine = FakeEngine(Clock())
    first = engine.publish_from("later", b"1")
    second = engine.publish_from("later", b"2")
    engine.put(
        Execution(
            5, "id", "Reload Stock", ExecutionState.WAITING, Cause("message", first, "later"),
            engine.clock_ns(), reason="Waits for quiet (debounce).",
        )
    )  # fmt: skip
    engine.mark_of[second] = engine.mark_of[first]
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("enter")
        await until(pilot, f"merged: message {first} asked for it first")
        await pilot.press("f")
        await pilot.app.workers.wait_for_complete()
        assert engine.calls[-1][:2] == ("fire_timer", "Reload Stock #5")


async def test_a_message_without_a_trigger_says_so():
    """Also where the engine can't explain: the snapshot knows the triggers."""
    engine = FakeEngine(Clock())
    engine.publish_from("hall/door", b"open")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("enter")
        await until(pilot, "No trigger listens on its topic.")


async def test_a_problem_is_acknowledged_with_a_note_and_taken_back():
    """``!``, ``a``, the note, Enter: all is well, and the row below says who and why."""
    engine = engine_with_a_failure()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("!")
        await until(pilot, "a acknowledge")
        await pilot.press("a")
        text = await until(pilot, "until it happens again")
        assert "Reload HR failed: The following error" in words(text)
        await pilot.press(*"DBA", "space", *"knows", "enter")
        text = await until(pilot, "✓ all well")
        asked = ("acknowledge_problem", "task", "id-hr", "77", "DBA knows")
        assert asked in [call[:5] for call in engine.calls]
        text = await until(pilot, "a take it back")
        assert "acknowledged 1" in text
        assert "✓ Reload HR failed" in text
        assert " at the terminal at 2026-11-18 " in words(text)
        assert words(text).count("DBA knows") == 2  # in the row, and below
        await pilot.press("a")
        await until(pilot, "▲ Reload HR failed")
        assert engine.calls[-1][:3] == ("unacknowledge_problem", "task", "id-hr")


async def test_escape_leaves_a_problem_as_it_is():
    engine = engine_with_a_failure()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("!")
        await until(pilot, "a acknowledge")
        await pilot.press("a")
        await until(pilot, "until it happens again")
        await pilot.press("x", "escape")
        assert "▲ Reload HR failed" in await until(pilot, "a acknowledge")
        assert not [call for call in engine.calls if call[0] == "acknowledge_problem"]


async def test_what_stands_until_it_is_mended_is_not_acknowledged():
    engine = story()
    engine.changes["timers"] = (TimerState("nightly", "schedule", None, paused=True),)
    engine.changes["counters"] = ((Counter.LOGINS_REFUSED.metric, 3),)
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("!")
        text = await until(pilot, "timer nightly is paused")
        assert "a acknowledge" not in text.rpartition("\n")[0]
        await pilot.press("a")
        await settle(pilot)
        assert "stands until it is mended" in said(pilot)
        await pilot.press("down", "a")
        await settle(pilot)
        assert "there is nothing to acknowledge" in said(pilot)


async def test_a_counter_of_losses_says_since_when_and_stands_once():
    """It is named among what is wrong, and not again among what was noted."""
    engine = FakeEngine(Clock())
    counter = Counter.DELIVERIES_DROPPED_QUEUE_FULL
    now = engine.clock_ns()
    engine.changes["counters"] = ((counter.metric, 12),)
    engine.changes["bites"] = (CounterBite(counter.metric, 12, now - 60 * S, now - S, "1"),)
    async with app_for(engine).run_test(size=NARROW) as pilot:
        assert f"▲ {counter.label}" in (await settle(pilot)).split("\n")[0]
        await pilot.press("!")
        text = await until(pilot, "last at")
        assert words(counter.text) in words(text)
        assert "noted since the start 0" in text


async def test_text_of_others_in_acknowledgements_and_holds_is_made_safe():
    """A note, a name or a reason moves no cursor and hides nothing."""
    evil = "evil\x1b[2J\u202e\x9b31m\r\nnext"
    engine = engine_with_a_failure()
    now = engine.clock_ns()
    engine.changes["acknowledged"] = (
        Acknowledgement("task", "id-hr", "77", evil, now, evil, evil, evil),
    )
    engine.changes["failing_acknowledged"] = 1
    engine.held["client", evil] = HoldState("client", evil, None, evil, evil, now, title=evil)
    async with app_for(engine).run_test(size=WIDE) as pilot:
        await settle(pilot)
        await pilot.press("!", "down")
        texts = [await until(pilot, "acknowledged by")]
        await pilot.press("up", "H")
        texts.append(await until(pilot, "It is held"))
        for text in texts:
            assert "evil" in text
            assert not {"\x1b", "\u202e", "\x9b", "\r"} & set(text)
