"""Terminals of sixteen colours, of none, and the console of Linux: every state can be told apart."""

import itertools
import sys

import pytest
from fake_engine import story
from rich.color import ColorType
from screens import NARROW, settle, until

from appliance.model import ExecutionState
from appliance.ui import symbols, text, themes
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import Remembered, UiSettings, save


by_term = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows is asked for the colours of its console, not TERM"
)


@pytest.fixture
def terminal(monkeypatch):
    """Sets what the environment says of the terminal."""
    yield lambda **said: [
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        for name, value in said.items()
    ]
    text.use_console_font(on=False)


def app_for(engine, **settings):
    return ApplianceApp(engine, UiSettings(**settings), engine.clock_ns)


def colours_of(app):
    """Every colour that the screen is drawn with."""
    strips = app.screen._compositor.render_strips(app.size)
    styles = [segment.style for strip in strips for segment in strip if segment.style is not None]
    return {one for style in styles for one in (style.color, style.bgcolor) if one is not None}


@by_term
@pytest.mark.parametrize("term", ["linux", "xterm", "screen", "xterm-16color"])
async def test_sixteen_colours_are_the_terminals_own(terminal, term):
    """Where the terminal has sixteen colours, nothing is drawn with others, on any page."""
    terminal(TERM=term, COLORTERM="")
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert app.theme == "appliance-16"
        for page in "12345":
            await pilot.press(page)
            await settle(pilot)
            assert all(
                one.type in (ColorType.STANDARD, ColorType.DEFAULT) for one in colours_of(app)
            )
        assert len(colours_of(app)) >= 3


@pytest.mark.parametrize("term", ["xterm-256color", "tmux-256color"])
async def test_more_colours_keep_the_usual_theme(terminal, term):
    """A terminal of 256 colours gets the theme of before."""
    terminal(TERM=term, COLORTERM="")
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        assert app.theme == themes.DEFAULT


@by_term
async def test_the_theme_can_be_chosen_anywhere(terminal, tmp_path):
    """The setting goes first; a remembered theme of another terminal does not; the palette has it."""
    remember = tmp_path / "ui.json"
    save(remember, Remembered(theme="appliance-light"))
    terminal(TERM="linux", COLORTERM="")
    assert app_for(story(), remember=remember).theme == "appliance-16"
    assert app_for(story(), theme="appliance-contrast").theme == "appliance-contrast"
    terminal(TERM="xterm-256color", COLORTERM="truecolor")
    assert app_for(story(), remember=remember).theme == "appliance-light"
    app = app_for(story())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p", *"appliance-16")
        await until(pilot, "Theme appliance-16")
        await pilot.press("enter")
        await settle(pilot)
        assert app.theme == "appliance-16"


def test_no_two_kinds_of_state_look_alike():
    """With sixteen colours: well, watch, bad, known and running differ; none is the plain text."""
    tones = themes.styles({}, ansi=True)
    kinds = [tones[tone] for tone in ("", "ok", "warn", "bad", "info", "run")]
    assert all(a != b for a, b in itertools.combinations(kinds, 2))


def test_every_state_has_a_sign_or_a_word_of_its_own():
    """Without colour, and on the console of Linux, the sign or the word tells the state."""
    shown = {(symbols.sign(state), symbols.word(state)) for state in ExecutionState}
    assert len(shown) == len(ExecutionState)
    assert len({symbols.word(state) for state in ExecutionState}) == len(ExecutionState)


CP437 = bytes(range(32, 127)).decode() + bytes(range(128, 256)).decode("cp437") + "•♦○►▲▼↑↓→←"


def test_the_console_of_linux_has_every_sign():
    """Its fonts have the characters of code page 437; states that differ stay different."""
    text.use_console_font(on=True)
    try:
        signs = {one: text.printable(one) for entry in symbols.LEGEND[:-1] for one in entry[0]}
        assert all(shown in CP437 for shown in signs.values())
        states = [symbols.sign(state) for state in ExecutionState]
        assert len({signs[one] for one in states}) == len(set(states))
        assert text.printable("✓ done") == "√ done"
    finally:
        text.use_console_font(on=False)
    assert text.printable("✓ done") == "✓ done"


async def test_the_console_of_linux_gets_them(terminal):
    """TERM=linux: the whole page is drawn with what the console can show."""
    terminal(TERM="linux", COLORTERM="")
    async with app_for(story()).run_test(size=NARROW) as pilot:
        shown = await settle(pilot)
        assert "√ all well" in shown
        assert "x failed" in shown
        assert not set("✓✗▶↻◌●") & set(shown)
