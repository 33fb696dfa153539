"""The help: complete, because it is made of the tables that the UI works by."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import test_snapshots
from fake_engine import story
from screens import NARROW, WIDE, screen_text, settle

from appliance.model import ExecutionState
from appliance.ui import filter_forms, filter_text, keys, screens, symbols
from appliance.ui.app import ApplianceApp
from appliance.ui.filters import GROUPS
from appliance.ui.lines import line_width
from appliance.ui.screens.page import Page
from appliance.ui.screens.help_dialog import CELLS, WIDE_CELLS
from appliance.ui.settings import UiSettings
from appliance.ui.views import key_help
from appliance.ui.widgets.rows import Rows

NOW = 1_795_000_000_000_000_000


def pages(kind=Page):
    for found in pkgutil.iter_modules(screens.__path__):
        importlib.import_module(f"{screens.__name__}.{found.name}")
    for one in kind.__subclasses__():
        if one.SCOPES:
            yield one
        yield from pages(one)


PAGES = {page.__name__: page for page in pages()}


def help_of(page, cells=WIDE_CELLS, chosen=None):
    return key_help.lines(page.SCOPES, chosen or {}, page.FILTER_WORDS, cells)


def text_of(lines):
    return "\n".join("".join(text for text, _ in line) for line in lines)


def test_every_name_that_may_stand_in_the_configuration_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text("utf-8")
    listed = page.partition("The names of actions are ")[2].partition(".\n")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == {key.name for key in keys.TABLE}


@pytest.mark.parametrize("key", keys.TABLE, ids=lambda key: key.name)
def test_every_key_is_in_the_help(key):
    """Each key that is bound is in the help of each page on which it works."""
    where = [page for page in PAGES.values() if key.scope in (*page.SCOPES, keys.EVERYWHERE)]
    assert where
    for page in where:
        text = text_of(help_of(page))
        assert all(keys.shown(one) in text for one in keys.keys_of(key, {}))
        assert all(word in text for word in key.help.split())


@pytest.mark.parametrize("name", PAGES)
def test_every_binding_of_a_page_is_in_its_help(name):
    """No page or list binds a key beside the table."""
    page = PAGES[name]
    text = text_of(help_of(page))
    for binding in [*page.BINDINGS, *Rows.BINDINGS, *ApplianceApp.BINDINGS]:
        for one in binding.key.split(","):
            if keys.MOVE in page.SCOPES or binding not in Rows.BINDINGS:
                assert keys.shown(one) in text


@pytest.mark.parametrize("cells", [CELLS, WIDE_CELLS])
@pytest.mark.parametrize("name", PAGES)
def test_no_line_of_the_help_is_cut(name, cells):
    """Each text is whole in a narrow and in a wide terminal, whatever keys were chosen."""
    chosen = {"pause": ("f5", "ctrl+space", "pause", "space", "p")}
    for line in help_of(PAGES[name], cells, chosen):
        assert line_width(line) <= cells
        assert not any("…" in text and len(text.strip()) > 3 for text, _ in line)


def test_the_help_has_the_keys_of_the_configuration():
    """A key that was chosen is shown in place of the usual one."""
    text = text_of(help_of(PAGES["LiveScreen"], chosen={"export": ("f9",)}))
    assert "F9" in text


@pytest.mark.parametrize("form", filter_forms.FORMS, ids=lambda form: form.example)
def test_every_form_of_the_filter_language_is_read(form):
    """What the help says can be typed: the example asks for what the table says."""
    found = filter_text.parse(form.example, NOW, words=[form.word])
    assert not found.is_empty
    assert form.example in text_of(help_of(PAGES["LiveScreen"]))


def test_the_help_lacks_no_word_of_the_filter_language():
    """Each word that the parser knows has a form; each state and group of states is named."""
    assert {form.word for form in filter_forms.FORMS} == set(filter_text.WORDS)
    text = text_of(help_of(PAGES["LiveScreen"]))
    assert all(one in text for one in (*GROUPS, *(state.value for state in ExecutionState)))


def test_a_page_shows_the_words_that_it_can_be_asked_for():
    """Clients can't be asked for a state, so its help does not offer it."""
    text = text_of(help_of(PAGES["ClientsScreen"]))
    assert "client:" in text
    assert "state:" not in text
    assert "Filter" not in text_of(help_of(PAGES["MessageScreen"]))


DRAWN = set("─│╭╮╰╯▔▁▂▃▄▅▆▇█▏▎▍▌▋▊▉·ö扉🔎␛\N{REPLACEMENT CHARACTER}")
"""Lines, bars, and what only the payloads and names of these stories have."""


@pytest.mark.parametrize(
    "name", ["live", "trouble", "alarm", "topics", "tasks", "timers", "clients", "first-run",
             "picker", "message"],
)  # fmt: skip
async def test_every_sign_on_a_page_is_in_the_help(name):
    """An operator finds the meaning of each sign: no page has one that the legend lacks."""
    make, pressed, theme = test_snapshots.CASES[name]
    app = test_snapshots.app_for(make(), theme)
    async with app.run_test(size=WIDE) as pilot:
        await test_snapshots.shown(app, pressed)(pilot)
        seen = {one for one in screen_text(app) if ord(one) > 126} - DRAWN
    legend = {one for sign, _, _ in symbols.LEGEND for one in sign}
    arrows_of_keys = set("⏎←→↑↓")
    assert seen <= legend | arrows_of_keys


async def test_the_help_scrolls_and_another_key_closes_it():
    """At 80x24 the whole help can be read with the keys of a list."""
    engine = story()
    app = ApplianceApp(engine, UiSettings(), engine.clock_ns)
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("question_mark")
        text = await settle(pilot)
        assert "scroll" in text
        for _ in range(12):
            await pilot.press("pagedown")
            text += await settle(pilot)
        for line in help_of(PAGES["LiveScreen"], CELLS):
            assert "".join(part for part, _ in line).rstrip() in text
        await pilot.press("home")
        assert "row up, down" in await settle(pilot)
        await pilot.press("x")
        assert "[1]Live" in await settle(pilot)
