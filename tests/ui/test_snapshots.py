"""Every screen as a picture, at both sizes, with the clock standing still.

A changed picture is a changed screen: look at it, then accept it with ``--snapshot-update``.
"""

import pytest
from fake_engine import HOSTILE, Clock, FakeEngine, story
from screens import NARROW, WIDE

from appliance.state import Health, QlikState, TimerState
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings


def live():
    engine = story()
    engine.changes["run_until_ns"] = engine.clock_ns() + 42 * 10**9
    return engine


def trouble():
    engine = live()
    engine.changes["qlik"] = QlikState(
        "client-managed", "qlik01", Health("bad", "403 for user INTERNAL\\sa_repository")
    )
    topic, payload, client = HOSTILE
    engine.publish_from(topic, payload, client_id=client)
    return engine


def alarm():
    engine = live()
    since = engine.clock_ns() - 95 * 10**9
    quiet = TimerState(
        "line 7 is quiet",
        "silence",
        None,
        detail="no message on plant/line7/# since 2026-11-18 12:07:12 UTC",
        silent_since_ns=since,
    )
    engine.changes["timers"] = (*engine.snapshot().timers, quiet)
    return engine


def first():
    engine = FakeEngine(Clock())
    engine.changes["first_run"] = True
    return engine


CASES = [
    ("live", NARROW, live, [], ""),
    ("live", WIDE, live, [], ""),
    ("trouble", WIDE, trouble, [], "appliance-light"),
    ("topics", NARROW, live, ["2"], ""),
    ("tasks", NARROW, live, ["3"], ""),
    ("tasks", WIDE, live, ["3"], ""),
    ("alarm", NARROW, alarm, ["3"], ""),
    ("alarm", WIDE, alarm, [], ""),
    ("execution", NARROW, live, ["3", "enter"], ""),
    ("clients", WIDE, live, ["4"], ""),
    ("log", NARROW, live, ["5"], ""),
    ("help", NARROW, live, ["question_mark"], ""),
    ("first-run", NARROW, first, [], ""),
]


@pytest.mark.parametrize(
    ("size", "make", "keys", "theme"),
    [pytest.param(*case[1:], id=f"{case[0]}-{case[1][0]}x{case[1][1]}") for case in CASES],
)
def test_screen(snap_compare, size, make, keys, theme):
    """The screen looks as it did when somebody looked at it and found it good."""
    engine = make()
    app = ApplianceApp(engine, UiSettings(theme=theme), engine.clock_ns)

    async def bring(pilot):
        for key in keys:
            await pilot.press(key)
        for _ in range(4):
            await pilot.pause()
            app._frame()
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=bring)
