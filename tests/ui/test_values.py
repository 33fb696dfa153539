"""The Values screen: the numbers of a topic, plotted from the journal by the operator's keys."""

import math

import msgspec
import pytest
from fake_engine import FakeEngine, press_hour, story
from hypothesis import given, settings
from hypothesis import strategies as st
from screens import NARROW, WIDE, settle, until
from sparkplug_payloads import BIRTH, DATA

from appliance.engine_api import Engine
from appliance.errors import ApplianceError
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings
from appliance.ui.value_reader import SPANS_S, ValueReader


def a_press():
    engine = story()
    press_hour(engine)
    return engine


def app_for(engine, **settings):
    return ApplianceApp(engine, UiSettings(**settings), engine.clock_ns)


def said(pilot):
    """The notices that are on the screen."""
    return " ".join(one.message for one in pilot.app._notifications)


async def until_there(pilot, folder):
    """Wait until a file is written."""
    for _ in range(200):
        if any(folder.glob("*.jsonl")) and "values-" in said(pilot):
            return
        await pilot.pause(0.01)


def row_of(text, name):
    return next(row for row in text.split("\n") if f" {name} " in row)


@pytest.mark.parametrize("size", [NARROW, pytest.param(WIDE, marks=pytest.mark.campaign)])
async def test_a_topic_is_plotted_with_lowest_mean_and_highest(size):
    """v on a topic: the first of its numbers at once, others by a key, each with its sign."""
    async with app_for(a_press()).run_test(size=size) as pilot:
        await settle(pilot)
        await pilot.press("v")
        text = await until(pilot, "all read")
        assert row_of(text, "bar").split()[:6] == ["▌1", "bar", "170.1", "159.7", "188.4415", "205"]
        assert "⡀" in text
        assert "░" in text
        assert "1204413" in row_of(text, "parts")
        await pilot.press("down", "space")
        text = await until(pilot, "each its own scale")
        assert "2 oil.temp" in row_of(text, "oil.temp")
        assert "100%" in text
        await pilot.press("s")
        assert "one scale" in await until(pilot, "one scale")
        await pilot.press("up", "space")
        text = await until(pilot, "1 oil.temp")
        assert "1 bar" not in text
        await pilot.press("down", "enter")
        await settle(pilot)
        assert "One value is always plotted" in said(pilot)


@pytest.mark.campaign
async def test_curves_are_told_apart_without_colour(monkeypatch):
    """With NO_COLOR each is drawn of its digit."""
    monkeypatch.setenv("NO_COLOR", "1")
    async with app_for(a_press()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("v", "down", "space")
        text = await until(pilot, "each its own scale")
        assert "11111" in text
        assert "22222" in text


@pytest.mark.campaign
async def test_the_time_is_chosen_by_keys():
    async with app_for(a_press()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("v")
        await until(pilot, "all read")
        await pilot.press("left", "left")
        text = await until(pilot, "5 minutes")
        assert row_of(await until(pilot, "all read"), "bar").split()[-1] != "159"
        await pilot.press(*["right"] * (len(SPANS_S) + 3))
        text = await until(pilot, "30 days")
        assert row_of(await until(pilot, "all read"), "bar").split()[-1] == "159", text


async def test_what_comes_meanwhile_is_added():
    engine = a_press()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("v")
        await until(pilot, "all read")
        engine.publish_from("plant/press12/state", b'{"bar": 999, "new": 5}')
        engine.publish_from("elsewhere", b'{"bar": 12345}')
        engine.clock_ns.go(40)
        text = await until(pilot, "999")
        assert row_of(text, "bar").split()[2] == row_of(text, "bar").split()[5] == "999"
        assert "5" in row_of(text, "new")


@pytest.mark.campaign
async def test_a_plain_number_and_a_level_of_topics():
    engine = story()
    engine.publish_from("hall/temp", b"21.5")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("v")
        assert "21.5" in row_of(await until(pilot, "all read"), "the payload")
        await pilot.press("m")
        assert "[1]Live" in await until(pilot, "topic:hall/temp")
        await pilot.press("2", "home", "v")
        await settle(pilot)
        assert "choose a topic in it" in said(pilot)


async def test_without_a_topic_it_says_what_to_do():
    async with app_for(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("8")
        assert "press 2, go to a topic, and press v" in await until(pilot, "[8]Values")
        await pilot.press("s", "left", "m", "c", "C", "e", "enter")
        assert "[2]Topics" in await until(pilot, "[2]Topics")


@pytest.mark.campaign
async def test_nothing_is_read_for_a_page_that_has_been_left():
    engine = a_press()
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("v")
        await until(pilot, "all read")
        await pilot.press("1")
        await until(pilot, "[1]Live")
        asked = len(engine.calls)
        engine.clock_ns.go(600)
        for _ in range(3):
            await settle(pilot)
        assert not [one for one in engine.calls[asked:] if one[0] == "values"]
        await pilot.press("8")
        assert "all read" in await until(pilot, "all read")


async def test_an_appliance_that_has_no_values_is_asked_once():
    engine = a_press()
    asked = []

    def refused(wanted, before):
        asked.append(wanted)
        return Engine.values(engine, wanted, before)

    engine.values = refused
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("v")
        await until(pilot, "not read")
        for _ in range(5):
            await settle(pilot)
        assert len(asked) == 1


@pytest.mark.campaign
async def test_the_points_of_the_curves_are_exported(tmp_path):
    async with app_for(a_press(), exports=tmp_path).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("v")
        await until(pilot, "all read")
        await pilot.press("e")
        await until_there(pilot, tmp_path)
        (file,) = tmp_path.glob("values-*.jsonl")
        rows = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
        assert {row["path"] for row in rows} == {"bar"}
        assert all(row["min"] <= row["mean"] <= row["max"] for row in rows)
        assert rows[0]["at"].endswith("Z")


async def test_a_message_of_sparkplug_b_is_read_with_its_names():
    """In the detail of a message: alias 2 is called as in the birth before it."""
    engine = story()
    engine.publish_from("spBv1.0/plant/NBIRTH/edge7", BIRTH)
    engine.publish_from("spBv1.0/plant/NDATA/edge7", DATA)
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert "<Sparkplug B" in await settle(pilot)
        await pilot.press("enter")
        text = await until(pilot, "Temperature")
        assert "Temperature  Float  21.5" in text
        assert "format Sparkplug B" in text
        await pilot.press("v")
        assert "21.5" in row_of(await until(pilot, "all read"), "Temperature")


async def test_bytes_that_are_no_sparkplug_are_said_to_be_none():
    engine = story()
    engine.publish_from("spBv1.0/plant/NDATA/edge7", b"\xff\x00\x01")
    async with app_for(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("enter")
        assert "000000  ff 00 01" in await until(pilot, "not understood as Sparkplug B")


_arrivals = st.lists(
    st.tuples(st.integers(0, 400), st.integers(-100, 100), st.booleans()), min_size=1, max_size=40
)


@settings(max_examples=15, deadline=None)
@given(_arrivals)
def test_what_is_read_by_and_by_is_what_is_there(arrivals):
    """At any time of reading, the sums are those of all messages within the time."""
    engine = FakeEngine(_clock())
    reader = ValueReader("t", ["$"], SPANS_S[0])
    sent = []
    for wait_s, number, is_read in arrivals:
        engine.clock_ns.go(wait_s)
        engine.publish_from("t", b"%d" % number)
        sent.append((engine.clock_ns(), number))
        if is_read:
            reader.read(engine, engine.clock_ns(), lambda: None)
    now = engine.clock_ns()
    reader.read(engine, now, lambda: None)
    (curve,) = reader.series(now)
    first = (now - reader.span_ns) // reader.width_ns
    wanted = {}
    for at, number in sent:
        if at // reader.width_ns >= first and at >= now - reader.span_ns:
            wanted.setdefault(at // reader.width_ns, []).append(number)
    found = {
        at // reader.width_ns: (mean, low, high)
        for at, mean, low, high in zip(
            curve.times_ns, curve.values, curve.lows, curve.highs, strict=True
        )
        if mean is not None and at // reader.width_ns in wanted
    }
    assert found == {
        stretch: (pytest.approx(math.fsum(numbers) / len(numbers)), min(numbers), max(numbers))
        for stretch, numbers in wanted.items()
        if stretch > first
    } | {stretch: found[stretch] for stretch in wanted if stretch == first}


def _clock():
    return type(story().clock_ns)()
