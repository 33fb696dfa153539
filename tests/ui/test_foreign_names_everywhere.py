"""Made-up names, payloads and error texts on a real appliance: every screen survives each of them.

The broker, the sockets of the clients and the simulated Qlik server are real. The terminal is in the
appliance's process, or attached.
"""

import asyncio
import contextlib

import pytest
from appliance_process import free_port, until as eventually
from hypothesis import HealthCheck, Phase, example, given, settings, strategies as st
from quick_appliance import LIMITS, WAITS
from screens import NARROW, settle
from textual.widgets import Input

from appliance.config.reading import loads
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.errors import ApplianceError
from appliance.model import ExecutionState
from appliance.mqtt.client import Client, Target
from tasks_rig import client_of
from appliance.qlik.simulated import Outcome, SimulatedQlik, SimulatedTask
from appliance.secret import Secret
from appliance.ui import filter_text, filters
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings

TEXTS = st.text(min_size=1, max_size=40) | st.sampled_from(
    [
        'x" since:zz',
        "[red]*?",
        "two  words ",
        "a\\b\\",
        "\x1b[2J",
        "\u202e日本",
        "!task:x",
        "=",
        '"',
    ]
)
NAMED = st.tuples(TEXTS, TEXTS, TEXTS, st.binary(max_size=200), TEXTS, TEXTS)
NASTY = (
    'x" since:zz',
    "[red]*?",
    'a//"b" c',
    b'\xff{"\x1b[2J',
    "two  [bold]words\u202e ",
    "\x1b]0;x\x07",
)
CONFIG = """
[service]
data_dir = '{folder}'
[[listener]]
bind = "127.0.0.1:{port}"
[qlik]
edition = "simulated"
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
"""
quick = settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
long = settings(quick, max_examples=6)


class Site:
    """An appliance in this process with a simulated Qlik server, and terminals for it."""

    def __init__(self, folder):
        self.folder = folder
        self.qlik = SimulatedQlik()
        self.port = free_port()

    def __enter__(self):
        self.qlik.start()
        text = CONFIG.format(folder=self.folder / "data", port=self.port)
        server = client_of(self.qlik)
        self.appliance = Appliance(
            loads(text, file=str(self.folder / "config.toml")), server=server, task_limits=LIMITS
        )
        self.appliance.start()
        self.view = View(self.appliance)
        return self

    def __exit__(self, *_error):
        self.appliance.stop()
        assert self.appliance.wait(60)
        self.qlik.stop()

    def happen(self, client_id, user, topic, payload, task, error):
        """A client publishes, and a task with these names fails."""
        self.qlik.site.add_task(
            one := SimulatedTask(task, duration_s=0.01, outcomes=(Outcome.FAIL,), error_text=error)
        )
        target = Target(
            "127.0.0.1", self.port, client_id=client_id, username=user, password=Secret("x")
        )
        client = Client(target)
        # What the standard has no room for is refused; it never gets to a screen.
        with contextlib.suppress(ApplianceError, ValueError):
            client.__enter__()
            client.publish(topic, payload, qos=1, retain=True)
        number = self.view.start_task(one.id, "test")
        eventually(lambda: self.view.execution(number).state.is_final, "the end of the run")
        assert self.view.execution(number).state is ExecutionState.FAILED
        return client


async def walk(engine, names, folder):
    """Every screen, every detail, every filter, export and copy."""
    app = ApplianceApp(engine, UiSettings(exports=folder))
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        for tab in "12345":
            await pilot.press(tab, "home")
            await settle(pilot)
            await pilot.press("enter")
            await settle(pilot)
            await pilot.press("c", "C", "e", "i", "enter", "escape", "escape")
            await settle(pilot)
            await pilot.press(tab, "slash")
            await settle(pilot)
            wanted = filters.Filter(texts=tuple(names))
            app.screen.query_one(Input).value = filter_text.text_of(wanted)
            await pilot.press("enter")
            await settle(pilot)
            assert app.page.filter == wanted
            await pilot.press("escape")
            await settle(pilot)
        await pilot.press("3", "tab", "enter")
        await settle(pilot)
        await pilot.press("1", "b", "escape", "enter", "p", "x", "d", "enter", "m", "escape")
        await settle(pilot)
        await pilot.press("1", "end", "v", "enter")
        await settle(pilot)
        await pilot.press("right", "s", "c", "C", "e", "down", "enter", "m", "escape")
        await settle(pilot)
        await pilot.press("7")
        await pilot.app.workers.wait_for_complete()
        await settle(pilot)
        await pilot.press("s", "v", "end", "c", "y", "escape", "m", "escape")
        await settle(pilot)
        await pilot.press("t")
        await settle(pilot)
        await pilot.press("escape", "ctrl+p")
        await settle(pilot)
        await pilot.press("escape", "q")
        await settle(pilot)


def with_names(site, engine, names, folder, caplog):
    client = site.happen(*names)
    try:
        asyncio.run(walk(engine, [one for one in names if isinstance(one, str)], folder))
    finally:
        with contextlib.suppress(ApplianceError):
            client.__exit__(None, None, None)
    assert not [one for one in caplog.records if one.name.startswith("appliance.ui")]


@pytest.fixture
def site(tmp_path, monkeypatch):
    from appliance.tasks.engine import TaskEngine

    monkeypatch.setattr(
        TaskEngine.__init__, "__kwdefaults__", {**TaskEngine.__init__.__kwdefaults__, **WAITS}
    )
    with Site(tmp_path) as made:
        yield made


@pytest.mark.campaign
@quick
@example(NASTY)
@given(NAMED)
def test_every_screen_survives_every_name(site, tmp_path, caplog, names):
    """At the appliance's own terminal."""
    with_names(site, site.view, names, tmp_path, caplog)


@pytest.fixture
def attached_engine(site):
    from appliance.remote.client_engine import AttachedEngine

    engine = AttachedEngine(Target("127.0.0.1", site.port, client_id="terminal"))
    engine.open(20)
    yield engine
    engine.close()


@pytest.mark.campaign
@pytest.mark.timeout(600)
@long
@given(NAMED)
def test_every_screen_survives_many_names(site, tmp_path, caplog, names):
    """The same with more names."""
    with_names(site, site.view, names, tmp_path, caplog)


@pytest.mark.campaign
@quick
@example(NASTY)
@given(NAMED)
def test_every_screen_of_an_attached_terminal_survives_every_name(
    site, attached_engine, tmp_path, caplog, names
):
    """The same at an attached terminal."""
    with_names(site, attached_engine, names, tmp_path, caplog)
