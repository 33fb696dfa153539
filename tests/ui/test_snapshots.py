"""Every screen as a picture, in a small, a wide and a huge terminal; the clock stands still.

A changed picture is a changed screen: look at it, then accept it with ``--snapshot-update``.
"""

import msgspec
import pytest
from fake_engine import (
    HOSTILE,
    Clock,
    FakeEngine,
    bridges,
    earlier_runs,
    press_hour,
    explanation,
    story,
)
from screens import HUGE, NARROW, WIDE
from sparkplug_payloads import BIRTH

from appliance.errors import NoPermissionError
from appliance.counters import Counter
from appliance.engine_api import (
    HELD,
    Acknowledgement,
    CounterBite,
    FailingTask,
    Health,
    HoldState,
    QlikState,
    TimerState,
    WaitState,
)
from appliance.model import MessageProperties
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


def wrong():
    """A task that fails, a timer that is paused, a server that is away, and refusals."""
    engine = tasks()
    now = engine.clock_ns()
    failed = max(engine.runs.values(), key=lambda one: one.id)
    engine.changes["failing"] = (
        FailingTask(failed.task_id, failed.task_name, failed.state, failed.reason, failed.id, now),
    )
    engine.changes["failing_count"] = 1
    engine.changes["timers"] = (TimerState("weekly-hr", "schedule", None, paused=True),)
    refused = "The connection was refused, so no program listens there. (GET https://qlik01/about)"
    engine.changes["qlik"] = QlikState(
        "client-managed", "qlik01", Health("bad", refused), is_away=True,
        next_check_ns=now + 2 * 10**9, away_since_ns=now - 75 * 10**9, cause=refused,
    )  # fmt: skip
    return engine


def known():
    """A task that fails is known, deliveries were dropped, and everything is held."""
    engine = wrong()
    now = engine.clock_ns()
    failed = engine.changes["failing"][0]
    text = f"{failed.name} failed: {failed.reason}"
    at_ns = now - 600 * 10**9
    engine.changes["acknowledged"] = (
        Acknowledgement(
            "task", failed.task_id, str(failed.execution), "ann at the terminal", at_ns,
            "the DBA adds the table, ticket 4711", text, failed.name,
        ),
    )  # fmt: skip
    engine.changes["failing_acknowledged"] = 1
    counter = Counter.DELIVERIES_DROPPED_QUEUE_FULL.metric
    engine.changes["bites"] = (CounterBite(counter, 12, at_ns, now - 60 * 10**9, "1"),)
    engine.changes["counters"] = ((counter, 12), (Counter.LOGINS_REFUSED.metric, 2))
    engine.held["everything", ""] = HoldState(
        "everything", "", now + 3600 * 10**9, "new disks", "ann at the terminal", at_ns, waiting=2
    )
    reason = f"{HELD}by ann at the terminal (everything): new disks."
    engine.changes["waits"] = tuple(
        WaitState(f"Reload {name} #{number}", number, "hold", reason, None, now - number * 10**9)
        for number, name in ((50, "Sales"), (90, "Stock"))
    )
    return engine


def first():
    engine = FakeEngine(Clock())
    engine.changes["first_run"] = True
    return engine


def tasks():
    engine = live()
    earlier_runs(engine)
    return engine


def bridged():
    """Two bridges, and a message that one of them brought in again."""
    engine = live()
    engine.changes["bridges"] = bridges(engine.clock_ns())
    engine.publish_from("orders/7", b'{"order": 7}', client_id="$bridge/plant", qos=1)
    first = engine.ring.pop()
    properties = MessageProperties(user_properties=(("appliance-client", "erp-2"),)).encoded()
    engine.ring.append(
        msgspec.structs.replace(
            first,
            dup=True,
            packet_id=4,
            address="mqtt.example.com:8883",
            properties=properties,
        )
    )
    return engine


def starting():
    engine = FakeEngine(Clock())
    engine.changes["starting"] = True
    return engine


def viewer():
    engine = live()
    engine.is_remote = True
    engine.changes["link"] = Health("ok", "plant7:8883 as viewer")

    def refused(*_asked):
        raise NoPermissionError(
            "anna may look and not act here. Whoever may act is listed in the appliance's "
            "configuration: [access] operators."
        )

    engine.start_task = refused
    return engine


def detail():
    """Two readings of one sensor, the second one retained, in a recording."""
    engine = live()
    reading = b'{"station": "press 12", "values": [%d, 4], "ok": true}'
    engine.publish_from("/demo/integers", reading % 3)
    engine.publish_from("/demo/integers", reading % 5, qos=1, retain=True)
    return engine


def explained():
    engine = live()
    seq = engine.publish_from("plant/7/done", b'{"state": "done"}')
    engine.explanations[seq] = explanation(engine, seq=seq, led_to="It started nothing.")
    return engine


def values():
    engine = live()
    press_hour(engine)
    return engine


def sparkplug_birth():
    """What a node of Sparkplug B says of itself."""
    engine = live()
    engine.publish_from("spBv1.0/plant/NBIRTH/edge7", BIRTH, client_id="edge7")
    return engine


SHORT_OF_ONE = (79, 24)
CASES = {
    "live": (live, [], ""),
    "trouble": (trouble, [], "appliance-light"),
    "alarm": (alarm, ["3"], ""),
    "topics": (live, ["2", "down", "down", "down", "down"], ""),
    "values": (values, ["v", "down", "space"], ""),
    "sparkplug": (sparkplug_birth, ["enter"], ""),
    "tasks": (tasks, ["3"], ""),
    "timers": (alarm, ["3", "tab", "down", "down", "down"], ""),
    "clients": (live, ["4"], ""),
    "bridges": (bridged, ["4", "shift+tab"], ""),
    "bridge": (bridged, ["4", "shift+tab", "enter"], ""),
    "bridge-away": (bridged, ["4", "shift+tab", "down", "enter"], ""),
    "message-of-a-bridge": (bridged, ["enter"], ""),
    "problem-of-a-bridge": (bridged, ["exclamation_mark"], ""),
    "log": (live, ["5"], ""),
    "server-tasks": (tasks, ["6"], ""),
    "server-task": (tasks, ["6", "down", "down", "enter"], ""),
    "server-tasks-tree": (tasks, ["6", "T", "down", "down", "down"], ""),
    "freshness": (tasks, ["7"], ""),
    "message": (detail, ["enter"], ""),
    "message-raw": (detail, ["enter", "p"], ""),
    "message-hex": (detail, ["enter", "x"], ""),
    "message-difference": (detail, ["enter", "d"], ""),
    "explanation": (explained, ["E"], ""),
    "execution": (tasks, ["3", "enter"], ""),
    "search": (live, ["b", *"hr", "enter"], ""),
    "jump": (live, ["J"], ""),
    "zoom": (live, ["z"], ""),
    "publish": (live, ["n"], ""),
    "picker": (live, ["t"], ""),
    "question": (live, ["q"], ""),
    "help": (live, ["question_mark"], ""),
    "palette": (live, ["ctrl+p"], ""),
    "problems": (wrong, ["exclamation_mark"], ""),
    "problem-of-a-task": (wrong, ["exclamation_mark", "down"], ""),
    "problem-held": (known, ["exclamation_mark", "down", "down"], ""),
    "problem-of-a-counter": (known, ["exclamation_mark", "down"], ""),
    "problem-known": (known, ["exclamation_mark", *["down"] * 4], ""),
    "acknowledge": (wrong, ["exclamation_mark", "down", "a"], ""),
    "hold": (tasks, ["3", "H"], ""),
    "release": (known, ["H"], ""),
    "first-run": (first, [], ""),
    "starting": (starting, [], ""),
    "read-only": (viewer, ["t", "enter"], ""),
}


PAGES = ("live", "topics", "values", "tasks", "clients", "log", "message", "explanation", "execution", "search", "first-run",
         "help", "palette")  # fmt: skip
"""What is pictured in a huge terminal: each page once; dialogs look there as in a wide one."""


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(
            name,
            size,
            id=f"{name}-{size[0]}x{size[1]}",
            marks=[] if size == NARROW and name in PAGES else [pytest.mark.campaign],
        )
        for name in CASES
        for size in ((NARROW, WIDE, HUGE) if name in PAGES else (NARROW, WIDE))
    ],
)
def test_screen(snap_compare, name, size):
    """The screen looks as in the snapshot that was looked at."""
    make, keys, theme = CASES[name]
    app = app_for(make(), theme)
    assert snap_compare(app, terminal_size=size, run_before=shown(app, keys))


@pytest.mark.parametrize("size", [SHORT_OF_ONE, (30, 5)], ids=["79x24", "30x5"])
def test_too_small(snap_compare, size):
    """Below 80x24 the screen says so, also in very small terminals."""
    app = app_for(live(), "")
    assert snap_compare(app, terminal_size=size, run_before=shown(app, []))


def app_for(engine, theme):
    return ApplianceApp(engine, UiSettings(theme=theme), engine.clock_ns)


def shown(app, keys):
    """Press keys, and let workers and repaints finish."""

    async def settle(pilot):
        await app.workers.wait_for_complete()
        await pilot.pause()
        app._frame()
        await pilot.pause()

    async def bring(pilot):
        app.animation_level = "none"
        await settle(pilot)  # a key means what it means for what is on the screen by then
        for key in keys:
            await pilot.press(key)
            await settle(pilot)
        await settle(pilot)
        for field in app.screen.query("Input, TextArea"):
            field.cursor_blink = False
        await pilot.pause()

    return bring
