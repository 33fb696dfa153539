"""Reading the screen of an app under test as an operator would."""

from __future__ import annotations

from textual.geometry import Region

from appliance.ui.app import ApplianceApp

NARROW = (80, 24)
WIDE = (140, 40)
HUGE = (200, 55)


def screen_text(app: ApplianceApp) -> str:
    """Every row of the uppermost screen, as it would be on a terminal."""
    width, height = app.size
    strips = app.screen._compositor.render_strips(app.size)
    assert Region(0, 0, width, height).area
    return "\n".join(strip.text for strip in strips)


async def settle(pilot) -> str:
    """Let one poll and its repaint happen; returns the screen."""
    app = pilot.app
    await pilot.pause()
    app._frame()
    await pilot.pause()
    return screen_text(app)


async def until(pilot, wanted: str, frames: int = 120) -> str:
    """Poll until ``wanted`` is on the screen: for what a worker thread brings."""
    text = ""
    for _ in range(frames):
        text = await settle(pilot)
        if wanted in text:
            return text
        await pilot.pause(0.01)
    raise AssertionError(f"{wanted!r} never came; the screen was:\n{text}")


async def has_focus(pilot, selector: str) -> None:
    """Wait until a widget has the focus: keys go where the focus is when they are pressed.

    A pilot waits for a process that is idle, and one that gets no processor seems idle.
    """
    for _ in range(500):
        wanted = pilot.app.screen.query(selector)
        if wanted and pilot.app.focused is wanted.first():
            return
        await pilot.pause(0.01)
    raise AssertionError(f"{selector} never got the focus; {pilot.app.focused} has it")
