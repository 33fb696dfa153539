"""Names that others chose never become words of the filter language, on any way between screens."""

import unicodedata

import pytest
from fake_engine import T0, story
from hypothesis import example, given, strategies as st
from msgspec.structs import replace
from screens import NARROW, settle, until
from textual.widgets import Input

from appliance.mqtt import topics
from appliance.ui import filter_text, filters
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings

pytestmark = pytest.mark.campaign  # every screen, with names of every kind

NASTY = (
    'x" since:zz',
    'x"" since:zz',
    '"',
    '""""',
    "back\\slash\\",
    '\\"',
    "since:zz",
    "state:nonsense",
    "!task:x",
    "two  words ",
    "[red]",
    "[red]*?",
    "a\x1b[2Jb",
    "line\nbreak\tand\r",
    "İstanbul",
    "x" * 4000,
)
SHORT = {'x"" since:zz', "back\\slash\\", "two  words ", "a\x1b[2Jb"}
"""The names of everyday runs; a campaign walks with all of them."""
EACH_NAME = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=str(number), marks=() if name in SHORT else pytest.mark.campaign)
        for number, name in enumerate(NASTY)
    ],
)


@given(st.text(alphabet="0123456789-:T_smhd٣+Z"))
@example("0001-01-01")
@example("9999-12-31")
@example("9" * 5000 + "d")
def test_any_time_is_a_time_or_a_clear_error(text):
    """Years that a platform has no time stamps for are refused as every other wrong time is."""
    for utc in (True, False):
        try:
            filter_text.parse(f'since:"{text}"', T0, utc=utc)
        except filters.FilterError as error:
            assert str(error)


def _app(engine):
    return ApplianceApp(engine, UiSettings(), engine.clock_ns)


async def _confirm(pilot, page, wanted):
    """The filter in the bar, confirmed and then given back by Esc, is still the same filter."""
    assert page.filter == wanted
    for key in ("enter", "escape"):
        await pilot.press("slash")
        await settle(pilot)
        assert pilot.app.screen.query_one(Input).value == filter_text.text_of(wanted)
        await pilot.press(key)
        text = await settle(pilot)
        assert page.filter == wanted
        assert not any(unicodedata.category(one) == "Cc" for one in text.replace("\n", ""))


@EACH_NAME
async def test_the_messages_of_a_client(name):
    """Enter on a client shows the messages of that client."""
    engine = story()
    engine.client_list = tuple(replace(one, client_id=name) for one in engine.client_list[:1])
    engine.publish_from("hall/door", b"from the client", client_id=name)
    async with _app(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("4")
        await settle(pilot)
        await pilot.press("enter")
        assert "from the client" in await settle(pilot)
        await _confirm(pilot, pilot.app.page, filters.for_client(name))


@EACH_NAME
async def test_the_messages_of_a_topic(name):
    """Enter on a topic, or on a level with topics below it, shows their messages."""
    engine = story()
    engine.ring.clear()
    engine.publish_from(name, b"on the topic")
    engine.publish_from(f"{name}/below", b"below the topic")
    async with _app(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        for keys, below in (("home",), True), (("home", "down"), False):
            await pilot.press("2")
            await settle(pilot)
            await pilot.press(*keys, "enter")
            text = await settle(pilot)
            assert "below the topic" in text
            assert ("on the topic" in text) is below
            path = name if below else f"{name}/below"
            await _confirm(pilot, pilot.app.page, filters.for_topic(path, below=below))


@EACH_NAME
async def test_the_executions_of_a_rule_or_timer(name):
    """Enter on a rule or a timer shows its executions."""
    engine = story()
    rule = engine.snapshot().rules[0]
    engine.changes = {"rules": (replace(rule, name=name),)}
    run = next(iter(engine.runs.values()))
    engine.put(replace(run, cause=replace(run.cause, rule=name), reason="started by the rule"))
    async with _app(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        await pilot.press("shift+tab", "enter")
        await settle(pilot)
        await _confirm(pilot, pilot.app.page, filters.for_rule(name))


@EACH_NAME
async def test_the_search_in_the_journal_takes_the_filter_along(name):
    """A search begins with the filter of the Live screen, also when it holds odd signs."""
    engine = story()
    engine.publish_from("hall/door", b"from the client", client_id=name)
    async with _app(engine).run_test(size=NARROW) as pilot:
        await settle(pilot)
        pilot.app.navigation.show_live(filters.for_client(name))
        await settle(pilot)
        pilot.app.page.action_search()
        await until(pilot, "from the client")
        assert pilot.app.page.filter == filters.for_client(name)


def test_a_name_that_is_empty_filters_nothing():
    """There is nothing to filter for."""
    assert filters.for_client("").is_empty
    assert filters.for_rule("").is_empty
    assert filters.for_topic("", below=False).is_empty
    assert filters.for_topic("", below=True).topics == ("/#",)


async def test_text_that_is_no_filter_is_told_and_changes_nothing():
    """The line below says what is wrong, in full; the list keeps the last filter that is one."""
    async with _app(story()).run_test(size=NARROW) as pilot:
        await settle(pilot)
        page = pilot.app.page
        await pilot.press("slash", *"hall/#")
        await until(pilot, "filter hall/#")
        await pilot.press(*" state:zz", "enter")
        text = await until(pilot, "state:zz is not known")
        assert "expired, lost" in text
        assert page.filter.topics == ("hall/#",)
        assert pilot.app.screen.query_one(Input).has_focus
